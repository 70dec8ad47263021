// Package store keeps the chat in one SQLite file.
//
// When a writing method returns without an error the change is on disk, as a
// whole; when it returns an error nothing changed. One connection writes and
// several read, each reader seeing one moment of the file (WAL). All methods
// may be called concurrently. Clocks, hashing and the question of who may do
// what to an account stay with the caller; who may see a room is decided
// here, in the same transaction as the answer, because membership is a row.
//
// Failures a client may hear about are [chat.Error] values.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/kidoban/kidoban/chatcore/chat"
)

//go:embed migrations/*.sql
var migrations embed.FS

// DB is an open file.
type DB struct {
	write *sql.DB // one connection
	read  *sql.DB
	keep  int64 // events kept; see pruneEvents
}

// readers is how many queries may run beside the writer.
const readers = 8

// Open opens the file at path, making it (readable by its owner only) when it
// is missing, and brings its schema up to date.
func Open(ctx context.Context, path string) (_ *DB, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// SQLite would make the file, and the two beside it, readable by all.
	f, err := os.OpenFile(abs, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	f.Close()

	db := &DB{keep: 100_000}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	if db.write, err = open(abs, url.Values{"_txlock": {"immediate"}}); err != nil {
		return nil, err
	}
	db.write.SetMaxOpenConns(1)
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db.write, dir)
	if err != nil {
		return nil, fmt.Errorf("reading migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return nil, fmt.Errorf("migrating %s: %w", path, err)
	}
	if db.read, err = open(abs, url.Values{"_pragma": {"query_only(1)"}}); err != nil {
		return nil, err
	}
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	return db, nil
}

func open(abs string, extra url.Values) (*sql.DB, error) {
	q := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)"}}
	for k, v := range extra {
		q[k] = append(q[k], v...)
	}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
}

// Close closes the file.
func (db *DB) Close() error {
	var errs []error
	for _, d := range []*sql.DB{db.read, db.write} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}

// Ping reports whether the file can be read.
func (db *DB) Ping(ctx context.Context) error {
	var n int
	return db.read.QueryRowContext(ctx, `SELECT 1`).Scan(&n)
}

// update runs f in the one writing transaction.
func (db *DB) update(ctx context.Context, f func(*sql.Tx) error) error {
	return inTx(ctx, db.write, nil, f)
}

// view runs f at one moment of the file.
func (db *DB) view(ctx context.Context, f func(*sql.Tx) error) error {
	return inTx(ctx, db.read, &sql.TxOptions{ReadOnly: true}, f)
}

func inTx(ctx context.Context, db *sql.DB, opts *sql.TxOptions, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// list reads every row of a query; the query itself holds the bound.
func list[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// stamp is a time as it is stored.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// moment reads what stamp wrote.
func moment(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// duplicate reports whether err is a broken UNIQUE rule.
func duplicate(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

var errNotFound = chat.Errorf(chat.NotFound, "Not found")

// found gives an absent row its kind.
func found(err error, absent *chat.Error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return absent
	}
	return err
}
