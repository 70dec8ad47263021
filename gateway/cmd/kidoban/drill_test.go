package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/web"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// town is a chat service on loopback with people in it, as a backend of nodes.
type town struct {
	address string
	people  []chatcore.SeededAccount
	service *chatcore.Service
}

// newTown serves a world of accounts until the test ends.
func newTown(t testing.TB, accounts int) *town {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	svc, err := chatcore.Open(ctx, chatcore.Config{Path: filepath.Join(t.TempDir(), "chat.db"), PasswordCost: cheapHash})
	if err != nil {
		t.Fatal(err)
	}
	people, err := svc.Seed(ctx, chatcore.SeedOptions{Organizations: 3, Accounts: accounts, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- web.Serve(ctx, l, svc, web.Options{}) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, svc.Close()); err != nil {
			t.Errorf("stopping the chat: %v", err)
		}
	})
	return &town{address: l.Addr().String(), people: people, service: svc}
}

// node is a process of the real program, in front of a town.
type node struct {
	t         testing.TB
	name, dir string
	site      string // where people go, by http: cookies that need TLS are kept by [visitor]
	operators string
	file      string   // its Caddyfile
	options   []string // lines of the kidoban block
	backend   string
	socket    *os.File // of the site, handed over as systemd does; nil: the node opens its own
	network   *lan     // nil: loopback
	within    *namespace

	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	log  bytes.Buffer // guarded by mu
}

// How an operator is known: by a key, or by a signature as alice.
const (
	drillKey       = "a-key-of-an-operator-in-drills"
	drillAccessKey = "AKIDDRILL"
	drillSecret    = "a-secret-that-signs-calls-in-drills"
)

// newNode writes the configuration of a node with a data directory of its own.
func newNode(t testing.TB, name string, backend *town, options ...string) *node {
	t.Helper()
	n := &node{t: t, name: name, dir: t.TempDir(), options: options, backend: backend.address}
	n.site, n.operators = "127.0.0.1:"+drillPort(t), "127.0.0.1:"+drillPort(t)
	n.file = filepath.Join(n.dir, "Caddyfile")
	n.configure(options...)
	t.Cleanup(func() { n.kill() })
	return n
}

func drillPort(t testing.TB) string {
	t.Helper()
	port, err := storagetest.Port()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// configure writes the node's Caddyfile with these options.
func (n *node) configure(options ...string) {
	n.t.Helper()
	n.options = options
	if err := os.WriteFile(n.file, []byte(n.caddyfile()), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) caddyfile() string {
	bind := ""
	if n.socket != nil {
		bind = "bind fd/3"
	}
	return fmt.Sprintf(`{
	admin unix/%[1]s/admin.sock
	persist_config off
	auto_https off
	grace_period 3s
	storage file_system %[1]s/caddy
	log {
		output stderr
		level INFO
	}
	servers {
		trusted_proxies static 127.0.0.0/8 10.0.0.0/8
		trusted_proxies_strict
		client_ip_headers X-Forwarded-For
	}
	kidoban {
		node %[2]s
		data_dir %[1]s/data
		%[3]s
	}
}
http://%[4]s {
	%[8]s
	kidoban {
		backend chatcore
	}
	reverse_proxy %[5]s {
		stream_close_delay 5m
	}
}
http://%[6]s {
	kidoban_api {
		key drill %[7]s role admin
		aws alice AKIDDRILL {env.KIDOBAN_DRILL_SECRET}
		service execute-api
	}
}
`, n.dir, n.name, strings.Join(n.options, "\n\t\t"), n.site, n.backend, n.operators, drillKey, bind)
}

// activate has the node get its site's socket from outside, as from systemd.
func (n *node) activate() {
	n.t.Helper()
	l, err := net.Listen("tcp", n.site)
	if err != nil {
		n.t.Fatal(err)
	}
	defer l.Close()
	if n.socket, err = l.(*net.TCPListener).File(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { n.socket.Close() })
	n.configure(n.options...)
}

// start runs the node and returns when it answers its operators and listens for people.
func (n *node) start() {
	n.t.Helper()
	if err := n.launch(); err != nil {
		n.t.Fatal(err)
	}
	if err := n.await(30 * time.Second); err != nil {
		n.t.Fatalf("%v\n%s", err, n.said())
	}
}

// launch starts the process.
func (n *node) launch() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"kidoban", "run", "--config", n.file, "--adapter", "caddyfile"}
	cmd := &exec.Cmd{Path: exe, Args: args, Dir: n.dir}
	cmd.Env = append(os.Environ(), "HOME="+n.dir, "XDG_DATA_HOME="+n.dir, "XDG_CONFIG_HOME="+n.dir, "KIDOBAN_DRILL_SECRET="+drillSecret)
	cmd.Stdout, cmd.Stderr = n, n
	if n.socket != nil {
		cmd.ExtraFiles = []*os.File{n.socket} // descriptor 3
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start := cmd.Start
	if n.within != nil {
		start = func() error { return n.within.enter(cmd.Start) }
	}
	if err := start(); err != nil {
		return err
	}
	done := make(chan struct{})
	n.cmd, n.done = cmd, done
	go func() {
		defer close(done)
		_ = cmd.Wait() // nodes are killed
	}()
	return nil
}

// Write keeps what the process says.
func (n *node) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.log.Len() < 4<<20 {
		n.log.Write(b)
	}
	return len(b), nil
}

