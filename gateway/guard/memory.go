package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/rules"
)

// Recall restores what detectors and rules knew: from a file that Remember wrote,
// and the events of the journal since. It is called once, when the rules are loaded
// and before the first request; a file that is not there is an empty past. Detectors
// are worth less without one, but they work: what cannot be recalled, or not before
// ctx ends, is told and left out.
func (c *Core) Recall(ctx context.Context, file string) {
	began := time.Now()
	if file != "" && os.Remove(unfinished(file)) == nil {
		c.Log.Info("a stop cut off the writing of what the detectors know; the version before is read")
	}
	since, err := c.restore(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Log.Warn("what the detectors knew cannot be read; they begin with the events of the journal", "error", err)
	}
	n := 0
	err = c.Stream.Replay(ctx, since, func(e detectors.Event) error {
		c.Detectors.Observe(e)
		c.Rules.Load().Observe(e)
		n++
		return nil
	})
	if err != nil {
		c.Log.Warn("the journal of events was not read to its end", "events", n, "error", err)
	}
	c.Log.Info("detectors and rules know the past", "events", n, "took", time.Since(began))
	if err := c.readFalls(ctx); err != nil {
		c.complain("how far rules fell", "error", err) // the next sweep looks again
	}
	c.Stream.Subscribe(c.Detectors.Observe)
	c.Stream.Subscribe(c.proves)
	c.Stream.Subscribe(func(e detectors.Event) { c.Rules.Load().Observe(e) })
}

// restore reads a file that Remember wrote and returns what it contains.
func (c *Core) restore(file string) (stream.Vector, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	header, err := c.Detectors.Restore(in)
	if err != nil {
		return nil, err
	}
	var since stream.Vector
	if err := json.Unmarshal(header, &since); err != nil {
		return nil, fmt.Errorf("%s: the vector: %w", file, err)
	}
	if _, err := c.Rules.Load().Restore(in); err != nil {
		// The detectors are as of the vector; what the rules counted before is gone.
		return since, err
	}
	return since, nil
}

// Remember writes to a file what detectors and rules know, and which events that
// contains. Events go on meanwhile.
func (c *Core) Remember(file string) (err error) {
	var (
		seen   *detectors.Frozen
		counts *rules.Frozen
		vector stream.Vector
	)
	c.Stream.Snapshot(func(v stream.Vector) {
		vector = v
		if seen, err = c.Detectors.Freeze(); err == nil {
			if counts, err = c.Rules.Load().Freeze(); err != nil {
				seen.Discard()
			}
		}
	})
	if err != nil {
		return err
	}
	defer seen.Discard()
	defer counts.Discard()
	header, err := json.Marshal(vector)
	if err != nil {
		return err
	}
	return replace(file, func(w io.Writer) error {
		return errors.Join(seen.Write(w, header), counts.Write(w, header))
	})
}

// unfinished is where file is written before it is all there.
func unfinished(file string) string { return file + ".new" }

// replace makes file what write writes, all or nothing.
func replace(file string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(unfinished(file), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
