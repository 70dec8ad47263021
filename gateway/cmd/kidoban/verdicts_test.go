package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func TestSimulateScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script/simulate",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
	})
}

// answers is a gate that says what it is told to, and keeps what it hears.
type answers struct {
	before, after rules.Action
	heard         detectors.Event
}

func (g *answers) Before(*detectors.Event) policies.Verdict {
	return policies.Verdict{Action: g.before, Reason: policies.ReasonLimit}
}

func (g *answers) After(e *detectors.Event) policies.Verdict {
	g.heard = *e
	if e.Outcome != detectors.Success {
		return policies.Verdict{}
	}
	return policies.Verdict{Action: g.after, Reason: policies.ReasonRule}
}

// TestJudge plays each answer of the gate to each kind of password, and looks at what
// the gate hears of it and whether the login taught anything.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		before, after rules.Action
		correct       feed.Tri
		outcome       detectors.Outcome
		unproven      bool
		want          rules.Action
		learned       bool
	}{
		{rules.Allow, rules.Allow, feed.Yes, detectors.Success, false, rules.Allow, true},
		{rules.Delay, rules.Allow, feed.Yes, detectors.Success, false, rules.Delay, true},
		{rules.Allow, rules.StepUp, feed.Yes, detectors.Success, false, rules.StepUp, false},
		{rules.Allow, rules.Deceive, feed.Yes, detectors.Success, false, rules.Deceive, false},
		{rules.StepUp, rules.Allow, feed.Yes, detectors.Success, true, rules.StepUp, false},
		{rules.StepUp, rules.Allow, feed.No, detectors.Failure, false, rules.StepUp, false},
		{rules.Refuse, rules.Allow, feed.Yes, detectors.Refused, false, rules.Refuse, false},
		{rules.Deceive, rules.Allow, feed.No, detectors.Refused, false, rules.Deceive, false},
		{rules.Allow, rules.Allow, feed.No, detectors.Failure, false, rules.Allow, false},
		{rules.Allow, rules.Allow, feed.Unknown, detectors.Unknown, false, rules.Allow, false},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.before, c.after, c.correct), func(t *testing.T) {
			reader, err := feed.Open(strings.NewReader(`{"time":1795478400,"name":"sato","account":"u-1","device":"d-1"}`), "jsonl", feed.Options{})
			if err != nil {
				t.Fatal(err)
			}
			a, err := reader.Next()
			if err != nil {
				t.Fatal(err)
			}
			a.Correct = c.correct
			gate := &answers{before: c.before, after: c.after}
			j := judge{gate, new(feed.Directory)}
			again := a.Event
			verdict := j.judge(&a)
			j.directory.Fill(&again)
			if verdict.Action != c.want || gate.heard.Outcome != c.outcome || gate.heard.Unproven != c.unproven || again.Device.Known() != c.learned {
				t.Errorf("got %s, heard %s, unproven %t, device known then %t; want %s, %s, %t, %t",
					verdict.Action, gate.heard.Outcome, gate.heard.Unproven, again.Device.Known(), c.want, c.outcome, c.unproven, c.learned)
			}
		})
	}
}

// TestVerdictsKeepTheOrderOfTheFile sorts the events for the gate and the lines back.
func TestVerdictsKeepTheOrderOfTheFile(t *testing.T) {
	const events = `{"id":"c","time":1795478403}
{"id":"a","time":1795478401}
nonsense
{"time":1795478402}
`
	var out, tell strings.Builder
	v := verdicts{format: "jsonl", out: &out, tell: &tell}
	if err := v.run(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	const want = `{"id":"c","action":"allow","reason":""}
{"id":"a","action":"allow","reason":""}
{"id":4,"action":"allow","reason":""}
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if !strings.Contains(tell.String(), "line 3: ") || !strings.Contains(tell.String(), "4 lines: 3 attempts, 0 lines of something else, 1 not readable") {
		t.Errorf("told:\n%s", tell.String())
	}
}

// TestVerdictsOfAnInputThatBreaks writes what was read, and says that it is not all.
func TestVerdictsOfAnInputThatBreaks(t *testing.T) {
	broken := errors.New("the disk is gone")
	var out strings.Builder
	v := verdicts{format: "jsonl", out: &out, tell: io.Discard}
	err := v.run(io.MultiReader(strings.NewReader("{\"time\":1795478400}\n"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("got %v and %q, want %v and one line", err, out.String(), broken)
	}
}
