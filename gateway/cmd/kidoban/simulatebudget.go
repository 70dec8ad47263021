package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/rules"
)

func simulateBudgetCommand() *cobra.Command {
	o := simulateOptions{pack: rules.Shipped, now: time.Now, budget: true}
	var seeds, pack string
	cmd := &cobra.Command{
		Use:   "budget [flags]",
		Short: "Holds the rules' thresholds against days without an attack",
		Long: `
Plays the scenarios that ship in which nobody attacks, as they are and with many times as many
people in the same offices and behind the same carriers. Of each rule it tells the false matches
in 100,000 good log-ins, the rule's budget, and how high the numbers that its condition compares
get among good log-ins: a threshold comes from these, never from attacks.

A rule misses if its worst seed matches a larger share of good log-ins than its budget is of
hits (rules/README.md says why that is enough), or if a busier day has more than three times the
share of false matches. With --check the status is 1 then.`,
		Example: "  kidoban simulate budget --seeds 1-3\n  kidoban simulate budget --rules ./rules --json",
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&seeds, "seeds", "1-10", seedsUsage)
	f.Float64Var(&o.busier, "busier", busierDays, "so many `times` as many people on busier days")
	f.Float64Var(&o.scale, "scale", 1, "so many `times` as many people on all days, for a quick look")
	f.IntVar(&o.jobs, "jobs", min(runtime.GOMAXPROCS(0), 4), jobsUsage)
	f.BoolVar(&o.json, "json", false, "write JSON instead of a table")
	f.BoolVar(&o.check, "check", false, "fail if a rule misses")
	f.StringVar(&o.language, "language", language(os.Getenv), "`language` of the table: en or ja")
	f.StringVar(&pack, "rules", "", rulesUsage)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.busier == 0 {
			return fmt.Errorf("--busier 0: want 1 to 100 times")
		}
		if err := o.prepare(seeds, pack); err != nil {
			return err
		}
		all, err := simulate.Load(simulate.Shipped)
		if err != nil {
			return err
		}
		var names []string
		for _, s := range simulate.Peaceful(all) {
			names = append(names, s.ID)
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		cmd.SilenceUsage = true
		return o.simulate(ctx, names, os.Stdout, os.Stderr)
	}
	return cmd
}

// writeBudget writes what a report says of thresholds.
func (o *simulateOptions) writeBudget(r *simulate.Report, stdout io.Writer) (err error) {
	if o.json {
		err = r.WriteBudgetJSON(stdout)
	} else {
		err = r.WriteBudget(stdout, o.language)
	}
	if missed := r.Thresholds.MissedRules(); err == nil && o.check && len(missed) > 0 {
		return fmt.Errorf("over their budget, or not steady on busier days: %s", strings.Join(missed, ", "))
	}
	return err
}
