package gateway_test

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
)

// TestSource asks for the address that an attempt is counted under, by what came
// before the gate. Caddy believes 127.0.0.2 alone.
func TestSource(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b, "mode decisions observe")
	for _, test := range []struct {
		name   string
		peer   string // where the client dials from
		header http.Header
		want   string // address
		within string // network; empty: the address alone
	}{
		{name: "no proxy", peer: "127.0.0.1", want: "127.0.0.1"},
		{name: "spoofed by an untrusted peer", peer: "127.0.0.1", header: http.Header{"X-Forwarded-For": {"192.0.2.1"}}, want: "127.0.0.1"},
		{name: "spoofed twice by an untrusted peer", peer: "127.0.0.3", header: http.Header{"X-Forwarded-For": {"192.0.2.1", "192.0.2.2, 127.0.0.2"}}, want: "127.0.0.3"},
		{name: "Forwarded by an untrusted peer", peer: "127.0.0.1", header: http.Header{"Forwarded": {"for=192.0.2.1"}}, want: "127.0.0.1"},
		{name: "X-Real-IP by an untrusted peer", peer: "127.0.0.1", header: http.Header{"X-Real-Ip": {"192.0.2.1"}}, want: "127.0.0.1"},
		{name: "every header that anybody believes, by an untrusted peer", peer: "127.0.0.1", header: http.Header{
			"X-Forwarded-For": {"192.0.2.1"}, "Forwarded": {"for=192.0.2.1"}, "X-Real-Ip": {"192.0.2.1"},
			"X-Client-Ip": {"192.0.2.1"}, "True-Client-Ip": {"192.0.2.1"}, "Cf-Connecting-Ip": {"192.0.2.1"},
			"X-Cluster-Client-Ip": {"192.0.2.1"}, "X-Originating-Ip": {"192.0.2.1"}, "Client-Ip": {"192.0.2.1"}, "Via": {"1.1 192.0.2.1"},
		}, want: "127.0.0.1"},

		{name: "told by the trusted proxy", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"192.0.2.10"}}, want: "192.0.2.10"},
		{name: "a forged left-most entry", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"203.0.113.99, 192.0.2.11"}}, want: "192.0.2.11"},
		{name: "a forged left-most field", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"203.0.113.99", "192.0.2.12"}}, want: "192.0.2.12"},
		{name: "a forged entry that looks like the proxy", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"203.0.113.99, 127.0.0.2, 192.0.2.13"}}, want: "192.0.2.13"},
		{name: "two trusted proxies in a row", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"203.0.113.99, 192.0.2.14, 127.0.0.2"}}, want: "192.0.2.14"},
		{name: "Forwarded through the trusted proxy", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"192.0.2.15"}, "Forwarded": {"for=203.0.113.99"}}, want: "192.0.2.15"},
		{name: "X-Real-IP through the trusted proxy", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"192.0.2.16"}, "X-Real-Ip": {"203.0.113.99"}}, want: "192.0.2.16"},
		{name: "the trusted proxy tells nothing", peer: trustedProxy, want: trustedProxy},
		{name: "with a port", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"192.0.2.17:50000"}}, want: "192.0.2.17"},

		{name: "IPv4 mapped into IPv6", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"::ffff:192.0.2.18"}}, want: "192.0.2.18"},
		{name: "IPv4 mapped into IPv6, in hex", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"::ffff:c000:0213"}}, want: "192.0.2.19"},
		{name: "NAT64", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"64:ff9b::192.0.2.20"}}, want: "192.0.2.20"},
		{name: "NAT64 in hex and upper case", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"0064:FF9B:0::C000:0215"}}, want: "192.0.2.21"},
		{name: "a NAT64 prefix of somebody's own", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"64:ff9b:1::c000:216"}}, want: "64:ff9b:1::c000:216", within: "64:ff9b:1::/64"},
		{name: "IPv6", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"2001:db8:1:2:3:4:5:6"}}, want: "2001:db8:1:2:3:4:5:6", within: "2001:db8:1:2::/64"},
		{name: "IPv6 with a port", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"[2001:db8:1:3::7]:443"}}, want: "2001:db8:1:3::7", within: "2001:db8:1:3::/64"},
		{name: "IPv6 with a zone", peer: trustedProxy, header: http.Header{"X-Forwarded-For": {"fe80::1%eth0"}}, want: "fe80::1", within: "fe80::/64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := g.direct(t, test.peer)
			c.header = test.header
			if c.header == nil {
				c.header = make(http.Header)
			}
			if got := c.login("u-"+test.want+"@example.com", "wrong"); got.status != http.StatusUnauthorized {
				t.Fatalf("log-in: %s, want the backend's 401", got)
			}
			e := g.events(1)[0]
			want := detectors.Source{Address: netip.MustParseAddr(test.want), Network: netip.PrefixFrom(netip.MustParseAddr(test.want), 32)}
			if test.within != "" {
				want.Network = netip.MustParsePrefix(test.within)
			}
			if (e.Source.Port != 0) != (test.peer == test.want) {
				t.Errorf("port %d; want one exactly where no proxy stands between", e.Source.Port)
			}
			e.Source.Port = 0
			if diff := cmp.Diff(want, e.Source, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("source (-want +got):\n%s", diff)
			}
		})
	}
}

