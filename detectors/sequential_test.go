package detectors_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
)

const here = "203.0.113.7"

func flaggedBy(d detectors.Detector, e detectors.Event) bool {
	return value(d.Assess(e), "source.flagged") == 1
}

// attack observes failures of new names until the source is flagged and returns
// how many it took; between is what the attacker does before each of them.
func attack(d detectors.Detector, limit int, between func(i int, at time.Time)) int {
	for i := range limit {
		at := monday.Add(time.Duration(i) * 200 * time.Millisecond)
		if between != nil {
			between(i, at)
		}
		e := attempt(at, here, fmt.Sprintf("victim%d", i), detectors.Failure)
		d.Observe(e)
		if flaggedBy(d, e) {
			return i + 1
		}
	}
	return limit + 1
}

func TestSequentialFlags(t *testing.T) {
	type step struct {
		repeat int
		every  time.Duration
		make   func(i int, at time.Time) detectors.Event
	}
	failure := func(i int, at time.Time) detectors.Event {
		return attempt(at, here, fmt.Sprint("user", i), detectors.Failure)
	}
	shared := func(i int, at time.Time) detectors.Event {
		e := failure(i, at)
		e.Source.Shared = true
		return e
	}
	one := func(i int, at time.Time) detectors.Event { return failure(0, at) }
	known := func(i int, at time.Time) detectors.Event {
		e := failure(i, at)
		e.Device.State = detectors.Probation
		return e
	}
	refused := func(i int, at time.Time) detectors.Event {
		e := failure(i, at)
		e.Outcome = detectors.Refused
		return e
	}
	request := func(i int, at time.Time) detectors.Event {
		e := failure(i, at)
		e.Kind = detectors.Request
		return e
	}
	oldAccount := func(i int, at time.Time) detectors.Event {
		return of(attempt(at, here, fmt.Sprint("old", i), detectors.Success), fmt.Sprint("old", i), 90*24*time.Hour)
	}
	newAccount := func(i int, at time.Time) detectors.Event {
		return of(attempt(at, here, fmt.Sprint("new", i), detectors.Success), fmt.Sprint("new", i), time.Hour)
	}
	sameAccount := func(i int, at time.Time) detectors.Event {
		return of(attempt(at, here, fmt.Sprint("spelling", i), detectors.Success), "one", 90*24*time.Hour)
	}
	ownFailure := func(i int, at time.Time) detectors.Event {
		e := newAccount(i, at)
		e.Outcome = detectors.Failure
		return e
	}
	elsewhere := func(i int, at time.Time) detectors.Event {
		return attempt(at, fmt.Sprintf("198.51.100.%d", i+1), fmt.Sprint("user", i), detectors.Failure)
	}
	for _, test := range []struct {
		name  string
		steps []step
		want  bool
	}{
		{"nothing seen", nil, false},
		{"7 straight failures", []step{{7, time.Second, failure}}, false},
		{"8 straight failures", []step{{8, time.Second, failure}}, true},
		{"8 straight failures, an hour each", []step{{8, time.Hour, failure}}, true},
		{"13 straight failures from a shared address", []step{{13, time.Second, shared}}, false},
		{"14 straight failures from a shared address", []step{{14, time.Second, shared}}, true},
		{"one name fails all week", []step{{2016, 5 * time.Minute, one}}, false},
		{"known devices fail", []step{{100, time.Second, known}}, false},
		{"attempts the backend never saw", []step{{100, time.Second, refused}}, false},
		{"requests are not attempts", []step{{100, time.Second, request}}, false},
		{"other sources fail", []step{{100, time.Second, elsewhere}}, false},
		{"12 h of quiet between two halves", []step{{7, time.Second, failure}, {1, 12 * time.Hour, one}, {1, time.Second, one}}, false},
		{"an old account succeeds in between", []step{{7, time.Second, failure}, {1, time.Second, oldAccount}, {3, time.Second, func(i int, at time.Time) detectors.Event { return failure(i+100, at) }}}, false},
		{"a new account succeeds in between", []step{{7, time.Second, failure}, {1, time.Second, newAccount}, {1, time.Second, func(i int, at time.Time) detectors.Event { return failure(i+100, at) }}}, true},
		{"one account under many spellings counts once", []step{{7, time.Second, failure}, {50, time.Second, sameAccount}, {5, time.Second, func(i int, at time.Time) detectors.Event { return failure(i+100, at) }}}, true},
		{"people who mistype take their failures back", []step{{7, time.Second, ownFailure}, {7, time.Second, newAccount}, {7, time.Second, failure}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, at := detectors.NewSequential(detectors.SequentialConfig{}), monday
			for _, s := range test.steps {
				for i := range s.repeat {
					d.Observe(s.make(i, at))
					at = at.Add(s.every)
				}
			}
			e := attempt(at, here, "next", detectors.Unknown)
			e.Source.Shared = false
			if got := flaggedBy(d, e); got != test.want {
				t.Errorf("flagged: got %v, want %v: %+v", got, test.want, d.Assess(e))
			}
		})
	}
}

