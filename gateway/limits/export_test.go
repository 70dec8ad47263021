package limits

// Held is how many counters s holds.
func (s *Store) Held() int { return s.counts.len() }

// Held is how many buckets a holds.
func (a *Attempts) Held() int { return a.debts.len() }

// Shards is how many shards a table has.
const Shards = shardCount
