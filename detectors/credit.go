package detectors

import (
	"math"
	"time"
)

// Values that the detectors of a source share.
const (
	halfLife        = 12 * time.Hour
	provenAfter     = 24 * time.Hour
	defaultSources  = 1 << 20
	defaultAccounts = 1 << 18
)

// counted reports whether e is an attempt that a backend evaluated. What the
// gate itself refused says nothing about the password.
func counted(e *Event) bool {
	return (e.Kind == Login || e.Kind == Door) && (e.Outcome == Success || e.Outcome == Failure)
}

// learning reports whether e falls into the window after installation in which
// the gate knows no account yet and therefore believes all of them.
func learning(e *Event, until time.Time) bool { return e.Time.Before(until) }

// vouches reports whether the success e may speak for its source. Whoever
// attacks owns accounts too and logs into them in between, so an account must be
// a day old at this gate, or the device trusted by that account; a source cannot
// buy itself good standing with accounts it opened this morning.
func vouches(e *Event, learningUntil time.Time) bool {
	return learning(e, learningUntil) ||
		e.Device.State == Trusted ||
		!e.AccountSince.IsZero() && e.Time.Sub(e.AccountSince) >= provenAfter
}

// decayed is what is left of x after d with a half-life of 12 h.
func decayed(x float64, d time.Duration) float64 {
	if x == 0 || d <= 0 {
		return x
	}
	return x * math.Exp2(-float64(d)/float64(halfLife))
}
