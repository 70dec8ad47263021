package detectors

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// sourceKey is a counting network in 8 bytes, so that a million of them are
// found fast and cost the collector nothing. It is exact for the /64 of an IPv6
// address and for an IPv4 address, which stands in 0::/8 where no client comes
// from; longer or shorter prefixes are spread by hash. Zero is the source that is
// not known, and ::/64 with the loopback; it is a source like any other, because
// unknown is never safe.
type sourceKey uint64

func keyOf(s Source) sourceKey {
	network := s.Network
	if !network.IsValid() {
		network = CountingNetwork(s.Address)
	}
	switch a := network.Addr(); {
	case !network.IsValid():
		return 0
	case a.Is4() && network.Bits() == 32:
		b := a.As4()
		return 1<<32 | sourceKey(binary.BigEndian.Uint32(b[:]))
	case !a.Is4() && network.Bits() == 64:
		b := a.As16()
		return sourceKey(binary.BigEndian.Uint64(b[:8]))
	default:
		b := a.As16()
		return sourceKey(mix(binary.BigEndian.Uint64(b[:8]) ^ mix(binary.BigEndian.Uint64(b[8:])^mix(uint64(network.Bits())))))
	}
}

// sourceName is how a sentence for people calls s.
func sourceName(s Source) string {
	switch {
	case s.Address.Is4():
		return s.Address.String()
	case s.Network.IsValid():
		return s.Network.String()
	case s.Address.IsValid():
		return CountingNetwork(s.Address).String()
	}
	return "an unknown source"
}

const (
	chunkSize = 1024 // slots allocated at a time, so that growth never copies what is there
	sample    = 16   // slots looked at to find one that may go
)

// table keeps at most limit values by key. A value that was not seen for
// forget is gone. When the table is full, the next of a rotating sample of 16
// goes: one that is due to be forgotten before one of little weight, the least
// recently seen of these first, and one of much weight only if all 16 are heavy.
// So a flood of new sources pushes out other new sources, not the flagged ones.
type table[K ~uint64, V any] struct {
	limit  int
	forget time.Duration
	heavy  func(*V) bool // worth keeping when room is short
	free   func(*V)      // called before a value goes; may be nil
	form   form[K, V]    // how slots are written to snapshots; see snapshot.go
	frozen *freeze       // while a snapshot is written, or nil

	index  index
	chunks []*[chunkSize]slot[K, V]
	hand   int
}

// slot begins and ends with what is read first, so that what is between is near; see near.
type slot[K ~uint64, V any] struct {
	key   K
	value V
	seen  int64 // Unix nanoseconds of the latest event
}

func newTable[K ~uint64, V any](limit int, forget time.Duration, heavy func(*V) bool, free func(*V)) *table[K, V] {
	limit = max(limit, 1)
	return &table[K, V]{limit: limit, forget: forget, heavy: heavy, free: free, index: newIndex(limit)}
}

func (t *table[K, V]) len() int { return t.index.n }

func (t *table[K, V]) at(i int) *slot[K, V] {
	return &t.chunks[uint(i)/chunkSize][uint(i)%chunkSize]
}

// hashAt is the hash of the key in a slot.
func (t *table[K, V]) hashAt(slot uint32) uint64 { return indexHash(uint64(t.at(int(slot)).key)) }

// slotOf is the slot that has k, or -1. h is the hash of k.
func (t *table[K, V]) slotOf(k K, h uint64) int {
	s, tag := t.index.shard(h), tagOf(h)
	i := s.home(h)
	for range s.buckets {
		b := &s.buckets[i]
		for m := tagged(b.first(), tag); m != 0; m &= m - 1 {
			if slot := int(b.slots[bits.TrailingZeros64(m)/8]); t.at(slot).key == k {
				return slot
			}
		}
		for m := tagged(b.last(), tag); m != 0; m &= m - 1 {
			if slot := int(b.slots[8+bits.TrailingZeros64(m)/8%4]); t.at(slot).key == k {
				return slot
			}
		}
		if b.passed == 0 {
			break
		}
		i = s.after(i)
	}
	return -1
}

