package simulate

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The JSON form of thresholds; README.md describes it.
type (
	thresholdsJSON struct {
		Busier       float64    `json:"busier"`
		LogIns       int        `json:"log_ins"`
		BusierLogIns int        `json:"busier_log_ins"`
		Rules        []ruleJSON `json:"rules"`
	}
	ruleJSON struct {
		Rule       string      `json:"rule"`
		Verdict    Verdict     `json:"verdict"`
		Miss       string      `json:"miss,omitempty"` // budget, busier
		Budget     *float64    `json:"budget"`
		Matches    int         `json:"matches"`
		Share      float64     `json:"share"`
		Worst      float64     `json:"worst"`
		WorstSeed  uint64      `json:"worst_seed"`
		Where      string      `json:"where,omitempty"`
		BusierHits int         `json:"busier_matches"`
		BusierRate float64     `json:"busier_share"`
		Times      float64     `json:"times"`
		Numbers    []boundJSON `json:"numbers"`
	}
	boundJSON struct {
		Name   string        `json:"name"`
		From   float64       `json:"from"`
		Good   quantilesJSON `json:"good"`
		Busier quantilesJSON `json:"busier"`
	}
	quantilesJSON struct {
		P999  float64 `json:"p99_9"`
		P9999 float64 `json:"p99_99"`
		Max   float64 `json:"max"`
	}
	budgetJSON struct {
		Format        int       `json:"format"`
		Made          time.Time `json:"made,omitzero"`
		ScenarioFiles string    `json:"scenario_files"`
		RulePack      string    `json:"rule_pack"`
		Seeds         []uint64  `json:"seeds"`
		*thresholdsJSON
	}
)

// miss is which limit of a rule's false matches is not kept: "budget", "busier" or both;
// empty: none.
func (r *RuleFigures) miss() string {
	var all []string
	if r.overBudget() {
		all = append(all, "budget")
	}
	if r.overBusier() {
		all = append(all, "busier")
	}
	return strings.Join(all, ", ")
}

func (r *RuleFigures) verdict() Verdict {
	if r.miss() != "" {
		return Missed
	}
	return Met
}

