package storage

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"
)

// What is sealed reads
//
//	version  1 byte, 1
//	length   1 byte, of the key's id
//	id       1 to 64 bytes
//	nonce    24 bytes of chance
//	sealed   the text and 16 bytes more
//
// All before the nonce is authenticated too, with what the caller associates after
// it. It tells its own length, so the two cannot be taken for one another.
const (
	boxVersion = 1
	boxIDMax   = 64
)

// Box gives the two ends of a box for small secrets that are kept in the database.
// Label says what they are: what was sealed under another label, or with other
// associated data, does not open. It is XChaCha20-Poly1305 (RFC 8439 with the
// 192-bit nonce of draft-irtf-cfrg-xchacha-03), by a key that HKDF-SHA-256
// (RFC 5869) makes of the ring's key for [Seal] and the label. Nonces are of chance
// and long enough never to repeat.
//
// Seal uses the current key and adds at most 106 bytes. Open takes what any key of
// the ring sealed, and reports a key that is missing by its id. Errors hold nothing
// of the text.
//
// Both see one state of the ring in each call, block nobody and derive keys only
// when the ring has changed. They are safe for concurrent use.
func (k *Keyring) Box(label string) (seal, open func(text, associated []byte) ([]byte, error)) {
	b := &box{ring: k, label: label}
	return b.seal, b.open
}

type box struct {
	ring  *Keyring
	label string
	keys  atomic.Pointer[boxKeys]
}

// boxKeys are the derived keys of one state of the ring. They do not change.
type boxKeys struct {
	of *ring
	by map[string]boxKey
}

type boxKey struct {
	head []byte // version, length and id
	aead cipher.AEAD
}

// derived is the keys of the ring as it is now. Two callers that find it changed
// derive the same.
func (b *box) derived() (*boxKeys, error) {
	r := b.ring.ring.Load()
	if keys := b.keys.Load(); keys != nil && keys.of == r {
		return keys, nil
	}
	keys := &boxKeys{of: r, by: make(map[string]boxKey)}
	for _, k := range r.purpose[Seal] {
		secret, err := hkdf.Key(sha256.New, k.Bytes(), nil, "kidoban box v1\n"+b.label, chacha20poly1305.KeySize)
		if err != nil {
			return nil, fmt.Errorf("deriving from %s: %w", k, err)
		}
		aead, err := chacha20poly1305.NewX(secret)
		clear(secret)
		if err != nil {
			return nil, fmt.Errorf("deriving from %s: %w", k, err)
		}
		head := append([]byte{boxVersion, byte(len(k.ID))}, k.ID...)
		keys.by[k.ID] = boxKey{head[:len(head):len(head)], aead}
	}
	b.keys.Store(keys)
	return keys, nil
}

func (b *box) seal(text, associated []byte) ([]byte, error) {
	keys, err := b.derived()
	if err != nil {
		return nil, fmt.Errorf("sealing a text as %q: %w", b.label, err)
	}
	current := keys.of.purpose[Seal][keys.of.current(Seal, b.ring.now())]
	key := keys.by[current.ID]
	n := len(key.head)
	out := make([]byte, n+chacha20poly1305.NonceSizeX, n+chacha20poly1305.NonceSizeX+len(text)+chacha20poly1305.Overhead)
	copy(out, key.head)
	nonce := out[n:]
	rand.Read(nonce) // never fails (crypto/rand)
	return key.aead.Seal(out, nonce, text, append(key.head, associated...)), nil
}

func (b *box) open(sealed, associated []byte) ([]byte, error) {
	keys, err := b.derived()
	if err != nil {
		return nil, fmt.Errorf("opening what is sealed as %q: %w", b.label, err)
	}
	id, rest, err := cutBox(sealed)
	if err != nil {
		return nil, fmt.Errorf("opening what is sealed as %q: %w", b.label, err)
	}
	key, ok := keys.by[string(id)]
	if !ok {
		return nil, fmt.Errorf("opening what is sealed as %q: the keyring has no key %q for %s: restore the keyring from the backup, or copy it from the node that has this key", b.label, id, Seal)
	}
	text, err := key.aead.Open(nil, rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:], append(key.head, associated...))
	if err != nil {
		return nil, fmt.Errorf("opening what is sealed as %q with key %q: it was changed, or belongs elsewhere", b.label, id)
	}
	return text, nil
}

// cutBox takes the id of its key off what was sealed.
func cutBox(sealed []byte) (id, rest []byte, err error) {
	switch {
	case len(sealed) < 2:
		return nil, nil, errors.New("it is cut off")
	case sealed[0] != boxVersion:
		return nil, nil, fmt.Errorf("it is of version %d and this program knows version %d", sealed[0], boxVersion)
	}
	n := int(sealed[1])
	switch {
	case n == 0 || n > boxIDMax:
		return nil, nil, errors.New("it names no key")
	case len(sealed) < 2+n+chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead:
		return nil, nil, errors.New("it is cut off")
	}
	return sealed[2 : 2+n], sealed[2+n:], nil
}
