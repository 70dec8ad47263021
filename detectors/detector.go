package detectors

import (
	"slices"
	"sync"
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

// Set runs detectors as one and is safe for concurrent use.
type Set struct {
	mu        sync.Mutex // guards all below and the state inside detectors
	detectors []Detector
	frozen    *Frozen // the snapshot that is being written, or nil
}

// NewSet returns a set of ds, assessed and observed in this order. They are its own
// from now on.
func NewSet(ds ...Detector) *Set { return &Set{detectors: slices.Clone(ds)} }

// Facts returns e with what the set knows of it: the facts of its password. Call it
// before Assess, and again when the outcome is known, before Observe: what was a typo
// shows when the right password follows.
func (s *Set) Facts(e Event) Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.detectors {
		if d, ok := d.(Informer); ok {
			d.Inform(&e)
		}
	}
	return e
}

// Assess returns what all detectors say of e. A signal that is not among them is 0.
func (s *Set) Assess(e Event) []Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	var signals []Signal
	for _, d := range s.detectors {
		if more := d.Assess(e); signals == nil {
			signals = more
		} else {
			signals = append(signals, more...)
		}
	}
	return signals
}

// Observe lets all detectors learn e.
func (s *Set) Observe(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.detectors {
		d.Observe(e)
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
