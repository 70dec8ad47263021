package policies

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// memoryNotices keeps notices for as long as the process lives.
type memoryNotices struct {
	mu   sync.Mutex
	all  map[string]*memoryNotice // guarded by mu, as all below; by key
	open int
}

type memoryNotice struct {
	Notice
	lost    int64
	settled time.Time
}

func (m *memoryNotices) put(_ context.Context, n Notice, now time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n.Values = maps.Clone(n.Values)
	if _, kept := m.all[n.Key]; kept {
		return false, nil
	}
	if m.open >= maxOpen {
		for _, o := range m.all {
			if o.Channel == n.Channel && o.Template == OverflowTemplate && o.State == Pending && o.Attempts == 0 {
				o.lost++
				return false, nil
			}
		}
		o := overflow(n.Channel, now)
		m.all[o.Key] = &memoryNotice{Notice: o, lost: 1}
		m.open++
		return false, nil
	}
	m.all[n.Key] = &memoryNotice{Notice: n.begun(now)}
	m.open++
	return true, nil
}

func (m *memoryNotices) claim(_ context.Context, owner string, now, ends time.Time, limit int) ([]Notice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due []*memoryNotice
	for _, n := range m.all {
		if n.State.open() && !n.Next.After(now) {
			due = append(due, n)
		}
	}
	slices.SortFunc(due, func(a, b *memoryNotice) int { return cmp.Or(a.Next.Compare(b.Next), strings.Compare(a.Key, b.Key)) })
	var out []Notice
	for _, n := range due[:min(limit, len(due))] {
		if n.State == Pending {
			n.State = Leased
		} else {
			n.State = Uncertain
		}
		n.Owner, n.Next = owner, ends
		n.Attempts++
		out = append(out, n.copy())
	}
	return out, nil
}

func (n *memoryNotice) copy() Notice {
	c := n.Notice
	c.Values = maps.Clone(n.Values)
	return c.counting(n.lost)
}

func (m *memoryNotices) settle(_ context.Context, key string, attempt int, s NoticeState, next, now time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.all[key]
	switch {
	case n == nil, !n.State.open(), n.Attempts == 0, attempt > 0 && (n.State == Pending || n.Attempts != attempt):
		return false, nil
	case s == Sent || s == GivenUp:
		m.open--
		n.settled = now
	case n.State == Uncertain:
		s = Uncertain
	}
	n.State, n.Next = s, next
	return true, nil
}

func (m *memoryNotices) state(_ context.Context, key string) (NoticeState, int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.all[key]; n != nil {
		return n.State, n.Attempts, nil
	}
	return "", 0, nil
}

func (m *memoryNotices) list(_ context.Context, f NoticeFilter, created time.Time, key string, limit int) ([]Notice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := func(a, b Notice) int { return cmp.Or(b.Created.Compare(a.Created), strings.Compare(b.Key, a.Key)) }
	var found []Notice
	for _, n := range m.all {
		if f.State != "" && f.State != n.State || f.Channel != "" && f.Channel != n.Channel ||
			f.Template != "" && f.Template != n.Template || f.To != "" && f.To != n.To ||
			!created.IsZero() && newest(n.Notice, Notice{Created: created, Key: key}) <= 0 {
			continue
		}
		found = append(found, n.copy())
	}
	slices.SortFunc(found, newest)
	return found[:min(limit, len(found))], nil
}

func (m *memoryNotices) counts(context.Context) (map[NoticeState]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := make(map[NoticeState]int)
	for _, n := range m.all {
		counts[n.State]++
	}
	return counts, nil
}

func (m *memoryNotices) purge(_ context.Context, before time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	deleted := 0
	for key, n := range m.all {
		if deleted < limit && !n.State.open() && n.settled.Before(before) {
			delete(m.all, key)
			deleted++
		}
	}
	return deleted, nil
}
