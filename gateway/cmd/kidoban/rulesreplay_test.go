package main

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/replay"
	"github.com/kidoban/kidoban/gateway/stream"
	lastgood "github.com/kidoban/kidoban/gateway/watch"
	"github.com/kidoban/kidoban/rules"
)

// replayedRule hits where so many attempts failed from one network.
func replayedRule(most string) string {
	return strings.ReplaceAll(`id: try.failures
title: Many failures from one network
severity: low
owner: security-team
reason: Nobody mistypes so often.
review_by: 2027-05-31
count:
  failed: {count: events, by: source.network, within: 10m, where: outcome == "failure"}
on: login.after
when: failed >= MOST && listed("own", source.address)
then:
  - decide: {scope: source.network, action: step_up, for: 30m}
mode: shadow
tests:
  - name: a list
    given: [{repeat: 9, outcome: failure}]
    expect: {action: step_up, scope: source.network}
  - name: one
    given: [{outcome: failure}]
    expect: none
`, "MOST", most)
}

// What a gate of a data directory saw is replayed against what it has in force, lists
// included.
func TestReplayOfADataDirectory(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	s, err := stream.Open(stream.Config{Node: "a", Incarnation: 1, Now: func() time.Time { return now }, Dir: filepath.Join(dir, "events")})
	if err != nil {
		t.Fatal(err)
	}
	for range 9 {
		s.Publish(detectors.Event{
			Time: now, Kind: detectors.Login, Route: detectors.LoginRoute, Outcome: detectors.Failure, Name: detectors.Name{Digest: detectors.Digest{1}},
			Source: detectors.Source{Address: netip.MustParseAddr("192.0.2.1"), Network: netip.MustParsePrefix("192.0.2.1/32")},
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	list := "192.0.2.0/24\n"
	keeper := lastgood.Keeper{Dir: filepath.Join(dir, "good", "rules")}
	for name, text := range map[string]string{"failures.yaml": replayedRule("6"), "lists/own.networks": list} {
		if err := keeper.Good(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "failures.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(file, replayedRule("3"))

	var out bytes.Buffer
	o := replayOptions{events: "spool", rules: file, dataDir: dir, language: "en", now: now, out: &out, stderr: io.Discard}
	if err := o.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NEW             " + file + " + running", "changed           4         7         3         0", "9 events counted of 9"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}

	// A directory is laid over the rules that ship, and its own of the same name count.
	var c replay.Config
	o = replayOptions{events: "spool", against: "shipped", rules: dir, dataDir: dir}
	write(filepath.Join(dir, "lists", "own.networks"), list)
	if _, _, err := o.sets(&c); err != nil {
		t.Fatal(err)
	}
	if old, new := len(c.Old.Rules()), len(c.New.Rules()); new != old+1 {
		t.Errorf("%d rules over %d that ship, want one more", new, old)
	}
	shipped, faults := rules.Load(rules.Shipped)
	if len(faults) > 0 || len(shipped.Rules()) != len(c.Old.Rules()) {
		t.Errorf("OLD has %d rules, want the %d that ship", len(c.Old.Rules()), len(shipped.Rules()))
	}
}

// The preset is one that ships, or of a directory of policies, and never guessed.
func TestReplayReadsThePreset(t *testing.T) {
	dir := t.TempDir()
	shipped, err := os.ReadFile(filepath.Join("..", "..", "..", "policies", "backends", "chatcore.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "backends"), 0o700), os.WriteFile(filepath.Join(dir, "backends", "own.yaml"), bytes.Replace(shipped, []byte("name: chatcore"), []byte("name: own"), 1), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		backend, policies, name, fault string
	}{
		{"", "", "", ""},
		{"chatcore", "", "chatcore", ""},
		{"own", dir, "own", ""},
		{"own", "", "", "there is no own.yaml"},
		{"", dir, "", "--backend"},
	} {
		var c replay.Config
		err := (&replayOptions{backend: test.backend, policies: test.policies}).preset(&c)
		if got := c.Backend; test.fault == "" && (err != nil || (got == nil) != (test.name == "") || got != nil && got.Name != test.name) {
			t.Errorf("%+v: got %+v, %v", test, got, err)
		}
		if test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("%+v: got %v", test, err)
		}
	}
}
