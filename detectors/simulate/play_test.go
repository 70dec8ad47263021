package simulate_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io/fs"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
)

// everything has a crowd and an attack of each kind.
const everything = `
id: everything
title: {en: everything, ja: everything}
story: {en: everything, ja: everything}
form: plain
start: 2026-11-30T08:00:00+09:00
warm: 2h
length: 2d
town: {people: 2000, companies: 40, log_ins: 2, mention: 5, thin: 3, addresses: 16, stale: 0.002}
crowds:
  - {kind: office, from: 1h, length: 15m, people: 200, mistype: 0.1, device: 0.9, sources: 1}
  - {kind: newcomers, from: 2h, length: 1h, people: 50, mistype: 0.1, sources: 1}
  - {kind: carrier, from: 3h, length: 2h, people: 200, mistype: 0.1, device: 0.9, sources: 8}
  - {kind: loops, from: 4h, length: 1h, people: 2, sources: 1}
  - {kind: forgotten, from: 5h, length: 1h, people: 5, tries: 30, variants: 6, sources: 1}
  - {kind: storm, from: 6h, length: 1m, people: 1, rate: 10, sources: 1}
  - {kind: roaming, from: 0s, length: 2d, people: 100, mistype: 0.1, device: 0.9, sources: 1}
attacks:
  - {kind: list, from: 1h, length: 10h, attempts: 2000, sources: 700, network: homes, client: browsers, hit: 0.02, unknown: 0.2, own: 20, per_day: 7}
  - {kind: spray, from: 1h, length: 10h, attempts: 2000, sources: 12, network: hosting, client: tools, hit: 0.01, unknown: 0.1, passwords: 20}
  - {kind: spray, from: 1h, length: 10h, attempts: 1000, sources: 50, network: world, client: browser, unknown: 0.1, uses: 20}
  - {kind: spray, from: 1h, length: 10h, attempts: 500, sources: 50, network: world, client: browser, unknown: 0.1, words: true, uses: 12}
  - {kind: crack, from: 1h, length: 1d, attempts: 500, sources: 20, network: world, client: tool, victims: 2}
  - {kind: names, from: 1h, length: 5h, attempts: 500, sources: 1, network: hosting, client: tool, unknown: 0.8, sorted: true}
  - {kind: tenants, from: 1h, length: 5h, attempts: 300, sources: 30, network: homes, client: tool, hit: 0.05, victims: 40}
  - {kind: list, from: 1h, length: 1d, attempts: 400, sources: 100, network: office, client: tool, hit: 0.01, every: 6h}
  - {kind: list, from: 1h, length: 2h, attempts: 300, sources: 300, network: v6/64, client: tool}
  - {kind: list, from: 1h, length: 2h, attempts: 300, sources: 300, network: v6/48, client: tool}
  - {kind: list, from: 1h, length: 2h, attempts: 300, sources: 300, network: v6/32, client: tool}
`

// listener hashes all that a defense is told, and steps up every seventh attempt and
// refuses every eleventh.
type listener struct {
	t        testing.TB
	sum      hash.Hash
	events   int
	last     time.Time
	before   time.Time // history ends here
	pending  *detectors.Event
	answered simulate.Action
}

func (l *listener) hear(what string, e *detectors.Event) {
	if ahead := e.Local().Sub(e.Time); ahead != 9*time.Hour {
		l.t.Fatalf("%s an attempt clocks are ahead of UTC by %s, want as in Tokyo", what, ahead)
	}
	text, err := json.Marshal(e)
	if err != nil {
		l.t.Fatal(err)
	}
	l.sum.Write([]byte(what))
	l.sum.Write(text)
}

func (l *listener) Before(e *detectors.Event) simulate.Action {
	l.hear("before", e)
	if e.Time.Before(l.last) {
		l.t.Fatalf("%v comes after %v", e.Time, l.last)
	}
	if e.Outcome != "" && e.Outcome != detectors.Unknown {
		l.t.Fatalf("the outcome %s is known before", e.Outcome)
	}
	l.last, l.pending = e.Time, e
	l.events++
	l.answered = simulate.Allow
	switch {
	case l.events%11 == 0:
		l.answered = simulate.Refuse
	case l.events%7 == 0:
		l.answered = simulate.StepUp
	}
	return l.answered
}

