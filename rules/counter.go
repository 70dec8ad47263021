package rules

import (
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

const (
	panes       = 16      // a window is kept in 16 panes and the one that is leaving
	maxKeys     = 1 << 18 // per counter; the one idle longest goes
	maxDistinct = 4096    // different values per key; a count stays there however many more come
	maxMembers  = 1 << 21 // different values of all keys of a counter; the key idle longest goes
	listed      = 16      // values kept in a list before they become a map
)

// counter counts events, or different values of a field, per key in a sliding
// window of event time. The window is made of 16 panes: it holds everything of
// the last Within, and at most 1/16 of Within more. Different values are exact
// up to 4,096 per key and then saturate.
//
// An event that lacks one of the key's fields, or the field whose values are
// counted, is not counted, and a question about such a key is answered 0: all
// clients of unknown network operators are not one client.
//
// It is safe for concurrent use.
type counter struct {
	Counter
	where *expression // nil: every event
	pane  int64       // nanoseconds

	mu             sync.Mutex // guards all below
	hash           hashKey
	keys           map[uint64]*tally
	newest, oldest *tally  // of all keys, by the time they were last counted
	members        int     // of all keys
	turn           uint64  // of the newest
	frozen         *freeze // while a snapshot is written, or nil; see snapshot.go
}

// tally is the state of one key.
type tally struct {
	key          uint64
	turn         uint64 // grows from the oldest to the newest
	newer, older *tally
	head         int64             // number of the newest pane
	counts       [panes + 1]uint32 // by number of the pane modulo its length; of members: those last seen in that pane
	few          []member          // distinct only, up to listed of them
	many         map[uint64]int64  // instead of few when there are more: pane by value
}

type member struct {
	value uint64
	pane  int64
}

func newCounter(spec Counter, where *expression) *counter {
	return &counter{Counter: spec, where: where, pane: int64(spec.Within) / panes, hash: newHashKey(), keys: map[uint64]*tally{}}
}

// identity is equal for counters that count the same.
func (c Counter) identity() string {
	return strings.Join([]string{c.Distinct, strings.Join(c.By, ","), c.Within.String(), c.Where}, "\x00")
}

// observe counts e if it meets the counter's where. The error is where's.
func (c *counter) observe(f *facts) error {
	if c.where != nil {
		if ok, err := c.where.holds(f); !ok {
			return err
		}
	}
	by, ok := c.keyOf(f.event)
	if !ok {
		return nil
	}
	text := ""
	if c.Distinct != "" {
		if text = fieldText(c.Distinct, f.event); text == "" {
			return nil
		}
	}
	now := c.paneOf(f.event.Time)

	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.touch(c.hash.sum(by), now)
	if now <= t.head-panes-1 {
		return nil // older than all that is kept
	}
	t.advance(now)
	if c.Distinct == "" {
		t.counts[at(now)]++
		return nil
	}
	c.addMember(t, c.hash.sum(text), now)
	return nil
}

// value is the count for the key of e at the time of e. It changes nothing.
func (c *counter) value(e *detectors.Event) int64 {
	by, ok := c.keyOf(e)
	if !ok {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.keys[c.hash.sum(by)]
	if t == nil {
		return 0
	}
	return t.sum(c.paneOf(e.Time))
}

// keyOf is the text of e's key.
func (c *counter) keyOf(e *detectors.Event) (by string, ok bool) {
	if c.By[0] == "all" {
		return "", true
	}
	if len(c.By) == 1 {
		by = fieldText(c.By[0], e)
		return by, by != ""
	}
	var texts [4]string
	for i, field := range c.By {
		if texts[i] = fieldText(field, e); texts[i] == "" {
			return "", false
		}
	}
	return strings.Join(texts[:len(c.By)], "\x00"), true
}

// paneOf numbers panes from 1970 on, rounding down.
func (c *counter) paneOf(t time.Time) int64 {
	n := t.UnixNano()
	p := n / c.pane
	if n%c.pane < 0 {
		p--
	}
	return p
}

// touch returns the tally of key, made the newest. Expects the lock.
func (c *counter) touch(key uint64, now int64) *tally {
	t := c.keys[key]
	if t == nil {
		if len(c.keys) >= maxKeys {
			c.drop(c.oldest)
		}
		t = &tally{key: key, head: now}
		c.keys[key] = t
	} else {
		c.keep(t)
		if t == c.newest {
			c.turn++
			t.turn = c.turn
			return t
		}
		c.unlink(t)
	}
	c.link(t)
	return t
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

func (c *counter) drop(t *tally) {
	c.keep(t)
	c.unlink(t)
	delete(c.keys, t.key)
	c.members -= len(t.few) + len(t.many)
}

// addMember notes that value was seen in pane now. Expects the lock.
func (c *counter) addMember(t *tally, value uint64, now int64) {
	if was, ok := t.member(value); ok {
		if was >= now {
			return
		}
		if was > t.head-panes-1 {
			t.counts[at(was)]--
		}
		t.counts[at(now)]++
		t.set(value, now)
		return
	}
	if live := t.live(); live >= maxDistinct {
		return
	} else if n := len(t.few) + len(t.many); n >= listed && n >= 2*int(live) {
		c.members -= t.purge()
	}
	for c.members >= maxMembers && c.oldest != t {
		c.drop(c.oldest)
	}
	if c.members >= maxMembers {
		return
	}
	c.members++
	t.counts[at(now)]++
	t.set(value, now)
}

func at(pane int64) int { return int((pane%(panes+1) + panes + 1) % (panes + 1)) }

// advance makes now the newest pane.
func (t *tally) advance(now int64) {
	if now-t.head > panes {
		t.counts = [panes + 1]uint32{}
		t.head = max(t.head, now)
	}
	for t.head < now {
		t.head++
		t.counts[at(t.head)] = 0
	}
}

// sum counts the panes that reach into the window that ends in pane now.
func (t *tally) sum(now int64) (n int64) {
	for p := max(now, t.head) - panes; p <= t.head; p++ {
		n += int64(t.counts[at(p)])
	}
	return n
}

func (t *tally) live() int64 { return t.sum(t.head) }

func (t *tally) member(value uint64) (pane int64, ok bool) {
	if t.many != nil {
		pane, ok = t.many[value]
		return pane, ok
	}
	for _, m := range t.few {
		if m.value == value {
			return m.pane, true
		}
	}
	return 0, false
}

func (t *tally) set(value uint64, pane int64) {
	if t.many != nil {
		t.many[value] = pane
		return
	}
	for i := range t.few {
		if t.few[i].value == value {
			t.few[i].pane = pane
			return
		}
	}
	if len(t.few) < listed {
		t.few = append(t.few, member{value, pane})
		return
	}
	t.many = make(map[uint64]int64, 2*listed)
	for _, m := range t.few {
		t.many[m.value] = m.pane
	}
	t.few = nil
	t.many[value] = pane
}

// purge forgets members that left the window and returns how many.
func (t *tally) purge() (n int) {
	for v, p := range t.many {
		if p <= t.head-panes-1 {
			delete(t.many, v)
			n++
		}
	}
	kept := t.few[:0]
	for _, m := range t.few {
		if m.pane > t.head-panes-1 {
			kept = append(kept, m)
		} else {
			n++
		}
	}
	t.few = kept
	return n
}
