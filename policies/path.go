package policies

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kidoban/kidoban/detectors"
)

// CanonicalPath is the path that the laxest backend might read in rawPath, as it
// came on the request line and without its query: percent-decoded as often as that
// changes anything, backslashes as slashes, the ;parameters of each segment
// dropped, repeated slashes merged, dot segments resolved, case folded, the
// trailing slash dropped. What follows a NUL, a question mark or a number sign is
// cut off, other control characters are dropped. It begins with a slash and is its
// own canonical path.
//
// ambiguous tells that rawPath had any of this but a trailing slash, so that two
// readers may take it for two routes. Routes are chosen by the canonical path; an
// honest client of most services never sends an ambiguous one.
//
// Plain lower-case paths cost one pass and no allocation, others one pass and a
// few allocations whatever is in them: percent signs that nest are decoded as they
// close.
func CanonicalPath(rawPath string) (canonical string, ambiguous bool) {
	if plainPath(rawPath) {
		if len(rawPath) > 1 && rawPath[len(rawPath)-1] == '/' {
			return rawPath[:len(rawPath)-1], false
		}
		return rawPath, false
	}
	if rawPath == "" {
		return "/", false
	}

	decoded := decodePath(rawPath)
	folded := foldPath(decoded)
	out := make([]byte, 0, len(folded)+1)
	for rest := folded; rest != ""; {
		var segment string
		segment, rest, _ = strings.Cut(rest, "/")
		segment, _, _ = strings.Cut(segment, ";")
		switch segment {
		case "", ".":
		case "..":
			if i := bytes.LastIndexByte(out, '/'); i >= 0 {
				out = out[:i]
			}
		default:
			out = append(append(out, '/'), segment...)
		}
	}
	if len(out) == 0 {
		out = append(out, '/')
	}
	canonical = string(out)
	plain := strings.TrimSuffix(rawPath, "/")
	return canonical, canonical != plain && canonical != rawPath
}

// plainPath reports whether the only difference between p and its canonical path
// can be a trailing slash.
func plainPath(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	for i := 0; i < len(p); i++ {
		c := p[i]
		if plainByte[c] {
			continue
		}
		if c != '/' {
			return false
		}
		// What follows a slash decides whether it begins an empty or a dot segment.
		if i+1 < len(p) && p[i+1] == '/' {
			return false
		}
		if i+1 < len(p) && p[i+1] == '.' {
			end := i + 2
			if end < len(p) && p[end] == '.' {
				end++
			}
			if end == len(p) || p[end] == '/' {
				return false
			}
		}
	}
	return true
}

// plainByte are the bytes that mean themselves within a segment.
var plainByte = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = !strings.ContainsRune(`/\%;?#`, c) && (c < 'A' || c > 'Z')
	}
	return t
}()

// decodePath decodes percent signs until none is left that two hexadecimal digits
// follow. A byte that is decoded may itself end such a triple, which is then
// decoded in turn, so one pass reaches the fixed point.
func decodePath(p string) string {
	out := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		c := p[i]
		for {
			// c would close a triple that out ends with.
			n := len(out)
			if n < 2 || out[n-2] != '%' {
				break
			}
			hi, lo := unhex(out[n-1]), unhex(c)
			if hi < 0 || lo < 0 {
				break
			}
			out = out[:n-2]
			c = byte(hi<<4 | lo)
		}
		switch {
		case c == 0, c == '?', c == '#':
			return string(out)
		case c < ' ', c == 0x7f:
		case c == '\\':
			out = append(out, '/')
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// foldPath folds case as [strings.EqualFold] compares: the Kelvin sign is a k.
// Bytes that are not UTF-8 become replacement characters.
func foldPath(p string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < utf8.RuneSelf:
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		case unicode.IsControl(r):
			return -1
		}
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return unicode.ToLower(least)
	}, p)
}

// Route gives a class to the requests that its methods and path describe.
type Route struct {
	Class   detectors.RouteClass `json:"class"`
	Methods []string             `json:"methods,omitempty"` // none: every method; GET includes HEAD
	Path    string               `json:"path"`              // literal segments, {x} for one segment, {x...} for the rest
	Admits  Admission            `json:"admits,omitempty"`

	segments []string // of Path; "" for one of any kind
	rest     bool     // ends in {x...}
}

// Admission is who may ask for a route at all.
type Admission string

