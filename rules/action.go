package rules

import "fmt"

// Action is what to do with a request, ordered by strictness. The zero value allows.
type Action uint8

const (
	Allow   Action = iota
	Delay          // answer later; the answer itself is unchanged
	StepUp         // ask for the best proof the account has; without one, refuse with a reference code
	Refuse         // answer instead of the backend
	Deceive        // answer a suspicious success as the backend answers a failure; needs attack evidence
)

var actionNames = [...]string{"allow", "delay", "step_up", "refuse", "deceive"}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// ParseAction reads what String writes.
func ParseAction(s string) (Action, error) {
	for i, n := range actionNames {
		if s == n {
			return Action(i), nil
		}
	}
	return Allow, fmt.Errorf("unknown action %q: want one of allow, delay, step_up, refuse, deceive", s)
}

// MarshalText implements encoding.TextMarshaler.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Action) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAction(string(text))
	return err
}

// Mode is how far a rule, a decision or a control of the gate may act.
type Mode string

const (
	Enforce Mode = "enforce"
	Shadow  Mode = "shadow" // computed and reported, never acted on
)
