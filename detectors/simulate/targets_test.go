package simulate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/detectors/simulate"
)

// verdictOn is what came of the target about a scenario's metric.
func verdictOn(t *testing.T, r *simulate.Report, scenario string, m simulate.Metric) simulate.Judged {
	t.Helper()
	for _, j := range r.Judge() {
		if j.Scenario == scenario && j.Metric == m {
			return j
		}
	}
	t.Fatalf("there is no target about %s of %s", m, scenario)
	return simulate.Judged{}
}

// tried is a result in which some of a thousand attempts are caught.
func tried(scenario string, seed uint64, caught int) simulate.Result {
	return simulate.Result{Scenario: scenario, Form: simulate.Plain, Defense: "kidoban", Seed: seed,
		Attack: simulate.AttackResult{Attempts: 1000, Caught: caught, Hits: 10}}
}

func TestTargetsJudgeTheWorstSeed(t *testing.T) {
	r := &simulate.Report{Defense: "kidoban", Results: []simulate.Result{tried("a2", 11, 999), tried("a2", 12, 990), tried("a2", 13, 1000)}}
	j := verdictOn(t, r, "a2", simulate.Recall)
	if j.Verdict != simulate.Met || j.Joined.Worst.Value != 0.99 || j.Joined.Seed != 12 || j.Joined.Median != 0.999 || j.Joined.Best != 1 {
		t.Errorf("got %+v, want the limit met at 0.99 by seed 12, median 0.999", j)
	}
	r.Results[1] = tried("a2", 12, 989)
	if j := verdictOn(t, r, "a2", simulate.Recall); j.Verdict != simulate.Missed {
		t.Errorf("0.989 of 0.99: %s, want missed", j.Verdict)
	}
	// What evades, is drawn, or is another's is not held to it.
	r.Results = []simulate.Result{tried("a2", 11, 999), tried("a2", 12, 0), tried("a2-evading", 11, 0), tried("a2", 11, 0)}
	r.Results[1].Spread, r.Results[2].Form, r.Results[3].Defense = 0.5, simulate.Evading, "none"
	if j := verdictOn(t, r, "a2", simulate.Recall); j.Verdict != simulate.Met {
		t.Errorf("%s, want met: only one result is of the target", j.Verdict)
	}
	if j := verdictOn(t, r, "a1", simulate.Recall); j.Verdict != simulate.NotRun {
		t.Errorf("%s, want not run", j.Verdict)
	}
}

func TestTargetsNeverCaught(t *testing.T) {
	r := &simulate.Report{Defense: "kidoban", Results: []simulate.Result{tried("a2", 11, 0)}}
	if j := verdictOn(t, r, "a2", simulate.FirstCaught); j.Verdict != simulate.Missed {
		t.Errorf("nothing was ever caught: %s, want missed", j.Verdict)
	}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`"metric": "first_caught",[^}]*"verdict": "missed",[^}]*"worst": null`).Match(b.Bytes()) {
		t.Error("JSON does not say null of what never happened")
	}
}

// Either limit will do, seed by seed.
func TestTargetsWithTwoLimits(t *testing.T) {
	for _, tt := range []struct {
		name    string
		first   []int
		seconds []float64
		want    simulate.Verdict
	}{
		{"few attempts, late", []int{600}, []float64{90_000}, simulate.Met},
		{"many attempts, soon", []int{5000}, []float64{86_400}, simulate.Met},
		{"each seed by another", []int{600, 5000}, []float64{90_000, 60}, simulate.Met},
		{"neither", []int{10, 601}, []float64{60, 86_401}, simulate.Missed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &simulate.Report{Defense: "kidoban"}
			for i, n := range tt.first {
				x := tried("a3", uint64(i), 500)
				x.Attack.First, x.Attack.FirstSeconds = &n, tt.seconds[i]
				r.Results = append(r.Results, x)
			}
			if j := verdictOn(t, r, "a3", simulate.FirstCaught); j.Verdict != tt.want {
				t.Errorf("got %s, want %s", j.Verdict, tt.want)
			}
		})
	}
}

