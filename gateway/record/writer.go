package record

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// writer makes groups out of what waits and writes them. While one group is being
// synced it seals the next one: so the work on the bytes costs time only when the
// disk has none to wait for. Its fields belong to the goroutine of run.
type writer struct {
	log *Log

	// The last segment, as it is on the disk.
	file   file // nil: there is none, or it is to be opened again
	header []byte
	wrap   wrapper
	sealer string // id of the key that wrap was made of
	chain  chain  // up to the last durable entry

	doubt   bool // a sync failed: what is cached may not be on the disk
	begun   bool // the next segment may have its name: nothing more goes into this one
	skip    uint64
	tried   time.Time // when repairing was tried last
	group   *group    // being filled
	other   *group    // being written, or empty
	busy    bool      // other is being written
	held    *request  // the next one, which had no place in group
	owed    []item    // entries of our own that come before anybody's
	due     bool      // sums are to be written
	answers []chan error

	groups  chan *group // to commit
	results chan error  // of commit
}

// group is a number of frames that are written and synced at once.
type group struct {
	at       int64 // offset in the segment
	buf      []byte
	leaves   []Hash
	last     uint64 // sequence
	requests []*request
	owed     int
	sums     []*sum
	full     bool
	random   []byte // chance that is not used yet
	flushers []chan error
}

func (g *group) reset(at position) {
	clear(g.requests)
	*g = group{
		at: at.offset, last: at.last, buf: g.buf[:0], leaves: g.leaves[:0], requests: g.requests[:0], random: g.random,
	}
}

func newWriter(l *Log) *writer {
	return &writer{log: l, group: new(group), other: new(group), groups: make(chan *group), results: make(chan error, 1)}
}

// run writes until the log is closed.
func (w *writer) run() {
	l := w.log
	l.wg.Go(w.commits)
	defer close(w.groups)
	tick := time.NewTicker(l.cfg.Interval)
	defer tick.Stop()
	stop := l.stop
	w.group.reset(l.position())
	if len(w.owed) > 0 {
		_ = w.begin(0, true) // it is tried again with what comes next
	}
	for {
		w.fill()
		if n := len(w.group.leaves); !w.busy && n > 0 {
			// Those who were just answered may be about to come back: whoever is ready to
			// run comes first, so that one sync serves them all. Nobody is waited for.
			if runtime.Gosched(); len(w.log.queue) > 0 && !w.group.full && n < groupMax {
				if w.fill(); len(w.group.leaves) > n {
					continue
				}
			}
			w.dispatch()
			continue
		}
		if stop == nil && !w.busy && w.held == nil && len(l.queue) == 0 {
			return
		}
		var queue <-chan *request
		if w.held == nil && !w.due && !w.group.full {
			queue = l.queue
		}
		select {
		case r := <-queue:
			w.held = r
		case err := <-w.results:
			w.committed(err)
		case answer := <-l.flushes:
			w.answers = append(w.answers, answer)
			w.due = true
		case <-tick.C:
			w.due = true
		case <-stop:
			stop = nil
			w.due = true
		}
	}
}

// fill seals what waits, as far as it goes into the group, without waiting.
func (w *writer) fill() {
	for !w.group.full {
		if w.due { // sums have a group of their own: the reserve is not for them
			if len(w.group.leaves) > 0 {
				w.group.full = true
				return
			}
			if !w.sums() {
				return
			}
			continue
		}
		if w.held == nil {
			select {
			case w.held = <-w.log.queue:
			default:
				return
			}
		}
		if !w.take(w.held) {
			return
		}
		w.held = nil
	}
}

// take puts a request into the group, or fails it. It returns false if the request
// has to wait for the next group.
func (w *writer) take(r *request) bool {
	g := w.group
	n := len(g.leaves)
	if n > 0 && (n+len(r.items) > groupMax || len(g.buf)+r.bytes > groupFit || w.past(r.bytes)) {
		g.full = true
		return false
	}
	if n == 0 {
		if w.busy && (w.past(r.bytes) || !w.ready()) {
			return false // a segment ends, or something is broken: after what is being written
		}
		if err := w.begin(r.bytes, true); err != nil {
			r.done <- err
			return true
		}
	}
	r.first = g.last + 1
	if err := w.seal(r.items); err != nil {
		r.done <- fmt.Errorf("%w: %w", ErrUnavailable, err)
		return true
	}
	g.requests = append(g.requests, r)
	return true
}

