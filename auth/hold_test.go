package auth_test

import (
	"bytes"
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

// heldAnswer is what the backend said.
var heldAnswer = []byte("HTTP/1.1 302 Found\r\nSet-Cookie: session=secret-of-the-backend\r\n\r\n")

// holdBench is Holds under test, with the sessions and factors beside it.
type holdBench struct {
	t   *testing.T
	b   backing
	cfg auth.HoldsConfig
	*auth.Holds
	sessions *auth.Sessions
	factors  *factorBench
	slips    *auth.Slips
}

func eachHolds(t *testing.T, cfg auth.HoldsConfig, run func(*holdBench)) {
	eachStore(t, func(t *testing.T, b backing) { run(newHoldBench(t, b, cfg)) })
}

func newHoldBench(t *testing.T, b backing, cfg auth.HoldsConfig) *holdBench {
	h := &holdBench{t: t, b: b, cfg: cfg}
	h.reopen()
	return h
}

func (h *holdBench) reopen() {
	h.t.Helper()
	h.b.open()
	*h = *h.other()
}

// other is another node on the same store.
func (h *holdBench) other() *holdBench {
	h.t.Helper()
	o := &holdBench{t: h.t, b: h.b, cfg: h.cfg}
	var err error
	if o.Holds, err = auth.OpenHolds(h.t.Context(), another(h.b), newSeal(), h.cfg, start); err != nil {
		h.t.Fatal(err)
	}
	if o.sessions, err = auth.OpenSessions(h.t.Context(), another(h.b), auth.SessionsConfig{}, start); err != nil {
		h.t.Fatal(err)
	}
	if o.slips, err = auth.OpenSlips(h.t.Context(), another(h.b), start); err != nil {
		h.t.Fatal(err)
	}
	o.factors = &factorBench{t: h.t, b: h.b, cfg: factorsConfig()}
	o.factors.Factors = o.factors.other()
	return o
}

// aHold is a login of an account as the gateway holds it.
func aHold(subject string, cookies ...string) auth.Hold {
	return auth.Hold{
		Need: auth.NeedFactor, Subject: subject, Organization: "org-7", Device: "5F4XAXTQPXX4LJ2BTUFW7ZIJLQ",
		Client: "Firefox on Windows", ClientKind: "browser", Fingerprint: [16]byte{1, 2, 3}, Network: "203.0.113.0/24", Source: "203.0.113.7",
		Country: "JP", Attempt: [16]byte{9}, Route: "/login?next=%2Froom", Method: "POST", Return: "/room", Credentials: creds("cookie", cookies...),
	}
}

func (h *holdBench) begin(subject string, now time.Time, cookies ...string) (auth.Hold, string) {
	h.t.Helper()
	got, token, err := h.Begin(h.t.Context(), aHold(subject, cookies...), heldAnswer, now)
	if err != nil {
		h.t.Fatal(err)
	}
	return got, token
}

func (h *holdBench) approve(id string, now time.Time) auth.Hold {
	h.t.Helper()
	got, err := h.Approve(h.t.Context(), id, auth.Approval{AAL: 2, FactorKind: auth.TOTP}, auth.Act{By: "user"}, now)
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

// release begins a session of the hold.
func (h *holdBench) release(id, subject string, now time.Time) (auth.Session, error) {
	s, _, err := h.sessions.BeginAct(h.t.Context(), auth.Session{Kind: auth.BrowserSession, Subject: subject, AAL: 2}, nil, auth.Act{Release: id}, now)
	return s, err
}

// wantState compares the state of a hold, also as another node sees it, and what is
// left of its answer.
func (h *holdBench) wantState(id string, now time.Time, want auth.HoldState) auth.Hold {
	h.t.Helper()
	var wantErr, wantAnswer error
	if want == auth.HoldExpired {
		wantErr = auth.ErrHoldOver
	}
	if want != auth.HoldWaiting && want != auth.HoldApproved {
		wantAnswer = auth.ErrHoldOver
	}
	got, err := h.ByID(h.t.Context(), id, now)
	if got.State != want || !errors.Is(err, wantErr) {
		h.t.Errorf("hold is %q, %v, want %q, %v", got.State, err, want, wantErr)
	}
	answer, err := h.Answer(h.t.Context(), id)
	if want == auth.HoldExpired && got.Ended.IsZero() {
		return got // it is there until a sweep
	}
	if !errors.Is(err, wantAnswer) || wantAnswer == nil && !bytes.Equal(answer, heldAnswer) {
		h.t.Errorf("answer of a hold that is %q: %q, %v, want %v", got.State, answer, err, wantAnswer)
	}
	return got
}

func (h *holdBench) sweep(now time.Time, want int) {
	h.t.Helper()
	if got, err := h.Sweep(h.t.Context(), now); err != nil || got != want {
		h.t.Errorf("sweep: %d ended, %v, want %d", got, err, want)
	}
}

func TestOpenHoldsRefuses(t *testing.T) {
	for name, cfg := range map[string]auth.HoldsConfig{
		"For": {For: -1}, "KeepFor": {KeepFor: -1}, "PerSubject": {PerSubject: -1}, "Max": {Max: -1}, "CodeTries": {CodeTries: -1},
	} {
		if _, err := auth.OpenHolds(t.Context(), auth.NewMemoryStore(), newSeal(), cfg, start); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := auth.OpenHolds(t.Context(), auth.NewMemoryStore(), auth.FactorSeal{}, auth.HoldsConfig{}, start); err == nil {
		t.Error("opened without a seal")
	}
}

func TestBeginHold(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		in := aHold("acc-1", "a", "b", "a")
		in.State, in.Matched, in.AAL, in.Approved, in.ApprovedBy, in.Ended = auth.HoldApproved, true, 2, start, "me", start // nobody's to say
		got, token, err := h.Begin(ctx, in, heldAnswer, start.Add(999*time.Nanosecond))
		if err != nil {
			h.t.Fatal(err)
		}
		want := aHold("acc-1", "a", "b")
		for i := range want.Credentials {
			want.Credentials[i].Since = start
		}
		want.ID, want.Code, want.State, want.Created, want.Expires = got.ID, got.Code, auth.HoldWaiting, start, start.Add(10*time.Minute)
		if diff := cmp.Diff(want, got); diff != "" || len(got.ID) != 26 {
			h.t.Errorf("began (-want +got):\n%s", diff)
		}
		h.reopen()
		for name, look := range map[string]func() (auth.Hold, error){
			"token": func() (auth.Hold, error) { return h.ByToken(ctx, token, start) },
			"id":    func() (auth.Hold, error) { return h.ByID(ctx, got.ID, start) },
			"credential": func() (auth.Hold, error) {
				return h.ByCredential(ctx, "cookie", auth.HashCredential("cookie", "b"), start)
			},
			"the last moment": func() (auth.Hold, error) { return h.ByID(ctx, got.ID, got.Expires.Add(-time.Microsecond)) },
		} {
			if stored, err := look(); err != nil || cmp.Diff(got, stored) != "" {
				h.t.Errorf("by %s: %v\n%s", name, err, cmp.Diff(got, stored))
			}
		}
		for name, list := range map[string]func() ([]auth.Hold, error){
			"attempt": func() ([]auth.Hold, error) { return h.ByAttempt(ctx, [16]byte{9}, start) },
			"subject": func() ([]auth.Hold, error) { return h.OfSubject(ctx, "acc-1", start) },
		} {
			if all, err := list(); err != nil || len(all) != 1 || cmp.Diff(got, all[0]) != "" {
				h.t.Errorf("by %s: %+v, %v", name, all, err)
			}
		}
		if answer, err := h.Answer(ctx, got.ID); err != nil || !bytes.Equal(answer, heldAnswer) {
			h.t.Errorf("answer: %q, %v", answer, err)
		}
		other := strings.Repeat("A", 43)
		for name, err := range map[string]error{
			"another token":      second(h.ByToken(ctx, other, start)),
			"no token":           second(h.ByToken(ctx, token+"A", start)),
			"another id":         second(h.ByID(ctx, "x", start)),
			"no id":              second(h.ByID(ctx, "a\x00", start)),
			"another credential": second(h.ByCredential(ctx, "cookie", auth.HashCredential("cookie", "c"), start)),
			"another kind":       second(h.ByCredential(ctx, "bearer", auth.HashCredential("cookie", "a"), start)),
			"no kind":            second(h.ByCredential(ctx, "a\x00", auth.HashCredential("cookie", "a"), start)),
			"another answer":     second(h.Answer(ctx, "x")),
			"no answer":          second(h.Answer(ctx, "a\xff")),
			"another need":       second(h.Need(ctx, "x", auth.NeedConfirm, start)),
			"another denial":     second(h.Deny(ctx, "x", auth.Act{}, start)),
			"no denial":          second(h.Deny(ctx, "a\x00", auth.Act{}, start)),
			"another code":       second(h.TypeCode(ctx, "x", got.Code, start)),
		} {
			if !errors.Is(err, auth.ErrNoHold) {
				h.t.Errorf("%s: got %v, want %v", name, err, auth.ErrNoHold)
			}
		}
		for _, list := range []func() ([]auth.Hold, error){
			func() ([]auth.Hold, error) { return h.ByAttempt(ctx, [16]byte{}, start) },
			func() ([]auth.Hold, error) { return h.ByAttempt(ctx, [16]byte{8}, start) },
			func() ([]auth.Hold, error) { return h.OfSubject(ctx, "acc-2", start) },
			func() ([]auth.Hold, error) { return h.OfSubject(ctx, "a\x00", start) },
			func() ([]auth.Hold, error) { return h.History(ctx, "acc-1", 10) },
			func() ([]auth.Hold, error) { return h.History(ctx, "a\x00", 10) },
		} {
			if all, err := list(); err != nil || len(all) > 0 {
				h.t.Errorf("got %+v, %v", all, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestBeginHoldRefuses(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		for name, spoil := range map[string]func(*auth.Hold){
			"no subject":  func(o *auth.Hold) { o.Subject = "" },
			"no need":     func(o *auth.Hold) { o.Need = "" },
			"other need":  func(o *auth.Hold) { o.Need = "sms" },
			"client":      func(o *auth.Hold) { o.Client = "a\x00" },
			"long client": func(o *auth.Hold) { o.Client = strings.Repeat("語", 321) },
			"source":      func(o *auth.Hold) { o.Source = "a\xff" },
			"route":       func(o *auth.Hold) { o.Route = strings.Repeat("a", 8<<10+1) },
			"return":      func(o *auth.Hold) { o.Return = "\x00" },
			"kind":        func(o *auth.Hold) { o.Credentials = creds("a\x00", "a") },
			"credentials": func(o *auth.Hold) { o.Credentials = creds("cookie", strings.Split(strings.Repeat("a", 17), "")...) },
		} {
			o := aHold("acc-1")
			spoil(&o)
			if _, _, err := h.Begin(h.t.Context(), o, nil, start); err == nil {
				h.t.Errorf("%s: want an error", name)
			}
		}
		if _, _, err := h.Begin(h.t.Context(), aHold("acc-1"), make([]byte, 1<<20+1), start); err == nil {
			h.t.Error("a very long answer: want an error")
		}
		first, _ := h.begin("acc-1", start)
		again := aHold("acc-1")
		again.ID = first.ID
		if _, _, err := h.Begin(h.t.Context(), again, nil, start); err == nil {
			h.t.Error("an id that is taken: want an error")
		}
		if got := h.openCount(); got != 1 {
			h.t.Errorf("%d holds are open, want one", got)
		}
	})
}

// openCount is how many holds are open, as Max counts them; in SQL it must be what
// there are.
func (h *holdBench) openCount() int {
	h.t.Helper()
	d, ok := h.b.(*database)
	if !ok {
		all, err := h.OfSubject(h.t.Context(), "acc-1", start)
		if err != nil {
			h.t.Fatal(err)
		}
		return len(all)
	}
	var counted, there int
	if err := d.db.QueryRow(`SELECT holds, (SELECT COUNT(*) FROM auth_holds WHERE ended = 0) FROM auth_holds_open`).Scan(&counted, &there); err != nil || counted != there {
		h.t.Errorf("%d holds are counted and %d are open (%v)", counted, there, err)
	}
	return counted
}

// A state and what can be done in it: every other thing is ErrHoldOver, and changes
// nothing.
func TestHoldStates(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		late := start.Add(10 * time.Minute)
		states := map[auth.HoldState]func(id string){
			auth.HoldWaiting:  func(string) {},
			auth.HoldApproved: func(id string) { h.approve(id, start) },
			auth.HoldReleased: func(id string) {
				h.approve(id, start)
				if _, err := h.release(id, "acc-1", start); err != nil {
					h.t.Error(err)
				}
			},
			auth.HoldDenied: func(id string) {
				if _, err := h.Deny(ctx, id, auth.Act{By: "owner"}, start); err != nil {
					h.t.Error(err)
				}
			},
			auth.HoldExpired: func(string) { h.sweep(late, 1) },
		}
		for from, make := range states {
			for name, act := range map[string]struct {
				do   func(o auth.Hold, now time.Time) error
				from []auth.HoldState
				to   auth.HoldState
			}{
				"code": {func(o auth.Hold, now time.Time) error { return second(h.TypeCode(ctx, o.ID, o.Code, now)) }, []auth.HoldState{auth.HoldWaiting}, auth.HoldWaiting},
				"need": {func(o auth.Hold, now time.Time) error { return second(h.Need(ctx, o.ID, auth.NeedEnrol, now)) }, []auth.HoldState{auth.HoldWaiting}, auth.HoldWaiting},
				"approve": {func(o auth.Hold, now time.Time) error {
					return second(h.Approve(ctx, o.ID, auth.Approval{Hold: o.ID, AAL: 1}, auth.Act{}, now))
				}, []auth.HoldState{auth.HoldWaiting}, auth.HoldApproved},
				"release":           {func(o auth.Hold, now time.Time) error { return second(h.release(o.ID, "acc-1", now)) }, []auth.HoldState{auth.HoldApproved}, auth.HoldReleased},
				"release elsewhere": {func(o auth.Hold, now time.Time) error { return second(h.release(o.ID, "acc-2", now)) }, nil, ""},
				"deny":              {func(o auth.Hold, now time.Time) error { return second(h.Deny(ctx, o.ID, auth.Act{By: "owner"}, now)) }, []auth.HoldState{auth.HoldWaiting, auth.HoldApproved}, auth.HoldDenied},
			} {
				o, _ := h.begin("acc-1", start, "a")
				make(o.ID)
				before, _ := h.ByID(ctx, o.ID, start)
				if err := act.do(o, late); !errors.Is(err, auth.ErrHoldOver) {
					h.t.Errorf("%s of a hold that is %s and over: %v", name, from, err)
				}
				if got, _ := h.ByID(ctx, o.ID, start); cmp.Diff(before, got) != "" {
					h.t.Errorf("%s of a hold that is %s and over changed it:\n%s", name, from, cmp.Diff(before, got))
				}
				err := act.do(o, late.Add(-time.Microsecond))
				if slices.Contains(act.from, from) {
					if err != nil {
						h.t.Errorf("%s of a hold that is %s: %v", name, from, err)
					}
					h.wantState(o.ID, start, act.to)
				} else {
					if !errors.Is(err, auth.ErrHoldOver) {
						h.t.Errorf("%s of a hold that is %s: %v", name, from, err)
					}
					if got, _ := h.ByID(ctx, o.ID, start); cmp.Diff(before, got) != "" {
						h.t.Errorf("%s of a hold that is %s changed it:\n%s", name, from, cmp.Diff(before, got))
					}
				}
				if err := second(h.Deny(ctx, o.ID, auth.Act{}, start)); err != nil && !errors.Is(err, auth.ErrHoldOver) {
					h.t.Error(err)
				}
				if got := h.openCount(); got != 0 {
					h.t.Errorf("%d holds are open, want none", got)
				}
				if _, err := h.ByCredential(ctx, "cookie", auth.HashCredential("cookie", "a"), start); !errors.Is(err, auth.ErrNoHold) {
					h.t.Errorf("a credential of a hold that ended: %v", err)
				}
			}
		}
	})
}

// What was done is told by the hold.
func TestHoldIsDone(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx, later := h.t.Context(), start.Add(time.Minute)
		o, token := h.begin("acc-1", start, "a")
		if got, err := h.Need(ctx, o.ID, auth.NeedConfirm, start); err != nil || got.Need != auth.NeedConfirm {
			h.t.Errorf("got %+v, %v", got, err)
		}
		for _, bad := range []auth.Approval{
			{Hold: "x", AAL: 2, FactorKind: auth.Key}, {AAL: 0}, {AAL: 4, FactorKind: auth.Key}, {AAL: 2}, {AAL: 1, FactorKind: "sms"}, {AAL: 1, By: "a\x00"},
		} {
			if _, err := h.Approve(ctx, o.ID, bad, auth.Act{}, start); err == nil || errors.Is(err, auth.ErrHoldOver) {
				h.t.Errorf("%+v: %v", bad, err)
			}
		}
		if _, err := h.Need(ctx, o.ID, "sms", start); err == nil {
			h.t.Error("took a need that there is not")
		}
		got, err := h.Approve(ctx, o.ID, auth.Approval{AAL: 2, FactorKind: auth.Key}, auth.Act{By: "operator jiro"}, later)
		want := o
		want.Need, want.State, want.AAL, want.FactorKind, want.Approved, want.ApprovedBy = auth.NeedConfirm, auth.HoldApproved, 2, auth.Key, later, "operator jiro"
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			h.t.Errorf("approved: %v (-want +got):\n%s", err, diff)
		}
		if stored, err := h.ByToken(ctx, token, later); err != nil || cmp.Diff(got, stored) != "" {
			h.t.Errorf("stored: %v\n%s", err, cmp.Diff(got, stored))
		}
		s, err := h.release(o.ID, "acc-1", later)
		if err != nil {
			h.t.Fatal(err)
		}
		if _, err := h.sessions.OfSubject(ctx, "acc-1", later); err != nil || s.AAL != 2 {
			h.t.Errorf("session %+v, %v", s, err)
		}
		want.State, want.Ended, want.EndedBy, want.Credentials = auth.HoldReleased, later, "release", nil
		if stored, err := h.ByToken(ctx, token, later.Add(day)); err != nil || cmp.Diff(want, stored) != "" {
			h.t.Errorf("released: %v\n%s", err, cmp.Diff(want, stored))
		}
		o, _ = h.begin("acc-1", later, "a")
		got, err = h.Deny(ctx, o.ID, auth.Act{By: "owner"}, later)
		want = o
		want.State, want.Ended, want.EndedBy = auth.HoldDenied, later, "owner"
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			h.t.Errorf("denied: %v, with what it held (-want +got):\n%s", err, diff)
		}
		h.factors.wantUntold(auth.HoldWasDenied)
		if all, err := h.History(ctx, "acc-1", 10); err != nil || len(all) != 2 || all[0].State != auth.HoldDenied || all[1].State != auth.HoldReleased {
			h.t.Errorf("history %+v, %v", all, err)
		}
		if all, err := h.History(ctx, "acc-1", 1); err != nil || len(all) != 1 || all[0].ID != o.ID {
			h.t.Errorf("the last of it %+v, %v", all, err)
		}
		if all, err := h.History(ctx, "acc-1", 0); err != nil || len(all) > 0 {
			h.t.Errorf("none of it: %+v, %v", all, err)
		}
	})
}

