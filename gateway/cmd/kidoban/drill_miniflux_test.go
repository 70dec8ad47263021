package main

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// service is an unmodified backend of somebody else's, as a process.
type service struct {
	preset  string
	address string
	dir     string
}

// front is a gate with lines of a test in its Caddyfile.
type front struct {
	options []string // of the global kidoban block
	site    []string // of the site's kidoban block, below its preset
	local   bool     // people know it as localhost, which browsers take for secure
}

// backendProgram is a backend that .ci/run has built: in KIDOBAN_BACKENDS, or in
// .ci/cache/bin of this working tree.
func backendProgram(t testing.TB, name string) string {
	t.Helper()
	dirs := []string{os.Getenv("KIDOBAN_BACKENDS")}
	if here, err := os.Getwd(); err == nil {
		for dir := here; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			dirs = append(dirs, filepath.Join(dir, ".ci", "cache", "bin"))
		}
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not built: .ci/run builds it, and continuous integration must not go without", name)
	}
	t.Skipf("%s is not built: .ci/run builds it", name)
	return ""
}

// startService runs a backend until the test ends, and returns when path answers 200.
func startService(t testing.TB, s *service, program string, args, env []string, path string) {
	t.Helper()
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		log.Close()
	})
	look, late := time.NewTicker(50*time.Millisecond), time.After(time.Minute)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			resp, err := http.Get("http://" + s.address + path)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return
				}
			}
		case <-done:
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("%s ended: %s", s.preset, said)
		case <-late:
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("%s does not answer: %s", s.preset, said)
		}
	}
}

