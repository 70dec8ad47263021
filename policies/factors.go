package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kidoban/kidoban/detectors"
)

// FactorPolicy is who must have a second factor and when it is asked for.
//
// Each requirement that matches a login asks for something, and the strictest
// counts: a further one, or a further risk, adds to what is asked and never takes
// from it (SP 800-63B-4 section 2: fraud indicators are no substitute for an
// authentication factor). A condition on what is not known matches.
type FactorPolicy struct {
	StrictTOTP       bool   `json:"strict_totp"`       // only the current code, not the one before (ASVS 5.0 6.5.5)
	Cap              int    `json:"cap"`               // failures in a row that disable an authenticator
	UserVerification string `json:"user_verification"` // of keys: "preferred" or "required"

	Require []Requirement `json:"require"`
	Grace   time.Duration `json:"grace_ns"` // to enrol, where a requirement says factor

	Remember  time.Duration   `json:"remember_ns"` // how long a device may go without its factor, at AAL1; 0: not at all
	Sensitive SensitivePolicy `json:"sensitive"`
	AAL2      SessionPolicy   `json:"aal2"` // of sessions that a factor began

	Evidence       EvidencePolicy `json:"evidence"`
	Administrators []string       `json:"administrators"` // roles that may issue enrolment codes to their own organization
	Recovery       RecoveryPolicy `json:"recovery"`

	Continue string        `json:"continue"` // from where a login that is held may be continued elsewhere: "same_network" or "anywhere"
	Hold     time.Duration `json:"hold_ns"`  // how long an answer waits for its factor
}

// SensitivePolicy is where a factor is asked for again.
type SensitivePolicy struct {
	Within time.Duration          `json:"within_ns"` // of the last time
	Routes []detectors.RouteClass `json:"routes"`
}

// EvidencePolicy is what lets somebody bind a first factor, beside the password.
type EvidencePolicy struct {
	Device time.Duration `json:"device_ns"` // a device that the account has known for this long; 0: none does
	Mail   bool          `json:"mail"`      // a link that is mailed to the directory's addresses
	Code   bool          `json:"code"`      // a code from an administrator or an operator
}

// RecoveryPolicy is how somebody who lost every factor comes back.
type RecoveryPolicy struct {
	Wait time.Duration `json:"wait_ns"` // in which the owner can cancel it
}

// Demand is what a requirement asks for, ordered by strictness.
type Demand uint8

const (
	DemandNothing  Demand = iota
	DemandEnrolled        // who has a factor is asked for it
	DemandConfirm         // and who has none gets a code by mail
	DemandFactor          // and who has none must enrol
)

var demandNames = []string{"none", "enrolled", "confirm", "factor"}

func (d Demand) String() string {
	if int(d) < len(demandNames) {
		return demandNames[d]
	}
	return fmt.Sprintf("demand(%d)", uint8(d))
}

// MarshalText implements encoding.TextMarshaler.
func (d Demand) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Requirement asks for Need where all of its conditions hold. A condition that is
// left out holds always.
type Requirement struct {
	Need          Demand                  `json:"need"`
	Organizations []string                `json:"organizations,omitempty"`
	Roles         []string                `json:"roles,omitempty"` // and groups, as the directory has them; one is enough
	Networks      []netip.Prefix          `json:"networks,omitempty"`
	Outside       []netip.Prefix          `json:"outside,omitempty"` // in none of these
	Countries     []string                `json:"countries,omitempty"`
	Devices       []detectors.DeviceState `json:"devices,omitempty"` // with each all that are trusted less
	StepUp        bool                    `json:"step_up,omitempty"` // while a step-up of a rule or an operator holds
	Routes        []detectors.RouteClass  `json:"routes,omitempty"`
	From          time.Time               `json:"from,omitzero"` // of DemandFactor: when the grace period begins, for who is there already
}

// FactorContext is a login, or a request of a session, as far as factors go.
type FactorContext struct {
	Organization string
	Roles        []string              // and groups
	Source       netip.Addr            // the zero value: not known
	Country      string                // upper case; "": not known
	Device       detectors.DeviceState // seen from the account
	StepUp       bool                  // a step-up of a rule or an operator holds
	Enrolled     bool                  // the account has a factor, be it disabled: who guessed at one until it was got rid of nothing
	FirstSeen    time.Time             // the account's first login; zero: this is it
	Now          time.Time
	Route        detectors.RouteClass
}

