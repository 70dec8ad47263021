package limits

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// DefaultBudget is how long a request waits for Redis unless told otherwise.
const DefaultBudget = 75 * time.Millisecond

// maxNodes bounds how many nodes share a limit while Redis is away.
const maxNodes = 1000

// RedisConfig sets up limits that nodes share.
type RedisConfig struct {
	// Prefix names the installation: gates with the same prefix on the same Redis
	// count together. Every key begins with it as a hash tag, "{kidoban}:", so that
	// they share a slot of a cluster, and an access list may name them by it; the
	// commands used are EVALSHA, EVAL, TIME, GET, SET and DEL. Empty: "kidoban".
	Prefix string

	// Key makes the names of counters: what is counted by (addresses, accounts) is
	// only ever sent as an HMAC-SHA-256 under it. It must be the same on all nodes.
	// Without it the hash has no key, and a reader of Redis can guess addresses.
	Key []byte

	// Budget is how long one request waits for Redis, from 1 ms to 1 s; 0: DefaultBudget.
	Budget time.Duration

	// Nodes tells how many nodes count together, itself included. It is asked while
	// Redis is away only, by every request, and must not wait. Nil: 1.
	Nodes func() int

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // told when Redis goes and comes back; nil: nobody is

	// LocalKeys bounds the counters held for the time without Redis, for requests
	// and for attempts each; 0: DefaultKeys.
	LocalKeys int

	// AutoPipeline sends the calls of concurrent requests together, by the client's
	// experimental auto-pipeline: more calls per second, nothing gained for one
	// caller. [Redis.Close] ends it.
	AutoPipeline bool

	// Called is told of every question to Redis, and of those it was spared. It
	// must be quick. Nil: nobody is told.
	Called func(op, outcome string, took time.Duration)
}

// Operations and outcomes that RedisConfig.Called is told.
const (
	OpLimits   = "limits"   // charging requests
	OpAttempts = "attempts" // charging login attempts
	OpRefund   = "refund"   // giving attempts back
	OpProbe    = "probe"    // asking whether it is back

	OutcomeAnswered = "answered" // by Redis
	OutcomeFailed   = "failed"   // asked, without an answer in time; counted locally
	OutcomeOpen     = "open"     // not asked: the breaker is open; counted locally
	OutcomeCached   = "cached"   // not asked: known to be over until the window ends
)

// Tune sets what a client needs to keep the budget: contexts end its waits, nothing
// is tried twice (a second try would charge twice), and a dial that fails fails at
// once. The timeouts bound what contexts do not reach.
func Tune(o *redis.UniversalOptions, budget time.Duration) {
	budget = bounded(budget)
	o.ContextTimeoutEnabled = true
	o.MaxRetries = -1
	o.DialerRetries = 1
	o.DialTimeout = max(budget, time.Second)
	o.ReadTimeout = max(budget, 100*time.Millisecond)
	o.WriteTimeout = o.ReadTimeout
}

// bounded is a budget within its bounds.
func bounded(b time.Duration) time.Duration {
	if b == 0 {
		b = DefaultBudget
	}
	return min(max(b, time.Millisecond), time.Second)
}

// Redis counts requests and login attempts for several nodes together. While it
// cannot be asked every node counts alone, with its share; see the package's
// documentation. It starts no goroutine and is safe for concurrent use.
type Redis struct {
	client    redis.UniversalClient
	pipeline  *redis.AutoPipeliner // nil: calls go one by one
	prefix    string
	key       []byte
	budget    time.Duration
	nodeCount func() int
	now       func() time.Time
	log       *slog.Logger
	called    func(op, outcome string, took time.Duration)
	breaker   *breaker
	time      func() string // the scripts' time in microseconds; empty: the server's

	store    *RedisStore
	limiter  *Limiter
	attempts *Attempts
}

