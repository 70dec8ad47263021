package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
	_ "time/tzdata" // the same zones on every machine
)

// Events show the clocks that policy.yaml speaks of, and others as soon as it does.
func TestClocksOfThePolicy(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	say := func(policy string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	say("zone: Asia/Tokyo\norganizations:\n  example: {zone: Asia/Kathmandu}\n")
	g := newGate(t, newBackend(t), "policies "+dir)
	c := g.client(t)
	c.login("nobody@example.com", "wrong")
	c.enter("taro@example.com")
	for i, e := range g.awaitEvents(c.from, 3) {
		if i == 0 && e.Shift != 0 || i > 0 && e.Shift != 345-540 || e.Offset != 540 {
			t.Errorf("event %d: clocks are %d and %d minutes ahead, want Tokyo's, and Kathmandu's once somebody is in", i, e.Offset, e.Shift)
		}
	}
	say("zone: Asia/Kolkata\n")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for i := range 1 << 20 {
		c := g.client(t)
		c.login(fmt.Sprintf("nobody%d@example.com", i), "wrong")
		if e := g.awaitEvents(c.from, 1)[0]; e.Offset == 330 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the policy changed half a minute ago, and the clock did not")
		}
	}
}
