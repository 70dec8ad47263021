package guard

import (
	"context"
	"errors"
	"time"

	"github.com/kidoban/kidoban/gateway/stream"
)

// Topics of announcements to other nodes.
const (
	topicDecisions = "decisions"
	topicSessions  = "sessions"
)

const (
	// reconciling is how often the changes of other nodes are taken over from the
	// database when nobody can announce them. It costs some look-ups of one row when
	// nothing changed.
	reconciling = 100 * time.Millisecond
	// unannounced is how often while the stream announces changes: one may be lost.
	unannounced = time.Second
	// pausing is the least time between two: log-ins elsewhere may announce a thousand
	// changes a second.
	pausing = 20 * time.Millisecond
)

// tellNodes tells the other nodes to look into the database.
func (c *Core) tellNodes(topic string) {
	if c.shared {
		c.Stream.Announce(stream.Announcement{Topic: topic})
	}
}

// follow takes over what other nodes change, until ctx ends.
func (c *Core) follow(ctx context.Context) {
	news := make(chan struct{}, 1)
	defer c.Stream.OnAnnouncement(func(stream.Announcement) {
		select {
		case news <- struct{}{}:
		default:
		}
	})()
	t := time.NewTicker(reconciling)
	defer t.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
		case now := <-t.C:
			if !c.behind.Load() && c.Stream.Announces() && now.Sub(last) < unannounced {
				continue
			}
		}
		c.reconcile(ctx)
		last = time.Now()
		pause.Reset(pausing)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// reconcile takes over what other nodes decided and which sessions they ended.
func (c *Core) reconcile(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	now := c.Now()
	err := errors.Join(c.Decisions.Reconcile(ctx, now), c.Sessions.Reconcile(ctx, now), c.Directory.Reconcile(ctx))
	switch {
	case ctx.Err() != nil && err != nil && !c.behind.Load() && errors.Is(err, context.Canceled):
		return // the gate stops
	case err != nil && !c.behind.Load():
		c.Log.Error("taking over what other nodes changed; decisions and sessions stay as they are known here until it works again", "error", err)
	case err == nil && c.behind.Load():
		c.Log.Info("the changes of other nodes are taken over again")
	}
	c.behind.Store(err != nil)
}

// Behind reports whether what other nodes changed could not be taken over lately.
func (c *Core) Behind() bool { return c.behind.Load() }
