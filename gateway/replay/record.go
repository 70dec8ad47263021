package replay

import (
	"container/heap"
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/gateway/record"
)

// Kinds of entries of the record that events can be made of.
const (
	sessionBegun   = record.Acts + "session.begin"
	failedLogins   = "login.failure"
	unknownLogins  = "login.unknown"
	factorPrefix   = "factor."
	attemptsDenied = "denial.attempts"
)

// FromRecord is what the record in dir has of events; keys open its entries.
//
// Beginnings of sessions are log-ins that succeeded, by account. Sums stand for as
// many events as they count, spread evenly over their time: failed log-ins, attempts
// over the limit, wrong second factors. Of these the network is known, where the sum
// names it, and neither name nor account; what a sum is not sure to be of a network is
// from nowhere. Other denials may be of a log-in that is counted already, and are only
// counted (Counts.Denials). A beginning that was taken back later is among the
// log-ins.
func FromRecord(dir string, keys func() []record.Key) Source {
	return &fromRecord{dir: dir, keys: keys}
}

type fromRecord struct {
	dir       string
	keys      func() []record.Key
	directory feed.Directory
	counts    Counts
	waiting   seriesHeap
	newest    time.Time
	last      time.Time
}

const (
	// Entries are written in another order than what they tell of happened: sums come
	// ten seconds later, or hours under a quota. Within so long they are put in order;
	// what is later still is taken as at the time that was reached.
	orderWithin = 10 * time.Minute
	// waitingMax bounds what waits for that.
	waitingMax = 1 << 16
)

func (s *fromRecord) Read(ctx context.Context, each func(*Recorded) error) error {
	err := record.Read(ctx, s.dir, s.keys, record.Query{}, func(e record.Entry) error {
		s.take(e)
		return s.pass(ctx, s.newest.Add(-orderWithin), waitingMax, each)
	})
	if err != nil {
		return err
	}
	return s.pass(ctx, s.newest, 0, each)
}

func (s *fromRecord) Counts() Counts { return s.counts }

// take adds what an entry tells of.
func (s *fromRecord) take(e record.Entry) {
	kind, outcome, ok := happening(e)
	switch {
	case !ok && e.Class == record.Aggregated && strings.HasPrefix(e.Kind, "denial."):
		s.counts.Denials += e.Count
		return
	case !ok:
		s.counts.Other++
		return
	case e.Err != nil:
		s.counts.Unreadable++
		return
	}
	if e.Class == record.Waiting {
		s.begun(e)
		return
	}
	var t record.Tally
	if json.Unmarshal(e.Body, &t) != nil || t.From.IsZero() || t.To.Before(t.From) {
		s.counts.Unreadable++
		return
	}
	event := detectors.Event{Kind: kind, Outcome: outcome, Reason: e.Reason}
	if kind == detectors.Login {
		event.Route = detectors.LoginRoute
	}
	left := e.Count
	for _, key := range t.Keys {
		n := min(key.AtLeast, left)
		network, err := netip.ParsePrefix(key.Key)
		if err != nil || n == 0 {
			continue
		}
		left -= n
		event.Source = detectors.Source{Address: network.Addr(), Network: network}
		s.add(event, t, n)
	}
	event.Source = detectors.Source{}
	s.add(event, t, left)
}

// happening is which events an entry stands for.
func happening(e record.Entry) (detectors.Kind, detectors.Outcome, bool) {
	switch summed := e.Class == record.Aggregated; {
	case !summed && e.Kind == sessionBegun:
		return detectors.Login, detectors.Success, true
	case summed && e.Kind == failedLogins:
		return detectors.Login, detectors.Failure, true
	case summed && e.Kind == unknownLogins:
		return detectors.Login, detectors.Unknown, true
	case summed && e.Kind == attemptsDenied:
		return detectors.Login, detectors.Refused, true
	case summed && strings.HasPrefix(e.Kind, factorPrefix):
		return detectors.Factor, detectors.Failure, true
	}
	return "", "", false
}

// begun adds the log-in that a session began with.
func (s *fromRecord) begun(e record.Entry) {
	var body struct{ Account, Organization, Session, Device, Source string }
	if json.Unmarshal(e.Body, &body) != nil {
		s.counts.Unreadable++
		return
	}
	event := detectors.Event{
		Kind: detectors.Login, Route: detectors.LoginRoute, Outcome: detectors.Success, Account: detectors.Account(body.Account),
		Organization: detectors.Organization(body.Organization), Session: body.Session, Device: detectors.Device{ID: body.Device},
	}
	if a, err := netip.ParseAddr(body.Source); err == nil {
		a = a.Unmap().WithZone("")
		event.Source = detectors.Source{Address: a, Network: detectors.CountingNetwork(a)}
	}
	s.push(&series{event: event, at: e.Time, left: 1})
}

func (s *fromRecord) add(e detectors.Event, t record.Tally, n uint64) {
	if n == 0 {
		return
	}
	step := time.Duration(0)
	if n > 1 {
		step = t.To.Sub(t.From) / time.Duration(n-1)
	}
	s.push(&series{event: e, at: t.From, step: step, left: n, summed: true})
}

func (s *fromRecord) push(r *series) {
	heap.Push(&s.waiting, r)
	if r.at.After(s.newest) {
		s.newest = r.at
	}
}

// pass passes on what happened until a time, and as much more as leaves no more than
// most waiting.
func (s *fromRecord) pass(ctx context.Context, until time.Time, most int, each func(*Recorded) error) error {
	for n := 0; len(s.waiting) > 0; n++ {
		if n%1024 == 1023 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		first := s.waiting[0]
		if len(s.waiting) <= most && first.at.After(until) {
			return nil
		}
		r := Recorded{Event: first.event, Summed: first.summed}
		if first.at.After(s.last) {
			s.last = first.at
		} else if first.at.Before(s.last.Add(-time.Second)) {
			s.counts.Doubtful++
		}
		r.Event.Time, r.Event.StreamTime = s.last, s.last
		first.at = first.at.Add(first.step)
		if first.left--; first.left == 0 {
			heap.Pop(&s.waiting)
		} else {
			heap.Fix(&s.waiting, 0)
		}
		if r.Event.Outcome == detectors.Success {
			s.directory.Fill(&r.Event)
		}
		r.Known = known(r.Event)
		if r.Event.Outcome == detectors.Success {
			s.directory.Identify(&r.Event)
			s.directory.Complete(&r.Event)
		}
		if err := each(&r); err != nil {
			return err
		}
	}
	return nil
}

// series is equal events, evenly spread.
type series struct {
	event  detectors.Event
	at     time.Time // of the next
	step   time.Duration
	left   uint64
	summed bool
}

type seriesHeap []*series

func (h seriesHeap) Len() int           { return len(h) }
func (h seriesHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h seriesHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *seriesHeap) Push(x any)        { *h = append(*h, x.(*series)) }
func (h *seriesHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}
