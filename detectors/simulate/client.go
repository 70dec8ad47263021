package simulate

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Entry is where requests are sent.
type Entry struct {
	// URL is scheme and host, such as https://localhost:8443. Its host must be
	// this machine's loopback.
	URL string
	// TLS is for https: most often a pool with the authority of the entry. It is
	// cloned.
	TLS *tls.Config
	// HTTP2 asks for HTTP/2 where TLS is spoken; otherwise HTTP/1.1.
	HTTP2 bool
}

// Account is a name that can log in, and its password.
type Account struct {
	Name, Password string
	// Cookies are what the account's own browser holds beforehand, such as a
	// device cookie of an earlier visit.
	Cookies []*http.Cookie
}

const (
	answerMax     = 64 << 10         // bytes read of an answer
	answerTimeout = 15 * time.Second // for one request, connecting included
)

// population is everybody who comes from one address.
type population struct {
	base      *url.URL
	source    string
	transport *http.Transport

	mu     sync.Mutex
	errors int   // requests without an answer; guarded by mu
	first  error // of them; guarded by mu
}

func newPopulation(e Entry, source netip.Addr, connections int) (*population, error) {
	base, err := url.Parse(e.URL)
	if err != nil {
		return nil, errors.New("the entry is not an address: want one such as https://localhost:8443")
	}
	switch {
	case base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || strings.Trim(base.Path, "/") != "" || base.RawQuery != "":
		return nil, fmt.Errorf("entry %s: want scheme and host only, such as https://localhost:8443", base.Redacted())
	case !loopback(base.Hostname()):
		return nil, fmt.Errorf("entry %s: traffic is simulated against this machine only: want localhost or a loopback address", base.Redacted())
	case !source.IsValid():
		return nil, errors.New("no source address: give office and attack one each")
	}
	base.Path = ""
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(e.HTTP2)
	// Control sees the address after names were resolved, whoever resolved them.
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if err != nil || !loopback(host) {
			return fmt.Errorf("%s is not on this machine", address)
		}
		return nil
	}}
	return &population{base: base, source: source.String(), transport: &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: e.TLS.Clone(), Protocols: protocols,
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, IdleConnTimeout: 30 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second, DisableCompression: true,
	}}, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func (p *population) close() { p.transport.CloseIdleConnections() }

// browser is a client with a cookie jar of its own on the population's connections.
func (p *population) browser(cookies []*http.Cookie) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // it never fails (net/http/cookiejar)
	}
	jar.SetCookies(p.base, cookies)
	return &http.Client{Jar: jar, Transport: p.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// verdict is how an answer meets whoever asked.
type verdict int

const (
	lost     verdict = iota // no answer
	accepted                // let in
	wrong                   // the backend's own "wrong name or password"
	refused                 // turned away, by the gate or by a server's error
	stepUp                  // the gate wants further proof
)

// answer is what came back.
type answer struct {
	verdict verdict
	gate    bool          // the gate answered, not the backend
	took    time.Duration // from the request's last byte to the answer's
}

// login tries a pair.
func (p *population) login(ctx context.Context, c *http.Client, dress http.Header, name, password string) answer {
	body, err := json.Marshal(struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	}{name, password})
	if err != nil {
		panic(err) // two strings always encode
	}
	return p.do(ctx, c, http.MethodPost, "/login", dress, body)
}

// me asks who the client is logged in as.
func (p *population) me(ctx context.Context, c *http.Client, dress http.Header) answer {
	return p.do(ctx, c, http.MethodGet, "/v2/me", dress, nil)
}

func (p *population) do(ctx context.Context, c *http.Client, method, path string, dress http.Header, body []byte) answer {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	// Waiting for a connection is a queue on this side, not the other's slowness.
	var written atomic.Pointer[time.Time] // set by the connection's own goroutine
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) {
		now := time.Now()
		written.Store(&now)
	}})
	r, err := http.NewRequestWithContext(ctx, method, p.base.String()+path, bytes.NewReader(body))
	if err != nil {
		return p.unanswered(err)
	}
	for name, values := range dress {
		r.Header[name] = values
	}
	r.Header.Set("X-Forwarded-For", p.source)
	r.Header.Set("Accept", "application/json, text/plain, */*")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
		if dress.Get("Sec-Fetch-Mode") != "" {
			r.Header.Set("Origin", p.base.String())
		}
	}
	resp, err := c.Do(r)
	if err != nil {
		return p.unanswered(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return p.unanswered(err)
	}
	a := read(resp.StatusCode, resp.Header.Get("Content-Type"), got)
	if at := written.Load(); at != nil { // nil: answered before it was all sent
		a.took = time.Since(*at)
	}
	return a
}

// read tells an answer of the gate from one of the backend: the gate speaks in
// problem documents (RFC 9457) with a type of its own.
func read(status int, contentType string, body []byte) answer {
	if media, _, err := mime.ParseMediaType(contentType); err == nil && media == "application/problem+json" {
		var problem struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(body, &problem) == nil && strings.Contains(problem.Type, "/problems/") {
			if strings.HasSuffix(problem.Type, "/step-up") || strings.HasSuffix(problem.Type, "/factor-needed") {
				return answer{verdict: stepUp, gate: true}
			}
			return answer{verdict: refused, gate: true}
		}
	}
	switch {
	case status >= 200 && status < 400:
		return answer{verdict: accepted}
	case status == http.StatusUnauthorized:
		return answer{verdict: wrong}
	}
	return answer{verdict: refused}
}

func (p *population) unanswered(err error) answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errors++
	if p.first == nil {
		p.first = err
	}
	return answer{}
}

// failed is an error when next to nothing was answered: figures of a pass that
// spoke to nobody would look like a perfect one.
func (p *population) failed(who string, answered int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == nil || answered > p.errors {
		return nil
	}
	return fmt.Errorf("%s: %d requests had no answer, %d had one: %w", who, p.errors, answered, p.first)
}
