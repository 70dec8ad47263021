package storage_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// gate is what a gate keeps, by its stores.
type gate struct {
	db        *storage.DB
	sessions  *auth.Sessions
	directory *auth.Directory
	decisions *policies.Decisions
	ledger    *policies.Ledger
}

func newGate(t testing.TB, db *storage.DB) *gate {
	t.Helper()
	store, err := auth.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{db: db, directory: auth.NewDirectory(store)}
	if g.sessions, err = auth.OpenSessions(t.Context(), store, auth.SessionsConfig{}, start); err != nil {
		t.Fatal(err)
	}
	decisions, err := policies.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	if g.decisions, err = policies.OpenDecisions(t.Context(), decisions, start); err != nil {
		t.Fatal(err)
	}
	if g.ledger, err = policies.NewLedger(db.SQL(), db.Dialect()); err != nil {
		t.Fatal(err)
	}
	return g
}

// live is the work of one person and one operator: what they were told of in return.
func (g *gate) live(ctx context.Context, i int) (session, token, decision string, err error) {
	subject := fmt.Sprintf("acc-%d", i)
	now := start.Add(time.Duration(i) * time.Millisecond)
	if _, err := g.directory.Learn(ctx, auth.Person{Subject: subject, Names: []string{"鈴木 花子 <&> \u00e9"}, Mail: []string{subject + "@acme.example"}}, [16]byte{byte(i), byte(i >> 8), 1}, now); err != nil {
		return "", "", "", err
	}
	s, token, err := g.sessions.Begin(ctx, auth.Session{Subject: subject, Kind: auth.BrowserSession, AAL: 1, Source: "203.0.113.7"},
		[]auth.Credential{{Kind: "sid", Hash: auth.HashCredential("sid", fmt.Sprint("value", i)), Since: now}}, now)
	if err != nil {
		return "", "", "", err
	}
	if i%5 == 0 {
		if _, err := g.sessions.End(ctx, s.ID, auth.Act{By: "operator"}, now); err != nil {
			return "", "", "", err
		}
	}
	r, err := g.decisions.Register(ctx, policies.Decision{Scope: policies.ScopeAccount, Value: subject, Action: rules.Refuse,
		Origin: policies.OriginOperator, By: "drill", Reason: "理由", Until: start.Add(time.Hour)}, now)
	return s.ID, token, r.Decision.ID, err
}

// has compares a gate with what was acknowledged before a moment.
func (g *gate) has(t *testing.T, told []told) {
	t.Helper()
	for i, w := range told {
		s, err := g.sessions.ByToken(t.Context(), w.token, start.Add(time.Minute))
		if w.person%5 == 0 {
			if !errors.Is(err, auth.ErrSessionEnded) {
				t.Errorf("session %d was ended: got %v", i, err)
			}
		} else if err != nil || s.ID != w.session || s.Subject != fmt.Sprintf("acc-%d", w.person) {
			t.Errorf("session %d: got %+v, %v", i, s, err)
		}
		d, err := g.decisions.Get(t.Context(), w.decision, start.Add(time.Minute))
		if err != nil || d.Value != fmt.Sprintf("acc-%d", w.person) || d.Reason != "理由" {
			t.Errorf("decision %d: got %+v, %v", i, d, err)
		}
		p, ok, err := g.directory.BySubject(t.Context(), fmt.Sprintf("acc-%d", w.person))
		if err != nil || !ok || !slices.Equal(p.Names, []string{"鈴木 花子 <&> \u00e9"}) {
			t.Errorf("account %d: got %+v, %v, %v", i, p, ok, err)
		}
	}
}

type told struct {
	person                   int
	session, token, decision string
}

// busy lives on until the test is over or stop is called; it returns what was acknowledged so far.
func (g *gate) busy(t *testing.T) (sofar func() []told, stop func() []told) {
	ctx, cancel := context.WithCancel(t.Context())
	var all atomic.Pointer[[]told]
	all.Store(new([]told))
	some, done := make(chan struct{}), make(chan struct{})
	begun := sync.OnceFunc(func() { close(some) })
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			s, token, d, err := g.live(ctx, i)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("person %d: %v", i, err)
					begun()
				}
				return
			}
			next := append(slices.Clone(*all.Load()), told{i, s, token, d})
			all.Store(&next)
			if i == 30 {
				begun()
			}
		}
	}()
	<-some
	return func() []told { return *all.Load() }, func() []told {
		cancel()
		<-done
		return *all.Load()
	}
}

