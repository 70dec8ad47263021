package record_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/gateway/record"
)

// TestCrashes: whatever a crash leaves of what was not acknowledged, a start finds
// all that was, goes on with the next number, and tells what it cut.
func TestCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "record-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		cfg := record.Config{Node: "gate-1", Keys: keys, Reserve: -1, SegmentBytes: rapid.Int64Range(0, 3).Draw(t, "segment") * 1500}
		said := make(map[uint64]string) // what was acknowledged
		last := uint64(0)
		for range rapid.IntRange(1, 4).Draw(t, "crashes") {
			l, err := record.Open(dir, cfg)
			if err != nil {
				t.Fatal(err)
			}
			for range rapid.IntRange(0, 6).Draw(t, "entries") {
				text := rapid.StringN(0, 40, -1).Draw(t, "text")
				ids, err := l.AppendMany(t.Context(), slices.Repeat([]record.Draft{{Kind: "login.success", Body: text}}, rapid.IntRange(1, 3).Draw(t, "at once")))
				if err != nil {
					t.Fatal(err)
				}
				for _, id := range ids {
					if id.Sequence <= last {
						t.Fatalf("%v comes after %d", id, last)
					}
					last = id.Sequence
					said[id.Sequence], err = text, nil
				}
			}
			place, size := end(t, dir)
			// These are written and not acknowledged.
			for range rapid.IntRange(0, 2).Draw(t, "lost groups") {
				if _, err := l.AppendMany(t.Context(), slices.Repeat([]record.Draft{{Kind: "lost", Body: "lost"}}, rapid.IntRange(1, 3).Draw(t, "at once"))); err != nil {
					t.Fatal(err)
				}
				if rapid.Bool().Draw(t, "one") {
					break
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			for _, path := range record.Segments(dir) {
				if path > place {
					if err := os.Remove(path); err != nil { // begun in the lost part
						t.Fatal(err)
					}
				}
			}
			if place == "" {
				continue
			}
			crash(t, place, size)
		}
		l, err := record.Open(dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		id, err := l.Append(t.Context(), record.Draft{Kind: "login.success", Body: "the last"})
		if err != nil || id.Sequence <= last {
			t.Fatalf("goes on with %v after %d: %v", id, last, err)
		}
		said[id.Sequence] = "the last"
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := record.Check(t.Context(), dir, keys, record.Contents)
		if err != nil || !r.OK() || r.Entries != r.Last {
			t.Fatalf("%+v, %v", r, err)
		}
		if err := record.Read(t.Context(), dir, keys, record.Query{}, func(e record.Entry) error {
			var text string
			switch {
			case e.Kind == record.Recovered || e.Kind == "lost":
			case json.Unmarshal(e.Body, &text) != nil || said[e.Sequence] != text:
				t.Fatalf("entry %d says %s, want %q", e.Sequence, e.Body, said[e.Sequence])
			default:
				delete(said, e.Sequence)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(said) > 0 {
			t.Fatalf("acknowledged and lost: %v", said)
		}
	})
}

// end is the last segment and its size.
func end(t rapid.TB, dir string) (path string, size int64) {
	paths := record.Segments(dir)
	if len(paths) == 0 {
		return "", 0
	}
	path = paths[len(paths)-1]
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, info.Size()
}

// crash leaves of the bytes behind size what a crash may: of one group the file is
// cut anywhere or some sectors were never written.
func crash(t *rapid.T, path string, size int64) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lost := data[size:]
	if n := group(lost, size); n < len(lost) {
		lost = lost[:n] // the second group was not begun before the first was synced
	}
	data = data[:int(size)+len(lost)]
	switch {
	case len(lost) == 0:
	case rapid.Bool().Draw(t, "cut"):
		data = data[:int(size)+rapid.IntRange(0, len(lost)).Draw(t, "at")]
	default:
		for at := int(size); at < len(data); {
			next := min(len(data), at-at%512+512)
			if rapid.Bool().Draw(t, "unwritten") {
				clear(data[at:next])
			}
			at = next
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// group is how many bytes the first group of b has, which begins at offset.
func group(b []byte, offset int64) int {
	for at := 0; at+record.HeadSize <= len(b); {
		if string(b[at:at+4]) != "KRF1" {
			return len(b)
		}
		if int64(binary.BigEndian.Uint32(b[at+4:])) != offset {
			return at
		}
		at += record.HeadSize + int(binary.BigEndian.Uint16(b[at+8:])) + int(binary.BigEndian.Uint32(b[at+10:])) + record.SlotSize
	}
	return len(b)
}

// A cut end is told of in an entry, and kept.
func TestRecovered(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, nil)
	for i := range 3 {
		appendOne(t, l, i)
	}
	l.Close()
	path, size := end(t, dir)
	places, err := record.Places(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size-10); err != nil {
		t.Fatal(err)
	}
	r := check(t, dir)
	if len(r.Faults) != 1 || !r.Faults[0].Torn || r.Entries != 2 {
		t.Errorf("report %+v, want a torn end", r)
	}
	l = open(t, dir, nil)
	if id := appendOne(t, l, 3); id.Sequence != 4 {
		t.Errorf("goes on with %v", id)
	}
	l.Close()
	sound(t, dir)
	all := entries(t, dir, record.Query{Kinds: []string{record.Recovered}})
	var got record.Cut
	if len(all) != 1 || all[0].Sequence != 3 || json.Unmarshal(all[0].Body, &got) != nil {
		t.Fatalf("got %+v", all)
	}
	want := record.Cut{File: filepath.Base(path), Offset: places[2].Offset, Bytes: int64(len(places[2].Raw) - 10), Kept: got.Kept, Why: got.Why}
	if diff := cmp.Diff(want, got); diff != "" || !strings.Contains(got.Why, "ends") {
		t.Errorf("%s (-want +got):\n%s", all[0].Body, diff)
	}
	kept, err := os.ReadFile(filepath.Join(dir, got.Kept))
	if err != nil || !bytes.Equal(kept, places[2].Raw[:len(kept)]) || len(kept) != len(places[2].Raw)-10 {
		t.Errorf("%d bytes were kept, %v", len(kept), err)
	}
	// Not more than a few are kept.
	for i := range 12 {
		l := open(t, dir, nil)
		appendOne(t, l, i)
		l.Close()
		_, size := end(t, dir)
		if err := os.Truncate(path, size-1-int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "*.torn")); len(kept) != 8 {
		t.Errorf("%d torn ends are kept", len(kept))
	}
	open(t, dir, nil).Close()
	sound(t, dir)
}

// A start that is cut off between the cut and the entry leaves it to the next.
func TestRecoveredLater(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, nil)
	appendOne(t, l, 0)
	l.Close()
	path, size := end(t, dir)
	if err := os.WriteFile(fmt.Sprintf("%s.%d.torn", path, size), []byte("a part of an entry"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l = open(t, dir, nil)
		appendOne(t, l, 1)
		l.Close()
	}
	all := entries(t, dir, record.Query{Kinds: []string{record.Recovered}})
	var got record.Cut
	if len(all) != 1 || json.Unmarshal(all[0].Body, &got) != nil || got.Offset != size || got.Bytes != 18 {
		t.Errorf("got %+v, %+v, want one entry about the cut", all, got)
	}
	sound(t, dir)
}

// Damage is not a torn end: nothing is repaired, and the error says where.
func TestOpenRefusesDamage(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(b []byte, places []record.Place) []byte
		repair bool // whether the end may be cut off by hand
	}{
		{"a byte of the last entry", func(b []byte, p []record.Place) []byte { b[p[5].BodyAt] ^= 1; return b }, true},
		{"a length of the last entry", func(b []byte, p []record.Place) []byte { b[p[5].Offset+13] ^= 1; return b }, true},
		{"a byte of an earlier entry", func(b []byte, p []record.Place) []byte { b[p[2].BodyAt] ^= 1; return b }, false},
		{"a length of an earlier entry", func(b []byte, p []record.Place) []byte { b[p[2].Offset+13] ^= 1; return b }, false},
		{"an earlier entry reads as zeros", func(b []byte, p []record.Place) []byte { clear(b[p[2].Offset:p[3].Offset]); return b }, false},
		{"a slot", func(b []byte, p []record.Place) []byte { b[p[1].SlotAt] ^= 1; return b }, false},
		{"the header", func(b []byte, _ []record.Place) []byte { b[9] ^= 1; return b }, true},
		{"half a header", func(b []byte, _ []record.Place) []byte { return b[:30] }, true},
		{"zeros instead of all", func(b []byte, _ []record.Place) []byte { clear(b); return b }, true},
		{"an entry is missing", func(b []byte, p []record.Place) []byte { return slices.Delete(b, int(p[2].Offset), int(p[3].Offset)) }, false},
		{"an entry is there twice", func(b []byte, p []record.Place) []byte { return append(b, p[5].Raw...) }, true},
		{"text follows", func(b []byte, p []record.Place) []byte { return append(b, strings.Repeat("text", 20)...) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, nil)
			for i := range 6 {
				appendOne(t, l, i)
			}
			l.Close()
			places, err := record.Places(dir)
			if err != nil {
				t.Fatal(err)
			}
			path, _ := end(t, dir)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data = test.damage(data, places)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = record.Open(dir, record.Config{Node: "gate-1", Keys: keys, Reserve: -1})
			var fault *record.Fault
			if !errors.As(err, &fault) || fault.File != filepath.Base(path) || !strings.Contains(err.Error(), "kidoban record fsck") {
				t.Fatalf("opening: got %v", err)
			}
			if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, data) {
				t.Error("opening changed the file")
			}
			if r := check(t, dir); r.OK() {
				t.Error("the check finds nothing")
			}
			cut, err := record.RepairTail(dir)
			if test.repair != (err == nil) || test.repair != (cut.Bytes > 0) {
				t.Fatalf("repairing the tail: %+v, %v", cut, err)
			}
			if test.repair {
				open(t, dir, nil).Close()
				sound(t, dir)
			}
		})
	}
}

// A last segment that cannot be read at all is put aside, and no number is used again.
func TestPutAside(t *testing.T) {
	for _, segments := range []int{1, 3} {
		dir := t.TempDir()
		l := open(t, dir, func(c *record.Config) { c.SegmentBytes = 700 })
		for i := 0; len(record.Segments(dir)) < segments; i++ {
			appendOne(t, l, i)
		}
		last := appendOne(t, l, 100).Sequence
		l.Close()
		path, _ := end(t, dir)
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		cut, err := record.RepairTail(dir)
		if err != nil || cut.Kept != filepath.Base(path)+".bad" || cut.File != filepath.Base(path) {
			t.Fatalf("got %+v, %v", cut, err)
		}
		l = open(t, dir, nil)
		id := appendOne(t, l, 101)
		if id.Sequence <= last+record.RestoredGap/2 {
			t.Errorf("goes on with %v after %d", id, last)
		}
		l.Close()
		if r := sound(t, dir); len(r.Gaps) != min(segments-1, 1) || r.Last != id.Sequence {
			t.Errorf("report %+v", r)
		}
		open(t, dir, nil).Close()
		// The segment that begins behind the gap is lost as well, twice.
		for range 2 {
			path, _ = end(t, dir)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if cut, err := record.RepairTail(dir); err != nil || cut.Kept == "" {
				t.Fatalf("got %+v, %v", cut, err)
			}
			l = open(t, dir, nil)
			next := appendOne(t, l, 102)
			if l.Close(); next.Sequence <= id.Sequence {
				t.Errorf("goes on with %v after %v", next, id)
			}
			id = next
			sound(t, dir)
		}
	}
}
