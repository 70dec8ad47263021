package guard_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// rule gives a gate one rule: asked at a stage when something holds, doing then; with an
// event that it matches and one that it does not.
func (g *gate) rule(t *testing.T, on rules.Stage, when, then, hit, miss string) {
	t.Helper()
	set, faults := rules.Load(fstest.MapFS{"test.yaml": {Data: []byte(fmt.Sprintf(`id: test.stage
title: A stage
severity: low
owner: night@example.com
reason: Tests need one.
review_by: 2027-05-31
on: %s
when: %s
then: %s
mode: enforce
tests:
  - {name: it matches, given: [%s], expect: match}
  - {name: it does not, given: [%s], expect: none}
`, on, when, then, hit, miss))}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	g.core.Rules.Store(set)
}

// of are the events of a kind.
func (g *gate) of(kind detectors.Kind) (all []detectors.Event) {
	for _, e := range g.happened() {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

func (c *client) mint() (status int, token string) {
	c.t.Helper()
	got := c.do("POST", "/tokens", "", "")
	_, rest, _ := strings.Cut(got.body, `"token":"`)
	token, _, _ = strings.Cut(rest, `"`)
	return got.status, token
}

func TestMessagesAreAsked(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	c.login(alice, "correct-alice")
	send := func(body string) int { t.Helper(); return c.do("POST", "/messages", "application/json", body).status }
	if got := send(`{"to":"a"}`); got != 200 || len(g.of(detectors.Message)) != 0 {
		t.Errorf("no rule is asked: %d, and %d events of messages, want none", got, len(g.of(detectors.Message)))
	}
	g.rule(t, rules.Message, "targets >= 3 && size > 10", "[{answer: refuse}]", "{kind: message, outcome: unknown, targets: 3, size: 11}", "{kind: message, outcome: unknown, targets: 2, size: 11}")
	paths := len(backend.paths)
	if got := send(`{"to":"a, b"}`); got != 200 {
		t.Errorf("to two: %d", got)
	}
	if got := send(`{"to":["a","b","c"]}`); got != http.StatusForbidden {
		t.Errorf("to three: %d, want to be refused", got)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("r", i))
	}
	if got := send(`{"to":["` + strings.Join(many, `","`) + `"]}`); got != http.StatusForbidden {
		t.Errorf("to a hundred: %d, want to be refused", got)
	}
	if got := c.get("/messages").status; got != 200 {
		t.Errorf("reading them: %d", got)
	}
	if got := len(backend.paths) - paths; got != 2 {
		t.Errorf("the backend got %d requests, want 2", got)
	}
	var said []string
	for _, e := range g.of(detectors.Message) {
		said = append(said, fmt.Sprint(e.Outcome, e.Reason, e.Account, e.Targets, e.Route))
	}
	want := fmt.Sprintf("[unknown%[1]s2message refusedrule%[1]s3message refusedrule%[1]s64message]", alice)
	if got := fmt.Sprint(said); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("events\n%s, want\n%s", got, want)
	}
}

// Who has a factor is asked for it once more, and goes on.
func TestMessagesAreSteppedUp(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	c.through(c.give(c.held(alice, "correct-alice"), phone.code()))
	g.rule(t, rules.Message, "size > 0", "[{answer: step_up}]", "{kind: message, outcome: unknown, size: 1}", "{kind: message, outcome: unknown}")
	send := func() reply { t.Helper(); return c.do("POST", "/messages", "application/json", "{}") }
	if got := send(); got.status != 200 {
		t.Errorf("right after the factor: %d", got.status)
	}
	g.advance(time.Hour)
	got := send()
	if got.status != http.StatusSeeOther || !strings.HasPrefix(got.header.Get("Location"), "/.kidoban/step-up") {
		t.Fatalf("an hour later: %d to %q", got.status, got.header.Get("Location"))
	}
	step := got.header.Get("Location")
	c.form(step, "csrf", c.get(step).token(t), "code", phone.code())
	if got := send(); got.status != 200 {
		t.Errorf("after the factor: %d", got.status)
	}
	other := g.client(t)
	other.login(mallory, "correct-mallory")
	if got := other.do("POST", "/messages", "application/json", "{}"); got.status != http.StatusForbidden {
		t.Errorf("who has none: %d, want a refusal", got.status)
	}
}

// A body too long to be read for its recipients gets through whole.
func TestLongMessages(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	g.rule(t, rules.Message, "targets >= 3", "[{answer: refuse}]", "{kind: message, outcome: unknown, targets: 3}", "{kind: message, outcome: unknown}")
	c := g.client(t)
	c.login(alice, "correct-alice")
	body := `{"to":["a","b","c"],"text":"` + strings.Repeat("x", 200<<10) + `"}`
	if got := c.do("POST", "/messages", "application/json", body); got.status != 200 || backend.bodies[len(backend.bodies)-1] != body {
		t.Errorf("%d, and the backend got %d bytes of %d", got.status, len(backend.bodies[len(backend.bodies)-1]), len(body))
	}
}

func TestRequestsAreAsked(t *testing.T) {
	const hit, miss = "{kind: request, route: reset, outcome: unknown, source: " + suspect + "}", "{kind: request, route: reset, outcome: unknown}"
	for _, action := range []string{"refuse", "deceive"} {
		t.Run("reset, "+action, func(t *testing.T) {
			backend := newMailer()
			g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
			first := visible(g.client(t).reset("nobody@example.com"))
			backend.wait(t, 1)
			g.rule(t, rules.Request, `route == "reset" && source.address == "`+suspect+`"`, "[{answer: "+action+"}]", hit, miss)
			c := g.client(t)
			c.header.Set(address, suspect)
			if got := visible(c.reset(alice)); got != first {
				t.Errorf("the answer is\n%s\nand others'\n%s", got, first)
			}
			g.client(t).reset(alice)
			backend.wait(t, 2)
			if got := backend.count(); got != 2 {
				t.Errorf("the backend was asked %d times, want 2: not by the suspect", got)
			}
			last := g.of(detectors.Request)[1]
			if last.Outcome != detectors.Refused || last.Reason != string(policies.ReasonRule) || last.Route != detectors.Reset {
				t.Errorf("event %+v, want a reset refused by a rule", last)
			}
		})
	}
	for name, test := range map[string]struct {
		then string
		want int
	}{
		"refuse":                     {then: "[{answer: refuse}]", want: 403},
		"delay":                      {then: "[{answer: delay}]", want: 200},
		"no factor":                  {then: "[{answer: step_up}]", want: 403},
		"no factor, else delay":      {then: "[{answer: step_up, else: delay}]", want: 200},
		"deceive where nobody can":   {then: "[{answer: deceive}]", want: 403},
		"deceive, or else nothing":   {then: "[{answer: deceive, else: none}]", want: 200},
		"a decision is not about it": {then: "[{decide: {scope: source.address, action: step_up, for: 1h}}]", want: 200},
	} {
		t.Run("token, "+name, func(t *testing.T) {
			g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
			c := g.client(t)
			c.login(alice, "correct-alice")
			g.rule(t, rules.Request, `route == "token_mint"`, test.then, "{kind: request, route: token_mint, outcome: unknown}", "{kind: request, route: signup, outcome: unknown}")
			if got, _ := c.mint(); got != test.want {
				t.Errorf("minting: %d, want %d", got, test.want)
			}
		})
	}
}

func TestSessionsAreAsked(t *testing.T) {
	const (
		hit  = "{kind: session, act: begun, outcome: success, account: " + alice + "}"
		miss = "{kind: session, act: ended, outcome: success, account: " + alice + "}"
		when = `act == "begun" && account == "` + alice + `"`
	)
	t.Run("refused", func(t *testing.T) {
		backend := newHostile()
		g := newGate(t, "hostile", backend)
		g.rule(t, rules.Session, when, "[{answer: refuse}]", hit, miss)
		c := g.client(t)
		if got := c.login(alice, "correct-alice"); got.status != 403 || strings.Contains(got.body, "welcome") || len(c.cookies) > 0 {
			t.Errorf("%d %q with cookies %v, want a refusal", got.status, got.body, c.cookies)
		}
		g.wantNoSession(t, alice)
		if len(backend.sessions) > 0 {
			t.Errorf("the backend still has the session: %v", backend.sessions)
		}
		other := g.client(t)
		other.login(mallory, "correct-mallory")
		other.wantSecret(mallory)
	})
	t.Run("stepped up", func(t *testing.T) {
		g := newGate(t, "hostile", newHostile(), withFactors(t, `factors: {require: [{need: none}]}`))
		phone := g.enrol(t, alice)
		g.rule(t, rules.Session, when, "[{answer: step_up}]", hit, miss)
		c := g.browser(t)
		page := c.held(alice, "correct-alice")
		c.wantSecret("")
		g.wantNoSession(t, alice)
		for _, e := range g.of(detectors.Login) {
			if !e.Unproven && e.Outcome == detectors.Success {
				t.Error("the log-in vouched for somebody before the factor was given")
			}
		}
		if got := c.through(c.give(page, phone.code())); got.status != 200 || !strings.Contains(got.body, "welcome") {
			t.Errorf("after the factor: %d %q", got.status, got.body)
		}
		c.wantSecret(alice)
	})
	t.Run("a token", func(t *testing.T) {
		g := newGate(t, "hostile", newHostile())
		c := g.client(t)
		c.login(alice, "correct-alice")
		g.rule(t, rules.Session, `act == "minted" && device.known && session != ""`, "[{answer: step_up}]",
			"{kind: session, act: minted, outcome: success, account: a, session: s, device: trusted}", "{kind: session, act: minted, outcome: success, account: a, device: trusted}")
		if status, token := c.mint(); status != 403 || token != "" {
			t.Errorf("%d %q, want a refusal: a token is there already when it is asked about", status, token)
		}
		if all, _ := g.core.Sessions.OfSubject(t.Context(), alice, g.clock()); len(all) != 1 {
			t.Errorf("%d sessions, want the browser's alone", len(all))
		}
		c.wantSecret(alice)
	})
	t.Run("told", func(t *testing.T) {
		g := newGate(t, "hostile", newHostile())
		c := g.client(t)
		c.login(alice, "correct-alice")
		c.mint()
		c.do("POST", "/logout", "", "")
		var got []string
		for _, e := range g.of(detectors.Session) {
			if e.Account != alice || e.Session == "" || e.Outcome != detectors.Success {
				t.Errorf("event %+v", e)
			}
			got = append(got, string(e.Act)+e.Actor)
		}
		if want := "[begun minted endedbackend]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	})
}

// A token that is not accepted is an event, the same token by the same name; a decoy marks
// where it came from.
func TestTokensInVain(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	decoy := g.core.Digest("name", "planted-token")
	g.core.Detectors.SetDecoys(func(d detectors.Digest) bool { return d == detectors.Digest(decoy) })
	c := g.client(t)
	c.header.Set(address, suspect)
	for _, token := range []string{"one", "one", "two", "planted-token"} {
		c.header.Set("X-Token", token)
		want := 200 // it is left out of the request, and no more
		if token == "planted-token" {
			want = http.StatusForbidden // by the rule that ships
		}
		if got := c.get("/hello"); got.status != want {
			t.Errorf("%s: %d, want %d", token, got.status, want)
		}
	}
	all := g.of(detectors.Session)
	if len(all) != 4 || all[0].Name != all[1].Name || all[0].Name == all[2].Name || all[3].Name.Digest != decoy || all[0].Outcome != detectors.Refused || all[0].Credential != "token" {
		t.Fatalf("events %+v", all)
	}
	if !value(g.core.Detectors.Assess(all[0]), "source.decoy") || !value(g.core.Detectors.Assess(all[3]), "name.decoy") {
		t.Error("a decoy token left no mark")
	}
	g.rule(t, rules.Session, `outcome == "refused" && name.decoy == 1`, "[{answer: refuse}]",
		"{kind: session, outcome: refused, name: d, decoy: true}", "{kind: session, outcome: refused, name: d}")
	if got := c.get("/hello"); got.status != 403 {
		t.Errorf("the decoy, with a rule: %d", got.status)
	}
	for range 3000 {
		c.get("/hello")
	}
	if n := len(g.of(detectors.Session)); n > 1100 {
		t.Errorf("%d events of one program in a moment, want about 1,000 at most", n)
	}
}

func value(signals []detectors.Signal, name string) bool {
	for _, s := range signals {
		if s.Name == name && s.Value == 1 {
			return true
		}
	}
	return false
}

func TestFactorsAreAsked(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	g.rule(t, rules.Factor, `outcome == "failure" && credential == "totp"`, "[{answer: refuse}]",
		"{kind: factor, outcome: failure, credential: totp}", "{kind: factor, outcome: success, credential: totp}")
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	if got := c.give(page, "000000"); got.status != 403 {
		t.Errorf("a wrong code: %d, want a refusal", got.status)
	}
	if got := c.give(page, phone.code()); got.status == 200 || strings.Contains(got.body, "welcome") {
		t.Errorf("the right one after it: %d %q, want that the login is over", got.status, got.body)
	}
	g.wantNoSession(t, alice)
	g.advance(time.Hour)
	if got := c.through(c.give(c.held(alice, "correct-alice"), phone.code())); got.status != 200 {
		t.Errorf("another login: %d", got.status)
	}
}

// What operators do is asked about at stage request; the rule's owner and the operators
// are told once.
func TestOperatorsAreAsked(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.core.Subscribe([]guard.Subscription{
		{To: "siem"}, {To: "decisions", Types: []string{"decision.lifted"}}, {Channel: "mail", To: "ops@example.com", Language: "ja"},
	})
	g.rule(t, rules.Request, `kind == "operator" && act == "decision.lift"`,
		"[{notify: {to: operators, key: actor, every: 1h}}, {notify: {to: owner, key: actor, every: 1h}}, {tag: operator-lifts}, {answer: refuse}]",
		"{kind: operator, act: decision.lift, actor: 'operator:sato', outcome: success}", "{kind: operator, act: session.end, outcome: success}")
	ctx := t.Context()
	lift := func(by string) {
		t.Helper()
		d, _, err := g.core.RegisterDecision(ctx, blocked("203.0.113.9"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.core.LiftDecision(ctx, d.ID, by); err != nil {
			t.Fatal(err)
		}
	}
	lift("sato")
	lift("sato")
	if got := len(g.letters(t, "siem")) + len(g.letters(t, "decisions")); got == 0 {
		t.Error("nobody was told")
	}
	matches := func(to string) (n int) {
		for _, l := range g.letters(t, to) {
			if l.Template == "rule.matched" {
				n++
				if l.Values["value"] != "operator:sato" || l.Values["rule"] != "test.stage" || l.Values["scope"] != "actor" || l.Values["reason"] == "" {
					t.Errorf("%s is told %v", to, l.Values)
				}
			}
		}
		return n
	}
	for to, want := range map[string]int{"siem": 1, "decisions": 0, "ops@example.com": 1, "night@example.com": 1} {
		if got := matches(to); got != want {
			t.Errorf("%s is told %d times, want %d", to, got, want)
		}
	}
	g.advance(time.Hour)
	lift("sato")
	if got := matches("siem"); got != 2 {
		t.Errorf("an hour later: told %d times, want 2", got)
	}
	var acts []string
	for _, e := range g.of(detectors.Operator) {
		acts = append(acts, string(e.Act)+" "+e.Actor)
	}
	if len(acts) != 6 || acts[1] != "decision.lift operator:sato" || !strings.HasPrefix(acts[0], "decision.register operator:") {
		t.Errorf("acts %q", acts)
	}
	if tags := g.entries(t, "tag.operator-lifts"); len(tags) == 0 || tags[0].Class != record.Aggregated {
		t.Errorf("tags on the record: %+v", tags)
	}
}

// A rule that matches each attempt tells no more than the bound.
func TestTellingIsBounded(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.core.Subscribe([]guard.Subscription{{To: "siem"}})
	g.rule(t, rules.LoginAfter, `outcome == "failure"`, "[{notify: {to: operators, key: source.address, every: 1h}}]", "{outcome: failure}", "{outcome: success}")
	c := g.client(t)
	for i := range 100 {
		c.header.Set(address, fmt.Sprintf("203.0.113.%d", i))
		c.login(fmt.Sprintf("user%d@example.com", i), "wrong")
	}
	if got := len(g.letters(t, "siem")); got != 60 {
		t.Errorf("told %d times, want 60", got)
	}
}

// Whose account it is about is written to, and not told which rule.
func TestOwnersAreTold(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.rule(t, rules.Session, `act == "begun"`, "[{notify: {to: account, key: account, every: 24h}}]", "{kind: session, act: begun, account: a, outcome: success}", "{kind: session, act: ended, outcome: success}")
	for range 3 {
		g.client(t).login(alice, "correct-alice")
	}
	letters := g.letters(t, alice)
	if len(letters) != 1 || letters[0].Template != "activity.noticed" || strings.Contains(fmt.Sprint(letters[0].Values), "test.stage") {
		t.Errorf("letters %+v, want one that names no rule", letters)
	}
}

// What cannot be done at a login falls back as the rule declares.
func TestLoginsFallBack(t *testing.T) {
	for _, test := range []struct {
		answer string
		status int
	}{
		{"step_up, else: none", 200}, {"step_up, else: delay", 200}, {"step_up, else: refuse", 403}, {"deceive, else: none", 200}, {"deceive", 403},
	} {
		g := newGate(t, "hostile", newHostile())
		g.rule(t, rules.LoginBefore, `source.address == "`+suspect+`"`, "[{answer: "+test.answer+"}]", "{outcome: success, source: "+suspect+"}", "{outcome: success}")
		c := g.client(t)
		c.header.Set(address, suspect)
		if got := c.login(alice, "correct-alice"); got.status != test.status {
			t.Errorf("%s: %d, want %d", test.answer, got.status, test.status)
		}
	}
	g := newGate(t, "hostile", newHostile())
	g.rule(t, rules.LoginAfter, `outcome == "failure"`, "[{decide: {scope: source.address, action: step_up, for: 1h, else: refuse}}]", "{outcome: failure}", "{outcome: success}")
	c := g.client(t)
	c.login(alice, "wrong")
	all, _, err := g.core.Decisions.List(t.Context(), policies.DecisionQuery{Limit: 10}, g.clock())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].Action != rules.Refuse || !strings.Contains(all[0].Reason, "step_up cannot be done here, refuse is in its place") {
		t.Errorf("decisions %+v", all)
	}
}

// Where decisions are only observed, what rules answer is counted and no more.
func TestStagesObserved(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), func(c *setup) {
		var err error
		if c.Modes, err = c.Modes.Observe(guard.ControlDecisions); err != nil {
			t.Fatal(err)
		}
	})
	g.rule(t, rules.Message, "size > 0", "[{answer: refuse}]", "{kind: message, outcome: unknown, size: 1}", "{kind: message, outcome: unknown}")
	c := g.client(t)
	c.login(alice, "correct-alice")
	if got := c.do("POST", "/messages", "application/json", `{}`); got.status != 200 {
		t.Errorf("%d, want it passed on", got.status)
	}
	if e := g.of(detectors.Message); len(e) != 1 || e[0].Outcome != detectors.Unknown {
		t.Errorf("events %+v", e)
	}
}
