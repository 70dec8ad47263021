package limits_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"

	"github.com/kidoban/kidoban/gateway/limits"
)

// start is when tests begin: not at a full second, which is where rounding shows.
var start = time.Date(2026, 11, 23, 9, 0, 0, 250_000_000, time.UTC)

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: start} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// state is a store's answer without the end of the window, which the library
// rounds down and we up.
type state struct {
	Limit, Remaining int64
	Reached          bool
}

// TestStoresAgree runs one suite over the library's memory store and ours, in
// bubbles of time of their own.
func TestStoresAgree(t *testing.T) {
	stores := map[string]func() limiter.Store{
		"the library's": func() limiter.Store { return memory.NewStoreWithOptions(limiter.StoreOptions{Prefix: "x"}) },
		"ours":          func() limiter.Store { return limits.NewStore(0, time.Now) },
	}
	rate := limiter.Rate{Limit: 3, Period: 10 * time.Second}
	type step struct {
		do   string // get, peek, reset, or plus two
		key  string
		wait time.Duration // before
		want state
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"counts up to the limit", []step{
			{"get", "a", 0, state{3, 2, false}}, {"get", "a", 0, state{3, 1, false}}, {"get", "a", 0, state{3, 0, false}},
			{"get", "a", 0, state{3, 0, true}}, {"get", "a", 0, state{3, 0, true}},
		}},
		{"peeking changes nothing", []step{
			{"peek", "a", 0, state{3, 3, false}}, {"peek", "a", 0, state{3, 3, false}}, {"get", "a", 0, state{3, 2, false}},
			{"peek", "a", 0, state{3, 2, false}}, {"peek", "a", 0, state{3, 2, false}},
		}},
		{"keys are apart", []step{
			{"get", "a", 0, state{3, 2, false}}, {"get", "b", 0, state{3, 2, false}}, {"get", "a", 0, state{3, 1, false}},
		}},
		{"a window opens with the first hit and does not move", []step{
			{"get", "a", 7 * time.Second, state{3, 2, false}}, {"get", "a", 9 * time.Second, state{3, 1, false}},
			{"get", "a", 1100 * time.Millisecond, state{3, 2, false}},
		}},
		{"a refused key is free when its window ends", []step{
			{"plus two", "a", 0, state{3, 1, false}}, {"get", "a", 0, state{3, 0, false}}, {"get", "a", 5 * time.Second, state{3, 0, true}},
			{"peek", "a", 5100 * time.Millisecond, state{3, 3, false}}, {"get", "a", 0, state{3, 2, false}},
		}},
		{"reset forgets", []step{
			{"plus two", "a", 0, state{3, 1, false}}, {"reset", "a", 0, state{3, 3, false}}, {"peek", "a", 0, state{3, 3, false}},
			{"get", "a", 0, state{3, 2, false}}, {"reset", "b", 0, state{3, 3, false}},
		}},
	}
	for name, open := range stores {
		for _, test := range tests {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, ctx := open(), context.Background()
					for i, s := range test.steps {
						time.Sleep(s.wait) // in the bubble
						var got limiter.Context
						var err error
						switch s.do {
						case "get":
							got, err = store.Get(ctx, s.key, rate)
						case "plus two":
							got, err = store.Increment(ctx, s.key, 2, rate)
						case "peek":
							got, err = store.Peek(ctx, s.key, rate)
						case "reset":
							got, err = store.Reset(ctx, s.key, rate)
						}
						if err != nil {
							t.Fatal(err)
						}
						if diff := cmp.Diff(s.want, state{got.Limit, got.Remaining, got.Reached}); diff != "" {
							t.Errorf("step %d, %s %s (-want +got):\n%s", i, s.do, s.key, diff)
						}
						now := time.Now()
						if got.Reset < now.Unix() || got.Reset > now.Add(rate.Period).Unix()+1 {
							t.Errorf("step %d: reset at %d, now is %d", i, got.Reset, now.Unix())
						}
					}
				})
			})
		}
	}
}

