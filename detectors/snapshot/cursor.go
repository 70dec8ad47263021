package snapshot

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrFrozen says that another snapshot of the same state is being written.
var ErrFrozen = errors.New("a snapshot is being written already")

// Cursor reads big-endian numbers from a frame. What is not there reads as zero and
// makes it fail; after that all does.
type Cursor struct {
	b      []byte
	failed bool
}

// NewCursor reads b, which must not change meanwhile.
func NewCursor(b []byte) *Cursor { return &Cursor{b: b} }

// Len is how many bytes are left.
func (c *Cursor) Len() int { return len(c.b) }

// Fail makes c fail, because what was read cannot be.
func (c *Cursor) Fail() { c.failed, c.b = true, nil }

// Failed reports whether anything read from c is not to be used.
func (c *Cursor) Failed() bool { return c.failed }

// Bytes is the next n bytes, a part of the frame; nil where there are not as many.
func (c *Cursor) Bytes(n int) []byte {
	if n < 0 || len(c.b) < n {
		c.Fail()
		return nil
	}
	taken := c.b[:n]
	c.b = c.b[n:]
	return taken
}

func (c *Cursor) Byte() byte {
	if b := c.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *Cursor) Uint16() uint16 {
	if b := c.Bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *Cursor) Uint32() uint32 {
	if b := c.Bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *Cursor) Uint64() uint64 {
	if b := c.Bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Amount is a number from 0 to most; c fails where it is another, or none.
func (c *Cursor) Amount(most float64) float64 {
	x := math.Float64frombits(c.Uint64())
	if !(x >= 0 && x <= most) { // nor NaN
		c.Fail()
		return 0
	}
	return x
}
