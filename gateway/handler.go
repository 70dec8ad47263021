package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/kidoban/kidoban/gateway/assertion"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler guards the routes that follow it, most often a reverse_proxy to the
// backend. It belongs inside response compression and before whatever answers.
//
// In a Caddyfile it is the directive `kidoban`; see parseHandler for its grammar.
type Handler struct {
	// Backend is the name of the preset that describes the service behind the
	// gate: a file policies/backends/NAME.yaml of yours, or a shipped one.
	Backend string `json:"backend"`

	// Observe lists the controls that only watch on this site, in addition to
	// those of the app.
	Observe []string `json:"observe,omitempty"`

	// MaxLoginBody is the largest login body that is read, in bytes. Default: 65536.
	MaxLoginBody int64 `json:"max_login_body,omitempty"`

	// Assert has the gate tell the backend, under a signature, whose session each
	// request rides on.
	Assert *Assert `json:"assert,omitempty"`

	app     *App
	backend atomic.Pointer[policies.Backend]
	modes   guard.Modes
	site    assertion.Site
	server  *caddyhttp.Server
	logger  *zap.Logger
	guard   atomic.Pointer[guard.Guard]
}

// Assert says between whom assertions are. The keys that verify them are at
// ISSUER/.kidoban/jwks.json.
type Assert struct {
	// Audience is what the backend calls itself.
	Audience string `json:"audience"`
	// Issuer is the site's origin: https://HOST[:PORT], as browsers know it.
	Issuer string `json:"issuer"`
}

// site checks and returns what the guard needs; zero where nothing is asserted.
func (a *Assert) site() (assertion.Site, error) {
	if a == nil {
		return assertion.Site{}, nil
	}
	u, err := url.Parse(a.Issuer)
	switch {
	case a.Audience == "" || len(a.Audience) > 255:
		return assertion.Site{}, errors.New("assert: the audience is missing or too long: name the backend as it calls itself")
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+u.Host != a.Issuer:
		return assertion.Site{}, fmt.Errorf("assert: issuer %.255q: want the origin of the site, such as https://chat.example.com", a.Issuer)
	}
	return assertion.Site{Issuer: a.Issuer, Audience: a.Audience}, nil
}

// CaddyModule implements caddy.Module.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.kidoban", New: func() caddy.Module { return new(Handler) }}
}

// Provision loads the preset and checks how the server learns client addresses.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	app, err := ctx.App("kidoban")
	if err != nil {
		return fmt.Errorf("the kidoban app: %w", err)
	}
	h.app = app.(*App)
	if h.modes, err = parseModes(h.app.modes, h.Observe); err != nil {
		return err
	}
	if h.site, err = h.Assert.site(); err != nil {
		return err
	}
	if h.Assert != nil && h.modes.Observes(guard.ControlSessions) {
		h.logger.Warn("sessions only observe on this site, so no request carries an assertion: the backend must not ask for one yet")
	}
	if h.Backend == "" {
		return errors.New("backend is missing: name a preset, such as chatcore")
	}
	b, left, err := policies.LoadBackendWithHistory(h.Backend, h.app.ownPolicies(), reader{openHistory(h.app.DataDir).policies})
	if err != nil {
		return err
	}
	if left != nil {
		h.logger.Error("left out", zap.Error(left))
	}
	h.backend.Store(b)
	if h.MaxLoginBody < 0 || h.MaxLoginBody > 1<<20 {
		return fmt.Errorf("max_login_body %d: want 1 to 1048576 bytes, or 0 for the default", h.MaxLoginBody)
	}
	h.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	seeHandshakes(h.server)
	h.app.add(h)
	return checkForwarding(h.server, h.app.LaxForwarding)
}

// checkForwarding refuses a server that believes the left-most forwarded address:
// behind a proxy that appends, every client could choose its own address.
func checkForwarding(s *caddyhttp.Server, lax bool) error {
	if s == nil || s.TrustedProxiesStrict > 0 || lax || !trustsProxies(s) {
		return nil
	}
	return errors.New("this server trusts forwarding headers (trusted_proxies) without trusted_proxies_strict: " +
		"a client could then choose the address it is counted under; add `trusted_proxies_strict` to `servers`, " +
		"or, if every trusted proxy replaces the header, set `lax_forwarding` in the kidoban options")
}

// trustsProxies reports whether s has trusted proxies. Caddy clears the raw
// configuration once it has loaded it, and that is before handlers are made, so
// the loaded module itself must be looked at; only whether it is there.
func trustsProxies(s *caddyhttp.Server) bool {
	if s.TrustedProxiesRaw != nil || s.TrustedProxiesUnix {
		return true
	}
	loaded := reflect.ValueOf(s).Elem().FieldByName("trustedProxies")
	return !loaded.IsValid() || loaded.Kind() == reflect.Interface && !loaded.IsNil()
}

// use has the handler guard b from now on.
func (h *Handler) use(core *guard.Core, b *policies.Backend, policy policies.Policy) {
	h.backend.Store(b)
	h.guard.Store(guard.New(core, guard.Config{Backend: b, Modes: h.modes, Policy: policy, Limits: h.app.limits, Site: h.app.service.Site, MaxBody: h.MaxLoginBody, Assert: h.site}))
}

func (h *Handler) open() (*guard.Guard, error) {
	if g := h.guard.Load(); g != nil {
		return g, nil
	}
	if _, err := h.app.open(); err != nil {
		return nil, err
	}
	return h.guard.Load(), nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	g, err := h.open()
	if err != nil {
		h.logger.Error("the gate is not open", zap.Error(err))
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	peer := guard.Peer{
		Address:   address,
		Port:      remotePort(r, address),
		EarlyData: r.TLS != nil && !r.TLS.HandshakeComplete,
		Prepare:   h.prepare,
	}
	if peer.Port != 0 { // else the connection is a proxy's, and so is its handshake
		peer.JA4 = handshakeOf(r)
	}
	return g.ServeHTTP(w, r, peer, next.ServeHTTP)
}

// prepare gives a request of the gate's own what Caddy's handlers expect.
func (h *Handler) prepare(r *http.Request, w http.ResponseWriter) *http.Request {
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, h.server)
}

// remotePort is the client's port, where no proxy stands between.
func remotePort(r *http.Request, address string) uint16 {
	host, port, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || host != address {
		return 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
