package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// live is a node on a real server.
type live struct {
	*Stream
	t       testing.TB
	client  redis.UniversalClient
	cancel  context.CancelFunc
	ended   chan struct{}
	mu      sync.Mutex
	applied map[detectors.EventKey]int
	heard   map[Announcement]int
}

var incarnations = struct {
	sync.Mutex
	last uint64
}{last: 1000}

// run starts a node. It ends with the test, if not before.
func run(t testing.TB, name string, client redis.UniversalClient, configure func(*Config)) *live {
	t.Helper()
	incarnations.Lock()
	incarnations.last++
	c := Config{Node: name, Incarnation: incarnations.last, Now: time.Now, Redis: client, Dir: t.TempDir(), ReadyWait: 2 * time.Second}
	incarnations.Unlock()
	if configure != nil {
		configure(&c)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	n := &live{Stream: s, t: t, client: client, ended: make(chan struct{}), applied: make(map[detectors.EventKey]int), heard: make(map[Announcement]int)}
	count := func(e detectors.Event) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.applied[e.Key]++
		return nil
	}
	if err := s.Replay(t.Context(), nil, count); err != nil {
		t.Fatal(err)
	}
	s.Subscribe(func(e detectors.Event) { _ = count(e) })
	s.OnAnnouncement(func(a Announcement) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.heard[a]++
	})
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.ended)
		s.Run(ctx)
	}()
	t.Cleanup(n.end)
	return n
}

func (n *live) end() {
	n.cancel()
	<-n.ended
	if err := n.Close(); err != nil {
		n.t.Error(err)
	}
	if err := n.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		n.t.Error(err)
	}
}

func (n *live) publish(count int) {
	for range count {
		n.Publish(detectors.Event{Kind: detectors.Login, Outcome: detectors.Failure, Account: "tanaka", Size: 64})
	}
}

func (n *live) has() map[detectors.EventKey]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.applied)
}

// await waits for a condition.
func await(t testing.TB, what func() string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited too long: %s", what())
		case <-tick.C:
		}
	}
}

// awaitEqual waits until all nodes have applied total events, each once.
func awaitEqual(t testing.TB, total int, nodes ...*live) {
	t.Helper()
	await(t, func() string {
		text := fmt.Sprintf("want %d events", total)
		for _, n := range nodes {
			text += fmt.Sprintf("\n%s has %d: %+v", n.Node, len(n.has()), n.Status())
		}
		return text
	}, func() bool {
		for _, n := range nodes {
			if len(n.has()) < total {
				return false
			}
		}
		return true
	})
	for _, n := range nodes {
		for key, times := range n.has() {
			if times != 1 {
				t.Errorf("%s applied %v %d times", n.Node, key, times)
			}
		}
		if got := len(n.has()); got != total {
			t.Errorf("%s has %d events, want %d", n.Node, got, total)
		}
	}
}

func awaitNodes(t testing.TB, nodes ...*live) {
	t.Helper()
	await(t, func() string { return fmt.Sprintf("%+v", nodes[0].Status()) }, func() bool {
		return !slices.ContainsFunc(nodes, func(n *live) bool { return n.Nodes() != len(nodes) })
	})
}

func TestRedis(t *testing.T) {
	t.Parallel()
	server := storagetest.Redis(t)
	a := run(t, "a", server.Client(), nil)
	b := run(t, "b", server.Client(), nil)
	awaitNodes(t, a, b)
	<-a.Ready()
	a.publish(300)
	b.publish(200)
	awaitEqual(t, 500, a, b)

	began := time.Now()
	a.Announce(Announcement{Topic: "decisions", Subject: "address/203.0.113.7", Revision: 7})
	await(t, func() string { return "the announcement" }, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.heard[Announcement{"decisions", "address/203.0.113.7", 7}] == 1
	})
	t.Logf("an announcement took %v", time.Since(began))
	if a.mu.Lock(); len(a.heard) > 0 {
		t.Errorf("a node hears itself: %v", a.heard)
	}
	a.mu.Unlock()

	if ttl, err := a.client.TTL(t.Context(), "{kidoban}:events").Result(); err != nil || ttl <= 0 {
		t.Errorf("the stream is kept for %v, %v: want a bound", ttl, err)
	}
	b.end()
	await(t, func() string { return "the farewell" }, func() bool { return a.Nodes() == 1 })
	if st := a.Status(); st.Degraded || st.Lost+st.Skipped+st.Unsent+st.Unknown+st.Malformed > 0 {
		t.Errorf("status %+v", st)
	}
}

func TestRedisAwayAtStart(t *testing.T) {
	t.Parallel()
	server := storagetest.Redis(t)
	server.Stop()
	a := run(t, "a", server.Client(), func(c *Config) { c.ReadyWait = 100 * time.Millisecond })
	b := run(t, "b", server.Client(), nil)
	<-a.Ready()
	a.publish(10)
	b.publish(10)
	if st := a.Status(); !st.Degraded || st.Spooled != 10 || st.Nodes != 1 || st.Reason == "" {
		t.Errorf("status %+v", st)
	}
	server.Start()
	awaitEqual(t, 20, a, b)
	awaitNodes(t, a, b)
}

