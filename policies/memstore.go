package policies

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// MemoryStore keeps decisions for as long as the process lives. It is meant for
// simulations and tests: its lists and sweeps look at everything it has.
type MemoryStore struct {
	mu       sync.Mutex
	revision uint64              // guarded by mu, as all below
	byID     map[string]Stored   // all
	live     map[identity]string // ids of those in state live
	held     map[string]bool     // ids of those with a hold-off
	acts     map[string]time.Time

	notices *memoryNotices
}

// identity is what two decisions must share to be one that is extended.
type identity struct {
	scope  Scope
	value  string
	origin Origin
	by     string
	rule   rules.ID
	action rules.Action
	mode   rules.Mode
}

func identityOf(d Decision) identity {
	return identity{d.Scope, d.Value, d.Origin, d.By, d.Rule, d.Action, d.Mode}
}

// NewMemoryStore is empty.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{
		byID: make(map[string]Stored), live: make(map[identity]string), held: make(map[string]bool), acts: make(map[string]time.Time),
		notices: &memoryNotices{all: make(map[string]*memoryNotice)},
	}
}

// Outbox opens the outbox to which updates of m put their notices. Each is a
// deliverer of its own.
func (m *MemoryStore) Outbox() *Outbox { return newOutbox(m.notices) }

// Update implements [DecisionStore].
func (m *MemoryStore) Update(ctx context.Context, do func(DecisionTx) error) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	tx := &memoryTx{m: m, revision: m.revision + 1, undo: make(map[string]*Stored), acts: make(map[string]time.Time)}
	if err := do(tx); err != nil {
		for id, old := range tx.undo {
			m.setLocked(id, old)
		}
		return 0, err
	}
	m.revision++
	for entry, at := range tx.acts {
		if _, marked := m.acts[entry]; !marked {
			m.acts[entry] = at
		}
	}
	for _, n := range tx.intents {
		if _, err := m.notices.put(ctx, n.Notice, n.now); err != nil {
			return 0, err // none: it fails never
		}
	}
	return m.revision, nil
}

// Standing implements [DecisionStore].
func (m *MemoryStore) Standing(_ context.Context, now time.Time, each func(Stored)) (uint64, error) {
	return m.each(func(s Stored) bool { return s.State == StateLive || s.HoldOff.After(now) }, each)
}

// Since implements [DecisionStore].
func (m *MemoryStore) Since(_ context.Context, revision uint64, each func(Stored)) (uint64, error) {
	return m.each(func(s Stored) bool { return s.Revision > revision }, each)
}

func (m *MemoryStore) each(meant func(Stored) bool, each func(Stored)) (uint64, error) {
	m.mu.Lock()
	found := slices.Collect(maps.Values(m.byID))
	latest := m.revision
	m.mu.Unlock()
	for _, s := range found {
		if meant(s) {
			each(s)
		}
	}
	return latest, nil
}

// Due implements [DecisionStore].
func (m *MemoryStore) Due(_ context.Context, now, then time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.byID {
		if s.untold(now) || s.past(then) {
			return true, nil
		}
	}
	return false, nil
}

// untold reports whether a sweep at now is to tell of s.
func (s Stored) untold(now time.Time) bool {
	return (s.State == StateLive || s.State == StateLapsed) && !s.Until.After(now)
}

// past reports whether s is to be deleted as of then.
func (s Stored) past(then time.Time) bool {
	return (s.State == StateLifted || s.State == StateExpired) && s.Until.Before(then) && s.HoldOff.Before(then)
}

// Acted implements [DecisionStore].
func (m *MemoryStore) Acted(_ context.Context, entries []string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var acted []string
	for _, e := range entries {
		if _, ok := m.acts[e]; ok {
			acted = append(acted, e)
		}
	}
	return acted, nil
}

// ForgetActs implements [DecisionStore].
func (m *MemoryStore) ForgetActs(_ context.Context, prefix string, before time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	deleted := 0
	for entry, at := range m.acts {
		if deleted < limit && strings.HasPrefix(entry, prefix) && at.Before(before) {
			delete(m.acts, entry)
			deleted++
		}
	}
	return deleted, nil
}

// ByID implements [DecisionStore].
func (m *MemoryStore) ByID(_ context.Context, id string) (Stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byIDLocked(id)
}

