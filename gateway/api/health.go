package api

import (
	_ "embed"
	"net/http"
)

// Status is how a part of the gate is, or all of it.
type Status string

const (
	OK       Status = "ok"
	Degraded Status = "degraded" // it works with less, or behind
	Down     Status = "down"     // it does not work
)

// PartHealth is how one part of the gate is: database, redis, stream, limits,
// record, mirror, rules, policies, keys, outbox, geo.
type PartHealth struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail,omitempty"` // for people: what is wrong and what to do; no secrets, no addresses with passwords
	// LagSeconds is how far the part is behind, of geo the age of its oldest file; absent
	// where that has no meaning.
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	// Nodes is how many nodes there are, this one included; of the stream.
	Nodes int `json:"nodes,omitempty"`
	// Essential: the gate cannot serve while the part is down.
	Essential bool `json:"essential,omitempty"`
}

type healthAnswer struct {
	Status Status       `json:"status"`
	Parts  []PartHealth `json:"parts"`
	Rules  int          `json:"rules"`
	Hash   string       `json:"rules_hash"` // the same on nodes with the same rules
	Faults []string     `json:"faults"`     // files that were left out, and why
}

// health is 200 when the gate serves, if with less, and 503 when an essential part
// is down.
func (h *handler) health(c *call) (answer, error) {
	a := healthAnswer{Status: OK, Parts: h.Parts(c.Context()), Rules: len(h.Rules().Rules()), Hash: h.Rules().Hash(), Faults: []string{}}
	if a.Parts == nil {
		a.Parts = []PartHealth{}
	}
	for _, err := range h.Faults() {
		a.Status = Degraded
		a.Faults = append(a.Faults, err.Error())
	}
	status := http.StatusOK
	for _, p := range a.Parts {
		switch {
		case p.Status == Down && p.Essential:
			status = http.StatusServiceUnavailable
		case p.Status != OK && a.Status == OK:
			a.Status = Degraded
		}
	}
	if status != http.StatusOK {
		a.Status = Down
	}
	return answer{status: status, body: a}, nil
}

//go:embed openapi.yaml
var openAPI []byte

// openapi serves the contract.
func (h *handler) openapi(*call) (answer, error) {
	return answer{status: http.StatusOK, body: openAPI, contentType: "application/yaml", tagged: true}, nil
}
