package gateway

import (
	"fmt"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Redis is where the nodes of an installation meet.
type Redis struct {
	// URL is redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss:// for TLS, or
	// redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT,.../DB?master=NAME.
	URL Secret `json:"url"`
	// CA is a PEM file with the authorities that sign the server's certificate.
	// Default: those of the system.
	CA string `json:"ca,omitempty"`
	// Certificate and Key are PEM files that prove this node to the server.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
	// Prefix begins every key. Installations that share a server have their own.
	// Default: kidoban.
	Prefix string `json:"prefix,omitempty"`
}

// Webhook is an address that is told of decisions by POST, signed as Standard
// Webhooks are.
type Webhook struct {
	// Name is what logs, metrics and health call it.
	Name string `json:"name"`
	// URL is where to; https, unless AllowPlain.
	URL Secret `json:"url"`
	// Secrets sign: at least 24 bytes in base64, with or without "whsec_" before.
	// During a rotation there are two.
	Secrets []Secret `json:"secrets"`
	// Events are decision.registered, decision.extended, decision.lifted and
	// decision.expired; empty: all.
	Events []string `json:"events,omitempty"`
	// Allow lists networks inside the house that the address may lead to. Without
	// it only public addresses are called.
	Allow []string `json:"allow,omitempty"`
	// AllowPlain allows http.
	AllowPlain bool `json:"allow_plain,omitempty"`
}

// provisionNode resolves what concerns this node and the servers it shares.
func (a *App) provisionNode() error {
	repl := caddy.NewReplacer()
	resolve := func(what string, s Secret) (string, error) {
		text, err := repl.ReplaceOrErr(string(s), true, true)
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		return strings.TrimSpace(text), nil
	}
	if a.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the name of this node: %w; set `node`", err)
		}
		a.Node = host
	}
	if len(a.Node) > 64 || strings.ContainsFunc(a.Node, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		return fmt.Errorf("node %q: want at most 64 printable ASCII characters, without blanks and slashes", a.Node)
	}
	var err error
	if a.database, err = resolve("database", a.Database); err != nil {
		return err
	}
	if a.Redis != nil {
		if a.redis, err = resolve("redis", a.Redis.URL); err != nil {
			return err
		}
	}
	return nil
}
