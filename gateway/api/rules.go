package api

import (
	"net/http"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// ruleAnswer is a rule as it is in force.
type ruleAnswer struct {
	ID         rules.ID          `json:"id"`
	Title      string            `json:"title"`
	Severity   string            `json:"severity"`
	Owner      string            `json:"owner"`
	On         rules.Stage       `json:"on"`
	Mode       rules.Mode        `json:"mode"`
	Canary     float64           `json:"canary,omitempty"` // percent
	ReviewBy   string            `json:"review_by"`
	File       string            `json:"file"`
	Generation string            `json:"generation"`
	Lists      map[string]string `json:"lists,omitempty"` // that it asks: SHA-256 by name
	Budget     *budgetAnswer     `json:"budget,omitempty"`
	Fall       rules.Fall        `json:"fall"`
}

type budgetAnswer struct {
	FalsePositives float64 `json:"false_positives"` // percent
	OverSeconds    float64 `json:"over_seconds"`
}

func ruleOf(r rules.Rule, fall rules.Fall) ruleAnswer {
	a := ruleAnswer{ID: r.ID, Title: r.Title, Severity: r.Severity, Owner: r.Owner, On: r.On, Mode: r.Mode, Canary: r.Canary,
		ReviewBy: r.ReviewBy.Format(time.DateOnly), File: r.File, Generation: r.Generation, Lists: r.Lists, Fall: fall}
	if r.Budget != nil {
		a.Budget = &budgetAnswer{r.Budget.FalsePositives, r.Budget.Over.Seconds()}
	}
	return a
}

type ruleList struct {
	Hash  string       `json:"hash"` // the same on nodes with the same rules and lists
	Rules []ruleAnswer `json:"rules"`
}

func (h *handler) listRules(*call) (answer, error) {
	set := h.Rules()
	fallen := map[rules.ID]rules.Fall{}
	for _, x := range h.Life.Falls() {
		fallen[x.Rule] = x.Level
	}
	list := ruleList{Hash: set.Hash(), Rules: []ruleAnswer{}}
	for _, r := range set.Rules() {
		list.Rules = append(list.Rules, ruleOf(r, fallen[r.ID]))
	}
	return answer{status: http.StatusOK, body: list, tagged: true}, nil
}

// ruleStanding is a rule with how its budget stands.
type ruleStanding struct {
	ruleAnswer
	Judgement rules.Judgement `json:"judgement"`
	Since     time.Time       `json:"since,omitzero"` // hits from here on count
	Falls     int             `json:"falls_after"`    // hits that all prove benign; 0: never
	Waits     bool            `json:"waits"`          // for a campaign alarm to end, to fall
	By        string          `json:"restored_by,omitempty"`
}

func (h *handler) getRule(c *call) (answer, error) {
	s, err := h.Life.Standing(c.Context(), rules.ID(c.PathValue("id")))
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: ruleStanding{ruleOf(s.Rule, s.Fallen.Level), s.Fallen.Judgement, s.Fallen.Since, s.Falls, s.Waits, s.Fallen.By}}, nil
}

func (h *handler) restoreRule(c *call) (answer, error) {
	id := rules.ID(c.PathValue("id"))
	x, err := h.Life.SetRuleBack(c.Context(), id, c.operator.name)
	if err != nil {
		return answer{}, err
	}
	h.Log.Info("rule restored", "operator", c.operator.name, "rule", string(id), "generation", x.Generation)
	return answer{status: http.StatusOK, body: x}, nil
}

// span reads the time that is to be undone.
func (c *call) span() (from, to time.Time, err error) {
	var faults []Fault
	for _, name := range []string{"from", "to"} {
		if !c.query.Has(name) {
			faults = append(faults, Fault{Parameter: name, Detail: "is missing: want a time such as 2026-01-31T09:00:00Z"})
		}
	}
	from, to = c.time("from", &faults), c.time("to", &faults)
	if len(faults) == 0 && !from.Before(to) {
		faults = append(faults, Fault{Parameter: "to", Detail: "want a time after from"})
	}
	return from, to, invalid(faults)
}

func (h *handler) previewUndo(c *call) (answer, error) {
	from, to, err := c.span()
	if err != nil {
		return answer{}, err
	}
	u, err := h.Life.PreviewUndo(c.Context(), rules.ID(c.PathValue("id")), from, to)
	return answer{status: http.StatusOK, body: u}, err
}

func (h *handler) undo(c *call) (answer, error) {
	from, to, err := c.span()
	if err != nil {
		return answer{}, err
	}
	id := rules.ID(c.PathValue("id"))
	u, err := h.Life.Undo(c.Context(), id, from, to, c.operator.name)
	if err != nil {
		return answer{}, err
	}
	h.Log.Info("rule undone", "operator", c.operator.name, "rule", string(id), "from", from, "to", to, "lifted", u.Lifted, "more", u.More)
	return answer{status: http.StatusOK, body: u}, nil
}

func (h *handler) explain(c *call) (answer, error) {
	s, err := h.Life.Explain(c.Context(), c.PathValue("name"))
	return answer{status: http.StatusOK, body: s}, err
}

type marked struct {
	Counts bool `json:"counts"` // in the budget of the rule
}

func (h *handler) markBenign(c *call) (answer, error) {
	name := c.PathValue("name")
	counts, err := h.Life.MarkBenign(c.Context(), name, c.operator.name)
	if err != nil {
		return answer{}, err
	}
	h.Log.Info("finding marked benign", "operator", c.operator.name, "finding", name, "counts", counts)
	return answer{status: http.StatusOK, body: marked{counts}}, nil
}
