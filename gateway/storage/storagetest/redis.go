package storagetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisServer is a redis-server of one test.
type RedisServer struct {
	t    testing.TB
	dir  string
	port int
	args []string
	run  *process
}

// Redis starts a server that keeps nothing on disk, unless args (of the server's
// command line) say otherwise. It ends with the test.
func Redis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	return redisServer(t, args...)
}

func redisServer(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	if _, ok := program("redis-server"); !ok {
		missing(t, "redis-server")
	}
	port, err := Port()
	if err != nil {
		t.Fatal(err)
	}
	s := &RedisServer{t: t, dir: t.TempDir(), port: port, args: args}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts the server again, on the same port.
func (s *RedisServer) Start() {
	s.t.Helper()
	if s.run != nil {
		return
	}
	args := append([]string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--dir", s.dir, "--protected-mode", "no"}, s.args...)
	s.launch("redis-server", args)
}

func (s *RedisServer) launch(name string, args []string) {
	s.t.Helper()
	path, _ := program(name)
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	run, err := start(filepath.Join(s.dir, "log"), cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	s.run = run
	client := s.Client()
	defer client.Close()
	if err := until(run, func() error { return client.Ping(context.Background()).Err() }); err != nil {
		said, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		s.t.Fatalf("starting %s: %v\n%s", name, err, said)
	}
}

// Stop kills the server as a crash would.
func (s *RedisServer) Stop() {
	if s.run == nil {
		return
	}
	s.Resume()
	s.run.end(syscall.SIGKILL)
	s.run = nil
}

// Pause makes the server a black hole: it takes connections and never answers.
func (s *RedisServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *RedisServer) Resume() { s.signal(syscall.SIGCONT) }

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if s.run == nil {
		return
	}
	if err := s.run.cmd.Process.Signal(sig); err != nil {
		s.t.Error(err)
	}
}

// Addr is where the server listens.
func (s *RedisServer) Addr() string { return address(s.port) }

// Port is the port of Addr.
func (s *RedisServer) Port() int { return s.port }

// Client is a new client of the server.
func (s *RedisServer) Client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr(), ContextTimeoutEnabled: true, DialTimeout: time.Second})
}

// SentinelSet is a primary, a replica and three sentinels that watch them under
// the name "kidoban".
type SentinelSet struct {
	t         testing.TB
	servers   []*RedisServer
	sentinels []*RedisServer
}

// SentinelMaster is the name the primary is watched under.
const SentinelMaster = "kidoban"

// Sentinel starts a set. It ends with the test.
func Sentinel(t testing.TB) *SentinelSet {
	t.Helper()
	set := &SentinelSet{t: t}
	primary := redisServer(t)
	replica := redisServer(t, "--replicaof", "127.0.0.1", strconv.Itoa(primary.port))
	set.servers = []*RedisServer{primary, replica}
	for range 3 {
		port, err := Port()
		if err != nil {
			t.Fatal(err)
		}
		s := &RedisServer{t: t, dir: t.TempDir(), port: port}
		conf := filepath.Join(s.dir, "sentinel.conf")
		text := fmt.Sprintf(`port %d
bind 127.0.0.1
protected-mode no
dir %s
sentinel monitor %s 127.0.0.1 %d 2
sentinel down-after-milliseconds %[3]s 1000
sentinel failover-timeout %[3]s 3000
sentinel parallel-syncs %[3]s 1
`, port, s.dir, SentinelMaster, primary.port)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.launch("redis-server", []string{conf, "--sentinel"})
		t.Cleanup(s.Stop)
		s.tilt(time.Second)
		set.sentinels = append(set.sentinels, s)
	}
	set.await("a set that is complete", func() bool {
		for _, s := range set.sentinels {
			c := redis.NewSentinelClient(&redis.Options{Addr: s.Addr()})
			others, err := c.Sentinels(context.Background(), SentinelMaster).Result()
			replicas, err2 := c.Replicas(context.Background(), SentinelMaster).Result()
			c.Close()
			if err != nil || err2 != nil || len(others) < 2 || len(replicas) < 1 {
				return false
			}
		}
		return true
	})
	return set
}

// tilt sets for how long a sentinel does nothing after its clock jumped, as it seems to on a
// machine that holds it up for 2 s. The usual 30 s are too long: a replica that was without
// its primary for ten times down-after before that was noticed is never promoted.
func (s *RedisServer) tilt(period time.Duration) {
	s.t.Helper()
	c := s.Client()
	defer c.Close()
	if err := c.Do(context.Background(), "SENTINEL", "DEBUG", "TILT-PERIOD", period.Milliseconds()).Err(); err != nil {
		s.t.Fatalf("SENTINEL DEBUG, which Redis 7 has: %v", err)
	}
}

func (set *SentinelSet) await(what string, done func() bool) {
	set.t.Helper()
	deadline := time.After(2 * wait)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			set.t.Fatalf("waited too long for %s", what)
		case <-tick.C:
		}
	}
}

// Addrs is where the sentinels listen.
func (set *SentinelSet) Addrs() []string {
	var all []string
	for _, s := range set.sentinels {
		all = append(all, s.Addr())
	}
	return all
}

// Master is the name that the primary is watched under.
func (set *SentinelSet) Master() string { return SentinelMaster }

// primary asks the sentinels who it is.
func (set *SentinelSet) primary() string {
	c := redis.NewSentinelClient(&redis.Options{Addr: set.sentinels[0].Addr()})
	defer c.Close()
	at, err := c.GetMasterAddrByName(context.Background(), SentinelMaster).Result()
	if err != nil || len(at) != 2 {
		return ""
	}
	return at[0] + ":" + at[1]
}

// FailOver kills the primary and returns when the sentinels have made the replica
// one. The old primary does not come back by itself; see [SentinelSet.Revive].
func (set *SentinelSet) FailOver() {
	set.t.Helper()
	old := set.primary()
	for _, s := range set.servers {
		if s.Addr() == old {
			s.Stop()
		}
	}
	set.await("a new primary", func() bool {
		now := set.primary()
		if now == "" || now == old {
			return false
		}
		c := redis.NewClient(&redis.Options{Addr: now})
		defer c.Close()
		role, err := c.Do(context.Background(), "ROLE").Slice()
		return err == nil && len(role) > 0 && role[0] == "master"
	})
}

// Revive starts servers that were killed; the sentinels make them replicas.
func (set *SentinelSet) Revive() {
	set.t.Helper()
	for _, s := range set.servers {
		s.Start()
	}
}
