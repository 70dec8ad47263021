package detectors_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
)

func changed(e detectors.Event, changes ...func(*detectors.Event)) detectors.Event {
	for _, change := range changes {
		change(&e)
	}
	return e
}

func shown(e detectors.Event, name string) detectors.Event {
	e.Name.Display = name
	return e
}

func TestNamesOfADictionary(t *testing.T) {
	fail := func(network int, changes ...func(*detectors.Event)) detectors.Event {
		return changed(attempt(monday, fmt.Sprintf("198.51.100.%d", network), "admin", detectors.Failure), changes...)
	}
	pass := func(e *detectors.Event) { e.Outcome = detectors.Success }
	unproven := func(e *detectors.Event) { pass(e); e.Unproven = true }
	known := func(e *detectors.Event) { e.Device.State = detectors.Trusted }
	home := func(e *detectors.Event) { e.History.Network = true }
	refused := func(e *detectors.Event) { e.Outcome = detectors.Refused }
	three := []detectors.Event{fail(1), fail(2), fail(3)}
	for _, test := range []struct {
		name       string
		events     []detectors.Event
		ask        func(*detectors.Event)
		dictionary float64
		sources    float64
	}{
		{name: "nothing seen"},
		{name: "two networks", events: []detectors.Event{fail(1), fail(2), fail(1)}, sources: 2},
		{name: "three networks", events: three, dictionary: 1, sources: 3},
		{name: "nine networks", events: append(three, fail(4), fail(5), fail(6), fail(7), fail(8), fail(9)), dictionary: 1, sources: 6},
		{name: "a known device", events: []detectors.Event{fail(1), fail(2), fail(3, known)}, sources: 2},
		{name: "the account's own network", events: []detectors.Event{fail(1), fail(2), fail(3, home)}, sources: 2},
		{name: "never evaluated", events: []detectors.Event{fail(1), fail(2), fail(3, refused)}, sources: 2},
		{name: "a success clears it", events: append(three, fail(4, pass))},
		{name: "a success exempts it", events: []detectors.Event{fail(4, pass), fail(1), fail(2), fail(3)}, sources: 3},
		{name: "a withheld success does not", events: append(three, fail(4, unproven)), dictionary: 1, sources: 3},
		{name: "an account", events: three, ask: func(e *detectors.Event) { e.Account = "u1" }, sources: 3},
		{name: "in the directory", events: three, ask: func(e *detectors.Event) { e.Existence = detectors.Exists }, sources: 3},
		{name: "logged in before", events: three, ask: func(e *detectors.Event) { e.History.Logins = 1 }, sources: 3},
		{name: "another name", events: three, ask: func(e *detectors.Event) { e.Name.Digest[0]++ }},
		{name: "a week later", events: three, ask: func(e *detectors.Event) { e.Time = e.Time.AddDate(0, 0, 8) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := detectors.NewNames(detectors.NamesConfig{})
			for _, e := range test.events {
				n.Observe(e)
			}
			e := fail(200)
			if test.ask != nil {
				test.ask(&e)
			}
			got := n.Assess(e)
			if value(got, "name.dictionary") != test.dictionary || value(got, "name.sources") != test.sources {
				t.Errorf("got %v, want name.dictionary %v, name.sources %v", got, test.dictionary, test.sources)
			}
		})
	}
}

func TestNamesOfAnEnumeration(t *testing.T) {
	for _, test := range []struct {
		name                               string
		make                               func(i int) detectors.Event
		count                              int
		unknown, ascending, alike, domains float64
	}{
		{"seven names", func(i int) detectors.Event { return attempt(monday, here, fmt.Sprint(i), detectors.Failure) }, 7, 0, 0, 0, 0},
		{"eight names", func(i int) detectors.Event { return attempt(monday, here, fmt.Sprint(i), detectors.Failure) }, 8, 1, 0, 0, 0},
		{"the same name", func(i int) detectors.Event { return attempt(monday, here, "a", detectors.Failure) }, 100, 0, 0, 0, 0},
		{"refused", func(i int) detectors.Event { return attempt(monday, here, fmt.Sprint(i), detectors.Refused) }, 100, 1, 0, 0, 0},
		{"no answer", func(i int) detectors.Event { return attempt(monday, here, fmt.Sprint(i), detectors.Unknown) }, 100, 0, 0, 0, 0},
		{"half known", func(i int) detectors.Event {
			e := attempt(monday, here, fmt.Sprint(i), detectors.Failure)
			if i%2 == 0 {
				e.Existence = detectors.Exists
			}
			return e
		}, 100, 0.5, 0, 0, 0},
		{"resets", func(i int) detectors.Event {
			e := attempt(monday, here, fmt.Sprint(i), detectors.Unknown)
			e.Kind, e.Route = detectors.Request, detectors.Reset
			return e
		}, 100, 1, 0, 0, 0},
		{"invitations", func(i int) detectors.Event {
			e := attempt(monday, here, fmt.Sprint(i), detectors.Unknown)
			e.Kind, e.Route = detectors.Request, detectors.Invite
			return e
		}, 100, 0, 0, 0, 0},
		{"a numbered list", func(i int) detectors.Event {
			s := fmt.Sprintf("user%04d@acme.example", i)
			return shown(attempt(monday, here, s, detectors.Failure), s)
		}, 100, 1, 1, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := detectors.NewNames(detectors.NamesConfig{})
			var e detectors.Event
			for i := range test.count {
				e = test.make(i)
				n.Observe(e)
			}
			got := n.Assess(e)
			for name, want := range map[string]float64{"source.unknown_names": test.unknown, "source.ascending": test.ascending,
				"source.alike_names": test.alike, "source.one_domain": test.domains} {
				if math.Abs(value(got, name)-want) > 1e-9 {
					t.Errorf("%s: got %v, want %v", name, value(got, name), want)
				}
			}
		})
	}
}

