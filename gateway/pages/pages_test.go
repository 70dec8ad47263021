package pages_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/pages"
)

func kinds() []pages.Kind {
	return []pages.Kind{pages.Refused, pages.StepUp, pages.Limited, pages.Unavailable, pages.SessionEnded, pages.TooEarly, pages.BadRequest}
}

func TestEveryKindSpeaksBothLanguages(t *testing.T) {
	for _, kind := range kinds() {
		for _, lang := range []string{"en", "ja"} {
			w := pages.Text(kind, lang)
			if w.Title == "" || w.Detail == "" || w.Next == "" {
				t.Errorf("%s in %s: %+v, want a title, a detail and what to do", kind, lang, w)
			}
		}
	}
}

func TestPage(t *testing.T) {
	for _, test := range []struct {
		accept, lang, want string
	}{
		{"", "en", "Reference code"},
		{"ja", "ja", "参照番号"},
		{"fr, ja;q=0.8, en;q=0.5", "ja", "参照番号"},
		{"de", "en", "Reference code"},
		{strings.Repeat("ja,", 200), "en", "Reference code"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", test.accept)
		lang := pages.Language(r)
		if lang != test.lang {
			t.Errorf("Language(%.40q) = %s, want %s", test.accept, lang, test.lang)
		}
		w := httptest.NewRecorder()
		if err := pages.Write(w, r, http.StatusForbidden, pages.Page{Kind: pages.Refused, Language: lang, Reference: "<ABCD>"}); err != nil {
			t.Fatal(err)
		}
		body := w.Body.String()
		if !strings.Contains(body, test.want) || !strings.Contains(body, `lang="`+lang+`"`) || strings.Contains(body, "<ABCD>") {
			t.Errorf("%.40q: page lacks %q, or its language, or does not escape:\n%s", test.accept, test.want, body)
		}
		if strings.Contains(body, "<script") || strings.Contains(body, "style=") {
			t.Errorf("the page has inline script or style, which its own policy forbids")
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("Content-Security-Policy = %q", csp)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Error("the page may be cached")
		}
	}
}

func TestServe(t *testing.T) {
	for path, want := range map[string]int{
		"style.css":         200,
		"problems/refused":  200,
		"problems/nonsense": 404,
		"page.html":         404,
		"../pages.go":       404,
		"":                  404,
	} {
		w := httptest.NewRecorder()
		if err := pages.Serve(w, httptest.NewRequest("GET", "/.kidoban/", nil), path); err != nil {
			t.Fatal(err)
		}
		if w.Code != want {
			t.Errorf("Serve(%q) = %d, want %d", path, w.Code, want)
		}
	}
}
