package detectors

import (
	"fmt"
	"math"
	"time"
)

// SequentialConfig sets up a [Sequential]. The zero value is a good one, without
// a learning window.
type SequentialConfig struct {
	LearningUntil time.Time // installation time plus 24 h; before it every success vouches for its source, and without cap
	CreditCap     float64   // nats that successes may take off one source's ratio per 12 h, where fewer than 20 times as many accounts log in; 0: 100
	Sources       int       // sources kept; 0: 1,048,576
}

// Sequential is Wald's sequential test for one source, as threshold random walk
// (Jung et al., "Fast Portscan Detection Using Sequential Hypothesis Testing",
// 2004) uses it.
//
// It sees attempts that a backend evaluated: the first outcome of every
// different name from a source. An attack fails with 99 names in 100, people
// with 30 in 100 (50 where many share the address); the logarithm of the
// likelihood ratio rises by 1.19 (0.68) with a name that failed and falls by 4.25
// (3.91) with an account that succeeded. At 9.20 the source is flagged: an
// innocent source gets there with a probability of 1 in 10,000, an attack after 8
// (14) straight failures. A success after a failure of the same name takes that
// failure back, whatever the account's age (nobody gains by it), and counts as a
// success besides. Attempts from a device that completed a login on the account do not
// add failures; they are that device's affair.
//
// Successes must not be for sale. Each account counts once per 12 h and source;
// accounts younger than a day count only from a trusted device; and what
// successes really took off the ratio is capped at CreditCap nats per source, of
// which half comes back in 12 h: 84 attempts more for whoever owns that many old
// accounts. Only where more than 2,000 accounts log in within 12 h there is more, a nat
// for 20 of them. Because the ratio stops at 0 and people who mistype take
// their own failures back, an office uses next to nothing of the cap, however
// many work there. In
// the learning window neither age nor cap applies.
//
// What is normal differs, and the gate learns it: a network that at least 10 accounts
// log in from (source.capacity) is an office, a campus or a carrier, where one log-in
// in 20 fails for reasons of a stranger (a wrong name, a visitor) and in an attack one
// in 5. There a failure adds 1.39, a success takes 0.17 off, and what people who log in
// from there are used to doing wrong does not count at all.
//
// It keeps per source the ratio, two counts, the credit used and the names and
// accounts of the last 12 h (memory): 2 of them inline, more from a budget of
// 4,194,304 for all sources. At most Sources sources (about 110 bytes each) are
// kept; when full, one of a sample that is idle or has a ratio below half the
// limit goes first. A source idle for 12 h starts again from 0.
//
// It says [Signal]s source.sequential and source.flagged; a signal that is not
// said is 0.
//
// It accepts this false positive: a network whose people all fail with eight
// different names before anybody succeeds from a known device or an old account,
// as after a migration that invalidated everybody's password.
type Sequential struct {
	*walker
	config SequentialConfig
}

const (
	theta1 = 0.99 // share of names that fail in an attack
	theta0 = 0.30 // share of names that fail at first, people
	alpha  = 1e-4 // innocent sources flagged
	beta   = 0.01 // attacks not flagged
	quiet  = 12 * time.Hour
)

// class is what is normal for a kind of subject, and what an attack is.
type class struct{ failure, success float64 } // nats that one of each adds, and takes off

func newClass(attack, normal float64) class {
	return class{math.Log(attack / normal), math.Log((1 - normal) / (1 - attack))}
}

var (
	people = newClass(theta1, theta0)
	shared = newClass(theta1, 0.50) // an address that is known to be shared, of which more is not known
	office = newClass(0.20, 0.05)   // of strangers' failures among all that its people do
)

// Salts keep a name, an account and an account known by name only apart.
const (
	nameSalt = iota + 1
	accountSalt
	unnamedSalt
	clientSalt
	memberSalt
)

var sequentialLimit = math.Log((1 - beta) / alpha)

// NewSequential returns a detector that has seen nothing.
func NewSequential(c SequentialConfig) *Sequential {
	if c.CreditCap <= 0 {
		c.CreditCap = 100
	}
	if c.Sources <= 0 {
		c.Sources = defaultSources
	}
	return &Sequential{walker: newWalker(c.Sources, c.CreditCap, c.LearningUntil), config: c}
}

// Signals implements [Detector].
func (s *Sequential) Signals() []Description {
	return []Description{
		{Name: "source.sequential", Unit: "nats", Max: math.Round(sequentialLimit + creditRoom),
			Meaning: "log-likelihood ratio of an attack against people, from the first outcome of each name tried from the source network; 9.2 flags it"},
		{Name: "source.flagged", Unit: "0 or 1", Max: 1,
			Meaning: "1 while source.sequential is at or above 9.2"},
	}
}

// Assess tells the standing of e's source before e, or after it when e was
// observed already.
func (s *Sequential) Assess(e Event) []Signal { return s.assess(&e) }

func (s *Sequential) assess(e *Event) []Signal {
	v := s.standing(keyOf(e.Source), e.Time)
	if v == nil {
		return nil
	}
	signals := make([]Signal, 2, 4) // with room for what the set appends
	signals[0], signals[1] = Signal{Name: "source.sequential", Value: v.ratio}, Signal{Name: "source.flagged"}
	if v.ratio >= sequentialLimit/2 {
		signals[0].Why = fmt.Sprintf("%d different names failed from %s, %d succeeded", v.failed, sourceName(e.Source), v.passed)
	}
	if v.ratio >= sequentialLimit {
		signals[1].Value, signals[1].Why = 1, signals[0].Why
	}
	return signals
}

// Observe implements [Detector].
func (s *Sequential) Observe(e Event) { s.observe(&e) }

func (s *Sequential) observe(e *Event) {
	c := people
	switch {
	case e.History.Capacity >= capacityCrowd:
		c = office
	case e.Source.Shared:
		c = shared
	}
	s.walk(keyOf(e.Source), e, c, 0)
}

// nameHash tells typed names apart. Attempts without a name count as one name.
func nameHash(e *Event) uint64 {
	if e.Name.Digest.IsZero() {
		return hash64(nameSalt, string(e.Account))
	}
	return hashDigest(nameSalt, e.Name.Digest)
}

// accountHash is by account where it is known: one account has many spellings.
func accountHash(e *Event) uint64 {
	if e.Account == "" {
		return unnamedHash(e)
	}
	return hash64(accountSalt, string(e.Account))
}

// unnamedHash stands for the account that e's name is of, where no more is known.
func unnamedHash(e *Event) uint64 { return hashDigest(unnamedSalt, e.Name.Digest) }
