package auth

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
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
	CacheSize      int           // sessions in memory, about 850 bytes each; 100,000
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
	}{{"MaxCredentials", &c.MaxCredentials, 8}, {"CacheSize", &c.CacheSize, 100_000}} {
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

// stored is t as it comes back from a store.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
