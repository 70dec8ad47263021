package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"time"
)

// A segment is a file: eight bytes of magic, then frames. A frame is the length
// of its payload and the payload's CRC-32C (both 32 bits, little-endian), then the
// payload: an envelope, or one of the kinds that only journals know. It begins
// with the vector and the mark of the moment it was begun, and, when it was ended
// in order, closes with a summary, the offset of the summary's frame (64 bits)
// and eight bytes of magic.
const (
	frameHeader  = 8
	largestFrame = 1 << 20
)

var (
	segmentMagic = []byte("KBNJRNL\x01")
	closingMagic = []byte("KBNJEND\x01")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

func appendFrame(b, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	return append(b, payload...)
}

// frames calls each with the payloads of a segment's bytes and their offsets, and
// returns where the frames end, how many bytes follow that belong to none
// (an incomplete tail), and how many frames were skipped for their checksum.
func frames(b []byte, each func(offset int64, payload []byte) error) (end, tail int64, damaged int, err error) {
	if len(b) < len(segmentMagic) || string(b[:len(segmentMagic)]) != string(segmentMagic) {
		return 0, int64(len(b)), 0, nil
	}
	at := int64(len(segmentMagic))
	size := int64(len(b))
	for {
		rest := b[at:]
		if len(rest) == 16 && string(rest[8:]) == string(closingMagic) {
			return at, 0, damaged, nil
		}
		if len(rest) < frameHeader {
			return at, size - at, damaged, nil
		}
		n := int64(binary.LittleEndian.Uint32(rest))
		if n == 0 || n > largestFrame || n > int64(len(rest))-frameHeader {
			return at, size - at, damaged, nil
		}
		payload := rest[frameHeader : frameHeader+n : frameHeader+n]
		if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(rest[4:]) {
			damaged++
		} else if err := each(at, payload); err != nil {
			return at, 0, damaged, err
		}
		at += frameHeader + n
	}
}

// span is the sequences of a sender in a segment: none lies outside, some inside
// may be elsewhere.
type span struct{ lo, hi, count uint64 }

// segment is one file of the journal, or what would be one, in memory.
type segment struct {
	number uint64
	path   string // empty: in memory
	file   file   // while it is written or waits for its fsync
	buf    []byte // in memory; it only grows
	size   int64
	head   int64 // bytes it began with
	began  time.Time
	ended  bool

	spans         map[senderID]span
	count         uint64
	oldest, stamp time.Time // stream times of its events: the earliest and the latest
}

func newSegment(number uint64) *segment {
	return &segment{number: number, spans: make(map[senderID]span)}
}

// note keeps account of an envelope of events.
func (s *segment) note(id senderID, lo, hi uint64, from, to time.Time) {
	p, found := s.spans[id]
	if !found {
		p = span{lo: lo, hi: hi}
	}
	s.spans[id] = span{min(p.lo, lo), max(p.hi, hi), p.count + hi - lo + 1}
	s.count += hi - lo + 1
	if s.oldest.IsZero() || from.Before(s.oldest) {
		s.oldest = from
	}
	if to.After(s.stamp) {
		s.stamp = to
	}
}

// bytes is the segment's content so far.
func (s *segment) bytes(size int64) ([]byte, error) {
	if s.path == "" {
		return s.buf[:size:size], nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, size)
	n, err := io.ReadFull(io.NewSectionReader(f, 0, size), b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// closing is what ends a segment in order.
func (s *segment) closing(self senderID) []byte {
	if len(s.spans) > many {
		return nil
	}
	p := appendHeader(nil, summaryKind, self)
	p = binary.AppendUvarint(p, s.count)
	p = appendTime(p, s.oldest)
	p = appendTime(p, s.stamp)
	p = binary.AppendUvarint(p, uint64(len(s.spans)))
	ids := make([]senderID, 0, len(s.spans))
	for id := range s.spans {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, senderID.compare)
	for _, id := range ids {
		p = appendID(p, id)
		p = binary.AppendUvarint(p, s.spans[id].lo)
		p = binary.AppendUvarint(p, s.spans[id].hi)
		p = binary.AppendUvarint(p, s.spans[id].count)
	}
	b := appendFrame(nil, p)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.size))
	return append(b, closingMagic...)
}

// summary reads what closing wrote; false when the segment did not end in order.
func (s *segment) summary(f io.ReaderAt, size int64) bool {
	var end [16]byte
	if size < int64(len(end)) {
		return false
	}
	if _, err := f.ReadAt(end[:], size-16); err != nil || string(end[8:]) != string(closingMagic) {
		return false
	}
	at := int64(binary.LittleEndian.Uint64(end[:]))
	if at < int64(len(segmentMagic)) || at > size-16-frameHeader || size-16-at > largestFrame+frameHeader {
		return false
	}
	frame := make([]byte, size-16-at)
	if _, err := f.ReadAt(frame, at); err != nil {
		return false
	}
	payload := frame[frameHeader:]
	if int(binary.LittleEndian.Uint32(frame)) != len(payload) ||
		binary.LittleEndian.Uint32(frame[4:]) != crc32.Checksum(payload, castagnoli) {
		return false
	}
	return s.decodeSummary(payload) == nil
}

func (s *segment) decodeSummary(payload []byte) error {
	d := decoder{b: payload}
	if kind, _ := d.header(); kind != summaryKind && d.err == nil {
		return fmt.Errorf("kind %d where a summary belongs", kind)
	}
	s.count = d.uvarint()
	s.oldest, s.stamp = d.time(), d.time()
	for range d.count() {
		id := d.id()
		p := span{d.uvarint(), d.uvarint(), d.uvarint()}
		if p.lo == 0 || p.hi < p.lo {
			d.fail(errCanonical)
		}
		if d.err != nil {
			break
		}
		s.spans[id] = p
	}
	return d.end()
}

// mark is how far the exchange with the other nodes was.
type mark struct {
	read [logs]position    // what was read of the logs
	sent map[uint64]uint64 // own incarnations that are not all sent, and up to where they are
}

func (m *mark) append(b []byte, self senderID) []byte {
	b = appendHeader(b, markKind, self)
	for _, p := range m.read {
		b = binary.AppendUvarint(b, p.ms)
		b = binary.AppendUvarint(b, p.seq)
	}
	b = binary.AppendUvarint(b, uint64(len(m.sent)))
	incarnations := make([]uint64, 0, len(m.sent))
	for i := range m.sent {
		incarnations = append(incarnations, i)
	}
	slices.Sort(incarnations)
	for _, i := range incarnations {
		b = binary.AppendUvarint(b, i)
		b = binary.AppendUvarint(b, m.sent[i])
	}
	return b
}

func (d *decoder) mark() mark {
	var m mark
	for i := range m.read {
		m.read[i] = position{d.uvarint(), d.uvarint()}
	}
	m.sent = make(map[uint64]uint64)
	for range d.count() {
		i, sent := d.uvarint(), d.uvarint()
		if d.err != nil {
			break
		}
		m.sent[i] = sent
	}
	return m
}

// appendVectors writes a vector as payloads that each fit an envelope.
func appendVectors(all senders, self senderID) (payloads [][]byte) {
	var entries []byte
	n := 0
	flush := func() {
		if n == 0 {
			return
		}
		p := appendHeader(nil, vectorKind, self)
		p = binary.AppendUvarint(p, uint64(n))
		payloads = append(payloads, append(p, entries...))
		entries, n = nil, 0
	}
	for _, id := range all.ids() {
		s := all[id]
		seen := s.seen(id)
		entries = appendID(entries, id)
		entries = appendTime(entries, s.last)
		entries = binary.AppendUvarint(entries, seen.Through)
		entries = binary.AppendUvarint(entries, uint64(len(seen.Missing)))
		for _, m := range seen.Missing {
			entries = binary.AppendUvarint(entries, m.Low)
			entries = binary.AppendUvarint(entries, m.High)
		}
		if n++; len(entries) > roomy {
			flush()
		}
	}
	flush()
	return payloads
}

// vector reads one payload of appendVectors into all.
func (d *decoder) vector(all senders) {
	for range d.count() {
		id := d.id()
		s := &sender{last: d.time(), through: d.uvarint()}
		var below uint64
		for range d.count() {
			g := gap{lo: d.uvarint(), hi: d.uvarint()}
			if g.lo <= below || g.hi < g.lo || g.hi > s.through {
				d.fail(errCanonical)
			}
			if d.err != nil {
				return
			}
			below = g.hi
			s.gaps = append(s.gaps, g)
		}
		if d.err == nil {
			all[id] = s
		}
	}
}
