package dry

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/rules"
)

// Grounded is a [Simulated] gate that tells which rules stand behind its answers, and
// the numbers that their conditions compared.
type Grounded struct{ Simulated }

// NewGrounded makes g tell its grounds.
func NewGrounded(g *Gate) Grounded {
	g.grounds = newGrounds(g.rules)
	return Grounded{Simulated{g}}
}

// Rules implements [simulate.Grounded].
func (g Grounded) Rules() []simulate.Rule { return g.Gate.grounds.rules }

// Grounds implements [simulate.Grounded].
func (g Grounded) Grounds() simulate.Grounds { return g.Gate.grounds.last }

// grounds are those of the last attempt. A nil one keeps nothing.
type grounds struct {
	set    *rules.Set
	rules  []simulate.Rule
	stages []rules.Stage
	index  map[rules.ID]int
	flags  []flag
	last   simulate.Grounds
}

// flag is a bound of a number that no condition names, but a flag that is raised by it.
type flag struct {
	rule, bound int
	number      string
}

func newGrounds(set *rules.Set) *grounds {
	g := &grounds{set: set, index: make(map[rules.ID]int)}
	for i, r := range set.Rules() {
		s := simulate.Rule{ID: string(r.ID), Bounds: boundsOf(r.When)}
		if r.Budget != nil {
			s.Budget = r.Budget.FalsePositives / 100
		}
		for k, b := range s.Bounds {
			if strings.HasSuffix(b.Name, sequential) {
				g.flags = append(g.flags, flag{i, k, b.Name})
			}
		}
		g.index[r.ID] = i
		g.rules, g.stages = append(g.rules, s), append(g.stages, r.On)
		g.last.Matched = append(g.last.Matched, false)
		g.last.Values = append(g.last.Values, make([]float64, len(s.Bounds)))
	}
	return g
}

// A flag of Wald's test is raised where its ratio has reached so many nats, as the
// catalog of signals says.
const (
	sequential      = ".sequential"
	flagged         = ".flagged"
	sequentialLimit = 9.2
)

var comparison = regexp.MustCompile(`([a-z][a-z0-9_.]*)\s*(>=|>|==)\s*([0-9]+(?:\.[0-9]+)?)`)

// crowded is how many people a network has, which speaks for nothing.
const crowded = "source.capacity"

// boundsOf are the numbers that a condition wants to be at least so large, each once.
// Behind a flag comes the ratio that raises it.
func boundsOf(when string) (all []simulate.Bound) {
	add := func(name string, limit float64) {
		if !slices.ContainsFunc(all, func(b simulate.Bound) bool { return b.Name == name }) {
			all = append(all, simulate.Bound{Name: name, Limit: limit})
		}
	}
	for _, m := range comparison.FindAllStringSubmatch(when, -1) {
		limit, err := strconv.ParseFloat(m[3], 64)
		if err != nil || limit == 0 || m[1] == crowded {
			continue
		}
		add(m[1], limit)
		if stem, ok := strings.CutSuffix(m[1], flagged); ok {
			add(stem+sequential, sequentialLimit)
		}
	}
	return all
}

// begin forgets the attempt before.
func (g *grounds) begin() {
	if g != nil {
		clear(g.last.Matched)
	}
}

// asked notes what the rules of a stage compared and found.
func (g *grounds) asked(stage rules.Stage, e *detectors.Event, signals []detectors.Signal, found []rules.Finding) {
	if g == nil {
		return
	}
	for _, f := range g.flags {
		if g.stages[f.rule] == stage {
			g.last.Values[f.rule][f.bound] = 0
			if at := slices.IndexFunc(signals, func(s detectors.Signal) bool { return s.Name == f.number }); at >= 0 {
				g.last.Values[f.rule][f.bound] = signals[at].Value
			}
		}
	}
	g.set.Numbers(stage, *e, signals, func(rule rules.ID, name string, value float64) {
		i := g.index[rule]
		if k := slices.IndexFunc(g.rules[i].Bounds, func(b simulate.Bound) bool { return b.Name == name }); k >= 0 {
			g.last.Values[i][k] = value
		}
	})
	for _, f := range found {
		g.last.Matched[g.index[f.Rule]] = true
	}
}

// decided notes that a decision of a rule is on whom the attempt is from.
func (g *grounds) decided(rule rules.ID) {
	if g == nil {
		return
	}
	if i, ok := g.index[rule]; ok {
		g.last.Matched[i] = true
	}
}
