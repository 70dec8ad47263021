package policies_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
	_ "time/tzdata" // the same zones on every machine

	"github.com/kidoban/kidoban/policies"
)

func clocks(t *testing.T, policy string) *policies.Clocks {
	t.Helper()
	p, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte(policy)}})
	if err != nil {
		t.Fatal(err)
	}
	return p.Clocks()
}

// What the policy says of an organization counts before what the directory says of an
// account, and that before the service's; each as summer has it there.
func TestClocks(t *testing.T) {
	c := clocks(t, "zone: Europe/Berlin\norganizations:\n  acme: {zone: Asia/Tokyo}\n  nyc: {zone: America/New_York}\n")
	winter, summer := time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC), time.Date(2026, 7, 5, 9, 0, 0, 0, time.UTC)
	between := time.Date(2026, 3, 20, 9, 0, 0, 0, time.UTC) // America's summer has begun, Europe's has not
	for _, test := range []struct {
		organization, zone string
		at                 time.Time
		service, local     int16 // minutes ahead of UTC
	}{
		{"", "", winter, 60, 60},
		{"", "", summer, 120, 120},
		{"acme", "", winter, 60, 540},
		{"acme", "", summer, 120, 540},
		{"acme", "America/New_York", winter, 60, 540},
		{"nyc", "", winter, 60, -300},
		{"nyc", "", between, 60, -240},
		{"nyc", "", summer, 120, -240},
		{"other", "America/New_York", between, 60, -240},
		{"other", "", winter, 60, 60},
		{"", "Asia/Kolkata", summer, 120, 330},
		{"other", "Asia/Tokio", summer, 120, 120},
		{"other", "Local", summer, 120, 120},
	} {
		for range 2 { // the second time from memory
			service, shift := c.Service(test.at), c.Shift(test.organization, test.zone, test.at)
			if service != test.service || service+shift != test.local {
				t.Errorf("%q, %q at %s: got %d and %d minutes ahead, want %d and %d", test.organization, test.zone, test.at, service, service+shift, test.service, test.local)
			}
		}
	}
	if shipped := clocks(t, "delay: 2s\n"); shipped.Service(summer) != 0 || shipped.Shift("acme", "", summer) != 0 {
		t.Error("as shipped the service's clock is not at UTC")
	}
	var none *policies.Clocks
	if none.Service(summer) != 0 || none.Shift("acme", "Asia/Tokyo", summer) != 0 {
		t.Error("no clocks are not at UTC")
	}
	if n := testing.AllocsPerRun(100, func() { c.Service(summer); c.Shift("other", "Asia/Kolkata", summer) }); n > 0 {
		t.Errorf("a clock allocates %g times, want none", n)
	}
}

func TestZoneFaults(t *testing.T) {
	for name, test := range map[string]struct{ yaml, want string }{
		"unknown":              {"delay: 2s\nzone: Asia/Tokio\n", `policy.yaml:2:7: zone: no time zone is called "Asia/Tokio": want a name of the IANA database, such as Asia/Tokyo`},
		"the machine's":        {"zone: Local\n", "policy.yaml:1:7"},
		"an offset":            {"zone: +09:00\n", "policy.yaml:1:7"},
		"empty":                {"zone:\n", "policy.yaml:1:6: zone is empty"},
		"of an organization":   {"organizations:\n  acme: {zone: JST-9}\n", "policy.yaml:2:16: zone: no time zone"},
		"organization without": {"organizations: {acme: {}}\n", `an organization needs the key "zone"`},
		"twice":                {"organizations: {acme: {zone: UTC}, acme: {zone: UTC}}\n", `organization "acme" is there twice`},
		"no mapping":           {"organizations: [acme]\n", "policy.yaml:1:16: organizations: want a mapping"},
	} {
		_, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte(test.yaml)}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
	}
}

// Names are whatever the backend says, asked for by many at once.
func TestClocksOfManyNames(t *testing.T) {
	c := clocks(t, "zone: UTC\n")
	at := time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 500 {
				if got := c.Shift("", fmt.Sprintf("No/Zone%d", i), at); got != 0 {
					t.Errorf("a zone that there is not: %d minutes ahead", got)
				}
				if got := c.Shift("", "Asia/Tokyo", at); got != 540 {
					t.Errorf("Asia/Tokyo: %d minutes ahead, want 540", got)
				}
			}
		})
	}
	all.Wait()
}
