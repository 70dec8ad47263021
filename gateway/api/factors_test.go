package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/policies"
)

// openFactors gives s what people's second factors need. Account 17 is known.
func openFactors(t *testing.T, s *server) {
	t.Helper()
	store := auth.NewMemoryStore()
	seal := auth.FactorSeal{
		Seal: func(plain, associated []byte) ([]byte, error) { return append(bytes.Clone(associated), plain...), nil },
		Open: func(sealed, associated []byte) ([]byte, error) {
			plain, ok := bytes.CutPrefix(sealed, associated)
			if !ok {
				return nil, errors.New("another one's")
			}
			return bytes.Clone(plain), nil
		},
	}
	cookieKey := bytes.Repeat([]byte{7}, 32)
	var err error
	if s.factors, err = auth.OpenFactors(t.Context(), store, seal, auth.FactorsConfig{Issuer: "Example Chat", RPID: "chat.example", Origins: []string{"https://chat.example"}}, s.at); err != nil {
		t.Fatal(err)
	}
	if s.slips, err = auth.OpenSlips(t.Context(), store, s.at); err != nil {
		t.Fatal(err)
	}
	if s.holds, err = auth.OpenHolds(t.Context(), store, seal, auth.HoldsConfig{}, s.at); err != nil {
		t.Fatal(err)
	}
	if s.devices, err = auth.OpenDevices(t.Context(), store, func() ([]byte, [][]byte) { return cookieKey, [][]byte{cookieKey} }, auth.DevicesConfig{}, s.at); err != nil {
		t.Fatal(err)
	}
}

// bind gives an account an app and returns the app's id.
func (s *server) bind(account string) string {
	s.t.Helper()
	begun, err := s.factors.BeginTOTP(s.t.Context(), account, account, "my phone", s.now())
	if err != nil {
		s.t.Fatal(err)
	}
	code, err := totp.GenerateCode(strings.ReplaceAll(begun.Secret, " ", ""), s.now())
	if err != nil {
		s.t.Fatal(err)
	}
	f, _, err := s.factors.FinishTOTP(s.t.Context(), account, begun.ID, code, auth.Act{By: "owner"}, s.now())
	if err != nil {
		s.t.Fatal(err)
	}
	return f.ID
}

// recover begins the recovery of an account.
func (s *server) recover(account string) string {
	s.t.Helper()
	slip, _, err := s.slips.Issue(s.t.Context(), auth.Slip{Purpose: auth.SlipRecovery, Subject: account, NotBefore: s.now().Add(time.Hour)}, auth.Act{By: "owner"}, s.now())
	if err != nil {
		s.t.Fatal(err)
	}
	return slip.ID
}

func (s *server) RemoveFactor(ctx context.Context, account, id, by string) (auth.Factor, error) {
	return s.change(ctx, account, id, by, s.factors.Remove)
}

func (s *server) DisableFactor(ctx context.Context, account, id, by string) (auth.Factor, error) {
	return s.change(ctx, account, id, by, s.factors.Disable)
}

func (s *server) EnableFactor(ctx context.Context, account, id, by string) (auth.Factor, error) {
	return s.change(ctx, account, id, by, s.factors.Enable)
}

func (s *server) change(ctx context.Context, account, id, by string,
	do func(context.Context, string, string, auth.Act, time.Time) (auth.Factor, auth.FactorNotice, error)) (auth.Factor, error) {
	if err := s.fault(); err != nil {
		return auth.Factor{}, err
	}
	f, _, err := do(ctx, account, id, auth.Act{By: by}, s.now())
	return f, err
}

func (s *server) IssueEnrolmentCode(ctx context.Context, account, by string) (auth.Slip, string, error) {
	if err := s.fault(); err != nil {
		return auth.Slip{}, "", err
	}
	if account != "17" {
		return auth.Slip{}, "", policies.ErrNotFound
	}
	return s.slips.Issue(ctx, auth.Slip{Purpose: auth.SlipEnrolCode, Subject: account}, auth.Act{By: by}, s.now())
}

func (s *server) CancelRecovery(ctx context.Context, account, by string) (auth.Slip, error) {
	open, err := s.Open(ctx, account, s.now())
	if err != nil {
		return auth.Slip{}, err
	}
	for _, o := range open {
		if o.Purpose == auth.SlipRecovery {
			return s.slips.Cancel(ctx, o.ID, auth.Act{By: by}, s.now())
		}
	}
	return auth.Slip{}, auth.ErrNoSlip
}

