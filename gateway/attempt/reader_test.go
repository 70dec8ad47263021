package attempt_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/attempt"
)

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"
)

var plain = attempt.Reader{NameFields: []string{"email"}, PasswordFields: []string{"password"}}

// pairs reads "a:p b:q" as two pairs.
func pairs(text string) []attempt.Pair {
	var list []attempt.Pair
	for _, word := range strings.Fields(text) {
		name, password, _ := strings.Cut(word, ":")
		list = append(list, attempt.Pair{Name: name, Password: password})
	}
	return list
}

// compare shows passwords, as printing a pair would not.
func compare(got, want []attempt.Pair) string {
	show := func(list []attempt.Pair) []string {
		var out []string
		for _, p := range list {
			out = append(out, fmt.Sprintf("%q %q", p.Name, p.Password))
		}
		return out
	}
	return cmp.Diff(show(want), show(got))
}

func utf16le(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

func utf16be(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u>>8), byte(u))
	}
	return string(b)
}

func utf32be(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r>>24), byte(r>>16), byte(r>>8), byte(r))
	}
	return string(b)
}

// ibm037 writes lower-case letters and what JSON needs in EBCDIC.
func ibm037(s string) string {
	table := map[rune]byte{'{': 0xc0, '}': 0xd0, '"': 0x7f, ':': 0x7a, ',': 0x6b}
	for i, r := range "abcdefghi" {
		table[r] = 0x81 + byte(i)
	}
	for i, r := range "jklmnopqr" {
		table[r] = 0x91 + byte(i)
	}
	for i, r := range "stuvwxyz" {
		table[r] = 0xa2 + byte(i)
	}
	var b []byte
	for _, r := range s {
		b = append(b, table[r])
	}
	return string(b)
}

