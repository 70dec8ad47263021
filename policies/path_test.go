package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/policies"
)

func TestCanonicalPath(t *testing.T) {
	for _, tc := range []struct {
		name, raw, want string
		ambiguous       bool
	}{
		{"root", "/", "/", false},
		{"nothing", "", "/", false},
		{"plain", "/v2/my/tokens", "/v2/my/tokens", false},
		{"plain with punctuation", "/a-b_c~d!$&'()*+,=:@/x.js", "/a-b_c~d!$&'()*+,=:@/x.js", false},
		{"a trailing slash", "/login/", "/login", false},
		{"hidden files", "/.well-known/x", "/.well-known/x", false},
		{"three dots", "/...", "/...", false},
		{"capitals", "/LogIn", "/login", true},
		{"an encoded letter", "/log%69n", "/login", true},
		{"an encoded slash", "/v2%2fmy/tokens", "/v2/my/tokens", true},
		{"encoded twice", "/log%2569n", "/login", true},
		{"encoded six times", "/log%2525252525256Eot", "/lognot", true},
		{"an encoding within an encoding", "/log%%36%39n", "/login", true},
		{"a percent sign alone", "/100%", "/100%", false},
		{"a backslash", `/v2\me`, "/v2/me", true},
		{"an encoded backslash", "/v2%5Cme", "/v2/me", true},
		{"parameters", "/login;jsessionid=1", "/login", true},
		{"parameters within", "/v2;a=b/me", "/v2/me", true},
		{"encoded parameters", "/login%3Bx", "/login", true},
		{"double slashes", "//login", "/login", true},
		{"double slash at the end", "/login//", "/login", true},
		{"a dot", "/./login", "/login", true},
		{"a dot at the end", "/login/.", "/login", true},
		{"two dots", "/static/../login", "/login", true},
		{"two dots at the end", "/login/x/..", "/login", true},
		{"above the root", "/../../login", "/login", true},
		{"two dots with parameters", "/static/..;/login", "/login", true},
		{"encoded dots", "/static/%2e%2e/login", "/login", true},
		{"NUL cuts", "/login%00.png", "/login", true},
		{"a tab", "/log\tin", "/login", true},
		{"an encoded line break", "/log%0ain", "/login", true},
		{"an encoded query", "/login%3Fx=1", "/login", true},
		{"an encoded fragment", "/login%23x", "/login", true},
		{"no slash", "login", "/login", true},
		{"the Kelvin sign", "/to%E2%84%AAens", "/tokens", true},
		{"the long s", "/pa\u017f\u017fword", "/password", true},
		{"not UTF-8", "/login%c0%af", "/login\ufffd\ufffd", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ambiguous := policies.CanonicalPath(tc.raw)
			if got != tc.want || ambiguous != tc.ambiguous {
				t.Errorf("%q: got %q, %v, want %q, %v", tc.raw, got, ambiguous, tc.want, tc.ambiguous)
			}
		})
	}
}

func TestCanonicalPathTakesLinearTime(t *testing.T) {
	for name, raw := range map[string]string{
		"nested percent signs": "/%" + strings.Repeat("25", 1<<19) + "41",
		"segments":             strings.Repeat("/a/..", 1<<18),
		"slashes":              strings.Repeat("/", 1<<20),
		"deep":                 strings.Repeat("/a", 1<<19) + strings.Repeat("/..", 1<<18),
	} {
		begin := time.Now()
		policies.CanonicalPath(raw)
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s: %d bytes took %v", name, len(raw), took)
		}
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "", "/login", "/Log%2569n", `\..\x`, "/a;b/../c//", "/%00", "/\u212a", "/%c0%af", "%", "/%%36%39"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, ambiguous := policies.CanonicalPath(raw)
		if !strings.HasPrefix(c, "/") {
			t.Fatalf("%q: %q does not begin with a slash", raw, c)
		}
		if len(c) > 1 && strings.HasSuffix(c, "/") || strings.Contains(c, "//") || strings.ContainsAny(c, "\\;?#\x00\n\t") {
			t.Fatalf("%q: %q is not canonical", raw, c)
		}
		again, still := policies.CanonicalPath(c)
		if again != c || still {
			t.Fatalf("%q: %q became %q, ambiguous %v", raw, c, again, still)
		}
		if !ambiguous && raw != "" && raw != c && raw != c+"/" {
			t.Fatalf("%q: %q is said to be plain", raw, c)
		}
	})
}

func BenchmarkCanonicalPath(b *testing.B) {
	for name, raw := range map[string]string{"plain": "/v2/rooms/12345/messages", "coded": "/V2/rooms%2f12345/../messages;x=1"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				policies.CanonicalPath(raw)
			}
		})
	}
}
