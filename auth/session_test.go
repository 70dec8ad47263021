package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/auth"
)

const day = 24 * time.Hour

// sessionBench is Sessions under test with shorthands that fail the test.
type sessionBench struct {
	t     *testing.T
	b     backing
	cfg   auth.SessionsConfig
	probe *auth.SessionProbe
	*auth.Sessions

	mu   sync.Mutex
	told []auth.Session // by OnEnd; guarded by mu while several goroutines end sessions
}

func newSessionBench(t *testing.T, b backing, cfg auth.SessionsConfig) *sessionBench {
	s := &sessionBench{t: t, b: b, cfg: cfg}
	s.reopen()
	return s
}

// reopen is a restart: nothing that is in memory stays.
func (s *sessionBench) reopen() {
	s.t.Helper()
	s.probe = &auth.SessionProbe{SessionStore: s.b.open()}
	ss, err := auth.OpenSessions(s.t.Context(), s.probe, s.cfg, start)
	if err != nil {
		s.t.Fatal(err)
	}
	ss.OnEnd(func(ended auth.Session) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, ended)
	})
	s.Sessions = ss
}

func (s *sessionBench) begin(subject, device string, now time.Time, cookies ...string) (auth.Session, string) {
	s.t.Helper()
	got, token, err := s.Begin(s.t.Context(), auth.Session{Kind: auth.BrowserSession, Subject: subject, Device: device, AAL: 1, Source: "203.0.113.7"}, creds("cookie", cookies...), now)
	if err != nil {
		s.t.Fatal(err)
	}
	return got, token
}

func creds(kind string, values ...string) (all []auth.Credential) {
	for _, v := range values {
		all = append(all, auth.Credential{Kind: kind, Hash: auth.HashCredential(kind, v)})
	}
	return all
}

// wantToken and wantCookie compare the answer for a token or a cookie: id of a
// session, or an error.
func (s *sessionBench) wantToken(token string, now time.Time, id string, want error) *auth.Session {
	s.t.Helper()
	got, err := s.ByToken(s.t.Context(), token, now)
	s.compare("token", got, err, id, want)
	return got
}

func (s *sessionBench) wantCookie(cookie string, now time.Time, id string, want error) *auth.Session {
	s.t.Helper()
	got, err := s.ByCredential(s.t.Context(), "cookie", auth.HashCredential("cookie", cookie), now)
	s.compare("cookie "+cookie, got, err, id, want)
	return got
}

func (s *sessionBench) compare(what string, got *auth.Session, err error, id string, want error) {
	s.t.Helper()
	switch {
	case !errors.Is(err, want):
		s.t.Errorf("%s: got error %v, want %v", what, err, want)
	case err == nil && got == nil, err != nil && got != nil:
		s.t.Errorf("%s: got session %v with error %v", what, got, err)
	case err == nil && got.ID != id:
		s.t.Errorf("%s: got session %s, want %s", what, got.ID, id)
	}
}

func (s *sessionBench) add(id, cookie string, now time.Time) {
	s.t.Helper()
	if err := s.AddCredential(s.t.Context(), id, creds("cookie", cookie)[0], now); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sessionBench) sweep(now time.Time, want int) {
	s.t.Helper()
	if got, err := s.Sweep(s.t.Context(), now); err != nil || got != want {
		s.t.Errorf("sweep: got %d ended (%v), want %d", got, err, want)
	}
}

func (s *sessionBench) asked(f func()) int64 {
	before := s.probe.Asked.Load()
	f()
	return s.probe.Asked.Load() - before
}

func eachSessions(t *testing.T, cfg auth.SessionsConfig, run func(*sessionBench)) {
	eachStore(t, func(t *testing.T, b backing) { run(newSessionBench(t, b, cfg)) })
}

func TestOpenSessionsConfig(t *testing.T) {
	for _, test := range []struct {
		name string
		cfg  auth.SessionsConfig
		ok   bool
	}{
		{"defaults", auth.SessionsConfig{}, true},
		{"negative overall", auth.SessionsConfig{Overall: -1}, false},
		{"negative idle", auth.SessionsConfig{Idle: -1}, false},
		{"idle shorter than use is noted", auth.SessionsConfig{Idle: time.Minute}, false},
		{"negative previous", auth.SessionsConfig{PreviousFor: -1}, false},
		{"negative tombstone", auth.SessionsConfig{TombstoneFor: -1}, false},
		{"negative credentials", auth.SessionsConfig{MaxCredentials: -1}, false},
		{"negative cache", auth.SessionsConfig{CacheSize: -1}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := auth.OpenSessions(t.Context(), auth.NewMemoryStore(), test.cfg, start); (err == nil) != test.ok {
				t.Errorf("got error %v, want ok: %v", err, test.ok)
			}
		})
	}
}

