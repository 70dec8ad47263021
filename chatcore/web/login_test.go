package web_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/chatcore/web"
)

func TestLogin(t *testing.T) {
	s := newSite(t)
	a := s.one[0]
	right := form("email", a.Email, "password", a.Password)
	rightJSON := `{"email":"` + a.Email + `","password":"` + a.Password + `"}`
	for name, tt := range map[string]struct {
		body     string
		headers  []string
		status   int
		location string
	}{
		"form":                     {right, []string{asForm}, 303, "/rooms"},
		"form with charset":        {right, []string{asForm + "; charset=UTF-8"}, 303, "/rooms"},
		"form, other capitals":     {form("email", "  "+strings.ToUpper(a.Email), "password", a.Password), []string{asForm}, 303, "/rooms"},
		"form, full width":         {form("email", strings.Replace(a.Email, "@", "＠", 1), "password", a.Password), []string{asForm}, 303, "/rooms"},
		"form, next":               {right + "&next=%2Frooms%2F7%3Fbefore%3D3", []string{asForm}, 303, "/rooms/7?before=3"},
		"form, next elsewhere":     {right + "&next=https%3A%2F%2Fevil.example%2F", []string{asForm}, 303, "/rooms"},
		"form, next by slashes":    {right + "&next=%2F%2Fevil.example", []string{asForm}, 303, "/rooms"},
		"form, first field wins":   {right + "&email=other&password=other", []string{asForm}, 303, "/rooms"},
		"form, second field right": {form("email", "x", "password", "x") + "&" + right, []string{asForm}, 401, ""},
		"form, broken escape":      {"email=%zz&password=x", []string{asForm}, 400, ""},
		"form, semicolon":          {"email=a;password=b", []string{asForm}, 400, ""},
		"form, not UTF-8":          {"email=%ff&password=b", []string{asForm}, 400, ""},
		"empty form":               {"", []string{asForm}, 401, ""},
		"JSON":                     {rightJSON, []string{asJSON}, 200, ""},
		"JSON, wrong":              {`{"email":"a","password":"b"}`, []string{asJSON}, 401, ""},
		"JSON, empty object":       {`{}`, []string{asJSON}, 401, ""},
		"JSON, name twice":         {`{"email":"a","email":"b","password":"c"}`, []string{asJSON}, 400, ""},
		"JSON, capitals":           {`{"Email":"a","password":"c"}`, []string{asJSON}, 400, ""},
		"JSON, unknown name":       {`{"email":"a","password":"c","x":"y"}`, []string{asJSON}, 400, ""},
		"JSON, number":             {`{"email":1,"password":"c"}`, []string{asJSON}, 400, ""},
		"JSON, nested":             {`{"email":{"a":"b"},"password":"c"}`, []string{asJSON}, 400, ""},
		"JSON, array":              {`["a"]`, []string{asJSON}, 400, ""},
		"JSON, more":               {rightJSON + `{}`, []string{asJSON}, 400, ""},
		"JSON, cut":                {`{"email":"a"`, []string{asJSON}, 400, ""},
		"JSON as form":             {rightJSON, []string{asForm}, 401, ""},
		"form as JSON":             {right, []string{asJSON}, 400, ""},
		"no type":                  {right, nil, 415, ""},
		"multipart":                {right, []string{"Content-Type: multipart/form-data; boundary=x"}, 415, ""},
		"text":                     {right, []string{"Content-Type: text/plain"}, 415, ""},
		"two types":                {right, []string{asForm, asJSON}, 415, ""},
		"another charset":          {right, []string{asForm + "; charset=shift_jis"}, 415, ""},
		"coded":                    {right, []string{asForm, "Content-Encoding: gzip"}, 415, ""},
		"64 KiB":                   {form("email", a.Email, "password", strings.Repeat("x", 64<<10)), []string{asForm}, 413, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.do("POST", "/login", tt.body, tt.headers...)
			if got.status != tt.status || got.header.Get("Location") != tt.location {
				t.Errorf("%d to %q, want %d to %q: %s", got.status, got.header.Get("Location"), tt.status, tt.location, got.body)
			}
			c := got.cookie(web.SessionCookie)
			if ok := tt.status == 200 || tt.status == 303; ok != (c != nil) {
				t.Fatalf("cookie %v", c)
			}
			if c != nil && (!c.HttpOnly || c.Path != "/" || c.SameSite != http.SameSiteLaxMode || c.Secure || len(c.Value) < 43) {
				t.Errorf("cookie %+v", c)
			}
		})
	}
	if log := s.log.String(); strings.Contains(log, a.Password) || strings.Contains(log, a.Email) {
		t.Error("the log tells of the login")
	}
}

