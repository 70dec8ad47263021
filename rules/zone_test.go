package rules_test

import (
	"os"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the same zones on every machine

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// The clock is that of its place, where it is put forward and back too.
func TestLocalTime(t *testing.T) {
	for _, test := range []struct {
		zone, at string
		hour     int
		weekday  time.Weekday
	}{
		{"UTC", "2026-01-05T09:00:00Z", 9, time.Monday},
		{"Asia/Tokyo", "2026-01-05T14:59:59Z", 23, time.Monday},
		{"Asia/Tokyo", "2026-01-05T15:00:00Z", 0, time.Tuesday},
		{"Asia/Kathmandu", "2026-01-05T18:14:59Z", 23, time.Monday}, // 5:45 ahead
		{"Asia/Kathmandu", "2026-01-05T18:15:00Z", 0, time.Tuesday},
		{"Pacific/Kiritimati", "2026-01-03T10:00:00Z", 0, time.Sunday},
		{"Pacific/Pago_Pago", "2026-01-05T10:59:59Z", 23, time.Sunday},
		// Summer time of America begins on 8 March 2026 at 2:00, and ends on 1 November at 2:00.
		{"America/New_York", "2026-03-08T06:59:59Z", 1, time.Sunday},
		{"America/New_York", "2026-03-08T07:00:00Z", 3, time.Sunday},
		{"America/New_York", "2026-11-01T05:59:59Z", 1, time.Sunday},
		{"America/New_York", "2026-11-01T06:00:00Z", 1, time.Sunday},
		{"America/New_York", "2026-11-01T07:00:00Z", 2, time.Sunday},
		// Lord Howe moves by half an hour.
		{"Australia/Lord_Howe", "2026-04-04T14:59:59Z", 1, time.Sunday},
		{"Australia/Lord_Howe", "2026-04-04T15:29:59Z", 1, time.Sunday},
		{"Australia/Lord_Howe", "2026-04-04T15:30:00Z", 2, time.Sunday},
		{"Europe/London", "2026-07-05T23:00:00Z", 0, time.Monday},
	} {
		zone, err := rules.Zone(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		ahead := rules.Ahead(zone, at)
		for _, e := range []detectors.Event{
			{Time: at, Offset: ahead},
			{Time: at, Offset: ahead + 330, Shift: -330},
			{Time: at.In(time.FixedZone("", 3600)), Offset: ahead},
		} {
			if local := e.Local(); local.Hour() != test.hour || local.Weekday() != test.weekday {
				t.Errorf("%s at %s: got %s %d o'clock, want %s %d", test.zone, test.at, local.Weekday(), local.Hour(), test.weekday, test.hour)
			}
		}
	}
}

func TestZone(t *testing.T) {
	for _, name := range []string{"", "Local", "Asia/Tokio", "+09:00", "JST-9", "../UTC", "/etc/localtime", strings.Repeat("x", 1000)} {
		zone, err := rules.Zone(name)
		if err == nil || !strings.Contains(err.Error(), "Asia/Tokyo") || len(err.Error()) > 200 {
			t.Errorf("%.20q: got %v, %v; want an error that says what to write", name, zone, err)
		}
	}
}

// TestNight plays the tests of a rule that asks for local time, and then one night.
func TestNight(t *testing.T) {
	night, err := os.ReadFile("testdata/night.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set := load(t, "night.yaml", string(night))
	tokyo, err := rules.Zone("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for hour := range 24 {
		e := detectors.Event{Time: time.Date(2026, 1, 7, hour, 30, 0, 0, tokyo), Kind: detectors.Login, Outcome: detectors.Success, Offset: 60, Shift: 480}
		if len(set.Evaluate(rules.LoginAfter, e, nil)) > 0 {
			found = append(found, hour)
		}
	}
	if len(found) != 6 || found[0] != 0 || found[5] != 5 {
		t.Errorf("the rule matches at %v, want from 0 to 5 o'clock", found)
	}
	// What is asked of it is found out without a copy of anything.
	head, _, _ := strings.Cut(string(night), "when:")
	var allocated [2]float64
	for i, when := range []string{"source.asn == 4", "local.hour == 4"} {
		set := load(t, "one.yaml", head+"when: "+when+`
then: [{tag: night}]
mode: shadow
tests: [{name: four, given: [{outcome: success, zone: America/New_York, asn: 4}], expect: match}, {name: nine, given: [{outcome: success}], expect: none}]
`)
		e := detectors.Event{Time: monday, Kind: detectors.Login, Outcome: detectors.Success, Offset: 540}
		allocated[i] = testing.AllocsPerRun(100, func() { set.Evaluate(rules.LoginAfter, e, nil) })
	}
	if allocated[1] > allocated[0] {
		t.Errorf("a rule that asks for local time allocates %g times, one that asks for a number of the event %g times", allocated[1], allocated[0])
	}
	sum := strings.NewReplacer("count: events", "sum: local.hour", "when: tried >= 3", "when: tried >= 3.0").Replace(good(t))
	if _, errs := rules.Load(folder("a.yaml", sum)); len(errs) != 1 || !strings.Contains(errs[0].Error(), "local.hour") {
		t.Errorf("hours added up: got %v", errs)
	}
}
