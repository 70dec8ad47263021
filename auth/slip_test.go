package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/auth"
)

// slipFor is a slip of the account of each purpose that has a secret at once.
var slipFor = map[auth.SlipPurpose]auth.Slip{
	auth.SlipConfirm:   {Subject: "acc-1", Purpose: auth.SlipConfirm, For: "hold-1"},
	auth.SlipEnrolLink: {Subject: "acc-1", Purpose: auth.SlipEnrolLink},
	auth.SlipEnrolCode: {Subject: "acc-1", Purpose: auth.SlipEnrolCode},
}

// use uses a slip as whoever has the secret does.
func (h *holdBench) use(s auth.Slip, secret, usedFor string, by auth.Act, now time.Time) (auth.Slip, error) {
	if s.Purpose == auth.SlipEnrolLink {
		return h.slips.UseToken(h.t.Context(), s.Purpose, secret, usedFor, by, now)
	}
	return h.slips.Use(h.t.Context(), s.Purpose, s.Subject, s.For, secret, usedFor, by, now)
}

// Each works once, in its time to the microsecond, and its act is on record then.
func TestSlips(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx, node := h.t.Context(), h.other()
		for purpose, s := range slipFor {
			got, secret, err := h.slips.Issue(ctx, s, auth.Act{By: "operator", Entry: string(purpose) + "/1"}, start)
			if err != nil {
				h.t.Fatal(err)
			}
			lasts := day
			if purpose == auth.SlipConfirm {
				lasts = 10 * time.Minute
			}
			want := s
			want.ID, want.By, want.Created, want.NotBefore, want.Expires = got.ID, "operator", start, start, start.Add(lasts)
			if diff := cmp.Diff(want, got); diff != "" || !h.factors.acted(string(purpose)+"/1") {
				h.t.Errorf("%s: issued (-want +got):\n%s", purpose, diff)
			}
			if form := map[auth.SlipPurpose]int{auth.SlipConfirm: 8, auth.SlipEnrolLink: 43, auth.SlipEnrolCode: 34}[purpose]; len(secret) != form {
				h.t.Errorf("%s: a secret of %d characters, want %d", purpose, len(secret), form)
			}
			if open, err := node.slips.Open(ctx, "acc-1", start); err != nil || len(open) != 1 || cmp.Diff(got, open[0]) != "" {
				h.t.Errorf("%s: open %+v, %v", purpose, open, err)
			}
			if _, err := h.use(got, secret, "x", auth.Act{}, start.Add(lasts)); !errors.Is(err, auth.ErrWrongCode) {
				h.t.Errorf("%s: when it is over: %v", purpose, err)
			}
			if open, err := h.slips.Open(ctx, "acc-1", start.Add(lasts)); err != nil || len(open) > 0 {
				h.t.Errorf("%s: open when it is over: %+v, %v", purpose, open, err)
			}
			at := start.Add(lasts - time.Microsecond)
			used, err := node.use(got, secret, "session-1", auth.Act{Entry: string(purpose) + "/2"}, at)
			want.Used, want.UsedFor = at, "session-1"
			if diff := cmp.Diff(want, used); err != nil || diff != "" || !h.factors.acted(string(purpose)+"/2") {
				h.t.Errorf("%s: used: %v (-want +got):\n%s", purpose, err, diff)
			}
			if _, err := h.use(got, secret, "session-1", auth.Act{Entry: string(purpose) + "/3"}, at); !errors.Is(err, auth.ErrWrongCode) || h.factors.acted(string(purpose)+"/3") {
				h.t.Errorf("%s: again: %v", purpose, err)
			}
			// One that is made anew makes the one before void.
			_, old, err := h.slips.Issue(ctx, s, auth.Act{}, start)
			if err != nil {
				h.t.Fatal(err)
			}
			latest, fresh, err := h.slips.Issue(ctx, s, auth.Act{}, start.Add(time.Second))
			if err != nil {
				h.t.Fatal(err)
			}
			if _, err := h.use(latest, old, "x", auth.Act{}, start.Add(time.Second)); !errors.Is(err, auth.ErrWrongCode) {
				h.t.Errorf("%s: one that was replaced: %v", purpose, err)
			}
			if _, err := h.use(latest, fresh, "x", auth.Act{}, start); !errors.Is(err, auth.ErrWrongCode) {
				h.t.Errorf("%s: before its time: %v", purpose, err)
			}
			cancelled, err := h.slips.Cancel(ctx, latest.ID, auth.Act{By: "owner", Entry: string(purpose) + "/4"}, start.Add(time.Minute))
			if err != nil || !cancelled.Cancelled.Equal(start.Add(time.Minute)) || !h.factors.acted(string(purpose)+"/4") {
				h.t.Errorf("%s: cancelled %+v, %v", purpose, cancelled, err)
			}
			if _, err := h.use(latest, fresh, "x", auth.Act{}, start.Add(time.Minute)); !errors.Is(err, auth.ErrWrongCode) {
				h.t.Errorf("%s: one that was cancelled: %v", purpose, err)
			}
			for _, id := range []string{latest.ID, used.ID, "x", "", "a\x00"} {
				if _, err := h.slips.Cancel(ctx, id, auth.Act{Entry: string(purpose) + "/5"}, start.Add(time.Minute)); !errors.Is(err, auth.ErrNoSlip) || h.factors.acted(string(purpose)+"/5") {
					h.t.Errorf("%s: cancelled %q: %v", purpose, id, err)
				}
			}
		}
	})
}

