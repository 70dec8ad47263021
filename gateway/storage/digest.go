package storage

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"
	"time"
)

// How long after its retirement a digest key is still asked for old digests.
const (
	// NameOverlap is for typed names, label "name". They are kept in the database by
	// digest and move to the new key when their owners log in, so the old key stays
	// as long as a device cookie of theirs might: 400 days.
	NameOverlap = 400 * 24 * time.Hour
	// DigestOverlap is for everything else, such as passwords in the popularity
	// filter, which is remembered for a week or less: 14 days.
	DigestOverlap = 14 * 24 * time.Hour
)

// nameLabel is the label of typed names.
const nameLabel = "name"

const digestRoom = 4096 // bytes a digester keeps for the next text

// digesters are the keyed hashes of one key, ready for use.
type digesters struct{ pool sync.Pool }

// digester is a keyed hash and room for what it hashes.
type digester struct {
	mac  hash.Hash
	room []byte
}

func newDigesters(key Key) *digesters {
	return &digesters{sync.Pool{New: func() any { return &digester{mac: hmac.New(sha256.New, key.Bytes())} }}}
}

func (ds *digesters) digest(label, text string) (d [16]byte) {
	h := ds.pool.Get().(*digester)
	b := append(h.room[:0], label...)
	b = append(b, 0)
	b = append(b, text...)
	h.mac.Reset()
	h.mac.Write(b) // a hash never fails
	clear(b)       // text may be a password
	b = h.mac.Sum(b[:0])
	copy(d[:], b)
	if cap(b) <= digestRoom {
		h.room = b
		ds.pool.Put(h)
	}
	return d
}

// Digest is a keyed hash of text by the current key, truncated to 128 bits.
// Different labels give unrelated digests of the same text.
func (k *Keyring) Digest(label, text string) [16]byte {
	r := k.ring.Load()
	return r.digesters[r.current(Digest, k.now())].digest(label, text)
}

// Digests are the digests of text by which it may be known: first by the current
// key, then by those that retired less than the label's overlap ago, the newest
// first. How many there are (at most [DigestKeysMax]) depends on the time and the
// label and not on text, so looking all of them up tells nothing about text.
func (k *Keyring) Digests(label, text string) [][16]byte {
	overlap := DigestOverlap
	if label == nameLabel {
		overlap = NameOverlap
	}
	r, now := k.ring.Load(), k.now()
	keys := r.purpose[Digest]
	current := r.current(Digest, now)
	all := make([][16]byte, 0, current+1)
	for i := current; i >= 0; i-- {
		if i < current && now.Sub(keys[i].Retired) >= overlap {
			break
		}
		all = append(all, r.digesters[i].digest(label, text))
	}
	return all
}
