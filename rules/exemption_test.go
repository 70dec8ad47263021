package rules_test

import (
	"testing"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// What is exempted is no match, until the day it ends, and stays visible.
func TestExemptions(t *testing.T) {
	text := edited(t, "then:", "except:\n"+
		"  - {list: office, owner: hanako, reason: Our own office., until: 2026-11-24}\n"+
		"  - {when: 'inNetwork(source.address, \"198.51.100.0/24\")', owner: taro, reason: A partner., until: 2027-01-01}\nthen:")
	fsys := folder("a.yaml", text, "lists/office.networks", "203.0.113.0/24\n")
	set, errs := rules.Load(fsys)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	found := func(s *rules.Set, source string, at time.Time) int {
		events := failures(3, source)
		for i := range events {
			events[i].Time = at.Add(time.Duration(i) * time.Second)
		}
		observe(s, events...)
		return len(s.Evaluate(rules.LoginAfter, events[2], nil))
	}
	for _, test := range []struct {
		name, source string
		at           time.Time
		want         int
	}{
		{"nobody's", "192.0.2.7", monday, 1},
		{"the office's", "203.0.113.7", monday, 0},
		{"the office's last second", "203.0.113.8", time.Date(2026, 11, 23, 23, 59, 57, 0, time.UTC), 0},
		{"the office's day after", "203.0.113.9", time.Date(2026, 11, 23, 23, 59, 58, 0, time.UTC), 1},
		{"the partner's", "198.51.100.7", monday, 0},
	} {
		if got := found(set, test.source, test.at); got != test.want {
			t.Errorf("%s: got %d findings, want %d", test.name, got, test.want)
		}
	}
	check := func(s *rules.Set, first, second uint64) {
		t.Helper()
		all := s.Exempted()
		if len(all) != 2 || all[0].Matches != first || all[1].Matches != second || all[0].Rule != "test.example" || all[0].Exemption.Owner != "hanako" {
			t.Errorf("got %+v, want %d and %d matches", all, first, second)
		}
	}
	check(set, 2, 1)
	if got, want := set.Exempted()[0].Latest, time.Date(2026, 11, 23, 23, 59, 59, 0, time.UTC); !got.Equal(want) {
		t.Errorf("latest: got %v, want %v", got, want)
	}
	next, errs := rules.Reload(set, fsys, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	check(next, 0, 0)
	next.Adopt(set)
	check(next, 2, 1)
	check(set.Fresh(), 0, 0)
}