func (l *listener) After(e *detectors.Event) simulate.Action {
	l.hear("after", e)
	if e.Kind == detectors.Session { // nobody is asked before
		return simulate.Allow
	}
	switch {
	case l.pending == nil || l.pending.Key != e.Key:
		l.t.Fatalf("%v ends and did not begin", e.Key)
	case (e.Outcome == detectors.Refused) != (l.answered == simulate.Refuse):
		l.t.Fatalf("after %s the outcome is %s", l.answered, e.Outcome)
	case e.Unproven != (l.answered == simulate.StepUp && e.Outcome == detectors.Success):
		l.t.Fatalf("after %s a %s is unproven: %v", l.answered, e.Outcome, e.Unproven)
	case e.Outcome == detectors.Success && e.Account == "":
		l.t.Fatal("nobody's account succeeds")
	}
	l.pending = nil
	return simulate.Allow
}

func (l *listener) Proved(e *detectors.Event) { l.hear("proved", e) }
func (l *listener) Learn(e *detectors.Event) {
	l.hear("learn", e)
	if !e.Time.Before(l.before) {
		l.t.Fatalf("history at %v, after its end at %v", e.Time, l.before)
	}
}
func (l *listener) Alarms(time.Time) []string { return nil }

// heard is the hash of what a defense is told of a run, and its result.
func heard(t testing.TB, s simulate.Scenario, seed uint64) (string, simulate.Result) {
	t.Helper()
	l := &listener{t: t, sum: sha256.New(), before: s.Start.Add(-time.Duration(s.Warm))}
	r, err := simulate.Run(t.Context(), s, seed, "listener", l)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(l.sum.Sum(nil)), r
}

func TestRunRepeats(t *testing.T) {
	s := decoded(t, everything)
	one, result := heard(t, s, 1)
	again, same := heard(t, s, 1)
	if one != again {
		t.Error("one seed made two streams of events")
	}
	if d := cmp.Diff(result, same); d != "" {
		t.Errorf("one seed made two results:\n%s", d)
	}
	if other, _ := heard(t, s, 2); other == one {
		t.Error("two seeds made one stream of events")
	}
	if drawn, _ := heard(t, s.Draw(1, 0.5), 1); drawn == one {
		t.Error("other numbers made the same stream of events")
	}
	if d := cmp.Diff(s.Draw(1, 0.5).Raids, s.Draw(1, 0.5).Raids); d != "" {
		t.Errorf("one seed drew two sets of numbers:\n%s", d)
	}
}

// truths are those of a run without a defense.
func truths(t testing.TB, s simulate.Scenario, seed uint64) (all []simulate.Truth, r simulate.Result) {
	t.Helper()
	r, err := simulate.Run(t.Context(), s, seed, "none", simulate.Watch(simulate.Baselines()[0].New(), func(x simulate.Truth) { all = append(all, x) }))
	if err != nil {
		t.Fatal(err)
	}
	return all, r
}

// near reports whether a share of n is what was wanted, but for five standard errors.
func near(t *testing.T, what string, k, n int, want float64) {
	t.Helper()
	got := float64(k) / float64(n)
	if n == 0 || math.Abs(got-want) > 5*math.Sqrt(want*(1-want)/float64(n))+1e-9 {
		t.Errorf("%s: %d of %d (%.4f), want a share of %v", what, k, n, got, want)
	}
}

func count(all []simulate.Truth, holds func(simulate.Truth) bool) (n int) {
	for _, x := range all {
		if holds(x) {
			n++
		}
	}
	return n
}

func only(all []simulate.Truth, holds func(simulate.Truth) bool) (some []simulate.Truth) {
	for _, x := range all {
		if holds(x) {
			some = append(some, x)
		}
	}
	return some
}

func distinct[T comparable](all []simulate.Truth, of func(simulate.Truth) T) map[T]int {
	n := make(map[T]int)
	for _, x := range all {
		n[of(x)]++
	}
	return n
}

const townScenario = `
id: town
title: {en: town, ja: town}
story: {en: town, ja: town}
form: plain
start: 2026-11-30T00:00:00+09:00
length: 7d
town: {people: 3000, companies: 100, log_ins: 3, addresses: 32, carrier: 0.2, abroad: 0.05, stale: 0, new: 0.1, device: 0.8, place: 0.7, mistype: 0.1, other: 0.05, wrong_name: 0.03}
`

