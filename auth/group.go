package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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
	do   func(context.Context, *sql.Tx) error
	done chan error    // takes the outcome
	lead chan struct{} // takes the lead
}

// in runs do in a transaction, which it may share with others: what do did is
// undone if it fails, and only that. The context ends neither the wait nor the
// change, since SQLite drops a whole transaction when one statement is interrupted.
func (s *SQLStore) in(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
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
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for i, c := range changes {
		if _, err := tx.ExecContext(ctx, `SAVEPOINT change`); err != nil {
			return err
		}
		end := `RELEASE SAVEPOINT change`
		if outcomes[i] = c.apply(ctx, tx); outcomes[i] != nil {
			end = `ROLLBACK TO SAVEPOINT change`
		}
		if _, err := tx.ExecContext(ctx, end); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// apply runs the change. A panic in it must not leave the others waiting for ever.
func (c *change) apply(ctx context.Context, tx *sql.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("changing the database: panic: %v", p)
		}
	}()
	return c.do(ctx, tx)
}
