package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/width"

	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/policies"
)

// view shows how a demo goes: on a terminal in a line that is written over, else a
// line now and then.
type view struct {
	w     io.Writer
	live  bool
	words phrasebook
	last  int // columns of the line to write over
}

func newView(w io.Writer, words phrasebook) *view {
	v := &view{w: w, words: words}
	if f, ok := w.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		v.live = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return v
}

// say writes a line.
func (v *view) say(line string) { fmt.Fprintln(v.w, line) }

// watch shows progress until the returned function is called, which writes where
// it ended.
func (v *view) watch(title string, p *simulate.Progress, pairs, people int) (stop func()) {
	every := 5 * time.Second
	if v.live {
		every = 250 * time.Millisecond
	}
	line := func() string {
		return fmt.Sprintf(v.words.progress, title, number(p.Attempts.Load()), number(int64(pairs)), number(p.Stopped.Load()), number(p.Hits.Load()),
			number(p.Logins.Load()), number(int64(people)), number(p.Harmed.Load()))
	}
	done := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				v.show(line(), false)
			case <-done:
				v.show(line(), true)
				return
			}
		}
	})
	return func() {
		close(done)
		shown.Wait()
	}
}

func (v *view) show(line string, final bool) {
	if !v.live {
		v.say(line)
		return
	}
	wide := columns(line)
	fmt.Fprint(v.w, "\r"+line+strings.Repeat(" ", max(0, v.last-wide)))
	v.last = wide
	if final {
		fmt.Fprintln(v.w)
		v.last = 0
	}
}

// writeScore writes the closing table and what the gate has to say of it.
func writeScore(w io.Writer, words phrasebook, s attackScore, observed bool, ledger []policies.LedgerRow) error {
	passes := []simulate.Score{s.Unprotected, s.Passes.Established, s.Passes.FirstDay}
	row := func(name string, figure func(simulate.Score) int) []string {
		cells := []string{name}
		for _, p := range passes {
			cells = append(cells, number(int64(figure(p))))
		}
		return cells
	}
	first := []string{words.first}
	for _, p := range passes {
		cell := words.never
		if p.Attack.FirstAction != nil {
			cell = number(int64(*p.Attack.FirstAction))
		}
		first = append(first, cell)
	}
	table := [][]string{
		append([]string{words.attack}, words.heads...),
		row(words.attempts, func(s simulate.Score) int { return s.Attack.Attempts }),
		row(words.reached, func(s simulate.Score) int { return s.Attack.ReachedBackend }),
		row(words.lost, func(s simulate.Score) int { return s.Attack.AccountsLost }),
		first,
		{words.office, "", "", ""},
		row(words.logins, func(s simulate.Score) int { return s.Benign.Logins }),
		row(words.refused, func(s simulate.Score) int { return s.Benign.Refused }),
		row(words.steppedUp, func(s simulate.Score) int { return s.Benign.SteppedUp }),
		row(words.delayed, func(s simulate.Score) int { return s.Benign.DelayedOver1s }),
		row(words.deceived, func(s simulate.Score) int { return s.Benign.Deceived }),
	}
	var widths [4]int
	for _, cells := range table {
		for i, c := range cells {
			widths[i] = max(widths[i], columns(c))
		}
	}
	var b strings.Builder
	b.WriteByte('\n')
	for _, cells := range table {
		var line strings.Builder
		for i, c := range cells {
			pad := strings.Repeat(" ", widths[i]-columns(c))
			if i == 0 {
				line.WriteString(c + pad)
			} else {
				line.WriteString("  " + pad + c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	b.WriteString("\n" + words.closing(s, observed) + "\n")
	b.WriteString("\n" + words.reported + "\n\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return policies.WriteReport(w, ledger)
}

// columns is how wide a terminal shows s.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n++
		if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
			n++
		}
	}
	return n
}

// number writes 10000 as 10,000.
func number(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
