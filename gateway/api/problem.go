package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/once"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
)

// ErrUnavailable says that what an act needs is away for now, beside the record
// and the database, which have errors of their own for it. The client hears 503 and
// when to try again.
var ErrUnavailable = errors.New("not available now")

// The types of problems. Each is an address within the OpenAPI document, which
// says what to do.
const (
	typeForbidden   = "/v1/openapi.yaml#/x-problems/forbidden"
	typeRole        = "/v1/openapi.yaml#/x-problems/role"
	typeThrottled   = "/v1/openapi.yaml#/x-problems/throttled"
	typeNotFound    = "/v1/openapi.yaml#/x-problems/not-found"
	typeMethod      = "/v1/openapi.yaml#/x-problems/method"
	typeBroken      = "/v1/openapi.yaml#/x-problems/broken"
	typeMedia       = "/v1/openapi.yaml#/x-problems/media-type"
	typeTooLarge    = "/v1/openapi.yaml#/x-problems/too-large"
	typeInvalid     = "/v1/openapi.yaml#/x-problems/invalid"
	typeConflict    = "/v1/openapi.yaml#/x-problems/conflict"
	typeKeyReused   = "/v1/openapi.yaml#/x-problems/key-reused"
	typeNoFactors   = "/v1/openapi.yaml#/x-problems/no-factors"
	typeRebind      = "/v1/openapi.yaml#/x-problems/rebind"
	typeUnavailable = "/v1/openapi.yaml#/x-problems/unavailable"
	typeInternal    = "/v1/openapi.yaml#/x-problems/internal"
)

// Problem is a problem document (RFC 9457).
type Problem struct {
	Type     string  `json:"type"`
	Title    string  `json:"title"`
	Status   int     `json:"status"`
	Detail   string  `json:"detail,omitempty"`
	Instance string  `json:"instance"` // a reference; a line of the log about it has it too
	Errors   []Fault `json:"errors,omitempty"`

	retryAfter time.Duration
	cause      error // for the log
}

// Fault is one thing that is wrong with a request. Exactly one of the first three
// fields says where.
type Fault struct {
	Pointer   string `json:"pointer,omitempty"`   // into the body: a fragment with a JSON pointer (RFC 6901 section 6)
	Parameter string `json:"parameter,omitempty"` // of the query
	Header    string `json:"header,omitempty"`
	Detail    string `json:"detail"`
}

func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// invalid is the problem of a request that can be read and is wrong; nil without faults.
func invalid(faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	where := faults[0].Pointer + faults[0].Parameter + faults[0].Header
	return &Problem{Type: typeInvalid, Status: http.StatusUnprocessableEntity, Title: "The request is not valid", Detail: where + ": " + faults[0].Detail, Errors: faults}
}

func busy(why string) *Problem {
	return &Problem{Type: typeUnavailable, Status: http.StatusServiceUnavailable, Title: "Not now", Detail: why + ": try again shortly", retryAfter: time.Second}
}

// inBody turns the faults of a value into faults of the body that it came in.
func inBody(errs policies.FieldErrors) []Fault {
	faults := make([]Fault, len(errs))
	for i, e := range errs {
		faults[i] = Fault{Pointer: "#/" + e.Field, Detail: e.Message}
	}
	return faults
}

// problem is what the client may know of err. An error without a kind is a 500
// whose cause is logged, not shown.
func problem(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		copied := *p
		return &copied
	}
	if fields, ok := errors.AsType[policies.FieldErrors](err); ok {
		return invalid(inBody(fields)).(*Problem)
	}
	switch {
	case errors.Is(err, policies.ErrNotFound), errors.Is(err, auth.ErrNoSession), errors.Is(err, auth.ErrNoFactor), errors.Is(err, auth.ErrNoSlip):
		return &Problem{Type: typeNotFound, Status: http.StatusNotFound, Title: "There is no such thing", Detail: "it never was, or it is over"}
	case errors.Is(err, auth.ErrSessionEnded), errors.Is(err, auth.ErrExpired):
		return &Problem{Type: typeConflict, Status: http.StatusConflict, Title: "The session has ended already"}
	case errors.Is(err, policies.ErrNoMove):
		move, _ := errors.AsType[*policies.MoveError](err)
		return &Problem{Type: typeConflict, Status: http.StatusConflict, Title: "The incident is in a state that this does not follow", Detail: move.Error()}
	case errors.Is(err, auth.ErrRebind):
		return &Problem{Type: typeRebind, Status: http.StatusConflict, Title: "The authenticator was disabled after too many wrong attempts", Detail: "remove it; its owner binds it anew"}
	case errors.Is(err, policies.ErrFull):
		return &Problem{Type: typeUnavailable, Status: http.StatusServiceUnavailable, Title: "There are too many decisions", Detail: "lift some, or wait until some end", retryAfter: time.Minute, cause: err}
	case errors.Is(err, once.ErrFull):
		return &Problem{Type: typeUnavailable, Status: http.StatusServiceUnavailable, Title: "Too much is remembered already", Detail: "the signatures of the last minutes, or this operator's keys of the last day, are too many", retryAfter: time.Minute, cause: err}
	case errors.Is(err, ErrUnavailable), errors.Is(err, record.ErrUnavailable), errors.Is(err, auth.ErrUncertain), errors.Is(err, policies.ErrUncertain),
		errors.Is(err, context.Canceled), storage.Unavailable(err):
		return &Problem{Type: typeUnavailable, Status: http.StatusServiceUnavailable, Title: "Not available now", Detail: "what this needs is away, such as the database or the record: try again; to repeat an act does no harm", retryAfter: 5 * time.Second, cause: err}
	}
	return &Problem{Type: typeInternal, Status: http.StatusInternalServerError, Title: "Something failed here", Detail: "the log has the cause, under this reference", cause: err}
}

// fail renders err.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem(err)
	if p.Instance == "" {
		p.Instance = newReference()
	}
	if p.cause != nil {
		h.Log.Error("operators' API", "method", r.Method, "path", r.URL.Path, "status", p.Status, "reference", p.Instance, "error", p.cause)
	}
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((p.retryAfter+time.Second-1)/time.Second)))
	}
	send(w, r, answer{status: p.Status, body: p, contentType: "application/problem+json"})
}

// newReference names one problem, for the client and the log.
func newReference() string {
	var b [8]byte
	rand.Read(b[:])
	return "urn:kidoban:problem:" + hex.EncodeToString(b[:])
}
