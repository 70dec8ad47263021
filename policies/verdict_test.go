package policies_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestStricter(t *testing.T) {
	one, two := rules.Finding{Rule: "one"}, rules.Finding{Rule: "two"}
	for _, tc := range []struct {
		name       string
		a, b, want policies.Verdict
	}{
		{"nothing and nothing allow", policies.Verdict{}, policies.Verdict{}, policies.Verdict{}},
		{
			"a refusal beats an allowance, whoever comes first",
			policies.Verdict{}, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit},
			policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit},
		},
		{
			"a step-up keeps its reason beside a delay, and is delayed",
			policies.Verdict{Action: rules.StepUp, Reason: policies.ReasonRule, Rule: "one"},
			policies.Verdict{Action: rules.Delay, Reason: policies.ReasonLimit, Delay: time.Second},
			policies.Verdict{Action: rules.StepUp, Reason: policies.ReasonRule, Rule: "one", Delay: time.Second},
		},
		{
			"between equals the first speaks and the later end counts",
			policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: noon},
			policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonDecision, Until: noon.Add(time.Hour)},
			policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: noon.Add(time.Hour)},
		},
		{
			"an end belongs to its action",
			policies.Verdict{Action: rules.Delay, Until: noon.Add(time.Hour)},
			policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: noon},
			policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: noon},
		},
		{
			"findings of both explain",
			policies.Verdict{Findings: []rules.Finding{one}}, policies.Verdict{Action: rules.Refuse, Findings: []rules.Finding{two}},
			policies.Verdict{Action: rules.Refuse, Findings: []rules.Finding{one, two}},
		},
		{
			"a reference survives",
			policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonRule}, policies.Verdict{Action: rules.StepUp, Reference: "K7"},
			policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonRule, Reference: "K7"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.a.Stricter(tc.b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := tc.b.Stricter(tc.a).Action; got != tc.want.Action {
				t.Errorf("the other way round: got %v, want %v", got, tc.want.Action)
			}
		})
	}
}

func TestStricterSharesNoFindings(t *testing.T) {
	a := policies.Verdict{Findings: append(make([]rules.Finding, 0, 4), rules.Finding{Rule: "a"})}
	b := a.Stricter(policies.Verdict{Findings: []rules.Finding{{Rule: "b"}}})
	c := a.Stricter(policies.Verdict{Findings: []rules.Finding{{Rule: "c"}}})
	if got, want := b.Findings[1].Rule+c.Findings[1].Rule, rules.ID("bc"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReasonsAreDistinct(t *testing.T) {
	seen := make(map[policies.Reason]bool)
	for _, r := range policies.Reasons() {
		if seen[r] {
			t.Errorf("%q is there twice", r)
		}
		seen[r] = true
	}
	policies.Reasons()[0] = "changed"
	if got := policies.Reasons()[0]; got != policies.ReasonNone {
		t.Errorf("the set was changed from outside: got %q first", got)
	}
}

func TestVerdictGolden(t *testing.T) {
	v := policies.Verdict{
		Action: rules.StepUp, Reason: policies.ReasonDecision, Rule: "stuffing.sequential", Decision: "06f2k3n5r8v0w2x4z6a8b0c2d4",
		Until: noon, Delay: 1500 * time.Millisecond, Reference: "KD-7Q2M",
		Findings: []rules.Finding{{
			Rule: "stuffing.sequential", Title: "A list in order", Severity: "high", Mode: rules.Enforce, Time: noon,
			Why: "30 names in order", Values: map[string]any{"tried": 30.0}, Event: detectors.EventKey{Node: "a", Incarnation: 1, Sequence: 7},
			Then: []rules.Response{{Decide: &rules.Decide{Scope: "source.network", Action: rules.StepUp, For: 30 * time.Minute}}},
		}},
	}
	golden(t, "verdict.json", v)
	golden(t, "verdict_zero.json", policies.Verdict{})
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back policies.Verdict
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, back); diff != "" {
		t.Errorf("reading it back (-want +got):\n%s", diff)
	}
}
