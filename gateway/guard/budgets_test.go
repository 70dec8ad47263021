package guard_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// tenants is a backend for many organizations: everybody's password is "right", and the
// organization is what stands behind the @.
type tenants struct {
	mu       sync.Mutex
	sessions map[string]string
	zones    map[string]string // where the people of an organization are
}

func (b *tenants) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	account := ""
	if c, err := r.Cookie("sid"); err == nil {
		account = b.sessions[c.Value]
	}
	switch {
	case r.URL.Path == "/login" && r.Method == http.MethodPost:
		var in struct{ Email, Password string }
		if json.NewDecoder(r.Body).Decode(&in) != nil || in.Password != "right" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if b.sessions == nil {
			b.sessions = map[string]string{}
		}
		value := rand.Text()
		b.sessions[value] = in.Email
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: value, Path: "/"})
		fmt.Fprint(w, `{"ok":true}`)
	case account == "":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/me":
		_, organization, _ := strings.Cut(account, "@")
		json.NewEncoder(w).Encode(map[string]string{"id": account, "org": organization, "mail": account, "zone": b.zones[organization]})
	}
}

// badRule takes an office for an attack: three people of one network within an hour.
const badRule = `id: bad.office
title: Three people of one network
severity: high
owner: security-team
reason: It is wrong, to see what becomes of it.
review_by: 2027-05-31
count:
  people: {distinct: name, by: source.network, within: 1h}
on: login.after
when: outcome == "success" && (people >= 3 || source.flagged == 1)
then:
  - decide: {scope: source.network, action: refuse, for: 1h}
mode: enforce
budget: {false_positives: 1%, over: 7d}
tests:
  - name: three people match
    given: [{repeat: 3, name: "user{n}", outcome: success}]
    expect: {action: refuse, scope: source.network}
  - name: two do not
    given: [{repeat: 2, name: "user{n}", outcome: success}]
    expect: none
`

// withRule is a gate with one rule.
func withRule(t *testing.T, text string) *gate {
	t.Helper()
	g := newGate(t, "hostile", new(tenants))
	g.useRule(t, text)
	return g
}

