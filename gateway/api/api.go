// Package api is what operators and their tools speak to: decisions, sessions,
// recent events, health and the report, as JSON under /v1.
//
// Every call is authenticated by an operator's key (Authorization: Bearer) and
// carries that operator's name into what it does. Errors are RFC 9457 problem
// documents that name the field at fault. Bodies, lists and answers are bounded.
// The API is served on a listener of its own, so that it answers while the front
// is under attack.
package api

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// maxBody bounds a request body in bytes.
const maxBody = 64 << 10

// Server is what the API needs. All fields are required.
type Server struct {
	Decisions *policies.Decisions
	Sessions  *auth.Sessions
	Ledger    *policies.Ledger
	Stream    *stream.Stream
	Rules     func() *rules.Set
	Faults    func() []error // rule files left out, and why
	Now       func() time.Time
	Log       *slog.Logger

	// Keys maps the name of an operator to the SHA-256 of the key.
	Keys map[string][sha256.Size]byte
}

// Handler returns the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, h func(*http.Request, string) (any, int, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			operator, ok := s.operator(r)
			if !ok {
				w.Header().Set("WWW-Authenticate", `Bearer realm="kidoban"`)
				s.fail(w, r, &Error{Status: http.StatusUnauthorized, Title: "An operator's key is needed", Detail: "send Authorization: Bearer KEY"})
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			body, status, err := h(r, operator)
			if err != nil {
				s.fail(w, r, err)
				return
			}
			send(w, status, "application/json", body)
		})
	}
	route("GET /v1/health", s.health)
	route("GET /v1/decisions", s.listDecisions)
	route("POST /v1/decisions", s.registerDecision)
	route("GET /v1/decisions/{id}", s.getDecision)
	route("DELETE /v1/decisions/{id}", s.liftDecision)
	route("GET /v1/events", s.events)
	route("GET /v1/report", s.report)
	route("GET /v1/accounts/{account}/sessions", s.listSessions)
	route("DELETE /v1/accounts/{account}/sessions", s.endSessions)
	route("DELETE /v1/sessions/{id}", s.endSession)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &Error{Status: http.StatusNotFound, Title: "There is no such resource"})
	})
	return mux
}

// operator returns the name behind the request's key. Every key is compared, in
// constant time, whichever matches.
func (s *Server) operator(r *http.Request) (string, bool) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || key == "" {
		return "", false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(key)))
	found := ""
	for name, want := range s.Keys {
		if subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
			found = name
		}
	}
	return found, found != ""
}

// Error is an error with what the caller may know of it.
type Error struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	Field  string `json:"field,omitempty"` // the field at fault
}

func (e *Error) Error() string { return e.Title + ": " + e.Detail }

// fail renders err. An error without a kind is a 500 whose cause is logged, not shown.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var (
		known   *Error
		fields  policies.FieldErrors
		tooBig  *http.MaxBytesError
		problem Error
	)
	switch {
	case errors.As(err, &known):
		problem = *known
	case errors.As(err, &fields):
		problem = Error{Status: http.StatusUnprocessableEntity, Title: "A field is not valid", Detail: fields.Error(), Field: fields[0].Field}
	case errors.As(err, &tooBig):
		problem = Error{Status: http.StatusRequestEntityTooLarge, Title: "The body is too large", Detail: fmt.Sprintf("at most %d bytes", maxBody)}
	case errors.Is(err, policies.ErrNotFound), errors.Is(err, auth.ErrNoSession):
		problem = Error{Status: http.StatusNotFound, Title: "There is no such thing"}
	case errors.Is(err, auth.ErrSessionEnded), errors.Is(err, auth.ErrExpired):
		problem = Error{Status: http.StatusConflict, Title: "The session has ended already"}
	default:
		s.Log.Error("operators' API", "method", r.Method, "path", r.URL.Path, "error", err)
		problem = Error{Status: http.StatusInternalServerError, Title: "Something failed here", Detail: "the log has the cause"}
	}
	send(w, problem.Status, "application/problem+json", problem)
}

func send(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, "encoding the answer failed", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // a client that went away is not our failure
}

type health struct {
	Status string   `json:"status"` // ok, or degraded: see faults
	Rules  int      `json:"rules"`
	Faults []string `json:"faults"`
}

func (s *Server) health(*http.Request, string) (any, int, error) {
	h := health{Status: "ok", Rules: len(s.Rules().Rules()), Faults: []string{}}
	for _, err := range s.Faults() {
		h.Status = "degraded"
		h.Faults = append(h.Faults, err.Error())
	}
	return h, http.StatusOK, nil
}

type decisionPage struct {
	Decisions []policies.Decision `json:"decisions"`
	Next      string              `json:"next,omitempty"` // cursor of the next page
}

func (s *Server) listDecisions(r *http.Request, _ string) (any, int, error) {
	q := r.URL.Query()
	query := policies.DecisionQuery{
		Scope: policies.Scope(q.Get("scope")), Value: q.Get("value"), Address: q.Get("address"),
		Origin: policies.Origin(q.Get("origin")), By: q.Get("by"), Rule: rules.ID(q.Get("rule")),
		State: cmp.Or(q.Get("state"), "live"), Cursor: q.Get("cursor"),
	}
	if query.State == "any" {
		query.State = ""
	}
	list, next, err := s.Decisions.List(query, s.Now())
	if list == nil {
		list = []policies.Decision{}
	}
	return decisionPage{list, next}, http.StatusOK, err
}

