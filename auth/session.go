package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// What keeps a token or a credential from opening anything. Callers branch on them.
var (
	ErrNoSession    = errors.New("no such session")
	ErrSessionEnded = errors.New("the session has ended")
	ErrExpired      = errors.New("the session is older than it may be, or was idle for too long")
)

// SessionKind is how the client proves a session.
type SessionKind string

const (
	// BrowserSession is proven by our cookie; the backend's cookies are good only with it.
	BrowserSession SessionKind = "browser"
	// TokenSession is proven by the backend's own header credential, as programs use.
	TokenSession SessionKind = "token"
)

// Session is our record that binds an account, a device, the backend's
// credentials and how sure we are. It is a value: what Sessions hands out is
// never changed afterwards, and callers must not change it either. It holds no secret.
type Session struct {
	ID           string        `json:"id"` // public: for people, logs and operators
	Kind         SessionKind   `json:"kind"`
	Subject      string        `json:"subject"` // the backend's stable identifier of the account
	Organization string        `json:"organization,omitempty"`
	Device       string        `json:"device,omitempty"`  // id of our device cookie
	Client       string        `json:"client,omitempty"`  // words for people: "Firefox on Windows"
	AAL          int           `json:"aal"`               // authenticator assurance level, 1 to 3; see AALAt
	Verified     time.Time     `json:"verified,omitzero"` // when a factor was given last
	Factor       FactorKind    `json:"factor,omitempty"`  // which; "" for none and for a mailed code
	Rested       time.Duration `json:"rested,omitempty"`  // the longest time without use since Verified; to the minute
	Created      time.Time     `json:"created"`
	Seen         time.Time     `json:"seen"`              // last use, to the minute
	Expires      time.Time     `json:"expires,omitzero"`  // good before this time, not at it; zero, only for tokens: no such time
	Source       string        `json:"source,omitempty"`  // client address at birth
	Country      string        `json:"country,omitempty"` // of it
	Credentials  []Credential  `json:"credentials,omitempty"`
	Ended        time.Time     `json:"ended,omitzero"`
	EndedBy      string        `json:"ended_by,omitempty"` // "login", "expiry", or what was given to End
}

// Holds reports whether the credential of that kind and hash is the session's own
// and good at now. It does not look at whether the session is over.
func (s *Session) Holds(kind string, h CredentialHash, now time.Time) bool {
	i := s.find(kind, h)
	return i >= 0 && s.Credentials[i].good(now)
}

func (s *Session) find(kind string, h CredentialHash) int {
	for i := range s.Credentials {
		if s.Credentials[i].is(kind, h) {
			return i
		}
	}
	return -1
}

// AALAt is what the session is worth at now: its AAL, but 1 from overall after the
// last factor on, or if it was not used for as long as idle since then (SP 800-63B-4
// section 2.2.3). Its use does not bring the AAL back; Raise does.
func (s *Session) AALAt(now time.Time, overall, idle time.Duration) int {
	if s.AAL > 1 && (now.Sub(s.Verified) >= overall || max(s.Rested, now.Sub(s.Seen)) >= idle) {
		return 1
	}
	return s.AAL
}

// rest notes the time without use that ends at now.
func (s *Session) rest(now time.Time) { s.Rested = max(s.Rested, now.Sub(s.Seen)) }

// Whoever ends a session without being asked.
const (
	endedByLogin  = "login"
	endedByExpiry = "expiry"
)

// SessionsConfig bounds sessions. Zero fields take the default.
type SessionsConfig struct {
	Overall        time.Duration // from Begin, for browsers; 30 days (SP 800-63B-4 section 2.1.3)
	Idle           time.Duration // from the last use, for browsers; 14 days
	PreviousFor    time.Duration // a replaced credential or token lives on; 60 s
	TombstoneFor   time.Duration // an ended browser session stays known; 90 days
	MaxCredentials int           // of a session, replaced ones included; 8
	CacheSize      int           // sessions in memory, about 1 KiB each; 200,000
}

