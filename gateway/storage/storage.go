// Package storage opens what the gate keeps: its database and its keys.
//
// [Open] gives one process alone the database of a data directory, migrated to
// what this version needs. What a store acknowledged survives a crash and a power
// cut: SQLite runs with a write-ahead log that is synced at each commit. There is
// one connection that writes, since SQLite has one writer, and a few that read
// beside it. A database of a newer version is refused, not guessed at.
//
// SQL lives with the packages whose data it is.
package storage

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/policies"
)

// readers is how many look-ups are under way at once; more wait.
const readers = 4

// DB is an open database.
type DB struct {
	sql   *sql.DB // the one writer
	reads *sql.DB
	lock  *os.File
	fresh bool
}

// schemas are the packages that keep tables, each with its own version.
var schemas = []struct {
	name       string
	migrations embed.FS
}{
	{"auth", auth.Migrations},
	{"policies", policies.Migrations},
}

// Open opens the SQLite database in file, creating it and its directory where
// they are missing. Until Close no other process can open it so.
func Open(ctx context.Context, file string, log *slog.Logger) (_ *DB, err error) {
	if strings.HasPrefix(file, "postgres:") || strings.HasPrefix(file, "postgresql:") {
		return nil, errors.New("this version keeps its data in SQLite only: give a path, not the address of a PostgreSQL server")
	}
	file = strings.TrimPrefix(file, "sqlite://")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	db := new(DB)
	if db.lock, err = lock(file + ".lock"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	// The file is made here so that it is never readable by others; SQLite gives
	// the files beside it the same mode. A copy from a backup may have a wider one.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, fmt.Errorf("keeping the database to ourselves: %w", err)
	}
	if db.sql, err = sql.Open("sqlite", dsn(file, "rwc",
		"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "busy_timeout(5000)", "cache_size(-65536)")); err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", file, err)
	}
	db.sql.SetMaxOpenConns(1)
	if db.reads, err = sql.Open("sqlite", dsn(file, "rw", "query_only(ON)", "busy_timeout(5000)", "cache_size(-16384)")); err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", file, err)
	}
	db.reads.SetMaxOpenConns(readers)
	db.reads.SetMaxIdleConns(readers)
	if err := db.migrate(ctx, log); err != nil {
		return nil, fmt.Errorf("migrating the database %s: %w", file, err)
	}
	if err := db.sql.QueryRowContext(ctx, `SELECT NOT EXISTS (SELECT 1 FROM auth_people) AND NOT EXISTS (SELECT 1 FROM auth_devices)`).Scan(&db.fresh); err != nil {
		return nil, fmt.Errorf("reading the database %s: %w", file, err)
	}
	return db, nil
}

// OpenReadOnly opens the database in file for reading, also beside a process that
// has it open.
func OpenReadOnly(file string) (*DB, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(file, "ro", "query_only(ON)", "busy_timeout(5000)"))
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", file, err)
	}
	return &DB{sql: db, reads: db}, nil
}

func dsn(file, mode string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_pragma": pragmas, "_txlock": {"immediate"}}
	return "file:" + (&url.URL{Path: file}).EscapedPath() + "?" + q.Encode()
}

// migrate brings every package's tables to the version it knows.
func (db *DB) migrate(ctx context.Context, log *slog.Logger) error {
	for _, s := range schemas {
		dir, err := fs.Sub(s.migrations, "migrations/sqlite")
		if err != nil {
			return err
		}
		p, err := goose.NewProvider(goose.DialectSQLite3, db.sql, dir,
			goose.WithTableName(s.name+"_schema"), goose.WithDisableGlobalRegistry(true))
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		sources := p.ListSources()
		newest := sources[len(sources)-1].Version
		at, err := p.GetDBVersion(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if at > newest {
			return fmt.Errorf("%s: the database is of version %d and this program knows up to %d: run the newer program, or restore the backup made before it", s.name, at, newest)
		}
		results, err := p.Up(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		for _, r := range results {
			log.Info("database migrated", "schema", s.name, "version", r.Source.Version)
		}
	}
	return nil
}

// SQL is the handle that stores work on.
func (db *DB) SQL() *sql.DB { return db.sql }

// Reads is a handle for look-ups, which do not wait for commits there.
func (db *DB) Reads() *sql.DB { return db.reads }

// Dialect is the name stores know the database's kind by.
func (db *DB) Dialect() string { return "sqlite" }

// Fresh reports whether Open found nothing that keys were used for, no account and
// no device: then new keys lose nothing. A first start that was cut off after it
// made the database and before it made the keys is fresh when it is tried again.
func (db *DB) Fresh() bool { return db.fresh }

// Close closes the database and lets other processes open it.
func (db *DB) Close() error {
	var errs []error
	if db.reads != nil {
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

// lock takes the advisory lock of a data directory. The kernel gives it back when
// the process ends, however it ends.
func lock(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		var pid [16]byte
		n, _ := f.ReadAt(pid[:], 0)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data directory %s is in use by the process with pid %s: stop it, or give this one a directory of its own",
				filepath.Dir(file), strings.TrimSpace(string(pid[:n])))
		}
		return nil, fmt.Errorf("locking %s: %w", file, err)
	}
	if err := errors.Join(f.Truncate(0), write(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", file, err)
	}
	return f, nil
}

func write(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}
