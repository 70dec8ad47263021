package stream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// SpoolCounts say what reading a journal could not give back.
type SpoolCounts struct {
	Damaged int   // segments and frames that cannot be read
	Tail    int64 // bytes at the ends of segments that belong to no frame, as after a crash
	Unknown int   // events in a form that this program does not know
}

// ReadSpool passes the events in the journal of dir to each, in the order in which
// its node delivered them, each event once, until each returns an error, which
// ReadSpool returns. It only reads, so the node may run meanwhile: what it writes
// after the call began may be missing. A segment at a time is in memory.
//
// Unlike [Stream.Search] it leaves the keyed digests of passwords in the events:
// give them to detectors and to nobody else.
func ReadSpool(ctx context.Context, dir string, each func(detectors.Event) error) (c SpoolCounts, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return c, fmt.Errorf("reading the events' journal: %w", err)
	}
	var list []*segment
	for _, entry := range entries {
		digits, is := strings.CutSuffix(entry.Name(), segmentSuffix)
		number, err := strconv.ParseUint(digits, 10, 64)
		if !is || err != nil || !entry.Type().IsRegular() {
			continue
		}
		s := newSegment(number)
		s.path = filepath.Join(dir, entry.Name())
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *segment) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	given := make(senders)
	for _, s := range list {
		if err := ctx.Err(); err != nil {
			return c, context.Cause(ctx)
		}
		info, err := os.Stat(s.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was of age meanwhile
		}
		if err != nil || info.Size() > largestSpooled {
			c.Damaged++
			continue
		}
		b, err := s.bytes(info.Size())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			c.Damaged++
			continue
		}
		tail, damaged, err := eventFrames(b, nil, func(_ int64, m *events) error {
			for i, body := range m.bodies {
				seq := m.first + uint64(i)
				one := given.at(m.id)
				if one.has(seq) {
					continue
				}
				one.mark(seq, seq, time.Time{}, false)
				e, err := decodeEvent(body)
				if err != nil {
					c.Unknown++
					continue
				}
				e.Key = detectors.EventKey{Node: m.id.node, Incarnation: m.id.incarnation, Sequence: seq}
				if err := each(e); err != nil {
					return err
				}
			}
			return nil
		})
		c.Damaged += damaged
		c.Tail += tail
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// largestSpooled is the most bytes of a segment that is read: what memory may hold of
// events that wait for a disk, which then are one segment at most.
const largestSpooled = memoryBytes + largestSegment
