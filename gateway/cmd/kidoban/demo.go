package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "demo",
		Short: "Shows the gate in front of a chat service, on this machine alone",
		Long: `
Starts a plain chat service full of made-up people and the gate in front of it, in
one process and a temporary directory, and says where to look. Nothing outside
this machine is connected to, and without --data-dir nothing is left behind.

With --attack list it plays a Monday morning instead: an office of 2,000 people
behind one address logs in while a stolen list of 10,000 names and passwords is
tried from another, first straight at the chat service, then through the gate as
it is after three days, then as it is on its first day. Everything goes over real
HTTP; the figures are what happened on the wire.

Forwarding headers are believed from this machine, and only for this demo: that is
how the simulated people get addresses of their own. Passwords are hashed far too
cheaply, so that the hash is not what is measured.`,
		CobraFunc: func(cmd *cobra.Command) {
			var o demoOptions
			cmd.Use = "demo [--attack list] [flags]"
			cmd.Args = cobra.NoArgs
			f := cmd.Flags()
			f.StringVar(&o.dir, "data-dir", "", "keep everything in this `directory` (default: a temporary one, removed at the end)")
			f.StringVar(&o.listen, "listen", ":8443", "`address` of the chat; without a host, on loopback only")
			f.StringVar(&o.operators, "operators", "127.0.0.1:8444", "`address` of the operators' API")
			f.IntVar(&o.accounts, "accounts", 2000, "how many `people` use the chat")
			f.StringVar(&o.mode, "mode", "enforce", "`mode` of the gate: enforce, or observe")
			f.DurationVar(&o.length, "for", 0, "stop after this `time`; with --attack, the most each pass may take (default 20s, and up to 30s on a slow machine)")
			f.BoolVar(&o.verbose, "verbose", false, "write the log to standard error instead of a file")
			f.StringVar(&o.attack, "attack", "", "`kind` of attack to play; there is one: list")
			f.IntVar(&o.pairs, "pairs", 10_000, "with --attack: `length` of the stolen list")
			o.hits = 0.005
			f.Var(&o.hits, "hit-rate", "with --attack: `share` of the list that is right, such as 0.005 or 0.5%")
			f.IntVar(&o.people, "people", 2000, "with --attack: how many `people` the office has")
			f.Uint64Var(&o.seed, "seed", 1, "`number` that people and attack are made from; equal numbers make equal plans")
			f.BoolVar(&o.json, "json", false, "with --attack: write the figures as JSON to standard output")
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				o.lengthGiven = cmd.Flags().Changed("for")
				return demo(cmd.Context(), o, language(os.Getenv), os.Stdout, os.Stderr)
			}
		},
	})
}

// demoOptions are the flags.
type demoOptions struct {
	dir, listen, operators string
	accounts               int
	mode                   string
	length                 time.Duration
	lengthGiven            bool
	verbose                bool
	attack                 string
	pairs                  int
	hits                   share
	people                 int
	seed                   uint64
	json                   bool
}

func (o demoOptions) check() error {
	switch {
	case o.mode != "enforce" && o.mode != "observe":
		return fmt.Errorf("--mode %q: want enforce or observe", o.mode)
	case o.attack != "" && o.attack != "list":
		return fmt.Errorf("--attack %q: want list", o.attack)
	case o.length < 0 || o.lengthGiven && o.length == 0:
		return fmt.Errorf("--for %v: want a time above 0, such as 20s", o.length)
	case o.json && o.attack == "":
		return errors.New("--json gives the figures of an attack: add --attack list")
	case o.attack == "" && o.accounts < 6:
		return fmt.Errorf("--accounts %d: want 6 or more, so that there is somebody to talk to", o.accounts)
	}
	return nil
}

// share is a number from 0 to 1, also written in per cent.
type share float64

func (s *share) String() string { return strconv.FormatFloat(float64(*s), 'f', -1, 64) }
func (s *share) Type() string   { return "share" }

// Set implements pflag.Value.
func (s *share) Set(text string) error {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return errors.New("want a share from 0 to 1, such as 0.005 or 0.5%")
	}
	*s = share(v)
	return nil
}