// The latest hold of a credential and pair, and none whose time is over.
func TestHoldsOfOneBrowser(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx := h.t.Context()
		hash := auth.HashCredential("cookie", "anonymous")
		var ids []string
		for i := range 20 {
			o, _ := h.begin(fmt.Sprint("acc-", i), start.Add(time.Duration(i)*time.Second), "anonymous")
			ids = append(ids, o.ID)
		}
		at := start.Add(time.Minute)
		if got, err := h.ByCredential(ctx, "cookie", hash, at); err != nil || got.ID != ids[19] {
			h.t.Errorf("got %s, %v, want the last one, %s", got.ID, err, ids[19])
		}
		all, err := h.ByAttempt(ctx, [16]byte{9}, at)
		if err != nil || len(all) != 16 || all[0].ID != ids[19] || all[15].ID != ids[4] {
			h.t.Errorf("got %d holds, %v, want the latest 16", len(all), err)
		}
		if _, err := h.Deny(ctx, ids[19], auth.Act{}, at); err != nil {
			h.t.Fatal(err)
		}
		h.approve(ids[18], at)
		if got, err := h.ByCredential(ctx, "cookie", hash, at); err != nil || got.ID != ids[18] || got.State != auth.HoldApproved {
			h.t.Errorf("got %s, %v, want %s", got.ID, err, ids[18])
		}
		late := start.Add(10*time.Minute + 5*time.Second)
		if all, err := h.ByAttempt(ctx, [16]byte{9}, late); err != nil || len(all) != 13 || all[0].ID != ids[18] {
			h.t.Errorf("got %d holds, %v, want 13", len(all), err)
		}
		if _, err := h.ByCredential(ctx, "cookie", hash, start.Add(20*time.Minute)); !errors.Is(err, auth.ErrNoHold) {
			h.t.Errorf("the credential of holds that are over: %v", err)
		}
		if all, err := h.OfSubject(ctx, "acc-18", start.Add(20*time.Minute)); err != nil || len(all) > 0 {
			h.t.Errorf("holds that are over: %+v, %v", all, err)
		}
	})
}

