package dry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/gateway/dry"
)

// numberOf is what a rule's condition compared of a name, and whether the rule matched.
func numberOf(t *testing.T, g dry.Grounded, rule, name string) (value float64, matched bool) {
	t.Helper()
	i := slices.IndexFunc(g.Rules(), func(r simulate.Rule) bool { return r.ID == rule })
	if i < 0 {
		t.Fatalf("there is no rule %s", rule)
	}
	k := slices.IndexFunc(g.Rules()[i].Bounds, func(b simulate.Bound) bool { return b.Name == name })
	if k < 0 {
		t.Fatalf("%s compares no %s: %+v", rule, name, g.Rules()[i])
	}
	return g.Grounds().Values[i][k], g.Grounds().Matched[i]
}

// Who is behind an address that a list came from is matched by the rule that decided on
// it, elsewhere nobody is; the numbers are those that the conditions saw, and a flag has
// the ratio behind it.
func TestGrounds(t *testing.T) {
	gate, err := dry.New(dry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	g := dry.NewGrounded(gate)
	at := monday
	for i := range 12 {
		at = at.Add(time.Second)
		e := attempt(at, i, "203.0.113.7")
		g.Before(e)
		e.Outcome = detectors.Failure
		g.After(e)
		if ratio, matched := numberOf(t, g, "stuffing.sequential", "source.sequential"); matched != (ratio >= 9.2) && i < 8 {
			t.Errorf("attempt %d: a ratio of %v and matched %v", i, ratio, matched)
		}
		if tried, _ := numberOf(t, g, "stuffing.many-accounts-one-network", "tried"); tried != float64(i+1) {
			t.Errorf("attempt %d: %v names were tried", i, tried)
		}
	}
	for from, want := range map[string]bool{"203.0.113.7": true, "198.51.100.7": false} {
		e := attempt(at, 500, from)
		g.Before(e)
		e.Outcome = detectors.Success
		g.After(e)
		if _, matched := numberOf(t, g, "stuffing.sequential", "source.flagged"); matched != want {
			t.Errorf("a good log-in from %s: matched %v, want %v", from, matched, want)
		}
	}
}

// Every rule that ships states a budget and, unless it asks a list, a number that a
// threshold stands on, and the ratio behind flags is flagged where the catalog says.
func TestRulesHaveBounds(t *testing.T) {
	gate, err := dry.New(dry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range dry.NewGrounded(gate).Rules() {
		if r.Budget <= 0 || r.Budget > 0.1 {
			t.Errorf("%s: a budget of %v", r.ID, r.Budget)
		}
		if len(r.Bounds) == 0 && r.ID != "password.breached" && r.ID != "network.tor" && r.ID != "network.hosting" {
			t.Errorf("%s: no number", r.ID)
		}
		for _, b := range r.Bounds {
			if !strings.HasSuffix(b.Name, ".sequential") {
				continue
			}
			for _, d := range detectors.Default(time.Time{}).Catalog() {
				if flag := strings.TrimSuffix(b.Name, ".sequential") + ".flagged"; d.Name == flag && !strings.Contains(d.Meaning, fmt.Sprintf("at or above %v", b.Limit)) {
					t.Errorf("%s from %v on, but %s means %q", b.Name, b.Limit, flag, d.Meaning)
				}
			}
		}
	}
}

// A gate answers the same whether or not it tells its grounds.
func TestGroundsChangeNothing(t *testing.T) {
	answers := func(d simulate.Defense) (all []simulate.Action) {
		at := monday
		for i := range 60 {
			at = at.Add(time.Second)
			e := attempt(at, i%40, "203.0.113.7")
			before := d.Before(e)
			e.Outcome = detectors.Failure
			if i%9 == 0 {
				e.Outcome = detectors.Success
			}
			all = append(all, before, d.After(e))
		}
		return all
	}
	one, err := dry.New(dry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := dry.New(dry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := answers(dry.NewGrounded(one)), answers(dry.Simulated{Gate: other}); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
