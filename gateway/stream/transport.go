package stream

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// The logs that nodes share.
const (
	eventLog  = iota // events, beats, announcements
	repairLog        // requests for repair, and their answers
	logs
)

// repairEntries is how many entries Redis keeps of the log of repairs.
const repairEntries = 4096

// kept is how long Redis keeps the logs after their last entry, for they tell of
// people.
var kept = [logs]time.Duration{24 * time.Hour, time.Hour}

// position is where an entry is in a log: the ID that Redis gives it, the time of
// its clock in milliseconds and a number within.
type position struct{ ms, seq uint64 }

func (p position) before(q position) bool {
	return p.ms < q.ms || p.ms == q.ms && p.seq < q.seq
}

func (p position) String() string {
	return strconv.FormatUint(p.ms, 10) + "-" + strconv.FormatUint(p.seq, 10)
}

func parsePosition(text string) (p position, err error) {
	ms, seq, found := strings.Cut(text, "-")
	if !found {
		return p, errors.New("a stream ID without a dash")
	}
	if p.ms, err = strconv.ParseUint(ms, 10, 64); err != nil {
		return p, err
	}
	p.seq, err = strconv.ParseUint(seq, 10, 64)
	return p, err
}

// outgoing is an envelope for a log.
type outgoing struct {
	log     int
	payload []byte
}

// incoming is an envelope from a log.
type incoming struct {
	log     int
	at      position
	payload []byte
}

// place is an entry of a log.
type place struct {
	log int
	at  position
}

// transport is logs that nodes share, and that may lose entries: at their old end
// always, at their new end when a server fails.
type transport interface {
	// append adds envelopes in order, and returns where those went that are known
	// to be in: a prefix of the batch when err is not nil.
	append(ctx context.Context, batch []outgoing) (at []position, err error)
	// read returns at most most entries of each log that come after, in order, and
	// waits for the first for at most wait.
	read(ctx context.Context, after [logs]position, most int, wait time.Duration) ([]incoming, error)
	// probe returns the server's clock, and which of the places hold an entry.
	probe(ctx context.Context, places []place) (clock time.Time, held []bool, err error)
}

// redisLink is the transport over Redis streams.
type redisLink struct {
	client  redis.UniversalClient
	keys    [logs]string
	lengths [logs]int64
}

// field is the one field of an entry.
const field = "e"

func (l *redisLink) append(ctx context.Context, batch []outgoing) ([]position, error) {
	pipe := l.client.Pipeline()
	added := make([]*redis.StringCmd, len(batch))
	var used [logs]bool
	for i, m := range batch {
		used[m.log] = true
		added[i] = pipe.XAdd(ctx, &redis.XAddArgs{Stream: l.keys[m.log], MaxLen: l.lengths[m.log], Approx: true, Values: []any{field, m.payload}})
	}
	var expiries []*redis.BoolCmd
	for log, key := range l.keys {
		if used[log] {
			expiries = append(expiries, pipe.Expire(ctx, key, kept[log]))
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	at := make([]position, 0, len(batch))
	for _, cmd := range added {
		id, err := cmd.Result()
		if err != nil {
			return at, err
		}
		p, err := parsePosition(id)
		if err != nil {
			return at, err
		}
		at = append(at, p)
	}
	for _, cmd := range expiries {
		if err := cmd.Err(); err != nil {
			return at, err
		}
	}
	return at, nil
}

func (l *redisLink) read(ctx context.Context, after [logs]position, most int, wait time.Duration) ([]incoming, error) {
	args := &redis.XReadArgs{Count: int64(most), Block: wait}
	if wait <= 0 {
		args.Block = -1
	}
	args.Streams = append(args.Streams, l.keys[:]...)
	for _, p := range after {
		args.Streams = append(args.Streams, p.String())
	}
	streams, err := l.client.XRead(ctx, args).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var in []incoming
	for log, key := range l.keys {
		for _, stream := range streams {
			if stream.Stream != key {
				continue
			}
			for _, m := range stream.Messages {
				at, err := parsePosition(m.ID)
				if err != nil {
					return nil, err
				}
				payload, _ := m.Values[field].(string)
				in = append(in, incoming{log, at, []byte(payload)})
			}
		}
	}
	return in, nil
}

func (l *redisLink) probe(ctx context.Context, places []place) (time.Time, []bool, error) {
	pipe := l.client.Pipeline()
	clock := pipe.Time(ctx)
	found := make([]*redis.XMessageSliceCmd, len(places))
	for i, p := range places {
		found[i] = pipe.XRangeN(ctx, l.keys[p.log], p.at.String(), p.at.String(), 1)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return time.Time{}, nil, err
	}
	held := make([]bool, len(places))
	for i, cmd := range found {
		held[i] = len(cmd.Val()) > 0
	}
	return clock.Val(), held, nil
}
