package detectors

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// CampaignsConfig sets up [Campaigns]. The zero value is a good one.
type CampaignsConfig struct {
	Operators     int // autonomous systems watched; 0: 8,192
	Organizations int // watched; 0: 65,536
	Values        int // of features, counted; 0: 131,072
	Failures      int // names that failed from a network, remembered for 12 h; 0: 524,288
}

// Campaigns sees the attack that no source and no account shows: many addresses, few
// attempts each.
//
// First, whether there is one. In strata the share of failures among log-ins is watched for
// a change: of all failures, of those without a known device and of those of strangers, and
// by autonomous system and by organization of those without a known device; see stratum.
// They are a share of all log-ins there, and not of those without a known device or of
// strangers, which succeed less and less often while the gate gets to know people. An alarm
// is about untrusted devices only.
//
// Then, who takes part. For what is known of an attempt (operator, country, TLS, header
// fields, family, how popular the password is, whether the name logged in before, how new the
// place and the client are to the account) successes and failures of unknown devices are
// counted, half forgotten in 3 hours. With λ failures per success where nobody attacks,
// F - λS of a value's failures are an attack's; the odds of its values make an attempt's
// odds (Herley and Schechter, "Distinguishing Attacks from Legitimate Authentication
// Traffic at Scale", NDSS 2019), without any label. Values go together, so most have
// half a say, and none more than 4 nats.
//
// Where an attempt comes from is a weak reason by itself: operator and country speak
// against it no more than TLS, header fields, family and password do together.
//
// Odds alone need a limit that somebody chooses. campaign.rank needs none: it is the
// share of good log-ins, those that were completed lately, that look better than this
// one. Who asks the upper twentieth for more bothers one good log-in in twenty, however
// large the attack is. Log-ins from countries with less than a tenth of the good ones
// without a known device are ranked among themselves, so that they pay the same share as
// the rest, and not the whole of it because all of them are somewhere new (Hardt, Price,
// Srebro, "Equality of Opportunity in Supervised Learning", NIPS 2016). An attacker may
// choose the kind that suits him; it gains him no more than that kind's share.
//
// Of a name that fails again and again from one network, the first failure in 12 h
// counts, and of an account that succeeds again and again, from wherever, the first
// success in a quarter of an hour: who attacks has accounts too, and would hide among
// their successes. Not in an hour: while the first successes of a gate that is new, or of a
// morning, all count, and later ones of the same clients do not, more and more log-ins seem
// to fail.
//
// It keeps 3 strata with 168 hours, at most Operators and Organizations strata of some
// 130 bytes, 24 bytes for each of at most Values values, 800 for each of two kinds, and 1 MiB
// of accounts that succeeded.
//
// It says [Signal]s campaign.alarm, campaign.rank and campaign.odds. It accepts this false positive: an
// incident of the service itself, such as a database of passwords that is
// unavailable, looks like an attack until it is over.
type Campaigns struct {
	config        CampaignsConfig
	fixed         [fixedStrata]stratum
	operators     *table[uint64, stratum]
	organizations *table[uint64, stratum]

	failed *table[uint64, struct{}] // names that failed from a network in the last 12 h
	passed *passes                  // accounts that succeeded in the last quarter of an hour
	values *table[uint64, tally]
	all    tally
	good   [kinds]ranking
	usual  mean  // of overall, at good log-ins
	normal share // of failures without a known device, while nothing is suspected

	on map[alarmName]uint64 // keys of operators and organizations with an alarm

	rest, recent *blob // what is in no table, and passed, for snapshots
}

const (
	stratumAll = iota
	stratumUntrusted
	stratumStrangers
	fixedStrata
)

var fixedNames = [fixedStrata]string{"all", "untrusted", "strangers"}

// What is assumed until something is known, as shares of all log-ins but the one of normal.
const (
	expectedAll       = 0.12
	expectedUntrusted = 0.10
	expectedNormal    = 0.30 // of log-ins without a known device, that fail
	expectedStrangers = 0.05
)

// tally counts successes and failures of unknown devices.
type tally struct {
	s, f float32
	at   uint32 // Unix seconds
}

