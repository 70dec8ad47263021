package auth_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/auth"
)

// The model is the slow and obvious one: a list of sessions that is searched.
type modelSession struct {
	session auth.Session
	token   string
	gone    bool // forgotten by a sweep
}

var modelConfig = auth.SessionsConfig{MaxCredentials: 3, CacheSize: 2}

func (m *modelSession) over(now time.Time) error {
	s := &m.session
	switch {
	case m.gone:
		return auth.ErrNoSession
	case !s.Ended.IsZero():
		return auth.ErrSessionEnded
	case !s.Expires.IsZero() && !now.Before(s.Expires), s.Kind == auth.BrowserSession && now.Sub(s.Seen) >= 14*day:
		return auth.ErrExpired
	}
	return nil
}

func (m *modelSession) has(c auth.Credential) int {
	return slices.IndexFunc(m.session.Credentials, func(o auth.Credential) bool { return o.Kind == c.Kind && o.Hash == c.Hash })
}

func TestSessionsModel(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		rapid.Check(t, func(t *rapid.T) {
			b.clear()
			runSessionsModel(t, b)
		})
	})
}

func runSessionsModel(t *rapid.T, b backing) {
	ctx := t.Context()
	var (
		ss    *auth.Sessions
		now   = start
		all   []*modelSession
		told  []string
		ended []string
	)
	reopen := func() {
		var err error
		if ss, err = auth.OpenSessions(ctx, b.open(), modelConfig, now); err != nil {
			t.Fatal(err)
		}
		ss.OnEnd(func(s auth.Session) { told = append(told, s.ID) })
	}
	reopen()
	credential := rapid.Custom(func(t *rapid.T) auth.Credential {
		kind := rapid.SampledFrom([]string{"cookie", "csrf"}).Draw(t, "kind")
		return creds(kind, rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "value"))[0]
	})
	pick := func(t *rapid.T) *modelSession {
		if len(all) == 0 {
			t.Skip("no session yet")
		}
		return all[rapid.IntRange(0, len(all)-1).Draw(t, "session")]
	}
	holder := func(c auth.Credential) *modelSession {
		for _, m := range all {
			if !m.gone && m.has(c) >= 0 {
				return m
			}
		}
		return nil
	}
	end := func(m *modelSession, by string) {
		m.session.Ended, m.session.EndedBy = now, by
		ended = append(ended, m.session.ID)
	}
	check := func(what string, got *auth.Session, err error, m *modelSession, want error) {
		switch {
		case m != nil && m.gone && errors.Is(err, auth.ErrSessionEnded):
			return // still in memory, which says more than the store
		case !errors.Is(err, want):
			t.Fatalf("%s: got %v, want %v", what, err, want)
		case err == nil && (got.ID != m.session.ID || got.Subject != m.session.Subject || !got.Seen.Equal(m.session.Seen) || !slices.Equal(got.Credentials, m.session.Credentials)):
			t.Fatalf("%s:\n got %+v\nwant %+v", what, *got, m.session)
		}
	}

	t.Repeat(map[string]func(*rapid.T){
		"advance": func(t *rapid.T) {
			now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, time.Minute, time.Hour, day, 10 * day, 40 * day}).Draw(t, "by"))
		},
		"begin": func(t *rapid.T) {
			in := auth.Session{
				Kind:    rapid.SampledFrom([]auth.SessionKind{auth.BrowserSession, auth.BrowserSession, auth.TokenSession}).Draw(t, "kind"),
				Subject: rapid.SampledFrom([]string{"acc-1", "acc-2"}).Draw(t, "subject"),
				Device:  rapid.SampledFrom([]string{"", "dev-1", "dev-2"}).Draw(t, "device"),
			}
			cs := rapid.SliceOfNDistinct(credential, 0, 3, func(c auth.Credential) auth.CredentialHash { return c.Hash }).Draw(t, "credentials")
			got, token, err := ss.Begin(ctx, in, cs, now)
			if err != nil {
				t.Fatal(err)
			}
			losers := make(map[*modelSession]bool)
			for _, c := range cs {
				if m := holder(c); m != nil {
					m.session.Credentials = slices.Delete(slices.Clone(m.session.Credentials), m.has(c), m.has(c)+1)
					losers[m] = true
				}
			}
			for m := range losers {
				if m.session.Ended.IsZero() && (m.session.Device != "" && m.session.Device == in.Device || len(m.session.Credentials) == 0) {
					end(m, "login")
				}
			}
			all = append(all, &modelSession{session: got, token: token})
		},
		"add": func(t *rapid.T) {
			m, c := pick(t), credential.Draw(t, "credential")
			err := ss.AddCredential(ctx, m.session.ID, c, now)
			if want := m.over(now); want != nil {
				if !errors.Is(err, want) {
					t.Fatalf("add to a session that is over: got %v, want %v", err, want)
				}
				return
			}
			if h := holder(c); h != nil && h != m {
				if err == nil {
					t.Fatal("add: took another session's credential")
				}
				return
			}
			// The chain as it would be.
			if i := m.has(c); i < 0 || !m.session.Credentials[i].RetiredAt.IsZero() {
				var next []auth.Credential
				for _, o := range m.session.Credentials {
					if o.Kind == c.Kind && o.Hash == c.Hash {
						continue
					}
					if o.Kind == c.Kind && o.RetiredAt.IsZero() {
						o.RetiredAt = now.Add(time.Minute)
					}
					next = append(next, o)
				}
				c.Since = now
				if next = append(next, c); len(next) > modelConfig.MaxCredentials {
					var retired []auth.Credential
					for _, o := range next {
						if !o.RetiredAt.IsZero() {
							retired = append(retired, o)
						}
					}
					if len(retired) == 0 {
						if err == nil {
							t.Fatal("add: kept more than MaxCredentials")
						}
						return
					}
					first := slices.MinFunc(retired, func(a, b auth.Credential) int { return a.RetiredAt.Compare(b.RetiredAt) })
					next = slices.DeleteFunc(next, func(o auth.Credential) bool { return o == first })
				}
				m.session.Credentials = next
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"use": func(t *rapid.T) {
			m := pick(t)
			got, err := ss.ByToken(ctx, m.token, now)
			check("by token", got, err, m, m.over(now))
			if err == nil {
				ss.Touch(m.session.ID, now)
				if now.Sub(m.session.Seen) >= time.Minute {
					m.session.Seen = now
				}
			}
		},
		"by credential": func(t *rapid.T) {
			c := credential.Draw(t, "credential")
			m := holder(c)
			got, err := ss.ByCredential(ctx, c.Kind, c.Hash, now)
			want := auth.ErrNoSession
			if m != nil {
				if want = m.over(now); want == nil {
					if retired := m.session.Credentials[m.has(c)].RetiredAt; !retired.IsZero() && !now.Before(retired) {
						want = auth.ErrSessionEnded
					}
				}
			}
			if m == nil && errors.Is(err, auth.ErrSessionEnded) {
				for _, g := range all {
					if g.gone && g.has(c) >= 0 {
						return // forgotten by the store, still in memory
					}
				}
			}
			check("by credential", got, err, m, want)
		},
		"end": func(t *rapid.T) {
			m := pick(t)
			_, err := ss.End(ctx, m.session.ID, auth.Act{By: "user"}, now)
			var want error
			switch {
			case m.gone:
				want = auth.ErrNoSession
			case !m.session.Ended.IsZero():
				want = auth.ErrSessionEnded
			default:
				end(m, "user")
			}
			if !errors.Is(err, want) {
				t.Fatalf("end: got %v, want %v", err, want)
			}
		},
		"end all": func(t *rapid.T) {
			subject := rapid.SampledFrom([]string{"acc-1", "acc-2"}).Draw(t, "subject")
			got, err := ss.EndAll(ctx, subject, auth.Act{By: "operator"}, now)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, m := range all {
				if m.session.Subject == subject && m.session.Ended.IsZero() {
					end(m, "operator")
					n++
				}
			}
			if len(got) != n {
				t.Fatalf("end all: got %d, want %d", len(got), n)
			}
		},
		"sweep": func(t *rapid.T) {
			got, err := ss.Sweep(ctx, now)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, m := range all {
				if errors.Is(m.over(now), auth.ErrExpired) {
					end(m, "expiry")
					n++
				}
				if m.session.Kind == auth.BrowserSession && !m.session.Ended.IsZero() && m.session.Ended.Before(now.Add(-90*day)) {
					m.gone = true
				}
			}
			if got != n {
				t.Fatalf("sweep: got %d ended, want %d", got, n)
			}
		},
		"restart": func(t *rapid.T) {
			if _, err := ss.Sweep(ctx, start); err != nil { // stores uses; nothing is over at the start
				t.Fatal(err)
			}
			reopen()
		},
		"": func(t *rapid.T) {
			slices.Sort(told)
			slices.Sort(ended)
			if !slices.Equal(told, ended) {
				t.Fatalf("told of the ends of %v, want %v", told, ended)
			}
			for _, subject := range []string{"acc-1", "acc-2"} {
				live, err := ss.OfSubject(ctx, subject, now)
				if err != nil {
					t.Fatal(err)
				}
				var got, want []string
				for _, s := range live {
					got = append(got, fmt.Sprint(s.ID, s.Seen, s.Credentials))
				}
				for _, m := range all {
					if m.session.Subject == subject && m.over(now) == nil {
						want = append(want, fmt.Sprint(m.session.ID, m.session.Seen, m.session.Credentials))
					}
				}
				slices.SortFunc(got, cmp.Compare)
				slices.SortFunc(want, cmp.Compare)
				if !slices.Equal(got, want) {
					t.Fatalf("sessions of %s:\n got %v\nwant %v", subject, got, want)
				}
			}
			if err := ss.CheckCache(); err != nil {
				t.Fatal(err)
			}
		},
	})
}

