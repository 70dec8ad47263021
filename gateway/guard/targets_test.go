package guard

import (
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/attempt"
)

func TestMailboxes(t *testing.T) {
	for _, test := range []struct {
		field string
		want  []string // folded
	}{
		{"alice@example.com", []string{"alice@example.com"}},
		{" Alice＠EXAMPLE.com ", []string{"alice@example.com"}},
		{"a.l.ice+chat+2@example.com", []string{"alice@example.com"}},
		{"Alice <alice@example.com>", []string{"alice@example.com"}},
		{`"Liddell, Alice" <mailto:alice@example.com.>`, []string{"alice@example.com"}},
		{"alice@example.com, bob@example.com;carol@example.com\r\ndave@example.com", []string{
			"alice@example.com", "bob@example.com", "carol@example.com", "dave@example.com"}},
		{"+chat@example.com", []string{"+chat@example.com"}},
		{"alice", []string{"alice"}},
		{"Alice Liddell", []string{"alice liddell"}},
		{"@example.com", []string{"@example.com"}},
		{"a.b", []string{"a.b"}},
		{"", nil},
		{" \u200b ", nil},
	} {
		var got []string
		for _, m := range mailboxes(test.field) {
			got = append(got, m.folded)
		}
		if strings.Join(got, " ") != strings.Join(test.want, " ") {
			t.Errorf("mailboxes(%q) = %q, want %q", test.field, got, test.want)
		}
	}
	if n := len(mailboxes(strings.Repeat("a@b,", 16<<10))); n != attempt.MaxPairs+1 {
		t.Errorf("of many addresses %d are looked at, want %d", n, attempt.MaxPairs+1)
	}
	if m := mailboxes("A.lice+1@example.com")[0]; m.name != "a.lice+1@example.com" {
		t.Errorf("the name is %q: a login counts it as it was written", m.name)
	}
}

func FuzzMailboxes(f *testing.F) {
	f.Add("Alice <a.b+c@example.com>, mailto:x@y.")
	f.Fuzz(func(t *testing.T, field string) {
		all := mailboxes(field)
		if len(all) > attempt.MaxPairs+1 {
			t.Fatalf("%d mailboxes", len(all))
		}
		for _, m := range all {
			again := mailboxes(m.folded)
			if strings.ContainsFunc(m.folded, between) {
				continue // a name with blanks
			}
			if m.folded == "" || len(again) != 1 || again[0].folded != m.folded {
				t.Errorf("%q is folded to %q, and that to %v", field, m.folded, again)
			}
		}
	})
}
