package storage_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kidoban/kidoban/gateway/storage"
)

func keyringPath(t testing.TB) string { return filepath.Join(t.TempDir(), "data", "keys.json") }

func keyring(t testing.TB, file string, create bool) *storage.Keyring {
	t.Helper()
	k, err := storage.OpenKeyring(file, create)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var purposes = []storage.Purpose{storage.Seal, storage.Cookie, storage.Digest, storage.Assertion, storage.Checkpoint}

// allKeys is the whole ring.
func allKeys(k *storage.Keyring) (all []storage.Key) {
	for _, p := range purposes {
		all = append(all, k.All(p)...)
	}
	return all
}

func TestKeyringCreateAndReopen(t *testing.T) {
	file := keyringPath(t)
	made := keyring(t, file, true)
	for path, want := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want mode %04o", path, info, err, want)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 2 {
		t.Errorf("%d files, %v, want the keyring and its lock", len(entries), err)
	}
	seen := make(map[string]bool)
	for _, k := range allKeys(made) {
		if len(k.Bytes()) != 32 || !k.Activates.IsZero() || !k.Retired.IsZero() || k.ID == "" || k.Created.IsZero() || seen[string(k.Bytes())] || seen[k.ID] {
			t.Errorf("%v: %d bytes, activates %v, retired %v, created %v, or taken", k, len(k.Bytes()), k.Activates, k.Retired, k.Created)
		}
		seen[string(k.Bytes())], seen[k.ID] = true, true
	}
	for _, create := range []bool{false, true} { // create does not replace
		again := keyring(t, file, create)
		if !storage.SameKeys(allKeys(made), allKeys(again)) {
			t.Error("other keys after reopening")
		}
		if made.Digest("name", "hanako") != again.Digest("name", "hanako") {
			t.Error("another digest after reopening")
		}
	}
	if elsewhere := keyring(t, keyringPath(t), true); elsewhere.Digest("name", "hanako") == made.Digest("name", "hanako") {
		t.Error("two keyrings give one digest")
	}
}

func TestDigestLabels(t *testing.T) {
	k := keyring(t, keyringPath(t), true)
	seen := make(map[[16]byte]string)
	for _, in := range [][2]string{{"name", "hanako"}, {"password", "hanako"}, {"name", "hanako "}, {"nam", "ehanako"}, {"", "namehanako"}, {"name", ""}, {"", "name"}} {
		d := k.Digest(in[0], in[1])
		if other, taken := seen[d]; taken {
			t.Errorf("%q and %q have one digest", in, other)
		}
		seen[d] = fmt.Sprintf("%q", in)
		if k.Digest(in[0], in[1]) != d {
			t.Errorf("%q has two digests", in)
		}
	}
}

func TestKeyringRotate(t *testing.T) {
	for _, p := range purposes {
		t.Run(string(p), func(t *testing.T) {
			file := keyringPath(t)
			k := keyring(t, file, true)
			first, digest := k.Current(p), k.Digest("name", "hanako")
			others := slices.DeleteFunc(allKeys(k), func(k storage.Key) bool { return k.Purpose == p })
			var ids []string
			for range 3 {
				made, err := k.Rotate(p, start, 0)
				if err != nil {
					t.Fatal(err)
				}
				if made.Purpose != p || !made.Created.Equal(start) || slices.Contains(ids, made.ID) {
					t.Errorf("made %+v", made)
				}
				ids = append(ids, made.ID)
			}
			if got := k.Digest("name", "hanako") != digest; got != (p == storage.Digest) {
				t.Errorf("digests changed: %v", got)
			}
			for _, ring := range []*storage.Keyring{k, keyring(t, file, false)} {
				all := ring.All(p)
				if len(all) != 4 || all[0].ID != ids[2] || !all[0].Retired.IsZero() || ring.Current(p).ID != ids[2] {
					t.Fatalf("got %v, want four with %s first", all, ids[2])
				}
				if !slices.ContainsFunc(all[1:], func(k storage.Key) bool {
					return k.Retired.Equal(start) && k.ID == first.ID && bytes.Equal(k.Bytes(), first.Bytes())
				}) {
					t.Error("the first key is lost, or current")
				}
				if got := slices.DeleteFunc(allKeys(ring), func(k storage.Key) bool { return k.Purpose == p }); !storage.SameKeys(got, others) {
					t.Error("keys for other purposes changed")
				}
				if ring.Digest("name", "hanako") != k.Digest("name", "hanako") {
					t.Error("another digest after reopening")
				}
			}
			current, all := k.Cookies()
			if !bytes.Equal(current, all[0]) || len(all) != len(k.All(storage.Cookie)) {
				t.Errorf("cookies: %d keys, the current one first: %v", len(all), bytes.Equal(current, all[0]))
			}
		})
	}
	k := keyring(t, keyringPath(t), true)
	before := allKeys(k)
	if _, err := k.Rotate("nothing", start, 0); err == nil || !storage.SameKeys(before, allKeys(k)) {
		t.Errorf("an unknown purpose: got %v", err)
	}
}

