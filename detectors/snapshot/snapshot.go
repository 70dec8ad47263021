// Package snapshot is the form in which state in memory survives a restart.
//
// A snapshot is a sequence of frames: a head with what kind of snapshot it is and a
// header that belongs to whoever wrote it, then the frames of the kind, then an end.
// A frame is its tag (one byte), its length (four bytes, big-endian), that many
// bytes, at most 1 MiB, and a CRC-32C of the frame's number, tag, length and bytes.
// A snapshot that was cut, changed by accident, reordered or joined from two is
// refused; whoever can write the file can still write a false one, so it is kept
// like a key. Reading allocates no more than one frame at a time, goes exactly to
// the end of the snapshot and not beyond, so that several can stand in one file.
package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	magic    = "kidoban\x00snapshot\x01"
	maxKind  = 64
	headTag  = 0x01
	endTag   = 0x02
	MaxFrame = 1 << 20 // bytes
	// FirstTag is the lowest tag that a kind may give a frame.
	FirstTag = 0x10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrWrong says that what was read is not a whole snapshot of the kind that was asked for.
var ErrWrong = errors.New("wrong snapshot")

// Writer writes one snapshot. After an error all that follows has the same error.
type Writer struct {
	w      io.Writer
	number uint64
	err    error
}

// NewWriter begins a snapshot of kind, such as "detectors/1". The header has room
// for a bit less than 1 MiB.
func NewWriter(w io.Writer, kind string, header []byte) *Writer {
	s := &Writer{w: w}
	if kind == "" || len(kind) > maxKind {
		s.err = fmt.Errorf("snapshot: a kind of %d bytes, want 1 to %d", len(kind), maxKind)
		return s
	}
	if _, s.err = io.WriteString(w, magic); s.err != nil {
		return s
	}
	head := append([]byte{byte(len(kind))}, kind...)
	s.frame(headTag, append(head, header...))
	return s
}

// Frame writes one frame of at most [MaxFrame] bytes. The tag is [FirstTag] or higher.
func (s *Writer) Frame(tag byte, b []byte) error {
	if tag < FirstTag && s.err == nil {
		s.err = fmt.Errorf("snapshot: tag %d is below %d", tag, FirstTag)
	}
	return s.frame(tag, b)
}

func (s *Writer) frame(tag byte, b []byte) error {
	if len(b) > MaxFrame && s.err == nil {
		s.err = fmt.Errorf("snapshot: a frame of %d bytes, want at most %d", len(b), MaxFrame)
	}
	if s.err != nil {
		return s.err
	}
	var head [5]byte
	head[0] = tag
	binary.BigEndian.PutUint32(head[1:], uint32(len(b)))
	var tail [4]byte
	binary.BigEndian.PutUint32(tail[:], checksum(s.number, head, b))
	s.number++
	for _, part := range [][]byte{head[:], b, tail[:]} {
		if _, s.err = s.w.Write(part); s.err != nil {
			return s.err
		}
	}
	return nil
}

// Close writes the end. It does not close what it writes to.
func (s *Writer) Close() error { return s.frame(endTag, nil) }

func checksum(number uint64, head [5]byte, b []byte) uint32 {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], number)
	sum := crc32.Update(0, castagnoli, n[:])
	sum = crc32.Update(sum, castagnoli, head[:])
	return crc32.Update(sum, castagnoli, b)
}

// Reader reads one snapshot. Its reads are small: give it a bufio.Reader.
type Reader struct {
	r      io.Reader
	number uint64
	buffer []byte
	done   bool
}

// NewReader reads the head of a snapshot of kind and returns its header.
func NewReader(r io.Reader, kind string) (*Reader, []byte, error) {
	var begin [len(magic)]byte
	if _, err := io.ReadFull(r, begin[:]); err != nil {
		return nil, nil, cut(err)
	}
	if string(begin[:]) != magic {
		return nil, nil, fmt.Errorf("%w: it does not begin as one of this version", ErrWrong)
	}
	s := &Reader{r: r}
	tag, b, err := s.frame()
	if err != nil {
		return nil, nil, err
	}
	if tag != headTag || len(b) == 0 || len(b) <= int(b[0]) {
		return nil, nil, fmt.Errorf("%w: it has no head", ErrWrong)
	}
	if got := string(b[1 : 1+b[0]]); got != kind {
		return nil, nil, fmt.Errorf("%w: it is of kind %q, want %q", ErrWrong, got, kind)
	}
	return s, append([]byte(nil), b[1+b[0]:]...), nil
}

// Next is the next frame, or [io.EOF] after the last one of a whole snapshot. The
// bytes are good until the next call.
func (s *Reader) Next() (tag byte, b []byte, err error) {
	if s.done {
		return 0, nil, io.EOF
	}
	tag, b, err = s.frame()
	switch {
	case err != nil:
		return 0, nil, err
	case tag == endTag && len(b) == 0:
		s.done = true
		return 0, nil, io.EOF
	case tag < FirstTag:
		return 0, nil, fmt.Errorf("%w: frame %d has the tag %d", ErrWrong, s.number-1, tag)
	}
	return tag, b, nil
}

func (s *Reader) frame() (tag byte, b []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return 0, nil, cut(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("%w: frame %d has %d bytes, want at most %d", ErrWrong, s.number, n, MaxFrame)
	}
	if cap(s.buffer) < int(n)+4 {
		s.buffer = make([]byte, n+4)
	}
	b = s.buffer[:n+4]
	if _, err := io.ReadFull(s.r, b); err != nil {
		return 0, nil, cut(err)
	}
	b, tail := b[:n], b[n:]
	if binary.BigEndian.Uint32(tail) != checksum(s.number, head, b) {
		return 0, nil, fmt.Errorf("%w: frame %d does not have its checksum", ErrWrong, s.number)
	}
	s.number++
	return head[0], b, nil
}

func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends too early", ErrWrong)
	}
	return fmt.Errorf("reading the snapshot: %w", err)
}
