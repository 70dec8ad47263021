package stream

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Query says which events are searched for; what is zero does not matter.
type Query struct {
	From, To time.Time // of the event: not before From, before To
	Account  detectors.Account
	Source   netip.Prefix // an address is a prefix of all its bits
	Session  string
	Name     detectors.Digest
	Outcome  detectors.Outcome
	Kind     detectors.Kind
	Limit    int    // 1 to 1000; default 100
	Cursor   Cursor // of the call before; empty: from the newest
}

// Cursor is where a search goes on. It means nothing to others; empty: there is no
// more.
type Cursor string

// ErrCursor says that a cursor is none that Search gave.
var ErrCursor = errors.New("stream: the cursor is not one of an earlier answer")

// searchBytes bounds what one call reads.
const searchBytes = 16 << 20

func (q *Query) matches(e *detectors.Event) bool {
	return (q.From.IsZero() || !e.Time.Before(q.From)) &&
		(q.To.IsZero() || e.Time.Before(q.To)) &&
		(q.Account == "" || e.Account == q.Account) &&
		(!q.Source.IsValid() || q.Source.Contains(e.Source.Address)) &&
		(q.Session == "" || e.Session == q.Session) &&
		(q.Name.IsZero() || e.Name.Digest == q.Name) &&
		(q.Outcome == "" || e.Outcome == q.Outcome) &&
		(q.Kind == "" || e.Kind == q.Kind)
}

// where is a place in the journal: before the event of this index, in the frame at
// this offset of this segment.
type where struct{ segment, offset, index uint64 }

func (w where) cursor() Cursor {
	b := []byte{1}
	for _, v := range []uint64{w.segment, w.offset, w.index} {
		b = binary.AppendUvarint(b, v)
	}
	return Cursor(base64.RawURLEncoding.EncodeToString(b))
}

func (c Cursor) where() (w where, err error) {
	if len(c) > 64 {
		return w, ErrCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(c))
	if err != nil {
		return w, ErrCursor
	}
	d := decoder{b: b}
	if d.byte() != 1 {
		d.fail(ErrCursor)
	}
	w = where{d.uvarint(), d.uvarint(), d.uvarint()}
	if d.end() != nil {
		return where{}, ErrCursor
	}
	return w, nil
}

// withhold takes out of e what is for detectors and nobody else: who has digests of a
// password and a way to make more of them can try out what it is.
func withhold(e *detectors.Event) { e.Password.Digest, e.Password.Near = detectors.Digest{}, nil }

// Search returns events of the journal, the one that reached this node last first.
// A call reads a bounded part of the journal: it may return few events, or none,
// and yet a cursor. Digests of passwords are not in what it returns.
func (s *Stream) Search(ctx context.Context, q Query) (page []detectors.Event, next Cursor, err error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	q.Limit = min(q.Limit, 1000)
	if q.Source.IsValid() {
		q.Source = q.Source.Masked()
	}
	start := where{segment: ^uint64(0), offset: ^uint64(0), index: ^uint64(0)}
	if q.Cursor != "" {
		if start, err = q.Cursor.where(); err != nil {
			return nil, "", err
		}
	}
	list := s.journal.pieces(func(g *segment) bool {
		// Events are within Skew of their stream times, the stream's times of the segment.
		return g.number <= start.segment && g.count > 0 &&
			(q.From.IsZero() || !g.stamp.Add(Skew).Before(q.From)) &&
			(q.To.IsZero() || g.oldest.Add(-Skew).Before(q.To))
	})
	read := int64(0)
	for i := len(list) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		p := list[i]
		if read += p.size; read > searchBytes && i < len(list)-1 {
			return page, where{p.number, ^uint64(0), ^uint64(0)}.cursor(), nil
		}
		b, err := s.journal.bytesOf(p)
		if err != nil {
			return nil, "", err
		}
		type frame struct {
			offset uint64
			m      *events
		}
		var all []frame
		if _, _, err := eventFrames(b, nil, func(offset int64, m *events) error {
			if p.number < start.segment || uint64(offset) <= start.offset {
				all = append(all, frame{uint64(offset), m})
			}
			return nil
		}); err != nil {
			return nil, "", err
		}
		for k := len(all) - 1; k >= 0; k-- {
			f := all[k]
			for n := len(f.m.bodies) - 1; n >= 0; n-- {
				at := where{p.number, f.offset, uint64(n)}
				if p.number == start.segment && f.offset == start.offset && at.index >= start.index {
					continue
				}
				e, err := decodeEvent(f.m.bodies[n])
				if err != nil || !q.matches(&e) {
					continue
				}
				withhold(&e)
				e.Key = detectors.EventKey{Node: f.m.id.node, Incarnation: f.m.id.incarnation, Sequence: f.m.first + uint64(n)}
				if page = append(page, e); len(page) == q.Limit {
					return page, at.cursor(), nil
				}
			}
		}
	}
	return page, "", nil
}
