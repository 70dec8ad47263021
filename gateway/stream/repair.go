package stream

import (
	"slices"
	"time"
)

const (
	// settle is how long a gap may fill by itself before it is asked for.
	settle = 200 * time.Millisecond
	// mostWants bounds the requests of one step, of all senders and of one.
	mostWants, wantsEach = 16, 4
	// mostAnswers bounds the requests that wait for an answer.
	mostAnswers = 64
	// staleAfter is when a request is too old to be answered: who asked has asked
	// again, or is gone.
	staleAfter = 30 * time.Second
	// replyOnce is how long the same request is not answered again: the answer is
	// for all to read.
	replyOnce = time.Second
)

type wantKey struct {
	of     senderID
	lo, hi uint64
	since  int64
}

// wants is what to ask for now. It gives up what was asked for long enough. With
// s.state.
func (s *Stream) wants(now time.Time) (list []*want) {
	if s.health.degraded() {
		return nil
	}
	var ids []senderID
	for id, one := range s.all {
		if len(one.gaps) > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, senderID.compare)
	for _, id := range ids {
		one := s.all[id]
		each := 0
		for i := range one.gaps {
			g := &one.gaps[i]
			if g.given {
				continue
			}
			if g.asked > 0 && g.lo > g.asked { // the answer came; this is the rest
				g.asked, g.attempts, g.ask, g.gone = 0, 0, now, false
			}
			if g.attempts >= 3 && (g.gone || now.Sub(g.noticed) >= s.GiveUp) && !now.Before(g.ask) {
				s.giveUp(id, g, now)
				continue
			}
			if each == wantsEach || len(list) == mostWants || now.Before(g.ask) || g.attempts == 0 && now.Sub(g.noticed) < settle && g.asked == 0 && g.ask.IsZero() {
				continue
			}
			each++
			m := &want{id: s.self, of: id, lo: g.lo, hi: g.hi, anyone: g.attempts > 0 || g.gone || id.node == s.self.node}
			if g.hi-g.lo >= many {
				m.hi = g.lo + many - 1
			}
			if g.first {
				m.since = max(now.Add(-s.History).Unix(), 1)
			}
			g.asked = m.hi
			g.ask = now.Add(time.Second << min(g.attempts, 3))
			g.attempts++
			list = append(list, m)
		}
	}
	return list
}

// giveUp counts a gap that nobody could fill. With s.state.
func (s *Stream) giveUp(id senderID, g *gap, now time.Time) {
	g.given = true
	if g.first {
		s.counts.skipped += g.len()
		return
	}
	s.counts.lost += g.len()
	s.complain("lost "+id.String(), now, "events of another node are lost: no node has them any more",
		"node", id.node, "incarnation", id.incarnation, "from", g.lo, "to", g.hi, "events", g.len())
}

// ask takes another node's request.
func (s *Stream) ask(m *want, at position, now time.Time) {
	s.state.Lock()
	defer s.state.Unlock()
	if m.id == s.self || m.of.node != s.self.node && !m.anyone ||
		s.server(now).Sub(time.UnixMilli(int64(at.ms))) > staleAfter || len(s.answers) >= mostAnswers {
		return
	}
	key := wantKey{m.of, m.lo, m.hi, m.since}
	if t, ok := s.replied[key]; ok && now.Sub(t) < replyOnce && !t.After(now) {
		return
	}
	if len(s.replied) >= mostAnswers {
		clear(s.replied)
	}
	s.replied[key] = now
	s.answers = append(s.answers, *m)
	s.nudge()
}

// answer is the envelopes that answer a request, of about bytes.
func (s *Stream) answer(w want, now time.Time, bytes int) (out [][]byte) {
	ours := w.of.node == s.self.node
	lo, hi := w.lo, w.hi
	missing := func(lo, hi uint64, old bool) {
		m := gone{id: s.self, of: w.of, lo: lo, hi: hi, old: old}
		out = append(out, m.append(nil))
	}
	s.state.Lock()
	var through uint64
	if one := s.all[w.of]; one != nil {
		through = one.through
	}
	if w.of == s.self {
		through = s.sent.own.sent // the rest comes by itself
	}
	s.state.Unlock()
	if hi > through {
		if ours && w.of != s.self { // an earlier life of which we know less than others
			missing(max(lo, through+1), hi, false)
		}
		hi = through
	}
	if lo > hi {
		return out
	}
	if w.since > 0 {
		if old := s.journal.olderThan(w.of, time.Unix(w.since, 0)); old >= lo {
			missing(lo, min(old, hi), true)
			lo = old + 1
		}
		if lo > hi {
			return out
		}
	}
	found, until, err := s.journal.read(w.of, lo, hi, bytes, false)
	if err != nil {
		s.state.Lock()
		s.complain("journal", now, "the events' journal cannot be read", "dir", s.Dir, "error", err)
		s.state.Unlock()
		return out
	}
	if ours {
		next := lo
		for _, n := range found {
			if n.sequence > next {
				missing(next, n.sequence-1, false)
			}
			next = n.sequence + 1
		}
		if next <= until {
			missing(next, until, false)
		}
	}
	envelopes(w.of, found, func(m *events) { out = append(out, m.append(nil)) })
	return out
}

// refusal takes the answer that events cannot or need not be had.
func (s *Stream) refusal(m *gone, now time.Time) {
	s.state.Lock()
	defer s.state.Unlock()
	one := s.all[m.of]
	if one == nil || m.of == s.self {
		return
	}
	hi := min(m.hi, one.through)
	if m.lo > hi {
		return
	}
	from, to := one.carve(m.lo, hi)
	for i := from; i < to; i++ {
		g := &one.gaps[i]
		switch {
		case g.given:
		case m.old && g.first:
			g.given = true
			s.counts.skipped += g.len()
		case !m.old && m.id.node == m.of.node && !g.gone:
			g.gone, g.attempts, g.asked = true, 1, 0
			g.ask = now
			s.nudge()
		}
	}
	s.boundGaps(one)
}

// olderThan is the highest sequence of a sender of which all up to there are from
// before t, as far as whole segments tell.
func (j *journal) olderThan(id senderID, t time.Time) (through uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	low := ^uint64(0) // of those segments that are not old
	for _, s := range j.segments {
		if p, has := s.spans[id]; has && !s.stamp.Before(t) {
			low = min(low, p.lo)
		}
	}
	for _, s := range j.segments {
		if p, has := s.spans[id]; has && s.stamp.Before(t) && p.hi < low {
			through = max(through, p.hi)
		}
	}
	return through
}
