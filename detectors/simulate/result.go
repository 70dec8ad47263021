package simulate

import (
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Action is what a defense does with an attempt.
type Action string

const (
	Allow   Action = "allow"
	Delay   Action = "delay"
	StepUp  Action = "step_up"
	Refuse  Action = "refuse"
	Deceive Action = "deceive"
)

// stops reports whether a is an answer that holds an attempt up.
func (a Action) stops() bool { return a == StepUp || a == Refuse || a == Deceive }

// Defense stands between attempts and accounts. It knows only the time of events,
// which never goes back. Before is asked about an attempt whose outcome is not known;
// After, at once, when it is: Refused where Before refused, else as the password
// is, and with Unproven where it is right and Before asked for a step-up, which is
// answered alike either way.
type Defense interface {
	Before(e *detectors.Event) Action
	After(e *detectors.Event) Action
	// Proved tells that a person completed an attempt that was stepped up.
	Proved(e *detectors.Event)
	// Learn tells of a login of the time before, which is not judged.
	Learn(e *detectors.Event)
	// Alarms names the strata whose campaign alarm is on.
	Alarms(now time.Time) []string
}

// Result is how a scenario ended under a defense.
type Result struct {
	Scenario string        `json:"scenario"`
	Form     string        `json:"form"`
	Defense  string        `json:"defense"`
	Seed     uint64        `json:"seed"`
	Spread   float64       `json:"spread,omitempty"`
	Attack   AttackResult  `json:"attack"`
	People   PeopleResult  `json:"people"`
	Alarms   []AlarmResult `json:"alarms,omitempty"`
	Events   int           `json:"events"`
	// Matches are those of a defense that is [Grounded]; nil: it is not. A report has its
	// own section on them.
	Matches *Matches `json:"-"`
}

// AttackResult is what attackers got. An attempt is caught when it was answered before
// its client could learn whether the password was right.
type AttackResult struct {
	Attempts        int     `json:"attempts"`
	Caught          int     `json:"caught"`
	LateAttempts    int     `json:"late_attempts"` // from the third day on
	LateCaught      int     `json:"late_caught"`
	Hits            int     `json:"hits"`                 // right pairs of others' accounts
	Lost            int     `json:"lost"`                 // accounts with a session for the attacker
	First           *int    `json:"first"`                // attempts answered before the first that was caught; nil: none was
	FirstSeconds    float64 `json:"first_seconds"`        // from the first attempt to it
	EvaluatedPerDay int     `json:"evaluated_per_day"`    // most guesses at one account in a day that told whether they were right
	Flagged         int     `json:"flagged_accounts"`     // accounts of which an attempt was caught, and nobody proved to be its person
	FlaggedAttacked int     `json:"flagged_and_attacked"` // of these, attacked
	Slices          []Slice `json:"slices,omitempty"`     // of the scenario's time, at most 100
	OwnerDelayed    int     `json:"owner_delayed"`        // log-ins of victims on their own devices that were not simply let through
}

// Slice is part of the time.
type Slice struct {
	At       time.Time `json:"at"`
	Caught   int       `json:"caught"`
	Through  int       `json:"through"`
	Good     int       `json:"good"`     // good log-ins
	Bothered int       `json:"bothered"` // of these, stepped up or refused
}

// Group is good log-ins, with the right password, of one kind of people.
type Group struct {
	LogIns    int `json:"log_ins"`
	SteppedUp int `json:"stepped_up"`
	Refused   int `json:"refused"`
	Delayed   int `json:"delayed"`
}

func (g *Group) add(a Action, n int) {
	g.LogIns += n
	switch a {
	case StepUp:
		g.SteppedUp += n
	case Refuse, Deceive:
		g.Refused += n
	case Delay:
		g.Delayed += n
	}
}

// PeopleResult is what people met.
type PeopleResult struct {
	All           Group   `json:"all"`
	Calm          Group   `json:"calm"`   // while no campaign alarm was on
	Alarm         Group   `json:"alarm"`  // while one was
	Device        Group   `json:"device"` // with a device cookie
	DeviceAlarm   Group   `json:"device_alarm"`
	Abroad        Group   `json:"abroad"`
	AbroadAlarm   Group   `json:"abroad_alarm"`
	Carrier       Group   `json:"carrier"`        // behind addresses that a carrier shares
	Crowd         Group   `json:"crowd"`          // of the scenario's crowds
	Never         int     `json:"never"`          // people who never got in: step-ups that were not passed
	LockedMinutes float64 `json:"locked_minutes"` // longest from a refusal of the right password to being let in
}

// AlarmResult is one campaign alarm.
type AlarmResult struct {
	Stratum string    `json:"stratum"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
}
