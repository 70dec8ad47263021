// Package guard is the way of a request through the gate, as plain net/http.
//
// It promises:
//
//   - No credential of the backend that is not tied to a live session of ours
//     reaches the backend, unless the backend itself calls it anonymous; and no
//     answer that makes a client authenticated leaves without such a session.
//   - A login attempt is counted for every name it could be read to carry,
//     before the backend sees it, and its outcome is known to detectors and rules
//     before the answer leaves.
//   - Whoever is asked for more than a password before the backend saw it does not learn
//     whether that was right; see decoy.go for what remains.
//   - In observe mode nothing on the wire differs; the ledger tells what would
//     have happened.
//
// It does not inspect WebSocket frames, does not protect a backend that can be
// reached around it, and knows only the credentials that the preset names.
//
// A [Core] is the state that all guarded sites of a process share; a [Guard]
// protects one backend with it.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/account"
	"github.com/kidoban/kidoban/gateway/assertion"
	"github.com/kidoban/kidoban/gateway/attempt"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Handler answers a request or returns an error for the server to render.
type Handler func(http.ResponseWriter, *http.Request) error

// Peer is what the server knows of a connection and a handler does not.
type Peer struct {
	Address   string // the client's address, after trusted proxies were taken into account
	Port      uint16
	EarlyData bool   // the request came as TLS 1.3 early data (0-RTT): unverified source, replayable
	JA4       string // of the TLS client, without what resumption adds; empty: unknown

	// Prepare makes a request of our own fit for the server's handlers.
	Prepare func(*http.Request, http.ResponseWriter) *http.Request
}

// Control is a part of the gate that can be set to observe by itself.
type Control string

const (
	ControlDecisions Control = "decisions" // decisions and the rules that make them
	ControlAttempts  Control = "attempts"  // the login-attempt limit
	ControlLimits    Control = "limits"    // named request limits
	ControlSessions  Control = "sessions"  // our sessions, credentials, unseen doors
)

// Controls lists every control, in the order a request meets them.
func Controls() []Control {
	return []Control{ControlDecisions, ControlAttempts, ControlLimits, ControlSessions}
}

// Modes says which controls only observe. The zero value enforces everything.
type Modes struct {
	decisions, attempts, limits, sessions bool // true: observe
}

// Observe returns m with control c observing.
func (m Modes) Observe(c Control) (Modes, error) {
	switch c {
	case ControlDecisions:
		m.decisions = true
	case ControlAttempts:
		m.attempts = true
	case ControlLimits:
		m.limits = true
	case ControlSessions:
		m.sessions = true
	default:
		return m, errors.New("unknown control " + string(c) + ": want decisions, attempts, limits or sessions")
	}
	return m, nil
}

// Observes reports whether control c only observes.
func (m Modes) Observes(c Control) bool {
	with, err := m.Observe(c)
	return err == nil && with == m
}

// Core is the state that the guarded sites of a process share. All fields but
// Locator and Counted are required, and none changes after the first request.
type Core struct {
	Sessions  *auth.Sessions
	Directory *auth.Directory
	Devices   *auth.Devices
	Decisions *policies.Decisions
	Ledger    *policies.Ledger
	Outbox    *policies.Outbox
	Findings  *policies.Findings
	Incidents *policies.Incidents
	Detectors *detectors.Set
	Rules     *atomic.Pointer[rules.Set]
	Limiter   *limits.Limiter
	Attempts  *limits.Attempts
	Stream    *stream.Stream
	Record    *record.Log
	Sockets   *Sockets
	Factors   *auth.Factors // nil, as the next two: there are no second factors
	Holds     *auth.Holds
	Slips     *auth.Slips
	Locator   Locator                             // nil: ASN and country are unknown
	Digest    func(label, text string) [16]byte   // keyed
	Digests   func(label, text string) [][16]byte // by all keys that are good, the current first
	Now       func() time.Time
	Log       *slog.Logger

	subscriptions atomic.Pointer[[]Subscription]
	clocks        atomic.Pointer[policies.Clocks]
	assertions    *assertion.Signer

	// RecordOptional lets log-ins and operators' acts go on while the record cannot be
	// written. They are then not on it.
	RecordOptional atomic.Bool

	// Mailing says that mail is sent: people can be told of what concerns them.
	Mailing atomic.Bool

	origins []string // where people reach the service; empty without second factors

	node       string
	shared     bool            // other nodes change the database too
	room       func() bool     // nil: always
	behind     atomic.Bool     // the last reconciliation failed
	unwritable atomic.Bool     // the last sweep failed
	alarms     map[string]bool // campaign alarms that were on at the last sweep
	findings   findings
	falls      atomic.Pointer[map[rules.ID]policies.Fallen] // rules in force that have fallen
	agreement  agreement
	intents    intents
	logouts    logouts
	starting   *starting     // not on record yet; of beginRecord and settle alone
	noting     *rate.Limiter // of rules' decisions, on the record one by one

	vain    *rate.Limiter // of tokens that are not accepted: see usedInVain
	slow    slow          // tries at decoys
	tickets tickets       // of log-ins that were stepped up
	told    tellings      // by rules

	announcing time.Duration // how long an act waits for its entry
	complaints complaints

	// Breached reports whether a password is on a list of breached ones, soon; nil: there
	// is no list.
	Breached func(ctx context.Context, password string) bool

	// Drifted is told when the answers of a backend stop fitting its preset, and when they
	// fit again; nil: nobody is.
	Drifted func(backend string, change policies.DriftChange)

	// Counted is told of every verdict stricter than allow; nil: nobody is.
	Counted func(c Control, a rules.Action, reason policies.Reason, observed bool)
}