func TestBegin(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		t, ctx := s.t, s.t.Context()
		now := start.Add(1234 * time.Nanosecond)
		got, token, err := s.Begin(ctx, auth.Session{
			Kind: auth.BrowserSession, Subject: "acc-1", Organization: "org-1", Device: "dev-1", AAL: 2, Source: "203.0.113.7",
			Ended: start, EndedBy: "the caller's mistake",
		}, append(creds("cookie", "a", "a"), creds("csrf", "a")...), now)
		if err != nil {
			t.Fatal(err)
		}
		at := start.Add(time.Microsecond)
		want := auth.Session{
			ID: got.ID, Kind: auth.BrowserSession, Subject: "acc-1", Organization: "org-1", Device: "dev-1", AAL: 2, Source: "203.0.113.7",
			Created: at, Seen: at, Expires: at.Add(30 * day),
			Credentials: []auth.Credential{
				{Kind: "cookie", Hash: auth.HashCredential("cookie", "a"), Since: at},
				{Kind: "csrf", Hash: auth.HashCredential("csrf", "a"), Since: at},
			},
		}
		if got.ID == "" || len(token) != 43 {
			t.Errorf("got id %q and a token of %d characters, want an id and 43", got.ID, len(token))
		}
		check := func(when string) {
			t.Helper()
			for name, ask := range map[string]func() (*auth.Session, error){
				"by token":      func() (*auth.Session, error) { return s.ByToken(ctx, token, at) },
				"by credential": func() (*auth.Session, error) { return s.ByCredential(ctx, "csrf", want.Credentials[1].Hash, at) },
			} {
				session, err := ask()
				if err != nil {
					t.Errorf("%s, %s: %v", when, name, err)
				} else if diff := cmp.Diff(want, *session); diff != "" {
					t.Errorf("%s, %s (-want +got):\n%s", when, name, diff)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("session (-want +got):\n%s", diff)
		}
		check("in memory")
		s.reopen()
		check("after a restart")
	})
}

func TestBeginRefuses(t *testing.T) {
	many := func(n int) (values []string) {
		for i := range n {
			values = append(values, fmt.Sprint(i))
		}
		return values
	}
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		taken, _ := s.begin("acc-1", "", start, "held")
		for _, test := range []struct {
			name    string
			session auth.Session
			creds   []auth.Credential
			ok      bool
		}{
			{"no subject", auth.Session{Kind: auth.BrowserSession}, nil, false},
			{"no kind", auth.Session{Subject: "acc-1"}, nil, false},
			{"unknown kind", auth.Session{Subject: "acc-1", Kind: "robot"}, nil, false},
			{"an id that is taken", auth.Session{Subject: "acc-1", Kind: auth.BrowserSession, ID: taken.ID}, creds("cookie", "held"), false},
			{"eight credentials", auth.Session{Subject: "acc-1", Kind: auth.BrowserSession}, creds("x", many(8)...), true},
			{"nine credentials", auth.Session{Subject: "acc-1", Kind: auth.BrowserSession}, creds("y", many(9)...), false},
		} {
			s.t.Run(test.name, func(t *testing.T) {
				_, token, err := s.Begin(t.Context(), test.session, test.creds, start)
				if (err == nil) != test.ok || (token != "") != test.ok {
					t.Errorf("got token %q, error %v, want ok: %v", token, err, test.ok)
				}
			})
		}
		s.wantCookie("held", start, taken.ID, nil)
		s.reopen()
		s.wantCookie("held", start, taken.ID, nil) // what failed has moved nothing
	})
}

