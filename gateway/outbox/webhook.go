package outbox

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kidoban/kidoban/policies"
)

// WebhookConfig sets up a [Webhook].
type WebhookConfig struct {
	URL        string         // https, without user name or fragment, at most 2,048 bytes
	Secrets    []string       // 1 to 4 signing secrets, 24 to 64 bytes each in base64, with or without whsec_; all of them sign
	Allow      []netip.Prefix // networks that may be reached though they are not public
	AllowPlain bool           // allows http
	Roots      *x509.CertPool // who may vouch for the receiver; nil: whom the system trusts
	Timeout    time.Duration  // for all of one attempt; 0: 10 s
}

// Webhook posts notices to one receiver, as Standard Webhooks 1.0 has it: JSON with
// the headers webhook-id (the same for every attempt), webhook-timestamp and
// webhook-signature.
//
// It connects to public addresses and those of Allow only. The address is checked
// when it is dialled, so that a name that resolves to something else the next time
// gains nothing. It follows no redirect, uses no proxy, speaks TLS 1.2 or later,
// reads at most 16 KiB of an answer and drops it. Neither secrets nor path and query
// of the URL appear in its errors. It is safe for concurrent use.
type Webhook struct {
	url     *url.URL
	secrets [][]byte
	timeout time.Duration
	client  *http.Client
}

const (
	attemptTime = 10 * time.Second
	maxAnswer   = 16 << 10
	userAgent   = "Kidoban-Webhook/1.0 (+https://github.com/kidoban/kidoban)"
)

// errRefused says that an address is not one for webhooks.
var errRefused = errors.New("address refused")

// NewWebhook checks c and connects to nothing.
func NewWebhook(c WebhookConfig) (*Webhook, error) {
	w := &Webhook{timeout: c.Timeout}
	if w.timeout <= 0 {
		w.timeout = attemptTime
	}
	var err error
	if w.url, err = parseTarget(c.URL, c.AllowPlain, c.Allow); err != nil {
		return nil, err
	}
	if len(c.Secrets) == 0 || len(c.Secrets) > maxSecrets {
		return nil, fmt.Errorf("secret: %d are given, want 1 to %d", len(c.Secrets), maxSecrets)
	}
	for _, text := range c.Secrets {
		secret, err := parseSecret(text)
		if err != nil {
			return nil, err
		}
		w.secrets = append(w.secrets, secret)
	}
	dialer := &net.Dialer{Timeout: w.timeout, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: it cannot be read", errRefused)
		}
		return refusal(to.Addr(), c.Allow)
	}}
	w.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots},
			TLSHandshakeTimeout:    5 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    1,
			MaxConnsPerHost:        2,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: maxAnswer,
			DisableCompression:     true,
		},
	}
	return w, nil
}

// Close gives idle connections back.
func (w *Webhook) Close() { w.client.CloseIdleConnections() }

// message is what a receiver reads.
type message struct {
	Type     string            `json:"type"` // such as decision.registered
	ID       string            `json:"id"`   // the same for every attempt
	Time     time.Time         `json:"time"` // when the notice came into being
	Repeated bool              `json:"repeated"`
	Data     map[string]string `json:"data"`
}

// Send implements [Sender]: one attempt to deliver n at the time now.
func (w *Webhook) Send(ctx context.Context, n policies.Notice, now time.Time) Answer {
	body, err := encode(n)
	if err != nil {
		return Answer{Err: err, Final: true}
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	var written atomic.Bool // the receiver may have read the request
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) { written.Store(true) }})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(body))
	if err != nil {
		return Answer{Err: errors.New("the request cannot be made"), Final: true}
	}
	// A POST is sent once: without GetBody the transport never tries again by itself.
	r.GetBody = nil
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", userAgent)
	r.Header.Set("webhook-id", n.MessageID)
	r.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	r.Header.Set("webhook-signature", sign(w.secrets, n.MessageID, now.Unix(), body))
	resp, err := w.client.Do(r)
	if err != nil {
		return Answer{Err: reason(err), Uncertain: written.Load()}
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection can be used again; what it says is dropped
	return judge(resp, now)
}

func encode(n policies.Notice) ([]byte, error) {
	m := message{Type: n.Template, ID: n.MessageID, Time: n.Created.UTC(), Repeated: n.State == policies.Uncertain, Data: n.Values}
	if m.Data == nil {
		m.Data = map[string]string{}
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, errors.New("the notice cannot be written as JSON")
	}
	return body, nil
}

// judge reads an answer's status.
func judge(resp *http.Response, now time.Time) Answer {
	switch s := resp.StatusCode; {
	case s >= 200 && s < 300:
		return Answer{}
	case s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable:
		return Answer{Err: fmt.Errorf("status %d", s), Alive: true, After: retryAfter(resp.Header.Get("Retry-After"), now)}
	case s == http.StatusRequestTimeout || s == http.StatusTooEarly:
		return Answer{Err: fmt.Errorf("status %d", s), Alive: true}
	case s >= 400 && s < 500:
		return Answer{Err: fmt.Errorf("status %d", s), Alive: true, Final: true}
	case s >= 300 && s < 400:
		return Answer{Err: fmt.Errorf("status %d: redirects are not followed: configure where it leads", s)}
	default:
		return Answer{Err: fmt.Errorf("status %d", s)}
	}
}

// retryAfter reads the field (RFC 9110, section 10.2.3): seconds or a date. What
// cannot be read is 0.
func retryAfter(field string, now time.Time) time.Duration {
	field = strings.TrimSpace(field)
	if n, err := strconv.ParseUint(field, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(field); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// reason says what went wrong in words that cannot hold the URL, what the receiver
// answered or a secret.
func reason(err error) error {
	var (
		dns        *net.DNSError
		dial       *net.OpError
		authority  x509.UnknownAuthorityError
		name       x509.HostnameError
		invalid    x509.CertificateInvalidError
		alert      tls.AlertError
		record     tls.RecordHeaderError
		unverified *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, errRefused):
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.HasPrefix(e.Error(), errRefused.Error()) {
				return e
			}
		}
		return errRefused
	case errors.Is(err, context.Canceled):
		return errors.New("stopped before the answer came")
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.As(err, &dns) && dns.IsNotFound:
		return errors.New("the host's name is not known")
	case errors.As(err, &dns):
		return errors.New("the host's name could not be resolved")
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &invalid), errors.As(err, &unverified):
		return errors.New("the receiver's certificate is not valid for it")
	case errors.As(err, &alert), errors.As(err, &record), errors.As(err, &dial) && dial.Op == "remote error":
		return errors.New("TLS 1.2 or later could not be agreed on")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.As(err, &dial) && dial.Op == "dial":
		return errors.New("no connection")
	case errors.As(err, &dial) && dial.Timeout():
		return errors.New("no answer in time")
	default:
		return errors.New("the connection broke, or the answer was not HTTP")
	}
}
