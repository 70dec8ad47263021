package attempt

import (
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// collector gathers what all readings of a request find.
type collector struct {
	names, passwords []target
	deepest          int // steps of the longest target

	fields []field
	scopes []int // the enclosing scope of each; scope 0 is the request itself, and -1 encloses it
	doubts doubt // about the request as a whole
	json   bool  // the body looks like JSON
}

// target is a field a Reader was told of.
type target struct {
	steps     []string
	bare      []string // steps without anything but letters and digits
	pointer   bool
	bracketed string // as a form field: user[email]
}

// field is one value found under a target.
type field struct {
	value    string
	password bool
	doubt    doubt // 0: a backend is expected to take it
	scope    int
}

func newCollector(rd Reader) *collector {
	c := &collector{names: targets(rd.NameFields), passwords: targets(rd.PasswordFields), scopes: []int{-1}, deepest: 1}
	for _, t := range slices.Concat(c.names, c.passwords) {
		c.deepest = max(c.deepest, len(t.steps))
	}
	return c
}

func targets(fields []string) []target {
	list := make([]target, 0, len(fields))
	for _, f := range fields {
		t := target{steps: []string{f}}
		if rest, ok := strings.CutPrefix(f, "/"); ok {
			t.pointer = true
			t.steps = strings.Split(rest, "/")
			for i, s := range t.steps { // RFC 6901 section 4
				t.steps[i] = strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
			}
		}
		t.bracketed = t.steps[0]
		for _, s := range t.steps[1:] {
			t.bracketed += "[" + s + "]"
		}
		for _, s := range t.steps {
			t.bare = append(t.bare, bare(s))
		}
		list = append(list, t)
	}
	return list
}

// bare leaves of a field's name what the laxest framework compares: everything up
// to a NUL, and of that letters and digits. PHP turns dots and spaces into
// underscores, others drop underscores and dashes, most trim.
func bare(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	keep := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	if !strings.ContainsFunc(s, func(r rune) bool { return !keep(r) }) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if keep(r) && r != utf8.RuneError {
			return r
		}
		return -1
	}, s)
}

// named reports whether key may stand for step i of t, and whether it is written
// as declared. Letters compare as encoding/json folds them (ſ is s, K is k).
func (t *target) named(i int, key string) (same, exact bool) {
	if key == t.steps[i] {
		return true, true
	}
	if strings.EqualFold(key, t.steps[i]) {
		return true, false
	}
	return t.bare[i] != "" && strings.EqualFold(bare(key), t.bare[i]), false
}

// place is what is known of a place in a document: whether a name or a password
// is looked for there, and what speaks against it.
type place struct {
	name, password           bool
	nameDoubt, passwordDoubt doubt
}

// under is the place of key in a document, of which path (key included) leads
// from the top and parent is the place above. Only the first deepest steps of a
// path are looked at, so a path need not be longer than one more.
func (c *collector) under(parent place, path []string, spelled doubt, array bool) place {
	var p place
	p.name, p.nameDoubt = match(c.names, parent.name, parent.nameDoubt, path, spelled, array)
	p.password, p.passwordDoubt = match(c.passwords, parent.password, parent.passwordDoubt, path, spelled, array)
	return p
}

func match(targets []target, above bool, aboveDoubt doubt, path []string, spelled doubt, array bool) (found bool, d doubt) {
	if above {
		return true, aboveDoubt | ofPlace // an operator, such as {"email": {"$in": […]}}
	}
	for i := range targets {
		t := &targets[i]
		ok, this := t.at(path, spelled, array)
		if ok && (!found || this < d) {
			found, d = true, this
		}
	}
	return found, d
}

