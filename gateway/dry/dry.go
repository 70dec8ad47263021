// Package dry is the gate without a network: the detectors, rules, decisions, login
// limits and policy that ship, in the time of events, for simulations and for logs that
// are read again. They are asked in the order in which package guard asks them; what is
// missing here is the backend, which the caller plays.
package dry

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Config sets up a [Gate]. The zero value is what ships, of an installation that has
// known its accounts for long.
type Config struct {
	// Rules are read instead of the shipped ones; their files are *.yaml at its root.
	Rules fs.FS
	// Set is used instead of Rules: its rules, and none of its counts.
	Set *rules.Set
	// Policies has policy.yaml, read over the shipped one; nil: the shipped one.
	Policies fs.FS
	// Backend is the preset, which says where nobody can be deceived; nil: everywhere one
	// can. See [policies.MeansOf].
	Backend *policies.Backend
	// LearningUntil is the end of the learning window, as for [detectors.Default].
	LearningUntil time.Time
}

// A decision is extended when a 60th of its length has passed, as policies do; so many
// are remembered for it.
const (
	coalesce      = 60
	registeredMax = 1 << 20
)

// Gate judges log-ins, and what else happens at a gate. It is not safe for concurrent use. Times of events may not go
// back by more than a second.
type Gate struct {
	detectors *detectors.Set
	rules     *rules.Set
	decisions *policies.Decisions
	attempts  *limits.Attempts
	backend   *policies.Backend
	buckets   limits.LoginBucketSet
	delay     time.Duration
	ticket    limits.Ticket // of the attempt that is under way
	swept     time.Time
	sequence  uint64

	registered map[string]time.Time // when a rule decided on a subject last
	grounds    *grounds             // nil: nobody asks for them
}

// New returns a gate that has seen nothing. The error tells every fault of the rules.
func New(c Config) (*Gate, error) {
	set := c.Set
	if set == nil {
		if c.Rules == nil {
			c.Rules = rules.Shipped
		}
		var faults []error
		if set, faults = rules.Load(c.Rules); len(faults) > 0 {
			return nil, fmt.Errorf("loading the rules: %w", errors.Join(faults...))
		}
	}
	policy, err := policies.LoadPolicy(c.Policies)
	if err != nil {
		return nil, err
	}
	decisions, err := policies.OpenDecisions(context.Background(), policies.NewMemoryStore(), time.Unix(0, 0))
	if err != nil {
		return nil, err
	}
	bucket := func(name string, a policies.Allowance) limits.Bucket {
		return limits.Bucket{Name: name, Every: a.Every, Burst: a.Burst}
	}
	return &Gate{
		detectors: detectors.Default(c.LearningUntil), rules: set.Fresh(), decisions: decisions, attempts: limits.NewAttempts(0), backend: c.Backend,
		buckets: limits.LoginBucketSet{
			Network: bucket("network", policy.Attempts.Network), Name: bucket("name", policy.Attempts.Name), Device: bucket("device", policy.Attempts.Device),
		},
		delay: policy.Delay, registered: map[string]time.Time{},
	}, nil
}

// before are the stages at which rules are asked about what is going to happen, by kind.
var before = map[detectors.Kind]rules.Stage{
	detectors.Login: rules.LoginBefore, detectors.Request: rules.Request, detectors.Message: rules.Message,
}

// after are those about what happened and was counted.
var after = map[detectors.Kind]rules.Stage{
	detectors.Login: rules.LoginAfter, detectors.Door: rules.LoginAfter, detectors.Factor: rules.Factor,
	detectors.Session: rules.Session, detectors.Operator: rules.Request,
}

// Before judges an attempt, a request or a message whose outcome is not known yet, and
// fills in what the gate knows of it. Of other kinds it says nothing: they happen before
// anybody is asked. After a refusal the backend is not asked: call After with Outcome
// Refused. A step-up is answered alike whether the password is right; so is the attempt's
// outcome to be told to After.
func (g *Gate) Before(e *detectors.Event) policies.Verdict {
	g.prepare(e)
	g.grounds.begin()
	g.ticket = limits.Ticket{}
	stage, ok := before[e.Kind]
	if !ok {
		return policies.Verdict{}
	}
	e.Outcome = detectors.Unknown
	*e = g.detectors.Facts(*e)
	verdict := g.ask(stage, e)
	if e.Kind != detectors.Login {
		return verdict
	}
	if verdict.Action <= rules.StepUp {
		ticket, d := g.attempts.Take(context.Background(), e.Time, g.charges(e, verdict.Action == rules.StepUp))
		if g.ticket = ticket; !d.Allowed {
			verdict = verdict.Stricter(policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: e.Time.Add(d.RetryAfter)})
		}
	}
	return verdict
}

// After learns what happened, of an attempt how that of the last Before ended, and judges
// it once more. Nobody is answered where a login failed, a session ended or an operator
// acted.
func (g *Gate) After(e *detectors.Event) policies.Verdict {
	g.Learn(e)
	stage, ok := after[e.Kind]
	if !ok {
		return policies.Verdict{}
	}
	verdict := g.ask(stage, e)
	switch {
	case e.Kind == detectors.Login || e.Kind == detectors.Door:
		if e.Outcome != detectors.Success {
			return policies.Verdict{}
		}
		g.attempts.Refund(context.Background(), g.ticket)
	case e.Kind == detectors.Operator, e.Act == detectors.Ended:
		return policies.Verdict{}
	}
	return verdict
}