func TestTokensAreSecret(t *testing.T) {
	d := newDatabase(t)
	s := newSessionBench(t, d, auth.SessionsConfig{})
	session, token := s.begin("acc-1", "dev-1", start, "a cookie's secret")
	text, err := json.Marshal(session)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string][]byte{"session as JSON": text, "session as text": fmt.Appendf(nil, "%+v %#v", session, session)}
	for _, suffix := range []string{"", "-wal"} {
		if kept["database"+suffix], err = os.ReadFile(d.file + suffix); err != nil {
			t.Fatal(err)
		}
	}
	for where, data := range kept {
		for _, secret := range []string{token, "a cookie's secret"} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds the secret %q", where, secret)
			}
		}
	}
	_, other := s.begin("acc-1", "dev-2", start)
	if other == token {
		t.Error("two sessions have one token")
	}
}

func TestMalformedTokens(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		_, token := s.begin("acc-1", "", start)
		for name, bad := range map[string]string{
			"nothing": "", "one character": "A", "a character less": token[:42], "a character more": token + "A",
			"a blank": token[:42] + " ", "standard base64": token[:42] + "+", "padding": token[:42] + "=", "NUL": token[:42] + "\x00",
			"not ASCII": token[:41] + "\u00e9", "a line break": token[:42] + "\n", "a megabyte": strings.Repeat("A", 1<<20),
			"quotes": `"` + token[:41] + `"`,
		} {
			if n := s.asked(func() { s.wantToken(bad, start, "", auth.ErrNoSession) }); n != 0 {
				s.t.Errorf("%s: asked the store %d times, want none", name, n)
			}
		}
		well := strings.Repeat("A", 43)
		if n := s.asked(func() { s.wantToken(well, start, "", auth.ErrNoSession) }); n != 1 {
			s.t.Errorf("a well-formed token: asked the store %d times, want once", n)
		}
	})
}

func TestSessionTimes(t *testing.T) {
	for _, test := range []struct {
		name    string
		kind    auth.SessionKind
		expires time.Duration // given to Begin; 0: none
		used    []time.Duration
		at      time.Duration
		want    error
	}{
		{"just begun", auth.BrowserSession, 0, nil, 0, nil},
		{"not idle yet", auth.BrowserSession, 0, nil, 14*day - 1000, nil},
		{"idle", auth.BrowserSession, 0, nil, 14 * day, auth.ErrExpired},
		{"use keeps it", auth.BrowserSession, 0, []time.Duration{10 * day}, 20 * day, nil},
		{"use keeps it for so long", auth.BrowserSession, 0, []time.Duration{10 * day}, 24 * day, auth.ErrExpired},
		{"in use until the end", auth.BrowserSession, 0, []time.Duration{10 * day, 20 * day}, 30*day - 1000, nil},
		{"in use and too old", auth.BrowserSession, 0, []time.Duration{10 * day, 20 * day}, 30 * day, auth.ErrExpired},
		{"asked to be shorter", auth.BrowserSession, time.Hour, nil, time.Hour - 1000, nil},
		{"asked to be shorter, over", auth.BrowserSession, time.Hour, nil, time.Hour, auth.ErrExpired},
		{"asked to be longer", auth.BrowserSession, 60 * day, []time.Duration{10 * day, 20 * day}, 30 * day, auth.ErrExpired},
		{"clock behind", auth.BrowserSession, 0, nil, -time.Hour, nil},
		{"a token is never idle", auth.TokenSession, 0, nil, 4000 * day, nil},
		{"a token that expires", auth.TokenSession, 60 * day, nil, 60*day - 1000, nil},
		{"a token that expired", auth.TokenSession, 60 * day, nil, 60 * day, auth.ErrExpired},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
				in := auth.Session{Kind: test.kind, Subject: "acc-1"}
				if test.expires != 0 {
					in.Expires = start.Add(test.expires)
				}
				session, token, err := s.Begin(s.t.Context(), in, creds("cookie", "a"), start)
				if err != nil {
					s.t.Fatal(err)
				}
				for _, d := range test.used {
					s.wantToken(token, start.Add(d), session.ID, nil)
					s.Touch(session.ID, start.Add(d))
				}
				now := start.Add(test.at)
				s.wantToken(token, now, session.ID, test.want)
				s.wantCookie("a", now, session.ID, test.want)
				var live []string
				if test.want == nil {
					live = []string{session.ID}
				}
				s.wantLive("acc-1", now, live...)
				ended := 1 - len(live)
				s.sweep(now, ended)
				if len(s.told) != ended {
					s.t.Errorf("told of %d ends, want %d", len(s.told), ended)
				}
				s.reopen()
				swept := test.want
				if swept != nil {
					swept = auth.ErrSessionEnded
				}
				s.wantToken(token, now, session.ID, swept)
			})
		})
	}
}