// A hold is over on time, to the microsecond, whether a sweep came or not. Who did
// not answer is told once, whichever node sweeps, and nobody who did.
func TestHoldsExpire(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{For: time.Minute}, func(h *holdBench) {
		ctx, node := h.t.Context(), h.other()
		waiting, token := h.begin("acc-1", start)
		approved, _ := h.begin("acc-2", start)
		denied, _ := h.begin("acc-3", start)
		h.approve(approved.ID, start)
		if _, err := h.Deny(ctx, denied.ID, auth.Act{By: "owner"}, start); err != nil {
			h.t.Fatal(err)
		}
		h.factors.wantUntold(auth.HoldWasDenied)
		end := start.Add(time.Minute)
		h.wantState(waiting.ID, end.Add(-time.Microsecond), auth.HoldWaiting)
		h.wantState(waiting.ID, end, auth.HoldExpired)
		if got, err := h.ByToken(ctx, token, end); got.ID != waiting.ID || !errors.Is(err, auth.ErrHoldOver) {
			h.t.Errorf("by token: %+v, %v", got, err)
		}
		h.sweep(end.Add(-time.Microsecond), 0)
		var ended sync.WaitGroup
		for range 10 {
			for _, n := range []*holdBench{h, node} {
				ended.Go(func() {
					if _, err := n.Sweep(ctx, end); err != nil {
						h.t.Error(err)
					}
				})
			}
		}
		ended.Wait()
		h.sweep(end, 0)
		notices, err := h.factors.Untold(ctx)
		if err != nil || len(notices) != 1 {
			h.t.Fatalf("%d notices, %v, want one", len(notices), err)
		}
		want := auth.FactorNotice{
			ID: notices[0].ID, Kind: auth.HoldUnanswered, Subject: "acc-1", Factor: waiting.ID, At: end, Client: "Firefox on Windows", Country: "JP", Source: "203.0.113.7",
		}
		if diff := cmp.Diff(want, notices[0]); diff != "" {
			h.t.Errorf("notice (-want +got):\n%s", diff)
		}
		h.wantState(waiting.ID, start, auth.HoldExpired)
		h.wantState(approved.ID, start, auth.HoldExpired)
		if _, err := h.release(approved.ID, "acc-2", start); !errors.Is(err, auth.ErrHoldOver) {
			h.t.Errorf("released what is over: %v", err)
		}
		if got := h.openCount(); got != 0 {
			h.t.Errorf("%d are open", got)
		}
		// The history is kept for a while.
		h.sweep(end.Add(30*day), 0)
		if all, err := h.History(ctx, "acc-1", 10); err != nil || len(all) != 1 || all[0].EndedBy != "expiry" || !all[0].Ended.Equal(end) {
			h.t.Errorf("history %+v, %v", all, err)
		}
		h.sweep(end.Add(30*day+time.Microsecond), 0)
		for _, subject := range []string{"acc-1", "acc-2", "acc-3"} {
			if all, err := h.History(ctx, subject, 10); err != nil || len(all) > 0 {
				h.t.Errorf("history of %s: %+v, %v", subject, all, err)
			}
		}
		if _, err := h.ByToken(ctx, token, end); !errors.Is(err, auth.ErrNoHold) {
			h.t.Errorf("what was forgotten: %v", err)
		}
	})
}

