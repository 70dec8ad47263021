package detectors

import "time"

// Table opens the bounded table for comparing it with a plain map.
type Table = table[uint64, int]

func NewTable(limit int, forget time.Duration) *Table {
	return newTable[uint64](limit, forget, func(v *int) bool { return *v >= 100 }, nil)
}

func (t *table[K, V]) Find(k K, now time.Time) (*V, time.Duration) { return t.find(k, now) }
func (t *table[K, V]) Take(k K, now time.Time) (*V, time.Duration) { return t.take(k, now) }
func (t *table[K, V]) Len() int                                    { return t.len() }

// Memory opens what a source was seen with.
type Memory struct {
	memory
	Budget int
}

func (m *Memory) See(hash uint64, now time.Time, renew bool) bool {
	return m.see(hash, now, renew, &m.Budget)
}
func (m *Memory) Release() { m.release(&m.Budget) }

const (
	AllPairs        = allPairs
	SequentialSteps = 8 + 84 // straight failures at 0.30, and what CreditCap allows besides
)

// ValuesOf opens what an attempt shows to [Campaigns].
func ValuesOf(e Event) [features]uint64 { return valuesOf(&e) }

type Passes = passes

func (p *passes) First(hash uint64, now time.Time) bool { return p.first(hash, now) }

// Of strata.
const (
	BinFull     = binFull
	Dispersion  = dispersion
	LeastNormal = expectedStrangers / leastPart
)

var Excesses = excesses

// Evidence opens what a bin adds to the sum of an excess.
func Evidence(excess float64, n, f int, normal float64) float64 {
	return min(evidence(excess, float64(n), float64(f), normal), alarmStep)
}
