package storagetest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// cluster is the one PostgreSQL server of a test binary.
var cluster postgres

type postgres struct {
	once sync.Once
	err  error
	dir  string
	port int
	made atomic.Int64
	run  *process
	bin  string
	uid  *syscall.Credential // PostgreSQL does not run as root
}

// Postgres returns the address of a new, empty database. It goes with the test
// binary, not with the test.
func Postgres(t testing.TB) string {
	t.Helper()
	initdb, ok := program("initdb", "/usr/lib/postgresql/*/bin")
	if !ok {
		missing(t, "PostgreSQL")
	}
	cluster.once.Do(func() { cluster.err = cluster.start(filepath.Dir(initdb)) })
	if cluster.err != nil {
		t.Fatalf("starting PostgreSQL: %v", cluster.err)
	}
	name := "test" + strconv.FormatInt(cluster.made.Add(1), 10)
	db, err := sql.Open("pgx", cluster.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), `CREATE DATABASE `+name); err != nil {
		t.Fatal(err)
	}
	return cluster.url(name)
}

// PostgresProgram is the path of a program that comes with the server, such as pg_dump.
func PostgresProgram(t testing.TB, name string) string {
	t.Helper()
	path, ok := program(name, "/usr/lib/postgresql/*/bin")
	if !ok {
		missing(t, name)
	}
	return path
}

func (c *postgres) url(database string) string {
	return fmt.Sprintf("postgres://kidoban@%s/%s?sslmode=disable", address(c.port), database)
}

func (c *postgres) start(bin string) (err error) {
	c.bin = bin
	if c.dir, err = os.MkdirTemp("", "kidoban-postgres-"); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		c.uid = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(c.dir, uid, gid); err != nil {
			return err
		}
	}
	init := c.command("initdb", "-D", filepath.Join(c.dir, "data"), "-U", "kidoban", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if c.port, err = Port(); err != nil {
		return err
	}
	// fsync is off: what tests kill is the gate, not the server's machine.
	c.run, err = start(filepath.Join(c.dir, "log"), c.command("postgres", "-D", filepath.Join(c.dir, "data"),
		"-p", strconv.Itoa(c.port), "-k", c.dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"))
	if err != nil {
		return err
	}
	db, err := sql.Open("pgx", c.url("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	return until(c.run, db.Ping)
}

func (c *postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	// The server goes with the test binary, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.uid, Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	return cmd
}

func (c *postgres) stop() {
	if c.run != nil {
		c.run.end(syscall.SIGINT) // fast shutdown
	}
	if c.dir != "" {
		_ = os.RemoveAll(c.dir)
	}
}