func TestIssueRefuses(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		link := slipFor[auth.SlipEnrolLink]
		for name, spoil := range map[string]func(*auth.Slip){
			"no subject":               func(s *auth.Slip) { s.Subject = "" },
			"no purpose":               func(s *auth.Slip) { s.Purpose = "" },
			"for":                      func(s *auth.Slip) { s.For = strings.Repeat("a", 257) },
			"by":                       func(s *auth.Slip) { s.By = "a\x00" },
			"in the past":              func(s *auth.Slip) { s.NotBefore = start.Add(-1 * time.Microsecond) },
			"far ahead":                func(s *auth.Slip) { s.NotBefore = start.Add(31 * day) },
			"for long":                 func(s *auth.Slip) { s.Expires = start.Add(31 * day) },
			"over":                     func(s *auth.Slip) { s.Expires = start },
			"confirmation of nothing":  func(s *auth.Slip) { s.Purpose = auth.SlipConfirm },
			"confirmation for long":    func(s *auth.Slip) { s.Purpose, s.For, s.Expires = auth.SlipConfirm, "x", start.Add(11*time.Minute) },
			"recovery without a delay": func(s *auth.Slip) { s.Purpose = auth.SlipRecovery },
		} {
			s := link
			spoil(&s)
			if _, _, err := h.slips.Issue(h.t.Context(), s, auth.Act{}, start); err == nil {
				h.t.Errorf("%s: want an error", name)
			}
		}
		if open, err := h.slips.Open(h.t.Context(), "acc-1", start); err != nil || len(open) > 0 {
			h.t.Errorf("open %+v, %v", open, err)
		}
	})
}

// A link may be looked at before it is used, by scanners of mail too.
func TestPeek(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		secret := h.issue(slipFor[auth.SlipEnrolLink], start)
		for range 3 {
			if got, err := h.slips.Peek(ctx, auth.SlipEnrolLink, secret, start); err != nil || got.Subject != "acc-1" || !got.Used.IsZero() {
				h.t.Errorf("got %+v, %v", got, err)
			}
		}
		for _, bad := range []struct {
			purpose auth.SlipPurpose
			token   string
			at      time.Time
		}{{auth.SlipEnrolLink, strings.Repeat("A", 43), start}, {auth.SlipEnrolLink, "", start}, {auth.SlipEnrolCode, secret, start}, {auth.SlipEnrolLink, secret, start.Add(day)}} {
			if _, err := h.slips.Peek(ctx, bad.purpose, bad.token, bad.at); !errors.Is(err, auth.ErrWrongCode) {
				h.t.Errorf("%+v: %v", bad, err)
			}
		}
		if _, err := h.slips.UseToken(ctx, auth.SlipEnrolLink, secret, "x", auth.Act{}, start); err != nil {
			h.t.Error(err)
		}
		if _, err := h.slips.Peek(ctx, auth.SlipEnrolLink, secret, start); !errors.Is(err, auth.ErrWrongCode) {
			h.t.Errorf("after its use: %v", err)
		}
	})
}

