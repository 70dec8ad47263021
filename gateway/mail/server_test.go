package mail_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

func TestMain(m *testing.M) {
	code := storagetest.Run(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines are left:", err)
		code = 1
	}
	os.Exit(code)
}

const (
	user     = "gate@example.com"
	password = "p@ss/word: 4711"
)

// inbox is a real SMTP server: STARTTLS, AUTH PLAIN, and what it was handed.
type inbox struct {
	address string
	roots   *x509.CertPool
	open    bool // asks for no log-in

	mu       sync.Mutex
	rcpt     func(to string) error // guarded by mu, as all below
	data     func(letter) error
	letters  []received
	attempts int // RCPT commands
}

type received struct {
	from, to string
	utf8     bool
	raw      []byte
}

// receive starts a server; change may set more of it.
func receive(t testing.TB, change func(*inbox, *smtp.Server)) *inbox {
	t.Helper()
	cert, roots := certificate(t)
	in := &inbox{roots: roots}
	s := smtp.NewServer(in)
	s.Domain, s.TLSConfig = "localhost", &tls.Config{Certificates: []tls.Certificate{cert}}
	s.ReadTimeout, s.WriteTimeout, s.MaxMessageBytes, s.EnableSMTPUTF8 = 10*time.Second, 10*time.Second, 1<<20, true
	s.ErrorLog = discard{}
	if change != nil {
		change(in, s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in.address = l.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { l.Close(); s.Close(); <-done }) // both: Serve may not have begun
	return in
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

// certificate is one for localhost and 127.0.0.1, and who vouches for it.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// url is the server's address with a log-in.
func (in *inbox) url(scheme string) string {
	return scheme + "://gate%40example.com:p%40ss%2Fword%3A%204711@" + in.address
}

func (in *inbox) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &visit{in: in, known: in.open}, nil
}

func (in *inbox) list() []received {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]received(nil), in.letters...)
}

// visit is one connection.
type visit struct {
	in    *inbox
	known bool
	now   received
}

func (v *visit) AuthMechanisms() []string { return []string{sasl.Plain} }

func (v *visit) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(identity, u, p string) error {
		if identity != "" || u != user || p != password {
			return smtp.ErrAuthFailed
		}
		v.known = true
		return nil
	}), nil
}

func (v *visit) Mail(from string, o *smtp.MailOptions) error {
	if !v.known {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "log in"}
	}
	v.now = received{from: from, utf8: o.UTF8}
	return nil
}

func (v *visit) Rcpt(to string, _ *smtp.RcptOptions) error {
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	v.in.attempts++
	v.now.to = to
	if v.in.rcpt != nil {
		return v.in.rcpt(to)
	}
	return nil
}

func (v *visit) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	v.now.raw = raw
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	if v.in.data != nil {
		if err := v.in.data(letter{}); err != nil {
			return err
		}
	}
	v.in.letters = append(v.in.letters, v.now)
	return nil
}

func (v *visit) Reset()        { v.now = received{} }
func (v *visit) Logout() error { return nil }

// to makes a mailer that hands in at in.
func to(in *inbox, scheme string) func(*mail.Config) {
	return func(c *mail.Config) { c.Server, c.Roots = in.url(scheme), in.roots }
}

func TestHandsIn(t *testing.T) {
	for _, test := range []struct {
		name, scheme string
		change       func(*inbox, *smtp.Server)
	}{
		{"STARTTLS and a log-in", "smtp", nil},
		{"in the clear on this machine", "smtp+plain", func(_ *inbox, s *smtp.Server) { s.TLSConfig, s.AllowInsecureAuth = nil, true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := receive(t, test.change)
			m := mailer(t, to(in, test.scheme))
			n := notice("confirmation.code", "ja")
			if got := m.Send(t.Context(), n, monday); got != (outbox.Answer{}) {
				t.Fatalf("got %+v", got)
			}
			letters := in.list()
			if len(letters) != 1 || letters[0].from != "security@example.com" || letters[0].to != "ann@example.com" || letters[0].utf8 {
				t.Fatalf("got %+v", letters)
			}
			l := parsed(t, letters[0].raw)
			if !strings.Contains(l.text, "4821-7730") || !strings.Contains(l.html, "4821-7730") {
				t.Errorf("no code in\n%s\n%s", l.text, l.html)
			}
			want, err := m.Compose("ann@example.com", n)
			if err != nil || string(want) != string(letters[0].raw) {
				t.Errorf("what came is not what was written, %v", err)
			}
		})
	}
}

