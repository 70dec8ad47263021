package detectors

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
)

// index tells which slot of a table has a key. It is kept apart from the slots, in
// buckets of one cache line each: a search costs one line, and the slot if the key is
// there.
//
// A bucket holds 12 slot numbers, each with 8 bits of its key's hash, and counts those
// that found it full and went to the next. The buckets form shards, of 4,096 keys each
// when the table is full. A shard grows by half, on its own, when it holds 10 keys per
// bucket: 7 to 10 bytes a key, and no event waits longer than for the keys of one shard
// to be read again, some 0.1 ms. It has no pointers but those to its shards, and a
// table that is full allocates nothing.
//
// Keys may be chosen by an attacker, who has a /64 or a /32 full of them. So the hash is
// keyed, anew in each process. Nothing but the time it takes depends on it: no answer,
// no victim and no byte of a snapshot.
type index struct {
	shards []shard
	n      int // keys
}

type shard struct {
	buckets []bucket
	n       int
}

type bucket struct {
	tags   [bucketSlots]uint8 // of the key's hash; 0: free
	passed uint32             // keys whose home is here or before, and that are in a later bucket
	slots  [bucketSlots]uint32
}

const (
	bucketSlots = 12
	bucketFill  = 10 // on average, when a shard grows
	shardKeys   = 4096
)

func newIndex(limit int) index {
	x := index{shards: make([]shard, (limit+shardKeys-1)/shardKeys)}
	for i := range x.shards {
		x.shards[i].buckets = make([]bucket, 1)
	}
	return x
}

// indexKey keys the hash of this process.
var indexKey = func() (k [2]uint64) {
	var b [16]byte
	rand.Read(b[:]) // never fails
	k[0], k[1] = binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])|1
	return k
}()

// indexHash spreads a key: the upper half chooses the shard, the lower half the bucket
// and the tag.
func indexHash(k uint64) uint64 {
	hi, lo := bits.Mul64(k^indexKey[0], indexKey[1])
	hi, lo = bits.Mul64(hi^lo, 0x9e3779b97f4a7c15)
	return hi ^ lo
}

func tagOf(h uint64) uint8 { return max(uint8(h), 1) }

func (x *index) shard(h uint64) *shard {
	return &x.shards[h>>32*uint64(len(x.shards))>>32]
}

// home is where the search for h begins.
func (s *shard) home(h uint64) int { return int(h & (1<<32 - 1) * uint64(len(s.buckets)) >> 32) }

func (s *shard) after(i int) int {
	if i++; i < len(s.buckets) {
		return i
	}
	return 0
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// tagged marks the bytes of tags that are tag, each by its highest bit. It may mark one
// that is not, above one that is.
func tagged(tags uint64, tag uint8) uint64 {
	x := tags ^ lowBits*uint64(tag)
	return (x - lowBits) &^ x & highBits
}

func (b *bucket) first() uint64 { return binary.LittleEndian.Uint64(b.tags[:8]) }
func (b *bucket) last() uint64  { return uint64(binary.LittleEndian.Uint32(b.tags[8:])) }

// probably is the slot of the first key in h's bucket that has its tag, or -1.
func (x *index) probably(h uint64) int {
	s, tag := x.shard(h), tagOf(h)
	b := &s.buckets[s.home(h)]
	if m := tagged(b.first(), tag); m != 0 {
		return int(b.slots[bits.TrailingZeros64(m)/8])
	}
	if m := tagged(b.last(), tag); m != 0 {
		return int(b.slots[8+bits.TrailingZeros64(m)/8%4])
	}
	return -1
}

// put adds a key that is not there. Make room for it before.
func (x *index) put(h uint64, slot uint32) {
	s := x.shard(h)
	s.put(h, slot)
	s.n++
	x.n++
}

func (s *shard) put(h uint64, slot uint32) {
	for i := s.home(h); ; i = s.after(i) {
		b := &s.buckets[i]
		for j, tag := range b.tags {
			if tag == 0 {
				b.tags[j], b.slots[j] = tagOf(h), slot
				return
			}
		}
		b.passed++
	}
}

// drop takes the key of a slot away, which is there.
func (x *index) drop(h uint64, slot uint32) {
	s := x.shard(h)
	s.n--
	x.n--
	for i := s.home(h); ; i = s.after(i) {
		b := &s.buckets[i]
		for j := range b.slots {
			if b.slots[j] == slot && b.tags[j] != 0 {
				b.tags[j] = 0
				return
			}
		}
		b.passed--
	}
}

// full reports whether h's shard should grow before it takes another key.
func (x *index) full(h uint64) bool {
	s := x.shard(h)
	return s.n >= bucketFill*len(s.buckets)
}

// grow makes room in h's shard. hash is that of the key in a slot.
func (x *index) grow(h uint64, hash func(slot uint32) uint64) {
	s := x.shard(h)
	old := s.buckets
	s.buckets = make([]bucket, len(old)+len(old)/2+1)
	for i := range old {
		for j, tag := range old[i].tags {
			if tag != 0 {
				slot := old[i].slots[j]
				s.put(hash(slot), slot)
			}
		}
	}
}
