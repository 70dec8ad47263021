package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-webauthn/webauthn/webauthn"
)

// What keeps a factor from being bound, used or changed. Callers branch on them.
var (
	// ErrWrongCode is all that an attempt says that did not succeed, whatever the
	// cause: so it tells nobody whether there is a factor, or in what state.
	ErrWrongCode = errors.New("the code or key is not good, or not good any more: wait a moment and try another one")
	// ErrMalformedCode is the ErrWrongCode of what nobody's code can be. Nothing was
	// looked up, and no attempt is counted.
	ErrMalformedCode = fmt.Errorf("it has not the form of a code: look for a typing error (%w)", ErrWrongCode)
	// ErrNoFactor means that the account has no such authenticator.
	ErrNoFactor = errors.New("the account has no such authenticator")
	// ErrRebind means that an authenticator was disabled for too many failures in a
	// row: it must be bound anew (SP 800-63B-4 section 3.2.2).
	ErrRebind = errors.New("the authenticator was disabled after too many wrong attempts: remove it and bind it anew")
	// ErrBindingOver means that the binding was not begun, not for this, or ended.
	ErrBindingOver = errors.New("the binding is over or was begun elsewhere: begin again")
	// ErrTooManyFactors means that an account has as many of a kind as it may have.
	ErrTooManyFactors = errors.New("the account has as many authenticators of this kind as it may have: remove one first")
	// ErrKeyTaken means that a key is bound already, to whichever account.
	ErrKeyTaken = errors.New("this key is bound already")
)

// FactorKind is a kind of authenticator.
type FactorKind string

const (
	TOTP          FactorKind = "totp"     // an app that shows codes (RFC 6238)
	Key           FactorKind = "key"      // a passkey or security key (WebAuthn)
	RecoveryCodes FactorKind = "recovery" // a list of codes on paper
)

// FactorState is whether an authenticator can be used.
type FactorState string

const (
	FactorActive   FactorState = "active"
	FactorDisabled FactorState = "disabled"

	factorPending FactorState = "pending" // bound by its first right code; nobody gets to see it
)

// byThrottle disables what was guessed at too often.
const byThrottle = "throttle"

// Factor is an authenticator of an account: a value, without any secret.
type Factor struct {
	ID          string      `json:"id"` // public
	Subject     string      `json:"subject"`
	Kind        FactorKind  `json:"kind"`
	Name        string      `json:"name"` // the owner's
	State       FactorState `json:"state"`
	Created     time.Time   `json:"created"`
	Used        time.Time   `json:"used,omitzero"` // last success
	Failures    int         `json:"failures,omitempty"`
	NextAttempt time.Time   `json:"next_attempt,omitzero"` // no attempt is looked at before
	CodesLeft   int         `json:"codes_left,omitempty"`  // of recovery codes
	Disabled    time.Time   `json:"disabled,omitzero"`
	DisabledBy  string      `json:"disabled_by,omitempty"` // "throttle", or what was given to Disable
}

// mustRebind reports whether the authenticator was disabled by the throttle.
func (f *Factor) mustRebind() bool { return f.State == FactorDisabled && f.DisabledBy == byThrottle }

// Bounds.
const (
	totpMax         = 4  // of an account, the one that is being bound included
	keysMax         = 16 // of an account
	factorNameMax   = 64 // runes
	factorTextMax   = 320
	challengesMax   = 32       // that an account may have open; the oldest gives way
	anonymousMax    = 1 << 14  // that are for whoever has the key
	purposeMax      = 256      // bytes
	keyResponseMax  = 64 << 10 // bytes, as the next one
	publicKeyMax    = 2 << 10  // RSA of 8,192 bits has 1 KiB
	challengeFor    = 5 * time.Minute
	bindTOTPFor     = 10 * time.Minute
	bindTOTPTries   = 10
	untoldMax       = 500 // notices Untold returns
	failuresMax     = 1 << 30
	slowFrom        = 5   // failures in a row
	capMax          = 100 // SP 800-63B-4 section 3.2.2
	userHandleBytes = 64
)

