package dry

import (
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/rules"
)

// Simulated is a gate as simulations see it.
type Simulated struct{ *Gate }

var actions = map[rules.Action]simulate.Action{
	rules.Allow: simulate.Allow, rules.Delay: simulate.Delay, rules.StepUp: simulate.StepUp, rules.Refuse: simulate.Refuse, rules.Deceive: simulate.Deceive,
}

// Before implements [simulate.Defense].
func (s Simulated) Before(e *detectors.Event) simulate.Action {
	return actions[s.Gate.Before(e).Action]
}

// After implements [simulate.Defense].
func (s Simulated) After(e *detectors.Event) simulate.Action { return actions[s.Gate.After(e).Action] }

// Proved implements [simulate.Defense].
func (s Simulated) Proved(e *detectors.Event) { s.Gate.Learn(e) }

// Alarms implements [simulate.Defense].
func (s Simulated) Alarms(now time.Time) (strata []string) {
	for _, a := range s.Gate.Alarms(now) {
		strata = append(strata, a.Stratum)
	}
	return strata
}