func (g *gate) useRule(t *testing.T, text string) {
	t.Helper()
	set, faults := rules.Load(fstest.MapFS{"bad.yaml": {Data: []byte(text)}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	g.core.Rules.Store(set)
}

// staff is people who are known, on devices of theirs, for eight days: of n
// organizations in turn.
func (g *gate) staff(t *testing.T, number, organizations int) (people []*client, names []string) {
	t.Helper()
	for i := range number {
		c, name := g.client(t), fmt.Sprintf("person%d@org%d.example", i, i%organizations)
		c.header.Set(address, fmt.Sprintf("10.%d.%d.1", i/200, i%200)) // at home
		if got := c.login(name, "right"); got.status != http.StatusOK {
			t.Fatalf("%s at home: %d", name, got.status)
		}
		people, names = append(people, c), append(names, name)
	}
	g.advance(24 * time.Hour)
	for i, c := range people { // a cookie that never comes back is forgotten
		if got := c.login(names[i], "right"); got.status != http.StatusOK {
			t.Fatalf("%s at home again: %d", names[i], got.status)
		}
	}
	g.advance(7 * 24 * time.Hour)
	return people, names
}

const office = "192.0.2.44"

// arrive logs people in from the office.
func arrive(t *testing.T, people []*client, names []string) {
	t.Helper()
	for i, c := range people {
		c.header.Set(address, office)
		if got := c.login(names[i], "right"); got.status != http.StatusOK {
			t.Fatalf("%s in the office: %d %s", names[i], got.status, got.body)
		}
	}
}

// TestAnOfficeMeetsABadRule: after n hits it asks for proof, after n more it only
// watches; one notice; and that holds over a restart, on every node, until the text
// changes or somebody sets it back.
func TestAnOfficeMeetsABadRule(t *testing.T) {
	g := withRule(t, badRule)
	other := g.another(t)
	r, _ := g.core.Rules.Load().Rule("bad.office")
	n := r.Budget.Falls()
	t.Logf("a rule of which every hit is wrong falls after %d of them", n)
	g.core.Subscribe([]guard.Subscription{{To: "siem", Types: []string{"rule.fell"}}})
	people, names := g.staff(t, n+2, 5)
	level := func(of *gate) rules.Fall {
		t.Helper()
		of.core.Sweep(t.Context())
		for _, x := range of.core.Falls() {
			return x.Level
		}
		return rules.Stands
	}
	stranger := func(want int, problem string) reply {
		t.Helper()
		c := g.client(t)
		c.header.Set(address, office)
		got := c.login("new@org9.example", "right")
		if got.status != want || !strings.Contains(got.body, problem) {
			t.Errorf("a stranger in the office: %d %s, want %d %s", got.status, got.body, want, problem)
		}
		return got
	}
	arrive(t, people[:n+1], names) // the first two are no match yet
	if got := level(g); got != rules.Stands {
		t.Fatalf("after %d hits: %s", n-1, got)
	}
	stranger(http.StatusForbidden, "problems/refused")
	arrive(t, people[n+1:], names[n+1:])
	if got := level(g); got != rules.Softened {
		standing, _ := g.core.Standing(t.Context(), "bad.office")
		t.Fatalf("after %d hits: %s (%+v), want step_up", n, got, standing)
	}
	if got := level(other); got != rules.Softened {
		t.Errorf("on the other node: %s", got)
	}
	stranger(http.StatusForbidden, "problems/step-up") // there are no second factors here
	g.advance(time.Minute)
	arrive(t, people[:n-1], names)
	if got := level(g); got != rules.Softened {
		t.Fatalf("after %d further hits: %s", n-1, got)
	}
	arrive(t, people[n-1:n], names[n-1:])
	if got := level(other); got != rules.Softened {
		t.Errorf("the other node let it fall without having seen a proof: %s", got)
	}
	if got := level(g); got != rules.Silenced {
		t.Fatalf("after %d further hits: %s, want shadow", n, got)
	}
	stranger(http.StatusOK, "")
	told, err := g.core.Outbox.Claim(t.Context(), "test", g.clock(), time.Minute, 10)
	if err != nil || len(told) != 1 || told[0].Values["rule"] != "bad.office" || told[0].Values["owner"] != "security-team" {
		t.Errorf("notices: %+v, %v, want one", told, err)
	}
	if fell := g.entries(t, "rule.fell"); len(fell) != 2 {
		t.Errorf("%d entries of the record, want one for each step", len(fell))
	}
	again := g.another(t) // a start over the same database
	if all := again.core.Falls(); len(all) != 1 || all[0].Level != rules.Silenced || all[0].Judgement.Benign != n {
		t.Errorf("after a restart: %+v", all)
	}

	x, err := g.core.SetRuleBack(t.Context(), "bad.office", "operator:hanako")
	if err != nil || x.Level != rules.Stands || x.By != "operator:hanako" {
		t.Fatalf("set back: %+v, %v", x, err)
	}
	if got := level(other); got != rules.Stands {
		t.Errorf("set back, on the other node: %s", got)
	}
	if acts := g.entries(t, "act.rule.set_back", "act.abandoned"); len(acts) != 1 {
		t.Errorf("the record has %d entries of it, want one", len(acts))
	}
	g.advance(time.Minute)
	arrive(t, people[:n], names)
	if got := level(g); got != rules.Softened {
		standing, _ := g.core.Standing(t.Context(), "bad.office")
		t.Fatalf("again: %s (%+v)", got, standing.Fallen)
	}
	g.useRule(t, badRule+"# edited\n")
	if got := level(g); got != rules.Stands {
		t.Errorf("a new text: %s", got)
	}
}

// TestAnAttackerCannotSwitchARuleOff: with accounts of his own, that all prove to be
// their owners', young ones of as many organizations or old ones of four. Sixty are three
// times what it takes; package rules has 500.
func TestAnAttackerCannotSwitchARuleOff(t *testing.T) {
	for _, attacker := range []struct {
		name          string
		organizations int
		old           bool
	}{{"young", 60, false}, {"few organizations", 4, true}} {
		t.Run(attacker.name, func(t *testing.T) {
			g := withRule(t, badRule)
			people, names := g.staff(t, 60, attacker.organizations)
			if !attacker.old {
				// As if they had come three days ago: devices are trusted after one.
				g.advance(-5 * 24 * time.Hour)
			}
			for i := range people {
				people[i].header.Set(address, office)
				if got := people[i].login(names[i], "right"); got.status != http.StatusOK {
					t.Fatalf("%s: %d", names[i], got.status)
				}
				if i%20 == 19 {
					g.core.Sweep(t.Context())
				}
			}
			g.core.Sweep(t.Context())
			s, err := g.core.Standing(t.Context(), "bad.office")
			if err != nil || s.Fallen.Level != rules.Stands || s.Fallen.Judgement.Over {
				t.Errorf("got %+v, %v, want that it stands", s.Fallen, err)
			}
			if attacker.old && s.Fallen.Judgement.Organizations != 4 {
				t.Errorf("got %+v: his accounts did not prove to be his", s.Fallen.Judgement)
			}
		})
	}
}

// TestNoRuleFallsDuringAnAlarm: it waits until the alarm is over.
func TestNoRuleFallsDuringAnAlarm(t *testing.T) {
	g := withRule(t, badRule)
	people, names := g.staff(t, 22, 5)
	arrive(t, people, names)
	// A good week, and then everybody fails.
	for i := range 4000 {
		e := detectors.Event{Time: g.clock().Add(time.Duration(i-4200) * 2 * time.Minute), Kind: detectors.Login, Outcome: detectors.Success}
		e.Name.Digest[0], e.Name.Digest[1] = byte(i), byte(i>>8)
		if i >= 3800 { // what is late counts as of now, fifty at a time
			e.Time, e.Outcome = g.clock().Add(time.Duration(i-4000)*time.Second), detectors.Failure
		}
		g.core.Detectors.Observe(e)
	}
	if len(g.core.Detectors.Alarms(g.clock())) == 0 {
		t.Fatal("there is no alarm")
	}
	g.core.Sweep(t.Context())
	s, err := g.core.Standing(t.Context(), "bad.office")
	if err != nil || s.Fallen.Level != rules.Stands || !s.Fallen.Judgement.Over || !s.Waits {
		t.Errorf("during the alarm: %+v, %v, want that it waits", s, err)
	}
	g.advance(12 * time.Hour)
	if alarms := g.core.Detectors.Alarms(g.clock()); len(alarms) > 0 {
		t.Fatal(alarms)
	}
	g.core.Sweep(t.Context())
	if s, err := g.core.Standing(t.Context(), "bad.office"); err != nil || s.Fallen.Level != rules.Softened || s.Waits {
		t.Errorf("after it: %+v, %v, want that it fell", s, err)
	}
}

// TestExplainFromWhatAPersonReadsOut: the code of a refusal leads by the decision to the
// finding, its values, what decided, and the text of then.
func TestExplainFromWhatAPersonReadsOut(t *testing.T) {
	g := withRule(t, badRule)
	people, names := g.staff(t, 3, 3)
	arrive(t, people, names)
	c := g.client(t)
	c.header.Set(address, office)
	var told struct{ Reference string }
	if err := json.Unmarshal([]byte(c.login("new@org9.example", "right").body), &told); err != nil || told.Reference == "" {
		t.Fatal(told, err)
	}
	g.useRule(t, badRule+"# edited\n")
	story, err := g.core.Explain(t.Context(), told.Reference)
	if err != nil || len(story.Findings) != 1 || story.Decision == "" {
		t.Fatalf("%s: %+v, %v", told.Reference, story, err)
	}
	f := story.Findings[0]
	if f.Rule != "bad.office" || f.Account != names[2] || f.Organization != "org2.example" || f.Source != office || story.Texts[f.Generation] != badRule {
		t.Errorf("got %+v", f)
	}
	x := f.Explanation
	if x.File != "bad.yaml" || x.Values["people"] != 3.0 || len(x.Parts) != 3 {
		t.Fatalf("got %+v", x)
	}
	for i, want := range []rules.Part{
		{Text: `outcome == "success"`, Line: 10, Column: 7, Result: "true", Decided: true, Names: []string{"outcome"}},
		{Text: "people >= 3", Line: 10, Column: 32, Result: "true", Decided: true, Names: []string{"people"}},
		{Text: "source.flagged == 1", Line: 10, Column: 47, Result: "false", Names: []string{"source.flagged"}},
	} {
		if got := x.Parts[i]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("part %d: got %+v, want %+v", i, got, want)
		}
	}
	for _, name := range []string{story.Decision, f.ID} {
		if s, err := g.core.Explain(t.Context(), name); err != nil || len(s.Findings) != 1 || s.Findings[0].ID != f.ID {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	// An operator says that it was benign: it counts once.
	for range 2 {
		if counts, err := g.core.MarkBenign(t.Context(), f.ID, "operator:hanako"); err != nil || !counts {
			t.Errorf("benign: %v, %v", counts, err)
		}
	}
}

// TestUndo: a preview changes nothing; undoing lifts, on record, and again does nothing.
func TestUndo(t *testing.T) {
	g := withRule(t, badRule)
	people, names := g.staff(t, 6, 3)
	before := g.clock()
	arrive(t, people[:3], names)
	g.advance(10 * time.Minute)
	after := g.clock()
	for i, c := range people[3:] {
		c.header.Set(address, "192.0.2.77")
		if got := c.login(names[i+3], "right"); got.status != http.StatusOK {
			t.Fatal(got.status)
		}
	}
	g.core.Sweep(t.Context())
	u, err := g.core.PreviewUndo(t.Context(), "bad.office", before, after)
	if err != nil || u.Live != 1 || u.Lifted != 0 || u.Subjects[policies.ScopeNetwork] != 1 || u.Organizations["org2.example"] != 1 || len(u.Organizations) != 1 ||
		u.Decisions[0].Value != office+"/32" {
		t.Fatalf("preview: %+v, %v", u, err)
	}
	if all, err := g.core.PreviewUndo(t.Context(), "bad.office", before, after.Add(time.Minute)); err != nil || all.Live != 2 {
		t.Errorf("preview of all: %+v, %v", all, err)
	}
	if none, err := g.core.PreviewUndo(t.Context(), "other", before, after); err != nil || none.Live != 0 {
		t.Errorf("preview of another rule: %+v, %v", none, err)
	}
	for i, want := range []int{1, 0} {
		if u, err := g.core.Undo(t.Context(), "bad.office", before, after, "operator:hanako"); err != nil || u.Lifted != want {
			t.Errorf("undo %d: %+v, %v, want %d lifted", i+1, u, err, want)
		}
	}
	d, err := g.core.Decisions.Get(t.Context(), u.Decisions[0].ID, g.clock())
	if err != nil || d.LiftedBy != "operator:hanako" {
		t.Errorf("got %+v, %v", d, err)
	}
	if acts := g.entries(t, "act.decision.lift"); len(acts) != 1 {
		t.Errorf("%d entries of the record, want one", len(acts))
	}
	c := g.client(t)
	c.header.Set(address, office)
	if got := c.login("new@org9.example", "right"); got.status != http.StatusOK {
		t.Errorf("in the office after it: %d", got.status)
	}
	if u, err := g.core.PreviewUndo(t.Context(), "bad.office", after, after.Add(time.Minute)); err != nil || u.Live != 1 {
		t.Errorf("what came later: %+v, %v, want it to stand", u, err)
	}
}

// TestNodesWithOtherRules: an alarm after a minute, on both, until they agree.
func TestNodesWithOtherRules(t *testing.T) {
	g := withRule(t, badRule)
	other := g.another(t)
	g.core.Share()
	other.core.Share()
	apart := func(want bool) {
		t.Helper()
		g.core.Sweep(t.Context())
		other.core.Sweep(t.Context())
		g.core.Sweep(t.Context())
		_, here := g.core.Disagreement(g.clock())
		_, there := other.core.Disagreement(g.clock())
		if len(here) > 0 != want || len(there) > 0 != want {
			t.Errorf("other rules on %v and on %v, want an alarm: %v", here, there, want)
		}
	}
	apart(false)
	other.useRule(t, badRule+"# edited\n")
	apart(false)
	g.advance(30 * time.Second)
	apart(false)
	g.advance(31 * time.Second)
	apart(true)
	g.useRule(t, badRule+"# edited\n")
	apart(false)
}
