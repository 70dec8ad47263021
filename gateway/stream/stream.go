package stream

import (
	"cmp"
	"context"
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

// Stream is the events of all nodes, as one node sees them. It is safe for
// concurrent use.
type Stream struct {
	Config
	self    senderID
	journal *journal
	link    transport // nil: one node

	// publishing is held from numbering an event until the last subscriber has it
	// and the vector says so.
	publishing sync.Mutex
	sequence   uint64 // guarded by publishing
	scratch    []byte // guarded by publishing

	mu          sync.Mutex      // guards what follows; never held while subscribers run
	subscribers []*subscription // replaced, never changed in place
	ring        []detectors.Event
	next        int // where in ring the next event goes

	outbox  outbox
	hints   hints
	state   sync.Mutex // guards what follows; never held while subscribers run, and during no I/O but logging
	all     senders
	peers   map[string]*peer
	counts  counts
	read    [logs]position // up to where the logs are read
	sent    sentState
	health  health
	noted   string                // the mark that the journal has
	answers []want                // that others are to get
	replied map[wantKey]time.Time // answers of the last second

	wake    chan struct{} // something is to be sent
	ready   chan struct{}
	running sync.WaitGroup
	closing chan struct{}
	closed  sync.Once
}

type subscription struct {
	receive   func(detectors.Event)
	cancelled atomic.Bool
}

// Publish completes e with its key and times, keeps it in the journal, delivers it
// to the subscribers in the order they subscribed, and returns it as they saw it.
// An event without a time happened now. It never waits for the network, and for
// the disk only as long as a write to its cache takes.
//
// A subscriber must not publish, neither itself nor through somebody it waits
// for: its event would have to come before the one it is being told of. Publish
// panics when a subscriber does so itself. A panic in a subscriber is passed on
// once the others have their event.
func (s *Stream) Publish(e detectors.Event) detectors.Event {
	if fault := s.publish(&e); fault != nil {
		panic(fault)
	}
	if s.link != nil {
		s.nudge()
	}
	return e
}

func (s *Stream) publish(e *detectors.Event) (fault any) {
	s.enter()
	defer s.publishing.Unlock()

	now := s.Now()
	s.sequence++
	e.Key = detectors.EventKey{Node: s.self.node, Incarnation: s.self.incarnation, Sequence: s.sequence}
	e.StreamTime = now.UTC().Round(0) // a monotonic reading means nothing to other nodes
	e.Time = clamp(e.Time, e.StreamTime)
	normalize(e)

	body := appendEvent(nil, e)
	one := events{id: s.self, first: s.sequence, bodies: [][]byte{body}}
	s.scratch = one.append(s.scratch[:0])
	s.journal.append(s.scratch, s.self, s.sequence, s.sequence, e.StreamTime, e.StreamTime, now)
	if s.link != nil {
		s.outbox.add(s.sequence, body)
	}
	fault = s.deliver(*e)
	s.state.Lock()
	own := s.all.at(s.self)
	own.mark(s.sequence, s.sequence, now, false)
	own.last = e.StreamTime
	s.state.Unlock()
	return fault
}

// enter takes the stream, for an event or a snapshot.
func (s *Stream) enter() {
	if !s.publishing.TryLock() {
		if delivering() {
			panic("stream: a subscriber published or took a snapshot: subscribers must return before the next event")
		}
		s.publishing.Lock()
	}
}

// deliver hands e to the subscribers and returns the first panic of one. With
// s.publishing.
func (s *Stream) deliver(e detectors.Event) (fault any) {
	shown := e
	withhold(&shown)
	s.mu.Lock()
	if len(s.ring) < recent {
		s.ring = append(s.ring, shown)
	} else {
		s.ring[s.next] = shown
	}
	s.next = (s.next + 1) % recent
	subscribers := s.subscribers
	s.mu.Unlock()
	for _, sub := range subscribers {
		fault = cmp.Or(fault, sub.deliver(e))
	}
	return fault
}

// nudge has the sender look for work.
func (s *Stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
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

// Snapshot calls take while no event is being delivered, with the vector of those
// that were: a subscriber's state taken within belongs to exactly this vector.
// take must not publish, and no subscriber may call Snapshot: that panics.
func (s *Stream) Snapshot(take func(Vector)) {
	s.enter()
	defer s.publishing.Unlock()
	take(s.Vector())
}

// Vector says which events all subscribers have.
func (s *Stream) Vector() Vector {
	s.state.Lock()
	defer s.state.Unlock()
	return s.all.vector()
}

// Replay calls each with the events of the journal that since does not contain,
// in the order in which this node saw them, until each returns an error or ctx
// ends. It is for the start, before Run and the first Publish: with since from a
// snapshot, each event is in the snapshot or is replayed, once. Events that the
// journal's bound or age has taken meanwhile are not replayed. What since contains
// and the journal lacks counts as delivered.
func (s *Stream) Replay(ctx context.Context, since Vector, each func(detectors.Event) error) error {
	s.state.Lock()
	now := s.Now()
	for id, had := range sendersOf(since) {
		if id == s.self {
			continue
		}
		one := s.sender(id, now)
		for _, r := range had.runs() {
			s.filled(one, one.mark(r.Low, r.High, now, true))
		}
	}
	s.state.Unlock()
	return s.journal.replay(sendersOf(since), func(e detectors.Event) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return each(e)
	})
}

// Recent returns the latest n events, oldest first; fewer when fewer are known.
// Digests of passwords are not in them.
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
