package stream

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestStatusJSON keeps the names that operators' tools know.
func TestStatusJSON(t *testing.T) {
	st := Status{
		Nodes: 2, Peers: []Peer{{Node: "b", Incarnation: 7, Alive: true, Beat: noon, Behind: 3, Lag: 1500 * time.Millisecond, ClockAhead: -250 * time.Millisecond}},
		Degraded: true, DegradedSince: noon, Reason: "dial tcp: refused", Conflict: true, Spooled: 4, GapsOpen: 5, Received: 6, Repaired: 7,
		Duplicates: 8, Lost: 9, Skipped: 10, Unsent: 11, Clamped: 12, Unknown: 13, Malformed: 14, Rewinds: 15,
		Journal: JournalStatus{Bytes: 16, Memory: 17, Error: "no space left on device", Since: noon, Unkept: 18, BytesCut: 19, Damaged: 20},
	}
	got, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", "status.golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
