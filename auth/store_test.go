package auth_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io/fs"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"

	"github.com/kidoban/kidoban/auth"
)

// start is when the tests' clock starts.
var start = time.Date(2026, 4, 6, 9, 0, 0, 0, time.UTC)

// store is what both stores are.
type store interface {
	auth.SessionStore
	auth.DirectoryStore
	auth.DeviceStore
}

// backing is where a test's data is. open is a store on it, and stands for a start
// of the program: for SQL it closes the database and opens it again.
type backing interface {
	open() store
	clear()
}

// eachStore runs a test against every store there is.
func eachStore(t *testing.T, run func(t *testing.T, b backing)) {
	t.Run("memory", func(t *testing.T) { run(t, &memory{auth.NewMemoryStore()}) })
	t.Run("sqlite", func(t *testing.T) { run(t, newDatabase(t)) })
}

type memory struct{ store *auth.MemoryStore }

func (m *memory) open() store { return m.store }
func (m *memory) clear()      { m.store = auth.NewMemoryStore() }

type database struct {
	t          testing.TB
	file       string
	db         *sql.DB
	migrated   bool
	statements *atomic.Int64 // run so far
}

func newDatabase(t testing.TB) *database {
	d := &database{t: t, file: filepath.Join(t.TempDir(), "auth.db"), statements: new(atomic.Int64)}
	t.Cleanup(func() {
		if d.db != nil {
			d.db.Close()
		}
	})
	return d
}

func (d *database) open() store {
	d.t.Helper()
	if d.db != nil {
		if err := d.db.Close(); err != nil {
			d.t.Fatal(err)
		}
	}
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(OFF)", "foreign_keys(ON)"}, "_txlock": {"immediate"}}
	d.db = sql.OpenDB(&connector{dsn: "file:" + d.file + "?" + q.Encode(), statements: d.statements})
	d.db.SetMaxOpenConns(1)
	if !d.migrated {
		d.migrate()
	}
	s, err := auth.NewSQLStore(d.db, "sqlite")
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d *database) migrate() {
	d.t.Helper()
	dir, err := fs.Sub(auth.Migrations, "migrations/sqlite")
	if err != nil {
		d.t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, d.db, dir, goose.WithTableName("auth_schema"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := p.Up(context.Background()); err != nil {
		d.t.Fatal(err)
	}
	d.migrated = true
}

func (d *database) clear() {
	for _, table := range []string{"auth_sessions", "auth_people", "auth_typed_names", "auth_devices"} {
		if _, err := d.db.Exec("DELETE FROM " + table); err != nil {
			d.t.Fatal(err)
		}
	}
	var left int
	if err := d.db.QueryRow(`SELECT (SELECT COUNT(*) FROM auth_credentials) + (SELECT COUNT(*) FROM auth_device_subjects)`).Scan(&left); err != nil || left != 0 {
		d.t.Fatalf("%d rows outlive what they belong to (%v)", left, err)
	}
}

// connector opens connections that count the statements run on them.
type connector struct {
	dsn        string
	statements *atomic.Int64
}

func (c *connector) Driver() driver.Driver { return new(sqlite.Driver) }

func (c *connector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(c.dsn)
	if err != nil {
		return nil, err
	}
	return &countingConn{conn.(fullConn), c.statements}, nil
}

type fullConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
}

type countingConn struct {
	fullConn
	statements *atomic.Int64
}

func (c *countingConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.statements.Add(1)
	return c.fullConn.PrepareContext(ctx, query)
}

func (c *countingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.statements.Add(1)
	return c.fullConn.ExecContext(ctx, query, args)
}

func (c *countingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.statements.Add(1)
	return c.fullConn.QueryContext(ctx, query, args)
}

// counted is how many statements f ran.
func (d *database) counted(f func()) int64 {
	before := d.statements.Load()
	f()
	return d.statements.Load() - before
}

func TestNewSQLStore(t *testing.T) {
	for dialect, good := range map[string]bool{"sqlite": true, "postgres": true, "sqlite3": false, "": false} {
		if _, err := auth.NewSQLStore(nil, dialect); (err == nil) != good {
			t.Errorf("dialect %q: got error %v, want good: %v", dialect, err, good)
		}
	}
}
