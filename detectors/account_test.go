package detectors_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
)

func at(d time.Duration, source, account string, password uint64, o detectors.Outcome) detectors.Event {
	e := of(attempt(monday.Add(d), source, account, o), account, 48*time.Hour)
	return with(e, uint64(d), password)
}

func TestAccountsCountDifferentGuesses(t *testing.T) {
	d := detectors.NewAccounts(detectors.AccountsConfig{})
	now := at(24*time.Hour-time.Minute, "198.51.100.1", "victim", 0, detectors.Unknown)
	for i := range 1000 { // A5
		d.Observe(at(time.Duration(i)*time.Minute, fmt.Sprintf("203.0.113.%d", i%100), "victim", uint64(i), detectors.Failure))
		if want := float64(min(i+1, 64)); value(d.Assess(at(time.Duration(i)*time.Minute, "198.51.100.1", "victim", 0, detectors.Unknown)), "account.guesses") != want {
			t.Fatalf("after %d guesses: %v, want %g", i+1, d.Assess(now), want)
		}
	}
	signals := d.Assess(now)
	if got := value(signals, "account.guessers"); got != 16 {
		t.Errorf("%g networks, want 16", got)
	}
	if why := signals[0].Why; !strings.Contains(why, "64 wrong guesses") || !strings.Contains(why, "16 or more networks with 1 client program") {
		t.Errorf("says %q", why)
	}
	now.Device.State = detectors.Trusted
	if got := d.Assess(now); got != nil {
		t.Errorf("the owner's device hears %v", got)
	}
	if got := d.Assess(at(0, "203.0.113.1", "another", 0, detectors.Unknown)); got != nil {
		t.Errorf("another account hears %v", got)
	}
}

func TestSixVariantsThirtyTimesAreSixGuesses(t *testing.T) { // B4
	d := detectors.NewAccounts(detectors.AccountsConfig{})
	trusted := detectors.NewAccounts(detectors.AccountsConfig{})
	for i := range 30 {
		e := at(time.Duration(i)*10*time.Second, "203.0.113.1", "hanako", uint64(i%6), detectors.Failure)
		d.Observe(e)
		e.Device.State = detectors.Trusted
		trusted.Observe(e)
	}
	now := at(5*time.Minute, "203.0.113.1", "hanako", 9, detectors.Unknown)
	if got := d.Assess(now); value(got, "account.guesses") != 6 || value(got, "account.guessers") != 1 {
		t.Errorf("got %v, want 6 guesses from 1 network", got)
	}
	if got := trusted.Assess(now); got != nil {
		t.Errorf("mistakes on a trusted device are %v", got)
	}
}

func TestTypedNamesAreForgivenWithTheAccount(t *testing.T) {
	d := detectors.NewAccounts(detectors.AccountsConfig{})
	e := at(0, "203.0.113.1", "hanako", 1, detectors.Failure)
	e.Account = ""
	d.Observe(e)
	if got := value(d.Assess(e), "account.guesses"); got != 1 {
		t.Fatalf("%g guesses at a typed name, want 1", got)
	}
	d.Observe(at(time.Minute, "203.0.113.1", "hanako", 2, detectors.Success))
	if got := d.Assess(e); got != nil {
		t.Errorf("after the success: %v", got)
	}
}

