package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// What keeps a held login from going on. Callers branch on them.
var (
	// ErrNoHold means that there is no such held login, or not any more.
	ErrNoHold = errors.New("no such held login")
	// ErrHoldOver means that a held login is not in the state for this: its time is
	// over, somebody else was first, or it is another account's.
	ErrHoldOver = errors.New("the held login is over, or does not wait for this any more: log in again")
	// ErrTooManyHolds means that as many log-ins wait as may.
	ErrTooManyHolds = errors.New("too many log-ins wait for a second factor: try again in some minutes")
)

// HoldState is how far a held login is.
type HoldState string

const (
	HoldWaiting  HoldState = "waiting"  // for what it needs
	HoldApproved HoldState = "approved" // its answer may be released, once
	HoldReleased HoldState = "released" // it became a session
	HoldDenied   HoldState = "denied"   // by its owner, an operator or too many wrong codes
	HoldExpired  HoldState = "expired"  // nobody came in time, or too many others came
)

// HoldNeed is what a held login waits for.
type HoldNeed string

const (
	NeedFactor  HoldNeed = "factor"
	NeedConfirm HoldNeed = "confirm" // a mailed code
	NeedEnrol   HoldNeed = "enrol"   // a factor is to be bound first
)

// Hold is an accepted login whose answer waits for a factor. It is a value and
// holds no secret of ours; its code is one that the client shows to whoever sits
// before it.
type Hold struct {
	ID           string    `json:"id"` // public
	State        HoldState `json:"state"`
	Need         HoldNeed  `json:"need"`
	Subject      string    `json:"subject"`
	Organization string    `json:"organization,omitempty"`
	Device       string    `json:"device,omitempty"`      // id of our device cookie
	Client       string    `json:"client,omitempty"`      // words for people: "Firefox on Windows"
	ClientKind   string    `json:"client_kind,omitempty"` // browser, spa or native
	Fingerprint  [16]byte  `json:"-"`                     // of the client program, which must stay
	Network      string    `json:"network,omitempty"`     // where it was asked from, as the next two
	Source       string    `json:"source,omitempty"`
	Country      string    `json:"country,omitempty"`
	Attempt      [16]byte  `json:"-"` // keyed digest of name and password; zero: no login form
	Route        string    `json:"-"` // request URI it came on
	Method       string    `json:"-"`
	Return       string    `json:"-"` // path where the person wanted to go
	Code         string    `json:"-"` // XXXX-XXXX, which the client shows (RFC 8628 section 6.1)
	Matched      bool      `json:"matched,omitempty"`

	AAL        int        `json:"aal,omitempty"`         // what approved it is worth
	FactorKind FactorKind `json:"factor_kind,omitempty"` // "" for a mailed code
	Approved   time.Time  `json:"approved,omitzero"`
	ApprovedBy string     `json:"approved_by,omitempty"`

	Created     time.Time    `json:"created"`
	Expires     time.Time    `json:"expires"`               // good before this time, not at it
	Credentials []Credential `json:"credentials,omitempty"` // that the answer hands out or that asked for it; they go when the hold ends
	Ended       time.Time    `json:"ended,omitzero"`
	EndedBy     string       `json:"ended_by,omitempty"` // "release", "expiry", "displaced", "throttle", or what was given to Deny
}

// Nobody begins the subject of a hold that is no account's, and that nothing approves:
// it is kept to be asked about like any other. Nobody is told of its end, and it is
// forgotten when it is over.
const Nobody = "nobody "

// nobodys reports whether h is no account's.
func (h *hold) nobodys() bool { return strings.HasPrefix(h.Subject, Nobody) }

// Whoever ends a hold without being asked, beside expiry and throttle.
const (
	endedByRelease   = "release"
	endedByDisplaced = "displaced"
)

// Approval is what approves a hold.
type Approval struct {
	Hold       string     // its id
	AAL        int        // 1 to 3
	FactorKind FactorKind // "" for a mailed code; of an attempt with a factor it is that factor's
	By         string     // for people; "": whoever acts
}

