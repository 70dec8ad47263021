package feed_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the same zones on every machine

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/feed"
)

// An attempt shows the clock of its zone as it was at its time, also where that time is
// taken from another line.
func TestZones(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	log := strings.Join([]string{
		`{"id":"winter","time":"2026-03-08T06:59:59Z","zone":"America/New_York"}`,
		`{"id":"summer","time":"2026-03-08T07:00:00Z","zone":"America/New_York"}`,
		`{"id":"no time","tz":"Asia/Kolkata"}`,
		`{"id":"no zone","time":"2026-03-29T00:59:59Z","zone":null}`,
		`{"id":"no such zone","time":"2026-03-29T01:00:00Z","timezone":"Asia/Tokio"}`,
		`{"id":"again","time":"2026-03-29T01:00:00Z","timezone":"Asia/Tokio","zone":""}`,
		`{"id":"no name","time":"2026-03-29T01:00:01Z","zone":9}`,
		`{"id":"late","time":"2026-03-08T06:00:00Z","zone":"America/New_York"}`, // taken as at the time of the one before it
	}, "\n")
	for _, test := range []struct {
		zone *time.Location
		want []string
	}{
		{nil, []string{"1:59 winter", "3:00 summer", "12:30 no time", "3:00 late", "0:59 no zone", "1:00 no such zone", "1:00 again"}},
		{berlin, []string{"1:59 winter", "3:00 summer", "12:30 no time", "3:00 late", "1:59 no zone", "3:00 no such zone", "3:00 again"}},
	} {
		all, told, counts := read(t, strings.NewReader(log), "jsonl", feed.Options{Zone: test.zone})
		var got []string
		for _, a := range all {
			local := a.Event.Local()
			got = append(got, fmt.Sprintf("%d:%02d %s", local.Hour(), local.Minute(), strings.Trim(string(a.ID), `"`)))
		}
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("in %v (-want +got)\n%s", test.zone, d)
		}
		if text := strings.Join(told, "\n"); counts.Faults != 1 || strings.Count(text, `zone "Asia/Tokio": taken as unknown, want a name of the IANA database`) != 2 {
			t.Errorf("told: %d faults\n%s", counts.Faults, text)
		}
	}
}