// A rotation that cannot be written is none.
func TestRotateFails(t *testing.T) {
	file := keyringPath(t)
	k := keyring(t, file, true)
	before, digest := allKeys(k), k.Digest("name", "hanako")
	if err := os.RemoveAll(filepath.Dir(file)); err != nil {
		t.Fatal(err)
	}
	for _, p := range purposes {
		if made, err := k.Rotate(p, start, 0); err == nil || made.Bytes() != nil || !strings.Contains(err.Error(), string(p)) {
			t.Errorf("%s: got %v, %v", p, made, err)
		}
	}
	if !storage.SameKeys(before, allKeys(k)) || k.Digest("name", "hanako") != digest {
		t.Error("a rotation that failed changed the keyring")
	}
}

func TestKeyringAtOnce(t *testing.T) {
	k := keyring(t, keyringPath(t), true)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 50 {
				k.Digest("name", fmt.Sprint(i))
				for _, p := range purposes {
					if all := k.All(p); !all[0].Retired.IsZero() || slices.ContainsFunc(all[1:], func(k storage.Key) bool { return k.Retired.IsZero() }) {
						t.Errorf("%s: the first and only the first is current: %v", p, all)
						return
					}
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 10 {
			if _, err := k.Rotate(purposes[i%len(purposes)], start, 0); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

// file is a keyring file with an edit.
func keyringText(t testing.TB, edit func(map[string]any, []any)) string {
	t.Helper()
	var keys []any
	for i, p := range purposes {
		keys = append(keys, map[string]any{
			"id": fmt.Sprint("key-", i), "purpose": string(p), "created": "2026-04-06T09:00:00Z",
			"secret": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{byte(i + 1)}, 32)),
		})
	}
	top := map[string]any{"version": 2, "keys": keys}
	if edit != nil {
		edit(top, keys)
	}
	text, err := json.Marshal(top)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// more adds keys for a purpose that activate at these times.
func more(purpose string, activates ...string) func(map[string]any, []any) {
	return func(top map[string]any, keys []any) {
		for i, at := range activates {
			key := map[string]any{"id": fmt.Sprint("extra-", i), "purpose": purpose, "created": "2026-04-06T10:00:00Z", "secret": base64.StdEncoding.EncodeToString(make([]byte, 32))}
			if at != "" {
				key["activates"] = at
			}
			keys = append(keys, key)
		}
		top["keys"] = keys
	}
}

func TestOpenKeyringRefuses(t *testing.T) {
	const secret = "c2VjcmV0"
	good := keyringText(t, nil)
	first := func(name string, value any) string {
		return keyringText(t, func(_ map[string]any, keys []any) { keys[0].(map[string]any)[name] = value })
	}
	for _, test := range []struct {
		name, text string
		mode       os.FileMode
		want       string // "": good
	}{
		{"good", good, 0o600, ""},
		{"read-only", good, 0o400, ""},
		{"readable by the group", good, 0o640, "chmod 600"},
		{"readable by others", good, 0o604, "chmod 600"},
		{"writable by the group", good, 0o620, "chmod 600"},
		{"empty", "", 0o600, "restore it from the backup"},
		{"torn", good[:len(good)/2], 0o600, "restore it from the backup"},
		{"not JSON", "\x00\x01\x02", 0o600, "restore it from the backup"},
		{"a list", "[]", 0o600, "restore it from the backup"},
		{"a blank line follows", good + "\n\n", 0o600, ""},
		{"another keyring follows", good + good, 0o600, "follows"},
		{"something torn follows", good + "{", 0o600, "follows"},
		{"a later version", keyringText(t, func(top map[string]any, _ []any) { top["version"] = 3 }), 0o600, "version 3"},
		{"no version", keyringText(t, func(top map[string]any, _ []any) { delete(top, "version") }), 0o600, "version 0"},
		{"an unknown field", keyringText(t, func(top map[string]any, _ []any) { top["more"] = secret }), 0o600, "restore"},
		{"no keys", keyringText(t, func(top map[string]any, _ []any) { top["keys"] = nil }), 0o600, "no key for seal"},
		{"a key is missing", keyringText(t, func(top map[string]any, keys []any) { top["keys"] = keys[1:] }), 0o600, "no key for seal"},
		{"a purpose twice and one not", first("purpose", "cookie"), 0o600, "does not activate after"},
		{"two keys, the later without a time", keyringText(t, more("digest", "")), 0o600, "does not activate after"},
		{"two keys", keyringText(t, more("digest", "2026-04-07T09:00:00Z")), 0o600, ""},
		{"out of order", keyringText(t, more("digest", "2026-04-07T09:00:00Z", "2026-04-07T08:59:59Z")), 0o600, "does not activate after"},
		{"old, which is of version 1", first("old", true), 0o600, "version 1"},
		{"version 1", keyringText(t, func(top map[string]any, keys []any) { top["version"] = 1 }), 0o600, ""},
		{"version 1, rotated", keyringText(t, func(top map[string]any, keys []any) {
			keys[0].(map[string]any)["old"] = true
			more("seal", "")(top, keys)
			top["version"] = 1
		}), 0o600, ""},
		{"version 1, the only key is old", keyringText(t, func(top map[string]any, keys []any) {
			keys[0].(map[string]any)["old"] = true
			top["version"] = 1
		}), 0o600, "no current key for seal"},
		{"version 1, two current keys", keyringText(t, func(top map[string]any, keys []any) {
			more("seal", "")(top, keys)
			top["version"] = 1
		}), 0o600, "follows the current key"},
		{"version 1 with a time of version 2", keyringText(t, func(top map[string]any, keys []any) {
			more("seal", "2026-04-07T09:00:00Z")(top, keys)
			top["version"] = 1
		}), 0o600, "version 2"},
		{"an unknown purpose", first("purpose", "brewing"), 0o600, "unknown purpose"},
		{"no purpose", first("purpose", ""), 0o600, "unknown purpose"},
		{"no id", first("id", ""), 0o600, "id"},
		{"a long id", first("id", strings.Repeat("x", 65)), 0o600, "id"},
		{"an id twice", first("id", "key-1"), 0o600, "id"},
		{"a short secret", first("secret", secret), 0o600, "32 bytes"},
		{"no secret", first("secret", ""), 0o600, "32 bytes"},
		{"a secret that is not base64", first("secret", secret+"!"), 0o600, "base64"},
		{"a time that is none", first("created", secret), 0o600, "restore"},
		{"too large", good + strings.Repeat(" ", 1<<20), 0o600, "at most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, test.mode); err != nil {
				t.Fatal(err)
			}
			for _, create := range []bool{false, true} {
				k, err := storage.OpenKeyring(file, create)
				switch {
				case (err == nil) != (test.want == ""):
					t.Fatalf("got error %v, want one: %v", err, test.want != "")
				case err == nil:
					k.Digest("name", "hanako")
				case k != nil, !strings.Contains(err.Error(), test.want), !strings.Contains(err.Error(), file):
					t.Errorf("got error %q, want it to say %q and name the file", err, test.want)
				case strings.Contains(err.Error(), secret), strings.Contains(err.Error(), "AQEBAQEB"):
					t.Errorf("error %q holds a secret", err)
				}
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != test.text {
				t.Errorf("opening changed the file: %v", err)
			}
		})
	}
}

// Without its keyring a database is not opened with new keys.
func TestKeyringMissing(t *testing.T) {
	file := keyringPath(t)
	_, err := storage.OpenKeyring(file, false)
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "restore it from the backup") {
		t.Errorf("got %v, want it to name the file and the backup", err)
	}
	if _, err := os.Stat(filepath.Dir(file)); !os.IsNotExist(err) {
		t.Errorf("something was made: %v", err)
	}
}

func TestKeysArePrivate(t *testing.T) {
	k := keyring(t, keyringPath(t), true)
	key := k.Current(storage.Seal)
	type holder struct {
		Key  storage.Key
		Ring *storage.Keyring
		key  storage.Key
		keys []storage.Key
	}
	held := holder{key, k, key, k.All(storage.Seal)}
	var out bytes.Buffer
	for _, v := range []any{key, &key, held, &held, []storage.Key{key}, map[string]storage.Key{"k": key}, k} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("key", "v", v)
		}
		if text, err := json.Marshal(v); err == nil {
			out.Write(text)
		}
	}
	fmt.Fprintln(&out, key.String(), key.GoString(), key.LogValue())
	if !strings.Contains(out.String(), key.ID) {
		t.Error("nothing names the key")
	}
	for _, k := range allKeys(k) {
		secret := k.Bytes()
		for form, text := range map[string]string{
			"raw": string(secret), "hex": hex.EncodeToString(secret), "HEX": strings.ToUpper(hex.EncodeToString(secret)),
			"base64": base64.StdEncoding.EncodeToString(secret), "base64url": base64.RawURLEncoding.EncodeToString(secret),
			"decimal": strings.Trim(fmt.Sprint(secret), "[]"), "octal": strings.Trim(fmt.Sprintf("%o", secret), "[]"),
			"Go": strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte{"), "}"),
		} {
			if strings.Contains(out.String(), text) {
				t.Errorf("%s is printed (%s)", k.ID, form)
			}
		}
	}
	if (storage.Key{}).Bytes() != nil {
		t.Error("the zero key has a secret")
	}
}

