package detectors

import (
	"fmt"
	"time"
)

// PenaltyConfig sets up a [Penalty]. The zero value is a good one, without a
// learning window.
type PenaltyConfig struct {
	LearningUntil time.Time // installation time plus 24 h; see [SequentialConfig]
	CreditCap     float64   // points that successes may take off one source per 12 h; 0: 100
	Sources       int       // sources kept; 0: 1,048,576
	Accounts      int       // accounts whose credit is kept; 0: 262,144
}

// Penalty is the decayed penalty of a source from StopGuessing (Tian, Herley,
// Schechter, EuroS&P 2019; the numbers are the defaults of the authors' code).
//
// It sees failed attempts that a backend evaluated: 1 point each, 2 when the
// name belongs to no account the gate knows (outside the learning window, in
// which it knows none), 5 times that when the password is one that many failures
// shared lately, a tenth when it is a known typo, nothing when the same wrong
// password is tried again or the device completed a login on the account. Half
// of the points are gone after 12 h.
//
// A success gives back what typos of the same name cost, but for a tenth, and
// takes off up to 30 points more, up to 50 per account and half-life. As in
// [Sequential] only an account a day old or a trusted device can do that, and no
// source is forgiven more than CreditCap points per half-life, however many
// accounts vouch for it, the learning window apart.
//
// It keeps per source the points, the credit used and the last 4 failures that
// could turn out to be typos; about 110 bytes a source with a failure, 170 with four. At
// most Sources sources are kept; idle ones and those below 10 points go first.
// Of accounts it keeps the credit they gave, at most Accounts of them; the
// credit of one that was pushed out starts anew.
//
// It says [Signal] source.penalty; a signal that is not said is 0.
//
// It accepts this false positive: a busy address whose newcomers mistype a lot
// collects points that its regulars, on their own devices, do not take off fast
// enough. The points alone flag nothing; compare them with a generous limit.
type Penalty struct {
	config   PenaltyConfig
	sources  *table[sourceKey, penaltyState]
	accounts *table[uint64, float64] // credit given, decayed to the account's last event
}

type penaltyState struct {
	points float64
	used   float64
	recent []mistake // at most recentMistakes, oldest first
}

// mistake is a failure that its name's next success may explain.
type mistake struct {
	name   uint64
	at     uint32 // minute
	points float32
}

const (
	noAccountPoints  = 2
	wrongPoints      = 1
	popularFactor    = 5
	popularHeight    = 44
	typoFactor       = 0.1
	recentMistakes   = 4
	successCredit    = 30
	accountCredit    = 50
	heavyPoints      = 10
	negligiblePoints = 0.01
)

// NewPenalty returns a detector that has seen nothing.
func NewPenalty(c PenaltyConfig) *Penalty {
	if c.CreditCap <= 0 {
		c.CreditCap = 100
	}
	if c.Sources <= 0 {
		c.Sources = defaultSources
	}
	if c.Accounts <= 0 {
		c.Accounts = defaultAccounts
	}
	p := &Penalty{
		config: c,
		sources: newTable[sourceKey](c.Sources, 8*halfLife,
			func(v *penaltyState) bool { return v.points >= heavyPoints }, nil),
		accounts: newTable[uint64](c.Accounts, 8*halfLife,
			func(v *float64) bool { return *v >= successCredit }, nil),
	}
	p.sources.form = form[sourceKey, penaltyState]{writePenalty, readPenalty}
	p.accounts.form = form[uint64, float64]{writeCredit, readCredit}
	return p
}

// Signals implements [Detector].
func (p *Penalty) Signals() []Description {
	return []Description{{Name: "source.penalty", Unit: "points",
		Meaning: "failed attempts from the source network, weighted by how little they look like a person's, halved every 12 h"}}
}

// Assess tells the standing of e's source before e, or after it when e was
// observed already.
func (p *Penalty) Assess(e Event) []Signal { return p.assess(&e) }

func (p *Penalty) assess(e *Event) []Signal {
	v, idle := p.sources.find(keyOf(e.Source), e.Time)
	if v == nil {
		return nil
	}
	points := decayed(v.points, idle)
	if points < negligiblePoints {
		return nil
	}
	s := Signal{Name: "source.penalty", Value: points}
	if points >= heavyPoints {
		s.Why = fmt.Sprintf("%s collected %.0f points by failed attempts of the last days", sourceName(e.Source), points)
	}
	return []Signal{s}
}

// Observe implements [Detector].
func (p *Penalty) Observe(e Event) { p.observe(&e) }

func (p *Penalty) observe(e *Event) {
	if !counted(e) {
		return
	}
	if e.Outcome == Success {
		p.forgive(e)
		return
	}
	if e.Device.Known() || e.Password.Repeat {
		return
	}
	points := float64(wrongPoints)
	if e.Account == "" && !learning(e, p.config.LearningUntil) {
		points = noAccountPoints
	}
	if e.Password.Popularity >= popularHeight {
		points *= popularFactor
	}
	if e.Password.Typo {
		points *= typoFactor
	}
	v, idle := p.sources.take(keyOf(e.Source), e.Time)
	v.points, v.used = decayed(v.points, idle)+points, decayed(v.used, idle)
	if e.Password.Typo {
		return // nothing more to give back
	}
	m := mistake{nameHash(e), minuteOf(e.Time), float32(points)}
	if len(v.recent) < recentMistakes {
		v.recent = append(v.recent, m)
		return
	}
	copy(v.recent, v.recent[1:])
	v.recent[recentMistakes-1] = m
}

// forgive learns the success e.
func (p *Penalty) forgive(e *Event) {
	key := keyOf(e.Source)
	if v, _ := p.sources.find(key, e.Time); v == nil {
		return // nothing to forgive, and no reason to remember the source
	}
	v, idle := p.sources.take(key, e.Time)
	v.points, v.used = decayed(v.points, idle), decayed(v.used, idle)
	if e.Password.Typo {
		p.refund(v, e)
	}
	if v.points < negligiblePoints || !vouches(e, p.config.LearningUntil) {
		return
	}
	credit := min(v.points, successCredit)
	if !learning(e, p.config.LearningUntil) {
		credit = max(0, min(credit, p.config.CreditCap-v.used))
	}
	given, since := p.accounts.take(accountHash(e), e.Time)
	*given = decayed(*given, since)
	credit = max(0, min(credit, accountCredit-*given))
	*given += credit
	v.points -= credit
	if !learning(e, p.config.LearningUntil) {
		v.used += credit
	}
}

// refund gives back what typos of e's name cost, but for a tenth.
func (p *Penalty) refund(v *penaltyState, e *Event) {
	name, minute := nameHash(e), minuteOf(e.Time)
	kept := v.recent[:0]
	for _, m := range v.recent {
		if m.name != name {
			kept = append(kept, m)
			continue
		}
		ago := time.Duration((minute-m.at)&minuteMask) * time.Minute
		v.points -= (1 - typoFactor) * decayed(float64(m.points), ago)
	}
	v.recent = kept
	v.points = max(0, v.points)
}
