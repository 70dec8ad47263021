package auth_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
)

// acted asks whether the act of an entry happened.
func (f *factorBench) acted(entry string) bool {
	f.t.Helper()
	ss, err := auth.OpenSessions(f.t.Context(), another(f.b), auth.SessionsConfig{}, start)
	if err != nil {
		f.t.Fatal(err)
	}
	got, err := ss.Acted(f.t.Context(), []string{entry})
	if err != nil {
		f.t.Fatal(err)
	}
	return got[entry]
}

// A change carries its entry; an attempt does if it was accepted.
func TestFactorActs(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		ctx := f.t.Context()
		by := func(entry string) auth.Act { return auth.Act{By: "user", Entry: entry} }
		e, err := f.BeginTOTP(ctx, "acc-1", "hanako", "phone", start)
		if err != nil {
			f.t.Fatal(err)
		}
		a, now := app{e.ID, seedOf(f.t, e)}, start
		type step struct {
			what  string
			happy bool
			do    func(auth.Act) error
		}
		k := newVirtualKey(f.t)
		var codes []string
		for i, s := range []step{
			{"a wrong first code", false, func(by auth.Act) error {
				_, _, err := f.FinishTOTP(ctx, "acc-1", e.ID, a.wrong(now), by, now)
				return err
			}},
			{"binding", true, func(by auth.Act) error {
				_, _, err := f.FinishTOTP(ctx, "acc-1", e.ID, a.code(now), by, now)
				return err
			}},
			{"a wrong code", false, func(by auth.Act) error {
				_, err := f.VerifyTOTP(ctx, "acc-1", a.wrong(now), by, now)
				return err
			}},
			{"a right code", true, func(by auth.Act) error {
				_, err := f.VerifyTOTP(ctx, "acc-1", a.code(now), by, now)
				return err
			}},
			{"a key", true, func(by auth.Act) error {
				options, err := f.BeginBindKey(ctx, "acc-1", "hanako", "key", "s", false, now)
				if err != nil {
					return err
				}
				_, _, err = f.FinishBindKey(ctx, "acc-1", "s", k.create(f.t, options), by, now)
				return err
			}},
			{"no key", false, func(by auth.Act) error {
				options, err := f.BeginBindKey(ctx, "acc-1", "hanako", "key", "s", false, now)
				if err != nil {
					return err
				}
				_, _, err = f.FinishBindKey(ctx, "acc-1", "other", k.create(f.t, options), by, now)
				return err
			}},
			{"its use", true, func(by auth.Act) error {
				_, err := f.UseKey(ctx, "acc-1", "login", k.get(f.t, f.beginKey("acc-1", "login", now)), by, now)
				return err
			}},
			{"its use for something else", false, func(by auth.Act) error {
				_, err := f.UseKey(ctx, "acc-1", "login", k.get(f.t, f.beginKey("acc-1", "x", now)), by, now)
				return err
			}},
			{"recovery codes", true, func(by auth.Act) error {
				made, _, _, err := f.ReplaceRecoveryCodes(ctx, "acc-1", by, now)
				if err == nil {
					codes = made
				}
				return err
			}},
			{"a recovery code", true, func(by auth.Act) error {
				_, err := f.UseRecoveryCode(ctx, "acc-1", codes[0], by, now)
				return err
			}},
			{"it again", false, func(by auth.Act) error {
				_, err := f.UseRecoveryCode(ctx, "acc-1", codes[0], by, now)
				return err
			}},
			{"a name", true, func(by auth.Act) error { _, _, err := f.Rename(ctx, "acc-1", a.id, "x", by, now); return err }},
			{"a name of nobody's", false, func(by auth.Act) error { _, _, err := f.Rename(ctx, "acc-1", "x", "x", by, now); return err }},
		} {
			now = now.Add(time.Minute)
			entry := "node/" + string(rune('a'+i))
			if err := s.do(by(entry)); (err == nil) != s.happy {
				f.t.Errorf("%s: %v", s.what, err)
			}
			if got := f.acted(entry); got != s.happy {
				f.t.Errorf("%s: the act happened: %v, want %v", s.what, got, s.happy)
			}
			if s.happy {
				now = now.Add(time.Minute)
				if err := s.do(by(entry)); err == nil {
					f.t.Errorf("%s: happened twice with one entry", s.what)
				}
			}
			if err := s.do(by("no entry")); err == nil {
				f.t.Errorf("%s: took %q for an entry", s.what, "no entry")
			}
		}
		if err := func() error { _, _, err := f.Rename(ctx, "acc-1", a.id, "y", by("node/l"), now); return err }(); !errors.Is(err, auth.ErrActed) {
			f.t.Errorf("the entry of another change: %v", err)
		}
		// The code whose entry was taken was not used up.
		now = now.Add(time.Hour)
		if _, err := f.VerifyTOTP(ctx, "acc-1", a.code(now), by("node/l"), now); !errors.Is(err, auth.ErrActed) {
			f.t.Errorf("a code with the entry of another change: %v", err)
		}
		f.try("acc-1", a.code(now), now, auth.AttemptAccepted)
	})
}

