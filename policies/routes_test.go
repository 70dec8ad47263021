package policies_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

func TestRoutePolicy(t *testing.T) {
	shipped, err := policies.LoadPolicy(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range policies.CountedClasses() {
		if shipped.Routes.Of(class) == (policies.RouteAllowances{}) {
			t.Errorf("the shipped policy does not limit %s", class)
		}
	}
	if got := shipped.Routes.Of(detectors.Public); got != (policies.RouteAllowances{}) {
		t.Errorf("public routes have %+v", got)
	}
	own, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte(
		"routes: {answer: 2s, reset: {target: {burst: 5}, network: none}, signup: {organization: {burst: 1, every: 1h}}}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	want := shipped.Routes
	want.Answer, want.Reset.Target.Burst, want.Reset.Network = 2*time.Second, 5, policies.Allowance{}
	want.Signup.Organization = policies.Allowance{Burst: 1, Every: time.Hour}
	if own.Routes != want {
		t.Errorf("= %+v, want %+v", own.Routes, want)
	}
	for name, test := range map[string]struct{ yaml, want string }{
		"unknown class":     {"routes: {login: {}}\n", "policy.yaml:1:10"},
		"unknown allowance": {"routes: {reset: {session: none}}\n", "policy.yaml:1:18"},
		"nothing to keep":   {"routes: {signup: {account: {burst: 3}}}\n", "routes.signup.account has no value to keep"},
		"too soon":          {"routes: {answer: 1ms}\n", "answer"},
		"not an allowance":  {"routes: {reset: {target: never}}\n", "routes.reset.target"},
	} {
		_, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte(test.yaml)}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
	}
}

func TestRequestForms(t *testing.T) {
	const routes = `[{class: login, methods: [POST], path: /login}, {class: reset, path: /reset}, {class: reset, path: "/reset/{token}"},
  {class: reset, path: "/of/{collection}/reset"}, {class: signup, path: /join}, {class: invite, path: "/invite/{name}"}, {class: reset, path: "/forgotten/{rest...}"},
  {class: reset, path: /forgotten/password}]`
	plain := small(t, map[string]string{"routes": routes})
	told := small(t, map[string]string{"routes": routes, "more": `requests:
  reset: {target: {json: [/user/mail]}, paths: ["/of/{collection}/reset"], uniform: {json: {status: 204}}, untouched: [/of/codes/reset], errors: [{status: [403]}]}
  signup: {uniform: {}}
`})
	off := small(t, map[string]string{"routes": routes, "more": "requests: {reset: {uniform: none}}\n"})
	for _, test := range []struct {
		name    string
		backend *policies.Backend
		class   detectors.RouteClass
		path    string
		asks    bool
		uniform bool
	}{
		{"a reset, unless said otherwise", plain, detectors.Reset, "/reset", true, true},
		{"what a mailed link leads to", plain, detectors.Reset, "/reset/secret", false, true},
		{"below a variable", plain, detectors.Reset, "/of/users/reset", true, true},
		{"a path of another class", plain, detectors.Reset, "/join", false, true},
		{"a signup, unless said otherwise", plain, detectors.Signup, "/join", true, false},
		{"a variable at the end", plain, detectors.Invite, "/invite/somebody", false, false},
		{"the rest of a path", plain, detectors.Reset, "/forgotten/anything", true, false},
		{"a path that is named within the rest", plain, detectors.Reset, "/forgotten/password", true, true},
		{"one whose answer clients need", told, detectors.Reset, "/of/codes/reset", true, false},
		{"a path that the preset names", told, detectors.Reset, "/of/users/reset", true, true},
		{"one that it does not name", told, detectors.Reset, "/reset", false, true},
		{"a signup that is said to be uniform", told, detectors.Signup, "/join", true, true},
		{"a reset that is said not to be", off, detectors.Reset, "/reset", true, false},
	} {
		form, asks := test.backend.Request(test.class, test.path)
		if asks != test.asks || form.Uniform != test.uniform {
			t.Errorf("%s: asks %t, uniform %t, want %t, %t", test.name, asks, form.Uniform, test.asks, test.uniform)
		}
	}
	form, _ := plain.Request(detectors.Reset, "/reset")
	if form.Named() || len(form.Target.Form) < 4 || form.Wrong(policies.Answer{Status: 403}) {
		t.Errorf("what is not said is %+v", form)
	}
	form, _ = told.Request(detectors.Reset, "/of/users/reset")
	if !form.Named() || len(form.Target.Form) != 0 || form.Target.JSON[0] != "/user/mail" || form.Answers["json"].Status != 204 ||
		!form.Wrong(policies.Answer{Status: 403}) || form.Wrong(policies.Answer{Status: 400}) {
		t.Errorf("what is said is %+v", form)
	}

	for name, test := range map[string]struct{ yaml, want string }{
		"a class without a form": {"requests: {login: {}}\n", `has no key "login"`},
		"a target of nothing":    {"requests: {reset: {target: {}}}\n", "requests.reset.target names no field"},
		"a bad path":             {"requests: {reset: {paths: [Reset]}}\n", "begin with a slash"},
		"a bad untouched path":   {"requests: {reset: {untouched: [Reset]}}\n", "begin with a slash"},
		"a bad answer":           {"requests: {reset: {uniform: {xml: {status: 200}}}}\n", "requests.reset.uniform has no key"},
		"uniform said otherwise": {"requests: {reset: {uniform: maybe}}\n", "requests.reset.uniform must be a mapping"},
		"an error of everything": {"requests: {reset: {errors: [{}]}}\n", "would hold for every answer"},
	} {
		_, err := policies.LoadBackend("small", fstest.MapFS{"small.yaml": {Data: []byte(preset(map[string]string{"more": test.yaml}))}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
	}
}

// PocketBase's clients need what it answers to a request for a code, and nothing of
// what it answers to one for a password or a verification.
func TestPocketBaseRequests(t *testing.T) {
	b, err := policies.LoadBackend("pocketbase", nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, uniform := range map[string]bool{"request-password-reset": true, "request-verification": true, "request-otp": false} {
		form, asks := b.Request(detectors.Reset, "/api/collections/users/"+path)
		if !asks || form.Uniform != uniform || form.Answers["json"].Status != 204 || !form.Named() {
			t.Errorf("%s: asks %t, %+v, want uniform %t", path, asks, form, uniform)
		}
	}
	for _, path := range []string{"confirm-password-reset", "confirm-verification"} {
		if _, asks := b.Request(detectors.Reset, "/api/collections/users/"+path); asks {
			t.Errorf("%s is taken for a request for a mail", path)
		}
	}
	if form, asks := b.Request(detectors.ChangeEmail, "/api/collections/users/request-email-change"); !asks || form.Target.JSON[0] != "/newEmail" {
		t.Errorf("the change of an address goes to %+v", form.Target)
	}
}
