package detectors

import (
	"fmt"
	"time"
)

// ClientsConfig sets up [Clients]. The zero value is a good one, without a learning
// window.
type ClientsConfig struct {
	LearningUntil time.Time // as for [Sequential]
	Clients       int       // fingerprints kept; 0: 65,536
	Pairs         int       // of a crowded network and a fingerprint; 0: 262,144
}

// Clients is the test of [Sequential] for client programs: an attack may come from ten
// thousand addresses and is one tool all the same.
//
// It takes the fingerprint (TLS, header fields, family) for the subject, wherever it
// comes from, and in networks where 10 accounts or more log in also the fingerprint
// together with the network: so a tool in an office is told from the office. Failures
// of strangers count against it, every account that succeeds and vouches for it counts
// for it. A browser that people use is never flagged, and so an attack that looks like
// it is not either; that is what [Campaigns] are for. Attempts without a fingerprint are
// not looked at.
//
// It keeps what Sequential keeps per source, for at most Clients and Pairs, and says
// [Signal]s client.sequential, client.flagged, and source.client_flagged for the
// fingerprint in this network.
//
// It accepts this false positive: a program that nobody uses but eight people who all
// fail, as an integration whose passwords were all changed.
type Clients struct {
	config         ClientsConfig
	clients, pairs *walker
}

// NewClients returns a detector that has seen nothing.
func NewClients(c ClientsConfig) *Clients {
	if c.Clients <= 0 {
		c.Clients = 1 << 16
	}
	if c.Pairs <= 0 {
		c.Pairs = 1 << 18
	}
	return &Clients{config: c,
		clients: newWalker(c.Clients, unlimited, c.LearningUntil),
		pairs:   newWalker(c.Pairs, 100, c.LearningUntil),
	}
}

// Signals implements [Detector].
func (c *Clients) Signals() []Description {
	return []Description{
		{Name: "client.sequential", Unit: "nats", Max: 109, Meaning: "as source.sequential, of the client's fingerprint, wherever it is used"},
		{Name: "client.flagged", Unit: "0 or 1", Max: 1, Meaning: "1 while client.sequential is at or above 9.2"},
		{Name: "source.client_flagged", Unit: "0 or 1", Max: 1, Meaning: "as client.flagged, of the fingerprint in the source network alone, where 10 accounts or more log in"},
	}
}

func clientKey(e *Event) sourceKey { return sourceKey(hash64(clientSalt, e.Fingerprint)) }

func pairKey(e *Event) sourceKey {
	return sourceKey(mix(uint64(keyOf(e.Source)) ^ uint64(clientKey(e))))
}

// Assess implements [Detector].
func (c *Clients) Assess(e Event) []Signal { return c.assess(&e) }

func (c *Clients) assess(e *Event) []Signal {
	if e.Fingerprint == "" {
		return nil
	}
	var signals []Signal
	if v := c.clients.standing(clientKey(e), e.Time); v != nil {
		s := Signal{Name: "client.sequential", Value: v.ratio}
		if v.ratio >= sequentialLimit {
			s.Why = fmt.Sprintf("%d different names failed with one client program (%.60s), %d succeeded", v.failed, e.Fingerprint, v.passed)
			signals = append(signals, s, Signal{Name: "client.flagged", Value: 1, Why: s.Why})
		} else {
			signals = append(signals, s)
		}
	}
	if e.History.Capacity >= capacityCrowd {
		if v := c.pairs.standing(pairKey(e), e.Time); v != nil && v.ratio >= sequentialLimit {
			signals = append(signals, Signal{Name: "source.client_flagged", Value: 1,
				Why: fmt.Sprintf("%d different names failed from %s with one client program (%.60s), %d succeeded", v.failed, sourceName(e.Source), e.Fingerprint, v.passed)})
		}
	}
	return signals
}

// Observe implements [Detector].
func (c *Clients) Observe(e Event) { c.observe(&e) }

func (c *Clients) observe(e *Event) {
	if e.Fingerprint == "" {
		return
	}
	c.clients.walk(clientKey(e), e, people, 0)
	if e.History.Capacity >= capacityCrowd {
		c.pairs.walk(pairKey(e), e, people, 0)
	}
}

func (c *Clients) form() string     { return "clients/2" }
func (c *Clients) tables() []pieces { return []pieces{c.clients.subjects, c.pairs.subjects} }
func (c *Clients) empty() stored    { return NewClients(c.config) }
