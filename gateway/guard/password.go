package guard

import (
	"context"
	"encoding/binary"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/kidoban/kidoban/detectors"
)

const (
	nearRunes = 32  // characters of a password that may be the missing one
	nearBytes = 256 // of a password; what is left of a longer one is not hashed
)

// passwordFacts is what detectors may know of a password: keyed digests of it and of
// what is near to it, and whether it is on a list. Two passwords with a digest of Near
// in common are, but for a chance of 1 in a million, one slip of a finger apart: a
// character more, less or another. It takes 34 keyed hashes at most, some 10 us.
func (g *Guard) passwordFacts(ctx context.Context, password string) detectors.PasswordFacts {
	if password == "" {
		return detectors.PasswordFacts{}
	}
	text := norm.NFKC.String(password)
	return detectors.PasswordFacts{
		Digest: g.Digest("password", text), Near: g.near(text), Breached: g.breached(ctx, password),
	}
}

// near is a digest of text and of what is left of it without each of its first
// nearRunes characters.
func (g *Guard) near(text string) []uint32 {
	digest := func(text string) uint32 {
		d := g.Digest("near", text)
		return binary.BigEndian.Uint32(d[:])
	}
	all := append(make([]uint32, 0, 1+min(len(text), nearRunes)), digest(text))
	if len(text) > nearBytes {
		return all
	}
	for at, n := 0, 0; at < len(text) && n < nearRunes; n++ {
		_, size := utf8.DecodeRuneInString(text[at:])
		if without := text[at : at+size]; at < size || text[at-size:at] != without { // of a double letter one is enough
			all = append(all, digest(text[:at]+text[at+size:]))
		}
		at += size
	}
	return all
}
