// Package outbox delivers the notices of policies.Outbox: to webhooks by itself,
// and to whatever else there is a [Channel] for.
//
// A [Deliverer] claims notices that are due, sends each through the [Channel] that
// its Channel names or else the [Sender] that its To names, and settles what became
// of it. Of webhooks:
//
//   - An answer of 2xx: sent.
//   - 408, 425, 429, 5xx, a redirect, or no answer: tried again after
//     policies.Backoff, or after Retry-After where that is longer (at most an hour),
//     until the notice is three days old; then given up.
//   - Any other 4xx, 410 Gone among them: given up.
//
// A notice is delivered at least once. An attempt that may have arrived (the
// process ended, or the connection broke after the request was written) is settled
// or claimed again as uncertain, and the next attempt says so.
//
// One receiver is sent one notice at a time, in the order in which they were
// claimed; one that failed does not hold up those behind it. At most eight
// receivers are sent to at once. A receiver that failed five times in a row is left
// alone for a time that grows up to five minutes, and then tried with one notice,
// so that one that is dead costs the others nothing. A channel is one receiver,
// whoever its notices are to: its server is. It may be sent several at a time.
package outbox

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/policies"
)

// Store is where notices come from, as policies.Outbox implements it.
type Store interface {
	Claim(ctx context.Context, owner string, now time.Time, lease time.Duration, limit int) ([]policies.Notice, error)
	Settle(ctx context.Context, key string, s policies.NoticeState, next, now time.Time) error
}

// Sender makes one attempt to deliver a notice. It ends when ctx does.
type Sender interface {
	Send(ctx context.Context, n policies.Notice, now time.Time) Answer
}

// Answer is what became of an attempt. The zero value means that it was taken.
type Answer struct {
	Err       error         // why it was not taken; never with a secret or a URL
	Final     bool          // trying again would change nothing
	Alive     bool          // the receiver answered, and not because it is broken
	Uncertain bool          // it may have arrived all the same
	After     time.Duration // not to be tried again before; 0: not said
	Withheld  bool          // it is not to be sent, on purpose, and is given up without a complaint
}

// Channel sends all notices of one channel.
type Channel struct {
	Sender Sender
	Lanes  int // attempts at once, at most [MaxLanes]; 0: 1
}

// MaxLanes leaves room for other receivers while a channel's server hangs.
const MaxLanes = maxSending / 2

// Config sets up a [Deliverer].
type Config struct {
	Store Store
	Owner string // who claims: different for each process
	Log   *slog.Logger
	Now   func() time.Time // nil: time.Now
	Poll  time.Duration    // how often to look for notices that became due; 0: 5 s
}

const (
	pollEvery    = 5 * time.Second
	lease        = 2 * time.Minute
	leaseReserve = 25 * time.Second // not sent when less of the lease is left: an attempt and its settling take less
	batch        = 32               // claimed at a time
	maxHeld      = 256              // claimed and not settled
	maxQueue     = 32               // of them for one receiver
	maxSending   = 8
	grace        = 3 * time.Second // what attempts under way may take when Run is to end
	settleTime   = 5 * time.Second
	circuitAfter = 5 // failures in a row
	circuitFirst = 5 * time.Second
	circuitMost  = 5 * time.Minute
	longestAfter = time.Hour
)

// Deliverer delivers notices while Run runs. It is safe for concurrent use.
type Deliverer struct {
	config Config
	kick   chan struct{}
	slots  chan struct{}

	mu        sync.Mutex            // guards all below and the fields of receivers
	senders   map[string]Sender     // by To
	channels  map[string]Channel    // by their name
	receivers map[address]*receiver // those with something to send or a circuit that is not closed
	held      int
	sent      int64
	givenUp   int64
	withheld  int64
}

// address is a receiver's: a channel, or the To of notices that go to a sender of their own.
type address struct{ channel, to string }

// receiver is one addressee of notices, or the server of a channel.
type receiver struct {
	address  address
	lanes    int // how many goroutines may empty queue
	queue    []policies.Notice
	until    []time.Time // when the lease of each in queue ends
	running  int         // goroutines that empty queue
	failures int         // in a row
	opens    time.Time   // left alone until then
	why      error       // of the latest failure
}

// New returns a deliverer without senders.
func New(c Config) *Deliverer {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Poll <= 0 {
		c.Poll = pollEvery
	}
	return &Deliverer{config: c, kick: make(chan struct{}, 1), slots: make(chan struct{}, maxSending), receivers: map[address]*receiver{}}
}

// Use sends from now on through senders, by the To of a notice. A notice to none of
// them is tried again like one that was not taken: the next configuration may have
// it. One without a To, which stands for others that found the outbox full, goes to
// the log unless senders has "".
func (d *Deliverer) Use(senders map[string]Sender) {
	d.mu.Lock()
	d.senders = maps.Clone(senders)
	d.mendedLocked()
	d.mu.Unlock()
	d.Kick()
}

