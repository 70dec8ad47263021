package guard_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
)

// Ways around the second factor, for somebody who has the right password. Each test
// here is one that was thought of; none may lead to a session, or to somebody else's
// answer.

// TestOtherWaysIn: log-ins that no route of the preset names are held too, and so are
// those of the route that are written strangely.
func TestOtherWaysIn(t *testing.T) {
	right := `{"email":"` + alice + `","password":"correct-alice"}`
	form := url.Values{"email": {alice}, "password": {"correct-alice"}}.Encode()
	for _, way := range []struct{ what, method, path, contentType, body string }{
		{"a route that nobody named", "POST", "/api/v9/signin", "application/json", right},
		{"another spelling", "POST", "/Sign-In", "application/json", right},
		{"capitals", "POST", "/LOGIN", "application/json", right},
		{"a slash at the end", "POST", "/login/", "application/json", right},
		{"dots", "POST", "/x/../login", "application/json", right},
		{"percent", "POST", "/%6cogin", "application/json", right},
		{"another method", "PUT", "/login", "application/json", right},
		{"a query", "POST", "/login?" + form, "", ""},
		{"below our own path", "POST", "/.kidoban/../login", "application/json", right},
		{"103", "GET", "/early", "", ""},
		{"a trailer", "GET", "/trailer", "", ""},
		{"a trailer that is not announced", "GET", "/trailer-unannounced", "", ""},
		{"a link in a mail", "GET", "/magic", "", ""},
		{"a callback", "GET", "/callback", "", ""},
	} {
		t.Run(way.what, func(t *testing.T) {
			g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
			g.enrol(t, alice)
			for _, mode := range []string{"navigate", "cors", ""} {
				c := g.client(t)
				c.header.Set("Sec-Fetch-Mode", mode)
				got := c.do(way.method, way.path, way.contentType, way.body)
				if strings.Contains(got.body, "welcome") || strings.Contains(got.body, "secret of") {
					t.Errorf("%s: %d %q", mode, got.status, got.body)
				}
				c.wantSecret("")
			}
			g.wantNoSession(t, alice)
		})
	}
}

// TestOldCredentials: what existed before the factor, or besides, leads nowhere.
func TestOldCredentials(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
	// Minted while there was no factor.
	before := g.client(t)
	if got := before.login(alice, "correct-alice"); got.status != 200 {
		t.Fatal(got.status)
	}
	minted := before.do("POST", "/tokens", "", "")
	token := between(t, minted.body, `"token":"`, `"`)
	g.enrol(t, alice)
	program := g.client(t)
	program.header.Set("X-Token", token)
	program.wantSecret(alice) // it was let out to its owner
	if got := program.do("POST", "/tokens", "", ""); got.status != http.StatusUnauthorized || strings.Contains(got.body, "token\":\"s") {
		t.Errorf("an old token makes a new one: %d %q", got.status, got.body)
	}
	if got := before.do("POST", "/tokens", "", ""); got.status != http.StatusUnauthorized {
		t.Errorf("an old session makes a token: %d", got.status)
	}
	for what, set := range map[string]func(*client){
		"planted cookie": func(c *client) { c.cookies["sid"] = backend.plant(alice) },
		"unknown token": func(c *client) {
			backend.mu.Lock()
			defer backend.mu.Unlock()
			backend.tokens["made-elsewhere"] = alice
			c.header.Set("X-Token", "made-elsewhere")
		},
		"Basic": func(c *client) { c.header.Set("Authorization", "Basic YWxpY2VAZXhhbXBsZS5jb206Y29ycmVjdC1hbGljZQ==") },
	} {
		c := g.client(t)
		set(c)
		if got := c.get("/secret"); strings.Contains(got.body, "secret of") {
			t.Errorf("%s: %d %q", what, got.status, got.body)
		}
	}
}

func between(t *testing.T, s, from, to string) string {
	t.Helper()
	_, s, ok := strings.Cut(s, from)
	s, _, ok2 := strings.Cut(s, to)
	if !ok || !ok2 {
		t.Fatalf("no %q ... %q", from, to)
	}
	return s
}

