// Package feed reads login attempts from logs: JSON Lines of one documented shape,
// sshd's syslog lines, and Caddy's access log. README.md describes them. Lines of JSON
// may be other events besides.
//
// A [Reader] returns attempts in the order of their times, as detectors want them,
// and reads as it goes: it holds at most 16,384 attempts, whatever the log's length.
// What a log does not say is unknown, never safe. A line that cannot be read is told
// and passed over; no line stops the reading.
//
// A log lacks what the gate would have remembered meanwhile: which account a name is
// of, since when it is known, which device it completed a login on. [Directory] is
// that memory.
package feed

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
)

// Formats are those that [Open] knows.
var Formats = []string{"jsonl", "sshd", "caddy"}

// Tri is yes, no or unknown.
type Tri uint8

const (
	Unknown Tri = iota
	No
	Yes
)

func (t Tri) String() string { return [...]string{"unknown", "no", "yes"}[t] }

func triOf(b bool) Tri {
	if b {
		return Yes
	}
	return No
}

// Attempt is one login attempt of a log, or another event (see Options.AllKinds).
type Attempt struct {
	// ID is what the log calls it, a string or number in JSON, and else the number of
	// its line; the second and further attempts that one line stands for have the
	// string "LINE.N" then.
	ID     json.RawMessage
	Line   int    // from 1
	Number uint64 // among the attempts of the log, in its own order, from 1

	// Event is the attempt. Its outcome is Success or Failure where Correct is known,
	// Refused where the log says so, and else Unknown.
	Event   detectors.Event
	Correct Tri  // whether the password, or what stood for it, was right
	Exists  Tri  // whether the name is of an account
	TypoOf  bool // the log says that a wrong password was a slip; Event.Password.Typo

	zone *time.Location // where the clock is that Event shows
}

// Options say how a log is read. The zero value is a good one for jsonl and sshd.
type Options struct {
	// Fault is told of each line that is passed over because it cannot be read, and of
	// each value that is taken as unknown or changed; nil: nobody.
	Fault func(line int, err error)

	// AllKinds has the reader return every kind of event that lines of JSON may be, and
	// not log-ins alone.
	AllKinds bool

	// Year is that of the first time stamp in a log of sshd that has no years; 0: the
	// latest that does not put the stamp after Now.
	Year int
	Now  time.Time // zero: time.Now()

	// Zone is where the clock is of attempts of which the log does not say it; nil: at UTC.
	Zone *time.Location

	// Routes are the log-ins in Caddy's log, "METHOD PATH" each; a * at the end of the
	// path stands for any rest, and * as method for any. Success and Failure are the
	// status codes that tell how they ended. Without Success, 200 to 399 is one if the
	// answer sets a cookie, and unknown if not; without Failure, 400, 401, 403 and 422.
	Routes           []string
	Success, Failure []int
}

// Counts are the figures of what was read.
type Counts struct {
	Lines    int // blank ones included
	Attempts int // in what was read so far; not all of them were returned yet
	Ignored  int // lines of something else, such as other messages of sshd
	Faults   int // lines that were passed over because they cannot be read
	Doubts   int // values taken as unknown, or changed
}

// Reader reads attempts. It is not safe for concurrent use.
type Reader struct {
	lines  lines
	parser parser
	o      Options
	counts Counts
	buffer buffer
	zones  map[string]*time.Location // by names that were read, up to zonesMax; nil: there is none
	strict bool                      // the line at hand is one of JSON, and no log-in
	done   error                     // what ended the input
}

// parser reads one kind of log.
type parser interface {
	// parse calls emit for each attempt that line stands for. An attempt without a time
	// happened when the line before it did. Nothing of line may be kept.
	parse(line []byte, r *Reader, emit func(Attempt)) error
}

// errIgnored says that a line is of something else.
var errIgnored = fmt.Errorf("not a login attempt")

