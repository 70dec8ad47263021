package simulate

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// Report is what scenarios came to before the shipped defense and others, over seeds.
// Its writers are pure: equal reports give equal bytes.
type Report struct {
	Made      time.Time // zero: not told
	Scenarios string    // hash of the scenario files, of all that were at hand
	Rules     string    // hash of the shipped defense's rule files
	Seeds     []uint64
	Spread    float64 // of the runs that were drawn; 0: none were
	Scale     float64 // of people and attempts; 1: as written
	Defense   string  // the shipped one, as results name it
	Results   []Result
	// Thresholds are the shipped defense's; nil: they were not measured.
	Thresholds *Thresholds
	// Titles and Stories say what scenarios are, by id.
	Titles, Stories map[string]Words
}

// Joined is a metric over the seeds: the worst in its own direction, and the median.
// Of a metric that is summed up both are the sum.
type Joined struct {
	Worst  Figure
	Seed   uint64 // that Worst is of; 0: of all
	Median float64
	Best   float64
	where  string
}

type seeded struct {
	seed  uint64
	where string
	Figure
}

// join needs at least one figure.
func join(m measure, figures []seeded) Joined {
	if m.total {
		var sum float64
		for _, f := range figures {
			sum += f.Value
		}
		return Joined{Worst: Figure{Value: sum}, Median: sum, Best: sum, where: figures[0].where}
	}
	slices.SortStableFunc(figures, func(a, b seeded) int {
		switch {
		case m.worse(a.Value, b.Value):
			return -1
		case m.worse(b.Value, a.Value):
			return 1
		}
		return cmp.Compare(a.seed, b.seed)
	})
	n := len(figures)
	j := Joined{Worst: figures[0].Figure, Seed: figures[0].seed, where: figures[0].where, Best: figures[n-1].Value}
	if a, b := figures[(n-1)/2].Value, figures[n/2].Value; a == b || math.IsInf(a, 0) {
		j.Median = a
	} else {
		j.Median = (a + b) / 2
	}
	return j
}

// variant is one way of playing a scenario before one defense.
type variant struct {
	Scenario, Form, Defense string
	Drawn                   bool
}

// variant names both forms of a scenario alike: the one that evades has a file, and so
// an id, of its own.
func (r *Result) variant() variant {
	return variant{strings.TrimSuffix(r.Scenario, "-"+Evading), r.Form, r.Defense, r.Spread != 0}
}

// reading is a report put in order.
type reading struct {
	*Report
	runs     map[variant][]*Result
	attacked map[string]bool // scenarios in which something is tried
	// variants are in the order of scenarios, plain before evading, as written before
	// drawn, the shipped defense before the others.
	variants  []variant
	scenarios []string
	defenses  []string // the shipped one, and the others as they first occur
}

func (r *Report) read() *reading {
	g := &reading{Report: r, runs: make(map[variant][]*Result), attacked: make(map[string]bool), defenses: []string{r.Defense}}
	for i := range r.Results {
		run := &r.Results[i]
		v := run.variant()
		if _, seen := g.runs[v]; !seen {
			g.variants = append(g.variants, v)
		}
		g.runs[v] = append(g.runs[v], run)
		if run.Attack.Attempts > 0 {
			g.attacked[v.Scenario] = true
		}
		if !slices.Contains(g.defenses, v.Defense) {
			g.defenses = append(g.defenses, v.Defense)
		}
	}
	slices.SortFunc(g.variants, func(a, b variant) int {
		return cmp.Or(truth(g.ofPeople(a.Scenario))-truth(g.ofPeople(b.Scenario)), cmp.Compare(a.Scenario, b.Scenario), -cmp.Compare(a.Form, b.Form), truth(a.Drawn)-truth(b.Drawn),
			slices.Index(g.defenses, a.Defense)-slices.Index(g.defenses, b.Defense))
	})
	for _, v := range g.variants {
		if n := len(g.scenarios); n == 0 || g.scenarios[n-1] != v.Scenario {
			g.scenarios = append(g.scenarios, v.Scenario)
		}
	}
	return g
}

// ofPeople reports whether a scenario is of people first: nothing is tried in it, or it
// is one of those that ship as such.
func (g *reading) ofPeople(scenario string) bool {
	return !g.attacked[scenario] || slices.Contains(benign, scenario)
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// figure joins one metric of one variant over the seeds; not ok: it has none.
func (g *reading) figure(v variant, m Metric) (Joined, bool) {
	var all []seeded
	for _, run := range g.runs[v] {
		if f, known := measures[m].read(run); known {
			all = append(all, seeded{run.Seed, run.Scenario, f})
		}
	}
	if len(all) == 0 {
		return Joined{}, false
	}
	return join(measures[m], all), true
}

// Judge holds the shipped defense to every target.
func (r *Report) Judge() []Judged {
	all := make([]Judged, len(Targets))
	rules := r.Thresholds.Rules()
	for i, t := range Targets {
		if t.Scenario == EachRule {
			all[i] = t.judgeRules(rules)
			continue
		}
		all[i] = t.judge(r.Results, r.Defense)
	}
	return all
}

// tally counts verdicts.
func tally(all []Judged) (met, missed, notRun int) {
	for _, j := range all {
		switch j.Verdict {
		case Met:
			met++
		case Missed:
			missed++
		default:
			notRun++
		}
	}
	return met, missed, notRun
}

// Beaten is a metric in which another defense's worst seed is better than that of the
// shipped one, in the same scenario and form, as written.
type Beaten struct {
	Scenario, Form string
	Metric         Metric
	By             string
	Ours, Theirs   Joined
}

// compared are the metrics in which defenses are compared: what an attack costs and
// what people notice.
var compared = []Metric{Recall, Lost, FirstCaught, Precision, Evaluated, RefusedRate, SteppedUp, Delayed, LockedOut, OwnerDelayed}

// beaten lists where the shipped defense is beaten, in the order of variants.
func (g *reading) beaten() []Beaten {
	var all []Beaten
	for _, v := range g.variants {
		if v.Defense != g.Defense || v.Drawn {
			continue
		}
		for _, m := range compared {
			ours, ok := g.figure(v, m)
			if !ok {
				continue
			}
			for _, d := range g.defenses[1:] {
				other := v
				other.Defense = d
				if theirs, ok := g.figure(other, m); ok && measures[m].worse(ours.Worst.Value, theirs.Worst.Value) {
					all = append(all, Beaten{v.Scenario, v.Form, m, d, ours, theirs})
				}
			}
		}
	}
	return all
}

// shown reports whether a metric says something of a scenario.
func (g *reading) shown(scenario string, m Metric) bool {
	switch m {
	case Evaluated, OwnerDelayed:
		return scenario == nameA5
	case AlarmCount, AlarmLength:
		return !g.attacked[scenario]
	}
	return true
}
