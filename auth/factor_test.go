package auth_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pquerna/otp"

	"github.com/kidoban/kidoban/auth"
)

// newSeal seals with AES-GCM, as a keyring would.
func newSeal() auth.FactorSeal {
	block, err := aes.NewCipher(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		panic(err)
	}
	box, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return auth.FactorSeal{
		Seal: func(plain, associated []byte) ([]byte, error) { return box.Seal(nil, nil, plain, associated), nil },
		Open: func(sealed, associated []byte) ([]byte, error) { return box.Open(nil, nil, sealed, associated) },
	}
}

func factorsConfig() auth.FactorsConfig {
	return auth.FactorsConfig{Issuer: "Chat", RPID: "chat.example", Origins: []string{"https://chat.example", "https://www.chat.example:8443"}}
}

type factorBench struct {
	t *testing.T
	*auth.Factors
	b   backing
	cfg auth.FactorsConfig
}

func eachFactors(t *testing.T, run func(*factorBench)) {
	eachFactorsWith(t, factorsConfig(), run)
}

func eachFactorsWith(t *testing.T, cfg auth.FactorsConfig, run func(*factorBench)) {
	eachStore(t, func(t *testing.T, b backing) {
		f := &factorBench{t: t, b: b, cfg: cfg}
		f.reopen()
		run(f)
	})
}

func openFactors(ctx context.Context, s auth.FactorStore, cfg auth.FactorsConfig) (*auth.Factors, error) {
	return auth.OpenFactors(ctx, s, newSeal(), cfg, start)
}

func (f *factorBench) reopen() {
	f.t.Helper()
	f.b.open()
	f.Factors = f.other()
}

