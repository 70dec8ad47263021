package guard_test

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

const (
	alice   = "alice@example.com"
	mallory = "mallory@example.com"
)

func TestLoginBeginsASession(t *testing.T) {
	for _, test := range []struct {
		name          string
		keep, rolling bool
	}{
		{name: "a new cookie at login"},
		{name: "the anonymous cookie kept at login", keep: true},
		{name: "a new cookie with each answer", rolling: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			backend := newHostile()
			backend.keep, backend.rolling = test.keep, test.rolling
			g := newGate(t, "hostile", backend)
			c := g.client(t)
			c.get("/login")
			c.wantSecret("")
			if got := c.login(alice, "wrong"); got.status != 401 {
				t.Fatalf("wrong password: %d %s", got.status, got.body)
			}
			c.wantSecret("")
			if got := c.login(alice, "correct-alice"); got.status != 200 || !strings.Contains(got.body, "welcome") {
				t.Fatalf("right password: %d %s", got.status, got.body)
			}
			for range 5 {
				c.wantSecret(alice)
			}
			if c.cookies[guard.SessionCookie] == "" || c.cookies[guard.DeviceCookie] == "" {
				t.Errorf("cookies = %v, want a session and a device of ours", c.cookies)
			}
			before := *c
			before.cookies = map[string]string{}
			for k, v := range c.cookies {
				before.cookies[k] = v
			}
			if got := c.do("POST", "/logout", "", ""); got.status != 204 {
				t.Fatalf("logout: %d", got.status)
			}
			if c.cookies[guard.SessionCookie] != "" {
				t.Error("the session cookie was not cleared at logout")
			}
			// What a thief copied before the logout is over, even if the backend
			// forgot to end it.
			backend.mu.Lock()
			backend.sessions[before.cookies["sid"]] = alice
			backend.mu.Unlock()
			before.wantSecret("")
		})
	}
}

