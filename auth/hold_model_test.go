package auth_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/auth"
)

func TestHoldsModel(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		rapid.Check(t, func(t *rapid.T) {
			b.clear()
			runHoldsModel(t, b)
		})
	})
}

// modelHold is a hold as the slow and obvious way has it.
type modelHold struct {
	id, subject string
	state       auth.HoldState
	created     time.Time
	tries       int
	matched     bool
	code        string
	cookie      string
}

// runHoldsModel has two nodes act at random on the holds of two accounts.
func runHoldsModel(t *rapid.T, b backing) {
	ctx, now := t.Context(), start
	cfg := auth.HoldsConfig{For: 10 * time.Minute, PerSubject: 2, Max: 4, CodeTries: 2, KeepFor: day}
	type pair struct {
		holds    *auth.Holds
		sessions *auth.Sessions
	}
	open := func() pair {
		holds, err := auth.OpenHolds(ctx, another(b), newSeal(), cfg, now)
		if err != nil {
			t.Fatal(err)
		}
		sessions, err := auth.OpenSessions(ctx, another(b), auth.SessionsConfig{}, now)
		if err != nil {
			t.Fatal(err)
		}
		return pair{holds, sessions}
	}
	nodes := [2]pair{open(), open()}
	factors, err := openFactors(ctx, another(b), factorsConfig())
	if err != nil {
		t.Fatal(err)
	}
	var all []*modelHold
	untold, sessions := 0, 0
	node := func(t *rapid.T) pair { return nodes[rapid.IntRange(0, 1).Draw(t, "node")] }
	pick := func(t *rapid.T) *modelHold {
		if len(all) == 0 {
			t.Skip("no hold yet")
		}
		return all[rapid.IntRange(0, len(all)-1).Draw(t, "hold")]
	}
	isOpen := func(m *modelHold) bool { return m.state == auth.HoldWaiting || m.state == auth.HoldApproved }
	live := func(m *modelHold) bool { return isOpen(m) && now.Before(m.created.Add(cfg.For)) }
	expire := func(m *modelHold) {
		if m.state == auth.HoldWaiting {
			untold++
		}
		m.state = auth.HoldExpired
	}
	check := func(t *rapid.T, err error, ok bool) bool {
		if ok != (err == nil) || err != nil && !errors.Is(err, auth.ErrHoldOver) {
			t.Fatalf("got %v, want success: %v", err, ok)
		}
		return ok
	}
	t.Repeat(map[string]func(*rapid.T){
		"advance": func(t *rapid.T) {
			now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 5 * time.Minute, 10*time.Minute - time.Microsecond}).Draw(t, "by"))
		},
		"begin": func(t *rapid.T) {
			now = now.Add(time.Microsecond) // so that one of them is the newest
			in := aHold(rapid.SampledFrom([]string{"acc-1", "acc-2"}).Draw(t, "subject"))
			cookie := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "cookie")
			in.Credentials = creds("cookie", cookie)
			got, _, err := node(t).holds.Begin(ctx, in, heldAnswer, now)
			var waiting []*modelHold
			places := 0
			for _, m := range all {
				if isOpen(m) {
					places++
				}
				if m.subject == in.Subject && m.state == auth.HoldWaiting {
					waiting = append(waiting, m)
				}
			}
			if len(waiting) == cfg.PerSubject {
				places--
			}
			if places >= cfg.Max {
				if !errors.Is(err, auth.ErrTooManyHolds) {
					t.Fatalf("one too many: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(waiting) == cfg.PerSubject {
				expire(waiting[0])
			}
			all = append(all, &modelHold{id: got.ID, subject: in.Subject, state: auth.HoldWaiting, created: now, code: got.Code, cookie: cookie})
		},
		"code": func(t *rapid.T) {
			m, right := pick(t), rapid.Bool().Draw(t, "right")
			code := m.code
			if !right {
				code = "BBBB-BBBB"
				if m.code == code {
					code = "CCCC-CCCC"
				}
			}
			_, err := node(t).holds.TypeCode(ctx, m.id, code, now)
			switch {
			case !live(m) || m.state != auth.HoldWaiting:
				check(t, err, false)
			case right:
				check(t, err, true)
				m.matched = true
			case !errors.Is(err, auth.ErrWrongCode):
				t.Fatalf("a wrong code: %v", err)
			default:
				if m.tries++; m.tries == cfg.CodeTries {
					m.state = auth.HoldDenied
					untold++
				}
			}
		},
		"approve": func(t *rapid.T) {
			m := pick(t)
			_, err := node(t).holds.Approve(ctx, m.id, auth.Approval{AAL: 1}, auth.Act{}, now)
			if check(t, err, live(m) && m.state == auth.HoldWaiting) {
				m.state = auth.HoldApproved
			}
		},
		"release": func(t *rapid.T) {
			m := pick(t)
			subject := rapid.SampledFrom([]string{"acc-1", "acc-2"}).Draw(t, "subject")
			_, _, err := node(t).sessions.BeginAct(ctx, auth.Session{Kind: auth.BrowserSession, Subject: subject}, nil, auth.Act{Release: m.id}, now)
			if check(t, err, live(m) && m.state == auth.HoldApproved && m.subject == subject) {
				m.state = auth.HoldReleased
				sessions++
			}
		},
		"deny": func(t *rapid.T) {
			m := pick(t)
			_, err := node(t).holds.Deny(ctx, m.id, auth.Act{By: "owner"}, now)
			if check(t, err, live(m)) {
				m.state = auth.HoldDenied
				untold++
			}
		},
		"sweep": func(t *rapid.T) {
			want := 0
			for _, m := range all {
				if isOpen(m) && !live(m) {
					expire(m)
					want++
				}
			}
			if got, err := node(t).holds.Sweep(ctx, now); err != nil || got != want {
				t.Fatalf("%d ended, %v, want %d", got, err, want)
			}
		},
		"restart": func(t *rapid.T) { nodes[rapid.IntRange(0, 1).Draw(t, "node")] = open() },
		"": func(t *rapid.T) {
			for _, m := range all[max(0, len(all)-6):] {
				if now.Sub(m.created) > 12*time.Hour {
					continue // it may be forgotten soon
				}
				want, wantErr := m.state, error(nil)
				if isOpen(m) && !live(m) {
					want = auth.HoldExpired
				}
				if want == auth.HoldExpired {
					wantErr = auth.ErrHoldOver
				}
				for i, n := range nodes {
					got, err := n.holds.ByID(ctx, m.id, now)
					if got.State != want || got.Matched != m.matched || !errors.Is(err, wantErr) {
						t.Fatalf("node %d: hold %s is %q, matched %v, %v, want %q, %v", i, m.id, got.State, got.Matched, err, want, m.matched)
					}
					if _, err := n.holds.Answer(ctx, m.id); (err == nil) != isOpen(m) {
						t.Fatalf("node %d: the answer of a hold that is %s: %v", i, m.state, err)
					}
				}
			}
			for _, cookie := range []string{"a", "b"} {
				want := ""
				for _, m := range slices.Backward(all) {
					if isOpen(m) && m.cookie == cookie { // the latest open one, if it is not over
						if live(m) {
							want = m.id
						}
						break
					}
				}
				got, err := nodes[0].holds.ByCredential(ctx, "cookie", auth.HashCredential("cookie", cookie), now)
				if got.ID != want || (err == nil) != (want != "") {
					t.Fatalf("cookie %s leads to %q, %v, want %q", cookie, got.ID, err, want)
				}
			}
			if notices, err := factors.Untold(ctx); err != nil || len(notices) != untold {
				t.Fatalf("%d notices wait, %v, want %d", len(notices), err, untold)
			}
			begun := 0
			for _, subject := range []string{"acc-1", "acc-2"} {
				some, err := nodes[0].sessions.History(ctx, subject, 1000)
				if err != nil {
					t.Fatal(err)
				}
				begun += len(some)
			}
			if begun != sessions {
				t.Fatalf("%d sessions began, want %d", begun, sessions)
			}
		},
	})
}
