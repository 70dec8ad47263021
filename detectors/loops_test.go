package detectors_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
)

// tried is a failed log-in at a minute after monday; password 0 is not known.
func tried(minute int, source, name string, password byte) detectors.Event {
	e := attempt(monday.Add(time.Duration(minute)*time.Minute), source, name, detectors.Failure)
	e.Password.Digest[0] = password
	return e
}

func TestLoops(t *testing.T) {
	every := func(minutes, n int, passwords ...byte) (events []detectors.Event) {
		for i := range n {
			events = append(events, tried(i*minutes, here, "a", passwords[i%len(passwords)]))
		}
		return events
	}
	with := func(events []detectors.Event, more ...detectors.Event) []detectors.Event {
		return append(events, more...)
	}
	outcome := func(e detectors.Event, o detectors.Outcome) detectors.Event { e.Outcome = o; return e }
	for _, test := range []struct {
		name   string
		events []detectors.Event
		ask    detectors.Event
		want   float64
	}{
		{"nine times", every(5, 9, 1), tried(50, here, "a", 1), 0},
		{"ten times", every(5, 10, 1), tried(50, here, "a", 1), 1},
		{"a day of it", every(5, 288, 1), tried(1440, here, "a", 1), 1},
		{"a week of it", every(5, 7*288, 1), tried(7*1440, here, "a", 1), 1},
		{"the new password", every(5, 288, 1), tried(1440, here, "a", 2), 0},
		{"a new wrong one, again", with(every(5, 288, 1), tried(1440, here, "a", 2)), tried(1440, here, "a", 2), 0},
		{"another name", every(5, 288, 1), tried(1440, here, "b", 1), 0},
		{"another network", every(5, 288, 1), tried(1440, "203.0.113.8", "a", 1), 0},
		{"no password known", every(5, 288, 0), tried(1440, here, "a", 0), 0},
		{"two passwords in turn", every(5, 40, 1, 2), tried(200, here, "a", 2), 1},
		{"six variants", every(1, 30, 1, 2, 3, 4, 5, 6), tried(30, here, "a", 1), 0},
		{"a day later", every(5, 20, 1), tried(100+1440, here, "a", 1), 0},
		{"refused, wrong before", with(every(5, 1, 1), outcome(tried(5, here, "a", 1), detectors.Refused), outcome(tried(6, here, "a", 1), detectors.Refused),
			outcome(tried(7, here, "a", 1), detectors.Refused), outcome(tried(8, here, "a", 1), detectors.Refused), outcome(tried(9, here, "a", 1), detectors.Refused),
			outcome(tried(10, here, "a", 1), detectors.Refused), outcome(tried(11, here, "a", 1), detectors.Refused), outcome(tried(12, here, "a", 1), detectors.Refused),
			outcome(tried(13, here, "a", 1), detectors.Refused)), tried(14, here, "a", 1), 1},
		{"it is right now", with(every(5, 50, 1), outcome(tried(260, here, "a", 1), detectors.Success)), tried(270, here, "a", 1), 0},
		{"another was right", with(every(5, 50, 1), outcome(tried(260, here, "a", 2), detectors.Success)), tried(270, here, "a", 1), 1},
		{"no answer", with(nil, slices.Repeat([]detectors.Event{outcome(tried(0, here, "a", 1), detectors.Unknown)}, 50)...), tried(1, here, "a", 1), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := detectors.NewLoops(detectors.LoopsConfig{})
			for _, e := range test.events {
				l.Observe(e)
			}
			if got := l.Assess(test.ask); value(got, "client.loop") != test.want {
				t.Errorf("got %v, want client.loop %v", got, test.want)
			}
		})
	}
}

func TestALoopIsToldInWords(t *testing.T) {
	l := detectors.NewLoops(detectors.LoopsConfig{})
	for i := range 200 {
		l.Observe(tried(5*i, here, "a", 1))
	}
	const want = "the same wrong password 200 times from 203.0.113.7: a program with an old password"
	for _, s := range l.Assess(tried(999, here, "a", 1)) {
		if s.Name == "client.loop" && s.Why == want {
			return
		}
	}
	t.Errorf("got %v, want %q", l.Assess(tried(999, here, "a", 1)), want)
}

