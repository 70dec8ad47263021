package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
)

// withFactors gives a gate second factors under a policy of its own.
func withFactors(t *testing.T, policy string) option {
	return func(c *setup) {
		var err error
		if c.Policy, err = policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte(policy)}}); err != nil {
			t.Fatal(err)
		}
		c.factors = &guard.FactorSettings{
			Service: "Example Chat", RPID: "chat.example", Origins: []string{"https://chat.example"}, Policy: c.Policy.Factors,
		}
	}
}

const whoHasOne = `factors: {require: [{need: enrolled}]}`

// everybody must have a factor, without grace.
const everybody = `factors: {require: [{need: factor}], grace: 0s}`

// app is somebody's app that shows codes.
type app struct {
	t      *testing.T
	gate   *gate
	secret string
}

// enrol gives an account an app.
func (g *gate) enrol(t *testing.T, subject string) *app {
	t.Helper()
	ctx := context.Background()
	begun, err := g.core.Factors.BeginTOTP(ctx, subject, subject, "my phone", g.clock())
	if err != nil {
		t.Fatal(err)
	}
	a := &app{t, g, strings.ReplaceAll(begun.Secret, " ", "")}
	if _, _, err := g.core.Factors.FinishTOTP(ctx, subject, begun.ID, a.code(), auth.Act{By: "owner"}, g.clock()); err != nil {
		t.Fatal(err)
	}
	g.advance(time.Minute) // the code that bound it is used up
	return a
}

func (a *app) code() string {
	a.t.Helper()
	code, err := totp.GenerateCode(a.secret, a.gate.clock())
	if err != nil {
		a.t.Fatal(err)
	}
	return code
}

// browser is a client that navigates.
func (g *gate) browser(t *testing.T) *client {
	c := g.client(t)
	c.header.Set("Accept", "text/html")
	c.header.Set("Sec-Fetch-Mode", "navigate")
	c.header.Set("User-Agent", "Mozilla/5.0 (Windows NT 10.0; rv:145.0) Gecko/20100101 Firefox/145.0")
	return c
}

func (c *client) form(path string, fields ...string) reply {
	c.t.Helper()
	values := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	c.header.Set("Sec-Fetch-Site", "same-origin")
	defer c.header.Del("Sec-Fetch-Site")
	return c.do("POST", path, "application/x-www-form-urlencoded", values.Encode())
}

var hidden = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// token is the csrf token of a page.
func (r reply) token(t *testing.T) string {
	t.Helper()
	m := hidden.FindStringSubmatch(r.body)
	if m == nil {
		t.Fatalf("no form in a page: %d\n%s", r.status, r.body)
	}
	return m[1]
}

// held logs in by form and returns the page that asks for the factor.
func (c *client) held(name, password string) reply {
	c.t.Helper()
	got := c.form("/login", "email", name, "password", password)
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/.kidoban/factor" {
		c.t.Fatalf("login: %d to %q, want to be led to the factor\n%s", got.status, got.header.Get("Location"), got.body)
	}
	if c.cookies["sid"] != "" || c.cookies[guard.SessionCookie] != "" {
		c.t.Fatalf("cookies %v came before the factor", c.cookies)
	}
	page := c.through(c.get("/.kidoban/factor"))
	if page.status != http.StatusOK {
		c.t.Fatalf("the factor's page: %d\n%s", page.status, page.body)
	}
	return page
}

// give types a code into the page.
func (c *client) give(page reply, code string) reply {
	c.t.Helper()
	return c.form("/.kidoban/factor", "csrf", page.token(c.t), "code", code)
}

// through follows what an accepted factor leads to, and returns the released answer.
func (c *client) through(got reply) reply {
	c.t.Helper()
	for range 4 {
		if got.status != http.StatusSeeOther {
			return got
		}
		got = c.get(got.header.Get("Location"))
	}
	c.t.Fatal("led in circles")
	return got
}

