package stream

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kidoban/kidoban/detectors"
)

func spooled(t *testing.T, dir string) (sequences []uint64, c SpoolCounts) {
	t.Helper()
	c, err := ReadSpool(t.Context(), dir, func(e detectors.Event) error {
		sequences = append(sequences, e.Key.Sequence)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sequences, c
}

// A journal is read while it is written, leaves no trace, and gives each event once,
// also where a segment is there twice.
func TestReadSpool(t *testing.T) {
	dir := t.TempDir()
	w := newWorld()
	n := w.add(t, "a", dir, nil)
	for range 30 {
		n.publish()
	}
	path := files(t, dir)[0]
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sequences, c := spooled(t, dir)
	if len(sequences) != 30 || sequences[0] != 1 || sequences[29] != 30 || c != (SpoolCounts{}) {
		t.Errorf("got %v, %+v", sequences, c)
	}
	n.crash()
	if err := os.WriteFile(filepath.Join(dir, "0000000000000099"+segmentSuffix), before, 0o600); err != nil {
		t.Fatal(err)
	}
	if again, _ := spooled(t, dir); len(again) != 30 {
		t.Errorf("%d events of a segment that is there twice", len(again))
	}

	// Half a frame at the end, and a bad byte before it.
	torn := t.TempDir()
	bad := append([]byte(nil), before[:len(before)-3]...)
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(filepath.Join(torn, filepath.Base(path)), bad, 0o600); err != nil {
		t.Fatal(err)
	}
	sequences, c = spooled(t, torn)
	if len(sequences) != 28 || c.Damaged != 1 || c.Tail == 0 {
		t.Errorf("of a torn journal %d events, %+v; want 28", len(sequences), c)
	}
	if after, err := os.ReadFile(filepath.Join(torn, filepath.Base(path))); err != nil || len(after) != len(bad) {
		t.Errorf("reading changed the file: %v", err)
	}

	stop := errors.New("stop")
	if _, err := ReadSpool(t.Context(), torn, func(detectors.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want what the caller said", err)
	}
	if _, err := ReadSpool(t.Context(), filepath.Join(dir, "nowhere"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v for a directory that is not there", err)
	}
}
