package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
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
	return fmt.Sprintf("webhook duty %s {\n\t\t\tsecret %s\n\t\t\tallow 127.0.0.0/8\n\t\t\tallow_plain\n\t\t}", url, hookSecret)
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
// enforced on both, listed, extended, lifted, over in time.
func TestBlockList(t *testing.T) {
	ctx := t.Context()
	backend := newTown(t, 200)
	h := newHook(t)
	options := []string{"database " + storagetest.Postgres(t), h.options(h.URL)}
	one := newNode(t, "one", backend, options...)
	two := newNode(t, "two", backend, options...)
	one.start()
	shareKeys(t, one, two)
	two.start()

	met := func(n *node, address string) int {
		status, _, err := newVisitor(address).do(ctx, n, http.MethodGet, "/healthz", nil)
		if err != nil {
			t.Error(err)
		}
		return status
	}
	refused := func(address string) func() bool {
		return func() bool {
			return met(one, address) == http.StatusForbidden && met(two, address) == http.StatusForbidden
		}
	}
	free := func(address string) func() bool {
		return func() bool { return met(one, address) == http.StatusOK && met(two, address) == http.StatusOK }
	}
	register := func(scope, value, ttl string) (id string, until time.Time) {
		t.Helper()
		status, body, err := one.call(http.MethodPost, "/v1/decisions", map[string]string{
			"scope": scope, "value": value, "action": "refuse", "ttl": ttl, "reason": "ticket 4711"})
		if err != nil || status != http.StatusCreated && status != http.StatusOK {
			t.Fatalf("registering %s: %d %s %v", value, status, body, err)
		}
		var d struct {
			ID    string
			Until time.Time
		}
		if err := json.Unmarshal(body, &d); err != nil {
			t.Fatal(err)
		}
		return d.ID, d.Until
	}
	lift := func(id string) {
		t.Helper()
		if status, body, err := two.call(http.MethodDelete, "/v1/decisions/"+id, nil); err != nil || status >= 300 {
			t.Fatalf("lifting: %d %s %v", status, body, err)
		}
	}
	var slowest time.Duration // how long a change took to hold on both nodes
	within := func(took time.Duration) { slowest = max(slowest, took) }

	id, until := register("address", "203.0.113.7", "30s")
	within(eventually(t, 5*time.Second, "refused on both nodes", refused("203.0.113.7")))
	status, body, err := two.call(http.MethodGet, "/v1/decisions?address=203.0.113.7", nil)
	if err != nil || status != http.StatusOK || !strings.Contains(string(body), "ticket 4711") || !strings.Contains(string(body), `"drill"`) || !strings.Contains(string(body), id) {
		t.Errorf("the list does not say who, why and until when: %d %s %v", status, body, err)
	}
	if again, later := register("address", "203.0.113.7", "60s"); again != id || !later.After(until) {
		t.Errorf("registering again made %s until %s of %s until %s", again, later, id, until)
	}
	if again, later := register("address", "203.0.113.7", "1s"); again != id || later.Before(until.Add(20*time.Second)) {
		t.Errorf("registering for less time shortened it: %s until %s", again, later)
	}
	lift(id)
	within(eventually(t, 5*time.Second, "free on both nodes", free("203.0.113.7")))

	// A network and an address in it.
	address, _ := register("address", "203.0.113.8", "60s")
	within(eventually(t, 5*time.Second, "refused on both nodes", refused("203.0.113.8")))
	network, _ := register("network", "203.0.113.0/24", "60s")
	within(eventually(t, 5*time.Second, "refused on both nodes", refused("203.0.113.9")))
	lift(network)
	within(eventually(t, 5*time.Second, "the rest of the network free", free("203.0.113.9")))
	if !refused("203.0.113.8")() {
		t.Error("lifting the network lifted the address in it")
	}
	network, _ = register("network", "203.0.113.0/24", "60s")
	within(eventually(t, 5*time.Second, "refused by the network", refused("203.0.113.9")))
	lift(address)
	if !refused("203.0.113.8")() {
		t.Error("lifting the address opened it in spite of the network")
	}
	lift(network)
	within(eventually(t, 5*time.Second, "free on both nodes", free("203.0.113.8")))

	// Over on time: whoever cleans up runs each 10 s.
	_, until = register("address", "203.0.113.10", "1s")
	eventually(t, 5*time.Second, "refused on both nodes", refused("203.0.113.10"))
	eventually(t, 5*time.Second, "free on both nodes", free("203.0.113.10"))
	late := time.Since(until)
	eventually(t, 40*time.Second, "its expiry told", func() bool { return h.of("203.0.113.10")["decision.expired"] == 1 })

	t.Logf("changes held on both nodes after %v at most; a decision was over %v late", slowest, late)

	want := map[string]map[string]int{
		"203.0.113.7":    {"decision.registered": 1, "decision.extended": 1, "decision.lifted": 1},
		"203.0.113.8":    {"decision.registered": 1, "decision.lifted": 1},
		"203.0.113.0/24": {"decision.registered": 2, "decision.lifted": 2},
		"203.0.113.10":   {"decision.registered": 1, "decision.expired": 1},
	}
	for value, count := range want {
		if got := h.of(value); fmt.Sprint(got) != fmt.Sprint(count) {
			t.Errorf("%s was told as %v, want %v", value, got, count)
		}
	}
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