// What is nobody's looks like any other hold while it waits; nobody is told of its end,
// and nothing of it is kept.
func TestHoldsOfNobody(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{For: time.Minute, CodeTries: 1}, func(h *holdBench) {
		ctx, subject := h.t.Context(), auth.Nobody+"1"
		expired, token := h.begin(subject, start)
		denied, _ := h.begin(subject, start)
		guessed, _ := h.begin(subject, start)
		other, _ := h.begin("nobody", start)
		if _, err := h.Deny(ctx, denied.ID, auth.Act{By: "owner"}, start); err != nil {
			h.t.Fatal(err)
		}
		if _, err := h.TypeCode(ctx, guessed.ID, "BBBB-BBBB", start); !errors.Is(err, auth.ErrWrongCode) {
			h.t.Fatal(err)
		}
		h.wantState(expired.ID, start, auth.HoldWaiting)
		h.sweep(start.Add(time.Minute), 2)
		for _, id := range []string{expired.ID, denied.ID, guessed.ID} {
			if got, err := h.ByID(ctx, id, start); !errors.Is(err, auth.ErrNoHold) {
				h.t.Errorf("%+v is kept, %v", got, err)
			}
		}
		if _, err := h.ByToken(ctx, token, start); !errors.Is(err, auth.ErrNoHold) {
			h.t.Errorf("by token: %v", err)
		}
		h.wantState(other.ID, start, auth.HoldExpired) // an account of that name is one
		h.factors.wantUntold(auth.HoldUnanswered)
		if got := h.openCount(); got != 0 {
			h.t.Errorf("%d are open", got)
		}
	})
}

