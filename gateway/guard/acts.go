package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
)

// Kinds of entries of the record. Those of acts are intents: the entry is durable
// before the act is tried, and stands unless an entry act.abandoned takes it back.
const (
	actRegister = record.Acts + "decision.register"
	actLift     = record.Acts + "decision.lift"
	actBegin    = record.Acts + "session.begin"
	actEnd      = record.Acts + "session.end"
	actEndAll   = record.Acts + "account.end_sessions"
	actFactor   = record.Acts + "factor.give"
	actConfirm  = record.Acts + "hold.confirm"
	actDeny     = record.Acts + "hold.deny"

	entryStarted = "gate.started"        // acts that a crash cut off are abandoned by then
	entryDecided = "decision.registered" // by a rule, after it was done
	denialPrefix = "denial."             // a control follows
	loginPrefix  = "login."              // an outcome follows: failure or unknown
	factorPrefix = "factor."             // what became of an attempt follows
	tagPrefix    = "tag."                // a word of a rule follows
)

const (
	// announcing is how long an act waits for its entry. A disk that hangs costs
	// whoever acts so long.
	announcing = 8 * time.Second
	// actTime bounds an act whose caller may go away: once begun it is carried through.
	actTime = 15 * time.Second
	// openMax bounds the acts that are under way or in doubt.
	openMax = 10_000
)

// errManyDoubts means that very many acts wait for the database or the record.
var errManyDoubts = fmt.Errorf("%w: %d acts wait for it or the database", record.ErrUnavailable, openMax)

// act puts an intent on the record and does it. Unless it must be on record, it is
// done without an entry while the record cannot be written. do gets the entry and
// the time that the change carries. What may have happened is found out later, by
// settle.
func (c *Core) act(ctx context.Context, kind string, body any, must bool, do func(ctx context.Context, entry string, at time.Time) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	must = must && !c.RecordOptional.Load()
	ctx = context.WithoutCancel(ctx)
	carry := func(entry string, at time.Time) (uncertain bool, err error) {
		ctx, cancel := context.WithTimeout(ctx, actTime)
		defer cancel()
		err = do(ctx, entry, at)
		return errors.Is(err, auth.ErrUncertain) || errors.Is(err, policies.ErrUncertain) || ctx.Err() != nil, err
	}
	i, err := c.announceAct(ctx, kind, body)
	if err != nil {
		if must {
			return err
		}
		c.complain("an act is not on record", "kind", kind, "error", err)
		_, err = carry("", c.Now())
		return err
	}
	left := true // by a panic
	defer func() {
		if left {
			c.intents.doubt(i)
		}
	}()
	uncertain, err := carry(i.entry.String(), i.at)
	left = err != nil && uncertain
	if err != nil && !uncertain {
		c.abandon(ctx, i, "failed")
	} else if !left {
		c.intents.end(i)
	}
	return err
}

// announceAct makes the entry of an act. Of one that takes too long and comes after
// all, the record says that nothing was done under it.
func (c *Core) announceAct(ctx context.Context, kind string, body any) (*intent, error) {
	i := c.intents.begin(c.Record.Last(), c.Now())
	if i == nil {
		return nil, errManyDoubts
	}
	written := make(chan error)
	late := make(chan struct{})
	go func() {
		id, err := c.Record.Append(ctx, record.Draft{Time: i.at, Kind: kind, Body: body})
		if err == nil {
			c.intents.announced(i, id)
		} else {
			c.intents.end(i) // it was not written
		}
		select {
		case written <- err:
		case <-late:
			if err == nil {
				c.abandon(ctx, i, "nobody waited for this entry any more; nothing was done under it")
			}
		}
	}()
	t := time.NewTimer(c.announcing)
	defer t.Stop()
	select {
	case err := <-written:
		if err != nil {
			return nil, err
		}
		return i, nil
	case <-t.C:
		close(late)
		return nil, fmt.Errorf("%w: no answer within %v", record.ErrUnavailable, c.announcing)
	}
}

