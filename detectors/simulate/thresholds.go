package simulate

import (
	"maps"
	"math"
	"slices"
)

// Rule is a rule of a defense, as far as its false matches go.
type Rule struct {
	ID     string
	Budget float64 // share of its hits that may be good log-ins, and on days without an attack of good log-ins that it may match; 0: it states none
	Bounds []Bound
}

// Bound is a number that a rule's condition compares. From Limit up it speaks for an
// attack.
type Bound struct {
	Name  string
	Limit float64
}

// Grounds are what the answers to one attempt rest on, in the order of the defense's
// rules.
type Grounds struct {
	// Matched tells whether a rule matched the attempt, or decided on whom it is from.
	Matched []bool
	// Values are the numbers of a rule's bounds, when it was asked.
	Values [][]float64
}

// Grounded is a defense that tells what its answers rest on.
type Grounded interface {
	Defense
	Rules() []Rule
	// Grounds is about the attempt of the last After, and good until the next Before.
	Grounds() Grounds
}

// Matches are false matches: of each rule, how many good log-ins it matched. A log-in
// that was matched by three rules counts for each of them.
type Matches struct {
	LogIns int
	Rules  []RuleMatches // in the order of the defense's rules
}

// RuleMatches is one rule's part of [Matches].
type RuleMatches struct {
	Rule
	Matched int
	// Values counts the good log-ins by each bound's number, which is rounded up to three
	// digits.
	Values []map[float64]int
}

func newMatches(rules []Rule) *Matches {
	m := &Matches{Rules: make([]RuleMatches, len(rules))}
	for i, r := range rules {
		m.Rules[i].Rule = r
		for range r.Bounds {
			m.Rules[i].Values = append(m.Rules[i].Values, make(map[float64]int))
		}
	}
	return m
}

// add counts a good log-in n times.
func (m *Matches) add(g Grounds, n int) {
	m.LogIns += n
	for i := range m.Rules {
		r := &m.Rules[i]
		if g.Matched[i] {
			r.Matched += n
		}
		for k, v := range g.Values[i] {
			r.Values[k][roundUp(v)] += n
		}
	}
}

// join adds what another run of a defense with the same rules came to.
func (m *Matches) join(o *Matches) {
	m.LogIns += o.LogIns
	for i := range m.Rules {
		r, x := &m.Rules[i], &o.Rules[i]
		r.Matched += x.Matched
		for k := range r.Values {
			for v, n := range x.Values[k] {
				r.Values[k][v] += n
			}
		}
	}
}

// roundUp keeps three digits, so that a year of log-ins has few different numbers, and
// never makes a number smaller.
func roundUp(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	digit := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-2)
	up := math.Ceil(v/digit-1e-9) * digit
	return math.Round(up*1e9) / 1e9
}

// Quantiles are numbers that so large a share of good log-ins stays at or below.
type Quantiles struct {
	P999, P9999, Max float64
}

func (q Quantiles) higher(o Quantiles) Quantiles {
	return Quantiles{max(q.P999, o.P999), max(q.P9999, o.P9999), max(q.Max, o.Max)}
}

func quantiles(counts map[float64]int) (q Quantiles) {
	total, seen := 0, 0
	for _, n := range counts {
		total += n
	}
	for _, v := range slices.Sorted(maps.Keys(counts)) {
		if float64(seen) < 0.999*float64(total) {
			q.P999 = v
		}
		if float64(seen) < 0.9999*float64(total) {
			q.P9999 = v
		}
		q.Max = v
		seen += counts[v]
	}
	return q
}

// Busier is s on a day with f times as many people and log-ins, in the same offices and
// behind the same addresses of carriers: what counts per address or operator without
// looking at shares sees f times as much. A storm of requests has at most 10,000 a
// second. Attacks stay as they are; f is 1 or more.
func (s Scenario) Busier(f float64) Scenario {
	more := func(n, most int) int { return max(n, min(int(float64(n)*f+0.5), most)) }
	s.Town.People = more(s.Town.People, TownMax)
	s.Crowds = slices.Clone(s.Crowds)
	for i := range s.Crowds {
		c := &s.Crowds[i]
		c.People = more(c.People, s.Town.People)
		c.Rate = max(c.Rate, min(c.Rate*f, stormMax))
	}
	return s.derived()
}

// Peaceful are the scenarios among all in which nobody attacks, in their order: those
// that thresholds come from.
func Peaceful(all []Scenario) []Scenario {
	return slices.DeleteFunc(slices.Clone(all), func(s Scenario) bool { return len(s.Raids) > 0 })
}

// Thresholds are runs without an attack of a defense that is [Grounded], as written and
// on busier days.
type Thresholds struct {
	Busier         float64 // times as many people and log-ins
	Normal, Bustle []Result
}

