package rules

import (
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/kidoban/kidoban/detectors"
)

// facts answers what expressions ask about one event, each thing found out once
// however many rules ask. It implements [cel.Activation]. One goroutine at a time.
type facts struct {
	event   *detectors.Event
	signals []detectors.Signal
	rule    *compiled // the one being evaluated; nil inside where
	order   []*counter

	own    detectors.Event
	values []ref.Val // of variables and signals by their slot; nil: not asked yet
	counts []ref.Val // by place in order; likewise
	said   bool      // signals are in values
}

// slots number the variables, then the signals.
var slots = sync.OnceValue(func() map[string]int {
	of := make(map[string]int, len(variables))
	for i, v := range variables {
		of[v.name] = i
	}
	for i, s := range catalog() {
		of[s.Name] = len(variables) + i
	}
	return of
})

var idle = sync.Pool{New: func() any { return &facts{values: make([]ref.Val, len(slots()))} }}

// newFacts is about e; release it.
func newFacts(e *detectors.Event, signals []detectors.Signal, order []*counter) *facts {
	f := idle.Get().(*facts)
	f.own, f.signals, f.order = *e, signals, order
	f.event = &f.own
	if cap(f.counts) < len(order) {
		f.counts = make([]ref.Val, len(order))
	}
	f.counts = f.counts[:len(order)]
	return f
}

// release keeps nothing of the event.
func (f *facts) release() {
	clear(f.values)
	clear(f.counts)
	*f = facts{values: f.values, counts: f.counts}
	idle.Put(f)
}

var zero ref.Val = types.Double(0)

// ResolveName implements [cel.Activation].
func (f *facts) ResolveName(name string) (any, bool) {
	if i, ok := slots()[name]; ok {
		if v := f.values[i]; v != nil {
			return v, true
		}
		if i < len(variables) {
			f.values[i] = variables[i].value(f.event)
			return f.values[i], true
		}
		if !f.said {
			f.said = true
			for _, s := range f.signals {
				if i, ok := slots()[s.Name]; ok && f.values[i] == nil {
					f.values[i] = types.Double(s.Value)
				}
			}
		}
		if f.values[i] == nil { // a signal that is not said is 0
			f.values[i] = zero
		}
		return f.values[i], true
	}
	if f.rule != nil {
		if i, ok := f.rule.counters[name]; ok {
			return f.count(i), true
		}
	}
	return nil, false
}

// Parent implements [cel.Activation].
func (f *facts) Parent() cel.Activation { return nil }

// count is what the counter at a place of the set's order has for the event.
func (f *facts) count(place int) ref.Val {
	if f.counts[place] == nil {
		c := f.order[place]
		if n := c.ask(f.event); c.whole() {
			f.counts[place] = types.Int(n)
		} else {
			f.counts[place] = types.Double(n)
		}
	}
	return f.counts[place]
}

// number is the same for findings.
func (f *facts) number(place int) float64 {
	switch n := f.count(place).(type) {
	case types.Int:
		return float64(n)
	case types.Double:
		return float64(n)
	}
	return 0
}

func (f *facts) signal(name string) detectors.Signal {
	for _, s := range f.signals {
		if s.Name == name {
			return s
		}
	}
	return detectors.Signal{Name: name}
}