func TestRead(t *testing.T) {
	part := func(header, value string) string {
		return "--B\r\nContent-Disposition: form-data; " + header + "\r\n\r\n" + value + "\r\n"
	}
	const multi = "multipart/form-data; boundary=B"
	nested := attempt.Reader{NameFields: []string{"/user/email"}, PasswordFields: []string{"/user/password"}}
	batch := attempt.Reader{NameFields: []string{"/logins/email"}, PasswordFields: []string{"/logins/password"}}
	tests := []struct {
		name   string
		reader *attempt.Reader // nil: plain
		method string          // empty: POST
		query  string
		types  string // Content-Type fields divided by newlines; empty: none
		body   string
		want   string
		pairs  []attempt.Pair // instead of want, when names hold spaces
		why    string         // empty: not ambiguous
	}{
		// What honest clients send.
		{name: "a form", types: formType, body: "email=a&password=p", want: "a:p"},
		{name: "a form with a charset", types: formType + "; charset=UTF-8", body: "password=p&email=a", want: "a:p"},
		{name: "a form with other fields", types: formType, body: "csrf=1&email=a%40x&password=p%26q&remember=on", want: "a@x:p&q"},
		{name: "JSON", types: jsonType, body: `{"email":"a","password":"p"}`, want: "a:p"},
		{name: "JSON with space around", types: "application/json; charset=utf-8", body: " \r\n{ \"email\" : \"a\" ,\t\"password\":\"p\" }\n", want: "a:p"},
		{name: "JSON of a vendor", types: "application/vnd.chat+json", body: `{"email":"a","password":"p"}`, want: "a:p"},
		{name: "JSON with escapes in values", types: jsonType, body: `{"email":"a\u0062\ud83d\ude00\/","password":"p\""}`, want: "ab😀/:p\""},
		{name: "JSON with other fields", types: jsonType, body: `{"device":{"os":"x","tags":["a=b","c"]},"email":"a","password":"p","n":1.5e3,"ok":true,"z":null}`, want: "a:p"},
		{name: "multipart", types: multi, body: part(`name="email"`, "a") + part(`name="password"`, "p") + "--B--\r\n", want: "a:p"},
		{name: "a query and no body", method: "GET", query: "email=a&password=p", want: "a:p"},
		{name: "the declared place in an object", reader: &nested, types: jsonType, body: `{"user":{"email":"a","password":"p"}}`, want: "a:p"},
		{name: "the declared place in a form", reader: &nested, types: formType, body: "user%5Bemail%5D=a&user[password]=p", want: "a:p"},
		{name: "a declared array of log-ins", reader: &batch, types: jsonType, body: `{"logins":[{"email":"a","password":"p"},{"email":"b","password":"q"}]}`, want: "a:p b:q"},
		{name: "a pointer looks nowhere else", reader: &nested, types: jsonType, body: `{"user":{"email":"a","password":"p"},"app":{"mail":{"email":"x"}}}`, want: "a:p"},
		{name: "a name and no password", types: formType, body: "email=a", want: "a:"},
		{name: "a field twice with one value", types: formType, body: "email=a&email=a&password=p", want: "a:p"},
		{name: "the same name in query and body", types: formType, query: "email=a", body: "email=a&password=p", want: "a:p"},
		{name: "a name as typed", types: jsonType, body: `{"email":"ＡＤＭＩＮ\u200b","password":"p"}`, want: "ＡＤＭＩＮ\u200b:p"},

		// Twice.
		{name: "a form field twice", types: formType, body: "email=a&email=b&password=p", want: "a:p b:p", why: attempt.Duplicate},
		{name: "both form fields twice", types: formType, body: "email=a&email=b&password=p&password=q", want: "a:p a:q b:p b:q", why: attempt.Duplicate},
		{name: "a JSON key twice", types: jsonType, body: `{"email":"a","password":"p","email":"b"}`, want: "a:p b:p", why: attempt.Duplicate},
		{name: "a JSON key twice, null last", types: jsonType, body: `{"email":"a","password":"p","email":null}`, want: "a:p"},
		{name: "a multipart part twice", types: multi, body: part(`name="email"`, "a") + part(`name="email"`, "b") + part(`name="password"`, "p") + "--B--\r\n", want: "a:p b:p", why: attempt.Duplicate},
		{name: "query and body differ", types: formType, query: "email=b", body: "email=a&password=p", want: "a:p b:p", why: attempt.Place},
		{name: "query and JSON differ", types: jsonType, query: "email=b", body: `{"email":"a","password":"p"}`, want: "a:p b:p", why: attempt.Place},
		{name: "only in the query of a POST", types: formType, query: "email=b", body: "password=p", want: "b:p", why: attempt.Place},
		{name: "a POST without body", query: "email=b&password=p", want: "b:p", why: attempt.Place},

		// Spelt otherwise.
		{name: "case in a JSON key", types: jsonType, body: `{"email":"a","EMAIL":"b","password":"p"}`, want: "a:p b:p", why: attempt.Spelling},
		{name: "letters that fold in a JSON key", types: jsonType, body: `{"email":"a","pa\u017fsword":"p","PA` + "\u017f\u017f" + `WORD":"q"}`, want: "a:p a:q", why: attempt.Spelling},
		{name: "space around a JSON key", types: jsonType, body: `{" email\t":"b","password":"p"}`, want: "b:p", why: attempt.Spelling},
		{name: "escapes in a JSON key", types: jsonType, body: `{"\u0065mail":"b","password":"p"}`, want: "b:p", why: attempt.Spelling},
		{name: "NUL in a JSON key", types: jsonType, body: `{"email\u0000x":"b","email":"a","password":"p"}`, want: "a:p b:p", why: attempt.Spelling},
		{name: "case in a form field", types: formType, body: "Email=b&password=p", want: "b:p", why: attempt.Spelling},
		{name: "brackets of an array", types: formType, body: "email[]=a&email[]=b&password=p", want: "a:p b:p", why: attempt.Spelling},
		{name: "an index in brackets", types: formType, body: "email[0]=a&email[1]=b&password=p", want: "a:p b:p", why: attempt.Spelling},
		{name: "a NUL byte in a form field", types: formType, body: "email%00=b&password=p", want: "b:p", why: attempt.Spelling},
		{name: "space before a form field", types: formType, body: "+email=b&password=p", want: "b:p", why: attempt.Spelling},
		{name: "an underscore as PHP makes one", reader: &attempt.Reader{NameFields: []string{"user_name"}, PasswordFields: []string{"pass"}}, types: formType, body: "user.name=b&pass=p", want: "b:p", why: attempt.Spelling},

		// Elsewhere.
		{name: "an object in a form", types: formType, body: "user[email]=b&email=a&password=p", want: "a:p b:p", why: attempt.Place},
		{name: "a nested object", types: jsonType, body: `{"email":"a","user":{"email":"b"},"password":"p"}`, want: "a:p b:p", why: attempt.Place},
		{name: "a name that is wrapped", reader: &nested, types: jsonType, body: `{"email":"b","password":"p"}`, want: "b:p", why: attempt.Place},
		{name: "a pointer in dots", reader: &nested, types: formType, body: "user.email=b&user.password=p", want: "b:p", why: attempt.Spelling},
		{name: "an operator in JSON", types: jsonType, body: `{"email":{"$in":["a","b"]},"password":{"$ne":"x"}}`, want: "a:x b:x", why: attempt.Place},
		{name: "an operator in a form", types: formType, body: "email[$ne]=b&password=p", want: "b:p", why: attempt.Place},
		{name: "a number for a name", types: jsonType, body: `{"email":12,"password":true}`, want: "12:true"},

		// Arrays.
		{name: "an array of log-ins", types: jsonType, body: `[{"email":"a","password":"p"},{"email":"b","password":"q"}]`, want: "a:p b:q", why: attempt.Array},
		{name: "an array of passwords", types: jsonType, body: `{"email":"a","password":["p","q","r"]}`, want: "a:p a:q a:r", why: attempt.Array},
		{name: "an array of names", types: jsonType, body: `{"email":["a","b"],"password":"p"}`, want: "a:p b:p", why: attempt.Array},
		{name: "a name over an array of passwords", types: jsonType, body: `{"email":"a","tries":[{"password":"p"},{"password":"q"}]}`, want: "a:p a:q", why: attempt.Place},
		{name: "arrays in arrays", types: jsonType, body: `[[{"email":"a"}],[[{"email":"b"}]]]`, want: "a: b:", why: attempt.Array},

		// Another type than declared.
		{name: "JSON declared as a form", types: formType, body: `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Type},
		{name: "a form declared as JSON", types: jsonType, body: "email=a&password=p", want: "a:p", why: attempt.Type},
		{name: "a form hidden in JSON", types: jsonType, body: `{"email":"a","password":"p","x":"&email=b&y="}`, want: "a:p b:p", why: attempt.Type},
		{name: "JSON declared as text", types: "text/plain", body: `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Type},
		{name: "JSON declared as nothing", body: `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Type},
		{name: "a form declared as XML", types: "application/xml", body: "email=a&password=p", want: "a:p", why: attempt.Type},
		{name: "multipart declared as a form", types: formType, body: part(`name="email"`, "a") + "--B--\r\n", want: "a:", why: attempt.Type},
		{name: "two types", types: jsonType + "\n" + formType, body: `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Type},
		{name: "two types in one field", types: jsonType + ", " + formType, body: `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Type},
		{name: "text line by line", types: "text/plain", body: "email=a\r\npassword=p\r\n", pairs: []attempt.Pair{{Name: "a", Password: "p"}, {Name: "a\r\npassword=p\r\n", Password: "p"}}, why: attempt.Type},
		{name: "lines of something else", types: "application/x-thing", body: "email: a\npassword: p\n", want: "a:p", why: attempt.Type},
		{name: "XML", types: "application/xml", body: "<email>a</email>", why: attempt.None},
		{name: "nothing", types: formType, why: attempt.None},
		{name: "a name without a value", types: formType, body: "email=&password=p", why: attempt.None},
		{name: "JSON that is a word", types: jsonType, body: `"email"`, why: attempt.None},

		// Character sets.
		{name: "a UTF-8 byte order mark", types: jsonType, body: "\ufeff" + `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Charset},
		{name: "UTF-16LE with a mark", types: jsonType, body: "\xff\xfe" + utf16le(`{"email":"a","password":"p"}`), want: "a:p", why: attempt.Charset},
		{name: "UTF-16BE with a mark", types: jsonType, body: "\xfe\xff" + utf16be(`{"email":"a","password":"p"}`), want: "a:p", why: attempt.Charset},
		{name: "UTF-16LE without a mark", types: jsonType, body: utf16le(`{"email":"é","password":"p"}`), want: "é:p", why: attempt.Charset},
		{name: "UTF-16BE without a mark", types: jsonType, body: utf16be(`{"email":"é","password":"p"}`), want: "é:p", why: attempt.Charset},
		{name: "UTF-32BE", types: jsonType, body: utf32be(`{"email":"a","password":"p"}`), want: "a:p", why: attempt.Charset},
		{name: "EBCDIC", types: jsonType + "; charset=ibm037", body: ibm037(`{"email":"a","password":"p"}`), want: "a:p", why: attempt.Charset},
		{name: "Shift_JIS behind percent signs", types: formType + "; charset=Shift_JIS", body: "email=%82%a0&password=p", want: "\x82\xa0:p あ:p", why: attempt.Charset},
		{name: "a charset nobody knows", types: jsonType + "; charset=x-none", body: `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Charset},
		{name: "invalid UTF-8 in JSON", types: jsonType, body: "{\"email\":\"a\xff\",\"password\":\"p\"}", want: "a\ufffd:p", why: attempt.UTF8},
		{name: "invalid UTF-8 in a form", types: formType, body: "email=a%ff&password=p", want: "a\xff:p", why: attempt.UTF8},
		{name: "half a surrogate pair", types: jsonType, body: `{"email":"a\ud83d","password":"p"}`, want: "a\ufffd:p"},

		// Broken on purpose.
		{name: "a second document", types: jsonType, body: `{"email":"a","password":"p"}{"email":"b"}`, want: "a:p b:p", why: attempt.Trailing},
		{name: "garbage behind a document", types: jsonType, body: `{"email":"a","password":"p"}]x`, want: "a:p", why: attempt.Trailing},
		{name: "an array of lines", types: "application/x-ndjson", body: "{\"email\":\"a\"}\n{\"email\":\"b\"}", want: "a: b:", why: attempt.Type},
		{name: "comments", types: jsonType, body: `{"email":"a",/*'*/"email":"b",// '` + "\n" + `"password":"p"}`, want: "a:p b:p", why: attempt.Syntax},
		{name: "single quotes", types: jsonType, body: `{'email':'b','password':'p'}`, want: "'b':'p' 'b':p b:'p' b:p", why: attempt.Syntax},
		{name: "no quotes", types: jsonType, body: `{email:b,password:p}`, want: "b:p", why: attempt.Syntax},
		{name: "a comma too many", types: jsonType, body: `{"email":"a","password":"p",}`, want: "a:p", why: attempt.Syntax},
		{name: "a line break in a string", types: jsonType, body: "{\"email\":\"a\nb\",\"password\":\"p\"}", pairs: []attempt.Pair{{Name: "a\nb", Password: "p"}}, why: attempt.Syntax},
		{name: "an end that does not come", types: jsonType, body: `{"email":"a","password":"p`, want: "a:p", why: attempt.Syntax},
		{name: "a prefix against scripts", types: jsonType, body: ")]}',\n" + `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Syntax},
		{name: "semicolons in a form", types: formType, body: "x=1;email=b;password=p", want: "b:p", why: attempt.Syntax},
		{name: "an escape that is none", types: formType, body: "email=a%zz&password=p", want: "a%zz:p", why: attempt.Syntax},
		{name: "escapes of another server", types: formType, body: "%u0065mail=b&password=p", want: "b:p", why: attempt.Syntax},

		// Multipart.
		{name: "a file for a field", types: multi, body: part(`name="email"; filename="x"`, "b") + part(`name="password"`, "p") + "--B--\r\n", want: "b:p", why: attempt.Syntax},
		{name: "two names in one part", types: multi, body: part(`name="x"; name="email"`, "b") + part(`name="password"`, "p") + "--B--\r\n", want: "b:p", why: attempt.Syntax},
		{name: "an extended name", types: multi, body: part(`name*=utf-8''%65mail`, "b") + part(`name="password"`, "p") + "--B--\r\n", want: "b:p"},
		{name: "a name without quotes", types: multi, body: part(`name=email`, "b") + part(`name="password"`, "p") + "--B--\r\n", want: "b:p"},
		{name: "a part behind the end", types: multi, body: part(`name="email"`, "a") + part(`name="password"`, "p") + "--B--\r\n" + part(`name="email"`, "b"), want: "a:p b:p", why: attempt.Syntax},
		{name: "no end", types: multi, body: part(`name="email"`, "a") + part(`name="password"`, "p"), want: "a:p", why: attempt.Syntax},
		{name: "a part in base64", types: multi, body: "--B\r\nContent-Disposition: form-data; name=\"email\"\r\nContent-Transfer-Encoding: base64\r\n\r\nYg==\r\n" + part(`name="password"`, "p") + "--B--\r\n", want: "Yg==:p b:p", why: attempt.Syntax},
		{name: "two boundaries", types: "multipart/form-data; boundary=A; boundary=B", body: part(`name="email"`, "b") + part(`name="password"`, "p") + "--B--\r\n", want: "b:p", why: attempt.Type},
		{name: "another boundary than declared", types: "multipart/form-data; boundary=A", body: part(`name="email"`, "b") + part(`name="password"`, "p") + "--B--\r\n", want: "b:p", why: attempt.Syntax},
		{name: "no boundary", types: "multipart/form-data", body: part(`name="email"`, "b") + part(`name="password"`, "p") + "--B--\r\n", want: "b:p", why: attempt.Syntax},
		{name: "line ends of Unix", types: multi, body: strings.ReplaceAll(part(`name="email"`, "a")+part(`name="password"`, "p")+"--B--\r\n", "\r", ""), want: "a:p"},
		{name: "JSON in multipart's clothes", types: multi, body: `{"email":"a","password":"p"}`, want: "a:p", why: attempt.Type},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rd := plain
			if test.reader != nil {
				rd = *test.reader
			}
			method := test.method
			if method == "" {
				method = "POST"
			}
			r := httptest.NewRequest(method, "/login?"+test.query, strings.NewReader(test.body))
			if test.types != "" {
				r.Header["Content-Type"] = strings.Split(test.types, "\n")
			}
			got, err := rd.Read(r)
			if err != nil {
				t.Fatal(err)
			}
			want := test.pairs
			if want == nil {
				want = pairs(test.want)
			}
			if diff := compare(got.Pairs, want); diff != "" {
				t.Errorf("pairs (-want +got):\n%s", diff)
			}
			if got.Why != test.why || got.Ambiguous != (test.why != "") {
				t.Errorf("ambiguous = %t, why = %q, want %q", got.Ambiguous, got.Why, test.why)
			}
			if got.Size != int64(len(test.body)) {
				t.Errorf("size = %d, want %d", got.Size, len(test.body))
			}
			if after, err := io.ReadAll(r.Body); err != nil || string(after) != test.body {
				t.Errorf("the body reads %q, %v afterwards, want %q", after, err, test.body)
			}
		})
	}
}

// counted counts what is read of a body.
type counted struct {
	io.Reader
	n      int64
	closed bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counted) Close() error { c.closed = true; return nil }

func TestReadSizes(t *testing.T) {
	small := attempt.Reader{NameFields: []string{"email"}, MaxBody: 100}
	form := func(size int) string { return "email=a&x=" + strings.Repeat("x", size-10) }
	tests := []struct {
		name     string
		reader   attempt.Reader
		body     string
		length   int64 // declared; -1: chunked
		want     error
		mostRead int64
	}{
		{"exactly 64 KiB", plain, form(64 << 10), 64 << 10, nil, 64 << 10},
		{"exactly 64 KiB in chunks", plain, form(64 << 10), -1, nil, 64 << 10},
		{"a byte more", plain, form(64<<10 + 1), 64<<10 + 1, attempt.ErrTooLarge, 0},
		{"a byte more in chunks", plain, form(64<<10 + 1), -1, attempt.ErrTooLarge, 64<<10 + 1},
		{"10 MiB", plain, form(10 << 20), 10 << 20, attempt.ErrTooLarge, 0},
		{"10 MiB in chunks", plain, form(10 << 20), -1, attempt.ErrTooLarge, 64<<10 + 1},
		{"a limit of one's own", small, form(100), -1, nil, 100},
		{"a byte more than a limit of one's own", small, form(101), -1, attempt.ErrTooLarge, 101},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := &counted{Reader: strings.NewReader(test.body)}
			r := httptest.NewRequest("POST", "/login", nil)
			r.Header.Set("Content-Type", formType)
			r.Body, r.ContentLength = body, test.length
			got, err := test.reader.Read(r)
			if !errors.Is(err, test.want) {
				t.Fatalf("error = %v, want %v", err, test.want)
			}
			if err == nil && (got.Ambiguous || got.Size != int64(len(test.body))) {
				t.Errorf("got %v", got)
			}
			if body.n > test.mostRead {
				t.Errorf("%d bytes were read, want at most %d", body.n, test.mostRead)
			}
			if r.ContentLength != test.length {
				t.Errorf("ContentLength = %d, want %d", r.ContentLength, test.length)
			}
			if after, err := io.ReadAll(r.Body); err != nil || string(after) != test.body {
				t.Errorf("the body reads %d bytes, %v afterwards, want %d", len(after), err, len(test.body))
			}
			if err := r.Body.Close(); err != nil || !body.closed {
				t.Errorf("closing the body does not reach it: %v", err)
			}
		})
	}
}

func TestReadEncodings(t *testing.T) {
	tests := []struct {
		name string
		line []string
		want error
	}{
		{"none", nil, nil},
		{"empty", []string{""}, nil},
		{"identity", []string{"Identity"}, nil},
		{"gzip", []string{"gzip"}, attempt.ErrEncoding},
		{"gzip behind identity", []string{"identity, gzip"}, attempt.ErrEncoding},
		{"gzip in a second field", []string{"identity", "GZIP"}, attempt.ErrEncoding},
		{"no word anybody knows", []string{"x"}, attempt.ErrEncoding},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/login", strings.NewReader("email=a"))
			r.Header["Content-Encoding"] = test.line
			if _, err := plain.Read(r); !errors.Is(err, test.want) {
				t.Errorf("error = %v, want %v", err, test.want)
			}
			if after, err := io.ReadAll(r.Body); err != nil || string(after) != "email=a" {
				t.Errorf("the body reads %q, %v afterwards", after, err)
			}
		})
	}
}

func TestReadErrors(t *testing.T) {
	broken := errors.New("broken pipe")
	r := httptest.NewRequest("POST", "/login", nil)
	r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("email=a"), iotest.ErrReader(broken))), -1
	if _, err := plain.Read(r); !errors.Is(err, broken) {
		t.Errorf("error = %v, want %v", err, broken)
	}
	if after, err := io.ReadAll(r.Body); !errors.Is(err, broken) || string(after) != "email=a" {
		t.Errorf("the body reads %q, %v afterwards, want what came and the same error", after, err)
	}

	r = httptest.NewRequest("POST", "/login", nil)
	r.Body, r.ContentLength = http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("email=abc")), 5), -1
	if _, err := plain.Read(r); !errors.Is(err, attempt.ErrTooLarge) {
		t.Errorf("error = %v, want %v", err, attempt.ErrTooLarge)
	}
}

func TestReadMany(t *testing.T) {
	list := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	tests := []struct {
		name, types, body string
		want              int
		err               error
	}{
		{"64 names", formType, list(64, "email=%d&") + "password=p", 64, nil},
		{"65 names", formType, list(65, "email=%d&") + "password=p", 64, attempt.ErrTooMany},
		{"8 names by 8 passwords", formType, list(8, "email=%d&") + list(8, "password=%d&"), 64, nil},
		{"9 names by 8 passwords", formType, list(9, "email=%d&") + list(8, "password=%d&"), 64, attempt.ErrTooMany},
		{"64 log-ins in an array", jsonType, "[" + list(64, `{"email":"%d","password":"p"},`) + "{}]", 64, nil},
		{"65 log-ins in an array", jsonType, "[" + list(65, `{"email":"%d","password":"p"},`) + "{}]", 64, attempt.ErrTooMany},
		{"one log-in a thousand times", jsonType, "[" + strings.Repeat(`{"email":"a","password":"p"},`, 1000) + "{}]", 1, nil},
		{"ten thousand of both", formType, strings.Repeat("email=a&", 4000) + strings.Repeat("password=p&", 2500), 1, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/login", strings.NewReader(test.body))
			r.Header.Set("Content-Type", test.types)
			got, err := plain.Read(r)
			if !errors.Is(err, test.err) || len(got.Pairs) != test.want {
				t.Errorf("%d pairs, %v, want %d, %v", len(got.Pairs), err, test.want, test.err)
			}
			if err != nil && got.Why != attempt.Many {
				t.Errorf("why = %q, want %q", got.Why, attempt.Many)
			}
		})
	}
}

// TestReadOnTheWire has a real server read requests as clients may write them:
// in chunks, and only once the server asks for the body.
func TestReadOnTheWire(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := plain.Read(r)
		after, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%v %v %s %v", got, err, after, r.TransferEncoding)
	}))
	defer server.Close()
	tests := []struct{ name, request, want string }{
		{"in chunks", "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: " + formType + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n6\r\nemail=\r\n1\r\na\r\n0\r\n\r\n",
			"1 pairs in 7 bytes <nil> email=a [chunked]"},
		{"when asked", "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: " + formType + "\r\nContent-Length: 7\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
			"1 pairs in 7 bytes <nil> email=a []"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, test.request); err != nil {
				t.Fatal(err)
			}
			reader := textproto.NewReader(bufio.NewReader(conn))
			if strings.Contains(test.request, "Expect") {
				line, err := reader.ReadLine()
				if err != nil || !strings.Contains(line, "100 Continue") {
					t.Fatalf("got %q, %v, want to be asked for the body", line, err)
				}
				if _, err := io.WriteString(conn, "email=a"); err != nil {
					t.Fatal(err)
				}
			}
			answer, err := io.ReadAll(reader.R)
			if err != nil || !strings.Contains(string(answer), test.want) {
				t.Errorf("got %q, %v, want %q in it", answer, err, test.want)
			}
		})
	}
}

func TestNothingShowsPasswords(t *testing.T) {
	a := attempt.Attempt{Pairs: []attempt.Pair{{Name: "ann", Password: "hunter2"}}, Ambiguous: true, Why: attempt.Type}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("read", "attempt", a, "pair", a.Pairs[0], "pairs", a.Pairs)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		fmt.Fprintf(&log, verb+verb+verb+verb, a, &a, a.Pairs, a.Pairs[0])
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the password is in %s", log.String())
	}
}

func TestInQuery(t *testing.T) {
	for query, want := range map[string]bool{"": false, "x=1": false, "email=a": true, "PASSWORD=p": true, "email=": false, "a=1;email=b": true} {
		r := httptest.NewRequest("GET", "/login", nil)
		r.URL.RawQuery = query
		if got := plain.InQuery(r); got != want {
			t.Errorf("InQuery(%q) = %t, want %t", query, got, want)
		}
	}
}

func TestOverride(t *testing.T) {
	tests := []struct {
		name, method, query string
		header              http.Header
		want                string
		overridden          bool
	}{
		{"nothing", "POST", "x=1", nil, "POST", false},
		{"a header", "POST", "", http.Header{"X-Http-Method-Override": {"PUT"}}, "PUT", true},
		{"a header in lower case", "GET", "", http.Header{"X-Http-Method": {" post "}}, "POST", true},
		{"a third header", "POST", "", http.Header{"X-Method-Override": {"DELETE"}}, "DELETE", true},
		{"a query field", "POST", "_method=patch", nil, "PATCH", true},
		{"a query field of some services", "POST", "method=PUT", nil, "PUT", true},
		{"an ordinary field of that name", "POST", "method=totp", nil, "POST", false},
		{"an ordinary field that names a method", "POST", "method=GET", nil, "POST", false},
		{"its own method", "POST", "_method=POST", http.Header{"X-Http-Method-Override": {"POST"}}, "POST", false},
		{"a second value", "GET", "", http.Header{"X-Http-Method-Override": {"GET", "POST"}}, "POST", true},
		{"no method at all", "POST", "_method=x%20y", nil, "POST", true},
		{"behind a semicolon", "POST", "a=1;_method=PUT", nil, "PUT", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, "/login?"+test.query, nil)
			for k, v := range test.header {
				r.Header[k] = v
			}
			method, overridden := attempt.Override(r)
			if method != test.want || overridden != test.overridden {
				t.Errorf("got %s, %t, want %s, %t", method, overridden, test.want, test.overridden)
			}
		})
	}
}

// TestReadStaysLinear reads bodies made to be slow. Work that grew with the square
// of their size would take minutes; the limit leaves room for a busy machine.
func TestReadStaysLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 50 MiB")
	}
	const size = 1 << 20
	fill := func(unit string) string { return strings.Repeat(unit, size/len(unit)) }
	big := attempt.Reader{NameFields: []string{"email", "/a/b/email"}, PasswordFields: []string{"password"}, MaxBody: 2 * size}
	for name, body := range map[string]string{
		"open objects":     fill(`{"email":`),
		"open arrays":      fill(`[{"email":"a","x":`),
		"nested operators": `{"email":` + fill(`{"x":"y","z":`),
		"comments":         fill(`{/*'`),
		"quotes":           fill(`'"`),
		"brackets":         "x" + fill("[a]") + "=1",
		"dots":             fill("a.b=1&"),
		"delimiters":       fill("--B\r\n"),
		"parts":            fill("--B\r\nContent-Disposition: form-data; name=email\r\n\r\na\r\n"),
		"escapes":          fill("%u0065=%zz&"),
		"NULs":             fill("\x00"),
		"empty names":      fill("[[[]]]"),
		"base64":           fill(base64.StdEncoding.EncodeToString([]byte("email=a"))),
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			for _, ct := range []string{jsonType, formType, "multipart/form-data; boundary=B", ""} {
				r := httptest.NewRequest("POST", "/login", strings.NewReader(body))
				r.Header.Set("Content-Type", ct)
				if _, err := big.Read(r); err != nil && !errors.Is(err, attempt.ErrTooMany) {
					t.Error(err)
				}
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	large, err := os.ReadFile("reader_test.go")
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct{ name, types, body string }{
		{"form", formType, "email=somebody%40example.com&password=correct+horse&remember=1"},
		{"json", jsonType, `{"email":"somebody@example.com","password":"correct horse","remember":true}`},
		{"hostile", jsonType, string(large[:min(len(large), 24<<10)])},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bench.body)))
			r := httptest.NewRequest("POST", "/login", nil)
			r.Header.Set("Content-Type", bench.types)
			body := strings.NewReader(bench.body)
			for b.Loop() {
				body.Reset(bench.body)
				r.Body, r.ContentLength = io.NopCloser(body), int64(len(bench.body))
				if _, err := plain.Read(r); err != nil && !errors.Is(err, attempt.ErrTooMany) {
					b.Fatal(err)
				}
			}
		})
	}
}
