package guard

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/assertion"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Settings are what a core needs beside its database. The caller opens and closes
// what stands here; all is required unless it says otherwise.
type Settings struct {
	Node     string
	Shared   bool // other nodes change the database too; optional
	Sessions policies.SessionPolicy
	Stream   *stream.Stream
	Record   *record.Log
	Limiter  *limits.Limiter
	Attempts *limits.Attempts
	Factors  *FactorSettings // optional: without them there are no second factors
	Room     func() bool     // whether the database may grow by what only explains; nil: always
	Now      func() time.Time
	Log      *slog.Logger
}

// learningFor is how long a new installation takes every account for an old one:
// until then none has a history, the honest ones included.
const learningFor = 24 * time.Hour

// Open makes a core over db, which the caller closes after the last request. The
// caller stores a rule set and calls Recall before the first request, and then Run.
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
		Limiter:   s.Limiter,
		Attempts:  s.Attempts,
		Stream:    s.Stream,
		Record:    s.Record,
		Sockets:   NewSockets(),
		Digest:    keys.Digest,
		Digests:   keys.Digests,
		Now:       s.Now,
		Log:       s.Log,
		node:      s.Node,
		shared:    s.Shared,
		room:      s.Room,
		noting:    rate.NewLimiter(rate.Every(time.Second), 10_000),
		vain:      newInVain(),

		announcing: announcing,
		assertions: assertion.New(keys),
	}
	if c.Sessions, err = auth.OpenSessions(ctx, store, auth.SessionsConfig{Overall: s.Sessions.Overall, Idle: s.Sessions.Idle}, now); err != nil {
		return nil, fmt.Errorf("opening sessions: %w", err)
	}
	if c.Devices, err = auth.OpenDevices(ctx, store, keys.Cookies, auth.DevicesConfig{}, now); err != nil {
		return nil, fmt.Errorf("opening devices: %w", err)
	}
	if s.Factors != nil {
		if err := c.openFactors(ctx, store, keys, *s.Factors, now); err != nil {
			return nil, err
		}
	}
	decisions, err := policies.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return nil, fmt.Errorf("opening the store of decisions: %w", err)
	}
	if c.Decisions, err = policies.OpenDecisions(ctx, decisions, now, policies.WithNotices(c.announce)); err != nil {
		return nil, fmt.Errorf("opening decisions: %w", err)
	}
	if c.Findings, err = policies.NewFindings(db.SQL(), db.Dialect()); err != nil {
		return nil, fmt.Errorf("opening the store of findings: %w", err)
	}
	if c.Incidents, err = policies.NewIncidents(db.SQL(), db.Dialect()); err != nil {
		return nil, fmt.Errorf("opening the store of incidents: %w", err)
	}
	if c.Outbox, err = policies.NewOutbox(db.SQL(), db.Dialect()); err != nil {
		return nil, fmt.Errorf("opening the outbox: %w", err)
	}
	if c.Ledger, err = policies.NewLedger(db.SQL(), db.Dialect()); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	if err := c.beginRecord(ctx); err != nil {
		return nil, err
	}
	c.Sessions.OnEnd(func(ended auth.Session) { c.Sockets.Close(ended.ID) })
	return c, nil
}

// sweeping is how often expired things are cleaned up. What is expired counts as
// gone before: expiry is tested wherever it matters.
const sweeping = 10 * time.Second

// keepNotices is how long the outbox keeps what was delivered or given up.
const keepNotices = 30 * 24 * time.Hour

// Run cleans up and writes counts until ctx ends, and then once more; beside other
// nodes it takes over what they changed.
func (c *Core) Run(ctx context.Context) {
	var others sync.WaitGroup
	defer others.Wait()
	if c.shared {
		others.Go(func() { c.follow(ctx) })
	}
	others.Go(func() { repeat(ctx, keeping, c.keepFindings) })
	others.Go(func() { repeat(ctx, sweeping, c.settleSoon) }) // by itself: a disk that hangs must not keep the rest
	repeat(ctx, sweeping, c.sweep)
}

// repeat does something every so often until ctx ends, and then once more, within 5 s.
func repeat(ctx context.Context, every time.Duration, do func(context.Context)) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			do(ctx)
			return
		case <-t.C:
			do(ctx)
		}
	}
}

func (c *Core) sweep(ctx context.Context) {
	now := c.Now()
	c.tellAlarms(now)
	failed := false
	complain := func(message string, err error) {
		if err != nil {
			failed = true
			c.complain(message, "error", err)
		}
	}
	expired, err := c.Decisions.Sweep(ctx, now)
	complain("sweeping decisions", err)
	for _, d := range expired {
		c.Log.Info("decision expired", "decision", d.ID, "scope", string(d.Scope), "value", d.Value, "rule", string(d.Rule))
	}
	complain("storing the ends of sessions", c.endLoggedOut(ctx))
	_, err = c.Sessions.Sweep(ctx, now)
	complain("sweeping sessions", err)
	_, err = c.Devices.Sweep(ctx, now)
	complain("sweeping devices", err)
	complain("sweeping second factors", c.sweepFactors(ctx, now))
	_, err = c.Outbox.Purge(ctx, now.Add(-keepNotices))
	complain("the outbox", err)
	complain("the ledger", c.Ledger.Flush(ctx))
	complain("findings", c.sweepFindings(ctx, now))
	complain("the rules of other nodes", c.agree(ctx, now))
	c.unwritable.Store(failed)
}

// tellAlarms logs campaign alarms that begin and end.
func (c *Core) tellAlarms(now time.Time) {
	on := make(map[string]bool)
	for _, a := range c.Detectors.Alarms(now) {
		on[a.Stratum] = true
		if !c.alarms[a.Stratum] {
			c.Log.Warn("campaign alarm: strangers are asked for more", "stratum", a.Stratum, "since", a.Since, "why", a.Why)
		}
	}
	for stratum := range c.alarms {
		if !on[stratum] {
			c.Log.Info("campaign alarm is over", "stratum", stratum)
		}
	}
	c.alarms = on
}

// Unwritable reports whether the database took no changes when it was asked last,
// which is every ten seconds: as on a full disk, where it can still be read.
func (c *Core) Unwritable() bool { return c.unwritable.Load() }

// complaining is how often one complaint is logged.
const complaining = time.Minute

// complaints are what was logged lately, by message; the messages are few.
type complaints struct {
	mu   sync.Mutex
	last map[string]complaint
}

type complaint struct {
	at   time.Time
	more int // since then
}

// complain logs that something went wrong, at most once a minute for each message:
// a server that is away concerns every request. The next line says how many times
// it was.
func (c *Core) complain(message string, args ...any) {
	now := time.Now()
	c.complaints.mu.Lock()
	last, before := c.complaints.last[message]
	if before && now.Sub(last.at) < complaining {
		last.more++
		c.complaints.last[message] = last
		c.complaints.mu.Unlock()
		return
	}
	if c.complaints.last == nil {
		c.complaints.last = make(map[string]complaint)
	}
	c.complaints.last[message] = complaint{at: now}
	c.complaints.mu.Unlock()
	if last.more > 0 {
		args = append(args, "times_not_logged", last.more)
	}
	c.Log.Error(message, args...)
}
