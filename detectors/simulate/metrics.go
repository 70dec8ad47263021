package simulate

import (
	"math"
	"time"
)

// Metric names a figure that is read off a [Result].
type Metric string

const (
	Recall       Metric = "recall"                   // share of the attack's attempts that were caught
	RecallLater  Metric = "recall_after_48h"         // the same, of the attempts later than 48 hours after the first
	Lost         Metric = "accounts_lost"            // accounts that the attacker ended with a session of
	LostShare    Metric = "accounts_lost_share"      // these, of the right pairs that were tried
	FirstCaught  Metric = "first_caught"             // attempts that were answered before the first that was caught
	FirstAfter   Metric = "first_caught_after"       // seconds from the first attempt to the first that was caught
	Precision    Metric = "flagged_precision"        // of the accounts that were flagged, the share that was attacked
	Evaluated    Metric = "guesses_evaluated"        // most guesses of untrusted clients that one account's backend saw in a day
	Logins       Metric = "good_logins"              // log-ins with the right password; summed over the seeds
	RefusedCount Metric = "good_refused"             // of these, turned away
	RefusedRate  Metric = "good_refused_rate"        // the same, as a share
	SteppedUp    Metric = "good_stepped_up"          // share of good log-ins that were asked for further proof
	CrowdUp      Metric = "crowd_stepped_up"         // of the people that the scenario is about, such as those of its office
	QuietUp      Metric = "quiet_stepped_up"         // the same, while no campaign alarm is on
	QuietTrusted Metric = "quiet_trusted_stepped_up" // of these, from devices that the account is known on
	AlarmUp      Metric = "alarm_stepped_up"         // the same, while a campaign alarm is on
	AlarmTrusted Metric = "alarm_trusted_stepped_up"
	AbroadUp     Metric = "alarm_abroad_stepped_up" // the same, of people abroad
	AlarmAbroad  Metric = "alarm_abroad_ratio"      // how often people abroad are stepped up, over how often the rest is, during an alarm
	SharedUp     Metric = "shared_stepped_up"       // share of good log-ins through mobile carriers that are stepped up
	SharedRatio  Metric = "shared_stepped_up_ratio" // how often people behind shared addresses are stepped up, over how often the rest is
	Delayed      Metric = "good_delayed"            // share of good log-ins that were delayed
	LockedOut    Metric = "locked_out"              // the longest that somebody with the right password could not log in, in seconds
	OwnerDelayed Metric = "owner_delayed"           // log-ins of an attacked account's owner that were delayed, stepped up or refused
	AlarmCount   Metric = "alarms_per_stratum"      // campaign alarms, of the stratum that had the most
	AlarmLength  Metric = "alarm_longest"           // the longest campaign alarm, in seconds
	BudgetUsed   Metric = "false_matches_of_budget" // of a rule, its false matches over its budget
	BusierTimes  Metric = "false_matches_busier"    // of a rule, how many times as many of the good log-ins it matches on busier days
)

// Unit is what a metric's number counts.
type Unit string

const (
	Share    Unit = "share" // 0 to 1
	Count    Unit = "count"
	Attempts Unit = "attempts"
	Seconds  Unit = "seconds"
	Ratio    Unit = "ratio"
)

// Better tells which way of a metric is better.
type Better string

const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// Figure is a metric's number. It is unbounded (never acted, a share of nothing over
// something) as +Inf.
type Figure struct {
	Value float64
	// Of and Among are the counts behind a share; 0 of 0 elsewhere.
	Of, Among int
}

type measure struct {
	unit   Unit
	better Better
	total  bool // joined over the seeds by summing up
	read   func(*Result) (Figure, bool)
}

// metricOrder is the order of reports.
var metricOrder = []Metric{
	Recall, RecallLater, Lost, LostShare, FirstCaught, FirstAfter, Precision, Evaluated,
	Logins, RefusedCount, RefusedRate, SteppedUp, CrowdUp, QuietUp, QuietTrusted, AlarmUp, AlarmTrusted, AbroadUp, AlarmAbroad, SharedUp, SharedRatio,
	Delayed, LockedOut, OwnerDelayed, AlarmCount, AlarmLength,
	BudgetUsed, BusierTimes,
}

