package auth

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

var _ HoldStore = (*MemoryStore)(nil)

// holdMemory is what a [MemoryStore] has of holds.
type holdMemory struct {
	holds   map[string]hold
	tokens  map[tokenHash]string
	answers map[string][]byte // of open ones
}

func newHoldMemory() holdMemory {
	return holdMemory{holds: make(map[string]hold), tokens: make(map[tokenHash]string), answers: make(map[string][]byte)}
}

func (h hold) clone() hold {
	h.Credentials = slices.Clone(h.Credentials)
	return h
}

// matching is up to limit holds, the newest first.
func (hm *holdMemory) matching(limit int, match func(*hold) bool) []hold {
	var all []hold
	for _, h := range hm.holds {
		if match(&h) {
			all = append(all, h.clone())
		}
	}
	slices.SortFunc(all, func(a, b hold) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID))
	})
	return all[:min(limit, len(all))]
}

// writeHoldLocked stores what became of a hold that was open.
func (m *MemoryStore) writeHoldLocked(h hold, notices []FactorNotice) {
	h = h.clone()
	if !h.open() {
		h.Credentials = nil
		delete(m.holds.answers, h.ID)
	}
	m.holds.holds[h.ID] = h
	for _, n := range notices {
		m.factors.notices[n.ID] = n
	}
}

func (m *MemoryStore) insertHold(_ context.Context, h hold, answer []byte, perSubject, limit int, displace func(*hold) []FactorNotice) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.holds.holds[h.ID]; taken {
		return fmt.Errorf("hold %s exists", h.ID)
	}
	waiting := m.holds.matching(perSubject, func(o *hold) bool { return o.Subject == h.Subject && o.State == HoldWaiting })
	open := len(m.holds.answers)
	if len(waiting) == perSubject {
		open--
	}
	if open >= limit {
		return ErrTooManyHolds
	}
	if len(waiting) == perSubject {
		old := displaced(waiting, h.Network)
		notices := displace(&old)
		m.writeHoldLocked(old, notices)
	}
	m.holds.holds[h.ID] = h.clone()
	m.holds.tokens[h.token] = h.ID
	m.holds.answers[h.ID] = slices.Clone(answer)
	m.wroteLocked()
	return nil
}

func (m *MemoryStore) holdLocked(id string) (hold, error) {
	h, ok := m.holds.holds[id]
	if !ok {
		return hold{}, ErrNoHold
	}
	return h.clone(), nil
}

func (m *MemoryStore) holdByToken(_ context.Context, token tokenHash) (hold, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holdLocked(m.holds.tokens[token])
}

func (m *MemoryStore) holdByID(_ context.Context, id string) (hold, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holdLocked(id)
}

func (m *MemoryStore) holdByCredential(_ context.Context, kind string, hash CredentialHash) (hold, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.holds.matching(1, func(h *hold) bool {
		return slices.ContainsFunc(h.Credentials, func(c Credential) bool { return c.is(kind, hash) })
	})
	if len(all) == 0 {
		return hold{}, ErrNoHold
	}
	return all[0], nil
}

func (m *MemoryStore) holdsByAttempt(_ context.Context, attempt [16]byte, limit int) ([]hold, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holds.matching(limit, func(h *hold) bool { return h.open() && h.Attempt == attempt }), nil
}

func (m *MemoryStore) holdsOf(_ context.Context, subject string, limit int) ([]hold, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holds.matching(limit, func(h *hold) bool { return h.open() && h.Subject == subject }), nil
}

func (m *MemoryStore) endedHoldsOf(_ context.Context, subject string, limit int) ([]hold, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holds.matching(limit, func(h *hold) bool { return !h.open() && h.Subject == subject }), nil
}

func (m *MemoryStore) updateHold(_ context.Context, id string, a act, change func(*hold) ([]FactorNotice, error)) (hold, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.announcedLocked(a); err != nil {
		return hold{}, err
	}
	h, err := m.holdLocked(id)
	if err != nil {
		return hold{}, err
	}
	notices, err := change(&h)
	if err != nil {
		return hold{}, err
	}
	m.writeHoldLocked(h, notices)
	m.wroteLocked()
	m.actedLocked(a)
	return h, nil
}

func (m *MemoryStore) expireHolds(_ context.Context, now time.Time, limit int, end func(*hold) []FactorNotice) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.holds.matching(limit, func(h *hold) bool { return h.open() && !h.Expires.After(now) })
	for _, h := range all {
		notices := end(&h)
		m.writeHoldLocked(h, notices)
	}
	m.wroteLocked()
	return len(all), nil
}

func (m *MemoryStore) holdAnswer(_ context.Context, id string) (hold, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, err := m.holdLocked(id)
	return h, slices.Clone(m.holds.answers[id]), err
}

func (m *MemoryStore) forgetHolds(_ context.Context, then time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	maps.DeleteFunc(m.holds.holds, func(_ string, h hold) bool {
		gone := n < limit && !h.open() && (h.Ended.Before(then) || h.nobodys())
		if gone {
			delete(m.holds.tokens, h.token)
			n++
		}
		return gone
	})
	return n, nil
}

// toApproveLocked is the hold that an act of the account is to approve; nil if none.
func (m *MemoryStore) toApproveLocked(a act, subject string) (*hold, error) {
	if a.approve == nil {
		return nil, nil
	}
	h, err := m.holdLocked(a.approve.Hold)
	if err != nil {
		return nil, ErrHoldOver
	}
	return &h, h.approvable(subject, a.at)
}

// toReleaseLocked is the hold of an act as it is when a session of the subject has
// begun; nil if none.
func (m *MemoryStore) toReleaseLocked(a act, subject string) (*hold, error) {
	if a.release == "" {
		return nil, nil
	}
	h, err := m.holdLocked(a.release)
	if err != nil {
		return nil, ErrHoldOver
	}
	return &h, h.release(subject, a.at)
}
