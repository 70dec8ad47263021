package gateway

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/gateway/storage"
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
	// Events are decision.registered, decision.extended, decision.lifted,
	// decision.expired, rule.matched, rule.fell and incident.proposed; empty: all.
	Events []string `json:"events,omitempty"`
	// Allow lists networks inside the house that the address may lead to. Without
	// it only public addresses are called.
	Allow []string `json:"allow,omitempty"`
	// AllowPlain allows http.
	AllowPlain bool `json:"allow_plain,omitempty"`
}

// Mail is how letters are sent.
type Mail struct {
	// Server is smtp://[USER:PASSWORD@]HOST[:587], with STARTTLS, smtps://...[:465], or
	// smtp+plain://...[:25] on this machine. Best written as {env.SMTP_URL}.
	Server Secret `json:"server"`
	// From is the sender: "NAME <ADDRESS>".
	From string `json:"from"`
	// Service is what letters call the service. Default: that of the app, else the
	// name of From.
	Service string `json:"service,omitempty"`
	// Link is the address of the service, such as https://chat.example.com. Default:
	// the app's first origin.
	Link string `json:"link,omitempty"`
	// CA is a PEM file with the authorities that sign the server's certificate;
	// default: those of the system.
	CA string `json:"ca,omitempty"`
	// To lists operators who are told of decisions, as webhooks are.
	To []MailTo `json:"to,omitempty"`
}

// MailTo is an operator who is told of decisions.
type MailTo struct {
	// Address is where to.
	Address string `json:"address"`
	// Events are those of a webhook; empty: all.
	Events []string `json:"events,omitempty"`
	// Language is en or ja. Default: en.
	Language string `json:"language,omitempty"`
	// TimeZone is the one of the times in letters, such as Asia/Tokyo. Default: UTC.
	TimeZone string `json:"time_zone,omitempty"`
}

// mailLanes is how many letters are handed in at once.
const mailLanes = 4

// Redis says which server nodes share.
type Redis struct {
	// URL is redis://[USER:PASSWORD@]HOST[:PORT][/DB], or
	// redis+sentinel://[USER:PASSWORD@]HOST,HOST,...[/DB]?master=NAME; rediss for TLS.
	// Best written as {env.REDIS_URL}.
	URL Secret `json:"url"`
	// CA is a PEM file with the authorities that sign the servers' certificates;
	// default: those of the system.
	CA string `json:"ca,omitempty"`
	// Certificate and Key are PEM files that prove this node to the servers.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
	// Prefix begins the names of all keys in Redis. Default: kidoban.
	Prefix string `json:"prefix,omitempty"`
}

// prefix is what the names of keys begin with, within a hash tag.
func (r *Redis) prefix() string { return cmp.Or(r.Prefix, "kidoban") }

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
	if !nodeName.MatchString(a.Node) {
		return fmt.Errorf("node %.80q: want 1 to 64 letters, digits, dots, underscores and hyphens", a.Node)
	}
	var err error
	if a.database, err = resolve("database", a.Database); err != nil {
		return err
	}
	if a.Redis != nil {
		if err := a.provisionRedis(resolve); err != nil {
			return err
		}
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
	if a.Mail != nil {
		if err := a.provisionMail(resolve); err != nil {
			return fmt.Errorf("mail: %w", err)
		}
	}
	return nil
}

func (a *App) provisionMail(resolve func(string, Secret) (string, error)) (err error) {
	config := mail.Config{From: a.Mail.From, Service: cmp.Or(a.Mail.Service, a.Service), Link: a.Mail.Link}
	if len(a.service.origins) > 0 {
		config.Pages = a.service.origins
		config.Link = cmp.Or(config.Link, a.service.origins[0])
	}
	if config.Server, err = resolve("server", a.Mail.Server); err != nil {
		return err
	}
	if a.Mail.CA != "" {
		pem, err := os.ReadFile(a.Mail.CA)
		if err != nil {
			return fmt.Errorf("ca: %w", err)
		}
		config.Roots = x509.NewCertPool()
		if !config.Roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca %s: has no certificate in PEM", a.Mail.CA)
		}
	}
	if a.mailer, err = mail.New(config); err != nil {
		return err
	}
	taken := make(map[string]bool)
	for _, to := range a.Mail.To {
		address, err := mail.ParseAddress(to.Address)
		switch {
		case err != nil:
			return fmt.Errorf("to %.80q: %w", to.Address, err)
		case taken[address.String()]:
			return fmt.Errorf("to %s is given twice: write its events in one block", address)
		case to.Language != "" && !slices.Contains(mail.Languages, to.Language):
			return fmt.Errorf("to %s: unknown language %.20q: want %s", address, to.Language, strings.Join(mail.Languages, " or "))
		}
		if _, err := time.LoadLocation(to.TimeZone); err != nil || to.TimeZone == "Local" {
			return fmt.Errorf("to %s: unknown time zone %.40q: want one such as Asia/Tokyo", address, to.TimeZone)
		}
		if err := checkEvents(to.Events); err != nil {
			return fmt.Errorf("to %s: %w", address, err)
		}
		taken[address.String()] = true
		a.subscriptions = append(a.subscriptions, guard.Subscription{
			Channel: mail.Channel, To: address.String(), Types: to.Events, Language: to.Language, TimeZone: to.TimeZone,
		})
	}
	return nil
}

// checkEvents says which of the events there is not.
func checkEvents(events []string) error {
	for _, event := range events {
		if !slices.Contains(guard.NoticeTypes(), event) {
			return fmt.Errorf("unknown event %q: want one of %s", event, strings.Join(guard.NoticeTypes(), ", "))
		}
	}
	return nil
}

// nodeName is a name that can stand in the record.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (a *App) provisionRedis(resolve func(string, Secret) (string, error)) error {
	r := a.Redis
	url, err := resolve("redis", r.URL)
	if err != nil {
		return err
	}
	if url == "" {
		return errors.New("redis: the address is missing, such as redis://127.0.0.1:6379 or {env.REDIS_URL}")
	}
	if len(r.prefix()) > 64 || strings.ContainsAny(r.prefix(), "{} \t\r\n") {
		return fmt.Errorf("redis: prefix %.80q: want at most 64 characters without braces and blanks", r.Prefix)
	}
	a.redis = storage.RedisConfig{URL: url, CA: r.CA, Certificate: r.Certificate, Key: r.Key}
	client, err := storage.OpenRedis(a.redis) // it does not connect
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return client.Close()
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
	if err := checkEvents(w.Events); err != nil {
		return err
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