// sums puts the sums that are due into the group, which is empty, and closes it. It
// returns false if it has to be called again.
func (w *writer) sums() bool {
	l := w.log
	if w.busy {
		return false
	}
	w.due = false
	closing := isClosed(l.stop)
	g := w.group
	if w.tend(); len(g.leaves) > 0 {
		w.due = true // after what was owed
		return true
	}
	var err error
	if l.reserveOut() && !closing {
		err = fmt.Errorf("%w: the disk was full, and what is left is for waiting entries", ErrUnavailable)
	} else if taken, items := l.sums.take(l.cfg.Node, l.cfg.Now(), closing); len(taken) > 0 {
		n := 0
		for _, it := range items {
			n += it.size(l.cfg.Node)
		}
		if err = w.begin(n, false); err == nil {
			err = w.seal(items)
		}
		if err != nil {
			l.sums.giveBack(l.cfg.Node, taken)
		} else {
			g.sums, g.full, g.flushers, w.answers = taken, true, w.answers, nil
			return true
		}
	}
	w.answer(err)
	return true
}

func (w *writer) answer(err error) {
	for _, a := range w.answers {
		a <- err // has room
	}
	w.answers = nil
}

// past reports whether n more bytes belong into another segment.
func (w *writer) past(n int) bool {
	return w.header != nil && w.group.at+int64(len(w.group.buf)+n) > w.log.cfg.SegmentBytes && w.group.at+int64(len(w.group.buf)) > int64(len(w.header))
}

// ready reports whether a group can be begun without touching the disk.
func (w *writer) ready() bool { return w.file != nil && !w.doubt && !w.log.troubled() }

// begin makes the group, which is empty, ready for n bytes.
func (w *writer) begin(n int, waiting bool) error {
	if w.busy && w.ready() && !w.past(n) {
		return nil
	}
	if err := w.repair(); err != nil {
		return err
	}
	if w.file == nil || w.begun || w.past(n) {
		err := w.rotate()
		if waiting && isFull(err) && w.log.giveReserve() {
			err = w.rotate()
		}
		if err != nil {
			return w.log.failed(fmt.Errorf("beginning a segment: %w", err))
		}
	}
	if len(w.owed) > 0 {
		if err := w.seal(w.owed); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		w.group.owed = len(w.owed)
	}
	return nil
}

// seal appends items to the group, all or none.
func (w *writer) seal(items []item) error {
	g, l := w.group, w.log
	if err := w.key(); err != nil {
		return err
	}
	size, n, last := len(g.buf), len(g.leaves), g.last
	for _, it := range items {
		if len(g.random) < secretSize {
			if g.random == nil {
				g.random = make([]byte, 64*secretSize)
			}
			g.random = g.random[:cap(g.random)]
			rand.Read(g.random) // never fails (crypto/rand)
		}
		chance := g.random[len(g.random)-secretSize:]
		var leaf Hash
		var err error
		g.buf, leaf, err = appendFrame(g.buf, w.wrap, it.leaf(l.cfg.Node, g.last+1), it.body, chance, g.at)
		clear(chance)
		g.random = g.random[:len(g.random)-secretSize]
		if err != nil {
			g.buf, g.leaves, g.last = g.buf[:size], g.leaves[:n], last
			return err
		}
		g.leaves = append(g.leaves, leaf)
		g.last++
	}
	return nil
}

// key makes the wrapper of the segment, anew when the keyring's key was rotated.
func (w *writer) key() error {
	keys := w.log.cfg.Keys()
	if len(keys) == 0 {
		return errors.New("there is no key to seal with")
	}
	if w.sealer == keys[0].ID {
		return nil
	}
	wrap, err := newWrapper(keys[0], w.header)
	if err != nil {
		return err
	}
	w.wrap, w.sealer = wrap, keys[0].ID
	return nil
}

func (w *writer) dispatch() {
	w.group, w.other = w.other, w.group
	w.busy = true
	w.groups <- w.other
	w.group.reset(position{last: w.other.last, offset: w.other.at + int64(len(w.other.buf))})
}

// commits writes groups and tells those who wait.
func (w *writer) commits() {
	for g := range w.groups {
		err := w.write(g)
		if err == nil {
			w.log.advance(g)
		}
		for _, r := range g.requests {
			r.done <- err // has room
		}
		w.results <- err
	}
}

