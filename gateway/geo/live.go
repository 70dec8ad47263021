package geo

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stale is the age at which a file should have been replaced. Addresses change hands;
// publishers make new files every week or month.
const Stale = 90 * 24 * time.Hour

// Live is places whose files may be replaced on disk while they are in use: by a new
// file that is renamed over the old one, or written anew in its place. A lookup sees
// all of the old files or all of the new ones.
//
// A file that cannot be read when it is first named is left out: what it would tell
// is unknown. One that goes bad later, is cut short or becomes another kind of
// database changes nothing: what was read before stays in force until the file is
// good again, and Status tells meanwhile. After a restart there is nothing before.
//
// The zero value has no files. It is safe for concurrent use.
type Live struct {
	places atomic.Pointer[Places]

	mu    sync.Mutex // guards all below
	files []*file
}

// file is a file that is named, and what is known of it.
type file struct {
	path  string
	read  os.FileInfo // as it was when it was read last; nil: it was not there
	seen  os.FileInfo // as it was at the last look
	db    *database   // in force; nil: it was never good
	fault error       // of the last reading
}

// State is how a file is.
type State struct {
	Path   string
	Kind   string    // ASN or Country; empty: it was never good
	Built  time.Time // of what is in force, by its publisher; zero where Kind is empty
	Fault  error     // why what is on disk is not in force; nil: it is
	Broken bool      // lookups failed in what is in force
}

// Use has l look in files from now on, and tells which of them are not in force as
// they are on disk. Files that were in use before and did not change are not read again.
func (l *Live) Use(files []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.files
	l.files = nil
	var faults []error
	for _, path := range files {
		path = filepath.Clean(path)
		if slices.ContainsFunc(l.files, func(f *file) bool { return f.path == path }) {
			continue
		}
		f := &file{path: path}
		if i := slices.IndexFunc(before, func(f *file) bool { return f.path == path }); i >= 0 {
			f = before[i]
		}
		if info := stat(path); info == nil || f.read == nil || !same(info, f.read) {
			f.load(info)
		}
		if f.fault != nil {
			faults = append(faults, f.fault)
		}
		l.files = append(l.files, f)
	}
	l.swapLocked()
	return errors.Join(faults...)
}

// Look reads again what has changed on disk and was the same at two looks: a file that
// is being written is left until it is done. It tells what came into force, in words
// for a log, and what is wrong that was not before. Call it from time to time, some
// seconds apart.
func (l *Live) Look() (swapped []string, faults []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		info := stat(f.path)
		settled := same(info, f.seen)
		f.seen = info
		// What could not be opened may be open now, and look the same.
		shut := errors.As(f.fault, new(*fs.PathError)) && info != nil
		if !settled || same(info, f.read) && !shut {
			continue
		}
		before := f.fault
		f.load(info)
		switch {
		case f.fault == nil:
			swapped = append(swapped, fmt.Sprintf("%s of %s", filepath.Base(f.path), f.db.built.UTC().Format(time.DateOnly)))
		case before == nil || before.Error() != f.fault.Error():
			faults = append(faults, f.fault)
		}
	}
	if len(swapped) > 0 {
		l.swapLocked()
	}
	return swapped, faults
}

// load reads f, which is info on disk. What was read before stays where it is not good.
func (f *file) load(info os.FileInfo) {
	f.read, f.seen = info, info
	db, err := read(f.path)
	if err == nil && f.db != nil && db.kind != f.db.kind {
		err = fmt.Errorf("geoip file %s: it tells of %s now, and did of %s; restart the gate if that is meant", f.path, db.kind, f.db.kind)
	}
	if err == nil {
		f.db, f.fault = db, nil
		return
	}
	if f.fault = err; f.db != nil {
		f.fault = fmt.Errorf("%w; what was published on %s stays in force", err, f.db.built.UTC().Format(time.DateOnly))
	}
}

func (l *Live) swapLocked() {
	p := new(Places)
	for _, f := range l.files {
		if f.db != nil {
			p.add(f.db)
		}
	}
	l.places.Store(p)
}

// stat is nil if the file is not there, or not to be seen.
func stat(path string) os.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

// same reports whether a file was not touched between two looks at its name.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// Locate is [Places.Locate] of the files in force.
func (l *Live) Locate(a netip.Addr) (asn uint32, country string) {
	if p := l.places.Load(); p != nil {
		return p.Locate(a)
	}
	return 0, ""
}

// Status tells how each file is.
func (l *Live) Status() []State {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]State, len(l.files))
	for i, f := range l.files {
		out[i] = State{Path: f.path, Fault: f.fault}
		if f.db != nil {
			out[i].Kind, out[i].Built, out[i].Broken = f.db.kind, f.db.built, f.db.damaged.Load()
		}
	}
	return out
}
