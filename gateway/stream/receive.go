package stream

import (
	"context"
	"errors"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

const (
	// readEntries is how many entries of a log are read at a time.
	readEntries = 256
	// probeEvery is how often a node looks whether the logs are still those it knew.
	probeEvery = time.Second
	// chunk is how many events of another node are delivered before ours may come
	// between.
	chunk = 16
)

// receiveStep reads what others sent, at most most entries of each log, waiting at
// most wait for it.
func (s *Stream) receiveStep(ctx context.Context, most int, wait time.Duration) error {
	err := s.receiveOnce(ctx, most, wait)
	now := s.Now()
	s.state.Lock()
	defer s.state.Unlock()
	if s.health.receive = err; err != nil {
		s.trouble(now, err)
		return err
	}
	s.fine(now)
	s.census(now)
	if s.health.tail && !s.health.degraded() {
		s.catchUp(false)
	}
	return nil
}

func (s *Stream) receiveOnce(ctx context.Context, most int, wait time.Duration) error {
	now := s.Now()
	s.state.Lock()
	due := !now.Before(s.health.probeAt)
	after := s.read
	s.state.Unlock()
	if due {
		if err := s.probe(ctx, now); err != nil {
			return err
		}
		s.state.Lock()
		after = s.read
		s.state.Unlock()
	}
	in, err := s.link.read(ctx, after, most, wait)
	if err != nil {
		return err
	}
	now = s.Now()
	var n [logs]int
	for _, m := range in {
		n[m.log]++
		s.receive(m, now)
	}
	s.state.Lock()
	defer s.state.Unlock()
	for _, m := range in {
		s.read[m.log] = m.at
	}
	s.health.tail = max(n[eventLog], n[repairLog]) < most
	if len(in) > 0 {
		s.health.at = in[len(in)-1].at.ms
	}
	return nil
}

// probe looks whether entries that were there have vanished: then a server came
// back empty, or another took its place that had not all of them. What it lost is
// found by reading again from the start, and our own part of it is sent again. An
// entry that was trimmed before we read on costs only that reading.
func (s *Stream) probe(ctx context.Context, now time.Time) error {
	s.state.Lock()
	var places []place
	for log, at := range s.read {
		if at != (position{}) {
			places = append(places, place{log, at})
		}
	}
	last := s.sent.last
	if last != (position{}) {
		places = append(places, place{eventLog, last})
	}
	s.state.Unlock()
	clock, held, err := s.link.probe(ctx, places)
	if err != nil {
		return err
	}
	old := s.journal.olderThan(s.self, now.Add(-s.History))
	s.state.Lock()
	defer s.state.Unlock()
	s.health.probeAt = now.Add(probeEvery)
	s.health.offset = clock.Sub(s.Now())
	vanished, tail := false, s.health.tail
	for i, p := range places {
		if held[i] {
			continue
		}
		// Who is not at the end may be behind what is trimmed.
		if p.log == eventLog && (tail || p.at == last) {
			vanished = true
		}
		s.read[p.log] = position{}
		s.health.tail = false
	}
	if vanished {
		s.counts.rewinds++
		if s.sent.last == last {
			s.sent.last = position{}
		}
		own := s.sent.own
		own.rewind(max(s.everywhere(now), min(old, own.sent)))
		s.sent.epoch++
		s.sent.beatAt = time.Time{}
		s.Log.Warn("the events' stream in Redis lost entries: reading it again, and sending again what others may miss",
			"from", own.sent+1, "through", s.all[s.self].through)
		s.nudge()
	}
	return nil
}

// receive takes an envelope.
func (s *Stream) receive(in incoming, now time.Time) {
	message, err := decodeEnvelope(in.payload)
	if err == nil {
		switch m := message.(type) {
		case *events:
			err = s.take(m, now)
		case *beat:
			s.heartbeat(m, in.at, now)
		case *announcements:
			if s.announced(m) {
				s.hints.heard(m.list)
			}
		case *want:
			s.ask(m, in.at, now)
		case *gone:
			s.refusal(m, now)
		}
	}
	if err == nil {
		return
	}
	s.state.Lock()
	defer s.state.Unlock()
	if errors.Is(err, errVersion) {
		s.counts.unknown++
		s.complain("version", now, "an envelope of events is of a version that this program does not know: bring all nodes to one release", "entry", in.at.String())
	} else {
		s.counts.malformed++
		s.complain("malformed", now, "an envelope of events is malformed, and was skipped: somebody else writes to the stream's keys in Redis", "entry", in.at.String(), "error", err)
	}
}

// announced reports whether announcements are another node's and new.
func (s *Stream) announced(m *announcements) bool {
	s.state.Lock()
	defer s.state.Unlock()
	if m.id == s.self {
		return false
	}
	p := s.peers[m.id.node]
	if p == nil || p.incarnation != m.id.incarnation {
		return true // before its first beat
	}
	if m.counter <= p.announced {
		return false
	}
	p.announced = m.counter
	return true
}

// take delivers those events that have not been delivered.
func (s *Stream) take(m *events, now time.Time) error {
	if m.id == s.self {
		return nil
	}
	s.state.Lock()
	n, known := s.duplicates(m), s.all[m.id] != nil
	if n == len(m.bodies) {
		s.counts.duplicates += uint64(n)
	}
	s.state.Unlock()
	if n == len(m.bodies) {
		return nil
	}
	if !known {
		if _, latest, err := m.times(); err == nil && latest.Before(now.Add(-s.JournalAge)) {
			return nil // of a life that is forgotten already
		}
	}

	decoded := make([]detectors.Event, len(m.bodies))
	var clamped uint64
	for i, body := range m.bodies {
		e, err := decodeEvent(body)
		if err != nil {
			return err
		}
		if latest := now.Add(Skew).UTC().Round(0); e.StreamTime.After(latest) {
			e.StreamTime, e.Time = latest, latest.Add(e.Time.Sub(e.StreamTime))
			m.bodies[i] = appendEvent(nil, &e)
			clamped++
		}
		e.Key = detectors.EventKey{Node: m.id.node, Incarnation: m.id.incarnation, Sequence: m.first + uint64(i)}
		decoded[i] = e
	}
	for at := 0; at < len(decoded); at += chunk {
		s.takeChunk(m, decoded, at, min(at+chunk, len(decoded)), now)
	}
	if clamped > 0 {
		s.state.Lock()
		s.counts.clamped += clamped
		s.complain("clock "+m.id.node, now, "a node's clock is ahead of ours: its events were moved back", "node", m.id.node)
		s.state.Unlock()
	}
	return nil
}

// duplicates counts the events that are here already. With s.state.
func (s *Stream) duplicates(m *events) (n int) {
	one := s.all[m.id]
	if one == nil {
		return 0
	}
	if m.first > one.through {
		return 0
	}
	for i := range m.bodies {
		if one.has(m.first + uint64(i)) {
			n++
		}
	}
	return n
}

func (s *Stream) takeChunk(m *events, decoded []detectors.Event, from, to int, now time.Time) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	for from < to {
		// A run of events that all are new.
		s.state.Lock()
		one := s.sender(m.id, now)
		for from < to && one.has(m.first+uint64(from)) {
			s.counts.duplicates++
			from++
		}
		end := from
		for end < to && !one.has(m.first+uint64(end)) {
			end++
		}
		s.state.Unlock()
		if from == end {
			return
		}
		run := events{id: m.id, first: m.first + uint64(from), bodies: m.bodies[from:end]}
		earliest, latest := decoded[from].StreamTime, decoded[from].StreamTime
		for _, e := range decoded[from+1 : end] {
			if e.StreamTime.Before(earliest) {
				earliest = e.StreamTime
			}
			if e.StreamTime.After(latest) {
				latest = e.StreamTime
			}
		}
		s.scratch = run.append(s.scratch[:0])
		s.journal.append(s.scratch, m.id, run.first, run.last(), earliest, latest, now)
		for _, e := range decoded[from:end] {
			if fault := s.deliver(e); fault != nil {
				s.state.Lock()
				s.complain("panic", now, "a subscriber to events panicked", "panic", fault)
				s.state.Unlock()
			}
		}
		s.state.Lock()
		if latest.After(one.last) {
			one.last = latest
		}
		s.filled(one, one.mark(run.first, run.last(), now, !s.health.ready))
		s.counts.received += uint64(end - from)
		s.state.Unlock()
		from = end
	}
}

// filled takes note of gaps that are no more. With s.state.
func (s *Stream) filled(one *sender, gaps []gap) {
	for i := range gaps {
		g := &gaps[i]
		if g.given {
			s.uncount(g)
		}
		if g.attempts > 0 {
			s.counts.repaired += g.len()
			s.nudge() // there may be more to ask for
		}
	}
	s.boundGaps(one)
}

// boundGaps gives up the oldest of too many gaps for good. With s.state.
func (s *Stream) boundGaps(one *sender) {
	for len(one.gaps) > mostGaps {
		if !one.gaps[0].given {
			s.counts.lost += one.gaps[0].len()
		}
		one.gaps = one.gaps[1:]
	}
}
