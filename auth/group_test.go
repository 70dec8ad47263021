package auth_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kidoban/kidoban/auth"
)

// TestChangesShareACommit: changes that come while another is committed go
// together, and what fails or panics among them undoes itself alone.
func TestChangesShareACommit(t *testing.T) { eachDatabase(t, changesShareACommit) }

func changesShareACommit(t *testing.T, d *database) {
	store := d.open().(*auth.SQLStore)
	ctx := context.Background()
	insert := func(id string) func(context.Context, *sql.Tx) error {
		return func(ctx context.Context, tx *sql.Tx) error {
			digest := sha256.Sum256([]byte(id))
			_, err := tx.ExecContext(ctx, `INSERT INTO auth_typed_names (digest, subject, since) VALUES ($1, $2, 0)`, digest[:16], id)
			return err
		}
	}

	// One holds the lead while the others queue up behind it.
	entered, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		if err := store.In(ctx, func(ctx context.Context, tx *sql.Tx) error {
			close(entered)
			<-release
			return insert("first")(ctx, tx)
		}); err != nil {
			t.Error(err)
		}
	})
	<-entered
	refused := errors.New("refused")
	var transactions atomic.Int64
	seen := make(map[*sql.Tx]bool) // by who leads alone
	queued := make(chan struct{}, 100)
	for i := range 100 {
		all.Go(func() {
			queued <- struct{}{}
			err := store.In(ctx, func(ctx context.Context, tx *sql.Tx) error {
				if !seen[tx] {
					seen[tx] = true
					transactions.Add(1)
				}
				if err := insert(fmt.Sprintf("change-%d", i))(ctx, tx); err != nil {
					return err
				}
				switch i % 10 {
				case 3:
					return refused
				case 7:
					panic("at the disco")
				}
				return nil
			})
			switch failed := i%10 == 3 || i%10 == 7; {
			case failed && err == nil, !failed && err != nil, i%10 == 3 && !errors.Is(err, refused):
				t.Errorf("change %d: %v", i, err)
			}
		})
	}
	for range 100 {
		<-queued
	}
	close(release)
	all.Wait()
	if n := transactions.Load(); n > 50 {
		t.Errorf("100 changes took %d transactions, want them to share", n)
	}
	var kept int
	if err := d.db.QueryRow(`SELECT COUNT(*) FROM auth_typed_names`).Scan(&kept); err != nil || kept != 81 {
		t.Errorf("%d changes were kept (%v), want 81: the first, and of the others those that did not fail", kept, err)
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := store.In(ended, insert("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ended: %v", err)
	}
}

// TestWhoGivesUpLeavesTheQueue: a change that nobody began is not made when its
// context ends, and keeps neither its caller nor those behind it.
func TestWhoGivesUpLeavesTheQueue(t *testing.T) { eachDatabase(t, whoGivesUpLeavesTheQueue) }

func whoGivesUpLeavesTheQueue(t *testing.T, d *database) {
	store := d.open().(*auth.SQLStore)
	entered, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		if err := store.In(context.Background(), func(context.Context, *sql.Tx) error {
			close(entered)
			<-release
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-entered
	ctx, giveUp := context.WithCancel(context.Background())
	var made atomic.Int64
	gone := make(chan error)
	for range 3 {
		go func() {
			gone <- store.In(ctx, func(context.Context, *sql.Tx) error {
				made.Add(1)
				return nil
			})
		}()
	}
	for range 3 {
		all.Go(func() {
			if err := store.In(context.Background(), func(context.Context, *sql.Tx) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	giveUp()
	for range 3 {
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("giving up: %v", err)
		}
	}
	close(release)
	all.Wait()
	if n := made.Load(); n > 0 {
		t.Errorf("%d changes were made that nobody waited for", n)
	}
}
