package policies_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// onDatabases runs a test against findings in each kind of database.
func onDatabases(t *testing.T, test func(*testing.T, place, *policies.Findings)) {
	for _, name := range places[1:] {
		t.Run(name, func(t *testing.T) {
			p := openPlace(t, name)
			f, err := policies.NewFindings(p.db, name)
			if err != nil {
				t.Fatal(err)
			}
			test(t, p, f)
		})
	}
}

func aFinding(id string, at time.Time) policies.Found {
	return policies.Found{
		Finding: rules.Finding{ID: id, Rule: "a.rule", Title: "A rule", Severity: "low", Generation: strings.Repeat("a", 64), Mode: rules.Enforce, Time: at, Why: "because",
			Values: map[string]any{"tried": 3.0}, Then: []rules.Response{{Mode: rules.Enforce, Decide: &rules.Decide{Scope: "account", Action: rules.StepUp, For: time.Hour}}}},
		Stage: rules.LoginAfter, Account: "7", Organization: "acme", Source: "203.0.113.7",
		Explanation: rules.Explanation{File: "a.yaml", When: "tried >= 3", Values: map[string]any{"tried": 3.0},
			Parts: []rules.Part{{Text: "tried >= 3", Line: 10, Column: 7, Result: "true", Decided: true, Names: []string{"tried"}}}},
		Text: "id: a.rule\n",
	}
}

