package limits

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
)

// DefaultKeys is how many counters a store or a set of attempt buckets holds
// unless told otherwise. A counter costs about 100 bytes, so that is 100 MiB when
// every one of them is in use.
const DefaultKeys = 1 << 20

const (
	shardCount = 64  // callers that meet in one shard wait for each other; 64 is plenty for 32 cores
	sampled    = 16  // slots looked at when a full shard must forget one
	searched   = 128 // slots looked at before a protected one is forgotten
)

// id is a counter's name: 128 bits of two hashes whose seeds are drawn at start,
// so that nobody can prepare keys that fall together.
type id [2]uint64

func (i id) shard() uint64 { return i[0] % shardCount }

// seeds are what ids are made with.
type seeds [2]maphash.Seed

func newSeeds() seeds { return seeds{maphash.MakeSeed(), maphash.MakeSeed()} }

// id hashes two texts and a number. Each text is hashed by itself, so that
// ("ab", "c") and ("a", "bc") differ, and mixed in unevenly, so that (a, b) and
// (b, a) do.
func (s *seeds) id(a, b string, n int64) id {
	var out id
	for i := range out {
		out[i] = mix(maphash.String(s[i], a) + mix(maphash.String(s[i], b)^uint64(n)))
	}
	return out
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// table is a bounded map of counters in shards. It starts no goroutine and holds
// no timer: each new counter pays for looking at two others and dropping them if
// they are dead, and when its shard is full for finding one to forget.
type table[V any] struct {
	shards [shardCount]shard[V]
	room   int // slots of a shard at most

	// worth tells what would be lost with v at time now: 0 nothing (it is dead),
	// below protected a live counter (the least is forgotten first), from
	// protected on one that refuses right now.
	worth func(v *V, now int64) int64
}

// protected is the worth from which a counter is forgotten only if everything
// around it is protected as well.
const protected = int64(1) << 62

type shard[V any] struct {
	mu    sync.Mutex
	index map[id]int32 // guarded by mu; where in slots
	slots []slot[V]    // guarded by mu
	hand  int          // guarded by mu; the next slot to look at for the dead
	_     [24]byte     // keeps neighbours off this cache line
}

type slot[V any] struct {
	id    id
	value V
}

func newTable[V any](keys int, worth func(*V, int64) int64) *table[V] {
	if keys <= 0 {
		keys = DefaultKeys
	}
	t := &table[V]{room: (keys + shardCount - 1) / shardCount, worth: worth}
	for i := range t.shards {
		t.shards[i].index = make(map[id]int32)
	}
	return t
}

// lock locks the shards of ids in ascending order, each once, and returns which;
// unlock undoes it. The order is what keeps two callers from waiting for each
// other.
func (t *table[V]) lock(ids []id) (locked uint64) {
	for _, i := range ids {
		locked |= 1 << i.shard()
	}
	for left := locked; left != 0; left &= left - 1 {
		t.shards[bits.TrailingZeros64(left)].mu.Lock()
	}
	return locked
}

func (t *table[V]) unlock(locked uint64) {
	for left := locked; left != 0; left &= left - 1 {
		t.shards[bits.TrailingZeros64(left)].mu.Unlock()
	}
}

// findLocked returns the counter of i, or nil. The pointer is good until the next
// insertLocked or removeLocked in the same shard.
func (t *table[V]) findLocked(i id) *V {
	s := &t.shards[i.shard()]
	at, ok := s.index[i]
	if !ok {
		return nil
	}
	return &s.slots[at].value
}

// insertLocked makes room for the counter of i, which is absent, and returns it
// zero. It never fails.
func (t *table[V]) insertLocked(i id, now int64) *V {
	s := &t.shards[i.shard()]
	for range 2 {
		if len(s.slots) == 0 {
			break
		}
		if s.hand >= len(s.slots) {
			s.hand = 0
		}
		if t.worth(&s.slots[s.hand].value, now) == 0 {
			s.removeAt(s.hand) // what was last is here now, and is looked at next
		} else {
			s.hand++
		}
	}
	if len(s.slots) >= t.room {
		s.removeAt(t.leastLocked(s, now))
	}
	s.index[i] = int32(len(s.slots))
	s.slots = append(s.slots, slot[V]{id: i})
	return &s.slots[len(s.slots)-1].value
}

// leastLocked returns the slot of a full shard to forget: a dead one, else the
// one worth least of a sample, and a protected one only when a larger sample
// holds nothing else (then the one that would be free first).
func (t *table[V]) leastLocked(s *shard[V], now int64) int {
	least, at := int64(-1), 0
	for n := range searched {
		i := rand.IntN(len(s.slots))
		if len(s.slots) <= searched {
			i = n % len(s.slots) // small enough to look at all of them
		} else if n >= sampled && least < protected {
			break
		}
		w := t.worth(&s.slots[i].value, now)
		if w == 0 {
			return i
		}
		if least < 0 || w < least {
			least, at = w, i
		}
	}
	return at
}

func (t *table[V]) removeLocked(i id) {
	s := &t.shards[i.shard()]
	if at, ok := s.index[i]; ok {
		s.removeAt(int(at))
	}
}

func (s *shard[V]) removeAt(at int) {
	last := len(s.slots) - 1
	delete(s.index, s.slots[at].id)
	if at != last {
		s.slots[at] = s.slots[last]
		s.index[s.slots[at].id] = int32(at)
	}
	s.slots = slices.Delete(s.slots, last, last+1)
}

// len counts the counters held, the dead that nobody looked at yet included.
func (t *table[V]) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.slots)
		s.mu.Unlock()
	}
	return n
}
