package storage_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/storage"
)

const passphrase = "correct horse battery"

func TestSealedKeyring(t *testing.T) {
	k := keyring(t, keyringPath(t), true)
	if _, err := k.Rotate(storage.Cookie, start, 0); err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Sealed([]byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range allKeys(k) {
		if bytes.Contains(sealed, key.Bytes()) || bytes.Contains(sealed, []byte(base64.StdEncoding.EncodeToString(key.Bytes()))) || bytes.Contains(sealed, []byte(key.ID)) {
			t.Errorf("%s can be read", key)
		}
	}
	file := filepath.Join(t.TempDir(), "new", "keys.json")
	if _, err := storage.ImportKeyring(file, sealed, []byte("another passphrase")); err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("another passphrase: %v", err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a failed import made something: %v", err)
	}
	again, err := storage.ImportKeyring(file, sealed, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	if !storage.SameKeys(allKeys(k), allKeys(again)) || !storage.SameKeys(allKeys(k), allKeys(keyring(t, file, false))) {
		t.Error("other keys came back")
	}
	// A later ring of the same installation replaces an earlier one, not the reverse.
	if _, err := k.Rotate(storage.Seal, start, 0); err != nil {
		t.Fatal(err)
	}
	later, err := k.Sealed([]byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := storage.ImportKeyring(file, later, []byte(passphrase)); err != nil {
		t.Error(err)
	}
	if _, err := storage.ImportKeyring(file, sealed, []byte(passphrase)); err == nil || !strings.Contains(err.Error(), "lacks key") {
		t.Errorf("an earlier keyring: %v", err)
	}
	if other := keyringPath(t); keyring(t, other, true) != nil {
		if _, err := storage.ImportKeyring(other, sealed, []byte(passphrase)); err == nil || !strings.Contains(err.Error(), "lacks key") {
			t.Errorf("over another installation's keys: %v", err)
		}
	}
	for _, short := range []string{"", "elevenchars"} {
		if _, err := k.Sealed([]byte(short)); err == nil || !strings.Contains(err.Error(), "at least 12") {
			t.Errorf("passphrase %q: %v", short, err)
		}
	}
}

// No byte of the document can be changed.
func TestSealedIsAuthentic(t *testing.T) {
	k := keyring(t, keyringPath(t), true)
	sealed, err := k.Sealed([]byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(map[string]any){
		func(m map[string]any) { m["time"] = 1 },
		func(m map[string]any) { m["memory_kib"] = 1 << 14 },
		func(m map[string]any) { m["threads"] = 1 },
		func(m map[string]any) { m["salt"] = base64.StdEncoding.EncodeToString(make([]byte, 16)) },
		func(m map[string]any) { m["nonce"] = base64.StdEncoding.EncodeToString(make([]byte, 24)) },
		func(m map[string]any) {
			b, _ := base64.StdEncoding.DecodeString(m["sealed"].(string))
			b[len(b)/2] ^= 1
			m["sealed"] = base64.StdEncoding.EncodeToString(b)
		},
	} {
		var m map[string]any
		if err := json.Unmarshal(sealed, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		changed, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := storage.ImportKeyring(keyringPath(t), changed, []byte(passphrase)); err == nil || !strings.Contains(err.Error(), "was changed") {
			t.Errorf("got %v", err)
		}
	}
	for name, change := range map[string]func(map[string]any){
		"sensible":     func(m map[string]any) { m["memory_kib"] = 1 << 30 },
		"wrong length": func(m map[string]any) { m["salt"] = "" },
		"version 2":    func(m map[string]any) { m["version"] = 2 },
		"not know":     func(m map[string]any) { m["cipher"] = "rot13" },
		"torn":         func(m map[string]any) { m["more"] = 1 },
	} {
		var m map[string]any
		if err := json.Unmarshal(sealed, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		changed, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := storage.ImportKeyring(keyringPath(t), changed, []byte(passphrase)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want it to say %q", err, name)
		}
	}
}

func TestCreateKeyring(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k, err := storage.CreateKeyring(dir)
	if err != nil || len(allKeys(k)) != len(purposes) {
		t.Fatal(err)
	}
	if _, err := storage.CreateKeyring(dir); err == nil || !strings.Contains(err.Error(), "keys.json in") {
		t.Errorf("over a keyring: %v", err)
	}
	other := t.TempDir()
	closeDB(t, open(t, other))
	if _, err := storage.CreateKeyring(other); err == nil || !strings.Contains(err.Error(), "kidoban.db in") {
		t.Errorf("beside a database: %v", err)
	}
}

// What parses is bounded and comes back equal.
func FuzzParseSealed(f *testing.F) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, n)) }
	f.Add([]byte(`{"format":"kidoban-keyring","version":1,"kdf":"argon2id","time":3,"memory_kib":65536,"threads":4,"salt":"` + b64(16) +
		`","cipher":"xchacha20poly1305","nonce":"` + b64(24) + `","sealed":"` + b64(100) + `"}`))
	f.Add([]byte(`{"format":"kidoban-keyring"}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		memory, text, err := storage.ParseSealed(data)
		if err != nil {
			return
		}
		if memory > 1<<20 {
			t.Errorf("%d KiB to open it", memory)
		}
		if _, again, err := storage.ParseSealed(text); err != nil || !bytes.Equal(text, again) {
			t.Errorf("%s\ncomes back as\n%s\n%v", text, again, err)
		}
	})
}