func TestHeldInABrowser(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	c.wantSecret("")
	if got := c.give(page, "000000"); got.status != http.StatusUnprocessableEntity || !hidden.MatchString(got.body) {
		t.Errorf("a wrong code: %d, want the page again", got.status)
	}
	if got := c.get("/secret"); got.status != http.StatusSeeOther || got.header.Get("Location") != "/.kidoban/factor" {
		t.Errorf("another page meanwhile: %d, want to be led to the factor", got.status)
	}
	got := c.through(c.give(page, phone.code()))
	if got.status != 200 || !strings.Contains(got.body, "welcome "+alice) || c.cookies["sid"] == "" || c.cookies[guard.SessionCookie] == "" || c.cookies[guard.HoldCookie] != "" {
		t.Fatalf("released: %d %v\n%s", got.status, c.cookies, got.body)
	}
	c.wantSecret(alice)
	if s := g.sessionOf(t, alice); s.AAL != 2 || s.Factor != auth.TOTP || s.Verified.IsZero() || s.Client != "Firefox (Windows)" {
		t.Errorf("session %+v, want one of AAL2 by an app, in Firefox", s)
	}
	// Back and reload: nothing is released again, and nothing is broken.
	if got := c.get("/.kidoban/factor"); got.status != http.StatusGone {
		t.Errorf("the factor's page once more: %d, want 410", got.status)
	}
	if got := c.give(page, phone.code()); got.status == http.StatusOK || strings.Contains(got.body, "welcome") {
		t.Errorf("the code once more: %d\n%s", got.status, got.body)
	}
	c.wantSecret(alice)
	// Who has none is not asked.
	other := g.browser(t)
	if got := other.form("/login", "email", mallory, "password", "correct-mallory"); got.status != 200 {
		t.Errorf("somebody without a factor: %d\n%s", got.status, got.body)
	}
}

func (g *gate) sessionOf(t *testing.T, subject string) auth.Session {
	t.Helper()
	all, err := g.core.Sessions.OfSubject(context.Background(), subject, g.clock())
	if err != nil || len(all) != 1 {
		t.Fatalf("sessions of %s: %v, %v; want one", subject, all, err)
	}
	return all[0]
}

func (g *gate) wantNoSession(t *testing.T, subject string) {
	t.Helper()
	all, err := g.core.Sessions.OfSubject(context.Background(), subject, g.clock())
	if err != nil || len(all) != 0 {
		t.Errorf("sessions of %s: %v, %v; want none", subject, all, err)
	}
}

// problemOf reads what a program is told.
func problemOf(t *testing.T, got reply) (p struct{ Type, Continue, Code, Detail string }) {
	t.Helper()
	if got.status != http.StatusUnauthorized || got.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("a held login: %d %s\n%s", got.status, got.header.Get("Content-Type"), got.body)
	}
	if err := json.Unmarshal([]byte(got.body), &p); err != nil {
		t.Fatal(err)
	}
	if p.Type != "/.kidoban/problems/factor-needed" || !strings.Contains(p.Detail, p.Code) || !strings.Contains(p.Detail, p.Continue) {
		t.Fatalf("problem %+v, want one that a person can follow", p)
	}
	return p
}

