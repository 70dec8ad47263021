package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// hook is a receiver of webhooks.
type hook struct {
	*httptest.Server
	mu   sync.Mutex
	told []hookNotice // guarded by mu
}

type hookNotice struct {
	Type     string
	ID       string
	Repeated bool
	Data     map[string]string
	at       time.Time
}

var hookSecret = base64.StdEncoding.EncodeToString([]byte("a secret of at least 24 bytes"))

func newHook(t testing.TB) *hook {
	t.Helper()
	h := new(hook)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		n := hookNotice{at: time.Now()}
		if err := json.Unmarshal(body, &n); err != nil {
			t.Errorf("a webhook with the body %s: %v", body, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.told = append(h.told, n)
	}))
	t.Cleanup(h.Close)
	return h
}

// options are the lines that tell a node of the hook at url.
func (h *hook) options(url string) string {
	return fmt.Sprintf("webhook duty %s {\n\t\t\tsecret %s\n\t\t\tallow 127.0.0.0/8 10.77.0.0/24\n\t\t\tallow_plain\n\t\t}", url, hookSecret)
}

// of is what was told of a value, by type.
func (h *hook) of(value string) map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := make(map[string]int)
	for _, n := range h.told {
		if n.Data["value"] == value {
			count[n.Type]++
		}
	}
	return count
}

// exactly checks what was told of a value, by type. What is on its way is waited for.
func (h *hook) exactly(t testing.TB, value string, want map[string]int) {
	t.Helper()
	told := func() bool {
		got := h.of(value)
		for kind, n := range want {
			if got[kind] < n {
				return false
			}
		}
		return true
	}
	eventually(t, 20*time.Second, fmt.Sprintf("%s told as %v", value, want), told)
	if got := h.of(value); !maps.Equal(got, want) {
		t.Errorf("%s was told as %v, want %v", value, got, want)
	}
}

// eventually waits until ok, at most limit, and returns how long that took.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	deadline := time.After(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Errorf("after %v still not: %s", limit, what)
			return time.Since(began)
		case <-tick.C:
		}
	}
	return time.Since(began)
}

// TestBlockList walks the path of a block list over two nodes: registered on one,
// enforced on both, listed, extended, lifted, over in time. What one node changes
// the other hears of through Redis, or sees in the database.
func TestBlockList(t *testing.T) {
	for _, way := range []string{"announced", "polled"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			var redis []string
			if way == "announced" {
				redis = append(redis, "redis redis://"+storagetest.Redis(t).Addr())
			}
			b := newBlockList(t, way, storagetest.Postgres(t), redis...)
			b.walk()
			b.measure(50)
			b.notices()
		})
	}
}

// blockList is two nodes on one database, and a receiver of notices.
type blockList struct {
	t        *testing.T
	hook     *hook
	one, two *node
}

func newBlockList(t *testing.T, name, database string, options ...string) *blockList {
	t.Helper()
	backend, h := newTown(t, 50), newHook(t)
	options = append(options, "database "+database, h.options(h.URL))
	b := &blockList{t: t, hook: h, one: newNode(t, name+"-1", backend, options...), two: newNode(t, name+"-2", backend, options...)}
	b.one.start()
	shareKeys(t, b.one, b.two)
	b.two.start()
	return b
}

// met is what somebody from an address is answered.
func (b *blockList) met(n *node, address string) int {
	status, _, err := newVisitor(address).do(b.t.Context(), n, http.MethodGet, "/healthz", nil)
	if err != nil {
		b.t.Error(err)
	}
	return status
}

func (b *blockList) refused(address string) func() bool {
	return func() bool {
		return b.met(b.one, address) == http.StatusForbidden && b.met(b.two, address) == http.StatusForbidden
	}
}

func (b *blockList) free(address string) func() bool {
	return func() bool {
		return b.met(b.one, address) == http.StatusOK && b.met(b.two, address) == http.StatusOK
	}
}

// register registers a decision on the first node.
func (b *blockList) register(scope, value, ttl string) (id string, until time.Time) {
	b.t.Helper()
	status, body, err := b.one.call(http.MethodPost, "/v1/decisions", map[string]string{
		"scope": scope, "value": value, "action": "refuse", "ttl": ttl, "reason": "ticket 4711"})
	if err != nil || status != http.StatusCreated && status != http.StatusOK {
		b.t.Fatalf("registering %s: %d %s %v", value, status, body, err)
	}
	var d struct {
		ID    string
		Until time.Time
	}
	if err := json.Unmarshal(body, &d); err != nil {
		b.t.Fatal(err)
	}
	return d.ID, d.Until
}

// lift lifts a decision on the second node.
func (b *blockList) lift(id string) {
	b.t.Helper()
	if status, body, err := b.two.call(http.MethodDelete, "/v1/decisions/"+id, nil); err != nil || status >= 300 {
		b.t.Fatalf("lifting: %d %s %v", status, body, err)
	}
}

