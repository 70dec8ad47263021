package simulate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
)

// suspicious is a defense with two rules: one matches every tenth log-in, by a number
// that climbs to ten, and one matches none and has no budget.
type suspicious struct{ n int }

func (s *suspicious) Before(*detectors.Event) simulate.Action { s.n++; return simulate.Allow }
func (*suspicious) After(*detectors.Event) simulate.Action    { return simulate.Allow }
func (*suspicious) Proved(*detectors.Event)                   {}
func (*suspicious) Learn(*detectors.Event)                    {}
func (*suspicious) Alarms(time.Time) []string                 { return nil }
func (*suspicious) Rules() []simulate.Rule {
	return []simulate.Rule{{ID: "tenth", Budget: 0.2, Bounds: []simulate.Bound{{Name: "digit", Limit: 9}}}, {ID: "never"}}
}
func (s *suspicious) Grounds() simulate.Grounds {
	return simulate.Grounds{Matched: []bool{s.n%10 == 9, false}, Values: [][]float64{{float64(s.n % 10)}, nil}}
}

// Of good log-ins alone, each once, a run notes which rules matched and what numbers
// they compared.
func TestRunCountsFalseMatches(t *testing.T) {
	s := simulate.Scenario{ID: "day", Form: simulate.Plain, Start: eleven, Length: simulate.Span(time.Hour),
		Town: simulate.Town{People: 2000, Companies: 40, PerDay: 24, Flat: true, Device: 0.9, Place: 0.85, Addresses: 4, Mistype: 0.2, Thin: 1}}
	r, err := simulate.Run(context.Background(), s, 1, "kidoban", &suspicious{})
	if err != nil {
		t.Fatal(err)
	}
	m := r.Matches
	if m == nil || m.LogIns != r.People.All.LogIns || m.LogIns < 1500 {
		t.Fatalf("got %+v of %d good log-ins, want all of them", m, r.People.All.LogIns)
	}
	if got, want := m.Rules[0].Matched, m.Rules[0].Values[0][9]; got != want || math.Abs(float64(got)/float64(m.LogIns)-0.1) > 0.03 {
		t.Errorf("%d of %d log-ins matched and %d had the number, want a tenth and the same", got, m.LogIns, want)
	}
	if m.Rules[1].Matched != 0 {
		t.Errorf("%d log-ins matched a rule that matches none", m.Rules[1].Matched)
	}
}

// day is a run in which a rule with a budget of 0.1% matched some of 100,000 good
// log-ins.
func day(scenario string, seed uint64, matched int) simulate.Result {
	values := map[float64]int{0: 99_950, 4: 45, 7: 5}
	return simulate.Result{Scenario: scenario, Form: simulate.Plain, Defense: "kidoban", Seed: seed, Matches: &simulate.Matches{LogIns: 100_000, Rules: []simulate.RuleMatches{
		{Rule: simulate.Rule{ID: "guessed", Budget: 0.001, Bounds: []simulate.Bound{{Name: "account.guesses", Limit: 5}}}, Matched: matched, Values: []map[float64]int{values}}}}}
}

