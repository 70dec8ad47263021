package auth_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
)

// An attempt that is accepted approves the hold, with what it was; one that is not
// does not, and no attempt is looked at for a hold that is over or another account's.
func TestAttemptsApprove(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx, f, now := h.t.Context(), h.factors, start
		a := f.bindTOTP("acc-1", start)
		k := newVirtualKey(h.t)
		f.bindKey("acc-1", k)
		codes, _, _, err := f.ReplaceRecoveryCodes(ctx, "acc-1", auth.Act{}, start)
		if err != nil {
			h.t.Fatal(err)
		}
		code := 0 // that is next
		for name, try := range map[string]struct {
			kind    auth.FactorKind
			aal     int
			subject string
			begin   func() string // a secret that is good
			wrong   func() string
			use     func(secret string, by auth.Act) error
		}{
			"app": {auth.TOTP, 2, "acc-1", func() string { return a.code(now) }, func() string { return a.wrong(now) }, func(secret string, by auth.Act) error {
				return second(f.VerifyTOTP(ctx, "acc-1", secret, by, now))
			}},
			"recovery code": {auth.RecoveryCodes, 2, "acc-1", func() string { code++; return codes[code-1] }, func() string { return auth.RecoveryText([16]byte{1}) }, func(secret string, by auth.Act) error {
				return second(f.UseRecoveryCode(ctx, "acc-1", secret, by, now))
			}},
			"key": {auth.Key, 2, "acc-1", func() string { return string(k.get(h.t, f.beginKey("acc-1", "hold", now))) }, func() string { return string(k.get(h.t, f.beginKey("acc-1", "x", now))) }, func(secret string, by auth.Act) error {
				return second(f.UseKey(ctx, "acc-1", "hold", []byte(secret), by, now))
			}},
			"app that is bound": {auth.TOTP, 2, "acc-2", func() string {
				e, err := f.BeginTOTP(ctx, "acc-2", "hanako", "phone", now)
				if err != nil {
					h.t.Fatal(err)
				}
				return e.ID + app{e.ID, seedOf(h.t, e)}.code(now)
			}, func() string {
				e, err := f.BeginTOTP(ctx, "acc-2", "hanako", "phone", now)
				if err != nil {
					h.t.Fatal(err)
				}
				return e.ID + app{e.ID, seedOf(h.t, e)}.wrong(now)
			}, func(secret string, by auth.Act) error {
				_, _, err := f.FinishTOTP(ctx, "acc-2", secret[:26], secret[26:], by, now)
				return err
			}},
			"key that is bound": {auth.Key, 2, "acc-3", func() string {
				options, err := f.BeginBindKey(ctx, "acc-3", "hanako", "key", "hold", false, now)
				if err != nil {
					h.t.Fatal(err)
				}
				return string(newVirtualKey(h.t).create(h.t, options))
			}, nil, func(secret string, by auth.Act) error {
				_, _, err := f.FinishBindKey(ctx, "acc-3", "hold", []byte(secret), by, now)
				return err
			}},
			"confirmation": {"", 1, "acc-4", func() string { return h.issue(auth.Slip{Subject: "acc-4", Purpose: auth.SlipConfirm, For: "x"}, now) }, func() string { return "00000000" }, func(secret string, by auth.Act) error {
				return second(h.slips.Use(ctx, auth.SlipConfirm, "acc-4", "x", secret, "x", by, now))
			}},
			"code of an operator": {"", 1, "acc-4", func() string { return h.issue(auth.Slip{Subject: "acc-4", Purpose: auth.SlipEnrolCode}, now) }, func() string { return auth.RecoveryText([16]byte{1}) }, func(secret string, by auth.Act) error {
				return second(h.slips.Use(ctx, auth.SlipEnrolCode, "acc-4", "", secret, "x", by, now))
			}},
			"link": {"", 1, "acc-4", func() string { return h.issue(auth.Slip{Subject: "acc-4", Purpose: auth.SlipEnrolLink}, now) }, func() string {
				return strings.Repeat("A", 43)
			}, func(secret string, by auth.Act) error {
				return second(h.slips.UseToken(ctx, auth.SlipEnrolLink, secret, "x", by, now))
			}},
		} {
			now = now.Add(5 * time.Minute)
			entry := 0
			by := func(id string, aal int) auth.Act {
				entry++
				return auth.Act{By: "hanako", Entry: name + "/" + string(rune('a'+entry)), Approve: &auth.Approval{Hold: id, AAL: aal, FactorKind: auth.RecoveryCodes}}
			}
			if try.kind == "" {
				was := by
				by = func(id string, aal int) auth.Act {
					act := was(id, aal)
					act.Approve.FactorKind = ""
					return act
				}
			}
			hold, _ := h.begin(try.subject, now)
			others, _ := h.begin("acc-9", now)
			over, _ := h.begin(try.subject, now.Add(-10*time.Minute))
			denied, _ := h.begin(try.subject, now)
			if _, err := h.Deny(ctx, denied.ID, auth.Act{}, now); err != nil {
				h.t.Fatal(err)
			}
			secret := try.begin()
			for what, act := range map[string]auth.Act{
				"another account's": by(others.ID, try.aal), "one that is over": by(over.ID, try.aal), "one that was denied": by(denied.ID, try.aal), "none": by("x", try.aal),
			} {
				if err := try.use(secret, act); !errors.Is(err, auth.ErrHoldOver) {
					h.t.Errorf("%s for %s: %v", name, what, err)
				}
			}
			for what, act := range map[string]auth.Act{
				"no AAL": by(hold.ID, 0), "AAL 4": by(hold.ID, 4), "release": {Release: hold.ID}, "no text": by("a\x00", try.aal),
			} {
				if err := try.use(secret, act); err == nil || errors.Is(err, auth.ErrWrongCode) {
					h.t.Errorf("%s with %s: %v", name, what, err)
				}
			}
			if try.kind == "" {
				if err := try.use(secret, by(hold.ID, 2)); err == nil || errors.Is(err, auth.ErrWrongCode) {
					h.t.Errorf("%s for AAL 2: %v", name, err)
				}
			}
			if try.wrong != nil {
				wrong := by(hold.ID, try.aal)
				bad := try.wrong()
				if name == "app that is bound" {
					secret = try.begin() // the one before is void
				}
				if err := try.use(bad, wrong); !errors.Is(err, auth.ErrWrongCode) && !errors.Is(err, auth.ErrBindingOver) {
					h.t.Errorf("%s, a wrong one: %v", name, err)
				}
				if f.acted(wrong.Entry) {
					h.t.Errorf("%s, a wrong one: its act is on record", name)
				}
			}
			h.wantState(hold.ID, now, auth.HoldWaiting)
			right := by(hold.ID, try.aal)
			if err := try.use(secret, right); err != nil {
				h.t.Errorf("%s: %v", name, err)
			}
			if got := h.wantState(hold.ID, now, auth.HoldApproved); got.AAL != try.aal || got.FactorKind != try.kind || !got.Approved.Equal(now) || got.ApprovedBy != "hanako" {
				h.t.Errorf("%s: approved %+v", name, got)
			}
			if !f.acted(right.Entry) {
				h.t.Errorf("%s: its act is not on record", name)
			}
			next, _ := h.begin(try.subject, now)
			if err := try.use(secret, by(next.ID, try.aal)); err == nil {
				h.t.Errorf("%s: good twice", name)
			}
			h.wantState(next.ID, now, auth.HoldWaiting)
			h.wantState(others.ID, now, auth.HoldWaiting)
		}
	})
}

