package detectors

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// stratum is a kind of failures whose share of log-ins is watched for a change
// (Page's test, with the beta-binomial of Javed and Paxson, "Detecting Stealthy,
// Distributed SSH Brute-Forcing", CCS 2013). The share is watched and not the number, so
// that a Monday, a holiday or a mention on television changes nothing.
//
// What is normal is learned while nothing is suspected: a share, with half of what is
// known forgotten in 14 days, and where hours is set one for each hour of the week,
// drawn towards it as long as little is known, and never less than two fifths of what
// is assumed at first: a week without a mistake does not make the first one an attack. Twice its standard error is added, so
// that a stratum of few log-ins is slow to be sure.
//
// An excess adds to three sums, for attacks that are a quarter, as much and four times
// as many as the failures that are normal. Ten seconds or 50 attempts are a bin; no bin
// adds more than a third of the limit, so no burst of a moment is an alarm. The limit is
// one false alarm in 1,000,000 minutes, were all bins independent. An alarm ends when
// all sums have been 0 for ten minutes, or 25 minutes after the last time one of them
// reached the limit.
type stratum struct {
	bin        int64 // that now is about, in units of binLength
	n, f       uint16
	last       int64   // bin of the latest event
	least      float32 // that the normal share of failures is
	base       share
	hours      *[hoursOfWeek]share // or nil
	sums       [len(excesses)]float64
	since      int64 // bin in which the alarm began; 0: there is none
	reached    int64 // latest bin with a sum at the limit
	zero       int64 // bin since which all sums are 0; 0: not so
	recent     share // of the last minutes, for people
	unfamiliar float32
}

// share counts failures among attempts, decayed to the bin at.
type share struct {
	n, f float32
	at   int64
}

const (
	binLength   = 10 * time.Second
	binFull     = 50
	hoursOfWeek = 7 * 24
	dispersion  = 0.02 // correlation of attempts in a bin
	leastPart   = 2.5  // what is assumed at first, over what is normal at least
	hourPrior   = 300  // attempts that the share of all hours stands for in one
	basePrior   = 60   // attempts that what is assumed at first stands for

	baseHalf   = 14 * 24 * time.Hour
	hourHalf   = 28 * 24 * time.Hour
	recentHalf = 5 * time.Minute

	alarmCalm = 10 * time.Minute
	alarmTail = 25 * time.Minute
)

var excesses = [...]float64{0.25, 1, 4}

var (
	alarmLimit = math.Log(1e6 * float64(time.Minute/binLength) * float64(len(excesses)))
	alarmRoom  = 4.0 // how far above the limit a sum may be
	alarmStep  = alarmLimit / 3
)

func binOf(t time.Time) int64 { return t.Unix() / int64(binLength/time.Second) }

func bins(d time.Duration) int64 { return int64(d / binLength) }

// faded is s at a later bin.
func (s share) faded(at int64, half time.Duration) share {
	if at <= s.at || s.n == 0 {
		return share{s.n, s.f, max(at, s.at)}
	}
	keep := float32(math.Exp2(-float64(at-s.at) / float64(bins(half))))
	return share{s.n * keep, s.f * keep, at}
}

// add counts at a later bin. What was known before never has less than an attempt's say.
func (s *share) add(at int64, half time.Duration, n, f float32) {
	*s = s.faded(at, half)
	if 0 < s.n && s.n < 1 {
		s.n, s.f = 1, s.f/s.n
	}
	s.n, s.f = s.n+n, s.f+f
}

// newStratum expects a share of failures until it knows better.
func newStratum(expected float64, hourly bool) stratum {
	s := stratum{least: float32(expected / leastPart), base: share{n: basePrior, f: float32(basePrior * expected)}}
	if hourly {
		s.hours = new([hoursOfWeek]share)
	}
	return s
}

func hourOf(bin int64) int { return int(bin / bins(time.Hour) % hoursOfWeek) }

// normal is the share of failures that is normal in a bin, and not more than it.
func (s *stratum) normal(bin int64) float64 {
	p := float64(s.base.f / s.base.n)
	known := float64(s.base.n)
	if s.hours != nil {
		h := s.hours[hourOf(bin)].faded(bin, hourHalf)
		prior := math.Min(known, hourPrior)
		known = float64(h.n) + prior
		p = (float64(h.f) + prior*p) / known
	}
	p = math.Min(math.Max(p, float64(s.least)), 0.9)
	return math.Min(p+2*math.Sqrt(p*(1-p)/known), 0.95)
}

// observe learns an attempt.
func (s *stratum) observe(bin int64, failed, unfamiliar bool) {
	if bin > s.bin {
		s.close(bin)
	}
	s.last = max(s.last, bin)
	s.n++
	f := float32(0)
	if failed {
		s.f++
		f = 1
		if unfamiliar {
			s.unfamiliar++
		}
	}
	s.recent.add(bin, recentHalf, 1, f)
	if s.n >= binFull {
		s.weigh()
	}
}