func TestWhileLearningNoNameIsUnknown(t *testing.T) {
	for until, want := range map[time.Time]float64{{}: 1, monday.Add(time.Hour): 0} {
		n := detectors.NewNames(detectors.NamesConfig{LearningUntil: until})
		for i := range 20 {
			n.Observe(attempt(monday, here, fmt.Sprint(i), detectors.Failure))
		}
		if got := value(n.Assess(attempt(monday, here, "a", detectors.Unknown)), "source.unknown_names"); got != want {
			t.Errorf("learning until %v: got %v, want %v", until, got, want)
		}
	}
}

// listed is a name as a slow model keeps it.
type listed struct {
	name               string
	unknown            bool
	ordered, ascending bool
}

// While there is room, rings and the dictionary are what plain lists and maps say.
func TestNamesAreAsAPlainListSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := detectors.NewNames(detectors.NamesConfig{})
		lists, last := map[string][]listed{}, map[string]string{}
		failed, owned := map[string]map[string]bool{}, map[string]bool{}
		at := monday
		names := rapid.SampledFrom([]int{6, 30, 200}).Draw(t, "names")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for range rapid.IntRange(0, 400).Draw(t, "events") {
			at = at.Add(time.Duration(r.IntN(60)) * time.Second)
			source := fmt.Sprintf("203.0.113.%d", r.IntN(4))
			name := fmt.Sprintf("%c%03d@acme.example", 'a'+r.IntN(5), r.IntN(names))
			e := shown(attempt(at, source, name, detectors.Failure), name)
			switch r.IntN(10) {
			case 0:
				e.Outcome = detectors.Success
			case 1, 2, 3:
				e.Existence = detectors.Exists
			}
			n.Observe(e)

			unknown := e.Existence == "" && e.Outcome == detectors.Failure
			found := false
			for i := range lists[source] {
				if l := &lists[source][i]; l.name == name {
					l.unknown, found = unknown, true
				}
			}
			if !found {
				l := listed{name: name, unknown: unknown}
				if before, ok := last[source]; ok && before[:16] != name[:16] {
					l.ordered, l.ascending = true, before < name
				}
				last[source] = name
				lists[source] = append(lists[source], l)
				if len(lists[source]) > 64 {
					lists[source] = lists[source][1:]
				}
			}
			if e.Outcome == detectors.Success {
				owned[name] = true
				delete(failed, name)
			} else {
				if failed[name] == nil {
					failed[name] = map[string]bool{}
				}
				failed[name][source] = true
			}

			got := n.Assess(attempt(at, source, name, detectors.Unknown))
			want := map[string]float64{}
			if f := len(failed[name]); f > 1 {
				want["name.sources"] = float64(f)
				if f >= 3 && !owned[name] {
					want["name.dictionary"] = 1
				}
			}
			list := lists[source]
			if len(list) >= 8 {
				var u, o, a float64
				for _, l := range list {
					if l.unknown {
						u++
					}
					if l.ordered {
						o++
					}
					if l.ascending {
						a++
					}
				}
				if share := u / float64(len(list)); share >= 0.25 {
					want["source.unknown_names"] = share
				}
				if o >= 7 && a/o >= 0.6 {
					want["source.ascending"] = a / o
				}
			}
			for _, name := range []string{"name.sources", "name.dictionary", "source.unknown_names", "source.ascending"} {
				if math.Abs(value(got, name)-want[name]) > 1e-9 {
					t.Fatalf("%s: got %v, want %v", name, value(got, name), want[name])
				}
			}
		}
	})
}

func decoys(names ...string) func(detectors.Digest) bool {
	set := map[detectors.Digest]bool{}
	for _, name := range names {
		set[attempt(monday, here, name, detectors.Unknown).Name.Digest] = true
	}
	return func(d detectors.Digest) bool { return set[d] }
}

