package api

import (
	"encoding/base64"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

// maxScan bounds how many events a search looks at.
const maxScan = 10_000

type eventPage struct {
	Events []detectors.Event `json:"events"`
	Next   string            `json:"next,omitempty"` // cursor of the next page
}

// eventQuery selects events. Fields that are set must all hold.
type eventQuery struct {
	from, to         time.Time // of the event: at from or later, before to
	account, session string
	source           netip.Prefix
	outcome          detectors.Outcome
	kind             detectors.Kind
}

func (q eventQuery) selects(e *detectors.Event) bool {
	return (q.from.IsZero() || !e.Time.Before(q.from)) && (q.to.IsZero() || e.Time.Before(q.to)) &&
		(q.account == "" || string(e.Account) == q.account) && (q.session == "" || e.Session == q.session) &&
		(!q.source.IsValid() || q.source.Contains(e.Source.Address)) &&
		(q.outcome == "" || e.Outcome == q.outcome) && (q.kind == "" || e.Kind == q.kind)
}

// events searches the latest events, the newest first. A cursor names the event
// after which to go on; when that event is no longer among the latest, none of the
// older ones is either.
func (h *handler) events(c *call) (answer, error) {
	var faults []Fault
	q := eventQuery{
		from: c.time("from", &faults), to: c.time("to", &faults),
		account: c.query.Get("account"), session: c.query.Get("session"),
		outcome: oneOf(c, "outcome", &faults, detectors.Unknown, detectors.Success, detectors.Failure, detectors.Refused),
		kind:    oneOf(c, "kind", &faults, detectors.Login, detectors.Door, detectors.Session, detectors.Request),
	}
	if c.query.Has("source") {
		var ok bool
		if q.source, ok = network(c.query.Get("source")); !ok {
			faults = append(faults, Fault{Parameter: "source", Detail: "want an address or a network such as 203.0.113.7 or 2001:db8::/32"})
		}
	}
	limit := c.limit(100, 1000, &faults)
	var after detectors.EventKey
	if c.query.Has("cursor") {
		var ok bool
		if after, ok = parseCursor(c.query.Get("cursor")); !ok {
			faults = append(faults, Fault{Parameter: "cursor", Detail: "is not one that a page ended with; begin without one"})
		}
	}
	if err := invalid(faults); err != nil {
		return answer{}, err
	}

	known := h.Recent(maxScan)
	slices.Reverse(known)
	if after != (detectors.EventKey{}) {
		i := slices.IndexFunc(known, func(e detectors.Event) bool { return e.Key == after })
		if i < 0 {
			i = len(known) - 1
		}
		known = known[i+1:]
	}
	page := eventPage{Events: []detectors.Event{}}
	for i := range known {
		if !q.selects(&known[i]) {
			continue
		}
		if len(page.Events) == limit {
			page.Next = cursor(page.Events[limit-1].Key)
			break
		}
		page.Events = append(page.Events, known[i])
	}
	return answer{status: http.StatusOK, body: page}, nil
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

func cursor(k detectors.EventKey) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatUint(k.Sequence, 10) + "." + strconv.FormatUint(k.Incarnation, 10) + "." + k.Node))
}

func parseCursor(text string) (k detectors.EventKey, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > 256 {
		return k, false
	}
	parts := strings.SplitN(string(raw), ".", 3)
	if len(parts) != 3 {
		return k, false
	}
	var errs [2]error
	k.Sequence, errs[0] = strconv.ParseUint(parts[0], 10, 64)
	k.Incarnation, errs[1] = strconv.ParseUint(parts[1], 10, 64)
	k.Node = parts[2]
	return k, errs[0] == nil && errs[1] == nil && k.Sequence > 0
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
