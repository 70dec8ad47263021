// Package web serves a chat service over HTTP: an API in the shape of the
// Chatwork API v2, live events, and pages that work without scripts.
//
// Every body, list and wait is bounded. A request is read one way only: the
// content type decides how a body is parsed, the first of two equal fields
// wins, and the content that parsers are known to disagree about is refused.
// Browsers are known by a session cookie, whose state-changing requests must
// come from the service's own pages; programs by an API token, which a
// foreign page cannot send. When a request carries a token, cookies are
// ignored.
//
// Logs hold the route and never the path, its secrets, a body or a header.
package web

import (
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/assertion"
	"github.com/kidoban/kidoban/chatcore/chat"
)

// Options adjust a handler. The zero value serves plain HTTP on loopback.
type Options struct {
	// SecureCookies marks cookies as for https only. Set it whenever browsers
	// come by https, also when something in front ends it.
	SecureCookies bool

	// TrustedOrigins are other origins ("https://chat.example") whose pages
	// may act for a logged-in browser. Needed when something in front changes
	// the Host header.
	TrustedOrigins []string

	// Assertions verifies what a gateway in front says of requests. With it a
	// session or token is good only together with such a statement about its
	// account. Nil: nothing is asked for.
	Assertions *assertion.Verifier

	Log *slog.Logger // nil: nothing is logged
}

// Handler serves svc, which must stay open while the handler is used. It
// fails when a trusted origin is not one.
func Handler(svc *chatcore.Service, o Options) (http.Handler, error) {
	h := &handler{svc: svc, secure: o.SecureCookies, assertions: o.Assertions, log: o.Log, now: time.Now, csrf: http.NewCrossOriginProtection()}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	for _, origin := range o.TrustedOrigins {
		if err := h.csrf.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
		u, err := url.Parse(origin)
		if err != nil {
			return nil, err
		}
		h.origins = append(h.origins, u.Scheme+"://"+u.Host)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.HandleFunc("GET /static/{file}", serveStatic)

	// Both ways: pages and programs.
	mux.Handle("POST /login", h.either(h.login))
	mux.Handle("POST /logout", h.either(h.logout))
	mux.Handle("POST /password", h.either(h.changePassword))
	mux.Handle("POST /password/reset", h.either(h.requestReset))
	mux.Handle("POST /password/reset/{token}", h.either(h.resetPassword))

	mux.Handle("GET /{$}", http.RedirectHandler("/rooms", http.StatusSeeOther))
	mux.Handle("GET /login", h.page(h.loginPage))
	mux.Handle("GET /password/reset", h.page(h.requestResetPage))
	mux.Handle("GET /password/reset/{token}", h.page(h.resetPage))
	mux.Handle("GET /rooms", h.page(h.roomsPage))
	mux.Handle("GET /rooms/{room}", h.page(h.roomPage))
	mux.Handle("POST /rooms/{room}/messages", h.page(h.postForm))
	mux.Handle("POST /rooms/{room}/read", h.page(h.readForm))
	mux.Handle("GET /account", h.page(h.accountPage))
	mux.Handle("POST /account/language", h.page(h.languageForm))
	mux.Handle("POST /account/tokens", h.page(h.tokenForm))
	mux.Handle("POST /account/tokens/{token}/delete", h.page(h.deleteTokenForm))
	mux.Handle("/", h.page(func(http.ResponseWriter, *http.Request) error { return errNoPage }))

	mux.Handle("GET /v2/me", h.api(h.me))
	mux.Handle("GET /v2/my/tokens", h.api(h.tokens))
	mux.Handle("POST /v2/my/tokens", h.api(h.newToken))
	mux.Handle("DELETE /v2/my/tokens/{token}", h.api(h.deleteToken))
	mux.Handle("GET /v2/rooms", h.api(h.rooms))
	mux.Handle("POST /v2/rooms", h.api(h.newRoom))
	mux.Handle("GET /v2/rooms/{room}", h.api(h.room))
	mux.Handle("GET /v2/rooms/{room}/members", h.api(h.members))
	mux.Handle("PUT /v2/rooms/{room}/members", h.api(h.setMembers))
	mux.Handle("GET /v2/rooms/{room}/messages", h.api(h.messages))
	mux.Handle("POST /v2/rooms/{room}/messages", h.api(h.postMessage))
	mux.Handle("PUT /v2/rooms/{room}/messages/read", h.api(h.readMessages))
	mux.Handle("GET /v2/rooms/{room}/messages/{message}", h.api(h.message))
	mux.Handle("/v2/", h.api(func(http.ResponseWriter, *http.Request) error { return errNoPage }))

	mux.Handle("GET /events/poll", h.api(h.poll))
	mux.Handle("GET /events/ws", h.api(h.socket))
	return h.logged(headers(mux)), nil
}

// handler answers requests. Its fields do not change.
type handler struct {
	svc        *chatcore.Service
	secure     bool
	assertions *assertion.Verifier // nil: none are asked for
	origins    []string
	csrf       *http.CrossOriginProtection
	log        *slog.Logger
	now        func() time.Time
}

// action answers a request or says why not.
type action func(http.ResponseWriter, *http.Request) error

var errNoPage = chat.Errorf(chat.NotFound, "There is nothing here")

// api answers failures as JSON.
func (h *handler) api(f action) http.Handler {
	return h.guarded(f, h.failJSON)
}

// page answers failures as a page.
func (h *handler) page(f action) http.Handler {
	return h.guarded(f, h.failPage)
}

// either answers failures as the request was asked.
func (h *handler) either(f action) http.Handler {
	return h.guarded(f, func(w http.ResponseWriter, r *http.Request, err error) {
		if wantsJSON(r) {
			h.failJSON(w, r, err)
		} else {
			h.failPage(w, r, err)
		}
	})
}

func (h *handler) guarded(f action, fail func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h.checkOrigin(r)
		if err == nil {
			err = f(w, r)
		}
		if err != nil {
			fail(w, r, err)
		}
	})
}

func (h *handler) healthz(w http.ResponseWriter, r *http.Request) {
	if err := h.svc.Healthy(r.Context()); err != nil {
		h.log.ErrorContext(r.Context(), "health", "error", err.Error())
		http.Error(w, "not ok", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ok\n"))
}
