package rules

import (
	"cel.dev/cel-go/common/types"

	"github.com/kidoban/kidoban/detectors"
)

// Numbers tells visit every number that the conditions of a stage's rules name, as
// [Set.Evaluate] would see it: of the event, of counters and of signals. It changes no
// count. Thresholds are held against it.
func (s *Set) Numbers(stage Stage, e detectors.Event, signals []detectors.Signal, visit func(rule ID, name string, value float64)) {
	f := newFacts(&e, signals, s.order)
	defer f.release()
	for _, r := range s.rules {
		if r.On != stage {
			continue
		}
		f.rule = r
		for _, name := range r.when.names {
			v, ok := f.ResolveName(name)
			if !ok {
				continue
			}
			switch v := v.(type) {
			case types.Int:
				visit(r.ID, name, float64(v))
			case types.Double:
				visit(r.ID, name, float64(v))
			}
		}
	}
}
