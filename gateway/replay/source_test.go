package replay_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/replay"
	"github.com/kidoban/kidoban/gateway/stream"
)

func read(t *testing.T, s replay.Source) (all []replay.Recorded) {
	t.Helper()
	if err := s.Read(t.Context(), func(r *replay.Recorded) error {
		all = append(all, *r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// The spool tells what the gate saw; what it knew before an outcome is taken from it.
func TestFromSpool(t *testing.T) {
	dir := t.TempDir()
	s, err := stream.Open(stream.Config{Node: "a", Incarnation: 1, Now: func() time.Time { return monday }, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	first := login(0, "newcomer", "203.0.113.7", detectors.Success)
	first.AccountSince = first.Time
	first.History.Capacity = 12
	known := login(0, "known", "203.0.113.7", detectors.Success)
	known.Session, known.Offset, known.Shift = "s", 60, 480
	factor := login(0, "known", "203.0.113.7", detectors.Success)
	factor.Kind = detectors.Factor
	message := login(0, "known", "203.0.113.7", detectors.Unknown)
	message.Kind, message.Size = detectors.Message, 100
	for _, e := range []detectors.Event{first, known, factor, message} {
		s.Publish(e)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all := read(t, replay.FromSpool(dir))
	if len(all) != 4 {
		t.Fatalf("%d events, want 4", len(all))
	}
	tokyo := time.FixedZone("Asia/Tokyo", 9*3600)
	for i, r := range read(t, replay.InZone(replay.FromSpool(dir), tokyo)) {
		want := []int16{540, 60, 540, 540}[i] // but for the one that shows a clock
		if r.Event.Offset != want || r.Known.Kind != "" && r.Known.Offset != want || r.Known.Kind == "" && r.Known.Offset != 0 || r.Event.Shift != all[i].Event.Shift {
			t.Errorf("in Tokyo event %d is %d and %d minutes ahead, want %d; it was known as %d", i, r.Event.Offset, r.Event.Shift, want, r.Known.Offset)
		}
	}
	if k := all[0].Known; k.Account != "" || k.Outcome != detectors.Unknown || k.History.Capacity != 12 || all[0].Event.Account != "newcomer" {
		t.Errorf("a first log-in was known as %+v", k)
	}
	if k := all[1].Known; k.Account != "known" || k.Session != "" || k.Organization != "" || k.Offset != 60 || k.Shift != 0 || all[1].Event.Shift != 480 {
		t.Errorf("a log-in was known as %+v", k)
	}
	if k := all[2].Known; k.Kind != "" {
		t.Errorf("a factor was known before: %+v", k)
	}
	if k := all[3].Known; k.Kind != detectors.Message || k.Size != 100 || k.Account != "known" {
		t.Errorf("a message was known as %+v", k)
	}
}

// The record gives log-ins by account, and sums as so many events, in the order of time.
func TestFromRecord(t *testing.T) {
	dir := t.TempDir()
	now := monday
	secret := bytes.Repeat([]byte{1}, 32)
	keys := func() []record.Key { return []record.Key{{ID: "k", Secret: func() []byte { return secret }}} }
	l, err := record.Open(dir, record.Config{Node: "gate-1", Keys: keys, Reserve: -1, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	denials := func(kind, key string, n int, over time.Duration) {
		for i := range n {
			l.Count(record.Denial{Time: monday.Add(over * time.Duration(i) / time.Duration(n)), Kind: kind, Key: key})
		}
	}
	denials("login.failure", "203.0.113.7/32", 40, 8*time.Second)
	denials("login.failure", "not a network", 2, time.Second)
	denials("denial.attempts", "203.0.113.7/32", 5, time.Second)
	denials("denial.login", "203.0.113.7/32", 7, time.Second)
	denials("factor.wrong", "198.51.100.0/32", 3, time.Second)
	for kind, body := range map[string]map[string]string{
		"act.session.begin": {"account": "hanako", "organization": "acme", "device": "d", "source": "192.0.2.9", "session": "s"},
		"act.session.end":   {"session": "s"},
	} {
		if _, err := l.Append(context.Background(), record.Draft{Time: monday.Add(4 * time.Second), Kind: kind, Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	s := replay.FromRecord(dir, keys)
	all := read(t, s)
	count := make(map[string]int)
	last := time.Time{}
	for _, r := range all {
		e := &r.Event
		if e.Time.Before(last) {
			t.Fatalf("%s comes after %s", e.Time, last)
		}
		last = e.Time
		count[fmt.Sprintf("%s %s %s %v", e.Kind, e.Outcome, e.Source.Network, r.Summed)]++
		if e.Account == "hanako" && (e.Organization != "acme" || e.Source.Address != netip.MustParseAddr("192.0.2.9") || e.Time != monday.Add(4*time.Second)) {
			t.Errorf("the log-in is %+v", e)
		}
	}
	want := map[string]int{
		"login failure 203.0.113.7/32 true": 40, "login failure invalid Prefix true": 2, "login refused 203.0.113.7/32 true": 5,
		"factor failure 198.51.100.0/32 true": 3, "login success 192.0.2.9/32 false": 1,
	}
	if fmt.Sprint(count) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", count, want)
	}
	if c := s.Counts(); c.Denials != 7 || c.Unreadable != 0 || c.Other == 0 {
		t.Errorf("counts: %+v, want 7 denials that are only counted", c)
	}

	// Rules count sums by network; nobody is named, and nobody can prove benign.
	r := run(t, replay.Config{Source: replay.FromRecord(dir, keys), Old: load(t), New: load(t, failures)})
	all0 := r.Rules[0].All
	if r.Summed != 50 || all0.Events != 31 || all0.Summed != 31 || all0.Names.N+all0.Accounts.N+all0.Benign.Of != 0 {
		t.Errorf("hits of sums: %+v of %d", all0, r.Summed)
	}

	// Without the key there are no bodies.
	sealed := replay.FromRecord(dir, nil)
	if all := read(t, sealed); len(all) != 0 || sealed.Counts().Unreadable == 0 {
		t.Errorf("%d events without a key, %+v", len(all), sealed.Counts())
	}
}

const failures = `id: try.failures
title: Many failures from one network
severity: low
owner: security-team
reason: Nobody mistypes so often.
review_by: 2027-05-31
count:
  failed: {count: events, by: source.network, within: 10m, where: outcome == "failure"}
on: login.after
when: failed >= 10 && outcome == "failure"
then:
  - decide: {scope: source.network, action: step_up, for: 30m}
mode: shadow
tests:
  - name: a list
    given: [{repeat: 10, outcome: failure}]
    expect: {action: step_up, scope: source.network}
  - name: nine
    given: [{repeat: 9, outcome: failure}]
    expect: none
`

// Lines of all kinds are asked about at the stages of their kinds, with what log-ins
// before them told of their accounts.
func TestFromFeedOfAllKinds(t *testing.T) {
	lines := `{"time":"2026-11-23T09:00:00Z","name":"hanako","account":"a1","device":"d","outcome":"success"}
{"time":"2026-11-23T09:00:01Z","kind":"factor","account":"a1","device":"d","outcome":"failure"}
{"time":"2026-11-23T09:00:02Z","kind":"factor","account":"a1","device":"d","outcome":"failure"}
{"time":"2026-11-23T09:00:03Z","kind":"session","act":"ended","actor":"owner","account":"a1","session":"s"}
{"time":"2026-11-23T09:00:04Z","kind":"request","route":"reset","name":"hanako","address":"192.0.2.7"}
{"time":"2026-11-23T09:00:05Z","kind":"message","account":"a1","targets":40}
{"time":"2026-11-23T09:00:06Z","kind":"operator","act":"decision.lift","actor":"alice"}
{"kind":"weather"}
`
	rule := func(id, stage, when, hit, miss string) string {
		return fmt.Sprintf(`id: %s
title: An example
severity: low
owner: security-team
reason: An example.
review_by: 2027-05-31
on: %s
when: %s
then:
  - incident: {category: example, key: source.network}
mode: shadow
tests:
  - {name: this, given: [%s], expect: match}
  - {name: that, given: [%s], expect: none}
`, id, stage, when, hit, miss)
	}
	texts := []string{
		rule("try.factor", "factor", `outcome == "failure"`, "{kind: factor, outcome: failure}", "{kind: factor, outcome: success}"),
		rule("try.session", "session", `act == "ended" && actor == "owner"`, "{kind: session, act: ended, actor: owner, outcome: success}", "{kind: session, act: begun, outcome: success}"),
		rule("try.reset", "request", `route == "reset"`, "{kind: request, route: reset, outcome: unknown}", "{kind: request, route: signup, outcome: unknown}"),
		rule("try.message", "message", `targets >= 40`, "{kind: message, targets: 40, outcome: unknown}", "{kind: message, targets: 2, outcome: unknown}"),
		rule("try.operator", "request", `act == "decision.lift" && actor == "operator:alice"`, "{kind: operator, act: decision.lift, actor: \"operator:alice\", outcome: success}", "{kind: operator, act: decision.lift, outcome: success}"),
	}
	var faults []string
	open := func() replay.Source {
		reader, err := feed.Open(strings.NewReader(lines), "jsonl", feed.Options{AllKinds: true, Fault: func(line int, err error) { faults = append(faults, fmt.Sprintf("%d: %v", line, err)) }})
		if err != nil {
			t.Fatal(err)
		}
		return replay.FromFeed(reader)
	}
	all := read(t, open())
	if len(all) != 7 || len(faults) != 1 || !strings.HasPrefix(faults[0], `8: kind "weather"`) {
		t.Fatalf("%d events, faults %q", len(all), faults)
	}
	if f := all[1]; f.Known.Kind != "" || f.Event.AccountSince.IsZero() || f.Event.Device.State != detectors.Probation {
		t.Errorf("a factor: %+v, known %+v", f.Event, f.Known)
	}
	for i, kind := range map[int]detectors.Kind{4: detectors.Request, 5: detectors.Message} {
		if k := all[i].Known; k.Kind != kind || k.Account != "a1" || k.Outcome != detectors.Unknown {
			t.Errorf("a %s was known as %+v", kind, k)
		}
	}
	r := run(t, replay.Config{Source: open(), Old: load(t), New: load(t, texts...)})
	hits := map[string]uint64{}
	for _, x := range r.Rules {
		hits[string(x.Rule)] = x.New
	}
	want := map[string]uint64{"try.factor": 2, "try.session": 1, "try.reset": 1, "try.message": 1, "try.operator": 1}
	if fmt.Sprint(hits) != fmt.Sprint(want) {
		t.Errorf("hits %v, want %v", hits, want)
	}
}

// Lines that cannot be read are told by number and passed over; unknown fields are
// ignored, and what is missing is unknown.
func TestFromFeed(t *testing.T) {
	lines := `{"time":"2026-11-23T09:00:00Z","name":"a","outcome":"success","colour":"red"}
not JSON
{"time":"2026-11-23T09:01:00Z","name":"a","outcome":"failure"}
{"outcome":"failure"}
{"kind":"weather"}
`
	var faults []string
	reader, err := feed.Open(strings.NewReader(lines), "jsonl", feed.Options{Fault: func(line int, err error) { faults = append(faults, fmt.Sprint(line)) }})
	if err != nil {
		t.Fatal(err)
	}
	s := replay.FromFeed(reader)
	all := read(t, s)
	if len(all) != 3 || fmt.Sprint(faults) != "[2 4]" || s.Counts() != (replay.Counts{Unreadable: 1, Other: 1, Doubtful: 1}) {
		t.Fatalf("%d events, faults in lines %v, %+v", len(all), faults, s.Counts())
	}
	if a := all[0]; a.Known.Account != "" || a.Event.Account == "" || a.Known.Outcome != detectors.Unknown {
		t.Errorf("the first log-in: known %+v", a.Known)
	}
	if all[1].Known.Account != all[0].Event.Account {
		t.Error("the account of the name is not remembered")
	}
}
