package guard

import (
	"context"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

// Every event tells what the service's clock shows, and of an account whose log-in was
// accepted what that of its organization does. While it is not accepted nobody is looked
// up for that: it would take time that tells whether there is such an account.

// UseClocks says what time it is where; until then all is at UTC. What has happened keeps
// the clocks it had.
func (c *Core) UseClocks(clocks *policies.Clocks) { c.clocks.Store(clocks) }

// facts completes e with the service's clock, and with what detectors know of it.
func (c *Core) facts(e detectors.Event) detectors.Event {
	e.Offset = c.clocks.Load().Service(e.Time)
	return c.Detectors.Facts(e)
}

// place puts e where its account is. zone is what the backend says of that; empty: nothing.
func (c *Core) place(e *detectors.Event, zone string) {
	clocks := c.clocks.Load()
	e.Offset, e.Shift = clocks.Service(e.Time), clocks.Shift(string(e.Organization), zone, e.Time)
}

// zoneOf is the time zone of an account, as far as it is known.
func (c *Core) zoneOf(ctx context.Context, account detectors.Account) string {
	person, _, err := c.Directory.BySubject(ctx, string(account))
	if err != nil {
		c.complain("directory", "error", err)
	}
	return person.TimeZone
}
