package main

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/kidoban/kidoban/chatcore"
)

// TestRestart stops a gate in the middle of an attack, in order and by force. The
// attack is acted on as early as without a stop: what the detectors knew is in the
// snapshot and in the journal of events.
func TestRestart(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	backend := newTown(t, 200)
	const most = 200
	// attack tries a list from one address until the gate acts, and returns how many
	// attempts that took; halfway is called after some.
	attack := func(n *node, after int, halfway func()) int {
		t.Helper()
		v := newVisitor("203.0.113.9")
		for i := range most {
			if i == after {
				halfway()
			}
			who := chatcore.SeededAccount{Email: fmt.Sprintf("nobody%d@list.example", i), Password: "stolen"}
			status, err := v.login(ctx, n, who)
			if err != nil {
				t.Fatal(err)
			}
			if status != http.StatusUnauthorized {
				return i + 1
			}
			v.cookies = map[string]string{} // as a program that keeps none
		}
		t.Fatalf("%s did not act on %d attempts", n.name, most)
		return 0
	}
	quiet := newNode(t, "quiet", backend)
	quiet.start()
	want := attack(quiet, -1, nil)
	t.Logf("without a stop the gate acts at attempt %d", want)
	if want < 4 {
		t.Fatalf("acted at attempt %d: nothing is left to stop within", want)
	}
	for _, how := range []struct {
		name string
		end  func(*node)
	}{{"killed", (*node).kill}, {"stopped", (*node).stop}} {
		n := newNode(t, how.name, backend)
		n.start()
		got := attack(n, want/2, func() {
			how.end(n)
			n.start()
		})
		if got != want {
			t.Errorf("a gate that was %s acts at attempt %d, want %d as without", how.name, got, want)
		}
	}
}
