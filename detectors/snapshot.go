package detectors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// stored is a detector whose state survives a restart.
type stored interface {
	Detector
	form() string     // name and version of the form its tables are written in
	tables() []pieces // in a fixed order
	empty() stored    // a new one, set up the same
}

// pieces is a table as snapshots see it. Its methods expect the set's lock.
type pieces interface {
	freeze()
	thaw()
	head() []byte         // of the frozen table
	next() [][]byte       // the next piece of it, as frames, good until the call after; nil after the last
	begin(b []byte) error // reads what head wrote; the table is empty
	add(b []byte) error   // reads a frame
	end() error
}

const (
	snapshotKind = "detectors/1"
	detectorTag  = snapshot.FirstTag + iota - 1 // form of the detector that the frames up to the next such belong to
	tableTag                                    // head of a table
	slotsTag                                    // some of its slots, in order
	frameFull    = 64 << 10                     // bytes; a frame ends with the slot that reaches them
)

// Frozen is the state of a [Set] at one moment. Observing goes on while it is
// written: a piece of the state (1,024 sources) that is about to change is written
// down first, so an Observe waits for three pieces at most. What was written down
// and is not taken yet is kept in memory, at worst all of the state.
type Frozen struct {
	set   *Set
	parts []stored
}

// Freeze holds on to the state as it is now, for a snapshot. It takes no longer
// than an Observe. Call it where no event is on its way, such as within the
// delivery of events, so that the position in the stream that goes with the
// snapshot is the same for all who observe. Then call Write, or Discard. The error
// is [snapshot.ErrFrozen].
func (s *Set) Freeze() (*Frozen, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen != nil {
		return nil, snapshot.ErrFrozen
	}
	s.settle()
	s.frozen = &Frozen{set: s}
	for _, d := range s.detectors {
		if d, ok := d.(stored); ok {
			s.frozen.parts = append(s.frozen.parts, d)
			for _, t := range d.tables() {
				t.freeze()
			}
		}
	}
	return s.frozen, nil
}

// Discard ends f. Calling it again, or after Write, does nothing.
func (f *Frozen) Discard() {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	if f.set.frozen != f {
		return
	}
	f.set.frozen = nil
	for _, d := range f.parts {
		for _, t := range d.tables() {
			t.thaw()
		}
	}
}

