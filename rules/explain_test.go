package rules_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// matched is the one finding of a set about the last of some events.
func matched(t testing.TB, set *rules.Set, events []detectors.Event, signals ...detectors.Signal) (rules.Finding, detectors.Event) {
	t.Helper()
	observe(set, events...)
	last := events[len(events)-1]
	found := set.Evaluate(rules.LoginAfter, last, signals)
	if len(found) != 1 {
		t.Fatalf("%d findings, want one", len(found))
	}
	return found[0], last
}

func TestExplainNamesWhatDecided(t *testing.T) {
	for _, test := range []struct {
		name, when string
		signals    []detectors.Signal
		want       []string // text, line:column, result, * where it decided
	}{
		{
			"one operand of an or", "tried >= 3 && (source.flagged == 1 || outcome == 'failure')", nil,
			[]string{`tried >= 3 @10:7 true *`, `source.flagged == 1 @10:22 false`, `outcome == "failure" @10:45 true *`},
		},
		{
			"both of them", "tried >= 3 && (source.flagged == 1 || outcome == 'failure')", []detectors.Signal{{Name: "source.flagged", Value: 1}},
			[]string{`tried >= 3 @10:7 true *`, `source.flagged == 1 @10:22 true *`, `outcome == "failure" @10:45 true *`},
		},
		{
			"a not turns it round", "tried * 2 >= 6 && !(tried > 3 || source.asn == 7)", nil,
			[]string{`tried * 2 >= 6 @10:7 true *`, `tried > 3 @10:27 false *`, `source.asn == 7 @10:40 false *`},
		},
		{
			"the branch that was taken", "'tried > 100 ? device.known : tried >= 3'", nil,
			[]string{`tried > 100 @10:8 false *`, `device.known @10:22 unasked`, `tried >= 3 @10:37 true *`},
		},
		{
			"what cannot be evaluated did not decide", "outcome == 'failure' || 1 / (tried - 3) > 0", nil,
			[]string{`outcome == "failure" @10:7 true *`, `1 / (tried - 3) > 0 @10:31 error`},
		},
		{
			"lines of the file", "|\n  tried >= 3 &&\n  !device.known\n", nil,
			[]string{`tried >= 3 @11:3 true *`, `device.known @12:4 false *`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := load(t, "a.yaml", edited(t, "when: tried >= 3", "when: "+test.when, "name: two do not\n    given: [{repeat: 2, outcome: failure}]", "name: two do not\n    given: [{repeat: 2, outcome: success}]"))
			f, e := matched(t, set, failures(3, "203.0.113.7"), test.signals...)
			// What was counted since changes nothing.
			observe(set, failures(7, "203.0.113.7")...)
			x, err := set.Explain(f, e)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range x.Parts {
				line := p.Text + " @" + place(p) + " " + p.Result
				if p.Decided {
					line += " *"
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if x.Values["tried"] != int64(3) || x.File != "a.yaml" {
				t.Errorf("tried is %v in %s, want 3 in a.yaml", x.Values["tried"], x.File)
			}
		})
	}
}

func place(p rules.Part) string {
	b, _ := json.Marshal([]int{p.Line, p.Column})
	return strings.Trim(strings.Replace(string(b), ",", ":", 1), "[]")
}

func TestExplainRefusesWhatItCannotKnow(t *testing.T) {
	set := load(t, "a.yaml", good(t))
	f, e := matched(t, set, failures(3, "203.0.113.7"))
	for what, change := range map[string]func(*rules.Finding){
		"in force": func(f *rules.Finding) { f.Generation = strings.Repeat("0", 64) },
		"value of": func(f *rules.Finding) { f.Values = nil },
		"gives":    func(f *rules.Finding) { f.Values = map[string]any{"tried": 1.0} },
	} {
		other := f
		change(&other)
		if _, err := set.Explain(other, e); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want an error with %q", err, what)
		}
	}
}

// Every match that the shipped rules' tests bring about can be explained, by a part
// that decided.
func TestShippedRulesExplainThemselves(t *testing.T) {
	set, _ := rules.Load(rules.Shipped)
	for _, r := range set.Rules() {
		text, err := os.ReadFile(r.File)
		if err != nil || string(text) != r.Text {
			t.Errorf("%s: its text is not that of %s: %v", r.ID, r.File, err)
		}
	}
	signals := detectors.Default(time.Time{})
	explained := map[rules.ID]bool{}
	for i := range 4000 {
		e := attempt(monday.Add(time.Duration(i)*time.Second), "203.0.113.7", i, detectors.Failure)
		before := e
		before.Outcome = detectors.Unknown
		check := func(stage rules.Stage, e detectors.Event) {
			for _, f := range set.Evaluate(stage, e, signals.Assess(e)) {
				x, err := set.Explain(f, e)
				if err != nil {
					t.Fatal(err)
				}
				decided := 0
				for _, p := range x.Parts {
					if p.Decided {
						decided++
					}
				}
				if decided == 0 {
					t.Fatalf("%s: nothing decided: %+v", f.Rule, x)
				}
				explained[f.Rule] = true
			}
		}
		check(rules.LoginBefore, signals.Facts(before))
		e = signals.Facts(e)
		signals.Observe(e)
		set.Observe(e)
		check(rules.LoginAfter, e)
	}
	if len(explained) < 3 {
		t.Errorf("only %v matched", explained)
	}
}
