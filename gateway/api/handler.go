package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/gateway/api/sigv4"
)

// handler is a Server with its budget.
type handler struct {
	*Server
	slots    chan struct{} // one for each call that is under way
	suspects chan struct{} // one for each signed call that is being verified for a source that failed too often
	failures *failures
	verifier *sigv4.Verifier
	mux      *http.ServeMux
}

// call is one call of an operator.
type call struct {
	*http.Request
	operator operator
	body     []byte
	query    url.Values // each parameter once, none unknown
}

// answer is what a call is answered when it succeeds.
type answer struct {
	status      int
	body        any // rendered as JSON, or []byte
	contentType string
	location    string
	tagged      bool // has an ETag, and answers If-None-Match
	replayed    bool // is the answer of an earlier call
	kept        any  // the body that later calls under the same Idempotency-Key get; nil: the same
}

// operation is what a method does with a resource.
type operation struct {
	needs      Role
	parameters []string // of the query
	do         func(*call) (answer, error)
}

// routes is all there is. HEAD goes with GET.
func (h *handler) routes() {
	for pattern, methods := range map[string]map[string]operation{
		"/v1/openapi.yaml": {"GET": {Viewer, nil, h.openapi}},
		"/v1/health":       {"GET": {Viewer, nil, h.health}},
		"/v1/decisions": {
			"GET":  {Viewer, []string{"scope", "value", "address", "origin", "by", "rule", "state", "cursor", "limit"}, h.listDecisions},
			"POST": {Responder, nil, h.registerDecision},
		},
		"/v1/decisions/{id}": {
			"GET":    {Viewer, nil, h.getDecision},
			"DELETE": {Responder, nil, h.liftDecision},
		},
		"/v1/rules":              {"GET": {Viewer, nil, h.listRules}},
		"/v1/rules/{id}":         {"GET": {Viewer, nil, h.getRule}},
		"/v1/rules/{id}/restore": {"POST": {Responder, nil, h.restoreRule}},
		"/v1/rules/{id}/undo": {
			"GET":  {Viewer, []string{"from", "to"}, h.previewUndo},
			"POST": {Responder, []string{"from", "to"}, h.undo},
		},
		"/v1/counters":               {"GET": {Viewer, nil, h.listCounters}},
		"/v1/exemptions":             {"GET": {Viewer, nil, h.listExemptions}},
		"/v1/incidents":              {"GET": {Viewer, []string{"state", "cursor", "limit"}, h.listIncidents}},
		"/v1/incidents/{id}":         {"GET": {Viewer, nil, h.getIncident}},
		"/v1/incidents/{id}/state":   {"POST": {Responder, nil, h.moveIncident}},
		"/v1/findings/{name}":        {"GET": {Viewer, nil, h.explain}},
		"/v1/findings/{name}/benign": {"POST": {Responder, nil, h.markBenign}},
		"/v1/events":                 {"GET": {Viewer, []string{"from", "to", "account", "source", "session", "outcome", "kind", "cursor", "limit"}, h.events}},
		"/v1/report":                 {"GET": {Viewer, []string{"from", "to"}, h.report}},
		"/v1/accounts/{account}/sessions": {
			"GET":    {Viewer, nil, h.listSessions},
			"DELETE": {Responder, nil, h.endSessions},
		},
		"/v1/sessions/{id}":                           {"DELETE": {Responder, nil, h.endSession}},
		"/v1/accounts/{account}/factors":              {"GET": {Viewer, nil, h.listFactors}},
		"/v1/accounts/{account}/factors/{id}":         {"DELETE": {Responder, nil, h.removeFactor}},
		"/v1/accounts/{account}/factors/{id}/disable": {"POST": {Responder, nil, h.disableFactor}},
		"/v1/accounts/{account}/factors/{id}/enable":  {"POST": {Responder, nil, h.enableFactor}},
		"/v1/accounts/{account}/enrolment-codes":      {"POST": {Responder, nil, h.issueEnrolmentCode}},
		"/v1/accounts/{account}/recovery/cancel":      {"POST": {Responder, nil, h.cancelRecovery}},
		"/v1/accounts/{account}/devices":              {"GET": {Viewer, nil, h.listDevices}},
		"/v1/accounts/{account}/history":              {"GET": {Viewer, []string{"limit"}, h.history}},
	} {
		h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { h.resource(w, r, methods) })
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { h.fail(w, r, errNoResource) })
}

var errNoResource = &Problem{Type: typeNotFound, Status: http.StatusNotFound, Title: "There is no such resource"}