// The people of a town are as its numbers say.
func TestTownIsAsWritten(t *testing.T) {
	s := decoded(t, townScenario)
	all, r := truths(t, s, 1)
	first := only(all, func(x simulate.Truth) bool { return x.First })
	near(t, "mistyped", count(first, func(x simulate.Truth) bool { return x.Typo }), len(first), 0.1)
	near(t, "another service's password", count(first, func(x simulate.Truth) bool { return x.Other }), len(first), 0.05)
	near(t, "nobody's name", count(first, func(x simulate.Truth) bool { return x.NoName }), len(first), 0.03)
	// Who is new has no device yet, until he was let in; so of those who came before.
	seen := map[int]bool{}
	device, back := 0, 0
	for _, x := range first {
		if seen[x.Who] {
			back++
			if x.Device {
				device++
			}
		}
		seen[x.Who] = true
	}
	near(t, "with a device cookie", device, back, 0.8)
	// Travellers are people, so what is drawn is how many of these there are.
	people, abroad := map[int]bool{}, map[int]bool{}
	for _, x := range first {
		people[x.Who] = true
		if x.Abroad {
			abroad[x.Who] = true
		}
	}
	near(t, "people abroad", len(abroad), len(people), 0.05)
	here := only(first, func(x simulate.Truth) bool { return !x.Abroad })
	near(t, "through the carrier", count(here, func(x simulate.Truth) bool { return x.Carrier }), len(here), 0.2)
	lines := only(here, func(x simulate.Truth) bool { return !x.Carrier })
	near(t, "from a known place", count(lines, func(x simulate.Truth) bool { return x.Home || x.Office }), len(lines), 0.7)
	carrier := distinct(only(first, func(x simulate.Truth) bool { return x.Carrier }), func(x simulate.Truth) netip.Addr { return x.From })
	if len(carrier) > 32 {
		t.Errorf("the carrier has %d addresses, want 32", len(carrier))
	}
	// A week of five workdays and two days of a fifth.
	want := 3000 * 3 * (5 + 2*0.2) / (5 + 2*0.2) * 5
	if n := float64(len(first)); math.Abs(n-want) > 0.05*want {
		t.Errorf("%v log-ins began in a week, want about %v", n, want)
	}
	if good := r.People.All; good.LogIns == 0 || good.SteppedUp+good.Refused+good.Delayed != 0 {
		t.Errorf("nobody defends, and people met %+v", good)
	}
	for _, x := range all {
		if x.Right != (x.Account && x.Password == x.Secret) {
			t.Fatalf("%+v: right is not as name and password are", x)
		}
	}
}

// Thinning plays fewer log-ins and counts as many.
func TestThinning(t *testing.T) {
	s := decoded(t, townScenario)
	_, whole := truths(t, s, 1)
	s.Town.Thin = 5
	all, thin := truths(t, s, 1)
	if n := float64(thin.People.Device.LogIns) / float64(whole.People.Device.LogIns); math.Abs(n-1) > 0.05 {
		t.Errorf("thinned, %d good log-ins with a device are counted, else %d", thin.People.Device.LogIns, whole.People.Device.LogIns)
	}
	if thin.Events > whole.Events/2 || len(all) == 0 {
		t.Errorf("thinned by 5, %d events are played, else %d", thin.Events, whole.Events)
	}
}

// attack is a scenario of one attack on a town where hardly anything happens.
func attack(t testing.TB, raid string) simulate.Scenario {
	t.Helper()
	return decoded(t, `
id: attack
title: {en: attack, ja: attack}
story: {en: attack, ja: attack}
form: plain
start: 2026-11-30T00:00:00+09:00
length: 3d
town: {people: 5000, companies: 100, log_ins: 0.01}
crowds:
  - {kind: office, from: 0s, length: 1h, people: 10, sources: 1}
attacks:
  - {`+raid+`}`)
}