// TestStoreDiffers holds what we promise and the library does not.
func TestStoreDiffers(t *testing.T) {
	ctx := context.Background()
	rate := limiter.Rate{Limit: 10, Period: 10 * time.Second}
	must := func(got limiter.Context, err error) limiter.Context {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	t.Run("a refused charge takes nothing", func(t *testing.T) {
		store := limits.NewStore(0, newClock().now)
		must(store.Increment(ctx, "a", 4, rate))
		if got := must(store.Increment(ctx, "a", 7, rate)); !got.Reached || got.Remaining != 6 {
			t.Errorf("got %+v, want it reached with 6 remaining", got)
		}
		if got := must(store.Increment(ctx, "a", 6, rate)); got.Reached || got.Remaining != 0 {
			t.Errorf("got %+v, want it not reached with 0 remaining", got)
		}
	})
	t.Run("negative charges are errors", func(t *testing.T) {
		store := limits.NewStore(0, newClock().now)
		if _, err := store.Increment(ctx, "a", -5, rate); err == nil {
			t.Error("no error")
		}
		if got := must(store.Peek(ctx, "a", rate)); got.Remaining != 10 {
			t.Errorf("%d remaining, want 10", got.Remaining)
		}
	})
	t.Run("a rate without a period is an error", func(t *testing.T) {
		if _, err := limits.NewStore(0, newClock().now).Get(ctx, "a", limiter.Rate{Limit: 1}); err == nil {
			t.Error("no error")
		}
	})
	t.Run("periods are apart", func(t *testing.T) {
		store := limits.NewStore(0, newClock().now)
		must(store.Increment(ctx, "a", 10, rate))
		if got := must(store.Get(ctx, "a", limiter.Rate{Limit: 10, Period: time.Minute})); got.Remaining != 9 {
			t.Errorf("%d remaining, want 9", got.Remaining)
		}
	})
	t.Run("the end of a window is rounded up", func(t *testing.T) {
		store := limits.NewStore(0, newClock().now)
		if got, want := must(store.Get(ctx, "a", rate)).Reset, start.Add(10*time.Second).Unix()+1; got != want {
			t.Errorf("reset = %d, want %d", got, want)
		}
	})
	t.Run("a clock set back ends the window a period later at most", func(t *testing.T) {
		clock := newClock()
		store := limits.NewStore(0, clock.now)
		must(store.Increment(ctx, "a", 10, rate))
		clock.advance(-time.Hour)
		if got := must(store.Get(ctx, "a", rate)); !got.Reached || got.Reset > clock.now().Add(11*time.Second).Unix() {
			t.Errorf("got %+v, want it reached until %d", got, clock.now().Add(10*time.Second).Unix())
		}
	})
}

func TestStoreIsBounded(t *testing.T) {
	const room = 100 * limits.Shards
	ctx := context.Background()
	rate := limiter.Rate{Limit: 5, Period: time.Minute}
	clock := newClock()
	store := limits.NewStore(room, clock.now)
	over := make([]string, 500)
	for i := range over {
		over[i] = fmt.Sprint("over-", i)
		if _, err := store.Increment(ctx, over[i], 5, rate); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 * room {
		if _, err := store.Get(ctx, fmt.Sprint("passer-by-", i), rate); err != nil {
			t.Fatal(err)
		}
	}
	if held := store.Held(); held > room {
		t.Errorf("%d counters are held, want at most %d", held, room)
	}
	for _, key := range over {
		if got, err := store.Get(ctx, key, rate); err != nil || !got.Reached {
			t.Errorf("%s was forgotten while over its limit: %+v, %v", key, got, err)
		}
	}

	// All windows end, and newcomers sweep as they come.
	clock.advance(2 * time.Minute)
	for i := range room {
		if _, err := store.Get(ctx, fmt.Sprint("morning-", i), rate); err != nil {
			t.Fatal(err)
		}
	}
	if held := store.Held(); held > room {
		t.Errorf("%d counters are held, want at most %d", held, room)
	}

	// Everybody over: newcomers are still counted, and memory stays.
	for i := range 3 * room {
		if _, err := store.Increment(ctx, fmt.Sprint("all-over-", i), 5, rate); err != nil {
			t.Fatal(err)
		}
	}
	if held := store.Held(); held > room {
		t.Errorf("%d counters are held, want at most %d", held, room)
	}
	if got, err := store.Get(ctx, fmt.Sprint("all-over-", 3*room-1), rate); err != nil || !got.Reached {
		t.Errorf("the latest over its limit was forgotten: %+v, %v", got, err)
	}
}

func TestStoreForgetsTheLeastUsed(t *testing.T) {
	const room = 64 * limits.Shards // small enough for a shard to be looked at whole
	ctx := context.Background()
	rate := limiter.Rate{Limit: 1000, Period: time.Minute}
	store := limits.NewStore(room, newClock().now)
	for i := range 200 {
		if _, err := store.Increment(ctx, fmt.Sprint("busy-", i), 50, rate); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 * room {
		if _, err := store.Get(ctx, fmt.Sprint("passer-by-", i), rate); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		key := fmt.Sprint("busy-", i)
		if got, err := store.Peek(ctx, key, rate); err != nil || got.Remaining != 950 {
			t.Errorf("%s has %d remaining, %v, want 950", key, got.Remaining, err)
		}
	}
}

func TestStoreConcurrently(t *testing.T) {
	ctx := context.Background()
	store := limits.NewStore(limits.Shards, newClock().now) // one counter a shard: evictions all the time
	rate := limiter.Rate{Limit: 1000, Period: time.Minute}
	roomy := limits.NewStore(0, newClock().now)
	var passed atomic.Int64
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 500 {
				if got, err := roomy.Get(ctx, "one", rate); err != nil {
					t.Error(err)
				} else if !got.Reached {
					passed.Add(1)
				}
				key := fmt.Sprint(g, i%7)
				_, _ = store.Get(ctx, key, rate)
				_, _ = store.Peek(ctx, key, rate)
				_, _ = store.Reset(ctx, key, rate)
			}
		})
	}
	group.Wait()
	if got := passed.Load(); got != 1000 {
		t.Errorf("%d passed, want 1000", got)
	}
	if held := store.Held(); held > limits.Shards {
		t.Errorf("%d counters are held, want at most %d", held, limits.Shards)
	}
}

func BenchmarkStore(b *testing.B) {
	ctx := context.Background()
	rate := limiter.Rate{Limit: 1_000_000, Period: time.Minute}
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprint("203.0.113.", i)
	}
	for name, store := range map[string]limiter.Store{
		"library": memory.NewStoreWithOptions(limiter.StoreOptions{Prefix: "x"}),
		"ours":    limits.NewStore(0, time.Now),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var n int
			for b.Loop() {
				_, _ = store.Get(ctx, keys[n%len(keys)], rate)
				n++
			}
		})
	}
	b.Run("ours, full, always new keys", func(b *testing.B) {
		store := limits.NewStore(1<<16, time.Now)
		key := make([]byte, 8)
		b.ReportAllocs()
		var n uint64
		for b.Loop() {
			n++
			for i := range key {
				key[i] = byte(n >> (8 * i))
			}
			_, _ = store.Get(ctx, string(key), rate)
		}
	})
}
