package guard_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/guard"
)

// TestOurCookies: what we set is for this host alone, over TLS alone, and neither for
// scripts nor for forms of other sites (SP 800-63B-4 section 5.1.1).
func TestOurCookies(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, withFactors(t, whoHasOne))
	phone := g.enrol(t, alice)
	c := g.client(t)
	seen := make(map[string]bool)
	look := func(got reply) reply {
		t.Helper()
		for _, line := range got.header["Set-Cookie"] {
			cookie, err := http.ParseSetCookie(line)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if !strings.Contains(cookie.Name, "kidoban") {
				continue
			}
			seen[cookie.Name] = true
			if !strings.HasPrefix(cookie.Name, "__Host-") || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" {
				t.Errorf("a cookie for too many: %s", line)
			}
		}
		return got
	}
	look(c.login(alice, "correct-alice"))
	page := look(c.get("/.kidoban/factor"))
	got := look(c.give(page, phone.code()))
	for range 5 {
		if got.header.Get("Location") == "" {
			break
		}
		got = look(c.get(got.header.Get("Location")))
	}
	for _, name := range []string{guard.HoldCookie, guard.SessionCookie, guard.DeviceCookie} {
		if !seen[name] {
			t.Errorf("%s was not set", name)
		}
	}
}
