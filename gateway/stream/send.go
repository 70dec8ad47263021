package stream

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// sendBytes bounds what is sent at a time, about.
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
	through   uint64  // of this life
	flying    uint64  // up to where it is on its way
	older     []older // earlier lives of this node with events unsent
	last      position
	firstBeat position
	beatAt    time.Time // when the next beat is due
}

type older struct{ incarnation, sent, through uint64 }

func (s *sentState) sortOlder() {
	slices.SortFunc(s.older, func(a, b older) int {
		return senderID{incarnation: a.incarnation}.compare(senderID{incarnation: b.incarnation})
	})
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

// compose is what is to be sent now; more when there is yet more.
func (s *Stream) compose(now time.Time) (parcels []parcel, more bool) {
	for _, m := range s.hints.outgoing(s.self) {
		parcels = append(parcels, parcel{outgoing: outgoing{eventLog, m.append(nil)}, failed: func() { s.hints.back(m) }})
	}
	budget := sendBytes

	s.state.Lock()
	olders := slices.Clone(s.sent.older)
	next, through := s.sent.through+1, s.all[s.self].through
	s.sent.flying = s.sent.through
	s.state.Unlock()
	for _, o := range olders {
		if budget <= 0 {
			break
		}
		id := senderID{s.self.node, o.incarnation}
		list, until := s.own(id, o.sent+1, o.through, &budget)
		parcels = append(parcels, list...)
		more = more || until < o.through
	}
	if next <= through && budget > 0 {
		list, until := s.own(s.self, next, through, &budget)
		parcels = append(parcels, list...)
		through = until
		s.state.Lock()
		more = more || until < s.all[s.self].through
		s.state.Unlock()
	}

	s.state.Lock()
	if !now.Before(s.sent.beatAt) {
		s.sent.beatAt = now.Add(beatEvery)
		m := &beat{id: s.self, clock: now, sent: max(s.sent.flying, s.sent.through), known: s.knownSenders(now)}
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
		for _, payload := range s.answer(w, now) {
			parcels = append(parcels, parcel{outgoing: outgoing{repairLog, payload}})
		}
	}
	return parcels, more
}

// own is parcels of own events from lo to hi, as far as the budget goes, and until
// where they reach. What is in the journal no more is counted as lost.
func (s *Stream) own(id senderID, lo, hi uint64, budget *int) (parcels []parcel, until uint64) {
	var found []numbered
	ok := false
	if id == s.self {
		found, ok = s.outbox.from(lo, *budget)
		for ok && len(found) > 0 && found[len(found)-1].sequence > hi {
			found = found[:len(found)-1] // not delivered here yet
		}
		if ok && len(found) == 0 {
			return nil, lo - 1
		}
	}
	if ok {
		until = found[len(found)-1].sequence
	} else {
		var err error
		if found, until, err = s.journal.read(id, lo, hi, *budget); err != nil {
			s.state.Lock()
			s.complain("journal", s.Now(), "the events' journal cannot be read", "dir", s.Dir, "error", err)
			s.state.Unlock()
			return nil, lo - 1
		}
		if id == s.self && len(found) > 0 {
			s.state.Lock()
			s.sent.flying = max(s.sent.flying, found[len(found)-1].sequence)
			s.state.Unlock()
		}
		if lost := until - lo + 1 - uint64(len(found)); lost > 0 {
			s.lose(id, found, lo, until)
		}
	}
	envelopes(id, found, func(m *events) {
		payload := m.append(nil)
		*budget -= len(payload)
		last := m.last()
		parcels = append(parcels, parcel{outgoing: outgoing{eventLog, payload}, sent: func(at position) { s.advance(id, last) }})
	})
	if id == s.self {
		s.state.Lock()
		s.sent.flying = max(s.sent.flying, until)
		s.state.Unlock()
	}
	return parcels, until
}

// lose counts what is in the journal no more of what was to be sent from lo to
// until: all but found.
func (s *Stream) lose(id senderID, found []numbered, lo, until uint64) {
	s.state.Lock()
	defer s.state.Unlock()
	from := max(lo, s.sentOf(id)+1) // what went with a segment is counted already
	if from > until {
		return
	}
	lost := until - from + 1
	for _, n := range found {
		if n.sequence >= from {
			lost--
		}
	}
	if lost == 0 {
		return
	}
	s.counts.unsent += lost
	s.complain("unsent", s.Now(), "own events were lost: the journal did not hold them until Redis took them", "node", id.node, "incarnation", id.incarnation, "events", lost)
	if len(found) == 0 {
		s.advance(id, until)
	} else if found[0].sequence > from {
		s.advance(id, found[0].sequence-1)
	}
}

// sentOf is up to where a life of this node is sent. With s.state.
func (s *Stream) sentOf(id senderID) uint64 {
	if id == s.self {
		return s.sent.through
	}
	for _, o := range s.sent.older {
		if o.incarnation == id.incarnation {
			return o.sent
		}
	}
	return ^uint64(0)
}

// advance notes that own events are sent. With s.state.
func (s *Stream) advance(id senderID, through uint64) {
	if id == s.self {
		s.sent.through = max(s.sent.through, through)
		s.outbox.sent(s.sent.through)
		return
	}
	for i := range s.sent.older {
		o := &s.sent.older[i]
		if o.incarnation != id.incarnation {
			continue
		}
		if o.sent = max(o.sent, through); o.sent >= o.through {
			s.sent.older = slices.Delete(s.sent.older, i, i+1)
		}
		return
	}
}

// unsentIn reports whether a segment holds own events that Redis has not taken.
func (s *Stream) unsentIn(g *segment) bool {
	if s.link == nil {
		return false
	}
	s.state.Lock()
	defer s.state.Unlock()
	if p, has := g.spans[s.self]; has && p.hi > s.sent.through {
		return true
	}
	for _, o := range s.sent.older {
		if p, has := g.spans[senderID{s.self.node, o.incarnation}]; has && p.hi > o.sent {
			return true
		}
	}
	return false
}

// droppedSegment counts the own events that went with a segment unsent.
func (s *Stream) droppedSegment(g *segment, forced bool) {
	if s.link == nil {
		return
	}
	s.state.Lock()
	defer s.state.Unlock()
	var lost uint64
	count := func(id senderID, sent uint64) {
		p, has := g.spans[id]
		if !has || p.hi <= sent {
			return
		}
		if from := max(p.lo, sent+1); from <= p.hi {
			lost += p.hi - from + 1
		}
		s.advance(id, p.hi)
	}
	count(s.self, max(s.sent.through, s.sent.flying))
	for _, o := range slices.Clone(s.sent.older) {
		count(senderID{s.self.node, o.incarnation}, o.sent)
	}
	if lost > 0 {
		s.counts.unsent += lost
		s.complain("unsent", s.Now(), "own events were lost: the journal's bound or age came before Redis took them",
			"events", lost, "total", s.counts.unsent, "bound_bytes", s.JournalBytes, "bound", forced)
	}
}

// sendStep sends what there is. It reports whether there is more.
func (s *Stream) sendStep(ctx context.Context) (more bool, err error) {
	parcels, more := s.compose(s.Now())
	if len(parcels) == 0 {
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
	s.sent.flying = s.sent.through
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

// farewell says that this node goes.
func (s *Stream) farewell(ctx context.Context) {
	s.state.Lock()
	m := &beat{id: s.self, clock: s.Now(), sent: s.sent.through, leaving: true}
	s.state.Unlock()
	_, _ = s.link.append(ctx, []outgoing{{eventLog, m.append(nil)}})
}