// other is another node on the same store.
func (f *factorBench) other() *auth.Factors {
	f.t.Helper()
	fs, err := openFactors(f.t.Context(), another(f.b), f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return fs
}

// app is the owner's app.
type app struct {
	id   string
	seed []byte
}

func seedOf(t interface{ Fatal(...any) }, e auth.TOTPEnrolment) []byte {
	u, err := url.Parse(e.URI)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// code is what the app shows at a time.
func (a app) code(at time.Time) string {
	code, err := auth.CodeOf(a.seed, at.Unix()/30, otp.DigitsSix, otp.AlgorithmSHA1)
	if err != nil {
		panic(err)
	}
	return code
}

// wrong is a code that the app does not show at a time, nor shortly before or after.
func (a app) wrong(at time.Time) string {
	for i := range 10 {
		code := fmt.Sprintf("%06d", 111111*i)
		if code != a.code(at) && code != a.code(at.Add(-30*time.Second)) && code != a.code(at.Add(30*time.Second)) {
			return code
		}
	}
	panic("all codes are right")
}

// bindTOTP binds an app of which one code, that of an hour before at, is used.
func (f *factorBench) bindTOTP(subject string, at time.Time) app {
	f.t.Helper()
	at = at.Add(-time.Hour)
	e, err := f.BeginTOTP(f.t.Context(), subject, "hanako@acme.example", "phone", at)
	if err != nil {
		f.t.Fatal(err)
	}
	a := app{e.ID, seedOf(f.t, e)}
	if _, _, err := f.FinishTOTP(f.t.Context(), subject, e.ID, a.code(at), auth.Act{By: "user"}, at); err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *factorBench) try(subject, code string, at time.Time, want auth.AttemptOutcome) auth.Attempt {
	f.t.Helper()
	got, err := f.VerifyTOTP(f.t.Context(), subject, code, auth.Act{By: "user"}, at)
	f.wantOutcome(got, err, want)
	return got
}

func (f *factorBench) wantOutcome(got auth.Attempt, err error, want auth.AttemptOutcome) {
	f.t.Helper()
	if got.Outcome != want || (err == nil) != (want == auth.AttemptAccepted) || err != nil && err.Error() != auth.ErrWrongCode.Error() {
		f.t.Errorf("got %q, %v, want %q", got.Outcome, err, want)
	}
}

func (f *factorBench) only(subject string) auth.Factor {
	f.t.Helper()
	all, err := f.List(f.t.Context(), subject)
	if err != nil || len(all) != 1 {
		f.t.Fatalf("got %d authenticators, %v, want one", len(all), err)
	}
	return all[0]
}

// wantUntold compares the kinds of notices that wait, and takes them.
func (f *factorBench) wantUntold(want ...auth.FactorNoticeKind) {
	f.t.Helper()
	all, err := f.Untold(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	var got []auth.FactorNoticeKind
	var ids []string
	for _, n := range all {
		got, ids = append(got, n.Kind), append(ids, n.ID)
	}
	slices.Sort(got) // those of one time come in any order
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("notices (-want +got):\n%s", diff)
	}
	if err := f.Told(f.t.Context(), ids...); err != nil {
		f.t.Fatal(err)
	}
}

// RFC 6238 appendix B.
func TestTOTPVectors(t *testing.T) {
	seed := "1234567890123456789012345678901234567890123456789012345678901234"
	for _, test := range []struct {
		unix                 int64
		sha1, sha256, sha512 string
	}{
		{59, "94287082", "46119246", "90693936"},
		{1111111109, "07081804", "68084774", "25091201"},
		{1111111111, "14050471", "67062674", "99943326"},
		{1234567890, "89005924", "91819424", "93441116"},
		{2000000000, "69279037", "90698825", "38618901"},
		{20000000000, "65353130", "77737706", "47863826"},
	} {
		for want, a := range map[string]otp.Algorithm{test.sha1: otp.AlgorithmSHA1, test.sha256: otp.AlgorithmSHA256, test.sha512: otp.AlgorithmSHA512} {
			length := map[otp.Algorithm]int{otp.AlgorithmSHA1: 20, otp.AlgorithmSHA256: 32, otp.AlgorithmSHA512: 64}[a]
			got, err := auth.CodeOf([]byte(seed[:length]), test.unix/30, otp.DigitsEight, a)
			if err != nil || got != want {
				t.Errorf("at %d with %v: got %s, %v, want %s", test.unix, a, got, err, want)
			}
			if a == otp.AlgorithmSHA1 {
				if got, _ := auth.CodeOf([]byte(seed[:length]), test.unix/30, otp.DigitsSix, a); got != want[2:] {
					t.Errorf("at %d with six digits: got %s, want %s", test.unix, got, want[2:])
				}
			}
		}
	}
}

func TestOpenFactorsRefuses(t *testing.T) {
	for name, change := range map[string]func(*auth.FactorsConfig){
		"no issuer":               func(c *auth.FactorsConfig) { c.Issuer = "" },
		"a colon in the issuer":   func(c *auth.FactorsConfig) { c.Issuer = "a:b" },
		"no domain":               func(c *auth.FactorsConfig) { c.RPID = "" },
		"a domain with a scheme":  func(c *auth.FactorsConfig) { c.RPID = "https://chat.example" },
		"no origins":              func(c *auth.FactorsConfig) { c.Origins = nil },
		"plain http":              func(c *auth.FactorsConfig) { c.Origins = []string{"http://chat.example"} },
		"an origin with a path":   func(c *auth.FactorsConfig) { c.Origins = []string{"https://chat.example/"} },
		"another domain":          func(c *auth.FactorsConfig) { c.Origins = []string{"https://evilchat.example"} },
		"the domain above":        func(c *auth.FactorsConfig) { c.Origins = []string{"https://example"} },
		"a verification":          func(c *auth.FactorsConfig) { c.UserVerification = "discouraged" },
		"a cap above 100":         func(c *auth.FactorsConfig) { c.Cap = 101 },
		"a cap before the delays": func(c *auth.FactorsConfig) { c.Cap = 4 },
		"a negative delay":        func(c *auth.FactorsConfig) { c.FirstDelay = -1 },
		"delays the wrong way":    func(c *auth.FactorsConfig) { c.FirstDelay, c.MaxDelay = time.Hour, time.Minute },
		"a delay of days":         func(c *auth.FactorsConfig) { c.MaxDelay = 48 * time.Hour },
	} {
		cfg := factorsConfig()
		change(&cfg)
		if _, err := openFactors(t.Context(), auth.NewMemoryStore(), cfg); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := auth.OpenFactors(t.Context(), auth.NewMemoryStore(), auth.FactorSeal{}, factorsConfig(), start); err == nil {
		t.Error("opened without a seal")
	}
	torn := newSeal()
	torn.Open = func(_, _ []byte) ([]byte, error) { return nil, errors.New("no such key") }
	if _, err := auth.OpenFactors(t.Context(), auth.NewMemoryStore(), torn, factorsConfig(), start); err == nil {
		t.Error("opened with a seal that does not open")
	}
	local := factorsConfig()
	local.RPID, local.Origins = "localhost", []string{"http://localhost:8080"}
	if _, err := openFactors(t.Context(), auth.NewMemoryStore(), local); err != nil {
		t.Errorf("on one's own machine: %v", err)
	}
}

func TestBindTOTP(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		ctx, by := f.t.Context(), auth.Act{By: "user"}
		first, err := f.BeginTOTP(ctx, "acc-1", "hanako:acme", "phone", start)
		if err != nil {
			f.t.Fatal(err)
		}
		e, err := f.BeginTOTP(ctx, "acc-1", "hanako:acme", "phone", start)
		if err != nil {
			f.t.Fatal(err)
		}
		u, err := url.Parse(e.URI)
		if err != nil {
			f.t.Fatal(err)
		}
		q := u.Query()
		if u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/Chat:hanako acme" || q.Get("issuer") != "Chat" ||
			q.Get("period") != "30" || q.Get("digits") != "6" || q.Get("algorithm") != "SHA1" || len(q.Get("secret")) != 32 {
			f.t.Errorf("address %s", e.URI)
		}
		if strings.ReplaceAll(e.Secret, " ", "") != q.Get("secret") || len(e.Secret) != 39 || !e.Expires.Equal(start.Add(10*time.Minute)) {
			f.t.Errorf("enrolment %+v", e)
		}
		a := app{e.ID, seedOf(f.t, e)}
		// It is nothing yet, and the one before is void.
		if all, err := f.List(ctx, "acc-1"); err != nil || len(all) != 0 {
			f.t.Errorf("before the first code: %v, %v", all, err)
		}
		f.try("acc-1", a.code(start), start, auth.AttemptNone)
		old := app{first.ID, seedOf(f.t, first)}
		if _, _, err := f.FinishTOTP(ctx, "acc-1", first.ID, old.code(start), by, start); !errors.Is(err, auth.ErrBindingOver) {
			f.t.Errorf("the former secret: %v", err)
		}
		for _, change := range []func() error{
			func() error { _, _, err := f.Rename(ctx, "acc-1", e.ID, "x", by, start); return err },
			func() error { _, _, err := f.Remove(ctx, "acc-1", e.ID, by, start); return err },
			func() error { _, _, err := f.Enable(ctx, "acc-1", e.ID, by, start); return err },
		} {
			if err := change(); !errors.Is(err, auth.ErrNoFactor) {
				f.t.Errorf("changing what is not bound: %v", err)
			}
		}
		// Not by another account, nor with another code, nor late.
		if _, _, err := f.FinishTOTP(ctx, "acc-2", e.ID, a.code(start), by, start); !errors.Is(err, auth.ErrBindingOver) {
			f.t.Errorf("another account: %v", err)
		}
		if _, _, err := f.FinishTOTP(ctx, "acc-1", e.ID, a.wrong(start), by, start); !errors.Is(err, auth.ErrWrongCode) {
			f.t.Errorf("a wrong code: %v", err)
		}
		late := start.Add(10 * time.Minute)
		if _, _, err := f.FinishTOTP(ctx, "acc-1", e.ID, a.code(late), by, late); !errors.Is(err, auth.ErrBindingOver) {
			f.t.Errorf("too late: %v", err)
		}
		f.reopen()
		now := start.Add(9 * time.Minute)
		bound, notice, err := f.FinishTOTP(ctx, "acc-1", e.ID, a.code(now), by, now)
		want := auth.Factor{ID: e.ID, Subject: "acc-1", Kind: auth.TOTP, Name: "phone", State: auth.FactorActive, Created: now}
		if diff := cmp.Diff(want, bound); diff != "" || err != nil {
			f.t.Errorf("bound: %v\n%s", err, diff)
		}
		if notice.Kind != auth.FactorBound || notice.Subject != "acc-1" || notice.Name != "phone" || notice.By != "user" || !notice.At.Equal(now) || notice.ID == "" {
			f.t.Errorf("notice %+v", notice)
		}
		if got := f.only("acc-1"); got != want {
			f.t.Errorf("listed %+v", got)
		}
		f.wantUntold(auth.FactorBound)
		// The code that bound it is used up, and the binding over.
		if _, _, err := f.FinishTOTP(ctx, "acc-1", e.ID, a.code(now.Add(30*time.Second)), by, now.Add(30*time.Second)); !errors.Is(err, auth.ErrBindingOver) {
			f.t.Errorf("bound twice: %v", err)
		}
		f.try("acc-1", a.code(now), now, auth.AttemptReplayed)
		f.try("acc-1", a.code(now.Add(30*time.Second)), now.Add(30*time.Second), auth.AttemptAccepted)
	})
}

func TestBindTOTPEnds(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		ctx, by := f.t.Context(), auth.Act{By: "user"}
		e, err := f.BeginTOTP(ctx, "acc-1", "hanako", "phone", start)
		if err != nil {
			f.t.Fatal(err)
		}
		a := app{e.ID, seedOf(f.t, e)}
		for range 10 {
			if _, _, err := f.FinishTOTP(ctx, "acc-1", e.ID, a.wrong(start), by, start); !errors.Is(err, auth.ErrWrongCode) {
				f.t.Fatalf("a wrong code: %v", err)
			}
		}
		if _, _, err := f.FinishTOTP(ctx, "acc-1", e.ID, a.code(start), by, start); !errors.Is(err, auth.ErrBindingOver) {
			f.t.Errorf("after ten wrong codes: %v", err)
		}
		if n, err := f.Sweep(ctx, start.Add(10*time.Minute)); err != nil || n != 1 {
			f.t.Errorf("swept %d, %v, want one", n, err)
		}
		for i := range auth.TOTPMax {
			f.bindTOTP("acc-1", start.Add(time.Duration(i)*time.Minute))
		}
		if _, err := f.BeginTOTP(ctx, "acc-1", "hanako", "phone", start); !errors.Is(err, auth.ErrTooManyFactors) {
			f.t.Errorf("one too many: %v", err)
		}
		for _, bad := range []struct{ subject, account, name string }{
			{"", "hanako", "phone"}, {"a\x00b", "hanako", "phone"}, {"acc-1", "", "phone"}, {"acc-1", "hanako", ""},
			{"acc-1", "hanako", " phone"}, {"acc-1", "hanako", strings.Repeat("x", 65)}, {strings.Repeat("x", 321), "hanako", "phone"},
		} {
			if _, err := f.BeginTOTP(ctx, bad.subject, bad.account, bad.name, start); err == nil {
				f.t.Errorf("began for %q", bad)
			}
		}
	})
}