// UserVerification is whether a key must ask for a PIN, a finger or a face.
type UserVerification string

const (
	VerifyPreferred UserVerification = "preferred" // a touch is enough for a key that cannot
	VerifyRequired  UserVerification = "required"
)

// FactorsConfig says for whom factors are, and how they are throttled. Zero fields
// take the default; Issuer, RPID and Origins have none.
type FactorsConfig struct {
	Issuer  string   // the service's name in apps and dialogs; 1 to 64 runes, no colon
	RPID    string   // the domain that keys are for (WebAuthn section 4); it cannot be changed later without binding all keys anew
	Origins []string // pages that may ask for keys, such as https://chat.example: RPID or below it

	UserVerification UserVerification // VerifyPreferred
	StrictTOTP       bool             // only the current code, not the one before (ASVS 5.0 6.5.5)

	Cap        int           // failures in a row that disable an authenticator, 5 to 100; 20
	FirstDelay time.Duration // after the fifth failure in a row, doubled by each further one; 30 s
	MaxDelay   time.Duration // 1 h
}

func (c FactorsConfig) withDefaults() (FactorsConfig, error) {
	if n := utf8.RuneCountInString(c.Issuer); n == 0 || n > factorNameMax || !storable(c.Issuer) || strings.ContainsRune(c.Issuer, ':') {
		return c, fmt.Errorf("factors: Issuer is %q: want the service's name, 1 to %d runes without a colon", c.Issuer, factorNameMax)
	}
	switch c.UserVerification {
	case "":
		c.UserVerification = VerifyPreferred
	case VerifyPreferred, VerifyRequired:
	default:
		return c, fmt.Errorf("factors: UserVerification is %q: want %q or %q", c.UserVerification, VerifyPreferred, VerifyRequired)
	}
	if c.Cap == 0 {
		c.Cap = 20
	}
	if c.Cap < slowFrom || c.Cap > capMax {
		return c, fmt.Errorf("factors: Cap is %d: want %d to %d, or 0 for 20", c.Cap, slowFrom, capMax)
	}
	if c.FirstDelay == 0 {
		c.FirstDelay = 30 * time.Second
	}
	if c.MaxDelay == 0 {
		c.MaxDelay = time.Hour
	}
	if c.FirstDelay < time.Second || c.MaxDelay < c.FirstDelay || c.MaxDelay > 24*time.Hour {
		return c, fmt.Errorf("factors: delays of %v to %v: want at least 1 s, at most 24 h, and the first not above the last", c.FirstDelay, c.MaxDelay)
	}
	return c, checkOrigins(c.RPID, c.Origins)
}

// FactorSeal seals secrets for the store. What is sealed opens with the same
// associated data only. Both functions must be cheap, safe for concurrent use, and
// must not call the store: they run inside its transactions.
type FactorSeal struct {
	Seal func(plain, associated []byte) ([]byte, error)
	Open func(sealed, associated []byte) ([]byte, error)
}

// FactorStore keeps factors. The duties are those of [SessionStore].
type FactorStore interface {
	// updateFactors passes what is stored of an account to change, and stores what
	// it made of it, unless change returns an error. With take it also removes the
	// challenge of that hash, whosever it is, and passes it along. An entry that the
	// act carries is stored with the change unless that says that nothing happened.
	// A hold that the act approves is approved with it; it is ErrHoldOver, and change
	// is not called, unless that waits and is the account's.
	updateFactors(ctx context.Context, subject string, take *[32]byte, a act, change func(*owned) error) error
	// factorsOf is the account's authenticators, the oldest first.
	factorsOf(ctx context.Context, subject string) ([]factor, error)
	// subjectOfKey is whose the key is, "" if nobody's.
	subjectOfKey(ctx context.Context, credential [32]byte) (string, error)
	// forgetFactors deletes up to limit bindings and as many challenges that were over before now.
	forgetFactors(ctx context.Context, now time.Time, limit int) (int, error)
	// untold is up to limit notices, the oldest first.
	untold(ctx context.Context, limit int) ([]FactorNotice, error)
	told(ctx context.Context, ids []string) error
}

