package record_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/record"
)

// sampleSegments are three segments with secrets that are known: the same bytes
// each time. What they are made of is computed here and not asked of the package.
func sampleSegments(t testing.TB) (names []string, segments [][]byte) {
	t.Helper()
	sequence, previous := uint64(1), record.Hash{}
	for s := range 3 {
		h := record.SegmentHeader{Node: "gate-1", First: sequence, Created: start.Add(time.Duration(s) * time.Hour), Previous: previous}
		header, err := h.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b := header
		hash := sha256.New()
		hash.Write([]byte{2})
		hash.Write(header)
		batch := int64(len(b))
		for i := range 4 {
			l := record.Leaf{
				Node: "gate-1", Sequence: sequence, Time: h.Created.Add(time.Duration(i) * time.Second), Class: record.Waiting, Count: 1,
				Kind: "act.decision.register", Reason: "decision",
			}
			body := fmt.Appendf(nil, `{"value":"203.0.113.%d","by":"operator"}`, sequence)
			if i == 3 {
				l.Class, l.Count, l.Kind, l.Reason = record.Aggregated, 1234, "denial.login", "limit"
				body = []byte(`{"from":"2026-11-23T09:00:00Z","to":"2026-11-23T09:00:10Z","keys":[{"key":"203.0.113.0/24","at_least":1200,"at_most":1234}],"more":true}`)
			}
			if i == 2 {
				body = []byte("{\"name\":\"a \u202eodd\u009b name\"}")
			}
			if i != 1 { // the second is of the group of the first
				batch = int64(len(b))
			}
			random := sha256.Sum256([]byte(fmt.Sprint(sequence)))
			frame, err := record.Frame(h, keys()[0], l, body, bytes.Repeat(random[:], 3)[:76], batch)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 && s == 1 {
				copy(frame[len(frame)-record.SlotSize:], record.ErasedSlot)
			}
			n := record.HeadSize + int(binary.BigEndian.Uint16(frame[8:]))
			leaf := sha256.Sum256(append([]byte{0}, frame[record.HeadSize:n]...))
			hash.Write(leaf[:])
			b = append(b, frame...)
			sequence++
		}
		previous = record.Hash(hash.Sum(nil))
		names = append(names, fmt.Sprintf("%020d.seg", h.First))
		segments = append(segments, b)
	}
	return names, segments
}

// frames takes a segment apart.
func frames(b []byte) (header []byte, all [][]byte) {
	n := 61 + len("gate-1")
	header, b = b[:n], b[n:]
	for len(b) > 0 {
		n := record.HeadSize + int(binary.BigEndian.Uint16(b[8:])) + int(binary.BigEndian.Uint32(b[10:])) + record.SlotSize
		all, b = append(all, b[:n]), b[n:]
	}
	return header, all
}

// TestSamples holds a record and ways of tampering with it against files: those a
// later version must still read and find, and the command is tested with them.
func TestSamples(t *testing.T) {
	join := func(header []byte, all [][]byte) []byte {
		b := bytes.Clone(header)
		for _, f := range all {
			binary.BigEndian.PutUint32(f[4:], uint32(len(b)))
			record.Reseal(f)
			b = append(b, f...)
		}
		return b
	}
	for _, test := range []struct {
		name string
		do   func(s [][]byte)
		want string // in the first fault; "": none
	}{
		{"good", func([][]byte) {}, ""},
		{"edit", func(s [][]byte) { f := firstFrame(s[2]); f[record.HeadSize+16] ^= 1; record.Reseal(f) }, "does not open"},
		{"delete", func(s [][]byte) {
			h, f := frames(s[1])
			s[1] = join(h, slices.Delete(f, 1, 2))
		}, "should be 6 and is 7"},
		{"reorder", func(s [][]byte) {
			h, f := frames(s[1])
			f[1], f[2] = f[2], f[1]
			s[1] = join(h, f)
		}, "should be 6 and is 7"},
		{"truncate", func(s [][]byte) { s[2] = s[2][:len(s[2])-100] }, "the file ends after"},
		{"swapped-body", func(s [][]byte) {
			h, f := frames(s[1])
			a, b := f[1], f[0]
			n := record.HeadSize + int(binary.BigEndian.Uint16(a[8:]))
			end := len(a) - record.SlotSize
			if len(a) != len(b) {
				t.Fatal("the frames differ in size")
			}
			f[1] = append(append(bytes.Clone(a[:n]), b[n:end]...), a[end:]...)
			s[1] = join(h, f)
		}, "does not open"},
		{"forged-header", func(s [][]byte) {
			h, n, err := record.DecodeSegmentHeader(s[1])
			if err != nil {
				t.Fatal(err)
			}
			h.Created = h.Created.Add(time.Minute)
			b, err := h.Encode()
			if err != nil {
				t.Fatal(err)
			}
			copy(s[1][:n], b)
		}, "does not open"},
		{"duplicate", func(s [][]byte) {
			h, f := frames(s[1])
			s[1] = join(h, slices.Insert(f, 1, bytes.Clone(f[0])))
		}, "should be 6 and is 5"},
		{"cut-between", func(s [][]byte) {
			h, f := frames(s[2])
			s[2] = bytes.Join(append([][]byte{h}, f[:3]...), nil)
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			names, segments := sampleSegments(t)
			test.do(segments)
			dir := filepath.Join("testdata", "samples", test.name)
			for i, name := range names {
				path := filepath.Join(dir, name)
				if *update {
					if err := os.MkdirAll(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, segments[i], 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, segments[i]) {
					t.Errorf("%s is not what is made now (%v)", path, err)
				}
			}
			r := check(t, dir)
			switch {
			case test.want == "" && !r.OK():
				t.Errorf("faults %+v", r.Faults)
			case test.want != "" && (r.OK() || !strings.Contains(r.Faults[0].What, test.want)):
				t.Errorf("faults %+v, want %q", r.Faults, test.want)
			}
		})
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	for _, entry := range entries(t, "testdata/samples/good", record.Query{After: 3}) {
		if err := e.Encode(entry); err != nil {
			t.Fatal(err)
		}
	}
	const golden = "testdata/samples/good.jsonl"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func firstFrame(segment []byte) []byte {
	_, all := frames(segment)
	return all[0]
}
