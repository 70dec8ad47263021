package storage_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage"
)

func TestBox(t *testing.T) {
	file := keyringPath(t)
	k := keyring(t, file, true)
	seal, open := k.Box("factor")
	must := func(sealed []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	opens := func(name string, open func(_, _ []byte) ([]byte, error), sealed []byte, want string) {
		t.Helper()
		if text, err := open(sealed, []byte("hanako")); err != nil || string(text) != want {
			t.Errorf("%s: opens as %q, %v, want %q", name, text, err, want)
		}
	}
	refuses := func(name string, open func(_, _ []byte) ([]byte, error), sealed []byte, associated, want string) {
		t.Helper()
		if text, err := open(sealed, []byte(associated)); text != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: opens as %q, %v, want an error with %q", name, text, err, want)
		}
	}
	const secret = "the seed of an authenticator"
	sealed := must(seal([]byte(secret), []byte("hanako")))
	if again := must(seal([]byte(secret), []byte("hanako"))); bytes.Equal(sealed, again) {
		t.Error("sealing twice gives the same bytes")
	}
	if bytes.Contains(sealed, []byte("seed")) {
		t.Error("the text can be read")
	}
	opens("as sealed", open, sealed, secret)
	opens("nothing", open, must(seal(nil, []byte("hanako"))), "")

	_, elsewhere := k.Box("answer")
	refuses("another label", elsewhere, sealed, "hanako", "belongs elsewhere")
	refuses("another owner", open, sealed, "taro", "belongs elsewhere")
	refuses("no owner", open, sealed, "", "belongs elsewhere")
	// The end of what we authenticate is not the start of what the caller does.
	head := sealed[:2+len(k.Current(storage.Seal).ID)]
	refuses("our head as the owner's", open, sealed, string(head)+"hanako", "belongs elsewhere")

	for n := range sealed {
		if text, err := open(sealed[:n], []byte("hanako")); text != nil || err == nil || strings.Contains(err.Error(), "seed") {
			t.Errorf("%d of %d bytes: %q, %v", n, len(sealed), text, err)
		}
	}
	refuses("more bytes", open, append(bytes.Clone(sealed), 0), "hanako", "belongs elsewhere")
	for i := range sealed {
		for bit := range 8 {
			flipped := bytes.Clone(sealed)
			flipped[i] ^= 1 << bit
			if text, err := open(flipped, []byte("hanako")); text != nil || err == nil {
				t.Errorf("bit %d of byte %d flipped: %q, %v", bit, i, text, err)
			}
		}
	}
	refuses("a later version", open, append([]byte{2}, sealed[1:]...), "hanako", "of version 2 and this program knows version 1")
	refuses("no key", open, append([]byte{1, 0}, sealed[2:]...), "hanako", "names no key")
	refuses("an id that is too long", open, append([]byte{1, 65}, bytes.Repeat([]byte("x"), 200)...), "hanako", "names no key")

	opens("after a restart", second(keyring(t, file, false).Box("factor")), sealed, secret)
	other := keyring(t, keyringPath(t), true)
	refuses("another installation", second(other.Box("factor")), sealed, "hanako", fmt.Sprintf("no key %q for seal", k.Current(storage.Seal).ID))
}

// The id of the key is authenticated, also where two keys have one secret.
func TestBoxTiesTheKeysID(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(keyringText(t, more("seal", "2026-04-07T09:00:00Z", "2026-04-08T09:00:00Z"))), 0o600); err != nil {
		t.Fatal(err)
	}
	seal, open := keyring(t, file, false).Box("factor")
	sealed, err := seal([]byte("seed"), nil)
	if err != nil {
		t.Fatal(err)
	}
	renamed := bytes.Replace(sealed, []byte("extra-1"), []byte("extra-0"), 1)
	if text, err := open(renamed, nil); bytes.Equal(renamed, sealed) || err == nil || !strings.Contains(err.Error(), "belongs elsewhere") {
		t.Errorf("under another id: %q, %v", text, err)
	}
}

// second is the open end of a box.
func second(_, open func(_, _ []byte) ([]byte, error)) func(_, _ []byte) ([]byte, error) {
	return open
}

