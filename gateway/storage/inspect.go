package storage

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Outdated lists the schemas whose version in the database is not the one that this
// program brings it to, as "NAME: at 3, want 4". It changes nothing, so it also works
// on what [OpenReadOnly] opened.
func (db *DB) Outdated(ctx context.Context) ([]string, error) {
	var out []string
	for _, s := range schemas {
		newest, err := s.newest(db.dialect)
		if err != nil {
			return nil, err
		}
		var at int64
		// The version is that of the last migration that was applied.
		if err := db.reads.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM `+s.name+versionTable).Scan(&at); err != nil {
			return nil, fmt.Errorf("reading the version of %s: %w", s.name, err)
		}
		if at != newest {
			out = append(out, fmt.Sprintf("%s: at %d, want %d", s.name, at, newest))
		}
	}
	return out, nil
}

// newest is the version of the last migration.
func (s schema) newest(d dialect) (last int64, err error) {
	entries, err := fs.ReadDir(s.migrations, "migrations/"+d.String())
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: migration %s has no number", s.name, e.Name())
		}
		last = max(last, n)
	}
	return last, nil
}

// Clock is the time of the database's server; of SQLite it is this machine's.
func (db *DB) Clock(ctx context.Context) (time.Time, error) {
	if db.dialect == sqlite {
		return time.Now(), nil
	}
	var at time.Time
	if err := db.reads.QueryRowContext(ctx, `SELECT clock_timestamp()`).Scan(&at); err != nil {
		return at, fmt.Errorf("asking the database's clock: %w", err)
	}
	return at, nil
}
