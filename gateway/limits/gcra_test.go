package limits_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/gateway/limits"
)

func key(n int) [16]byte { return [16]byte{byte(n), byte(n >> 8), byte(n >> 16), 1} }

func TestAttempts(t *testing.T) {
	var (
		name    = &limits.Bucket{Name: "name", Every: time.Minute, Burst: 3}
		network = &limits.Bucket{Name: "network", Every: time.Second, Burst: 5}
		one     = []limits.AttemptCharge{{Bucket: name, Key: key(1), N: 1}}
		both    = []limits.AttemptCharge{{Bucket: network, Key: key(1), N: 1}, {Bucket: name, Key: key(1), N: 1}}
	)
	type step struct {
		wait    time.Duration
		charges []limits.AttemptCharge
		refund  int // 1: of the first ticket, and so on; 0: take instead
		want    limits.AttemptDecision
	}
	pass := limits.AttemptDecision{Allowed: true}
	refuse := func(b *limits.Bucket, wait time.Duration) limits.AttemptDecision {
		return limits.AttemptDecision{RetryAfter: wait, Bucket: b}
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"nothing to charge", []step{{want: pass}}},
		{"a burst, then evenly", []step{
			{0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, refuse(name, time.Minute)},
			{45 * time.Second, one, 0, refuse(name, 15*time.Second)}, {15 * time.Second, one, 0, pass}, {0, one, 0, refuse(name, time.Minute)},
			{time.Hour, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, refuse(name, time.Minute)},
		}},
		{"the moment counts to the microsecond", []step{
			{0, []limits.AttemptCharge{{Bucket: name, Key: key(1), N: 3}}, 0, pass},
			{time.Minute - time.Microsecond, one, 0, refuse(name, time.Microsecond)}, {time.Microsecond, one, 0, pass},
		}},
		{"several at once", []step{
			{0, []limits.AttemptCharge{{Bucket: name, Key: key(1), N: 2}}, 0, pass},
			{0, []limits.AttemptCharge{{Bucket: name, Key: key(1), N: 2}}, 0, refuse(name, time.Minute)},
			{0, one, 0, pass},
		}},
		{"more than the burst never passes", []step{
			{0, []limits.AttemptCharge{{Bucket: name, Key: key(1), N: 4}}, 0, refuse(name, time.Minute)},
			{time.Hour, []limits.AttemptCharge{{Bucket: name, Key: key(1), N: 1 << 60}}, 0, refuse(name, 3*time.Minute)},
		}},
		{"less than one is one", []step{
			{0, []limits.AttemptCharge{{Bucket: name, Key: key(1), N: 0}}, 0, pass}, {0, []limits.AttemptCharge{{Bucket: name, Key: key(1), N: -9}}, 0, pass},
			{0, one, 0, pass}, {0, one, 0, refuse(name, time.Minute)},
		}},
		{"all or nothing", []step{
			{0, both, 0, pass}, {0, both, 0, pass}, {0, both, 0, pass}, {0, both, 0, refuse(name, time.Minute)}, {0, both, 0, refuse(name, time.Minute)},
			{0, both[:1], 0, pass}, {0, both[:1], 0, pass}, {0, both[:1], 0, refuse(network, time.Second)},
			{0, both, 0, refuse(name, time.Minute)},
		}},
		{"one key under two buckets", []step{
			{0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, pass}, {0, both[:1], 0, pass},
		}},
		{"the same bucket twice", []step{
			{0, append(one[:1:1], one...), 0, pass}, {0, append(one[:1:1], one...), 0, refuse(name, time.Minute)}, {0, one, 0, pass},
		}},
		{"a refund", []step{
			{0, both, 0, pass}, {0, both, 0, pass}, {0, both, 0, pass}, {refund: 1}, {0, both, 0, pass}, {0, both, 0, refuse(name, time.Minute)},
		}},
		{"a refund once", []step{
			{0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, pass}, {refund: 1}, {refund: 1}, {refund: 1}, {0, one, 0, pass}, {0, one, 0, refuse(name, time.Minute)},
		}},
		{"a refund does not lift a bucket over its burst", []step{
			{0, one, 0, pass}, {50 * time.Second, nil, 1, pass}, {0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, refuse(name, time.Minute)},
		}},
		{"a refused attempt has nothing to refund", []step{
			{0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, refuse(name, time.Minute)}, {refund: 4}, {0, one, 0, refuse(name, time.Minute)},
		}},
		{"time a little backwards neither takes nor gives", []step{
			{0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, pass},
			{-9 * time.Second, one, 0, refuse(name, time.Minute)}, {9 * time.Second, one, 0, refuse(name, time.Minute)},
			{time.Minute, one, 0, pass},
		}},
		{"a clock set back goes on from there", []step{
			{0, one, 0, pass}, {0, one, 0, pass}, {0, one, 0, pass},
			{-time.Hour, one, 0, refuse(name, time.Minute)}, {time.Minute, one, 0, pass},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			attempts, now := limits.NewAttempts(0), start
			var tickets []limits.Ticket
			for i, s := range test.steps {
				now = now.Add(s.wait)
				if s.refund > 0 {
					attempts.Refund(context.Background(), tickets[s.refund-1])
					continue
				}
				ticket, got := attempts.Take(context.Background(), now, s.charges)
				tickets = append(tickets, ticket)
				if diff := cmp.Diff(s.want, got); diff != "" {
					t.Errorf("step %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// tokens is a bucket written down as it is defined: a number of tokens, in
// fractions of a microsecond's worth, that grows with time up to the burst.
type tokens struct {
	have int64 // tokens times microseconds of Every
	at   int64
}

func (b *tokens) settle(bucket *limits.Bucket, now int64) {
	b.have = min(b.have+now-b.at, int64(bucket.Burst)*bucket.Every.Microseconds())
	b.at = now
}

// TestAttemptsAreExact compares with tokens, and holds the bound that matters:
// attempts that were not refunded never exceed the burst plus what time gave.
func TestAttemptsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var buckets []*limits.Bucket
		for i := range 2 {
			buckets = append(buckets, &limits.Bucket{
				Name:  fmt.Sprint("bucket", i),
				Every: time.Duration(rapid.IntRange(1, 5000).Draw(t, "every")) * time.Millisecond,
				Burst: rapid.IntRange(1, 5).Draw(t, "burst"),
			})
		}
		type place struct{ bucket, key int }
		type taken struct {
			ticket   limits.Ticket
			parts    []place
			n        []int
			refunded bool
		}
		var (
			attempts = limits.NewAttempts(0)
			model    = map[place]*tokens{}
			charged  = map[place]int64{} // attempts not refunded
			tickets  []*taken
			now      = start.UnixMicro()
		)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			now += rapid.Int64Range(0, 4_000_000).Draw(t, "wait")
			if len(tickets) > 0 && rapid.IntRange(0, 2).Draw(t, "refund") == 0 {
				back := rapid.SampledFrom(tickets).Draw(t, "ticket")
				attempts.Refund(context.Background(), back.ticket)
				if back.refunded {
					continue
				}
				back.refunded = true
				for i, p := range back.parts {
					model[p].settle(buckets[p.bucket], now)
					model[p].have += int64(back.n[i]) * buckets[p.bucket].Every.Microseconds()
					model[p].settle(buckets[p.bucket], now)
					charged[p] -= int64(back.n[i])
				}
				continue
			}
			want, this := true, &taken{}
			var charges []limits.AttemptCharge
			for range rapid.IntRange(1, 3).Draw(t, "charges") {
				p := place{rapid.IntRange(0, 1).Draw(t, "bucket"), rapid.IntRange(0, 2).Draw(t, "key")}
				n := rapid.IntRange(1, 3).Draw(t, "n")
				this.parts, this.n = append(this.parts, p), append(this.n, n)
				charges = append(charges, limits.AttemptCharge{Bucket: buckets[p.bucket], Key: key(p.key), N: n})
				if model[p] == nil {
					model[p] = &tokens{have: int64(buckets[p.bucket].Burst) * buckets[p.bucket].Every.Microseconds(), at: now}
				}
				model[p].settle(buckets[p.bucket], now)
			}
			needs := map[place]int64{}
			for i, p := range this.parts {
				needs[p] += int64(this.n[i]) * buckets[p.bucket].Every.Microseconds()
			}
			for p, need := range needs {
				want = want && model[p].have >= need
			}
			var got limits.AttemptDecision
			this.ticket, got = attempts.Take(context.Background(), time.UnixMicro(now), charges)
			if got.Allowed != want {
				t.Fatalf("allowed = %t, want %t", got.Allowed, want)
			}
			if !want {
				if got.RetryAfter <= 0 || got.Bucket == nil {
					t.Fatalf("refused with %+v", got)
				}
				continue
			}
			for p, need := range needs {
				model[p].have -= need
			}
			for i, p := range this.parts {
				charged[p] += int64(this.n[i])
			}
			tickets = append(tickets, this)
			for p, n := range charged {
				b := buckets[p.bucket]
				if most := int64(b.Burst) + (now-start.UnixMicro())/b.Every.Microseconds(); n > most {
					t.Fatalf("%d attempts passed, want at most %d", n, most)
				}
			}
		}
	})
}

// TestAttemptsRetryAfter holds that who waits as told passes, and a microsecond
// less does not do.
func TestAttemptsRetryAfter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bucket := &limits.Bucket{Name: "b", Every: time.Duration(rapid.IntRange(1, 10_000).Draw(t, "every")) * time.Millisecond, Burst: rapid.IntRange(1, 9).Draw(t, "burst")}
		attempts, now := limits.NewAttempts(0), start
		for range 50 {
			now = now.Add(time.Duration(rapid.IntRange(0, 1_000_000).Draw(t, "wait")) * time.Microsecond)
			charges := []limits.AttemptCharge{{Bucket: bucket, Key: key(1), N: rapid.IntRange(1, bucket.Burst).Draw(t, "n")}}
			_, d := attempts.Take(context.Background(), now, charges)
			if d.Allowed {
				continue
			}
			if _, early := attempts.Take(context.Background(), now.Add(d.RetryAfter-time.Microsecond), charges); early.Allowed {
				t.Fatal("passed before the time told")
			}
			now = now.Add(d.RetryAfter)
			if _, then := attempts.Take(context.Background(), now, charges); !then.Allowed {
				t.Fatalf("refused at the time told, for another %s", then.RetryAfter)
			}
		}
	})
}