func TestHandsInOverTLS(t *testing.T) {
	cert, roots := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	in := &inbox{roots: roots, address: l.Addr().String()}
	s := smtp.NewServer(in)
	s.Domain, s.ErrorLog = "localhost", discard{}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	defer func() { l.Close(); s.Close(); <-done }()
	if got := mailer(t, to(in, "smtps")).Send(t.Context(), notice("device.new", "en"), monday); got != (outbox.Answer{}) || len(in.list()) != 1 {
		t.Errorf("got %+v, %d letters", got, len(in.list()))
	}
	if got := mailer(t, func(c *mail.Config) { c.Server = in.url("smtps") }).Send(t.Context(), notice("device.new", "en"), monday); got.Final || got.Alive || fmt.Sprint(got.Err) != "the server's certificate is not valid for it: see `ca` where an authority of your own signed it" {
		t.Errorf("nobody vouches for it: got %+v", got)
	}
}

func TestAddressesBeyondASCII(t *testing.T) {
	for _, able := range []bool{true, false} {
		in := receive(t, func(_ *inbox, s *smtp.Server) { s.EnableSMTPUTF8 = able })
		m := mailer(t, to(in, "smtp"))
		n := notice("device.new", "ja")
		n.To = "山田@例え.jp"
		got := m.Send(t.Context(), n, monday)
		switch letters := in.list(); {
		case able && (got != (outbox.Answer{}) || len(letters) != 1 || !letters[0].utf8 || letters[0].to != "山田@xn--r8jz45g.jp"):
			t.Errorf("got %+v, %+v", got, letters)
		case !able && (!got.Final || !got.Alive || len(letters) > 0 || fmt.Sprint(got.Err) != "the server takes no addresses beyond ASCII (SMTPUTF8)"):
			t.Errorf("without SMTPUTF8: got %+v, %+v", got, letters)
		}
		n.To = "ann@例え.jp" // needs nothing of the server
		if got := m.Send(t.Context(), n, monday); got != (outbox.Answer{}) {
			t.Errorf("SMTPUTF8 %v, ASCII before the @: got %+v", able, got)
		}
	}
}

// TestAnswers shows what becomes of an attempt for each answer of a real server.
func TestAnswers(t *testing.T) {
	said := func(code int, a, b, c int) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{a, b, c}, Message: "no <ann@example.com>, says secret"}
	}
	for _, test := range []struct {
		name   string
		change func(*inbox, *smtp.Server)
		config func(*mail.Config)
		to     string
		want   outbox.Answer
		err    string
	}{
		{name: "nobody there", change: func(in *inbox, _ *smtp.Server) { in.rcpt = func(string) error { return said(550, 5, 1, 1) } },
			want: outbox.Answer{Final: true, Alive: true}, err: "recipient: 550 5.1.1"},
		{name: "greylisted", change: func(in *inbox, _ *smtp.Server) { in.rcpt = func(string) error { return said(450, 4, 7, 1) } },
			want: outbox.Answer{Alive: true}, err: "recipient: 450 4.7.1"},
		{name: "mailbox full", change: func(in *inbox, _ *smtp.Server) { in.rcpt = func(string) error { return said(452, 4, 2, 2) } },
			want: outbox.Answer{Alive: true}, err: "recipient: 452 4.2.2"},
		{name: "the server's disk full", change: func(in *inbox, _ *smtp.Server) { in.rcpt = func(string) error { return said(452, 4, 3, 1) } },
			want: outbox.Answer{}, err: "recipient: 452 4.3.1"},
		{name: "closing", change: func(in *inbox, _ *smtp.Server) { in.rcpt = func(string) error { return said(421, 4, 4, 2) } },
			want: outbox.Answer{}, err: "recipient: 421 4.4.2"},
		{name: "the message is not wanted", change: func(in *inbox, _ *smtp.Server) { in.data = func(letter) error { return said(554, 5, 7, 1) } },
			want: outbox.Answer{Final: true, Alive: true}, err: "end of the message: 554 5.7.1"},
		{name: "the message later", change: func(in *inbox, _ *smtp.Server) { in.data = func(letter) error { return said(451, 4, 7, 1) } },
			want: outbox.Answer{Alive: true}, err: "end of the message: 451 4.7.1"},
		{name: "too large", change: func(_ *inbox, s *smtp.Server) { s.MaxMessageBytes = 100 },
			want: outbox.Answer{}, err: "end of the message: 552 5.3.4"},
		{name: "a wrong password", config: func(c *mail.Config) { c.Server = strings.Replace(c.Server, "4711", "4712", 1) },
			want: outbox.Answer{}, err: "log-in: 535 5.7.8"},
		{name: "no log-in", config: func(c *mail.Config) { c.Server = "smtp://" + c.Server[strings.LastIndex(c.Server, "@")+1:] },
			want: outbox.Answer{}, err: "sender: 530 5.7.0"},
		{name: "no STARTTLS", change: func(_ *inbox, s *smtp.Server) { s.TLSConfig, s.AllowInsecureAuth = nil, true },
			want: outbox.Answer{}, err: "the server offers no STARTTLS: use one that does, or smtps"},
		{name: "nobody vouches for it", config: func(c *mail.Config) { c.Roots = nil },
			want: outbox.Answer{}, err: "the server's certificate is not valid for it: see `ca` where an authority of your own signed it"},
		{name: "an address that is none", to: "ann@example.com>\r\nRCPT TO:<x@example.com",
			want: outbox.Answer{Final: true, Alive: true}, err: "the address is none that mail can be sent to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := receive(t, test.change)
			m := mailer(t, func(c *mail.Config) {
				to(in, "smtp")(c)
				if test.config != nil {
					test.config(c)
				}
			})
			n := notice("device.new", "en")
			if test.to != "" {
				n.To = test.to
			}
			got := m.Send(t.Context(), n, monday)
			if fmt.Sprint(got.Err) != test.err {
				t.Errorf("error: got %v, want %q", got.Err, test.err)
			}
			if got.Err = nil; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if n := len(in.list()); n > 0 {
				t.Errorf("%d letters arrived", n)
			}
		})
	}
}

