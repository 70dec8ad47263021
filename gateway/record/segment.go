package record

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SegmentHeader begins a segment file.
type SegmentHeader struct {
	Node     string    `json:"node"`
	First    uint64    `json:"first"`    // sequence of the first entry
	Created  time.Time `json:"created"`  // to the microsecond, in UTC, from 1970 to 9999
	Previous Hash      `json:"previous"` // of the segment before (see Encode); zero in a node's first
}

const (
	segmentMagic = "KIDOREC1"
	headerFixed  = len(segmentMagic) + 8 + 8 + sha256.Size
	headerMax    = headerFixed + 1 + nameMax + 4
	segmentName  = ".seg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the header's bytes: the magic text, first, created, previous, the
// node as a length and ASCII, and a CRC-32C of all that.
//
// Previous is the SHA-256 of a byte 2, the bytes of the header before, and the
// [LeafHash] of each entry of that segment in their order. It covers nothing that
// erasure changes.
func (s SegmentHeader) Encode() ([]byte, error) {
	micro := s.Created.UnixMicro()
	if !validNode(s.Node) || s.First == 0 || micro < 0 || micro >= timeMax {
		return nil, fmt.Errorf("segment header: node %.80q, first entry %d or time %d is not valid", s.Node, s.First, micro)
	}
	b := append(make([]byte, 0, headerMax), segmentMagic...)
	b = binary.BigEndian.AppendUint64(b, s.First)
	b = binary.BigEndian.AppendUint64(b, uint64(micro))
	b = append(b, s.Previous[:]...)
	b = append(b, byte(len(s.Node)))
	b = append(b, s.Node...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// DecodeSegmentHeader reads a header at the beginning of b and returns how many
// bytes it has.
func DecodeSegmentHeader(b []byte) (SegmentHeader, int, error) {
	if len(b) < headerFixed+1 || string(b[:len(segmentMagic)]) != segmentMagic {
		return SegmentHeader{}, 0, errors.New("segment header: this is no segment, or its beginning is cut")
	}
	n := headerFixed + 1 + int(b[headerFixed])
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
		Node:     string(b[headerFixed+1 : n]),
	}
	if _, err := s.Encode(); err != nil {
		return SegmentHeader{}, 0, err
	}
	return s, n + 4, nil
}

// chain is the hash of a segment so far.
type chain struct{ h hash.Hash }

func newChain(header []byte) chain {
	c := chain{sha256.New()}
	c.h.Write([]byte{2})
	c.h.Write(header)
	return c
}

func (c chain) add(leaf Hash) { c.h.Write(leaf[:]) }
func (c chain) sum() Hash     { return Hash(c.h.Sum(nil)) }

// segmentFile is a segment by its name.
type segmentFile struct {
	first uint64
	path  string
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d", first)+segmentName)
}

// segments lists the segment files of a directory in their order.
func segments(dir string) ([]segmentFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the record: %w", err)
	}
	var found []segmentFile
	for _, e := range entries {
		text, ok := strings.CutSuffix(e.Name(), segmentName)
		if !ok || e.Type() != 0 && e.Type() != fs.ModeSymlink {
			continue
		}
		first, err := strconv.ParseUint(text, 10, 64)
		path := filepath.Join(dir, e.Name())
		if err != nil || segmentPath(dir, first) != path {
			return nil, fmt.Errorf("%s: a segment is named after its first entry, in 20 digits: find out who put that file there", path)
		}
		found = append(found, segmentFile{first, path})
	}
	slices.SortFunc(found, func(a, b segmentFile) int { return cmp.Compare(a.first, b.first) })
	return found, nil
}
