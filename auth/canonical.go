package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const (
	canonicalRunes = 320  // 64 before the @ and 255 behind it, as mail addresses go
	typedBytes     = 4096 // read of what was typed; the rest cannot count
)

// CanonicalName is the form of a typed login name that counters key on: NFKC,
// full case folding, blanks trimmed and collapsed, invisible characters removed,
// at most 320 runes. Names that look alike to a backend mostly become one; which
// account is meant only the backend knows. It is idempotent and does a bounded
// amount of work.
func CanonicalName(typed string) string {
	if plainName(typed) {
		return typed
	}
	if len(typed) > typedBytes {
		cut := typedBytes
		for cut > typedBytes-utf8.UTFMax && !utf8.RuneStart(typed[cut]) {
			cut--
		}
		typed = typed[:cut]
	}
	s := strings.ToValidUTF8(typed, "\uFFFD")
	// Folding may undo a composition and composing may make a letter that folds;
	// Unicode promises that this settles, in practice in two turns. Folding alone
	// swaps the two cases of Cherokee, so the lower one is taken.
	for range 8 {
		next := visible(norm.NFKC.String(strings.ToLower(cases.Fold().String(visible(norm.NFKC.String(s))))))
		if next == s {
			break
		}
		s = next
	}
	return s
}

// plainName reports whether s is its own canonical form because it is short, in
// small printable ASCII without blanks.
func plainName(s string) bool {
	if len(s) > canonicalRunes {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// visible drops what cannot be seen, makes each run of blanks one space, trims,
// and keeps the first canonicalRunes runes.
func visible(s string) string {
	var b strings.Builder
	b.Grow(min(len(s), canonicalRunes*utf8.UTFMax))
	runes, blank := 0, false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			blank = runes > 0
			continue
		case invisible(r):
			continue
		}
		if blank {
			if runes+1 >= canonicalRunes {
				break // no room for the blank and what follows it
			}
			b.WriteByte(' ')
			runes, blank = runes+1, false
		}
		if runes == canonicalRunes {
			break
		}
		b.WriteRune(r)
		runes++
	}
	return b.String()
}

// invisible reports whether r leaves no mark: control and format characters,
// variation selectors, and the rest of Unicode's default ignorables (fillers,
// the grapheme joiner).
func invisible(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}
