package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// version of the envelope. Its first fields (version, kind, node, incarnation)
	// keep their place in every version.
	version = 1
	// newest is the version of envelopes of events in which one has fields that the
	// versions before have not; all others are of version 1, and events of the lowest
	// that has their fields, which older programs read.
	newest = 4
	// largest is the most bytes of an envelope.
	largest = 64 << 10
	// roomy is where an envelope of several events is full.
	roomy = 16 << 10
	// nodeBytes is the most bytes of a node's name.
	nodeBytes = 64
	// many is the most events, entries or announcements of an envelope, and the
	// most sequences one request for repair names.
	many = 4096
)

// The kinds of envelopes. Those from markKind on are in journals only.
const (
	eventsKind   = 1
	beatKind     = 2
	announceKind = 3
	wantKind     = 4
	goneKind     = 5
	markKind     = 16
	vectorKind   = 17
	summaryKind  = 18
)

// errVersion says that an envelope is of a version that this program does not know.
var errVersion = errors.New("unknown version")

// senderID names the life of a process: its node and its incarnation.
type senderID struct {
	node        string
	incarnation uint64
}

// validNode reports whether a name may be a node's. Names are shown to operators
// and go through JSON.
func validNode(name string) bool {
	return name != "" && len(name) <= nodeBytes && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

func (id senderID) String() string { return fmt.Sprintf("%s/%d", id.node, id.incarnation) }

func (id senderID) compare(other senderID) int {
	switch {
	case id.node != other.node:
		if id.node < other.node {
			return -1
		}
		return 1
	case id.incarnation < other.incarnation:
		return -1
	case id.incarnation > other.incarnation:
		return 1
	}
	return 0
}

func appendHeader(b []byte, kind byte, id senderID) []byte {
	b = append(b, version, kind)
	return appendID(b, id)
}

func appendID(b []byte, id senderID) []byte {
	b = appendText(b, id.node)
	return binary.AppendUvarint(b, id.incarnation)
}

func (d *decoder) id() senderID {
	node := d.text(nodeBytes)
	if !validNode(node) {
		d.fail(errCanonical)
	}
	return senderID{node, d.uvarint()}
}

// header reads the fields that all envelopes begin with.
func (d *decoder) header() (kind byte, id senderID) {
	v := d.byte()
	kind = d.byte()
	if v != version && !(version < v && v <= newest && kind == eventsKind) && d.err == nil {
		d.fail(errVersion)
	}
	return kind, d.id()
}

// events is an envelope of consecutive events of one sender.
type events struct {
	id     senderID
	first  uint64
	bodies [][]byte // as appendEvent wrote them
}

func (m *events) last() uint64 { return m.first + uint64(len(m.bodies)) - 1 }

// version is the lowest that carries all bodies.
func (m *events) version() byte {
	v := byte(version)
	for _, body := range m.bodies {
		v = max(v, bodyVersion(body))
	}
	return v
}

func (m *events) append(b []byte) []byte {
	at := len(b)
	b = appendHeader(b, eventsKind, m.id)
	b[at] = m.version()
	b = binary.AppendUvarint(b, m.first)
	b = binary.AppendUvarint(b, uint64(len(m.bodies)))
	for _, body := range m.bodies {
		b = binary.AppendUvarint(b, uint64(len(body)))
		b = append(b, body...)
	}
	return b
}

// span reads which sequences an envelope of events holds.
func (d *decoder) span() (first uint64, count int) {
	first = d.uvarint()
	n := d.uvarint()
	if first == 0 || n == 0 || n > many || first+n < first {
		d.fail(errCanonical)
		return 0, 0
	}
	return first, int(n)
}

// bodies reads count bodies; they alias what is decoded.
func (d *decoder) bodies(count int) [][]byte {
	bodies := make([][]byte, 0, min(count, len(d.b)+1))
	for range count {
		body := d.take(d.uvarint())
		if d.err != nil {
			return nil
		}
		bodies = append(bodies, body)
	}
	return bodies
}

// beat is what a node says of itself once a second.
type beat struct {
	id      senderID
	clock   time.Time // the node's
	sent    uint64    // highest of its sequences before the beat in the stream
	leaving bool
	known   []known
}

// known is what a node has of a sender.
type known struct {
	id      senderID
	floor   uint64 // nothing up to here is awaited any more
	through uint64 // the highest sequence seen
}

func (m *beat) append(b []byte) []byte {
	b = appendHeader(b, beatKind, m.id)
	b = binary.AppendVarint(b, m.clock.UnixMilli())
	b = binary.AppendUvarint(b, m.sent)
	b = appendBool(b, m.leaving)
	b = binary.AppendUvarint(b, uint64(len(m.known)))
	for _, k := range m.known {
		b = appendID(b, k.id)
		b = binary.AppendUvarint(b, k.floor)
		b = binary.AppendUvarint(b, k.through)
	}
	return b
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// count reads how many entries follow.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > many {
		d.fail(fmt.Errorf("%d entries, want at most %d", n, many))
		return 0
	}
	return int(n)
}

