package rules_test

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// struck is n hits on accounts of an organization, benign or not, of an age.
func struck(n int, organization string, age time.Duration, benign bool) (hits []rules.Hit) {
	for i := range n {
		h := rules.Hit{Time: monday, Account: detectors.Account(fmt.Sprint(organization, " ", i)), Organization: detectors.Organization(organization), Since: monday.Add(-age)}
		if benign {
			h.Benign = monday.Add(time.Minute)
		}
		hits = append(hits, h)
	}
	return hits
}

func over(n, organizations int, age time.Duration, benign bool) (hits []rules.Hit) {
	for i := range organizations {
		hits = append(hits, struck(n/organizations, fmt.Sprint("org ", i), age, benign)...)
	}
	return hits
}

const old = 30 * 24 * time.Hour

func TestBudgetIsSpentBeyondDoubtOnly(t *testing.T) {
	join := func(parts ...[]rules.Hit) (all []rules.Hit) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, test := range []struct {
		name    string
		percent float64
		hits    []rules.Hit
		want    bool
	}{
		{"no hits", 1, nil, false},
		{"19 hits are too few", 1, join(over(15, 5, old, true), struck(4, "a", old, false)), false},
		{"20 are enough", 1, over(20, 5, old, true), true},
		{"four organizations are too few", 1, over(400, 4, old, true), false},
		{"accounts of a week count", 1, over(20, 5, 7*24*time.Hour, true), true},
		{"younger ones do not", 1, over(200, 5, 7*24*time.Hour-time.Second, true), false},
		{"2 of 100 are no proof of more than 1 percent", 1, join(over(5, 5, old, true), over(300, 5, old, false)), false},
		{"a tenth of 400 is", 1, join(over(40, 5, old, true), over(360, 5, old, false)), true},
		{"a tenth is within twenty percent", 20, join(over(40, 5, old, true), over(360, 5, old, false)), false},
		{"500 young accounts of an attacker", 0.1, over(500, 500, time.Hour, true), false},
		{"500 old ones in one organization", 0.1, struck(500, "his", old, true), false},
		{"500 old ones in four", 0.1, over(500, 4, old, true), false},
		{"500 old ones in four, and an attack on other people's", 0.1, join(over(500, 4, old, true), over(300, 30, old, false)), false},
		{"500 old ones in one, and few of others that prove benign", 1,
			join(struck(500, "his", old, true), over(4, 4, old, true), over(3000, 30, old, false)), false},
	} {
		if got := (rules.Budget{FalsePositives: test.percent}).Judge(test.hits); got.Over != test.want {
			t.Errorf("%s: got %+v, want over %v", test.name, got, test.want)
		}
	}
	got := (rules.Budget{FalsePositives: 1}).Judge(join(struck(500, "his", old, true), over(4, 4, old, true)))
	if got.Benign != 5 || got.Hits != 5 || got.Organizations != 5 {
		t.Errorf("got %+v, want one hit of each of five organizations", got)
	}
}

// Whatever else an organization does, it has at most a fifth of what counts.
func TestNoOrganizationCountsMoreThanAFifth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(0, 60), 0, 12).Draw(t, "benign hits of organizations")
		var hits []rules.Hit
		rest := 0
		for i, n := range counts {
			hits = append(hits, struck(n, fmt.Sprint(i), old, true)...)
			if i > 0 {
				rest += n
			}
		}
		j := (rules.Budget{FalsePositives: 50}).Judge(hits)
		if j.Benign > 0 && j.Organizations < 5 {
			t.Fatalf("got %+v from fewer than five organizations", j)
		}
		if 4*j.Benign > 5*rest {
			t.Fatalf("the first organization has %d of %d that count: more than a fifth", j.Benign-rest, j.Benign)
		}
	})
}

// Falls is the number of hits, all of them benign, at which the judgement turns.
func TestFallsIsWhereTheJudgementTurns(t *testing.T) {
	for _, percent := range []float64{0.01, 0.1, 1, 8, 50, 80, 90, 95, 99} {
		b := rules.Budget{FalsePositives: percent}
		n := b.Falls()
		if n%5 != 0 || n < 20 {
			t.Errorf("%g%%: after %d hits", percent, n)
		}
		if j := b.Judge(over(n, 5, old, true)); !j.Over {
			t.Errorf("%g%%: %d hits, all benign: got %+v, want it over", percent, n, j)
		}
		if j := b.Judge(over(n-5, 5, old, true)); j.Over {
			t.Errorf("%g%%: %d hits are enough, and Falls says %d", percent, n-5, n)
		}
		t.Logf("a budget of %g%% is spent by %d hits that all prove benign", percent, n)
	}
	if n := (rules.Budget{FalsePositives: 100}).Falls(); n != 0 {
		t.Errorf("who accepts all: after %d hits, want never", n)
	}
}

// Textbook values.
func TestWilson(t *testing.T) {
	for _, test := range []struct {
		k, n         int
		lower, upper float64
	}{
		{0, 0, 0, 1}, {0, 10, 0, 0.2775}, {10, 10, 0.7225, 1}, {5, 10, 0.2366, 0.7634}, {1, 29, 0.0061, 0.1718}, {81, 263, 0.2553, 0.3662},
	} {
		lower, upper := rules.Wilson(test.k, test.n)
		if math.Abs(lower-test.lower) > 1e-4 || math.Abs(upper-test.upper) > 1e-4 {
			t.Errorf("%d of %d: got %.4f to %.4f, want %.4f to %.4f", test.k, test.n, lower, upper, test.lower, test.upper)
		}
	}
}