// TestHeldProgram: a program without cookies shows the address and the code; a person
// finishes it in a browser beside it, and the program's next try passes, once.
func TestHeldProgram(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	program := func() *client {
		c := g.client(t)
		c.header.Set("User-Agent", "chat-cli/2.1")
		return c
	}
	first := problemOf(t, program().login(alice, "correct-alice"))
	again := problemOf(t, program().login(alice, "correct-alice"))
	if again.Continue != first.Continue || again.Code != first.Code || backend.logins != 1 {
		t.Errorf("the same login again: %+v after %d log-ins at the backend, want what the first was told: %+v", again, backend.logins, first)
	}
	path := strings.TrimPrefix(first.Continue, "https://chat.example")
	person := g.browser(t)
	page := person.get(path)
	if !strings.Contains(page.body, "chat-cli") {
		t.Errorf("the page does not say what program it is about:\n%s", page.body)
	}
	if got := person.form(path, "csrf", page.token(t), "code", "BBBB-BBBB", "do", "continue"); !hidden.MatchString(got.body) || got.status == http.StatusSeeOther {
		t.Errorf("a wrong short code: %d", got.status)
	}
	page = person.through(person.form(path, "csrf", page.token(t), "code", strings.ToLower(first.Code), "do", "continue"))
	if done := person.through(person.form(path, "csrf", page.token(t), "code", phone.code())); done.status != 200 || person.cookies["sid"] != "" {
		t.Fatalf("the factor: %d %v\n%s", done.status, person.cookies, done.body)
	}
	person.wantSecret("") // it was not his browser that logged in

	for what, change := range map[string]func(*client){
		"from another network": func(c *client) { c.header.Set(address, "203.0.113.9") },
		"by another program":   func(c *client) { c.header.Set("User-Agent", "chat-cli/2.2") },
	} {
		thief := program()
		change(thief)
		if got := thief.login(alice, "correct-alice"); got.status != http.StatusUnauthorized {
			t.Errorf("a retry %s: %d\n%s", what, got.status, got.body)
		}
	}
	logins := backend.logins
	var wins sync.Map
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			c := program()
			if got := c.login(alice, "correct-alice"); got.status == 200 {
				wins.Store(i, got)
			}
		})
	}
	group.Wait()
	n := 0
	wins.Range(func(_, got any) bool {
		n++
		r := got.(reply)
		if r.body != `{"ok":true,"secret":"welcome alice@example.com"}`+"\n" || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("released %q %v, want the backend's answer byte for byte", r.body, r.header)
		}
		return true
	})
	if n != 1 {
		t.Errorf("%d of 20 retries passed, want one", n)
	}
	t.Logf("%d log-ins reached the backend", backend.logins-logins)
}

// TestHeldByScript: a page's script is told where to go on, and the next navigation of
// the browser asks for the factor; then the browser is signed in where the script was.
func TestHeldByScript(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.client(t)
	c.header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0")
	c.header.Set("Sec-Fetch-Mode", "cors")
	c.header.Set("Referer", strings.Replace(g.URL, "http://", "https://", 1)+"/app?room=7")
	problemOf(t, c.login(alice, "correct-alice"))
	c.header.Del("Referer")
	c.header.Set("Sec-Fetch-Mode", "navigate")
	page := c.through(c.get("/app?room=7"))
	got := c.give(page, phone.code())
	for range 2 {
		if got.status == http.StatusSeeOther && got.header.Get("Location") == "/.kidoban/factor" {
			got = c.get("/.kidoban/factor")
		}
	}
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/app?room=7" {
		t.Fatalf("after the factor: %d to %q", got.status, got.header.Get("Location"))
	}
	c.wantSecret(alice)
}

// TestConfirmByMail: who owes a factor and has none types a code that was mailed, where
// the login is. It is no factor.
func TestConfirmByMail(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, `factors: {require: [{need: confirm}]}`))
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	if strings.Contains(page.body, alice) {
		t.Error("the page shows the whole address to whoever has the password")
	}
	code := g.mailed(t, "confirmation.code", alice)
	if got := c.give(page, "00000000"); got.status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong code: %d", got.status)
	}
	got := c.through(c.give(page, code))
	if got.status != 200 || !strings.Contains(got.body, "welcome") {
		t.Fatalf("released: %d\n%s", got.status, got.body)
	}
	if s := g.sessionOf(t, alice); s.AAL != 1 || s.Factor != "" || !s.Verified.IsZero() {
		t.Errorf("session %+v, want one of AAL1: mail is no factor (SP 800-63B-4 section 3.1.3.1)", s)
	}
}