func (c SessionsConfig) withDefaults() (SessionsConfig, error) {
	for _, d := range []struct {
		name string
		v    *time.Duration
		std  time.Duration
	}{
		{"Overall", &c.Overall, 30 * 24 * time.Hour},
		{"Idle", &c.Idle, 14 * 24 * time.Hour},
		{"PreviousFor", &c.PreviousFor, time.Minute},
		{"TombstoneFor", &c.TombstoneFor, 90 * 24 * time.Hour},
	} {
		if *d.v < 0 {
			return c, fmt.Errorf("sessions: %s is %v: want a positive duration, or 0 for %v", d.name, *d.v, d.std)
		}
		if *d.v == 0 {
			*d.v = d.std
		}
	}
	if c.Idle < 2*seenEvery {
		return c, fmt.Errorf("sessions: Idle is %v: want at least %v, because use is noted once in %v", c.Idle, 2*seenEvery, seenEvery)
	}
	for _, n := range []struct {
		name string
		v    *int
		std  int
	}{{"MaxCredentials", &c.MaxCredentials, 8}, {"CacheSize", &c.CacheSize, 200_000}} {
		if *n.v < 0 {
			return c, fmt.Errorf("sessions: %s is %d: want a positive number, or 0 for %d", n.name, *n.v, n.std)
		}
		if *n.v == 0 {
			*n.v = n.std
		}
	}
	return c, nil
}

const (
	seenEvery  = time.Minute      // Touch is coalesced to this
	absentFor  = 30 * time.Second // an unknown token or credential is not asked about again
	absentMax  = 1 << 16          // of them are remembered, 24 bytes each
	listMax    = 1000             // sessions OfSubject returns
	sweepBatch = 500              // sessions a transaction of Sweep writes
	lateUse    = 30 * time.Second // other nodes have swept, and so stored the use of sessions, in this time
	// A session that was not used here for so long is looked up, where there are other nodes.
	restlessAfter = 5 * time.Minute
)

// SessionStore keeps sessions. [SQLStore] and [MemoryStore] are the two there are.
//
// A method that changes something has made it durable when it returns without
// error, and has changed nothing when it returns one, unless the error is
// [ErrUncertain]: then it may have. All are safe for concurrent use; changes do not
// overlap, also those of several stores on one database. Functions that are passed
// in see a private copy, may be called again, and must not call the store.
//
// A change that is passed an act with an entry stores the entry with it, and is
// refused with [ErrActed] if there is one already.
type SessionStore interface {
	// insertSession stores r. Each of its credentials is taken from the session
	// that has it; that session is passed to loses, which may end it, and is stored
	// and returned. An id or token that is taken is an error. If the act releases a
	// hold, that is released; it is ErrHoldOver unless that is approved and the account's.
	insertSession(ctx context.Context, r record, a act, loses func(*Session)) (changed []record, err error)

	// These return ErrNoSession when there is none; sessions that ended are found, by
	// token also those that had it before.
	sessionByToken(ctx context.Context, token tokenHash) (record, error)
	sessionByCredential(ctx context.Context, kind string, h CredentialHash) (record, error)
	sessionByID(ctx context.Context, id string) (record, error)

	// updateSession passes the session to change and stores the result, its next
	// version, unless change returns an error. Only credentials, tokens, assurance, end
	// and Seen may change, and Seen never moves back. A credential that another session has, even an ended one, is an error.
	updateSession(ctx context.Context, id string, a act, change func(*record) error) (record, error)

	// endSessions passes each session of the subject that has not ended to end and
	// stores the results.
	endSessions(ctx context.Context, subject string, a act, end func(*Session)) ([]record, error)

	// expireSessions does the same with up to limit sessions whose Expires is at or
	// before now, and browser sessions last seen at or before idle.
	expireSessions(ctx context.Context, now, idle time.Time, limit int, end func(*Session)) ([]record, error)

	// sessionsOf is up to limit sessions of the subject that have not ended, the
	// newest first.
	sessionsOf(ctx context.Context, subject string, limit int) ([]record, error)
	// allSessionsOf is sessionsOf with those that ended.
	allSessionsOf(ctx context.Context, subject string, limit int) ([]record, error)

	// seeSessions moves Seen forward, and notes how long there was no use; it never
	// moves back. Unknown ids are ignored.
	seeSessions(ctx context.Context, seen map[string]time.Time) error

	// forgetSessions deletes up to limit browser sessions that ended before then.
	forgetSessions(ctx context.Context, then time.Time, limit int) (int, error)

	// shared reports whether other processes may change what is stored.
	shared() bool
	// revision is the number of the latest change. What earlier ones wrote is visible.
	revision(ctx context.Context) (int64, error)
	// changedSessions is up to limit sessions whose latest version, their first one
	// excepted, was written after (revision, id), in the order of both.
	changedSessions(ctx context.Context, revision int64, id string, limit int) ([]changed, error)
	// sessionsByID is those of the sessions that there are, in any order.
	sessionsByID(ctx context.Context, ids []string) ([]record, error)

	// actsAmong is those of the entries that a change carried. What a database is
	// still committing for somebody who is gone, it awaits.
	actsAmong(ctx context.Context, entries []string) (map[string]bool, error)
	// forgetActs deletes up to limit entries of a node whose changes were before then.
	forgetActs(ctx context.Context, node string, then time.Time, limit int) (int, error)
}

