package guard_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Ways of a thief who has a right password and an account of his own, or an office
// with the owner.

// TestOwnSessionAsCover: he logs in with the stolen password where the backend keeps
// its cookie. That cookie, which his own session proves, is the victim's from then on;
// his session does not lead around the hold.
func TestOwnSessionAsCover(t *testing.T) {
	for _, path := range []string{"/login", "/Sign-In"} {
		for _, mode := range []string{"navigate", "cors"} {
			t.Run(path+" "+mode, func(t *testing.T) {
				backend := newHostile()
				backend.keep = true
				g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
				phone := g.enrol(t, alice)
				c := g.browser(t)
				c.get("/login")
				if got := c.form("/login", "email", mallory, "password", "correct-mallory"); got.status != 200 {
					t.Fatal(got.status)
				}
				c.wantSecret(mallory)
				c.header.Set("Sec-Fetch-Mode", mode)
				c.form(path, "email", alice, "password", "correct-alice")
				for range 2 {
					if got := c.get("/secret"); strings.Contains(got.body, "secret of "+alice) {
						t.Errorf("before the factor: %d %q", got.status, got.body)
					}
				}
				if minted := c.do("POST", "/tokens", "", ""); minted.status == 200 {
					program := g.client(t)
					program.header.Set("X-Token", between(t, minted.body, `"token":"`, `"`))
					program.wantSecret(mallory)
				}
				c.header.Set("Sec-Fetch-Mode", "navigate")
				if got := c.through(c.give(c.get("/.kidoban/factor"), phone.code())); got.status != 200 {
					t.Fatalf("released: %d", got.status)
				}
				c.wantSecret(alice)
			})
		}
	}
}

// TestOwnSessionMeanwhile: nor does it while the backend has logged in the victim and
// the gate is still asking who it is.
func TestOwnSessionMeanwhile(t *testing.T) {
	backend := newHostile()
	backend.keep = true
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	armed := false
	mux := http.NewServeMux()
	mux.Handle("/", backend)
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		backend.mu.Lock()
		wait := armed
		backend.mu.Unlock()
		if wait {
			once.Do(func() { close(asked) })
			<-answer
		}
		backend.ServeHTTP(w, r)
	})
	g := newGate(t, "hostile", mux, withFactors(t, whoHasOne))
	g.enrol(t, alice)
	c := g.browser(t)
	c.get("/login")
	if got := c.form("/login", "email", mallory, "password", "correct-mallory"); got.status != 200 {
		t.Fatal(got.status)
	}
	backend.mu.Lock()
	armed = true
	backend.mu.Unlock()
	var group sync.WaitGroup
	other := g.browser(t)
	for name, value := range c.cookies {
		other.cookies[name] = value
	}
	group.Go(func() { c.form("/login", "email", alice, "password", "correct-alice") })
	<-asked
	if got := other.get("/secret"); strings.Contains(got.body, "secret of "+alice) {
		t.Errorf("while the login is judged: %d %q", got.status, got.body)
	}
	close(answer)
	group.Wait()
	other.wantSecret(mallory)
}

// TestTokenOfAnotherAccount: a token that the backend mints for another account than
// the session's is not let out as the session's.
func TestTokenOfAnotherAccount(t *testing.T) {
	backend := newHostile()
	backend.keep = true
	g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
	g.enrol(t, alice)
	c := g.browser(t)
	c.get("/login")
	if got := c.form("/login", "email", mallory, "password", "correct-mallory"); got.status != 200 {
		t.Fatal(got.status)
	}
	backend.mu.Lock()
	backend.sessions[c.cookies["sid"]] = alice // unseen, as in a moment between two answers
	backend.mu.Unlock()
	if got := c.do("POST", "/tokens", "", ""); got.status < 400 || strings.Contains(got.body, `"token"`) {
		t.Errorf("minting: %d %q", got.status, got.body)
	}
}