// Write writes f as a snapshot and ends it. The header is the caller's, less than
// 1 MiB: the position in the stream of events that f is the state at. The snapshot
// tells which sources tried which accounts only by hashes that are not keyed; keep
// it like the events themselves.
func (f *Frozen) Write(w io.Writer, header []byte) error {
	defer f.Discard()
	out := snapshot.NewWriter(w, snapshotKind, header)
	for _, d := range f.parts {
		_ = out.Frame(detectorTag, []byte(d.form())) // the writer keeps its first error
		for _, t := range d.tables() {
			head, ok := f.locked(func() [][]byte { return [][]byte{t.head()} })
			if !ok {
				return errors.New("snapshot: it was written or discarded before")
			}
			_ = out.Frame(tableTag, head[0])
			for {
				piece, _ := f.locked(t.next)
				if piece == nil {
					break
				}
				for _, frame := range piece {
					if err := out.Frame(slotsTag, frame); err != nil {
						return fmt.Errorf("writing the snapshot of the detectors: %w", err)
					}
				}
			}
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("writing the snapshot of the detectors: %w", err)
	}
	return nil
}

// locked calls do with the set's lock unless f ended.
func (f *Frozen) locked(do func() [][]byte) ([][]byte, bool) {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	if f.set.frozen != f {
		return nil, false
	}
	return do(), true
}

// Snapshot is Freeze and Write in one, for a set that nobody observes meanwhile or
// where it does not matter at which event the snapshot was taken.
func (s *Set) Snapshot(w io.Writer, header []byte) error {
	f, err := s.Freeze()
	if err != nil {
		return err
	}
	return f.Write(w, header)
}

// Restore replaces the state by that of a snapshot and returns its header. After an
// error, which is a [snapshot.ErrWrong] unless reading failed, the state is what it
// was. A detector that the snapshot does not know, or knows in another form, is
// empty afterwards. It reads exactly the snapshot, in small pieces.
func (s *Set) Restore(r io.Reader) (header []byte, err error) {
	in, header, err := snapshot.NewReader(r, snapshotKind)
	if err != nil {
		return nil, fmt.Errorf("restoring the detectors: %w", err)
	}
	s.mu.Lock()
	fresh := make([]Detector, len(s.detectors))
	byForm := map[string]stored{}
	for i, d := range s.detectors {
		fresh[i] = d
		if d, ok := d.(stored); ok {
			e := d.empty()
			fresh[i], byForm[e.form()] = e, e
		}
	}
	s.mu.Unlock()
	if err := restore(in, byForm); err != nil {
		return nil, fmt.Errorf("restoring the detectors: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run(fresh)
	return header, nil
}

// restore fills the detectors. Each may appear once, with all of its tables.
func restore(in *snapshot.Reader, byForm map[string]stored) error {
	var tables []pieces // those of the detector that are still to come
	var current pieces
	known := false
	finish := func() error {
		if current == nil {
			return nil
		}
		err := current.end()
		current = nil
		return err
	}
	for {
		tag, b, err := in.Next()
		if err == io.EOF || err == nil && tag == detectorTag {
			if err := finish(); err != nil {
				return err
			}
			if len(tables) > 0 {
				return wrong("%d tables of a detector are missing", len(tables))
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case tag == detectorTag:
			var d stored
			if d, known = byForm[string(b)]; known {
				delete(byForm, string(b)) // a second time it is unknown
				tables = d.tables()
			}
		case !known:
		case tag == tableTag:
			if err := finish(); err != nil {
				return err
			}
			if len(tables) == 0 {
				return wrong("a detector has a table too many")
			}
			current, tables = tables[0], tables[1:]
			if err := current.begin(b); err != nil {
				return err
			}
		case tag == slotsTag && current != nil:
			if err := current.add(b); err != nil {
				return err
			}
		default:
			return wrong("a frame with the tag %d where none belongs", tag)
		}
	}
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", snapshot.ErrWrong, fmt.Sprintf(format, args...))
}

// form writes and reads the slots of a table.
type form[K ~uint64, V any] struct {
	write func(b []byte, k K, v *V) []byte
	read  func(c *snapshot.Cursor, k *K, v *V) // c.Fail where the value cannot be
}

// freeze is what a table knows of the snapshot that is being written.
type freeze struct {
	slots  int              // that the table had
	hand   int              // where it stood
	chunk  int              // the next to be written
	copies map[int][][]byte // of later chunks that changed since
	room   [][]byte         // of the frames that next returned last, for those to come
}

func (t *table[K, V]) freeze() {
	t.frozen = &freeze{slots: t.len(), hand: t.hand, copies: map[int][][]byte{}}
}

func (t *table[K, V]) thaw() { t.frozen = nil }

// keep writes slot i's chunk down if a snapshot still needs it. Call it before
// slot i changes.
func (t *table[K, V]) keep(i int) {
	f := t.frozen
	if f == nil || i >= f.slots {
		return
	}
	c := i / chunkSize
	if _, done := f.copies[c]; c >= f.chunk && !done {
		f.copies[c] = t.frames(c, nil)
	}
}

func (t *table[K, V]) next() [][]byte {
	f := t.frozen
	c := f.chunk
	if c*chunkSize >= f.slots {
		return nil
	}
	f.chunk++
	if frames, ok := f.copies[c]; ok {
		delete(f.copies, c)
		return frames
	}
	f.room = t.frames(c, f.room)
	return f.room
}

// frames is the frozen part of chunk c, written over what is in room.
func (t *table[K, V]) frames(c int, room [][]byte) [][]byte {
	frames := room[:0]
	for i := c * chunkSize; i < min((c+1)*chunkSize, t.frozen.slots); i++ {
		if n := len(frames); n == 0 || len(frames[n-1]) >= frameFull {
			if n == len(room) {
				room = append(room, make([]byte, 0, frameFull+frameFull/2))
			}
			frames = room[:n+1]
			frames[n] = frames[n][:0]
		}
		s, last := t.at(i), len(frames)-1
		frames[last] = binary.BigEndian.AppendUint64(frames[last], uint64(s.seen))
		frames[last] = t.form.write(frames[last], s.key, &s.value)
	}
	return frames
}

func (t *table[K, V]) head() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(t.frozen.slots))
	return binary.BigEndian.AppendUint32(b, uint32(t.frozen.hand))
}

func (t *table[K, V]) begin(b []byte) error {
	c := snapshot.NewCursor(b)
	slots, hand := int(c.Uint32()), int(c.Uint32())
	if c.Failed() || c.Len() > 0 || slots > t.limit || hand >= t.limit {
		return wrong("a table of %d slots, its hand at %d; want at most %d", slots, hand, t.limit)
	}
	t.hand = hand
	t.frozen = &freeze{slots: slots} // how many are to come
	return nil
}

func (t *table[K, V]) add(b []byte) error {
	for c := snapshot.NewCursor(b); c.Len() > 0; {
		i := t.len()
		if i >= t.frozen.slots {
			return wrong("a table has more than the %d slots it should have", t.frozen.slots)
		}
		t.grow(i)
		s := t.at(i)
		s.seen = int64(c.Uint64())
		t.form.read(c, &s.key, &s.value)
		h := indexHash(uint64(s.key))
		if c.Failed() || t.slotOf(s.key, h) >= 0 {
			return wrong("slot %d of a table cannot be", i)
		}
		t.name(i, s.key, h)
	}
	return nil
}

func (t *table[K, V]) end() error {
	slots := t.frozen.slots
	t.frozen = nil
	if t.len() != slots {
		return wrong("a table has %d slots, want %d", t.len(), slots)
	}
	return nil
}

func appendAmount(b []byte, x float64) []byte {
	return binary.BigEndian.AppendUint64(b, math.Float64bits(x))
}

// mostAmount bounds points and credit, which have no bound by themselves: a source
// that collects ten points a microsecond gets there in 300 years.
const mostAmount = 1e17

func (s *Sequential) form() string     { return "sequential/3" }
func (s *Sequential) tables() []pieces { return []pieces{s.subjects} }
func (s *Sequential) empty() stored    { return NewSequential(s.config) }

func (p *Penalty) form() string     { return "penalty/2" }
func (p *Penalty) tables() []pieces { return []pieces{p.sources, p.accounts} }
func (p *Penalty) empty() stored    { return NewPenalty(p.config) }

func writePenalty(b []byte, k sourceKey, v *penaltyState) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(k))
	b = appendAmount(appendAmount(b, v.points), v.used)
	b = append(b, byte(len(v.recent)))
	for _, m := range v.recent {
		b = binary.BigEndian.AppendUint64(b, m.name)
		b = binary.BigEndian.AppendUint32(b, m.at)
		b = binary.BigEndian.AppendUint32(b, math.Float32bits(m.points))
	}
	return b
}

func readPenalty(c *snapshot.Cursor, k *sourceKey, v *penaltyState) {
	*k = sourceKey(c.Uint64())
	v.points, v.used = c.Amount(mostAmount), c.Amount(mostAmount)
	n := int(c.Byte())
	if n > recentMistakes {
		c.Fail()
		return
	}
	for range n {
		m := mistake{c.Uint64(), c.Uint32(), math.Float32frombits(c.Uint32())}
		if !(m.points >= 0 && m.points <= noAccountPoints*popularFactor) {
			c.Fail()
			return
		}
		v.recent = append(v.recent, m)
	}
}

func writeCredit(b []byte, k uint64, v *float64) []byte {
	return appendAmount(binary.BigEndian.AppendUint64(b, k), *v)
}

func readCredit(c *snapshot.Cursor, k *uint64, v *float64) { *k, *v = c.Uint64(), c.Amount(mostAmount) }
