package stream

import (
	"slices"
	"sync"
)

const (
	topicBytes   = 64
	subjectBytes = 256
	// mostHints bounds the hints that wait, either way. Beyond, a topic's subjects
	// become one: all of them.
	mostHints = 4096
)

// Announcement hints that what SQL says of a subject has changed.
type Announcement struct {
	Topic    string // "decisions", "sessions": at most 64 bytes
	Subject  string // at most 256 bytes; empty: any of the topic
	Revision uint64 // of several for one subject, the highest arrives
}

type hintKey struct{ topic, subject string }

// hints is what waits to be sent, and what has come and waits to be told.
type hints struct {
	mu      sync.Mutex
	pending map[hintKey]uint64
	arrived map[hintKey]uint64
	counter uint64
	hearers []*hearer
	news    chan struct{}
}

type hearer struct{ hear func(Announcement) }

// merge adds a to what waits.
func merge(waiting map[hintKey]uint64, a Announcement) {
	key := hintKey{a.Topic, a.Subject}
	if len(key.topic) > topicBytes {
		key.topic = key.topic[:topicBytes]
	}
	if len(key.subject) > subjectBytes {
		key.subject = ""
	}
	all := hintKey{topic: key.topic}
	if _, has := waiting[all]; has {
		key = all
	}
	if _, has := waiting[key]; !has && len(waiting) >= mostHints {
		for k, revision := range waiting {
			if k.topic == key.topic {
				a.Revision = max(a.Revision, revision)
				delete(waiting, k)
			}
		}
		if len(waiting) >= mostHints {
			return // thousands of topics: not ours
		}
		key = all
	}
	waiting[key] = max(waiting[key], a.Revision)
}

// Announce tells the other nodes of a change, once it is committed. It returns at
// once and promises little: hints for one subject become one, and a hint may be
// lost with Redis. Who needs certainty looks into SQL from time to time.
func (s *Stream) Announce(a Announcement) {
	if s.link == nil {
		return
	}
	s.hints.mu.Lock()
	merge(s.hints.pending, a)
	s.hints.mu.Unlock()
	s.nudge()
}

// Announces reports whether announcements come and go. Another node's may be cut
// off all the same.
func (s *Stream) Announces() bool {
	if s.link == nil {
		return false
	}
	s.state.Lock()
	defer s.state.Unlock()
	return !s.health.degraded()
}

// OnAnnouncement has hear called with what other nodes announce, one at a time and
// apart from events, until cancel.
func (s *Stream) OnAnnouncement(hear func(Announcement)) (cancel func()) {
	h := &hearer{hear}
	s.hints.mu.Lock()
	defer s.hints.mu.Unlock()
	s.hints.hearers = append(slices.Clip(s.hints.hearers), h)
	return func() {
		s.hints.mu.Lock()
		defer s.hints.mu.Unlock()
		s.hints.hearers = slices.DeleteFunc(slices.Clone(s.hints.hearers), func(other *hearer) bool { return other == h })
	}
}

// outgoing takes what waits to be sent, as envelopes.
func (h *hints) outgoing(self senderID) []*announcements {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) == 0 {
		return nil
	}
	list := listed(h.pending)
	clear(h.pending)
	var out []*announcements
	for part := range slices.Chunk(list, 128) { // at their longest, 128 fit an envelope
		h.counter++
		out = append(out, &announcements{id: self, counter: h.counter, list: part})
	}
	return out
}

// back returns to the queue what could not be sent.
func (h *hints) back(m *announcements) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range m.list {
		merge(h.pending, a)
	}
}

func listed(waiting map[hintKey]uint64) []Announcement {
	list := make([]Announcement, 0, len(waiting))
	for k, revision := range waiting {
		list = append(list, Announcement{k.topic, k.subject, revision})
	}
	slices.SortFunc(list, func(a, b Announcement) int {
		return slices.Compare([]string{a.Topic, a.Subject}, []string{b.Topic, b.Subject})
	})
	return list
}

// heard notes what another node announces.
func (h *hints) heard(list []Announcement) {
	h.mu.Lock()
	for _, a := range list {
		merge(h.arrived, a)
	}
	h.mu.Unlock()
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// tell calls the hearers with what has come. A panic of one is returned once all
// have been told.
func (h *hints) tell() (fault any) {
	h.mu.Lock()
	list, hearers := listed(h.arrived), h.hearers
	clear(h.arrived)
	h.mu.Unlock()
	for _, a := range list {
		for _, one := range hearers {
			func() {
				defer func() {
					if p := recover(); p != nil {
						fault = p
					}
				}()
				one.hear(a)
			}()
		}
	}
	return fault
}