// The reads, which fail as the acts do.

func (s *server) Open(ctx context.Context, subject string, now time.Time) ([]auth.Slip, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.slips.Open(ctx, subject, now)
}

func (s *server) History(ctx context.Context, subject string, limit int) ([]auth.Session, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.sessions.History(ctx, subject, limit)
}

type factors struct{ *server }

func (f factors) List(ctx context.Context, subject string) ([]auth.Factor, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	return f.factors.List(ctx, subject)
}

type devices struct{ *server }

func (d devices) OfSubject(ctx context.Context, subject string, now time.Time) ([]auth.DeviceView, error) {
	if err := d.fault(); err != nil {
		return nil, err
	}
	return d.devices.OfSubject(ctx, subject, now)
}

type holds struct{ *server }

func (h holds) OfSubject(ctx context.Context, subject string, now time.Time) ([]auth.Hold, error) {
	if err := h.fault(); err != nil {
		return nil, err
	}
	return h.holds.OfSubject(ctx, subject, now)
}

func (h holds) History(ctx context.Context, subject string, limit int) ([]auth.Hold, error) {
	if err := h.fault(); err != nil {
		return nil, err
	}
	return h.holds.History(ctx, subject, limit)
}

// noFactors is a gate without second factors.
func noFactors(s *server) { s.api.Factors, s.api.Slips, s.api.Holds = nil, nil, nil }

func TestFactors(t *testing.T) {
	s := newServer(t)
	id := s.bind("17")
	s.bind("18")
	of := func() map[string]any {
		t.Helper()
		status, list := s.call("GET", "/v1/accounts/17/factors", "")
		all, _ := list["factors"].([]any)
		if status != 200 || len(all) != 1 {
			t.Fatalf("list = %d %v, want the one of account 17", status, list)
		}
		return all[0].(map[string]any)
	}
	if f := of(); f["id"] != id || f["kind"] != "totp" || f["state"] != "active" || f["name"] != "my phone" {
		t.Errorf("the authenticator is %v", f)
	}
	for range 2 { // doing it twice changes nothing
		if status, f := s.call("POST", "/v1/accounts/17/factors/"+id+"/disable", ""); status != 200 || f["state"] != "disabled" || f["disabled_by"] != "operator:alice" {
			t.Errorf("disable = %d %v", status, f)
		}
	}
	if status, f := s.call("POST", "/v1/accounts/17/factors/"+id+"/enable", ""); status != 200 || f["state"] != "active" || f["disabled_by"] != nil {
		t.Errorf("enable = %d %v", status, f)
	}
	for _, wrong := range []string{"/v1/accounts/18/factors/" + id, "/v1/accounts/17/factors/x"} {
		for _, call := range [][2]string{{"DELETE", wrong}, {"POST", wrong + "/disable"}, {"POST", wrong + "/enable"}} {
			if status, p := s.call(call[0], call[1], ""); status != 404 {
				t.Errorf("%s %s = %d %v, want 404", call[0], call[1], status, p)
			}
		}
	}
	// What the throttle disabled is bound anew.
	for range 20 {
		if _, err := s.factors.VerifyTOTP(t.Context(), "17", "000000", auth.Act{By: "thief"}, s.now()); err == nil {
			t.Fatal("000000 was accepted")
		}
		s.advance(2 * time.Hour)
	}
	if f := of(); f["state"] != "disabled" || f["disabled_by"] != "throttle" {
		t.Errorf("after 20 wrong codes it is %v", f)
	}
	if status, p := s.call("POST", "/v1/accounts/17/factors/"+id+"/enable", ""); status != 409 || !strings.HasSuffix(p["type"].(string), "/rebind") {
		t.Errorf("enable = %d %v, want 409 and what to do", status, p)
	}
	if status, f := s.call("DELETE", "/v1/accounts/17/factors/"+id, ""); status != 200 || f["id"] != id {
		t.Errorf("remove = %d %v", status, f)
	}
	if _, list := s.call("GET", "/v1/accounts/17/factors", ""); len(list["factors"].([]any)) != 0 {
		t.Errorf("after that there are %v", list)
	}
}

