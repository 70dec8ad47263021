package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/breached"
	"github.com/kidoban/kidoban/gateway/storage"
)

// leakedReason is the reason of the decisions, on record and in notices.
const leakedReason = "in a leaked list"

func breachedPairs() *cobra.Command {
	var p leakedPairs
	var database, keyFile, length string
	var apply bool
	cmd := &cobra.Command{
		Use:   "pairs FILE [--apply --api URL --key-file FILE]",
		Short: "Finds the accounts that are in a list of stolen names and passwords",
		Long: `Reads a list of names and passwords, one pair in a line (- for standard input), and shows
the accounts that somebody logs in to under one of the names. Of each line only the name is
used, and only its keyed digest is looked up, in the data_dir or database of the gate, which
may run. Passwords are skipped: they are not compared, kept, shown or sent. Without --apply
nothing is changed.

With --apply every account that is found gets a decision through the operators' API of the
running gate, on record in the name of the key and with the reason "` + leakedReason + `": its log-ins
are stepped up for the time that --for says, on devices that the account knows as well.
The role of the key is responder or admin. Applying again extends the decisions and makes
no second ones. Sessions that there are go on; end them by the API where that is wanted.`,
		Args: one("the list"),
	}
	cmd.Flags().StringVar(&p.format, "format", "auto", "what is between name and password, a `format`: colon, semicolon, csv, tab, or auto for the first of them in each line")
	cmd.Flags().StringVar(&database, "database", "", "the PostgreSQL `database` of the gate: env:NAME, file:PATH, or an address without a password (default: SQLite in the data_dir)")
	cmd.Flags().BoolVar(&p.json, "json", false, "write JSON")
	cmd.Flags().BoolVar(&apply, "apply", false, "register the decisions")
	cmd.Flags().StringVar(&p.api, "api", "", "`address` of the operators' API, such as https://operators.example.com")
	cmd.Flags().StringVar(&keyFile, "key-file", "", "a `file` that holds a key of the operators' API")
	cmd.Flags().StringVar(&p.action, "decide", "step_up", "the `action`: step_up, refuse or delay")
	cmd.Flags().StringVar(&length, "for", "7d", "how long, a `duration` such as 7d or 12h")
	dir := dataDirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := p.check(apply, keyFile, length); err != nil {
			return err
		}
		text, err := address(database)
		if err != nil {
			return fmt.Errorf("--database: %w", err)
		}
		in := os.Stdin
		if args[0] != "-" {
			if in, err = os.Open(args[0]); err != nil {
				return err
			}
			defer in.Close()
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
		defer stop()
		found, err := p.find(ctx, in, storage.Options{DataDir: dir(), Database: text, Node: "breached"})
		if err != nil {
			return err
		}
		if found.Applied = apply; apply {
			err = p.register(ctx, &found)
		}
		return errors.Join(found.show(os.Stdout, p.json), err)
	}
	return cmd
}

// leakedPairs is what is to be done with a list.
type leakedPairs struct {
	format, api, action string
	length              time.Duration
	json                bool
	gate                *gateAPI // nil unless decisions are to be registered
}

// check checks the flags before a long list is read.
func (p *leakedPairs) check(apply bool, keyFile, length string) (err error) {
	if _, ok := breached.Separators[p.format]; !ok {
		return fmt.Errorf("--format %.20q: want auto, colon, semicolon, csv or tab", p.format)
	}
	if !slices.Contains([]string{"step_up", "refuse", "delay"}, p.action) {
		return fmt.Errorf("--decide %.20q: want step_up, refuse or delay", p.action)
	}
	if days, ok := strings.CutSuffix(length, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 9)
		if err == nil {
			p.length = time.Duration(n) * 24 * time.Hour
		}
	} else if p.length, err = time.ParseDuration(length); err != nil {
		p.length = 0
	}
	if p.length <= 0 {
		return fmt.Errorf("--for %.20q: want a duration such as 7d or 12h", length)
	}
	if !apply {
		return nil
	}
	p.gate, err = openOperatorsAPI(p.api, keyFile)
	return err
}

// leaked is what came of a list.
type leaked struct {
	Lines      int      `json:"lines"`
	Unreadable int      `json:"unreadable"`
	Names      int      `json:"names_known"` // lines whose name leads to an account
	Accounts   []string `json:"accounts"`    // sorted
	Applied    bool     `json:"applied"`     // decisions were to be registered
	Registered int      `json:"registered"`  // accounts that have the decision now
}

// find looks the names of a list up.
func (p *leakedPairs) find(ctx context.Context, in io.Reader, o storage.Options) (found leaked, err error) {
	db, err := storage.OpenReadOnly(ctx, o)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return found, fmt.Errorf("no gate has kept anything in %s: name its data_dir with --data-dir", o.DataDir)
		}
		return found, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	keys, err := storage.OpenKeyring(filepath.Join(o.DataDir, "keys.json"), false)
	if err != nil {
		return found, err
	}
	store, err := auth.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return found, err
	}
	directory := auth.NewDirectory(store)
	accounts := make(map[string]bool)
	read, err := breached.Pairs(ctx, in, p.format, func(name string) error {
		all := keys.Digests("name", auth.CanonicalName(name))
		subject, _, ok, err := directory.ByTyped(ctx, all[0], all[1:]...)
		if err != nil {
			return fmt.Errorf("looking a name up: %w", err)
		}
		if ok {
			found.Names++
			accounts[subject] = true
		}
		return nil
	})
	found.Lines, found.Unreadable = read.Lines, read.Unreadable
	found.Accounts = slices.AppendSeq([]string{}, maps.Keys(accounts)) // [] and not null
	slices.Sort(found.Accounts)
	return found, err
}

// register registers the decisions, one after the other, and stops at the first that
// the gate does not take.
func (p *leakedPairs) register(ctx context.Context, found *leaked) error {
	for _, account := range found.Accounts {
		if err := p.decide(ctx, account); err != nil {
			return fmt.Errorf("%d of %d accounts have the decision; run it again for the rest: account %q: %w", found.Registered, len(found.Accounts), account, err)
		}
		found.Registered++
	}
	return nil
}

func (p *leakedPairs) decide(ctx context.Context, account string) error {
	_, err := p.gate.call(ctx, http.MethodPost, "/v1/decisions", map[string]string{
		"scope": "account", "value": account, "action": p.action, "ttl": p.length.String(), "reason": leakedReason,
	})
	return err
}

// show writes what came of the list.
func (l leaked) show(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(l)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d lines, %d of them unreadable; %d names lead to %d accounts\n", l.Lines, l.Unreadable, l.Names, len(l.Accounts))
	for _, account := range l.Accounts {
		fmt.Fprintf(&b, "  %q\n", account)
	}
	if l.Applied {
		fmt.Fprintf(&b, "%d accounts have the decision\n", l.Registered)
	} else if len(l.Accounts) > 0 {
		b.WriteString("nothing was changed: --apply registers a decision for each of them\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
