package rules

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

const (
	snapshotKind = "rules/1"
	counterTag   = snapshot.FirstTag     // head of a counter
	talliesTag   = snapshot.FirstTag + 1 // some of its keys
	frameFull    = 16 << 10              // bytes; a frame ends with the key that reaches them

	// form is the form in which a counter is written; it stands before its identity. A
	// counter that was written in another form is as one that counts something else.
	form = "2\x00"

	mixedMark = 0x80 // beside the width of a key
)

// Frozen is the counts of a [Set] at one moment. Counting goes on while it is
// written: a key that is about to change is written down first. What was written
// down and is not taken yet is kept in memory, at worst all of the state.
type Frozen struct {
	counters []*counter
	of       []*freeze // of each
}

// Freeze holds on to the counts as they are now, for a snapshot; it does not wait.
// Call it where no event is on its way, such as within the delivery of events, or
// counters may be an event apart. Then call Write, or Discard. The error is
// [snapshot.ErrFrozen], also where a set that this one adopted from is being written.
func (s *Set) Freeze() (*Frozen, error) {
	f := &Frozen{}
	for _, c := range s.order {
		held := c.freeze()
		if held == nil {
			f.Discard()
			return nil, snapshot.ErrFrozen
		}
		f.counters, f.of = append(f.counters, c), append(f.of, held)
	}
	return f, nil
}

// Discard ends f. Calling it again, or after Write, does nothing.
func (f *Frozen) Discard() {
	for i, c := range f.counters {
		c.thaw(f.of[i])
	}
}

// Write writes f as a snapshot and ends it. The header is the caller's, less than
// 1 MiB: the position in the stream of events that f is the counts at. The snapshot
// holds the secrets of the counters' hashes; keep it like a key.
func (f *Frozen) Write(w io.Writer, header []byte) error {
	defer f.Discard()
	out := snapshot.NewWriter(w, snapshotKind, header)
	for i, c := range f.counters {
		head, err := c.head(f.of[i])
		if err != nil {
			return err
		}
		_ = out.Frame(counterTag, head) // the writer keeps its first error
		for {
			frame, err := c.next(f.of[i])
			if err != nil {
				return err
			}
			if frame == nil {
				break
			}
			if err := out.Frame(talliesTag, frame); err != nil {
				return fmt.Errorf("writing the snapshot of the rules' counters: %w", err)
			}
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("writing the snapshot of the rules' counters: %w", err)
	}
	return nil
}

// Snapshot is Freeze and Write in one, for a set that counts nothing meanwhile or
// where it does not matter at which event the snapshot was taken.
func (s *Set) Snapshot(w io.Writer, header []byte) error {
	f, err := s.Freeze()
	if err != nil {
		return err
	}
	return f.Write(w, header)
}

// Restore takes over the counts of a snapshot for the counters that count the same
// (see [Counter]: what, by, within and where), and returns its header. The others of
// s stay as they are, which is empty after a start; so does one that was written by
// another version in another form. What is beyond the limits of s goes. After an error, which is a
// [snapshot.ErrWrong] unless reading failed, nothing changed. It reads exactly the
// snapshot, in small pieces.
func (s *Set) Restore(r io.Reader) (header []byte, err error) {
	in, header, err := snapshot.NewReader(r, snapshotKind)
	if err != nil {
		return nil, fmt.Errorf("restoring the rules' counters: %w", err)
	}
	var restored []*counts
	var current *counts // nil: a counter that s does not have
	for first := true; ; first = false {
		tag, b, err := in.Next()
		if current != nil && (err == io.EOF || tag == counterTag) {
			if current.missing > 0 {
				return nil, wrong("%d keys of a counter are missing", current.missing)
			}
			restored, current = append(restored, current), nil
		}
		switch {
		case err == io.EOF:
			for _, c := range restored {
				c.become()
			}
			return header, nil
		case err != nil:
			return nil, fmt.Errorf("restoring the rules' counters: %w", err)
		case tag == counterTag:
			if current, err = s.begin(b); err != nil {
				return nil, err
			}
			if current != nil {
				current.most = 2 * s.limits.Total
				for _, r := range restored {
					current.most -= int64(r.bytes)
				}
			}
			if current != nil && slices.ContainsFunc(restored, func(c *counts) bool { return c.counter == current.counter }) {
				return nil, wrong("a counter is there twice")
			}
		case tag == talliesTag && !first:
			if current != nil {
				if err := current.add(b); err != nil {
					return nil, err
				}
			}
		default:
			return nil, wrong("a frame with the tag %d where none belongs", tag)
		}
	}
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("restoring the rules' counters: %w: %s", snapshot.ErrWrong, fmt.Sprintf(format, args...))
}

// freeze is what a counter knows of the snapshot that is being written.
type freeze struct {
	turn    uint64   // of the newest key that belongs to it
	keys    int      // how many do
	cursor  *tally   // the next to be written, going to the newer; nil: none is left
	changed [][]byte // keys that changed since, as frames
	room    []byte   // of the frame that next returned last, for the one to come
}

// freeze returns nil when the counter is frozen already. Turns grow along the list
// of keys, so a key whose turn is later than the snapshot's was counted since, and
// one before the cursor is written already.
func (c *counter) freeze() *freeze {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen != nil {
		return nil
	}
	c.frozen = &freeze{turn: c.turn, keys: len(c.keys), cursor: c.oldest}
	return c.frozen
}

func (c *counter) thaw(f *freeze) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen == f {
		c.frozen = nil
	}
}

