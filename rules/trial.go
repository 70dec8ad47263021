package rules

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kidoban/kidoban/detectors"
)

const (
	maxTests       = 32
	maxGiven       = 64
	maxTestEvents  = 20_000
	maxTrialEvents = 50_000      // of all tests of a file; a quarter of a second
	maxTrialCost   = 100_000_000 // CEL units at worst, of all tests of a file; about a second
)

// trialStart is when every test begins: a Monday, nine o'clock, UTC.
var trialStart = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// trial is a test with its events, not part of the rule once it was run.
type trial struct {
	Test
	node  *yaml.Node
	given []given
}

// given is one line of a test: events that differ only by their number. {n} in
// source, name, account, device, session, actor and password stands for it, from 1 on.
type given struct {
	repeat       int
	every, after time.Duration
	source       string
	name         string
	account      string
	accountAge   time.Duration
	device       string
	password     string
	actor        string
	session      string
	decoy        bool
	zone         *time.Location
	event        detectors.Event // what does not depend on the number
}

func (r *draft) readTest(n *yaml.Node) {
	t := trial{node: n}
	var hit Decide
	expected := false
	r.mapping(n, "tests",
		field{"name", true, r.textInto("tests.name", &t.Name)},
		field{"given", true, func(n *yaml.Node) {
			r.list(n, "tests.given", maxGiven, func(e *yaml.Node) { t.given = append(t.given, r.readGiven(e)) })
		}},
		field{"expect", true, func(n *yaml.Node) {
			expected = true
			if r.shape != nil {
				defer func() { r.shape = shape{"anyOf": []shape{{"enum": []string{"none", "match"}}, r.shape}} }()
			}
			if n.Kind == yaml.ScalarNode && n.Value == "none" {
				return
			}
			t.Expect = &hit
			if n.Kind == yaml.ScalarNode && n.Value == "match" {
				return
			}
			if n.Kind != yaml.MappingNode && r.shape == nil {
				r.fault(n, "tests.expect: want none, match or {action: ACTION, scope: SCOPE}, got %s", kindOf(n))
				return
			}
			r.mapping(n, "tests.expect",
				field{"action", true, func(n *yaml.Node) { hit.Action = r.readAction(n, "tests.expect.action") }},
				field{"scope", true, r.choiceInto("tests.expect.scope", append(slices.Clone(scopes), AttemptScope), &hit.Scope)})
		}})
	events := 0
	for _, g := range t.given {
		events += g.repeat
	}
	if events > maxTestEvents {
		r.fault(n, "tests: %d events, want at most %d", events, maxTestEvents)
	}
	if expected {
		r.Tests = append(r.Tests, t.Test)
		r.trials = append(r.trials, t)
	}
}

var (
	trialKinds    = []string{"login", "door", "session", "request", "factor", "message", "operator"}
	trialOutcomes = []string{"unknown", "success", "failure", "refused"}
	trialDevices  = []string{"none", "stranger", "probation", "trusted", "forked"}
	trialRoutes   = []string{"login", "logout", "signup", "reset", "change_password", "change_email", "token_mint", "invite", "identify", "public", "sensitive", "message"}
)

// usualRoutes are those of kinds that have one.
var usualRoutes = map[string]string{"login": "login", "door": "login", "message": "message"}

