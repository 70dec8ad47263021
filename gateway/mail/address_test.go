package mail_test

import (
	"bytes"
	stdmail "net/mail"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/policies"
)

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, test := range []struct{ in, want string }{
		{"ann@example.com", "ann@example.com"},
		{"Ann.O'Hara+chat=x@Example.COM", "Ann.O'Hara+chat=x@example.com"},
		{"ann@mail-1.example", "ann@mail-1.example"},
		{"root@localhost", "root@localhost"},
		{"ann@例え.jp", "ann@xn--r8jz45g.jp"},
		{"ann@xn--r8jz45g.jp", "ann@xn--r8jz45g.jp"},
		{"山田@example.jp", "山田@example.jp"},
		{"jo\u0308rg@example.com", "j\u00f6rg@example.com"},
		{"ann@bücher.example", "ann@xn--bcher-kva.example"},
		{long + "@example.com", long + "@example.com"},

		{"", ""}, {"ann", ""}, {"@example.com", ""}, {"ann@", ""}, {"ann@@example.com", ""}, {"a@b@example.com", ""},
		{"ann@example.com\r\nBcc: x@example.com", ""}, {"ann\r\n@example.com", ""}, {"ann@example.com\n", ""}, {"ann\x00@example.com", ""},
		{"ann@example.com>", ""}, {"<ann@example.com>", ""}, {"Ann <ann@example.com>", ""}, {"ann@example.com, ben@example.com", ""},
		{"ann@example.com (comment)", ""}, {`"ann b"@example.com`, ""}, {`ann\@example.com`, ""}, {"ann b@example.com", ""},
		{"a..b@example.com", ""}, {".ann@example.com", ""}, {"ann.@example.com", ""},
		{"ann@[192.0.2.1]", ""}, {"ann@192.0.2.1", ""}, {"ann@[IPv6:::1]", ""}, {"ann@exa mple.com", ""}, {"ann@example.com.", ""}, {"ann@.example.com", ""}, {"ann@example..com", ""},
		{"ann@-example.com", ""}, {"ann@exam_ple.com", ""}, {"ann@example.com SIZE=1", ""},
		{"ann\u202e@example.com", ""}, {"ann\u200b@example.com", ""}, {"ann@exam\u200bple.com\u2066", ""}, {"ann\u3000@example.com", ""}, {"😀@example.com", ""},
		{"ann\xff@example.com", ""}, {"ann@ex\xffample.com", ""},
		{long + "a@example.com", ""}, {"ann@" + long + ".com", ""}, {"ann@" + strings.Repeat(long[:60]+".", 4) + "example.com", ""}, {"ann@" + strings.Repeat("a", 1<<20), ""},
	} {
		got, err := mail.ParseAddress(test.in)
		if test.want == "" && err == nil || test.want != "" && (err != nil || got.String() != test.want) {
			t.Errorf("%.100q: got %q, %v; want %q", test.in, got, err, test.want)
		}
		if err != nil && len(test.in) > 0 && strings.Contains(err.Error(), test.in) {
			t.Errorf("the error repeats the address: %v", err)
		}
	}
}

func TestClean(t *testing.T) {
	for _, test := range []struct {
		in   string
		most int
		want string
	}{
		{"  a \t b\r\nc\u2028d ", 100, "a b c d"},
		{"a\u202eb\u2066c\u200bd\ufeffe\u061cf\u00adg\x7f", 100, "a b c d e f g"},
		{"山田　太郎", 100, "山田 太郎"},
		{"a\xffb\x00c", 100, "a b c"},
		{"abcdef", 6, "abcdef"}, {"abcdefg", 6, "abcde…"}, {"あいうえお", 3, "あい…"}, {"", 5, ""}, {"\r\n", 5, ""},
	} {
		if got := mail.Clean(test.in, test.most); got != test.want {
			t.Errorf("%q: got %q, want %q", test.in, got, test.want)
		}
	}
}

// FuzzAddress shows that whatever is taken for an address is one address, for an
// envelope, for a header and for Go's own reader.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"ann@example.com", "山田@例え.jp", "a@b\r\nRCPT TO:<c@d>", `"a b"@c`, "a@[1.2.3.4]", "a\u202e@b.c", "<a@b>,c@d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		a, err := mail.ParseAddress(in)
		if err != nil {
			return
		}
		s := a.String()
		if strings.ContainsAny(s, " <>\"(),:;\\[]\r\n\t\x00") || strings.Count(s, "@") != 1 || len(s) > 254 || !utf8.ValidString(s) {
			t.Errorf("%q became %q", in, s)
		}
		if again, err := mail.ParseAddress(s); err != nil || again != a {
			t.Errorf("%q became %q, and that %q, %v", in, s, again, err)
		}
		if got, err := stdmail.ParseAddressList(s); err != nil || len(got) != 1 || got[0].Address != s || got[0].Name != "" {
			t.Errorf("%q: Go reads %v, %v", s, got, err)
		}
	})
}

// FuzzMessage shows that no value changes the form of a message.
func FuzzMessage(f *testing.F) {
	f.Add(uint8(0), "ann@example.com", "x\r\nBcc: y@example.com", "en", "<m@kidoban>")
	f.Add(uint8(9), "山田@例え.jp", "\r\n\r\n.\r\nQUIT", "ja", "<\r\n>")
	f.Add(uint8(3), "ann@example.com", "=?utf-8?q?=0d=0aBcc:_x?=\n| a\n\n# 1\n> http://x", "ja,en;q=0.1", "")
	f.Fuzz(func(t *testing.T, which uint8, to, text, language, id string) {
		names := mail.Templates()
		n := notice(names[int(which)%len(names)], language)
		n.MessageID, n.State = id, policies.Uncertain
		for _, value := range []string{"account", "client", "name", "by", "decision", "scope", "value", "action", "origin", "rule", "reason", "incident", "category", "mode", "lifted_by", "factor", "about"} {
			n.Values[value] = text + "."
		}
		raw, err := mailer(t, nil).Compose(to, n)
		if err != nil {
			if _, bad := mail.ParseAddress(to); bad == nil {
				t.Fatal(err)
			}
			return
		}
		l := parsed(t, raw)
		if len(l.header) != 11 {
			t.Errorf("%d header fields: %v", len(l.header), l.header)
		}
		for name, fields := range l.header {
			if len(fields) != 1 {
				t.Errorf("%s: %q", name, fields)
			}
		}
		if strings.Count(l.html, "<h1") != 1 || strings.Count(l.html, "</html>") != 1 || bytes.Count(raw, []byte("\r\n\r\n.\r\n")) > 0 {
			t.Errorf("markup came through:\n%s", l.html)
		}
	})
}
