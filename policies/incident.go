package policies

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// IncidentState is how far an incident has come.
type IncidentState string

const (
	IncidentProposed   IncidentState = "proposed"   // by rules; nobody has looked yet
	IncidentDeclared   IncidentState = "declared"   // somebody says that it is one, and works on it
	IncidentContained  IncidentState = "contained"  // it does no further harm
	IncidentEradicated IncidentState = "eradicated" // its cause is gone
	IncidentRecovering IncidentState = "recovering" // what it damaged is being put right
	IncidentClosed     IncidentState = "closed"     // over, or never was one
)

// IncidentStates lists every state, in the order in which an incident goes through them.
func IncidentStates() []IncidentState {
	return []IncidentState{IncidentProposed, IncidentDeclared, IncidentContained, IncidentEradicated, IncidentRecovering, IncidentClosed}
}

// moves are the states that may follow. Back to declared goes what turns out not to be
// contained or over; what is closed stays so, and what is found later is another incident.
var moves = map[IncidentState][]IncidentState{
	IncidentProposed:   {IncidentDeclared, IncidentClosed},
	IncidentDeclared:   {IncidentContained, IncidentClosed},
	IncidentContained:  {IncidentDeclared, IncidentEradicated, IncidentClosed},
	IncidentEradicated: {IncidentDeclared, IncidentRecovering, IncidentClosed},
	IncidentRecovering: {IncidentDeclared, IncidentClosed},
}

// Next is the states that may follow s; none after closed.
func (s IncidentState) Next() []IncidentState { return slices.Clone(moves[s]) }

// ErrNoMove is the kind of every [MoveError].
var ErrNoMove = errors.New("no such move")

// MoveError says that an incident cannot go from one state to another.
type MoveError struct{ From, To IncidentState }

func (e *MoveError) Error() string {
	next := e.From.Next()
	if len(next) == 0 {
		return fmt.Sprintf("an incident that is %s stays so; what is found later is another one", e.From)
	}
	names := make([]string, len(next))
	for i, s := range next {
		names[i] = string(s)
	}
	return fmt.Sprintf("an incident that is %s cannot become %s; it can become %s", e.From, e.To, strings.Join(names, ", "))
}

func (e *MoveError) Unwrap() error { return ErrNoMove }

// Incident is what findings of rules propose to look into as one thing: a category of
// attack on or by one subject. Times have microseconds.
type Incident struct {
	ID       string        `json:"id"`
	Category string        `json:"category"`
	Key      string        `json:"key"`   // what the value is of: a scope of rules such as source.network, or actor
	Value    string        `json:"value"` // at most 256 bytes
	Rules    []rules.ID    `json:"rules"` // that found it, the first at the beginning; at most 32
	State    IncidentState `json:"state"`
	Window   time.Time     `json:"window"` // start of the aligned window in which it was proposed
	// FirstSeen and LastSeen are the times of the first and last event that a rule found
	// something of.
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
	// Found is how many findings there were, also those that are not kept.
	Found int `json:"found"`
	// Touched is how many accounts the findings are about; at most 200 are told apart,
	// and TouchedMore says that there are more.
	Touched     int              `json:"touched"`
	TouchedMore bool             `json:"touched_more,omitempty"`
	Changes     []IncidentChange `json:"changes"` // the first is the proposal; at most 100
}

// IncidentChange says when and why an incident came into a state.
type IncidentChange struct {
	State IncidentState `json:"state"`
	By    string        `json:"by"` // the rule that proposed it, an operator, or the gate
	At    time.Time     `json:"at"`
	Note  string        `json:"note"` // the criteria that were met; at most 500 characters
}

// IncidentView is an incident with what belongs to it. Lists are in the order in which
// things came into being.
type IncidentView struct {
	Incident
	Times     IncidentTimes `json:"times"`
	Findings  []string      `json:"findings"`  // ids of the first 200 that are kept
	Decisions []string      `json:"decisions"` // ids of the first 200 that its findings led to
	Accounts  []string      `json:"accounts"`  // the first 200
}

// IncidentTimes are how long it took to get somewhere; absent where it was not reached.
// Their means over incidents are MTTD, MTTA, MTTC and MTTR.
type IncidentTimes struct {
	Detect      *Seconds `json:"detect_seconds,omitempty"`      // from the first event that a rule found something of until the proposal
	Acknowledge *Seconds `json:"acknowledge_seconds,omitempty"` // from the proposal until an operator declared or closed it
	Contain     *Seconds `json:"contain_seconds,omitempty"`     // from the proposal until it was contained for good
	Recover     *Seconds `json:"recover_seconds,omitempty"`     // from the proposal until what had been declared was closed
}

// Seconds is a duration that is written as a number of seconds.
type Seconds float64

// Duration is s as a duration.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// ByGate is who closes what nobody declared.
const ByGate = "(gate)"

