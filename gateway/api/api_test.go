package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/api"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

const key = "test-key-of-an-operator"

type server struct {
	http.Handler
	core *guard.Core
	now  time.Time
	log  bytes.Buffer
}

func newServer(t *testing.T) *server {
	t.Helper()
	ctx := context.Background()
	s := &server{now: time.Date(2026, 11, 23, 9, 5, 0, 0, time.UTC)}
	log := slog.New(slog.NewJSONHandler(&s.log, nil))
	dir := t.TempDir()
	db, err := storage.Open(ctx, filepath.Join(dir, "kidoban.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	keys, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), true)
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return s.now }
	if s.core, err = guard.Open(ctx, db, keys, guard.Settings{Node: "test", Now: now, Log: log}); err != nil {
		t.Fatal(err)
	}
	set, faults := rules.Load(rules.Shipped)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s.core.Rules.Store(set)
	s.Handler = (&api.Server{
		Decisions: s.core.Decisions, Sessions: s.core.Sessions, Ledger: s.core.Ledger, Stream: s.core.Stream,
		Rules: s.core.Rules.Load, Faults: func() []error { return nil }, Now: now, Log: log,
		Keys: map[string][32]byte{"alice": api.HashKey(key)},
	}).Handler()
	return s
}

func (s *server) do(t *testing.T, method, path, contentType, body string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+key)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%s %s: %d %q is not JSON: %v", method, path, w.Code, w.Body, err)
	}
	return w.Code, out
}

func TestOnlyOperators(t *testing.T) {
	s := newServer(t)
	for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + key, key, "Bearer " + key + "x"} {
		for _, call := range []string{"GET /v1/health", "GET /v1/decisions", "POST /v1/decisions", "GET /v1/events", "DELETE /v1/accounts/1/sessions"} {
			method, path, _ := strings.Cut(call, " ")
			r := httptest.NewRequest(method, path, nil)
			if authorization != "" {
				r.Header.Set("Authorization", authorization)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s with %q = %d, want 401 and a challenge", call, authorization, w.Code)
			}
		}
	}
	if strings.Contains(s.log.String(), key) {
		t.Error("a key stands in the log")
	}
}

func TestDecisionsComeAndGo(t *testing.T) {
	s := newServer(t)
	status, made := s.do(t, "POST", "/v1/decisions", "application/json; charset=utf-8",
		`{"scope":"address","value":"::ffff:203.0.113.7","action":"refuse","ttl":"30s","reason":"list attack"}`)
	if status != http.StatusCreated || made["value"] != "203.0.113.7" || made["by"] != "alice" || made["reason"] != "list attack" {
		t.Fatalf("register = %d %v", status, made)
	}
	id := made["id"].(string)

	// Asking for less keeps the later end; asking for more extends.
	_, again := s.do(t, "POST", "/v1/decisions", "application/json", `{"scope":"address","value":"203.0.113.7","ttl":"10s","reason":"again"}`)
	if again["id"] != id || again["until"] != made["until"] {
		t.Errorf("registering for less = %v, want the same decision and end", again)
	}
	_, more := s.do(t, "POST", "/v1/decisions", "application/json", `{"scope":"address","value":"203.0.113.7","ttl":"60s","reason":"again"}`)
	if more["id"] != id || more["until"] == made["until"] {
		t.Errorf("registering for more = %v, want the same decision and a later end", more)
	}
	_, list := s.do(t, "GET", "/v1/decisions?address=203.0.113.7", "", "")
	if got := list["decisions"].([]any); len(got) != 1 {
		t.Errorf("list = %v, want one", got)
	}
	if status, _ := s.do(t, "GET", "/v1/decisions/"+id, "", ""); status != 200 {
		t.Errorf("get = %d", status)
	}
	if status, lifted := s.do(t, "DELETE", "/v1/decisions/"+id, "", ""); status != 200 || lifted["lifted_by"] != "alice" {
		t.Errorf("lift = %d %v", status, lifted)
	}
	if status, lifted := s.do(t, "DELETE", "/v1/decisions/"+id, "", ""); status != 200 || lifted["lifted_by"] != "alice" {
		t.Errorf("lifting twice = %d %v, want what lifting once gave", status, lifted)
	}
	_, list = s.do(t, "GET", "/v1/decisions?address=203.0.113.7", "", "")
	if got := list["decisions"].([]any); len(got) != 0 {
		t.Errorf("list after lifting = %v, want none", got)
	}
}