// The drill: back up while the gate works, lose everything, restore, go on.
func TestBackupDrillSQLite(t *testing.T) {
	dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "2026-04-06")
	db := open(t, dir)
	keys, err := db.OpenKeyring(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "record", "tiles"), 0o700), os.WriteFile(filepath.Join(dir, "record", "tiles", "1.seg"), []byte("entries"), 0o600),
		os.WriteFile(filepath.Join(dir, "detectors.snapshot"), []byte("memory"), 0o600)); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, db)
	sofar, stop := g.busy(t)
	before := sofar()
	result, err := storage.Backup(t.Context(), quiet(dir), backup, []byte(passphrase), start)
	if err != nil {
		t.Fatal(err)
	}
	after := stop()
	if want := []string{"detectors.snapshot", "keys.sealed", "kidoban.db", "record/tiles/1.seg"}; !slices.Equal(result.Files, want) || result.Keyless || result.Dump != "" {
		t.Errorf("got %+v, want %v", result, want)
	}
	t.Logf("%d people were there when the backup began and %d when it had ended", len(before), len(after))
	closeDB(t, db)
	err = filepath.Walk(backup, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	again := filepath.Join(t.TempDir(), "new")
	if _, err := storage.Restore(t.Context(), backup, again, []byte("another passphrase")); err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("another passphrase: %v", err)
	}
	if _, err := storage.Restore(t.Context(), backup, again, nil); err == nil || !strings.Contains(err.Error(), "no passphrase") {
		t.Errorf("no passphrase: %v", err)
	}
	if _, err := storage.Restore(t.Context(), backup, again, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Restore(t.Context(), backup, again, []byte(passphrase)); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("restoring twice: %v", err)
	}
	restored := open(t, again)
	if restored.Fresh() {
		t.Error("the restored database is fresh")
	}
	k, err := restored.OpenKeyring(t.Context())
	if err != nil || !storage.SameKeys(allKeys(k), allKeys(keys)) {
		t.Errorf("the restored keyring: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(again, "record", "tiles", "1.seg")); err != nil || string(text) != "entries" {
		t.Errorf("the restored record: %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(again, "detectors.snapshot")); err != nil || string(text) != "memory" {
		t.Errorf("what the detectors learned: %q, %v", text, err)
	}
	lives := newGate(t, restored)
	lives.has(t, before)
	if _, _, _, err := lives.live(t.Context(), 1_000_000); err != nil {
		t.Errorf("after restoring: %v", err)
	}
}

func TestBackupRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := storage.Backup(t.Context(), quiet(dir), filepath.Join(t.TempDir(), "b"), nil, start); err == nil || !strings.Contains(err.Error(), "kidoban.db") {
		t.Errorf("without a database: %v", err)
	}
	db := open(t, dir)
	if _, err := storage.Backup(t.Context(), quiet(dir), dir, nil, start); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("into itself: %v", err)
	}
	backup := filepath.Join(t.TempDir(), "b")
	if result, err := storage.Backup(t.Context(), quiet(dir), backup, nil, start); err != nil || !result.Keyless {
		t.Errorf("without a passphrase: %+v, %v", result, err)
	}
	closeDB(t, db)
	f, err := os.OpenFile(filepath.Join(backup, "kidoban.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, 5000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	into := filepath.Join(t.TempDir(), "new")
	if _, err := storage.Restore(t.Context(), backup, into, nil); err == nil || !strings.Contains(err.Error(), "not the one that was saved") {
		t.Errorf("a changed file: %v", err)
	}
	if left, err := os.ReadDir(into); err != nil || len(left) > 0 {
		t.Errorf("a failed restore left %v, %v", left, err)
	}
	if _, err := storage.Restore(t.Context(), t.TempDir(), into, nil); err == nil || !strings.Contains(err.Error(), "not a backup") {
		t.Errorf("no backup: %v", err)
	}
	if _, err := storage.Backup(t.Context(), quiet(dir), filepath.Join(dir, "record", "b"), nil, start); err == nil || !strings.Contains(err.Error(), "within the record") {
		t.Errorf("into the record: %v", err)
	}
	short := filepath.Join(t.TempDir(), "b")
	if _, err := storage.Backup(t.Context(), quiet(dir), short, []byte("short"), start); err == nil || !strings.Contains(err.Error(), "at least 12") {
		t.Errorf("a short passphrase: %v", err)
	}
	if _, err := os.Stat(short); err == nil {
		t.Error("a refused backup made a directory")
	}
	// The keyring is missing, which shows last.
	if _, err := storage.Backup(t.Context(), quiet(dir), short, []byte(passphrase), start); err == nil || !strings.Contains(err.Error(), "keys.json") {
		t.Errorf("no keyring: %v", err)
	}
	if left, err := os.ReadDir(short); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failed backup left %v, %v", left, err)
	}
	if err := os.Mkdir(short, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Backup(t.Context(), quiet(dir), short, []byte(passphrase), start); err == nil {
		t.Error("no keyring")
	}
	if left, err := os.ReadDir(short); err != nil || len(left) > 0 {
		t.Errorf("a failed backup into a directory that was there left %v, %v", left, err)
	}
	for _, evil := range []string{`"../x"`, `"/etc/passwd"`, `"record/../../x"`, `"keys.json"`, `"record//x"`, `"backup.json"`} {
		if err := storage.ParseManifest([]byte(`{"version":1,"files":{` + evil + `:"` + strings.Repeat("00", 32) + `"}}`)); err == nil {
			t.Errorf("%s was taken", evil)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"database":"sqlite","files":{"kidoban.db":"` + strings.Repeat("00", 32) + `","record/1.seg":"` + strings.Repeat("ff", 32) + `"}}`))
	f.Add([]byte(`{"version":1,"files":{"record/../x":""}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range storage.ManifestFiles(data) {
			if !filepath.IsLocal(name) || strings.Contains(name, "..") && strings.Contains("/"+name+"/", "/../") {
				t.Errorf("%q leads out of the directory", name)
			}
		}
	})
}

// The same drill by PostgreSQL's own programs, with the command that backup gives.
func TestBackupDrillPostgres(t *testing.T) {
	address, dir, backup := storagetest.Postgres(t), t.TempDir(), filepath.Join(t.TempDir(), "b")
	o := quiet(dir)
	o.Database = with(t, address, "password", "hunter2")
	db, err := storage.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	keys, err := db.OpenKeyring(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(t, db)
	sofar, stop := g.busy(t)
	before := sofar()
	result, err := storage.Backup(t.Context(), o, backup, []byte(passphrase), start)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(result.Dump, "pg_dump ") || strings.Contains(result.Dump, "hunter2") {
		t.Fatalf("got the command %q", result.Dump)
	}
	run := func(command string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(storagetest.PostgresProgram(t, "pg_dump"))+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	run(result.Dump)
	stop()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	empty := storagetest.Postgres(t)
	run("pg_restore --exit-on-error --no-owner --no-privileges --dbname='" + empty + "' " + filepath.Join(backup, "kidoban.pgdump"))
	again := filepath.Join(t.TempDir(), "new")
	if _, err := storage.Restore(t.Context(), backup, again, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	o.DataDir, o.Database = again, empty
	restored, err := storage.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	k, err := restored.OpenKeyring(t.Context())
	if err != nil || !storage.SameKeys(allKeys(k), allKeys(keys)) {
		t.Errorf("the restored keyring: %v", err)
	}
	lives := newGate(t, restored)
	lives.has(t, before)
	if _, _, _, err := lives.live(t.Context(), 1_000_000); err != nil {
		t.Errorf("after restoring: %v", err)
	}
}

// An installation moves to PostgreSQL and back, and nothing is lost or changed.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	if _, err := db.OpenKeyring(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, db)
	var all []told
	for i := range 250 { // more than a batch
		s, token, d, err := g.live(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, told{i, s, token, d})
	}
	for i := range 300 {
		if _, err := db.SQL().Exec(`INSERT INTO ledger (hour, control, action, reason, rule, shadow, device, count) VALUES (?, ?, 1, 'é', '', 0, 0, ?)`, i%7*3600, fmt.Sprintf("c%d\n\t'", i), int64(i)<<50-1); err != nil {
			t.Fatal(err)
		}
	}
	postgres := quiet(t.TempDir())
	postgres.Database = storagetest.Postgres(t)
	if _, err := storage.Copy(t.Context(), quiet(dir), postgres); err == nil || !strings.Contains(err.Error(), "in use by the process") {
		t.Errorf("beside a gate that runs: %v", err)
	}
	closeDB(t, db)
	done, err := storage.Copy(t.Context(), quiet(dir), postgres)
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]int64)
	for _, c := range done {
		rows[c.Name] = c.Rows
	}
	for name, want := range map[string]int64{"auth_sessions": 250, "auth_people": 250, "decisions": 250, "ledger": 300, "storage_keys": 5, "decisions_revision": 1} {
		if rows[name] != want {
			t.Errorf("%s: %d rows, want %d", name, rows[name], want)
		}
	}
	var table bytes.Buffer
	if err := storage.WriteCopied(&table, done); err != nil || !strings.Contains(table.String(), "auth_typed_names") {
		t.Errorf("got %v\n%s", err, table.String())
	}
	if _, err := storage.Copy(t.Context(), quiet(dir), postgres); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a second time: %v", err)
	}
	moved, err := storage.Open(t.Context(), postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	newGate(t, moved).has(t, all)
	if err := moved.CheckKeyring(t.Context(), keyring(t, filepath.Join(dir, "keys.json"), false)); err != nil {
		t.Errorf("the keys: %v", err)
	}
	if _, _, _, err := newGate(t, moved).live(t.Context(), 1_000_000); err != nil {
		t.Errorf("going on: %v", err)
	}
	back := quiet(filepath.Join(t.TempDir(), "back"))
	if _, err := storage.Copy(t.Context(), postgres, back); err == nil || !strings.Contains(err.Error(), "stop every node") {
		t.Errorf("beside a node that runs: %v", err)
	}
	if err := moved.Close(); err != nil {
		t.Fatal(err)
	}
	disconnected(t, postgres.Database)
	if _, err := storage.Copy(t.Context(), postgres, back); err != nil {
		t.Fatal(err)
	}
	newGate(t, open(t, back.DataDir)).has(t, all)
}

// disconnected waits until PostgreSQL has noticed that the gates are gone, which may
// take long where much else runs.
func disconnected(t *testing.T, address string) {
	t.Helper()
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tick, late := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for n := 1; ; {
		if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'kidoban/%'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d connections stay", n)
		}
	}
}

