package chat_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/chatcore/chat"
)

func TestEmailKey(t *testing.T) {
	for in, want := range map[string]string{
		"yoko.sato@aoba.example":     "yoko.sato@aoba.example",
		"  Yoko.SATO@Aoba.Example\n": "yoko.sato@aoba.example",
		"ｙｏｋｏ．ｓａｔｏ＠aoba.example":     "yoko.sato@aoba.example",
		"strasse@ß.example":          "strasse@ss.example",
		"":                           "",
	} {
		if got := chat.EmailKey(in); got != want {
			t.Errorf("EmailKey(%q) = %q, want %q", in, got, want)
		}
	}
	for r := range unicode.MaxRune + 1 {
		once := chat.EmailKey(string(r))
		if twice := chat.EmailKey(once); twice != once {
			t.Errorf("%U: %q, then %q", r, once, twice)
		}
		if upper := chat.EmailKey(string(unicode.ToLower(r))); unicode.ToUpper(unicode.ToLower(r)) == r && upper != once {
			t.Errorf("%U has the key %q, its lower case %q", r, once, upper)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "email")
		once := chat.EmailKey(s)
		if twice := chat.EmailKey(once); twice != once {
			t.Errorf("%q: %q, then %q", s, once, twice)
		}
	})
}

func TestNewPassword(t *testing.T) {
	for name, tt := range map[string]struct {
		in   string
		want error
	}{
		"eight":         {"12345678", nil},
		"seven":         {"1234567", chat.ErrPasswordShort},
		"eight kanji":   {"東西南北春夏秋冬", nil},
		"long":          {strings.Repeat("あ", 256), nil},
		"too long":      {strings.Repeat("a", 257), chat.ErrPasswordLong},
		"control":       {"1234567\x008", chat.ErrPasswordText},
		"not UTF-8":     {"1234567\xff8", chat.ErrPasswordText},
		"spaces are ok": {"a few short words", nil},
	} {
		if _, err := chat.NewPassword(tt.in); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	// か and a mark, or が: two ways to type one letter.
	if chat.PasswordKey("\u304b\u3099") != chat.PasswordKey("\u304c") {
		t.Error("one password has two keys")
	}
}

func TestAddressees(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		ids  []chat.AccountID
		all  bool
	}{
		"nobody":    {"hello [info]x[/info]", nil, false},
		"two":       {"[To:12]佐藤さん[To:34]\n[To:12]again", []chat.AccountID{12, 34}, false},
		"reply":     {"[rp aid=5 to=1-22]ok", []chat.AccountID{5}, false},
		"all":       {"[toall] 皆さま", nil, true},
		"code":      {"[code][To:1][/code]", nil, false},
		"quotation": {"[qt][qtmeta aid=9 time=1][To:1][toall][/qt] [To:2]", []chat.AccountID{2}, false},
		"nonsense":  {"[To:99999999999999999999999]", nil, false},
	} {
		ids, all := chat.Addressees(tt.body)
		if d := cmp.Diff(tt.ids, ids); d != "" || all != tt.all {
			t.Errorf("%s: all %v, %s", name, all, d)
		}
	}
}
