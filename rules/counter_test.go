package rules_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

var monday = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func attempt(at time.Time, source string, name int, o detectors.Outcome) detectors.Event {
	a := netip.MustParseAddr(source)
	e := detectors.Event{Kind: detectors.Login, Time: at, StreamTime: at, Route: detectors.LoginRoute, Outcome: o,
		Source: detectors.Source{Address: a, Network: detectors.CountingNetwork(a)}}
	binary.BigEndian.PutUint64(e.Name.Digest[:], uint64(name)+1)
	return e
}

// A counter holds all of its window and at most one pane more, per key.
func TestCounterAgreesWithAListOfEvents(t *testing.T) {
	const within = 16 * time.Minute // panes of a minute
	for _, distinct := range []string{"", "name"} {
		t.Run("distinct "+distinct, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				c := rules.NewCounting(rules.Counter{Distinct: distinct, By: []string{"source.network"}, Within: within})
				var seen []detectors.Event
				now := monday
				for range rapid.IntRange(1, 150).Draw(t, "events") {
					now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * time.Second)
					e := attempt(now, fmt.Sprintf("203.0.113.%d", rapid.IntRange(1, 2).Draw(t, "source")), rapid.IntRange(0, 40).Draw(t, "name"), detectors.Failure)
					c.Observe(e)
					seen = append(seen, e)
					asked := attempt(now.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "later"))*time.Second), e.Source.Address.String(), 0, detectors.Unknown)
					count := func(window time.Duration) (n int64) {
						names := map[detectors.Digest]bool{}
						for _, s := range seen {
							if s.Source == asked.Source && asked.Time.Sub(s.Time) <= window {
								n++
								names[s.Name.Digest] = true
							}
						}
						if distinct != "" {
							return int64(len(names))
						}
						return n
					}
					got, least, most := c.Value(asked), count(within), count(within+within/16)
					if got < least || got > most {
						t.Fatalf("got %d, want %d to %d", got, least, most)
					}
				}
			})
		})
	}
}

func TestCounterBounds(t *testing.T) {
	t.Run("distinct values saturate", func(t *testing.T) {
		c := rules.NewCounting(rules.Counter{Distinct: "name", By: []string{"all"}, Within: time.Hour})
		for i := range 3 * rules.MaxDistinct {
			c.Observe(attempt(monday, "203.0.113.7", i, detectors.Failure))
		}
		if got, want := c.Value(attempt(monday, "203.0.113.7", 0, detectors.Failure)), int64(rules.MaxDistinct); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
		later := monday.Add(3 * time.Hour)
		for i := range 100 {
			c.Observe(attempt(later.Add(time.Duration(i)*time.Second), "203.0.113.7", i, detectors.Failure))
		}
		if got, want := c.Value(attempt(later.Add(100*time.Second), "203.0.113.7", 0, detectors.Failure)), int64(100); got != want {
			t.Errorf("after the window: got %d, want %d", got, want)
		}
	})
	t.Run("the key idle longest goes", func(t *testing.T) {
		c := rules.NewCounting(rules.Counter{Distinct: "name", By: []string{"source.address"}, Within: time.Hour})
		address := func(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255) }
		for i := range rules.MaxKeys + 10 {
			c.Observe(attempt(monday, address(i), i, detectors.Failure))
			c.Observe(attempt(monday, address(0), i%10, detectors.Failure)) // never idle
		}
		keys, members := c.Sizes()
		if keys != rules.MaxKeys || members > rules.MaxKeys+10 {
			t.Errorf("got %d keys and %d members, want %d keys", keys, members, rules.MaxKeys)
		}
		for i, want := range map[int]int64{0: 11, 1: 0, rules.MaxKeys + 9: 1} {
			if got := c.Value(attempt(monday, address(i), 0, detectors.Failure)); i != 0 && got != want || i == 0 && got < 10 {
				t.Errorf("%s: got %d, want %d", address(i), got, want)
			}
		}
	})
	t.Run("what is not known is not counted", func(t *testing.T) {
		for _, by := range [][]string{{"source.asn"}, {"source.network", "account"}} {
			c := rules.NewCounting(rules.Counter{By: by, Within: time.Hour})
			e := attempt(monday, "203.0.113.7", 0, detectors.Failure)
			c.Observe(e)
			if got := c.Value(e); got != 0 {
				t.Errorf("by %v: got %d, want 0", by, got)
			}
		}
	})
	t.Run("strange times do no harm", func(t *testing.T) {
		c := rules.NewCounting(rules.Counter{Distinct: "name", By: []string{"all"}, Within: time.Second})
		for i, at := range []time.Time{monday, {}, monday.Add(-time.Hour), time.Unix(0, 0), time.Unix(-1<<40, 0), time.Unix(1<<40, 0), monday} {
			c.Observe(attempt(at, "203.0.113.7", i, detectors.Failure))
			c.Value(attempt(at, "203.0.113.7", i, detectors.Failure))
		}
	})
}