// TestLogoutWithoutDatabase logs out while no session can be changed: it is over
// all the same, and in the database later.
func TestLogoutWithoutDatabase(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	c.login(alice, "correct-alice")
	exec := func(statement string) {
		t.Helper()
		if _, err := g.db.SQL().Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	live := func() (n int) {
		t.Helper()
		if err := g.db.Reads().QueryRow(`SELECT COUNT(*) FROM auth_sessions WHERE ended = 0`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	ended, sweep := context.WithCancel(t.Context())
	sweep()
	exec(`CREATE TRIGGER full BEFORE UPDATE ON auth_sessions BEGIN SELECT RAISE(FAIL, 'no room'); END`)
	thief := *c
	thief.cookies = maps.Clone(c.cookies)
	if got := c.do("POST", "/logout", "", ""); got.status != 204 || c.cookies[guard.SessionCookie] != "" {
		t.Fatalf("logout: %d, cookies %v", got.status, c.cookies)
	}
	backend.mu.Lock()
	backend.sessions[thief.cookies["sid"]] = alice // it forgets
	backend.mu.Unlock()
	thief.wantSecret("")
	g.core.Run(ended)
	if live() != 1 {
		t.Fatal("the database took the end of the session: it is not away")
	}
	thief.wantSecret("")
	exec(`DROP TRIGGER full`)
	g.core.Run(ended)
	if live() != 0 {
		t.Error("the end of the session is not in the database")
	}
	thief.wantSecret("")
}

func TestUnseenDoors(t *testing.T) {
	form := "application/x-www-form-urlencoded"
	for _, keep := range []bool{false, true} {
		for _, test := range []struct {
			name string
			open func(*client) reply
		}{
			{"a login route that the preset does not know", func(c *client) reply {
				return c.do("POST", "/api/v9/signin", form, "email="+alice+"&password=correct-alice")
			}},
			{"a magic link whose answer is authenticated", func(c *client) reply { return c.get("/magic?t=1") }},
			{"a callback from an identity provider", func(c *client) reply { return c.get("/callback?code=1") }},
			{"a cookie in early hints", func(c *client) reply { return c.get("/early") }},
		} {
			name := test.name
			if keep {
				name += ", keeping the anonymous cookie"
			}
			t.Run(name, func(t *testing.T) {
				backend := newHostile()
				backend.keep = keep
				g := newGate(t, "hostile", backend)

				// Let in: the client has a session of ours from now on.
				c := g.client(t)
				c.get("/login")
				test.open(c)
				if c.cookies[guard.SessionCookie] == "" {
					t.Error("an authenticated answer left without a session of ours")
				}
				c.wantSecret(alice)
				found := false
				for _, e := range g.happened() {
					found = found || e.Kind == detectors.Door && e.Outcome == detectors.Success && e.Account == alice
				}
				if !found {
					t.Errorf("no door event among %+v", g.happened())
				}

				// Without our cookie the backend's own is worth nothing.
				thief := g.client(t)
				thief.cookies["sid"] = c.cookies["sid"]
				thief.wantSecret("")

				// Refused: the account is blocked, and nothing of the answer leaves.
				if _, err := g.core.Decisions.Register(t.Context(), policies.Decision{
					Scope: policies.ScopeAccount, Value: alice, Action: rules.Refuse, Mode: rules.Enforce,
					Origin: policies.OriginOperator, By: "test", Reason: "test", Until: g.clock().Add(time.Hour),
				}, g.clock()); err != nil {
					t.Fatal(err)
				}
				other := g.client(t)
				other.get("/login")
				got := test.open(other)
				if got.status != http.StatusForbidden || strings.Contains(got.body, "secret") || other.cookies[guard.SessionCookie] != "" {
					t.Errorf("blocked account: %d %q %v, want 403 and nothing of the answer", got.status, got.body, got.header)
				}
				other.wantSecret("")
			})
		}
	}
}

func TestTrailersCarryNoCredential(t *testing.T) {
	for _, path := range []string{"/trailer", "/trailer-unannounced"} {
		backend := newHostile()
		g := newGate(t, "hostile", backend)
		res, err := http.Get(g.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 64)
		n, _ := res.Body.Read(body)
		for err == nil {
			_, err = res.Body.Read(body[n:])
		}
		res.Body.Close()
		if got := string(body[:n]); got != "body" {
			t.Errorf("%s: body %q", path, got)
		}
		if got := res.Trailer.Get("Set-Cookie") + res.Header.Get("Set-Cookie"); got != "" {
			t.Errorf("%s: Set-Cookie %q passed", path, got)
		}
		if path == "/trailer" && res.Trailer.Get("X-Sum") != "1" {
			t.Errorf("the other trailer was lost: %v", res.Trailer)
		}
	}
}

func TestStolenCredentials(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	victim := g.client(t)
	victim.login(alice, "correct-alice")
	victim.wantSecret(alice)
	sid := victim.cookies["sid"]

	attacker := g.client(t)
	attacker.login(mallory, "correct-mallory")
	attacker.wantSecret(mallory)
	own := attacker.cookies[guard.SessionCookie]

	for _, test := range []struct {
		name   string
		cookie string
	}{
		{"alone", "sid=" + sid},
		{"with the thief's own session", guard.SessionCookie + "=" + own + "; sid=" + sid},
		{"behind the thief's own cookie", guard.SessionCookie + "=" + own + "; sid=" + attacker.cookies["sid"] + "; sid=" + sid},
		{"before the thief's own cookie", guard.SessionCookie + "=" + own + "; sid=" + sid + "; sid=" + attacker.cookies["sid"]},
		{"after a comma", guard.SessionCookie + "=" + own + "; a=b, sid=" + sid},
		{"quoted", guard.SessionCookie + "=" + own + "; sid=\"" + sid + "\""},
		{"percent-encoded name", guard.SessionCookie + "=" + own + "; s%69d=" + sid},
		{"a tab after the name", guard.SessionCookie + "=" + own + "; sid\t=" + sid},
		{"a no-break space after the name", guard.SessionCookie + "=" + own + "; sid\xa0=" + sid},
		{"an encoded NUL after the name", guard.SessionCookie + "=" + own + "; sid%00x=" + sid},
		{"an encoded blank before the name", guard.SessionCookie + "=" + own + "; %20sid=" + sid},
		{"alone, with a tab", "sid\t=" + sid},
		{"other case", guard.SessionCookie + "=" + own + "; SID=" + sid},
		{"made-up session of ours", guard.SessionCookie + "=" + strings.Repeat("A", 43) + "; sid=" + sid},
		{"garbage session of ours", guard.SessionCookie + "=%00; sid=" + sid},
	} {
		for _, path := range []string{"/secret", "/login", "/", "/me"} {
			c := g.client(t)
			c.header.Set("Cookie", test.cookie)
			if got := c.get(path); strings.Contains(got.body, alice) {
				t.Errorf("%s: GET %s = %q", test.name, path, got.body)
			}
			if strings.Contains(backend.last().Get("Cookie"), sid) {
				t.Errorf("%s: the stolen cookie reached the backend: %q", test.name, backend.last().Get("Cookie"))
			}
		}
	}
	// A session made at the backend itself, around the gate, is nobody's here.
	c := g.client(t)
	c.cookies["sid"] = backend.plant(alice)
	c.wantSecret("")
	victim.wantSecret(alice)
}

func TestTokens(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	// From an odd body: the gate never saw it, so it opens nothing.
	c := g.client(t)
	got := c.do("POST", "/odd", "application/json", `{"email":"`+alice+`","password":"correct-alice"}`)
	_, rest, _ := strings.Cut(got.body, `"deep":"`)
	odd, _, _ := strings.Cut(rest, `"`)
	thief := g.client(t)
	thief.header.Set("X-Token", odd)
	thief.wantSecret("")

	// Minted where the preset says so: good without a cookie, until it ends.
	c.login(alice, "correct-alice")
	got = c.do("POST", "/tokens", "", "")
	_, rest, _ = strings.Cut(got.body, `"token":"`)
	token, _, _ := strings.Cut(rest, `"`)
	if token == "" {
		t.Fatalf("minting: %d %q", got.status, got.body)
	}
	program := g.client(t)
	program.header.Set("X-Token", token)
	program.wantSecret(alice)
	// A second line, or a scheme that the preset does not know, hides behind nothing.
	for name, lines := range map[string][]string{
		"X-Token":       {token, odd},
		"Authorization": {"Basic YWxpY2U6Y29ycmVjdA=="},
	} {
		smuggler := g.client(t)
		smuggler.header[name] = lines
		smuggler.get("/hello")
		if got := backend.last()[name]; got != nil {
			t.Errorf("%s: %q reached the backend", name, got)
		}
	}
	if _, err := g.core.Sessions.EndAll(t.Context(), alice, auth.Act{By: "test"}, g.clock()); err != nil {
		t.Fatal(err)
	}
	program.wantSecret("")
	c.wantSecret("")
}

// TestSwitchedAccount: where the backend keeps its cookie at login, somebody who
// is logged in with an account of his own could turn his cookie into a victim's at
// a login route that nobody declared.
func TestSwitchedAccount(t *testing.T) {
	for _, test := range []struct{ name, method, path string }{
		{"plainly", "POST", "/api/v9/signin"},
		{"by an override in the query", "POST", "/api/v9/signin?_method=GET"},
	} {
		t.Run(test.name, func(t *testing.T) {
			backend := newHostile()
			backend.keep = true
			g := newGate(t, "hostile", backend)
			if _, err := g.core.Decisions.Register(t.Context(), policies.Decision{
				Scope: policies.ScopeAccount, Value: alice, Action: rules.Refuse, Mode: rules.Enforce,
				Origin: policies.OriginOperator, By: "test", Reason: "test", Until: g.clock().Add(time.Hour),
			}, g.clock()); err != nil {
				t.Fatal(err)
			}
			c := g.client(t)
			c.get("/login")
			c.login(mallory, "correct-mallory")
			c.wantSecret(mallory)
			got := c.do(test.method, test.path, "application/x-www-form-urlencoded", "email="+alice+"&password=correct-alice")
			if got.status != http.StatusForbidden || strings.Contains(got.body, "welcome") {
				t.Errorf("switching: %d %q, want 403", got.status, got.body)
			}
			c.wantSecret("")
		})
	}
}

func TestRollingCookieChain(t *testing.T) {
	backend := newHostile()
	backend.rolling = true
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	c.login(alice, "correct-alice")
	c.wantSecret(alice)
	old := c.cookies["sid"]
	c.wantSecret(alice)
	// A request that was under way with the previous cookie still counts ...
	late := g.client(t)
	late.cookies[guard.SessionCookie], late.cookies["sid"] = c.cookies[guard.SessionCookie], old
	late.wantSecret(alice)
	c.cookies["sid"] = late.cookies["sid"] // the same browser
	// ... for a minute.
	g.advance(2 * time.Minute)
	late.cookies["sid"] = old
	late.wantSecret("")
	c.wantSecret(alice)
}

func TestOurOwnNeverReachesTheBackend(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	c.login(alice, "correct-alice")
	for _, name := range []string{"Kidoban-Assertion", "kidoban-account", "KIDOBAN-SESSION", "Kidoban_Assertion", "Kidoban-"} {
		c.header[name] = []string{"forged"}
	}
	c.get("/hello")
	for name, lines := range backend.last() {
		if strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), "kidoban") {
			t.Errorf("%s: %q reached the backend", name, lines)
		}
	}
	if got := backend.last().Get("Cookie"); strings.Contains(got, "kidoban") || !strings.Contains(got, "sid=") {
		t.Errorf("Cookie at the backend = %q, want its own alone", got)
	}
}

func TestEndedSessionsCloseTheirRequests(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	entered := make(chan struct{})
	backend := newHostile()
	mux := http.NewServeMux()
	mux.Handle("/", backend)
	mux.HandleFunc("/poll", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	g := newGate(t, "hostile", mux)
	c := g.client(t)
	c.login(alice, "correct-alice")
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, _ := http.NewRequest("GET", g.URL+"/poll", nil)
		for name, value := range c.cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		if res, err := http.DefaultTransport.RoundTrip(r); err == nil {
			res.Body.Close()
		}
	}()
	<-entered
	if _, err := g.core.Sessions.EndAll(t.Context(), alice, auth.Act{By: "operator"}, g.clock()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(time.Second):
		t.Error("the poll was still open a second after its session ended")
	}
}

func TestObserveChangesNothing(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, observing(t))
	for i := range 40 {
		c := g.client(t)
		c.header.Set(address, "203.0.113.9")
		name := "user" + strings.Repeat("x", i) + "@example.com"
		if got := c.login(name, "wrong"); got.status != 401 || len(got.set) > 0 {
			t.Fatalf("attempt %d: %d %v, want the backend's own answer", i, got.status, got.set)
		}
	}
	c := g.client(t)
	c.header.Set(address, "203.0.113.9")
	if got := c.login(alice, "correct-alice"); got.status != 200 || len(got.set) != 1 {
		t.Fatalf("right password: %d %v, want the backend's own answer", got.status, got.set)
	}
	c.wantSecret(alice)
	c.header.Set("Kidoban-Account", "whoever")
	if c.get("/hello"); backend.last().Get("Kidoban-Account") != "whoever" {
		t.Error("a header of the client's was changed on its way")
	}
	if err := g.core.Ledger.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := g.core.Ledger.Report(t.Context(), g.clock().Add(-time.Hour), g.clock().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	would := int64(0)
	for _, row := range rows {
		if row.Shadow && row.Action == rules.StepUp {
			would += row.Count
		}
		if !row.Shadow {
			t.Errorf("acted: %+v", row)
		}
	}
	if would < 30 {
		t.Errorf("the ledger says %d attempts would have been stepped up, want at least 30 of 41: %+v", would, rows)
	}
}

func TestListAttackIsStopped(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	owner := g.client(t)
	if got := owner.login(alice, "correct-alice"); got.status != 200 {
		t.Fatal(got)
	}
	owner.do("POST", "/logout", "", "")
	first := -1
	for i := range 40 {
		c := g.client(t)
		got := c.login("user"+strings.Repeat("x", i)+"@example.com", "wrong")
		if got.status == http.StatusForbidden {
			first = i
			if got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "step-up") {
				t.Errorf("refusal = %v %s", got.header, got.body)
			}
			break
		}
	}
	if first < 5 || first > 15 {
		t.Errorf("first action after %d attempts, want 5 to 15", first)
	}
	at := backend.logins
	thief := g.client(t)
	if got := thief.login(alice, "correct-alice"); got.status != http.StatusForbidden || backend.logins != at {
		t.Errorf("the right password from the attacking source: %d, backend asked %d times", got.status, backend.logins-at)
	}
	// The owner, on the very same address, comes in on a device of theirs.
	if got := owner.login(alice, "correct-alice"); got.status != 200 {
		t.Errorf("the owner's own device: %d %s", got.status, got.body)
	}
	// And so does somebody on another address, with another program than the thief's.
	other := g.client(t)
	other.header.Set("User-Agent", "Mozilla/5.0 (Windows NT 10.0; rv:145.0) Gecko/20100101 Firefox/145.0")
	other.header.Set(address, "198.51.100.200")
	if got := other.login(mallory, "correct-mallory"); got.status != 200 {
		t.Errorf("another address: %d", got.status)
	}
}

