package rules_test

import (
	"strings"
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	text := edited(t, "review_by: 2027-05-31", "review_by: 2027-01-10", "then:", "except:\n"+
		"  - {when: 'shared(1)', owner: hanako, reason: Our own office., until: 2027-01-01}\n"+
		"  - {when: 'shared(2)', owner: taro, reason: A partner., until: 2027-02-01}\nthen:")
	text = strings.NewReplacer("shared(1)", `inNetwork(source.address, "203.0.113.0/24")`, "shared(2)", `inNetwork(source.address, "198.51.100.0/24")`).Replace(text)
	r := load(t, "a.yaml", text).Rules()[0]
	at := func(month, day, hour int) time.Time {
		return time.Date(2027, time.Month(month), day, hour, 0, 0, 0, time.UTC)
	}
	for _, test := range []struct {
		now  time.Time
		want []string // each a part
	}{
		{at(0, 17, 23), nil}, // December 2026
		{at(0, 18, 0), []string{"except[0]: ends on 2027-01-01: hanako"}},
		{at(0, 31, 23), []string{"except[0]: ends on 2027-01-01"}},
		{at(1, 1, 0), []string{"except[0]: ended on 2027-01-01"}},
		{at(1, 10, 23), []string{"except[0]: ended"}},
		{at(1, 11, 0), []string{"review_by: 2027-01-10 is over: security-team", "except[0]: ended"}},
		{at(1, 18, 0), []string{"review_by: ", "except[0]: ended", "except[1]: ends on 2027-02-01: taro"}},
	} {
		got := r.Due(test.now)
		if len(got) != len(test.want) {
			t.Errorf("%s: got %q, want %q", test.now, got, test.want)
			continue
		}
		for i, part := range test.want {
			if !strings.Contains(got[i], part) {
				t.Errorf("%s: got %q, want %q in it", test.now, got[i], part)
			}
		}
	}
}
