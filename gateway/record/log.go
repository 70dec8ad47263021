package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnavailable means that an entry could not be made durable. What it was to
	// announce must not be done.
	ErrUnavailable = errors.New("the record cannot be written")
	// ErrClosed is an ErrUnavailable: the record was closed.
	ErrClosed = fmt.Errorf("%w: it was closed", ErrUnavailable)
	// ErrInUse means that another process writes the record.
	ErrInUse = errors.New("the record is in use")
)

// Config says how a record is written. Only Node and Keys must be given.
type Config struct {
	// Node is the name of this node, of letters, digits, dots, underscores and
	// hyphens. A directory has the entries of one node.
	Node string
	// Keys returns the wrapping keys, the current one first. It is called for each
	// group of entries and must be quick.
	Keys func() []Key
	// Now is the clock of entries, of the quota and of Status; nil is time.Now.
	Now func() time.Time
	// Log is told about trouble, never about what entries say; nil is silence.
	Log *slog.Logger
	// SegmentBytes is where a segment ends, passed by at most one call's entries;
	// 64 MiB if 0, at most 1 GiB.
	SegmentBytes int64
	// Interval is how often sums of denials become entries; 10 s if 0.
	Interval time.Duration
	// Quota is how many bytes an hour aggregated entries may take; 8 MiB if 0.
	Quota int64
	// Reserve is how many bytes of the disk are kept for waiting entries, in a file
	// of that size which is given up when the disk is full and taken again when
	// there is room for it twice; 16 MiB if 0, none if negative.
	Reserve int64
	// Mirror gets a copy of every entry; nil is none.
	Mirror Mirror

	disk disk // nil is the real one
}

const (
	defaultSegment  = 64 << 20
	maxSegment      = 1 << 30
	defaultInterval = 10 * time.Second
	defaultQuota    = 8 << 20
	defaultReserve  = 16 << 20

	queueMax = 1024    // calls that wait to be taken into a group; more wait in front
	groupMax = 512     // entries in a group
	groupFit = 4 << 20 // bytes in a group
)

// Draft is what a waiting entry is to say.
type Draft struct {
	Time   time.Time // of what happened; zero is now
	Kind   string    // see [Leaf]; kinds in "record.", [Abandoned] and [Settled] are the record's own
	Reason string
	Body   any // becomes JSON of at most BodyMax bytes; a json.RawMessage is taken as it is
}

const (
	// Acts is how the kinds of intents begin: entries that announce something which
	// is done only when they are durable. See [Log.Intents].
	Acts = "act."
	// Abandoned is the kind of an entry that says that an act did not happen.
	Abandoned = "act.abandoned"
	// Settled is the kind of an entry that says up to where the outcome of all acts
	// is known.
	Settled = "act.settled"
	// Recovered is the kind of an entry about an end that was cut off at start.
	Recovered = "record.recovered"
	// Restored is the kind of the first entry after a restore from the mirror.
	Restored = "record.restored"

	own = "record."
)

// Log is a record that is being written. It is safe for concurrent use.
type Log struct {
	cfg  Config
	dir  string
	lock *os.File

	queue   chan *request
	flushes chan chan error
	stop    chan struct{} // closed by Close
	done    chan struct{} // closed when everything has ended
	once    sync.Once
	sums    sums
	waiting atomic.Int64 // calls of Append under way

	mu      sync.Mutex // guards the fields below
	durable position
	bytes   int64 // of all segments
	files   int
	trouble trouble
	thin    bool   // the reserve is given up
	full    bool   // there is no room for denials
	copied  copied // what the mirror has

	mirrored chan struct{} // has one when there is more to mirror
	writer   *writer
	wg       sync.WaitGroup
}

// position is how far a record goes.
type position struct {
	last    uint64 // sequence
	segment uint64 // the first sequence of the last segment; 0: there is none
	offset  int64  // where that ends
}

// trouble is why nothing can be written.
type trouble struct {
	since time.Time
	err   error // nil: there is none
}

// request is a call that waits.
type request struct {
	items []item
	bytes int
	first uint64     // sequence of the first item, when done
	done  chan error // has room for one
}

type item struct {
	time         time.Time
	kind, reason string
	class        Class
	count        uint64
	body         []byte
}

// Open opens the record in dir, makes it if there is none, and starts to write.
// Until Close no other process can open it. It fails when the files do not fit
// together, and cuts off nothing but what a crash left unfinished.
func Open(dir string, cfg Config) (*Log, error) {
	l, err := newLog(dir, cfg)
	if err != nil {
		return nil, err
	}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, l.writer.close(), l.lock.Close())
	}
	l.wg.Go(l.writer.run)
	if cfg.Mirror != nil {
		l.wg.Go(l.mirror)
	}
	go func() {
		l.wg.Wait()
		close(l.done)
	}()
	return l, nil
}

