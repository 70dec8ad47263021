package simulate

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// The columns of a table, 100 in all with four other defenses.
const (
	labelColumns  = 32
	figureColumns = 11
	textColumns   = 100
)

// WriteTable writes r as plain text: what was run, the targets, and a table for each
// scenario with other defenses beside the shipped one. Where one of them does better,
// the row has a star and the lines below say why. Its lines have at most 100 columns
// with up to four other defenses.
func (r *Report) WriteTable(out io.Writer, language string) error {
	b := bufio.NewWriter(out)
	w, g := wordsOf(language), r.read()
	fmt.Fprintf(b, "%s\n\n", w.say["heading"])
	for _, fact := range g.facts(w) {
		fmt.Fprintf(b, "%s  %s\n", pad(fact[0], 16), fact[1])
	}
	if r.scaled() {
		fmt.Fprintf(b, "\n%s\n", w.say["scaled"])
	}

	judged := g.Judge()
	met, missed, notRun := tally(judged)
	fmt.Fprintf(b, "\n%s: "+w.say["count targets"]+"\n\n", w.say["targets"], met, missed, notRun)
	if met+missed > 0 {
		fmt.Fprintln(b, strings.Repeat(" ", 10+16+labelColumns)+left(w.say["limit"], 18)+left(w.say["worst"], 11)+left(w.say["median"], 11))
	}
	var idle []string
	for _, j := range bySeverity(judged) {
		if j.Verdict == NotRun {
			idle = append(idle, j.Scenario+" "+w.metric(j.Metric)+" "+w.both(j.Target))
			continue
		}
		unit := measures[j.Metric].unit
		fmt.Fprintln(b, pad(w.say[string(j.Verdict)], 10)+pad(j.Scenario, 12)+pad(w.metric(j.Metric), labelColumns+4)+
			left(w.both(j.Target), 18)+left(w.number(unit, j.Joined.Worst.Value), 11)+left(w.number(unit, j.Joined.Median), 11))
	}
	if len(idle) > 0 {
		fmt.Fprintln(b)
		for _, line := range wrap(w.say["not_run"]+": "+strings.Join(idle, "; "), textColumns) {
			fmt.Fprintln(b, line)
		}
	}

	r.Thresholds.table(b, w)

	beaten := g.beaten()
	last := variant{}
	for _, v := range g.variants {
		if v.Scenario != last.Scenario {
			fmt.Fprintf(b, "\n\n%s\n", strings.TrimRight(v.Scenario+"  "+w.title(v.Scenario, r.Titles), " "))
		}
		if ours := (variant{v.Scenario, v.Form, r.Defense, v.Drawn}); v.Scenario != last.Scenario || v.Form != last.Form || v.Drawn != last.Drawn {
			g.table(b, w, ours, beaten)
		}
		last = v
	}
	return b.Flush()
}

// facts say what the figures are of.
func (g *reading) facts(w lexicon) [][2]string {
	spread := w.say["no spread"]
	if g.Spread != 0 {
		spread = "±" + trim(g.Spread*100, 0) + "%"
	}
	facts := [][2]string{
		{w.say["scenario files"], g.Scenarios}, {w.say["rule pack"], g.Rules},
		{w.say["seeds"], seedText(g.Seeds)}, {w.say["spread"], spread}, {w.say["scale"], trim(cmp.Or(g.Scale, 1), 3)},
	}
	if !g.Made.IsZero() {
		facts = append(facts, [2]string{w.say["made"], g.Made.UTC().Format("2006-01-02 15:04 UTC")})
	}
	return facts
}

func (r *Report) scaled() bool { return cmp.Or(r.Scale, 1) != 1 }

// bySeverity puts what was missed first, and what was not run last.
func bySeverity(all []Judged) []Judged {
	sorted := slices.Clone(all)
	rank := map[Verdict]int{Missed: 0, Met: 1, NotRun: 2}
	slices.SortStableFunc(sorted, func(a, b Judged) int { return rank[a.Verdict] - rank[b.Verdict] })
	return sorted
}

// table writes one variant: metrics down, defenses across.
func (g *reading) table(b io.Writer, w lexicon, ours variant, beaten []Beaten) {
	head := strings.Repeat(" ", labelColumns)
	var columns []variant
	for _, d := range g.defenses {
		v := ours
		v.Defense = d
		if len(g.runs[v]) == 0 {
			continue
		}
		columns = append(columns, v)
		head += left(w.defense(d), figureColumns)
		if d == g.Defense {
			head += left(w.say["median"], figureColumns)
		}
	}
	if len(columns) == 0 {
		return
	}
	fmt.Fprintf(b, "\n  %s\n%s\n", w.form(ours, g.Spread), head)
	var notes []note
	for _, m := range metricOrder {
		if !g.shown(ours.Scenario, m) {
			continue
		}
		cells, any := "", false
		for _, v := range columns {
			worst, median := "-", "-"
			if j, ok := g.figure(v, m); ok {
				any = true
				worst, median = w.number(measures[m].unit, j.Worst.Value), w.number(measures[m].unit, j.Median)
			}
			cells += left(worst, figureColumns)
			if v.Defense == g.Defense {
				cells += left(median, figureColumns)
			}
		}
		if !any {
			continue
		}
		mark := "  "
		for _, x := range beaten {
			if ours.Drawn || x.Scenario != ours.Scenario || x.Form != ours.Form || x.Metric != m {
				continue
			}
			mark = "* "
			n := note{[]string{w.defense(x.By)}, w.metric(m), w.because(x)}
			if last := len(notes) - 1; last >= 0 && notes[last].metric == n.metric && notes[last].why == n.why {
				notes[last].by = append(notes[last].by, n.by...)
			} else {
				notes = append(notes, n)
			}
		}
		fmt.Fprintln(b, pad(mark+w.metrics[m], labelColumns)+cells)
	}
	for _, n := range notes {
		text := fmt.Sprintf(w.say["beaten mark"], strings.Join(n.by, w.say["list"]), n.metric, n.why)
		for i, line := range wrap(text, textColumns-4) {
			fmt.Fprintln(b, []string{"  * ", "    "}[min(i, 1)]+line)
		}
	}
}

// note says why others are better in a metric.
type note struct {
	by          []string
	metric, why string
}

// columnsOf is how wide a terminal shows s: two columns for what is east of Latin.
func columnsOf(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r >= 0x1100 && r != '∞' && (r < 0x2000 || r > 0x2bff) {
			n++
		}
	}
	return n
}

// pad fills s up on the right; left on the left. What is too long stays so, with a
// space.
func pad(s string, columns int) string {
	return s + strings.Repeat(" ", max(1, columns-columnsOf(s)))
}

func left(s string, columns int) string {
	return strings.Repeat(" ", max(1, columns-columnsOf(s))) + s
}

// wrap breaks s into lines at spaces, and inside a run without spaces where it must.
func wrap(s string, columns int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && columnsOf(line)+1+columnsOf(word) > columns {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		for _, r := range word {
			if columnsOf(line)+columnsOf(string(r)) > columns {
				lines = append(lines, line)
				line = ""
			}
			line += string(r)
		}
	}
	return append(lines, line)
}
