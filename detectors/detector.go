package detectors

import (
	"slices"
	"sync"
	"time"
)

// Signal is a named value that a detector derived from an event and what it
// remembers. Names, units and ranges are listed by [Catalog].
type Signal struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Why   string  `json:"why,omitempty"` // a sentence for people; empty when the value is unremarkable
}

// Description documents one signal.
type Description struct {
	Name    string  `json:"name"`
	Unit    string  `json:"unit"`
	Min     float64 `json:"min"`
	Max     float64 `json:"max"` // 0 with Min 0: no upper bound
	Meaning string  `json:"meaning"`
}

// Detector is one way of being suspicious. Assess changes nothing; Observe
// learns. Neither is safe for concurrent use: [Set] serialises them.
type Detector interface {
	Signals() []Description
	Assess(Event) []Signal
	Observe(Event)
}

// Informer is a detector that knows more of an event than the event itself. Inform
// changes nothing but e.
type Informer interface {
	Detector
	Inform(e *Event)
}

// reader is a detector that is lent events by address: one has 600 bytes, and is handed
// on some thirty times for an attempt. It changes nothing of it and does not keep it.
type reader interface {
	assess(*Event) []Signal
	observe(*Event)
}

type byValue struct{ Detector }

func (d byValue) assess(e *Event) []Signal { return d.Assess(*e) }
func (d byValue) observe(e *Event)         { d.Observe(*e) }

// Set runs detectors as one and is safe for concurrent use.
type Set struct {
	mu        sync.Mutex // guards all below and the state inside detectors
	detectors []Detector
	readers   []reader   // the same, by address
	speakers  []reader   // those of them that have signals
	informers []Informer // those that are
	nearby    []nearby   // those that tell what they will ask for
	near      near
	event     Event   // the latest that was asked about: one of a call would go to the heap, as it is lent by address
	instant   []Event // observed, of one time, not learned yet
	frozen    *Frozen // the snapshot that is being written, or nil
}

// NewSet returns a set of ds, assessed and observed in this order. They are its own
// from now on.
func NewSet(ds ...Detector) *Set {
	s := &Set{}
	s.run(slices.Clone(ds))
	return s
}

// run has the set consist of ds.
func (s *Set) run(ds []Detector) {
	s.detectors, s.readers, s.speakers, s.informers, s.nearby, s.instant = ds, nil, nil, nil, nil, nil
	for _, d := range ds {
		r, ok := d.(reader)
		if !ok {
			r = byValue{d}
		}
		s.readers = append(s.readers, r)
		if len(d.Signals()) > 0 {
			s.speakers = append(s.speakers, r)
		}
		if d, ok := d.(Informer); ok {
			s.informers = append(s.informers, d)
		}
		if d, ok := d.(nearby); ok {
			s.nearby = append(s.nearby, d)
		}
	}
}

// Facts returns e with what the set knows of it: the facts of its password. Call it
// before Assess, and again when the outcome is known, before Observe: what was a typo
// shows when the right password follows.
func (s *Set) Facts(e Event) Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	s.event = e
	s.near.fetch(s.nearby, &s.event)
	for _, d := range s.informers {
		d.Inform(&s.event)
	}
	return s.event
}

// Assess returns what all detectors say of e. A signal that is not among them is 0.
func (s *Set) Assess(e Event) []Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	s.event = e
	var signals []Signal
	for _, d := range s.speakers {
		if more := d.assess(&s.event); signals == nil {
			signals = more
		} else {
			signals = append(signals, more...)
		}
	}
	return signals
}

// Observe lets all detectors learn e. What is observed of one time is learned in the
// order of keys, in whichever order it came, as long as nothing is asked in between.
func (s *Set) Observe(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.instant); n > 0 && (n == maxInstant || !s.instant[0].Time.Equal(e.Time)) {
		s.settle()
	}
	s.instant = append(s.instant, e)
}

// maxInstant bounds the events of one time that are put in order; more are learned
// in groups of so many.
const maxInstant = 1024

// settle lets the detectors learn what was observed last.
func (s *Set) settle() {
	if len(s.instant) == 0 {
		return
	}
	if len(s.instant) > 1 {
		slices.SortFunc(s.instant, func(a, b Event) int { return a.Key.Compare(b.Key) })
	}
	for i := range s.instant {
		for _, d := range s.readers {
			d.observe(&s.instant[i])
		}
		s.instant[i] = Event{} // its texts may go
	}
	s.instant = s.instant[:0]
}

// Alarms lists the campaign alarms that are on.
func (s *Set) Alarms(now time.Time) (on []Alarm) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	for _, d := range s.detectors {
		if d, ok := d.(*Campaigns); ok {
			on = append(on, d.Alarms(now)...)
		}
	}
	return on
}

// SetDecoys says which names are decoys: nobody logs in with them, and whoever tries
// one has a list. is is called with the set's lock held; nil: none are.
func (s *Set) SetDecoys(is func(Digest) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.detectors {
		if d, ok := d.(*Names); ok {
			d.SetDecoys(is)
		}
	}
}

// Catalog lists every signal of the set.
func (s *Set) Catalog() []Description {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Description
	for _, d := range s.detectors {
		all = append(all, d.Signals()...)
	}
	return all
}
