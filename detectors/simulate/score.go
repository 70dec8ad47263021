package simulate

// Score is what a pass came to. Everything in it was counted on the wire.
type Score struct {
	Attack Attack `json:"attack"`
	Benign Benign `json:"benign"`
}

// Attack is what the list attack got.
type Attack struct {
	// Attempts are the pairs that were answered, by whomever.
	Attempts int `json:"attempts"`
	// ReachedBackend are the attempts that the backend got to see.
	ReachedBackend int `json:"reached_backend"`
	// AccountsLost are the accounts whose session still opens /v2/me to the thief
	// at the end.
	AccountsLost int `json:"accounts_lost"`
	// FirstAction is how many attempts had been answered when the first one was
	// answered by the gate; nil: none ever was.
	FirstAction *int `json:"first_action_after_attempts"`
}

// Benign is what the office met.
type Benign struct {
	// Logins are the log-ins with the right password that were answered.
	Logins int `json:"logins"`
	// Refused are the answers that turned somebody away, whatever was typed, and
	// the log-ins with the right password that came to nothing: no answer, a
	// server's error, a session that does not open /v2/me.
	Refused int `json:"refused"`
	// SteppedUp are the answers that asked for further proof.
	SteppedUp int `json:"stepped_up"`
	// DelayedOver1s are the log-ins with the right password whose answer took over
	// a second from the request's last byte to its own.
	DelayedOver1s int `json:"delayed_over_1s"`
	// Deceived are the right passwords that were answered as wrong ones.
	Deceived int `json:"deceived"`
}

// Join sums up passes through the same gate: of the attack the worst of each
// figure, because it only has to work once; of the office the sum. No action at
// all is worse than any.
func Join(passes ...Score) Score {
	var all Score
	for i, p := range passes {
		a := &all.Attack
		a.Attempts = max(a.Attempts, p.Attack.Attempts)
		a.ReachedBackend = max(a.ReachedBackend, p.Attack.ReachedBackend)
		a.AccountsLost = max(a.AccountsLost, p.Attack.AccountsLost)
		switch first := p.Attack.FirstAction; {
		case first == nil:
			a.FirstAction = nil
		case i == 0 || a.FirstAction != nil && *first > *a.FirstAction:
			n := *first
			a.FirstAction = &n
		}
		b := &all.Benign
		b.Logins += p.Benign.Logins
		b.Refused += p.Benign.Refused
		b.SteppedUp += p.Benign.SteppedUp
		b.DelayedOver1s += p.Benign.DelayedOver1s
		b.Deceived += p.Benign.Deceived
	}
	return all
}
