package storage_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

func openRedis(t testing.TB, c storage.RedisConfig) redis.UniversalClient {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	client, err := storage.OpenRedis(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestRedisURL(t *testing.T) {
	for _, test := range []struct {
		url, want string // want: addresses, database, primary's name, user; or a piece of the error after "!"
	}{
		{"redis://db.example", "[db.example:6379] 0 '' ''"},
		{"redis://db.example/", "[db.example:6379] 0 '' ''"},
		{"rediss://127.0.0.1:7000/3", "[127.0.0.1:7000] 3 '' ''"},
		{"redis://[2001:db8::1]:7000", "[[2001:db8::1]:7000] 0 '' ''"},
		{"redis://[2001:db8::1]", "[[2001:db8::1]:6379] 0 '' ''"},
		{"redis://gate:hunter2@db_1.example:1/0", "[db_1.example:1] 0 '' 'gate'"},
		{"redis://:hunter2@db", "[db:6379] 0 '' ''"},
		{"redis://g%40te:hunter2%2F%3A@db", "[db:6379] 0 '' 'g@te'"},
		{"redis+sentinel://a:1,b,[::1]:3/2?master=main", "[a:1 b:26379 [::1]:3] 2 'main' ''"},
		{"rediss+sentinel://gate:hunter2@a,b,c?master=main&sentinel_user=s&sentinel_password=hunter2", "[a:26379 b:26379 c:26379] 0 'main' 'gate'"},
		{"", "!begins with none"},
		{"db.example:6379", "!begins with none"},
		{"http://gate:hunter2@db", "!begins with none"},
		{"redis+cluster://gate:hunter2@db", "!begins with none"},
		{"redis://", "!host 1"},
		{"redis://gate@db", "!without a password"},
		{"redis://gate:@db", "!password is empty"},
		{"redis://gate:hunter2%@db", "!%25"},
		{"redis://g%zzte:hunter2@db", "!%25"},
		{"redis://gate:hunter2#1@db", "!%23"},
		{"redis://gate:hunter2/1@db", "!%2F"},
		{"redis://gate:hunter2?1@db", "!%2F"},
		{"redis://gate:hunter2:1@db", "!%3A"},
		{"redis://gate:hunter2@1@db", "!%40"},
		{"redis://gate:hunt er2@db", "!blank"},
		{"redis://gate:hünter2@db", "!outside ASCII"},
		{"redis://a,b", "!sentinels"},
		{"redis://db:0", "!host 1"},
		{"redis://db:65536", "!host 1"},
		{"redis://db:+1", "!host 1"},
		{"redis://db:", "!host 1"},
		{"redis://[::1", "!host 1"},
		{"redis://[fe80::1%25eth0]", "!host 1"},
		{"redis://::1", "!host 1"},
		{"redis://db/x", "!number of a database"},
		{"redis://db/01", "!number of a database"},
		{"redis://db/-1", "!number of a database"},
		{"redis://db/99999", "!number of a database"},
		{"redis://db/0/", "!number of a database"},
		{"redis://db?master=main", "!is for redis+sentinel"},
		{"redis://db?hunter2=1", "!unknown parameter"},
		{"redis+sentinel://a,b", "!?master=NAME"},
		{"redis+sentinel://a,b?master=", "!empty or there twice"},
		{"redis+sentinel://a,b?master=x&master=y", "!empty or there twice"},
		{"redis+sentinel://a,b?master=x&sentinel_user=y", "!without sentinel_password"},
		{"redis+sentinel://a,b?master=%zz", "!parameters"},
		{"redis+sentinel://a,,b?master=x", "!host 2"},
		{"redis+sentinel://" + strings.Repeat("a,", 20) + "b?master=x", "!want at most 16"},
		{"redis://" + strings.Repeat("a", 5000), "!want at most 4096"},
	} {
		addrs, db, master, user, err := storage.CheckRedisURL(test.url)
		got := fmt.Sprintf("%v %d '%s' '%s'", addrs, db, master, user)
		if piece, ok := strings.CutPrefix(test.want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), piece) || strings.Contains(err.Error(), "hunt") || addrs != nil {
				t.Errorf("%s: got %s, %v, want an error that says %q and no password", test.url, got, err, piece)
			}
		} else if err != nil || got != test.want {
			t.Errorf("%s: got %s, %v, want %s", test.url, got, err, test.want)
		}
	}
}

func TestOpenRedisRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		config storage.RedisConfig
		want   string
	}{
		{storage.RedisConfig{}, "begins with none"},
		{storage.RedisConfig{URL: "redis://db", Budget: -1}, "budget"},
		{storage.RedisConfig{URL: "redis://db", CA: text}, "rediss://"},
		{storage.RedisConfig{URL: "rediss://db", CA: text}, "no certificate"},
		{storage.RedisConfig{URL: "rediss://db", CA: text + ".not"}, "authorities"},
		{storage.RedisConfig{URL: "rediss://db", Certificate: text}, "only one"},
		{storage.RedisConfig{URL: "rediss://db", Certificate: text, Key: text}, "certificate for Redis"},
		{storage.RedisConfig{URL: "redis://db", SentinelPassword: "hunter2"}, "names none"},
		{storage.RedisConfig{URL: "redis+sentinel://a?master=m&sentinel_password=hunter2", SentinelPassword: "hunter2"}, "twice"},
	} {
		if _, err := storage.OpenRedis(test.config); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: got %v, want it to say %q", test.config.URL, err, test.want)
		}
	}
}

