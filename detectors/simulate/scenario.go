package simulate

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

//go:embed scenarios/*.yaml
var shippedScenarios embed.FS

// Shipped holds the scenario files that come with the gate.
var Shipped, _ = fs.Sub(shippedScenarios, "scenarios")

// Scenario is a story of people and, mostly, of an attack on them. README.md explains
// every field to those who write one.
type Scenario struct {
	ID     string        `yaml:"id" json:"id"`
	Title  Words         `yaml:"title" json:"title"`
	Story  Words         `yaml:"story" json:"story"`
	Form   string        `yaml:"form" json:"form"`     // plain or evading
	Start  time.Time     `yaml:"start" json:"start"`   // when events are counted from
	Warm   Span          `yaml:"warm" json:"warm"`     // of log-ins before it, which are judged and not counted
	Length Span          `yaml:"length" json:"length"` // of what is counted
	Town   Town          `yaml:"town" json:"town"`
	Crowds []Crowd       `yaml:"crowds" json:"crowds,omitempty"`
	Raids  []Raid        `yaml:"attacks" json:"attacks,omitempty"`
	end    time.Time     // derived
	warm   time.Duration // derived
}

// Words is a text in both languages.
type Words struct {
	EN string `yaml:"en" json:"en"`
	JA string `yaml:"ja" json:"ja"`
}

// Span is a duration that may have days: "14d".
type Span time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Span) UnmarshalYAML(n *yaml.Node) error {
	text := n.Value
	if days, ok := strings.CutSuffix(text, "d"); ok {
		text = days + "h"
	}
	d, err := time.ParseDuration(text)
	if n.Kind != yaml.ScalarNode || err != nil || d < 0 {
		return fmt.Errorf("line %d: %.40q: want a duration such as 90s, 15m, 24h or 14d", n.Line, n.Value)
	}
	if text != n.Value {
		d *= 24
	}
	*s = Span(d)
	return nil
}

// Town is everybody who uses the service.
type Town struct {
	People    int     `yaml:"people" json:"people"`
	Companies int     `yaml:"companies" json:"companies"`       // their sizes are log-normal, sigma 1.3
	PerDay    float64 `yaml:"log_ins" json:"log_ins"`           // log-ins of a person on a workday; a fifth of it at weekends
	Flat      bool    `yaml:"flat" json:"flat,omitempty"`       // the same at all hours; else as in an office
	Device    float64 `yaml:"device" json:"device"`             // share of log-ins with a device cookie
	Place     float64 `yaml:"place" json:"place"`               // share of log-ins from a network that the person used before
	Carrier   float64 `yaml:"carrier" json:"carrier"`           // share of log-ins through a mobile carrier that shares addresses
	Addresses int     `yaml:"addresses" json:"addresses"`       // that the carrier has
	Abroad    float64 `yaml:"abroad" json:"abroad"`             // share of people who are abroad, in networks that are new to them
	Mistype   float64 `yaml:"mistype" json:"mistype"`           // share of log-ins whose first password is mistyped
	Other     float64 `yaml:"other" json:"other"`               // share whose first password is that of another service
	WrongName float64 `yaml:"wrong_name" json:"wrong_name"`     // share whose first name is none
	Stale     float64 `yaml:"stale" json:"stale"`               // programs with an old password, per person and day, that try every 5 minutes for a day
	New       float64 `yaml:"new" json:"new"`                   // share of people whom the gate has not seen
	Thin      int     `yaml:"thin" json:"thin,omitempty"`       // plays one in so many log-ins with a device cookie, and counts it so often
	Mention   float64 `yaml:"mention" json:"mention,omitempty"` // once, for ten minutes, so many times as many log-ins
}

// Crowd is people with a story of their own.
type Crowd struct {
	Kind     string  `yaml:"kind" json:"kind"` // office, newcomers, carrier, loops, forgotten, storm or roaming
	From     Span    `yaml:"from" json:"from"`
	Length   Span    `yaml:"length" json:"length"`
	People   int     `yaml:"people" json:"people"`
	Mistype  float64 `yaml:"mistype" json:"mistype"`
	Device   float64 `yaml:"device" json:"device"`
	Sources  int     `yaml:"sources" json:"sources"`   // addresses they share
	Rate     float64 `yaml:"rate" json:"rate"`         // of a storm, per second
	Tries    int     `yaml:"tries" json:"tries"`       // of one person who forgot
	Variants int     `yaml:"variants" json:"variants"` // different passwords among these
}

