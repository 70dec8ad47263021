package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"

	"github.com/kidoban/kidoban/gateway/api"
	"github.com/kidoban/kidoban/gateway/breached"
	"github.com/kidoban/kidoban/gateway/geo"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/once"
	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
)

// runtimes holds one runtime per data directory. A reload opens the new
// configuration before it closes the old one, so state passes from one to the other.
var runtimes = caddy.NewUsagePool()

// runtime is the state behind all configurations that name the same data directory.
type runtime struct {
	identity string
	core     *guard.Core
	db       *storage.DB
	keys     *storage.Keyring
	record   *record.Log
	stream   *stream.Stream
	limits   *limits.Redis // nil: each node counts alone
	clients  []redis.UniversalClient
	hooks    *outbox.Deliverer
	log      *logger
	upkeep   upkeep
	places   geo.Live
	breached *breached.Passwords
	files    files
	watchers sync.WaitGroup

	stop context.CancelFunc
	done chan struct{}
}

// newRuntime opens the state that a names and applies a. The sessions' time-outs, and
// how factors are checked and throttled, are those of the first configuration; others
// take effect with the next start.
func newRuntime(a *App) (_ *runtime, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	rt := &runtime{identity: a.identity(), log: new(logger), done: make(chan struct{}), files: files{history: openHistory(a.DataDir)}}
	rt.log.set(a.logger)
	defer func() {
		if err != nil {
			err = errors.Join(err, rt.close())
		}
	}()
	if err := rt.open(ctx, a); err != nil {
		return nil, err
	}
	rt.breached = breached.New(slog.New(rt.log), time.Now)
	rt.core.Locator, rt.core.Breached = rt, rt.breached.Breached
	rt.core.Counted, rt.core.Drifted = countVerdict, countDrift
	// A gate keeps much (decisions, sessions, sources) and makes little garbage. With
	// Go's default it would mark all of that again each time the garbage is as much
	// as what it keeps; half a second of one core with a million decisions. The
	// environment has the last word; bound the memory with GOMEMLIMIT.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	rt.hooks = outbox.New(outbox.Config{Store: rt.core.Outbox, Owner: a.Node + "/" + strconv.Itoa(os.Getpid()), Log: slog.New(rt.log)})
	rt.core.Decisions.Changed(func(policies.Decision) { rt.hooks.Kick() })
	rt.core.Outbox.OnPut(rt.hooks.Kick)
	rt.configure(a)
	rt.core.Recall(ctx, rt.upkeep.snapshot)
	rt.stream.Subscribe(countLogin)
	debug.FreeOSMemory() // loading leaves more garbage than hours of requests
	run, stop := context.WithCancel(context.Background())
	rt.stop = stop
	go func() {
		defer close(rt.done)
		var parts sync.WaitGroup
		parts.Go(func() { rt.core.Run(run) })
		parts.Go(func() { _ = rt.hooks.Run(run) }) // it ends with run
		parts.Go(func() { rt.stream.Run(run) })
		parts.Go(func() { rt.tend(run) })
		parts.Go(func() { rt.breached.Run(run) })
		parts.Wait()
	}()
	running.add(rt)
	return rt, nil
}

// open opens what the core needs, and the core.
func (rt *runtime) open(ctx context.Context, a *App) (err error) {
	log := slog.New(rt.log)
	if rt.db, err = storage.Open(ctx, storage.Options{DataDir: a.DataDir, Database: a.database, Node: a.Node, Log: log}); err != nil {
		return err
	}
	if rt.keys, err = rt.db.OpenKeyring(ctx); err != nil {
		return err
	}
	paper := record.Config{Node: a.Node, Keys: rt.sealing, Log: log}
	if rt.db.Shared() {
		paper.Mirror = record.NewSQLMirror(rt.db.SQL())
	}
	if rt.record, err = record.Open(filepath.Join(a.DataDir, "record"), paper); err != nil {
		return err
	}
	disk, err := storage.Capacity(a.DataDir)
	if err != nil {
		return err
	}
	rt.upkeep.snapshot = filepath.Join(a.DataDir, "detectors.snapshot")
	room := func() bool {
		left, err := storage.Capacity(a.DataDir)
		return err != nil || left.Free >= min(left.Total/16, 1<<30)
	}
	events := stream.Config{
		Node: a.Node, Incarnation: uint64(time.Now().UnixMicro()), Now: time.Now, Log: log,
		// On a small disk, or a full one, the journal leaves room to what is worth more.
		Dir: filepath.Join(a.DataDir, "events"), JournalBytes: min(max(disk.Total/8, 1<<20), 1<<30),
		Room: room,
	}
	settings := guard.Settings{
		Node: a.Node, Shared: rt.db.Shared(), Sessions: a.policy.Sessions, Record: rt.record, Now: time.Now, Log: log,
	}
	if !rt.db.Shared() {
		settings.Room = room
	}
	if len(a.service.origins) > 0 {
		settings.Factors = &guard.FactorSettings{Service: a.service.Name, RPID: a.service.rpID, Origins: a.service.origins, Policy: a.policy.Factors}
	}
	if a.redis.URL != "" {
		if err := rt.openRedis(a, &events, log); err != nil {
			return err
		}
	}
	if rt.stream, err = stream.Open(events); err != nil {
		return err
	}
	settings.Stream = rt.stream
	if rt.limits != nil {
		settings.Limiter, settings.Attempts = rt.limits.Limiter(), rt.limits.Attempts()
	} else {
		settings.Limiter, settings.Attempts = limits.New(limits.NewStore(0, time.Now), time.Now), limits.NewAttempts(0)
	}
	rt.core, err = guard.Open(ctx, rt.db, rt.keys, settings)
	return err
}