// guardService runs a gate in front of a service.
func guardService(t testing.TB, s *service, f front) *node {
	t.Helper()
	n := newNode(t, s.preset, &town{address: s.address}, f.options...)
	if f.local {
		n.site = strings.Replace(n.site, "127.0.0.1", "localhost", 1)
		n.configure(append([]string{"origin http://" + n.site}, f.options...)...)
	}
	const chat = "kidoban {\n\t\tbackend chatcore\n"
	text := n.caddyfile()
	if strings.Count(text, chat) != 1 {
		t.Fatalf("the Caddyfile has no site to change:\n%s", text)
	}
	site := "kidoban {\n\t\tbackend " + s.preset + "\n"
	for _, line := range f.site {
		site += "\t\t" + line + "\n"
	}
	if err := os.WriteFile(n.file, []byte(strings.Replace(text, chat, site, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	return n
}

// reply is an answer that was read.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request to an address with what v has, and keeps the cookies of the
// answer. Header comes in pairs.
func (v *visitor) ask(t testing.TB, address, method, path, body string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	v.dress(r)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := v.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			delete(v.cookies, c.Name)
		} else {
			v.cookies[c.Name] = c.Value
		}
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

// form sends a form as a browser does.
func (v *visitor) form(t testing.TB, address, path string, fields url.Values) reply {
	t.Helper()
	return v.ask(t, address, http.MethodPost, path, fields.Encode(), "Content-Type", "application/x-www-form-urlencoded",
		"Accept", "text/html", "Sec-Fetch-Mode", "navigate")
}

// page asks for a page as a browser does.
func (v *visitor) page(t testing.TB, address, path string) reply {
	t.Helper()
	return v.ask(t, address, http.MethodGet, path, "", "Accept", "text/html", "Sec-Fetch-Mode", "navigate")
}

// api sends JSON, or nothing, as a program does.
func (v *visitor) api(t testing.TB, address, method, path, body string, header ...string) reply {
	t.Helper()
	if body != "" {
		header = append(header, "Content-Type", "application/json")
	}
	return v.ask(t, address, method, path, body, header...)
}

// outcomes counts the log-ins that the gate has seen, by outcome, for want of them.
// What was seen is searchable a moment later.
func (n *node) outcomes(want int) map[string]int {
	n.t.Helper()
	look, late := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer look.Stop()
	for {
		status, body, err := n.call(http.MethodGet, "/v1/events?kind=login&limit=1000", nil)
		if err != nil || status != http.StatusOK {
			n.t.Fatalf("events: %d, %v, %s", status, err, body)
		}
		var page struct {
			Events []struct {
				Outcome string `json:"outcome"`
			} `json:"events"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			n.t.Fatal(err)
		}
		got := make(map[string]int)
		for _, e := range page.Events {
			got[e.Outcome]++
		}
		if len(page.Events) >= want {
			return got
		}
		select {
		case <-look.C:
		case <-late:
			return got
		}
	}
}

// endAll ends every session of an account, as an operator.
func (n *node) endAll(account string) {
	n.t.Helper()
	status, body, err := n.call(http.MethodDelete, "/v1/accounts/"+url.PathEscape(account)+"/sessions", nil)
	if err != nil || status != http.StatusOK {
		n.t.Fatalf("ending the sessions of %s: %d, %v, %s", account, status, err, body)
	}
}

// Who is in the services of other makers.
const (
	drillAdmin         = "root"
	drillAdminPassword = "root-password-of-drills"
	drillUser          = "ann"
	drillUserPassword  = "ann-password-of-drills"
)

// newMiniflux runs Miniflux over a PostgreSQL database of its own, with two people.
func newMiniflux(t testing.TB) *service {
	t.Helper()
	program := backendProgram(t, "miniflux.app")
	s := &service{preset: "miniflux", address: "127.0.0.1:" + drillPort(t), dir: t.TempDir()}
	startService(t, s, program, nil, []string{
		"DATABASE_URL=" + storagetest.Postgres(t), "RUN_MIGRATIONS=1", "LISTEN_ADDR=" + s.address, "BASE_URL=http://feeds.example",
		"CREATE_ADMIN=1", "ADMIN_USERNAME=" + drillAdmin, "ADMIN_PASSWORD=" + drillAdminPassword, "DISABLE_SCHEDULER_SERVICE=1",
	}, "/healthcheck")
	body := fmt.Sprintf(`{"username":%q,"password":%q,"is_admin":false}`, drillUser, drillUserPassword)
	if made := newVisitor("127.0.0.1").api(t, s.address, http.MethodPost, "/v1/users", body, "Authorization", basic(drillAdmin, drillAdminPassword)); made.status != http.StatusCreated {
		t.Fatalf("making an account: %d, %s", made.status, made.body)
	}
	return s
}

func basic(name, password string) string {
	r := http.Request{Header: make(http.Header)}
	r.SetBasicAuth(name, password)
	return r.Header.Get("Authorization")
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// minifluxLogin fills in the form as it is shown at address, which is the service or
// a gate in front of it.
func (v *visitor) minifluxLogin(t testing.TB, address, name, password string) reply {
	t.Helper()
	form := v.page(t, address, "/")
	csrf := csrfField.FindStringSubmatch(form.body)
	if csrf == nil {
		t.Fatalf("no form: %d, %.500s", form.status, form.body)
	}
	return v.form(t, address, "/login", url.Values{"csrf": {csrf[1]}, "username": {name}, "password": {password}})
}

const minifluxCookie = "MinifluxUserSessionID"

// in reports whether a page shows its visitor as logged in.
func (r reply) in() bool {
	return r.status == http.StatusOK && strings.Contains(r.body, `href="/logout"`)
}

// TestMinifluxBehindTheGate is a service as it comes: its log-in works through the
// gate, and only through its log-in does anybody get in.
func TestMinifluxBehindTheGate(t *testing.T) {
	t.Parallel()
	s := newMiniflux(t)
	n := guardService(t, s, front{})
	gate := n.site

	ann := newVisitor("198.51.100.20")
	for _, pair := range [][2]string{{drillUser, "wrong"}, {"nobody", "wrong"}} {
		if got := ann.minifluxLogin(t, gate, pair[0], pair[1]); got.status != http.StatusOK || !strings.Contains(got.body, "alert-error") {
			t.Fatalf("a wrong pair: %d, want the form again: %.300s", got.status, got.body)
		}
	}
	if ann.cookies[minifluxCookie] != "" || ann.cookies["__Host-kidoban"] != "" || ann.page(t, gate, "/unread").in() {
		t.Fatalf("after wrong pairs: cookies %v", jar(ann.cookies))
	}
	// The form's own token is missing: nobody looked at the password.
	if got := ann.form(t, gate, "/login", url.Values{"username": {drillUser}, "password": {drillUserPassword}}); got.status != http.StatusFound || ann.cookies[minifluxCookie] != "" {
		t.Fatalf("without the form's token: %d", got.status)
	}
	got := ann.minifluxLogin(t, gate, drillUser, drillUserPassword)
	if got.status != http.StatusFound || ann.cookies[minifluxCookie] == "" || ann.cookies["__Host-kidoban"] == "" {
		t.Fatalf("the right pair: %d, cookies %v\n%s", got.status, jar(ann.cookies), n.said())
	}
	if page := ann.page(t, gate, "/unread"); !page.in() {
		t.Fatalf("logged in: %d, %.300s", page.status, page.body)
	}
	if seen := n.outcomes(4); seen["failure"] != 2 || seen["unknown"] != 1 || seen["success"] != 1 {
		t.Errorf("the gate saw %v, want 2 failures, 1 unknown, 1 success", seen)
	}

	t.Run("a copied cookie opens nothing", func(t *testing.T) {
		thief := newVisitor("203.0.113.7")
		thief.cookies[minifluxCookie] = ann.cookies[minifluxCookie]
		if !newCopy(thief).page(t, s.address, "/unread").in() {
			t.Fatal("the service itself does not take the copy: nothing is shown")
		}
		if page := thief.page(t, gate, "/unread"); page.in() || page.status != http.StatusFound {
			t.Errorf("got %d", page.status)
		}
	})
	t.Run("name and password with every request", func(t *testing.T) {
		v := newVisitor("198.51.100.20")
		auth := []string{"Authorization", basic(drillUser, drillUserPassword)}
		if direct := v.api(t, s.address, http.MethodGet, "/v1/me", "", auth...); direct.status != http.StatusOK {
			t.Fatalf("at the service: %d", direct.status)
		}
		if got := v.api(t, gate, http.MethodGet, "/v1/me", "", auth...); got.status != http.StatusUnauthorized {
			t.Errorf("through the gate: %d, want 401", got.status)
		}
	})

	t.Run("interfaces with passwords of their own", func(t *testing.T) { minifluxDoors(t, s, n, ann) })

	// A key is nobody's until its owner sees it with a session.
	made := newVisitor("127.0.0.1").api(t, s.address, http.MethodPost, "/v1/api-keys", `{"description":"phone"}`, "Authorization", basic(drillUser, drillUserPassword))
	var key struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(made.body), &key); err != nil || key.Token == "" {
		t.Fatalf("making a key: %d, %v", made.status, err)
	}
	phone := newVisitor("198.51.100.21")
	me := func() int {
		return phone.api(t, gate, http.MethodGet, "/v1/me", "", "X-Auth-Token", key.Token).status
	}
	if direct := phone.api(t, s.address, http.MethodGet, "/v1/me", "", "X-Auth-Token", key.Token); direct.status != http.StatusOK {
		t.Fatalf("the key at the service: %d", direct.status)
	}
	if got := me(); got != http.StatusUnauthorized {
		t.Errorf("a key that the gate never saw: %d, want 401", got)
	}
	if page := ann.page(t, gate, "/keys"); !strings.Contains(page.body, key.Token) {
		t.Fatalf("the page of keys: %d", page.status)
	}
	if got := me(); got != http.StatusOK {
		t.Errorf("a key that its owner was shown: %d, want 200", got)
	}

	began := time.Now()
	n.endAll(drillUser)
	page, api := ann.page(t, gate, "/unread"), me()
	t.Logf("page and interface refused %v after the operator's word", time.Since(began))
	if page.in() || api != http.StatusUnauthorized {
		t.Errorf("after the end: page %d, interface %d, want both refused", page.status, api)
	}
	if got := ann.minifluxLogin(t, gate, drillUser, drillUserPassword); got.status != http.StatusFound || !ann.page(t, gate, "/unread").in() {
		t.Errorf("in again: %d", got.status)
	}
	if got := ann.page(t, gate, "/logout"); got.status != http.StatusFound || ann.cookies["__Host-kidoban"] != "" || ann.page(t, gate, "/unread").in() {
		t.Errorf("out: %d, cookies %v", got.status, jar(ann.cookies))
	}
}

// minifluxDoors opens the interfaces for other readers, whose credentials are in
// forms, and tries them at the service and through the gate.
func minifluxDoors(t *testing.T, s *service, n *node, ann *visitor) {
	const name, password = "ann-reader", "reader-password"
	page := ann.page(t, n.site, "/integrations")
	csrf := csrfField.FindStringSubmatch(page.body)
	if csrf == nil {
		t.Fatalf("no form: %d", page.status)
	}
	if set := ann.form(t, n.site, "/integration", url.Values{
		"csrf": {csrf[1]}, "fever_enabled": {"1"}, "fever_username": {name}, "fever_password": {password},
		"googlereader_enabled": {"1"}, "googlereader_username": {name}, "googlereader_password": {password}, "linktaco_visibility": {"PUBLIC"},
	}); set.status != http.StatusFound {
		t.Fatalf("setting the passwords: %d, %.300s", set.status, set.body)
	}
	v := newVisitor("203.0.113.8")
	login := v.form(t, s.address, "/accounts/ClientLogin", url.Values{"Email": {name}, "Passwd": {password}})
	_, token, found := strings.Cut(login.body, "Auth=")
	if token = strings.TrimSpace(token); !found || token == "" {
		t.Fatalf("the service itself does not take the reader's password: %d, %.200s", login.status, login.body)
	}
	key := fmt.Sprintf("%x", md5.Sum([]byte(name+":"+password)))
	for _, door := range []struct {
		name string
		try  func(address string) reply
		open string // in the answer of whom it lets in
	}{
		{"Fever", func(a string) reply { return v.form(t, a, "/fever/?api", url.Values{"api_key": {key}}) }, `"auth":1`},
		{"Fever, written otherwise", func(a string) reply { return v.form(t, a, "/%66ever/?api&api_key="+key, nil) }, `"auth":1`},
		{"Google Reader, logging in", func(a string) reply {
			return v.form(t, a, "/accounts/ClientLogin", url.Values{"Email": {name}, "Passwd": {password}})
		}, "Auth="},
		{"Google Reader, by header", func(a string) reply {
			return v.ask(t, a, http.MethodGet, "/reader/api/0/user-info?output=json", "", "Authorization", "GoogleLogin auth="+token)
		}, "userName"},
		{"Google Reader, by field", func(a string) reply {
			return v.form(t, a, "/reader/api/0/mark-all-as-read", url.Values{"T": {token}, "s": {"user/-/state/com.google/reading-list"}})
		}, "OK"},
	} {
		if direct := door.try(s.address); direct.status != http.StatusOK || !strings.Contains(direct.body, door.open) {
			t.Errorf("%s, at the service: %d, %.200s: want it open, or nothing is shown", door.name, direct.status, direct.body)
		}
		if got := door.try(n.site); got.status != http.StatusForbidden || strings.Contains(got.body, door.open) {
			t.Errorf("%s, through the gate: %d, %.200s", door.name, got.status, got.body)
		}
	}
}

// newCopy is another client with the same cookies.
func newCopy(v *visitor) *visitor {
	w := newVisitor(v.address)
	for name, value := range v.cookies {
		w.cookies[name] = value
	}
	return w
}

// jar is the names of the cookies there are; their values are nobody's business.
func jar(cookies map[string]string) (all []string) {
	for name := range cookies {
		all = append(all, name)
	}
	return all
}