// pair is a network and a name as a slow model keeps it.
type pair struct {
	passwords []byte // latest first
	times     map[byte]int
	failed    []failedPair
	last      time.Time
}

type failedPair struct {
	window int64
	fresh  bool
}

func sums(failed []failedPair, now time.Time) (n, fresh int) {
	for _, f := range failed {
		if f.window > now.Unix()/21600-4 {
			n++
			if f.fresh {
				fresh++
			}
		}
	}
	return n, fresh
}

// While there is room, loops are what plain lists say.
func TestLoopsAreAsAPlainListSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := detectors.NewLoops(detectors.LoopsConfig{})
		pairs, sources := map[string]*pair{}, map[string]*pair{}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		passwords, pause := rapid.IntRange(1, 8).Draw(t, "passwords"), rapid.SampledFrom([]int{3, 60, 900}).Draw(t, "pause")
		minute := 0
		for range rapid.IntRange(0, 300).Draw(t, "events") {
			minute += r.IntN(pause)
			source, name := fmt.Sprintf("203.0.113.%d", r.IntN(2)), fmt.Sprint(r.IntN(2))
			e := tried(minute, source, name, byte(1+r.IntN(passwords)*r.IntN(2)))
			e.Outcome = []detectors.Outcome{detectors.Failure, detectors.Failure, detectors.Failure, detectors.Failure, detectors.Refused, detectors.Success}[r.IntN(6)]
			l.Observe(e)

			p, password := pairs[source+name], e.Password.Digest[0]
			if p == nil || e.Time.Sub(p.last) >= 24*time.Hour {
				p = &pair{times: map[byte]int{}}
				pairs[source+name] = p
			}
			i := slices.Index(p.passwords, password)
			switch {
			case e.Outcome == detectors.Success && i >= 0:
				p.passwords = slices.Delete(p.passwords, i, i+1)
				delete(p.times, password)
				p.last = e.Time
			case e.Outcome == detectors.Failure || e.Outcome == detectors.Refused && i >= 0:
				if i >= 0 {
					p.passwords = slices.Delete(p.passwords, i, i+1)
				} else {
					p.times[password] = 0
				}
				p.times[password]++
				p.passwords = append([]byte{password}, p.passwords...)
				p.passwords = p.passwords[:min(4, len(p.passwords))]
				f := failedPair{e.Time.Unix() / 21600, i < 0}
				p.failed, p.last = append(p.failed, f), e.Time
				s := sources[source]
				if s == nil || e.Time.Sub(s.last) >= 24*time.Hour {
					s = &pair{}
					delete(sources, source)
				}
				if !f.fresh || sources[source] != nil {
					s.failed, s.last = append(s.failed, f), e.Time
					sources[source] = s
				}
			}

			ask := tried(minute+r.IntN(pause), source, name, password)
			loop, repeated := 0.0, 0.0
			if n, fresh := sums(p.failed, ask.Time); ask.Time.Sub(p.last) < 24*time.Hour && slices.Contains(p.passwords, password) &&
				p.times[password] >= 8 && n >= 8 && 10*max(fresh, 1) <= n {
				loop = 1
			}
			if s := sources[source]; s != nil && ask.Time.Sub(s.last) < 24*time.Hour {
				if n, fresh := sums(s.failed, ask.Time); n >= 8 && 2*fresh <= n {
					repeated = 1 - float64(fresh)/float64(n)
				}
			}
			got := l.Assess(ask)
			if value(got, "client.loop") != loop || math.Abs(value(got, "source.repeated_pairs")-repeated) > 1e-9 {
				t.Fatalf("minute %d: got %v, want client.loop %v, source.repeated_pairs %v", minute, got, loop, repeated)
			}
		}
	})
}