// Need is what a login must still give.
type Need string

const (
	NeedNone    Need = ""
	NeedFactor  Need = "factor"  // the account has one: ask for it
	NeedConfirm Need = "confirm" // it has none: a mailed code, which is no factor
	NeedEnrol   Need = "enrol"   // it has none and must: evidence and binding come first
)

// Due is what a login owes. The zero value owes nothing.
type Due struct {
	Need       Need
	GraceUntil time.Time // of NeedConfirm: from then on it is NeedEnrol; zero: no such time
	Rule       int       // which requirement says so, from 1, for the log; 0: none, or the step-up alone
}

// Due is what the strictest of all requirements that match asks for. A step-up asks
// for a confirmation at least, whatever the requirements say. It allocates nothing.
func (p *FactorPolicy) Due(c FactorContext) (due Due) {
	c.Source = canonicalAddr(c.Source).WithZone("")
	for i := range p.Require {
		r := &p.Require[i]
		if !r.matches(&c) {
			continue
		}
		if d := p.owed(r.Need, r.From, &c); d.stricter(due) {
			due, due.Rule = d, i+1
		}
	}
	if c.StepUp && due.Need == NeedNone {
		due = p.owed(DemandConfirm, time.Time{}, &c)
	}
	return due
}

func (p *FactorPolicy) owed(d Demand, from time.Time, c *FactorContext) Due {
	switch {
	case d == DemandNothing, d == DemandEnrolled && !c.Enrolled:
		return Due{}
	case c.Enrolled:
		return Due{Need: NeedFactor}
	case d == DemandConfirm:
		return Due{Need: NeedConfirm}
	}
	begin := c.FirstSeen
	if begin.IsZero() {
		begin = c.Now
	}
	if from.After(begin) {
		begin = from
	}
	if until := begin.Add(p.Grace); c.Now.Before(until) {
		return Due{Need: NeedConfirm, GraceUntil: until}
	}
	return Due{Need: NeedEnrol}
}

// stricter reports whether d asks for more than e: for the same, from an earlier time on.
func (d Due) stricter(e Due) bool {
	switch a, b := d.Need.rank(), e.Need.rank(); {
	case a != b:
		return a > b
	case d.GraceUntil.IsZero():
		return false
	}
	return e.GraceUntil.IsZero() || d.GraceUntil.Before(e.GraceUntil)
}

func (n Need) rank() int {
	switch n {
	case NeedNone:
		return 0
	case NeedFactor, NeedConfirm: // never of the same login
		return 1
	}
	return 2
}

// StepUp reports whether a request of that class needs the factor again, from a
// session of that assurance level whose factor was last given at verified. It is
// for accounts that have a factor: of the others nothing can be asked.
func (p *FactorPolicy) StepUp(class detectors.RouteClass, aal int, verified, now time.Time) bool {
	return slices.Contains(p.Sensitive.Routes, class) && (aal < 2 || now.Sub(verified).Abs() >= p.Sensitive.Within)
}

