package attempt

import (
	"strings"
	"unicode/utf8"
)

// formField is one field of an urlencoded text.
type formField struct {
	key, value string
	doubt      doubt
}

// splitForm reads an urlencoded text. Where parsers differ it gives every
// reading: "&" and, with semicolons and doubted, ";" divide fields; an invalid
// escape stands for itself; %u0065 may be one character.
func splitForm(text string, semicolons bool) []formField {
	var fields []formField
	take := func(part string, d doubt) {
		key, value, _ := strings.Cut(part, "=")
		k, okKey := unescape(key, false)
		v, okValue := unescape(value, false)
		if !okKey || !okValue {
			d |= ofSyntax
		}
		if !utf8.ValidString(v) || !utf8.ValidString(k) {
			d |= ofUTF8
		}
		fields = append(fields, formField{k, v, d})
		if !okKey || !okValue {
			if k2, v2 := unescapeU(key), unescapeU(value); k2 != k || v2 != v {
				fields = append(fields, formField{k2, v2, d})
			}
		}
	}
	for part := range strings.SplitSeq(text, "&") {
		take(part, 0)
		if semicolons && strings.Contains(part, ";") {
			for piece := range strings.SplitSeq(part, ";") {
				take(piece, ofSyntax)
			}
		}
	}
	return fields
}

// form reads a query.
func (c *collector) form(text string, d doubt) {
	c.formText(text, d, true, "")
}

// formText reads an urlencoded text. Semicolons divide fields only where a form
// or nothing known was declared: they are everywhere in JSON and multipart bodies.
// What percent signs hid may be in a character set of its own.
func (c *collector) formText(text string, d doubt, semicolons bool, charset string) {
	if text == "" {
		return
	}
	for _, f := range splitForm(text, semicolons) {
		c.flat(f.key, f.value, d|f.doubt)
		if charset != "" && f.value != "" {
			if v, ok := decode(f.value, charset); ok && v != f.value {
				c.flat(f.key, v, d|ofCharset)
			}
		}
		if f.key == "_charset_" && !isUTF8(f.value) {
			c.doubts |= ofCharset
		}
	}
}

// unescape resolves %XX and "+", and with wide %uXXXX, and leaves alone what is
// none; ok tells whether there was none such.
func unescape(s string, wide bool) (_ string, ok bool) {
	if !strings.ContainsAny(s, "%+") {
		return s, true
	}
	ok = true
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b.WriteByte(' ')
		case s[i] != '%':
			b.WriteByte(s[i])
		case i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b.WriteByte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
		case wide && i+5 < len(s) && s[i+1]|0x20 == 'u' && isHex(s[i+2]) && isHex(s[i+3]) && isHex(s[i+4]) && isHex(s[i+5]):
			b.WriteRune(rune(unhex(s[i+2]))<<12 | rune(unhex(s[i+3]))<<8 | rune(unhex(s[i+4]))<<4 | rune(unhex(s[i+5])))
			i += 5
		default:
			ok = false
			b.WriteByte('%')
		}
	}
	return b.String(), ok
}

// unescapeU also resolves the %uXXXX that some servers know.
func unescapeU(s string) string {
	s, _ = unescape(s, true)
	return s
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
