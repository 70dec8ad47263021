package storage

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// Purpose is what a key is for. A key serves one purpose only.
type Purpose string

const (
	Seal       Purpose = "seal"       // answers held back
	Cookie     Purpose = "cookie"     // the device cookie's signature
	Digest     Purpose = "digest"     // names and other things that must be compared and not kept
	Assertion  Purpose = "assertion"  // what the backend is told
	Checkpoint Purpose = "checkpoint" // the record
)

// Purposes lists what there are keys for.
func Purposes() []Purpose { return []Purpose{Seal, Cookie, Digest, Assertion, Checkpoint} }

// Key is one secret. It never prints itself, and neither does what holds one: the
// secret is behind a function, since fmt calls no methods of unexported fields and
// follows pointers when a verb is wrong, but calls no function.
type Key struct {
	ID      string
	Purpose Purpose
	Created time.Time
	// Activates is when the key begins to make new things; zero for the first of its
	// purpose. It opens what it made on another node from when it is known.
	Activates time.Time
	// Retired is when a later key takes over; zero where there is none. What the key
	// made stays good.
	Retired time.Time
	secret  func() []byte
}

// Bytes is the secret. Callers do not keep it longer than they use it.
func (k Key) Bytes() []byte {
	if k.secret == nil {
		return nil
	}
	return k.secret()
}

func (k Key) String() string       { return fmt.Sprintf("key %s for %s", k.ID, k.Purpose) }
func (k Key) GoString() string     { return k.String() }
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText keeps a key from being written by anything but the keyring's own file.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Keyring holds the keys of an installation, the same on each of its nodes: for
// each purpose one that makes new things, older ones that still open what they
// made, and perhaps one that is known before its time. It is safe for concurrent
// use; each call sees one state of the ring.
type Keyring struct {
	file string
	now  func() time.Time
	ring atomic.Pointer[ring]
}

// ring is one state of a keyring. It does not change.
type ring struct {
	keys      []Key // in the file's order
	purpose   map[Purpose][]Key
	digesters []*digesters // of purpose[Digest]
}

func newRing(keys []Key) *ring {
	r := &ring{keys: keys, purpose: make(map[Purpose][]Key)}
	for _, k := range keys {
		r.purpose[k.Purpose] = append(r.purpose[k.Purpose], k)
	}
	for _, k := range r.purpose[Digest] {
		r.digesters = append(r.digesters, newDigesters(k))
	}
	return r
}

// current is the place in purpose[p] of the key that makes new things at now. The
// first of a purpose has no activation time, so there always is one.
func (r *ring) current(p Purpose, now time.Time) int {
	keys := r.purpose[p]
	if len(keys) == 0 {
		panic("storage: no key for purpose " + string(p)) // parseKeyring rules it out
	}
	i := len(keys) - 1
	for i > 0 && keys[i].Activates.After(now) {
		i--
	}
	return i
}

func newKeyring(file string, keys []Key) *Keyring {
	k := &Keyring{file: file, now: time.Now}
	k.ring.Store(newRing(keys))
	return k
}

// SetClock makes now the clock by which keys come into force. Call it before the
// first use.
func (k *Keyring) SetClock(now func() time.Time) { k.now = now }

// Current is the key that makes new things for p.
func (k *Keyring) Current(p Purpose) Key {
	r := k.ring.Load()
	return r.purpose[p][r.current(p, k.now())]
}

// All lists the keys that open things made for p: the current one first, then the
// others from the newest on, with one that is to come.
func (k *Keyring) All(p Purpose) []Key {
	r := k.ring.Load()
	now := r.current(p, k.now())
	all := []Key{r.purpose[p][now]}
	for i, key := range slices.Backward(r.purpose[p]) {
		if i != now {
			all = append(all, key)
		}
	}
	return all
}

// Cookies are the keys of the device cookie: the one that signs, and all that verify.
func (k *Keyring) Cookies() (current []byte, all [][]byte) {
	for _, key := range k.All(Cookie) {
		all = append(all, key.Bytes())
	}
	return all[0], all
}

// keep is how long a key opens things after it retired, and then is of no use any
// more; 0: for ever.
//
// A device cookie lives 400 days, as long as browsers keep one (RFC 6265bis), and
// so does what we remember of a typed name: who did not log in for that long is as
// good as new. What is sealed, asserted or signed may be kept by others for longer.
func (p Purpose) keep() time.Duration {
	switch p {
	case Cookie, Digest:
		return NameOverlap
	}
	return 0
}

// spent reports whether nothing needs the key any more.
func (k Key) spent(now time.Time) bool { return spent(k.Purpose, k.Retired, now) }

func spent(p Purpose, retired, now time.Time) bool {
	return p.keep() > 0 && !retired.IsZero() && now.Sub(retired) >= p.keep()
}
