package limits

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"
)

const (
	// remembered is how long Redis knows a ticket as paid. A refund is never
	// repeated later than repeatFor after it was first tried, which is sooner.
	remembered = 10 * time.Minute
	repeatFor  = 5 * time.Minute

	maxLate     = 1024 // refunds that wait for Redis; the oldest is given up first
	refundsEach = 16   // refunds paid by one call
)

// remoteTaking is what an attempt took on Redis.
type remoteTaking struct {
	keys    []string
	amounts []int64
	ticket  string    // the key that remembers the refund; drawn when it is first tried
	tried   time.Time // first
}

// refunds are those that Redis did not confirm yet. They are paid together with
// the next refund of this process.
type refunds struct {
	mu   sync.Mutex
	list []*remoteTaking // guarded by mu; oldest first
}

// add keeps list for later.
func (r *refunds) add(list []*remoteTaking) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, list...)
	if n := len(r.list) - maxLate; n > 0 {
		r.list = append(r.list[:0], r.list[n:]...)
	}
}

// take removes up to n refunds that were first tried since, and forgets older ones.
func (r *refunds) take(n int, since time.Time) (list []*remoteTaking) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.list) > 0 && len(list) < n {
		if first := r.list[0]; !first.tried.Before(since) {
			list = append(list, first)
		}
		r.list = r.list[1:]
	}
	if len(r.list) == 0 {
		r.list = nil
	}
	return list
}

// takeRemote charges the shared buckets. Without an answer in time ok is false; if
// Redis charged it all the same, that charge stays.
func (a *Attempts) takeRemote(ctx context.Context, charges []AttemptCharge) (Ticket, AttemptDecision, bool) {
	p, ok := a.redis.enter(OpAttempts)
	if !ok {
		return Ticket{}, AttemptDecision{}, false
	}
	taken := &remoteTaking{keys: make([]string, len(charges)), amounts: make([]int64, len(charges))}
	args := make([]any, 1, 1+2*len(charges))
	args[0] = a.redis.time()
	for i := range charges {
		c := &charges[i]
		shape := c.Bucket.shape(1)
		taken.keys[i] = a.redis.name("attempt", c.Bucket.Name, hex.EncodeToString(c.Key[:]))
		taken.amounts[i] = shape.amount(c.N)
		args = append(args, number(shape.capacity), number(taken.amounts[i]))
	}
	answer, ok := a.redis.ask(ctx, p, OpAttempts, attemptScript, taken.keys, args)
	if !ok || len(answer) != 2 || answer[0] < 0 || answer[0] > int64(len(charges)) {
		return Ticket{}, AttemptDecision{}, false
	}
	if refuser := answer[0]; refuser > 0 {
		return Ticket{}, AttemptDecision{
			RetryAfter: time.Duration(answer[1]) * time.Microsecond, Bucket: charges[refuser-1].Bucket,
		}, true
	}
	return Ticket{&taking{remote: taken}}, AttemptDecision{Allowed: true}, true
}

// refundRemote pays t, and some of what is late. A refund without an answer is
// repeated with the next one of this process, for repeatFor at most; the ticket's
// key on Redis, which is set with the payment, keeps it from being paid twice.
// What Redis forgot since the taking (it was restarted empty) is paid to whoever
// owes there by then, and never above the burst.
func (a *Attempts) refundRemote(ctx context.Context, t *remoteTaking) {
	now := a.redis.now()
	t.ticket, t.tried = a.redis.name("ticket", "paid", rand.Text()), now
	p, ok := a.redis.enter(OpRefund)
	if !ok {
		a.late.add([]*remoteTaking{t})
		return
	}
	list := append(a.late.take(refundsEach-1, now.Add(-repeatFor)), t)
	var keys []string
	args := []any{number(remembered.Milliseconds())}
	for _, t := range list {
		keys = append(append(keys, t.ticket), t.keys...)
		args = append(args, len(t.keys))
		for _, amount := range t.amounts {
			args = append(args, number(amount))
		}
	}
	if _, ok := a.redis.ask(ctx, p, OpRefund, refundScript, keys, args); !ok {
		a.late.add(list)
	}
}
