package guard_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func TestWhoCannotBeIdentifiedIsRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		me     int
		status int
	}{
		{"the backend says nobody is logged in", 401, http.StatusForbidden},
		{"whoami fails", 500, http.StatusBadGateway},
		{"whoami is gone", 404, http.StatusBadGateway},
	} {
		t.Run(test.name, func(t *testing.T) {
			backend := newHostile()
			mux := http.NewServeMux()
			mux.Handle("/", backend)
			mux.HandleFunc("/me", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(test.me) })
			g := newGate(t, "hostile", mux)
			c := g.client(t)
			got := c.login(alice, "correct-alice")
			if got.status != test.status || strings.Contains(got.body, "welcome") || len(c.cookies) > 0 {
				t.Errorf("login = %d %q, cookies %v, want %d and nothing of the backend's answer", got.status, got.body, c.cookies, test.status)
			}
			if len(backend.sessions) != 0 {
				t.Errorf("the backend still has the session that was never handed out: %v", backend.sessions)
			}
			c.wantSecret("")
			events := g.happened()
			if len(events) != 1 || events[0].Outcome != detectors.Unknown {
				t.Errorf("events = %+v, want one of unknown outcome", events)
			}
		})
	}
}

func TestEveryNameIsCounted(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	c.login("one@example.com", "x")
	plain := g.happened()[0].Name.Digest
	for _, test := range []struct {
		name, path, contentType, body string
		events                        int
	}{
		{"plain", "/login", "application/json", `{"email":"one@example.com","password":"x"}`, 1},
		{"another case and width", "/login", "application/json", `{"email":" ONE＠example.com ","password":"x"}`, 1},
		{"duplicate key", "/login", "application/json", `{"email":"two@example.com","email":"one@example.com","password":"x"}`, 2},
		{"array", "/login", "application/json", `[{"email":"one@example.com","password":"x"},{"email":"two@example.com","password":"y"},{"email":"three@example.com","password":"z"}]`, 3},
		{"query and form", "/login?email=two@example.com", "application/x-www-form-urlencoded", "email=one@example.com&password=x", 2},
		{"path variants", "//LOGIN/./;v=1", "application/json", `{"email":"one@example.com","password":"x"}`, 1},
		{"no name at all", "/login", "application/json", `{}`, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(g.happened())
			c := g.client(t)
			c.header.Set(address, "203.0.113."+string('0'+rune(before%10)))
			c.do("POST", test.path, test.contentType, test.body)
			events := g.happened()[before:]
			if len(events) != test.events {
				t.Fatalf("%d events, want %d: %+v", len(events), test.events, events)
			}
			found := test.name == "no name at all"
			for _, e := range events {
				found = found || e.Name.Digest == plain
			}
			if !found {
				t.Errorf("none of the events is about the name that the backend might read: %+v", events)
			}
		})
	}
}

func TestUnreadableLogins(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	pairs := strings.Repeat(`{"email":"a@example.com","password":"x"},`, 100)
	for i := range 100 {
		pairs = strings.Replace(pairs, "a@example", "u"+strings.Repeat("i", i)+"@example", 1)
	}
	for _, test := range []struct {
		name, encoding, body string
		status               int
	}{
		{"too large", "", `{"email":"a","password":"` + strings.Repeat("x", 70000) + `"}`, http.StatusRequestEntityTooLarge},
		{"compressed", "gzip", `{}`, http.StatusUnsupportedMediaType},
		{"too many log-ins", "", "[" + strings.TrimSuffix(pairs, ",") + "]", http.StatusBadRequest},
	} {
		c.header.Set("Content-Encoding", test.encoding)
		if test.encoding == "" {
			c.header.Del("Content-Encoding")
		}
		before := backend.logins
		got := c.do("POST", "/login", "application/json", test.body)
		if got.status != test.status || backend.logins != before {
			t.Errorf("%s: %d, backend asked %d times, want %d and not at all", test.name, got.status, backend.logins-before, test.status)
		}
		var problem struct {
			Type   string
			Status int
		}
		if err := json.Unmarshal([]byte(got.body), &problem); err != nil || problem.Status != test.status || !strings.HasPrefix(problem.Type, guard.OwnPath) {
			t.Errorf("%s: %q is not a problem document of ours", test.name, got.body)
		}
	}
}

func TestGuessingAtOneAccount(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, func(c *setup) { c.Policy.Delay = time.Millisecond })
	owner := g.client(t)
	owner.login(alice, "correct-alice")
	owner.do("POST", "/logout", "", "")
	// A stranger guesses from many addresses.
	at, stopped := backend.logins, 0
	for i := range 40 {
		c := g.client(t)
		c.header.Set(address, fmt.Sprintf("203.0.113.1%02d", i))
		switch got := c.login(alice, fmt.Sprint("guess", i)); got.status {
		case http.StatusTooManyRequests, http.StatusForbidden:
			stopped++
			if got.header.Get("RateLimit") != "" {
				t.Errorf("headers = %v, want nothing that counts", got.header)
			}
		}
	}
	if evaluated := backend.logins - at; stopped < 35 || evaluated > 5 {
		t.Errorf("%d of 40 guesses were stopped and %d evaluated, want all after the first five", stopped, evaluated)
	}
	if got := owner.login(alice, "correct-alice"); got.status != http.StatusOK {
		t.Errorf("the owner's own device: %d, want in", got.status)
	}
}

