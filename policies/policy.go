package policies

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kidoban/kidoban/rules"
)

//go:embed policy.yaml
var shippedPolicy []byte

// Policy is what holds for everybody.
type Policy struct {
	Sessions SessionPolicy `json:"sessions"`
	Attempts AttemptPolicy `json:"attempts"`
	Delay    time.Duration `json:"delay_ns"` // how long an answer is held back where a rule says delay
	Factors  FactorPolicy  `json:"factors"`
	Routes   RoutePolicy   `json:"routes"`
	Zone     string        `json:"zone"`             // of the service; an IANA name
	Decoys   []string      `json:"decoys,omitempty"` // names that nobody has, and tokens that are good for nothing

	Organizations map[string]OrganizationPolicy `json:"organizations,omitempty"` // as the backend names them
}

// maxDecoys bounds the decoys of a policy.
const maxDecoys = 1000

// OrganizationPolicy is what holds for the accounts of one organization.
type OrganizationPolicy struct {
	Zone string `json:"zone"` // an IANA name
}

// maxOrganizations bounds the organizations of a policy.
const maxOrganizations = 10_000

// SessionPolicy is how long a session of ours lasts.
type SessionPolicy struct {
	Overall time.Duration `json:"overall_ns"` // from the login
	Idle    time.Duration `json:"idle_ns"`    // from the last use
}

// AttemptPolicy is how many login attempts are let through to the backend.
type AttemptPolicy struct {
	Network Allowance `json:"network"` // per counting network
	Name    Allowance `json:"name"`    // per typed name, from devices that its account does not know
	Device  Allowance `json:"device"`  // per device that the account knows, instead of the other two
}

// Allowance is a burst at once, and one more in each period after.
type Allowance struct {
	Burst int           `json:"burst"`
	Every time.Duration `json:"every_ns"`
}

// LoadPolicy reads policy.yaml of dir over the shipped one; a nil dir, or one
// without the file, means the shipped one. An error lists every fault with file,
// line and column.
func LoadPolicy(dir fs.FS) (Policy, error) {
	if dir == nil {
		return parsePolicy(nil)
	}
	data, err := fs.ReadFile(dir, "policy.yaml")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Policy{}, fmt.Errorf("loading the policy: %w", err)
	}
	return parsePolicy(data)
}

// parsePolicy reads data, if there is any, over the shipped policy.
func parsePolicy(data []byte) (p Policy, err error) {
	if err := p.read("policy.yaml", shippedPolicy); err != nil || data == nil {
		return p, err
	}
	if err := p.read("policy.yaml", data); err != nil {
		return Policy{}, err
	}
	return p, nil
}

func (p *Policy) read(file string, data []byte) error {
	return readDocument(file, data, func(d *document, n *yaml.Node) {
		d.mapping(n, "the policy", map[string]func(*yaml.Node){
			"sessions": func(n *yaml.Node) {
				d.mapping(n, "sessions", map[string]func(*yaml.Node){
					"overall": func(n *yaml.Node) { p.Sessions.Overall = d.duration(n, "overall", time.Minute, 366*24*time.Hour) },
					"idle":    func(n *yaml.Node) { p.Sessions.Idle = d.duration(n, "idle", time.Minute, 366*24*time.Hour) },
				})
				if p.Sessions.Idle > p.Sessions.Overall {
					d.fault(n, "idle is longer than overall; a session ends with the shorter of the two")
				}
			},
			"attempts": func(n *yaml.Node) {
				d.mapping(n, "attempts", map[string]func(*yaml.Node){
					"network": func(n *yaml.Node) { d.allowance(n, "network", &p.Attempts.Network) },
					"name":    func(n *yaml.Node) { d.allowance(n, "name", &p.Attempts.Name) },
					"device":  func(n *yaml.Node) { d.allowance(n, "device", &p.Attempts.Device) },
				})
			},
			"delay": func(n *yaml.Node) { p.Delay = d.duration(n, "delay", 0, 10*time.Second) },
			"decoys": func(n *yaml.Node) {
				p.Decoys = nil
				if n.Kind != yaml.SequenceNode || len(n.Content) > maxDecoys {
					d.fault(n, "decoys: want a list of at most %d names that nobody has", maxDecoys)
					return
				}
				for _, name := range n.Content {
					if text := d.text(name, "decoys"); text != "" {
						p.Decoys = append(p.Decoys, text)
					}
				}
			},
			"zone":          func(n *yaml.Node) { p.Zone = d.zone(n) },
			"organizations": func(n *yaml.Node) { p.Organizations = d.organizations(n) },
			"factors":       func(n *yaml.Node) { p.Factors.read(d, n) },
			"routes":        func(n *yaml.Node) { p.Routes.read(d, n) },
		})
	})
}

// organizations reads what holds for each of the organizations that are named.
func (d *document) organizations(n *yaml.Node) map[string]OrganizationPolicy {
	if n.Kind != yaml.MappingNode || len(n.Content) > 2*maxOrganizations {
		d.fault(n, "organizations: want a mapping of at most %d names, as the backend has them, such as acme: {zone: Asia/Tokyo}", maxOrganizations)
		return nil
	}
	all := make(map[string]OrganizationPolicy, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := d.text(n.Content[i], "the name of an organization")
		if _, twice := all[name]; twice {
			d.fault(n.Content[i], "organization %.64q is there twice", name)
		}
		var o OrganizationPolicy
		d.mapping(n.Content[i+1], "an organization", map[string]func(*yaml.Node){
			"zone": func(n *yaml.Node) { o.Zone = d.zone(n) },
		}, "zone")
		all[name] = o
	}
	return all
}

// zone reads the name of a time zone.
func (d *document) zone(n *yaml.Node) string {
	name := d.text(n, "zone")
	if name == "" {
		return ""
	}
	if _, err := rules.Zone(name); err != nil {
		d.fault(n, "zone: %v", err)
	}
	return name
}

func (d *document) allowance(n *yaml.Node, what string, a *Allowance) {
	d.mapping(n, what, map[string]func(*yaml.Node){
		"burst": func(n *yaml.Node) { a.Burst = d.integer(n, "burst", 1, 1_000_000) },
		"every": func(n *yaml.Node) { a.Every = d.duration(n, "every", time.Millisecond, 24*time.Hour) },
	})
}

// duration reads "90s", "15m", "24h" or whole days, "7d".
func (d *document) duration(n *yaml.Node, what string, least, most time.Duration) time.Duration {
	text := d.text(n, what)
	if text == "" {
		return 0
	}
	v, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int64
		n, err = strconv.ParseInt(days, 10, 32)
		v = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || v < least || v > most {
		d.fault(n, "%s is %.32q; write a duration from %s to %s, such as 90s, 15m, 24h or 7d", what, text, least, most)
		return least
	}
	return v
}
