package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "record",
		Short: "Reads, checks and restores the record",
		Long: `
Works on the record of a gate: the directory DIR, in which each node keeps what
happened in segment files. Bodies of entries are sealed; the keyring that opens them
is keys.json beside DIR, or what --keys names. All but fsck --repair-tail and restore
only read, so the gate may run meanwhile.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use, cmd.RunE = "record COMMAND", showCommands
			cmd.AddCommand(recordTail(), recordFsck(), recordVerify(), recordRestore())
		},
	})
}

// recordFlags are what the commands have in common.
type recordFlags struct {
	keys string
	json bool
}

func (f *recordFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.keys, "keys", "", "the keyring, a `file` (default: keys.json beside DIR, if it is there)")
	cmd.Flags().BoolVar(&f.json, "json", false, "write JSON")
}

// open returns the keys that open bodies, none if there is no keyring.
func (f *recordFlags) open(dir string) (func() []record.Key, error) {
	file := f.keys
	if file == "" {
		file = filepath.Join(filepath.Dir(filepath.Clean(dir)), "keys.json")
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	ring, err := storage.OpenKeyring(file, false)
	if err != nil {
		return nil, err
	}
	return func() (keys []record.Key) {
		for _, k := range ring.All(storage.Seal) {
			keys = append(keys, record.Key{ID: k.ID, Secret: k.Bytes})
		}
		return keys
	}, nil
}

// oneRecord wants a directory that is a record, perhaps one without entries.
func oneRecord(cmd *cobra.Command, args []string) error {
	if err := one("the directory of the record")(cmd, args); err != nil {
		return err
	}
	there, err := os.ReadDir(args[0])
	if err != nil {
		return err
	}
	for _, e := range there {
		if strings.HasSuffix(e.Name(), ".seg") || e.Name() == "lock" {
			return nil
		}
	}
	return fmt.Errorf("%s holds no record: name the directory with the files *.seg, such as record in the data_dir", args[0])
}

func recordTail() *cobra.Command {
	var f recordFlags
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "tail [-f] [-n COUNT] [--json] DIR",
		Short: "Shows the last entries",
		Args:  oneRecord,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := f.open(args[0])
			if err != nil {
				return err
			}
			if lines < 0 || lines > 100_000 {
				return fmt.Errorf("-n %d: want 0 to 100000 entries", lines)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return tailRecord(ctx, args[0], keys, lines, follow, f.json, os.Stdout)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new entries until interrupted")
	cmd.Flags().IntVarP(&lines, "lines", "n", 10, "how many entries to show first")
	return cmd
}

// tailRecord writes the last entries and, if it is to follow, what comes.
func tailRecord(ctx context.Context, dir string, keys func() []record.Key, lines int, follow, asJSON bool, w io.Writer) error {
	show := func(e record.Entry) error { return showEntry(w, e, asJSON) }
	last, err := record.Last(dir)
	if err != nil {
		return err
	}
	q := record.Query{After: last - min(last, uint64(lines))}
	if lines == 0 {
		q.After = last
	}
	seen := q.After
	read := func() error {
		q.After = seen
		return record.Read(ctx, dir, keys, q, func(e record.Entry) error {
			seen = e.Sequence
			return show(e)
		})
	}
	if err := read(); err != nil || !follow {
		return err
	}
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if err := read(); err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func showEntry(w io.Writer, e record.Entry, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(e)
	}
	count := ""
	if e.Class == record.Aggregated {
		count = " x" + strconv.FormatUint(e.Count, 10)
	}
	reason := ""
	if e.Reason != "" {
		reason = " (" + e.Reason + ")"
	}
	body := string(e.Body)
	if e.Err != nil {
		body = "[" + e.Err.Error() + "]"
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s%s%s  %s\n", e.Time.Format("2006-01-02T15:04:05.000000Z07:00"), e.ID(), e.Kind, reason, count, printable(body))
	return err
}

// printable writes what a terminal might obey, or show in another order, as escapes.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

func recordFsck() *cobra.Command {
	var asJSON, repair bool
	cmd := &cobra.Command{
		Use:   "fsck [--repair-tail] [--json] DIR",
		Short: "Checks the files of a record",
		Long: `
Checks lengths, check sums and sequence numbers of every segment, and that each
segment follows the one before. It needs no keys. The exit code is 1 when something
is wrong.

