package replay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/gateway/replay"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

var monday = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// story is events in a list.
type story []detectors.Event

func (story) Counts() replay.Counts { return replay.Counts{} }

func (s story) Read(_ context.Context, each func(*replay.Recorded) error) error {
	for _, e := range s {
		r := replay.Recorded{Event: e}
		if e.Kind == detectors.Login {
			r.Known = e
			r.Known.Outcome = detectors.Unknown
		}
		if err := each(&r); err != nil {
			return err
		}
	}
	return nil
}

// login is an attempt of a person, with an account, after so many minutes.
func login(minutes int, who string, from string, outcome detectors.Outcome) detectors.Event {
	var digest detectors.Digest
	copy(digest[:], who)
	return detectors.Event{
		Time: monday.Add(time.Duration(minutes) * time.Minute), Kind: detectors.Login, Outcome: outcome, Name: detectors.Name{Digest: digest},
		Account: detectors.Account(who), AccountSince: monday.AddDate(-1, 0, 0), Organization: detectors.Organization("org-" + who[:1]),
		Source: detectors.Source{Address: netip.MustParseAddr(from)},
	}
}

func load(t testing.TB, files ...string) *rules.Set {
	t.Helper()
	all := fstest.MapFS{}
	for i, text := range files {
		all[fmt.Sprintf("%d.yaml", i)] = &fstest.MapFile{Data: []byte(text)}
	}
	set, faults := rules.Load(all)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return set
}

