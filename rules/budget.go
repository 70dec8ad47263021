package rules

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

const (
	// budgetAge is how long before a hit the gate must have known the account: a new one
	// costs an attacker nothing.
	budgetAge = 7 * 24 * time.Hour
	// budgetProof is how long after a hit a proof is one of that hit.
	budgetProof = 24 * time.Hour
	// budgetOrganizations is how many organizations must have benign hits. No one of them
	// counts for more than its share among so many.
	budgetOrganizations = 5
	// budgetLeast is how many hits are judged at least.
	budgetLeast = 20
	// budgetZ is the quantile of a two-sided interval of 95%.
	budgetZ = 1.959964
)

// Hit is a match of a rule that touched an account, or what a decision of the rule did
// to the account. A budget counts an account once.
type Hit struct {
	Rule         ID                     `json:"rule"`
	Generation   string                 `json:"generation"`
	Time         time.Time              `json:"time"` // of the event
	Account      detectors.Account      `json:"account"`
	Organization detectors.Organization `json:"organization,omitempty"`
	Since        time.Time              `json:"since"` // when the gate first saw the account
	Device       string                 `json:"device,omitempty"`
	Network      netip.Prefix           `json:"network"`
	Fingerprint  string                 `json:"fingerprint,omitempty"`
	Benign       time.Time              `json:"benign,omitzero"` // when it proved benign; zero: it did not
}

// NewHit is what rule of a generation did to the account that e is about.
func NewHit(rule ID, generation string, e detectors.Event) Hit {
	return Hit{Rule: rule, Generation: generation, Time: e.Time, Account: e.Account, Organization: e.Organization, Since: e.AccountSince,
		Device: e.Device.ID, Network: e.Source.Network, Fingerprint: e.Fingerprint}
}

// Counts reports whether a budget counts h: the account is known, and was a week
// before.
func (h Hit) Counts() bool {
	return h.Account != "" && !h.Since.IsZero() && h.Time.Sub(h.Since) >= budgetAge
}

// SameClient reports whether other comes from where h does: from one device, or where
// there is no device cookie from one network with one client.
func (h Hit) SameClient(other Hit) bool {
	if h.Device != "" || other.Device != "" {
		return h.Device == other.Device
	}
	return h.Network.IsValid() && h.Network == other.Network && h.Fingerprint == other.Fingerprint
}

// ProvedBy reports whether e shows that h was the account's owner: within a day, from
// the same place, somebody gave a second factor of the account; or completed a log-in
// on the device of the hit, which the account knew for a day or longer and so before
// the hit. A right password proves nothing, nor does a device that came with it: who
// stole the one has the other. Who relays a second factor is taken for its owner.
func (h Hit) ProvedBy(e detectors.Event) bool {
	if e.Account != h.Account || h.Account == "" || e.Outcome != detectors.Success || e.Unproven ||
		e.Time.Before(h.Time) || e.Time.Sub(h.Time) > budgetProof {
		return false
	}
	switch e.Kind {
	case detectors.Factor:
		return h.Network.IsValid() && h.Network == e.Source.Network
	case detectors.Login, detectors.Door:
		return e.Device.State == detectors.Trusted && h.SameClient(Hit{Device: e.Device.ID, Network: e.Source.Network, Fingerprint: e.Fingerprint})
	}
	return false
}

// Proves reports whether e is of the kind that proves hits.
func Proves(e detectors.Event) bool {
	return e.Account != "" && e.Outcome == detectors.Success && !e.Unproven &&
		(e.Kind == detectors.Factor || (e.Kind == detectors.Login || e.Kind == detectors.Door) && e.Device.State == detectors.Trusted)
}

// Judgement is how a budget stands.
type Judgement struct {
	Hits          int     `json:"hits"`          // accounts that were hit and count
	Benign        int     `json:"benign"`        // of these, that proved benign and count
	Organizations int     `json:"organizations"` // that the benign ones belong to
	Least         float64 `json:"least"`         // percent of hits that are benign, at least and at most (95%)
	Most          float64 `json:"most"`
	Over          bool    `json:"over"` // the budget is spent, beyond doubt
}

