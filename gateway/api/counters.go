package api

import (
	"net/http"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// counterAnswer is what one counter of rules counts and takes.
type counterAnswer struct {
	Rules         []rules.ID `json:"rules"`
	Distinct      string     `json:"distinct,omitempty"` // one of these four, or none where events are counted
	Sum           string     `json:"sum,omitempty"`
	Ratio         string     `json:"ratio,omitempty"`
	Change        bool       `json:"change,omitempty"`
	By            []string   `json:"by"`
	WithinSeconds float64    `json:"within_seconds"`
	Where         string     `json:"where,omitempty"`
	room
}

// room is what counters take and may take of memory.
type room struct {
	Bytes     int64  `json:"bytes"`
	Limit     int64  `json:"limit"`
	Keys      int    `json:"keys"`
	Widened   int    `json:"widened"`   // of them, those that stand for several because there was no room
	Late      uint64 `json:"late"`      // events that came after their time was over
	Forgotten uint64 `json:"forgotten"` // keys that went before their time was over
}

type counterList struct {
	room
	Counters []counterAnswer `json:"counters"`
}

func (h *handler) listCounters(*call) (answer, error) {
	m := h.Rules().Memory()
	list := counterList{room: room{Bytes: m.Bytes, Limit: m.Limit}, Counters: []counterAnswer{}}
	for _, u := range m.Counters {
		c := u.Counter
		list.Counters = append(list.Counters, counterAnswer{
			Rules: u.Rules, Distinct: c.Distinct, Sum: c.Sum, Ratio: c.Ratio, Change: c.Change, By: c.By, WithinSeconds: c.Within.Seconds(), Where: c.Where,
			room: room{u.Bytes, u.Limit, u.Keys, u.Widened, u.Late, u.Forgotten},
		})
		list.Keys += u.Keys
		list.Widened += u.Widened
		list.Late += u.Late
		list.Forgotten += u.Forgotten
	}
	return answer{status: http.StatusOK, body: list}, nil
}

// exemptionAnswer is an exemption of a rule in force, and what it did.
type exemptionAnswer struct {
	Rule    rules.ID  `json:"rule"`
	When    string    `json:"when,omitempty"` // this or List
	List    string    `json:"list,omitempty"`
	Owner   string    `json:"owner"`
	Reason  string    `json:"reason"`
	Until   string    `json:"until"` // a day; from its midnight UTC on it covers nothing
	Ended   bool      `json:"ended"`
	Matches uint64    `json:"matches"` // that it kept from being findings, since the gate started
	Latest  time.Time `json:"latest,omitzero"`
}

type exemptionList struct {
	Exemptions []exemptionAnswer `json:"exemptions"`
}

func (h *handler) listExemptions(*call) (answer, error) {
	now, list := h.Now(), exemptionList{Exemptions: []exemptionAnswer{}}
	for _, e := range h.Rules().Exempted() {
		x := e.Exemption
		list.Exemptions = append(list.Exemptions, exemptionAnswer{
			Rule: e.Rule, When: x.When, List: x.List, Owner: x.Owner, Reason: x.Reason, Until: x.Until.Format(time.DateOnly), Ended: !now.Before(x.Until),
			Matches: e.Matches, Latest: e.Latest,
		})
	}
	return answer{status: http.StatusOK, body: list}, nil
}