// find returns the value of k and how long it has been idle at now, or nil. It
// changes nothing.
func (t *table[K, V]) find(k K, now time.Time) (*V, time.Duration) {
	i := t.slotOf(k, indexHash(uint64(k)))
	if i < 0 {
		return nil, 0
	}
	s := t.at(i)
	idle := idleSince(s.seen, now)
	if idle >= t.forget {
		return nil, 0
	}
	return &s.value, idle
}

// take returns the value of k for changing and how long it had been idle; a
// new or forgotten value is zero. It counts as seen at now.
func (t *table[K, V]) take(k K, now time.Time) (*V, time.Duration) {
	h := indexHash(uint64(k))
	if i := t.slotOf(k, h); i >= 0 {
		t.keep(i)
		s := t.at(i)
		idle := idleSince(s.seen, now)
		if idle >= t.forget {
			t.clear(s)
			idle = 0
		}
		s.seen = max(s.seen, now.UnixNano())
		return &s.value, idle
	}
	i := t.len()
	if i >= t.limit {
		i = t.victim(now)
		t.keep(i)
		s := t.at(i)
		t.clear(s)
		t.index.drop(indexHash(uint64(s.key)), uint32(i))
	} else {
		t.grow(i)
	}
	s := t.at(i)
	s.seen = now.UnixNano()
	t.name(i, k, h)
	return &s.value, 0
}

// name gives slot i, which has no key, the key k.
func (t *table[K, V]) name(i int, k K, h uint64) {
	t.at(i).key = k
	if t.index.full(h) {
		t.index.grow(h, t.hashAt)
	}
	t.index.put(h, uint32(i))
}

// grow makes room for slot i, which follows the last.
func (t *table[K, V]) grow(i int) {
	if i/chunkSize == len(t.chunks) {
		t.chunks = append(t.chunks, new([chunkSize]slot[K, V]))
	}
}

func (t *table[K, V]) clear(s *slot[K, V]) {
	if t.free != nil {
		t.free(&s.value)
	}
	var zero V
	s.value = zero
}

// victim chooses the slot to be used anew. The table is full.
func (t *table[K, V]) victim(now time.Time) int {
	best, bestRank, bestSeen := -1, 0, int64(0)
	for range min(sample, t.limit) {
		i := t.hand
		t.hand = (t.hand + 1) % t.limit
		s := t.at(i)
		rank := 1
		if idleSince(s.seen, now) >= t.forget {
			rank = 0
		} else if t.heavy(&s.value) {
			rank = 2
		}
		if best < 0 || rank < bestRank || rank == bestRank && s.seen < bestSeen {
			best, bestRank, bestSeen = i, rank, s.seen
		}
	}
	return best
}

// idleSince is never negative: events may arrive a little out of order.
func idleSince(seen int64, now time.Time) time.Duration {
	return max(0, time.Duration(now.UnixNano()-seen))
}

// hash64 spreads what tells two things apart over 64 bits, eight bytes at a time. It is
// not keyed: the digests it is given are, and accounts are named by the backend.
func hash64(salt uint64, s string) uint64 {
	h := salt ^ uint64(len(s))<<32
	for ; len(s) >= 8; s = s[8:] {
		h = fold(h ^ (uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56))
	}
	rest := uint64(0)
	for i := range len(s) {
		rest |= uint64(s[i]) << (8 * i)
	}
	return mix(h ^ rest)
}

// fold is a multiplication whose upper half is not lost.
func fold(h uint64) uint64 {
	hi, lo := bits.Mul64(h^0xbf58476d1ce4e5b9, 0x9e3779b97f4a7c15)
	return hi ^ lo
}

func hashDigest(salt uint64, d Digest) uint64 {
	return mix(binary.BigEndian.Uint64(d[:8]) ^ mix(binary.BigEndian.Uint64(d[8:])^salt))
}

// mix is the finalizer of splitmix64.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