// record is a session as it is stored.
type record struct {
	Session
	token    tokenHash
	previous *previousToken // nil until the first Raise
	version  int64          // from 1; of two records of a session the higher one is the later
}

// previousToken is the token before the present one. Until its time is over it is
// worth what the session was worth with it: whoever has a copy gets nothing out of
// the owner's factor.
type previousToken struct {
	token    tokenHash
	until    time.Time
	aal      int
	verified time.Time
	factor   FactorKind
	rested   time.Duration
}

// opened is the session for a token of that hash: as it is, as it was for the
// previous token, or nil if it is neither.
func (r *record) opened(h tokenHash, now time.Time) (*Session, error) {
	if subtle.ConstantTimeCompare(r.token[:], h[:]) == 1 {
		return &r.Session, nil
	}
	p := r.previous
	if p == nil || subtle.ConstantTimeCompare(p.token[:], h[:]) != 1 {
		return nil, nil
	}
	if !now.Before(p.until) {
		return nil, ErrSessionEnded
	}
	s := r.Session
	s.AAL, s.Verified, s.Factor, s.Rested = p.aal, p.verified, p.factor, max(p.rested, s.Rested)
	return &s, nil
}

type tokenHash [sha256.Size]byte

// Sessions is all the sessions there are. Those in use are in memory, up to
// SessionsConfig.CacheSize; the store has all of them.
type Sessions struct {
	store  SessionStore
	cfg    SessionsConfig
	cache  *sessionCache
	absent *recent[cacheKey, time.Time] // until when; bounded by absentMax

	seenMu   sync.Mutex
	seen     map[string]time.Time // uses not yet stored; bounded by CacheSize + absentMax
	flushing map[string]time.Time // the same, on their way to the store

	sweeping sync.Mutex // held by Sweep, so that there is one

	shared      bool                        // other processes change the store
	told        *recent[cacheKey, struct{}] // ends that OnEnd knows; bounded by toldMax
	reconciling sync.Mutex                  // guards what follows
	since       int64                       // changes before this revision are taken over completely
	taken       position                    // what a Reconcile that failed has taken over beyond

	onEndMu sync.RWMutex
	onEnd   []func(Session)
}

// OpenSessions returns the sessions in store.
//
// It reads no session ahead, so it needs no clock yet: what is over is known as
// over when it is asked for.
func OpenSessions(ctx context.Context, store SessionStore, cfg SessionsConfig, _ time.Time) (*Sessions, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	// Whatever is read into memory later is at least of this revision.
	revision, err := store.revision(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening sessions: %w", err)
	}
	return &Sessions{
		store: store, cfg: cfg, cache: newSessionCache(cfg.CacheSize), absent: newRecent[cacheKey, time.Time](absentMax),
		seen: make(map[string]time.Time), shared: store.shared(), told: newRecent[cacheKey, struct{}](toldMax),
		since: revision + 1, taken: position{revision: revision + 1},
	}, nil
}

// OnEnd registers f to be called once for each session that ends, here or, as
// [Sessions.Reconcile] finds, elsewhere: after the end is durable and visible,
// before the method that ended or found it returns, in its goroutine. f must not
// call back into Sessions.
func (ss *Sessions) OnEnd(f func(Session)) {
	ss.onEndMu.Lock()
	defer ss.onEndMu.Unlock()
	ss.onEnd = append(ss.onEnd, f)
}

func (ss *Sessions) tell(ended []record) {
	ss.onEndMu.RLock()
	fs := ss.onEnd
	ss.onEndMu.RUnlock()
	for _, r := range ended {
		if !ss.told.first(keyOfID(r.ID), struct{}{}) {
			continue // by the Reconcile that was under way
		}
		for _, f := range fs {
			f(r.Session)
		}
	}
}

// over is why s may not be used at now; nil if it may.
func (ss *Sessions) over(s *Session, now time.Time) error {
	switch {
	case !s.Ended.IsZero():
		return ErrSessionEnded
	case !s.Expires.IsZero() && !now.Before(s.Expires):
		return ErrExpired
	case s.Kind == BrowserSession && now.Sub(s.Seen) >= ss.cfg.Idle:
		return ErrExpired
	}
	return nil
}

