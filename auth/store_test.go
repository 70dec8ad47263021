package auth_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"flag"
	"io/fs"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// start is when the tests' clock starts.
var start = time.Date(2026, 4, 6, 9, 0, 0, 0, time.UTC)

// store is what both stores are.
type store interface {
	auth.SessionStore
	auth.DirectoryStore
	auth.DeviceStore
	auth.FactorStore
	auth.HoldStore
	auth.SlipStore
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
	eachDatabase(t, func(t *testing.T, d *database) { run(t, d) })
}

// eachDatabase runs a test against every database there is.
func eachDatabase(t *testing.T, run func(t *testing.T, d *database)) {
	t.Run("sqlite", func(t *testing.T) { run(t, newDatabase(t)) })
	t.Run("postgres", func(t *testing.T) { run(t, newPostgres(t)) })
}

type memory struct{ store *auth.MemoryStore }

func (m *memory) open() store { return m.store }
func (m *memory) clear()      { m.store = auth.NewMemoryStore() }

type database struct {
	t          testing.TB
	dialect    string
	file       string // SQLite's
	connector  driver.Connector
	db         *sql.DB
	migrated   bool
	statements *atomic.Int64 // run so far
	prepared   atomic.Int64  // of SQLite
	commit     atomic.Pointer[func(commit func() error) error]
}

func newDatabase(t testing.TB) *database {
	d := &database{t: t, dialect: "sqlite", file: filepath.Join(t.TempDir(), "auth.db"), statements: new(atomic.Int64)}
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(OFF)", "foreign_keys(ON)"}, "_txlock": {"immediate"}}
	dsn := "file:" + d.file + "?" + q.Encode()
	d.connector = connector(func(context.Context) (driver.Conn, error) {
		conn, err := new(sqlite.Driver).Open(dsn)
		if err != nil {
			return nil, err
		}
		return &countingConn{conn.(fullConn), d}, nil
	})
	t.Cleanup(d.close)
	return d
}

// shared is the one database on PostgreSQL that tests have in turn: to make one
// takes longer than most of them.
var shared struct {
	url      string
	migrated bool
}

func newPostgres(t testing.TB) *database {
	if shared.url == "" {
		shared.url = storagetest.Postgres(t)
	}
	config, err := pgx.ParseConfig(shared.url)
	if err != nil {
		t.Fatal(err)
	}
	// A store must not depend on what an administrator made of this.
	config.RuntimeParams["default_transaction_isolation"] = "repeatable read"
	pg := stdlib.GetConnector(*config)
	d := &database{t: t, dialect: "postgres", migrated: shared.migrated, statements: new(atomic.Int64)}
	d.connector = connector(func(ctx context.Context) (driver.Conn, error) {
		conn, err := pg.Connect(ctx)
		if err != nil {
			return nil, err
		}
		return &countingPostgres{conn.(*stdlib.Conn), d}, nil
	})
	t.Cleanup(d.close)
	d.open()
	shared.migrated = true
	d.clear()
	return d
}

func (d *database) close() {
	if d.db != nil {
		d.db.Close()
		d.db = nil
	}
}

func (d *database) open() store {
	d.t.Helper()
	if d.db != nil && d.dialect == "sqlite" {
		d.close()
	}
	if d.db == nil {
		d.db = sql.OpenDB(d.connector)
		d.db.SetMaxOpenConns(1)
		if d.dialect == "postgres" {
			d.db.SetMaxOpenConns(4)
			d.db.SetMaxIdleConns(4)
		}
	}
	if !d.migrated {
		d.migrate()
	}
	return d.another()
}