const (
	valuesHalf = 3 * time.Hour

	valueMost      = 4.0
	features       = 9
	valueCountry   = 1   // before it the operator, after it JA4, header fields, family, popularity
	valueExistence = 6   // from here on what the gate knew of name, account and network
	enoughGood     = 100 // good log-ins, before rank means anything
	fewGood        = 20  // good log-ins of a kind that all of them stand for besides
	homeShare      = 0.1 // of the good log-ins; a country with less is elsewhere
)

// valueWeights are how much each of valuesOf has to say. Operator and country go
// together, as do TLS, header fields and family; how new place and client are to the
// account goes with nothing else.
var valueWeights = [features]float64{0.25, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5}

// NewCampaigns returns a detector that has seen nothing.
func NewCampaigns(c CampaignsConfig) *Campaigns {
	if c.Operators <= 0 {
		c.Operators = 1 << 13
	}
	if c.Organizations <= 0 {
		c.Organizations = 1 << 16
	}
	if c.Values <= 0 {
		c.Values = 1 << 17
	}
	if c.Failures <= 0 {
		c.Failures = 1 << 19
	}
	heavy := func(s *stratum) bool { return s.since != 0 || s.base.n > 500 }
	d := &Campaigns{
		config: c, on: map[alarmName]uint64{}, normal: share{n: basePrior, f: basePrior * expectedNormal},
		fixed:         [fixedStrata]stratum{newStratum(expectedAll, true), newStratum(expectedUntrusted, true), newStratum(expectedStrangers, true)},
		operators:     newTable[uint64](c.Operators, 60*24*time.Hour, heavy, nil),
		organizations: newTable[uint64](c.Organizations, 60*24*time.Hour, heavy, nil),
		failed:        newTable[uint64](c.Failures, quiet, func(*struct{}) bool { return false }, nil),
		passed:        new(passes),
		values:        newTable[uint64](c.Values, 10*valuesHalf, func(t *tally) bool { return t.s+t.f > 20 }, nil),
	}
	for k := range d.good {
		d.good[k].unit = 1
	}
	d.operators.form = form[uint64, stratum]{writeStratum, readStratum}
	d.organizations.form = d.operators.form
	d.failed.form = form[uint64, struct{}]{
		func(b []byte, k uint64, _ *struct{}) []byte { return binary.BigEndian.AppendUint64(b, k) },
		func(c *snapshot.Cursor, k *uint64, _ *struct{}) { *k = c.Uint64() },
	}
	d.values.form = form[uint64, tally]{writeTally, readTally}
	d.rest = &blob{most: 1 << 20, write: d.appendRest, read: d.readRest}
	d.recent = &blob{most: 1 << 20, write: d.passed.append, read: d.passed.readFrom}
	return d
}

// Signals implements [Detector].
func (d *Campaigns) Signals() []Description {
	return []Description{
		{Name: "campaign.alarm", Unit: "0 or 1", Max: 1, Meaning: "1 while more log-ins than is normal fail, or fail without a known device (everywhere, from this operator or in this organization), or are failures of strangers"},
		{Name: "campaign.rank", Unit: "share", Max: 1, Meaning: "share of the good log-ins lately, of a kind (from usual countries or from others), that look better than this one; said during an alarm, of devices that are not known"},
		{Name: "campaign.odds", Unit: "share", Max: 1, Meaning: "how likely an attempt like this one is an attack, from failures and successes alone; said during an alarm, of devices that are not known"},
	}
}

// alarmName is what an alarm is about.
type alarmName struct {
	operator     uint32
	organization Organization
}

// Alarm is a stratum in which more log-ins fail than is normal.
type Alarm struct {
	Stratum string    `json:"stratum"` // all, untrusted, strangers, operator:64500 or organization:acme
	Since   time.Time `json:"since"`
	Why     string    `json:"why"`
}

// Alarms lists the alarms that are on, those of all log-ins first; of operators and
// organizations at most 1,024.
func (d *Campaigns) Alarms(now time.Time) (on []Alarm) {
	add := func(s *stratum, name, words string) {
		if s != nil && s.alarmed(binOf(now)) {
			on = append(on, Alarm{name, time.Unix(s.since*int64(binLength/time.Second), 0).UTC(), s.why(words)})
		}
	}
	for i := range d.fixed {
		add(&d.fixed[i], fixedNames[i], fixedWords[i])
	}
	fixed := len(on)
	for name, key := range d.on {
		if name.operator != 0 {
			s, _ := d.operators.find(key, now)
			add(s, fmt.Sprintf("operator:%d", name.operator), operatorWords(name.operator))
		} else {
			s, _ := d.organizations.find(key, now)
			add(s, fmt.Sprintf("organization:%.60s", string(name.organization)), organizationWords(name.organization))
		}
	}
	slices.SortFunc(on[fixed:], func(a, b Alarm) int { return strings.Compare(a.Stratum, b.Stratum) })
	return on
}

