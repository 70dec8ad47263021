package guard

import (
	"context"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/policies"
)

// actTime bounds an act whose caller may go away: once begun it is carried through.
const actTime = 15 * time.Second

// act is the context of an act: it does not end when its caller hangs up.
func act(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), actTime)
}

// RegisterDecision makes d last. created is false where it extended a live one, or
// changed nothing.
func (c *Core) RegisterDecision(ctx context.Context, d policies.Decision) (_ policies.Decision, created bool, err error) {
	ctx, cancel := act(ctx)
	defer cancel()
	r, err := c.Decisions.Register(ctx, d, c.Now())
	return r.Decision, r.Change == policies.Registered, err
}

// LiftDecision takes a decision back in the name of by.
func (c *Core) LiftDecision(ctx context.Context, id, by string) (policies.Decision, error) {
	ctx, cancel := act(ctx)
	defer cancel()
	return c.Decisions.Lift(ctx, id, policies.Act{By: by}, c.Now())
}

// EndSession ends a session in the name of by.
func (c *Core) EndSession(ctx context.Context, id, by string) (auth.Session, error) {
	ctx, cancel := act(ctx)
	defer cancel()
	return c.Sessions.End(ctx, id, auth.Act{By: by}, c.Now())
}

// EndSessions ends every session of an account in the name of by.
func (c *Core) EndSessions(ctx context.Context, account, by string) ([]auth.Session, error) {
	ctx, cancel := act(ctx)
	defer cancel()
	return c.Sessions.EndAll(ctx, account, auth.Act{By: by}, c.Now())
}
