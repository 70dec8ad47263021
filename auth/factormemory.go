package auth

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

var _ FactorStore = (*MemoryStore)(nil)

// factorMemory is what a [MemoryStore] has of factors.
type factorMemory struct {
	factors    map[string][]factor // by subject, the oldest first
	keys       map[[32]byte]string // subject, by the hash of the credential id
	keyOf      map[string][32]byte // by the factor's id
	handles    map[string][]byte
	challenges map[[32]byte]challenge
	notices    map[string]FactorNotice
}

func newFactorMemory() factorMemory {
	return factorMemory{
		factors: make(map[string][]factor), keys: make(map[[32]byte]string), keyOf: make(map[string][32]byte),
		handles: make(map[string][]byte), challenges: make(map[[32]byte]challenge), notices: make(map[string]FactorNotice),
	}
}

func (m *MemoryStore) factorsOf(_ context.Context, subject string) ([]factor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.factors.factors[subject]), nil
}

func (m *MemoryStore) subjectOfKey(_ context.Context, credential [32]byte) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.factors.keys[credential], nil
}

func (m *MemoryStore) updateFactors(_ context.Context, subject string, take *[32]byte, a act, change func(*owned) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	approved, err := m.toApproveLocked(a, subject)
	if err != nil {
		return err
	}
	fm := &m.factors
	before := fm.factors[subject]
	o := &owned{handle: fm.handles[subject], factors: slices.Clone(before)}
	if take != nil {
		if c, ok := fm.challenges[*take]; ok {
			o.taken = &c
		}
	}
	if err := change(o); err != nil {
		return err
	}
	if !o.idle {
		if err := m.announcedLocked(a); err != nil {
			return err
		}
	}
	for i := range o.factors {
		f := &o.factors[i]
		if f.credential != [32]byte{} {
			if _, taken := fm.keys[f.credential]; taken {
				return ErrKeyTaken
			}
			fm.keys[f.credential], fm.keyOf[f.ID] = subject, f.credential
			f.credential = [32]byte{}
		}
		f.version++
	}
	for _, old := range before {
		if !slices.ContainsFunc(o.factors, func(f factor) bool { return f.ID == old.ID }) {
			delete(fm.keys, fm.keyOf[old.ID])
			delete(fm.keyOf, old.ID)
		}
	}
	slices.SortStableFunc(o.factors, func(a, b factor) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	fm.factors[subject] = o.factors
	if o.handle != nil {
		fm.handles[subject] = o.handle
	}
	if take != nil {
		delete(fm.challenges, *take)
	}
	if o.put != nil {
		fm.challenges[o.put.hash] = *o.put
		fm.dropOldest(o.put)
	}
	for _, n := range o.notices {
		fm.notices[n.ID] = n
	}
	if !o.idle {
		m.actedLocked(a)
		if approved != nil {
			approved.approve(a.approve, o.kind, a.at)
			m.writeHoldLocked(*approved, nil)
		}
	}
	m.wroteLocked()
	return nil
}

// dropOldest keeps the challenges of an account bounded.
func (fm *factorMemory) dropOldest(put *challenge) {
	var open []challenge
	for _, c := range fm.challenges {
		if c.subject == put.subject {
			open = append(open, c)
		}
	}
	if len(open) <= put.openMax() {
		return
	}
	oldest := slices.MinFunc(open, func(a, b challenge) int {
		return cmp.Or(a.expires.Compare(b.expires), bytes.Compare(a.hash[:], b.hash[:]))
	})
	delete(fm.challenges, oldest.hash)
}

func (m *MemoryStore) forgetFactors(_ context.Context, now time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for subject, all := range m.factors.factors {
		kept := slices.DeleteFunc(slices.Clone(all), func(f factor) bool {
			over := n < limit && f.State == factorPending && !now.Before(f.pending)
			if over {
				n++
			}
			return over
		})
		m.factors.factors[subject] = kept
	}
	gone := 0
	maps.DeleteFunc(m.factors.challenges, func(_ [32]byte, c challenge) bool {
		over := gone < limit && !now.Before(c.expires)
		if over {
			gone++
		}
		return over
	})
	return max(n, gone), nil
}

func (m *MemoryStore) untold(_ context.Context, limit int) ([]FactorNotice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.SortedFunc(maps.Values(m.factors.notices), func(a, b FactorNotice) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	return all[:min(limit, len(all))], nil
}

func (m *MemoryStore) told(_ context.Context, ids []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.factors.notices, id)
	}
	return nil
}
