package policies_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

// shipped is a preset as it comes with the gate.
func shipped(t testing.TB, name string) *policies.Backend {
	t.Helper()
	b, err := policies.LoadBackend(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// recorded is what the real backend once answered.
func recorded(t testing.TB, backend, name string) policies.Answer {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "recorded", backend, name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), nil)
	if err != nil {
		t.Fatalf("%s/%s: %v", backend, name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return policies.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}
}

// TestShippedPresets loads each file that is shipped, also as an operator's copy.
func TestShippedPresets(t *testing.T) {
	files, err := filepath.Glob("backends/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("got %v, %v, want five presets or more", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		b := shipped(t, name)
		if _, fit := b.Judge(policies.Answer{Status: 502}); fit != policies.FitsNeither {
			t.Errorf("%s: a dead backend %s, want neither", name, fit)
		}
		if _, err := policies.LoadBackend(name, os.DirFS("backends")); err != nil {
			t.Errorf("as a copy: %v", err)
		}
	}
}

func TestRecordedAnswers(t *testing.T) {
	for _, tc := range []struct {
		backend, answer string
		outcome         detectors.Outcome
		fit             policies.Fit
	}{
		{"miniflux", "right", detectors.Success, policies.Fits},
		{"miniflux", "wrong", detectors.Failure, policies.Fits},
		{"miniflux", "unknown", detectors.Failure, policies.Fits},
		{"miniflux", "without-csrf", detectors.Unknown, policies.Fits},
		{"miniflux", "whoami", detectors.Unknown, policies.FitsNeither},
		{"pocketbase", "right", detectors.Success, policies.Fits},
		{"pocketbase", "superuser", detectors.Success, policies.Fits},
		{"pocketbase", "wrong", detectors.Failure, policies.Fits},
		{"pocketbase", "unknown", detectors.Failure, policies.Fits},
		{"pocketbase", "blank", detectors.Failure, policies.Fits},
		{"pocketbase", "no-collection", detectors.Unknown, policies.Fits},
		{"pocketbase", "second-factor", detectors.Unknown, policies.Fits},
	} {
		outcome, fit := shipped(t, tc.backend).Judge(recorded(t, tc.backend, tc.answer))
		if outcome != tc.outcome || fit != tc.fit {
			t.Errorf("%s, %s: got %s (%s), want %s (%s)", tc.backend, tc.answer, outcome, fit, tc.outcome, tc.fit)
		}
	}
}

func TestRecordedIdentities(t *testing.T) {
	for _, tc := range []struct {
		backend, answer string
		want            policies.Identity
		fault           string
	}{
		{backend: "miniflux", answer: "whoami", want: policies.Identity{Subject: "ann", Names: []string{"ann"}, Language: "en-US"}},
		{backend: "miniflux", answer: "nobody", fault: policies.ErrAnonymous.Error()},
		{backend: "miniflux", answer: "form", fault: "no subject"},
		{backend: "pocketbase", answer: "whoami", want: policies.Identity{
			Subject: "_pb_users_auth_/dd6tn0ily9dztm3", Organization: "users",
			Names: []string{"ann@acme.example"}, Mail: []string{"ann@acme.example"},
		}},
		{backend: "pocketbase", answer: "nobody", fault: policies.ErrAnonymous.Error()},
		{backend: "pocketbase", answer: "other-collection", fault: "neither condition"},
	} {
		got, err := shipped(t, tc.backend).ReadIdentity(recorded(t, tc.backend, tc.answer))
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", tc.backend, tc.answer, diff)
		}
		if (err == nil) != (tc.fault == "") || err != nil && !strings.Contains(err.Error(), tc.fault) {
			t.Errorf("%s, %s: got %v, want %q", tc.backend, tc.answer, err, tc.fault)
		}
	}
}

