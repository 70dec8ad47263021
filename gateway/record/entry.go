package record

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Hash is a SHA-256. Its text is lower-case hex.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText accepts what MarshalText writes and nothing else.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) || strings.ToLower(string(text)) != string(text) {
		return fmt.Errorf("hash: want %d lower-case hex digits, got %d bytes", 2*len(h), len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// ID names an entry for ever: no two entries of an installation have the same. Its
// text is "node/sequence".
type ID struct {
	Node     string
	Sequence uint64
}

func (id ID) String() string { return id.Node + "/" + strconv.FormatUint(id.Sequence, 10) }

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads what String wrote and nothing else.
func ParseID(text string) (ID, error) {
	node, number, _ := strings.Cut(text, "/")
	sequence, err := strconv.ParseUint(number, 10, 64)
	id := ID{node, sequence}
	if err != nil || sequence == 0 || !validNode(node) || id.String() != text {
		return ID{}, fmt.Errorf("%.100q is not the id of an entry: want one like gate-1/42", text)
	}
	return id, nil
}

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
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

func (c Class) String() string {
	switch c {
	case Waiting:
		return "waiting"
	case Aggregated:
		return "aggregated"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// MarshalText writes the class in words.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (c *Class) UnmarshalText(text []byte) error {
	for _, known := range []Class{Waiting, Aggregated} {
		if known.String() == string(text) {
			*c = known
			return nil
		}
	}
	return fmt.Errorf("%.20q is not a class of entries: want waiting or aggregated", text)
}

// Leaf is the part of an entry that is hashed. It holds no personal data.
type Leaf struct {
	Node     string    `json:"node"`     // 1 to 64 letters, digits, dots, underscores and hyphens
	Sequence uint64    `json:"sequence"` // from 1, without gaps, per node
	Time     time.Time `json:"time"`     // of what happened, to the microsecond, in UTC, from 1970 to 9999
	Class    Class     `json:"class"`
	Kind     string    `json:"kind"`             // of a closed set, such as "act.decision.register"; 1 to 64 of a-z 0-9 . _ -
	Reason   string    `json:"reason,omitempty"` // of the closed set of package policies; at most 64 of the same
	Count    uint64    `json:"count"`            // how many happenings it stands for; 1 unless aggregated
	Commit   Hash      `json:"commitment"`       // to the body: see [Commit]
}

// ID names the entry that l belongs to.
func (l Leaf) ID() ID { return ID{l.Node, l.Sequence} }

const (
	leafVersion = 1
	leafFixed   = 58            // bytes of a leaf before its names
	leafMin     = leafFixed + 5 // one letter for node and kind, none for reason
	nameMax     = 64
	leafMax     = leafFixed + 3*(1+nameMax)
	timeMax     = 253402300800_000_000 // the year 10000, in microseconds since 1970
)

// Commit is the commitment to a body: HMAC-SHA-256 under a salt that is kept
// beside the key, so that nobody can guess at a short body by hashing candidates,
// and so that an erased body cannot be told from any other.
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
//	32  commitment to the body
//	1+n node, kind, reason: a length and ASCII
func (l Leaf) Encode() ([]byte, error) { return l.append(make([]byte, 0, leafMax)) }

func (l Leaf) append(b []byte) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	b = append(b, leafVersion, byte(l.Class))
	b = binary.BigEndian.AppendUint64(b, l.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Time.UnixMicro()))
	b = binary.BigEndian.AppendUint64(b, l.Count)
	b = append(b, l.Commit[:]...)
	for _, s := range [...]string{l.Node, l.Kind, l.Reason} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return b, nil
}

func (l Leaf) check() error {
	switch micro := l.Time.UnixMicro(); {
	case l.Class != Waiting && l.Class != Aggregated:
		return fmt.Errorf("leaf: class %d, want %d or %d", l.Class, Waiting, Aggregated)
	case l.Sequence == 0:
		return errors.New("leaf: sequences begin with 1")
	case l.Count == 0 || l.Class == Waiting && l.Count != 1:
		return fmt.Errorf("leaf: count %d does not fit class %d", l.Count, l.Class)
	case micro < 0 || micro >= timeMax:
		return fmt.Errorf("leaf: the time is %d microseconds after 1970, want one from 1970 to 9999", micro)
	case !validNode(l.Node):
		return fmt.Errorf("leaf: node %.80q, want 1 to %d letters, digits, dots, underscores and hyphens", l.Node, nameMax)
	case l.Kind == "" || !validName(l.Kind):
		return fmt.Errorf("leaf: kind %.80q, want 1 to %d of a-z 0-9 . _ -", l.Kind, nameMax)
	case !validName(l.Reason):
		return fmt.Errorf("leaf: reason %.80q, want at most %d of a-z 0-9 . _ -", l.Reason, nameMax)
	}
	return nil
}

// validName: names are shown in terminals and stand in files' names and addresses.
func validName(s string) bool {
	if len(s) > nameMax {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// validNode: the same, and capital letters, since hosts are named so.
func validNode(s string) bool {
	if s == "" || len(s) > nameMax {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('A' <= c && c <= 'Z') && !validName(s[i:i+1]) {
			return false
		}
	}
	return true
}

// DecodeLeaf reads what Encode wrote and nothing else.
func DecodeLeaf(b []byte) (Leaf, error) {
	if len(b) < leafMin || len(b) > leafMax {
		return Leaf{}, fmt.Errorf("leaf: %d bytes, want %d to %d", len(b), leafMin, leafMax)
	}
	if b[0] != leafVersion {
		return Leaf{}, fmt.Errorf("leaf: version %d, and this program knows %d", b[0], leafVersion)
	}
	l := Leaf{
		Class:    Class(b[1]),
		Sequence: binary.BigEndian.Uint64(b[2:]),
		Time:     time.UnixMicro(int64(binary.BigEndian.Uint64(b[10:]))).UTC(),
		Count:    binary.BigEndian.Uint64(b[18:]),
		Commit:   Hash(b[26:leafFixed]),
	}
	rest := b[leafFixed:]
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
	var room [1 + leafMax]byte
	return sha256.Sum256(append(room[:1], leaf...)) // the first byte is 0
}
