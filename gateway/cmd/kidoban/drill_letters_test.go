package main

import (
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	stdmail "net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// letters is a real SMTP server on loopback that keeps what it is handed.
type letters struct {
	address string

	mu   sync.Mutex
	kept []letter // guarded by mu
}

type letter struct {
	to, subject string
	id          string // the same in each attempt to send it
	text        string // the plain one
	at          time.Time
}

func newLetters(t testing.TB) *letters {
	t.Helper()
	l := new(letters)
	s := smtp.NewServer(l)
	s.Domain = "localhost"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.address = listener.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(listener) }()
	t.Cleanup(func() { listener.Close(); s.Close(); <-done })
	return l
}

// option is the line that has a gate send its letters here.
func (l *letters) option() string {
	return "mail {\n\t\t\tserver smtp+plain://" + l.address + "\n\t\t\tfrom \"Example Chat <security@example.com>\"\n\t\t\tlink https://chat.example\n\t\t}"
}

// NewSession implements smtp.Backend.
func (l *letters) NewSession(*smtp.Conn) (smtp.Session, error) { return &letterVisit{in: l}, nil }

type letterVisit struct {
	in *letters
	to string
}

func (*letterVisit) Mail(string, *smtp.MailOptions) error { return nil }
func (v *letterVisit) Rcpt(to string, _ *smtp.RcptOptions) error {
	v.to = to
	return nil
}
func (v *letterVisit) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m, err := stdmail.ReadMessage(strings.NewReader(string(raw)))
	if err != nil {
		return err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		return err
	}
	text, err := plainText(m)
	if err != nil {
		return err
	}
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	v.in.kept = append(v.in.kept, letter{v.to, subject, m.Header.Get("Message-Id"), text, time.Now()})
	return nil
}
func (*letterVisit) Reset()        {}
func (*letterVisit) Logout() error { return nil }

// plainText is the first part of a message, which is the one without markup.
func plainText(m *stdmail.Message) (string, error) {
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return "", err
	}
	part, err := multipart.NewReader(m.Body, params["boundary"]).NextRawPart()
	if err != nil {
		return "", err
	}
	var body io.Reader = quotedprintable.NewReader(part)
	if part.Header.Get("Content-Transfer-Encoding") == "base64" {
		body = base64.NewDecoder(base64.StdEncoding, part)
	}
	text, err := io.ReadAll(body)
	return string(text), err
}

// of is what came for an address, the oldest first.
func (l *letters) of(to string) (all []letter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.kept {
		if strings.EqualFold(one.to, to) {
			all = append(all, one)
		}
	}
	return slices.Clone(all)
}