// The code of an account is in one answer, and nowhere that it is kept.
func TestEnrolmentCode(t *testing.T) {
	s := newServer(t)
	issue := func(key string) (*http.Response, map[string]any) {
		t.Helper()
		w := s.do(newCall("POST", "/v1/accounts/17/enrolment-codes", "", "Idempotency-Key", key))
		var out map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		return w.Result(), out
	}
	first, one := issue("k1")
	code, _ := one["code"].(string)
	if first.StatusCode != 201 || len(code) < 26 || one["by"] != "operator:alice" || one["subject"] != "17" || first.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("issue = %d %v %v", first.StatusCode, first.Header, one)
	}
	if strings.Contains(s.log.String(), code) {
		t.Error("the code stands in the log")
	}
	again, same := issue("k1")
	if again.StatusCode != 201 || again.Header.Get("Idempotent-Replayed") != "true" || same["code"] != nil || same["id"] != one["id"] {
		t.Errorf("issued again under the same key = %d %v, want the same without the code", again.StatusCode, same)
	}
	if _, list := s.call("GET", "/v1/accounts/17/factors", ""); len(list["slips"].([]any)) != 1 || strings.Contains(list["slips"].([]any)[0].(map[string]any)["id"].(string), code) {
		t.Errorf("open are %v, want the one", list["slips"])
	}
	if _, err := s.slips.Use(t.Context(), auth.SlipEnrolCode, "17", "", code, "hold", auth.Act{By: "owner"}, s.now()); err != nil {
		t.Errorf("the code is not good: %v", err)
	}
	// Another one takes the place of the one before.
	_, two := issue("k2")
	_, three := issue("k3")
	if _, err := s.slips.Use(t.Context(), auth.SlipEnrolCode, "17", "", two["code"].(string), "hold", auth.Act{By: "owner"}, s.now()); !errors.Is(err, auth.ErrWrongCode) {
		t.Errorf("the one before is good: %v", err)
	}
	s.advance(24 * time.Hour)
	if _, err := s.slips.Use(t.Context(), auth.SlipEnrolCode, "17", "", three["code"].(string), "hold", auth.Act{By: "owner"}, s.now()); !errors.Is(err, auth.ErrWrongCode) {
		t.Errorf("it is good for longer than a day: %v", err)
	}
	if status, p := s.call("POST", "/v1/accounts/nobody/enrolment-codes", ""); status != 404 {
		t.Errorf("for nobody = %d %v", status, p)
	}
	if status, p := s.call("POST", "/v1/accounts/17/enrolment-codes", `{"for":"18"}`); status != 400 {
		t.Errorf("with a body = %d %v", status, p)
	}
}

func TestRecoveryIsCancelled(t *testing.T) {
	s := newServer(t)
	if status, _ := s.call("POST", "/v1/accounts/17/recovery/cancel", ""); status != 404 {
		t.Errorf("where there is none = %d", status)
	}
	id := s.recover("17")
	s.recover("18")
	if _, list := s.call("GET", "/v1/accounts/17/factors", ""); len(list["slips"].([]any)) != 1 {
		t.Errorf("open are %v, want the recovery", list["slips"])
	}
	if status, slip := s.call("POST", "/v1/accounts/17/recovery/cancel", "", "Idempotency-Key", "k"); status != 200 || slip["id"] != id || slip["cancelled"] == nil {
		t.Errorf("cancel = %d %v", status, slip)
	}
	if w := s.do(newCall("POST", "/v1/accounts/17/recovery/cancel", "", "Idempotency-Key", "k")); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("again under the same key = %d %v", w.Code, w.Header())
	}
	if open, err := s.slips.Open(t.Context(), "18", s.now()); err != nil || len(open) != 1 {
		t.Errorf("another account's: %v, %v", open, err)
	}
}