// Attackers do what their lines say.
func TestAttacksAreAsWritten(t *testing.T) {
	from := func(x simulate.Truth) netip.Addr { return x.From }
	within := func(bits int) func(simulate.Truth) netip.Prefix {
		return func(x simulate.Truth) netip.Prefix {
			p, _ := x.From.Prefix(bits)
			return p
		}
	}
	typed := func(x simulate.Truth) string { return x.Password }
	for _, tt := range []struct {
		name, raid string
		check      func(t *testing.T, all []simulate.Truth, r simulate.Result)
	}{
		{"a list from one address", "kind: list, length: 1h, attempts: 20000, sources: 1, network: hosting, client: tool, hit: 0.1, unknown: 0.2", func(t *testing.T, all []simulate.Truth, r simulate.Result) {
			near(t, "right", count(all, func(x simulate.Truth) bool { return x.Right }), len(all), 0.1)
			near(t, "unknown", count(all, func(x simulate.Truth) bool { return !x.Account }), len(all), 0.2)
			if len(all) != 20000 || len(distinct(all, from)) != 1 {
				t.Errorf("%d attempts from %d addresses", len(all), len(distinct(all, from)))
			}
			hits := count(all, func(x simulate.Truth) bool { return x.Right })
			lost := len(distinct(only(all, func(x simulate.Truth) bool { return x.Right }), func(x simulate.Truth) int { return x.Who }))
			if r.Attack.Hits != hits || r.Attack.Lost != lost || r.Attack.Caught != 0 || r.Attack.First != nil {
				t.Errorf("without a defense: %+v, want %d hits on %d accounts lost", r.Attack, hits, lost)
			}
		}},
		{"residential proxies", "kind: list, length: 1h, attempts: 6000, sources: 5000, network: homes, client: tool", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			if n := float64(len(distinct(all, from))); n > 5000 || n < 5000*(1-math.Exp(-1.2))*0.9 {
				t.Errorf("%v addresses", n)
			}
		}},
		{"seven a day and address", "kind: list, length: 2d, attempts: 2000, sources: 1, network: homes, client: browser, per_day: 7", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			for address, n := range distinct(all, from) {
				if n > 14+3 {
					t.Errorf("%v tried %d times in two days, want at most 7 a day", address, n)
				}
			}
		}},
		{"each source every six hours", "kind: list, length: 2d, attempts: 1, sources: 50, network: world, client: browser, every: 6h", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			for address, n := range distinct(all, from) {
				if n < 7 || n > 8 {
					t.Errorf("%v tried %d times in two days, want 8", address, n)
				}
			}
		}},
		{"out of the office", "kind: list, length: 1h, attempts: 100, sources: 1, network: office, client: tool", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			if len(distinct(all, from)) != 1 || !strings.HasPrefix(all[0].From.String(), "62.") {
				t.Errorf("from %v, want the address of the crowd", distinct(all, from))
			}
		}},
		{"a /64", "kind: list, length: 1h, attempts: 500, sources: 500, network: v6/64, client: tool", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			if a, n := len(distinct(all, from)), len(distinct(all, within(64))); a < 250 || n != 1 {
				t.Errorf("%d addresses of %d networks /64, want many of one", a, n)
			}
		}},
		{"a /48", "kind: list, length: 1h, attempts: 500, sources: 500, network: v6/48, client: tool", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			if a, n := len(distinct(all, within(64))), len(distinct(all, within(48))); a < 250 || n != 1 {
				t.Errorf("%d networks /64 of %d /48, want many of one", a, n)
			}
		}},
		{"a /32", "kind: list, length: 1h, attempts: 500, sources: 500, network: v6/32, client: tool", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			if a, n := len(distinct(all, within(48))), len(distinct(all, within(32))); a < 250 || n != 1 {
				t.Errorf("%d networks /48 of %d /32, want many of one", a, n)
			}
		}},
		{"twenty popular passwords", "kind: spray, length: 8h, attempts: 8000, sources: 12, network: hosting, client: tool, unknown: 0.1, passwords: 20", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			for password, n := range distinct(all, typed) {
				if n > 8000/20+1 || len(distinct(all, typed)) != 20 {
					t.Errorf("%q was tried %d times, one of %d; want 400 of each of 20", password, n, len(distinct(all, typed)))
				}
			}
		}},
		{"a password is used twenty times", "kind: spray, length: 8h, attempts: 2000, sources: 12, network: hosting, client: tool, uses: 20", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			for password, n := range distinct(all, typed) {
				if n > 20 {
					t.Errorf("%q was tried %d times, want 20 at most", password, n)
				}
			}
		}},
		{"company words are used twelve times", "kind: spray, length: 8h, attempts: 2000, sources: 12, network: hosting, client: tool, unknown: 0.1, words: true, uses: 12", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			for password, n := range distinct(all, typed) {
				if n > 12 || !strings.HasPrefix(password, "Company") {
					t.Errorf("%q was tried %d times, want a company's name, 12 times at most", password, n)
				}
			}
		}},
		{"one account is cracked", "kind: crack, length: 2d, attempts: 2000, sources: 100, network: world, client: tool, victims: 1", func(t *testing.T, all []simulate.Truth, r simulate.Result) {
			if n := len(distinct(all, func(x simulate.Truth) int { return x.Who })); n != 1 || len(distinct(all, typed)) != 2000 {
				t.Errorf("%d accounts and %d passwords, want one and 2,000", n, len(distinct(all, typed)))
			}
			if r.Attack.EvaluatedPerDay < 900 {
				t.Errorf("%d guesses evaluated a day, want about 1,000 without a defense", r.Attack.EvaluatedPerDay)
			}
		}},
		{"three attempts in each company", "kind: tenants, length: 2h, attempts: 240, sources: 30, network: homes, client: tool, victims: 100", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			if n := len(distinct(all, func(x simulate.Truth) int { return x.Company })); n < 40 {
				t.Errorf("%d companies, want most of 80", n)
			}
			for k := 0; k+2 < len(all); k += 3 {
				if all[k].Company != all[k+1].Company || all[k].Company != all[k+2].Company {
					t.Errorf("attempts %d to %d are at companies %d, %d, %d", k, k+2, all[k].Company, all[k+1].Company, all[k+2].Company)
				}
			}
		}},
		{"names are looked for", "kind: names, length: 1h, attempts: 2000, sources: 1, network: hosting, client: tool, unknown: 0.8, hit: 1", func(t *testing.T, all []simulate.Truth, _ simulate.Result) {
			near(t, "unknown", count(all, func(x simulate.Truth) bool { return !x.Account }), len(all), 0.8)
			if n := count(all, func(x simulate.Truth) bool { return x.Right }); n != 0 {
				t.Errorf("%d passwords are right, and nobody tries any", n)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := attack(t, tt.raid+", from: 1h")
			all, r := truths(t, s, 1)
			all = only(all, func(x simulate.Truth) bool { return x.Kind == "attacker" })
			if len(all) == 0 || r.Attack.Attempts != len(all) {
				t.Fatalf("%d attempts are counted, want %d", r.Attack.Attempts, len(all))
			}
			raid := s.Raids[0]
			begin := s.Start.Add(time.Duration(raid.From))
			end := begin.Add(time.Duration(raid.Length + raid.Every/10)) // who comes every so often is late by a tenth at most
			for _, x := range all {
				if x.At.Before(begin) || x.At.After(end) {
					t.Errorf("an attempt at %v, want from %v to %v", x.At, begin, end)
				}
			}
			tt.check(t, all, r)
		})
	}
}

