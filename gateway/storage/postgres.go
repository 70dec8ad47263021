package storage

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3/lock"
)

// What a node takes of a PostgreSQL server: at most postgresChanges +
// postgresLookups connections, and two more for a moment at its start.
const (
	postgresChanges = 6
	postgresLookups = 4

	// A connection lives between 30 and 40 minutes, so that nodes that started
	// together do not connect again together.
	postgresLife   = 30 * time.Minute
	postgresJitter = 10 * time.Minute

	postgresConnect   = 5 * time.Second
	postgresStatement = "10s"
	postgresLockWait  = "5s"
	postgresIdle      = "15s" // in a transaction, between two statements

	// postgresOldest is the oldest version that is known to do, as server_version_num.
	postgresOldest = 130000

	// postgresUp is the advisory lock of migrations: one node migrates, others wait.
	postgresUp = 0x6b69646f62616e // "kidoban"
)

// postgresConfig reads an address. What it leaves open gets this package's bounds;
// what it says itself (statement_timeout and such) stands.
func postgresConfig(address, node string) (*pgx.ConnConfig, error) {
	u, err := url.Parse(address)
	if err != nil {
		// The cause would quote the address, and a password that made it wrong.
		return nil, errors.New("the address of the PostgreSQL database is not a URL: write it as postgres://USER:PASSWORD@HOST:PORT/NAME, with %XX for odd letters of the password (%2F for /, %23 for #, %40 for @)")
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("the address of the PostgreSQL database: %w", withoutSecrets(err, u))
	}
	query := u.Query()
	for name, value := range map[string]string{
		"statement_timeout":                   postgresStatement,
		"lock_timeout":                        postgresLockWait,
		"idle_in_transaction_session_timeout": postgresIdle,
		"application_name":                    application(node),
		"timezone":                            "UTC",
	} {
		if !query.Has(name) {
			config.RuntimeParams[name] = value
		}
	}
	if !query.Has("connect_timeout") && os.Getenv("PGCONNECT_TIMEOUT") == "" {
		config.ConnectTimeout = postgresConnect
	}
	dialer := &net.Dialer{
		Timeout:         config.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         giveUp,
	}
	config.DialFunc = dialer.DialContext
	if config.ValidateConnect == nil {
		// After a fail-over the old primary may come back as a standby.
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return config, nil
}

// application is what the server's administrator sees; 63 bytes at most.
func application(node string) string {
	if node == "" {
		node, _ = os.Hostname()
	}
	name := []byte("kidoban/" + node)
	for i, c := range name {
		if c < ' ' || c > '~' {
			name[i] = '?'
		}
	}
	return string(name[:min(len(name), 63)])
}

// withoutSecrets is what err says about an address, less its password. The cause is
// not kept: it holds the address.
func withoutSecrets(err error, u *url.URL) error {
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 { // after the address it quotes
		text = text[i+3:]
	}
	secrets := []string{u.Query().Get("password"), u.Query().Get("sslpassword")}
	if password, ok := u.User.Password(); ok {
		secrets = append(secrets, password, url.QueryEscape(password), url.PathEscape(password))
	}
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "xxxxx")
		}
	}
	return errors.New(text)
}

const plainWarning = "the connection to PostgreSQL may be plain text: add sslmode=verify-full to its address"

func (db *DB) openPostgres(ctx context.Context, address, node string, log *slog.Logger) error {
	config, err := postgresConfig(address, node)
	if err != nil {
		return err
	}
	if host, ok := plainHost(config); ok {
		log.Warn(plainWarning, "host", host)
	}
	if err := migratePostgres(ctx, config, log); err != nil {
		return fmt.Errorf("the PostgreSQL database: %w", err)
	}
	db.sql = pool(config, postgresChanges)
	db.reads = pool(config, postgresLookups)
	return nil
}

// pool keeps its connections; more than n callers wait.
func pool(config *pgx.ConnConfig, n int) *sql.DB {
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxLifetime(postgresLife + rand.N(postgresJitter))
	return db
}

func readPostgres(ctx context.Context, address, node string) (*DB, error) {
	config, err := postgresConfig(address, node)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["default_transaction_read_only"] = "on"
	config.ValidateConnect = nil // a standby will do
	db := pool(config, 1)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("the PostgreSQL database: %w", err), db.Close())
	}
	return &DB{sql: db, reads: db, dialect: postgres}, nil
}

// unhurried is config for work whose statements may take long.
func unhurried(config *pgx.ConnConfig) *pgx.ConnConfig {
	c := config.Copy()
	c.RuntimeParams["statement_timeout"] = "0"
	c.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	return c
}

func migratePostgres(ctx context.Context, config *pgx.ConnConfig, log *slog.Logger) (err error) {
	db := pool(unhurried(config), 2)
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if errors.Is(err, pgconn.ErrReadOnlyConnection) {
		return errStandby
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := checkPostgres(ctx, conn, log); err != nil {
		return err
	}
	// One lock around all schemas: goose's own would leave the making of its version
	// tables outside.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(postgresUp), lock.WithLockTimeout(1, 300))
	if err != nil {
		return err
	}
	if err := locker.SessionLock(ctx, conn); err != nil {
		return fmt.Errorf("waiting for another node that migrates: %w", err)
	}
	defer func() {
		err = errors.Join(err, locker.SessionUnlock(context.WithoutCancel(ctx), conn))
	}()
	if err := up(ctx, db, postgres, log); err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	return nil
}

var errStandby = errors.New("the server takes no changes (it is a standby, or default_transaction_read_only is on): name the primary, or several hosts in one address")

// checkPostgres refuses a server that cannot keep our promises and warns of one
// that was told not to.
func checkPostgres(ctx context.Context, conn *sql.Conn, log *slog.Logger) error {
	var (
		version                                int
		standby                                bool
		encoding, commits, synced, pages, name string
	)
	if err := conn.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('server_encoding'),
		current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'), current_database()`).
		Scan(&version, &standby, &encoding, &commits, &synced, &pages, &name); err != nil {
		return err
	}
	switch {
	case version < postgresOldest:
		return fmt.Errorf("the server is of version %d.%d, want %d or newer", version/10000, version%10000, postgresOldest/10000)
	case standby:
		return errStandby
	case encoding != "UTF8":
		return fmt.Errorf("the database %s has the encoding %s, want UTF8: make it with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0", name, encoding)
	}
	for setting, value := range map[string]string{"synchronous_commit": commits, "fsync": synced, "full_page_writes": pages} {
		if value == "off" {
			log.Warn("PostgreSQL is told not to make commits last: what was acknowledged can be lost in a crash", "setting", setting, "value", value)
		}
	}
	return nil
}

// plainHost is a host that is not this machine and may be talked to without TLS.
func plainHost(config *pgx.ConnConfig) (string, bool) {
	plain := func(host string, t *tls.Config) bool {
		if t != nil || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
			return false
		}
		a, err := netip.ParseAddr(host)
		return err != nil || !a.Unmap().IsLoopback()
	}
	if plain(config.Host, config.TLSConfig) {
		return config.Host, true
	}
	for _, f := range config.Fallbacks {
		if plain(f.Host, f.TLSConfig) {
			return f.Host, true
		}
	}
	return "", false
}
