package policies_test

import (
	"database/sql"
	"flag"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
	"github.com/kidoban/kidoban/policies"
)

func TestMain(m *testing.M) { storagetest.Main(m) }

// places are where decisions, the ledger and notices can be kept.
var places = []string{"memory", "sqlite", "postgres"}

// place is a store and what was opened over it.
type place struct {
	store  policies.DecisionStore
	outbox func() *policies.Outbox // each a deliverer of its own
	db     *sql.DB                 // nil in memory
	name   string
}

// openPlace is an empty store of a kind.
func openPlace(t testing.TB, name string) place {
	t.Helper()
	switch name {
	case "memory":
		m := policies.NewMemoryStore()
		return place{store: m, outbox: m.Outbox, name: name}
	case "sqlite":
		return placeOn(t, openSQLite(t), name)
	default:
		return placeOn(t, openPostgres(t), name)
	}
}

func placeOn(t testing.TB, db *sql.DB, dialect string) place {
	t.Helper()
	s, err := policies.NewSQLStore(db, dialect)
	if err != nil {
		t.Fatal(err)
	}
	return place{store: s, db: db, name: dialect, outbox: func() *policies.Outbox {
		o, err := policies.NewOutbox(db, dialect)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}}
}

// clear empties a place for the next run of a model.
func (p *place) clear(t interface{ Fatal(...any) }) {
	if p.db == nil {
		m := policies.NewMemoryStore()
		p.store, p.outbox = m, m.Outbox
		return
	}
	for _, text := range []string{`DELETE FROM decisions`, `DELETE FROM decision_acts`, `DELETE FROM outbox`, `DELETE FROM ledger`,
		`DELETE FROM findings`, `DELETE FROM finding_references`, `DELETE FROM rule_texts`, `DELETE FROM rule_hits`, `DELETE FROM rule_falls`, `DELETE FROM rule_nodes`,
		`DELETE FROM incidents`, `DELETE FROM incident_changes`, `DELETE FROM incident_findings`, `DELETE FROM incident_accounts`,
		`UPDATE outbox_open SET number = 0`, `UPDATE decisions_revision SET revision = 0`} {
		if _, err := p.db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
}

// openSQLite is an empty, migrated database.
func openSQLite(t testing.TB) *sql.DB {
	t.Helper()
	db := openDB(t, "sqlite", "file:"+filepath.Join(t.TempDir(), "test.db")+"?_pragma=journal_mode(wal)&_pragma=busy_timeout(5000)&_pragma=synchronous(normal)")
	migrate(t, db, goose.DialectSQLite3, "sqlite")
	return db
}

// migrated is the one PostgreSQL database of the tests that need an empty one.
var migrated struct {
	once sync.Once
	url  string
}

// openPostgres is the migrated database, emptied.
func openPostgres(t testing.TB) *sql.DB {
	t.Helper()
	migrated.once.Do(func() {
		url := storagetest.Postgres(t)
		migrate(t, openDB(t, "pgx", url), goose.DialectPostgres, "postgres")
		migrated.url = url
	})
	if migrated.url == "" {
		t.Skip("PostgreSQL is not installed")
	}
	p := place{db: openDB(t, "pgx", migrated.url)}
	p.clear(t)
	return p.db
}

func openDB(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func migrate(t testing.TB, db *sql.DB, dialect goose.Dialect, folder string) {
	t.Helper()
	dir, err := fs.Sub(policies.Migrations, "migrations/"+folder)
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(dialect, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestMigrationsReturn goes down to nothing and up again.
func TestMigrationsReturn(t *testing.T) {
	for _, tc := range []struct {
		name    string
		dialect goose.Dialect
		db      *sql.DB
	}{
		{"sqlite", goose.DialectSQLite3, openSQLite(t)},
		{"postgres", goose.DialectPostgres, openDB(t, "pgx", storagetest.Postgres(t))},
	} {
		dir, err := fs.Sub(policies.Migrations, "migrations/"+tc.name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := goose.NewProvider(tc.dialect, tc.db, dir, goose.WithDisableGlobalRegistry(true))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Up(t.Context()); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if _, err := p.DownTo(t.Context(), 0); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if _, err := p.Up(t.Context()); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// fewerChecks makes rapid try a model over a database less often: a step is a
// transaction there.
func fewerChecks(t *testing.T, name, checks string) {
	f := flag.Lookup("rapid.checks")
	if name == "memory" || f.Value.String() != f.DefValue {
		return
	}
	old := f.Value.String()
	if err := flag.Set("rapid.checks", checks); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set("rapid.checks", old) })
}
