package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
)

type tokenHash [sha256.Size]byte

// A token is 256 random bits in base64url.
const tokenLength = 43

func newToken() string {
	var secret [32]byte
	rand.Read(secret[:])
	return base64.RawURLEncoding.EncodeToString(secret[:])
}

// wellFormed reports whether token can be one of ours. It looks at every
// character, whatever the first ones are.
func wellFormed(token string) bool {
	if len(token) != tokenLength {
		return false
	}
	bad := 0
	for i := range len(token) {
		c := token[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			bad++
		}
	}
	return bad == 0
}

// hashToken hashes the first tokenLength bytes of token: the work does not depend
// on what it is given.
func hashToken(token string) tokenHash {
	const domain = "kidoban session token v1\x00"
	var b [len(domain) + tokenLength]byte
	copy(b[copy(b[:], domain):], token)
	return sha256.Sum256(b[:])
}
