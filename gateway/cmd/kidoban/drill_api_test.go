package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// TestBlockListClients walks the path of a block list with programs that people
// have, Postman's runner and curl, which sign as for AWS: over two nodes.
func TestBlockListClients(t *testing.T) {
	t.Parallel()
	// Looked for first, so that a skipped test costs nothing.
	newman, curl := tool(t, "newman", "../../../.ci/cache/node_modules/.bin/newman"), tool(t, "curl")
	database := storagetest.Postgres(t)
	c := &clients{
		blockList: newBlockList(t, "clients", database, "redis redis://"+storagetest.Redis(t).Addr()),
		newman:    newman, curl: curl, database: database,
	}
	c.byNewman()
	c.byCurl()
	c.forbidden()
	c.overInTime()
}

// tool finds a program. Where it is missing the test is skipped, but not in CI.
func tool(t *testing.T, name string, places ...string) string {
	t.Helper()
	for _, place := range places {
		if path, err := filepath.Abs(place); err == nil {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: .ci/run installs it", name)
		}
		t.Skipf("%s is not installed: %v", name, err)
	}
	return path
}

type clients struct {
	*blockList
	newman, curl, database string
}

// tool runs a program and returns what it said.
func (c *clients) tool(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	return string(out), err
}

// byNewman runs the collection against one node, while both are watched.
func (c *clients) byNewman() {
	t := c.t
	const address = "203.0.113.7" // the collection's
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	seen := make([][]change, 2)
	for i, n := range []*node{c.one, c.two} {
		watching.Go(func() { seen[i] = watch(ctx, n, address) })
	}
	out, err := c.tool(c.newman, "run", "../../api/testdata/blocklist.postman_collection.json", "--color", "off", "--bail",
		"--delay-request", "250", "--env-var", "base=http://"+c.one.operators,
		"--env-var", "access_key="+drillAccessKey, "--env-var", "secret_key="+drillSecret, "--env-var", "service=execute-api")
	if err != nil {
		t.Errorf("newman: %v\n%s", err, out)
	}
	eventually(t, 5*time.Second, "free on both nodes", c.free(address))
	stop()
	watching.Wait()
	if err != nil {
		return
	}

	status, body, err := c.two.call(http.MethodGet, "/v1/decisions?state=ended&address="+address, nil)
	var page struct {
		Decisions []struct{ Created, Lifted time.Time }
	}
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &page) != nil || len(page.Decisions) != 1 {
		t.Fatalf("want one decision that newman made: %d %s %v", status, body, err)
	}
	made := page.Decisions[0]
	for i, changes := range seen {
		var statuses []int
		for _, c := range changes {
			statuses = append(statuses, c.status)
		}
		if !slices.Equal(statuses, []int{200, 403, 200}) {
			t.Errorf("node %d answered %v in turn, want that %s is refused and free again", i+1, statuses, address)
			continue
		}
		t.Logf("newman, node %d: refused %v after it was registered, free %v after it was lifted", i+1, changes[1].at.Sub(made.Created), changes[2].at.Sub(made.Lifted))
	}
	c.hook.exactly(t, address, map[string]int{"decision.registered": 1, "decision.extended": 1, "decision.lifted": 1})

	out, err = c.tool(c.newman, "run", "../../api/testdata/blocklist.postman_collection.json", "--color", "off", "--folder", "register",
		"--env-var", "base=http://"+c.two.operators, "--env-var", "access_key="+drillAccessKey, "--env-var", "secret_key=wrong")
	if err == nil || !strings.Contains(out, "403") {
		t.Errorf("newman with a wrong secret: %v\n%s", err, out)
	}
}

// change is an answer that differs from the one before.
type change struct {
	status int
	at     time.Time
}

// watch asks a node again and again from an address until ctx ends.
func watch(ctx context.Context, n *node, address string) (changes []change) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		status, _, err := newVisitor(address).do(ctx, n, http.MethodGet, "/healthz", nil)
		if err == nil && (len(changes) == 0 || changes[len(changes)-1].status != status) {
			changes = append(changes, change{status, time.Now()})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return changes
}

// ask runs curl and returns the status and the JSON that it got.
func (c *clients) ask(args ...string) (status string, body map[string]any) {
	c.t.Helper()
	out, err := c.tool(c.curl, append([]string{"--silent", "--show-error", "--noproxy", "*", "--write-out", "\n%{http_code}"}, args...)...)
	if err != nil {
		c.t.Fatalf("curl %q: %v %s", args, err, out)
	}
	i := strings.LastIndexByte(out, '\n')
	if i > 0 {
		if err := json.Unmarshal([]byte(out[:i]), &body); err != nil {
			c.t.Fatalf("curl %q: %q is not JSON: %v", args, out, err)
		}
	}
	return out[i+1:], body
}

// signed is ask with a signature.
func (c *clients) signed(args ...string) (status string, body map[string]any) {
	c.t.Helper()
	return c.ask(append([]string{"--aws-sigv4", "aws:amz:ap-northeast-1:kidoban", "--user", drillAccessKey + ":" + drillSecret}, args...)...)
}

