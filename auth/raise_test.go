package auth_test

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/auth"
)

func (s *sessionBench) raise(id string, now time.Time) (auth.Session, string) {
	s.t.Helper()
	got, token, err := s.Raise(s.t.Context(), id, 2, auth.TOTP, auth.Act{By: "user"}, now)
	if err != nil {
		s.t.Fatal(err)
	}
	return got, token
}

func TestAALAt(t *testing.T) {
	const overall, idle = 24 * time.Hour, time.Hour
	for name, test := range map[string]struct {
		s    auth.Session
		at   time.Duration // after start
		want int
	}{
		"AAL 1":                     {auth.Session{AAL: 1, Seen: start}, 365 * day, 1},
		"none":                      {auth.Session{Seen: start}, 0, 0},
		"just verified":             {auth.Session{AAL: 2, Verified: start, Seen: start}, 0, 2},
		"a moment before idle":      {auth.Session{AAL: 2, Verified: start, Seen: start}, time.Hour - time.Microsecond, 2},
		"idle":                      {auth.Session{AAL: 2, Verified: start, Seen: start}, time.Hour, 1},
		"a moment before the end":   {auth.Session{AAL: 3, Verified: start, Seen: start.Add(day - time.Minute)}, day - time.Microsecond, 3},
		"over":                      {auth.Session{AAL: 3, Verified: start, Seen: start.Add(day)}, day, 1},
		"never verified":            {auth.Session{AAL: 2, Seen: start}, 0, 1},
		"used again after the rest": {auth.Session{AAL: 2, Verified: start, Seen: start.Add(2 * time.Hour), Rested: time.Hour}, 2 * time.Hour, 1},
		"never rested for long":     {auth.Session{AAL: 2, Verified: start, Seen: start.Add(2 * time.Hour), Rested: time.Hour - 1}, 2 * time.Hour, 2},
	} {
		if got := test.s.AALAt(start.Add(test.at), overall, idle); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

// A factor changes the token. With the one before the session is worth what it was,
// for 60 s, and nothing after.
func TestRaise(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		begun, first := s.begin("acc-1", "dev", start, "a")
		at := start.Add(time.Minute)
		raised, secondToken := s.raise(begun.ID, at)
		want := begun
		want.AAL, want.Verified, want.Factor, want.Seen = 2, at, auth.TOTP, at
		if diff := cmp.Diff(want, raised); diff != "" {
			s.t.Errorf("raised (-want +got):\n%s", diff)
		}
		if first == secondToken {
			s.t.Fatal("the token is the same")
		}
		for range 2 { // from memory, and from the store
			if got := s.wantToken(secondToken, at, begun.ID, nil); cmp.Diff(raised, *got) != "" {
				s.t.Errorf("by its token:\n%s", cmp.Diff(raised, *got))
			}
			last := at.Add(time.Minute - time.Microsecond)
			if got := s.wantToken(first, last, begun.ID, nil); got == nil || got.AAL != 1 || !got.Verified.IsZero() || got.Factor != "" || got.Rested != time.Minute {
				s.t.Errorf("by the one before: %+v", got)
			}
			if got := s.wantCookie("a", last, begun.ID, nil); got == nil || got.AAL != 2 {
				s.t.Errorf("by its cookie: %+v", got)
			}
			s.wantToken(first, at.Add(time.Minute), "", auth.ErrSessionEnded)
			if err := s.CheckCache(); err != nil {
				s.t.Error(err)
			}
			s.reopen()
		}
		// Again: only one token before the present one is good.
		_, third := s.raise(begun.ID, at.Add(time.Second))
		s.wantToken(first, at.Add(time.Second), "", auth.ErrNoSession)
		if got := s.wantToken(secondToken, at.Add(time.Second), begun.ID, nil); got == nil || got.AAL != 2 || !got.Verified.Equal(at) {
			s.t.Errorf("by the one before: %+v", got)
		}
		s.wantToken(third, at.Add(time.Second), begun.ID, nil)
		if err := s.CheckCache(); err != nil {
			s.t.Error(err)
		}
		// What ends, ends for all tokens.
		if _, err := s.End(s.t.Context(), begun.ID, auth.Act{By: "user"}, at.Add(2*time.Second)); err != nil {
			s.t.Fatal(err)
		}
		for range 2 {
			s.wantToken(secondToken, at.Add(2*time.Second), "", auth.ErrSessionEnded)
			s.wantToken(third, at.Add(2*time.Second), "", auth.ErrSessionEnded)
			s.reopen()
		}
		// A tombstone goes with both.
		s.sweep(at.Add(91*day), 0)
		s.reopen()
		s.wantToken(secondToken, at.Add(91*day), "", auth.ErrNoSession)
		s.wantToken(third, at.Add(91*day), "", auth.ErrNoSession)
	})
}