// TestSessionFixation: a credential that the thief chose beforehand is of no use to him
// when its victim has logged in.
func TestSessionFixation(t *testing.T) {
	backend := newHostile()
	backend.keep = true
	g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	thief := g.browser(t)
	thief.get("/login")
	victim := g.browser(t)
	victim.cookies["sid"] = thief.cookies["sid"]
	victim.form("/login", "email", alice, "password", "correct-alice")
	if got := victim.through(victim.give(victim.get("/.kidoban/factor"), phone.code())); got.status != 200 {
		t.Fatal(got.status)
	}
	victim.wantSecret(alice)
	thief.wantSecret("")
	// Nor is a hold of the thief's in the victim's browser one of the victim's.
	mine := g.browser(t)
	mine.held(enrolled(g, t, mallory), "correct-mallory")
	victim.cookies[guard.HoldCookie] = mine.cookies[guard.HoldCookie]
	victim.wantSecret(alice)
}

// enrolled is an account that has a factor now.
func enrolled(g *gate, t *testing.T, subject string) string {
	g.enrol(t, subject)
	return subject
}

// TestSentOn: what a thief gets hold of he cannot have the owner finish: not the
// address, nor with its code, nor the code that was mailed.
func TestSentOn(t *testing.T) {
	t.Run("continue", func(t *testing.T) {
		g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
		phone := g.enrol(t, alice)
		thief := g.client(t)
		thief.header.Set(address, "203.0.113.66")
		told := problemOf(t, thief.login(alice, "correct-alice"))
		path := strings.TrimPrefix(told.Continue, "https://chat.example")
		owner := g.browser(t)
		got := owner.get(path)
		if got.status != http.StatusForbidden || hidden.MatchString(got.body) {
			t.Fatalf("the owner elsewhere: %d, want a page that asks for nothing", got.status)
		}
		for _, sub := range []string{"", "/key", "/enrol", "/lost", "/resend"} {
			got := owner.form(path+sub, "csrf", "x", "code", told.Code, "do", "continue")
			if got.status == http.StatusSeeOther || got.status == http.StatusOK {
				t.Errorf("POST %s: %d", sub, got.status)
			}
		}
		_ = phone
		if got := thief.login(alice, "correct-alice"); got.status != http.StatusUnauthorized {
			t.Errorf("the thief: %d", got.status)
		}
		g.wantNoSession(t, alice)
	})
	t.Run("mailed code", func(t *testing.T) {
		g := newGate(t, "hostile", newHostile(), withFactors(t, `factors: {require: [{need: confirm}]}`))
		thief := g.browser(t)
		thief.header.Set(address, "203.0.113.66")
		thief.held(alice, "correct-alice")
		his := g.mailed(t, "confirmation.code", alice)
		g.advance(time.Second)
		owner := g.browser(t)
		page := owner.held(alice, "correct-alice")
		if got := owner.give(page, his); got.status != http.StatusUnprocessableEntity {
			t.Errorf("the thief's code at the owner's login: %d, want it to be wrong there", got.status)
		}
		if got := thief.get("/.kidoban/factor"); got.status != http.StatusOK || !hidden.MatchString(got.body) {
			t.Errorf("the thief's login: %d, want it to wait still", got.status)
		}
		g.wantNoSession(t, alice)
	})
	t.Run("deny", func(t *testing.T) {
		g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
		g.enrol(t, alice)
		thief := g.client(t)
		told := problemOf(t, thief.login(alice, "correct-alice"))
		path := strings.TrimPrefix(told.Continue, "https://chat.example")
		owner := g.browser(t) // in the same office
		got := owner.form(path, "csrf", owner.get(path).token(t), "do", "deny")
		if got.status != 200 {
			t.Fatalf("denying: %d", got.status)
		}
		g.mailed(t, "signin.denied", alice)
		if again := problemOf(t, thief.login(alice, "correct-alice")); again.Continue == told.Continue {
			t.Error("the login goes on after it was denied")
		}
	})
}

