package attempt

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/ianaindex"
)

// decoding is a body in one character set.
type decoding struct {
	text  string
	doubt doubt
}

// decodings gives a body in every character set that a backend may read it in,
// as it stands first. JSON parsers tell UTF-16 and UTF-32 by their NUL bytes,
// others by a byte order mark, others believe what is declared.
func decodings(body []byte, charset string) (list []decoding, doubts doubt) {
	text := string(body)
	if rest, ok := strings.CutPrefix(text, "\ufeff"); ok {
		text, doubts = rest, ofCharset
	}
	list = append(list, decoding{text, 0})
	wide := strings.HasPrefix(charset, "utf-16") || strings.HasPrefix(charset, "utf-32") ||
		strings.HasPrefix(charset, "utf16") || strings.HasPrefix(charset, "utf32") || strings.HasPrefix(charset, "iso-10646") ||
		strings.HasPrefix(charset, "ucs") || strings.HasPrefix(charset, "csunicode") || charset == "unicode"
	marked := bytes.HasPrefix(body, []byte{0xfe, 0xff}) || bytes.HasPrefix(body, []byte{0xff, 0xfe})
	if nuls := bytes.Count(body, []byte{0}); nuls > 0 || marked || wide {
		doubts |= ofCharset
		list = append(list,
			decoding{fromUTF16(body, binary.LittleEndian), ofCharset},
			decoding{fromUTF16(body, binary.BigEndian), ofCharset})
		if nuls >= len(body)/2 {
			list = append(list,
				decoding{fromUTF32(body, binary.LittleEndian), ofCharset},
				decoding{fromUTF32(body, binary.BigEndian), ofCharset})
		}
	}
	if charset != "" && !wide {
		if decoded, ok := decode(string(body), charset); ok && decoded != text {
			list = append(list, decoding{decoded, ofCharset})
		}
	}
	return list, doubts
}

func fromUTF16(body []byte, order binary.ByteOrder) string {
	units := make([]uint16, 0, len(body)/2)
	for ; len(body) >= 2; body = body[2:] {
		units = append(units, order.Uint16(body))
	}
	return strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff")
}

func fromUTF32(body []byte, order binary.ByteOrder) string {
	var b strings.Builder
	for ; len(body) >= 4; body = body[4:] {
		if r := order.Uint32(body); r <= utf8.MaxRune {
			b.WriteRune(rune(r))
		} else {
			b.WriteRune(utf8.RuneError)
		}
	}
	return strings.TrimPrefix(b.String(), "\ufeff")
}

// decode reads s in a named character set (IBM037 was used to walk past
// firewalls). It reports false when the name is not known.
func decode(s, charset string) (string, bool) {
	e, err := ianaindex.IANA.Encoding(charset)
	if err != nil || e == nil {
		if e, err = ianaindex.MIME.Encoding(charset); err != nil || e == nil {
			return "", false
		}
	}
	if e == encoding.Replacement || e == encoding.Nop {
		return "", false
	}
	decoded, err := e.NewDecoder().String(s)
	return decoded, err == nil
}
