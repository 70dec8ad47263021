package detectors_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// word is the digest of the password number n.
func word(n uint64) (d detectors.Digest) {
	binary.BigEndian.PutUint64(d[:], n+1)
	binary.BigEndian.PutUint64(d[8:], ^n)
	return d
}

// with is e with a password, and the key of the n-th event.
func with(e detectors.Event, n, password uint64) detectors.Event {
	e.Key = detectors.EventKey{Node: "tokyo-1", Incarnation: 1, Sequence: n + 1}
	e.Password.Digest = word(password)
	return e
}

func informed(p *detectors.Passwords, e detectors.Event) detectors.PasswordFacts {
	p.Inform(&e)
	return e.Password
}

func guessOf(i uint64, password uint64) detectors.Event {
	e := attempt(monday.Add(time.Duration(i)*time.Second), "203.0.113.7", "", detectors.Failure)
	e.Name.Digest = word(i | 1<<40)
	return with(e, i, password)
}

func TestUnseenPasswordsAreNotPopular(t *testing.T) {
	p := detectors.NewPasswords(detectors.PasswordsConfig{})
	sum, highest := 0, 0
	const n = 1_000_000
	e := guessOf(0, 0)
	for i := range uint64(n) {
		e.Password = detectors.PasswordFacts{Digest: word(i)}
		h := informed(p, e).Popularity
		sum, highest = sum+h, max(highest, h)
	}
	if mean := float64(sum) / n; highest >= 44 || mean < 23.9 || mean > 24.1 {
		t.Errorf("a million unseen passwords stand at %.3f on average and %d at most, want 24 and less than 44", mean, highest)
	}
}

func TestASprayedPasswordIsPopularAfterTwentyGuesses(t *testing.T) {
	for _, share := range []float64{0.02, 0.3} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			p := detectors.NewPasswords(detectors.PasswordsConfig{})
			r := rand.New(rand.NewPCG(7, 7))
			var took []int
			i := uint64(0)
			for sprayed := range uint64(401) {
				for guesses := 0; ; i++ {
					if r.Float64() >= share {
						p.Observe(guessOf(i, 1<<32|i))
						continue
					}
					e := guessOf(i, sprayed)
					if informed(p, e).Popularity >= 44 {
						took = append(took, guesses)
						break
					}
					guesses++
					p.Observe(e)
				}
			}
			slices.Sort(took)
			if median := took[len(took)/2]; median < 20 || median > 30 {
				t.Errorf("popular after %d guesses (median of %v), want 20 to 30", median, took)
			} else {
				t.Logf("popular after %d guesses, %d to %d", median, took[0], took[len(took)-1])
			}
		})
	}
}

func TestThreeInFiveStepsAreForgottenInAQuarterOfTheLadder(t *testing.T) {
	p := detectors.NewPasswords(detectors.PasswordsConfig{Pairs: 1, Names: 1, Digests: 1})
	const sprayed = 100
	height := func() (sum int) {
		for w := range uint64(sprayed) {
			sum += informed(p, guessOf(0, w)).Popularity - 24
		}
		return sum
	}
	i := uint64(0)
	for w := range uint64(sprayed) {
		for range 40 {
			p.Observe(guessOf(i, w))
			i++
		}
	}
	before := height()
	for range uint64(1 << 21) {
		p.Observe(guessOf(i, 1<<32|i))
		i++
	}
	if left := float64(height()) / float64(before); left < 0.28 || left > 0.46 {
		t.Errorf("%.2f of the height is left, want 0.37", left)
	}
}

func TestRepeatsAndTypos(t *testing.T) {
	p := detectors.NewPasswords(detectors.PasswordsConfig{})
	at := func(d time.Duration, name string, password uint64, o detectors.Outcome) detectors.Event {
		return with(attempt(monday.Add(d), "203.0.113.7", name, o), uint64(d), password)
	}
	repeat := func(want bool, e detectors.Event) {
		t.Helper()
		if got := informed(p, e).Repeat; got != want {
			t.Errorf("%v: repeat %v, want %v", e.Time, got, want)
		}
	}
	repeat(false, at(0, "a", 1, detectors.Failure))
	p.Observe(at(0, "a", 1, detectors.Failure))
	repeat(true, at(11*time.Hour, "a", 1, detectors.Unknown))
	repeat(false, at(11*time.Hour, "b", 1, detectors.Failure))
	repeat(false, at(12*time.Hour, "a", 1, detectors.Failure))
	p.Observe(at(11*time.Hour, "a", 1, detectors.Failure))
	repeat(true, at(11*time.Hour+6*24*time.Hour, "a", 1, detectors.Failure)) // a forgotten client
	repeat(false, at(11*time.Hour+7*24*time.Hour, "a", 1, detectors.Failure))
	p.Observe(at(20*time.Hour, "a", 1, detectors.Success))
	repeat(false, at(21*time.Hour, "a", 1, detectors.Failure))

	kept := at(0, "a", 1, detectors.Success)
	kept.Password = detectors.PasswordFacts{Repeat: true, Typo: true, Popularity: 45}
	if got := informed(p, kept); !got.Repeat || !got.Typo || got.Popularity != 45 {
		t.Errorf("without a digest the facts became %+v", got)
	}

	wrong := at(30*time.Hour, "c", 2, detectors.Failure)
	wrong.Password.Near = []uint32{1, 2, 3}
	p.Observe(wrong)
	for _, c := range []struct {
		name  string
		after time.Duration
		who   string
		near  []uint32
		o     detectors.Outcome
		want  bool
	}{
		{"near", 9 * time.Minute, "c", []uint32{7, 3}, detectors.Success, true},
		{"too late", 10 * time.Minute, "c", []uint32{7, 3}, detectors.Success, false},
		{"another name", time.Minute, "d", []uint32{7, 3}, detectors.Success, false},
		{"not near", time.Minute, "c", []uint32{7, 8}, detectors.Success, false},
		{"wrong again", time.Minute, "c", []uint32{7, 3}, detectors.Failure, false},
	} {
		e := at(30*time.Hour+c.after, c.who, 3, c.o)
		e.Password.Near = c.near
		if got := informed(p, e).Typo; got != c.want {
			t.Errorf("%s: typo %v, want %v", c.name, got, c.want)
		}
	}
}

