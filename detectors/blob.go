package detectors

import (
	"encoding/binary"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// blob is a piece of state that is small enough to be written down at once.
type blob struct {
	most  int // bytes
	write func([]byte) []byte
	read  func(*snapshot.Cursor) // c.Fail where it cannot be; all bytes are to be read

	frozen []byte
	want   int // bytes of what is being read
}

func (b *blob) freeze()      { b.frozen = b.write(nil) }
func (b *blob) thaw()        { b.frozen = nil }
func (b *blob) head() []byte { return binary.BigEndian.AppendUint32(nil, uint32(len(b.frozen))) }

func (b *blob) next() [][]byte {
	if len(b.frozen) == 0 {
		return nil
	}
	n := min(frameFull, len(b.frozen))
	frame := b.frozen[:n]
	b.frozen = b.frozen[n:]
	return [][]byte{frame}
}

func (b *blob) begin(head []byte) error {
	c := snapshot.NewCursor(head)
	b.want, b.frozen = int(c.Uint32()), nil
	if c.Failed() || c.Len() > 0 || b.want > b.most {
		return wrong("a piece of %d bytes, want at most %d", b.want, b.most)
	}
	return nil
}

func (b *blob) add(frame []byte) error {
	if len(b.frozen)+len(frame) > b.want {
		return wrong("a piece is longer than the %d bytes it should have", b.want)
	}
	b.frozen = append(b.frozen, frame...)
	return nil
}

func (b *blob) end() error {
	whole := b.frozen
	b.frozen = nil
	c := snapshot.NewCursor(whole)
	if b.read(c); len(whole) != b.want || c.Failed() || c.Len() > 0 {
		return wrong("a piece of %d bytes cannot be", len(whole))
	}
	return nil
}
