package auth

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// MemoryStore keeps everything in memory and nothing longer than the process
// lives. It is a whole store, for tests, trials and demonstrations; it is bounded
// by what Sweep leaves.
type MemoryStore struct {
	mu       sync.Mutex // guards what follows
	sessions map[string]record
	tokens   map[tokenHash]string // to the session's id
	holders  map[CredentialHash]string
	people   map[string]Person
	names    map[[16]byte]typedName
	devices  map[deviceID]device
	acts     map[string]time.Time
	latest   int64              // the revision
	changes  map[string]changed // of sessions, by id
	learned  map[string]int64   // the revision of each person
	factors  factorMemory
	holds    holdMemory
	slips    slipMemory
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{
		sessions: make(map[string]record),
		tokens:   make(map[tokenHash]string),
		holders:  make(map[CredentialHash]string),
		people:   make(map[string]Person),
		names:    make(map[[16]byte]typedName),
		devices:  make(map[deviceID]device),
		acts:     make(map[string]time.Time),
		changes:  make(map[string]changed),
		learned:  make(map[string]int64),
		factors:  newFactorMemory(),
		holds:    newHoldMemory(),
		slips:    newSlipMemory(),
	}
}

var (
	_ SessionStore   = (*MemoryStore)(nil)
	_ DirectoryStore = (*MemoryStore)(nil)
	_ DeviceStore    = (*MemoryStore)(nil)
)

func (r record) clone() record {
	r.Credentials = slices.Clone(r.Credentials)
	return r
}

// shared implements [SessionStore]: nobody else has this memory.
func (m *MemoryStore) shared() bool { return false }

func (m *MemoryStore) revision(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.latest, nil
}

// wroteLocked notes what a change wrote, all with one revision.
func (m *MemoryStore) wroteLocked(rs ...record) {
	m.latest++
	for _, r := range rs {
		c := changed{id: r.ID, version: r.version, revision: m.latest, ended: m.changes[r.ID].ended}
		if c.ended == 0 && !r.Ended.IsZero() {
			c.ended = m.latest
		}
		m.changes[r.ID] = c
	}
}

func (m *MemoryStore) changedSessions(_ context.Context, revision int64, id string, limit int) ([]changed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	order := func(a, b changed) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.id, b.id))
	}
	var all []changed
	for _, c := range m.changes {
		if c.version > 1 && order(c, changed{revision: revision, id: id}) > 0 {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, order)
	return all[:min(limit, len(all))], nil
}

func (m *MemoryStore) sessionsByID(_ context.Context, ids []string) ([]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []record
	for _, id := range ids {
		if r, err := m.sessionLocked(id); err == nil {
			all = append(all, r)
		}
	}
	return all, nil
}

func (m *MemoryStore) changedPeople(_ context.Context, revision int64, limit int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for subject, at := range m.learned {
		if at > revision && len(all) < limit {
			all = append(all, subject)
		}
	}
	return all, nil
}

// announcedLocked is ErrActed if the act happened before.
func (m *MemoryStore) announcedLocked(a act) error {
	if _, done := m.acts[a.entry]; done {
		return ErrActed
	}
	return nil
}

func (m *MemoryStore) actedLocked(a act) {
	if a.entry != "" {
		m.acts[a.entry] = a.at
	}
}

func (m *MemoryStore) actsAmong(_ context.Context, entries []string) (map[string]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make(map[string]bool)
	for _, e := range entries {
		if _, done := m.acts[e]; done {
			found[e] = true
		}
	}
	return found, nil
}

func (m *MemoryStore) forgetActs(_ context.Context, node string, then time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for e, at := range m.acts {
		if n < limit && strings.HasPrefix(e, node+"/") && at.Before(then) {
			delete(m.acts, e)
			n++
		}
	}
	return n, nil
}

