package detectors_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/snapshot"
)

// small is a set whose tables are full soon.
func small() *detectors.Set {
	return detectors.NewSet(
		detectors.NewSequential(detectors.SequentialConfig{Sources: 2500}),
		detectors.NewPenalty(detectors.PenaltyConfig{Sources: 2500, Accounts: 300}))
}

// traffic is n events of many sources, offices among them, in random order of kinds.
func traffic(r *rand.Rand, start time.Time, n int) (events []detectors.Event) {
	at := start
	for range n {
		at = at.Add(time.Duration(r.IntN(20_000)) * time.Millisecond)
		source := addressOf(uint32(r.IntN(3000))).String()
		if r.IntN(3) == 0 {
			source = fmt.Sprintf("203.0.113.%d", r.IntN(4)) // offices and attackers
		}
		name := fmt.Sprintf("user%d", r.IntN(500))
		o := detectors.Failure
		if r.IntN(4) == 0 {
			o = detectors.Success
		}
		e := attempt(at, source, name, o)
		e.Source.Shared = r.IntN(10) == 0
		if r.IntN(2) == 0 {
			e = of(e, name, time.Duration(r.IntN(72))*time.Hour)
		}
		if r.IntN(10) == 0 {
			e.Device.State = detectors.Trusted
		}
		e.Password = detectors.PasswordFacts{Typo: r.IntN(5) == 0, Repeat: r.IntN(9) == 0, Popularity: r.IntN(49)}
		events = append(events, e)
	}
	return events
}

func snap(t testing.TB, s *detectors.Set, header string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot(&b, []byte(header)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restored(t testing.TB, s *detectors.Set, b []byte) *detectors.Set {
	t.Helper()
	if _, err := s.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	return s
}

// Events A, a snapshot, a restart and events B are as A and B without.
func TestARestartChangesNothing(t *testing.T) {
	for _, length := range []int{0, 1, 50, 4000, 20_000} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(length), 7))
			through, before := small(), small()
			a := traffic(r, monday, length)
			for _, e := range a {
				through.Observe(e)
				before.Observe(e)
			}
			after := small()
			header, err := after.Restore(bytes.NewReader(snap(t, before, `{"tokyo-1":42}`)))
			if err != nil || string(header) != `{"tokyo-1":42}` {
				t.Fatalf("header %q, %v", header, err)
			}
			if !bytes.Equal(snap(t, after, ""), snap(t, through, "")) {
				t.Fatal("the state differs right after the restart")
			}
			end := monday
			if length > 0 {
				end = a[length-1].Time
			}
			for i, e := range traffic(r, end, length+1) {
				if got, want := fmt.Sprint(after.Assess(e)), fmt.Sprint(through.Assess(e)); got != want {
					t.Fatalf("event %d: got %s, want %s", i, got, want)
				}
				after.Observe(e)
				through.Observe(e)
			}
			if !bytes.Equal(snap(t, after, ""), snap(t, through, "")) {
				t.Error("the state differs at the end")
			}
		})
	}
}

// The same for short random stories, each detector's corners among them.
func TestARestartAnywhereChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		through, now := small(), small()
		at := monday
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			at = at.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "seconds")) * time.Second)
			e := attempt(at, fmt.Sprintf("203.0.113.%d", rapid.IntRange(1, 3).Draw(t, "source")), fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "name")),
				rapid.SampledFrom([]detectors.Outcome{detectors.Failure, detectors.Failure, detectors.Success}).Draw(t, "outcome"))
			if rapid.Bool().Draw(t, "old") {
				e = of(e, "account", 48*time.Hour)
			}
			e.Password.Typo = rapid.Bool().Draw(t, "typo")
			through.Observe(e)
			now.Observe(e)
			if rapid.IntRange(0, 5).Draw(t, "restart") == 0 {
				var b bytes.Buffer
				next := small()
				if err := now.Snapshot(&b, nil); err != nil {
					t.Fatal(err)
				}
				if _, err := next.Restore(&b); err != nil {
					t.Fatal(err)
				}
				now = next
			}
			if got, want := fmt.Sprint(now.Assess(e)), fmt.Sprint(through.Assess(e)); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
	})
}

