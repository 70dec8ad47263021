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
	"github.com/redis/go-redis/v9"
	"github.com/ulule/limiter/v3"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// connect is a client set up as the gate does it.
func connect(t testing.TB, addrs ...string) redis.UniversalClient {
	o := &redis.UniversalOptions{Addrs: addrs}
	limits.Tune(o, 0)
	c := redis.NewUniversalClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// shifted is the real time, moved on by what tests add.
type shifted struct{ by atomic.Int64 }

func (s *shifted) now() time.Time          { return time.Now().Add(time.Duration(s.by.Load())) }
func (s *shifted) advance(d time.Duration) { s.by.Add(int64(d)) }

// TestRedisTakesAsMemoryDoes runs the script that production runs against a Store,
// step by step, at times that the test sets.
func TestRedisTakesAsMemoryDoes(t *testing.T) {
	client := connect(t, storagetest.Redis(t).Addr())
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		clock := newClock()
		node := func() *limits.Redis {
			r := limits.NewRedis(client, limits.RedisConfig{Prefix: fmt.Sprint("run", runs), Now: clock.now, Budget: time.Second, LocalKeys: 64})
			r.SetServerTime(clock.now)
			return r
		}
		// A clock that is set back shows who remembers what; then every request
		// goes to a node of its own, which remembers nothing.
		backwards := rapid.Bool().Draw(t, "backwards")
		nodes := []*limits.Redis{node(), node()}
		model := limits.New(limits.NewStore(0, clock.now), clock.now)
		var list []*limits.Limit
		for i := range 3 {
			list = append(list, &limits.Limit{
				Name: fmt.Sprint("limit", i),
				Rate: limiter.Rate{Limit: rapid.Int64Range(1, 4).Draw(t, "count"), Period: time.Duration(rapid.IntRange(20, 90).Draw(t, "period")) * time.Second},
				Mode: rapid.SampledFrom([]limits.Mode{"", limits.Enforce, limits.Shadow}).Draw(t, "mode"),
			})
		}
		for step := range rapid.IntRange(1, 40).Draw(t, "requests") {
			wait := rapid.IntRange(0, 15_000_000).Draw(t, "wait")
			if backwards && rapid.IntRange(0, 5).Draw(t, "back") == 0 {
				wait *= -rapid.SampledFrom([]int{1, 1000}).Draw(t, "far")
			}
			clock.advance(time.Duration(wait) * time.Microsecond)
			var charges []limits.Charge
			for range rapid.IntRange(1, 4).Draw(t, "charges") {
				charges = append(charges, limits.Charge{
					Limit: rapid.SampledFrom(list).Draw(t, "limit"), Key: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")})
			}
			n := nodes[rapid.IntRange(0, 1).Draw(t, "node")]
			if backwards {
				n = node()
			}
			want := answerOf(model.Take(context.Background(), charges), clock.now())
			got := answerOf(n.Limiter().Take(context.Background(), charges), clock.now())
			if !backwards && !want.Allowed && !got.Allowed && got.RetryAfter > 0 && got.RetryAfter <= want.RetryAfter {
				continue // who is known to be over is told what is known
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("step %d, %v (-memory +redis):\n%s", step, charges, diff)
			}
		}
	})
}

// TestRedisAttemptsAsMemoryDoes does the same for login attempts and refunds.
func TestRedisAttemptsAsMemoryDoes(t *testing.T) {
	client := connect(t, storagetest.Redis(t).Addr())
	ctx, runs := context.Background(), 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		clock := newClock()
		var nodes []*limits.Attempts
		for range 2 {
			r := limits.NewRedis(client, limits.RedisConfig{Prefix: fmt.Sprint("run", runs), Now: clock.now, Budget: time.Second, LocalKeys: 64})
			r.SetServerTime(clock.now)
			nodes = append(nodes, r.Attempts())
		}
		model := limits.NewAttempts(0).ForgetNothing()
		var buckets []*limits.Bucket
		for i := range 2 {
			buckets = append(buckets, &limits.Bucket{
				Name: fmt.Sprint("bucket", i), Burst: rapid.IntRange(1, 5).Draw(t, "burst"),
				Every: rapid.SampledFrom([]time.Duration{time.Millisecond, 1234567 * time.Microsecond, time.Minute, 24 * time.Hour}).Draw(t, "every"),
			})
		}
		type pair struct{ model, node limits.Ticket }
		var tickets []pair
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			wait := rapid.Int64Range(0, 4_000_000).Draw(t, "wait")
			switch rapid.IntRange(0, 9).Draw(t, "clock") {
			case 0:
				wait = -wait * 4 // some further back than a lagging clock is, some not
			case 1:
				wait = -wait * 1000
			case 2:
				wait *= 1000
			}
			clock.advance(time.Duration(wait) * time.Microsecond)
			node := nodes[rapid.IntRange(0, 1).Draw(t, "node")]
			if len(tickets) > 0 && rapid.IntRange(0, 2).Draw(t, "refund") == 0 {
				back := tickets[rapid.IntRange(0, len(tickets)-1).Draw(t, "ticket")]
				model.Refund(ctx, back.model)
				node.Refund(ctx, back.node)
				continue
			}
			var charges []limits.AttemptCharge
			for range rapid.IntRange(1, 4).Draw(t, "charges") {
				charges = append(charges, limits.AttemptCharge{
					Bucket: rapid.SampledFrom(buckets).Draw(t, "bucket"), Key: key(rapid.IntRange(0, 2).Draw(t, "key")), N: rapid.IntRange(0, 6).Draw(t, "n")})
			}
			ticket, want := model.Take(ctx, clock.now(), charges)
			remote, got := node.Take(ctx, clock.now(), charges)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("step %d (-memory +redis):\n%s", step, diff)
			}
			tickets = append(tickets, pair{ticket, remote})
		}
	})
}