// late lets everybody try, and stops whoever was right.
type late struct {
	simulate.Defense
	action simulate.Action
}

func (d late) After(e *detectors.Event) simulate.Action {
	if e.Outcome == detectors.Success {
		return d.action
	}
	return simulate.Allow
}

// What is stopped once the password is known to be right is no account lost, and not
// caught either: the answer told.
func TestStoppedLate(t *testing.T) {
	s := attack(t, "kind: list, from: 1h, length: 1h, attempts: 400, sources: 4, network: hosting, client: tool, hit: 0.2")
	for action, lost := range map[simulate.Action]bool{simulate.StepUp: false, simulate.Refuse: false, simulate.Deceive: false, simulate.Delay: true, simulate.Allow: true} {
		r, err := simulate.Run(t.Context(), s, 1, "late", late{simulate.Baselines()[0].New(), action})
		if err != nil {
			t.Fatal(err)
		}
		if a := r.Attack; a.Hits == 0 || a.Caught != 0 || (a.Lost > 0) != lost {
			t.Errorf("%s after the password was right: %d hits, %d lost, %d caught; want lost %v, and none caught", action, a.Hits, a.Lost, a.Caught, lost)
		}
	}
}

// An attacker's own accounts are tried in between, and are nobody's loss.
func TestOwnAccounts(t *testing.T) {
	all, r := truths(t, attack(t, "kind: list, from: 1h, length: 1h, attempts: 400, sources: 4, network: hosting, client: tool, own: 20"), 1)
	own := only(all, func(x simulate.Truth) bool { return x.Kind == "own" })
	if len(own) != 20 || count(own, func(x simulate.Truth) bool { return x.Right }) != 20 {
		t.Errorf("%d log-ins with accounts of the attacker's, want 20, all right", len(own))
	}
	if r.Attack.Attempts != 400 || r.Attack.Lost != 0 {
		t.Errorf("got %+v, want 400 attempts and nothing lost", r.Attack)
	}
}

