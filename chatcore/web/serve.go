package web

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/kidoban/kidoban/chatcore"
)

// shutdownGrace is how long requests under way may take when the server stops.
const shutdownGrace = 10 * time.Second

// Serve serves svc on l until ctx ends, then ends live feeds, lets the other
// requests finish and returns nil. It closes l, and leaves svc open.
func Serve(ctx context.Context, l net.Listener, svc *chatcore.Service, o Options) error {
	handler, err := Handler(svc, o)
	if err != nil {
		l.Close()
		return err
	}
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      pollMax + 10*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	if o.Log != nil {
		srv.ErrorLog = slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn)
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		svc.EndLive()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		stopped <- srv.Shutdown(grace)
	})
	err = srv.Serve(l)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	if err := <-stopped; err != nil {
		srv.Close()
		return err
	}
	return nil
}
