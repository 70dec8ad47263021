package replay

import (
	"encoding/json"
	"io"
	"math"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// Report is what a replay found. README.md describes its JSON.
type Report struct {
	Format int `json:"format"` // 1; another number where members changed their meaning

	// Set by the caller: what was replayed, and what OLD and NEW are.
	Events string `json:"events_from"`
	Old    string `json:"old"`
	New    string `json:"new"`

	From    time.Time `json:"from,omitzero"` // first event that was counted
	To      time.Time `json:"to,omitzero"`   // last one
	Read    uint64    `json:"read"`          // events that were replayed
	Counted uint64    `json:"counted"`       // of these, in the time asked for
	Summed  uint64    `json:"summed"`        // of these, from sums of the record: nobody knows who they are about
	Counts

	Rules    []RuleReport   `json:"rules"`    // those that differ first
	Gained   Group          `json:"gained"`   // events that some rule of NEW hits, and none of OLD
	Lost     Group          `json:"lost"`     // the other way round
	Stricter Group          `json:"stricter"` // what NEW would answer more strictly, if the rules that differ were enforced
	Milder   Group          `json:"milder"`   // the other way round
	Answers  []AnswerChange `json:"answers"`  // of all events
	Width    float64        `json:"bin_seconds"`
	Bins     []Bin          `json:"bins"`
	Examples struct {
		Gained []Example `json:"gained"`
		Lost   []Example `json:"lost"`
	} `json:"examples"`
	Errors []string `json:"errors"` // conditions that could not be evaluated
}

// RuleReport is what one rule hits. An event is one hit of a rule at most.
type RuleReport struct {
	Rule    rules.ID   `json:"rule"`
	Change  Change     `json:"change"`
	OldMode rules.Mode `json:"old_mode,omitempty"`
	NewMode rules.Mode `json:"new_mode,omitempty"`
	Old     uint64     `json:"old"` // hits in OLD
	New     uint64     `json:"new"` // hits in NEW
	// Matches that exemptions kept from being hits, of all events that were replayed.
	OldExempted uint64 `json:"old_exempted,omitempty"`
	NewExempted uint64 `json:"new_exempted,omitempty"`
	// Hits about which an action of the rule could not be done, and another is in its place.
	OldFellBack uint64 `json:"old_fell_back,omitempty"`
	NewFellBack uint64 `json:"new_fell_back,omitempty"`
	// Of a rule that differs: all hits in NEW, those of NEW alone and those of OLD
	// alone.
	All    *Group `json:"all,omitempty"`
	Gained *Group `json:"gained,omitempty"`
	Lost   *Group `json:"lost,omitempty"`
}

// Group says whom events are about.
type Group struct {
	Events        uint64   `json:"events"`
	Summed        uint64   `json:"summed"` // of these, from sums of the record
	Names         Number   `json:"names"`  // different ones that were typed
	Accounts      Number   `json:"accounts"`
	Organizations Number   `json:"organizations"`
	Benign        Estimate `json:"benign"`
}

// Number counts different things.
type Number struct {
	N     uint64 `json:"n"`
	Exact bool   `json:"exact"` // else estimated, with a standard error of 3.2%
}

// AnswerChange is how many events that OLD answers one way NEW answers another way, or the same.
type AnswerChange struct {
	Old    rules.Action `json:"old"`
	New    rules.Action `json:"new"`
	Events uint64       `json:"events"`
}

// Example is one of the first hits that differ.
type Example struct {
	Time         time.Time              `json:"time"`
	Rule         rules.ID               `json:"rule"`
	Network      string                 `json:"network,omitempty"`
	Name         string                 `json:"name,omitempty"` // as it may be shown, or its keyed digest
	Account      detectors.Account      `json:"account,omitempty"`
	Organization detectors.Organization `json:"organization,omitempty"`
	Outcome      detectors.Outcome      `json:"outcome"`
	Why          string                 `json:"why"`
}

// example adds what found says of r, if there is room.
func (j *judge) example(to []Example, r *Recorded, found []rules.Finding) []Example {
	if len(to) >= j.Examples || len(found) == 0 {
		return to
	}
	e := &r.Event
	x := Example{
		Time: e.Time.UTC(), Rule: found[0].Rule, Name: e.Name.Display, Account: e.Account, Organization: e.Organization,
		Outcome: e.Outcome, Why: found[0].Why,
	}
	if x.Name == "" {
		x.Name = e.Name.Digest.String()
	}
	if e.Source.Network.IsValid() {
		x.Network = e.Source.Network.String()
	}
	return append(to, x)
}

func (j *judge) report(c Counts) *Report {
	r := &Report{
		Format: 1, From: j.first.UTC(), To: j.last.UTC(), Read: j.events, Counted: j.counted, Summed: j.summed, Counts: c,
		Gained: j.gainedAny.report(j.last), Lost: j.lostAny.report(j.last), Stricter: j.stricter.report(j.last), Milder: j.milder.report(j.last),
		Width: float64(j.bins.width), Bins: j.bins.list(), Rules: []RuleReport{}, Answers: []AnswerChange{}, Errors: []string{},
	}
	if j.first.IsZero() {
		r.From, r.To = time.Time{}, time.Time{}
	}
	exempted := func(set *rules.Set) map[rules.ID]uint64 {
		sum := make(map[rules.ID]uint64)
		for _, x := range set.Exempted() {
			sum[x.Rule] += x.Matches
		}
		return sum
	}
	before, now := exempted(j.old), exempted(j.changed)
	for _, t := range j.tallies {
		rule := RuleReport{Rule: t.id, Change: t.change, Old: t.oldHits, New: t.newHits, OldExempted: before[t.id], NewExempted: now[t.id], OldFellBack: t.oldInstead, NewFellBack: t.newInstead}
		if t.change == Same {
			rule.NewExempted = rule.OldExempted
		}
		if t.old != nil {
			rule.OldMode = t.old.Mode
		}
		if t.new != nil {
			rule.NewMode = t.new.Mode
		}
		if t.change != Same {
			all, gained, lost := t.byNew.report(j.last), t.gained.report(j.last), t.lost.report(j.last)
			rule.All, rule.Gained, rule.Lost = &all, &gained, &lost
		}
		r.Rules = append(r.Rules, rule)
	}
	for old := range j.matrix {
		for now, n := range j.matrix[old] {
			if n > 0 {
				r.Answers = append(r.Answers, AnswerChange{rules.Action(old), rules.Action(now), n})
			}
		}
	}
	r.Examples.Gained, r.Examples.Lost = append([]Example{}, j.gainedExamples...), append([]Example{}, j.lostOnes...)
	for _, set := range [...]*rules.Set{j.old, j.changed} {
		for _, err := range set.Errors() {
			r.Errors = append(r.Errors, err.Error())
		}
	}
	return r
}

func (g *group) report(end time.Time) Group {
	number := func(d *distinct) Number {
		n, exact := d.count()
		return Number{n, exact}
	}
	return Group{
		Events: g.hits, Summed: g.summed,
		Names: number(&g.names), Accounts: number(&g.accounts), Organizations: number(&g.organizations), Benign: g.who.estimate(end),
	}
}

// WriteJSON writes r as one JSON object, indented. Shares have four digits.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// MarshalJSON rounds shares to what they can tell.
func (e Estimate) MarshalJSON() ([]byte, error) {
	type plain Estimate
	e.Share, e.Low, e.High = rounded(e.Share), rounded(e.Low), rounded(e.High)
	return json.Marshal(plain(e))
}

func rounded(v float64) float64 { return math.Round(v*1e4) / 1e4 }
