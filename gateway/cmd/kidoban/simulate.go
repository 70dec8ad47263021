package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/gateway/dry"
	"github.com/kidoban/kidoban/rules"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "simulate",
		Short: "Tries attacks and ordinary days on the detectors, rules and policy",
		Long: `
Plays people and attackers against what judges log-ins here, in virtual time, without a
network, and knows the truth of each attempt: what was tried, what got through, when the
gate acted, who was bothered.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use, cmd.RunE = "simulate COMMAND", showCommands
			cmd.AddCommand(simulateRunCommand("run"), simulateRunCommand("all"), simulateBudgetCommand(), simulateListCommand(), verdictsCommand())
		},
	})
}

// simulateRunCommand is run, or all, which runs every scenario that ships.
func simulateRunCommand(name string) *cobra.Command {
	o := simulateOptions{pack: rules.Shipped, now: time.Now}
	var seeds, pack string
	cmd := &cobra.Command{
		Use:   "run SCENARIO... [flags]",
		Short: "Plays scenarios and reports",
		Long: `
Plays scenarios once per seed and writes a report: a table, or JSON, and a page for people.
A scenario is the id of one that ships (see kidoban simulate list), a pattern of ids such as
'a2*', all, or a file of your own, named with a / or ending in .yaml; the format is described
in detectors/simulate/README.md.

The worst of the seeds is held to each target. Scenarios that evade, and with --spread those
whose numbers are drawn, are reported beside them without a limit.

With --live one scenario is played with one seed over HTTP, through a gate that must believe
this machine's X-Forwarded-For, as kidoban demo does. A gate remembers: give each run a fresh
one. At most 20,000 log-ins and 10 minutes are played; --scale and --compress help.

With --check the status is 1 if a target is missed.`,
		Example: "  kidoban simulate run b1 a1 a2 --seeds 11-13 --baselines --html report.html\n  kidoban simulate run ./monday.yaml",
		Args:    cobra.MinimumNArgs(1),
	}
	if name == "all" {
		cmd.Use, cmd.Short, cmd.Args, cmd.Example = "all [flags]", "Plays every scenario that ships", cobra.NoArgs, ""
		cmd.Long = "\nIs kidoban simulate run all."
	}
	busier := 0.0
	if name == "all" {
		busier = busierDays
	}
	f := cmd.Flags()
	f.StringVar(&seeds, "seeds", "11-20", seedsUsage)
	f.Float64Var(&o.busier, "busier", busier, "play days without an attack also with so many `times` as many people, and report on thresholds; 0: do not")
	f.Float64Var(&o.spread, "spread", 0, "play also with the numbers of a scenario drawn within this `share` of what is written, such as 0.5")
	f.Float64Var(&o.scale, "scale", 1, "so many `times` as many people and attempts, for a quick look")
	f.IntVar(&o.jobs, "jobs", min(runtime.GOMAXPROCS(0), 4), jobsUsage)
	f.BoolVar(&o.baselines, "baselines", false, "play also before simpler defenses, to compare")
	f.BoolVar(&o.json, "json", false, "write JSON instead of a table")
	f.StringVar(&o.html, "html", "", "write a page for people into this `file` too")
	f.BoolVar(&o.check, "check", false, "fail if a target is missed")
	f.StringVar(&o.language, "language", language(os.Getenv), "`language` of table and page: en or ja")
	f.StringVar(&pack, "rules", "", rulesUsage)
	var live liveFlags
	if name == "run" {
		f.StringVar(&live.url, "live", "", "play over HTTP through the gate at this `address` of this machine, such as https://localhost:8443")
		f.StringVar(&live.accounts, "accounts", "", "with --live: `file` of who can log in, such as accounts.csv of kidoban demo --data-dir")
		f.StringVar(&live.authority, "authority", "", "with --live: `file` of the certificate that vouches for the gate's")
		f.Float64Var(&live.compress, "compress", 1, "with --live: so many `times` as fast")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if name == "all" {
			args = []string{"all"}
		}
		if o.live, err = live.gate(); err != nil {
			return err
		}
		if err := o.prepare(seeds, pack); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		cmd.SilenceUsage = true
		return o.simulate(ctx, args, os.Stdout, os.Stderr)
	}
	return cmd
}

// Usage of flags that several commands have.
const (
	seedsUsage = "`numbers` that people and attackers are made from, such as 11-20 or 1,5,9"
	jobsUsage  = "how many `runs` are played at a time; each has a town in memory"
	rulesUsage = "read the rules in this `directory` instead of those that ship"
)

// busierDays is how many times as many people thresholds are tried on.
const busierDays = 10

// prepare reads what flags name.
func (o *simulateOptions) prepare(seeds, pack string) (err error) {
	if o.seeds, err = seedList(seeds); err != nil {
		return err
	}
	if err := o.valid(); err != nil {
		return err
	}
	if pack != "" {
		o.pack = os.DirFS(pack)
	}
	set, faults := rules.Load(o.pack)
	if len(faults) > 0 {
		return fmt.Errorf("loading the rules: %w", errors.Join(faults...))
	}
	grounded := o.busier != 0
	o.defense = func() (simulate.Defense, error) { return shippedDefense(set, grounded) }
	return nil
}

// shippedDefense is a gate that has known its accounts for long, with the given rules,
// and tells its grounds if that is wanted.
func shippedDefense(set *rules.Set, grounded bool) (simulate.Defense, error) {
	g, err := dry.New(dry.Config{Set: set})
	switch {
	case err != nil:
		return nil, err
	case grounded:
		return dry.NewGrounded(g), nil
	}
	return dry.Simulated{Gate: g}, nil
}

func simulateListCommand() *cobra.Command {
	var lang string
	cmd := &cobra.Command{
		Use: "list", Short: "Lists the scenarios that ship", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := simulate.Load(simulate.Shipped)
			if err != nil {
				return err
			}
			hash, err := simulate.Hash(simulate.Shipped)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			for _, s := range all {
				title := s.Title.EN
				if lang == "ja" {
					title = s.Title.JA
				}
				fmt.Fprintf(w, "%s\t%s\n", s.ID, title)
			}
			fmt.Fprintf(w, "\n%d\t%s\n", len(all), hash)
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&lang, "language", language(os.Getenv), "`language` of the titles: en or ja")
	return cmd
}
