// Package record fixes the form of the record: what happened at the gate, in an
// order that nobody can quietly rewrite.
//
// An [Entry] has two parts. Its [Leaf] is what is hashed, and so what stays for
// ever: it holds no personal data, only when, which kind and why, and a
// commitment to the body. Its body says about whom; it is sealed under a key of
// its own, and destroying that key erases the body for good while every proof
// about the leaf stays valid. The commitment is an HMAC under a salt that is kept
// beside the key, so that nobody can guess at a short body by hashing candidates.
//
// Entries are written one after the other into segments, each of which begins
// with a [SegmentHeader] that names its node, its first entry and the hash of the
// segment before.
//
// Bytes are made once and hashed as they are; verifying never encodes anew. What
// an attacker who holds the disk can still do is cut off the end: that is found
// by comparing with a checkpoint that was kept elsewhere.
package record

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
	"unicode/utf8"
)

// Hash is a SHA-256. Its text is lower-case hex.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText accepts what MarshalText writes and nothing else.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("hash: %d characters, want %d", len(text), 2*len(h))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// Class is how an entry is written when there is more than the disk can take.
type Class uint8

const (
	// Waiting entries are durable before whoever caused them is answered: acts of
	// operators, changes of factors, log-ins.
	Waiting Class = 1
	// Aggregated entries stand for many denials, with their exact count.
	Aggregated Class = 2
)

// Leaf is the part of an entry that is hashed. It holds no personal data.
type Leaf struct {
	Node     string    `json:"node"`     // at most 64 bytes
	Sequence uint64    `json:"sequence"` // from 1, without gaps, per node
	Time     time.Time `json:"time"`     // of what happened, to the microsecond, in UTC
	Class    Class     `json:"class"`
	Kind     string    `json:"kind"`             // of a closed set, such as "decision.register"; at most 64 bytes
	Reason   string    `json:"reason,omitempty"` // of the closed set of package policies; at most 64 bytes
	Count    uint64    `json:"count"`            // how many happenings it stands for; 1 unless aggregated
	KeyID    [16]byte  `json:"key_id"`           // of the key that seals the body
	Body     Hash      `json:"body"`             // commitment to the body
}

// Entry is a leaf and its sealed body.
type Entry struct {
	Leaf
	Sealed []byte `json:"sealed"` // AES-256-GCM under the entry's key, the leaf's bytes as additional data; at most 64 KiB
}

const (
	leafVersion = 1
	nameMax     = 64
)

// Commit is the commitment to a body.
func Commit(salt [32]byte, body []byte) Hash {
	h := hmac.New(sha256.New, salt[:])
	h.Write(body) // a hash never fails
	return Hash(h.Sum(nil))
}

// Encode returns the bytes of l that are hashed and kept:
//
//	1   version, 1
//	1   class
//	8   sequence        big-endian, as all numbers
//	8   time            microseconds since 1970
//	8   count
//	16  key id
//	32  body
//	1+n node, kind, reason: a length and UTF-8
func (l Leaf) Encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, 77+len(l.Node)+len(l.Kind)+len(l.Reason))
	b = append(b, leafVersion, byte(l.Class))
	b = binary.BigEndian.AppendUint64(b, l.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Time.UnixMicro()))
	b = binary.BigEndian.AppendUint64(b, l.Count)
	b = append(b, l.KeyID[:]...)
	b = append(b, l.Body[:]...)
	for _, s := range []string{l.Node, l.Kind, l.Reason} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return b, nil
}

func (l Leaf) check() error {
	switch {
	case l.Class != Waiting && l.Class != Aggregated:
		return fmt.Errorf("leaf: class %d, want %d or %d", l.Class, Waiting, Aggregated)
	case l.Sequence == 0:
		return errors.New("leaf: sequences begin with 1")
	case l.Count == 0 || l.Class == Waiting && l.Count != 1:
		return fmt.Errorf("leaf: count %d does not fit class %d", l.Count, l.Class)
	case l.Node == "" || l.Kind == "":
		return errors.New("leaf: node or kind is missing")
	}
	for _, s := range []string{l.Node, l.Kind, l.Reason} {
		if len(s) > nameMax || !utf8.ValidString(s) {
			return fmt.Errorf("leaf: %.80q is longer than %d bytes or not UTF-8", s, nameMax)
		}
	}
	return nil
}

