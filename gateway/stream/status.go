package stream

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// counts are since the start.
type counts struct {
	received   uint64 // of other nodes
	duplicates uint64
	repaired   uint64
	lost       uint64 // of other nodes, given up
	skipped    uint64 // of other nodes, from before this one knew them
	unsent     uint64 // own, gone before Redis took them
	clamped    uint64
	unknown    uint64 // envelopes
	malformed  uint64 // envelopes
	rewinds    uint64
	cut        int64 // bytes
	damaged    int   // frames
}

// health is the state of the exchange.
type health struct {
	send, receive error
	since         time.Time // of trouble
	reason        error
	grace         time.Time     // until when nodes that were alive count as alive
	offset        time.Duration // the server's clock minus ours
	probeAt       time.Time
	tail          bool // all that there was has been read
	at            uint64
	ready         bool
	nodes         int
	conflict      time.Time // when another process with our name last beat
	told          map[string]time.Time
}

func (h *health) degraded() bool { return h.send != nil || h.receive != nil }

// trouble notes that Redis is away. With s.state.
func (s *Stream) trouble(now time.Time, err error) {
	if s.health.since.IsZero() {
		s.health.since = now
	}
	if s.health.reason == nil {
		s.Log.Warn("events are not exchanged with other nodes: Redis does not answer", "error", err)
	}
	s.health.reason = err
}

// fine notes that a step went well. When both directions do, what was missing is
// asked for anew. With s.state.
func (s *Stream) fine(now time.Time) {
	if s.health.degraded() || s.health.since.IsZero() {
		return
	}
	s.Log.Info("events are exchanged with other nodes", "after", now.Sub(s.health.since))
	s.health.since, s.health.reason = time.Time{}, nil
	s.health.grace = now.Add(aliveFor)
	s.health.probeAt = time.Time{}
	s.sent.beatAt = time.Time{}
	s.reopen(now)
	s.nudge()
}

// catchUp opens Ready: when nothing is awaited, or at once. With s.state.
func (s *Stream) catchUp(atOnce bool) {
	if s.health.ready {
		return
	}
	if !atOnce {
		for id, one := range s.all {
			if id != s.self && one.missing() > 0 {
				return
			}
		}
	}
	s.health.ready = true
	close(s.ready)
}

// Ready is closed when this node has caught up with the others, or has waited for
// it long enough. A node that is alone has caught up.
func (s *Stream) Ready() <-chan struct{} { return s.ready }

// Status is the state of the exchange with other nodes, and of the journal. Counts
// are since the start.
type Status struct {
	Nodes         int       `json:"nodes"`           // alive, this one included
	Peers         []Peer    `json:"peers,omitempty"` // of the last day, by name
	Degraded      bool      `json:"degraded"`        // nothing is exchanged, in one direction at least
	DegradedSince time.Time `json:"degraded_since,omitzero"`
	Reason        string    `json:"reason,omitempty"` // why, for operators
	Conflict      bool      `json:"conflict"`         // another process uses this node's name

	Spooled  uint64 `json:"spooled"`   // own events that Redis has not taken yet
	GapsOpen uint64 `json:"gaps_open"` // events of others that are being asked for

	Received   uint64 `json:"received"` // events of others that were delivered
	Repaired   uint64 `json:"repaired"` // of these, how many had to be asked for
	Duplicates uint64 `json:"duplicates"`
	Lost       uint64 `json:"lost"`    // events of others that no node has any more; less again when they come all the same
	Skipped    uint64 `json:"skipped"` // events of others from before this node knew them, and too old to be of use; as Lost
	Unsent     uint64 `json:"unsent"`  // own events that went from the journal before Redis took them
	Clamped    uint64 `json:"clamped"` // events whose node's clock was ahead
	Unknown    uint64 `json:"unknown"` // envelopes of another version
	Malformed  uint64 `json:"malformed"`
	Rewinds    uint64 `json:"rewinds"` // how often Redis had lost entries

	Journal JournalStatus `json:"journal"`
}

