package record

import (
	"bytes"
	"errors"
)

const (
	FrameMax    = frameMax
	SlotSize    = slotSize
	HeadSize    = headSize
	RestoredGap = restoredGap
	SumsMax     = sumsMax
	SumsKeys    = sumsKeys
)

// ErasedSlot is what erasure writes.
var ErasedSlot = erasedSlot[:]

// Frame is a frame with secrets that are known.
func Frame(header SegmentHeader, k Key, l Leaf, body, random []byte, batch int64) ([]byte, error) {
	b, err := header.Encode()
	if err != nil {
		return nil, err
	}
	w, err := newWrapper(k, b)
	if err != nil {
		return nil, err
	}
	f, _, err := appendFrame(nil, w, l, body, random, batch)
	return f, err
}

// Place is where a frame lies.
type Place struct {
	Path   string
	Leaf   Leaf
	Offset int64
	Raw    []byte
	LeafAt int64 // the parts of it, from the beginning of the file
	BodyAt int64
	SlotAt int64
}

// Places are the frames of a record up to the first fault.
func Places(dir string) (places []Place, err error) {
	list, err := segments(dir)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		sc, closer, err := openSegment(s, -1)
		if err != nil {
			return places, err
		}
		defer closer.Close()
		for {
			f, l, err := sc.scan()
			if err != nil {
				break
			}
			p := Place{Path: s.path, Leaf: l, Offset: f.offset, Raw: append([]byte(nil), f.raw...)}
			p.LeafAt = p.Offset + headSize
			p.BodyAt = p.LeafAt + int64(len(f.leaf))
			p.SlotAt = p.BodyAt + int64(len(f.sealed))
			places = append(places, p)
		}
	}
	return places, nil
}

// Reseal makes the check sums of a frame right again.
func Reseal(raw []byte) {
	h := head{
		batch: uint32(raw[4])<<24 | uint32(raw[5])<<16 | uint32(raw[6])<<8 | uint32(raw[7]),
		leaf:  int(raw[8])<<8 | int(raw[9]), sealed: int(raw[10])<<24 | int(raw[11])<<16 | int(raw[12])<<8 | int(raw[13]),
	}
	f, _ := parseFrame(h, raw)
	h.sum = f.checkSum()
	h.put(raw)
}

// Segments are the paths of the segment files.
func Segments(dir string) []string {
	list, err := segments(dir)
	if err != nil {
		panic(err)
	}
	var paths []string
	for _, s := range list {
		paths = append(paths, s.path)
	}
	return paths
}

// Scanned is what reading a segment finds before the first fault.
type Scanned struct {
	Entries, Opened int
	End             int64
	Head            Hash
	Fault           error
	Torn            bool
}

// ScanBytes reads a segment that is in memory.
func ScanBytes(data []byte, keys func() []Key) (r Scanned) {
	sc, err := newScanner("segment", bytes.NewReader(data))
	if err != nil {
		r.Fault = err
		return r
	}
	open, err := newOpener(keys, sc.raw)
	if err != nil {
		panic(err)
	}
	r.End = sc.offset
	ch := newChain(sc.raw)
	for {
		f, l, err := sc.scan()
		if err != nil {
			var fault *Fault
			if errors.As(err, &fault) {
				r.Fault = fault
				if r.Torn, _, err = tornTail(bytes.NewReader(data), int64(len(data)), fault); err != nil {
					panic(err)
				}
			}
			r.Head = ch.sum()
			return r
		}
		if _, err := open.open(f, l); err == nil {
			r.Opened++
		}
		ch.add(LeafHash(f.leaf))
		r.Entries, r.End = r.Entries+1, sc.offset
	}
}