// abandon takes an announced act back that certainly did not happen.
func (c *Core) abandon(ctx context.Context, i *intent, why string) {
	ctx, cancel := context.WithTimeout(ctx, announcing)
	defer cancel()
	if c.Record.Abandon(ctx, i.entry, why) != nil {
		c.intents.doubt(i)
		return
	}
	c.intents.end(i)
}

// intents are the acts that were announced and whose outcome is not known yet:
// they are under way, or in doubt.
type intents struct {
	mu      sync.Mutex
	open    map[*intent]bool // in doubt; at most openMax
	settled uint64           // what the record knows of them; of settle alone
}

type intent struct {
	after uint64    // its entry has a higher sequence
	at    time.Time // when it began by the clock, which may step; its change carries this time
	entry record.ID // written before it is announced, read after
}

// begin returns nil if there are too many.
func (s *intents) begin(after uint64, now time.Time) *intent {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= openMax {
		return nil
	}
	if s.open == nil {
		s.open = make(map[*intent]bool)
	}
	i := &intent{after: after, at: now.Round(0)}
	s.open[i] = false
	return i
}

func (s *intents) announced(i *intent, entry record.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.entry = entry
}

// doubt leaves i to settle: it was announced, nobody is at it any more, and what
// became of it is not known or not on record.
func (s *intents) doubt(i *intent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[i] = true
}

func (s *intents) end(all ...*intent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range all {
		delete(s.open, i)
	}
}

// OpenActs is how many log-ins and operators' acts are under way or in doubt.
func (c *Core) OpenActs() int {
	c.intents.mu.Lock()
	defer c.intents.mu.Unlock()
	return len(c.intents.open)
}

// doubts are the acts in doubt.
func (s *intents) doubts() (found []*intent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, doubt := range s.open {
		if doubt {
			found = append(found, i)
		}
	}
	return found
}

// known is up to which sequence, and up to when by the clock, the outcome of all
// acts is known, where last is the last entry.
func (s *intents) known(last uint64, now time.Time) (uint64, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now = now.Round(0) // times of acts are compared with those in the database
	for i := range s.open {
		last = min(last, i.after)
		if i.at.Before(now) {
			now = i.at
		}
	}
	return last, now
}

// starting is a start that is to go on record.
type starting struct {
	*intent        // whose outcome is that of all acts before it
	last    uint64 // entry before it
}

// beginRecord takes back the acts that a crash cut off, and says on the record that
// the gate starts. While the record cannot be written that waits until it can, see
// settle: whoever is in stays in.
func (c *Core) beginRecord(ctx context.Context) error {
	s := &starting{c.intents.begin(0, c.Now()), c.Record.Last()}
	ever := c.Now().AddDate(100, 0, 0) // the clock may have been ahead
	err := c.noteStart(ctx, s, ever)
	if errors.Is(err, record.ErrUnavailable) {
		c.Log.Error("the gate starts, and that is not on record yet", "error", err)
		c.starting = s
		return nil
	}
	return err
}

// noteStart settles what earlier lives left. The database then forgets what it knows
// of acts of this node before a time.
func (c *Core) noteStart(ctx context.Context, s *starting, before time.Time) error {
	open, err := c.Record.Intents(ctx)
	var abandoned int
	var acts []record.ID
	if err == nil {
		for _, o := range open {
			if o.ID.Sequence <= s.last { // the others are of this life
				acts = append(acts, o.ID)
			}
		}
		abandoned, err = c.takeBack(ctx, "the gate stopped before it was done", acts)
	}
	if err != nil {
		return fmt.Errorf("looking for acts that were cut off: %w", err)
	}
	// Now all is known, also of a life whose record was lost: this one gives the same
	// ids again.
	if len(acts) > 0 {
		if err := c.Record.Settle(ctx, s.last); err != nil {
			return fmt.Errorf("noting that all acts are known: %w", err)
		}
		c.intents.settled = s.last
	}
	if err := errors.Join(c.Sessions.ForgetActs(ctx, c.node, before), c.Decisions.ForgetActs(ctx, c.node, before)); err != nil {
		c.complain("the database remembers acts of earlier lives", "error", err) // as on a full disk
	}
	if abandoned > 0 {
		c.Log.Warn("acts that a stop cut off did not happen, and the record says so", "acts", abandoned)
	}
	if _, err := c.Record.Append(ctx, record.Draft{Time: s.at, Kind: entryStarted, Body: map[string]int{"acts_open": len(acts), "acts_abandoned": abandoned}}); err != nil {
		return fmt.Errorf("noting the start: %w", err)
	}
	c.intents.end(s.intent)
	return nil
}

