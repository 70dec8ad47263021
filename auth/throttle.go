package auth

import "time"

// # Throttling, by the letter of SP 800-63B-4 section 3.2.2
//
// Failures in a row are counted for each authenticator of an account, in SQL and in
// the transaction that compares: an attempt is charged before it is looked at, so
// attempts that run at the same time, on whatever nodes, do not get more of them
// than one after the other. From the fifth on each failure is followed by a time in
// which no attempt is looked at, nor counted: 30 s, doubled each time up to 1 h. At
// the cap, 20 by default and never above 100, the authenticator is disabled and has
// to be bound anew; the account is not, and its other authenticators go on. A
// success sets the count back, and nothing else does.
//
// # What guessing is worth
//
// Of the 10^6 codes of TOTP two are good at a time, one with StrictTOTP: a guess
// succeeds with p = 2*10^-6, and before the authenticator is disabled with
//
//	20 failures, the default    4.0*10^-5    1 in 25,000     strict: half of it
//	100 failures, the most      2.0*10^-4    1 in  5,000
//
// for whoever has the right password already: nobody else gets to guess. Since the
// owner's own success sets the count back, a patient thief has 19 guesses between
// two of them; the delays make those last at least 9 h, so a year brings at most
// some 17,500 guesses: 3.4 %. That is why the owner is told at the fifth failure in
// a row, and why a key is better. Recovery codes have 128 bits: 100 guesses at ten
// of them succeed with 3*10^-36.
//
// Keys are not guessed, since a signature is no secret that somebody types; section
// 3.2.2 asks for limits where section 3.1 says so, and it does not for them. Their
// failures are counted for the owner to see, but delay and disable nothing: it would
// only let a thief of the password take the owner's best factor away.

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
