package policies

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Answer is a backend's answer, as far as it was read.
type Answer struct {
	Status    int
	Header    http.Header
	Body      []byte // at most 64 KiB are looked at
	Truncated bool   // Body is not all of it
}

const maxAnswer = 64 << 10

// Condition is true of an answer when all of its fields that are set are.
type Condition struct {
	Status       []int            `json:"status,omitempty"`        // one of these
	Header       *HeaderCondition `json:"header,omitempty"`        // one of its values matches
	Cookie       string           `json:"cookie,omitempty"`        // is set, to something and not in the past
	Redirect     string           `json:"redirect,omitempty"`      // glob of Location, as sent or its path; * is any text
	Elsewhere    []string         `json:"elsewhere,omitempty"`     // Location is there, and none of these globs fits
	BodyContains string           `json:"body_contains,omitempty"` // in what was read of the body
	JSON         *JSONCondition   `json:"json,omitempty"`          // never true of a truncated body
}

// HeaderCondition is true when a value of the header matches.
type HeaderCondition struct {
	Name    string `json:"name"`
	Matches string `json:"matches"` // RE2, anywhere in the value

	re *regexp.Regexp
}

// JSONCondition is true of what a pointer (RFC 6901) finds in a JSON body.
type JSONCondition struct {
	Pointer string  `json:"pointer"`
	Equals  *string `json:"equals,omitempty"` // the text of a string, number, boolean or null
	Exists  *bool   `json:"exists,omitempty"` // an explicit null exists
}

// reading is an answer while conditions are tried on it: its body is parsed at
// most once.
type reading struct {
	Answer
	tried bool
	ok    bool
	value any
}

func newReading(a Answer) *reading {
	if len(a.Body) > maxAnswer {
		a.Body, a.Truncated = a.Body[:maxAnswer], true
	}
	return &reading{Answer: a}
}

// json is the body as a JSON value.
func (r *reading) json() (any, bool) {
	if !r.tried {
		r.tried = true
		if !r.Truncated {
			d := json.NewDecoder(bytes.NewReader(r.Body))
			d.UseNumber()
			r.ok = d.Decode(&r.value) == nil && !d.More()
		}
	}
	return r.value, r.ok
}

func (r *reading) any(conditions []Condition) bool {
	return slices.ContainsFunc(conditions, func(c Condition) bool { return c.holds(r) })
}

func (c *Condition) holds(r *reading) bool {
	if len(c.Status) > 0 && !slices.Contains(c.Status, r.Status) {
		return false
	}
	if c.Header != nil && !slices.ContainsFunc(r.Header.Values(c.Header.Name), c.Header.re.MatchString) {
		return false
	}
	if c.Cookie != "" && !setsCookie(r.Header, c.Cookie) {
		return false
	}
	if c.Redirect != "" && !redirects(r.Header.Get("Location"), c.Redirect) {
		return false
	}
	if location := r.Header.Get("Location"); len(c.Elsewhere) > 0 && (location == "" ||
		slices.ContainsFunc(c.Elsewhere, func(glob string) bool { return redirects(location, glob) })) {
		return false
	}
	if c.BodyContains != "" && !bytes.Contains(r.Body, []byte(c.BodyContains)) {
		return false
	}
	return c.JSON == nil || c.JSON.holds(r)
}

func (c *JSONCondition) holds(r *reading) bool {
	root, ok := r.json()
	if !ok {
		return false
	}
	v, found := lookup(root, c.Pointer)
	if c.Exists != nil && *c.Exists != found {
		return false
	}
	if c.Equals != nil {
		text, scalar := scalarText(v)
		return found && scalar && text == *c.Equals
	}
	return true
}

// setsCookie reports whether an answer gives the cookie a value that a client
// keeps. Taking a cookie away is not setting it.
func setsCookie(h http.Header, name string) bool {
	for _, line := range h.Values("Set-Cookie") {
		c, err := http.ParseSetCookie(line)
		if err != nil || c.Name != name || c.Value == "" || c.MaxAge < 0 {
			continue
		}
		// Without a clock, only the customary dates of deletion are recognised.
		if c.MaxAge == 0 && !c.Expires.IsZero() && c.Expires.Year() < 2000 {
			continue
		}
		return true
	}
	return false
}

func redirects(location, glob string) bool {
	if location == "" {
		return false
	}
	if globMatches(glob, location) {
		return true
	}
	u, err := url.Parse(location)
	return err == nil && globMatches(glob, u.EscapedPath())
}

// globMatches reports whether s matches a pattern in which * is any text. It takes
// time proportional to both lengths at most.
func globMatches(glob, s string) bool {
	parts := strings.Split(glob, "*")
	if len(parts) == 1 {
		return s == glob
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

// checkPointer reports what is wrong with a JSON pointer.
func checkPointer(p string) error {
	if p != "" && !strings.HasPrefix(p, "/") {
		return fmt.Errorf("%.64q is no JSON pointer; begin it with a slash, as in /account/id", p)
	}
	for i := 0; i < len(p); i++ {
		if p[i] == '~' && (i+1 == len(p) || p[i+1] != '0' && p[i+1] != '1') {
			return fmt.Errorf("%.64q is no JSON pointer; write ~0 for ~ and ~1 for a slash in a name", p)
		}
	}
	return nil
}

// lookup is what a JSON pointer finds.
func lookup(v any, pointer string) (any, bool) {
	if pointer == "" {
		return v, true
	}
	for token := range strings.SplitSeq(pointer[1:], "/") {
		token = unescapePointer.Replace(token)
		switch t := v.(type) {
		case map[string]any:
			next, ok := t[token]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(t) || strconv.Itoa(i) != token {
				return nil, false
			}
			v = t[i]
		default:
			return nil, false
		}
	}
	return v, true
}

var unescapePointer = strings.NewReplacer("~1", "/", "~0", "~")

// scalarText is the text of a JSON string, number, boolean or null.
func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	case nil:
		return "null", true
	}
	return "", false
}
