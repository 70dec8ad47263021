package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// redisUnderTest is a Redis that can go away in some way.
type redisUnderTest struct {
	url   string
	leave func()
	back  func()
	// soon: it comes back by itself at some moment, and what passes before and after
	// adds up, to less than twice the limit (see package limits).
	soon bool
}

// TestRedisAway runs two nodes under load while Redis is stopped, black-holed,
// failed over and restarted empty. Nobody gets an error, limits hold at their
// share, and afterwards both nodes know the same.
func TestRedisAway(t *testing.T) {
	for _, how := range []struct {
		name string
		make func(t *testing.T) redisUnderTest
	}{
		{"stopped and restarted empty", func(t *testing.T) redisUnderTest {
			// The user that gateway/README.md gives, who may do no more than that.
			s := storagetest.Redis(t, strings.Fields("--user gate on >secret ~{kidoban}:* resetchannels +hello +auth +select +time "+
				"+xadd +xread +xrange +expire +evalsha +eval +get +set +del")...)
			return redisUnderTest{url: "redis://gate:secret@" + s.Addr(), leave: s.Stop, back: s.Start}
		}},
		{"black hole", func(t *testing.T) redisUnderTest {
			s := storagetest.Redis(t)
			return redisUnderTest{url: "redis://" + s.Addr(), leave: s.Pause, back: s.Resume}
		}},
		{"failed over", func(t *testing.T) redisUnderTest {
			set := storagetest.Sentinel(t)
			return redisUnderTest{url: "redis+sentinel://" + strings.Join(set.Addrs(), ",") + "/0?master=" + set.Master(), leave: set.FailOver, back: set.Revive, soon: true}
		}},
	} {
		t.Run(how.name, func(t *testing.T) { redisAway(t, how.make(t)) })
	}
}

func redisAway(t *testing.T, redis redisUnderTest) {
	ctx := t.Context()
	backend := newTown(t, 200)
	options := []string{
		"database " + storagetest.Postgres(t), "redis " + redis.url,
		"limit shared {\n\t\t\tkey address\n\t\t\trate 100/1m\n\t\t\troutes other\n\t\t}",
	}
	one, two := newNode(t, "one", backend, options...), newNode(t, "two", backend, options...)
	nodes := []*node{one, two}
	one.start()
	shareKeys(t, one, two)
	two.start()

	// spend counts how many requests of a new address pass over both nodes.
	spend := func(address string, n int) (passed int) {
		t.Helper()
		v := newVisitor(address)
		for i := range n {
			status, _, err := v.do(ctx, nodes[i%2], http.MethodGet, "/v2/rooms", nil)
			switch {
			case err != nil || status >= 500:
				t.Errorf("request %d: %d %v", i, status, err)
			case status != http.StatusTooManyRequests:
				passed++
			}
		}
		return passed
	}
	eventually(t, 20*time.Second, "two nodes that know of each other", func() bool {
		return strings.Contains(healthOf(t, one), `"nodes": 2`) && strings.Contains(healthOf(t, two), `"nodes": 2`)
	})
	if n := spend("192.0.2.1", 130); n != 100 {
		t.Errorf("with Redis %d of 130 requests passed a limit of 100 over two nodes", n)
	}

	// People work; each request's time is kept.
	load := func(during func()) (took []time.Duration) {
		var mu sync.Mutex
		work, rest := context.WithCancel(ctx)
		var workers sync.WaitGroup
		for w := range 4 {
			workers.Go(func() {
				for i := 0; work.Err() == nil; i++ {
					v := newVisitor(fmt.Sprintf("198.18.%d.%d", w, i%250+1))
					began := time.Now()
					status, err := v.login(ctx, nodes[i%2], backend.people[(w*50+i)%len(backend.people)])
					d := time.Since(began)
					if err != nil || status >= 500 {
						t.Errorf("a log-in: %d %v", status, err)
					}
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
		}
		during()
		rest()
		workers.Wait()
		slices.Sort(took)
		return took
	}
	pause := func(d time.Duration) func() { return func() { <-time.After(d) } }
	before := load(pause(2 * time.Second))
	away := load(func() { redis.leave(); <-time.After(3 * time.Second) })
	most := 102
	if redis.soon {
		most = 200
	}
	if n := spend("192.0.2.2", most+30); n > most || n < 50 {
		t.Errorf("without Redis %d of %d requests passed a limit of 100 over two nodes, want 50 to %d", n, most+30, most)
	}
	// What one node decides meanwhile the other knows from SQL.
	status, body, err := one.call(http.MethodPost, "/v1/decisions", map[string]string{
		"scope": "address", "value": "203.0.113.200", "action": "refuse", "ttl": "1h", "reason": "drill"})
	if err != nil || status != http.StatusCreated {
		t.Errorf("registering without Redis: %d %s %v", status, body, err)
	}
	eventually(t, 40*time.Second, "a decision made without Redis on the other node", func() bool {
		status, _, err := newVisitor("203.0.113.200").do(ctx, two, http.MethodGet, "/healthz", nil)
		return err == nil && status == http.StatusForbidden
	})
	// A gate starts without Redis.
	two.stop()
	two.start()
	redis.back()
	after := load(pause(3 * time.Second))
	quantile := func(d []time.Duration, q float64) time.Duration { return d[int(q*float64(len(d)-1))] }
	t.Logf("log-ins before, away, after: %d, %d, %d; medians %v %v %v; 99%% %v %v %v; longest %v %v %v", len(before), len(away), len(after),
		quantile(before, .5), quantile(away, .5), quantile(after, .5), quantile(before, .99), quantile(away, .99), quantile(after, .99),
		quantile(before, 1), quantile(away, 1), quantile(after, 1))

	eventually(t, 60*time.Second, "both nodes whole again", func() bool {
		whole := true
		for _, n := range nodes {
			var health struct{ Status string }
			if err := json.Unmarshal([]byte(healthOf(t, n)), &health); err != nil {
				t.Error(err)
			}
			whole = whole && health.Status == "ok"
		}
		return whole
	})
	// Everything that happened is known to both.
	eventually(t, 60*time.Second, "equal events on both nodes", func() bool {
		a, b := eventKeys(t, one), eventKeys(t, two)
		return len(a) > 0 && slices.Equal(a, b)
	})
	if n := spend("192.0.2.3", 130); n != 100 {
		t.Errorf("with Redis back %d of 130 requests passed a limit of 100 over two nodes", n)
	}
}

func healthOf(t testing.TB, n *node) string {
	t.Helper()
	_, body, err := n.call(http.MethodGet, "/v1/health", nil)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

// eventKeys lists the keys of all events that a node knows.
func eventKeys(t testing.TB, n *node) []string {
	t.Helper()
	var keys []string
	for cursor := ""; ; {
		status, body, err := n.call(http.MethodGet, "/v1/events?limit=1000&cursor="+cursor, nil)
		var page struct {
			Events []struct {
				Key struct {
					Node                  string
					Incarnation, Sequence uint64
				}
			}
			Next string
		}
		if err != nil || status != http.StatusOK || json.Unmarshal(body, &page) != nil {
			t.Fatalf("events of %s: %d %.300s %v", n.name, status, body, err)
		}
		for _, e := range page.Events {
			keys = append(keys, fmt.Sprintf("%s/%d/%d", e.Key.Node, e.Key.Incarnation, e.Key.Sequence))
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	slices.Sort(keys)
	if unique := slices.Compact(slices.Clone(keys)); len(unique) != len(keys) {
		t.Errorf("node %s has %d events and %d different ones", n.name, len(keys), len(unique))
	}
	return keys
}
