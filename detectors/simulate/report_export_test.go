package simulate

import (
	"maps"
	"slices"
)

// ColumnsOf is how wide a terminal shows s.
func ColumnsOf(s string) int { return columnsOf(s) }

// Percent writes a share.
func Percent(v float64) string { return percent(v) }

// SeedText writes seeds.
func SeedText(seeds []uint64) string { return seedText(seeds) }

// Said is the keys of what is said in a language, of metrics and others.
func Said(language string) []string {
	w := wordsOf(language)
	keys := slices.Sorted(maps.Keys(w.say))
	for _, m := range slices.Sorted(maps.Keys(w.metrics)) {
		keys = append(keys, string(m))
	}
	return append(keys, slices.Sorted(maps.Keys(w.defenses))...)
}

// MetricOrder is every metric that reports write.
func MetricOrder() []Metric { return metricOrder }

// Measured is every metric that can be read off a result.
func Measured() []Metric { return slices.Sorted(maps.Keys(measures)) }