func (a *Approval) check() error {
	switch {
	case a.AAL < 1 || a.AAL > 3:
		return fmt.Errorf("AAL %d: want 1 to 3", a.AAL)
	case a.FactorKind != "" && a.FactorKind != TOTP && a.FactorKind != Key && a.FactorKind != RecoveryCodes:
		return fmt.Errorf("unknown kind of factor %q: want %q, %q, %q, or nothing for a mailed code", a.FactorKind, TOTP, Key, RecoveryCodes)
	case !storable(a.Hold):
		return ErrNoHold
	case !storable(a.By):
		return errors.New("who approves is not a text")
	}
	return nil
}

// complete is check of an approval that a factor of that kind, or a mailed code, gave.
func (a *Approval) complete(kind FactorKind) error {
	if kind == "" && a.AAL > 1 {
		return fmt.Errorf("AAL %d without a factor: what is mailed is worth AAL 1", a.AAL)
	}
	return a.check()
}

// HoldsConfig bounds holds. Zero fields take the default.
type HoldsConfig struct {
	For        time.Duration // from Begin to the release; 10 min
	PerSubject int           // waiting ones of an account, of which one gives way; 16
	Max        int           // open ones; 100,000
	CodeTries  int           // wrong codes that deny it; 5
	KeepFor    time.Duration // after its end, without the answer, for the history; 30 days
}

func (c HoldsConfig) withDefaults() (HoldsConfig, error) {
	for _, d := range []struct {
		name string
		v    *time.Duration
		std  time.Duration
	}{{"For", &c.For, 10 * time.Minute}, {"KeepFor", &c.KeepFor, 30 * 24 * time.Hour}} {
		if *d.v < 0 {
			return c, fmt.Errorf("holds: %s is %v: want a positive duration, or 0 for %v", d.name, *d.v, d.std)
		}
		if *d.v == 0 {
			*d.v = d.std
		}
	}
	for _, n := range []struct {
		name string
		v    *int
		std  int
	}{{"PerSubject", &c.PerSubject, 16}, {"Max", &c.Max, 100_000}, {"CodeTries", &c.CodeTries, 5}} {
		if *n.v < 0 {
			return c, fmt.Errorf("holds: %s is %d: want a positive number, or 0 for %d", n.name, *n.v, n.std)
		}
		if *n.v == 0 {
			*n.v = n.std
		}
	}
	return c, nil
}

// Bounds.
const (
	holdAnswerMax      = 1 << 20 // bytes, before it is sealed
	holdCredentialsMax = 16
	holdURIMax         = 8 << 10 // bytes
	holdTextMax        = 320     // runes
	holdListMax        = 100     // holds that a list has
	holdAttemptMax     = 16      // holds of one pair that are looked at
)

// HoldStore keeps holds. The duties are those of [SessionStore].
type HoldStore interface {
	// insertHold stores h, open, with its sealed answer; it is ErrTooManyHolds if
	// limit are open. If the subject has perSubject waiting ones already, the one that
	// is to be displaced is passed to displace, which ends it, and is stored with what
	// it says.
	insertHold(ctx context.Context, h hold, answer []byte, perSubject, limit int, displace func(*hold) []FactorNotice) error

	// These return ErrNoHold when there is none.
	holdByToken(ctx context.Context, token tokenHash) (hold, error)
	holdByID(ctx context.Context, id string) (hold, error)
	// holdByCredential is the latest open one.
	holdByCredential(ctx context.Context, kind string, h CredentialHash) (hold, error)

	// These are up to limit of them, the newest first: open, open, ended.
	holdsByAttempt(ctx context.Context, attempt [16]byte, limit int) ([]hold, error)
	holdsOf(ctx context.Context, subject string, limit int) ([]hold, error)
	endedHoldsOf(ctx context.Context, subject string, limit int) ([]hold, error)

	// updateHold passes the hold to change and stores the result, with what it says,
	// unless it returns an error. When a hold ends, its answer and credentials go.
	updateHold(ctx context.Context, id string, a act, change func(*hold) ([]FactorNotice, error)) (hold, error)
	// expireHolds does the same with up to limit open ones whose Expires is at or before now.
	expireHolds(ctx context.Context, now time.Time, limit int, end func(*hold) []FactorNotice) (int, error)
	// holdAnswer is the sealed answer of an open hold, and nil of another one.
	holdAnswer(ctx context.Context, id string) (hold, []byte, error)
	// forgetHolds deletes up to limit holds that ended before then, or are nobody's.
	forgetHolds(ctx context.Context, then time.Time, limit int) (int, error)
}