// issue makes a slip and returns its secret.
func (h *holdBench) issue(s auth.Slip, now time.Time) string {
	h.t.Helper()
	_, secret, err := h.slips.Issue(h.t.Context(), s, auth.Act{By: "operator"}, now)
	if err != nil {
		h.t.Fatal(err)
	}
	return secret
}

// Acts that cannot approve or release say so.
func TestActsDoWhatTheyCan(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		o, _ := h.begin("acc-1", start)
		a := h.factors.bindTOTP("acc-1", start)
		s, _, err := h.sessions.Begin(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, nil, start)
		if err != nil {
			h.t.Fatal(err)
		}
		slip, _, err := h.slips.Issue(ctx, auth.Slip{Subject: "acc-1", Purpose: auth.SlipEnrolLink}, auth.Act{}, start)
		if err != nil {
			h.t.Fatal(err)
		}
		approve := auth.Act{By: "user", Approve: &auth.Approval{Hold: o.ID, AAL: 1}}
		for name, do := range map[string]func(auth.Act) error{
			"end":     func(by auth.Act) error { return second(h.sessions.End(ctx, s.ID, by, start)) },
			"end all": func(by auth.Act) error { return second(h.sessions.EndAll(ctx, "acc-1", by, start)) },
			"raise":   func(by auth.Act) error { _, _, err := h.sessions.Raise(ctx, s.ID, 2, auth.TOTP, by, start); return err },
			"rename":  func(by auth.Act) error { _, _, err := h.factors.Rename(ctx, "acc-1", a.id, "x", by, start); return err },
			"codes": func(by auth.Act) error {
				_, _, _, err := h.factors.ReplaceRecoveryCodes(ctx, "acc-1", by, start)
				return err
			},
			"approve": func(by auth.Act) error {
				return second(h.Approve(ctx, o.ID, auth.Approval{AAL: 1}, by, start))
			},
			"deny": func(by auth.Act) error { return second(h.Deny(ctx, o.ID, by, start)) },
			"issue": func(by auth.Act) error {
				_, _, err := h.slips.Issue(ctx, auth.Slip{Subject: "acc-1", Purpose: auth.SlipEnrolLink}, by, start)
				return err
			},
			"cancel": func(by auth.Act) error { return second(h.slips.Cancel(ctx, slip.ID, by, start)) },
		} {
			for _, by := range []auth.Act{approve, {By: "user", Release: o.ID}} {
				if err := do(by); err == nil || errors.Is(err, auth.ErrHoldOver) {
					h.t.Errorf("%s with %+v: %v", name, by, err)
				}
			}
		}
		if _, _, err := h.sessions.BeginAct(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, nil, approve, start); err == nil {
			h.t.Error("a session that approves")
		}
		h.wantState(o.ID, start, auth.HoldWaiting)
	})
}

