package policies

import (
	"context"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// State is how far a stored decision has come. Live and lapsed become expired when
// a sweep tells of them; lifted and expired are the end.
type State uint8

const (
	StateLive    State = iota // acts until its end, which may have passed already
	StateLifted               // taken back; its hold-off may still run
	StateLapsed               // over, replaced by a successor before a sweep told of it
	StateExpired              // over, and told
)

// Stored is a decision as the store has it.
type Stored struct {
	Decision
	State    State
	Revision uint64 // of the update that wrote it last
}

// DecisionStore keeps decisions durably. It is the truth that nodes share.
type DecisionStore interface {
	// Update runs do in one transaction that no other update overlaps, on this
	// node or another. The next revision is assigned to it and to all it puts.
	// When Update returns nil, everything put is durable; when it returns an error
	// that is ErrUncertain, it may be, and else nothing is. It never retries; do may
	// keep results only if Update returns nil.
	Update(ctx context.Context, do func(DecisionTx) error) (revision uint64, err error)

	// Standing calls each with what is live or holds a rule off after now, in any
	// order, and returns the latest revision it has seen all of.
	Standing(ctx context.Context, now time.Time, each func(Stored)) (latest uint64, err error)

	// Since calls each with what was written after revision, in any order and
	// whatever its state, and returns the latest revision it has seen all of.
	Since(ctx context.Context, revision uint64, each func(Stored)) (latest uint64, err error)

	// ByID is one decision, in any state; ErrNotFound when there is none.
	ByID(ctx context.Context, id string) (Stored, error)

	// List is up to limit decisions that match q, the newest first, beginning after
	// the id q.Cursor.
	List(ctx context.Context, q DecisionQuery, now time.Time, limit int) ([]Stored, error)

	// Due reports whether there is anything untold at now, or to be purged as of
	// then. It writes nothing.
	Due(ctx context.Context, now, then time.Time) (bool, error)

	// Acted is those of entries, at most 1,000, that an update marked as acts. What
	// a database is still committing for somebody who is gone, it awaits.
	Acted(ctx context.Context, entries []string) ([]string, error)

	// ForgetActs deletes up to limit marks older than before of entries that begin
	// with prefix, and says how many.
	ForgetActs(ctx context.Context, prefix string, before time.Time, limit int) (int, error)
}

// DecisionTx is what an update may do. It is used by one goroutine and not kept.
type DecisionTx interface {
	// ByID is as in DecisionStore.
	ByID(id string) (Stored, error)
	// Live is the decision in state live with the identity of d: scope, value,
	// origin, maker, rule, action and mode. There is at most one.
	Live(d Decision) (s Stored, found bool, err error)
	// HoldOff is the latest hold-off of a rule on a subject; zero when none.
	HoldOff(rule rules.ID, scope Scope, value string) (time.Time, error)
	// Put inserts d or replaces the decision with its id.
	Put(d Decision, state State) error
	// Untold is up to limit decisions that are over at now and that no sweep told
	// of: lapsed ones, and live ones whose end has passed.
	Untold(now time.Time, limit int) ([]Stored, error)
	// Purge deletes up to limit lifted and expired decisions whose end and hold-off
	// lie before then, and says how many.
	Purge(then time.Time, limit int) (int, error)
	// Act marks an entry of the record as done at now.
	Act(entry string, now time.Time) error
	// Intend puts a notice into the outbox, unless one with its key is there.
	Intend(n Notice, now time.Time) error
}

// DecisionQuery selects decisions. The zero value selects all of them, whatever
// their state. Fields that are set must all hold.
type DecisionQuery struct {
	Scope   Scope
	Value   string // exact, in any form that can be made canonical; needs Scope
	Address string // decisions on this address or on a network that contains it
	Origin  Origin
	By      string
	Rule    rules.ID
	State   string // "live", "ended", or "" for both
	Cursor  string // where the previous page ended
	Limit   int    // per page; 0 means 50, at most 200
}