// writer calls between before each write, as others observe while a snapshot is written.
type writer struct {
	bytes.Buffer
	between func()
}

func (w *writer) Write(p []byte) (int, error) {
	w.between()
	return w.Buffer.Write(p)
}

// What is observed while a snapshot is written is not in it, and not lost either.
func TestASnapshotIsOfOneMoment(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	set, other := small(), small()
	a := traffic(r, monday, 8000)
	for _, e := range a {
		set.Observe(e)
		other.Observe(e)
	}
	want := snap(t, set, "")
	more := traffic(r, a[len(a)-1].Time, 8000)
	f, err := set.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Freeze(); !errors.Is(err, snapshot.ErrFrozen) {
		t.Errorf("a second one: got %v", err)
	}
	i := 0
	w := &writer{between: func() {
		for range 40 {
			if i < len(more) {
				set.Observe(more[i])
				i++
			}
		}
	}}
	w.between()
	if err := f.Write(w, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.Bytes(), want) {
		t.Error("the snapshot differs from that of the moment it was taken")
	}
	for _, e := range more[:i] {
		other.Observe(e)
	}
	if !bytes.Equal(snap(t, set, ""), snap(t, other, "")) {
		t.Errorf("the state differs after %d events during a snapshot", i)
	}
	if err := f.Write(io.Discard, nil); err == nil {
		t.Error("written twice: want an error")
	}
}

func TestAFailedWriteEndsTheSnapshot(t *testing.T) {
	set := small()
	for _, e := range traffic(rand.New(rand.NewPCG(1, 1)), monday, 5000) {
		set.Observe(e)
	}
	for n := range 5 {
		left := n
		failed := errors.New("disk full")
		if err := set.Snapshot(writes(func() error {
			if left--; left < 0 {
				return failed
			}
			return nil
		}), nil); !errors.Is(err, failed) {
			t.Errorf("after %d writes: got %v", n, err)
		}
	}
	f, err := set.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	f.Discard()
	f.Discard()
	snap(t, set, "")
}

type writes func() error

func (w writes) Write(p []byte) (int, error) { return len(p), w() }

func TestWrongSnapshotsChangeNothing(t *testing.T) {
	set := small()
	for _, e := range traffic(rand.New(rand.NewPCG(1, 1)), monday, 3000) {
		set.Observe(e)
	}
	good := snap(t, set, "header")
	target := small()
	target.Observe(attempt(monday, here, "a", detectors.Failure))
	before := snap(t, target, "")
	for i := 0; i < len(good); i += 1 + i/50 {
		if _, err := target.Restore(bytes.NewReader(good[:i])); !errors.Is(err, snapshot.ErrWrong) {
			t.Fatalf("cut at %d: got %v", i, err)
		}
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := target.Restore(bytes.NewReader(bad)); !errors.Is(err, snapshot.ErrWrong) {
			t.Fatalf("changed at %d: got %v", i, err)
		}
	}
	tiny := detectors.NewSet(detectors.NewSequential(detectors.SequentialConfig{Sources: 10}))
	if _, err := tiny.Restore(bytes.NewReader(good)); !errors.Is(err, snapshot.ErrWrong) {
		t.Errorf("more than fits: got %v", err)
	}
	if !bytes.Equal(snap(t, target, ""), before) {
		t.Error("a wrong snapshot changed the state")
	}
}

// A detector that a snapshot does not know starts empty, and one that the set does
// not have is passed over.
func TestDetectorsComeAndGo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	sequential := func() *detectors.Set {
		return detectors.NewSet(detectors.NewSequential(detectors.SequentialConfig{Sources: 2500}))
	}
	both, one := small(), sequential()
	events := traffic(r, monday, 2000)
	for _, e := range events {
		both.Observe(e)
		one.Observe(e)
	}
	if got := restored(t, sequential(), snap(t, both, "")); !bytes.Equal(snap(t, got, ""), snap(t, one, "")) {
		t.Error("of two detectors one: the state differs")
	}
	got := restored(t, small(), snap(t, one, ""))
	for _, e := range events {
		if value(got.Assess(e), "source.penalty") != 0 {
			t.Fatal("a detector that the snapshot does not know is not empty")
		}
	}
}

