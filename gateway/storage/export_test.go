package storage

import (
	"encoding/json"
	"time"
)

// ParseKeyring and WriteKeyring are the codec of the file.
var (
	ParseKeyring = parseKeyring
	WriteKeyring = writeKeyring
)

// SameKeys reports whether two lists hold equal keys in the same order.
func SameKeys(a, b []Key) bool { return same(a, b) }

// CheckRedisURL reads an address and lists what must not be in an error about it.
func CheckRedisURL(text string) (addrs []string, db int, master, user string, err error) {
	u, err := parseRedisURL(text)
	return u.addrs, u.db, u.master, u.user, err
}

// PlainHost reports whether an address allows plain text to another machine.
func PlainHost(address string) (bool, error) {
	config, err := postgresConfig(address, "")
	if err != nil {
		return false, err
	}
	_, plain := plainHost(config)
	return plain, nil
}

// KeyringFile is where a keyring came from.
func KeyringFile(k *Keyring) string { return k.file }

// ParseSealed reads a sealed keyring without opening it: the memory it asks for in
// KiB, and the document again.
func ParseSealed(data []byte) (memory uint32, text []byte, err error) {
	f, err := parseSealed(data)
	if err != nil {
		return 0, nil, err
	}
	text, err = json.Marshal(f)
	return f.Memory, text, err
}

// ParseManifest reads the list of a backup.
func ParseManifest(data []byte) error {
	_, err := parseManifest(data)
	return err
}

// ManifestFiles lists what a backup would be restored to.
func ManifestFiles(data []byte) (names []string) {
	m, err := parseManifest(data)
	if err != nil {
		return nil
	}
	for name := range m.Files {
		names = append(names, name)
	}
	return names
}

// SetKeyringWait sets how long a rotation waits for another; what it returns undoes it.
func SetKeyringWait(d time.Duration) (undo func()) {
	old := keyringWait
	keyringWait = d
	return func() { keyringWait = old }
}