// hold is a held login as it is stored.
type hold struct {
	Hold
	token tokenHash
	tries int // wrong codes
}

// open reports whether there is an answer that may be released some time.
func (h *hold) open() bool { return h.State == HoldWaiting || h.State == HoldApproved }

// over reports whether the time of an open hold is over.
func (h *hold) over(now time.Time) bool { return h.open() && !now.Before(h.Expires) }

// in is ErrHoldOver unless h is in that state and its time is not over.
func (h *hold) in(state HoldState, now time.Time) error {
	if h.State != state || h.over(now) {
		return ErrHoldOver
	}
	return nil
}

func (h *hold) end(state HoldState, by string, now time.Time) {
	h.State, h.Ended, h.EndedBy = state, now, by
}

// approvable is ErrHoldOver unless the account's factor may approve h.
func (h *hold) approvable(subject string, now time.Time) error {
	if h.Subject != subject {
		return ErrHoldOver
	}
	return h.in(HoldWaiting, now)
}

func (h *hold) approve(a *Approval, kind FactorKind, now time.Time) {
	h.State, h.AAL, h.FactorKind, h.Approved, h.ApprovedBy = HoldApproved, a.AAL, kind, now, a.By
}

// release is the release of h into a session of the subject.
func (h *hold) release(subject string, now time.Time) error {
	if h.Subject != subject {
		return ErrHoldOver
	}
	if err := h.in(HoldApproved, now); err != nil {
		return err
	}
	h.end(HoldReleased, endedByRelease, now)
	return nil
}

// notice is what the owner is told of the end of h.
func (h *hold) notice(kind FactorNoticeKind, by string, now time.Time) FactorNotice {
	return FactorNotice{
		ID: rand.Text(), Kind: kind, Subject: h.Subject, Factor: h.ID, By: by, At: now, Client: h.Client, Country: h.Country, Source: h.Source,
	}
}

// expire ends h. Somebody had the right password: if they gave no factor, the owner
// is to know (ASVS 5.0 6.3.5).
func (h *hold) expire(by string, now time.Time) (told []FactorNotice) {
	if h.State == HoldWaiting && h.Need != NeedConfirm && !h.nobodys() { // the mail with the code told of it
		told = append(told, h.notice(HoldUnanswered, "", now))
	}
	h.end(HoldExpired, by, now)
	return told
}

// deny ends h, and says what its owner is told of it.
func (h *hold) deny(by string, now time.Time) (told []FactorNotice) {
	h.end(HoldDenied, by, now)
	if h.nobodys() {
		return nil
	}
	return []FactorNotice{h.notice(HoldWasDenied, by, now)}
}

// displaced is which of an account's waiting holds, the newest first, gives way to one
// from a network: the oldest from where the most come. So whoever has the password and
// begins one after the other displaces his own, unless he has as many networks.
func displaced(waiting []hold, network string) hold {
	from := map[string]int{network: 1}
	for i := range waiting {
		from[waiting[i].Network]++
	}
	place := len(waiting) - 1
	for i := place; i >= 0; i-- {
		if from[waiting[i].Network] > from[waiting[place].Network] {
			place = i
		}
	}
	return waiting[place]
}

// view is h for callers. What is over is so from the moment its time is, swept or
// not.
func (h *hold) view(now time.Time) (Hold, error) {
	if h.over(now) {
		h.State = HoldExpired
	}
	if h.State == HoldExpired {
		return h.Hold, ErrHoldOver
	}
	return h.Hold, nil
}

