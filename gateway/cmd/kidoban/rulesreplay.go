package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/gateway/replay"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// replayExamples is how many of the hits that differ the JSON has.
const replayExamples = 20

// replayOptions are the flags of kidoban rules replay.
type replayOptions struct {
	events, rules, against, dataDir string
	backend, policies               string
	record                          recordFlags
	from, to                        string
	learning                        time.Duration
	learningSet                     bool
	feed                            feedFlags
	language                        string

	now         time.Time
	out, stderr io.Writer
	told        int
}

func rulesReplay() *cobra.Command {
	o := replayOptions{out: os.Stdout, stderr: os.Stderr}
	cmd := &cobra.Command{
		Use:   "replay --events FILE|spool|record|demo --rules NEW [--against OLD]",
		Short: "Tells what rules would have hit of recorded events",
		Long: `
Runs recorded events through the detectors and through two sets of rules, in the time of
the events, and tells what NEW hits and OLD does not, and the other way round: how often,
when, whose names, accounts and organizations, how many of these proved benign later,
and what would be answered otherwise. Nothing is changed.

Events come from
	FILE    a file of log-ins as simulate verdicts reads it (--format), - for standard input;
	        lines of JSON may be other kinds of events, as gateway/feed/README.md says
	spool   what the gate of --data-dir keeps of the last days for its detectors
	record  its record, for longer ago: log-ins that succeeded by account, the failed ones
	        as sums, by network and without names
	demo    a recorded attack: a list of stolen pairs beside an office on Monday morning
A file with one of these names is ./spool and so on.

NEW is a directory, which is laid over the rules that ship as the gate does it, or one
file, which is laid over OLD. OLD is a directory, shipped, or running: what the gate of
--data-dir has in force. Without --against it is running where events come from there and
the gate has rules of its own, and else shipped.

What a preset cannot do falls back as a rule declares: --backend names it. Without one
everybody can be deceived who may be. That a gate has second factors, and who is in one,
is believed.

Events are replayed as they happened: what a rule would have stopped goes on. Detectors
begin empty; with --from what was before is learned and not counted.
rules/README.md says more ("Try it on the past").`,
		Example: "  kidoban rules replay --events demo --rules my.rule.yaml\n  kidoban rules replay --events spool --from 7d --rules /etc/kidoban/rules.new --against running",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.learningSet = cmd.Flags().Changed("learning")
			o.now = time.Now()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return o.run(ctx)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.events, "events", "", "the events: a `file`, -, spool, record or demo")
	f.StringVar(&o.rules, "rules", "", "NEW: a `directory` of rules, or one file")
	f.StringVar(&o.against, "against", "", "OLD: a `directory` of rules, shipped or running")
	f.StringVar(&o.backend, "backend", "", "the preset of the service, by its `name` (default: not known)")
	f.StringVar(&o.policies, "policies", "", "a `directory` with the preset in its folder backends (default: those that ship)")
	f.StringVar(&o.dataDir, "data-dir", "", "data_dir of the gate, a `directory` (default: as the gate's own default)")
	f.StringVar(&o.record.keys, "keys", "", "the keyring that opens the record, a `file` (default: keys.json in the data_dir)")
	f.BoolVar(&o.record.json, "json", false, "write JSON")
	f.StringVar(&o.from, "from", "", "count what happened from this `time` on, such as 2026-11-23, 2026-11-23T09:00:00Z, or 24h or 7d for that long ago")
	f.StringVar(&o.to, "to", "", "count what happened before this `time`, in the same forms")
	f.DurationVar(&o.learning, "learning", 24*time.Hour, "from the first event, believe all accounts for so long (default: 24h, and 0 for spool and demo, which tell since when accounts are known)")
	f.StringVar(&o.language, "language", language(os.Getenv), "`language` of the text: en or ja")
	o.feed.add(cmd)
	return cmd
}

// run replays and writes the report.
func (o *replayOptions) run(ctx context.Context) error {
	switch {
	case o.events == "":
		return errors.New("which events? Name a file with --events, or spool, record or demo")
	case o.rules == "":
		return errors.New("which rules? Name a directory or a file with --rules")
	case o.learning < 0:
		return fmt.Errorf("--learning %s: want 0 or longer", o.learning)
	case !slices.Contains(replay.Languages, o.language):
		return fmt.Errorf("--language %q: want one of %s", o.language, strings.Join(replay.Languages, ", "))
	}
	c := replay.Config{Learning: o.learning, Examples: replayExamples}
	var err error
	if c.From, err = moment("--from", o.from, o.now, time.Time{}); err != nil {
		return err
	}
	if c.To, err = moment("--to", o.to, o.now, time.Time{}); err != nil {
		return err
	}
	if !c.To.IsZero() && !c.From.Before(c.To) {
		return fmt.Errorf("--from %s is not before --to %s", o.from, o.to)
	}
	if err = o.preset(&c); err != nil {
		return err
	}
	if o.dataDir == "" {
		o.dataDir = filepath.Join(caddy.AppDataDir(), "kidoban")
	}
	source, what, done, err := o.source(&c)
	if err != nil {
		return err
	}
	defer done()
	c.Source = source
	oldName, newName, err := o.sets(&c)
	if err != nil {
		return err
	}
	v := newView(o.stderr, phrases("en"))
	if v.live {
		shown := time.Now()
		c.Progress = func(events uint64) {
			if now := time.Now(); now.Sub(shown) > 250*time.Millisecond {
				shown = now
				v.show(number(int64(events))+" events", false)
			}
		}
	}
	r, err := replay.Run(ctx, c)
	if v.live {
		v.show("", true)
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return errors.New("the replay was cut short")
		}
		return err
	}
	if r.Read == 0 {
		return fmt.Errorf("no events in %s: %d lines or entries could not be read, %d were of something else", what, r.Unreadable, r.Other)
	}
	r.Events, r.Old, r.New = what, oldName, newName
	if o.record.json {
		return r.WriteJSON(o.out)
	}
	return r.WriteTable(o.out, o.language)
}

