package policies_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

func chatcore(t testing.TB) *policies.Backend {
	t.Helper()
	b, err := policies.LoadBackend("chatcore", nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// preset is a small valid preset with parts replaced: a part without a value is
// left out.
func preset(parts map[string]string) string {
	text := ""
	for _, p := range [][2]string{
		{"name", "small"},
		{"routes", "[{class: login, methods: [POST], path: /login}]"},
		{"login", "{name: {form: [user]}, password: {form: [pass]}}"},
		{"success", "[{status: [303]}]"},
		{"failure", "[{status: [401]}]"},
		{"credentials", "[{name: session, kind: cookie, cookie: sid, unknown: refuse}]"},
		{"identify", "{method: GET, path: /me, anonymous: {status: [401]}, subject: /id}"},
	} {
		value, replaced := parts[p[0]]
		if !replaced {
			value = p[1]
		}
		if value != "" {
			text += p[0] + ": " + value + "\n"
		}
	}
	return text + parts["more"]
}

func small(t testing.TB, parts map[string]string) *policies.Backend {
	t.Helper()
	b, err := policies.LoadBackend("small", fstest.MapFS{"small.yaml": {Data: []byte(preset(parts))}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBackendGolden(t *testing.T) { golden(t, "chatcore.json", chatcore(t)) }

// TestBadBackends has one fault, or one family of faults, per file; the wanted
// text stands beside it.
func TestBadBackends(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	dir := os.DirFS("testdata/bad")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			_, err := policies.LoadBackend(name, dir)
			if err == nil {
				t.Fatal("it was accepted")
			}
			goldenText(t, filepath.Join("bad", name+".txt"), err.Error()+"\n")
		})
	}
}

func TestLoadBackend(t *testing.T) {
	own := fstest.MapFS{"chatcore.yaml": {Data: []byte(strings.Replace(preset(nil), "name: small", "name: chatcore", 1))}}
	for _, tc := range []struct {
		name, backend string
		dir           fs.FS
		routes        int
		fault         string
	}{
		{"shipped", "chatcore", nil, 15, ""},
		{"shipped, beside an empty folder", "chatcore", fstest.MapFS{}, 15, ""},
		{"the folder goes first", "chatcore", own, 1, ""},
		{"unknown", "nothing", nil, 0, "shipped are: chatcore"},
		{"out of the folder", "../chatcore", nil, 0, "lower-case letters"},
		{"no name", "", nil, 0, "lower-case letters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := policies.LoadBackend(tc.backend, tc.dir)
			if tc.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fault) {
					t.Fatalf("got %v, want %q", err, tc.fault)
				}
				return
			}
			if err != nil || len(b.Routes) != tc.routes {
				t.Fatalf("got %v, %v, want %d routes", b, err, tc.routes)
			}
		})
	}
}

func TestClass(t *testing.T) {
	b := chatcore(t)
	for _, tc := range []struct {
		method, path string
		want         detectors.RouteClass
	}{
		{"POST", "/login", detectors.LoginRoute},
		{"post", "/login", detectors.LoginRoute},
		{"GET", "/login", detectors.Public},
		{"HEAD", "/login", detectors.Public},
		{"PUT", "/login", detectors.Other},
		{"POST", "/login/x", detectors.Other},
		{"POST", "/logout", detectors.Logout},
		{"POST", "/password", detectors.ChangePassword},
		{"POST", "/password/reset", detectors.Reset},
		{"POST", "/password/reset/abc", detectors.Reset},
		{"GET", "/password/reset/abc", detectors.Public},
		{"POST", "/password/reset/abc/def", detectors.Other},
		{"POST", "/v2/my/tokens", detectors.TokenMint},
		{"DELETE", "/v2/my/tokens/7", detectors.Sensitive},
		{"GET", "/v2/me", detectors.Identify},
		{"GET", "/static", detectors.Public},
		{"GET", "/static/app.js", detectors.Public},
		{"GET", "/static/a/b/c", detectors.Public},
		{"POST", "/static/app.js", detectors.Other},
		{"GET", "/staticx", detectors.Other},
		{"GET", "/", detectors.Other},
	} {
		if got := b.Class(tc.method, tc.path); got != tc.want {
			t.Errorf("%s %s: got %q, want %q", tc.method, tc.path, got, tc.want)
		}
	}
}

