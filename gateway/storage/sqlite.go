package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// sqliteReaders is how many look-ups are under way at once; more wait. There is one
// connection that writes, since SQLite has one writer.
const sqliteReaders = 4

func (db *DB) openSQLite(ctx context.Context, file string, log *slog.Logger) error {
	// The file is made here so that it is never readable by others; SQLite gives
	// the files beside it the same mode. A copy from a backup may have a wider one.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return fmt.Errorf("keeping the database to ourselves: %w", err)
	}
	if db.sql, err = sql.Open("sqlite", dsn(file, "rwc", "immediate",
		"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "busy_timeout(5000)", "cache_size(-32768)")); err != nil {
		return fmt.Errorf("opening the database %s: %w", file, err)
	}
	db.sql.SetMaxOpenConns(1)
	if db.reads, err = sql.Open("sqlite", dsn(file, "rw", "deferred", "query_only(ON)", "busy_timeout(5000)", "cache_size(-8192)")); err != nil {
		return fmt.Errorf("opening the database %s: %w", file, err)
	}
	db.reads.SetMaxOpenConns(sqliteReaders)
	db.reads.SetMaxIdleConns(sqliteReaders)
	if err := up(ctx, db.sql, sqlite, log); err != nil {
		return fmt.Errorf("migrating the database %s: %w", file, err)
	}
	return nil
}

func readSQLite(file string) (*DB, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(file, "ro", "deferred", "query_only(ON)", "busy_timeout(5000)"))
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", file, err)
	}
	return &DB{sql: db, reads: db, dialect: sqlite}, nil
}

// dsn is the address of a file. A transaction that begins "immediate" is one that
// will write, and waits for the lock before it reads.
func dsn(file, mode, begin string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_pragma": pragmas, "_txlock": {begin}}
	return "file:" + (&url.URL{Path: file}).EscapedPath() + "?" + q.Encode()
}
