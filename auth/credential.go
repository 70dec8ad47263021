package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// CredentialHash stands for a credential of the backend. Backends' credentials
// are long random secrets, so a plain hash tells nothing about them; it must not
// be used for what people choose themselves.
type CredentialHash [sha256.Size]byte

// credentialDomain keeps these hashes apart from any other SHA-256 of the same value.
const credentialDomain = "kidoban credential v1\x00"

// HashCredential hashes the value of a credential of the kind that the preset
// names. Equal values of different kinds have different hashes.
func HashCredential(kind, value string) CredentialHash {
	var small [256]byte // most are short, and clearing more costs more than they do
	b := small[:0]
	if n := len(credentialDomain) + 4 + len(kind) + len(value); n > len(small) {
		b = make([]byte, 0, n)
	}
	b = append(b, credentialDomain...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(kind)))
	b = append(b, kind...)
	b = append(b, value...)
	return sha256.Sum256(b)
}

// String is h in hexadecimal.
func (h CredentialHash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h CredentialHash) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, h[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. It accepts what MarshalText
// writes and nothing else.
func (h *CredentialHash) UnmarshalText(text []byte) error {
	var got CredentialHash
	if len(text) != hex.EncodedLen(len(got)) {
		return fmt.Errorf("credential hash of %d characters: want %d hexadecimal digits", len(text), hex.EncodedLen(len(got)))
	}
	if _, err := hex.Decode(got[:], text); err != nil {
		return fmt.Errorf("credential hash: %w", err)
	}
	if got.String() != string(text) {
		return fmt.Errorf("credential hash: want small hexadecimal digits")
	}
	*h = got
	return nil
}

// Credential is something of the backend's that a session holds.
type Credential struct {
	Kind      string         `json:"kind"` // the preset's name for it
	Hash      CredentialHash `json:"hash"`
	Since     time.Time      `json:"since"`
	RetiredAt time.Time      `json:"retired_at,omitzero"` // good before this time, not at it; zero: the current one
}

// current reports whether nothing has replaced c.
func (c Credential) current() bool { return c.RetiredAt.IsZero() }

// good reports whether c may be used at now.
func (c Credential) good(now time.Time) bool { return c.current() || now.Before(c.RetiredAt) }

// is reports whether c is the credential of that kind and hash.
func (c Credential) is(kind string, h CredentialHash) bool { return c.Hash == h && c.Kind == kind }
