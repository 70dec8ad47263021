package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
)

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