// walk walks the path.
func (b *blockList) walk() {
	t := b.t
	var slowest time.Duration // how long a change took to hold on both nodes
	within := func(took time.Duration) { slowest = max(slowest, took) }

	id, until := b.register("address", "203.0.113.7", "30s")
	within(eventually(t, 5*time.Second, "refused on both nodes", b.refused("203.0.113.7")))
	status, body, err := b.two.call(http.MethodGet, "/v1/decisions?address=203.0.113.7", nil)
	if err != nil || status != http.StatusOK || !strings.Contains(string(body), "ticket 4711") || !strings.Contains(string(body), `"drill"`) || !strings.Contains(string(body), id) {
		t.Errorf("the list does not say who, why and until when: %d %s %v", status, body, err)
	}
	if again, later := b.register("address", "203.0.113.7", "60s"); again != id || !later.After(until) {
		t.Errorf("registering again made %s until %s of %s until %s", again, later, id, until)
	}
	if again, later := b.register("address", "203.0.113.7", "1s"); again != id || later.Before(until.Add(20*time.Second)) {
		t.Errorf("registering for less time shortened it: %s until %s", again, later)
	}
	b.lift(id)
	within(eventually(t, 5*time.Second, "free on both nodes", b.free("203.0.113.7")))

	// A network and an address in it.
	address, _ := b.register("address", "203.0.113.8", "60s")
	within(eventually(t, 5*time.Second, "refused on both nodes", b.refused("203.0.113.8")))
	network, _ := b.register("network", "203.0.113.0/24", "60s")
	within(eventually(t, 5*time.Second, "refused on both nodes", b.refused("203.0.113.9")))
	b.lift(network)
	within(eventually(t, 5*time.Second, "the rest of the network free", b.free("203.0.113.9")))
	if !b.refused("203.0.113.8")() {
		t.Error("lifting the network lifted the address in it")
	}
	network, _ = b.register("network", "203.0.113.0/24", "60s")
	within(eventually(t, 5*time.Second, "refused by the network", b.refused("203.0.113.9")))
	b.lift(address)
	if !b.refused("203.0.113.8")() {
		t.Error("lifting the address opened it in spite of the network")
	}
	b.lift(network)
	within(eventually(t, 5*time.Second, "free on both nodes", b.free("203.0.113.8")))

	// Over on time: whoever cleans up runs each 10 s.
	_, until = b.register("address", "203.0.113.10", "1s")
	eventually(t, 5*time.Second, "refused on both nodes", b.refused("203.0.113.10"))
	eventually(t, 5*time.Second, "free on both nodes", b.free("203.0.113.10"))
	t.Logf("changes held on both nodes after %v at most; a decision was over %v late", slowest, time.Since(until))
}

// notices checks what was told of all that.
func (b *blockList) notices() {
	for value, count := range map[string]map[string]int{
		"203.0.113.7":    {"decision.registered": 1, "decision.extended": 1, "decision.lifted": 1},
		"203.0.113.8":    {"decision.registered": 1, "decision.lifted": 1},
		"203.0.113.0/24": {"decision.registered": 2, "decision.lifted": 2},
		"203.0.113.10":   {"decision.registered": 1, "decision.expired": 1},
	} {
		b.hook.exactly(b.t, value, count)
	}
}

// measure tells how long it takes from the answer of one node until the other
// refuses. Decisions come at any time, not in step with who looks for them.
func (b *blockList) measure(n int) {
	chance := rand.New(rand.NewPCG(1, 2))
	arrival := time.NewTimer(0)
	defer arrival.Stop()
	look := time.NewTicker(time.Millisecond) // all the time would cost the nodes their processor
	defer look.Stop()
	took := make([]time.Duration, n)
	for i := range took {
		<-arrival.C
		address := fmt.Sprintf("198.51.100.%d", 1+i)
		b.register("address", address, "5m")
		began := time.Now()
		for b.met(b.two, address) != http.StatusForbidden {
			if took[i] = time.Since(began); took[i] > 10*time.Second {
				b.t.Fatalf("%s is still free after %v", address, took[i])
			}
			<-look.C
		}
		took[i] = time.Since(began)
		arrival.Reset(time.Duration(chance.IntN(100)) * time.Millisecond)
	}
	slices.Sort(took)
	b.t.Logf("%d registrations: from the answer until the other node refused p50 %v, p90 %v, at most %v", n, took[n/2], took[n*9/10], took[n-1])
}

// shareKeys gives a new node the keyring of an installation.
func shareKeys(t testing.TB, from, to *node) {
	t.Helper()
	if err := os.MkdirAll(to.dir+"/data", 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := os.ReadFile(from.dir + "/data/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to.dir+"/data/keys.json", keys, 0o600); err != nil {
		t.Fatal(err)
	}
}