// DecodeLeaf reads what Encode wrote and nothing else.
func DecodeLeaf(b []byte) (Leaf, error) {
	if len(b) < 77 {
		return Leaf{}, fmt.Errorf("leaf: %d bytes, want at least 77", len(b))
	}
	if b[0] != leafVersion {
		return Leaf{}, fmt.Errorf("leaf: version %d, and this program knows %d", b[0], leafVersion)
	}
	l := Leaf{
		Class:    Class(b[1]),
		Sequence: binary.BigEndian.Uint64(b[2:]),
		Time:     time.UnixMicro(int64(binary.BigEndian.Uint64(b[10:]))).UTC(),
		Count:    binary.BigEndian.Uint64(b[18:]),
		KeyID:    [16]byte(b[26:42]),
		Body:     Hash(b[42:74]),
	}
	rest := b[74:]
	for _, s := range []*string{&l.Node, &l.Kind, &l.Reason} {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return Leaf{}, errors.New("leaf: it ends within a name")
		}
		n := 1 + int(rest[0])
		*s, rest = string(rest[1:n]), rest[n:]
	}
	if len(rest) > 0 {
		return Leaf{}, fmt.Errorf("leaf: %d bytes too many", len(rest))
	}
	return l, l.check()
}

// LeafHash is the hash of a leaf's bytes in a tree (RFC 6962 section 2.1).
func LeafHash(leaf []byte) Hash {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(leaf)
	return Hash(h.Sum(nil))
}

// SegmentHeader begins a segment file.
type SegmentHeader struct {
	Node     string    `json:"node"`
	First    uint64    `json:"first"` // sequence of the first entry
	Created  time.Time `json:"created"`
	Previous Hash      `json:"previous"` // of the whole segment before; zero in a node's first
}

const segmentMagic = "KIDOREC1"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the header's bytes: the magic text, first, created, previous, the
// node as a length and UTF-8, and a CRC-32C of all that.
func (s SegmentHeader) Encode() ([]byte, error) {
	if s.Node == "" || len(s.Node) > nameMax || !utf8.ValidString(s.Node) || s.First == 0 {
		return nil, fmt.Errorf("segment header: node %.80q or first entry %d is not valid", s.Node, s.First)
	}
	b := append(make([]byte, 0, 61+len(s.Node)), segmentMagic...)
	b = binary.BigEndian.AppendUint64(b, s.First)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Created.UnixMicro()))
	b = append(b, s.Previous[:]...)
	b = append(b, byte(len(s.Node)))
	b = append(b, s.Node...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// DecodeSegmentHeader reads a header at the beginning of b and returns how many
// bytes it has.
func DecodeSegmentHeader(b []byte) (SegmentHeader, int, error) {
	const fixed = len(segmentMagic) + 8 + 8 + sha256.Size
	if len(b) < fixed+1 || string(b[:len(segmentMagic)]) != segmentMagic {
		return SegmentHeader{}, 0, errors.New("segment header: this is no segment, or its beginning is cut")
	}
	n := fixed + 1 + int(b[fixed])
	if len(b) < n+4 {
		return SegmentHeader{}, 0, errors.New("segment header: it is cut")
	}
	if binary.BigEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], castagnoli) {
		return SegmentHeader{}, 0, errors.New("segment header: the check sum does not match")
	}
	s := SegmentHeader{
		First:    binary.BigEndian.Uint64(b[8:]),
		Created:  time.UnixMicro(int64(binary.BigEndian.Uint64(b[16:]))).UTC(),
		Previous: Hash(b[24:56]),
		Node:     string(b[fixed+1 : n]),
	}
	if _, err := s.Encode(); err != nil {
		return SegmentHeader{}, 0, err
	}
	return s, n + 4, nil
}
