package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// The scripts find a data_dir of three people and three entries in "data", and two
// new PostgreSQL databases in the environment.
func TestDataScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script/data",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("DATABASE", storagetest.Postgres(t))
			e.Setenv("NEWDATABASE", storagetest.Postgres(t))
			e.Setenv("PATH", filepath.Dir(storagetest.PostgresProgram(t, "pg_dump"))+":"+e.Getenv("PATH"))
			e.Values["test"] = t
			return seedData(t, filepath.Join(e.WorkDir, "data"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"entries": writeEntries, "damage": damage, "follow": follow},
	})
}

func seedData(t *testing.T, dir string) error {
	db, err := storage.Open(t.Context(), storage.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ring, err := db.OpenKeyring(t.Context())
	if err != nil {
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
	if err := db.Close(); err != nil {
		return err
	}
	return appendEntries(t, dir, ring, 3, nil)
}

// appendEntries is what a gate named gate-1 does with the record in a data_dir.
func appendEntries(t testing.TB, dir string, ring *storage.Keyring, n int, mirror record.Mirror) error {
	l, err := record.Open(filepath.Join(dir, "record"), record.Config{Node: "gate-1", Mirror: mirror, Reserve: 1 << 20, Keys: func() (keys []record.Key) {
		for _, k := range ring.All(storage.Seal) {
			keys = append(keys, record.Key{ID: k.ID, Secret: k.Bytes})
		}
		return keys
	}})
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := l.Append(t.Context(), record.Draft{Kind: "login.success", Body: json.RawMessage(strconv.Itoa(i))}); err != nil {
			return err
		}
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for late := time.After(30 * time.Second); mirror != nil && l.Status().Mirror.Entries > 0; {
		select {
		case <-look.C:
		case <-late:
			return fmt.Errorf("the mirror stays behind: %+v", l.Status().Mirror)
		}
	}
	return l.Close()
}

// writeEntries is a gate that writes to its record:
//
//	entries DATA_DIR COUNT [DATABASE]
func writeEntries(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: entries DATA_DIR COUNT [DATABASE]")
	}
	t := ts.Value("test").(testing.TB)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ring, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), false)
	ts.Check(err)
	var mirror record.Mirror
	if len(args) == 3 {
		db, err := sql.Open("pgx", args[2])
		ts.Check(err)
		defer db.Close()
		mirror = record.NewSQLMirror(db)
	}
	ts.Check(appendEntries(t, dir, ring, n, mirror))
}

// damage cuts a file off, or changes a byte of it; a negative offset is from the end:
//
//	damage cut|flip FILE OFFSET
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: damage cut|flip FILE OFFSET")
	}
	at, err := strconv.Atoi(args[2])
	ts.Check(err)
	data := []byte(ts.ReadFile(args[1]))
	if at < 0 {
		at += len(data)
	}
	if args[0] == "cut" {
		data = data[:at]
	} else {
		data[at] ^= 1
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o600))
}

// follow runs a command that shows entries as they come, until it has shown what a
// gate writes meanwhile, and interrupts it:
//
//	follow COMMAND... DATA_DIR/record
func follow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: follow COMMAND... DATA_DIR/record")
	}
	t := ts.Value("test").(testing.TB)
	dir := filepath.Dir(args[len(args)-1])
	ring, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), false)
	ts.Check(err)
	before, err := record.Last(args[len(args)-1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"))
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	lines := bufio.NewScanner(out)
	shown := func(sequence uint64) {
		for want := fmt.Sprintf("  gate-1/%d  ", sequence); lines.Scan(); {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		ts.Fatalf("entry %d was not shown", sequence)
	}
	shown(before)
	ts.Check(appendEntries(t, dir, ring, 2, nil))
	shown(before + 2)
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		ts.Fatalf("interrupted: %v", err)
	}
}

// TestOperations: each command that gateway/OPERATIONS.md names is run by a script.
func TestOperations(t *testing.T) {
	script, err := os.ReadFile("testdata/script/data/operations.txtar")
	if err != nil {
		t.Fatal(err)
	}
	run := make(map[string]bool)
	for line := range strings.Lines(strings.ReplaceAll(string(script), "$WORK", "")) {
		line = strings.TrimSpace(line)
		for _, how := range []string{"exec ", "follow "} {
			line = strings.TrimPrefix(line, how)
		}
		run[line] = true
	}
	text, err := os.ReadFile("../../OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		command := strings.TrimSpace(line)
		if !strings.HasPrefix(line, "    ") || command == "" {
			continue
		}
		if found++; !run[command] {
			t.Errorf("no script runs %s", command)
		}
	}
	if found < 15 {
		t.Errorf("found %d commands", found)
	}
}
