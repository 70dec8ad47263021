package policies_test

import (
	"strings"
	"testing"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// What cannot be done about an event falls back as the rule declares, else to a refusal
// where anything can be answered, and the finding says so.
func TestMeansOfEvents(t *testing.T) {
	rendering := &policies.Backend{Login: policies.LoginForm{Failure: map[string]policies.Rendering{"json": {}}},
		Requests: map[detectors.RouteClass]policies.RequestForm{detectors.Reset: {Uniform: true}}}
	evidence := []detectors.Signal{{Name: "name.decoy", Value: 1}}
	none, stepUp := rules.Allow, rules.StepUp
	login := detectors.Event{Kind: detectors.Login}
	reset := detectors.Event{Kind: detectors.Request, Route: detectors.Reset, Name: detectors.Name{Digest: detectors.Digest{1}}}
	message := detectors.Event{Kind: detectors.Message}
	session := func(act detectors.Act) detectors.Event { return detectors.Event{Kind: detectors.Session, Act: act} }
	in := func(e detectors.Event) detectors.Event { e.Session = "s"; return e }
	of := func(e detectors.Event, route detectors.RouteClass) detectors.Event { e.Route = route; return e }
	for _, test := range []struct {
		name    string
		stage   rules.Stage
		e       detectors.Event
		b       *policies.Backend
		signals []detectors.Signal
		answer  rules.Action
		or      *rules.Action
		want    rules.Action
	}{
		{"a login", rules.LoginBefore, login, nil, nil, rules.StepUp, nil, rules.StepUp},
		{"a lie with evidence", rules.LoginBefore, login, nil, evidence, rules.Deceive, &stepUp, rules.Deceive},
		{"a lie without evidence", rules.LoginBefore, login, nil, nil, rules.Deceive, &stepUp, rules.StepUp},
		{"a lie without evidence, undeclared", rules.LoginBefore, login, nil, nil, rules.Deceive, nil, rules.Deceive}, // AnswerOf refuses
		{"a lie that the preset can tell", rules.LoginAfter, login, rendering, evidence, rules.Deceive, &stepUp, rules.Deceive},
		{"a lie that the preset cannot tell", rules.LoginAfter, login, &policies.Backend{}, evidence, rules.Deceive, &stepUp, rules.StepUp},
		{"a reset, a lie", rules.Request, reset, rendering, evidence, rules.Deceive, &none, rules.Deceive},
		{"a reset of nobody, a lie", rules.Request, detectors.Event{Kind: detectors.Request, Route: detectors.Reset}, rendering, evidence, rules.Deceive, &none, rules.Allow},
		{"another request, a lie", rules.Request, of(reset, detectors.Signup), rendering, evidence, rules.Deceive, nil, rules.Refuse},
		{"a request of a stranger", rules.Request, reset, nil, nil, rules.StepUp, nil, rules.Refuse},
		{"a request of who is in", rules.Request, in(reset), nil, nil, rules.StepUp, nil, rules.StepUp},
		{"a message of a stranger", rules.Message, message, nil, nil, rules.StepUp, &none, rules.Allow},
		{"a message of who is in", rules.Message, in(message), nil, nil, rules.StepUp, &none, rules.StepUp},
		{"a session begins", rules.Session, session(detectors.Begun), nil, nil, rules.StepUp, nil, rules.StepUp},
		{"a token is minted", rules.Session, in(session(detectors.Minted)), nil, nil, rules.StepUp, nil, rules.Refuse},
		{"a token is used in vain", rules.Session, session(""), nil, nil, rules.StepUp, &none, rules.Allow},
		{"a session ended", rules.Session, session(detectors.Ended), nil, nil, rules.Refuse, nil, rules.Allow},
		{"an operator acted", rules.Request, detectors.Event{Kind: detectors.Operator}, nil, nil, rules.Refuse, nil, rules.Allow},
		{"a factor", rules.Factor, detectors.Event{Kind: detectors.Factor}, nil, nil, rules.Refuse, nil, rules.Refuse},
	} {
		f := rules.Finding{Rule: "a.rule", Why: "because", Then: []rules.Response{{Tag: "x"}, {Answer: test.answer, Else: test.or}}}
		told := 0
		got := policies.MeansOf(test.stage, &test.e, test.b).Feasible(f, test.signals, func(action, instead rules.Action) {
			told++
			if action != test.answer || instead != test.want {
				t.Errorf("%s: told of %s in the place of %s", test.name, instead, action)
			}
		})
		if got.Then[1].Answer != test.want || (told == 1) != (test.want != test.answer) || strings.Contains(got.Why, "is in its place") != (told == 1) {
			t.Errorf("%s: got %s, told %d times, %q; want %s", test.name, got.Then[1].Answer, told, got.Why, test.want)
		}
		if f.Then[1].Answer != test.answer {
			t.Errorf("%s: the finding was changed", test.name)
		}
	}
}

// So does what cannot last.
func TestDecisionsFallBack(t *testing.T) {
	none, stepUp := rules.Allow, rules.StepUp
	login := detectors.Event{Kind: detectors.Login}
	for _, test := range []struct {
		name   string
		m      policies.Means
		action rules.Action
		or     *rules.Action
		want   rules.Action // Allow: no decision
	}{
		{"a lie", policies.MeansOf(rules.LoginAfter, &login, nil), rules.Deceive, &stepUp, rules.Deceive},
		{"a lie that cannot be told", policies.MeansOf(rules.LoginAfter, &login, &policies.Backend{}), rules.Deceive, &stepUp, rules.StepUp},
		{"a lie, undeclared", policies.MeansOf(rules.LoginAfter, &login, &policies.Backend{}), rules.Deceive, nil, rules.Deceive},
		{"a step up", policies.MeansOf(rules.LoginAfter, &login, nil), rules.StepUp, &none, rules.StepUp},
		{"a step up without factors", policies.Means{}, rules.StepUp, &none, rules.Allow},
	} {
		f := rules.Finding{Then: []rules.Response{{Decide: &rules.Decide{Scope: "account", Action: test.action, For: 1, Else: test.or}}}}
		got := rules.Allow
		if d := test.m.Feasible(f, nil, func(_, _ rules.Action) {}).Then[0].Decide; d != nil {
			got = d.Action
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}
