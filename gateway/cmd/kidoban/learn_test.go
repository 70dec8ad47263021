package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

// learnt runs the command as a person does and loads what it wrote.
func learnt(t *testing.T, preset, address, name, password string, args ...string) (*policies.Backend, string) {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"learn", "--url", "http://" + address, "--name", name, "--password-file", secret, "--preset", preset, "--pause", "0s"}, args...)
	said, err := kidoban(dir, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, said)
	}
	if strings.Contains(string(said), password) {
		t.Errorf("it says the password:\n%s", said)
	}
	b, err := policies.LoadBackend(preset, os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, preset+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), password) {
		t.Error("the preset has the password")
	}
	t.Logf("%s", said)
	return b, string(text)
}

// recordedAnswers is what a service once answered, by name.
func recordedAnswers(t *testing.T, backend string) map[string]policies.Answer {
	t.Helper()
	files, err := filepath.Glob("../../../policies/testdata/recorded/" + backend + "/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("no answers of %s: %v", backend, err)
	}
	all := make(map[string]policies.Answer)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), nil)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".http")] = policies.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}
	}
	return all
}

// effect is what a gate concludes from an answer.
type effect struct {
	Outcome   detectors.Outcome
	Anonymous bool
	Names     []string
	Minted    []string // as headers carry them
}

func effectOf(b *policies.Backend, a policies.Answer) effect {
	id, err := b.ReadIdentity(a)
	e := effect{Outcome: b.Outcome(a), Anonymous: errors.Is(err, policies.ErrAnonymous), Names: id.Names}
	for i := range b.Credentials {
		c := &b.Credentials[i]
		for _, m := range c.MintedIn(detectors.LoginRoute, a) {
			e.Minted = append(e.Minted, string(c.Kind)+" "+c.Header+" "+m)
		}
	}
	return e
}

