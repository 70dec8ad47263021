package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// ErrNoSlip means that there is no such slip, or that it is not open: it was used,
// cancelled or replaced, or its time is over.
var ErrNoSlip = errors.New("there is no such slip, or it is not open any more")

// SlipPurpose is what a slip is good for.
type SlipPurpose string

const (
	SlipConfirm   SlipPurpose = "confirm"    // 8 digits, mailed, typed where a login is held; no factor
	SlipEnrolLink SlipPurpose = "enrol_link" // 256 bits in a mailed link: evidence for binding a factor
	SlipEnrolCode SlipPurpose = "enrol_code" // 128 bits from an administrator or operator: the same
	SlipRecovery  SlipPurpose = "recovery"   // 128 bits, mailed after a time in which it can be cancelled
	SlipRemember  SlipPurpose = "remember"   // nobody types it: a device, or a hold, is remembered
)

// standard is how long a slip is good unless its maker says otherwise; 0: no such
// purpose. A mailed code of a login lives as long as that (SP 800-63B-4 section
// 3.1.3.2), other mailed ones a day (section 4.2.1.2).
func (p SlipPurpose) standard() time.Duration {
	switch p {
	case SlipConfirm:
		return 10 * time.Minute
	case SlipEnrolLink, SlipEnrolCode, SlipRecovery, SlipRemember:
		return 24 * time.Hour
	}
	return 0
}

// longest is how long a slip may be good.
func (p SlipPurpose) longest() time.Duration {
	switch p {
	case SlipConfirm, SlipRecovery:
		return p.standard()
	}
	return slipMax
}

// Slip is a secret that works once: a value, without the secret.
type Slip struct {
	ID        string      `json:"id"` // public
	Subject   string      `json:"subject"`
	For       string      `json:"for,omitempty"` // what it is bound to, such as the id of a hold; a confirmation always is
	Purpose   SlipPurpose `json:"purpose"`
	By        string      `json:"by,omitempty"` // who made it, for people
	Created   time.Time   `json:"created"`
	NotBefore time.Time   `json:"not_before"`
	Expires   time.Time   `json:"expires"` // good before this time, not at it
	Used      time.Time   `json:"used,omitzero"`
	UsedFor   string      `json:"used_for,omitempty"` // id of a session or hold
	Cancelled time.Time   `json:"cancelled,omitzero"`
}

// open reports whether s is neither used nor cancelled nor over. It may not be good
// yet.
func (s *Slip) open(now time.Time) bool {
	return s.Used.IsZero() && s.Cancelled.IsZero() && now.Before(s.Expires)
}

// good reports whether s may be used at now.
func (s *Slip) good(now time.Time) bool { return s.open(now) && !now.Before(s.NotBefore) }

// Bounds.
const (
	slipMax      = 30 * 24 * time.Hour // until a slip is good, and until it is over after that
	slipKeep     = 30 * 24 * time.Hour // after that
	slipOpenMax  = 32                  // of an account and purpose; the oldest gives way
	slipListMax  = 4 * slipOpenMax
	slipDueMax   = 500
	slipTextMax  = 256 // bytes of For and UsedFor
	evidenceFor  = 30 * time.Minute
	slipCap      = 20 // failures in a row
	slipCapFor   = 24 * time.Hour
	confirmCodes = 100_000_000
)

// SlipStore keeps slips. The duties are those of [SessionStore].
type SlipStore interface {
	// insertSlip stores s. Those of its account, purpose and For that are neither used
	// nor cancelled are cancelled at its time of creation, and so is the oldest of
	// slipOpenMax of that account and purpose.
	insertSlip(ctx context.Context, s slip, a act) error

	// trySlip passes the account's slip of a purpose and For, the latest that is
	// neither used nor cancelled, or nil, and its failures with that purpose to try,
	// and stores both. If that says that the slip was used, the entry that the act
	// carries and the approval of a hold happen too.
	trySlip(ctx context.Context, purpose SlipPurpose, subject, forWhat string, a act, try func(*slip, *slipFailures) (used bool)) error
	// updateSlip passes the slip to change and stores the result, unless change
	// returns an error. A hold that the act approves is approved with it.
	updateSlip(ctx context.Context, find slipKey, a act, change func(*slip) error) (slip, error)

	// slipBy returns ErrNoSlip when there is none.
	slipBy(ctx context.Context, find slipKey) (slip, error)
	// openSlips is up to limit of the account's open slips, the newest first.
	openSlips(ctx context.Context, subject string, now time.Time, limit int) ([]slip, error)
	// dueSlips is up to limit open slips of a purpose that are good but have no secret
	// yet, the first due first.
	dueSlips(ctx context.Context, purpose SlipPurpose, now time.Time, limit int) ([]slip, error)
	// usedSlips is the purposes of slips that were used for a session or hold after
	// then, if that is of the account whose slips they were.
	usedSlips(ctx context.Context, usedFor string, then time.Time) ([]SlipPurpose, error)
	// forgetSlips deletes up to limit slips that were over before then.
	forgetSlips(ctx context.Context, then time.Time, limit int) (int, error)
}