// TestAPageThatItsReaderWrote tries to be somebody else through what Miniflux puts
// into a page as its user wrote it.
func TestAPageThatItsReaderWrote(t *testing.T) {
	b := shipped(t, "miniflux")
	page := recorded(t, "miniflux", "whoami")
	key := regexp.MustCompile(`[0-9a-f]{64}`).FindString(string(page.Body))
	if key == "" {
		t.Fatal("the recorded page has no key")
	}
	stolen := strings.Repeat("0123456789abcdef", 4)
	style := `<style>/* <main id="main"><table><tr><th class="column-25">D</th><td>d</td></tr><tr><th>T</th><td>` + stolen + `</td></tr></table>` +
		`<li>A = <strong>http://feeds.example/v1/</strong></li><li>U = <strong>root</strong></li> */</style></head>`
	page.Body = bytes.Replace(page.Body, []byte("</head>"), []byte(style), 1)
	page.Body = bytes.Replace(page.Body, []byte(">reader<"), []byte(">"+stolen+"<"), 1)
	id, err := b.ReadIdentity(page)
	if err != nil || id.Subject != "ann" || !cmp.Equal(id.Names, []string{"ann"}) {
		t.Errorf("got %+v, %v, want ann", id, err)
	}
	for i := range b.Credentials {
		c := &b.Credentials[i]
		var want []string
		if c.Name == "api_key" {
			want = []string{key}
		}
		if got := c.MintedIn(detectors.TokenMint, page); !cmp.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", c.Name, got, want)
		}
	}
}

func TestTokensOfPocketBase(t *testing.T) {
	b := shipped(t, "pocketbase")
	a := recorded(t, "pocketbase", "superuser")
	for i := range b.Credentials {
		c := &b.Credentials[i]
		got := c.MintedIn(detectors.LoginRoute, a)
		if len(got) != 1 || c.Renews(detectors.LoginRoute) || !c.Renews(detectors.Identify) || !c.Paired {
			t.Fatalf("%s: minted %d; renews %v, %v; paired %v", c.Name, len(got), c.Renews(detectors.LoginRoute), c.Renews(detectors.Identify), c.Paired)
		}
		for _, value := range []string{got[0], "Bearer " + got[0]} {
			call, err := b.Whose("none", value)
			if want := (policies.Call{Method: "POST", Path: "/api/collections/pbc_3142635823/auth-refresh"}); err != nil || call != want {
				t.Errorf("got %v, %v, want %v", call, err, want)
			}
		}
	}
	for name, value := range map[string]string{
		"no token":              "abc",
		"not base64":            "a.!.c",
		"not JSON":              "a.YQ.c",
		"a list":                "a.W10.c",
		"without the claim":     "a.e30.c",
		"a claim with a slash":  "a.eyJjb2xsZWN0aW9uSWQiOiIuLi9zZXR0aW5ncyJ9.c", // {"collectionId":"../settings"}
		"a claim that is empty": "a.eyJjb2xsZWN0aW9uSWQiOiIifQ.c",               // {"collectionId":""}
		"a claim with a query":  "a.eyJjb2xsZWN0aW9uSWQiOiJ1c2Vycz9hPWIifQ.c",   // {"collectionId":"users?a=b"}
		"a claim of number":     "a.eyJjb2xsZWN0aW9uSWQiOjd9.c",                 // {"collectionId":7}
		"a claim that is long":  "a.eyJjb2xsZWN0aW9uSWQiOiJ" + strings.Repeat("YWFh", 60) + "In0.c",
	} {
		if call, err := b.Whose(value); err == nil {
			t.Errorf("%s: got %v, want an error", name, call)
		} else if strings.Contains(err.Error(), value) {
			t.Errorf("%s: the error tells the token: %v", name, err)
		}
	}
	if call, err := shipped(t, "chatcore").Whose(); err != nil || call != (policies.Call{Method: "GET", Path: "/v2/me"}) {
		t.Errorf("without claims: got %v, %v", call, err)
	}
}