A gate itself cuts off an end that a crash left unfinished. With --repair-tail a bad
end is also cut off when no crash can have left it, provided that nothing was written
after it: an entry that was acknowledged may be lost then. What is cut off is kept in
DIR, up to 1 MiB of it. A last segment whose very beginning is bad is put aside whole,
and the gate goes on behind a gap in the numbers. Damage anywhere else is not repaired: restore a copy.`,
		Args: oneRecord,
		RunE: func(cmd *cobra.Command, args []string) error {
			if repair {
				cut, err := record.RepairTail(args[0])
				if err != nil {
					return err
				}
				switch {
				case cut.Why != "" && cut.Offset == 0:
					fmt.Fprintf(os.Stderr, "Put %s (%d bytes) aside as %s: %s. The gate goes on behind a gap.\n", cut.File, cut.Bytes, filepath.Join(args[0], cut.Kept), cut.Why)
				case cut.Bytes > 0:
					fmt.Fprintf(os.Stderr, "Cut off the last %d bytes of %s, from byte %d on: %s.\n", cut.Bytes, cut.File, cut.Offset, cut.Why)
					if cut.Kept != "" {
						fmt.Fprintf(os.Stderr, "They are kept in %s.\n", filepath.Join(args[0], cut.Kept))
					}
				}
			}
			r, err := record.Check(cmd.Context(), args[0], nil, record.Structure)
			if err != nil {
				return err
			}
			return writeCheck(os.Stdout, args[0], r, record.Structure, asJSON)
		},
	}
	cmd.Flags().BoolVar(&repair, "repair-tail", false, "cut off a bad end")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func recordVerify() *cobra.Command {
	var f recordFlags
	cmd := &cobra.Command{
		Use:   "verify [--keys FILE] [--json] DIR",
		Short: "Checks that nobody changed a record",
		Long: `
Checks what fsck checks, and opens every body that the keyring has the key to and
compares it with what its entry commits to. The exit code is 1 when something is wrong.

Whoever can write to DIR can cut off the end between two entries, and that cannot be
seen here: compare the last entry and the hash with what was kept elsewhere.`,
		Args: oneRecord,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := f.open(args[0])
			if err != nil {
				return err
			}
			r, err := record.Check(cmd.Context(), args[0], keys, record.Contents)
			if err != nil {
				return err
			}
			return writeCheck(os.Stdout, args[0], r, record.Contents, f.json)
		},
	}
	f.add(cmd)
	return cmd
}

// writeCheck writes what a check found. The error is what makes the exit code 1.
func writeCheck(w io.Writer, dir string, r *record.Report, depth record.Depth, asJSON bool) error {
	var faulty error
	if n := len(r.Faults) + r.More; n > 0 {
		faulty = fmt.Errorf("the record in %s has %d faults", dir, n)
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return errors.Join(e.Encode(struct {
			OK bool `json:"ok"`
			*record.Report
		}{r.OK(), r}), faulty)
	}
	var b strings.Builder
	if r.Entries == 0 {
		fmt.Fprintf(&b, "No entries in %s.\n", dir)
	} else {
		fmt.Fprintf(&b, "Node %s, entries %d to %d: %d waiting, %d aggregated, in %d segments of %d bytes.\n",
			r.Node, r.First, r.Last, r.Waiting, r.Aggregated, r.Segments, r.Bytes)
	}
	for _, g := range r.Gaps {
		fmt.Fprintf(&b, "Entries %d to %d were left out when the record was restored: what had these numbers is lost.\n", g.From, g.To)
	}
	if depth == record.Contents && r.Entries > 0 {
		fmt.Fprintf(&b, "Bodies: %d match their entries, %d erased, %d not opened for want of a key.\n", r.Opened, r.Erased, r.Sealed)
	}
	if r.Busy {
		b.WriteString("A gate is writing: what it had not finished was left out.\n")
	}
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "FAULT %s\n", printable(f.Error()))
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "and %d more faults\n", r.More)
	}
	if r.OK() {
		b.WriteString("Nothing is wrong.\n")
	}
	if depth == record.Contents && r.Entries > 0 && r.OK() {
		if r.Opened == 0 {
			b.WriteString("Without keys, changes in the last segment by somebody who makes check sums anew cannot be seen.\n")
		}
		fmt.Fprintf(&b, "Whether entries were cut off at the end cannot be seen from here. Compare with what was kept elsewhere:\nlast entry %s/%d, hash of the last segment %s\n", r.Node, r.Last, r.Head)
	}
	_, err := io.WriteString(w, b.String())
	return errors.Join(err, faulty)
}

func recordRestore() *cobra.Command {
	var node, from, database string
	cmd := &cobra.Command{
		Use:   "restore --node NODE --database env:NAME DIR",
		Short: "Makes the record of a node anew from its mirror",
		Long: `
Writes the segments of a node to DIR, which is empty or missing, as they were
mirrored to the database, and checks them. The gate that opens DIR goes on behind a
gap, since the entries that were lost have some of the next numbers.

The database is the one in the gate's configuration: env:NAME, file:PATH or
postgres://USER@HOST/NAME (kidoban data --help says more).`,
		Args: one("the directory to make"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if from != "database" {
				return fmt.Errorf("--from %s: want database", from)
			}
			target, err := side("--database", database)
			if err != nil {
				return err
			}
			target.Node = "restore"
			db, err := storage.OpenReadOnly(cmd.Context(), target)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, db.Close()) }()
			r, err := record.Restore(cmd.Context(), record.NewSQLMirror(db.Reads()), node, args[0])
			if err != nil {
				return err
			}
			fmt.Printf("Restored entries %d to %d of %s in %d segments.\n", r.First, r.Last, r.Node, r.Segments)
			return nil
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "`name` of the node whose record it is")
	cmd.Flags().StringVar(&from, "from", "database", "`kind` of mirror: database")
	cmd.Flags().StringVar(&database, "database", "", "the gate's `database`: env:NAME, file:PATH, or an address without a password")
	for _, name := range []string{"node", "database"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // it is defined above
		}
	}
	return cmd
}
