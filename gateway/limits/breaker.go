package limits

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	failuresToOpen = 5                // in a row
	watched        = 64               // calls whose share of slow ones is watched
	slowToOpen     = watched / 2      // of them, slow or failed
	minBackoff     = time.Second      // an open breaker probes no sooner
	maxBackoff     = 10 * time.Second // and no later, once somebody asks
	maxReason      = 200              // bytes
)

// Status is how the connection to Redis stands.
type Status struct {
	Open     bool      // Redis is not asked; every node counts alone
	Since    time.Time // when it last opened or closed; zero: it was never open
	Failures int       // calls in a row that failed
	Reason   string    // why it opened or the last call failed; empty while all is well
}

// breaker says whether Redis may be asked. It opens after failuresToOpen calls in
// a row that failed, or when half of the last watched ones were slow. While it is
// open one caller at a time probes, after a wait drawn between minBackoff and a
// bound that doubles up to maxBackoff; one good probe closes it.
type breaker struct {
	now  func() time.Time
	slow time.Duration // a call that took longer is slow

	mu      sync.Mutex
	status  Status        // guarded by mu
	probing bool          // guarded by mu
	tries   int           // guarded by mu; probes that failed since it was closed for long
	next    time.Time     // guarded by mu; when the next probe may go
	epoch   uint64        // guarded by mu; counts openings and closings, so that late answers are known
	ring    [watched]bool // guarded by mu; which of the last calls were slow
	calls   int           // guarded by mu; into ring
	slowed  int           // guarded by mu; how many of ring are set
}

// pass lets one call through.
type pass struct {
	epoch uint64
	probe bool
}

func newBreaker(now func() time.Time, slow time.Duration) *breaker {
	return &breaker{now: now, slow: slow}
}

func (b *breaker) state() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// enter asks for a pass. Who gets one calls leave.
func (b *breaker) enter() (pass, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.status.Open {
		return pass{epoch: b.epoch}, true
	}
	// Further away than any wait means that the clock was set back.
	if wait := b.next.Sub(b.now()); b.probing || wait > 0 && wait <= maxBackoff {
		return pass{}, false
	}
	b.probing = true
	return pass{epoch: b.epoch, probe: true}, true
}

// leave tells how the call went, and returns the new status if it changed.
func (b *breaker) leave(p pass, took time.Duration, err error) (Status, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.epoch != b.epoch { // it began before the breaker opened or closed
		return Status{}, false
	}
	slow := err != nil || took > b.slow
	if p.probe {
		b.probing = false
		if slow {
			b.fault(err)
			b.tries++
			b.wait()
			return Status{}, false
		}
		b.turn(Status{})
		return b.status, true
	}
	at := b.calls % watched
	if b.ring[at] {
		b.slowed--
	}
	if b.ring[at] = slow; slow {
		b.slowed++
	}
	b.calls++
	if !slow {
		b.status.Failures, b.status.Reason = 0, ""
	} else if b.fault(err); b.status.Failures >= failuresToOpen || b.calls >= watched && b.slowed >= slowToOpen {
		if b.now().Sub(b.status.Since) > maxBackoff {
			b.tries = 0
		}
		status := b.status
		status.Open = true
		b.turn(status)
		b.wait()
		return b.status, true
	}
	return Status{}, false
}

// fault notes why a call counts against Redis.
func (b *breaker) fault(err error) {
	if err == nil {
		b.status.Failures = 0
		b.status.Reason = "answers take longer than " + b.slow.String()
		return
	}
	b.status.Failures++
	if b.status.Reason = err.Error(); len(b.status.Reason) > maxReason {
		b.status.Reason = b.status.Reason[:maxReason]
	}
}

func (b *breaker) turn(s Status) {
	s.Since = b.now()
	b.status = s
	b.epoch++
	b.ring, b.calls, b.slowed = [watched]bool{}, 0, 0
}

// wait draws when the next probe may go.
func (b *breaker) wait() {
	most := min(minBackoff<<min(b.tries+1, 8), maxBackoff)
	b.next = b.now().Add(minBackoff + rand.N(most-minBackoff+1))
}
