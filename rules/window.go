package rules

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

const panes = 16 // a window is kept in 16 panes and the one that is leaving

// window is what one key of a counter keeps. Whoever owns it knows the number of its
// newest pane, head; it holds nothing older than head-panes.
type window interface {
	// add counts x in a pane from head-panes to head.
	add(head, pane int64, x sample)
	// move makes to the newest pane instead of head, and forgets what leaves.
	move(head, to int64)
	// value is the count in the panes from head-old to head; elapsed is how much of
	// the newest of 16 panes that end later by panes-old has passed, 0 to 1.
	value(head, old int64, elapsed float64) float64
	// merge adds all of other, which is of the same kind and has the same head.
	merge(head int64, other window)
	// bytes is what it takes in memory.
	bytes() int
	// write appends it for a snapshot; read is its inverse, for an empty one.
	write(head int64, b []byte) []byte
	read(head int64, c *snapshot.Cursor)
}

// sample is what a window may count of one event.
type sample struct {
	value  uint64 // hash of the field whose different values are counted
	amount uint64 // to be added up
	holds  bool   // whether the condition of a ratio holds
}

// newWindow is an empty window of the kind that c counts in.
func (c Counter) newWindow() window {
	switch {
	case c.Distinct != "":
		return &members{}
	case c.Sum != "":
		return &sums{}
	case c.Ratio != "":
		return &shares{}
	case c.Change:
		return &growth{}
	}
	return &events{}
}

// ring is a number per pane, by the number of the pane modulo its length. Numbers
// stay at their largest value.
type ring[N uint32 | uint64] [panes + 1]N

func at(pane int64) int { return int((pane%(panes+1) + panes + 1) % (panes + 1)) }

func (r *ring[N]) add(pane int64, n N) {
	if i := at(pane); r[i]+n >= r[i] {
		r[i] += n
	} else {
		r[i] = ^N(0)
	}
}

func (r *ring[N]) move(head, to int64) {
	for p := max(head, to-panes-1) + 1; p <= to; p++ {
		r[at(p)] = 0
	}
}

// sum adds up the panes from one to another.
func (r *ring[N]) sum(from, to int64) (n float64) {
	if to-from == panes {
		for _, of := range r {
			n += float64(of)
		}
		return n
	}
	for p := from; p <= to; p++ {
		n += float64(r[at(p)])
	}
	return n
}

func (r *ring[N]) merge(other *ring[N]) {
	for i, n := range other {
		r.add(int64(i), n)
	}
}

// write appends which panes are not empty, and those.
func (r *ring[N]) write(b []byte) []byte {
	used := uint32(0)
	for i, n := range r {
		if n > 0 {
			used |= 1 << i
		}
	}
	b = binary.BigEndian.AppendUint32(b, used)
	for _, n := range r {
		if n > 0 {
			b = binary.BigEndian.AppendUint64(b, uint64(n))
		}
	}
	return b
}

func (r *ring[N]) read(c *snapshot.Cursor) {
	used := c.Uint32()
	if used >= 1<<len(r) {
		c.Fail()
	}
	for i := range r {
		if used&(1<<i) == 0 {
			continue
		}
		n := c.Uint64()
		if n == 0 || n > uint64(^N(0)) {
			c.Fail()
		}
		r[i] = N(n)
	}
}

// events counts events.
type events struct{ ring[uint32] }

func (w *events) add(_, pane int64, _ sample)              { w.ring.add(pane, 1) }
func (w *events) value(head, old int64, _ float64) float64 { return w.sum(head-old, head) }
func (w *events) merge(_ int64, other window)              { w.ring.merge(&other.(*events).ring) }
func (*events) bytes() int                                 { return 80 }
func (w *events) write(_ int64, b []byte) []byte           { return w.ring.write(b) }
func (w *events) read(_ int64, c *snapshot.Cursor)         { w.ring.read(c) }

// sums adds up amounts.
type sums struct{ ring[uint64] }

func (w *sums) add(_, pane int64, x sample)              { w.ring.add(pane, x.amount) }
func (w *sums) value(head, old int64, _ float64) float64 { return w.sum(head-old, head) }
func (w *sums) merge(_ int64, other window)              { w.ring.merge(&other.(*sums).ring) }
func (*sums) bytes() int                                 { return 144 }
func (w *sums) write(_ int64, b []byte) []byte           { return w.ring.write(b) }
func (w *sums) read(_ int64, c *snapshot.Cursor)         { w.ring.read(c) }

// shares tells for which share of the events a condition holds.
type shares struct{ all, holding ring[uint32] }

func (w *shares) add(_, pane int64, x sample) {
	w.all.add(pane, 1)
	if x.holds {
		w.holding.add(pane, 1)
	}
}

func (w *shares) move(head, to int64) {
	w.all.move(head, to)
	w.holding.move(head, to)
}

func (w *shares) value(head, old int64, _ float64) float64 {
	return w.holding.sum(head-old, head) / max(w.all.sum(head-old, head), 1)
}

func (w *shares) merge(_ int64, other window) {
	w.all.merge(&other.(*shares).all)
	w.holding.merge(&other.(*shares).holding)
}

func (*shares) bytes() int { return 144 }

func (w *shares) write(_ int64, b []byte) []byte { return w.holding.write(w.all.write(b)) }

func (w *shares) read(_ int64, c *snapshot.Cursor) {
	w.all.read(c)
	w.holding.read(c)
	for i, n := range w.holding {
		if n > w.all[i] {
			c.Fail()
		}
	}
}

