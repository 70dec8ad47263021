package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "report",
		Short: "Says what the gate did, or would have done",
		Long: `
Sums up what the gate refused, stepped up, delayed or limited, and what it would
have in observe mode, by hour of the clock (UTC). It only reads, so the gate may run
meanwhile; what happened in the last ten seconds may be missing then.`,
		CobraFunc: func(cmd *cobra.Command) {
			var dir, database, from, to string
			var asJSON bool
			cmd.Use = "report [flags]"
			cmd.Args = cobra.NoArgs
			cmd.Flags().StringVar(&dir, "data-dir", "", "data_dir of the gate, a `directory` (default: as the gate's own default)")
			cmd.Flags().StringVar(&database, "database", "", "the PostgreSQL `database` of the gate: env:NAME, file:PATH, or an address without a password (default: SQLite in the data_dir)")
			cmd.Flags().StringVar(&from, "from", "", "first hour: a `time` such as 2026-11-23, 2026-11-23T09:00:00Z, or 24h or 7d for that long ago (default: the beginning)")
			cmd.Flags().StringVar(&to, "to", "", "the `time` to stop before, in the same forms (default: now)")
			cmd.Flags().BoolVar(&asJSON, "json", false, "write the rows as JSON")
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return report(cmd.Context(), dir, database, from, to, asJSON, time.Now(), os.Stdout)
			}
		},
	})
}

func report(ctx context.Context, dir, database, from, to string, asJSON bool, now time.Time, w io.Writer) error {
	if dir == "" {
		dir = filepath.Join(caddy.AppDataDir(), "kidoban")
	}
	first, err := moment("--from", from, now, time.Time{})
	if err != nil {
		return err
	}
	last, err := moment("--to", to, now, now.Add(time.Hour)) // the hour under way counts
	if err != nil {
		return err
	}
	first = first.Truncate(time.Hour) // counts are kept by the hour
	if !first.Before(last) {
		return fmt.Errorf("--from %s is not before --to %s", from, to)
	}
	text, err := address(database)
	if err != nil {
		return fmt.Errorf("--database: %w", err)
	}
	rows, err := readLedger(ctx, storage.Options{DataDir: dir, Database: text, Node: "report"}, first, last)
	if err != nil {
		return err
	}
	if asJSON {
		if rows == nil {
			rows = []policies.LedgerRow{} // [] and not null
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	}
	return policies.WriteReport(w, rows)
}

// readLedger reads what a gate counted, also while it runs.
func readLedger(ctx context.Context, o storage.Options, from, to time.Time) (_ []policies.LedgerRow, err error) {
	db, err := storage.OpenReadOnly(ctx, o)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("no gate has kept anything in %s: name its data_dir with --data-dir", o.DataDir)
		}
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ledger, err := policies.NewLedger(db.SQL(), db.Dialect())
	if err != nil {
		return nil, err
	}
	return ledger.Report(ctx, from, to)
}

// moment reads a time as people give it. Without one it is std.
func moment(name, text string, now, std time.Time) (time.Time, error) {
	if text == "" {
		return std, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%s %q: want a time such as 2026-11-23 or 2026-11-23T09:00:00Z (UTC), or 24h or 7d for that long ago", name, text)
}