func (d *decoder) beat(id senderID) *beat {
	m := &beat{id: id, clock: time.UnixMilli(d.varint()).UTC(), sent: d.uvarint(), leaving: d.bool()}
	for range d.count() {
		k := known{id: d.id(), floor: d.uvarint(), through: d.uvarint()}
		if k.floor > k.through {
			d.fail(errCanonical)
		}
		if d.err != nil {
			break
		}
		m.known = append(m.known, k)
	}
	return m
}

// announcements are hints of one node; counter tells later ones from earlier.
type announcements struct {
	id      senderID
	counter uint64
	list    []Announcement
}

func (m *announcements) append(b []byte) []byte {
	b = appendHeader(b, announceKind, m.id)
	b = binary.AppendUvarint(b, m.counter)
	b = binary.AppendUvarint(b, uint64(len(m.list)))
	for _, a := range m.list {
		b = appendText(b, a.Topic)
		b = appendText(b, a.Subject)
		b = binary.AppendUvarint(b, a.Revision)
	}
	return b
}

func (d *decoder) announcements(id senderID) *announcements {
	m := &announcements{id: id, counter: d.uvarint()}
	for range d.count() {
		a := Announcement{Topic: d.text(topicBytes), Subject: d.text(subjectBytes), Revision: d.uvarint()}
		if d.err != nil {
			break
		}
		m.list = append(m.list, a)
	}
	return m
}

// want asks for events again.
type want struct {
	id     senderID // who asks
	of     senderID // whose events
	lo, hi uint64
	since  int64 // Unix seconds; events before are not wanted any more. 0: all are
	anyone bool  // who has them may answer, not only their node
}

func (m *want) append(b []byte) []byte {
	b = appendHeader(b, wantKind, m.id)
	b = appendID(b, m.of)
	b = binary.AppendUvarint(b, m.lo)
	b = binary.AppendUvarint(b, m.hi)
	b = binary.AppendVarint(b, m.since)
	return appendBool(b, m.anyone)
}

func (d *decoder) want(id senderID) *want {
	m := &want{id: id, of: d.id(), lo: d.uvarint(), hi: d.uvarint(), since: d.varint(), anyone: d.bool()}
	if m.lo == 0 || m.hi < m.lo {
		d.fail(errCanonical)
	}
	return m
}

// gone answers a want whose events cannot or need not be had.
type gone struct {
	id     senderID // who answers
	of     senderID
	lo, hi uint64
	old    bool // from before what was asked for; else no longer in the journal
}

func (m *gone) append(b []byte) []byte {
	b = appendHeader(b, goneKind, m.id)
	b = appendID(b, m.of)
	b = binary.AppendUvarint(b, m.lo)
	b = binary.AppendUvarint(b, m.hi)
	return appendBool(b, m.old)
}

func (d *decoder) gone(id senderID) *gone {
	m := &gone{id: id, of: d.id(), lo: d.uvarint(), hi: d.uvarint(), old: d.bool()}
	if m.lo == 0 || m.hi < m.lo {
		d.fail(errCanonical)
	}
	return m
}

// decodeEnvelope reads an envelope that travels between nodes: *events, *beat,
// *announcements, *want or *gone. Bodies of events alias b and are decoded by
// decodeEvent.
func decodeEnvelope(b []byte) (message any, err error) {
	d := decoder{b: b}
	if len(b) > largest {
		return nil, fmt.Errorf("stream envelope: %d bytes, want at most %d", len(b), largest)
	}
	kind, id := d.header()
	switch kind {
	case eventsKind:
		first, count := d.span()
		m := &events{id: id, first: first, bodies: d.bodies(count)}
		if d.err == nil && m.version() != b[0] {
			d.fail(errCanonical)
		}
		message = m
	case beatKind:
		message = d.beat(id)
	case announceKind:
		message = d.announcements(id)
	case wantKind:
		message = d.want(id)
	case goneKind:
		message = d.gone(id)
	default:
		d.fail(fmt.Errorf("unknown kind %d", kind))
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("stream envelope: %w", err)
	}
	return message, nil
}