func (r *Requirement) matches(c *FactorContext) bool {
	return (len(r.Organizations) == 0 || slices.Contains(r.Organizations, c.Organization)) &&
		(len(r.Roles) == 0 || slices.ContainsFunc(c.Roles, func(role string) bool { return slices.Contains(r.Roles, role) })) &&
		(len(r.Networks) == 0 || !c.Source.IsValid() || within(r.Networks, c.Source)) &&
		(len(r.Outside) == 0 || !c.Source.IsValid() || !within(r.Outside, c.Source)) &&
		(len(r.Countries) == 0 || c.Country == "" || slices.Contains(r.Countries, c.Country)) &&
		(len(r.Devices) == 0 || slices.ContainsFunc(r.Devices, func(s detectors.DeviceState) bool { return trust(s) >= trust(c.Device) })) &&
		(!r.StepUp || c.StepUp) &&
		(len(r.Routes) == 0 || slices.Contains(r.Routes, c.Route))
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// trust orders device states. Whoever likes gets a cookie of ours or comes without,
// so a stranger is worth no more than no device at all.
func trust(s detectors.DeviceState) int {
	switch s {
	case detectors.Trusted:
		return 2
	case detectors.Probation:
		return 1
	}
	return 0
}

const (
	maxRequirements = 64
	maxConditions   = 256 // values of one condition
)

// The words of the file.
var (
	factorRoutes  = []string{"login", "change_password", "change_email", "token_mint", "invite", "sensitive"}
	factorDevices = []string{"none", "stranger", "forked", "probation", "trusted"} // the least trusted first
)

func (p *FactorPolicy) read(d *document, n *yaml.Node) {
	const day = 24 * time.Hour
	d.mapping(n, "factors", map[string]func(*yaml.Node){
		"totp":              func(n *yaml.Node) { p.StrictTOTP = d.word(n, "totp", "default", "asvs-strict") == "asvs-strict" },
		"cap":               func(n *yaml.Node) { p.Cap = d.integer(n, "cap", 5, 100) },
		"user_verification": func(n *yaml.Node) { p.UserVerification = d.word(n, "user_verification", "preferred", "required") },
		"require": func(n *yaml.Node) {
			p.Require = nil
			d.list(n, "require", maxRequirements, func(n *yaml.Node) { p.Require = append(p.Require, d.requirement(n)) })
		},
		"grace":    func(n *yaml.Node) { p.Grace = d.duration(n, "grace", 0, 90*day) },
		"remember": func(n *yaml.Node) { p.Remember = d.duration(n, "remember", 0, 30*day) },
		"sensitive": func(n *yaml.Node) {
			d.mapping(n, "sensitive", map[string]func(*yaml.Node){
				"within": func(n *yaml.Node) { p.Sensitive.Within = d.duration(n, "within", time.Minute, day) },
				"routes": func(n *yaml.Node) { p.Sensitive.Routes = d.routes(n, factorRoutes[1:]) },
			})
		},
		"aal2": func(n *yaml.Node) {
			d.mapping(n, "aal2", map[string]func(*yaml.Node){
				"overall": func(n *yaml.Node) { p.AAL2.Overall = d.duration(n, "overall", 5*time.Minute, 30*day) },
				"idle":    func(n *yaml.Node) { p.AAL2.Idle = d.duration(n, "idle", 5*time.Minute, 30*day) },
			})
			if p.AAL2.Idle > p.AAL2.Overall {
				d.fault(n, "idle is longer than overall; a session ends with the shorter of the two")
			}
		},
		"evidence": func(n *yaml.Node) {
			d.mapping(n, "evidence", map[string]func(*yaml.Node){
				"device": func(n *yaml.Node) {
					if p.Evidence.Device = d.duration(n, "device", 0, 366*day); p.Evidence.Device > 0 && p.Evidence.Device < day {
						d.fault(n, "device is %s; write 1d or longer, or 0 if no device is evidence: a thief's own gets older too", n.Value)
					}
				},
				"mail": func(n *yaml.Node) { p.Evidence.Mail = d.boolean(n, "mail") },
				"code": func(n *yaml.Node) { p.Evidence.Code = d.boolean(n, "code") },
			})
			if p.Evidence == (EvidencePolicy{}) {
				d.fault(n, "nothing is evidence, so nobody could bind a first factor; allow device, mail or code")
			}
		},
		"administrators": func(n *yaml.Node) { p.Administrators = d.names(n, "administrators", "role") },
		"recovery": func(n *yaml.Node) {
			d.mapping(n, "recovery", map[string]func(*yaml.Node){
				"wait": func(n *yaml.Node) { p.Recovery.Wait = d.duration(n, "wait", day, 30*day) },
			})
		},
		"continue": func(n *yaml.Node) { p.Continue = d.word(n, "continue", "same_network", "anywhere") },
		"hold":     func(n *yaml.Node) { p.Hold = d.duration(n, "hold", time.Minute, 15*time.Minute) },
	})
}

func (d *document) requirement(n *yaml.Node) (r Requirement) {
	var from *yaml.Node
	d.mapping(n, "a requirement", map[string]func(*yaml.Node){
		"need": func(n *yaml.Node) {
			r.Need = Demand(max(0, slices.Index(demandNames, d.word(n, "need", demandNames...))))
		},
		"organizations": func(n *yaml.Node) { r.Organizations = d.names(n, "organizations", "organization") },
		"roles":         func(n *yaml.Node) { r.Roles = d.names(n, "roles", "role") },
		"networks":      func(n *yaml.Node) { r.Networks = d.networks(n, "networks") },
		"outside":       func(n *yaml.Node) { r.Outside = d.networks(n, "outside") },
		"countries": func(n *yaml.Node) {
			d.some(n, "countries", func(n *yaml.Node) { r.Countries = append(r.Countries, d.scoped(n, "country", ScopeCountry)) })
		},
		"devices": func(n *yaml.Node) { r.Devices = d.devices(n) },
		"risk":    func(n *yaml.Node) { r.StepUp = d.word(n, "risk", "step_up") != "" },
		"routes": func(n *yaml.Node) {
			if r.Routes = d.routes(n, factorRoutes); len(r.Routes) == 0 {
				d.fault(n, "routes is empty; leave the key out if every route is meant")
			}
		},
		"from": func(n *yaml.Node) { from, r.From = n, d.date(n, "from") },
	}, "need")
	if from != nil && r.Need != DemandFactor {
		d.fault(from, "from is for need: factor only, where it begins the grace period")
	}
	return r
}

// some reads the values of a condition; without any it would hold for nobody.
func (d *document) some(n *yaml.Node, what string, item func(*yaml.Node)) {
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fault(n, "%s is empty; leave the key out if all are meant", what)
		return
	}
	d.list(n, what, maxConditions, item)
}