// Holds is the held log-ins of all accounts: answers of a backend that accepted a
// password, sealed until a factor is given. Nothing of them is in memory, so what
// one node changes holds on all at once.
//
//	waiting -> approved -> released
//	   |           |
//	   +-----------+-----> denied, expired
//
// Every change is one transaction: of those who approve, release or end a hold at
// the same time, on whatever nodes, one wins and the others get [ErrHoldOver].
// When a hold ends, its answer is deleted and its credentials are forgotten.
type Holds struct {
	store HoldStore
	seal  FactorSeal
	cfg   HoldsConfig
}

// OpenHolds returns the holds in store. seal keeps answers from whoever reads the
// database.
func OpenHolds(ctx context.Context, store HoldStore, seal FactorSeal, cfg HoldsConfig, _ time.Time) (*Holds, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if seal.Seal == nil || seal.Open == nil {
		return nil, errors.New("opening holds: answers cannot be kept without a seal")
	}
	if _, err := store.holdByID(ctx, ""); err != nil && !errors.Is(err, ErrNoHold) {
		return nil, fmt.Errorf("opening holds: %w", err)
	}
	return &Holds{store: store, seal: seal, cfg: cfg}, nil
}

func (h *hold) associated() []byte {
	return []byte("kidoban hold v1\x00" + h.ID + "\x00" + h.Subject)
}

// check refuses what Begin cannot store.
func (h *Hold) check() error {
	if err := checkOwner(h.Subject); err != nil {
		return err
	}
	if h.Need != NeedFactor && h.Need != NeedConfirm && h.Need != NeedEnrol {
		return fmt.Errorf("unknown need %q: want %q, %q or %q", h.Need, NeedFactor, NeedConfirm, NeedEnrol)
	}
	for _, t := range []struct{ name, text string }{
		{"ID", h.ID}, {"Organization", h.Organization}, {"Device", h.Device}, {"Client", h.Client}, {"ClientKind", h.ClientKind},
		{"Network", h.Network}, {"Source", h.Source}, {"Country", h.Country}, {"Method", h.Method},
	} {
		if n := utf8.RuneCountInString(t.text); n > holdTextMax || !storable(t.text) {
			return fmt.Errorf("%s of %d runes: want at most %d of UTF-8 without NUL", t.name, n, holdTextMax)
		}
	}
	for _, t := range []struct{ name, text string }{{"Route", h.Route}, {"Return", h.Return}} {
		if len(t.text) > holdURIMax || !storable(t.text) {
			return fmt.Errorf("%s of %d bytes: want at most %d of UTF-8 without NUL", t.name, len(t.text), holdURIMax)
		}
	}
	if len(h.Credentials) > holdCredentialsMax {
		return fmt.Errorf("%d credentials: a hold has at most %d", len(h.Credentials), holdCredentialsMax)
	}
	return nil
}

// Begin holds a login back and returns it with its token, the secret for the holder
// cookie, which is not kept. Of h, subject and need are required; an empty ID, the
// code and the times are filled in. The answer, at most 1 MiB, is sealed.
//
// The seventeenth waiting login of an account takes the place of another one, whose
// owner is told as if its time were over: of the oldest from the network that the most
// of them come from.
func (hs *Holds) Begin(ctx context.Context, h Hold, answer []byte, now time.Time) (Hold, string, error) {
	fail := func(err error) (Hold, string, error) { return Hold{}, "", fmt.Errorf("holding a login: %w", err) }
	now = stored(now)
	if err := h.check(); err != nil {
		return fail(err)
	}
	if len(answer) > holdAnswerMax {
		return fail(fmt.Errorf("an answer of %d bytes: want at most %d", len(answer), holdAnswerMax))
	}
	if h.ID == "" {
		h.ID = rand.Text()
	}
	h.State, h.Matched, h.Code = HoldWaiting, false, newHoldCode()
	h.AAL, h.FactorKind, h.Approved, h.ApprovedBy = 0, "", time.Time{}, ""
	h.Created, h.Expires, h.Ended, h.EndedBy = now, now.Add(hs.cfg.For), time.Time{}, ""
	given := h.Credentials
	h.Credentials = nil
	for _, c := range given {
		twice := false
		for _, o := range h.Credentials {
			twice = twice || o.is(c.Kind, c.Hash)
		}
		if !storable(c.Kind) {
			return fail(errors.New("the kind of a credential is not a text"))
		}
		if !twice {
			h.Credentials = append(h.Credentials, Credential{Kind: c.Kind, Hash: c.Hash, Since: now})
		}
	}
	token := newToken()
	r := hold{Hold: h, token: hashHoldToken(token)}
	sealed, err := hs.seal.Seal(answer, r.associated())
	if err != nil {
		return fail(fmt.Errorf("sealing the answer: %w", err))
	}
	err = hs.store.insertHold(ctx, r, sealed, hs.cfg.PerSubject, hs.cfg.Max, func(old *hold) []FactorNotice {
		return old.expire(endedByDisplaced, now)
	})
	if err != nil {
		return fail(err)
	}
	return h, token, nil
}