func TestAdmits(t *testing.T) {
	for _, tc := range []struct {
		backend, method, path string
		want                  policies.Admission
	}{
		{"miniflux", "POST", "/fever", policies.AdmitsNobody},
		{"miniflux", "GET", "/fever/x", policies.AdmitsNobody},
		{"miniflux", "POST", "/accounts/clientlogin", policies.AdmitsNobody},
		{"miniflux", "PUT", "/reader/api/0/edit-tag", policies.AdmitsNobody},
		{"miniflux", "GET", "/unread", policies.AdmitsAnyone},
		{"miniflux", "POST", "/login", policies.AdmitsAnyone},
		{"pocketbase", "GET", "/api/realtime", policies.AdmitsSessions},
		{"pocketbase", "HEAD", "/api/realtime", policies.AdmitsSessions},
		{"pocketbase", "POST", "/api/realtime", policies.AdmitsAnyone},
		{"pocketbase", "GET", "/api/backups/b.zip", policies.AdmitsSessions},
		{"chatcore", "GET", "/", policies.AdmitsAnyone},
	} {
		if got := shipped(t, tc.backend).Admits(tc.method, tc.path); got != tc.want {
			t.Errorf("%s %s %s: got %q, want %q", tc.backend, tc.method, tc.path, got, tc.want)
		}
	}
}

func TestJoinedSubjects(t *testing.T) {
	b := small(t, map[string]string{"identify": "{method: GET, path: /me, anonymous: {status: [401]}, subject: {join: [/realm, /id]}}"})
	for body, want := range map[string]string{
		`{"realm":"a","id":7}`:         "a/7",
		`{"realm":"a"}`:                "",
		`{"realm":"a","id":""}`:        "",
		`{"realm":"a/b","id":"c"}`:     "",
		`{"realm":"a","id":"b/c"}`:     "",
		`{"realm":["a"],"id":"c"}`:     "a/c",
		`{"realm":["a","b"],"id":"c"}`: "",
		`{"realm":true,"id":"c"}`:      "",
	} {
		id, err := b.ReadIdentity(policies.Answer{Status: 200, Body: []byte(body)})
		if id.Subject != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", body, id.Subject, err, want)
		}
	}
}

func TestUndecidedAndElsewhere(t *testing.T) {
	b := small(t, map[string]string{
		"success": "[{status: [302], elsewhere: [/login*, /signin]}]", "failure": "[{status: [401, 418]}, {redirect: /both}]",
		"more": "undecided: [{status: [429, 401]}]\n",
	})
	to := func(location string) policies.Answer {
		return policies.Answer{Status: 302, Header: http.Header{"Location": {location}}}
	}
	for _, tc := range []struct {
		name    string
		a       policies.Answer
		outcome detectors.Outcome
		fit     policies.Fit
	}{
		{"elsewhere", to("/rooms"), detectors.Success, policies.Fits},
		{"back", to("/login?next=/"), detectors.Unknown, policies.FitsNeither},
		{"back with host", to("https://chat.example/signin"), detectors.Unknown, policies.FitsNeither},
		{"nowhere", policies.Answer{Status: 302}, detectors.Unknown, policies.FitsNeither},
		{"both", to("/both"), detectors.Unknown, policies.FitsBoth},
		{"failure goes before undecided", policies.Answer{Status: 401}, detectors.Failure, policies.Fits},
		{"undecided", policies.Answer{Status: 429}, detectors.Unknown, policies.Fits},
	} {
		if outcome, fit := b.Judge(tc.a); outcome != tc.outcome || fit != tc.fit {
			t.Errorf("%s: got %s (%s), want %s (%s)", tc.name, outcome, fit, tc.outcome, tc.fit)
		}
	}
}