// mailed is the code in the latest message of that kind to an address.
func (g *gate) mailed(t *testing.T, template, to string) string {
	t.Helper()
	all, _, err := g.core.Outbox.List(t.Context(), policies.NoticeFilter{Template: template, To: to}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("no %s was mailed to %s", template, to)
	}
	return all[0].Values["code"]
}

// TestKeptCookieWaits: where the backend keeps a visitor's cookie at login, the client
// has the credential before the factor was given; it opens nothing.
func TestKeptCookieWaits(t *testing.T) {
	backend := newHostile()
	backend.keep = true
	g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	c.get("/login")
	sid := c.cookies["sid"]
	if got := c.form("/login", "email", alice, "password", "correct-alice"); got.status != http.StatusSeeOther {
		t.Fatalf("login: %d", got.status)
	}
	for _, mode := range []string{"cors", "navigate"} {
		for _, method := range []string{"GET", "POST"} {
			thief := g.client(t)
			thief.header.Set("Sec-Fetch-Mode", mode)
			thief.cookies["sid"] = sid
			if got := thief.do(method, "/secret", "", ""); strings.Contains(got.body, "secret of") {
				t.Errorf("%s %s with the kept cookie: %d %q", mode, method, got.status, got.body)
			}
			thief.wantSecret("")
		}
	}
	page := c.get("/.kidoban/factor")
	if got := c.through(c.give(page, phone.code())); got.status != 200 {
		t.Fatalf("released: %d\n%s", got.status, got.body)
	}
	c.wantSecret(alice)
}

// TestHeldDoors: ways in that nobody declared are held as log-ins are.
func TestHeldDoors(t *testing.T) {
	for _, path := range []string{"/magic", "/callback"} {
		t.Run(path, func(t *testing.T) {
			g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
			phone := g.enrol(t, alice)
			c := g.browser(t)
			got := c.get(path + "?once=1")
			if got.status != http.StatusSeeOther || got.header.Get("Location") != "/.kidoban/factor" || strings.Contains(got.body, "secret") {
				t.Fatalf("%s: %d to %q\n%s", path, got.status, got.header.Get("Location"), got.body)
			}
			got = c.through(c.give(c.get("/.kidoban/factor"), phone.code()))
			if !strings.Contains(got.body, "secret of "+alice) {
				t.Errorf("released: %d\n%s", got.status, got.body)
			}
			c.wantSecret(alice)
		})
	}
}

// TestHolderMoves: the holder may change networks, as from Wi-Fi to mobile, and not
// programs.
func TestHolderMoves(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	thief := g.browser(t)
	thief.header.Set("User-Agent", "curl/8.14.0")
	thief.cookies[guard.HoldCookie] = c.cookies[guard.HoldCookie]
	if got := thief.give(page, phone.code()); got.status != http.StatusGone {
		t.Errorf("the cookie in another client: %d, want 410", got.status)
	}
	c.header.Set(address, "2001:db8::1")
	if got := c.through(c.give(page, phone.code())); got.status != 200 {
		t.Errorf("from another network: %d\n%s", got.status, got.body)
	}
}