// another is a store on the same database, as another node has.
func (d *database) another() *auth.SQLStore {
	d.t.Helper()
	s, err := auth.NewSQLStore(d.db, d.dialect)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d *database) migrate() {
	d.t.Helper()
	dir, err := fs.Sub(auth.Migrations, "migrations/"+d.dialect)
	if err != nil {
		d.t.Fatal(err)
	}
	dialect := goose.DialectSQLite3
	if d.dialect == "postgres" {
		dialect = goose.DialectPostgres
	}
	p, err := goose.NewProvider(dialect, d.db, dir, goose.WithTableName("auth_schema"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := p.Up(context.Background()); err != nil {
		d.t.Fatal(err)
	}
	d.migrated = true
	if takenBack[d.dialect] {
		return
	}
	takenBack[d.dialect] = true
	if _, err := p.DownTo(context.Background(), 0); err != nil {
		d.t.Fatal(err)
	}
	if _, err := p.Up(context.Background()); err != nil {
		d.t.Fatal(err)
	}
}

// takenBack is the dialects whose migrations were taken back and made again.
var takenBack = make(map[string]bool)

func (d *database) clear() {
	for _, table := range []string{"auth_sessions", "auth_people", "auth_typed_names", "auth_devices", "auth_acts", "auth_factors WHERE id <> ''", "auth_handles", "auth_challenges", "auth_factor_notices", "auth_holds", "auth_slips", "auth_slip_failures"} {
		if _, err := d.db.Exec("DELETE FROM " + table); err != nil {
			d.t.Fatal(err)
		}
	}
	if _, err := d.db.Exec("UPDATE auth_holds_open SET holds = 0"); err != nil {
		d.t.Fatal(err)
	}
	var left int
	if err := d.db.QueryRow(`SELECT (SELECT COUNT(*) FROM auth_credentials) + (SELECT COUNT(*) FROM auth_device_subjects) + (SELECT COUNT(*) FROM auth_keys) +
		(SELECT COUNT(*) FROM auth_hold_credentials)`).Scan(&left); err != nil || left != 0 {
		d.t.Fatalf("%d rows outlive what they belong to (%v)", left, err)
	}
}

// connector opens connections that count the statements run on them.
type connector func(context.Context) (driver.Conn, error)

func (c connector) Driver() driver.Driver                            { return nil }
func (c connector) Connect(ctx context.Context) (driver.Conn, error) { return c(ctx) }

type fullConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
}

type countingConn struct {
	fullConn
	d *database
}

func (c *countingConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.d.prepared.Add(1)
	stmt, err := c.fullConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &countingStmt{stmt.(fullStmt), c.d}, nil
}

func (c *countingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.d.statements.Add(1)
	return c.fullConn.ExecContext(ctx, query, args)
}

func (c *countingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.d.statements.Add(1)
	return c.fullConn.QueryContext(ctx, query, args)
}

func (c *countingConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	tx, err := c.fullConn.BeginTx(ctx, options)
	return probedTx{tx, c.d}, err
}

type fullStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type countingStmt struct {
	fullStmt
	d *database
}

func (s *countingStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.d.statements.Add(1)
	return s.fullStmt.ExecContext(ctx, args)
}

func (s *countingStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.d.statements.Add(1)
	return s.fullStmt.QueryContext(ctx, args)
}

type countingPostgres struct {
	*stdlib.Conn
	d *database
}

func (c *countingPostgres) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.d.statements.Add(1)
	return c.Conn.ExecContext(ctx, query, args)
}

func (c *countingPostgres) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.d.statements.Add(1)
	return c.Conn.QueryContext(ctx, query, args)
}

func (c *countingPostgres) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.BeginTx(ctx, options)
	return probedTx{tx, c.d}, err
}

// probedTx lets a test stand between a commit and its outcome.
type probedTx struct {
	driver.Tx
	d *database
}

func (tx probedTx) Commit() error {
	if f := tx.d.commit.Load(); f != nil {
		return (*f)(tx.Tx.Commit)
	}
	return tx.Tx.Commit()
}

// counted is how many statements f ran.
func (d *database) counted(f func()) int64 {
	before := d.statements.Load()
	f()
	return d.statements.Load() - before
}

func TestMain(m *testing.M) {
	// A model runs against every store; -rapid.checks=1000 is for a long run.
	if err := flag.Set("rapid.checks", "15"); err != nil {
		panic(err)
	}
	storagetest.Main(m)
}

func TestNewSQLStore(t *testing.T) {
	for dialect, good := range map[string]bool{"sqlite": true, "postgres": true, "sqlite3": false, "": false} {
		if _, err := auth.NewSQLStore(nil, dialect); (err == nil) != good {
			t.Errorf("dialect %q: got error %v, want good: %v", dialect, err, good)
		}
	}
}
