package breached_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/breached"
)

func TestPairs(t *testing.T) {
	for name, c := range map[string]struct {
		format, text string
		want         []string
		unreadable   int
	}{
		"colon":        {"colon", "alice:pa:ss\r\nbob@example.com:x;y\nlast:", []string{"alice", "bob@example.com", "last"}, 0},
		"auto":         {"auto", "alice;pa:ss\nbob,pa;ss\ncarol\tpw\ndan:pw\n", []string{"alice", "bob", "carol", "dan"}, 0},
		"csv":          {"csv", "\ufeffemail,password\n\"a@example.com\",\"x,\"\"y\"\n\"broken\n\"b\"c,pw\n", []string{"email", "a@example.com"}, 2},
		"quoted colon": {"colon", `"alice":pw`, []string{`"alice"`}, 0},
		"unreadable":   {"auto", "\nalone\n:pw\n\xff\xfe:pw\n" + strings.Repeat("n", 321) + ":pw\n  alice : pw\n", []string{"alice"}, 5},
		"long lines":   {"auto", "alice:" + strings.Repeat("x", 10_000) + "\nbob:pw\n", []string{"bob"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			read, err := breached.Pairs(t.Context(), strings.NewReader(c.text), c.format, func(name string) error { got = append(got, name); return nil })
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			if read.Unreadable != c.unreadable || read.Lines != len(c.want)+c.unreadable {
				t.Errorf("= %+v, want %d unreadable of %d lines", read, c.unreadable, len(c.want)+c.unreadable)
			}
		})
	}
	if _, err := breached.Pairs(t.Context(), strings.NewReader("a:b"), "xml", nil); err == nil {
		t.Error("an unknown format was taken")
	}
	stop := errors.New("stop")
	if _, err := breached.Pairs(t.Context(), strings.NewReader("a:b\n"), "auto", func(string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("= %v, want what take said", err)
	}
	if read, err := breached.Pairs(t.Context(), io.LimitReader(endless{}, 1<<26), "auto", func(string) error { return nil }); err == nil || read.Lines != 10_000_001 {
		t.Errorf("a list without an end: %+v, %v", read, err)
	}
}

// endless is a list of one-letter pairs.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return copy(b, strings.Repeat("a:b\n", len(b)/4+1)), nil }

// FuzzPairs: no list breaks the reader, and every line is a name or unreadable.
func FuzzPairs(f *testing.F) {
	f.Add("auto", "alice:pw\nbob;pw")
	f.Add("csv", "\"a\",b\n")
	f.Fuzz(func(t *testing.T, format, text string) {
		names := 0
		read, err := breached.Pairs(t.Context(), strings.NewReader(text), format, func(name string) error {
			if names++; name == "" || !strings.Contains(text, name) {
				t.Errorf("the name %q", name)
			}
			return nil
		})
		if err == nil && read.Lines != names+read.Unreadable {
			t.Errorf("%d names and %+v", names, read)
		}
	})
}