// Times is how long it took, as far as i has come.
func (i Incident) Times() (t IncidentTimes) {
	if len(i.Changes) == 0 {
		return t
	}
	proposed := i.Changes[0].At
	since := func(start, end time.Time) *Seconds {
		s := Seconds(max(0, end.Sub(start)).Seconds())
		return &s
	}
	t.Detect = since(i.FirstSeen, proposed)
	declared := false
	for _, c := range i.Changes[1:] {
		if t.Acknowledge == nil && c.By != ByGate {
			t.Acknowledge = since(proposed, c.At)
		}
		switch c.State {
		case IncidentDeclared:
			declared, t.Contain = true, nil // it was not contained, whoever said so
		case IncidentContained:
			t.Contain = since(proposed, c.At)
		case IncidentClosed:
			if declared {
				t.Recover = since(proposed, c.At)
			}
		}
	}
	return t
}

const (
	// incidentWindow is what times of proposals are aligned to. For as long after an
	// incident was closed, what is found of its subject belongs to it still: nodes that
	// lag do not bring it back.
	incidentWindow = time.Hour
	// unclaimedAfter is how long nothing must be found of an incident that nobody
	// declared until the gate closes it.
	unclaimedAfter = 7 * 24 * time.Hour
	keepIncidents  = keepEnded // after they were closed

	maxOpenIncidents   = 1000
	maxOpenOfCategory  = 200
	maxClosedIncidents = 10_000
	maxIncidentRules   = 32
	maxTouched         = 200
	maxIncidentRefs    = 200 // findings, and decisions
	maxIncidentChanges = 100
)

// IncidentSubject is what findings must share to be of one incident.
type IncidentSubject struct{ Category, Key, Value string }

// Compare orders subjects.
func (s IncidentSubject) Compare(o IncidentSubject) int {
	return cmp.Or(cmp.Compare(s.Category, o.Category), cmp.Compare(s.Key, o.Key), cmp.Compare(s.Value, o.Value))
}

// Proposal is what findings propose as one incident, summed up.
type Proposal struct {
	IncidentSubject
	Rules    []rules.ID
	Why      string // of the first
	First    time.Time
	Last     time.Time
	Count    int
	Accounts []string // different ones, at most 200
	More     bool     // there are more accounts
}

// ProposalsOf is which incidents a finding about e proposes, as far as it is enforced.
// Where e does not tell the value of a key, such as an ASN without a geo file, or the
// value is longer than 256 bytes, nothing is proposed: an unknown value is no value that
// others share.
func ProposalsOf(f rules.Finding, e detectors.Event) []Proposal {
	var out []Proposal
	for _, then := range f.Then {
		if then.Incident == nil || cmp.Or(then.Mode, f.Mode) != rules.Enforce {
			continue
		}
		value := storable(KeyOf(then.Incident.Key, e))
		if value == "" || len(value) > maxValue {
			continue
		}
		p := Proposal{
			IncidentSubject: IncidentSubject{then.Incident.Category, then.Incident.Key, value},
			Rules:           []rules.ID{f.Rule}, Why: shorten(f.Why, maxReason), First: f.Time, Last: f.Time, Count: 1,
		}
		if e.Account != "" && len(e.Account) <= maxValue {
			p.Accounts = []string{string(e.Account)}
		}
		out = append(out, p)
	}
	return out
}

// Join adds what p sums up, which has the same subject, to that of s.
func (s *Proposal) Join(p Proposal) {
	if p.First.Before(s.First) {
		s.First, s.Why = p.First, p.Why
	}
	if p.Last.After(s.Last) {
		s.Last = p.Last
	}
	s.Count += p.Count
	s.Rules = addRules(s.Rules, p.Rules)
	s.More = s.More || p.More
	for _, a := range p.Accounts {
		switch {
		case slices.Contains(s.Accounts, a):
		case len(s.Accounts) >= maxTouched:
			s.More = true
		default:
			s.Accounts = append(s.Accounts, a)
		}
	}
}

func addRules(to, more []rules.ID) []rules.ID {
	for _, r := range more {
		if len(to) < maxIncidentRules && !slices.Contains(to, r) {
			to = append(to, r)
		}
	}
	return to
}

// CheckMove tells what is wrong with a move that is asked for, whatever the incident.
func CheckMove(to IncidentState, note string) error {
	var faults FieldErrors
	if !slices.Contains(IncidentStates(), to) || to == IncidentProposed {
		faults = append(faults, FieldError{"state", fmt.Sprintf("%.64q is none to move to; want one of declared, contained, eradicated, recovering, closed", to)})
	}
	switch n := utf8.RuneCountInString(note); {
	case strings.TrimSpace(note) == "":
		faults = append(faults, FieldError{"note", "is missing: say by which criteria"})
	case n > maxReason:
		faults = append(faults, FieldError{"note", fmt.Sprintf("has %d characters; at most %d", n, maxReason)})
	case !plainText(note, true):
		faults = append(faults, FieldError{"note", "contains control characters or is not UTF-8"})
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}