func TestThresholds(t *testing.T) {
	for _, tt := range []struct {
		name           string
		normal, bustle []int // matches of each seed
		budget, busier simulate.Verdict
		missed         bool
	}{
		{"within both", []int{40, 100}, []int{70, 300}, simulate.Met, simulate.Met, false},
		{"one seed over its budget", []int{0, 101}, []int{0, 0}, simulate.Missed, simulate.Met, true},
		{"more on busier days", []int{10, 10}, []int{30, 31}, simulate.Met, simulate.Missed, true},
		{"fewer than one in 100,000 is chance", []int{0, 0}, []int{3, 3}, simulate.Met, simulate.Met, false},
		{"fewer than ten are chance", []int{0, 0}, []int{5, 4}, simulate.Met, simulate.Met, false},
		{"from nothing to more than chance", []int{0, 0}, []int{5, 6}, simulate.Met, simulate.Missed, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &simulate.Report{Defense: "kidoban", Thresholds: &simulate.Thresholds{Busier: 10}}
			for i, n := range tt.normal {
				r.Thresholds.Normal = append(r.Thresholds.Normal, day("b1", uint64(i+1), n))
				r.Thresholds.Bustle = append(r.Thresholds.Bustle, day("b1", uint64(i+1), tt.bustle[i]))
			}
			if j := verdictOn(t, r, simulate.EachRule, simulate.BudgetUsed); j.Verdict != tt.budget || j.Where != "guessed" {
				t.Errorf("budget: got %+v, want %s by the rule", j, tt.budget)
			}
			if j := verdictOn(t, r, simulate.EachRule, simulate.BusierTimes); j.Verdict != tt.busier {
				t.Errorf("busier days: got %+v, want %s", j, tt.busier)
			}
			if got := len(r.Thresholds.MissedRules()) > 0; got != tt.missed {
				t.Errorf("missed: got %v, want %v", got, tt.missed)
			}
		})
	}
	if j := verdictOn(t, &simulate.Report{Defense: "kidoban"}, simulate.EachRule, simulate.BudgetUsed); j.Verdict != simulate.NotRun {
		t.Errorf("nothing was measured: %s, want not run", j.Verdict)
	}
}

// A number's quantile is the least that so many good log-ins stay within.
func TestQuantiles(t *testing.T) {
	rules := (&simulate.Thresholds{Normal: []simulate.Result{day("b1", 1, 0)}, Bustle: []simulate.Result{day("b1", 1, 0)}}).Rules()
	if got, want := rules[0].Bounds[0].Normal, (simulate.Quantiles{P999: 0, P9999: 4, Max: 7}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A busier day has more people in the same places; attacks are the same.
func TestBusier(t *testing.T) {
	all, err := simulate.Load(simulate.Shipped)
	if err != nil {
		t.Fatal(err)
	}
	peaceful := simulate.Peaceful(all)
	ids := ""
	for _, s := range peaceful {
		ids += s.ID + " "
		b := s.Busier(10)
		if b.Town.People != 10*s.Town.People || b.Town.Companies != s.Town.Companies || b.Town.Addresses != s.Town.Addresses || b.Town.PerDay != s.Town.PerDay {
			t.Errorf("%s: got %+v, want ten times the people of %+v and nothing else", s.ID, b.Town, s.Town)
		}
		for i, c := range b.Crowds {
			if c.People != 10*s.Crowds[i].People || c.Sources != s.Crowds[i].Sources || c.Rate > 10_000 {
				t.Errorf("%s: got %+v, want ten times the people of %+v behind as many addresses", s.ID, c, s.Crowds[i])
			}
		}
	}
	if want := "b1 b2 b3 b4 b5 b6 b7 b8 "; ids != want {
		t.Errorf("nobody attacks in %s, want %s", ids, want)
	}
	at := slices.IndexFunc(all, func(s simulate.Scenario) bool { return s.ID == "a1" })
	if b := all[at].Busier(10); b.Raids[0].Attempts != all[at].Raids[0].Attempts {
		t.Errorf("an attack of %d attempts became one of %d", all[at].Raids[0].Attempts, b.Raids[0].Attempts)
	}
}

// The section alone says what the report says.
func TestBudgetAlone(t *testing.T) {
	r := sample()
	var table, whole, alone bytes.Buffer
	if err := r.WriteBudget(&table, "en"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"missed", "stuffing.sequential", "source.sequential ≥ 9.2", "2,000,000 good log-ins"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, &table)
		}
	}
	for b, write := range map[*bytes.Buffer]func() error{&whole: func() error { return r.WriteJSON(&whole) }, &alone: func() error { return r.WriteBudgetJSON(&alone) }} {
		if err := write(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
	}
	var report struct {
		Thresholds map[string]any
	}
	var section map[string]any
	if err := json.Unmarshal(whole.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(alone.Bytes(), &section); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{"busier", "log_ins", "rules"} {
		got, _ := json.Marshal(section[member])
		if want, _ := json.Marshal(report.Thresholds[member]); !bytes.Equal(got, want) || len(got) < 2 {
			t.Errorf("%s: got %s, want %s", member, got, want)
		}
	}
}
