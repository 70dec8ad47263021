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

// town is an hour of people, one in fifty in VN, of whom one in ten fails first, and then
// an attack of the same length beside them. met is told what the good ones meet then.
// Two in five have a device that the gate knows.
func town(set *detectors.Set, attacker func(at time.Time, n int) detectors.Event, met func(country string, signals []detectors.Signal)) {
	n := 0
	for at := monday; at.Before(monday.Add(2 * time.Hour)); at = at.Add(500 * time.Millisecond) {
		n++
		country := "JP"
		if n%50 == 0 {
			country = "VN"
		}
		e := from(at, country, n, browser)
		if n/50%5 < 2 {
			e.Device = detectors.Device{ID: "d", State: detectors.Trusted}
		}
		e = of(e, fmt.Sprint("u", n), 90*24*time.Hour)
		e.History = detectors.History{Logins: 3, Client: true, Network: country == "JP" && n%3 > 0, Operator: country == "JP", Capacity: n % 3}
		if n%10 == 7 {
			e.Outcome = detectors.Failure
			set.Observe(e)
		}
		if at.After(monday.Add(time.Hour)) {
			if e.Outcome = detectors.Unknown; !e.Device.Known() {
				met(country, set.Assess(e))
			}
			a := attacker(at, 1<<20+n)
			a.Time, a.Outcome = at.Add(time.Millisecond), detectors.Failure
			set.Observe(a)
		}
		e.Time, e.Outcome = at.Add(2*time.Millisecond), detectors.Success
		set.Observe(e)
	}
}

// While a program tries a list from a country, the few people who are there with their
// usual browsers look no worse for it.
func TestWhereIsNoReasonByItself(t *testing.T) {
	set := detectors.NewSet(detectors.NewCampaigns(detectors.CampaignsConfig{}))
	var most, alarms float64
	town(set, func(at time.Time, n int) detectors.Event { return from(at, "VN", n, program) },
		func(country string, signals []detectors.Signal) {
			alarms += value(signals, "campaign.alarm")
			if country == "VN" {
				most = max(most, value(signals, "campaign.odds"))
			}
		})
	if alarms == 0 || most >= 0.1 {
		t.Errorf("an attempt from abroad with a browser is an attack with up to %.3f in %.0f attempts during the alarm, want below 0.1", most, alarms)
	}
	late := monday.Add(2 * time.Hour)
	abroad, home := from(late, "VN", 5<<20, program), from(late, "JP", 6<<20, program)
	if a, b := value(set.Assess(abroad), "campaign.odds"), value(set.Assess(home), "campaign.odds"); a <= b {
		t.Errorf("the program from where it attacks: odds %.3f, from elsewhere %.3f; want more", a, b)
	}
}

// An attack with the browser that all have, from the country that most are in: those
// abroad, who are all in new places, are asked as often as the rest.
func TestKindsPayTheSameShare(t *testing.T) {
	set := detectors.NewSet(detectors.NewCampaigns(detectors.CampaignsConfig{}))
	good, asked := map[string]float64{}, map[string]float64{}
	town(set, func(at time.Time, n int) detectors.Event {
		e := from(at, "JP", n, browser)
		e.History.Logins = 3
		return e
	}, func(country string, signals []detectors.Signal) {
		if value(signals, "campaign.alarm") == 0 {
			return
		}
		good[country]++
		if value(signals, "campaign.rank") >= 0.93 {
			asked[country]++
		}
	})
	home, abroad := asked["JP"]/good["JP"], asked["VN"]/good["VN"]
	t.Logf("asked of strangers' devices: at home %.3f of %.0f, abroad %.3f of %.0f", home, good["JP"], abroad, good["VN"])
	if good["VN"] < 30 || abroad > 2*home+0.1 {
		t.Errorf("asked at home %.3f, abroad %.3f of %.0f; want about the same", home, abroad, good["VN"])
	}
}

