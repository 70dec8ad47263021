package limits

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Bucket holds Burst attempts and gets one back each Every: a key may spend Burst
// at once and then one each Every. Over any span of time at most Burst plus
// span/Every attempts that were not refunded pass.
type Bucket struct {
	Name  string        // part of the counter's key, and what a refusal is told by
	Every time.Duration // 1ms to 24h
	Burst int           // 1 to 1,000,000
}

// Validate tells what is wrong with b.
func (b *Bucket) Validate() error {
	switch {
	case b.Name == "":
		return fmt.Errorf("bucket without a name: buckets of different purpose must not share keys")
	case b.Every < time.Millisecond || b.Every > 24*time.Hour:
		return fmt.Errorf("bucket %s: one attempt every %s is out of bounds, want 1ms to 24h", b.Name, b.Every)
	case b.Burst < 1 || b.Burst > 1_000_000:
		return fmt.Errorf("bucket %s: a burst of %d is out of bounds, want 1 to 1000000", b.Name, b.Burst)
	case b.Every.Microseconds()*int64(b.Burst) > maxFill:
		return fmt.Errorf("bucket %s: %d attempts at one each %s take more than 10000 days to come back: want a smaller burst or a shorter time", b.Name, b.Burst, b.Every)
	}
	return nil
}

// maxFill is how long a bucket takes to fill at most, in microseconds: ten
// thousand days, so that times and debts stay far within the 2^53 that numbers of
// Redis scripts hold exactly.
const maxFill = int64(10_000 * 24 * time.Hour / time.Microsecond)

// shape is a bucket in microseconds.
type shape struct {
	interval int64 // one attempt
	capacity int64 // the burst
}

// shape is b, or the share that one of several nodes has of it: a burst of
// ceil(Burst/nodes), and one attempt back each Every*nodes. It is within bounds
// whatever b says: a bucket nobody validated must not divide by zero or overflow.
func (b *Bucket) shape(nodes int64) shape {
	interval := nodes * min(max(b.Every.Microseconds(), 1000), (24*time.Hour).Microseconds())
	burst := ceilDiv(int64(min(max(b.Burst, 1), 1_000_000)), nodes)
	return shape{interval: interval, capacity: min(interval*burst, max(maxFill, interval))}
}

// amount is what n attempts take, in microseconds; never much more than what is
// too much for the bucket in any case, so that sums of it stay far from overflowing.
func (s shape) amount(n int) int64 {
	return s.interval * min(int64(max(n, 1)), 2*(s.capacity/s.interval)+1)
}

// LoginBucketSet is the buckets a login attempt is charged to: the device's own
// when the account knows the device, else the network's and the name's.
type LoginBucketSet struct {
	Network Bucket // per counting network
	Name    Bucket // per typed name, from devices the account does not know
	Device  Bucket // per device the account knows; replaces the other two
}

// AttemptCharge is what one attempt takes from one bucket.
type AttemptCharge struct {
	Bucket *Bucket
	Key    [16]byte // whose bucket; a keyed hash
	N      int      // attempts; less than 1 counts as 1
}

// AttemptDecision is the buckets' answer.
type AttemptDecision struct {
	Allowed    bool
	RetryAfter time.Duration // when refused: how long until the same charges would pass, if nobody else spends; never 0
	Bucket     *Bucket       // when refused: the bucket that refuses longest
	Degraded   bool          // Redis could not be asked; counted in this process alone
}

// Ticket proves what an attempt took. The zero Ticket took nothing. Copies are the
// same ticket.
type Ticket struct{ *taking }

type taking struct {
	refunded atomic.Bool
	parts    []part        // taken locally
	remote   *remoteTaking // taken on Redis; nil: locally
}

type part struct {
	id     id
	amount int64 // microseconds
}

// Attempts limits login attempts by the generic cell rate algorithm, in whole
// microseconds and without drift. It is safe for concurrent use.
//
// It holds a bounded number of buckets; one that is full of attempts again is not
// held at all, so forgetting it loses nothing. When there is no room the emptiest
// debt is forgotten first, and a bucket that refuses only if practically all do.
//
// Those of [Redis.Attempts] are buckets that nodes share.
type Attempts struct {
	redis *Redis // nil: this process counts alone
	late  refunds
	seeds seeds
	debts *table[debt]
}

// debt is what a key has spent and not got back yet.
type debt struct {
	owed int64 // microseconds, as of at; between 0 and the bucket's capacity
	at   int64 // Unix microseconds
	full int64 // owed above this refuses one attempt more
}

// backwards is how far time may lie behind what a bucket has seen without meaning
// that the clock was set: event times are clamped to 5 s around the stream's, so
// two of them may be 10 s apart in the wrong order.
const backwards = int64(10 * time.Second / time.Microsecond)