// Guard protects one backend. It is immutable and safe for concurrent use.
type Guard struct {
	*Core
	backend           *policies.Backend
	modes             Modes
	limits            []limits.Limit
	buckets           limits.LoginBucketSet
	delay             time.Duration
	routes            map[detectors.RouteClass]*routeBuckets
	answerAfter       time.Duration // of uniform answers
	reader            attempt.Reader
	cookieCredentials []*policies.Credential
	headerCredentials []*policies.Credential
	mints             []detectors.RouteClass // classes whose answers may hold a credential
	loginMethods      []string
	asserted          assertion.Site // no audience: nothing is asserted
	anonymous         *anonymousCache
	factorPolicy      policies.FactorPolicy
	site              pages.Site
	desk              *account.Desk
	drift             policies.Drift
	identifying       chan struct{} // bounds identify requests in flight
	observing         chan struct{} // bounds identify requests of observe mode in flight
	asking            chan struct{} // bounds requests whose backend works on after the answer
}

// Config is what one site sets.
type Config struct {
	Backend *policies.Backend
	Modes   Modes
	Policy  policies.Policy
	Limits  []limits.Limit
	Site    pages.Site     // how the service presents itself to people
	MaxBody int64          // bytes of a login body; 0: 64 KiB
	Assert  assertion.Site // to whom the gate asserts whom it let in; zero: to nobody
}

// New returns a guard of cfg.Backend over core.
func New(core *Core, cfg Config) *Guard {
	g := &Guard{
		Core: core, backend: cfg.Backend, modes: cfg.Modes, limits: cfg.Limits,
		buckets:      buckets(cfg.Policy.Attempts),
		delay:        cfg.Policy.Delay,
		factorPolicy: cfg.Policy.Factors,
		site:         cfg.Site,
		routes:       routesOf(cfg.Policy.Routes),
		answerAfter:  cfg.Policy.Routes.Answer,
		reader: attempt.Reader{
			NameFields:     slices.Concat(cfg.Backend.Login.Name.Form, cfg.Backend.Login.Name.JSON),
			PasswordFields: slices.Concat(cfg.Backend.Login.Password.Form, cfg.Backend.Login.Password.JSON),
			MaxBody:        cfg.MaxBody,
		},
		asserted:    cfg.Assert,
		anonymous:   newAnonymousCache(),
		identifying: make(chan struct{}, 256),
		observing:   make(chan struct{}, 64),
		asking:      make(chan struct{}, askingMax),
	}
	for i := range cfg.Backend.Credentials {
		c := &cfg.Backend.Credentials[i]
		if c.Kind == policies.CookieCredential {
			g.cookieCredentials = append(g.cookieCredentials, c)
		} else {
			g.headerCredentials = append(g.headerCredentials, c)
		}
		for _, m := range c.Minted {
			g.mints = append(g.mints, m.Class)
		}
	}
	for _, route := range cfg.Backend.Routes {
		if route.Class == detectors.LoginRoute {
			g.loginMethods = append(g.loginMethods, route.Methods...)
			if len(route.Methods) == 0 {
				g.loginMethods = append(g.loginMethods, http.MethodPost)
			}
		}
	}
	if core != nil && core.Factors != nil {
		g.desk = core.newDesk(cfg.Site)
	}
	return g
}

