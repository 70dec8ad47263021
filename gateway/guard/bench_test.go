package guard_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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

// benchCore is a core over a database of its own.
func benchCore(b *testing.B) *guard.Core {
	b.Helper()
	ctx := context.Background()
	dir := b.TempDir()
	log := slog.New(slog.DiscardHandler)
	db, err := storage.Open(ctx, storage.Options{DataDir: dir, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	keys, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), true)
	if err != nil {
		b.Fatal(err)
	}
	core, err := guard.Open(ctx, db, keys, settings(b, dir, keys, time.Now, log))
	if err != nil {
		b.Fatal(err)
	}
	set, _ := shipped()
	core.Rules.Store(set)
	core.Recall(ctx, "")
	return core
}

// BenchmarkKnownSession is what the guard adds to a request of a session it
// knows, without server and proxy.
func BenchmarkKnownSession(b *testing.B) {
	ctx := context.Background()
	core := benchCore(b)
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

// BenchmarkStages is what the stages request and message cost of a request: where no rule
// is asked there, which is to be less than 50 ns, and under the rules that ship, of which
// some are asked at request. How long a whole request takes is in BenchmarkKnownSession.
func BenchmarkStages(b *testing.B) {
	core := benchCore(b)
	preset, err := policies.LoadBackend("hostile", os.DirFS("testdata/backends"))
	if err != nil {
		b.Fatal(err)
	}
	ships := core.Rules.Load()
	none := ships.Only(func(r rules.Rule) bool { return r.On != rules.Request && r.On != rules.Message })
	if !ships.Asks(rules.Request) || none.Asks(rules.Request) || none.Asks(rules.Message) || len(none.Rules()) < 10 {
		b.Fatalf("of %d rules that ship %d are not asked at these stages", len(ships.Rules()), len(none.Rules()))
	}
	g := guard.New(core, guard.Config{Backend: preset})
	peer := guard.Peer{Address: "203.0.113.7"}
	page, _ := g.Stages(httptest.NewRequest("GET", "/v2/rooms/1/messages", nil), peer)
	message, _ := g.Stages(httptest.NewRequest("POST", "/messages", strings.NewReader("{}")), peer)
	_, mint := g.Stages(httptest.NewRequest("POST", "/tokens", strings.NewReader("{}")), peer)
	for _, bench := range []struct {
		name string
		set  *rules.Set
		ask  func() bool
	}{
		{"nobody asks/a page", none, page},
		{"nobody asks/a message", none, message},
		{"nobody asks/a token", none, mint},
		{"shipped/a page", ships, page},
		{"shipped/a token", ships, mint},
	} {
		b.Run(bench.name, func(b *testing.B) {
			core.Rules.Store(bench.set)
			b.ReportAllocs()
			for b.Loop() {
				if !bench.ask() {
					b.Fatal("it does not go on")
				}
			}
		})
	}
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkIngress is what it costs to know who a request is from, and what of it may
// pass: with a cookie, and with a bearer token of 1 KiB. That it does not grow with the
// sessions there are is in package auth's BenchmarkSessions.
func BenchmarkIngress(b *testing.B) {
	ctx := context.Background()
	core := benchCore(b)
	preset, err := policies.LoadBackend("hostile", os.DirFS("testdata/backends"))
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	begin := func(kind auth.SessionKind, credential, value string) string {
		_, token, err := core.Sessions.Begin(ctx, auth.Session{Kind: kind, Subject: "alice", AAL: 1},
			[]auth.Credential{{Kind: credential, Hash: auth.HashCredential(credential, value), Since: now}}, now)
		if err != nil {
			b.Fatal(err)
		}
		return token
	}
	bearer := strings.Repeat("x", 1024)
	token := begin(auth.BrowserSession, "session", "backend-cookie")
	begin(auth.TokenSession, "bearer", bearer)
	g := guard.New(core, guard.Config{Backend: preset})
	for name, header := range map[string]http.Header{
		"cookie":         {"Cookie": {guard.SessionCookie + "=" + token + "; lang=ja; chat_session=backend-cookie"}},
		"bearer of 1KiB": {"Authorization": {"Bearer " + bearer}},
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v2/rooms/1/messages", nil)
			peer := guard.Peer{Address: "198.51.100.1"}
			b.ReportAllocs()
			for b.Loop() {
				for field, lines := range header {
					r.Header[field] = lines
				}
				if !g.Ingress(r, peer) {
					b.Fatal("no session")
				}
			}
		})
	}
}