// script is a server that says lines, each after one of the client's, and then does
// last.
func script(t testing.TB, last func(net.Conn, *bufio.Reader), lines ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for i, line := range lines {
					if i > 0 {
						if _, err := r.ReadString('\n'); err != nil {
							return
						}
					}
					if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
						return
					}
				}
				if last != nil {
					last(conn, r)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// TestBrokenServers shows that servers that hang, cut off or talk nonsense are told
// apart from those that have the message, and keep nobody.
func TestBrokenServers(t *testing.T) {
	hang := func(conn net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) } // until the client hangs up
	message := func(then func(net.Conn)) func(net.Conn, *bufio.Reader) {
		return func(conn net.Conn, r *bufio.Reader) {
			_, _ = textproto.NewReader(r).ReadDotBytes()
			then(conn)
		}
	}
	upTo := func(n int) []string {
		return []string{"220 here", "250 localhost", "250 sender", "250 recipient", "354 go"}[:n]
	}
	tooMuch := func(conn net.Conn, _ *bufio.Reader) {
		chunk := strings.Repeat("a", 64<<10)
		for {
			if _, err := io.WriteString(conn, chunk); err != nil {
				return
			}
		}
	}
	for _, test := range []struct {
		name    string
		address string
		short   bool // it would take the whole time of an attempt
		want    outbox.Answer
		err     string
	}{
		{"nobody listens", closed(t), false, outbox.Answer{}, "connection refused"},
		{"hangs at once", script(t, hang), true, outbox.Answer{}, "greeting: no answer in time"},
		{"hangs after EHLO", script(t, hang, upTo(1)...), true, outbox.Answer{}, "greeting: no answer in time"},
		{"hangs after the recipient", script(t, hang, upTo(3)...), true, outbox.Answer{}, "recipient: no answer in time"},
		{"hangs after the message", script(t, message(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), upTo(5)...), true, outbox.Answer{Uncertain: true}, "end of the message: no answer in time"},
		{"cuts off at once", script(t, nil), false, outbox.Answer{}, "greeting: the connection broke"},
		{"cuts off after the message", script(t, message(func(net.Conn) {}), upTo(5)...), false, outbox.Answer{Uncertain: true}, "end of the message: the connection broke"},
		{"has no service", script(t, nil, "554 5.3.2 no service for secret"), false, outbox.Answer{}, "greeting: 554 5.3.2"},
		{"speaks HTTP", script(t, hang, "HTTP/1.1 400 Bad Request"), false, outbox.Answer{}, "greeting: the server does not speak SMTP as we do"},
		{"never ends its line", script(t, tooMuch), false, outbox.Answer{}, "the server says too much"},
		{"hangs after it has the message", script(t, message(func(c net.Conn) { _, _ = io.WriteString(c, "250 2.0.0 queued\r\n"); _, _ = io.Copy(io.Discard, c) }), upTo(5)...), true, outbox.Answer{}, "<nil>"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := mailer(t, func(c *mail.Config) {
				c.Server = "smtp+plain://" + test.address
				if test.short {
					c.Timeout = 200 * time.Millisecond
				}
			})
			got := m.Send(t.Context(), notice("device.new", "en"), monday)
			if fmt.Sprint(got.Err) != test.err {
				t.Errorf("error: got %v, want %q", got.Err, test.err)
			}
			if got.Err = nil; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
	t.Run("stopped", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		reached := make(chan struct{})
		m := mailer(t, func(c *mail.Config) {
			c.Server = "smtp+plain://" + script(t, func(c net.Conn, r *bufio.Reader) { _, _ = r.ReadString('\n'); close(reached); hang(c, r) }, upTo(2)...)
		})
		go func() { <-reached; cancel() }()
		if got := m.Send(ctx, notice("device.new", "en"), monday); got.Final || got.Uncertain || fmt.Sprint(got.Err) != "sender: stopped before the answer came" {
			t.Errorf("got %+v", got)
		}
	})
}

// closed is an address that nobody listens on.
func closed(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWhatIsRefused(t *testing.T) {
	const secret = "hunter2-secret"
	for _, test := range []struct {
		name   string
		change func(*mail.Config)
		want   string // part of the error; empty: none
	}{
		{"all", func(*mail.Config) {}, ""},
		{"a log-in", func(c *mail.Config) { c.Server = "smtps://u:" + secret + "@mail.example.com:465" }, ""},
		{"no scheme", func(c *mail.Config) { c.Server = "mail.example.com:587" }, "scheme"},
		{"http", func(c *mail.Config) { c.Server = "http://u:" + secret + "@mail.example.com" }, "scheme"},
		{"no host", func(c *mail.Config) { c.Server = "smtp://u:" + secret + "@:25" }, "no host"},
		{"a path", func(c *mail.Config) { c.Server = "smtp://u:" + secret + "@mail.example.com/" + secret }, "path"},
		{"a password that is not escaped", func(c *mail.Config) { c.Server = "smtp://u:" + secret + "%zz@mail.example.com" }, "cannot be read"},
		{"a user without a password", func(c *mail.Config) { c.Server = "smtp://" + secret + "@mail.example.com" }, "both user and password"},
		{"a port that is none", func(c *mail.Config) { c.Server = "smtp://u:" + secret + "@mail.example.com:99999" }, "port"},
		{"in the clear elsewhere", func(c *mail.Config) { c.Server = "smtp+plain://u:" + secret + "@mail.example.com" }, "in the clear"},
		{"in the clear here", func(c *mail.Config) { c.Server = "smtp+plain://127.0.0.1:2525" }, ""},
		{"a sender that is none", func(c *mail.Config) { c.From = "nobody" }, "from:"},
		{"a sender beyond ASCII", func(c *mail.Config) { c.From = "山田@example.jp" }, "from:"},
		{"a sender's name over two lines", func(c *mail.Config) { c.From = "\"a\r\nBcc: x@example.com\" <a@example.com>" }, "from:"},
		{"no name at all", func(c *mail.Config) { c.From, c.Service = "a@example.com", "" }, "service:"},
		{"a link in the clear", func(c *mail.Config) { c.Link = "http://chat.example.com" }, "link:"},
		{"a link on this machine", func(c *mail.Config) { c.Link = "http://localhost:8080" }, ""},
		{"a link that runs something", func(c *mail.Config) { c.Link = "javascript:alert(1)" }, "link:"},
		{"no link", func(c *mail.Config) { c.Link = "" }, "link:"},
	} {
		c := mail.Config{Server: "smtp://mail.example.com", From: "Example <security@example.com>", Link: "https://chat.example.com"}
		test.change(&c)
		_, err := mail.New(c)
		switch {
		case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		case err != nil && strings.Contains(err.Error(), secret):
			t.Errorf("%s: the error has the password: %v", test.name, err)
		}
	}
}