// buckets are the policy's allowances as the limiter takes them.
func buckets(p policies.AttemptPolicy) limits.LoginBucketSet {
	bucket := func(name string, a policies.Allowance) limits.Bucket {
		return limits.Bucket{Name: name, Every: a.Every, Burst: a.Burst}
	}
	return limits.LoginBucketSet{
		Network: bucket("network", p.Network), Name: bucket("name", p.Name), Device: bucket("device", p.Device),
	}
}

// visit is one request on its way through a guard.
type visit struct {
	guard *Guard
	r     *http.Request
	peer  Peer
	next  Handler
	now   time.Time

	closes    uint64 // of the socket registry when the visit began
	source    detectors.Source
	method    string // after method overrides
	path      string // canonical
	ambiguous bool
	class     detectors.RouteClass

	crumbs   crumbs
	session  *auth.Session // live, and proven by our cookie or by a header credential; nil otherwise
	approved []presented   // credentials of session that the request carries
	open     []presented   // credentials the backend calls anonymous: passed on, checked again on the answer
	stale    bool          // the client's session cookie of ours is of no use any more

	login   *login           // set on login routes
	pending *pending         // to be held once the answer is there as a whole
	stepUp  bool             // a decision asks for more proof than a password
	because policies.Verdict // what asked for it, or for a factor after the login
	mint    bool             // the answer may hold a token of session's account
	cookies []string         // Set-Cookie lines of ours for the answer

	// Parts that live as long as the visit, in its own memory: it is one allocation
	// a request.
	socket    socket
	answer    answer
	presented [2]presented // room for crumbs.presented
	proved    [2]presented // room for approved
}

// guards reports whether sessions are enforced.
func (v *visit) guards() bool { return !v.guard.modes.sessions }

// ServeHTTP guards one request on its way to next.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request, peer Peer, next Handler) error {
	v := &visit{guard: g, r: r, peer: peer, next: next, now: g.Now(), source: g.source(peer), closes: g.Sockets.closes.Load()}
	if v.guards() {
		clean(r)
		v.guardTrailers()
	}
	v.classify()
	if strings.HasPrefix(v.path, OwnPath) && v.guards() {
		return g.servePage(w, v)
	}
	if refusal := v.admit(); refusal != nil {
		return refusal.write(w, r)
	}
	if done, err := g.serveHeld(w, v); done {
		return err
	}
	if v.class == detectors.LoginRoute {
		return g.serveLogin(w, v)
	}
	if refusal := v.authenticate(); refusal != nil {
		return refusal.write(w, r)
	}
	if refusal := v.admittance(); refusal != nil {
		return refusal.write(w, r)
	}
	if done, err := g.demandFactor(w, v); done {
		return err
	}
	if done, err := g.serveCounted(w, v); done {
		return err
	}
	if done, err := g.serveMessage(w, v); done {
		return err
	}
	return g.forward(w, v)
}

// classify reads method and path as the laxest backend might.
func (v *visit) classify() {
	v.path, v.ambiguous = policies.CanonicalPath(v.r.URL.EscapedPath())
	method, overridden := attempt.Override(v.r)
	if method == http.MethodConnect {
		method = http.MethodGet // extended CONNECT opens a socket where HTTP/1.1 has a GET (RFC 8441 section 5)
	}
	v.method = method
	v.class = v.guard.backend.Class(method, v.path)
	if v.class == detectors.LoginRoute {
		v.ambiguous = v.ambiguous || overridden
		return
	}
	// A login path asked in another way is still a login if it could carry one.
	if v.guard.loginPath(v.path) && (overridden || !safe(v.r.Method) || v.r.ContentLength != 0 || v.guard.reader.InQuery(v.r)) {
		v.class, v.ambiguous = detectors.LoginRoute, true
	}
}

// loginPath reports whether a canonical path is one of a login route, whatever the method.
func (g *Guard) loginPath(path string) bool {
	for _, method := range g.loginMethods {
		if g.backend.Class(method, path) == detectors.LoginRoute {
			return true
		}
	}
	return false
}

// safe reports whether a method is safe (RFC 9110 section 9.2.1), or opens a socket
// as a GET does.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return true
	}
	return false
}