// The answer to a commit is lost: whoever asks later learns what happened, the code
// is used up, and what the owner is to be told is there.
func TestFactorCommitIsLost(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		f := &factorBench{t: t, b: d, cfg: factorsConfig()}
		f.reopen()
		a := f.bindTOTP("acc-1", start)
		f.wantUntold(auth.FactorBound)
		ctx := t.Context()
		lose := func(commit func() error) error {
			if err := commit(); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}
		d.during(lose, func() {
			got, err := f.VerifyTOTP(ctx, "acc-1", a.code(start), auth.Act{Entry: "node/1"}, start)
			if !errors.Is(err, auth.ErrUncertain) || errors.Is(err, auth.ErrWrongCode) || got.Outcome != "" {
				t.Errorf("got %+v, %v", got, err)
			}
			if _, err := f.VerifyTOTP(ctx, "acc-1", a.wrong(start), auth.Act{Entry: "node/2"}, start); !errors.Is(err, auth.ErrUncertain) || errors.Is(err, auth.ErrWrongCode) {
				t.Errorf("a wrong code: %v", err)
			}
			if _, n, err := f.Disable(ctx, "acc-1", a.id, auth.Act{By: "user", Entry: "node/3"}, start); !errors.Is(err, auth.ErrUncertain) || n.ID != "" {
				t.Errorf("disabling: %+v, %v", n, err)
			}
		})
		for entry, want := range map[string]bool{"node/1": true, "node/2": false, "node/3": true} {
			if got := f.acted(entry); got != want {
				t.Errorf("%s happened: %v, want %v", entry, got, want)
			}
		}
		// As after a crash: the notice waits.
		d.close()
		f.reopen()
		f.wantUntold(auth.FactorWasDisabled)
		if got := f.only("acc-1"); got.State != auth.FactorDisabled || !got.Used.Equal(start) || got.Failures != 1 {
			t.Errorf("stored %+v", got)
		}
		if _, _, err := f.Enable(ctx, "acc-1", a.id, auth.Act{By: "user"}, start); err != nil {
			t.Fatal(err)
		}
		f.try("acc-1", a.code(start), start, auth.AttemptReplayed)
	})
}

// Nothing was committed: the code is good still, no attempt is counted, and nobody
// is told.
func TestFactorCommitFails(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		f := &factorBench{t: t, b: d, cfg: factorsConfig()}
		f.reopen()
		a := f.bindTOTP("acc-1", start)
		k := newVirtualKey(t)
		f.bindKey("acc-2", k)
		f.wantUntold(auth.FactorBound, auth.FactorBound)
		answer := k.get(t, f.beginKey("acc-2", "login", start))
		refuse := func(func() error) error { return context.DeadlineExceeded }
		d.during(refuse, func() {
			for _, code := range []string{a.code(start), a.wrong(start)} {
				if _, err := f.VerifyTOTP(t.Context(), "acc-1", code, auth.Act{Entry: "node/1"}, start); err == nil || errors.Is(err, auth.ErrWrongCode) {
					t.Errorf("without a commit: %v", err)
				}
			}
			if _, err := f.UseKey(t.Context(), "acc-2", "login", answer, auth.Act{}, start); err == nil || errors.Is(err, auth.ErrWrongCode) {
				t.Errorf("without a commit: %v", err)
			}
			if _, _, err := f.Remove(t.Context(), "acc-1", a.id, auth.Act{}, start); err == nil {
				t.Error("removed without a commit")
			}
		})
		d.close()
		f.reopen()
		if f.acted("node/1") {
			t.Error("the act happened")
		}
		if got := f.only("acc-1"); got.Failures != 0 {
			t.Errorf("stored %+v", got)
		}
		f.wantUntold()
		f.try("acc-1", a.code(start), start, auth.AttemptAccepted)
		f.useKey("acc-2", "login", answer, start, auth.AttemptAccepted)
	})
}
