package detectors_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

func TestPenalty(t *testing.T) {
	failure := func(name string) detectors.Event { return attempt(monday, here, name, detectors.Failure) }
	wrong := func(name string) detectors.Event { return of(failure(name), name, 90*24*time.Hour) }
	right := func(name string, age time.Duration) detectors.Event {
		return of(attempt(monday, here, name, detectors.Success), name, age)
	}
	with := func(e detectors.Event, change func(*detectors.Event)) detectors.Event { change(&e); return e }
	popular := func(e *detectors.Event) { e.Password.Popularity = 44 }
	typo := func(e *detectors.Event) { e.Password.Typo = true }
	later := func(d time.Duration) func(*detectors.Event) {
		return func(e *detectors.Event) { e.Time = e.Time.Add(d) }
	}
	wrongs := func(n int, change func(*detectors.Event)) (all []detectors.Event) {
		for i := range n {
			all = append(all, with(wrong(fmt.Sprint("user", i)), change))
		}
		return all
	}
	nothing := func(*detectors.Event) {}
	for _, test := range []struct {
		name   string
		config detectors.PenaltyConfig
		events []detectors.Event
		after  time.Duration
		want   float64
	}{
		{name: "nothing seen"},
		{name: "no such account", events: []detectors.Event{failure("a")}, want: 2},
		{name: "no such account while learning", config: detectors.PenaltyConfig{LearningUntil: monday.Add(time.Hour)}, events: []detectors.Event{failure("a")}, want: 1},
		{name: "wrong password", events: []detectors.Event{wrong("a")}, want: 1},
		{name: "popular password", events: []detectors.Event{with(wrong("a"), popular)}, want: 5},
		{name: "popular password, no such account", events: []detectors.Event{with(failure("a"), popular)}, want: 10},
		{name: "known typo", events: []detectors.Event{with(wrong("a"), typo)}, want: 0.1},
		{name: "same wrong password again", events: []detectors.Event{with(wrong("a"), func(e *detectors.Event) { e.Password.Repeat = true })}, want: 0},
		{name: "known device", events: []detectors.Event{with(wrong("a"), func(e *detectors.Event) { e.Device.State = detectors.Trusted })}, want: 0},
		{name: "refused by the gate", events: []detectors.Event{with(wrong("a"), func(e *detectors.Event) { e.Outcome = detectors.Refused })}, want: 0},
		{name: "half is gone after 12 h", events: wrongs(8, nothing), after: 12 * time.Hour, want: 4},
		{name: "a typo is given back on success", events: []detectors.Event{wrong("a"), with(right("a", time.Hour), typo)}, want: 0.1},
		{name: "another name's failure is not", events: []detectors.Event{wrong("a"), with(right("b", time.Hour), typo)}, want: 1},
		{name: "an old account vouches", events: append(wrongs(8, popular), right("b", 48*time.Hour)), want: 10},
		{name: "a new account does not", events: append(wrongs(8, popular), right("b", 23*time.Hour)), want: 40},
		{name: "a new account on a trusted device does", events: append(wrongs(8, popular), with(right("b", time.Hour), func(e *detectors.Event) { e.Device.State = detectors.Trusted })), want: 10},
		{name: "an account has 50 points to give", events: append(wrongs(20, popular), right("b", 48*time.Hour), right("b", 48*time.Hour), right("b", 48*time.Hour)), want: 50},
		{name: "and gets half of them back in 12 h", events: append(wrongs(20, popular), right("b", 48*time.Hour), right("b", 48*time.Hour), with(right("b", 48*time.Hour), later(12*time.Hour))), after: 12 * time.Hour, want: 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := detectors.NewPenalty(test.config)
			for _, e := range test.events {
				p.Observe(e)
			}
			got := value(p.Assess(attempt(monday.Add(test.after), here, "next", detectors.Unknown)), "source.penalty")
			if math.Abs(got-test.want) > 1e-6 {
				t.Errorf("points: got %v, want %v", got, test.want)
			}
		})
	}
}

func TestManyAccountsForgiveNoMoreThanTheCap(t *testing.T) {
	for _, test := range []struct {
		name      string
		age       time.Duration
		want, max float64
	}{
		{"200 fresh accounts", 23 * time.Hour, 1000, 1000},
		{"200 old accounts", 90 * 24 * time.Hour, 900, 900},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := detectors.NewPenalty(detectors.PenaltyConfig{})
			for i := range 1000 {
				name := fmt.Sprint("user", i)
				p.Observe(of(attempt(monday, here, name, detectors.Failure), name, test.age))
				if i%5 == 0 {
					mine := fmt.Sprint("mine", i)
					p.Observe(of(attempt(monday, here, mine, detectors.Success), mine, test.age))
				}
			}
			got := value(p.Assess(attempt(monday, here, "next", detectors.Unknown)), "source.penalty")
			if got < test.want-1e-6 || got > test.max+1e-6 {
				t.Errorf("points: got %v, want %v", got, test.want)
			}
		})
	}
}
