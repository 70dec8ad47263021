package guard_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
)

// factsOf is what detectors hear of a password.
func factsOf(t *testing.T, g *gate, password string) detectors.PasswordFacts {
	t.Helper()
	c := g.client(t)
	before := len(g.happened())
	c.do("POST", "/login", "application/json", `{"email":"carol@example.com","password":"`+password+`"}`)
	events := g.happened()[before:]
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	g.advance(1e12)
	return events[0].Password
}

func TestPasswordFacts(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.core.Breached = func(_ context.Context, password string) bool { return password == "letmein" }
	near := func(a, b detectors.PasswordFacts) bool {
		return slices.ContainsFunc(a.Near, func(d uint32) bool { return slices.Contains(b.Near, d) })
	}
	typed := factsOf(t, g, "correct horse")
	for _, test := range []struct {
		password string
		same     bool
		near     bool
	}{
		{"correct horse", true, true},
		{"ｃorrect horse", true, true}, // wide, as an input method leaves it
		{"Correct horse", false, true},
		{"correc horse", false, true},
		{"correct  horse", false, true},
		{"corretc horse", false, true}, // two letters swapped lose the same one
		{"correkt house", false, false},
		{"battery staple", false, false},
	} {
		got := factsOf(t, g, test.password)
		if got.Digest.IsZero() || (got.Digest == typed.Digest) != test.same || near(got, typed) != test.near {
			t.Errorf("%q: the same %v, near %v", test.password, got.Digest == typed.Digest, near(got, typed))
		}
		if got.Breached {
			t.Errorf("%q is on the list", test.password)
		}
	}
	if got := factsOf(t, g, "letmein"); !got.Breached {
		t.Error("a password that is on the list is not known to be")
	}
	for password, most := range map[string]int{strings.Repeat("鍵a", 40): 33, strings.Repeat("x", 300): 1, "aaaa": 2, "": 0} {
		if got := factsOf(t, g, password); len(got.Near) != most {
			t.Errorf("%.8q: %d digests, want %d", password, len(got.Near), most)
		}
	}
}

func TestEachPairHasItsPassword(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	one, two := factsOf(t, g, "one"), factsOf(t, g, "two")
	before := len(g.happened())
	g.client(t).do("POST", "/login", "application/json", `[{"email":"a@example.com","password":"one"},{"email":"b@example.com","password":"two"}]`)
	events := g.happened()[before:]
	if len(events) != 2 || events[0].Password.Digest != one.Digest || events[1].Password.Digest != two.Digest {
		t.Errorf("events %+v", events)
	}
}

func BenchmarkPasswordFacts(b *testing.B) {
	core := benchCore(b)
	for b.Loop() {
		guard.PasswordFacts(core, "abcdefghijklmnopqrstuvwxyz012345")
	}
}
