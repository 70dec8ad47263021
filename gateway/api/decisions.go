package api

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/go-playground/validator/v10"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

type decisionPage struct {
	Decisions []policies.Decision `json:"decisions"`
	Next      string              `json:"next,omitempty"` // cursor of the next page
}

func (h *handler) listDecisions(c *call) (answer, error) {
	q := policies.DecisionQuery{
		Scope: policies.Scope(c.query.Get("scope")), Value: c.query.Get("value"), Address: c.query.Get("address"),
		Origin: policies.Origin(c.query.Get("origin")), By: c.query.Get("by"), Rule: rules.ID(c.query.Get("rule")),
		State: c.query.Get("state"), Cursor: c.query.Get("cursor"),
	}
	var faults []Fault
	switch q.State {
	case "":
		q.State = "live"
	case "any":
		q.State = ""
	case "live", "ended":
	default:
		faults = append(faults, Fault{Parameter: "state", Detail: "want live, ended or any"})
	}
	switch q.Origin {
	case "", policies.OriginRule, policies.OriginOperator, policies.OriginPlaybook:
	default:
		faults = append(faults, Fault{Parameter: "origin", Detail: "want rule, operator or playbook"})
	}
	if q.Value != "" && q.Scope == "" {
		faults = append(faults, Fault{Parameter: "value", Detail: "needs scope beside it"})
	}
	q.Limit = c.limit(50, 200, &faults)
	if err := invalid(faults); err != nil {
		return answer{}, err
	}
	list, next, err := h.Decisions.List(c.Context(), q, h.Now())
	if fields, ok := errors.AsType[policies.FieldErrors](err); ok {
		for _, f := range fields {
			faults = append(faults, Fault{Parameter: f.Field, Detail: f.Message})
		}
		return answer{}, invalid(faults)
	}
	if list == nil {
		list = []policies.Decision{}
	}
	return answer{status: http.StatusOK, body: decisionPage{list, next}, tagged: true}, err
}

// limit reads the parameter of that name.
func (c *call) limit(usual, most int, faults *[]Fault) int {
	text := c.query.Get("limit")
	if text == "" && !c.query.Has("limit") {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		*faults = append(*faults, Fault{Parameter: "limit", Detail: fmt.Sprintf("want a number from 1 to %d", most)})
		return usual
	}
	return n
}

// time reads a parameter that is a time; zero where it is not given.
func (c *call) time(name string, faults *[]Fault) time.Time {
	if !c.query.Has(name) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, c.query.Get(name))
	if err != nil {
		*faults = append(*faults, Fault{Parameter: name, Detail: "want a time such as 2026-01-31T09:00:00Z"})
	}
	return t
}

// registration is what POST /v1/decisions takes.
type registration struct {
	Scope  string `json:"scope" validate:"required"`
	Value  string `json:"value" validate:"required"`
	Action string `json:"action" validate:"omitempty,oneof=allow delay step_up refuse deceive"`
	Mode   string `json:"mode" validate:"omitempty,oneof=enforce shadow"`
	TTL    string `json:"ttl" validate:"excluded_with=Until,required_without=Until,omitempty,ttl"`
	Until  string `json:"until" validate:"omitempty,datetime=2006-01-02T15:04:05Z07:00"`
	Reason string `json:"reason" validate:"required"`
	Force  bool   `json:"force"`
}

// checks is what the tags of a registration mean.
var checks = func() *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(f reflect.StructField) string { return f.Tag.Get("json") })
	err := v.RegisterValidation("ttl", func(f validator.FieldLevel) bool {
		d, err := time.ParseDuration(f.Field().String())
		return err == nil && d > 0
	})
	if err != nil {
		panic(err) // the tag is not a name
	}
	return v
}()

// advice is what to write instead, by the rule that was broken.
var advice = map[string]string{
	"required":         "is missing",
	"oneof":            "is none of: ",
	"ttl":              "want a duration such as 30s, 15m or 24h",
	"datetime":         "want a time such as 2026-01-31T09:00:00Z",
	"excluded_with":    "give until or ttl, not both",
	"required_without": "is missing: every decision ends; give until or ttl",
}

// decision is the decision that is asked for, with every fault there is.
func (in registration) decision(by string, now time.Time) (policies.Decision, error) {
	var faults []Fault
	if err := checks.Struct(in); err != nil {
		broken, ok := errors.AsType[validator.ValidationErrors](err)
		if !ok {
			return policies.Decision{}, err
		}
		for _, b := range broken {
			detail := advice[b.Tag()]
			if b.Tag() == "oneof" {
				detail += b.Param()
			}
			faults = append(faults, Fault{Pointer: "#/" + b.Field(), Detail: detail})
		}
	}
	d := policies.Decision{
		Scope: policies.Scope(in.Scope), Value: in.Value, Action: rules.Refuse, Mode: rules.Mode(in.Mode),
		Origin: policies.OriginOperator, By: by, Reason: in.Reason, Created: now, Force: in.Force,
	}
	if action, err := rules.ParseAction(in.Action); err == nil {
		d.Action = action
	}
	d.Until, _ = time.Parse(time.RFC3339, in.Until)
	if ttl, err := time.ParseDuration(in.TTL); err == nil && in.Until == "" {
		d.Until = now.Add(ttl)
	}
	// What policies finds beside is named in the words of the body.
	if fields, ok := errors.AsType[policies.FieldErrors](d.Validate()); ok {
		for _, f := range inBody(fields) {
			if f.Pointer == "#/until" && in.Until == "" {
				f.Pointer = "#/ttl"
			}
			if !slices.ContainsFunc(faults, func(g Fault) bool {
				return g.Pointer == f.Pointer || g.Pointer == "#/ttl" && f.Pointer == "#/until"
			}) {
				faults = append(faults, f)
			}
		}
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(position(a), position(b)) })
	return d, invalid(faults)
}

// position is where the member at fault stands in a registration.
func position(f Fault) int {
	i := 0
	for field := range reflect.TypeFor[registration]().Fields() {
		if f.Pointer == "#/"+field.Tag.Get("json") {
			break
		}
		i++
	}
	return i
}

func (h *handler) registerDecision(c *call) (answer, error) {
	return h.underKey(c, func() (answer, error) {
		var in registration
		if err := decode(c, &in); err != nil {
			return answer{}, err
		}
		want, err := in.decision(c.operator.name, h.Now())
		if err != nil {
			return answer{}, err
		}
		want.Created = time.Time{}
		d, created, err := h.Acts.RegisterDecision(c.Context(), want)
		if err != nil {
			return answer{}, err
		}
		h.Log.Info("decision registered", "operator", c.operator.name, "decision", d.ID, "scope", string(d.Scope), "value", d.Value,
			"action", d.Action.String(), "until", d.Until, "created", created)
		a := answer{status: http.StatusOK, body: d}
		if created {
			a.status, a.location = http.StatusCreated, "/v1/decisions/"+url.PathEscape(d.ID)
		}
		return a, nil
	})
}

func (h *handler) getDecision(c *call) (answer, error) {
	d, err := h.Decisions.Get(c.Context(), c.PathValue("id"), h.Now())
	return answer{status: http.StatusOK, body: d, tagged: true}, err
}

func (h *handler) liftDecision(c *call) (answer, error) {
	d, err := h.Acts.LiftDecision(c.Context(), c.PathValue("id"), c.operator.name)
	if err != nil {
		return answer{}, err
	}
	h.Log.Info("decision lifted", "operator", c.operator.name, "decision", d.ID)
	return answer{status: http.StatusOK, body: d}, nil
}
