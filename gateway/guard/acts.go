package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
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

	entryStarted = "gate.started"        // acts that a crash cut off are abandoned by then
	entryDecided = "decision.registered" // by a rule, after it was done
	denialPrefix = "denial."             // a control follows
	loginPrefix  = "login."              // an outcome follows: failure or unknown
)

// actTime bounds an act whose caller may go away: once begun it is carried through.
const actTime = 15 * time.Second

// act puts an intent on the record and does it. Unless it must be on record, it is
// done without an entry while the record cannot be written. What may have happened
// is found out later, by settle.
func (c *Core) act(ctx context.Context, kind string, body any, must bool, do func(ctx context.Context, entry string) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTime)
	defer cancel()
	open := c.intents.begin(c.Record.Last(), c.Now())
	id, err := c.Record.Append(ctx, record.Draft{Time: c.Now(), Kind: kind, Body: body})
	if err != nil {
		if ctx.Err() == nil { // else it may have been written all the same
			c.intents.end(open)
		}
		if must && !c.RecordOptional.Load() {
			return err
		}
		c.Log.Warn("an act is not on record", "kind", kind, "error", err)
		return do(ctx, "")
	}
	err = do(ctx, id.String())
	uncertain := errors.Is(err, auth.ErrUncertain) || errors.Is(err, policies.ErrUncertain) || ctx.Err() != nil
	if err == nil || !uncertain && c.Record.Abandon(ctx, id, "failed") == nil {
		c.intents.end(open)
	}
	return err
}

// intents are the acts that were announced and whose outcome is not known yet:
// they are under way, or in doubt.
type intents struct {
	mu      sync.Mutex
	open    map[*intent]struct{}
	settled uint64 // what the record knows of them; of settle alone
}

type intent struct {
	after uint64    // its entry has a higher sequence
	since time.Time // when it began; under way for at most actTime
}

func (s *intents) begin(after uint64, now time.Time) *intent {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[*intent]struct{})
	}
	i := &intent{after: after, since: now}
	s.open[i] = struct{}{}
	return i
}

func (s *intents) end(all ...*intent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range all {
		delete(s.open, i)
	}
}

// doubts are the acts that began before, long enough ago not to be under way.
func (s *intents) doubts(before time.Time) (found []*intent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.open {
		if i.since.Before(before) {
			found = append(found, i)
		}
	}
	return found
}