// slip is a slip as it is stored.
type slip struct {
	Slip
	salt   [16]byte
	secret *[sha256.Size]byte // nil: it has none yet
}

// slipKey is what a slip is found by: its id, or its hash.
type slipKey struct {
	id     string
	secret [sha256.Size]byte
}

// slipFailures is the wrong secrets in a row of an account and purpose.
type slipFailures struct {
	failures int
	next     time.Time // no attempt is looked at before
}

// charge notes an attempt that has not succeeded yet.
func (f *slipFailures) charge(now time.Time) {
	f.failures = min(f.failures+1, failuresMax)
	switch {
	case f.failures >= slipCap:
		f.next = now.Add(slipCapFor)
	case f.failures >= slowFrom:
		f.next = now.Add(min(30*time.Second<<(f.failures-slowFrom), time.Hour))
	}
}

// Slips is secrets that work once: mailed codes and links, codes of administrators,
// recoveries of accounts. Nothing of them is in memory.
//
// # Throttling
//
// Wrong secrets in a row are counted for each purpose of an account, in SQL and in
// the transaction that compares, whether there is a slip or not. From the fifth on
// each is followed by a time in which no attempt is looked at, nor counted: 30 s,
// doubled each time up to 1 h. From the twentieth on it is 24 h each. A success sets
// the count back, and nothing else does: a new slip does not (SP 800-63B-4 section
// 3.1.3.2). Links are found by 256 bits, which nobody guesses: they are not counted.
//
// # What guessing is worth
//
// Eight digits are one of 10^8: 20 guesses find one with 2*10^-7, and 365 more in
// a year with 4*10^-6, for whoever has the right password and holds the login that
// it was mailed for. Codes of 128 bits are not guessed.
//
// # What is kept
//
// SHA-256 of each secret. For those of 128 bits and more that is enough (SP
// 800-63B-4 section 3.1.2.2). Eight digits are hashed with 128 bits of salt: who
// reads the database can try them all, and has a number that is good for ten
// minutes, once, and for nobody but the client that holds that login.
type Slips struct{ store SlipStore }

// OpenSlips returns the slips in store.
func OpenSlips(ctx context.Context, store SlipStore, _ time.Time) (*Slips, error) {
	if _, err := store.slipBy(ctx, slipKey{}); err != nil && !errors.Is(err, ErrNoSlip) {
		return nil, fmt.Errorf("opening slips: %w", err)
	}
	return &Slips{store}, nil
}

// newSecret gives s a secret.
func (s *slip) newSecret() (secret string) {
	var plain []byte
	switch s.Purpose {
	case SlipConfirm:
		n, err := rand.Int(rand.Reader, big.NewInt(confirmCodes))
		if err != nil {
			panic(err) // it never fails
		}
		rand.Read(s.salt[:])
		secret = fmt.Sprintf("%08d", n)
		plain = []byte(secret)
	case SlipEnrolLink:
		secret = newToken()
		plain = []byte(secret)
	default:
		var code recoverySecret
		rand.Read(code[:])
		secret, plain = code.String(), code[:]
	}
	h := hashSlip(s.Purpose, s.salt, plain)
	s.secret = &h
	return secret
}

func hashSlip(purpose SlipPurpose, salt [16]byte, secret []byte) [sha256.Size]byte {
	b := append([]byte("kidoban slip v1\x00"+string(purpose)+"\x00"), salt[:]...)
	return sha256.Sum256(append(b, secret...))
}