// List implements [DecisionStore].
func (m *MemoryStore) List(_ context.Context, q DecisionQuery, now time.Time, limit int) ([]Stored, error) {
	var address netip.Addr
	if q.Address != "" {
		a, err := netip.ParseAddr(q.Address)
		if err != nil {
			return nil, err
		}
		address = a
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []Stored
	for _, s := range m.byID {
		live := s.State == StateLive && s.Until.After(now)
		if q.Scope != "" && s.Scope != q.Scope || q.Value != "" && s.Value != q.Value ||
			q.Origin != "" && s.Origin != q.Origin || q.By != "" && s.By != q.By || q.Rule != "" && s.Rule != q.Rule ||
			q.State == "live" && !live || q.State == "ended" && live || q.Cursor != "" && s.ID >= q.Cursor {
			continue
		}
		if address.IsValid() {
			if s.Scope != ScopeAddress && s.Scope != ScopeNetwork {
				continue
			}
			if p, ok := subjectPrefix(s.Value); !ok || !p.Contains(address) {
				continue
			}
		}
		found = append(found, s)
	}
	slices.SortFunc(found, func(a, b Stored) int { return cmp.Compare(b.ID, a.ID) })
	return found[:min(limit, len(found))], nil
}

func (m *MemoryStore) byIDLocked(id string) (Stored, error) {
	s, ok := m.byID[id]
	if !ok {
		return Stored{}, ErrNotFound
	}
	return s, nil
}

// setLocked makes s, or nothing, what the store has under id.
func (m *MemoryStore) setLocked(id string, s *Stored) {
	if old, ok := m.byID[id]; ok && m.live[identityOf(old.Decision)] == id {
		delete(m.live, identityOf(old.Decision))
	}
	if s == nil {
		delete(m.byID, id)
		delete(m.held, id)
		return
	}
	m.byID[id] = *s
	if s.HoldOff.IsZero() {
		delete(m.held, id)
	} else {
		m.held[id] = true
	}
	if s.State == StateLive {
		m.live[identityOf(s.Decision)] = id
	}
}

type memoryTx struct {
	m        *MemoryStore // locked
	revision uint64
	undo     map[string]*Stored // what was there before; nil for nothing
	acts     map[string]time.Time
	intents  []memoryIntent
}

type memoryIntent struct {
	Notice
	now time.Time
}

func (tx *memoryTx) Act(entry string, now time.Time) error {
	tx.acts[entry] = now
	return nil
}

func (tx *memoryTx) Intend(n Notice, now time.Time) error {
	if err := n.check(); err != nil {
		return err
	}
	tx.intents = append(tx.intents, memoryIntent{n, now})
	return nil
}

func (tx *memoryTx) ByID(id string) (Stored, error) { return tx.m.byIDLocked(id) }

func (tx *memoryTx) Live(d Decision) (Stored, bool, error) {
	id, ok := tx.m.live[identityOf(d)]
	return tx.m.byID[id], ok, nil
}

func (tx *memoryTx) HoldOff(rule rules.ID, scope Scope, value string) (latest time.Time, _ error) {
	for id := range tx.m.held {
		if s := tx.m.byID[id]; s.Rule == rule && s.Scope == scope && s.Value == value && s.HoldOff.After(latest) {
			latest = s.HoldOff
		}
	}
	return latest, nil
}

func (tx *memoryTx) Put(d Decision, state State) error {
	tx.remember(d.ID)
	tx.m.setLocked(d.ID, &Stored{Decision: d, State: state, Revision: tx.revision})
	return nil
}

func (tx *memoryTx) remember(id string) {
	if _, ok := tx.undo[id]; ok {
		return
	}
	tx.undo[id] = nil
	if old, ok := tx.m.byID[id]; ok {
		tx.undo[id] = &old
	}
}

func (tx *memoryTx) Untold(now time.Time, limit int) ([]Stored, error) {
	var found []Stored
	for _, s := range tx.m.byID {
		if s.untold(now) {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b Stored) int { return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.ID, b.ID)) })
	return found[:min(limit, len(found))], nil
}

func (tx *memoryTx) Purge(then time.Time, limit int) (int, error) {
	deleted := 0
	for id, s := range tx.m.byID {
		if deleted < limit && s.past(then) {
			tx.remember(id)
			tx.m.setLocked(id, nil)
			deleted++
		}
	}
	return deleted, nil
}
