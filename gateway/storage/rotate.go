package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// RotationGrace is how long a new key is known before it makes anything, so that
	// the file can be copied to the other nodes meanwhile.
	RotationGrace = 10 * time.Minute
	// DigestKeysMax bounds the digest keys that are asked for a name, the current one
	// included: each costs a look-up at each login.
	DigestKeysMax = 5
	// keysMax bounds the keys of any other purpose.
	keysMax = 64
)

// keyringWait bounds the wait for another process that writes the keyring.
var keyringWait = 5 * time.Second

// lockKeyring keeps other processes from writing the keyring in file.
func lockKeyring(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the keyring: %w", err)
	}
	if err := giveAway(f); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the keyring: %w", err), f.Close())
	}
	deadline := time.NewTimer(keyringWait)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil // the lock goes with the descriptor
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the keyring: %w", err), f.Close())
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return nil, errors.Join(fmt.Errorf("another process has held %s for %v: end it and try again", f.Name(), keyringWait), f.Close())
		}
	}
}

// Rotate adds a key for p that makes new things from now+grace on; what the older
// ones made stays good. It works on the file as it is, whoever changed it last, and
// drops keys for p that nothing needs any more. While a key waits for its time
// there is no other rotation of its purpose.
func (k *Keyring) Rotate(p Purpose, now time.Time, grace time.Duration) (Key, error) {
	if !slices.Contains(Purposes(), p) {
		return Key{}, fmt.Errorf("unknown purpose %.20q: want one of %v", p, Purposes())
	}
	unlock, err := lockKeyring(k.file)
	if err != nil {
		return Key{}, fmt.Errorf("rotating the key for %s: %w", p, err)
	}
	defer unlock()
	old, err := readKeyring(k.file)
	if err != nil {
		return Key{}, fmt.Errorf("rotating the key for %s: %w", p, err)
	}
	made := newKey(p, now)
	made.Activates = now.Add(grace).UTC().Truncate(time.Second)
	var next []Key
	last, held := -1, 1
	for _, key := range old {
		if key.Purpose == p {
			if key.spent(now) {
				continue
			}
			last = len(next)
			held++
		}
		next = append(next, key)
	}
	if at := next[last].Activates; at.After(now) {
		return Key{}, fmt.Errorf("rotating the key for %s: %s waits to become current at %s: try again after that", p, next[last].ID, at.Format(time.RFC3339))
	}
	bound := keysMax
	if p == Digest {
		bound = DigestKeysMax
	}
	if held > bound {
		return Key{}, fmt.Errorf("rotating the key for %s: %d keys are in use already, want at most %d: the oldest of them is needed until %s",
			p, held-1, bound, oldest(next, p).Retired.Add(p.keep()).Format(time.RFC3339))
	}
	next[last].Retired = made.Activates
	next = append(next, made)
	if err := writeKeyring(k.file, next); err != nil {
		return Key{}, fmt.Errorf("rotating the key for %s: %w", p, err)
	}
	k.ring.Store(newRing(next))
	return made, nil
}

func oldest(keys []Key, p Purpose) Key {
	return keys[slices.IndexFunc(keys, func(k Key) bool { return k.Purpose == p })]
}

// Reload reads the file again and takes what it holds. A file that is bad, or lacks
// a key that may still be needed, changes nothing: the keys stay as they were and
// the error says why. Call it when the file changed, or every now and then.
func (k *Keyring) Reload() error {
	next, err := readKeyring(k.file)
	if err != nil {
		return fmt.Errorf("the keys in use stay: %w", err)
	}
	old := k.ring.Load()
	if same(old.keys, next) {
		return nil
	}
	if err := covers(next, old.keys, k.now()); err != nil {
		return fmt.Errorf("the keys in use stay: the keyring %s %w", k.file, err)
	}
	k.ring.CompareAndSwap(old, newRing(next)) // else a rotation here was later
	return nil
}

// covers refuses a list that lacks one of the old keys before its time.
func covers(next, old []Key, now time.Time) error {
	for _, o := range old {
		i := slices.IndexFunc(next, func(n Key) bool { return n.ID == o.ID })
		switch {
		case i < 0 && o.spent(now):
		case i < 0:
			return fmt.Errorf("lacks %s, which is still needed: copy the whole file from the node that rotated, or restore it from the backup", o)
		case next[i].Purpose != o.Purpose || !bytes.Equal(next[i].Bytes(), o.Bytes()):
			return fmt.Errorf("holds another secret or purpose as %s: it is of another installation, or damaged", o)
		}
	}
	return nil
}

// same reports whether two lists hold equal keys in the same order.
func same(a, b []Key) bool {
	return slices.EqualFunc(a, b, func(a, b Key) bool {
		return a.ID == b.ID && a.Purpose == b.Purpose && a.Created.Equal(b.Created) && a.Activates.Equal(b.Activates) &&
			a.Retired.Equal(b.Retired) && bytes.Equal(a.Bytes(), b.Bytes())
	})
}
