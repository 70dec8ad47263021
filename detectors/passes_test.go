package detectors_test

import (
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

func TestAnAccountPassesOnceAQuarter(t *testing.T) {
	const hanako = 0xfeed_0123_4567_89ab
	p := new(detectors.Passes)
	for _, step := range []struct {
		after time.Duration
		hash  uint64
		first bool
		what  string
	}{
		{0, hanako, true, "the first time"},
		{0, hanako, false, "at once again"},
		{14 * time.Minute, hanako, false, "within the quarter of an hour, which does not begin anew"},
		{10 * time.Minute, hanako ^ 1<<40, true, "somebody else in the same line"},
		{15 * time.Minute, hanako, true, "after it"},
		{13 * time.Minute, hanako, false, "an event that is a little late"},
		{75 * time.Hour, hanako, true, "days later, when minutes have wrapped"},
	} {
		if got := p.First(step.hash, monday.Add(step.after)); got != step.first {
			t.Errorf("%s: first is %v, want %v", step.what, got, step.first)
		}
	}
	// Sixteen share a line; the one that came first makes room for another.
	for i := range uint64(17) {
		if at := monday.Add(200*time.Hour + time.Duration(i)*50*time.Second); !p.First(hanako^(i+2)<<32, at) {
			t.Errorf("account %d of a line that is full is not the first", i)
		}
	}
	at := monday.Add(200*time.Hour + 14*time.Minute)
	if p.First(hanako^3<<32, at) || !p.First(hanako^2<<32, at) {
		t.Error("want that the second is remembered, and the first made room")
	}
}
