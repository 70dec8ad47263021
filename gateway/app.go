// Package gateway is Kidoban as modules of Caddy: an app that owns all state, a
// handler that guards a site, and a handler that serves the operators' API. The
// modules are thin; the way of a request is in package guard.
//
// State lives in one runtime per data directory. It survives a reload of the
// configuration and is closed when the last configuration that uses it has gone.
package gateway

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/kidoban/kidoban/gateway/breached"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func init() { caddy.RegisterModule(new(App)) }

// App is the part of Kidoban that all sites share.
//
// In a Caddyfile it is the global option `kidoban`; see parseGlobal for its grammar.
type App struct {
	// DataDir holds the database, the keyring, the record, the journal of events, what
	// detectors know, and the last good versions of files; of one process at a time. Default: the
	// directory "kidoban" in Caddy's own data directory.
	DataDir string `json:"data_dir,omitempty"`

	// Service is what pages, authenticator apps and letters call the service; 1 to 64
	// characters without a colon. Default: the service of Mail, else the host of the
	// first origin.
	Service string `json:"service,omitempty"`

	// Logo is an image file that pages show: SVG, PNG or WebP of at most 32 KiB.
	// Default: a mark of Kidoban.
	Logo string `json:"logo,omitempty"`

	// Origins are where people reach the service, such as https://chat.example.com.
	// Links in letters and of log-ins that continue in a browser lead to the first;
	// passkeys work on all of them. Without one there are no second factors.
	Origins []string `json:"origins,omitempty"`

	// RPID is the domain that passkeys are for: the host of every origin or a domain
	// above all of them. Another one later makes all passkeys useless. Default: the
	// host of the first origin.
	RPID string `json:"rp_id,omitempty"`

	// Node names this process among the nodes of one installation; every node needs
	// a name of its own, and keeps it across restarts. Default: the host's name.
	Node string `json:"node,omitempty"`

	// Database is where decisions, sessions, devices, the directory and notices are
	// kept: the address of a PostgreSQL server, best written as {env.DATABASE_URL}.
	// Default: SQLite in DataDir, which is for one node.
	Database Secret `json:"database,omitempty"`

	// Redis carries events between nodes and counts the limits that they share.
	// Without it each node knows of its own events and limits only.
	Redis *Redis `json:"redis,omitempty"`

	// RecordOptional lets log-ins and operators' acts go on while the record cannot be
	// written, for instance on a full disk. They are then not on it. Default: they
	// are refused until it can.
	RecordOptional bool `json:"record_optional,omitempty"`

	// Webhooks are told of decisions.
	Webhooks []Webhook `json:"webhooks,omitempty"`

	// Mail is how letters are sent: to operators of decisions, to people of what
	// happened to their accounts.
	Mail *Mail `json:"mail,omitempty"`

	// GeoIP lists MaxMind DB files (country, city or ASN). Without them ASN and
	// country are unknown, and decisions about them match nobody.
	GeoIP []string `json:"geoip,omitempty"`

	// Breached is a file of breached passwords that `kidoban breached build` made.
	// One that replaces it is taken over. Default: none is known.
	Breached string `json:"breached,omitempty"`

	// BreachedAPI is the address of a range API that is asked for passwords beside,
	// such as https://api.pwnedpasswords.com. The first 20 bits of a password's hash
	// leave the gate then. Default: nobody is asked.
	BreachedAPI string `json:"breached_api,omitempty"`

	// Rules is a directory of rule files (*.yaml) that are loaded beside the
	// shipped ones. A file that does not check is left out and told about.
	Rules string `json:"rules,omitempty"`

	// RulesMemory bounds what the counters of rules take of memory.
	RulesMemory RulesMemory `json:"rules_memory,omitzero"`

	// Policies is a directory of your own with policy.yaml, which is read over the
	// shipped one, and a folder backends/ with presets. Both are optional.
	Policies string `json:"policies,omitempty"`

	// Observe lists the controls that only watch: decisions, attempts, limits,
	// sessions, or all. What they would have done is in `kidoban report`.
	Observe []string `json:"observe,omitempty"`

	// Limits are request limits, charged together for each request.
	Limits []Limit `json:"limits,omitempty"`

	// LaxForwarding allows trusted_proxies without trusted_proxies_strict. The
	// left-most forwarded address is then believed, which a client behind an
	// appending proxy can forge. Default: refuse to start.
	LaxForwarding bool `json:"lax_forwarding,omitempty"`

	service  service
	modes    guard.Modes
	policy   policies.Policy          // in force; guarded by the lock of the runtime's files once it is open
	database string                   // the address, with its secrets
	redis    storage.RedisConfig      // its URL is empty where there is none
	senders  map[string]outbox.Sender // of webhooks, by name
	mailer   *mail.Mailer             // nil: no mail is sent

	subscriptions []guard.Subscription
	limits        []limits.Limit
	logger        *zap.Logger
	context       caddy.Context
	cautions      []error    // what is configured and will hurt; set by Start
	checked       *rules.Set // the rules as Provision found them, until they are read for use
	handlers      []*Handler // of this configuration; complete once it is provisioned

	mu      sync.Mutex // guards the fields below
	runtime *runtime   // while this app holds a reference, or did
	held    bool
	over    bool // Cleanup was called
}