func TestDevicesAndHistory(t *testing.T) {
	s := newServer(t)
	_, view, err := s.devices.Complete(t.Context(), "", "17", s.now())
	if err != nil {
		t.Fatal(err)
	}
	s.advance(25 * time.Hour)
	_, list := s.call("GET", "/v1/accounts/17/devices", "")
	all := list["devices"].([]any)
	if len(all) != 1 || all[0].(map[string]any)["id"] != view.ID || all[0].(map[string]any)["state"] != "trusted" || all[0].(map[string]any)["last"] == nil {
		t.Errorf("devices = %v", list)
	}
	for i, ends := range []bool{true, false} {
		session, _, err := s.sessions.Begin(t.Context(), auth.Session{
			Kind: auth.BrowserSession, Subject: "17", AAL: 2 - i, Factor: auth.TOTP, Verified: s.now(), Client: "Firefox on Windows", Country: "JP", Source: "203.0.113.7",
		}, nil, s.now())
		if err != nil {
			t.Fatal(err)
		}
		if ends {
			if _, err := s.sessions.End(t.Context(), session.ID, auth.Act{By: "owner"}, s.now()); err != nil {
				t.Fatal(err)
			}
		}
		h, _, err := s.holds.Begin(t.Context(), auth.Hold{
			Need: auth.NeedFactor, Subject: "17", Client: "Firefox on Windows", ClientKind: "browser", Network: "203.0.113.7/32", Source: "203.0.113.7", Country: "JP",
		}, []byte("answer"), s.now())
		if err != nil {
			t.Fatal(err)
		}
		if ends {
			if _, err := s.holds.Deny(t.Context(), h.ID, auth.Act{By: "owner"}, s.now()); err != nil {
				t.Fatal(err)
			}
		}
		s.advance(time.Second)
	}
	_, history := s.call("GET", "/v1/accounts/17/history", "")
	sessions, held := history["sessions"].([]any), history["holds"].([]any)
	if len(sessions) != 2 || sessions[0].(map[string]any)["ended"] != nil || sessions[1].(map[string]any)["ended_by"] != "owner" {
		t.Errorf("sessions = %v, want the live one and the one that ended", sessions)
	}
	if len(held) != 2 || held[0].(map[string]any)["state"] != "waiting" || held[1].(map[string]any)["state"] != "denied" {
		t.Errorf("holds = %v, want the one that waits and the one that was denied", held)
	}
	if _, history = s.call("GET", "/v1/accounts/17/history?limit=1", ""); len(history["sessions"].([]any)) != 1 || len(history["holds"].([]any)) != 1 {
		t.Errorf("of each one: %v", history)
	}
	for _, limit := range []string{"0", "101", "x"} {
		if status, _ := s.call("GET", "/v1/accounts/17/history?limit="+limit, ""); status != 422 {
			t.Errorf("limit=%s: %d", limit, status)
		}
	}
}

// Without second factors the API says so, and what to do; what needs none goes on.
func TestNoFactors(t *testing.T) {
	s := newServer(t, noFactors)
	for _, call := range [][2]string{
		{"GET", "/v1/accounts/17/factors"}, {"DELETE", "/v1/accounts/17/factors/x"}, {"POST", "/v1/accounts/17/factors/x/disable"},
		{"POST", "/v1/accounts/17/factors/x/enable"}, {"POST", "/v1/accounts/17/enrolment-codes"}, {"POST", "/v1/accounts/17/recovery/cancel"},
	} {
		if status, p := s.call(call[0], call[1], ""); status != 409 || !strings.HasSuffix(p["type"].(string), "/no-factors") || !strings.Contains(p["detail"].(string), "origin") {
			t.Errorf("%s %s = %d %v", call[0], call[1], status, p)
		}
	}
	for _, target := range []string{"/v1/accounts/17/devices", "/v1/accounts/17/history"} {
		if status, p := s.call("GET", target, ""); status != 200 {
			t.Errorf("GET %s = %d %v", target, status, p)
		}
	}
}

// Viewers see, and change nothing.
func TestViewersChangeNoFactors(t *testing.T) {
	s := newServer(t)
	id := s.bind("17")
	as := []string{"Authorization", "Bearer " + viewerKey}
	for _, call := range [][2]string{
		{"DELETE", "/v1/accounts/17/factors/" + id}, {"POST", "/v1/accounts/17/factors/" + id + "/disable"}, {"POST", "/v1/accounts/17/factors/" + id + "/enable"},
		{"POST", "/v1/accounts/17/enrolment-codes"}, {"POST", "/v1/accounts/17/recovery/cancel"},
	} {
		if status, p := s.call(call[0], call[1], "", as...); status != 403 {
			t.Errorf("%s %s = %d %v", call[0], call[1], status, p)
		}
	}
	for _, what := range []string{"factors", "devices", "history"} {
		if status, p := s.call("GET", "/v1/accounts/17/"+what, "", as...); status != 200 {
			t.Errorf("%s = %d %v", what, status, p)
		}
	}
}