// preset reads the one that --backend names.
func (o *replayOptions) preset(c *replay.Config) (err error) {
	if o.backend == "" {
		if o.policies != "" {
			return errors.New("--policies says where presets are: name the one of the service with --backend")
		}
		return nil
	}
	var dir fs.FS
	if o.policies != "" {
		dir = os.DirFS(filepath.Join(o.policies, "backends"))
	}
	c.Backend, err = policies.LoadBackend(o.backend, dir)
	return err
}

// source opens what --events names. done closes it.
func (o *replayOptions) source(c *replay.Config) (s replay.Source, what string, done func(), err error) {
	done = func() {}
	o.feed.options.Fault, o.feed.options.AllKinds = o.fault, true
	format := o.feed.format
	var in io.Reader
	switch o.events {
	case "spool", "demo":
		if !o.learningSet {
			c.Learning = 0
		}
		if o.events == "spool" {
			dir := filepath.Join(o.dataDir, "events")
			if _, err := os.Stat(dir); err != nil {
				return nil, "", done, fmt.Errorf("no gate has kept events in %s: name its data_dir with --data-dir", o.dataDir)
			}
			return replay.InZone(replay.FromSpool(dir), o.feed.options.Zone), "spool " + dir, done, nil
		}
		in, what, format = replay.Demo(), "demo", "jsonl"
	case "record":
		dir := filepath.Join(o.dataDir, "record")
		if _, err := os.Stat(dir); err != nil {
			return nil, "", done, fmt.Errorf("no gate has kept a record in %s: name its data_dir with --data-dir", o.dataDir)
		}
		keys, err := o.record.open(dir)
		if err != nil {
			return nil, "", done, err
		}
		return replay.InZone(replay.FromRecord(dir, keys), o.feed.options.Zone), "record " + dir, done, nil
	case "-":
		in, what = os.Stdin, "-"
	default:
		f, err := os.Open(o.events)
		if err != nil {
			return nil, "", done, err
		}
		done = func() { _ = f.Close() } // it was only read
		in, what = f, o.events
	}
	reader, err := feed.Open(in, format, o.feed.options)
	if err != nil {
		done()
		return nil, "", func() {}, err
	}
	return replay.FromFeed(reader), what, done, nil
}

// sets loads OLD and NEW, and names them.
func (o *replayOptions) sets(c *replay.Config) (oldName, newName string, err error) {
	against := o.against
	files := rules.Shipped
	if kept := o.events == "spool" || o.events == "record"; against == "running" || against == "" && kept {
		inForce, ok, err := running(o.dataDir)
		switch {
		case err != nil:
			return "", "", err
		case ok:
			files, against = inForce, "running"
		case against == "running":
			return "", "", fmt.Errorf("no gate with rules of its own has kept them in %s: name its data_dir with --data-dir, or compare with --against shipped", o.dataDir)
		}
	}
	if against == "" {
		against = "shipped"
	}
	if against != "running" && against != "shipped" {
		if files, err = ruleFiles(against, rules.Shipped); err != nil {
			return "", "", err
		}
	}
	if c.Old, err = loadSet(against, files); err != nil {
		return "", "", err
	}
	newName = o.rules
	beneath := rules.Shipped
	if info, err := os.Stat(o.rules); err == nil && !info.IsDir() {
		newName, beneath = o.rules+" + "+against, files
	}
	if files, err = ruleFiles(o.rules, beneath); err != nil {
		return "", "", err
	}
	c.New, err = loadSet(o.rules, files)
	return against, newName, err
}

// fault tells of a line that cannot be read as it is.
func (o *replayOptions) fault(line int, err error) {
	switch o.told++; {
	case o.told <= maxTold:
		fmt.Fprintf(o.stderr, "line %d: %v\n", line, err)
	case o.told == maxTold+1:
		fmt.Fprintln(o.stderr, "further faults are counted only")
	}
}
