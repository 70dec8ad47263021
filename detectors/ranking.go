package detectors

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// ranking is the good log-ins of one kind, by score. Half of it is forgotten in an hour,
// or after 150 log-ins of the kind: scores mean something else as soon as an attack
// begins, and who is compared with calm hours looks bad in any alarm. What all scores
// have in common is left out of them, so that a kind with few log-ins, which forgets
// slowly, is not compared with calmer hours than the others are; see mean.
type ranking struct {
	good [scoreBuckets]float64 // in units of unit
	unit float64               // what one log-in now weighs
	at   int64                 // Unix seconds that unit is of
}

const (
	scoreBuckets = 96 // of a quarter of a nat, the middle is 0
	scoreStep    = 0.25

	rankingHalf   = time.Hour
	rankingLogins = 150
)

func bucketOf(score float64) int {
	return int(math.Max(0, math.Min(scoreBuckets-1, score/scoreStep+scoreBuckets/2)))
}

// add counts a good login.
func (r *ranking) add(now time.Time, bucket int) {
	at := now.Unix()
	if r.at == 0 {
		r.at = at
	}
	r.unit *= math.Exp2(float64(max(0, at-r.at))/rankingHalf.Seconds() + 1.0/rankingLogins)
	r.at = max(r.at, at)
	if r.unit > 1e9 {
		for i := range r.good {
			r.good[i] /= r.unit
		}
		r.unit = 1
	}
	r.good[bucket] += r.unit
}

// below is how many good log-ins have a lower score than those of bucket, of how many.
func (r *ranking) below(bucket int) (n, of float64) {
	for i, good := range r.good {
		if i < bucket {
			n += good
		}
		of += good
	}
	return n / r.unit, of / r.unit
}

func (r *ranking) append(b []byte) []byte {
	b = appendAmount(b, r.unit)
	b = binary.BigEndian.AppendUint64(b, uint64(r.at))
	for _, n := range r.good {
		b = appendAmount(b, n)
	}
	return b
}

func (r *ranking) readFrom(c *snapshot.Cursor) {
	r.unit, r.at = c.Amount(mostAmount), int64(c.Uint64())
	for i := range r.good {
		r.good[i] = c.Amount(mostAmount)
	}
	if r.unit <= 0 {
		c.Fail()
	}
}

// mean is of what was seen lately, forgotten as in a ranking.
type mean struct {
	sum, n float64
	at     int64 // Unix seconds
}

func (m *mean) add(now time.Time, x float64) {
	at := now.Unix()
	if m.at == 0 {
		m.at = at
	}
	keep := math.Exp2(-float64(max(0, at-m.at))/rankingHalf.Seconds() - 1.0/rankingLogins)
	m.sum, m.n, m.at = m.sum*keep+x, m.n*keep+1, max(m.at, at)
}

func (m *mean) value() float64 {
	if m.n == 0 {
		return 0
	}
	return m.sum / m.n
}

func (m *mean) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(m.sum))
	return binary.BigEndian.AppendUint64(appendAmount(b, m.n), uint64(m.at))
}

func (m *mean) readFrom(c *snapshot.Cursor) {
	m.sum, m.n, m.at = math.Float64frombits(c.Uint64()), c.Amount(mostAmount), int64(c.Uint64())
	if !(math.Abs(m.sum) <= mostAmount) {
		c.Fail()
	}
}
