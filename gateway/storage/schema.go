package storage

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/gateway/once"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
)

// dialect is a kind of database.
type dialect int

const (
	sqlite dialect = iota + 1
	postgres
)

func (d dialect) String() string {
	if d == postgres {
		return "postgres"
	}
	return "sqlite"
}

//go:embed migrations
var migrations embed.FS

// schema is what one package keeps, with its version in the table NAME_schema.
type schema struct {
	name       string
	migrations embed.FS
}

var schemas = []schema{
	{"auth", auth.Migrations},
	{"policies", policies.Migrations},
	{"once", once.Migrations},
	{"mail", mail.Migrations},
	{"record", record.Migrations},
	{"storage", migrations},
}

const versionTable = "_schema"

// provider runs the migrations of a schema, and newest is the last of them.
func (s schema) provider(db *sql.DB, d dialect) (p *goose.Provider, newest int64, err error) {
	dir, err := fs.Sub(s.migrations, "migrations/"+d.String())
	if err != nil {
		return nil, 0, err
	}
	kind := goose.DialectSQLite3
	if d == postgres {
		kind = goose.DialectPostgres
	}
	if p, err = goose.NewProvider(kind, db, dir, goose.WithTableName(s.name+versionTable), goose.WithDisableGlobalRegistry(true)); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", s.name, err)
	}
	sources := p.ListSources()
	return p, sources[len(sources)-1].Version, nil
}

// up brings every package's tables to the version it knows.
func up(ctx context.Context, db *sql.DB, d dialect, log *slog.Logger) error {
	for _, s := range schemas {
		p, newest, err := s.provider(db, d)
		if err != nil {
			return err
		}
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