func (m *MemoryStore) insertSession(_ context.Context, r record, a act, loses func(*Session)) ([]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.announcedLocked(a); err != nil {
		return nil, err
	}
	if _, taken := m.sessions[r.ID]; taken {
		return nil, fmt.Errorf("session %s exists", r.ID)
	}
	if _, taken := m.tokens[r.token]; taken {
		return nil, fmt.Errorf("the token of session %s is taken", r.ID)
	}
	released, err := m.toReleaseLocked(a, r.Subject)
	if err != nil {
		return nil, err
	}
	lost := make(map[string]record)
	for _, c := range r.Credentials {
		id, taken := m.holders[c.Hash]
		if !taken {
			continue
		}
		old, ok := lost[id]
		if !ok {
			old = m.sessions[id].clone()
		}
		old.Credentials = slices.DeleteFunc(old.Credentials, func(o Credential) bool { return o.Hash == c.Hash })
		lost[id] = old
	}
	var changed []record
	for _, old := range lost {
		loses(&old.Session)
		old.version++
		m.sessions[old.ID] = old
		changed = append(changed, old.clone())
	}
	m.sessions[r.ID] = r.clone()
	m.tokens[r.token] = r.ID
	for _, c := range r.Credentials {
		m.holders[c.Hash] = r.ID
	}
	if released != nil {
		m.writeHoldLocked(*released, nil)
	}
	m.wroteLocked(append(slices.Clone(changed), r)...)
	m.actedLocked(a)
	return changed, nil
}

func (m *MemoryStore) sessionByToken(_ context.Context, token tokenHash) (record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessionLocked(m.tokens[token])
}

func (m *MemoryStore) sessionByCredential(_ context.Context, kind string, h CredentialHash) (record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.sessionLocked(m.holders[h])
	if err == nil && r.find(kind, h) < 0 {
		return record{}, ErrNoSession
	}
	return r, err
}

func (m *MemoryStore) sessionByID(_ context.Context, id string) (record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessionLocked(id)
}

func (m *MemoryStore) sessionLocked(id string) (record, error) {
	r, ok := m.sessions[id]
	if !ok {
		return record{}, ErrNoSession
	}
	return r.clone(), nil
}

func (m *MemoryStore) updateSession(_ context.Context, id string, a act, change func(*record) error) (record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.announcedLocked(a); err != nil {
		return record{}, err
	}
	old, err := m.sessionLocked(id)
	if err != nil {
		return record{}, err
	}
	next := old.clone()
	if err := change(&next); err != nil {
		return record{}, err
	}
	for _, c := range next.Credentials {
		if holder, taken := m.holders[c.Hash]; taken && holder != id {
			return record{}, errTaken(holder)
		}
	}
	for _, token := range old.tokens() {
		delete(m.tokens, token)
	}
	for _, token := range next.tokens() {
		m.tokens[token] = id
	}
	for _, c := range old.Credentials {
		delete(m.holders, c.Hash)
	}
	for _, c := range next.Credentials {
		m.holders[c.Hash] = id
	}
	next = m.replaceLocked(next, old.Seen)
	m.wroteLocked(next)
	m.actedLocked(a)
	return next, nil
}

// tokens is those that lead to r.
func (r *record) tokens() []tokenHash {
	if r.previous == nil {
		return []tokenHash{r.token}
	}
	return []tokenHash{r.token, r.previous.token}
}

// errTaken tells that a credential is another session's.
func errTaken(holder string) error {
	return fmt.Errorf("the credential belongs to session %s: only a login may move it", holder)
}

// replaceLocked stores the next version of a session.
func (m *MemoryStore) replaceLocked(r record, seen time.Time) record {
	if seen.After(r.Seen) {
		r.Seen = seen
	}
	r.version++
	m.sessions[r.ID] = r.clone()
	return r
}

// liveLocked is the sessions that have not ended and that match, the newest first.
func (m *MemoryStore) liveLocked(match func(*Session) bool) []record {
	return m.sessionsLocked(func(s *Session) bool { return s.Ended.IsZero() && match(s) })
}

