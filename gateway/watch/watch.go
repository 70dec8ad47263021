// Package watch tells when files that people edit have changed, and keeps the last
// good version of each.
//
// A [Watcher] looks at the content of rule, policy and preset files. It wakes up by
// the system's notices of changes (fsnotify) and, because these get lost (network
// file systems, links to elsewhere, too many watches), every two seconds besides.
// It sees an editor's new file and rename, a file that is truncated and written
// anew, the ..data link that Kubernetes swaps, and folders that go and come back.
// A change counts when the content is different and was the same twice, 200 ms
// apart: half a file is not a change.
//
// A [Keeper] keeps on disk the latest version of each file that was good.
package watch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	maxFile     = 1 << 20
	maxFiles    = 2000
	maxBytes    = 64 << 20 // of all files
	maxEntries  = 10_000   // of a folder that are looked at
	pollEvery   = 2 * time.Second
	settleAfter = 200 * time.Millisecond
	settleMost  = 10 * time.Second // a change that is not done by then counts all the same
)

// Options set up a [Watcher]. The zero value is a good one.
type Options struct {
	Poll   time.Duration          // how often to look without a notice; 0: 2 s
	Settle time.Duration          // for how long the content must stay the same; 0: 200 ms
	Match  func(name string) bool // which files of a folder count, by base name; nil: all
	Error  func(error)            // told, once while it lasts, what cannot be watched or is left out; nil: nobody
}

// Watcher watches files and folders.
type Watcher struct {
	paths   []string
	changed func()
	options Options

	last    print
	told    []string // errors of the last look
	watched map[string]os.FileInfo
	notices *fsnotify.Watcher
}

// New watches paths: files, and folders of which every file counts but those whose
// name begins with a dot; folders in them do not. A path that does not exist counts
// when it comes into being. What changes after New returned is told when Run runs,
// so call New before reading the files. Changed is called by Run, one call at a
// time, and reads the files anew; calls for changes that happen meanwhile follow it.
//
// A file of more than 1 MiB, and what is beyond 2,000 files or 64 MiB together, is
// not watched; Options.Error is told.
func New(paths []string, changed func(), o Options) *Watcher {
	if o.Poll <= 0 {
		o.Poll = pollEvery
	}
	if o.Settle <= 0 {
		o.Settle = settleAfter
	}
	if o.Error == nil {
		o.Error = func(error) {}
	}
	w := &Watcher{changed: changed, options: o, watched: map[string]os.FileInfo{}}
	for _, p := range paths {
		w.paths = append(w.paths, filepath.Clean(p))
	}
	w.last = w.look()
	return w
}

// Run watches until ctx ends. Call it once.
func (w *Watcher) Run(ctx context.Context) error {
	var events chan fsnotify.Event
	var errs chan error
	if notices, err := newNotices(); err != nil {
		w.options.Error(fmt.Errorf("the system gives no notice of changed files; they are looked at every %v: %w", w.options.Poll, err))
	} else {
		defer notices.Close()
		w.notices, events, errs = notices, notices.Events, notices.Errors
	}
	poll := time.NewTicker(w.options.Poll)
	defer poll.Stop()
	settle := time.NewTimer(0)
	if !settle.Stop() {
		<-settle.C
	}
	defer settle.Stop()

	var pending print
	var since time.Time // of the first look that differed; zero: nothing is pending
	look := func(now time.Time) {
		w.watch()
		switch found := w.look(); {
		case found == w.last:
			since = time.Time{}
		case since.IsZero():
			pending, since = found, now
			settle.Reset(w.options.Settle)
		case found == pending || now.Sub(since) >= max(settleMost, 10*w.options.Settle):
			w.last, since = found, time.Time{}
			w.changed()
		default:
			pending = found
			settle.Reset(w.options.Settle)
		}
	}
	look(time.Now())
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-settle.C:
			if !since.IsZero() {
				look(now)
			}
		case now := <-poll.C:
			if since.IsZero() {
				look(now)
			}
		case _, ok := <-events:
			if !ok {
				events = nil
			} else if since.IsZero() {
				look(time.Now())
			}
		case _, ok := <-errs: // notices were lost, as when too many came: look
			if !ok {
				errs = nil
			} else if since.IsZero() {
				look(time.Now())
			}
		}
	}
}

var newNotices = fsnotify.NewWatcher

// watch asks for notices of each folder, and again of one that was made anew.
func (w *Watcher) watch() {
	if w.notices == nil {
		return
	}
	for _, path := range w.paths {
		dir := path
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			dir = filepath.Dir(path)
			info, err = os.Stat(dir)
		}
		if err != nil {
			continue // looked at every poll until it is there
		}
		if was := w.watched[dir]; was != nil && os.SameFile(was, info) && slices.Contains(w.notices.WatchList(), dir) {
			continue
		}
		_ = w.notices.Remove(dir) // of the folder that was there before
		if err := w.notices.Add(dir); err == nil {
			w.watched[dir] = info
		}
	}
}

// print is the fingerprint of all that is watched.
type print [sha256.Size]byte

// look reads what is watched and tells what is left out that was not before.
func (w *Watcher) look() print {
	sum := sha256.New()
	files, left := 0, int64(maxBytes)
	var faults []error
	read := func(path string) {
		if files++; files > maxFiles {
			faults = append(faults, fmt.Errorf("%s: is not watched: there are more than %d files", path, maxFiles))
			return
		}
		content, err := readFile(path, min(maxFile, left))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(sum, "%q none\n", path)
			return
		case err != nil:
			faults = append(faults, fmt.Errorf("%s: is not watched: %w", path, err))
			fmt.Fprintf(sum, "%q unreadable\n", path)
			return
		}
		left -= int64(len(content))
		fmt.Fprintf(sum, "%q %x\n", path, sha256.Sum256(content))
	}
	for _, path := range w.paths {
		info, err := os.Stat(path)
		if err != nil || !info.IsDir() {
			read(path)
			continue
		}
		names, err := list(path)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: is not watched: %w", path, err))
			fmt.Fprintf(sum, "%q unreadable\n", path)
			continue
		}
		for _, name := range names {
			if strings.HasPrefix(name, ".") || w.options.Match != nil && !w.options.Match(name) {
				continue
			}
			file := filepath.Join(path, name)
			if info, err := os.Stat(file); err == nil && info.IsDir() {
				continue
			}
			read(file)
		}
	}
	var told []string
	for _, err := range faults[:min(len(faults), 20)] {
		if !slices.Contains(w.told, err.Error()) {
			w.options.Error(err)
		}
		told = append(told, err.Error())
	}
	w.told = told
	var p print
	sum.Sum(p[:0])
	return p
}

// list is the names in a folder, sorted, and no more of them than a folder of rules
// could sensibly have.
func list(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) == maxEntries {
		return nil, fmt.Errorf("the folder has %d entries or more", maxEntries)
	}
	slices.Sort(names)
	return names, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	// A pipe or device would block, or never end.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("it has %d bytes, and there is room for %d", info.Size(), limit)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("it has more than the %d bytes there is room for", limit)
	}
	return content, nil
}
