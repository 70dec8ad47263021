package record

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
)

// Entry is an entry as it is read.
type Entry struct {
	Leaf
	// Body is JSON; nil if Err says why it cannot be read: [ErrErased] or [ErrNoKey].
	Body json.RawMessage `json:"-"`
	Err  error           `json:"-"`
}

// MarshalJSON writes the leaf, the id, and the body or why there is none.
func (e Entry) MarshalJSON() ([]byte, error) {
	type shown struct {
		ID ID `json:"id"`
		Leaf
		Body  json.RawMessage `json:"body,omitempty"`
		Error string          `json:"error,omitempty"`
	}
	s := shown{ID: e.ID(), Leaf: e.Leaf, Body: e.Body}
	if e.Err != nil {
		s.Error = e.Err.Error()
	}
	return json.Marshal(s)
}

// Query says which entries are wanted. Its zero value wants all.
type Query struct {
	After uint64    // only entries with a higher sequence
	From  time.Time // only what happened at this time or later; zero: everything
	Until time.Time // only what happened before; zero: everything
	Kinds []string  // only these kinds; one that ends with a dot is every kind that begins so
	Class Class     // only this class; 0: both
}

// slack is how much earlier than its segment something may have happened that the
// segment tells about. Sums wait for the quota.
const slack = 24 * time.Hour

func (q Query) wants(l Leaf) bool {
	return l.Sequence > q.After &&
		(q.From.IsZero() || !l.Time.Before(q.From)) &&
		(q.Until.IsZero() || l.Time.Before(q.Until)) &&
		(q.Class == 0 || q.Class == l.Class) &&
		(len(q.Kinds) == 0 || slices.ContainsFunc(q.Kinds, func(k string) bool {
			return k == l.Kind || strings.HasSuffix(k, ".") && strings.HasPrefix(l.Kind, k)
		}))
}

// Read passes the entries that q wants to each, in their order, until each returns
// an error, which Read returns. It reads what is durable when it is called, beside
// the writer.
func (l *Log) Read(ctx context.Context, q Query, each func(Entry) error) error {
	at := l.position()
	return read(ctx, l.dir, l.cfg.Keys, q, &at, each)
}

// Read reads a record that this process does not write, perhaps while another one
// does: then an end that is being written is no error. Keys may be nil.
func Read(ctx context.Context, dir string, keys func() []Key, q Query, each func(Entry) error) error {
	return read(ctx, dir, keys, q, nil, each)
}

func read(ctx context.Context, dir string, keys func() []Key, q Query, until *position, each func(Entry) error) error {
	list, err := segments(dir)
	if err != nil {
		return err
	}
	for i, s := range list {
		last := i == len(list)-1
		limit := int64(-1)
		if until != nil {
			if s.first > until.segment {
				break
			}
			if last = s.first == until.segment; last {
				limit = until.offset
			}
		}
		if !last && i+1 < len(list) && list[i+1].first <= q.After+1 {
			continue
		}
		if !last && !q.From.IsZero() {
			next, err := readHeader(list[i+1])
			if err != nil {
				return err
			}
			if next.Created.Before(q.From.Add(-slack)) {
				continue
			}
		}
		if err := readSegment(ctx, s, keys, q, limit, last, each); err != nil {
			return err
		}
	}
	return nil
}

func readHeader(s segmentFile) (SegmentHeader, error) {
	sc, closer, err := openSegment(s, -1)
	if err != nil {
		return SegmentHeader{}, err
	}
	return sc.header, closer.Close()
}

func readSegment(ctx context.Context, s segmentFile, keys func() []Key, q Query, limit int64, last bool, each func(Entry) error) error {
	sc, closer, err := openSegment(s, limit)
	if err != nil {
		return err
	}
	defer closer.Close()
	open, err := newOpener(keys, sc.raw)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f, l, err := sc.scan()
		var fault *Fault
		switch {
		case errors.Is(err, io.EOF), errors.As(err, &fault) && last && limit < 0 && fault.stops:
			return nil
		case err != nil:
			return err
		case !q.wants(l):
			continue
		}
		e := Entry{Leaf: l}
		e.Body, e.Err = open.open(f, l)
		if e.Err != nil && !errors.Is(e.Err, ErrErased) && !errors.Is(e.Err, ErrNoKey) {
			return &Fault{File: sc.name, Offset: f.offset, Entry: l.ID().String(), What: e.Err.Error()}
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

// Last is the sequence of the last whole entry of a record that this process does
// not write; 0: there is none.
func Last(dir string) (uint64, error) {
	list, err := segments(dir)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return lastOf(list[len(list)-1])
}

func lastOf(s segmentFile) (uint64, error) {
	sc, closer, err := openSegment(s, -1)
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	last := sc.header.First - 1
	for {
		_, l, err := sc.scan()
		var fault *Fault
		switch {
		case errors.Is(err, io.EOF), errors.As(err, &fault) && fault.stops:
			return last, nil
		case err == nil:
			last = l.Sequence
		case fault == nil:
			return 0, err
		default: // what is wrong, and perhaps its number, is not for us to tell
			last++
		}
	}
}