func run(t testing.TB, c replay.Config) *replay.Report {
	t.Helper()
	r, err := replay.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A lower threshold hits more: what was hit before stays, and the difference is told
// with whom it is about and when.
func TestDifferenceOfAThreshold(t *testing.T) {
	var s story
	for i := range 10 {
		s = append(s, login(i/5, fmt.Sprintf("%c%d", 'a'+i%3, i), "203.0.113.7", detectors.Failure))
	}
	s = append(s, login(120, "z", "198.51.100.1", detectors.Success))
	r := run(t, replay.Config{Source: s, Old: load(t, manyNames("8")), New: load(t, manyNames("4")), Examples: 2})
	if len(r.Rules) != 1 || r.Rules[0].Change != replay.Changed || r.Rules[0].Old != 3 || r.Rules[0].New != 7 {
		t.Fatalf("rules: %+v, want 3 and 7 hits", r.Rules)
	}
	gained, lost := r.Rules[0].Gained, r.Rules[0].Lost
	if gained.Events != 4 || gained.Names.N != 4 || gained.Accounts.N != 4 || gained.Organizations.N != 3 || lost.Events != 0 {
		t.Errorf("gained %+v, lost %+v; want 4 events of 4 names and accounts in 3 organizations", gained, lost)
	}
	if len(r.Examples.Gained) != 2 || r.Examples.Gained[0].Network != "203.0.113.7/32" || !strings.Contains(r.Examples.Gained[0].Why, "failed 4") {
		t.Errorf("examples: %+v", r.Examples.Gained)
	}
	old, now := uint64(0), uint64(0)
	for _, bin := range r.Bins {
		old, now = old+bin.Old, now+bin.New
	}
	if old != 3 || now != 7 || r.Read != 11 || r.Counted != 11 {
		t.Errorf("bins have %d and %d hits of %d events", old, now, r.Read)
	}

	back := run(t, replay.Config{Source: s, Old: load(t, manyNames("4")), New: load(t, manyNames("8"))})
	if back.Rules[0].Lost.Events != 4 || back.Rules[0].Gained.Events != 0 || back.Lost.Events != 4 {
		t.Errorf("the other way round: %+v", back.Rules[0])
	}
	same := run(t, replay.Config{Source: s, Old: load(t, manyNames("4")), New: load(t, manyNames("4"))})
	if same.Rules[0].Change != replay.Same || same.Rules[0].Old != 7 || same.Rules[0].New != 7 || same.Gained.Events+same.Lost.Events+same.Stricter.Events != 0 {
		t.Errorf("no change: %+v", same)
	}
	removed := run(t, replay.Config{Source: s, Old: load(t, manyNames("4")), New: load(t)})
	if removed.Rules[0].Change != replay.Removed || removed.Rules[0].Lost.Events != 7 {
		t.Errorf("removed: %+v", removed.Rules[0])
	}
}

// The same file with another list is a rule that changed.
func TestAListThatDiffers(t *testing.T) {
	with := func(list string) *rules.Set {
		text := strings.Replace(manyNames("4"), "when: failed >= 4", `when: failed >= 4 && listed("hosting", source.address)`, 1)
		set, faults := rules.Load(fstest.MapFS{"a.yaml": {Data: []byte(text)}, "lists/hosting.networks": {Data: []byte(list)}})
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		return set
	}
	var s story
	for i := range 5 {
		s = append(s, login(0, fmt.Sprint("x", i), "203.0.113.7", detectors.Failure))
	}
	without, one := "192.0.2.1 # of the rule's test\n", "192.0.2.1\n203.0.113.7\n"
	r := run(t, replay.Config{Source: s, Old: with(without), New: with(one)})
	if r.Rules[0].Change != replay.Changed || r.Rules[0].Old != 0 || r.Rules[0].New != 2 {
		t.Errorf("another list: %+v, want no hits and 2", r.Rules[0])
	}
	if r = run(t, replay.Config{Source: s, Old: with(one), New: with(one)}); r.Rules[0].Change != replay.Same || r.Rules[0].New != 2 {
		t.Errorf("the same list: %+v", r.Rules[0])
	}
}

// A decision outlasts the hit: who logs in from the network meets it, but not with a
// device that the account knows, and not when it is over. Only what differs is taken to
// be enforced.
func TestAnswersFollowDecisions(t *testing.T) {
	var s story
	for i := range 5 {
		s = append(s, login(0, fmt.Sprintf("a%d", i), "203.0.113.7", detectors.Failure))
	}
	bystander, owner, late := login(10, "bystander", "203.0.113.7", detectors.Success), login(11, "owner", "203.0.113.7", detectors.Success), login(60, "late", "203.0.113.7", detectors.Success)
	owner.Device = detectors.Device{ID: "d", State: detectors.Trusted}
	s = append(s, bystander, owner, late)
	r := run(t, replay.Config{Source: s, Old: load(t), New: load(t, manyNames("5"))})
	if r.Stricter.Events != 1 || r.Stricter.Accounts.N != 1 || r.Milder.Events != 0 {
		t.Errorf("stricter %+v, want the bystander alone", r.Stricter)
	}
	want := replay.AnswerChange{Old: rules.Allow, New: rules.StepUp, Events: 1}
	if len(r.Answers) != 2 || r.Answers[1] != want {
		t.Errorf("answers %+v, want %+v", r.Answers, want)
	}
	shadowed := run(t, replay.Config{Source: s, Old: load(t, manyNames("5")), New: load(t, manyNames("5"))})
	if len(shadowed.Answers) != 1 {
		t.Errorf("a rule in shadow that stays as it is answers %+v", shadowed.Answers)
	}
}

// Who was hit proves benign by coming back from the same place, or by a second factor
// there; an attacker who got in elsewhere, somebody who was flagged and who came too
// late prove nothing.
func TestWhoProvesBenign(t *testing.T) {
	hits := func(who ...string) (s story) {
		for _, name := range who {
			s = append(s, login(0, name, "203.0.113.7", detectors.Failure))
		}
		return s
	}
	factor := login(5, "a", "203.0.113.7", detectors.Success)
	factor.Kind = detectors.Factor
	elsewhere := login(5, "a", "198.51.100.9", detectors.Success)
	unproven := login(5, "a", "203.0.113.7", detectors.Success)
	unproven.Unproven = true
	late := login(8*24*60, "a", "203.0.113.7", detectors.Success)
	for _, c := range []struct {
		name   string
		then   detectors.Event
		benign uint64
		open   uint64
	}{
		{"the person logs in", login(5, "a", "203.0.113.7", detectors.Success), 1, 2},
		{"a second factor", factor, 1, 2},
		{"a second factor elsewhere", elsewhere, 0, 3},
		{"stepped up, and no more", unproven, 0, 3},
		{"after eight days", late, 0, 0},
		{"a wrong password", login(5, "a", "203.0.113.7", detectors.Failure), 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, replay.Config{Source: append(hits("a", "b", "c"), c.then), Old: load(t), New: load(t, strings.Replace(manyNames("1"), "outcome: failure}]\n    expect: none", "outcome: success}]\n    expect: none", 1))})
			b := r.Rules[0].All.Benign
			if b.Of != 3 || b.Benign != c.benign || b.Open != c.open {
				t.Errorf("got %+v, want %d of 3 and %d open", b, c.benign, c.open)
			}
			if b.Low > b.Share || b.High < b.Share || b.High == 0 {
				t.Errorf("the interval is %+v", b)
			}
		})
	}

	other := strings.NewReplacer("try.many-names", "other.rule", "outcome: failure}]\n    expect: none", "outcome: success}]\n    expect: none").Replace(manyNames("1"))
	old := strings.NewReplacer("try.many-names", "other.rule").Replace(other)
	r := run(t, replay.Config{Source: append(hits("a", "b", "c"), login(5, "a", "203.0.113.7", detectors.Success)),
		Old: load(t, old), New: load(t, old, strings.Replace(manyNames("1"), "outcome: failure}]\n    expect: none", "outcome: success}]\n    expect: none", 1))})
	if b := r.Rules[0].All.Benign; b.Of != 3 || b.Benign != 0 {
		t.Errorf("another rule hit the log-in too, and yet %+v", b)
	}
}

