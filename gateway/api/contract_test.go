package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/api"
)

// contract is openapi.yaml, and which of its answers were seen.
type contract struct {
	doc    *openapi3.T
	router routers.Router

	mu   sync.Mutex
	seen map[string]bool // "operation status"
}

var loadContract = sync.OnceValues(func() (*contract, error) {
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	router, err := legacy.NewRouter(doc)
	return &contract{doc: doc, router: router, seen: make(map[string]bool)}, err
})

func theContract(t *testing.T) *contract {
	t.Helper()
	c, err := loadContract()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return c
}

// check holds an exchange to the contract. What the API took must be a request that
// the contract allows, and every answer must be one that it announces.
func (c *contract) check(r *http.Request, sent []byte, w *httptest.ResponseRecorder) error {
	if r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return nil
	}
	again := r.Clone(context.Background())
	again.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	again.Body = io.NopCloser(bytes.NewReader(sent))
	route, params, err := c.router.FindRoute(again)
	if err != nil || strings.HasSuffix(r.URL.Path, "/") {
		if w.Code == http.StatusNotFound || w.Code == http.StatusMethodNotAllowed || w.Code == http.StatusForbidden {
			return nil
		}
		return fmt.Errorf("the contract does not know it: %w", err)
	}
	input := &openapi3filter.RequestValidationInput{
		Request: again, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true, SkipSettingDefaults: true},
	}
	if w.Code < 300 {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			return fmt.Errorf("it was accepted: %w", err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: w.Code, Header: w.Header(), Options: input.Options}
	out.SetBodyBytes(w.Body.Bytes())
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[fmt.Sprintf("%s %d", route.Operation.OperationID, w.Code)] = true
	return nil
}

