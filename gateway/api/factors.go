package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/kidoban/kidoban/auth"
)

// errNoFactors is what the API answers where the gate has no second factors.
var errNoFactors = &Problem{Type: typeNoFactors, Status: http.StatusConflict, Title: "This gate has no second factors", Detail: "its configuration must say where people reach the service: set the option origin"}

type factorList struct {
	Factors []auth.Factor `json:"factors"`
	Slips   []auth.Slip   `json:"slips"` // that are open
}

func (h *handler) listFactors(c *call) (answer, error) {
	if h.Factors == nil {
		return answer{}, errNoFactors
	}
	account := c.PathValue("account")
	factors, err := h.Factors.List(c.Context(), account)
	if err != nil {
		return answer{}, err
	}
	open, err := h.Slips.Open(c.Context(), account, h.Now())
	if err != nil {
		return answer{}, err
	}
	list := factorList{orEmpty(factors), []auth.Slip{}}
	for _, s := range open {
		switch s.Purpose {
		case auth.SlipEnrolLink, auth.SlipEnrolCode, auth.SlipRecovery:
			list.Slips = append(list.Slips, s)
		}
	}
	return answer{status: http.StatusOK, body: list}, nil
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// actOnFactor answers a call that changes an authenticator.
func (h *handler) actOnFactor(c *call, what string, do func(account, id, by string) (auth.Factor, error)) (answer, error) {
	if h.Factors == nil {
		return answer{}, errNoFactors
	}
	account, id := c.PathValue("account"), c.PathValue("id")
	f, err := do(account, id, c.endedBy())
	if err != nil {
		return answer{}, err
	}
	h.Log.Info(what, "operator", c.operator.name, "account", account, "factor", f.ID, "kind", string(f.Kind))
	return answer{status: http.StatusOK, body: f}, nil
}

func (h *handler) removeFactor(c *call) (answer, error) {
	return h.actOnFactor(c, "factor removed", func(account, id, by string) (auth.Factor, error) {
		return h.Acts.RemoveFactor(c.Context(), account, id, by)
	})
}

func (h *handler) disableFactor(c *call) (answer, error) {
	return h.posted(c, func() (answer, error) {
		return h.actOnFactor(c, "factor disabled", func(account, id, by string) (auth.Factor, error) {
			return h.Acts.DisableFactor(c.Context(), account, id, by)
		})
	})
}

func (h *handler) enableFactor(c *call) (answer, error) {
	return h.posted(c, func() (answer, error) {
		return h.actOnFactor(c, "factor enabled", func(account, id, by string) (auth.Factor, error) {
			return h.Acts.EnableFactor(c.Context(), account, id, by)
		})
	})
}

// posted is an act that needs no body, once for each Idempotency-Key.
func (h *handler) posted(c *call, act func() (answer, error)) (answer, error) {
	if len(c.body) > 0 {
		return answer{}, broken("want none")
	}
	return h.underKey(c, act)
}

// enrolmentCode is a code that was issued. The code itself is told once.
type enrolmentCode struct {
	auth.Slip
	Code string `json:"code,omitempty"`
}

func (h *handler) issueEnrolmentCode(c *call) (answer, error) {
	return h.posted(c, func() (answer, error) {
		if h.Factors == nil {
			return answer{}, errNoFactors
		}
		account := c.PathValue("account")
		s, code, err := h.Acts.IssueEnrolmentCode(c.Context(), account, c.endedBy())
		if err != nil {
			return answer{}, err
		}
		h.Log.Info("enrolment code issued", "operator", c.operator.name, "account", account, "slip", s.ID)
		return answer{status: http.StatusCreated, body: enrolmentCode{s, code}, kept: enrolmentCode{Slip: s}}, nil
	})
}

func (h *handler) cancelRecovery(c *call) (answer, error) {
	return h.posted(c, func() (answer, error) {
		if h.Factors == nil {
			return answer{}, errNoFactors
		}
		account := c.PathValue("account")
		s, err := h.Acts.CancelRecovery(c.Context(), account, c.endedBy())
		if err != nil {
			return answer{}, err
		}
		h.Log.Info("recovery cancelled", "operator", c.operator.name, "account", account, "slip", s.ID)
		return answer{status: http.StatusOK, body: s}, nil
	})
}

// device is a device as an account's operator sees it.
type device struct {
	ID    string    `json:"id"`
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"`
	Last  time.Time `json:"last,omitzero"`
}

func (h *handler) listDevices(c *call) (answer, error) {
	views, err := h.Devices.OfSubject(c.Context(), c.PathValue("account"), h.Now())
	if err != nil {
		return answer{}, err
	}
	list := make([]device, len(views))
	for i, v := range views {
		list[i] = device(v)
	}
	return answer{status: http.StatusOK, body: map[string][]device{"devices": list}}, nil
}

type loginHistory struct {
	Sessions []auth.Session `json:"sessions"`
	Holds    []auth.Hold    `json:"holds"`
}

// history is the log-ins of an account: those that became sessions, and those that
// waited, or wait, for a factor.
func (h *handler) history(c *call) (answer, error) {
	var faults []Fault
	limit := c.limit(50, 100, &faults)
	if err := invalid(faults); err != nil {
		return answer{}, err
	}
	account := c.PathValue("account")
	sessions, err := h.Sessions.History(c.Context(), account, limit)
	if err != nil {
		return answer{}, err
	}
	list := loginHistory{orEmpty(sessions), []auth.Hold{}}
	if h.Holds != nil {
		open, err := h.Holds.OfSubject(c.Context(), account, h.Now())
		ended, err2 := h.Holds.History(c.Context(), account, limit)
		if err := errors.Join(err, err2); err != nil {
			return answer{}, err
		}
		list.Holds = append(append(list.Holds, open...), ended...)
		list.Holds = list.Holds[:min(limit, len(list.Holds))]
	}
	return answer{status: http.StatusOK, body: list}, nil
}
