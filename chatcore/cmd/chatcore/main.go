// Command chatcore runs the chat service, or fills one with a made-up world.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/assertion"
	"github.com/kidoban/kidoban/chatcore/password"
	"github.com/kidoban/kidoban/chatcore/web"
)

const usage = `Chatcore is a plain chat service for many organizations.

Usage:

	chatcore serve --data FILE [flags]   serve the chat until interrupted
	chatcore seed  --data FILE [flags]   fill an empty data file with a made-up world

Run "chatcore serve -h" or "chatcore seed -h" for the flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errUsage is a command line nobody can follow; what is wrong was said.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	verbs := map[string]func(context.Context, []string, io.Writer, io.Writer) error{"serve": serve, "seed": seed}
	var err error
	switch {
	case len(args) > 0 && verbs[args[0]] != nil:
		err = verbs[args[0]](ctx, args[1:], stdout, stderr)
	case len(args) > 0 && (args[0] == "help" || args[0] == "-h" || args[0] == "--help"):
		fmt.Fprint(stdout, usage)
	default:
		fmt.Fprint(stderr, usage)
		err = errUsage
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintln(stderr, "chatcore:", err)
	return 1
}

// flags begins the flags that both verbs have.
func flags(name, synopsis string, stderr io.Writer) (*flag.FlagSet, *chatcore.Config) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "Usage: chatcore %s\n\nFlags:\n", synopsis)
		fs.PrintDefaults()
	}
	c := &chatcore.Config{PasswordCost: password.Recommended}
	fs.StringVar(&c.Path, "data", "", "SQLite `file` of the service; made when missing (required)")
	fs.Func("argon2-memory", fmt.Sprintf("memory of one password hash in `KiB` (default %d)", c.PasswordCost.Memory), number(&c.PasswordCost.Memory))
	fs.Func("argon2-time", fmt.Sprintf("`passes` of one password hash (default %d)", c.PasswordCost.Time), number(&c.PasswordCost.Time))
	fs.Func("argon2-threads", fmt.Sprintf("`threads` of one password hash (default %d)", c.PasswordCost.Threads), number(&c.PasswordCost.Threads))
	return fs, c
}

// number parses a flag into n, refusing what does not fit.
func number[N uint8 | uint32](n *N) func(string) error {
	return func(s string) error {
		var v uint64
		if _, err := fmt.Sscanf(s, "%d", &v); err != nil || fmt.Sprint(v) != s || uint64(N(v)) != v {
			return errors.New("not a number in range")
		}
		*n = N(v)
		return nil
	}
}

// parse parses args and checks what both verbs need.
func parse(fs *flag.FlagSet, c *chatcore.Config, args []string, stderr io.Writer) error {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if fs.NArg() > 0 || c.Path == "" {
		fmt.Fprintln(stderr, "chatcore: --data FILE is required, and no other arguments")
		fs.Usage()
		return errUsage
	}
	return nil
}

func serve(ctx context.Context, args []string, _, stderr io.Writer) (err error) {
	fs, c := flags("serve", "serve --data FILE [flags]", stderr)
	var o web.Options
	listen := fs.String("listen", "127.0.0.1:9000", "`address` to serve HTTP on")
	fs.BoolVar(&o.SecureCookies, "secure-cookies", false, "mark cookies as for https only; set it whenever browsers come by https")
	fs.StringVar(&c.PublicURL, "public-url", "", "where browsers find the service, for links in mails (default http:// and the listening address)")
	fs.StringVar(&c.MailDir, "mail-dir", "", "also write each mail as an .eml file into this `directory`")
	fs.IntVar(&c.Hashes, "argon2-concurrency", 0, "password hashes computed at once (default one for each processor)")
	fs.Func("trusted-origin", "another `origin` whose pages may act for a logged-in browser, such as https://chat.example; may be repeated", func(s string) error {
		o.TrustedOrigins = append(o.TrustedOrigins, s)
		return nil
	})
	var vouched assertion.Config
	fs.StringVar(&vouched.Keys, "assertion-jwks", "", "ask for an assertion of the gateway with each session and token; its keys are at this https `URL`, or in this file")
	fs.StringVar(&vouched.Issuer, "assertion-issuer", "", "the gateway's `origin`, such as https://chat.example; with --assertion-jwks")
	fs.StringVar(&vouched.Audience, "assertion-audience", "", "what the gateway calls this service, a `name`; with --assertion-jwks")
	if err := parse(fs, c, args, stderr); err != nil {
		return err
	}
	if vouched.Keys != "" || vouched.Issuer != "" || vouched.Audience != "" {
		v, err := assertion.New(vouched)
		if err != nil {
			return err
		}
		o.Assertions = v
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	c.Log, o.Log = log, log
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	defer l.Close()
	if c.PublicURL == "" {
		c.PublicURL = "http://" + l.Addr().String()
	}
	svc, err := chatcore.Open(ctx, *c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close()) }()
	log.InfoContext(ctx, "serving", "address", l.Addr().String())
	return web.Serve(ctx, l, svc, o)
}

func seed(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	fs, c := flags("seed", "seed --data FILE [flags]", stderr)
	var o chatcore.SeedOptions
	fs.IntVar(&o.Organizations, "organizations", 20, "how many `organizations` to make up")
	fs.IntVar(&o.Accounts, "accounts", 2000, "how many `accounts` they have together")
	fs.Uint64Var(&o.Seed, "seed", 1, "`number` the world is made from; equal numbers make equal worlds")
	export := fs.String("export", "", "write every account with its password as CSV to this new `file`, readable by you only; - is standard output")
	if err := parse(fs, c, args, stderr); err != nil {
		return err
	}
	// The file comes first: passwords that cannot be written down are lost.
	var out io.Writer
	switch *export {
	case "":
	case "-":
		out = stdout
	default:
		f, ferr := os.OpenFile(*export, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if ferr != nil {
			return ferr
		}
		defer func() {
			err = errors.Join(err, f.Close())
			if err != nil {
				os.Remove(*export) // there is no world it belongs to
			}
		}()
		out = f
	}
	svc, err := chatcore.Open(ctx, *c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close()) }()
	accounts, err := svc.Seed(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "made %d organizations with %d accounts\n", o.Organizations, len(accounts))
	if out == nil {
		return nil
	}
	return chatcore.WriteAccounts(out, accounts)
}
