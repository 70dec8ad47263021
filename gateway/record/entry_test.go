package record_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/record"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func leaf() record.Leaf {
	return record.Leaf{
		Node: "gate-1", Sequence: 7, Time: time.Date(2026, 11, 23, 9, 0, 0, 123456000, time.UTC), Class: record.Waiting,
		Kind: "act.decision.register", Reason: "decision", Count: 1,
		Commit: record.Commit([32]byte{9}, []byte(`{"value":"203.0.113.7"}`)),
	}
}

func header() record.SegmentHeader {
	return record.SegmentHeader{Node: "gate-1", First: 7, Created: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), Previous: record.LeafHash([]byte("x"))}
}

// TestForm holds the bytes against a file: a change here would make every record
// that was ever written unreadable.
func TestForm(t *testing.T) {
	l, err := leaf().Encode()
	if err != nil {
		t.Fatal(err)
	}
	s, err := header().Encode()
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"value":"203.0.113.7"}`)
	frame, err := record.Frame(header(), keys()[0], leaf(), body, bytes.Repeat([]byte{7}, 76), int64(len(s)))
	if err != nil {
		t.Fatal(err)
	}
	got := "leaf " + hex.EncodeToString(l) + "\nhash " + record.LeafHash(l).String() + "\nsegment " + hex.EncodeToString(s) +
		"\nframe " + hex.EncodeToString(frame) + "\nerased " + hex.EncodeToString(record.ErasedSlot) + "\n"
	const file = "testdata/v1.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the form changed (-want +got):\n%s", diff)
	}
	back, err := record.DecodeLeaf(l)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(leaf(), back); diff != "" {
		t.Errorf("leaf (-want +got):\n%s", diff)
	}
	h, n, err := record.DecodeSegmentHeader(append(s, "the first entry"...))
	if err != nil || n != len(s) {
		t.Fatalf("DecodeSegmentHeader = %d bytes, %v, want %d", n, err, len(s))
	}
	if diff := cmp.Diff(header(), h); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	for name, change := range map[string]func(*record.Leaf){
		"no node":                   func(l *record.Leaf) { l.Node = "" },
		"no kind":                   func(l *record.Leaf) { l.Kind = "" },
		"long reason":               func(l *record.Leaf) { l.Reason = strings.Repeat("x", 65) },
		"not UTF-8":                 func(l *record.Leaf) { l.Reason = "\xff" },
		"a capital letter":          func(l *record.Leaf) { l.Kind = "Denial" },
		"a slash in the node":       func(l *record.Leaf) { l.Node = "a/b" },
		"before 1970":               func(l *record.Leaf) { l.Time = time.UnixMicro(-1) },
		"the year 10000":            func(l *record.Leaf) { l.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"sequence 0":                func(l *record.Leaf) { l.Sequence = 0 },
		"unknown class":             func(l *record.Leaf) { l.Class = 9 },
		"many in a waiting entry":   func(l *record.Leaf) { l.Count = 2 },
		"none in an aggregated one": func(l *record.Leaf) { l.Class, l.Count = record.Aggregated, 0 },
	} {
		l := leaf()
		change(&l)
		if _, err := l.Encode(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	good, err := leaf().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := record.DecodeLeaf(good[:n]); err == nil {
			t.Errorf("a leaf cut to %d bytes was read", n)
		}
	}
	s, err := header().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range s {
		torn := bytes.Clone(s)
		torn[i] ^= 0x40
		if _, _, err := record.DecodeSegmentHeader(torn); err == nil {
			t.Errorf("a header with byte %d changed was read", i)
		}
	}
}

// FuzzLeaf: what can be read is written back as the same bytes.
func FuzzLeaf(f *testing.F) {
	b, err := leaf().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := record.DecodeLeaf(b)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %+v and written as %x (%v)", b, l, again, err)
		}
	})
}