// TestOldPasswordKeepsNobodyOut: a program that repeats one old password uses up
// nothing of its owner's, who comes in with the new one on whatever device.
func TestOldPasswordKeepsNobodyOut(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	program := g.client(t)
	for range 40 {
		if got := program.login(alice, "of-last-year"); got.status != http.StatusUnauthorized {
			t.Fatalf("the program: %d %s, want the backend's own answer", got.status, got.body)
		}
	}
	owner := g.client(t)
	owner.header.Set(address, "198.51.100.77")
	if got := owner.login(alice, "correct-alice"); got.status != http.StatusOK {
		t.Errorf("the owner on a new device: %d %s, want in", got.status, got.body)
	}
}

func TestStorageAway(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	c.login(alice, "correct-alice")
	c.wantSecret(alice)
	g.db.Close()
	c.wantSecret(alice) // cached sessions go on
	other := g.client(t)
	other.header.Set(address, "198.51.100.77")
	got := other.login(mallory, "correct-mallory")
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || len(other.cookies) > 0 {
		t.Errorf("login without a database: %d %v, want 503, Retry-After and no cookie", got.status, got.header)
	}
}

func TestOperatorsBlock(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	c.login(alice, "correct-alice")
	d, err := g.core.Decisions.Register(t.Context(), policies.Decision{
		Scope: policies.ScopeNetwork, Value: "198.51.100.0/24", Action: rules.Refuse, Mode: rules.Enforce,
		Origin: policies.OriginOperator, By: "test", Reason: "test", Until: g.clock().Add(30 * time.Second),
	}, g.clock())
	if err != nil {
		t.Fatal(err)
	}
	if got := c.get("/secret"); got.status != http.StatusForbidden {
		t.Errorf("blocked network: %d, want 403 also for sessions", got.status)
	}
	// Mapped and NAT64 spellings of the same address are the same address.
	for _, from := range []string{"::ffff:198.51.100.9", "64:ff9b::c633:6409", "198.51.100.9"} {
		other := g.client(t)
		other.header.Set(address, from)
		if got := other.get("/hello"); got.status != http.StatusForbidden {
			t.Errorf("from %s: %d, want 403", from, got.status)
		}
	}
	g.advance(31 * time.Second) // no sweeper runs here
	c.wantSecret(alice)
	_ = d
}

func TestSocketsNeedASession(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	c := g.client(t)
	c.header.Set("Upgrade", "websocket")
	c.header.Set("Connection", "Upgrade")
	if got := c.get("/ws"); got.status != http.StatusUnauthorized {
		t.Errorf("upgrade without a session: %d, want 401", got.status)
	}
}

func TestNamedLimitsHoldForLogins(t *testing.T) {
	backend := newHostile()
	rate, err := limits.ParseRate("2/1m")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(t, "hostile", backend, func(c *setup) {
		c.Limits = []limits.Limit{{Name: "address", Key: limits.KeyAddress, Rate: rate}}
	})
	c := g.client(t)
	for i, want := range []int{401, 401, 429, 429} {
		got := c.login(alice, "wrong")
		if got.status != want || got.header.Get("RateLimit") != "" {
			t.Errorf("attempt %d: %d %v, want %d and nothing that counts", i+1, got.status, got.header, want)
		}
	}
	if got := c.get("/hello"); got.status != 429 || got.header.Get("RateLimit") == "" {
		t.Errorf("elsewhere: %d %v, want 429 and what the limit is", got.status, got.header)
	}
}

// TestNobodyTakesAName: somebody whose backend knows him by a name that whoami does
// not list must not be able to tie another's name to his account on the way.
func TestNobodyTakesAName(t *testing.T) {
	passwords["mal"] = "correct-mallory"
	t.Cleanup(func() { delete(passwords, "mal") })
	backend := newHostile()
	mux := http.NewServeMux()
	mux.Handle("/", backend)
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		backend.mu.Lock()
		account, _ := backend.account(r)
		backend.mu.Unlock()
		if account == "mal" {
			account = mallory
		}
		if account == "" {
			w.WriteHeader(401)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"id": account, "org": "example", "mail": account})
	})
	g := newGate(t, "hostile", mux)
	owner := g.client(t)
	owner.login(alice, "correct-alice")
	owner.do("POST", "/logout", "", "")
	c := g.client(t)
	if got := c.do("POST", "/login", "application/json", `{"email":"`+alice+`","Email":"mal","password":"correct-mallory"}`); got.status != 200 {
		t.Fatalf("mallory's login: %d %s", got.status, got.body)
	}
	owner.login(alice, "wrong")
	events := g.happened()
	if last := events[len(events)-1]; last.Account != alice || !last.Device.Known() {
		t.Errorf("alice's next attempt = %+v, want her own account and device", last)
	}
}

func TestRefusedAccountsSessionStaysOut(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend)
	c := g.client(t)
	c.login(mallory, "correct-mallory")
	sid := c.cookies["sid"]
	if _, err := g.core.Decisions.Register(t.Context(), policies.Decision{
		Scope: policies.ScopeAccount, Value: mallory, Action: rules.Refuse, Mode: rules.Enforce,
		Origin: policies.OriginOperator, By: "test", Reason: "test", Until: g.clock().Add(time.Hour),
	}, g.clock()); err != nil {
		t.Fatal(err)
	}
	c.login(alice, "wrong")
	if got := backend.last().Get("Cookie"); strings.Contains(got, sid) {
		t.Errorf("the refused account's session reached the backend: %q", got)
	}
}
