package once_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/kidoban/kidoban/gateway/once"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

func TestMain(m *testing.M) { storagetest.Main(m) }

func migrate(t *testing.T, db *sql.DB, dialect goose.Dialect, dir string) {
	t.Helper()
	files, err := fs.Sub(once.Migrations, dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(dialect, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

// each runs test on every store there is; the two are the store as two nodes see it.
func each(t *testing.T, test func(t *testing.T, c *clock, a, b once.Store)) {
	start := func() *clock { return &clock{at: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)} }
	t.Run("memory", func(t *testing.T) {
		c := start()
		m := once.NewMemory(c.now)
		test(t, c, m, m)
	})
	open := func(t *testing.T, driver, dsn, dialect string, gd goose.Dialect) {
		c := start()
		var nodes [2]once.Store
		for i := range nodes {
			db, err := sql.Open(driver, dsn)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if i == 0 {
				migrate(t, db, gd, "migrations/"+dialect)
			}
			if nodes[i], err = once.NewSQL(db, dialect, c.now); err != nil {
				t.Fatal(err)
			}
		}
		test(t, c, nodes[0], nodes[1])
	}
	t.Run("sqlite", func(t *testing.T) {
		open(t, "sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)&_txlock=immediate", "sqlite", goose.DialectSQLite3)
	})
	t.Run("postgres", func(t *testing.T) {
		open(t, "pgx", storagetest.Postgres(t), "postgres", goose.DialectPostgres)
	})
}

func TestSignatureIsGoodOnce(t *testing.T) {
	each(t, func(t *testing.T, c *clock, a, b once.Store) {
		until := c.now().Add(10 * time.Minute)
		seen := func(s once.Store, signature string) bool {
			t.Helper()
			ok, err := s.Seen(t.Context(), signature, until)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		if seen(a, "one") || !seen(a, "one") || !seen(b, "one") || seen(b, "two") || !seen(a, "two") {
			t.Error("a signature was good twice, or not once")
		}
		c.advance(10*time.Minute + time.Second)
		if !seen(a, "one") {
			t.Error("a signature was forgotten while a node whose clock is behind may still take it")
		}
		c.advance(6 * time.Minute)
		if seen(a, "one") {
			t.Error("a signature is remembered for ever")
		}
		var wg sync.WaitGroup
		results := make(chan bool, 16)
		for i := range 16 {
			wg.Go(func() {
				ok, err := []once.Store{a, b}[i%2].Seen(context.WithoutCancel(t.Context()), "raced", c.now().Add(time.Minute))
				if err != nil {
					t.Error(err)
				}
				results <- ok
			})
		}
		wg.Wait()
		close(results)
		first := 0
		for ok := range results {
			if !ok {
				first++
			}
		}
		if first != 1 {
			t.Errorf("%d of 16 calls at once were the first", first)
		}
	})
}

func TestAnswersUnderAKey(t *testing.T) {
	each(t, func(t *testing.T, c *clock, a, b once.Store) {
		act, r := once.Act{Operator: "alice", Key: "k"}, once.Request{1}
		begin := func(s once.Store, act once.Act, r once.Request, want once.Progress) once.Answer {
			t.Helper()
			got, answer, err := s.Begin(t.Context(), act, r)
			if err != nil || got != want {
				t.Fatalf("begin = %d, %v, want %d", got, err, want)
			}
			return answer
		}
		begin(a, act, r, once.New)
		begin(b, act, r, once.Running)
		begin(b, act, once.Request{2}, once.Other)
		begin(b, once.Act{Operator: "bob", Key: "k"}, once.Request{2}, once.New)
		if err := b.Abandon(t.Context(), once.Act{Operator: "bob", Key: "k"}); err != nil {
			t.Fatal(err)
		}
		begin(a, once.Act{Operator: "bob", Key: "k"}, once.Request{3}, once.New)

		want := once.Answer{Status: 201, Location: "/v1/decisions/x", Body: []byte(`{"id":"x"}`)}
		if err := a.Finish(t.Context(), act, want); err != nil {
			t.Fatal(err)
		}
		if got := begin(b, act, r, once.Done); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("answer = %v, want %v", got, want)
		}
		if err := b.Abandon(t.Context(), act); err != nil {
			t.Fatal(err)
		}
		begin(a, act, r, once.Done) // what is answered is not given up
		begin(a, act, once.Request{2}, once.Other)
		c.advance(once.KeepAnswers - time.Second)
		begin(a, act, r, once.Done)
		c.advance(2 * time.Second)
		begin(a, act, once.Request{2}, once.New)

		// One that was cut off may begin again.
		c.advance(once.RunningFor + time.Second)
		begin(b, act, once.Request{2}, once.New)
	})
}

func TestUnknownDialect(t *testing.T) {
	if _, err := once.NewSQL(nil, "oracle", time.Now); err == nil {
		t.Error("no error")
	}
}