func TestSpreadCountsOtherNames(t *testing.T) {
	p := detectors.NewPasswords(detectors.PasswordsConfig{})
	for i := range uint64(20) {
		e := guessOf(i, 5)
		if got, want := value(p.Assess(e), "password.spread"), float64(min(i, 16)); got != want {
			t.Errorf("after %d names: %g, want %g", i, got, want)
		}
		p.Observe(e)
		p.Observe(e) // its own repeats add nothing
	}
	known := guessOf(30, 6)
	known.Device.State = detectors.Trusted
	p.Observe(known)
	if got := value(p.Assess(guessOf(31, 6)), "password.spread"); got != 0 {
		t.Errorf("a failure on a known device spreads to %g", got)
	}
	late := guessOf(0, 5)
	late.Time = monday.Add(25 * time.Hour)
	if got := value(p.Assess(late), "password.spread"); got != 0 {
		t.Errorf("%g names after a day, want 0", got)
	}
}

func TestOnlyNewWrongPairsOfStrangersStep(t *testing.T) {
	for name, change := range map[string]func(*detectors.Event){
		"repeat":       func(e *detectors.Event) { e.Name.Digest = word(9) },
		"success":      func(e *detectors.Event) { e.Outcome = detectors.Success },
		"refused":      func(e *detectors.Event) { e.Outcome = detectors.Refused },
		"known device": func(e *detectors.Event) { e.Device.State = detectors.Trusted },
	} {
		p := detectors.NewPasswords(detectors.PasswordsConfig{})
		before := informed(p, guessOf(0, 1)).Popularity
		for i := range uint64(40) {
			e := guessOf(i, 1)
			change(&e)
			p.Observe(e)
		}
		if got := informed(p, guessOf(99, 1)).Popularity; got > before+1 {
			t.Errorf("%s: rose from %d to %d", name, before, got)
		}
	}
}

// words is a set of the detectors of passwords and accounts, full soon.
func words() *detectors.Set {
	return detectors.NewSet(detectors.NewPasswords(detectors.PasswordsConfig{Pairs: 500, Names: 50, Digests: 100}),
		detectors.NewAccounts(detectors.AccountsConfig{Accounts: 100}))
}

func drawWords(r *rand.Rand, i int) detectors.Event {
	o := detectors.Failure
	if r.IntN(8) == 0 {
		o = detectors.Success
	}
	e := attempt(monday.Add(time.Duration(i)*20*time.Second), fmt.Sprintf("203.0.113.%d", r.IntN(20)), fmt.Sprint(r.IntN(150)), o)
	e = with(e, uint64(i), uint64(r.IntN(200)))
	e.Password.Near = []uint32{uint32(r.IntN(50)), uint32(r.IntN(50))}
	return e
}

func TestWordsSurviveARestart(t *testing.T) {
	through, now := words(), words()
	r := rand.New(rand.NewPCG(3, 3))
	for i := range 20000 {
		e := drawWords(r, i)
		a, b := through.Facts(e), now.Facts(e)
		if got, want := fmt.Sprint(b.Password, now.Assess(b)), fmt.Sprint(a.Password, through.Assess(a)); got != want {
			t.Fatalf("event %d: got %s, want %s", i, got, want)
		}
		through.Observe(a)
		now.Observe(b)
		if i%5000 == 4999 {
			now = restored(t, words(), snap(t, now, ""))
		}
	}
	if string(snap(t, now, "")) != string(snap(t, through, "")) {
		t.Error("the state differs at the end")
	}
}

func BenchmarkWords(b *testing.B) {
	p, d := detectors.NewPasswords(detectors.PasswordsConfig{}), detectors.NewAccounts(detectors.AccountsConfig{})
	for i := range uint64(1 << 20) {
		p.Observe(guessOf(0, i))
		d.Observe(guessOf(i%1000, i))
	}
	for name, do := range map[string]func(detectors.Event){
		"passwords/inform":  func(e detectors.Event) { p.Inform(&e) },
		"passwords/assess":  func(e detectors.Event) { p.Assess(e) },
		"passwords/observe": func(e detectors.Event) { p.Observe(e) },
		"accounts/assess":   func(e detectors.Event) { d.Assess(e) },
		"accounts/observe":  func(e detectors.Event) { d.Observe(e) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				i++
				e := guessOf(i%(1<<20), 1<<21|i)
				e.Time = monday
				do(e)
			}
		})
	}
}