// Whoever is stepped up, in whatever order, gets in or is counted; nobody is twice.
func TestRunCountsEverybodyOnce(t *testing.T) {
	s := decoded(t, everything)
	for seed := range uint64(3) {
		_, r := heard(t, s, seed)
		p := r.People
		if p.Calm.LogIns+p.Alarm.LogIns != p.All.LogIns || p.All.SteppedUp+p.All.Refused+p.All.Delayed > p.All.LogIns || p.Never > p.All.SteppedUp {
			t.Errorf("seed %d: people: %+v", seed, p)
		}
		a := r.Attack
		if a.Caught > a.Attempts || a.Lost > a.Hits || a.FlaggedAttacked > a.Flagged || a.First == nil || *a.First >= a.Attempts {
			t.Errorf("seed %d: attack: %+v", seed, a)
		}
		caught, through := 0, 0
		good, bothered := 0, 0
		for _, x := range a.Slices {
			caught, through, good, bothered = caught+x.Caught, through+x.Through, good+x.Good, bothered+x.Bothered
		}
		if caught != a.Caught || through != a.Attempts-a.Caught || good != p.All.LogIns || bothered != p.All.SteppedUp+p.All.Refused {
			t.Errorf("seed %d: slices add up to %d caught, %d through, %d good and %d bothered; want %d, %d, %d and %d", seed,
				caught, through, good, bothered, a.Caught, a.Attempts-a.Caught, p.All.LogIns, p.All.SteppedUp+p.All.Refused)
		}
	}
}

// The stories that ship can be told in small, whatever numbers are drawn.
func TestShippedScenariosRun(t *testing.T) {
	all, err := simulate.Load(simulate.Shipped)
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string][]string{}
	for _, s := range all {
		name, evading := strings.CutSuffix(s.ID, "-evading")
		if evading != (s.Form == "evading") || s.Title.EN == "" || s.Title.JA == "" || s.Story.EN == "" || s.Story.JA == "" {
			t.Errorf("%s: want a title and a story in both languages, and the id of an evading form to end in -evading", s.ID)
		}
		forms[name] = append(forms[name], s.Form)
		t.Run(s.ID, func(t *testing.T) {
			t.Parallel()
			heard(t, small(s), 1)
			for seed := range uint64(200) {
				d := s.Draw(seed, 0.5)
				if faults := d.Faults(); len(faults) > 0 {
					t.Fatalf("numbers drawn with seed %d: %v", seed, faults)
				}
			}
			heard(t, small(s.Draw(7, 0.5)), 7)
		})
	}
	for name, f := range forms {
		attacked := strings.HasPrefix(name, "a") || strings.HasPrefix(name, "v6") || name == "b1b"
		if d := cmp.Diff([]string{"evading", "plain"}, f); attacked && d != "" {
			t.Errorf("%s: every attack has a plain and an evading form (-want +got):\n%s", name, d)
		}
	}
}

