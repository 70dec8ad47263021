package api

import (
	"errors"
	"net/http"

	"github.com/kidoban/kidoban/policies"
)

type incidentPage struct {
	Incidents []policies.Incident `json:"incidents"`
	Next      string              `json:"next,omitempty"` // cursor of the next page
}

func (h *handler) listIncidents(c *call) (answer, error) {
	var faults []Fault
	q := policies.IncidentQuery{State: policies.IncidentState(c.query.Get("state")), Cursor: c.query.Get("cursor"), Limit: c.limit(50, 200, &faults)}
	switch q.State {
	case "":
		q.State = "open"
	case "any":
		q.State = ""
	}
	if err := invalid(faults); err != nil {
		return answer{}, err
	}
	list, next, err := h.Incidents.ListIncidents(c.Context(), q)
	if fields, ok := errors.AsType[policies.FieldErrors](err); ok {
		for _, f := range fields {
			faults = append(faults, Fault{Parameter: f.Field, Detail: f.Message})
		}
		return answer{}, invalid(faults)
	}
	if list == nil {
		list = []policies.Incident{}
	}
	return answer{status: http.StatusOK, body: incidentPage{list, next}, tagged: true}, err
}

func (h *handler) getIncident(c *call) (answer, error) {
	v, err := h.Incidents.Incident(c.Context(), c.PathValue("id"))
	return answer{status: http.StatusOK, body: v, tagged: true}, err
}

// incidentMove is what POST /v1/incidents/{id}/state takes.
type incidentMove struct {
	State policies.IncidentState `json:"state"`
	Note  string                 `json:"note"`
}

func (h *handler) moveIncident(c *call) (answer, error) {
	return h.underKey(c, func() (answer, error) {
		var in incidentMove
		if err := decode(c, &in); err != nil {
			return answer{}, err
		}
		i, err := h.Incidents.MoveIncident(c.Context(), c.PathValue("id"), in.State, in.Note, c.operator.name)
		if err != nil {
			return answer{}, err
		}
		h.Log.Info("incident moved", "operator", c.operator.name, "incident", i.ID, "state", string(i.State))
		return answer{status: http.StatusOK, body: i}, nil
	})
}
