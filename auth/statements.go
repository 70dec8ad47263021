package auth

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"sync"
)

// handle runs statements, on a database or in a transaction. Statements have ? for
// their arguments, whatever the database wants.
type handle interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// statements is one database handle and what it has prepared. SQLite compiles a
// statement anew each time unless it is kept; pgx keeps its own. The texts are
// those of this package, so there are few, and each is kept as long as the handle.
type statements struct {
	db       *sql.DB
	postgres bool

	mu     sync.RWMutex // guards what follows
	kept   map[string]*sql.Stmt
	wanted map[string]bool   // run in a transaction; prepared before the next one
	texts  map[string]string // with numbered placeholders, for PostgreSQL
}

func newStatements(db *sql.DB, postgres bool) *statements {
	return &statements{db: db, postgres: postgres, kept: make(map[string]*sql.Stmt), wanted: make(map[string]bool), texts: make(map[string]string)}
}

// text is a statement as PostgreSQL wants it. No statement of ours has a question
// mark in a literal.
func (st *statements) text(query string) string {
	st.mu.RLock()
	text, ok := st.texts[query]
	st.mu.RUnlock()
	if ok {
		return text
	}
	var b strings.Builder
	n := 0
	for _, c := range query {
		if c != '?' {
			b.WriteRune(c)
			continue
		}
		n++
		b.WriteString("$" + strconv.Itoa(n))
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.texts[query] = b.String()
	return b.String()
}

// get is the statement if it is prepared.
func (st *statements) get(query string) *sql.Stmt {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.kept[query]
}

// prepare prepares a statement and keeps it, or returns nil: whoever runs the text
// then gets to see the error. It needs a connection, so it must not be called by
// who holds one.
func (st *statements) prepare(ctx context.Context, query string) *sql.Stmt {
	if stmt := st.get(query); stmt != nil {
		return stmt
	}
	stmt, err := st.db.PrepareContext(ctx, query)
	if err != nil {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if other := st.kept[query]; other != nil {
		stmt.Close()
		return other
	}
	st.kept[query] = stmt
	return stmt
}

// QueryContext implements [handle].
func (st *statements) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if st.postgres {
		return st.db.QueryContext(ctx, st.text(query), args...)
	}
	if stmt := st.prepare(ctx, query); stmt != nil {
		return stmt.QueryContext(ctx, args...)
	}
	return st.db.QueryContext(ctx, query, args...)
}

// QueryRowContext implements [handle].
func (st *statements) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if st.postgres {
		return st.db.QueryRowContext(ctx, st.text(query), args...)
	}
	if stmt := st.prepare(ctx, query); stmt != nil {
		return stmt.QueryRowContext(ctx, args...)
	}
	return st.db.QueryRowContext(ctx, query, args...)
}

// ExecContext implements [handle].
func (st *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if st.postgres {
		return st.db.ExecContext(ctx, st.text(query), args...)
	}
	if stmt := st.prepare(ctx, query); stmt != nil {
		return stmt.ExecContext(ctx, args...)
	}
	return st.db.ExecContext(ctx, query, args...)
}

// transaction is one commit's, with the revision that it makes.
type transaction struct {
	*sql.Tx
	st       *statements
	revision int64
}

// begin begins a transaction and takes the next revision, which waits for the
// changes of other nodes: from then on everything they committed is visible.
func (st *statements) begin(ctx context.Context) (*transaction, error) {
	var options *sql.TxOptions
	if st.postgres {
		// Whatever the server's default is: a later level would not see what was
		// committed while we waited.
		options = &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	} else {
		st.mu.Lock()
		wanted := st.wanted
		st.wanted = make(map[string]bool)
		st.mu.Unlock()
		for query := range wanted {
			st.prepare(ctx, query)
		}
	}
	tx, err := st.db.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	t := &transaction{Tx: tx, st: st}
	if err := t.QueryRowContext(ctx, `UPDATE auth_revision SET revision = revision + 1 WHERE one = 1 RETURNING revision`).Scan(&t.revision); err != nil {
		tx.Rollback()
		return nil, err
	}
	return t, nil
}

// prepared is the statement on the transaction's connection, or nil.
func (t *transaction) prepared(ctx context.Context, query string) *sql.Stmt {
	if stmt := t.st.get(query); stmt != nil {
		return t.Tx.StmtContext(ctx, stmt)
	}
	t.st.mu.Lock()
	defer t.st.mu.Unlock()
	t.st.wanted[query] = true
	return nil
}

// QueryContext implements [handle].
func (t *transaction) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if t.st.postgres {
		return t.Tx.QueryContext(ctx, t.st.text(query), args...)
	}
	if stmt := t.prepared(ctx, query); stmt != nil {
		return stmt.QueryContext(ctx, args...)
	}
	return t.Tx.QueryContext(ctx, query, args...)
}

// QueryRowContext implements [handle].
func (t *transaction) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if t.st.postgres {
		return t.Tx.QueryRowContext(ctx, t.st.text(query), args...)
	}
	if stmt := t.prepared(ctx, query); stmt != nil {
		return stmt.QueryRowContext(ctx, args...)
	}
	return t.Tx.QueryRowContext(ctx, query, args...)
}

// ExecContext implements [handle].
func (t *transaction) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if t.st.postgres {
		return t.Tx.ExecContext(ctx, t.st.text(query), args...)
	}
	if stmt := t.prepared(ctx, query); stmt != nil {
		return stmt.ExecContext(ctx, args...)
	}
	return t.Tx.ExecContext(ctx, query, args...)
}
