package attempt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/attempt"
)

// takers are plain backends: what each would take for names from a request.
var takers = map[string]func(r *http.Request) []string{
	"json.Decoder into a struct": func(r *http.Request) []string {
		var v struct {
			Email string `json:"email"`
		}
		_ = json.NewDecoder(r.Body).Decode(&v)
		return []string{v.Email}
	},
	"json.Unmarshal into a struct": func(r *http.Request) []string {
		body, _ := io.ReadAll(r.Body)
		var v struct {
			Email string `json:"email"`
		}
		_ = json.Unmarshal(body, &v)
		return []string{v.Email}
	},
	"json.Unmarshal into an array of structs": func(r *http.Request) []string {
		var v []struct {
			Email string `json:"email"`
		}
		_ = json.NewDecoder(r.Body).Decode(&v)
		var names []string
		for _, one := range v {
			names = append(names, one.Email)
		}
		return names
	},
	"json.Unmarshal into a map, after a byte order mark": func(r *http.Request) []string {
		body, _ := io.ReadAll(r.Body)
		var v map[string]any
		_ = json.Unmarshal(bytes.TrimPrefix(body, []byte("\ufeff")), &v)
		name, _ := v["email"].(string)
		return []string{name}
	},
	"ParseForm": func(r *http.Request) []string {
		_ = r.ParseForm()
		return append(slices.Clone(r.Form["email"]), r.FormValue("email"))
	},
	"url.ParseQuery of any body": func(r *http.Request) []string {
		body, _ := io.ReadAll(r.Body)
		values, _ := url.ParseQuery(string(body))
		return values["email"]
	},
	"ParseMultipartForm": func(r *http.Request) []string {
		if r.ParseMultipartForm(1<<20) != nil {
			return nil
		}
		return append(slices.Clone(r.MultipartForm.Value["email"]), r.FormValue("email"))
	},
}

// FuzzRead holds that no plain backend takes a name that is not among the pairs,
// and that the body reads as it was.
func FuzzRead(f *testing.F) {
	const multi = "multipart/form-data; boundary=B"
	for _, seed := range []struct{ types, query, body string }{
		{jsonType, "", `{"email":"a","Email":"b","password":"p"}`},
		{jsonType, "email=c", `[{"email":"a\u0041\ud83d\ude00","x":{"email":[1,null]}},{"emai\u006c":"b"}] x`},
		{jsonType, "", "\ufeff" + `{"a":{"b":[{"c":"d"}],"email":{"x":"y"}},"email":"z\\\""}`},
		{jsonType, "", `{"x":"'","email":"a","y":"/*","EMAIL":"b"}`},
		{formType, "email=c&email=%zz", "email=a%40b+c&email=d;email=e&=&%65mail=f"},
		{formType + "; charset=utf-8", "", "email=%ff&x"},
		{multi, "email=q", "--B\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\na\r\n--B\r\nContent-Disposition: form-data; name=email; filename=\"\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=61\r\n--B--\r\n"},
		{"multipart/form-data; boundary*0=A; boundary*1=B", "", "--AB\nContent-Disposition: form-data; name*=utf-8''email\n\na--AB\n--AB--"},
		{"", "", utf16le(`{"email":"a"}`)},
		{"text/plain", "", "email=a\r\n"},
	} {
		f.Add(seed.types, seed.query, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, types, query string, body []byte) {
		request := func() *http.Request {
			r := httptest.NewRequest("POST", "/login", bytes.NewReader(body))
			r.URL.RawQuery = query
			if types != "" {
				r.Header.Set("Content-Type", types)
			}
			return r
		}
		r := request()
		got, err := plain.Read(r)
		after, errAfter := io.ReadAll(r.Body)
		if errAfter != nil || !bytes.Equal(after, body) {
			t.Fatalf("the body reads %q, %v afterwards, want %q", after, errAfter, body)
		}
		if got.Ambiguous != (got.Why != "") {
			t.Errorf("ambiguous = %t, why = %q", got.Ambiguous, got.Why)
		}
		if len(got.Pairs) > attempt.MaxPairs || len(got.Pairs) == 0 && !got.Ambiguous {
			t.Errorf("%d pairs, ambiguous = %t", len(got.Pairs), got.Ambiguous)
		}
		if errors.Is(err, attempt.ErrTooMany) || errors.Is(err, attempt.ErrTooLarge) {
			return // refused: no backend sees it
		}
		if err != nil {
			t.Fatal(err)
		}
		for taker, take := range takers {
			for _, name := range take(request()) {
				if name != "" && !slices.ContainsFunc(got.Pairs, func(p attempt.Pair) bool { return p.Name == name }) {
					t.Errorf("%s takes the name %q, which is not among %v", taker, name, got.Pairs)
				}
			}
		}
	})
}

// FuzzOverride holds that the method is one that exists, or the request's own.
func FuzzOverride(f *testing.F) {
	f.Add("PUT", "_method=delete")
	f.Fuzz(func(t *testing.T, header, query string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(""))
		r.URL.RawQuery = query
		r.Header["X-Http-Method"] = []string{header}
		method, overridden := attempt.Override(r)
		if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, method) {
			t.Errorf("method = %q", method)
		}
		if method != "POST" && !overridden {
			t.Errorf("method = %q and not overridden", method)
		}
	})
}
