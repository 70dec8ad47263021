package replay

import (
	"encoding/binary"
	"math"
	"slices"
)

// keptHashes is how many different things are counted exactly.
const keptHashes = 1024

// distinct counts different things: exactly up to 1,024, and beyond with a standard
// error of 3.2%, by the smallest hashes (Bar-Yossef and others 2002). It has 8 KiB at
// most. The zero value has counted nothing.
type distinct struct {
	least []uint64 // ascending
	more  bool     // there were others
}

func (d *distinct) add(h uint64) {
	n := len(d.least)
	if n == keptHashes && h >= d.least[n-1] {
		d.more = d.more || h > d.least[n-1]
		return
	}
	i, there := slices.BinarySearch(d.least, h)
	if there {
		return
	}
	if n == keptHashes {
		d.least, d.more = d.least[:n-1], true
	}
	d.least = slices.Insert(d.least, i, h)
}

// count is how many there were, and whether that is exact.
func (d *distinct) count() (n uint64, exact bool) {
	if !d.more {
		return uint64(len(d.least)), true
	}
	share := (float64(d.least[keptHashes-1]) + 1) / (1 << 63) / 2
	return uint64(math.Round((keptHashes - 1) / share)), false
}

// hash64 is FNV-1a with its bits spread (the finalizer of SplitMix64): it is the same in
// every run, so that reports are.
func hash64[T ~string | ~[]byte](text T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return spread(h)
}

func spread(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// digestHash is the hash of a digest, which is spread already.
func digestHash(d [16]byte) uint64 { return spread(binary.LittleEndian.Uint64(d[:])) }
