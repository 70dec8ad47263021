package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// goodRule is a rule file of an installation's own.
const goodRule = `id: drill.many-failures
title: One address fails often
severity: low
owner: drill
reason: a drill
review_by: 2030-01-01
count:
  failed: {count: events, by: source.network, within: 10m, where: 'outcome == "failure"'}
on: login.after
when: failed >= 5000
then:
  - decide: {scope: source.network, action: step_up, for: 30m}
mode: enforce
tests:
  - name: a few do not match
    given: [{repeat: 3, every: 1s, source: 203.0.113.7, name: "user{n}@acme.example", outcome: failure}]
    expect: none
  - name: very many do
    given: [{repeat: 5001, every: 10ms, source: 203.0.113.7, name: "user{n}@acme.example", outcome: failure}]
    expect: {action: step_up, scope: source.network}
`

// TestReload reloads a gate that people work through, three times with something
// broken, and nobody notices.
func TestReload(t *testing.T) {
	ctx := t.Context()
	backend := newTown(t, 200)
	dir := t.TempDir()
	rules, own := filepath.Join(dir, "rules"), filepath.Join(dir, "policies")
	for _, dir = range []string{rules, filepath.Join(own, "backends")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	preset, err := os.ReadFile("../../../policies/backends/chatcore.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rule, backendFile := filepath.Join(rules, "drill.yaml"), filepath.Join(own, "backends", "chatcore.yaml")
	write(rule, goodRule)
	write(backendFile, string(preset))
	options := []string{
		"rules " + rules, "policies " + own,
		"limit few {\n\t\t\tkey account\n\t\t\trate 200/1h\n\t\t\troutes other\n\t\t}",
	}
	n := newNode(t, "reload", backend, options...)
	n.activate()
	n.start()

	// A decision and a counter that must outlive the reloads.
	status, body, err := n.call(http.MethodPost, "/v1/decisions", map[string]string{
		"scope": "address", "value": "203.0.113.99", "action": "refuse", "ttl": "1h", "reason": "drill"})
	if err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s %v", status, body, err)
	}
	blocked := newVisitor("203.0.113.99")

	const sockets = 50
	var closed atomic.Int64
	var open sync.WaitGroup
	leave := make(chan struct{})
	visitors := make([]*visitor, sockets)
	conns := make([]*websocket.Conn, sockets)
	for i := range sockets {
		v := newVisitor(fmt.Sprintf("198.51.100.%d", i+1))
		if status, err := v.login(ctx, n, backend.people[i]); err != nil || status != http.StatusOK {
			t.Fatalf("log-in %d: %d %v", i, status, err)
		}
		visitors[i] = v
		r, _ := http.NewRequest(http.MethodGet, "http://"+n.site, nil)
		v.dress(r)
		conn, _, err := websocket.Dial(ctx, "ws://"+n.site+"/events/ws", &websocket.DialOptions{HTTPHeader: r.Header})
		if err != nil {
			t.Fatalf("socket %d: %v", i, err)
		}
		open.Go(func() {
			for {
				if _, _, err := conn.Read(ctx); err != nil {
					select {
					case <-leave:
					default:
						closed.Add(1)
					}
					return
				}
			}
		})
		conns[i] = conn
		defer conn.CloseNow()
	}

	// 200 requests a second by people who are logged in.
	//
	// Go's server lets go of a connection on which no request came before it shut
	// down, and a request that is on its way then gets no answer. A client repeats
	// what is idempotent once (RFC 9110 section 9.2.2), which is counted apart.
	var asked, failed, repeated atomic.Int64
	var firstFailure atomic.Value
	work, rest := context.WithCancel(ctx)
	var workers sync.WaitGroup
	for w := range 10 {
		workers.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for i := w; ; i += 10 {
				select {
				case <-work.Done():
					return
				case <-tick.C:
				}
				v := visitors[i%sockets]
				r, _ := http.NewRequest(http.MethodGet, "http://"+n.site+"/v2/rooms", nil)
				v.dress(r)
				resp, err := visitorClient.Do(r)
				if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
					repeated.Add(1)
					resp, err = visitorClient.Do(r)
				}
				asked.Add(1)
				switch {
				case err != nil:
					failed.Add(1)
					firstFailure.CompareAndSwap(nil, err.Error())
				default:
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						failed.Add(1)
						firstFailure.CompareAndSwap(nil, resp.Status)
					}
				}
			}
		})
	}

	faults := func() string {
		status, body, err := n.call(http.MethodGet, "/v1/health", nil)
		if err != nil || status != http.StatusOK {
			t.Errorf("health: %d %s %v", status, body, err)
		}
		return string(body)
	}
	// Somebody who has used up a limit.
	spender := newVisitor("198.51.100.200")
	if status, err := spender.login(ctx, n, backend.people[sockets]); err != nil || status != http.StatusOK {
		t.Fatalf("log-in: %d %v", status, err)
	}
	spent := func() bool {
		status, _, err := spender.do(ctx, n, http.MethodGet, "/v2/rooms", nil)
		return err == nil && status == http.StatusTooManyRequests
	}
	for range 200 {
		if spent() {
			t.Fatal("a limit of 200 was used up before")
		}
	}

	for i := range 10 {
		switch i {
		case 3: // a broken Caddyfile is refused
			n.configure(append(append([]string(nil), options...), "no_such_option")...)
			out, err := n.reload()
			if err == nil || !strings.Contains(string(out), "no_such_option") || !strings.Contains(string(out), "Caddyfile:") {
				t.Errorf("a broken Caddyfile: %v\n%s", err, out)
			}
			n.configure(options...)
			continue
		case 5: // a broken rule is left out, and its last good version stays
			write(rule, strings.Replace(goodRule, "severity: low", "severity: lowest", 1))
		case 6:
			write(rule, goodRule)
		case 7: // a broken preset
			write(backendFile, strings.Replace(string(preset), "class: login,", "class: logon,", 1))
		case 8:
			write(backendFile, string(preset))
		}
		if out, err := n.reload(); err != nil {
			t.Errorf("reload %d: %v\n%s", i, err, out)
		}
		switch told := faults(); i {
		case 5:
			if !strings.Contains(told, "drill.yaml") || !strings.Contains(told, "severity") {
				t.Errorf("a broken rule is not told: %s", told)
			}
		case 7:
			if !strings.Contains(told, "chatcore.yaml") || !strings.Contains(told, "logon") {
				t.Errorf("a broken preset is not told: %s", told)
			}
		default:
			if strings.Contains(told, ".yaml") {
				t.Errorf("after reload %d: %s", i, told)
			}
		}
		so := asked.Load()
		eventually(t, 20*time.Second, "requests between reloads", func() bool { return asked.Load() >= so+100 })
		if status, err := blocked.me(ctx, n); err != nil || status != http.StatusForbidden {
			t.Errorf("reload %d: an address with a decision got %d %v", i, status, err)
		}
		if !spent() {
			t.Errorf("reload %d: a limit that was used up is not any more", i)
		}
	}
	rest()
	workers.Wait()
	close(leave)
	for _, conn := range conns {
		conn.CloseNow()
	}
	open.Wait()
	if n := closed.Load(); n > 0 {
		t.Errorf("%d of %d sockets were closed", n, sockets)
	}
	if failed.Load() > 0 || asked.Load() < 200 {
		t.Errorf("%d of %d requests failed, first %v", failed.Load(), asked.Load(), firstFailure.Load())
	}
	t.Logf("10 reloads under %d requests, of which %d were repeated, and %d sockets", asked.Load(), repeated.Load(), sockets)
	// Files are noticed without a reload as well.
	settled := func(what string, ok func(string) bool) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			status, body, err := n.call(http.MethodGet, "/v1/health", nil)
			if err == nil && status == http.StatusOK && ok(string(body)) {
				return
			}
			select {
			case <-deadline:
				t.Fatalf("%s: %s", what, body)
			case <-tick.C:
			}
		}
	}
	write(rule, "id: broken\nnonsense: true\n")
	settled("a rule broken without a reload", func(told string) bool {
		return strings.Contains(told, "drill.yaml") && strings.Contains(told, "nonsense")
	})
	write(rule, goodRule)
	settled("the rule mended without a reload", func(told string) bool { return !strings.Contains(told, "drill.yaml") })
	write(backendFile, "name: chatcore\n")
	settled("a preset broken without a reload", func(told string) bool { return strings.Contains(told, "chatcore.yaml") })
	write(backendFile, string(preset))
	settled("the preset mended without a reload", func(told string) bool { return !strings.Contains(told, "chatcore.yaml") })
	var health struct{ Status string }
	_, body, _ = n.call(http.MethodGet, "/v1/health", nil)
	if err := json.Unmarshal(body, &health); err != nil || health.Status != "ok" {
		t.Errorf("at the end: %s", body)
	}
}
