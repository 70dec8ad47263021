package policies

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Change is what happened to a decision.
type Change string

const (
	Unchanged  Change = ""           // it was there already and is as it was
	Registered Change = "registered" // it came into being
	Extended   Change = "extended"   // it was registered again and ends later
	Lifted     Change = "lifted"     // somebody took it back
	Expired    Change = "expired"    // it ended on time
)

// Registration is a decision as it is after it was registered, and what the
// registration changed. Among nodes that register the same at once, exactly one
// gets [Registered].
type Registration struct {
	Decision
	Change Change `json:"-"`
}

// Act is who does something, and the record's entry of intent under which it is
// done: "node/sequence", at most 128 bytes; empty where none is kept.
type Act struct {
	By    string
	Entry string
}

// Announce names the notices that a change of a decision calls for. It runs within
// the transaction of the change, so it asks nobody and waits for nothing, and the
// notices exist if and only if the change does. It is called once among all nodes:
// for each registration, which is [Registered], or [Extended] where not a rule
// registers again; for each lift; for each expiry. It is not called where nothing
// changed, when a rule extends, and when old decisions are deleted.
//
// A notice without a key gets one that tells the registrations of a decision apart.
type Announce func(Change, Decision) []Notice

// Option sets what OpenDecisions may do without.
type Option func(*Decisions)

// WithNotices has a notice kept for each change that announce names, in the outbox
// of the same store.
func WithNotices(announce Announce) Option {
	return func(d *Decisions) { d.announce = announce }
}

// intend keeps the notices of a change.
func (d *Decisions) intend(tx DecisionTx, change Change, n Decision, now time.Time) error {
	if d.announce == nil || change == Unchanged || change == Extended && n.Origin == OriginRule {
		return nil
	}
	for _, notice := range d.announce(change, n) {
		if notice.Key == "" {
			notice.Key = noticeKey(change, n, notice)
		}
		if err := tx.Intend(notice, now); err != nil {
			return fmt.Errorf("the notice of a decision that is %s: %w", change, err)
		}
	}
	return nil
}

// noticeKey is unique among what is told of decisions: an id is registered, lifted
// and expires once, and each extension has a later end.
func noticeKey(change Change, d Decision, n Notice) string {
	parts := []string{"decision." + string(change), d.ID}
	if change == Extended {
		parts = append(parts, strconv.FormatInt(micros(d.Until), 10))
	}
	return strings.Join(append(parts, n.Channel, n.To), "/")
}