func TestTheMostSpecificRouteCounts(t *testing.T) {
	b := small(t, map[string]string{"routes": `
  - {class: public, path: "/{rest...}"}
  - {class: sensitive, path: "/{a}/{b}"}
  - {class: invite, path: "/rooms/{room...}"}
  - {class: signup, path: "/rooms/{room}"}
  - {class: token_mint, methods: [POST], path: "/rooms/{room}"}
  - {class: change_email, path: "/{a}/x"}
  - {class: login, path: /rooms/x}
  - {class: logout, methods: [POST], path: /rooms/x}`})
	for _, tc := range []struct {
		method, path string
		want         detectors.RouteClass
	}{
		{"GET", "/", detectors.Public},
		{"GET", "/a/b/c", detectors.Public},
		{"GET", "/a/b", detectors.Sensitive},
		{"GET", "/rooms", detectors.Invite},
		{"GET", "/rooms/1/2", detectors.Invite},
		{"GET", "/rooms/1", detectors.Signup},
		{"POST", "/rooms/1", detectors.TokenMint},
		{"GET", "/a/x", detectors.ChangeEmail},
		{"GET", "/rooms/x", detectors.LoginRoute},
		{"POST", "/rooms/x", detectors.Logout},
	} {
		if got := b.Class(tc.method, tc.path); got != tc.want {
			t.Errorf("%s %s: got %q, want %q", tc.method, tc.path, got, tc.want)
		}
	}
}