// sameEffect judges every recorded log-in and every answer about somebody with both.
func sameEffect(t *testing.T, learned *policies.Backend, logins, identities []string) {
	t.Helper()
	shipped, err := policies.LoadBackend(learned.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	answers := recordedAnswers(t, learned.Name)
	for _, name := range logins {
		want, got := effectOf(shipped, answers[name]), effectOf(learned, answers[name])
		want.Names, want.Anonymous, got.Names, got.Anonymous = nil, false, nil, false // of another route
		if diff := cmp.Diff(want, got); diff != "" || answers[name].Status == 0 {
			t.Errorf("%s (-shipped +learned):\n%s", name, diff)
		}
	}
	for _, name := range identities {
		want, got := effectOf(shipped, answers[name]), effectOf(learned, answers[name])
		want.Outcome, want.Minted, got.Outcome, got.Minted = "", nil, "", nil
		if diff := cmp.Diff(want, got); diff != "" || answers[name].Status == 0 {
			t.Errorf("%s (-shipped +learned):\n%s", name, diff)
		}
	}
	for _, path := range []string{"/login", "/api/collections/users/auth-with-password", "/logout", "/unread", "/"} {
		for _, method := range []string{"GET", "POST"} {
			if got, want := learned.Class(method, path), shipped.Class(method, path); got != want {
				t.Errorf("%s %s: learned %q, shipped %q", method, path, got, want)
			}
		}
	}
}

func TestLearnMiniflux(t *testing.T) {
	t.Parallel()
	s := newMiniflux(t)
	b, text := learnt(t, "miniflux", s.address, drillUser, drillUserPassword, "--whoami", "/keys")
	sameEffect(t, b, []string{"right", "wrong", "unknown", "without-csrf"}, []string{"whoami", "nobody"})
	want := []policies.Credential{{Name: "session", Kind: policies.CookieCredential, Cookie: minifluxCookie, Unknown: policies.RefuseUnknown}}
	if diff := cmp.Diff(want, b.Credentials); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	if b.Logout == nil || *b.Logout != (policies.Call{Method: "GET", Path: "/logout"}) {
		t.Errorf("log-out: %v", b.Logout)
	}
	if !strings.Contains(text, "UNSURE") {
		t.Error("it is sure of everything")
	}
	own, _ := learnt(t, "miniflux", s.address, drillUser, drillUserPassword)
	if own.Identify.Path != "/settings" {
		t.Errorf("without a hint it asks %s, want /settings", own.Identify.Path)
	}
}

func TestLearnPocketBase(t *testing.T) {
	t.Parallel()
	address := learnPocketBase(t)
	b, _ := learnt(t, "pocketbase", address, "ann@acme.example", drillUserPassword,
		"--login-path", "/api/collections/users/auth-with-password", "--whoami", "POST /api/collections/{token.collectionId}/auth-refresh")
	sameEffect(t, b, []string{"right", "superuser", "wrong", "unknown", "blank", "no-collection", "second-factor"}, []string{"whoami", "nobody", "other-collection"})
	if diff := cmp.Diff([]string{"/identity"}, b.Login.Name.JSON); diff != "" {
		t.Errorf("the name's member (-want +got):\n%s", diff)
	}
}

// learnPocketBase runs PocketBase with an account.
func learnPocketBase(t *testing.T) string {
	t.Helper()
	s := &service{preset: "pocketbase", address: "127.0.0.1:" + drillPort(t), dir: t.TempDir()}
	startService(t, s, backendProgram(t, "base"), []string{"--dir=" + s.dir + "/data", "serve", "--http=" + s.address}, nil, "/api/health")
	made := newVisitor("127.0.0.1").api(t, s.address, http.MethodPost, "/api/collections/users/records",
		fmt.Sprintf(`{"email":"ann@acme.example","password":%q,"passwordConfirm":%[1]q}`, drillUserPassword))
	if made.status != http.StatusOK {
		t.Fatalf("making an account: %d, %s", made.status, made.body)
	}
	return s.address
}

// odd is a small service that answers log-ins in an unusual way.
type odd struct {
	answer func(w http.ResponseWriter, right bool) // to a log-in
	asked  int
}

const (
	oddName, oddPassword = "ann", "a-password-of-tests"
	oddCookie            = "sid"
)

func (o *odd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.asked++
	c, err := r.Cookie(oddCookie)
	in := err == nil && c.Value == "inside"
	if err != nil { // visitors have one too
		http.SetCookie(w, &http.Cookie{Name: oddCookie, Value: "outside"})
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /login":
		fmt.Fprint(w, `<form method=post><input name=q></form><form action="do" method=post><input type=hidden name=t value=1><input name=who><input type=password name=pw></form>`)
	case "POST /do":
		right := r.PostFormValue("who") == oddName && r.PostFormValue("pw") == oddPassword && r.PostFormValue("t") == "1"
		if right {
			http.SetCookie(w, &http.Cookie{Name: oddCookie, Value: "inside"})
		}
		o.answer(w, right)
	case "GET /api/me":
		if !in {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"data":{"id":7,"login":%q}}`, oddName)
	default:
		http.NotFound(w, r)
	}
}

func TestLearnOddServices(t *testing.T) {
	redirect := func(w http.ResponseWriter, to string) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}
	for _, tc := range []struct {
		name   string
		answer func(w http.ResponseWriter, right bool)
		fault  string // of the command
	}{
		{"redirects both ways", func(w http.ResponseWriter, right bool) {
			if right {
				redirect(w, "/home")
			} else {
				redirect(w, "/login?error=1")
			}
		}, ""},
		{"200 and JSON both ways", func(w http.ResponseWriter, right bool) {
			if right {
				fmt.Fprint(w, `{"ok":"yes","name":"ann"}`)
			} else {
				fmt.Fprint(w, `{"error":"no"}`)
			}
		}, ""},
		{"500 for a wrong one", func(w http.ResponseWriter, right bool) {
			if !right {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}, ""},
		{"always wrong", func(w http.ResponseWriter, _ bool) {
			w.Header().Del("Set-Cookie")
			w.WriteHeader(http.StatusUnauthorized)
		}, "is the password right"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := &odd{answer: tc.answer}
			server := httptest.NewServer(o)
			defer server.Close()
			dir := t.TempDir()
			opts := learnOptions{url: server.URL, name: oddName, password: oddPassword, preset: "odd"}
			var said bytes.Buffer
			err := learn(t.Context(), opts, filepath.Join(dir, "odd.yaml"), &said)
			if tc.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fault) || strings.Contains(err.Error(), oddPassword) {
					t.Errorf("got %v, want %q", err, tc.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if o.asked > learnMost {
				t.Errorf("asked %d times, want at most %d", o.asked, learnMost)
			}
			b, err := policies.LoadBackend("odd", os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			for _, right := range []bool{true, false} {
				w := httptest.NewRecorder()
				if right {
					http.SetCookie(w, &http.Cookie{Name: oddCookie, Value: "inside"})
				}
				tc.answer(w, right)
				want := detectors.Failure
				if right {
					want = detectors.Success
				}
				if got := b.Outcome(policies.Answer{Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()}); got != want {
					t.Errorf("right %v: got %s, want %s", right, got, want)
				}
			}
			if len(b.Credentials) != 1 || b.Credentials[0].Cookie != oddCookie || !b.Credentials[0].Anonymous {
				t.Errorf("credentials: %+v, want the cookie that visitors have too", b.Credentials)
			}
			id, err := b.ReadIdentity(policies.Answer{Status: 200, Body: []byte(`{"data":{"id":7,"login":"ann"}}`)})
			if err != nil || id.Subject != "7" || !cmp.Equal(id.Names, []string{"ann"}) {
				t.Errorf("identity: %+v, %v", id, err)
			}
			if err := learn(t.Context(), opts, filepath.Join(dir, "odd.yaml"), &said); err == nil {
				t.Error("it writes over a file")
			}
		})
	}
}

func TestLearnRefuses(t *testing.T) {
	for _, tc := range []struct {
		o    learnOptions
		want string
	}{
		{learnOptions{name: "ann"}, "--url"},
		{learnOptions{url: "ftp://x", name: "ann"}, "--url"},
		{learnOptions{url: "http://127.0.0.1:1"}, "--name"},
		{learnOptions{url: "http://127.0.0.1:1", name: "ann", json: "email,password", loginPath: "/login"}, "--json"},
		{learnOptions{url: "http://127.0.0.1:1", name: "ann", json: "/email,/password"}, "--login-path"},
		{learnOptions{url: "http://127.0.0.1:1", name: "ann", loginPath: "http://elsewhere.example/login"}, "another host"},
	} {
		err := learn(t.Context(), tc.o, filepath.Join(t.TempDir(), "x.yaml"), io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want %q", tc.o, err, tc.want)
		}
	}
}

func TestPagePattern(t *testing.T) {
	for _, tc := range []struct{ page, other, want string }{
		{`<p>Hi</p><ul><li>A = <b>x</b></li><li>U = <b>ann</b></li></ul>`, `<p>Hi</p><ul><li>A = <b>x</b></li><li>U = <b>ben &amp; co</b></li></ul>`, "ben & co"},
		{`<input name="user" value="ann">`, `<input name="user" value="ben">`, "ben"},
		{`<i>ann wrote</i>`, "", ""},
	} {
		pattern := pagePattern(tc.page, "ann")
		if (pattern == "") != (tc.want == "") {
			t.Errorf("%s: pattern %q", tc.page, pattern)
		}
		if tc.want == "" {
			continue
		}
		w := whoami{known: policies.Answer{Status: 200, Body: []byte(tc.other)}}
		if !w.reads(tc.want) {
			t.Errorf("%s: the other is not found", tc.other)
		}
		again := pagePattern(tc.other, tc.want)
		if again != pattern {
			t.Errorf("pattern %q for one, %q for another", pattern, again)
		}
	}
}