func TestTOTPCodes(t *testing.T) {
	base := time.Unix(start.Unix()/30*30, 0) // the begin of a step
	for _, test := range []struct {
		name   string
		strict bool
		shows  time.Duration // when the app shows the code
		typed  time.Duration // when we get it
		want   auth.AttemptOutcome
	}{
		{"at once", false, 0, 0, auth.AttemptAccepted},
		{"at the end of its step", false, 0, 30*time.Second - 1, auth.AttemptAccepted},
		{"in the next step", false, 0, 30 * time.Second, auth.AttemptAccepted},
		{"at the end of the next step", false, 0, time.Minute - 1, auth.AttemptAccepted},
		{"late", false, 0, time.Minute, auth.AttemptWrong},
		{"early", false, 30 * time.Second, 30*time.Second - 1, auth.AttemptWrong},
		{"strict: at once", true, 0, 0, auth.AttemptAccepted},
		{"strict: at the end of its step", true, 0, 30*time.Second - 1, auth.AttemptAccepted},
		{"strict: late", true, 0, 30 * time.Second, auth.AttemptWrong},
		{"strict: early", true, 30 * time.Second, 30*time.Second - 1, auth.AttemptWrong},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := factorsConfig()
			cfg.StrictTOTP = test.strict
			b := &memory{auth.NewMemoryStore()}
			f := &factorBench{t: t, b: b, cfg: cfg}
			f.reopen()
			a := f.bindTOTP("acc-1", base)
			f.try("acc-1", a.code(base.Add(test.shows)), base.Add(test.typed), test.want)
		})
	}
}