// What parses comes back equal.
func FuzzParseKeyring(f *testing.F) {
	f.Add([]byte(keyringText(f, nil)))
	f.Add([]byte(keyringText(f, func(_ map[string]any, keys []any) {
		keys[0].(map[string]any)["created"] = "2026-04-06T18:00:00.123456789+09:00"
	})))
	f.Add([]byte(keyringText(f, func(_ map[string]any, keys []any) { keys[0].(map[string]any)["id"] = "\u756a<&>\x00" })))
	f.Add([]byte(keyringText(f, more("digest", "2026-04-07T09:00:00Z", "2026-04-07T18:00:00.5+09:00"))))
	f.Add([]byte(keyringText(f, func(top map[string]any, keys []any) {
		keys[1].(map[string]any)["old"] = true
		more("cookie", "")(top, keys)
		top["version"] = 1
	})))
	f.Add([]byte(`{"version":1,"keys":[]}`))
	f.Add([]byte("{"))
	file := filepath.Join(f.TempDir(), "keys.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := storage.ParseKeyring(data)
		if err != nil {
			if keys != nil {
				t.Error("keys beside an error")
			}
			return
		}
		if err := storage.WriteKeyring(file, keys); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		again, err := storage.ParseKeyring(text)
		if err != nil || !storage.SameKeys(keys, again) {
			t.Errorf("%s\ncomes back as\n%s\n%v", data, text, err)
		}
	})
}

func BenchmarkDigest(b *testing.B) {
	k := keyring(b, keyringPath(b), true)
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k.Digest("name", "hanako@acme.example")
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				k.Digest("name", "hanako@acme.example")
			}
		})
	})
}