func (r *draft) readGiven(n *yaml.Node) given {
	g := given{repeat: 1, every: time.Second, source: "192.0.2.1", zone: time.UTC}
	e := &g.event
	kind, outcome, state, route, organization := "login", "", "none", "", ""
	var asn, size int
	r.mapping(n, "tests.given",
		field{"repeat", false, r.integerInto("repeat", 1, maxTestEvents, &g.repeat)},
		field{"every", false, r.durationInto("every", 0, 7*day, &g.every)},
		field{"after", false, r.durationInto("after", 0, 30*day, &g.after)},
		field{"kind", false, r.choiceInto("kind", trialKinds, &kind)},
		field{"outcome", true, r.choiceInto("outcome", trialOutcomes, &outcome)},
		field{"route", false, r.choiceInto("route", trialRoutes, &route)},
		field{"source", false, func(n *yaml.Node) { g.source, _ = r.text(n, "source") }},
		field{"asn", false, r.integerInto("asn", 1, 1<<32-1, &asn)},
		field{"country", false, r.textInto("country", &e.Source.Country)},
		field{"shared", false, r.boolInto("shared", &e.Source.Shared)},
		field{"name", false, r.textInto("name", &g.name)},
		field{"account", false, r.textInto("account", &g.account)},
		field{"account_since", false, r.durationInto("account_since", 0, 3650*day, &g.accountAge)},
		field{"organization", false, r.textInto("organization", &organization)},
		field{"zone", false, func(n *yaml.Node) {
			name, ok := r.text(n, "zone")
			if !ok {
				return
			}
			zone, err := Zone(name)
			if err != nil {
				r.fault(n, "zone: %v", err)
				return
			}
			g.zone = zone
		}},
		field{"device", false, r.choiceInto("device", trialDevices, &state)},
		field{"credential", false, r.textInto("credential", &e.Credential)},
		field{"fingerprint", false, r.textInto("fingerprint", &e.Fingerprint)},
		field{"existence", false, r.choiceInto("existence", []string{"exists", "missing"}, (*string)(&e.Existence))},
		field{"unproven", false, r.boolInto("unproven", &e.Unproven)},
		field{"decoy", false, r.boolInto("decoy", &g.decoy)},
		field{"client", false, func(n *yaml.Node) {
			r.mapping(n, "client",
				field{"ja4", false, r.textInto("client.ja4", &e.Client.JA4)},
				field{"headers", false, r.textInto("client.headers", &e.Client.Headers)},
				field{"family", false, r.textInto("client.family", &e.Client.Family)},
				field{"contradicts", false, r.boolInto("client.contradicts", &e.Client.Incoherent)})
		}},
		field{"act", false, r.textInto("act", (*string)(&e.Act))},
		field{"actor", false, r.textInto("actor", &g.actor)},
		field{"session", false, r.textInto("session", &g.session)},
		field{"size", false, r.integerInto("size", 0, 1<<40, &size)},
		field{"targets", false, r.integerInto("targets", 0, 1<<20, &e.Targets)},
		field{"ambiguous", false, r.boolInto("ambiguous", &e.Ambiguous)},
		field{"password", false, func(n *yaml.Node) {
			r.mapping(n, "password",
				field{"is", false, r.textInto("password.is", &g.password)},
				field{"repeat", false, r.boolInto("password.repeat", &e.Password.Repeat)},
				field{"typo", false, r.boolInto("password.typo", &e.Password.Typo)},
				field{"breached", false, r.boolInto("password.breached", &e.Password.Breached)},
				field{"popularity", false, r.integerInto("password.popularity", 0, 48, &e.Password.Popularity)})
		}})
	for _, number := range []int{1, g.repeat} {
		if text := numbered(g.source, number); n.Kind == yaml.MappingNode && !validAddress(text) {
			r.fault(n, "tests.given: source %q: want an IP address, with {n} where it differs", text)
			break
		}
	}
	if route == "" {
		route = usualRoutes[kind]
	}
	e.Kind, e.Outcome, e.Route = detectors.Kind(kind), detectors.Outcome(outcome), detectors.RouteClass(route)
	e.Organization, e.Source.ASN = detectors.Organization(organization), uint32(asn)
	e.Size = int64(size)
	if state != "none" {
		e.Device.State = detectors.DeviceState(state)
		g.device = "device of " + g.name + g.account
	}
	return g
}

func validAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

func numbered(s string, n int) string { return strings.ReplaceAll(s, "{n}", strconv.Itoa(n)) }

// events are those of all givens in the order of time.
func (t *trial) events() []detectors.Event {
	var all []detectors.Event
	for _, g := range t.given {
		for i := range g.repeat {
			e := g.event
			e.Time = trialStart.Add(g.after + time.Duration(i)*g.every)
			e.Offset = Ahead(g.zone, e.Time)
			e.Source.Address, _ = netip.ParseAddr(numbered(g.source, i+1))
			e.Source.Address = e.Source.Address.Unmap()
			e.Source.Network = detectors.CountingNetwork(e.Source.Address)
			if name := numbered(g.name, i+1); name != "" {
				e.Name = detectors.Name{Digest: nameDigest(name), Display: name}
			}
			if e.Account = detectors.Account(numbered(g.account, i+1)); e.Account != "" && g.accountAge > 0 {
				e.AccountSince = trialStart.Add(-g.accountAge)
			}
			e.Device.ID = numbered(g.device, i+1)
			e.Actor, e.Session = numbered(g.actor, i+1), numbered(g.session, i+1)
			if e.Fingerprint == "" {
				e.Fingerprint = e.Client.Fingerprint()
			}
			if word := numbered(g.password, i+1); word != "" {
				sum := sha256.Sum256([]byte(word))
				e.Password.Digest = detectors.Digest(sum[:16])
			}
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b detectors.Event) int { return a.Time.Compare(b.Time) })
	for i := range all {
		all[i].Key = detectors.EventKey{Node: "test", Incarnation: 1, Sequence: uint64(i + 1)}
		all[i].StreamTime = all[i].Time
	}
	return all
}