// said is what the processes of this node said.
func (n *node) said() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.String()
}

// await waits until the node answers or has ended.
func (n *node) await(limit time.Duration) error {
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		status, _, err := n.call(http.MethodGet, "/v1/health", nil)
		if err == nil && status == http.StatusOK {
			var site net.Conn
			if site, err = net.Dial("tcp", n.site); err == nil { // the two listen one after the other
				return site.Close()
			}
		}
		select {
		case <-n.done:
			return fmt.Errorf("node %s ended", n.name)
		case <-deadline:
			return fmt.Errorf("node %s does not answer: %d, %v", n.name, status, err)
		case <-tick.C:
		}
	}
}

// kill ends the process as a power cut would end it, as far as a process can.
func (n *node) kill() { n.end(syscall.SIGKILL) }

// stop ends the process as an operator would.
func (n *node) stop() { n.end(syscall.SIGTERM) }

func (n *node) end(sig syscall.Signal) {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(sig)
	select {
	case <-n.done:
	case <-time.After(30 * time.Second):
		n.t.Errorf("node %s does not end", n.name)
		_ = n.cmd.Process.Kill()
		<-n.done
	}
	n.cmd = nil
	if said := n.said(); strings.Contains(said, "WARNING: DATA RACE") {
		_, race, _ := strings.Cut(said, "WARNING: DATA RACE")
		n.t.Errorf("node %s races: %.4000s", n.name, race)
	}
}

var operatorClient = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// call asks the operators' API.
func (n *node) call(method, path string, body any) (int, []byte, error) {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, "http://"+n.operators+path, in)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+drillKey)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	client := operatorClient
	if n.network != nil {
		client = n.network.client
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp.StatusCode, out, err
}

// visitor is a client of a town by way of nodes. It sends its cookies in the
// clear, as a proxy that ends TLS in front of a node would.
type visitor struct {
	address string // that it comes from
	cookies map[string]string
	client  *http.Client
}

var visitorClient = &http.Client{
	Timeout:       20 * time.Second,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 256, MaxIdleConns: 512},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func newVisitor(address string) *visitor {
	return &visitor{address: address, cookies: make(map[string]string), client: visitorClient}
}

// do sends a request to a node and keeps the cookies of the answer.
func (v *visitor) do(ctx context.Context, n *node, method, path string, body any) (int, []byte, error) {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+n.site+path, in)
	if err != nil {
		return 0, nil, err
	}
	v.dress(r)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	client := v.client
	if n.network != nil {
		client = n.network.client
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			delete(v.cookies, c.Name)
		} else {
			v.cookies[c.Name] = c.Value
		}
	}
	return resp.StatusCode, out, err
}

// dress gives a request the visitor's address and cookies.
func (v *visitor) dress(r *http.Request) {
	r.Header.Set("X-Forwarded-For", v.address)
	r.Header.Set("Accept", "application/json")
	for name, value := range v.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
}

// login logs in to the chat through a node.
func (v *visitor) login(ctx context.Context, n *node, who chatcore.SeededAccount) (int, error) {
	return v.try(ctx, n, who.Email, who.Password)
}

// try tries a pair.
func (v *visitor) try(ctx context.Context, n *node, name, password string) (int, error) {
	status, _, err := v.do(ctx, n, http.MethodPost, "/login", map[string]string{"email": name, "password": password})
	return status, err
}

// me asks who the visitor is.
func (v *visitor) me(ctx context.Context, n *node) (int, error) {
	status, _, err := v.do(ctx, n, http.MethodGet, "/v2/me", nil)
	return status, err
}

// reload has the node take its Caddyfile anew, as `kidoban reload` does.
func (n *node) reload() ([]byte, error) {
	return kidoban(n.dir, "reload", "--force", "--config", n.file, "--adapter", "caddyfile", "--address", "unix/"+n.dir+"/admin.sock")
}

// kidoban runs a command of the program in dir.
func kidoban(dir string, args ...string) ([]byte, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: exe, Args: append([]string{"kidoban"}, args...), Dir: dir, Env: append(os.Environ(), "HOME="+dir)}
	return cmd.CombinedOutput()
}
