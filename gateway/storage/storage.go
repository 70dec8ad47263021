// Package storage opens what the gate keeps: its database, its keys and its Redis.
//
// [Open] gives one process alone a data directory, and the database beside it:
// SQLite in the directory, or PostgreSQL that several nodes share, migrated to what
// this version needs. What a store acknowledged survives a crash and a power cut:
// SQLite runs with a write-ahead log that is synced at each commit, PostgreSQL as
// its administrator set it up, with a warning where that says otherwise. A database
// of a newer version is refused, not guessed at.
//
// A database knows which keys its contents were made with ([DB.OpenKeyring]), so
// that the keyring of another installation, or one that lacks a key, is refused
// before anything is made with it.
//
// [Copy] copies an installation from one kind of database to the other, [Backup]
// and [Restore] bring it to a directory and back. SQL lives with the packages whose
// data it is.
package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// The names below a data directory.
const (
	databaseName = "kidoban.db"
	lockName     = "kidoban.db.lock"
	keyringName  = "keys.json"
	recordName   = "record"             // the record's segments (gateway/record)
	memoryName   = "detectors.snapshot" // what the detectors learned (gateway/guard)
)

// Options say which database to open.
type Options struct {
	// DataDir is the directory of this process alone. It is created if missing, and
	// refused where its group or others can write it.
	DataDir string
	// Database is "" for SQLite in DataDir, or the URL of a PostgreSQL database:
	// postgres://USER@HOST/NAME. The password may stay out of it, in PGPASSWORD or a
	// file that PGPASSFILE names.
	Database string
	// Node is how this process is called in PostgreSQL's list of connections; by
	// default the host's name.
	Node string
	// Log gets migrations and warnings; by default slog.Default().
	Log *slog.Logger
}

func (o *Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.Default()
	}
	return o.Log
}

// DB is an open database.
type DB struct {
	sql     *sql.DB // for changes
	reads   *sql.DB // for look-ups
	dialect dialect
	dir     string
	lock    *os.File
	fresh   bool
}

// Open opens the database that o names, creating a SQLite one where it is missing,
// and brings it to the version this program needs. Until Close no other process can
// open the data directory so. Errors never hold the database's password.
func Open(ctx context.Context, o Options) (_ *DB, err error) {
	log := o.log()
	kind, err := kindOf(o.Database)
	if err != nil {
		return nil, err
	}
	if err := ownDir(o.DataDir); err != nil {
		return nil, err
	}
	db := &DB{dialect: kind, dir: o.DataDir}
	if db.lock, err = lockDir(filepath.Join(o.DataDir, lockName)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	switch kind {
	case sqlite:
		err = db.openSQLite(ctx, filepath.Join(o.DataDir, databaseName), log)
	case postgres:
		if _, err := os.Lstat(filepath.Join(o.DataDir, databaseName)); err == nil {
			log.Warn("the data directory holds a SQLite database that is not used, since a PostgreSQL database is named: move it away", "file", filepath.Join(o.DataDir, databaseName))
		}
		err = db.openPostgres(ctx, o.Database, o.Node, log)
	}
	if err != nil {
		return nil, err
	}
	if err := db.sql.QueryRowContext(ctx, `SELECT NOT EXISTS (SELECT 1 FROM auth_people) AND NOT EXISTS (SELECT 1 FROM auth_devices)
		AND NOT EXISTS (SELECT 1 FROM storage_keys)`).Scan(&db.fresh); err != nil {
		return nil, fmt.Errorf("reading the database: %w", err)
	}
	return db, nil
}

// OpenReadOnly opens the database that o names for reading, also beside processes
// that have it open. It creates and migrates nothing and takes no lock.
func OpenReadOnly(ctx context.Context, o Options) (*DB, error) {
	kind, err := kindOf(o.Database)
	if err != nil {
		return nil, err
	}
	if kind == postgres {
		return readPostgres(ctx, o.Database, o.Node)
	}
	return readSQLite(filepath.Join(o.DataDir, databaseName))
}

// kindOf tells what an address leads to.
func kindOf(database string) (dialect, error) {
	switch {
	case database == "":
		return sqlite, nil
	case strings.HasPrefix(database, "postgres://"), strings.HasPrefix(database, "postgresql://"):
		return postgres, nil
	}
	return 0, errors.New("the database is neither empty (SQLite in the data directory) nor the address of a PostgreSQL database: postgres://USER@HOST/NAME")
}

// SQL is the handle that stores work on.
func (db *DB) SQL() *sql.DB { return db.sql }

// Reads is a handle for look-ups, which do not wait for commits there.
func (db *DB) Reads() *sql.DB { return db.reads }

// Dialect is the name stores know the database's kind by: "sqlite" or "postgres".
func (db *DB) Dialect() string { return db.dialect.String() }

// Shared reports whether other nodes may work on the database at the same time.
func (db *DB) Shared() bool { return db.dialect == postgres }

// Fresh reports whether Open found nothing that keys were used for: no account, no
// device, and no key on the database's list. Then new keys lose nothing. A first
// start that was cut off after it made the database and before it made the keys is
// fresh when it is tried again.
func (db *DB) Fresh() bool { return db.fresh }

// Close closes the database and lets other processes open the data directory.
func (db *DB) Close() error {
	var errs []error
	if db.reads != nil && db.reads != db.sql {
		errs = append(errs, db.reads.Close())
	}
	if db.sql != nil {
		errs = append(errs, db.sql.Close())
	}
	if db.lock != nil {
		errs = append(errs, db.lock.Close())
	}
	return errors.Join(errs...)
}
