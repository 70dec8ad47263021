package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Report is what [Check] found.
type Report struct {
	Node       string  `json:"node,omitempty"`
	Segments   int     `json:"segments"`
	Bytes      int64   `json:"bytes"`
	First      uint64  `json:"first,omitempty"` // sequences
	Last       uint64  `json:"last,omitempty"`
	Entries    uint64  `json:"entries"`
	Waiting    uint64  `json:"waiting"`
	Aggregated uint64  `json:"aggregated"`
	Opened     uint64  `json:"opened"`           // bodies that were compared with their commitments
	Erased     uint64  `json:"erased"`           // bodies that were erased
	Sealed     uint64  `json:"sealed"`           // bodies whose key was not there
	Head       Hash    `json:"head"`             // of the last segment, zero if it was not read whole: keep it elsewhere, and what is before cannot change
	Gaps       []Gap   `json:"gaps,omitempty"`   // that the record itself tells about
	Busy       bool    `json:"busy,omitempty"`   // a gate was writing: what it had not finished was left out
	Faults     []Fault `json:"faults,omitempty"` // at most 100
	More       int     `json:"more,omitempty"`   // further faults
}

// Gap is a range of sequences that a restore from the mirror left out.
type Gap struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Faults) == 0 }

const faultsMax = 100

func (r *Report) fault(f Fault) {
	if len(r.Faults) == faultsMax {
		r.More++
		return
	}
	r.Faults = append(r.Faults, f)
}

// Depth is how thoroughly [Check] looks.
type Depth uint8

const (
	// Structure: lengths, check sums, sequences, and the headers' chain.
	Structure Depth = iota
	// Contents: also every body whose key is there, against its leaf.
	Contents
)

// Check reads a whole record and compares everything in it with everything else.
// The error is about reading; what is wrong with the record is in the report.
//
// With the keys, depth Contents finds every entry that was edited, left out, put
// elsewhere, doubled or given another's body, and every header that was changed,
// also by somebody who makes all check sums anew. Without keys it finds that in all
// segments but the last, whose hash no later header has yet. It cannot find that
// the end was cut off between two entries, nor that a slot was erased by somebody
// else than the record: compare Last and Head with what was kept elsewhere.
func Check(ctx context.Context, dir string, keys func() []Key, depth Depth) (*Report, error) {
	list, err := segments(dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Segments: len(list), Busy: inUse(dir)}
	c := checker{report: r, keys: keys, depth: depth}
	for i, s := range list {
		if err := c.segment(ctx, s, i == len(list)-1); err != nil {
			return nil, err
		}
	}
	return r, nil
}

type checker struct {
	report *Report
	keys   func() []Key
	depth  Depth

	before bool   // a segment was read whole
	sum    Hash   // of that
	next   uint64 // sequence after it
}

func (c *checker) segment(ctx context.Context, s segmentFile, last bool) error {
	r := c.report
	var fault *Fault
	info, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("reading the record: %w", err)
	}
	r.Bytes += info.Size()
	before := c.before
	c.before, r.Head = false, Hash{}
	sc, closer, err := openSegment(s, info.Size())
	if errors.As(err, &fault) {
		r.fault(*fault)
		return nil
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	var open *opener
	if c.depth == Contents {
		if open, err = newOpener(c.keys, sc.raw); err != nil {
			return err
		}
	}
	h := sc.header
	bad := func(format string, args ...any) {
		r.fault(Fault{File: sc.name, What: fmt.Sprintf(format, args...)})
	}
	gap := Gap{}
	switch {
	case r.Node == "":
		if r.Node, r.First = h.Node, h.First; h.First == 1 && h.Previous != (Hash{}) {
			bad("it is the first segment and its header names one before it")
		}
	case h.Node != r.Node:
		bad("it is of node %s, and those before are of %s", h.Node, r.Node)
	case before && h.Previous != c.sum:
		bad("its header names another segment before it than the one that is there: that one or this header was changed")
	case before && h.First > c.next:
		gap = Gap{c.next, h.First - 1}
	case before && h.First != c.next:
		bad("its first entry should be %d and is %d", c.next, h.First)
	}
	ch := newChain(sc.raw)
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f, l, err := sc.scan()
		if errors.Is(err, io.EOF) {
			break
		}
		if n == 0 && gap.From != 0 {
			if err == nil && l.Kind == Restored {
				r.Gaps = append(r.Gaps, gap)
			} else {
				bad("entries %d to %d are missing", gap.From, gap.To)
			}
		}
		if fault = nil; errors.As(err, &fault) {
			if fault.stops && last && r.Busy {
				break
			}
			if fault.stops && !fault.Torn {
				fault.What += fmt.Sprintf("; the %d bytes from here on were not looked at", info.Size()-fault.Offset)
			}
			r.fault(*fault)
			if fault.stops {
				return nil
			}
		} else if err != nil {
			return err
		}
		ch.add(LeafHash(f.leaf))
		if fault == nil {
			c.entry(sc, open, f, l)
		}
	}
	c.before, c.sum, c.next = true, ch.sum(), sc.next
	r.Head = c.sum
	return nil
}

