package storage

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
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

func purposes() []Purpose { return []Purpose{Seal, Cookie, Digest, Assertion, Checkpoint} }

// Key is one secret. It never prints itself, and neither does what holds one: the
// secret is behind a function, since fmt calls no methods of unexported fields and
// follows pointers when a verb is wrong, but calls no function.
type Key struct {
	ID      string
	Purpose Purpose
	Created time.Time
	Old     bool // still opens what it made; makes nothing new
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

// Keyring holds the keys of an installation: for each purpose one that makes new
// things and any number of old ones that still open what they made. It is safe
// for concurrent use.
type Keyring struct {
	file string

	mu   sync.RWMutex
	keys []Key // guarded by mu

	digests sync.Pool // of *digester with the current digest key
}

// digester is a keyed hash and room for what it hashes.
type digester struct {
	mac  hash.Hash
	room []byte
}

func newDigester(key Key) *digester { return &digester{mac: hmac.New(sha256.New, key.Bytes())} }

const (
	keyringVersion = 1
	keyringMax     = 1 << 20 // bytes of the file
	secretSize     = 32
	digestRoom     = 4096 // bytes a digester keeps for the next text
)

// keyringFile is the form on disk, the only place where secrets are written.
type keyringFile struct {
	Version int        `json:"version"`
	Keys    []keyEntry `json:"keys"`
}

type keyEntry struct {
	ID      string    `json:"id"`
	Purpose Purpose   `json:"purpose"`
	Created time.Time `json:"created"`
	Old     bool      `json:"old,omitempty"`
	Secret  string    `json:"secret"` // base64
}

// OpenKeyring reads the keyring in file. Where it is missing it is made, if
// create says so: a gate that made new keys beside an old database could open
// nothing in it.
func OpenKeyring(file string, create bool) (*Keyring, error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		return createKeyring(file, time.Now())
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the keyring %s is missing, and the database beside it needs it: restore it from the backup", file)
	case err != nil:
		return nil, fmt.Errorf("the keyring: %w", err)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("the keyring %s can be read by others (mode %04o): run chmod 600 on it", file, info.Mode().Perm())
	case info.Size() > keyringMax:
		return nil, fmt.Errorf("the keyring %s has %d bytes, want at most %d", file, info.Size(), keyringMax)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the keyring: %w", err)
	}
	keys, err := parseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("the keyring %s: %w", file, err)
	}
	return newKeyring(file, keys), nil
}

func newKeyring(file string, keys []Key) *Keyring {
	k := &Keyring{file: file, keys: keys}
	digest := k.Current(Digest)
	k.digests.New = func() any { return newDigester(digest) }
	return k
}

func createKeyring(file string, now time.Time) (*Keyring, error) {
	var keys []Key
	for _, p := range purposes() {
		keys = append(keys, newKey(p, now))
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("making the keyring: %w", err)
	}
	if err := writeKeyring(file, keys); err != nil {
		return nil, fmt.Errorf("making the keyring: %w", err)
	}
	return newKeyring(file, keys), nil
}

func newKey(p Purpose, now time.Time) Key {
	secret := make([]byte, secretSize)
	rand.Read(secret) // never fails (crypto/rand)
	return Key{ID: rand.Text()[:8], Purpose: p, Created: now.UTC().Truncate(time.Second), secret: func() []byte { return secret }}
}

// parseKeyring reads the form on disk. Its errors tell where, never what.
func parseKeyring(data []byte) ([]Key, error) {
	var f keyringFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, errors.New("it is not a keyring, or a torn one: restore it from the backup")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the keyring in the file")
	}
	if f.Version != keyringVersion {
		return nil, fmt.Errorf("it is of version %d and this program knows version %d", f.Version, keyringVersion)
	}
	var keys []Key
	seen := make(map[string]bool)
	for i, e := range f.Keys {
		secret, err := base64.StdEncoding.DecodeString(e.Secret)
		switch {
		case err != nil || len(secret) != secretSize:
			return nil, fmt.Errorf("key %d: the secret is not %d bytes in base64", i+1, secretSize)
		case !slices.Contains(purposes(), e.Purpose):
			return nil, fmt.Errorf("key %d: unknown purpose %.20q", i+1, e.Purpose)
		case e.ID == "" || len(e.ID) > 64 || seen[e.ID]:
			return nil, fmt.Errorf("key %d: the id is missing, too long or taken", i+1)
		}
		seen[e.ID] = true
		keys = append(keys, Key{e.ID, e.Purpose, e.Created, e.Old, func() []byte { return secret }})
	}
	for _, p := range purposes() {
		current := 0
		for _, k := range keys {
			if k.Purpose == p && !k.Old {
				current++
			}
		}
		if current != 1 {
			return nil, fmt.Errorf("%d current keys for %s, want 1", current, p)
		}
	}
	return keys, nil
}

// writeKeyring replaces file in one step: a crash leaves the old one or the new one.
func writeKeyring(file string, keys []Key) (err error) {
	out := keyringFile{Version: keyringVersion}
	for _, k := range keys {
		out.Keys = append(out.Keys, keyEntry{k.ID, k.Purpose, k.Created, k.Old, base64.StdEncoding.EncodeToString(k.Bytes())})
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".keys-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Current is the key that makes new things for p.
func (k *Keyring) Current(p Purpose) Key {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.currentLocked(p)
}

func (k *Keyring) currentLocked(p Purpose) Key {
	for _, key := range k.keys {
		if key.Purpose == p && !key.Old {
			return key
		}
	}
	panic("storage: no key for purpose " + string(p)) // parseKeyring and newKeyring rule it out
}

// All lists the keys for p, the current one first.
func (k *Keyring) All(p Purpose) []Key {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all := []Key{k.currentLocked(p)}
	for _, key := range k.keys {
		if key.Purpose == p && key.Old {
			all = append(all, key)
		}
	}
	return all
}

// Rotate makes a new current key for p. What the old one made stays good.
func (k *Keyring) Rotate(p Purpose, now time.Time) (Key, error) {
	if !slices.Contains(purposes(), p) {
		return Key{}, fmt.Errorf("unknown purpose %q: want one of %v", p, purposes())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	next := slices.Clone(k.keys)
	for i := range next {
		next[i].Old = next[i].Old || next[i].Purpose == p
	}
	key := newKey(p, now)
	next = append(next, key)
	if err := writeKeyring(k.file, next); err != nil {
		return Key{}, fmt.Errorf("rotating the key for %s: %w", p, err)
	}
	k.keys = next
	if p == Digest {
		k.digests = sync.Pool{New: func() any { return newDigester(key) }}
	}
	return key, nil
}

// Cookies are the keys of the device cookie: the one that signs, and all that verify.
func (k *Keyring) Cookies() (current []byte, all [][]byte) {
	for _, key := range k.All(Cookie) {
		all = append(all, key.Bytes())
	}
	return all[0], all
}

// Digest is a keyed hash of text, truncated to 128 bits. Different labels give
// unrelated digests of the same text.
func (k *Keyring) Digest(label, text string) (d [16]byte) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	h := k.digests.Get().(*digester)
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
		k.digests.Put(h)
	}
	return d
}
