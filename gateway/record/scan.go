package record

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
)

// Fault is something in the files that does not fit.
type Fault struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // bytes from the beginning of the file
	Entry  string `json:"entry,omitempty"`
	What   string `json:"what"`
	// Torn: the file ends within an entry, as after a crash.
	Torn bool `json:"torn,omitempty"`

	// stops: where the next entry begins is not known.
	stops bool
}

func (f *Fault) Error() string {
	if f.Entry != "" {
		return fmt.Sprintf("%s, at byte %d, entry %s: %s", f.File, f.Offset, f.Entry, f.What)
	}
	return fmt.Sprintf("%s, at byte %d: %s", f.File, f.Offset, f.What)
}

// scanner reads the frames of a segment one by one, in bounded memory.
type scanner struct {
	name   string
	r      *bufio.Reader
	header SegmentHeader
	raw    []byte // the header's bytes
	offset int64  // of the next frame
	batch  int64  // of the last frame
	next   uint64 // sequence expected next
	buf    []byte
}

// newScanner reads the header.
func newScanner(name string, r io.Reader) (*scanner, error) {
	s := &scanner{name: name, r: bufio.NewReaderSize(r, 64<<10)}
	b, err := s.r.Peek(headerMax)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	h, n, err := DecodeSegmentHeader(b)
	if err != nil {
		return nil, &Fault{File: name, What: err.Error(), stops: true}
	}
	s.header, s.raw, s.next, s.offset = h, bytes.Clone(b[:n]), h.First, int64(n)
	_, err = s.r.Discard(n)
	return s, err
}

// scan returns the next frame, whose bytes are good until the next call, and its
// leaf. At the end the error is io.EOF. After a [*Fault] that does not stop, the
// frame is valid as far as its lengths go and scanning may go on behind it.
func (s *scanner) scan() (frame, Leaf, error) {
	b, err := s.r.Peek(headSize)
	switch {
	case errors.Is(err, io.EOF) && len(b) == 0:
		return frame{}, Leaf{}, io.EOF
	case errors.Is(err, io.EOF):
		return frame{}, Leaf{}, s.fault(true, "the file ends within the beginning of an entry")
	case err != nil:
		return frame{}, Leaf{}, fmt.Errorf("reading %s: %w", s.name, err)
	}
	h, err := parseHead(b)
	if err != nil {
		return frame{}, Leaf{}, s.fault(false, "%v", err)
	}
	if cap(s.buf) < h.size() {
		s.buf = make([]byte, h.size(), max(h.size(), 4<<10))
	}
	s.buf = s.buf[:h.size()]
	switch n, err := io.ReadFull(s.r, s.buf); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return frame{}, Leaf{}, s.fault(true, "the file ends after %d of the %d bytes of an entry", n, len(s.buf))
	case err != nil:
		return frame{}, Leaf{}, fmt.Errorf("reading %s: %w", s.name, err)
	}
	f, bad := parseFrame(h, s.buf)
	f.offset = s.offset
	s.offset += int64(len(s.buf))
	l, err := DecodeLeaf(f.leaf)
	if bad == nil {
		bad = err
	}
	expected, before := s.next, s.batch
	if err == nil {
		s.next = l.Sequence + 1
	} else {
		s.next++
	}
	s.batch = f.batch
	switch {
	case bad != nil:
	case l.Node != s.header.Node:
		bad = fmt.Errorf("an entry of node %s is in a segment of %s", l.Node, s.header.Node)
	case l.Sequence != expected:
		bad = fmt.Errorf("the next entry should be %d and is %d", expected, l.Sequence)
	case f.batch != f.offset && f.batch != before:
		bad = fmt.Errorf("it was written at another place: its group began at byte %d", f.batch)
	default:
		bad = f.checkSlot()
	}
	if bad != nil {
		fault := &Fault{File: s.name, Offset: f.offset, What: bad.Error()}
		if err == nil {
			fault.Entry = l.ID().String()
		}
		return f, l, fault
	}
	return f, l, nil
}

// resume goes on at c, where a scanner of the same segment had got to.
func (s *scanner) resume(f io.ReaderAt, c *cursor, limit int64) error {
	n := int64(math.MaxInt64) - c.offset
	if limit >= 0 {
		n = limit - c.offset
	}
	if n < 0 {
		return fmt.Errorf("%s ends before byte %d, which was read from it", s.name, c.offset)
	}
	s.r.Reset(io.NewSectionReader(f, c.offset, n))
	s.offset, s.next, s.batch = c.offset, c.last+1, c.batch
	return nil
}

func (s *scanner) fault(torn bool, format string, args ...any) *Fault {
	return &Fault{File: s.name, Offset: s.offset, What: fmt.Sprintf(format, args...), Torn: torn, stops: true}
}

// openSegment opens a segment for reading up to limit bytes, all if that is negative.
func openSegment(s segmentFile, limit int64) (*scanner, *os.File, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the record: %w", err)
	}
	var r io.Reader = f
	if limit >= 0 {
		r = io.NewSectionReader(f, 0, limit)
	}
	sc, err := newScanner(filepath.Base(s.path), r)
	if err == nil && sc.header.First != s.first {
		err = &Fault{File: filepath.Base(s.path), What: fmt.Sprintf("the header names %d as the first entry, and the file is called otherwise", sc.header.First)}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return sc, f, nil
}

// sector is what a disk writes at once, or not at all.
const sector = 512

// tornTail reports whether what is wrong with a segment at a fault can come from a
// crash before anybody was told that the entry was written: nothing behind it was
// written later, and the file either ends within the entry or has parts that were
// never written, which read as zeros.
func tornTail(r io.ReaderAt, size int64, fault *Fault) (torn, last bool, err error) {
	later, err := laterGroup(r, size, fault.Offset)
	if err != nil || later {
		return false, false, err
	}
	if fault.Torn {
		return true, true, nil
	}
	b := make([]byte, min(size-fault.Offset, frameMax))
	if _, err := r.ReadAt(b, fault.Offset); err != nil && !errors.Is(err, io.EOF) {
		return false, false, err
	}
	if len(b) >= headSize {
		if h, err := parseHead(b[:headSize]); err == nil {
			b = b[:min(len(b), h.size())]
		}
	}
	for at := fault.Offset; len(b) > 0; {
		n := min(int64(len(b)), sector-at%sector)
		if len(bytes.Trim(b[:n], "\x00")) == 0 {
			return true, true, nil
		}
		at, b = at+n, b[n:]
	}
	return false, true, nil
}

// laterGroup looks for a frame of a group that begins, or once began, behind offset.
func laterGroup(r io.ReaderAt, size, offset int64) (bool, error) {
	const step = 1 << 20
	b := make([]byte, step+headSize)
	for at := offset + 1; at < size; at += step {
		n, err := r.ReadAt(b[:min(int64(len(b)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		for i := 0; ; i++ {
			j := bytes.Index(b[i:n], []byte(frameMagic))
			if j < 0 || i+j+headSize > n {
				break
			}
			i += j
			h, err := parseHead(b[i : i+headSize])
			if err == nil && int64(h.batch) > offset {
				return true, nil
			}
		}
	}
	return false, nil
}