func (c *checker) entry(sc *scanner, open *opener, f frame, l Leaf) {
	r := c.report
	r.Entries++
	r.Last = l.Sequence
	if l.Class == Waiting {
		r.Waiting++
	} else {
		r.Aggregated++
	}
	if f.erased() {
		r.Erased++
		return
	}
	if open == nil {
		r.Sealed++
		return
	}
	_, err := open.open(f, l)
	switch {
	case err == nil:
		r.Opened++
	case errors.Is(err, ErrNoKey):
		r.Sealed++
	default:
		r.fault(Fault{File: sc.name, Offset: f.offset, Entry: l.ID().String(), What: err.Error()})
	}
}

// RepairTail cuts off what is wrong at the end of a record, if nothing was written
// after it. Unlike [Open] it also does so when a crash does not leave such an end,
// and an entry that was acknowledged may be lost: the cut says what it looked like.
// The zero cut means that the end is whole. The record must not be in use.
//
// A last segment whose beginning cannot be read is put aside whole (FIRST.seg.bad):
// without it nothing in the file can be opened. How many entries it had is not
// known, so that the record goes on behind a gap as after [MarkRestored].
func RepairTail(dir string) (Cut, error) {
	list, err := segments(dir)
	if err != nil || len(list) == 0 {
		return Cut{}, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return Cut{}, err
	}
	defer lock.Close()
	last := list[len(list)-1]
	t, err := findTail(last)
	var fault *Fault
	if errors.As(err, &fault) && fault.stops && t == nil {
		return putAside(dir, list, fault)
	}
	if err != nil || t.fault == nil {
		return Cut{}, err
	}
	if !t.last {
		return Cut{}, fmt.Errorf("%w. Entries behind it were written later, so this is no end that may be cut off: restore the record from a copy", t.fault)
	}
	return cutTail(last, t)
}

// putAside takes the last segment out of a record, which has no beginning.
func putAside(dir string, list []segmentFile, fault *Fault) (c Cut, err error) {
	s := list[len(list)-1]
	defer func() {
		if err != nil {
			err = fmt.Errorf("putting %s aside: %w", s.path, err)
		}
	}()
	info, err := os.Stat(s.path)
	if err != nil {
		return Cut{}, err
	}
	aside := s.path + ".bad"
	if _, err := os.Lstat(aside); !errors.Is(err, fs.ErrNotExist) {
		return Cut{}, fmt.Errorf("%s is there already: move it away", aside)
	}
	before := uint64(0)
	if len(list) > 1 {
		if before, err = lastOf(list[len(list)-2]); err != nil {
			return Cut{}, err
		}
	}
	// First the mark: whatever happens between, no number is used again.
	if err := markRestored(dir, restoration{before, s.first + restoredGap}); err != nil {
		return Cut{}, err
	}
	if err := errors.Join(os.Rename(s.path, aside), syncDir(dir)); err != nil {
		return Cut{}, err
	}
	return Cut{File: filepath.Base(s.path), Bytes: info.Size(), Kept: filepath.Base(aside), Why: fault.What}, nil
}
