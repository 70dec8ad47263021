package replay

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	textColumns = 100
	ruleColumns = 38
	shownMax    = 5 // examples of each kind
)

// WriteTable writes r as plain text in one of [Languages]: what was replayed, what each
// rule hits, a chart, and how log-ins would be answered. Lines of figures have at most
// 100 columns.
func (r *Report) WriteTable(out io.Writer, language string) error {
	b := bufio.NewWriter(out)
	w := wordsOf(language)
	fact := func(name, text string) { fmt.Fprintf(b, "%s%s\n", pad(w[name], 16), text) }
	fact("events", r.Events)
	if r.Counted > 0 {
		fact("time", fmt.Sprintf(w["span"], stamp(r.From), stamp(r.To)))
	}
	fact("count", fmt.Sprintf(w["counted"], thousands(r.Counted), thousands(r.Read)))
	if r.Summed > 0 || r.Denials > 0 {
		fact("sums", fmt.Sprintf(w["summed"], thousands(r.Summed), thousands(r.Denials)))
	}
	if r.Unreadable > 0 || r.Doubtful > 0 || r.Other > 0 {
		fact("left out", fmt.Sprintf(w["unread"], r.Unreadable, r.Other, r.Doubtful))
	}
	fact("OLD", r.Old)
	fact("NEW", r.New)

	differ := 0
	for _, rule := range r.Rules {
		if rule.Change != Same {
			differ++
		}
	}
	fmt.Fprintf(b, "\n%s%s%s%s%s\n", pad(fmt.Sprintf(w["rules"], differ, len(r.Rules)-differ), ruleColumns+9), left("OLD", 10), left("NEW", 10), left(w["gained"], 10), left(w["lost"], 10))
	same := [2]uint64{}
	for _, rule := range r.Rules {
		if rule.Change == Same {
			same[0] += rule.Old
			same[1] += rule.New
			continue
		}
		mode := string(rule.NewMode)
		if rule.OldMode != "" && rule.OldMode != rule.NewMode {
			mode = strings.TrimSuffix(string(rule.OldMode)+" → "+mode, " → ")
		}
		fmt.Fprintf(b, "%s%s%s%s%s%s\n", pad("  "+string(rule.Rule), ruleColumns), pad(w[string(rule.Change)], 9),
			left(thousands(rule.Old), 10), left(thousands(rule.New), 10), left(thousands(rule.Gained.Events), 10), left(thousands(rule.Lost.Events), 10))
		if mode != "" {
			fmt.Fprintf(b, "    %s: %s\n", w["mode"], mode)
		}
		if rule.OldExempted+rule.NewExempted > 0 {
			fmt.Fprintf(b, "    %s: %s → %s\n", w["exempted"], thousands(rule.OldExempted), thousands(rule.NewExempted))
		}
		if rule.OldFellBack+rule.NewFellBack > 0 {
			fmt.Fprintf(b, "    %s: %s → %s\n", w["fell back"], thousands(rule.OldFellBack), thousands(rule.NewFellBack))
		}
		w.group(b, "all", rule.All)
		if rule.Change == Changed {
			w.group(b, "gained", rule.Gained)
			w.group(b, "lost", rule.Lost)
		}
	}
	if n := len(r.Rules) - differ; n > 0 {
		fmt.Fprintf(b, "%s%s%s\n", pad("  "+fmt.Sprintf(w["the same"], n), ruleColumns+9), left(thousands(same[0]), 10), left(thousands(same[1]), 10))
	}
	if differ > 0 {
		fmt.Fprintf(b, "\n%s\n", w["any"])
		w.group(b, "gained", &r.Gained)
		w.group(b, "lost", &r.Lost)
		r.chart(b, w)
	}

	fmt.Fprintf(b, "\n%s\n", w["answers"])
	any := false
	for _, a := range r.Answers {
		if a.Old != a.New {
			any = true
			fmt.Fprintf(b, "%s%s\n", pad(fmt.Sprintf("  %s → %s", a.Old, a.New), ruleColumns), left(thousands(a.Events), 10))
		}
	}
	if !any {
		fmt.Fprintf(b, "  %s\n", w["no answer"])
	}
	w.group(b, "stricter", &r.Stricter)
	w.group(b, "milder", &r.Milder)
	r.examples(b, w, "first gained", r.Examples.Gained)
	r.examples(b, w, "first lost", r.Examples.Lost)
	for _, fault := range r.Errors {
		fmt.Fprintf(b, "\n%s %s\n", w["error"], printable(fault))
	}
	fmt.Fprintln(b)
	for _, line := range wrap(w["benign means"], textColumns) {
		fmt.Fprintln(b, line)
	}
	return b.Flush()
}

