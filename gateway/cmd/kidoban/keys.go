package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/gateway/storage"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "keys",
		Short: "Makes, lists, rotates, exports and imports the keys of an installation",
		Long: `
Works on keys.json in the data_dir. All nodes of an installation have the same file.
A gate that runs takes a changed file by itself; no command prints a secret.

A rotation with several nodes:

  1. kidoban keys rotate cookie        on one node; the new key waits for ten minutes
  2. copy keys.json to the other nodes within that time, or export and import it
  3. kidoban keys list                 on each node: all show the same

Old keys still open what they made, so there is nothing to redo.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use, cmd.RunE = "keys COMMAND", showCommands
			cmd.AddCommand(keysInit(), keysList(), keysRotate(), keysExport(), keysImport())
		},
	})
}

// dataDirFlag adds --data-dir; what it returns is the directory meant.
func dataDirFlag(cmd *cobra.Command) func() string {
	var dir string
	cmd.Flags().StringVar(&dir, "data-dir", "", "data_dir of the gate, a `directory` (default: as the gate's own default)")
	return func() string {
		if dir == "" {
			return filepath.Join(caddy.AppDataDir(), "kidoban")
		}
		return dir
	}
}

// passphraseFlag adds --passphrase-file; without it there is no passphrase.
func passphraseFlag(cmd *cobra.Command) func() ([]byte, error) {
	var file string
	cmd.Flags().StringVar(&file, "passphrase-file", "", "a `file` that holds the passphrase; - for standard input")
	return func() ([]byte, error) {
		const most = 4096 // bytes
		var in io.Reader = os.Stdin
		switch file {
		case "":
			return nil, nil
		case "-":
		default:
			f, err := os.Open(file)
			if err != nil {
				return nil, fmt.Errorf("the passphrase: %w", err)
			}
			defer f.Close()
			in = f
		}
		text, err := io.ReadAll(io.LimitReader(in, most+1))
		if err != nil {
			return nil, fmt.Errorf("the passphrase: %w", err)
		}
		if len(text) > most {
			return nil, fmt.Errorf("the passphrase has more than %d bytes", most)
		}
		text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
		if len(text) == 0 {
			return nil, errors.New("the passphrase is empty")
		}
		return text, nil
	}
}

func keysFile(dir string) string { return filepath.Join(dir, "keys.json") }

func keysInit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init [--data-dir DIR]",
		Short: "Makes the keys of a new installation",
		Long: `Makes the keys of a new installation. A single gate does so itself at its first start.
With several nodes run it once, and copy keys.json to each node before its first start.`,
		Args: cobra.NoArgs,
	}
	dir := dataDirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := storage.CreateKeyring(dir()); err != nil {
			return err
		}
		_, err := fmt.Fprintf(os.Stdout, "made %s: keep a copy of it apart from the database (kidoban keys export)\n", keysFile(dir()))
		return err
	}
	return cmd
}

func keysList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [--data-dir DIR]",
		Short: "Lists the keys, without their secrets",
		Args:  cobra.NoArgs,
	}
	dir := dataDirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ring, err := storage.OpenKeyring(keysFile(dir()), false)
		if err != nil {
			return err
		}
		return listKeys(os.Stdout, ring, time.Now())
	}
	return cmd
}

func listKeys(w io.Writer, ring *storage.Keyring, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PURPOSE\tKEY\tSTATE\tCREATED\tMAKES THINGS FROM\tUNTIL")
	moment := func(at time.Time) string {
		if at.IsZero() {
			return "-"
		}
		return at.UTC().Format(time.RFC3339)
	}
	for _, p := range storage.Purposes() {
		for i, k := range ring.All(p) {
			state := "old"
			switch {
			case i == 0:
				state = "current"
			case k.Activates.After(now):
				state = "next"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", p, k.ID, state, moment(k.Created), moment(k.Activates), moment(k.Retired))
		}
	}
	return t.Flush()
}

func keysRotate() *cobra.Command {
	var after time.Duration
	var names []string
	for _, p := range storage.Purposes() {
		names = append(names, string(p))
	}
	cmd := &cobra.Command{
		Use:   "rotate PURPOSE [--after DURATION] [--data-dir DIR]",
		Short: "Adds a key that takes over from the current one",
		Long: "Adds a key for PURPOSE (" + strings.Join(names, ", ") + `) that makes new things after a while. Copy keys.json to all
other nodes before that: a node without the key could not open what others make with it.`,
		Args:      one("the purpose: " + strings.Join(names, ", ")),
		ValidArgs: names,
	}
	cmd.Flags().DurationVar(&after, "after", storage.RotationGrace, "how long the key waits, a `duration`; 0s for an installation of one node")
	dir := dataDirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		const most = 30 * 24 * time.Hour
		if !slices.Contains(names, args[0]) {
			return fmt.Errorf("unknown purpose %.20q: want one of %s", args[0], strings.Join(names, ", "))
		}
		if after < 0 || after > most {
			return fmt.Errorf("--after %v: want 0s to %v", after, most)
		}
		ring, err := storage.OpenKeyring(keysFile(dir()), false)
		if err != nil {
			return err
		}
		made, err := ring.Rotate(storage.Purpose(args[0]), time.Now(), after)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(os.Stdout, "made %s: it makes new things from %s on; copy %s to every other node before that\n",
			made, made.Activates.Format(time.RFC3339), keysFile(dir()))
		return err
	}
	return cmd
}

func keysExport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export FILE --passphrase-file FILE [--data-dir DIR]",
		Short: "Writes the keys under a passphrase, for the backup and for other nodes",
		Args:  one("the file to write"),
	}
	dir, passphrase := dataDirFlag(cmd), passphraseFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		secret, err := passphrase()
		if err != nil {
			return err
		}
		if secret == nil {
			return errors.New("name a file with the passphrase with --passphrase-file, or - for standard input")
		}
		ring, err := storage.OpenKeyring(keysFile(dir()), false)
		if err != nil {
			return err
		}
		sealed, err := ring.Sealed(secret)
		if err != nil {
			return err
		}
		if err := writeNew(args[0], sealed); err != nil {
			return err
		}
		_, err = fmt.Fprintf(os.Stdout, "wrote %s: it opens with the passphrase alone, so keep the two apart\n", args[0])
		return err
	}
	return cmd
}

// writeNew writes a file that is not there yet.
func writeNew(name string, data []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close(), os.Remove(name))
	}
	return errors.Join(f.Sync(), f.Close())
}

func keysImport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE --passphrase-file FILE [--data-dir DIR]",
		Short: "Takes exported keys over",
		Long: `Takes exported keys over. Keys that are there already are replaced only by a file that
has all of them: a later one of the same installation.`,
		Args: one("the file that was exported"),
	}
	dir, passphrase := dataDirFlag(cmd), passphraseFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		secret, err := passphrase()
		if err != nil {
			return err
		}
		if secret == nil {
			return errors.New("name a file with the passphrase with --passphrase-file, or - for standard input")
		}
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		sealed, err := io.ReadAll(io.LimitReader(f, 4<<20))
		if err != nil {
			return err
		}
		if _, err := storage.ImportKeyring(keysFile(dir()), sealed, secret); err != nil {
			return err
		}
		_, err = fmt.Fprintf(os.Stdout, "wrote %s\n", keysFile(dir()))
		return err
	}
	return cmd
}
