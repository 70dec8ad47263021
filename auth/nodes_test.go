package auth_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/auth"
)

// node is one of several processes that share a store.
type node struct {
	*auth.Sessions
	probe *auth.SessionProbe
	told  []string // ids, by OnEnd
}

// another is a store on what b has open, as another process has it.
func another(b backing) store {
	if d, ok := b.(*database); ok {
		return d.another()
	}
	return b.open()
}

func openNode(t testing.TB, b backing, cfg auth.SessionsConfig) *node {
	n, err := startNode(t, b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func startNode(t interface{ Context() context.Context }, b backing, cfg auth.SessionsConfig) (*node, error) {
	n := &node{probe: &auth.SessionProbe{SessionStore: another(b), Shared: true}}
	ss, err := auth.OpenSessions(t.Context(), n.probe, cfg, start)
	if err != nil {
		return nil, err
	}
	ss.OnEnd(func(s auth.Session) { n.told = append(n.told, s.ID) })
	n.Sessions = ss
	return n, nil
}

func eachTwo(t *testing.T, cfg auth.SessionsConfig, run func(t *testing.T, a, b *sessionBench)) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		bench := func() *sessionBench {
			n := openNode(t, b, cfg)
			s := &sessionBench{t: t, b: b, cfg: cfg, probe: n.probe, Sessions: n.Sessions}
			s.OnEnd(func(ended auth.Session) { s.told = append(s.told, ended) })
			return s
		}
		run(t, bench(), bench())
	})
}

func (s *sessionBench) reconcile() {
	s.t.Helper()
	if err := s.Reconcile(s.t.Context(), start); err != nil {
		s.t.Fatal(err)
	}
	if err := s.CheckCache(); err != nil {
		s.t.Error(err)
	}
}

func (s *sessionBench) wantTold(ids ...string) {
	s.t.Helper()
	var got []string
	for _, e := range s.told {
		if e.Ended.IsZero() {
			s.t.Errorf("told that %s ended, which is live", e.ID)
		}
		got = append(got, e.ID)
	}
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		s.t.Errorf("told of the ends of %v, want %v", got, ids)
	}
}

func (s *sessionBench) end(id string, now time.Time) {
	s.t.Helper()
	if _, err := s.End(s.t.Context(), id, auth.Act{By: "user"}, now); err != nil {
		s.t.Fatal(err)
	}
}

func TestEndsOfOtherNodes(t *testing.T) {
	eachTwo(t, auth.SessionsConfig{}, func(t *testing.T, a, b *sessionBench) {
		first, token := a.begin("acc-1", "dev", start, "x")
		unread, _ := a.begin("acc-1", "dev-2", start, "y")
		own, _ := b.begin("acc-2", "", start, "z")
		b.wantToken(token, start, first.ID, nil)
		a.end(first.ID, start)
		a.end(unread.ID, start)
		b.end(own.ID, start)
		b.wantToken(token, start, first.ID, nil) // from memory
		for range 2 {
			b.reconcile()
			b.wantToken(token, start, "", auth.ErrSessionEnded)
			b.wantCookie("x", start, "", auth.ErrSessionEnded)
			b.wantTold(first.ID, unread.ID, own.ID)
			a.reconcile()
			a.wantTold(first.ID, unread.ID, own.ID)
		}
		// A login takes the credential of what ended: that is no second end.
		second, _ := a.begin("acc-1", "dev", start, "x")
		b.wantCookie("x", start, second.ID, nil)
		b.reconcile()
		b.wantCookie("x", start, second.ID, nil)
		b.wantTold(first.ID, unread.ID, own.ID)

		// Who ends it again learns of the end at once.
		third, token := a.begin("acc-3", "", start, "w")
		b.wantToken(token, start, third.ID, nil)
		a.end(third.ID, start)
		if _, err := b.End(t.Context(), third.ID, auth.Act{By: "user"}, start); !errors.Is(err, auth.ErrSessionEnded) {
			t.Errorf("ending it on the other node too: %v", err)
		}
		b.wantToken(token, start, "", auth.ErrSessionEnded)
		b.reconcile()
		b.wantTold(first.ID, unread.ID, own.ID, third.ID)
	})
}

// What ended before a node began is not told to it, also if it changes later.
func TestOldEndsAreNotTold(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		a := openNode(t, b, auth.SessionsConfig{})
		old, _, err := a.Begin(t.Context(), auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, creds("cookie", "x"), start)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.End(t.Context(), old.ID, auth.Act{By: "user"}, start); err != nil {
			t.Fatal(err)
		}
		later := openNode(t, b, auth.SessionsConfig{})
		if _, _, err := a.Begin(t.Context(), auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, creds("cookie", "x"), start); err != nil {
			t.Fatal(err)
		}
		if err := later.Reconcile(t.Context(), start); err != nil || len(later.told) != 0 {
			t.Errorf("told %v, %v, want nothing", later.told, err)
		}
	})
}

func TestCredentialsOfOtherNodes(t *testing.T) {
	eachTwo(t, auth.SessionsConfig{}, func(t *testing.T, a, b *sessionBench) {
		// Nobody's here a moment ago, somebody's there now: it must not pass for a
		// visitor's.
		b.wantCookie("x", start, "", auth.ErrNoSession)
		session, token := a.begin("acc-1", "", start, "x")
		b.wantCookie("x", start, session.ID, nil)

		// Rolled on the other node.
		later := start.Add(time.Hour)
		a.add(session.ID, "x2", later)
		b.wantCookie("x2", later, session.ID, nil)
		a.add(session.ID, "x3", later)
		b.reconcile()
		if got := b.wantToken(token, later, session.ID, nil); got != nil && !got.Holds("cookie", auth.HashCredential("cookie", "x3"), later) {
			t.Error("the session in memory lacks the credential of the other node")
		}
		b.wantCookie("x", later.Add(time.Minute), "", auth.ErrSessionEnded)

		// Retired here, current again there: what is refused was looked up.
		a.add(session.ID, "x", later)
		b.wantCookie("x", later.Add(time.Minute), session.ID, nil)
		b.wantTold()
	})
}

func TestIdleOnSeveralNodes(t *testing.T) {
	eachTwo(t, auth.SessionsConfig{}, func(t *testing.T, a, b *sessionBench) {
		session, token := a.begin("acc-1", "", start, "x")
		b.wantToken(token, start, session.ID, nil)
		// It is used there only.
		use := start.Add(10 * day)
		a.wantToken(token, use, session.ID, nil)
		a.Touch(session.ID, use)
		a.sweep(use, 0)
		now := start.Add(14 * day)
		b.wantToken(token, now, session.ID, nil)
		b.wantCookie("x", now, session.ID, nil)
		if n := b.asked(func() { b.wantToken(token, now, session.ID, nil) }); n != 0 {
			t.Errorf("asked the store %d times for what it said, want none", n)
		}
		b.sweep(now, 0)
		// It is over everywhere at once, and ended when no use can be under way.
		now = use.Add(14 * day)
		a.wantToken(token, now, "", auth.ErrExpired)
		b.wantToken(token, now, "", auth.ErrExpired)
		b.sweep(now, 0)
		b.sweep(now.Add(auth.LateUse), 1)
		a.reconcile()
		a.wantToken(token, now, "", auth.ErrSessionEnded)
		a.wantTold(session.ID)
	})
}

// More changes than a batch, with one revision and with many.
func TestReconcileMany(t *testing.T) {
	eachTwo(t, auth.SessionsConfig{CacheSize: 50}, func(t *testing.T, a, b *sessionBench) {
		var ids, tokens []string
		for i := range auth.Batch + 120 {
			s, token := a.begin(fmt.Sprint("acc-", i%5/4), "", start, fmt.Sprint("x", i))
			ids, tokens = append(ids, s.ID), append(tokens, token)
			b.wantToken(token, start, s.ID, nil)
		}
		for _, subject := range []string{"acc-0", "acc-1"} {
			if _, err := a.EndAll(t.Context(), subject, auth.Act{By: "operator"}, start); err != nil {
				t.Fatal(err)
			}
		}
		b.reconcile()
		b.wantTold(ids...)
		for _, token := range tokens {
			b.wantToken(token, start, "", auth.ErrSessionEnded)
		}
		a.reconcile()
		a.wantTold(ids...)
	})
}

func TestActs(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		n, ctx := openNode(t, b, auth.SessionsConfig{}), t.Context()
		act := func(entry string) auth.Act { return auth.Act{By: "operator", Entry: entry} }
		begin := func(entry string) (auth.Session, error) {
			s, _, err := n.BeginAct(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, nil, act(entry), start)
			return s, err
		}
		first, err := begin("node-1/1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := begin("node-1/1"); !errors.Is(err, auth.ErrActed) {
			t.Errorf("beginning it again: %v, want %v", err, auth.ErrActed)
		}
		if _, err := n.End(ctx, first.ID, act("node-1/1"), start); !errors.Is(err, auth.ErrActed) {
			t.Errorf("an entry for two acts: %v, want %v", err, auth.ErrActed)
		}
		if _, err := n.End(ctx, first.ID, act("node-1/2"), start.Add(time.Hour)); err != nil {
			t.Error(err)
		}
		if _, err := n.End(ctx, first.ID, act("node-1/3"), start); !errors.Is(err, auth.ErrSessionEnded) {
			t.Errorf("ending it again: %v", err)
		}
		if _, err := n.EndAll(ctx, "nobody", act("node-12/4"), start); err != nil {
			t.Error(err)
		}
		for _, bad := range []string{"1", "/1", "node/", "node\x00/1", "n\xff/1", "n/" + strings.Repeat("1", 128)} {
			if _, err := begin(bad); err == nil {
				t.Errorf("entry %q: want an error", bad)
			}
		}
		entries := []string{"node-1/1", "node-1/2", "node-1/3", "node-12/4", "node-1/9", "no\x00/1"}
		for i := range 2 * auth.ChunkSize {
			entries = append(entries, fmt.Sprint("other/", i))
		}
		want := func(want ...string) {
			t.Helper()
			got, err := n.Acted(ctx, entries)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
				t.Errorf("acts that happened (-want +got):\n%s", diff)
			}
		}
		want("node-1/1", "node-1/2", "node-12/4")
		if err := n.ForgetActs(ctx, "node-1", start.Add(time.Minute)); err != nil {
			t.Error(err)
		}
		want("node-1/2", "node-12/4")
		for _, bad := range []string{"", "a/b", "\x00"} {
			if err := n.ForgetActs(ctx, bad, start); err == nil {
				t.Errorf("forgetting the acts of %q: want an error", bad)
			}
		}
	})
}

// TestActsUnderWay asks what happened while the server is still at a commit of a
// process that is gone.
func TestActsUnderWay(t *testing.T) {
	d := newPostgres(t)
	n, ctx := openNode(t, d, auth.SessionsConfig{}), t.Context()
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, statement := range []string{`UPDATE auth_revision SET revision = revision + 1`, `INSERT INTO auth_acts (entry, at) VALUES ('node-1/1', 1)`} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	type answer struct {
		acted map[string]bool
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		acted, err := n.Acted(ctx, []string{"node-1/1"})
		answers <- answer{acted, err}
	}()
	for waits := false; !waits; {
		select {
		case a := <-answers:
			t.Fatalf("answered before the commit was over: %v, %v", a.acted, a.err)
		default:
		}
		if err := d.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.err != nil || !a.acted["node-1/1"] {
		t.Errorf("after the commit: %v, %v", a.acted, a.err)
	}
}

// What a database takes for no text must not become an error of the database.
func TestNoTexts(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		n, ctx := openNode(t, b, auth.SessionsConfig{}), t.Context()
		d := auth.NewDirectory(another(b))
		for _, bad := range []string{"a\x00b", "a\xffb"} {
			if _, _, err := n.Begin(ctx, auth.Session{Kind: auth.BrowserSession, Subject: bad}, nil, start); err == nil {
				t.Errorf("%q began a session", bad)
			}
			if _, err := n.End(ctx, bad, auth.Act{By: "user"}, start); !errors.Is(err, auth.ErrNoSession) {
				t.Errorf("end of %q: %v", bad, err)
			}
			if err := n.AddCredential(ctx, bad, creds("cookie", "x")[0], start); !errors.Is(err, auth.ErrNoSession) {
				t.Errorf("credential for %q: %v", bad, err)
			}
			if all, err := n.OfSubject(ctx, bad, start); len(all) > 0 || err != nil {
				t.Errorf("sessions of %q: %v, %v", bad, all, err)
			}
			n.Touch(bad, start)
			if _, err := n.Sweep(ctx, start.Add(time.Hour)); err != nil {
				t.Errorf("sweep: %v", err)
			}
			if _, ok, err := d.BySubject(ctx, bad); ok || err != nil {
				t.Errorf("account %q: %v, %v", bad, ok, err)
			}
			if p, err := d.Learn(ctx, auth.Person{Subject: "acc-1", Names: []string{bad}, Language: bad}, name(1), start); err != nil || p.Language != "a\ufffdb" {
				t.Errorf("learned %+v, %v", p, err)
			}
		}
	})
}

func TestSessionsOnTwoNodesModel(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		rapid.Check(t, func(t *rapid.T) {
			b.clear()
			runNodesModel(t, b)
		})
	})
}

// runNodesModel has two nodes act at random. What each says must agree with its own
// past at any time, and after a Reconcile with what a node says that has just begun.
func runNodesModel(t *rapid.T, b backing) {
	ctx, now := t.Context(), start
	type begun struct{ id, token string }
	var (
		nodes [2]*node
		all   []begun
		known [2]map[string]bool // ends that the node was not told of because it began later
	)
	open := func() *node {
		n, err := startNode(t, b, auth.SessionsConfig{MaxCredentials: 3, CacheSize: 3})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	ended := func() map[string]bool {
		m := make(map[string]bool)
		for i, n := range nodes {
			maps.Copy(m, known[i])
			for _, id := range n.told {
				m[id] = true
			}
		}
		return m
	}
	for i := range nodes {
		nodes[i], known[i] = open(), make(map[string]bool)
	}
	pick := func(t *rapid.T) int { return rapid.IntRange(0, 1).Draw(t, "node") }
	session := func(t *rapid.T) begun {
		if len(all) == 0 {
			t.Skip("no session yet")
		}
		return all[rapid.IntRange(0, len(all)-1).Draw(t, "session")]
	}
	subjects := rapid.SampledFrom([]string{"acc-1", "acc-2"})
	values := []string{"a", "b", "c", "d"}
	credential := rapid.Custom(func(t *rapid.T) auth.Credential {
		return creds("cookie", rapid.SampledFrom(values).Draw(t, "value"))[0]
	})
	// dead fails if a session lives on a node that knows of its end.
	dead := func(i int, id string) {
		if known[i][id] || slices.Contains(nodes[i].told, id) {
			t.Fatalf("node %d: session %s came back", i, id)
		}
	}
	say := func(s *auth.Session, err error) string {
		switch {
		case err == nil:
			return fmt.Sprint(s.ID, s.Credentials)
		case errors.Is(err, auth.ErrSessionEnded), errors.Is(err, auth.ErrExpired), errors.Is(err, auth.ErrNoSession):
			return err.Error()
		}
		t.Fatal(err)
		return ""
	}
	view := func(n *node) (said []string) {
		for _, s := range all {
			said = append(said, say(n.ByToken(ctx, s.token, now)))
		}
		for _, v := range values {
			said = append(said, say(n.ByCredential(ctx, "cookie", auth.HashCredential("cookie", v), now)))
		}
		return said
	}
	reconcile := func(i int) {
		n := nodes[i]
		if err := n.Reconcile(ctx, now); err != nil {
			t.Fatal(err)
		}
		if err := n.CheckCache(); err != nil {
			t.Fatal(err)
		}
		want := ended()
		for id := range known[i] {
			delete(want, id)
		}
		if got := slices.Sorted(slices.Values(n.told)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("node %d: told of the ends of %v, want %v", i, got, slices.Sorted(maps.Keys(want)))
		}
	}
	sweep := func(i int) {
		if _, err := nodes[i].Sweep(ctx, now); err != nil {
			t.Fatal(err)
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"advance": func(t *rapid.T) {
			for i := range nodes { // each node sweeps every few seconds
				sweep(i)
			}
			now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, time.Minute, day, 10 * day}).Draw(t, "by"))
		},
		"begin": func(t *rapid.T) {
			in := auth.Session{Kind: auth.BrowserSession, Subject: subjects.Draw(t, "subject"), Device: rapid.SampledFrom([]string{"", "dev"}).Draw(t, "device")}
			cs := rapid.SliceOfNDistinct(credential, 0, 2, func(c auth.Credential) auth.CredentialHash { return c.Hash }).Draw(t, "credentials")
			got, token, err := nodes[pick(t)].Begin(ctx, in, cs, now)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, begun{got.ID, token})
			// Everywhere at once, with all it holds.
			for i, n := range nodes {
				if s, err := n.ByToken(ctx, token, now); err != nil || s.ID != got.ID {
					t.Fatalf("node %d: just begun: %v", i, err)
				}
			}
		},
		"add": func(t *rapid.T) {
			i, s := pick(t), session(t)
			err := nodes[i].AddCredential(ctx, s.id, credential.Draw(t, "credential"), now)
			if err == nil {
				dead(i, s.id)
			}
		},
		"use": func(t *rapid.T) {
			i, s := pick(t), session(t)
			got, err := nodes[i].ByToken(ctx, s.token, now)
			if say(got, err); err != nil {
				return
			}
			dead(i, got.ID)
			nodes[i].Touch(s.id, now)
			// What is in use does not end for being idle.
			before := ended()[s.id]
			sweep(1 - i)
			if !before && ended()[s.id] {
				t.Fatalf("session %s ended while node %d used it", s.id, i)
			}
		},
		"by credential": func(t *rapid.T) {
			i, c := pick(t), credential.Draw(t, "credential")
			got, err := nodes[i].ByCredential(ctx, c.Kind, c.Hash, now)
			if say(got, err); err == nil {
				dead(i, got.ID)
			}
		},
		"end": func(t *rapid.T) {
			i, s := pick(t), session(t)
			before := ended()[s.id]
			_, err := nodes[i].End(ctx, s.id, auth.Act{By: "user"}, now)
			switch {
			case err != nil && !before, err == nil && before,
				err != nil && !errors.Is(err, auth.ErrSessionEnded) && !errors.Is(err, auth.ErrNoSession):
				t.Fatalf("end: %v, ended before: %v", err, before)
			}
			if _, err := nodes[i].ByToken(ctx, s.token, now); err == nil {
				t.Fatal("it lives on where it was ended")
			}
		},
		"end all": func(t *rapid.T) {
			i := pick(t)
			if _, err := nodes[i].EndAll(ctx, subjects.Draw(t, "subject"), auth.Act{By: "operator"}, now); err != nil {
				t.Fatal(err)
			}
		},
		"reconcile": func(t *rapid.T) { reconcile(pick(t)) },
		"sweep":     func(t *rapid.T) { sweep(pick(t)) },
		"restart": func(t *rapid.T) {
			i := pick(t)
			sweep(i)
			known[i] = ended()
			nodes[i] = open()
		},
	})
	for i := range nodes {
		sweep(i)
	}
	var views [2][]string
	for i, n := range nodes {
		reconcile(i)
		views[i] = view(n)
	}
	want := view(open())
	for i := range nodes {
		if diff := cmp.Diff(want, views[i]); diff != "" {
			t.Fatalf("node %d differs from one that has just begun (-new +old):\n%s", i, diff)
		}
	}
}
