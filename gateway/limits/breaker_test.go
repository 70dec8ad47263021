package limits

import (
	"errors"
	"testing"
	"time"
)

func TestBreaker(t *testing.T) {
	var (
		now  = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
		away = errors.New("connection refused")
		b    = newBreaker(func() time.Time { return now }, 40*time.Millisecond)
	)
	call := func(took time.Duration, err error) bool {
		t.Helper()
		p, ok := b.enter()
		if ok {
			b.leave(p, took, err)
		}
		return ok
	}
	open := func(want bool) {
		t.Helper()
		if got := b.state(); got.Open != want {
			t.Fatalf("status = %+v, want open = %t", got, want)
		}
	}
	for range 10 { // failures that are not in a row
		for range failuresToOpen - 1 {
			call(0, away)
		}
		for range failuresToOpen {
			call(0, nil)
		}
	}
	open(false)
	late, _ := b.enter()
	for range failuresToOpen {
		call(0, away)
	}
	open(true)
	if got := b.state(); got.Failures != failuresToOpen || got.Reason != "connection refused" || !got.Since.Equal(now) {
		t.Errorf("status = %+v", got)
	}
	if b.leave(late, 0, nil); !b.state().Open {
		t.Error("an answer from before it opened closed it")
	}

	// One probe at a time, within 1 s to 10 s, whatever fails meanwhile.
	longest := time.Duration(0)
	for range 40 {
		opened := now
		for !func() bool {
			p, ok := b.enter()
			defer func() { now = now.Add(10 * time.Millisecond) }()
			return ok && probes(t, b, p, away)
		}() {
			if now.Sub(opened) > maxBackoff+time.Second {
				t.Fatal("no probe for longer than the longest wait")
			}
		}
		waited := now.Sub(opened)
		if waited < minBackoff {
			t.Fatalf("a probe after %s, want %s at least", waited, minBackoff)
		}
		longest = max(longest, waited)
	}
	if longest < 5*time.Second {
		t.Errorf("the longest wait was %s: it does not grow", longest)
	}
	now = now.Add(-time.Hour) // the clock is set back
	if !call(0, nil) {
		t.Error("a clock that was set back keeps it open")
	}
	open(false)
	if got := b.state(); got.Reason != "" || got.Failures != 0 {
		t.Errorf("status = %+v, want nothing left of the failures", got)
	}

	// Slow answers open it as well, and a slow probe does not close it.
	for i := range watched + 1 {
		took := time.Millisecond
		if i%2 == 0 {
			took = 50 * time.Millisecond
		}
		call(took, nil)
	}
	open(true)
	now = now.Add(maxBackoff)
	call(50*time.Millisecond, nil)
	open(true)
	now = now.Add(maxBackoff)
	call(time.Millisecond, nil)
	open(false)
}

// probes lets p fail and checks that it was alone.
func probes(t *testing.T, b *breaker, p pass, err error) bool {
	t.Helper()
	if !p.probe {
		t.Fatal("a call passed an open breaker that is no probe")
	}
	if _, ok := b.enter(); ok {
		t.Fatal("two probes at once")
	}
	b.leave(p, 0, err)
	return true
}

func TestShapesAreBounded(t *testing.T) {
	for _, b := range []Bucket{{}, {Every: 1 << 62, Burst: 1 << 40}, {Every: 24 * time.Hour, Burst: 1_000_000}, {Every: time.Minute, Burst: 10}} {
		for _, nodes := range []int64{1, 3, maxNodes} {
			s := b.shape(nodes)
			if s.interval < 1000 || s.capacity < s.interval || s.capacity > maxFill {
				t.Errorf("%+v on %d nodes is %+v", b, nodes, s)
			}
			if n := s.amount(1 << 60); n <= s.capacity || n > 3*maxFill {
				t.Errorf("%+v on %d nodes: everything is %d of %d", b, nodes, n, s.capacity)
			}
		}
	}
}
