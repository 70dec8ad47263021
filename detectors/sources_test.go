package detectors_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
)

// While there is room the table is a map that forgets by time.
func TestTableIsAMapWithinItsBound(t *testing.T) {
	const forget = time.Hour
	rapid.Check(t, func(t *rapid.T) {
		table := detectors.NewTable(50, forget)
		values, seen := map[uint64]int{}, map[uint64]time.Time{}
		now := monday
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "seconds")) * time.Second)
			k := rapid.Uint64Range(0, 49).Draw(t, "key")
			if last, ok := seen[k]; ok && now.Sub(last) >= forget {
				delete(values, k)
			}
			got, _ := table.Find(k, now)
			want, ok := values[k]
			if (got != nil) != ok || ok && *got != want {
				t.Fatalf("key %d: got %v, want %d (%v)", k, got, want, ok)
			}
			if rapid.Bool().Draw(t, "write") {
				v, _ := table.Take(k, now)
				*v++
				values[k]++
				seen[k] = now
			}
		}
	})
}

func TestTableForgetsTheLightAndOldFirst(t *testing.T) {
	table := detectors.NewTable(16, time.Hour)
	for k := range uint64(16) {
		v, _ := table.Take(k, monday.Add(time.Duration(k)*time.Second))
		*v = 100 // heavy
	}
	for _, k := range []uint64{5, 9} {
		v, _ := table.Take(k, monday.Add(time.Duration(20-k)*time.Second))
		*v = 1
	}
	now := monday.Add(time.Minute)
	table.Take(100, now)
	if got, _ := table.Find(9, now); got != nil {
		t.Error("key 9 stayed: want it gone, it is light and was seen before key 5")
	}
	for _, k := range []uint64{0, 5, 100} {
		if got, _ := table.Find(k, now); got == nil {
			t.Errorf("key %d is gone", k)
		}
	}
	if got, want := table.Len(), 16; got != want {
		t.Errorf("keys: got %d, want %d", got, want)
	}
}

func TestMemory(t *testing.T) {
	hash := func(i int) uint64 { return uint64(i+1) * 0x9e3779b97f4a7c15 }
	t.Run("remembers an office", func(t *testing.T) {
		m := detectors.Memory{Budget: detectors.AllPairs}
		for i := range 4000 {
			if m.See(hash(i), monday, false) {
				t.Fatalf("%d was never seen", i)
			}
		}
		for i := range 4000 {
			if !m.See(hash(i), monday.Add(time.Hour), false) {
				t.Fatalf("%d was forgotten", i)
			}
		}
		m.Release()
		if got, want := m.Budget, detectors.AllPairs; got != want {
			t.Errorf("budget after release: got %d, want %d", got, want)
		}
	})
	t.Run("is bounded", func(t *testing.T) {
		m := detectors.Memory{Budget: detectors.AllPairs}
		for i := range 100_000 {
			m.See(hash(i), monday, false)
		}
		if got, want := detectors.AllPairs-m.Budget, 8192; got != want {
			t.Errorf("entries: got %d, want %d", got, want)
		}
	})
	t.Run("works without a budget", func(t *testing.T) {
		m := detectors.Memory{}
		for i := range 10 {
			m.See(hash(i), monday.Add(time.Duration(i)*time.Minute), false)
		}
		if !m.See(hash(9), monday.Add(10*time.Minute), false) {
			t.Error("the latest was forgotten")
		}
	})
	for _, renew := range []bool{false, true} {
		t.Run(fmt.Sprintf("forgets after 12 h, renew %v", renew), func(t *testing.T) {
			m := detectors.Memory{Budget: detectors.AllPairs}
			m.See(1<<40, monday, renew)
			m.See(1<<40, monday.Add(11*time.Hour), renew)
			if got := m.See(1<<40, monday.Add(13*time.Hour), renew); got != renew {
				t.Errorf("seen after 13 h, once in between: got %v, want %v", got, renew)
			}
		})
	}
}

func addressOf(i uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func BenchmarkAssessAndObserve(b *testing.B) {
	const sources = 1_000_000
	set := detectors.Default(time.Time{})
	e := attempt(monday, here, "a", detectors.Failure)
	one := func(i int) detectors.Event {
		e.Source.Address = addressOf(uint32(i))
		e.Source.Network = detectors.CountingNetwork(e.Source.Address)
		e.Name.Digest[3], e.Name.Digest[4] = byte(i>>16), byte(i)
		return e
	}
	for i := range sources {
		set.Observe(one(i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	i := 0
	for b.Loop() {
		i = (i + 7919) % sources
		e := one(i)
		set.Assess(e)
		set.Observe(e)
	}
}

// However many keys come and go, the table finds those it holds and no others.
func TestTableFindsWhatItHolds(t *testing.T) {
	const limit = 10_000 // three shards
	for name, key := range map[string]func(n uint64) uint64{
		"in order":  func(n uint64) uint64 { return n },
		"of a /32":  func(n uint64) uint64 { return 0x20010db8<<32 | n },
		"at random": func(n uint64) uint64 { return n * 0x9e3779b97f4a7c15 },
	} {
		t.Run(name, func(t *testing.T) {
			table := detectors.NewTable(limit, time.Hour)
			for n := range uint64(3 * limit) {
				v, _ := table.Take(key(n), monday.Add(time.Duration(n)))
				if *v != 0 {
					t.Fatalf("key %d is new and has the value %d", n, *v)
				}
				*v = int(n) + 1
			}
			if got := table.Len(); got != limit {
				t.Fatalf("keys: got %d, want %d", got, limit)
			}
			found := 0
			for n := range uint64(4 * limit) {
				if v, _ := table.Find(key(n), monday); v != nil {
					if found++; *v != int(n)+1 {
						t.Fatalf("key %d has the value of %d", n, *v-1)
					}
				}
			}
			if found != limit {
				t.Errorf("found %d keys, want %d", found, limit)
			}
		})
	}
}

// A full table replaces keys without allocating, once its shards are as large as they
// become.
func TestAFullTableAllocatesNothing(t *testing.T) {
	const limit = 10_000
	table := detectors.NewTable(limit, time.Hour)
	n := uint64(0)
	some := func() {
		for range 5 * limit {
			n++
			table.Take(n, monday)
		}
	}
	some()
	if got := testing.AllocsPerRun(3, some); got > 1 {
		t.Errorf("%.0f allocations while %d keys were replaced, want none", got, 5*limit)
	}
}