// More than a sweep writes at once.
func TestManyHoldsExpire(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		for i := range 501 {
			h.begin(fmt.Sprint("acc-", i), start)
		}
		h.sweep(start.Add(time.Hour), 501)
		h.sweep(start.Add(31*day), 0)
		if all, err := h.History(h.t.Context(), "acc-500", 1); err != nil || len(all) > 0 {
			h.t.Errorf("history %+v, %v", all, err)
		}
	})
}

// The oldest waiting login of an account gives way, and only that: whoever fills an
// account's places gets no more of them, and nobody else loses theirs.
func TestHoldsOfOneAccount(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{PerSubject: 3}, func(h *holdBench) {
		other, _ := h.begin("acc-2", start)
		var all []auth.Hold
		for i := range 6 {
			o, _ := h.begin("acc-1", start.Add(time.Duration(i)*time.Second))
			if i == 1 {
				h.approve(o.ID, start)
			}
			all = append(all, o)
		}
		// The second is approved, so the first and third went.
		for i, want := range []auth.HoldState{auth.HoldExpired, auth.HoldApproved, auth.HoldExpired, auth.HoldWaiting, auth.HoldWaiting, auth.HoldWaiting} {
			if got := h.wantState(all[i].ID, start, want); want == auth.HoldExpired && (got.EndedBy != "displaced" || got.Ended.IsZero()) {
				h.t.Errorf("%d: ended %v by %q", i, got.Ended, got.EndedBy)
			}
		}
		h.wantState(other.ID, start, auth.HoldWaiting)
		h.factors.wantUntold(auth.HoldUnanswered, auth.HoldUnanswered)
		h.sweep(start.Add(time.Hour), 5)
		h.factors.wantUntold(auth.HoldUnanswered, auth.HoldUnanswered, auth.HoldUnanswered, auth.HoldUnanswered)
	})
}