// decoys reports which names of the test are decoys.
func (t *trial) decoys() func(detectors.Digest) bool {
	decoys := map[detectors.Digest]bool{}
	for _, g := range t.given {
		for i := range g.repeat {
			if g.decoy {
				decoys[nameDigest(numbered(g.name, i+1))] = true
			}
		}
	}
	return func(d detectors.Digest) bool { return decoys[d] }
}

func nameDigest(name string) detectors.Digest {
	sum := sha256.Sum256([]byte(name))
	return detectors.Digest(sum[:16])
}

// run plays the test against the rule alone, with the detectors that ship. The
// error says how it ended instead.
func (t *trial) run(rule *compiled) error {
	events := t.events()
	set, signals := newSet([]*compiled{rule.fresh()}), &detectors.Set{}
	if rule.needsDetectors() {
		signals = detectors.Default(time.Time{})
		signals.SetDecoys(t.decoys())
	}
	for _, c := range set.order {
		c.hash = hashKey{} // estimates, and so the test, end alike each time
	}
	var other string // what was found instead of what is expected
	for i, e := range events {
		e = signals.Facts(e)
		var found []Finding
		about, before := rule.On.about(e.Kind)
		if about && before {
			coming := e
			coming.Outcome = detectors.Unknown
			found = set.Evaluate(rule.On, coming, signals.Assess(coming))
		}
		set.Observe(e)
		signals.Observe(e)
		if about && !before {
			found = set.Evaluate(rule.On, e, signals.Assess(e))
		}
		for _, f := range found {
			if t.Expect == nil {
				return fmt.Errorf("want no match, got one at event %d of %d (%s of %q from %s at %s): %s",
					i+1, len(events), e.Outcome, e.Name.Display, e.Source.Address, e.Time.Format(time.TimeOnly), f.Why)
			}
			if *t.Expect == (Decide{}) {
				return nil
			}
			for _, p := range f.Then {
				if p.Answer != Allow && p.Answer == t.Expect.Action && t.Expect.Scope == AttemptScope {
					return nil
				}
				if p.Answer != Allow {
					other = fmt.Sprintf("%s on %s", p.Answer, AttemptScope)
				}
				if p.Decide != nil && p.Decide.Action == t.Expect.Action && p.Decide.Scope == t.Expect.Scope {
					return nil
				}
				if p.Decide != nil {
					other = fmt.Sprintf("%s on %s", p.Decide.Action, p.Decide.Scope)
				}
			}
		}
	}
	for _, err := range set.Errors() {
		return err
	}
	if t.Expect == nil {
		return nil
	}
	if other == "" {
		other = "no match"
	}
	if *t.Expect == (Decide{}) {
		return fmt.Errorf("want a match, got none in %d events", len(events))
	}
	return fmt.Errorf("want %s on %s, got %s in %d events", t.Expect.Action, t.Expect.Scope, other, len(events))
}

// needsDetectors reports whether r asks for something that only detectors know.
func (r *compiled) needsDetectors() bool {
	asked := slices.Clone(r.when.names)
	for _, of := range []map[string]*expression{r.where, r.ratio} {
		for _, x := range of {
			asked = append(asked, x.names...)
		}
	}
	for _, x := range r.except {
		if x.when != nil {
			asked = append(asked, x.when.names...)
		}
	}
	return slices.ContainsFunc(asked, func(name string) bool {
		_, variable := variableIndex[name]
		_, counter := r.Count[name]
		informed := strings.HasPrefix(name, "history.") || strings.HasPrefix(name, "password.") || name == "source.capacity"
		return informed || !variable && !counter
	})
}