// group writes whom events are about, in two lines at most; of none nothing.
func (w words) group(b io.Writer, name string, g *Group) {
	if g == nil || g.Events == 0 {
		return
	}
	fmt.Fprintf(b, "    %s: "+w["touched"]+"\n", w[name], thousands(g.Events), g.Names, g.Accounts, g.Organizations)
	e := g.Benign
	if e.Of == 0 {
		return
	}
	fmt.Fprintf(b, "      "+w["proved"], thousands(e.Benign), thousands(e.Of), percent(e.Share), percent(e.Low), percent(e.High))
	if e.Open > 0 {
		fmt.Fprintf(b, w["open"], thousands(e.Open))
	}
	fmt.Fprintln(b)
}

// chart draws hits by time: a column is a bin, and both rows have one scale.
func (r *Report) chart(b io.Writer, w words) {
	if len(r.Bins) == 0 {
		return
	}
	most, events := uint64(0), uint64(0)
	for _, bin := range r.Bins {
		most = max(most, bin.Old, bin.New)
		events = max(events, bin.Events)
	}
	width := time.Duration(r.Width) * time.Second
	fmt.Fprintf(b, "\n%s\n", fmt.Sprintf(w["chart"], span(width, w)))
	row := func(name string, scale uint64, of func(Bin) uint64) {
		line := ""
		for _, bin := range r.Bins {
			line += bar(of(bin), scale)
		}
		fmt.Fprintf(b, "  %s%s  %s\n", pad(name, 10), line, fmt.Sprintf(w["at most"], thousands(scale)))
	}
	row(w["events"], events, func(b Bin) uint64 { return b.Events })
	row("OLD", most, func(b Bin) uint64 { return b.Old })
	row("NEW", most, func(b Bin) uint64 { return b.New })
	first, last := stamp(r.Bins[0].From), stamp(r.Bins[len(r.Bins)-1].From.Add(width))
	fmt.Fprintf(b, "%s%s%s\n", strings.Repeat(" ", 12), first, left(last, max(len(r.Bins)-len(first), len(last)+2)))
}

// bar is n of most in eighths of a line; what is more than nothing shows.
func bar(n, most uint64) string {
	if n == 0 {
		return "·"
	}
	levels := []rune("▁▂▃▄▅▆▇█")
	return string(levels[min(uint64(len(levels))-1, (n*uint64(len(levels))-1)/max(most, 1))])
}

func (r *Report) examples(b io.Writer, w words, name string, all []Example) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", w[name])
	for _, x := range all[:min(len(all), shownMax)] {
		who := x.Name
		if x.Account != "" {
			who += " (" + string(x.Account) + ")"
		}
		fmt.Fprintf(b, "  %s  %s  %s  %s\n    %s\n", stamp(x.Time), printable(x.Network), printable(who), x.Outcome, printable(x.Why))
	}
}

// String writes n for people; ~ where it is estimated.
func (n Number) String() string {
	if n.Exact {
		return thousands(n.N)
	}
	return "~" + thousands(n.N)
}

func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func percent(v float64) string {
	digits := 1
	if v > 0 && v < 0.01 || v > 0.99 && v < 1 {
		digits = 2
	}
	return strconv.FormatFloat(v*100, 'f', digits, 64) + "%"
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

// span writes the width of a bin.
func span(d time.Duration, w words) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= u.unit {
			return fmt.Sprintf(w[u.name], d/u.unit)
		}
	}
	return fmt.Sprintf(w["seconds"], d/time.Second)
}

// printable writes what a terminal might obey as escapes.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// columnsOf is how wide a terminal shows s: two columns for what is east of Latin.
func columnsOf(s string) (n int) {
	for _, r := range s {
		n++
		if r >= 0x1100 && (r < 0x2000 || r > 0x2bff) {
			n++
		}
	}
	return n
}

// pad fills s up on the right; left on the left.
func pad(s string, columns int) string {
	return s + strings.Repeat(" ", max(1, columns-columnsOf(s)))
}

func left(s string, columns int) string {
	return strings.Repeat(" ", max(1, columns-columnsOf(s))) + s
}

// wrap breaks s into lines at spaces, and inside a run without spaces where it must.
func wrap(s string, columns int) (lines []string) {
	line, used := "", 0
	for word := range strings.FieldsSeq(s) {
		n := columnsOf(word)
		if used > 0 && used+1+n > columns {
			lines = append(lines, line)
			line, used = "", 0
		}
		if used > 0 {
			line += " "
			used++
		}
		for _, r := range word {
			if n := columnsOf(string(r)); used+n > columns {
				lines = append(lines, line)
				line, used = "", 0
			}
			line += string(r)
			used += columnsOf(string(r))
		}
	}
	return append(lines, line)
}