func (s *sessionBench) wantLive(subject string, now time.Time, want ...string) {
	s.t.Helper()
	all, err := s.OfSubject(s.t.Context(), subject, now)
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, session := range all {
		got = append(got, session.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("sessions of %s (-want +got):\n%s", subject, diff)
	}
}

func TestCredentialChain(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{MaxCredentials: 3}, func(s *sessionBench) {
		session, token := s.begin("acc-1", "", start, "one")
		id := session.ID
		at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

		s.add(id, "two", at(10))
		s.wantCookie("one", at(10), id, nil)
		s.wantCookie("two", at(10), id, nil)
		s.wantCookie("one", at(70).Add(-time.Microsecond), id, nil)
		s.wantCookie("one", at(70), "", auth.ErrSessionEnded)
		s.wantCookie("two", at(70), id, nil)

		s.reopen()
		s.wantCookie("one", at(69), id, nil)
		s.wantCookie("one", at(70), "", auth.ErrSessionEnded)
		s.wantCookie("two", at(70), id, nil)

		s.add(id, "two", at(80)) // the current one again: nothing happens
		s.add(id, "three", at(100))
		s.add(id, "four", at(110))
		// Three are kept; the first one is not even remembered.
		s.wantCookie("one", at(110), "", auth.ErrNoSession)
		s.wantCookie("two", at(110), id, nil)
		s.wantCookie("three", at(110), id, nil)
		s.wantCookie("four", at(110), id, nil)
		s.wantCookie("two", at(160), "", auth.ErrSessionEnded)
		s.wantCookie("three", at(169), id, nil)

		// A value that comes back is the current one again.
		s.add(id, "three", at(120))
		s.wantCookie("three", at(10_000), id, nil)
		s.wantCookie("four", at(180), "", auth.ErrSessionEnded)

		// Another kind does not retire this one.
		if err := s.AddCredential(s.t.Context(), id, creds("csrf", "x")[0], at(200)); err != nil {
			s.t.Fatal(err)
		}
		s.wantCookie("three", at(10_000), id, nil)
		s.wantToken(token, at(10_000), id, nil)
		s.reopen()
		got := s.wantToken(token, at(200), id, nil)
		want := []auth.Credential{
			{Kind: "cookie", Hash: auth.HashCredential("cookie", "four"), Since: at(110), RetiredAt: at(180)},
			{Kind: "cookie", Hash: auth.HashCredential("cookie", "three"), Since: at(120)},
			{Kind: "csrf", Hash: auth.HashCredential("csrf", "x"), Since: at(200)},
		}
		if diff := cmp.Diff(want, got.Credentials); diff != "" {
			s.t.Errorf("credentials (-want +got):\n%s", diff)
		}
		if !got.Holds("cookie", want[0].Hash, at(179)) || got.Holds("cookie", want[0].Hash, at(180)) || got.Holds("csrf", want[1].Hash, at(179)) {
			s.t.Error("Holds: want the retired cookie until 180 s, and no cookie as another kind")
		}

		// Current ones are not dropped for another kind.
		for _, kind := range []string{"third", "fourth"} {
			err := s.AddCredential(s.t.Context(), id, creds(kind, "x")[0], at(300))
			if full := kind == "fourth"; (err != nil) != full {
				s.t.Errorf("adding a %s kind: got error %v, want one: %v", kind, err, full)
			}
		}
		s.wantCookie("three", at(300), id, nil)
		if err := s.CheckCache(); err != nil {
			s.t.Error(err)
		}
	})
}

