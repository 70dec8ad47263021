package main

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/assertion"
	"github.com/kidoban/kidoban/policies"
)

// TestAssertions: a chat that asks for assertions works behind the real program, with
// the keys that this publishes, and not around it.
func TestAssertions(t *testing.T) {
	n := newNode(t, "asserting", new(town))
	origin := "http://" + n.site
	v, err := assertion.New(assertion.Config{Keys: origin + "/.kidoban/jwks.json", Issuer: origin, Audience: "chat"})
	if err != nil {
		t.Fatal(err)
	}
	port, person := chatOn(t, "127.0.0.1:0", v)
	n.backend = "127.0.0.1:" + port
	without := n.caddyfile()
	with := strings.Replace(without, "backend chatcore", "backend chatcore\n\t\tassert chat "+origin, 1)
	for _, step := range []struct {
		name, file string
		login, me  int
	}{
		{"the gate asserts", with, http.StatusOK, http.StatusOK},
		{"the gate does not", without, http.StatusForbidden, http.StatusUnauthorized},
	} {
		if err := os.WriteFile(n.file, []byte(step.file), 0o600); err != nil {
			t.Fatal(err)
		}
		n.start()
		someone := newVisitor("198.51.100.1")
		if status, err := someone.login(t.Context(), n, person); err != nil || status != step.login {
			t.Errorf("%s: a log-in got %d %v, want %d\n%s", step.name, status, err, step.login, n.said())
		}
		if status, err := someone.me(t.Context(), n); err != nil || status != step.me {
			t.Errorf("%s: who is in got %d %v, want %d", step.name, status, err, step.me)
		}
		n.stop()
	}
	preset, err := policies.LoadBackend("chatcore", nil)
	if err != nil {
		t.Fatal(err)
	}
	d := doctor{account: accountFile(t, person)}
	if err := d.sessionWithout(t.Context(), spot{"http", n.backend}, preset); err != nil {
		t.Errorf("around the gate: %v", err)
	}
}

func accountFile(t *testing.T, person chatcore.SeededAccount) string {
	t.Helper()
	file := t.TempDir() + "/account"
	if err := os.WriteFile(file, []byte(person.Email+"\n"+person.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
