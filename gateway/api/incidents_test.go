package api_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

const (
	caseID    = "06h31n8jg2qxj5q5f1znxmejg9"
	declaring = `{"state":"declared","note":"a list is tried"}`
)

// cases is the server as [api.Incidents]: one is proposed, and moves change nothing but
// the answer.
type cases struct{ s *server }

func (c cases) one(id string) (policies.Incident, error) {
	if err := c.s.fault(); err != nil {
		return policies.Incident{}, err
	}
	if id != caseID {
		return policies.Incident{}, policies.ErrNoIncident
	}
	at := time.Date(2026, 11, 23, 9, 0, 1, 0, time.UTC)
	return policies.Incident{ID: caseID, Category: "credential-stuffing", Key: "source.asn", Value: "64500", Rules: []rules.ID{"a.rule"}, State: policies.IncidentProposed,
		Window: at.Truncate(time.Hour), FirstSeen: at.Add(-time.Second), LastSeen: at, Found: 3, Touched: 200, TouchedMore: true,
		Changes: []policies.IncidentChange{{State: policies.IncidentProposed, By: "a.rule", At: at, Note: "30 names in order"}}}, nil
}

func (c cases) ListIncidents(_ context.Context, q policies.IncidentQuery) ([]policies.Incident, string, error) {
	i, err := c.one(caseID)
	if err != nil {
		return nil, "", err
	}
	if q.State == "odd" {
		return nil, "", policies.FieldErrors{{Field: "state", Message: "is none"}}
	}
	if q.State != "" && q.State != "open" && q.State != i.State {
		return nil, "", nil
	}
	return []policies.Incident{i}, "next", nil
}

func (c cases) Incident(_ context.Context, id string) (policies.IncidentView, error) {
	i, err := c.one(id)
	return policies.IncidentView{Incident: i, Times: i.Times(), Findings: []string{foundID}, Decisions: []string{"d"}, Accounts: []string{"17"}}, err
}

func (c cases) MoveIncident(_ context.Context, id string, to policies.IncidentState, note, by string) (policies.Incident, error) {
	if err := policies.CheckMove(to, note); err != nil {
		return policies.Incident{}, err
	}
	i, err := c.one(id)
	if err == nil && !slices.Contains(i.State.Next(), to) {
		err = &policies.MoveError{From: i.State, To: to}
	}
	if err == nil {
		i.State, i.Changes = to, append(i.Changes, policies.IncidentChange{State: to, By: by, At: c.s.now(), Note: note})
	}
	return i, err
}

func TestIncidents(t *testing.T) {
	s := newServer(t)
	for query, want := range map[string]int{"": 1, "?state=open": 1, "?state=any": 1, "?state=proposed": 1, "?state=closed": 0} {
		code, page := s.call("GET", "/v1/incidents"+query, "")
		if list := page["incidents"].([]any); code != http.StatusOK || len(list) != want {
			t.Errorf("%s = %d %v, want %d", query, code, page, want)
		}
	}
	code, v := s.call("GET", "/v1/incidents/"+caseID, "")
	if code != http.StatusOK || v["findings"].([]any)[0] != foundID || v["times"].(map[string]any)["detect_seconds"] != 1.0 || v["touched_more"] != true {
		t.Errorf("= %d %v", code, v)
	}
	code, i := s.call("POST", "/v1/incidents/"+caseID+"/state", declaring, "Idempotency-Key", "k")
	if changes := i["changes"].([]any); code != http.StatusOK || i["state"] != "declared" || changes[1].(map[string]any)["by"] != "alice" {
		t.Errorf("= %d %v", code, i)
	}
	s.advance(time.Minute)
	if again := s.do(newCall("POST", "/v1/incidents/"+caseID+"/state", declaring, "Idempotency-Key", "k")); again.Header().Get("Idempotent-Replayed") != "true" ||
		!strings.Contains(again.Body.String(), "09:05:00") {
		t.Errorf("again under the key: %v %s", again.Header(), again.Body)
	}
	if code, p := s.call("POST", "/v1/incidents/"+caseID+"/state", declaring, "Authorization", "Bearer "+viewerKey); code != http.StatusForbidden {
		t.Errorf("a viewer = %d %v", code, p)
	}
	if code, p := s.call("POST", "/v1/incidents/"+caseID+"/state", `{"state":"recovering","note":"x"}`); code != http.StatusConflict || !strings.Contains(p["detail"].(string), "declared, closed") {
		t.Errorf("what does not follow = %d %v, want what does", code, p)
	}
	for _, test := range []struct{ method, target, body, where string }{
		{"GET", "?state=odd", "", "state"},
		{"GET", "?limit=0", "", "limit"},
		{"POST", "/" + caseID + "/state", `{"state":"over","note":"x"}`, "#/state"},
		{"POST", "/" + caseID + "/state", `{"state":"closed"}`, "#/note"},
	} {
		code, p := s.call(test.method, "/v1/incidents"+test.target, test.body)
		fault := map[string]any{}
		if code == http.StatusUnprocessableEntity {
			fault = p["errors"].([]any)[0].(map[string]any)
		}
		if fault["parameter"] != test.where && fault["pointer"] != test.where {
			t.Errorf("%s %s %s = %d %v, want a fault of %s", test.method, test.target, test.body, code, p, test.where)
		}
	}
}
