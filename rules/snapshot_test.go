package rules_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/snapshot"
	"github.com/kidoban/kidoban/rules"
)

// The vectors of the authors' implementation: key 00 to 0f, text 00, 01, 02 and so on.
func TestSipHash(t *testing.T) {
	var key [16]byte
	text := ""
	for i := range key {
		key[i] = byte(i)
	}
	for n, want := range map[int]uint64{0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5} {
		text = ""
		for i := range n {
			text += string(rune(i))
		}
		if got := rules.SipHash(key, text); got != want {
			t.Errorf("%d bytes: got %x, want %x", n, got, want)
		}
	}
}

// counting is a set with a counter of each kind.
func counting(t testing.TB) *rules.Set {
	t.Helper()
	return load(t, "a.yaml", good(t), "b.yaml", `id: test.counters
title: Counters of each kind
severity: low
owner: tests
reason: to be written and read
review_by: 2030-01-01
count:
  total: {count: events, by: all, within: 1h}
  names: {distinct: name, by: [source.network, route], within: 16m}
  networks: {distinct: source.network, by: name, within: 1h, where: 'outcome == "failure"'}
  each: {count: events, by: name, within: 16s}
  popular: {sum: password.popularity, by: source.asn, within: 1h}
  failing: {ratio: 'outcome == "failure"', by: name, within: 16m}
  rise: {change: events, by: source.network, within: 16m}
  people: {distinct: name, by: route, within: 1h}
on: login.after
when: total >= 3 && names >= 1 && networks >= 1 && each >= 1 && popular >= 3 && failing > 0.5 && rise > 1 && people >= 1
then:
  - decide: {scope: source.network, action: step_up, for: 30m}
mode: shadow
tests:
  - name: one does not match
    given: [{outcome: failure, name: a}]
    expect: none
  - name: three match
    given: [{repeat: 3, outcome: failure, name: a, asn: 64500, password: {popularity: 1}}]
    expect: {action: step_up, scope: source.network}
`)
}

func traffic(r *rand.Rand, start time.Time, n, sources, names int) (events []detectors.Event) {
	at := start
	for range n {
		at = at.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
		e := attempt(at.Add(-time.Duration(r.IntN(30))*time.Second), fmt.Sprintf("10.%d.%d.7", r.IntN(sources)>>8, r.IntN(sources)&255), r.IntN(names), detectors.Failure)
		if r.IntN(4) == 0 {
			e.Outcome = detectors.Success
		}
		events = append(events, e)
	}
	return events
}

func snap(t testing.TB, s *rules.Set) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot(&b, []byte("header")); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restored(t testing.TB, b []byte) *rules.Set {
	t.Helper()
	s := counting(t)
	if header, err := s.Restore(bytes.NewReader(b)); err != nil || string(header) != "header" {
		t.Fatalf("header %q, %v", header, err)
	}
	return s
}

func same(t testing.TB, what string, got, want *rules.Set) {
	t.Helper()
	if rules.Dump(got) != rules.Dump(want) {
		t.Fatalf("%s: the counts differ", what)
	}
}

// Events A, a snapshot, a restart and events B are as A and B without.
func TestARestartForgetsNoCount(t *testing.T) {
	for _, length := range []int{0, 1, 100, 5000, 20_000} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(length), 1))
			set := counting(t)
			a := traffic(r, monday, length, 600, 300)
			observe(set, a...)
			again := restored(t, snap(t, set))
			same(t, "after the restart", again, set)
			b := traffic(r, monday.Add(time.Duration(length)*1500*time.Millisecond), length, 600, 300)
			observe(set, b...)
			observe(again, b...)
			same(t, "at the end", again, set)
		})
	}
}