// A code is used once, and none before it afterwards.
func TestTOTPReplay(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		base := time.Unix(start.Unix()/30*30, 0)
		a := f.bindTOTP("acc-1", base)
		previous := a.code(base.Add(-30 * time.Second))
		got := f.try("acc-1", a.code(base), base, auth.AttemptAccepted)
		if got.Factor.ID != a.id || !got.Factor.Used.Equal(base) {
			f.t.Errorf("accepted %+v", got.Factor)
		}
		f.try("acc-1", a.code(base), base, auth.AttemptReplayed)
		f.try("acc-1", previous, base, auth.AttemptReplayed)
		f.reopen()
		f.try("acc-1", a.code(base), base.Add(30*time.Second), auth.AttemptReplayed)
		if n := f.only("acc-1").Failures; n != 3 {
			f.t.Errorf("%d failures, want 3", n)
		}
		f.try("acc-1", a.code(base.Add(30*time.Second)), base.Add(30*time.Second), auth.AttemptAccepted)
		if got := f.only("acc-1"); got.Failures != 0 || !got.Used.Equal(base.Add(30*time.Second)) {
			f.t.Errorf("after a success: %+v", got)
		}
	})
}

func TestTypedCodes(t *testing.T) {
	for typed, want := range map[string]string{
		"123456": "123456", " 123 456\n": "123456", "123-456": "123456", "１２３４５６": "123456", "１２３　４５６": "123456", "123ー456": "123456",
		"12345": "", "1234567": "", "": "", "12345a": "", "12345٣": "", "123456\x00": "", "123\xff456": "", strings.Repeat(" ", 300) + "123456": "",
	} {
		got, ok := auth.TOTPCode(typed)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", typed, got, ok, want)
		}
	}
	s := [16]byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	text := auth.RecoveryText(s)
	if len(text) != 34 || strings.Count(text, "-") != 6 {
		t.Errorf("code %q", text)
	}
	for _, typed := range []string{
		text, strings.ToLower(text), strings.ReplaceAll(text, "-", ""), strings.ReplaceAll(text, "-", " "), " " + text + "\r\n",
		strings.ReplaceAll(text, "0", "O"), strings.ReplaceAll(text, "1", "l"), strings.ReplaceAll(text, "-", "\u2013"),
	} {
		if got, ok := auth.RecoveryCode(typed); !ok || got != s {
			t.Errorf("%q: got %x, %v", typed, got, ok)
		}
	}
	plain := strings.ReplaceAll(text, "-", "")
	for i := range plain { // every typing error of one letter, all but one in 4,096
		for _, c := range "08Z" {
			typed := plain[:i] + string(c) + plain[i+1:]
			if _, ok := auth.RecoveryCode(typed); ok && typed != plain {
				t.Errorf("%q passes for a code", typed)
			}
		}
	}
	for _, typed := range []string{"", plain[1:], plain + "0", "U" + plain[1:], plain[:27] + "é"} {
		if _, ok := auth.RecoveryCode(typed); ok {
			t.Errorf("%q is read as a code", typed)
		}
	}
}