// Of two nodes one rotates: what either seals opens on both, once the file is there.
func TestBoxRotates(t *testing.T) {
	now := start
	clock := func() time.Time { return now }
	file := keyringPath(t)
	one := keyring(t, file, true)
	there := copyKeyring(t, file)
	two := keyring(t, there, false)
	one.SetClock(clock)
	two.SetClock(clock)
	seal1, open1 := one.Box("factor")
	seal2, open2 := two.Box("factor")
	var all [][]byte
	step := func(seal func(_, _ []byte) ([]byte, error), key storage.Key) {
		t.Helper()
		sealed, err := seal([]byte("seed"), nil)
		if err != nil || !bytes.Contains(sealed[:2+len(key.ID)], []byte(key.ID)) {
			t.Errorf("sealed as % x, %v, want with key %s", sealed, err, key.ID)
		}
		all = append(all, sealed)
	}
	first := one.Current(storage.Seal)
	step(seal1, first)
	made, err := one.Rotate(storage.Seal, now, storage.RotationGrace)
	if err != nil {
		t.Fatal(err)
	}
	step(seal1, first) // the new key waits
	step(seal2, first)
	now = now.Add(storage.RotationGrace)
	step(seal1, made)
	step(seal2, first) // it did not get the file yet
	if text, err := open2(all[3], nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("no key %q for seal", made.ID)) {
		t.Errorf("without the new key: %q, %v, want an error with its id", text, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(there, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := two.Reload(); err != nil {
		t.Fatal(err)
	}
	step(seal2, made)
	now = now.Add(5 * 365 * day) // what was sealed is kept for as long as it takes
	for i, sealed := range all {
		for name, open := range map[string]func(_, _ []byte) ([]byte, error){"one": open1, "two": open2} {
			if text, err := open(sealed, nil); err != nil || string(text) != "seed" {
				t.Errorf("%d on node %s: %q, %v", i, name, text, err)
			}
		}
	}
}

func TestBoxAtOnce(t *testing.T) {
	k := keyring(t, keyringPath(t), true)
	seal, open := k.Box("factor")
	var wg sync.WaitGroup
	for i := range 4 {
		associated := []byte(fmt.Sprint("hanako ", i))
		wg.Go(func() {
			for n := range 200 {
				want := fmt.Sprint("seed ", i, n)
				sealed, err := seal([]byte(want), associated)
				if err != nil {
					t.Error(err)
					return
				}
				if text, err := open(sealed, associated); err != nil || string(text) != want {
					t.Errorf("opens as %q, %v, want %q", text, err, want)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for range 10 {
			if _, err := k.Rotate(storage.Seal, start, 0); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

// Nothing but what was sealed opens, whatever the bytes are.
func FuzzBoxOpen(f *testing.F) {
	k := keyring(f, keyringPath(f), true)
	seal, open := k.Box("factor")
	sealed, err := seal([]byte("seed"), []byte("hanako"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, []byte("hanako"))
	f.Add(sealed, []byte("taro"))
	f.Add(sealed[:len(sealed)-1], []byte("hanako"))
	f.Add(append([]byte{2}, sealed[1:]...), []byte("hanako"))
	f.Add(append([]byte{1, 64}, sealed[2:]...), []byte{})
	f.Add([]byte{1, 0}, []byte{})
	f.Fuzz(func(t *testing.T, data, associated []byte) {
		text, err := open(data, associated)
		if genuine := bytes.Equal(data, sealed) && string(associated) == "hanako"; genuine != (err == nil) || (text != nil) != genuine {
			t.Errorf("% x for %q opens as %q, %v", data, associated, text, err)
		}
	})
}

func BenchmarkBox(b *testing.B) {
	k := keyring(b, keyringPath(b), true)
	for range 10 {
		if _, err := k.Rotate(storage.Seal, start, 0); err != nil {
			b.Fatal(err)
		}
	}
	seal, open := k.Box("factor")
	text, associated := make([]byte, 20), []byte("01J9Z3N4X5/acct-7")
	sealed, err := seal(text, associated)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := seal(text, associated); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := open(sealed, associated); err != nil {
				b.Fatal(err)
			}
		}
	})
}