// A hold is released into one session of its account, with its credentials, and
// into none where it is not approved.
func TestReleaseHold(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		o, _ := h.begin("acc-1", start, "a")
		entry := 0
		begin := func(subject, release string) (auth.Session, auth.Act, error) {
			entry++
			by := auth.Act{Entry: "node/" + string(rune('a'+entry)), Release: release}
			s, _, err := h.sessions.BeginAct(ctx, auth.Session{Kind: auth.BrowserSession, Subject: subject, AAL: 2, Verified: start, Factor: auth.TOTP}, o.Credentials, by, start)
			return s, by, err
		}
		refused := func(what, subject, release string) {
			h.t.Helper()
			_, by, err := begin(subject, release)
			if !errors.Is(err, auth.ErrHoldOver) {
				h.t.Errorf("%s: %v", what, err)
			}
			if h.factors.acted(by.Entry) {
				h.t.Errorf("%s: its act is on record", what)
			}
			if all, err := h.sessions.History(ctx, subject, 10); err != nil || len(all) > 0 {
				h.t.Errorf("%s: sessions %+v, %v", what, all, err)
			}
		}
		refused("not approved", "acc-1", o.ID)
		h.approve(o.ID, start)
		refused("another account's", "acc-2", o.ID)
		refused("none", "acc-1", "x")
		refused("no text", "acc-1", "a\x00")
		s, by, err := begin("acc-1", o.ID)
		if err != nil || !h.factors.acted(by.Entry) {
			h.t.Fatal(err)
		}
		h.wantState(o.ID, start, auth.HoldReleased)
		if got, err := h.sessions.ByCredential(ctx, "cookie", auth.HashCredential("cookie", "a"), start); err != nil || got.ID != s.ID {
			h.t.Errorf("the credential leads to %+v, %v", got, err)
		}
		if _, err := h.ByCredential(ctx, "cookie", auth.HashCredential("cookie", "a"), start); !errors.Is(err, auth.ErrNoHold) {
			h.t.Errorf("and to a hold: %v", err)
		}
		if _, _, err := begin("acc-1", o.ID); !errors.Is(err, auth.ErrHoldOver) {
			h.t.Errorf("again: %v", err)
		}
		if all, err := h.sessions.History(ctx, "acc-1", 10); err != nil || len(all) != 1 {
			h.t.Errorf("sessions %+v, %v", all, err)
		}
		// An entry that was carried before keeps the hold as it is.
		o, _ = h.begin("acc-1", start)
		h.approve(o.ID, start)
		if _, _, err := h.sessions.BeginAct(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, nil, auth.Act{Entry: by.Entry, Release: o.ID}, start); !errors.Is(err, auth.ErrActed) {
			h.t.Errorf("with an entry of another act: %v", err)
		}
		h.wantState(o.ID, start, auth.HoldApproved)
	})
}

