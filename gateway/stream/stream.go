// Package stream carries events to everybody who needs them, in one order.
//
// A [Stream] gives each event its key and its time and hands it to every
// subscriber before [Stream.Publish] returns. It promises:
//
//   - Sequences start at 1 and have no gaps; the key (node, incarnation, sequence)
//     names an event for ever.
//   - All subscribers see all events of a stream in the same order, the order of
//     their sequences, one at a time: a subscriber needs no lock against itself.
//   - When Publish returns, every subscriber has returned.
//   - An event's time lies within 5 s of the stream's, so a clock or a client
//     that is off cannot move what detectors know into the past or future.
//
// It carries events within one process and keeps none but the latest few for
// operators ([Stream.Recent]); what must not be lost is kept by who subscribes.
package stream

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Skew is how far an event's own time may be from the stream's.
const Skew = 5 * time.Second

// recent is how many of the latest events are kept for operators: half a
// megabyte, and some seconds of a flood.
const recent = 1024

// Stream is the events of one process. It is safe for concurrent use.
type Stream struct {
	node        string
	incarnation uint64
	now         func() time.Time

	publishing sync.Mutex // held from numbering an event until the last subscriber has it
	sequence   uint64     // guarded by publishing

	mu          sync.Mutex      // guards what follows; never held while subscribers run
	subscribers []*subscription // replaced, never changed in place
	ring        []detectors.Event
	next        int // where in ring the next event goes
}

type subscription struct {
	receive   func(detectors.Event)
	cancelled atomic.Bool
}

// New returns the stream of a node. incarnation differs at each start of a
// process; now is the stream's clock.
func New(node string, incarnation uint64, now func() time.Time) *Stream {
	return &Stream{node: node, incarnation: incarnation, now: now}
}

// Publish completes e with its key and times, delivers it to the subscribers in
// the order they subscribed, and returns it as they saw it. An event without a
// time happened now.
//
// A subscriber must not publish, neither itself nor through somebody it waits
// for: its event would have to come before the one it is being told of. Publish
// panics when a subscriber does so itself. A panic in a subscriber is passed on
// once the others have their event.
func (s *Stream) Publish(e detectors.Event) detectors.Event {
	if !s.publishing.TryLock() {
		if delivering() {
			panic("stream: a subscriber published: subscribers must return before the next event")
		}
		s.publishing.Lock()
	}
	defer s.publishing.Unlock()

	s.sequence++
	e.Key = detectors.EventKey{Node: s.node, Incarnation: s.incarnation, Sequence: s.sequence}
	e.StreamTime = s.now().UTC().Round(0) // a monotonic reading means nothing to other nodes
	e.Time = clamp(e.Time, e.StreamTime)

	s.mu.Lock()
	if len(s.ring) < recent {
		s.ring = append(s.ring, e)
	} else {
		s.ring[s.next] = e
	}
	s.next = (s.next + 1) % recent
	subscribers := s.subscribers
	s.mu.Unlock()

	var fault any
	for _, sub := range subscribers {
		if p := sub.deliver(e); p != nil && fault == nil {
			fault = p
		}
	}
	if fault != nil {
		panic(fault)
	}
	return e
}

// clamp moves t into the skew around at.
func clamp(t, at time.Time) time.Time {
	switch {
	case t.IsZero():
		return at
	case t.Before(at.Add(-Skew)):
		return at.Add(-Skew)
	case t.After(at.Add(Skew)):
		return at.Add(Skew)
	}
	return t.UTC().Round(0)
}

// deliver is a subscriber's turn. It must not be inlined: delivering looks for it
// on the stack.
//
//go:noinline
func (s *subscription) deliver(e detectors.Event) (fault any) {
	if s.cancelled.Load() {
		return nil
	}
	defer func() { fault = recover() }()
	s.receive(e)
	return nil
}

// delivering reports whether the caller runs inside a subscriber. Only who finds
// the stream busy asks, so its cost does not matter.
func delivering() bool {
	var room [64]uintptr
	pcs := room[:]
	n := runtime.Callers(2, pcs)
	for n == len(pcs) {
		pcs = make([]uintptr, 2*len(pcs))
		n = runtime.Callers(2, pcs)
	}
	frames := runtime.CallersFrames(pcs[:n])
	for {
		f, more := frames.Next()
		if f.Function == "github.com/kidoban/kidoban/gateway/stream.(*subscription).deliver" {
			return true
		}
		if !more {
			return false
		}
	}
}

// Subscribe has receive called with every event from the next one on, until
// cancel. receive must be quick: who publishes waits for it. cancel may be called
// more than once and from within receive; a call that is under way when it
// returns may still finish.
func (s *Stream) Subscribe(receive func(detectors.Event)) (cancel func()) {
	sub := &subscription{receive: receive}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers = append(slices.Clip(s.subscribers), sub)
	return func() {
		sub.cancelled.Store(true)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.subscribers = slices.DeleteFunc(slices.Clone(s.subscribers), func(other *subscription) bool { return other == sub })
	}
}

// Recent returns the latest n events, oldest first; fewer when fewer are known.
func (s *Stream) Recent(n int) []detectors.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(max(n, 0), len(s.ring))
	events := make([]detectors.Event, 0, n)
	for i := range n {
		events = append(events, s.ring[(s.next-n+i+len(s.ring))%len(s.ring)])
	}
	return events
}
