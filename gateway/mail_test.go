package gateway_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	stdmail "net/mail"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// postbox is a real SMTP server that hands on what it is handed.
type postbox chan []byte

func (p postbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &postboxVisit{in: p}, nil }

type postboxVisit struct {
	in    postbox
	known bool
}

func (v *postboxVisit) AuthMechanisms() []string { return []string{sasl.Plain} }
func (v *postboxVisit) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if v.known = user == "gate" && password == "a/password"; !v.known {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func (v *postboxVisit) Mail(string, *smtp.MailOptions) error {
	if !v.known {
		return smtp.ErrAuthRequired
	}
	return nil
}
func (v *postboxVisit) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (v *postboxVisit) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	v.in <- raw
	return err
}
func (*postboxVisit) Reset()        {}
func (*postboxVisit) Logout() error { return nil }

// TestMailOfDecisions is the whole way: an operator's decision, and one letter to
// each who is told of it, in the language and with the values that he wants.
func TestMailOfDecisions(t *testing.T) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(authority.dir, "cert.pem"), filepath.Join(authority.dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	in := make(postbox, 100)
	s := smtp.NewServer(in)
	s.Domain, s.TLSConfig, s.ReadTimeout = "localhost", &tls.Config{Certificates: []tls.Certificate{cert}}, time.Minute
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { l.Close(); s.Close(); <-done })
	t.Setenv("KIDOBAN_TEST_SMTP", "smtp://gate:a%2Fpassword@"+l.Addr().String())
	g := newGate(t, newBackend(t), fmt.Sprintf(`mail {
			server {env.KIDOBAN_TEST_SMTP}
			from "例示チャット セキュリティ <security@example.com>"
			service 例示チャット
			link https://chat.example.com
			ca %s/cert.pem
			to duty@example.com {
				events decision.registered
				language ja
				time_zone Asia/Tokyo
			}
			to night@example.com {
				events decision.lifted
			}
		}`, authority.dir))
	var decision struct{ ID string }
	g.operator("POST", "/v1/decisions", map[string]string{"scope": "address", "value": "203.0.113.7", "action": "refuse", "ttl": "1h", "reason": "案件4711"}, &decision)
	header, text := readLetter(t, await(t, in, 20*time.Second, "the letter of the registration"))
	if header["To"] != "<duty@example.com>" || header["Subject"] != "[例示チャット] 新しい判定：拒否（アドレス）" || header["Auto-Submitted"] != "auto-generated" || !strings.HasPrefix(header["From"], "例示チャット セキュリティ <") {
		t.Errorf("header: %q", header)
	}
	for _, want := range []string{"アドレス 203.0.113.7", "案件4711", "判定元: 運用担当者", "tester", decision.ID, "JST"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	g.operator("DELETE", "/v1/decisions/"+decision.ID, nil, nil)
	header, text = readLetter(t, await(t, in, 20*time.Second, "the letter of the lift"))
	if header["To"] != "<night@example.com>" || header["Subject"] != "[例示チャット] Decision lifted: refuse (address)" || !strings.Contains(text, "Lifted by: tester") {
		t.Errorf("header: %q\n%s", header, text)
	}
	g.awaitOutbox("ok", "")
	if len(in) > 0 {
		_, text := readLetter(t, <-in)
		t.Errorf("a third letter:\n%s", text)
	}
}

// TestMailServerAway shows a mail server that fails in the gate's health.
func TestMailServerAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	g := newGate(t, newBackend(t), fmt.Sprintf("mail {\n\t\t\tserver smtp+plain://gate:a%%2Fpassword@%s\n\t\t\tfrom \"Chat <security@example.com>\"\n\t\t\tlink https://chat.example.com\n\t\t\tto duty@example.com\n\t\t}", l.Addr()))
	g.decide("address", "203.0.113.8", "refuse")
	g.awaitOutbox("degraded", "the server for mail does not take notices: connection refused")
}

// awaitOutbox waits until health says of the outbox what it should.
func (g *gate) awaitOutbox(status, detail string) {
	g.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var health struct {
			Parts []struct{ Name, Status, Detail string }
		}
		g.operator("GET", "/v1/health", nil, &health)
		for _, p := range health.Parts {
			if p.Name == "outbox" && p.Status == status && p.Detail == detail {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			g.t.Fatalf("health is %+v, want the outbox %s: %q", health.Parts, status, detail)
		}
	}
}

// readLetter returns a message's header fields, decoded, and its text.
func readLetter(t *testing.T, raw []byte) (map[string]string, string) {
	t.Helper()
	m, err := stdmail.ReadMessage(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	header := make(map[string]string)
	for name := range m.Header {
		if header[name], err = new(mime.WordDecoder).DecodeHeader(m.Header.Get(name)); err != nil {
			t.Fatal(err)
		}
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	part, err := multipart.NewReader(m.Body, params["boundary"]).NextRawPart()
	if err != nil {
		t.Fatal(err)
	}
	body := io.Reader(quotedprintable.NewReader(part))
	if part.Header.Get("Content-Transfer-Encoding") == "base64" {
		body = base64.NewDecoder(base64.StdEncoding, part)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return header, string(text)
}