// write makes a group durable. While it runs nobody else touches the file.
func (w *writer) write(g *group) error {
	_, err := w.file.WriteAt(g.buf, g.at)
	if isFull(err) && g.sums == nil && w.log.giveReserve() {
		_, err = w.file.WriteAt(g.buf, g.at)
	}
	if isFull(err) && g.sums != nil && w.file.Truncate(g.at) == nil {
		w.log.crowded(true) // waiting entries can be written all the same
		return fmt.Errorf("%w: %s: denials: %w", ErrUnavailable, w.log.dir, err)
	}
	if err != nil {
		return w.log.failed(fmt.Errorf("writing: %w", err))
	}
	if err := w.file.Sync(); err != nil {
		if isFull(err) && g.sums == nil {
			w.log.giveReserve() // for the next attempt: of this one nothing is believed
		}
		return w.log.failed(unsynced{err})
	}
	return nil
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// unsynced means that a sync failed.
type unsynced struct{ error }

func (u unsynced) Error() string { return "syncing: " + u.error.Error() }
func (u unsynced) Unwrap() error { return u.error }

// committed follows the end of a commit.
func (w *writer) committed(err error) {
	g, l := w.other, w.log
	w.busy = false
	if err == nil {
		if g.sums != nil {
			l.crowded(false)
		}
		for _, leaf := range g.leaves {
			w.chain.add(leaf)
		}
		w.owed = w.owed[g.owed:]
		for _, a := range g.flushers {
			a <- nil
		}
		return
	}
	if errors.As(err, new(unsynced)) {
		w.doubt = true
	}
	l.sums.giveBack(l.cfg.Node, g.sums)
	// What was sealed meanwhile comes behind a hole: it fails as well.
	for _, r := range w.group.requests {
		r.done <- err
	}
	l.sums.giveBack(l.cfg.Node, w.group.sums)
	for _, a := range append(g.flushers, w.group.flushers...) {
		a <- err // has room
	}
	w.group.reset(l.position())
}

// repairPause is how long a disk that failed to sync is left alone between two
// attempts, since one reads a whole segment.
const repairPause = time.Second

// repair cuts the segment back to what is durable after a failure. Nothing is
// being written.
func (w *writer) repair() error {
	l := w.log
	if !l.troubled() {
		return nil
	}
	if w.header == nil { // no segment was ever begun
		return nil
	}
	if now := l.cfg.Now(); w.doubt || w.file == nil {
		if passed := now.Sub(w.tried); passed >= 0 && passed < repairPause {
			return l.unavailable()
		}
		w.tried = now
	}
	if err := w.cutBack(); err != nil {
		return l.failed(err)
	}
	return nil
}

func (w *writer) cutBack() error {
	at := w.log.position()
	if w.doubt && w.file != nil {
		_ = w.file.Close() // it has told what it had to tell
		w.file = nil
	}
	if w.file == nil {
		f, err := w.log.cfg.disk.open(segmentPath(w.log.dir, at.segment))
		if err != nil {
			return fmt.Errorf("opening the last segment again: %w", err)
		}
		w.file, w.doubt = f, true
	}
	if err := w.file.Truncate(at.offset); err != nil {
		return fmt.Errorf("cutting the last segment back to byte %d: %w", at.offset, err)
	}
	if !w.doubt {
		return nil
	}
	if err := w.file.Sync(); err != nil {
		return unsynced{err}
	}
	if err := w.file.Forget(); err != nil {
		return err
	}
	if err := w.compare(at); err != nil {
		return err
	}
	w.doubt = false
	return nil
}

// compare reads the last segment from the disk and holds it against what was
// written there.
func (w *writer) compare(at position) error {
	s, err := newScanner(filepath.Base(segmentPath(w.log.dir, at.segment)), io.NewSectionReader(w.file, 0, at.offset))
	if err != nil {
		return err
	}
	c := newChain(s.raw)
	for {
		f, _, err := s.scan()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("after a failed sync: %w", err)
		}
		c.add(LeafHash(f.leaf))
	}
	if s.offset != at.offset || c.sum() != w.chain.sum() {
		return fmt.Errorf("after a failed sync %s does not have what was written to it: find out what is wrong with the disk, and see `kidoban record verify`", s.name)
	}
	return nil
}

// rotate begins a segment. Nothing is being written, and the group is empty.
func (w *writer) rotate() error {
	l := w.log
	at := l.position()
	h := SegmentHeader{Node: l.cfg.Node, First: at.last + 1 + w.skip, Created: l.cfg.Now()}
	if w.header != nil {
		h.Previous = w.chain.sum()
	}
	if h.First == at.segment { // the last segment is empty and stays the last
		return fmt.Errorf("the segment of entry %d is there already", h.First)
	}
	header, err := h.Encode()
	if err != nil {
		return err
	}
	f, err := w.create(segmentPath(l.dir, h.First), header)
	if err != nil {
		return err
	}
	if w.file != nil {
		_ = w.file.Close() // all of it is synced
	}
	w.file, w.header, w.chain, w.sealer, w.skip, w.begun = f, header, newChain(header), "", 0, false
	l.mu.Lock()
	l.durable = position{last: h.First - 1, segment: h.First, offset: int64(len(header))}
	l.bytes += int64(len(header))
	l.files++
	at = l.durable
	l.mu.Unlock()
	w.group.reset(at)
	return nil
}

