package dry_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/dry"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

var monday = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func attempt(at time.Time, name int, from string) *detectors.Event {
	return &detectors.Event{
		Time: at, Name: detectors.Name{Digest: detectors.Digest{1, byte(name), byte(name >> 8)}},
		Source: detectors.Source{Address: netip.MustParseAddr(from)},
	}
}

// A list is stepped up after a few names, before its passwords are looked at; a known
// device behind the same address comes in; elsewhere nobody notices; it is over in time.
func TestListIsStopped(t *testing.T) {
	g, err := dry.New(dry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	first, at := -1, monday
	for i := range 40 {
		at = at.Add(time.Second)
		e := attempt(at, i, "203.0.113.7")
		if v := g.Before(e); v.Action == rules.StepUp && first < 0 {
			first = i
		} else if v.Action != rules.StepUp && first >= 0 {
			t.Fatalf("attempt %d: %+v after the list was seen", i, v)
		}
		e.Outcome = detectors.Failure
		g.After(e)
	}
	if first < 5 || first > 15 {
		t.Errorf("stepped up from attempt %d on, want from 5 to 15", first)
	}
	own := attempt(at, 500, "203.0.113.7")
	own.Account, own.Device = "hanako", detectors.Device{ID: "d", State: detectors.Trusted}
	if v := g.Before(own); v.Action != rules.Allow {
		t.Errorf("the owner's device: %+v", v)
	}
	if v := g.Before(attempt(at, 501, "198.51.100.7")); v.Action != rules.Allow {
		t.Errorf("elsewhere: %+v", v)
	}
	if v := g.Before(attempt(at.Add(24*time.Hour), 502, "203.0.113.7")); v.Action != rules.Allow {
		t.Errorf("a day later: %+v", v)
	}
}

// The limits of the policy hold for one name, and a password that was wrong before costs
// it nothing.
func TestLimitsHold(t *testing.T) {
	g, err := dry.New(dry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	try := func(word byte) (v policies.Verdict) {
		e := attempt(monday, 1, "203.0.113.7")
		e.Password.Digest = detectors.Digest{word}
		if v = g.Before(e); v.Action < rules.Refuse {
			e.Outcome = detectors.Failure
			g.After(e)
		}
		return v
	}
	for i := range 40 {
		if v := try(1); v.Action != rules.Allow {
			t.Fatalf("the same wrong password, %d: %+v", i, v)
		}
	}
	last := policies.Verdict{}
	for i := range byte(20) {
		last = try(2 + i)
	}
	if last.Action != rules.Refuse || last.Reason != policies.ReasonLimit {
		t.Errorf("after 20 others: %s, want the limit", fmt.Sprint(last))
	}
}

// What the preset cannot do falls back as the rule declares.
func TestFallsBack(t *testing.T) {
	set, faults := rules.Load(fstest.MapFS{"a.yaml": {Data: []byte(`id: test.lying
title: A network fails
severity: low
owner: security-team
reason: For a test.
review_by: 2027-05-31
on: login.after
when: outcome == "failure"
then:
  - decide: {scope: source.network, action: deceive, for: 30m, else: refuse}
mode: enforce
tests:
  - name: a failure
    given: [{outcome: failure}]
    expect: {action: deceive, scope: source.network}
  - name: a success
    given: [{outcome: success}]
    expect: none
`)}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for _, test := range []struct {
		backend *policies.Backend
		want    rules.Action
	}{{nil, rules.Deceive}, {&policies.Backend{}, rules.Refuse}} {
		g, err := dry.New(dry.Config{Set: set, Backend: test.backend})
		if err != nil {
			t.Fatal(err)
		}
		first := attempt(monday, 1, "203.0.113.7")
		g.Before(first)
		first.Outcome = detectors.Failure
		g.After(first)
		if v := g.Before(attempt(monday.Add(time.Second), 2, "203.0.113.7")); v.Action != test.want {
			t.Errorf("with preset %v: %+v, want %s", test.backend, v, test.want)
		}
	}
}
