package rules

import (
	"fmt"
	"time"
)

// endsSoon is how long before its end an exemption is due.
const endsSoon = 14 * day

// Due tells, one sentence each, what of r its owner has to look at again: a review whose
// day is over, and exemptions that ended or end within 14 days.
func (r Rule) Due(now time.Time) (due []string) {
	if now.Sub(r.ReviewBy) >= day {
		due = append(due, fmt.Sprintf("review_by: %s is over: %s is to review the rule, and to say until when it may be trusted", r.ReviewBy.Format(time.DateOnly), r.Owner))
	}
	for i, x := range r.Except {
		left, end := x.Until.Sub(now), x.Until.Format(time.DateOnly)
		switch {
		case left <= 0:
			due = append(due, fmt.Sprintf("except[%d]: ended on %s and covers nothing: %s is to take it out, or to renew it", i, end, x.Owner))
		case left <= endsSoon:
			due = append(due, fmt.Sprintf("except[%d]: ends on %s: %s is to renew it, or to let it go", i, end, x.Owner))
		}
	}
	return due
}