// A hit is remembered for a day, whatever a million other sources do.
func TestADecoyHitIsNeverLost(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	n := detectors.NewNames(detectors.NamesConfig{Decoys: decoys("trap"), Names: 1 << 12, Sources: 1 << 12, Rings: 1 << 10, Marks: 1 << 8})
	hit := attempt(monday, here, "trap", detectors.Refused)
	hit.Fingerprint = "ja4/tool/python"
	if got := value(n.Assess(hit), "name.decoy"); got != 1 {
		t.Fatalf("name.decoy: got %v, want 1", got)
	}
	n.Observe(hit)
	const flood = 1_000_000
	at := monday
	for i := range flood {
		at = monday.Add(time.Duration(i) * 23 * time.Hour / flood)
		e := attempt(at, here, "", detectors.Failure)
		e.Source.Address = addressOf(uint32(r.IntN(flood)))
		e.Source.Network = detectors.CountingNetwork(e.Source.Address)
		e.Name.Digest[2], e.Name.Digest[9] = byte(i), byte(i>>8)
		e.Fingerprint = "ja4/other/chrome"
		n.Observe(e)
	}
	later := attempt(at, here, "anybody", detectors.Unknown)
	later.Fingerprint = "ja4/other/chrome"
	if got := value(n.Assess(later), "source.decoy"); got != 1 {
		t.Errorf("source.decoy after the flood: got %v, want 1", got)
	}
	elsewhere := attempt(at, "198.51.100.9", "anybody", detectors.Unknown)
	if got := n.Assess(elsewhere); value(got, "source.decoy") != 0 || value(got, "client.decoy") != 0 {
		t.Errorf("another source: got %v", got)
	}
	elsewhere.Fingerprint = hit.Fingerprint
	if got := value(n.Assess(elsewhere), "client.decoy"); got != 1 {
		t.Errorf("client.decoy after the flood: got %v, want 1", got)
	}
	later.Time = monday.Add(24 * time.Hour)
	if got := value(n.Assess(later), "source.decoy"); got != 0 {
		t.Errorf("source.decoy after a day: got %v, want 0", got)
	}
}

func TestABrowserOfManyIsNotMarked(t *testing.T) {
	n := detectors.NewNames(detectors.NamesConfig{Decoys: decoys("trap")})
	with := func(name string, o detectors.Outcome) detectors.Event {
		e := attempt(monday, "198.51.100.1", name, o)
		e.Fingerprint = "ja4/h/chrome"
		return e
	}
	n.Observe(with("trap", detectors.Failure))
	late := with("a", detectors.Success)
	late.Time, late.Device.State = monday.Add(23*time.Hour), detectors.Trusted
	n.Observe(late)
	late.Time = monday.Add(24 * time.Hour)
	if got := value(n.Assess(late), "client.decoy"); got != 0 {
		t.Errorf("a day after the hit, an hour after a log-in: got %v, want 0", got)
	}
	n.Observe(with("trap", detectors.Failure))
	for i := range 3 {
		if got := value(n.Assess(with("x", detectors.Unknown)), "client.decoy"); got != 1 {
			t.Errorf("after %d log-ins: got %v, want 1", i, got)
		}
		n.Observe(with("a", detectors.Success)) // from no known device: counts for nothing
		e := with("a", detectors.Success)
		e.Device.State = detectors.Trusted
		n.Observe(e)
	}
	got := n.Assess(with("x", detectors.Unknown))
	if value(got, "client.decoy") != 0 || value(got, "source.decoy") != 1 {
		t.Errorf("after 3 log-ins: got %v, want source.decoy alone", got)
	}
}

func smallNames() *detectors.Names {
	return detectors.NewNames(detectors.NamesConfig{Decoys: decoys("user3", "user77"), Names: 300, Sources: 1500, Rings: 40, Marks: 60})
}

// namedTraffic is traffic in which some names may be kept.
func namedTraffic(seed uint64, start time.Time, n int) []detectors.Event {
	r := rand.New(rand.NewPCG(seed, 3))
	events := traffic(r, start, n)
	for i := range events {
		e := &events[i]
		if r.IntN(3) > 0 {
			e.Name.Display = fmt.Sprintf("%x@%d.example", e.Name.Digest[:4], r.IntN(3))
		}
		e.Fingerprint = fmt.Sprintf("ja4/%d/chrome", r.IntN(5))
		family := r.IntN(3)
		e.Client.JA4, e.Client.Family = fmt.Sprint("ja4-", family), []string{"chrome", "firefox", "curl"}[family]
		e.Password.Digest[0] = byte(1 + r.IntN(3))
		e.Credential = "token"
		switch r.IntN(8) {
		case 0, 1: // a token storm
			e.Kind, e.Source = detectors.Door, attempt(monday, "203.0.113.200", "", detectors.Unknown).Source
		case 2: // a stale client
			*e = attempt(e.Time, "203.0.113.201", "stale", detectors.Failure)
			e.Password.Digest[0] = 9
		case 3: // a client that nobody logs in with
			e.Client.JA4, e.Outcome = "ja4-0", detectors.Failure
			e.Client.Family = "firefox"
		}
	}
	return events
}