// The AAL is never lowered, and neither a weaker factor nor a mailed code makes an
// old verification a new one.
func TestRaiseLowersNothing(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		ctx := s.t.Context()
		begun, _ := s.begin("acc-1", "dev", start)
		if _, _, err := s.Raise(ctx, begun.ID, 3, auth.Key, auth.Act{}, start); err != nil {
			s.t.Fatal(err)
		}
		later := start.Add(2 * time.Hour)
		for _, weak := range []struct {
			aal int
			f   auth.FactorKind
		}{{2, auth.TOTP}, {1, ""}, {1, auth.RecoveryCodes}} {
			got, token, err := s.Raise(ctx, begun.ID, weak.aal, weak.f, auth.Act{}, later)
			if err != nil || got.AAL != 3 || got.Factor != auth.Key || !got.Verified.Equal(start) || got.Rested != 2*time.Hour || got.AALAt(later, day, time.Hour) != 1 {
				s.t.Errorf("%+v: %+v, %v", weak, got, err)
			}
			s.wantToken(token, later, begun.ID, nil)
		}
		got, _, err := s.Raise(ctx, begun.ID, 3, auth.Key, auth.Act{}, later)
		if err != nil || got.Rested != 0 || got.AALAt(later, day, time.Hour) != 3 {
			s.t.Errorf("the same again: %+v, %v", got, err)
		}
		for _, bad := range []struct {
			aal int
			f   auth.FactorKind
		}{{0, auth.TOTP}, {4, auth.Key}, {2, ""}, {2, "sms"}} {
			if _, _, err := s.Raise(ctx, begun.ID, bad.aal, bad.f, auth.Act{}, later); err == nil {
				s.t.Errorf("%+v: want an error", bad)
			}
		}
	})
}

func TestRaiseRefuses(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		ctx := s.t.Context()
		ended, _ := s.begin("acc-1", "", start)
		if _, err := s.End(ctx, ended.ID, auth.Act{By: "user"}, start); err != nil {
			s.t.Fatal(err)
		}
		idle, token := s.begin("acc-1", "", start)
		for _, test := range []struct {
			id   string
			at   time.Time
			want error
		}{
			{"x", start, auth.ErrNoSession}, {"a\x00", start, auth.ErrNoSession}, {ended.ID, start, auth.ErrSessionEnded}, {idle.ID, start.Add(14 * day), auth.ErrExpired},
		} {
			_, _, err := s.Raise(ctx, test.id, 2, auth.TOTP, auth.Act{Entry: "node/1"}, test.at)
			if !errors.Is(err, test.want) {
				s.t.Errorf("%q: %v, want %v", test.id, err, test.want)
			}
			if got, err := s.Acted(ctx, []string{"node/1"}); err != nil || got["node/1"] {
				s.t.Errorf("%q: the act is on record, %v", test.id, err)
			}
		}
		s.wantToken(token, start, idle.ID, nil)
		if _, _, err := s.Raise(ctx, idle.ID, 2, auth.TOTP, auth.Act{Entry: "node/1"}, start); err != nil {
			s.t.Error(err)
		}
		if _, _, err := s.Raise(ctx, idle.ID, 2, auth.TOTP, auth.Act{Entry: "node/1"}, start); !errors.Is(err, auth.ErrActed) {
			s.t.Errorf("again with the same entry: %v", err)
		}
	})
}

