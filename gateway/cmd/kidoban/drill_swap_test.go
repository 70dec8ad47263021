package main

import (
	"context"
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
			text := strings.NewReplacer("drill.many-failures", fmt.Sprintf("drill.n%d", i), "failed >= 5000", "failed >= 3",
				"repeat: 3,", "repeat: 2,", "repeat: 5001,", "repeat: 3,", "within: 10m", fmt.Sprintf("within: %dm", 10+i%10)).Replace(goodRule)
			if i == 500 && turn%2 == 1 {
				text = strings.Replace(text, "severity: low", "severity: lowest", 1)
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("n%04d.yaml", i)), fmt.Appendf(nil, "# %d\n%s", turn, text), 0o600); err != nil {
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