func TestCopyRefuses(t *testing.T) {
	lite := t.TempDir()
	closeDB(t, open(t, lite))
	empty := quiet(t.TempDir())
	empty.Database = storagetest.Postgres(t)
	if _, err := storage.Copy(t.Context(), quiet(lite), quiet(t.TempDir())); err == nil || !strings.Contains(err.Error(), "backup and restore") {
		t.Errorf("SQLite to SQLite: %v", err)
	}
	if _, err := storage.Copy(t.Context(), quiet(t.TempDir()), empty); err == nil || !strings.Contains(err.Error(), "the source") {
		t.Errorf("no source: %v", err)
	}
	if _, err := storage.Copy(t.Context(), empty, quiet(t.TempDir())); err == nil || !strings.Contains(err.Error(), "is it a database of the gate?") {
		t.Errorf("a source that is none: %v", err)
	}
	// A source that this program would migrate first.
	older := t.TempDir()
	db := open(t, older)
	if _, err := db.SQL().Exec(`DELETE FROM policies_schema WHERE version_id = (SELECT MAX(version_id) FROM policies_schema)`); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	if _, err := storage.Copy(t.Context(), quiet(older), empty); err == nil || !strings.Contains(err.Error(), "start the gate with this program") {
		t.Errorf("an older source: %v", err)
	}
	// Text that PostgreSQL does not keep: the target stays empty.
	odd := t.TempDir()
	db = open(t, odd)
	g := newGate(t, db)
	for i := range 3 {
		if _, _, _, err := g.live(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.SQL().Exec("UPDATE auth_people SET organization = 'a' || char(0) || 'b' WHERE subject = 'acc-1'"); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	if _, err := storage.Copy(t.Context(), quiet(odd), empty); err == nil || !strings.Contains(err.Error(), "the table auth_people") {
		t.Errorf("text with a zero byte: %v", err)
	}
	target, err := sql.Open("pgx", empty.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	var n int
	if err := target.QueryRow(`SELECT (SELECT COUNT(*) FROM auth_people) + (SELECT COUNT(*) FROM auth_sessions) + (SELECT COUNT(*) FROM storage_keys)`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows, %v, in a target after an error", n, err)
	}
	if _, err := storage.Copy(t.Context(), quiet(lite), empty); err != nil { // nothing was left behind
		t.Error(err)
	}
}