func header(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestOutcomeOfChatcore(t *testing.T) {
	b := chatcore(t)
	session := []string{"Set-Cookie", "chat_session=abc; Path=/; HttpOnly; Max-Age=3600"}
	for _, tc := range []struct {
		name string
		a    policies.Answer
		want detectors.Outcome
	}{
		{"a form succeeds", policies.Answer{Status: 303, Header: header(append(session, "Location", "/rooms")...)}, detectors.Success},
		{"a form leads elsewhere without a session", policies.Answer{Status: 303, Header: header("Location", "/login")}, detectors.Unknown},
		{"JSON succeeds", policies.Answer{Status: 200, Header: header(session...), Body: []byte(`{"account_id":7}`)}, detectors.Success},
		{"JSON without a session", policies.Answer{Status: 200, Body: []byte(`{"account_id":7}`)}, detectors.Unknown},
		{"JSON cut off", policies.Answer{Status: 200, Header: header(session...), Body: []byte(`{"account_id":7}`), Truncated: true}, detectors.Unknown},
		{"failure", policies.Answer{Status: 401}, detectors.Failure},
		{"a dead backend", policies.Answer{Status: 502}, detectors.Unknown},
		{"a session is taken away", policies.Answer{Status: 303, Header: header("Set-Cookie", "chat_session=; Path=/; Max-Age=0")}, detectors.Unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := b.Outcome(tc.a); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	for _, tc := range []struct {
		name, condition string
		a               policies.Answer
		want            bool
	}{
		{"one of several statuses", "{status: [400, 403]}", policies.Answer{Status: 403}, true},
		{"another status", "{status: 400}", policies.Answer{Status: 403}, false},
		{"a header", "{header: {name: x-result, matches: '^ok$'}}", policies.Answer{Header: header("X-Result", "no", "X-Result", "ok")}, true},
		{"a header that is not there", "{header: {name: x-result, matches: ''}}", policies.Answer{}, false},
		{"a cookie", "{cookie: sid}", policies.Answer{Header: header("Set-Cookie", "a=b", "Set-Cookie", "sid=1")}, true},
		{"an emptied cookie", "{cookie: sid}", policies.Answer{Header: header("Set-Cookie", "sid=")}, false},
		{"a cookie of 1970", "{cookie: sid}", policies.Answer{Header: header("Set-Cookie", "sid=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT")}, false},
		{"a redirect", "{redirect: /rooms*}", policies.Answer{Header: header("Location", "/rooms/7")}, true},
		{"a redirect with host", "{redirect: /rooms*}", policies.Answer{Header: header("Location", "https://chat.example/rooms?a=b")}, true},
		{"a redirect elsewhere", "{redirect: /rooms*}", policies.Answer{Header: header("Location", "/login?next=/rooms")}, false},
		{"a star in the middle", "{redirect: '/a*c*e'}", policies.Answer{Header: header("Location", "/abcde")}, true},
		{"a star that overlaps", "{redirect: '/aa*aa'}", policies.Answer{Header: header("Location", "/aaa")}, false},
		{"no redirect", "{redirect: '*'}", policies.Answer{}, false},
		{"text", "{body_contains: wrong password}", policies.Answer{Body: []byte("<p>wrong password</p>")}, true},
		{"text beyond 64 KiB", "{body_contains: end}", policies.Answer{Body: append(make([]byte, 64<<10), "end"...)}, false},
		{"a JSON text", "{json: {pointer: /result, equals: ok}}", policies.Answer{Body: []byte(`{"result":"ok"}`)}, true},
		{"a JSON number", "{json: {pointer: /result/0, equals: 12}}", policies.Answer{Body: []byte(`{"result":[12]}`)}, true},
		{"a JSON boolean", "{json: {pointer: /ok, equals: false}}", policies.Answer{Body: []byte(`{"ok":false}`)}, true},
		{"a JSON null", "{json: {pointer: /user, equals: null}}", policies.Answer{Body: []byte(`{"user":null}`)}, true},
		{"a JSON object is no text", "{json: {pointer: /user, equals: 'null'}}", policies.Answer{Body: []byte(`{"user":{}}`)}, false},
		{"escaped pointer", "{json: {pointer: /a~1b/~0, exists: true}}", policies.Answer{Body: []byte(`{"a/b":{"~":1}}`)}, true},
		{"must not exist", "{json: {pointer: /error, exists: false}}", policies.Answer{Body: []byte(`{}`)}, true},
		{"must not exist, but not JSON", "{json: {pointer: /error, exists: false}}", policies.Answer{Body: []byte(`x`)}, false},
		{"two JSON values", "{json: {pointer: /a, exists: true}}", policies.Answer{Body: []byte(`{"a":1}{"b":2}`)}, false},
		{"all parts must hold", "{status: [200], body_contains: no}", policies.Answer{Status: 200, Body: []byte("yes")}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if strings.Contains(tc.condition, "matches: ''") {
				tc.condition = strings.Replace(tc.condition, "''", "'.*'", 1)
			}
			b := small(t, map[string]string{"success": "[" + tc.condition + "]", "failure": "[{status: [599]}]"})
			want := detectors.Unknown
			if tc.want {
				want = detectors.Success
			}
			if got := b.Outcome(tc.a); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	both := small(t, map[string]string{"failure": "[{body_contains: wrong}]"})
	if got := both.Outcome(policies.Answer{Status: 303, Body: []byte("wrong")}); got != detectors.Unknown {
		t.Errorf("both lists: got %q, want unknown", got)
	}
}

func TestReadIdentity(t *testing.T) {
	page := small(t, map[string]string{"identify": `
  method: GET
  path: /profile
  anonymous: {redirect: /login*}
  subject: {page: 'data-user="(\d+)"'}
  names: [{page: 'class="mail">([^<]*)<'}]`})
	many := small(t, map[string]string{"identify": "{method: GET, path: /me, anonymous: {status: [401]}, subject: /id, names: [/login, /mails], roles: [/roles]}"})
	for _, tc := range []struct {
		name    string
		b       *policies.Backend
		a       policies.Answer
		want    policies.Identity
		fault   string // part of the error
		nobody  bool
		unheard string // must not be in the error
	}{
		{
			name: "chatcore", b: chatcore(t),
			a: policies.Answer{Status: 200, Body: []byte(`{"account_id":123,"organization_id":7,"login_mail":"a@acme.example","mail":"a@acme.example","language":"ja","time_zone":"Asia/Tokyo"}`)},
			want: policies.Identity{Subject: "123", Organization: "7", Names: []string{"a@acme.example"}, Mail: []string{"a@acme.example"},
				Language: "ja", TimeZone: "Asia/Tokyo"},
		},
		{name: "chatcore, nobody", b: chatcore(t), a: policies.Answer{Status: 401, Body: []byte(`{"errors":["x"]}`)}, nobody: true},
		{name: "chatcore, broken", b: chatcore(t), a: policies.Answer{Status: 500}, fault: "status 500"},
		{name: "chatcore, not JSON", b: chatcore(t), a: policies.Answer{Status: 200, Body: []byte(`<html>`)}, fault: "neither condition"},
		{name: "lists", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":"u1","login":"a","mails":["a","b",""],"roles":["admin"]}`)},
			want: policies.Identity{Subject: "u1", Names: []string{"a", "b"}, Roles: []string{"admin"}}},
		{name: "a large number keeps its digits", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":9007199254740993}`)}, want: policies.Identity{Subject: "9007199254740993"}},
		{name: "a fraction", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":1.5}`)}, fault: "whole number"},
		{name: "an exponent", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":1e3}`)}, fault: "whole number"},
		{name: "a boolean", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":true}`)}, fault: "neither a text nor a number"},
		{name: "an object", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":{"a":1}}`)}, fault: "neither a text nor a number"},
		{name: "two subjects", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":["a","b"]}`)}, fault: "more than one"},
		{name: "no subject", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":null}`)}, fault: "no subject"},
		{name: "an empty subject", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":""}`)}, fault: "no subject"},
		{name: "control characters", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":"secret\u0000"}`)}, fault: "control characters", unheard: "secret"},
		{name: "cut off", b: many, a: policies.Answer{Status: 200, Body: []byte(`{"id":"a"}`), Truncated: true}, fault: "longer than"},
		{name: "a page", b: page, a: policies.Answer{Status: 200, Body: []byte(`<b data-user="42"></b><i class="mail">a&amp;b@acme.example</i>`)}, want: policies.Identity{Subject: "42", Names: []string{"a&b@acme.example"}}},
		{name: "a page that leads to the login", b: page, a: policies.Answer{Status: 303, Header: header("Location", "/login?next=/profile")}, nobody: true},
		{name: "another page", b: page, a: policies.Answer{Status: 200, Body: []byte(`<p>maintenance</p>`)}, fault: "no subject"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.b.ReadIdentity(tc.a)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			switch {
			case errors.Is(err, policies.ErrAnonymous) != tc.nobody:
				t.Errorf("got %v, want anonymous: %v", err, tc.nobody)
			case tc.fault != "" && (err == nil || !strings.Contains(err.Error(), tc.fault)):
				t.Errorf("got %v, want %q", err, tc.fault)
			case tc.fault == "" && !tc.nobody && err != nil:
				t.Errorf("got %v, want no error", err)
			case tc.unheard != "" && strings.Contains(err.Error(), tc.unheard):
				t.Errorf("the error tells what the answer held: %v", err)
			}
		})
	}
}

func TestClientsAndMints(t *testing.T) {
	b := chatcore(t)
	for _, tc := range []struct {
		path string
		h    http.Header
		want policies.ClientKind
	}{
		{"/login", header("User-Agent", "Mozilla/5.0"), policies.Browser},
		{"/login", header("X-ChatWorkToken", "x"), policies.NativeClient},
		{"/v2/me", nil, policies.NativeClient},
		{"/events/poll", nil, policies.SPAClient},
	} {
		if got := b.Client(tc.path, tc.h); got != tc.want {
			t.Errorf("%s %v: got %q, want %q", tc.path, tc.h, got, tc.want)
		}
	}
	for _, c := range b.Credentials {
		got := c.MintedIn(detectors.TokenMint, policies.Answer{Status: 200, Body: []byte(`{"token":"abc","token_id":1}`)})
		want := []string{"abc"}
		if c.Kind == policies.CookieCredential {
			want = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.Name, diff)
		}
		if got := c.MintedIn(detectors.LoginRoute, policies.Answer{Status: 200, Body: []byte(`{"token":"abc"}`)}); got != nil {
			t.Errorf("%s: got %v from a log-in", c.Name, got)
		}
	}
}

// FuzzLoadBackend reads anything without falling over, and what it accepts has
// what the gateway relies on.
func FuzzLoadBackend(f *testing.F) {
	f.Add([]byte(preset(nil)))
	f.Add([]byte("name: [&a {b: *a}]\n---\nx"))
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range append(files, "backends/chatcore.yaml", "backends/miniflux.yaml", "backends/pocketbase.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := policies.LoadBackend("small", fstest.MapFS{"small.yaml": {Data: data}})
		if err != nil {
			return
		}
		if b.Name != "small" || len(b.Success) == 0 || len(b.Failure) == 0 || b.Identify.Anonymous == nil {
			t.Fatalf("accepted without what is required: %+v", b)
		}
		b.Class("POST", "/login")
		b.Outcome(policies.Answer{Status: 200, Header: header("Location", "/", "Set-Cookie", "a=b"), Body: []byte(`{"a":[1]}`)})
		_, _ = b.ReadIdentity(policies.Answer{Status: 200, Body: []byte(`{"id":1}`)})
		b.Client("/x", header("User-Agent", "x"))
	})
}

func BenchmarkClass(b *testing.B) {
	backend := chatcore(b)
	for _, path := range []string{"/login", "/static/app.js", "/v2/rooms/12345/messages", "/password/reset/abc"} {
		b.Run(path[1:], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				backend.Class("POST", path)
			}
		})
	}
}
