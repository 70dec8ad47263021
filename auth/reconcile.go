package auth

import (
	"context"
	"fmt"
	"time"
)

const (
	reconcileBatch = 500     // changes read at once
	toldMax        = 1 << 15 // ends remembered as told; 16 bytes each, up to twice as many
)

// position is how far the changes of all nodes are taken over: those before
// (revision, id), in this order, are.
type position struct {
	revision int64
	id       string
}

// Reconcile takes over what other nodes changed since OpenSessions or the last
// call. Sessions that ended elsewhere are over here as well and are told to OnEnd;
// those whose credentials changed are read anew if they are in memory. What this
// process did is not told again, but for a change that failed with [ErrUncertain]
// and was made all the same.
//
// Call it whenever another node says that something changed, and every 30 s in case
// that was lost: a session that ended elsewhere may be used here until then. After
// an error the next call goes on where this one stopped.
func (ss *Sessions) Reconcile(ctx context.Context, _ time.Time) error {
	ss.reconciling.Lock()
	defer ss.reconciling.Unlock()
	latest, err := ss.store.revision(ctx)
	if err != nil {
		return fmt.Errorf("reconciling sessions: %w", err)
	}
	switch {
	case latest+1 < ss.since:
		// The database was replaced by an older copy: nothing in memory is certain.
		ss.cache.dropWhere(func(*Session) bool { return true })
		ss.absent.clear()
		ss.since, ss.taken = latest+1, position{revision: latest + 1}
		return nil
	case latest < ss.taken.revision:
		return nil
	}
	for {
		changes, err := ss.store.changedSessions(ctx, ss.taken.revision, ss.taken.id, reconcileBatch)
		if err != nil {
			return fmt.Errorf("reconciling sessions: %w", err)
		}
		if err := ss.takeOver(ctx, changes); err != nil {
			return fmt.Errorf("reconciling sessions: %w", err)
		}
		if n := len(changes); n > 0 {
			ss.taken = position{changes[n-1].revision, changes[n-1].id}
		}
		if len(changes) < reconcileBatch {
			break
		}
	}
	// A session that changes meanwhile moves on in the order, and is met again; so
	// everything up to both of these was met.
	ss.since = max(latest, ss.taken.revision) + 1
	ss.taken = position{revision: ss.since}
	return nil
}

// takeOver makes changes visible and tells of the ends among them that came since
// the last complete Reconcile and were not told.
func (ss *Sessions) takeOver(ctx context.Context, changes []changed) error {
	if len(changes) == 0 {
		return nil
	}
	behind := ss.cache.behind(changes)
	var ids []string
	ends := make(map[string]bool)
	for _, c := range changes {
		if c.ended >= ss.since {
			if _, told := ss.told.get(keyOfID(c.id)); !told {
				ends[c.id] = true
			}
		}
		if behind[c.id] || ends[c.id] {
			ids = append(ids, c.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rs, err := ss.store.sessionsByID(ctx, ids)
	if err != nil {
		return err
	}
	ss.cache.refresh(rs)
	var ended []record
	for _, r := range rs {
		delete(behind, r.ID)
		if ends[r.ID] {
			ended = append(ended, r)
		}
	}
	for id := range behind { // deleted meanwhile
		ss.cache.drop(id)
	}
	ss.tell(ended)
	return nil
}
