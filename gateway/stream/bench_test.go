package stream

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// attempt is a login as the gate publishes it.
func attempt() detectors.Event {
	e := full()
	e.StreamTime, e.Time = time.Time{}, time.Time{}
	return e
}

// measured publishes b.N events and reports how long the slowest hundredth takes.
func measured(b *testing.B, s *Stream) (p99 time.Duration) {
	e := attempt()
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		s.Publish(e)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	p99 = took[len(took)*99/100]
	b.ReportMetric(float64(p99.Nanoseconds()), "p99-ns")
	return p99
}

// BenchmarkPublishTo measures what a login waits for its event: with the journal in
// memory and on disk, with Redis, and with one that takes connections and answers
// nothing. Its p99 is reported as a multiple of that without Redis.
func BenchmarkPublishTo(b *testing.B) {
	var alone time.Duration
	b.Run("memory", func(b *testing.B) {
		s := New("a", 1, time.Now)
		defer s.Close()
		measured(b, s)
	})
	b.Run("disk", func(b *testing.B) {
		n := run(b, "a", redis.NewClient(&redis.Options{ContextTimeoutEnabled: true}), func(c *Config) { c.Redis = nil })
		alone = measured(b, n.Stream)
	})
	for _, away := range []bool{false, true} {
		name := "redis"
		if away {
			name = "black hole"
		}
		b.Run(name, func(b *testing.B) {
			server := storagetest.Redis(b)
			n := run(b, "a", server.Client(), nil)
			awaitNodes(b, n)
			if away {
				server.Pause()
				defer server.Resume()
				await(b, func() string { return fmt.Sprintf("%+v", n.Status()) }, func() bool { return n.Status().Degraded })
			}
			p99 := measured(b, n.Stream)
			if alone > 0 {
				b.ReportMetric(float64(p99)/float64(alone), "p99/alone")
			}
		})
	}
}

// BenchmarkReceive measures the events of another node that one core takes: decoded,
// in the journal on disk, delivered to a subscriber and in the vector.
func BenchmarkReceive(b *testing.B) {
	for _, each := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d in an envelope", each), func(b *testing.B) {
			s, err := Open(Config{Node: "b", Incarnation: 1, Now: time.Now, Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			delivered := 0
			s.Subscribe(func(detectors.Event) { delivered++ })
			e := attempt()
			e.StreamTime = time.Now().UTC()
			e.Time = e.StreamTime.Add(-time.Second)
			m := &events{id: senderID{"a", 1}, first: 1}
			for range each {
				m.bodies = append(m.bodies, appendEvent(nil, &e))
			}
			b.ReportAllocs()
			for b.Loop() {
				s.receive(incoming{payload: m.append(nil)}, time.Now())
				m.first += uint64(each)
			}
			b.ReportMetric(float64(delivered)/b.Elapsed().Seconds(), "events/s")
			if delivered != b.N*each {
				b.Fatalf("%d of %d events were delivered", delivered, b.N*each)
			}
		})
	}
}

// BenchmarkDuplicates measures what reading the stream again costs.
func BenchmarkDuplicates(b *testing.B) {
	s := New("b", 1, time.Now)
	defer s.Close()
	e := attempt()
	e.StreamTime = time.Now().UTC()
	e.Time = e.StreamTime
	m := &events{id: senderID{"a", 1}, first: 1}
	for range 100 {
		m.bodies = append(m.bodies, appendEvent(nil, &e))
	}
	payload := m.append(nil)
	for b.Loop() {
		s.receive(incoming{payload: payload}, time.Now())
	}
	b.ReportMetric(float64(100*b.N)/b.Elapsed().Seconds(), "events/s")
}
