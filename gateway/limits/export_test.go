package limits

import (
	"strconv"
	"time"
)

// Held is how many counters s holds.
func (s *Store) Held() int { return s.counts.len() }

// Held is how many buckets a holds.
func (a *Attempts) Held() int { return a.debts.len() }

// Late is how many refunds wait for Redis.
func (a *Attempts) Late() int {
	a.late.mu.Lock()
	defer a.late.mu.Unlock()
	return len(a.late.list)
}

// Shards is how many shards a table has.
const Shards = shardCount

// ForgetNothing makes a keep buckets that are full, so that it can be compared
// step by step with one that does so.
func (a *Attempts) ForgetNothing() *Attempts {
	a.debts.worth = func(*debt, int64) int64 { return 1 }
	return a
}

// SetServerTime makes the scripts go by now instead of the server's clock.
func (r *Redis) SetServerTime(now func() time.Time) {
	r.time = func() string { return strconv.FormatInt(now().UnixMicro(), 10) }
}
