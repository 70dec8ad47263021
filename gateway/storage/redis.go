package storage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// RedisBudget is the default of RedisConfig.Budget.
	RedisBudget = 100 * time.Millisecond

	// redisDial bounds one attempt to connect, TLS included. A caller whose context
	// ends earlier does not wait for it; the connection serves the next.
	redisDial = time.Second
	redisPool = 64 // connections of a client
)

// RedisConfig says where Redis is and how long to wait for it.
type RedisConfig struct {
	// URL is one of
	//
	//	redis://[USER:PASSWORD@]HOST[:6379][/DB]
	//	redis+sentinel://[USER:PASSWORD@]HOST[:26379],HOST,...[/DB]?master=NAME
	//
	// with rediss for TLS. USER is an ACL user of the servers and may be empty; that
	// of the sentinels is in the parameters sentinel_user and sentinel_password, or
	// below. Odd letters are written as %XX.
	URL string
	// SentinelUser and SentinelPassword are for the sentinels, where they are not in
	// the URL.
	SentinelUser, SentinelPassword string
	// CA is a PEM file with the authorities that sign the servers' certificates; by
	// default those of the system. Certificate and Key are PEM files that prove this
	// node to the servers. All three want a URL with TLS.
	CA, Certificate, Key string
	// Budget bounds the wait for an answer and for a free connection, beside the
	// caller's context; 0: RedisBudget. A client that blocks in a command (XREAD) needs
	// one above the command's own.
	Budget time.Duration
	// Log gets what the client library has to say; by default slog.Default(). It is
	// one for the process: that of the last call.
	Log *slog.Logger
}

// OpenRedis makes a client. It does not connect, so it succeeds while Redis is down;
// the error is about c. A call of the client fails when its context ends or the
// budget is spent, and is never tried twice: a counter would count twice. Errors
// and logs hold no credentials.
func OpenRedis(c RedisConfig) (redis.UniversalClient, error) {
	at, err := parseRedisURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("the address of Redis: %w", err)
	}
	if c.Budget < 0 {
		return nil, fmt.Errorf("the budget for Redis is %v, want more than 0", c.Budget)
	}
	if c.Budget == 0 {
		c.Budget = RedisBudget
	}
	if c.SentinelUser != "" || c.SentinelPassword != "" {
		if at.master == "" {
			return nil, errors.New("a user or password for sentinels is set, and the address of Redis names none (redis+sentinel://)")
		}
		if at.sentinelUser != "" || at.sentinelPassword != "" {
			return nil, errors.New("the user or password for the sentinels is set twice: in the address of Redis and beside it")
		}
		at.sentinelUser, at.sentinelPassword = c.SentinelUser, c.SentinelPassword
	}
	security, err := c.tls(at.tls)
	if err != nil {
		return nil, err
	}
	logRedis(c.Log)
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: at.addrs, DB: at.db, Username: at.user, Password: at.password,
		MasterName: at.master, SentinelUsername: at.sentinelUser, SentinelPassword: at.sentinelPassword,
		TLSConfig: security,

		// Without these a black hole blocks for 5 s whatever the context says, and a
		// closed port for 1.7 s.
		ContextTimeoutEnabled: true,
		MaxRetries:            -1,
		DialerRetries:         1,
		DialTimeout:           max(c.Budget, redisDial),
		ReadTimeout:           c.Budget,
		WriteTimeout:          c.Budget,
		PoolTimeout:           c.Budget,
		PoolSize:              redisPool,

		// Commands that an ACL user need not be allowed.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}), nil
}

func (c *RedisConfig) tls(wanted bool) (*tls.Config, error) {
	if !wanted {
		if c.CA != "" || c.Certificate != "" || c.Key != "" {
			return nil, errors.New("certificates are set for Redis, and its address says plain text: begin it with rediss:// or rediss+sentinel://")
		}
		return nil, nil
	}
	// The server's name is that of the host being dialled (crypto/tls).
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("the authorities for Redis: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the authorities for Redis: %s holds no certificate in PEM form", c.CA)
		}
	}
	if (c.Certificate == "") != (c.Key == "") {
		return nil, errors.New("of the certificate and the key for Redis only one is set, want both or none")
	}
	if c.Certificate != "" {
		own, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return nil, fmt.Errorf("the certificate for Redis: %w", err)
		}
		t.Certificates = []tls.Certificate{own}
	}
	return t, nil
}

var (
	redisLog     atomic.Pointer[slog.Logger]
	redisLogOnce sync.Once
)

// logRedis turns what the library prints into log lines.
func logRedis(log *slog.Logger) {
	if log == nil {
		log = slog.Default()
	}
	redisLog.Store(log)
	redisLogOnce.Do(func() { redis.SetLogger(redisLogger{}) })
}

type redisLogger struct{}

// Printf implements the library's logger.
func (redisLogger) Printf(ctx context.Context, format string, args ...any) {
	redisLog.Load().WarnContext(ctx, "redis client", "message", fmt.Sprintf(format, args...))
}