// TestRedisIsShared: what two nodes let through together is exactly the limit.
func TestRedisIsShared(t *testing.T) {
	server := storagetest.Redis(t)
	limit := newLimit(t, "shared", "100/1m", "")
	bucket := &limits.Bucket{Name: "shared", Every: time.Hour, Burst: 50}
	for _, pipeline := range []bool{false, true} {
		t.Run(fmt.Sprint("pipeline=", pipeline), func(t *testing.T) {
			var passed, tried, degraded atomic.Int64
			var group sync.WaitGroup
			for range 2 {
				r := limits.NewRedis(connect(t, server.Addr()), limits.RedisConfig{
					Prefix: fmt.Sprint(pipeline), AutoPipeline: pipeline, Budget: time.Second, Nodes: func() int { return 2 }})
				defer r.Close()
				for range 8 {
					group.Go(func() {
						for range 50 {
							d := r.Limiter().Take(t.Context(), []limits.Charge{{Limit: limit, Key: "k"}})
							if d.Allowed {
								passed.Add(1)
							}
							_, a := r.Attempts().Take(t.Context(), time.Now(), []limits.AttemptCharge{{Bucket: bucket, Key: key(1)}})
							if a.Allowed {
								tried.Add(1)
							}
							if d.Degraded || a.Degraded {
								degraded.Add(1)
							}
						}
					})
				}
			}
			group.Wait()
			if passed.Load() != 100 || tried.Load() != 50 || degraded.Load() != 0 {
				t.Errorf("%d requests and %d attempts passed, %d were counted locally; want 100, 50 and 0", passed.Load(), tried.Load(), degraded.Load())
			}
		})
	}
}