// takeBack abandons those of the acts, which nobody is at any more, that did not
// happen.
func (c *Core) takeBack(ctx context.Context, why string, acts []record.ID) (abandoned int, err error) {
	for some := range slices.Chunk(acts, 500) {
		entries := make([]string, len(some))
		for i, id := range some {
			entries[i] = id.String()
		}
		sessions, err := c.Sessions.Acted(ctx, entries)
		if err != nil {
			return abandoned, err
		}
		decisions, err := c.Decisions.Acted(ctx, entries)
		if err != nil {
			return abandoned, err
		}
		for i, id := range some {
			if sessions[entries[i]] || decisions[entries[i]] {
				continue
			}
			if err := c.Record.Abandon(ctx, id, why); err != nil {
				return abandoned, err
			}
			abandoned++
		}
	}
	return abandoned, nil
}

// actsKept is how long the database remembers an act whose outcome the record
// knows. It is for clocks that step.
const actsKept = 5 * time.Minute

// settle finds out what became of acts in doubt, and notes on the record up to
// where all is known: a start need not look further back, and the database need
// not remember.
func (c *Core) settle(ctx context.Context) error {
	if c.starting != nil {
		if err := c.noteStart(ctx, c.starting, c.starting.at); err != nil {
			return err
		}
		c.starting = nil
	}
	now := c.Now()
	if err := c.resolve(ctx, now); err != nil {
		return err
	}
	through, until := c.intents.known(c.Record.Last(), now)
	if through <= c.intents.settled+1 { // the one is the entry that said so
		return nil
	}
	if err := c.Record.Settle(ctx, through); err != nil {
		return err
	}
	c.intents.settled = through
	until = until.Add(-actsKept)
	return errors.Join(c.Sessions.ForgetActs(ctx, c.node, until), c.Decisions.ForgetActs(ctx, c.node, until))
}

// settling bounds one settlement.
const settling = time.Minute

// settleSoon settles, and complains if it cannot.
func (c *Core) settleSoon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	if err := c.settle(ctx); err != nil && !errors.Is(err, context.Canceled) {
		c.complain("settling what became of acts", "error", err)
	}
}

// resolve asks the database about the acts in doubt.
func (c *Core) resolve(ctx context.Context, now time.Time) error {
	doubts := c.intents.doubts()
	if len(doubts) == 0 {
		return nil
	}
	ids := make([]record.ID, len(doubts))
	for i, d := range doubts {
		ids[i] = d.entry
	}
	if _, err := c.takeBack(ctx, "failed", ids); err != nil {
		return err
	}
	// What happened without the database saying so is not known here yet.
	if err := errors.Join(c.Decisions.Reconcile(ctx, now), c.Sessions.Reconcile(ctx, now)); err != nil {
		return err
	}
	c.intents.end(doubts...)
	return nil
}

// RegisterDecision makes d last. created is false where it extended a live one, or
// changed nothing.
func (c *Core) RegisterDecision(ctx context.Context, d policies.Decision) (_ policies.Decision, created bool, err error) {
	var r policies.Registration
	err = c.act(ctx, actRegister, noticeValues(d), true, func(ctx context.Context, entry string, at time.Time) error {
		d.Entry = entry
		r, err = c.Decisions.Register(ctx, d, at)
		return err
	})
	c.tellNodes(topicDecisions)
	if err == nil && d.Origin == policies.OriginOperator {
		c.operated(ctx, actRegister, d.By, "")
	}
	return r.Decision, r.Change == policies.Registered, err
}