// What was before is learned, and not counted.
func TestOnlyTheTimeAskedForCounts(t *testing.T) {
	var s story
	for i := range 6 {
		s = append(s, login(i, fmt.Sprintf("a%d", i), "203.0.113.7", detectors.Failure))
	}
	r := run(t, replay.Config{Source: s, Old: load(t), New: load(t, manyNames("3")), From: monday.Add(3 * time.Minute), To: monday.Add(5 * time.Minute)})
	if r.Read != 6 || r.Counted != 2 || r.Rules[0].New != 2 {
		t.Errorf("read %d, counted %d, hits %d; want 6, 2, 2", r.Read, r.Counted, r.Rules[0].New)
	}
}

// A source that fails ends the replay, and so does whoever asked for it.
func TestReplayEnds(t *testing.T) {
	broken := errors.New("broken")
	_, err := replay.Run(t.Context(), replay.Config{Source: failing{broken}, Old: load(t), New: load(t)})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want what the source said", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	endless := &days{events: []detectors.Event{login(0, "a", "203.0.113.7", detectors.Failure)}, want: math.MaxInt}
	endless.at = func(n int) {
		if n == 10_000 {
			cancel(stopped)
		}
	}
	if _, err := replay.Run(ctx, replay.Config{Source: endless, Old: load(t), New: load(t)}); !errors.Is(err, stopped) {
		t.Errorf("got %v, want that it was stopped", err)
	}
}

type failing struct{ err error }

func (failing) Counts() replay.Counts { return replay.Counts{} }
func (f failing) Read(context.Context, func(*replay.Recorded) error) error {
	return f.err
}

// Distinct things are counted within the stated error, in bounded memory.
func TestDistinct(t *testing.T) {
	for _, n := range []int{1, 1024, 1025, 5000, 200_000} {
		count, exact, kept := replay.Distinct(n)
		if exact != (n <= 1024) || exact && count != uint64(n) || math.Abs(float64(count)/float64(n)-1) > 3*0.032 {
			t.Errorf("%d different: counted %d, exact %v", n, count, exact)
		}
		if kept > 2048 {
			t.Errorf("%d different: room for %d", n, kept)
		}
	}
}

// A sample of those that were hit tells the share of the benign ones.
func TestSample(t *testing.T) {
	for _, n := range []int{1, 2048, 2049, 100_000} {
		e, kept := replay.Sampled(n, 4, monday)
		if kept > 2048 || n > 2048 && kept < 512 || n <= 2048 && kept != n {
			t.Errorf("%d hit: %d watched", n, kept)
		}
		if n > 1 && (math.Abs(e.Share-0.25) > 0.06 || e.Low > 0.25 || e.High < 0.25) {
			t.Errorf("%d hit: %+v, want a quarter", n, e)
		}
	}
}

