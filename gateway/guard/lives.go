package guard

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/time/rate"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// became returns what the rules of stage session answer to the request that brought
// about what was published of a session.
func (v *visit) became(e detectors.Event, m means) policies.Verdict {
	found, signals := v.guard.concluded(v.r.Context(), rules.Session, e, m)
	x := v.ruling(found, signals)
	if x.Action == rules.Delay {
		v.count(countedRules, x, false, v.session != nil)
		v.wait(x.Delay)
	}
	return x
}

// begunBy is the event of a session that the log-in e begins, with what was known before.
func begunBy(e detectors.Event, session string) detectors.Event {
	e.Key, e.Kind, e.Act, e.Session, e.Unproven = detectors.EventKey{}, detectors.Session, detectors.Begun, session, false
	e.Password, e.Size = detectors.PasswordFacts{}, 0
	return e
}

// beginMeans are those of a session that begins. Who proved more for it just now is not
// asked again.
func (v *visit) beginMeans(proved bool) means {
	return means{refuse: true, stepUp: func() bool { return proved || v.canHold() }}
}

// sessionEvent is what a request shows of itself for an event of a session.
func (v *visit) sessionEvent(o detectors.Outcome) detectors.Event {
	e := detectors.Event{Time: v.now, Kind: detectors.Session, Source: v.source, Client: v.client(), Route: v.class, Outcome: o, Ambiguous: v.ambiguous}
	e.Fingerprint = e.Client.Fingerprint()
	return e
}

// undo ends a session that rules refuse, and what the backend began with it. Without a
// refusal it is nil.
func (v *visit) undo(x policies.Verdict, s auth.Session, credentials []presented) *refusal {
	if x.Action != rules.Refuse {
		return nil
	}
	v.logOut(credentials)
	if err := v.endBegun(x, s); err != nil {
		return v.refuse(ControlSessions, unavailable)
	}
	return v.refuse(countedRules, x)
}

func (v *visit) endBegun(x policies.Verdict, s auth.Session) error {
	_, err := v.guard.endSession(context.WithoutCancel(v.r.Context()), s.ID, "rule:"+string(x.Rule), false)
	if errors.Is(err, auth.ErrSessionEnded) || errors.Is(err, auth.ErrNoSession) {
		return nil
	}
	if err != nil {
		v.guard.complain("ending a session that a rule refuses", "session", s.ID, "error", err)
	}
	return err
}

// holdAfterAll ends a session whose beginning a rule found to need more proof, before
// the client heard of it, and holds its login back until that is given.
func (v *visit) holdAfterAll(x policies.Verdict, c completion, e detectors.Event, s auth.Session) *refusal {
	g := v.guard
	v.count(countedLogin, x, false, e.Device.Known())
	if err := v.endBegun(x, s); err != nil {
		v.logOut(c.credentials)
		return v.refuse(ControlSessions, unavailable)
	}
	person, _, err := g.Directory.BySubject(v.r.Context(), c.identity.Subject)
	if err != nil {
		g.complain("directory", "error", err)
		v.logOut(c.credentials)
		return v.refuse(ControlSessions, unavailable)
	}
	due, err := v.due(c, e, person, true)
	switch {
	case err != nil:
		g.complain("second factors", "error", err)
		v.logOut(c.credentials)
		return v.refuse(ControlSessions, unavailable)
	case due.Need == policies.NeedNone, !v.reachable(due, c.identity):
		v.logOut(c.credentials)
		return v.refuse(countedLogin, policies.Verdict{Action: rules.StepUp, Reason: policies.ReasonFactorDue})
	}
	return v.hold(pending{c, e, due})
}

// inVain is how many uses of credentials that are not accepted a node tells of, a second
// at most: a program with an old token repeats it as fast as it can. More are counted on
// the record alone.
const inVain = 100

func newInVain() *rate.Limiter { return rate.NewLimiter(inVain, 10*inVain) }

// usedInVain publishes that a token was presented that is not accepted, with its digest
// for a name, and returns what the rules of stage session answer to the request; nil:
// nothing, it goes on without the token.
func (v *visit) usedInVain(p presented) *refusal {
	g := v.guard
	if p.credential.Kind == policies.CookieCredential || !v.guards() || !g.vain.AllowN(g.Now(), 1) {
		return nil // a browser sends old cookies along for long
	}
	e := v.sessionEvent(detectors.Refused)
	e.Credential, e.Reason, e.Name.Digest = p.credential.Name, string(policies.ReasonUnapprovedCredential), g.nameDigest(p.value)
	if x := v.became(g.publish(e), means{refuse: true}); x.Action == rules.Refuse {
		return v.refuse(countedRules, x)
	}
	return nil
}

// sessionEnded publishes that a session was ended, and lets the rules of stage session
// conclude. There is nobody to answer.
func (c *Core) sessionEnded(ctx context.Context, s auth.Session, by string) {
	e := detectors.Event{
		Time: c.Now(), Kind: detectors.Session, Act: detectors.Ended, Actor: by, Outcome: detectors.Success,
		Account: detectors.Account(s.Subject), Organization: detectors.Organization(s.Organization), Session: s.ID, Device: detectors.Device{ID: s.Device},
	}
	c.place(&e, c.zoneOf(ctx, e.Account))
	c.concluded(ctx, rules.Session, c.publish(e), means{})
}

// operators begin with this where an act says who did it.
const operators = "operator:"

func isOperator(by string) bool { return strings.HasPrefix(by, operators) }

// operated publishes what an operator did, and lets the rules of stage request conclude:
// it was a request to the operators' API, and is not refused any more.
func (c *Core) operated(ctx context.Context, act, by, account string) {
	c.concluded(ctx, rules.Request, c.publish(detectors.Event{
		Time: c.Now(), Kind: detectors.Operator, Act: detectors.Act(strings.TrimPrefix(act, record.Acts)), Actor: operators + strings.TrimPrefix(by, operators),
		Account: detectors.Account(account), Outcome: detectors.Success,
	}), means{})
}
