package record

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// badDisk is the file system with faults that can be switched on.
type badDisk struct {
	system
	mu      sync.Mutex
	faults  faults
	syncing chan struct{} // if not nil, gets one when a sync begins, which then waits for another
}

type faults struct {
	create   error
	publish  error // after the file got its name
	open     error
	write    error // after half of the bytes
	sync     error // what was written since the last sync is lost, and reads as zeros
	truncate error
	full     bool // writing fails while the reserve is there
	reserve  bool // is there
	creep    bool // what was synced long ago changes as well
}

func (d *badDisk) set(change func(*faults)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.faults)
}

func (d *badDisk) get() faults {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.faults
}

func (d *badDisk) create(path string) (file, error) {
	if err := d.get().create; err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f, err := d.system.create(path)
	return &badFile{file: f, d: d}, err
}

func (d *badDisk) publish(from, to string) error {
	if err := d.system.publish(from, to); err != nil {
		return err
	}
	return d.get().publish
}

func (d *badDisk) open(path string) (file, error) {
	if err := d.get().open; err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f, err := d.system.open(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &badFile{f, d, info.Size(), info.Size()}, nil
}

func (d *badDisk) reserve(_ string, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size > 0 && d.faults.full {
		return syscall.ENOSPC
	}
	d.faults.reserve = size > 0
	return nil
}

func (d *badDisk) free(string) (int64, error) {
	if d.get().full {
		return 0, nil
	}
	return 1 << 30, nil
}

type badFile struct {
	file
	d      *badDisk
	synced int64 // bytes of it
	size   int64
}

func (f *badFile) WriteAt(b []byte, at int64) (int, error) {
	is := f.d.get()
	err := is.write
	if is.full && is.reserve {
		err = syscall.ENOSPC
	}
	if err != nil {
		n, _ := f.file.WriteAt(b[:len(b)/2], at)
		f.size = max(f.size, at+int64(n))
		return n, err
	}
	n, err := f.file.WriteAt(b, at)
	f.size = max(f.size, at+int64(n))
	return n, err
}

func (f *badFile) Sync() error {
	if c := f.d.syncing; c != nil {
		c <- struct{}{}
		<-c
	}
	is := f.d.get()
	if is.sync != nil {
		if is.creep {
			_, _ = f.file.WriteAt([]byte("creep"), f.synced/2)
		}
		_, _ = f.file.WriteAt(make([]byte, f.size-f.synced), f.synced)
		return is.sync
	}
	f.synced = f.size
	return f.file.Sync()
}

func (f *badFile) Truncate(size int64) error {
	if err := f.d.get().truncate; err != nil {
		return err
	}
	f.size, f.synced = size, min(size, f.synced)
	return f.file.Truncate(size)
}

func testKeys() []Key {
	return []Key{{ID: "key-1", Secret: func() []byte { return make([]byte, 32) }}}
}

type stepClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *stepClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *stepClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// bench is a record on a disk with faults.
type bench struct {
	t     *testing.T
	dir   string
	disk  *badDisk
	clock *stepClock
	log   *Log
	acked map[uint64]string
}

func newBench(t *testing.T, edit func(*Config)) *bench {
	b := &bench{t: t, dir: t.TempDir(), disk: new(badDisk), clock: &stepClock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}, acked: make(map[uint64]string)}
	b.open(edit)
	return b
}

func (b *bench) open(edit func(*Config)) {
	b.t.Helper()
	c := Config{Node: "gate-1", Keys: testKeys, Now: b.clock.Now, Interval: time.Hour, Reserve: 1 << 20, disk: b.disk}
	if edit != nil {
		edit(&c)
	}
	var err error
	if b.log, err = Open(b.dir, c); err != nil {
		b.t.Fatal(err)
	}
}

// add appends an entry that says text, which is good or unavailable.
func (b *bench) add(text string, good bool) error {
	b.t.Helper()
	id, err := b.log.Append(context.Background(), Draft{Kind: "login.success", Body: text})
	if (err == nil) != good || err != nil && !errors.Is(err, ErrUnavailable) {
		b.t.Fatalf("%s: got %v, want it durable: %v", text, err, good)
	}
	if err == nil {
		if old, taken := b.acked[id.Sequence]; taken {
			b.t.Fatalf("%s has %v, as %s has", text, id, old)
		}
		b.acked[id.Sequence] = text
	}
	return err
}

