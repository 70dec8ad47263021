package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A frame is an entry in a segment:
//
//	4   "KRF1"
//	4   offset in the segment of the first frame that was written with this one
//	2   length of the leaf
//	4   length of the sealed body
//	4   CRC-32C of leaf and sealed body
//	4   CRC-32C of the 18 bytes before
//	    leaf
//	    sealed body: AES-256-GCM under the entry's key, nonce 0, the leaf as additional data
//	112 slot
//
// The slot is covered by neither the frame's check sum nor any hash, because erasure
// overwrites it. It has:
//
//	16  name of the wrapping key
//	12  nonce, random
//	80  AES-256-GCM of the entry's key and salt, the leaf's hash as additional data
//	4   CRC-32C of the 108 bytes before
//
// An erased slot has 108 zeros and their CRC-32C, which is not zero: what a crash
// left unwritten reads as zeros and is not taken for it.
//
// Frames that are written together share one sync. What they have in front tells
// a group that was never acknowledged from damage: if a frame is bad and a later one
// belongs to a group that begins behind it, then the bad one had been on the disk.
type frame struct {
	offset int64 // in the segment
	batch  int64 // where its group begins
	raw    []byte
	leaf   []byte // these three are parts of raw
	sealed []byte
	slot   []byte
}

const (
	frameMagic = "KRF1"
	headSize   = 22
	slotSize   = 16 + 12 + 64 + tagSize + 4
	tagSize    = 16

	// BodyMax is how many bytes the JSON of a body may have.
	BodyMax   = 64 << 10
	sealedMax = BodyMax + tagSize
	frameMax  = headSize + leafMax + sealedMax + slotSize
)

// head is the beginning of a frame.
type head struct {
	batch  uint32
	leaf   int
	sealed int
	sum    uint32
}

func (h head) size() int { return headSize + h.leaf + h.sealed + slotSize }

// put writes h to the first bytes of b.
func (h head) put(b []byte) {
	copy(b, frameMagic)
	binary.BigEndian.PutUint32(b[4:], h.batch)
	binary.BigEndian.PutUint16(b[8:], uint16(h.leaf))
	binary.BigEndian.PutUint32(b[10:], uint32(h.sealed))
	binary.BigEndian.PutUint32(b[14:], h.sum)
	binary.BigEndian.PutUint32(b[18:], crc32.Checksum(b[:18], castagnoli))
}

// parseHead reads the first headSize bytes of a frame. Lengths it returns are
// within the bounds.
func parseHead(b []byte) (head, error) {
	if string(b[:4]) != frameMagic {
		return head{}, errors.New("no entry begins here")
	}
	if binary.BigEndian.Uint32(b[18:]) != crc32.Checksum(b[:18], castagnoli) {
		return head{}, errors.New("the check sum of the entry's lengths does not match")
	}
	h := head{
		batch:  binary.BigEndian.Uint32(b[4:]),
		leaf:   int(binary.BigEndian.Uint16(b[8:])),
		sum:    binary.BigEndian.Uint32(b[14:]),
		sealed: int(min(binary.BigEndian.Uint32(b[10:]), sealedMax+1)),
	}
	if h.leaf < leafMin || h.leaf > leafMax || h.sealed < tagSize || h.sealed > sealedMax {
		return head{}, fmt.Errorf("an entry of %d and %d bytes is not possible", h.leaf, h.sealed)
	}
	return h, nil
}

// parseFrame takes raw apart, which has as many bytes as h says.
func parseFrame(h head, raw []byte) (frame, error) {
	f := frame{batch: int64(h.batch), raw: raw}
	f.leaf, raw = raw[headSize:headSize+h.leaf], raw[headSize+h.leaf:]
	f.sealed, f.slot = raw[:h.sealed], raw[h.sealed:]
	if f.checkSum() != h.sum {
		return f, errors.New("the check sum of the entry does not match")
	}
	return f, nil
}

func (f frame) checkSum() uint32 {
	return crc32.Checksum(f.raw[headSize:headSize+len(f.leaf)+len(f.sealed)], castagnoli)
}

var erasedSlot = func() (slot [slotSize]byte) {
	binary.BigEndian.PutUint32(slot[slotSize-4:], crc32.Checksum(slot[:slotSize-4], castagnoli))
	return slot
}()

// erased reports whether the slot was overwritten.
func (f frame) erased() bool { return bytes.Equal(f.slot, erasedSlot[:]) }

// checkSlot finds a slot that is not whole.
func (f frame) checkSlot() error {
	const n = slotSize - 4
	if binary.BigEndian.Uint32(f.slot[n:]) != crc32.Checksum(f.slot[:n], castagnoli) {
		return errors.New("the check sum of the entry's key does not match")
	}
	return nil
}
