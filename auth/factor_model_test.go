package auth_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/auth"
)

func TestFactorsOnTwoNodesModel(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		rapid.Check(t, func(t *rapid.T) {
			b.clear()
			runFactorsModel(t, b)
		})
	})
}

// modelFactor is what the model knows of an authenticator: the rules told again, as
// plainly as can be.
type modelFactor struct {
	app      app
	subject  string
	state    auth.FactorState
	by       string
	failures int
	next     time.Time
	step     int64
	codes    map[string]bool // of recovery codes: not used yet
}

// wrongOnce is a failure.
func (m *modelFactor) wrongOnce(now time.Time, limit int) {
	m.failures++
	switch {
	case m.failures >= limit:
		m.state, m.by, m.next = auth.FactorDisabled, "throttle", time.Time{}
	case m.failures >= 5:
		m.next = now.Add(min(30*time.Second<<(m.failures-5), 2*time.Minute))
	}
}

// runFactorsModel has two nodes act at random on two accounts; what they say and
// store must be what one node would.
func runFactorsModel(t *rapid.T, b backing) {
	ctx, now := t.Context(), start
	cfg := factorsConfig()
	cfg.Cap, cfg.MaxDelay = 8, 2*time.Minute
	var nodes [2]*auth.Factors
	open := func() *auth.Factors {
		fs, err := openFactors(ctx, another(b), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}
	nodes[0], nodes[1] = open(), open()
	apps := make(map[string]*modelFactor)     // of an account
	recovery := make(map[string]*modelFactor) // of an account
	var gone []string                         // recovery codes that are void
	untold := 0
	node := func(t *rapid.T) *auth.Factors { return nodes[rapid.IntRange(0, 1).Draw(t, "node")] }
	subject := func(t *rapid.T) string { return rapid.SampledFrom([]string{"acc-1", "acc-2"}).Draw(t, "subject") }
	by := auth.Act{By: "user"}
	// attempt compares an attempt with the model: right is whether the code is good.
	attempt := func(t *rapid.T, m *modelFactor, got auth.Attempt, err error, right, used bool) {
		want := auth.AttemptWrong
		switch {
		case m == nil || m.state != auth.FactorActive:
			want = auth.AttemptNone
		case now.Before(m.next):
			want = auth.AttemptWaiting
		case right:
			want = auth.AttemptAccepted
			m.failures, m.next = 0, time.Time{}
		default:
			if used {
				want = auth.AttemptReplayed
			}
			m.wrongOnce(now, cfg.Cap)
			if m.failures == 5 || m.failures == cfg.Cap {
				untold++
			}
		}
		if got.Outcome != want || (err == nil) != (want == auth.AttemptAccepted) || err != nil && !errors.Is(err, auth.ErrWrongCode) {
			t.Fatalf("got %q, %v, want %q", got.Outcome, err, want)
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"advance": func(t *rapid.T) {
			now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute}).Draw(t, "by"))
		},
		"bind": func(t *rapid.T) {
			s := subject(t)
			if apps[s] != nil {
				t.Skip("it has one")
			}
			e, err := node(t).BeginTOTP(ctx, s, "hanako", "phone", now)
			if err != nil {
				t.Fatal(err)
			}
			a := app{e.ID, seedOf(t, e)}
			if _, _, err := node(t).FinishTOTP(ctx, s, e.ID, a.code(now), by, now); err != nil {
				t.Fatal(err)
			}
			untold++
			apps[s] = &modelFactor{app: a, subject: s, state: auth.FactorActive, step: now.Unix() / 30}
		},
		"code": func(t *rapid.T) {
			s := subject(t)
			m := apps[s]
			code, step := "000000", int64(-1)
			if m != nil {
				back := rapid.IntRange(-1, 2).Draw(t, "steps back")
				at := now.Add(time.Duration(-back) * 30 * time.Second)
				code = m.app.code(at)
				for d := int64(-1); d <= 0; d++ { // whichever of the good ones it is
					if k := now.Unix()/30 + d; m.app.code(time.Unix(k*30, 0)) == code {
						step = k
					}
				}
			}
			right := m != nil && step > m.step
			looked := m != nil && m.state == auth.FactorActive && !now.Before(m.next)
			got, err := node(t).VerifyTOTP(ctx, s, code, by, now)
			attempt(t, m, got, err, right, step >= 0)
			if looked && right {
				m.step = step
			}
		},
		"new recovery codes": func(t *rapid.T) {
			s := subject(t)
			codes, f, notices, err := node(t).ReplaceRecoveryCodes(ctx, s, by, now)
			if err != nil {
				t.Fatal(err)
			}
			untold += len(notices)
			if old := recovery[s]; old != nil {
				for c := range old.codes {
					gone = append(gone, c)
				}
			}
			m := &modelFactor{app: app{id: f.ID}, subject: s, state: auth.FactorActive, codes: make(map[string]bool)}
			for _, c := range codes {
				m.codes[c] = true
			}
			recovery[s] = m
		},
		"recovery code": func(t *rapid.T) {
			s := subject(t)
			m := recovery[s]
			code, right, used := auth.RecoveryText([16]byte{1}), false, false
			if m != nil && rapid.Bool().Draw(t, "own") {
				all := slices.Sorted(func(yield func(string) bool) {
					for c := range m.codes {
						if !yield(c) {
							return
						}
					}
				})
				code = all[rapid.IntRange(0, 2).Draw(t, "which")]
				right, used = m.codes[code], !m.codes[code]
			} else if len(gone) > 0 && rapid.Bool().Draw(t, "void") {
				code = gone[rapid.IntRange(0, len(gone)-1).Draw(t, "which")]
			}
			looked := m != nil && m.state == auth.FactorActive && !now.Before(m.next)
			got, err := node(t).UseRecoveryCode(ctx, s, code, by, now)
			attempt(t, m, got, err, right, used)
			if looked && right {
				m.codes[code] = false
				untold++
			}
		},
		"disable": func(t *rapid.T) {
			s := subject(t)
			m := apps[s]
			if m == nil {
				t.Skip("nothing to disable")
			}
			change, state, who := node(t).Enable, auth.FactorActive, ""
			if rapid.Bool().Draw(t, "off") {
				change, state, who = node(t).Disable, auth.FactorDisabled, "user"
			}
			_, _, err := change(ctx, s, m.app.id, by, now)
			if m.by == "throttle" {
				if !errors.Is(err, auth.ErrRebind) {
					t.Fatalf("what the throttle disabled: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.state != state {
				untold++
				m.state, m.by = state, who
			}
		},
		"remove": func(t *rapid.T) {
			s := subject(t)
			m := apps[s]
			if m == nil {
				t.Skip("nothing to remove")
			}
			if _, _, err := node(t).Remove(ctx, s, m.app.id, by, now); err != nil {
				t.Fatal(err)
			}
			untold++
			delete(apps, s)
		},
		"restart": func(t *rapid.T) { nodes[rapid.IntRange(0, 1).Draw(t, "node")] = open() },
		"sweep": func(t *rapid.T) {
			if _, err := node(t).Sweep(ctx, now); err != nil {
				t.Fatal(err)
			}
		},
		"told": func(t *rapid.T) {
			all, err := node(t).Untold(ctx)
			if err != nil || len(all) != untold {
				t.Fatalf("%d notices wait, %v, want %d", len(all), err, untold)
			}
			for _, n := range all {
				if err := node(t).Told(ctx, n.ID); err != nil {
					t.Fatal(err)
				}
			}
			untold = 0
		},
		"": func(t *rapid.T) {
			for _, s := range []string{"acc-1", "acc-2"} {
				want := make(map[string]string)
				for _, m := range []*modelFactor{apps[s], recovery[s]} {
					if m == nil {
						continue
					}
					left := 0
					for _, good := range m.codes {
						if good {
							left++
						}
					}
					want[m.app.id] = fmt.Sprint(m.state, m.by, m.failures, m.next.UTC(), left)
				}
				for i, n := range nodes {
					all, err := n.List(ctx, s)
					if err != nil || len(all) != len(want) {
						t.Fatalf("node %d: %d authenticators of %s, %v, want %d", i, len(all), s, err, len(want))
					}
					for _, f := range all {
						if got := fmt.Sprint(f.State, f.DisabledBy, f.Failures, f.NextAttempt.UTC(), f.CodesLeft); got != want[f.ID] {
							t.Fatalf("node %d: %s is %s, want %s", i, f.Kind, got, want[f.ID])
						}
					}
				}
			}
		},
	})
}
