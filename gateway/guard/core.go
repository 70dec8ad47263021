package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Settings are what a core needs beside its stores.
type Settings struct {
	Node     string
	Shared   bool // other nodes change the database too
	Sessions policies.SessionPolicy
	Now      func() time.Time
	Log      *slog.Logger
}

// learningFor is how long a new installation takes every account for an old one:
// until then none has a history, the honest ones included.
const learningFor = 24 * time.Hour

// Open makes a core over db, which the caller closes after the last request. The caller stores a rule set before the first request and calls Run.
func Open(ctx context.Context, db *storage.DB, keys *storage.Keyring, s Settings) (*Core, error) {
	now := s.Now()
	store, err := auth.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return nil, fmt.Errorf("opening the stores of sessions, accounts and devices: %w", err)
	}
	store.ReadThrough(db.Reads())
	directory := auth.NewDirectory(store)
	installed, err := directory.Since(ctx)
	if err != nil {
		return nil, err
	}
	if installed.IsZero() {
		installed = now
	}
	c := &Core{
		Directory: directory,
		Detectors: detectors.Default(installed.Add(learningFor)),
		Rules:     new(atomic.Pointer[rules.Set]),
		Limiter:   limits.New(limits.NewStore(0, s.Now), s.Now),
		Attempts:  limits.NewAttempts(0),
		Stream:    stream.New(s.Node, uint64(now.UnixMicro()), s.Now),
		Sockets:   NewSockets(),
		Digest:    keys.Digest,
		Now:       s.Now,
		Log:       s.Log,
		shared:    s.Shared,
	}
	if c.Sessions, err = auth.OpenSessions(ctx, store, auth.SessionsConfig{Overall: s.Sessions.Overall, Idle: s.Sessions.Idle}, now); err != nil {
		return nil, fmt.Errorf("opening sessions: %w", err)
	}
	if c.Devices, err = auth.OpenDevices(ctx, store, keys.Cookies, auth.DevicesConfig{}, now); err != nil {
		return nil, fmt.Errorf("opening devices: %w", err)
	}
	decisions, err := policies.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return nil, fmt.Errorf("opening the store of decisions: %w", err)
	}
	if c.Decisions, err = policies.OpenDecisions(ctx, decisions, now, policies.WithNotices(c.announce)); err != nil {
		return nil, fmt.Errorf("opening decisions: %w", err)
	}
	if c.Outbox, err = policies.NewOutbox(db.SQL(), db.Dialect()); err != nil {
		return nil, fmt.Errorf("opening the outbox: %w", err)
	}
	if c.Ledger, err = policies.NewLedger(db.SQL(), db.Dialect()); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	c.Sessions.OnEnd(func(ended auth.Session) { c.Sockets.Close(ended.ID) })
	c.Stream.Subscribe(c.Detectors.Observe)
	c.Stream.Subscribe(func(e detectors.Event) { c.Rules.Load().Observe(e) })
	return c, nil
}

// sweeping is how often expired things are cleaned up. What is expired counts as
// gone before: expiry is tested wherever it matters.
const sweeping = 10 * time.Second

// keepNotices is how long the outbox keeps what was delivered or given up.
const keepNotices = 30 * 24 * time.Hour

// reconciling is how often the changes of other nodes are taken over from the
// database. It costs two look-ups of one row when nothing changed.
const reconciling = 100 * time.Millisecond

// Run cleans up and writes counts until ctx ends, and then once more; beside other
// nodes it takes over what they changed.
func (c *Core) Run(ctx context.Context) {
	t := time.NewTicker(sweeping)
	defer t.Stop()
	var others <-chan time.Time
	if c.shared {
		r := time.NewTicker(reconciling)
		defer r.Stop()
		others = r.C
	}
	for {
		select {
		case <-others:
			c.reconcile(ctx)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			c.sweep(ctx)
			return
		case <-t.C:
			c.sweep(ctx)
		}
	}
}

// reconcile takes over what other nodes decided and which sessions they ended.
func (c *Core) reconcile(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	now := c.Now()
	err := errors.Join(c.Decisions.Reconcile(ctx, now), c.Sessions.Reconcile(ctx, now), c.Directory.Reconcile(ctx))
	switch {
	case err != nil && !c.behind:
		c.Log.Error("taking over what other nodes changed; decisions and sessions stay as they are known here until it works again", "error", err)
	case err == nil && c.behind:
		c.Log.Info("the changes of other nodes are taken over again")
	}
	c.behind = err != nil
}

func (c *Core) sweep(ctx context.Context) {
	now := c.Now()
	expired, err := c.Decisions.Sweep(ctx, now)
	if err != nil {
		c.Log.Error("sweeping decisions", "error", err)
	}
	for _, d := range expired {
		c.Log.Info("decision expired", "decision", d.ID, "scope", string(d.Scope), "value", d.Value, "rule", string(d.Rule))
	}
	if _, err := c.Sessions.Sweep(ctx, now); err != nil {
		c.Log.Error("sweeping sessions", "error", err)
	}
	if _, err := c.Devices.Sweep(ctx, now); err != nil {
		c.Log.Error("sweeping devices", "error", err)
	}
	if _, err := c.Outbox.Purge(ctx, now.Add(-keepNotices)); err != nil {
		c.Log.Error("the outbox", "error", err)
	}
	if err := c.Ledger.Flush(ctx); err != nil {
		c.Log.Error("the ledger", "error", err)
	}
}
