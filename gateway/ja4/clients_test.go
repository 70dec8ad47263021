package ja4_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/kidoban/kidoban/gateway/ja4"
)

// hello is what a handshake showed.
type hello struct {
	of, stable string
	quic       bool
	protocol   string // the first that was offered
	resumes    bool   // it offered to resume a session
}

// listener answers over HTTP/1.1, 2 and 3 on one port, with a new connection for
// every request over TCP, and keeps what handshakes showed.
type listener struct {
	address string
	spki    string // of its certificate, as Chromium is told to believe it
	mu      sync.Mutex
	hellos  []hello
}

func listen(t *testing.T, most uint16) *listener {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	l := &listener{spki: base64.StdEncoding.EncodeToString(sum[:])}
	config := &tls.Config{
		MaxVersion: most, NextProtos: []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		_, quic := h.Conn.RemoteAddr().(*net.UDPAddr)
		seen := hello{of: ja4.Of(h, quic), stable: ja4.Stable(h, quic), quic: quic, resumes: slices.Contains(h.Extensions, 41)}
		if len(h.SupportedProtos) > 0 {
			seen.protocol = h.SupportedProtos[0]
		}
		l.mu.Lock()
		l.hellos = append(l.hellos, seen)
		l.mu.Unlock()
		return nil, nil
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor < 3 {
			w.Header().Set("Connection", "close")
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<title>begun</title><script>(async () => {
			for (let i = 0; i < 3; i++) { await (await fetch("/again?" + i, {cache: "no-store"})).text() }
			document.body.textContent = "all was fetched"
		})()</script>`)
	})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.address = fmt.Sprintf("localhost:%d", tcp.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: page, TLSConfig: config}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	h3 := &http3.Server{Handler: page, TLSConfig: http3.ConfigureTLSConfig(config)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ServeTLS(tcp, "", "") }) // it ends with server
	serving.Go(func() { _ = h3.Serve(udp) })                // it ends with h3
	t.Cleanup(func() {
		server.Close()
		h3.Close()
		udp.Close()
		serving.Wait()
	})
	return l
}

// check tells whether hellos of one program over one transport agree, first and
// resumed; which of them resumed is known from the hello itself in TLS 1.3.
func (l *listener) check(t *testing.T, quic, resuming bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var mine []hello
	resumed, apart := 0, false
	for _, h := range l.hellos {
		if h.quic != quic {
			continue
		}
		mine = append(mine, h)
		if h.resumes {
			resumed++
		}
		apart = apart || h.of != mine[0].of
		t.Logf("%s %s resumes=%t", h.of, h.stable, h.resumes)
		if h.stable != mine[0].stable {
			t.Errorf("Stable is %s, and was %s before", h.stable, mine[0].stable)
		}
	}
	if len(mine) < 2 || resuming && (resumed == 0 || mine[0].resumes || !apart) {
		t.Errorf("%d handshakes, %d resumed, told apart by Of: %t; want a first one and others that resume its session and differ in Of", len(mine), resumed, apart)
	}
}

// program is the path of a program that a test needs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is needed: %v", name, err)
		}
		t.Skipf("%s is not here", name)
	}
	return path
}

func TestGo(t *testing.T) {
	for _, test := range []struct {
		name  string
		most  uint16
		http2 bool
	}{
		{"TLS 1.3, HTTP/1.1", tls.VersionTLS13, false},
		{"TLS 1.3, HTTP/2", tls.VersionTLS13, true},
		{"TLS 1.2, HTTP/1.1", tls.VersionTLS12, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := listen(t, test.most)
			config := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
			transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: test.http2}
			for range 3 {
				fetch(t, transport, l)
			}
			l.check(t, false, test.most == tls.VersionTLS13)
		})
	}
	t.Run("HTTP/3", func(t *testing.T) {
		l := listen(t, 0)
		config := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		for range 3 {
			transport := &http3.Transport{TLSClientConfig: config}
			fetch(t, transport, l)
			transport.Close()
		}
		l.check(t, true, true)
	})
}

func fetch(t *testing.T, transport http.RoundTripper, l *listener) {
	t.Helper()
	res, err := (&http.Client{Transport: transport}).Get("https://" + l.address + "/")
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<10)
	for err == nil {
		_, err = res.Body.Read(buf)
	}
	res.Body.Close()
}

func TestCurl(t *testing.T) {
	curl := program(t, "curl")
	for arg, resuming := range map[string]bool{
		"--http1.1": true, "--http2": false, // over HTTP/2, curl 7.88 began every session anew
	} {
		t.Run(arg, func(t *testing.T) {
			l := listen(t, 0)
			address := "https://" + l.address + "/"
			out, err := exec.CommandContext(t.Context(), curl, arg, "-sS", "-k", address, address, address).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			l.check(t, false, resuming)
		})
	}
}

func TestChromium(t *testing.T) {
	chromium := program(t, "chromium")
	for name, quic := range map[string]bool{"TCP": false, "QUIC": true} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, 0)
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--user-data-dir=" + t.TempDir(),
				"--ignore-certificate-errors-spki-list=" + l.spki, "--timeout=30000", "--virtual-time-budget=20000", "--dump-dom"}
			if quic {
				args = append(args, "--enable-quic", "--host-resolver-rules=MAP localhost 127.0.0.1", "--origin-to-force-quic-on="+l.address)
			}
			out, err := exec.CommandContext(ctx, chromium, append(args, "https://"+l.address+"/")...).Output()
			if err != nil || !strings.Contains(string(out), "all was fetched") {
				t.Fatalf("%v: %s", err, out)
			}
			if !quic {
				l.check(t, false, true)
				return
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.hellos) == 0 || !l.hellos[0].quic || l.hellos[0].stable == "" {
				t.Errorf("handshakes are %+v, want the first over QUIC", l.hellos)
			}
			t.Logf("%+v", l.hellos)
		})
	}
}
