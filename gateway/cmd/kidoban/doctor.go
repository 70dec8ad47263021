package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "doctor",
		Short: "Looks for what goes wrong in practice, and says what to do",
		Long: `
Reads the configuration and asks the servers that it names; changes nothing, so the gate may
run meanwhile. Run it as the gate's user, with the gate's environment.

Above all it looks whether the backend can be reached around the gate: it asks the upstreams'
ports at every other address of this machine. Run it on a machine of the visitors' side too:

  kidoban doctor --backend http://10.0.0.5:9000     must find nobody there
  kidoban doctor --public https://chat.example.com  the certificate, and whether a gate answers

With --account it logs in at the backend itself, to see whether the backend takes a session
without an assertion. The file holds a name in its first line and the password in its second.

The status is 1 if anything fails.`,
		CobraFunc: func(cmd *cobra.Command) {
			d := doctor{now: time.Now}
			var asJSON bool
			cmd.Use, cmd.Args = "doctor [flags]", cobra.NoArgs
			cmd.Flags().StringVarP(&d.config, "config", "c", "", "configuration `file` (default: the Caddyfile here, unless --backend or --public is given)")
			cmd.Flags().StringVarP(&d.adapter, "adapter", "a", "", "configuration `adapter`, as in kidoban run")
			cmd.Flags().StringArrayVar(&d.backends, "backend", nil, "a `URL` where the backend must not answer; may be repeated")
			cmd.Flags().StringVar(&d.public, "public", "", "the `URL` of the site as visitors know it")
			cmd.Flags().StringVar(&d.account, "account", "", "a `file` with the name and the password of a test account at the backend")
			cmd.Flags().BoolVar(&asJSON, "json", false, "write what was found as JSON")
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				cmd.SilenceUsage = true
				ctx, cancel := context.WithTimeout(cmd.Context(), doctorTime)
				defer cancel()
				d.examine(ctx)
				if err := d.write(os.Stdout, asJSON); err != nil {
					return err
				}
				if n := d.count(failed); n > 0 {
					return fmt.Errorf("%d of %d checks failed", n, len(d.found))
				}
				return nil
			}
		},
	})
}

const (
	doctorTime = 2 * time.Minute // all of an examination
	askTime    = 3 * time.Second // one server
)

// How a check ended.
const (
	fine   = "ok"
	warned = "warn"
	failed = "FAIL"
)

// finding is what one check found.
type finding struct {
	Status string `json:"status"`
	Check  string `json:"check"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"` // unless it is ok
}

// doctor examines an installation. Its fields above the line are what it is asked.
type doctor struct {
	config, adapter string
	backends        []string
	public, account string
	now             func() time.Time

	found []finding
}

func (d *doctor) ok(check, format string, args ...any) {
	d.found = append(d.found, finding{fine, check, fmt.Sprintf(format, args...), ""})
}

func (d *doctor) warn(check, remedy, format string, args ...any) {
	d.found = append(d.found, finding{warned, check, fmt.Sprintf(format, args...), remedy})
}

func (d *doctor) fail(check, remedy, format string, args ...any) {
	d.found = append(d.found, finding{failed, check, fmt.Sprintf(format, args...), remedy})
}

func (d *doctor) count(status string) (n int) {
	for _, f := range d.found {
		if f.Status == status {
			n++
		}
	}
	return n
}

// examine makes every check that there is something for.
func (d *doctor) examine(ctx context.Context) {
	var c *configured
	if d.config != "" || len(d.backends) == 0 && d.public == "" {
		if c = d.readConfig(); c != nil {
			d.checkData(ctx, c)
			d.checkRedis(ctx, c)
			d.checkPlaces(c)
			d.checkServers(c)
			d.checkUpstreams(ctx, c)
		}
	}
	for _, address := range d.backends {
		d.checkBackend(ctx, address, c)
	}
	if d.public != "" {
		d.checkPublic(ctx)
	}
}

func (d *doctor) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(d.found)
	}
	for _, f := range d.found {
		text := fmt.Sprintf("%-4s  %s: %s\n", f.Status, f.Check, f.Detail)
		if f.Remedy != "" {
			text += "      " + f.Remedy + "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%d ok, %d to look at, %d failed\n", d.count(fine), d.count(warned), d.count(failed))
	return err
}

// credentials are the name and the password in the file of --account.
func (d *doctor) credentials() (name, password string, err error) {
	f, err := os.Open(d.account)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", "", err
	}
	name, password, _ = strings.Cut(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	password = strings.TrimSuffix(password, "\n")
	if name == "" || password == "" {
		return "", "", errors.New("want the name in the first line and the password in the second")
	}
	return name, password, nil
}
