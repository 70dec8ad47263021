package storage_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/gateway/storage"
)

const day = 24 * time.Hour

// copyKeyring is a node that got the file of another.
func copyKeyring(t testing.TB, from string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// A new key is known on every node before anybody uses it.
func TestRotationInTwoSteps(t *testing.T) {
	now := start
	clock := func() time.Time { return now }
	file := keyringPath(t)
	one := keyring(t, file, true)
	two := keyring(t, copyKeyring(t, file), false)
	one.SetClock(clock)
	two.SetClock(clock)
	old := one.Current(storage.Cookie)

	made, err := one.Rotate(storage.Cookie, now, storage.RotationGrace)
	if err != nil {
		t.Fatal(err)
	}
	if !made.Activates.Equal(start.Add(10*time.Minute)) || one.Current(storage.Cookie).ID != old.ID || len(one.All(storage.Cookie)) != 2 {
		t.Errorf("made %v for %v, current %v, %d known", made, made.Activates, one.Current(storage.Cookie), len(one.All(storage.Cookie)))
	}
	if _, err := one.Rotate(storage.Cookie, now.Add(time.Minute), 0); err == nil || !strings.Contains(err.Error(), "waits to become current at 2026-04-06T09:10:00Z") {
		t.Errorf("a second rotation: %v", err)
	}
	if _, err := one.Rotate(storage.Seal, now, 0); err != nil { // another purpose waits for nothing
		t.Error(err)
	}
	// The file reaches the other node in time.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(k string, data []byte) {
		if err := os.WriteFile(k, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replace(keyringFileOf(two), data)
	if err := two.Reload(); err != nil {
		t.Fatal(err)
	}
	if !storage.SameKeys(allKeys(one), allKeys(two)) {
		t.Error("the nodes have different keys")
	}
	now = now.Add(10*time.Minute - time.Nanosecond)
	if one.Current(storage.Cookie).ID != old.ID {
		t.Error("early")
	}
	now = now.Add(time.Nanosecond)
	for _, k := range []*storage.Keyring{one, two} {
		current, all := k.Cookies()
		if k.Current(storage.Cookie).ID != made.ID || !bytes.Equal(current, made.Bytes()) || len(all) != 2 || !bytes.Equal(all[1], old.Bytes()) {
			t.Error("the new key is not in force, or the old one is lost")
		}
		if got := k.All(storage.Cookie)[1].Retired; !got.Equal(now) {
			t.Errorf("the old key retired at %v", got)
		}
	}
	if _, err := one.Rotate(storage.Cookie, now, 0); err != nil {
		t.Error(err)
	}
}

func keyringFileOf(k *storage.Keyring) string { return storage.KeyringFile(k) }

// Two processes that rotate at once lose no key.
func TestRotateByManyProcesses(t *testing.T) {
	file := keyringPath(t)
	before := allKeys(keyring(t, file, true))
	var wg sync.WaitGroup
	for range 4 {
		k := keyring(t, file, false) // as another process has it
		wg.Go(func() {
			for range 5 {
				if _, err := k.Rotate(storage.Seal, start, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	k := keyring(t, file, false)
	if got := len(k.All(storage.Seal)); got != 21 {
		t.Errorf("%d keys, want 21", got)
	}
	for _, b := range before {
		if !slices.ContainsFunc(allKeys(k), func(k storage.Key) bool { return k.ID == b.ID }) {
			t.Errorf("%s is lost", b)
		}
	}
}

func TestKeyringLockIsBounded(t *testing.T) {
	file := keyringPath(t)
	k := keyring(t, file, true)
	lock, err := os.OpenFile(file+".lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	defer storage.SetKeyringWait(50 * time.Millisecond)()
	if _, err := k.Rotate(storage.Seal, start, 0); err == nil || !strings.Contains(err.Error(), "another process has held") {
		t.Errorf("got %v", err)
	}
}

func TestReloadRefuses(t *testing.T) {
	now := start
	file := keyringPath(t)
	k := keyring(t, file, true)
	k.SetClock(func() time.Time { return now })
	first := k.Current(storage.Cookie)
	if _, err := k.Rotate(storage.Cookie, now, 0); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := allKeys(k)
	elsewhere := keyringPath(t)
	keyring(t, elsewhere, true)
	foreign, err := os.ReadFile(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	without := slices.DeleteFunc(allKeys(k), func(k storage.Key) bool { return k.ID == first.ID })
	pruned := filepath.Join(t.TempDir(), "keys.json")
	if err := storage.WriteKeyring(pruned, without); err != nil {
		t.Fatal(err)
	}
	less, err := os.ReadFile(pruned)
	if err != nil {
		t.Fatal(err)
	}
	swapped := strings.Replace(string(good), `"id": "`+first.ID, `"id": "`+"another!", 1)
	for _, test := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"torn", string(good[:len(good)/2]), 0o600, "restore it from the backup"},
		{"empty", "", 0o600, "restore it from the backup"},
		{"of another installation", string(foreign), 0o600, "lacks key"},
		{"without an old key", string(less), 0o600, "lacks key " + first.ID + " for cookie"},
		{"with a renamed key", swapped, 0o600, "lacks key " + first.ID},
		{"readable by others", string(good), 0o644, "chmod 600"},
	} {
		if err := errors.Join(os.WriteFile(file, []byte(test.text), 0o600), os.Chmod(file, test.mode)); err != nil {
			t.Fatal(err)
		}
		if err := k.Reload(); err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "the keys in use stay") {
			t.Errorf("%s: got %v", test.name, err)
		}
		if !storage.SameKeys(before, allKeys(k)) {
			t.Errorf("%s: the keys changed", test.name)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(); err == nil || !storage.SameKeys(before, allKeys(k)) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(); err != nil || !storage.SameKeys(before, allKeys(k)) {
		t.Errorf("the same again: %v", err)
	}
	// After its overlap an old key may go, and not an hour before.
	if err := os.WriteFile(file, less, 0o600); err != nil {
		t.Fatal(err)
	}
	now = start.Add(storage.NameOverlap - time.Hour)
	if err := k.Reload(); err == nil {
		t.Error("an old key went an hour early")
	}
	now = start.Add(storage.NameOverlap)
	if err := k.Reload(); err != nil || len(k.All(storage.Cookie)) != 1 {
		t.Errorf("after its overlap: %v, %d keys", err, len(k.All(storage.Cookie)))
	}
}

func TestDigestsOverlap(t *testing.T) {
	now := start
	k := keyring(t, keyringPath(t), true)
	k.SetClock(func() time.Time { return now })
	want := [][16]byte{k.Digest("name", "hanako")}
	password := k.Digest("password", "hanako")
	rotate := func() {
		t.Helper()
		if _, err := k.Rotate(storage.Digest, now, time.Hour); err != nil {
			t.Fatal(err)
		}
		if k.Digest("name", "hanako") != want[0] || !slices.Equal(k.Digests("name", "hanako"), want) {
			t.Error("a key is in use before its time")
		}
		now = now.Add(time.Hour)
		want = slices.Insert(want, 0, k.Digest("name", "hanako"))
		if got := k.Digests("name", "hanako"); !slices.Equal(got, want) {
			t.Errorf("%d digests, want %d, the current first", len(got), len(want))
		}
		if len(k.Digests("name", "nobody at all")) != len(want) {
			t.Error("another name has another number of digests")
		}
	}
	rotate()
	if all := k.Digests("password", "hanako"); len(all) != 2 || all[1] != password {
		t.Error("a password is not known by its old digest")
	}
	now = now.Add(storage.DigestOverlap)
	if all := k.Digests("password", "hanako"); len(all) != 1 {
		t.Errorf("after %v a password has %d digests", storage.DigestOverlap, len(all))
	}
	if got := k.Digests("name", "hanako"); !slices.Equal(got, want) {
		t.Error("after that a name is forgotten")
	}
	for range storage.DigestKeysMax - 2 {
		now = now.Add(30 * day)
		rotate()
	}
	_, err := k.Rotate(storage.Digest, now, 0)
	if err == nil || !strings.Contains(err.Error(), "want at most 5") || !strings.Contains(err.Error(), "needed until 2027-05-11T10:00:00Z") {
		t.Errorf("a sixth key: %v", err)
	}
	now = start.Add(time.Hour + storage.NameOverlap) // the first two retired 400 and 385 days ago
	want = want[:len(want)-1]
	if got := k.Digests("name", "hanako"); !slices.Equal(got, want) {
		t.Errorf("%d digests, want %d", len(got), len(want))
	}
	rotate() // the first is pruned
	if got := len(k.All(storage.Digest)); got != 5 {
		t.Errorf("%d keys, want 5", got)
	}
}

// Whatever is rotated, copied and reloaded when: what any node made, every node
// that got the file in time opens.
func TestKeyringModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "keyring")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		now := start
		clock := func() time.Time { return now }
		files := []string{filepath.Join(dir, "one"), filepath.Join(dir, "two")}
		rings := make([]*storage.Keyring, 2)
		for i, file := range files {
			if i > 0 {
				data, err := os.ReadFile(files[0])
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if rings[i], err = storage.OpenKeyring(file, true); err != nil {
				t.Fatal(err)
			}
			rings[i].SetClock(clock)
		}
		type made struct {
			digest [16]byte
			at     time.Time // when it was made last
		}
		var things []made
		copied := true
		t.Repeat(map[string]func(*rapid.T){
			"rotate": func(t *rapid.T) {
				if _, err := rings[0].Rotate(storage.Digest, now, storage.RotationGrace); err == nil {
					copied = false
				}
			},
			"copy": func(t *rapid.T) {
				data, err := os.ReadFile(files[0])
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(files[1], data, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := rings[1].Reload(); err != nil {
					t.Fatal(err)
				}
				copied = true
			},
			"make": func(t *rapid.T) {
				things = append(things, made{rings[rapid.IntRange(0, 1).Draw(t, "node")].Digest("name", "hanako"), now})
			},
			"wait": func(t *rapid.T) {
				d := time.Duration(rapid.IntRange(0, int(90*day/time.Second)).Draw(t, "seconds")) * time.Second
				if !copied { // the operator keeps to the order of operations
					d = min(d, storage.RotationGrace/20)
				}
				now = now.Add(d)
				for i, r := range rings {
					if err := r.Reload(); err != nil {
						t.Fatalf("node %d: %v", i, err)
					}
				}
			},
			"": func(t *rapid.T) {
				for i, r := range rings {
					all := r.Digests("name", "hanako")
					if all[0] != r.Digest("name", "hanako") || len(all) > storage.DigestKeysMax {
						t.Fatalf("node %d: %d digests, or the first is not the current", i, len(all))
					}
					for _, m := range things {
						if now.Sub(m.at) < storage.NameOverlap && copied && !slices.Contains(all, m.digest) {
							t.Fatalf("node %d does not know a digest made %v ago", i, now.Sub(m.at))
						}
					}
				}
			},
		})
	})
}
