package storage_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/storage"
)

var start = time.Date(2026, 4, 6, 9, 0, 0, 0, time.UTC)

// quiet are options without a log.
func quiet(dir string) storage.Options {
	return storage.Options{DataDir: dir, Node: "test", Log: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, dir string) *storage.DB {
	t.Helper()
	db, err := storage.Open(t.Context(), quiet(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func closeDB(t testing.TB, db *storage.DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantRefused opens what is in dir and compares the error with what it has to say.
func wantRefused(t *testing.T, dir string, want ...string) {
	t.Helper()
	db, err := storage.Open(t.Context(), quiet(dir))
	if err == nil {
		db.Close()
		t.Fatalf("%s was opened", dir)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got error %q, want it to say %q", err, w)
		}
	}
}

func TestOpenCreates(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	for _, name := range []string{"data", "100% kid?ban #1 \u756a"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new", name)
			file := filepath.Join(dir, "kidoban.db")
			db := open(t, dir)
			if !db.Fresh() {
				t.Error("a new database is not fresh")
			}
			if _, err := db.SQL().Exec(`INSERT INTO auth_typed_names (digest, subject, since) VALUES (zeroblob(16), 'acc-1', 1)`); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				info, err := e.Info()
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode().Perm(); got != 0o600 {
					t.Errorf("%s has mode %04o, want 0600", e.Name(), got)
				}
				if !strings.HasPrefix(e.Name(), filepath.Base(file)) {
					t.Errorf("%s is in the data directory beside %s", e.Name(), filepath.Base(file))
				}
			}
			for _, d := range []string{dir, filepath.Dir(dir)} {
				if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("directory %s: got %v, %v, want mode 0700", d, info, err)
				}
			}
		})
	}
}

// What decides how safe a commit is.
func TestOpenPragmas(t *testing.T) {
	db := open(t, t.TempDir())
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		if err := db.SQL().QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", pragma, got, err, want)
		}
	}
	if db.Dialect() != "sqlite" || db.Shared() {
		t.Errorf("dialect %q, shared: %v", db.Dialect(), db.Shared())
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	closeDB(t, db)
	// A start that was cut off before anything was kept is a first start still.
	db = open(t, dir)
	if !db.Fresh() {
		t.Error("an empty database is not fresh")
	}
	store, err := auth.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewDirectory(store).Learn(t.Context(), auth.Person{Subject: "acc-1"}, [16]byte{1}, start); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	db = open(t, dir)
	if db.Fresh() {
		t.Error("a database with an account is fresh")
	}
	if store, err = auth.NewSQLStore(db.SQL(), db.Dialect()); err != nil {
		t.Fatal(err)
	}
	if p, ok, err := auth.NewDirectory(store).BySubject(t.Context(), "acc-1"); err != nil || !ok || !p.FirstSeen.Equal(start) {
		t.Errorf("after reopening: got %+v, %v, %v", p, ok, err)
	}
}

func TestOpenNarrowsMode(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "kidoban.db")
	closeDB(t, open(t, dir))
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info, err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "kidoban.db")
	db := open(t, dir)
	wantRefused(t, dir, "in use", fmt.Sprintf("pid %d:", os.Getpid()), dir)
	closeDB(t, db)
	db = open(t, dir) // the lock went with it
	closeDB(t, db)

	// Somebody else's lock, with the number it left.
	lock, err := os.OpenFile(file+".lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".lock", []byte("4242\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, dir, "pid 4242:")
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	open(t, dir) // a number without a lock keeps nobody out
	if got, err := os.ReadFile(file + ".lock"); err != nil || strings.TrimSpace(string(got)) != fmt.Sprint(os.Getpid()) {
		t.Errorf("the lock says %q, %v, want %d", got, err, os.Getpid())
	}
}