// TestForgedSourcesAreCountedTogether lets one peer fail under forty forged
// addresses and then asks for somebody whose address was forged.
func TestForgedSourcesAreCountedTogether(t *testing.T) {
	g := newGate(t, newBackend(t))
	c := g.direct(t, "127.0.0.9")
	refused := 0
	for i := range 40 {
		forged := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String()
		c.header = http.Header{"X-Forwarded-For": {forged}, "Forwarded": {"for=" + forged}, "X-Real-Ip": {forged}}
		if got := c.login("user"+strings.Repeat("x", i)+"@example.com", "wrong"); got.status == http.StatusForbidden {
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("%d of 40 attempts under forged addresses were refused, want at least 20", refused)
	}
	innocent := g.client(t)
	innocent.from = "192.0.2.7"
	innocent.enter(alice)
}

// TestIPv6CountsByNetwork lets a customer use the whole /64 that is theirs.
func TestIPv6CountsByNetwork(t *testing.T) {
	g := newGate(t, newBackend(t))
	refused := 0
	for i := range 40 {
		c := g.client(t)
		c.from = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2, byte(i), 15: byte(7 * i)}).String()
		if got := c.login("user"+strings.Repeat("x", i)+"@example.com", "wrong"); got.status == http.StatusForbidden {
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("%d of 40 attempts from one /64 were refused, want at least 20", refused)
	}
	neighbour := g.client(t)
	neighbour.from = "2001:db8:1:3::1"
	neighbour.enter(alice)
}

// TestDecisionsOnPrefixes registers decisions and asks who is refused.
func TestDecisionsOnPrefixes(t *testing.T) {
	for _, test := range []struct {
		name, scope, value string
		refused, admitted  []string
	}{
		{"one address", "address", "192.0.2.7",
			[]string{"192.0.2.7", "::ffff:192.0.2.7", "64:ff9b::192.0.2.7"}, []string{"192.0.2.6", "192.0.2.8", "64:ff9b::192.0.2.8"}},
		{"a /32", "network", "192.0.2.7/32",
			[]string{"192.0.2.7", "64:ff9b::c000:207"}, []string{"192.0.2.6", "192.0.2.8"}},
		{"a /24", "network", "198.51.100.0/24",
			[]string{"198.51.100.0", "198.51.100.255", "::ffff:198.51.100.1", "64:ff9b::198.51.100.9"}, []string{"198.51.101.0", "198.51.99.255"}},
		{"a /64", "network", "2001:db8:1:2::/64",
			[]string{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"}, []string{"2001:db8:1:3::1", "2001:db8:1:1::1"}},
		{"one IPv6 address", "address", "2001:db8::5",
			[]string{"2001:db8::5", "2001:0db8:0:0:0:0:0:5"}, []string{"2001:db8::6"}},
		{"a mapped address", "address", "::ffff:203.0.113.4",
			[]string{"203.0.113.4"}, []string{"203.0.113.5"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBackend(t)
			g := newGate(t, b)
			g.decide(test.scope, test.value, "refuse")
			c := g.client(t)
			ask := func(from string, spoofed http.Header) int {
				c.from, c.header = from, spoofed
				return c.get("/anything").status
			}
			for _, from := range test.refused {
				if got := ask(from, nil); got != http.StatusForbidden {
					t.Errorf("from %s: %d, want 403", from, got)
				}
				if got := c.login(alice, rightPassword(alice)).status; got != http.StatusForbidden {
					t.Errorf("log-in from %s: %d, want 403", from, got)
				}
				// Who is refused stays so whatever they claim.
				if got := ask("", http.Header{"X-Forwarded-For": {"8.8.8.8, " + from}, "Forwarded": {"for=8.8.8.8"}, "X-Real-Ip": {"8.8.8.8"}}); got != http.StatusForbidden {
					t.Errorf("from %s, claiming another address: %d, want 403", from, got)
				}
			}
			for _, from := range test.admitted {
				if got := ask(from, nil); got != http.StatusOK {
					t.Errorf("from %s: %d, want 200", from, got)
				}
			}
			if _, records := b.take(); len(records) != len(test.admitted) {
				t.Errorf("%d requests reached the backend, want %d", len(records), len(test.admitted))
			}
			// And nobody is refused because somebody else claims to be them.
			liar := g.direct(t, "127.0.0.1")
			liar.header = http.Header{"X-Forwarded-For": {test.refused[0]}}
			if got := liar.get("/anything").status; got != http.StatusOK {
				t.Errorf("an untrusted peer that claims %s: %d, want 200", test.refused[0], got)
			}
		})
	}
}

// TestOwnHeadersStayOut sends what only the gate may say.
func TestOwnHeadersStayOut(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b)
	h3 := overHTTP3(t, trustedProxy)
	h2 := http2(trustedProxy)
	t.Cleanup(h2.CloseIdleConnections)
	for _, over := range []struct {
		name      string
		base      string
		transport http.RoundTripper
	}{{"HTTP/1.1", g.plain, g.proxied}, {"HTTP/2", g.secure, h2}, {"HTTP/3", g.secure, h3}} {
		t.Run(over.name, func(t *testing.T) {
			c := g.client(t)
			c.base, c.transport = over.base, over.transport
			c.enter(alice)
			c.header = http.Header{
				"Kidoban-Account": {"admin"}, "kidoban-session": {"1"}, "KIDOBAN-AAL": {"3"}, "Kidoban_Account": {"admin"},
				"kidoban_account": {"admin"}, "Kidoban-": {"x"}, "X-Plain": {"stays"}, "Kidobanned": {"stays"},
			}
			for _, request := range []struct{ method, path, body string }{
				{"GET", "/anything", ""},
				{"POST", "/anything", "a=b"},
				{"GET", "/login", ""},
				{"POST", "/login", "email=x%40example.com&password=wrong"},
			} {
				var body *strings.Reader
				var r *http.Request
				if request.body != "" {
					body = strings.NewReader(request.body)
					r = c.request(context.Background(), request.method, request.path, formType, body)
					r.Trailer = http.Header{"Kidoban-Trailer": {"1"}, "X-Token": {"stolen"}, "Cookie": {"sid=stolen"}, "X-Sum": {"1"}}
					r.ContentLength = -1
				} else {
					r = c.request(context.Background(), request.method, request.path, "", nil)
				}
				if over.name != "HTTP/1.1" { // names are lower case there
					for name, lines := range r.Header {
						if lower := strings.ToLower(name); lower != name {
							delete(r.Header, name)
							r.Header[http.CanonicalHeaderKey(lower)] = lines
						}
					}
				}
				if _, err := c.send(r); err != nil {
					t.Fatalf("%s %s: %v", request.method, request.path, err)
				}
				got := b.last(t)
				for name := range got.header {
					if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "kidoban-") {
						t.Errorf("%s %s: %s reached the backend: %q", request.method, request.path, name, got.header[name])
					}
				}
				for name, lines := range got.trailer {
					if len(lines) == 0 {
						continue
					}
					if strings.HasPrefix(strings.ToLower(name), "kidoban") || name == "X-Token" || name == "Cookie" {
						t.Errorf("%s %s: the trailer %s reached the backend", request.method, request.path, name)
					}
				}
				if request.body != "" && over.name != "HTTP/3" && got.trailer.Get("X-Sum") != "1" { // its client sends none
					t.Errorf("%s %s: trailers = %v, want what is not ours to stay", request.method, request.path, got.trailer)
				}
				if got.header.Get("X-Plain") != "stays" || got.header.Get("Kidobanned") != "stays" {
					t.Errorf("%s %s: others were lost: %v", request.method, request.path, got.header)
				}
			}
		})
	}
}

