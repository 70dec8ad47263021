package stream

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// sendBytes bounds what is sent at a time, about; after failures it is less, for
	// the way may be slow.
	sendBytes = 1 << 20
	// outboxEvents and outboxBytes bound the events that wait in memory to be sent;
	// the journal holds the others.
	outboxEvents = 4096
	outboxBytes  = 4 << 20
)

// outbox is the latest of our own events that have not been sent.
type outbox struct {
	mu    sync.Mutex
	first uint64 // sequence of list[0]
	list  [][]byte
	bytes int
}

func (o *outbox) add(sequence uint64, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 {
		o.first = sequence
	}
	o.list = append(o.list, body)
	o.bytes += len(body)
	for len(o.list) > outboxEvents || o.bytes > outboxBytes && len(o.list) > 1 {
		o.pop()
	}
}

func (o *outbox) pop() {
	o.bytes -= len(o.list[0])
	o.list[0] = nil
	o.list = o.list[1:]
	o.first++
}

// sent lets go of what was sent.
func (o *outbox) sent(through uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.list) > 0 && o.first <= through {
		o.pop()
	}
}

// from returns the bodies from sequence on, at most bytes; false when the first is
// not there any more.
func (o *outbox) from(sequence uint64, bytes int) ([]numbered, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 || sequence < o.first || sequence-o.first >= uint64(len(o.list)) {
		return nil, false
	}
	var found []numbered
	for i, body := range o.list[sequence-o.first:] {
		if bytes -= len(body); bytes < 0 && i > 0 {
			break
		}
		found = append(found, numbered{sequence + uint64(i), body})
	}
	return found, true
}

// sentState is how far sending is.
type sentState struct {
	own       *life
	older     []*life // earlier lives of this node with events unsent, by incarnation
	epoch     uint64  // counts the times that sending went back
	last      position
	firstBeat position
	beatAt    time.Time // when the next beat is due
	unread    time.Time // since when the journal cannot be read; after GiveUp what cannot is lost
}

// parcel is an envelope on its way.
type parcel struct {
	outgoing
	sent   func(at position) // it is in its log; with s.state
	failed func()            // it may not be
}

// envelopes makes envelopes of consecutive runs of bodies.
func envelopes(id senderID, found []numbered, each func(m *events)) {
	for len(found) > 0 {
		n, bytes := 1, len(found[0].body)
		for n < len(found) && n < many && found[n].sequence == found[n-1].sequence+1 && bytes+len(found[n].body) < roomy {
			bytes += len(found[n].body) + 3
			n++
		}
		m := &events{id: id, first: found[0].sequence}
		for _, one := range found[:n] {
			m.bodies = append(m.bodies, one.body)
		}
		each(m)
		found = found[n:]
	}
}

// compose is what is to be sent now, about bytes of it; more when there is yet more.
func (s *Stream) compose(now time.Time, bytes int) (parcels []parcel, more bool) {
	for _, m := range s.hints.outgoing(s.self) {
		parcels = append(parcels, parcel{outgoing: outgoing{eventLog, m.append(nil)}, failed: func() { s.hints.back(m) }})
	}
	budget := bytes

	s.state.Lock()
	lives := append(slices.Clone(s.sent.older), s.sent.own)
	s.sent.own.through = s.all[s.self].through
	s.state.Unlock()
	for _, l := range lives {
		if budget <= 0 {
			more = true
			break
		}
		list, unfinished := s.own(l, &budget)
		parcels = append(parcels, list...)
		more = more || unfinished
	}

	s.state.Lock()
	if !now.Before(s.sent.beatAt) {
		s.sent.beatAt = now.Add(beatEvery)
		m := &beat{id: s.self, clock: now, sent: max(s.sent.own.flying, s.sent.own.sent), known: s.knownSenders(now)}
		parcels = append(parcels, parcel{outgoing: outgoing{eventLog, m.append(nil)}, sent: func(at position) {
			if s.sent.firstBeat == (position{}) {
				s.sent.firstBeat = at
			}
		}, failed: func() {
			s.state.Lock()
			s.sent.beatAt = time.Time{}
			s.state.Unlock()
		}})
	}
	wants := s.wants(now)
	var answers []want
	if n := min(len(s.answers), 4); n > 0 {
		answers = slices.Clone(s.answers[:n])
		s.answers = slices.Delete(s.answers, 0, n)
		more = more || len(s.answers) > 0
	}
	s.state.Unlock()
	for _, m := range wants {
		parcels = append(parcels, parcel{outgoing: outgoing{repairLog, m.append(nil)}})
	}
	for _, w := range answers {
		for _, payload := range s.answer(w, now, bytes) {
			parcels = append(parcels, parcel{outgoing: outgoing{repairLog, payload}})
		}
	}
	return parcels, more
}

