package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	groupMax     = 64               // changes that share a commit
	groupWaiting = 10_000           // changes that wait
	groupTimeout = 15 * time.Second // for one commit
)

var errBusy = errors.New("too many changes wait for the database")

// group is the queue of changes that wait to be committed. Syncing a disk takes
// the same time for one change as for many, so those that come while it is synced
// go together next. There is no goroutine: whoever finds nobody leading commits
// what waits, itself included, and hands the lead to the first of the rest.
type group struct {
	mu      sync.Mutex
	waiting []*change // guarded by mu
	leading bool      // guarded by mu
}

// change is one caller's part of a commit.
type change struct {
	do   func(context.Context, *transaction) error
	done chan error    // takes the outcome
	lead chan struct{} // takes the lead
}

// in runs do in a transaction, which it may share with others: what do did is
// undone if it fails, and only that. The context ends the wait of a change that
// nobody began, which is then not made. It does not end a change that is begun, since
// SQLite drops a whole transaction when one statement is interrupted; that takes
// groupTimeout at most.
func (s *SQLStore) in(ctx context.Context, do func(context.Context, *transaction) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g := &s.group
	c := &change{do, make(chan error, 1), make(chan struct{}, 1)}
	g.mu.Lock()
	if len(g.waiting) >= groupWaiting {
		g.mu.Unlock()
		return errBusy
	}
	g.waiting = append(g.waiting, c)
	lead := !g.leading
	g.leading = true
	g.mu.Unlock()
	if !lead {
		select {
		case err := <-c.done:
			return err
		case <-c.lead:
		case <-ctx.Done():
			if g.leave(c) {
				return fmt.Errorf("waiting for other changes of the database: %w", ctx.Err())
			}
			select {
			case err := <-c.done:
				return err
			case <-c.lead:
			}
		}
	}

	g.mu.Lock()
	n := min(len(g.waiting), groupMax)
	together := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.mu.Unlock()
	s.commit(together)
	g.mu.Lock()
	if len(g.waiting) > 0 {
		g.waiting[0].lead <- struct{}{}
	} else {
		g.waiting, g.leading = nil, false
	}
	g.mu.Unlock()
	return <-c.done
}

// leave takes a change that waits out of the queue. It returns false if somebody
// commits it already, or if it has the lead.
func (g *group) leave(c *change) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, c)
	if i < 0 || len(c.lead) > 0 {
		return false
	}
	// A copy: those who are being committed share the array.
	g.waiting = slices.Concat(g.waiting[:i], g.waiting[i+1:])
	return true
}

// commit makes changes in one transaction and tells each its outcome.
func (s *SQLStore) commit(changes []*change) {
	outcomes := make([]error, len(changes))
	err := s.transact(changes, outcomes)
	for i, c := range changes {
		if outcomes[i] == nil {
			outcomes[i] = err
		}
		c.done <- outcomes[i]
	}
}

func (s *SQLStore) transact(changes []*change, outcomes []error) error {
	ctx, cancel := context.WithTimeout(context.Background(), groupTimeout)
	defer cancel()
	tx, err := s.writes.begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if len(changes) == 1 {
		if outcomes[0] = changes[0].apply(ctx, tx); outcomes[0] != nil {
			return nil
		}
		return s.end(ctx, tx)
	}
	// Statements without arguments may go together, in one round trip.
	if _, err := tx.Tx.ExecContext(ctx, `SAVEPOINT change`); err != nil {
		return err
	}
	for i, c := range changes {
		next := `RELEASE SAVEPOINT change; SAVEPOINT change`
		if outcomes[i] = c.apply(ctx, tx); outcomes[i] != nil {
			next = `ROLLBACK TO SAVEPOINT change`
		}
		if _, err := tx.Tx.ExecContext(ctx, next); err != nil {
			return err
		}
	}
	return s.end(ctx, tx)
}

// ErrUncertain means that the connection to the database broke at the wrong
// moment: the change may have been made, and whoever needs to know has to look. Any
// other error means that nothing was changed.
var ErrUncertain = errors.New("the database did not say whether it made the change")

// end commits.
func (s *SQLStore) end(ctx context.Context, tx *transaction) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := tx.Commit()
	if err == nil || refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}

// refused reports whether err, of a commit, says that it did not happen. What is
// not known to say so may have.
func refused(err error) bool {
	var (
		unsent interface{ SafeToRetry() bool } // pgconn's
		state  interface{ SQLState() string }  // pgconn's
		code   interface{ Code() int }         // SQLite's
	)
	switch {
	case errors.Is(err, sql.ErrTxDone): // rolled back already
		return true
	case errors.As(err, &unsent) && unsent.SafeToRetry():
		return true
	case errors.As(err, &state):
		switch class := state.SQLState(); {
		case class == "40003": // statement completion unknown
			return false
		case len(class) == 5:
			// Integrity, state of the transaction, rolled back: nothing that can
			// come after the commit was written.
			return class[:2] == "23" || class[:2] == "25" || class[:2] == "40"
		}
	case errors.As(err, &code):
		switch code.Code() & 0xff {
		case 5, 6, 8, 13, 19: // busy, locked, read-only, full, constraint
			return true
		}
	}
	return false
}

// apply runs the change. A panic in it must not leave the others waiting for ever.
func (c *change) apply(ctx context.Context, tx *transaction) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("changing the database: panic: %v", p)
		}
	}()
	return c.do(ctx, tx)
}
