package guard

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/attempt"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Rules are asked at stages. Those of log-ins are in login.go. At request and message
// they are asked before the backend is, with what was counted before; at factor and
// session when it happened and was counted. A stage at which no rule is asked costs a
// look at the set. What a rule decides lasts at every stage; what it answers is for the
// request at hand, and there is none where a session was ended or an operator acted.

// countedRules is how the ledger names what rules answer at the stages beside log-ins.
const countedRules Control = "rules"

// concluded lets the rules of a stage conclude of what was published, and does what they
// would have last. The findings are for an answer.
func (c *Core) concluded(ctx context.Context, stage rules.Stage, e detectors.Event, m means) (found []rules.Finding, signals []detectors.Signal) {
	set := c.Rules.Load()
	if set == nil || !set.Asks(stage) { // operators may act before the rules are there
		return nil, nil
	}
	signals = c.Detectors.Assess(e)
	found = c.evaluate(stage, e, signals, m)
	c.carryOut(ctx, found, e, c.Now())
	return found, signals
}

// foreseen asks the rules of a stage about what is going to happen, and does what they
// would have last.
func (v *visit) foreseen(stage rules.Stage, e detectors.Event, m means) policies.Verdict {
	g := v.guard
	e = g.facts(e)
	signals := g.Detectors.Assess(e)
	found := g.evaluate(stage, e, signals, m)
	v.register(found, e)
	return v.ruling(found, signals)
}

// means are [policies.Means], but for what is the same about every request.
type means struct {
	refuse   bool
	stepUp   func() bool
	deceive  func() bool
	policies bool
}

// loginMeans are those of a login.
func (v *visit) loginMeans() means {
	return means{refuse: true, policies: true, stepUp: v.canHold, deceive: func() bool {
		return (&refusal{failure: v.guard.backend.Login.Failure}).deceives(v.r)
	}}
}

// feasible puts what a rule declares for the case in the place of actions that cannot be
// done, and says so in the finding and in the log.
func (c *Core) feasible(f rules.Finding, signals []detectors.Signal, m means) rules.Finding {
	can := policies.Means{Refuse: m.refuse, StepUp: m.stepUp, Deceive: m.deceive, Factors: c.Factors != nil, Policies: m.policies}
	return can.Feasible(f, signals, func(action, instead rules.Action) {
		c.complain("an action of a rule cannot be done, and falls back", "rule", string(f.Rule), "action", action.String(), "instead", instead.String())
	})
}

// ruling is what the findings of a stage beside log-ins answer. What they only would is
// counted.
func (v *visit) ruling(found []rules.Finding, signals []detectors.Signal) policies.Verdict {
	if len(found) == 0 {
		return policies.Verdict{}
	}
	answer, would := v.answersOf(found, signals)
	if would.Action > answer.Action {
		v.count(countedRules, would, true, v.session != nil)
	}
	if v.guard.modes.decisions {
		if answer.Action != rules.Allow {
			v.count(countedRules, answer, true, v.session != nil)
		}
		return policies.Verdict{}
	}
	return answer
}

// obey does what rules answered to a request that goes to the backend next, and reports
// whether that was all: done is false where the request goes on.
func (g *Guard) obey(w http.ResponseWriter, v *visit, x policies.Verdict) (done bool, err error) {
	switch x.Action {
	case rules.Allow:
		return false, nil
	case rules.Delay:
		v.count(countedRules, x, false, v.session != nil)
		v.wait(x.Delay)
		return false, nil
	case rules.StepUp:
		if v.fresh(v.session) {
			return false, nil // given already, and lately
		}
		v.count(countedRules, x, false, true)
		return true, g.askFactor(w, v)
	}
	return true, v.refuse(countedRules, x).write(w, v.r)
}

// canProve reports whether who is in has a factor that can be asked for.
func (v *visit) canProve() bool {
	if v.session == nil || !v.canHold() {
		return false
	}
	factors, err := v.guard.Factors.List(v.r.Context(), v.session.Subject)
	if err != nil {
		v.guard.complain("second factors", "error", err)
		return false
	}
	return len(factors) > 0
}

// serveMessage asks the rules of stage message about a request that sends one. done is
// false if it goes on. Messages are counted while some rule is asked about them, and by
// then only: they are many.
func (g *Guard) serveMessage(w http.ResponseWriter, v *visit) (done bool, err error) {
	if !v.sends() || !g.Rules.Load().Asks(rules.Message) {
		return false, nil
	}
	e := v.message()
	x := v.foreseen(rules.Message, e, means{refuse: true, stepUp: v.canProve})
	if done, err = g.obey(w, v, x); done {
		e.Outcome, e.Reason = detectors.Refused, string(policies.ReasonRule)
	}
	g.publish(e)
	return done, err
}

// sends reports whether the request sends a message as some backend may read it.
func (v *visit) sends() bool {
	if v.class == detectors.MessageRoute {
		return !v.safe()
	}
	return v.method != v.r.Method && v.guard.backend.Class(v.r.Method, v.path) == detectors.MessageRoute
}

// message is the event of a message that is about to be sent.
func (v *visit) message() detectors.Event {
	e := detectors.Event{
		Time: v.now, Kind: detectors.Message, Source: v.source, Client: v.client(), Route: detectors.MessageRoute,
		Outcome: detectors.Unknown, Ambiguous: v.ambiguous, Size: max(v.r.ContentLength, 0), Targets: v.recipients(),
	}
	e.Fingerprint = e.Client.Fingerprint()
	if v.session != nil {
		v.of(&e, v.session)
	}
	return e
}

// of says of e whose session it is about, and by what device.
func (v *visit) of(e *detectors.Event, s *auth.Session) {
	e.Account, e.Organization, e.Session = detectors.Account(s.Subject), detectors.Organization(s.Organization), s.ID
	p, known, err := v.guard.Directory.BySubject(v.r.Context(), s.Subject)
	if err == nil && known {
		e.AccountSince = p.FirstSeen
	}
	v.guard.place(e, p.TimeZone)
	if device, err := v.device(s.Subject); err == nil {
		e.Device = device
	}
}

// recipients is how many a message goes to, where the preset says where they are named;
// 0: not known, as of a body that is longer than what is read. Of very many the first are
// counted.
func (v *visit) recipients() int {
	form := v.guard.backend.Requests[detectors.MessageRoute]
	fields := slices.Concat(form.Target.Form, form.Target.JSON)
	if len(fields) == 0 {
		return 0
	}
	at, err := attempt.Reader{NameFields: fields, MaxBody: v.guard.reader.MaxBody}.Read(v.r)
	if err != nil && !errors.Is(err, attempt.ErrTooMany) { // of too many the first are given
		v.guard.Log.Debug("reading whom a message goes to", "error", err)
		return 0
	}
	n := 0
	for _, p := range at.Pairs {
		n += len(strings.FieldsFunc(p.Name, between))
	}
	return n
}