// At once, on two nodes: a hundred approvals with one code, a hundred approvals of
// one hold, a hundred releases. One of each wins.
func TestHoldsAtOnce(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		nodes := []*holdBench{h, h.other()}
		a := h.factors.bindTOTP("acc-1", start)
		codes, _, _, err := h.factors.ReplaceRecoveryCodes(ctx, "acc-1", auth.Act{}, start)
		if err != nil {
			h.t.Fatal(err)
		}
		race := func(what string, try func(n *holdBench, i int) error) {
			h.t.Helper()
			var wins, losses atomic.Int64
			var all sync.WaitGroup
			for i := range 100 {
				all.Go(func() {
					switch err := try(nodes[i%2], i); {
					case err == nil:
						wins.Add(1)
					case errors.Is(err, auth.ErrHoldOver), errors.Is(err, auth.ErrWrongCode):
						losses.Add(1)
					default:
						h.t.Error(err)
					}
				})
			}
			all.Wait()
			if wins.Load() != 1 || losses.Load() != 99 {
				h.t.Errorf("%s: %d won, %d lost, want one and 99", what, wins.Load(), losses.Load())
			}
		}
		// One code for ten holds of the account: one of them is approved.
		var holds []auth.Hold
		for range 10 {
			o, _ := h.begin("acc-1", start)
			holds = append(holds, o)
		}
		race("one code, several holds", func(n *holdBench, i int) error {
			act := auth.Act{Approve: &auth.Approval{Hold: holds[i%10].ID, AAL: 2}}
			return second(n.factors.VerifyTOTP(ctx, "acc-1", a.code(start), act, start))
		})
		approved := ""
		for _, o := range holds {
			got, err := h.ByID(ctx, o.ID, start)
			if err != nil {
				h.t.Fatal(err)
			}
			if got.State == auth.HoldApproved {
				if approved != "" {
					h.t.Error("two holds were approved by one code")
				}
				approved = o.ID
			}
		}
		// Ten codes for one hold: one is used up.
		o, _ := h.begin("acc-1", start)
		race("several codes, one hold", func(n *holdBench, i int) error {
			return second(n.factors.UseRecoveryCode(ctx, "acc-1", codes[i%10], auth.Act{Approve: &auth.Approval{Hold: o.ID, AAL: 2}}, start))
		})
		all, err := h.factors.List(ctx, "acc-1")
		if err != nil {
			h.t.Fatal(err)
		}
		for _, f := range all {
			if f.Kind == auth.RecoveryCodes && (f.CodesLeft != 9 || f.Failures != 0) {
				h.t.Errorf("%d codes are left after one approval, %d failures", f.CodesLeft, f.Failures)
			}
		}
		race("release", func(n *holdBench, _ int) error { return second(n.release(approved, "acc-1", start)) })
		if live, err := h.sessions.History(ctx, "acc-1", 10); err != nil || len(live) != 1 {
			h.t.Errorf("%d sessions, %v, want one", len(live), err)
		}
		race("deny or release", func(n *holdBench, i int) error {
			if i%4 < 2 {
				return second(n.Deny(ctx, o.ID, auth.Act{By: "owner"}, start))
			}
			return second(n.release(o.ID, "acc-1", start))
		})
		got, err := h.ByID(ctx, o.ID, start)
		live, err2 := h.sessions.History(ctx, "acc-1", 10)
		if err != nil || err2 != nil || (got.State == auth.HoldReleased) != (len(live) == 2) {
			h.t.Errorf("%s with %d sessions, %v, %v", got.State, len(live), err, err2)
		}
	})
}