// Bins grow with the time, stay on the clock, and lose nothing.
func TestBins(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps int
		step  time.Duration
		width int64
	}{
		{"a minute", 60, time.Second, 1}, {"an hour", 60, time.Minute, 60}, {"a week", 7 * 24, time.Hour, 3 * 3600},
		{"backwards", 60, -time.Minute, 60}, {"a year", 365, 24 * time.Hour, 7 * 24 * 3600}, {"eternity", 3, 20000 * time.Hour, 28 * 24 * 3600},
	} {
		var times []time.Time
		for i := range c.steps {
			times = append(times, monday.Add(time.Duration(i)*c.step))
		}
		list, width := replay.Charted(times...)
		sum := uint64(0)
		for i, bin := range list {
			sum += bin.Events
			if bin.From.Unix()%width != 0 || i > 0 && bin.From.Sub(list[i-1].From) != time.Duration(width)*time.Second {
				t.Errorf("%s: a bin begins at %s", c.name, bin.From)
			}
		}
		if len(list) > 60 || int(sum) != c.steps || width < c.width || width > 2*c.width {
			t.Errorf("%s: %d bins of %d s with %d events, want %d events in bins of about %d s", c.name, len(list), width, sum, c.steps, c.width)
		}
	}
}

// The report of the demo, as text in both languages and as JSON.
func TestReportOfTheDemo(t *testing.T) {
	reader, err := feed.Open(replay.Demo(), "jsonl", feed.Options{Fault: func(line int, err error) { t.Errorf("line %d: %v", line, err) }})
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, replay.Config{Source: replay.FromFeed(reader), Old: load(t, manyNames("20")), New: load(t, manyNames("3")), Examples: 2})
	r.Events, r.Old, r.New = "demo", "old", "new"
	for name, write := range map[string]func(*bytes.Buffer) error{
		"demo.en.txt": func(b *bytes.Buffer) error { return r.WriteTable(b, "en") },
		"demo.ja.txt": func(b *bytes.Buffer) error { return r.WriteTable(b, "ja") },
		"demo.json":   func(b *bytes.Buffer) error { return r.WriteJSON(b) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s: got\n%s", name, b.String())
		}
	}
}

// A device that the account has known for a day proves its person whatever else speaks
// against, a younger one does not; who is hit on such a device is benign at once.
func TestDevicesProve(t *testing.T) {
	on := func(e detectors.Event, state detectors.DeviceState) detectors.Event {
		e.Device = detectors.Device{ID: "d", State: state}
		return e
	}
	failed := login(0, "a", "203.0.113.7", detectors.Failure)
	all := strings.Replace(manyNames("1"), "outcome: failure}]\n    expect: none", "outcome: success}]\n    expect: none", 1)
	other := strings.NewReplacer("try.many-names", "other.rule", "by: source.network", "by: account", `name: "user`, `account: x, name: "user`).Replace(all) // which speaks against
	for _, c := range []struct {
		name   string
		s      story
		benign uint64
	}{
		{"trusted, from elsewhere", story{on(failed, detectors.Stranger), on(login(5, "a", "198.51.100.1", detectors.Success), detectors.Trusted)}, 1},
		{"on probation", story{on(failed, detectors.Stranger), on(login(5, "a", "198.51.100.1", detectors.Success), detectors.Probation)}, 0},
		{"hit while logging in", story{login(0, "b", "203.0.113.7", detectors.Failure), on(login(5, "a", "203.0.113.7", detectors.Success), detectors.Trusted)}, 1},
	} {
		r := run(t, replay.Config{Source: c.s, Old: load(t, other), New: load(t, other, all)})
		if b := r.Rules[0].All.Benign; b.Benign != c.benign {
			t.Errorf("%s: %+v, want %d", c.name, b, c.benign)
		}
	}
}

