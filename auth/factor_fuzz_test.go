package auth_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/auth"
)

// A code that is read is one that we would write, and only one.
func FuzzRecoveryCode(f *testing.F) {
	for _, s := range [][16]byte{{}, {15: 1}, {0xff, 0xfe, 7: 0x80}} {
		f.Add(auth.RecoveryText(s))
		f.Add(strings.ToLower(auth.RecoveryText(s)))
	}
	f.Add("０００００")
	f.Add("OOOO-IIII-LLLL-\u2013 \u3000")
	f.Fuzz(func(t *testing.T, typed string) {
		if digits, ok := auth.TOTPCode(typed); ok && len(digits) != 6 {
			t.Errorf("%q: %q passes for a code of an app", typed, digits)
		}
		s, ok := auth.RecoveryCode(typed)
		if !ok {
			return
		}
		text := auth.RecoveryText(s)
		if again, ok := auth.RecoveryCode(text); !ok || again != s {
			t.Errorf("%q is %x, and %q is %x", typed, s, text, again)
		}
		if len(typed) == len(text) && typed != text && strings.ToUpper(typed) == text && strings.Count(typed, "-") != 6 {
			t.Errorf("%q and %q are one", typed, text)
		}
	})
}

// What browsers send is read or refused, and what is read can be compared.
func FuzzKeyAnswers(f *testing.F) {
	fs, err := openFactors(f.Context(), auth.NewMemoryStore(), factorsConfig())
	if err != nil {
		f.Fatal(err)
	}
	k := newVirtualKey(f)
	options, err := fs.BeginBindKey(f.Context(), "acc-1", "hanako", "key", "s", false, start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.create(f, options))
	if options, err = fs.BeginKey(f.Context(), "acc-1", "s", start); err != nil {
		f.Fatal(err)
	}
	f.Add(k.get(f, options))
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","attestationObject":"oA"}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		creation, assertion := auth.ParseKeyAnswers(answer)
		if (creation == nil || assertion == nil) && !json.Valid(answer) {
			t.Errorf("%q is read", answer)
		}
		if _, err := fs.UseKey(t.Context(), "acc-1", "s", answer, auth.Act{}, start); err == nil {
			t.Error("accepted")
		}
		if _, err := fs.UseAnyKey(t.Context(), "s", answer, auth.Act{}, start); err == nil {
			t.Error("accepted")
		}
		_, _, _ = fs.FinishBindKey(t.Context(), "acc-1", "t", answer, auth.Act{}, start)
	})
}