// Whoever has the password and begins one login after the other displaces his own,
// not the owner's, also from a few networks.
func TestHoldsOfOneNetwork(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{PerSubject: 5}, func(h *holdBench) {
		begin := func(network string, after int) auth.Hold {
			in := aHold("acc-1")
			in.Network = network
			got, _, err := h.Begin(h.t.Context(), in, heldAnswer, start.Add(time.Duration(after)*time.Second))
			if err != nil {
				h.t.Fatal(err)
			}
			return got
		}
		owner := begin("192.0.2.1/32", 0)
		for i := range 20 {
			begin([]string{"203.0.113.1/32", "203.0.113.2/32"}[i/3%2], 1+i)
		}
		h.wantState(owner.ID, start.Add(30*time.Second), auth.HoldWaiting)
		all, err := h.OfSubject(h.t.Context(), "acc-1", start.Add(30*time.Second))
		if err != nil || len(all) != 5 {
			h.t.Errorf("%d wait, %v; want 5", len(all), err)
		}
		h.factors.wantUntold(slices.Repeat([]auth.FactorNoticeKind{auth.HoldUnanswered}, 16)...)
	})
}

func TestTooManyHolds(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{PerSubject: 2, Max: 3}, func(h *holdBench) {
		ctx := h.t.Context()
		first, _ := h.begin("acc-1", start)
		h.begin("acc-1", start.Add(time.Second))
		third, _ := h.begin("acc-2", start)
		if _, _, err := h.Begin(ctx, aHold("acc-3"), nil, start); !errors.Is(err, auth.ErrTooManyHolds) {
			h.t.Errorf("one too many: %v", err)
		}
		h.begin("acc-1", start.Add(2*time.Second)) // in the place of the first
		h.wantState(first.ID, start, auth.HoldExpired)
		if _, _, err := h.Begin(ctx, aHold("acc-3"), nil, start); !errors.Is(err, auth.ErrTooManyHolds) {
			h.t.Errorf("one too many: %v", err)
		}
		h.approve(third.ID, start)
		if _, _, err := h.Begin(ctx, aHold("acc-3"), nil, start); !errors.Is(err, auth.ErrTooManyHolds) {
			h.t.Errorf("an approved one is open: %v", err)
		}
		if _, err := h.release(third.ID, "acc-2", start); err != nil {
			h.t.Fatal(err)
		}
		h.begin("acc-3", start)
		h.sweep(start.Add(time.Hour), 3)
		h.begin("acc-3", start)
	})
}

