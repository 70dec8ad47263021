package record

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

var (
	// ErrErased means that the body was erased. The leaf stays.
	ErrErased = errors.New("the body was erased")
	// ErrNoKey means that the key that wraps the body's key is not there.
	ErrNoKey = errors.New("the key to the body is missing")
)

// Key wraps the keys of entries. Of the keyring it is one for the purpose "seal":
//
//	record.Key{ID: k.ID, Secret: k.Bytes}
type Key struct {
	ID     string
	Secret func() []byte // 32 bytes
}

// slotID is how a slot names its wrapping key: the id itself, and of a long one
// the beginning of its SHA-256.
func slotID(id string) (name [16]byte) {
	if len(id) > len(name) {
		sum := sha256.Sum256([]byte(id))
		copy(name[:], sum[:])
		return name
	}
	copy(name[:], id)
	return name
}

// wrapper wraps keys of one segment. Each segment has wrapping keys of its own,
// HKDF-SHA-256 of the installation's key over the segment's header: so a header
// that was changed opens nothing, and random nonces stay far from where they could
// repeat (2^32 uses, NIST SP 800-38D section 8.3).
type wrapper struct {
	id   [16]byte
	aead cipher.AEAD
}

func newWrapper(k Key, header []byte) (wrapper, error) {
	secret := k.Secret()
	if len(secret) != 32 || k.ID == "" {
		return wrapper{}, fmt.Errorf("the key %.64q for sealing has %d bytes, want 32 and an id", k.ID, len(secret))
	}
	derived, err := hkdf.Key(sha256.New, secret, nil, "kidoban record slot v1\n"+string(header), 32)
	if err != nil {
		return wrapper{}, fmt.Errorf("deriving a key of a segment: %w", err)
	}
	aead, err := newGCM(derived)
	return wrapper{slotID(k.ID), aead}, err
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// secretSize is what an entry takes of chance: its key, its salt and the slot's nonce.
const secretSize = 32 + 32 + 12

var bodyNonce [12]byte // a key seals one body, so the nonce need not differ

// appendFrame seals body and appends the frame to dst. Random is secretSize bytes
// of chance that were used for nothing else.
func appendFrame(dst []byte, w wrapper, l Leaf, body, random []byte, batch int64) (_ []byte, leaf Hash, err error) {
	key, salt, nonce := random[:32], [32]byte(random[32:64]), random[64:secretSize]
	start := len(dst)
	l.Commit = Commit(salt, body)
	dst = append(dst, make([]byte, headSize)...)
	if dst, err = l.append(dst); err != nil {
		return dst[:start], leaf, err
	}
	end := len(dst)
	aead, err := newGCM(key)
	if err != nil {
		return dst[:start], leaf, err
	}
	dst = aead.Seal(dst, bodyNonce[:], body, dst[start+headSize:end])
	h := head{batch: uint32(batch), leaf: end - start - headSize, sealed: len(dst) - end}
	h.sum = crc32.Checksum(dst[start+headSize:], castagnoli)
	h.put(dst[start:])

	leaf = LeafHash(dst[start+headSize : end])
	slot := len(dst)
	dst = append(dst, w.id[:]...)
	dst = append(dst, nonce...)
	dst = w.aead.Seal(dst, nonce, random[:64], leaf[:])
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[slot:], castagnoli)), leaf, nil
}

// opener opens the bodies of one segment.
type opener struct {
	wrappers []wrapper
}

// newOpener makes an opener with no keys at all if there are none.
func newOpener(keys func() []Key, header []byte) (*opener, error) {
	o := new(opener)
	if keys == nil {
		return o, nil
	}
	for _, k := range keys() {
		w, err := newWrapper(k, header)
		if err != nil {
			return nil, err
		}
		o.wrappers = append(o.wrappers, w)
	}
	return o, nil
}

// open returns the body of f, whose leaf is l. Besides [ErrErased] and [ErrNoKey]
// an error means that the frame was changed.
func (o *opener) open(f frame, l Leaf) ([]byte, error) {
	if f.erased() {
		return nil, ErrErased
	}
	for _, w := range o.wrappers {
		if !bytes.Equal(w.id[:], f.slot[:16]) {
			continue
		}
		leaf := LeafHash(f.leaf)
		secret, err := w.aead.Open(make([]byte, 0, 64), f.slot[16:28], f.slot[28:slotSize-4], leaf[:])
		if err != nil {
			return nil, errors.New("the entry's key does not open: the entry, its key or the segment's header was changed")
		}
		aead, err := newGCM(secret[:32])
		if err != nil {
			return nil, err
		}
		body, err := aead.Open(nil, bodyNonce[:], f.sealed, f.leaf)
		if err != nil {
			return nil, errors.New("the body does not open: it or the leaf was changed")
		}
		if Commit([32]byte(secret[32:]), body) != l.Commit {
			return nil, errors.New("the body is not the one that the leaf commits to")
		}
		return body, nil
	}
	return nil, fmt.Errorf("%w: it is %q", ErrNoKey, bytes.TrimRight(f.slot[:16], "\x00"))
}