func TestRecoveryCodes(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		ctx, by := f.t.Context(), auth.Act{By: "user"}
		use := func(code string, want auth.AttemptOutcome) auth.Attempt {
			f.t.Helper()
			got, err := f.UseRecoveryCode(ctx, "acc-1", code, by, start)
			f.wantOutcome(got, err, want)
			return got
		}
		codes, bound, notices, err := f.ReplaceRecoveryCodes(ctx, "acc-1", by, start)
		if err != nil || len(codes) != 10 || len(notices) != 1 || bound.CodesLeft != 10 || f.only("acc-1") != bound {
			f.t.Fatalf("%d codes, notices %v, %+v, %v", len(codes), notices, bound, err)
		}
		seen := make(map[string]bool)
		for _, c := range codes {
			seen[c] = true
		}
		if len(seen) != 10 {
			f.t.Errorf("codes repeat")
		}
		f.wantUntold(auth.FactorBound)
		for i, c := range codes[:9] {
			got := use(c, auth.AttemptAccepted)
			if got.Factor.CodesLeft != 9-i || len(got.Notices) != 1 || got.Notices[0].Kind != auth.RecoveryCodeUsed {
				f.t.Errorf("after %d codes: %+v", i+1, got)
			}
			if i < 3 {
				use(c, auth.AttemptReplayed)
				f.reopen()
			}
		}
		if got := f.only("acc-1"); got.CodesLeft != 1 || got.Failures != 0 {
			f.t.Errorf("nine used: %+v", got)
		}
		use(auth.RecoveryText([16]byte{}), auth.AttemptWrong)
		if _, err := f.UseRecoveryCode(ctx, "acc-1", "0000-"+codes[9][5:], by, start); !errors.Is(err, auth.ErrMalformedCode) || !errors.Is(err, auth.ErrWrongCode) {
			f.t.Errorf("a typing error: %v", err)
		}
		if got := f.only("acc-1"); got.Failures != 1 {
			f.t.Errorf("%d failures, want one: typing errors are none", got.Failures)
		}
		if _, err := f.UseRecoveryCode(ctx, "acc-2", codes[9], by, start); !errors.Is(err, auth.ErrWrongCode) {
			f.t.Errorf("another account: %v", err)
		}
		// New ones make all old ones void, and their failures go with them.
		again, _, notices, err := f.ReplaceRecoveryCodes(ctx, "acc-1", by, start)
		if err != nil || len(notices) != 2 || notices[0].Kind != auth.RecoveryCodesVoided || notices[1].Kind != auth.FactorBound {
			f.t.Fatalf("replaced: %v, %v", notices, err)
		}
		for _, c := range codes {
			use(c, auth.AttemptWrong)
			if f.only("acc-1").Failures == 3 { // before the delays
				use(again[0], auth.AttemptAccepted)
				again = again[1:]
			}
		}
	})
}

func TestThrottle(t *testing.T) {
	cfg := factorsConfig()
	cfg.Cap, cfg.MaxDelay = 12, 10*time.Minute
	eachFactorsWith(t, cfg, func(f *factorBench) {
		ctx, by := f.t.Context(), auth.Act{By: "user"}
		a, now := f.bindTOTP("acc-1", start), start
		second := f.bindTOTP("acc-2", start)
		f.wantUntold(auth.FactorBound, auth.FactorBound)
		want := []time.Duration{0, 0, 0, 0, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute}
		for i, delay := range want {
			if i > 4 { // what wakes no doubt also resets nothing
				if _, err := f.BeginKey(ctx, "acc-1", "login", now); err != nil {
					f.t.Fatal(err)
				}
				f.reopen()
			}
			f.try("acc-1", a.wrong(now), now, auth.AttemptWrong)
			got := f.only("acc-1")
			if delay == 0 && !got.NextAttempt.IsZero() || delay > 0 && !got.NextAttempt.Equal(now.Add(delay)) || got.Failures != i+1 {
				f.t.Fatalf("after %d failures at %v: %+v", i+1, now, got)
			}
			if delay == 0 {
				continue
			}
			// Nothing is looked at, nor counted, before its time.
			early := now.Add(delay - time.Microsecond)
			f.try("acc-1", a.code(early), early, auth.AttemptWaiting)
			f.try("acc-1", a.wrong(early), early, auth.AttemptWaiting)
			if got := f.only("acc-1"); got.Failures != i+1 {
				f.t.Errorf("counted while waiting: %+v", got)
			}
			now = now.Add(delay)
		}
		f.wantUntold(auth.FactorGuessed)
		got := f.try("acc-1", a.wrong(now), now, auth.AttemptWrong)
		if len(got.Notices) != 1 || got.Notices[0].Kind != auth.FactorThrottled {
			f.t.Errorf("notices at the cap: %v", got.Notices)
		}
		off := f.only("acc-1")
		if off.State != auth.FactorDisabled || off.DisabledBy != "throttle" || !off.Disabled.Equal(now) {
			f.t.Errorf("at the cap: %+v", off)
		}
		f.wantUntold(auth.FactorThrottled)
		now = now.Add(day)
		f.try("acc-1", a.code(now), now, auth.AttemptNone)
		for _, change := range []func() error{
			func() error { _, _, err := f.Enable(ctx, "acc-1", a.id, by, now); return err },
			func() error { _, _, err := f.Disable(ctx, "acc-1", a.id, by, now); return err },
		} {
			if err := change(); !errors.Is(err, auth.ErrRebind) {
				f.t.Errorf("changing what the throttle disabled: %v", err)
			}
		}
		// The account goes on: it may bind another, and so does everybody else.
		b := f.bindTOTP("acc-1", now)
		f.try("acc-1", b.code(now), now, auth.AttemptAccepted)
		f.try("acc-2", second.code(now), now, auth.AttemptAccepted)
	})
}