// UseChannels sends from now on all notices of each of these channels, by its name,
// through it, instead of by their To.
func (d *Deliverer) UseChannels(channels map[string]Channel) {
	d.mu.Lock()
	d.channels = maps.Clone(channels)
	d.mendedLocked()
	d.mu.Unlock()
	d.Kick()
}

// mendedLocked closes all circuits: what was wrong may have been mended.
func (d *Deliverer) mendedLocked() {
	for a, r := range d.receivers {
		r.failures, r.opens = 0, time.Time{}
		if r.running == 0 {
			delete(d.receivers, a)
		}
	}
}

// Kick makes Run look for notices at once. Call it when one was put.
func (d *Deliverer) Kick() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// Status is how delivery goes, for the gate's health.
type Status struct {
	Held    int   `json:"held"`     // claimed and not settled
	Sent    int64 `json:"sent"`     // since the start, as GivenUp
	GivenUp int64 `json:"given_up"` //

	// Withheld is those of GivenUp that were not to be sent, on purpose.
	Withheld int64 `json:"withheld,omitempty"`

	Failing []Failing `json:"failing,omitempty"`
}

// Failing is a receiver that does not take notices.
type Failing struct {
	To       string    `json:"to"`                // empty: the server of Channel
	Channel  string    `json:"channel,omitempty"` // empty: To has a sender of its own
	Failures int       `json:"failures"`          // in a row
	Until    time.Time `json:"until,omitzero"`
	Why      string    `json:"why"`
}

// Status tells how delivery goes.
func (d *Deliverer) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{Held: d.held, Sent: d.sent, GivenUp: d.givenUp, Withheld: d.withheld}
	for _, r := range d.receivers {
		if r.failures > 0 {
			s.Failing = append(s.Failing, Failing{r.address.to, r.address.channel, r.failures, r.opens, r.why.Error()})
		}
	}
	return s
}

// Run delivers until ctx ends. Then attempts under way get three seconds more, what
// was claimed and not begun is given back, and Run returns when all of it ended.
func (d *Deliverer) Run(ctx context.Context) error {
	// Attempts outlive ctx by the grace, and settling outlives them.
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	defer context.AfterFunc(ctx, func() {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-t.C:
			stop()
		case <-sending.Done():
		}
	})()
	poll := time.NewTicker(d.config.Poll)
	defer poll.Stop()
	broken := false
	for ctx.Err() == nil {
		more, err := d.claim(ctx, sending, &running)
		if err != nil && ctx.Err() == nil && !broken {
			d.config.Log.Error("notices cannot be claimed; they wait until they can", "error", err)
		}
		if ctx.Err() == nil {
			broken = err != nil
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-d.kick:
		case <-poll.C:
		}
	}
	running.Wait()
	return nil
}

// claim takes one batch and reports whether there may be more that can be held.
func (d *Deliverer) claim(ctx, sending context.Context, running *sync.WaitGroup) (more bool, err error) {
	d.mu.Lock()
	room := min(batch, maxHeld-d.held)
	d.mu.Unlock()
	if room <= 0 {
		return false, nil // the next one that is settled kicks
	}
	now := d.config.Now()
	notices, err := d.config.Store.Claim(ctx, d.config.Owner, now, lease, room)
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	d.held += len(notices)
	d.mu.Unlock()
	for _, n := range notices {
		d.take(ctx, sending, n, now, running)
	}
	return len(notices) == room, nil
}

// take queues n, or gives it back where it cannot be sent soon.
func (d *Deliverer) take(ctx, sending context.Context, n policies.Notice, now time.Time, running *sync.WaitGroup) {
	d.mu.Lock()
	at, lanes := d.whereLocked(n)
	r := d.receivers[at]
	if r == nil {
		r = &receiver{address: at}
		d.receivers[at] = r
	}
	r.lanes = lanes
	if len(r.queue) >= maxQueue || now.Before(r.opens) {
		opens := r.opens
		d.mu.Unlock()
		if now.Before(opens) {
			d.leave(n, opens, now)
		} else {
			d.keep(n, policies.Pending, now.Add(time.Second+rand.N(30*time.Second)), now)
		}
		return
	}
	r.queue, r.until = append(r.queue, n), append(r.until, now.Add(lease))
	start := r.running < min(r.lanes, len(r.queue)+r.running)
	if start {
		r.running++
	}
	d.mu.Unlock()
	if start {
		running.Go(func() { d.empty(ctx, sending, r) })
	}
}

// whereLocked says which receiver takes n, and how many attempts at once.
func (d *Deliverer) whereLocked(n policies.Notice) (address, int) {
	if c, ok := d.channels[n.Channel]; ok && n.To != "" {
		return address{channel: n.Channel}, min(max(c.Lanes, 1), MaxLanes)
	}
	return address{to: n.To}, 1
}

// senderLocked sends n; nil: nobody does.
func (d *Deliverer) senderLocked(n policies.Notice) Sender {
	if c, ok := d.channels[n.Channel]; ok && n.To != "" {
		return c.Sender
	}
	return d.senders[n.To]
}

