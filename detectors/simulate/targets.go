package simulate

import (
	"math"
	"slices"
	"time"
)

// Target is a limit that a figure of the shipped defense is held to, in the worst of
// the seeds, with the scenarios as they are written.
type Target struct {
	// Scenario is a scenario's name, or [AllBenign], or [EachAttack].
	Scenario string `json:"scenario"`
	Form     string `json:"form"`
	Limit
	// Or is a second limit that will do as well in a seed; nil: none.
	Or *Limit `json:"or,omitempty"`
}

// Limit is the least or the most that a metric may be: its best side is [Metric.Better].
type Limit struct {
	Metric Metric  `json:"metric"`
	Value  float64 `json:"limit"` // in the metric's unit
}

// What a target may be about besides one scenario.
const (
	// AllBenign is the shipped scenarios of people, b1 to b8, summed up per seed. It is
	// not judged unless all of them were run.
	AllBenign = "benign"
	// EachAttack is the worst of the other scenarios, where at least [EachLogins] good
	// log-ins are behind the figure.
	EachAttack = "attacks"
	// EachRule is the worst of the shipped rules, on days without an attack.
	EachRule = "rules"
)

// EachLogins is how many log-ins a share needs before [EachAttack] judges it: of
// fewer, one person alone may be over a limit of a few in a thousand.
const EachLogins = 1000

// The forms of a scenario.
const (
	Plain   = "plain"
	Evading = "evading"
)

func target(scenario string, m Metric, limit float64) Target {
	return Target{Scenario: scenario, Form: Plain, Limit: Limit{m, limit}}
}

// trustedMost is the share of good log-ins from trusted devices that may be stepped up.
const trustedMost = 0.003

const day = 24 * time.Hour

// Targets are what the shipped defense must keep. Only plain forms have limits: what
// evades and what is drawn is reported beside them.
//
// Twice next to nobody is nobody: where the rest is hardly ever asked, people abroad or
// behind a carrier may be as rarely as people on trusted devices may.
var Targets = []Target{
	target(AllBenign, Logins, 1_000_000),
	target(AllBenign, RefusedRate, 5.0/100_000),
	target(AllBenign, QuietUp, 0.010),
	target(AllBenign, QuietTrusted, trustedMost),
	target(nameB1, RefusedCount, 0),
	target(nameB1, CrowdUp, 0.005),
	target(nameB1b, Recall, 0.93),
	target(nameB1b, CrowdUp, 0.010),
	{Scenario: nameB2, Form: Plain, Limit: Limit{SharedRatio, 1.5}, Or: &Limit{SharedUp, trustedMost}},
	target(nameB3, RefusedCount, 0),
	target(nameB6, RefusedCount, 0),
	target(nameB7, RefusedCount, 0),
	target(nameB8, AlarmCount, 2),
	target(nameB8, AlarmLength, (30 * time.Minute).Seconds()),
	target(EachAttack, AlarmUp, 0.08),
	target(EachAttack, AlarmTrusted, trustedMost),
	{Scenario: EachAttack, Form: Plain, Limit: Limit{AlarmAbroad, 2}, Or: &Limit{AbroadUp, trustedMost}},
	target(EachRule, BudgetUsed, 1),
	target(EachRule, BusierTimes, BusierMost),

	target(nameA1, Recall, 0.995),
	target(nameA1, Lost, 1),
	target(nameA1, FirstCaught, 15),
	target(nameA2, Recall, 0.99),
	target(nameA2, Lost, 1),
	target(nameA2, FirstCaught, 100),
	target(nameA2b, Recall, 0.85),
	target(nameA2b, LostShare, 0.08),
	target(nameA2b, FirstCaught, 300),
	target(nameA2Fresh, Recall, 0.90),
	target(nameA2Fresh, LostShare, 0.08),
	target(nameA3, RecallLater, 0.70),
	target(nameA3, LostShare, 0.05),
	{Scenario: nameA3, Form: Plain, Limit: Limit{FirstCaught, 600}, Or: &Limit{FirstAfter, day.Seconds()}},
	target(nameA3, SteppedUp, 0.06),
	target(nameA4Few, Recall, 0.97),
	target(nameA4Few, Precision, 0.98),
	target(nameA4Many, Recall, 0.90),
	target(nameA4Many, Precision, 0.98),
	target(nameA4Company, Recall, 0.88),
	target(nameA4Company, LostShare, 0.15),
	target(nameA4b, Recall, 0.60),
	target(nameA5, Evaluated, 5),
	target(nameA5, OwnerDelayed, 0),
	target(nameA8One, Recall, 0.99),
	target(nameA8Many, Recall, 0.95),
	target(nameA9, Recall, 0.90),
	target(nameV64, Recall, 0.95),
	target(nameV48, Recall, 0.95),
	target(nameV32, Recall, 0.95),
}