func newLog(dir string, cfg Config) (*Log, error) {
	if !validNode(cfg.Node) {
		return nil, fmt.Errorf("opening the record: node %.80q, want 1 to %d letters, digits, dots, underscores and hyphens", cfg.Node, nameMax)
	}
	if cfg.Keys == nil || len(cfg.Keys()) == 0 {
		return nil, errors.New("opening the record: no key to seal with")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.disk == nil {
		cfg.disk = system{}
	}
	setDefault(&cfg.SegmentBytes, defaultSegment)
	setDefault(&cfg.Interval, defaultInterval)
	setDefault(&cfg.Quota, defaultQuota)
	setDefault(&cfg.Reserve, defaultReserve)
	if cfg.SegmentBytes < 0 || cfg.SegmentBytes > maxSegment || cfg.Interval < 0 || cfg.Quota < 0 {
		return nil, fmt.Errorf("opening the record: segments of %d bytes, an interval of %v and a quota of %d are not possible: want at most %d, and nothing below zero",
			cfg.SegmentBytes, cfg.Interval, cfg.Quota, int64(maxSegment))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the record's directory: %w", err)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return nil, fmt.Errorf("opening the record: this process may not write to the directory %s (%w): see whose it is, and whether the file system is mounted read-only", dir, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, dir: dir, lock: lock,
		queue: make(chan *request, queueMax), flushes: make(chan chan error),
		stop: make(chan struct{}), done: make(chan struct{}), mirrored: make(chan struct{}, 1),
	}
	l.sums.init(cfg.Quota, cfg.Now())
	l.writer = newWriter(l)
	return l, nil
}

func setDefault[T int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// Append writes a waiting entry and returns its id when it is durable. An error is
// either about the draft, or [ErrUnavailable], or the context's; after the
// context's the entry may have been written or not, and not if it had ended before.
func (l *Log) Append(ctx context.Context, d Draft) (ID, error) {
	it, err := l.prepare(d)
	if err != nil {
		return ID{}, err
	}
	first, err := l.write(ctx, []item{it})
	if err != nil {
		return ID{}, err
	}
	return ID{l.cfg.Node, first}, nil
}

// AppendMany writes up to 512 entries of up to 4 MiB together: when it returns all
// are durable, with ids one after the other, or none counts.
func (l *Log) AppendMany(ctx context.Context, drafts []Draft) ([]ID, error) {
	if len(drafts) == 0 {
		return nil, nil
	}
	if len(drafts) > groupMax {
		return nil, fmt.Errorf("appending to the record: %d entries at once, want at most %d", len(drafts), groupMax)
	}
	items := make([]item, 0, len(drafts))
	for i, d := range drafts {
		it, err := l.prepare(d)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		items = append(items, it)
	}
	first, err := l.write(ctx, items)
	if err != nil {
		return nil, err
	}
	ids := make([]ID, len(items))
	for i := range ids {
		ids[i] = ID{l.cfg.Node, first + uint64(i)}
	}
	return ids, nil
}

// Abandon says that the act which the entry id announced did not happen, and why.
func (l *Log) Abandon(ctx context.Context, id ID, why string) error {
	if id.Node != l.cfg.Node || id.Sequence == 0 {
		return fmt.Errorf("abandoning %v: it is not an entry of %s", id, l.cfg.Node)
	}
	it, err := l.item(Draft{Kind: Abandoned, Body: abandonment{id, why}})
	if err != nil {
		return err
	}
	_, err = l.write(ctx, []item{it})
	return err
}

type abandonment struct {
	Entry ID     `json:"entry"`
	Why   string `json:"why"`
}

func (l *Log) prepare(d Draft) (item, error) {
	if strings.HasPrefix(d.Kind, own) || d.Kind == Abandoned || d.Kind == Settled {
		return item{}, fmt.Errorf("appending to the record: kind %s is the record's own", d.Kind)
	}
	return l.item(d)
}

// item checks everything that could go wrong later.
func (l *Log) item(d Draft) (item, error) {
	body, ok := d.Body.(json.RawMessage)
	if !ok {
		var err error
		if body, err = json.Marshal(d.Body); err != nil {
			return item{}, fmt.Errorf("appending %s to the record: %w", d.Kind, err)
		}
	} else if !json.Valid(body) {
		return item{}, fmt.Errorf("appending %s to the record: the body is not JSON", d.Kind)
	}
	if len(body) > BodyMax {
		return item{}, fmt.Errorf("appending %s to the record: the body has %d bytes, want at most %d", d.Kind, len(body), BodyMax)
	}
	if d.Time.IsZero() {
		d.Time = l.cfg.Now()
	}
	it := item{time: d.Time, kind: d.Kind, reason: d.Reason, class: Waiting, count: 1, body: body}
	if err := it.leaf(l.cfg.Node, 1).check(); err != nil {
		return item{}, fmt.Errorf("appending to the record: %w", err)
	}
	return it, nil
}

func (it item) leaf(node string, sequence uint64) Leaf {
	return Leaf{Node: node, Sequence: sequence, Time: it.time, Class: it.class, Kind: it.kind, Reason: it.reason, Count: it.count}
}

// size is how many bytes of a file it takes.
func (it item) size(node string) int {
	return headSize + leafMin - 2 + len(node) + len(it.kind) + len(it.reason) + len(it.body) + tagSize + slotSize
}

// write waits until items are durable and returns the sequence of the first.
func (l *Log) write(ctx context.Context, items []item) (uint64, error) {
	r := &request{items: items, done: make(chan error, 1)}
	for _, it := range items {
		r.bytes += it.size(l.cfg.Node)
	}
	if r.bytes > groupFit {
		return 0, fmt.Errorf("appending to the record: %d bytes at once, want at most %d", r.bytes, groupFit)
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	select {
	case <-l.stop:
		return 0, ErrClosed
	default:
	}
	if ctx.Err() != nil { // then nothing is written
		return 0, fmt.Errorf("waiting for the record: %w", context.Cause(ctx))
	}
	select {
	case l.queue <- r:
	case <-l.stop:
		return 0, ErrClosed
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the record: %w", context.Cause(ctx))
	}
	select {
	case err := <-r.done:
		return r.first, err
	case <-l.done:
	case <-ctx.Done():
	}
	select { // the answer may have come meanwhile
	case err := <-r.done:
		return r.first, err
	default:
	}
	if ctx.Err() != nil {
		return 0, fmt.Errorf("waiting for the record: %w", context.Cause(ctx))
	}
	return 0, ErrClosed
}

// Flush makes entries of the denials that were counted, as far as the quota goes,
// and returns when they are durable.
func (l *Log) Flush(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case l.flushes <- answer:
	case <-l.stop:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-answer:
		return err
	case <-l.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close writes what waits and what was counted, whatever the quota says, and gives
// the directory back. It returns an error if something that was counted is lost.
func (l *Log) Close() error {
	var err error
	l.once.Do(func() {
		close(l.stop)
		<-l.done
		err = l.writer.close()
		if n := l.sums.total(); n > 0 {
			err = errors.Join(err, fmt.Errorf("closing the record: %d denials were counted and could not be written", n))
		}
		err = errors.Join(err, l.lock.Close())
	})
	return err
}

// Status is the state of a record.
type Status struct {
	Last       ID        `json:"last,omitzero"`    // the last durable entry
	Queue      int64     `json:"queue"`            // calls that wait for the disk
	Counted    uint64    `json:"counted"`          // denials that are in no entry yet
	Segments   int       `json:"segments"`         // files
	Bytes      int64     `json:"bytes"`            // of all segments
	Free       int64     `json:"free"`             // bytes of the disk; -1: unknown
	Full       bool      `json:"full"`             // the disk has no room: denials are counted and not written, waiting entries have the reserve
	ReserveOut bool      `json:"reserve_out"`      // the reserve is not there: the disk was full
	Since      time.Time `json:"since,omitzero"`   // nothing can be written since then; zero: it can
	Why        string    `json:"why,omitempty"`    // of that
	Mirror     *Lag      `json:"mirror,omitempty"` // nil: none
}

// Status tells how things are. It asks nobody but the file system.
func (l *Log) Status() Status {
	free, err := l.cfg.disk.free(l.dir)
	if err != nil {
		free = -1
	}
	counted := l.sums.total()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		Queue: l.waiting.Load(), Counted: counted, Segments: l.files, Bytes: l.bytes, Free: free, Full: l.full, ReserveOut: l.thin,
	}
	if l.durable.last > 0 {
		s.Last = ID{l.cfg.Node, l.durable.last}
	}
	if l.trouble.err != nil {
		s.Since, s.Why = l.trouble.since, l.trouble.err.Error()
	}
	if l.cfg.Mirror != nil {
		s.Mirror = l.copied.lag(l.durable.last, l.cfg.Now())
	}
	return s
}

// Last is the sequence of the last durable entry; 0: there is none.
func (l *Log) Last() uint64 { return l.position().last }

func (l *Log) position() position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable
}

func (l *Log) reservePath() string { return filepath.Join(l.dir, "reserve") }