// empty sends what r has, one after the other.
func (d *Deliverer) empty(ctx, sending context.Context, r *receiver) {
	for {
		d.mu.Lock()
		if len(r.queue) == 0 {
			r.queue, r.until = nil, nil
			if r.running--; r.running == 0 && r.failures == 0 && d.receivers[r.address] == r {
				delete(d.receivers, r.address)
			}
			d.mu.Unlock()
			return
		}
		n, until := r.queue[0], r.until[0]
		r.queue, r.until = r.queue[1:], r.until[1:]
		sender, opens := d.senderLocked(n), r.opens
		d.mu.Unlock()

		d.slots <- struct{}{} // no longer than the attempts of eight others, which end by themselves
		switch now := d.config.Now(); {
		case ctx.Err() != nil, until.Sub(now) < leaseReserve:
			d.keep(n, policies.Pending, now, now) // what is uncertain stays so
		case now.Before(opens):
			d.leave(n, opens, now)
		default:
			// Alive: what is not configured has no circuit, and is not kept in mind.
			answer := Answer{Err: errors.New("nothing of that name is configured"), Alive: true}
			switch {
			case sender != nil:
				answer = sender.Send(sending, n, now)
			case n.To == "":
				d.config.Log.Error("notices were left out: the outbox was full", "channel", n.Channel, "template", n.Template, "count", n.Values["count"])
				answer = Answer{}
			}
			d.settle(r, n, answer, d.config.Now())
		}
		<-d.slots
	}
}

// leave gives back n, whose receiver is left alone until opens. It ends like one
// that was tried: otherwise what waits for a dead receiver would fill the outbox.
func (d *Deliverer) leave(n policies.Notice, opens, now time.Time) {
	if now.Sub(n.Created) > policies.GiveUpAfter {
		d.config.Log.Error("a notice was given up", "to", shown(n), "template", n.Template, "message", n.MessageID, "error", "its receiver takes none")
		d.keep(n, policies.GivenUp, time.Time{}, now)
		return
	}
	d.keep(n, policies.Pending, opens.Add(rand.N(time.Second)), now)
}

// shown is a notice's To as logs have it: a mail address without whose it is.
func shown(n policies.Notice) string {
	if at := strings.LastIndexByte(n.To, '@'); at >= 0 {
		return "*" + n.To[at:]
	}
	return n.To
}

// settle notes with r and in the store what became of n.
func (d *Deliverer) settle(r *receiver, n policies.Notice, a Answer, now time.Time) {
	state, next := policies.Sent, time.Time{}
	switch {
	case a.Withheld:
		state = policies.GivenUp
	case a.Err == nil:
	case a.Final:
		state = policies.GivenUp
	default:
		state, next = n.Retry(now)
		if a.After = min(a.After, longestAfter); state == policies.Pending && next.Before(now.Add(a.After)) {
			next = now.Add(a.After + rand.N(time.Second))
		}
		if state == policies.Pending && a.Uncertain {
			state = policies.Uncertain
		}
	}
	d.mu.Lock()
	switch {
	case a.Withheld: // nobody was asked
		d.withheld++
	case a.Err == nil || a.Alive && a.After == 0:
		r.failures, r.opens = 0, time.Time{}
	case a.Alive: // it asks to be left alone
		r.failures, r.why = r.failures+1, a.Err
		r.opens = now.Add(a.After)
	default:
		r.failures, r.why = r.failures+1, a.Err
		if over := r.failures - circuitAfter; over >= 0 {
			pause := circuitMost
			if over < 6 {
				pause = circuitFirst << over
			}
			r.opens = now.Add(pause)
			if next.Before(r.opens) && !next.IsZero() {
				next = r.opens.Add(rand.N(time.Second))
			}
		}
	}
	failures := r.failures
	d.mu.Unlock()
	log := d.config.Log.With("to", shown(n), "template", n.Template, "message", n.MessageID, "attempt", n.Attempts)
	switch {
	case a.Withheld:
	case state == policies.GivenUp:
		log.Error("a notice was given up", "error", a.Err)
	case failures == 1 || failures == circuitAfter:
		log.Warn("a notice was not taken and is tried again", "error", a.Err, "next", next)
	}
	d.keep(n, state, next, now)
}

// keep settles n in the store. If that fails the lease runs out and the notice is
// claimed again, marked as uncertain.
func (d *Deliverer) keep(n policies.Notice, state policies.NoticeState, next, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	err := d.config.Store.Settle(ctx, n.Key, state, next, now)
	if errors.Is(err, policies.ErrUncertain) {
		err = d.config.Store.Settle(ctx, n.Key, state, next, now)
	}
	if err != nil {
		d.config.Log.Error("what became of a notice was not kept; it may be sent again", "to", shown(n), "message", n.MessageID, "state", string(state), "error", err)
	}
	d.mu.Lock()
	d.held--
	full := d.held == maxHeld-1
	switch {
	case err != nil:
	case state == policies.Sent:
		d.sent++
	case state == policies.GivenUp:
		d.givenUp++
	}
	d.mu.Unlock()
	if full {
		d.Kick()
	}
}
