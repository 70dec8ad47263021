package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// A sealed keyring is a JSON document that holds a keyring file under a passphrase:
// argon2id (RFC 9106) makes the key, XChaCha20-Poly1305 (RFC 8439 with the 192-bit
// nonce of draft-irtf-cfrg-xchacha-03) seals, with all that precedes "sealed" in the
// document as additional data.
const (
	sealedFormat  = "kidoban-keyring"
	sealedVersion = 1
	sealedMax     = 2 * keyringMax // bytes

	// The second recommended option of RFC 9106 section 4.
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4
	saltSize     = 16

	// What a document may ask for, so that opening one is bounded: 1 GiB.
	argonTimeMax    = 16
	argonMemoryMax  = 1 << 20
	argonThreadsMax = 16

	passphraseMin = 12   // characters
	passphraseMax = 1024 // bytes
)

// sealedHeader says how the rest is sealed.
type sealedHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	KDF     string `json:"kdf"` // argon2id
	Time    uint32 `json:"time"`
	Memory  uint32 `json:"memory_kib"`
	Threads uint8  `json:"threads"`
	Salt    []byte `json:"salt"`
	Cipher  string `json:"cipher"` // xchacha20poly1305
	Nonce   []byte `json:"nonce"`
}

type sealedFile struct {
	sealedHeader
	Sealed []byte `json:"sealed"`
}

// Sealed is the keyring under a passphrase, for the backup and for other nodes. The
// passphrase has at least 12 characters.
func (k *Keyring) Sealed(passphrase []byte) ([]byte, error) {
	keys, err := readKeyring(k.file)
	if err != nil {
		return nil, err
	}
	return sealKeyring(keys, passphrase)
}

func checkPassphrase(p []byte) error {
	if n := utf8.RuneCount(p); n < passphraseMin || len(p) > passphraseMax {
		return fmt.Errorf("the passphrase has %d characters, want at least %d and at most %d bytes", n, passphraseMin, passphraseMax)
	}
	return nil
}

func sealKeyring(keys []Key, passphrase []byte) ([]byte, error) {
	if err := checkPassphrase(passphrase); err != nil {
		return nil, err
	}
	plain, err := formatKeyring(keys)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	h := sealedHeader{sealedFormat, sealedVersion, "argon2id", argonTime, argonMemory, argonThreads,
		make([]byte, saltSize), "xchacha20poly1305", make([]byte, chacha20poly1305.NonceSizeX)}
	rand.Read(h.Salt)
	rand.Read(h.Nonce)
	box, associated, err := h.open(passphrase)
	if err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(sealedFile{h, box.Seal(nil, h.Nonce, plain, associated)}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(out, '\n'), nil
}

// open makes the cipher and what it authenticates beside the text.
func (h *sealedHeader) open(passphrase []byte) (box interface {
	Seal(dst, nonce, plain, associated []byte) []byte
	Open(dst, nonce, sealed, associated []byte) ([]byte, error)
}, associated []byte, err error) {
	if associated, err = json.Marshal(h); err != nil {
		return nil, nil, err
	}
	key := argon2.IDKey(passphrase, h.Salt, h.Time, h.Memory, h.Threads, chacha20poly1305.KeySize)
	defer clear(key)
	box, err = chacha20poly1305.NewX(key)
	return box, associated, err
}

// parseSealed reads a document, without opening it.
func parseSealed(data []byte) (sealedFile, error) {
	var f sealedFile
	if len(data) > sealedMax {
		return sealedFile{}, fmt.Errorf("it has %d bytes, want at most %d", len(data), sealedMax)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return sealedFile{}, errors.New("it is not a sealed keyring, or a torn one")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return sealedFile{}, errors.New("something follows the sealed keyring")
	}
	switch {
	case f.Format != sealedFormat:
		return sealedFile{}, errors.New("it is not a sealed keyring")
	case f.Version != sealedVersion:
		return sealedFile{}, fmt.Errorf("it is of version %d and this program knows version %d", f.Version, sealedVersion)
	case f.KDF != "argon2id" || f.Cipher != "xchacha20poly1305":
		return sealedFile{}, errors.New("it is sealed in a way that this program does not know")
	case f.Time < 1 || f.Time > argonTimeMax || f.Memory < 8<<10 || f.Memory > argonMemoryMax || f.Threads < 1 || f.Threads > argonThreadsMax:
		return sealedFile{}, errors.New("opening it would take more time or memory than is sensible, or less than is safe")
	case len(f.Salt) != saltSize || len(f.Nonce) != chacha20poly1305.NonceSizeX || len(f.Sealed) < chacha20poly1305.Overhead:
		return sealedFile{}, errors.New("its salt, nonce or text has the wrong length")
	}
	return f, nil
}

func openSealed(data, passphrase []byte) ([]Key, error) {
	f, err := parseSealed(data)
	if err != nil {
		return nil, err
	}
	box, associated, err := f.open(passphrase)
	if err != nil {
		return nil, err
	}
	plain, err := box.Open(nil, f.Nonce, f.Sealed, associated)
	if err != nil {
		return nil, errors.New("the passphrase is another one, or the file was changed")
	}
	defer clear(plain)
	return parseKeyring(plain)
}

// ImportKeyring writes the keyring that sealed holds to file. What is there already
// is replaced only by a keyring that has all of its keys: a later one of the same
// installation. A gate that runs takes it by [Keyring.Reload].
func ImportKeyring(file string, sealed, passphrase []byte) (*Keyring, error) {
	keys, err := openSealed(sealed, passphrase)
	if err != nil {
		return nil, fmt.Errorf("the sealed keyring: %w", err)
	}
	if err := ownDir(filepath.Dir(file)); err != nil {
		return nil, err
	}
	unlock, err := lockKeyring(file)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k := newKeyring(file, keys)
	switch there, err := readKeyring(file); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("%w. To import in its place move it away first", err)
	default:
		if err := covers(keys, there, k.now()); err != nil {
			return nil, fmt.Errorf("%s stays as it is, since the sealed keyring %w", file, err)
		}
	}
	if err := writeKeyring(file, keys); err != nil {
		return nil, fmt.Errorf("writing the keyring: %w", err)
	}
	return k, nil
}

// CreateKeyring makes a new keyring in a data directory, before the first start of
// its gate. Beside a database or a keyring it makes none.
func CreateKeyring(dir string) (*Keyring, error) {
	if err := ownDir(dir); err != nil {
		return nil, err
	}
	for _, name := range []string{databaseName, keyringName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("there is a %s in %s already: new keys could open nothing of what it is about", name, dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return OpenKeyring(filepath.Join(dir, keyringName), true)
}
