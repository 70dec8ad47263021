package record_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// memoryMirror keeps copies in memory and tells when it got some.
type memoryMirror struct {
	mu     sync.Mutex
	copies []record.Copy
	away   error
	calls  int
	got    chan uint64 // the last sequence
}

func newMemoryMirror() *memoryMirror { return &memoryMirror{got: make(chan uint64, 1000)} }

func (m *memoryMirror) Last(context.Context, string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.away != nil || len(m.copies) == 0 {
		return 0, m.away
	}
	return m.copies[len(m.copies)-1].Sequence, nil
}

func (m *memoryMirror) Store(_ context.Context, _ string, copies []record.Copy) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.away != nil {
		return m.away
	}
	for _, c := range copies {
		if n := len(m.copies); n == 0 || m.copies[n-1].Sequence < c.Sequence {
			c.Frame, c.Header = bytes.Clone(c.Frame), bytes.Clone(c.Header)
			m.copies = append(m.copies, c)
		} else if i, found := slices.BinarySearchFunc(m.copies, c.Sequence, func(c record.Copy, s uint64) int { return int(c.Sequence) - int(s) }); !found || !bytes.Equal(m.copies[i].Frame, c.Frame) {
			return record.ErrFork
		}
	}
	m.got <- copies[len(copies)-1].Sequence
	return nil
}

func (m *memoryMirror) Copies(_ context.Context, _ string, after uint64, limit int) ([]record.Copy, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, found := slices.BinarySearchFunc(m.copies, after, func(c record.Copy, s uint64) int { return int(c.Sequence) - int(s) })
	if found {
		i++
	}
	return m.copies[i:min(len(m.copies), i+limit)], nil
}

func (m *memoryMirror) set(away error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

// signal tells what another mirror got.
type signal struct {
	record.Mirror
	got chan uint64
}

func (s signal) Store(ctx context.Context, node string, copies []record.Copy) error {
	err := s.Mirror.Store(ctx, node, copies)
	if err == nil {
		s.got <- copies[len(copies)-1].Sequence
	}
	return err
}

// arrives waits until a mirror has an entry.
func arrives(t testing.TB, got chan uint64, sequence uint64) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case n := <-got:
			if n >= sequence {
				return
			}
		case <-late:
			t.Fatalf("entry %d does not arrive", sequence)
		}
	}
}

// same fails unless two directories have the same segments.
func same(t testing.TB, a, b string) {
	t.Helper()
	x, y := record.Segments(a), record.Segments(b)
	if len(x) != len(y) {
		t.Fatalf("%d segments and %d", len(x), len(y))
	}
	for i := range x {
		p, err := os.ReadFile(x[i])
		if err != nil {
			t.Fatal(err)
		}
		q, err := os.ReadFile(y[i])
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(x[i]) != filepath.Base(y[i]) || !bytes.Equal(p, q) {
			t.Errorf("%s differs from %s", y[i], x[i])
		}
	}
}