func TestAddCredentialRefuses(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		mine, _ := s.begin("acc-1", "", start, "mine")
		other, _ := s.begin("acc-2", "", start, "other's")
		over, _ := s.begin("acc-3", "", start, "over's")
		if _, err := s.End(s.t.Context(), over.ID, auth.Act{By: "user"}, start); err != nil {
			s.t.Fatal(err)
		}
		for _, test := range []struct {
			name, id, cookie string
			at               time.Duration
			want             error // nil: any
		}{
			{"unknown session", "nobody's", "new", 0, auth.ErrNoSession},
			{"ended session", over.ID, "new", 0, auth.ErrSessionEnded},
			{"expired session", mine.ID, "new", 30 * day, auth.ErrExpired},
			{"expired session, known credential", mine.ID, "mine", 30 * day, auth.ErrExpired},
			{"another session's credential", mine.ID, "other's", 0, nil},
			{"an ended session's credential", mine.ID, "over's", 0, nil},
		} {
			s.t.Run(test.name, func(t *testing.T) {
				err := s.AddCredential(t.Context(), test.id, creds("cookie", test.cookie)[0], start.Add(test.at))
				if err == nil || test.want != nil && !errors.Is(err, test.want) {
					t.Errorf("got error %v, want %v", err, test.want)
				}
			})
		}
		for range 2 {
			s.wantCookie("mine", start, mine.ID, nil)
			s.wantCookie("other's", start, other.ID, nil)
			s.wantCookie("over's", start, "", auth.ErrSessionEnded)
			s.wantCookie("new", start, "", auth.ErrNoSession)
			s.reopen()
		}
	})
}

func TestCredentialsMoveAtLogin(t *testing.T) {
	for _, test := range []struct {
		name       string
		first      []string // cookies of the session that there was
		device     string
		second     []string // cookies of the new one
		device2    string
		ends       bool
		keepsFirst []string
	}{
		{"same browser, backend keeps its cookie", []string{"a"}, "dev", []string{"a"}, "dev", true, nil},
		{"same browser, one of two cookies", []string{"a", "b"}, "dev", []string{"a"}, "dev", true, nil},
		{"no device, the only cookie", []string{"a"}, "", []string{"a"}, "", true, nil},
		{"another device, the only cookie", []string{"a"}, "dev", []string{"a"}, "other", true, nil},
		{"another device, one of two cookies", []string{"a", "b"}, "dev", []string{"a"}, "other", false, []string{"b"}},
		{"no device, one of two cookies", []string{"a", "b"}, "", []string{"a"}, "", false, []string{"b"}},
		{"other cookies", []string{"a"}, "dev", []string{"b"}, "dev", false, []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
				first, token := s.begin("acc-1", test.device, start, test.first...)
				second, _ := s.begin("acc-1", test.device2, start.Add(time.Hour), test.second...)
				now := start.Add(time.Hour)
				for range 2 {
					var want error
					if test.ends {
						want = auth.ErrSessionEnded
					}
					s.wantToken(token, now, first.ID, want)
					for _, c := range test.second {
						s.wantCookie(c, now, second.ID, nil)
					}
					for _, c := range test.keepsFirst {
						s.wantCookie(c, now, first.ID, nil)
					}
					s.reopen()
				}
				var told []string
				for _, e := range s.told {
					told = append(told, e.ID+" by "+e.EndedBy)
				}
				var want []string
				if test.ends {
					want = []string{first.ID + " by login"}
				}
				if diff := cmp.Diff(want, told); diff != "" {
					t.Errorf("told of ends (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// Three log-ins in one microsecond: what ended at the second ended once.
func TestEndsAreToldOnce(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		first, _ := s.begin("acc-1", "dev", start, "a", "b")
		s.begin("acc-1", "dev", start, "a")
		s.begin("acc-1", "other", start, "b")
		if len(s.told) != 1 || s.told[0].ID != first.ID {
			s.t.Errorf("told of %d ends, want one", len(s.told))
		}
		if _, err := s.End(s.t.Context(), first.ID, auth.Act{By: "user"}, start); !errors.Is(err, auth.ErrSessionEnded) {
			s.t.Errorf("ending it again: got %v, want %v", err, auth.ErrSessionEnded)
		}
		if _, err := s.EndAll(s.t.Context(), "acc-1", auth.Act{By: "operator"}, start); err != nil {
			s.t.Fatal(err)
		}
		if len(s.told) != 3 {
			s.t.Errorf("told of %d ends, want 3", len(s.told))
		}
	})
}

func TestEnd(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		ctx := s.t.Context()
		session, token := s.begin("acc-1", "", start, "a")
		now := start.Add(time.Hour)
		ended, err := s.End(ctx, session.ID, auth.Act{By: "operator jiro"}, now)
		if err != nil || !ended.Ended.Equal(now) || ended.EndedBy != "operator jiro" {
			s.t.Fatalf("got %+v, %v", ended, err)
		}
		again, err := s.End(ctx, session.ID, auth.Act{By: "somebody else"}, now.Add(time.Hour))
		if !errors.Is(err, auth.ErrSessionEnded) {
			s.t.Errorf("again: got %v, want %v", err, auth.ErrSessionEnded)
		}
		if diff := cmp.Diff(ended, again); diff != "" {
			s.t.Errorf("ending again changed it (-want +got):\n%s", diff)
		}
		if _, err := s.End(ctx, "nobody's", auth.Act{By: "user"}, now); !errors.Is(err, auth.ErrNoSession) {
			s.t.Errorf("unknown id: got %v, want %v", err, auth.ErrNoSession)
		}
		s.Touch(session.ID, now.Add(day))
		for range 2 {
			s.wantToken(token, now, "", auth.ErrSessionEnded)
			s.wantCookie("a", now, "", auth.ErrSessionEnded)
			s.wantLive("acc-1", now)
			s.reopen()
		}
		if diff := cmp.Diff([]auth.Session{ended}, s.told); diff != "" {
			s.t.Errorf("told of ends (-want +got):\n%s", diff)
		}
	})
}

func TestEndAll(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{CacheSize: 2}, func(s *sessionBench) {
		ctx := s.t.Context()
		var tokens, ids []string
		for i := range 5 {
			session, token := s.begin("acc-1", "", start.Add(time.Duration(i)*time.Minute), fmt.Sprint("a", i))
			tokens, ids = append(tokens, token), append([]string{session.ID}, ids...)
		}
		other, otherToken := s.begin("acc-2", "", start, "b")
		now := start.Add(time.Hour)
		s.wantLive("acc-1", now, ids...) // the newest first
		ended, err := s.EndAll(ctx, "acc-1", auth.Act{By: "password changed"}, now)
		if err != nil || len(ended) != 5 || len(s.told) != 5 {
			s.t.Fatalf("got %d ended, %d told, %v, want 5", len(ended), len(s.told), err)
		}
		for range 2 {
			for _, token := range tokens {
				s.wantToken(token, now, "", auth.ErrSessionEnded)
			}
			s.wantToken(otherToken, now, other.ID, nil)
			s.reopen()
		}
		for _, subject := range []string{"acc-1", "nobody"} {
			if again, err := s.EndAll(ctx, subject, auth.Act{By: "again"}, now); err != nil || len(again) != 0 {
				s.t.Errorf("%s again: got %d, %v, want none", subject, len(again), err)
			}
		}
	})
}