// Raid is an attack.
type Raid struct {
	Kind      string  `yaml:"kind" json:"kind"` // list, spray, crack, names or tenants
	From      Span    `yaml:"from" json:"from"`
	Length    Span    `yaml:"length" json:"length"`
	Attempts  int     `yaml:"attempts" json:"attempts"`
	Sources   int     `yaml:"sources" json:"sources"`
	Network   string  `yaml:"network" json:"network"`         // hosting, homes (of the town's country), world, office (of the first crowd), v6/64, v6/48, v6/32
	Every     Span    `yaml:"every" json:"every,omitempty"`   // each source by itself, so often; else at random
	PerDay    int     `yaml:"per_day" json:"per_day"`         // most of one source; 0: no such limit
	Client    string  `yaml:"client" json:"client"`           // tool, tools, browser (the current one of the town) or browsers
	Hit       float64 `yaml:"hit" json:"hit"`                 // share of pairs that are right
	Unknown   float64 `yaml:"unknown" json:"unknown"`         // share of names that are none
	Passwords int     `yaml:"passwords" json:"passwords"`     // of a spray: so many
	Uses      int     `yaml:"uses" json:"uses"`               // of one password at most, then another; 0: no such limit
	Words     bool    `yaml:"words" json:"words,omitempty"`   // passwords made of the company's name
	Own       int     `yaml:"own" json:"own,omitempty"`       // after so many attempts, one with an account of the attacker's
	Victims   int     `yaml:"victims" json:"victims"`         // of cracking, or companies of tenants
	Sorted    bool    `yaml:"sorted" json:"sorted,omitempty"` // names in the order of the alphabet
}

