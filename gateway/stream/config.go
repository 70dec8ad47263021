package stream

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// Config says what a stream needs. Node, Incarnation and Now are required.
type Config struct {
	// Node is the name of this node: 1 to 64 bytes of UTF-8 without control
	// characters. No two nodes have the same.
	Node string
	// Incarnation differs at each start of the process; the microseconds of the
	// start are good.
	Incarnation uint64
	// Now is the clock, with a monotonic reading if there is one, as time.Now has:
	// intervals are then right when the clock is set.
	Now func() time.Time
	// Log is told what operators must know; nil: nobody is.
	Log *slog.Logger

	// Redis carries events between nodes; nil: there is one node. It is a client of
	// the stream's own, which the caller closes: one of its connections always waits
	// for news. It must have ContextTimeoutEnabled, or a server that does not answer
	// would hold calls for many seconds.
	Redis redis.UniversalClient
	// Prefix begins the keys in Redis; default "{kidoban}", with the hash tag that
	// keeps them together in a cluster.
	Prefix string
	// Entries is how many entries Redis keeps of the stream, roughly; default 16,384:
	// 256 MiB at most. An entry holds one event or, under load, up to 16 KiB of them.
	Entries int64

	// Dir is where the journal is kept, by this process alone; empty: in memory.
	Dir string
	// JournalBytes bounds the journal; default 1 GiB, in memory 16 MiB. At least
	// 256 KiB.
	JournalBytes int64
	// Room reports whether the journal may take more of the disk. While it may not,
	// old events go for new ones, so that a flood does not take the room that others
	// need; nil: it always may.
	Room func() bool
	// JournalAge is how long events are kept, for they tell of people; default 30
	// days. They go in groups, an eighth later at most.
	JournalAge time.Duration

	// History is how far back a node wants events of senders it hears of for the
	// first time; default 1 h.
	History time.Duration
	// GiveUp is how long a missing event is asked for before it counts as lost;
	// default 30 s in which Redis answers.
	GiveUp time.Duration
	// ReadyWait bounds the time to Ready; default 10 s.
	ReadyWait time.Duration
}

// complete checks c and fills in what is not said.
func (c *Config) complete() error {
	if !validNode(c.Node) {
		return fmt.Errorf("stream: the node's name %q: want 1 to %d bytes of UTF-8 without control characters", c.Node, nodeBytes)
	}
	if c.Now == nil {
		return errors.New("stream: no clock: set Config.Now")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	switch r := c.Redis.(type) {
	case *redis.Client:
		if r == nil {
			c.Redis = nil
		} else if !r.Options().ContextTimeoutEnabled {
			return errors.New("stream: the Redis client ignores deadlines: set ContextTimeoutEnabled in its options")
		}
	case *redis.ClusterClient:
		if r == nil {
			c.Redis = nil
		} else if !r.Options().ContextTimeoutEnabled {
			return errors.New("stream: the Redis client ignores deadlines: set ContextTimeoutEnabled in its options")
		}
	}
	if c.Prefix == "" {
		c.Prefix = "{kidoban}"
	}
	set(&c.Entries, 1<<14)
	if c.Dir == "" {
		set(&c.JournalBytes, 16<<20)
	}
	set(&c.JournalBytes, 1<<30)
	if c.JournalBytes < 4*smallestSegment {
		return fmt.Errorf("stream: a journal of %d bytes: want at least %d", c.JournalBytes, 4*smallestSegment)
	}
	if c.Room == nil {
		c.Room = func() bool { return true }
	}
	set(&c.JournalAge, 30*24*time.Hour)
	set(&c.History, time.Hour)
	set(&c.GiveUp, 30*time.Second)
	set(&c.ReadyWait, 10*time.Second)
	return nil
}

func set[T int64 | time.Duration](v *T, standard T) {
	if *v <= 0 {
		*v = standard
	}
}

// New returns the stream of a node that is alone, with a journal in memory.
// incarnation differs at each start of a process; now is the stream's clock. The
// configuration must be in order, or it panics.
func New(node string, incarnation uint64, now func() time.Time) *Stream {
	s, err := Open(Config{Node: node, Incarnation: incarnation, Now: now})
	if err != nil {
		panic(err)
	}
	return s
}

// Open opens a node's stream. It reads the journal, and does not wait for Redis.
// Until Run it works alone: what is published is sent when Run runs. A disk that
// cannot be read or written is no error: Status and the log tell of it, and events
// are kept in memory. Errors are mistakes of the configuration.
func Open(c Config) (*Stream, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	var link transport
	if c.Redis != nil {
		link = &redisLink{client: c.Redis, keys: [logs]string{c.Prefix + ":events", c.Prefix + ":repair"}, lengths: [logs]int64{c.Entries, repairEntries}}
	}
	return open(c, link, newFile)
}

func open(c Config, link transport, newFile func(string) (file, error)) (*Stream, error) {
	now := c.Now()
	s := &Stream{
		Config: c, self: senderID{c.Node, c.Incarnation}, link: link,
		peers: make(map[string]*peer), replied: make(map[wantKey]time.Time),
		wake: make(chan struct{}, 1), ready: make(chan struct{}), closing: make(chan struct{}),
	}
	s.journal = &journal{
		dir: c.Dir, self: s.self, max: c.JournalBytes, age: c.JournalAge, log: c.Log,
		newFile: newFile, segmentMax: min(max(c.JournalBytes/64, smallestSegment), largestSegment), room: c.Room,
		begin: s.beginning, holds: s.unsentIn, dropped: s.droppedSegment,
	}
	if c.Dir != "" {
		s.journal.dir = filepath.Clean(c.Dir)
	}
	r := s.journal.open(now)
	if r.cut > 0 || r.damaged > 0 {
		c.Log.Warn("the events' journal was repaired", "dir", c.Dir, "bytes_cut", r.cut, "frames_skipped", r.damaged)
	}
	if r.senders[s.self] != nil {
		return nil, fmt.Errorf("stream: incarnation %d of node %s is in the journal %s already: each start needs a new one", c.Incarnation, c.Node, c.Dir)
	}
	s.counts.cut, s.counts.damaged = r.cut, r.damaged
	s.all, s.read = r.senders, r.mark.read
	for id, one := range s.all {
		for i := range one.gaps {
			one.gaps[i].noticed = now
		}
		if sent, unfinished := r.mark.sent[id.incarnation]; id.node == c.Node && unfinished && sent < one.through && link != nil {
			s.sent.older = append(s.sent.older, &life{incarnation: id.incarnation, sent: sent, top: sent, through: one.through})
		}
	}
	slices.SortFunc(s.sent.older, func(a, b *life) int { return cmp.Compare(a.incarnation, b.incarnation) })
	s.sent.own = &life{incarnation: c.Incarnation}
	s.all.at(s.self).last = now
	s.hints.pending = make(map[hintKey]uint64)
	s.hints.arrived = make(map[hintKey]uint64)
	s.hints.news = make(chan struct{}, 1)
	if link == nil {
		close(s.ready)
		s.health.ready = true
	} else {
		err := errors.New("not connected yet")
		s.health.send, s.health.receive, s.health.since = err, err, now
		s.health.nodes = s.nodesOf(now)
	}
	s.journal.prepare(now)
	return s, nil
}