// ask asks the rules of a stage about e, does what they would have last, and returns what
// they and the live decisions answer. Of decisions on what is no login only refusals count.
func (g *Gate) ask(stage rules.Stage, e *detectors.Event) policies.Verdict {
	var verdict policies.Verdict
	if g.rules.Asks(stage) {
		signals := g.detectors.Assess(*e)
		found := g.rules.Evaluate(stage, *e, signals)
		if len(found) > 0 {
			can := policies.MeansOf(stage, e, g.backend)
			for i := range found {
				found[i] = can.Feasible(found[i], signals, func(_, _ rules.Action) {})
			}
		}
		g.grounds.asked(stage, e, signals, found)
		g.register(found, e)
		verdict, _ = policies.AnswerOf(found, signals)
	}
	decided := g.match(e)
	if decided.Action < rules.Refuse && stage != rules.LoginBefore && stage != rules.LoginAfter {
		return verdict
	}
	return verdict.Stricter(decided)
}

// Learn takes in what happened before, without judging it.
func (g *Gate) Learn(e *detectors.Event) {
	g.prepare(e)
	known := e.History
	if *e = g.detectors.Facts(*e); e.Act == detectors.Begun && known != (detectors.History{}) {
		e.History = known // as of before the log-in, which is known by now
	}
	g.observe(e)
}

// Alarms lists the campaign alarms that are on.
func (g *Gate) Alarms(now time.Time) []detectors.Alarm { return g.detectors.Alarms(now) }

func (g *Gate) observe(e *detectors.Event) {
	g.detectors.Observe(*e)
	g.rules.Observe(*e)
}

// prepare completes what the stream would have.
func (g *Gate) prepare(e *detectors.Event) {
	if e.Key == (detectors.EventKey{}) {
		g.sequence++
		e.Key = detectors.EventKey{Node: "dry", Incarnation: 1, Sequence: g.sequence}
	}
	if e.Kind == "" {
		e.Kind = detectors.Login
	}
	if e.Fingerprint == "" {
		e.Fingerprint = e.Client.Fingerprint()
	}
	if !e.Source.Network.IsValid() && e.Source.Address.IsValid() {
		e.Source.Network = detectors.CountingNetwork(e.Source.Address)
	}
	e.StreamTime = e.Time
	if e.Time.Sub(g.swept) > 10*time.Minute {
		g.swept = e.Time
		_, _ = g.decisions.Sweep(context.Background(), e.Time) // the store is memory
	}
}

func (g *Gate) match(e *detectors.Event) policies.Verdict {
	d, _ := g.decisions.Match(policies.Subject{
		Address: e.Source.Address, ASN: e.Source.ASN, Country: e.Source.Country, Fingerprint: e.Fingerprint,
		Account: string(e.Account), Device: e.Device.ID, OwnDevice: e.Device.Known(),
	}, e.Time)
	if d.ID == "" || d.Action == rules.Allow {
		return policies.Verdict{}
	}
	g.grounds.decided(d.Rule)
	v := policies.Verdict{Action: d.Action, Reason: policies.ReasonDecision, Rule: d.Rule, Decision: d.ID, Until: d.Until}
	if d.Action == rules.Delay {
		v.Delay = g.delay
	}
	return v
}

func (g *Gate) register(found []rules.Finding, e *detectors.Event) {
	for _, f := range found {
		for _, d := range policies.DecisionsOf(f, *e) {
			key := string(d.Rule) + " " + string(d.Scope) + " " + d.Value
			if at, ok := g.registered[key]; ok && e.Time.Sub(at) < d.Until.Sub(e.Time)/coalesce {
				continue
			}
			if len(g.registered) > registeredMax {
				clear(g.registered)
			}
			g.registered[key] = e.Time
			// What cannot be kept is held off, or one too many; neither happens here for long.
			_, _ = g.decisions.Register(context.Background(), d, e.Time)
		}
	}
}

// charges are those of package guard.
func (g *Gate) charges(e *detectors.Event, stepUp bool) []limits.AttemptCharge {
	if e.Device.Known() {
		return []limits.AttemptCharge{{Bucket: &g.buckets.Device, Key: key(e.Device.ID), N: 1}}
	}
	charges := make([]limits.AttemptCharge, 0, 2)
	if e.Source.Address.IsValid() {
		charges = append(charges, limits.AttemptCharge{Bucket: &g.buckets.Network, Key: e.Source.Network.Addr().As16(), N: 1})
	}
	if !e.Name.Digest.IsZero() && (!e.Password.Repeat || stepUp) {
		charges = append(charges, limits.AttemptCharge{Bucket: &g.buckets.Name, Key: e.Name.Digest, N: 1})
	}
	return charges
}

// key spreads a short text over the key of a bucket.
func key(text string) (k [16]byte) {
	h := [2]uint64{14695981039346656037, 1099511628211}
	for i := range len(text) {
		h[0] = (h[0] ^ uint64(text[i])) * 1099511628211
		h[1] = (h[1] + uint64(text[i])) * 6364136223846793005
	}
	binary.BigEndian.PutUint64(k[:8], h[0])
	binary.BigEndian.PutUint64(k[8:], h[1])
	return k
}