func TestRedisKeys(t *testing.T) {
	server, ctx := storagetest.Redis(t), context.Background()
	client := connect(t, server.Addr())
	config := limits.RedisConfig{Prefix: "site{1}", Key: []byte("0123456789abcdef0123456789abcdef"), Budget: time.Second}
	node := func() *limits.Redis { return limits.NewRedis(client, config) }
	r := node()
	limit := newLimit(t, "address", "3/1m", "")
	charges := []limits.Charge{{Limit: limit, Key: "203.0.113.7"}}
	bucket := &limits.Bucket{Name: "name", Every: time.Minute, Burst: 3}
	attempt := []limits.AttemptCharge{{Bucket: bucket, Key: key(7), N: 2}}
	r.Limiter().Take(ctx, charges)
	ticket, _ := r.Attempts().Take(ctx, time.Now(), attempt)

	keys := func() (counter, debt string) {
		t.Helper()
		all, err := client.Keys(ctx, "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range all {
			if strings.Contains(k, "203.0") || !strings.HasPrefix(k, "{site_1_}:") {
				t.Errorf("key %q, want the installation's tag and no address", k)
			}
			switch {
			case strings.HasPrefix(k, "{site_1_}:limit:address:1m0s:"):
				counter = k
			case strings.HasPrefix(k, "{site_1_}:attempt:name:"):
				debt = k
			}
		}
		return counter, debt
	}
	counter, debt := keys()
	if counter == "" || debt == "" {
		t.Fatal("no keys")
	}
	lasts := func(key string, least, most time.Duration) {
		t.Helper()
		if got := client.PTTL(ctx, key).Val(); got < least || got > most {
			t.Errorf("%s lasts %s, want %s to %s", key, got, least, most)
		}
	}
	lasts(counter, time.Minute, 70*time.Second)
	lasts(debt, 2*time.Minute, 130*time.Second)

	t.Run("a key without an end gets one", func(t *testing.T) {
		client.Persist(ctx, counter)
		client.Persist(ctx, debt)
		r.Limiter().Take(ctx, charges)
		r.Attempts().Take(ctx, time.Now(), []limits.AttemptCharge{{Bucket: bucket, Key: key(7)}})
		lasts(counter, 50*time.Second, 70*time.Second)
		lasts(debt, 2*time.Minute, 190*time.Second)
		r.Attempts().Refund(ctx, ticket)
		lasts(debt, 50*time.Second, 70*time.Second)
	})
	t.Run("refused is not written", func(t *testing.T) {
		node().Limiter().Take(ctx, charges)
		node().Limiter().Take(ctx, charges) // over
		node().Attempts().Take(ctx, time.Now(), attempt)
		before := client.Get(ctx, counter).Val() + client.Get(ctx, debt).Val()
		for range 3 {
			if d := node().Limiter().Take(ctx, charges); d.Allowed {
				t.Error("passed")
			}
			if _, d := node().Attempts().Take(ctx, time.Now(), attempt); d.Allowed {
				t.Error("passed")
			}
		}
		if after := client.Get(ctx, counter).Val() + client.Get(ctx, debt).Val(); after != before {
			t.Errorf("%q became %q", before, after)
		}
	})
	t.Run("what is no counter is overwritten", func(t *testing.T) {
		for _, spoil := range []func(key string){
			func(key string) { client.Set(ctx, key, "what", 0) },
			func(key string) { client.Set(ctx, key, "-1 x", 0) },
			func(key string) { client.Del(ctx, key); client.LPush(ctx, key, "x") },
		} {
			spoil(counter)
			spoil(debt)
			d := node().Limiter().Take(ctx, charges)
			_, a := node().Attempts().Take(ctx, time.Now(), attempt)
			if !d.Allowed || d.Remaining != 2 || d.Degraded || !a.Allowed || a.Degraded {
				t.Errorf("%+v, %+v", d, a)
			}
			lasts(counter, 50*time.Second, 70*time.Second)
		}
	})
	t.Run("a store of the library", func(t *testing.T) {
		store := node().Store()
		rate := limit.Rate
		for i, want := range []int64{2, 2, 1, 0, 0} {
			var got limiter.Context
			var err error
			if i == 1 {
				got, err = store.Peek(ctx, "k", rate)
			} else {
				got, err = store.Get(ctx, "k", rate)
			}
			if err != nil || got.Remaining != want || got.Reached != (i == 4) || got.Limit != 3 {
				t.Errorf("call %d: %+v, %v", i, got, err)
			}
		}
		if _, err := store.Reset(ctx, "k", rate); err != nil {
			t.Fatal(err)
		}
		if got, err := store.Increment(ctx, "k", 1<<62, rate); err != nil || !got.Reached || got.Remaining != 3 {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := store.Increment(ctx, "k", -1, rate); err == nil {
			t.Error("a negative count passed")
		}
		if got, err := store.Increment(ctx, "k", 3, rate); err != nil || got.Reached || got.Remaining != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestRedisKnowsWhoIsOver: a refusal that is known costs no call.
func TestRedisKnowsWhoIsOver(t *testing.T) {
	outcomes := map[string]int{}
	r := limits.NewRedis(connect(t, storagetest.Redis(t).Addr()), limits.RedisConfig{
		Budget: time.Second, Called: func(op, outcome string, _ time.Duration) { outcomes[op+" "+outcome]++ }})
	shadow := newLimit(t, "shadow", "1/1h", limits.Shadow)
	limit := newLimit(t, "limit", "2/1h", "")
	for range 2 {
		r.Limiter().Take(t.Context(), []limits.Charge{{Limit: limit, Key: "k"}})
		r.Limiter().Take(t.Context(), []limits.Charge{{Limit: shadow, Key: "k"}})
	}
	for range 10 {
		d := r.Limiter().Take(t.Context(), []limits.Charge{{Limit: limit, Key: "k"}, {Limit: shadow, Key: "k"}})
		if d.Allowed || d.Limit != limit || d.RetryAfter < 59*time.Minute || d.Degraded {
			t.Fatalf("%+v", d)
		}
		if d := r.Limiter().Take(t.Context(), []limits.Charge{{Limit: shadow, Key: "k"}}); !d.Allowed || len(d.Shadow) != 1 {
			t.Fatalf("%+v", d)
		}
	}
	want := map[string]int{"limits answered": 5, "limits cached": 19}
	if diff := cmp.Diff(want, outcomes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// outage is a node whose Redis tests take away.
type outage struct {
	*limits.Redis
	clock *shifted
	limit *limits.Limit
	n     int
}

func newOutage(t testing.TB, client redis.UniversalClient, nodes int) *outage {
	o := &outage{clock: new(shifted), limit: newLimit(t, "limit", "1000/1h", "")}
	o.Redis = limits.NewRedis(client, limits.RedisConfig{Now: o.clock.now, Nodes: func() int { return nodes }})
	return o
}

// take charges something nobody charged before, and tells how long that took.
func (o *outage) take(t testing.TB) (limits.Decision, time.Duration) {
	t.Helper()
	o.n++
	began := time.Now()
	d := o.Limiter().Take(t.Context(), []limits.Charge{{Limit: o.limit, Key: fmt.Sprint(o.n)}})
	took := time.Since(began)
	if !d.Allowed {
		t.Fatalf("%+v", d)
	}
	return d, took
}

// opens takes until the breaker is open and tells the longest wait.
func (o *outage) opens(t testing.TB) (longest time.Duration) {
	t.Helper()
	for range 20 {
		d, took := o.take(t)
		longest = max(longest, took)
		if !d.Degraded {
			t.Fatal("Redis answered")
		}
		if o.Status().Open {
			return longest
		}
	}
	t.Fatalf("the breaker did not open: %+v", o.Status())
	return 0
}

// closes takes, each time as long later as probes are apart, until Redis is asked again.
func (o *outage) closes(t testing.TB) {
	t.Helper()
	for range 1000 {
		o.clock.advance(10 * time.Second)
		// The first probe may be too slow to count: it finds a new connection.
		if d, _ := o.take(t); !d.Degraded && !o.Status().Open {
			return
		}
	}
	t.Fatalf("Redis is not asked again: %+v", o.Status())
}

func TestRedisIsABlackHole(t *testing.T) {
	for _, pipeline := range []bool{false, true} {
		t.Run(fmt.Sprint("pipeline=", pipeline), func(t *testing.T) {
			server := storagetest.Redis(t)
			o := newOutage(t, connect(t, server.Addr()), 1)
			if pipeline {
				o.Redis = limits.NewRedis(connect(t, server.Addr()), limits.RedisConfig{Now: o.clock.now, AutoPipeline: true})
				defer o.Close()
			}
			o.take(t)
			server.Pause()
			longest := o.opens(t)
			if most := limits.DefaultBudget + 150*time.Millisecond; longest > most {
				t.Errorf("a request waited %s, want the budget of %s", longest, limits.DefaultBudget)
			}
			began := time.Now()
			for range 1000 {
				if d, _ := o.take(t); !d.Degraded {
					t.Fatal("Redis answered")
				}
			}
			t.Logf("waited %s at most until the breaker opened, then %s a request", longest, time.Since(began)/1000)
			if took := time.Since(began); took > limits.DefaultBudget+150*time.Millisecond { // at most one probe
				t.Errorf("1000 requests took %s with the breaker open", took)
			}
			server.Resume()
			o.closes(t)
		})
	}
}

func TestRedisIsRefused(t *testing.T) {
	server := storagetest.Redis(t)
	server.Stop()
	o := newOutage(t, connect(t, server.Addr()), 1) // a gate starts without Redis
	longest := o.opens(t)
	t.Logf("refused in %s at most", longest)
	if longest > limits.DefaultBudget+100*time.Millisecond {
		t.Errorf("a refused connection took %s", longest)
	}
	server.Start()
	o.closes(t)

	// Restarted empty in between, with connections that are no more: the first
	// calls may find that out, none errs, and the scripts are there again.
	ticket, _ := o.Attempts().Take(t.Context(), time.Now(), []limits.AttemptCharge{{Bucket: &limits.Bucket{Name: "b", Every: time.Minute, Burst: 1}, Key: key(1)}})
	server.Stop()
	server.Start()
	o.Attempts().Refund(t.Context(), ticket)
	o.take(t)
	o.closes(t)
}

// Redis is found to be back also when nobody is charged.
func TestRedisIsProbed(t *testing.T) {
	server := storagetest.Redis(t)
	o := newOutage(t, connect(t, server.Addr()), 1)
	o.Probe(t.Context()) // nothing to find out
	server.Stop()
	o.opens(t)
	o.clock.advance(10 * time.Second)
	if o.Probe(t.Context()); !o.Status().Open {
		t.Error("a server that is away was found to be back")
	}
	server.Start()
	for range 1000 {
		o.clock.advance(10 * time.Second)
		if o.Probe(t.Context()); !o.Status().Open {
			return
		}
	}
	t.Errorf("Redis is not found to be back: %+v", o.Status())
}

func TestRedisForgetsScripts(t *testing.T) {
	server := storagetest.Redis(t)
	client := connect(t, server.Addr())
	r := limits.NewRedis(client, limits.RedisConfig{Budget: time.Second})
	bucket := &limits.Bucket{Name: "b", Every: time.Minute, Burst: 100}
	for range 3 {
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		d := r.Limiter().Take(t.Context(), []limits.Charge{{Limit: newLimit(t, "limit", "10/1h", ""), Key: "k"}})
		ticket, a := r.Attempts().Take(t.Context(), time.Now(), []limits.AttemptCharge{{Bucket: bucket, Key: key(1)}})
		r.Attempts().Refund(t.Context(), ticket)
		if d.Degraded || a.Degraded || r.Attempts().Late() != 0 {
			t.Errorf("%+v, %+v, %d late", d, a, r.Attempts().Late())
		}
	}
}

func TestRedisFailsOver(t *testing.T) {
	set := storagetest.Sentinel(t)
	options := &redis.UniversalOptions{Addrs: set.Addrs(), MasterName: set.Master()}
	limits.Tune(options, 0)
	client := redis.NewUniversalClient(options)
	defer client.Close()
	o := newOutage(t, client, 2)
	o.closes(t)
	done, stop := make(chan struct{}), make(chan struct{})
	var count, slowest int64
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			began := time.Now()
			d := o.Limiter().Take(context.Background(), []limits.Charge{{Limit: o.limit, Key: fmt.Sprint("during", count)}})
			if !d.Allowed {
				t.Errorf("%+v", d)
				return
			}
			count, slowest = count+1, max(slowest, int64(time.Since(began)))
		}
	}()
	set.FailOver()
	close(stop)
	<-done
	t.Logf("%d requests during the fail-over, the slowest took %s", count, time.Duration(slowest))
	if slowest > int64(limits.DefaultBudget+300*time.Millisecond) {
		t.Errorf("a request waited %s", time.Duration(slowest))
	}
	o.closes(t)
}

// faulty loses calls, or answers.
type faulty struct{ drop, lose atomic.Bool }

func (f *faulty) DialHook(next redis.DialHook) redis.DialHook { return next }
func (f *faulty) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (f *faulty) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if f.drop.Load() {
			cmd.SetErr(errors.New("the call is lost"))
			return cmd.Err()
		}
		err := next(ctx, cmd)
		if err == nil && f.lose.Load() {
			err = errors.New("the answer is lost")
			cmd.SetErr(err)
		}
		return err
	}
}

// TestRefundsArePaidOnce: a refund whose answer was lost is repeated, and paid once
// whether or not the server had heard it.
func TestRefundsArePaidOnce(t *testing.T) {
	server, ctx := storagetest.Redis(t), context.Background()
	client := connect(t, server.Addr())
	lossy := new(faulty)
	client.AddHook(lossy)
	clock := new(shifted)
	r := limits.NewRedis(client, limits.RedisConfig{Budget: time.Second, Now: clock.now})
	a := r.Attempts()
	bucket := &limits.Bucket{Name: "b", Every: time.Hour, Burst: 10}
	charge := func(n int) []limits.AttemptCharge { return []limits.AttemptCharge{{Bucket: bucket, Key: key(1), N: n}} }
	left := func() (n int) { // what passes now; given back
		t.Helper()
		for n = 10; n > 0; n-- {
			if ticket, d := a.Take(ctx, clock.now(), charge(n)); d.Allowed {
				a.Refund(ctx, ticket)
				return n
			}
		}
		return 0
	}
	one, _ := a.Take(ctx, clock.now(), charge(3))
	a.Take(ctx, clock.now(), charge(5))
	lossy.lose.Store(true)
	a.Refund(ctx, one) // heard, not confirmed
	a.Refund(ctx, one)
	lossy.lose.Store(false)
	if a.Late() != 1 {
		t.Fatalf("%d refunds are late, want 1", a.Late())
	}
	if got := left(); got != 5 || a.Late() != 0 { // the refund in left repeats it, for nothing
		t.Errorf("%d left and %d late, want 5 and 0", got, a.Late())
	}
	if got := left(); got != 5 {
		t.Errorf("%d left, want 5", got)
	}
	// Now the server does not hear it.
	two, _ := a.Take(ctx, clock.now(), charge(2))
	lossy.drop.Store(true)
	a.Refund(ctx, two)
	lossy.drop.Store(false)
	if got := left(); got != 3 || a.Late() != 0 {
		t.Errorf("%d left and %d late, want 3, and 0 since the refund in left repeats it", got, a.Late())
	}
	if got := left(); got != 5 {
		t.Errorf("%d left, want 5", got)
	}
	// A client that hung up is paid all the same.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	two, _ = a.Take(gone, clock.now(), charge(2))
	a.Refund(gone, two)
	if got := left(); got != 5 || a.Late() != 0 {
		t.Errorf("%d left and %d late, want 5 and 0", got, a.Late())
	}
	// A refund that is late for too long is given up.
	three, _ := a.Take(ctx, clock.now(), charge(1))
	lossy.lose.Store(true)
	a.Refund(ctx, three)
	lossy.lose.Store(false)
	clock.advance(6 * time.Minute)
	four, _ := a.Take(ctx, clock.now(), charge(1))
	a.Refund(ctx, four)
	if a.Late() != 0 {
		t.Errorf("%d late, want none", a.Late())
	}
}

// TestWithoutRedis: every node lets its share through and no more, and a ticket
// goes back to where it was taken.
func TestWithoutRedis(t *testing.T) {
	server := storagetest.Redis(t)
	server.Stop()
	ctx := t.Context()
	clock := new(shifted)
	limit := newLimit(t, "limit", "10/1h", "")
	bucket := &limits.Bucket{Name: "b", Every: time.Minute, Burst: 10}
	attempt := []limits.AttemptCharge{{Bucket: bucket, Key: key(1)}}
	passed := 0
	for range 3 {
		r := limits.NewRedis(connect(t, server.Addr()), limits.RedisConfig{Now: clock.now, Nodes: func() int { return 3 }})
		for range 20 {
			d := r.Limiter().Take(ctx, []limits.Charge{{Limit: limit, Key: "k"}})
			if d.Allowed {
				passed++
			} else if d.RetryAfter <= 0 || d.Limit != limit {
				t.Fatalf("%+v", d)
			}
		}
		a, now := r.Attempts(), clock.now()
		var tickets []limits.Ticket
		for i := range 6 {
			ticket, d := a.Take(ctx, now, attempt)
			if want := i < 4; d.Allowed != want || !d.Degraded { // ceil(10/3)
				t.Fatalf("attempt %d: %+v", i, d)
			}
			tickets = append(tickets, ticket)
		}
		if _, d := a.Take(ctx, now.Add(3*time.Minute-time.Microsecond), attempt); d.Allowed || d.RetryAfter != time.Microsecond {
			t.Errorf("%+v, want one back each 3m", d)
		}
		a.Refund(ctx, tickets[0])
		a.Refund(ctx, tickets[0])
		if _, d := a.Take(ctx, now, attempt); !d.Allowed {
			t.Errorf("%+v after a refund", d)
		}
		if _, d := a.Take(ctx, now, attempt); d.Allowed {
			t.Error("a refund was paid twice")
		}
	}
	if passed != 12 { // 3 times ceil(10/3)
		t.Errorf("%d passed, want 12", passed)
	}
}

// TestOvershoot: around an outage at most the limit on Redis and the shares of all
// nodes pass within one window.
func TestOvershoot(t *testing.T) {
	server := storagetest.Redis(t)
	clock := new(shifted)
	limit := newLimit(t, "limit", "100/1h", "")
	var nodes [3]*limits.Redis
	for i := range nodes {
		nodes[i] = limits.NewRedis(connect(t, server.Addr()), limits.RedisConfig{Now: clock.now, Budget: 20 * time.Millisecond, Nodes: func() int { return len(nodes) }})
	}
	spend := func(times int) (passed int) {
		for range times {
			for _, r := range nodes {
				if r.Limiter().Take(t.Context(), []limits.Charge{{Limit: limit, Key: "k"}}).Allowed {
					passed++
				}
			}
		}
		return passed
	}
	total := spend(10)
	for range 3 {
		server.Pause()
		total += spend(50)
		server.Resume()
		clock.advance(20 * time.Second) // later than any probe waits
		total += spend(10)
	}
	total += spend(200)
	if most := 100 + 3*34; total > most || total < 100 {
		t.Errorf("%d passed within one window, want 100 to %d", total, most)
	}
}

func BenchmarkNodes(b *testing.B) {
	server := storagetest.Redis(b)
	down := storagetest.Redis(b)
	down.Stop()
	limit, full := newLimit(b, "limit", "1000000000/1h", ""), newLimit(b, "full", "1/1h", "")
	account, route := newLimit(b, "account", "1000000000/1h", ""), newLimit(b, "route", "1000000000/1h", "")
	open := limits.NewRedis(connect(b, down.Addr()), limits.RedisConfig{})
	piped := limits.NewRedis(connect(b, server.Addr()), limits.RedisConfig{Prefix: "piped", Budget: time.Second, AutoPipeline: true})
	defer piped.Close()
	plain := limits.NewRedis(connect(b, server.Addr()), limits.RedisConfig{Prefix: "plain", Budget: time.Second})
	for _, bench := range []struct {
		name  string
		l     *limits.Limiter
		first *limits.Limit
	}{
		{"memory", limits.New(limits.NewStore(0, time.Now), time.Now), limit},
		{"redis", plain.Limiter(), limit},
		{"redis, pipelined", piped.Limiter(), limit},
		{"redis, known to be over", plain.Limiter(), full},
		{"breaker open", open.Limiter(), limit},
	} {
		b.Run(bench.name, func(b *testing.B) {
			take := func() {
				bench.l.Take(context.Background(), []limits.Charge{{Limit: bench.first, Key: "k"}, {Limit: account, Key: "k"}, {Limit: route, Key: "k"}})
			}
			for range 5 {
				take()
			}
			b.SetParallelism(32)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					take()
				}
			})
		})
	}
}
