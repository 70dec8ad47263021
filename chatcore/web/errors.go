package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// statuses joins kinds of failure to HTTP.
var statuses = map[chat.Kind]int{
	chat.Internal:        http.StatusInternalServerError,
	chat.Invalid:         http.StatusBadRequest,
	chat.Unauthenticated: http.StatusUnauthorized,
	chat.Forbidden:       http.StatusForbidden,
	chat.NotFound:        http.StatusNotFound,
	chat.Conflict:        http.StatusConflict,
	chat.Gone:            http.StatusGone,
	chat.TooLarge:        http.StatusRequestEntityTooLarge,
	chat.Unsupported:     http.StatusUnsupportedMediaType,
	chat.Unavailable:     http.StatusServiceUnavailable,
}

// heard is what a client hears of err: a status and a sentence. The cause of
// an error without a kind goes to the log and stays there.
func (h *handler) heard(r *http.Request, err error) (int, string) {
	if e, ok := errors.AsType[*chat.Error](err); ok {
		return statuses[e.Kind], e.Message
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return http.StatusServiceUnavailable, "The request took too long"
	}
	h.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "route", r.Pattern, "error", err.Error())
	return http.StatusInternalServerError, "Something went wrong here"
}

func (h *handler) failJSON(w http.ResponseWriter, r *http.Request, err error) {
	status, message := h.heard(r, err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, map[string][]string{"errors": {message}})
}

func (h *handler) failPage(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, chat.ErrCredential) {
		// Whoever is not logged in logs in first, and comes back to a page
		// that was asked for by its address.
		to := "/login"
		if r.Method == http.MethodGet && r.URL.Path != "/rooms" {
			to += "?next=" + url.QueryEscape(r.URL.RequestURI())
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	status, message := h.heard(r, err)
	var who *chat.Caller
	if !errors.Is(err, errNotVouched) {
		if c, err := h.owner(r); err == nil {
			who = &c
		}
	}
	p := h.newPage(w, r, who)
	p.Data = errors.Is(err, chat.ErrResetGone) // another link may be asked for
	if key := texts(err); key != "" {
		message = p.T(key)
	} else if key := "error." + http.StatusText(status); p.has(key) {
		message = p.T(key)
	}
	p.Error = message
	h.render(w, r, status, "error", p)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.Encode(v) // a client that went away is no failure of ours
}

// writeList writes a list as the API does: an empty one is 204 and no body.
func writeList[T any](w http.ResponseWriter, list []T) {
	if len(list) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	writeJSON(w, http.StatusOK, list)
}