// A Redis that is away, a black hole or empty costs no more than the budget, and
// nobody has to do anything when it is back.
func TestRedisAway(t *testing.T) {
	s := storagetest.Redis(t)
	s.Stop()
	client := openRedis(t, storage.RedisConfig{URL: "redis://" + s.Addr()})
	ask := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 75*time.Millisecond)
		defer cancel()
		begin := time.Now()
		err := client.Incr(ctx, "n").Err()
		return time.Since(begin), err
	}
	// Without a budget it would be the kernel's quarter of an hour; a busy machine may
	// take long for anything.
	const bound = 10 * time.Second
	answers := func(when string) {
		t.Helper()
		var err error
		for begin := time.Now(); time.Since(begin) < 30*time.Second; { // each attempt has its budget
			if err = client.Incr(t.Context(), "n").Err(); err == nil {
				return
			}
		}
		t.Errorf("with Redis %s: %v", when, err)
	}
	if took, err := ask(); err == nil || took > bound {
		t.Errorf("with Redis down: %v after %v", err, took)
	}
	s.Start()
	answers("up")
	s.Pause()
	var worst time.Duration
	for range 5 {
		took, err := ask()
		if err == nil {
			t.Error("a black hole answered")
		}
		worst = max(worst, took)
	}
	// Without a context the budget alone ends it.
	begin := time.Now()
	if err := client.Incr(t.Context(), "n").Err(); err == nil {
		t.Error("a black hole answered")
	}
	t.Logf("a black hole: at most %v with a context of 75ms, %v without", worst, time.Since(begin))
	if worst > bound || time.Since(begin) > bound {
		t.Errorf("a black hole blocked for %v, and %v without a context", worst, time.Since(begin))
	}
	s.Resume()
	answers("back")
}

func TestRedisACL(t *testing.T) {
	s := storagetest.Redis(t)
	admin := s.Client()
	defer admin.Close()
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "gate", "on", ">hunter2/:@", "~kidoban:*", "+incr", "+hello", "+select").Err(); err != nil {
		t.Fatal(err)
	}
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "default", "off").Err(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c := storage.RedisConfig{URL: "redis://gate:hunter2%2F%3A%40@" + s.Addr() + "/2", Budget: 5 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))}
	if n, err := openRedis(t, c).Incr(t.Context(), "kidoban:n").Result(); err != nil || n != 1 {
		t.Errorf("got %d, %v", n, err)
	}
	c.URL = "redis://gate:hunter3@" + s.Addr()
	err := openRedis(t, c).Incr(t.Context(), "kidoban:n").Err()
	if err == nil || strings.Contains(err.Error()+log.String(), "hunter") {
		t.Errorf("with a wrong password: %v\n%s", err, log.String())
	}
}

func TestRedisSentinel(t *testing.T) {
	set := storagetest.Sentinel(t)
	client := openRedis(t, storage.RedisConfig{URL: "redis+sentinel://" + strings.Join(set.Addrs(), ",") + "?master=" + set.Master(), Budget: time.Second})
	if err := client.Set(t.Context(), "a", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	set.FailOver()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin, tries := time.Now(), 1; ; tries++ {
		err := client.Set(t.Context(), "b", "1", 0).Err()
		if err == nil {
			t.Logf("after the fail-over: %d tries, %v", tries, time.Since(begin))
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after the fail-over: %v", err)
		}
	}
}

// What parses names hosts that can be dialled; what does not is quoted nowhere: the
// secret stands for S wherever that is.
func FuzzRedisURL(f *testing.F) {
	const secret = "hunter2hunter2"
	for _, u := range []string{
		"redis://S:S@db.example:6379/1", "rediss://[::1]:1/", "redis+sentinel://S:S@a:1,b,c:3/2?master=m&sentinel_user=S&sentinel_password=S",
		"redis://:S%2FS@h", "redis://S,b", "redis://S:S/S@h", "redis://S:S?S=S@h", "redis://S:S#S@h", "redis://S@S@h:S", "redis+sentinel://h?master=%26&S",
		"S", "S://h", "redis://[S]:1", "redis://h/S",
	} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ReplaceAll(text, "S", secret)
		addrs, db, _, _, err := storage.CheckRedisURL(text)
		if err != nil {
			if addrs != nil {
				t.Error("an address beside an error")
			}
			if strings.Contains(err.Error(), "hunter") {
				t.Errorf("the error %q quotes the secret of %q", err, text)
			}
			return
		}
		if len(addrs) == 0 || len(addrs) > 16 || db < 0 {
			t.Errorf("%q: %v, %d", text, addrs, db)
		}
		for _, a := range addrs {
			if strings.ContainsAny(a, " @/?#%") || !strings.Contains(a, ":") {
				t.Errorf("%q: host %q", text, a)
			}
		}
	})
}
