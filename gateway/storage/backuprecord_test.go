package storage_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
)

// A record that is written on is saved up to some entry. The copy goes on behind a
// gap, since the entries after that one have the next numbers.
func TestBackupRecord(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ring, err := db.OpenKeyring(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys := func() (all []record.Key) {
		for _, k := range ring.All(storage.Seal) {
			all = append(all, record.Key{ID: k.ID, Secret: k.Bytes})
		}
		return all
	}
	config := record.Config{Node: "gate-1", Keys: keys, Reserve: 1 << 20, SegmentBytes: 8 << 10}
	l, err := record.Open(filepath.Join(dir, "record"), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last atomic.Uint64
	some, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			id, err := l.Append(context.Background(), record.Draft{Kind: "login.success", Body: "body"})
			if err != nil {
				t.Error(err)
				cancel()
			}
			if last.Store(id.Sequence); id.Sequence == 50 {
				close(some)
			}
		}
	}()
	select {
	case <-some:
	case <-done:
		t.FailNow()
	}
	before := last.Load()
	backup := filepath.Join(t.TempDir(), "b")
	result, err := storage.Backup(t.Context(), quiet(dir), backup, []byte(passphrase), start)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	after := last.Load()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	if slices.ContainsFunc(result.Files, func(name string) bool {
		return strings.HasPrefix(name, "record/") && !strings.HasSuffix(name, ".seg")
	}) {
		t.Errorf("saved %v", result.Files)
	}

	again := filepath.Join(t.TempDir(), "new")
	if _, err := storage.Restore(t.Context(), backup, again, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(again, "record")
	saved, err := record.Last(path)
	if err != nil || saved < before || saved > after {
		t.Fatalf("saved up to %d, %v, want %d to %d", saved, err, before, after)
	}
	if l, err = record.Open(path, config); err != nil {
		t.Fatal(err)
	}
	id, err := l.Append(t.Context(), record.Draft{Kind: "login.success", Body: "body"})
	if err != nil || id.Sequence <= after {
		t.Errorf("goes on with %v, %v after %d", id, err, after)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	r, err := record.Check(t.Context(), path, keys, record.Contents)
	if err != nil || !r.OK() || len(r.Gaps) != 1 || r.Sealed > 0 || r.Last != id.Sequence {
		t.Errorf("report %+v, %v", r, err)
	}
	t.Logf("entry %d was written when the backup began, %d when it had ended, and it has %d", before, after, saved)
}

// What cannot be marked as a copy is restored all the same, and the error says what to do.
func TestRestoreDamagedRecord(t *testing.T) {
	dir, backup, again := t.TempDir(), filepath.Join(t.TempDir(), "b"), filepath.Join(t.TempDir(), "new")
	closeDB(t, open(t, dir))
	if err := os.Mkdir(filepath.Join(dir, "record"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "record", "00000000000000000001.seg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Backup(t.Context(), quiet(dir), backup, nil, start); err != nil {
		t.Fatal(err)
	}
	names, err := storage.Restore(t.Context(), backup, again, nil)
	if err == nil || !strings.Contains(err.Error(), "--repair-tail "+filepath.Join(again, "record")) || len(names) != 2 {
		t.Errorf("got %v, %v", names, err)
	}
	if _, err := record.RepairTail(filepath.Join(again, "record")); err != nil {
		t.Error(err)
	}
	closeDB(t, open(t, again))
}
