package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

var monday = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// aStory is what a gate answers about a refusal.
func aStory() policies.Story {
	f := policies.Found{
		Finding: rules.Finding{ID: "06h31n8jg2", Rule: "bad.office", Title: "Three people of one network", Severity: "high", Generation: strings.Repeat("6", 64),
			Mode: rules.Enforce, Time: monday, Then: []rules.Response{
				{Mode: rules.Enforce, Decide: &rules.Decide{Scope: "source.network", Action: rules.StepUp, For: time.Hour}},
				{Mode: rules.Shadow, Answer: rules.Delay},
				{Mode: rules.Enforce, Incident: &rules.Incident{Category: "credential-stuffing", Key: "source.network"}}}},
		Stage: rules.LoginAfter, Account: "17", Organization: "acme", Source: "192.0.2.44", Fall: rules.Softened, Incidents: []string{"06h31i"},
		Explanation: rules.Explanation{File: "bad.yaml", When: "people >= 3 || source.flagged == 1", Values: map[string]any{"people": 3, "source.flagged": 0},
			Parts: []rules.Part{
				{Text: "people >= 3", Line: 2, Column: 7, Result: "true", Decided: true, Names: []string{"people"}},
				{Text: "source.flagged == 1", Line: 2, Column: 22, Result: "false", Names: []string{"source.flagged"}}}},
	}
	return policies.Story{Reference: "KAXE-W7Y0", Rule: "bad.office", Decision: "06h31d", Findings: []policies.Found{f},
		Texts: map[string]string{f.Generation: "id: bad.office\nwhen: people >= 3 || source.flagged == 1\nmode: enforce\n"}}
}

func TestExplainInWords(t *testing.T) {
	// As it comes from the API.
	text, err := json.Marshal(aStory())
	if err != nil {
		t.Fatal(err)
	}
	var s policies.Story
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := showStory(&b, s); err != nil {
		t.Fatal(err)
	}
	want := `KAXE-W7Y0 leads to rule bad.office, by decision 06h31d.

Finding 06h31n8jg2, 2026-11-23T09:00:00Z, at login.after
  rule      bad.office: Three people of one network (high)
  account   17 of acme, from 192.0.2.44
  proposed  step_up source.network for 1h0m0s (enforce)
  proposed  answer the attempt: delay (shadow)
  proposed  an incident credential-stuffing of source.network (enforce)
  incident  06h31i
  fallen    to step_up, because the rule spent its budget
  file      bad.yaml, generation 666666666666
The condition held because of what is marked with *:
  bad.yaml:2:7   * people >= 3          true   people is 3
  bad.yaml:2:22    source.flagged == 1  false  source.flagged is 0
bad.yaml as it was then:
     2 | when: people >= 3 || source.flagged == 1
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Reset()
	if err := showStory(&b, policies.Story{Reference: "X", Rule: "a.rule"}); err != nil || !strings.Contains(b.String(), "not any more") {
		t.Errorf("what is not kept: %q, %v", b.String(), err)
	}
}

// undoable is an operators' API with three live decisions of a rule, of which one call
// lifts two.
type undoable struct {
	t     *testing.T
	live  int
	posts int
}

func (u *undoable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer a-key" || r.URL.Path != "/v1/rules/bad.office/undo" ||
		r.URL.Query().Get("from") != "2026-11-23T09:00:00Z" || r.URL.Query().Get("to") != "2026-11-23T10:00:00Z" {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"title":"No","detail":"who are you"}`)
		return
	}
	out := policies.Undoing{Rule: "bad.office", From: monday, To: monday.Add(time.Hour), Live: u.live, Subjects: map[policies.Scope]int{policies.ScopeNetwork: u.live},
		Organizations: map[string]int{"acme": 2, "": 1}, Decisions: []policies.Decision{{ID: "06h31d", Scope: policies.ScopeNetwork, Value: "192.0.2.44/32",
			Action: rules.Refuse, Mode: rules.Enforce, Until: monday.Add(2 * time.Hour)}}}
	if r.Method == http.MethodPost {
		u.posts++
		out.Lifted = min(u.live, 2)
		u.live -= out.Lifted
		out.More = u.live > 0
	}
	_ = json.NewEncoder(w).Encode(out)
}

func TestUndoPreviewsFirstAndThenGoesOnToTheEnd(t *testing.T) {
	server := &undoable{t: t, live: 3}
	s := httptest.NewServer(server)
	defer s.Close()
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte("a-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gate, err := openOperatorsAPI(s.URL, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	u, err := undo(t.Context(), gate, "bad.office", monday, monday.Add(time.Hour), false)
	if err != nil || u.Live != 3 || server.posts != 0 {
		t.Fatalf("a preview: %+v, %v, %d acts", u, err, server.posts)
	}
	var b strings.Builder
	if err := showUndoing(&b, u, false); err != nil {
		t.Fatal(err)
	}
	want := `3 decisions of rule bad.office made from 2026-11-23T09:00:00Z to 2026-11-23T10:00:00Z still acted.
  network: 3
In that time the rule hit 3 accounts that are known for a week, of 2 organizations.
  (none): 1
  acme: 2
  06h31d  refuse  network 192.0.2.44/32  until 2026-11-23T11:00:00Z  enforce
  and 2 more
Nothing was changed: --apply lifts them.
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	u, err = undo(t.Context(), gate, "bad.office", monday, monday.Add(time.Hour), true)
	if err != nil || u.Lifted != 3 || server.posts != 2 {
		t.Errorf("applied: %+v, %v, in %d acts, want 3 lifted in 2", u, err, server.posts)
	}
	b.Reset()
	if err := showUndoing(&b, u, true); err != nil || !strings.HasSuffix(b.String(), "3 of them were lifted.\n") {
		t.Errorf("got %q, %v", b.String(), err)
	}
	if u, err := undo(t.Context(), gate, "bad.office", monday, monday.Add(time.Hour), true); err != nil || u.Lifted != 0 {
		t.Errorf("again: %+v, %v, want nothing left", u, err)
	}
	if _, err := undo(t.Context(), gate, "other", monday, monday.Add(time.Hour), true); err == nil || !strings.Contains(err.Error(), "403 No who are you") {
		t.Errorf("refused: %v", err)
	}
}