// Counters without room are written with what they count under wider keys.
func TestFullCountersSurviveARestart(t *testing.T) {
	limits := rules.Limits{Counter: 64 << 10, Total: 1 << 20}
	set := counting(t)
	set.Limit(limits)
	r := rand.New(rand.NewPCG(5, 5))
	observe(set, traffic(r, monday, 2000, 1500, 1000)...)
	// After this the keys have room again, and some of what is theirs is still elsewhere.
	later := monday.Add(58 * time.Minute)
	observe(set, traffic(r, later, 200, 1500, 1000)...)
	again := rules.Fresh(set)
	again.Limit(limits)
	if _, err := again.Restore(bytes.NewReader(snap(t, set))); err != nil {
		t.Fatal(err)
	}
	same(t, "after the restart", again, set)
	wide := 0
	for i, u := range again.Memory().Counters {
		wide += u.Widened
		if was := set.Memory().Counters[i]; u.Keys != was.Keys || u.Widened != was.Widened || u.Bytes > was.Bytes {
			t.Errorf("got %+v, want %+v", u, was)
		}
	}
	if wide == 0 || !strings.Contains(rules.Dump(set), " true ") {
		t.Errorf("%d wider keys, want some, and keys of which some is counted there", wide)
	}
}

func TestARestartAnywhereForgetsNoCount(t *testing.T) {
	template := counting(t) // loading anew for each story would take the time of its tests
	rapid.Check(t, func(t *rapid.T) {
		fresh := func() *rules.Set { return rules.Fresh(template) }
		through := fresh()
		var b bytes.Buffer
		copyTo := func(from, to *rules.Set) {
			if err := from.Snapshot(&b, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := to.Restore(&b); err != nil {
				t.Fatal(err)
			}
		}
		now := fresh()
		copyTo(through, now) // the same secrets
		at := monday
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			at = at.Add(time.Duration(rapid.IntRange(-60, 300).Draw(t, "seconds")) * time.Second)
			e := attempt(at, fmt.Sprintf("203.0.113.%d", rapid.IntRange(1, 3).Draw(t, "source")), rapid.IntRange(0, 40).Draw(t, "name"), detectors.Failure)
			through.Observe(e)
			now.Observe(e)
			if rapid.IntRange(0, 5).Draw(t, "restart") == 0 {
				next := fresh()
				copyTo(now, next)
				now = next
			}
		}
		if rules.Dump(now) != rules.Dump(through) {
			t.Fatal("the counts differ")
		}
	})
}

type between struct {
	bytes.Buffer
	do func()
}

func (w *between) Write(p []byte) (int, error) {
	w.do()
	return w.Buffer.Write(p)
}

// What is counted while a snapshot is written is not in it, and not lost either.
func TestASnapshotIsOfOneMoment(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	set := counting(t)
	observe(set, traffic(r, monday, 60_000, 40_000, 20_000)...)
	moment := restored(t, snap(t, set))
	parallel := restored(t, snap(t, set))
	f, err := set.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Freeze(); !errors.Is(err, snapshot.ErrFrozen) {
		t.Errorf("a second one: got %v", err)
	}
	more := traffic(r, monday.Add(25*time.Hour), 20_000, 40_000, 20_000)
	i := 0
	w := &between{do: func() {
		for range 100 {
			if i < len(more) {
				set.Observe(more[i])
				i++
			}
		}
	}}
	w.do()
	if err := f.Write(w, []byte("header")); err != nil {
		t.Fatal(err)
	}
	same(t, "the snapshot", restored(t, w.Bytes()), moment)
	observe(parallel, more[:i]...)
	same(t, "what went on", set, parallel)
	if i < 5000 {
		t.Errorf("only %d events were counted meanwhile", i)
	}
	if err := f.Write(io.Discard, nil); err == nil {
		t.Error("written twice: want an error")
	}
}

