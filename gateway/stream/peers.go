package stream

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const (
	// beatEvery is how often a node says that it lives.
	beatEvery = time.Second
	// aliveFor is how long a node lives after its last beat.
	aliveFor = 5 * time.Second
	// forgetAfter is when a node that is away is not remembered any more.
	forgetAfter = 24 * time.Hour
	// mostPeers and mostSenders bound what is remembered of nodes, and of their lives.
	mostPeers   = 1024
	mostSenders = 4096
	// mostKnown bounds what a beat says of others.
	mostKnown = 64
	// mostTold bounds the kinds of complaints that are remembered.
	mostTold = 256
)

// peer is another node.
type peer struct {
	incarnation uint64
	beat        uint64        // when it last beat, by the server's clock, in milliseconds
	clock       time.Duration // how far its clock is ahead of ours
	sent        uint64        // the highest sequence of its beats
	mine        uint64        // up to where it has our events
	left        bool
	counts      bool   // among the nodes
	announced   uint64 // the highest counter of its announcements
}

// server is the server's clock at now. With s.state.
func (s *Stream) server(now time.Time) time.Time { return now.Add(s.health.offset) }

func (s *Stream) alive(p *peer, now time.Time) bool {
	return !p.left && s.server(now).Sub(time.UnixMilli(int64(p.beat))) < aliveFor
}

// census counts who is alive. While Redis is away it does not change: nodes that
// cannot be heard have not gone. With s.state.
func (s *Stream) census(now time.Time) {
	if s.health.degraded() || !s.health.tail {
		return
	}
	s.health.nodes = 1
	for _, p := range s.peers {
		p.counts = s.alive(p, now) || p.counts && !p.left && now.Before(s.health.grace)
		if p.counts {
			s.health.nodes++
		}
	}
}

// nodesOf is how many nodes the journal knows from the last Config.History, this one
// included: what to go by until Redis answers for the first time.
func (s *Stream) nodesOf(now time.Time) int {
	names := map[string]bool{s.Node: true}
	for id, one := range s.all {
		if one.last.After(now.Add(-s.History)) {
			names[id.node] = true
		}
	}
	return len(names)
}

// Nodes is how many nodes are alive, this one included. While Redis is away it is
// how many there were.
func (s *Stream) Nodes() int {
	s.state.Lock()
	defer s.state.Unlock()
	return max(s.health.nodes, 1)
}

// knownSenders is what a beat says of other lives: those with events within the
// time that new nodes want, the latest first. With s.state.
func (s *Stream) knownSenders(now time.Time) []known {
	var ids []senderID
	for id, one := range s.all {
		if id != s.self && one.last.After(now.Add(-s.History)) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b senderID) int {
		return cmp.Or(s.all[b].last.Compare(s.all[a].last), a.compare(b))
	})
	list := make([]known, 0, min(len(ids), mostKnown))
	for _, id := range ids[:min(len(ids), mostKnown)] {
		list = append(list, known{id, s.all[id].floor(), s.all[id].through})
	}
	return list
}

// heartbeat takes what a node says of itself.
func (s *Stream) heartbeat(m *beat, at position, now time.Time) {
	s.state.Lock()
	defer s.state.Unlock()
	if m.id == s.self {
		return
	}
	if m.id.node == s.self.node {
		// An earlier life of this node ends before this one beats. One that goes on
		// is another process with our name.
		if s.sent.firstBeat != (position{}) && s.sent.firstBeat.before(at) && !m.leaving {
			s.conflict(m.id, now)
		}
		s.learn(m, now)
		return
	}
	p := s.peers[m.id.node]
	if p == nil {
		if len(s.peers) >= mostPeers {
			s.forgetPeer()
		}
		p = new(peer)
		s.peers[m.id.node] = p
	}
	was := s.alive(p, now)
	if p.incarnation != m.id.incarnation {
		*p = peer{incarnation: m.id.incarnation, counts: p.counts}
	}
	// A server whose clock is set back goes on with the times it had: these are now.
	p.beat, p.left = min(at.ms, uint64(s.server(now).UnixMilli())), m.leaving
	p.sent = max(p.sent, m.sent)
	p.clock = m.clock.Sub(now.Add(-s.server(now).Sub(time.UnixMilli(int64(at.ms)))))
	s.learn(m, now)
	if !was && s.alive(p, now) {
		s.reopen(now)
	}
}

// learn notes which sequences exist, by a beat. With s.state.
func (s *Stream) learn(m *beat, now time.Time) {
	exists := func(id senderID, through uint64) {
		if id == s.self || through == 0 {
			return
		}
		one := s.sender(id, now)
		one.know(through, now, !s.health.ready)
		s.boundGaps(one)
	}
	exists(m.id, m.sent)
	for _, k := range m.known {
		if k.id != s.self {
			exists(k.id, k.through)
		} else if p := s.peers[m.id.node]; p != nil {
			p.mine = max(p.mine, k.floor)
		}
	}
}

// sender is what is known of id; it may push out the one heard of longest ago.
// With s.state.
func (s *Stream) sender(id senderID, now time.Time) *sender {
	one := s.all[id]
	if one != nil {
		return one
	}
	if len(s.all) >= mostSenders {
		var oldest senderID
		for other, o := range s.all {
			if other != s.self && (oldest.node == "" || o.last.Before(s.all[oldest].last)) {
				oldest = other
			}
		}
		s.counts.lost += s.all[oldest].missing()
		delete(s.all, oldest)
	}
	one = &sender{last: now}
	s.all[id] = one
	return one
}

func (s *Stream) forgetPeer() {
	var oldest string
	for name, p := range s.peers {
		if oldest == "" || p.beat < s.peers[oldest].beat {
			oldest = name
		}
	}
	delete(s.peers, oldest)
}

// conflict tells that another process has our name. With s.state.
func (s *Stream) conflict(other senderID, now time.Time) {
	s.health.conflict = now
	s.complain("conflict", now, "another process uses this node's name: give each node its own; until then events may be counted twice",
		"node", s.self.node, "incarnation", s.self.incarnation, "other_incarnation", other.incarnation)
}

// complain logs an error of a kind at most once a minute. With s.state.
func (s *Stream) complain(kind string, now time.Time, message string, args ...any) {
	if s.health.told == nil {
		s.health.told = make(map[string]time.Time)
	}
	if t, ok := s.health.told[kind]; ok && now.Sub(t) < time.Minute {
		return
	}
	if len(s.health.told) >= mostTold {
		maps.DeleteFunc(s.health.told, func(_ string, t time.Time) bool { return now.Sub(t) >= time.Minute })
		if len(s.health.told) >= mostTold {
			return
		}
	}
	s.health.told[kind] = now
	s.Log.Error(message, args...)
}

// reopen gives what was given up another chance: somebody is back who may have it.
// With s.state.
func (s *Stream) reopen(now time.Time) {
	for _, one := range s.all {
		for i := range one.gaps {
			g := &one.gaps[i]
			if g.given {
				s.uncount(g)
				g.given = false
			}
			g.noticed, g.ask, g.asked, g.attempts, g.gone = now, time.Time{}, 0, 0, false
		}
	}
}

// uncount takes a gap that was given up out of the counts. With s.state.
func (s *Stream) uncount(g *gap) {
	if g.first {
		s.counts.skipped -= g.len()
	} else {
		s.counts.lost -= g.len()
	}
}

// everywhere is up to where all live nodes have our events. With s.state.
func (s *Stream) everywhere(now time.Time) uint64 {
	through := s.sent.own.sent
	for _, p := range s.peers {
		if s.alive(p, now) {
			through = min(through, p.mine)
		}
	}
	return through
}
