package auth

import (
	"context"
	"fmt"
	"time"
)

// Touch notes that a session was used. It is noted once a minute and stored by
// the next Sweep; a crash forgets what was not stored, which makes a session look
// idle for that much longer.
func (ss *Sessions) Touch(id string, now time.Time) {
	now = stored(now)
	if c := ss.cache.get(keyOfID(id)); c != nil {
		for {
			r := c.record.Load()
			if r.ID != id || now.Sub(r.Seen) < seenEvery || !r.Ended.IsZero() {
				return
			}
			next := *r
			next.rest(now)
			next.Seen = now
			if c.record.CompareAndSwap(r, &next) {
				break
			}
		}
	}
	if !storable(id) {
		return
	}
	ss.seenMu.Lock()
	defer ss.seenMu.Unlock()
	if old, ok := ss.seen[id]; ok && now.Sub(old) < seenEvery || !ok && len(ss.seen) >= ss.cfg.CacheSize+absentMax {
		return
	}
	ss.seen[id] = now
}

// noted adds to r what is not in the store yet.
func (ss *Sessions) noted(r *record) {
	if seen := ss.unstored(r.ID); seen.After(r.Seen) {
		r.rest(seen)
		r.Seen = seen
	}
}

// unstored is when a session was used last, if that is not in the store yet.
func (ss *Sessions) unstored(id string) time.Time {
	ss.seenMu.Lock()
	defer ss.seenMu.Unlock()
	if t, ok := ss.seen[id]; ok {
		return t
	}
	return ss.flushing[id]
}

// Sweep stores what Touch noted, ends the sessions whose time is over, and
// forgets browser sessions that ended more than TombstoneFor ago. What it returns
// is how many it ended. Nothing waits for it: a session stops on time without.
// Token sessions are never forgotten, because their credential may never expire;
// there are as many as the backend minted tokens. Several nodes sweep every 10 s or
// so; a session that is idle ends 30 s late there, and is of no use before.
func (ss *Sessions) Sweep(ctx context.Context, now time.Time) (int, error) {
	ss.sweeping.Lock()
	defer ss.sweeping.Unlock()
	now = stored(now)
	if err := ss.flush(ctx); err != nil {
		return 0, fmt.Errorf("storing when sessions were used: %w", err)
	}
	idle := now.Add(-ss.cfg.Idle)
	if ss.shared {
		idle = idle.Add(-lateUse) // what other nodes noted may not be stored yet
	}
	ended := 0
	for {
		lost := ss.cache.lost.Load()
		rs, err := ss.store.expireSessions(ctx, now, idle, sweepBatch, func(s *Session) {
			s.Ended, s.EndedBy = now, endedByExpiry
		})
		if err != nil {
			return ended, fmt.Errorf("expiring sessions: %w", err)
		}
		ended += len(rs)
		ss.applied(rs, lost)
		ss.tell(rs)
		if len(rs) < sweepBatch {
			break
		}
	}
	for {
		n, err := ss.store.forgetSessions(ctx, now.Add(-ss.cfg.TombstoneFor), sweepBatch)
		if err != nil {
			return ended, fmt.Errorf("forgetting sessions that ended long ago: %w", err)
		}
		if n < sweepBatch {
			return ended, nil
		}
	}
}

// flush stores the noted uses, a batch a transaction.
func (ss *Sessions) flush(ctx context.Context) error {
	ss.seenMu.Lock()
	ss.flushing, ss.seen = ss.seen, make(map[string]time.Time)
	all := ss.flushing
	ss.seenMu.Unlock()

	batch := make(map[string]time.Time, sweepBatch)
	var err error
	for id, t := range all {
		batch[id] = t
		if len(batch) == sweepBatch {
			if err = ss.store.seeSessions(ctx, batch); err != nil {
				break
			}
			clear(batch)
		}
	}
	if err == nil && len(batch) > 0 {
		err = ss.store.seeSessions(ctx, batch)
	}

	ss.seenMu.Lock()
	defer ss.seenMu.Unlock()
	if err != nil {
		// Storing some of them again does no harm.
		for id, t := range ss.flushing {
			if t.After(ss.seen[id]) {
				ss.seen[id] = t
			}
		}
	}
	ss.flushing = nil
	return err
}