// all closes the record and holds it against what was acknowledged: nothing is
// lost, nothing else is there but entries of the record's own.
func (b *bench) all() *Report {
	b.t.Helper()
	if err := b.log.Close(); err != nil {
		b.t.Error(err)
	}
	r, err := Check(context.Background(), b.dir, testKeys, Contents)
	if err != nil || !r.OK() {
		b.t.Fatalf("faults %+v, %v", r.Faults, err)
	}
	left := len(b.acked)
	if err := Read(context.Background(), b.dir, testKeys, Query{Class: Waiting}, func(e Entry) error {
		if strings.HasPrefix(e.Kind, own) {
			return nil
		}
		var text string
		if err := json.Unmarshal(e.Body, &text); err != nil || b.acked[e.Sequence] != text {
			b.t.Errorf("entry %d says %s, want %q", e.Sequence, e.Body, b.acked[e.Sequence])
		}
		left--
		return nil
	}); err != nil {
		b.t.Error(err)
	}
	if left != 0 {
		b.t.Errorf("%d acknowledged entries are lost", left)
	}
	return r
}

func (b *bench) failing(want string) {
	b.t.Helper()
	s := b.log.Status()
	if (s.Why == "") != (want == "") || !strings.Contains(s.Why, want) || s.Since.IsZero() != (want == "") {
		b.t.Errorf("status %+v, want why %q", s, want)
	}
}

// A write that fails is no entry; writing goes on when it can.
func TestWriteFails(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
		t.Run(fault.Error(), func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.Reserve = -1 })
			b.add("one", true)
			b.disk.set(func(f *faults) { f.write = fault })
			for range 3 {
				if err := b.add("lost", false); !errors.Is(err, fault) || !strings.Contains(err.Error(), b.dir) {
					t.Errorf("got %v, want the cause and the place", err)
				}
			}
			b.failing(fault.Error())
			b.disk.set(func(f *faults) { f.write = nil })
			b.add("two", true)
			b.failing("")
			if r := b.all(); r.Last != 2 {
				t.Errorf("the last is %d", r.Last)
			}
		})
	}
}

// After a failed sync the pages that were not written are not believed.
func TestSyncFails(t *testing.T) {
	b := newBench(t, nil)
	b.add("one", true)
	b.disk.set(func(f *faults) { f.sync = syscall.EIO })
	b.add("lost", false)
	b.disk.set(func(f *faults) { f.sync = nil })
	b.add("two", true) // the first attempt to repair is made at once
	b.disk.set(func(f *faults) { f.sync = syscall.EIO })
	b.add("lost", false)
	b.add("lost", false)
	b.disk.set(func(f *faults) { f.sync = nil })
	if err := b.add("too early", false); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	b.failing("sync")
	b.clock.step(repairPause)
	b.add("three", true)
	b.failing("")
	if r := b.all(); r.Last != 3 {
		t.Errorf("the last is %d", r.Last)
	}
}

// When acknowledged bytes are not what they were, nothing is written after them.
func TestSyncFailsAndMore(t *testing.T) {
	b := newBench(t, nil)
	b.add("one", true)
	b.add("two", true)
	b.disk.set(func(f *faults) { f.sync, f.creep = syscall.EIO, true })
	b.add("lost", false)
	b.disk.set(func(f *faults) { f.sync = nil })
	for range 3 {
		b.clock.step(time.Minute)
		b.add("lost", false)
	}
	b.failing("after a failed sync")
	if err := b.log.Close(); err != nil {
		t.Error(err)
	}
	c := b.log.cfg
	if _, err := Open(b.dir, c); err == nil || !strings.Contains(err.Error(), "fsck") {
		t.Errorf("opened after damage: %v", err)
	}
}

func TestCutFails(t *testing.T) {
	b := newBench(t, nil)
	b.add("one", true)
	b.disk.set(func(f *faults) { f.write, f.truncate = syscall.EIO, syscall.EIO })
	b.add("lost", false)
	b.disk.set(func(f *faults) { f.write = nil })
	b.add("lost", false) // nothing is written behind what could not be cut off
	b.failing("cutting")
	if err := b.log.Close(); err != nil {
		t.Error(err)
	}
	b.disk.set(func(f *faults) { f.truncate = nil })
	b.open(nil)
	b.add("two", true)
	if r := b.all(); r.Last != 3 { // and an entry about what was cut
		t.Errorf("the last is %d", r.Last)
	}
}

