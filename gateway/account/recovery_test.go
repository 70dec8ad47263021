package account_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/account"
)

const lost = account.LostPath

// recover begins a recovery and waits until its code is mailed.
func (b *bench) recover(p auth.Person) (code string) {
	b.t.Helper()
	v := b.hold(p)
	b.submit(b.get(lost, v), lost, v).want(http.StatusSeeOther, lost)
	b.now = b.now.Add(b.policy.Recovery.Wait)
	if err := b.Ripen(b.t.Context(), b.now); err != nil {
		b.t.Fatal(err)
	}
	ready := b.mails("recovery.ready")
	if len(ready) == 0 {
		b.t.Fatal("no code was mailed")
	}
	return ready[0].Values["code"]
}

func TestRecovery(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		old := b.bindApp(p.Subject)
		codes := b.bindCodes(p.Subject)
		b.session(p, "Stolen phone")

		v := b.hold(p)
		b.submit(b.get(lost, v).says("After 3 days", "h•••@acme.example", "h•••@home.example"), lost, v).want(http.StatusSeeOther, lost)
		b.get(lost, v).says("Recovery has begun", "Saturday 28 November 2026, 12:04 (JST, UTC+09:00)")
		begun := b.mails("recovery.begun")
		var to []string
		for _, n := range begun {
			to = append(to, n.To)
			if n.Values["until"] != "2026-11-28T03:04:00Z" || !strings.HasPrefix(n.Values["url"], origin+account.CancelPath+"?t=") {
				t.Errorf("message %+v", n.Values)
			}
		}
		if slices.Sort(to); !slices.Equal(to, []string{"hanako@acme.example", "hanako@home.example"}) {
			t.Errorf("told at %q, want every address", to)
		}
		// Beginning again, as a reload does, begins nothing.
		b.post(lost, v).want(http.StatusSeeOther, lost)
		if got := b.happened(); !slices.Equal(got, []string{"act.recovery.begin"}) {
			t.Errorf("on record: %q", got)
		}
		// Until the time is over there is no code, and nothing to type one into.
		b.now = b.now.Add(b.policy.Recovery.Wait - time.Microsecond)
		if err := b.Ripen(t.Context(), b.now); err != nil {
			t.Fatal(err)
		}
		if len(b.mails("recovery.ready")) > 0 {
			t.Error("a code before its time")
		}
		early := b.hold(p)
		b.post(lost+"/code", early, "code", codes[0]).want(http.StatusSeeOther, lost)

		// Two nodes: one of them mails it, to one address.
		b.now = b.now.Add(time.Microsecond)
		var nodes sync.WaitGroup
		for range 8 {
			nodes.Go(func() {
				if err := b.Ripen(t.Context(), b.now); err != nil {
					t.Error(err)
				}
			})
		}
		nodes.Wait()
		ready := b.mails("recovery.ready")
		if len(ready) != 1 || ready[0].To != "hanako@acme.example" || ready[0].Values["until"] != "2026-11-29T03:04:00Z" {
			t.Fatalf("messages: %+v", ready)
		}
		code := ready[0].Values["code"]

		v = b.hold(p)
		page := b.get(lost, v)
		wrong := b.submit(page, "/code", v, "code", codes[0]).want(http.StatusSeeOther, lost+"?wrong=1")
		b.get(wrong.to, v).says("The code was not right")
		b.get(enrol, v).want(http.StatusSeeOther, "/.kidoban/factor")
		b.submit(page, "/code", v, "code", strings.ReplaceAll(code, "-", " ")).want(http.StatusSeeOther, enrol)

		// By itself it changes nothing, and is good for this hold only.
		b.wantFactors(p.Subject, "totp active", "recovery active")
		if b.state(v) != auth.HoldWaiting {
			t.Errorf("the hold is %s", b.state(v))
		}
		other := b.hold(p)
		b.get(enrol, other).want(http.StatusSeeOther, "/.kidoban/factor")
		b.post(lost+"/code", other, "code", code).want(http.StatusSeeOther, lost)
		b.get(lost, v).want(http.StatusSeeOther, enrol)

		// The new factor takes the place of all that were there, and sessions end.
		page = b.submit(b.get(enrol, v), enrol, v, "do", "totp")
		fresh := b.submit(page, "", v, "code", appOf(page).code(t, b.now))
		if strings.Count(fresh.body, "<li>") != 10 || strings.Contains(fresh.body, codes[0]) {
			t.Errorf("no new recovery codes: %s", fresh.body)
		}
		b.wantFactors(p.Subject, "totp active", "recovery active")
		list, err := b.Factors.List(t.Context(), p.Subject)
		if err != nil || slices.ContainsFunc(list, func(f auth.Factor) bool { return f.ID == old.ID }) {
			t.Errorf("the lost app is still there, %v", err)
		}
		if open, err := b.Sessions.OfSubject(t.Context(), p.Subject, b.now); err != nil || len(open) > 0 {
			t.Errorf("sessions go on: %v, %v", open, err)
		}
		if b.state(v) != auth.HoldApproved {
			t.Errorf("the hold is %s", b.state(v))
		}
		told := map[auth.FactorNoticeKind]int{}
		notices, err := b.Factors.Untold(t.Context())
		for _, n := range notices {
			told[n.Kind]++
		}
		if err != nil || told[auth.FactorRemoved] != 1 || told[auth.RecoveryCodesVoided] != 1 {
			t.Errorf("told: %v, %v", told, err)
		}
		// A code that came too late.
		if got := b.happened(); !slices.Equal(got, []string{"act.evidence.use", "act.factor.bind", "act.factor.remove", "act.factor.bind"}) {
			t.Errorf("on record: %q", got)
		}
	})
}