// The answer to a commit is lost: the hold and the code say the same, and so does
// the record.
func TestHoldCommitIsLost(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		h := newHoldBench(t, d, auth.HoldsConfig{})
		ctx := t.Context()
		a := h.factors.bindTOTP("acc-1", start)
		o, _ := h.begin("acc-1", start)
		denied, _ := h.begin("acc-1", start)
		act := func(entry string) auth.Act {
			return auth.Act{By: "hanako", Entry: entry, Approve: &auth.Approval{Hold: o.ID, AAL: 2}}
		}
		lose := func(commit func() error) error {
			if err := commit(); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}
		d.during(lose, func() {
			if _, err := h.factors.VerifyTOTP(ctx, "acc-1", a.wrong(start), act("node/1"), start); !errors.Is(err, auth.ErrUncertain) {
				t.Errorf("a wrong code: %v", err)
			}
			if _, err := h.factors.VerifyTOTP(ctx, "acc-1", a.code(start), act("node/2"), start); !errors.Is(err, auth.ErrUncertain) {
				t.Errorf("a right code: %v", err)
			}
			if _, err := h.Deny(ctx, denied.ID, auth.Act{By: "owner", Entry: "node/3"}, start); !errors.Is(err, auth.ErrUncertain) {
				t.Errorf("denying: %v", err)
			}
		})
		d.close() // as after a crash
		h.reopen()
		h.wantState(o.ID, start, auth.HoldApproved)
		h.wantState(denied.ID, start, auth.HoldDenied)
		h.factors.try("acc-1", a.code(start), start, auth.AttemptReplayed)
		h.factors.wantUntold(auth.FactorBound, auth.HoldWasDenied)
		d.during(lose, func() {
			if _, _, err := h.sessions.BeginAct(ctx, auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, nil, auth.Act{Entry: "node/4", Release: o.ID}, start); !errors.Is(err, auth.ErrUncertain) {
				t.Errorf("releasing: %v", err)
			}
		})
		d.close()
		h.reopen()
		h.wantState(o.ID, start, auth.HoldReleased)
		if all, err := h.sessions.History(ctx, "acc-1", 10); err != nil || len(all) != 1 {
			t.Errorf("sessions %+v, %v", all, err)
		}
		for entry, want := range map[string]bool{"node/1": false, "node/2": true, "node/3": true, "node/4": true} {
			if got := h.factors.acted(entry); got != want {
				t.Errorf("%s happened: %v, want %v", entry, got, want)
			}
		}
	})
}

// Nothing was committed: the code is good still, the hold waits, its answer is there,
// and nobody is told.
func TestHoldCommitFails(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		h := newHoldBench(t, d, auth.HoldsConfig{})
		ctx := t.Context()
		a := h.factors.bindTOTP("acc-1", start)
		h.factors.wantUntold(auth.FactorBound)
		o, _ := h.begin("acc-1", start)
		act := auth.Act{Entry: "node/1", Approve: &auth.Approval{Hold: o.ID, AAL: 2}}
		refuse := func(func() error) error { return context.DeadlineExceeded }
		d.during(refuse, func() {
			if _, err := h.factors.VerifyTOTP(ctx, "acc-1", a.code(start), act, start); err == nil || errors.Is(err, auth.ErrWrongCode) {
				t.Errorf("without a commit: %v", err)
			}
			if _, err := h.Sweep(ctx, start.Add(time.Hour)); err == nil {
				t.Error("swept without a commit")
			}
			if _, err := h.Deny(ctx, o.ID, auth.Act{By: "owner"}, start); err == nil {
				t.Error("denied without a commit")
			}
			if _, _, err := h.Begin(ctx, aHold("acc-2"), nil, start); err == nil {
				t.Error("began without a commit")
			}
		})
		d.close()
		h.reopen()
		h.factors.wantUntold()
		h.wantState(o.ID, start, auth.HoldWaiting)
		if h.factors.acted("node/1") {
			t.Error("the act happened")
		}
		if _, err := h.factors.VerifyTOTP(ctx, "acc-1", a.code(start), act, start); err != nil {
			t.Error(err)
		}
		d.during(refuse, func() {
			if _, err := h.release(o.ID, "acc-1", start); err == nil {
				t.Error("released without a commit")
			}
		})
		d.close()
		h.reopen()
		h.wantState(o.ID, start, auth.HoldApproved)
		if got := h.openCount(); got != 1 {
			t.Errorf("%d are open, want one", got)
		}
		if _, err := h.release(o.ID, "acc-1", start); err != nil {
			t.Error(err)
		}
	})
}