// TestThiefCancels: giving a login up does not keep its owner from hearing of it.
func TestThiefCancels(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	g.enrol(t, alice)
	for _, how := range []string{"cancel", "logout", "again"} {
		thief := g.browser(t)
		page := thief.held(alice, "correct-alice")
		switch how {
		case "cancel":
			thief.form("/.kidoban/factor/cancel", "csrf", page.token(t))
		case "logout":
			thief.form("/logout")
		case "again":
			thief.form("/login", "email", mallory, "password", "correct-mallory")
			g.advance(10 * time.Minute)
		}
		g.core.Sweep(t.Context())
		g.mailed(t, "signin.unanswered", alice)
		g.advance(24 * time.Hour)
	}
}

// TestGuessing: a thief who has the password guesses codes from 1,000 networks at once
// and for as long as it takes: the app is disabled, and that is not the same as having
// none.
func TestGuessing(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	looked := func() int {
		all, err := g.core.Factors.List(t.Context(), alice)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0].Failures
	}
	var disabled atomic.Bool
	guesses := 0
	for round := 0; !disabled.Load() && round < 40; round++ {
		thief := g.browser(t)
		page := thief.held(alice, "correct-alice")
		token := page.token(t)
		var group sync.WaitGroup
		n := 1000
		if round > 0 {
			n = 20
		}
		work := make(chan int)
		for range 8 {
			group.Go(func() {
				for i := range work {
					c := g.browser(t)
					c.cookies[guard.HoldCookie] = thief.cookies[guard.HoldCookie]
					c.header.Set(address, fmt.Sprintf("198.18.%d.%d", i/250, i%250+1))
					wrong := fmt.Sprintf("%06d", i)
					if wrong == phone.code() {
						continue
					}
					if got := c.form("/.kidoban/factor", "csrf", token, "code", wrong); got.status == http.StatusSeeOther {
						t.Errorf("guess %d was let through", i)
					}
				}
			})
		}
		for i := range n {
			work <- i
		}
		close(work)
		group.Wait()
		guesses += n
		if round == 0 && looked() > 5 {
			t.Errorf("%d of 1,000 guesses at once were looked at, want 5 at most", looked())
		}
		all, err := g.core.Factors.List(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		disabled.Store(all[0].State == auth.FactorDisabled)
		g.advance(2 * time.Hour)
	}
	if !disabled.Load() || looked() != 20 {
		t.Fatalf("after %d guesses: disabled %v, %d were looked at; want it disabled after 20", guesses, disabled.Load(), looked())
	}
	t.Logf("%d guesses from 1,000 networks, 20 were looked at: they succeed with odds of 20 * 2 / 10^6 = 4 in 100,000", guesses)
	g.mailed(t, "factor.guessed", alice)
	g.mailed(t, "factor.disabled", alice)
	c := g.browser(t)
	page := c.held(alice, "correct-alice") // held all the same
	if got := c.form("/.kidoban/factor", "csrf", page.token(t), "code", phone.code()); got.status == http.StatusSeeOther {
		t.Error("a disabled app lets its owner in")
	}
	g.wantNoSession(t, alice)
}

// TestStrangersLockNobody: without the password nobody gets to guess at a factor.
func TestStrangersLockNobody(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	owner := g.browser(t)
	if got := owner.through(owner.give(owner.held(alice, "correct-alice"), phone.code())); got.status != 200 {
		t.Fatal(got.status)
	}
	g.advance(48 * time.Hour)
	for i := range 60 {
		stranger := g.browser(t)
		stranger.header.Set(address, fmt.Sprintf("198.18.0.%d", i+1))
		stranger.form("/login", "email", alice, "password", "wrong")
		for _, path := range []string{"/.kidoban/factor", "/.kidoban/factor/key", "/.kidoban/factor/lost", "/.kidoban/step-up", "/.kidoban/continue/" + strings.Repeat("A", 26)} {
			if got := stranger.form(path, "csrf", "x", "code", "000000"); got.status < 400 {
				t.Fatalf("POST %s without a login: %d", path, got.status)
			}
		}
	}
	all, err := g.core.Factors.List(t.Context(), alice)
	if err != nil || all[0].Failures != 0 || all[0].State != auth.FactorActive {
		t.Errorf("factor %+v, %v; want it untouched", all[0], err)
	}
	delete(owner.cookies, guard.SessionCookie)
	delete(owner.cookies, "sid")
	if got := owner.through(owner.give(owner.held(alice, "correct-alice"), phone.code())); got.status != 200 {
		t.Errorf("the owner, on a device that the account knows: %d", got.status)
	}
}

