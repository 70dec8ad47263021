package storagetest_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

func TestMain(m *testing.M) { storagetest.Main(m) }

func TestPostgres(t *testing.T) {
	one, two := storagetest.Postgres(t), storagetest.Postgres(t)
	if one == two {
		t.Fatalf("two tests share the database %s", one)
	}
	db, err := sql.Open("pgx", one)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var version string
	if err := db.QueryRowContext(t.Context(), `SHOW server_version`).Scan(&version); err != nil || version == "" {
		t.Fatal(version, err)
	}
}

func TestRedis(t *testing.T) {
	s := storagetest.Redis(t)
	c := s.Client()
	defer c.Close()
	if err := c.Set(t.Context(), "a", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Get(ctx, "a").Err(); err == nil {
		t.Error("a server that is paused answers")
	}
	s.Stop()
	s.Start()
	if n, err := c.Exists(t.Context(), "a").Result(); err != nil || n != 0 {
		t.Errorf("after a restart: %d keys, %v", n, err)
	}
}

func TestSentinel(t *testing.T) {
	set := storagetest.Sentinel(t)
	c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: set.Master(), SentinelAddrs: set.Addrs()})
	defer c.Close()
	if err := c.Set(t.Context(), "a", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	set.FailOver()
	if err := c.Set(t.Context(), "b", "1", 0).Err(); err != nil {
		t.Errorf("after a fail-over: %v", err)
	}
	set.Revive()
}