// openRedis makes the clients of Redis, which do not connect yet.
func (rt *runtime) openRedis(a *App, events *stream.Config, log *slog.Logger) error {
	client := func(budget time.Duration) (redis.UniversalClient, error) {
		c := a.redis
		c.Budget, c.Log = budget, log
		made, err := storage.OpenRedis(c)
		if err == nil {
			rt.clients = append(rt.clients, made)
		}
		return made, err
	}
	counting, err := client(limits.DefaultBudget)
	if err != nil {
		return err
	}
	if events.Redis, err = client(stream.Budget); err != nil {
		return err
	}
	events.Prefix = "{" + a.Redis.prefix() + "}"
	// The names of counters must be the same on all nodes, also while a rotation is
	// on its way to them: they are made by the oldest key.
	digests := rt.keys.Digests("limits", "names of counters")
	rt.limits = limits.NewRedis(counting, limits.RedisConfig{
		Prefix: a.Redis.prefix(), Key: digests[len(digests)-1][:], Nodes: func() int { return rt.stream.Nodes() }, Log: log,
	})
	return nil
}

// sealing is the keys of the record's bodies.
func (rt *runtime) sealing() []record.Key {
	all := rt.keys.All(storage.Seal)
	keys := make([]record.Key, len(all))
	for i, k := range all {
		keys[i] = record.Key{ID: k.ID, Secret: k.Bytes}
	}
	return keys
}

// Destruct closes the state when no configuration uses it any more. Requests of
// the last one may still be running; Caddy's own drain comes first in a process
// that stops.
func (rt *runtime) Destruct() error {
	running.remove(rt)
	rt.files.mu.Lock()
	rt.unwatchLocked()
	rt.files.mu.Unlock()
	rt.watchers.Wait()
	rt.stop()
	<-rt.done
	rt.remember()
	return rt.close()
}

// close closes what was opened, in the order in which it needs each other.
func (rt *runtime) close() (err error) {
	if rt.stream != nil {
		err = errors.Join(err, rt.stream.Close())
	}
	if rt.limits != nil {
		err = errors.Join(err, rt.limits.Close())
	}
	for _, c := range rt.clients {
		err = errors.Join(err, c.Close())
	}
	if rt.record != nil {
		err = errors.Join(err, rt.record.Close())
	}
	if rt.db != nil {
		err = errors.Join(err, rt.db.Close())
	}
	return err
}

// Locate implements guard.Locator with the geo files of the latest configuration.
func (rt *runtime) Locate(a netip.Addr) (asn uint32, country string) { return rt.places.Locate(a) }

func (rt *runtime) api(operators *api.Operators) (http.Handler, error) {
	seen, err := once.NewSQL(rt.db.SQL(), rt.db.Dialect(), rt.core.Now)
	if err != nil {
		return nil, err
	}
	s := &api.Server{
		Acts: rt.core, Decisions: rt.core.Decisions, Sessions: rt.core.Sessions, Devices: rt.core.Devices, Report: rt.core.Ledger.Report, Search: rt.stream.Search,
		Rules: rt.core.Rules.Load, Life: rt.core, Incidents: rt.core, Faults: rt.faulty, Parts: rt.parts, Operators: operators, Once: seen, Source: clientAddress,
		Now: rt.core.Now, Log: slog.New(rt.log),
	}
	if rt.core.Factors != nil { // else the interfaces stay nil
		s.Factors, s.Slips, s.Holds = rt.core.Factors, rt.core.Slips, rt.core.Holds
	}
	return s.Handler(), nil
}

// clientAddress is where a call came from, as Caddy found out.
func clientAddress(r *http.Request) netip.Addr {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

// logger is a slog handler over the logger of the latest configuration: that of
// an earlier one is closed when its configuration goes.
type logger struct{ current atomic.Pointer[slog.Handler] }

func (l *logger) set(zl *zap.Logger) {
	// An error of ours says what and where. With a stack below each, a full disk would
	// fill the log as well.
	h := slog.Handler(zapslog.NewHandler(zl.Core(), zapslog.WithName(zl.Name()), zapslog.AddStacktraceAt(slog.Level(math.MaxInt))))
	l.current.Store(&h)
}

func (l *logger) Enabled(ctx context.Context, level slog.Level) bool {
	return (*l.current.Load()).Enabled(ctx, level)
}

func (l *logger) Handle(ctx context.Context, r slog.Record) error {
	return (*l.current.Load()).Handle(ctx, r)
}

func (l *logger) WithAttrs(attrs []slog.Attr) slog.Handler {
	return (*l.current.Load()).WithAttrs(attrs)
}

func (l *logger) WithGroup(name string) slog.Handler { return (*l.current.Load()).WithGroup(name) }