func TestTombstones(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		ctx := s.t.Context()
		browser, token := s.begin("acc-1", "", start, "a")
		program, _, err := s.Begin(ctx, auth.Session{Kind: auth.TokenSession, Subject: "acc-1"}, creds("bearer", "t"), start)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, id := range []string{browser.ID, program.ID} {
			if _, err := s.End(ctx, id, auth.Act{By: "user"}, start); err != nil {
				s.t.Fatal(err)
			}
		}
		for _, step := range []struct {
			after time.Duration
			want  error
		}{{90 * day, auth.ErrSessionEnded}, {90*day + time.Microsecond, auth.ErrNoSession}} {
			now := start.Add(step.after)
			s.sweep(now, 0)
			s.reopen()
			s.wantToken(token, now, "", step.want)
			s.wantCookie("a", now, "", step.want)
			if _, err := s.ByCredential(ctx, "bearer", auth.HashCredential("bearer", "t"), now); !errors.Is(err, auth.ErrSessionEnded) {
				s.t.Errorf("a program's token after %v: got %v, want %v, for good", step.after, err, auth.ErrSessionEnded)
			}
		}
		// What was forgotten may be used again.
		fresh, _ := s.begin("acc-2", "", start.Add(91*day), "a")
		s.wantCookie("a", start.Add(91*day), fresh.ID, nil)
	})
}

