package policies

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// Clocks tell what time it is at an organization: where the policy says that it is, or
// else where the directory says that the account is, or else at the service. A nil
// *Clocks has all at UTC. It is safe for concurrent use.
type Clocks struct {
	service       *time.Location
	organizations map[string]*time.Location

	named sync.Map // zones by the names that the directory has for them
	size  atomic.Int64
}

// namedMax bounds the zones that are kept, more than there are names of zones.
const namedMax = 2048

// Clocks are those of p. A zone that there is not is UTC: [LoadPolicy] refuses it.
func (p Policy) Clocks() *Clocks {
	c := &Clocks{service: zoneOr(p.Zone, time.UTC), organizations: make(map[string]*time.Location, len(p.Organizations))}
	for name, o := range p.Organizations {
		c.organizations[name] = zoneOr(o.Zone, time.UTC)
	}
	return c
}

func zoneOr(name string, other *time.Location) *time.Location {
	if zone, err := rules.Zone(name); err == nil {
		return zone
	}
	return other
}

// Service is by how many minutes the service's clock is ahead of UTC at a time.
func (c *Clocks) Service(at time.Time) int16 {
	if c == nil {
		return 0
	}
	return rules.Ahead(c.service, at)
}

// Shift is by how many minutes the clock of an account is ahead of the service's at a
// time. zone is the name that the directory has for where the account is; empty, as
// organization: not known.
func (c *Clocks) Shift(organization, zone string, at time.Time) int16 {
	if c == nil {
		return 0
	}
	where, ok := c.organizations[organization]
	if !ok {
		where = c.zone(zone)
	}
	return rules.Ahead(where, at) - rules.Ahead(c.service, at)
}

// zone is the time zone of that name, and the service's where there is none.
func (c *Clocks) zone(name string) *time.Location {
	if name == "" {
		return c.service
	}
	if zone, ok := c.named.Load(name); ok {
		return zone.(*time.Location)
	}
	zone, err := rules.Zone(name)
	if err != nil {
		return c.service
	}
	if c.size.Add(1) <= namedMax {
		c.named.Store(name, zone)
	}
	return zone
}