func operatorWords(asn uint32) string {
	return fmt.Sprintf("log-ins from AS%d failed without a known device", asn)
}

func organizationWords(o Organization) string {
	return fmt.Sprintf("log-ins to %.60q failed without a known device", string(o))
}

var fixedWords = [fixedStrata]string{"log-ins failed", "log-ins failed without a known device", "log-ins were failures of strangers"}

func (s *stratum) why(words string) string {
	unfamiliar := 0.0
	if s.recent.f > 0 {
		unfamiliar = math.Min(100, 100*float64(s.unfamiliar/s.recent.f))
	}
	return fmt.Sprintf("%.0f in 100 %s in the last minutes, normally at most %.0f; %.0f in 100 of the names that failed were never seen here",
		100*float64(s.recent.f/max(s.recent.n, 1)), words, 100*s.normal(s.bin), unfamiliar)
}

// concerns is the strongest alarm that is about e, as a sentence; empty: none.
func (d *Campaigns) concerns(e *Event) string {
	bin := binOf(e.Time)
	if s := &d.fixed[stratumStrangers]; s.alarmed(bin) && strange(e) {
		return s.why(fixedWords[stratumStrangers])
	}
	if s := &d.fixed[stratumUntrusted]; s.alarmed(bin) {
		return s.why(fixedWords[stratumUntrusted])
	}
	if s := &d.fixed[stratumAll]; s.alarmed(bin) {
		return s.why(fixedWords[stratumAll])
	}
	if e.Source.ASN != 0 {
		if s, _ := d.operators.find(uint64(e.Source.ASN), e.Time); s != nil && s.alarmed(bin) {
			return s.why(operatorWords(e.Source.ASN))
		}
	}
	if e.Organization != "" {
		if s, _ := d.organizations.find(hash64(organizationSalt, string(e.Organization)), e.Time); s != nil && s.alarmed(bin) {
			return s.why(organizationWords(e.Organization))
		}
	}
	return ""
}

// Assess implements [Detector].
func (d *Campaigns) Assess(e Event) []Signal {
	if e.Device.Known() {
		return nil
	}
	why := d.concerns(&e)
	if why == "" {
		return nil
	}
	signals := make([]Signal, 3, 8)
	signals[0] = Signal{Name: "campaign.alarm", Value: 1, Why: why}
	score, overall := d.score(&e)
	odds := 1 / (1 + math.Exp(-score-overall))
	signals[1] = Signal{Name: "campaign.rank", Value: d.rank(d.kindOf(&e), score+overall-d.usual.value(), odds)}
	signals[2] = Signal{Name: "campaign.odds", Value: odds}
	return signals
}

// Observe implements [Detector].
func (d *Campaigns) Observe(e Event) {
	if !counted(&e) || e.Unproven || !d.first(&e) {
		return
	}
	failed, bin := e.Outcome == Failure, binOf(e.Time)
	unfamiliar := e.Account == ""
	untrusted := failed && !e.Device.Known()
	d.fixed[stratumAll].observe(bin, failed, unfamiliar)
	d.fixed[stratumUntrusted].observe(bin, untrusted, unfamiliar)
	d.fixed[stratumStrangers].observe(bin, failed && strange(&e), unfamiliar)
	if e.Source.ASN != 0 {
		d.observeIn(d.operators, alarmName{operator: e.Source.ASN}, uint64(e.Source.ASN), &e, bin, untrusted, unfamiliar)
	}
	if e.Organization != "" {
		d.observeIn(d.organizations, alarmName{organization: e.Organization}, hash64(organizationSalt, string(e.Organization)), &e, bin, untrusted, unfamiliar)
	}
	if e.Device.Known() {
		if !failed {
			d.good[d.kindOf(&e)].add(e.Time, 0)
		}
		return
	}
	if d.fixed[stratumUntrusted].calm() {
		f := float32(0)
		if failed {
			f = 1
		}
		d.normal.add(bin, baseHalf, 1, f)
	}
	if !failed {
		score, overall := d.score(&e)
		d.good[d.kindOf(&e)].add(e.Time, bucketOf(score))
		d.usual.add(e.Time, overall)
	}
	for _, v := range valuesOf(&e) {
		if v != 0 {
			t, _ := d.values.take(v, e.Time)
			t.add(e.Time, failed)
		}
	}
	d.all.add(e.Time, failed)
}