// Begin makes a session of s and returns it with its token, the secret for the
// cookie, which is not kept. Of s, the kind and subject are required; times and an
// empty ID are filled in. Expires of a browser session is at most Overall away; a
// token session ends only when Expires, if set, says so or somebody ends it.
//
// A credential that another session has is moved here, because the backend has
// just said whose it is. The session that loses it ends if it is on the same
// device, so that a second login in a browser replaces the first, or if it has no
// credential left.
func (ss *Sessions) Begin(ctx context.Context, s Session, credentials []Credential, now time.Time) (Session, string, error) {
	return ss.BeginAct(ctx, s, credentials, Act{}, now)
}

// BeginAct is Begin of a login that the record announced, or that was held: if the
// act releases a hold, that is approved and of the account, or there is no session
// and the error is ErrHoldOver. So a hold is released once, whoever tries how often.
func (ss *Sessions) BeginAct(ctx context.Context, s Session, credentials []Credential, by Act, now time.Time) (Session, string, error) {
	fail := func(err error) (Session, string, error) {
		return Session{}, "", fmt.Errorf("beginning a session: %w", err)
	}
	now = stored(now)
	switch {
	case s.Subject == "":
		return fail(errors.New("no subject: a session needs to know whose it is"))
	case s.Kind != BrowserSession && s.Kind != TokenSession:
		return fail(fmt.Errorf("unknown kind %q: want %q or %q", s.Kind, BrowserSession, TokenSession))
	case !storable(s.ID) || !storable(s.Subject) || !storable(s.Organization) || !storable(s.Device) || !storable(s.Source) ||
		!storable(s.Client) || !storable(s.Country) || !storable(string(s.Factor)):
		return fail(errors.New("a part of the session is not a text: want UTF-8 without NUL"))
	}
	a, err := by.releasing(now)
	if err != nil {
		return fail(err)
	}
	if s.ID == "" {
		s.ID = rand.Text()
	}
	s.Created, s.Seen, s.Ended, s.EndedBy = now, now, time.Time{}, ""
	s.Expires, s.Verified, s.Rested = stored(s.Expires), stored(s.Verified), 0
	if latest := now.Add(ss.cfg.Overall); s.Kind == BrowserSession && (s.Expires.IsZero() || s.Expires.After(latest)) {
		s.Expires = latest
	}
	s.Credentials = nil
	for _, c := range credentials {
		if s.find(c.Kind, c.Hash) >= 0 {
			continue
		}
		if c.Since.IsZero() {
			c.Since = now
		}
		c.Since, c.RetiredAt = stored(c.Since), time.Time{}
		s.Credentials = append(s.Credentials, c)
	}
	if len(s.Credentials) > ss.cfg.MaxCredentials {
		return fail(fmt.Errorf("%d credentials: a session holds at most %d", len(s.Credentials), ss.cfg.MaxCredentials))
	}
	token := newToken()
	r := record{Session: s, token: hashToken(token), version: 1}
	lost, ends := ss.cache.lost.Load(), make(map[string]bool)
	changed, err := ss.store.insertSession(ctx, r, a, func(old *Session) {
		ends[old.ID] = old.Ended.IsZero() && (old.Device != "" && old.Device == s.Device || len(old.Credentials) == 0)
		if ends[old.ID] {
			old.Ended, old.EndedBy = now, endedByLogin
		}
	})
	if errors.Is(err, ErrUncertain) {
		ss.cache.dropWhere(func(old *Session) bool {
			return slices.ContainsFunc(s.Credentials, func(c Credential) bool { return old.find(c.Kind, c.Hash) >= 0 })
		})
		ss.absent.clear()
	}
	if err != nil {
		return fail(err)
	}
	ss.applied(append([]record{r}, changed...), lost)
	var ended []record
	for _, c := range changed {
		if ends[c.ID] {
			ended = append(ended, c)
		}
	}
	ss.tell(ended)
	return s, token, nil
}

// ByToken is the live session of a token. It returns ErrNoSession, also for what
// cannot be a token, ErrSessionEnded or ErrExpired. Malformed tokens cost a hash
// like any other, and no SQL.
func (ss *Sessions) ByToken(ctx context.Context, token string, now time.Time) (*Session, error) {
	formed := wellFormed(token)
	h := hashToken(token)
	key := keyOf(h[:])
	if !formed {
		return nil, ErrNoSession
	}
	c := ss.cache.get(key)
	if c == nil {
		return ss.loadByToken(ctx, key, h, now)
	}
	s, err := c.record.Load().opened(h, now)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return ss.loadByToken(ctx, key, h, now)
	}
	if err := ss.over(s, now); err != nil {
		if ss.shared && s.Ended.IsZero() && (s.Expires.IsZero() || now.Before(s.Expires)) {
			return ss.loadByToken(ctx, key, h, now) // idle here, but perhaps not elsewhere
		}
		return nil, err
	}
	if ss.restless(s, now) {
		return ss.fresh(s)(ss.loadByToken(ctx, key, h, now))
	}
	return s, nil
}

