package snapshot_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

func write(t testing.TB, kind string, header []byte, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := snapshot.NewWriter(&b, kind, header)
	for i, f := range frames {
		if err := w.Frame(byte(snapshot.FirstTag+i%8), f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(r io.Reader, kind string) (header []byte, frames [][]byte, err error) {
	s, header, err := snapshot.NewReader(r, kind)
	if err != nil {
		return nil, nil, err
	}
	for {
		_, b, err := s.Next()
		if err == io.EOF {
			return header, frames, nil
		}
		if err != nil {
			return nil, nil, err
		}
		frames = append(frames, bytes.Clone(b))
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	frames := [][]byte{{}, []byte("one"), bytes.Repeat([]byte("x"), snapshot.MaxFrame)}
	file := append(write(t, "a/1", []byte(`{"node":1}`), frames...), write(t, "b/1", nil)...)
	r := bytes.NewReader(append(file, "rest"...))
	header, got, err := read(r, "a/1")
	if err != nil || string(header) != `{"node":1}` || len(got) != 3 || !bytes.Equal(got[2], frames[2]) {
		t.Fatalf("got %q, %d frames, %v", header, len(got), err)
	}
	if header, got, err := read(r, "b/1"); err != nil || len(header) != 0 || len(got) != 0 {
		t.Errorf("second: got %q, %d frames, %v", header, len(got), err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("left over: %q", rest)
	}
}

func TestWrongSnapshotsAreRefused(t *testing.T) {
	good := write(t, "a/1", []byte("header"), []byte("one"), []byte("two"), []byte("two"))
	if _, _, err := read(bytes.NewReader(good), "a/2"); !errors.Is(err, snapshot.ErrWrong) {
		t.Errorf("another kind: got %v", err)
	}
	for i := range good {
		if _, _, err := read(bytes.NewReader(good[:i]), "a/1"); !errors.Is(err, snapshot.ErrWrong) {
			t.Errorf("cut at %d: got %v", i, err)
		}
		bad := bytes.Clone(good)
		bad[i] ^= 4
		if _, _, err := read(bytes.NewReader(bad), "a/1"); !errors.Is(err, snapshot.ErrWrong) {
			t.Errorf("changed at %d: got %v", i, err)
		}
	}
	const frame = 5 + 3 + 4
	end := len(good) - 9
	swapped := append(append(append(bytes.Clone(good[:end-3*frame]), good[end-2*frame:end-frame]...), good[end-3*frame:end-2*frame]...), good[end-frame:]...)
	if _, _, err := read(bytes.NewReader(swapped), "a/1"); !errors.Is(err, snapshot.ErrWrong) {
		t.Errorf("swapped: got %v", err)
	}
	failed := errors.New("disk")
	if _, _, err := read(io.MultiReader(bytes.NewReader(good[:40]), broken{failed}), "a/1"); !errors.Is(err, failed) || errors.Is(err, snapshot.ErrWrong) {
		t.Errorf("read error: got %v", err)
	}
}

type broken struct{ error }

func (b broken) Read([]byte) (int, error) { return 0, b.error }

func TestWriterBounds(t *testing.T) {
	for name, write := range map[string]func(*snapshot.Writer) error{
		"too long":  func(w *snapshot.Writer) error { return w.Frame(snapshot.FirstTag, make([]byte, snapshot.MaxFrame+1)) },
		"a low tag": func(w *snapshot.Writer) error { return w.Frame(2, nil) },
	} {
		w := snapshot.NewWriter(io.Discard, "a/1", nil)
		if write(w) == nil || w.Close() == nil {
			t.Errorf("%s: want an error, and no end after it", name)
		}
	}
	if snapshot.NewWriter(io.Discard, "", nil).Close() == nil {
		t.Error("no kind: want an error")
	}
}

func FuzzReader(f *testing.F) {
	f.Add(write(f, "a/1", []byte("header"), []byte("one"), []byte("two")))
	f.Fuzz(func(t *testing.T, b []byte) {
		header, frames, err := read(bytes.NewReader(b), "a/1")
		if err != nil {
			return
		}
		if len(header) > len(b) || len(frames) > len(b) {
			t.Errorf("%d bytes gave %d frames", len(b), len(frames))
		}
	})
}

func TestAnyFramesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frames := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 0, 10).Draw(t, "frames")
		var b bytes.Buffer
		w := snapshot.NewWriter(&b, "k", nil)
		for _, f := range frames {
			_ = w.Frame(snapshot.FirstTag, f)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, got, err := read(&b, "k")
		if err != nil || len(got) != len(frames) {
			t.Fatalf("%d frames, %v; want %d", len(got), err, len(frames))
		}
		for i := range got {
			if !bytes.Equal(got[i], frames[i]) {
				t.Fatalf("frame %d differs", i)
			}
		}
	})
}