func FuzzRestore(f *testing.F) {
	set := small()
	for _, e := range traffic(rand.New(rand.NewPCG(1, 1)), monday, 8) {
		set.Observe(e)
	}
	// The fuzzer makes frames; their checksums are made right here, or it would
	// never get beyond them.
	in, _, err := snapshot.NewReader(bytes.NewReader(snap(f, set, "")), "detectors/1")
	if err != nil {
		f.Fatal(err)
	}
	var all []byte
	for {
		tag, b, err := in.Next()
		if err != nil {
			break
		}
		all = append(append(append(all, tag), byte(len(b)>>8), byte(len(b))), b...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, frames []byte) {
		var b bytes.Buffer
		w := snapshot.NewWriter(&b, "detectors/1", nil)
		for len(frames) >= 3 {
			n := min(int(frames[1])<<8|int(frames[2]), len(frames)-3)
			_ = w.Frame(max(frames[0], snapshot.FirstTag), frames[3:3+n])
			frames = frames[3+n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		set := small()
		if _, err := set.Restore(&b); err != nil {
			if !errors.Is(err, snapshot.ErrWrong) {
				t.Errorf("got %v", err)
			}
			return
		}
		for _, e := range traffic(rand.New(rand.NewPCG(1, 2)), monday, 50) {
			set.Assess(e)
			set.Observe(e)
		}
		first := snap(t, set, "")
		if !bytes.Equal(snap(t, restored(t, small(), first), ""), first) {
			t.Error("what was restored does not come back")
		}
	})
}

// BenchmarkSnapshot writes the snapshot of a million sources while they are
// observed, and reports for how long events were held up; beside it the same number
// of events without a snapshot.
func BenchmarkSnapshot(b *testing.B) {
	const sources = 1_000_000
	set := detectors.Default(time.Time{})
	one := func(i int) detectors.Event {
		e := attempt(monday, here, "a", detectors.Failure)
		e.Source.Address = addressOf(uint32(i))
		e.Source.Network = detectors.CountingNetwork(e.Source.Address)
		e.Name.Digest[3], e.Name.Digest[4] = byte(i>>16), byte(i)
		return e
	}
	for i := range 4 * sources {
		e := one(i % sources)
		e.Name.Digest[5] = byte(i / sources)
		set.Observe(e)
	}
	i := 0
	observe := func(until func(n int) bool) (took []time.Duration) {
		for !until(len(took)) {
			i = (i + 7919) % sources
			e := one(i)
			began := time.Now()
			set.Observe(e)
			took = append(took, time.Since(began))
		}
		return took
	}
	var with, without []time.Duration
	var size int64
	for b.Loop() {
		var stop atomic.Bool
		var done sync.WaitGroup
		done.Go(func() { with = append(with, observe(func(int) bool { return stop.Load() })...) })
		size = 0
		if err := set.Snapshot(counts{&size}, nil); err != nil {
			b.Fatal(err)
		}
		stop.Store(true)
		done.Wait()
		without = append(without, observe(func(n int) bool { return len(without)+n >= len(with) })...)
	}
	b.ReportMetric(float64(size)/1e6, "MB")
	for name, took := range map[string][]time.Duration{"with": with, "without": without} {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, name+"-p50-µs")
		b.ReportMetric(float64(took[len(took)*999/1000].Nanoseconds())/1e3, name+"-p99.9-µs")
		b.ReportMetric(float64(took[len(took)-1].Nanoseconds())/1e3, name+"-max-µs")
	}
}

type counts struct{ n *int64 }

func (c counts) Write(p []byte) (int, error) { *c.n += int64(len(p)); return len(p), nil }