// Five tries, however many ask at once, and the code as people type it.
func TestTypeHoldCode(t *testing.T) {
	eachHolds(t, auth.HoldsConfig{}, func(h *holdBench) {
		ctx, node := h.t.Context(), h.other()
		o, _ := h.begin("acc-1", start)
		plain := strings.ReplaceAll(o.Code, "-", "")
		if len(plain) != 8 || o.Code != plain[:4]+"-"+plain[4:] || strings.Trim(plain, "BCDFGHJKLMNPQRSTVWXZ") != "" {
			h.t.Fatalf("code %q", o.Code)
		}
		wrong := "BBBB-BBBB"
		if o.Code == wrong {
			wrong = "CCCC-CCCC"
		}
		for name, typed := range map[string]func(plain string) string{
			"as shown":   func(plain string) string { return plain[:4] + "-" + plain[4:] },
			"small":      strings.ToLower,
			"in one":     func(plain string) string { return plain },
			"blanks":     func(plain string) string { return " " + plain[:4] + "  " + plain[4:] + "\n" },
			"full width": func(plain string) string { return strings.Map(func(r rune) rune { return r + 0xfee0 }, plain) },
			"kana":       func(plain string) string { return plain[:4] + "ー" + plain[4:] },
		} {
			o, _ := h.begin("acc-1", start)
			if got, err := h.TypeCode(ctx, o.ID, typed(strings.ReplaceAll(o.Code, "-", "")), start); err != nil || !got.Matched || got.State != auth.HoldWaiting {
				h.t.Errorf("%s: %+v, %v", name, got, err)
			}
			if got, err := node.ByID(ctx, o.ID, start); err != nil || !got.Matched {
				h.t.Errorf("%s is stored as %+v, %v", name, got, err)
			}
		}
		for _, malformed := range []string{"", "BBBB", "AAAA-AAAA", "BBBB-BBBBB", "0000-0000", strings.Repeat("B", 300), "BBBB\xffBBBB", "BBBB_BBBB"} {
			if _, err := h.TypeCode(ctx, o.ID, malformed, start); !errors.Is(err, auth.ErrMalformedCode) {
				h.t.Errorf("%q: %v", malformed, err)
			}
		}
		for i := range 4 {
			if got, err := h.TypeCode(ctx, o.ID, wrong, start); !errors.Is(err, auth.ErrWrongCode) || errors.Is(err, auth.ErrMalformedCode) || got.State != auth.HoldWaiting || got.Matched {
				h.t.Errorf("wrong for time %d: %+v, %v", i, got, err)
			}
		}
		if got, err := h.TypeCode(ctx, o.ID, o.Code, start); err != nil || !got.Matched {
			h.t.Errorf("right after four wrong ones: %+v, %v", got, err)
		}
		h.factors.wantUntold()
		// The count goes on: a right one in between gives no five more.
		if got, err := h.TypeCode(ctx, o.ID, wrong, start); !errors.Is(err, auth.ErrWrongCode) || got.State != auth.HoldDenied || got.EndedBy != "throttle" {
			h.t.Errorf("the fifth wrong one: %+v, %v", got, err)
		}
		if _, err := h.TypeCode(ctx, o.ID, o.Code, start); !errors.Is(err, auth.ErrHoldOver) {
			h.t.Errorf("a right one after: %v", err)
		}
		h.wantState(o.ID, start, auth.HoldDenied)
		h.factors.wantUntold(auth.HoldWasDenied)

		o, _ = h.begin("acc-1", start)
		var outcomes [2]int
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 60 {
			all.Go(func() {
				_, err := []*holdBench{h, node}[i%2].TypeCode(ctx, o.ID, wrong, start)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, auth.ErrWrongCode):
					outcomes[0]++
				case errors.Is(err, auth.ErrHoldOver):
					outcomes[1]++
				default:
					h.t.Error(err)
				}
			})
		}
		all.Wait()
		if outcomes != [2]int{5, 55} {
			h.t.Errorf("%v were looked at and refused, want 5 and 55", outcomes)
		}
		h.factors.wantUntold(auth.HoldWasDenied)
	})
}