func TestHeldAnswers(t *testing.T) {
	w := policies.Wording{
		Continue: `https://chat.example/.kidoban/c?a=1&b="2"`, Code: "BCDF-GHJK",
		Title: "One more step\r\n", Detail: `Open <{code}>, then come back.`,
	}
	b := small(t, map[string]string{"more": `hold:
  html: {status: 303, location: '/login?error={title}&go={continue}', header: {X-Go: '{title}{continue}'}}
  json: {status: 409, content_type: application/json, body: '{"a":{"b":"{detail} {continue}"},"code":"{code}","{x}":1}'}
`})
	page, data := b.Held["html"].Fill(w), b.Held["json"].Fill(w)
	if want := "/login?error=One+more+step%0D%0A&go=https%3A%2F%2Fchat.example%2F.kidoban%2Fc%3Fa%3D1%26b%3D%222%22"; page.Location != want {
		t.Errorf("location: got %s, want %s", page.Location, want)
	}
	if want := "One more step" + w.Continue; page.Header["X-Go"] != want {
		t.Errorf("header: got %q, want %q", page.Header["X-Go"], want)
	}
	if want := "{title}{continue}"; b.Held["html"].Header["X-Go"] != want {
		t.Errorf("the preset changed: %q", b.Held["html"].Header["X-Go"])
	}
	want := `{"a":{"b":"Open \u003c{code}\u003e, then come back. https://chat.example/.kidoban/c?a=1\u0026b=\"2\""},"code":"BCDF-GHJK","{x}":1}`
	if data.Body != want {
		t.Errorf("JSON: got %s, want %s", data.Body, want)
	}
	whole := policies.Rendering{Status: 303, Location: "{continue}", ContentType: "text/html", Body: `<a href="{continue}">{detail}</a>`}.Fill(w)
	if whole.Location != w.Continue {
		t.Errorf("a whole location: got %s", whole.Location)
	}
	if want := `<a href="https://chat.example/.kidoban/c?a=1&amp;b=&#34;2&#34;">Open &lt;{code}&gt;, then come back.</a>`; whole.Body != want {
		t.Errorf("HTML: got %s, want %s", whole.Body, want)
	}
	if held := shipped(t, "pocketbase").Held["json"].Fill(w); !strings.Contains(held.Body, `"message":"Open \u003c{code}`) {
		t.Errorf("pocketbase: %s", held.Body)
	}
}

// TestBadExtensions has one fault each.
func TestBadExtensions(t *testing.T) {
	for name, tc := range map[string]struct{ part, value, want string }{
		"a closed route with methods":  {"routes", "[{class: login, path: /login}, {admits: nobody, methods: [POST], path: /x}]", "closed whatever the method"},
		"a route without anything":     {"routes", "[{class: login, path: /login}, {path: /x}]", `needs the key "class"`},
		"a log-in for sessions":        {"routes", "[{class: login, path: /login, admits: sessions}]", "not logged in"},
		"an unknown admission":         {"routes", "[{class: login, path: /login}, {admits: friends, path: /x}]", "sessions, nobody"},
		"a paired cookie":              {"credentials", "[{name: a, kind: cookie, cookie: a, unknown: refuse, paired: true}]", "leave paired out"},
		"a log-in that renews":         {"credentials", "[{name: a, kind: bearer, unknown: refuse, minted: [{class: login, pointer: /t, renew: true}]}]", "renews none"},
		"within without page":          {"credentials", "[{name: a, kind: bearer, unknown: refuse, minted: [{class: login, pointer: /t, within: '(a)'}]}]", "goes with page"},
		"braces that are no claim":     {"identify", "{method: GET, path: '/u/{id}', anonymous: {status: [401]}, subject: /id}", "write {token.NAME}"},
		"one pointer joined":           {"identify", "{method: GET, path: /u, anonymous: {status: [401]}, subject: {join: [/id]}}", "two pointers"},
		"within with two groups":       {"identify", "{method: GET, path: /u, anonymous: {status: [401]}, subject: {page: '(a)', within: '(b)(c)'}}", "2 groups"},
		"held, and nowhere to go":      {"more", "hold: {json: {status: 409, body: x}}\n", "{continue}"},
		"held, as a redirect nowhere":  {"more", "hold: {html: {status: 303, body: '{continue}'}}\n", "without location"},
		"held, as a program's success": {"more", "hold: {json: {status: 200, body: '{continue}'}}\n", "from 400 on"},
	} {
		text := preset(map[string]string{tc.part: tc.value})
		_, err := policies.LoadBackend("small", fstest.MapFS{"small.yaml": {Data: []byte(text)}})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}
