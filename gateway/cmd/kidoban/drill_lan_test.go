package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
	"github.com/kidoban/kidoban/rules"
)

var drillSeeds = flag.Int("drill.seeds", 6, "how many lists are tried in the drill of an attack over two nodes")

// namespace is a network namespace without a name. It goes, with all that is in
// it, with this process, however that ends.
type namespace struct{ file *os.File }

// newNamespace makes an empty one. That takes root, or CAP_SYS_ADMIN.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n := new(namespace)
	err := elsewhere(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() (err error) {
		n.file, err = os.Open(ownNamespace)
		return err
	})
	if err != nil {
		if os.Getenv("CI") != "true" && errors.Is(err, unix.EPERM) {
			t.Skipf("network namespaces need root: %v", err)
		}
		t.Fatalf("making a network namespace, which needs root: %v", err)
	}
	t.Cleanup(func() { n.file.Close() })
	return n
}

// enter runs do inside. Sockets and processes that do makes stay inside.
func (n *namespace) enter(do func() error) error {
	return elsewhere(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, do)
}

// ownNamespace is the network namespace of the thread that opens it.
const ownNamespace = "/proc/thread-self/ns/net"

// elsewhere runs do on a thread that leave takes to another network namespace, and
// that comes back. It must not end: processes die with the thread that started them.
func elsewhere(leave, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open(ownNamespace)
	if err != nil {
		return err
	}
	defer home.Close()
	if err := leave(); err != nil {
		return err
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("a thread is stuck in a network namespace: %v", err))
		}
	}()
	return do()
}

// path is where other processes find the namespace.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// ip configures the namespace.
func (n *namespace) ip(t testing.TB, command string) {
	t.Helper()
	cmd := exec.Command("ip", strings.Fields(command)...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := errors.Join(n.enter(cmd.Start), cmd.Wait()); err != nil {
		t.Fatalf("ip %s: %v\n%s", command, err, said.String())
	}
}

// lan is a network of a test's own: a namespace with a bridge, at 10.77.0.1, where
// its servers are and its clients are, and a namespace for each node. The machine's
// own network is not touched.
type lan struct {
	t      testing.TB
	hub    *namespace
	nodes  int
	client *http.Client // in the hub
}

func newLAN(t testing.TB) *lan {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("ip (iproute2) is not installed")
		}
		t.Skip("ip (iproute2) is not installed")
	}
	l := &lan{t: t, hub: newNamespace(t)}
	l.hub.ip(t, "link add bridge0 type bridge")
	l.hub.ip(t, "addr add 10.77.0.1/24 dev bridge0")
	l.hub.ip(t, "link set bridge0 up")
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = l.hub.enter(func() error {
			c, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}}
	l.client = &http.Client{Timeout: 20 * time.Second, Transport: transport, CheckRedirect: visitorClient.CheckRedirect}
	t.Cleanup(transport.CloseIdleConnections)
	return l
}

// join puts a node that does not run yet into a namespace of its own.
func (l *lan) join(n *node) {
	l.t.Helper()
	l.nodes++
	at, link := fmt.Sprintf("10.77.0.%d", 10+l.nodes), fmt.Sprintf("node%d", l.nodes)
	n.network, n.within = l, newNamespace(l.t)
	l.hub.ip(l.t, "link add "+link+" type veth peer name eth0 netns "+n.within.path())
	l.hub.ip(l.t, "link set "+link+" master bridge0 up")
	n.within.ip(l.t, "link set lo up")
	n.within.ip(l.t, "addr add "+at+"/24 dev eth0")
	n.within.ip(l.t, "link set eth0 up")
	n.site, n.operators = at+":8080", at+":8081"
	n.configure(n.options...)
}

// reach makes a server of the machine's loopback reachable from the nodes, and
// returns where.
func (l *lan) reach(address string) string {
	l.t.Helper()
	var in net.Listener
	err := l.hub.enter(func() (err error) {
		in, err = net.Listen("tcp", "10.77.0.1:0")
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { in.Close() })
	go func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", address)
			if err != nil {
				c.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{c, out}, {out, c}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1]) // either end may go away
					pair[0].Close()
					pair[1].Close()
				}()
			}
		}
	}()
	return in.Addr().String()
}