// What is said of all days is said of all of them together, and not before all were
// played.
func TestTargetsOfAllDays(t *testing.T) {
	r := &simulate.Report{Defense: "kidoban"}
	for _, id := range []string{"b1", "b1b", "b2", "b3", "b4", "b5", "b6", "b7", "b8"} {
		if j := verdictOn(t, r, simulate.AllBenign, simulate.RefusedRate); j.Verdict != simulate.NotRun {
			t.Fatalf("%d scenarios were judged as all", len(r.Results)/2)
		}
		for seed := range uint64(2) {
			x := simulate.Result{Scenario: id, Form: simulate.Plain, Defense: "kidoban", Seed: seed}
			x.People.All = simulate.Group{LogIns: 60_000}
			r.Results = append(r.Results, x)
		}
	}
	r.Results[3].People.All.Refused = 27 // of 540,000: 5 in 100,000
	if j := verdictOn(t, r, simulate.AllBenign, simulate.RefusedRate); j.Verdict != simulate.Met || j.Joined.Worst.Of != 27 || j.Joined.Worst.Among != 540_000 || j.Joined.Seed != 1 {
		t.Errorf("got %+v, want 27 of 540,000 in seed 1 to be met", j)
	}
	r.Results[5].People.All.Refused = 1
	if j := verdictOn(t, r, simulate.AllBenign, simulate.RefusedRate); j.Verdict != simulate.Missed {
		t.Errorf("28 of 540,000: %s, want missed", j.Verdict)
	}
	if j := verdictOn(t, r, simulate.AllBenign, simulate.Logins); j.Verdict != simulate.Met || j.Joined.Worst.Value != 1_080_000 {
		t.Errorf("got %+v, want 1,080,000 log-ins of both seeds", j)
	}
}

// A share of a handful of log-ins says nothing of every attack.
func TestTargetsOfEachAttack(t *testing.T) {
	few, many := tried("a1", 1, 1000), tried("a2", 1, 1000)
	few.People.Alarm, many.People.Alarm = simulate.Group{LogIns: 999, SteppedUp: 900}, simulate.Group{LogIns: 1000, SteppedUp: 80}
	r := &simulate.Report{Defense: "kidoban", Results: []simulate.Result{few, many}}
	if j := verdictOn(t, r, simulate.EachAttack, simulate.AlarmUp); j.Verdict != simulate.Met || j.Where != "a2" {
		t.Errorf("got %+v, want a2 to be judged and to meet the limit", j)
	}
	r.Results[0].People.Alarm.LogIns = 1000
	if j := verdictOn(t, r, simulate.EachAttack, simulate.AlarmUp); j.Verdict != simulate.Missed || j.Where != "a1" {
		t.Errorf("got %+v, want a1 to miss the limit", j)
	}
}

// Where the rest is hardly asked for anything, people abroad and people behind a carrier
// are held to the limit for trusted devices.
func TestTargetsOfAFew(t *testing.T) {
	abroad := func(few, all simulate.Group) (string, simulate.Metric, simulate.Result) {
		x := tried("a1", 1, 1000)
		x.People.AbroadAlarm, x.People.Alarm = few, all
		return simulate.EachAttack, simulate.AlarmAbroad, x
	}
	carrier := func(few, all simulate.Group) (string, simulate.Metric, simulate.Result) {
		x := tried("b2", 1, 0)
		x.People.Carrier, x.People.All = few, all
		return "b2", simulate.SharedRatio, x
	}
	for _, test := range []struct {
		who       func(few, all simulate.Group) (string, simulate.Metric, simulate.Result)
		few, rest int // stepped up, of 2,000 and of 100,000
		want      simulate.Verdict
	}{
		{abroad, 0, 0, simulate.Met},
		{abroad, 80, 2000, simulate.Met},    // 4% and 2%
		{abroad, 82, 2000, simulate.Missed}, // 4.1%
		{abroad, 6, 0, simulate.Met},        // 0.3%
		{abroad, 7, 1, simulate.Missed},
		{carrier, 0, 0, simulate.Met},
		{carrier, 30, 1000, simulate.Met},    // 1.5% and 1%
		{carrier, 31, 1000, simulate.Missed}, // 1.55%
		{carrier, 6, 0, simulate.Met},        // 0.3%
		{carrier, 7, 1, simulate.Missed},
	} {
		scenario, metric, x := test.who(simulate.Group{LogIns: 2000, SteppedUp: test.few}, simulate.Group{LogIns: 102_000, SteppedUp: test.few + test.rest})
		r := &simulate.Report{Defense: "kidoban", Results: []simulate.Result{x}}
		if j := verdictOn(t, r, scenario, metric); j.Verdict != test.want {
			t.Errorf("%s: %d of 2,000 and %d of 100,000: %s, want %s", metric, test.few, test.rest, j.Verdict, test.want)
		}
	}
}

