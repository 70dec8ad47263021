package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// The scripts find a data_dir of three people in "data" and a new PostgreSQL
// database in the environment.
func TestDataScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script/data",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("DATABASE", storagetest.Postgres(t))
			e.Setenv("POSTGRES", filepath.Dir(storagetest.PostgresProgram(t, "pg_dump")))
			return seedData(t, filepath.Join(e.WorkDir, "data"))
		},
	})
}

func seedData(t *testing.T, dir string) error {
	db, err := storage.Open(t.Context(), storage.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if _, err := db.OpenKeyring(t.Context()); err != nil {
		return err
	}
	store, err := auth.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return err
	}
	for i := range 3 {
		if _, err := auth.NewDirectory(store).Learn(t.Context(), auth.Person{Subject: fmt.Sprint("acc-", i)}, [16]byte{byte(i), 1}, time.Now()); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "record"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "record", "1.seg"), []byte("entries"), 0o600); err != nil {
		return err
	}
	return db.Close()
}