// An account that nobody logged in to yet is guessed at by name. When its owner comes,
// strangers do not begin again from nothing.
func TestGuessesAtANameGoToItsAccount(t *testing.T) {
	d := detectors.NewAccounts(detectors.AccountsConfig{})
	for i := range 6 {
		e := at(time.Duration(i)*time.Minute, fmt.Sprintf("203.0.113.%d", i), "hanako", uint64(i), detectors.Failure)
		e.Account = ""
		d.Observe(e)
	}
	d.Observe(at(10*time.Minute, "203.0.113.5", "hanako", 9, detectors.Success))
	now := at(20*time.Minute, "198.51.100.1", "hanako", 10, detectors.Unknown)
	if got := d.Assess(now); value(got, "account.guesses") != 5 || value(got, "account.guessers") != 5 {
		t.Errorf("got %v, want 5 guesses from 5 networks: the owner's own one is taken back", got)
	}
	d.Observe(at(21*time.Minute, "203.0.113.7", "hanako", 3, detectors.Failure))
	d.Observe(at(22*time.Minute, "203.0.113.7", "hanako", 70, detectors.Failure))
	if got := value(d.Assess(now), "account.guesses"); got != 6 {
		t.Errorf("%g guesses, want 6: one was tried before, by name", got)
	}
	late := at(24*time.Hour+3*time.Minute, "198.51.100.1", "hanako", 10, detectors.Unknown)
	if got := value(d.Assess(late), "account.guesses"); got != 2 {
		t.Errorf("%g guesses a day later, want the 2 that are younger", got)
	}
	now.Account = ""
	if got := d.Assess(now); got != nil {
		t.Errorf("the name still has %v", got)
	}
}

// naive keeps every guess.
type naive []detectors.Event

func minutes(e detectors.Event) int64 { return e.Time.Unix() / 60 }

func (n *naive) current(now detectors.Event) (kept naive) {
	for _, e := range *n {
		if minutes(now)-minutes(e) < 24*60 {
			kept = append(kept, e)
		}
	}
	return kept
}

func (n *naive) observe(e detectors.Event) {
	if e.Device.Known() || e.Outcome == detectors.Success && e.Unproven || e.Outcome == detectors.Refused {
		return
	}
	kept := n.current(e)
	if e.Outcome == detectors.Success {
		*n = nil
		for _, g := range kept {
			if g.Source.Network != e.Source.Network {
				*n = append(*n, g)
			}
		}
		return
	}
	*n = kept
	if e.Password.Repeat {
		return
	}
	for _, g := range kept {
		if !e.Password.Digest.IsZero() && g.Password.Digest == e.Password.Digest {
			return
		}
	}
	*n = append(kept, e)
	if len(*n) > 64 {
		*n = (*n)[1:]
	}
}

func (n *naive) points(now detectors.Event) (points float64, networks int) {
	seen := map[string]bool{}
	for _, g := range n.current(now) {
		points++
		if g.Password.Popularity >= 44 {
			points++
		}
		seen[g.Source.Network.String()] = true
	}
	return points, min(len(seen), 16)
}

func TestAccountsAreAsANaiveCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, model := detectors.NewAccounts(detectors.AccountsConfig{}), map[string]*naive{"a": {}, "b": {}}
		when := time.Duration(0)
		longest := rapid.SampledFrom([]int{1, 60, 600}).Draw(t, "minutes")
		for range rapid.IntRange(0, 150).Draw(t, "events") {
			when += time.Duration(rapid.IntRange(0, longest*60).Draw(t, "seconds")) * time.Second
			account := rapid.SampledFrom([]string{"a", "a", "a", "b"}).Draw(t, "account")
			source := fmt.Sprintf("203.0.113.%d", rapid.IntRange(0, 20).Draw(t, "source"))
			e := at(when, source, account, rapid.Uint64Range(0, 150).Draw(t, "password"), detectors.Failure)
			switch rapid.IntRange(0, 15).Draw(t, "kind") {
			case 0:
				e.Outcome = detectors.Success
			case 1:
				e.Outcome, e.Unproven = detectors.Success, true
			case 2:
				e.Outcome = detectors.Refused
			case 3:
				e.Device.State = detectors.Probation
			case 4:
				e.Password.Repeat = true
			case 5:
				e.Password.Digest = detectors.Digest{}
			case 6, 7:
				e.Password.Popularity = 44
			}
			d.Observe(e)
			model[account].observe(e)
			e.Device = detectors.Device{}
			points, networks := model[account].points(e)
			got := d.Assess(e)
			if value(got, "account.guesses") != points || value(got, "account.guessers") != float64(networks) {
				t.Fatalf("%v: got %v, want %g points from %d networks", e.Time, got, points, networks)
			}
		}
	})
}
