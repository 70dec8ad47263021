package policies

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// ErrUncertain says that the connection broke while a change was being committed:
// it may have been made or not. What is live shows it after the next Reconcile, if
// it was made; doing the same again is safe.
var ErrUncertain = errors.New("the database did not say whether it committed")

// errNothingToDo ends a transaction that found nothing to write.
var errNothingToDo = errors.New("nothing to do")

// transact runs do in one transaction and commits it unless do fails. The first
// statement of do writes the row for which others shall wait.
//
// On PostgreSQL it is READ COMMITTED, whatever the server's default: there each
// statement sees what was committed before it began, so all that follow the row
// lock see what the lock's last holder did. Under REPEATABLE READ and SERIALIZABLE
// the view dates from before the wait for the lock, and whoever had to wait would
// fail. SQLite has one writer and no other level.
func (d dialect) transact(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	var opts *sql.TxOptions
	if d == "postgres" {
		opts = &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("before committing: %w", err) // certainly not done
	}
	switch err := tx.Commit(); {
	case err == nil:
		return nil
	case refused(err):
		return fmt.Errorf("committing: %w", err)
	default:
		return fmt.Errorf("committing: %w: %w", ErrUncertain, err)
	}
}

// refused reports whether a database answered a COMMIT, and with no: PostgreSQL's
// classes 23 (a constraint), 25 (a failed transaction), 40 (a conflict) but for
// 40003, which means unknown; SQLite's full disk, read-only file and the like.
// Everything else, a connection that ended and SQLite's I/O errors among it, leaves
// the outcome open.
func refused(err error) bool {
	var state interface{ SQLState() string } // pgconn's
	if errors.As(err, &state) {
		code := state.SQLState()
		return code != "40003" && (strings.HasPrefix(code, "23") || strings.HasPrefix(code, "25") || strings.HasPrefix(code, "40"))
	}
	var code interface{ Code() int } // SQLite's
	if errors.As(err, &code) {
		switch code.Code() & 0xff {
		case 5, 6, 8, 13, 19: // busy, locked, read-only, full, constraint
			return true
		}
	}
	return false
}
