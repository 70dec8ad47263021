package breached

import (
	"context"
	"crypto/sha1"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// looking is how often the file is looked at.
const looking = 10 * time.Second

// Passwords is what a gate knows of breached passwords: a file, a range API, both or
// neither. It is safe for concurrent use.
type Passwords struct {
	log *slog.Logger
	now func() time.Time

	filter atomic.Pointer[Filter] // nil: no file is named, or none was ever good
	ranges atomic.Pointer[Ranges] // nil: no server is asked

	mu      sync.Mutex // guards all below
	file    string     // empty: none
	address string     // of the server; empty: none
	loaded  look       // what was read, or could not be
	seen    look       // at the last look
	fault   error      // why what is there is not in force
}

// look is what a file is, as far as its folder tells.
type look struct {
	info os.FileInfo // nil: it is not there
}

func lookAt(file string) look {
	info, err := os.Stat(file)
	if err != nil {
		return look{}
	}
	return look{info}
}

func (l look) same(other look) bool {
	if l.info == nil || other.info == nil {
		return l.info == other.info
	}
	return os.SameFile(l.info, other.info) && l.info.Size() == other.info.Size() && l.info.ModTime().Equal(other.info.ModTime())
}

// New returns passwords of which none is known to be breached.
func New(log *slog.Logger, now func() time.Time) *Passwords {
	return &Passwords{log: log, now: now}
}

// Use takes a file and a server from now on; each may be empty. The file is read before
// Use returns, unless it was already. One that cannot be read is told by [Passwords.Status]
// and looked at again; a server's address must be one that [NewRanges] takes.
func (p *Passwords) Use(file, address string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address != p.address {
		var asked *Ranges
		if address != "" {
			var err error
			if asked, err = NewRanges(address, p.now); err != nil {
				return err
			}
		}
		p.ranges.Store(asked)
		p.address = address
	}
	if file != p.file {
		p.file, p.fault = file, nil
		p.loaded, p.seen = look{}, look{}
		p.filter.Store(nil)
		if file != "" {
			p.seen = lookAt(file)
			p.readLocked()
		}
	}
	return nil
}

// Run takes over a file that was replaced, until ctx ends: within 20 seconds, when it has
// been the same for ten. The one before stays in force while the new one is not good.
func (p *Passwords) Run(ctx context.Context) {
	t := time.NewTicker(looking)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.look()
		}
	}
}

func (p *Passwords) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == "" {
		return
	}
	found := lookAt(p.file)
	settled := found.same(p.seen)
	p.seen = found
	if settled && !found.same(p.loaded) {
		p.readLocked()
	}
}

// readLocked reads what was seen.
func (p *Passwords) readLocked() {
	p.loaded = p.seen
	filter, err := Open(p.file)
	if p.fault = err; err != nil {
		p.log.Error("left out", "error", err, "older_stays", p.filter.Load() != nil)
		return
	}
	p.filter.Store(filter)
	p.log.Info("the list of breached passwords is in force", "file", p.file, "passwords", filter.Keys, "of", filter.Date)
}

// Breached reports whether a password is in the file or on the server. What cannot be
// found out counts as no. It takes the server's 300 ms longer at most.
func (p *Passwords) Breached(ctx context.Context, password string) bool {
	filter, ranges := p.filter.Load(), p.ranges.Load()
	if filter == nil && ranges == nil || password == "" {
		return false
	}
	sum := sha1.Sum([]byte(password))
	if filter != nil && filter.Contains(sum) {
		return true
	}
	if ranges == nil {
		return false
	}
	found, err := ranges.Contains(ctx, sum)
	return err == nil && found
}

// Status is what is in force.
type Status struct {
	Named bool      // a file is
	Date  time.Time // of the file's lists; zero: none is in force
	Keys  uint64    // passwords in it
	Fault error     // why what is there is not in force

	Asks  bool // a server is asked
	Asked Asked
}

// Status is how things stand.
func (p *Passwords) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Named: p.file != "", Fault: p.fault}
	if f := p.filter.Load(); f != nil {
		s.Date, s.Keys = f.Date, f.Keys
	}
	if r := p.ranges.Load(); r != nil {
		s.Asks, s.Asked = true, r.Status()
	}
	return s
}
