package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/kidoban/kidoban/gateway/api"
)

func init() { caddy.RegisterModule(new(API)) }

// Secret is a text that is not shown where values are printed.
type Secret string

func (Secret) String() string   { return "***" }
func (Secret) GoString() string { return "***" }

// API serves the operators' API. Give it a site of its own that only operators reach.
type API struct {
	// Keys maps operators' names to their keys, best written as a placeholder
	// such as {env.KIDOBAN_KEY} or {file./run/secrets/key}. A key has at least
	// 20 characters.
	Keys map[string]Secret `json:"keys"`

	app     *App
	keys    map[string][32]byte
	logger  *zap.Logger
	handler atomic.Pointer[http.Handler]
}

// CaddyModule implements caddy.Module.
func (*API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.kidoban_api", New: func() caddy.Module { return new(API) }}
}

// Provision resolves the keys.
func (a *API) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	app, err := ctx.App("kidoban")
	if err != nil {
		return fmt.Errorf("the kidoban app: %w", err)
	}
	a.app = app.(*App)
	if len(a.Keys) == 0 {
		return fmt.Errorf("the operators' API needs at least one key: add `key NAME {env.KIDOBAN_KEY}`")
	}
	a.keys = make(map[string][32]byte, len(a.Keys))
	repl := caddy.NewReplacer()
	for name, secret := range a.Keys {
		key, err := repl.ReplaceOrErr(string(secret), true, true)
		if err != nil {
			return fmt.Errorf("key of operator %q: %w", name, err)
		}
		if key = strings.TrimSpace(key); len(key) < 20 {
			return fmt.Errorf("key of operator %q is too short: want at least 20 characters", name)
		}
		a.keys[name] = api.HashKey(key)
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h := a.handler.Load()
	if h == nil {
		rt, err := a.app.open()
		if err != nil {
			a.logger.Error("the gate is not open", zap.Error(err))
			return caddyhttp.Error(http.StatusServiceUnavailable, err)
		}
		made := rt.api(a.keys).Handler()
		a.handler.CompareAndSwap(nil, &made)
		h = a.handler.Load()
	}
	(*h).ServeHTTP(w, r)
	return nil
}

var (
	_ caddy.Provisioner           = (*API)(nil)
	_ caddyhttp.MiddlewareHandler = (*API)(nil)
)
