package web_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/chatcore/web"
)

func TestMe(t *testing.T) {
	s := newSite(t)
	a := s.one[0]
	cookie := s.login(a)
	token := s.token(cookie)
	bearer := "Authorization: Bearer " + strings.TrimPrefix(token, "X-ChatWorkToken: ")
	for name, headers := range map[string][]string{
		"session": {cookie}, "token": {token}, "lower case": {strings.ToLower(token[:15]) + token[15:]}, "bearer": {bearer},
		"token and a bad cookie": {token, "Cookie: chat_session=x"},
	} {
		var me map[string]any
		s.decode(s.do("GET", "/v2/me", "", headers...), 200, &me)
		want := []string{"account_id", "avatar_image_url", "chatwork_id", "department", "facebook", "introduction", "language", "login_mail",
			"mail", "name", "organization_id", "organization_name", "room_id", "skype", "tel_extension", "tel_mobile", "tel_organization",
			"time_zone", "title", "twitter", "url"}
		if d := cmp.Diff(want, slices.Sorted(maps.Keys(me))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if me["name"] != a.Name || me["mail"] != a.Email || me["organization_name"] != a.Organization || me["account_id"] != float64(a.ID) {
			t.Errorf("%s: %v", name, me)
		}
	}
	for name, headers := range map[string][]string{
		"nothing": nil, "bad cookie": {"Cookie: chat_session=x"}, "bad token": {"X-ChatWorkToken: x"}, "empty token": {"X-ChatWorkToken: "},
		"bad token and a good cookie": {"X-ChatWorkToken: x", cookie}, "two tokens": {token, bearer},
	} {
		got := s.do("GET", "/v2/me", "", headers...)
		if got.status != 401 || strings.TrimSpace(got.body) != `{"errors":["Invalid API token"]}` {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}

func TestTokens(t *testing.T) {
	s := newSite(t)
	cookie, other := s.login(s.one[0]), s.login(s.one[1])
	if got := s.do("GET", "/v2/my/tokens", "", cookie); got.status != 204 || got.body != "" {
		t.Errorf("no tokens: %d %s", got.status, got.body)
	}
	token := s.token(cookie)
	var list []struct {
		TokenID int64 `json:"token_id"`
		Name    string
	}
	got := s.do("GET", "/v2/my/tokens", "", cookie)
	s.decode(got, 200, &list)
	if len(list) != 1 || list[0].Name != "test" || strings.Contains(got.body, strings.TrimPrefix(token, "X-ChatWorkToken: ")) {
		t.Errorf("%s", got.body)
	}
	path := fmt.Sprint("/v2/my/tokens/", list[0].TokenID)
	for _, tt := range []struct {
		name, method, path, body string
		header                   string
		status                   int
	}{
		{"a token makes a token", "POST", "/v2/my/tokens", "name=x", token, 403},
		{"a token deletes a token", "DELETE", path, "", token, 403},
		{"a token changes the password", "POST", "/password", "current_password=x&new_password=y", token, 403},
		{"without a name", "POST", "/v2/my/tokens", "name=+", cookie, 400},
		{"with a long name", "POST", "/v2/my/tokens", "name=" + strings.Repeat("x", 65), cookie, 400},
		{"somebody else's", "DELETE", path, "", other, 404},
		{"nonsense", "DELETE", "/v2/my/tokens/01", "", cookie, 404},
		{"own", "DELETE", path, "", cookie, 204},
		{"again", "DELETE", path, "", cookie, 404},
		{"deleted", "GET", "/v2/me", "", token, 401},
	} {
		if got := s.do(tt.method, tt.path, tt.body, tt.header, asForm); got.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", tt.name, got.status, tt.status, got.body)
		}
	}
}

func TestChangePassword(t *testing.T) {
	s := newSite(t)
	a := s.one[0]
	cookie, elsewhere := s.login(a), s.login(a)
	token := s.token(cookie)
	for _, tt := range []struct {
		name, kind, body string
		status           int
	}{
		{"wrong current", asForm, form("current_password", "x", "new_password", "long enough"), 403},
		{"wrong current, JSON", asJSON, `{"current_password":"x","new_password":"long enough"}`, 403},
		{"short", asForm, form("current_password", a.Password, "new_password", "short"), 400},
		{"short, JSON", asJSON, `{"current_password":"` + a.Password + `","new_password":"short"}`, 400},
		{"right", asForm, form("current_password", a.Password, "new_password", "a new one, and long"), 303},
		{"right, JSON", asJSON, `{"current_password":"a new one, and long","new_password":"another new one"}`, 204},
	} {
		if got := s.do("POST", "/password", tt.body, tt.kind, cookie); got.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", tt.name, got.status, tt.status, got.body)
		}
	}
	for name, tt := range map[string]struct {
		header string
		status int
	}{"this session": {cookie, 200}, "the other session": {elsewhere, 401}, "a token": {token, 200}} {
		if got := s.do("GET", "/v2/me", "", tt.header); got.status != tt.status {
			t.Errorf("%s: %d, want %d", name, got.status, tt.status)
		}
	}
	a.Password = "another new one"
	s.login(a)
	if got := s.do("POST", "/password", "", asForm); got.status != 303 || got.header.Get("Location") != "/login" {
		t.Errorf("by nobody: %d", got.status)
	}
}

var link = regexp.MustCompile(`/password/reset/[A-Za-z0-9_-]{43}`)

func TestReset(t *testing.T) {
	s := newSite(t)
	a := s.one[0]
	cookie := s.login(a)
	known := s.do("POST", "/password/reset", form("email", a.Email), asForm)
	unknown := s.do("POST", "/password/reset", form("email", "nobody@nowhere.example"), asForm)
	if known.status != 202 || known.body != unknown.body {
		t.Errorf("%d and %d, the same: %v", known.status, unknown.status, known.body == unknown.body)
	}
	if got := s.do("POST", "/password/reset", `{"email":"x"}`, asJSON); got.status != 202 {
		t.Errorf("JSON: %d", got.status)
	}
	path := link.FindString(s.mail(t))
	if path == "" {
		t.Fatal("the mail holds no link")
	}
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"page", "GET", path, "", 200},
		{"made up", "GET", "/password/reset/" + strings.Repeat("x", 43), "", 410},
		{"made up, set", "POST", "/password/reset/" + strings.Repeat("x", 43), form("new_password", "long enough"), 410},
		{"short", "POST", path, form("new_password", "short"), 400},
		{"set", "POST", path, form("new_password", "a long one, again"), 303},
		{"again", "POST", path, form("new_password", "a long one, and again"), 410},
		{"page, again", "GET", path, "", 410},
	} {
		if got := s.do(tt.method, tt.path, tt.body, asForm); got.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", tt.name, got.status, tt.status, got.body)
		}
	}
	if got := s.do("GET", "/v2/me", "", cookie); got.status != 401 {
		t.Errorf("the session from before: %d", got.status)
	}
	a.Password = "a long one, again"
	s.login(a)
	if log := s.log.String(); strings.Contains(log, filepath.Base(path)) || strings.Contains(log, a.Email) || strings.Contains(log, "nobody@") {
		t.Error("the log tells of the reset")
	}
}

