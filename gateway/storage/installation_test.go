package storage_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

func TestKeyringOfTheInstallation(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	k, err := db.OpenKeyring(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "keys.json")
	if again, err := db.OpenKeyring(t.Context()); err != nil || !storage.SameKeys(allKeys(k), allKeys(again)) {
		t.Errorf("opening twice: %v", err)
	}
	closeDB(t, db)
	if db = open(t, dir); db.Fresh() {
		t.Error("a database that was used with keys is fresh")
	}
	earlier, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	now := start
	k.SetClock(func() time.Time { return now })
	if _, err := k.Rotate(storage.Cookie, now, storage.RotationGrace); err != nil {
		t.Fatal(err)
	}
	if err := db.CheckKeyring(t.Context(), k); err != nil {
		t.Errorf("a key that is new: %v", err)
	}
	stale := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(stale, earlier, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := db.CheckKeyring(t.Context(), keyring(t, stale, false)); err == nil || !strings.Contains(err.Error(), "lacks keys that another node has") {
		t.Errorf("a keyring from before the rotation: %v", err)
	}
	if err := db.CheckKeyring(t.Context(), keyring(t, keyringPath(t), true)); err == nil || !strings.Contains(err.Error(), "another installation") {
		t.Errorf("another keyring: %v", err)
	}
	// One with an id of ours and another secret.
	text := keyringText(t, func(_ map[string]any, keys []any) { keys[0].(map[string]any)["id"] = k.Current(storage.Seal).ID })
	forged := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(forged, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := db.CheckKeyring(t.Context(), keyring(t, forged, false)); err == nil || !strings.Contains(err.Error(), "another secret") {
		t.Errorf("a forged key: %v", err)
	}
	// Without its keyring nothing is made.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := db.OpenKeyring(t.Context()); err == nil || !strings.Contains(err.Error(), "restore it from the backup") {
		t.Errorf("without the file: %v", err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a keyring was made: %v", err)
	}
}

// A key that nothing needs any more leaves the keyring and then the database.
func TestKeyringPruned(t *testing.T) {
	db := open(t, t.TempDir())
	k, err := db.OpenKeyring(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now := start
	k.SetClock(func() time.Time { return now })
	count := func() (n int) {
		t.Helper()
		if err := db.CheckKeyring(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if err := db.SQL().QueryRow(`SELECT COUNT(*) FROM storage_keys`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, want := range []int{6, 6} { // the second prunes one
		if _, err := k.Rotate(storage.Cookie, now, 0); err != nil {
			t.Fatal(err)
		}
		if got := count(); got != want {
			t.Errorf("%d keys, want %d", got, want)
		}
		now = now.Add(storage.NameOverlap)
	}
}

// Nodes that start at once on a new database end with one keyring.
func TestKeyringOfManyNodes(t *testing.T) {
	address := storagetest.Postgres(t)
	dbs := []*storage.DB{node(t, address), node(t, address), node(t, address)}
	errs := make([]error, len(dbs))
	var wg sync.WaitGroup
	for i, db := range dbs {
		wg.Go(func() { _, errs[i] = db.OpenKeyring(t.Context()) })
	}
	wg.Wait()
	good := 0
	for _, err := range errs {
		if err == nil {
			good++
		} else if !strings.Contains(err.Error(), "copy it from another node") {
			t.Errorf("got %v", err)
		}
	}
	if good != 1 {
		t.Errorf("%d nodes made a keyring, want 1", good)
	}
}
