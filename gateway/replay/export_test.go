package replay

import (
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Distinct adds n different things, each twice, and says what was counted.
func Distinct(n int) (count uint64, exact bool, kept int) {
	var d distinct
	for i := range 2 * n {
		d.add(spread(uint64(i%n) + 1))
	}
	count, exact = d.count()
	return count, exact, cap(d.least)
}

// Charted are the bins of times.
func Charted(times ...time.Time) (list []Bin, width int64) {
	var b bins
	for _, t := range times {
		b.at(t).Events++
	}
	return b.list(), b.width
}

// Sampled is an estimate over n people of whom every k-th proves benign.
func Sampled(n, k int, at time.Time) (e Estimate, kept int) {
	var s sample
	for i := range n {
		s.hit(join(spread(uint64(i)), 7), &detectors.Event{Time: at})
	}
	for i := range n {
		if i%k == 0 {
			s.prove(join(spread(uint64(i)), 7), at.Add(time.Hour))
		}
	}
	return s.estimate(at.Add(2 * proofWithin)), len(s.all)
}
