package detectors_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// attempt is a login from a device nobody knows.
func attempt(at time.Time, source, name string, o detectors.Outcome) detectors.Event {
	a := netip.MustParseAddr(source)
	e := detectors.Event{Kind: detectors.Login, Time: at, StreamTime: at, Route: detectors.LoginRoute, Outcome: o,
		Source: detectors.Source{Address: a, Network: detectors.CountingNetwork(a)}}
	var h uint64 = 14695981039346656037
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	binary.BigEndian.PutUint64(e.Name.Digest[:], h)
	binary.BigEndian.PutUint64(e.Name.Digest[8:], h*0x9e3779b97f4a7c15)
	return e
}

// of is e naming an account that the gate has known for age.
func of(e detectors.Event, account string, age time.Duration) detectors.Event {
	e.Account = detectors.Account(account)
	e.AccountSince = e.Time.Add(-age)
	return e
}

func value(signals []detectors.Signal, name string) float64 {
	for _, s := range signals {
		if s.Name == name {
			return s.Value
		}
	}
	return 0
}

// office is scenario B1: people log in from one address within 15 minutes, one
// in ten mistypes and gets it right a few seconds later. withDevice is the share
// that has a trusted device; since is when an account was first seen.
func office(seed uint64, start time.Time, people int, withDevice float64, since func(i int) time.Time) []detectors.Event {
	r := rand.New(rand.NewPCG(seed, 1))
	var events []detectors.Event
	for i := range people {
		name := fmt.Sprintf("user%d@acme.example", i)
		at := start.Add(time.Duration(r.Int64N(int64(15 * time.Minute))))
		device := detectors.Device{}
		if r.Float64() < withDevice {
			device = detectors.Device{ID: name, State: detectors.Trusted}
		}
		person := func(at time.Time, o detectors.Outcome) detectors.Event {
			e := attempt(at, "203.0.113.7", name, o)
			e.Device = device
			if t := since(i); !t.IsZero() {
				e.Account, e.AccountSince = detectors.Account(name), t
			}
			return e
		}
		if r.Float64() < 0.1 {
			events = append(events, person(at, detectors.Failure))
			at = at.Add(time.Duration(3+r.IntN(27)) * time.Second)
		}
		events = append(events, person(at, detectors.Success))
	}
	slices.SortStableFunc(events, func(a, b detectors.Event) int { return a.Time.Compare(b.Time) })
	return events
}