// TestLoginRefusals checks that who may not log in learns nothing from the
// answer: neither a byte nor a header tells an unknown account from a wrong
// password.
func TestLoginRefusals(t *testing.T) {
	s := newSite(t)
	known, unknown := s.one[0].Email, "nobody@nowhere.example"
	for _, kind := range []string{asForm, asJSON} {
		var first *answer
		for name, pair := range map[string][2]string{
			"wrong password":  {known, "wrong password"},
			"unknown account": {unknown, "wrong password"},
			"empty password":  {known, ""},
			"empty":           {"", ""},
			"long":            {known, strings.Repeat("x", 5000)},
		} {
			body := form("email", pair[0], "password", pair[1])
			if kind == asJSON {
				b, _ := json.Marshal(map[string]string{"email": pair[0], "password": pair[1]})
				body = string(b)
			}
			got := s.do("POST", "/login", body, kind, "Accept-Language: en")
			got.header.Del("Date")
			if first == nil {
				first = &got
			}
			if d := cmp.Diff(*first, got, cmp.AllowUnexported(answer{})); d != "" {
				t.Errorf("%s, %s: %s", kind, name, d)
			}
			if got.status != 401 {
				t.Errorf("%s, %s: %d", kind, name, got.status)
			}
		}
		if want := `{"errors":["Invalid email or password"]}`; kind == asJSON && strings.TrimSpace(first.body) != want {
			t.Errorf("body %s, want %s", first.body, want)
		}
	}
}

func TestLogout(t *testing.T) {
	s := newSite(t)
	cookie := s.login(s.one[0])
	if got := s.do("POST", "/logout", "", cookie, "Accept: application/json"); got.status != 204 || got.cookie(web.SessionCookie).MaxAge >= 0 {
		t.Errorf("%d %v", got.status, got.header)
	}
	if got := s.do("GET", "/v2/me", "", cookie); got.status != 401 {
		t.Errorf("after the logout: %d", got.status)
	}
	if got := s.do("POST", "/logout", "", cookie); got.status != 303 || got.header.Get("Location") != "/login" {
		t.Errorf("again: %d", got.status)
	}
}

func TestLocal(t *testing.T) {
	for in, want := range map[string]string{
		"/rooms/1": "/rooms/1", "/account?x=y": "/account?x=y",
		"": "/rooms", "rooms": "/rooms", "//evil.example": "/rooms", "/\\evil.example": "/rooms", "\\\\evil.example": "/rooms",
		"https://evil.example": "/rooms", "javascript:alert(1)": "/rooms", "/a\r\nSet-Cookie: x": "/rooms", "/\t/evil.example": "/rooms",
		"/" + strings.Repeat("a", 2000): "/rooms",
	} {
		if got := web.Local(in); got != want {
			t.Errorf("%q leads to %q, want %q", in, got, want)
		}
	}
}

// FuzzLoginBody checks that whatever is read of a body was in it: the fields
// of a form or an object come back when it is written again.
func FuzzLoginBody(f *testing.F) {
	f.Add(true, []byte("email=a%40b.example&password=%E3%81%82&next=%2F"))
	f.Add(true, []byte("email=a&email=b;c"))
	f.Add(false, []byte(`{"email":"a@b.example","password":"\u3042"}`))
	f.Add(false, []byte(`{"email":"a","EMAIL":"b"}`))
	f.Fuzz(func(t *testing.T, isForm bool, body []byte) {
		kind := web.JSONType
		if isForm {
			kind = web.FormType
		}
		fields, err := web.DecodeFields(kind, body, "email", "password")
		if err != nil {
			return
		}
		again := []byte(form("email", fields["email"], "password", fields["password"]))
		if !isForm {
			if again, err = json.Marshal(fields); err != nil {
				t.Fatal(err)
			}
		}
		got, err := web.DecodeFields(kind, again, "email", "password")
		if err != nil {
			t.Fatalf("%q became %q: %v", body, again, err)
		}
		if d := cmp.Diff(fields, got); d != "" {
			t.Errorf("%q became %q: %s", body, again, d)
		}
	})
}