func TestRecoveryMakesRoom(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		for range 4 { // as many apps as there can be
			b.bindApp(p.Subject)
		}
		code := b.recover(p)
		v := b.hold(p)
		b.post(lost+"/code", v, "code", code).want(http.StatusSeeOther, enrol)
		page := b.submit(b.get(enrol, v), enrol, v, "do", "totp")
		b.submit(page, "", v, "code", appOf(page).code(t, b.now))
		b.wantFactors(p.Subject, "totp active", "recovery active")
	})
}

func TestRecoveryIsStopped(t *testing.T) {
	for how, stop := range map[string]func(b *bench, p auth.Person){
		"on the account page": func(b *bench, p auth.Person) {
			v := b.session(p, "Firefox")
			for _, path := range []string{"", "/factors", "/codes", "/devices", "/sessions", "/history", "/nowhere"} {
				b.get(account.AccountPath+path, v).says("Somebody has begun to recover this account", "28 November 2026, 12:04")
			}
			done := b.submit(b.get(account.AccountPath+"/history", v), "/recovery/cancel", v).want(http.StatusSeeOther, account.AccountPath+"?done=cancelled")
			if page := b.get(done.to, v).says("The recovery was stopped"); page.hasForm("/recovery/cancel") {
				b.t.Error("it can be stopped again")
			}
			b.post(account.AccountPath+"/recovery/cancel", v).want(http.StatusSeeOther, account.AccountPath+"?done=cancelled")
		},
		"by the mailed link": func(b *bench, p auth.Person) {
			link := b.link("recovery.begun")
			nobody := account.Visit{Language: b.lang, CSRF: "link"}
			for range 2 { // scanners open links
				b.get(link, nobody).says("Stop the recovery?")
			}
			if open, err := b.Slips.Open(b.t.Context(), p.Subject, b.now); err != nil || len(open) != 1 {
				b.t.Fatalf("opening the link stopped it: %v, %v", open, err)
			}
			// Neither the id nor another link stops it.
			open, _ := b.Slips.Open(b.t.Context(), p.Subject, b.now)
			for _, token := range []string{open[0].ID, "x", strings.Repeat("A", 52)} {
				b.post(account.CancelPath+"?t="+token, nobody).says("There is nothing to stop")
			}
			b.submit(b.get(link, nobody), link, nobody).says("The recovery was stopped", "change it now")
			b.post(link, nobody).says("There is nothing to stop")
		},
		"at the place of the link, signed in": func(b *bench, p auth.Person) {
			v := b.session(p, "Firefox")
			b.submit(b.get(account.CancelPath, v), account.CancelPath, v).says("The recovery was stopped")
			b.post(account.CancelPath, v).says("There is nothing to stop")
		},
		"after the code was mailed": func(b *bench, p auth.Person) {
			b.now = b.now.Add(b.policy.Recovery.Wait)
			if err := b.Ripen(b.t.Context(), b.now); err != nil {
				b.t.Fatal(err)
			}
			b.post(b.link("recovery.begun"), account.Visit{Language: b.lang}).says("The recovery was stopped")
			v := b.hold(p)
			b.post(lost+"/code", v, "code", b.mails("recovery.ready")[0].Values["code"]).want(http.StatusSeeOther, lost)
			b.get(enrol, v).want(http.StatusSeeOther, "/.kidoban/factor")
		},
	} {
		t.Run(how, func(t *testing.T) {
			eachBench(t, func(t *testing.T, b *bench) {
				p := b.learn("hanako")
				b.bindApp(p.Subject)
				v := b.hold(p)
				b.post(lost, v).want(http.StatusSeeOther, lost)
				b.happened()
				stop(b, p)
				if got := b.happened(); !slices.Equal(got, []string{"act.recovery.cancel"}) {
					t.Errorf("on record: %q", got)
				}
				if got := len(b.mails("recovery.cancelled")); got != 2 {
					t.Errorf("%d messages that it was stopped, want one to each address", got)
				}
				mailed := len(b.mails("recovery.ready"))
				b.now = b.now.Add(b.policy.Recovery.Wait)
				if err := b.Ripen(t.Context(), b.now); err != nil {
					t.Fatal(err)
				}
				if len(b.mails("recovery.ready")) > mailed {
					t.Error("a code was mailed after it was stopped")
				}
			})
		})
	}
}

