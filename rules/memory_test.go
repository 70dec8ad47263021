package rules_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

const kib = 1 << 10

// Whatever is counted, a counter keeps to its limit; the number of events of a key is
// never too low as long as nothing was forgotten.
func TestFullCountersCountTooMuchAndNeverTooLittle(t *testing.T) {
	for _, spec := range []rules.Counter{
		{By: []string{"source.network"}},
		{By: []string{"source.address", "route"}},
		{By: []string{"source.network"}, Distinct: "name"},
		{By: []string{"source.network"}, Sum: "password.popularity"},
	} {
		t.Run(fmt.Sprint(spec.By, spec.Distinct, spec.Sum), func(t *testing.T) {
			spec.Within = time.Hour
			rapid.Check(t, func(t *rapid.T) {
				c := rules.NewCounting(spec, rules.Limits{Counter: 64 * kib, Total: 1 << 20})
				r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
				blocks := rapid.SampledFrom([]int{1, 3, 200}).Draw(t, "blocks")
				v6 := rapid.Bool().Draw(t, "v6")
				m := &model{Counter: spec}
				at := monday
				n := rapid.IntRange(1, 1500).Draw(t, "events")
				for range n {
					at = at.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
					block := r.IntN(blocks)
					source := fmt.Sprintf("10.%d.0.%d", block, r.IntN(250))
					if v6 {
						source = fmt.Sprintf("2001:db8:%x:%x::7", block, r.IntN(1000))
					}
					if r.IntN(5) == 0 {
						block, source = 1, "203.0.113.7" // which grows
					}
					e := attempt(at, source, r.IntN(300), detectors.Failure)
					e.Source.ASN, e.Password.Popularity = uint32(block%3), 2 // an address stays with its operator
					c.Observe(e)
					m.seen = append(m.seen, e)
				}
				if err := c.Check(); err != nil {
					t.Fatal(err)
				}
				u := c.Usage()
				if u.Bytes > u.Limit || u.Forgotten > 0 {
					t.Fatalf("%d bytes, want at most %d; %d keys forgotten", u.Bytes, u.Limit, u.Forgotten)
				}
				for i := max(0, n-50); i < n; i++ {
					asked := m.seen[i]
					asked.Time = at
					got, want := c.Value(asked), modelOfKey(m, asked)
					if got < want || u.Widened == 0 && got > want {
						t.Fatalf("%s: got %v, want %v; %+v", asked.Source.Address, got, want, u)
					}
				}
			})
		})
	}
}

// modelOfKey is the model's count, where the field of the address is not among those
// that the model knows.
func modelOfKey(m *model, asked detectors.Event) float64 {
	if m.By[0] != "source.address" {
		return m.value(asked)
	}
	of := &model{Counter: m.Counter}
	for _, e := range m.seen {
		if e.Source.Address == asked.Source.Address {
			of.seen = append(of.seen, e)
		}
	}
	return of.value(asked)
}