// read reads a secret as people type it.
func (p SlipPurpose) read(typed string) (secret []byte, ok bool) {
	switch p {
	case SlipConfirm:
		plain, ok := plainCode(typed)
		if !ok || len(plain) != 8 {
			return nil, false
		}
		for _, c := range []byte(plain) {
			if c < '0' || c > '9' {
				return nil, false
			}
		}
		return []byte(plain), true
	case SlipEnrolLink:
		return []byte(typed), wellFormed(typed)
	}
	code, ok := recoveryCode(typed)
	return code[:], ok
}

func checkSlipText(name, text string) error {
	if len(text) > slipTextMax || !storable(text) {
		return fmt.Errorf("%s of %d bytes: want at most %d of UTF-8 without NUL", name, len(text), slipTextMax)
	}
	return nil
}

// Issue makes a slip and returns it with its secret, which is not kept. Of s, the
// subject and purpose are required; an empty ID and the times are filled in. It is
// good from NotBefore on, or at once, and until Expires, at most 30 days each; a
// confirmation for 10 min at most, and without Expires; others for a day without.
// An open slip of the same account, purpose and For is cancelled.
//
// A recovery has a NotBefore that lies ahead, and gets its secret by Ripen then:
// none is returned. It may be ripened within 30 days.
func (ss *Slips) Issue(ctx context.Context, s Slip, by Act, now time.Time) (Slip, string, error) {
	fail := func(err error) (Slip, string, error) { return Slip{}, "", fmt.Errorf("issuing a slip: %w", err) }
	now = stored(now)
	standard := s.Purpose.standard()
	if standard == 0 {
		return fail(fmt.Errorf("unknown purpose %q: want %q, %q, %q or %q", s.Purpose, SlipConfirm, SlipEnrolLink, SlipEnrolCode, SlipRecovery))
	}
	a, err := by.at(now)
	if err == nil {
		err = errors.Join(checkOwner(s.Subject), checkSlipText("ID", s.ID), checkSlipText("For", s.For))
	}
	if err != nil {
		return fail(err)
	}
	if s.Purpose == SlipConfirm && s.For == "" {
		return fail(errors.New("a confirmation of nothing: want the id of a hold in For"))
	}
	if s.ID == "" {
		s.ID = rand.Text()
	}
	if s.By == "" {
		s.By = by.By
	}
	if !storable(s.By) {
		return fail(errors.New("who made it is not a text"))
	}
	s.Created, s.Used, s.UsedFor, s.Cancelled = now, time.Time{}, "", time.Time{}
	s.NotBefore, s.Expires = stored(s.NotBefore), stored(s.Expires)
	if s.NotBefore.IsZero() {
		s.NotBefore = now
	}
	longest := s.Purpose.longest()
	if s.Purpose == SlipRecovery {
		longest = slipMax // to be ripened
		if !s.NotBefore.After(now) {
			return fail(fmt.Errorf("a recovery that is due at %v: want a time ahead in which it can be cancelled", s.NotBefore))
		}
		s.Expires = s.NotBefore.Add(slipMax)
	}
	if s.Expires.IsZero() {
		s.Expires = s.NotBefore.Add(standard)
	}
	if s.NotBefore.Before(now) || s.NotBefore.Sub(now) > slipMax || !s.Expires.After(s.NotBefore) || s.Expires.Sub(s.NotBefore) > longest {
		return fail(fmt.Errorf("good from %v to %v: want it from now or within %v, and for at most %v", s.NotBefore, s.Expires, slipMax, longest))
	}
	r, secret := slip{Slip: s}, ""
	if s.Purpose != SlipRecovery {
		secret = r.newSecret()
	}
	if err := ss.store.insertSlip(ctx, r, a); err != nil {
		return fail(err)
	}
	return s, secret, nil
}