func TestWhatProvesAHit(t *testing.T) {
	home, away := netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("198.51.100.7/32")
	hit := rules.Hit{Time: monday, Account: "7", Since: monday.Add(-old), Device: "laptop", Network: home, Fingerprint: "f"}
	bare := hit
	bare.Device = ""
	event := func(change func(*detectors.Event)) detectors.Event {
		e := detectors.Event{Time: monday.Add(time.Hour), Kind: detectors.Login, Account: "7", Outcome: detectors.Success, Fingerprint: "f",
			Device: detectors.Device{ID: "laptop", State: detectors.Trusted}, Source: detectors.Source{Network: home}}
		change(&e)
		return e
	}
	factor := func(e *detectors.Event) { e.Kind, e.Device, e.Fingerprint = detectors.Factor, detectors.Device{}, "" }
	for _, test := range []struct {
		name   string
		hit    rules.Hit
		change func(*detectors.Event)
		want   bool
	}{
		{"a log-in on its own device", hit, func(*detectors.Event) {}, true},
		{"from another network", hit, func(e *detectors.Event) { e.Source.Network = away }, true},
		{"on another device of the account", hit, func(e *detectors.Event) { e.Device.ID = "telephone" }, false},
		{"on a device that came with the hit", hit, func(e *detectors.Event) { e.Device.State = detectors.Probation }, false},
		{"on a copied device", hit, func(e *detectors.Event) { e.Device.State = detectors.Forked }, false},
		{"withheld", hit, func(e *detectors.Event) { e.Unproven = true }, false},
		{"a wrong password", hit, func(e *detectors.Event) { e.Outcome = detectors.Failure }, false},
		{"another account's", hit, func(e *detectors.Event) { e.Account = "8" }, false},
		{"before the hit", hit, func(e *detectors.Event) { e.Time = monday.Add(-time.Second) }, false},
		{"a day and a second later", hit, func(e *detectors.Event) { e.Time = monday.Add(24*time.Hour + time.Second) }, false},
		{"a request", hit, func(e *detectors.Event) { e.Kind = detectors.Request }, false},
		{"a second factor", hit, factor, true},
		{"a wrong one", hit, func(e *detectors.Event) { factor(e); e.Outcome = detectors.Failure }, false},
		{"one given elsewhere", hit, func(e *detectors.Event) { factor(e); e.Source.Network = away }, false},
		{"of a hit without device, where it was", bare, func(*detectors.Event) {}, false},
		{"of a hit without device, a factor where it was", bare, factor, true},
	} {
		if got := test.hit.ProvedBy(event(test.change)); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
		if e := event(test.change); test.want && !rules.Proves(e) {
			t.Errorf("%s: Proves says that it proves nothing", test.name)
		}
	}
}

func TestUnderAFall(t *testing.T) {
	f := rules.Finding{Mode: rules.Enforce, Then: []rules.Response{
		{Mode: rules.Enforce, Answer: rules.Deceive}, {Mode: rules.Enforce, Decide: &rules.Decide{Scope: "account", Action: rules.Refuse, For: time.Hour}},
		{Mode: rules.Enforce, Answer: rules.Delay},
	}}
	soft, silent := f.Under(rules.Softened), f.Under(rules.Silenced)
	if got := f.Under(rules.Stands); got.Then[0].Answer != rules.Deceive {
		t.Errorf("a rule that stands: got %v", got)
	}
	if soft.Then[0].Answer != rules.StepUp || soft.Then[1].Decide.Action != rules.StepUp || soft.Then[2].Answer != rules.Delay || soft.Mode != rules.Enforce {
		t.Errorf("softened: got %+v", soft)
	}
	for _, p := range silent.Then {
		if p.Mode != rules.Shadow || silent.Mode != rules.Shadow {
			t.Errorf("silenced: got %+v", p)
		}
	}
	if f.Then[1].Decide.Action != rules.Refuse || f.Then[0].Mode != rules.Enforce {
		t.Errorf("the finding itself changed: %+v", f)
	}
	for _, fall := range []rules.Fall{rules.Stands, rules.Softened, rules.Silenced} {
		text, _ := fall.MarshalText()
		var back rules.Fall
		if err := back.UnmarshalText(text); err != nil || back != fall {
			t.Errorf("%s: got %v, %v", text, back, err)
		}
	}
	var none rules.Fall
	if none.UnmarshalText([]byte("x")) == nil {
		t.Error("x is a fall")
	}
}

// A rule that matches no larger a share of good log-ins than its budget is within it when
// an attack makes as many hits as there are good log-ins; without an attack any 20 are too many.
func TestBudgetOfGoodLogins(t *testing.T) {
	const logins = 10_000
	for _, percent := range []float64{0.1, 1, 5, 10} {
		good := over(int(percent/100*logins), 5, old, true)
		b := rules.Budget{FalsePositives: percent}
		if j := b.Judge(slices.Concat(good, struck(logins, "theirs", old, false))); j.Over || j.Benign != len(good) {
			t.Errorf("%v%%, an attack: %+v", percent, j)
		}
		if j := b.Judge(good); j.Over != (len(good) >= 20) {
			t.Errorf("%v%%, no attack: %+v", percent, j)
		}
	}
}