// Rules are asked at the gate's stages: of what it refused itself not again, of factors
// and messages at theirs. What was recorded of an account is believed.
func TestStages(t *testing.T) {
	rule := func(on, when, kind string) string {
		return strings.NewReplacer("ON", on, "WHEN", when, "KIND", kind).Replace(`id: try.stage
title: A stage
severity: low
owner: security-team
reason: A test.
review_by: 2027-05-31
on: ON
when: WHEN
then:
  - tag: seen
mode: shadow
tests:
  - name: it is asked
    given: [{KIND, account: a, account_since: 30d, outcome: success}]
    expect: match
  - name: of an account
    given: [{KIND, outcome: success}]
    expect: none
`)
	}
	refused := login(0, "a", "203.0.113.7", detectors.Refused)
	known := login(1, "a", "203.0.113.7", detectors.Success)
	known.History = detectors.History{Logins: 40, Network: true}
	factor := login(2, "a", "203.0.113.7", detectors.Success)
	factor.Kind = detectors.Factor
	s := story{refused, known, factor}
	for _, c := range []struct {
		on, when, kind string
		want           uint64
	}{
		{"login.before", `account == "a"`, "kind: login", 2},
		{"login.after", `account == "a"`, "kind: login", 1},
		{"factor", `account == "a"`, "kind: factor", 1},
	} {
		r := run(t, replay.Config{Source: s, Old: load(t), New: load(t, rule(c.on, c.when, c.kind))})
		if r.Rules[0].New != c.want {
			t.Errorf("%s, %s: %d hits, want %d", c.on, c.when, r.Rules[0].New, c.want)
		}
	}
	r := run(t, replay.Config{Source: s, Old: load(t), New: load(t, strings.Replace(rule("login.after", `account == "a" && history.logins >= 40 && history.network`, "kind: login"), "expect: match", "expect: none", 1)+"  - name: who logs in often\n    given: [{kind: login, account: a, account_since: 30d, outcome: success, repeat: 60, every: 1h}]\n    expect: match\n")})
	if r.Rules[0].New != 1 {
		t.Errorf("a recorded history is not believed: %d hits", r.Rules[0].New)
	}
}

// A match that an exemption covers is no hit, and is told.
func TestExemptedMatches(t *testing.T) {
	exempt := strings.Replace(manyNames("3"), "then:", "except:\n  - {when: 'source.network == \"203.0.113.7/32\"', owner: security-team, reason: Our own scanner., until: 2027-05-31}\nthen:", 1)
	var s story
	for i := range 5 {
		s = append(s, login(0, fmt.Sprintf("a%d", i), "203.0.113.7", detectors.Failure))
	}
	r := run(t, replay.Config{Source: s, Old: load(t, manyNames("3")), New: load(t, exempt)})
	if x := r.Rules[0]; x.Old != 3 || x.New != 0 || x.NewExempted != 3 || x.OldExempted != 0 || x.Lost.Events != 3 {
		t.Errorf("got %+v, want 3 hits lost and exempted", x)
	}
}

// What cannot be done falls back as it would live, and the report says so.
func TestFallsBack(t *testing.T) {
	lying := strings.NewReplacer("action: step_up, for: 30m", "action: deceive, for: 30m, else: step_up", "expect: {action: step_up", "expect: {action: deceive").Replace(manyNames("3"))
	var s story
	for i := range 5 {
		s = append(s, login(i, fmt.Sprintf("a%d", i), "203.0.113.7", detectors.Failure))
	}
	for _, test := range []struct {
		name    string
		backend *policies.Backend
		want    rules.Action
		fell    uint64
	}{
		{"no preset", nil, rules.Deceive, 0},
		{"one without failures", &policies.Backend{}, rules.StepUp, 3},
		{"one with them", &policies.Backend{Login: policies.LoginForm{Failure: map[string]policies.Rendering{"html": {}}}}, rules.Deceive, 0},
	} {
		r := run(t, replay.Config{Source: s, Old: load(t), New: load(t, lying), Backend: test.backend, Examples: 1})
		if r.Rules[0].NewFellBack != test.fell || r.Rules[0].OldFellBack != 0 || r.Rules[0].New != 3 {
			t.Errorf("%s: %+v, want %d to fall back", test.name, r.Rules[0], test.fell)
		}
		if a := r.Answers[len(r.Answers)-1]; a.New != test.want || a.Events != 2 {
			t.Errorf("%s: answers %+v, want 2 times %s", test.name, r.Answers, test.want)
		}
		var b bytes.Buffer
		if err := r.WriteTable(&b, "en"); err != nil {
			t.Fatal(err)
		}
		const said, why = "in the place of what cannot be done: 0 → 3", "deceive cannot be done here, step_up is in its place"
		if fell := test.fell > 0; strings.Contains(b.String(), said) != fell || strings.Contains(r.Examples.Gained[0].Why, why) != fell {
			t.Errorf("%s: the report says\n%s\nand %q", test.name, b.String(), r.Examples.Gained[0].Why)
		}
		same := run(t, replay.Config{Source: s, Old: load(t, lying), New: load(t, lying), Backend: test.backend})
		if same.Rules[0].OldFellBack != test.fell || same.Rules[0].NewFellBack != test.fell {
			t.Errorf("%s, no change: %+v", test.name, same.Rules[0])
		}
	}
}
