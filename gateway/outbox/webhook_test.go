package outbox_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/policies"
)

var update = flag.Bool("update", false, "write golden files")

var (
	monday   = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	oldKey   = []byte("twenty-four bytes at least")
	newKey   = []byte("another one of some length!!")
)

func secret(key []byte) string { return "whsec_" + base64.StdEncoding.EncodeToString(key) }

func notice() policies.Notice {
	return policies.Notice{
		Key: "decision.registered/d-1", Channel: "webhook", Template: "decision.registered", To: "duty",
		Values: map[string]string{"decision": "d-1", "value": "203.0.113.7", "reason": "<script> & \"quotes\""},
		State:  policies.Leased, Created: monday, Attempts: 1, MessageID: "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
	}
}

func webhook(t testing.TB, c outbox.WebhookConfig) *outbox.Webhook {
	t.Helper()
	if c.Secrets == nil {
		c.Secrets = []string{secret(newKey)}
	}
	w, err := outbox.NewWebhook(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// verify does what the receiver's side of Standard Webhooks does.
func verify(header http.Header, body, key []byte) error {
	for text := range strings.FieldsSeq(header.Get("webhook-signature")) {
		version, given, _ := strings.Cut(text, ",")
		if version != "v1" {
			continue
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", header.Get("webhook-id"), header.Get("webhook-timestamp"), body)
		if got, err := base64.StdEncoding.DecodeString(given); err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return nil
		}
	}
	return fmt.Errorf("no signature of %q is right", header.Get("webhook-signature"))
}

func TestWebhookSendsASignedMessage(t *testing.T) {
	var header http.Header
	var body []byte
	var target string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, target = r.Header, r.Method+" "+r.URL.String()
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	w := webhook(t, outbox.WebhookConfig{URL: server.URL + "/hook?token=abc", Secrets: []string{secret(newKey), secret(oldKey)}, Allow: loopback, Roots: roots})
	for _, test := range []struct {
		golden string
		state  policies.NoticeState
	}{{"message.json", policies.Leased}, {"message-repeated.json", policies.Uncertain}} {
		t.Run(test.golden, func(t *testing.T) {
			n := notice()
			n.State = test.state
			if a := w.Send(t.Context(), n, monday.Add(time.Minute)); a.Err != nil {
				t.Fatal(a.Err)
			}
			for _, key := range [][]byte{newKey, oldKey} {
				if err := verify(header, body, key); err != nil {
					t.Error(err)
				}
			}
			if verify(header, body, []byte("somebody else's secret....")) == nil {
				t.Error("a wrong secret verifies")
			}
			for name, want := range map[string]string{"Content-Type": "application/json", "webhook-id": n.MessageID, "webhook-timestamp": "1795424460"} {
				if got := header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			if !strings.HasPrefix(header.Get("User-Agent"), "Kidoban-Webhook/") || target != "POST /hook?token=abc" {
				t.Errorf("got %s by %s", target, header.Get("User-Agent"))
			}
			path := "testdata/" + test.golden
			if *update {
				if err := os.WriteFile(path, append(body, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(body)+"\n"); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// The example of the Standard Webhooks specification's libraries.
func TestSignatureVector(t *testing.T) {
	key, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	got := outbox.Sign([][]byte{key}, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnswers(t *testing.T) {
	big := strings.Repeat("x", 4<<20)
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		want    outbox.Answer
		err     string
	}{
		{"taken", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, outbox.Answer{}, ""},
		{"taken, with a huge answer", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, big) }, outbox.Answer{}, ""},
		{"gone", status(410, ""), outbox.Answer{Alive: true, Final: true}, "status 410"},
		{"not allowed", status(403, ""), outbox.Answer{Alive: true, Final: true}, "status 403"},
		{"time-out there", status(408, ""), outbox.Answer{Alive: true}, "status 408"},
		{"too early", status(425, ""), outbox.Answer{Alive: true}, "status 425"},
		{"too many, with seconds", status(429, "120"), outbox.Answer{Alive: true, After: 2 * time.Minute}, "status 429"},
		{"unavailable, with a date", status(503, "Mon, 23 Nov 2026 09:01:00 GMT"), outbox.Answer{Alive: true, After: time.Minute}, "status 503"},
		{"unavailable, with nonsense", status(503, "-5"), outbox.Answer{Alive: true}, "status 503"},
		{"broken", status(500, "120"), outbox.Answer{}, "status 500"},
		{"huge headers", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", big[:1<<20]) }, outbox.Answer{Uncertain: true}, "the connection broke, or the answer was not HTTP"},
		{"cut off", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		}, outbox.Answer{Uncertain: true}, "the connection broke, or the answer was not HTTP"},
		{"echoes the path", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprintf(conn, "%s\r\n\r\n", r.URL)
			conn.Close()
		}, outbox.Answer{Uncertain: true}, "the connection broke, or the answer was not HTTP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			defer server.Close()
			w := webhook(t, outbox.WebhookConfig{URL: server.URL + "/path-secret?query-secret", Allow: loopback, AllowPlain: true})
			got := w.Send(t.Context(), notice(), monday)
			if fmt.Sprint(got.Err) != test.err && !(got.Err == nil && test.err == "") {
				t.Errorf("error: got %v, want %q", got.Err, test.err)
			}
			got.Err = nil
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func status(code int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(code)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, code := range []int{301, 302, 303, 307, 308} {
		followed := false
		mux := http.NewServeMux()
		mux.Handle("/hook", http.RedirectHandler("/elsewhere", code))
		mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { followed = true })
		server := httptest.NewServer(mux)
		w := webhook(t, outbox.WebhookConfig{URL: server.URL + "/hook", Allow: loopback, AllowPlain: true})
		a := w.Send(t.Context(), notice(), monday)
		server.Close()
		if a.Err == nil || a.Final || followed {
			t.Errorf("%d: got %+v, followed %v: want an error that may be mended, not followed", code, a, followed)
		}
	}
}

func TestASlowReceiverIsLeft(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-release
	}))
	defer server.Close()
	defer close(release)
	w := webhook(t, outbox.WebhookConfig{URL: server.URL, Allow: loopback, AllowPlain: true, Timeout: 50 * time.Millisecond})
	a := w.Send(t.Context(), notice(), monday)
	if a.Err == nil || a.Err.Error() != "no answer in time" || !a.Uncertain || a.Final {
		t.Errorf("got %+v, want no answer in time, uncertain", a)
	}
}

// What resolves to an address of ours is refused when it is dialled.
func TestNamesOfInnerAddressesAreRefused(t *testing.T) {
	called := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	w := webhook(t, outbox.WebhookConfig{URL: "http://localhost:" + port + "/secret-path", AllowPlain: true})
	a := w.Send(t.Context(), notice(), monday)
	if a.Err == nil || !strings.HasPrefix(a.Err.Error(), "address refused: ") || a.Uncertain || called {
		t.Errorf("got %+v, called %v: want the address refused", a, called)
	}
	if a.Err != nil && strings.Contains(a.Err.Error(), "secret") {
		t.Errorf("%v shows the URL", a.Err)
	}
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	proxied := false
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied = true }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	w := webhook(t, outbox.WebhookConfig{URL: "http://10.1.2.3/", AllowPlain: true, Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Timeout: 50 * time.Millisecond})
	if a := w.Send(t.Context(), notice(), monday); a.Err == nil || proxied {
		t.Errorf("got %+v, proxied %v", a, proxied)
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	a := webhook(t, outbox.WebhookConfig{URL: server.URL, Roots: roots, Allow: loopback}).Send(t.Context(), notice(), monday)
	if want := "TLS 1.2 or later could not be agreed on"; a.Err == nil || a.Err.Error() != want || a.Uncertain {
		t.Errorf("old versions: got %+v, want %q", a, want)
	}
	modern := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	modern.Config.ErrorLog = log.New(io.Discard, "", 0)
	modern.StartTLS()
	defer modern.Close()
	a = webhook(t, outbox.WebhookConfig{URL: modern.URL, Allow: loopback}).Send(t.Context(), notice(), monday)
	if want := "the receiver's certificate is not valid for it"; a.Err == nil || a.Err.Error() != want {
		t.Errorf("unknown authority: got %v, want %q", a.Err, want)
	}
}

func TestRefusedAddresses(t *testing.T) {
	for _, test := range []struct {
		address string
		allowed bool
	}{
		{"93.184.215.14", true}, {"8.8.8.8", true}, {"2606:4700::1111", true}, {"172.32.0.1", true}, {"100.128.0.1", true}, {"11.0.0.1", true},
		{"127.0.0.1", false}, {"127.255.255.254", false}, {"::1", false}, {"0.0.0.0", false}, {"0.1.2.3", false}, {"::", false},
		{"10.0.0.1", false}, {"172.16.0.1", false}, {"172.31.255.255", false}, {"192.168.1.1", false}, {"fc00::1", false}, {"fd12:3456::1", false},
		{"169.254.169.254", false}, {"169.254.1.1", false}, {"fe80::1", false}, {"fe80::1%eth0", false}, {"fec0::1", false}, {"fd00:ec2::254", false},
		{"100.64.0.1", false}, {"100.127.255.255", false}, {"100.100.100.200", false},
		{"224.0.0.1", false}, {"239.255.255.250", false}, {"ff02::1", false}, {"240.0.0.1", false}, {"255.255.255.255", false},
		{"192.0.2.1", false}, {"198.51.100.1", false}, {"203.0.113.7", false}, {"2001:db8::1", false}, {"3fff::1", false},
		{"198.18.0.1", false}, {"198.19.255.255", false}, {"2001:2::1", false}, {"192.0.0.170", false}, {"192.88.99.1", false},
		{"::ffff:127.0.0.1", false}, {"::ffff:10.0.0.1", false}, {"::ffff:169.254.169.254", false}, {"::ffff:8.8.8.8", true}, {"::127.0.0.1", false},
		{"64:ff9b::7f00:1", false}, {"64:ff9b::a9fe:a9fe", false}, {"64:ff9b::808:808", true}, {"64:ff9b:1::808:808", false},
		{"2002:7f00:1::1", false}, {"2002:a9fe:a9fe::1", false}, {"2002:c0a8:101::1", false}, {"2002:808:808::1", true},
		{"2001:0:4136:e378:8000:63bf:3fff:fdd2", false}, {"100::1", false}, {"5f00::1", false}, {"4000::1", false},
	} {
		if err := outbox.Refusal(netip.MustParseAddr(test.address), nil); (err == nil) != test.allowed {
			t.Errorf("%s: got %v, want allowed %v", test.address, err, test.allowed)
		}
	}
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8:1::/48")}
	for address, want := range map[string]bool{"10.1.2.3": true, "10.2.0.1": false, "::ffff:10.1.2.3": true, "64:ff9b::a01:203": true, "2002:a01:203::1": true, "2001:db8:1::7": true, "2001:db8:2::7": false} {
		if err := outbox.Refusal(netip.MustParseAddr(address), allow); (err == nil) != want {
			t.Errorf("%s with an exception: got %v, want allowed %v", address, err, want)
		}
	}
}

func TestConfigurations(t *testing.T) {
	good := []string{secret(newKey)}
	for _, test := range []struct {
		name, want string
		c          outbox.WebhookConfig
	}{
		{"good", "", outbox.WebhookConfig{URL: "https://hooks.example.com/a?token=x", Secrets: good}},
		{"a port", "", outbox.WebhookConfig{URL: "https://hooks.example.com:8443/a", Secrets: good}},
		{"without prefix", "", outbox.WebhookConfig{URL: "https://hooks.example.com", Secrets: []string{base64.StdEncoding.EncodeToString(newKey)}}},
		{"plain", "url: http sends notices in the clear: use https, or say allow_plain", outbox.WebhookConfig{URL: "http://hooks.example.com", Secrets: good}},
		{"plain is allowed", "", outbox.WebhookConfig{URL: "http://hooks.example.com", Secrets: good, AllowPlain: true}},
		{"another scheme", "url: want the scheme https", outbox.WebhookConfig{URL: "file:///etc/passwd", Secrets: good}},
		{"a user", "url: has a user name: the receiver knows us by the signature", outbox.WebhookConfig{URL: "https://user:pass@hooks.example.com", Secrets: good}},
		{"no host", "url: has no host", outbox.WebhookConfig{URL: "https:///a", Secrets: good}},
		{"opaque", "url: has no host", outbox.WebhookConfig{URL: "https:hooks.example.com", Secrets: good}},
		{"a fragment", "url: has a fragment, which is never sent", outbox.WebhookConfig{URL: "https://hooks.example.com/#a", Secrets: good}},
		{"port 0", "url: the port is not a number from 1 to 65535", outbox.WebhookConfig{URL: "https://hooks.example.com:0/", Secrets: good}},
		{"not a URL", "url: cannot be read as one: want https://HOST/PATH", outbox.WebhookConfig{URL: "https://secret token\x7f/", Secrets: good}},
		{"an inner address", "address refused: 127.0.0.1 is in 127.0.0.0/8: `allow` the network if it is meant", outbox.WebhookConfig{URL: "https://127.0.0.1/", Secrets: good}},
		{"too long", "url: longer than 2,048 bytes", outbox.WebhookConfig{URL: "https://a.example/" + strings.Repeat("a", 2048), Secrets: good}},
		{"no secret", "secret: 0 are given, want 1 to 4", outbox.WebhookConfig{URL: "https://a.example/", Secrets: []string{}}},
		{"a short secret", "secret: want 24 to 64 bytes in base64: openssl rand -base64 32 makes one", outbox.WebhookConfig{URL: "https://a.example/", Secrets: []string{"whsec_c2hvcnQ="}}},
		{"not base64", "secret: want base64, with or without whsec_ before it: openssl rand -base64 32 makes one", outbox.WebhookConfig{URL: "https://a.example/", Secrets: []string{"correct horse battery staple"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := outbox.NewWebhook(test.c)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"https://hooks.example.com/a?b=c", "https://[::1]:443/", "https://user@host/", "http://127.1/", "https://a:99999/", "https://%31/", "https://a\\@b/", "https:a", "//a", "https://[::ffff:10.0.0.1%25eth0]/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := outbox.ParseTarget(raw, false, nil)
		if err != nil {
			if len(raw) > 8 && strings.Contains(raw, "://") && strings.Contains(err.Error(), raw) {
				t.Errorf("%v shows the URL", err)
			}
			return
		}
		again, err := url.Parse(u.String())
		if err != nil || again.Host != u.Host || u.Scheme != "https" || u.User != nil || u.Hostname() == "" {
			t.Errorf("%q became %q: %v", raw, u, err)
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && outbox.Refusal(a, nil) != nil {
			t.Errorf("%q has a refused address", raw)
		}
	})
}

func FuzzSecret(f *testing.F) {
	f.Add(secret(newKey))
	f.Add("whsec_")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := outbox.ParseSecret(text)
		if err != nil {
			return
		}
		if again, err := outbox.ParseSecret(secret(key)); err != nil || string(again) != string(key) {
			t.Errorf("%q does not come back: %v", text, err)
		}
	})
}
