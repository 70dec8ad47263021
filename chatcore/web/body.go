package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// The bounds of bodies, in bytes.
const (
	bodyMax        = 64 << 10
	messageBodyMax = 1 << 20 // chat.MessageMax characters, each up to twelve bytes when escaped
)

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

var errType = chat.Errorf(chat.Unsupported, "The content type must be %s or %s", formType, jsonType)

// wantsJSON reports whether a request that may be a form or JSON is the
// latter. The content type decides; without a body it is the Accept header.
func wantsJSON(r *http.Request) bool {
	if r.Header.Get("Content-Type") != "" {
		t, _ := mediaType(r)
		return t == jsonType
	}
	return strings.Contains(r.Header.Get("Accept"), jsonType)
}

// mediaType is the type of a request's body. Two content types, a coded body
// and a character set that is not UTF-8 are refused: one reader would take
// them one way and another otherwise.
func mediaType(r *http.Request) (string, error) {
	if len(r.Header.Values("Content-Type")) > 1 || len(r.Header.Values("Content-Encoding")) > 0 {
		return "", errType
	}
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return "", errType
	}
	if c, ok := params["charset"]; ok && !strings.EqualFold(c, "utf-8") {
		return "", errType
	}
	return t, nil
}

// readFields reads a form or a JSON object of strings into the named fields;
// absent ones are empty. A form may hold other fields, an object may not.
func readFields(w http.ResponseWriter, r *http.Request, names ...string) (map[string]string, error) {
	t, err := mediaType(r)
	if err != nil {
		return nil, err
	}
	body, err := readBody(w, r, bodyMax)
	if err != nil {
		return nil, err
	}
	return decodeFields(t, body, names...)
}

func decodeFields(mediaType string, body []byte, names ...string) (map[string]string, error) {
	switch mediaType {
	case formType:
		form, err := decodeForm(body)
		if err != nil {
			return nil, err
		}
		fields := map[string]string{}
		for _, n := range names {
			fields[n] = form.Get(n)
		}
		return fields, nil
	case jsonType:
		return decodeObject(body, names...)
	}
	return nil, errType
}

// readForm reads the form of an API request, whatever its method: net/http
// reads none for DELETE. No body is an empty form.
func readForm(w http.ResponseWriter, r *http.Request, max int64) (url.Values, error) {
	body, err := readBody(w, r, max)
	if err != nil || len(body) == 0 {
		return url.Values{}, err
	}
	switch t, err := mediaType(r); {
	case err != nil:
		return nil, err
	case t != formType:
		return nil, chat.Errorf(chat.Unsupported, "The content type must be %s", formType)
	}
	return decodeForm(body)
}

func readBody(w http.ResponseWriter, r *http.Request, max int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, max))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, chat.Errorf(chat.TooLarge, "The body must have at most %d bytes", max)
	}
	if err != nil {
		return nil, chat.Errorf(chat.Invalid, "The body ended early")
	}
	return body, nil
}

// decodeForm reads a form. The first of two equal fields wins, by Get.
func decodeForm(body []byte) (url.Values, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, chat.Errorf(chat.Invalid, "The form is malformed")
	}
	for _, values := range form {
		if slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }) {
			return nil, chat.Errorf(chat.Invalid, "The form is not UTF-8")
		}
	}
	return form, nil
}

// decodeObject reads a JSON object of strings. Unlike encoding/json it
// refuses a name written twice, in other capitals or not among names, and
// text that is not UTF-8.
func decodeObject(body []byte, names ...string) (map[string]string, error) {
	malformed := chat.Errorf(chat.Invalid, "The body must be one JSON object of strings")
	if !utf8.Valid(body) {
		return nil, malformed
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, malformed
	}
	fields := map[string]string{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, malformed
		}
		value, err := d.Token()
		if err != nil {
			return nil, malformed
		}
		k, ok1 := name.(string)
		v, ok2 := value.(string)
		_, twice := fields[k]
		switch {
		case !ok1 || !ok2 || twice:
			return nil, malformed
		case !slices.Contains(names, k):
			return nil, chat.Errorf(chat.Invalid, "The object may hold %s only", strings.Join(names, ", "))
		}
		fields[k] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, malformed
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, malformed
	}
	return fields, nil
}