// NewRedis returns limits that are counted by the server behind client, which the
// caller closes. It asks nothing of the server: the server may be away.
func NewRedis(client redis.UniversalClient, cfg RedisConfig) *Redis {
	r := &Redis{
		client: client, key: append([]byte(nil), cfg.Key...), budget: bounded(cfg.Budget),
		nodeCount: cfg.Nodes, now: cfg.Now, log: cfg.Log, called: cfg.Called,
		time: func() string { return "" },
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "kidoban"
	}
	r.prefix = "{" + strings.NewReplacer("{", "_", "}", "_").Replace(cfg.Prefix) + "}:"
	if r.nodeCount == nil {
		r.nodeCount = func() int { return 1 }
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.called == nil {
		r.called = func(string, string, time.Duration) {}
	}
	if waits(client) {
		r.log.Warn("the Redis client does not heed contexts: a server that does not answer will hold requests longer than the budget; set it up by limits.Tune", "budget", r.budget)
	}
	r.breaker = newBreaker(r.now, r.budget/2)
	if cfg.AutoPipeline {
		r.startPipeline()
	}
	r.store = &RedisStore{redis: r, memory: NewStore(cfg.LocalKeys, r.now)}
	r.limiter = New(r.store, r.now)
	r.attempts = NewAttempts(cfg.LocalKeys)
	r.attempts.redis = r
	return r
}

// waits tells whether client is known to ignore the deadlines of contexts.
func waits(client redis.UniversalClient) bool {
	switch c := client.(type) {
	case *redis.Client:
		return !c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return !c.Options().ContextTimeoutEnabled
	}
	return false
}

func (r *Redis) startPipeline() {
	client, ok := r.client.(interface {
		AsyncAutoPipelineWithOptions(*redis.AutoPipelineOptions) (*redis.AutoPipeliner, error)
	})
	err := errors.New("the client has none")
	if ok {
		// The deferred face, because only its waits heed contexts.
		options := redis.DefaultAutoPipelineOptions()
		options.MaxQueuedCommands = 10_000
		r.pipeline, err = client.AsyncAutoPipelineWithOptions(options)
	}
	if err != nil {
		r.pipeline = nil
		r.log.Warn("calls to Redis go one by one: no auto-pipeline", "error", err)
	}
}

// Close ends the auto-pipeline, if there is one. The client stays open.
func (r *Redis) Close() error {
	if r.pipeline == nil {
		return nil
	}
	return r.pipeline.Close()
}

// Limiter charges requests.
func (r *Redis) Limiter() *Limiter { return r.limiter }

// Attempts charges login attempts.
func (r *Redis) Attempts() *Attempts { return r.attempts }

// Store is what Limiter counts by, for the library's own limiter.
func (r *Redis) Store() *RedisStore { return r.store }

// Status tells how the connection stands.
func (r *Redis) Status() Status { return r.breaker.state() }

// nodes is how many nodes share what is counted locally.
func (r *Redis) nodes() int64 { return int64(min(max(r.nodeCount(), 1), maxNodes)) }

// name is the key of what is counted under purpose by subject.
func (r *Redis) name(purpose, rule, subject string) string {
	return r.prefix + purpose + ":" + rule + ":" + subject
}

// subject hides what a counter counts by.
func (r *Redis) subject(text string) string {
	var sum [sha256.Size]byte
	if len(r.key) == 0 {
		sum = sha256.Sum256([]byte(text))
	} else {
		h := hmac.New(sha256.New, r.key)
		h.Write([]byte(text))
		h.Sum(sum[:0])
	}
	return hex.EncodeToString(sum[:16])
}

// script is sent by its digest, and in full when the server does not know it.
type script struct{ text, digest string }

var (
	//go:embed take.lua
	takeText   string
	takeScript = newScript(takeText)
	//go:embed attempt.lua
	attemptText   string
	attemptScript = newScript(attemptText)
	//go:embed refund.lua
	refundText   string
	refundScript = newScript(refundText)
)

func newScript(text string) *script {
	return &script{text: text, digest: redis.NewScript(text).Hash()}
}

var errUnanswered = errors.New("the call ended without an answer")

// enter asks the breaker. Who gets a pass calls ask.
func (r *Redis) enter(op string) (pass, bool) {
	p, ok := r.breaker.enter()
	if !ok {
		r.called(op, OutcomeOpen, 0)
	}
	return p, ok
}

// ask runs s within the budget, whatever becomes of the request that ctx belongs
// to: a client that hangs up is charged all the same. It returns false when there
// was no answer in time.
func (r *Redis) ask(ctx context.Context, p pass, op string, s *script, keys []string, args []any) (answer []int64, ok bool) {
	began, err := r.now(), errUnanswered
	defer func() { r.leave(p, op, began, err) }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.budget)
	defer cancel()
	answer, err = r.run(ctx, "EVALSHA", s.digest, keys, args)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		answer, err = r.run(ctx, "EVAL", s.text, keys, args)
	}
	return answer, err == nil
}

// leave tells how a call went that began then.
func (r *Redis) leave(p pass, op string, began time.Time, err error) {
	took, outcome := r.now().Sub(began), OutcomeAnswered
	if err != nil {
		outcome = OutcomeFailed
	}
	r.called(op, outcome, took)
	if status, changed := r.breaker.leave(p, took, err); changed && status.Open {
		r.log.Warn("Redis is away: limits are counted on each node alone", "reason", status.Reason, "nodes", r.nodes())
	} else if changed {
		r.log.Info("Redis is back: limits are shared again")
	}
}

// Probe asks Redis whether it is back, if it was away and it is time to ask. A
// request that is charged does the same; Probe is for when there is none. Call it
// every second or so.
func (r *Redis) Probe(ctx context.Context) {
	if !r.breaker.state().Open {
		return
	}
	p, ok := r.breaker.enter()
	if !ok {
		return
	}
	began, err := r.now(), errUnanswered
	defer func() { r.leave(p, OpProbe, began, err) }()
	ctx, cancel := context.WithTimeout(ctx, r.budget)
	defer cancel()
	err = r.client.Time(ctx).Err()
}

func (r *Redis) run(ctx context.Context, command, what string, keys []string, args []any) ([]int64, error) {
	words := make([]any, 0, 3+len(keys)+len(args))
	words = append(words, command, what, len(keys))
	for _, k := range keys {
		words = append(words, k)
	}
	cmd := redis.NewCmd(ctx, append(words, args...)...)
	if r.pipeline != nil {
		// An answer that comes too late is nobody's: cmd is not looked at again.
		if err := r.pipeline.Submit(ctx, cmd).WaitContext(ctx); err != nil {
			return nil, err
		}
	} else if err := r.client.Process(ctx, cmd); err != nil {
		return nil, err
	}
	return cmd.Int64Slice()
}

func number(n int64) string { return strconv.FormatInt(n, 10) }
