// Package rules loads and runs what the security team writes.
//
// A rule is one YAML file: counters it needs, a condition over the event, the
// counters and the signals of package detectors, what to do when it holds, and
// tests. [Load] checks every file strictly, tells all faults with their place and
// leaves out what is faulty or fails its own tests. A [Set] counts events with
// Observe and answers with Evaluate; a [Finding] is evidence and a proposal. What
// happens is decided by package policies.
//
// The only clock is the event's time, so that live traffic, a replayed record and
// a rule's tests run the same code. A Set does no I/O and is safe for concurrent
// use. Its state is bounded: counters say what they keep and forget first, a file
// has at most 256 KiB, and no condition can loop. Nothing panics on a bad file.
//
// The last good version of a file that went bad stays in force with
// [LoadWithHistory]. Counts survive a reload by Adopt and a restart by Snapshot and
// Restore.
package rules

import (
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// ID names a rule, for people and for the record: "stuffing.sequential". It is
// unique in a [Set] and stays the same when the rule's text changes.
type ID string

// Stage is the point on the way of a request at which a rule is asked.
type Stage string

const (
	Request     Stage = "request"      // a reset, signup, invitation and the like, before it is passed on; counters and signals do not include it
	LoginBefore Stage = "login.before" // an attempt is known, its outcome is not; counters and signals do not include it
	LoginAfter  Stage = "login.after"  // the outcome is known and was observed; counters and signals include it
	Factor      Stage = "factor"       // a second factor was given and was observed, right or wrong
	Session     Stage = "session"      // a session began, was used anew or ended, and that was observed
	Message     Stage = "message"      // somebody sends a message, before it is passed on; counters and signals do not include it
)

// stages are all of them, in the order of a visit.
var stages = []Stage{Request, LoginBefore, LoginAfter, Factor, Session, Message}

// answers are what a rule may answer at a stage. The rest has no meaning there: who
// just gave a factor cannot be asked for one.
var answers = map[Stage][]Action{
	Request:     {Delay, StepUp, Refuse, Deceive},
	LoginBefore: {Delay, StepUp, Refuse, Deceive},
	LoginAfter:  {Delay, StepUp, Refuse, Deceive},
	Factor:      {Delay, Refuse},
	Session:     {Delay, StepUp, Refuse},
	Message:     {Delay, StepUp, Refuse},
}

// Rule is one rule file, decoded and checked. README.md explains every field to
// those who write one.
type Rule struct {
	ID         ID                 `json:"id" validate:"max=100"`
	Title      string             `json:"title" validate:"max=200,line"`
	Severity   string             `json:"severity"` // critical, high, medium, low or info
	Tags       Tags               `json:"tags"`
	Owner      string             `json:"owner" validate:"max=100,line"`
	Reason     string             `json:"reason" validate:"max=2000"`
	ReviewBy   time.Time          `json:"review_by"` // midnight UTC; checking that it has not passed is the caller's
	Count      map[string]Counter `json:"count,omitempty"`
	On         Stage              `json:"on"`
	When       string             `json:"when" validate:"max=4096"` // CEL, of type bool
	Except     []Exemption        `json:"except,omitempty" validate:"max=32,dive"`
	Then       []Response         `json:"then" validate:"max=8,dive"`
	Mode       Mode               `json:"mode"`
	Canary     float64            `json:"canary,omitempty"` // with Mode Enforce: percent of subjects it acts for; 0: all of them
	Budget     *Budget            `json:"budget,omitempty"`
	Tests      []Test             `json:"tests" validate:"max=32,dive"`
	Generation string             `json:"generation"`      // SHA-256 of the file, in hex
	Lists      map[string]string  `json:"lists,omitempty"` // that it asks, by name: SHA-256 of each with what it includes, in hex
	File       string             `json:"file"`
	Text       string             `json:"-"` // all of the file
}

// Tags tie a rule to the catalogues auditors ask about.
type Tags struct {
	CSF    []string `json:"csf,omitempty"`    // NIST CSF 2.0 subcategories: DE.CM-09
	Attack []string `json:"attack,omitempty"` // MITRE ATT&CK techniques: T1110.004
	OAT    []string `json:"oat,omitempty"`    // OWASP automated threats: OAT-008
}

// Response is one thing to do about a match. Exactly one field is set, besides Else
// and Mode.
type Response struct {
	Decide   *Decide   `json:"decide,omitempty"`
	Answer   Action    `json:"answer,omitempty"` // to this attempt alone; Allow: not set
	Else     *Action   `json:"else,omitempty"`   // with Answer: what to answer where the preset or the policy cannot do it; nil: as the policies have it
	Notify   *Notify   `json:"notify,omitempty"`
	Incident *Incident `json:"incident,omitempty"`
	Tag      string    `json:"tag,omitempty" validate:"max=64"` // a word that the finding carries, for searching and for reports
	Mode     Mode      `json:"mode,omitempty"`                  // in a finding: Enforce or Shadow, for the subject of this response; in a rule: empty
}

// Decide asks for a lasting decision about the event's subject of a scope.
type Decide struct {
	Scope  string        `json:"scope"` // source.address, source.network, source.asn, source.country, account, session, device, credential or fingerprint
	Action Action        `json:"action"`
	For    time.Duration `json:"for"`            // 1 s to 30 d
	Else   *Action       `json:"else,omitempty"` // where the preset or the policy cannot do Action; Allow: nothing; nil: as the policies have it
}

// Notify tells people, once per value of the field Key within Every.
type Notify struct {
	To    string        `json:"to"`    // operators, owner (of the rule) or account (whom the event is about)
	Key   string        `json:"key"`   // a scope, as in Decide, or actor
	Every time.Duration `json:"every"` // 1 min to 30 d
}

// Incident proposes an incident, one per value of the field Key.
type Incident struct {
	Category string `json:"category" validate:"max=64"`
	Key      string `json:"key"` // a scope, as in Decide, or actor
}

// Exemption says which matches of a rule are none, who vouches for that, and until
// when. Exactly one of When and List is set.
type Exemption struct {
	When   string    `json:"when,omitempty" validate:"max=4096"` // CEL over the event alone, of type bool
	List   string    `json:"list,omitempty" validate:"max=64"`   // name of a list that the event's address, operator, account, domain or fingerprint is in
	Owner  string    `json:"owner" validate:"max=100,line"`
	Reason string    `json:"reason" validate:"max=2000"`
	Until  time.Time `json:"until"` // midnight UTC; an event of this time or later is not covered
}

// Budget is how many false positives the rule's owner accepts: a share of the rule's hits,
// not of log-ins. Judge holds it against hits. A simulation of days without an attack,
// where every hit is a false one, holds it against the share of good log-ins that the rule
// matches: where that is within the budget, so is the share of hits as soon as an attack
// makes as many hits as there are good log-ins.
type Budget struct {
	FalsePositives float64       `json:"false_positives"` // percent of hits, an account being one of them, that may be people who did nothing wrong
	Over           time.Duration `json:"over"`            // the time whose hits count, up to now
}

// Test is one story in a rule file and how it ends. Load runs all of them.
type Test struct {
	Name   string  `json:"name" validate:"max=200,line"`
	Expect *Decide `json:"expect"` // the action and scope wanted, a zero Decide being any match; nil: the rule must not match
}

// AttemptScope is the scope of an answer in the expectation of a test.
const AttemptScope = "attempt"

// Finding says that a rule matched an event. It is evidence with a proposal;
// whether anything happens is decided by package policies.
type Finding struct {
	ID         string             `json:"id,omitempty"` // given by whoever keeps findings
	Rule       ID                 `json:"rule"`
	Title      string             `json:"title"`
	Severity   string             `json:"severity"`
	Generation string             `json:"generation"` // of the rule's file, so that a match can be explained after an edit
	Mode       Mode               `json:"mode"`       // Enforce where one of Then is; else Shadow
	Time       time.Time          `json:"time"`       // of the event
	Why        string             `json:"why"`        // a sentence for people at the console, never for clients
	Values     map[string]any     `json:"values"`     // counters and signals the condition names: float64 each, string where a later version needs one
	Then       []Response         `json:"then"`
	Event      detectors.EventKey `json:"event"`
}
