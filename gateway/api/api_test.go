package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/api"
	"github.com/kidoban/kidoban/gateway/once"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	key       = "2Jw7aFq0rXk9LmT4vBn6ZyPc" // alice's, a responder
	viewerKey = "vV3gQh8sDk1LzX5pRt7WmNbY"
	agedKey   = "oO2fUe6iGj0KaS4dHl9CqTxZ"
	accessKey = "KIDOBANTESTALICE" // alice's too
	secret    = "hRe7/Kq2+vNw8ZtLx4PbYc1MuJd6GsAf0oEi3TnB"
)

// server is the API over stores in memory, with a clock that tests move and parts
// that tests break.
type server struct {
	http.Handler
	t         *testing.T
	api       *api.Server
	decisions *policies.Decisions
	sessions  *auth.Sessions
	devices   *auth.Devices
	factors   *auth.Factors
	slips     *auth.Slips
	holds     *auth.Holds
	events    *stream.Stream
	log       lockedBuffer
	today     bool // the clock is the machine's

	mu     sync.Mutex
	at     time.Time
	broken error // what acts and reads fail with
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}
func (b *lockedBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.buf.String() }

func (s *server) now() time.Time {
	if s.today {
		return time.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *server) advance(d time.Duration) { s.mu.Lock(); defer s.mu.Unlock(); s.at = s.at.Add(d) }

func (s *server) fault() error { s.mu.Lock(); defer s.mu.Unlock(); return s.broken }

func (s *server) breakWith(err error) { s.mu.Lock(); defer s.mu.Unlock(); s.broken = err }

// The server is its own [api.Acts], [api.Decisions] and [api.Sessions].

func (s *server) RegisterDecision(ctx context.Context, d policies.Decision) (policies.Decision, bool, error) {
	if err := s.fault(); err != nil {
		return policies.Decision{}, false, err
	}
	r, err := s.decisions.Register(ctx, d, s.now())
	return r.Decision, r.Change == policies.Registered, err
}

func (s *server) LiftDecision(ctx context.Context, id, by string) (policies.Decision, error) {
	if err := s.fault(); err != nil {
		return policies.Decision{}, err
	}
	return s.decisions.Lift(ctx, id, policies.Act{By: by}, s.now())
}

func (s *server) EndSession(ctx context.Context, id, by string) (auth.Session, error) {
	if err := s.fault(); err != nil {
		return auth.Session{}, err
	}
	return s.sessions.End(ctx, id, auth.Act{By: by}, s.now())
}

func (s *server) EndSessions(ctx context.Context, account, by string) ([]auth.Session, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.sessions.EndAll(ctx, account, auth.Act{By: by}, s.now())
}

func (s *server) Get(ctx context.Context, id string, now time.Time) (policies.Decision, error) {
	if err := s.fault(); err != nil {
		return policies.Decision{}, err
	}
	return s.decisions.Get(ctx, id, now)
}

func (s *server) List(ctx context.Context, q policies.DecisionQuery, now time.Time) ([]policies.Decision, string, error) {
	if err := s.fault(); err != nil {
		return nil, "", err
	}
	return s.decisions.List(ctx, q, now)
}

func (s *server) OfSubject(ctx context.Context, subject string, now time.Time) ([]auth.Session, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.sessions.OfSubject(ctx, subject, now)
}

// newServer returns a server whose clock stands still; change may alter it first.
func newServer(t *testing.T, change ...func(*server)) *server {
	t.Helper()
	s := &server{t: t, at: time.Date(2026, 11, 23, 9, 5, 0, 0, time.UTC)}
	var err error
	if s.decisions, err = policies.OpenDecisions(t.Context(), policies.NewMemoryStore(), s.at); err != nil {
		t.Fatal(err)
	}
	if s.sessions, err = auth.OpenSessions(t.Context(), auth.NewMemoryStore(), auth.SessionsConfig{}, s.at); err != nil {
		t.Fatal(err)
	}
	s.events = stream.New("a.b", 7, s.now)
	openFactors(t, s)
	operators, err := api.NewOperators([]api.Key{
		{Name: "alice", Role: api.Responder, Hash: api.HashKey(key)},
		{Name: "victor", Role: api.Viewer, Hash: api.HashKey(viewerKey)},
		{Name: "olga", Role: api.Admin, Hash: api.HashKey(agedKey), Expires: s.at.Add(time.Hour)},
	}, []api.SigningKey{
		{Name: "alice", Role: api.Responder, ID: accessKey, Secret: secret},
		{Name: "olga", Role: api.Admin, ID: "KIDOBANTESTOLGA", Secret: secret, Expires: s.at.Add(time.Hour)},
	}, "execute-api")
	if err != nil {
		t.Fatal(err)
	}
	set, faults := shipped()
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s.api = &api.Server{
		Acts: s, Decisions: s, Sessions: s, Devices: devices{s}, Factors: factors{s}, Slips: s, Holds: holds{s}, Search: s.events.Search, Rules: func() *rules.Set { return set }, Life: life{s}, Incidents: cases{s},
		Report: func(context.Context, time.Time, time.Time) ([]policies.LedgerRow, error) {
			return []policies.LedgerRow{{Control: "decisions", Action: rules.StepUp, Reason: policies.ReasonDecision, Rule: "stuffing.sequential", Count: 3,
				First: s.at.Truncate(time.Hour), Last: s.at.Truncate(time.Hour)}}, s.fault()
		},
		Operators: operators, Once: once.NewMemory(s.now), Now: s.now, Log: slog.New(slog.NewJSONHandler(&s.log, nil)),
	}
	for _, f := range change {
		f(s)
	}
	s.Handler = s.api.Handler()
	t.Cleanup(func() {
		for _, text := range []string{key, viewerKey, agedKey, secret} {
			if strings.Contains(s.log.String(), text) {
				t.Error("a key stands in the log")
			}
		}
	})
	return s
}

// newCall is a call of alice; header is name, value, name, value. An empty value
// removes the header.
func newCall(method, target, body string, header ...string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			r.Header.Del(header[i])
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	return r
}

// do serves a call and holds the exchange to the contract.
func (s *server) do(r *http.Request) *httptest.ResponseRecorder {
	s.t.Helper()
	var sent []byte
	if r.Body != nil {
		sent, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if err := theContract(s.t).check(r, sent, w); err != nil {
		s.t.Errorf("%s %s = %d, against the contract: %v\n%s", r.Method, r.URL, w.Code, err, w.Body)
	}
	return w
}

// call is do with the answer read.
func (s *server) call(method, target, body string, header ...string) (int, map[string]any) {
	s.t.Helper()
	w := s.do(newCall(method, target, body, header...))
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil && w.Code != http.StatusNotModified {
		s.t.Fatalf("%s %s: %d %q is not JSON: %v", method, target, w.Code, w.Body, err)
	}
	return w.Code, out
}

const registration = `{"scope":"address","value":"203.0.113.7","ttl":"30s","reason":"list attack"}`

func TestDecisionsComeAndGo(t *testing.T) {
	s := newServer(t)
	w := s.do(newCall("POST", "/v1/decisions", `{"scope":"address","value":"::ffff:203.0.113.7","action":"refuse","ttl":"30s","reason":"list attack"}`,
		"Content-Type", "application/json; charset=utf-8"))
	var made policies.Decision
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != http.StatusCreated || made.Value != "203.0.113.7" ||
		made.By != "alice" || made.Reason != "list attack" || !made.Until.Equal(s.at.Add(30*time.Second)) || made.Action != rules.Refuse {
		t.Fatalf("register = %d %s", w.Code, w.Body)
	}
	if got := w.Header().Get("Location"); got != "/v1/decisions/"+made.ID {
		t.Errorf("Location = %q", got)
	}
	// Asking for less keeps the later end; asking for more extends.
	status, again := s.call("POST", "/v1/decisions", strings.Replace(registration, "30s", "10s", 1))
	if status != 200 || again["id"] != made.ID || again["until"] != made.Until.Format(time.RFC3339) {
		t.Errorf("registering for less = %d %v, want the same decision and end", status, again)
	}
	status, more := s.call("POST", "/v1/decisions", strings.Replace(registration, "30s", "60s", 1))
	if status != 200 || more["id"] != made.ID || more["until"] != s.at.Add(time.Minute).Format(time.RFC3339) {
		t.Errorf("registering for more = %d %v, want the same decision and a later end", status, more)
	}
	_, list := s.call("GET", "/v1/decisions?address=203.0.113.7", "")
	if got := list["decisions"].([]any); len(got) != 1 {
		t.Errorf("list = %v, want one", got)
	}
	if status, _ := s.call("GET", "/v1/decisions/"+made.ID, ""); status != 200 {
		t.Errorf("get = %d", status)
	}
	for range 2 { // lifting twice gives what lifting once gave
		if status, lifted := s.call("DELETE", "/v1/decisions/"+made.ID, ""); status != 200 || lifted["lifted_by"] != "alice" {
			t.Errorf("lift = %d %v", status, lifted)
		}
	}
	for target, want := range map[string]int{"": 0, "&state=ended": 1, "&state=any": 1} {
		_, list = s.call("GET", "/v1/decisions?address=203.0.113.7"+target, "")
		if got := list["decisions"].([]any); len(got) != want {
			t.Errorf("list%s after lifting = %v, want %d", target, got, want)
		}
	}
	// One that ended on time can be read and not lifted.
	_, short := s.call("POST", "/v1/decisions", `{"scope":"network","value":"198.51.100.0/24","ttl":"1s","reason":"x"}`)
	s.advance(time.Second)
	if status, _ := s.call("DELETE", "/v1/decisions/"+short["id"].(string), ""); status != 404 {
		t.Errorf("lifting what is over = %d, want 404", status)
	}
	if status, _ := s.call("GET", "/v1/decisions/"+short["id"].(string), ""); status != 200 {
		t.Errorf("reading what is over = %d", status)
	}
}

func TestPagesOfDecisions(t *testing.T) {
	s := newServer(t)
	for _, a := range []string{"1", "2", "3", "4", "5"} {
		s.call("POST", "/v1/decisions", strings.Replace(registration, "203.0.113.7", "203.0.113."+a, 1))
	}
	var values []string
	target := "/v1/decisions?limit=2"
	for pages := 0; target != "" && pages < 5; pages++ {
		_, page := s.call("GET", target, "")
		for _, d := range page["decisions"].([]any) {
			values = append(values, d.(map[string]any)["value"].(string))
		}
		next, more := page["next"].(string)
		target = "/v1/decisions?limit=2&cursor=" + next
		if !more {
			target = ""
		}
	}
	if got := strings.Join(values, " "); len(values) != 5 || strings.Count(got, "203.0.113.") != 5 {
		t.Errorf("the pages have %s", got)
	}
}

func TestFaultsNameTheField(t *testing.T) {
	s := newServer(t)
	post := func(body string) []string { return []string{"POST", "/v1/decisions", body} }
	for _, test := range []struct {
		name    string
		call    []string
		headers []string
		status  int
		where   string // of the first fault
	}{
		{"not JSON", post(`{}`), []string{"Content-Type", "text/plain"}, 415, ""},
		{"no type", post(`{}`), []string{"Content-Type", ""}, 415, ""},
		{"another charset", post(`{}`), []string{"Content-Type", "application/json; charset=shift_jis"}, 415, ""},
		{"encoded", post(`{}`), []string{"Content-Encoding", "gzip"}, 415, ""},
		{"empty", post(""), []string{"Content-Type", "application/json"}, 400, ""},
		{"broken", post(`{"scope":`), nil, 400, ""},
		{"an array", post(`[]`), nil, 400, ""},
		{"not UTF-8", post("{\"reason\":\"\xff\"}"), nil, 400, ""},
		{"unknown field", post(`{"scop":"address"}`), nil, 400, ""},
		{"other case", post(`{"Scope":"address"}`), nil, 400, ""},
		{"duplicate", post(`{"scope":"address","scope":"network"}`), nil, 400, ""},
		{"duplicate inside", post(`{"scope":{"a":1,"a":2}}`), nil, 400, ""},
		{"trailing", post(registration + `{}`), nil, 400, ""},
		{"deep", post(`{"scope":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`), nil, 400, ""},
		{"wrong kind", post(`{"scope":7,"value":"203.0.113.7","ttl":"1m","reason":"x"}`), nil, 422, "#/scope"},
		{"unknown action", post(`{"scope":"address","value":"203.0.113.7","action":"explode","ttl":"1m","reason":"x"}`), nil, 422, "#/action"},
		{"unknown mode", post(`{"scope":"address","value":"203.0.113.7","mode":"dream","ttl":"1m","reason":"x"}`), nil, 422, "#/mode"},
		{"bad prefix", post(`{"scope":"network","value":"203.0.113.0/33","ttl":"1m","reason":"x"}`), nil, 422, "#/value"},
		{"bad scope", post(`{"scope":"planet","value":"earth","ttl":"1m","reason":"x"}`), nil, 422, "#/scope"},
		{"everything", post(`{"scope":"network","value":"0.0.0.0/0","ttl":"1m","reason":"x"}`), nil, 422, "#/value"},
		{"no end", post(`{"scope":"address","value":"203.0.113.7","reason":"x"}`), nil, 422, "#/ttl"},
		{"no reason", post(`{"scope":"address","value":"203.0.113.7","ttl":"1m"}`), nil, 422, "#/reason"},
		{"a long reason", post(`{"scope":"address","value":"203.0.113.7","ttl":"1m","reason":"` + strings.Repeat("x", 501) + `"}`), nil, 422, "#/reason"},
		{"bad ttl", post(`{"scope":"address","value":"203.0.113.7","ttl":"soon","reason":"x"}`), nil, 422, "#/ttl"},
		{"negative ttl", post(`{"scope":"address","value":"203.0.113.7","ttl":"-1s","reason":"x"}`), nil, 422, "#/ttl"},
		{"too long a ttl", post(`{"scope":"address","value":"203.0.113.7","ttl":"9000h","reason":"x"}`), nil, 422, "#/ttl"},
		{"bad until", post(`{"scope":"address","value":"203.0.113.7","until":"tomorrow","reason":"x"}`), nil, 422, "#/until"},
		{"past until", post(`{"scope":"address","value":"203.0.113.7","until":"2020-01-01T00:00:00Z","reason":"x"}`), nil, 422, "#/until"},
		{"two ends", post(`{"scope":"address","value":"203.0.113.7","ttl":"1m","until":"2026-11-23T10:00:00Z","reason":"x"}`), nil, 422, "#/ttl"},
		{"too large", post(`{"reason":"` + strings.Repeat("x", 70000) + `"}`), nil, 413, ""},
		{"bad key", post(registration), []string{"Idempotency-Key", "a b"}, 422, "Idempotency-Key"},
		{"bad state", []string{"GET", "/v1/decisions?state=maybe", ""}, nil, 422, "state"},
		{"bad address", []string{"GET", "/v1/decisions?address=here", ""}, nil, 422, "address"},
		{"bad origin", []string{"GET", "/v1/decisions?origin=mars", ""}, nil, 422, "origin"},
		{"value alone", []string{"GET", "/v1/decisions?value=1", ""}, nil, 422, "value"},
		{"bad page", []string{"GET", "/v1/decisions?limit=201", ""}, nil, 422, "limit"},
		{"empty page", []string{"GET", "/v1/decisions?limit=", ""}, nil, 422, "limit"},
		{"bad cursor", []string{"GET", "/v1/decisions?cursor=!", ""}, nil, 422, "cursor"},
		{"unknown parameter", []string{"GET", "/v1/decisions?adress=203.0.113.7", ""}, nil, 422, "adress"},
		{"a parameter twice", []string{"GET", "/v1/decisions?state=live&state=any", ""}, nil, 422, "state"},
		{"a query that is none", []string{"GET", "/v1/decisions?state=%zz", ""}, nil, 400, ""},
		{"bad limit", []string{"GET", "/v1/events?limit=0", ""}, nil, 422, "limit"},
		{"bad kind", []string{"GET", "/v1/events?kind=odd", ""}, nil, 422, "kind"},
		{"bad outcome", []string{"GET", "/v1/events?outcome=odd", ""}, nil, 422, "outcome"},
		{"bad source", []string{"GET", "/v1/events?source=here", ""}, nil, 422, "source"},
		{"bad event cursor", []string{"GET", "/v1/events?cursor=x", ""}, nil, 422, "cursor"},
		{"bad from", []string{"GET", "/v1/report?from=yesterday", ""}, nil, 422, "from"},
		{"from after to", []string{"GET", "/v1/report?from=2026-11-23T10:00:00Z&to=2026-11-23T09:00:00Z", ""}, nil, 422, "from"},
		{"no such decision", []string{"GET", "/v1/decisions/nonsense", ""}, nil, 404, ""},
		{"no such session", []string{"DELETE", "/v1/sessions/nonsense", ""}, nil, 404, ""},
		{"no such resource", []string{"GET", "/v2/decisions", ""}, nil, 404, ""},
		{"a path that is not clean", []string{"GET", "/v1//decisions", ""}, nil, 404, ""},
		{"dots", []string{"GET", "/v1/x/../decisions", ""}, nil, 404, ""},
		{"a slash at the end", []string{"GET", "/v1/decisions/", ""}, nil, 404, ""},
		{"no such method", []string{"PUT", "/v1/decisions", registration}, nil, 405, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := s.call(test.call[0], test.call[1], test.call[2], test.headers...)
			where := ""
			if errs, _ := body["errors"].([]any); len(errs) > 0 {
				f := errs[0].(map[string]any)
				for _, name := range []string{"pointer", "parameter", "header"} {
					text, _ := f[name].(string)
					where += text
				}
			}
			if status != test.status || where != test.where || body["title"] == "" {
				t.Errorf("= %d %v, want %d naming %q", status, body, test.status, test.where)
			}
		})
	}
	// All faults are told at once.
	_, body := s.call("POST", "/v1/decisions", `{"scope":"network","value":"x","action":"y","ttl":"z"}`)
	if errs := body["errors"].([]any); len(errs) != 4 {
		t.Errorf("errors = %v, want value, action, ttl and reason", errs)
	}
}

func TestMethods(t *testing.T) {
	s := newServer(t)
	w := s.do(newCall("OPTIONS", "/v1/decisions", ""))
	if w.Code != 204 || w.Header().Get("Allow") != "GET, HEAD, OPTIONS, POST" {
		t.Errorf("OPTIONS = %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	w = s.do(newCall("PATCH", "/v1/sessions/x", ""))
	if w.Code != 405 || w.Header().Get("Allow") != "DELETE, OPTIONS" {
		t.Errorf("PATCH = %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	live := httptest.NewServer(s)
	defer live.Close()
	r, _ := http.NewRequest("HEAD", live.URL+"/v1/decisions", nil)
	r.Header.Set("Authorization", "Bearer "+key)
	res, err := live.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 || len(body) != 0 || res.ContentLength < 10 || res.Header.Get("ETag") == "" {
		t.Errorf("HEAD = %d %d %q %v", res.StatusCode, res.ContentLength, body, res.Header)
	}
}

func TestConditionalReads(t *testing.T) {
	s := newServer(t)
	_, made := s.call("POST", "/v1/decisions", registration)
	for _, target := range []string{"/v1/decisions", "/v1/decisions/" + made["id"].(string), "/v1/openapi.yaml"} {
		w := s.do(newCall("GET", target, ""))
		tag := w.Header().Get("ETag")
		if w.Code != 200 || tag == "" || w.Header().Get("Cache-Control") != "private, no-cache" {
			t.Fatalf("%s = %d, ETag %q, %q", target, w.Code, tag, w.Header().Get("Cache-Control"))
		}
		for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
			if w := s.do(newCall("GET", target, "", "If-None-Match", match)); w.Code != 304 || w.Body.Len() != 0 {
				t.Errorf("%s with If-None-Match %s = %d %q, want 304", target, match, w.Code, w.Body)
			}
		}
		if w := s.do(newCall("GET", target, "", "If-None-Match", `"x"`)); w.Code != 200 {
			t.Errorf("%s with another ETag = %d, want 200", target, w.Code)
		}
		if target != "/v1/openapi.yaml" {
			s.advance(time.Second) // so that the same time to live ends later
			s.call("POST", "/v1/decisions", registration)
			if w := s.do(newCall("GET", target, "", "If-None-Match", tag)); w.Code != 200 {
				t.Errorf("%s after a change = %d, want 200", target, w.Code)
			}
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	s := newServer(t)
	first := s.do(newCall("POST", "/v1/decisions", registration, "Idempotency-Key", "a1"))
	s.advance(10 * time.Second)
	for _, name := range []string{"a1", `"a1"`} {
		again := s.do(newCall("POST", "/v1/decisions", registration, "Idempotency-Key", name))
		if again.Code != 201 || again.Body.String() != first.Body.String() || again.Header().Get("Location") != first.Header().Get("Location") || again.Header().Get("Idempotent-Replayed") != "true" {
			t.Errorf("again under %s = %d %v %s, want the answer of the first", name, again.Code, again.Header(), again.Body)
		}
	}
	status, other := s.call("POST", "/v1/decisions", strings.Replace(registration, "30s", "31s", 1), "Idempotency-Key", "a1")
	if status != 422 || !strings.HasSuffix(other["type"].(string), "/key-reused") {
		t.Errorf("another body under the key = %d %v, want 422", status, other)
	}
	if status, _ := s.call("POST", "/v1/decisions", registration, "Idempotency-Key", "a2"); status != 200 {
		t.Errorf("another key = %d, want 200: it extends", status)
	}
	// What failed is not kept.
	s.breakWith(api.ErrUnavailable)
	if status, _ := s.call("POST", "/v1/decisions", registration, "Idempotency-Key", "a3"); status != 503 {
		t.Errorf("while away = %d, want 503", status)
	}
	s.breakWith(nil)
	if status, _ := s.call("POST", "/v1/decisions", registration, "Idempotency-Key", "a3"); status != 200 {
		t.Errorf("again after it was away = %d, want 200", status)
	}
	s.advance(once.KeepAnswers)
	if status, _ := s.call("POST", "/v1/decisions", strings.Replace(registration, "30s", "31s", 1), "Idempotency-Key", "a1"); status != 201 {
		t.Errorf("a day later = %d, want 201", status)
	}
}

// TestOneOfManyAtOnce sends one act many times at once under one key: it happens once.
func TestOneOfManyAtOnce(t *testing.T) {
	release := make(chan struct{})
	var acts sync.WaitGroup
	acts.Add(1)
	s := newServer(t)
	s.api.Acts = waiting{s, release, &acts}
	s.Handler = s.api.Handler()
	results := make(chan int, 8)
	go func() { results <- s.do(newCall("POST", "/v1/decisions", registration, "Idempotency-Key", "k")).Code }()
	acts.Wait() // the first is at it
	for range 7 {
		w := s.do(newCall("POST", "/v1/decisions", registration, "Idempotency-Key", "k"))
		if w.Code != 409 || w.Header().Get("Retry-After") == "" {
			t.Errorf("meanwhile = %d %v, want 409 and when to ask again", w.Code, w.Header())
		}
	}
	close(release)
	if got := <-results; got != 201 {
		t.Errorf("the first = %d, want 201", got)
	}
}

// waiting is Acts whose registrations wait, also past the end of their calls: however
// slow the machine, what is full stays full.
type waiting struct {
	*server
	release chan struct{}
	began   *sync.WaitGroup
}

func (a waiting) RegisterDecision(ctx context.Context, d policies.Decision) (policies.Decision, bool, error) {
	a.began.Done()
	<-a.release
	return a.server.RegisterDecision(ctx, d)
}

func TestSessionsEnd(t *testing.T) {
	s := newServer(t)
	var tokens []string
	for range 3 {
		_, token, err := s.sessions.Begin(t.Context(), auth.Session{Kind: auth.BrowserSession, Subject: "a/17", AAL: 1}, nil, s.at)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	_, list := s.call("GET", "/v1/accounts/a%2F17/sessions", "")
	sessions := list["sessions"].([]any)
	if len(sessions) != 3 {
		t.Fatalf("sessions = %v, want 3", sessions)
	}
	for _, token := range tokens {
		if text, _ := json.Marshal(list); bytes.Contains(text, []byte(token)) {
			t.Error("the list shows a session's secret")
		}
	}
	id := sessions[0].(map[string]any)["id"].(string)
	if status, ended := s.call("DELETE", "/v1/sessions/"+id, ""); status != 200 || ended["ended_by"] != "operator:alice" {
		t.Errorf("ending one = %d %v", status, ended)
	}
	if status, _ := s.call("DELETE", "/v1/sessions/"+id, ""); status != 409 {
		t.Errorf("ending one twice = %d, want 409", status)
	}
	if status, ended := s.call("DELETE", "/v1/accounts/a%2F17/sessions", ""); status != 200 || len(ended["sessions"].([]any)) != 2 {
		t.Errorf("ending all = %d %v, want the other two", status, ended)
	}
	for _, token := range tokens {
		if _, err := s.sessions.ByToken(t.Context(), token, s.at); err == nil {
			t.Error("a session lives on")
		}
	}
}

// anEvent is the n-th event of a node.
func (s *server) anEvent(n int, change func(*detectors.Event)) {
	e := detectors.Event{
		Time: s.now().Add(time.Duration(n) * time.Second),
		Kind: detectors.Login, Outcome: detectors.Failure,
		Source: detectors.Source{Address: netip.MustParseAddr("203.0.113.7"), Network: netip.MustParsePrefix("203.0.113.7/32")},
	}
	if change != nil {
		change(&e)
	}
	s.events.Publish(e)
}

func TestEvents(t *testing.T) {
	s := newServer(t)
	s.anEvent(1, func(e *detectors.Event) { e.Account, e.Session, e.Outcome = "17", "s1", detectors.Success })
	s.anEvent(2, nil)
	s.anEvent(3, func(e *detectors.Event) {
		e.Source.Address, e.Source.Network = netip.MustParseAddr("2001:db8::1"), netip.MustParsePrefix("2001:db8::/64")
	})
	s.anEvent(4, func(e *detectors.Event) { e.Kind, e.Outcome = detectors.Request, detectors.Refused })
	s.anEvent(5, func(e *detectors.Event) { e.Source = detectors.Source{} })
	search := func(query string) (numbers []int, next string) {
		t.Helper()
		_, page := s.call("GET", "/v1/events?"+query, "")
		for _, e := range page["events"].([]any) {
			numbers = append(numbers, int(e.(map[string]any)["key"].(map[string]any)["sequence"].(float64)))
		}
		next, _ = page["next"].(string)
		return numbers, next
	}
	for query, want := range map[string][]int{
		"":                          {5, 4, 3, 2, 1},
		"limit=2":                   {5, 4},
		"account=17":                {1},
		"session=s1":                {1},
		"session=s2":                nil,
		"outcome=failure":           {5, 3, 2},
		"kind=request":              {4},
		"source=203.0.113.7":        {4, 2, 1},
		"source=::ffff:203.0.113.7": {4, 2, 1},
		"source=203.0.113.0/24":     {4, 2, 1},
		"source=2001:db8::/32":      {3},
		"from=2026-11-23T09:05:04Z": {5, 4},
		"to=2026-11-23T09:05:02Z":   {1},
		"from=2026-11-23T09:05:02Z&to=2026-11-23T09:05:04Z": {3, 2},
		"source=203.0.113.7&outcome=failure":                {2},
	} {
		if got, _ := search(query); !equal(got, want) {
			t.Errorf("%s = %v, want %v", query, got, want)
		}
	}
	one, next := search("limit=2")
	two, more := search("limit=2&cursor=" + next)
	three, last := search("limit=2&cursor=" + more)
	if got := append(append(one, two...), three...); !equal(got, []int{5, 4, 3, 2, 1}) || last != "" {
		t.Errorf("pages = %v, then %q", got, last)
	}
	// What comes meanwhile does not move pages.
	s.advance(time.Second)
	s.anEvent(5, nil)
	if got, _ := search("limit=2&cursor=" + next); !equal(got, []int{3, 2}) {
		t.Errorf("the page after an event came = %v", got)
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestReport(t *testing.T) {
	s := newServer(t)
	status, got := s.call("GET", "/v1/report", "")
	if rows := got["rows"].([]any); status != 200 || len(rows) != 1 || got["from"] != "2026-11-22T09:05:00Z" || got["to"] != "2026-11-23T09:05:00Z" {
		t.Errorf("report = %d %v, want one row of 24 hours", status, got)
	}
	if _, got := s.call("GET", "/v1/report?from=2026-11-23T08:00:00%2B09:00&to=2026-11-23T09:00:00Z", ""); got["from"] != "2026-11-22T23:00:00Z" {
		t.Errorf("from = %v, want it in UTC", got["from"])
	}
}

func TestHealth(t *testing.T) {
	var parts []api.PartHealth
	var faults []error
	s := newServer(t, func(s *server) {
		s.api.Parts = func(context.Context) []api.PartHealth { return parts }
		s.api.Faults = func() []error { return faults }
	})
	lag := 1.5
	for _, test := range []struct {
		name   string
		parts  []api.PartHealth
		faults []error
		code   int
		want   api.Status
	}{
		{"nothing to tell", nil, nil, 200, api.OK},
		{"all well", []api.PartHealth{{Name: "database", Status: api.OK, Essential: true}}, nil, 200, api.OK},
		{"a rule is left out", nil, []error{errors.New("x.yaml: line 3")}, 200, api.Degraded},
		{"behind", []api.PartHealth{{Name: "stream", Status: api.Degraded, LagSeconds: &lag, Detail: "redis is away"}}, nil, 200, api.Degraded},
		{"a part is down", []api.PartHealth{{Name: "redis", Status: api.Down}}, nil, 200, api.Degraded},
		{"the database is down", []api.PartHealth{{Name: "redis", Status: api.Degraded}, {Name: "database", Status: api.Down, Essential: true}}, nil, 503, api.Down},
	} {
		parts, faults = test.parts, test.faults
		if code, got := s.call("GET", "/v1/health", ""); code != test.code || got["status"] != string(test.want) || got["rules"] == 0.0 {
			t.Errorf("%s: %d %v, want %d %s", test.name, code, got, test.code, test.want)
		}
	}
}

func TestFailuresOfParts(t *testing.T) {
	s := newServer(t)
	for _, test := range []struct {
		err   error
		want  int
		retry bool
	}{
		{errors.New("a secret of the inside"), 500, false},
		{api.ErrUnavailable, 503, true},
		{context.DeadlineExceeded, 503, true},
		{fmt.Errorf("an act: %w", record.ErrUnavailable), 503, true},
		{auth.ErrUncertain, 503, true},
		{policies.ErrUncertain, 503, true},
		{policies.ErrFull, 503, true},
	} {
		s.breakWith(test.err)
		for _, c := range [][3]string{
			{"POST", "/v1/decisions", registration}, {"GET", "/v1/decisions", ""}, {"GET", "/v1/decisions/x", ""}, {"DELETE", "/v1/decisions/x", ""},
			{"GET", "/v1/report", ""}, {"GET", "/v1/accounts/1/sessions", ""}, {"DELETE", "/v1/accounts/1/sessions", ""}, {"DELETE", "/v1/sessions/x", ""},
		} {
			w := s.do(newCall(c[0], c[1], c[2]))
			if w.Code != test.want || (w.Header().Get("Retry-After") != "") != test.retry || strings.Contains(w.Body.String(), "inside") {
				t.Errorf("%s %s with %v = %d %v %s, want %d", c[0], c[1], test.err, w.Code, w.Header(), w.Body, test.want)
			}
		}
	}
	if !strings.Contains(s.log.String(), "a secret of the inside") {
		t.Error("the log does not have the cause")
	}
}

func TestBudgetOfCalls(t *testing.T) {
	release := make(chan struct{})
	var began, done sync.WaitGroup
	s := newServer(t)
	s.api.Acts = waiting{s, release, &began}
	s.Handler = s.api.Handler()
	began.Add(64)
	for range 64 {
		done.Go(func() { s.ServeHTTP(httptest.NewRecorder(), newCall("POST", "/v1/decisions", registration)) })
	}
	began.Wait()
	w := s.do(newCall("GET", "/v1/decisions", ""))
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("the 65th call at once = %d %v, want 503", w.Code, w.Header())
	}
	close(release)
	done.Wait()
	if w := s.do(newCall("GET", "/v1/decisions", "")); w.Code != 200 {
		t.Errorf("afterwards = %d", w.Code)
	}
}

// shipped are the shipped rules, loaded once for all tests, which count nothing.
var shipped = sync.OnceValues(func() (*rules.Set, []error) { return rules.Load(rules.Shipped) })
