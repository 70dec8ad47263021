package sigv4

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is path and query as the client sent them.
func target(r *http.Request) (path, query string) {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, query, _ = strings.Cut(r.RequestURI, "?")
		return path, query
	}
	return r.URL.EscapedPath(), r.URL.RawQuery
}

// signedDate is the date that the signature covers.
func signedDate(r *http.Request, signed []string) (time.Time, error) {
	if values := r.Header.Values("X-Amz-Date"); len(values) > 0 {
		if len(values) > 1 {
			return time.Time{}, fmt.Errorf("x-amz-date is given %d times", len(values))
		}
		if !slices.Contains(signed, "x-amz-date") {
			return time.Time{}, errors.New("the list SignedHeaders must include x-amz-date")
		}
		t, err := time.Parse(isoBasic, values[0])
		if err != nil {
			return time.Time{}, errors.New("x-amz-date is not of the form 20060102T150405Z")
		}
		return t, nil
	}
	values := r.Header.Values("Date")
	if len(values) != 1 || !slices.Contains(signed, "date") {
		return time.Time{}, errors.New("the request needs x-amz-date, or else one date, among its signed headers")
	}
	t, err := time.Parse(isoBasic, values[0])
	if err != nil {
		t, err = http.ParseTime(values[0])
	}
	if err != nil {
		return time.Time{}, errors.New("date is not a date of HTTP (RFC 9110 section 5.6.7)")
	}
	return t.UTC(), nil
}

// canonicalHeaders is a line for each signed header: its values with single spaces
// and commas between.
func canonicalHeaders(r *http.Request, signed []string) (string, error) {
	var b strings.Builder
	for _, name := range signed {
		values := r.Header.Values(name)
		switch {
		case name == "host":
			values = []string{r.Host}
		case name == "content-length" && len(values) == 0 && r.ContentLength >= 0:
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		if len(values) == 0 {
			return "", fmt.Errorf("the header %s is signed but not there", name)
		}
		b.WriteString(name)
		b.WriteByte(':')
		for i, v := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(singleSpaced(v))
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// singleSpaced is v without blanks at its ends and with one space for several.
func singleSpaced(v string) string {
	v = strings.Trim(v, " \t")
	for strings.Contains(v, "  ") {
		v = strings.ReplaceAll(v, "  ", " ")
	}
	return v
}

// canonicalPaths are the forms in which a path may be signed, without repetition.
func canonicalPaths(sent string) []string {
	if sent == "" {
		sent = "/"
	}
	paths := []string{encode(withoutDots(sent), true)}
	also := func(p string) {
		if !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	also(encode(sent, true))
	if !strings.Contains(sent, "%25") {
		also(sent)
	}
	return paths
}

// withoutDots removes dot segments (RFC 3986 section 5.2.4) and empty segments.
func withoutDots(path string) string {
	var kept []string
	last := ""
	for segment := range strings.SplitSeq(path, "/") {
		last = segment
		switch segment {
		case "", ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, segment)
		}
	}
	out := "/" + strings.Join(kept, "/")
	if (last == "" || last == "." || last == "..") && out != "/" {
		out += "/"
	}
	return out
}

// canonicalQueries are the forms in which a query may be signed: sorted, and as sent.
func canonicalQueries(sent string) []string {
	sorted := sortedQuery(sent)
	if sorted == sent {
		return []string{sent}
	}
	return []string{sorted, sent}
}

// sortedQuery is the query with each name and value decoded and encoded again, in
// ascending order of names, then values. A plus sign is a space, as our handlers
// read it.
func sortedQuery(sent string) string {
	if sent == "" {
		return ""
	}
	type pair struct{ name, value string }
	var pairs []pair
	for part := range strings.SplitSeq(sent, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		pairs = append(pairs, pair{encode(decode(name), false), encode(decode(value), false)})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.name + "=" + p.value)
	}
	return b.String()
}

// decode undoes percent encoding; what is not such stays as it is.
func decode(s string) string {
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	return s
}

// encode writes every byte that is not unreserved (RFC 3986 section 2.3) as %XX.
func encode(s string, keepSlashes bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/' && keepSlashes:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// presigned reports whether the query is that of a presigned address.
func presigned(query string) bool {
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		switch strings.ToLower(decode(name)) {
		case "x-amz-signature", "x-amz-credential", "x-amz-algorithm":
			return true
		}
	}
	return false
}