// finish gives the factor of a login that a program began, in a browser beside it.
func (g *gate) finish(t *testing.T, phone *app, told struct{ Type, Continue, Code, Detail string }) {
	t.Helper()
	path := strings.TrimPrefix(told.Continue, "https://chat.example")
	person := g.browser(t)
	page := person.get(path)
	page = person.through(person.form(path, "csrf", page.token(t), "code", told.Code, "do", "continue"))
	if got := person.through(person.form(path, "csrf", page.token(t), "code", phone.code())); got.status != 200 {
		t.Fatalf("the factor: %d\n%s", got.status, got.body)
	}
}

// TestScriptsNeighbour: a script's login is finished by its own browser, which keeps
// cookies. A thief behind the same address who tries the same pair in its name gets
// neither its code nor its answer.
func TestScriptsNeighbour(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	script := g.client(t)
	script.header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0")
	script.header.Set("Sec-Fetch-Mode", "cors")
	script.header.Set("Sec-Fetch-Site", "same-origin")
	thief := g.client(t)
	thief.header = script.header.Clone()
	told := problemOf(t, script.login(alice, "correct-alice"))
	if mine := problemOf(t, thief.login(alice, "correct-alice")); mine.Code == told.Code || mine.Continue == told.Continue {
		t.Error("the thief was told the code of the script's login")
	}
	g.finish(t, phone, told)
	delete(thief.cookies, guard.HoldCookie)
	if got := thief.login(alice, "correct-alice"); got.status == 200 {
		t.Errorf("the thief got the answer: %d %q", got.status, got.body)
	}
	if got := script.login(alice, "correct-alice"); got.status != 200 {
		t.Errorf("the script once more: %d", got.status)
	}
}

// TestReleasedAnswersAreNotCached: what answered a POST, which caches do not keep, is
// released to a GET, which they would.
func TestReleasedAnswersAreNotCached(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=600")
		backend.ServeHTTP(w, r)
	}), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	got := c.through(c.give(c.held(alice, "correct-alice"), phone.code()))
	if got.status != 200 || len(got.header["Cache-Control"]) != 1 || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("released: %d with Cache-Control %q, want no-store", got.status, got.header["Cache-Control"])
	}
}

// TestWordsOfAThief: what a client calls itself is in letters to the owner. It leads
// nowhere there.
func TestWordsOfAThief(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, `factors: {require: [{need: confirm}]}`))
	for agent, want := range map[string]string{
		"help.thief.example:443/1.0":                             "help thief example 443",
		"call@thief.example":                                     "call thief example",
		"chat-cli/2.1 (Linux)":                                   "chat-cli (Linux)",
		"com.example.chat/7 CFNetwork/1":                         "com example chat",
		strings.Repeat("x", 200) + "/1":                          strings.Repeat("x", 64),
		"Mozilla/5.0 (X11; Linux x86_64) Gecko/2010 Firefox/145": "Firefox (Linux)",
	} {
		c := g.browser(t)
		c.header.Set("User-Agent", agent)
		c.held(alice, "correct-alice")
		g.advance(time.Second)
		if got := g.letters(t, alice)[0].Values["client"]; got != want {
			t.Errorf("%.40q is called %q in a letter, want %q", agent, got, want)
		}
	}
}