// close ends the bin, and goes on to another.
func (s *stratum) close(bin int64) {
	if s.n > 0 {
		s.weigh()
	}
	if passed := bin - s.bin; passed > 0 {
		s.unfamiliar *= float32(math.Exp2(-float64(passed) / float64(bins(recentHalf))))
	}
	s.bin = bin
	if s.since != 0 && !s.alarmed(bin) {
		s.since, s.sums = 0, [len(excesses)]float64{}
	}
}

// weigh adds what was counted to the sums, and to what is normal.
func (s *stratum) weigh() {
	n, f := float64(s.n), float64(s.f)
	normal := s.normal(s.bin)
	idle := true
	for i, m := range excesses {
		llr := evidence(m, n, f, normal)
		s.sums[i] = math.Min(math.Max(0, s.sums[i]+math.Min(llr, alarmStep)), alarmLimit+alarmRoom)
		idle = idle && s.sums[i] == 0
	}
	switch {
	case slices.Max(s.sums[:]) >= alarmLimit:
		s.reached = s.bin
		if s.since == 0 {
			s.since = max(s.bin, 1)
		}
	case s.calm():
		s.base.add(s.bin, baseHalf, float32(n), float32(f))
		if s.hours != nil {
			s.hours[hourOf(s.bin)].add(s.bin, hourHalf, float32(n), float32(f))
		}
	}
	switch {
	case !idle:
		s.zero = 0
	case s.zero == 0:
		s.zero = s.bin
	}
	s.n, s.f = 0, 0
}

// evidence is the logarithm of how much likelier f failures of n are under an attack of m
// times as many failures as are normal than without one.
//
// One of as many failures as are normal, or more, shows in few bins, and what looks like it
// is a bin whose attempts go together, which the beta-binomial allows for. A milder one
// shows over hundreds of bins, where the mean counts and not the shape of a bin. There the
// beta-binomial takes a bin without a failure for less than it is, and where failures are
// few and attempts independent it finds an attack in every day that is busy enough. So a mild
// one is measured by the likelihood of independent attempts over what correlation adds to
// the variance (Wedderburn, "Quasi-likelihood functions, generalized linear models, and the
// Gauss-Newton method", Biometrika 1974).
func evidence(m, n, f, normal float64) (llr float64) {
	attacked := normal * (1 + m) / (1 + m*normal)
	if m < 1 {
		llr = f*math.Log(attacked/normal) + (n-f)*math.Log((1-attacked)/(1-normal))
		return llr / (1 + (n-1)*dispersion)
	}
	const mass = 1/dispersion - 1
	for k := range int(f) {
		llr += math.Log((attacked*mass + float64(k)) / (normal*mass + float64(k)))
	}
	for k := range int(n - f) {
		llr += math.Log(((1-attacked)*mass + float64(k)) / ((1-normal)*mass + float64(k)))
	}
	return llr
}

// calm reports whether nothing is suspected, so that what happens is normal.
func (s *stratum) calm() bool {
	return s.since == 0 && slices.Max(s.sums[:]) < alarmLimit/2
}

// alarmed reports whether the alarm is on in a bin, which may be a later one.
func (s *stratum) alarmed(bin int64) bool {
	if s.since == 0 || bin-s.reached >= bins(alarmTail) {
		return false
	}
	return s.zero == 0 || bin-s.zero < bins(alarmCalm)
}

func appendShare(b []byte, s share) []byte {
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(s.n))
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(s.f))
	return binary.BigEndian.AppendUint64(b, uint64(s.at))
}

func readAmount32(c *snapshot.Cursor) float32 {
	x := math.Float32frombits(c.Uint32())
	if !(x >= 0 && x <= mostAmount) {
		c.Fail()
		return 0
	}
	return x
}

func readShare(c *snapshot.Cursor) share {
	return share{readAmount32(c), readAmount32(c), int64(c.Uint64())}
}

func (s *stratum) append(b []byte) []byte {
	for _, at := range [...]int64{s.bin, s.last, s.since, s.reached, s.zero} {
		b = binary.BigEndian.AppendUint64(b, uint64(at))
	}
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, s.n), s.f)
	b = appendShare(appendShare(b, s.base), s.recent)
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(s.unfamiliar))
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(s.least))
	for _, sum := range s.sums {
		b = appendAmount(b, sum)
	}
	if s.hours != nil {
		for _, h := range s.hours {
			b = appendShare(b, h)
		}
	}
	return b
}

// readFrom reads what append writes of a stratum with as many hours.
func (s *stratum) readFrom(c *snapshot.Cursor) {
	for _, at := range [...]*int64{&s.bin, &s.last, &s.since, &s.reached, &s.zero} {
		*at = int64(c.Uint64())
	}
	s.n, s.f = c.Uint16(), c.Uint16()
	s.base, s.recent, s.unfamiliar, s.least = readShare(c), readShare(c), readAmount32(c), readAmount32(c)
	for i := range s.sums {
		s.sums[i] = c.Amount(alarmLimit + alarmRoom)
	}
	if s.n > binFull || s.f > s.n || s.base.n <= 0 || s.base.f > s.base.n {
		c.Fail()
	}
	if s.hours != nil {
		for i := range s.hours {
			s.hours[i] = readShare(c)
		}
	}
}
