package api

import (
	"net/http"

	"github.com/kidoban/kidoban/auth"
)

type sessionList struct {
	Sessions []auth.Session `json:"sessions"`
}

func sessionsOf(list []auth.Session) answer {
	if list == nil {
		list = []auth.Session{}
	}
	return answer{status: http.StatusOK, body: sessionList{list}}
}

// endedBy is how a session says that an operator ended it.
func (c *call) endedBy() string { return "operator:" + c.operator.name }

func (h *handler) listSessions(c *call) (answer, error) {
	list, err := h.Sessions.OfSubject(c.Context(), c.PathValue("account"), h.Now())
	return sessionsOf(list), err
}

func (h *handler) endSessions(c *call) (answer, error) {
	account := c.PathValue("account")
	list, err := h.Acts.EndSessions(c.Context(), account, c.endedBy())
	if err != nil {
		return answer{}, err
	}
	h.Log.Info("sessions ended", "operator", c.operator.name, "account", account, "sessions", len(list))
	return sessionsOf(list), nil
}

func (h *handler) endSession(c *call) (answer, error) {
	ended, err := h.Acts.EndSession(c.Context(), c.PathValue("id"), c.endedBy())
	if err != nil {
		return answer{}, err
	}
	h.Log.Info("session ended", "operator", c.operator.name, "session", ended.ID)
	return answer{status: http.StatusOK, body: ended}, nil
}
