package pages_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/pages"
)

func served(t *testing.T, s pages.Site, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", target, nil)
	if err := s.Serve(w, r, strings.TrimPrefix(r.URL.Path, "/.kidoban/")); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestServe(t *testing.T) {
	for path, want := range map[string]int{
		"style.css":         200,
		"key.js":            200,
		"logo":              200,
		"problems/refused":  200,
		"problems/nonsense": 404,
		"html/layout.html":  404,
		"layout.html":       404,
		"../pages.go":       404,
		"":                  404,
	} {
		w := httptest.NewRecorder()
		if err := chat.Serve(w, httptest.NewRequest("GET", "/.kidoban/", nil), path); err != nil {
			t.Fatal(err)
		}
		if w.Code != want {
			t.Errorf("Serve(%q) = %d, want %d", path, w.Code, want)
		}
	}
	if w := served(t, pages.Site{}, "/.kidoban/logo"); w.Code != http.StatusNotFound {
		t.Errorf("the logo of a site without one: %d", w.Code)
	}
}

// TestWhatPagesLoadIsKept fetches what a page refers to, by the address it gives.
func TestWhatPagesLoadIsKept(t *testing.T) {
	body := written(t, chat, "en", pages.EnrolKey{Action: "/a", Begin: "/b"}).Body.String()
	found := regexp.MustCompile(`(?:src|href)="(/\.kidoban/[^"]*\?v=[^"]*)"`).FindAllStringSubmatch(body, -1)
	media := map[string]string{"style.css": "text/css; charset=utf-8", "key.js": "text/javascript; charset=utf-8", "logo": "image/svg+xml"}
	if len(found) != len(media) {
		t.Fatalf("the page refers to %v, want %d files", found, len(media))
	}
	for _, m := range found {
		w := served(t, chat, m[1])
		name, _, _ := strings.Cut(strings.TrimPrefix(m[1], "/.kidoban/"), "?")
		h := w.Header()
		if w.Code != http.StatusOK || w.Body.Len() == 0 || h.Get("Content-Type") != media[name] || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: status %d, %d bytes, %v", m[1], w.Code, w.Body.Len(), h)
		}
		if !strings.Contains(h.Get("Cache-Control"), "immutable") || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%s: %v", m[1], h)
		}
		for _, other := range []string{"/.kidoban/" + name, "/.kidoban/" + name + "?v=", "/.kidoban/" + name + "?v=older"} {
			if got := served(t, chat, other).Header().Get("Cache-Control"); got != "no-cache" {
				t.Errorf("%s: Cache-Control = %q, and nobody knows which state of the file that is", other, got)
			}
		}
	}
}

func TestLogoHasANewAddressWhenItChanges(t *testing.T) {
	other := chat
	other.Logo = append([]byte(" "), chat.Logo...)
	if chat.LogoAddress() == other.LogoAddress() || !strings.HasPrefix(chat.LogoAddress(), "/.kidoban/logo?v=") {
		t.Errorf("%s and %s", chat.LogoAddress(), other.LogoAddress())
	}
	if got := (pages.Site{Name: "x"}).LogoAddress(); got != "" {
		t.Errorf("without a logo: %q", got)
	}
}

func TestServeToHead(t *testing.T) {
	w := httptest.NewRecorder()
	if err := chat.Serve(w, httptest.NewRequest("HEAD", "/.kidoban/style.css", nil), "style.css"); err != nil {
		t.Fatal(err)
	}
	if w.Body.Len() != 0 || w.Header().Get("Content-Length") == "" {
		t.Errorf("%d bytes, %v", w.Body.Len(), w.Header())
	}
}
