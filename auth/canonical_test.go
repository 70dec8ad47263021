package auth_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/kidoban/kidoban/auth"
)

func TestCanonicalName(t *testing.T) {
	for _, test := range []struct{ name, typed, want string }{
		{"nothing", "", ""},
		{"an address", "hanako@acme.example", "hanako@acme.example"},
		{"capital letters", "Hanako@ACME.example", "hanako@acme.example"},
		{"blanks around", " \thanako \r\n", "hanako"},
		{"blanks inside", "hanako   yamada\u3000x", "hanako yamada x"},
		{"only blanks", " \u00a0\u2003\u3000", ""},
		{"full width letters", "\uff28\uff21\uff2e\uff21@acme", "hana@acme"},
		{"full width at sign and dot", "hana\uff20acme\uff0eexample", "hana@acme.example"},
		{"half width kana", "\uff8a\uff85\uff7a", "\u30cf\u30ca\u30b3"},
		{"half width kana with voice mark", "\uff76\uff9e", "\u30ac"},
		{"decomposed kana", "\u30ab\u3099", "\u30ac"},
		{"decomposed accent", "rene\u0301", "ren\u00e9"},
		{"ligature", "\ufb01sh", "fish"},
		{"sharp s", "Stra\u00dfe", "strasse"},
		{"capital sharp s", "STRA\u1e9eE", "strasse"},
		{"final sigma", "\u03a3\u03c2\u03c3", "\u03c3\u03c3\u03c3"},
		{"Kelvin sign", "\u212a", "k"},
		{"Turkish capital I with a dot", "\u0130", "i\u0307"},
		{"Turkish small i without a dot stays another letter", "\u0131", "\u0131"},
		{"capital I is i, in Turkey too", "ISTANBUL", "istanbul"},
		{"zero width space", "ha\u200bna", "hana"},
		{"zero width joiner and non-joiner", "h\u200da\u200cna", "hana"},
		{"byte order mark", "\ufeffhana", "hana"},
		{"soft hyphen", "ha\u00adna", "hana"},
		{"direction marks", "\u202ehana\u202c", "hana"},
		{"variation selectors", "h\ufe0fa\U000e0100na", "hana"},
		{"tags", "hana\U000e0041", "hana"},
		{"hangul filler", "ha\u3164na", "hana"},
		{"grapheme joiner", "ha\u034fna", "hana"},
		{"control characters", "ha\x00n\x1ba\x7f", "hana"},
		{"zero width between letter and accent", "e\u200b\u0301", "\u00e9"},
		{"only what cannot be seen", "\u200b\ufeff\x00", ""},
		{"another script stays", "\u0430dmin", "\u0430dmin"},
		{"not UTF-8", "ha\xffna", "ha\ufffdna"},
		{"320 letters", strings.Repeat("a", 320), strings.Repeat("a", 320)},
		{"321 letters", strings.Repeat("a", 321), strings.Repeat("a", 320)},
		{"321 wide letters", strings.Repeat("\u5c71", 321), strings.Repeat("\u5c71", 320)},
		{"a blank at the bound", strings.Repeat("a", 319) + " b", strings.Repeat("a", 319)},
		{"what cannot be seen does not count", strings.Repeat("\u200b", 400) + "hana", "hana"},
		{"what is behind 4,096 bytes does not count", strings.Repeat("\u200b", 1400) + "hana", ""},
		{"one rune that becomes many", strings.Repeat("\ufdfa", 100), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := auth.CanonicalName(test.typed)
			if test.name == "one rune that becomes many" {
				if n := utf8.RuneCountInString(got); n > auth.CanonicalMax {
					t.Errorf("got %d runes, want at most %d", n, auth.CanonicalMax)
				}
				return
			}
			if got != test.want {
				t.Errorf("got %+q, want %+q", got, test.want)
			}
		})
	}
}

func FuzzCanonicalName(f *testing.F) {
	for _, s := range []string{
		"", "Hanako@ACME.example", "\u0130", "e\u200b\u0301", "\ufdfa", "a\u0301\u0315\u0300", "\u1fb3", "\u0345a\u0345",
		"\u03b1\u0345\u0301", strings.Repeat("\u0301", 40), "a" + strings.Repeat("\u0323\u0301", 33), "\xff\xfe", "\u1100\u1161\u11a8", "\u01c5",
		strings.Repeat("a", 319) + " \u0301", strings.Repeat("\u0390", 200), "\u0f77\u0f71", "\u0958\u200d\u0959",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		got := auth.CanonicalName(typed)
		if again := auth.CanonicalName(got); again != got {
			t.Errorf("%+q becomes %+q and that %+q", typed, got, again)
		}
		if n := utf8.RuneCountInString(got); n > auth.CanonicalMax || !utf8.ValidString(got) {
			t.Errorf("%+q becomes %d runes, valid: %v", typed, n, utf8.ValidString(got))
		}
		if strings.TrimSpace(got) != got || strings.Contains(got, "  ") {
			t.Errorf("%+q keeps blanks: %+q", typed, got)
		}
		for _, r := range got {
			if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Variation_Selector) {
				t.Errorf("%+q keeps %U", typed, r)
			}
		}
		if len(typed) <= 100 {
			if same := auth.CanonicalName(norm.NFD.String(typed)); utf8.ValidString(typed) && utf8.RuneCountInString(got) < auth.CanonicalMax && same != got {
				t.Errorf("%+q and its decomposition become %+q and %+q", typed, got, same)
			}
		}
	})
}

func BenchmarkCanonicalName(b *testing.B) {
	for name, typed := range map[string]string{"plain": "hanako@acme.example", "folded": "Hanako@ACME.example", "hostile": strings.Repeat("\ufdfa\u0301", 2000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				auth.CanonicalName(typed)
			}
		})
	}
}
