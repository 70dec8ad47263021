package rules_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// throughLogin is what one attempt costs: asked about before and after its outcome is
// known, and counted in between.
func throughLogin(b *testing.B, set *rules.Set) {
	b.Helper()
	signals := []detectors.Signal{{Name: "source.sequential", Value: 3}, {Name: "source.flagged", Value: 0}, {Name: "source.penalty", Value: 12},
		{Name: "account.guesses", Value: 2}, {Name: "password.spread", Value: 1}}
	e := attempt(monday, "203.0.113.7", 1, detectors.Failure)
	e.Source.ASN, e.Source.Country, e.Organization = 64500, "JP", "acme"
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		e.Time = e.Time.Add(time.Millisecond)
		e.Name.Digest[1], e.Name.Digest[2] = byte(i), byte(i>>8)
		if i%20 == 0 {
			e.Source.Address = e.Source.Address.Next()
			e.Source.Network = detectors.CountingNetwork(e.Source.Address)
		}
		before := e
		before.Outcome = detectors.Unknown
		set.Evaluate(rules.LoginBefore, before, signals)
		set.Observe(e)
		set.Evaluate(rules.LoginAfter, e, signals)
	}
}

func BenchmarkEventThroughShippedRules(b *testing.B) {
	set, errs := rules.Load(rules.Shipped)
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	throughLogin(b, set)
}

// manyRules are n rules that share half as many counters of all kinds, two each.
func manyRules(b *testing.B, n int) *rules.Set {
	b.Helper()
	kinds := []string{
		`count: events, by: source.network, within: %dm, where: 'outcome == "failure"'`,
		`distinct: name, by: source.network, within: %dm, where: 'outcome == "failure" && !device.known'`,
		`distinct: source.network, by: name, within: %dm`,
		`ratio: 'outcome == "failure"', by: [source.asn, route], within: %dm`,
		`change: events, by: organization, within: %dm`,
	}
	counter := func(i int) string {
		i %= n / 2
		return fmt.Sprintf(kinds[i%len(kinds)], 10+i/len(kinds))
	}
	above := func(i int) string { // what counters of the kind hardly are
		if strings.HasPrefix(kinds[i%(n/2)%len(kinds)], "ratio") {
			return "0.5"
		}
		return "1000000"
	}
	fsys := fstest.MapFS{}
	for i := range n {
		stage := []string{"login.before", "login.after"}[i%2]
		fsys[fmt.Sprintf("%04d.yaml", i)] = &fstest.MapFile{Data: []byte(strings.NewReplacer("N", fmt.Sprint(i), "ONE", counter(i), "TWO", counter(i+7), "ABOVE", above(i), "BEYOND", above(i+7), "STAGE", stage).Replace(`id: test.nN
title: One of many
severity: low
owner: tests
reason: to be measured
review_by: 2030-01-01
count:
  one: {ONE}
  two: {TWO}
on: STAGE
when: one > ABOVE && two > BEYOND && source.capacity < 10 || source.flagged == 0 && account == "hanakoN"
then:
  - answer: step_up
mode: shadow
tests:
  - name: one does not match
    given: [{outcome: failure, name: a}]
    expect: none
  - name: one does
    given: [{outcome: failure, name: a, account: hanakoN}]
    expect: {action: step_up, scope: attempt}
`))}
	}
	set, errs := rules.Load(fsys)
	if len(errs) > 0 {
		b.Fatal(errs[0])
	}
	return set
}

func BenchmarkEventThroughHundredRules(b *testing.B) {
	set := manyRules(b, 100)
	if got := len(set.Memory().Counters); got != 50 {
		b.Fatalf("%d counters, want 50", got)
	}
	throughLogin(b, set)
}