// Failures in a row delay from the fifth and stop at the twentieth, whatever slips
// are made meanwhile; a success sets them back.
func TestSlipThrottle(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx, now := h.t.Context(), start
		s := slipFor[auth.SlipEnrolCode]
		s.Expires = start.Add(29 * day)
		secret := h.issue(s, now)
		wrong := func() {
			h.t.Helper()
			if _, err := h.use(s, auth.RecoveryText([16]byte{1}), "x", auth.Act{}, now); !errors.Is(err, auth.ErrWrongCode) || errors.Is(err, auth.ErrMalformedCode) {
				h.t.Errorf("a wrong one: %v", err)
			}
		}
		waits := func(rest time.Duration) { // and the last moment of it
			h.t.Helper()
			now = now.Add(rest - time.Microsecond)
			if _, err := h.use(s, secret, "x", auth.Act{}, now); !errors.Is(err, auth.ErrWrongCode) {
				h.t.Errorf("a right one while it waits: %v", err)
			}
			now = now.Add(time.Microsecond)
		}
		for range 10 { // what nobody's code can be is not counted
			if _, err := h.use(s, "0000", "x", auth.Act{}, now); !errors.Is(err, auth.ErrMalformedCode) {
				h.t.Errorf("no code: %v", err)
			}
		}
		for range 4 {
			wrong()
		}
		secret = h.issue(s, now) // resets nothing
		delay := 30 * time.Second
		for range 15 {
			wrong()
			waits(delay)
			delay = min(2*delay, time.Hour)
			secret = h.issue(s, now)
		}
		wrong() // the twentieth
		waits(day)
		wrong()
		waits(day)
		if _, err := h.use(s, secret, "x", auth.Act{}, now); err != nil {
			h.t.Errorf("a right one in the end: %v", err)
		}
		secret = h.issue(s, now)
		for range 4 {
			wrong()
		}
		// Another purpose and another account have counts of their own.
		if _, err := h.use(s, secret, "x", auth.Act{}, now); err != nil {
			h.t.Errorf("after four: %v", err)
		}
		for range 20 {
			_, _ = h.slips.Use(ctx, auth.SlipEnrolCode, "acc-2", "", auth.RecoveryText([16]byte{1}), "x", auth.Act{}, now)
		}
		secret = h.issue(s, now)
		if _, err := h.use(s, secret, "x", auth.Act{}, now); err != nil {
			h.t.Errorf("after failures of another account: %v", err)
		}
	})
}

// A right one a hundred times at once, on two nodes, and a hundred wrong ones.
func TestSlipsAtOnce(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		nodes := []*holdBench{h, h.other()}
		for purpose, s := range slipFor {
			secret := h.issue(s, start)
			hold, _ := h.begin("acc-1", start)
			var wins atomic.Int64
			var all sync.WaitGroup
			for i := range 100 {
				all.Go(func() {
					_, err := nodes[i%2].use(s, secret, hold.ID, auth.Act{Approve: &auth.Approval{Hold: hold.ID, AAL: 1}}, start)
					switch {
					case err == nil:
						wins.Add(1)
					case !errors.Is(err, auth.ErrWrongCode) && !errors.Is(err, auth.ErrHoldOver):
						h.t.Error(err)
					}
				})
			}
			all.Wait()
			if wins.Load() != 1 {
				h.t.Errorf("%s: %d of 100 won, want one", purpose, wins.Load())
			}
			h.wantState(hold.ID, start, auth.HoldApproved)
		}
		s := slipFor[auth.SlipConfirm]
		secret := h.issue(s, start)
		wrong := fmt.Sprintf("%08d", (int(secret[7]-'0')+1)%10)
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if _, err := nodes[i%2].use(s, wrong, "x", auth.Act{}, start); !errors.Is(err, auth.ErrWrongCode) {
					h.t.Error(err)
				}
			})
		}
		all.Wait()
		// Five were looked at: 30 s later one more may be.
		if _, err := h.use(s, secret, "x", auth.Act{}, start.Add(30*time.Second-time.Microsecond)); !errors.Is(err, auth.ErrWrongCode) {
			h.t.Errorf("while it waits: %v", err)
		}
		if _, err := h.use(s, secret, "x", auth.Act{}, start.Add(30*time.Second)); err != nil {
			h.t.Errorf("after: %v", err)
		}
	})
}

