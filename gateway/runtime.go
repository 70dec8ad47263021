package gateway

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"

	"github.com/kidoban/kidoban/gateway/api"
	"github.com/kidoban/kidoban/gateway/api/once"
	"github.com/kidoban/kidoban/gateway/geo"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// runtimes holds one runtime per data directory. A reload opens the new
// configuration before it closes the old one, so state passes from one to the other.
var runtimes = caddy.NewUsagePool()

// runtime is the state behind all configurations that name the same data directory.
type runtime struct {
	core *guard.Core
	db   *storage.DB
	log  *logger
	stop context.CancelFunc
	done chan struct{}

	places atomic.Pointer[geo.Places]
	hooks  *outbox.Deliverer

	mu     sync.Mutex
	faults []error // rule and geo files left out; guarded by mu
}

// newRuntime opens the state that a names. The sessions' time-outs are those of
// the first configuration; others take effect with the next start.
func newRuntime(a *App) (_ *runtime, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	rt := &runtime{log: new(logger), done: make(chan struct{})}
	rt.log.set(a.logger)
	log := slog.New(rt.log)
	if rt.db, err = storage.Open(ctx, storage.Options{DataDir: a.DataDir, Database: a.database, Node: a.Node, Log: log}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rt.db.Close())
		}
	}()
	keys, err := rt.db.OpenKeyring(ctx)
	if err != nil {
		return nil, err
	}
	if rt.core, err = guard.Open(ctx, rt.db, keys, guard.Settings{
		Node: a.Node, Shared: a.database != "", Sessions: a.policy.Sessions, Now: time.Now, Log: log,
	}); err != nil {
		return nil, err
	}
	rt.core.Locator = rt
	rt.core.Counted = countVerdict
	rt.core.Stream.Subscribe(countLogin)
	// A gate keeps much (decisions, sessions, sources) and makes little garbage. With
	// Go's default it would mark all of that again each time the garbage is as much
	// as what it keeps; half a second of one core with a million decisions. The
	// environment has the last word; bound the memory with GOMEMLIMIT.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	debug.FreeOSMemory() // loading leaves more garbage than hours of requests
	rt.hooks = outbox.New(outbox.Config{Store: rt.core.Outbox, Owner: a.Node + "/" + strconv.Itoa(os.Getpid()), Log: log})
	rt.core.Decisions.Changed(func(policies.Decision) { rt.hooks.Kick() })
	run, stop := context.WithCancel(context.Background())
	rt.stop = stop
	go func() {
		defer close(rt.done)
		var parts sync.WaitGroup
		parts.Go(func() { rt.core.Run(run) })
		parts.Go(func() { _ = rt.hooks.Run(run) }) // it ends with run
		parts.Wait()
	}()
	return rt, nil
}

// Locate implements guard.Locator with the geo files of the latest configuration.
func (rt *runtime) Locate(a netip.Addr) (asn uint32, country string) {
	if p := rt.places.Load(); p != nil {
		return p.Locate(a)
	}
	return 0, ""
}

// configure applies what may change with a reload: the logger, rules and geo
// files. It is called before the app's first request, under the app's lock.
func (rt *runtime) configure(a *App) error {
	rt.log.set(a.logger)
	var faults []error
	set, shipped := rules.Load(rules.Shipped)
	faults = append(faults, shipped...)
	if a.Rules != "" {
		var own []error
		if set, own = rules.Load(layered{os.DirFS(a.Rules), rules.Shipped}); len(own) > 0 {
			faults = append(faults, own...)
		}
	}
	if old := rt.core.Rules.Load(); old != nil {
		set.Adopt(old)
	}
	rt.core.Rules.Store(set)
	places, err := geo.Open(a.GeoIP)
	if err != nil {
		faults = append(faults, err)
	}
	rt.places.Store(places)
	rt.core.Subscribe(a.subscriptions)
	rt.hooks.Use(a.senders)
	for _, fault := range faults {
		a.logger.Error("left out", zap.Error(fault))
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.faults = append(faults, a.cautions...)
	return nil
}

// Destruct closes the state when no configuration uses it any more. Requests of
// the last one may still be running; Caddy's own drain comes first in a process
// that stops.
func (rt *runtime) Destruct() error {
	rt.stop()
	<-rt.done
	return rt.db.Close()
}

func (rt *runtime) api(operators *api.Operators) (http.Handler, error) {
	seen, err := once.NewSQL(rt.db.SQL(), rt.db.Dialect(), rt.core.Now)
	if err != nil {
		return nil, err
	}
	s := &api.Server{
		Acts: rt.core, Decisions: rt.core.Decisions, Sessions: rt.core.Sessions, Report: rt.core.Ledger.Report, Recent: rt.core.Stream.Recent,
		Rules: rt.core.Rules.Load, Faults: rt.faulty, Parts: rt.parts, Operators: operators, Once: seen, Source: clientAddress,
		Now: rt.core.Now, Log: slog.New(rt.log),
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

// parts tells operators how the parts of the gate are.
func (rt *runtime) parts(ctx context.Context) []api.PartHealth {
	database := api.PartHealth{Name: "database", Status: api.OK, Essential: true}
	if err := rt.db.Reads().PingContext(ctx); err != nil {
		database.Status, database.Detail = api.Down, "it does not answer; the log has the cause"
	}
	hooks := api.PartHealth{Name: "outbox", Status: api.OK}
	for _, f := range rt.hooks.Status().Failing {
		hooks.Status, hooks.Detail = api.Degraded, "webhook "+f.To+" does not take notices: "+f.Why
	}
	return []api.PartHealth{database, hooks}
}

func (rt *runtime) faulty() []error {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return append(rt.faults[:len(rt.faults):len(rt.faults)], rt.core.Rules.Load().Errors()...)
}

// layered is a file system in which files of the first hide those of the second.
type layered [2]fs.FS

func (l layered) Open(name string) (fs.File, error) {
	f, err := l[0].Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return l[1].Open(name)
	}
	return f, err
}

// ReadDir lists the files of both.
func (l layered) ReadDir(name string) ([]fs.DirEntry, error) {
	own, err := fs.ReadDir(l[0], name)
	if err != nil {
		return nil, err
	}
	shipped, err := fs.ReadDir(l[1], name)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(own))
	for _, e := range own {
		seen[e.Name()] = true
	}
	for _, e := range shipped {
		if !seen[e.Name()] {
			own = append(own, e)
		}
	}
	return own, nil
}

// logger is a slog handler over the logger of the latest configuration: that of
// an earlier one is closed when its configuration goes.
type logger struct{ current atomic.Pointer[slog.Handler] }

func (l *logger) set(zl *zap.Logger) {
	h := slog.Handler(zapslog.NewHandler(zl.Core(), zapslog.WithName(zl.Name())))
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
