package rules

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/kidoban/kidoban/detectors"
)

// Limits bound what the counters of a [Set] may take of memory, in bytes. Each
// counter has an equal share of half of Total to itself; the other half is for those
// that need more, up to Counter each. Zero is the default.
//
// A counter that is full lets go of keys whose window is over. Where that makes no
// room, new keys with a source field, and those that grow, are counted under a wider
// one: the network of an address, its /24 or /48, its autonomous system, then all
// sources in one; other fields stay as they are. When there is room again they are
// counted under their own. Whoever asks about a key that may have been counted under a
// wider one hears of both together, until that is over: counts become too high and
// never too low. An eighth of the limits is kept for wider keys. Of keys without a
// source field, and where even the widest have no room, the one idle longest goes.
type Limits struct {
	Counter int64 // 64 MiB, or Total if that is less; 64 KiB to Total
	Total   int64 // 256 MiB; 1 MiB to 64 GiB
}

const (
	defaultCounter, leastCounter = 64 << 20, 64 << 10
	defaultTotal, leastTotal     = 256 << 20, 1 << 20
	mostTotal                    = 64 << 30

	// keyBytes is what a key takes beside its window: the tally, and its place among
	// the counter's keys.
	keyBytes = 64 + 32
)

// Validate tells which of l is out of its range.
func (l Limits) Validate() error {
	total := cmp.Or(l.Total, defaultTotal)
	if total < leastTotal || total > mostTotal {
		return fmt.Errorf("total: %d bytes, want %d (1 MiB) to %d (64 GiB)", l.Total, leastTotal, mostTotal)
	}
	if l.Counter != 0 && (l.Counter < leastCounter || l.Counter > total) {
		return fmt.Errorf("counter: %d bytes, want %d (64 KiB) to %d, the total", l.Counter, leastCounter, total)
	}
	return nil
}

// Limit sets what the counters of s may take; what is too little is the least. Call it before the first Observe and
// before Adopt and Restore; unless called, the defaults hold.
func (s *Set) Limit(l Limits) {
	l.Total = max(cmp.Or(l.Total, defaultTotal), leastTotal)
	l.Counter = max(cmp.Or(l.Counter, min(defaultCounter, l.Total)), leastCounter)
	s.limits = l
	s.pool = &pool{size: l.Total / 2}
	for _, c := range s.order {
		c.settle(s.room())
	}
}

// room is what each counter of s may take.
func (s *Set) room() room {
	own := s.limits.Total / 2 / int64(max(len(s.order), 1))
	return room{limit: s.limits.Counter, own: min(own, s.limits.Counter), pool: s.pool}
}

// Memory is what the counters of a set take and may take, in bytes.
type Memory struct {
	Bytes    int64   `json:"bytes"`
	Limit    int64   `json:"limit"`
	Counters []Usage `json:"counters"` // in no particular order, but always the same
}

// Usage is what one counter takes. Late and Forgotten count since the process started.
type Usage struct {
	Counter   Counter `json:"counter"`
	Rules     []ID    `json:"rules"` // that use it
	Keys      int     `json:"keys"`
	Widened   int     `json:"widened"` // of them, those that stand for several because there was no room
	Bytes     int64   `json:"bytes"`
	Limit     int64   `json:"limit"`
	Late      uint64  `json:"late"`      // events dropped because their pane had left the window
	Forgotten uint64  `json:"forgotten"` // keys that went before their window was over
}

// Memory tells what the counters take.
func (s *Set) Memory() Memory {
	m := Memory{Limit: s.limits.Total, Counters: make([]Usage, len(s.order))}
	for i, c := range s.order {
		m.Counters[i] = c.usage()
		m.Bytes += m.Counters[i].Bytes
	}
	for _, r := range s.rules {
		for _, at := range r.counters {
			if u := &m.Counters[at]; !slices.Contains(u.Rules, r.ID) {
				u.Rules = append(u.Rules, r.ID)
			}
		}
	}
	return m
}

func (c *counter) usage() Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Usage{Counter: c.Counter, Keys: len(c.keys), Widened: c.widened, Bytes: c.room.bytes, Limit: c.room.limit, Late: c.late, Forgotten: c.forgotten}
}

// pool is memory that the counters of a set share.
type pool struct {
	size int64
	used atomic.Int64
}

// room is what a counter takes of memory. The counter's lock guards it.
type room struct {
	limit, own int64 // own: taken before anything of the pool
	bytes      int64
	pool       *pool
}

// fits reports whether n bytes more may be taken for a key that is so many rungs wider
// than the counter's own; all: for the widest. Each rung may fill half of what the one
// before it leaves, an eighth at first.
func (r *room) fits(n int, wider rung, all bool) bool {
	limit, shared := r.limit, r.pool.size
	if !all {
		limit -= limit >> (3 + wider)
		shared -= shared >> (3 + wider)
	}
	after := r.bytes + int64(n)
	if after > limit {
		return false
	}
	return after <= r.own || r.pool.used.Load()+after-max(r.bytes, r.own) <= shared
}

func (r *room) take(n int) {
	before := max(r.bytes-r.own, 0)
	r.bytes += int64(n)
	r.pool.used.Add(max(r.bytes-r.own, 0) - before)
}

func (r *room) give(n int) { r.take(-n) }

