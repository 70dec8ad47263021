package password_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/chatcore/password"
)

var cheap = password.Cost{Memory: 64, Time: 1, Threads: 1}

func TestHasher(t *testing.T) {
	h, err := password.NewHasher(cheap, 2)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	hash, err := h.Hash(ctx, "ひらけごま8")
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.Hash(ctx, "ひらけごま8")
	if err != nil {
		t.Fatal(err)
	}
	if hash == again {
		t.Error("two hashes share a salt")
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Errorf("hash %s", hash)
	}
	for name, tt := range map[string]struct {
		password, hash string
		want           bool
	}{
		"right":           {"ひらけごま8", hash, true},
		"wrong":           {"ひらけごま9", hash, false},
		"empty":           {"", hash, false},
		"unknown account": {"ひらけごま8", "", false},
	} {
		if got, err := h.Verify(ctx, tt.password, tt.hash); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, tt.want)
		}
	}
	dear, err := password.NewHasher(password.Cost{Memory: 128, Time: 1, Threads: 1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if h.Outdated(hash) || !dear.Outdated(hash) {
		t.Error("Outdated must tell costs apart")
	}
	if ok, err := dear.Verify(ctx, "ひらけごま8", hash); !ok || err != nil {
		t.Errorf("a hash of another cost: %v, %v", ok, err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := h.Hash(gone, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}

// The vector was made with the reference command line tool's parameters
// -id -t 2 -k 256 -p 1 of password "password" and salt "somesalt".
func TestParse(t *testing.T) {
	const good = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	h, err := password.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if h.String() != good {
		t.Errorf("%s became %s", good, h)
	}
	hasher, err := password.NewHasher(cheap, 1)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := hasher.Verify(t.Context(), "password", good); !ok || err != nil {
		t.Errorf("the reference vector: %v, %v", ok, err)
	}
	for _, bad := range []string{
		"", "$", "x" + good, good + "=", strings.Replace(good, "argon2id", "argon2i", 1), strings.Replace(good, "v=19", "v=16", 1),
		strings.Replace(good, "m=256", "m=0256", 1), strings.Replace(good, "m=256,t=2", "t=2,m=256", 1),
		strings.Replace(good, "m=256", "m=4294967295", 1), strings.Replace(good, "t=2", "t=0", 1), strings.Replace(good, "p=1", "p=256", 1),
		strings.Replace(good, "t=2,p=1", "t=2", 1), strings.Replace(good, "c29tZXNhbHQ", "", 1),
	} {
		if _, err := password.Parse(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := password.Parse(s); err == nil && h.String() != s {
			t.Errorf("%q became %q", s, h)
		}
	})
}
