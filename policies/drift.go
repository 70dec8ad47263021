package policies

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Drift tells when a backend's answers to log-ins stop fitting its preset, as after
// an upgrade of the backend, and when they fit again: once each. It sees the last
// 200 answers and knows no time but theirs. It is bounded, about 10 KiB, and safe
// for concurrent use. The zero value is ready.
//
// It sees an answer that meets none of the preset's conditions or contrary ones, and
// an accepted log-in that nobody could be named for. It does not see answers that
// change from one condition to another. The false positive it accepts: strangers can
// have a backend answer strangely by what they send; a few of them from different
// sources, or one alone while nobody else logs in, look like drift. The evidence
// shows the statuses, which tells the two apart.
type Drift struct {
	mu       sync.Mutex
	answers  [driftWindow]driftAnswer // guarded by mu, as all that follows; a ring
	n, next  int                      // answers there are; where the next one goes
	drifting bool
	since    time.Time // of drifting
}

const (
	driftWindow  = 200
	driftLeast   = 20 // answers before anything is said
	driftSources = 3  // whose answers do not fit, unless none fits at all
	driftBegins  = 20 // percent of answers that do not fit; more than that
	driftEnds    = 2  // percent; less than that
)

// LoginAnswer is what became of one log-in that the backend answered.
type LoginAnswer struct {
	Time         time.Time
	Source       detectors.Digest // of the network; zero: unknown
	Status       int
	Fit          Fit
	Unidentified bool // accepted, and the backend could not say who it is
}

type driftAnswer struct {
	LoginAnswer
	fits bool
}

// DriftChange is what an operator is told.
type DriftChange struct {
	Drifting     bool          `json:"drifting"` // false: the answers fit again
	Time         time.Time     `json:"time"`
	Since        time.Time     `json:"since"`   // of the first answer that did not fit, or that fits again
	Answers      int           `json:"answers"` // that were looked at, 200 at most
	Neither      int           `json:"neither"` // of them, that met no condition
	Both         int           `json:"both"`
	Unidentified int           `json:"unidentified"`
	Statuses     []DriftStatus `json:"statuses,omitempty"` // of answers that did not fit, the most frequent 3
}

// DriftStatus is how often a status was seen.
type DriftStatus struct {
	Status int `json:"status"`
	Count  int `json:"count"`
}

// String says it in one sentence for a log or a notice.
func (c DriftChange) String() string {
	if !c.Drifting {
		return fmt.Sprintf("the backend's answers to log-ins fit the preset again (%d of the last %d do not)", c.Neither+c.Both+c.Unidentified, c.Answers)
	}
	statuses := make([]string, len(c.Statuses))
	for i, s := range c.Statuses {
		statuses[i] = fmt.Sprintf("%d (%d times)", s.Status, s.Count)
	}
	return fmt.Sprintf("the backend's answers to log-ins do not fit the preset: of the last %d, %d meet no condition, %d contrary ones, %d name nobody; their statuses: %s; "+
		"was the backend changed? compare the preset with what `kidoban learn` finds", c.Answers, c.Neither, c.Both, c.Unidentified, strings.Join(statuses, ", "))
}

// Observe takes the next answer and reports a change, if there is one. A backend
// that is down is not a backend that has changed: status 0 and 502 to 504 are left
// out, where the preset does not foresee them.
func (d *Drift) Observe(a LoginAnswer) (DriftChange, bool) {
	if a.Fit == FitsNeither && (a.Status == 0 || a.Status >= 502 && a.Status <= 504) {
		return DriftChange{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[d.next] = driftAnswer{LoginAnswer: a, fits: a.Fit == Fits && !a.Unidentified}
	d.next = (d.next + 1) % driftWindow
	d.n = min(d.n+1, driftWindow)
	if d.n < driftLeast {
		return DriftChange{}, false
	}
	c := d.countLocked()
	misfits := c.Neither + c.Both + c.Unidentified
	switch {
	case !d.drifting && (misfits*100 > driftBegins*d.n && d.sourcesLocked() >= driftSources || d.lastLocked()):
	case d.drifting && misfits*100 < driftEnds*d.n:
	default:
		return DriftChange{}, false
	}
	d.drifting = !d.drifting
	c.Drifting, c.Time, c.Since = d.drifting, a.Time, a.Time
	for i := range d.n {
		if x := d.atLocked(i); x.fits != d.drifting && x.Time.Before(c.Since) {
			c.Since = x.Time
		}
	}
	d.since = c.Since
	d.n, d.next = 0, 0 // what comes is judged by itself
	return c, true
}

// Drifting reports whether answers do not fit, and since when.
func (d *Drift) Drifting() (since time.Time, drifting bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.drifting {
		return time.Time{}, false
	}
	return d.since, true
}

// atLocked is the i-th answer, the oldest first.
func (d *Drift) atLocked(i int) *driftAnswer {
	return &d.answers[(d.next-d.n+i+driftWindow)%driftWindow]
}

func (d *Drift) countLocked() DriftChange {
	c := DriftChange{Answers: d.n}
	for i := range d.n {
		a := d.atLocked(i)
		switch {
		case a.fits:
			continue
		case a.Fit == FitsBoth:
			c.Both++
		case a.Fit == Fits:
			c.Unidentified++
		default:
			c.Neither++
		}
		at := slices.IndexFunc(c.Statuses, func(s DriftStatus) bool { return s.Status == a.Status })
		if at < 0 {
			at = len(c.Statuses)
			c.Statuses = append(c.Statuses, DriftStatus{Status: a.Status})
		}
		c.Statuses[at].Count++
	}
	slices.SortFunc(c.Statuses, func(a, b DriftStatus) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return a.Status - b.Status
	})
	c.Statuses = c.Statuses[:min(len(c.Statuses), 3)]
	return c
}

// sourcesLocked is how many sources had answers that do not fit.
func (d *Drift) sourcesLocked() int {
	seen := make(map[detectors.Digest]bool)
	for i := range d.n {
		if a := d.atLocked(i); !a.fits {
			seen[a.Source] = true
		}
	}
	return len(seen)
}

// lastLocked reports whether none of the latest answers fits.
func (d *Drift) lastLocked() bool {
	for i := d.n - driftLeast; i < d.n; i++ {
		if d.atLocked(i).fits {
			return false
		}
	}
	return true
}
