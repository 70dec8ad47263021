package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/gateway/breached"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "breached",
		Short: "Makes lists of breached passwords, and finds accounts in stolen lists",
		Long: `
Makes the file that the option breached names, and finds which accounts are in a list of
stolen names and passwords that you were given.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use, cmd.RunE = "breached COMMAND", showCommands
			cmd.AddCommand(breachedBuild(), breachedPairs())
		},
	})
}

func breachedBuild() *cobra.Command {
	var out, date string
	var o breached.BuildOptions
	cmd := &cobra.Command{
		Use:   "build --out FILE LIST...",
		Short: "Makes a file of breached passwords from lists",
		Long: `Makes a file from lists in the Pwned Passwords format: a SHA-1 hash, a colon and a count in
each line, sorted or not. A LIST is a file, a folder of range files as PwnedPasswordsDownloader
writes them, or - for standard input. NTLM hashes are refused.

The file has about 9 bits for each password and none of their hashes; one in 256 passwords
that are not listed (0.4%) is taken for a listed one. FILE is replaced when the new one is
complete, and a gate that has it in its configuration takes it over within 20 seconds. A
billion passwords need 250 MB of memory, and 8 GB on the disk of FILE meanwhile.`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&out, "out", "", "the `file` to make")
	cmd.Flags().Uint64Var(&o.Min, "min", 1, "leave out passwords that were seen less than this `count` of times")
	cmd.Flags().StringVar(&date, "date", "", "the `day` that the lists are of, such as 2026-10-01 (default: when the newest was written)")
	cmd.RunE = func(cmd *cobra.Command, lists []string) error {
		if out == "" {
			return errors.New("name the file to make with --out")
		}
		if date != "" {
			var err error
			if o.Date, err = time.Parse(time.DateOnly, date); err != nil {
				return fmt.Errorf("--date %.40q: want a day such as 2026-10-01", date)
			}
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
		defer stop()
		made, err := breached.Build(ctx, out, lists, o)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "made %s: %d passwords of %d entries, as of %s, %d bytes\n", out, made.Keys, made.Read, made.Date.Format(time.DateOnly), made.Bytes)
		return nil
	}
	return cmd
}
