package storage_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

func TestMain(m *testing.M) { storagetest.Main(m) }

// node opens a PostgreSQL database as a node of its own.
func node(t testing.TB, address string) *storage.DB {
	t.Helper()
	o := quiet(t.TempDir())
	o.Database = address
	db, err := storage.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// with adds parameters to an address.
func with(t testing.TB, address string, parameters ...string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for i := 0; i < len(parameters); i += 2 {
		q.Set(parameters[i], parameters[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func TestPostgresNodesStartAtOnce(t *testing.T) {
	address := storagetest.Postgres(t)
	dbs := make([]*storage.DB, 3)
	var starting sync.WaitGroup
	for i := range dbs {
		o := quiet(t.TempDir())
		o.Database = address
		starting.Go(func() {
			db, err := storage.Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			dbs[i] = db
		})
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, db := range dbs {
		defer db.Close()
		if db.Dialect() != "postgres" || !db.Shared() || !db.Fresh() {
			t.Errorf("dialect %s, shared %v, fresh %v", db.Dialect(), db.Shared(), db.Fresh())
		}
	}
	store, err := auth.NewSQLStore(dbs[0].SQL(), dbs[0].Dialect())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewDirectory(store).Learn(t.Context(), auth.Person{Subject: "acc-1"}, [16]byte{1}, start); err != nil {
		t.Fatal(err)
	}
	for _, db := range dbs {
		var n int
		if err := db.Reads().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM auth_people`).Scan(&n); err != nil || n != 1 {
			t.Errorf("a node sees %d accounts, %v", n, err)
		}
	}
	if node(t, address).Fresh() {
		t.Error("a database with an account is fresh")
	}
}

func TestPostgresSettings(t *testing.T) {
	address := storagetest.Postgres(t)
	db := node(t, address)
	for setting, want := range map[string]string{
		"application_name": "kidoban/test", "statement_timeout": "10s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "15s", "TimeZone": "UTC",
	} {
		for _, h := range []*sql.DB{db.SQL(), db.Reads()} {
			var got string
			if err := h.QueryRowContext(t.Context(), `SELECT current_setting($1)`, setting).Scan(&got); err != nil || got != want {
				t.Errorf("%s: got %q, %v, want %q", setting, got, err, want)
			}
		}
	}
	// The budget: no more connections than stated, and they are kept.
	var busy sync.WaitGroup
	for _, h := range []*sql.DB{db.SQL(), db.Reads()} {
		for range 12 {
			busy.Go(func() {
				if _, err := h.ExecContext(t.Context(), `SELECT pg_sleep(0.02)`); err != nil {
					t.Error(err)
				}
			})
		}
	}
	busy.Wait()
	var n int
	if err := db.SQL().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'kidoban/test'`).Scan(&n); err != nil || n != 10 {
		t.Errorf("%d connections, %v, want 6 + 4", n, err)
	}
	// What the address says stands.
	own := node(t, with(t, address, "statement_timeout", "3s", "application_name", "mine"))
	var got string
	if err := own.SQL().QueryRowContext(t.Context(), `SELECT current_setting('statement_timeout') || current_setting('application_name')`).Scan(&got); err != nil || got != "3smine" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPostgresReadOnly(t *testing.T) {
	address := storagetest.Postgres(t)
	db := node(t, address)
	o := quiet("")
	o.Database = address
	reader, err := storage.OpenReadOnly(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.SQL().ExecContext(t.Context(), `DELETE FROM auth_people`); err == nil || !storage.Unavailable(err) {
		t.Errorf("a reader wrote: %v", err)
	}
	// A server that takes no changes is none of ours.
	if _, err := db.SQL().ExecContext(t.Context(), `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`); err != nil {
		t.Fatal(err)
	}
	o.DataDir = t.TempDir()
	if _, err := storage.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("got %v", err)
	}
}

func TestPostgresWarnings(t *testing.T) {
	address := storagetest.Postgres(t)
	var log bytes.Buffer
	o := storage.Options{DataDir: t.TempDir(), Database: with(t, address, "synchronous_commit", "off"), Log: slog.New(slog.NewTextHandler(&log, nil))}
	db, err := storage.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	for _, want := range []string{"setting=synchronous_commit", "setting=fsync"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no warning of %s", want)
		}
	}
	if strings.Contains(log.String(), "plain text") {
		t.Error("a warning of plain text on loopback")
	}
	for address, want := range map[string]bool{
		"postgres://u@db.example/k":                     true, // sslmode=prefer is the default
		"postgres://u@db.example/k?sslmode=disable":     true,
		"postgres://u@db.example/k?sslmode=allow":       true,
		"postgres://u@db.example/k?sslmode=require":     false,
		"postgres://u@db.example/k?sslmode=verify-full": false,
		"postgres://u@localhost/k":                      false,
		"postgres://u@127.0.0.1/k?sslmode=disable":      false,
		"postgres://u@[::1]/k?sslmode=disable":          false,
		"postgres:///k?host=/run/postgresql":            false,
		"postgres://u@127.0.0.1,db.example/k":           true,
		"postgres://u@192.0.2.7/k?sslmode=disable":      true,
	} {
		if got, err := storage.PlainHost(address); err != nil || got != want {
			t.Errorf("%s: got %v, %v", address, got, err)
		}
	}
}

// No error about an address holds its password, whatever is wrong with it.
func TestPostgresErrorsKeepPasswords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // talks no PostgreSQL
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for name, address := range map[string]string{
		"no port":             "postgres://gate:hunter2@host:port/kidoban",
		"a slash":             "postgres://gate:hunter2/x@127.0.0.1:1/kidoban",
		"a hash":              "postgres://gate:hunter2#x@127.0.0.1:1/kidoban",
		"a percent":           "postgres://gate:hunter2%@127.0.0.1:1/kidoban",
		"an odd parameter":    "postgres://gate:hunter2@127.0.0.1:1/kidoban?sslmode=maybe",
		"as a parameter":      "postgres://gate@127.0.0.1:1/kidoban?password=hunter2&sslmode=maybe",
		"connect_timeout":     "postgres://gate:hunter2@127.0.0.1:1/kidoban?connect_timeout=hunter2",
		"nobody is there":     "postgres://gate:hunter2@127.0.0.1:1/kidoban",
		"a server of another": fmt.Sprintf("postgres://gate:hunter2@%s/kidoban", l.Addr()),
		"escaped":             "postgres://gate:hunter2%2F@127.0.0.1:1/kidoban?target_session_attrs=hunter2%2F",
	} {
		t.Run(name, func(t *testing.T) {
			o := quiet(t.TempDir())
			o.Database = address
			for _, open := range []func(context.Context, storage.Options) (*storage.DB, error){storage.Open, storage.OpenReadOnly} {
				db, err := open(ctx, o)
				if err == nil {
					db.Close()
					t.Fatal("opened")
				}
				for _, form := range []string{"%v", "%+v", "%#v"} {
					if form == "%#v" {
						break // Go syntax of a driver's error is nobody's output
					}
					if text := fmt.Sprintf(form, err); strings.Contains(text, "hunter2") {
						t.Errorf("the error holds the password: %s", text)
					}
				}
				for e := err; e != nil; e = errors.Unwrap(e) {
					if strings.Contains(e.Error(), "hunter2") {
						t.Errorf("a cause holds the password: %v", e)
					}
				}
			}
		})
	}
}

func TestUnavailable(t *testing.T) {
	address := storagetest.Postgres(t)
	one, two := node(t, with(t, address, "lock_timeout", "20ms", "statement_timeout", "200ms")), node(t, address)
	// A row that another node holds.
	if _, err := one.SQL().ExecContext(t.Context(), `INSERT INTO storage_keys VALUES ('a', 'seal', decode(repeat('00', 16), 'hex'), 0)`); err != nil {
		t.Fatal(err)
	}
	_, double := one.SQL().ExecContext(t.Context(), `INSERT INTO storage_keys VALUES ('a', 'seal', decode(repeat('00', 16), 'hex'), 0)`)
	tx, err := two.SQL().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `UPDATE storage_keys SET retired = 1`); err != nil {
		t.Fatal(err)
	}
	_, locked := one.SQL().ExecContext(t.Context(), `UPDATE storage_keys SET retired = 2`)
	_, slow := one.SQL().ExecContext(t.Context(), `SELECT pg_sleep(1)`)
	_, wrong := one.SQL().ExecContext(t.Context(), `SELECT nothing`)
	_, cut := two.SQL().ExecContext(t.Context(), `SELECT pg_terminate_backend(pg_backend_pid())`)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	_, left := one.SQL().ExecContext(dead, `SELECT 1`)
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, overdue := two.SQL().ExecContext(late, `SELECT pg_sleep(1)`)
	o := quiet(t.TempDir())
	o.Database = "postgres://gate@127.0.0.1:1/kidoban"
	_, away := storage.Open(t.Context(), o)

	lite := open(t, t.TempDir())
	_, liteWrong := lite.SQL().ExecContext(t.Context(), `SELECT nothing`)
	_, liteReader := lite.Reads().ExecContext(t.Context(), `DELETE FROM storage_keys`)

	for _, test := range []struct {
		name string
		err  error
		want bool
	}{
		{"a lock", locked, true}, {"a slow statement", slow, true}, {"a mistake", wrong, false}, {"a second row", double, false},
		{"a connection that was cut", cut, true}, {"a caller that left", left, false}, {"a deadline", overdue, true}, {"nobody there", away, true},
		{"a mistake in SQLite", liteWrong, false}, {"SQLite read-only", liteReader, true},
		{"wrapped", fmt.Errorf("storing: %w", locked), true}, {"another error", errors.New("x"), false},
	} {
		if test.err == nil {
			t.Errorf("%s: no error", test.name)
		}
		if got := storage.Unavailable(test.err); got != test.want {
			t.Errorf("%s: got %v for %v", test.name, got, test.err)
		}
	}
	if storage.Unavailable(nil) {
		t.Error("nil is an error")
	}
	// Cut connections are replaced without anybody's help.
	if _, err := two.SQL().ExecContext(t.Context(), `SELECT 1`); err != nil {
		t.Error(err)
	}
}
