package replay_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"runtime"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/gateway/replay"
	"github.com/kidoban/kidoban/rules"
)

// days is what a simulated town and its attackers did, again and again: each time it is
// later, and half of the names, accounts and addresses are others.
type days struct {
	events []detectors.Event
	length time.Duration
	want   int
	at     func(n int)
}

// keeper keeps what happens.
type keeper struct{ days *days }

func (keeper) Before(*detectors.Event) simulate.Action { return simulate.Allow }

func (k keeper) After(e *detectors.Event) simulate.Action {
	k.days.events = append(k.days.events, *e)
	return simulate.Allow
}

func (keeper) Proved(*detectors.Event)   {}
func (keeper) Learn(*detectors.Event)    {}
func (keeper) Alarms(time.Time) []string { return nil }

// town plays some hours with a list and a spray.
func town(tb testing.TB) *days {
	tb.Helper()
	s, err := simulate.Decode("town.yaml", []byte(`
id: town
title: {en: Town, ja: 町}
story: {en: Town, ja: 町}
form: plain
start: 2026-11-30T09:00:00+09:00
warm: 0s
length: 6h
town: {people: 40000, companies: 900, log_ins: 8, flat: true}
attacks:
  - {kind: list, from: 1h, length: 3h, attempts: 10000, sources: 500, network: hosting, client: tool, hit: 0.005, unknown: 0.1}
`))
	if err != nil {
		tb.Fatal(err)
	}
	d := &days{length: 6 * time.Hour}
	if _, err := simulate.Run(tb.Context(), s, 3, "keeper", keeper{d}); err != nil {
		tb.Fatal(err)
	}
	return d
}

func (d *days) Counts() replay.Counts { return replay.Counts{} }

func (d *days) Read(_ context.Context, each func(*replay.Recorded) error) error {
	for n := 0; n < d.want; n++ {
		e := d.events[n%len(d.events)]
		lap := n / len(d.events)
		e.Time = e.Time.Add(time.Duration(lap) * d.length)
		e.StreamTime, e.Key.Sequence = e.Time, uint64(n+1)
		if e.Name.Digest[15]&1 == 1 { // others every day
			binary.LittleEndian.PutUint32(e.Name.Digest[:], binary.LittleEndian.Uint32(e.Name.Digest[:])+uint32(lap))
		}
		r := replay.Recorded{Event: e, Known: e}
		r.Known.Outcome = detectors.Unknown
		if d.at != nil {
			d.at(n)
		}
		if err := each(&r); err != nil {
			return err
		}
	}
	return nil
}

// pack are the shipped rules, and one more that hits often.
func pack(tb testing.TB) (old, new *rules.Set) {
	tb.Helper()
	old, faults := rules.Load(rules.Shipped)
	if len(faults) > 0 {
		tb.Fatal(faults)
	}
	added, faults := rules.Load(fstest.MapFS{"a.yaml": {Data: []byte(manyNames("3"))}})
	if len(faults) > 0 {
		tb.Fatal(faults)
	}
	return old, added
}

// BenchmarkReplay replays days with everything on: all detectors, the shipped rules as
// OLD, one noisy rule as NEW. With -benchtime 10000000x it shows what memory does.
func BenchmarkReplay(b *testing.B) {
	d := town(b)
	d.want = b.N
	var quarter, end runtime.MemStats
	d.at = func(n int) {
		switch n {
		case b.N / 4:
			runtime.GC()
			runtime.ReadMemStats(&quarter)
		case b.N - 1:
			runtime.GC()
			runtime.ReadMemStats(&end)
		}
	}
	old, new := pack(b)
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	r, err := replay.Run(b.Context(), replay.Config{Source: d, Old: old, New: new})
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if r.Read != uint64(b.N) {
		b.Fatalf("%d of %d events", r.Read, b.N)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	if spent := cpuTime() - cpu; spent > 0 { // on a busy machine it says more
		b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-µs/event")
	}
	b.ReportMetric(float64(quarter.HeapAlloc)/(1<<20), "MiB-at-quarter")
	b.ReportMetric(float64(end.HeapAlloc)/(1<<20), "MiB-at-end")
}

// BenchmarkLines replays JSON Lines, so that reading them counts too.
func BenchmarkLines(b *testing.B) {
	d := town(b)
	var text bytes.Buffer
	w := newRecorder(b, &text)
	for i := range d.events {
		w.After(&d.events[i])
	}
	old, new := pack(b)
	b.SetBytes(int64(text.Len()))
	b.ResetTimer()
	cpu, read := cpuTime(), uint64(0)
	for b.Loop() {
		reader, err := feed.Open(io.Reader(bytes.NewReader(text.Bytes())), "jsonl", feed.Options{})
		if err != nil {
			b.Fatal(err)
		}
		r, err := replay.Run(b.Context(), replay.Config{Source: replay.FromFeed(reader), Old: old, New: new})
		if err != nil {
			b.Fatal(err)
		}
		read += r.Read
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "events/s")
	if spent := cpuTime() - cpu; spent > 0 {
		b.ReportMetric(float64(spent.Microseconds())/float64(read), "cpu-µs/event")
	}
}
