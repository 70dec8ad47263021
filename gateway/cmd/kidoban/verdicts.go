package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/dry"
	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// maxTold is how many faults of a log are shown.
const maxTold = 20

func verdictsCommand() *cobra.Command {
	v := verdicts{out: os.Stdout, tell: os.Stderr}
	var events, rulesDir string
	var from feedFlags
	cmd := &cobra.Command{
		Use:   "verdicts --events FILE [--format jsonl|sshd|caddy]",
		Short: "Judges login events of a file as the gate would have",
		Long: `
Reads login attempts in the order of their times, judges each by the shipped
detectors, rules and policy before its outcome is known, lets them learn the outcome,
and writes one line for each attempt, in the order of FILE:

	{"id":"e1","action":"step_up","reason":"rule","rule":"campaign.strangers"}

The id is the attempt's, or the number of its line. The action is allow, delay,
step_up, refuse or deceive; the reason is of the same set as in the record, and the
rule is the one that decided, if one did. A summary, and what could not be read, is
written to standard error.

gateway/feed/README.md describes the three formats. What a log lacks is unknown. The
clock is that of the events: they are sorted within 5 minutes, so a line may come
that much later, and nothing else is kept of the file. The gate is taken to be
installed at the first event, and to believe all accounts for as long as --learning
says. A log-in that is stepped up teaches it nothing: whether it was proven is not
known.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if events == "" {
				return errors.New("which events? Name a file with --events, or - for standard input")
			}
			in := os.Stdin
			if events != "-" {
				f, err := os.Open(events)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			if rulesDir != "" {
				if at, err := os.Stat(rulesDir); err != nil {
					return err
				} else if !at.IsDir() {
					return fmt.Errorf("%s is not a directory: --rules wants one with *.yaml files", rulesDir)
				}
				v.gate.Rules = os.DirFS(rulesDir)
			}
			v.format, v.options = from.format, from.options
			return v.run(in)
		},
	}
	f := cmd.Flags()
	f.StringVar(&events, "events", "", "the events, a `file`, or - for standard input")
	f.StringVar(&rulesDir, "rules", "", "judge by the rules in a `directory` instead of the shipped ones")
	f.DurationVar(&v.learning, "learning", 24*time.Hour, "from the first event, believe all accounts for so long; 0: at no time")
	from.add(cmd)
	return cmd
}

// verdicts judges the attempts of a log.
type verdicts struct {
	format    string
	options   feed.Options
	gate      dry.Config
	learning  time.Duration
	out, tell io.Writer

	told    int
	actions map[rules.Action]int
	pending map[uint64]verdictLine // of attempts that were judged before one that is written earlier
	written uint64
}

// verdictLine is a line of the output.
type verdictLine struct {
	ID     json.RawMessage `json:"id"`
	Action rules.Action    `json:"action"`
	Reason policies.Reason `json:"reason"`
	Rule   rules.ID        `json:"rule,omitempty"`
}

func (v *verdicts) run(in io.Reader) error {
	if v.learning < 0 {
		return fmt.Errorf("--learning %s: want 0 or longer", v.learning)
	}
	v.options.Fault = v.fault
	reader, err := feed.Open(in, v.format, v.options)
	if err != nil {
		return err
	}
	v.actions, v.pending = map[rules.Action]int{}, map[uint64]verdictLine{}
	out := bufio.NewWriter(v.out)
	judge := judge{directory: new(feed.Directory)}
	for {
		a, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if judge.gate == nil {
			if v.learning > 0 {
				v.gate.LearningUntil = a.Event.Time.Add(v.learning)
			}
			gate, err := dry.New(v.gate)
			if err != nil {
				return err
			}
			judge.gate = gate
		}
		verdict := judge.judge(&a)
		v.actions[verdict.Action]++
		v.pending[a.Number] = verdictLine{a.ID, verdict.Action, verdict.Reason, verdict.Rule}
		if err := v.write(out); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return v.summarize(reader.Counts())
}

// write writes the lines whose turn it is.
func (v *verdicts) write(w io.Writer) error {
	for {
		line, ok := v.pending[v.written+1]
		if !ok {
			return nil
		}
		if err := json.NewEncoder(w).Encode(line); err != nil {
			return err
		}
		v.written++
		delete(v.pending, v.written)
	}
}

func (v *verdicts) fault(line int, err error) {
	switch v.told++; {
	case v.told <= maxTold:
		fmt.Fprintf(v.tell, "line %d: %v\n", line, err)
	case v.told == maxTold+1:
		fmt.Fprintln(v.tell, "further faults are counted only")
	}
}

func (v *verdicts) summarize(c feed.Counts) error {
	fmt.Fprintf(v.tell, "%d lines: %d attempts, %d lines of something else, %d not readable; %d values taken as unknown or changed\n",
		c.Lines, c.Attempts, c.Ignored, c.Faults, c.Doubts)
	if c.Attempts == 0 {
		return fmt.Errorf("no login attempt in %d lines: is the format %s?", c.Lines, v.format)
	}
	for action := rules.Allow; action <= rules.Deceive; action++ {
		if n := v.actions[action]; n > 0 {
			fmt.Fprintf(v.tell, "%-8s %d\n", action, n)
		}
	}
	return nil
}

// defence judges an attempt: before its outcome is known, and after.
type defence interface {
	Before(*detectors.Event) policies.Verdict
	After(*detectors.Event) policies.Verdict
}

// judge plays the backend of a gate: it answers what the log says.
type judge struct {
	gate      defence
	directory *feed.Directory
}

func (j judge) judge(a *feed.Attempt) policies.Verdict {
	e := &a.Event
	j.directory.Fill(e)
	before := j.gate.Before(e)
	switch {
	case before.Action >= rules.Refuse:
		e.Outcome = detectors.Refused
	case a.Correct == feed.Yes:
		e.Outcome, e.Unproven = detectors.Success, before.Action == rules.StepUp
		j.directory.Identify(e)
	case a.Correct == feed.No:
		e.Outcome = detectors.Failure
	default:
		e.Outcome = detectors.Unknown
	}
	verdict := before.Stricter(j.gate.After(e))
	if e.Outcome == detectors.Success && verdict.Action < rules.StepUp {
		j.directory.Complete(e)
	}
	return verdict
}