// TestRecoveriesAreFew: whoever has the password cannot fill the owner's mailbox.
func TestRecoveriesAreFew(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		b.bindApp(p.Subject)
		for range 3 {
			b.post(lost, b.hold(p)).want(http.StatusSeeOther, lost)
			b.post(account.CancelPath, b.session(p, "x")).says("stopped")
			b.now = b.now.Add(time.Hour)
		}
		if a := b.post(lost, b.hold(p)); a.code != http.StatusTooManyRequests {
			t.Errorf("the fourth in a day: %d", a.code)
		}
		if got := len(b.mails("recovery.begun")); got != 6 {
			t.Errorf("%d messages", got)
		}
	})
}

func TestNoRecovery(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		b.get(lost, b.hold(p)).want(http.StatusSeeOther, enrol) // it has no factor to lose
		b.bindApp(p.Subject)
		b.get(lost, b.session(p, "x")).want(http.StatusSeeOther, account.AccountPath)
		b.Mailing = false
		b.get(lost, b.hold(p)).says("none can be used")
		b.post(lost, b.hold(p)).want(http.StatusSeeOther, lost)
		if len(b.happened()) > 0 {
			t.Error("a recovery began that nobody is told of")
		}
		b.Mailing = true

		// Told before it begins: a record that is away keeps it from beginning.
		b.fail = errors.New("away")
		if a := b.post(lost, b.hold(p)); a.code != http.StatusServiceUnavailable {
			t.Errorf("%d", a.code)
		}
		b.fail = nil
		if open, err := b.Slips.Open(t.Context(), p.Subject, b.now); err != nil || len(open) > 0 {
			t.Errorf("a recovery off the record: %v, %v", open, err)
		}

		// An account whose address is gone does not keep others from their codes.
		b.post(lost, b.hold(p)).want(http.StatusSeeOther, lost)
		taro := b.learn("taro")
		b.bindApp("taro")
		b.post(lost, b.hold(taro)).want(http.StatusSeeOther, lost)
		if _, err := b.Directory.Learn(t.Context(), auth.Person{Subject: "hanako", Mail: []string{"nowhere"}}, [16]byte{}, b.now); err != nil {
			t.Fatal(err)
		}
		b.now = b.now.Add(b.policy.Recovery.Wait)
		if err := b.Ripen(t.Context(), b.now); err == nil {
			t.Error("nobody learns that a code could not be mailed")
		}
		if err := b.Ripen(t.Context(), b.now); err != nil {
			t.Error(err)
		}
		var to []string
		for _, n := range b.mails("recovery.ready") {
			to = append(to, n.To)
		}
		if !slices.Equal(to, []string{"taro@acme.example"}) {
			t.Errorf("codes to %q", to)
		}
	})
}

// TestRecoveryForgetsTheThief: whoever has the old phone gets nothing by what he gave
// before: not by a login that only waits to be released, nor by a remembered device.
func TestRecoveryForgetsTheThief(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		p, other := b.learn("hanako"), b.learn("jiro")
		b.bindApp(p.Subject)
		for _, who := range []auth.Person{p, other} {
			if err := b.Slips.Remember(ctx, who.Subject, "device", b.now.Add(20*24*time.Hour), b.now); err != nil {
				t.Fatal(err)
			}
		}
		code := b.recover(p)
		thief, waiting, stranger := b.hold(p), b.hold(p), b.hold(other)
		if _, err := b.Holds.Approve(ctx, thief.For, auth.Approval{AAL: 2, FactorKind: auth.TOTP}, auth.Act{By: account.ByOwner}, b.now); err != nil {
			t.Fatal(err)
		}
		v := b.hold(p)
		b.submit(b.get(lost, v), "/code", v, "code", code).want(http.StatusSeeOther, enrol)
		page := b.submit(b.get(enrol, v), enrol, v, "do", "totp")
		b.submit(page, "", v, "code", appOf(page).code(t, b.now))
		for _, want := range []struct {
			what  string
			visit account.Visit
			state auth.HoldState
		}{
			{"the thief's", thief, auth.HoldExpired}, {"another one", waiting, auth.HoldExpired},
			{"the owner's", v, auth.HoldApproved}, {"somebody else's", stranger, auth.HoldWaiting},
		} {
			got, err := b.Holds.ByID(ctx, want.visit.For, b.now)
			if err != nil && !errors.Is(err, auth.ErrHoldOver) || got.State != want.state {
				t.Errorf("%s login is %s, %v; want %s", want.what, got.State, err, want.state)
			}
		}
		for _, who := range []auth.Person{p, other} {
			got, err := b.Slips.Remembers(ctx, who.Subject, "device", b.now)
			if err != nil || got != (who.Subject == other.Subject) {
				t.Errorf("%s remembers the device: %v, %v", who.Subject, got, err)
			}
		}
		b.happened()
	})
}
