package stream

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// callTime bounds a call to Redis, beyond what it waits for news.
	callTime = time.Second
	// newsTime is how long a call waits for news.
	newsTime = time.Second
	// pace is the least time between two sendings: what is published meanwhile goes
	// together.
	pace = 2 * time.Millisecond
	// tick is how often the sender looks for what is due by time.
	tick = 200 * time.Millisecond
	// backoff is between failures, from the least to the most.
	leastBackoff, mostBackoff = 100 * time.Millisecond, 2 * time.Second
	// goodbye bounds what is done for the others when this node goes.
	goodbye = 500 * time.Millisecond
)

// Budget is how long a client of Redis must be prepared to wait for an answer, to be
// of use to a stream: longer than a call that waits for news.
const Budget = newsTime + 2*callTime

// Run exchanges events with the other nodes and tends the journal, until ctx ends
// or Close; then it says farewell, and returns when all is quiet. It is called
// once.
func (s *Stream) Run(ctx context.Context) {
	s.running.Add(1)
	defer s.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { s.tendLoop(ctx) })
	group.Go(func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	if s.link != nil {
		group.Go(func() { s.sendLoop(ctx) })
		group.Go(func() { s.receiveLoop(ctx) })
		group.Go(func() { s.hearLoop(ctx) })
		group.Go(func() {
			if sleep(ctx, s.ReadyWait) {
				s.state.Lock()
				defer s.state.Unlock()
				s.catchUp(true)
			}
		})
	}
	group.Wait()
	if s.link == nil {
		return
	}
	s.state.Lock()
	well := !s.health.degraded()
	s.state.Unlock()
	if well {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
		defer cancel()
		for more := true; more; {
			var err error
			if more, err = s.sendStep(last, sendBytes); err != nil {
				return
			}
		}
		s.farewell(last)
	}
}

// Close ends Run and the journal. Events that are published later reach local
// subscribers only.
func (s *Stream) Close() error {
	s.closed.Do(func() { close(s.closing) })
	s.running.Wait()
	s.publishing.Lock()
	s.note()
	s.publishing.Unlock()
	return s.journal.close(s.Now())
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// after is how long to wait after failures in a row: longer each time, and not in
// step with other nodes.
func after(failures int) time.Duration {
	d := min(leastBackoff<<min(failures, 8), mostBackoff)
	return d/2 + rand.N(d/2)
}

func (s *Stream) sendLoop(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, callTime)
		more, err := s.sendStep(call, sendBytes>>min(failures, 6))
		cancel()
		if err != nil {
			sleep(ctx, after(failures))
			failures++
			continue
		}
		failures = 0
		if !sleep(ctx, pace) {
			return
		}
		if more {
			continue
		}
		t := time.NewTimer(tick)
		select {
		case <-s.wake:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (s *Stream) receiveLoop(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, newsTime+callTime)
		err := s.receiveStep(call, readEntries>>min(failures, 5), newsTime)
		cancel()
		if err != nil {
			sleep(ctx, after(failures))
			failures++
			continue
		}
		failures = 0
	}
}

func (s *Stream) hearLoop(ctx context.Context) {
	for {
		select {
		case <-s.hints.news:
			if fault := s.hints.tell(); fault != nil {
				s.state.Lock()
				s.complain("hearer", s.Now(), "a subscriber to announcements panicked", "panic", fault)
				s.state.Unlock()
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *Stream) tendLoop(ctx context.Context) {
	for sleep(ctx, time.Second) {
		s.tend()
	}
}

// tend is what a second brings.
func (s *Stream) tend() {
	now := s.Now()
	s.publishing.Lock()
	s.note()
	s.forget(now)
	s.publishing.Unlock()
	s.journal.tend(now)
}

// forget lets go of nodes that have been away for long, and of lives whose events
// the journal's age has taken. The last life of a node that is not forgotten stays,
// or its events would be new once more. With s.publishing.
func (s *Stream) forget(now time.Time) {
	s.state.Lock()
	defer s.state.Unlock()
	for name, p := range s.peers {
		if s.server(now).Sub(time.UnixMilli(int64(p.beat))) > forgetAfter {
			delete(s.peers, name)
		}
	}
	for id, one := range s.all {
		if p := s.peers[id.node]; p != nil && p.incarnation == id.incarnation || id == s.self {
			continue
		}
		if one.last.Before(now.Add(-s.JournalAge)) {
			delete(s.all, id)
		}
	}
}

// note writes to the journal how far the exchange is. With s.publishing.
func (s *Stream) note() {
	if s.link == nil {
		return
	}
	s.state.Lock()
	m := s.marked()
	p := m.append(nil, s.self)
	same := string(p) == s.noted
	s.noted = string(p)
	s.state.Unlock()
	if !same {
		s.journal.append(p, senderID{}, 0, 0, time.Time{}, time.Time{}, s.Now())
	}
}

// marked is how far the exchange is. With s.state.
func (s *Stream) marked() mark {
	m := mark{read: s.read, sent: make(map[uint64]uint64)}
	if s.link != nil { // else nothing waits to be sent
		m.sent[s.self.incarnation] = s.sent.own.sent
	}
	for _, o := range s.sent.older {
		m.sent[o.incarnation] = o.sent
	}
	return m
}

// beginning is what a segment of the journal begins with. With s.publishing.
func (s *Stream) beginning() [][]byte {
	s.state.Lock()
	defer s.state.Unlock()
	m := s.marked()
	return append(appendVectors(s.all, s.self), m.append(nil, s.self))
}