func TestLoginBucketsOnMonday(t *testing.T) {
	set, attempts := loginBuckets(), limits.NewAttempts(0)
	// 2,000 people behind one address within half an hour; one in eight mistypes
	// once, on a device nobody knows yet.
	now := start
	for person := range 2000 {
		tries := 1
		if person%8 == 0 {
			tries = 2
		}
		for try := range tries {
			now = now.Add(800 * time.Millisecond)
			ticket, d := attempts.Take(context.Background(), now, []limits.AttemptCharge{
				{Bucket: &set.Network, Key: key(0), N: 1}, {Bucket: &set.Name, Key: key(person), N: 1}})
			if !d.Allowed {
				t.Fatalf("person %d is refused by the %s bucket", person, d.Bucket.Name)
			}
			if try == tries-1 {
				attempts.Refund(context.Background(), ticket)
			}
		}
	}

	// All of them at once, everybody mistyping who will: still within the burst.
	attempts = limits.NewAttempts(0)
	for person := range 250 {
		if _, d := attempts.Take(context.Background(), now, []limits.AttemptCharge{{Bucket: &set.Network, Key: key(0), N: 1}, {Bucket: &set.Name, Key: key(person), N: 1}}); !d.Allowed {
			t.Fatalf("person %d is refused by the %s bucket", person, d.Bucket.Name)
		}
	}

	// A list from one address comes to its end.
	passed := 0
	for entry := range 100_000 {
		now = now.Add(100 * time.Millisecond)
		if _, d := attempts.Take(context.Background(), now, []limits.AttemptCharge{{Bucket: &set.Network, Key: key(1), N: 1}, {Bucket: &set.Name, Key: key(entry), N: 1}}); d.Allowed {
			passed++
		}
	}
	if want := 300 + 100_000/20; passed > want {
		t.Errorf("%d attempts of a list passed, want at most %d", passed, want)
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	const room = 100 * limits.Shards
	bucket := &limits.Bucket{Name: "name", Every: time.Hour, Burst: 3}
	attempts := limits.NewAttempts(room)
	take := func(n, times int) limits.AttemptDecision {
		_, d := attempts.Take(context.Background(), start, []limits.AttemptCharge{{Bucket: bucket, Key: key(n), N: times}})
		return d
	}
	for n := range 500 {
		take(n, 3)
	}
	for n := range 20 * room {
		take(1000+n, 1)
	}
	if held := attempts.Held(); held > room {
		t.Errorf("%d buckets are held, want at most %d", held, room)
	}
	for n := range 500 {
		if take(n, 1).Allowed {
			t.Errorf("bucket %d was forgotten while it refused", n)
		}
	}
	// What time or a refund filled again is not held.
	later := start.Add(24 * time.Hour)
	for n := range 3 * room {
		ticket, d := attempts.Take(context.Background(), later, []limits.AttemptCharge{{Bucket: bucket, Key: key(n), N: 1}})
		if !d.Allowed {
			t.Fatalf("bucket %d refuses a day later", n)
		}
		attempts.Refund(context.Background(), ticket)
	}
	if held := attempts.Held(); held > room/10 {
		t.Errorf("%d buckets are held, want few", held)
	}
}

func TestAttemptsConcurrently(t *testing.T) {
	attempts := limits.NewAttempts(0)
	all := &limits.Bucket{Name: "all", Every: time.Hour, Burst: 500}
	one := &limits.Bucket{Name: "one", Every: time.Hour, Burst: 100}
	var kept atomic.Int64
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 800 {
				charges := []limits.AttemptCharge{{Bucket: one, Key: key(i % 8), N: 1}, {Bucket: all, Key: key(0), N: 1}}
				if g%2 == 1 {
					charges[0], charges[1] = charges[1], charges[0]
				}
				ticket, d := attempts.Take(context.Background(), start, charges)
				if d.Allowed && i%3 == 0 {
					var twice sync.WaitGroup
					for range 2 {
						twice.Go(func() { attempts.Refund(context.Background(), ticket) })
					}
					twice.Wait()
				} else if d.Allowed {
					kept.Add(1)
				}
			}
		})
	}
	group.Wait()
	if got := kept.Load(); got != 500 {
		t.Errorf("%d were kept, want 500", got)
	}
}