func TestRedisFaults(t *testing.T) {
	t.Parallel()
	faults := map[string]func(*storagetest.RedisServer, func()){
		"black hole": func(s *storagetest.RedisServer, meanwhile func()) {
			s.Pause()
			meanwhile()
			s.Resume()
		},
		"restarted empty": func(s *storagetest.RedisServer, meanwhile func()) {
			s.Stop()
			meanwhile()
			s.Start()
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := storagetest.Redis(t)
			a := run(t, "a", server.Client(), nil)
			b := run(t, "b", server.Client(), nil)
			awaitNodes(t, a, b)
			total := 0
			for range 2 {
				a.publish(100)
				b.publish(100)
				fault(server, func() {
					slowest := time.Duration(0)
					for range 100 {
						began := time.Now()
						a.publish(1)
						slowest = max(slowest, time.Since(began))
					}
					await(t, func() string { return fmt.Sprintf("%+v", a.Status()) }, func() bool { return a.Status().Degraded })
					if a.Nodes() != 2 {
						t.Errorf("%d nodes while Redis is away, want 2 as before", a.Nodes())
					}
					t.Logf("slowest publish meanwhile: %v", slowest)
				})
				total += 300
				awaitEqual(t, total, a, b)
			}
			c := run(t, "c", server.Client(), nil) // comes late, and wants all
			awaitEqual(t, total, a, b, c)
			await(t, func() string { return fmt.Sprintf("%+v", a.Status()) }, func() bool { return !a.Status().Degraded })
		})
	}
}

func TestSentinelFailOver(t *testing.T) {
	t.Parallel()
	set := storagetest.Sentinel(t)
	client := func() redis.UniversalClient {
		return redis.NewUniversalClient(&redis.UniversalOptions{Addrs: set.Addrs(), MasterName: set.Master(), ContextTimeoutEnabled: true,
			DialTimeout: time.Second})
	}
	a := run(t, "a", client(), nil)
	b := run(t, "b", client(), nil)
	awaitNodes(t, a, b)
	a.publish(200)
	b.publish(200)
	done := make(chan struct{})
	go func() { // while the primary dies
		defer close(done)
		for range 2000 {
			a.publish(1)
		}
	}()
	set.FailOver()
	<-done
	b.publish(100)
	awaitEqual(t, 2500, a, b)
}

func TestNodeRestarts(t *testing.T) {
	t.Parallel()
	server := storagetest.Redis(t)
	dir := t.TempDir()
	keep := func(c *Config) { c.Dir = dir }
	a := run(t, "a", server.Client(), keep)
	b := run(t, "b", server.Client(), nil)
	awaitNodes(t, a, b)
	a.publish(50)
	b.publish(50)
	awaitEqual(t, 100, a, b)
	a.end()
	b.publish(50)
	a = run(t, "a", server.Client(), keep)
	<-a.Ready()
	awaitEqual(t, 150, a, b)
	if st := a.Status(); st.Lost+st.Skipped+st.Unsent > 0 || st.Conflict {
		t.Errorf("status %+v", st)
	}
	// Without Redis it knows from its journal that it was not alone.
	a.end()
	server.Stop()
	a = run(t, "a", server.Client(), keep)
	if a.Nodes() != 2 {
		t.Errorf("%d nodes at a start without Redis, want the 2 of before", a.Nodes())
	}
}

func TestTrimmed(t *testing.T) {
	t.Parallel()
	server := storagetest.Redis(t)
	short := func(c *Config) { c.Entries = 1 }
	a := run(t, "a", server.Client(), short)
	awaitNodes(t, a)
	a.publish(20_000)
	await(t, func() string { return fmt.Sprintf("%+v", a.Status()) }, func() bool { return a.Status().Spooled == 0 })
	admin := server.Client()
	defer admin.Close()
	if err := admin.Del(t.Context(), "{kidoban}:events").Err(); err != nil {
		t.Fatal(err)
	}
	b := run(t, "b", server.Client(), short)
	awaitEqual(t, 20_000, a, b)
	if st := b.Status(); st.Repaired == 0 {
		t.Errorf("nothing was repaired: %+v", st)
	}
}

func TestOneNameTwice(t *testing.T) {
	t.Parallel()
	server := storagetest.Redis(t)
	a := run(t, "a", server.Client(), nil)
	awaitNodes(t, a)
	await(t, func() string { return "its first beat" }, func() bool {
		a.state.Lock()
		defer a.state.Unlock()
		return a.sent.firstBeat != position{}
	})
	run(t, "a", server.Client(), nil)
	await(t, func() string { return fmt.Sprintf("%+v", a.Status()) }, func() bool { return a.Status().Conflict })
}

// That it leaves no goroutine behind is what TestMain sees to.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	server := storagetest.Redis(t)
	for _, away := range []bool{false, true} {
		a := run(t, "a", server.Client(), nil)
		awaitNodes(t, a)
		await(t, func() string { return "an exchange" }, func() bool { return !a.Status().Degraded })
		if away {
			server.Pause()
		}
		began := time.Now()
		a.end()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("away %v: Run took %v to end", away, took)
		}
	}
	server.Resume()
}

func TestDeadlinesAreRequired(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	if _, err := Open(Config{Node: "a", Incarnation: 1, Now: time.Now, Redis: client}); err == nil {
		t.Error("a client that ignores deadlines was accepted")
	}
}