// TestObserveOneControl: with decisions that only watch, a list is not stopped,
// and sessions are guarded all the same.
func TestObserveOneControl(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, func(c *setup) {
		var err error
		if c.Modes, err = c.Modes.Observe(guard.ControlDecisions); err != nil {
			t.Fatal(err)
		}
	})
	for i := range 30 {
		if got := g.client(t).login("user"+strings.Repeat("x", i)+"@example.com", "wrong"); got.status != 401 {
			t.Fatalf("attempt %d: %d, want the backend's own answer", i, got.status)
		}
	}
	c := g.client(t)
	if got := c.login(alice, "correct-alice"); got.status != 200 || c.cookies[guard.SessionCookie] == "" {
		t.Errorf("login: %d %v, want a session of ours", got.status, c.cookies)
	}
	thief := g.client(t)
	thief.cookies["sid"] = c.cookies["sid"]
	thief.wantSecret("")
	if _, err := (guard.Modes{}).Observe("everything"); err == nil {
		t.Error("an unknown control was taken")
	}
}

// TestInnocentCookies: what merely resembles a credential is the backend's own.
func TestInnocentCookies(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	const innocent = `asid=1; sidebar=open; prefs={"sid":"x"}; note=the sid is gone; lang=ja`
	c.header.Set("Cookie", innocent)
	c.get("/hello")
	if got := backend.last().Get("Cookie"); got != innocent {
		t.Errorf("Cookie at the backend = %q, want %q", got, innocent)
	}
}