// A success sets the count back, once its time has come.
func TestThrottleIsSetBack(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		a, now := f.bindTOTP("acc-1", start), start
		for range 3 {
			for range 6 {
				f.try("acc-1", a.wrong(now), now, auth.AttemptWrong)
				now = now.Add(2 * time.Minute)
			}
			f.try("acc-1", a.code(now), now, auth.AttemptAccepted)
			if got := f.only("acc-1"); got.Failures != 0 || !got.NextAttempt.IsZero() {
				f.t.Errorf("after a success: %+v", got)
			}
		}
		// The last attempt before the cap may be right.
		for range 19 {
			f.try("acc-1", a.wrong(now), now, auth.AttemptWrong)
			now = now.Add(2 * time.Hour)
		}
		got := f.try("acc-1", a.code(now), now, auth.AttemptAccepted)
		if got.Factor.State != auth.FactorActive || got.Factor.DisabledBy != "" || len(got.Notices) != 0 {
			f.t.Errorf("right at the last attempt: %+v", got)
		}
	})
}

// A code is tried with all apps of the account, and a failure is each one's.
func TestSeveralApps(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		a, b := f.bindTOTP("acc-1", start), f.bindTOTP("acc-1", start.Add(time.Second))
		failures := func(want ...int) {
			f.t.Helper()
			all, err := f.List(f.t.Context(), "acc-1")
			if err != nil {
				f.t.Fatal(err)
			}
			var got []int
			for _, x := range all {
				got = append(got, x.Failures)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				f.t.Errorf("failures (-want +got):\n%s", diff)
			}
		}
		f.try("acc-1", "000000", start, auth.AttemptWrong)
		failures(1, 1)
		if got := f.try("acc-1", b.code(start), start, auth.AttemptAccepted); got.Factor.ID != b.id {
			f.t.Errorf("accepted %s, want %s", got.Factor.ID, b.id)
		}
		failures(1, 0) // the first was not involved
		f.try("acc-1", a.code(start), start, auth.AttemptAccepted)
		failures(0, 0)
	})
}

func TestChangeFactors(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		ctx, by := f.t.Context(), auth.Act{By: "operator jiro"}
		a := f.bindTOTP("acc-1", start)
		f.wantUntold(auth.FactorBound)
		got, notice, err := f.Rename(ctx, "acc-1", a.id, "電話", by, start)
		if err != nil || got.Name != "電話" || notice.Name != "phone" || notice.Kind != auth.FactorRenamed || f.only("acc-1") != got {
			f.t.Errorf("renamed: %+v, %+v, %v", got, notice, err)
		}
		if _, _, err := f.Rename(ctx, "acc-1", a.id, "a\x00", by, start); err == nil {
			f.t.Error("renamed to no text")
		}
		f.try("acc-1", a.wrong(start), start, auth.AttemptWrong)
		got, notice, err = f.Disable(ctx, "acc-1", a.id, by, start)
		if err != nil || got.State != auth.FactorDisabled || got.DisabledBy != "operator jiro" || !got.Disabled.Equal(start) || notice.Kind != auth.FactorWasDisabled {
			f.t.Errorf("disabled: %+v, %+v, %v", got, notice, err)
		}
		for _, who := range []string{"", "throttle"} {
			if _, _, err := f.Disable(ctx, "acc-1", a.id, auth.Act{By: who}, start); err == nil {
				f.t.Errorf("disabled by %q", who)
			}
		}
		f.try("acc-1", a.code(start), start, auth.AttemptNone)
		got, notice, err = f.Enable(ctx, "acc-1", a.id, by, start)
		if err != nil || got.State != auth.FactorActive || got.Failures != 1 || notice.Kind != auth.FactorWasEnabled {
			f.t.Errorf("enabled: %+v, %+v, %v", got, notice, err)
		}
		// What is so already is no change.
		for _, do := range []func() (auth.Factor, auth.FactorNotice, error){
			func() (auth.Factor, auth.FactorNotice, error) { return f.Enable(ctx, "acc-1", a.id, by, start) },
			func() (auth.Factor, auth.FactorNotice, error) {
				return f.Rename(ctx, "acc-1", a.id, "電話", by, start)
			},
		} {
			if same, notice, err := do(); err != nil || same != got || notice.ID != "" {
				f.t.Errorf("the same again: %+v, %+v, %v", same, notice, err)
			}
		}
		f.try("acc-1", a.code(start), start, auth.AttemptAccepted)
		for _, bad := range []struct{ subject, id string }{{"acc-2", a.id}, {"acc-1", "x"}, {"acc-1", "a\x00"}, {"", a.id}, {"a\x00", a.id}} {
			if _, _, err := f.Remove(ctx, bad.subject, bad.id, by, start); !errors.Is(err, auth.ErrNoFactor) {
				f.t.Errorf("removed %q: %v", bad, err)
			}
		}
		got, notice, err = f.Remove(ctx, "acc-1", a.id, by, start)
		if err != nil || got.ID != a.id || notice.Kind != auth.FactorRemoved || notice.Name != "電話" || notice.By != "operator jiro" {
			f.t.Errorf("removed: %+v, %+v, %v", got, notice, err)
		}
		f.try("acc-1", a.code(start.Add(time.Minute)), start.Add(time.Minute), auth.AttemptNone)
		// All at one time: in whatever order.
		all, err := f.Untold(ctx)
		if err != nil || len(all) != 4 {
			f.t.Errorf("%d notices, %v, want 4", len(all), err)
		}
	})
}

