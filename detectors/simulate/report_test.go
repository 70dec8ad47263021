package simulate_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors/simulate"
)

// eleven is when the made-up attacks begin.
var eleven = time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)

// raided makes up a result of some 100 attempts a slice, of which a defense catches a
// share after it missed some.
func raided(scenario, form, defense string, seed uint64, length time.Duration, missed int, share float64, lost int) simulate.Result {
	r := simulate.Result{Scenario: scenario, Form: form, Defense: defense, Seed: seed}
	a := &r.Attack
	a.Hits, a.Lost = 60, lost
	for i := range 100 {
		s := simulate.Slice{At: eleven.Add(time.Duration(i) * length), Good: 40 + i%9}
		if n := 100 + int(seed)%7*(i%3); i >= 20 && i < 80 {
			if open := min(n, max(0, missed-a.Attempts)); share > 0 {
				s.Caught = int(float64(n-open) * share)
				s.Bothered = i % 4
			}
			s.Through = n - s.Caught
			a.Attempts += n
		}
		a.Caught += s.Caught
		a.Slices = append(a.Slices, s)
	}
	if share > 0 {
		a.First, a.FirstSeconds = &missed, (time.Duration(missed) * length / 100).Seconds()
		r.Alarms = []simulate.AlarmResult{{Stratum: "strangers", From: eleven.Add(22 * length), To: eleven.Add(85 * length)}}
	}
	return r
}

// bothered makes up what people met: up of every thousand are stepped up, and refused of
// them all refused.
func bothered(r simulate.Result, logins, up, refused int) simulate.Result {
	group := func(n, up int) simulate.Group { return simulate.Group{LogIns: n, SteppedUp: n * up / 1000} }
	r.People = simulate.PeopleResult{
		All: group(logins, up), Calm: group(logins/2, up/2), Alarm: group(logins/2, up*3/2), Device: group(logins*8/10, up/9),
		DeviceAlarm: group(logins*4/10, up/9), Abroad: group(logins/25, up*2), AbroadAlarm: group(logins/50, up*2), Carrier: group(logins/5, up),
	}
	r.People.All.Refused = refused
	return r
}

// sample is a report of an attack in two forms and a Monday, over two seeds.
func sample() *simulate.Report {
	r := &simulate.Report{
		Scenarios: "5c1f0f9a1b4d6de8b9ff3d06b2e2f2b7b1a8a7e0c7f1c5d2ab34ef90aa11bb22",
		Rules:     "0b9d1d63a1c84c2f8a9d0f7e6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c",
		Seeds:     []uint64{11, 12}, Spread: 0.5, Scale: 1, Defense: "kidoban",
		Titles: map[string]simulate.Words{
			"a2": {EN: "12,000 stolen pairs over 10,000 home connections, with a tool", JA: "家庭回線 10,000 本から流出 12,000 組をツールで"},
			"b1": {EN: "Monday, 9:00: an office of 2,000 behind one address", JA: "月曜 9 時:一つのアドレスの奥に 2,000 人のオフィス"},
		},
	}
	add := func(spread float64, x simulate.Result) {
		x.Spread = spread
		r.Results = append(r.Results, x)
	}
	for _, seed := range r.Seeds {
		n := int(seed)
		add(0, bothered(raided("a2", "plain", "kidoban", seed, time.Minute, 60+n, 0.995, n-11), 40_000, 20, 0))
		add(0, bothered(raided("a2", "plain", "none", seed, time.Minute, 0, 0, 60), 40_000, 0, 0))
		add(0, bothered(raided("a2", "plain", "window-5-10s", seed, time.Minute, 2000, 0.01, 59), 40_000, 0, 31))
		add(0, bothered(raided("a2", "plain", "rate-20-10m", seed, time.Minute, 2900, 0.02, 58), 40_000, 0, 240))
		add(0, bothered(raided("a2", "plain", "lockout-10", seed, time.Minute, 0, 0, 60), 40_000, 0, 2))
		add(0, bothered(raided("a2-evading", "evading", "kidoban", seed, time.Minute, 900, 0.82, 9), 40_000, 40, 1))
		add(0.5, bothered(raided("a2", "plain", "kidoban", seed, time.Minute, 240, 0.97, 2), 40_000, 25, 0))
		monday := simulate.Result{Scenario: "b1", Form: "plain", Seed: seed}
		for i := range 100 {
			monday.Attack.Slices = append(monday.Attack.Slices, simulate.Slice{At: eleven.Add(time.Duration(i) * 9 * time.Second), Good: 900 - (i-50)*(i-50)/3})
		}
		monday.Defense = "kidoban"
		monday = bothered(monday, 600_000, 2, 0)
		monday.People.Crowd = simulate.Group{LogIns: 500_000, SteppedUp: 900}
		add(0, monday)
		monday.Defense = "window-5-10s"
		add(0, bothered(monday, 600_000, 0, 60_000))
	}
	r.Thresholds = &simulate.Thresholds{Busier: 10}
	for _, seed := range r.Seeds {
		r.Thresholds.Normal = append(r.Thresholds.Normal, falsely("b1", seed, 1_000_000, 12, 40))
		r.Thresholds.Bustle = append(r.Thresholds.Bustle, falsely("b1", seed, 10_000_000, 160, 1600))
	}
	return r
}

