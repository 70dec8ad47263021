package pages_test

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/kidoban/kidoban/gateway/pages"
)

// nodes are n and all that is in it, in the order of the page.
func nodes(n *html.Node) []*html.Node {
	all := []*html.Node{n}
	for c := range n.ChildNodes() {
		all = append(all, nodes(c)...)
	}
	return all
}

func attribute(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

func content(n *html.Node) string {
	var b strings.Builder
	for _, c := range nodes(n) {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// wellFormed fails where tags do not match: the parser of browsers mends them quietly.
func wellFormed(t *testing.T, body string) {
	t.Helper()
	void := map[string]bool{"meta": true, "link": true, "input": true, "img": true, "br": true}
	var open []string
	z := html.NewTokenizer(strings.NewReader(body))
	for {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("never closed: %v", open)
			}
			return
		case html.StartTagToken:
			name, _ := z.TagName()
			if !void[string(name)] {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if len(open) == 0 || open[len(open)-1] != string(name) {
				t.Fatalf("</%s> closes %v", name, open)
			}
			open = open[:len(open)-1]
		}
	}
}

func TestEveryTemplateHasASample(t *testing.T) {
	var shown []string
	for _, v := range samples() {
		shown = append(shown, pages.TemplateOf(v))
	}
	slices.Sort(shown)
	if shown = slices.Compact(shown); !slices.Equal(shown, pages.Templates()) {
		t.Errorf("the samples show %v, and there are %v", shown, pages.Templates())
	}
	files, err := fs.Glob(os.DirFS("."), "html/*.html")
	if err != nil || len(files) != len(shown)+2 { // and layout and parts
		t.Errorf("%d templates in files, %d shown; %v", len(files), len(shown), err)
	}
}

// TestStructure reads every page as a screen reader does.
func TestStructure(t *testing.T) {
	each(t, func(t *testing.T, lang string, v pages.View, w *httptest.ResponseRecorder) {
		body := w.Body.String()
		wellFormed(t, body)
		for _, bad := range []string{"%!", "ZgotmplZ", "<no value>", "style=", "onclick", "javascript:"} {
			if strings.Contains(body, bad) {
				t.Errorf("the page has %q", bad)
			}
		}
		doc, err := html.Parse(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var (
			ids      = map[string]*html.Node{}
			labelled = map[string]bool{}
			level    int
			heads    int
			focus    int
			forms    []*html.Node
		)
		for _, n := range nodes(doc) {
			if id, ok := attribute(n, "id"); ok {
				if ids[id] != nil {
					t.Errorf("two elements have the id %q", id)
				}
				ids[id] = n
			}
			if of, ok := attribute(n, "for"); ok && content(n) != "" {
				labelled[of] = true
			}
		}
		for _, n := range nodes(doc) {
			if n.Type != html.ElementNode {
				continue
			}
			if refs, ok := attribute(n, "aria-describedby"); ok {
				for _, id := range strings.Fields(refs) {
					if ids[id] == nil || content(ids[id]) == "" {
						t.Errorf("<%s> is described by %q, which is nothing", n.Data, id)
					}
				}
			}
			if _, ok := attribute(n, "autofocus"); ok {
				focus++
			}
			if i, ok := attribute(n, "tabindex"); ok {
				t.Errorf("tabindex %s changes the order", i)
			}
			if address, ok := attribute(n, "href"); ok && !strings.HasPrefix(address, "/") && !strings.HasPrefix(address, "otpauth://totp/") {
				t.Errorf("a link leads to %q", address)
			}
			switch n.Data {
			case "html":
				if got, _ := attribute(n, "lang"); got != lang {
					t.Errorf("lang = %q, want %q", got, lang)
				}
			case "title", "button", "summary", "a", "label", "dt", "dd", "h1", "h2", "li", "main", "footer":
				if content(n) == "" {
					t.Errorf("<%s> says nothing", n.Data)
				}
			case "script":
				if src, _ := attribute(n, "src"); !strings.HasPrefix(src, "/.kidoban/key.js?v=") || content(n) != "" {
					t.Errorf("a script %q of %d bytes", src, len(content(n)))
				}
			case "style":
				t.Error("the page has a style of its own")
			case "input":
				kind, _ := attribute(n, "type")
				id, _ := attribute(n, "id")
				if kind != "hidden" && !labelled[id] {
					t.Errorf("the input %q has no label", id)
				}
				if name, _ := attribute(n, "name"); name == "" {
					t.Errorf("the input %q has no name", id)
				}
			case "img":
				if _, ok := attribute(n, "alt"); !ok {
					t.Error("an image has no text")
				}
			case "svg":
				if label, _ := attribute(n, "aria-label"); label == "" {
					t.Error("the drawing has no text")
				}
			case "form":
				forms = append(forms, n)
			}
			if len(n.Data) == 2 && n.Data[0] == 'h' && n.Data[1] >= '1' && n.Data[1] <= '6' {
				if next := int(n.Data[1] - '0'); next > level+1 {
					t.Errorf("<%s> %q comes after a heading of level %d", n.Data, content(n), level)
				} else {
					level = next
				}
				if n.Data == "h1" {
					heads++
				}
			}
		}
		if heads != 1 {
			t.Errorf("%d main headings, want one", heads)
		}
		if focus > 1 {
			t.Errorf("%d elements want the focus", focus)
		}
		for _, f := range forms {
			method, _ := attribute(f, "method")
			action, _ := attribute(f, "action")
			if method != "post" || !strings.HasPrefix(action, "/") {
				t.Errorf("a form is sent by %s to %q", method, action)
			}
			var csrf, button bool
			for _, n := range nodes(f) {
				name, _ := attribute(n, "name")
				value, _ := attribute(n, "value")
				csrf = csrf || n.Data == "input" && name == pages.FieldCSRF && value == token
				button = button || n.Data == "button"
			}
			if !csrf || !button {
				t.Errorf("the form to %s: token %t, button %t", action, csrf, button)
			}
		}
		policy := w.Header().Get("Content-Security-Policy")
		if has := strings.Contains(body, "<script"); has != strings.Contains(policy, "script-src") {
			t.Errorf("script: %t, policy: %s", has, policy)
		}
		if has := len(forms) > 0; has != strings.Contains(policy, "form-action 'self'") {
			t.Errorf("forms: %d, policy: %s", len(forms), policy)
		}
		failed := strings.Contains(body, `role="alert"`) && strings.Contains(body, `id="error"`)
		if failed && !strings.Contains(body, `aria-describedby="error `) && strings.Contains(body, `<input id="`) && pages.TemplateOf(v) != "enrol-key" {
			t.Error("no field is described by the error")
		}
	})
}

func TestHeaders(t *testing.T) {
	each(t, func(t *testing.T, lang string, v pages.View, w *httptest.ResponseRecorder) {
		for name, want := range map[string]string{
			"Content-Type":               "text/html; charset=utf-8",
			"Content-Language":           lang,
			"Cache-Control":              "no-store",
			"X-Content-Type-Options":     "nosniff",
			"X-Frame-Options":            "DENY",
			"Referrer-Policy":            "strict-origin",
			"Cross-Origin-Opener-Policy": "same-origin",
			"Vary":                       "Accept-Language",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
		policy := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'; ", "base-uri 'none'", "frame-ancestors 'none'", "img-src 'self'; "} {
			if !strings.Contains(policy, want) {
				t.Errorf("the policy lacks %q: %s", want, policy)
			}
		}
		if strings.ContainsAny(policy, "*:") || strings.Contains(policy, "unsafe") {
			t.Errorf("the policy allows what pages do not need: %s", policy)
		}
	})
}

// TestWeight sums what a browser loads for one page.
func TestWeight(t *testing.T) {
	const most = 60_000
	shared := len(pages.File("style.css")) + len(pages.File("key.js"))
	heaviest, which := 0, ""
	each(t, func(t *testing.T, lang string, v pages.View, w *httptest.ResponseRecorder) {
		weight := shared + w.Body.Len()
		if weight > most {
			t.Errorf("%d bytes with style and script, want at most %d", weight, most)
		}
		if weight > heaviest {
			heaviest, which = weight, t.Name()
		}
	})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(pages.File("style.css") + pages.File("key.js")))
	z.Close()
	t.Logf("the heaviest is %s: %d bytes; style and script are %d of them, %d compressed", which, heaviest, shared, packed.Len())
}

// TestStrangers puts what an attacker may choose into every text.
func TestStrangers(t *testing.T) {
	const evil = "</dd><script src=//evil.example></script>\u202e\u0007\"'><img src=x onerror=alert(1)>"
	long := strings.Repeat("あ", 1000)
	for _, text := range []string{evil, long, "\xff\xfe", "a\u200fb\u2066c\u0000d\r\ne"} {
		for name, v := range map[string]pages.View{
			"factor":     pages.Factor{Action: "/a", CSRF: text, Account: text, Client: text, Place: text, TOTP: true},
			"confirm":    pages.Confirm{Action: "/a", CSRF: token, Account: text, Client: text, Place: text, Mail: []string{text}},
			"code":       pages.Code{Action: "/a", CSRF: token, Client: text, Place: text},
			"enrol-totp": pages.EnrolTOTP{Action: "/a", CSRF: token, URI: uri, Secret: "JBSW", Account: text},
			"enrol-key":  pages.EnrolKey{Action: "/a", CSRF: token, Begin: text, Name: text},
			"owed":       pages.Owed{CSRF: token, LinkAction: text, Mail: []string{text}},
			"codes":      pages.Codes{CSRF: token, Codes: []string{"AAAA"}, Account: text, Next: text},
			"problem":    pages.Page{Kind: pages.Refused, Reference: "A"},
		} {
			w := written(t, pages.Site{Name: text}, "en", v)
			body := w.Body.String()
			wellFormed(t, body)
			doc, err := html.Parse(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range nodes(doc) {
				src, _ := attribute(n, "src")
				if n.Data == "img" || strings.Contains(src, "evil") {
					t.Errorf("%s: %.20q became an element", name, text)
				}
				if n.Data == "dd" || n.Data == "bdi" || n.Data == "title" {
					if got := content(n); strings.ContainsAny(got, "\u202e\u200f\u2066\u0007\u0000\ufffd") || len([]rune(got)) > 200 {
						t.Errorf("%s: <%s> says %.80q", name, n.Data, got)
					}
				}
			}
		}
	}
}

func TestLine(t *testing.T) {
	for given, want := range map[string]string{
		"":                              "",
		"Firefox on Windows":            "Firefox on Windows",
		"  a \t b\r\nc ":                "a b c",
		"a\u202eb\u2066c\u200bd":        "a b c d",
		"\x1b[31mred":                   "[31mred",
		"a\xffb":                        "a b",
		"東京　日本":                         "東京 日本",
		strings.Repeat("x", 64):         strings.Repeat("x", 64),
		strings.Repeat("x", 65):         strings.Repeat("x", 63) + "…",
		strings.Repeat("あ", 100000):     strings.Repeat("あ", 63) + "…",
		strings.Repeat("\u202e", 70000): "",
	} {
		if got := pages.Line(given); got != want {
			t.Errorf("line(%.40q) = %q, want %q", given, got, want)
		}
	}
}

// TestPagesLeadNowhereElse gives every address of a page one that leads away.
func TestPagesLeadNowhereElse(t *testing.T) {
	for _, away := range []string{
		"https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "\t//evil.example", "/ /evil.example",
		"javascript:alert(1)", "data:text/html,x", "evil.example", "", "./x", "/a\n/b", "/\x00/evil.example",
	} {
		if got := pages.Local(away); got != "/" {
			t.Errorf("local(%q) = %q", away, got)
		}
		for name, v := range map[string]pages.View{
			"done":         pages.Done{Return: away},
			"factor":       pages.Factor{Action: away, Cancel: away, Lost: away, Key: true, KeyBegin: away},
			"confirm":      pages.Confirm{Action: away, Resend: away, Cancel: away},
			"code":         pages.Code{Action: away},
			"owed":         pages.Owed{LinkAction: away, CodeAction: away, Cancel: away},
			"owed, here":   pages.Owed{Evidence: true, Action: away},
			"enrol-totp":   pages.EnrolTOTP{URI: uri, Action: away, Cancel: away},
			"enrol-key":    pages.EnrolKey{Action: away, Begin: away, Cancel: away},
			"codes":        pages.Codes{Next: away},
			"enrol-link":   pages.EnrolLink{Action: away, Usable: true},
			"lost":         pages.Lost{Action: away, Cancel: away},
			"recover-code": pages.RecoverCode{Action: away, Cancel: away},
			"recover-stop": pages.RecoverStop{Action: away},
		} {
			doc, err := html.Parse(written(t, chat, "en", v).Body)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range nodes(doc) {
				for _, a := range []string{"href", "action", "src", "data-begin", "formaction"} {
					if got, ok := attribute(n, a); ok && got != "/" && !strings.HasPrefix(got, "/.kidoban/") && !strings.HasPrefix(got, "otpauth:") {
						t.Errorf("%s: %s = %q", name, a, got)
					}
				}
			}
		}
	}
	for _, here := range []string{"/", "/rooms/7?at=3#last", "/a//b", "/%E3%81%82", "/部屋", "/.kidoban/account"} {
		if got := pages.Local(here); got != here {
			t.Errorf("local(%q) = %q", here, got)
		}
	}
}

func TestOnlyAnAppsAddressOpensAnApp(t *testing.T) {
	for _, bad := range []string{"javascript:alert(1)", "https://evil.example/", "otpauth:totp/x", "", "otpauth://totp/" + strings.Repeat("x", 500)} {
		w := httptest.NewRecorder()
		if err := chat.Write(w, httptest.NewRequest("GET", "/", nil), http.StatusOK, "en", pages.EnrolTOTP{URI: bad}); err == nil {
			t.Errorf("a page with the app's address %.30q", bad)
		} else if w.Body.Len() > 0 || strings.Contains(err.Error(), "evil") {
			t.Errorf("%q: %d bytes were sent; %v", bad, w.Body.Len(), err)
		}
	}
}

func TestWriteToHead(t *testing.T) {
	w := httptest.NewRecorder()
	if err := chat.Write(w, httptest.NewRequest("HEAD", "/", nil), http.StatusForbidden, "xx", pages.Over{}); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusForbidden || w.Body.Len() != 0 || w.Header().Get("Content-Length") == "0" || w.Header().Get("Content-Language") != "en" {
		t.Errorf("status %d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
}

func TestSiteWithoutNameOrLogo(t *testing.T) {
	body := written(t, pages.Site{}, "ja", pages.Factor{Action: "/a", TOTP: true}).Body.String()
	if !strings.Contains(body, "このサービス") || !strings.Contains(body, `class="mark"`) || strings.Contains(body, "<img") {
		t.Errorf("want words for the name, and our mark:\n%s", body)
	}
	body = written(t, chat, "ja", pages.Over{}).Body.String()
	if !strings.Contains(body, "Example Chat") || strings.Contains(body, `class="mark"`) || !strings.Contains(body, `src="`+chat.LogoAddress()+`"`) {
		t.Errorf("want the service's name and logo:\n%s", body)
	}
}

func TestUnknownKindHasNoPage(t *testing.T) {
	if got := pages.Text("nonsense", "en"); got != (pages.Words{}) {
		t.Errorf("Text = %+v", got)
	}
}