func TestTouch(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		session, token := s.begin("acc-1", "", start, "a")
		wantSeen := func(want time.Duration) {
			s.t.Helper()
			got := s.wantToken(token, start, session.ID, nil)
			if d := got.Seen.Sub(start); d != want {
				s.t.Errorf("seen after %v, want %v", d, want)
			}
		}
		for _, step := range []struct {
			at, seen time.Duration
			noted    int
		}{
			{0, 0, 0},
			{59 * time.Second, 0, 0},
			{60 * time.Second, time.Minute, 1},
			{90 * time.Second, time.Minute, 1},
			{5 * time.Minute, 5 * time.Minute, 1},
			{2 * time.Minute, 5 * time.Minute, 1}, // never back
		} {
			s.Touch(session.ID, start.Add(step.at))
			wantSeen(step.seen)
			if got := s.Noted(); got != step.noted {
				s.t.Errorf("after %v: %d uses noted, want %d", step.at, got, step.noted)
			}
		}
		s.sweep(start.Add(5*time.Minute), 0)
		s.reopen()
		wantSeen(5 * time.Minute)

		// A change of the session does not undo the use, stored or not.
		s.Touch(session.ID, start.Add(time.Hour))
		s.add(session.ID, "b", start.Add(time.Hour))
		wantSeen(time.Hour)
		s.reopen()
		wantSeen(time.Hour) // it was stored with the change

		// Uses that could not be stored are stored later.
		s.Touch(session.ID, start.Add(2*time.Hour))
		broken := errors.New("disk full")
		s.probe.Failing.Store(&broken)
		if _, err := s.Sweep(s.t.Context(), start.Add(2*time.Hour)); !errors.Is(err, broken) {
			s.t.Errorf("sweep: got %v, want %v", err, broken)
		}
		s.probe.Failing.Store(nil)
		s.sweep(start.Add(2*time.Hour), 0)
		s.reopen()
		wantSeen(2 * time.Hour)

		// An unknown id is noted, and does no harm.
		s.Touch("nobody's", start.Add(day))
		s.sweep(start.Add(day), 0)
		wantSeen(2 * time.Hour)
	})
}

// One sweep ends more than a transaction's worth.
func TestSweepEndsAll(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{CacheSize: 10}, func(s *sessionBench) {
		const n = 620
		for i := range n {
			s.begin(fmt.Sprint("acc-", i%7), "", start.Add(time.Duration(i)*time.Second))
		}
		s.begin("acc-8", "", start.Add(10*day))
		s.sweep(start.Add(14*day+n*time.Second), n)
		if len(s.told) != n {
			s.t.Errorf("told of %d ends, want %d", len(s.told), n)
		}
		for _, e := range s.told {
			if e.EndedBy != "expiry" {
				s.t.Fatalf("ended by %q, want expiry", e.EndedBy)
			}
		}
		s.sweep(start.Add(14*day+n*time.Second), 0)
		s.sweep(start.Add(200*day), 1)
		if err := s.CheckCache(); err != nil {
			s.t.Error(err)
		}
	})
}

func TestOfSubjectIsBounded(t *testing.T) {
	s := newSessionBench(t, &memory{auth.NewMemoryStore()}, auth.SessionsConfig{})
	for i := range auth.ListMax + 5 {
		s.begin("acc-1", "", start.Add(time.Duration(i)*time.Second))
	}
	all, err := s.OfSubject(t.Context(), "acc-1", start.Add(time.Hour))
	if err != nil || len(all) != auth.ListMax {
		t.Fatalf("got %d, %v, want %d", len(all), err, auth.ListMax)
	}
	if !slices.IsSortedFunc(all, func(a, b auth.Session) int { return b.Created.Compare(a.Created) }) {
		t.Error("not the newest first")
	}
}

func TestUnknownIsRemembered(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		ask := func(at time.Duration, want error, id string) int64 {
			return s.asked(func() { s.wantCookie("a", start.Add(at), id, want) })
		}
		wantAsked := func(when string, got, want int64) {
			s.t.Helper()
			if got != want {
				s.t.Errorf("%s: asked the store %d times, want %d", when, got, want)
			}
		}
		wantAsked("first", ask(0, auth.ErrNoSession, ""), 1)
		wantAsked("again", ask(auth.AbsentFor-1, auth.ErrNoSession, ""), 0)
		wantAsked("after a while", ask(auth.AbsentFor, auth.ErrNoSession, ""), 1)

		session, _ := s.begin("acc-1", "", start, "a") // the answer above is wrong at once
		wantAsked("begun", ask(0, nil, session.ID), 0)
		if n := s.asked(func() { s.wantCookie("b", start, "", auth.ErrNoSession) }); n != 1 {
			s.t.Errorf("another: asked %d times, want once", n)
		}
		s.add(session.ID, "b", start)
		s.wantCookie("b", start, session.ID, nil)

		// An error of the store is not an answer.
		broken := errors.New("disk gone")
		s.probe.Failing.Store(&broken)
		s.wantCookie("c", start, "", broken)
		s.wantToken(strings.Repeat("A", 43), start, "", broken)
		s.probe.Failing.Store(nil)
		s.wantCookie("c", start, "", auth.ErrNoSession)
		s.wantToken(strings.Repeat("A", 43), start, "", auth.ErrNoSession)
	})
}

