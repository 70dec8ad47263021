package pages

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// lineMax is how many characters of a text from elsewhere are shown.
const lineMax = 64

// line is text that a stranger may have chosen, as one line: what is hidden, such as
// controls and marks that turn the direction, becomes a blank, blanks become one, and
// what is cut ends in "…".
func line(s string) string {
	if len(s) > 16*lineMax {
		s = s[:16*lineMax]
	}
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)), " ")
	if utf8.RuneCountInString(s) <= lineMax {
		return s
	}
	return string([]rune(s)[:lineMax-1]) + "…"
}