// Limit is a named request limit.
type Limit struct {
	// Name is what clients of an API and metrics see.
	Name string `json:"name"`
	// Key is what is counted: address, network, account, session, organization,
	// device or route. A request without such a thing is not charged.
	Key string `json:"key"`
	// Rate is a count per period, such as "600/1m".
	Rate string `json:"rate"`
	// Routes are the route classes it concerns; empty: all. "other" stands for
	// routes without a class. Log-ins have limits of their own as well, in the policy.
	Routes []string `json:"routes,omitempty"`
	// Observe counts and reports without refusing.
	Observe bool `json:"observe,omitempty"`
}

// RulesMemory is what the counters of rules may take, in bytes. When there is no room
// they count several sources as one, and forget last; `GET /v1/counters` and the metrics
// kidoban_rules_* tell.
type RulesMemory struct {
	// Total is for all counters together, 1 MiB to 64 GiB. Default: 256 MiB.
	Total int64 `json:"total,omitempty"`
	// Counter is the most for one counter, 64 KiB to the total. Default: 64 MiB, or the
	// total if that is less.
	Counter int64 `json:"counter,omitempty"`
}

func (m RulesMemory) limits() rules.Limits { return rules.Limits{Counter: m.Counter, Total: m.Total} }

// CaddyModule implements caddy.Module.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "kidoban", New: func() caddy.Module { return new(App) }}
}

// Provision checks the configuration. It opens nothing: `caddy validate` must be
// able to run beside a live gateway.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger, a.context = ctx.Logger(), ctx
	if a.DataDir == "" {
		a.DataDir = filepath.Join(caddy.AppDataDir(), "kidoban")
	}
	dir, err := filepath.Abs(a.DataDir)
	if err != nil {
		return fmt.Errorf("data_dir %q: %w", a.DataDir, err)
	}
	a.DataDir = dir
	if a.modes, err = parseModes(guard.Modes{}, a.Observe); err != nil {
		return err
	}
	if err := a.provisionOrigins(); err != nil {
		return err
	}
	if err := a.provisionNode(); err != nil {
		return err
	}
	if err := a.provisionSite(); err != nil {
		return err
	}
	if len(a.Limits) > 8 {
		return fmt.Errorf("limits: %d given, want at most 8", len(a.Limits))
	}
	names := make(map[string]bool)
	for i, l := range a.Limits {
		parsed, err := l.parse()
		if err != nil {
			return fmt.Errorf("limit %d (%q): %w", i+1, l.Name, err)
		}
		if names[l.Name] {
			return fmt.Errorf("limit %d: the name %q is taken already; counters are kept by name", i+1, l.Name)
		}
		names[l.Name] = true
		a.limits = append(a.limits, parsed)
	}
	if err := a.RulesMemory.limits().Validate(); err != nil {
		return fmt.Errorf("rules_memory: %w", err)
	}
	if a.BreachedAPI != "" {
		if _, err := breached.NewRanges(a.BreachedAPI, time.Now); err != nil {
			return fmt.Errorf("breached_api: %w", err)
		}
	}
	policy, left, err := policies.LoadPolicyWithHistory(a.ownPolicies(), reader{openHistory(a.DataDir).policies})
	if err != nil {
		return err
	}
	if left != nil {
		a.logger.Error("left out", zap.Error(left))
	}
	a.policy = policy
	if a.Rules != "" { // who validates wants to know; a gate starts without what does not check
		var faults []error
		a.checked, faults = a.loadRules(reader{openHistory(a.DataDir).rules}, nil)
		for _, fault := range faults {
			a.logger.Error("left out", zap.Error(fault))
		}
	}
	return registerMetrics(ctx)
}