// ByToken is the hold of a token, in whatever state. It returns ErrNoHold, also for
// what cannot be a token, or, with the hold, ErrHoldOver if its time is over.
func (hs *Holds) ByToken(ctx context.Context, token string, now time.Time) (Hold, error) {
	if !wellFormed(token) {
		return Hold{}, ErrNoHold
	}
	return hs.found(now)(hs.store.holdByToken(ctx, hashHoldToken(token)))
}

// ByID is ByToken for an id.
func (hs *Holds) ByID(ctx context.Context, id string, now time.Time) (Hold, error) {
	if !storable(id) {
		return Hold{}, ErrNoHold
	}
	return hs.found(now)(hs.store.holdByID(ctx, id))
}

// found is the answer to a look-up.
func (hs *Holds) found(now time.Time) func(hold, error) (Hold, error) {
	return func(h hold, err error) (Hold, error) {
		if errors.Is(err, ErrNoHold) {
			return Hold{}, ErrNoHold
		}
		if err != nil {
			return Hold{}, fmt.Errorf("reading a held login: %w", err)
		}
		return h.view(now)
	}
}

// ByCredential is the latest hold that waits or is approved and has the credential,
// or ErrNoHold.
func (hs *Holds) ByCredential(ctx context.Context, kind string, h CredentialHash, now time.Time) (Hold, error) {
	if !storable(kind) {
		return Hold{}, ErrNoHold
	}
	got, err := hs.found(now)(hs.store.holdByCredential(ctx, kind, h))
	if errors.Is(err, ErrHoldOver) {
		return Hold{}, ErrNoHold
	}
	return got, err
}

// ByAttempt is the holds of a pair of name and password that wait or are approved,
// the newest first, at most 16.
func (hs *Holds) ByAttempt(ctx context.Context, attempt [16]byte, now time.Time) ([]Hold, error) {
	if attempt == [16]byte{} {
		return nil, nil
	}
	return listed(now)(hs.store.holdsByAttempt(ctx, attempt, holdAttemptMax))
}

// OfSubject is the account's holds that wait or are approved, the newest first, at
// most 100.
func (hs *Holds) OfSubject(ctx context.Context, subject string, now time.Time) ([]Hold, error) {
	if checkOwner(subject) != nil {
		return nil, nil
	}
	return listed(now)(hs.store.holdsOf(ctx, subject, holdListMax))
}

// History is up to limit of the account's holds that ended, at most 100, the newest
// first.
func (hs *Holds) History(ctx context.Context, subject string, limit int) ([]Hold, error) {
	if checkOwner(subject) != nil || limit <= 0 {
		return nil, nil
	}
	all, err := hs.store.endedHoldsOf(ctx, subject, min(limit, holdListMax))
	if err != nil {
		return nil, fmt.Errorf("listing held log-ins: %w", err)
	}
	var list []Hold
	for i := range all {
		list = append(list, all[i].Hold)
	}
	return list, nil
}

// listed is those of a list whose time is not over.
func listed(now time.Time) func([]hold, error) ([]Hold, error) {
	return func(all []hold, err error) ([]Hold, error) {
		if err != nil {
			return nil, fmt.Errorf("listing held log-ins: %w", err)
		}
		var list []Hold
		for i := range all {
			if !all[i].over(now) {
				list = append(list, all[i].Hold)
			}
		}
		return list, nil
	}
}