// Every target is about a scenario that ships, in that form.
func TestTargetsAreOfWhatShips(t *testing.T) {
	all, err := simulate.Load(simulate.Shipped)
	if err != nil {
		t.Fatal(err)
	}
	ships := map[string]bool{simulate.AllBenign + " plain": true, simulate.EachAttack + " plain": true, simulate.EachRule + " plain": true}
	for _, s := range all {
		ships[s.ID+" "+s.Form] = true
	}
	for _, target := range simulate.Targets {
		if !ships[target.Scenario+" "+target.Form] {
			t.Errorf("no scenario %s of form %s ships", target.Scenario, target.Form)
		}
	}
}

// Who reads the JSON finds every metric explained.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range simulate.Measured() {
		if !strings.Contains(string(text), "`"+string(m)+"`") {
			t.Errorf("README.md does not say what %s is", m)
		}
	}
}

// A page needs nothing but itself, in either language, also of nothing at all.
func TestPageStandsAlone(t *testing.T) {
	for name, r := range map[string]*simulate.Report{"sample": sample(), "empty": {Defense: "kidoban"}} {
		for _, language := range simulate.Languages {
			t.Run(name+" "+language, func(t *testing.T) {
				var b bytes.Buffer
				if err := r.WriteHTML(&b, language); err != nil {
					t.Fatal(err)
				}
				page := b.String()
				for _, bad := range []string{"<script", "://", "src=", "@import", "url(", "%!", "ZgotmplZ", "NaN", "Inf"} {
					if i := strings.Index(page, bad); i >= 0 {
						t.Errorf("it has %q: %.80s", bad, page[i:])
					}
				}
				ids := make(map[string]bool)
				for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
					if ids[m[1]] {
						t.Errorf("two elements have the id %s", m[1])
					}
					ids[m[1]] = true
				}
				for _, m := range regexp.MustCompile(` href="#([^"]*)"`).FindAllStringSubmatch(page, -1) {
					if !ids[m[1]] {
						t.Errorf("a link leads to %s, which is not there", m[1])
					}
				}
			})
		}
	}
}

// A scenario's words are a team's own: they cannot break out of the page.
func TestPageEscapes(t *testing.T) {
	r := sample()
	r.Titles["a2"] = simulate.Words{EN: "<script>alert(1)</script>"}
	r.Stories = map[string]simulate.Words{"a2": {EN: `"><img src=x>`}}
	var b bytes.Buffer
	if err := r.WriteHTML(&b, "en"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "<script") || strings.Contains(b.String(), "<img") {
		t.Error("a title is markup")
	}
}

// What is not explained is said so; nothing that is better is left out.
func TestReportSaysWhereItIsBeaten(t *testing.T) {
	better := tried("a2", 11, 1000)
	better.Defense = "lockout-10"
	r := &simulate.Report{Defense: "kidoban", Results: []simulate.Result{tried("a2", 11, 990), better}}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Beaten []struct{ Scenario, Metric, By, Why string }
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := "[{a2 recall lockout-10 not explained}]"; fmt.Sprint(got.Beaten) != want {
		t.Errorf("got %v, want %s", got.Beaten, want)
	}
	for _, language := range simulate.Languages {
		var table bytes.Buffer
		if err := r.WriteTable(&table, language); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(table.String(), "\n* ") {
			t.Errorf("the table in %s marks no row:\n%s", language, &table)
		}
	}
}