// settle gives c another room, as after a reload, and forgets what does not fit.
func (c *counter) settle(r room) {
	c.mu.Lock()
	defer c.mu.Unlock()
	bytes := c.room.bytes
	c.room.leave()
	c.room = r
	c.room.take(int(bytes))
	c.shrinkLocked()
}

// leave gives the pool back what was taken of it.
func (r *room) leave() {
	if r.pool != nil {
		r.take(-int(r.bytes))
	}
}

// shrinkLocked forgets the keys idle longest until the rest fits.
func (c *counter) shrinkLocked() {
	for c.oldest != c.newest && !c.room.fits(0, 0, true) {
		c.forgetLocked()
	}
}

func (c *counter) forgetLocked() {
	c.forgotten++
	c.drop(c.oldest)
}

// findLocked says where an event of a key is counted: under its own or, where there is
// no room for that, under a wider one; t is nil if that is yet to be made.
func (c *counter) findLocked(e *detectors.Event, key uint64, pane int64) (t *tally, where uint64, width rung) {
	for width = c.rung; ; {
		if t := c.keys[key]; t != nil {
			return t, key, width
		}
		if c.mayHold(width, pane) {
			return nil, key, width
		}
		next, ok := width.wider(e)
		if !ok {
			return nil, key, width
		}
		key, width = c.wideLocked(e, next), next
	}
}

// wideLocked is the key of e that is so wide.
func (c *counter) wideLocked(e *detectors.Event, width rung) uint64 {
	var space [keyRoom]byte
	key, _ := c.keyOf(e, width, space[:0])
	return c.hash.sum(key)
}

// widerLocked lists the wider keys of e whose windows are not over.
func (c *counter) widerLocked(e *detectors.Event, pane int64) (all []*tally) {
	if c.widened == 0 {
		return nil
	}
	for width, ok := c.rung.wider(e); ok; width, ok = width.wider(e) {
		if t := c.keys[c.wideLocked(e, width)]; t != nil && pane-t.head <= panes {
			all = append(all, t)
		}
	}
	return all
}

// seenLocked is what is known of a key of e, with its newest pane: all that was counted
// under it, and under wider ones if some of that may be the key's.
func (c *counter) seenLocked(e *detectors.Event, key uint64, pane int64) (w window, head int64, ok bool) {
	t := c.keys[key]
	if t != nil && !t.mixed {
		return t.window, t.head, pane-t.head <= panes
	}
	all := c.widerLocked(e, pane)
	if t != nil && pane-t.head <= panes {
		all = append(all, t)
	}
	switch len(all) {
	case 0:
		return nil, 0, false
	case 1:
		return all[0].window, all[0].head, true
	}
	slices.SortFunc(all, func(a, b *tally) int { return cmp.Compare(a.head, b.head) })
	w, head = c.newWindow(), all[0].head
	for _, t := range all {
		if t.head > head {
			w.move(head, t.head)
			head = t.head
		}
		w.merge(head, t.window)
	}
	return w, head, true
}

// newKeyBytes is at least what a new key takes, whatever is counted.
const newKeyBytes = keyBytes + 144

// mayHold reports whether there is room for a new key, or a key whose window is over
// can go for it.
func (c *counter) mayHold(width rung, pane int64) bool {
	return c.fits(newKeyBytes, width) || c.oldest != nil && c.oldest.head < pane-panes
}

func (c *counter) fits(n int, width rung) bool {
	return c.room.fits(n, width-c.rung, width == everyone)
}

// makeRoom makes some for a new key, which mayHold said there is, or which is of the
// widest.
func (c *counter) makeRoom(width rung, pane int64) {
	for !c.fits(newKeyBytes, width) && c.oldest != nil && c.oldest.head < pane-panes {
		c.drop(c.oldest)
	}
	for width == everyone && !c.fits(newKeyBytes, width) && c.oldest != nil {
		c.forgetLocked()
	}
}

// grownLocked takes room for what t grew by, which may be negative. Where there is
// none, t becomes part of a wider key.
func (c *counter) grownLocked(e *detectors.Event, t *tally, by int) {
	if by == 0 {
		return
	}
	c.room.take(by)
	for by > 0 && !c.fits(0, t.rung) {
		if c.oldest != t && c.oldest.head < t.head-panes {
			c.drop(c.oldest)
			continue
		}
		next, ok := t.rung.wider(e)
		if !ok {
			if c.oldest == t {
				return // one key is always kept; it is bounded by itself
			}
			c.forgetLocked()
			continue
		}
		t, by = c.mergeLocked(t, c.wideLocked(e, next), next)
	}
}

// mergeLocked makes t part of a wider key, which it returns with what that grew by.
func (c *counter) mergeLocked(t *tally, key uint64, width rung) (wide *tally, grown int) {
	c.drop(t)
	if wide = c.keys[key]; wide == nil {
		wide = c.makeLocked(key, width, t.head)
	} else {
		c.touch(wide)
	}
	before := wide.bytes()
	head := max(t.head, wide.head)
	for _, w := range []*tally{t, wide} {
		if w.head < head {
			w.move(w.head, head)
			w.head = head
		}
	}
	wide.merge(head, t.window)
	grown = wide.bytes() - before
	c.room.take(grown)
	return wide, max(grown, 1)
}
