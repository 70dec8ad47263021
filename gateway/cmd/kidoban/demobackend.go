package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/web"
	"github.com/kidoban/kidoban/detectors/simulate"
)

// backendConfig says which chat to serve.
type backendConfig struct {
	file  string
	mail  string // directory that mails are written to; empty: nowhere
	entry string // where browsers find it, when the gate is in front
}

// backend is the chat service, served on loopback.
type backend struct {
	address string
	logins  *simulate.Counter // what reached it
	svc     *chatcore.Service
	server  *http.Server
	served  chan error
}

// startBackend serves the chat in c.file on a port of its own.
func startBackend(ctx context.Context, c backendConfig) (_ *backend, err error) {
	svc, err := chatcore.Open(ctx, chatcore.Config{Path: c.file, PasswordCost: cheapHash, MailDir: c.mail, PublicURL: c.entry})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, svc.Close())
		}
	}()
	o := web.Options{SecureCookies: c.entry != ""}
	if c.entry != "" {
		o.TrustedOrigins = []string{c.entry}
	}
	handler, err := web.Handler(svc, o)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{address: l.Addr().String(), logins: new(simulate.Counter), svc: svc, served: make(chan error, 1)}
	b.server = &http.Server{Handler: b.logins.Handler(handler), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	go func() { b.served <- b.server.Serve(l) }()
	return b, nil
}

// stop lets requests under way finish for a moment and closes the chat.
func (b *backend) stop() error {
	b.svc.EndLive()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if b.server.Shutdown(ctx) != nil {
		b.server.Close() // somebody would not go; there is nothing to save
	}
	err := <-b.served
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, b.svc.Close())
}
