// Package password hashes passwords with argon2id (RFC 9106) and writes the
// hashes in the PHC string format:
//
//	$argon2id$v=19$m=65536,t=3,p=4$<salt>$<key>
//
// A [Hasher] guarantees that no more than a stated number of computations run
// at once, so that a crowd of logins waits instead of taking all memory. The
// package neither stores hashes nor judges whether a password is a good one.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost is what one hash costs.
type Cost struct {
	Memory  uint32 // KiB
	Time    uint32 // passes
	Threads uint8
}

// Recommended is the second recommended option of RFC 9106, section 4, for
// machines that cannot spare 2 GiB for each hash.
var Recommended = Cost{Memory: 64 * 1024, Time: 3, Threads: 4}

// The bounds of a cost, for configuration and for stored hashes alike: a bad
// row must not be able to take the machine's memory.
const (
	MemoryMax = 1 << 20 // KiB, 1 GiB
	TimeMax   = 64
)

// Check reports the first bound c breaks.
func (c Cost) Check() error {
	switch {
	case c.Threads < 1:
		return errors.New("argon2 threads: at least 1")
	case c.Memory < 8*uint32(c.Threads) || c.Memory > MemoryMax:
		return fmt.Errorf("argon2 memory: %d KiB to %d KiB for %d threads", 8*uint32(c.Threads), MemoryMax, c.Threads)
	case c.Time < 1 || c.Time > TimeMax:
		return fmt.Errorf("argon2 time: 1 to %d passes", TimeMax)
	}
	return nil
}

const (
	saltLen = 16
	keyLen  = 32
)

// Hash is a parsed PHC string.
type Hash struct {
	Cost Cost
	Salt []byte
	Key  []byte
}

// String is h in the PHC string format.
func (h Hash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.Cost.Memory, h.Cost.Time, h.Cost.Threads,
		base64.RawStdEncoding.EncodeToString(h.Salt), base64.RawStdEncoding.EncodeToString(h.Key))
}

var errFormat = errors.New("not an argon2id hash in PHC format")

// Parse reads what String writes and nothing else: a hash in any other
// spelling is an error.
func Parse(s string) (Hash, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 {
		return Hash{}, errFormat
	}
	var h Hash
	for i, p := range strings.Split(parts[3], ",") {
		name, value, _ := strings.Cut(p, "=")
		n, err := strconv.ParseUint(value, 10, 32)
		switch {
		case err != nil:
			return Hash{}, errFormat
		case i == 0 && name == "m":
			h.Cost.Memory = uint32(n)
		case i == 1 && name == "t":
			h.Cost.Time = uint32(n)
		case i == 2 && name == "p" && n < 256:
			h.Cost.Threads = uint8(n)
		default:
			return Hash{}, errFormat
		}
	}
	var err1, err2 error
	h.Salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	h.Key, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(h.Salt) < 8 || len(h.Salt) > 64 || len(h.Key) < 16 || len(h.Key) > 64 {
		return Hash{}, errFormat
	}
	if err := h.Cost.Check(); err != nil {
		return Hash{}, fmt.Errorf("stored hash: %w", err)
	}
	// Whatever was lenient above shows here.
	if h.String() != s {
		return Hash{}, errFormat
	}
	return h, nil
}

// Hasher computes hashes of one cost. Its methods may be called concurrently.
type Hasher struct {
	cost  Cost
	slots chan struct{}
	dummy Hash
}

// NewHasher bounds the computations running at once to concurrent.
func NewHasher(cost Cost, concurrent int) (*Hasher, error) {
	if err := cost.Check(); err != nil {
		return nil, err
	}
	if concurrent < 1 {
		return nil, errors.New("argon2: at least one computation at once")
	}
	h := &Hasher{cost: cost, slots: make(chan struct{}, concurrent)}
	h.dummy = Hash{Cost: cost, Salt: make([]byte, saltLen), Key: make([]byte, keyLen)}
	rand.Read(h.dummy.Salt)
	rand.Read(h.dummy.Key)
	return h, nil
}

// Concurrent is how many computations run at once.
func (h *Hasher) Concurrent() int { return cap(h.slots) }

// Hash hashes password with a fresh salt. It waits for a slot no longer than
// ctx lasts.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	hash := Hash{Cost: h.cost, Salt: make([]byte, saltLen)}
	rand.Read(hash.Salt)
	key, err := h.key(ctx, password, hash, keyLen)
	if err != nil {
		return "", err
	}
	hash.Key = key
	return hash.String(), nil
}

// Verify reports whether password has the given hash. An empty hash stands for
// an account that does not exist: the same work is done and the answer is
// false, so that neither the answer nor its delay tells which accounts exist.
// (A stored hash of another cost than h's takes another time until its owner
// logs in and it is replaced; see Outdated.)
func (h *Hasher) Verify(ctx context.Context, password, hash string) (bool, error) {
	want := h.dummy
	if hash != "" {
		var err error
		if want, err = Parse(hash); err != nil {
			return false, err
		}
	}
	key, err := h.key(ctx, password, want, uint32(len(want.Key)))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(key, want.Key) == 1 && hash != "", nil
}

// Outdated reports whether hash was made with another cost than h's.
func (h *Hasher) Outdated(hash string) bool {
	p, err := Parse(hash)
	return err != nil || p.Cost != h.cost
}

func (h *Hasher) key(ctx context.Context, password string, p Hash, n uint32) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.slots }()
	if err := ctx.Err(); err != nil {
		return nil, err // select chooses freely when both are ready
	}
	return argon2.IDKey([]byte(password), p.Salt, p.Cost.Time, p.Cost.Memory, p.Cost.Threads, n), nil
}