// create makes a segment that is there whole, or not at all.
func (w *writer) create(path string, header []byte) (_ file, err error) {
	d := w.log.cfg.disk
	if err := d.remove(path + ".new"); err != nil { // an attempt before could not
		return nil, err
	}
	f, err := d.create(path + ".new")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), d.remove(path+".new"))
		}
	}()
	if _, err := f.WriteAt(header, 0); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	w.begun = true
	return f, d.publish(path+".new", path)
}

// tend looks after the disk: it takes the reserve again when there is room, and
// tries to go on after a failure when nobody else does. Nothing is being written,
// and the group is empty.
func (w *writer) tend() {
	l := w.log
	if free, err := l.cfg.disk.free(l.dir); err == nil {
		if free >= groupFit {
			l.crowded(false)
		}
		if l.reserveOut() && free >= 2*l.cfg.Reserve {
			l.takeReserve()
		}
	}
	if len(w.owed) > 0 {
		_ = w.begin(0, true)
		return
	}
	if !l.troubled() || w.begin(0, false) != nil {
		return
	}
	// An entry of nobody would only be in the way, so the disk is asked otherwise.
	if err := w.file.Sync(); err != nil {
		w.doubt = true
		_ = l.failed(unsynced{err})
		return
	}
	if free, err := l.cfg.disk.free(l.dir); err == nil && free >= frameMax {
		l.recovered()
	}
}

func (w *writer) close() error {
	if w.file == nil {
		return nil
	}
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("closing the record: %w", err)
	}
	return nil
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// advance makes g part of what readers and the mirror see.
func (l *Log) advance(g *group) {
	l.mu.Lock()
	l.durable.last = g.last
	l.durable.offset = g.at + int64(len(g.buf))
	l.bytes += int64(len(g.buf))
	l.mu.Unlock()
	l.recovered()
	select {
	case l.mirrored <- struct{}{}:
	default:
	}
}

func (l *Log) troubled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trouble.err != nil
}

// failed notes why nothing can be written and returns it as an ErrUnavailable.
func (l *Log) failed(err error) error {
	l.mu.Lock()
	first := l.trouble.err == nil
	l.trouble.err = err
	if first {
		l.trouble.since = l.cfg.Now()
	}
	l.mu.Unlock()
	if first {
		l.cfg.Log.Error("the record cannot be written", "dir", l.dir, "error", err)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, l.dir, err)
}

func (l *Log) unavailable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, l.dir, l.trouble.err)
}

// recovered notes that writing goes on.
func (l *Log) recovered() {
	l.mu.Lock()
	before := l.trouble
	l.trouble = trouble{}
	l.mu.Unlock()
	if before.err != nil {
		l.cfg.Log.Info("the record is written again", "dir", l.dir, "after", l.cfg.Now().Sub(before.since))
	}
}

func (l *Log) reserveOut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.thin
}

// crowded notes whether the disk has room for denials.
func (l *Log) crowded(full bool) {
	l.mu.Lock()
	before := l.full
	l.full = full
	l.mu.Unlock()
	switch {
	case full && !before:
		l.cfg.Log.Warn("the disk is full: denials are counted and not written, and what is left is for waiting entries: make room", "dir", l.dir)
	case before && !full:
		l.cfg.Log.Info("there is room for denials again", "dir", l.dir)
	}
}

// giveReserve gives the reserve up. It returns false if that was done before.
func (l *Log) giveReserve() bool {
	if l.cfg.Reserve < 0 || l.reserveOut() {
		return false
	}
	err := l.cfg.disk.reserve(l.reservePath(), 0)
	l.mu.Lock()
	l.thin = true
	l.mu.Unlock()
	l.cfg.Log.Warn("the disk is full: the record gives up its reserve", "dir", l.dir, "bytes", l.cfg.Reserve, "error", err)
	return err == nil
}

func (l *Log) takeReserve() {
	if l.cfg.Reserve < 0 {
		return
	}
	before := l.reserveOut()
	err := l.cfg.disk.reserve(l.reservePath(), l.cfg.Reserve)
	switch {
	case err != nil:
		err = errors.Join(err, l.cfg.disk.reserve(l.reservePath(), 0))
		if !before { // else it was told
			l.cfg.Log.Warn("the record's reserve cannot be taken: until it can, denials are counted and not written", "dir", l.dir, "bytes", l.cfg.Reserve, "error", err)
		}
	case before:
		l.cfg.Log.Info("the record has its reserve again", "dir", l.dir, "bytes", l.cfg.Reserve)
	}
	l.mu.Lock()
	l.thin = err != nil
	l.mu.Unlock()
}
