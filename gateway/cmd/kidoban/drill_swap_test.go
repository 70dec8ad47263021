package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// swapRule is a rule file of the drill: the i-th, as of a turn; a bad one does not check.
func swapRule(i, turn int, bad bool) []byte {
	text := strings.NewReplacer("drill.many-failures", fmt.Sprintf("drill.n%d", i), "failed >= 5000", "failed >= 3",
		"repeat: 3,", "repeat: 2,", "repeat: 5001,", "repeat: 3,", "within: 10m", fmt.Sprintf("within: %dm", 10+i%10)).Replace(goodRule)
	if bad {
		text = strings.Replace(text, "severity: low", "severity: lowest", 1)
	}
	return fmt.Appendf(nil, "# %d\n%s", turn, text)
}

func swapFile(i int) string { return fmt.Sprintf("n%04d.yaml", i) }

// TestOneBadFile changes many rule files of a gate, one of them into a bad one: the others
// are in force, and of that one the last good version is, also after the gate lost its
// power and started again. While no version can be kept, rules are in force all the same,
// and the gate says so.
func TestOneBadFile(t *testing.T) {
	const many, bad = 40, 7
	dir := filepath.Join(t.TempDir(), "rules")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(turn int, withBad bool) {
		t.Helper()
		for i := range many {
			if err := os.WriteFile(filepath.Join(dir, swapFile(i)), swapRule(i, turn, withBad && i == bad), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	generation := func(i, turn int) string { return fmt.Sprintf("%x", sha256.Sum256(swapRule(i, turn, false))) }
	n := newNode(t, "swap", newTown(t, 12), "rules "+dir)

	// awaits waits until all rules are of a turn, but the bad one of another, and health
	// tells a fault with certain words; "": none of the rules' files.
	awaits := func(turn, ofBad int, fault string) {
		t.Helper()
		wrong := "nothing was looked at"
		late := time.After(30 * time.Second)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("turn %d: %s\n%s", turn, wrong, n.said())
			}
			_, health, err := n.call(http.MethodGet, "/v1/health", nil)
			if err != nil {
				wrong = err.Error()
				continue
			}
			if told := strings.Contains(string(health), fault); !told || fault == "" && (strings.Contains(string(health), ".yaml") || strings.Contains(string(health), "remembered")) {
				wrong = fmt.Sprintf("want fault %q of %s", fault, health)
				continue
			}
			wrong = ""
			for i := range many {
				want := turn
				if i == bad {
					want = ofBad
				}
				_, body, err := n.call(http.MethodGet, fmt.Sprintf("/v1/rules/drill.n%d", i), nil)
				if err != nil || !strings.Contains(string(body), generation(i, want)) {
					wrong = fmt.Sprintf("rule %d is not of turn %d: %s %v", i, want, body, err)
					break
				}
			}
			if wrong == "" {
				return
			}
		}
	}
	stays := swapFile(bad) + ":4:11: severity: unknown value \\\"lowest\\\""
	write(0, false)
	n.start()
	awaits(0, 0, "")
	write(1, true)
	awaits(1, 0, stays)
	awaits(1, 0, fmt.Sprintf("its version %.12s stays in force", generation(bad, 0)))
	n.kill()
	n.start()
	awaits(1, 0, stays)
	write(2, false)
	awaits(2, 2, "")

	// Where versions are kept is no folder any more.
	good := filepath.Join(n.dir, "data", "good", "rules")
	if err := os.Rename(good, good+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(good, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	write(3, false)
	awaits(3, 3, "what is in force is not all remembered for the day it goes bad")
}

// BenchmarkSwap changes a thousand rule files at once, one of them into a bad one, under
// a gate that people work through, and says what they felt: the slowest of a thousand
// requests in quiet and while rules are read, tested and swapped. Quiet and swap take
// turns, so that both see the same machine; the figures are of all turns together, and
// the median of the swaps.
func BenchmarkSwap(b *testing.B) {
	ctx := b.Context()
	backend := newTown(b, 50)
	dir := filepath.Join(b.TempDir(), "rules")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	write := func(turn int) {
		for i := range 1000 {
			if err := os.WriteFile(filepath.Join(dir, swapFile(i)), swapRule(i, turn, i == 500 && turn%2 == 1), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	write(0)
	n := newNode(b, "swap", backend, "rules "+dir, "limit much {\n\t\t\tkey account\n\t\t\trate 100000/1h\n\t\t\troutes other\n\t\t}")
	n.activate()
	begun := time.Now()
	n.start()
	b.ReportMetric(time.Since(begun).Seconds(), "s/start")

	visitors := make([]*visitor, len(backend.people))
	for i, p := range backend.people {
		visitors[i] = newVisitor(fmt.Sprintf("198.51.100.%d", i+1))
		if status, err := visitors[i].login(ctx, n, p); err != nil || status != http.StatusOK {
			b.Fatalf("log-in %d: %d %v", i, status, err)
		}
	}
	// during sends 200 requests a second until what returns and for five seconds at
	// least, and returns how long each took.
	during := func(what func()) []time.Duration {
		var mu sync.Mutex
		var took []time.Duration
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
					asked := time.Now()
					status, _, err := visitors[i%len(visitors)].do(ctx, n, http.MethodGet, "/v2/rooms", nil)
					if err != nil || status != http.StatusOK {
						b.Errorf("a request: %d %v", status, err)
					}
					mu.Lock()
					took = append(took, time.Since(asked))
					mu.Unlock()
				}
			})
		}
		long := time.NewTimer(5 * time.Second)
		what()
		<-long.C
		rest()
		workers.Wait()
		return took
	}
	slowest := func(when string, took []time.Duration) time.Duration {
		slices.Sort(took)
		b.Logf("%s: %d requests: half within %v, 99%% within %v, 99.9%% within %v, all within %v", when, len(took),
			took[len(took)/2], took[len(took)*99/100], took[len(took)*999/1000], took[len(took)-1])
		return took[len(took)*999/1000]
	}
	awaits := func(turn int) {
		for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
			_, body, err := n.call(http.MethodGet, "/v1/health", nil)
			if bad := strings.Contains(string(body), "n0500.yaml:4:"); err == nil && bad == (turn%2 == 1) {
				return
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
	var quiet, busy, swaps []time.Duration
	turn := 0
	for b.Loop() {
		quiet = append(quiet, during(func() {})...)
		turn++
		busy = append(busy, during(func() {
			write(turn)
			begun := time.Now()
			awaits(turn)
			swaps = append(swaps, time.Since(begun))
		})...)
	}
	more := slowest("while rules are swapped", busy) - slowest("in quiet", quiet)
	slices.Sort(swaps)
	b.Logf("from the last write until the new rules are in force: %v", swaps)
	b.ReportMetric(float64(more.Microseconds())/1000, "ms-p99.9-more")
	b.ReportMetric(swaps[len(swaps)/2].Seconds(), "s/swap")
}