// Open returns a reader of the log r. The error says which option is wrong.
func Open(r io.Reader, format string, o Options) (*Reader, error) {
	if o.Fault == nil {
		o.Fault = func(int, error) {}
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	reader := &Reader{lines: newLines(r), o: o, zones: map[string]*time.Location{}}
	switch format {
	case "jsonl":
		reader.parser = jsonl{o.AllKinds}
	case "sshd":
		if o.Year < 0 || o.Year > 9999 {
			return nil, fmt.Errorf("year %d: want 1 to 9999, or 0 to infer it", o.Year)
		}
		reader.parser = newSSHD(o)
	case "caddy":
		p, err := newCaddy(o)
		if err != nil {
			return nil, err
		}
		reader.parser = p
	default:
		return nil, fmt.Errorf("unknown format %.40q: want one of %s", format, strings.Join(Formats, ", "))
	}
	return reader, nil
}

// Counts tells what was read so far.
func (r *Reader) Counts() Counts { return r.counts }

// Next returns the next attempt in the order of time; of equal times, in that of the
// log. The error is io.EOF at the end, or what reading the input said; all that was
// read before is returned first.
func (r *Reader) Next() (Attempt, error) {
	for {
		if a := r.buffer.take(r.done != nil, r.doubt); a != nil {
			return *a, nil
		}
		if r.done != nil {
			return Attempt{}, r.done
		}
		line, err := r.lines.next()
		if err != nil && err != errLong {
			if r.done = err; err != io.EOF {
				r.done = fmt.Errorf("reading after line %d: %w", r.counts.Lines, err)
			}
			continue
		}
		r.counts.Lines++
		switch {
		case err != nil:
			r.fault(err)
		case len(line) > 0:
			r.parse(line)
		}
	}
}

func (r *Reader) parse(line []byte) {
	part := 0
	err := r.parser.parse(line, r, func(a Attempt) {
		part++
		r.counts.Attempts++
		a.Line, a.Number = r.counts.Lines, uint64(r.counts.Attempts)
		switch {
		case len(a.ID) > 0:
		case part == 1:
			a.ID = fmt.Appendf(nil, "%d", a.Line)
		default:
			a.ID = fmt.Appendf(nil, `"%d.%d"`, a.Line, part)
		}
		if a.zone == nil {
			a.zone = r.o.Zone
		}
		a.complete()
		if a.Event.Time.IsZero() {
			a.at(r.buffer.unknown())
			r.doubt(a.Line, fmt.Errorf("no time: taken as at %s", stamp(a.Event.Time)))
		}
		r.buffer.add(&a)
	})
	switch {
	case err == errIgnored:
		r.counts.Ignored++
	case err != nil:
		r.fault(err)
	}
}

func (r *Reader) fault(err error) {
	r.counts.Faults++
	r.o.Fault(r.counts.Lines, err)
}

func (r *Reader) doubt(line int, err error) {
	r.counts.Doubts++
	r.o.Fault(line, err)
}

// unsure tells that a value of the line at hand is taken as unknown. Of a line that is
// read strictly it is a fault, which is returned.
func (r *Reader) unsure(what string, value any, want string) error {
	if r.strict {
		return fmt.Errorf("want %s", want)
	}
	r.doubt(r.counts.Lines, fmt.Errorf("%s %.80q: taken as unknown, want %s", what, fmt.Sprint(value), want))
	return nil
}

// complete fills in what follows from what is known.
func (a *Attempt) complete() {
	e := &a.Event
	e.Kind = cmp.Or(e.Kind, detectors.Login)
	switch e.Kind {
	case detectors.Login, detectors.Door:
		e.Route = cmp.Or(e.Route, detectors.LoginRoute)
	case detectors.Message:
		e.Route = detectors.MessageRoute
	}
	switch {
	case e.Outcome != "":
	case a.Correct == Yes:
		e.Outcome = detectors.Success
	case a.Correct == No:
		e.Outcome = detectors.Failure
	default:
		e.Outcome = detectors.Unknown
	}
	switch a.Exists {
	case Yes:
		e.Existence = detectors.Exists
	case No:
		e.Existence, e.Account, e.AccountSince = detectors.Missing, "", time.Time{}
	}
	e.Password.Typo = a.TypoOf
	if e.Device.ID == "" && e.Device.Known() {
		// Devices without a name are told apart by the account that they are of.
		e.Device.ID = "of " + cmp.Or(string(e.Account), e.Name.Digest.String())
	}
	if e.Source.Address.IsValid() {
		e.Source.Network = detectors.CountingNetwork(e.Source.Address)
	}
	e.Fingerprint = e.Client.Fingerprint()
	a.at(e.Time)
}

// setName takes a name as it was typed.
func (a *Attempt) setName(typed string) {
	if name := auth.CanonicalName(typed); name != "" {
		a.Event.Name = detectors.Name{Digest: digest("name", name), Display: name}
	}
}

// setAddress takes an address, perhaps with a port. It reports whether it is one.
func (a *Attempt) setAddress(text string) bool {
	s := &a.Event.Source
	if s.Address = guard.ParseAddress(text); s.Address.IsValid() {
		return true
	}
	host, port, ok := splitPort(text)
	if ok {
		s.Address, s.Port = guard.ParseAddress(host), port
	}
	return s.Address.IsValid()
}

// splitPort takes "address:port" apart.
func splitPort(text string) (host string, port uint16, ok bool) {
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return host, uint16(n), err == nil
}

// digest stands in for the keyed one of a gate: it stays in this process.
func digest(purpose, text string) detectors.Digest {
	sum := sha256.Sum256([]byte(purpose + "\x00" + text))
	return detectors.Digest(sum[:16])
}

// stamp writes a time for people.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// oneOf reports whether text is one of all, in any case.
func oneOf(text string, all ...string) bool {
	return slices.ContainsFunc(all, func(s string) bool { return strings.EqualFold(s, text) })
}