// Use uses up the account's slip of that purpose and For. Whatever is wrong is
// ErrWrongCode, for the same work; what cannot be a secret is ErrMalformedCode, and
// not counted. usedFor is the id of the session or hold that it was used for.
//
// An entry that the act carries is on record as having happened, and a hold that it
// approves is approved, if and only if the secret was good; a hold that does not
// wait, or is another account's, is ErrHoldOver, and nothing is looked at.
func (ss *Slips) Use(ctx context.Context, purpose SlipPurpose, subject, forWhat, secret, usedFor string, by Act, now time.Time) (Slip, error) {
	now = stored(now)
	a, err := ss.using(by, usedFor, now)
	if err != nil {
		return Slip{}, err
	}
	plain, ok := purpose.read(secret)
	if !ok {
		return Slip{}, ErrMalformedCode
	}
	if purpose.standard() == 0 || checkOwner(subject) != nil || checkSlipText("For", forWhat) != nil {
		return Slip{}, ErrWrongCode
	}
	var got *slip
	err = ss.store.trySlip(ctx, purpose, subject, forWhat, a, func(s *slip, f *slipFailures) bool {
		got = nil
		waiting := now.Before(f.next)
		if !waiting {
			f.charge(now)
		}
		real := s != nil && s.secret != nil && s.good(now) && !waiting
		if !real { // for the time it takes
			s = &slip{secret: new([sha256.Size]byte)}
		}
		h := hashSlip(purpose, s.salt, plain)
		if subtle.ConstantTimeCompare(h[:], s.secret[:]) != 1 || !real {
			return false
		}
		*f = slipFailures{}
		s.Used, s.UsedFor = now, usedFor
		got = s
		return true
	})
	if err != nil {
		return Slip{}, fmt.Errorf("using a slip: %w", err)
	}
	if got == nil {
		return Slip{}, ErrWrongCode
	}
	return got.Slip, nil
}

func (ss *Slips) using(by Act, usedFor string, now time.Time) (act, error) {
	a, err := by.approving(now)
	if err == nil && a.approve != nil {
		err = a.approve.complete("")
	}
	if err == nil {
		err = checkSlipText("UsedFor", usedFor)
	}
	if err != nil {
		return act{}, fmt.Errorf("using a slip: %w", err)
	}
	return a, nil
}

// UseToken is Use of a link, which says by itself whose it is.
func (ss *Slips) UseToken(ctx context.Context, purpose SlipPurpose, token, usedFor string, by Act, now time.Time) (Slip, error) {
	now = stored(now)
	a, err := ss.using(by, usedFor, now)
	if err != nil {
		return Slip{}, err
	}
	key, ok := linkKey(purpose, token)
	if !ok {
		return Slip{}, ErrMalformedCode
	}
	s, err := ss.store.updateSlip(ctx, key, a, func(s *slip) error {
		if s.Purpose != purpose || !s.good(now) {
			return ErrNoSlip
		}
		s.Used, s.UsedFor = now, usedFor
		return nil
	})
	if errors.Is(err, ErrNoSlip) {
		return Slip{}, ErrWrongCode
	}
	if err != nil {
		return Slip{}, fmt.Errorf("using a slip: %w", err)
	}
	return s.Slip, nil
}

// linkKey is what a slip of a link is found by.
func linkKey(purpose SlipPurpose, token string) (slipKey, bool) {
	if purpose != SlipEnrolLink || !wellFormed(token) {
		return slipKey{}, false
	}
	return slipKey{secret: hashSlip(purpose, [16]byte{}, []byte(token))}, true
}

// Peek is UseToken without using it: for the page that asks whether to, since
// scanners of mail follow links.
func (ss *Slips) Peek(ctx context.Context, purpose SlipPurpose, token string, now time.Time) (Slip, error) {
	key, ok := linkKey(purpose, token)
	if !ok {
		return Slip{}, ErrMalformedCode
	}
	s, err := ss.store.slipBy(ctx, key)
	switch {
	case errors.Is(err, ErrNoSlip), err == nil && (s.Purpose != purpose || !s.good(now)):
		return Slip{}, ErrWrongCode
	case err != nil:
		return Slip{}, fmt.Errorf("reading a slip: %w", err)
	}
	return s.Slip, nil
}

// Evidence reports whether, in the last 30 min, somebody proved for this session or
// hold that they are the owner of its account: with a link, a code of an
// administrator, or a recovery. A slip of another account proves nothing.
func (ss *Slips) Evidence(ctx context.Context, usedFor string, now time.Time) (bool, error) {
	if usedFor == "" || checkSlipText("UsedFor", usedFor) != nil {
		return false, nil
	}
	purposes, err := ss.store.usedSlips(ctx, usedFor, stored(now).Add(-evidenceFor))
	if err != nil {
		return false, fmt.Errorf("looking for evidence: %w", err)
	}
	for _, p := range purposes {
		if p == SlipEnrolLink || p == SlipEnrolCode || p == SlipRecovery {
			return true, nil
		}
	}
	return false, nil
}

