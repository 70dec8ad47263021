package gateway

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/outbox"
)

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
	names := make(map[string]bool)
	for i, w := range a.Webhooks {
		if w.Name == "" || names[w.Name] {
			return fmt.Errorf("webhook %d: the name %q is missing or taken", i+1, w.Name)
		}
		names[w.Name] = true
		if err := a.provisionWebhook(w, resolve); err != nil {
			return fmt.Errorf("webhook %s: %w", w.Name, err)
		}
	}
	return nil
}

func (a *App) provisionWebhook(w Webhook, resolve func(string, Secret) (string, error)) (err error) {
	config := outbox.WebhookConfig{AllowPlain: w.AllowPlain}
	if config.URL, err = resolve("url", w.URL); err != nil {
		return err
	}
	for _, secret := range w.Secrets {
		text, err := resolve("secret", secret)
		if err != nil {
			return err
		}
		config.Secrets = append(config.Secrets, text)
	}
	for _, text := range w.Allow {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("allow %q: want a network such as 10.0.0.0/8", text)
		}
		config.Allow = append(config.Allow, prefix)
	}
	for _, event := range w.Events {
		if !slices.Contains(guard.NoticeTypes(), event) {
			return fmt.Errorf("unknown event %q: want one of %s", event, strings.Join(guard.NoticeTypes(), ", "))
		}
	}
	sender, err := outbox.NewWebhook(config)
	if err != nil {
		return err
	}
	if a.senders == nil {
		a.senders = make(map[string]outbox.Sender)
	}
	a.senders[w.Name] = sender
	a.subscriptions = append(a.subscriptions, guard.Subscription{To: w.Name, Types: w.Events})
	return nil
}