// BusierMost is how many times as many false matches a busier day may have.
const BusierMost = 3.0

// A share below busierLeast is chance, and so are fewer than busierFew false matches on
// all busier days.
const (
	busierLeast = 1.0 / 100_000
	busierFew   = 10
)

// RuleFigures are the false matches of one rule.
type RuleFigures struct {
	Rule
	// Normal and Bustle are of all scenarios and seeds together.
	Normal, Bustle Figure
	Worst          Figure // of the seeds, as written
	Seed           uint64 // that Worst is of
	Where          string // scenario with the largest share, as written; empty: it matched nowhere
	// Times is how many times the share of Normal that of Bustle is, or that of what chance
	// makes of either.
	Times  float64
	Bounds []BoundFigures
}

// BoundFigures are where the numbers of a bound lie among good log-ins.
type BoundFigures struct {
	Bound
	Normal, Bustle Quantiles
}

// overBudget reports whether the worst seed has more false matches than the rule's
// budget.
func (r *RuleFigures) overBudget() bool { return r.Budget > 0 && r.Worst.Value > r.Budget }

// overBusier reports whether false matches grow faster than log-ins do.
func (r *RuleFigures) overBusier() bool { return r.Times > BusierMost }

// used is the part of the budget that the worst seed used.
func (r *RuleFigures) used() Figure {
	return Figure{r.Worst.Value / r.Budget, r.Worst.Of, r.Worst.Among}
}

// Rules joins the runs by rule. It is empty where nothing was run.
func (t *Thresholds) Rules() []RuleFigures {
	if t == nil {
		return nil
	}
	normal, bustle := together(t.Normal), together(t.Bustle)
	if normal == nil || bustle == nil {
		return nil
	}
	seeds, scenarios := make(map[uint64]*Matches), make(map[string]*Matches)
	for _, r := range t.Normal {
		seeds[r.Seed] = joined(seeds[r.Seed], r.Matches)
		scenarios[r.Scenario] = joined(scenarios[r.Scenario], r.Matches)
	}
	all := make([]RuleFigures, len(normal.Rules))
	for i, r := range normal.Rules {
		f := RuleFigures{Rule: r.Rule}
		f.Normal, f.Bustle = normal.share(i), bustle.share(i)
		f.Times = f.Bustle.Value / max(f.Normal.Value, busierLeast, busierFew/BusierMost/float64(max(1, bustle.LogIns)))
		for _, seed := range slices.Sorted(maps.Keys(seeds)) {
			if s := seeds[seed].share(i); f.Seed == 0 || s.Value > f.Worst.Value {
				f.Worst, f.Seed = s, seed
			}
		}
		most := 0.0
		for _, id := range slices.Sorted(maps.Keys(scenarios)) {
			if s := scenarios[id].share(i); s.Value > most {
				most, f.Where = s.Value, id
			}
		}
		for k, b := range r.Bounds {
			f.Bounds = append(f.Bounds, BoundFigures{b, quantiles(r.Values[k]), quantiles(bustle.Rules[i].Values[k])})
		}
		all[i] = f
	}
	return all
}

func (m *Matches) share(rule int) Figure {
	f, _ := share(m.Rules[rule].Matched, m.LogIns)
	return f
}

func joined(sum, more *Matches) *Matches {
	if sum == nil {
		rules := make([]Rule, len(more.Rules))
		for i, r := range more.Rules {
			rules[i] = r.Rule
		}
		sum = newMatches(rules)
	}
	sum.join(more)
	return sum
}

// together is nil for no runs.
func together(runs []Result) (sum *Matches) {
	for _, r := range runs {
		sum = joined(sum, r.Matches)
	}
	return sum
}

// judgeRules holds the rules to a target of [EachRule]: the worst of them counts.
func (t Target) judgeRules(rules []RuleFigures) Judged {
	m := measures[t.Metric]
	var figures []seeded
	for i := range rules {
		switch r := &rules[i]; {
		case t.Metric == BudgetUsed && r.Budget > 0:
			figures = append(figures, seeded{r.Seed, r.ID, r.used()})
		case t.Metric == BusierTimes:
			figures = append(figures, seeded{0, r.ID, Figure{r.Times, r.Bustle.Of, r.Bustle.Among}})
		}
	}
	if len(figures) == 0 {
		return Judged{Target: t, Verdict: NotRun}
	}
	j := Judged{Target: t, Verdict: Met, Joined: join(m, figures)}
	if j.Where = j.Joined.where; !m.within(j.Joined.Worst.Value, t.Value) {
		j.Verdict = Missed
	}
	return j
}