// A gate that is new knows hardly anybody, and less and less log-ins are of strangers; who
// mistypes his name stays one. That is no attack; failures of strangers on top of it are.
func TestLearningIsNoAttack(t *testing.T) {
	set := detectors.Default(time.Time{})
	alarmed := func(at time.Time, n int) bool {
		for _, s := range set.Assess(from(at, "JP", n, browser)) {
			if s.Name == "campaign.alarm" {
				return true
			}
		}
		return false
	}
	const every, learned = 30 * time.Second, 14 * 24 * time.Hour
	n := 0
	day := func(begin time.Time, strangers float64) {
		for at := begin; at.Before(begin.Add(24 * time.Hour)); at = at.Add(every) {
			n++
			e := of(from(at, "JP", n, browser), fmt.Sprint("u", n), 90*24*time.Hour)
			e.Outcome = detectors.Success
			switch {
			case n%25 == 0:
				e.Account, e.Outcome = "", detectors.Failure
			case float64(n%100) >= 100*strangers:
				e.Device = detectors.Device{ID: "d", State: detectors.Trusted}
			}
			set.Observe(e)
			if n%120 == 0 && alarmed(at, n) {
				t.Fatalf("after %v an alarm, and nobody attacks", at.Sub(monday))
			}
		}
	}
	at := monday
	for ; at.Before(monday.Add(learned)); at = at.Add(24 * time.Hour) {
		day(at, 0.40-0.36*float64(at.Sub(monday))/float64(learned))
	}
	for tried := 0; !alarmed(at, n); at = at.Add(every) {
		n++
		e := of(from(at, "JP", n, browser), fmt.Sprint("u", n), 90*24*time.Hour)
		e.Device, e.Outcome = detectors.Device{ID: "d", State: detectors.Trusted}, detectors.Success
		if n%4 == 0 {
			e = from(at, "JP", n, browser)
			e.Outcome = detectors.Failure
			tried++
		}
		set.Observe(e)
		if tried == 300 {
			t.Fatal("300 failures of strangers, six times as many as are normal, and no alarm")
		}
	}
}

// Clients that log in every 40 minutes come to a gate that is new. That the later successes
// of an account count for less than its first must not look like failures that rise.
func TestClientsThatComeBackAreNoAttack(t *testing.T) {
	set := detectors.Default(time.Time{})
	const clients, every = 40_000, 40 * time.Minute
	for n := range 3 * clients {
		at := monday.Add(time.Duration(n) * every / clients)
		e := of(from(at, "JP", n%clients, browser), fmt.Sprint("u", n%clients), 90*24*time.Hour)
		if e.Outcome = detectors.Success; (n+n/clients)%12 == 0 {
			e.Outcome = detectors.Failure
		}
		set.Observe(e)
		if on := set.Alarms(at); len(on) > 0 {
			t.Fatalf("after %v an alarm, and nobody attacks: %v", at.Sub(monday), on)
		}
	}
}

// Who attacks has accounts of his own. However often he logs into them meanwhile, each
// counts once in a quarter of an hour, and his failures are not lost among his successes.
func TestOwnLogInsHideNothing(t *testing.T) {
	set := detectors.Default(time.Time{})
	person := func(at time.Time, n int) {
		e := of(from(at, "JP", n, browser), fmt.Sprint("u", n), 90*24*time.Hour)
		if e.Outcome = detectors.Success; n%25 == 0 {
			e.Outcome = detectors.Failure
		}
		set.Observe(e)
	}
	n, at := 0, monday
	for ; at.Before(monday.Add(24 * time.Hour)); at = at.Add(30 * time.Second) {
		n++
		person(at, n)
	}
	for tried := range 300 {
		at = at.Add(10 * time.Second)
		if n++; n%3 == 0 {
			person(at, n)
		}
		e := from(at, "JP", 1<<20+n, browser)
		e.Outcome = detectors.Failure
		set.Observe(e)
		for i := range 40 {
			own := of(from(at, "JP", 1<<21+n*40+i, browser), fmt.Sprint("own", (n*40+i)%200), 90*24*time.Hour)
			own.Outcome = detectors.Success
			if i%2 == 0 {
				own.Device = detectors.Device{ID: "d", State: detectors.Trusted}
			}
			set.Observe(own)
		}
		if tried > 250 && len(set.Alarms(at)) == 0 {
			t.Fatal("250 failures, nine times as many as are normal, and no alarm")
		}
	}
}
