package auth

import "time"

// charge notes an attempt at f that has not succeeded yet.
func (fs *Factors) charge(f *factor, now time.Time) {
	f.Failures = min(f.Failures+1, failuresMax)
	switch {
	case f.Kind == Key:
	case f.Failures >= fs.cfg.Cap:
		f.State, f.Disabled, f.DisabledBy, f.NextAttempt = FactorDisabled, now, byThrottle, time.Time{}
	case f.Failures >= slowFrom:
		delay := fs.cfg.FirstDelay
		for n := f.Failures; n > slowFrom && delay < fs.cfg.MaxDelay; n-- {
			delay *= 2
		}
		f.NextAttempt = now.Add(min(delay, fs.cfg.MaxDelay))
	}
}

// blame tells the owner of a failure that was charged.
func (fs *Factors) blame(o *owned, f *factor, by string, now time.Time) (told []FactorNotice) {
	switch {
	case f.mustRebind():
		told = append(told, o.tell(FactorThrottled, f, by, now))
	case f.Failures == slowFrom:
		told = append(told, o.tell(FactorGuessed, f, by, now))
	}
	return told
}

// succeed notes a success with f, which sets the count back.
func (f *factor) succeed(now time.Time) {
	f.Failures, f.NextAttempt, f.Used = 0, time.Time{}, now
	if f.State == FactorDisabled { // by the charge for this attempt
		f.State, f.Disabled, f.DisabledBy = FactorActive, time.Time{}, ""
	}
}

// AttemptOutcome is what came of an attempt: for the record and for detectors. Whoever
// made it must not be told more than [ErrWrongCode].
type AttemptOutcome string

const (
	AttemptAccepted  AttemptOutcome = "accepted"
	AttemptWrong     AttemptOutcome = "wrong"
	AttemptReplayed  AttemptOutcome = "replayed"  // a right code that was used: it was seen by somebody else
	AttemptWaiting   AttemptOutcome = "waiting"   // not looked at, for the failures before it
	AttemptNone      AttemptOutcome = "none"      // no active authenticator of the kind, or not of the account
	AttemptCloned    AttemptOutcome = "cloned"    // a right signature, but the counter went back
	AttemptChallenge AttemptOutcome = "challenge" // not what we asked to sign, or not for this, or too late
)

// Attempt is what came of an attempt.
type Attempt struct {
	Outcome      AttemptOutcome
	Factor       Factor         // that was accepted; else the one that was tried, if it is known which
	Notices      []FactorNotice // for the owner
	UserVerified bool           // a key asked for a PIN, a finger or a face: two factors in one
	Synced       bool           // a key that may exist on several devices (SP 800-63B-4 appendix B)
}