// safe reports whether the request is safe both as it was sent and as a backend
// that follows overrides reads it.
func (v *visit) safe() bool { return safe(v.r.Method) && safe(v.method) }

// admit is what every request meets first: early data, our session, decisions
// and limits. It returns nil to let the request go on.
func (v *visit) admit() *refusal {
	g := v.guard
	if v.peer.EarlyData && v.guards() && (!v.safe() || v.class != detectors.Other && v.class != detectors.Public) {
		// RFC 8470 section 5.2: the client repeats it once the handshake is done.
		return &refusal{status: http.StatusTooEarly, reason: policies.ReasonEarlyData}
	}
	v.readCookies()
	if v.crumbs.session != "" {
		s, err := g.Sessions.ByToken(v.r.Context(), v.crumbs.session, v.now)
		switch {
		case err == nil && !g.logouts.has(s.ID):
			v.session = s
		case err == nil, errors.Is(err, auth.ErrNoSession), errors.Is(err, auth.ErrSessionEnded), errors.Is(err, auth.ErrExpired):
			v.stale = true
		default:
			g.complain("session store", "error", err)
			if v.guards() {
				return v.refuse(ControlSessions, unavailable)
			}
		}
	}
	if v.class == detectors.LoginRoute {
		v.disown() // the rest is decided with the names that the attempt carries
	} else if refusal := v.decided(policies.Subject{}); refusal != nil {
		return refusal
	}
	return v.limited()
}

// disown takes a login attempt's session from it where a decision refuses that
// session or its account: its credentials do not reach the backend then.
func (v *visit) disown() {
	if v.session == nil || v.guard.modes.decisions {
		return
	}
	s := v.subject()
	s.Address, s.ASN, s.Country = netip.Addr{}, 0, ""
	if enforced, _ := v.guard.match(s, v.now); enforced.Action >= rules.Refuse {
		v.session, v.stale = nil, true
	}
}

// subject is what decisions may be about, as far as it is known before a login. It
// has no client program: those are told apart by what they send with a login.
func (v *visit) subject() policies.Subject {
	s := policies.Subject{Address: v.source.Address, ASN: v.source.ASN, Country: v.source.Country}
	if v.session != nil {
		// Who is in was let in; what others at the place do is not about them.
		s.Account, s.Session, s.Device, s.OwnDevice = v.session.Subject, v.session.ID, v.session.Device, true
	}
	return s
}

// decided asks the live decisions about a request that is no login. Step-up and
// delay speak of log-ins only: who is in stays in, unless refused outright.
func (v *visit) decided(s policies.Subject) *refusal {
	if s == (policies.Subject{}) {
		s = v.subject()
	}
	enforced, shadow := v.guard.match(s, v.now)
	for _, d := range []*policies.Decision{&enforced, &shadow} {
		if d.ID == "" || d.Action < rules.Refuse {
			continue
		}
		verdict := policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonDecision, Rule: d.Rule, Decision: d.ID, Until: d.Until}
		observed := d == &shadow || v.guard.modes.decisions
		if refusal := v.conclude(ControlDecisions, verdict, observed); refusal != nil {
			return refusal
		}
	}
	return nil
}

// limited charges the named limits that concern the request.
func (v *visit) limited() *refusal {
	g := v.guard
	if len(g.limits) == 0 {
		return nil
	}
	var room [8]limits.Charge
	charges := room[:0]
	for i := range g.limits {
		l := &g.limits[i]
		if len(l.Match) > 0 && !slices.Contains(l.Match, v.routeName()) {
			continue
		}
		if key, ok := v.limitKey(l.Key); ok {
			charges = append(charges, limits.Charge{Limit: l, Key: key})
		}
	}
	if len(charges) == 0 {
		return nil
	}
	d := g.Limiter.Take(context.WithoutCancel(v.r.Context()), charges)
	for range d.Shadow {
		v.count(ControlLimits, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit}, true, v.session != nil)
	}
	if d.Allowed {
		return nil
	}
	verdict := policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: d.Reset}
	refusal := v.conclude(ControlLimits, verdict, g.modes.limits)
	if refusal != nil && v.class == detectors.Other { // elsewhere nothing is told that counts
		told := d // on its own, so that d need not escape
		refusal.retryAfter, refusal.limit = d.RetryAfter, &told
	}
	return refusal
}