// LiftDecision takes a decision back in the name of by.
func (c *Core) LiftDecision(ctx context.Context, id, by string) (d policies.Decision, err error) {
	err = c.act(ctx, actLift, map[string]string{"decision": id, "by": by}, true, func(ctx context.Context, entry string, at time.Time) error {
		d, err = c.Decisions.Lift(ctx, id, policies.Act{By: by, Entry: entry}, at)
		return err
	})
	c.tellNodes(topicDecisions)
	if err == nil {
		c.operated(ctx, actLift, by, "")
	}
	return d, err
}

// EndSession ends a session in the name of by.
func (c *Core) EndSession(ctx context.Context, id, by string) (auth.Session, error) {
	ended, err := c.endSession(ctx, id, by, true)
	if err == nil && isOperator(by) {
		c.operated(ctx, actEnd, by, ended.Subject)
	}
	return ended, err
}

// endSession ends a session. Who logs out is logged out, on record or not.
func (c *Core) endSession(ctx context.Context, id, by string, must bool) (ended auth.Session, err error) {
	err = c.act(ctx, actEnd, map[string]string{"session": id, "by": by}, must, func(ctx context.Context, entry string, at time.Time) error {
		ended, err = c.Sessions.End(ctx, id, auth.Act{By: by, Entry: entry}, at)
		return err
	})
	c.tellNodes(topicSessions)
	if err == nil {
		c.sessionEnded(ctx, ended, by)
	}
	return ended, err
}

// EndSessions ends every session of an account in the name of by.
func (c *Core) EndSessions(ctx context.Context, account, by string) (ended []auth.Session, err error) {
	err = c.act(ctx, actEndAll, map[string]string{"account": account, "by": by}, true, func(ctx context.Context, entry string, at time.Time) error {
		ended, err = c.Sessions.EndAll(ctx, account, auth.Act{By: by, Entry: entry}, at)
		return err
	})
	c.tellNodes(topicSessions)
	for _, s := range ended {
		c.sessionEnded(ctx, s, by)
	}
	if err == nil && isOperator(by) {
		c.operated(ctx, actEndAll, by, account)
	}
	return ended, err
}

// beginSession begins a session, on record. release is the hold that it ends, if any.
func (c *Core) beginSession(ctx context.Context, s auth.Session, credentials []auth.Credential, release string) (begun auth.Session, token string, err error) {
	s.ID = rand.Text()
	body := map[string]string{
		"session": s.ID, "kind": string(s.Kind), "account": s.Subject, "organization": s.Organization, "device": s.Device, "source": s.Source,
		"aal": strconv.Itoa(s.AAL), "factor": string(s.Factor), "hold": release,
	}
	for name, value := range body {
		if value == "" {
			delete(body, name)
		}
	}
	err = c.act(ctx, actBegin, body, true, func(ctx context.Context, entry string, at time.Time) error {
		begun, token, err = c.Sessions.BeginAct(ctx, s, credentials, auth.Act{Entry: entry, Release: release}, at)
		return err
	})
	c.tellNodes(topicSessions)
	return begun, token, err
}

// noting is how long a log-in waits until the record has what a rule decided.
const noting = time.Second

// decided notes a decision that a rule made. There may be very many of them: beyond
// some they are counted, and what they say stands in the database only. One that the
// record takes too slowly may stand there and be counted too.
func (c *Core) decided(ctx context.Context, d policies.Decision) {
	c.refer(policies.Reference{Name: d.ID, Rule: d.Rule, Decision: d.ID, Finding: d.Finding})
	if c.noting.AllowN(c.Now(), 1) {
		ctx, cancel := context.WithTimeout(ctx, noting)
		_, err := c.Record.Append(ctx, record.Draft{Time: c.Now(), Kind: entryDecided, Reason: string(policies.ReasonRule), Body: noticeValues(d)})
		cancel()
		if err == nil {
			return
		}
		c.complain("a rule's decision is not on record by itself", "decision", d.ID, "error", err)
	}
	c.Record.Count(record.Denial{Time: c.Now(), Kind: entryDecided, Reason: string(policies.ReasonRule), Key: string(d.Scope) + " " + d.Value})
}
