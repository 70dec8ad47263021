package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
)

// cacheKey is what a session is found by: the first half of the hash of its
// token, of one of its credentials, or of its id. Finding is followed by a
// comparison of the whole.
type cacheKey [16]byte

func keyOf(hash []byte) cacheKey { return cacheKey(hash[:16]) }

func keyOfID(id string) cacheKey {
	var room [64]byte
	h := sha256.Sum256(append(append(room[:0], "kidoban session id\x00"...), id...))
	return keyOf(h[:])
}

// sessionCache keeps up to max sessions in memory, those used lately (the clock
// algorithm). A session takes about 850 bytes with one credential: its value, and
// an index entry for each of token, id and credential. Readers share the lock of
// one of 64 shards of the index; sessions themselves are immutable and replaced as
// a whole.
type sessionCache struct {
	changes atomic.Uint64 // calls that told of changes; written under mu
	lost    atomic.Uint64 // sessions evicted and changes not kept; written under mu

	mu   sync.Mutex // serializes writers; guards ring, hand, and at of each entry
	ring []*cachedSession
	hand int
	max  int

	shards [64]struct {
		sync.RWMutex // written under mu as well
		index        map[cacheKey]*cachedSession
	}
}

type cachedSession struct {
	record atomic.Pointer[record]
	at     int         // in the ring
	used   atomic.Bool // since the clock's hand passed
}

func newSessionCache(size int) *sessionCache {
	c := &sessionCache{max: size}
	for i := range c.shards {
		c.shards[i].index = make(map[cacheKey]*cachedSession)
	}
	return c
}

// get is the entry under a key, or nil. The caller compares what it looked for.
func (c *sessionCache) get(key cacheKey) *cachedSession {
	shard := &c.shards[binary.BigEndian.Uint16(key[:])%uint16(len(c.shards))]
	shard.RLock()
	e := shard.index[key]
	shard.RUnlock()
	if e != nil && !e.used.Load() {
		e.used.Store(true)
	}
	return e
}

// holder is the session under key that has the credential, or nil.
func (c *sessionCache) holder(key cacheKey, kind string, h CredentialHash) *Session {
	e := c.get(key)
	if e == nil {
		return nil
	}
	r := e.record.Load()
	if r.find(kind, h) < 0 {
		return nil
	}
	return &r.Session
}

// apply takes over what one committed change wrote. Versions keep a change that
// arrives late from undoing a later one that is still in memory. One that may have
// been evicted is known by lost, which the caller read before the change was made:
// if it moved, a session that is not in memory stays out, and its next reader asks
// the store.
func (c *sessionCache) apply(rs []record, lost uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes.Add(1)
	complete := c.lost.Load() == lost // before any of rs evicts another
	for _, r := range rs {
		if !complete && c.getLocked(keyOfID(r.ID)) == nil {
			c.lost.Add(1)
			continue
		}
		c.putLocked(r)
	}
}

// loaded takes over what was read from the store, unless something changed since
// the counter of changes was read, before the store was: then the next reader asks
// the store again. Without this, a session read just before its end and kept just
// after would live on in memory.
func (c *sessionCache) loaded(r record, changes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes.Load() == changes {
		c.putLocked(r)
	}
}

func (c *sessionCache) putLocked(r record) {
	id := keyOfID(r.ID)
	e := c.getLocked(id)
	if e == nil {
		e = new(cachedSession)
		e.used.Store(r.Ended.IsZero())
		e.record.Store(&r)
		c.makeRoomLocked()
		e.at = len(c.ring)
		c.ring = append(c.ring, e)
		for key := range r.keys {
			c.setLocked(key, e)
		}
		return
	}
	// Touch may move Seen at the same time.
	for {
		old := e.record.Load()
		next := r
		if r.version <= old.version {
			// Another node's use of the session may be later than ours.
			if !r.Seen.After(old.Seen) {
				return
			}
			next = *old
			next.Seen, next.Rested = r.Seen, max(old.Rested, r.Rested)
		} else if old.Seen.After(r.Seen) { // what Touch knows is later
			next.rest(old.Seen)
			next.Seen = old.Seen
		}
		if !e.record.CompareAndSwap(old, &next) {
			continue
		}
		for key := range next.keys {
			c.setLocked(key, e)
		}
		kept := slices.Collect(next.keys)
		for key := range old.keys {
			if !slices.Contains(kept, key) {
				c.removeLocked(key, e)
			}
		}
		return
	}
}

