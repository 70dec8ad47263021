package guard_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/assertion"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// BenchmarkKnownSession is what the guard adds to a request of a session it
// knows, without server and proxy.
func BenchmarkKnownSession(b *testing.B) {
	ctx := context.Background()
	dir := b.TempDir()
	log := slog.New(slog.DiscardHandler)
	db, err := storage.Open(ctx, storage.Options{DataDir: dir, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	keys, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), true)
	if err != nil {
		b.Fatal(err)
	}
	core, err := guard.Open(ctx, db, keys, settings(b, dir, keys, time.Now, log))
	if err != nil {
		b.Fatal(err)
	}
	set, _ := rules.Load(rules.Shipped)
	core.Rules.Store(set)
	core.Recall(ctx, "")
	preset, err := policies.LoadBackend("hostile", os.DirFS("testdata/backends"))
	if err != nil {
		b.Fatal(err)
	}
	rate, err := limits.ParseRate("1000000000/1h")
	if err != nil {
		b.Fatal(err)
	}
	s, token, err := core.Sessions.Begin(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "alice", AAL: 1},
		[]auth.Credential{{Kind: "session", Hash: auth.HashCredential("session", "backend-cookie"), Since: time.Now()}}, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	_ = s
	next := func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Content-Type"] = []string{"application/json"}
		w.WriteHeader(http.StatusOK)
		_, err := io.WriteString(w, `{"ok":true}`)
		return err
	}
	for _, bench := range []struct {
		name   string
		limits []limits.Limit
		site   assertion.Site
	}{
		{name: "no limits"},
		{name: "asserted", site: chatSite},
		{name: "3 limits", limits: []limits.Limit{
			{Name: "address", Key: limits.KeyAddress, Rate: rate},
			{Name: "session", Key: limits.KeySession, Rate: rate},
			{Name: "account", Key: limits.KeyAccount, Rate: rate},
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			g := guard.New(core, guard.Config{Backend: preset, Limits: bench.limits, Assert: bench.site})
			w := &discard{header: make(http.Header)}
			cookies := guard.SessionCookie + "=" + token + "; lang=ja; sid=backend-cookie"
			base := httptest.NewRequest("GET", "/v2/rooms/1/messages", nil)
			lines := []string{cookies}
			b.ReportAllocs()
			for b.Loop() {
				r := *base
				base.Header["Cookie"] = lines
				clear(w.header)
				if err := g.ServeHTTP(w, &r, guard.Peer{Address: "203.0.113.7"}, next); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