// A recovery waits, can be cancelled meanwhile, and gets its secret once.
func TestRecovery(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx, nodes := h.t.Context(), []*holdBench{h, h.other()}
		due := start.Add(3 * day)
		s := auth.Slip{Subject: "acc-1", Purpose: auth.SlipRecovery, NotBefore: due}
		got, secret, err := h.slips.Issue(ctx, s, auth.Act{}, start)
		if err != nil || secret != "" {
			h.t.Fatal(secret, err)
		}
		dues := func(at time.Time, want ...string) {
			h.t.Helper()
			all, err := h.slips.Due(ctx, auth.SlipRecovery, at, 10)
			var ids []string
			for _, s := range all {
				ids = append(ids, s.ID)
			}
			if diff := cmp.Diff(want, ids); err != nil || diff != "" {
				h.t.Errorf("due: %v (-want +got):\n%s", err, diff)
			}
		}
		dues(due.Add(-time.Microsecond))
		if _, _, err := h.slips.Ripen(ctx, got.ID, 0, due.Add(-time.Microsecond)); !errors.Is(err, auth.ErrNoSlip) {
			h.t.Errorf("before it is due: %v", err)
		}
		dues(due, got.ID)
		for _, ttl := range []time.Duration{-1, day + 1} {
			if _, _, err := h.slips.Ripen(ctx, got.ID, ttl, due); err == nil || errors.Is(err, auth.ErrNoSlip) {
				h.t.Errorf("for %v: %v", ttl, err)
			}
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		var secrets []string
		for i := range 20 {
			all.Go(func() {
				ripe, secret, err := nodes[i%2].slips.Ripen(ctx, got.ID, day, due)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && ripe.Expires.Equal(due.Add(day)):
					secrets = append(secrets, secret)
				case !errors.Is(err, auth.ErrNoSlip):
					h.t.Error(ripe, err)
				}
			})
		}
		all.Wait()
		if len(secrets) != 1 {
			h.t.Fatalf("%d secrets, want one", len(secrets))
		}
		dues(due)
		if _, err := h.use(got, secrets[0], "x", auth.Act{}, due.Add(day)); !errors.Is(err, auth.ErrWrongCode) {
			h.t.Errorf("a day later: %v", err)
		}
		if _, err := h.use(got, strings.ToLower(secrets[0]), "x", auth.Act{}, due.Add(day-time.Microsecond)); err != nil {
			h.t.Errorf("in time: %v", err)
		}
		got, _, err = h.slips.Issue(ctx, s, auth.Act{}, start)
		if err != nil {
			h.t.Fatal(err)
		}
		if open, err := h.slips.Open(ctx, "acc-1", start); err != nil || len(open) != 1 {
			h.t.Errorf("open %+v, %v", open, err)
		}
		if _, err := h.slips.Cancel(ctx, got.ID, auth.Act{By: "owner"}, start.Add(day)); err != nil {
			h.t.Error(err)
		}
		dues(due)
		if _, _, err := h.slips.Ripen(ctx, got.ID, 0, due); !errors.Is(err, auth.ErrNoSlip) {
			h.t.Errorf("one that was cancelled: %v", err)
		}
		if _, _, err := h.slips.Ripen(ctx, "x", 0, due); !errors.Is(err, auth.ErrNoSlip) {
			h.t.Errorf("none: %v", err)
		}
	})
}

// Evidence is for the session or hold that it was given for, of the account whose it
// was, for half an hour.
func TestEvidence(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		want := func(what, id string, at time.Time, want bool) {
			h.t.Helper()
			if got, err := h.slips.Evidence(ctx, id, at); err != nil || got != want {
				h.t.Errorf("%s: got %v, %v, want %v", what, got, err, want)
			}
		}
		for purpose, s := range slipFor {
			mine, _ := h.begin("acc-1", start)
			victims, _ := h.begin("acc-2", start)
			session, _, err := h.sessions.Begin(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, nil, start)
			if err != nil {
				h.t.Fatal(err)
			}
			is := purpose != auth.SlipConfirm // proves nothing but the mailbox of a login
			for what, test := range map[string]struct {
				id string
				is bool
			}{"a hold": {mine.ID, is}, "a session": {session.ID, is}, "a hold of another account": {victims.ID, false}, "what there is not": {"x", false}} {
				want(what, test.id, start, false)
				if _, err := h.use(s, h.issue(s, start), test.id, auth.Act{}, start); err != nil {
					h.t.Fatal(err)
				}
				what = string(purpose) + " for " + what
				want(what, test.id, start.Add(30*time.Minute-time.Microsecond), test.is)
				want(what+" later", test.id, start.Add(30*time.Minute), false)
			}
		}
		want("nothing", "", start, false)
		want("no text", "a\x00", start, false)
	})
}

