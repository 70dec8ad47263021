package record_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/record"
)

// sample writes a record of three segments, the last of which has four entries.
func sample(t testing.TB, dir string) []record.Place {
	t.Helper()
	l := open(t, dir, func(c *record.Config) { c.SegmentBytes = 2 << 10 })
	for len(record.Segments(dir)) < 3 {
		appendOne(t, l, 1)
	}
	for range 3 {
		appendOne(t, l, 2)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	places, err := record.Places(dir)
	if err != nil {
		t.Fatal(err)
	}
	return places
}

// TestTampering: somebody who knows the format and makes all check sums right, but
// has no key, is found.
func TestTampering(t *testing.T) {
	type file struct {
		b []byte
		p []record.Place // of that segment
	}
	swap := func(f *file, i, j int, from, to func(record.Place) int64) {
		a, b := f.p[i], f.p[j]
		x, y := bytes.Clone(f.b[from(a):to(a)]), bytes.Clone(f.b[from(b):to(b)])
		copy(f.b[from(a):], y)
		copy(f.b[from(b):], x)
	}
	reseal := func(f *file, i int) { record.Reseal(f.b[f.p[i].Offset : f.p[i].Offset+int64(len(f.p[i].Raw))]) }
	leafAt := func(p record.Place) int64 { return p.LeafAt }
	bodyAt := func(p record.Place) int64 { return p.BodyAt }
	slotAt := func(p record.Place) int64 { return p.SlotAt }
	endAt := func(p record.Place) int64 { return p.Offset + int64(len(p.Raw)) }
	move := func(f *file, from int, by int64) { // makes what comes later fit to where it is now
		for _, p := range f.p[from:] {
			at := p.Offset + by
			binary.BigEndian.PutUint32(f.b[at+4:], uint32(at))
			record.Reseal(f.b[at : at+int64(len(p.Raw))])
		}
	}
	header := func(f *file, change func(*record.SegmentHeader)) {
		h, n, err := record.DecodeSegmentHeader(f.b)
		if err != nil {
			t.Fatal(err)
		}
		change(&h)
		b, err := h.Encode()
		if err != nil || len(b) != n {
			t.Fatal(err)
		}
		copy(f.b, b)
	}
	for _, test := range []struct {
		name   string
		do     func(f *file)
		keyed  bool   // only found with the keys when it is in the last segment
		unseen string // not found in "last" or "middle"
	}{
		{"edit: the time", func(f *file) { f.b[f.p[1].LeafAt+16] ^= 1; reseal(f, 1) }, true, ""},
		{"edit: the reason's letter", func(f *file) { f.b[f.p[1].BodyAt-2] ^= 1; reseal(f, 1) }, true, ""},
		{"delete", func(f *file) {
			n := int64(len(f.p[1].Raw))
			f.b = slices.Delete(f.b, int(f.p[1].Offset), int(f.p[1].Offset+n))
			move(f, 2, -n)
		}, false, ""},
		{"delete, and number anew", func(f *file) {
			n := int64(len(f.p[1].Raw))
			f.b = slices.Delete(f.b, int(f.p[1].Offset), int(f.p[1].Offset+n))
			for i := range f.p[2:] {
				at := f.p[2+i].LeafAt - n
				binary.BigEndian.PutUint64(f.b[at+2:], f.p[1+i].Leaf.Sequence)
			}
			move(f, 2, -n)
		}, true, ""},
		{"reorder", func(f *file) {
			swap(f, 1, 2, leafAt, endAt)
			reseal(f, 1)
			reseal(f, 2)
		}, false, ""},
		{"truncate within an entry", func(f *file) { f.b = f.b[:len(f.b)-100] }, false, ""},
		{"truncate between entries", func(f *file) { f.b = f.b[:f.p[len(f.p)-1].Offset] }, false, "last"},
		{"swapped body", func(f *file) {
			swap(f, 1, 2, bodyAt, slotAt)
			reseal(f, 1)
			reseal(f, 2)
		}, true, "middle without keys"},
		{"swapped body and key", func(f *file) {
			swap(f, 1, 2, bodyAt, endAt)
			reseal(f, 1)
			reseal(f, 2)
		}, true, "middle without keys"},
		{"forged header: the time", func(f *file) { header(f, func(h *record.SegmentHeader) { h.Created = h.Created.Add(1e9) }) }, true, ""},
		{"forged header: the segment before", func(f *file) { header(f, func(h *record.SegmentHeader) { h.Previous[0] ^= 1 }) }, false, ""},
		{"duplicated frame", func(f *file) {
			p := f.p[len(f.p)-1]
			raw := bytes.Clone(p.Raw)
			binary.BigEndian.PutUint32(raw[4:], uint32(len(f.b)))
			record.Reseal(raw)
			f.b = append(f.b, raw...)
		}, false, ""},
		{"duplicated frame with the next number", func(f *file) {
			p := f.p[len(f.p)-1]
			raw := bytes.Clone(p.Raw)
			binary.BigEndian.PutUint32(raw[4:], uint32(len(f.b)))
			binary.BigEndian.PutUint64(raw[record.HeadSize+2:], p.Leaf.Sequence+1)
			record.Reseal(raw)
			f.b = append(f.b, raw...)
		}, true, ""},
		{"the segment is missing", func(f *file) { f.b = nil }, false, "last"},
		{"a slot of another entry", func(f *file) { swap(f, 1, 2, slotAt, endAt) }, true, "middle without keys"},
		{"a body is flipped", func(f *file) { f.b[f.p[1].BodyAt] ^= 1; reseal(f, 1) }, true, "middle without keys"},
	} {
		for where, segment := range map[string]int{"middle": 1, "last": 2} {
			t.Run(test.name+", "+where, func(t *testing.T) {
				dir := t.TempDir()
				all := sample(t, dir)
				if !sound(t, dir).OK() {
					t.Fatal("the sample is bad")
				}
				path := record.Segments(dir)[segment]
				var f file
				for _, p := range all {
					if p.Path == path {
						f.p = append(f.p, p)
					}
				}
				var err error
				if f.b, err = os.ReadFile(path); err != nil {
					t.Fatal(err)
				}
				test.do(&f)
				if f.b == nil {
					err = os.Remove(path)
				} else {
					err = os.WriteFile(path, f.b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				r := check(t, dir)
				if seen := test.unseen != where; r.OK() == seen {
					t.Fatalf("found: %v, want %v: %+v", !r.OK(), seen, r.Faults)
				}
				blind, err := record.Check(t.Context(), dir, nil, record.Contents)
				if err != nil {
					t.Fatal(err)
				}
				seen := test.unseen != where && !(test.keyed && where == "last") && test.unseen != where+" without keys"
				if blind.OK() == seen {
					t.Errorf("without keys found: %v, want %v: %+v", !blind.OK(), seen, blind.Faults)
				}
				for _, f := range r.Faults {
					if f.What == "" || !strings.HasSuffix(f.File, ".seg") {
						t.Errorf("fault %+v says too little", f)
					}
				}
			})
		}
	}
}

// What Check counts and where it ends is what an auditor keeps.
func TestTruncationShows(t *testing.T) {
	dir := t.TempDir()
	places := sample(t, dir)
	before := sound(t, dir)
	last := slices.MaxFunc(places, func(a, b record.Place) int { return cmp.Compare(a.Leaf.Sequence, b.Leaf.Sequence) })
	if err := os.Truncate(last.Path, last.Offset); err != nil {
		t.Fatal(err)
	}
	if after := sound(t, dir); after.Last != before.Last-1 || after.Head == before.Head {
		t.Errorf("%+v after %+v", after, before)
	}
}

// FuzzSegment: no bytes make reading fail other than by an error, and what is good
// in front of the fault is as good when the rest is cut off.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	places := sample(f, dir)
	data, err := os.ReadFile(record.Segments(dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:places[1].Offset])
	f.Add(data[:len(data)-7])
	f.Add(data[:30])
	zeros := bytes.Clone(data)
	clear(zeros[places[2].Offset:])
	f.Add(zeros)
	long := bytes.Clone(data)
	binary.BigEndian.PutUint32(long[places[1].Offset+10:], 1<<31)
	f.Add(long)
	f.Fuzz(func(t *testing.T, data []byte) {
		first := record.ScanBytes(data, keys)
		if first.Fault == nil {
			if first.End != int64(len(data)) && first.End != 0 {
				t.Fatalf("%d of %d bytes were read, and nothing is wrong", first.End, len(data))
			}
			return
		}
		again := record.ScanBytes(data[:first.End], keys)
		if again.Entries != first.Entries || again.Opened != first.Opened || again.Head != first.Head || first.End > 0 && (again.Fault != nil || again.End != first.End) {
			t.Fatalf("%+v, and after the cut %+v", first, again)
		}
	})
}
