package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
	"golang.org/x/text/unicode/norm"
)

const (
	seedBytes  = 20 // RFC 4226 section 4, R6
	totpDigits = otp.DigitsSix
	totpStep   = 30 // seconds
	typedMax   = 256
)

func newSeed() []byte {
	seed := make([]byte, seedBytes)
	rand.Read(seed)
	return seed
}

// TOTPEnrolment is a secret that an app is to be given. It is shown once, and to
// nobody but the owner.
type TOTPEnrolment struct {
	ID      string    // for FinishTOTP
	URI     string    // otpauth://, for a QR code
	Secret  string    // the same for those who type it: base32 in groups of four
	Expires time.Time // a right code must come before
}

// BeginTOTP makes a secret for an app. It is no authenticator yet: FinishTOTP makes
// it one, within 10 min. Beginning again makes the former secret void. account is
// what the app shows beside the issuer.
func (fs *Factors) BeginTOTP(ctx context.Context, subject, account, name string, now time.Time) (TOTPEnrolment, error) {
	fail := func(err error) (TOTPEnrolment, error) {
		return TOTPEnrolment{}, fmt.Errorf("beginning to bind an app: %w", err)
	}
	now = stored(now)
	account = strings.ReplaceAll(account, ":", " ") // which would end the issuer
	if n := utf8.RuneCountInString(account); n == 0 || n > factorTextMax || !storable(account) {
		return fail(fmt.Errorf("an account name of %d runes: want 1 to %d", n, factorTextMax))
	}
	if err := checkOwner(subject); err != nil {
		return fail(err)
	}
	if err := checkFactorName(name); err != nil {
		return fail(err)
	}
	seed := newSeed()
	uri, err := totp.Generate(totp.GenerateOpts{
		Issuer: fs.cfg.Issuer, AccountName: account, Secret: seed, Period: totpStep, Digits: totpDigits, Algorithm: otp.AlgorithmSHA1,
	})
	if err != nil {
		return fail(err)
	}
	f := factor{
		Factor:  Factor{ID: rand.Text(), Subject: subject, Kind: TOTP, Name: name, State: factorPending, Created: now},
		pending: now.Add(bindTOTPFor),
	}
	if err := fs.put(&f, seed); err != nil {
		return fail(err)
	}
	err = fs.store.updateFactors(ctx, subject, nil, act{}, func(o *owned) error {
		for _, old := range o.factors {
			if old.Kind == TOTP && old.State == factorPending {
				o.drop(old.ID)
				break
			}
		}
		if o.count(TOTP) >= totpMax {
			return ErrTooManyFactors
		}
		o.factors = append(o.factors, f)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	return TOTPEnrolment{ID: f.ID, URI: uri.URL(), Secret: grouped(uri.Secret(), 4), Expires: f.pending}, nil
}

// FinishTOTP makes the secret an authenticator if code is one of its codes. That
// code is used up. Ten wrong ones end the binding: ErrBindingOver, as when it took
// too long.
func (fs *Factors) FinishTOTP(ctx context.Context, subject, id, code string, by Act, now time.Time) (Factor, FactorNotice, error) {
	var (
		bound  Factor
		notice FactorNotice
		wrong  error
	)
	fail := func(err error) (Factor, FactorNotice, error) {
		return Factor{}, FactorNotice{}, fmt.Errorf("binding an app: %w", err)
	}
	now = stored(now)
	a, err := by.approving(now)
	if err != nil {
		return fail(err)
	}
	digits, ok := totpCode(code)
	if !ok {
		return fail(ErrMalformedCode)
	}
	if checkOwner(subject) != nil {
		return fail(ErrBindingOver)
	}
	err = fs.store.updateFactors(ctx, subject, nil, a, func(o *owned) error {
		wrong = nil
		for i := range o.factors {
			f := &o.factors[i]
			if f.ID != id || f.State != factorPending || !now.Before(f.pending) || f.Failures >= bindTOTPTries {
				continue
			}
			step, err := fs.match(f, digits, now)
			if err != nil {
				return err
			}
			if step <= f.step {
				f.Failures++
				o.idle, wrong = true, ErrWrongCode
				return nil
			}
			f.State, f.pending, f.step, f.Created, f.Failures = FactorActive, time.Time{}, step, now, 0
			bound, o.kind = f.Factor, TOTP
			notice = o.tell(FactorBound, f, by.By, now)
			return nil
		}
		return ErrBindingOver
	})
	if err == nil {
		err = wrong
	}
	if err != nil {
		return fail(err)
	}
	return bound, notice, nil
}

// VerifyTOTP uses a code of one of the account's apps. A code works once, on all
// nodes together, and with it all earlier ones end (RFC 6238 section 5.2). Whatever
// is wrong is ErrWrongCode; to find it out takes the same work whether the account
// has an app or not. Attempts are throttled; a failure counts for each app of the
// account, since it was tried with each.
//
// An entry that the act carries is on record as having happened if and only if the
// code was accepted.
func (fs *Factors) VerifyTOTP(ctx context.Context, subject, code string, by Act, now time.Time) (Attempt, error) {
	now = stored(now)
	digits, ok := totpCode(code)
	if !ok {
		return Attempt{Outcome: AttemptWrong}, ErrMalformedCode
	}
	return fs.attempt(ctx, subject, nil, by, now, func(o *owned) (Attempt, error) {
		return fs.tryAll(o, TOTP, totpMax, by.By, now, func(f *factor) (tried, error) {
			step, err := fs.match(f, digits, now)
			if err != nil || step < 0 {
				return tried{}, err
			}
			if step <= f.step {
				return tried{used: true}, nil
			}
			return tried{accept: func() error {
				f.step = step
				return nil
			}}, nil
		})
	})
}

// tried is what comparing with one authenticator showed: nothing, that the code was
// used before, or how to use it up.
type tried struct {
	used   bool
	accept func() error
}

// attempt runs an attempt of an account in one transaction.
func (fs *Factors) attempt(ctx context.Context, subject string, take *[32]byte, by Act, now time.Time, try func(*owned) (Attempt, error)) (Attempt, error) {
	a, err := by.approving(now)
	if err != nil {
		return Attempt{}, fmt.Errorf("trying a factor: %w", err)
	}
	if subject != "" && checkOwner(subject) != nil {
		return Attempt{Outcome: AttemptNone}, ErrWrongCode
	}
	var got Attempt
	err = fs.store.updateFactors(ctx, subject, take, a, func(o *owned) (err error) {
		o.attempt = true
		got, err = try(o)
		o.idle, o.kind = got.Outcome != AttemptAccepted, got.Factor.Kind
		return err
	})
	if err != nil {
		return Attempt{}, fmt.Errorf("trying a factor: %w", err)
	}
	if got.Outcome != AttemptAccepted {
		return got, ErrWrongCode
	}
	return got, nil
}

// tryAll compares with every authenticator of a kind that may be tried now. Each is
// charged before; if one accepts, the others were not involved. There are always as
// many comparisons as an account can have authenticators.
func (fs *Factors) tryAll(o *owned, kind FactorKind, slots int, by string, now time.Time, compare func(*factor) (tried, error)) (Attempt, error) {
	var (
		involved []*factor
		before   []factor
		accepted *factor
		accept   func() error
	)
	got := Attempt{Outcome: AttemptNone}
	for i := range o.factors {
		f := &o.factors[i]
		switch {
		case f.Kind != kind || f.State != FactorActive:
		case now.Before(f.NextAttempt):
			if got.Outcome == AttemptNone {
				got = Attempt{Outcome: AttemptWaiting, Factor: f.Factor}
			}
		default:
			involved, before = append(involved, f), append(before, *f)
			fs.charge(f, now)
			got = Attempt{Outcome: AttemptWrong}
		}
	}
	for i := range max(slots, len(involved)) {
		if i >= len(involved) {
			spare := fs.decoy.totp
			_, _ = compare(&spare) // for the time it takes
			continue
		}
		t, err := compare(involved[i])
		switch {
		case err != nil:
			return Attempt{}, err
		case t.accept != nil && accepted == nil:
			accepted, accept = involved[i], t.accept
		case t.used && accepted == nil:
			got = Attempt{Outcome: AttemptReplayed}
		}
	}
	if accepted != nil {
		for i, f := range involved {
			if f != accepted {
				*f = before[i]
			}
		}
		if err := accept(); err != nil {
			return Attempt{}, err
		}
		accepted.succeed(now)
		return Attempt{Outcome: AttemptAccepted, Factor: accepted.Factor}, nil
	}
	for _, f := range involved {
		got.Notices = append(got.Notices, fs.blame(o, f, by, now)...)
	}
	if len(involved) == 1 {
		got.Factor = involved[0].Factor
	}
	return got, nil
}

// match is the step whose code it is, -1 if it is none's that may be used at now:
// the current one, and the one before unless that is not wanted. All are compared.
func (fs *Factors) match(f *factor, digits string, now time.Time) (int64, error) {
	seed, err := fs.open(f)
	if err != nil {
		return 0, err
	}
	defer clear(seed)
	current := now.Unix() / totpStep
	first := current
	if !fs.cfg.StrictTOTP {
		first--
	}
	found := int64(-1)
	for step := max(first, 0); step <= current; step++ {
		want, err := codeOf(seed, step, totpDigits, otp.AlgorithmSHA1)
		if err != nil {
			return 0, err
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(digits)) == 1 {
			found = step
		}
	}
	return found, nil
}

func codeOf(seed []byte, step int64, digits otp.Digits, algorithm otp.Algorithm) (string, error) {
	secret := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(seed)
	code, err := hotp.GenerateCodeCustom(secret, uint64(step), hotp.ValidateOpts{Digits: digits, Algorithm: algorithm})
	if err != nil {
		return "", fmt.Errorf("making a code of the secret: %w", err)
	}
	return code, nil
}

// totpCode reads a code as people type it: blanks and hyphens in it, or in the full
// width of a Japanese keyboard.
func totpCode(typed string) (digits string, ok bool) {
	digits, ok = plainCode(typed)
	if !ok || len(digits) != int(totpDigits) {
		return "", false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return digits, true
}

// plainCode is the letters and digits of what was typed, capitals all, in ASCII.
func plainCode(typed string) (plain string, ok bool) {
	if len(typed) > typedMax || !utf8.ValidString(typed) {
		return "", false
	}
	var b strings.Builder
	for _, r := range norm.NFKC.String(typed) {
		switch {
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z':
			b.WriteByte(byte(r))
		case r >= 'a' && r <= 'z':
			b.WriteByte(byte(r) - 'a' + 'A')
		case unicode.IsSpace(r), unicode.Is(unicode.Pd, r), r == '\u2212', r == '\u30fc': // minus, and what a kana keyboard types for it
		default:
			return "", false
		}
	}
	return b.String(), true
}

// grouped puts a hyphenless text into groups for people.
func grouped(s string, size int) string {
	var b strings.Builder
	for i := 0; i < len(s); i += size {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s[i:min(i+size, len(s))])
	}
	return b.String()
}