// at reports whether path leads to t, and what is odd about it.
func (t *target) at(path []string, d doubt, array bool) (bool, doubt) {
	if !t.pointer {
		same, exact := t.named(0, path[len(path)-1])
		if !exact {
			d |= ofSpelling
		}
		if len(path) > 1 {
			d |= ofPlace
		}
		if array {
			d |= ofArray
		}
		return same, d
	}
	skipped := len(t.steps) - len(path) // steps that a framework would wrap around path
	if skipped < 0 {
		return false, 0
	}
	if skipped > 0 {
		d |= ofPlace
	}
	for i, key := range path {
		same, exact := t.named(skipped+i, key)
		if !same {
			return false, 0
		}
		if !exact {
			d |= ofSpelling
		}
	}
	return true, d
}

// add takes a value found at p.
func (c *collector) add(p place, value string, scope int, d doubt) {
	if value == "" {
		return
	}
	if p.name {
		c.fields = append(c.fields, field{value, false, p.nameDoubt | d, scope})
	}
	if p.password {
		c.fields = append(c.fields, field{value, true, p.passwordDoubt | d, scope})
	}
}

// flat takes the value of a form field, whose name may say a path: user[email],
// user.email, email[].
func (c *collector) flat(key, value string, d doubt) {
	if len(key) == 0 || value == "" {
		return
	}
	p := place{}
	p.name, p.nameDoubt = flatMatch(c.names, key)
	p.password, p.passwordDoubt = flatMatch(c.passwords, key)
	c.add(p, value, 0, d)
}

func flatMatch(targets []target, key string) (found bool, d doubt) {
	var path []string
	if strings.ContainsAny(key, "[.") {
		for step := range strings.FieldsFuncSeq(key, func(r rune) bool { return r == '[' || r == ']' || r == '.' }) {
			if strings.Trim(step, "0123456789") != "" { // an index leads through an array
				path = append(path, step)
			}
		}
	}
	take := func(this doubt) {
		if !found || this < d {
			found, d = true, this
		}
	}
	for i := range targets {
		t := &targets[i]
		if key == t.bracketed {
			return true, 0
		}
		if ok, this := t.at([]string{key}, 0, false); ok {
			if len(t.steps) == 1 || !t.pointer {
				take(this)
			} else {
				take(this | ofPlace)
			}
		}
		for n := range path {
			if !t.pointer {
				if same, _ := t.named(0, path[n]); same {
					this := ofSpelling
					if len(path) > 1 {
						this |= ofPlace
					}
					take(this)
				}
			} else if n < len(t.steps) {
				if ok, this := t.at(path[:n+1], ofSpelling, false); ok {
					if n+1 < len(path) {
						this |= ofPlace
					}
					take(this)
				}
			}
		}
	}
	return found, d
}

// read follows every reading of a request.
func (c *collector) read(r *http.Request, body []byte, t mediaType) {
	inQuery := ofPlace
	if len(body) == 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "") {
		inQuery = 0
	}
	if r.URL != nil {
		c.form(r.URL.RawQuery, inQuery)
	}
	if len(body) == 0 {
		return
	}
	c.doubts |= t.doubt
	if t.kind == noType || t.kind == otherType {
		c.doubts |= ofType
	}
	readings, charset := decodings(body, t.charset)
	c.doubts |= charset
	for i, reading := range readings {
		c.readText(reading.text, reading.doubt, t, i == 0)
	}
	if (t.kind == noType || t.kind == otherType) && !slices.ContainsFunc(c.fields, func(f field) bool { return !f.password }) {
		for _, reading := range readings {
			c.lines(reading.text, "=", reading.doubt|ofType)
			c.lines(reading.text, ":", reading.doubt|ofType)
		}
	}
}

// readText follows every reading of a body in one character set; first is the
// one that was declared.
func (c *collector) readText(text string, d doubt, t mediaType, first bool) {
	as := func(k kind) doubt {
		if t.kind == k {
			return d
		}
		return d | ofType
	}
	if first && t.kind != multipartType && !utf8.ValidString(text) {
		c.doubts |= ofUTF8
	}
	looks := looksJSON(text)
	if t.kind == jsonType || looks {
		faults := jsonFaults(text)
		c.jsonText(text, as(jsonType), faults != 0)
		if first && t.kind == jsonType {
			c.doubts |= faults
		}
		c.json = c.json || looks
	}
	c.formText(text, as(formType), t.kind == formType || t.kind == noType || t.kind == otherType, t.charset)
	if faults, found := c.multipart(text, as(multipartType), t); first && t.kind == multipartType {
		c.doubts |= faults
		if !found {
			c.doubts |= ofSyntax
		}
	}
	if t.kind == textType {
		c.lines(text, "=", d)
	}
}

