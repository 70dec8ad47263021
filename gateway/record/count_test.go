package record_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/record"
)

func tallies(t testing.TB, dir string) map[string]record.Tally {
	t.Helper()
	all := make(map[string]record.Tally)
	for _, e := range entries(t, dir, record.Query{Class: record.Aggregated}) {
		var body record.Tally
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprintf("%s %s %d", e.Kind, e.Reason, e.Count)] = body
	}
	return all
}

func TestCount(t *testing.T) {
	dir := t.TempDir()
	c := &clock{now: start}
	l := open(t, dir, func(cfg *record.Config) { cfg.Now = c.Now })
	for i := range 10 {
		l.Count(record.Denial{Kind: "denial.login", Reason: "limit", Key: []string{"203.0.113.7", "203.0.113.8"}[i%3%2]})
		c.move(time.Second)
	}
	l.Count(record.Denial{Kind: "denial.login", Reason: "rule"})
	l.Count(record.Denial{Kind: "a b", Reason: "rule", Key: strings.Repeat("x", 65)})
	l.Count(record.Denial{Kind: "late", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	if n := l.Status().Counted; n != 13 {
		t.Errorf("%d counted", n)
	}
	for range 2 { // the second one has nothing to say
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	at := start.Add(10 * time.Second)
	want := map[string]record.Tally{
		"denial.login limit 10": {From: start, To: start.Add(9 * time.Second), Keys: []record.TallyKey{{Key: "203.0.113.7", AtLeast: 7, AtMost: 7}, {Key: "203.0.113.8", AtLeast: 3, AtMost: 3}}},
		"denial.login rule 1":   {From: at, To: at},
		"denial.other  1":       {From: at, To: at, Keys: []record.TallyKey{{Key: "sha256:" + "5da20ea6b1a0a5b2a1b0ca7e8dcf8f8a", AtLeast: 1, AtMost: 1}}},
		"late  1":               {From: start, To: start},
	}
	got := tallies(t, dir)
	if k := got["denial.other  1"].Keys; len(k) == 1 && strings.HasPrefix(k[0].Key, "sha256:") && len(k[0].Key) == 39 {
		want["denial.other  1"].Keys[0].Key = k[0].Key
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tallies (-want +got):\n%s", diff)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r := sound(t, dir); r.Aggregated != 4 {
		t.Errorf("report %+v", r)
	}
}

// A flood of whatever kind takes bounded memory, bounded disk, and is counted exactly.
func TestFlood(t *testing.T) {
	dir := t.TempDir()
	c := &clock{now: start}
	const quota = 100 << 10
	l := open(t, dir, func(cfg *record.Config) { cfg.Now, cfg.Quota = c.Now, quota })
	sent := uint64(0)
	for hour := range 3 {
		before := l.Status().Bytes
		for minute := range 6 {
			for i := range 2000 {
				l.Count(record.Denial{Kind: fmt.Sprintf("kind-%d", i%400), Reason: "limit", Key: fmt.Sprintf("%d-%d-%d", hour, minute, i)})
				l.Count(record.Denial{Kind: "kind-1", Reason: "limit", Key: "the one"})
				sent += 2
			}
			if err := l.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			appendOne(t, l, minute)
			c.move(10 * time.Minute)
		}
		if grown := l.Status().Bytes - before; grown > 2*quota+16<<10 { // one quota may have been saved
			t.Errorf("hour %d took %d bytes, with a quota of %d", hour, grown, quota)
		}
	}
	if l.Status().Counted == 0 {
		t.Error("the quota was not used up")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	sound(t, dir)
	counted, kinds := uint64(0), make(map[string]bool)
	for _, e := range entries(t, dir, record.Query{Class: record.Aggregated}) {
		counted += e.Count
		kinds[e.Kind] = true
		var body record.Tally
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		sum := uint64(0)
		for _, k := range body.Keys {
			sum += k.AtLeast
		}
		if len(body.Keys) > record.SumsKeys || len(e.Body) > 8<<10 || sum > e.Count {
			t.Errorf("%s: %d keys, %d bytes, %d of %d", e.Kind, len(body.Keys), len(e.Body), sum, e.Count)
		}
		if e.Kind == "kind-1" && (len(body.Keys) == 0 || body.Keys[0].Key != "the one" || body.Keys[0].AtMost < 2000) {
			t.Errorf("%s names %+v first", e.Kind, body.Keys)
		}
	}
	if counted != sent || len(kinds) > record.SumsMax+1 || !kinds[record.OtherDenials] {
		t.Errorf("%d counted in %d kinds, want %d", counted, len(kinds), sent)
	}
}

// Good log-ins get through while others count as fast as they can.
func TestFloodBesideLogins(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, func(c *record.Config) { c.Interval, c.Quota = time.Millisecond, 10<<10 })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	counted := make([]uint64, 2)
	for i := range counted {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					l.Count(record.Denial{Kind: "denial.login", Reason: "limit", Key: fmt.Sprint(counted[i])})
					counted[i]++
				}
			}
		})
	}
	for i := range 200 {
		appendOne(t, l, i)
	}
	close(stop)
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	sum := uint64(0)
	for _, e := range entries(t, dir, record.Query{Class: record.Aggregated}) {
		sum += e.Count
	}
	if want := counted[0] + counted[1]; sum != want || sum == 0 {
		t.Errorf("%d counted, want %d", sum, want)
	}
}

// Sums become entries every interval, by themselves.
func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir, nil)
		l.Count(record.Denial{Kind: "denial", Reason: "limit"})
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if s := l.Status(); s.Counted != 1 || !s.Last.IsZero() {
			t.Errorf("status %+v", s)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := l.Status(); s.Counted != 0 || s.Last.Sequence != 1 {
			t.Errorf("status %+v", s)
		}
	})
}