// Counters that count something else start empty; those that stayed keep theirs.
func TestCountersOfChangedRules(t *testing.T) {
	set := load(t, "a.yaml", good(t))
	observe(set, failures(5, "203.0.113.7")...)
	b := snap(t, set)
	last := failures(5, "203.0.113.7")[4]
	fires := func(s *rules.Set) bool { return len(s.Evaluate(rules.LoginAfter, last, nil)) > 0 }
	for name, test := range map[string]struct {
		text string
		want bool
	}{
		"the same":         {good(t), true},
		"another title":    {edited(t, "title: ", "title: New "), true},
		"another window":   {edited(t, "within: 10m", "within: 11m"), false},
		"another identity": {edited(t, "test.example", "test.other"), true},
	} {
		t.Run(name, func(t *testing.T) {
			s := load(t, "a.yaml", test.text)
			if _, err := s.Restore(bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
			if got := fires(s); got != test.want {
				t.Errorf("fires: got %v, want %v", got, test.want)
			}
		})
	}
}

func TestWrongSnapshotsChangeNoCount(t *testing.T) {
	set := counting(t)
	observe(set, traffic(rand.New(rand.NewPCG(1, 1)), monday, 500, 100, 100)...)
	good := snap(t, set)
	target := rules.Fresh(set)
	observe(target, failures(3, "203.0.113.7")...)
	before := rules.Dump(target)
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
	if rules.Dump(target) != before {
		t.Error("a wrong snapshot changed the counts")
	}
}

func FuzzRestore(f *testing.F) {
	template := counting(f)
	set := rules.Fresh(template)
	observe(set, traffic(rand.New(rand.NewPCG(1, 1)), monday, 6, 3, 3)...)
	// The fuzzer makes frames; their checksums are made right here, or it would
	// never get beyond them.
	in, _, err := snapshot.NewReader(bytes.NewReader(snap(f, set)), "rules/1")
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
	events := traffic(rand.New(rand.NewPCG(1, 2)), monday, 50, 10, 20)
	f.Fuzz(func(t *testing.T, frames []byte) {
		var b bytes.Buffer
		w := snapshot.NewWriter(&b, "rules/1", nil)
		for len(frames) >= 3 {
			n := min(int(frames[1])<<8|int(frames[2]), len(frames)-3)
			_ = w.Frame(max(frames[0], snapshot.FirstTag), frames[3:3+n])
			frames = frames[3+n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		set, again := rules.Fresh(template), rules.Fresh(template)
		if _, err := set.Restore(&b); err != nil {
			if !errors.Is(err, snapshot.ErrWrong) {
				t.Errorf("got %v", err)
			}
			return
		}
		observe(set, events...)
		for _, e := range events {
			set.Evaluate(rules.LoginAfter, e, nil)
		}
		if _, err := again.Restore(bytes.NewReader(snap(t, set))); err != nil || rules.Dump(again) != rules.Dump(set) {
			t.Errorf("what was restored does not come back: %v", err)
		}
	})
}

// BenchmarkSnapshot writes full counters while they count, and reports for how long
// events were held up; beside it the same number of events without a snapshot.
func BenchmarkSnapshot(b *testing.B) {
	set := counting(b)
	r := rand.New(rand.NewPCG(1, 1))
	for range 1_500_000 {
		set.Observe(attempt(monday, fmt.Sprintf("10.%d.%d.7", r.IntN(256), r.IntN(256)), r.IntN(300_000), detectors.Failure))
	}
	events := make([]detectors.Event, 100_000)
	for i := range events {
		events[i] = attempt(monday, fmt.Sprintf("10.%d.%d.7", r.IntN(256), r.IntN(256)), r.IntN(300_000), detectors.Failure)
	}
	next := 0
	observe := func(until func(n int) bool) (took []time.Duration) {
		for !until(len(took)) {
			next++
			began := time.Now()
			set.Observe(events[next%len(events)])
			took = append(took, time.Since(began))
		}
		return took
	}
	var with, without []time.Duration
	size := 0
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

type counts struct{ n *int }

func (c counts) Write(p []byte) (int, error) { *c.n += len(p); return len(p), nil }