// TestOneCodeTwoNodes: of a hundred submissions of one right code over two nodes one
// wins, and there is one session.
func TestOneCodeTwoNodes(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	other := g.another(t)
	first := g.browser(t)
	token := first.held(alice, "correct-alice").token(t)
	second := other.browser(t)
	second.header.Set(address, "203.0.113.5")
	token2 := second.held(alice, "correct-alice").token(t) // a second login, for the same code
	code := phone.code()
	var won atomic.Int32
	var group sync.WaitGroup
	work := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range work {
				node, from, csrf := g, first, token
				if i%2 == 1 {
					node = other
				}
				if i%4 > 1 {
					from, csrf = second, token2
				}
				c := node.browser(t)
				c.cookies[guard.HoldCookie] = from.cookies[guard.HoldCookie]
				if got := c.form("/.kidoban/factor", "csrf", csrf, "code", code); got.status != http.StatusSeeOther {
					continue
				}
				if got := c.through(c.get("/.kidoban/factor")); got.status == 200 && strings.Contains(got.body, "welcome") {
					won.Add(1)
				}
			}
		})
	}
	for i := range 100 {
		work <- i
	}
	close(work)
	group.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 100 submissions got the answer, want one", won.Load())
	}
	g.sessionOf(t, alice)
}

// TestCodesOutOfTime: replayed, early and late codes are wrong.
func TestCodesOutOfTime(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	try := func(code string) int {
		c := g.browser(t)
		return c.give(c.held(alice, "correct-alice"), code).status
	}
	used := phone.code()
	if got := try(used); got != http.StatusSeeOther {
		t.Fatal(got)
	}
	late := phone.code()
	g.advance(90 * time.Second)
	soon := g.clock()
	g.advance(60 * time.Second)
	early := phone.code()
	g.mu.Lock()
	g.now = soon
	g.mu.Unlock()
	for what, code := range map[string]string{"replayed": used, "late": late, "early": early} {
		if got := try(code); got != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d, want it to be wrong", what, got)
		}
	}
	if got := try(phone.code()); got != http.StatusSeeOther {
		t.Errorf("the right one after them: %d", got)
	}
}

// TestOurForms: early data, methods, sizes and nonsense.
func TestOurForms(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	c.header.Set(earlyData, "1")
	if got := c.give(page, phone.code()); got.status != http.StatusTooEarly {
		t.Errorf("as early data: %d, want 425: it could be a replay", got.status)
	}
	c.header.Del(earlyData)
	for _, method := range []string{"PUT", "DELETE", "OPTIONS", "PATCH"} {
		if got := c.do(method, "/.kidoban/factor", "", ""); got.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d, want 405", method, got.status)
		}
	}
	if got := c.do("HEAD", "/.kidoban/factor", "", ""); got.status != 200 || got.body != "" {
		t.Errorf("HEAD: %d", got.status)
	}
	if got := c.form("/.kidoban/factor", "csrf", page.token(t), "code", strings.Repeat("1", 100<<10)); got.status != http.StatusRequestEntityTooLarge && got.status != http.StatusBadRequest {
		t.Errorf("a huge form: %d", got.status)
	}
	for _, key := range []string{"{}", "null", "[", strings.Repeat("[", 10_000), `{"id":"x","rawId":"x","type":"public-key","response":{}}`} {
		if got := c.form("/.kidoban/factor", "csrf", page.token(t), "credential", key); got.status != http.StatusUnprocessableEntity {
			t.Errorf("a key's answer %.20q: %d, want that it is not good", key, got.status)
		}
	}
	for _, path := range []string{"/.kidoban/factor", "/.kidoban/problems/refused", "/.kidoban/continue/x", "/.kidoban/account", "/.kidoban/step-up"} {
		got := c.get(path)
		csp := got.header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "frame-ancestors 'none'") || got.header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s may be framed (clickjacking): %q", path, csp)
		}
	}
	for _, path := range []string{"/.kidoban/Factor", "/.KIDOBAN/factor", "/%2ekidoban/factor", "/.kidoban/factor/../../secret", "/.kidoban//factor"} {
		if got := c.get(path); strings.Contains(got.body, "secret of") {
			t.Errorf("%s: %d %q", path, got.status, got.body)
		}
	}
	if got := c.through(c.give(page, phone.code())); got.status != 200 {
		t.Errorf("after all that: %d", got.status)
	}
}

