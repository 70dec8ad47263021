package rules

import (
	"sync"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/kidoban/kidoban/detectors"
)

// counter counts what its [Counter] says per key in a sliding window of event time.
// The window is made of 16 panes: it holds everything of the last Within, and at most
// 1/16 of Within more. Different values are exact up to 256 per key, and estimated
// beyond with a standard error of 3.25%.
//
// An event that comes late counts in the pane of its own time, or not at all if that
// has left the window of its key. One that lacks one of the key's fields, or the field
// whose values are counted, is not counted, and a question about such a key is answered
// 0: all clients of unknown network operators are not one client.
//
// What it may take of memory is bounded; memory.go says what happens there.
//
// It is safe for concurrent use.
type counter struct {
	Counter
	where, ratio *expression // nil: every event; not a ratio
	pane         int64       // nanoseconds
	amount       func(*detectors.Event) ref.Val
	distinct     keyField   // whose different values are counted
	by           []keyField // none: one key
	rung         rung       // of the finest source field in by; everyone: there is none

	mu             sync.Mutex // guards all below
	hash           hashKey
	keys           map[uint64]*tally
	newest, oldest *tally  // of all keys, by the time they were last counted
	turn           uint64  // of the newest
	frozen         *freeze // while a snapshot is written, or nil; see snapshot.go
	room           room    // what may be taken, and is
	widened        int     // keys that are wider than By says
	late           uint64  // events that came after their pane had left the window
	forgotten      uint64  // keys that went before their window did
}

// tally is the state of one key.
type tally struct {
	window
	key          uint64
	turn         uint64 // grows from the oldest to the newest
	newer, older *tally
	head         int64 // number of the newest pane
	rung         rung  // how wide the key is
	mixed        bool  // some of what is its own may be counted under a wider key
}

func newCounter(spec Counter, where, ratio *expression) *counter {
	c := &counter{Counter: spec, where: where, ratio: ratio, pane: int64(spec.Within) / panes, rung: everyone,
		hash: newHashKey(), keys: map[uint64]*tally{}}
	if i, ok := variableIndex[spec.Sum]; ok {
		c.amount = variables[i].value
	}
	if spec.Distinct != "" {
		c.distinct = newKeyField(spec.Distinct)
	}
	for _, name := range spec.By {
		if name == "all" {
			continue
		}
		f := newKeyField(name)
		c.by, c.rung = append(c.by, f), min(c.rung, f.rung)
	}
	return c
}

// observe counts the event if it meets the counter's where. The error is where's, or
// that of the condition of a ratio.
func (c *counter) observe(f *facts) error {
	if c.where != nil {
		if ok, err := c.where.holds(f); !ok {
			return err
		}
	}
	var x sample
	if c.ratio != nil {
		holds, err := c.ratio.holds(f)
		if err != nil {
			return err
		}
		x.holds = holds
	}
	if c.amount != nil {
		n, ok := c.amount(f.event).(types.Int)
		if !ok || n < 0 {
			return nil
		}
		x.amount = uint64(n)
	}
	var keySpace, valueSpace [keyRoom]byte
	key, ok := c.keyOf(f.event, c.rung, keySpace[:0])
	if !ok {
		return nil
	}
	var value []byte
	if c.Distinct != "" {
		if value, ok = c.distinct.append(valueSpace[:0], f.event, c.distinct.rung); !ok {
			return nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if value != nil {
		x.value = c.hash.sum(value)
	}
	c.countLocked(f.event, c.hash.sum(key), x)
	return nil
}

// countLocked counts x under a key, or a wider one where there is no room for it.
func (c *counter) countLocked(e *detectors.Event, key uint64, x sample) {
	pane, _ := c.paneOf(e.Time)
	t, key, width := c.findLocked(e, key, pane)
	switch {
	case t == nil:
		t = c.makeLocked(key, width, pane)
		t.mixed = width == c.rung && len(c.widerLocked(e, pane)) > 0
	case pane < t.head-panes:
		c.late++
		return
	default:
		c.touch(t)
	}
	before := t.bytes()
	if pane > t.head {
		t.move(t.head, pane)
		t.head = pane
	}
	t.add(t.head, pane, x)
	c.grownLocked(e, t, t.bytes()-before)
}

// ask is the count for the key of e at the time of e. It changes nothing.
func (c *counter) ask(e *detectors.Event) float64 {
	var space [keyRoom]byte
	key, ok := c.keyOf(e, c.rung, space[:0])
	if !ok {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, elapsed := c.paneOf(e.Time)
	w, head, ok := c.seenLocked(e, c.hash.sum(key), now)
	switch {
	case !ok:
		return 0
	case now < head: // the window ends where the key was last counted
		return w.value(head, panes, 1)
	}
	return w.value(head, panes-(now-head), elapsed)
}

// paneOf numbers panes from 1970 on, rounding down, and says which part of it is over.
func (c *counter) paneOf(t time.Time) (pane int64, elapsed float64) {
	n := t.UnixNano()
	pane = n / c.pane
	if n%c.pane < 0 {
		pane--
	}
	return pane, float64(n-pane*c.pane) / float64(c.pane)
}

// makeLocked returns a new tally, as the newest.
func (c *counter) makeLocked(key uint64, width rung, pane int64) *tally {
	c.makeRoom(width, pane)
	t := &tally{window: c.newWindow(), key: key, head: pane, rung: width}
	c.room.take(keyBytes + t.bytes())
	c.hold(t)
	c.link(t)
	return t
}

// touch makes t the newest tally. Call it before t changes. Expects the lock.
func (c *counter) touch(t *tally) {
	c.keep(t)
	if t == c.newest {
		c.turn++
		t.turn = c.turn
		return
	}
	c.unlink(t)
	c.link(t)
}

func (c *counter) hold(t *tally) {
	c.keys[t.key] = t
	if t.rung > c.rung {
		c.widened++
	}
}

// link makes t the newest.
func (c *counter) link(t *tally) {
	c.turn++
	t.turn = c.turn
	t.older, t.newer = c.newest, nil
	if c.newest != nil {
		c.newest.newer = t
	}
	c.newest = t
	if c.oldest == nil {
		c.oldest = t
	}
}

func (c *counter) unlink(t *tally) {
	if t.newer != nil {
		t.newer.older = t.older
	} else {
		c.newest = t.older
	}
	if t.older != nil {
		t.older.newer = t.newer
	} else {
		c.oldest = t.newer
	}
}

// drop lets go of t.
func (c *counter) drop(t *tally) {
	c.keep(t)
	c.unlink(t)
	delete(c.keys, t.key)
	c.room.give(keyBytes + t.bytes())
	if t.rung > c.rung {
		c.widened--
	}
}
