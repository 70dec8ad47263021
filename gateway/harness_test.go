package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/storage"
)

const (
	// trustedProxy is the one peer whose forwarding header Caddy believes. All of
	// 127.0.0.0/8 is this machine, so tests choose who they are by where they dial from.
	trustedProxy = "127.0.0.2"

	operatorKey = "a-key-of-an-operator-in-tests"
)

// gate is Caddy with Kidoban in front of a backend: one site in the clear, one
// with TLS (HTTP/1.1, 2 and 3), one for operators. Caddy is one per process, so
// tests that use a gate do not run in parallel.
type gate struct {
	t       testing.TB
	backend *backend
	keys    *storage.Keyring

	plain, secure, operators string // URLs without a path

	proxied *http.Transport // in the clear, by way of the trusted proxy
	clients atomic.Uint32
}

// newGate starts Caddy. options are lines of the kidoban block.
func newGate(t testing.TB, b *backend, options ...string) *gate {
	t.Helper()
	return newGateBeside(t, b, "", options...)
}

// newGateBeside is newGate with more sites.
func newGateBeside(t testing.TB, b *backend, sites string, options ...string) *gate {
	t.Helper()
	ports := freePorts(t, 3)
	dir := t.TempDir()
	level := "ERROR"
	if testing.Verbose() {
		level = "INFO"
	}
	if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "policies ") }) {
		options = append(slices.Clip(options), "policies testdata")
	}
	config := fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	grace_period 1s
	storage file_system %[1]s
	log {
		level %[2]s
	}
	servers {
		trusted_proxies static %[3]s/32
		trusted_proxies_strict
	}
	kidoban {
		data_dir %[4]s
		%[5]s
	}
}
(site) {
	kidoban {
		backend lax
	}
	reverse_proxy %[6]s {
		stream_close_delay 1m
	}
}
http://127.0.0.1:%[7]d {
	bind 127.0.0.1
	import site
}
https://localhost:%[8]d {
	bind 127.0.0.1
	tls %[1]s/cert.pem %[1]s/key.pem
	import site
}
http://127.0.0.1:%[9]d {
	bind 127.0.0.1
	kidoban_api {
		key tester %[10]s
	}
}
`, authority.dir, level, trustedProxy, dir, strings.Join(options, "\n\t\t"),
		strings.TrimPrefix(b.URL, "http://"), ports[0], ports[1], ports[2], operatorKey)
	load(t, adapt(t, config+sites))
	g := &gate{
		t: t, backend: b,
		plain:     fmt.Sprintf("http://127.0.0.1:%d", ports[0]),
		secure:    fmt.Sprintf("https://localhost:%d", ports[1]),
		operators: fmt.Sprintf("http://127.0.0.1:%d", ports[2]),
		proxied:   http1(trustedProxy),
	}
	t.Cleanup(g.proxied.CloseIdleConnections)
	keys, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), false)
	if err != nil {
		t.Fatal(err)
	}
	g.keys = keys
	return g
}

// adapt turns a Caddyfile into Caddy's own configuration.
func adapt(t testing.TB, config string) []byte {
	t.Helper()
	out, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatalf("adapting: %v\n%s", err, config)
	}
	for _, w := range warnings {
		if !strings.Contains(w.Message, "not formatted") {
			t.Logf("warning: %s", w)
		}
	}
	return out
}

// load starts Caddy and stops it when the test ends.
func load(t testing.TB, config []byte) {
	t.Helper()
	if err := caddy.Load(config, true); err != nil {
		t.Fatalf("starting: %v", err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
}

// freePorts finds ports that are free on 127.0.0.1 for TCP and UDP. They are below
// those that the system gives to outgoing connections, so that none of these takes
// one before Caddy does.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for try := 0; len(ports) < n && try < 1000; try++ {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		defer l.Close() // all are held until all are found
		u, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		defer u.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	if len(ports) < n {
		t.Fatal("no free ports")
	}
	return ports
}

// dialFrom dials from a local address.
func dialFrom(address string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
}

// dialTLS is how clients of the TLS site verify it.
func dialTLS(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: authority.roots, ServerName: "localhost", NextProtos: protocols}
}

// http1 speaks HTTP/1.1 from a local address, with TLS where the URL says so.
func http1(address string) *http.Transport {
	return &http.Transport{
		DialContext: dialFrom(address).DialContext, DisableCompression: true,
		TLSClientConfig: dialTLS("http/1.1"), MaxIdleConnsPerHost: 16,
		ExpectContinueTimeout: 10 * time.Second,
	}
}

// http2 speaks HTTP/2 from a local address.
func http2(address string) *http.Transport {
	tr := http1(address)
	tr.TLSClientConfig = dialTLS("h2")
	tr.ForceAttemptHTTP2 = true
	return tr
}

// overHTTP3 speaks HTTP/3 from a local address until the test ends.
func overHTTP3(t testing.TB, address string) *http3.Transport {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)})
	if err != nil {
		t.Fatal(err)
	}
	udp := &quic.Transport{Conn: socket}
	tr := &http3.Transport{
		TLSClientConfig: dialTLS(http3.NextProtoH3), DisableCompression: true,
		Dial: func(ctx context.Context, to string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			_, port, err := net.SplitHostPort(to)
			if err != nil {
				return nil, err
			}
			target, err := net.ResolveUDPAddr("udp4", "127.0.0.1:"+port)
			if err != nil {
				return nil, err
			}
			return udp.Dial(ctx, target, tc, qc)
		},
	}
	t.Cleanup(func() {
		tr.Close()
		udp.Close()
		socket.Close()
	})
	return tr
}

// client is one browser or program. It keeps cookies by itself, those for https
// only as well: the site in the clear stands for one behind somebody else's TLS.
type client struct {
	t         testing.TB
	gate      *gate
	transport http.RoundTripper
	base      string
	cookies   map[string]string
	header    http.Header
	from      string // the address that the trusted proxy tells of
}

// client returns a new client with an address of its own, by way of the trusted proxy.
func (g *gate) client(t testing.TB) *client {
	n := g.clients.Add(1)
	return &client{
		t: t, gate: g, transport: g.proxied, base: g.plain, cookies: make(map[string]string),
		// Each is in a network of its own, with a program of its own: nothing ties them together.
		header: http.Header{"User-Agent": {fmt.Sprintf("client%d/1", n)}},
		from:   netip.AddrFrom4([4]byte{10, byte(n), byte(n >> 8), 1}).String(),
	}
}

// direct returns a new client that dials from a loopback address without a proxy.
func (g *gate) direct(t testing.TB, address string) *client {
	c := g.client(t)
	tr := http1(address)
	t.Cleanup(tr.CloseIdleConnections)
	c.transport, c.from = tr, ""
	return c
}

type reply struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	set     []*http.Cookie
	err     error // of reading the body
}

func (r reply) String() string { return fmt.Sprintf("%d %.200q", r.status, r.body) }

// request prepares a request with the client's cookies and headers.
func (c *client) request(ctx context.Context, method, path, contentType string, body io.Reader) *http.Request {
	c.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if c.from != "" {
		r.Header.Set("X-Forwarded-For", c.from)
	}
	for name, lines := range c.header {
		r.Header[name] = lines
	}
	for name, value := range c.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return r
}

// send sends a request and reads the whole answer.
func (c *client) send(r *http.Request) (reply, error) {
	res, err := c.transport.RoundTrip(r)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	got := reply{res.StatusCode, res.Header, res.Trailer, string(body), res.Cookies(), err}
	for _, ck := range got.set {
		if ck.Value == "" || ck.MaxAge < 0 {
			delete(c.cookies, ck.Name)
		} else {
			c.cookies[ck.Name] = ck.Value
		}
	}
	return got, nil
}

func (c *client) do(method, path, contentType, body string) reply {
	c.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	got, err := c.send(c.request(c.t.Context(), method, path, contentType, in))
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return got
}

func (c *client) get(path string) reply { c.t.Helper(); return c.do("GET", path, "", "") }

func (c *client) login(name, password string) reply {
	c.t.Helper()
	body, err := json.Marshal(map[string]string{"email": name, "password": password})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.do("POST", "/login", jsonType, string(body))
}

// enter logs in and fails the test if that does not work.
func (c *client) enter(name string) {
	c.t.Helper()
	if got := c.login(name, rightPassword(name)); got.status != http.StatusOK || c.cookies[sessionCookie] == "" {
		c.t.Fatalf("logging in as %s: %s, cookies %v; want 200 and a session of ours", name, got, c.cookies)
	}
}

// operator calls the operators' API and decodes its answer into out.
func (g *gate) operator(method, path string, in, out any) {
	g.t.Helper()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			g.t.Fatal(err)
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, g.operators+path, body)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+operatorKey)
	r.Header.Set("Content-Type", "application/json")
	res, err := g.proxied.RoundTrip(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	if res.StatusCode >= 300 {
		g.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			g.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

// events returns the latest events, the oldest first.
func (g *gate) events(n int) []detectors.Event {
	g.t.Helper()
	var page struct{ Events []detectors.Event }
	g.operator("GET", fmt.Sprintf("/v1/events?limit=%d", n), nil, &page)
	slices.Reverse(page.Events) // the API tells the newest first
	return page.Events
}

// eventsFrom returns the latest events that came from an address.
func (g *gate) eventsFrom(address string) []detectors.Event {
	g.t.Helper()
	want := netip.MustParseAddr(address)
	var found []detectors.Event
	for _, e := range g.events(200) {
		if e.Source.Address == want {
			found = append(found, e)
		}
	}
	return found
}

// awaitEvents waits for what the gate does after a client has gone.
func (g *gate) awaitEvents(address string, n int) []detectors.Event {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got := g.eventsFrom(address)
		if len(got) >= n {
			return got
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			g.t.Fatalf("%d events from %s after 10 s, want %d", len(got), address, n)
		}
	}
}

// digest is what the gate counts a typed name under.
func (g *gate) digest(name string) detectors.Digest {
	return g.keys.Digest("name", auth.CanonicalName(name))
}

// decide registers an operator's decision for an hour.
func (g *gate) decide(scope, value, action string) {
	g.t.Helper()
	g.operator("POST", "/v1/decisions", map[string]string{
		"scope": scope, "value": value, "action": action, "ttl": "1h", "reason": "a test",
	}, nil)
}

// await receives within d or fails.
func await[T any](t testing.TB, c <-chan T, d time.Duration, what string) T {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case x := <-c:
		return x
	case <-timer.C:
		t.Fatalf("%s: nothing within %s", what, d)
		panic("not reached")
	}
}

var errGone = errors.New("gone")