// TestContractIsExercised makes every operation give every answer that the contract
// announces, and holds each exchange to it.
func TestContractIsExercised(t *testing.T) {
	c := theContract(t)
	c.mu.Lock()
	c.seen = make(map[string]bool)
	c.mu.Unlock()

	sample := map[string][3]string{ // a call that could succeed, by operation
		"getContract": {"GET", "/v1/openapi.yaml"}, "getHealth": {"GET", "/v1/health"}, "listDecisions": {"GET", "/v1/decisions"},
		"registerDecision": {"POST", "/v1/decisions", registration}, "getDecision": {"GET", "/v1/decisions/x"}, "liftDecision": {"DELETE", "/v1/decisions/x"},
		"listRules": {"GET", "/v1/rules"}, "getRule": {"GET", "/v1/rules/stuffing.sequential"}, "restoreRule": {"POST", "/v1/rules/stuffing.sequential/restore"},
		"previewUndo": {"GET", "/v1/rules/any/undo" + lastHour}, "undoRule": {"POST", "/v1/rules/any/undo" + lastHour},
		"listCounters": {"GET", "/v1/counters"}, "listExemptions": {"GET", "/v1/exemptions"},
		"explain": {"GET", "/v1/findings/KAXE-W7Y0"}, "markBenign": {"POST", "/v1/findings/KAXE-W7Y0/benign"},
		"listIncidents": {"GET", "/v1/incidents"}, "getIncident": {"GET", "/v1/incidents/" + caseID}, "moveIncident": {"POST", "/v1/incidents/" + caseID + "/state", declaring},
		"searchEvents": {"GET", "/v1/events"}, "getReport": {"GET", "/v1/report"}, "listSessions": {"GET", "/v1/accounts/17/sessions"},
		"endSessions": {"DELETE", "/v1/accounts/17/sessions"}, "endSession": {"DELETE", "/v1/sessions/x"},
		"listFactors": {"GET", "/v1/accounts/17/factors"}, "removeFactor": {"DELETE", "/v1/accounts/17/factors/x"},
		"disableFactor": {"POST", "/v1/accounts/17/factors/x/disable"}, "enableFactor": {"POST", "/v1/accounts/17/factors/x/enable"},
		"issueEnrolmentCode": {"POST", "/v1/accounts/17/enrolment-codes"}, "cancelRecovery": {"POST", "/v1/accounts/17/recovery/cancel"},
		"listDevices": {"GET", "/v1/accounts/17/devices"}, "getHistory": {"GET", "/v1/accounts/17/history"},
	}
	bare := newServer(t, noFactors)
	full := make(chan struct{})
	var began, done sync.WaitGroup
	crowded := newServer(t)
	crowded.api.Acts = waiting{crowded, full, &began}
	crowded.Handler = crowded.api.Handler()
	began.Add(64)
	for range 64 {
		done.Go(func() { crowded.ServeHTTP(httptest.NewRecorder(), newCall("POST", "/v1/decisions", registration)) })
	}
	began.Wait()
	defer done.Wait()
	defer close(full)

	noisy := newServer(t)
	for range 12 {
		noisy.do(newCall("GET", "/v1/health", "", "Authorization", "Bearer wrong"))
	}
	s := newServer(t)
	for _, call := range sample {
		method, target, body := call[0], call[1], call[2]
		s.do(newCall(method, target+"?x=%zz", body))                                // 400
		s.do(newCall(method, target+"?unknown=1", body))                            // 422
		s.do(newCall(method, target, strings.Repeat("x", 70_000)))                  // 413
		s.do(newCall(method, target, body, "X-Large", strings.Repeat("x", 20_000))) // 431
		newServer(t).do(newCall(method, target, body, "Authorization", ""))         // 403
		noisy.do(newCall(method, target, body, "Authorization", "Bearer wrong"))    // 429
		crowded.do(newCall(method, target, body))                                   // 503
		s.breakWith(errors.New("broken"))
		s.do(newCall(method, target, body)) // 500
		s.breakWith(nil)
		if strings.Contains(target, "/accounts/") {
			bare.do(newCall(method, target, body)) // 409 where it needs second factors
		}
	}
	s.do(newCall("GET", "/v1/openapi.yaml", "", "If-None-Match", "*"))
	s.do(newCall("GET", "/v1/decisions", "", "If-None-Match", "*"))
	s.do(newCall("GET", "/v1/rules", "", "If-None-Match", "*"))
	s.do(newCall("GET", "/v1/incidents", "", "If-None-Match", "*"))
	s.do(newCall("GET", "/v1/incidents/"+caseID, "", "If-None-Match", "*"))
	s.do(newCall("GET", "/v1/incidents/none", ""))                                                   // 404
	s.do(newCall("POST", "/v1/incidents/none/state", declaring))                                     // 404
	s.do(newCall("POST", "/v1/incidents/"+caseID+"/state", `{"state":"recovering","note":"x"}`))     // 409
	s.do(newCall("POST", "/v1/incidents/"+caseID+"/state", declaring, "Content-Type", "text/plain")) // 415
	for _, call := range [][2]string{{"GET", "/v1/rules/none"}, {"POST", "/v1/rules/none/restore"}, {"GET", "/v1/findings/none"}, {"POST", "/v1/findings/none/benign"}} {
		s.do(newCall(call[0], call[1], "")) // 404
	}
	_, made := s.call("POST", "/v1/decisions", registration)
	s.do(newCall("POST", "/v1/decisions", registration))
	s.do(newCall("POST", "/v1/decisions", registration, "Content-Type", "text/plain"))
	s.do(newCall("GET", "/v1/decisions/"+made["id"].(string), ""))
	s.do(newCall("GET", "/v1/decisions/"+made["id"].(string), "", "If-None-Match", "*"))
	s.do(newCall("DELETE", "/v1/decisions/"+made["id"].(string), ""))
	for _, call := range sample {
		s.do(newCall(call[0], call[1], call[2])) // 200 or 404
	}
	factor := "/v1/accounts/17/factors/" + s.bind("17")
	s.do(newCall("POST", factor+"/disable", ""))
	s.do(newCall("POST", factor+"/enable", ""))
	s.do(newCall("DELETE", factor, ""))
	s.do(newCall("POST", "/v1/accounts/18/enrolment-codes", "")) // 404
	s.recover("17")
	s.do(newCall("POST", "/v1/accounts/17/recovery/cancel", ""))
	session, _, err := s.sessions.Begin(t.Context(), auth.Session{Kind: auth.BrowserSession, Subject: "17", AAL: 1, Source: "203.0.113.7"}, nil, s.at)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.do(newCall("DELETE", "/v1/sessions/"+session.ID, "")) // 200, then 409
	}
	release := make(chan struct{})
	var acting sync.WaitGroup
	acting.Add(1)
	slow := newServer(t)
	slow.api.Acts = waiting{slow, release, &acting}
	slow.Handler = slow.api.Handler()
	var last sync.WaitGroup
	last.Go(func() {
		slow.ServeHTTP(httptest.NewRecorder(), newCall("POST", "/v1/decisions", registration, "Idempotency-Key", "k"))
	})
	acting.Wait()
	slow.do(newCall("POST", "/v1/decisions", registration, "Idempotency-Key", "k")) // 409
	close(release)
	last.Wait()

	c.mu.Lock()
	defer c.mu.Unlock()
	var missing []string
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if _, ok := sample[op.OperationID]; !ok {
				t.Errorf("%s %s is announced and not called here", method, path)
			}
			for status := range op.Responses.Map() {
				if !c.seen[op.OperationID+" "+status] {
					missing = append(missing, op.OperationID+" "+status)
				}
			}
		}
	}
	sort.Strings(missing)
	if len(missing) > 0 {
		t.Errorf("announced and never seen: %s", strings.Join(missing, ", "))
	}
	for name := range api.ProblemTypes() {
		if problems, _ := c.doc.Extensions["x-problems"].(map[string]any); problems[name] == nil {
			t.Errorf("the contract does not explain the problem %s", name)
		}
	}
}