// keep writes t down if a snapshot still needs it. Call it before t changes or
// moves. Expects the lock.
func (c *counter) keep(t *tally) {
	f := c.frozen
	if f == nil || f.cursor == nil || t.turn > f.turn || t.turn < f.cursor.turn {
		return
	}
	if n := len(f.changed); n == 0 || len(f.changed[n-1]) >= frameFull {
		f.changed = append(f.changed, nil)
	}
	last := &f.changed[len(f.changed)-1]
	*last = c.write(*last, t)
	if f.cursor == t {
		f.advance()
	}
}

func (f *freeze) advance() {
	if f.cursor = f.cursor.newer; f.cursor != nil && f.cursor.turn > f.turn {
		f.cursor = nil
	}
}

func (c *counter) head(f *freeze) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen != f {
		return nil, fmt.Errorf("snapshot: it was written or discarded before, or the counts were replaced")
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(f.keys))
	return append(append(append(b, c.hash[:]...), form...), c.identity()...), nil
}

// next is the next frame, good until the call after, or nil after the last.
func (c *counter) next(f *freeze) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen != f {
		return nil, fmt.Errorf("snapshot: it was discarded, or the counts were replaced")
	}
	if len(f.changed) > 0 {
		b := f.changed[0]
		f.changed = f.changed[1:]
		return b, nil
	}
	if f.cursor == nil {
		return nil, nil
	}
	b := f.room[:0]
	for f.cursor != nil && len(b) < frameFull {
		b = c.write(b, f.cursor)
		f.advance()
	}
	f.room = b
	return b, nil
}

// write appends t.
func (c *counter) write(b []byte, t *tally) []byte {
	b = binary.BigEndian.AppendUint64(b, t.key)
	b = binary.BigEndian.AppendUint64(b, t.turn)
	b = binary.BigEndian.AppendUint64(b, uint64(t.head))
	b = append(b, byte(t.rung))
	if t.mixed {
		b[len(b)-1] |= mixedMark
	}
	return t.window.write(t.head, b)
}

// counts is the state of a counter while it is read.
type counts struct {
	*counter
	hash    hashKey
	tallies []*tally
	seen    map[uint64]*tally
	missing int
	most    int64 // what may still be read of all counters, in bytes
	bytes   int
}

// begin reads the head of a counter, and returns nil where s has no such.
func (s *Set) begin(b []byte) (*counts, error) {
	c := snapshot.NewCursor(b)
	keys := int(c.Uint32())
	hash := c.Bytes(len(hashKey{}))
	identity := c.Bytes(c.Len())
	if c.Failed() {
		return nil, wrong("the head of a counter is cut")
	}
	var mine *counter
	if text, ok := bytes.CutPrefix(identity, []byte(form)); ok {
		mine = s.counters[string(text)]
	}
	if mine == nil {
		return nil, nil
	}
	return &counts{counter: mine, hash: hashKey(hash), seen: map[uint64]*tally{}, missing: keys}, nil
}

// add reads a frame of keys.
func (s *counts) add(b []byte) error {
	latest := math.MaxInt64/s.pane + 1 // no time has a later pane, or one earlier than its negative
	for c := snapshot.NewCursor(b); c.Len() > 0; {
		t := &tally{window: s.newWindow(), key: c.Uint64(), turn: c.Uint64(), head: int64(c.Uint64())}
		width := c.Byte()
		t.rung, t.mixed = rung(width&^mixedMark), width&mixedMark != 0
		if t.head < -latest || t.head > latest || t.rung < s.rung || t.rung > everyone {
			c.Fail()
		}
		t.window.read(t.head, c)
		if c.Failed() || s.missing == 0 || s.seen[t.key] != nil {
			return wrong("a key of a counter cannot be")
		}
		s.bytes += keyBytes + t.bytes()
		if int64(s.bytes) > s.most {
			return wrong("the counters take more than twice their limit: raise it, or they start empty")
		}
		s.missing--
		s.seen[t.key] = t
		s.tallies = append(s.tallies, t)
	}
	return nil
}

// become makes what was read the counter's state, and ends a snapshot of it.
func (s *counts) become() {
	slices.SortFunc(s.tallies, func(a, b *tally) int {
		if a.turn < b.turn {
			return -1
		}
		return 1
	})
	c := s.counter
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hash, c.keys, c.frozen = s.hash, map[uint64]*tally{}, nil
	c.newest, c.oldest, c.turn, c.widened = nil, nil, 0, 0
	c.room.give(int(c.room.bytes))
	for _, t := range s.tallies {
		c.hold(t)
		c.link(t)
	}
	c.room.take(s.bytes)
	c.shrinkLocked()
}