// change changes one hold. With ErrHoldOver it returns the hold as it is.
func (hs *Holds) change(ctx context.Context, what, id string, a act, now time.Time, do func(*hold) ([]FactorNotice, error)) (Hold, error) {
	if !storable(id) {
		return Hold{}, fmt.Errorf("%s: %w", what, ErrNoHold)
	}
	var as Hold
	h, err := hs.store.updateHold(ctx, id, a, func(h *hold) ([]FactorNotice, error) {
		before := *h
		as, _ = before.view(now)
		return do(h)
	})
	switch {
	case errors.Is(err, ErrHoldOver):
		return as, fmt.Errorf("%s: %w", what, err)
	case err != nil:
		return Hold{}, fmt.Errorf("%s: %w", what, err)
	}
	return h.Hold, nil
}

// TypeCode compares what was typed, beside the link to the page that asks for it,
// with the code that the client shows: so nobody approves a client that they do not
// sit before. Case, blanks, hyphens and full width do not matter. A right code makes
// the hold Matched; a wrong one is ErrWrongCode, and the fifth of them denies the
// hold. What has not the form of a code is ErrMalformedCode and not counted.
//
// There are 20^8 codes: five tries find one with 2*10^-10.
func (hs *Holds) TypeCode(ctx context.Context, id, code string, now time.Time) (Hold, error) {
	now = stored(now)
	typed, ok := holdCode(code)
	if !ok {
		return Hold{}, ErrMalformedCode
	}
	var wrong error
	h, err := hs.change(ctx, "comparing a code", id, act{}, now, func(h *hold) ([]FactorNotice, error) {
		wrong = nil
		if err := h.in(HoldWaiting, now); err != nil {
			return nil, err
		}
		if subtle.ConstantTimeCompare([]byte(h.Code), []byte(typed)) == 1 {
			h.Matched = true
			return nil, nil
		}
		wrong = ErrWrongCode
		h.tries++
		if h.tries < hs.cfg.CodeTries {
			return nil, nil
		}
		return h.deny(byThrottle, now), nil
	})
	if err == nil {
		err = wrong
	}
	return h, err
}

// Need changes what a hold waits for.
func (hs *Holds) Need(ctx context.Context, id string, need HoldNeed, now time.Time) (Hold, error) {
	if need != NeedFactor && need != NeedConfirm && need != NeedEnrol {
		return Hold{}, fmt.Errorf("changing what a held login needs: unknown need %q: want %q, %q or %q", need, NeedFactor, NeedConfirm, NeedEnrol)
	}
	now = stored(now)
	return hs.change(ctx, "changing what a held login needs", id, act{}, now, func(h *hold) ([]FactorNotice, error) {
		if err := h.in(HoldWaiting, now); err != nil {
			return nil, err
		}
		h.Need = need
		return nil, nil
	})
}

// Approve approves a waiting hold. Where a factor or a slip approves it, pass the
// approval in the act of that attempt instead: so no code is used up for nothing.
func (hs *Holds) Approve(ctx context.Context, id string, approval Approval, by Act, now time.Time) (Hold, error) {
	const what = "approving a held login"
	now = stored(now)
	a, err := by.at(now)
	if err == nil && approval.Hold != "" && approval.Hold != id {
		err = fmt.Errorf("the approval is for %s, not for %s", approval.Hold, id)
	}
	if err == nil {
		err = approval.complete(approval.FactorKind)
	}
	if err != nil {
		return Hold{}, fmt.Errorf("%s: %w", what, err)
	}
	if approval.By == "" {
		approval.By = by.By
	}
	return hs.change(ctx, what, id, a, now, func(h *hold) ([]FactorNotice, error) {
		if err := h.in(HoldWaiting, now); err != nil {
			return nil, err
		}
		h.approve(&approval, approval.FactorKind, now)
		return nil, nil
	})
}

// Deny ends a hold that waits or is approved. Its answer goes, and its owner is told.
func (hs *Holds) Deny(ctx context.Context, id string, by Act, now time.Time) (Hold, error) {
	const what = "denying a held login"
	now = stored(now)
	a, err := by.at(now)
	if err != nil {
		return Hold{}, fmt.Errorf("%s: %w", what, err)
	}
	return hs.change(ctx, what, id, a, now, func(h *hold) ([]FactorNotice, error) {
		if !h.open() || h.over(now) {
			return nil, ErrHoldOver
		}
		return h.deny(by.By, now), nil
	})
}