func TestSequentialSaysWhy(t *testing.T) {
	d := detectors.NewSequential(detectors.SequentialConfig{})
	at := monday
	for i := range 13 {
		d.Observe(attempt(at, here, fmt.Sprint(i), detectors.Failure))
		if i == 2 {
			d.Observe(of(attempt(at, here, "x", detectors.Success), "x", time.Hour))
		}
	}
	why := "13 different names failed from 203.0.113.7, 1 succeeded"
	got := d.Assess(attempt(at, here, "y", detectors.Unknown))
	for i := range got {
		got[i].Value = float64(int(got[i].Value))
	}
	want := []detectors.Signal{{Name: "source.sequential", Value: 15, Why: why}, {Name: "source.flagged", Value: 1, Why: why}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFreshAccountsBuyNothing(t *testing.T) {
	d := detectors.NewSequential(detectors.SequentialConfig{})
	got := attack(d, 1000, func(i int, at time.Time) {
		mine := fmt.Sprint("mine", i%200)
		d.Observe(of(attempt(at, here, mine, detectors.Success), mine, 23*time.Hour))
	})
	if want := 8; got != want {
		t.Errorf("failures until flagged: got %d, want %d", got, want)
	}
}

func TestOldAccountsBuyNoMoreThanTheCap(t *testing.T) {
	for _, test := range []struct {
		name        string
		mistypeToo  bool
		want, least int
	}{
		{"200 old accounts", false, detectors.SequentialSteps, 60},
		{"200 old accounts that fail first", true, detectors.SequentialSteps, 60},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := detectors.NewSequential(detectors.SequentialConfig{})
			got := attack(d, 1000, func(i int, at time.Time) {
				if i%2 != 0 || i/2 >= 200 {
					return
				}
				mine := fmt.Sprint("mine", i/2)
				e := of(attempt(at, here, mine, detectors.Success), mine, 90*24*time.Hour)
				if test.mistypeToo {
					f := e
					f.Outcome = detectors.Failure
					d.Observe(f)
				}
				d.Observe(e)
			})
			if got > test.want || got < test.least {
				t.Errorf("failures until flagged: got %d, want %d to %d", got, test.least, test.want)
			}
		})
	}
}

// Scenario B1 of the evaluation protocol, on both days.
func TestOfficeOnMondayIsNeverFlagged(t *testing.T) {
	never := func(t *testing.T, seed uint64, d detectors.Detector, events []detectors.Event) (worst float64) {
		for _, e := range events {
			d.Observe(e)
			worst = max(worst, value(d.Assess(e), "source.sequential"))
			if flaggedBy(d, e) {
				t.Fatalf("seed %d: flagged at %s: %+v", seed, e.Time.Format(time.TimeOnly), d.Assess(e))
			}
		}
		return worst
	}
	var first, second, bare float64
	for seed := uint64(1); seed <= 50; seed++ {
		d := detectors.NewSequential(detectors.SequentialConfig{LearningUntil: monday.Add(24 * time.Hour)})
		first = max(first, never(t, seed, d, office(seed, monday, 2000, 0, func(int) time.Time { return time.Time{} })))
		since := func(int) time.Time { return monday.Add(15 * time.Minute) }
		second = max(second, never(t, seed, d, office(seed+1000, monday.Add(24*time.Hour), 2000, 0.9, since)))

		d = detectors.NewSequential(detectors.SequentialConfig{})
		since = func(int) time.Time { return monday.AddDate(0, 0, -30) }
		bare = max(bare, never(t, seed, d, office(seed, monday, 2000, 0, since)))
	}
	t.Logf("highest ratio of 50 offices: first day %.2f, second day %.2f, everybody without a device %.2f; limit 9.20", first, second, bare)
}

// Scenario A1: one address, a list with one working pair in two hundred.
func TestListIsFlaggedWithinFifteenAttempts(t *testing.T) {
	worst, total := 0, 0
	for seed := uint64(1); seed <= 200; seed++ {
		r := rand.New(rand.NewPCG(seed, 2))
		d := detectors.NewSequential(detectors.SequentialConfig{})
		for i := 1; ; i++ {
			name := fmt.Sprint("victim", i)
			e := of(attempt(monday.Add(time.Duration(i)*200*time.Millisecond), here, name, detectors.Failure), name, 90*24*time.Hour)
			if r.Float64() < 0.005 {
				e.Outcome = detectors.Success
			}
			d.Observe(e)
			if flaggedBy(d, e) {
				worst, total = max(worst, i), total+i
				break
			}
			if i == 15 {
				t.Fatalf("seed %d: not flagged after 15 attempts", seed)
			}
		}
	}
	t.Logf("attempts until flagged, 200 seeds: worst %d, mean %.2f", worst, float64(total)/200)
}