// growth compares the newest quarter of the window with the three before it: how many
// times as many events as is usual there come now. Fewer than one event per quarter
// are not taken for usual, or each first event would be infinite growth: what grows
// from nothing grows to as many times as there are events in the quarter. 1 is no
// change; 0 is that nothing came in the newest quarter. What passed of the newest pane
// is reckoned with, so that a steady stream gives 1 whenever one asks.
type growth struct{ ring[uint32] }

func (w *growth) add(_, pane int64, _ sample) { w.ring.add(pane, 1) }

func (w *growth) value(head, old int64, elapsed float64) float64 {
	const quarter = panes / 4
	// The window is asked to end later than head by panes-old.
	end := head + panes - old
	now := w.sum(end-quarter+1, min(end, head))
	before := w.sum(end-panes+1, min(end-quarter, head))
	usual := max(before/3, 1)
	return now / usual * quarter / (quarter - 1 + elapsed)
}

func (w *growth) merge(_ int64, other window)      { w.ring.merge(&other.(*growth).ring) }
func (*growth) bytes() int                         { return 80 }
func (w *growth) write(_ int64, b []byte) []byte   { return w.ring.write(b) }
func (w *growth) read(_ int64, c *snapshot.Cursor) { w.ring.read(c) }

// members counts different values: exactly up to 256 of them, then by estimate until
// the window is empty. A value is kept as its hash, but for the last bits, in whose
// place is the pane that saw it last, modulo 32.
type members struct {
	exact  []uint64 // sorted; nil from the moment on that there is a sketch
	sketch *hyperLogLog
}

const maxExact = 256

func (w *members) add(head, pane int64, x sample) {
	if w.sketch != nil {
		w.sketch.add(head, pane, x.value)
		return
	}
	packed := x.value&^paneMask | uint64(pane)&paneMask
	i, found := slices.BinarySearchFunc(w.exact, packed, func(have, want uint64) int {
		switch have, want = have&^paneMask, want&^paneMask; {
		case have < want:
			return -1
		case have > want:
			return 1
		}
		return 0
	})
	switch {
	case found && age(head, w.exact[i]) > head-pane:
		w.exact[i] = packed
	case found:
	case len(w.exact) < maxExact:
		if len(w.exact) == cap(w.exact) {
			w.exact = append(make([]uint64, 0, max(2, 2*len(w.exact))), w.exact...)
		}
		w.exact = slices.Insert(w.exact, i, packed)
	default:
		w.sketch = &hyperLogLog{}
		for _, v := range w.exact {
			w.sketch.add(head, head-age(head, v), v)
		}
		w.exact = nil
		w.sketch.add(head, pane, x.value)
	}
}

func (w *members) move(head, to int64) {
	if w.sketch != nil {
		if w.sketch.purge(head, to); w.sketch.counts == 0 {
			w.sketch = nil
		}
		return
	}
	w.exact = slices.DeleteFunc(w.exact, func(v uint64) bool { return age(head, v)+to-head > panes })
}

func (w *members) value(head, old int64, _ float64) float64 {
	if w.sketch != nil {
		return math.Round(w.sketch.value(head, old))
	}
	if old >= panes {
		return float64(len(w.exact))
	}
	n := 0
	for _, v := range w.exact {
		if age(head, v) <= old {
			n++
		}
	}
	return float64(n)
}

func (w *members) merge(head int64, other window) {
	o := other.(*members)
	for _, v := range o.exact {
		w.add(head, head-age(head, v), sample{value: v})
	}
	if o.sketch == nil {
		return
	}
	exact := w.exact
	if w.sketch == nil {
		w.sketch, w.exact = &hyperLogLog{}, nil
	}
	o.sketch.each(head, func(register int, rank uint16, old int64) { w.sketch.put(head, old, register, rank) })
	for _, v := range exact {
		w.sketch.add(head, head-age(head, v), v)
	}
}

func (w *members) bytes() int {
	n := 32 + 8*cap(w.exact)
	if w.sketch != nil {
		n += sketchBytes + w.sketch.size
	}
	return n
}

func (w *members) write(head int64, b []byte) []byte {
	if w.sketch == nil {
		b = binary.BigEndian.AppendUint16(b, uint16(len(w.exact)))
		for _, v := range w.exact {
			b = binary.BigEndian.AppendUint64(b, v)
		}
		return b
	}
	b = binary.BigEndian.AppendUint16(b, maxExact+1)
	b = binary.BigEndian.AppendUint16(b, uint16(w.sketch.counts))
	w.sketch.each(head, func(register int, rank uint16, old int64) {
		b = binary.BigEndian.AppendUint16(b, uint16(register))
		b = append(b, byte(rank), byte(old))
	})
	return b
}

func (w *members) read(head int64, c *snapshot.Cursor) {
	n := int(c.Uint16())
	if n <= maxExact {
		if c.Len() < 8*n {
			c.Fail()
			return
		}
		w.exact = make([]uint64, n)
		for i := range w.exact {
			v := c.Uint64()
			if age(head, v) > panes || i > 0 && v>>paneBits <= w.exact[i-1]>>paneBits {
				c.Fail()
			}
			w.exact[i] = v
		}
		return
	}
	n = int(c.Uint16())
	if n == 0 || n > registers*(panes+1) || c.Len() < 4*n {
		c.Fail()
		return
	}
	w.sketch = &hyperLogLog{}
	for i := range n {
		register, rank, old := int(c.Uint16()), c.Byte(), int64(c.Byte())
		if register >= registers || rank == 0 || rank > maxRank || old > panes {
			c.Fail()
			return
		}
		if w.sketch.put(head, old, register, uint16(rank)); w.sketch.counts != i+1 {
			c.Fail() // one that another covers is never kept
			return
		}
	}
}
