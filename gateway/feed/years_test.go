package feed_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/feed"
)

func TestYears(t *testing.T) {
	day := func(s string) time.Time {
		at, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		name   string
		now    string
		year   int
		stamps string
		want   string
	}{
		{"this year", "2026-11-25", 0, "Nov 24", "2026-11-24"},
		{"tomorrow somewhere", "2026-11-25", 0, "Nov 25", "2026-11-25"},
		{"not yet this year", "2026-11-25", 0, "Dec  1", "2025-12-01"},
		{"over New Year", "2026-11-25", 0, "Dec 31,Jan  1,Dec 31,Jan  2", "2025-12-31 2026-01-01 2025-12-31 2026-01-02"},
		{"over several years", "2026-11-25", 2020, "Nov  1,Feb  1,Sep  1,Feb  1", "2020-11-01 2021-02-01 2021-09-01 2022-02-01"},
		{"half a year of silence", "2026-11-25", 2024, "Jan 10,Aug  1", "2024-01-10 2024-08-01"},
		{"a leap day in the past", "2026-11-25", 0, "Feb 29", "2024-02-29"},
		{"no leap day in that year", "2026-11-25", 2025, "Feb 29", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			for s := range strings.SplitSeq(c.stamps, ",") {
				log.WriteString(s + " 10:00:00 host sshd[1]: Failed password for root from 192.0.2.1 port 1 ssh2\n")
			}
			// Attempts are returned in their order; the ids tell which lines they are of.
			all, _, _ := read(t, strings.NewReader(log.String()), "sshd", feed.Options{Year: c.year, Now: day(c.now)})
			got := make([]string, len(all))
			for _, a := range all {
				got[a.Number-1] = a.Event.Time.Format(time.DateOnly)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
}
