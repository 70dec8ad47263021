package stream

import (
	"testing"

	"pgregory.net/rapid"
)

// TestLife compares the account of a life with one that keeps each sequence.
func TestLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const through = 40
		l := &life{through: through}
		var settled, counted [through + 2]bool // sent or lost; and lost
		top := uint64(0)
		sequence := rapid.Uint64Range(1, through)
		t.Repeat(map[string]func(*rapid.T){
			"lose": func(t *rapid.T) {
				lo, hi := max(sequence.Draw(t, "lo"), l.sent+1), sequence.Draw(t, "hi")
				want := uint64(0)
				for seq := lo; seq <= hi; seq++ {
					if !counted[seq] && seq > top {
						want++
					}
					settled[seq], counted[seq] = true, true
				}
				if got := l.lose(lo, hi); got != want {
					t.Fatalf("%d to %d: %d are lost, want %d", lo, hi, got, want)
				}
			},
			"send": func(t *rapid.T) {
				hi := min(l.sent+uint64(rapid.IntRange(1, 5).Draw(t, "n")), through)
				for seq := l.sent + 1; seq <= hi; seq++ {
					settled[seq] = true
				}
				l.sent = max(l.sent, hi)
				l.settle()
			},
			"settle": func(*rapid.T) { l.settle() },
			"rewind": func(t *rapid.T) {
				l.settle()
				top = max(top, l.sent)
				to := rapid.Uint64Range(0, through).Draw(t, "to")
				for seq := to + 1; seq <= l.sent; seq++ {
					settled[seq], counted[seq] = false, false
				}
				l.rewind(to)
			},
			"": func(t *rapid.T) {
				for seq := l.sent + 1; seq <= through; seq++ {
					if l.lost(seq) != counted[seq] {
						t.Fatalf("%d is lost: %v", seq, l.lost(seq))
					}
				}
				want := uint64(0)
				for _, s := range settled[1 : through+1] {
					if !s {
						want++
					}
				}
				if got := l.unsent(through); got != want {
					t.Fatalf("%d are unsent, want %d: %+v", got, want, l)
				}
				top = max(top, l.top)
			},
		})
	})
}
