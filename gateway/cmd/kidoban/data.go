package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/gateway/storage"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "data",
		Short: "Moves, backs up and restores what a gate keeps",
		Long: `
Works on the data_dir and the database of a gate. (What Caddy keeps, certificates above
all, is moved by kidoban storage export and import.) A PostgreSQL database is named as

  env:NAME                       its address is in the environment variable NAME
  file:PATH                      its address is the text of a file
  postgres://USER@HOST/NAME      without a password: that is in PGPASSWORD, or in
                                 the file that PGPASSFILE names

so that no password is on a command line, where everybody on the machine can read it.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use, cmd.RunE = "data COMMAND", showCommands
			cmd.AddCommand(dataMigrate(), dataBackup(), dataRestore())
		},
	})
}

// showCommands is what a command does that has only others below it.
func showCommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return fmt.Errorf("%s has no command %.40q: want one of %s", cmd.Name(), args[0], strings.Join(names, ", "))
}

// one wants one argument, and says what it is.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("want one argument, %s, and got %d: kidoban %s %s", what, len(args), cmd.Parent().Name(), cmd.Use)
		}
		return nil
	}
}

// address is the address of a database as a command names it.
func address(spec string) (string, error) {
	if name, ok := strings.CutPrefix(spec, "env:"); ok {
		text := strings.TrimSpace(os.Getenv(name))
		if text == "" {
			return "", fmt.Errorf("the environment variable %s is empty or not set", name)
		}
		return text, nil
	}
	if name, ok := strings.CutPrefix(spec, "file:"); ok {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("the address of the database: %w", err)
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, 1<<14))
		if err != nil {
			return "", fmt.Errorf("the address of the database: %w", err)
		}
		if len(strings.TrimSpace(string(text))) == 0 {
			return "", fmt.Errorf("the file %s is empty", name)
		}
		return strings.TrimSpace(string(text)), nil
	}
	if spec != "" {
		u, err := url.Parse(spec)
		if err != nil {
			return "", errors.New("the address of the database is not a URL: want env:NAME, file:PATH or postgres://USER@HOST/NAME")
		}
		if _, ok := u.User.Password(); ok || u.Query().Has("password") {
			return "", errors.New("the address of the database holds a password, which everybody on this machine can read on a command line: put it into a variable or a file and name that as env:NAME or file:PATH")
		}
	}
	return spec, nil
}

// side is what --from or --to names.
func side(flag, spec string) (storage.Options, error) {
	path, ok := strings.CutPrefix(spec, "sqlite:")
	if !ok {
		text, err := address(spec)
		if err == nil && !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
			err = errors.New("want sqlite:DIR, env:NAME, file:PATH or postgres://USER@HOST/NAME")
			if text != spec { // which may hold a password
				err = fmt.Errorf("what %s names does not begin with postgres://", spec)
			}
		}
		if err != nil {
			return storage.Options{}, fmt.Errorf("%s: %w", flag, err)
		}
		return storage.Options{Database: text, Node: "migrate"}, nil
	}
	if path == "" {
		return storage.Options{}, fmt.Errorf("%s: sqlite: names no directory", flag)
	}
	if filepath.Base(path) == "kidoban.db" {
		path = filepath.Dir(path)
	}
	return storage.Options{DataDir: path}, nil
}

func dataMigrate() *cobra.Command {
	var from, to string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "migrate --from sqlite:DIR --to env:NAME",
		Short: "Moves an installation to another kind of database",
		Long: `Copies everything from a SQLite database to a PostgreSQL one, or back. Stop every gate
first. The source stays as it is; the target must be empty, and is so again after an error.
At the end every row is read back and compared, by a hash over each table.

Afterwards name the new database in the configuration and move the old file away. The
keyring is not part of it: keys.json stays in the data_dir, or is copied to a new one.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&from, "from", "", "the source: sqlite:DIR (a data_dir or the kidoban.db in it), or a PostgreSQL `database`")
	cmd.Flags().StringVar(&to, "to", "", "the target, in the same forms: a `database`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the tables as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		source, err := side("--from", from)
		if err != nil {
			return err
		}
		target, err := side("--to", to)
		if err != nil {
			return err
		}
		done, err := storage.Copy(cmd.Context(), source, target)
		if err != nil {
			return err
		}
		if !asJSON {
			return storage.WriteCopied(os.Stdout, done)
		}
		type line struct {
			Table string `json:"table"`
			Rows  int64  `json:"rows"`
			Hash  string `json:"sha256"`
		}
		all := make([]line, len(done))
		for i, c := range done {
			all[i] = line{c.Name, c.Rows, fmt.Sprintf("%x", c.Hash)}
		}
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	return cmd
}

func dataBackup() *cobra.Command {
	var database string
	cmd := &cobra.Command{
		Use:   "backup DIR --passphrase-file FILE [--data-dir DIR] [--database env:NAME]",
		Short: "Saves what a gate keeps, also while it runs",
		Long: `Saves the database, the record, what the detectors learned and the keyring of a gate into
a new directory, also while the gate runs. The keyring is sealed under the passphrase; without one it is left out. A
PostgreSQL database is saved by the pg_dump command that is printed.`,
		Args: one("the new directory to save into"),
	}
	cmd.Flags().StringVar(&database, "database", "", "the PostgreSQL `database` of the gate (default: SQLite in the data_dir)")
	dir, passphrase := dataDirFlag(cmd), passphraseFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := address(database)
		if err != nil {
			return fmt.Errorf("--database: %w", err)
		}
		secret, err := passphrase()
		if err != nil {
			return err
		}
		result, err := storage.Backup(cmd.Context(), storage.Options{DataDir: dir(), Database: text, Node: "backup"}, args[0], secret, time.Now())
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "saved %d files in %s\n", len(result.Files), args[0])
		if result.Keyless {
			fmt.Fprintln(os.Stdout, "the keyring is not among them, and the rest is of little use without it: run kidoban keys export, and keep what it writes elsewhere")
		}
		if result.Dump != "" {
			fmt.Fprintf(os.Stdout, "save the database with (its password in PGPASSWORD or the file that PGPASSFILE names):\n%s\n", result.Dump)
		}
		return nil
	}
	return cmd
}

func dataRestore() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore DIR --data-dir NEW --passphrase-file FILE",
		Short: "Makes a data_dir from a backup",
		Long: `Makes a data_dir from what backup saved, and checks every file of it. A PostgreSQL
database is restored into a new one before the gate starts:

  createdb NAME
  pg_restore --exit-on-error --no-owner --no-privileges --dbname=NAME DIR/kidoban.pgdump`,
		Args: one("the directory of the backup"),
	}
	dir, passphrase := dataDirFlag(cmd), passphraseFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		secret, err := passphrase()
		if err != nil {
			return err
		}
		names, err := storage.Restore(cmd.Context(), args[0], dir(), secret)
		if len(names) > 0 {
			fmt.Fprintf(os.Stdout, "restored %d files into %s\n", len(names), dir())
		}
		return err
	}
	return cmd
}
