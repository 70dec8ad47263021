package stream

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

const (
	// memoryBytes bounds what waits in memory while the disk takes nothing, and a
	// journal that has no directory.
	memoryBytes = 32 << 20
	// mostSegments bounds the files, whatever their size.
	mostSegments = 4096

	smallestSegment = 64 << 10
	largestSegment  = 4 << 20
	segmentSuffix   = ".journal"
	// healBytes is the most that is written to a disk that is well again while
	// events wait for it.
	healBytes = 64 << 10
)

// file is a segment's file while it is written.
type file interface {
	io.WriteCloser
	Truncate(size int64) error
	Sync() error
}

// newFile makes a file that was not there.
func newFile(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// journal is the events that a node has seen, in the order in which it delivered
// them. Its methods never fail: what the disk does not take goes to memory.
type journal struct {
	dir        string // empty: memory only
	self       senderID
	max        int64
	segmentMax int64
	age        time.Duration
	log        *slog.Logger
	room       func() bool // whether it may take more of the disk
	newFile    func(path string) (file, error)
	begin      func() [][]byte     // payloads that a segment begins with
	holds      func(*segment) bool // whether it holds own events that Redis has not taken
	dropped    func(*segment)      // one went, for the journal's bound or its age

	mu       sync.Mutex
	segments []*segment // oldest first; the last one is written, and those in memory are the last
	number   uint64     // of the next segment
	unsynced []*segment // ended, their files open until fsync
	dirty    bool       // the segment being written has not all been synced
	failed   error      // why the disk takes nothing, or nil
	since    time.Time  // of failed
	unkept   uint64     // events that never reached the disk
	scratch  []byte
	closed   bool
}

// bytes is what the journal holds. With j.mu.
func (j *journal) bytes() (disk, memory int64) {
	for _, s := range j.segments {
		if s.path == "" {
			memory += s.size
		} else {
			disk += s.size
		}
	}
	return disk, memory
}

// append writes an envelope of events, or a payload of the journal's own (count 0).
// The caller serializes calls.
func (j *journal) append(payload []byte, id senderID, lo, hi uint64, from, to, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	s := j.current(int64(len(payload)), now)
	s = j.put(s, payload, now)
	if hi > 0 {
		s.note(id, lo, hi, from, to)
	}
}

// current is the segment that the next payload goes to. With j.mu.
func (j *journal) current(n int64, now time.Time) *segment {
	if len(j.segments) > 0 {
		s := j.segments[len(j.segments)-1]
		// One whose beginning alone is too large takes as much again, or each payload
		// would begin another.
		full := s.size+n > j.segmentMax && s.size >= 2*s.head
		if !s.ended && !full {
			return s
		}
		j.end(s)
		next := j.start(now)
		if full && s.path != "" && !j.room() { // it goes on in as much as it has
			j.drop(func(s *segment) bool { return s.path != "" })
		}
		return next
	}
	return j.start(now)
}

// start begins a segment. With j.mu.
func (j *journal) start(now time.Time) *segment {
	s := newSegment(j.number)
	s.began = now
	j.number++
	b := slices.Clone(segmentMagic)
	for _, p := range j.begin() {
		b = appendFrame(b, p)
	}
	if j.dir != "" && j.failed == nil {
		if err := j.create(s, b); err != nil {
			j.fail(err, now)
		}
	}
	if s.path == "" {
		s.buf = b
	}
	s.size, s.head = int64(len(b)), int64(len(b))
	j.segments = append(j.segments, s)
	j.bound()
	return s
}

// create makes the file of s with its first bytes. With j.mu.
func (j *journal) create(s *segment, b []byte) error {
	f, path, err := j.write(s.number, b)
	if err == nil {
		s.path, s.file, s.buf = path, f, nil
		j.dirty = true
	}
	return err
}

// write makes the file of a segment. What it could not finish it removes; where
// that fails too the remains are no obstacle, for no number is used twice.
func (j *journal) write(number uint64, b []byte) (file, string, error) {
	path := filepath.Join(j.dir, fmt.Sprintf("%016d%s", number, segmentSuffix))
	f, err := j.newFile(path)
	if err != nil {
		return nil, "", err
	}
	if _, err := f.Write(b); err != nil {
		return nil, "", errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, path, nil
}

// prepare begins the segment that the first event will go to, so that it is known
// whether the disk takes it.
func (j *journal) prepare(now time.Time) {
	if j.dir == "" {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.start(now)
}

// put writes a frame to s, or to a segment in memory when the disk takes none,
// and returns where it went. With j.mu.
func (j *journal) put(s *segment, payload []byte, now time.Time) *segment {
	if s.path == "" {
		s.buf = appendFrame(s.buf, payload)
		s.size = int64(len(s.buf))
		return s
	}
	j.scratch = appendFrame(j.scratch[:0], payload)
	if _, err := s.file.Write(j.scratch); err != nil {
		j.fail(err, now)
		// What was written of the frame is cut off again; should that fail, readers
		// stop there, for nothing is written behind it.
		_ = s.file.Truncate(s.size)
		s.ended = true
		j.unsynced = append(j.unsynced, s)
		s = j.start(now)
		s.buf = appendFrame(s.buf, payload)
		s.size = int64(len(s.buf))
		return s
	}
	s.size += int64(len(j.scratch))
	j.dirty = true
	return s
}

// end closes s in order. With j.mu.
func (j *journal) end(s *segment) {
	if s.ended {
		return
	}
	s.ended = true
	closing := s.closing(j.self)
	if s.path == "" {
		s.buf = append(s.buf, closing...)
		s.size = int64(len(s.buf))
		return
	}
	if _, err := s.file.Write(closing); err != nil {
		_ = s.file.Truncate(s.size)
	} else {
		s.size += int64(len(closing))
	}
	j.unsynced = append(j.unsynced, s)
}

func (j *journal) fail(err error, now time.Time) {
	if j.failed == nil {
		j.log.Error("the events' journal cannot be written: events go on in memory", "dir", j.dir, "error", err)
		j.since = now
	}
	j.failed = err
}

// bound drops what is too much. With j.mu.
func (j *journal) bound() {
	most := int64(memoryBytes)
	if j.dir == "" {
		most = j.max
	}
	for {
		disk, memory := j.bytes()
		switch {
		case memory > most && j.drop(func(s *segment) bool { return s.path == "" }):
		case j.dir != "" && (disk > j.max || len(j.segments) > mostSegments) &&
			j.drop(func(s *segment) bool { return s.path != "" }):
		default:
			return
		}
	}
}

// drop lets go of the oldest segment that may go: one that others need not, if
// there is one. It never takes the one being written. With j.mu.
func (j *journal) drop(may func(*segment) bool) bool {
	pick := -1
	for i, s := range j.segments[:max(len(j.segments)-1, 0)] {
		if !may(s) {
			continue
		}
		if pick < 0 {
			pick = i
		}
		if !j.holds(s) {
			pick = i
			break
		}
	}
	if pick < 0 {
		return false
	}
	j.remove(pick)
	return true
}

func (j *journal) remove(i int) {
	s := j.segments[i]
	j.segments = slices.Delete(j.segments, i, i+1)
	if s.path != "" {
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			j.log.Warn("an old segment of the events' journal cannot be removed", "path", s.path, "error", err)
		}
		if s.file != nil { // it may be open until its fsync, and its room is wanted now
			_ = s.file.Truncate(0)
		}
	} else if j.dir != "" {
		j.unkept += s.count
	}
	j.dropped(s)
}

// tend does what need not be done at once: fsync, age, and trying the disk again.
// The caller does not hold up events meanwhile.
func (j *journal) tend(now time.Time) {
	j.mu.Lock()
	for len(j.segments) > 0 && (len(j.segments) > 1 || j.segments[0].ended) && j.segments[0].stamp.Before(now.Add(-j.age)) {
		j.remove(0)
	}
	// In quiet times too a file ends, and goes soon after its events are of age.
	if n := len(j.segments); n > 0 && j.segments[n-1].count > 0 && now.Sub(j.segments[n-1].began) > j.age/8 {
		j.end(j.segments[n-1])
	}
	ended := j.unsynced
	j.unsynced = nil
	var current file
	if n := len(j.segments); n > 0 && j.dirty && !j.segments[n-1].ended {
		current = j.segments[n-1].file
	}
	j.dirty = false
	broken := j.failed != nil
	j.mu.Unlock()

	var failed error
	if current != nil {
		// It may be ended and closed meanwhile only by tend and close.
		failed = current.Sync()
	}
	for _, s := range ended {
		failed = errors.Join(failed, s.file.Sync(), s.file.Close())
	}
	if failed != nil {
		j.mu.Lock()
		j.fail(failed, now)
		j.mu.Unlock()
		return
	}
	if broken {
		j.heal(now)
	}
}

// heal writes to the disk what waits in memory, oldest first. Events wait for the
// last, small part of it only.
func (j *journal) heal(now time.Time) {
	if !j.room() {
		return
	}
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.fail(err, now)
		return
	}
	for j.healOne(now) {
	}
}

// healOne writes one segment, and reports whether there may be more.
func (j *journal) healOne(now time.Time) (more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.failed == nil {
		return false
	}
	i := slices.IndexFunc(j.segments, func(s *segment) bool { return s.path == "" })
	if i < 0 {
		j.well(now)
		return false
	}
	s := j.segments[i]
	last := i == len(j.segments)-1
	j.end(s)
	s.number = j.number // all after it are in memory too, and get theirs in turn
	j.number++
	if last && s.size <= healBytes {
		if err := j.create(s, s.buf); err != nil {
			j.failed = err
			return false
		}
		j.unsynced = append(j.unsynced, s)
		j.well(now)
		return false
	}
	number, b := s.number, s.buf
	j.mu.Unlock()
	f, path, err := j.write(number, b)
	j.mu.Lock()
	if err != nil {
		j.failed = err
		return false
	}
	if !slices.Contains(j.segments, s) { // it had to go meanwhile
		_ = errors.Join(f.Close(), os.Remove(path))
		return true
	}
	s.path, s.file, s.buf = path, f, nil
	j.unsynced = append(j.unsynced, s)
	return true
}

// well notes that the disk takes everything again. With j.mu.
func (j *journal) well(now time.Time) {
	j.log.Info("the events' journal can be written again", "dir", j.dir, "after", now.Sub(j.since))
	j.failed, j.since = nil, time.Time{}
	j.bound()
}

// close ends the journal in order.
func (j *journal) close(now time.Time) error {
	j.mu.Lock()
	broken := j.failed != nil
	j.mu.Unlock()
	if broken {
		j.heal(now)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	if n := len(j.segments); n > 0 {
		j.end(j.segments[n-1])
	}
	var err error
	for _, s := range j.unsynced {
		err = errors.Join(err, s.file.Sync(), s.file.Close())
	}
	j.unsynced = nil
	for _, s := range j.segments {
		if s.path == "" && j.dir != "" {
			j.unkept += s.count
		}
	}
	return err
}

// piece is a segment as it was at one moment.
type piece struct {
	*segment
	number uint64
	size   int64
}

// pieces is the segments that may says are wanted, oldest first.
func (j *journal) pieces(may func(*segment) bool) []piece {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []piece
	for _, s := range j.segments {
		if may == nil || may(s) {
			list = append(list, piece{s, s.number, s.size})
		}
	}
	return list
}

// bytesOf reads a piece. A segment that went meanwhile is empty.
func (j *journal) bytesOf(p piece) ([]byte, error) {
	j.mu.Lock()
	inMemory, buf := p.path == "", p.buf
	j.mu.Unlock()
	if inMemory {
		return buf[:min(p.size, int64(len(buf)))], nil
	}
	b, err := p.bytes(p.size)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// eventFrames calls each with a segment's envelopes of events.
func eventFrames(b []byte, wanted func(id senderID, lo, hi uint64) bool, each func(offset int64, m *events) error) (tail int64, damaged int, err error) {
	_, tail, damaged, err = frames(b, func(offset int64, payload []byte) error {
		d := decoder{b: payload}
		kind, id := d.header()
		if kind != eventsKind || d.err != nil {
			return nil
		}
		first, count := d.span()
		if d.err != nil || wanted != nil && !wanted(id, first, first+uint64(count)-1) {
			return nil
		}
		m := &events{id: id, first: first, bodies: d.bodies(count)}
		if d.end() != nil {
			return nil
		}
		return each(offset, m)
	})
	return tail, damaged, err
}

// read returns the bodies that the journal has of a sender from lo to hi, by their
// sequence, ascending: at most many of them and about bytes. until is up to where
// it looked. A segment that cannot be read is an error, or with skip nothing.
func (j *journal) read(id senderID, lo, hi uint64, bytes int, skip bool) (found []numbered, until uint64, err error) {
	if hi-lo >= many {
		hi = lo + many - 1
	}
	list := j.pieces(func(s *segment) bool {
		p, has := s.spans[id]
		return has && p.lo <= hi && p.hi >= lo
	})
	for _, p := range list {
		b, err := j.bytesOf(p)
		if err != nil && !skip {
			return nil, 0, err
		}
		_, _, err = eventFrames(b, func(of senderID, from, to uint64) bool {
			return of == id && from <= hi && to >= lo
		}, func(_ int64, m *events) error {
			for i, body := range m.bodies {
				if seq := m.first + uint64(i); seq >= lo && seq <= hi {
					found = append(found, numbered{seq, slices.Clone(body)})
				}
			}
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
		slices.SortStableFunc(found, func(a, b numbered) int { return cmp.Compare(a.sequence, b.sequence) })
		found = slices.CompactFunc(found, func(a, b numbered) bool { return a.sequence == b.sequence })
		total := 0
		for i, n := range found {
			if total += len(n.body); total > bytes && i > 0 {
				found = slices.Delete(found, i, len(found))
				hi = found[i-1].sequence
				break
			}
		}
	}
	return found, hi, nil
}

// numbered is the body of an event with its sequence.
type numbered struct {
	sequence uint64
	body     []byte
}

// recovered is what a journal knew when it was opened.
type recovered struct {
	senders senders
	mark    mark
	cut     int64 // bytes of incomplete tails
	damaged int   // frames skipped
}

// open reads what a directory holds. What cannot be read is told, left where it is
// and done without.
func (j *journal) open(now time.Time) recovered {
	r := recovered{senders: make(senders)}
	if j.dir == "" {
		return r
	}
	err := os.MkdirAll(j.dir, 0o700)
	var entries []fs.DirEntry
	if err == nil {
		entries, err = os.ReadDir(j.dir)
	}
	if err != nil {
		j.number = uint64(now.UnixMicro()) // above all that may be there
		j.fail(err, now)
		return r
	}
	for _, entry := range entries {
		digits, is := strings.CutSuffix(entry.Name(), segmentSuffix)
		number, err := strconv.ParseUint(digits, 10, 64)
		if !is || err != nil || !entry.Type().IsRegular() {
			continue
		}
		s := newSegment(number)
		s.path, s.ended = filepath.Join(j.dir, entry.Name()), true
		j.segments = append(j.segments, s)
		j.number = max(j.number, number+1)
	}
	slices.SortFunc(j.segments, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	j.segments = slices.DeleteFunc(j.segments, func(s *segment) bool {
		err := j.load(s, &r)
		if err != nil {
			j.log.Error("a segment of the events' journal cannot be read: its events are not there", "path", s.path, "error", err)
			r.damaged++
		}
		return err != nil
	})
	if err := j.recall(&r); err != nil {
		j.log.Error("the events' journal cannot be read", "dir", j.dir, "error", err)
		r.damaged++
	}
	j.segments = slices.DeleteFunc(j.segments, func(s *segment) bool {
		if s.count == 0 { // a start and a stop with nothing between
			_ = os.Remove(s.path)
		}
		return s.count == 0
	})
	return r
}

// load learns what a segment holds, and cuts off its incomplete tail.
func (j *journal) load(s *segment, r *recovered) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if s.size = info.Size(); s.summary(f, s.size) {
		return nil
	}
	s.spans, s.count = make(map[senderID]span), 0
	s.oldest, s.stamp = time.Time{}, time.Time{}
	b, err := s.bytes(s.size)
	if err != nil {
		return err
	}
	tail, damaged, _ := eventFrames(b, nil, func(_ int64, m *events) error {
		from, to, err := m.times()
		if err == nil {
			s.note(m.id, m.first, m.last(), from, to)
		}
		return nil
	})
	r.damaged += damaged
	if tail > 0 {
		r.cut += tail
		s.size -= tail
		// On a disk that cannot be written the tail stays, and is skipped again.
		_ = os.Truncate(s.path, s.size)
	}
	return nil
}

// times is the earliest and the latest stream time of the events.
func (m *events) times() (from, to time.Time, err error) {
	for i, body := range m.bodies {
		d := decoder{b: body}
		d.uvarint()
		at := d.time()
		if d.err != nil {
			return from, to, d.err
		}
		if i == 0 || at.Before(from) {
			from = at
		}
		if i == 0 || at.After(to) {
			to = at
		}
	}
	return from, to, nil
}

// recall rebuilds vector and mark: from the newest segment that begins with them,
// and what follows. A segment is the truth of its moment, so one suffices.
func (j *journal) recall(r *recovered) error {
	start := len(j.segments)
	for start > 0 {
		start--
		b, err := j.segments[start].bytes(j.segments[start].size)
		if err != nil {
			return err
		}
		if begins(b) {
			break
		}
	}
	for _, s := range j.segments[start:] {
		b, err := s.bytes(s.size)
		if err != nil {
			return err
		}
		if _, _, _, err := frames(b, func(_ int64, payload []byte) error {
			d := decoder{b: payload}
			kind, id := d.header()
			switch {
			case d.err != nil:
			case kind == vectorKind:
				d.vector(r.senders)
			case kind == markKind && id.node == j.self.node:
				if m := d.mark(); d.end() == nil {
					r.mark = m
				}
			case kind == eventsKind:
				first, count := d.span()
				m := events{id: id, first: first, bodies: d.bodies(count)}
				if _, to, err := m.times(); d.end() == nil && err == nil {
					one := r.senders.at(id)
					one.mark(first, m.last(), time.Time{}, false)
					if to.After(one.last) {
						one.last = to
					}
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// begins reports whether a segment's bytes begin with a mark, which is written
// after the vector.
func begins(b []byte) bool {
	found := false
	_, _, _, _ = frames(b, func(_ int64, payload []byte) error {
		d := decoder{b: payload}
		switch kind, _ := d.header(); {
		case d.err == nil && kind == vectorKind:
			return nil
		case d.err == nil && kind == markKind:
			found = true
		}
		return errEnough
	})
	return found
}

// replay calls each with all events but those that have contains, oldest first.
func (j *journal) replay(have senders, each func(detectors.Event) error) error {
	list := j.pieces(func(s *segment) bool {
		for id, p := range s.spans {
			if one := have[id]; one == nil || !one.all(p.lo, p.hi) {
				return true
			}
		}
		return false
	})
	for _, p := range list {
		b, err := j.bytesOf(p)
		if err != nil {
			return err
		}
		if _, _, err := eventFrames(b, nil, func(_ int64, m *events) error {
			for i, body := range m.bodies {
				seq := m.first + uint64(i)
				one := have.at(m.id)
				if one.has(seq) {
					continue
				}
				e, err := decodeEvent(body)
				if err != nil {
					continue
				}
				e.Key = detectors.EventKey{Node: m.id.node, Incarnation: m.id.incarnation, Sequence: seq}
				one.mark(seq, seq, time.Time{}, false)
				if err := each(e); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
