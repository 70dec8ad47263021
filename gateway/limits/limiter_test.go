package limits_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/gateway/limits"
)

func newLimit(t testing.TB, name, rate string, mode limits.Mode) *limits.Limit {
	r, err := limits.ParseRate(rate)
	if err != nil {
		t.Fatal(err)
	}
	return &limits.Limit{Name: name, Key: limits.KeyAddress, Rate: r, Mode: mode}
}

// answer is what tests compare of a decision.
type answer struct {
	Allowed    bool
	Limit      string
	Remaining  int64
	Reset      time.Duration // from now
	RetryAfter time.Duration
	Shadow     []string
	Degraded   bool
}

func answerOf(d limits.Decision, now time.Time) answer {
	a := answer{Allowed: d.Allowed, Remaining: d.Remaining, RetryAfter: d.RetryAfter, Degraded: d.Degraded}
	if d.Limit != nil {
		a.Limit, a.Reset = d.Limit.Name, d.Reset.Sub(now)
	}
	for _, l := range d.Shadow {
		a.Shadow = append(a.Shadow, l.Name)
	}
	return a
}

func TestTake(t *testing.T) {
	address, account := newLimit(t, "address", "3/10s", ""), newLimit(t, "account", "2/1m", limits.Enforce)
	shadow, minute := newLimit(t, "shadow", "1/1m", limits.Shadow), newLimit(t, "address", "4/1m", "")
	charge := func(pairs ...any) (charges []limits.Charge) {
		for i := 0; i < len(pairs); i += 2 {
			charges = append(charges, limits.Charge{Limit: pairs[i].(*limits.Limit), Key: pairs[i+1].(string)})
		}
		return charges
	}
	const s = time.Second
	type step struct {
		wait    time.Duration
		charges []limits.Charge
		want    answer
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"no limit concerns it", []step{{0, nil, answer{Allowed: true}}}},
		{"one limit", []step{
			{0, charge(address, "a"), answer{Allowed: true, Limit: "address", Remaining: 2, Reset: 10 * s}},
			{4 * s, charge(address, "a"), answer{Allowed: true, Limit: "address", Remaining: 1, Reset: 6 * s}},
			{0, charge(address, "a"), answer{Allowed: true, Limit: "address", Remaining: 0, Reset: 6 * s}},
			{s, charge(address, "a"), answer{Limit: "address", Reset: 5 * s, RetryAfter: 5 * s}},
			{0, charge(address, "b"), answer{Allowed: true, Limit: "address", Remaining: 2, Reset: 10 * s}},
			{5 * s, charge(address, "a"), answer{Allowed: true, Limit: "address", Remaining: 2, Reset: 10 * s}},
		}},
		{"the nearest speaks", []step{
			{0, charge(address, "a", account, "x"), answer{Allowed: true, Limit: "account", Remaining: 1, Reset: 60 * s}},
			{0, charge(address, "a"), answer{Allowed: true, Limit: "address", Remaining: 1, Reset: 10 * s}},
			{0, charge(address, "a", account, "y"), answer{Allowed: true, Limit: "address", Remaining: 0, Reset: 10 * s}},
		}},
		{"one refuses and the other is not charged", []step{
			{0, charge(account, "x"), answer{Allowed: true, Limit: "account", Remaining: 1, Reset: 60 * s}},
			{0, charge(account, "x"), answer{Allowed: true, Limit: "account", Remaining: 0, Reset: 60 * s}},
			{0, charge(address, "a", account, "x"), answer{Limit: "account", Reset: 60 * s, RetryAfter: 60 * s}},
			{0, charge(account, "x", address, "a"), answer{Limit: "account", Reset: 60 * s, RetryAfter: 60 * s}},
			{0, charge(address, "a"), answer{Allowed: true, Limit: "address", Remaining: 2, Reset: 10 * s}},
		}},
		{"of two that refuse the later end counts", []step{
			{0, charge(account, "x", address, "a"), answer{Allowed: true, Limit: "account", Remaining: 1, Reset: 60 * s}},
			{0, charge(account, "x", address, "a"), answer{Allowed: true, Limit: "account", Remaining: 0, Reset: 60 * s}},
			{0, charge(address, "a"), answer{Allowed: true, Limit: "address", Remaining: 0, Reset: 10 * s}},
			{0, charge(address, "a", account, "x"), answer{Limit: "account", Reset: 60 * s, RetryAfter: 60 * s}},
		}},
		{"shadow refuses nobody", []step{
			{0, charge(shadow, "a"), answer{Allowed: true}},
			{0, charge(shadow, "a", address, "a"), answer{Allowed: true, Limit: "address", Remaining: 2, Reset: 10 * s, Shadow: []string{"shadow"}}},
		}},
		{"shadow is not charged when another refuses", []step{
			{0, charge(account, "x"), answer{Allowed: true, Limit: "account", Remaining: 1, Reset: 60 * s}},
			{0, charge(account, "x"), answer{Allowed: true, Limit: "account", Remaining: 0, Reset: 60 * s}},
			{0, charge(account, "x", shadow, "a"), answer{Limit: "account", Reset: 60 * s, RetryAfter: 60 * s}},
			{0, charge(shadow, "a"), answer{Allowed: true}},
		}},
		{"two limits over one key", []step{
			{0, charge(address, "a", minute, "a"), answer{Allowed: true, Limit: "address", Remaining: 2, Reset: 10 * s}},
			{0, charge(minute, "a"), answer{Allowed: true, Limit: "address", Remaining: 2, Reset: 60 * s}},
		}},
		{"one limit twice", []step{
			{0, charge(account, "x", account, "x"), answer{Allowed: true, Limit: "account", Remaining: 0, Reset: 60 * s}},
			{0, charge(account, "y"), answer{Allowed: true, Limit: "account", Remaining: 1, Reset: 60 * s}},
			{0, charge(account, "y", account, "y"), answer{Limit: "account", Remaining: 1, Reset: 60 * s, RetryAfter: 60 * s}},
			{0, charge(account, "y"), answer{Allowed: true, Limit: "account", Remaining: 0, Reset: 60 * s}},
		}},
		{"more limits than fit on the stack", []step{
			{0, charge(address, "1", address, "2", address, "3", address, "4", address, "5", address, "6", address, "7", address, "8", address, "9", account, "x"),
				answer{Allowed: true, Limit: "account", Remaining: 1, Reset: 60 * s}},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			clock := newClock()
			l := limits.New(limits.NewStore(0, clock.now), clock.now)
			for i, step := range test.steps {
				clock.advance(step.wait)
				got := answerOf(l.Take(context.Background(), step.charges), clock.now())
				if diff := cmp.Diff(step.want, got); diff != "" {
					t.Errorf("step %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// TestTakeIsExact compares with fixed windows written down as they are defined.
func TestTakeIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type window struct {
			used int64
			end  time.Time
		}
		var (
			clock   = newClock()
			l       = limits.New(limits.NewStore(0, clock.now), clock.now)
			windows = map[string]*window{}
			list    []*limits.Limit
		)
		for i := range 3 {
			list = append(list, &limits.Limit{
				Name: fmt.Sprint("limit", i),
				Rate: limiter.Rate{Limit: rapid.Int64Range(1, 4).Draw(t, "count"), Period: time.Duration(rapid.IntRange(1, 5).Draw(t, "period")) * time.Second},
				Mode: rapid.SampledFrom([]limits.Mode{"", limits.Enforce, limits.Shadow}).Draw(t, "mode"),
			})
		}
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			clock.advance(time.Duration(rapid.IntRange(0, 1500).Draw(t, "wait")) * time.Millisecond)
			var charges []limits.Charge
			for _, limit := range list {
				if rapid.Bool().Draw(t, "concerned") {
					charges = append(charges, limits.Charge{Limit: limit, Key: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")})
				}
			}
			want, shadow := true, 0
			for _, c := range charges {
				w := windows[c.Limit.Name+c.Key]
				if w == nil || !w.end.After(clock.now()) {
					w = &window{end: clock.now().Add(c.Limit.Rate.Period)}
					windows[c.Limit.Name+c.Key] = w
				}
				if w.used >= c.Limit.Rate.Limit {
					if c.Limit.Mode == limits.Shadow {
						shadow++
					} else {
						want = false
					}
				}
			}
			for _, c := range charges {
				w := windows[c.Limit.Name+c.Key]
				if want && w.used < c.Limit.Rate.Limit {
					w.used++
				} else if w.used == 0 {
					delete(windows, c.Limit.Name+c.Key) // a window opens with a charge
				}
			}
			got := l.Take(context.Background(), charges)
			if got.Allowed != want || len(got.Shadow) != shadow {
				t.Fatalf("allowed = %t with %d shadows, want %t with %d", got.Allowed, len(got.Shadow), want, shadow)
			}
		}
	})
}

func TestTakeConcurrently(t *testing.T) {
	clock := newClock()
	l := limits.New(limits.NewStore(0, clock.now), clock.now)
	one, all := newLimit(t, "one", "100/1m", ""), newLimit(t, "all", "500/1m", "")
	var passed [8]atomic.Int64
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 800 {
				charges := []limits.Charge{{Limit: one, Key: fmt.Sprint(i % 8)}, {Limit: all, Key: ""}}
				if g%2 == 1 {
					charges[0], charges[1] = charges[1], charges[0]
				}
				if l.Take(context.Background(), charges).Allowed {
					passed[i%8].Add(1)
				}
			}
		})
	}
	group.Wait()
	total := int64(0)
	for i := range passed {
		n := passed[i].Load()
		if n > 100 {
			t.Errorf("key %d passed %d times, want at most 100", i, n)
		}
		total += n
	}
	if total != 500 {
		t.Errorf("%d passed, want 500", total)
	}
}

// distant is a store that is not ours: it counts calls and can be away.
type distant struct {
	limiter.Store
	calls int
	away  error
}

func (d *distant) Peek(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	d.calls++
	if d.away != nil {
		return limiter.Context{}, d.away
	}
	return d.Store.Peek(ctx, key, rate)
}

func (d *distant) Increment(ctx context.Context, key string, n int64, rate limiter.Rate) (limiter.Context, error) {
	d.calls++
	if d.away != nil {
		return limiter.Context{}, d.away
	}
	return d.Store.Increment(ctx, key, n, rate)
}

func TestTakeOverAnotherStore(t *testing.T) {
	ctx := context.Background()
	newDistant := func() (*distant, *limits.Limiter) {
		store := &distant{Store: memory.NewStoreWithOptions(limiter.StoreOptions{Prefix: "x"})}
		return store, limits.New(store, time.Now)
	}
	account, address := newLimit(t, "account", "2/1h", ""), newLimit(t, "address", "3/2h", "")
	shadow := newLimit(t, "shadow", "1/1h", limits.Shadow)
	both := []limits.Charge{{Limit: account, Key: "x"}, {Limit: address, Key: "a"}}

	t.Run("all or nothing", func(t *testing.T) {
		_, l := newDistant()
		for i, want := range []bool{true, true, false, false} {
			if got := l.Take(ctx, both); got.Allowed != want || got.Degraded || got.Limit != account {
				t.Errorf("take %d: %+v, want allowed = %t by the account", i, got, want)
			}
		}
		if got := l.Take(ctx, both[1:]); !got.Allowed || got.Remaining != 0 {
			t.Errorf("got %+v, want the address's last one left for it", got)
		}
		l.Take(ctx, both[1:]) // now it is known that the address is over, too
		if got := l.Take(ctx, both); got.Allowed || got.Limit != address {
			t.Errorf("got %+v, want the address to refuse, whose window ends later", got)
		}
	})
	t.Run("who is over costs no round trip", func(t *testing.T) {
		store, l := newDistant()
		for range 3 {
			l.Take(ctx, both)
		}
		store.calls = 0
		got := l.Take(ctx, both)
		if got.Allowed || store.calls != 0 {
			t.Errorf("%d calls, %+v", store.calls, got)
		}
		if got.RetryAfter < 59*time.Minute || got.RetryAfter > time.Hour {
			t.Errorf("retry after %s, want about an hour", got.RetryAfter)
		}
	})
	t.Run("shadow refuses nobody", func(t *testing.T) {
		_, l := newDistant()
		charges := []limits.Charge{{Limit: shadow, Key: "a"}, both[1]}
		for i, want := range []int{0, 1, 1} {
			if got := l.Take(ctx, charges); !got.Allowed || len(got.Shadow) != want {
				t.Errorf("take %d: %+v, want %d shadows", i, got, want)
			}
		}
		if got := l.Take(ctx, charges); got.Allowed || got.Limit != address {
			t.Errorf("got %+v, want the address to refuse", got)
		}
	})
	t.Run("away", func(t *testing.T) {
		store, l := newDistant()
		l.Take(ctx, both)
		store.away = errors.New("connection refused")
		for i, want := range []bool{true, true, false} {
			if got := l.Take(ctx, both); got.Allowed != want || !got.Degraded && i < 2 {
				t.Errorf("take %d: %+v, want allowed = %t and degraded", i, got, want)
			}
		}
		store.away = nil
		if got := l.Take(ctx, []limits.Charge{{Limit: account, Key: "z"}}); !got.Allowed || got.Degraded {
			t.Errorf("got %+v, want it allowed and not degraded", got)
		}
	})
	t.Run("keys carry name, period and no address", func(t *testing.T) {
		seen := map[string]bool{}
		store := &keyed{Store: memory.NewStoreWithOptions(limiter.StoreOptions{Prefix: "x"}), seen: seen}
		limits.New(store, time.Now).Take(ctx, []limits.Charge{{Limit: account, Key: "203.0.113.7"}})
		for key := range seen {
			if hash, ok := strings.CutPrefix(key, "kidoban:account:1h0m0s:"); !ok || len(hash) != 32 {
				t.Errorf("key %q, want the name, the period and 32 digits of a hash", key)
			}
		}
		if len(seen) != 1 {
			t.Errorf("%d keys, want 1", len(seen))
		}
	})
}

type keyed struct {
	limiter.Store
	seen map[string]bool
}

func (k *keyed) Increment(ctx context.Context, key string, n int64, rate limiter.Rate) (limiter.Context, error) {
	k.seen[key] = true
	return k.Store.Increment(ctx, key, n, rate)
}

func TestTakeAllocatesLittle(t *testing.T) {
	l := limits.New(limits.NewStore(0, time.Now), time.Now)
	charges := []limits.Charge{
		{Limit: newLimit(t, "address", "1000000/1m", ""), Key: "203.0.113.7"},
		{Limit: newLimit(t, "account", "1000000/1m", ""), Key: "somebody"},
		{Limit: newLimit(t, "route", "1000000/1m", limits.Shadow), Key: "other"},
	}
	l.Take(context.Background(), charges)
	if got := testing.AllocsPerRun(100, func() { l.Take(context.Background(), charges) }); got > 3 {
		t.Errorf("%g allocations a call, want at most 3", got)
	}
}

func BenchmarkTake(b *testing.B) {
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprintf("2001:db8:%x::/64", i)
	}
	for _, bench := range []struct{ name, rate string }{{"three limits", "1000000000/1m"}, {"three limits, one refuses", "1/24h"}} {
		b.Run(bench.name, func(b *testing.B) {
			l := limits.New(limits.NewStore(0, time.Now), time.Now)
			network := newLimit(b, "network", bench.rate, "")
			account, route := newLimit(b, "account", "1000000000/1m", ""), newLimit(b, "route", "1000000000/1m", "")
			take := func(n int) {
				l.Take(context.Background(), []limits.Charge{
					{Limit: network, Key: keys[n%len(keys)]}, {Limit: account, Key: keys[n*7%len(keys)]}, {Limit: route, Key: "other"},
				})
			}
			for n := range keys {
				take(n)
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				take(n)
				n++
			}
		})
	}
}
