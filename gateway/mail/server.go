package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wneessen/go-mail/smtp"

	"github.com/kidoban/kidoban/gateway/outbox"
)

// server is where mail is handed in.
type server struct {
	scheme         string // smtp, smtps, smtp+plain
	host, port     string
	user, password string
	roots          *x509.CertPool
}

var ports = map[string]string{"smtp": "587", "smtps": "465", "smtp+plain": "25"}

// parseServer reads the URL. Its errors never show it: it has a password.
func parseServer(raw string) (server, error) {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > 2048 {
		return server{}, errors.New("server: cannot be read as a URL: want smtp://HOST:587, and a password with %40 for @, %2F for / and so on")
	}
	s := server{scheme: u.Scheme, host: u.Hostname(), port: u.Port()}
	switch {
	case ports[s.scheme] == "":
		return server{}, errors.New("server: want the scheme smtp, smtps or smtp+plain")
	case u.Opaque != "" || s.host == "":
		return server{}, errors.New("server: has no host")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || strings.Contains(raw, "#"):
		return server{}, errors.New("server: has a path, a query or a fragment; want smtp://HOST:587")
	case strings.HasSuffix(u.Host, ":"):
		return server{}, errors.New("server: has a colon but no port")
	case s.scheme == "smtp+plain" && !loopbackName(s.host):
		return server{}, errors.New("server: smtp+plain sends in the clear: it is for 127.0.0.1, ::1 and localhost; want smtp or smtps")
	}
	if s.port == "" {
		s.port = ports[s.scheme]
	}
	if n, err := strconv.ParseUint(s.port, 10, 16); err != nil || n == 0 {
		return server{}, errors.New("server: the port is not a number from 1 to 65535")
	}
	for _, c := range []byte(s.host) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^{|}%`+"`", c) >= 0 {
			return server{}, errors.New("server: the host has characters that no host name has: write an international name as xn--")
		}
	}
	if u.User != nil {
		var given bool
		s.user = u.User.Username()
		if s.password, given = u.User.Password(); s.user == "" || !given || strings.ContainsRune(s.user+s.password, 0) {
			return server{}, errors.New("server: want both user and password, or neither")
		}
	}
	return s, nil
}

func loopbackName(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// maxRead is how much a server may say in one attempt, certificates included.
const maxRead = 256 << 10

// connection ends with the attempt, and reads no more than maxRead.
type connection struct {
	net.Conn
	left int
}

var errChatter = errors.New("the server says too much")

func (c *connection) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errChatter
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// SetDeadline does nothing: the attempt's own holds.
func (*connection) SetDeadline(time.Time) error { return nil }

var errNotLoopback = errors.New("the host is not on this machine: smtp+plain is for loopback")

// dial connects until ctx ends, which closes the connection under way.
func (s server) dial(ctx context.Context) (net.Conn, func(), error) {
	dialer := &net.Dialer{Control: func(_, to string, _ syscall.RawConn) error {
		if a, err := netip.ParseAddrPort(to); s.scheme == "smtp+plain" && (err != nil || !a.Addr().Unmap().IsLoopback()) {
			return errNotLoopback
		}
		return nil
	}}
	plain, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(s.host, s.port))
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { plain.Close() })
	conn := net.Conn(&connection{Conn: plain, left: maxRead})
	if s.scheme == "smtps" {
		conn = tls.Client(conn, s.tls())
	}
	return conn, func() { stop(); plain.Close() }, nil
}

func (s server) tls() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.host, RootCAs: s.roots}
}

// stage is how far an attempt came.
type stage string

const (
	connecting stage = "connection"
	greeting   stage = "greeting"
	securing   stage = "STARTTLS"
	loggingIn  stage = "log-in"
	naming     stage = "sender"
	addressing stage = "recipient"
	writing    stage = "message"
	delivered  stage = "end of the message"
)

var (
	errNoTLS  = errors.New("the server offers no STARTTLS: use one that does, or smtps")
	errNoAuth = errors.New("the server offers no log-in that we know: want SCRAM-SHA-256, PLAIN or LOGIN")
	errNoUTF8 = errors.New("the server takes no addresses beyond ASCII (SMTPUTF8)")
)

// deliver makes one attempt to hand in message.
func (s server) deliver(ctx context.Context, name, from string, to Address, message []byte) outbox.Answer {
	at, err := s.attempt(ctx, name, from, to, message)
	if err == nil {
		return outbox.Answer{}
	}
	var said *textproto.Error
	if ctx.Err() != nil && !errors.As(err, &said) { // whatever it looks like, this is why
		err = ctx.Err()
	}
	return judge(at, err)
}