func TestWidening(t *testing.T) {
	spec := rules.Counter{By: []string{"source.network"}, Within: time.Hour}
	limits := rules.Limits{Counter: 64 * kib, Total: 1 << 20}
	fill := func(t *testing.T, c rules.Counting, at time.Time, address func(i int) string, asn uint32, n int) (last detectors.Event) {
		t.Helper()
		for i := range n {
			last = attempt(at, address(i), i, detectors.Failure)
			last.Source.ASN = asn
			c.Observe(last)
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		return last
	}
	ofOne48 := func(i int) string { return fmt.Sprintf("2001:db8:1:%x::7", i) }
	t.Run("to the /48, and nobody else's", func(t *testing.T) {
		c := rules.NewCounting(spec, limits)
		office := attempt(monday, "203.0.113.7", 0, detectors.Failure)
		c.Observe(office)
		last := fill(t, c, monday, ofOne48, 64500, 3000)
		u := c.Usage()
		if u.Widened != 1 || u.Keys < 200 || u.Keys > 400 {
			t.Errorf("got %d keys and %d of them wider", u.Keys, u.Widened)
		}
		if got := c.Value(last); got < 2600 || got > 3000 {
			t.Errorf("the /48: got %v, want the events that found no room", got)
		}
		if got := c.Value(office); got != 1 {
			t.Errorf("a network that was there before: got %v, want 1", got)
		}
		c.Observe(office)
		if got := c.Value(office); got != 2 {
			t.Errorf("it counts on: got %v, want 2", got)
		}
		newcomer := attempt(monday, "198.51.100.7", 0, detectors.Failure)
		if got := c.Value(newcomer); got != 0 {
			t.Errorf("a network that was not there: got %v, want 0", got)
		}
		c.Observe(newcomer)
		neighbour := attempt(monday, "198.51.100.8", 0, detectors.Failure)
		c.Observe(neighbour)
		if got := c.Value(newcomer); got != 2 {
			t.Errorf("two of a /24 without room: got %v, want both together", got)
		}
	})
	t.Run("to the operator, then to all", func(t *testing.T) {
		c := rules.NewCounting(spec, limits)
		everywhere := func(i int) string { return fmt.Sprintf("10.%d.%d.7", i>>8, i&255) }
		fill(t, c, monday, everywhere, 64500, 3000)
		last := fill(t, c, monday, func(i int) string { return fmt.Sprintf("2001:db8:%x::7", i) }, 0, 50)
		u := c.Usage()
		if u.Bytes > u.Limit || u.Forgotten > 0 {
			t.Errorf("%+v", u)
		}
		if got := c.Value(last); got != 50 {
			t.Errorf("of no known operator: got %v, want all 50 of them", got)
		}
		stranger := attempt(monday, "172.16.0.1", 0, detectors.Failure)
		stranger.Source.ASN = 64500
		if got := c.Value(stranger); got < 2000 {
			t.Errorf("another of the operator: got %v, want what its new networks did", got)
		}
	})
	t.Run("and back when there is room", func(t *testing.T) {
		c := rules.NewCounting(spec, limits)
		fill(t, c, monday, ofOne48, 64500, 3000)
		later := monday.Add(65 * time.Minute)
		member := attempt(later, ofOne48(2999), 0, detectors.Failure)
		member.Source.ASN = 64500
		c.Observe(member)
		other := member
		other.Source.Address, other.Source.Network = attempt(later, ofOne48(5000), 0, detectors.Failure).Source.Address, attempt(later, ofOne48(5000), 0, detectors.Failure).Source.Network
		c.Observe(other)
		c.Observe(other)
		if a, b := c.Value(member), c.Value(other); a != 1 || b != 2 {
			t.Errorf("got %v and %v, want 1 and 2", a, b)
		}
	})
	t.Run("keys without a source: the one idle longest goes", func(t *testing.T) {
		c := rules.NewCounting(rules.Counter{By: []string{"name"}, Within: time.Hour}, limits)
		busy := attempt(monday, "203.0.113.7", 1_000_000, detectors.Failure)
		for i := range 3000 {
			c.Observe(attempt(monday, "203.0.113.7", i, detectors.Failure))
			c.Observe(busy)
		}
		u := c.Usage()
		if u.Bytes > u.Limit || u.Forgotten == 0 || u.Widened > 0 {
			t.Errorf("%+v", u)
		}
		for name, want := range map[int]float64{0: 0, 2999: 1, 1_000_000: 3000} {
			if got := c.Value(attempt(monday, "203.0.113.7", name, detectors.Failure)); got != want {
				t.Errorf("name %d: got %v, want %v", name, got, want)
			}
		}
	})
	t.Run("one key is kept, however small the limit", func(t *testing.T) {
		c := rules.NewCounting(rules.Counter{By: []string{"all"}, Distinct: "name", Within: time.Hour}, rules.Limits{Counter: 1, Total: 1})
		for i := range 50_000 {
			c.Observe(attempt(monday.Add(time.Duration(i)*50*time.Millisecond), "203.0.113.7", i, detectors.Failure))
		}
		if u := c.Usage(); u.Keys != 1 || u.Bytes > 36*kib {
			t.Errorf("%+v", u)
		}
	})
}

// The counters of a set share what one of them does not need, and keep to the total.
func TestCountersShareTheirMemory(t *testing.T) {
	template := counting(t)
	set := rules.Fresh(template)
	limits := rules.Limits{Counter: 4 << 20, Total: 4 << 20}
	set.Limit(limits)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 60_000 {
		e := attempt(monday, fmt.Sprintf("10.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256)), i, detectors.Failure)
		e.Source.ASN = uint32(r.IntN(1000))
		set.Observe(e)
	}
	check := func(what string, s *rules.Set, limit int64) {
		t.Helper()
		m, sum := s.Memory(), int64(0)
		for _, u := range m.Counters {
			sum += u.Bytes
			if len(u.Rules) == 0 || u.Bytes > u.Limit {
				t.Errorf("%s: %+v", what, u)
			}
		}
		if m.Limit != limit || m.Bytes > m.Limit || m.Bytes != sum || m.Bytes < m.Limit*2/3 {
			t.Errorf("%s: %d bytes of %d, %d in counters", what, m.Bytes, m.Limit, sum)
		}
	}
	check("full", set, limits.Total)
	again := rules.Fresh(template)
	again.Limit(limits)
	if _, err := again.Restore(bytes.NewReader(snap(t, set))); err != nil {
		t.Fatal(err)
	}
	check("after a restart", again, limits.Total)
	half := rules.Fresh(template)
	half.Limit(rules.Limits{Total: 2 << 20})
	half.Adopt(again)
	check("with half of it", half, 2<<20)
	fresh := half.Fresh()
	if m := fresh.Memory(); m.Limit != 2<<20 || m.Bytes != 0 {
		t.Errorf("a fresh set: %d bytes of %d", m.Bytes, m.Limit)
	}
}

// What is accounted for is what a counter takes in truth.
func TestMemoryIsAccountedFor(t *testing.T) {
	for name, spec := range map[string]rules.Counter{
		"events":     {},
		"sum":        {Sum: "password.popularity"},
		"ratio":      {Ratio: "true"},
		"few names":  {Distinct: "name"},
		"many names": {Distinct: "name", By: []string{"source.country"}},
	} {
		if spec.By == nil {
			spec.By = []string{"source.network"}
		}
		spec.Within = time.Hour
		c := rules.NewCounting(spec, rules.Limits{})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range 100_000 {
			e := attempt(monday.Add(time.Duration(i)*30*time.Millisecond), fmt.Sprintf("10.%d.%d.7", i%40_000>>8, i%40_000&255), i, detectors.Failure)
			e.Source.Country = fmt.Sprint(i % 50)
			c.Observe(e)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		u := c.Usage()
		taken := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("%s: %d keys take %d bytes each, accounted for are %d", name, u.Keys, taken/int64(u.Keys), u.Bytes/int64(u.Keys))
		if taken > u.Bytes*5/4 {
			t.Errorf("%s: takes %d bytes, accounted for are %d", name, taken, u.Bytes)
		}
		runtime.KeepAlive(c)
	}
}