func TestMirrorAndRestore(t *testing.T) {
	dir, m := t.TempDir(), newMemoryMirror()
	l := open(t, dir, func(c *record.Config) { c.Mirror, c.SegmentBytes = m, 2<<10 })
	for i := range 30 {
		appendOne(t, l, i)
		l.Count(record.Denial{Kind: "denial"})
		if i%10 == 0 {
			if err := l.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := l.Status().Last.Sequence
	arrives(t, m.got, last)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The last sums were written while closing, and did not arrive.
	lost := sound(t, dir).Last - last
	if lost != 1 {
		t.Errorf("%d entries did not arrive", lost)
	}
	l = open(t, dir, func(c *record.Config) { c.Mirror = m }) // it catches up
	arrives(t, m.got, last+1)
	l.Close()

	again := filepath.Join(t.TempDir(), "deep", "record")
	r, err := record.Restore(t.Context(), m, "gate-1", again)
	if err != nil || r.Last != last+1 || r.Entries != last+1 || !r.OK() {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	same(t, dir, again)
	sound(t, again)

	// It goes on behind a gap that explains itself, also when it is lost again.
	for round := range uint64(2) {
		next := last + 2 + (round+1)*record.RestoredGap + round*2
		l = open(t, again, func(c *record.Config) { c.Mirror = m })
		if id := appendOne(t, l, 0); id.Sequence != next+1 {
			t.Fatalf("round %d goes on with %v, want %d", round, id, next+1)
		}
		arrives(t, m.got, next+1)
		l.Close()
		r := sound(t, again)
		if len(r.Gaps) != int(round)+1 || r.Gaps[round].To != next-1 || r.Gaps[round].From != next-record.RestoredGap {
			t.Errorf("gaps %+v", r.Gaps)
		}
		l = open(t, again, nil) // no second gap
		l.Close()
		if r := sound(t, again); r.Last != next+1 {
			t.Errorf("the last is %d", r.Last)
		}
		elsewhere := filepath.Join(t.TempDir(), "record")
		if _, err := record.Restore(t.Context(), m, "gate-1", elsewhere); err != nil {
			t.Fatal(err)
		}
		same(t, again, elsewhere)
		again = elsewhere
	}
}

// A copy from a backup does not use numbers again, also when it ends within an entry.
func TestMarkRestored(t *testing.T) {
	dir := t.TempDir()
	if err := record.MarkRestored(dir); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, nil)
	for i := range 3 {
		appendOne(t, l, i)
	}
	l.Close()
	path, size := end(t, dir)
	if err := os.Truncate(path, size-1); err != nil {
		t.Fatal(err)
	}
	if err := record.MarkRestored(dir); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, nil)
	if id := appendOne(t, l, 3); id.Sequence != 3+record.RestoredGap+2 {
		t.Errorf("goes on with %v", id)
	}
	l.Close()
	if r := sound(t, dir); len(r.Gaps) != 1 || r.Entries != 5 {
		t.Errorf("report %+v", r)
	}
	if record.MarkRestored(filepath.Join(dir, "nothing")) == nil {
		t.Error("what is not there was marked")
	}
}

func TestRestoreRefuses(t *testing.T) {
	m := newMemoryMirror()
	if _, err := record.Restore(t.Context(), m, "gate-1", filepath.Join(t.TempDir(), "new")); !errors.Is(err, record.ErrNotMirrored) {
		t.Errorf("an empty mirror: %v", err)
	}
	if _, err := record.Restore(t.Context(), m, "a/b", filepath.Join(t.TempDir(), "new")); err == nil {
		t.Error("no node")
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := record.Restore(t.Context(), m, "gate-1", full); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a directory with files: %v", err)
	}
	l := open(t, t.TempDir(), func(c *record.Config) { c.Mirror = m })
	for i := range 5 {
		appendOne(t, l, i)
	}
	arrives(t, m.got, 5)
	m.copies[2].Frame[30] ^= 1
	parent := t.TempDir()
	if r, err := record.Restore(t.Context(), m, "gate-1", filepath.Join(parent, "new")); err == nil || r.OK() {
		t.Errorf("a changed copy: %+v, %v", r, err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A mirror that is away holds nobody up, and gets everything later.
func TestMirrorAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryMirror()
		m.set(errors.New("away"))
		l := open(t, t.TempDir(), func(c *record.Config) { c.Mirror = m })
		for i := range 10 {
			appendOne(t, l, i)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		s := l.Status().Mirror
		if s == nil || s.Entries != 10 || s.Last != 0 || !strings.Contains(s.Why, "away") || s.Since.IsZero() {
			t.Fatalf("lag %+v", s)
		}
		if m.calls > 20 {
			t.Errorf("%d calls in a minute", m.calls)
		}
		m.set(nil)
		time.Sleep(time.Minute)
		if diff := cmp.Diff(&record.Lag{Last: 10}, l.Status().Mirror); diff != "" {
			t.Errorf("lag (-want +got):\n%s", diff)
		}
		m.set(errors.New("away again"))
		appendOne(t, l, 10)
		time.Sleep(time.Minute)
		if s := l.Status().Mirror; s.Entries != 1 || s.Age < time.Minute || s.Last != 10 {
			t.Errorf("lag %+v", s)
		}
		m.set(nil)
		time.Sleep(time.Minute)
		if s := l.Status().Mirror; s.Entries != 0 || s.Why != "" {
			t.Errorf("lag %+v", s)
		}
	})
}

// A node that lost its disk and was not restored does not mix its entries with the old ones.
func TestMirrorFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryMirror()
		old := open(t, t.TempDir(), func(c *record.Config) { c.Mirror = m })
		for i := range 3 {
			appendOne(t, old, i)
		}
		synctest.Wait()
		old.Close()
		l := open(t, t.TempDir(), func(c *record.Config) { c.Mirror = m })
		for i := range 3 {
			appendOne(t, l, i)
			time.Sleep(time.Minute)
			if s := l.Status().Mirror; !strings.Contains(s.Why, "another history") {
				t.Errorf("after %d entries: %+v", i+1, s)
			}
		}
		appendOne(t, l, 3)
		time.Sleep(time.Minute)
		if s := l.Status().Mirror; !strings.Contains(s.Why, "another history") || len(m.copies) != 3 {
			t.Errorf("%d copies, %+v", len(m.copies), s)
		}
	})
}