// restless reports whether another node may know of a use of s that keeps its AAL.
func (ss *Sessions) restless(s *Session, now time.Time) bool {
	return ss.shared && s.AAL > 1 && now.Sub(s.Seen) >= restlessAfter
}

// fresh is what was found of s in the store, or s where that did not answer.
func (ss *Sessions) fresh(s *Session) func(*Session, error) (*Session, error) {
	return func(found *Session, err error) (*Session, error) {
		if err == nil || errors.Is(err, ErrNoSession) || errors.Is(err, ErrSessionEnded) || errors.Is(err, ErrExpired) {
			return found, err
		}
		return s, nil
	}
}

func (ss *Sessions) loadByToken(ctx context.Context, key cacheKey, h tokenHash, now time.Time) (*Session, error) {
	// Nobody can have asked for a token before it was made, so what is remembered
	// as unknown stays so, whatever other nodes do.
	r, err := ss.load(key, now, true, func() (record, error) { return ss.store.sessionByToken(ctx, h) })
	if err != nil {
		return nil, err
	}
	s, err := r.opened(h, now)
	if err == nil && s == nil {
		err = ErrNoSession
	}
	if err == nil {
		err = ss.over(s, now)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// ByCredential is the live session that holds a credential: the current one or
// one replaced less than PreviousFor ago. It returns ErrNoSession if no session
// ever had it, and ErrSessionEnded or ErrExpired if its time is over.
//
// Where other nodes change the store too, only what they ended or replaced since
// the last Reconcile may still be found good; what is refused was looked up.
func (ss *Sessions) ByCredential(ctx context.Context, kind string, h CredentialHash, now time.Time) (*Session, error) {
	key := keyOf(h[:])
	s := ss.cache.holder(key, kind, h)
	if s != nil {
		err := ss.unusable(s, kind, h, now)
		if err == nil && ss.restless(s, now) {
			return ss.fresh(s)(ss.loadByCredential(ctx, key, kind, h, now))
		}
		if err == nil {
			return s, nil
		}
		if !ss.shared {
			return nil, err
		}
	}
	return ss.loadByCredential(ctx, key, kind, h, now)
}

// unusable is why the credential of s may not be used at now; nil if it may.
func (ss *Sessions) unusable(s *Session, kind string, h CredentialHash, now time.Time) error {
	if err := ss.over(s, now); err != nil {
		return err
	}
	if !s.Holds(kind, h, now) {
		return ErrSessionEnded
	}
	return nil
}

func (ss *Sessions) loadByCredential(ctx context.Context, key cacheKey, kind string, h CredentialHash, now time.Time) (*Session, error) {
	// A credential that is nobody's becomes somebody's by a login on another node
	// while we would still remember it as nobody's, and whoever shows it then would
	// pass for a visitor.
	r, err := ss.load(key, now, !ss.shared, func() (record, error) { return ss.store.sessionByCredential(ctx, kind, h) })
	if err == nil {
		err = ss.unusable(&r.Session, kind, h, now)
	}
	if err != nil {
		return nil, err
	}
	return &r.Session, nil
}

// load asks the store for what is not in memory, and keeps the answer; that there
// is none only if remember says so.
func (ss *Sessions) load(key cacheKey, now time.Time, remember bool, ask func() (record, error)) (*record, error) {
	if remember {
		if until, ok := ss.absent.get(key); ok && now.Before(until) {
			return nil, ErrNoSession
		}
	}
	absentEpoch, changes := ss.absent.now(), ss.cache.changes.Load()
	r, err := ask()
	if errors.Is(err, ErrNoSession) {
		if remember {
			ss.absent.putAt(absentEpoch, key, now.Add(absentFor))
		}
		return nil, ErrNoSession
	}
	if err != nil {
		return nil, fmt.Errorf("reading a session: %w", err)
	}
	ss.noted(&r)
	ss.cache.loaded(r, changes)
	return &r, nil
}

// applied makes committed changes visible. lost is what the cache had lost before
// they were made.
func (ss *Sessions) applied(rs []record, lost uint64) {
	for i := range rs {
		ss.noted(&rs[i])
	}
	ss.cache.apply(rs, lost)
	for i := range rs {
		ss.absent.drop(keyOf(rs[i].token[:]))
		for _, c := range rs[i].Credentials {
			ss.absent.drop(keyOf(c.Hash[:]))
		}
	}
}

// AddCredential gives a live session another credential, as backends do that roll
// their cookies. Those of the same kind are retired: they live PreviousFor more.
// At most MaxCredentials are kept; retired ones go first, the oldest of them
// before the others, and are unknown from then on. A credential that the session
// has and that is current costs nothing. It returns ErrNoSession, ErrSessionEnded
// or ErrExpired when the session is of no use.
func (ss *Sessions) AddCredential(ctx context.Context, id string, c Credential, now time.Time) error {
	now = stored(now)
	if cached := ss.cache.get(keyOfID(id)); cached != nil {
		s := &cached.record.Load().Session
		if i := s.find(c.Kind, c.Hash); s.ID == id && i >= 0 && s.Credentials[i].current() && ss.over(s, now) == nil {
			return nil
		}
	}
	if c.Since.IsZero() {
		c.Since = now
	}
	c.Since, c.RetiredAt = stored(c.Since), time.Time{}
	if !storable(id) {
		return fmt.Errorf("adding a credential to a session: %w", ErrNoSession)
	}
	lost := ss.cache.lost.Load()
	r, err := ss.store.updateSession(ctx, id, act{}, func(r *record) error {
		ss.noted(r)
		if err := ss.over(&r.Session, now); err != nil {
			return err
		}
		if i := r.find(c.Kind, c.Hash); i >= 0 && r.Credentials[i].current() {
			return errUnchanged
		}
		return ss.chain(&r.Session, c, now)
	})
	ss.mistaken(id, err)
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("adding a credential to session %s: %w", id, err)
	}
	ss.applied([]record{r}, lost)
	return nil
}

// Raise notes that a factor was given in a session, and changes its token (ASVS 5.0
// 7.2.4): the new one is returned, and the one before is good for PreviousFor more,
// for requests that are on their way. With that it is worth what it was before, so
// that whoever copied it gains nothing by the owner's factor. The AAL is never
// lowered; what is worth less than it, and a mailed code, changes the token only.
//
// It returns ErrNoSession, ErrSessionEnded or ErrExpired when the session is of no
// use; then the act did not happen.
func (ss *Sessions) Raise(ctx context.Context, id string, aal int, f FactorKind, by Act, now time.Time) (Session, string, error) {
	fail := func(err error) (Session, string, error) {
		return Session{}, "", fmt.Errorf("raising session %s: %w", id, err)
	}
	now = stored(now)
	a, err := by.at(now)
	if err == nil {
		err = (&Approval{AAL: aal, FactorKind: f}).complete(f)
	}
	if err != nil {
		return fail(err)
	}
	if !storable(id) {
		return Session{}, "", fmt.Errorf("raising a session: %w", ErrNoSession)
	}
	token := newToken()
	lost := ss.cache.lost.Load()
	r, err := ss.store.updateSession(ctx, id, a, func(r *record) error {
		ss.noted(r)
		if err := ss.over(&r.Session, now); err != nil {
			return err
		}
		r.previous = &previousToken{
			token: r.token, until: now.Add(ss.cfg.PreviousFor), aal: r.AAL, verified: r.Verified, factor: r.Factor, rested: r.Rested,
		}
		r.token = hashToken(token)
		if now.After(r.Seen) {
			r.rest(now)
			r.previous.rested = r.Rested
			r.Seen = now
		}
		if f != "" && aal >= r.AAL {
			r.AAL, r.Verified, r.Factor, r.Rested = aal, now, f, 0
		}
		return nil
	})
	ss.mistaken(id, err)
	if err != nil {
		return fail(err)
	}
	ss.applied([]record{r}, lost)
	return r.Session, token, nil
}

// mistaken forgets what is in memory of a session if the outcome of a change says
// that the store may know better.
func (ss *Sessions) mistaken(id string, err error) {
	for _, e := range []error{ErrUncertain, ErrSessionEnded, ErrNoSession, errUnchanged} {
		if errors.Is(err, e) {
			ss.cache.drop(id)
			return
		}
	}
}

// errUnchanged means that there is nothing to store.
var errUnchanged = errors.New("nothing to change")

// chain makes c the current credential of its kind in s.
func (ss *Sessions) chain(s *Session, c Credential, now time.Time) error {
	all := make([]Credential, 0, len(s.Credentials)+1)
	for _, old := range s.Credentials {
		if old.is(c.Kind, c.Hash) {
			continue
		}
		if old.Kind == c.Kind && old.current() {
			old.RetiredAt = now.Add(ss.cfg.PreviousFor)
		}
		all = append(all, old)
	}
	all = append(all, c)
	for len(all) > ss.cfg.MaxCredentials {
		oldest := -1
		for i := range all {
			if !all[i].current() && (oldest < 0 || all[i].RetiredAt.Before(all[oldest].RetiredAt)) {
				oldest = i
			}
		}
		if oldest < 0 {
			return fmt.Errorf("%d kinds of credentials: a session holds at most %d", len(all), ss.cfg.MaxCredentials)
		}
		all = slices.Delete(all, oldest, oldest+1)
	}
	s.Credentials = all
	return nil
}

// Touch notes that a session was used. It is noted once a minute and stored by
// the next Sweep; a crash forgets what was not stored, which makes a session look
// idle for that much longer.
func (ss *Sessions) Touch(id string, now time.Time) {
	now = stored(now)
	if c := ss.cache.get(keyOfID(id)); c != nil {
		for {
			r := c.record.Load()
			if r.ID != id || now.Sub(r.Seen) < seenEvery || !r.Ended.IsZero() {
				return
			}
			next := *r
			next.rest(now)
			next.Seen = now
			if c.record.CompareAndSwap(r, &next) {
				break
			}
		}
	}
	if !storable(id) {
		return
	}
	ss.seenMu.Lock()
	defer ss.seenMu.Unlock()
	if old, ok := ss.seen[id]; ok && now.Sub(old) < seenEvery || !ok && len(ss.seen) >= ss.cfg.CacheSize+absentMax {
		return
	}
	ss.seen[id] = now
}

// noted adds to r what is not in the store yet.
func (ss *Sessions) noted(r *record) {
	if seen := ss.unstored(r.ID); seen.After(r.Seen) {
		r.rest(seen)
		r.Seen = seen
	}
}

// unstored is when a session was used last, if that is not in the store yet.
func (ss *Sessions) unstored(id string) time.Time {
	ss.seenMu.Lock()
	defer ss.seenMu.Unlock()
	if t, ok := ss.seen[id]; ok {
		return t
	}
	return ss.flushing[id]
}

// End ends a session and returns it. It returns ErrNoSession or, with the session,
// ErrSessionEnded; then the act did not happen.
func (ss *Sessions) End(ctx context.Context, id string, by Act, now time.Time) (Session, error) {
	now = stored(now)
	a, err := by.at(now)
	if err != nil {
		return Session{}, fmt.Errorf("ending session %s: %w", id, err)
	}
	if !storable(id) {
		return Session{}, fmt.Errorf("ending a session: %w", ErrNoSession)
	}
	var already Session
	lost := ss.cache.lost.Load()
	r, err := ss.store.updateSession(ctx, id, a, func(r *record) error {
		if !r.Ended.IsZero() {
			already = r.Session
			return ErrSessionEnded
		}
		r.Ended, r.EndedBy = now, by.By
		return nil
	})
	ss.mistaken(id, err)
	if err != nil {
		return already, fmt.Errorf("ending session %s: %w", id, err)
	}
	ss.applied([]record{r}, lost)
	ss.tell([]record{r})
	return r.Session, nil
}

// EndAll ends every session of an account and returns them. That there was none is
// no error, and the act happened.
func (ss *Sessions) EndAll(ctx context.Context, subject string, by Act, now time.Time) ([]Session, error) {
	now = stored(now)
	a, err := by.at(now)
	if err == nil && !storable(subject) {
		err = errors.New("the account is not a text")
	}
	if err != nil {
		return nil, fmt.Errorf("ending the sessions of an account: %w", err)
	}
	lost := ss.cache.lost.Load()
	rs, err := ss.store.endSessions(ctx, subject, a, func(s *Session) { s.Ended, s.EndedBy = now, by.By })
	if errors.Is(err, ErrUncertain) {
		ss.cache.dropWhere(func(s *Session) bool { return s.Subject == subject })
	}
	if err != nil {
		return nil, fmt.Errorf("ending the sessions of an account: %w", err)
	}
	ss.applied(rs, lost)
	ss.tell(rs)
	return sessionsIn(rs), nil
}

// OfSubject is the live sessions of an account, the newest first, at most 1,000.
func (ss *Sessions) OfSubject(ctx context.Context, subject string, now time.Time) ([]Session, error) {
	if !storable(subject) {
		return nil, nil
	}
	rs, err := ss.store.sessionsOf(ctx, subject, listMax)
	if err != nil {
		return nil, fmt.Errorf("listing the sessions of an account: %w", err)
	}
	live := rs[:0]
	for _, r := range rs {
		ss.noted(&r)
		if ss.over(&r.Session, now) == nil {
			live = append(live, r)
		}
	}
	return sessionsIn(live), nil
}

// History is up to limit sessions of an account, those that ended too, at most 1,000,
// the newest first.
func (ss *Sessions) History(ctx context.Context, subject string, limit int) ([]Session, error) {
	if !storable(subject) || limit <= 0 {
		return nil, nil
	}
	rs, err := ss.store.allSessionsOf(ctx, subject, min(limit, listMax))
	if err != nil {
		return nil, fmt.Errorf("listing the sessions of an account: %w", err)
	}
	for i := range rs {
		ss.noted(&rs[i])
	}
	return sessionsIn(rs), nil
}

func sessionsIn(rs []record) []Session {
	all := make([]Session, len(rs))
	for i := range rs {
		all[i] = rs[i].Session
	}
	return all
}

// Sweep stores what Touch noted, ends the sessions whose time is over, and
// forgets browser sessions that ended more than TombstoneFor ago. What it returns
// is how many it ended. Nothing waits for it: a session stops on time without.
// Token sessions are never forgotten, because their credential may never expire;
// there are as many as the backend minted tokens. Several nodes sweep every 10 s or
// so; a session that is idle ends 30 s late there, and is of no use before.
func (ss *Sessions) Sweep(ctx context.Context, now time.Time) (int, error) {
	ss.sweeping.Lock()
	defer ss.sweeping.Unlock()
	now = stored(now)
	if err := ss.flush(ctx); err != nil {
		return 0, fmt.Errorf("storing when sessions were used: %w", err)
	}
	idle := now.Add(-ss.cfg.Idle)
	if ss.shared {
		idle = idle.Add(-lateUse) // what other nodes noted may not be stored yet
	}
	ended := 0
	for {
		lost := ss.cache.lost.Load()
		rs, err := ss.store.expireSessions(ctx, now, idle, sweepBatch, func(s *Session) {
			s.Ended, s.EndedBy = now, endedByExpiry
		})
		if err != nil {
			return ended, fmt.Errorf("expiring sessions: %w", err)
		}
		ended += len(rs)
		ss.applied(rs, lost)
		ss.tell(rs)
		if len(rs) < sweepBatch {
			break
		}
	}
	for {
		n, err := ss.store.forgetSessions(ctx, now.Add(-ss.cfg.TombstoneFor), sweepBatch)
		if err != nil {
			return ended, fmt.Errorf("forgetting sessions that ended long ago: %w", err)
		}
		if n < sweepBatch {
			return ended, nil
		}
	}
}

// flush stores the noted uses, a batch a transaction.
func (ss *Sessions) flush(ctx context.Context) error {
	ss.seenMu.Lock()
	ss.flushing, ss.seen = ss.seen, make(map[string]time.Time)
	all := ss.flushing
	ss.seenMu.Unlock()

	batch := make(map[string]time.Time, sweepBatch)
	var err error
	for id, t := range all {
		batch[id] = t
		if len(batch) == sweepBatch {
			if err = ss.store.seeSessions(ctx, batch); err != nil {
				break
			}
			clear(batch)
		}
	}
	if err == nil && len(batch) > 0 {
		err = ss.store.seeSessions(ctx, batch)
	}

	ss.seenMu.Lock()
	defer ss.seenMu.Unlock()
	if err != nil {
		// Storing some of them again does no harm.
		for id, t := range ss.flushing {
			if t.After(ss.seen[id]) {
				ss.seen[id] = t
			}
		}
	}
	ss.flushing = nil
	return err
}

// A token is 256 random bits in base64url.
const tokenLength = 43

func newToken() string {
	var secret [32]byte
	rand.Read(secret[:])
	return base64.RawURLEncoding.EncodeToString(secret[:])
}

// wellFormed reports whether token can be one of ours. It looks at every
// character, whatever the first ones are.
func wellFormed(token string) bool {
	if len(token) != tokenLength {
		return false
	}
	bad := 0
	for i := range len(token) {
		c := token[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			bad++
		}
	}
	return bad == 0
}

// hashToken hashes the first tokenLength bytes of token: the work does not depend
// on what it is given.
func hashToken(token string) tokenHash {
	const domain = "kidoban session token v1\x00"
	var b [len(domain) + tokenLength]byte
	copy(b[copy(b[:], domain):], token)
	return sha256.Sum256(b[:])
}

// stored is t as it comes back from a store.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
