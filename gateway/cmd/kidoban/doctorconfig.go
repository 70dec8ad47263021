package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/kidoban/kidoban/gateway"
	"github.com/kidoban/kidoban/policies"
)

// configured is what a configuration says of an installation.
type configured struct {
	app       *gateway.App
	servers   map[string]server
	upstreams []upstream
}

// upstream is a backend behind a guard.
type upstream struct {
	dial    string
	tls     bool
	preset  *policies.Backend
	asserts bool
	hasty   bool // no stream_close_delay
}

// server, route and handler are what is looked at of Caddy's configuration.
type server struct {
	Routes               []route         `json:"routes"`
	TrustedProxies       json.RawMessage `json:"trusted_proxies"`
	TrustedProxiesStrict int             `json:"trusted_proxies_strict"`
}

type route struct {
	Handle []handler `json:"handle"`
}

type handler struct {
	Name      string          `json:"handler"`
	Routes    []route         `json:"routes"`
	Backend   string          `json:"backend"`
	Assert    *gateway.Assert `json:"assert"`
	Transport struct {
		TLS *struct{} `json:"tls"`
	} `json:"transport"`
	StreamCloseDelay json.RawMessage `json:"stream_close_delay"`
	Upstreams        []struct {
		Dial string `json:"dial"`
	} `json:"upstreams"`
}

// UnmarshalJSON leaves the fields of other handlers, which may have any form.
func (h *handler) UnmarshalJSON(data []byte) error {
	var kind struct {
		Name string `json:"handler"`
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		return err
	}
	if h.Name = kind.Name; h.Name != "kidoban" && h.Name != "reverse_proxy" && h.Name != "subroute" {
		return nil
	}
	type plain handler
	return json.Unmarshal(data, (*plain)(h))
}

// readConfig reads the configuration as a start would, and returns what it says; nil
// if it cannot be read at all.
func (d *doctor) readConfig() *configured {
	const check = "configuration"
	data, file, _, err := caddycmd.LoadConfig(d.config, d.adapter)
	if err != nil || len(data) == 0 {
		if err == nil {
			err = fs.ErrNotExist
		}
		d.fail(check, "Name the file with --config, or mend what it says.", "%v", err)
		return nil
	}
	var whole caddy.Config
	if err := caddy.StrictUnmarshalJSON(caddy.RemoveMetaFields(data), &whole); err != nil {
		d.fail(check, "Mend what it says.", "%s: %v", file, err)
		return nil
	}
	if err := caddy.Validate(&whole); err != nil {
		d.fail(check, "Mend what it says; the gate would not start with it.", "%s: %v", file, err)
	} else {
		d.ok(check, "%s is one that a gate starts with", file)
	}
	var parts struct {
		Apps struct {
			Kidoban *gateway.App `json:"kidoban"`
			HTTP    struct {
				Servers map[string]server `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(data, &parts); err != nil {
		d.fail(check, "Mend what it says.", "%s: %v", file, err)
		return nil
	}
	c := &configured{app: parts.Apps.Kidoban, servers: parts.Apps.HTTP.Servers}
	if c.app == nil {
		c.app = new(gateway.App)
	}
	c.app.DataDir = cmp.Or(c.app.DataDir, filepath.Join(caddy.AppDataDir(), "kidoban"))
	for _, name := range slices.Sorted(maps.Keys(c.servers)) {
		d.walk(c, c.servers[name].Routes, nil)
	}
	if len(c.upstreams) == 0 {
		d.warn(check, "Put the directive kidoban into the site of the backend, beside its reverse_proxy.", "%s: no site guards a backend", file)
	}
	return c
}

// walk finds the proxies behind guards. A guard guards the routes beside and below it.
func (d *doctor) walk(c *configured, routes []route, guard *handler) {
	for _, r := range routes {
		for i := range r.Handle {
			if r.Handle[i].Name == "kidoban" {
				guard = &r.Handle[i]
			}
		}
	}
	for _, r := range routes {
		for _, h := range r.Handle {
			switch {
			case h.Name == "subroute":
				d.walk(c, h.Routes, guard)
			case h.Name == "reverse_proxy" && guard != nil:
				preset, err := policies.LoadBackend(guard.Backend, c.presets())
				if err != nil {
					continue // the configuration's check has told
				}
				for _, u := range h.Upstreams {
					c.upstreams = append(c.upstreams, upstream{u.Dial, h.Transport.TLS != nil, preset, guard.Assert != nil, len(h.StreamCloseDelay) == 0})
				}
			}
		}
	}
}

// presets is the folder of the installation's own presets; nil if there is none.
func (c *configured) presets() fs.FS {
	if c == nil || c.app.Policies == "" {
		return nil
	}
	return os.DirFS(filepath.Join(c.app.Policies, "backends"))
}

// resolve fills in what a secret names.
func resolve(what string, s gateway.Secret) (string, error) {
	text, err := caddy.NewReplacer().ReplaceOrErr(string(s), true, true)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return strings.TrimSpace(text), nil
}

// checkServers looks at whom the servers believe, and at how they reload.
func (d *doctor) checkServers(c *configured) {
	const check = "trusted_proxies"
	for _, name := range slices.Sorted(maps.Keys(c.servers)) {
		s := c.servers[name]
		var trusted struct {
			Source string   `json:"source"`
			Ranges []string `json:"ranges"`
		}
		_ = json.Unmarshal(s.TrustedProxies, &trusted) // another form is another source
		var wide []string
		for _, text := range trusted.Ranges {
			if p, err := netip.ParsePrefix(text); err == nil && p.Bits() < 8 {
				wide = append(wide, text)
			}
		}
		switch {
		case len(s.TrustedProxies) == 0:
			d.ok(check, "server %s trusts none: visitors are known by the address that they connect from", name)
		case len(wide) > 0:
			d.fail(check, "Name the proxies' own addresses.", "server %s trusts %s: a visitor could choose the address that is counted", name, strings.Join(wide, ", "))
		case s.TrustedProxiesStrict == 0:
			d.warn(check, "Add trusted_proxies_strict, unless each trusted proxy replaces the forwarding header.", "server %s believes the left-most forwarded address", name)
		default:
			d.ok(check, "server %s trusts %s, strictly", name, cmp.Or(strings.Join(trusted.Ranges, " "), trusted.Source))
		}
	}
	for _, u := range c.upstreams {
		if u.hasty {
			d.warn("reload", "Add stream_close_delay 5m to its reverse_proxy.", "a reload cuts off every WebSocket to %s", u.dial)
		}
	}
}
