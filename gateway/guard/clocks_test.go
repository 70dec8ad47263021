package guard_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/fstest"
	_ "time/tzdata" // the same zones on every machine

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// abroad puts the service into Berlin, and two organizations into Tokyo.
func (g *gate) abroad(t *testing.T) {
	t.Helper()
	p, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte("zone: Europe/Berlin\norganizations:\n  acme.example: {zone: Asia/Tokyo}\n  example: {zone: Asia/Tokyo}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	g.core.UseClocks(p.Clocks())
}

// shown is what happened at which hour, as far as clocks show it.
func (g *gate) shown() (all []string) {
	for _, e := range g.happened() {
		all = append(all, fmt.Sprint(e.Kind, " ", e.Act, " ", e.Outcome, " ", e.Local().Hour()))
	}
	g.mu.Lock()
	g.events = nil
	g.mu.Unlock()
	return all
}

// Events show the clock of the organization once a log-in was accepted, and before that
// the service's. It is nine o'clock in UTC, in winter.
func TestClocks(t *testing.T) {
	g := newGate(t, "hostile", &tenants{zones: map[string]string{"far.example": "America/New_York", "acme.example": "America/New_York", "lost.example": "Atlantis"}})
	for _, test := range []struct {
		organization string
		service, own int
	}{{"acme.example", 10, 18}, {"far.example", 10, 4}, {"lost.example", 10, 10}, {"other.example", 10, 10}} {
		t.Run(test.organization, func(t *testing.T) {
			g.abroad(t)
			g.rule(t, rules.Message, "targets > 60", "[{tag: many}]", "{kind: message, outcome: unknown, targets: 61}", "{kind: message, outcome: unknown}")
			name := "taro@" + test.organization
			c := g.client(t)
			for _, password := range []string{"wrong", "right", "wrong"} { // known in the end, and no more believed
				c.login(name, password)
			}
			c.mint()
			c.do("POST", "/messages", "application/json", "{}")
			c.do("POST", "/logout", "", "")
			want := []string{
				fmt.Sprint("login  failure ", test.service),
				fmt.Sprint("login  success ", test.own), fmt.Sprint("session begun success ", test.own),
				fmt.Sprint("login  failure ", test.service),
				fmt.Sprint("request  unknown ", test.own), fmt.Sprint("message  unknown ", test.own), fmt.Sprint("session ended success ", test.own),
			}
			if got := g.shown(); !slices.Equal(got, want) {
				t.Errorf("got\n%q, want\n%q", got, want)
			}
			g.core.UseClocks(nil)
			c.login(name, "right")
			if got, want := g.shown(), []string{"login  success 9", "session begun success 9"}; !slices.Equal(got, want) {
				t.Errorf("without clocks: got %q, want %q", got, want)
			}
		})
	}
}

// A log-in that waits for its factor begins when it is given, and by the clock of then.
func TestClocksOfHeldLogins(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	g.abroad(t)
	phone := g.enrol(t, alice)
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	g.shown()
	p, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte("organizations: {example: {zone: Asia/Kolkata}}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	g.core.UseClocks(p.Clocks())
	c.through(c.give(page, phone.code()))
	want := []string{"factor  success 9", "session begun success 14", "login  success 14"}
	if got := g.shown(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Where the gate only observes, clocks are the same.
func TestClocksOfObserved(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), observing(t))
	g.abroad(t)
	told := make(chan detectors.Event, 10)
	g.core.Stream.Subscribe(func(e detectors.Event) { told <- e })
	g.client(t).login(alice, "correct-alice")
	if e := <-told; e.Outcome != detectors.Success || e.Local().Hour() != 18 {
		t.Errorf("a log-in of outcome %s at %s, want a success at 18 o'clock", e.Outcome, e.Local())
	}
}

// Rules are asked by the same clocks as are published.
func TestRulesReadClocks(t *testing.T) {
	g := newGate(t, "hostile", new(tenants))
	g.abroad(t)
	const ten, six = "{outcome: success, after: 1h}", "{outcome: success, after: 9h}"
	for _, test := range []struct {
		on      rules.Stage
		when    string
		hit     string
		refused []bool // of acme.example, and of others
	}{
		{rules.LoginBefore, "local.hour == 10", ten, []bool{true, true}},
		{rules.LoginBefore, "local.hour == 18", six, []bool{false, false}},
		{rules.LoginAfter, "local.hour == 10", ten, []bool{false, true}},
		{rules.LoginAfter, "local.hour == 18 && local.weekday == 1", six, []bool{true, false}},
		{rules.Session, `local.hour == 18 && act == "begun"`, "{kind: session, act: begun, outcome: success, after: 9h}", []bool{true, false}},
	} {
		g.rule(t, test.on, "'"+test.when+"'", "[{answer: refuse}]", test.hit, "{outcome: success, after: 30m}")
		for i, organization := range []string{"acme.example", "other.example"} {
			got := g.client(t).login(fmt.Sprintf("hanako%d@%s", i, organization), "right").status
			if refused := got == http.StatusForbidden || got == http.StatusUnauthorized; refused != test.refused[i] {
				t.Errorf("%s, %s: %s gets %d, want refused: %t", test.on, test.when, organization, got, test.refused[i])
			}
		}
	}
	if got := g.of(detectors.Login); len(got) == 0 {
		t.Error("nobody logged in")
	}
}
