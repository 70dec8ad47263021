package attempt

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// looksJSON reports whether the first letter, digit, brace or bracket of text is
// a brace or bracket. Forms start with a field's name.
func looksJSON(text string) bool {
	rest := strings.TrimLeftFunc(text, func(r rune) bool {
		return r != '{' && r != '[' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	return rest != "" && (rest[0] == '{' || rest[0] == '[')
}

// jsonFaults tells how text breaks RFC 8259.
func jsonFaults(text string) doubt {
	if json.Valid([]byte(text)) {
		return 0
	}
	var first json.RawMessage
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&first); err == nil {
		return ofTrailing
	}
	return ofSyntax
}

// jsonText finds fields in a JSON text, and in what a lax parser takes for one:
// every value of every duplicate key, of every document that follows another, and
// with lax also behind comments, in single quotes, without quotes, without commas.
// Where a comment or a single quote could be either that or mere text, both are
// followed.
func (c *collector) jsonText(text string, d doubt, lax bool) {
	(&jsonScan{collector: c, text: text, doubt: d}).run()
	if !lax {
		return
	}
	comments, quotes := strings.ContainsAny(text, "/#"), strings.Contains(text, "'")
	for mode := 1; mode < 4; mode++ {
		if mode&1 != 0 && !comments || mode&2 != 0 && !quotes {
			continue
		}
		(&jsonScan{collector: c, text: text, doubt: d | ofSyntax, comments: mode&1 != 0, quotes: mode&2 != 0}).run()
	}
}

// jsonScan walks through a JSON text from token to token. It keeps the objects
// and arrays it is in on a stack of its own; what it does at each token does not
// depend on how deep that is.
type jsonScan struct {
	*collector
	text             string
	doubt            doubt
	comments, quotes bool // skip comments; single quotes enclose strings

	at    int
	path  []string // keys from the top, as deep as targets go
	stack []frame
}

// frame is an object or an array on the way to the present token.
type frame struct {
	array  bool
	arrays bool  // an array of objects lies above, or is this
	depth  int   // keys above this frame
	above  place // where the frame itself is
	here   place // where the value after the latest key is
	keyed  bool  // a key came and no comma since
	scope  int
}

func (s *jsonScan) run() {
	s.stack = []frame{{}}
	for {
		s.skip()
		if s.at >= len(s.text) {
			return
		}
		top := &s.stack[len(s.stack)-1]
		switch b := s.text[s.at]; {
		case b == '{':
			s.at++
			s.open(top, false)
		case b == '[':
			s.at++
			s.open(top, true)
		case b == '}' || b == ']':
			s.at++
			if len(s.stack) > 1 {
				s.stack = s.stack[:len(s.stack)-1]
			}
			s.stack[len(s.stack)-1].keyed = false
		case b == ',':
			s.at++
			top.keyed = false
		case b == ':' || b == '=':
			s.at++
		case b == '"' || b == '\'' && s.quotes:
			text, escaped := s.quoted(b)
			s.token(top, text, escaped, true)
		default:
			s.token(top, s.bareword(), false, false)
		}
	}
}

// open enters an object or an array.
func (s *jsonScan) open(top *frame, array bool) {
	f := frame{array: array, arrays: top.arrays, depth: top.depth, above: top.above, scope: top.scope}
	if !top.array && top.keyed {
		f.depth, f.above = top.depth+1, top.here
	}
	if !array && top.array { // one of an array of objects
		f.arrays = true
		s.scopes = append(s.scopes, top.scope)
		f.scope = len(s.scopes) - 1
	}
	s.stack = append(s.stack, f)
}

// token takes a string or a bare word: a key if a colon follows, else a value.
func (s *jsonScan) token(top *frame, text string, escaped, quoted bool) {
	if !top.array {
		from := s.at
		s.skip()
		if s.at < len(s.text) && (s.text[s.at] == ':' || s.text[s.at] == '=') {
			s.at++
			s.key(top, text, escaped)
			return
		}
		s.at = from
	}
	if !quoted && (text == "null" || text == "") {
		return
	}
	switch {
	case top.array:
		s.add(top.above, text, top.scope, s.doubt|ofArray)
	case top.keyed:
		s.add(top.here, text, top.scope, s.doubt)
	}
}

func (s *jsonScan) key(top *frame, text string, escaped bool) {
	top.keyed = true
	if top.depth > s.deepest { // no pointer leads here; a plain name needs only the last step, and that it is not the first
		s.path = append(s.path[:s.deepest], text)
	} else {
		s.path = append(s.path[:top.depth], text)
	}
	var spelled doubt
	if escaped {
		spelled = ofSpelling
	}
	top.here = s.under(top.above, s.path, spelled, top.arrays)
	if strings.ContainsAny(text, "[.") && !top.here.name && !top.here.password && top.depth == 0 {
		// A framework may take {"user[email]": …} apart.
		top.here.name, top.here.nameDoubt = flatMatch(s.names, text)
		top.here.password, top.here.passwordDoubt = flatMatch(s.passwords, text)
		top.here.nameDoubt |= ofSpelling
		top.here.passwordDoubt |= ofSpelling
	}
}

// skip passes over space and, if told to, comments.
func (s *jsonScan) skip() {
	for s.at < len(s.text) {
		switch b := s.text[s.at]; {
		case b <= ' ':
			s.at++
		case b >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(s.text[s.at:])
			if !unicode.IsSpace(r) && r != '\ufeff' {
				return
			}
			s.at += n
		case !s.comments:
			return
		case b == '#' || strings.HasPrefix(s.text[s.at:], "//"):
			s.to("\n")
		case strings.HasPrefix(s.text[s.at:], "/*"):
			s.at += 2
			s.to("*/")
		default:
			return
		}
	}
}

// to passes over everything up to and including mark.
func (s *jsonScan) to(mark string) {
	if i := strings.Index(s.text[s.at:], mark); i >= 0 {
		s.at += i + len(mark)
	} else {
		s.at = len(s.text)
	}
}

// bareword takes what stands without quotes: at least one byte.
func (s *jsonScan) bareword() string {
	from := s.at
	for s.at++; s.at < len(s.text); s.at++ {
		b := s.text[s.at]
		if b <= ' ' || strings.IndexByte(`{}[],:="`, b) >= 0 || b == '\'' && s.quotes {
			break
		}
		if s.comments && (b == '#' || b == '/') {
			break
		}
	}
	return s.text[from:s.at]
}

// quoted takes a string in quotes and resolves its escapes as encoding/json does;
// those it does not know stand for the character after the backslash.
func (s *jsonScan) quoted(quote byte) (text string, escaped bool) {
	from := s.at + 1
	for s.at = from; s.at < len(s.text) && s.text[s.at] != quote; s.at++ {
		if s.text[s.at] == '\\' {
			escaped = true
			s.at++
		}
	}
	raw := s.text[from:min(s.at, len(s.text))]
	s.at = min(s.at+1, len(s.text))
	if !escaped {
		return string([]rune(raw)), false // each invalid byte becomes U+FFFD
	}
	return unquote(raw), true
}

func unquote(raw string) string {
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			r, n := utf8.DecodeRuneInString(raw[i:])
			b.WriteRune(r)
			i += n
			continue
		}
		if i++; i >= len(raw) {
			break
		}
		escape := raw[i]
		i++
		switch escape {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'x':
			if r, ok := hexRune(raw[i:], 2); ok {
				b.WriteRune(r)
				i += 2
			} else {
				b.WriteByte('x')
			}
		case 'u':
			r, ok := hexRune(raw[i:], 4)
			if !ok {
				b.WriteByte('u')
				break
			}
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if strings.HasPrefix(raw[i:], `\u`) {
					low, _ = hexRune(raw[i+2:], 4)
				}
				if r = utf16.DecodeRune(r, low); r != unicode.ReplacementChar {
					i += 6
				}
			}
			b.WriteRune(r)
		default:
			i-- // it may be the start of a longer character
			r, n := utf8.DecodeRuneInString(raw[i:])
			b.WriteRune(r)
			i += n
		}
	}
	return b.String()
}

func hexRune(s string, digits int) (r rune, ok bool) {
	if len(s) < digits {
		return -1, false
	}
	for i := range digits {
		if !isHex(s[i]) {
			return -1, false
		}
		r = r<<4 | rune(unhex(s[i]))
	}
	return r, true
}
