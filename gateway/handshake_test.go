package gateway_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/kidoban/kidoban/gateway"
)

// The fingerprint of a connection is there for its requests, over every version of
// HTTP and when a session is resumed, and is dropped when a TCP connection closes.
func TestHandshake(t *testing.T) {
	g := newGate(t, newBackend(t))
	address := strings.TrimPrefix(g.secure, "https://localhost")
	prints := make(map[string]string)
	for _, protocol := range []string{"http/1.1", "h2"} {
		config := dialTLS(protocol)
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for try := range 2 {
			var conn *tls.Conn
			transport := &http.Transport{
				ForceAttemptHTTP2: protocol == "h2", TLSClientConfig: config,
				DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					c, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", "127.0.0.1"+address)
					if err == nil {
						conn = c.(*tls.Conn)
					}
					return c, err
				},
			}
			res, err := (&http.Client{Transport: transport}).Get(g.secure + "/")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			state := conn.ConnectionState()
			if resumed := try == 1; state.DidResume != resumed || state.NegotiatedProtocol != protocol {
				t.Fatalf("%s: resumed %t, want %t", state.NegotiatedProtocol, state.DidResume, resumed)
			}
			remote := conn.LocalAddr().String()
			got := gateway.HandshakeFrom(remote, false)
			if was := prints[protocol]; !strings.HasPrefix(got, "t13d") || was != "" && got != was {
				t.Errorf("%s, connection %d: got %q, and %q before", protocol, try+1, got, was)
			}
			prints[protocol] = got
			if other := gateway.HandshakeFrom(remote, true); other != "" {
				t.Errorf("over QUIC: got %q, and there is no such connection", other)
			}
			transport.CloseIdleConnections()
			waitUntil(t, func() bool { return gateway.HandshakeFrom(remote, false) == "" })
		}
	}
	if prints["h2"] == prints["http/1.1"] {
		t.Errorf("both are %s, and they offer different protocols", prints["h2"])
	}

	transport, remote := overHTTP3(t, "127.0.0.1"), ""
	dial := transport.Dial
	transport.Dial = func(ctx context.Context, to string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
		c, err := dial(ctx, to, tc, qc)
		if err == nil {
			remote = c.LocalAddr().String()
		}
		return c, err
	}
	res, err := (&http.Client{Transport: transport}).Get(g.secure + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := gateway.HandshakeFrom(remote, true); !strings.HasPrefix(got, "q13d") {
		t.Errorf("over QUIC: got %q", got)
	}
}

func TestHandshakesAreBounded(t *testing.T) {
	note, of := gateway.Handshakes(3)
	note("a", "1")
	note("b", "2")
	note("c", "3")
	of("a")
	note("d", "4") // b was used longest ago
	note("c", "5") // another handshake from the same port
	for remote, want := range map[string]string{"a": "1", "b": "", "c": "5", "d": "4", "e": ""} {
		if got := of(remote); got != want {
			t.Errorf("%s: got %q, want %q", remote, got, want)
		}
	}
}

// Servers with many names find their policies by name; the handshake is seen there
// as well.
func TestHandshakeAmongManyNames(t *testing.T) {
	var sites strings.Builder
	port := freePorts(t, 1)[0]
	for i := range 40 {
		fmt.Fprintf(&sites, `https://n%[1]d.localhost:%[2]d {
	bind 127.0.0.1
	tls %[3]s/cert.pem %[3]s/key.pem {
		protocols tls1.2 tls1.%[4]d
		alpn http/1.1 x%[1]d
	}
	kidoban {
		backend lax
	}
	respond ok
}
`, i, port, authority.dir, 2+i%2)
	}
	load(t, adapt(t, fmt.Sprintf("{\nadmin off\npersist_config off\nauto_https off\nstorage file_system %s\nkidoban {\ndata_dir %s\npolicies testdata\n}\n}\n%s",
		authority.dir, t.TempDir(), sites.String())))
	for _, name := range []string{"n0.localhost", "n39.localhost"} {
		config := &tls.Config{RootCAs: authority.roots, ServerName: name, InsecureSkipVerify: true}
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), config)
		if err != nil {
			t.Fatal(err)
		}
		want := uint16(tls.VersionTLS12)
		if name == "n39.localhost" {
			want = tls.VersionTLS13
		}
		if got := conn.ConnectionState().Version; got != want {
			t.Errorf("%s: got %s, want %s: another policy applied", name, tls.VersionName(got), tls.VersionName(want))
		}
		if got := gateway.HandshakeFrom(conn.LocalAddr().String(), false); !strings.HasPrefix(got, "t13d") {
			t.Errorf("%s: got %q", name, got)
		}
		conn.Close()
	}
}

func waitUntil(t *testing.T, done func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-look.C:
		case <-late:
			t.Fatal("it did not come about within half a minute")
		}
	}
}

// Events of log-ins tell of the client program: over TLS with its handshake, unless a
// proxy's connection is all there is to see.
func TestEventsTellOfClients(t *testing.T) {
	g := newGate(t, newBackend(t))
	for i, d := range []struct {
		name, base, print string
		transport         func(address string) http.RoundTripper
	}{
		{"in the clear", g.plain, "", func(a string) http.RoundTripper { return http1(a) }},
		{"HTTP/1.1", g.secure, "t13d", func(a string) http.RoundTripper { return http1(a) }},
		{"HTTP/2", g.secure, "t13d", func(a string) http.RoundTripper { return http2(a) }},
		{"HTTP/3", g.secure, "q13d", func(a string) http.RoundTripper { return overHTTP3(t, a) }},
	} {
		t.Run(d.name, func(t *testing.T) {
			from := fmt.Sprintf("127.0.3.%d", i+1)
			c := g.client(t)
			c.base, c.transport, c.from = d.base, d.transport(from), ""
			c.header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0")
			c.login("hanako@example.com", "no password of hers")
			e := g.awaitEvents(from, 1)[0]
			if got := e.Client; !strings.HasPrefix(got.JA4, d.print) || d.print == "" && got.JA4 != "" || got.Family != "firefox" || len(got.Headers) != 12 || !got.Incoherent {
				t.Errorf("got %+v, want an incoherent firefox with a handshake of %q", got, d.print)
			}
			if e.Fingerprint != e.Client.Fingerprint() {
				t.Errorf("fingerprint is %q, and the client %+v", e.Fingerprint, e.Client)
			}
		})
	}
	proxied := g.client(t)
	tls1 := http1(trustedProxy)
	t.Cleanup(tls1.CloseIdleConnections)
	proxied.base, proxied.transport = g.secure, tls1
	proxied.login("hanako@example.com", "no password of hers")
	if e := g.awaitEvents(proxied.from, 1)[0]; e.Client.JA4 != "" || e.Client.Headers == "" {
		t.Errorf("by way of a proxy: got %+v, want no handshake: it is the proxy's", e.Client)
	}
}
