package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep a body may nest.
const maxDepth = 16

func broken(format string, args ...any) error {
	return &Problem{Type: typeBroken, Status: http.StatusBadRequest, Title: "The body cannot be read", Detail: fmt.Sprintf(format, args...)}
}

// decode reads the body of a call into the struct that v points to. The body is one
// JSON object in UTF-8 (RFC 8259) whose members are the struct's, by their exact
// names, each at most once; nothing follows it.
func decode(c *call, v any) error {
	kind, params, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if charset, given := params["charset"]; err != nil || kind != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
		return &Problem{Type: typeMedia, Status: http.StatusUnsupportedMediaType, Title: "JSON is needed", Detail: "send Content-Type: application/json"}
	}
	if c.Header.Get("Content-Encoding") != "" {
		return &Problem{Type: typeMedia, Status: http.StatusUnsupportedMediaType, Title: "The body may not be encoded", Detail: "send it without Content-Encoding"}
	}
	return decodeJSON(c.body, v)
}

func decodeJSON(body []byte, v any) error {
	if !utf8.Valid(body) {
		return broken("it is not UTF-8")
	}
	known := make(map[string]bool)
	for f := range reflect.TypeOf(v).Elem().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = true
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return broken("want a JSON object")
	}
	if err := members(d, 1, known); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return broken("something follows the object, at byte %d", d.InputOffset())
	}
	if err := json.Unmarshal(body, v); err != nil {
		if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return invalid([]Fault{{Pointer: "#/" + escape(kind.Field), Detail: "is a " + kind.Value + ": want a " + kind.Type.String()}})
		}
		return broken("%v", err)
	}
	return nil
}

// members checks an object whose brace was read. Members other than the known ones
// are refused unless known is nil.
func members(d *json.Decoder, depth int, known map[string]bool) error {
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return broken("it is not JSON, at byte %d", d.InputOffset())
		}
		name := t.(string) // the decoder accepts nothing else here
		switch {
		case seen[name]:
			return broken("the member %s is given twice", strconv.Quote(cut(name)))
		case known != nil && !known[name]:
			return broken("the member %s is not known", strconv.Quote(cut(name)))
		}
		seen[name] = true
		if err := value(d, depth); err != nil {
			return err
		}
	}
	return closing(d)
}

// value checks the next value.
func value(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return broken("it is not JSON, at byte %d", d.InputOffset())
	}
	if depth >= maxDepth {
		return broken("it nests more than %d deep", maxDepth)
	}
	switch t {
	case json.Delim('{'):
		return members(d, depth+1, nil)
	case json.Delim('['):
		for d.More() {
			if err := value(d, depth+1); err != nil {
				return err
			}
		}
		return closing(d)
	}
	return nil
}

func closing(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return broken("it is not JSON, at byte %d", d.InputOffset())
	}
	return nil
}

// escape writes a name as a reference token of a JSON pointer (RFC 6901 section 3).
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
