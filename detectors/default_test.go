package detectors_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
)

// numbered is a login attempt of person i, who has a line and a password of his own.
func numbered(i, n int, outcome detectors.Outcome) detectors.Event {
	e := detectors.Event{
		Key: detectors.EventKey{Node: "bench", Incarnation: 1, Sequence: uint64(n)}, Time: monday.Add(time.Duration(n) * time.Millisecond), Kind: detectors.Login, Outcome: outcome,
		Account: detectors.Account("u" + strconv.Itoa(i)), AccountSince: monday.AddDate(-1, 0, 0), Organization: detectors.Organization("o" + strconv.Itoa(i/50)),
		Client: detectors.Client{JA4: "t13d1516h2_8daaf6152771_d8a2da3f94cd", Headers: "5b1f0c2d9a34", Family: "chrome"},
		Source: detectors.Source{Address: netip.AddrFrom4([4]byte{10 + byte(i>>24), byte(i >> 16), byte(i >> 8), byte(i)}), ASN: 65536 + uint32(i%500), Country: "JP"},
	}
	e.Fingerprint = e.Client.Fingerprint()
	e.Source.Network = detectors.CountingNetwork(e.Source.Address)
	binary.BigEndian.PutUint64(e.Name.Digest[:], uint64(i)+1)
	binary.BigEndian.PutUint64(e.Password.Digest[:], uint64(i)*7+1)
	if outcome == detectors.Failure {
		binary.BigEndian.PutUint64(e.Password.Digest[8:], uint64(n))
	}
	for k := range uint32(11) {
		e.Password.Near = append(e.Password.Near, uint32(i)*16+k)
	}
	return e
}

// BenchmarkAttempt is one attempt with everything that ships: what is known of it,
// assessed before and after, and observed. One in eight fails. The budget is 6 us, with
// a million active sources as with a thousand.
func BenchmarkAttempt(b *testing.B) {
	for _, sources := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(sources), func(b *testing.B) {
			set := detectors.Default(time.Time{})
			n := 0
			next := func() detectors.Event {
				n++
				outcome := detectors.Success
				if n%8 == 0 {
					outcome = detectors.Failure
				}
				return numbered(n*7919%sources, n, outcome)
			}
			for range sources {
				set.Observe(set.Facts(next()))
			}
			events := make([]detectors.Event, 200_000)
			for i := range events {
				events[i] = next()
			}
			at := n
			runtime.GC()
			b.ReportAllocs()
			for b.Loop() {
				at++
				e := events[at%len(events)]
				e.Time, e.Key.Sequence = monday.Add(time.Duration(at)*time.Millisecond), uint64(at)
				before := e
				before.Outcome = detectors.Unknown
				before = set.Facts(before)
				set.Assess(before)
				e = set.Facts(e)
				set.Observe(e)
				set.Assess(e)
			}
		})
	}
}

// BenchmarkMemory tells what a million active sources and accounts keep on the heap.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		set := detectors.Default(time.Time{})
		for n := range 1_200_000 {
			outcome := detectors.Success
			if n%8 == 0 {
				outcome = detectors.Failure
			}
			set.Observe(set.Facts(numbered(n*7919%1_000_000, n, outcome)))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		runtime.KeepAlive(set)
	}
}

// TestEqualTimesHaveNoOrder: what was observed at one time says the same whatever came
// first.
func TestEqualTimesHaveNoOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, other := detectors.Default(time.Time{}), detectors.Default(time.Time{})
		sequence := uint64(0)
		for second := range rapid.IntRange(1, 12).Draw(t, "seconds") {
			var events []detectors.Event
			for range rapid.IntRange(1, 8).Draw(t, "events") {
				e := drawEvent(t, 3)
				e.Time = monday.Add(time.Duration(second) * time.Second)
				sequence++
				e.Key = detectors.EventKey{Node: "n", Incarnation: 1, Sequence: sequence}
				e.Fingerprint = rapid.SampledFrom([]string{"", "a/b/c"}).Draw(t, "fingerprint")
				binary.BigEndian.PutUint64(e.Password.Digest[:], uint64(rapid.IntRange(1, 4).Draw(t, "password")))
				events = append(events, one.Facts(e))
			}
			for _, e := range events {
				one.Observe(e)
			}
			for _, e := range rapid.Permutation(events).Draw(t, "order") {
				other.Observe(e)
			}
			e := drawEvent(t, 3)
			e.Time = monday.Add(time.Duration(second)*time.Second + time.Millisecond)
			if diff := cmp.Diff(one.Assess(one.Facts(e)), other.Assess(other.Facts(e))); diff != "" {
				t.Fatalf("(-one order +another):\n%s", diff)
			}
		}
	})
}