var measures = map[Metric]measure{
	Recall:      {Share, Higher, false, func(r *Result) (Figure, bool) { return share(r.Attack.Caught, r.Attack.Attempts) }},
	RecallLater: {Share, Higher, false, func(r *Result) (Figure, bool) { return share(r.Attack.LateCaught, r.Attack.LateAttempts) }},
	Lost: {Count, Lower, false, func(r *Result) (Figure, bool) {
		return Figure{Value: float64(r.Attack.Lost)}, r.Attack.Hits > 0
	}},
	LostShare: {Share, Lower, false, func(r *Result) (Figure, bool) { return share(r.Attack.Lost, r.Attack.Hits) }},
	FirstCaught: {Attempts, Lower, false, func(r *Result) (Figure, bool) {
		if r.Attack.First == nil {
			return Figure{Value: math.Inf(1)}, r.Attack.Attempts > 0
		}
		return Figure{Value: float64(*r.Attack.First)}, true
	}},
	FirstAfter: {Seconds, Lower, false, func(r *Result) (Figure, bool) {
		if r.Attack.First == nil {
			return Figure{Value: math.Inf(1)}, r.Attack.Attempts > 0
		}
		return Figure{Value: r.Attack.FirstSeconds}, true
	}},
	Precision: {Share, Higher, false, func(r *Result) (Figure, bool) {
		f, ok := share(r.Attack.FlaggedAttacked, r.Attack.Flagged)
		return f, ok && r.Attack.Attempts > 0
	}},
	Evaluated: {Count, Lower, false, func(r *Result) (Figure, bool) {
		return Figure{Value: float64(r.Attack.EvaluatedPerDay)}, r.Attack.Attempts > 0
	}},
	OwnerDelayed: {Count, Lower, false, func(r *Result) (Figure, bool) {
		return Figure{Value: float64(r.Attack.OwnerDelayed)}, r.Attack.Attempts > 0
	}},
	Logins: {Count, Higher, true, func(r *Result) (Figure, bool) { return Figure{Value: float64(r.People.All.LogIns)}, true }},
	RefusedCount: {Count, Lower, false, func(r *Result) (Figure, bool) {
		return Figure{Value: float64(r.People.All.Refused)}, r.People.All.LogIns > 0
	}},
	RefusedRate: {Share, Lower, false, func(r *Result) (Figure, bool) { return share(r.People.All.Refused, r.People.All.LogIns) }},
	SteppedUp:   {Share, Lower, false, func(r *Result) (Figure, bool) { return steppedUp(r.People.All) }},
	CrowdUp:     {Share, Lower, false, func(r *Result) (Figure, bool) { return steppedUp(r.People.Crowd) }},
	QuietUp:     {Share, Lower, false, func(r *Result) (Figure, bool) { return steppedUp(r.People.Calm) }},
	QuietTrusted: {Share, Lower, false, func(r *Result) (Figure, bool) {
		return steppedUp(without(r.People.Device, r.People.DeviceAlarm))
	}},
	AlarmUp:      {Share, Lower, false, func(r *Result) (Figure, bool) { return steppedUp(r.People.Alarm) }},
	AlarmTrusted: {Share, Lower, false, func(r *Result) (Figure, bool) { return steppedUp(r.People.DeviceAlarm) }},
	AbroadUp:     {Share, Lower, false, func(r *Result) (Figure, bool) { return steppedUp(r.People.AbroadAlarm) }},
	AlarmAbroad: {Ratio, Lower, false, func(r *Result) (Figure, bool) {
		return ratio(r.People.AbroadAlarm, without(r.People.Alarm, r.People.AbroadAlarm))
	}},
	SharedUp: {Share, Lower, false, func(r *Result) (Figure, bool) { return steppedUp(r.People.Carrier) }},
	SharedRatio: {Ratio, Lower, false, func(r *Result) (Figure, bool) {
		return ratio(r.People.Carrier, without(r.People.All, r.People.Carrier))
	}},
	Delayed: {Share, Lower, false, func(r *Result) (Figure, bool) { return share(r.People.All.Delayed, r.People.All.LogIns) }},
	LockedOut: {Seconds, Lower, false, func(r *Result) (Figure, bool) {
		return Figure{Value: r.People.LockedMinutes * 60}, r.People.All.LogIns > 0
	}},
	AlarmCount: {Count, Lower, false, func(r *Result) (Figure, bool) {
		most, strata := 0, make(map[string]int)
		for _, a := range r.Alarms {
			strata[a.Stratum]++
			most = max(most, strata[a.Stratum])
		}
		return Figure{Value: float64(most)}, true
	}},
	AlarmLength: {Seconds, Lower, false, func(r *Result) (Figure, bool) {
		var longest time.Duration
		for _, a := range r.Alarms {
			longest = max(longest, a.To.Sub(a.From))
		}
		return Figure{Value: longest.Seconds()}, true
	}},
	// Those of rules are read off [Thresholds].
	BudgetUsed:  {Ratio, Lower, false, func(*Result) (Figure, bool) { return Figure{}, false }},
	BusierTimes: {Ratio, Lower, false, func(*Result) (Figure, bool) { return Figure{}, false }},
}

func share(of, among int) (Figure, bool) {
	if among <= 0 {
		return Figure{}, false
	}
	return Figure{float64(of) / float64(among), of, among}, true
}

func steppedUp(g Group) (Figure, bool) { return share(g.SteppedUp, g.LogIns) }

func without(all, some Group) Group {
	return Group{all.LogIns - some.LogIns, all.SteppedUp - some.SteppedUp, all.Refused - some.Refused, all.Delayed - some.Delayed}
}

// ratio is how many times as often some people are stepped up as others are. Nobody
// over nobody is 1.
func ratio(some, others Group) (Figure, bool) {
	a, ok := steppedUp(some)
	b, okToo := steppedUp(others)
	switch {
	case !ok || !okToo:
		return Figure{}, false
	case a.Of == 0 && b.Of == 0:
		return Figure{Value: 1}, true
	case b.Of == 0:
		return Figure{Value: math.Inf(1)}, true
	}
	return Figure{Value: a.Value / b.Value}, true
}

// worse reports whether a is worse than b.
func (m measure) worse(a, b float64) bool {
	if m.better == Higher {
		return a < b
	}
	return a > b
}

// within reports whether v keeps the limit.
func (m measure) within(v, limit float64) bool { return v == limit || m.worse(limit, v) }