// settle pays off what time has paid. Time that went backwards pays nothing and
// takes nothing; further back than events ever are, the clock was set and counting
// starts from there.
func (d *debt) settle(now int64) {
	switch {
	case now >= d.at:
		d.owed = max(d.owed-(now-d.at), 0)
		d.at = now
	case d.at-now > backwards:
		d.at = now
	}
}

// NewAttempts returns buckets for at most keys keys (rounded up to a multiple of
// 64; 0: DefaultKeys).
func NewAttempts(keys int) *Attempts {
	return &Attempts{seeds: newSeeds(), debts: newTable(keys, func(d *debt, now int64) int64 {
		c := *d
		c.settle(now)
		switch {
		case c.owed == 0:
			return 0
		case c.owed > c.full:
			return protected + c.owed - c.full
		}
		return c.owed
	})}
}

// Take charges an attempt at time now to all buckets, or to none if one of them
// has too little left. A charge larger than a bucket's burst never passes. Who is
// refused changes nothing. Shared buckets go by the server's clock.
func (a *Attempts) Take(ctx context.Context, now time.Time, charges []AttemptCharge) (Ticket, AttemptDecision) {
	if len(charges) == 0 {
		return Ticket{}, AttemptDecision{Allowed: true}
	}
	if a.redis == nil {
		return a.take(now, charges, 1)
	}
	if ticket, d, ok := a.takeRemote(ctx, charges); ok {
		return ticket, d
	}
	ticket, d := a.take(now, charges, a.redis.nodes())
	d.Degraded = true
	return ticket, d
}

// take charges this process's share of the buckets.
func (a *Attempts) take(now time.Time, charges []AttemptCharge, nodes int64) (Ticket, AttemptDecision) {
	var (
		idRoom   [8]id
		ids      = idRoom[:0]
		decision = AttemptDecision{Allowed: true}
		at       = now.UnixMicro()
	)
	for i := range charges {
		c := &charges[i]
		ids = append(ids, a.seeds.id(c.Bucket.Name, string(c.Key[:]), 0))
	}
	locked := a.debts.lock(ids)
	defer a.debts.unlock(locked)
	for i := range charges {
		b := charges[i].Bucket
		shape := b.shape(nodes)
		capacity := shape.capacity
		owed := shape.amount(charges[i].N)
		for j := range charges[:i] {
			if ids[j] == ids[i] {
				owed += charges[j].Bucket.shape(nodes).amount(charges[j].N)
			}
		}
		if d := a.debts.findLocked(ids[i]); d != nil {
			c := *d
			if c.settle(at); c.at < d.at { // the clock was set
				*d = c
			}
			owed += c.owed
		}
		if owed <= capacity {
			continue
		}
		wait := time.Duration(min(owed-capacity, capacity)) * time.Microsecond
		if wait > decision.RetryAfter {
			decision = AttemptDecision{RetryAfter: wait, Bucket: b}
		}
	}
	if !decision.Allowed {
		return Ticket{}, decision
	}
	t := &taking{parts: make([]part, len(charges))}
	for i := range charges {
		shape := charges[i].Bucket.shape(nodes)
		amount := shape.amount(charges[i].N)
		d := a.debts.findLocked(ids[i])
		if d == nil {
			d = a.debts.insertLocked(ids[i], at)
			d.at = at
		}
		d.settle(at)
		d.owed += amount
		d.full = shape.capacity - shape.interval
		t.parts[i] = part{id: ids[i], amount: amount}
	}
	return Ticket{t}, decision
}

// Refund gives back what t took, once: a second refund of the same ticket, also
// of a copy, does nothing. A bucket never holds more than its burst. Because no
// refund exceeds what its own attempt took, attempts that keep being charged
// never exceed the burst plus what time has given. What was taken locally is given
// back locally, what was taken on Redis there: at once, or when Redis is back.
func (a *Attempts) Refund(ctx context.Context, t Ticket) {
	if t.taking == nil || !t.refunded.CompareAndSwap(false, true) {
		return
	}
	if t.remote != nil {
		a.refundRemote(ctx, t.remote)
		return
	}
	var room [8]id
	ids := room[:0]
	for _, p := range t.parts {
		ids = append(ids, p.id)
	}
	locked := a.debts.lock(ids)
	defer a.debts.unlock(locked)
	for _, p := range t.parts {
		d := a.debts.findLocked(p.id)
		if d == nil {
			continue // paid off by time and dropped, or forgotten
		}
		if d.owed -= p.amount; d.owed <= 0 {
			a.debts.removeLocked(p.id)
		}
	}
}
