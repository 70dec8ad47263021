package attempt

import (
	"mime"
	"strings"
)

// kind is the content type a request declares, as far as it matters here.
type kind int

const (
	otherType kind = iota
	noType
	jsonType
	formType
	multipartType
	textType
)

// mediaType is what a request declares its body to be.
type mediaType struct {
	kind       kind
	charset    string   // lower case; empty: UTF-8, or none declared
	boundaries []string // every one that some parser may find
	doubt      doubt    // the declaration itself can be read in several ways
}

// declared reads the Content-Type fields of a request as leniently as any parser.
func declared(lines []string) mediaType {
	if len(lines) == 0 || len(lines) == 1 && strings.TrimSpace(lines[0]) == "" {
		return mediaType{kind: noType}
	}
	var t mediaType
	if len(lines) > 1 {
		t.doubt |= ofType
	}
	for i, line := range lines {
		if _, _, err := mime.ParseMediaType(line); err != nil {
			t.doubt |= ofType
		}
		base, rest, _ := strings.Cut(line, ";")
		if i == 0 {
			t.kind = kindOf(strings.ToLower(strings.TrimSpace(base)))
		}
		for _, p := range parameters(rest) {
			switch {
			case p.key == "charset" && !isUTF8(p.value) && t.charset == "":
				t.charset = strings.ToLower(p.value)
			case p.key == "boundary" && p.value != "":
				t.boundaries = append(t.boundaries, p.value)
			}
		}
		// mime.ParseMediaType also joins continuations (boundary*0=…).
		if _, params, err := mime.ParseMediaType(line); err == nil && params["boundary"] != "" {
			t.boundaries = append(t.boundaries, params["boundary"])
		}
	}
	if t.charset != "" {
		t.doubt |= ofCharset
	}
	return t
}

func kindOf(base string) kind {
	switch {
	case base == "application/json", base == "text/json", strings.HasSuffix(base, "+json"):
		return jsonType
	case base == "application/x-www-form-urlencoded":
		return formType
	case base == "multipart/form-data":
		return multipartType
	case base == "text/plain":
		return textType
	}
	return otherType
}

func isUTF8(charset string) bool {
	switch strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return true
	}
	return false
}

// parameter is one of a Content-Type or Content-Disposition field.
type parameter struct {
	key, value string
}

// parameters splits "; a=b; c=\"d;e\"" without insisting on anything. A quoted
// value is given as RFC 2616 reads it and, when that differs, once more without
// resolving backslashes, as browsers mean it (a path of Windows).
func parameters(s string) []parameter {
	var found []parameter
	for s != "" {
		s = strings.TrimLeft(s, "; \t\r\n")
		end := strings.IndexAny(s, "=;")
		if end < 0 {
			break
		}
		if s[end] == ';' {
			s = s[end:]
			continue
		}
		key := strings.ToLower(strings.TrimSpace(s[:end]))
		s = strings.TrimLeft(s[end+1:], " \t")
		if s == "" || s[0] != '"' && s[0] != '\'' {
			end = strings.IndexByte(s, ';')
			if end < 0 {
				end = len(s)
			}
			found = append(found, parameter{key, strings.TrimSpace(s[:end])})
			s = s[end:]
			continue
		}
		quote := s[0]
		var plain strings.Builder
		i := 1
		for ; i < len(s) && s[i] != quote; i++ {
			if s[i] == '\\' && i+1 < len(s) {
				i++
			}
			plain.WriteByte(s[i])
		}
		found = append(found, parameter{key, plain.String()})
		if raw := s[1:min(i, len(s))]; raw != plain.String() {
			found = append(found, parameter{key, raw})
		}
		if quote == '\'' { // to others the quotes are part of the value
			found = append(found, parameter{key, s[:min(i+1, len(s))]})
		}
		s = s[min(i+1, len(s)):]
		if next := strings.IndexByte(s, ';'); next >= 0 {
			s = s[next:]
		} else {
			s = ""
		}
	}
	return found
}