// first reports whether e is the first failure of its name from its network in 12 h, or
// the first success of its account in a quarter of an hour: somebody who tries and tries
// is one person, and a program with an old password is none.
func (d *Campaigns) first(e *Event) bool {
	if e.Outcome == Success {
		return d.passed.first(accountHash(e), e.Time)
	}
	if e.Password.Repeat {
		return false
	}
	key := mix(uint64(keyOf(e.Source)) ^ nameHash(e))
	if seen, _ := d.failed.find(key, e.Time); seen != nil {
		return false
	}
	d.failed.take(key, e.Time)
	return true
}

func (d *Campaigns) observeIn(strata *table[uint64, stratum], name alarmName, key uint64, e *Event, bin int64, failed, unfamiliar bool) {
	s, _ := strata.take(key, e.Time)
	if s.base.n == 0 {
		*s = newStratum(expectedUntrusted, false)
	}
	s.observe(bin, failed, unfamiliar)
	on := s.alarmed(bin)
	if _, was := d.on[name]; on && !was && len(d.on) < alarmsMax {
		d.on[name] = key
	} else if was && !on {
		delete(d.on, name)
	}
}

// alarmsMax bounds the alarms of operators and organizations that are listed.
const alarmsMax = 1024

// valuesOf is what is known of e before its outcome is, a key each; 0: nothing. It is the
// same when the outcome is known, so that people are compared with their like.
func valuesOf(e *Event) (v [features]uint64) {
	const first = organizationSalt + 1
	if e.Source.ASN != 0 {
		v[0] = mix(uint64(e.Source.ASN) | 1<<56)
	}
	if e.Source.Country != "" {
		v[valueCountry] = countryKey(e)
	}
	if e.Client.JA4 != "" {
		v[2] = hash64(first+1, e.Client.JA4)
	}
	if e.Client.Headers != "" {
		v[3] = hash64(first+2, e.Client.Headers)
	}
	if e.Client.Family != "" {
		v[4] = hash64(first+3, e.Client.Family)
	}
	if p := e.Password.Popularity; p > 0 {
		v[5] = mix(uint64(max(0, min(p, 44)-24)/4+1) | 2<<56)
	}
	// Not Account or Exists: a success tells them of names that nobody knew before, and
	// those would never succeed.
	known := uint64(0)
	switch {
	case e.Existence == Missing:
		known = 1
	case e.History.Logins > 0:
		known = 2
	}
	v[6] = mix(known + 1 | 3<<56)
	novelty := uint64(min(e.History.Logins, 1))
	for i, seen := range [...]bool{e.History.Network, e.History.Operator, e.History.Client} {
		if seen {
			novelty |= 2 << i
		}
	}
	v[7] = mix(novelty + 1 | 4<<56)
	capacity := uint64(0)
	for n := e.History.Capacity; n > 0; n /= 4 {
		capacity++
	}
	v[8] = mix(capacity + 1 | 5<<56)
	return v
}

func countryKey(e *Event) uint64 { return hash64(organizationSalt+1, e.Source.Country) }

func (t *tally) add(now time.Time, failed bool) {
	*t = t.faded(now)
	if failed {
		t.f++
	} else {
		t.s++
	}
}

func (t *tally) faded(now time.Time) tally {
	at := uint32(now.Unix())
	if t.at == 0 || at <= t.at {
		return tally{t.s, t.f, max(at, t.at)}
	}
	keep := float32(math.Exp2(-float64(at-t.at) / valuesHalf.Seconds()))
	return tally{t.s * keep, t.f * keep, at}
}

