package stream

import (
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Vector says which events a node has delivered: what a snapshot of a subscriber's
// state is worth. It is ordered by node and incarnation and marshals to JSON.
type Vector []Seen

// Seen is what a node has of one life of a node: all sequences up to Through but
// those Missing.
type Seen struct {
	Node        string     `json:"node"`
	Incarnation uint64     `json:"incarnation"`
	Through     uint64     `json:"through"`
	Missing     []Interval `json:"missing,omitempty"` // ascending, apart from one another
}

// Interval is the sequences from Low to High, both included.
type Interval struct {
	Low  uint64 `json:"low"`
	High uint64 `json:"high"`
}

// Contains reports whether the event was delivered.
func (v Vector) Contains(key detectors.EventKey) bool {
	id := senderID{key.Node, key.Incarnation}
	i, found := slices.BinarySearchFunc(v, id, func(s Seen, id senderID) int {
		return senderID{s.Node, s.Incarnation}.compare(id)
	})
	if !found || key.Sequence > v[i].Through || key.Sequence == 0 {
		return false
	}
	for _, m := range v[i].Missing {
		if m.Low <= key.Sequence && key.Sequence <= m.High {
			return false
		}
	}
	return true
}

// mostGaps bounds what is remembered as missing of one sender; the oldest beyond
// are lost.
const mostGaps = 1024

// gap is a run of sequences that exist and have not come.
type gap struct {
	lo, hi   uint64
	noticed  time.Time // or when it last shrank
	ask      time.Time // not again before
	asked    uint64    // the highest sequence asked for
	attempts int
	gone     bool // its own node has it no more
	first    bool // from before this node knew the sender
	given    bool // up: counted as lost or skipped, filled all the same if it comes
}

func (g *gap) len() uint64 { return g.hi - g.lo + 1 }

// sender is what this node has of one life of a node.
type sender struct {
	through uint64
	gaps    []gap     // below through, ascending, apart
	last    time.Time // stream time of its latest event
}

// has reports whether seq has come.
func (s *sender) has(seq uint64) bool {
	if seq > s.through || seq == 0 {
		return false
	}
	i := s.find(seq)
	return i == len(s.gaps) || s.gaps[i].lo > seq
}

// all reports whether lo to hi have come.
func (s *sender) all(lo, hi uint64) bool {
	i := s.find(lo)
	return hi <= s.through && (i == len(s.gaps) || s.gaps[i].lo > hi)
}

// find is the first gap that ends at seq or later.
func (s *sender) find(seq uint64) int {
	i, _ := slices.BinarySearchFunc(s.gaps, seq, func(g gap, seq uint64) int {
		if g.hi < seq {
			return -1
		}
		return 1
	})
	return i
}

// know notes that sequences up to hi exist. first says that this node was not there
// when the sender began.
func (s *sender) know(hi uint64, now time.Time, first bool) {
	if hi <= s.through {
		return
	}
	first = first && s.through == 0
	g := gap{lo: s.through + 1, hi: hi, noticed: now, first: first}
	if n := len(s.gaps); n > 0 && s.gaps[n-1].hi == s.through && s.gaps[n-1].attempts == 0 && !s.gaps[n-1].given && s.gaps[n-1].first == first {
		s.gaps[n-1].hi = hi
	} else {
		s.gaps = append(s.gaps, g)
	}
	s.through = hi
}

// carve cuts gaps so that none lies across lo or hi, and returns those between.
func (s *sender) carve(lo, hi uint64) (from, to int) {
	cutAt := func(seq uint64) { // a gap begins at seq, if any holds it
		if i := s.find(seq); i < len(s.gaps) && s.gaps[i].lo < seq {
			left := s.gaps[i]
			left.hi = seq - 1
			s.gaps[i].lo = seq
			s.gaps = slices.Insert(s.gaps, i, left)
		}
	}
	cutAt(lo)
	cutAt(hi + 1)
	return s.find(lo), s.find(hi + 1)
}

// mark notes that lo to hi have come, and returns what that filled.
func (s *sender) mark(lo, hi uint64, now time.Time, first bool) (filled []gap) {
	if lo > s.through+1 {
		s.know(lo-1, now, first)
	}
	if lo <= s.through && len(s.gaps) > 0 {
		from, to := s.carve(lo, hi)
		if from < to {
			filled = slices.Clone(s.gaps[from:to])
			if to < len(s.gaps) && s.gaps[to].lo == hi+1 && filled[len(filled)-1].hi == hi {
				s.gaps[to].noticed = now // what is left of it moves
			}
			s.gaps = slices.Delete(s.gaps, from, to)
		}
	}
	s.through = max(s.through, hi)
	return filled
}

// floor is up to where nothing is awaited any more.
func (s *sender) floor() uint64 {
	for i := range s.gaps {
		if !s.gaps[i].given {
			return s.gaps[i].lo - 1
		}
	}
	return s.through
}

// missing counts the sequences that are awaited.
func (s *sender) missing() (n uint64) {
	for i := range s.gaps {
		if !s.gaps[i].given {
			n += s.gaps[i].len()
		}
	}
	return n
}

func (s *sender) seen(id senderID) Seen {
	seen := Seen{Node: id.node, Incarnation: id.incarnation, Through: s.through}
	for _, g := range s.gaps {
		if n := len(seen.Missing); n > 0 && seen.Missing[n-1].High+1 == g.lo {
			seen.Missing[n-1].High = g.hi
			continue
		}
		seen.Missing = append(seen.Missing, Interval{g.lo, g.hi})
	}
	return seen
}

// runs is what has come.
func (s *sender) runs() (list []Interval) {
	next := uint64(1)
	for _, g := range s.gaps {
		if g.lo > next {
			list = append(list, Interval{next, g.lo - 1})
		}
		next = g.hi + 1
	}
	if next <= s.through {
		list = append(list, Interval{next, s.through})
	}
	return list
}

// senders is a vector that is being kept.
type senders map[senderID]*sender

func (all senders) ids() []senderID {
	ids := make([]senderID, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, senderID.compare)
	return ids
}

func (all senders) vector() Vector {
	v := make(Vector, 0, len(all))
	for _, id := range all.ids() {
		v = append(v, all[id].seen(id))
	}
	return v
}

func (all senders) at(id senderID) *sender {
	s := all[id]
	if s == nil {
		s = new(sender)
		all[id] = s
	}
	return s
}

func sendersOf(v Vector) senders {
	all := make(senders, len(v))
	for _, seen := range v {
		s := &sender{through: seen.Through}
		for _, m := range seen.Missing {
			s.gaps = append(s.gaps, gap{lo: m.Low, hi: m.High})
		}
		all[senderID{seen.Node, seen.Incarnation}] = s
	}
	return all
}