// factor is an authenticator as it is stored.
type factor struct {
	Factor
	version    int64     // 0: not stored yet
	pending    time.Time // a right code binds it before this time; zero: it is bound
	step       int64     // of the last code that was used; codes up to it are used up
	credential [32]byte  // of a key that is not stored yet: the hash of its credential id
	secret     []byte    // sealed
}

// equal reports whether a store need not write.
func (f *factor) equal(o *factor) bool {
	return f.Factor == o.Factor && f.pending.Equal(o.pending) && f.step == o.step && string(f.secret) == string(o.secret)
}

// owned is what is stored of one account, and what a change makes of it: factors
// and handle are changed in place, the rest is set. A handle that there is stays.
type owned struct {
	handle  []byte // nil while it has none
	factors []factor
	taken   *challenge

	put     *challenge
	notices []FactorNotice
	kind    FactorKind // of what was accepted or bound: it approves a held login
	needed  bool       // the handle was asked for
	idle    bool       // nothing happened that an entry of the record may stand for
	attempt bool       // it costs at least one UPDATE
}

// challenge is what a key is asked to sign.
type challenge struct {
	hash     [32]byte
	subject  string
	ceremony string
	purpose  string
	expires  time.Time
	data     string
}

// find is the authenticator, or ErrNoFactor. One that is being bound is none.
func (o *owned) find(id string) (*factor, error) {
	for i := range o.factors {
		if f := &o.factors[i]; f.ID == id && f.State != factorPending {
			return f, nil
		}
	}
	return nil, ErrNoFactor
}

func (o *owned) drop(id string) {
	o.factors = slices.DeleteFunc(o.factors, func(f factor) bool { return f.ID == id })
}

// count is how many there are of a kind.
func (o *owned) count(kind FactorKind) (n int) {
	for i := range o.factors {
		if o.factors[i].Kind == kind {
			n++
		}
	}
	return n
}

// tell notes what the owner has to be told of f.
func (o *owned) tell(kind FactorNoticeKind, f *factor, by string, now time.Time) FactorNotice {
	n := FactorNotice{
		ID: rand.Text(), Kind: kind, Subject: f.Subject, Factor: f.ID, FactorKind: f.Kind, Name: f.Name, By: by, At: now,
	}
	o.notices = append(o.notices, n)
	return n
}

// Factors is the authenticators of all accounts. Nothing of them is in memory, so
// what one node changes holds on all at once.
//
// # Throttling, by the letter of SP 800-63B-4 section 3.2.2
//
// Failures in a row are counted for each authenticator of an account, in SQL and in
// the transaction that compares: an attempt is charged before it is looked at, so
// attempts that run at the same time, on whatever nodes, do not get more of them
// than one after the other. From the fifth on each failure is followed by a time in
// which no attempt is looked at, nor counted: 30 s, doubled each time up to 1 h. At
// the cap, 20 by default and never above 100, the authenticator is disabled and has
// to be bound anew; the account is not, and its other authenticators go on. A
// success sets the count back, and nothing else does.
//
// # What guessing is worth
//
// Of the 10^6 codes of TOTP two are good at a time, one with StrictTOTP: a guess
// succeeds with p = 2*10^-6, and before the authenticator is disabled with
//
//	20 failures, the default    4.0*10^-5    1 in 25,000     strict: half of it
//	100 failures, the most      2.0*10^-4    1 in  5,000
//
// for whoever has the right password already: nobody else gets to guess. The
// owner's own success sets the count back, so a patient thief has up to 19 guesses
// between two of them, if those are 9 h apart: the delays take that long. With one
// success a day these are 6,900 guesses and 1.4 % a year. That is why the owner is
// told at the fifth failure in a row, why the password must then be changed, and why
// a key is better. Recovery codes have 128 bits: 100 guesses at ten of them succeed
// with 3*10^-36.
//
// Keys are not guessed, since a signature is no secret that somebody types; section
// 3.2.2 asks for limits where section 3.1 says so, and it does not for them. Their
// failures are counted for the owner to see, but delay and disable nothing: it would
// only let a thief of the password take the owner's best factor away.
type Factors struct {
	store FactorStore
	seal  FactorSeal
	cfg   FactorsConfig
	keys  *webauthn.WebAuthn
	decoy decoy
}