// Nor does one that was restored from a backup that is older than the mirror: what
// comes next would not fit to what the mirror has.
func TestMirrorAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, dir, backup := newMemoryMirror(), t.TempDir(), t.TempDir()
		l := open(t, dir, func(c *record.Config) { c.Mirror = m })
		for i := range 5 {
			appendOne(t, l, i)
			if i == 2 {
				if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		l.Close()
		if err := record.MarkRestored(backup); err != nil {
			t.Fatal(err)
		}
		l = open(t, backup, func(c *record.Config) { c.Mirror = m })
		appendOne(t, l, 5)
		time.Sleep(time.Minute)
		if s := l.Status().Mirror; !strings.Contains(s.Why, "it has entry 5, which is not here") || len(m.copies) != 5 {
			t.Errorf("%d copies, %+v", len(m.copies), s)
		}
	})
}

func TestSQLMirror(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			db := database(t, kind)
			m := record.NewSQLMirror(db)
			if last, err := m.Last(t.Context(), "gate-1"); last != 0 || err != nil {
				t.Fatalf("the last of nothing is %d, %v", last, err)
			}
			dir := t.TempDir()
			s := signal{m, make(chan uint64, 1000)}
			l := open(t, dir, func(c *record.Config) { c.Mirror, c.SegmentBytes = s, 64<<10 })
			for i := range 4 {
				if _, err := l.AppendMany(t.Context(), slices.Repeat([]record.Draft{{Kind: "login.success", Body: note{i}}}, 150)); err != nil {
					t.Fatal(err)
				}
			}
			arrives(t, s.got, 600)
			other := open(t, t.TempDir(), func(c *record.Config) { c.Node, c.Mirror = "gate-2", s })
			appendOne(t, other, 0)
			arrives(t, s.got, 1)
			l.Close()

			copies, err := m.Copies(t.Context(), "gate-1", 590, 100)
			if err != nil || len(copies) != 10 || copies[0].Sequence != 591 {
				t.Fatalf("%d copies, %v", len(copies), err)
			}
			// Again is nothing new; with an erased slot as well.
			copy(copies[3].Frame[len(copies[3].Frame)-record.SlotSize:], record.ErasedSlot)
			if err := m.Store(t.Context(), "gate-1", copies); err != nil {
				t.Errorf("storing again: %v", err)
			}
			next := copies[9]
			next.Sequence, next.Frame = 601, bytes.Clone(next.Frame)
			copies[5].Frame[40] ^= 1
			if err := m.Store(t.Context(), "gate-1", append(copies, next)); !errors.Is(err, record.ErrFork) || !strings.Contains(err.Error(), "596") {
				t.Errorf("other bytes: %v", err)
			}
			next.Header = bytes.Clone(next.Header)
			next.Header[20] ^= 1
			if err := m.Store(t.Context(), "gate-1", []record.Copy{next}); !errors.Is(err, record.ErrFork) {
				t.Errorf("another header: %v", err)
			}
			if last, err := m.Last(t.Context(), "gate-1"); last != 600 || err != nil {
				t.Errorf("the last is %d, %v: what failed was stored", last, err)
			}
			again := filepath.Join(t.TempDir(), "record")
			if r, err := record.Restore(t.Context(), m, "gate-1", again); err != nil || r.Last != 600 {
				t.Fatalf("restored: %+v, %v", r, err)
			}
			same(t, dir, again)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			appendOne(t, other, 1) // is not held up
		})
	}
}

func database(t testing.TB, kind string) *sql.DB {
	t.Helper()
	driver, address, dialect := "sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=foreign_keys(ON)&_txlock=immediate", goose.DialectSQLite3
	if kind == "postgres" {
		driver, address, dialect = "pgx", storagetest.Postgres(t), goose.DialectPostgres
	}
	db, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if kind == "sqlite" {
		db.SetMaxOpenConns(1)
	}
	dir, err := fs.Sub(record.Migrations, "migrations/"+kind)
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(dialect, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}
