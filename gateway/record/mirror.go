package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// Copy is a frame on its way to a mirror or back.
type Copy struct {
	Sequence uint64
	First    uint64 // of the segment that the frame is in
	Header   []byte // of that segment, the bytes of a [SegmentHeader]
	Frame    []byte // at most 66 KiB
}

// Mirror keeps copies of frames elsewhere. It need not be safe for concurrent use.
type Mirror interface {
	// Last is the highest sequence that the mirror has of a node; 0: it has none.
	Last(ctx context.Context, node string) (uint64, error)
	// Store keeps copies, in their order, all or none. It is durable on return. Copies
	// that are there already are left; if they differ in more than a slot the error
	// is [ErrFork].
	Store(ctx context.Context, node string, copies []Copy) error
}

// ErrFork means that a mirror has other entries under the same ids. Then the record
// in the directory is not the one that was mirrored: restore it from the mirror, or
// give the node another name.
var ErrFork = errors.New("the mirror has another history of this node: restore the record from it, or give the node another name")

const (
	mirrorBatch   = 256     // frames
	mirrorFit     = 1 << 20 // bytes
	mirrorWait    = 30 * time.Second
	mirrorPause   = time.Second // after a failure, doubled each time
	mirrorPauseTo = 30 * time.Second
)

// Lag is how far a mirror is behind.
type Lag struct {
	Last    uint64        `json:"last"`           // the highest sequence that is there
	Entries uint64        `json:"entries"`        // how many are not
	Age     time.Duration `json:"age"`            // of the oldest of these that is known, in nanoseconds
	Since   time.Time     `json:"since,omitzero"` // copying fails since then; zero: it does not
	Why     string        `json:"why,omitempty"`  // of that
}

// copied is what is known about the mirror.
type copied struct {
	last   uint64
	oldest time.Time // of the first entry that is not there; zero: it was not read yet
	since  time.Time
	err    error
}

func (c copied) lag(last uint64, now time.Time) *Lag {
	lag := &Lag{Last: c.last}
	if last > c.last {
		lag.Entries = last - c.last
		if !c.oldest.IsZero() {
			lag.Age = max(0, now.Sub(c.oldest))
		}
	}
	if c.err != nil {
		lag.Since, lag.Why = c.since, c.err.Error()
	}
	return lag
}

// mirror copies what is durable until the log is closed. It reads the segments
// and so holds nobody up.
func (l *Log) mirror() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.wg.Go(func() {
		select {
		case <-l.stop:
		case <-ctx.Done():
		}
		cancel()
	})
	pause := mirrorPause
	var at cursor
	for {
		err := l.copyAll(ctx, &at)
		if ctx.Err() != nil {
			return
		}
		l.mirrorFailed(err)
		more, again := l.mirrored, (<-chan time.Time)(nil)
		if err == nil {
			pause = mirrorPause
		} else {
			// Nodes do not come back all at once.
			more, again, pause = nil, time.After(pause/2+rand.N(pause)), min(2*pause, mirrorPauseTo)
		}
		select {
		case <-more:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

func (l *Log) mirrorFailed(err error) {
	l.mu.Lock()
	before := l.copied.err
	l.copied.err = err
	if before == nil {
		l.copied.since = l.cfg.Now()
	}
	l.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		l.cfg.Log.Warn("the record is not mirrored", "dir", l.dir, "error", err)
	case err == nil && before != nil:
		l.cfg.Log.Info("the record is mirrored again", "dir", l.dir)
	}
}

// cursor is where copying goes on. Its zero value is not known.
type cursor struct {
	segment uint64 // its first sequence
	offset  int64
	last    uint64 // sequence before it
	batch   int64
}

// copyAll copies what the mirror does not have, up to what is durable.
func (l *Log) copyAll(ctx context.Context, c *cursor) error {
	last, asked := c.last, c.segment == 0
	if asked {
		asking, cancel := context.WithTimeout(ctx, mirrorWait)
		defer cancel()
		var err error
		if last, err = l.cfg.Mirror.Last(asking, l.cfg.Node); err != nil {
			return fmt.Errorf("asking the mirror: %w", err)
		}
		if at := l.position(); last > at.last {
			return fmt.Errorf("%w: it has entry %d and the record ends with %d", ErrFork, last, at.last)
		}
		l.copiedTo(last)
	}
	list := []segmentFile{{c.segment, segmentPath(l.dir, c.segment)}}
	if asked || c.segment != l.position().segment {
		var err error
		if list, err = segments(l.dir); err != nil {
			return err
		}
	}
	for i, s := range list {
		// The last one that is there is sent again: whether it is the same shows that
		// the mirror is about the same history.
		if s.first < c.segment || i+1 < len(list) && list[i+1].first <= last {
			continue
		}
		if err := l.copySegment(ctx, s, last, asked && last > 0, c); err != nil {
			*c = cursor{}
			return err
		}
		asked = false
	}
	return nil
}

func lost(last uint64) error {
	return fmt.Errorf("%w: it has entry %d, which is not here, as after a restore from an older backup", ErrFork, last)
}

func (l *Log) copiedTo(last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.copied.last, l.copied.oldest = last, time.Time{}
}

// copySegment copies the entries of a segment from last on, as far as they are
// durable when it gets there. With must, last has to be one of them: otherwise the
// mirror has entries that were lost here, and the segments after it do not fit.
func (l *Log) copySegment(ctx context.Context, s segmentFile, last uint64, must bool, c *cursor) error {
	at := l.position()
	if s.first > at.segment {
		return nil
	}
	limit := int64(-1)
	if s.first == at.segment {
		limit = at.offset
	}
	sc, closer, err := openSegment(s, limit)
	if err != nil {
		return err
	}
	defer closer.Close()
	if c.segment == s.first {
		if err := sc.resume(closer, c, limit); err != nil {
			return err
		}
	}
	var copies []Copy
	size := 0
	send := func() error {
		if len(copies) > 0 {
			sending, cancel := context.WithTimeout(ctx, mirrorWait)
			defer cancel()
			if err := l.cfg.Mirror.Store(sending, l.cfg.Node, copies); err != nil {
				return fmt.Errorf("copying to the mirror: %w", err)
			}
			l.copiedTo(max(last, copies[len(copies)-1].Sequence))
		}
		*c = cursor{s.first, sc.offset, sc.next - 1, sc.batch}
		copies, size = copies[:0], 0
		return nil
	}
	for {
		f, leaf, err := sc.scan()
		if errors.Is(err, io.EOF) {
			if must {
				return lost(last)
			}
			return send()
		}
		if err != nil {
			return err
		}
		if leaf.Sequence < last {
			continue
		}
		if must && leaf.Sequence != last {
			return lost(last)
		}
		must = false
		if len(copies) == 0 && leaf.Sequence > last {
			l.mu.Lock()
			l.copied.oldest = leaf.Time
			l.mu.Unlock()
		}
		copies = append(copies, Copy{leaf.Sequence, s.first, sc.raw, bytes.Clone(f.raw)})
		if size += len(f.raw); len(copies) >= mirrorBatch || size >= mirrorFit {
			if err := send(); err != nil {
				return err
			}
		}
	}
}