func TestFaultsNameTheField(t *testing.T) {
	s := newServer(t)
	for _, test := range []struct {
		name, method, path, contentType, body string
		status                                int
		field                                 string
	}{
		{"not JSON", "POST", "/v1/decisions", "text/plain", `{}`, 415, ""},
		{"no type", "POST", "/v1/decisions", "", `{}`, 415, ""},
		{"broken", "POST", "/v1/decisions", "application/json", `{"scope":`, 400, ""},
		{"unknown field", "POST", "/v1/decisions", "application/json", `{"scop":"address"}`, 400, ""},
		{"unknown action", "POST", "/v1/decisions", "application/json", `{"action":"explode"}`, 400, ""},
		{"bad prefix", "POST", "/v1/decisions", "application/json", `{"scope":"network","value":"203.0.113.0/33","ttl":"1m","reason":"x"}`, 422, "value"},
		{"bad scope", "POST", "/v1/decisions", "application/json", `{"scope":"planet","value":"earth","ttl":"1m","reason":"x"}`, 422, "scope"},
		{"everything", "POST", "/v1/decisions", "application/json", `{"scope":"network","value":"0.0.0.0/0","ttl":"1m","reason":"x"}`, 422, "value"},
		{"no end", "POST", "/v1/decisions", "application/json", `{"scope":"address","value":"203.0.113.7","reason":"x"}`, 422, "until"},
		{"bad ttl", "POST", "/v1/decisions", "application/json", `{"scope":"address","value":"203.0.113.7","ttl":"soon","reason":"x"}`, 422, "ttl"},
		{"two ends", "POST", "/v1/decisions", "application/json", `{"scope":"address","value":"203.0.113.7","ttl":"1m","until":"2026-11-23T10:00:00Z","reason":"x"}`, 422, "ttl"},
		{"too large", "POST", "/v1/decisions", "application/json", `{"reason":"` + strings.Repeat("x", 70000) + `"}`, 413, ""},
		{"bad state", "GET", "/v1/decisions?state=maybe", "", "", 422, "state"},
		{"bad address", "GET", "/v1/decisions?address=here", "", "", 422, "address"},
		{"bad limit", "GET", "/v1/events?limit=0", "", "", 422, "limit"},
		{"bad from", "GET", "/v1/report?from=yesterday", "", "", 422, "from"},
		{"no such decision", "GET", "/v1/decisions/nonsense", "", "", 404, ""},
		{"no such session", "DELETE", "/v1/sessions/nonsense", "", "", 404, ""},
		{"no such resource", "GET", "/v2/decisions", "", "", 404, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := s.do(t, test.method, test.path, test.contentType, test.body)
			field, _ := body["field"].(string)
			if status != test.status || field != test.field || body["title"] == "" {
				t.Errorf("= %d %v, want %d naming %q", status, body, test.status, test.field)
			}
		})
	}
}

func TestSessionsEnd(t *testing.T) {
	s := newServer(t)
	ctx := context.Background()
	var tokens []string
	for range 2 {
		_, token, err := s.core.Sessions.Begin(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "17", AAL: 1}, nil, s.now)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	_, list := s.do(t, "GET", "/v1/accounts/17/sessions", "", "")
	sessions := list["sessions"].([]any)
	if len(sessions) != 2 {
		t.Fatalf("sessions = %v, want 2", sessions)
	}
	for _, token := range tokens {
		if text, _ := json.Marshal(list); bytes.Contains(text, []byte(token)) {
			t.Error("the list shows a session's secret")
		}
	}
	id := sessions[0].(map[string]any)["id"].(string)
	if status, _ := s.do(t, "DELETE", "/v1/sessions/"+id, "", ""); status != 200 {
		t.Errorf("ending one = %d", status)
	}
	if status, _ := s.do(t, "DELETE", "/v1/accounts/17/sessions", "", ""); status != 200 {
		t.Errorf("ending all = %d", status)
	}
	for _, token := range tokens {
		if _, err := s.core.Sessions.ByToken(ctx, token, s.now); err == nil {
			t.Error("a session lives on")
		}
	}
}

func TestEventsAndReport(t *testing.T) {
	s := newServer(t)
	for range 3 {
		s.core.Stream.Publish(detectors.Event{Time: s.now, Kind: detectors.Login, Outcome: detectors.Failure})
	}
	_, got := s.do(t, "GET", "/v1/events?limit=2", "", "")
	if events := got["events"].([]any); len(events) != 2 {
		t.Errorf("events = %v, want the latest 2", events)
	}
	s.core.Ledger.Count(s.now, "decisions", rules.StepUp, policies.ReasonDecision, "stuffing.sequential", false, false)
	_, got = s.do(t, "GET", "/v1/report", "", "")
	rows := got["rows"].([]any)
	if len(rows) != 1 || rows[0].(map[string]any)["count"] != 1.0 {
		t.Errorf("report = %v, want one row with one", rows)
	}
}