// TestOverAnotherSession: logging in as somebody else waits for that one's factor, and
// the session that there is goes on until then.
func TestOverAnotherSession(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	if got := c.form("/login", "email", mallory, "password", "correct-mallory"); got.status != 200 {
		t.Fatal(got.status)
	}
	if got := c.form("/login", "email", alice, "password", "correct-alice"); got.status != http.StatusSeeOther {
		t.Fatal(got.status)
	}
	c.wantSecret(mallory)
	if got := c.through(c.give(c.get("/.kidoban/factor"), phone.code())); got.status != 200 {
		t.Fatal(got.status)
	}
	c.wantSecret(alice)
	g.wantNoSession(t, mallory)
}

// TestUnholdable: answers that cannot be held are not let out.
func TestUnholdable(t *testing.T) {
	for what, answer := range map[string]func(w http.ResponseWriter){
		"longer than 64 KiB": func(w http.ResponseWriter) { fmt.Fprint(w, "secret of "+alice+strings.Repeat("x", 70<<10)) },
		"a stream of events": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: secret of "+alice+"\n\n")
		},
	} {
		t.Run(what, func(t *testing.T) {
			backend := newHostile()
			mux := http.NewServeMux()
			mux.Handle("/", backend)
			mux.HandleFunc("/door", func(w http.ResponseWriter, _ *http.Request) {
				http.SetCookie(w, &http.Cookie{Name: "sid", Value: backend.plant(alice), Path: "/"})
				answer(w)
			})
			g := newGate(t, "hostile", mux, withFactors(t, whoHasOne))
			g.enrol(t, alice)
			c := g.browser(t)
			if got := c.get("/door"); got.status < 400 || strings.Contains(got.body, "secret") || c.cookies["sid"] != "" {
				t.Errorf("%d %.60q %v", got.status, got.body, c.cookies)
			}
			g.wantNoSession(t, alice)
		})
	}
}