// TestOneRequestTwoAccounts: a token minted with somebody's token must not be
// filed under whoever sent it along with a session of his own.
func TestOneRequestTwoAccounts(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	token := func(c *client) string {
		got := c.do("POST", "/tokens", "", "")
		_, rest, _ := strings.Cut(got.body, `"token":"`)
		value, _, _ := strings.Cut(rest, `"`)
		return value
	}
	owner := g.client(t)
	owner.login(alice, "correct-alice")
	stolen := token(owner)
	thief := g.client(t)
	thief.login(mallory, "correct-mallory")
	thief.header.Set("X-Token", stolen)
	if thief.wantSecret(mallory); token(thief) == "" {
		t.Error("the thief's own session was lost")
	}
	thief.header.Set("X-Token", token(thief))
	if _, err := g.core.Sessions.EndAll(t.Context(), alice, auth.Act{By: "test"}, g.clock()); err != nil {
		t.Fatal(err)
	}
	program := g.client(t)
	program.header = thief.header
	program.wantSecret(mallory)
}

// TestObservedIdentifyBreaksOff: a backend that dies while it is asked who logged
// in must not take the gate with it.
func TestObservedIdentifyBreaksOff(t *testing.T) {
	backend := newHostile()
	asked := make(chan struct{}, 10)
	mux := http.NewServeMux()
	mux.Handle("/", backend)
	mux.HandleFunc("/me", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte("{"))
		asked <- struct{}{}
	})
	g := newGate(t, "hostile", mux, observing(t))
	told := make(chan detectors.Event, 10)
	g.core.Stream.Subscribe(func(e detectors.Event) { told <- e })
	if got := g.client(t).login(alice, "correct-alice"); got.status != 200 {
		t.Fatalf("login: %d", got.status)
	}
	<-asked
	if e := <-told; e.Outcome != detectors.Success {
		t.Errorf("event = %+v, want a success without a name", e)
	}
}
