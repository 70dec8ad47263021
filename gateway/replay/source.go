package replay

import (
	"context"
	"errors"
	"io"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/gateway/stream"
)

// Recorded is one event as it is replayed.
type Recorded struct {
	// Event is what was observed.
	Event detectors.Event
	// Known is a log-in, a request or a message as it was known before its outcome; of
	// other kinds the zero value.
	Known detectors.Event
	// Summed: it is one of a sum of the record. Who it was about is not known.
	Summed bool
}

// Counts are what a source could not give as it was.
type Counts struct {
	Unreadable int    `json:"unreadable"` // lines, entries and events that were passed over
	Other      int    `json:"other"`      // lines and entries of something else
	Doubtful   int    `json:"doubtful"`   // values taken as unknown, or changed
	Denials    uint64 `json:"denials"`    // counted in sums of the record that no event can be made of
}

// Source is where recorded events come from.
type Source interface {
	// Read passes all events to each, about in the order of their times, until each
	// returns an error, which it returns. What each gets is its own until it returns.
	Read(ctx context.Context, each func(*Recorded) error) error
	// Counts is asked after Read.
	Counts() Counts
}

// FromFeed is the events that r reads. What a gate would have remembered meanwhile
// is filled in from the log-ins, see [feed.Directory].
func FromFeed(r *feed.Reader) Source { return &fromFeed{reader: r} }

type fromFeed struct {
	reader    *feed.Reader
	directory feed.Directory
}

func (s *fromFeed) Read(ctx context.Context, each func(*Recorded) error) error {
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a, err := s.reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r := Recorded{Event: a.Event}
		s.directory.Fill(&r.Event)
		if r.Event.Kind != detectors.Login {
			r.Known = known(r.Event)
		} else {
			r.Known = r.Event
			r.Known.Outcome = detectors.Unknown
		}
		if in := r.Event.Kind == detectors.Login || r.Event.Kind == detectors.Door; in && r.Event.Outcome == detectors.Success && !r.Event.Unproven {
			s.directory.Identify(&r.Event)
			s.directory.Complete(&r.Event)
		}
		if err := each(&r); err != nil {
			return err
		}
	}
}

func (s *fromFeed) Counts() Counts {
	c := s.reader.Counts()
	return Counts{Unreadable: c.Faults, Other: c.Ignored, Doubtful: c.Doubts}
}

// FromSpool is the events in the journal of a node, which lies in dir. The node may
// run meanwhile.
func FromSpool(dir string) Source { return &fromSpool{dir: dir} }

type fromSpool struct {
	dir    string
	counts stream.SpoolCounts
}

func (s *fromSpool) Read(ctx context.Context, each func(*Recorded) error) (err error) {
	s.counts, err = stream.ReadSpool(ctx, s.dir, func(e detectors.Event) error {
		return each(&Recorded{Event: e, Known: known(e)})
	})
	return err
}

func (s *fromSpool) Counts() Counts {
	return Counts{Unreadable: s.counts.Damaged + s.counts.Unknown}
}

// known is what a gate knew of e before its outcome, of a kind of which it asks then.
func known(e detectors.Event) detectors.Event {
	if _, ok := stageBefore[e.Kind]; !ok {
		return detectors.Event{}
	}
	if e.Kind == detectors.Login && e.Outcome == detectors.Success {
		e.Organization, e.Shift, e.Session, e.Password.Typo = "", 0, "", false // whom the backend named, and what that told
		if e.AccountSince.IsZero() || !e.AccountSince.Before(e.Time) {
			e.Account, e.Existence = "", detectors.Unsure // nobody knew the account
		}
	}
	e.Outcome, e.Unproven, e.Reason = detectors.Unknown, false, ""
	return e
}
