package stream

import "slices"

// life is how far the events of one life of this node are sent.
type life struct {
	incarnation uint64
	through     uint64     // the last of them
	sent        uint64     // up to here nothing is to be sent: Redis took it, or it is lost
	flying      uint64     // up to here it is on its way; 0: nothing is
	top         uint64     // the highest that sent ever was
	gone        []Interval // what is lost and counted above sent, ascending, apart
}

// lost reports whether a sequence is lost and counted.
func (l *life) lost(seq uint64) bool {
	for _, g := range l.gone {
		if g.Low <= seq && seq <= g.High {
			return true
		}
	}
	return false
}

// lose notes that lo to hi are lost, and returns how many of them are to be counted:
// those that are not yet, and that Redis never took.
func (l *life) lose(lo, hi uint64) (lost uint64) {
	if lo > hi {
		return 0
	}
	if from := max(lo, l.top+1); from <= hi {
		lost = hi - from + 1
	}
	all := Interval{lo, hi}
	kept := l.gone[:0]
	for _, g := range l.gone {
		if from, to := max(lo, g.Low, l.top+1), min(hi, g.High); from <= to {
			lost -= to - from + 1
		}
		if g.High+1 < all.Low || g.Low > all.High+1 {
			kept = append(kept, g)
			continue
		}
		all = Interval{min(all.Low, g.Low), max(all.High, g.High)}
	}
	i := 0
	for i < len(kept) && kept[i].Low < all.Low {
		i++
	}
	l.gone = slices.Insert(kept, i, all)
	return lost
}

// settle goes on over what is lost.
func (l *life) settle() {
	for len(l.gone) > 0 && l.gone[0].Low <= l.sent+1 {
		l.sent = max(l.sent, l.gone[0].High)
		l.gone = l.gone[1:]
	}
	l.top = max(l.top, l.sent)
}

// rewind goes back: what comes after may have to be sent again.
func (l *life) rewind(sent uint64) { l.sent = min(l.sent, sent) }

// unsent counts what is to be sent up to through.
func (l *life) unsent(through uint64) uint64 {
	if through <= l.sent {
		return 0
	}
	n := through - l.sent
	for _, g := range l.gone {
		n -= min(g.High, through) - g.Low + 1
	}
	return n
}
