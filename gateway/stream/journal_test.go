package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// openAt opens a journal that ended, and says which events are in it.
func openAt(t *testing.T, dir string, incarnation uint64) (*Stream, []uint64) {
	t.Helper()
	s, err := Open(Config{Node: "a", Incarnation: incarnation, Now: func() time.Time { return noon }, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	var sequences []uint64
	if err := s.Replay(t.Context(), nil, func(e detectors.Event) error {
		sequences = append(sequences, e.Key.Sequence)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return s, sequences
}

func written(t *testing.T, count int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	w := newWorld()
	n := w.add(t, "a", dir, nil)
	for range count {
		n.publish()
	}
	n.crash()
	return dir
}

func TestJournalIsPrivate(t *testing.T) {
	for _, path := range files(t, written(t, 1)) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestJournalIsCutAtEachByte(t *testing.T) {
	dir := written(t, 4)
	path := filepath.Base(files(t, dir)[0])
	whole, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64 // of the events' frames
	_, _, _, _ = frames(whole, func(offset int64, payload []byte) error {
		if d := (decoder{b: payload}); true {
			if kind, _ := d.header(); kind == eventsKind {
				ends = append(ends, offset+frameHeader+int64(len(payload)))
			}
		}
		return nil
	})
	if len(ends) != 4 || ends[3] != int64(len(whole)) {
		t.Fatalf("frames end at %v of %d", ends, len(whole))
	}
	for size := range len(whole) {
		torn := t.TempDir()
		if err := os.WriteFile(filepath.Join(torn, path), whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		s, sequences := openAt(t, torn, 2)
		want := 0
		for _, end := range ends {
			if int64(size) >= end {
				want++
			}
		}
		if len(sequences) != want {
			t.Fatalf("cut at %d: %d events, want %d", size, len(sequences), want)
		}
		atEnd := want > 0 && int64(size) == ends[want-1]
		if cut := s.Status().Journal.BytesCut; want > 0 && (cut == 0) != atEnd {
			t.Fatalf("cut at %d: %d bytes reported", size, cut)
		}
		if v := s.Vector(); want > 0 && (len(v) != 2 || v[0].Through != uint64(want)) {
			t.Fatalf("cut at %d: vector %+v", size, v)
		}
	}
}

func TestJournalWithABadByte(t *testing.T) {
	dir := written(t, 6)
	path := filepath.Base(files(t, dir)[0])
	whole, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		torn := t.TempDir()
		bad := bytes.Clone(whole)
		bad[at] ^= 0x10
		if err := os.WriteFile(filepath.Join(torn, path), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, sequences := openAt(t, torn, 2)
		st := s.Status().Journal
		if st.BytesCut == 0 && st.Damaged == 0 {
			t.Fatalf("byte %d: nobody noticed, %d events", at, len(sequences))
		}
		if !slices.IsSorted(sequences) || st.BytesCut == 0 && len(sequences) < 5 {
			t.Fatalf("byte %d: events %v, %+v", at, sequences, st)
		}
	}
}

// TestJournalLongRun goes over many segments and lives.
func TestJournalLongRun(t *testing.T) {
	w := newWorld()
	n := w.add(t, "a", t.TempDir(), func(c *Config) { c.JournalBytes = 16 * smallestSegment })
	defer func() { n.crash() }()
	for life := range 3 {
		for range 3000 {
			n.publish()
		}
		n.stream.Snapshot(func(v Vector) { n.kept, n.keptState = v, maps.Clone(n.applied) })
		for range 100 {
			n.publish()
		}
		if life == 1 { // in order
			if err := n.stream.Close(); err != nil {
				t.Fatal(err)
			}
		}
		n.restart(t, true)
	}
	if got := len(n.applied); got != 9300 {
		t.Errorf("%d events, want 9300", got)
	}
	st := n.stream.Status()
	if st.Journal.Bytes > 16*smallestSegment+smallestSegment || st.Spooled+st.Unsent != 9300 {
		t.Errorf("status %+v", st)
	}
}

// TestJournalBoundIsCounted shows that what the bound takes before Redis has it is
// counted exactly, here and there.
func TestJournalBoundIsCounted(t *testing.T) {
	w := newWorld()
	short := func(c *Config) { c.JournalBytes, c.GiveUp = 4*smallestSegment, 10*time.Second }
	a, b := w.add(t, "a", t.TempDir(), short), w.add(t, "b", t.TempDir(), nil)
	defer a.crash()
	defer b.crash()
	w.settle(time.Minute)
	a.publish()
	w.settle(time.Minute)
	a.cut = true
	const events = 20_000
	for range events {
		a.publish()
	}
	lost := a.stream.Status().Unsent
	if st := a.stream.Status(); lost == 0 || st.Spooled+st.Unsent != events {
		t.Fatalf("%d published, status %+v", events, st)
	}
	w.settle(5 * time.Minute)
	if got := uint64(len(b.applied)); got != events+1-lost {
		t.Errorf("%d events arrived of %d, lost %d", got, events, lost)
	}
	if st := a.stream.Status(); st.Unsent != lost || st.Spooled != 0 {
		t.Errorf("the sender: %+v", st)
	}
	if st := b.stream.Status(); st.Lost != lost || st.GapsOpen != 0 {
		t.Errorf("the receiver: %+v, want %d lost", st, lost)
	}
}

// TestDiskFull lets the disk take nothing, and then something again.
func TestDiskFull(t *testing.T) {
	w := newWorld()
	dir := filepath.Join(t.TempDir(), "journal")
	n := w.add(t, "a", dir, nil)
	defer func() { n.crash() }()
	n.publish()
	j := n.stream.journal
	noSpace, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	j.segments[0].file.Close()
	j.segments[0].file = noSpace
	obstacles := func(each func(path string) error) {
		for number := range 9 {
			if err := each(filepath.Join(dir, fmt.Sprintf("%016d%s", number+1, segmentSuffix))); err != nil {
				t.Fatal(err)
			}
		}
	}
	obstacles(func(path string) error { return os.WriteFile(path, nil, 0o600) })
	for range 100 {
		n.publish()
	}
	if st := n.stream.Status().Journal; st.Error == "" || st.Memory == 0 || st.Unkept != 0 || !st.Since.Equal(w.now) {
		t.Errorf("status %+v", st)
	}
	page, _, err := n.stream.Search(t.Context(), Query{Limit: 1000})
	if len(page) != 101 {
		t.Errorf("%d events found, %v", len(page), err)
	}
	n.stream.tend() // to no avail
	n.publish()
	obstacles(os.Remove)
	n.stream.tend() // /dev/full takes no fsync
	n.stream.tend()
	n.publish()
	if st := n.stream.Status().Journal; st.Error != "" || st.Memory != 0 || st.Unkept != 0 {
		t.Errorf("status %+v", st)
	}
	n.restart(t, true)
	if len(n.applied) != 103 {
		t.Errorf("%d events, want 103", len(n.applied))
	}
}

// TestDiskFullForLong bounds what waits in memory, and counts the rest.
func TestDiskFullForLong(t *testing.T) {
	w := newWorld()
	dir := filepath.Join(t.TempDir(), "journal")
	n := w.add(t, "a", dir, nil)
	defer func() { n.crash() }()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	const events = 20_000
	for range events {
		n.stream.Publish(detectors.Event{Account: detectors.Account(bytes.Repeat([]byte("a"), longest))})
	}
	st := n.stream.Status().Journal
	if st.Unkept == 0 || st.Memory > memoryBytes+largestSegment {
		t.Errorf("status %+v", st)
	}
	held := 0
	for _, s := range n.stream.journal.segments {
		held += int(s.count)
	}
	if uint64(held)+st.Unkept != events {
		t.Errorf("%d held and %d not kept, want %d together", held, st.Unkept, events)
	}
}

// TestDiskFailsAnywhere has the disk fail while a file is begun, written, healed and
// closed: what was told is there after a start.
func TestDiskFailsAnywhere(t *testing.T) {
	steps := map[string]func(n *simulated){
		"while healing": func(n *simulated) { n.full = true; n.stream.tend(); n.full = false; n.stream.tend() },
		"until it is closed": func(n *simulated) {
			n.full = false
			if err := n.stream.Close(); err != nil {
				t.Error(err)
			}
		},
		"with much in memory": func(n *simulated) {
			for range 20 {
				n.publishLarge()
			}
			n.full = false
			n.stream.tend()
		},
		"with remains that could not be removed": func(n *simulated) {
			j := n.stream.journal
			path := filepath.Join(j.dir, fmt.Sprintf("%016d%s", j.segments[len(j.segments)-1].number, segmentSuffix))
			if err := os.WriteFile(path, segmentMagic, 0o600); err != nil {
				t.Fatal(err)
			}
			n.full = false
			n.stream.tend()
		},
		"twice": func(n *simulated) {
			n.full = false
			n.stream.tend()
			n.publish()
			n.full = true
			n.publish()
			n.full = false
			n.stream.tend()
			n.publish()
		},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			n := w.add(t, "a", t.TempDir(), func(c *Config) { c.JournalBytes = 16 * smallestSegment })
			defer func() { n.crash() }()
			n.publish()
			n.full = true
			n.publish()
			if st := n.stream.Status().Journal; st.Error == "" || st.Memory == 0 {
				t.Errorf("status %+v", st)
			}
			step(n)
			if st := n.stream.Status().Journal; st.Error != "" || st.Memory != 0 || st.Unkept != 0 {
				t.Errorf("status %+v", st)
			}
			n.restart(t, true) // compares
		})
	}
}

// TestJournalWithoutADirectory starts all the same, and heals when it can.
func TestJournalWithoutADirectory(t *testing.T) {
	w := newWorld()
	dir := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := w.add(t, "a", dir, nil)
	defer func() { n.crash() }()
	if st := n.stream.Status().Journal; st.Error == "" || !st.Since.Equal(w.now) {
		t.Errorf("status %+v", st)
	}
	n.publish()
	n.stream.tend()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	n.stream.tend()
	if st := n.stream.Status().Journal; st.Error != "" || st.Memory != 0 {
		t.Errorf("status %+v", st)
	}
	n.restart(t, true)
}

// TestSegmentThatCannotBeRead does not hold up what comes after it for ever.
func TestSegmentThatCannotBeRead(t *testing.T) {
	w := newWorld()
	a, b := w.add(t, "a", t.TempDir(), nil), w.add(t, "b", "", nil)
	defer func() { a.crash() }()
	w.settle(time.Minute)
	a.cut = true
	for range 10 {
		a.publish()
	}
	a.restart(t, true)
	a.publish()
	path := a.stream.journal.segments[0].path
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil { // opens, and cannot be read
		t.Fatal(err)
	}
	a.cut = false
	a.send()
	if st := a.stream.Status(); st.Unsent != 0 || st.Spooled != 10 {
		t.Errorf("status %+v, want 10 to wait", st)
	}
	w.settle(time.Minute)
	w.settle(time.Minute)
	if st := a.stream.Status(); st.Unsent != 10 || st.Spooled != 0 {
		t.Errorf("status %+v, want 10 lost", st)
	}
	if len(b.applied) != 1 {
		t.Errorf("%d events arrived, want 1", len(b.applied))
	}
}

// TestMarksAlone does not let a file grow without events.
func TestMarksAlone(t *testing.T) {
	w := newWorld()
	n := w.add(t, "a", t.TempDir(), func(c *Config) { c.JournalBytes = 4 * smallestSegment })
	defer n.crash()
	for range 20_000 {
		w.now = w.now.Add(time.Second)
		n.send()
		n.receive()
		n.stream.publishing.Lock()
		n.stream.note()
		n.stream.publishing.Unlock()
		w.logs[eventLog] = w.logs[eventLog][len(w.logs[eventLog])-1:]
	}
	if st := n.stream.Status().Journal; st.Bytes > 4*smallestSegment+smallestSegment {
		t.Errorf("%d bytes of journal without an event", st.Bytes)
	}
}

// TestHolesAreCounted loses events in the middle of those that wait to be sent.
func TestHolesAreCounted(t *testing.T) {
	w := newWorld()
	a, b := w.add(t, "a", t.TempDir(), nil), w.add(t, "b", t.TempDir(), nil)
	defer a.crash()
	defer b.crash()
	w.settle(time.Minute)
	a.cut = true
	for _, n := range []int{10, 10, 10} {
		for range n {
			a.publish()
		}
		j := a.stream.journal
		j.mu.Lock()
		j.end(j.segments[len(j.segments)-1])
		j.mu.Unlock()
	}
	j := a.stream.journal
	j.mu.Lock()
	j.remove(1)
	j.mu.Unlock()
	if st := a.stream.Status(); st.Unsent != 10 || st.Spooled != 20 {
		t.Errorf("status %+v", st)
	}
	w.settle(time.Minute)
	if st := a.stream.Status(); st.Unsent != 10 || st.Spooled != 0 {
		t.Errorf("the sender: %+v", st)
	}
	if st := b.stream.Status(); len(b.applied) != 20 || st.Lost != 10 {
		t.Errorf("%d events, the receiver: %+v", len(b.applied), st)
	}
}

// TestJournalLeavesRoom has the journal go on in what it has while the disk has
// little room, and grow when there is more.
func TestJournalLeavesRoom(t *testing.T) {
	w := newWorld()
	room := false
	n := w.add(t, "a", t.TempDir(), func(c *Config) {
		c.JournalBytes, c.Room = 64*smallestSegment, func() bool { return room }
	})
	defer n.crash()
	for range 10_000 {
		n.publish()
	}
	if st := n.stream.Status().Journal; st.Bytes > 2*smallestSegment || st.Memory > 0 || st.Error != "" {
		t.Errorf("without room: %+v", st)
	}
	if taken := n.taken(t); taken > 2*smallestSegment {
		t.Errorf("without room %d bytes of the disk are taken, want at most two segments", taken)
	}
	room = true
	for range 10_000 {
		n.publish()
	}
	if st := n.stream.Status().Journal; st.Bytes < 4*smallestSegment {
		t.Errorf("with room: %+v", st)
	}
}

func TestJournalAge(t *testing.T) {
	w := newWorld()
	n := w.add(t, "a", t.TempDir(), func(c *Config) { c.JournalAge = time.Hour })
	defer n.crash()
	n.publish()
	w.now = w.now.Add(59 * time.Minute)
	n.stream.tend()
	if len(files(t, n.dir)) == 0 {
		t.Fatal("the journal went too early")
	}
	w.now = w.now.Add(2 * time.Minute)
	n.stream.tend()
	n.stream.tend()
	for _, path := range files(t, n.dir) {
		if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte("tanaka")) {
			t.Errorf("%s still holds the event, or %v", path, err)
		}
	}
	if st := n.stream.Status(); st.Unsent != 1 {
		t.Errorf("%d counted as never sent, want 1", st.Unsent)
	}
}

func TestIncarnationsAreNew(t *testing.T) {
	dir := written(t, 1)
	if s, err := Open(Config{Node: "a", Incarnation: 1, Now: time.Now, Dir: dir}); err == nil {
		s.Close()
		t.Error("an incarnation was used twice")
	}
}

// TestPasswordsAreForDetectors shows who gets digests of passwords: subscribers, now
// and when the journal is read again, and nobody who shows events to people.
func TestPasswordsAreForDetectors(t *testing.T) {
	dir := t.TempDir()
	s, _ := openAt(t, dir, 1)
	e := full()
	var seen detectors.Event
	s.Subscribe(func(e detectors.Event) { seen = e })
	s.Publish(e)
	if diff := differ(detectors.Event{Password: e.Password}, detectors.Event{Password: seen.Password}); diff != "" {
		t.Errorf("a subscriber (-want +got):\n%s", diff)
	}
	page, _, err := s.Search(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	for by, found := range map[string][]detectors.Event{"Search": page, "Recent": s.Recent(9)} {
		if len(found) != 1 {
			t.Fatalf("%s: %d events", by, len(found))
		}
		if p := found[0].Password; !p.Digest.IsZero() || p.Near != nil || !p.Breached || p.Popularity != 48 {
			t.Errorf("%s: %+v", by, p)
		}
	}
	var replayed detectors.Event
	if err := s.Replay(t.Context(), nil, func(e detectors.Event) error { replayed = e; return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := differ(seen, replayed); diff != "" {
		t.Errorf("replayed (-want +got):\n%s", diff)
	}
}

func TestSearch(t *testing.T) {
	at := noon
	s, err := Open(Config{Node: "a", Incarnation: 1, Now: func() time.Time { return at }, Dir: t.TempDir(), JournalBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const events = 3000
	for i := range events {
		e := full()
		e.Time, e.Account = time.Time{}, detectors.Account(fmt.Sprint("u-", i%10))
		e.Session = fmt.Sprint("s-", i)
		s.Publish(e)
		at = at.Add(time.Second)
	}
	if n := len(files(t, s.Dir)); n < 3 {
		t.Fatalf("%d segments are too few for this test", n)
	}
	all := func(q Query) (found []detectors.Event, calls int) {
		for {
			page, next, err := s.Search(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, page...)
			if calls++; next == "" {
				return found, calls
			}
			q.Cursor = next
		}
	}
	tests := map[string]struct {
		q    Query
		want int
	}{
		"all":                  {Query{Limit: 77}, events},
		"from":                 {Query{From: noon.Add(2990 * time.Second)}, 10},
		"to":                   {Query{To: noon.Add(10 * time.Second)}, 10},
		"account":              {Query{Account: "u-3", Limit: 1000}, events / 10},
		"session":              {Query{Session: "s-1234"}, 1},
		"address":              {Query{Source: netip128("2001:db8::17"), Limit: 1000}, events},
		"network":              {Query{Source: prefix("2001:db8::5/32"), Limit: 1000}, events},
		"other network":        {Query{Source: prefix("192.0.2.0/24")}, 0},
		"name":                 {Query{Name: full().Name.Digest, Limit: 1000}, events},
		"other name":           {Query{Name: detectors.Digest{9}}, 0},
		"outcome":              {Query{Outcome: detectors.Refused, Limit: 1000}, events},
		"other outcome":        {Query{Outcome: detectors.Success}, 0},
		"other kind":           {Query{Kind: detectors.Door}, 0},
		"account and a moment": {Query{Account: "u-3", From: noon.Add(3 * time.Second), To: noon.Add(4 * time.Second)}, 1},
	}
	for name, test := range tests {
		found, calls := all(test.q)
		if len(found) != test.want || calls > test.want/max(test.q.Limit, 1)+3 {
			t.Errorf("%s: %d events in %d calls, want %d", name, len(found), calls, test.want)
		}
		if !slices.IsSortedFunc(found, func(a, b detectors.Event) int { return int(b.Key.Sequence) - int(a.Key.Sequence) }) {
			t.Errorf("%s: not the newest first", name)
		}
	}
	for _, bad := range []Cursor{"x", "AA", "!", Cursor(bytes.Repeat([]byte("A"), 100))} {
		if _, _, err := s.Search(t.Context(), Query{Cursor: bad}); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Search(ended, Query{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended: %v", err)
	}
}

func FuzzSegment(f *testing.F) {
	w := newWorld()
	n := w.add(f, "a", "", nil)
	for range 3 {
		n.publish()
	}
	n.stream.journal.end(n.stream.journal.segments[0])
	f.Add(n.stream.journal.segments[0].buf)
	f.Add(segmentMagic)
	_, _, _, _ = frames(n.stream.journal.segments[0].buf, func(_ int64, payload []byte) error {
		f.Add(bytes.Clone(payload))
		return nil
	})
	f.Add(appendVectors(sendersOf(Vector{{"b", 2, 9, []Interval{{3, 4}, {6, 6}}}}), senderID{"a", 1})[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		readSegment(t, n.config.Log, b)
		if len(b) > 0 && len(b) < largestFrame { // and with a checksum that is right
			framed := appendFrame(bytes.Clone(segmentMagic), b)
			readSegment(t, n.config.Log, framed)
			_ = newSegment(1).decodeSummary(b)
		}
	})
}

func readSegment(t *testing.T, log *slog.Logger, b []byte) {
	newSegment(1).summary(bytes.NewReader(b), int64(len(b)))
	end, tail, _, _ := frames(b, func(int64, []byte) error { return nil })
	if end+tail != int64(len(b)) && end+tail+16 != int64(len(b)) {
		t.Fatalf("of %d bytes frames end at %d, and %d are left", len(b), end, tail)
	}
	j := journal{self: senderID{"a", 1}, log: log, room: func() bool { return true }, segments: []*segment{{buf: b, size: int64(len(b)), spans: map[senderID]span{{"any", 1}: {1, 1, 1}}}}}
	r := recovered{senders: make(senders)}
	if err := j.recall(&r); err != nil {
		t.Fatal(err)
	}
	for id, one := range r.senders {
		below := uint64(0)
		for _, g := range one.gaps {
			if g.lo <= below || g.hi < g.lo || g.hi > one.through {
				t.Fatalf("%v: %+v", id, one)
			}
			below = g.hi
		}
	}
	if err := j.replay(make(senders), func(detectors.Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func netip128(text string) netip.Prefix {
	a := netip.MustParseAddr(text)
	return netip.PrefixFrom(a, a.BitLen())
}