// names reads what the directory calls organizations, roles and groups.
func (d *document) names(n *yaml.Node, what, one string) (names []string) {
	item := func(n *yaml.Node) {
		switch name := d.text(n, one); {
		case len(name) > maxIdentityText || !plainText(name, false):
			d.fault(n, "the %s is longer than %d bytes or has control characters", one, maxIdentityText)
		case slices.Contains(names, name):
			d.fault(n, "the %s %.64q is there already", one, name)
		default:
			names = append(names, name)
		}
	}
	if what == "administrators" {
		d.list(n, what, maxConditions, item)
	} else {
		d.some(n, what, item)
	}
	return names
}

func (d *document) networks(n *yaml.Node, what string) (all []netip.Prefix) {
	d.some(n, what, func(n *yaml.Node) {
		if a, err := netip.ParseAddr(n.Value); err == nil && a.Zone() == "" {
			a = canonicalAddr(a)
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		} else if p, err := netip.ParsePrefix(d.scoped(n, "network", ScopeNetwork)); err == nil {
			all = append(all, p)
		}
	})
	return all
}

// scoped reads a value as decisions have it, "" with a fault.
func (d *document) scoped(n *yaml.Node, what string, scope Scope) string {
	text := d.text(n, what)
	if text == "" {
		return ""
	}
	value, _, fault := canonicalValue(scope, text)
	if fault != nil {
		d.fault(n, "%s %s", what, fault.Message)
		return ""
	}
	return value
}

// devices reads device states. A requirement that spares what is trusted less than
// something else it names would be one that a thief gets around by dropping his
// cookie, or by asking for one.
func (d *document) devices(n *yaml.Node) (states []detectors.DeviceState) {
	most := -1
	d.some(n, "devices", func(n *yaml.Node) {
		if word := d.word(n, "device", factorDevices...); word != "" {
			s := deviceState(word)
			states, most = append(states, s), max(most, trust(s))
		}
	})
	var missing []string
	for _, word := range factorDevices {
		if s := deviceState(word); trust(s) <= most && !slices.Contains(states, s) {
			missing = append(missing, word)
		}
	}
	if len(missing) > 0 {
		d.fault(n, "devices lacks %s: name with each state all that are trusted no more, or whoever drops or changes the cookie gets around it", strings.Join(missing, ", "))
	}
	return states
}

func deviceState(word string) detectors.DeviceState {
	if word == "none" {
		return detectors.NoDevice
	}
	return detectors.DeviceState(word)
}

func (d *document) routes(n *yaml.Node, words []string) (classes []detectors.RouteClass) {
	d.list(n, "routes", maxConditions, func(n *yaml.Node) {
		if w := d.word(n, "route", words...); w != "" {
			classes = append(classes, detectors.RouteClass(w))
		}
	})
	return classes
}

// date reads a day, which begins at midnight UTC, or a time.
func (d *document) date(n *yaml.Node, what string) time.Time {
	text := d.text(n, what)
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	if text != "" {
		d.fault(n, "%s is %.32q; write a day such as 2027-04-01, which begins at midnight UTC, or a time such as 2027-04-01T09:00:00+09:00", what, text)
	}
	return time.Time{}
}