// score and overall together are the log-odds that an attempt like e is an attack; overall
// are those of any attempt. Where it comes from speaks against it no more than what it
// shows of itself does.
func (d *Campaigns) score(e *Event) (score, overall float64) {
	all := d.all.faded(e.Time)
	p := float64(d.normal.f / d.normal.n)
	lambda := p / (1 - math.Min(p, 0.9))
	s, f := float64(all.s)+1, float64(all.f)+1
	overall = logOdds(s, f, lambda)
	var part [features]float64
	for i, v := range valuesOf(e) {
		if v == 0 {
			continue
		}
		var t tally
		if known, _ := d.values.find(v, e.Time); known != nil {
			t = known.faded(e.Time)
		}
		of := logOdds(float64(t.s)+2*s/(s+f), float64(t.f)+2*f/(s+f), lambda)
		part[i] = valueWeights[i] * math.Max(-valueMost, math.Min(valueMost, of-overall))
	}
	where := part[0] + part[valueCountry]
	what := part[2] + part[3] + part[4] + part[5]
	score = math.Min(where, math.Max(0, what)) + what
	for _, x := range part[valueExistence:] {
		score += x
	}
	return score, overall
}

// logOdds is how many of s successes and f failures are an attack's, over how many are
// people's, where people fail lambda times per success.
func logOdds(s, f, lambda float64) float64 {
	return math.Log(math.Max(f-lambda*s, 0.005*(s+f)) / ((1 + lambda) * s))
}

// Kinds of log-ins, each ranked among its own.
const (
	atHome = iota
	elsewhere
	kinds
)

// kindOf tells a country that many log in from, or none that is known, from the others.
func (d *Campaigns) kindOf(e *Event) int {
	if e.Source.Country == "" {
		return atHome
	}
	var t tally
	if known, _ := d.values.find(countryKey(e), e.Time); known != nil {
		t = known.faded(e.Time)
	}
	if float64(t.s) < homeShare*float64(d.all.faded(e.Time).s) {
		return elsewhere
	}
	return atHome
}

// rank is the share of the good log-ins of a kind with less than the score; all of them
// stand for what is missing of a kind that few are of.
func (d *Campaigns) rank(kind int, score, odds float64) float64 {
	bucket := bucketOf(score)
	var below, of [kinds]float64
	sumBelow, sum := 0.0, 0.0
	for k := range d.good {
		below[k], of[k] = d.good[k].below(bucket)
		sumBelow, sum = sumBelow+below[k], sum+of[k]
	}
	if sum < enoughGood {
		return odds // nothing to compare with
	}
	return (below[kind] + fewGood*sumBelow/sum) / (of[kind] + fewGood)
}

const organizationSalt = 64

func writeStratum(b []byte, k uint64, s *stratum) []byte {
	return s.append(binary.BigEndian.AppendUint64(b, k))
}

func readStratum(c *snapshot.Cursor, k *uint64, s *stratum) {
	*k = c.Uint64()
	s.readFrom(c)
}

func writeTally(b []byte, k uint64, t *tally) []byte {
	b = binary.BigEndian.AppendUint64(b, k)
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(t.s))
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(t.f))
	return binary.BigEndian.AppendUint32(b, t.at)
}

func readTally(c *snapshot.Cursor, k *uint64, t *tally) {
	*k = c.Uint64()
	*t = tally{readAmount32(c), readAmount32(c), c.Uint32()}
}

func (d *Campaigns) form() string { return "campaigns/4" }

func (d *Campaigns) tables() []pieces {
	return []pieces{d.rest, d.recent, d.operators, d.organizations, d.failed, d.values}
}

func (d *Campaigns) empty() stored { return NewCampaigns(d.config) }

func (d *Campaigns) appendRest(b []byte) []byte {
	for i := range d.fixed {
		b = d.fixed[i].append(b)
	}
	b = writeTally(b, 0, &d.all)
	for k := range d.good {
		b = d.good[k].append(b)
	}
	return appendShare(d.usual.append(b), d.normal)
}

func (d *Campaigns) readRest(c *snapshot.Cursor) {
	for i := range d.fixed {
		d.fixed[i].readFrom(c)
	}
	var none uint64
	readTally(c, &none, &d.all)
	for k := range d.good {
		d.good[k].readFrom(c)
	}
	d.usual.readFrom(c)
	if d.normal = readShare(c); d.normal.n <= 0 || d.normal.f > d.normal.n {
		c.Fail()
	}
}