func TestTokenStormsTouchNobodysLogin(t *testing.T) {
	l := detectors.NewLoops(detectors.LoopsConfig{})
	token := func(second int) detectors.Event {
		e := attempt(monday.Add(time.Duration(second)*time.Second), here, "", detectors.Failure)
		e.Kind, e.Route, e.Credential, e.Name = detectors.Door, detectors.Other, "token", detectors.Name{}
		return e
	}
	for i := range 600 {
		for range 10 {
			l.Observe(token(i))
		}
	}
	if got, want := value(l.Assess(token(599)), "client.token_storm"), 6000.0; got != want {
		t.Errorf("at the end: got %v, want %v", got, want)
	}
	if got, want := value(l.Assess(token(900)), "client.token_storm"), 3000.0; got != want {
		t.Errorf("5 min later: got %v, want %v", got, want)
	}
	if got := l.Assess(token(1200)); len(got) != 0 {
		t.Errorf("10 min later: got %v", got)
	}
	other, elsewhere, person := token(599), token(599), tried(9, here, "hanako", 1)
	other.Credential, person.Credential = "cookie", "token"
	elsewhere.Source = attempt(monday, "203.0.113.8", "", detectors.Unknown).Source
	for name, e := range map[string]detectors.Event{"another credential": other, "another network": elsewhere, "a person's log-in": person} {
		if got := l.Assess(e); len(got) != 0 {
			t.Errorf("%s: got %v, want nothing", name, got)
		}
	}
}

func TestClientsThatAreNotWhatTheySay(t *testing.T) {
	login := func(ja4, family, account string) detectors.Event {
		e := of(attempt(monday, here, account, detectors.Success), account, 48*time.Hour)
		e.Client.JA4, e.Client.Family = ja4, family
		return e
	}
	l := detectors.NewLoops(detectors.LoopsConfig{})
	many := func(ja4, family string, n int) {
		for i := range n {
			l.Observe(login(ja4, family, fmt.Sprint("user", i%50)))
		}
	}
	lie := login("chrome-tls", "firefox", "x")
	lie.Outcome = detectors.Unknown
	said := func() float64 { return value(l.Assess(lie), "client.incoherent") }
	many("chrome-tls", "chrome", 99)
	many("firefox-tls", "firefox", 200)
	if got := said(); got != 0 {
		t.Errorf("a fingerprint seen 99 times: got %v, want 0", got)
	}
	many("chrome-tls", "chrome", 1)
	if got := said(); got != 1 {
		t.Errorf("never seen together: got %v, want 1", got)
	}
	honest := login("chrome-tls", "chrome", "x")
	if got := value(l.Assess(honest), "client.incoherent"); got != 0 {
		t.Errorf("seen together: got %v, want 0", got)
	}
	for i := range 10 {
		failed, withheld, young := login("chrome-tls", "firefox", fmt.Sprint(i)), login("chrome-tls", "firefox", fmt.Sprint(i)), login("chrome-tls", "firefox", fmt.Sprint(i))
		failed.Outcome, withheld.Unproven, young.AccountSince = detectors.Failure, true, monday
		for _, e := range []detectors.Event{failed, withheld, young, login("chrome-tls", "firefox", fmt.Sprint("mine", i%2))} {
			l.Observe(e)
		}
	}
	if got := said(); got != 1 {
		t.Errorf("after log-ins of two accounts that vouch: got %v, want 1", got)
	}
	l.Observe(login("chrome-tls", "firefox", "third"))
	if got := said(); got != 0 {
		t.Errorf("after the third: got %v, want 0", got)
	}
	impossible := detectors.Event{Time: monday, Client: detectors.Client{Incoherent: true}}
	if got := l.Assess(impossible); value(got, "client.incoherent") != 1 || strings.TrimSpace(got[0].Why) == "" {
		t.Errorf("known to be impossible: got %v", got)
	}
}

func TestLoopsSurviveARestart(t *testing.T) {
	for _, length := range []int{1, 50, 3000, 20_000} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			sameAfterRestart(t, func() detectors.Detector {
				return detectors.NewLoops(detectors.LoopsConfig{Pairs: 2200, Sources: 1200, Storms: 70, Clients: 12})
			}, length)
		})
	}
}

func TestAttemptsThatAreNoLoopAllocateNothing(t *testing.T) {
	l := detectors.NewLoops(detectors.LoopsConfig{})
	i := 0
	if got := testing.AllocsPerRun(100, func() {
		e := tried(0, here, "a", byte(i))
		e.Client.JA4, e.Client.Family = "ja4", "chrome"
		i++
		l.Assess(e)
		l.Observe(e)
	}); got > 1 { // the test's own: an address is parsed
		t.Errorf("allocations: got %v, want none but the test's", got)
	}
}

func BenchmarkLoops(b *testing.B) {
	benchmarkKeys(b, func() detectors.Detector { return detectors.NewLoops(detectors.LoopsConfig{}) })
}
