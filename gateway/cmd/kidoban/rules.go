package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "rules",
		Short: "Lists signals, checks rules, explains and undoes what they did",
		Long: `
For those who write rules: what rules can ask for, whether files of rules are right, and
what they would have hit, for which the gate need not run; why a rule matched, and how to take back what
it did, for which the operators' API of the running gate is asked.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "rules <signals|schema|check|test|replay|explain|undo>"
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = showCommands
			cmd.AddCommand(rulesSignals(), rulesSchema(), rulesCheck(), rulesTest(), rulesReplay(), rulesExplain(), rulesUndo())
		},
	})
}

func rulesSignals() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "signals [flags]",
		Short: "Lists the signals that rules can name",
		Long: `
Lists what the detectors say of a login, with name, unit, range and meaning. A rule
names a signal in its condition, as in source.sequential >= 9.2. A range of "0.." has
no upper end.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the list as JSON")
	cmd.RunE = func(*cobra.Command, []string) error { return listSignals(os.Stdout, asJSON) }
	return cmd
}

// listSignals writes the catalog of the detectors that ship.
func listSignals(w io.Writer, asJSON bool) error {
	all := detectors.Default(time.Time{}).Catalog()
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "signal\tunit\trange\tmeaning")
	for _, d := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", d.Name, d.Unit, span(d), d.Meaning)
	}
	return t.Flush()
}

// span is the range of a signal.
func span(d detectors.Description) string {
	text := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	if d.Min == 0 && d.Max == 0 {
		return "0.."
	}
	return text(d.Min) + ".." + text(d.Max)
}

func rulesCheck() *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Checks every file of rules in a directory",
		Long: `
Reads every *.yaml of the directory and the lists in its folder lists/ as the gate
does, tests included, and tells every fault with its place. Ends with status 1 if there
is one.

Warns of rules whose review is overdue, and of exemptions that have ended or end within
14 days. These are no faults.`,
		Args: one("the directory of the files"),
	}
	cmd.Flags().StringVar(&at, "now", "", "warn as of this `time`, such as 2026-11-23 (default: now)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		now, err := moment("--now", at, time.Now(), time.Now())
		if err != nil {
			return err
		}
		set, err := loadRules(args[0])
		if err != nil {
			return err
		}
		for _, r := range set.Rules() {
			for _, due := range r.Due(now) {
				fmt.Fprintf(os.Stderr, "warning: %s: %s\n", r.File, due)
			}
		}
		fmt.Printf("%d rules are right\n", len(set.Rules()))
		return nil
	}
	return cmd
}

func rulesTest() *cobra.Command {
	return &cobra.Command{
		Use:   "test DIR",
		Short: "Runs the tests of every file of rules in a directory",
		Long: `
Runs the tests that stand in the files and lists them. A test that fails is told with
what was expected, and the command ends with status 1.`,
		Args: one("the directory of the files"),
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := loadRules(args[0])
			if err != nil {
				return err
			}
			tests := 0
			for _, r := range set.Rules() {
				fmt.Printf("%s (%s)\n", r.ID, r.Mode)
				for _, test := range r.Tests {
					fmt.Printf("  ok  %s\n", test.Name)
					tests++
				}
			}
			fmt.Printf("%d tests of %d rules pass\n", tests, len(set.Rules()))
			return nil
		},
	}
}

// loadRules reads the rules in a directory. The error tells all faults.
func loadRules(dir string) (*rules.Set, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is no directory; name the one that holds the files", dir)
	}
	set, faults := rules.Load(os.DirFS(dir))
	if len(faults) > 0 {
		var b strings.Builder
		for _, fault := range faults {
			fmt.Fprintf(&b, "\n  %v", fault)
		}
		return nil, fmt.Errorf("%d faults in %s:%s", len(faults), dir, b.String())
	}
	if len(set.Rules()) == 0 {
		return nil, errors.New(dir + " has no rules; they are files *.yaml")
	}
	return set, nil
}