// language is what the environment of a program asks for: ja or en.
func language(getenv func(string) string) string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := getenv(name); v != "" {
			if strings.HasPrefix(v, "ja") {
				return "ja"
			}
			return "en"
		}
	}
	return "en"
}

// demo runs until it is through, ctx ends or the process is asked to stop; the
// latter is no error.
func demo(ctx context.Context, o demoOptions, lang string, stdout, stderr io.Writer) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, remove, err := demoDir(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	// Caddy notes an identity of the installation beside its data, wherever its
	// storage is.
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME"} {
		if err := os.Setenv(name, filepath.Join(dir, "caddy", "home")); err != nil {
			return err
		}
	}
	words := phrases(lang)
	if o.attack != "" {
		err = demoAttack(ctx, o, dir, words, stdout, stderr)
	} else {
		err = demoChat(ctx, o, dir, words, stdout)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // asked to stop
	}
	return err
}

// demoDir makes the directory of a demo and returns what removes it again, which
// does nothing to one that somebody chose.
func demoDir(chosen string) (dir string, remove func() error, err error) {
	if chosen == "" {
		if dir, err = os.MkdirTemp("", "kidoban-demo-"); err != nil {
			return "", nil, err
		}
		return dir, func() error { return os.RemoveAll(dir) }, nil
	}
	if dir, err = filepath.Abs(chosen); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("making the data directory: %w", err)
	}
	return dir, func() error { return nil }, nil
}

// demoChat is the demo for a person with a browser.
func demoChat(ctx context.Context, o demoOptions, dir string, words phrasebook, stdout io.Writer) (err error) {
	listen, err := demoAddress("--listen", o.listen)
	if err != nil {
		return err
	}
	operators, err := demoAddress("--operators", o.operators)
	if err != nil {
		return err
	}
	entry := "https://" + net.JoinHostPort("localhost", listen.port)
	fmt.Fprintln(stdout, words.starting)
	defer func() {
		if err == nil || ctx.Err() != nil {
			fmt.Fprintln(stdout, words.stopped)
		}
	}()
	town, err := settle(ctx, filepath.Join(dir, "chat.db"), filepath.Join(dir, "accounts.csv"), o.accounts, o.seed)
	if err != nil {
		return err
	}
	back, err := startBackend(ctx, backendConfig{file: filepath.Join(dir, "chat.db"), mail: filepath.Join(dir, "mail"), entry: entry})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back.stop()) }()
	key := rand.Text()
	g, err := startGate(ctx, gateConfig{
		dir: dir, listen: listen, backend: back.address, observe: o.mode == "observe",
		operators: operators, key: key, verbose: o.verbose,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.stop()) }()

	one, two := pickFriends(town, words.language)
	log := g.log
	if o.verbose {
		log = words.onScreen
	}
	keeping := words.removed
	if o.dir != "" {
		keeping = fmt.Sprintf(words.kept, dir, filepath.Join(dir, "accounts.csv"))
	}
	mode := words.enforcing
	if o.mode == "observe" {
		mode = words.observing
	}
	fmt.Fprintf(stdout, words.chat, entry, filepath.Join(dir, "caddy", filepath.FromSlash(rootFile)),
		one.Email, one.Password, one.Organization, two.Email, two.Password,
		"http://"+operators.String(), key, key, "http://"+operators.String(), mode, len(town), log, keeping, entry)
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	<-ctx.Done()
	return nil
}

// hostPort is an address to listen on. An empty host means loopback.
type hostPort struct{ host, port string }

func (a hostPort) String() string {
	host := a.host
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, a.port)
}

// demoAddress reads an address of the flag called name. Port 0 becomes a free one.
func demoAddress(name, text string) (hostPort, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return hostPort{}, fmt.Errorf("%s %q: want HOST:PORT or :PORT", name, text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return hostPort{}, fmt.Errorf("%s %q: the port is not a number up to 65535", name, text)
	} else if n != 0 {
		return hostPort{host, port}, nil
	}
	l, err := net.Listen("tcp", hostPort{host, "0"}.String())
	if err != nil {
		return hostPort{}, fmt.Errorf("%s %q: %w", name, text, err)
	}
	_, port, err = net.SplitHostPort(l.Addr().String())
	return hostPort{host, port}, errors.Join(err, l.Close())
}