// small is a scenario with few people, attempts and days.
func small(s simulate.Scenario) simulate.Scenario {
	most := func(n *int, limit int) { *n = min(*n, limit) }
	short := func(d *simulate.Span, limit time.Duration) { *d = min(*d, simulate.Span(limit)) }
	most(&s.Town.People, 1000)
	most(&s.Town.Companies, 50)
	s.Town.Mention = min(s.Town.Mention, 20)
	s.Town.PerDay = min(s.Town.PerDay, 1)
	short(&s.Warm, time.Hour)
	s.Crowds, s.Raids = slices.Clone(s.Crowds), slices.Clone(s.Raids)
	for i := range s.Crowds {
		c := &s.Crowds[i]
		most(&c.People, min(300, s.Town.People))
		most(&c.Tries, 30)
		short(&c.From, time.Hour)
		short(&c.Length, 24*time.Hour)
		c.Rate = min(c.Rate, 1)
	}
	for i := range s.Raids {
		r := &s.Raids[i]
		most(&r.Attempts, 300)
		most(&r.Sources, 100)
		if r.Every > 0 {
			r.Every = max(r.Every, simulate.Span(time.Hour))
		}
		short(&r.From, time.Hour)
		short(&r.Length, 24*time.Hour)
	}
	short(&s.Length, 26*time.Hour)
	s.Town.Stale = min(s.Town.Stale, 0.01)
	return s
}

// Draw stays within its spread and within bounds.
func TestDraw(t *testing.T) {
	s := decoded(t, everything)
	if d := cmp.Diff(s.Raids, s.Draw(9, 0).Raids); d != "" {
		t.Errorf("spread 0 changes numbers:\n%s", d)
	}
	rapid.Check(t, func(t *rapid.T) {
		spread := rapid.Float64Range(0.01, 0.5).Draw(t, "spread")
		d := s.Draw(rapid.Uint64().Draw(t, "seed"), spread)
		if faults := d.Faults(); len(faults) > 0 {
			t.Fatalf("%v", faults)
		}
		within := func(what string, got, want float64) {
			if got < want*(1-spread)-1 || got > want*(1+spread)+1 {
				t.Errorf("%s is %v, written %v, spread %v", what, got, want, spread)
			}
		}
		within("people", float64(d.Town.People), float64(s.Town.People))
		for i, r := range d.Raids {
			w := s.Raids[i]
			within("attempts", float64(r.Attempts), float64(w.Attempts))
			within("sources", float64(r.Sources), float64(w.Sources))
			if r.Hit > w.Hit*(1+spread)+1e-9 || r.Hit < w.Hit*(1-spread)-1e-9 {
				t.Errorf("hit is %v, written %v, spread %v", r.Hit, w.Hit, spread)
			}
		}
	})
	if d := cmp.Diff(decoded(t, everything).Raids, s.Raids); d != "" {
		t.Errorf("drawing changed what was written:\n%s", d)
	}
}

func TestHash(t *testing.T) {
	one := fsOf("a.yaml", "x", "b.yaml", "y")
	for name, other := range map[string]fs.FS{
		"content": fsOf("a.yaml", "x", "b.yaml", "z"), "name": fsOf("a.yaml", "x", "c.yaml", "y"),
		"border": fsOf("a.yaml", "xb.yaml 1\ny"), "a file less": fsOf("a.yaml", "x"),
	} {
		if hashed(t, one) == hashed(t, other) {
			t.Errorf("%s: the hash is the same", name)
		}
	}
	if hashed(t, one) != hashed(t, fsOf("b.yaml", "y", "a.yaml", "x", "notes.txt", "z")) {
		t.Error("the hash depends on more than names and contents of scenarios")
	}
}

func hashed(t *testing.T, fsys fs.FS) string {
	t.Helper()
	h, err := simulate.Hash(fsys)
	if err != nil || len(h) != 64 {
		t.Fatalf("hash %q: %v", h, err)
	}
	return h
}

// counting counts what it is told.
type counting struct {
	simulate.Defense
	events int
}

func (c *counting) After(e *detectors.Event) simulate.Action {
	c.events++
	return c.Defense.After(e)
}

func (c *counting) Learn(e *detectors.Event) {
	c.events++
	c.Defense.Learn(e)
}

// BenchmarkRun says how many events a second a run without a defense plays, those of
// before included.
func BenchmarkRun(b *testing.B) {
	s := decoded(b, strings.Replace(townScenario, "people: 3000", "people: 100000", 1))
	s.Length = simulate.Span(12 * time.Hour)
	c := &counting{Defense: simulate.Baselines()[0].New()}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := simulate.Run(b.Context(), s, 1, "none", c); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(c.events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(c.events), "ns/event")
}
