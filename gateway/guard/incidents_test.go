package guard_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

const suspicious = "2001:db8:0:1::/64"

// proposing gives a gate a rule that proposes an incident for each failure from a network.
func (g *gate) proposing(t *testing.T) {
	t.Helper()
	g.rule(t, rules.LoginAfter, `outcome == "failure"`,
		"[{incident: {category: credential-stuffing, key: source.network}}, {decide: {scope: source.address, action: step_up, for: 1h}}]",
		"{outcome: failure}", "{outcome: success}")
}

// fails logs in wrongly from n addresses of a network, beginning with the first.
func (g *gate) fails(t *testing.T, network, first, n int) {
	t.Helper()
	c := g.client(t)
	for i := range n {
		c.header.Set(address, fmt.Sprintf("2001:db8:0:%x::%x", network, first+i))
		if got := c.login(fmt.Sprintf("user%d@example.com", i), "wrong"); got.status == http.StatusOK {
			t.Fatal("a wrong password lets somebody in")
		}
	}
}

// incidents are those in a state.
func (g *gate) incidents(t *testing.T, state policies.IncidentState) []policies.Incident {
	t.Helper()
	all, _, err := g.core.ListIncidents(t.Context(), policies.IncidentQuery{State: state, Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRulesProposeIncidents: what two nodes find is one incident, told once; findings and
// decisions name it, and it names them.
func TestRulesProposeIncidents(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.core.Subscribe([]guard.Subscription{{To: "siem"}, {To: "falls", Types: []string{"rule.fell"}}})
	g.proposing(t)
	other := g.another(t)
	other.core.Subscribe([]guard.Subscription{{To: "siem"}})
	began := g.clock()
	g.fails(t, 1, 1, 3)
	other.fails(t, 1, 4, 1)
	g.advance(2 * time.Second)
	g.core.Sweep(t.Context())
	other.core.Sweep(t.Context())
	all := g.incidents(t, "")
	if len(all) != 1 {
		t.Fatalf("got %+v, want one incident", all)
	}
	g.advance(time.Hour)
	g.fails(t, 1, 5, 2)
	v, err := other.core.Incident(t.Context(), all[0].ID)
	if err != nil || v.Found != 4 {
		t.Errorf("on the other node, before it is written down: %+v, %v", v, err)
	}
	if v, err = g.core.Incident(t.Context(), all[0].ID); err != nil {
		t.Fatal(err)
	}
	if v.Category != "credential-stuffing" || v.Key != "source.network" || v.Value != suspicious || v.State != policies.IncidentProposed || v.Found != 6 ||
		!slices.Equal(v.Rules, []rules.ID{"test.stage"}) || !v.FirstSeen.Equal(began) || !v.LastSeen.Equal(g.clock()) || v.Times.Detect.Duration() != 2*time.Second {
		t.Errorf("got %+v", v)
	}
	if len(v.Findings) != 6 || len(v.Decisions) != 6 {
		t.Fatalf("it names %d findings, %d decisions", len(v.Findings), len(v.Decisions))
	}
	for _, name := range append(v.Findings, v.Decisions...) {
		s, err := g.core.Explain(t.Context(), name)
		if err != nil || len(s.Findings) != 1 || !slices.Equal(s.Findings[0].Incidents, []string{v.ID}) {
			t.Errorf("%s: %+v, %v, want that it names the incident", name, s.Findings, err)
		}
	}
	for _, id := range v.Decisions {
		if d, err := g.core.Decisions.Get(t.Context(), id, g.clock()); err != nil || d.Incident != v.ID {
			t.Errorf("decision %+v, %v", d, err)
		}
	}
	var told []policies.Notice
	for _, n := range append(g.letters(t, "siem"), g.letters(t, "falls")...) {
		if n.Template == "incident.proposed" {
			told = append(told, n)
		}
	}
	if len(told) != 1 || told[0].Values["incident"] != v.ID || told[0].Values["scope"] != "network" || told[0].Values["value"] != suspicious ||
		told[0].Values["category"] != "credential-stuffing" || told[0].Values["rule"] != "test.stage" || told[0].Values["reason"] == "" {
		t.Errorf("told %+v, want one notice to one receiver", told)
	}
	entries := len(g.entries(t, "incident.proposed")) + len(other.entries(t, "incident.proposed"))
	if entries != 1 {
		t.Errorf("%d entries of the record, want one", entries)
	}
}

func TestARuleInShadowProposesNothing(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.proposing(t)
	text := g.core.Rules.Load().Rules()[0].Text
	g.useRule(t, strings.Replace(text, "mode: enforce", "mode: shadow", 1))
	g.fails(t, 1, 1, 3)
	if all := g.incidents(t, ""); len(all) != 0 {
		t.Errorf("got %+v", all)
	}
}

// TestIncidentsAreMovedOnRecord: the act is on record and operators' rules see it; one that
// is not possible is refused, and the record takes it back.
func TestIncidentsAreMovedOnRecord(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.proposing(t)
	g.fails(t, 1, 1, 1)
	id := g.incidents(t, "open")[0].ID
	g.advance(time.Minute)
	i, err := g.core.MoveIncident(t.Context(), id, policies.IncidentDeclared, "a list is tried", "hanako")
	if err != nil || i.State != policies.IncidentDeclared || i.Changes[1] != (policies.IncidentChange{State: policies.IncidentDeclared, By: "hanako", At: g.clock(), Note: "a list is tried"}) {
		t.Fatalf("got %+v, %v", i, err)
	}
	acts := g.entries(t, "act.incident.move", "act.abandoned")
	if len(acts) != 1 {
		t.Fatalf("%d entries, want one", len(acts))
	}
	var body map[string]string
	if err := json.Unmarshal(acts[0].Body, &body); err != nil || body["incident"] != id || body["state"] != "declared" || body["note"] != "a list is tried" || body["by"] != "hanako" {
		t.Errorf("on record: %v, %v", body, err)
	}
	if done := g.of(detectors.Operator); len(done) != 1 || done[0].Act != "incident.move" || done[0].Actor != "operator:hanako" {
		t.Errorf("operators' acts: %+v", done)
	}
	if _, err := g.core.MoveIncident(t.Context(), id, policies.IncidentRecovering, "x", "hanako"); !errors.Is(err, policies.ErrNoMove) {
		t.Errorf("what is not possible: %v", err)
	}
	if why := g.abandoned(t, 1); why[acts[0].ID().String()] != "" {
		t.Errorf("the record takes back what was done: %v", why)
	}
	if _, err := g.core.MoveIncident(t.Context(), id, "over", "", "hanako"); err == nil || len(g.entries(t, "act.incident.move")) != 2 {
		t.Errorf("what is not valid: %v, want that it is not even on record", err)
	}
}

func TestTheGateClosesWhatNobodyDeclares(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.proposing(t)
	g.fails(t, 1, 1, 1)
	g.core.Sweep(t.Context())
	g.advance(7*24*time.Hour + time.Minute)
	g.core.Sweep(t.Context())
	closed := g.incidents(t, "closed")
	if len(closed) != 1 || closed[0].Changes[1].By != policies.ByGate || len(g.entries(t, "incident.closed")) != 1 {
		t.Errorf("got %+v, want it closed, on record", closed)
	}
}

// A flood of subjects opens no more than the bound, and what is too much is counted.
func TestIncidentsOfAFloodAreBounded(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.proposing(t)
	for i := range 210 {
		g.fails(t, i, 1, 1)
		g.advance(time.Millisecond)
	}
	g.fails(t, 0, 2, 1)
	if all := g.incidents(t, "open"); len(all) != 200 || g.core.UnproposedFindings() != 10 {
		t.Errorf("%d are open, %d findings are without one, want 200 and 10", len(all), g.core.UnproposedFindings())
	}
}
