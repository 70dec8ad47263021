package rules

import (
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

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
	frame  *interpreter.ExecutionFrame // of all evaluations; its activation is f itself
	values []ref.Val                   // of variables and signals by their slot; nil: not asked yet
	counts []ref.Val                   // by place in order; likewise
	said   bool                        // signals are in values
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

var idle = sync.Pool{New: func() any {
	f := &facts{values: make([]ref.Val, len(slots()))}
	f.frame = &interpreter.ExecutionFrame{Activation: f}
	return f
}}

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
	*f = facts{values: f.values, counts: f.counts, frame: f.frame}
	idle.Put(f)
}

var zero ref.Val = types.Double(0)

// ResolveName implements [cel.Activation].
func (f *facts) ResolveName(name string) (any, bool) {
	if slot, ok := slots()[name]; ok {
		return f.value(slot), true
	}
	if f.rule != nil {
		if place, ok := f.rule.counters[name]; ok {
			return f.count(place), true
		}
	}
	return nil, false
}

// value is that of a variable or a signal.
func (f *facts) value(slot int) ref.Val {
	if v := f.values[slot]; v != nil {
		return v
	}
	if slot < len(variables) {
		f.values[slot] = variables[slot].value(f.event)
		return f.values[slot]
	}
	if !f.said {
		f.said = true
		for _, s := range f.signals {
			if slot, ok := slots()[s.Name]; ok && f.values[slot] == nil {
				f.values[slot] = types.Double(s.Value)
			}
		}
	}
	if f.values[slot] == nil { // a signal that is not said is 0
		f.values[slot] = zero
	}
	return f.values[slot]
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

// known is an expression that names a variable or a signal, whose slot was found when
// the rule was loaded and not at each event; or, without a slot, a counter.
type known struct {
	interpreter.InterpretableV2
	slot    int
	counter string
}

// Exec implements [interpreter.InterpretableV2].
func (k *known) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	f, ok := frame.Activation.(*facts)
	switch {
	case !ok:
	case k.counter == "":
		return f.value(k.slot)
	case f.rule != nil:
		if place, ok := f.rule.counters[k.counter]; ok {
			return f.count(place)
		}
	}
	return k.InterpretableV2.Exec(frame)
}

// findSlots makes all such expressions of a program known.
func findSlots(of interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	a, ok := of.(interpreter.InterpretableAttribute)
	if !ok {
		return of, nil
	}
	attribute, ok := a.Attr().(interpreter.NamespacedAttribute)
	if !ok || len(attribute.Qualifiers()) > 0 || len(attribute.CandidateVariableNames()) != 1 {
		return of, nil
	}
	name := attribute.CandidateVariableNames()[0]
	if slot, ok := slots()[name]; ok {
		return &known{of, slot, ""}, nil
	}
	return &known{of, 0, name}, nil
}