// keys is what r is found by.
func (r *record) keys(yield func(cacheKey) bool) {
	if !yield(keyOfID(r.ID)) || !yield(keyOf(r.token[:])) || r.previous != nil && !yield(keyOf(r.previous.token[:])) {
		return
	}
	for i := range r.Credentials {
		if !yield(keyOf(r.Credentials[i].Hash[:])) {
			return
		}
	}
}

// makeRoomLocked evicts one session if the cache is full.
func (c *sessionCache) makeRoomLocked() {
	if len(c.ring) < c.max {
		return
	}
	for c.ring[c.hand].used.Swap(false) {
		c.hand = (c.hand + 1) % len(c.ring)
	}
	c.evictLocked(c.ring[c.hand])
}

func (c *sessionCache) evictLocked(e *cachedSession) {
	c.lost.Add(1)
	for key := range e.record.Load().keys {
		c.removeLocked(key, e)
	}
	last := len(c.ring) - 1
	c.ring[e.at], c.ring[last] = c.ring[last], nil
	if e.at < last {
		c.ring[e.at].at = e.at
	}
	c.ring = c.ring[:last]
	if c.hand >= last {
		c.hand = 0
	}
}

// behind takes note of changes that another node may have made: it returns those
// of the sessions in memory that are older. The others stay out of memory until
// their next reader has asked the store, whatever was read or changed before.
func (c *sessionCache) behind(changes []changed) map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes.Add(1)
	older := make(map[string]bool)
	for _, ch := range changes {
		switch e := c.getLocked(keyOfID(ch.id)); {
		case e == nil:
			c.lost.Add(1)
		case e.record.Load().version < ch.version:
			older[ch.id] = true
		}
	}
	return older
}

// refresh replaces sessions that are in memory by later versions.
func (c *sessionCache) refresh(rs []record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes.Add(1)
	for _, r := range rs {
		if c.getLocked(keyOfID(r.ID)) != nil {
			c.putLocked(r)
		}
	}
}

// drop makes the next reader of a session ask the store.
func (c *sessionCache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes.Add(1)
	c.lost.Add(1)
	if e := c.getLocked(keyOfID(id)); e != nil {
		c.evictLocked(e)
	}
}

// dropWhere is drop for all that match. It looks at every session in memory.
func (c *sessionCache) dropWhere(match func(*Session) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes.Add(1)
	c.lost.Add(1)
	for i := len(c.ring) - 1; i >= 0; i-- {
		if match(&c.ring[i].record.Load().Session) {
			c.evictLocked(c.ring[i])
		}
	}
}

func (c *sessionCache) getLocked(key cacheKey) *cachedSession {
	return c.shards[binary.BigEndian.Uint16(key[:])%uint16(len(c.shards))].index[key]
}

func (c *sessionCache) setLocked(key cacheKey, e *cachedSession) {
	shard := &c.shards[binary.BigEndian.Uint16(key[:])%uint16(len(c.shards))]
	shard.Lock()
	shard.index[key] = e
	shard.Unlock()
}

// removeLocked removes a key that still leads to e.
func (c *sessionCache) removeLocked(key cacheKey, e *cachedSession) {
	shard := &c.shards[binary.BigEndian.Uint16(key[:])%uint16(len(c.shards))]
	shard.Lock()
	if shard.index[key] == e {
		delete(shard.index, key)
	}
	shard.Unlock()
}