// Many at once: what one was told stays true for it, and in the end every
// credential has at most one holder. It is most of use under the race detector.
func TestSessionsAtOnce(t *testing.T) {
	eachSessions(t, auth.SessionsConfig{CacheSize: 8}, func(s *sessionBench) {
		ctx := s.t.Context()
		const workers, rounds = 8, 15
		var wg sync.WaitGroup
		fail := make(chan error, workers+2)
		for w := range workers {
			wg.Go(func() {
				fail <- func() error {
					for i := range rounds {
						now := start.Add(time.Duration(i) * time.Minute)
						own := fmt.Sprint("own", w)
						session, token, err := s.Begin(ctx, auth.Session{Kind: auth.BrowserSession, Subject: fmt.Sprint("acc-", w), Device: fmt.Sprint("dev-", w)},
							creds("cookie", own, fmt.Sprint("shared", i%3)), now)
						if err != nil {
							return err
						}
						if got, err := s.ByToken(ctx, token, now); err != nil || got.ID != session.ID {
							return fmt.Errorf("just begun: %v", err)
						}
						s.Touch(session.ID, now.Add(time.Minute))
						if got, err := s.ByCredential(ctx, "cookie", auth.HashCredential("cookie", own), now); err != nil || got.ID != session.ID {
							return fmt.Errorf("own credential: %v", err)
						}
						rolled := creds("cookie", fmt.Sprint("rolled", w, "-", i))[0]
						if err := s.AddCredential(ctx, session.ID, rolled, now); err != nil {
							return err
						}
						if got, err := s.ByCredential(ctx, "cookie", rolled.Hash, now); err != nil || got.ID != session.ID {
							return fmt.Errorf("rolled credential: %v", err)
						}
						if i%2 == 0 {
							continue
						}
						if _, err := s.End(ctx, session.ID, auth.Act{By: "user"}, now); err != nil {
							return err
						}
						if _, err := s.ByToken(ctx, token, now); !errors.Is(err, auth.ErrSessionEnded) {
							return fmt.Errorf("by token after the end: got %v", err)
						}
						if _, err := s.ByCredential(ctx, "cookie", rolled.Hash, now); !errors.Is(err, auth.ErrSessionEnded) {
							return fmt.Errorf("by credential after the end: got %v", err)
						}
					}
					return nil
				}()
			})
		}
		wg.Go(func() {
			fail <- func() error {
				for i := range rounds {
					if _, err := s.Sweep(ctx, start.Add(time.Duration(i)*time.Minute)); err != nil {
						return err
					}
					if err := s.CheckCache(); err != nil {
						return err
					}
				}
				return nil
			}()
		})
		wg.Wait()
		close(fail)
		for err := range fail {
			if err != nil {
				s.t.Error(err)
			}
		}
		told := make(map[string]int)
		for _, ended := range s.told {
			if told[ended.ID]++; told[ended.ID] > 1 {
				s.t.Errorf("session %s: its end was told %d times", ended.ID, told[ended.ID])
			}
		}
		holders := make(map[auth.CredentialHash]string)
		for w := range workers {
			live, err := s.OfSubject(ctx, fmt.Sprint("acc-", w), start.Add(time.Hour))
			if err != nil {
				s.t.Fatal(err)
			}
			for _, session := range live {
				for _, c := range session.Credentials {
					if other, taken := holders[c.Hash]; taken {
						s.t.Errorf("a credential belongs to %s and to %s", other, session.ID)
					}
					holders[c.Hash] = session.ID
				}
			}
		}
		if err := s.CheckCache(); err != nil {
			s.t.Error(err)
		}
	})
}
