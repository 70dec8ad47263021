package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	tornMax   = 1 << 20 // bytes that are kept of a torn end
	tornFiles = 8       // torn ends that are kept
)

// Cut says what was cut off at the end of a record. It is the body of an entry of
// kind [Recovered].
type Cut struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Kept   string `json:"kept,omitempty"` // the file that has them, at most 1 MiB; empty: they could not be kept
	Why    string `json:"why"`
}

// open finds where the record ends and makes that good. It may be called once.
func (l *Log) open() error {
	w := l.writer
	if err := removeUnfinished(l.dir); err != nil {
		return err
	}
	list, err := segments(l.dir)
	if err != nil {
		return err
	}
	for _, s := range list {
		info, err := os.Stat(s.path)
		if err != nil {
			return fmt.Errorf("opening the record: %w", err)
		}
		l.bytes += info.Size()
	}
	l.files = len(list)
	if len(list) > 0 {
		last := list[len(list)-1]
		t, err := findTail(last)
		if err != nil {
			return err
		}
		if t.header.Node != l.cfg.Node {
			return fmt.Errorf("opening the record: %s has the entries of node %s and this is node %s: name the node as before, or give it a directory of its own", l.dir, t.header.Node, l.cfg.Node)
		}
		if t.fault != nil {
			if !t.torn {
				return fmt.Errorf("opening the record: %w. A crash does not leave that: the file was changed, or the disk is bad. See `kidoban record fsck %s`, and restore the record from a copy", t.fault, l.dir)
			}
			cut, err := cutTail(last, t)
			if err != nil {
				return err
			}
			l.bytes -= cut.Bytes
			l.cfg.Log.Warn("the record ended within an entry, as after a crash: it was cut there", "file", cut.File, "offset", cut.Offset, "bytes", cut.Bytes, "kept", cut.Kept)
			if err := w.owe(Recovered, cut); err != nil {
				return err
			}
		} else if info, err := os.Stat(tornPath(last, t.end)); err == nil {
			// Nothing was written behind a cut: the start that made it was cut off too.
			kept := filepath.Base(tornPath(last, t.end))
			if err := w.owe(Recovered, Cut{File: filepath.Base(last.path), Offset: t.end, Bytes: info.Size(), Kept: kept, Why: "an earlier start cut it off, and stopped before it said so"}); err != nil {
				return err
			}
		}
		if w.file, err = l.cfg.disk.open(last.path); err != nil {
			return fmt.Errorf("opening the record: %w", err)
		}
		// What was not acknowledged may be in the cache only.
		if err := w.file.Sync(); err != nil {
			return fmt.Errorf("opening the record: %w", errors.Join(err, w.file.Close()))
		}
		w.header, w.chain = t.raw, t.chain
		l.durable = position{last: t.next - 1, segment: last.first, offset: t.end}
	}
	if err := l.openRestored(); err != nil {
		return err
	}
	l.takeReserve()
	return nil
}

// owe puts an entry of the record's own in front of all others.
func (w *writer) owe(kind string, body any) error {
	it, err := w.log.item(Draft{Kind: kind, Body: body})
	if err == nil {
		w.owed = append(w.owed, it)
	}
	return err
}

// tail is how a segment ends.
type tail struct {
	header SegmentHeader
	raw    []byte // the header's bytes
	chain  chain
	next   uint64 // sequence of the next entry
	end    int64  // behind the last whole entry
	size   int64  // of the file
	fault  *Fault // what is at end; nil: the end of the file
	torn   bool   // a crash may have left that
	last   bool   // nothing was written after it
}

// findTail reads a segment up to its end, or to what does not fit.
func findTail(s segmentFile) (*tail, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	sc, closer, err := openSegment(s, info.Size())
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w. Segments are made whole, so the file was changed, or the disk is bad. See `kidoban record fsck %s`, and restore the record from a copy", err, filepath.Dir(s.path))
	}
	defer closer.Close()
	t := &tail{header: sc.header, raw: sc.raw, chain: newChain(sc.raw), next: sc.next, end: sc.offset, size: info.Size()}
	for {
		f, _, err := sc.scan()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			if !errors.As(err, &t.fault) {
				return nil, err
			}
			break
		}
		t.chain.add(LeafHash(f.leaf))
		t.next, t.end = sc.next, sc.offset
	}
	t.torn, t.last, err = tornTail(f, t.size, t.fault)
	return t, err
}

