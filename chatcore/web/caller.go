package web

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/chatcore/assertion"
	"github.com/kidoban/kidoban/chatcore/chat"
)

// SessionCookie is the name of the cookie that holds a session's secret.
const SessionCookie = "chat_session"

// tokenHeaders are the API tokens a request carries, good or bad.
func tokenHeaders(r *http.Request) []string {
	tokens := r.Header.Values("X-ChatWorkToken")
	for _, v := range r.Header.Values("Authorization") {
		scheme, token, _ := strings.Cut(v, " ")
		if strings.EqualFold(scheme, "Bearer") {
			tokens = append(tokens[:len(tokens):len(tokens)], token)
		}
	}
	return tokens
}

// errNotVouched is a credential that no gateway vouches for. It does not say
// whether the credential is good: whoever stole one learns nothing.
var errNotVouched = chat.Errorf(chat.Unauthenticated, "This request did not come by the way it should")

// caller is who makes a request, or chat.ErrCredential. With a token the
// cookie is not looked at, and two tokens are no credential. Where assertions
// are asked for, one must say that the credential is its account's own.
func (h *handler) caller(r *http.Request) (chat.Caller, error) {
	if h.assertions == nil {
		return h.presented(r)
	}
	if _, err := r.Cookie(SessionCookie); err != nil && len(tokenHeaders(r)) == 0 {
		return chat.Caller{}, chat.ErrCredential
	}
	said, err := h.assertions.Verify(r)
	switch {
	case errors.Is(err, assertion.ErrKeys):
		h.log.ErrorContext(r.Context(), "assertions cannot be verified", "error", err.Error())
		return chat.Caller{}, chat.Errorf(chat.Unavailable, "The service cannot tell who you are just now")
	case err != nil:
		h.log.WarnContext(r.Context(), "refused around the gateway", "route", r.Pattern, "reason", err.Error())
		return chat.Caller{}, errNotVouched
	}
	c, err := h.presented(r)
	if err == nil && said.Subject != "" && said.Subject != strconv.FormatInt(int64(c.Account.ID), 10) {
		h.log.WarnContext(r.Context(), "refused around the gateway", "route", r.Pattern, "reason", "the assertion is about another account")
		return chat.Caller{}, errNotVouched
	}
	return c, err
}

// presented is whose credential a request presents.
func (h *handler) presented(r *http.Request) (chat.Caller, error) {
	switch tokens := tokenHeaders(r); len(tokens) {
	case 0:
	case 1:
		return h.svc.CallerByToken(r.Context(), tokens[0])
	default:
		return chat.Caller{}, chat.ErrCredential
	}
	c, err := r.Cookie(SessionCookie)
	if err != nil {
		return chat.Caller{}, chat.ErrCredential
	}
	return h.svc.CallerBySession(r.Context(), c.Value)
}

// owner is the caller, by a session: a token may not make more tokens nor
// take the account away from its owner.
func (h *handler) owner(r *http.Request) (chat.Caller, error) {
	c, err := h.caller(r)
	if err == nil && c.Credential.Token != 0 {
		err = chat.Errorf(chat.Forbidden, "This needs a session, not a token")
	}
	return c, err
}

// checkOrigin refuses what a foreign page makes a browser send. A request with
// a token header is exempt: a foreign page cannot set one, and with one the
// cookie counts for nothing.
func (h *handler) checkOrigin(r *http.Request) error {
	if len(tokenHeaders(r)) > 0 || h.csrf.Check(r) == nil {
		return nil
	}
	return chat.Errorf(chat.Forbidden, "The request came from another site")
}

func (h *handler) setSession(w http.ResponseWriter, secret string, s chat.Session) {
	http.SetCookie(w, &http.Cookie{Name: SessionCookie, Value: secret, Path: "/", HttpOnly: true, Secure: h.secure,
		SameSite: http.SameSiteLaxMode, MaxAge: int(s.ExpiresAt.Sub(s.CreatedAt) / time.Second)})
}

func (h *handler) clearSession(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{Name: SessionCookie, Path: "/", HttpOnly: true, Secure: h.secure,
		SameSite: http.SameSiteLaxMode, MaxAge: -1})
}