// Codes are as likely as each other: no letter is preferred.
func TestHoldCodes(t *testing.T) {
	counts := make(map[rune]int)
	const n = 2500
	for range n {
		for _, r := range auth.NewHoldCode() {
			counts[r]++
		}
	}
	delete(counts, '-')
	want := n * 8 / 20 // 1,000, with a deviation of 31
	if len(counts) != 20 {
		t.Errorf("%d letters", len(counts))
	}
	for r, got := range counts {
		if got < want-200 || got > want+200 {
			t.Errorf("%c comes %d times of %d", r, got, want)
		}
	}
}

// What is sealed opens for its own hold only; nothing of it nor of the token is in
// the database in the clear, and nothing is left when a hold has ended.
func TestHeldAnswersAreSealed(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		h := newHoldBench(t, d, auth.HoldsConfig{})
		ctx := t.Context()
		a, token := h.begin("acc-1", start)
		b, _ := h.begin("acc-1", start)
		bind := "UPDATE auth_holds SET answer = (SELECT answer FROM auth_holds WHERE id = ?) WHERE id = ?"
		if d.dialect == "postgres" {
			bind = "UPDATE auth_holds SET answer = (SELECT answer FROM auth_holds WHERE id = $1) WHERE id = $2"
		}
		if _, err := d.db.Exec(bind, a.ID, b.ID); err != nil {
			t.Fatal(err)
		}
		if answer, err := h.Answer(ctx, b.ID); err == nil || errors.Is(err, auth.ErrHoldOver) {
			t.Errorf("another hold's answer: %q, %v", answer, err)
		}
		if answer, err := h.Answer(ctx, a.ID); err != nil || !bytes.Equal(answer, heldAnswer) {
			t.Errorf("its own: %q, %v", answer, err)
		}
		if d.dialect == "sqlite" {
			d.close()
			for _, suffix := range []string{"", "-wal"} {
				file, err := os.ReadFile(d.file + suffix)
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				for _, secret := range []string{token, "secret-of-the-backend"} {
					if bytes.Contains(file, []byte(secret)) {
						t.Errorf("the database has %q", secret)
					}
				}
			}
			h.reopen()
		}
		for _, o := range []auth.Hold{a, b} {
			if _, err := h.Deny(ctx, o.ID, auth.Act{}, start); err != nil {
				t.Fatal(err)
			}
		}
		var left int
		if err := d.db.QueryRow(`SELECT COUNT(*) FROM auth_holds WHERE answer IS NOT NULL`).Scan(&left); err != nil || left != 0 {
			t.Errorf("%d answers are left, %v", left, err)
		}
	})
}