// lines reads a name, a mark and a value line by line: a form sent as text/plain,
// or a format we do not know.
func (c *collector) lines(text, mark string, d doubt) {
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if key, value, ok := strings.Cut(line, mark); ok {
			c.flat(key, strings.TrimLeft(value, " \t"), d)
		}
	}
}

// pairs joins names with the passwords they may be tried with and tells what is
// doubtful about the whole.
func (c *collector) pairs() ([]Pair, doubt) {
	doubts := c.doubts | c.disagreements()
	type side struct{ names, passwords []string }
	sides := make([]side, len(c.scopes))
	type once struct {
		scope    int
		password bool
		value    string
	}
	seen := make(map[once]bool, len(c.fields))
	for _, expected := range []bool{true, false} { // those expected come first
		for _, f := range c.fields {
			if (f.doubt == 0) != expected || seen[once{f.scope, f.password, f.value}] {
				continue
			}
			seen[once{f.scope, f.password, f.value}] = true
			if s := &sides[f.scope]; f.password {
				s.passwords = append(s.passwords, f.value)
			} else {
				s.names = append(s.names, f.value)
			}
		}
	}
	// The passwords, and names, of a scope are its own or those of the nearest
	// scope around it that has any. Scopes come after those around them.
	var (
		names, passwords = make([]int, len(sides)), make([]int, len(sides))
		used             = make([]bool, len(sides)) // its names are tried with a password
	)
	for s := range sides {
		names[s], passwords[s] = s, s
		if above := c.scopes[s]; above >= 0 {
			if len(sides[s].names) == 0 {
				names[s] = names[above]
			}
			if len(sides[s].passwords) == 0 {
				passwords[s] = passwords[above]
			}
		}
		if len(sides[s].passwords) > 0 {
			used[names[s]] = true
		}
		if len(sides[passwords[s]].passwords) > 0 {
			used[s] = true
		}
	}
	var list []Pair
	have := make(map[Pair]bool)
	for s := range sides {
		if len(sides[s].names) == 0 && len(sides[s].passwords) == 0 {
			continue
		}
		tried := sides[passwords[s]].passwords
		if len(tried) == 0 && !used[s] {
			tried = []string{""}
		}
		for _, name := range sides[names[s]].names {
			for _, password := range tried {
				p := Pair{name, password}
				if have[p] {
					continue
				}
				if len(list) == MaxPairs {
					return list, doubts | ofMany
				}
				have[p] = true
				list = append(list, p)
			}
		}
	}
	if len(list) == 0 {
		doubts |= ofNone
	}
	return list, doubts
}

// disagreements collects the doubts about fields that say something else than
// those expected, and about expected ones that differ among themselves. A field
// found twice with one value leaves nothing to choose.
func (c *collector) disagreements() (doubts doubt) {
	type slot struct {
		password bool
		scope    int
	}
	type said struct {
		password bool
		value    string
	}
	first := make(map[slot]string)
	expected := make(map[said]bool)
	for _, f := range c.fields {
		if f.doubt != 0 {
			continue
		}
		expected[said{f.password, f.value}] = true
		at := slot{f.password, f.scope}
		if value, ok := first[at]; ok && value != f.value {
			doubts |= ofDuplicate
		}
		first[at] = f.value
	}
	for _, f := range c.fields {
		if f.doubt != 0 && !expected[said{f.password, f.value}] {
			doubts |= f.doubt
		}
	}
	return doubts
}
