package breached

import (
	"container/list"
	"sync"
	"time"
)

// cache keeps the ranges that were used last, each for a day. The zero value is empty.
type cache struct {
	mu    sync.Mutex               // guards all below
	order list.List                // of *cached; the one used last is in front
	by    map[string]*list.Element // by prefix
}

type cached struct {
	prefix string
	known  []uint64
	until  time.Time
}

func (c *cache) get(prefix string, now time.Time) ([]uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.by[prefix]
	if e == nil {
		return nil, false
	}
	have := e.Value.(*cached)
	// An end further away than a day means that the clock was set back.
	if left := have.until.Sub(now); left <= 0 || left > cachedFor {
		c.order.Remove(e)
		delete(c.by, prefix)
		return nil, false
	}
	c.order.MoveToFront(e)
	return have.known, true
}

func (c *cache) put(prefix string, known []uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = make(map[string]*list.Element)
	}
	if e := c.by[prefix]; e != nil {
		c.order.Remove(e)
	}
	c.by[prefix] = c.order.PushFront(&cached{prefix, known, now.Add(cachedFor)})
	if c.order.Len() > maxCached {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.by, last.Value.(*cached).prefix)
	}
}