func TestFindingsAreFoundByWhatLeadsToThem(t *testing.T) {
	onDatabases(t, func(t *testing.T, _ place, f *policies.Findings) {
		id, decision := policies.NewFindingID(noon), policies.NewFindingID(noon)
		want := aFinding(id, noon)
		if _, err := f.Keep(t.Context(), policies.Kept{
			Findings: []policies.Found{want},
			References: []policies.Reference{
				{Name: decision, Rule: "a.rule", Decision: decision, Finding: id},
				{Name: "ABCD-1234", Rule: "a.rule", Decision: decision},
				{Name: "ABCD-9999", Rule: "b.rule", Finding: "gone"},
			},
		}, noon); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{id, decision, "ABCD-1234"} {
			s, err := f.Explain(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Findings) != 1 || s.Rule != "a.rule" || s.Texts[want.Generation] != "id: a.rule\n" || (s.Decision != decision) != (name == id) {
				t.Fatalf("%s leads to %+v", name, s)
			}
			got := s.Findings[0]
			got.Text = want.Text // stands in Texts
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		if s, err := f.Explain(t.Context(), "ABCD-9999"); err != nil || s.Rule != "b.rule" || len(s.Findings) != 0 {
			t.Errorf("a code whose finding is gone: got %+v, %v, want its rule", s, err)
		}
		for _, name := range []string{"", "none", "\x00", strings.Repeat("x", 1000)} {
			if _, err := f.Explain(t.Context(), name); !errors.Is(err, policies.ErrNotFound) {
				t.Errorf("%q: got %v", name, err)
			}
		}
		if of, err := f.Of(t.Context(), "a.rule", 10); err != nil || len(of) != 1 {
			t.Errorf("of the rule: got %v, %v", of, err)
		}
	})
}

func TestFindingsAreBounded(t *testing.T) {
	onDatabases(t, func(t *testing.T, p place, f *policies.Findings) {
		var k policies.Kept
		for i := range 10_050 {
			x := aFinding(policies.NewFindingID(noon.Add(time.Duration(i)*time.Millisecond)), noon.Add(time.Duration(i)*time.Millisecond))
			k.Findings = append(k.Findings, x)
		}
		other := aFinding(policies.NewFindingID(noon), noon)
		other.Rule, other.Generation = "b.rule", strings.Repeat("b", 64)
		k.Findings = append(k.Findings, other)
		if _, err := f.Keep(t.Context(), k, noon); err != nil {
			t.Fatal(err)
		}
		count := func(table string) (n int) {
			if err := p.db.QueryRow(`SELECT COUNT(*) FROM ` + table).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if err := f.Purge(t.Context(), nil, noon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n := count("findings"); n != 10_001 {
			t.Errorf("%d findings are kept, want the latest 10,000 of one rule and the one of another", n)
		}
		if _, err := f.Explain(t.Context(), k.Findings[49].ID); !errors.Is(err, policies.ErrNotFound) {
			t.Errorf("the oldest but 10,000: got %v", err)
		}
		if err := f.Purge(t.Context(), nil, noon.Add(31*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n := count("findings") + count("finding_references") + count("rule_texts"); n != 0 {
			t.Errorf("%d rows are left after a month, want none", n)
		}
	})
}

// a hit on an account of an organization, from its device.
func aHit(organization string, account int, at time.Time) rules.Hit {
	name := fmt.Sprint(organization, "/", account)
	return rules.Hit{Rule: "a.rule", Generation: strings.Repeat("a", 64), Time: at, Account: detectors.Account(name), Organization: detectors.Organization(organization),
		Since: at.Add(-30 * 24 * time.Hour), Device: "device of " + name, Network: netip.MustParsePrefix("203.0.113.7/32"), Fingerprint: "f"}
}

// own is a log-in of a hit's account on its own device.
func own(h rules.Hit, after time.Duration) detectors.Event {
	return detectors.Event{Time: h.Time.Add(after), Kind: detectors.Login, Account: h.Account, Outcome: detectors.Success, Fingerprint: h.Fingerprint,
		Device: detectors.Device{ID: h.Device, State: detectors.Trusted}, Source: detectors.Source{Network: h.Network}}
}

func theRule() rules.Rule {
	return rules.Rule{ID: "a.rule", Generation: strings.Repeat("a", 64), Owner: "security-team", Budget: &rules.Budget{FalsePositives: 1, Over: 7 * 24 * time.Hour}}
}

// keepOffice keeps hits on accounts first to last, of five organizations, and proves
// them.
func keepOffice(t *testing.T, f *policies.Findings, first, last int, at time.Time) {
	t.Helper()
	var k policies.Kept
	var proofs []detectors.Event
	for i := first; i < last; i++ {
		h := aHit(fmt.Sprint("org ", i%5), i/5, at)
		k.Hits = append(k.Hits, h)
		proofs = append(proofs, own(h, time.Minute))
	}
	if _, err := f.Keep(t.Context(), k, at); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Prove(t.Context(), proofs); err != nil || n["a.rule"] != last-first {
		t.Fatalf("%v hits are proved, %v, want %d", n, err, last-first)
	}
}

func TestARuleFallsInTwoStepsAndIsToldOnce(t *testing.T) {
	onDatabases(t, func(t *testing.T, p place, f *policies.Findings) {
		tell := func(x policies.Fallen) []policies.Notice {
			return []policies.Notice{{Key: policies.FallNoticeKey(x, "webhook", "siem"), Channel: "webhook", To: "siem", Template: "rule.fell", Values: map[string]string{"rule": string(x.Rule)}}}
		}
		drop := func(at time.Time) (policies.Fallen, bool) {
			t.Helper()
			x, fell, err := f.Drop(t.Context(), theRule(), at, tell)
			if err != nil {
				t.Fatal(err)
			}
			return x, fell
		}
		later := noon.Add(10 * time.Minute)
		keepOffice(t, f, 0, 19, noon)
		if x, fell := drop(later); fell {
			t.Fatalf("it fell after 19 hits: %+v", x)
		}
		keepOffice(t, f, 19, 20, noon)
		x, fell := drop(later)
		if !fell || x.Level != rules.Softened || x.Judgement.Hits != 20 || x.Judgement.Benign != 20 {
			t.Fatalf("after 20 hits: %+v, %v, want it softened", x, fell)
		}
		if x, fell := drop(later); fell {
			t.Fatalf("it fell twice for the same hits: %+v", x)
		}
		// The same accounts again, and others.
		keepOffice(t, f, 0, 19, later)
		if x, fell := drop(later); fell {
			t.Fatalf("it fell after 19 further hits: %+v", x)
		}
		keepOffice(t, f, 19, 20, later)
		if x, fell := drop(later); !fell || x.Level != rules.Silenced {
			t.Fatalf("after 20 further hits: %+v, %v, want it silenced", x, fell)
		}
		keepOffice(t, f, 0, 40, later.Add(time.Hour))
		if x, fell := drop(later.Add(2 * time.Hour)); fell {
			t.Fatalf("it fell below the ground: %+v", x)
		}
		// Somebody else opens the same database: it is fallen there.
		other, err := policies.NewFindings(p.db, p.name)
		if err != nil {
			t.Fatal(err)
		}
		all, err := other.Falls(t.Context())
		if err != nil || len(all) != 1 || all[0].Level != rules.Silenced || all[0].Judgement.Hits != 20 {
			t.Fatalf("got %+v, %v", all, err)
		}
		told, err := p.outbox().Claim(t.Context(), "test", later, time.Minute, 10)
		if err != nil || len(told) != 1 {
			t.Errorf("%d notices, %v, want one", len(told), err)
		}
		// A new text is another rule.
		edited := theRule()
		edited.Generation = strings.Repeat("b", 64)
		if x, err := f.Judge(t.Context(), edited, later); err != nil || x.Level != rules.Stands || x.Judgement.Hits != 0 {
			t.Errorf("a new generation: got %+v, %v", x, err)
		}
		// An operator sets it back: it stands, and what was counted counts no more.
		back := later.Add(3 * time.Hour)
		defer func() {
			var acts int
			if err := p.db.QueryRow(`SELECT COUNT(*) FROM decision_acts WHERE entry = 'test/2'`).Scan(&acts); err != nil || acts != 1 {
				t.Errorf("the act is marked %d times, %v", acts, err)
			}
		}()
		if _, err := f.SetBack(t.Context(), theRule(), policies.Act{By: "hanako", Entry: "test/2"}, back); err != nil {
			t.Fatal(err)
		}
		if x, err := f.Judge(t.Context(), theRule(), back); err != nil || x.Level != rules.Stands || x.By != "hanako" || x.Judgement.Hits != 0 {
			t.Errorf("set back: got %+v, %v", x, err)
		}
		keepOffice(t, f, 0, 20, back.Add(time.Minute))
		if _, fell := drop(back.Add(time.Hour)); !fell {
			t.Error("it does not fall again after it was set back")
		}
		if told, err := p.outbox().Claim(t.Context(), "test", back.Add(time.Hour), time.Minute, 10); err != nil || len(told) != 2 {
			t.Errorf("%d notices, %v, want a second one of the second term", len(told), err)
		}
		// Purging does not let it rise.
		if err := f.Purge(t.Context(), []rules.Rule{theRule()}, back.AddDate(3, 0, 0)); err != nil {
			t.Fatal(err)
		}
		if all, err := f.Falls(t.Context()); err != nil || len(all) != 1 || all[0].Level != rules.Softened {
			t.Errorf("after three years: %+v, %v", all, err)
		}
		if err := f.Purge(t.Context(), nil, back.AddDate(3, 0, 0)); err != nil {
			t.Fatal(err)
		}
		if all, err := f.Falls(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("of a rule that is gone for three years %+v, %v is kept", all, err)
		}
	})
}

// Of several nodes that see a budget spent one lets the rule fall.
func TestOneNodeLetsARuleFall(t *testing.T) {
	onDatabases(t, func(t *testing.T, p place, f *policies.Findings) {
		keepOffice(t, f, 0, 25, noon)
		results := make(chan bool, 4)
		for range 4 {
			go func() {
				_, fell, err := f.Drop(t.Context(), theRule(), noon.Add(time.Hour), func(policies.Fallen) []policies.Notice { return nil })
				if err != nil {
					t.Error(err)
				}
				results <- fell
			}()
		}
		n := 0
		for range 4 {
			if <-results {
				n++
			}
		}
		if n != 1 {
			t.Errorf("it fell on %d nodes, want one", n)
		}
	})
}

func TestHitsOfOneAccount(t *testing.T) {
	onDatabases(t, func(t *testing.T, _ place, f *policies.Findings) {
		keep := func(h rules.Hit) {
			t.Helper()
			if _, err := f.Keep(t.Context(), policies.Kept{Hits: []rules.Hit{h}, Over: map[rules.ID]time.Duration{"a.rule": 7 * 24 * time.Hour}}, h.Time); err != nil {
				t.Fatal(err)
			}
		}
		want := func(what string, hits, benign int, at time.Time) {
			t.Helper()
			// The judgement counts organizations with benign hits, whether or not they are enough.
			x, err := f.Judge(t.Context(), theRule(), at)
			if err != nil || x.Judgement.Organizations != benign || x.Judgement.Hits != hits-benign {
				t.Errorf("%s: got %+v, %v, want %d hits, %d benign", what, x.Judgement, err, hits, benign)
			}
		}
		thief := aHit("acme", 1, noon)
		thief.Device, thief.Network = "his own", netip.MustParsePrefix("198.51.100.9/32")
		keep(thief)
		want("the thief's", 1, 0, noon)
		owner := aHit("acme", 1, noon.Add(time.Hour))
		keep(owner)
		if n, err := f.Prove(t.Context(), []detectors.Event{own(owner, time.Minute)}); err != nil || len(n) != 0 {
			t.Errorf("the owner proved the thief's hit benign: %v, %v", n, err)
		}
		want("the owner's after it", 1, 0, noon.Add(2*time.Hour))
		// The thief's does not count any more after a week; the owner's then does.
		owner = aHit("acme", 1, noon.Add(8*24*time.Hour))
		keep(owner)
		if n, err := f.Prove(t.Context(), []detectors.Event{own(owner, 0)}); err != nil || n["a.rule"] != 1 {
			t.Errorf("the owner's own: %v, %v", n, err)
		}
		want("the owner's", 1, 1, owner.Time)
		young := aHit("other", 2, noon.Add(8*24*time.Hour))
		young.Since = young.Time.Add(-time.Hour)
		keep(young)
		want("a young account", 1, 1, young.Time)
		// Who comes back from the same place has another day.
		again := aHit("third", 3, noon.Add(8*24*time.Hour))
		keep(again)
		again.Time = again.Time.Add(23 * time.Hour)
		keep(again)
		if n, err := f.Prove(t.Context(), []detectors.Event{own(again, 20*time.Hour)}); err != nil || n["a.rule"] != 1 {
			t.Errorf("who came back: %v, %v", n, err)
		}
		want("who came back", 2, 2, again.Time.Add(24*time.Hour))
	})
}

func TestAnOperatorSaysThatItWasBenign(t *testing.T) {
	onDatabases(t, func(t *testing.T, _ place, f *policies.Findings) {
		id := policies.NewFindingID(noon)
		x := aFinding(id, noon)
		h := aHit("acme", 1, noon)
		x.Account = string(h.Account)
		unknown := aFinding(policies.NewFindingID(noon), noon)
		unknown.Account = "nobody's"
		if _, err := f.Keep(t.Context(), policies.Kept{Findings: []policies.Found{x, unknown}, Hits: []rules.Hit{h}}, noon); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if counts, err := f.MarkBenign(t.Context(), id, policies.Act{By: "hanako", Entry: "test/1"}, noon.Add(time.Hour)); err != nil || !counts {
				t.Errorf("got %v, %v, want it to count", counts, err)
			}
		}
		if j, err := f.Judge(t.Context(), theRule(), noon); err != nil || j.Judgement.Organizations != 1 {
			t.Errorf("got %+v, %v, want one benign", j, err)
		}
		if counts, err := f.MarkBenign(t.Context(), unknown.ID, policies.Act{By: "hanako"}, noon); err != nil || counts {
			t.Errorf("an account that is not counted: got %v, %v", counts, err)
		}
		if _, err := f.MarkBenign(t.Context(), "none", policies.Act{By: "hanako"}, noon); !errors.Is(err, policies.ErrNotFound) {
			t.Errorf("no finding: got %v", err)
		}
		if _, err := f.MarkBenign(t.Context(), id, policies.Act{}, noon); err == nil {
			t.Error("nobody marked it")
		}
		if touched, err := f.Touched(t.Context(), "a.rule", noon, noon.Add(time.Second)); err != nil || len(touched) != 1 || touched["acme"] != 1 {
			t.Errorf("touched: %v, %v", touched, err)
		}
		if touched, err := f.Touched(t.Context(), "a.rule", noon.Add(time.Second), noon.Add(time.Hour)); err != nil || len(touched) != 0 {
			t.Errorf("touched later: %v, %v", touched, err)
		}
	})
}

func TestNodesSayWhichRulesTheyHave(t *testing.T) {
	onDatabases(t, func(t *testing.T, _ place, f *policies.Findings) {
		say := func(node, hash string, at time.Time) []policies.NodeRules {
			t.Helper()
			others, err := f.Agree(t.Context(), policies.NodeRules{Node: node, Hash: hash, At: at}, at.Add(-time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			return others
		}
		if others := say("a", "one", noon); len(others) != 0 {
			t.Errorf("alone: got %v", others)
		}
		if others := say("b", "two", noon); len(others) != 1 || others[0] != (policies.NodeRules{Node: "a", Hash: "one", At: noon}) {
			t.Errorf("got %v", others)
		}
		if others := say("a", "two", noon.Add(30*time.Second)); len(others) != 1 || others[0].Hash != "two" {
			t.Errorf("got %v", others)
		}
		if others := say("a", "two", noon.Add(2*time.Minute)); len(others) != 0 {
			t.Errorf("of a node that is silent: got %v", others)
		}
	})
}

func TestWhatCannotBeKeptIsNotKept(t *testing.T) {
	onDatabases(t, func(t *testing.T, _ place, f *policies.Findings) {
		odd := aFinding(policies.NewFindingID(noon), noon)
		odd.Account, odd.Text = "a\x00b\xff", "id: \x00"
		h := aHit("a\x00b", 1, noon)
		h.Account, h.Device = "a\x00\xff", "\x00"
		if _, err := f.Keep(t.Context(), policies.Kept{Findings: []policies.Found{odd}, Hits: []rules.Hit{h}, References: []policies.Reference{{Name: "\x00"}}}, noon); err != nil {
			t.Errorf("what clients may send: %v", err)
		}
		big := aFinding(policies.NewFindingID(noon), noon)
		big.Why = strings.Repeat("x", 100_000)
		fine := aFinding(policies.NewFindingID(noon), noon)
		if _, err := f.Keep(t.Context(), policies.Kept{Findings: []policies.Found{fine, big}}, noon); err == nil {
			t.Error("a finding of 100,000 bytes is kept")
		}
		if _, err := f.Explain(t.Context(), fine.ID); !errors.Is(err, policies.ErrNotFound) {
			t.Errorf("half of what was to be kept at once is: %v", err)
		}
	})
}
