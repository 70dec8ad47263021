package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// lastHour is the query of a time to undo.
const lastHour = "?from=2026-11-23T08:00:00Z&to=2026-11-23T09:05:00Z"

// life is the server as [api.RuleLife]: one rule has fallen, and one finding is known.
type life struct{ s *server }

const foundID = "06h31n8jg2qxj5q5f1znxmejg8"

func (l life) rule(id rules.ID) (rules.Rule, error) {
	if err := l.s.fault(); err != nil {
		return rules.Rule{}, err
	}
	if r, ok := l.s.api.Rules().Rule(id); ok {
		return r, nil
	}
	return rules.Rule{}, policies.ErrNotFound
}

func (l life) fallen(r rules.Rule) policies.Fallen {
	return policies.Fallen{Rule: r.ID, Generation: r.Generation, Level: rules.Softened, Since: l.s.now(), Term: l.s.now(),
		Judgement: rules.Judgement{Hits: 20, Benign: 20, Organizations: 5, Least: 83.9, Most: 100, Over: true}}
}

func (l life) Falls() []policies.Fallen {
	r, _ := l.s.api.Rules().Rule("stuffing.sequential")
	return []policies.Fallen{l.fallen(r)}
}

func (l life) Standing(_ context.Context, id rules.ID) (policies.Standing, error) {
	r, err := l.rule(id)
	return policies.Standing{Rule: r, Fallen: l.fallen(r), Falls: 20, Waits: true}, err
}

func (l life) SetRuleBack(_ context.Context, id rules.ID, by string) (policies.Fallen, error) {
	r, err := l.rule(id)
	return policies.Fallen{Rule: r.ID, Generation: r.Generation, Since: l.s.now(), Term: l.s.now(), By: by}, err
}

func (l life) Explain(_ context.Context, name string) (policies.Story, error) {
	if err := l.s.fault(); err != nil {
		return policies.Story{}, err
	}
	if name == "none" {
		return policies.Story{}, policies.ErrNotFound
	}
	f := policies.Found{Finding: rules.Finding{ID: foundID, Rule: "a.rule", Title: "A rule", Severity: "low", Generation: "aa", Mode: rules.Enforce, Time: l.s.now(), Why: "because",
		Values: map[string]any{"tried": 3.0}, Then: []rules.Response{{Mode: rules.Enforce, Answer: rules.StepUp}}}, Stage: rules.LoginAfter, Account: "17", Fall: rules.Softened,
		Explanation: rules.Explanation{File: "a.yaml", When: "tried >= 3", Values: map[string]any{"tried": 3.0}, Parts: []rules.Part{{Text: "tried >= 3", Line: 10, Column: 7, Result: "true", Decided: true, Names: []string{"tried"}}}}}
	return policies.Story{Reference: name, Rule: "a.rule", Decision: "d", Findings: []policies.Found{f}, Texts: map[string]string{"aa": "id: a.rule\n"}}, nil
}

func (l life) MarkBenign(ctx context.Context, name, by string) (bool, error) {
	_, err := l.Explain(ctx, name)
	return by == "operator:alice" || by == "alice", err
}

func (l life) PreviewUndo(_ context.Context, rule rules.ID, from, to time.Time) (policies.Undoing, error) {
	return policies.Undoing{Rule: rule, From: from, To: to, Live: 1, Subjects: map[policies.Scope]int{policies.ScopeNetwork: 1}, Organizations: map[string]int{"acme": 3},
		Decisions: []policies.Decision{}}, l.s.fault()
}

func (l life) Undo(ctx context.Context, rule rules.ID, from, to time.Time, _ string) (policies.Undoing, error) {
	u, err := l.PreviewUndo(ctx, rule, from, to)
	u.Lifted = 1
	return u, err
}

func TestRulesThatFell(t *testing.T) {
	s := newServer(t)
	code, list := s.call("GET", "/v1/rules", "")
	fell := 0
	for _, r := range list["rules"].([]any) {
		if r.(map[string]any)["fall"] == "step_up" {
			fell++
		}
	}
	if code != http.StatusOK || fell != 1 || list["hash"] != s.api.Rules().Hash() {
		t.Errorf("= %d, %d fell, hash %v", code, fell, list["hash"])
	}
	if code, r := s.call("GET", "/v1/rules/stuffing.sequential", ""); code != http.StatusOK || r["fall"] != "step_up" || r["waits"] != true || r["falls_after"] != 20.0 {
		t.Errorf("= %d %v", code, r)
	}
	if code, x := s.call("POST", "/v1/rules/stuffing.sequential/restore", ""); code != http.StatusOK || x["level"] != "stands" || !strings.Contains(x["by"].(string), "alice") {
		t.Errorf("= %d %v", code, x)
	}
}

// TestWhoMayUndo: as who may lift a decision.
func TestWhoMayUndo(t *testing.T) {
	s := newServer(t)
	viewer := []string{"Authorization", "Bearer " + viewerKey}
	for _, target := range []string{"/v1/rules/a.rule/undo" + lastHour, "/v1/rules/stuffing.sequential/restore", "/v1/findings/KAXE-W7Y0/benign"} {
		if code, p := s.call("POST", target, "", viewer...); code != http.StatusForbidden {
			t.Errorf("a viewer: POST %s = %d %v", target, code, p)
		}
		if code, p := s.call("POST", target, ""); code != http.StatusOK {
			t.Errorf("a responder: POST %s = %d %v", target, code, p)
		}
	}
	for _, target := range []string{"/v1/rules/a.rule/undo" + lastHour, "/v1/findings/KAXE-W7Y0", "/v1/rules"} {
		if code, p := s.call("GET", target, "", viewer...); code != http.StatusOK {
			t.Errorf("a viewer: GET %s = %d %v", target, code, p)
		}
	}
}

func TestUndoNeedsATime(t *testing.T) {
	s := newServer(t)
	for query, parameter := range map[string]string{
		"":                           "from",
		"?from=2026-11-23T08:00:00Z": "to",
		"?from=yesterday&to=2026-11-23T08:00:00Z":            "from",
		"?from=2026-11-23T08:00:00Z&to=2026-11-23T08:00:00Z": "to",
	} {
		for _, method := range []string{"GET", "POST"} {
			code, p := s.call(method, "/v1/rules/a.rule/undo"+query, "")
			if code != http.StatusUnprocessableEntity || p["errors"].([]any)[0].(map[string]any)["parameter"] != parameter {
				t.Errorf("%s %s = %d %v, want a fault of %s", method, query, code, p, parameter)
			}
		}
	}
}

func TestExplainAnswersWhatDecided(t *testing.T) {
	s := newServer(t)
	code, story := s.call("GET", "/v1/findings/KAXE-W7Y0", "")
	if code != http.StatusOK || story["rule"] != "a.rule" || story["texts"].(map[string]any)["aa"] != "id: a.rule\n" {
		t.Fatalf("= %d %v", code, story)
	}
	part := story["findings"].([]any)[0].(map[string]any)["explanation"].(map[string]any)["parts"].([]any)[0].(map[string]any)
	if part["text"] != "tried >= 3" || part["line"] != 10.0 || part["decided"] != true {
		t.Errorf("got %v", part)
	}
	if code, got := s.call("POST", "/v1/findings/KAXE-W7Y0/benign", ""); code != http.StatusOK || got["counts"] != true {
		t.Errorf("benign: %d %v", code, got)
	}
}