// TestOwnAccountsDoNotBuyMuch: accounts of an attacker, old enough to vouch, raise what
// his source may try by no more than the cap, and where he has thousands by one name for
// 24 of them.
func TestOwnAccountsDoNotBuyMuch(t *testing.T) {
	tries := func(own int) int {
		set := detectors.NewSet(detectors.NewSequential(detectors.SequentialConfig{}))
		at := monday
		mine := func(n int) {
			at = at.Add(time.Second)
			set.Observe(of(attempt(at, here, fmt.Sprint("mine", n), detectors.Success), fmt.Sprint("mine", n), 300*24*time.Hour))
		}
		for own > 300 { // the others log in beside the attempts
			own--
			mine(own)
		}
		for n := 0; n < 5000; n++ {
			at = at.Add(time.Second)
			e := attempt(at, here, fmt.Sprint("victim", n), detectors.Failure)
			set.Observe(e)
			for _, s := range set.Assess(e) {
				if s.Name == "source.flagged" && s.Value == 1 {
					return n + 1
				}
			}
			if n < own {
				mine(n)
			}
		}
		return 5000
	}
	alone := tries(0)
	for own, most := range map[int]int{200: 84, 2000: 84, 4800: 200} {
		with := tries(own)
		t.Logf("flagged after %d names, with %d accounts after %d", alone, own, with)
		if with-alone > most {
			t.Errorf("%d accounts bought %d more names, want at most %d", own, with-alone, most)
		}
	}
}

// TestStrataAlarmAndFall: a share of failures that rises is an alarm, one that falls
// ends it, and a crowd that fails as always is none.
func TestStrataAlarmAndFall(t *testing.T) {
	set := detectors.Default(time.Time{})
	n := 0
	hour := func(from time.Time, every time.Duration, attack int) {
		for at := from; at.Before(from.Add(time.Hour)); at = at.Add(every) {
			n++
			outcome := detectors.Success
			if n%6 == 0 {
				outcome = detectors.Failure
			}
			e := numbered(n, n, outcome)
			e.Time = at
			set.Observe(set.Facts(e))
			for range attack {
				n++
				e := numbered(10_000_000+n, n, detectors.Failure)
				e.Time, e.Account = at.Add(time.Millisecond), ""
				set.Observe(set.Facts(e))
			}
		}
	}
	on := func(at time.Time) bool { return len(set.Alarms(at)) > 0 }
	hour(monday, time.Second, 0)
	hour(monday.Add(time.Hour), 100*time.Millisecond, 0) // ten times as busy
	if on(monday.Add(2 * time.Hour)) {
		t.Fatalf("an alarm in a busy hour: %v", set.Alarms(monday.Add(2*time.Hour)))
	}
	hour(monday.Add(2*time.Hour), time.Second, 1)
	if !on(monday.Add(3 * time.Hour)) {
		t.Fatal("no alarm while half of all attempts are an attack")
	}
	for _, a := range set.Alarms(monday.Add(3 * time.Hour)) {
		t.Log(a.Stratum, a.Since.Format(time.TimeOnly), a.Why)
	}
	hour(monday.Add(3*time.Hour), time.Second, 0)
	if on(monday.Add(4 * time.Hour)) {
		t.Fatalf("still an alarm an hour after: %v", set.Alarms(monday.Add(4*time.Hour)))
	}
}
