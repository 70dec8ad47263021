package auth

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pquerna/otp"
)

// Bounds that tests look at.
const (
	AbsentFor     = absentFor
	CanonicalMax  = canonicalRunes
	DirectorySize = directorySize
	ListMax       = listMax
	PeopleBatch   = peopleBatch
	LateUse       = lateUse
	ChunkSize     = chunkSize
	Batch         = reconcileBatch
)

// SessionProbe is a SessionStore that counts questions, can be told to fail, and
// can be made to wait between a change and its report.
type SessionProbe struct {
	SessionStore
	Asked   atomic.Int64                // sessions asked for, by token or credential
	Failing atomic.Pointer[error]       // what every method but listing says
	Changed atomic.Pointer[func(error)] // called after an update of one session, before it is reported
	Shared  bool                        // other nodes change the store too
}

func (p *SessionProbe) shared() bool { return p.Shared }

func (p *SessionProbe) failure() error {
	if err := p.Failing.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *SessionProbe) insertSession(ctx context.Context, r record, a act, loses func(*Session)) ([]record, error) {
	if err := p.failure(); err != nil {
		return nil, err
	}
	return p.SessionStore.insertSession(ctx, r, a, loses)
}

func (p *SessionProbe) sessionByToken(ctx context.Context, token tokenHash) (record, error) {
	p.Asked.Add(1)
	if err := p.failure(); err != nil {
		return record{}, err
	}
	return p.SessionStore.sessionByToken(ctx, token)
}

func (p *SessionProbe) sessionByCredential(ctx context.Context, kind string, h CredentialHash) (record, error) {
	p.Asked.Add(1)
	if err := p.failure(); err != nil {
		return record{}, err
	}
	return p.SessionStore.sessionByCredential(ctx, kind, h)
}

func (p *SessionProbe) updateSession(ctx context.Context, id string, a act, change func(*record) error) (record, error) {
	if err := p.failure(); err != nil {
		return record{}, err
	}
	r, err := p.SessionStore.updateSession(ctx, id, a, change)
	if f := p.Changed.Load(); f != nil {
		(*f)(err)
	}
	return r, err
}

func (p *SessionProbe) endSessions(ctx context.Context, subject string, a act, end func(*Session)) ([]record, error) {
	if err := p.failure(); err != nil {
		return nil, err
	}
	return p.SessionStore.endSessions(ctx, subject, a, end)
}

func (p *SessionProbe) seeSessions(ctx context.Context, seen map[string]time.Time) error {
	if err := p.failure(); err != nil {
		return err
	}
	return p.SessionStore.seeSessions(ctx, seen)
}

// Nowhere is a SessionStore that keeps nothing, so that what Sessions has in
// memory can be measured alone.
type Nowhere struct{ SessionStore }

func (Nowhere) insertSession(context.Context, record, act, func(*Session)) ([]record, error) {
	return nil, nil
}
func (Nowhere) shared() bool                            { return false }
func (Nowhere) revision(context.Context) (int64, error) { return 0, nil }
func (Nowhere) sessionByToken(context.Context, tokenHash) (record, error) {
	return record{}, ErrNoSession
}
func (Nowhere) sessionByID(context.Context, string) (record, error) { return record{}, ErrNoSession }
func (Nowhere) sessionByCredential(context.Context, string, CredentialHash) (record, error) {
	return record{}, ErrNoSession
}

// CheckCache compares the index of the cache with the sessions in it: every key
// must lead to a session that has it, and there must be no more of them than max.
func (ss *Sessions) CheckCache() error {
	c := ss.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ring) > c.max {
		return fmt.Errorf("%d sessions in memory, want at most %d", len(c.ring), c.max)
	}
	in := make(map[*cachedSession]bool)
	for _, e := range c.ring {
		in[e] = true
	}
	for i := range c.shards {
		for key, e := range c.shards[i].index {
			r := e.record.Load()
			ok := slices.Contains(slices.Collect(r.keys), key)
			if !ok || !in[e] {
				return fmt.Errorf("key %x leads to session %s, in memory: %v, has it: %v", key, r.ID, in[e], ok)
			}
		}
	}
	return nil
}

// Noted is how many uses wait for the next Sweep.
func (ss *Sessions) Noted() int {
	ss.seenMu.Lock()
	defer ss.seenMu.Unlock()
	return len(ss.seen)
}

// In opens SQLStore.in.
func (s *SQLStore) In(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
	return s.in(ctx, func(ctx context.Context, tx *transaction) error { return do(ctx, tx.Tx) })
}

// CodeOf, RecoveryCode and RecoveryText open what factors compare.
func CodeOf(seed []byte, step int64, digits otp.Digits, algorithm otp.Algorithm) (string, error) {
	return codeOf(seed, step, digits, algorithm)
}

func RecoveryCode(typed string) ([16]byte, bool) {
	s, ok := recoveryCode(typed)
	return s, ok
}

func RecoveryText(s [16]byte) string { return recoverySecret(s).String() }

// TOTPCode reads a code as it is typed.
func TOTPCode(typed string) (string, bool) { return totpCode(typed) }

// ParseKeyAnswers reads an answer of a browser as both ceremonies do.
func ParseKeyAnswers(answer []byte) (creation, assertion error) {
	_, creation = parseCreation(answer)
	_, assertion = parseAssertion(answer)
	return creation, assertion
}

// Bounds of factors.
const (
	TOTPMax       = totpMax
	KeysMax       = keysMax
	ChallengesMax = challengesMax
	KeyAnswerMax  = keyResponseMax
)

// NewHoldCode is a code as clients show it.
func NewHoldCode() string { return newHoldCode() }