// TestStolenPairs: fifty right pairs of accounts without a factor, and fifty of
// accounts with one: no session, no factor bound, and one message to each owner.
func TestStolenPairs(t *testing.T) {
	for name, policy := range map[string]string{
		"grace is over":   everybody,
		"time to enrol":   `factors: {require: [{need: factor}]}`,
		"who has one":     `factors: {require: [{need: enrolled}, {need: confirm, devices: [none, stranger, forked]}]}`,
		"risk of a place": `factors: {require: [{need: enrolled}, {need: confirm, outside: [192.0.2.0/24]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, "hostile", newHostile(), withFactors(t, policy))
			var owners []string
			for i := range 100 {
				owner := fmt.Sprintf("owner-%d@example.com", i)
				passwords[owner] = "stolen"
				t.Cleanup(func() { delete(passwords, owner) })
				owners = append(owners, owner)
				if i%2 == 0 {
					g.enrol(t, owner)
				}
			}
			had := g.countFactors(t, owners)
			for i, owner := range owners {
				thief := g.browser(t)
				thief.header.Set(address, fmt.Sprintf("203.0.113.%d", i+1))
				page := thief.held(owner, "stolen")
				csrf := thief.get("/.kidoban/factor")
				token := ""
				if m := hidden.FindStringSubmatch(csrf.body + page.body); m != nil {
					token = m[1]
				}
				for _, path := range []string{"", "/key", "/enrol", "/enrol/totp", "/enrol/key", "/enrol/key/begin", "/enrol/code", "/enrol/device", "/link?t=AAAA", "/lost"} {
					thief.get("/.kidoban/factor" + path)
					thief.form("/.kidoban/factor"+path, "csrf", token, "code", "123456", "do", "totp", "name", "mine", "credential", "{}")
				}
				thief.get("/.kidoban/account")
				thief.get("/.kidoban/step-up")
				thief.wantSecret("")
			}
			g.advance(10 * time.Minute)
			g.core.Sweep(t.Context())
			for _, owner := range owners {
				g.wantNoSession(t, owner)
			}
			if now := g.countFactors(t, owners); now != had {
				t.Errorf("%d factors, want %d as before", now, had)
			}
			for _, owner := range owners {
				told := make(map[string]int)
				for _, n := range g.letters(t, owner) {
					if n.Template != "factor.added" { // when it was bound, before
						told[n.Template]++
					}
				}
				// What the thief asked for himself (a link, a recovery) is told besides: it
				// comes to the owner.
				delete(told, "enrolment.link")
				delete(told, "recovery.begun")
				if len(told) != 1 || told["signin.unanswered"]+told["confirmation.code"] != 1 {
					t.Errorf("%s was told %v, want one message", owner, told)
				}
			}
		})
	}
}

func (g *gate) letters(t *testing.T, to string) []policies.Notice {
	t.Helper()
	all, _, err := g.core.Outbox.List(t.Context(), policies.NoticeFilter{To: to}, "", 200)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (g *gate) countFactors(t *testing.T, owners []string) (n int) {
	t.Helper()
	for _, owner := range owners {
		all, err := g.core.Factors.List(t.Context(), owner)
		if err != nil {
			t.Fatal(err)
		}
		n += len(all)
	}
	return n
}

// TestRememberedDevice: a device that is remembered is not asked again, at AAL1, and
// asked all the same where there is a risk.
func TestRememberedDevice(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, `factors: {require: [{need: enrolled}], remember: 7d}`))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	if !strings.Contains(page.body, `name="remember"`) {
		t.Fatal("the page does not offer it")
	}
	got := c.through(c.form("/.kidoban/factor", "csrf", page.token(t), "code", phone.code(), "remember", "1"))
	if got.status != 200 {
		t.Fatal(got.status)
	}
	g.advance(time.Hour)
	if got := c.form("/login", "email", alice, "password", "correct-alice"); got.status != 200 {
		t.Errorf("on the remembered device: %d", got.status)
	}
	if s := g.sessionOf(t, alice); s.AAL != 1 {
		t.Errorf("AAL %d, want 1 (SP 800-63B-4 section 5.1)", s.AAL)
	}
	elsewhere := g.browser(t)
	elsewhere.held(alice, "correct-alice")
	g.advance(8 * 24 * time.Hour)
	if got := c.form("/login", "email", alice, "password", "correct-alice"); got.status != http.StatusSeeOther {
		t.Errorf("a week later: %d, want to be asked again", got.status)
	}
}

// TestFactorEvents: what became of factors is for detectors to see.
func TestFactorEvents(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.browser(t)
	page := c.held(alice, "correct-alice")
	c.give(page, "000000")
	c.give(page, phone.code())
	var seen []string
	for _, e := range g.happened() {
		if e.Kind == detectors.Factor {
			seen = append(seen, string(e.Outcome)+" "+e.Reason)
		}
	}
	if len(seen) != 2 || seen[0] != "failure wrong" || seen[1] != "success " {
		t.Errorf("events %q", seen)
	}
}