// TestThiefFillsTheAccount: the owner's login is finished although a thief with the
// password begins one after the other, elsewhere or in the same office.
func TestThiefFillsTheAccount(t *testing.T) {
	for what, from := range map[string]string{"elsewhere": "203.0.113.7", "in the same office": "198.51.100.1"} {
		t.Run(what, func(t *testing.T) {
			g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
			phone := g.enrol(t, alice)
			owner := g.browser(t)
			page := owner.held(alice, "correct-alice")
			refused := 0
			for range 60 {
				thief := g.browser(t)
				thief.header.Set(address, from)
				if got := thief.form("/login", "email", alice, "password", "correct-alice"); got.status == http.StatusTooManyRequests {
					refused++
					if len(thief.cookies) > 0 {
						t.Errorf("cookies %v with a refusal", thief.cookies)
					}
				}
				g.advance(time.Second)
			}
			if refused == 0 {
				t.Error("the thief may begin as many as he likes")
			}
			if got := owner.through(owner.give(page, phone.code())); got.status != 200 {
				t.Fatalf("the owner: %d", got.status)
			}
			// On a device that the account knows nobody else's tries count.
			delete(owner.cookies, "sid")
			delete(owner.cookies, guard.SessionCookie)
			g.advance(time.Minute)
			if got := owner.through(owner.give(owner.held(alice, "correct-alice"), phone.code())); got.status != 200 {
				t.Errorf("the owner again: %d", got.status)
			}
		})
	}
}

// TestReleaseOnceMore: a factor that was given is not lost where the session cannot be
// begun for a moment: the answer is there, and good, at the next try.
func TestReleaseOnceMore(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	other := g.another(t)
	c := g.browser(t)
	got := c.give(c.held(alice, "correct-alice"), phone.code())
	if err := g.core.Record.Close(); err != nil {
		t.Fatal(err)
	}
	if got := c.through(got); got.status != http.StatusServiceUnavailable || c.cookies["sid"] != "" || c.cookies[guard.HoldCookie] == "" {
		t.Fatalf("without the record: %d %v, want 503 and to wait on", got.status, c.cookies)
	}
	for range 10 { // the nodes of a test share a name: entries of the one are not those of the other
		other.client(t).login(mallory, "correct-mallory")
	}
	c.gate = other
	if got := c.through(c.get("/.kidoban/factor")); got.status != 200 || c.cookies["sid"] == "" {
		t.Fatalf("once more: %d %v", got.status, c.cookies)
	}
	c.wantSecret(alice)
}

// TestOldTokenIsAdopted: a program's token from before the gate is taken over when a
// factor was given for it, once, and opens nothing before.
func TestOldTokenIsAdopted(t *testing.T) {
	for _, kept := range []bool{true, false} {
		backend := newHostile()
		g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
		phone := g.enrol(t, alice)
		for i := range g.config.Backend.Credentials {
			g.config.Backend.Credentials[i].Unknown = policies.AdoptUnknown
			g.config.Backend.Credentials[i].AdoptUntil = g.clock().Add(time.Hour)
		}
		backend.tokens["old"] = alice
		program := func(agent string) *client {
			c := g.client(t)
			c.header.Set("X-Token", "old")
			c.header.Set("User-Agent", agent)
			return c
		}
		c := program("chat-cli/2")
		told := problemOf(t, c.get("/secret"))
		c.wantSecret("")
		g.finish(t, phone, told)
		if !kept {
			c = program("chat-cli/2")
		}
		program("curl/8").wantSecret("") // it was another program that asked
		c.wantSecret(alice)
		g.sessionOf(t, alice)
		program("chat-cli/2").wantSecret(alice)
	}
}

// TestProgramsNeighbour: a program without cookies is known by its address, not by its
// network, which an office has as a whole in IPv6.
func TestProgramsNeighbour(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	program := func(from string) *client {
		c := g.client(t)
		c.header.Set("User-Agent", "chat-cli/2.1")
		c.header.Set(address, from)
		return c
	}
	told := problemOf(t, program("2001:db8::1").login(alice, "correct-alice"))
	if mine := problemOf(t, program("2001:db8::66").login(alice, "correct-alice")); mine.Code == told.Code {
		t.Error("the neighbour was told the code of the program's login")
	}
	path := strings.TrimPrefix(told.Continue, "https://chat.example")
	person := g.browser(t)
	person.header.Set(address, "2001:db8::2") // beside it
	page := person.get(path)
	page = person.through(person.form(path, "csrf", page.token(t), "code", told.Code, "do", "continue"))
	if got := person.through(person.form(path, "csrf", page.token(t), "code", phone.code())); got.status != 200 {
		t.Fatalf("the factor: %d\n%s", got.status, got.body)
	}
	if got := program("2001:db8::66").login(alice, "correct-alice"); got.status == 200 {
		t.Errorf("the neighbour got the answer: %d %q", got.status, got.body)
	}
	if got := program("2001:db8::1").login(alice, "correct-alice"); got.status != 200 {
		t.Errorf("the program: %d", got.status)
	}
}