func (l Limit) parse() (limits.Limit, error) {
	rate, err := limits.ParseRate(l.Rate)
	if err != nil {
		return limits.Limit{}, err
	}
	parsed := limits.Limit{Name: l.Name, Key: limits.KeyKind(l.Key), Rate: rate, Match: l.Routes}
	if l.Observe {
		parsed.Mode = limits.Shadow
	}
	return parsed, parsed.Validate()
}

func parseModes(m guard.Modes, names []string) (guard.Modes, error) {
	for _, name := range names {
		controls := []guard.Control{guard.Control(name)}
		if name == "all" {
			controls = guard.Controls()
		}
		for _, c := range controls {
			var err error
			if m, err = m.Observe(c); err != nil {
				return m, fmt.Errorf("observe: %w", err)
			}
		}
	}
	return m, nil
}

// Start opens the state, or takes over what a previous configuration left.
func (a *App) Start() error {
	a.cautions = hasty(a.context)
	for _, c := range a.cautions {
		a.logger.Warn(c.Error())
	}
	if len(a.service.origins) == 0 {
		a.logger.Warn("there are no second factors: say by the option origin where people reach the service")
	}
	_, err := a.open()
	return err
}

// open returns the runtime. Caddy starts apps in no particular order, so the
// first request may come before Start.
func (a *App) open() (*runtime, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.runtime != nil {
		return a.runtime, nil
	}
	if a.over { // nobody would give it back
		return nil, errors.New("this configuration has ended")
	}
	value, loaded, err := runtimes.LoadOrNew(a.DataDir, func() (caddy.Destructor, error) { return newRuntime(a) })
	if err != nil {
		return nil, fmt.Errorf("opening the state in %s: %w", a.DataDir, err)
	}
	rt := value.(*runtime)
	if loaded {
		if rt.identity != a.identity() {
			_, err := runtimes.Delete(a.DataDir)
			return nil, errors.Join(errors.New("node, database, redis, origin and rp_id of a running gate stay as they are in a reload: restart it to change them"), err)
		}
		rt.configure(a)
	}
	a.runtime, a.held = rt, true
	return rt, nil
}

// identity is what state this is, beside the directory.
func (a *App) identity() string {
	parts := []string{a.Node, a.database, a.redis.URL, a.redis.CA, a.redis.Certificate, a.redis.Key}
	if a.Redis != nil {
		parts = append(parts, a.Redis.prefix())
	}
	parts = append(parts, a.service.rpID)
	parts = append(parts, a.service.origins...)
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%q", parts)))
}

// add notes a handler of this configuration.
func (a *App) add(h *Handler) { a.handlers = append(a.handlers, h) }

// Stop implements caddy.App. What must end, ends in Cleanup, when no request of
// this configuration can need it as its own.
func (a *App) Stop() error { return nil }

// Cleanup gives back this configuration's hold on the runtime. It also runs
// after a failed Provision.
func (a *App) Cleanup() error {
	a.mu.Lock()
	held := a.held
	a.held, a.over = false, true
	a.mu.Unlock()
	if !held {
		return nil
	}
	a.runtime.release(a)
	_, err := runtimes.Delete(a.DataDir)
	return err
}

// startTimeout bounds opening the state. A million decisions and what the detectors
// remember are read in some ten seconds, and a machine that is busy with what the gate was
// restarted for takes several times as long; a gate that gives up then helps nobody.
const startTimeout = 5 * time.Minute

var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