func TestNoSegment(t *testing.T) {
	b := newBench(t, func(c *Config) { c.SegmentBytes = 1 << 10 })
	b.disk.set(func(f *faults) { f.create = syscall.ENOSPC })
	b.add("lost", false)
	b.failing("beginning a segment")
	b.disk.set(func(f *faults) { f.create = nil })
	b.add("one", true)
	b.add("two", true)
	b.disk.set(func(f *faults) { f.create = syscall.EACCES })
	for b.log.Status().Why == "" {
		if _, err := b.log.Append(t.Context(), Draft{Kind: "login.success", Body: "more"}); err == nil {
			b.acked[b.log.Status().Last.Sequence] = "more"
		}
	}
	b.add("lost", false)
	b.disk.set(func(f *faults) { f.create = nil })
	b.add("three", true)
	b.failing("")
	b.all()
}

// A segment that perhaps has its name is begun before anything else is written, since
// entries of the one before would have the same numbers.
func TestSegmentPerhapsBegun(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		b := newBench(t, func(c *Config) { c.SegmentBytes = 2 << 10 })
		b.add("one", true)
		b.disk.set(func(f *faults) { f.publish = syscall.EIO })
		b.add(strings.Repeat("long", 500), false)
		b.failing("beginning a segment")
		b.add("small", false) // there would be room for it in the first segment
		if restarted {
			if err := b.log.Close(); err != nil {
				t.Error(err)
			}
			b.disk.set(func(f *faults) { f.publish = nil })
			b.open(nil)
		} else {
			b.disk.set(func(f *faults) { f.publish = nil })
			if err := b.log.Flush(t.Context()); err != nil { // nobody writes meanwhile
				t.Error(err)
			}
		}
		b.failing("")
		b.add("two", true)
		if r := b.all(); r.Segments != 2 || r.Last != 2 {
			t.Errorf("report %+v", r)
		}
	}
}

// What was left of a segment that was being made is no hindrance.
func TestSegmentLeftOver(t *testing.T) {
	b := newBench(t, func(c *Config) { c.SegmentBytes = 1 << 10 })
	b.add("one", true)
	if err := os.WriteFile(segmentPath(b.dir, 2)+".new", []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.add(strings.Repeat("long", 250), true)
	if r := b.all(); r.Segments != 2 {
		t.Errorf("report %+v", r)
	}
}

// A file system that cannot reserve room at once has it taken by writing.
func TestFillUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reserve")
	for _, size := range []int64{100_000, 200_000, 200_000, 50_000} {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fillUp(f, size), f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err != nil || s.Size != size || s.Blocks*512 < size {
			t.Errorf("%d bytes in %d blocks, %v, want %d", s.Size, s.Blocks, err, size)
		}
	}
}

