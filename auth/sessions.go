package auth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

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
