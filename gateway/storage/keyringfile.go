package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	keyringVersion = 2
	keyringMax     = 1 << 20 // bytes of the file
	secretSize     = 32
)

// keyringFile is the form on disk, the only place where secrets are written.
type keyringFile struct {
	Version int        `json:"version"`
	Keys    []keyEntry `json:"keys"` // of each purpose in the order of their activation
}

type keyEntry struct {
	ID        string    `json:"id"`
	Purpose   Purpose   `json:"purpose"`
	Created   time.Time `json:"created"`
	Activates time.Time `json:"activates,omitzero"` // none for the first of its purpose
	Old       bool      `json:"old,omitempty"`      // version 1, which knew no times
	Secret    string    `json:"secret"`             // base64
}

// OpenKeyring reads the keyring in file. Where it is missing it is made, if
// create says so: a gate that made new keys beside an old database could open
// nothing in it. See [DB.OpenKeyring], which knows.
func OpenKeyring(file string, create bool) (*Keyring, error) {
	keys, err := readKeyring(file)
	if errors.Is(err, fs.ErrNotExist) && create {
		keys, err = createKeyring(file, time.Now())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the keyring %s is missing: restore it from the backup, or copy it from another node. New keys open nothing of what is there already, so they are made only for a new installation", file)
	}
	if err != nil {
		return nil, err
	}
	return newKeyring(file, keys), nil
}

// readKeyring reads a file that nobody else can.
func readKeyring(file string) ([]Key, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the keyring: %w", err)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("the keyring %s can be read by others (mode %04o): run chmod 600 on it", file, info.Mode().Perm())
	case info.Size() > keyringMax:
		return nil, fmt.Errorf("the keyring %s has %d bytes, want at most %d", file, info.Size(), keyringMax)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the keyring: %w", err)
	}
	keys, err := parseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("the keyring %s: %w", file, err)
	}
	return keys, nil
}

// createKeyring makes a keyring where there is none. Another process may be doing
// the same: then both have what the first made.
func createKeyring(file string, now time.Time) ([]Key, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("making the keyring: %w", err)
	}
	unlock, err := lockKeyring(file)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if keys, err := readKeyring(file); !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	var keys []Key
	for _, p := range Purposes() {
		keys = append(keys, newKey(p, now))
	}
	if err := writeKeyring(file, keys); err != nil {
		return nil, fmt.Errorf("making the keyring: %w", err)
	}
	return keys, nil
}

func newKey(p Purpose, now time.Time) Key {
	secret := make([]byte, secretSize)
	rand.Read(secret) // never fails (crypto/rand)
	return Key{ID: rand.Text()[:8], Purpose: p, Created: now.UTC().Truncate(time.Second), secret: func() []byte { return secret }}
}

// parseKeyring reads the form on disk. Its errors tell where, never what.
func parseKeyring(data []byte) ([]Key, error) {
	var f keyringFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, errors.New("it is not a keyring, or a torn one: restore it from the backup")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the keyring in the file")
	}
	switch f.Version {
	case keyringVersion:
	case 1:
		if err := f.upgrade(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("it is of version %d and this program knows version %d", f.Version, keyringVersion)
	}
	var keys []Key
	seen := make(map[string]bool)
	latest := make(map[Purpose]int) // the place in keys of a purpose's last key
	for i, e := range f.Keys {
		secret, err := base64.StdEncoding.DecodeString(e.Secret)
		before, later := latest[e.Purpose]
		switch {
		case err != nil || len(secret) != secretSize:
			return nil, fmt.Errorf("key %d: the secret is not %d bytes in base64", i+1, secretSize)
		case !slices.Contains(Purposes(), e.Purpose):
			return nil, fmt.Errorf("key %d: unknown purpose %.20q", i+1, e.Purpose)
		case e.ID == "" || len(e.ID) > 64 || seen[e.ID]:
			return nil, fmt.Errorf("key %d: the id is missing, too long or taken", i+1)
		case e.Old:
			return nil, fmt.Errorf("key %d: \"old\" is of version 1", i+1)
		case later && e.Activates.IsZero(), later && e.Activates.Before(keys[before].Activates):
			return nil, fmt.Errorf("key %d: it does not activate after the one before it for %s", i+1, e.Purpose)
		}
		if later {
			keys[before].Retired = e.Activates
		} else {
			e.Activates = time.Time{} // those before it are pruned
		}
		seen[e.ID], latest[e.Purpose] = true, len(keys)
		keys = append(keys, Key{e.ID, e.Purpose, e.Created, e.Activates, time.Time{}, func() []byte { return secret }})
	}
	for _, p := range Purposes() {
		if _, ok := latest[p]; !ok {
			return nil, fmt.Errorf("no key for %s", p)
		}
	}
	return keys, nil
}

// upgrade makes a file of version 1 one of this version: there an old key was
// followed by the next as soon as that was made.
func (f *keyringFile) upgrade() error {
	current := make(map[Purpose]int)
	latest := make(map[Purpose]time.Time)
	for i := range f.Keys {
		e := &f.Keys[i]
		if !e.Activates.IsZero() {
			return fmt.Errorf("key %d: \"activates\" is of version 2", i+1)
		}
		if current[e.Purpose] > 0 {
			return fmt.Errorf("key %d: it follows the current key for %.20q", i+1, e.Purpose)
		}
		if !e.Old {
			current[e.Purpose]++
		}
		if at, later := latest[e.Purpose]; later {
			e.Activates = e.Created
			if at.After(e.Activates) {
				e.Activates = at
			}
			if e.Activates.IsZero() {
				return fmt.Errorf("key %d: it has no time", i+1)
			}
		}
		latest[e.Purpose], e.Old = e.Activates, false
	}
	for _, p := range Purposes() {
		if current[p] != 1 {
			return fmt.Errorf("no current key for %s", p)
		}
	}
	return nil
}

// formatKeyring is the form on disk.
func formatKeyring(keys []Key) ([]byte, error) {
	out := keyringFile{Version: keyringVersion}
	for _, k := range keys {
		out.Keys = append(out.Keys, keyEntry{ID: k.ID, Purpose: k.Purpose, Created: k.Created, Activates: k.Activates, Secret: base64.StdEncoding.EncodeToString(k.Bytes())})
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

func writeKeyring(file string, keys []Key) error {
	data, err := formatKeyring(keys)
	if err != nil {
		return err
	}
	return replaceFile(file, data)
}

// replaceFile replaces file in one step: a crash leaves the old one or the new one.
// Only its owner can read it.
func replaceFile(file string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, giveAway(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}