func (s server) attempt(ctx context.Context, name, from string, to Address, message []byte) (stage, error) {
	conn, hangUp, err := s.dial(ctx)
	if err != nil {
		return connecting, err
	}
	defer hangUp()
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		return greeting, err
	}
	if err := c.Hello(name); err != nil {
		return greeting, err
	}
	if s.scheme == "smtp" {
		if offered, _ := c.Extension("STARTTLS"); !offered {
			return securing, errNoTLS
		}
		if err := c.StartTLS(s.tls()); err != nil {
			return securing, err
		}
	}
	if s.user != "" {
		if err := s.logIn(c); err != nil {
			return loggingIn, err
		}
	}
	if offered, _ := c.Extension("SMTPUTF8"); to.international && !offered {
		return addressing, errNoUTF8
	}
	c.SkipSMTPUTF8(!to.international) // what need not be, is not asked of the servers after this one
	if err := c.Mail("<" + from + ">"); err != nil {
		return naming, err
	}
	if err := c.Rcpt("<" + to.String() + ">"); err != nil {
		return addressing, err
	}
	w, err := c.Data()
	if err != nil {
		return writing, err
	}
	if _, err := w.Write(message); err != nil {
		return writing, err
	}
	if err := w.Close(); err != nil {
		return delivered, err
	}
	_ = c.Quit() // it has the message
	return delivered, nil
}

// logIn proves who we are. The connection is encrypted, or to this machine.
func (s server) logIn(c *smtp.Client) error {
	_, offered := c.Extension("AUTH")
	mechanisms := strings.Fields(strings.ToUpper(offered))
	switch {
	case slices.Contains(mechanisms, "SCRAM-SHA-256"): // it never tells the password
		return c.Auth(smtp.ScramSHA256Auth(s.user, s.password))
	case slices.Contains(mechanisms, "PLAIN"):
		return c.Auth(smtp.PlainAuth("", s.user, s.password, s.host, true))
	case slices.Contains(mechanisms, "LOGIN"):
		return c.Auth(smtp.LoginAuth(s.user, s.password, s.host, true))
	}
	return errNoAuth
}

// judge says what became of an attempt that ended with err.
func judge(at stage, err error) outbox.Answer {
	var said *textproto.Error
	if !errors.As(err, &said) {
		a := outbox.Answer{Err: reason(at, err), Uncertain: at == delivered}
		if errors.Is(err, errNoUTF8) {
			a.Final, a.Alive = true, true
		}
		return a
	}
	enhanced := enhancedCode(said.Msg)
	answer := outbox.Answer{Err: fmt.Errorf("%s: %s", at, strings.TrimSpace(strconv.Itoa(said.Code)+" "+enhanced))}
	about := at == addressing || at == writing || at == delivered
	switch {
	case !about, said.Code < 400, said.Code >= 600:
	case said.Code == 421, // it closes
		said.Code == 500, said.Code == 502, said.Code == 503, said.Code == 504, // it does not understand us
		said.Code == 530, said.Code == 535, said.Code == 538, // it wants another log-in
		len(enhanced) > 3 && enhanced[2] == '3': // X.3.X is about its own state, RFC 3463 section 3.4
	default:
		answer.Alive, answer.Final = true, said.Code >= 500
	}
	return answer
}

var enhancedForm = regexp.MustCompile(`^([245]\.\d{1,3}\.\d{1,3})(?:\s|$)`)

// enhancedCode is the code of RFC 3463 at the start of an answer, or "". The rest of an
// answer has the recipient's address, often.
func enhancedCode(said string) string {
	if m := enhancedForm.FindStringSubmatch(said); m != nil {
		return m[1]
	}
	return ""
}

// reason says what went wrong in words that cannot hold a password, an address or
// what the server said.
func reason(at stage, err error) error {
	var (
		dns        *net.DNSError
		dial       *net.OpError
		unverified *tls.CertificateVerificationError
		alert      tls.AlertError
		record     tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, errNoTLS), errors.Is(err, errNoAuth), errors.Is(err, errNoUTF8), errors.Is(err, errChatter):
		for _, known := range []error{errNoTLS, errNoAuth, errNoUTF8, errChatter} {
			if errors.Is(err, known) {
				return known
			}
		}
	case errors.Is(err, errNotLoopback):
		return errNotLoopback
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: stopped before the answer came", at)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time", at)
	case errors.As(err, &dns) && dns.IsNotFound:
		return errors.New("the server's name is not known")
	case errors.As(err, &dns):
		return errors.New("the server's name could not be resolved")
	case errors.As(err, &unverified):
		return errors.New("the server's certificate is not valid for it: see `ca` where an authority of your own signed it")
	case errors.As(err, &alert), errors.As(err, &record), errors.As(err, &dial) && dial.Op == "remote error":
		return errors.New("TLS 1.2 or later could not be agreed on")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case at == connecting:
		return errors.New("no connection")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%s: the connection broke", at)
	}
	return fmt.Errorf("%s: the server does not speak SMTP as we do", at)
}
