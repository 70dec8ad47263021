package limits

import (
	"context"
	"fmt"
	"time"

	"github.com/ulule/limiter/v3"
)

// Store counts in memory, for [limiter.Limiter] and for [Limiter]. It is safe for
// concurrent use.
//
// A window is opened by a key's first hit and lasts one period; hits after its
// end open the next. What differs from the library's own memory store is what a
// gate needs: the number of keys is bounded, no goroutine sweeps, a hit that is
// refused is not charged (so Increment of more than what is left leaves what is
// left), charges are never negative, two rates over one key do not share a
// counter unless their periods are equal, and a clock that is set back ends a
// window a period later at most. When a shard is full, counters whose window is
// over go first, then the least used; whoever is over the limit is forgotten only
// if practically everybody is.
type Store struct {
	now    func() time.Time
	seeds  seeds
	counts *table[counter]
}

// counter is one key's window.
type counter struct {
	used  int64
	limit int64 // when last charged: used >= limit is refusing
	end   int64 // of the window, Unix nanoseconds
}

// NewStore returns a store of at most keys counters (rounded up to a multiple of
// 64; 0: DefaultKeys) that reads the time from now.
func NewStore(keys int, now func() time.Time) *Store {
	return &Store{now: now, seeds: newSeeds(), counts: newTable(keys, func(c *counter, now int64) int64 {
		switch left := c.end - now; {
		case left <= 0:
			return 0
		case c.used >= c.limit:
			return protected + left
		}
		return max(c.used, 1)
	})}
}

var _ limiter.Store = (*Store)(nil)

// Get charges key with one hit.
func (s *Store) Get(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return s.Increment(ctx, key, 1, rate)
}

// Peek tells how key stands and changes nothing.
func (s *Store) Peek(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return s.Increment(ctx, key, 0, rate)
}

// Increment charges key with count hits, or with none when fewer are left.
// Negative counts are an error: a refund would extend or reopen windows.
func (s *Store) Increment(_ context.Context, key string, count int64, rate limiter.Rate) (limiter.Context, error) {
	if err := checkIncrement(count, rate); err != nil {
		return limiter.Context{}, err
	}
	charges := [1]hit{s.hit("", key, count, rate)}
	s.take(charges[:])
	return charges[0].context(), nil
}

// checkIncrement tells what no store counts.
func checkIncrement(count int64, rate limiter.Rate) error {
	if count < 0 {
		return fmt.Errorf("limits: increment by %d: counters only count up, want 0 or more", count)
	}
	if rate.Period <= 0 || rate.Limit < 0 {
		return fmt.Errorf("limits: rate of %d in %s: want a count of 0 or more and a positive period", rate.Limit, rate.Period)
	}
	return nil
}

// Reset forgets key.
func (s *Store) Reset(_ context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	i := s.id("", key, rate.Period)
	locked := s.counts.lock([]id{i})
	s.counts.removeLocked(i)
	s.counts.unlock(locked)
	return limiter.Context{
		Limit: rate.Limit, Remaining: rate.Limit, Reset: ceilSeconds(s.now().UnixNano() + int64(rate.Period)),
	}, nil
}

// id names the counter of a key under a limit's name and period.
func (s *Store) id(name, key string, period time.Duration) id {
	return s.seeds.id(name, key, int64(period))
}

// hit is one charge on its way through a store.
type hit struct {
	name   string // of the limit
	key    string // whose counter
	id     id
	limit  int64
	period int64 // nanoseconds
	count  int64
	shadow bool // its refusal refuses nobody

	counter *counter // under the locks of take only
	used    int64    // out: charged before this call
	end     int64    // out: of the window, Unix nanoseconds
	over    bool     // out: this charge does not fit
	taken   bool     // out: charged
}

// hit is a charge of count hits under a limit's name.
func (s *Store) hit(name, key string, count int64, rate limiter.Rate) hit {
	return hit{
		name: name, key: key, id: s.id(name, key, rate.Period),
		limit: rate.Limit, period: int64(rate.Period), count: count,
	}
}

// context is what the library is told of a charge that was made alone.
func (h *hit) context() limiter.Context {
	used, reached := h.used, h.used+h.count > h.limit
	if h.taken {
		used, reached = h.used+h.count, false
	}
	return limiter.Context{
		Limit: h.limit, Remaining: max(h.limit-used, 0), Reached: reached,
		Reset: ceilSeconds(h.end),
	}
}

// known marks those of hits that have nothing left in s, charges nothing, and
// tells whether the others may be asked for elsewhere, and how many it marked.
func (s *Store) known(hits []hit) (allowed bool, n int) {
	var room [8]id
	ids := room[:0]
	for i := range hits {
		ids = append(ids, hits[i].id)
	}
	now := s.now().UnixNano()
	locked := s.counts.lock(ids)
	defer s.counts.unlock(locked)
	allowed = true
	for i := range hits {
		h := &hits[i]
		c := s.counts.findLocked(h.id)
		if c == nil || c.end <= now || c.used < h.limit {
			continue
		}
		h.used, h.end, h.over = c.used, min(c.end, now+h.period), true
		allowed = allowed && h.shadow
		n++
	}
	return allowed, n
}

// take charges all hits, or none if one that is not shadow does not fit. Shadow
// hits that do not fit are left out.
func (s *Store) take(hits []hit) (ok bool) {
	var room [8]id
	ids := room[:0]
	for i := range hits {
		ids = append(ids, hits[i].id)
	}
	now := s.now().UnixNano()
	locked := s.counts.lock(ids)
	defer s.counts.unlock(locked)
	ok = true
	for i := range hits {
		h := &hits[i]
		h.used, h.end, h.taken = 0, now+h.period, false
		h.counter = s.counts.findLocked(h.id)
		if c := h.counter; c != nil && c.end > now {
			// Further away than one period means that the clock was set back.
			c.end = min(c.end, now+h.period)
			h.used, h.end = c.used, c.end
		}
		pending := h.count
		for j := range hits[:i] {
			if hits[j].id == h.id && !hits[j].over {
				pending += hits[j].count
			}
		}
		h.over = h.used+pending > h.limit
		ok = ok && (!h.over || h.shadow)
	}
	if !ok {
		return false
	}
	moved := false
	for i := range hits {
		h := &hits[i]
		if h.over || h.count == 0 {
			continue
		}
		c := h.counter
		if moved { // what was found may be somewhere else now
			c = s.counts.findLocked(h.id)
		}
		if c == nil {
			c, moved = s.counts.insertLocked(h.id, now), true
		}
		if c.end <= now {
			c.used = 0
		}
		h.used = c.used // with what an earlier hit of this call took
		c.used += h.count
		c.limit, c.end = h.limit, h.end
		h.taken = true
	}
	return true
}

// fill makes the counter of i refuse until end.
func (s *Store) fill(i id, limit, end int64) {
	now := s.now().UnixNano()
	locked := s.counts.lock([]id{i})
	defer s.counts.unlock(locked)
	c := s.counts.findLocked(i)
	if c == nil {
		c = s.counts.insertLocked(i, now)
	}
	*c = counter{used: limit, limit: limit, end: end}
}

// ceilSeconds rounds up: a client that comes back at the second it was told must
// not come too early.
func ceilSeconds(unixNano int64) int64 {
	return (unixNano + int64(time.Second) - 1) / int64(time.Second)
}
