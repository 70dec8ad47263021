package limits

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ulule/limiter/v3"
)

// RedisStore counts on Redis, for [limiter.Limiter] and for [Limiter], with the
// windows of [Store] and by the server's clock. It never returns an error because
// Redis is away: it counts locally then, with this node's share of the limit.
type RedisStore struct {
	redis  *Redis
	memory *Store // who is over, and everybody while Redis is away
}

var _ limiter.Store = (*RedisStore)(nil)

// Get charges key with one hit.
func (s *RedisStore) Get(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return s.Increment(ctx, key, 1, rate)
}

// Peek tells how key stands and changes nothing.
func (s *RedisStore) Peek(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return s.Increment(ctx, key, 0, rate)
}

// Increment charges key with count hits, or with none when fewer are left.
// Negative counts are an error, as in [Store.Increment].
func (s *RedisStore) Increment(ctx context.Context, key string, count int64, rate limiter.Rate) (limiter.Context, error) {
	if err := checkIncrement(count, rate); err != nil {
		return limiter.Context{}, err
	}
	hits := [1]hit{s.memory.hit("", key, count, rate)}
	s.take(ctx, hits[:])
	return hits[0].context(), nil
}

// Reset forgets key. The error says that Redis did not do so.
func (s *RedisStore) Reset(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	h := s.memory.hit("", key, 0, rate)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.redis.budget)
	defer cancel()
	if err := s.redis.client.Del(ctx, s.key(&h)).Err(); err != nil {
		return limiter.Context{}, fmt.Errorf("limits: resetting a counter on Redis: %w", err)
	}
	return s.memory.Reset(ctx, key, rate)
}

// key names the counter of h.
func (s *RedisStore) key(h *hit) string {
	return s.redis.name("limit", h.name+":"+time.Duration(h.period).String(), s.redis.subject(h.key))
}

// take charges hits as [Store.take] does. degraded says that they were counted
// locally.
func (s *RedisStore) take(ctx context.Context, hits []hit) (allowed, degraded bool) {
	allowed, known := s.memory.known(hits)
	if !allowed || known == len(hits) {
		s.redis.called(OpLimits, OutcomeCached, 0)
		return allowed, false
	}
	if allowed, err := s.ask(ctx, hits, len(hits)-known); err == nil {
		return allowed, false
	}
	nodes := s.redis.nodes()
	for i := range hits {
		hits[i].limit = ceilDiv(hits[i].limit, nodes)
	}
	return s.memory.take(hits), true
}

var errAway = errors.New("Redis was not asked or did not answer")

// ask charges those of hits on Redis that are not known to be over.
func (s *RedisStore) ask(ctx context.Context, hits []hit, n int) (allowed bool, err error) {
	p, ok := s.redis.enter(OpLimits)
	if !ok {
		return false, errAway
	}
	keys, args := make([]string, 0, n), make([]any, 1, 1+4*n)
	args[0] = s.redis.time()
	for i := range hits {
		h := &hits[i]
		if h.over {
			continue
		}
		shadow := "0"
		if h.shadow {
			shadow = "1"
		}
		keys = append(keys, s.key(h))
		// Within what the script's numbers hold exactly; more than the limit never passes.
		limit := min(h.limit, 1<<50)
		args = append(args, number(limit), number(min(h.period/1000, 1<<50)), number(min(h.count, limit+1)), shadow)
	}
	answer, ok := s.redis.ask(ctx, p, OpLimits, takeScript, keys, args)
	if !ok || len(answer) != 2+4*n {
		return false, errAway
	}
	now, there := s.redis.now().UnixNano(), answer[0]
	allowed = answer[1] == 1
	answer = answer[2:]
	for i := range hits {
		h := &hits[i]
		if h.over {
			continue
		}
		// By our clock: the two may differ.
		h.used, h.end = answer[0], now+min((answer[1]-there)*1000, h.period)
		h.over, h.taken = answer[2] == 1, answer[3] == 1
		answer = answer[4:]
		if h.over && h.used >= h.limit {
			s.memory.fill(h.id, h.limit, h.end)
		}
	}
	return allowed, nil
}

func ceilDiv(a, b int64) int64 { return a/b + min(a%b, 1) }