// falsely makes up what two rules matched of good log-ins.
func falsely(scenario string, seed uint64, logins, sequential, guesses int) simulate.Result {
	r := simulate.Result{Scenario: scenario, Form: simulate.Plain, Defense: "kidoban", Seed: seed}
	r.Matches = &simulate.Matches{LogIns: logins, Rules: []simulate.RuleMatches{
		{Rule: simulate.Rule{ID: "stuffing.sequential", Budget: 0.0001, Bounds: []simulate.Bound{{Name: "source.sequential", Limit: 9.2}}},
			Matched: sequential, Values: []map[float64]int{{0: logins - 1200, 2.39: 1100, 4.79: 99, 9.58: 1}}},
		{Rule: simulate.Rule{ID: "cracking.step-up", Budget: 0.01, Bounds: []simulate.Bound{{Name: "account.guesses", Limit: 5}}},
			Matched: guesses, Values: []map[float64]int{{0: logins - 70, 1: 30, 3: 40}}},
		{Rule: simulate.Rule{ID: "decoy.name", Budget: 0.01}},
	}}
	return r
}

func TestReportGolden(t *testing.T) {
	for name, write := range map[string]func(*simulate.Report, *bytes.Buffer) error{
		"report.en.txt":  func(r *simulate.Report, b *bytes.Buffer) error { return r.WriteTable(b, "en") },
		"report.ja.txt":  func(r *simulate.Report, b *bytes.Buffer) error { return r.WriteTable(b, "ja") },
		"report.json":    func(r *simulate.Report, b *bytes.Buffer) error { return r.WriteJSON(b) },
		"report.en.html": func(r *simulate.Report, b *bytes.Buffer) error { return r.WriteHTML(b, "en") },
		"report.ja.html": func(r *simulate.Report, b *bytes.Buffer) error { return r.WriteHTML(b, "ja") },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := write(sample(), &b); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "golden", name)
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		})
	}
}

func TestReportIsDeterministic(t *testing.T) {
	r := sample()
	write := func() string {
		var b bytes.Buffer
		for _, err := range []error{r.WriteTable(&b, "en"), r.WriteJSON(&b), r.WriteHTML(&b, "ja")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return b.String()
	}
	first := write()
	for range 3 {
		if write() != first {
			t.Fatal("one report was written in two ways")
		}
	}
}

func TestTableFitsATerminal(t *testing.T) {
	for _, language := range simulate.Languages {
		var b bytes.Buffer
		if err := sample().WriteTable(&b, language); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := simulate.ColumnsOf(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%s: %d columns: %s", language, n, line)
			}
		}
	}
}

func TestLanguagesSayTheSame(t *testing.T) {
	if d := cmp.Diff(simulate.Said("en"), simulate.Said("ja")); d != "" {
		t.Errorf("(-en +ja):\n%s", d)
	}
	if d := cmp.Diff(simulate.Measured(), slices.Sorted(slices.Values(simulate.MetricOrder()))); d != "" {
		t.Errorf("metrics (-measured +written):\n%s", d)
	}
}

func TestPercent(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0%", 1: "100%", 0.5: "50%", 0.995: "99.5%", 0.12345: "12.3%", 0.012345: "1.23%", 0.00005: "0.005%",
		0.000001: "<0.001%", 0.999999: ">99.99%", 0.9312: "93.1%",
	} {
		if got := simulate.Percent(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

func TestSeedText(t *testing.T) {
	for want, seeds := range map[string][]uint64{"": nil, "7": {7}, "11-20": {11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, "1, 3-4, 9": {1, 3, 4, 9}} {
		if got := simulate.SeedText(seeds); got != want {
			t.Errorf("%v is %q, want %q", seeds, got, want)
		}
	}
}

// A scenario of which only the evading form was played has that one's title.
func TestTitleOfEvadingForm(t *testing.T) {
	r := &simulate.Report{Defense: "kidoban", Titles: map[string]simulate.Words{"a2-evading": {EN: "Ten thousand homes"}}}
	r.Results = []simulate.Result{{Scenario: "a2-evading", Form: simulate.Evading, Defense: "kidoban"}}
	var b bytes.Buffer
	if err := r.WriteTable(&b, "ja"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\na2  Ten thousand homes\n") {
		t.Errorf("no title:\n%s", &b)
	}
}