// mail is the text of the one mail. One goroutine mails resets, and 64 may
// wait for it: when 65 more were accepted, the first one was mailed.
func (s *site) mail(t *testing.T) string {
	t.Helper()
	for range 65 {
		if err := s.svc.RequestReset(t.Context(), "nobody@nowhere.example"); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(s.mails, "*.eml"))
	if err != nil || len(files) != 1 {
		t.Fatalf("mails %q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\r\n\r\n")
	body, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\r\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestCrossSite(t *testing.T) {
	s := newSite(t)
	cookie := s.login(s.one[0])
	token := s.token(cookie)
	path := "/v2" + s.company(s.one) + "/messages"
	const foreign, sameSite, evil = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin", "Origin: https://evil.example"
	for _, tt := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
	}{
		{"post by a foreign page", "POST", path, "body=x", []string{cookie, foreign}, 403},
		{"post by a page of our own", "POST", path, "body=x", []string{cookie, sameSite}, 200},
		{"post by an old browser on a foreign page", "POST", path, "body=x", []string{cookie, evil}, 403},
		{"post by an old browser on our page", "POST", path, "body=x", []string{cookie, "Origin: " + s.URL}, 200},
		{"post with a token", "POST", path, "body=x", []string{token, foreign, evil}, 200},
		{"post with a bad token and a cookie", "POST", path, "body=x", []string{"X-ChatWorkToken: x", cookie, foreign}, 401},
		{"page's form", "POST", s.company(s.one) + "/messages", "body=x", []string{cookie, foreign}, 403},
		{"token's end", "DELETE", "/v2/my/tokens/1", "", []string{cookie, foreign}, 403},
		{"login", "POST", "/login", "email=a&password=b", []string{foreign}, 403},
		{"logout", "POST", "/logout", "", []string{cookie, foreign}, 403},
		{"reading", "GET", path + "?force=1", "", []string{cookie, foreign}, 200},
		{"WebSocket", "GET", "/events/ws", "", []string{cookie, evil, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 403},
	} {
		if got := s.do(tt.method, tt.path, tt.body, append(tt.headers, asForm)...); got.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", tt.name, got.status, tt.status, got.body)
		}
	}
}

func TestHeadersAndLanguages(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		path    string
		headers []string
		want    string
	}{
		{"/login", []string{"Accept-Language: en-GB,en;q=0.9"}, `lang="en"`},
		{"/login", []string{"Accept-Language: ja"}, `lang="ja"`},
		{"/login", []string{"Accept-Language: de"}, `lang="ja"`},
		{"/login", nil, `lang="ja"`},
		{"/login", []string{"Accept-Language: ja", "Cookie: lang=en"}, `lang="en"`},
		{"/login?lang=ja", []string{"Cookie: lang=en"}, `lang="ja"`},
		{"/login?lang=xx", []string{"Cookie: lang=xx", "Accept-Language: en"}, `lang="en"`},
		{"/rooms", []string{s.login(s.one[0]), "Accept-Language: en"}, `lang="ja"`}, // the account's own
	} {
		got := s.do("GET", tt.path, "", tt.headers...)
		if got.status != 200 || !strings.Contains(got.body, "<html "+tt.want) {
			t.Errorf("%s %v: %d, not %s", tt.path, tt.headers, got.status, tt.want)
		}
		if csp := got.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") {
			t.Errorf("policy %q", csp)
		}
		if c := got.header.Get("Cache-Control"); c != "no-store" {
			t.Errorf("%s may be kept: %q", tt.path, c)
		}
		if strings.Contains(got.body, "style=") || strings.Contains(got.body, "<script>") {
			t.Errorf("%s has inline style or script", tt.path)
		}
	}
	if c := s.do("GET", "/login?lang=en", "").cookie("lang"); c == nil || c.Value != "en" {
		t.Errorf("language cookie %v", c)
	}
	if got := s.do("GET", "/rooms/12?before=3", ""); got.status != 303 || got.header.Get("Location") != "/login?next=%2Frooms%2F12%3Fbefore%3D3" {
		t.Errorf("a page before the login: %d to %s", got.status, got.header.Get("Location"))
	}
	if got := s.do("GET", "/static/app.css", ""); got.status != 200 || got.header.Get("Cache-Control") != "no-cache" {
		t.Errorf("stylesheet: %d %v", got.status, got.header)
	}
	if got := s.do("GET", "/healthz", ""); got.status != 200 {
		t.Errorf("health: %d", got.status)
	}
}

func TestLocales(t *testing.T) {
	ja, en := slices.Sorted(maps.Keys(web.Locales["ja"])), slices.Sorted(maps.Keys(web.Locales["en"]))
	if d := cmp.Diff(ja, en); d != "" {
		t.Errorf("the languages say different things: %s", d)
	}
	for lang, texts := range web.Locales {
		for key, text := range texts {
			if text == "" || strings.Count(text, "%") != strings.Count(web.Locales["ja"][key], "%") {
				t.Errorf("%s: %s: %q", lang, key, text)
			}
		}
	}
}
