package rules_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// edited is testdata/good.yaml with pairs of texts replaced.
func edited(t testing.TB, pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(good(t))
}

func observe(s *rules.Set, events ...detectors.Event) {
	for _, e := range events {
		s.Observe(e)
	}
}

func failures(n int, source string) (events []detectors.Event) {
	for i := range n {
		events = append(events, attempt(monday.Add(time.Duration(i)*time.Second), source, i, detectors.Failure))
	}
	return events
}

func TestFindingsKeepTheirForm(t *testing.T) {
	set, errs := rules.Load(rules.Shipped)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	signals := detectors.Default(time.Time{})
	var last detectors.Event
	for i, e := range failures(30, "203.0.113.7") {
		e.Key = detectors.EventKey{Node: "tokyo-1", Incarnation: 1, Sequence: uint64(i + 1)}
		e.Source.ASN = 64500
		set.Observe(e)
		signals.Observe(e)
		last = e
	}
	findings := set.Evaluate(rules.LoginAfter, last, signals.Assess(last))
	for i := range findings {
		if len(findings[i].Generation) != 64 {
			t.Errorf("generation: got %q, want 64 hexadecimal digits", findings[i].Generation)
		}
		findings[i].Generation = "…" // changes with every word of the file
	}
	b, err := json.MarshalIndent(findings, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/findings.json", string(b)+"\n")
	if got := set.Evaluate(rules.LoginBefore, last, nil); got != nil {
		t.Errorf("at another stage: got %v, want nothing", got)
	}
}

func TestRulesKeepTheirForm(t *testing.T) {
	set := load(t, "a.yaml", edited(t, "mode: shadow", "mode: canary 12.5%\nbudget: {false_positives: 0.1%, over: 7d}\ntags: {csf: [DE.CM-09]}"))
	b, err := json.MarshalIndent(set.Rules(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/rules.json", string(b)+"\n")
}

func TestConditions(t *testing.T) {
	e := attempt(monday, "203.0.113.7", 1, detectors.Failure)
	e.Source.ASN, e.Source.Country, e.Device.State, e.Account = 64500, "JP", detectors.Trusted, "hanako"
	signals := []detectors.Signal{{Name: "source.sequential", Value: 9.5}, {Name: "source.flagged", Value: 1}}
	for _, test := range []struct {
		when string
		want bool
	}{
		{`outcome == "failure" && kind == "login" && route == "login"`, true},
		{`source.address == "203.0.113.7" && source.network == "203.0.113.7/32"`, true},
		{`source.asn in [64500, 64501] && source.asn == 64500 && source.country != "US"`, true},
		{`device.known && device.state == "trusted" && !ambiguous && !source.shared`, true},
		{`account.startsWith("hana") && organization == "" && fingerprint == ""`, true},
		{`name.size() == 32 && name.matches("^0+1?[0-9a-f]*$")`, true},
		{`time.getHours("Asia/Tokyo") == 18 && time > timestamp("2026-01-01T00:00:00Z")`, true},
		{`source.flagged == 1 && source.sequential > 9 && source.sequential >= 9.5`, true},
		{`source.flagged == 1.0`, true},
		{`1 == source.flagged && source.sequential != 0`, true},
		{`source.sequential == 9`, false},
		{`source.penalty < 1 && source.penalty == 0`, true}, // a signal that is not said is 0
		{`tried * 20 > source.sequential`, true},
		{`double(tried) / 2.0 == 0.5`, true},
		{`tried == source.flagged`, true},
		{`1 / (tried - 1) > 0`, false}, // an error is no match
	} {
		t.Run(test.when, func(t *testing.T) {
			text := edited(t, "when: tried >= 3", "when: |\n  tried >= 3 || tried == 1 && ("+test.when+")")
			if strings.Contains(test.when, "source.") || strings.Contains(test.when, "/") {
				text = strings.Replace(text, "repeat: 2", "repeat: 1, source: 192.0.2.9", 1)
				text = strings.Replace(text, "outcome: failure}]\n    expect: none", "outcome: unknown}]\n    expect: none", 1)
			} else {
				text = strings.Replace(text, "outcome: failure}]\n    expect: none", "outcome: unknown}]\n    expect: none", 1)
			}
			set := load(t, "a.yaml", text)
			set.Observe(e)
			got := len(set.Evaluate(rules.LoginAfter, e, signals)) == 1
			if got != test.want {
				t.Errorf("got %v, want %v; %v", got, test.want, set.Errors())
			}
			if failed := strings.Contains(test.when, "1 / ("); failed != (len(set.Errors()) > 0) {
				t.Errorf("errors: got %v, want some: %v", set.Errors(), failed)
			}
		})
	}
}

func TestFindingsComeBySeverityThenID(t *testing.T) {
	set := load(t,
		"1.yaml", edited(t, "test.example", "b", "severity: low", "severity: info"),
		"2.yaml", edited(t, "test.example", "z", "severity: low", "severity: critical"),
		"3.yaml", edited(t, "test.example", "a", "severity: low", "severity: info"))
	events := failures(3, "203.0.113.7")
	observe(set, events...)
	var got []rules.ID
	for _, f := range set.Evaluate(rules.LoginAfter, events[2], nil) {
		got = append(got, f.Rule)
	}
	if diff := cmp.Diff([]rules.ID{"z", "a", "b"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAdoptKeepsEqualCounters(t *testing.T) {
	for _, test := range []struct {
		name string
		next string
		want int
	}{
		{"the same file", good(t), 1},
		{"another condition over the same counter", edited(t, "tried", "failed", "An example", "Another"), 1},
		{"another window", edited(t, "within: 10m", "within: 11m"), 0},
		{"another where", edited(t, `outcome == "failure"`, `outcome != "success"`), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			old := load(t, "a.yaml", good(t))
			events := failures(3, "203.0.113.7")
			observe(old, events[:2]...)
			next := load(t, "a.yaml", test.next)
			next.Adopt(old)
			next.Adopt(nil)
			observe(next, events[2])
			if got := len(next.Evaluate(rules.LoginAfter, events[2], nil)); got != test.want {
				t.Errorf("findings: got %d, want %d", got, test.want)
			}
		})
	}
}

func TestCanaryActsForItsShareAndAlwaysForTheSame(t *testing.T) {
	set := load(t, "a.yaml", edited(t, "mode: shadow", "mode: canary 20%"))
	again := load(t, "a.yaml", edited(t, "mode: shadow", "mode: canary 20%"))
	enforced := 0
	for i := range 1000 {
		events := failures(3, fmt.Sprintf("10.0.%d.%d", i/250, i%250))
		observe(set, events...)
		observe(again, events...)
		a, b := set.Evaluate(rules.LoginAfter, events[2], nil), again.Evaluate(rules.LoginAfter, events[2], nil)
		if a[0].Mode != b[0].Mode {
			t.Fatalf("%s: got %s and %s", events[2].Source.Address, a[0].Mode, b[0].Mode)
		}
		if a[0].Mode == rules.Enforce {
			enforced++
		}
	}
	if enforced < 150 || enforced > 250 {
		t.Errorf("enforced for %d of 1000 subjects, want about 200", enforced)
	}
}

func TestSetIsSafeForConcurrentUse(t *testing.T) {
	set, _ := rules.Load(rules.Shipped)
	var wait sync.WaitGroup
	for g := range 4 {
		wait.Go(func() {
			for i := range 500 {
				e := attempt(monday.Add(time.Duration(i)*time.Second), fmt.Sprintf("203.0.113.%d", i%5), g*1000+i, detectors.Failure)
				set.Observe(e)
				set.Evaluate(rules.LoginAfter, e, []detectors.Signal{{Name: "source.flagged", Value: 1}})
				set.Rules()
				set.Errors()
			}
		})
	}
	wait.Wait()
}

func TestTheEmptySetFindsNothing(t *testing.T) {
	set := load(t)
	set.Observe(detectors.Event{})
	if got := set.Evaluate(rules.LoginAfter, detectors.Event{}, nil); got != nil {
		t.Errorf("got %v, want nothing", got)
	}
	shipped, _ := rules.Load(rules.Shipped)
	shipped.Observe(detectors.Event{})
	shipped.Evaluate(rules.LoginAfter, detectors.Event{}, nil)
}

// The variables table of README.md is made from the language.
func TestReadmeListsTheVariables(t *testing.T) {
	var b strings.Builder
	b.WriteString("| name | type | meaning |\n|---|---|---|\n")
	for _, v := range rules.Variables() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v[0], strings.TrimPrefix(v[1], "google.protobuf."), v[2])
	}
	for _, s := range detectors.Default(time.Time{}).Catalog() {
		fmt.Fprintf(&b, "| `%s` | double | signal, %s: %s |\n", s.Name, s.Unit, s.Meaning)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- variables -->\n", "<!-- /variables -->"
	head, rest, ok := strings.Cut(string(readme), begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md: want a table between %q and %q", begin, end)
	}
	if *update {
		if err := os.WriteFile("README.md", []byte(head+begin+b.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(b.String(), got); diff != "" {
		t.Errorf("README.md differs from the language; run go test -update (-want +got):\n%s", diff)
	}
}

// The example of the author's guide is a rule that loads.
func TestReadmeExampleLoads(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	if set := load(t, "example.yaml", example); len(set.Rules()) != 1 {
		t.Error("README.md: want a rule in the first yaml block")
	}
}

// TestFresh: the same rules, and no counts.
func TestFresh(t *testing.T) {
	set, errs := rules.Load(rules.Shipped)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	list := func(s *rules.Set) (found int) {
		for i := range 40 {
			e := detectors.Event{
				Time: time.Date(2026, 11, 23, 9, 0, i, 0, time.UTC), Kind: detectors.Login, Outcome: detectors.Failure,
				Name:   detectors.Name{Digest: detectors.Digest{byte(i + 1)}},
				Source: detectors.Source{Address: netip.MustParseAddr("203.0.113.7"), Network: netip.MustParsePrefix("203.0.113.7/32")},
			}
			s.Observe(e)
			found += len(s.Evaluate(rules.LoginAfter, e, nil))
		}
		return found
	}
	want := list(set)
	if got := list(set.Fresh()); want == 0 || got != want {
		t.Errorf("a fresh set found %d, want %d as the one before it had counted", got, want)
	}
	if got, want := len(set.Fresh().Rules()), len(set.Rules()); got != want {
		t.Errorf("a fresh set has %d rules, want %d", got, want)
	}
}

// Each response is drawn by its own subject, so that a decision on an account acts for
// that account wherever it comes from.
func TestCanaryDrawsTheSubjectOfEachResponse(t *testing.T) {
	file := edited(t, "mode: shadow", "mode: canary 50%")
	file = strings.Replace(file, "\nthen:\n", "\nthen:\n  - answer: delay\n  - decide: {scope: account, action: delay, for: 1h}\n", 1)
	set := load(t, "a.yaml", file)
	modes := map[string]map[rules.Mode]int{}
	networks := map[rules.Mode]int{}
	for i := range 400 {
		events := failures(3, fmt.Sprintf("10.0.%d.%d", i/250, i%250))
		last := events[2]
		last.Account = detectors.Account(fmt.Sprint("account ", i%20))
		observe(set, events...)
		found := set.Evaluate(rules.LoginAfter, last, nil)
		if len(found) != 1 || len(found[0].Then) < 3 {
			t.Fatalf("got %v, want a finding with three responses", found)
		}
		for _, p := range found[0].Then {
			switch {
			case p.Answer != rules.Allow:
			case p.Decide != nil && p.Decide.Scope == "account":
				if modes[string(last.Account)] == nil {
					modes[string(last.Account)] = map[rules.Mode]int{}
				}
				modes[string(last.Account)][p.Mode]++
			case p.Decide != nil:
				networks[p.Mode]++
			}
			if p.Mode == rules.Enforce && found[0].Mode != rules.Enforce {
				t.Error("a response acts, and the finding says that none does")
			}
		}
	}
	drawn := 0
	for account, of := range modes {
		if len(of) != 1 {
			t.Errorf("%s: got %v, want one mode from wherever it comes", account, of)
		}
		if of[rules.Enforce] > 0 {
			drawn++
		}
	}
	if drawn < 3 || drawn > 17 || networks[rules.Enforce] < 120 || networks[rules.Enforce] > 280 {
		t.Errorf("%d of 20 accounts and %d of 400 networks are drawn, want about half of each", drawn, networks[rules.Enforce])
	}
	for _, r := range set.Rules() {
		for _, p := range r.Then {
			if p.Mode != "" {
				t.Errorf("the rule itself says %s", p.Mode)
			}
		}
	}
}
