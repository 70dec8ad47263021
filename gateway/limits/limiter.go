// Package limits says how often is too often.
//
// Two things are limited, in two ways:
//
//   - Requests, by named limits ([Limit]) that an operator writes and that
//     github.com/ulule/limiter counts: [Limiter.Take] charges every limit that
//     concerns a request together, and either all of them are charged or none.
//     A window starts with a key's first hit, so up to twice the count may pass
//     around the end of a window; two limits over one key (10 in 1s and 100 in
//     1m) soften that.
//   - Login attempts, by [Attempts]: exact buckets that fill evenly, charged
//     before the backend sees the attempt and given back when it succeeded.
//
// Both hold a bounded number of counters in memory, start no goroutine and read
// the time from the caller: Attempts as an argument, a Limiter and a [Store] from
// the clock they were made with. Time that runs backwards harms nobody. Who
// refuses is never forgotten before who does not.
//
// # Several nodes
//
// [NewRedis] makes both count on a Redis server that nodes share, by that server's
// clock. One script charges all limits or buckets of a request in one round trip,
// all of them or none, so while Redis answers nothing passes beyond a limit. Who
// is refused by a limit is refused from memory until the window ends, and costs no
// network; such an answer names only limits known to be over. Buckets are asked
// each time, because a refund may open them.
//
// A request waits for Redis no longer than a budget (75 ms unless set). After 5
// failures in a row, or when half of the last 64 calls took more than half the
// budget, a breaker opens: Redis is not asked at all but for one probe at a time,
// which is somebody's request, every 1 s to 10 s. Whenever Redis gives no answer,
// each of n nodes counts alone and says so in Decision.Degraded: a limit of L
// lets ceil(L/n) through on each, a bucket is one of ceil(Burst/n) that gets an
// attempt back each Every*n. Redis being away is never an error, at start-up
// neither, and never lifts a limit.
//
// When Redis is back it counts on with what it had, or from zero if it lost that;
// local counts are not added to it, but stay for the next outage until their
// window ends. So within one window of an outage, and however often Redis comes
// and goes, at most L + n*ceil(L/n) pass, which is less than 2L+n, and L more for
// each time that it comes back empty. Likewise a bucket lets through at most
// Burst + n*ceil(Burst/n), and what time gives to both. A call whose answer was
// lost may have been charged on Redis as well as locally: that errs to the strict
// side.
//
// A limit protects a service from too much; it is not evidence of an attack and
// says nothing to rules.
package limits

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/ulule/limiter/v3"
)

// Charge is one limit that a request must pass, and the key it is counted under:
// an address, an account, whatever the limit's Key asks for.
type Charge struct {
	Limit *Limit
	Key   string
}

// Decision is what the limits say together. The zero value, apart from Allowed,
// means that no limit concerns the request.
type Decision struct {
	Allowed bool

	// Limit is the strictest: of those that refused the one that ends last, else
	// the one with the fewest hits left. Nil when only shadow limits were charged.
	Limit      *Limit
	Remaining  int64         // hits left under Limit
	Reset      time.Time     // when Limit's window ends
	RetryAfter time.Duration // until Reset when refused, else 0

	wait time.Duration // until Reset, refused or not

	Shadow   []*Limit // limits in shadow mode that would have refused
	Degraded bool     // the store could not be asked; counted in this process alone
}

// Limiter charges named limits. It is safe for concurrent use.
type Limiter struct {
	store limiter.Store
	redis *RedisStore // store, if it is one
	now   func() time.Time

	// memory counts when store is one; else it remembers who is over (so that
	// somebody who is costs no round trip) and counts while store is away.
	memory func() *Store
}

// New returns a limiter over store. Over a [*Store] or a [*RedisStore] several
// limits are charged as one; over any other store of the library they are asked first and charged
// one by one, so that a race between two requests may leave one charge too many.
// Over such a store whoever was refused is refused from memory until the window
// ends, and while the store returns errors this process counts alone, with whole
// limits: never unlimited, never an outage.
func New(store limiter.Store, now func() time.Time) *Limiter {
	l := &Limiter{store: store, now: now}
	switch s := store.(type) {
	case *Store:
		l.memory = func() *Store { return s }
	case *RedisStore:
		l.redis, l.memory = s, func() *Store { return s.memory }
	default:
		l.memory = sync.OnceValue(func() *Store { return NewStore(0, now) })
	}
	return l
}