// MissedRules names the rules that are over their budget, or have more than [BusierMost]
// times as many false matches on busier days.
func (t *Thresholds) MissedRules() (ids []string) {
	for _, r := range t.Rules() {
		if r.miss() != "" {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

func (t *Thresholds) json() *thresholdsJSON {
	rules := t.Rules()
	if len(rules) == 0 {
		return nil
	}
	j := &thresholdsJSON{Busier: t.Busier, LogIns: rules[0].Normal.Among, BusierLogIns: rules[0].Bustle.Among}
	for i := range rules {
		r := &rules[i]
		row := ruleJSON{Rule: r.ID, Verdict: r.verdict(), Miss: r.miss(), Matches: r.Normal.Of, Share: r.Normal.Value, Worst: r.Worst.Value, WorstSeed: r.Seed,
			Where: r.Where, BusierHits: r.Bustle.Of, BusierRate: r.Bustle.Value, Times: r.Times, Numbers: []boundJSON{}}
		if r.Budget > 0 {
			row.Budget = &r.Budget
		}
		for _, b := range r.Bounds {
			row.Numbers = append(row.Numbers, boundJSON{b.Name, b.Limit, quantilesJSON(b.Normal), quantilesJSON(b.Bustle)})
		}
		j.Rules = append(j.Rules, row)
	}
	return j
}

// WriteBudget writes r's section on thresholds alone, as plain text.
func (r *Report) WriteBudget(out io.Writer, language string) error {
	b := bufio.NewWriter(out)
	w, g := wordsOf(language), r.read()
	for _, fact := range g.facts(w) {
		fmt.Fprintf(b, "%s  %s\n", pad(fact[0], 16), fact[1])
	}
	r.Thresholds.table(b, w)
	return b.Flush()
}

// WriteBudgetJSON writes r's section on thresholds alone, as one JSON object.
func (r *Report) WriteBudgetJSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(budgetJSON{1, r.Made, r.Scenarios, r.Rules, r.Seeds, r.Thresholds.json()})
}

// table writes the section, if anything was measured.
func (t *Thresholds) table(b io.Writer, w lexicon) {
	rules := t.Rules()
	if len(rules) == 0 {
		return
	}
	fmt.Fprintf(b, "\n\n%s\n", w.say["thresholds"])
	for _, line := range wrap(t.note(w, rules), textColumns) {
		fmt.Fprintln(b, line)
	}
	fmt.Fprintln(b, "\n"+strings.Repeat(" ", 10+36)+left(w.say["budget"], 9)+left(w.say["worst"], 11)+left(w.say["all seeds"], 12)+
		left(t.busierHead(w), 12)+left(w.say["times"], 9))
	for _, r := range worstFirst(rules) {
		fmt.Fprintln(b, pad(w.say[string(r.verdict())], 10)+pad(r.ID, 36)+left(w.budget(r.Budget), 9)+left(hundredThousandth(r.Worst.Value), 11)+
			left(hundredThousandth(r.Normal.Value), 12)+left(hundredThousandth(r.Bustle.Value), 12)+left(w.number(Ratio, r.Times), 9))
	}
	fmt.Fprintf(b, "\n%s\n\n", w.say["numbers"])
	fmt.Fprintln(b, strings.Repeat(" ", 30)+left("p99.9", 9)+left("p99.99", 9)+left(w.say["max"], 9)+"  |"+
		left(t.busierHead(w)+" p99.9", 16)+left("p99.99", 9)+left(w.say["max"], 9))
	for _, x := range numbersOf(rules) {
		fmt.Fprintln(b, pad(fromText(x.Bound), 30)+left(trim(x.Normal.P999, 2), 9)+left(trim(x.Normal.P9999, 2), 9)+left(trim(x.Normal.Max, 2), 9)+"  |"+
			left(trim(x.Bustle.P999, 2), 16)+left(trim(x.Bustle.P9999, 2), 9)+left(trim(x.Bustle.Max, 2), 9))
	}
}

func (t *Thresholds) note(w lexicon, rules []RuleFigures) string {
	return fmt.Sprintf(w.say["thresholds note"], thousands(float64(rules[0].Normal.Among)), thousands(float64(rules[0].Bustle.Among)), trim(t.Busier, 1), trim(BusierMost, 0))
}

func (t *Thresholds) busierHead(w lexicon) string {
	return fmt.Sprintf(w.say["busier"], trim(t.Busier, 1))
}

func fromText(b Bound) string { return b.Name + " ≥ " + trim(b.Limit, 2) }

// budget is a rule's budget in 100,000; a dash: none.
func (w lexicon) budget(v float64) string {
	if v == 0 {
		return "–"
	}
	return hundredThousandth(v)
}

// hundredThousandth writes a share as how many of 100,000.
func hundredThousandth(v float64) string {
	if v *= 100_000; v > 0 && v < 0.01 {
		return "<0.01"
	} else if v < 10 {
		return trim(v, 2)
	} else {
		return thousands(v)
	}
}

// worstFirst puts rules that miss first, then those that used most of their budget.
func worstFirst(rules []RuleFigures) []RuleFigures {
	sorted := slices.Clone(rules)
	part := func(r *RuleFigures) float64 {
		if r.Budget == 0 {
			return 0
		}
		return r.used().Value
	}
	slices.SortStableFunc(sorted, func(a, b RuleFigures) int {
		if d := truth(a.miss() == "") - truth(b.miss() == ""); d != 0 {
			return d
		}
		switch x, y := part(&a), part(&b); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	return sorted
}

// numbersOf are the bounds of all rules by name, each once. Rules that are asked before
// an attempt and after it see different numbers; the higher ones count.
func numbersOf(rules []RuleFigures) (all []BoundFigures) {
	for _, r := range rules {
		for _, b := range r.Bounds {
			at := slices.IndexFunc(all, func(a BoundFigures) bool { return a.Bound == b.Bound })
			if at < 0 {
				all = append(all, b)
				continue
			}
			all[at].Normal, all[at].Bustle = all[at].Normal.higher(b.Normal), all[at].Bustle.higher(b.Bustle)
		}
	}
	slices.SortStableFunc(all, func(a, b BoundFigures) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return int(a.Limit*100) - int(b.Limit*100)
	})
	return all
}

// thresholdsPage is the section of a page; nil: nothing was measured.
type thresholdsPage struct {
	Note           string
	Rules, Numbers grid
	Never          []string // rules without a false match on any day
}

func (t *Thresholds) page(w lexicon) *thresholdsPage {
	rules := t.Rules()
	if len(rules) == 0 {
		return nil
	}
	p := &thresholdsPage{Note: t.note(w, rules)}
	p.Rules.Heads = []string{w.say["rule"], w.say["budget"], w.say["worst"], w.say["all seeds"], t.busierHead(w), w.say["times"]}
	for _, r := range worstFirst(rules) {
		if r.Normal.Of+r.Bustle.Of == 0 {
			p.Never = append(p.Never, r.ID)
			continue
		}
		row := gridRow{Head: marks[r.verdict()] + " " + r.ID}
		for _, text := range []string{w.budget(r.Budget), hundredThousandth(r.Worst.Value), hundredThousandth(r.Normal.Value), hundredThousandth(r.Bustle.Value), w.number(Ratio, r.Times)} {
			row.Cells = append(row.Cells, cell{Text: text})
		}
		p.Rules.Rows = append(p.Rules.Rows, row)
	}
	p.Numbers.Heads = []string{w.say["number"], "p99.9", "p99.99", w.say["max"], t.busierHead(w) + " p99.9", t.busierHead(w) + " p99.99", t.busierHead(w) + " " + w.say["max"]}
	for _, x := range numbersOf(rules) {
		row := gridRow{Head: fromText(x.Bound)}
		for _, v := range []float64{x.Normal.P999, x.Normal.P9999, x.Normal.Max, x.Bustle.P999, x.Bustle.P9999, x.Bustle.Max} {
			row.Cells = append(row.Cells, cell{Text: trim(v, 2)})
		}
		p.Numbers.Rows = append(p.Numbers.Rows, row)
	}
	p.Rules.label()
	p.Numbers.label()
	return p
}