// own is parcels of what is unsent of a life, as far as the budget goes; more when
// it did not go far enough. What is in the journal no more is counted as lost.
func (s *Stream) own(l *life, budget *int) (parcels []parcel, more bool) {
	id := senderID{s.self.node, l.incarnation}
	s.state.Lock()
	lo, hi, epoch := l.sent+1, l.through, s.sent.epoch
	if lo > hi {
		s.state.Unlock()
		return nil, false
	}
	l.flying = hi // from here on only we say what of it is lost
	now := s.Now()
	skip := !s.sent.unread.IsZero() && now.Sub(s.sent.unread) >= s.GiveUp
	s.state.Unlock()

	var found []numbered
	until, ok := uint64(0), false
	if id == s.self {
		if found, ok = s.outbox.from(lo, *budget); ok {
			for len(found) > 0 && found[len(found)-1].sequence > hi {
				found = found[:len(found)-1] // not delivered here yet
			}
			until = lo + uint64(len(found)) - 1
		}
	}
	var err error
	if !ok {
		if found, until, err = s.journal.read(id, lo, hi, *budget, skip); err != nil {
			found, until = nil, lo-1
		}
	}
	s.state.Lock()
	defer s.state.Unlock()
	l.flying = until
	if err != nil {
		if s.sent.unread.IsZero() {
			s.sent.unread = now
		}
		s.complain("journal", now, "the events' journal cannot be read", "dir", s.Dir, "error", err)
		return nil, false
	}
	if !ok && (!skip || until == hi) {
		s.sent.unread = time.Time{}
	}
	found = slices.DeleteFunc(found, func(n numbered) bool { return l.lost(n.sequence) })
	next := lo
	for _, n := range found {
		s.lose(l, next, n.sequence-1)
		next = n.sequence + 1
	}
	s.lose(l, next, until)
	s.settle(l)
	envelopes(id, found, func(m *events) {
		payload := m.append(nil)
		*budget -= len(payload)
		last := m.last()
		parcels = append(parcels, parcel{outgoing: outgoing{eventLog, payload}, sent: func(position) {
			if s.sent.epoch != epoch {
				return // it may be gone again
			}
			l.sent = max(l.sent, last)
			s.settle(l)
		}})
	})
	return parcels, until < hi
}

// lose counts own events that the journal does not hold until Redis takes them.
// With s.state.
func (s *Stream) lose(l *life, lo, hi uint64) {
	lost := l.lose(lo, hi)
	if lost == 0 {
		return
	}
	s.counts.unsent += lost
	s.complain("unsent", s.Now(), "own events were lost: the journal did not hold them until Redis took them",
		"node", s.self.node, "incarnation", l.incarnation, "events", lost, "total", s.counts.unsent, "bound_bytes", s.JournalBytes)
}

// settle lets go of what is sent or lost of a life. With s.state.
func (s *Stream) settle(l *life) {
	l.settle()
	if l == s.sent.own {
		s.outbox.sent(l.sent)
		return
	}
	if l.sent >= l.through {
		s.sent.older = slices.DeleteFunc(s.sent.older, func(other *life) bool { return other == l })
	}
}

// unsentIn reports whether a segment holds own events that Redis has not taken.
func (s *Stream) unsentIn(g *segment) bool {
	if s.link == nil {
		return false
	}
	s.state.Lock()
	defer s.state.Unlock()
	unsent := func(l *life) bool {
		p, has := g.spans[senderID{s.self.node, l.incarnation}]
		return has && p.hi > l.sent
	}
	return unsent(s.sent.own) || slices.ContainsFunc(s.sent.older, unsent)
}

// droppedSegment counts the own events that went with a segment unsent. Those on
// their way are not among them.
func (s *Stream) droppedSegment(g *segment) {
	if s.link == nil {
		return
	}
	s.state.Lock()
	defer s.state.Unlock()
	for _, l := range append(slices.Clone(s.sent.older), s.sent.own) {
		if p, has := g.spans[senderID{s.self.node, l.incarnation}]; has {
			s.lose(l, max(p.lo, l.sent+1, l.flying+1), p.hi)
			s.settle(l)
		}
	}
}

// sendStep sends what there is, about bytes of it. It reports whether there is more.
func (s *Stream) sendStep(ctx context.Context, bytes int) (more bool, err error) {
	parcels, more := s.compose(s.Now(), bytes)
	if len(parcels) == 0 {
		s.state.Lock()
		s.landed()
		s.state.Unlock()
		return more, nil
	}
	batch := make([]outgoing, len(parcels))
	for i := range parcels {
		batch[i] = parcels[i].outgoing
	}
	at, err := s.link.append(ctx, batch)
	now := s.Now()
	s.state.Lock()
	for i, p := range at {
		if parcels[i].log == eventLog {
			s.sent.last = p
		}
		if parcels[i].sent != nil {
			parcels[i].sent(p)
		}
	}
	s.landed()
	if err != nil {
		s.health.send = err
		s.trouble(now, err)
	} else {
		s.health.send = nil
		s.fine(now)
	}
	s.state.Unlock()
	for _, p := range parcels[len(at):] {
		if p.failed != nil {
			p.failed()
		}
	}
	return more, err
}

// landed notes that nothing is on its way. With s.state.
func (s *Stream) landed() {
	s.sent.own.flying = 0
	for _, l := range s.sent.older {
		l.flying = 0
	}
}

// farewell says that this node goes.
func (s *Stream) farewell(ctx context.Context) {
	s.state.Lock()
	m := &beat{id: s.self, clock: s.Now(), sent: s.sent.own.sent, leaving: true}
	s.state.Unlock()
	_, _ = s.link.append(ctx, []outgoing{{eventLog, m.append(nil)}})
}
