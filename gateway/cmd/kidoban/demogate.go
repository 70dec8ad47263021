package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// gateConfig says how the gate of a demo stands.
type gateConfig struct {
	dir       string // the gate's data, Caddy's data in dir/caddy, the log
	listen    hostPort
	backend   string // address of the chat service
	observe   bool
	operators hostPort // no port: no operators' API
	key       string   // of the operator "demo"
	verbose   bool
}

// rootFile is the certificate of Caddy's internal authority, below its storage.
const rootFile = "pki/authorities/local/root.crt"

// caddyfile writes the configuration. People simulated on this machine get their
// addresses from X-Forwarded-For, so loopback is trusted to set it: never do that
// where others share the machine.
func (c gateConfig) caddyfile() (string, error) {
	if strings.ContainsAny(c.dir, "`{}\n") {
		return "", fmt.Errorf("the data directory %q: want a path without backquotes, braces and line breaks", c.dir)
	}
	quoted := func(elements ...string) string {
		return "`" + filepath.Join(append([]string{c.dir}, elements...)...) + "`"
	}
	mode, output := "enforce", "file "+quoted("caddy.log")
	if c.observe {
		mode = "observe"
	}
	if c.verbose {
		output = "stderr"
	}
	bind := c.listen.host
	if bind == "" {
		bind = strings.Join(loopbacks(), " ")
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{
	admin off
	persist_config off
	skip_install_trust
	local_certs
	auto_https disable_redirects
	grace_period 3s
	storage file_system %s
	log {
		output %s
	}
	servers {
		trusted_proxies static 127.0.0.0/8 ::1/128
		trusted_proxies_strict
		client_ip_headers X-Forwarded-For
	}
	kidoban {
		data_dir %s
		mode %s
	}
}
https://localhost:%s {
	bind %s
	tls internal
	kidoban {
		backend chatcore
	}
	reverse_proxy %s {
		stream_close_delay 5m
	}
}
`, quoted("caddy"), output, quoted(), mode, c.listen.port, bind, c.backend)
	if c.operators.port != "" {
		fmt.Fprintf(&b, `http://%s {
	bind %s
	kidoban_api {
		key demo %s
	}
}
`, c.operators, hostOf(c.operators), c.key)
	}
	return b.String(), nil
}

func hostOf(a hostPort) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return "127.0.0.1" // a hostPort always splits
	}
	return host
}

// loopbacks are the loopback addresses that this machine has.
func loopbacks() []string {
	all := []string{"127.0.0.1"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		all = append(all, "[::1]")
	}
	return all
}

// gate is a running gate. There is one at a time: Caddy is one per process.
type gate struct {
	entry string
	roots *x509.CertPool // the authority of entry
	log   string         // file
}

// startGate starts the gate and returns when it answers.
func startGate(ctx context.Context, c gateConfig) (_ *gate, err error) {
	text, err := c.caddyfile()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "caddy"), 0o700); err != nil {
		return nil, err
	}
	if !c.verbose {
		// Until the log of the configuration stands, Caddy would speak on the screen.
		_, orig, _ := caddy.BufferedLog()
		defer func() {
			if err != nil {
				caddy.UnbufferDefaultLogger(orig)
			}
		}()
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "demo"})
	if err != nil {
		return nil, fmt.Errorf("the gate's configuration: %w", err)
	}
	if err := caddy.Load(config, true); err != nil {
		if strings.Contains(err.Error(), "address already in use") {
			return nil, fmt.Errorf("starting the gate: %w (give other addresses with --listen and --operators)", err)
		}
		return nil, fmt.Errorf("starting the gate: %w", err)
	}
	g := &gate{entry: "https://" + net.JoinHostPort("localhost", c.listen.port), log: filepath.Join(c.dir, "caddy.log")}
	if g.roots, err = g.answers(ctx, filepath.Join(c.dir, "caddy", filepath.FromSlash(rootFile))); err != nil {
		return nil, errors.Join(fmt.Errorf("the gate does not answer, see %s: %w", g.log, err), g.stop())
	}
	return g, nil
}

// readyTimeout bounds how long the gate may take to have a certificate.
const readyTimeout = 15 * time.Second

// answers waits until the chat answers through the gate and returns the authority
// that vouches for it.
func (g *gate) answers(ctx context.Context, root string) (*x509.CertPool, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		pool, err := g.ask(ctx, root)
		if err == nil {
			return pool, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (g *gate) ask(ctx context.Context, root string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(root)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", root)
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer t.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.entry+"/healthz", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: t, Timeout: 5 * time.Second}).Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the gate answered %s", resp.Status)
	}
	return pool, nil
}

// stop ends the gate. What it counted is on disk when stop returns.
func (g *gate) stop() error { return caddy.Stop() }
