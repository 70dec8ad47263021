package guard

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/kidoban/kidoban/auth"
)

// logoutsMax bounds the log-outs that wait for the database, about 100 bytes each.
const logoutsMax = 100_000

// logouts are sessions whose holders logged out while the database could not note
// it. They are over on this node at once, and for good when it can be written
// again; a crash before that brings them back.
type logouts struct {
	count atomic.Int64 // of waiting: nearly always there is none

	mu      sync.Mutex
	waiting map[string]string // who ended them, by session; guarded by mu
}

func (l *logouts) has(session string) bool {
	if l.count.Load() == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, found := l.waiting[session]
	return found
}

// add returns false if there are too many.
func (l *logouts) add(session, by string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= logoutsMax {
		return false
	}
	if l.waiting == nil {
		l.waiting = make(map[string]string)
	}
	l.waiting[session] = by
	l.count.Store(int64(len(l.waiting)))
	return true
}

func (l *logouts) remove(session string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, session)
	l.count.Store(int64(len(l.waiting)))
}

func (l *logouts) all() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.waiting)
}

// logOutOf ends a session that the backend has ended already.
func (c *Core) logOutOf(ctx context.Context, session, by string) {
	err := c.endOver(ctx, session, by)
	if err == nil {
		return
	}
	kept := c.logouts.add(session, by)
	c.Sockets.Close(session)
	c.Log.Error("the end of a session cannot be stored yet", "session", session, "over_here", kept, "error", err)
}

func (c *Core) endOver(ctx context.Context, session, by string) error {
	_, err := c.endSession(ctx, session, by, false)
	if errors.Is(err, auth.ErrNoSession) || errors.Is(err, auth.ErrSessionEnded) {
		return nil
	}
	return err
}

// endLoggedOut stores the ends that wait, up to the first that still cannot be.
func (c *Core) endLoggedOut(ctx context.Context) error {
	for session, by := range c.logouts.all() {
		if err := c.endOver(ctx, session, by); err != nil {
			return err
		}
		c.logouts.remove(session)
	}
	return nil
}