// The scenarios that targets are about, by id.
const (
	nameB1        = "b1"
	nameB1b       = "b1b"
	nameB2        = "b2"
	nameB3        = "b3"
	nameB6        = "b6"
	nameB7        = "b7"
	nameB8        = "b8"
	nameA1        = "a1"
	nameA2        = "a2"
	nameA2b       = "a2b"
	nameA2Fresh   = "a2-fresh"
	nameA3        = "a3"
	nameA4Few     = "a4-12"
	nameA4Many    = "a4-5000"
	nameA4Company = "a4-company"
	nameA4b       = "a4b"
	nameA5        = "a5"
	nameA8One     = "a8-1"
	nameA8Many    = "a8-500"
	nameA9        = "a9"
	nameV64       = "v6-64"
	nameV48       = "v6-48"
	nameV32       = "v6-32"
)

// benign are the scenarios of [AllBenign].
var benign = []string{nameB1, nameB1b, nameB2, nameB3, "b4", "b5", nameB6, nameB7, nameB8}

// Verdict is how a target was kept.
type Verdict string

const (
	Met    Verdict = "met"
	Missed Verdict = "missed"
	NotRun Verdict = "not_run" // its scenario, or what its figure needs, did not occur
)

// Judged is a target with what came of it.
type Judged struct {
	Target
	Verdict Verdict
	Joined  Joined // of the target's metric; zero if it was not run
	// Where is the scenario that Joined.Worst is of.
	Where string
}

// judge holds the results of one defense to t. It reads those of t's form, with
// parameters as written.
func (t Target) judge(runs []Result, defense string) Judged {
	m := measures[t.Metric]
	var figures []seeded
	kept := true
	for _, r := range t.subjects(runs, defense) {
		f, known := m.read(&r)
		if !known || t.Scenario == EachAttack && r.alarmLogins(t.Metric) < EachLogins {
			continue
		}
		figures = append(figures, seeded{r.Seed, r.Scenario, f})
		ok := m.within(f.Value, t.Value)
		if !ok && t.Or != nil {
			other := measures[t.Or.Metric]
			if f, known := other.read(&r); known {
				ok = other.within(f.Value, t.Or.Value)
			}
		}
		kept = kept && ok
	}
	if len(figures) == 0 {
		return Judged{Target: t, Verdict: NotRun}
	}
	j := Judged{Target: t, Verdict: Met, Joined: join(m, figures)}
	if m.total {
		kept = m.within(j.Joined.Worst.Value, t.Value)
	}
	if !kept {
		j.Verdict = Missed
	}
	j.Where = j.Joined.where
	return j
}

// subjects are the results that t reads, summed up where it says so.
func (t Target) subjects(runs []Result, defense string) []Result {
	var found []Result
	for _, r := range runs {
		if r.Defense != defense || r.Form != t.Form || r.Spread != 0 {
			continue
		}
		switch t.Scenario {
		case AllBenign:
			if !slices.Contains(benign, r.Scenario) {
				continue
			}
		case EachAttack:
			if r.Attack.Attempts == 0 || slices.Contains(benign, r.Scenario) {
				continue
			}
		default:
			if r.Scenario != t.Scenario {
				continue
			}
		}
		found = append(found, r)
	}
	if t.Scenario != AllBenign {
		return found
	}
	var sums []Result
	at, ran := make(map[uint64]int), make(map[string]bool)
	for _, r := range found {
		ran[r.Scenario] = true
		i, ok := at[r.Seed]
		if !ok {
			i = len(sums)
			at[r.Seed] = i
			sums = append(sums, Result{Scenario: AllBenign, Form: t.Form, Defense: defense, Seed: r.Seed})
		}
		sums[i].People.join(r.People)
	}
	if len(ran) < len(benign) {
		return nil
	}
	return sums
}

// alarmLogins is how many log-ins a metric of an alarm was read off, at most.
func (r *Result) alarmLogins(m Metric) int {
	switch m {
	case AlarmUp:
		return r.People.Alarm.LogIns
	case AlarmTrusted:
		return r.People.DeviceAlarm.LogIns
	case AlarmAbroad, AbroadUp:
		return r.People.AbroadAlarm.LogIns
	}
	return math.MaxInt
}

// join sums up counts and takes the worse of what cannot be summed up.
func (p *PeopleResult) join(o PeopleResult) {
	for _, g := range [][2]*Group{
		{&p.All, &o.All}, {&p.Calm, &o.Calm}, {&p.Alarm, &o.Alarm}, {&p.Device, &o.Device}, {&p.DeviceAlarm, &o.DeviceAlarm},
		{&p.Abroad, &o.Abroad}, {&p.AbroadAlarm, &o.AbroadAlarm}, {&p.Carrier, &o.Carrier}, {&p.Crowd, &o.Crowd},
	} {
		g[0].LogIns += g[1].LogIns
		g[0].SteppedUp += g[1].SteppedUp
		g[0].Refused += g[1].Refused
		g[0].Delayed += g[1].Delayed
	}
	p.Never += o.Never
	p.LockedMinutes = max(p.LockedMinutes, o.LockedMinutes)
}