// posted are the arguments that register a decision at a base.
func posted(base, scope, value, ttl string) []string {
	body, _ := json.Marshal(map[string]string{"scope": scope, "value": value, "ttl": ttl, "reason": "list attack"}) // strings
	return []string{"--header", "Content-Type: application/json", "--data", string(body), base + "/v1/decisions"}
}

// post registers a decision on a node, which answers with a status.
func (c *clients) post(n *node, scope, value, ttl, want string) map[string]any {
	c.t.Helper()
	status, d := c.signed(posted("http://"+n.operators, scope, value, ttl)...)
	if status != want {
		c.t.Errorf("%s: register %s %s for %s = %s %v, want %s", n.name, scope, value, ttl, status, d, want)
	}
	return d
}

// delete lifts a decision on a node.
func (c *clients) delete(n *node, d map[string]any) {
	c.t.Helper()
	id, _ := d["id"].(string)
	if status, lifted := c.signed("--request", "DELETE", "http://"+n.operators+"/v1/decisions/"+id); status != "200" || lifted["lifted_by"] != "alice" {
		c.t.Errorf("%s: lift = %s %v", n.name, status, lifted)
	}
}

// byCurl registers, lists, extends and lifts, each on another node than the last.
func (c *clients) byCurl() {
	t := c.t
	const address = "198.51.100.7"
	made := c.post(c.one, "address", address, "30s", "201")
	took := eventually(t, 5*time.Second, "refused on both nodes", c.refused(address))
	for _, query := range []string{"?address=" + address + "&state=live", "?state=live&address=" + address} { // curl 7.88 does not sort
		status, list := c.signed("http://" + c.two.operators + "/v1/decisions" + query)
		found, _ := list["decisions"].([]any)
		if status != "200" || len(found) != 1 {
			t.Fatalf("list%s = %s %v", query, status, list)
		}
		if d := found[0].(map[string]any); d["by"] != "alice" || d["reason"] != "list attack" || d["until"] != made["until"] || d["id"] != made["id"] {
			t.Errorf("the list does not say who, why and until when: %v", d)
		}
	}
	if d := c.post(c.two, "address", address, "60s", "200"); d["id"] != made["id"] || d["until"].(string) <= made["until"].(string) {
		t.Errorf("registering again made %v of %v", d, made)
	}
	if status, d := c.signed("http://" + c.one.operators + "/v1/decisions/" + made["id"].(string)); status != "200" || d["until"].(string) <= made["until"].(string) {
		t.Errorf("get on the other node = %s %v, want it extended", status, d)
	}
	c.delete(c.one, made)
	took = max(took, eventually(t, 5*time.Second, "free on both nodes", c.free(address)))
	t.Logf("curl: changes held on both nodes after %v at most", took)
	c.hook.exactly(t, address, map[string]int{"decision.registered": 1, "decision.extended": 1, "decision.lifted": 1})

	// A network of one address and one of many.
	const narrow, broad, inside, beside = "198.51.100.8/32", "198.51.100.0/24", "198.51.100.8", "198.51.100.9"
	one, many := c.post(c.one, "network", narrow, "60s", "201"), c.post(c.two, "network", broad, "60s", "201")
	eventually(t, 5*time.Second, "all of the network refused", c.refused(beside))
	c.delete(c.one, many)
	eventually(t, 5*time.Second, "the rest of the network free", c.free(beside))
	if !c.refused(inside)() {
		t.Error("lifting the network opened the address in it")
	}
	many = c.post(c.one, "network", broad, "60s", "201")
	eventually(t, 5*time.Second, "all of the network refused", c.refused(beside))
	c.delete(c.two, one)
	eventually(t, 5*time.Second, "the address gone from both lists", func() bool {
		for _, n := range []*node{c.one, c.two} {
			if _, list := c.signed("http://" + n.operators + "/v1/decisions?state=live&address=" + inside); len(list["decisions"].([]any)) != 1 {
				return false
			}
		}
		return true
	})
	if !c.refused(inside)() {
		t.Error("lifting the address opened it in spite of the network")
	}
	c.delete(c.two, many)
	eventually(t, 5*time.Second, "all of the network free", c.free(inside))
	c.hook.exactly(t, narrow, map[string]int{"decision.registered": 1, "decision.lifted": 1})
	c.hook.exactly(t, broad, map[string]int{"decision.registered": 2, "decision.lifted": 2})

	if status, p := c.signed(posted("http://"+c.one.operators, "network", "198.51.100.0/33", "30s")...); status != "422" || !names(p, "#/value") {
		t.Errorf("bad prefix = %s %v, want 422 and the field", status, p)
	}
	if status, p := c.signed("--data", "scope=address&value=198.51.100.7", "http://"+c.two.operators+"/v1/decisions"); status != "415" {
		t.Errorf("not JSON = %s %v", status, p)
	}
}