// While the store is away, sessions in memory go on and nothing begins or ends.
func TestStoreAway(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{}, func(s *sessionBench) {
		ctx := s.t.Context()
		session, token := s.begin("acc-1", "", start, "a")
		broken := errors.New("disk gone")
		s.probe.Failing.Store(&broken)
		if _, token, err := s.Begin(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, creds("cookie", "a"), start); !errors.Is(err, broken) || token != "" {
			s.t.Errorf("begin: got token %q, error %v", token, err)
		}
		if _, err := s.End(ctx, session.ID, auth.Act{By: "user"}, start); !errors.Is(err, broken) {
			s.t.Errorf("end: got %v", err)
		}
		if _, err := s.EndAll(ctx, "acc-1", auth.Act{By: "user"}, start); !errors.Is(err, broken) {
			s.t.Errorf("end all: got %v", err)
		}
		if err := s.AddCredential(ctx, session.ID, creds("cookie", "b")[0], start); !errors.Is(err, broken) {
			s.t.Errorf("add: got %v", err)
		}
		if n := s.asked(func() {
			s.wantToken(token, start, session.ID, nil)
			s.wantCookie("a", start, session.ID, nil)
		}); n != 0 {
			s.t.Errorf("a session in memory asked the store %d times", n)
		}
		if len(s.told) != 0 {
			s.t.Errorf("told of %d ends", len(s.told))
		}
	})
}

// A change that is reported late must not bring back what ended meanwhile, also
// when memory is too small to remember the end.
func TestLateChangeDoesNotUndoEnd(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{CacheSize: 1}, func(s *sessionBench) {
		ctx := s.t.Context()
		session, token := s.begin("acc-1", "", start, "a")
		committed, release := make(chan struct{}), make(chan struct{})
		hold := func(error) {
			s.probe.Changed.Store(nil)
			close(committed)
			<-release
		}
		s.probe.Changed.Store(&hold)
		added := make(chan error)
		go func() { added <- s.AddCredential(ctx, session.ID, creds("cookie", "b")[0], start) }()
		<-committed
		if _, err := s.End(ctx, session.ID, auth.Act{By: "user"}, start); err != nil {
			s.t.Fatal(err)
		}
		for i := range 3 { // others take its place in memory
			s.begin("acc-2", "", start, fmt.Sprint("c", i))
		}
		close(release)
		if err := <-added; err != nil {
			s.t.Fatal(err)
		}
		s.wantToken(token, start, "", auth.ErrSessionEnded)
		s.wantCookie("b", start, "", auth.ErrSessionEnded)
		if err := s.CheckCache(); err != nil {
			s.t.Error(err)
		}
	})
}

// The memory holds some sessions, the store all of them.
func TestMoreSessionsThanMemory(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{CacheSize: 5}, func(s *sessionBench) {
		type one struct{ id, token, cookie string }
		var all []one
		for i := range 40 {
			cookie := fmt.Sprint("a", i)
			session, token := s.begin(fmt.Sprint("acc-", i), "", start, cookie)
			all = append(all, one{session.ID, token, cookie})
		}
		for range 3 {
			for _, o := range all {
				s.wantToken(o.token, start, o.id, nil)
				s.wantCookie(o.cookie, start, o.id, nil)
				if err := s.CheckCache(); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	})
}

func TestCancelledContext(t *testing.T) {
	s := newSessionBench(t, newDatabase(t), auth.SessionsConfig{})
	session, token := s.begin("acc-1", "", start, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.End(ctx, session.ID, auth.Act{By: "user"}, start); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	s.reopen()
	s.wantToken(token, start, session.ID, nil)
}
