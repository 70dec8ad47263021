//go:build linux

package bench

import (
	"fmt"
	"io"
	"slices"
	"testing"
)

// spread is a median between its quartiles.
type spread struct{ low, mid, high float64 }

// spreadOf sorts a copy of values, of which there is at least one. Quantiles
// between two values are interpolated (type 7 of Hyndman and Fan, as R does).
func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	quantile := func(q float64) float64 {
		at := q * float64(len(sorted)-1)
		i := int(at)
		if i+1 >= len(sorted) {
			return sorted[len(sorted)-1]
		}
		return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
	}
	return spread{quantile(0.25), quantile(0.5), quantile(0.75)}
}

// pairs is what f makes of the bursts of two rows, round by round.
func pairs(a, b []burst, f func(a, b burst) float64) spread {
	values := make([]float64, len(a))
	for i := range a {
		values[i] = f(a[i], b[i])
	}
	return spreadOf(values)
}

func each(bursts []burst, f func(burst) float64) spread {
	return pairs(bursts, bursts, func(a, _ burst) float64 { return f(a) })
}

// added is the CPU time of a request of b beyond one of a, in microseconds.
func added(a, b burst) float64 { return b.perRequest() - a.perRequest() }

// ratio is the throughput of b as a part of that of a.
func ratio(a, b burst) float64 { return b.rate() / a.rate() }

// result is what one row of the table has seen.
type result struct {
	title    string
	bursts   []burst // one for each round
	resident int64   // bytes, at the end
}

// mean is the CPU time of a request over all bursts, in microseconds.
func (r *result) mean() float64 {
	var all burst
	for _, b := range r.bursts {
		all = all.plus(b)
	}
	return all.perRequest()
}

// writeTable writes results, of which the first is what the others are compared with.
func writeTable(w io.Writer, results []result) {
	fmt.Fprintln(w, "| | CPU a request, µs | added, µs | mean CPU, µs | requests a second | throughput | memory, MiB |")
	fmt.Fprintln(w, "|---|---:|---:|---:|---:|---:|---:|")
	base := results[0]
	for i, r := range results {
		cpu, rate := each(r.bursts, burst.perRequest), each(r.bursts, burst.rate)
		more, part := "", "1"
		if i > 0 {
			d, q := pairs(base.bursts, r.bursts, added), pairs(base.bursts, r.bursts, ratio)
			more = fmt.Sprintf("**%+.1f** (%+.1f to %+.1f)", d.mid, d.low, d.high)
			part = fmt.Sprintf("%.3f (%.3f to %.3f)", q.mid, q.low, q.high)
		}
		fmt.Fprintf(w, "| %s | %.1f (%.1f to %.1f) | %s | %.1f | %.0f | %s | %d |\n",
			r.title, cpu.mid, cpu.low, cpu.high, more, r.mean(), rate.mid, part, r.resident>>20)
	}
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []float64
		want   spread
	}{
		{"one value", []float64{3}, spread{3, 3, 3}},
		{"two values", []float64{2, 1}, spread{1.25, 1.5, 1.75}},
		{"odd number, unsorted", []float64{5, 1, 4, 2, 3}, spread{2, 3, 4}},
		{"an outlier moves no quartile", []float64{1, 2, 3, 4, 1000}, spread{2, 3, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := spreadOf(tt.values); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