// Judge judges hits, one for each account, of which those count that [Hit.Counts]. The
// budget is spent when the lower end of the interval of the share of benign hits is
// above what the owner accepts, from 20 hits and from 5 organizations with benign hits
// on. Of the benign hits of an organization so many count that it has a fifth of those
// that count at most; the others are left out. So whoever has 500 accounts of his own
// cannot spend it, unless they are old ones in five organizations of his.
func (b Budget) Judge(hits []Hit) Judgement {
	benign := map[detectors.Organization]int{}
	other := 0
	for _, h := range hits {
		switch {
		case !h.Counts():
		case h.Benign.IsZero():
			other++
		default:
			benign[h.Organization]++
		}
	}
	j := Judgement{Organizations: len(benign)}
	j.Benign = capped(benign)
	j.Hits = j.Benign + other
	least, most := Wilson(j.Benign, j.Hits)
	j.Least, j.Most = 100*least, 100*most
	j.Over = j.Hits >= budgetLeast && j.Benign > 0 && j.Least > b.FalsePositives
	return j
}

// capped is how many of the counts are left when each is cut so that it is at most its
// share of all that are left; 0 where there are fewer than budgetOrganizations.
func capped(counts map[detectors.Organization]int) int {
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	for ; most > 0; most-- {
		sum := 0
		for _, n := range counts {
			sum += min(n, most)
		}
		if most*budgetOrganizations <= sum {
			return sum
		}
	}
	return 0
}

// Falls is after how many hits a rule falls of which every hit proves benign, evenly
// over organizations; 0: never, because the owner accepts that. It falls once more
// after as many.
func (b Budget) Falls() int {
	accepted := b.FalsePositives / 100
	if accepted >= 1 {
		return 0
	}
	// Of n hits, all benign, the lower end is n / (n + z²).
	n := int(accepted/(1-accepted)*budgetZ*budgetZ) + 1
	return max(budgetLeast, (n+budgetOrganizations-1)/budgetOrganizations*budgetOrganizations)
}

// Wilson is the interval of 95% of a share of which k of n were seen (E. B. Wilson,
// 1927); from 0 to 1 where n is 0.
func Wilson(k, n int) (lower, upper float64) {
	if n <= 0 {
		return 0, 1
	}
	size, share := float64(n), float64(k)/float64(n)
	middle := share + budgetZ*budgetZ/(2*size)
	spread := budgetZ * math.Sqrt(share*(1-share)/size+budgetZ*budgetZ/(4*size*size))
	whole := 1 + budgetZ*budgetZ/size
	return max(0, (middle-spread)/whole), min(1, (middle+spread)/whole)
}

// Fall is how far a rule that spent its budget has fallen. The zero value is that it
// stands.
type Fall uint8

const (
	Stands   Fall = iota
	Softened      // what it refused or deceived it steps up
	Silenced      // it is in shadow
)

var fallNames = [...]string{"stands", "step_up", "shadow"}

func (f Fall) String() string {
	if int(f) < len(fallNames) {
		return fallNames[f]
	}
	return fmt.Sprintf("fall(%d)", uint8(f))
}

// MarshalText implements encoding.TextMarshaler.
func (f Fall) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText accepts what MarshalText writes and nothing else.
func (f *Fall) UnmarshalText(text []byte) error {
	for i, name := range fallNames {
		if string(text) == name {
			*f = Fall(i)
			return nil
		}
	}
	return fmt.Errorf("unknown fall %.20q: want stands, step_up or shadow", text)
}

// Soften is what is left of an action after the fall.
func (f Fall) Soften(a Action) Action {
	if f != Stands && a > StepUp {
		return StepUp
	}
	return a
}

// Under is f as its rule proposes it after a fall.
func (f Finding) Under(fall Fall) Finding {
	if fall == Stands {
		return f
	}
	f.Then = slices.Clone(f.Then)
	for i := range f.Then {
		p := &f.Then[i]
		p.Answer = fall.Soften(p.Answer)
		if p.Decide != nil {
			d := *p.Decide
			d.Action = fall.Soften(d.Action)
			p.Decide = &d
		}
		if fall == Silenced {
			p.Mode, f.Mode = Shadow, Shadow
		}
	}
	return f
}
