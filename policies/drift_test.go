package policies_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

// drifter feeds answers one second apart and keeps what is told.
type drifter struct {
	policies.Drift
	now  time.Time
	told []policies.DriftChange
}

func newDrifter() *drifter {
	return &drifter{now: time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)}
}

func (d *drifter) see(times int, a policies.LoginAnswer, sources int) {
	for i := range times {
		d.now = d.now.Add(time.Second)
		a.Time = d.now
		a.Source = detectors.Digest{1, byte(i % sources)}
		if c, changed := d.Observe(a); changed {
			d.told = append(d.told, c)
		}
	}
}

var (
	fits    = policies.LoginAnswer{Status: 302, Fit: policies.Fits}
	neither = policies.LoginAnswer{Status: 418, Fit: policies.FitsNeither}
)

func TestDrift(t *testing.T) {
	d := newDrifter()
	d.see(1000, fits, 50)
	changed := d.now.Add(time.Second)
	d.see(500, neither, 50) // an upgrade: nothing fits any more
	if len(d.told) != 1 {
		t.Fatalf("told %d times, want once: %v", len(d.told), d.told)
	}
	want := policies.DriftChange{
		Drifting: true, Time: changed.Add(19 * time.Second), Since: changed,
		Answers: 200, Neither: 20, Statuses: []policies.DriftStatus{{Status: 418, Count: 20}},
	}
	if diff := cmp.Diff(want, d.told[0]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if since, drifting := d.Drifting(); !drifting || !since.Equal(changed) {
		t.Errorf("drifting since %v, %v", since, drifting)
	}
	if text := d.told[0].String(); !strings.Contains(text, "20 meet no condition") || !strings.Contains(text, "418 (20 times)") {
		t.Errorf("it says: %s", text)
	}
	again := d.now.Add(time.Second)
	d.see(1000, fits, 50) // the preset was changed
	if len(d.told) != 2 || d.told[1].Drifting || d.told[1].Since.Before(changed) || d.told[1].Time.Sub(again) > 200*time.Second {
		t.Fatalf("told %v, want that they fit again by %v", d.told, again)
	}
	if _, drifting := d.Drifting(); drifting {
		t.Error("it still says that they do not fit")
	}
	d.see(1000, neither, 50)
	if len(d.told) != 3 || !d.told[2].Drifting {
		t.Fatalf("told %v, want a second time", d.told)
	}
}

func TestDriftOfAPart(t *testing.T) {
	for _, tc := range []struct {
		name    string
		misfit  policies.LoginAnswer
		every   int // one in so many does not fit
		sources int
		told    int
	}{
		{"one in four", neither, 4, 40, 1},
		{"one in four, to contrary conditions", policies.LoginAnswer{Status: 200, Fit: policies.FitsBoth}, 4, 40, 1},
		{"one in four, accepted and nobody", policies.LoginAnswer{Status: 302, Fit: policies.Fits, Unidentified: true}, 4, 40, 1},
		{"one in ten", neither, 10, 40, 0},
		{"one in four, all of two sources", neither, 4, 2, 0},
		{"a dead backend", policies.LoginAnswer{Status: 502, Fit: policies.FitsNeither}, 2, 40, 0},
		{"no answer at all", policies.LoginAnswer{Fit: policies.FitsNeither}, 2, 40, 0},
		{"a failure that the preset calls so", policies.LoginAnswer{Status: 503, Fit: policies.Fits}, 2, 40, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDrifter()
			d.see(300, fits, 40)
			for i := range 400 {
				d.see(tc.every-1, fits, 40)
				tc.misfit.Source = detectors.Digest{2, byte(i % tc.sources)}
				d.now = d.now.Add(time.Second)
				tc.misfit.Time = d.now
				if c, changed := d.Observe(tc.misfit); changed {
					d.told = append(d.told, c)
				}
			}
			if len(d.told) != tc.told {
				t.Errorf("told %v, want %d", d.told, tc.told)
			}
		})
	}
}

func TestDriftOfTheFirstAnswers(t *testing.T) {
	d := newDrifter()
	d.see(19, neither, 1)
	if len(d.told) != 0 {
		t.Fatalf("told after 19 answers: %v", d.told)
	}
	d.see(1, neither, 1)
	if len(d.told) != 1 || d.told[0].Answers != 20 {
		t.Fatalf("a preset that never fitted: told %v, want once after 20", d.told)
	}
	d.see(10, fits, 1)
	d.see(1, neither, 1)
	d.see(20, fits, 1)
	if len(d.told) != 1 {
		t.Errorf("told %v although one in 31 does not fit", d.told)
	}
}

// TestDriftIsToldInTurns feeds whatever comes: beginnings and ends alternate.
func TestDriftIsToldInTurns(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newDrifter()
		for range 40 {
			answer := fits
			if r.IntN(2) == 0 {
				answer = neither
			}
			d.see(r.IntN(300), answer, 1+r.IntN(5))
		}
		for i, c := range d.told {
			if c.Drifting != (i%2 == 0) || c.Answers < 20 || c.Answers > 200 || c.Since.After(c.Time) {
				t.Fatalf("seed %d: change %d is %+v", seed, i, c)
			}
		}
	}
}