// What is sealed opens for its own authenticator only.
func TestSecretsAreSealed(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		f := &factorBench{t: t, b: d, cfg: factorsConfig()}
		f.reopen()
		a, b := f.bindTOTP("acc-1", start), f.bindTOTP("acc-2", start)
		codes, recovery, _, err := f.ReplaceRecoveryCodes(t.Context(), "acc-3", auth.Act{By: "user"}, start)
		if err != nil {
			t.Fatal(err)
		}
		secret, _ := auth.RecoveryCode(codes[0])
		for id, plain := range map[string][]byte{a.id: a.seed, b.id: b.seed, recovery.ID: secret[:]} {
			var sealed []byte
			query := fmt.Sprintf("SELECT secret FROM auth_factors WHERE id = '%s'", id)
			if err := d.db.QueryRow(query).Scan(&sealed); err != nil {
				t.Fatal(err)
			}
			if len(sealed) < len(plain) || bytes.Contains(sealed, plain[:8]) {
				t.Errorf("authenticator %s has its secret in the clear", id)
			}
		}
		// Who writes to the database moves an app of theirs to the victim.
		if _, err := d.db.Exec(fmt.Sprintf("UPDATE auth_factors SET subject = 'acc-1' WHERE id = '%s'", b.id)); err != nil {
			t.Fatal(err)
		}
		if got, err := f.VerifyTOTP(t.Context(), "acc-1", b.code(start), auth.Act{}, start); err == nil || errors.Is(err, auth.ErrWrongCode) {
			t.Errorf("a secret that was moved: %v, %v", got, err)
		}
	})
}

// An attempt runs the same statements whether there is a factor or not, and says
// the same.
func TestAttemptsCostTheSame(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		f := &factorBench{t: t, b: d, cfg: factorsConfig()}
		f.reopen()
		ctx, by := t.Context(), auth.Act{By: "user"}
		a := f.bindTOTP("enrolled", start)
		off := f.bindTOTP("disabled", start)
		if _, _, err := f.Disable(ctx, "disabled", off.id, by, start); err != nil {
			t.Fatal(err)
		}
		slow := f.bindTOTP("waiting", start)
		for range 5 {
			f.try("waiting", slow.wrong(start), start, auth.AttemptWrong)
		}
		var opened atomic.Int64
		seal := newSeal()
		open := seal.Open
		seal.Open = func(sealed, associated []byte) ([]byte, error) {
			opened.Add(1)
			return open(sealed, associated)
		}
		fs, err := auth.OpenFactors(ctx, d.another(), seal, f.cfg, start)
		if err != nil {
			t.Fatal(err)
		}
		type cost struct{ Statements, Opened int64 }
		var want *cost
		for _, test := range []struct{ subject, code string }{
			{"warm", "000000"}, {"enrolled", a.wrong(start)}, {"enrolled", a.code(start)}, {"enrolled", a.code(start)},
			{"nobody", "000000"}, {"disabled", off.code(start)}, {"waiting", slow.code(start)},
		} {
			before := opened.Load()
			var got error
			n := d.counted(func() { _, got = fs.VerifyTOTP(ctx, test.subject, test.code, by, start) })
			c := cost{n, opened.Load() - before}
			if want == nil || test.subject == "warm" {
				want = &c
			}
			if c != *want {
				t.Errorf("%s: took %+v, want %+v", test.subject, c, *want)
			}
			if got != nil && got.Error() != auth.ErrWrongCode.Error() {
				t.Errorf("%s: says %v", test.subject, got)
			}
		}
		for _, subject := range []string{"nobody", "enrolled"} {
			if subject == "enrolled" {
				if _, _, _, err := fs.ReplaceRecoveryCodes(ctx, subject, by, start); err != nil {
					t.Fatal(err)
				}
			}
			before := opened.Load()
			n := d.counted(func() { _, _ = fs.UseRecoveryCode(ctx, subject, auth.RecoveryText([16]byte{}), by, start) })
			if c := (cost{n, opened.Load() - before}); c.Statements != want.Statements || c.Opened != 1 {
				t.Errorf("recovery of %s: took %+v", subject, c)
			}
		}
	})
}