// A time without use is not forgotten by the next use, nor by a restart.
func TestRestIsRemembered(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		begun, _ := s.begin("acc-1", "dev", start)
		_, token := s.raise(begun.ID, start)
		now := start
		aal := func(want int) {
			s.t.Helper()
			if got := s.wantToken(token, now, begun.ID, nil); got == nil || got.AALAt(now, 7*day, time.Hour) != want {
				s.t.Errorf("got %+v, want AAL %d", got, want)
			}
		}
		for range 5 {
			now = now.Add(40 * time.Minute)
			aal(2)
			s.Touch(begun.ID, now)
			s.sweep(now, 0)
		}
		aal(2)
		s.reopen()
		aal(2)
		now = now.Add(time.Hour)
		aal(1)
		s.Touch(begun.ID, now)
		aal(1)
		now = now.Add(time.Minute)
		s.Touch(begun.ID, now)
		aal(1)
		s.sweep(now, 0)
		aal(1)
		s.reopen()
		aal(1)
		_, token = s.raise(begun.ID, now)
		aal(2)
		s.Touch(begun.ID, now.Add(time.Minute))
		s.sweep(now.Add(time.Minute), 0)
		s.reopen()
		aal(2)
	})
}

// Another node hears of a raised session by the new token at once, and of the end of
// the old one's time by Reconcile.
func TestRaiseOnAnotherNode(t *testing.T) {
	eachTwo(t, auth.SessionsConfig{}, func(t *testing.T, a, b *sessionBench) {
		begun, first := a.begin("acc-1", "dev", start, "a")
		b.wantToken(first, start, begun.ID, nil)
		if asked := b.asked(func() { b.wantToken(first, start, begun.ID, nil) }); asked != 0 {
			t.Errorf("asked the store %d times for what is in memory", asked)
		}
		_, token := a.raise(begun.ID, start)
		if got := b.wantToken(first, start.Add(time.Second), begun.ID, nil); got == nil || got.AAL != 1 {
			t.Errorf("the old token, before anybody said anything: %+v", got)
		}
		if got := b.wantToken(token, start.Add(time.Second), begun.ID, nil); got == nil || got.AAL != 2 {
			t.Errorf("the new token: %+v", got)
		}
		b.wantToken(first, start.Add(time.Minute), "", auth.ErrSessionEnded)
		_, third := b.raise(begun.ID, start.Add(time.Second))
		late := start.Add(time.Minute + time.Second)
		a.reconcile()
		a.wantToken(token, late, "", auth.ErrSessionEnded)
		a.wantToken(first, late, "", auth.ErrNoSession)
		if asked := a.asked(func() { a.wantToken(third, late, begun.ID, nil) }); asked != 0 {
			t.Errorf("asked the store %d times after reconciling", asked)
		}
		a.reconcile()
		b.reconcile()
		a.wantTold()
		b.wantTold()
		for _, s := range []*sessionBench{a, b} {
			if err := s.CheckCache(); err != nil {
				t.Error(err)
			}
		}
	})
}

// What was used elsewhere is not idle here; where the store does not answer, what is
// in memory does.
func TestRestOnSeveralNodes(t *testing.T) {
	eachTwo(t, auth.SessionsConfig{}, func(t *testing.T, a, b *sessionBench) {
		begun, _ := a.begin("acc-1", "dev", start, "a")
		_, token := a.raise(begun.ID, start)
		b.wantToken(token, start, begun.ID, nil)
		now := start
		for range 4 {
			now = now.Add(30 * time.Minute)
			a.Touch(begun.ID, now)
			a.sweep(now, 0)
		}
		for name, look := range map[string]func() *auth.Session{
			"token":  func() *auth.Session { return b.wantToken(token, now, begun.ID, nil) },
			"cookie": func() *auth.Session { return b.wantCookie("a", now, begun.ID, nil) },
		} {
			if got := look(); got == nil || got.AALAt(now, day, time.Hour) != 2 {
				t.Errorf("by %s: %+v", name, got)
			}
		}
		away := io.ErrUnexpectedEOF
		b.probe.Failing.Store(&away)
		now = now.Add(10 * time.Minute)
		b.wantToken(token, now, begun.ID, nil)
		b.wantCookie("a", now, begun.ID, nil)
	})
}