// TestRefusedMeanwhile: an account that is refused while its login waits gets nothing
// by its factor.
func TestRefusedMeanwhile(t *testing.T) {
	for _, program := range []bool{false, true} {
		g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
		phone := g.enrol(t, alice)
		c := g.browser(t)
		var released func() reply
		if program {
			c = g.client(t)
			told := problemOf(t, c.login(alice, "correct-alice"))
			g.finish(t, phone, told)
			released = func() reply { return c.login(alice, "correct-alice") }
		} else {
			page := c.held(alice, "correct-alice")
			got := c.give(page, phone.code())
			released = func() reply { return c.through(got) }
		}
		if _, err := g.core.Decisions.Register(t.Context(), policies.Decision{
			Scope: policies.ScopeAccount, Value: alice, Action: rules.Refuse, Mode: rules.Enforce,
			Origin: policies.OriginOperator, By: "test", Reason: "test", Until: g.clock().Add(time.Hour),
		}, g.clock()); err != nil {
			t.Fatal(err)
		}
		if got := released(); got.status != http.StatusForbidden || strings.Contains(got.body, "welcome") || c.cookies["sid"] != "" {
			t.Errorf("a program %v: %d %.60q %v, want 403", program, got.status, got.body, c.cookies)
		}
		g.wantNoSession(t, alice)
	}
}

// TestDenialsAreToldOnce: a thief who begins log-ins and denies them himself does not
// fill the owner's mailbox.
func TestDenialsAreToldOnce(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	g.enrol(t, alice)
	for range 8 {
		told := problemOf(t, g.client(t).login(alice, "correct-alice"))
		path := strings.TrimPrefix(told.Continue, "https://chat.example")
		who := g.browser(t)
		if got := who.form(path, "csrf", who.get(path).token(t), "do", "deny"); got.status != 200 {
			t.Fatalf("denying: %d", got.status)
		}
		g.advance(time.Second)
	}
	n := 0
	for _, letter := range g.letters(t, alice) {
		if letter.Template == "signin.denied" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d letters of denials, want one a day", n)
	}
}

// TestPasswordInAQuery: a login whose pair is in its address waits without it: neither
// the database nor the way on has the password.
func TestPasswordInAQuery(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" { // as a backend that reads both
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Body = io.NopCloser(strings.NewReader(r.URL.RawQuery))
		}
		backend.ServeHTTP(w, r)
	}), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	if got := c.form("/login?email=" + alice + "&password=correct-alice"); got.status != http.StatusSeeOther {
		t.Fatalf("login: %d\n%s", got.status, got.body)
	}
	var route string
	if err := g.db.SQL().QueryRow(`SELECT route FROM auth_holds`).Scan(&route); err != nil || route != "/login" {
		t.Errorf("stored: %q, %v; want the path alone", route, err)
	}
	got := c.give(c.get("/.kidoban/factor"), phone.code())
	for range 4 {
		if strings.Contains(got.header.Get("Location"), "correct-alice") {
			t.Fatalf("led to %q", got.header.Get("Location"))
		}
		if got.status == http.StatusSeeOther {
			got = c.get(got.header.Get("Location"))
		}
	}
	if got.status != 200 || !strings.Contains(got.body, "welcome") {
		t.Errorf("released: %d %q", got.status, got.body)
	}
}