type callKey struct{}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		h.fail(w, r, busy("at most "+strconv.Itoa(maxCalls)+" calls at once"))
		return
	}
	if headerSize(r) > maxHeader {
		h.fail(w, r, &Problem{Type: typeTooLarge, Status: http.StatusRequestHeaderFieldsTooLarge, Title: "The headers are too large", Detail: "at most " + strconv.Itoa(maxHeader) + " bytes"})
		return
	}
	// A server that cannot set a deadline for one request has one for all.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(callTime))
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	c := new(call)
	c.Request = r.WithContext(context.WithValue(ctx, callKey{}, c))
	if err := h.authenticate(w, c); err != nil {
		h.fail(w, r, err)
		return
	}
	if sent := r.URL.EscapedPath(); path.Clean(sent) != sent {
		h.fail(w, r, errNoResource)
		return
	}
	h.mux.ServeHTTP(w, c.Request)
}

func headerSize(r *http.Request) int {
	n := len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v)
		}
	}
	return n
}

// readBody reads the body of a call once.
func (c *call) readBody(w http.ResponseWriter) error {
	if c.body != nil {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, c.Body, maxBody))
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return &Problem{Type: typeTooLarge, Status: http.StatusRequestEntityTooLarge, Title: "The body is too large", Detail: "at most " + strconv.Itoa(maxBody) + " bytes"}
		}
		return &Problem{Type: typeBroken, Status: http.StatusBadRequest, Title: "The body could not be read", Detail: "it was cut off, or took longer than " + callTime.String()}
	}
	c.body = append([]byte{}, body...)
	return nil
}

func (h *handler) resource(w http.ResponseWriter, r *http.Request, methods map[string]operation) {
	c := r.Context().Value(callKey{}).(*call)
	c.Request = r
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	op, ok := methods[method]
	if !ok {
		w.Header().Set("Allow", allow(methods))
		if method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h.fail(w, r, &Problem{Type: typeMethod, Status: http.StatusMethodNotAllowed, Title: "The resource does not have this method", Detail: "want one of " + allow(methods)})
		return
	}
	err := c.operator.may(op.needs)
	if err == nil {
		err = c.parseQuery(op.parameters)
	}
	if err == nil {
		err = c.readBody(w)
	}
	var a answer
	if err == nil {
		a, err = op.do(c)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	send(w, r, a)
}

func allow(methods map[string]operation) string {
	names := []string{http.MethodOptions}
	for m := range methods {
		names = append(names, m)
		if m == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// parseQuery reads the query, whose parameters may each be given once.
func (c *call) parseQuery(known []string) error {
	q, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return &Problem{Type: typeBroken, Status: http.StatusBadRequest, Title: "The query cannot be read", Detail: "write name=value pairs with & between, encoded with percent signs"}
	}
	var faults []Fault
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			faults = append(faults, Fault{Parameter: cut(name), Detail: "is not known: this takes no parameters"})
		case !slices.Contains(known, name):
			faults = append(faults, Fault{Parameter: cut(name), Detail: "is not known: want " + strings.Join(known, ", ")})
		case len(q[name]) > 1:
			faults = append(faults, Fault{Parameter: name, Detail: "is given " + strconv.Itoa(len(q[name])) + " times: once is enough"})
		}
	}
	c.query = q
	return invalid(faults)
}

// cut bounds what is repeated to the client.
func cut(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// send renders an answer.
func send(w http.ResponseWriter, r *http.Request, a answer) {
	body, ok := a.body.([]byte)
	if !ok {
		var err error
		if body, err = render(a.body); err != nil {
			http.Error(w, "encoding the answer failed", http.StatusInternalServerError)
			return
		}
	}
	if a.contentType == "" {
		a.contentType = "application/json"
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if a.location != "" {
		h.Set("Location", a.location)
	}
	if a.replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	if a.tagged {
		// Whoever keeps an answer asks again before using it.
		h.Set("Cache-Control", "private, no-cache")
		tag := etag(body)
		h.Set("ETag", tag)
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	w.Write(body) // a client that went away is not our failure
}

func render(v any) ([]byte, error) {
	body, err := json.MarshalIndent(v, "", "  ")
	return append(body, '\n'), err
}

// etag is a strong validator: equal for equal bytes.
func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// matches compares weakly, as If-None-Match wants it (RFC 9110 section 13.1.2).
func matches(fields []string, tag string) bool {
	for _, field := range fields {
		for part := range strings.SplitSeq(field, ",") {
			if part = strings.TrimSpace(part); part == "*" || strings.TrimPrefix(part, "W/") == tag {
				return true
			}
		}
	}
	return false
}
