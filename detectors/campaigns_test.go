package detectors_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

var (
	browser = detectors.Client{JA4: "t13d1516h2_8daaf6152771_d8a2da3f94cd", Headers: "5b1f0c2d9a34", Family: "chrome"}
	program = detectors.Client{JA4: "t13i1810h1_85036bcba153_b26ce05bbdd6", Headers: "0d4c1b77e6aa", Family: "python-requests"}
)

// from is an attempt of somebody in a country, on a line of his own.
func from(at time.Time, country string, n int, c detectors.Client) detectors.Event {
	e := attempt(at, netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)}).String(), fmt.Sprintf("user%d@acme.example", n), detectors.Unknown)
	e.Source.Country, e.Source.ASN = country, map[string]uint32{"JP": 65536, "VN": 65537}[country]
	e.Client, e.Fingerprint = c, c.Fingerprint()
	return e
}

// Who is seen for the first time is an account as soon as the password was right, and
// nobody before it. What an attempt shows must not change with its outcome, or new people
// never succeed with what they show.
func TestNewPeopleShowTheSameBeforeAndAfter(t *testing.T) {
	set := detectors.Default(time.Time{})
	for _, people := range []string{"new", "known"} {
		before := set.Facts(from(monday, "JP", 7, browser))
		after := of(from(monday, "JP", 7, browser), "hanako", 0)
		if people == "known" {
			before = set.Facts(of(from(monday, "JP", 7, browser), "hanako", 0))
		}
		after.Existence, after.Outcome = detectors.Exists, detectors.Success
		after = set.Facts(after)
		if got, want := detectors.ValuesOf(after), detectors.ValuesOf(before); got != want {
			t.Errorf("%s people: after a success %x, before it %x", people, got, want)
		}
		set.Observe(after)
	}
}