// GiveUp ends a hold that its holder does not go on with. The owner is told as of one
// that nobody finished, if tell says so.
func (hs *Holds) GiveUp(ctx context.Context, id string, by Act, tell bool, now time.Time) (Hold, error) {
	const what = "giving a held login up"
	now = stored(now)
	a, err := by.at(now)
	if err != nil {
		return Hold{}, fmt.Errorf("%s: %w", what, err)
	}
	return hs.change(ctx, what, id, a, now, func(h *hold) (told []FactorNotice, err error) {
		if !h.open() || h.over(now) {
			return nil, ErrHoldOver
		}
		if tell {
			told = h.expire(by.By, now)
		}
		h.end(HoldExpired, by.By, now)
		return told, nil
	})
}

// Answer is the answer that is held back: of an approved hold, to be released by
// [Sessions.BeginAct]; of a waiting one, to log out at the backend. Of one that
// ended it is ErrHoldOver.
func (hs *Holds) Answer(ctx context.Context, id string) ([]byte, error) {
	if !storable(id) {
		return nil, ErrNoHold
	}
	h, sealed, err := hs.store.holdAnswer(ctx, id)
	switch {
	case errors.Is(err, ErrNoHold):
		return nil, ErrNoHold
	case err != nil:
		return nil, fmt.Errorf("reading a held answer: %w", err)
	case !h.open():
		return nil, ErrHoldOver
	}
	plain, err := hs.seal.Open(sealed, h.associated())
	if err != nil {
		return nil, fmt.Errorf("opening the answer of hold %s (is its key in the keyring?): %w", id, err)
	}
	return plain, nil
}

// Sweep ends the holds whose time is over, with a notice to the owner of each that
// still waited, and forgets those that ended long ago. It returns how many it ended.
// Nothing waits for it but the notices: a hold is over on time without.
func (hs *Holds) Sweep(ctx context.Context, now time.Time) (int, error) {
	now = stored(now)
	ended := 0
	for {
		n, err := hs.store.expireHolds(ctx, now, sweepBatch, func(h *hold) []FactorNotice { return h.expire(endedByExpiry, now) })
		ended += n
		if err != nil {
			return ended, fmt.Errorf("expiring held log-ins: %w", err)
		}
		if n < sweepBatch {
			break
		}
	}
	for {
		n, err := hs.store.forgetHolds(ctx, now.Add(-hs.cfg.KeepFor), sweepBatch)
		if err != nil {
			return ended, fmt.Errorf("forgetting held log-ins: %w", err)
		}
		if n < sweepBatch {
			return ended, nil
		}
	}
}

// hashHoldToken keeps tokens of holds apart from those of sessions.
func hashHoldToken(token string) tokenHash {
	return sha256.Sum256([]byte("kidoban hold token v1\x00" + token))
}

// The letters of a code: no vowels, so that it makes no word, and none that looks
// like another one (RFC 8628 section 6.1).
const (
	holdAlphabet = "BCDFGHJKLMNPQRSTVWXZ"
	holdLetters  = 8
)

func newHoldCode() string {
	code := make([]byte, 0, holdLetters)
	for len(code) < holdLetters {
		var b [16]byte
		rand.Read(b[:])
		for _, v := range b {
			// A multiple of 20, so that all letters are as likely.
			if v < 240 && len(code) < holdLetters {
				code = append(code, holdAlphabet[int(v)%len(holdAlphabet)])
			}
		}
	}
	return string(code[:4]) + "-" + string(code[4:])
}

// holdCode reads a code as people type it.
func holdCode(typed string) (code string, ok bool) {
	plain, ok := plainCode(typed)
	if !ok || len(plain) != holdLetters {
		return "", false
	}
	for i := range len(plain) {
		if strings.IndexByte(holdAlphabet, plain[i]) < 0 {
			return "", false
		}
	}
	return plain[:4] + "-" + plain[4:], true
}