// TestForeignForms: our forms are good from our pages only (CSRF), and lead nowhere
// else (open redirect).
func TestForeignForms(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	post := func(change func(*client), token string) reply {
		change(c)
		defer func() { c.header.Del("Sec-Fetch-Site"); c.header.Del("Origin") }()
		return c.do("POST", "/.kidoban/factor", "application/x-www-form-urlencoded", url.Values{"csrf": {token}, "code": {phone.code()}}.Encode())
	}
	for what, got := range map[string]reply{
		"cross-site":    post(func(c *client) { c.header.Set("Sec-Fetch-Site", "cross-site") }, page.token(t)),
		"same-site":     post(func(c *client) { c.header.Set("Sec-Fetch-Site", "same-site") }, page.token(t)),
		"other origin":  post(func(c *client) { c.header.Set("Origin", "https://evil.example") }, page.token(t)),
		"null origin":   post(func(c *client) { c.header.Set("Origin", "null") }, page.token(t)),
		"no token":      post(func(*client) {}, ""),
		"another token": post(func(*client) {}, strings.Repeat("A", len(page.token(t)))),
	} {
		if got.status != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", what, got.status)
		}
	}
	if got := c.through(c.give(page, phone.code())); got.status != 200 {
		t.Fatalf("our own form: %d", got.status)
	}
	for _, to := range []string{"https://evil.example/", "//evil.example/", `/\evil.example`, "/%09/evil.example\t", "javascript:alert(1)", ""} {
		page := c.get("/.kidoban/step-up?to=" + url.QueryEscape(to))
		g.advance(time.Minute)
		got := c.form("/.kidoban/step-up?to="+url.QueryEscape(to), "csrf", page.token(t), "code", phone.code())
		if where := got.header.Get("Location"); got.status != http.StatusSeeOther || where != "/" && !strings.HasPrefix(where, "/%09/") {
			t.Errorf("to %q: %d to %q, want this site", to, got.status, where)
		}
	}
}

// TestStepUp: before something sensitive the factor is asked for again, and leads back.
func TestStepUp(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne+"\n"))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	if got := c.through(c.give(c.held(alice, "correct-alice"), phone.code())); got.status != 200 {
		t.Fatal(got.status)
	}
	if got := c.do("POST", "/tokens", "", ""); got.status != 200 {
		t.Errorf("right after the factor: %d, want no question", got.status)
	}
	g.advance(time.Hour)
	session := c.cookies[guard.SessionCookie]
	c.header.Set("Referer", g.URL+"/settings?tab=tokens")
	got := c.do("POST", "/tokens", "", "")
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/.kidoban/step-up?to=%2Fsettings%3Ftab%3Dtokens" {
		t.Fatalf("an hour later: %d to %q", got.status, got.header.Get("Location"))
	}
	step := got.header.Get("Location")
	got = c.form(step, "csrf", c.get(step).token(t), "code", phone.code())
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/settings?tab=tokens" {
		t.Fatalf("after the factor: %d to %q", got.status, got.header.Get("Location"))
	}
	if c.cookies[guard.SessionCookie] == session {
		t.Error("the session has its old secret (ASVS 7.2.4)")
	}
	if got := c.do("POST", "/tokens", "", ""); got.status != 200 {
		t.Errorf("after the factor: %d", got.status)
	}
	program := g.client(t)
	program.cookies = c.cookies
	g.advance(time.Hour)
	if got := program.do("POST", "/tokens", "", ""); got.status != http.StatusUnauthorized || !strings.Contains(got.header.Get("WWW-Authenticate"), "insufficient_user_authentication") {
		t.Errorf("a program: %d %q, want a challenge (RFC 9470)", got.status, got.header.Get("WWW-Authenticate"))
	}
}

// TestHoldEnds: a login that nobody finishes is over; its owner is told, once a day.
func TestHoldEnds(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	for range 3 {
		c := g.browser(t)
		page := c.held(alice, "correct-alice")
		g.advance(10 * time.Minute)
		if got := c.give(page, phone.code()); got.status != http.StatusGone {
			t.Errorf("after ten minutes: %d, want 410", got.status)
		}
		g.core.Sweep(t.Context())
	}
	all, _, err := g.core.Outbox.List(t.Context(), policies.NoticeFilter{Template: "signin.unanswered"}, "", 0)
	if err != nil || len(all) != 1 {
		t.Errorf("%d notices, %v; want one", len(all), err)
	}
	g.wantNoSession(t, alice)
}

// TestSealedAnswers: what waits is not in the database for everybody to read.
func TestSealedAnswers(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	g.enrol(t, alice)
	c := g.browser(t)
	c.held(alice, "correct-alice")
	files, err := filepath.Glob(filepath.Join(g.dir, "*.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{c.cookies[guard.HoldCookie], "welcome " + alice, "correct-alice"} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s has %.20q in the clear", file, secret)
			}
		}
	}
}
