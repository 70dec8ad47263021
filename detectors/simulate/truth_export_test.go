package simulate

import (
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Truth is what only the simulation knows of an attempt.
type Truth struct {
	At               time.Time
	Kind             string // person, attacker or own (an account of the attacker's)
	Who              int    // below 0: nobody of the town
	Account          bool   // the name is that of Who
	Right, Device    bool
	Home, Office     bool // of Who
	Abroad, Carrier  bool
	Crowd            bool
	First            bool // it follows from no other
	Typo, Other      bool // what is wrong
	NoName, Stale    bool
	Company, Weight  int
	From             netip.Addr
	Name             detectors.Digest
	Password, Secret string // typed, and right
}

// Watch is d, and tell is told the truth of each attempt before d is asked.
func Watch(d Defense, tell func(Truth)) Defense { return &watched{d, tell} }

type watched struct {
	Defense
	tell func(Truth)
}

func (w *watched) witness(town *town, t *try) {
	truth := Truth{At: t.at, Kind: "person", Who: t.who, Right: t.right, Device: t.device, Abroad: t.abroad, Carrier: t.carrier, Crowd: t.crowd,
		First: t.again == 0, Typo: t.why == typo, Other: t.why == other, NoName: t.why == noName, Stale: t.why == stale,
		Company: -1, Weight: t.weight, From: t.where.address, Name: t.name, Password: t.password}
	switch t.kind {
	case attacking:
		truth.Kind = "attacker"
	case own:
		truth.Kind = "own"
	}
	if t.who >= 0 {
		truth.Account, truth.Company, truth.Secret = t.name == town.name(t.who), town.company(t.who), town.password(t.who)
		truth.Home, truth.Office = t.where == town.home(t.who), t.where == town.office(t.who)
	}
	w.tell(truth)
}

// Faults is what is wrong with a scenario.
func (s Scenario) Faults() []string { return s.check() }
