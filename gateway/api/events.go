package api

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
)

type eventPage struct {
	Events []detectors.Event `json:"events"`
	Next   string            `json:"next,omitempty"` // cursor of the next page
}

// events searches what this node knows of all nodes' events, the newest first.
func (h *handler) events(c *call) (answer, error) {
	var faults []Fault
	q := stream.Query{
		From: c.time("from", &faults), To: c.time("to", &faults),
		Account: detectors.Account(c.query.Get("account")), Session: c.query.Get("session"),
		Outcome: oneOf(c, "outcome", &faults, detectors.Unknown, detectors.Success, detectors.Failure, detectors.Refused),
		Kind:    oneOf(c, "kind", &faults, detectors.Login, detectors.Door, detectors.Session, detectors.Request, detectors.Factor, detectors.Message, detectors.Operator),
		Limit:   c.limit(100, 1000, &faults),
		Cursor:  stream.Cursor(c.query.Get("cursor")),
	}
	if c.query.Has("source") {
		var ok bool
		if q.Source, ok = network(c.query.Get("source")); !ok {
			faults = append(faults, Fault{Parameter: "source", Detail: "want an address or a network such as 203.0.113.7 or 2001:db8::/32"})
		}
	}
	if err := invalid(faults); err != nil {
		return answer{}, err
	}
	found, next, err := h.Search(c.Context(), q)
	if errors.Is(err, stream.ErrCursor) {
		return answer{}, invalid([]Fault{{Parameter: "cursor", Detail: "is not one that a page ended with; begin without one"}})
	}
	if found == nil {
		found = []detectors.Event{}
	}
	return answer{status: http.StatusOK, body: eventPage{found, string(next)}}, err
}

// oneOf reads a parameter that is one of a few words.
func oneOf[T ~string](c *call, name string, faults *[]Fault, words ...T) T {
	v := T(c.query.Get(name))
	if c.query.Has(name) && !slices.Contains(words, v) {
		var list []string
		for _, w := range words {
			list = append(list, string(w))
		}
		*faults = append(*faults, Fault{Parameter: name, Detail: "want one of " + strings.Join(list, ", ")})
	}
	return v
}

// network reads an address or a network.
func network(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), true
}

type reportAnswer struct {
	From time.Time            `json:"from"`
	To   time.Time            `json:"to"`
	Rows []policies.LedgerRow `json:"rows"`
}

// report sums up what the gate did, by default in the last 24 hours.
func (h *handler) report(c *call) (answer, error) {
	var faults []Fault
	from, to := c.time("from", &faults), c.time("to", &faults)
	if to.IsZero() {
		to = h.Now()
	}
	if from.IsZero() {
		from = to.Add(-24 * time.Hour)
	}
	if len(faults) == 0 && !from.Before(to) {
		faults = append(faults, Fault{Parameter: "from", Detail: "must be before to"})
	}
	if err := invalid(faults); err != nil {
		return answer{}, err
	}
	rows, err := h.Report(c.Context(), from, to)
	if rows == nil {
		rows = []policies.LedgerRow{}
	}
	return answer{status: http.StatusOK, body: reportAnswer{from.UTC(), to.UTC(), rows}}, err
}