const (
	AdmitsAnyone Admission = ""
	// AdmitsSessions is for what becomes authenticated by something the gate does not
	// see, such as a stream that a later request names: it must end with a session.
	AdmitsSessions Admission = "sessions"
	// AdmitsNobody is for doors whose credential is where the gate does not look,
	// such as a form's field. They are closed whatever the method.
	AdmitsNobody Admission = "nobody"
)

// routes finds the route of a request. Literal segments go before {x}, {x} before
// {x...}, the same as in net/http.
type routes struct {
	exact    map[string][]Route
	patterns []Route // the most specific first
}

func newRoutes(all []Route) routes {
	r := routes{exact: make(map[string][]Route)}
	for _, route := range all {
		if !strings.Contains(route.Path, "{") {
			r.exact[route.Path] = append(r.exact[route.Path], route)
		} else {
			r.patterns = append(r.patterns, route)
		}
	}
	slices.SortStableFunc(r.patterns, func(a, b Route) int {
		for i := range min(len(a.segments), len(b.segments)) {
			switch x, y := a.segments[i], b.segments[i]; {
			case x != "" && y == "":
				return -1
			case x == "" && y != "":
				return 1
			}
		}
		switch {
		case len(a.segments) != len(b.segments):
			return len(b.segments) - len(a.segments)
		case a.rest != b.rest && a.rest:
			return 1
		case a.rest != b.rest:
			return -1
		}
		return byMethods(a, b)
	})
	for _, same := range r.exact {
		slices.SortStableFunc(same, byMethods)
	}
	return r
}

// byMethods puts routes that name their methods before those that take every one.
func byMethods(a, b Route) int {
	return min(len(b.Methods), 1) - min(len(a.Methods), 1)
}

func (r *routes) class(method, path string) detectors.RouteClass {
	if route := r.find(method, path); route != nil {
		return route.Class
	}
	return detectors.Other
}

// find is nil when no route covers the request.
func (r *routes) find(method, path string) *Route {
	for i := range r.exact[path] {
		if route := &r.exact[path][i]; route.takes(method) {
			return route
		}
	}
	for i := range r.patterns {
		if route := &r.patterns[i]; route.covers(path) && route.takes(method) {
			return route
		}
	}
	return nil
}

func (r *Route) takes(method string) bool {
	if len(r.Methods) == 0 {
		return true
	}
	for _, m := range r.Methods {
		if strings.EqualFold(m, method) || m == "GET" && strings.EqualFold(method, "HEAD") {
			return true
		}
	}
	return false
}

// covers reports whether the canonical path is one that the pattern describes.
// The rest may be empty: a canonical path has no trailing slash.
func (r *Route) covers(path string) bool {
	if path == "/" {
		return r.rest && len(r.segments) == 0
	}
	for _, want := range r.segments {
		if path == "" {
			return false
		}
		path = path[1:]
		end := strings.IndexByte(path, '/')
		if end < 0 {
			end = len(path)
		}
		if want != "" && path[:end] != want {
			return false
		}
		path = path[end:]
	}
	return r.rest || path == ""
}

// parsePattern reads a path pattern.
func parsePattern(p string) (segments []string, rest bool, err error) {
	if !strings.HasPrefix(p, "/") {
		return nil, false, fmt.Errorf("path %q: begin with a slash", p)
	}
	if p == "/" {
		return nil, false, nil
	}
	parts := strings.Split(p[1:], "/")
	for i, part := range parts {
		name, isVariable := strings.CutPrefix(part, "{")
		if !isVariable {
			if c, _ := CanonicalPath("/" + part); part == "" || c != "/"+part || strings.ContainsAny(part, "{}") {
				return nil, false, fmt.Errorf("path %q: segment %q is not canonical; write it decoded, in lower case and without empty or dot segments", p, part)
			}
			segments = append(segments, part)
			continue
		}
		name, closed := strings.CutSuffix(name, "}")
		name, dots := strings.CutSuffix(name, "...")
		switch {
		case !closed || name == "" || strings.ContainsAny(name, "{}."):
			return nil, false, fmt.Errorf("path %q: %q is no variable; write {name} for one segment or {name...} for the rest", p, part)
		case dots && i != len(parts)-1:
			return nil, false, fmt.Errorf("path %q: %s must be the last segment", p, part)
		case dots:
			return segments, true, nil
		}
		segments = append(segments, "")
	}
	return segments, false, nil
}