// Open is the account's slips that are neither used nor cancelled nor over, the
// newest first, at most 128.
func (ss *Slips) Open(ctx context.Context, subject string, now time.Time) ([]Slip, error) {
	if checkOwner(subject) != nil {
		return nil, nil
	}
	return slipsIn(ss.store.openSlips(ctx, subject, stored(now), slipListMax))
}

func slipsIn(all []slip, err error) ([]Slip, error) {
	if err != nil {
		return nil, fmt.Errorf("listing slips: %w", err)
	}
	var list []Slip
	for i := range all {
		list = append(list, all[i].Slip)
	}
	return list, nil
}

// Cancel makes an open slip good for nothing. It returns ErrNoSlip when it is not
// open; then the act did not happen.
func (ss *Slips) Cancel(ctx context.Context, id string, by Act, now time.Time) (Slip, error) {
	now = stored(now)
	a, err := by.at(now)
	if err == nil && (id == "" || checkSlipText("ID", id) != nil) {
		err = ErrNoSlip
	}
	if err != nil {
		return Slip{}, fmt.Errorf("cancelling a slip: %w", err)
	}
	s, err := ss.store.updateSlip(ctx, slipKey{id: id}, a, func(s *slip) error {
		if !s.open(now) {
			return ErrNoSlip
		}
		s.Cancelled = now
		return nil
	})
	if err != nil {
		return Slip{}, fmt.Errorf("cancelling a slip: %w", err)
	}
	return s.Slip, nil
}

// Remember notes that a device or a hold is remembered by an account until then. It is
// no secret: whoever shows what is remembered proves it otherwise.
func (ss *Slips) Remember(ctx context.Context, subject, what string, until, now time.Time) error {
	_, _, err := ss.Issue(ctx, Slip{Purpose: SlipRemember, Subject: subject, For: what, Expires: until}, Act{}, now)
	return err
}

// Remembers reports whether an account remembers a device or a hold.
func (ss *Slips) Remembers(ctx context.Context, subject, what string, now time.Time) (bool, error) {
	all, err := ss.Open(ctx, subject, now)
	if err != nil || what == "" {
		return false, err
	}
	return slices.ContainsFunc(all, func(s Slip) bool { return s.Purpose == SlipRemember && s.For == what }), nil
}

// Due is up to limit open slips of a purpose, at most 500, whose NotBefore came and
// that Ripen has given no secret yet, the first due first.
func (ss *Slips) Due(ctx context.Context, purpose SlipPurpose, now time.Time, limit int) ([]Slip, error) {
	if limit <= 0 || !storable(string(purpose)) {
		return nil, nil
	}
	return slipsIn(ss.store.dueSlips(ctx, purpose, stored(now), min(limit, slipDueMax)))
}

// Ripen gives a slip that is due its secret, which is good for ttl, at most a day
// for a recovery (SP 800-63B-4 section 4.2.1.2); 0 is a day. Of several nodes that try, one gets it and the others ErrNoSlip.
func (ss *Slips) Ripen(ctx context.Context, id string, ttl time.Duration, now time.Time) (Slip, string, error) {
	fail := func(err error) (Slip, string, error) { return Slip{}, "", fmt.Errorf("ripening a slip: %w", err) }
	now = stored(now)
	if ttl == 0 {
		ttl = SlipRecovery.standard()
	}
	if longest := SlipRecovery.longest(); ttl < time.Microsecond || ttl > longest {
		return fail(fmt.Errorf("good for %v: want at most %v", ttl, longest))
	}
	if id == "" || checkSlipText("ID", id) != nil {
		return fail(ErrNoSlip)
	}
	var secret string
	s, err := ss.store.updateSlip(ctx, slipKey{id: id}, act{}, func(s *slip) error {
		if s.secret != nil || !s.good(now) {
			return ErrNoSlip
		}
		secret = s.newSecret()
		s.Expires = stored(now.Add(ttl))
		return nil
	})
	if err != nil {
		return fail(err)
	}
	return s.Slip, secret, nil
}

// Sweep forgets slips that were over 30 days ago, and returns how many.
func (ss *Slips) Sweep(ctx context.Context, now time.Time) (int, error) {
	then := stored(now).Add(-slipKeep)
	total := 0
	for {
		n, err := ss.store.forgetSlips(ctx, then, sweepBatch)
		total += n
		if err != nil {
			return total, fmt.Errorf("forgetting slips: %w", err)
		}
		if n < sweepBatch {
			return total, nil
		}
	}
}