// One right code, a hundred times at once, on two nodes: one wins.
func TestOneCodeManyTimes(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		f := &factorBench{t: t, b: b, cfg: factorsConfig()}
		f.reopen()
		nodes := []*auth.Factors{f.Factors, f.other()}
		a := f.bindTOTP("acc-1", start)
		codes, _, _, err := f.ReplaceRecoveryCodes(t.Context(), "acc-1", auth.Act{}, start)
		if err != nil {
			t.Fatal(err)
		}
		for name, try := range map[string]func(*auth.Factors) (auth.Attempt, error){
			"app": func(fs *auth.Factors) (auth.Attempt, error) {
				return fs.VerifyTOTP(t.Context(), "acc-1", a.code(start), auth.Act{By: "user"}, start)
			},
			"recovery": func(fs *auth.Factors) (auth.Attempt, error) {
				return fs.UseRecoveryCode(t.Context(), "acc-1", codes[4], auth.Act{By: "user"}, start)
			},
		} {
			var (
				wins, losses atomic.Int64
				all          sync.WaitGroup
			)
			for i := range 100 {
				all.Go(func() {
					switch _, err := try(nodes[i%2]); {
					case err == nil:
						wins.Add(1)
					case errors.Is(err, auth.ErrWrongCode):
						losses.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			all.Wait()
			if wins.Load() != 1 || losses.Load() != 99 {
				t.Errorf("%s: %d of 100 won, %d lost, want one and 99", name, wins.Load(), losses.Load())
			}
		}
	})
}

// Guesses at once, on two nodes, are no more than one after the other.
func TestManyGuesses(t *testing.T) {
	cfg := factorsConfig()
	cfg.Cap = 5
	eachFactorsWith(t, cfg, func(f *factorBench) {
		nodes := []*auth.Factors{f.Factors, f.other()}
		a := f.bindTOTP("acc-1", start)
		var looked atomic.Int64
		var all sync.WaitGroup
		for i := range 60 {
			all.Go(func() {
				got, err := nodes[i%2].VerifyTOTP(f.t.Context(), "acc-1", a.wrong(start), auth.Act{}, start)
				if !errors.Is(err, auth.ErrWrongCode) {
					f.t.Error(err)
				}
				if got.Outcome == auth.AttemptWrong {
					looked.Add(1)
				}
			})
		}
		all.Wait()
		if got := f.only("acc-1"); looked.Load() != 5 || got.Failures != 5 || got.State != auth.FactorDisabled {
			f.t.Errorf("%d guesses were looked at, want 5; %+v", looked.Load(), got)
		}
	})
}

func TestNoticesBound(t *testing.T) {
	fs, err := openFactors(t.Context(), auth.NewMemoryStore(), factorsConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, ids := range [][]string{make([]string, 501), {"a\x00"}} {
		if err := fs.Told(t.Context(), ids...); err == nil {
			t.Errorf("took %d ids", len(ids))
		}
	}
	if err := fs.Told(t.Context()); err != nil {
		t.Error(err)
	}
}

// Somebody who does not wait for their turn uses the code first: it is not accepted
// a second time.
func TestOvertaken(t *testing.T) {
	d := newPostgres(t)
	f := &factorBench{t: t, b: d, cfg: factorsConfig()}
	f.reopen()
	a := f.bindTOTP("acc-1", start)
	seal := newSeal()
	open := seal.Open
	var overtake atomic.Bool
	seal.Open = func(sealed, associated []byte) ([]byte, error) {
		if overtake.CompareAndSwap(true, false) {
			if _, err := d.db.Exec(`UPDATE auth_factors SET version = version + 1, last_step = $1 WHERE id = $2`, start.Unix()/30, a.id); err != nil {
				t.Error(err)
			}
		}
		return open(sealed, associated)
	}
	fs, err := auth.OpenFactors(t.Context(), another(d), seal, f.cfg, start)
	if err != nil {
		t.Fatal(err)
	}
	overtake.Store(true)
	if got, err := fs.VerifyTOTP(t.Context(), "acc-1", a.code(start), auth.Act{}, start); err == nil || errors.Is(err, auth.ErrWrongCode) || overtake.Load() {
		t.Errorf("a code that was used meanwhile: %+v, %v", got, err)
	}
	f.try("acc-1", a.code(start), start, auth.AttemptReplayed)
}