// A full disk takes waiting entries from its reserve, and nothing else.
func TestReserve(t *testing.T) {
	b := newBench(t, nil)
	b.add("one", true)
	b.disk.set(func(f *faults) { f.full = true })
	b.log.Count(Denial{Kind: "denial.limit"})
	if err := b.log.Flush(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("denials on a full disk: %v", err)
	}
	if s := b.log.Status(); !b.disk.get().reserve || !s.Full || s.Why != "" {
		t.Errorf("denials on a full disk: the reserve is there: %v, status %+v", b.disk.get().reserve, s)
	}
	b.add("two", true)
	if s := b.log.Status(); b.disk.get().reserve || !s.ReserveOut || s.Why != "" || s.Counted != 1 {
		t.Errorf("reserve there: %v, status %+v", b.disk.get().reserve, s)
	}
	b.log.Count(Denial{Kind: "denial.limit"})
	if err := b.log.Flush(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("denials from the reserve: %v", err)
	}
	b.disk.set(func(f *faults) { f.write = syscall.ENOSPC }) // the reserve is used up
	b.add("lost", false)
	b.disk.set(func(f *faults) { f.write, f.full = nil, false })
	if err := b.log.Flush(t.Context()); err != nil { // there is room again
		t.Fatal(err)
	}
	if s := b.log.Status(); !b.disk.get().reserve || s.ReserveOut || s.Full || s.Counted != 0 || s.Why != "" {
		t.Errorf("reserve there: %v, status %+v", b.disk.get().reserve, s)
	}
	b.add("three", true)
	if r := b.all(); r.Aggregated != 1 {
		t.Errorf("report %+v", r)
	}
	if err := Read(t.Context(), b.dir, testKeys, Query{Class: Aggregated}, func(e Entry) error {
		if e.Count != 2 {
			t.Errorf("%d denials, want 2", e.Count)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// Status gets well again without anybody who writes.
func TestRecoversAlone(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Reserve = -1 })
	b.add("one", true)
	for _, fault := range []func(*faults){
		func(f *faults) { f.write = syscall.ENOSPC },
		func(f *faults) { f.sync = syscall.EIO },
	} {
		b.disk.set(fault)
		b.add("lost", false)
		b.disk.set(func(f *faults) { *f = faults{} })
		b.clock.step(time.Minute)
		if err := b.log.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		b.failing("")
	}
	b.all()
}

// What is sealed while a group fails, fails with it; nobody waits for ever.
func TestNextGroupFails(t *testing.T) {
	b := newBench(t, nil)
	b.add("one", true)
	b.disk.syncing = make(chan struct{})
	errs := make(chan error, 2)
	write := func() {
		_, err := b.log.Append(context.Background(), Draft{Kind: "login.success", Body: "lost"})
		errs <- err
	}
	go write()
	<-b.disk.syncing // the first group is being synced
	go write()
	for b.log.waiting.Load() < 2 || len(b.log.queue) > 0 {
		runtime.Gosched()
	}
	b.disk.set(func(f *faults) { f.sync = syscall.EIO })
	syncing := b.disk.syncing
	b.disk.syncing = nil
	syncing <- struct{}{}
	for range 2 {
		if err := <-errs; !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	b.disk.set(func(f *faults) { f.sync = nil })
	b.clock.step(time.Minute)
	b.add("two", true)
	b.all()
}

// A caller that does not want to wait any more goes.
func TestContext(t *testing.T) {
	b := newBench(t, nil)
	over, end := context.WithCancel(t.Context())
	end()
	for range 20 { // never by chance
		if _, err := b.log.Append(over, Draft{Kind: "login.success", Body: "never"}); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that had ended: %v", err)
		}
	}
	if s := b.log.Status(); !s.Last.IsZero() {
		t.Errorf("%v was written", s.Last)
	}
	b.disk.syncing = make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := make(chan error)
	go func() {
		_, err := b.log.Append(ctx, Draft{Kind: "login.success", Body: "perhaps"})
		errs <- err
	}()
	<-b.disk.syncing
	gone := errors.New("gone")
	cancel(gone)
	if err := <-errs; !errors.Is(err, gone) || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	syncing := b.disk.syncing
	go func() {
		for range syncing {
			syncing <- struct{}{}
		}
	}()
	syncing <- struct{}{}
	if err := b.log.Close(); err != nil {
		t.Error(err)
	}
	close(syncing)
}

// TestSmallDisk fills a real file system.
func TestSmallDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("only root may mount a small disk: the faults above stand for it")
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Logf("no small disk can be mounted (%v): the faults above stand for it", err)
		return
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	b := &bench{t: t, dir: filepath.Join(dir, "record"), clock: &stepClock{now: time.Now()}, acked: make(map[uint64]string)}
	real := func(c *Config) { c.disk, c.Reserve = nil, 128<<10 }
	b.open(real)
	b.add("one", true)
	other := filepath.Join(dir, "other")
	fill(t, other)
	more := func() (size int) { // as long as there is room
		text := strings.Repeat("x", 4000)
		for {
			id, err := b.log.Append(t.Context(), Draft{Kind: "login.success", Body: text})
			if err != nil {
				if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				return size
			}
			b.acked[id.Sequence] = text
			size += len(text)
		}
	}
	size := more()
	if s := b.log.Status(); size < 64<<10 || size > 256<<10 || !s.ReserveOut || s.Why == "" {
		t.Errorf("the reserve of 128 KiB took %d bytes; status %+v", size, s)
	}
	if err := b.log.Close(); err != nil { // a start on a full disk
		t.Error(err)
	}
	b.open(real)
	more()
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	b.add("two", true)
	if err := b.log.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := b.log.Status(); s.ReserveOut || s.Why != "" {
		t.Errorf("status %+v", s)
	}
	b.all()
}

// fill takes all that is left of a disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{64 << 10, 4 << 10, 512, 1} {
		for err == nil {
			_, err = f.Write(make([]byte, n))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
