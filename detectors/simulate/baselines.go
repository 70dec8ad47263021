package simulate

import (
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Baseline is a defense that is in wide use, to compare with.
type Baseline struct {
	Name  string // in reports and flags
	Title string // for people
	New   func() Defense
}

// Baselines lists them, the weakest first. What they keep is bounded by what happens
// within the time that each states.
func Baselines() []Baseline {
	return []Baseline{
		{"none", "no defense", func() Defense { return undefended{} }},
		{"window-5-10s", "6 failures in a leaky bucket of 5 (one leaks every 10 s): the address is refused for 4 h", func() Defense { return &leakyBan{addresses: newRecent[netip.Addr, leaky](4 * time.Hour)} }},
		{"rate-20-10m", "20 requests in 10 minutes per address, the others refused", func() Defense { return &requestRate{addresses: newRecent[netip.Addr, passes](10 * time.Minute)} }},
		{"lockout-10", "10 failures in a row: the account is locked for 30 minutes", func() Defense { return &lockout{names: newRecent[detectors.Digest, streak](24 * time.Hour)} }},
	}
}

// undefended lets everybody try. Those that build on it judge in Before, have no
// alarms and learn nothing of earlier days, which is longer ago than they remember.
type undefended struct{}

func (undefended) Before(*detectors.Event) Action { return Allow }
func (undefended) After(*detectors.Event) Action  { return Allow }
func (undefended) Proved(*detectors.Event)        {}
func (undefended) Learn(*detectors.Event)         {}
func (undefended) Alarms(time.Time) []string      { return nil }

// leakyBan bans an address whose failures overflow a leaky bucket, as log watchers
// beside a service do. Each failure is a drop.
type leakyBan struct {
	undefended
	addresses recent[netip.Addr, leaky]
}

type leaky struct {
	drops float64
	at    time.Time // of the last drop
	until time.Time // the ban ends
}

const (
	leakyCapacity = 5
	leakyEvery    = 10 * time.Second
	leakyBanned   = 4 * time.Hour
)

func (d *leakyBan) Before(e *detectors.Event) Action {
	if a := d.addresses.of(e.Source.Address, e.Time); a != nil && e.Time.Before(a.until) {
		return Refuse
	}
	return Allow
}

func (d *leakyBan) After(e *detectors.Event) Action {
	if e.Outcome != detectors.Failure || !e.Source.Address.IsValid() {
		return Allow
	}
	a := d.addresses.touch(e.Source.Address, e.Time)
	leaked := float64(e.Time.Sub(a.at)) / float64(leakyEvery)
	a.drops, a.at = max(0, a.drops-max(0, leaked))+1, e.Time
	if a.drops > leakyCapacity {
		a.drops, a.until = 0, e.Time.Add(leakyBanned)
	}
	return Allow
}

// requestRate refuses an address that had as many requests let through as it may have
// within the time. What is refused is not counted.
type requestRate struct {
	undefended
	addresses recent[netip.Addr, passes]
}

const (
	rateRequests = 20
	rateWithin   = 10 * time.Minute
)

// passes are the times of the last requests let through, in a ring.
type passes struct {
	at   [rateRequests]time.Time
	next int
}

func (d *requestRate) Before(e *detectors.Event) Action {
	if !e.Source.Address.IsValid() {
		return Allow
	}
	a := d.addresses.touch(e.Source.Address, e.Time)
	if oldest := a.at[a.next]; !oldest.IsZero() && e.Time.Sub(oldest) < rateWithin {
		return Refuse
	}
	a.at[a.next] = e.Time
	a.next = (a.next + 1) % rateRequests
	return Allow
}

// lockout locks what was typed as a name after failures in a row, for its owner like
// for everybody else. A day without a failure ends a row.
type lockout struct {
	undefended
	names recent[detectors.Digest, streak]
}

type streak struct {
	failures int
	until    time.Time // the lock ends
}

const (
	lockoutFailures = 10
	lockoutFor      = 30 * time.Minute
)

func (d *lockout) Before(e *detectors.Event) Action {
	if n := d.names.of(e.Name.Digest, e.Time); n != nil && e.Time.Before(n.until) {
		return Refuse
	}
	return Allow
}

func (d *lockout) After(e *detectors.Event) Action {
	switch {
	case e.Name.Digest.IsZero():
	case e.Outcome == detectors.Success:
		d.names.forget(e.Name.Digest)
	case e.Outcome == detectors.Failure:
		n := d.names.touch(e.Name.Digest, e.Time)
		if n.failures++; n.failures == lockoutFailures {
			n.failures, n.until = 0, e.Time.Add(lockoutFor)
		}
	}
	return Allow
}

// recent keeps a value per key until it was not touched for a time. It is swept each
// time that passes, so it holds what was touched within twice of it.
type recent[K comparable, V any] struct {
	all   map[K]*touched[V]
	keep  time.Duration
	swept time.Time
}

type touched[V any] struct {
	value V
	at    time.Time
}

func newRecent[K comparable, V any](keep time.Duration) recent[K, V] {
	return recent[K, V]{all: make(map[K]*touched[V]), keep: keep}
}

// of is the value of a key, or nil.
func (r *recent[K, V]) of(key K, now time.Time) *V {
	t := r.all[key]
	if t == nil || now.Sub(t.at) >= r.keep {
		return nil
	}
	return &t.value
}

// touch is the value of a key, zero if it is new, kept from now on.
func (r *recent[K, V]) touch(key K, now time.Time) *V {
	if now.Sub(r.swept) >= r.keep {
		for k, t := range r.all {
			if now.Sub(t.at) >= r.keep {
				delete(r.all, k)
			}
		}
		r.swept = now
	}
	v := r.of(key, now)
	if v == nil {
		r.all[key] = new(touched[V])
		v = &r.all[key].value
	}
	t := r.all[key]
	t.at = now
	return v
}

func (r *recent[K, V]) forget(key K) { delete(r.all, key) }
