package mail

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Address is a mail address that is fit for an envelope and a header.
type Address struct {
	local         string
	domain        string // in ASCII
	international bool   // local has more than ASCII: RFC 6531 (SMTPUTF8)
}

func (a Address) String() string { return a.local + "@" + a.domain }

const (
	maxAddress = 254 // bytes, RFC 5321 section 4.5.3.1.3 less its < and >
	maxLocal   = 64  // bytes, section 4.5.3.1.1
)

var errAddress = errors.New("the address is none that mail can be sent to")

// ParseAddress reads LOCAL@DOMAIN as people have it: RFC 5321's Mailbox with a
// dot-string and a host name, both also beyond ASCII (RFC 6531). A domain is
// written in ASCII (RFC 5890). Quoted local parts, address literals, names,
// comments, lists, and characters that are not seen are refused: what comes from
// elsewhere must not become a second recipient or header.
func ParseAddress(s string) (Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || len(s) > 4*maxAddress || !utf8.ValidString(s) {
		return Address{}, errAddress
	}
	a := Address{local: norm.NFC.String(s[:at])}
	for part := range strings.SplitSeq(a.local, ".") {
		if part == "" {
			return Address{}, errAddress
		}
	}
	for _, r := range a.local {
		switch {
		case r >= utf8.RuneSelf:
			if !unicode.In(r, unicode.L, unicode.M, unicode.N) {
				return Address{}, errAddress
			}
			a.international = true
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r): // atext, RFC 5322 section 3.2.3
		default:
			return Address{}, errAddress
		}
	}
	domain, err := idna.Lookup.ToASCII(s[at+1:])
	if err != nil || domain == "" || strings.HasSuffix(domain, ".") {
		return Address{}, errAddress
	}
	if _, err := netip.ParseAddr(domain); err == nil {
		return Address{}, errAddress
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 {
			return Address{}, errAddress
		}
	}
	for _, c := range []byte(domain) {
		if c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return Address{}, errAddress
		}
	}
	a.domain = domain
	if len(a.local) > maxLocal || len(a.String()) > maxAddress {
		return Address{}, errAddress
	}
	return a, nil
}

// hidden reports whether r is not seen, or changes how others are: control
// characters, formats such as those of direction (Unicode's Cc, Cf, Zl, Zp), what is
// not assigned, and what could not be decoded.
func hidden(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r) && r != ' ' && r != '\u3000'
}

// clean is text from elsewhere as one line of at most most runes: what is hidden
// becomes a blank, blanks become one, what is cut ends in "…".
func clean(s string, most int) string {
	if len(s) > 64<<10 {
		s = s[:64<<10]
	}
	s = norm.NFC.String(strings.ToValidUTF8(s, " "))
	s = strings.Map(func(r rune) rune {
		if hidden(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	n := 0
	for i := range s {
		if n == most-1 && utf8.RuneCountInString(s[i:]) > 1 {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// unlinked is a cleaned text that mail programs do not turn into a link: somebody
// who may name a device or himself must not place an address of his choice in a
// letter of ours. An invisible joiner follows each mark that an address needs.
func unlinked(s string) string {
	const joiner = "\u200c"
	var b strings.Builder
	for i, r := range s {
		b.WriteRune(r)
		if strings.ContainsRune(".:/@", r) && i+1 < len(s) && s[i+1] != ' ' {
			b.WriteString(joiner)
		}
	}
	return b.String()
}
