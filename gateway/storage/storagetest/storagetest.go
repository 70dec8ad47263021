// Package storagetest runs the servers that tests need: PostgreSQL and Redis, as
// the operating system installs them, on loopback and with data of their own.
//
// Where a server is not installed the test is skipped and says so; with CI=true
// in the environment it fails. A test binary that uses [Postgres] calls [Main].
package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// wait is how long a server may take to start or to answer.
const wait = 30 * time.Second

// Main runs the tests of a binary, stops what they share, and exits.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for binaries that have more to do before they exit.
func Run(m interface{ Run() int }) int {
	code := m.Run()
	cluster.stop()
	return code
}

// missing ends a test that has no server.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", what)
	}
	t.Skipf("%s is not installed", what)
}

// program finds a server's executable.
func program(name string, places ...string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, pattern := range places {
		found, _ := filepath.Glob(filepath.Join(pattern, name))
		slices.Sort(found)
		if len(found) > 0 {
			return found[len(found)-1], true
		}
	}
	return "", false
}

// given is the ports that this process gave away.
var given sync.Map

// Port is a port of loopback that nobody listens on, for a server that starts later
// and perhaps again. It is below those that systems give to outgoing connections,
// one of which could be in the way by then.
func Port() (int, error) {
	for range 1000 {
		port := 10_000 + rand.IntN(22_000)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no port from 10000 to 31999 is free")
}

// process is a server that runs.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs a server that writes what it says to log.
func start(log string, cmd *exec.Cmd) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // servers here are killed
	}()
	return p, nil
}

// end sends sig and waits.
func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(wait):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// until calls ready until it returns nil.
func until(p *process, ready func() error) error {
	deadline := time.After(wait)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("the server ended: %w", err)
		case <-deadline:
			return errors.Join(errors.New("the server does not answer"), err)
		case <-tick.C:
		}
	}
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