var (
	scenarioID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,40}$`)
	crowdKinds = []string{"office", "newcomers", "carrier", "loops", "forgotten", "storm", "roaming"}
	raidKinds  = []string{"list", "spray", "crack", "names", "tenants"}
	networks   = []string{"hosting", "homes", "world", "office", "v6/64", "v6/48", "v6/32"}
	clientKind = []string{"tool", "tools", "browser", "browsers"}
)

// The bounds of a scenario.
const (
	TownMax     = 5_000_000
	AttemptsMax = 1_000_000
	SpanMax     = 400 * 24 * time.Hour
	crowdMax    = 2_000_000 // attempts of a crowd that are planned
	stormMax    = 10_000    // requests of a storm per second
	scenarioMax = 64 << 10  // bytes of a file
)

// Decode reads one scenario file. The error tells every fault.
func Decode(name string, data []byte) (Scenario, error) {
	var s Scenario
	if len(data) > scenarioMax {
		return s, fmt.Errorf("%s: %d bytes, want at most %d", name, len(data), scenarioMax)
	}
	s.Town = Town{People: 20_000, Companies: 400, PerDay: 1, Device: 0.9, Place: 0.85, Carrier: 0.15, Addresses: 64, Abroad: 0.02,
		Mistype: 0.08, Other: 0.02, WrongName: 0.02, Stale: 0.0004, New: 0.15, Thin: 1}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	switch err := d.Decode(&s); {
	case errors.Is(err, io.EOF):
		return s, fmt.Errorf("%s: it is empty", name)
	case err != nil:
		return s, fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("%s: more than one document", name)
	}
	if faults := s.check(); len(faults) > 0 {
		return s, fmt.Errorf("%s: %s", name, strings.Join(faults, "; "))
	}
	return s.derived(), nil
}

func (s Scenario) derived() Scenario {
	s.warm = time.Duration(s.Warm)
	s.end = s.Start.Add(time.Duration(s.Length))
	return s
}

func (s *Scenario) check() (faults []string) {
	bad := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	share := func(what string, x float64) {
		if !(x >= 0 && x <= 1) {
			bad("%s is %v: want a share from 0 to 1", what, x)
		}
	}
	count := func(what string, n, least, most int) {
		if n < least || n > most {
			bad("%s is %d: want %d to %d", what, n, least, most)
		}
	}
	span := func(what string, d Span, least time.Duration) {
		if time.Duration(d) < least || time.Duration(d) > SpanMax {
			bad("%s is %v: want %v to %v", what, time.Duration(d), least, SpanMax)
		}
	}
	choice := func(what, got string, of []string) {
		if !slices.Contains(of, got) {
			bad("%s is %q: want one of %s", what, got, strings.Join(of, ", "))
		}
	}
	if !scenarioID.MatchString(s.ID) {
		bad("id is %q: want lower-case letters, digits and hyphens", s.ID)
	}
	choice("form", s.Form, []string{"plain", "evading"})
	if year := s.Start.UTC().Year(); year < 2000 || year > 2100 {
		bad("start is missing or not within 2000 and 2100: want a time such as 2026-11-30T09:00:00+09:00")
	}
	span("warm", s.Warm, 0)
	span("length", s.Length, time.Second)
	t := &s.Town
	count("town.people", t.People, 100, TownMax)
	count("town.companies", t.Companies, 1, t.People)
	count("town.thin", t.Thin, 1, 1000)
	count("town.addresses", t.Addresses, 1, 4096)
	for what, x := range map[string]float64{"device": t.Device, "place": t.Place, "carrier": t.Carrier, "abroad": t.Abroad,
		"mistype": t.Mistype, "other": t.Other, "wrong_name": t.WrongName, "stale": t.Stale, "new": t.New} {
		share("town."+what, x)
	}
	if !(t.PerDay >= 0 && t.PerDay <= 100) {
		bad("town.log_ins is %v: want 0 to 100", t.PerDay)
	}
	if !(t.Mention >= 0 && t.Mention <= 100) {
		bad("town.mention is %v: want 0 to 100", t.Mention)
	}
	for i, c := range s.Crowds {
		at := fmt.Sprintf("crowds[%d].", i)
		choice(at+"kind", c.Kind, crowdKinds)
		span(at+"length", c.Length, time.Second)
		count(at+"people", c.People, 1, t.People)
		count(at+"sources", c.Sources, 0, 4096)
		count(at+"tries", c.Tries, 0, 1000)
		count(at+"variants", c.Variants, 0, len(letters))
		share(at+"mistype", c.Mistype)
		share(at+"device", c.Device)
		if !(c.Rate >= 0 && c.Rate <= stormMax) || c.Rate*time.Duration(c.Length).Seconds() > 2_000_000 {
			bad("%srate is %v: want at most 10,000 a second and 2,000,000 in all", at, c.Rate)
		}
		each := 1.0
		switch c.Kind {
		case "forgotten":
			each += float64(c.Tries)
		case "roaming": // one in ten ten times a week
			each += time.Duration(c.Length).Hours() / (7 * 24)
		}
		if n := float64(c.People) * each; n > crowdMax {
			bad("%speople is %d, who try %.0f times in all: want at most %d", at, c.People, n, crowdMax)
		}
	}
	for i, r := range s.Raids {
		at := fmt.Sprintf("attacks[%d].", i)
		choice(at+"kind", r.Kind, raidKinds)
		choice(at+"network", r.Network, networks)
		choice(at+"client", r.Client, clientKind)
		span(at+"length", r.Length, time.Second)
		count(at+"attempts", r.Attempts, 1, AttemptsMax)
		count(at+"sources", r.Sources, 1, AttemptsMax)
		count(at+"per_day", r.PerDay, 0, AttemptsMax)
		count(at+"passwords", r.Passwords, 0, AttemptsMax)
		count(at+"uses", r.Uses, 0, AttemptsMax)
		count(at+"own", r.Own, 0, AttemptsMax)
		count(at+"victims", r.Victims, 0, TownMax)
		share(at+"hit", r.Hit)
		share(at+"unknown", r.Unknown)
		if r.Every > 0 && float64(r.Sources)*float64(r.Length)/float64(r.Every) > AttemptsMax {
			bad("%severy is %v, which makes more than %d attempts of %d sources: want a longer one", at, time.Duration(r.Every), AttemptsMax, r.Sources)
		}
	}
	slices.Sort(faults)
	return faults
}

// Load reads every *.yaml at the root of fsys, in the order of names.
func Load(fsys fs.FS) (all []Scenario, err error) {
	names, err := fs.Glob(fsys, "*.yaml")
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		s, err := Decode(name, data)
		if err != nil {
			faults = append(faults, err)
		}
		all = append(all, s)
	}
	return all, errors.Join(faults...)
}

// Hash is the SHA-256 over the names and contents of the *.yaml files at the root of
// fsys, in hex: reports with the same one are about the same stories.
func Hash(fsys fs.FS) (string, error) {
	names, err := fs.Glob(fsys, "*.yaml")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Draw is s with its numbers drawn within ±spread of what is written, so that nobody
// can say that limits were made for them. Spread 0 changes nothing.
func (s Scenario) Draw(seed uint64, spread float64) Scenario {
	if spread == 0 {
		return s
	}
	r := rand.New(rand.NewPCG(seed, 0x5ca1ab1e))
	factor := func() float64 { return 1 + spread*(2*r.Float64()-1) }
	number := func(n *int, least int) {
		if *n > 0 {
			*n = max(least, int(float64(*n)*factor()))
		}
	}
	share := func(x *float64) { *x = min(*x*factor(), 1) }
	rest := func(x *float64) { *x = 1 - min((1-*x)*factor(), 1) }
	t := &s.Town
	number(&t.People, 100)
	t.People = min(t.People, TownMax)
	t.Companies = min(t.Companies, t.People)
	t.PerDay = min(t.PerDay*factor(), 100)
	rest(&t.Device)
	rest(&t.Place)
	for _, x := range []*float64{&t.Carrier, &t.Abroad, &t.Mistype, &t.Other, &t.WrongName, &t.Stale, &t.New} {
		share(x)
	}
	s.Crowds, s.Raids = slices.Clone(s.Crowds), slices.Clone(s.Raids)
	for i := range s.Crowds {
		c := &s.Crowds[i]
		number(&c.People, 1)
		c.People = min(c.People, t.People)
		share(&c.Mistype)
		rest(&c.Device)
	}
	for i := range s.Raids {
		a := &s.Raids[i]
		number(&a.Attempts, 10)
		a.Attempts = min(a.Attempts, AttemptsMax)
		if a.Network == "homes" || a.Network == "world" || a.Sources > 100 {
			number(&a.Sources, 2)
			a.Sources = min(a.Sources, AttemptsMax)
		}
		share(&a.Hit)
		share(&a.Unknown)
	}
	return s.derived()
}