func (m *MemoryStore) sessionsLocked(match func(*Session) bool) []record {
	var all []record
	for _, r := range m.sessions {
		if match(&r.Session) {
			all = append(all, r.clone())
		}
	}
	slices.SortFunc(all, func(a, b record) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func (m *MemoryStore) endSessions(_ context.Context, subject string, a act, end func(*Session)) ([]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.announcedLocked(a); err != nil {
		return nil, err
	}
	m.actedLocked(a)
	all := m.liveLocked(func(s *Session) bool { return s.Subject == subject })
	return m.endLocked(all, end), nil
}

func (m *MemoryStore) endLocked(all []record, end func(*Session)) []record {
	for i := range all {
		end(&all[i].Session)
		all[i] = m.replaceLocked(all[i], all[i].Seen)
	}
	m.wroteLocked(all...)
	return all
}

func (m *MemoryStore) expireSessions(_ context.Context, now, idle time.Time, limit int, end func(*Session)) ([]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.liveLocked(func(s *Session) bool {
		return !s.Expires.IsZero() && !s.Expires.After(now) || s.Kind == BrowserSession && !s.Seen.After(idle)
	})
	return m.endLocked(all[:min(limit, len(all))], end), nil
}

func (m *MemoryStore) sessionsOf(_ context.Context, subject string, limit int) ([]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.liveLocked(func(s *Session) bool { return s.Subject == subject })
	return all[:min(limit, len(all))], nil
}

func (m *MemoryStore) allSessionsOf(_ context.Context, subject string, limit int) ([]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.sessionsLocked(func(s *Session) bool { return s.Subject == subject })
	return all[:min(limit, len(all))], nil
}

func (m *MemoryStore) seeSessions(_ context.Context, seen map[string]time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, t := range seen {
		if r, ok := m.sessions[id]; ok && t.After(r.Seen) {
			r.rest(t)
			r.Seen = t
			m.sessions[id] = r
		}
	}
	return nil
}

func (m *MemoryStore) forgetSessions(_ context.Context, then time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for id, r := range m.sessions {
		if n == limit {
			break
		}
		if r.Kind != BrowserSession || r.Ended.IsZero() || !r.Ended.Before(then) {
			continue
		}
		delete(m.sessions, id)
		delete(m.changes, id)
		for _, token := range r.tokens() {
			delete(m.tokens, token)
		}
		for _, c := range r.Credentials {
			delete(m.holders, c.Hash)
		}
		n++
	}
	return n, nil
}

func (m *MemoryStore) learn(_ context.Context, subject string, typed [16]byte, old [][16]byte, now time.Time, merge func(*Person)) (Person, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.people[subject].clone()
	p.Subject = subject
	merge(&p)
	m.people[subject] = p.clone()
	m.wroteLocked()
	m.learned[subject] = m.latest
	if typed == [16]byte{} {
		return p, nil
	}
	since := now
	for _, digest := range old {
		if n := m.names[digest]; n.subject == subject && n.since.Before(since) {
			since = n.since
		}
		delete(m.names, digest)
	}
	if m.names[typed].subject != subject {
		m.names[typed] = typedName{subject, since}
	}
	return p, nil
}

func (m *MemoryStore) person(_ context.Context, subject string) (Person, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.people[subject]
	return p.clone(), ok, nil
}

func (m *MemoryStore) typed(_ context.Context, digests [][16]byte) (typedName, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found typedName
	for _, digest := range slices.Backward(digests) {
		if n, ok := m.names[digest]; ok {
			found = n
		}
	}
	return found, nil
}

func (m *MemoryStore) oldest(context.Context) (first time.Time, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.people {
		if first.IsZero() || p.FirstSeen.Before(first) {
			first = p.FirstSeen
		}
	}
	return first, nil
}

func (d device) clone() device {
	d.subjects = slices.Clone(d.subjects)
	return d
}

func (m *MemoryStore) device(_ context.Context, id deviceID) (device, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.devices[id]
	return d.clone(), ok, nil
}

func (m *MemoryStore) updateDevice(_ context.Context, id deviceID, change func(*device, bool) error) (device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, found := m.devices[id]
	d = d.clone()
	d.id = id
	if err := change(&d, found); err != nil {
		return device{}, err
	}
	m.devices[id] = d.clone()
	return d, nil
}

func (m *MemoryStore) devicesOf(_ context.Context, subject string, limit int) ([]device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := func(d device) time.Time { return d.subjects[d.association(subject)].last }
	var all []device
	for _, d := range m.devices {
		if d.association(subject) >= 0 {
			all = append(all, d.clone())
		}
	}
	slices.SortFunc(all, func(a, b device) int {
		return cmp.Or(last(b).Compare(last(a)), bytes.Compare(b.id[:], a.id[:]))
	})
	return all[:min(limit, len(all))], nil
}

func (m *MemoryStore) forgetDevices(_ context.Context, then, unused time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for id, d := range m.devices {
		if n == limit {
			break
		}
		if !d.used.After(then) || d.presented == 0 && !d.used.After(unused) {
			delete(m.devices, id)
			n++
		}
	}
	return n, nil
}