// decoy is worked on where an account has no factor.
type decoy struct {
	totp factor
	key  *ecdsa.PublicKey
}

// OpenFactors returns the factors in store. seal keeps their secrets from whoever
// reads the database.
func OpenFactors(ctx context.Context, store FactorStore, seal FactorSeal, cfg FactorsConfig, now time.Time) (*Factors, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if seal.Seal == nil || seal.Open == nil {
		return nil, errors.New("opening factors: secrets cannot be kept without a seal")
	}
	fs := &Factors{store: store, seal: seal, cfg: cfg}
	if fs.keys, err = newKeys(cfg); err != nil {
		return nil, fmt.Errorf("opening factors: %w", err)
	}
	fs.decoy.totp = factor{Factor: Factor{ID: rand.Text(), Kind: TOTP, State: FactorActive, Created: stored(now)}}
	if err := fs.put(&fs.decoy.totp, newSeed()); err != nil {
		return nil, fmt.Errorf("opening factors: %w", err)
	}
	if opened, err := fs.open(&fs.decoy.totp); err != nil || len(opened) != seedBytes {
		return nil, fmt.Errorf("opening factors: the seal does not open what it sealed: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("opening factors: %w", err)
	}
	fs.decoy.key = &key.PublicKey
	if _, err := store.factorsOf(ctx, ""); err != nil {
		return nil, fmt.Errorf("opening factors: %w", err)
	}
	return fs, nil
}

// associated ties a sealed secret to its authenticator and account: moved to another
// row it does not open.
func (f *factor) associated() []byte {
	return []byte("kidoban factor v1\x00" + string(f.Kind) + "\x00" + f.ID + "\x00" + f.Subject)
}

func (fs *Factors) put(f *factor, plain []byte) (err error) {
	if f.secret, err = fs.seal.Seal(plain, f.associated()); err != nil {
		return fmt.Errorf("sealing the secret of an authenticator: %w", err)
	}
	return nil
}

func (fs *Factors) open(f *factor) ([]byte, error) {
	plain, err := fs.seal.Open(f.secret, f.associated())
	if err != nil {
		return nil, fmt.Errorf("opening the secret of authenticator %s (is its key in the keyring?): %w", f.ID, err)
	}
	return plain, nil
}

// checkOwner refuses what cannot be an account.
func checkOwner(subject string) error {
	if subject == "" || utf8.RuneCountInString(subject) > personTextMax || !storable(subject) {
		return fmt.Errorf("a subject of %d bytes: want 1 to %d runes of UTF-8 without NUL", len(subject), personTextMax)
	}
	return nil
}

func checkFactorName(name string) error {
	if n := utf8.RuneCountInString(name); n == 0 || n > factorNameMax || !storable(name) || strings.TrimSpace(name) != name {
		return fmt.Errorf("a name of %d runes: want 1 to %d, no blanks around them", n, factorNameMax)
	}
	return nil
}

// List is the account's authenticators, the oldest first, disabled ones included.
func (fs *Factors) List(ctx context.Context, subject string) ([]Factor, error) {
	if checkOwner(subject) != nil {
		return nil, nil
	}
	all, err := fs.store.factorsOf(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("listing authenticators: %w", err)
	}
	var list []Factor
	for _, f := range all {
		if f.State != factorPending {
			list = append(list, f.Factor)
		}
	}
	return list, nil
}

// change changes one authenticator of an account. If it was so before, the notice is
// zero.
func (fs *Factors) change(ctx context.Context, subject, id string, by Act, now time.Time, kind FactorNoticeKind, do func(*owned, *factor) error) (f Factor, n FactorNotice, err error) {
	a, err := by.at(stored(now))
	if err != nil {
		return Factor{}, FactorNotice{}, err
	}
	if checkOwner(subject) != nil || !storable(id) {
		return Factor{}, FactorNotice{}, ErrNoFactor
	}
	err = fs.store.updateFactors(ctx, subject, nil, a, func(o *owned) error {
		found, err := o.find(id)
		if err != nil {
			return err
		}
		before := *found
		if err := do(o, found); err != nil {
			return err
		}
		if kind == FactorRemoved {
			f = before.Factor
		} else {
			f = found.Factor
			if found.equal(&before) {
				return nil
			}
		}
		n = o.tell(kind, &before, by.By, stored(now))
		return nil
	})
	if err != nil {
		return Factor{}, FactorNotice{}, err
	}
	return f, n, nil
}

// Rename gives an authenticator another name. The notice bears the former one.
func (fs *Factors) Rename(ctx context.Context, subject, id, name string, by Act, now time.Time) (Factor, FactorNotice, error) {
	if err := checkFactorName(name); err != nil {
		return Factor{}, FactorNotice{}, fmt.Errorf("renaming an authenticator: %w", err)
	}
	f, n, err := fs.change(ctx, subject, id, by, now, FactorRenamed, func(_ *owned, f *factor) error {
		f.Name = name
		return nil
	})
	if err != nil {
		return f, n, fmt.Errorf("renaming an authenticator: %w", err)
	}
	return f, n, nil
}

// Remove unbinds an authenticator for good. That it is the last one is no obstacle
// here.
func (fs *Factors) Remove(ctx context.Context, subject, id string, by Act, now time.Time) (Factor, FactorNotice, error) {
	f, n, err := fs.change(ctx, subject, id, by, now, FactorRemoved, func(o *owned, f *factor) error {
		o.drop(f.ID)
		return nil
	})
	if err != nil {
		return f, n, fmt.Errorf("removing an authenticator: %w", err)
	}
	return f, n, nil
}

// Disable suspends an authenticator, such as one that was lost (SP 800-63B-4
// section 4.3): it is good for nothing until Enable. by must say who did it. One
// that is disabled stays as it is, without a notice.
func (fs *Factors) Disable(ctx context.Context, subject, id string, by Act, now time.Time) (Factor, FactorNotice, error) {
	if by.By == "" || by.By == byThrottle {
		return Factor{}, FactorNotice{}, fmt.Errorf("disabling an authenticator: by %q: say who does it", by.By)
	}
	f, n, err := fs.change(ctx, subject, id, by, now, FactorWasDisabled, func(_ *owned, f *factor) error {
		if f.mustRebind() {
			return ErrRebind
		}
		if f.State == FactorActive {
			f.State, f.Disabled, f.DisabledBy = FactorDisabled, stored(now), by.By
		}
		return nil
	})
	if err != nil {
		return f, n, fmt.Errorf("disabling an authenticator: %w", err)
	}
	return f, n, nil
}

// Enable takes Disable back. Failures and delays stay as they are. What the
// throttle disabled stays so: ErrRebind.
func (fs *Factors) Enable(ctx context.Context, subject, id string, by Act, now time.Time) (Factor, FactorNotice, error) {
	f, n, err := fs.change(ctx, subject, id, by, now, FactorWasEnabled, func(_ *owned, f *factor) error {
		if f.mustRebind() {
			return ErrRebind
		}
		f.State, f.Disabled, f.DisabledBy = FactorActive, time.Time{}, ""
		return nil
	})
	if err != nil {
		return f, n, fmt.Errorf("enabling an authenticator: %w", err)
	}
	return f, n, nil
}

// Sweep forgets bindings and challenges that came to nothing, and returns how many.
func (fs *Factors) Sweep(ctx context.Context, now time.Time) (int, error) {
	now = stored(now)
	total := 0
	for {
		n, err := fs.store.forgetFactors(ctx, now, sweepBatch)
		total += n
		if err != nil {
			return total, fmt.Errorf("forgetting bindings that are over: %w", err)
		}
		if n < sweepBatch {
			return total, nil
		}
	}
}