// TestOwnCookiesStayOut logs in and asks what the backend sees of the cookies.
func TestOwnCookiesStayOut(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b)
	c := g.client(t)
	c.enter(alice)
	if c.cookies[deviceCookie] == "" {
		t.Fatalf("cookies = %v, want one of the device", c.cookies)
	}
	session, device, sid := c.cookies[sessionCookie], c.cookies[deviceCookie], c.cookies["sid"]
	check := func(t *testing.T) {
		t.Helper()
		got := strings.Join(b.last(t).header["Cookie"], "; ")
		if strings.Contains(got, "kidoban") || strings.Contains(got, session) || strings.Contains(got, device) {
			t.Errorf("Cookie at the backend = %q, want nothing of ours", got)
		}
		if !strings.Contains(got, "sid="+sid) || !strings.Contains(got, "theme=dark") {
			t.Errorf("Cookie at the backend = %q, want its own credential and what is not our affair", got)
		}
	}
	for _, cookies := range []string{
		sessionCookie + "=" + session + "; " + deviceCookie + "=" + device + "; sid=" + sid + "; theme=dark",
		"theme=dark; sid=" + sid + ";" + deviceCookie + "=" + device + ";" + sessionCookie + "=" + session,
		"theme=dark;;; " + sessionCookie + "=" + session + " ; sid=" + sid,
	} {
		plain := g.client(t)
		plain.header.Set("Cookie", cookies)
		if got := plain.get("/secret"); got.body != "secret of "+alice {
			t.Errorf("GET /secret = %s, want the secret of %s", got, alice)
		}
		check(t)
		plain.do("POST", "/anything", formType, "a=b")
		check(t)
	}
	t.Run("two fields", func(t *testing.T) {
		plain := g.client(t)
		plain.header["Cookie"] = []string{sessionCookie + "=" + session + "; theme=dark", deviceCookie + "=" + device + "; sid=" + sid}
		plain.get("/secret")
		check(t)
	})
	t.Run("HTTP/2, one field for each", func(t *testing.T) {
		plain := g.client(t)
		plain.base, plain.transport = g.secure, http2(trustedProxy)
		plain.header["Cookie"] = []string{sessionCookie + "=" + session, deviceCookie + "=" + device, "sid=" + sid, "theme=dark"}
		plain.get("/secret")
		check(t)
	})
}
