package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/policies"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "learn",
		Short: "Writes a preset by logging in to a service, rightly and wrongly",
		Long: `
Logs in to a service four times with a test account: with a wrong password (twice),
as nobody, and rightly; then looks for a route that says who is logged in, and for the
log-out. At most 60 requests are made. Run it against the service itself, behind the
gate, and read what it writes: it says what it is unsure of, and it cannot see routes
that change passwords, hand out tokens, or log in otherwise.

A form is found by itself, with its hidden fields. A log-in that takes JSON needs
--login-path, and --json where the members have unusual names: without it up to four
usual ones are tried with the right password first.`,
		CobraFunc: func(cmd *cobra.Command) {
			var o learnOptions
			var passwordFile, out string
			cmd.Use = "learn --url URL --name NAME --password-file FILE [flags]"
			cmd.Args = cobra.NoArgs
			cmd.Flags().StringVar(&o.url, "url", "", "`address` of the service, such as http://127.0.0.1:8080")
			cmd.Flags().StringVar(&o.name, "name", "", "`name` of a test account")
			cmd.Flags().StringVar(&passwordFile, "password-file", "", "a `file` that holds its password; - for standard input")
			cmd.Flags().StringVar(&o.loginPath, "login-path", "", "`path` of the page with the form, or of the log-in that takes JSON (default: looked for)")
			cmd.Flags().StringVar(&o.json, "json", "", "JSON `pointers` of name and password in the log-in's body, such as /email,/password")
			cmd.Flags().StringVar(&o.whoami, "whoami", "", "`path` that says who is logged in, after a method if it is not GET (default: looked for)")
			cmd.Flags().StringVar(&o.preset, "preset", "learned", "`name` of the preset")
			cmd.Flags().StringVar(&out, "out", "", "`file` to write (default: the preset's name, with .yaml)")
			cmd.Flags().DurationVar(&o.pause, "pause", time.Second, "how long to wait between log-ins, a `duration`")
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				if out == "" {
					out = o.preset + ".yaml"
				}
				var err error
				if o.password, err = learnPassword(passwordFile); err != nil {
					return err
				}
				return learn(cmd.Context(), o, out, os.Stdout)
			}
		},
	})
}

// learnPassword reads a password from a file.
func learnPassword(file string) (string, error) {
	const most = 4096 // bytes
	var in io.Reader = os.Stdin
	switch file {
	case "":
		return "", errors.New("name a file with the account's password with --password-file, or - for standard input")
	case "-":
	default:
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("the password: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return "", fmt.Errorf("the password: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if password == "" || len(text) > most {
		return "", fmt.Errorf("the password has %d bytes: want 1 to %d", len(password), most)
	}
	return password, nil
}

type learnOptions struct {
	url, name, password     string
	loginPath, json, whoami string
	preset                  string
	pause                   time.Duration
}

const (
	learnMost   = 60       // requests
	learnAnswer = 64 << 10 // bytes of a body, as presets look at
)

// learner asks one service. It is of one goroutine.
type learner struct {
	learnOptions
	base   *url.URL
	client *http.Client
	asked  int
	token  string // of the right log-in, if it gave one
}

// jarOf is the cookies of one visitor, by name.
type jarOf map[string]string

// learn probes a service and writes a preset to file, which must not be there.
func learn(ctx context.Context, o learnOptions, file string, w io.Writer) error {
	base, err := url.Parse(o.url)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return errors.New("--url: want the address of the service, such as http://127.0.0.1:8080")
	}
	if o.name == "" {
		return errors.New("--name: want the name of a test account")
	}
	l := &learner{learnOptions: o, base: base, client: &http.Client{
		Timeout:       15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	found, err := l.probe(ctx)
	if err != nil {
		return fmt.Errorf("learning %s: %w", base.Host, err)
	}
	text := found.preset(o.preset)
	if err := found.check(o.preset, text); err != nil {
		return fmt.Errorf("learning %s: %w", base.Host, err)
	}
	if err := writeNew(file, []byte(text)); err != nil {
		return err
	}
	found.tell(w, file, l.asked)
	return nil
}

// send makes one request with the cookies of jar, and keeps those of the answer.
func (l *learner) send(ctx context.Context, jar jarOf, method, path, body string, header ...string) (policies.Answer, error) {
	if l.asked++; l.asked > learnMost {
		return policies.Answer{}, fmt.Errorf("%d requests did not tell enough: name --login-path and --whoami", learnMost)
	}
	target, err := l.base.Parse(path)
	if err != nil || target.Host != l.base.Host {
		return policies.Answer{}, fmt.Errorf("%.100q leads to another host than %s", path, l.base.Host)
	}
	r, err := http.NewRequestWithContext(ctx, method, target.String(), strings.NewReader(body))
	if err != nil {
		return policies.Answer{}, err
	}
	r.Header.Set("Accept", "text/html, application/json;q=0.9")
	r.Header.Set("User-Agent", "kidoban-learn")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for name, value := range jar {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := l.client.Do(r)
	if err != nil {
		return policies.Answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, learnAnswer+1))
	if err != nil {
		return policies.Answer{}, fmt.Errorf("%s %s: %w", method, target.Path, err)
	}
	a := policies.Answer{Status: resp.StatusCode, Header: resp.Header, Body: text[:min(len(text), learnAnswer)], Truncated: len(text) > learnAnswer}
	for name, value := range given(a) {
		jar[name] = value
	}
	for _, c := range resp.Cookies() {
		if c.Value == "" || c.MaxAge < 0 {
			delete(jar, c.Name)
		}
	}
	return a, nil
}

// given is the cookies that an answer sets, without those it takes away.
func given(a policies.Answer) jarOf {
	jar := make(jarOf)
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		if c.Value != "" && c.MaxAge >= 0 {
			jar[c.Name] = c.Value
		}
	}
	return jar
}

// wait is the pause between log-ins.
func (l *learner) wait(ctx context.Context) error {
	t := time.NewTimer(l.pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nobody is a name that no account has, of the kind of the given one.
func nobody(name string) string {
	stem := "kidoban-" + strings.ToLower(rand.Text()[:10])
	if _, domain, mail := strings.Cut(name, "@"); mail {
		return stem + "@" + domain
	}
	return stem
}

// check loads the preset as a gate would, and has it judge what was answered.
func (f *findings) check(name, text string) error {
	dir, err := os.MkdirTemp("", "kidoban-learn-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	b, err := policies.LoadBackend(name, os.DirFS(dir))
	if err != nil {
		return err
	}
	if got := b.Outcome(f.right); got != "success" {
		return fmt.Errorf("the right log-in cannot be told from the wrong ones: it would count as %s (status %d); is the password right?", got, f.right.Status)
	}
	for _, a := range f.wrong {
		if got := b.Outcome(a); got != "failure" {
			return fmt.Errorf("a wrong log-in cannot be told from the right one: it would count as %s (status %d)", got, a.Status)
		}
	}
	id, err := b.ReadIdentity(f.who.known)
	if err != nil {
		return err
	}
	if _, err := b.ReadIdentity(f.who.nobody); !errors.Is(err, policies.ErrAnonymous) {
		return fmt.Errorf("%s does not tell a visitor from somebody who is logged in", f.who.path)
	}
	f.subject = id.Subject
	return nil
}
