package auth

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

var _ SlipStore = (*MemoryStore)(nil)

// slipMemory is what a [MemoryStore] has of slips.
type slipMemory struct {
	slips    map[string]slip
	failures map[slipOwner]slipFailures
}

type slipOwner struct {
	purpose SlipPurpose
	subject string
}

func newSlipMemory() slipMemory {
	return slipMemory{slips: make(map[string]slip), failures: make(map[slipOwner]slipFailures)}
}

// matching is the slips that match, the newest first.
func (sm *slipMemory) matching(match func(*slip) bool) []slip {
	var all []slip
	for _, s := range sm.slips {
		if match(&s) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b slip) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID))
	})
	return all
}

// unused reports whether s was neither used nor cancelled.
func (s *slip) unused() bool { return s.Used.IsZero() && s.Cancelled.IsZero() }

func (m *MemoryStore) insertSlip(_ context.Context, r slip, a act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.announcedLocked(a); err != nil {
		return err
	}
	if _, taken := m.slips.slips[r.ID]; taken {
		return fmt.Errorf("slip %s exists", r.ID)
	}
	for i, old := range m.slips.matching(func(s *slip) bool { return s.unused() && s.Subject == r.Subject && s.Purpose == r.Purpose }) {
		if old.For == r.For || i == slipOpenMax-1 {
			old.Cancelled = r.Created
			m.slips.slips[old.ID] = old
		}
	}
	m.slips.slips[r.ID] = r
	m.wroteLocked()
	m.actedLocked(a)
	return nil
}

// approvedLocked stores the approval of a hold by something that is no factor.
func (m *MemoryStore) approvedLocked(h *hold, a act) {
	if h != nil {
		h.approve(a.approve, "", a.at)
		m.writeHoldLocked(*h, nil)
	}
}

func (m *MemoryStore) trySlip(_ context.Context, purpose SlipPurpose, subject, forWhat string, a act, try func(*slip, *slipFailures) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, err := m.toApproveLocked(a, subject)
	if err != nil {
		return err
	}
	owner := slipOwner{purpose, subject}
	f := m.slips.failures[owner]
	var found *slip
	if all := m.slips.matching(func(s *slip) bool {
		return s.unused() && s.Subject == subject && s.Purpose == purpose && s.For == forWhat
	}); len(all) > 0 {
		found = &all[0]
	}
	used := try(found, &f)
	if used {
		if err := m.announcedLocked(a); err != nil {
			return err
		}
		m.approvedLocked(h, a)
		m.slips.slips[found.ID] = *found
		m.actedLocked(a)
	}
	m.slips.failures[owner] = f
	m.wroteLocked()
	return nil
}

func (m *MemoryStore) slipLocked(find slipKey) (slip, error) {
	if find.id != "" {
		if s, ok := m.slips.slips[find.id]; ok {
			return s, nil
		}
		return slip{}, ErrNoSlip
	}
	all := m.slips.matching(func(s *slip) bool { return s.secret != nil && *s.secret == find.secret })
	if len(all) == 0 {
		return slip{}, ErrNoSlip
	}
	return all[0], nil
}

func (m *MemoryStore) updateSlip(_ context.Context, find slipKey, a act, change func(*slip) error) (slip, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.slipLocked(find)
	if err != nil {
		return slip{}, err
	}
	h, err := m.toApproveLocked(a, s.Subject)
	if err != nil {
		return slip{}, err
	}
	if err := change(&s); err != nil {
		return slip{}, err
	}
	if err := m.announcedLocked(a); err != nil {
		return slip{}, err
	}
	m.approvedLocked(h, a)
	m.slips.slips[s.ID] = s
	m.wroteLocked()
	m.actedLocked(a)
	return s, nil
}

func (m *MemoryStore) slipBy(_ context.Context, find slipKey) (slip, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slipLocked(find)
}

func (m *MemoryStore) openSlips(_ context.Context, subject string, now time.Time, limit int) ([]slip, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.slips.matching(func(s *slip) bool { return s.Subject == subject && s.open(now) })
	return all[:min(limit, len(all))], nil
}

func (m *MemoryStore) dueSlips(_ context.Context, purpose SlipPurpose, now time.Time, limit int) ([]slip, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.slips.matching(func(s *slip) bool { return s.Purpose == purpose && s.secret == nil && s.good(now) })
	slices.SortFunc(all, func(a, b slip) int {
		return cmp.Or(a.NotBefore.Compare(b.NotBefore), cmp.Compare(a.ID, b.ID))
	})
	return all[:min(limit, len(all))], nil
}

func (m *MemoryStore) usedSlips(_ context.Context, usedFor string, then time.Time) ([]SlipPurpose, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	subject := m.sessions[usedFor].Subject
	if h, ok := m.holds.holds[usedFor]; ok {
		subject = h.Subject
	}
	var all []SlipPurpose
	for _, s := range m.slips.matching(func(s *slip) bool { return s.UsedFor == usedFor && s.Used.After(then) && s.Subject == subject }) {
		all = append(all, s.Purpose)
	}
	return all, nil
}

func (m *MemoryStore) forgetSlips(_ context.Context, then time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	maps.DeleteFunc(m.slips.slips, func(_ string, s slip) bool {
		gone := n < limit && s.Expires.Before(then)
		if gone {
			n++
		}
		return gone
	})
	return n, nil
}
