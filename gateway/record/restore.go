package record

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Source gives back what a [Mirror] got.
type Source interface {
	// Copies returns up to limit copies of a node's frames behind a sequence, in their order.
	Copies(ctx context.Context, node string, after uint64, limit int) ([]Copy, error)
}

// ErrNotMirrored means that a mirror has nothing of a node.
var ErrNotMirrored = errors.New("the mirror has no entries of this node")

// restoreBatch is how many frames are asked for at once, up to 16 MiB.
const restoreBatch = 256

// Restore makes the record of a node anew in dir, which is empty or missing, byte
// for byte as it was mirrored, and checks it; it appears in dir only when it is
// whole. When it is opened for writing it goes on behind a gap of 1,048,576
// sequences, since the entries that were lost have some of these, and says so in
// an entry of kind [Restored].
func Restore(ctx context.Context, from Source, node, dir string) (*Report, error) {
	if !validNode(node) {
		return nil, fmt.Errorf("restoring the record: %.80q is not the name of a node", node)
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("restoring the record: %s is not empty: give a new directory, or move away what is there", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("restoring the record: %w", err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("restoring the record: %w", err)
	}
	making, err := os.MkdirTemp(parent, ".restore-*")
	if err != nil {
		return nil, fmt.Errorf("restoring the record: %w", err)
	}
	defer os.RemoveAll(making)
	last, err := fetch(ctx, from, node, making)
	if err != nil {
		return nil, fmt.Errorf("restoring the record of %s: %w", node, err)
	}
	report, err := Check(ctx, making, nil, Structure)
	if err != nil {
		return nil, fmt.Errorf("restoring the record of %s: %w", node, err)
	}
	if !report.OK() {
		return report, fmt.Errorf("restoring the record of %s: what the mirror has does not fit together: %w", node, &report.Faults[0])
	}
	if err := markRestored(making, restoration{last, last + 1 + restoredGap}); err != nil {
		return nil, fmt.Errorf("restoring the record of %s: %w", node, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("restoring the record of %s: %w", node, err)
	}
	if err := errors.Join(os.Rename(making, dir), syncDir(parent)); err != nil {
		return nil, fmt.Errorf("restoring the record of %s: %w", node, err)
	}
	return report, nil
}

// fetch writes what the mirror has and returns the last sequence.
func fetch(ctx context.Context, from Source, node, dir string) (last uint64, err error) {
	var f *os.File
	var first uint64
	finish := func() error {
		if f == nil {
			return nil
		}
		err := errors.Join(f.Sync(), f.Close())
		f = nil
		return err
	}
	defer func() { err = errors.Join(err, finish()) }()
	for {
		copies, err := from.Copies(ctx, node, last, restoreBatch)
		if err != nil {
			return last, err
		}
		if len(copies) == 0 {
			if last == 0 {
				return 0, ErrNotMirrored
			}
			return last, nil
		}
		for _, c := range copies {
			if c.Sequence <= last || len(c.Frame) > frameMax || len(c.Header) > headerMax {
				return last, fmt.Errorf("what comes after entry %d is not possible", last)
			}
			if f == nil || c.First != first {
				if err := finish(); err != nil {
					return last, err
				}
				if f, err = os.OpenFile(segmentPath(dir, c.First), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
					return last, err
				}
				if first = c.First; first == 0 {
					return last, errors.New("a segment has no first entry")
				}
				if _, err := f.Write(c.Header); err != nil {
					return last, err
				}
			}
			if _, err := f.Write(c.Frame); err != nil {
				return last, err
			}
			last = c.Sequence
		}
	}
}