// site is a new installation on a LAN.
type site struct {
	t       *testing.T
	backend *town
	redis   *storagetest.RedisServer
	hook    *hook
	nodes   []*node
}

// install starts an installation of so many nodes.
func (l *lan) install(t *testing.T, name string, nodes int) *site {
	t.Helper()
	s := &site{t: t, backend: newTown(t, 400), redis: storagetest.Redis(t), hook: newHook(t)}
	s.backend.address = l.reach(s.backend.address)
	server, database, _ := strings.Cut(strings.TrimPrefix(storagetest.Postgres(t), "postgres://kidoban@"), "/")
	options := []string{
		"database postgres://kidoban@" + l.reach(server) + "/" + database,
		"redis redis://" + l.reach(s.redis.Addr()),
		s.hook.options("http://" + l.reach(s.hook.Listener.Addr().String())),
		"rules " + sourcesOnly(t),
	}
	for i := range nodes {
		n := newNode(t, fmt.Sprintf("%s-%d", name, i+1), s.backend, options...)
		l.join(n)
		if i > 0 {
			shareKeys(t, s.nodes[0], n)
		}
		n.start()
		s.nodes = append(s.nodes, n)
	}
	return s
}

// sourcesOnly are the shipped rules, of which those about sources act: every list is
// to be seen for itself, though one program tries them all from one prefix.
func sourcesOnly(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	names, err := fs.Glob(rules.Shipped, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		rule, err := fs.ReadFile(rules.Shipped, name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "stuffing.sequential.yaml" && name != "stuffing.many-accounts-one-network.yaml" {
			rule = bytes.Replace(rule, []byte("mode: enforce"), []byte("mode: shadow"), 1)
		}
		if err := os.WriteFile(filepath.Join(dir, name), rule, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// thief is where a list is tried from. Each list has a place of its own.
func thief(seed int) string { return fmt.Sprintf("203.0.113.%d", 60+seed) }

// pair is a line of a stolen list.
type pair struct{ name, password string }

// stolen is a list that was stolen elsewhere: a fifth of its names have an account
// here too, with another password; in each third list one of the first has the
// right one. Equal seeds make equal lists.
func (s *site) stolen(seed int) []pair {
	chance := rand.New(rand.NewPCG(uint64(seed), 6))
	people := s.backend.people[seed%18*20:][:20]
	list := make([]pair, 100)
	for i := range list {
		list[i] = pair{fmt.Sprintf("somebody%d-%d@elsewhere.example", seed, i), fmt.Sprintf("sunshine%d", 1960+chance.IntN(60))}
	}
	for i, at := range chance.Perm(len(list))[:len(people)-1] {
		list[at].name = people[i].Email
	}
	if right := people[len(people)-1]; seed%3 == 2 {
		list[chance.IntN(6)] = pair{right.Email, right.Password}
	}
	return list
}

// score is how an attack went.
type score struct {
	tried     int // until the gate answered first
	evaluated int // by the backend, in all
}

// attack tries a list at all nodes in turn, by so many workers, each at its own pace
// (0: as fast as it is answered).
func (s *site) attack(address string, list []pair, workers int, pace time.Duration) score {
	s.t.Helper()
	var (
		mu   sync.Mutex // guards what follows
		next int
		sum  score
		all  sync.WaitGroup
	)
	for range workers {
		all.Go(func() {
			var tick <-chan time.Time
			if pace > 0 {
				t := time.NewTicker(pace)
				defer t.Stop()
				tick = t.C
			}
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(list) {
					return
				}
				if tick != nil {
					<-tick
				}
				status, err := newVisitor(address).try(s.t.Context(), s.nodes[i%len(s.nodes)], list[i].name, list[i].password)
				if err != nil {
					s.t.Errorf("attempt %d: %v", i, err)
					return
				}
				mu.Lock()
				switch status {
				case http.StatusUnauthorized, http.StatusOK:
					sum.evaluated++
				case http.StatusForbidden:
					if sum.tried == 0 {
						sum.tried = i + 1
					}
				default:
					s.t.Errorf("attempt %d was answered %d", i, status)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if sum.tried == 0 {
		s.t.Errorf("nobody acted on a list of %d pairs from %s", len(list), address)
	}
	return sum
}

// decidedOnce checks that there is one decision on an address, that all nodes
// enforce it, and that it was told once.
func (s *site) decidedOnce(address string) {
	s.t.Helper()
	for _, n := range s.nodes {
		eventually(s.t, 10*time.Second, n.name+" refusing log-ins from "+address, func() bool {
			status, err := newVisitor(address).try(s.t.Context(), n, "once-more@elsewhere.example", "sunshine1999")
			return err == nil && status == http.StatusForbidden
		})
		status, body, err := n.call(http.MethodGet, "/v1/decisions?state=live&address="+address, nil)
		var page struct {
			Decisions []struct{ Value, Action, Origin string }
		}
		if err != nil || status != http.StatusOK || json.Unmarshal(body, &page) != nil {
			s.t.Fatalf("%s: %d %s %v", n.name, status, body, err)
		}
		if len(page.Decisions) != 1 || page.Decisions[0].Origin != "rule" || page.Decisions[0].Action != "step_up" {
			s.t.Errorf("%s: want one decision of a rule on %s: %s", n.name, address, body)
		}
	}
	s.hook.exactly(s.t, address+"/32", map[string]int{"decision.registered": 1})
}

// office is people who work here, on all nodes: they are let in after an attack as
// before.
func (s *site) office(people []chatcore.SeededAccount) {
	s.t.Helper()
	for i, person := range people {
		if status, err := newVisitor("198.51.100.20").login(s.t.Context(), s.nodes[i%len(s.nodes)], person); err != nil || status != http.StatusOK {
			s.t.Errorf("log-in %d of the office: %d %v", i, status, err)
		}
	}
}

// TestSpreadAttack tries stolen lists over two nodes in turn, each from an address
// of its own. They must be acted upon about as soon as by one node alone, once.
func TestSpreadAttack(t *testing.T) {
	t.Parallel()
	// A worker who tries at this pace is no slower than the simulated attack of the
	// demo, and slow enough that the order of attempts is that of the list.
	const pace = 25 * time.Millisecond
	l := newLAN(t)
	one, two := l.install(t, "alone", 1), l.install(t, "pair", 2)
	for _, s := range []*site{one, two} {
		s.office(s.backend.people[380:])
	}
	var alone, spread int
	for seed := range *drillSeeds {
		a := one.attack(thief(seed), one.stolen(seed)[:16], 1, pace)
		b := two.attack(thief(seed), two.stolen(seed)[:16], 1, pace)
		t.Logf("list %d: acted upon at attempt %d by one node, at %d over two; %d and %d reached the backend", seed, a.tried, b.tried, a.evaluated, b.evaluated)
		alone, spread = alone+a.tried, spread+b.tried
	}
	t.Logf("%d lists: %d attempts by one node, %d over two, %.2f times as many", *drillSeeds, alone, spread, float64(spread)/float64(alone))
	if float64(spread) > 1.2*float64(alone) {
		t.Errorf("two nodes needed %d attempts and one %d: want at most 20%% more", spread, alone)
	}

	// How far as fast as possible, which depends on the machine.
	seed := *drillSeeds
	for _, workers := range []int{1, 4} {
		a := one.attack(thief(seed), one.stolen(seed), workers, 0)
		b := two.attack(thief(seed), two.stolen(seed), workers, 0)
		t.Logf("%d workers as fast as they are answered: %d attempts reached the backend of one node, %d that of two", workers, a.evaluated, b.evaluated)
		seed++
	}
	for seed := range seed {
		one.decidedOnce(thief(seed))
		two.decidedOnce(thief(seed))
	}

	two.redis.Stop()
	c := two.attack(thief(seed), two.stolen(seed)[:40], 1, pace)
	t.Logf("without Redis: acted upon at attempt %d over two; %d reached the backend", c.tried, c.evaluated)
	two.decidedOnce(thief(seed))
	two.office(two.backend.people[380:])
}
