package guard_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// gate is a guard in front of a backend, over real HTTP, with a clock of its own.
type gate struct {
	*httptest.Server
	core *guard.Core
	db   *storage.DB
	dir  string
	keys *storage.Keyring

	config  guard.Config
	factors *guard.FactorSettings
	backend http.Handler
	first   *gate // whose clock it goes by; nil: its own

	mu     sync.Mutex
	now    time.Time
	events []detectors.Event
}

func (g *gate) advance(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.Add(d)
}

func (g *gate) clock() time.Time {
	if g.first != nil {
		return g.first.clock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *gate) happened() []detectors.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]detectors.Event(nil), g.events...)
}

// address is the header by which tests choose where a request comes from.
const address = "Test-Address"

// earlyData is the header by which they say that it comes as TLS early data.
const earlyData = "Test-Early-Data"

// setup is what a test may choose of a gate.
type setup struct {
	guard.Config
	factors *guard.FactorSettings
}

type option func(*setup)

func observing(t *testing.T) option {
	return func(c *setup) {
		for _, control := range guard.Controls() {
			var err error
			if c.Modes, err = c.Modes.Observe(control); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// settings are of a node alone, with its record in dir.
func settings(t testing.TB, dir string, keys *storage.Keyring, now func() time.Time, log *slog.Logger) guard.Settings {
	t.Helper()
	paper, err := record.Open(filepath.Join(dir, "record"), record.Config{Node: "test", Reserve: -1, Now: now, Log: log, Keys: func() []record.Key {
		k := keys.Current(storage.Seal)
		return []record.Key{{ID: k.ID, Secret: k.Bytes}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { paper.Close() })
	return guard.Settings{
		Node: "test", Stream: stream.New("test", uint64(now().UnixMicro()), now), Record: paper,
		Limiter: limits.New(limits.NewStore(0, now), now), Attempts: limits.NewAttempts(0), Now: now, Log: log,
	}
}

func newGate(t *testing.T, preset string, backend http.Handler, options ...option) *gate {
	t.Helper()
	ctx := context.Background()
	g := &gate{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	dir := t.TempDir()
	db, err := storage.Open(ctx, storage.Options{DataDir: dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	keys, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), true)
	if err != nil {
		t.Fatal(err)
	}
	g.dir, g.keys = dir, keys
	policy, err := policies.LoadPolicy(nil)
	if err != nil {
		t.Fatal(err)
	}
	config := setup{Config: guard.Config{Policy: policy}}
	for _, o := range options {
		o(&config)
	}
	s := settings(t, dir, keys, g.clock, log)
	s.Factors = config.factors
	core, err := guard.Open(ctx, db, keys, s)
	if err != nil {
		t.Fatal(err)
	}
	core.Mailing.Store(true)
	set, faults := shipped()
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	core.Rules.Store(set)
	core.Recall(ctx, "")
	g.core, g.db = core, db
	core.Stream.Subscribe(func(e detectors.Event) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.events = append(g.events, e)
	})
	var shipped = os.DirFS("testdata/backends")
	if config.Backend, err = policies.LoadBackend(preset, shipped); err != nil {
		t.Fatal(err)
	}
	g.config, g.factors, g.backend = config.Config, config.factors, backend
	g.serve(t, log)
	return g
}

// another is a second node over the same database.
func (g *gate) another(t *testing.T) *gate {
	t.Helper()
	other := &gate{first: g, db: g.db, keys: g.keys, dir: t.TempDir(), config: g.config, factors: g.factors, backend: g.backend}
	log := slog.New(slog.DiscardHandler)
	s := settings(t, other.dir, g.keys, g.clock, log)
	s.Node, s.Factors = "other", g.factors
	core, err := guard.Open(t.Context(), g.db, g.keys, s)
	if err != nil {
		t.Fatal(err)
	}
	core.Mailing.Store(true)
	core.Rules.Store(g.core.Rules.Load())
	core.Recall(t.Context(), "")
	other.core = core
	other.serve(t, log)
	return other
}

// serve serves the guarded backend.
func (g *gate) serve(t *testing.T, log *slog.Logger) {
	t.Helper()
	gd := guard.New(g.core, g.config)
	origin := httptest.NewServer(g.backend)
	t.Cleanup(origin.Close)
	target, err := url.Parse(origin.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := r.Header.Get(address)
		if from == "" {
			from = "198.51.100.1"
		}
		r.Header.Del(address)
		early := r.Header.Get(earlyData) != ""
		r.Header.Del(earlyData)
		err := gd.ServeHTTP(w, r, guard.Peer{Address: from, EarlyData: early}, func(w http.ResponseWriter, r *http.Request) error {
			proxy.ServeHTTP(w, r)
			return nil
		})
		if err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
	}))
	t.Cleanup(g.Server.Close)
}

// client is one browser or program: it keeps cookies, those that are for https
// only as well, since the tests' listener stands for one behind TLS.
type client struct {
	t       *testing.T
	gate    *gate
	cookies map[string]string
	header  http.Header
}

func (g *gate) client(t *testing.T) *client {
	return &client{t: t, gate: g, cookies: make(map[string]string), header: make(http.Header)}
}

type reply struct {
	status int
	header http.Header
	body   string
	set    []*http.Cookie
}

func (c *client) do(method, path, contentType, body string) reply {
	c.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, c.gate.URL+path, in)
	if err != nil {
		c.t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for name, lines := range c.header {
		r.Header[name] = lines
	}
	for name, value := range c.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	out := reply{res.StatusCode, res.Header, string(got), res.Cookies()}
	for _, ck := range out.set {
		if ck.Value == "" || ck.MaxAge < 0 {
			delete(c.cookies, ck.Name)
		} else {
			c.cookies[ck.Name] = ck.Value
		}
	}
	return out
}

func (c *client) login(name, password string) reply {
	c.t.Helper()
	return c.do("POST", "/login", "application/json", `{"email":"`+name+`","password":"`+password+`"}`)
}

func (c *client) get(path string) reply { c.t.Helper(); return c.do("GET", path, "", "") }

// wantSecret asserts what the client is able to read.
func (c *client) wantSecret(account string) {
	c.t.Helper()
	got := c.get("/secret")
	switch {
	case account == "" && (got.status == 200 || strings.Contains(got.body, "secret of")):
		c.t.Errorf("GET /secret = %d %q, want nothing", got.status, got.body)
	case account != "" && got.body != "secret of "+account:
		c.t.Errorf("GET /secret = %d %q, want the secret of %s", got.status, got.body, account)
	}
}

// shipped are the shipped rules, loaded once: that runs their tests.
func shipped() (*rules.Set, []error) {
	set, faults := shippedOnce()
	return set.Fresh(), faults
}

var shippedOnce = sync.OnceValues(func() (*rules.Set, []error) { return rules.Load(rules.Shipped) })
