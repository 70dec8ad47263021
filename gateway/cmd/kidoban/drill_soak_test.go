package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

var drillSoak = flag.Duration("drill.soak", 8*time.Second, "how long the soak drill works two nodes")

// TestSoak works two nodes that share PostgreSQL and Redis with log-ins, requests,
// log-outs, wrong passwords, decisions and reloads, and sees that goroutines and
// descriptors stay as many as they are.
func TestSoak(t *testing.T) {
	backend := newTown(t, 400)
	// Rules only watch: who logs in and who attacks are one program here.
	options := []string{"database " + storagetest.Postgres(t), "redis redis://" + storagetest.Redis(t).Addr(), "mode decisions observe"}
	one, two := newNode(t, "one", backend, options...), newNode(t, "two", backend, options...)
	nodes := []*node{one, two}
	one.start()
	shareKeys(t, one, two)
	two.start()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var logins, wrong, acts, cut, unexpected atomic.Int64
	var last atomic.Value
	note := func(what string, status int, err error, want ...int) {
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			cut.Add(1) // in the moment of a reload, see TestReload
			return
		}
		if ctx.Err() == nil && (err != nil || !slices.Contains(want, status)) {
			unexpected.Add(1)
			last.Store(fmt.Sprintf("%s: %d %v", what, status, err))
		}
	}
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() { // people
			for i := 0; ctx.Err() == nil; i++ {
				v := newVisitor(fmt.Sprintf("198.18.%d.%d", w, i%250+1))
				n := nodes[(w+i)%2]
				status, err := v.login(ctx, n, backend.people[(w*100+i)%len(backend.people)])
				note("log-in", status, err, http.StatusOK, http.StatusTooManyRequests)
				logins.Add(1)
				if err != nil || status != http.StatusOK {
					continue
				}
				for k := range 4 {
					status, err := v.me(ctx, nodes[(i+k)%2])
					note("request", status, err, http.StatusOK)
				}
				if i%2 == 0 {
					status, _, err := v.do(ctx, n, http.MethodPost, "/logout", nil)
					note("log-out", status, err, http.StatusOK, http.StatusNoContent, http.StatusSeeOther)
				}
			}
		})
	}
	workers.Go(func() { // an attacker
		for i := 0; ctx.Err() == nil; i++ {
			v := newVisitor(fmt.Sprintf("203.0.%d.%d", i/200%100, i%200+1))
			status, err := v.try(ctx, nodes[i%2], fmt.Sprintf("nobody%d@list.example", i), "stolen")
			note("wrong password", status, err, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests)
			wrong.Add(1)
		}
	})
	workers.Go(func() { // an operator, and somebody who edits the configuration
		for i := 0; ctx.Err() == nil; i++ {
			n := nodes[i%2]
			status, _, err := n.call(http.MethodPost, "/v1/decisions", map[string]string{
				"scope": "address", "value": fmt.Sprintf("192.0.2.%d", i%200+1), "action": "refuse", "ttl": "1s", "reason": "soak"})
			note("registration", status, err, http.StatusCreated, http.StatusOK)
			acts.Add(1)
			if i%50 == 49 {
				if out, err := n.reload(); err != nil && ctx.Err() == nil {
					t.Errorf("reload: %v\n%s", err, out)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})

	type sample struct{ goroutines, descriptors int }
	samples := make([][]sample, len(nodes))
	every := max(*drillSoak/60, 200*time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < *drillSoak; {
		<-tick.C
		for i, n := range nodes {
			samples[i] = append(samples[i], sample{goroutines(t, n), descriptors(t, n)})
		}
	}
	stop()
	workers.Wait()
	if n := unexpected.Load(); n > 0 {
		t.Errorf("%d unexpected answers, the last %v", n, last.Load())
	}
	for i, n := range nodes {
		// The first quarter fills pools and caches; from then on nothing may grow.
		of := func(from, to int, what func(sample) int) (most int) {
			for _, s := range samples[i][len(samples[i])*from/4 : len(samples[i])*to/4] {
				most = max(most, what(s))
			}
			return most
		}
		g := func(s sample) int { return s.goroutines }
		d := func(s sample) int { return s.descriptors }
		t.Logf("%s: goroutines at most %d %d %d %d, descriptors %d %d %d %d by quarters", n.name,
			of(0, 1, g), of(1, 2, g), of(2, 3, g), of(3, 4, g), of(0, 1, d), of(1, 2, d), of(2, 3, d), of(3, 4, d))
		if before, after := of(1, 2, g), of(3, 4, g); after > before+before/4+20 {
			t.Errorf("%s: goroutines grow from %d to %d", n.name, before, after)
		}
		if before, after := of(1, 2, d), of(3, 4, d); after > before+before/4+20 {
			t.Errorf("%s: descriptors grow from %d to %d", n.name, before, after)
		}
	}
	t.Logf("%v: %d log-ins, %d wrong passwords, %d registrations; reloads cut off %d requests", *drillSoak, logins.Load(), wrong.Load(), acts.Load(), cut.Load())
}

var goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)

// goroutines is how many a node has.
func goroutines(t testing.TB, n *node) int {
	t.Helper()
	admin := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", n.dir+"/admin.sock")
	}}}
	resp, err := admin.Get("http://admin/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	found := goroutineTotal.FindSubmatch(text)
	if err != nil || found == nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	total, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// descriptors is how many files a node has open.
func descriptors(t testing.TB, n *node) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
