// Package mail sends notices of the channel "mail" through one SMTP server.
//
// A [Mailer] writes a notice in its reader's language and time zone and makes one
// attempt to hand it to the server; a [Limited] one sees that nobody's mailbox is
// flooded. Both are senders of package outbox, which decides when to try again:
//
//   - 2xx after the message: sent.
//   - 5xx about the recipient or the message: given up, for this recipient.
//   - 4xx about the recipient or the message, greylisting among it: tried again.
//   - Anything else, such as no connection, a certificate that is not valid, a
//     refused log-in or a refused sender: the server is at fault, or our
//     configuration of it. It is tried again, and the server left alone meanwhile.
//
// A message is the same, byte for byte, in every attempt, but for a line that says
// so where an earlier attempt may have arrived: its Message-ID, date and boundary
// come from the notice.
package mail

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	stdmail "net/mail"
	"net/url"
	"strings"
	"time"

	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/policies"
)

// Channel is the channel of notices that are sent as mail.
const Channel = "mail"

// Config sets up a [Mailer].
type Config struct {
	// Server is smtp://[USER:PASSWORD@]HOST[:587], which demands STARTTLS,
	// smtps://[USER:PASSWORD@]HOST[:465], which is TLS from the start, or
	// smtp+plain://[USER:PASSWORD@]HOST[:25], which reaches loopback addresses only.
	Server string
	// From is the sender, such as "Example Chat security <security@example.com>".
	From string
	// Service is what subjects and texts call the service. Default: the name in From.
	Service string
	// Link is where the service is: https://HOST, or http of a loopback host.
	Link string
	// Pages are where the gate's own pages are, below /.kidoban/. Default: Link.
	Pages []string
	// Roots may vouch for the server; nil: whom the system trusts.
	Roots *x509.CertPool
	// Timeout is for all of one attempt. 0: 15 s, which is also the most: an attempt
	// must end before the lease of its notice does.
	Timeout time.Duration
}

const (
	attemptTime = 15 * time.Second
	maxName     = 100  // runes of From's name and of Service
	maxLink     = 2048 // bytes
)

// Mailer sends notices as mail. It is safe for concurrent use, keeps no
// connections, and its errors have neither passwords nor addresses nor what a
// server said but its code.
type Mailer struct {
	server  server
	from    stdmail.Address
	domain  string // of from
	service string
	link    string
	pages   []string // where links of notices may lead
	timeout time.Duration
}

// New checks c and connects to nothing.
func New(c Config) (*Mailer, error) {
	m := &Mailer{timeout: c.Timeout}
	if m.timeout <= 0 || m.timeout > attemptTime {
		m.timeout = attemptTime
	}
	var err error
	if m.server, err = parseServer(c.Server); err != nil {
		return nil, err
	}
	m.server.roots = c.Roots
	from, err := stdmail.ParseAddress(c.From)
	if err != nil {
		return nil, errors.New(`from: want one sender, such as "Example Chat security <security@example.com>"`)
	}
	to, err := ParseAddress(from.Address)
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	if to.international {
		return nil, errors.New("from: characters beyond ASCII before the @: many could not answer, and some servers refuse it")
	}
	m.from = stdmail.Address{Name: clean(from.Name, maxName), Address: to.String()}
	m.domain = to.domain
	if m.service = clean(c.Service, maxName); m.service == "" {
		m.service = m.from.Name
	}
	if m.service == "" {
		return nil, errors.New("service: the name of the service is missing")
	}
	if m.link, err = parseLink("link", c.Link); err != nil {
		return nil, err
	}
	if len(c.Pages) == 0 {
		m.pages = []string{m.link}
	}
	for _, page := range c.Pages {
		if page, err = parseLink("pages", page); err != nil {
			return nil, err
		}
		m.pages = append(m.pages, page)
	}
	return m, nil
}

// Service is what the service is called.
func (m *Mailer) Service() string { return m.service }

// parseLink reads where the service is, or its pages.
func parseLink(what, raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || len(raw) > maxLink || u.Hostname() == "" || u.Opaque != "" || strings.ContainsFunc(raw, hidden) || strings.ContainsAny(raw, " \"<>"):
		return "", errors.New(what + ": want the address of the service, such as https://chat.example.com")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopbackName(u.Hostname())):
		return "", errors.New(what + ": want https: a link in the clear teaches people to trust one")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Contains(raw, "#"):
		return "", errors.New(what + ": has a user name, a query or a fragment; want scheme, host and at most a path")
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// Send implements [outbox.Sender]: one attempt to deliver n.
func (m *Mailer) Send(ctx context.Context, n policies.Notice, _ time.Time) outbox.Answer {
	to, err := ParseAddress(n.To)
	if err != nil {
		return outbox.Answer{Err: err, Final: true, Alive: true}
	}
	message, err := m.compose(to, n)
	if err != nil {
		return outbox.Answer{Err: err, Final: true, Alive: true}
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	return m.server.deliver(ctx, m.domain, m.from.Address, to, message)
}
