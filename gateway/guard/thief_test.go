package guard_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
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