// cutTail cuts a segment off behind its last whole entry, and keeps what was there.
func cutTail(s segmentFile, t *tail) (Cut, error) {
	c := Cut{File: filepath.Base(s.path), Offset: t.end, Bytes: t.size - t.end, Why: t.fault.What}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return c, fmt.Errorf("cutting a torn end: %w", err)
	}
	defer f.Close()
	kept := tornPath(s, t.end)
	if err := keepTorn(kept, io.NewSectionReader(f, t.end, min(c.Bytes, tornMax))); err == nil {
		c.Kept = filepath.Base(kept)
	} // a full disk does not keep a gate from starting
	if err := errors.Join(f.Truncate(t.end), f.Sync()); err != nil {
		return c, fmt.Errorf("cutting a torn end: %w", err)
	}
	return c, nil
}

// tornPath is where the end of a segment is kept that was cut off at an offset.
func tornPath(s segmentFile, offset int64) string { return fmt.Sprintf("%s.%d.torn", s.path, offset) }

func keepTorn(path string, r io.Reader) (err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	var old []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".torn") {
			old = append(old, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.SortFunc(old, func(a, b string) int { return modified(a).Compare(modified(b)) })
	for len(old) >= tornFiles {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// modified is when a file was written; long ago if that is not known.
func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// removeUnfinished removes segments that were being made.
func removeUnfinished(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("opening the record: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), segmentName+".new") {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("opening the record: %w", err)
			}
		}
	}
	return nil
}

// restoredGap is how many sequences are left out after a restore: the entries that
// were written after the last one that the mirror got have some of them, and none
// of these is used again.
const restoredGap = 1 << 20

// MarkRestored says that the record in dir is an older copy of one that went on, as
// from a backup: whoever opens it goes on behind a gap of 1,048,576 sequences, as
// after [Restore]. A directory without entries is left as it is.
func MarkRestored(dir string) error {
	last, err := Last(dir)
	if err == nil && last > 0 {
		err = markRestored(dir, restoration{last, last + 1 + restoredGap})
	}
	if err != nil {
		return fmt.Errorf("marking the record in %s as restored: %w", dir, err)
	}
	return nil
}

func markRestored(dir string, r restoration) error {
	mark, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(restoredPath(dir), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(mark)
	return errors.Join(err, f.Sync(), f.Close(), syncDir(dir))
}

// restoration is what Restore leaves in the directory for the next Open, and the
// body of the entry of kind [Restored].
type restoration struct {
	Last uint64 `json:"last"` // the last entry that was there
	Next uint64 `json:"next"` // the first one after the gap
}

func restoredPath(dir string) string { return filepath.Join(dir, "restored.json") }

// openRestored begins a segment behind a gap if the record was restored.
func (l *Log) openRestored() error {
	data, err := os.ReadFile(restoredPath(l.dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the record: %w", err)
	}
	var r restoration
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("opening the record: %s is torn: restore the record again", restoredPath(l.dir))
	}
	w := l.writer
	switch at := l.durable.last; {
	case at >= r.Next: // a start before this one wrote the entry
		return os.Remove(restoredPath(l.dir))
	case at == r.Next-1: // a start before this one began the segment
	case at <= r.Last: // less: a bad end was cut off since
		r.Last = at
		w.skip = r.Next - r.Last - 1
		if err := w.rotate(); err != nil {
			return fmt.Errorf("opening the record after a restore: %w", err)
		}
	default:
		return fmt.Errorf("opening the record: it was restored up to entry %d and ends with %d: restore it again", r.Last, at)
	}
	recovered := w.owed
	w.owed = nil
	if err := w.owe(Restored, r); err != nil {
		return err
	}
	w.owed = append(w.owed, recovered...) // the segment begins with what explains the gap
	return nil
}