// A hundred at once: each gets a token, and the last two of them are good.
func TestRaiseAtOnce(t *testing.T) {
	eachTwo(t, auth.SessionsConfig{}, func(t *testing.T, a, b *sessionBench) {
		begun, first := a.begin("acc-1", "dev", start)
		tokens := make([]string, 100)
		var all sync.WaitGroup
		for i := range tokens {
			all.Go(func() {
				var err error
				if _, tokens[i], err = []*sessionBench{a, b}[i%2].Raise(t.Context(), begun.ID, 2, auth.Key, auth.Act{}, start); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		a.reconcile()
		b.reconcile()
		for _, s := range []*sessionBench{a, b} {
			good := 0
			for _, token := range append(tokens, first) {
				if _, err := s.ByToken(t.Context(), token, start); err == nil {
					good++
				}
			}
			if good != 2 {
				t.Errorf("%d tokens are good, want two", good)
			}
			if err := s.CheckCache(); err != nil {
				t.Error(err)
			}
		}
	})
}

// The answer to the commit is lost: the token before is good, and a second try helps.
func TestRaiseCommitIsLost(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		s := newSessionBench(t, d, auth.SessionsConfig{})
		begun, token := s.begin("acc-1", "dev", start)
		d.during(func(commit func() error) error {
			if err := commit(); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}, func() {
			if _, lost, err := s.Raise(t.Context(), begun.ID, 2, auth.TOTP, auth.Act{Entry: "node/1"}, start); !errors.Is(err, auth.ErrUncertain) || lost != "" {
				t.Errorf("got %q, %v", lost, err)
			}
		})
		s.wantToken(token, start, begun.ID, nil)
		if got, err := s.Acted(t.Context(), []string{"node/1"}); err != nil || !got["node/1"] {
			t.Errorf("the act is not on record, %v", err)
		}
		_, token = s.raise(begun.ID, start)
		s.wantToken(token, start, begun.ID, nil)
	})
}

// All sessions of an account, also those that are over.
func TestSessionHistory(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		ctx := s.t.Context()
		var ids []string
		for i := range 4 {
			got, _, err := s.Begin(ctx, auth.Session{
				Kind: auth.BrowserSession, Subject: "acc-1", Client: fmt.Sprint("Firefox ", i), Country: "JP", AAL: 2, Verified: start.Add(999 * time.Nanosecond), Factor: auth.Key, Rested: time.Hour,
			}, nil, start.Add(time.Duration(i)*time.Hour))
			if err != nil || got.Rested != 0 || !got.Verified.Equal(start) {
				s.t.Fatal(got, err)
			}
			ids = append([]string{got.ID}, ids...)
		}
		s.begin("acc-2", "", start)
		if _, err := s.End(ctx, ids[1], auth.Act{By: "owner"}, start); err != nil {
			s.t.Fatal(err)
		}
		s.Touch(ids[0], start.Add(5*time.Hour))
		for range 2 {
			got, err := s.History(ctx, "acc-1", 3)
			if err != nil || len(got) != 3 {
				s.t.Fatalf("got %d sessions, %v", len(got), err)
			}
			for i, g := range got {
				if g.ID != ids[i] || g.Client != fmt.Sprint("Firefox ", 3-i) || g.Country != "JP" || g.Factor != auth.Key || !g.Verified.Equal(start) || g.Ended.IsZero() != (i != 1) {
					s.t.Errorf("%d: got %+v", i, g)
				}
			}
			if !got[0].Seen.Equal(start.Add(5*time.Hour)) || got[0].Rested != 2*time.Hour {
				s.t.Errorf("the one in use: %+v", got[0])
			}
			s.sweep(start.Add(5*time.Hour), 0)
			s.reopen()
		}
		for _, none := range []struct {
			subject string
			limit   int
		}{{"acc-3", 10}, {"a\x00", 10}, {"acc-1", 0}} {
			if got, err := s.History(ctx, none.subject, none.limit); err != nil || len(got) > 0 {
				s.t.Errorf("%+v: %+v, %v", none, got, err)
			}
		}
		for name, bad := range map[string]auth.Session{"client": {Client: "a\x00"}, "country": {Country: "a\xff"}, "factor": {Factor: "a\x00"}} {
			bad.Kind, bad.Subject = auth.BrowserSession, "acc-1"
			if _, _, err := s.Begin(ctx, bad, nil, start); err == nil {
				s.t.Errorf("began with no text for %s", name)
			}
		}
	})
}
