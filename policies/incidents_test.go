package policies_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// onIncidents runs a test against incidents in each kind of database.
func onIncidents(t *testing.T, test func(*testing.T, place, *policies.Findings, *policies.Incidents)) {
	onDatabases(t, func(t *testing.T, p place, f *policies.Findings) {
		i, err := policies.NewIncidents(p.db, p.name)
		if err != nil {
			t.Fatal(err)
		}
		test(t, p, f, i)
	})
}

var stuffing = policies.IncidentSubject{Category: "credential-stuffing", Key: "source.asn", Value: "64500"}

func aProposal(at time.Time, accounts ...string) policies.Proposal {
	return policies.Proposal{IncidentSubject: stuffing, Rules: []rules.ID{"a.rule"}, Why: "30 names in order", First: at, Last: at, Count: 1, Accounts: accounts}
}

// propose keeps proposals alone.
func propose(t *testing.T, f *policies.Findings, now time.Time, all ...policies.Proposal) policies.Taken {
	t.Helper()
	taken, err := f.Keep(t.Context(), policies.Kept{Proposals: all}, now)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

func view(t *testing.T, i *policies.Incidents, id string) policies.IncidentView {
	t.Helper()
	v, err := i.View(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAnIncidentTakesUpWhatIsFound(t *testing.T) {
	onIncidents(t, func(t *testing.T, p place, f *policies.Findings, incidents *policies.Incidents) {
		told := func(i policies.Incident) []policies.Notice {
			return []policies.Notice{{Key: policies.IncidentNoticeKey(i.ID, "siem"), Channel: "webhook", To: "siem", Template: "incident.proposed", Values: map[string]string{"incident": i.ID}}}
		}
		finding := aFinding(policies.NewFindingID(noon), noon)
		finding.Proposes = []policies.IncidentSubject{stuffing}
		alone := aFinding(policies.NewFindingID(noon), noon)
		decision := policies.NewFindingID(noon)
		k := policies.Kept{
			Findings: []policies.Found{finding, alone}, Proposals: []policies.Proposal{aProposal(noon, "7")}, Tell: told,
			References: []policies.Reference{{Name: decision, Rule: "a.rule", Decision: decision, Finding: finding.ID}, {Name: "ABCD-1234", Rule: "a.rule", Decision: decision}},
		}
		first, err := f.Keep(t.Context(), k, noon.Add(1500*time.Millisecond))
		if err != nil || len(first.Opened) != 1 || first.Refused != 0 {
			t.Fatalf("got %+v, %v, want one incident", first, err)
		}
		id := first.Opened[0].ID
		if diff := cmp.Diff(map[string]string{decision: id}, first.Decisions); diff != "" {
			t.Errorf("decisions (-want +got):\n%s", diff)
		}
		// Ten minutes later another rule finds more; its decision is noted only then.
		later := noon.Add(10 * time.Minute)
		more := aProposal(later, "8", "7", "9")
		more.Rules, more.Count, more.Why = []rules.ID{"b.rule"}, 40, "another"
		second := policies.NewFindingID(later)
		again, err := f.Keep(t.Context(), policies.Kept{Proposals: []policies.Proposal{more}, Tell: told,
			References: []policies.Reference{{Name: second, Rule: "a.rule", Decision: second, Finding: finding.ID}, {Name: "ABCD-9999", Rule: "a.rule", Finding: "gone"}}}, later)
		if err != nil || len(again.Opened) != 0 || again.Decisions[second] != id || len(again.Decisions) != 1 {
			t.Fatalf("later: got %+v, %v", again, err)
		}
		want := policies.IncidentView{
			Incident: policies.Incident{ID: id, Category: "credential-stuffing", Key: "source.asn", Value: "64500", Rules: []rules.ID{"a.rule", "b.rule"},
				State: policies.IncidentProposed, Window: noon, FirstSeen: noon, LastSeen: later, Found: 41, Touched: 3,
				Changes: []policies.IncidentChange{{State: policies.IncidentProposed, By: "a.rule", At: noon.Add(1500 * time.Millisecond), Note: "30 names in order"}}},
			Findings: []string{finding.ID}, Decisions: []string{}, Accounts: []string{"7", "8", "9"},
		}
		want.Times = want.Incident.Times()
		if diff := cmp.Diff(want, view(t, incidents, id)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if s, err := f.Explain(t.Context(), "ABCD-1234"); err != nil || !slices.Equal(s.Findings[0].Incidents, []string{id}) {
			t.Errorf("explaining: %+v, %v, want the incident", s.Findings, err)
		}
		if s, err := f.Explain(t.Context(), alone.ID); err != nil || len(s.Findings[0].Incidents) != 0 {
			t.Errorf("explaining what proposes nothing: %+v, %v", s.Findings, err)
		}
		if notices, err := p.outbox().Claim(t.Context(), "test", later, time.Minute, 10); err != nil || len(notices) != 1 || notices[0].Values["incident"] != id {
			t.Errorf("told %v, %v, want one notice", notices, err)
		}
	})
}

func TestNodesOpenOneIncident(t *testing.T) {
	onIncidents(t, func(t *testing.T, _ place, f *policies.Findings, incidents *policies.Incidents) {
		var all sync.WaitGroup
		var mu sync.Mutex
		opened := 0
		for n := range 8 {
			all.Go(func() {
				// Around the full hour, so that their windows differ.
				taken, err := f.Keep(t.Context(), policies.Kept{Proposals: []policies.Proposal{aProposal(noon.Add(time.Duration(n-4)*time.Second), fmt.Sprint(n))}}, noon)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				opened += len(taken.Opened)
			})
		}
		all.Wait()
		list, _, err := incidents.List(t.Context(), policies.IncidentQuery{State: "open"})
		if err != nil || opened != 1 || len(list) != 1 || list[0].Found != 8 || list[0].Touched != 8 {
			t.Errorf("%d were opened: %+v, %v, want one with 8 findings", opened, list, err)
		}
	})
}

func TestWhatComesAfterAnIncidentWasClosed(t *testing.T) {
	onIncidents(t, func(t *testing.T, _ place, f *policies.Findings, incidents *policies.Incidents) {
		id := propose(t, f, noon, aProposal(noon)).Opened[0].ID
		closed := noon.Add(50 * time.Minute)
		if _, err := incidents.Move(t.Context(), id, policies.IncidentClosed, "a test of ours", policies.Act{By: "hanako"}, closed); err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{noon.Add(time.Minute), closed.Add(time.Hour - time.Microsecond)} {
			if taken := propose(t, f, at, aProposal(at)); len(taken.Opened) != 0 {
				t.Errorf("found %v after noon: another is opened", at.Sub(noon))
			}
		}
		at := closed.Add(time.Hour)
		taken := propose(t, f, at, aProposal(at))
		if len(taken.Opened) != 1 || taken.Opened[0].ID == id || taken.Opened[0].Found != 1 {
			t.Errorf("an hour after it was closed: %+v, want another", taken)
		}
		if v := view(t, incidents, id); v.Found != 3 || v.State != policies.IncidentClosed || !v.LastSeen.Equal(closed.Add(time.Hour-time.Microsecond)) {
			t.Errorf("the closed one: %+v", v)
		}
		// A clock that went back closes one before its window began.
		if _, err := incidents.Move(t.Context(), taken.Opened[0].ID, policies.IncidentClosed, "x", policies.Act{By: "hanako"}, noon.Add(-24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if again := propose(t, f, at, aProposal(at)); len(again.Opened) != 0 || again.Refused != 0 {
			t.Errorf("in the same window: %+v, want that it joins", again)
		}
		other := aProposal(at)
		other.Value = "64501"
		if taken := propose(t, f, at, other); len(taken.Opened) != 1 {
			t.Errorf("another subject: %+v", taken)
		}
	})
}

// allowed are the moves that there are, written out once more.
var allowed = map[policies.IncidentState]string{
	policies.IncidentProposed:   "declared closed",
	policies.IncidentDeclared:   "contained closed",
	policies.IncidentContained:  "declared eradicated closed",
	policies.IncidentEradicated: "declared recovering closed",
	policies.IncidentRecovering: "declared closed",
	policies.IncidentClosed:     "",
}

func TestIncidentsMoveAsTheTableSays(t *testing.T) {
	onIncidents(t, func(t *testing.T, p place, f *policies.Findings, incidents *policies.Incidents) {
		n := 0
		at := func(s policies.IncidentState) string {
			t.Helper()
			n++
			x := aProposal(noon)
			x.Value = fmt.Sprint(n)
			id := propose(t, f, noon, x).Opened[0].ID
			for _, step := range policies.IncidentStates()[1:] {
				if s == policies.IncidentProposed || s == policies.IncidentClosed && step != s {
					continue
				}
				if _, err := incidents.Move(t.Context(), id, step, "step", policies.Act{By: "hanako"}, noon); err != nil {
					t.Fatal(err)
				}
				if step == s {
					break
				}
			}
			return id
		}
		for from, to := range allowed {
			for _, want := range policies.IncidentStates()[1:] {
				id := at(from)
				before := view(t, incidents, id)
				got, err := incidents.Move(t.Context(), id, want, "because", policies.Act{By: "sato", Entry: "test/" + id}, noon.Add(time.Hour))
				var marked int
				if e := p.db.QueryRow(`SELECT COUNT(*) FROM decision_acts WHERE entry LIKE '%` + id + `'`).Scan(&marked); e != nil {
					t.Fatal(e)
				}
				switch {
				case from == want:
					if err != nil || len(got.Changes) != len(before.Changes) || marked != 1 {
						t.Errorf("%s again: %+v, %v, marked %d, want no change", from, got.Changes, err, marked)
					}
				case slices.Contains(strings.Fields(to), string(want)):
					last := got.Changes[len(got.Changes)-1]
					if err != nil || got.State != want || last != (policies.IncidentChange{State: want, By: "sato", At: noon.Add(time.Hour), Note: "because"}) || marked != 1 {
						t.Errorf("%s to %s: %+v, %v, marked %d", from, want, got, err, marked)
					}
					if diff := cmp.Diff(got, view(t, incidents, id).Incident); diff != "" {
						t.Errorf("%s to %s (-answered +kept):\n%s", from, want, diff)
					}
				default:
					var move *policies.MoveError
					if !errors.As(err, &move) || !errors.Is(err, policies.ErrNoMove) || move.From != from || move.To != want || marked != 0 {
						t.Errorf("%s to %s: %v, marked %d, want to be refused", from, want, err, marked)
					}
					if diff := cmp.Diff(before, view(t, incidents, id)); diff != "" {
						t.Errorf("%s to %s changed it:\n%s", from, want, diff)
					}
				}
			}
		}
		id := at(policies.IncidentDeclared)
		for name, err := range map[string]error{
			"no such state": move(t, incidents, id, "over", "x", "sato"), "back to proposed": move(t, incidents, id, policies.IncidentProposed, "x", "sato"),
			"no note": move(t, incidents, id, policies.IncidentContained, " ", "sato"), "a long note": move(t, incidents, id, policies.IncidentContained, strings.Repeat("x", 501), "sato"),
			"nobody": move(t, incidents, id, policies.IncidentContained, "x", ""),
		} {
			if faults, ok := errors.AsType[policies.FieldErrors](err); !ok || len(faults) != 1 {
				t.Errorf("%s: %v, want one fault", name, err)
			}
		}
		for _, id := range []string{"", "none", policies.NewFindingID(noon)} {
			if err := move(t, incidents, id, policies.IncidentClosed, "x", "sato"); !errors.Is(err, policies.ErrNotFound) {
				t.Errorf("%q: %v", id, err)
			}
			if _, err := incidents.View(t.Context(), id); !errors.Is(err, policies.ErrNoIncident) {
				t.Errorf("%q: %v", id, err)
			}
		}
		// Back and forth ends.
		for n := range 100 {
			to := policies.IncidentContained
			if n%2 == 1 {
				to = policies.IncidentDeclared
			}
			if err := move(t, incidents, id, to, "x", "sato"); err != nil {
				if _, ok := errors.AsType[policies.FieldErrors](err); !ok {
					t.Fatal(err)
				}
				break
			}
		}
		if err := move(t, incidents, id, policies.IncidentClosed, "x", "sato"); err != nil || len(view(t, incidents, id).Changes) != 100 {
			t.Errorf("closing after very many changes: %v, %d changes, want 100", err, len(view(t, incidents, id).Changes))
		}
	})
}

func move(t *testing.T, i *policies.Incidents, id string, to policies.IncidentState, note, by string) error {
	t.Helper()
	_, err := i.Move(t.Context(), id, to, note, policies.Act{By: by}, noon)
	return err
}

func TestIncidentsAreListedInPages(t *testing.T) {
	onIncidents(t, func(t *testing.T, _ place, f *policies.Findings, incidents *policies.Incidents) {
		var ids []string
		for n := range 5 {
			x := aProposal(noon)
			x.Value = fmt.Sprint(n)
			ids = append(ids, propose(t, f, noon.Add(time.Duration(n)*time.Second), x).Opened[0].ID)
		}
		if err := move(t, incidents, ids[1], policies.IncidentClosed, "x", "sato"); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(ids)
		for state, want := range map[policies.IncidentState][]string{"": ids, "open": {ids[0], ids[1], ids[2], ids[4]}, "closed": {ids[3]}, "declared": nil} {
			var got []string
			q := policies.IncidentQuery{State: state, Limit: 2}
			for pages := 0; pages == 0 || q.Cursor != ""; pages++ {
				page, next, err := incidents.List(t.Context(), q)
				if err != nil || len(page) > 2 {
					t.Fatal(len(page), err)
				}
				for _, i := range page {
					if got = append(got, i.ID); i.Changes[0].State != policies.IncidentProposed {
						t.Errorf("changes %v", i.Changes)
					}
				}
				q.Cursor = next
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q (-want +got):\n%s", state, diff)
			}
		}
		_, _, err := incidents.List(t.Context(), policies.IncidentQuery{State: "odd", Cursor: "!", Limit: 201})
		if faults, ok := errors.AsType[policies.FieldErrors](err); !ok || len(faults) != 3 {
			t.Errorf("got %v, want three faults", err)
		}
	})
}

func TestIncidentsAreBounded(t *testing.T) {
	onIncidents(t, func(t *testing.T, p place, f *policies.Findings, incidents *policies.Incidents) {
		of := func(category string, n int) (all []policies.Proposal) {
			for i := range n {
				x := aProposal(noon)
				x.Category, x.Value, x.Count = category, fmt.Sprint(i), 2
				all = append(all, x)
			}
			return all
		}
		if taken := propose(t, f, noon, of("a", 203)...); len(taken.Opened) != 200 || taken.Refused != 6 {
			t.Errorf("of one category: %d opened, %d refused, want 200 and 6", len(taken.Opened), taken.Refused)
		}
		for _, category := range []string{"b", "c", "d", "e"} {
			if taken := propose(t, f, noon, of(category, 200)...); len(taken.Opened) != 200 {
				t.Errorf("of category %s: %d opened", category, len(taken.Opened))
			}
		}
		if taken := propose(t, f, noon, of("f", 1)...); len(taken.Opened) != 0 || taken.Refused != 2 {
			t.Errorf("beyond 1,000: %+v", taken)
		}
		if taken := propose(t, f, noon, of("a", 1)...); taken.Refused != 0 {
			t.Errorf("one that is open takes no more: %+v", taken)
		}
		list, _, err := incidents.List(t.Context(), policies.IncidentQuery{})
		if err != nil || len(list) != 50 {
			t.Fatal(len(list), err)
		}

		// Accounts and findings of one.
		i := list[0]
		one := aProposal(noon)
		one.IncidentSubject = policies.IncidentSubject{Category: i.Category, Key: i.Key, Value: i.Value}
		var k policies.Kept
		for n := range 230 {
			x := aFinding(policies.NewFindingID(noon.Add(time.Duration(n)*time.Second)), noon)
			x.Proposes = []policies.IncidentSubject{one.IncidentSubject}
			k.Findings = append(k.Findings, x)
			one.Join(aProposal(noon, fmt.Sprint(n)))
		}
		if len(one.Accounts) != 200 || !one.More || one.Count != 231 {
			t.Errorf("%d accounts in a proposal, more: %v, of %d findings", len(one.Accounts), one.More, one.Count)
		}
		one.More = false
		k.Proposals = []policies.Proposal{one}
		if _, err := f.Keep(t.Context(), k, noon); err != nil {
			t.Fatal(err)
		}
		v := view(t, incidents, i.ID)
		if len(v.Findings) != 200 || v.Findings[0] != k.Findings[0].ID || v.Touched != 200 || v.TouchedMore || len(v.Accounts) != 200 || v.Found != 233 {
			t.Errorf("%d findings of %d, %d accounts (%d, more: %v)", len(v.Findings), v.Found, len(v.Accounts), v.Touched, v.TouchedMore)
		}
		var rows int
		if err := p.db.QueryRow(`SELECT COUNT(*) FROM incident_findings`).Scan(&rows); err != nil || rows != 200 {
			t.Errorf("%d findings are kept as its, %v, want 200", rows, err)
		}
		one.Accounts = []string{"0", "another"}
		propose(t, f, noon, one)
		if v := view(t, incidents, i.ID); v.Touched != 200 || !v.TouchedMore {
			t.Errorf("another account: %d, more: %v", v.Touched, v.TouchedMore)
		}
		if s, err := f.Explain(t.Context(), k.Findings[229].ID); err != nil || len(s.Findings[0].Incidents) != 1 {
			t.Errorf("a finding that it does not name: %+v, %v, want that it names the incident", s.Findings, err)
		}
	})
}

func TestOldIncidentsGo(t *testing.T) {
	onIncidents(t, func(t *testing.T, p place, f *policies.Findings, incidents *policies.Incidents) {
		x := aFinding(policies.NewFindingID(noon), noon)
		x.Proposes = []policies.IncidentSubject{stuffing}
		kept, err := f.Keep(t.Context(), policies.Kept{Findings: []policies.Found{x}, Proposals: []policies.Proposal{aProposal(noon, "7")}}, noon)
		if err != nil {
			t.Fatal(err)
		}
		id := kept.Opened[0].ID
		declared := aProposal(noon, "8")
		declared.Value = "64501"
		worked := propose(t, f, noon, declared).Opened[0].ID
		if err := move(t, incidents, worked, policies.IncidentDeclared, "x", "sato"); err != nil {
			t.Fatal(err)
		}
		week := noon.Add(7 * 24 * time.Hour)
		if closed, err := incidents.Purge(t.Context(), week); err != nil || len(closed) != 0 {
			t.Errorf("after a week: %v, %v", closed, err)
		}
		closed, err := incidents.Purge(t.Context(), week.Add(time.Second))
		if err != nil || len(closed) != 1 || closed[0].ID != id || closed[0].State != policies.IncidentClosed || closed[0].Changes[1].By != policies.ByGate {
			t.Fatalf("after more than a week: %+v, %v, want what nobody declared", closed, err)
		}
		if v := view(t, incidents, id); v.Times.Acknowledge != nil || v.Times.Recover != nil || len(v.Findings) != 1 {
			t.Errorf("closed by the gate: %+v", v)
		}
		if closed, err := incidents.Purge(t.Context(), week.Add(time.Minute)); err != nil || len(closed) != 0 {
			t.Errorf("again: %v, %v", closed, err)
		}
		if _, err := incidents.Purge(t.Context(), noon.AddDate(0, 2, 0)); err != nil || len(view(t, incidents, id).Findings) != 0 {
			t.Errorf("findings of two months ago are named: %v", err)
		}
		if _, err := incidents.Purge(t.Context(), week.AddDate(2, 0, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := incidents.View(t.Context(), id); !errors.Is(err, policies.ErrNoIncident) {
			t.Errorf("after two years: %v", err)
		}
		if v := view(t, incidents, worked); v.State != policies.IncidentDeclared || len(v.Accounts) != 1 {
			t.Errorf("what is open for two years: %+v", v)
		}
		var left int
		if err := p.db.QueryRow(`SELECT (SELECT COUNT(*) FROM incident_changes) + (SELECT COUNT(*) FROM incident_accounts)`).Scan(&left); err != nil || left != 3 {
			t.Errorf("%d rows are left, %v, want those of the open one", left, err)
		}
	})
}

func TestOnlyTheLatestClosedIncidentsAreKept(t *testing.T) {
	onIncidents(t, func(t *testing.T, p place, _ *policies.Findings, incidents *policies.Incidents) {
		if _, err := p.db.Exec(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 10002)
			INSERT INTO incidents (id, category, key, value, window_start, rules, state, first_seen, last_seen, found, touched, touched_more, closed)
			SELECT 'incident ' || i, 'a', 'account', 'x', i, '[]', 'closed', 0, 0, 0, 0, 0, %d + i FROM n`, noon.UnixMicro())); err != nil {
			t.Fatal(err)
		}
		if _, err := incidents.Purge(t.Context(), noon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		var left, oldest int64
		if err := p.db.QueryRow(`SELECT COUNT(*), MIN(closed) FROM incidents`).Scan(&left, &oldest); err != nil || left != 10_000 || oldest != noon.UnixMicro()+3 {
			t.Errorf("%d are left, the oldest of %d, %v", left, oldest-noon.UnixMicro(), err)
		}
	})
}

func TestWhatCannotBeStoredIsProposedNevertheless(t *testing.T) {
	onIncidents(t, func(t *testing.T, _ place, f *policies.Findings, _ *policies.Incidents) {
		found := rules.Finding{Rule: "a.rule", Mode: rules.Enforce, Time: noon, Why: "a\x00b\xff", Then: []rules.Response{{Incident: &rules.Incident{Category: "x", Key: "fingerprint"}}}}
		all := policies.ProposalsOf(found, detectors.Event{Fingerprint: "f\x00\xff", Account: "a\x00"})
		if taken := propose(t, f, noon, all...); len(all) != 1 || len(taken.Opened) != 1 || taken.Opened[0].Value != "f\uFFFD\uFFFD" {
			t.Errorf("got %+v", taken)
		}
		if taken := propose(t, f, noon, all...); len(taken.Opened) != 0 {
			t.Errorf("again: %+v, want that it joins", taken)
		}
	})
}

func TestProposalsOf(t *testing.T) {
	e := detectors.Event{Time: noon, Account: "7", Source: detectors.Source{Address: netip.MustParseAddr("203.0.113.7")}}
	proposing := func(key string, mode rules.Mode) rules.Response {
		return rules.Response{Mode: mode, Incident: &rules.Incident{Category: "credential-stuffing", Key: key}}
	}
	for _, test := range []struct {
		name string
		then rules.Response
		mode rules.Mode
		want string // the value; empty: nothing
	}{
		{"of a network", proposing("source.network", ""), rules.Enforce, "203.0.113.7/32"},
		{"of an account", proposing("account", rules.Enforce), rules.Enforce, "7"},
		{"in shadow", proposing("account", ""), rules.Shadow, ""},
		{"whom the canary leaves out", proposing("account", rules.Shadow), rules.Enforce, ""},
		{"without a geo file", proposing("source.asn", ""), rules.Enforce, ""},
		{"another response", rules.Response{Answer: rules.Refuse}, rules.Enforce, ""},
	} {
		got := policies.ProposalsOf(rules.Finding{Rule: "a.rule", Mode: test.mode, Time: noon, Why: "because", Then: []rules.Response{test.then}}, e)
		var want []policies.Proposal
		if test.want != "" {
			want = []policies.Proposal{{IncidentSubject: policies.IncidentSubject{Category: "credential-stuffing", Key: test.then.Incident.Key, Value: test.want},
				Rules: []rules.ID{"a.rule"}, Why: "because", First: noon, Last: noon, Count: 1, Accounts: []string{"7"}}}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	long := detectors.Event{Account: detectors.Account(strings.Repeat("x", 257))}
	if got := policies.ProposalsOf(rules.Finding{Mode: rules.Enforce, Then: []rules.Response{proposing("account", "")}}, long); got != nil {
		t.Errorf("a long value: %+v", got)
	}
}

func TestTimesOfAnIncident(t *testing.T) {
	type step struct {
		state policies.IncidentState
		after time.Duration // the proposal
		by    string
	}
	for _, test := range []struct {
		name                                   string
		steps                                  []step
		detect, acknowledge, contain, recovery float64 // seconds; -1: none
	}{
		{"proposed", nil, 60, -1, -1, -1},
		{"to the end", []step{{"declared", time.Minute, "sato"}, {"contained", 10 * time.Minute, "sato"}, {"eradicated", 20 * time.Minute, "sato"}, {"recovering", 30 * time.Minute, "sato"},
			{"closed", time.Hour, "sato"}}, 60, 60, 600, 3600},
		{"it was not contained", []step{{"declared", time.Minute, "sato"}, {"contained", 10 * time.Minute, "sato"}, {"declared", 20 * time.Minute, "sato"}}, 60, 60, -1, -1},
		{"and then it was", []step{{"declared", time.Minute, "sato"}, {"contained", 10 * time.Minute, "sato"}, {"declared", 20 * time.Minute, "sato"}, {"contained", 25 * time.Minute, "sato"}},
			60, 60, 1500, -1},
		{"it was none", []step{{"closed", time.Minute, "sato"}}, 60, 60, -1, -1},
		{"closed by the gate", []step{{"closed", time.Minute, policies.ByGate}}, 60, -1, -1, -1},
	} {
		i := policies.Incident{FirstSeen: noon.Add(-time.Minute), Changes: []policies.IncidentChange{{State: "proposed", By: "a.rule", At: noon}}}
		for _, s := range test.steps {
			i.Changes = append(i.Changes, policies.IncidentChange{State: s.state, By: s.by, At: noon.Add(s.after)})
		}
		got := i.Times()
		for _, x := range []struct {
			name string
			got  *policies.Seconds
			want float64
		}{{"detect", got.Detect, test.detect}, {"acknowledge", got.Acknowledge, test.acknowledge}, {"contain", got.Contain, test.contain}, {"recover", got.Recover, test.recovery}} {
			if (x.got == nil) != (x.want < 0) || x.got != nil && float64(*x.got) != x.want {
				t.Errorf("%s: %s is %v, want %v", test.name, x.name, x.got, x.want)
			}
		}
	}
}

func TestDecisionsBelongToIncidents(t *testing.T) {
	for _, name := range places {
		t.Run(name, func(t *testing.T) {
			p := openPlace(t, name)
			d, other := open(t, p.store, noon), open(t, p.store, noon)
			live := register(t, d, ruleDecision("address", "203.0.113.7"), noon)
			lifted := register(t, d, ruleDecision("address", "203.0.113.8"), noon)
			if _, err := d.Lift(t.Context(), lifted.ID, policies.Act{By: "sato"}, noon); err != nil {
				t.Fatal(err)
			}
			relate := func(incident string) {
				t.Helper()
				if err := d.Relate(t.Context(), map[string]string{live.ID: incident, lifted.ID: incident, "gone": incident}, noon); err != nil {
					t.Fatal(err)
				}
			}
			relate("one")
			relate("two") // they belong already
			want := live
			want.Incident = "one"
			if err := other.Reconcile(t.Context(), noon); err != nil {
				t.Fatal(err)
			}
			for node, decisions := range map[string]*policies.Decisions{"here": d, "on another node": other, "after a start": open(t, p.store, noon)} {
				got, _ := decisions.Match(at("203.0.113.7"), noon)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +matched):\n%s", node, diff)
				}
				if got, _ := decisions.Match(at("203.0.113.8"), noon); got.ID != "" {
					t.Errorf("%s: what was lifted acts again: %+v", node, got)
				}
				if got, err := decisions.Get(t.Context(), lifted.ID, noon); err != nil || got.Incident != "one" || got.Lifted.IsZero() {
					t.Errorf("%s: what was lifted: %+v, %v", node, got, err)
				}
			}
			if p.db == nil {
				return
			}
			i, err := policies.NewIncidents(p.db, name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := policies.NewFindings(p.db, name)
			if err != nil {
				t.Fatal(err)
			}
			id := propose(t, f, noon, aProposal(noon)).Opened[0].ID
			third := register(t, d, ruleDecision("address", "203.0.113.9"), noon)
			if err := d.Relate(t.Context(), map[string]string{third.ID: id}, noon); err != nil {
				t.Fatal(err)
			}
			if v := view(t, i, id); !slices.Equal(v.Decisions, []string{third.ID}) {
				t.Errorf("decisions of the incident: %v", v.Decisions)
			}
		})
	}
}