func TestContractIsServed(t *testing.T) {
	s := newServer(t)
	want, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w := s.do(newCall("GET", "/v1/openapi.yaml", ""))
	if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), want) {
		t.Errorf("= %d, %d bytes, want the %d of openapi.yaml", w.Code, w.Body.Len(), len(want))
	}
	if v := theContract(t).doc.OpenAPI; !strings.HasPrefix(v, "3.1") {
		t.Errorf("it is OpenAPI %s, want 3.1", v)
	}
}

// TestAnswersAreStable compares answers with testdata/answers.golden.
func TestAnswersAreStable(t *testing.T) {
	s := newServer(t, func(s *server) {
		lag := 0.25
		s.api.Parts = func(context.Context) []api.PartHealth {
			return []api.PartHealth{{Name: "database", Status: api.OK, Essential: true}, {Name: "stream", Status: api.Degraded, Detail: "redis is away since 09:04:31", LagSeconds: &lag}}
		}
	})
	s.anEvent(1, nil)
	var out bytes.Buffer
	ids := strings.NewReplacer()
	show := func(method, target, body string, header ...string) map[string]any {
		t.Helper()
		w := s.do(newCall(method, target, body, header...))
		var v map[string]any
		_ = json.Unmarshal(w.Body.Bytes(), &v) // 304 has none
		if id, ok := v["id"].(string); ok {
			ids = strings.NewReplacer(id, "ID")
		}
		text := strings.Replace(w.Body.String(), s.api.Rules().Hash(), "HASH", 1)
		if i, ok := v["instance"].(string); ok {
			text = strings.Replace(text, i, "urn:kidoban:problem:REFERENCE", 1)
		}
		fmt.Fprintf(&out, "%s\n", ids.Replace(fmt.Sprintf("> %s %s\n%s< %d %s\n%s", method, target, line(body), w.Code, w.Header().Get("Content-Type"), text)))
		return v
	}
	made := show("POST", "/v1/decisions", `{"scope":"network","value":"203.0.113.0/24","until":"2026-11-23T10:00:00Z","reason":"list attack"}`)
	show("GET", "/v1/decisions?scope=network", "")
	show("DELETE", "/v1/decisions/"+made["id"].(string), "")
	show("POST", "/v1/decisions", `{"scope":"network","value":"203.0.113.0/33","ttl":"30s"}`)
	show("POST", "/v1/decisions", `{"scope":"network","scope":"address"}`)
	show("GET", "/v1/decisions?state=x&limit=0", "")
	show("GET", "/v1/events?limit=1", "")
	show("GET", "/v1/health", "")
	show("GET", "/v1/report", "")
	show("GET", "/v1/accounts/17/sessions", "")
	show("GET", "/v1/nothing", "")
	show("PUT", "/v1/health", "")
	show("DELETE", "/v1/sessions/x", "", "Authorization", "Bearer "+viewerKey)
	show("GET", "/v1/health", "", "Authorization", "")
	if *update {
		if err := os.WriteFile("testdata/answers.golden", out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile("testdata/answers.golden")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("the answers changed; run with -update if they should (-want +got):\n%s", diff)
	}
}

func line(s string) string {
	if s == "" {
		return ""
	}
	return s + "\n"
}