func (v *visit) routeName() string {
	if v.class == detectors.Other {
		return "other"
	}
	return string(v.class)
}

func (v *visit) limitKey(kind limits.KeyKind) (string, bool) {
	switch kind {
	case limits.KeyAddress:
		return v.source.Address.String(), true
	case limits.KeyNetwork:
		return v.source.Network.String(), true
	case limits.KeyRoute:
		return v.routeName(), true
	}
	if v.session == nil {
		return "", false
	}
	switch kind {
	case limits.KeyAccount:
		return v.session.Subject, true
	case limits.KeySession:
		return v.session.ID, true
	case limits.KeyOrganization:
		return v.session.Organization, v.session.Organization != ""
	case limits.KeyDevice:
		return v.session.Device, v.session.Device != ""
	}
	return "", false
}

// conclude counts a verdict that is stricter than allow and turns it into a
// refusal, unless it is only observed.
func (v *visit) conclude(c Control, verdict policies.Verdict, observed bool) *refusal {
	v.count(c, verdict, observed, v.session != nil)
	if observed {
		return nil
	}
	return v.refusal(verdict)
}

// count counts a verdict in the ledger, and on the record if it was acted on.
func (v *visit) count(c Control, x policies.Verdict, observed, device bool) {
	g := v.guard
	g.Ledger.Count(v.now, string(c), x.Action, x.Reason, x.Rule, observed, device)
	if g.Counted != nil {
		g.Counted(c, x.Action, x.Reason, observed)
	}
	if !observed {
		g.Record.Count(record.Denial{Time: v.now, Kind: denialPrefix + string(c), Reason: string(x.Reason), Key: v.source.Network.String()})
	}
}

// report logs something about a visit that an operator should know.
func (g *Guard) report(v *visit, message string, args ...any) {
	g.Log.Warn(message, append(args, "route", v.routeName(), "source", v.source.Network.String())...)
}

// forward sends the request on and judges the answer.
func (g *Guard) forward(w http.ResponseWriter, v *visit) (err error) {
	r := v.r
	if v.session != nil {
		ctx := g.Sockets.open(r.Context(), &v.socket, v.session.ID)
		defer g.Sockets.done(&v.socket)
		if g.Sockets.closes.Load() != v.closes {
			if refusal := v.stillLive(); refusal != nil {
				return refusal.write(w, r)
			}
		}
		r = r.WithContext(ctx)
		v.r = r
		if v.now.Sub(v.session.Seen) >= time.Minute { // finer is not noted
			g.Sessions.Touch(v.session.ID, v.now)
		}
		if refusal := v.assert(); refusal != nil {
			return refusal.write(w, r)
		}
	}
	a := v.answerTo(w)
	if v.mint && v.guards() {
		a.hold = maxInspected
		r.Header.Del("Accept-Encoding")
	}
	defer func() {
		err = a.finish(recover(), err)
		if err != nil && a.status == 0 && errors.Is(context.Cause(r.Context()), errSessionEnded) {
			// Cut off before the backend said anything: there is room for the reason.
			err = v.endedMeanwhile().write(w, r)
		}
		a.abort()
	}()
	return v.next(a, r)
}

// stillLive looks again at a session that may have ended between its check and
// the registration of the request.
func (v *visit) stillLive() *refusal {
	if !v.guards() {
		return nil
	}
	var err error
	if v.session.Kind == auth.TokenSession {
		p := v.approved[0]
		_, err = v.guard.Sessions.ByCredential(v.r.Context(), p.credential.Name, auth.HashCredential(p.credential.Name, p.value), v.now)
	} else {
		_, err = v.guard.Sessions.ByToken(v.r.Context(), v.crumbs.session, v.now)
	}
	if err != nil || v.guard.logouts.has(v.session.ID) {
		return v.endedMeanwhile()
	}
	return nil
}

// endedMeanwhile is the answer to a request whose session ended before the backend
// said anything. A page is asked for once more, without the session: who logged out,
// and whose page was on its way to the login form by itself, sees that form.
func (v *visit) endedMeanwhile() *refusal {
	v.stale = true
	refusal := v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonSessionEnded})
	if v.r.Method == http.MethodGet && wantsHTML(v.r) {
		refusal.again = localPath(v.r.URL.RequestURI())
	}
	return refusal
}

// maxInspected bounds how much of an answer is kept back to be looked into.
const maxInspected = 64 << 10
