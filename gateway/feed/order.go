package feed

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"

	"github.com/kidoban/kidoban/rules"
)

const (
	sortWithin = 5 * time.Minute
	maxHeld    = 16_384 // attempts; a busier log is sorted within fewer minutes
	// maxWait is how many attempts later one is returned at the latest. Most of these had
	// earlier times, so its own is wrong.
	maxWait = 4 * maxHeld
)

// buffer puts attempts into the order of time. One that comes more than 5 minutes too
// late, and one whose time lies far behind all that follow, are taken as at the time of
// the attempt that was returned last.
type buffer struct {
	held   attempts
	newest time.Time // of all that are held or were returned
	before time.Time // of the attempt added last
	last   time.Time // of the attempt returned last
	added  uint64
	looked uint64 // what added was when the waiting were looked at
}

func (b *buffer) add(a *Attempt) {
	heap.Push(&b.held, a)
	b.added, b.before = a.Number, a.Event.Time
	if a.Event.Time.After(b.newest) {
		b.newest = a.Event.Time
	}
}

// unknown is what a time that is not known is taken for: that of the attempt before.
func (b *buffer) unknown() time.Time {
	if b.before.IsZero() {
		return time.Unix(0, 0)
	}
	return b.before
}

// take returns the next attempt, or nil if more must be read first. Tell hears of
// times that are changed.
func (b *buffer) take(ended bool, tell func(line int, err error)) *Attempt {
	if len(b.held) == 0 {
		return nil
	}
	if b.added-b.looked >= maxHeld {
		if a := b.waiting(); a != nil {
			tell(a.Line, fmt.Errorf("%s lies far behind the lines that follow: taken as at %s", stamp(a.Event.Time), stamp(b.last)))
			a.at(b.last)
			return a
		}
		b.looked = b.added
	}
	if first := b.held[0].Event.Time; !ended && len(b.held) <= maxHeld && first.After(b.newest.Add(-sortWithin)) {
		return nil
	}
	a := heap.Pop(&b.held).(*Attempt)
	if a.Event.Time.Before(b.last) {
		tell(a.Line, fmt.Errorf("%s is before what was read already: taken as at %s", stamp(a.Event.Time), stamp(b.last)))
		a.at(b.last)
	}
	b.last = a.Event.Time
	return a
}

// waiting removes and returns an attempt that waits for too long, if there is one.
func (b *buffer) waiting() *Attempt {
	i := slices.IndexFunc(b.held, func(a *Attempt) bool {
		return b.added-a.Number > maxWait && a.Event.Time.After(b.last)
	})
	if i < 0 {
		return nil
	}
	old := heap.Remove(&b.held, i).(*Attempt)
	b.newest = b.last
	for _, a := range b.held {
		if a.Event.Time.After(b.newest) {
			b.newest = a.Event.Time
		}
	}
	return old
}

// at is when a happened, by the clock of its zone too.
func (a *Attempt) at(t time.Time) {
	a.Event.Time, a.Event.StreamTime, a.Event.Offset = t, t, rules.Ahead(a.zone, t)
}

// attempts is a heap, the earliest first.
type attempts []*Attempt

func (h attempts) Len() int { return len(h) }
func (h attempts) Less(i, j int) bool {
	return cmp.Or(h[i].Event.Time.Compare(h[j].Event.Time), cmp.Compare(h[i].Number, h[j].Number)) < 0
}
func (h attempts) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *attempts) Push(x any)   { *h = append(*h, x.(*Attempt)) }
func (h *attempts) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}
