package guard_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// answering gives a gate one rule, which answers log-ins of one place alone.
func (g *gate) answering(t *testing.T, on rules.Stage, action, mode string) {
	t.Helper()
	ended := ""
	if on == rules.LoginAfter {
		ended = ` && outcome == "success"`
	}
	set, faults := rules.Load(fstest.MapFS{"answer.yaml": {Data: []byte(`id: test.answer
title: An answer
severity: low
owner: security-team
reason: Tests need one.
review_by: 2027-05-31
on: ` + string(on) + `
when: source.address == "` + suspect + `"` + ended + `
then: [{answer: ` + action + `}]
mode: ` + mode + `
tests:
  - name: it matches there
    given: [{source: ` + suspect + `, outcome: success}]
    expect: {action: ` + action + `, scope: attempt}
  - name: and nowhere else
    given: [{source: 192.0.2.1, outcome: success}]
    expect: none
`)}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	g.core.Rules.Store(set)
}

// TestRulesAnswer: what a rule answers is for the attempt that it is about, and lasts
// no longer.
func TestRulesAnswer(t *testing.T) {
	for _, test := range []struct {
		on           rules.Stage
		action, mode string
		status       int
		says         string
		asked        int  // log-ins that reached the backend
		attack       bool // there is evidence of one
	}{
		{rules.LoginBefore, "delay", "enforce", 200, "welcome", 1, false},
		{rules.LoginBefore, "refuse", "enforce", 403, "problems/refused", 0, false},
		{rules.LoginBefore, "step_up", "enforce", 403, "problems/step-up", 0, false},
		{rules.LoginBefore, "deceive", "enforce", 401, "{}", 0, true},
		{rules.LoginBefore, "deceive", "enforce", 403, "problems/refused", 0, false},
		{rules.LoginBefore, "refuse", "shadow", 200, "welcome", 1, false},
		{rules.LoginAfter, "delay", "enforce", 200, "welcome", 1, false},
		{rules.LoginAfter, "refuse", "enforce", 403, "problems/refused", 1, false},
		{rules.LoginAfter, "deceive", "enforce", 401, "{}", 1, true},
		{rules.LoginAfter, "deceive", "enforce", 403, "problems/refused", 1, false},
		{rules.LoginAfter, "refuse", "shadow", 200, "welcome", 1, false},
	} {
		t.Run(fmt.Sprint(test.on, " ", test.action, " ", test.mode, " ", test.attack), func(t *testing.T) {
			backend := newHostile()
			g := newGate(t, "hostile", backend, answeringAfter(time.Millisecond), func(c *setup) { c.Policy.Delay = time.Millisecond })
			g.answering(t, test.on, test.action, test.mode)
			g.core.Detectors.SetDecoys(func(detectors.Digest) bool { return test.attack })
			c := g.thief(t, false)
			got := c.login(alice, "correct-alice")
			if got.status != test.status || !strings.Contains(got.body, test.says) || backend.logins != test.asked {
				t.Errorf("%d after %d log-ins at the backend: %s", got.status, backend.logins, got.body)
			}
			if test.status != http.StatusOK {
				c.wantSecret("")
				for _, e := range g.happened() {
					if e.Kind == detectors.Login && e.Outcome == detectors.Success && !e.Unproven {
						t.Errorf("a success that was kept back vouches for somebody: %+v", e)
					}
				}
			}
			if all, _, err := g.core.Decisions.List(t.Context(), policies.DecisionQuery{}, g.clock()); err != nil || len(all) != 0 {
				t.Errorf("%d decisions last, %v", len(all), err)
			}
			c = g.client(t)
			if got := c.login(alice, "correct-alice"); got.status != http.StatusOK {
				t.Errorf("elsewhere: %d", got.status)
			}
		})
	}
}

// TestDeceivedLikeAFailure: who is deceived sees what a wrong password looks like.
func TestDeceivedLikeAFailure(t *testing.T) {
	for _, on := range []rules.Stage{rules.LoginBefore, rules.LoginAfter} {
		g := newGate(t, "hostile", newHostile(), answeringAfter(time.Millisecond))
		g.answering(t, on, "deceive", "enforce")
		g.core.Detectors.SetDecoys(func(detectors.Digest) bool { return true })
		c := g.thief(t, false)
		got := c.login(alice, "correct-alice")
		if len(got.set) > 0 || got.header.Get("Retry-After") != "" || got.header.Get("Content-Type") != "application/json" || strings.Contains(got.body, "reference") {
			t.Errorf("%s: %s", on, visible(got))
		}
		// The preset has no page for a browser: it is refused.
		if got := g.thief(t, true).form("/login", "email", alice, "password", "correct-alice"); got.status != http.StatusForbidden {
			t.Errorf("%s: a browser gets %d", on, got.status)
		}
	}
}
