package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

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

// API serves the operators' API. Give it a site of its own that only operators
// reach, on a listener of its own: then it answers while the front is under attack.
type API struct {
	// Keys are accepted as Authorization: Bearer.
	Keys []APIKey `json:"keys,omitempty"`
	// SigningKeys are accepted as AWS Signature Version 4.
	SigningKeys []APISigningKey `json:"signing_keys,omitempty"`
	// Services are names that signatures may be made for beside "kidoban", such as
	// "execute-api" for programs that cannot say another.
	Services []string `json:"services,omitempty"`

	app       *App
	operators *api.Operators
	logger    *zap.Logger
	handler   atomic.Pointer[http.Handler]
}

// Operator is what an operator may do, and until when.
type Operator struct {
	// Role is viewer (reads), responder (also changes decisions and ends sessions,
	// the default) or admin.
	Role string `json:"role,omitempty"`
	// Expires is a date such as 2027-03-31, whose beginning (UTC) ends the key, or a
	// time such as 2027-03-31T09:00:00+09:00. Without it the key does not expire.
	Expires string `json:"expires,omitempty"`
}

// APIKey lets an operator in.
type APIKey struct {
	// Name of the operator. It stands in what the operator does.
	Name string `json:"name"`
	// Secret is the key: at least 22 random characters, best written as a
	// placeholder such as {env.KIDOBAN_KEY} or {file./run/secrets/key}.
	Secret Secret `json:"secret"`
	Operator
}

// APISigningKey lets an operator in who signs.
type APISigningKey struct {
	// Name of the operator. It stands in what the operator does.
	Name string `json:"name"`
	// AccessKeyID names the key in requests. It is not secret.
	AccessKeyID string `json:"access_key_id"`
	// Secret is what signs: at least 22 random characters. It must be a placeholder
	// such as {env.KIDOBAN_SECRET} or {file./run/secrets/secret}.
	Secret Secret `json:"secret"`
	Operator
}

// CaddyModule implements caddy.Module.
func (*API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.kidoban_api", New: func() caddy.Module { return new(API) }}
}

var (
	placeholder = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)
	accessKeyID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
	serviceName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
)

// Provision resolves the keys.
func (a *API) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	app, err := ctx.App("kidoban")
	if err != nil {
		return fmt.Errorf("the kidoban app: %w", err)
	}
	a.app = app.(*App)
	if len(a.Keys)+len(a.SigningKeys) == 0 {
		return errors.New("the operators' API needs at least one key: add `key NAME {env.KIDOBAN_KEY}`, or `aws NAME ACCESS_KEY_ID {env.KIDOBAN_SECRET}`")
	}
	repl := caddy.NewReplacer()
	keys := make([]api.Key, len(a.Keys))
	for i, k := range a.Keys {
		keys[i].Name = k.Name
		secret, err := k.resolve(repl, k.Secret, &keys[i].Role, &keys[i].Expires)
		if err != nil {
			return fmt.Errorf("key of operator %q: %w", k.Name, err)
		}
		keys[i].Hash = api.HashKey(secret)
	}
	signing := make([]api.SigningKey, len(a.SigningKeys))
	for i, k := range a.SigningKeys {
		signing[i].Name, signing[i].ID = k.Name, k.AccessKeyID
		if !accessKeyID.MatchString(k.AccessKeyID) {
			return fmt.Errorf("signing key of operator %q: the access key id %q is not 1 to 128 letters, digits, dots, dashes or underscores", k.Name, k.AccessKeyID)
		}
		if !placeholder.MatchString(string(k.Secret)) {
			return fmt.Errorf("signing key of operator %q: the secret must not stand in the configuration: write {env.NAME} or {file.PATH}", k.Name)
		}
		if signing[i].Secret, err = k.resolve(repl, k.Secret, &signing[i].Role, &signing[i].Expires); err != nil {
			return fmt.Errorf("signing key of operator %q: %w", k.Name, err)
		}
	}
	for _, name := range a.Services {
		if !serviceName.MatchString(name) {
			return fmt.Errorf("service %q is not 1 to 128 letters, digits, dots, dashes or underscores", name)
		}
	}
	a.operators, err = api.NewOperators(keys, signing, a.Services...)
	return err
}

// resolve reads a secret, a role and an end. Its errors follow the name of the key.
func (o Operator) resolve(repl *caddy.Replacer, secret Secret, role *api.Role, expires *time.Time) (string, error) {
	var err error
	if *role, err = api.ParseRole(o.Role); err != nil {
		return "", err
	}
	if o.Expires != "" {
		if *expires, err = time.Parse(time.DateOnly, o.Expires); err != nil {
			*expires, err = time.Parse(time.RFC3339, o.Expires)
		}
		if err != nil {
			return "", fmt.Errorf("expires %q: want a date such as 2027-03-31 or a time such as 2027-03-31T09:00:00+09:00", o.Expires)
		}
	}
	text, err := repl.ReplaceOrErr(string(secret), true, true)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	text = strings.TrimSpace(text)
	return text, api.CheckSecret(text)
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h := a.handler.Load()
	if h == nil {
		rt, err := a.app.open()
		if err == nil {
			var made http.Handler
			if made, err = rt.api(a.operators); err == nil {
				a.handler.CompareAndSwap(nil, &made)
				h = a.handler.Load()
			}
		}
		if err != nil {
			a.logger.Error("the gate is not open", zap.Error(err))
			return caddyhttp.Error(http.StatusServiceUnavailable, err)
		}
	}
	(*h).ServeHTTP(w, r)
	return nil
}

var (
	_ caddy.Provisioner           = (*API)(nil)
	_ caddyhttp.MiddlewareHandler = (*API)(nil)
)
