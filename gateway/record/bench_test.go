package record_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/gateway/record"
)

// bareWriter does what every writer has to that commits groups: it collects what
// waits, writes it and syncs. It knows no format and no secrets.
type bareWriter struct {
	f     *os.File
	queue chan bareRequest
	done  chan struct{}
}

type bareRequest struct {
	data []byte
	done chan error
}

func newBare(file string) (*bareWriter, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	w := &bareWriter{f: f, queue: make(chan bareRequest, 1024), done: make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *bareWriter) run() {
	defer close(w.done)
	var buf []byte
	var waiting []chan error
	for first := range w.queue {
		buf, waiting = append(buf[:0], first.data...), append(waiting[:0], first.done)
	more:
		for len(waiting) < 512 {
			select {
			case r, ok := <-w.queue:
				if !ok {
					break more
				}
				buf, waiting = append(buf, r.data...), append(waiting, r.done)
			default:
				break more
			}
		}
		_, err := w.f.Write(buf)
		if err == nil {
			err = unix.Fdatasync(int(w.f.Fd()))
		}
		for _, d := range waiting {
			d <- err
		}
	}
}

func (w *bareWriter) append(data []byte) error {
	done := make(chan error, 1)
	w.queue <- bareRequest{data, done}
	return <-done
}

func (w *bareWriter) close() {
	close(w.queue)
	<-w.done
	w.f.Close()
}

// load calls do from 64 goroutines for a while and returns how many a second that
// were and how long the slowest in a hundred took.
func load(callers int, d time.Duration, do func() error) (perSecond float64, p99 time.Duration, err error) {
	var mu sync.Mutex
	var all []time.Duration
	start := time.Now()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			var mine []time.Duration
			for now := time.Now(); now.Sub(start) < d; {
				e := do()
				after := time.Now()
				mine = append(mine, after.Sub(now))
				now = after
				if e != nil {
					mu.Lock()
					err = e
					mu.Unlock()
					return
				}
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(all)
	if err != nil || len(all) == 0 {
		return 0, 0, fmt.Errorf("%d calls: %w", len(all), err)
	}
	return float64(len(all)) / time.Since(start).Seconds(), all[len(all)*99/100], nil
}

type loginBody struct {
	Account, Address, Device, Session, Outcome string
}

// BenchmarkAppend holds the record against a bare writer of the same number of
// bytes on the same disk. Slices of both alternate, since disks have moods; the
// ratios are of the medians. Run it with -benchtime=1x; BENCH_SLICE sets how long
// a slice is and TMPDIR which disk it is.
func BenchmarkAppend(b *testing.B) {
	slice := 200 * time.Millisecond
	if text := os.Getenv("BENCH_SLICE"); text != "" {
		var err error
		if slice, err = time.ParseDuration(text); err != nil {
			b.Fatal(err)
		}
	}
	draft := record.Draft{Kind: "login.success", Reason: "rule", Body: loginBody{"account-00001", "203.0.113.7", "device-0001", "session-000001", "success"}}
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			dir := b.TempDir()
			l := open(b, filepath.Join(dir, "record"), nil)
			bare, err := newBare(filepath.Join(dir, "bare"))
			if err != nil {
				b.Fatal(err)
			}
			defer bare.close()
			before := l.Status().Bytes
			if _, err := l.Append(b.Context(), draft); err != nil {
				b.Fatal(err)
			}
			if _, err := l.Append(b.Context(), draft); err != nil {
				b.Fatal(err)
			}
			data := make([]byte, (l.Status().Bytes-before)/2)
			var ours, theirs, oursLate, theirsLate []float64
			for b.Loop() {
				for range 5 {
					rate, late, err := load(callers, slice, func() error { _, err := l.Append(b.Context(), draft); return err })
					if err != nil {
						b.Fatal(err)
					}
					ours, oursLate = append(ours, rate), append(oursLate, late.Seconds()*1e3)
					if rate, late, err = load(callers, slice, func() error { return bare.append(data) }); err != nil {
						b.Fatal(err)
					}
					theirs, theirsLate = append(theirs, rate), append(theirsLate, late.Seconds()*1e3)
				}
			}
			for _, s := range [][]float64{ours, theirs, oursLate, theirsLate} {
				slices.Sort(s)
			}
			mid := len(ours) / 2
			b.ReportMetric(ours[mid], "entries/s")
			b.ReportMetric(theirs[mid], "bare/s")
			b.ReportMetric(ours[mid]/theirs[mid], "of_bare")
			b.ReportMetric(oursLate[mid], "p99_ms")
			b.ReportMetric(theirsLate[mid], "bare_p99_ms")
			b.ReportMetric(oursLate[mid]/theirsLate[mid], "p99_ratio")
			b.ReportMetric(float64(len(data)), "bytes/entry")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkCount is what a denial costs in a flood.
func BenchmarkCount(b *testing.B) {
	l := open(b, b.TempDir(), nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Count(record.Denial{Kind: "denial.limit", Reason: "limit", Key: "203.0.113.7"})
		}
	})
}

// BenchmarkSQLMirror is what the mirror's database has to do for a group of entries.
func BenchmarkSQLMirror(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres"} {
		for _, group := range []int{1, 256} {
			b.Run(fmt.Sprintf("%s/entries=%d", kind, group), func(b *testing.B) {
				m := record.NewSQLMirror(database(b, kind))
				copies := make([]record.Copy, group)
				for i := range copies {
					copies[i] = record.Copy{First: 1, Header: make([]byte, 70), Frame: make([]byte, 388)}
				}
				last := uint64(0)
				for b.Loop() {
					for i := range copies {
						last++
						copies[i].Sequence = last
					}
					if err := m.Store(b.Context(), "gate-1", copies); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(last)/b.Elapsed().Seconds(), "entries/s")
			})
		}
	}
}