// Peer is another node as this one sees it.
type Peer struct {
	Node        string    `json:"node"`
	Incarnation uint64    `json:"incarnation"`
	Alive       bool      `json:"alive"`
	Beat        time.Time `json:"beat"`   // when it last said so, by Redis's clock
	Behind      uint64    `json:"behind"` // events of it that this node lacks
	// Lag is how old the latest is that this node has read; 0 while it reads all
	// there is.
	Lag time.Duration `json:"-"`
	// ClockAhead is how far its clock is ahead of ours, roughly.
	ClockAhead time.Duration `json:"-"`
}

// MarshalJSON writes Lag and ClockAhead in seconds, as lag_seconds and
// clock_ahead_seconds.
func (p Peer) MarshalJSON() ([]byte, error) {
	type plain Peer
	return json.Marshal(struct {
		plain
		Lag        float64 `json:"lag_seconds"`
		ClockAhead float64 `json:"clock_ahead_seconds"`
	}{plain(p), p.Lag.Seconds(), p.ClockAhead.Seconds()})
}

// JournalStatus is the state of the journal.
type JournalStatus struct {
	Bytes    int64     `json:"bytes"`        // on disk
	Memory   int64     `json:"memory_bytes"` // not on disk
	Error    string    `json:"error,omitempty"`
	Since    time.Time `json:"since,omitzero"` // of Error
	Unkept   uint64    `json:"unkept"`         // events that never reached the disk
	BytesCut int64     `json:"bytes_cut"`      // incomplete tails, at the start
	Damaged  int       `json:"damaged"`        // frames and files that could not be read, at the start
}

// Status tells how the stream is.
func (s *Stream) Status() Status {
	now := s.Now()
	s.state.Lock()
	c := s.counts
	st := Status{
		Nodes: max(s.health.nodes, 1), Degraded: s.health.degraded(), DegradedSince: s.health.since,
		Conflict: !s.health.conflict.IsZero() && now.Sub(s.health.conflict) < aliveFor,
		Received: c.received, Repaired: c.repaired, Duplicates: c.duplicates, Lost: c.lost, Skipped: c.skipped,
		Unsent: c.unsent, Clamped: c.clamped, Unknown: c.unknown, Malformed: c.malformed, Rewinds: c.rewinds,
	}
	if st.Degraded {
		st.Reason = cmp.Or(s.health.reason, s.health.send, s.health.receive).Error()
	}
	if s.link != nil {
		st.Spooled = s.sent.own.unsent(s.all[s.self].through)
		for _, o := range s.sent.older {
			st.Spooled += o.unsent(o.through)
		}
	}
	behind := make(map[string]uint64)
	for id, one := range s.all {
		n := one.missing()
		st.GapsOpen += n
		behind[id.node] += n
	}
	for name, p := range s.peers {
		one := Peer{Node: name, Incarnation: p.incarnation, Alive: s.alive(p, now), Beat: time.UnixMilli(int64(p.beat)).UTC(),
			Behind: behind[name], ClockAhead: p.clock}
		if st.Degraded {
			one.Lag = max(s.server(now).Sub(time.UnixMilli(int64(p.beat))), 0)
		} else if !s.health.tail && s.health.at > 0 {
			one.Lag = max(s.server(now).Sub(time.UnixMilli(int64(s.health.at))), 0)
		}
		st.Peers = append(st.Peers, one)
	}
	s.state.Unlock()
	slices.SortFunc(st.Peers, func(a, b Peer) int { return strings.Compare(a.Node, b.Node) })

	j := s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	st.Journal = JournalStatus{Unkept: j.unkept, BytesCut: c.cut, Damaged: c.damaged, Since: j.since}
	st.Journal.Bytes, st.Journal.Memory = j.bytes()
	if j.failed != nil {
		st.Journal.Error = j.failed.Error()
	}
	return st
}