// names reports whether a problem names a field.
func names(problem map[string]any, pointer string) bool {
	faults, _ := problem["errors"].([]any)
	return slices.ContainsFunc(faults, func(f any) bool {
		fault, _ := f.(map[string]any)
		return fault["pointer"] == pointer
	})
}

// forbidden sends what must not be acted on, or not again: unsigned, wrongly
// signed, changed on the way, repeated at the same node and at the other.
func (c *clients) forbidden() {
	t := c.t
	base := "http://" + c.one.operators
	const victim = "198.51.100.20"
	for name, args := range map[string][]string{
		"unsigned":        nil,
		"wrong secret":    {"--aws-sigv4", "aws:amz:ap-northeast-1:kidoban", "--user", drillAccessKey + ":wrong"},
		"unknown key":     {"--aws-sigv4", "aws:amz:ap-northeast-1:kidoban", "--user", "AKIDNOBODY:" + drillSecret},
		"another service": {"--aws-sigv4", "aws:amz:ap-northeast-1:s3", "--user", drillAccessKey + ":" + drillSecret},
		"old date":        {"--aws-sigv4", "aws:amz:ap-northeast-1:kidoban", "--user", drillAccessKey + ":" + drillSecret, "--header", "X-Amz-Date: 20200101T000000Z"},
	} {
		if status, p := c.ask(append(args, posted(base, "address", victim, "30s")...)...); status != "403" {
			t.Errorf("%s = %s %v, want 403", name, status, p)
		}
	}

	type plan struct {
		change func(*http.Request) // to what curl sent
		to     []*node             // where it goes, in turn
	}
	plans, answers := make(chan plan, 1), make(chan []int, 1)
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			t.Error(err)
		}
		var statuses []int
		p := <-plans
		for _, n := range p.to {
			again := r.Clone(r.Context()) // with the name of the host that was signed
			again.RequestURI, again.URL.Scheme, again.URL.Host = "", "http", n.operators
			again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			if p.change != nil {
				p.change(again)
			}
			resp, err := operatorClient.Do(again)
			if err != nil {
				t.Error(err)
				continue
			}
			resp.Body.Close()
			statuses = append(statuses, resp.StatusCode)
		}
		answers <- statuses
		w.WriteHeader(http.StatusNoContent)
	}))
	defer between.Close()
	for _, test := range []struct {
		name, value string
		plan        plan
		want        []int
	}{
		{"repeated", "198.51.100.21", plan{nil, []*node{c.one, c.two, c.one}}, []int{201, 403, 403}},
		{"another body", "198.51.100.22", plan{func(r *http.Request) {
			body, _ := io.ReadAll(r.Body) // from memory
			r.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte("198.51.100.22"), []byte(victim), 1)))
		}, []*node{c.two}}, []int{403}},
		{"another path", victim, plan{func(r *http.Request) { r.URL.Path = "/v1/decisions/" }, []*node{c.two}}, []int{403}},
		{"another query", victim, plan{func(r *http.Request) { r.URL.RawQuery = "force=1" }, []*node{c.two}}, []int{403}},
	} {
		plans <- test.plan
		c.signed(posted(between.URL, "address", test.value, "30s")...)
		if got := <-answers; !slices.Equal(got, test.want) {
			t.Errorf("%s was answered %v, want %v", test.name, got, test.want)
		}
	}
	if status, list := c.signed(base + "/v1/decisions?address=" + victim); status != "200" || len(list["decisions"].([]any)) != 0 {
		t.Errorf("what was forbidden was done: %s %v", status, list)
	}
	c.hook.exactly(t, "198.51.100.21", map[string]int{"decision.registered": 1})
	c.hook.exactly(t, victim, map[string]int{})
}

// overInTime holds up everybody who would clean up. A decision is over all the
// same. Then all clean up at once, and it is told once.
func (c *clients) overInTime() {
	t := c.t
	const address = "198.51.100.30"
	made := c.post(c.one, "address", address, "2s", "201")
	until, err := time.Parse(time.RFC3339Nano, made["until"].(string))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "refused on both nodes", c.refused(address))

	db, err := sql.Open("pgx", c.database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	hold, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Rollback()
	// Whoever changes decisions changes this row first.
	if _, err := hold.ExecContext(t.Context(), `SELECT revision FROM decisions_revision FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "free on both nodes", c.free(address))
	t.Logf("a decision was over %v late on both nodes, with the sweepers held up", time.Since(until))
	waiting := func() (n int) {
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	eventually(t, 30*time.Second, "a sweeper waiting", func() bool { return waiting() > 0 })
	c.hook.exactly(t, address, map[string]int{"decision.registered": 1})
	// The other comes within 5 s, before this one gives up, if the nodes were started
	// as close to each other.
	most := 1
	for most == 1 && waiting() > 0 {
		<-tick.C
		most = max(most, waiting())
	}
	if err := hold.Rollback(); err != nil {
		t.Error(err)
	}
	t.Logf("%d sweepers waited at once", most)
	c.hook.exactly(t, address, map[string]int{"decision.registered": 1, "decision.expired": 1})
}
