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

func open(t testing.TB, file string) *storage.DB {
	t.Helper()
	db, err := storage.Open(t.Context(), file, slog.New(slog.DiscardHandler))
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

// wantRefused opens file and compares the error with what it has to say.
func wantRefused(t *testing.T, file string, want ...string) {
	t.Helper()
	db, err := storage.Open(t.Context(), file, slog.New(slog.DiscardHandler))
	if err == nil {
		db.Close()
		t.Fatalf("%s was opened", file)
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
	for name, form := range map[string]string{"a path": "%s", "an address": "sqlite://%s", "odd letters": "%s"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new", "data")
			file := filepath.Join(dir, "kidoban.db")
			if name == "odd letters" {
				file = filepath.Join(dir, "100% kid?ban #1 \u756a.db")
			}
			db := open(t, fmt.Sprintf(form, file))
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
	db := open(t, filepath.Join(t.TempDir(), "kidoban.db"))
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		if err := db.SQL().QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", pragma, got, err, want)
		}
	}
	if db.Dialect() != "sqlite" {
		t.Errorf("dialect %q", db.Dialect())
	}
}

func TestReopen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kidoban.db")
	db := open(t, file)
	closeDB(t, db)
	// A start that was cut off before anything was kept is a first start still.
	db = open(t, file)
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
	db = open(t, file)
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
	file := filepath.Join(t.TempDir(), "kidoban.db")
	closeDB(t, open(t, file))
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info, err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kidoban.db")
	db := open(t, file)
	wantRefused(t, file, "in use", fmt.Sprintf("pid %d:", os.Getpid()), filepath.Dir(file))
	closeDB(t, db)
	db = open(t, file) // the lock went with it
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
	wantRefused(t, file, "pid 4242:")
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	open(t, file) // a number without a lock keeps nobody out
	if got, err := os.ReadFile(file + ".lock"); err != nil || strings.TrimSpace(string(got)) != fmt.Sprint(os.Getpid()) {
		t.Errorf("the lock says %q, %v, want %d", got, err, os.Getpid())
	}
}

// A start that fails leaves no lock behind.
func TestFailedOpenUnlocks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kidoban.db")
	if err := os.WriteFile(file, []byte(strings.Repeat("not a database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, file, file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	open(t, file)
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	directory := filepath.Join(dir, "directory.db")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	newer := func(schema string) string {
		file := filepath.Join(dir, schema+".db")
		db := open(t, file)
		if _, err := db.SQL().Exec(`INSERT INTO ` + schema + `_schema (version_id, is_applied) VALUES (9999, 1)`); err != nil {
			t.Fatal(err)
		}
		closeDB(t, db)
		return file
	}
	torn := filepath.Join(dir, "torn.db")
	closeDB(t, open(t, torn))
	if err := os.Truncate(torn, 100); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, file string
		want       []string
	}{
		{"PostgreSQL", "postgres://db.example/kidoban", []string{"SQLite", "path"}},
		{"PostgreSQL, the other name", "postgresql://user:hunter2@db.example/kidoban", []string{"SQLite", "path"}},
		{"not a database", write("text.db", strings.Repeat("hello ", 1000)), []string{filepath.Join(dir, "text.db"), "not a database"}},
		{"torn", torn, []string{torn}},
		{"a directory", directory, []string{directory, "directory"}},
		{"under a file", filepath.Join(write("file", ""), "kidoban.db"), []string{"data directory"}},
		{"newer tables of auth", newer("auth"), []string{"auth", "version 9999", "newer program"}},
		{"newer tables of policies", newer("policies"), []string{"policies", "version 9999", "newer program"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantRefused(t, test.file, test.want...)
			if db, err := storage.Open(t.Context(), test.file, slog.New(slog.DiscardHandler)); err == nil {
				db.Close()
				t.Error("the second try opened it")
			} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "in use") {
				t.Errorf("got error %q, want no password and no lock", err)
			}
		})
	}
}

func TestOpenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "kidoban.db")
	if db, err := storage.Open(ctx, file, slog.New(slog.DiscardHandler)); err == nil {
		db.Close()
		t.Fatal("opened")
	}
	open(t, file)
}

func TestOpenReadOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kidoban.db")
	if _, err := storage.OpenReadOnly(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing database: got %v", err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("reading made a file: %v", err)
	}
	writer := open(t, file)
	insert := func(digest string) {
		t.Helper()
		if _, err := writer.SQL().Exec(`INSERT INTO auth_typed_names (digest, subject, since) VALUES (?, 'acc-1', 1)`, []byte(digest)); err != nil {
			t.Fatal(err)
		}
	}
	insert("1234567890123456")
	reader, err := storage.OpenReadOnly(file)
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
	alone, err := storage.OpenReadOnly(file)
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	want(alone.SQL(), 3)
}