func drawEvent(t *rapid.T, sources int) detectors.Event {
	e := attempt(monday.Add(time.Duration(rapid.IntRange(0, 100_000).Draw(t, "second"))*time.Second),
		fmt.Sprintf("203.0.113.%d", rapid.IntRange(1, sources).Draw(t, "source")),
		fmt.Sprint("user", rapid.IntRange(0, 30).Draw(t, "name")),
		rapid.SampledFrom([]detectors.Outcome{detectors.Success, detectors.Failure, detectors.Failure, detectors.Failure, detectors.Refused}).Draw(t, "outcome"))
	if rapid.Bool().Draw(t, "has account") {
		e = of(e, fmt.Sprint("user", rapid.IntRange(0, 30).Draw(t, "account")), time.Duration(rapid.IntRange(0, 48).Draw(t, "age"))*time.Hour)
	}
	e.Device.State = rapid.SampledFrom([]detectors.DeviceState{detectors.NoDevice, detectors.NoDevice, detectors.Stranger, detectors.Trusted}).Draw(t, "device")
	e.Password.Typo = rapid.Bool().Draw(t, "typo")
	e.Password.Popularity = rapid.SampledFrom([]int{0, 24, 44}).Draw(t, "popularity")
	return e
}

func TestAssessChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		quiet, asked := detectors.Default(monday), detectors.Default(monday)
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			e := drawEvent(t, 3)
			asked.Assess(drawEvent(t, 3))
			first := asked.Assess(e)
			if diff := cmp.Diff(first, asked.Assess(e)); diff != "" {
				t.Fatalf("asked twice (-first +second):\n%s", diff)
			}
			if diff := cmp.Diff(quiet.Assess(e), first); diff != "" {
				t.Fatalf("asked before (-never +often):\n%s", diff)
			}
			quiet.Observe(e)
			asked.Observe(e)
		}
	})
}

// ofSources are the detectors that know nothing beyond a source.
func ofSources() *detectors.Set {
	return detectors.NewSet(detectors.NewSequential(detectors.SequentialConfig{}), detectors.NewPenalty(detectors.PenaltyConfig{}))
}

func TestSourcesDoNotDependOnEachOthersOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := ofSources(), ofSources()
		var asked []detectors.Event
		for round := range rapid.IntRange(1, 20).Draw(t, "rounds") {
			at := monday.Add(time.Duration(round) * time.Minute)
			var events []detectors.Event
			for i := range 4 {
				e := drawEvent(t, 1)
				e.Time = at
				e.Account = detectors.Account(fmt.Sprint(e.Account, "@", i))
				e.Source = attempt(at, fmt.Sprintf("203.0.113.%d", i+1), "", detectors.Failure).Source
				events = append(events, e)
			}
			asked = events
			for _, e := range events {
				a.Observe(e)
			}
			for _, e := range rapid.Permutation(events).Draw(t, "order") {
				b.Observe(e)
			}
		}
		for _, e := range asked {
			if diff := cmp.Diff(a.Assess(e), b.Assess(e)); diff != "" {
				t.Fatalf("(-one order +another):\n%s", diff)
			}
		}
	})
}

func TestUnknownSourceCostsNoAllocation(t *testing.T) {
	set := detectors.Default(time.Time{})
	set.Observe(attempt(monday, "198.51.100.1", "a", detectors.Failure))
	e := attempt(monday, here, "b", detectors.Unknown)
	if got := testing.AllocsPerRun(100, func() { set.Assess(e) }); got != 0 {
		t.Errorf("allocations: got %v, want 0", got)
	}
}

func TestSequentialStaysWithinItsBound(t *testing.T) {
	d := detectors.NewSequential(detectors.SequentialConfig{Sources: 1000})
	for i := range 8 {
		d.Observe(attempt(monday, here, fmt.Sprint(i), detectors.Failure))
	}
	for i := range 100_000 {
		d.Observe(attempt(monday.Add(time.Duration(i)*time.Millisecond), fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "a", detectors.Failure))
	}
	if e := attempt(monday.Add(time.Hour), here, "a", detectors.Unknown); !flaggedBy(d, e) {
		t.Error("a flood of new sources pushed out a flagged one")
	}
}

func TestSourcesThatAreNotKnownAreOneSource(t *testing.T) {
	d := detectors.NewSequential(detectors.SequentialConfig{})
	var e detectors.Event
	for i := range 8 {
		e = attempt(monday, here, fmt.Sprint(i), detectors.Failure)
		e.Source = detectors.Source{}
		d.Observe(e)
	}
	if !flaggedBy(d, e) {
		t.Error("not flagged: want the unknown source to be no safer than another")
	}
	d.Observe(detectors.Event{}) // and the zero event to do no harm
}
