package stream_test

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/stream"
)

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func newStream() *stream.Stream {
	return stream.New("gate-1", 7, func() time.Time { return start })
}

func TestPublish(t *testing.T) {
	tests := []struct {
		name    string
		happens time.Time
		want    time.Time
	}{
		{"now", start, start},
		{"no time", time.Time{}, start},
		{"a little ago", start.Add(-5 * time.Second), start.Add(-5 * time.Second)},
		{"long ago", start.Add(-5*time.Second - 1), start.Add(-5 * time.Second)},
		{"soon", start.Add(5 * time.Second), start.Add(5 * time.Second)},
		{"in a year", start.AddDate(1, 0, 0), start.Add(5 * time.Second)},
		{"in another zone", start.In(time.FixedZone("JST", 9*3600)), start},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newStream()
			var seen detectors.Event
			s.Subscribe(func(e detectors.Event) { seen = e })
			got := s.Publish(detectors.Event{
				Key: detectors.EventKey{Node: "somebody", Incarnation: 1, Sequence: 99}, StreamTime: start.AddDate(-1, 0, 0),
				Time: test.happens, Kind: detectors.Login, Outcome: detectors.Failure,
			})
			want := detectors.Event{
				Key: detectors.EventKey{Node: "gate-1", Incarnation: 7, Sequence: 1}, StreamTime: start,
				Time: test.want, Kind: detectors.Login, Outcome: detectors.Failure,
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if !reflect.DeepEqual(seen, got) {
				t.Errorf("the subscriber saw %+v, want %+v", seen, got)
			}
		})
	}
}

func TestSubscribersAreCalledInOrder(t *testing.T) {
	s := newStream()
	var calls []string
	subscribe := func(name string) func() {
		return s.Subscribe(func(e detectors.Event) { calls = append(calls, fmt.Sprint(name, e.Key.Sequence)) })
	}
	subscribe("a")
	cancel := subscribe("b")
	subscribe("c")
	s.Publish(detectors.Event{})
	cancel()
	cancel()
	subscribe("d")
	s.Publish(detectors.Event{})
	if diff := cmp.Diff([]string{"a1", "b1", "c1", "a2", "c2", "d2"}, calls); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCancelFromWithin(t *testing.T) {
	s := newStream()
	var calls int
	var cancelNext func()
	var cancel func()
	cancel = s.Subscribe(func(detectors.Event) { calls++; cancel(); cancelNext() })
	cancelNext = s.Subscribe(func(detectors.Event) { t.Error("called after it was cancelled") })
	s.Publish(detectors.Event{})
	s.Publish(detectors.Event{})
	if calls != 1 {
		t.Errorf("called %d times, want once", calls)
	}
}

func TestOneOrderForAll(t *testing.T) {
	const publishers, events = 8, 500
	s := newStream()
	seen := make([][]uint64, 3)
	for i := range seen {
		s.Subscribe(func(e detectors.Event) { seen[i] = append(seen[i], e.Key.Sequence) }) // no lock: one at a time
	}
	var group sync.WaitGroup
	for range publishers {
		group.Go(func() {
			for range events {
				e := s.Publish(detectors.Event{})
				if n := len(s.Recent(1)); n != 1 {
					t.Errorf("%d recent events, want 1", n)
				}
				if e.Key.Sequence == 0 {
					t.Error("no sequence")
				}
			}
		})
	}
	for range 100 { // others come and go meanwhile
		s.Subscribe(func(detectors.Event) {})()
	}
	group.Wait()
	for i, sequences := range seen {
		if len(sequences) != publishers*events {
			t.Fatalf("subscriber %d saw %d events, want %d", i, len(sequences), publishers*events)
		}
		for n, sequence := range sequences {
			if sequence != uint64(n+1) {
				t.Fatalf("subscriber %d saw event %d as its %d", i, sequence, n+1)
			}
		}
	}
}

func TestSubscribersMustNotPublish(t *testing.T) {
	s := newStream()
	var after int
	s.Subscribe(func(e detectors.Event) {
		if e.Outcome == detectors.Success {
			s.Publish(detectors.Event{})
		}
	})
	s.Subscribe(func(detectors.Event) { after++ })
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		s.Publish(detectors.Event{Outcome: detectors.Success})
	}()
	if after != 1 {
		t.Errorf("the other subscriber was called %d times, want once", after)
	}
	cancel := s.Subscribe(func(detectors.Event) {
		defer func() {
			if recover() == nil {
				t.Error("a subscriber took a snapshot")
			}
		}()
		s.Snapshot(func(stream.Vector) {})
	})
	defer cancel()
	if e := s.Publish(detectors.Event{}); e.Key.Sequence != 2 {
		t.Errorf("sequence = %d, want 2: the stream goes on without a gap", e.Key.Sequence)
	}
}

func TestRecent(t *testing.T) {
	s := newStream()
	sequences := func(n int) (list []uint64) {
		for _, e := range s.Recent(n) {
			list = append(list, e.Key.Sequence)
		}
		return list
	}
	if got := sequences(5); got != nil {
		t.Errorf("got %v of an empty stream", got)
	}
	for range 3 {
		s.Publish(detectors.Event{})
	}
	for n, want := range map[int][]uint64{-1: nil, 0: nil, 2: {2, 3}, 3: {1, 2, 3}, 99: {1, 2, 3}} {
		if diff := cmp.Diff(want, sequences(n)); diff != "" {
			t.Errorf("Recent(%d) (-want +got):\n%s", n, diff)
		}
	}
	for range 3000 {
		s.Publish(detectors.Event{})
	}
	all := sequences(1 << 20)
	if len(all) != 1024 || all[0] != 3003-1023 || all[1023] != 3003 {
		t.Errorf("%d events from %d to %d, want 1024 from 1980 to 3003", len(all), all[0], all[len(all)-1])
	}
	if diff := cmp.Diff([]uint64{3002, 3003}, sequences(2)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func BenchmarkPublish(b *testing.B) {
	s := newStream()
	for range 3 {
		s.Subscribe(func(detectors.Event) {})
	}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Publish(detectors.Event{})
		}
	})
	b.Run("in parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				s.Publish(detectors.Event{})
			}
		})
	})
}