// A start that fails leaves no lock behind.
func TestFailedOpenUnlocks(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "kidoban.db")
	if err := os.WriteFile(file, []byte(strings.Repeat("not a database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, dir, file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestOpenRefuses(t *testing.T) {
	top := t.TempDir()
	// with is a data directory with a database of this text.
	with := func(name, text string) string {
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "kidoban.db"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	directory := filepath.Join(top, "directory")
	if err := os.MkdirAll(filepath.Join(directory, "kidoban.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	newer := func(schema string) string {
		dir := filepath.Join(top, schema)
		db := open(t, dir)
		if _, err := db.SQL().Exec(`INSERT INTO ` + schema + `_schema (version_id, is_applied) VALUES (9999, 1)`); err != nil {
			t.Fatal(err)
		}
		closeDB(t, db)
		return dir
	}
	torn := filepath.Join(top, "torn")
	closeDB(t, open(t, torn))
	if err := os.Truncate(filepath.Join(torn, "kidoban.db"), 100); err != nil {
		t.Fatal(err)
	}
	// wide is a data directory that others may write.
	wide := func(mode os.FileMode) string {
		dir := filepath.Join(top, fmt.Sprintf("mode-%o", mode))
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, test := range []struct {
		name, dir string
		want      []string
	}{
		{"not a database", with("text", strings.Repeat("hello ", 1000)), []string{filepath.Join(top, "text"), "not a database"}},
		{"torn", torn, []string{torn}},
		{"a directory", directory, []string{directory, "directory"}},
		{"under a file", filepath.Join(with("file", ""), "kidoban.db"), []string{"data directory"}},
		{"no directory", "", []string{"no data directory"}},
		{"newer tables of auth", newer("auth"), []string{"auth", "version 9999", "newer program"}},
		{"newer tables of policies", newer("policies"), []string{"policies", "version 9999", "newer program"}},
		{"newer tables of storage", newer("storage"), []string{"storage", "version 9999", "newer program"}},
		{"written by the group", wide(0o770), []string{"mode 0770", "chmod go-w " + top}},
		{"written by others", wide(0o702), []string{"mode 0702", "chmod go-w " + top}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 { // the first try leaves no lock
				wantRefused(t, test.dir, test.want...)
			}
		})
	}
	for _, address := range []string{"mysql://user:hunter2@db.example/kidoban", "/var/lib/kidoban.db", "host=db.example password=hunter2"} {
		o := quiet(t.TempDir())
		o.Database = address
		for _, open := range []func(context.Context, storage.Options) (*storage.DB, error){storage.Open, storage.OpenReadOnly} {
			if _, err := open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "postgres://USER@HOST/NAME") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: got error %v", address, err)
			}
		}
	}
}

func TestOpenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if db, err := storage.Open(ctx, quiet(dir)); err == nil {
		db.Close()
		t.Fatal("opened")
	}
	open(t, dir)
}

func TestOpenReadOnly(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "kidoban.db")
	if _, err := storage.OpenReadOnly(t.Context(), quiet(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing database: got %v", err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("reading made a file: %v", err)
	}
	writer := open(t, dir)
	insert := func(digest string) {
		t.Helper()
		if _, err := writer.SQL().Exec(`INSERT INTO auth_typed_names (digest, subject, since) VALUES (?, 'acc-1', 1)`, []byte(digest)); err != nil {
			t.Fatal(err)
		}
	}
	insert("1234567890123456")
	reader, err := storage.OpenReadOnly(t.Context(), quiet(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	want := func(db *sql.DB, want int) {
		t.Helper()
		var got int
		if err := db.QueryRow(`SELECT COUNT(*) FROM auth_typed_names`).Scan(&got); err != nil || got != want {
			t.Errorf("got %d rows, %v, want %d", got, err, want)
		}
	}
	want(reader.SQL(), 1)
	insert("2234567890123456")
	want(reader.SQL(), 2) // it sees what was committed meanwhile
	for _, statement := range []string{`DELETE FROM auth_typed_names`, `CREATE TABLE x (y)`, `PRAGMA user_version = 7`} {
		if _, err := reader.SQL().Exec(statement); err == nil {
			t.Errorf("%s: a reader wrote", statement)
		}
	}
	insert("3234567890123456")
	closeDB(t, writer)
	want(reader.SQL(), 3)
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	alone, err := storage.OpenReadOnly(t.Context(), quiet(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	want(alone.SQL(), 3)
}