// An account has 32 open slips of a purpose at most, and what is long over goes.
func TestSlipsAreBounded(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		for i := range 40 {
			h.issue(auth.Slip{Subject: "acc-1", Purpose: auth.SlipConfirm, For: fmt.Sprint("hold-", i)}, start.Add(time.Duration(i)*time.Second))
		}
		at := start.Add(time.Minute)
		open, err := h.slips.Open(ctx, "acc-1", at)
		if err != nil || len(open) != 32 || open[0].For != "hold-39" || open[31].For != "hold-8" {
			h.t.Errorf("%d are open, %v, want the latest 32", len(open), err)
		}
		over := start.Add(39*time.Second + 10*time.Minute)
		for _, test := range []struct {
			at   time.Time
			want int
		}{{over, 0}, {over.Add(30 * day), 39}, {over.Add(30*day + time.Microsecond), 1}} {
			if n, err := h.slips.Sweep(ctx, test.at); err != nil || n != test.want {
				h.t.Errorf("%v: %d were forgotten, %v, want %d", test.at, n, err, test.want)
			}
		}
	})
}

// What is lost on the way happened or not, as a whole.
func TestSlipCommits(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		h := newHoldBench(t, d, auth.HoldsConfig{})
		for purpose, s := range slipFor {
			secret := h.issue(s, start)
			hold, _ := h.begin("acc-1", start)
			act := auth.Act{Entry: string(purpose) + "/1", Approve: &auth.Approval{Hold: hold.ID, AAL: 1}}
			d.during(func(func() error) error { return context.DeadlineExceeded }, func() {
				if _, err := h.use(s, secret, hold.ID, act, start); err == nil || errors.Is(err, auth.ErrWrongCode) {
					t.Errorf("%s, without a commit: %v", purpose, err)
				}
			})
			d.close()
			h.reopen()
			h.wantState(hold.ID, start, auth.HoldWaiting)
			if h.factors.acted(act.Entry) {
				t.Errorf("%s: the act happened", purpose)
			}
			d.during(func(commit func() error) error {
				if err := commit(); err != nil {
					return err
				}
				return io.ErrUnexpectedEOF
			}, func() {
				if _, err := h.use(s, secret, hold.ID, act, start); !errors.Is(err, auth.ErrUncertain) {
					t.Errorf("%s, with a commit that is lost: %v", purpose, err)
				}
			})
			d.close()
			h.reopen()
			h.wantState(hold.ID, start, auth.HoldApproved)
			if !h.factors.acted(act.Entry) {
				t.Errorf("%s: the act did not happen", purpose)
			}
			if _, err := h.use(s, secret, hold.ID, auth.Act{}, start); !errors.Is(err, auth.ErrWrongCode) {
				t.Errorf("%s, again: %v", purpose, err)
			}
		}
	})
}

// Whether there is a slip or not, an attempt takes the same statements.
func TestSlipsCostTheSame(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		h := newHoldBench(t, d, auth.HoldsConfig{})
		h.issue(auth.Slip{Subject: "acc-1", Purpose: auth.SlipEnrolCode}, start)
		try := func(subject string) int64 {
			return d.counted(func() {
				if _, err := h.slips.Use(t.Context(), auth.SlipEnrolCode, subject, "", auth.RecoveryText([16]byte{1}), "x", auth.Act{}, start); !errors.Is(err, auth.ErrWrongCode) {
					t.Error(err)
				}
			})
		}
		try("acc-1")
		for i := range 7 { // those that wait too
			if with, without := try("acc-1"), try(fmt.Sprint("acc-", i+2)); with != without {
				t.Errorf("attempt %d: %d statements with a slip, %d without", i, with, without)
			}
		}
	})
}