// known is up to which sequence, and up to when, the outcome of all acts is known,
// where last is the last entry.
func (s *intents) known(last uint64, now time.Time) (uint64, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.open {
		last = min(last, i.after)
		if i.since.Before(now) {
			now = i.since
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
	err := c.noteStart(ctx, s)
	if errors.Is(err, record.ErrUnavailable) {
		c.Log.Error("the gate starts, and that is not on record yet", "error", err)
		c.starting = s
		return nil
	}
	return err
}

func (c *Core) noteStart(ctx context.Context, s *starting) error {
	open, abandoned, err := c.takeBack(ctx, "the gate stopped before it was done", func(i record.Intent) bool { return i.ID.Sequence <= s.last })
	if err != nil {
		return fmt.Errorf("looking for acts that were cut off: %w", err)
	}
	if abandoned > 0 {
		c.Log.Warn("acts that a stop cut off did not happen, and the record says so", "acts", abandoned)
	}
	if _, err := c.Record.Append(ctx, record.Draft{Time: s.since, Kind: entryStarted, Body: map[string]int{"acts_open": open, "acts_abandoned": abandoned}}); err != nil {
		return fmt.Errorf("noting the start: %w", err)
	}
	c.intents.end(s.intent)
	return nil
}

// takeBack abandons those of the open acts that are meant and did not happen.
func (c *Core) takeBack(ctx context.Context, why string, meant func(record.Intent) bool) (open, abandoned int, err error) {
	all, err := c.Record.Intents(ctx)
	if err != nil {
		return 0, 0, err
	}
	all = slices.DeleteFunc(all, func(i record.Intent) bool { return !meant(i) })
	for some := range slices.Chunk(all, 500) {
		entries := make([]string, len(some))
		for i, one := range some {
			entries[i] = one.ID.String()
		}
		sessions, err := c.Sessions.Acted(ctx, entries)
		if err != nil {
			return 0, 0, err
		}
		decisions, err := c.Decisions.Acted(ctx, entries)
		if err != nil {
			return 0, 0, err
		}
		for i, one := range some {
			if sessions[entries[i]] || decisions[entries[i]] {
				continue
			}
			if err := c.Record.Abandon(ctx, one.ID, why); err != nil {
				return 0, 0, err
			}
			abandoned++
		}
	}
	return len(all), abandoned, nil
}

// settle finds out what became of acts in doubt, and notes on the record up to
// where all is known: a start need not look further back, and the database need
// not remember.
func (c *Core) settle(ctx context.Context) error {
	if c.starting != nil {
		if err := c.noteStart(ctx, c.starting); err != nil {
			return err
		}
		c.starting = nil
	}
	now := c.Now()
	before := now.Add(-2 * actTime)
	if doubts := c.intents.doubts(before); len(doubts) > 0 {
		if _, _, err := c.takeBack(ctx, "failed", func(i record.Intent) bool { return i.Time.Before(before) }); err != nil {
			return err
		}
		c.intents.end(doubts...)
	}
	through, until := c.intents.known(c.Record.Last(), now)
	if through <= c.intents.settled+1 { // the one is the entry that said so
		return nil
	}
	if err := c.Record.Settle(ctx, through); err != nil {
		return err
	}
	c.intents.settled = through
	// An act carries the time of its request, which may have waited for the backend
	// since; and clocks step.
	until = until.Add(-loginTimeout - 4*time.Minute)
	return errors.Join(c.Sessions.ForgetActs(ctx, c.node, until), c.Decisions.ForgetActs(ctx, c.node, until))
}

// RegisterDecision makes d last. created is false where it extended a live one, or
// changed nothing.
func (c *Core) RegisterDecision(ctx context.Context, d policies.Decision) (_ policies.Decision, created bool, err error) {
	var r policies.Registration
	err = c.act(ctx, actRegister, noticeValues(d), true, func(ctx context.Context, entry string) error {
		d.Entry = entry
		r, err = c.Decisions.Register(ctx, d, c.Now())
		return err
	})
	c.tellNodes(topicDecisions)
	return r.Decision, r.Change == policies.Registered, err
}

// LiftDecision takes a decision back in the name of by.
func (c *Core) LiftDecision(ctx context.Context, id, by string) (d policies.Decision, err error) {
	err = c.act(ctx, actLift, map[string]string{"decision": id, "by": by}, true, func(ctx context.Context, entry string) error {
		d, err = c.Decisions.Lift(ctx, id, policies.Act{By: by, Entry: entry}, c.Now())
		return err
	})
	c.tellNodes(topicDecisions)
	return d, err
}

// EndSession ends a session in the name of by.
func (c *Core) EndSession(ctx context.Context, id, by string) (auth.Session, error) {
	return c.endSession(ctx, id, by, true)
}

// endSession ends a session. Who logs out is logged out, on record or not.
func (c *Core) endSession(ctx context.Context, id, by string, must bool) (ended auth.Session, err error) {
	err = c.act(ctx, actEnd, map[string]string{"session": id, "by": by}, must, func(ctx context.Context, entry string) error {
		ended, err = c.Sessions.End(ctx, id, auth.Act{By: by, Entry: entry}, c.Now())
		return err
	})
	c.tellNodes(topicSessions)
	return ended, err
}

// EndSessions ends every session of an account in the name of by.
func (c *Core) EndSessions(ctx context.Context, account, by string) (ended []auth.Session, err error) {
	err = c.act(ctx, actEndAll, map[string]string{"account": account, "by": by}, true, func(ctx context.Context, entry string) error {
		ended, err = c.Sessions.EndAll(ctx, account, auth.Act{By: by, Entry: entry}, c.Now())
		return err
	})
	c.tellNodes(topicSessions)
	return ended, err
}

// beginSession begins a session, on record.
func (c *Core) beginSession(ctx context.Context, s auth.Session, credentials []auth.Credential, now time.Time) (begun auth.Session, token string, err error) {
	s.ID = rand.Text()
	body := map[string]string{
		"session": s.ID, "kind": string(s.Kind), "account": s.Subject, "organization": s.Organization, "device": s.Device, "source": s.Source,
	}
	for name, value := range body {
		if value == "" {
			delete(body, name)
		}
	}
	err = c.act(ctx, actBegin, body, true, func(ctx context.Context, entry string) error {
		begun, token, err = c.Sessions.BeginAct(ctx, s, credentials, entry, now)
		return err
	})
	c.tellNodes(topicSessions)
	return begun, token, err
}

// decided notes a decision that a rule made. There may be very many of them: beyond
// some they are counted, and what they say stands in the database only.
func (c *Core) decided(ctx context.Context, d policies.Decision) {
	if c.noting.AllowN(c.Now(), 1) {
		_, err := c.Record.Append(ctx, record.Draft{Time: c.Now(), Kind: entryDecided, Reason: string(policies.ReasonRule), Body: noticeValues(d)})
		if err == nil {
			return
		}
		c.Log.Warn("a rule's decision is not on record by itself", "decision", d.ID, "error", err)
	}
	c.Record.Count(record.Denial{Time: c.Now(), Kind: entryDecided, Reason: string(policies.ReasonRule), Key: string(d.Scope) + " " + d.Value})
}
