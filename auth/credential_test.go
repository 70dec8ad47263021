package auth_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/auth"
)

func TestHashCredential(t *testing.T) {
	type named struct{ kind, value string }
	for _, test := range []struct {
		name string
		a, b named
		same bool
	}{
		{"the same", named{"cookie", "abc"}, named{"cookie", "abc"}, true},
		{"another value", named{"cookie", "abc"}, named{"cookie", "abd"}, false},
		{"another kind", named{"cookie", "abc"}, named{"bearer", "abc"}, false},
		{"a letter moves from kind to value", named{"cookie", "abc"}, named{"cooki", "eabc"}, false},
		{"no value", named{"cookie", ""}, named{"", "cookie"}, false},
		{"longer than the room on the stack", named{"bearer", strings.Repeat("x", 5000)}, named{"bearer", strings.Repeat("x", 5001)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := auth.HashCredential(test.a.kind, test.a.value), auth.HashCredential(test.b.kind, test.b.value)
			if got := a == b; got != test.same {
				t.Errorf("got the same hash: %v, want %v", got, test.same)
			}
		})
	}
}

// Stored hashes outlive programs, so the hash of a value never changes.
func TestHashCredentialIsFixed(t *testing.T) {
	const want = "b2ba5a2454d2e2686e7d8355ad81f7735e52d6edf56e338ac05e8ac9b2ca087c"
	if got := auth.HashCredential("session", "first").String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCredentialHashText(t *testing.T) {
	good := auth.HashCredential("cookie", "abc").String()
	for _, test := range []struct {
		name, text string
		ok         bool
	}{
		{"what it writes", good, true},
		{"zeroes", strings.Repeat("0", 64), true},
		{"nothing", "", false},
		{"too short", good[:63], false},
		{"too long", good + "0", false},
		{"not hexadecimal", "g" + good[1:], false},
		{"capital letters", "A" + good[1:], false},
		{"a blank", " " + good[1:], false},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := auth.HashCredential("cookie", "untouched")
			h := before
			err := h.UnmarshalText([]byte(test.text))
			switch {
			case (err == nil) != test.ok:
				t.Fatalf("got error %v, want ok: %v", err, test.ok)
			case err != nil && h != before:
				t.Errorf("a bad text changed the hash to %s", h)
			case err == nil && h.String() != test.text:
				t.Errorf("got %s, want %s", h, test.text)
			}
		})
	}
}

func FuzzCredentialHashText(f *testing.F) {
	f.Add(strings.Repeat("0", 64))
	f.Add(auth.HashCredential("cookie", "abc").String())
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		var h auth.CredentialHash
		if h.UnmarshalText([]byte(text)) != nil {
			return
		}
		back, err := h.MarshalText()
		if err != nil || string(back) != text {
			t.Errorf("%q comes back as %q (%v)", text, back, err)
		}
		asKey, err := json.Marshal(map[auth.CredentialHash]int{h: 1})
		if want := `{"` + text + `":1}`; err != nil || string(asKey) != want {
			t.Errorf("as a key: got %s (%v), want %s", asKey, err, want)
		}
	})
}

func BenchmarkHashCredential(b *testing.B) {
	bearer := strings.Repeat("x", 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		auth.HashCredential("bearer", bearer)
	}
}