// Take charges one hit for each of charges, or for none of them if one refuses.
func (l *Limiter) Take(ctx context.Context, charges []Charge) Decision {
	if len(charges) == 0 {
		return Decision{Allowed: true}
	}
	memory := l.memory()
	var room [8]hit
	hits := room[:0]
	for i := range charges {
		c := &charges[i]
		hits = append(hits, memory.hit(c.Limit.Name, c.Key, 1, c.Limit.Rate))
		hits[i].shadow = c.Limit.Mode == Shadow
	}
	if l.redis != nil {
		allowed, degraded := l.redis.take(ctx, hits)
		d := l.decide(charges, hits, allowed)
		d.Degraded = degraded
		return d
	}
	if l.store == limiter.Store(memory) {
		allowed := memory.take(hits)
		return l.decide(charges, hits, allowed)
	}
	allowed, err := l.takeRemote(ctx, charges, hits, memory)
	if err != nil {
		allowed = memory.take(hits)
	}
	d := l.decide(charges, hits, allowed)
	d.Degraded = err != nil
	return d
}

// takeRemote charges hits in a store that is not ours.
func (l *Limiter) takeRemote(ctx context.Context, charges []Charge, hits []hit, memory *Store) (allowed bool, err error) {
	if allowed, _ = memory.known(hits); !allowed {
		return false, nil
	}
	keys := make([]string, len(hits))
	for i := range hits {
		if hits[i].over {
			continue
		}
		keys[i] = storeKey(charges[i])
		state, err := l.store.Peek(ctx, keys[i], charges[i].Limit.Rate)
		if err != nil {
			return false, err
		}
		l.note(&hits[i], state, state.Remaining < 1, memory)
		allowed = allowed && (!hits[i].over || hits[i].shadow)
	}
	if !allowed {
		return false, nil
	}
	for i := range hits {
		if hits[i].over {
			continue
		}
		state, err := l.store.Increment(ctx, keys[i], 1, charges[i].Limit.Rate)
		if err != nil {
			return false, err
		}
		l.note(&hits[i], state, state.Reached, memory)
		if hits[i].taken = !hits[i].over; hits[i].taken {
			hits[i].used-- // before this call
		}
		allowed = allowed && (!hits[i].over || hits[i].shadow)
	}
	return allowed, nil
}

// note takes over what a foreign store said of h, and remembers who is over.
func (l *Limiter) note(h *hit, state limiter.Context, over bool, memory *Store) {
	h.used, h.over = h.limit-state.Remaining, over
	// Such stores round the end of the window down to a second.
	h.end = min((state.Reset+1)*int64(time.Second), l.now().UnixNano()+h.period)
	if over {
		memory.fill(h.id, h.limit, h.end)
	}
}

// storeKey names a counter in a store that other processes share: the limit's
// name, its period, and the key hashed, because keys hold addresses and accounts
// and may be of any length.
func storeKey(c Charge) string {
	sum := sha256.Sum256([]byte(c.Key))
	return "kidoban:" + c.Limit.Name + ":" + c.Limit.Rate.Period.String() + ":" + hex.EncodeToString(sum[:16])
}

// decide finds the strictest answer.
func (l *Limiter) decide(charges []Charge, hits []hit, allowed bool) Decision {
	d := Decision{Allowed: allowed}
	var end int64
	for i := range hits {
		h, limit := &hits[i], charges[i].Limit
		if h.shadow {
			if h.over {
				d.Shadow = append(d.Shadow, limit)
			}
			continue
		}
		left := max(h.limit-h.used, 0)
		if h.taken {
			left = max(left-h.count, 0)
		}
		if h.over == allowed { // an over one decides a refusal only, and a passing one only an allowance
			continue
		}
		nearer := left < d.Remaining || left == d.Remaining && h.end > end
		if !allowed {
			nearer = h.end > end
		}
		if d.Limit == nil || nearer {
			d.Limit, d.Remaining, end = limit, left, h.end
		}
	}
	if d.Limit == nil {
		return d
	}
	d.Reset = time.Unix(0, end)
	d.wait = max(d.Reset.Sub(l.now()), 0)
	if !allowed {
		d.RetryAfter = d.wait
	}
	return d
}
