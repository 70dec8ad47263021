package guard

import (
	"context"
	"net/http"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// SetPatience sets how long an act waits for its entry.
func (c *Core) SetPatience(d time.Duration) { c.announcing = d }

// Act is an act that must be on record.
func (c *Core) Act(ctx context.Context, do func(ctx context.Context, entry string, at time.Time) error) error {
	return c.act(ctx, actRegister, struct{}{}, true, do)
}

// Settle finds out what became of acts in doubt.
func (c *Core) Settle(ctx context.Context) error { return c.settle(ctx) }

// Sweep cleans up once.
func (c *Core) Sweep(ctx context.Context) { c.sweep(ctx) }

// Restore reads a file that Remember wrote.
func (c *Core) Restore(file string) { _, _ = c.restore(file) }

// Ingress looks at a request as far as deciding what of it the backend gets to see, and
// reports whether it rides on a session.
func (g *Guard) Ingress(r *http.Request, peer Peer) bool {
	v := &visit{guard: g, r: r, peer: peer, now: g.Now(), source: g.source(peer), closes: g.Sockets.closes.Load()}
	clean(r)
	v.classify()
	return v.admit() == nil && v.authenticate() == nil && v.session != nil
}

// Stages looks at a request as far as its class, and returns what asks rules about it on
// its way to the backend: at the stages of an ordinary request, and at stage request as if
// the request were one that is counted. Each reports whether the request goes on.
func (g *Guard) Stages(r *http.Request, peer Peer) (ordinary, request func() bool) {
	v := &visit{guard: g, r: r, peer: peer, now: g.Now(), source: g.source(peer)}
	v.classify()
	ordinary = func() bool {
		counted, _ := g.serveCounted(nil, v)
		message, _ := g.serveMessage(nil, v)
		return !counted && !message
	}
	q := &counted{class: v.class}
	return ordinary, func() bool { return v.ruled(q, false).Action == rules.Allow }
}

// PasswordFacts is what detectors are told of a password.
func PasswordFacts(c *Core, password string) detectors.PasswordFacts {
	return (&Guard{Core: c}).passwordFacts(context.Background(), password)
}

// Share makes c believe that other nodes use its database.
func (c *Core) Share() { c.shared = true }
