//go:build linux

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cores are where things run.
type cores struct {
	proxy, rest int
}

// pickCores takes the last core this process may use for the proxies and the one
// before for everything else, and moves this process there.
func pickCores() (cores, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return cores{}, fmt.Errorf("asking for the cores this process may use: %w", err)
	}
	var all []int
	for i := range len(allowed) * 64 {
		if allowed.IsSet(i) {
			all = append(all, i)
		}
	}
	if len(all) < 2 {
		return cores{}, fmt.Errorf("only core %v is there: the proxy needs one for itself and the load another", all)
	}
	c := cores{proxy: all[len(all)-1], rest: all[len(all)-2]}
	return c, pinSelf(c.rest)
}

// pinSelf moves every thread of this process to one core. Threads made later
// inherit it; those made meanwhile are found by looking until nothing is new.
func pinSelf(core int) error {
	pinned := make(map[string]bool)
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		fresh := false
		for _, t := range tasks {
			if pinned[t.Name()] {
				continue
			}
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			set := coreSet(core)
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("pinning thread %d to core %d: %w", tid, core, err)
			}
			pinned[t.Name()], fresh = true, true
		}
		if !fresh {
			runtime.GOMAXPROCS(1)
			return nil
		}
	}
}

func coreSet(core int) (s unix.CPUSet) {
	s.Set(core)
	return s
}

// process is a child that runs on one core and does not outlive this process.
type process struct {
	cmd  *exec.Cmd
	name string
	log  string // path of what it says
	done chan struct{}
	err  error // of its end; read after done
}

// start runs cmd on a core. What it says goes to a file in dir, standard output
// too unless cmd has a place for that.
func start(b *testing.B, name, dir string, core int, cmd *exec.Cmd) *process {
	b.Helper()
	p := &process{cmd: cmd, name: name, log: filepath.Join(dir, "log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Env = append(cmd.Env,
		"GOMAXPROCS=1", "PATH="+os.Getenv("PATH"), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	// A child starts with the affinity of the thread that makes it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		b.Fatal(err)
	}
	set := coreSet(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		b.Fatalf("moving %s to core %d: %v", name, core, err)
	}
	err = cmd.Start()
	if rerr := unix.SchedSetaffinity(0, &before); rerr != nil {
		b.Fatal(rerr)
	}
	if err != nil {
		b.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	b.Cleanup(p.stop)
	return p
}

// stop ends the process, politely for a while.
func (p *process) stop() {
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

func (p *process) signal(s syscall.Signal) error {
	err := p.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s has ended: %s", p.name, p.said())
	}
	return err
}

// said is the end of what the process said.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-4096):]))
}

// cpu is the CPU time that all threads of the process have had, the ended ones
// included, from its CPU-time clock (clock_getcpuclockid(3)). Unlike what /proc
// shows it counts the running time slice and has nanoseconds.
func (p *process) cpu() (time.Duration, error) {
	const schedulerClock = 2 // CPUCLOCK_SCHED of the kernel's posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid)<<3|schedulerClock, &t); err != nil {
		return 0, fmt.Errorf("the CPU clock of %s: %w: %s", p.name, err, p.said())
	}
	return time.Duration(t.Nano()), nil
}

// resident is the memory of the process in bytes.
func (p *process) resident() (int64, error) { return p.status("VmRSS") }

// status is an amount of memory from the process's status, in bytes.
func (p *process) status(field string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s: no %s in its status", p.name, field)
}