// registration is what POST /v1/decisions takes.
type registration struct {
	Scope  policies.Scope `json:"scope"`
	Value  string         `json:"value"`
	Action rules.Action   `json:"action"`
	Until  time.Time      `json:"until"` // or ttl
	TTL    string         `json:"ttl"`   // such as 30s, 15m, 24h
	Reason string         `json:"reason"`
}

func (s *Server) registerDecision(r *http.Request, operator string) (any, int, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, 0, &Error{Status: http.StatusUnsupportedMediaType, Title: "JSON is needed", Detail: "send Content-Type: application/json"}
	}
	in := registration{Action: rules.Refuse}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return nil, 0, err
		}
		return nil, 0, &Error{Status: http.StatusBadRequest, Title: "The body is not a registration", Detail: err.Error()}
	}
	now := s.Now()
	switch {
	case in.TTL != "" && !in.Until.IsZero():
		return nil, 0, &Error{Status: http.StatusUnprocessableEntity, Title: "A field is not valid", Detail: "give until or ttl, not both", Field: "ttl"}
	case in.TTL != "":
		d, err := time.ParseDuration(in.TTL)
		if err != nil {
			return nil, 0, &Error{Status: http.StatusUnprocessableEntity, Title: "A field is not valid", Detail: "ttl: want a duration such as 30s, 15m or 24h", Field: "ttl"}
		}
		in.Until = now.Add(d)
	}
	d, err := s.Decisions.Register(r.Context(), policies.Decision{
		Scope: in.Scope, Value: in.Value, Action: in.Action, Mode: rules.Enforce, Origin: policies.OriginOperator,
		By: operator, Reason: in.Reason, Until: in.Until,
	}, now)
	if err != nil {
		return nil, 0, err
	}
	s.Log.Info("decision registered", "operator", operator, "decision", d.ID, "scope", string(d.Scope), "value", d.Value, "action", d.Action.String(), "until", d.Until)
	return d, http.StatusCreated, nil
}

func (s *Server) getDecision(r *http.Request, _ string) (any, int, error) {
	d, err := s.Decisions.Get(r.PathValue("id"), s.Now())
	return d, http.StatusOK, err
}

func (s *Server) liftDecision(r *http.Request, operator string) (any, int, error) {
	d, err := s.Decisions.Lift(r.Context(), r.PathValue("id"), operator, s.Now())
	if err != nil {
		return nil, 0, err
	}
	s.Log.Info("decision lifted", "operator", operator, "decision", d.ID)
	return d, http.StatusOK, nil
}

func (s *Server) events(r *http.Request, _ string) (any, int, error) {
	n := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > 1000 {
			return nil, 0, &Error{Status: http.StatusUnprocessableEntity, Title: "A parameter is not valid", Detail: "limit: want 1 to 1000", Field: "limit"}
		}
	}
	events := s.Stream.Recent(n)
	if events == nil {
		events = []detectors.Event{}
	}
	return map[string]any{"events": events}, http.StatusOK, nil
}

func (s *Server) report(r *http.Request, _ string) (any, int, error) {
	now := s.Now()
	from := now.Add(-24 * time.Hour)
	if text := r.URL.Query().Get("from"); text != "" {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, 0, &Error{Status: http.StatusUnprocessableEntity, Title: "A parameter is not valid", Detail: "from: want a time such as 2026-01-31T09:00:00Z", Field: "from"}
		}
		from = t
	}
	rows, err := s.Ledger.Report(r.Context(), from, now)
	if rows == nil {
		rows = []policies.LedgerRow{}
	}
	return map[string]any{"from": from, "to": now, "rows": rows}, http.StatusOK, err
}

func (s *Server) listSessions(r *http.Request, _ string) (any, int, error) {
	list, err := s.Sessions.OfSubject(r.Context(), r.PathValue("account"), s.Now())
	if list == nil {
		list = []auth.Session{}
	}
	return map[string]any{"sessions": list}, http.StatusOK, err
}

func (s *Server) endSessions(r *http.Request, operator string) (any, int, error) {
	list, err := s.Sessions.EndAll(r.Context(), r.PathValue("account"), "operator:"+operator, s.Now())
	if list == nil {
		list = []auth.Session{}
	}
	s.Log.Info("sessions ended", "operator", operator, "account", r.PathValue("account"), "sessions", len(list))
	return map[string]any{"sessions": list}, http.StatusOK, err
}

func (s *Server) endSession(r *http.Request, operator string) (any, int, error) {
	ended, err := s.Sessions.End(r.Context(), r.PathValue("id"), "operator:"+operator, s.Now())
	if err != nil {
		return nil, 0, err
	}
	s.Log.Info("session ended", "operator", operator, "session", ended.ID)
	return ended, http.StatusOK, nil
}

// HashKey is how a key is kept.
func HashKey(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }
