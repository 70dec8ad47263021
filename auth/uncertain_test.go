package auth_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kidoban/kidoban/auth"
)

// during runs f with every commit replaced.
func (d *database) during(commit func(func() error) error, f func()) {
	d.commit.Store(&commit)
	defer d.commit.Store(nil)
	f()
}

// The answer to a commit is lost: the change happened, the caller cannot know, and
// what is in memory asks the store.
func TestAnswerToCommitIsLost(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		s := newSessionBench(t, d, auth.SessionsConfig{})
		ctx := t.Context()
		lose := func(commit func() error) error {
			if err := commit(); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}
		session, token := s.begin("acc-1", "", start, "a")
		other, otherToken := s.begin("acc-1", "", start, "b")
		program, _, err := s.Begin(ctx, auth.Session{Kind: auth.TokenSession, Subject: "acc-2"}, creds("bearer", "t"), start)
		if err != nil {
			t.Fatal(err)
		}
		uncertain := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, auth.ErrUncertain) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: got %v, want %v and the cause", what, err, auth.ErrUncertain)
			}
		}
		d.during(lose, func() {
			_, err := s.End(ctx, session.ID, auth.Act{By: "user", Entry: "node/1"}, start)
			uncertain("end", err)
			_, err = s.EndAll(ctx, "acc-1", auth.Act{By: "user"}, start)
			uncertain("end all", err)
			uncertain("add", s.AddCredential(ctx, program.ID, creds("bearer", "u")[0], start))
			_, token, err := s.Begin(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "acc-3"}, creds("cookie", "b"), start)
			if uncertain("begin", err); token != "" {
				t.Error("a token for a session that perhaps is none")
			}
			_, err = auth.NewDirectory(d.another()).Learn(ctx, auth.Person{Subject: "acc-1"}, name(1), start)
			uncertain("learn", err)
		})
		s.wantToken(token, start, "", auth.ErrSessionEnded)
		s.wantCookie("a", start, "", auth.ErrSessionEnded)
		s.wantToken(otherToken, start, "", auth.ErrSessionEnded)
		if got, err := s.ByCredential(ctx, "bearer", auth.HashCredential("bearer", "u"), start); err != nil || got.ID != program.ID {
			t.Errorf("the credential that was added: %v", err)
		}
		if got, err := s.ByCredential(ctx, "cookie", auth.HashCredential("cookie", "b"), start); err != nil || got.Subject != "acc-3" {
			t.Errorf("the credential that moved: %v", err)
		}
		// Sockets close at the next look.
		s.wantTold()
		s.reconcile()
		s.wantTold(session.ID, other.ID)
		if got, err := s.Acted(ctx, []string{"node/1"}); err != nil || !got["node/1"] {
			t.Errorf("the act happened: got %v, %v", got, err)
		}
	})
}

// The connection breaks before the commit, or the database refuses it: nothing
// happened.
func TestCommitIsRefused(t *testing.T) {
	refusals := map[string][]error{
		"postgres": {&pgconn.PgError{Code: "40001"}, &pgconn.PgError{Code: "23503"}},
		"sqlite":   {sqliteError(13), sqliteError(5), sqliteError(8)},
	}
	doubts := map[string][]error{
		"postgres": {&pgconn.PgError{Code: "40003"}, &pgconn.PgError{Code: "57P01"}, &pgconn.PgError{Code: "08006"}, context.DeadlineExceeded, driver.ErrBadConn},
		"sqlite":   {sqliteError(10), sqliteError(10 | 4<<8), sqliteError(11)},
	}
	eachDatabase(t, func(t *testing.T, d *database) {
		s := newSessionBench(t, d, auth.SessionsConfig{})
		session, token := s.begin("acc-1", "", start, "a")
		for uncertain, all := range map[bool][]error{false: refusals[d.dialect], true: doubts[d.dialect]} {
			for _, cause := range all {
				refuse := func(func() error) error { return cause }
				d.during(refuse, func() {
					_, err := s.End(t.Context(), session.ID, auth.Act{By: "user", Entry: "node/1"}, start)
					if !errors.Is(err, cause) || errors.Is(err, auth.ErrUncertain) != uncertain {
						t.Errorf("%v: got %v, want uncertain: %v", cause, err, uncertain)
					}
				})
				d.close() // the transaction that was not committed goes with its connection
				s.reopen()
				s.wantToken(token, start, session.ID, nil)
				if got, err := s.Acted(t.Context(), []string{"node/1"}); err != nil || got["node/1"] {
					t.Errorf("%v: the act happened: %v, %v", cause, got, err)
				}
			}
		}
	})
}

// sqliteError has a result code as errors of the driver have.
type sqliteError int

func (e sqliteError) Error() string { return fmt.Sprintf("SQLite error %d", int(e)) }
func (e sqliteError) Code() int     { return int(e) }

// A server that goes away in a change is an error that says nothing happened, and
// the store goes on with another connection.
func TestConnectionIsLost(t *testing.T) {
	d := newPostgres(t)
	s := newSessionBench(t, d, auth.SessionsConfig{})
	session, token := s.begin("acc-1", "", start, "a")
	kill := func() {
		t.Helper()
		if _, err := d.db.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(commit func() error) error {
		kill()
		return commit()
	}
	d.during(cut, func() {
		if _, err := s.End(t.Context(), session.ID, auth.Act{By: "user"}, start); err == nil {
			t.Error("ended without a connection")
		}
	})
	s.wantToken(token, start, session.ID, nil)
	s.end(session.ID, start)
	s.wantToken(token, start, "", auth.ErrSessionEnded)
}

// Two nodes change one session at once: one after the other.
func TestNodesTakeTurns(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		d.open()
		a, b := openNode(t, d, auth.SessionsConfig{}), openNode(t, d, auth.SessionsConfig{})
		session, _, err := a.Begin(t.Context(), auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, creds("cookie", "a"), start)
		if err != nil {
			t.Fatal(err)
		}
		const each = 20
		var ends atomic.Int64
		done := make(chan error, 2)
		for i, n := range []*node{a, b} {
			go func() {
				done <- func() error {
					for k := range each {
						// The same credential, in turn: each is retired by the next.
						c := creds("cookie", fmt.Sprint(i, "-", k))[0]
						if err := n.AddCredential(t.Context(), session.ID, c, start.Add(time.Duration(k)*time.Second)); err != nil {
							return err
						}
					}
					return nil
				}()
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []*node{a, b} {
			go func() {
				_, err := n.End(t.Context(), session.ID, auth.Act{By: "user"}, start.Add(time.Hour))
				if err == nil {
					ends.Add(1)
				} else if errors.Is(err, auth.ErrSessionEnded) {
					err = nil
				}
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if ends.Load() != 1 {
			t.Errorf("it was ended %d times, want once", ends.Load())
		}
		for i, n := range []*node{a, b} {
			if err := n.Reconcile(t.Context(), start); err != nil || len(n.told) != 1 {
				t.Errorf("node %d was told of %d ends, want one (%v)", i, len(n.told), err)
			}
		}
	})
}

// Hot look-ups are compiled once.
func TestLookUpsArePrepared(t *testing.T) {
	d := newDatabase(t)
	store := d.open()
	ss, err := auth.OpenSessions(t.Context(), store, auth.SessionsConfig{CacheSize: 1}, start)
	if err != nil {
		t.Fatal(err)
	}
	directory := auth.NewDirectory(store)
	round := func() {
		for i := range 3 {
			if _, _, err := ss.Begin(t.Context(), auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, creds("cookie", fmt.Sprint(i)), start); err != nil {
				t.Fatal(err)
			}
			for _, look := range []func() error{
				func() error { _, err := ss.ByToken(t.Context(), strings.Repeat(fmt.Sprint(i), 43), start); return err },
				func() error {
					_, err := ss.ByCredential(t.Context(), "cookie", auth.HashCredential("cookie", fmt.Sprint(i-1)), start)
					return err
				},
				func() error { _, _, _, err := directory.ByTyped(t.Context(), name(1), name(2)); return err },
			} {
				if err := look(); err != nil && !errors.Is(err, auth.ErrNoSession) && !errors.Is(err, auth.ErrSessionEnded) {
					t.Fatal(err)
				}
			}
		}
	}
	round()
	round() // what a transaction wants is prepared before the next one
	if n := d.prepared.Load(); n == 0 {
		t.Error("nothing was prepared")
	}
	before := d.prepared.Load()
	round()
	if n := d.prepared.Load() - before; n != 0 {
		t.Errorf("%d statements were prepared again", n)
	}
}

// The feed and the look-ups have their indexes.
func TestPlans(t *testing.T) {
	d := newDatabase(t)
	d.open()
	for query, index := range map[string]string{
		`SELECT id, version, revision, end_revision FROM auth_sessions WHERE version > 1 AND (revision, id) > (?, ?) ORDER BY revision, id LIMIT ?`:            "auth_sessions_changed",
		`SELECT subject FROM auth_people WHERE revision > ? ORDER BY revision LIMIT ?`:                                                                         "auth_people_changed",
		`SELECT name FROM auth_factors WHERE subject = ? ORDER BY created, id`:                                                                                 "auth_factors_subject",
		`SELECT id FROM auth_factors WHERE state = 'pending' AND pending <= ? LIMIT ?`:                                                                         "auth_factors_pending",
		`SELECT hash FROM auth_challenges WHERE subject = ? ORDER BY expires DESC, hash DESC LIMIT 1 OFFSET ?`:                                                 "auth_challenges_subject",
		`SELECT hash FROM auth_challenges WHERE expires <= ? LIMIT ?`:                                                                                          "auth_challenges_expires",
		`SELECT code FROM auth_holds WHERE subject = ? AND ended = 0 ORDER BY created DESC, id DESC LIMIT ?`:                                                   "auth_holds_subject",
		`SELECT code FROM auth_holds WHERE attempt = ? AND ended = 0 ORDER BY created DESC, id DESC LIMIT ?`:                                                   "auth_holds_attempt",
		`SELECT code FROM auth_holds WHERE subject = ? AND ended > 0 ORDER BY created DESC, id DESC LIMIT ?`:                                                   "auth_holds_history",
		`SELECT code FROM auth_holds WHERE ended = 0 AND expires <= ? ORDER BY expires, id LIMIT ?`:                                                            "auth_holds_expires",
		`SELECT id FROM auth_holds WHERE ended > 0 AND ended < ? LIMIT ?`:                                                                                      "auth_holds_ended",
		`SELECT hold FROM auth_hold_credentials WHERE hash = ? AND kind = ? ORDER BY created DESC, hold DESC LIMIT 1`:                                          "PRIMARY KEY",
		`SELECT id FROM auth_sessions WHERE previous = ?`:                                                                                                      "auth_sessions_previous",
		`SELECT id FROM auth_sessions WHERE subject = ? ORDER BY created DESC LIMIT ?`:                                                                         "auth_sessions_history",
		`SELECT device FROM auth_device_subjects WHERE subject = ? ORDER BY last DESC, device DESC LIMIT ?`:                                                    "auth_device_subjects_subject",
		`SELECT salt FROM auth_slips WHERE subject = ? AND purpose = ? AND used = 0 AND cancelled = 0 AND for_what = ? ORDER BY created DESC, id DESC LIMIT 1`: "auth_slips_open",
		`SELECT salt FROM auth_slips WHERE used_for = ? AND used > ? AND used > 0`:                                                                             "auth_slips_used_for",
		`SELECT id FROM auth_slips WHERE expires < ? LIMIT ?`:                                                                                                  "auth_slips_expires",
	} {
		rows, err := d.db.Query(`EXPLAIN QUERY PLAN `+query, []any{1, "x", 1}[:strings.Count(query, "?")]...)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		if all := strings.Join(plan, "; "); !strings.Contains(all, "SEARCH") || !strings.Contains(all, index) || strings.Contains(all, "B-TREE") {
			t.Errorf("%s\nplan: %s\nwant a search of %s in its order", query, all, index)
		}
	}
}