func BenchmarkAttempts(b *testing.B) {
	set := loginBuckets()
	set.Network.Burst, set.Network.Every = 1_000_000, time.Millisecond
	b.Run("network and name, refunded", func(b *testing.B) {
		attempts, now, n := limits.NewAttempts(0), start, 0
		b.ReportAllocs()
		for b.Loop() {
			n++
			now = now.Add(time.Millisecond)
			ticket, _ := attempts.Take(context.Background(), now, []limits.AttemptCharge{{Bucket: &set.Network, Key: key(n % 256), N: 1}, {Bucket: &set.Name, Key: key(n), N: 1}})
			attempts.Refund(context.Background(), ticket)
		}
	})
	b.Run("a full table, always new names", func(b *testing.B) {
		attempts, n := limits.NewAttempts(1<<16), 0
		b.ReportAllocs()
		for b.Loop() {
			n++
			attempts.Take(context.Background(), start, []limits.AttemptCharge{{Bucket: &set.Name, Key: key(n), N: 1}})
		}
	})
}

// loginBuckets are those of the shipped policy.
func loginBuckets() limits.LoginBucketSet {
	return limits.LoginBucketSet{
		Network: limits.Bucket{Name: "network", Every: 2 * time.Second, Burst: 300},
		Name:    limits.Bucket{Name: "name", Every: 6 * time.Minute, Burst: 10},
		Device:  limits.Bucket{Name: "device", Every: 3 * time.Minute, Burst: 20},
	}
}