// sameAfterRestart observes events, restarts from a snapshot, and compares what is
// said and kept after more of them with a set that never stopped. When there are many
// events each signal must have been said.
func sameAfterRestart(t *testing.T, fresh func() detectors.Detector, length int) {
	t.Helper()
	said := map[string]bool{}
	through := detectors.NewSet(fresh())
	a := namedTraffic(uint64(length), monday, length)
	for _, e := range a {
		through.Observe(e)
	}
	first := snap(t, through, "")
	after := restored(t, detectors.NewSet(fresh()), first)
	if !bytes.Equal(snap(t, after, ""), first) {
		t.Fatal("the state differs right after the restart")
	}
	for i, e := range namedTraffic(uint64(length)+1, a[length-1].Time, length) {
		got, want := after.Assess(e), through.Assess(e)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("event %d: got %v, want %v", i, got, want)
		}
		for _, s := range want {
			said[s.Name] = true
		}
		after.Observe(e)
		through.Observe(e)
	}
	if !bytes.Equal(snap(t, after, ""), snap(t, through, "")) {
		t.Error("the state differs at the end")
	}
	for _, d := range through.Catalog() {
		if length > 10_000 && !said[d.Name] {
			t.Errorf("%s was never said: this compares nothing", d.Name)
		}
	}
}

func TestNamesSurviveARestart(t *testing.T) {
	for _, length := range []int{1, 50, 3000, 20_000} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			sameAfterRestart(t, func() detectors.Detector { return smallNames() }, length)
		})
	}
}

func TestDecoysMayBeSetAfterARestore(t *testing.T) {
	n := smallNames()
	set := detectors.NewSet(n)
	restored(t, set, snap(t, set, ""))
	e := attempt(monday, here, "trap", detectors.Unknown)
	n.SetDecoys(decoys("trap"))
	if got := value(set.Assess(e), "name.decoy"); got != 1 {
		t.Errorf("name.decoy: got %v, want 1", got)
	}
	n.SetDecoys(nil)
	if got := set.Assess(e); len(got) != 0 {
		t.Errorf("without decoys: got %v", got)
	}
}

func TestUnremarkableNamesAllocateNothing(t *testing.T) {
	n := detectors.NewNames(detectors.NamesConfig{Decoys: decoys("trap")})
	n.Observe(attempt(monday, "198.51.100.77", "trap", detectors.Failure))
	var e detectors.Event
	for i := range 100 {
		e = of(attempt(monday, here, fmt.Sprint(i*7919), detectors.Success), fmt.Sprint(i), time.Hour)
		e.Fingerprint = "ja4/h/chrome"
		n.Observe(e)
	}
	if got := testing.AllocsPerRun(100, func() { n.Assess(e); n.Observe(e) }); got != 0 {
		t.Errorf("allocations: got %v, want 0", got)
	}
}

func BenchmarkNames(b *testing.B) {
	benchmarkKeys(b, func() detectors.Detector {
		return detectors.NewNames(detectors.NamesConfig{Decoys: decoys("trap")})
	})
}

// benchmarkKeys measures a detector with one key, and with a million sources and as
// many names.
func benchmarkKeys(b *testing.B, fresh func() detectors.Detector) {
	for _, keys := range []int{1, 1_000_000} {
		d := fresh()
		e := attempt(monday, here, "a", detectors.Failure)
		e.Fingerprint, e.Credential = "ja4/h/chrome", "token"
		e.Client.JA4, e.Client.Family = "ja4", "chrome"
		e.Password.Digest[0] = 1
		one := func(i int) detectors.Event {
			e.Source.Address = addressOf(uint32(i))
			e.Source.Network = detectors.CountingNetwork(e.Source.Address)
			e.Name.Digest[3], e.Name.Digest[4], e.Name.Digest[5] = byte(i>>16), byte(i>>8), byte(i)
			e.Password.Digest[1] = byte(i)
			return e
		}
		d.Observe(attempt(monday, "198.51.100.77", "trap", detectors.Failure))
		for i := range keys {
			d.Observe(one(i))
		}
		for name, do := range map[string]func(detectors.Event){
			"Assess":  func(e detectors.Event) { d.Assess(e) },
			"Observe": d.Observe,
		} {
			b.Run(fmt.Sprintf("%s/keys=%d", name, keys), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i = (i + 7919) % keys
					do(one(i))
				}
			})
		}
	}
}
