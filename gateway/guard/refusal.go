package guard

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// OwnPath is where the gate's own pages live. The backend never sees it.
const OwnPath = "/.kidoban/"

// refusal is an answer of ours in place of the backend's. What the client hears
// (a kind of problem and a reference) and what the log keeps (the reason, the
// rule) are different things: a client never learns which detector spoke.
type refusal struct {
	status     int
	reason     policies.Reason
	action     rules.Action
	reference  string
	retryAfter time.Duration
	limit      *limits.Decision // whose numbers an API client may see
	cookies    []string
	again      string // a path of this site that a browser asks for instead; empty: none

	hold       *auth.Hold // that the client waits with; nil: none
	continueAt string     // the address where a person finishes it
	rendering  map[string]policies.Rendering
	failure    map[string]policies.Rendering // the backend's own, to be given instead; nil: ours
	site       pages.Site
}

// unavailable is the verdict when the stores that sessions need cannot answer.
var unavailable = policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonStorageUnavailable}

// refuse counts verdict under c and returns its refusal, observed or not: for
// what the gate cannot let pass whatever the mode.
func (v *visit) refuse(c Control, verdict policies.Verdict) *refusal {
	v.count(c, verdict, false, v.session != nil)
	return v.refusal(verdict)
}

// refusal words a verdict for the client and writes the log line that its
// reference leads to.
func (v *visit) refusal(x policies.Verdict) *refusal {
	r := &refusal{reason: x.Reason, action: x.Action, reference: newReference(), status: http.StatusForbidden, site: v.guard.site}
	switch x.Reason {
	case policies.ReasonLimit:
		r.status = http.StatusTooManyRequests
	case policies.ReasonStorageUnavailable:
		r.status, r.retryAfter = http.StatusServiceUnavailable, 5*time.Second
	case policies.ReasonIdentifyFailed:
		r.status, r.retryAfter = http.StatusBadGateway, 5*time.Second
	case policies.ReasonSessionEnded:
		r.status = http.StatusUnauthorized
	}
	if r.retryAfter == 0 && !x.Until.IsZero() && x.Until.After(v.now) {
		r.retryAfter = x.Until.Sub(v.now)
		if v.class != detectors.Other {
			r.retryAfter = limits.LoginRetryAfter(r.retryAfter, jitter())
		}
	}
	if x.Action == rules.Deceive && v.login != nil {
		r.failure = v.guard.backend.Login.Failure
	}
	if v.stale {
		r.cookies = append(r.cookies, clearedSessionCookie)
	}
	v.guard.refer(policies.Reference{Name: r.reference, Rule: x.Rule, Decision: x.Decision, Finding: x.Finding})
	v.guard.Log.Info("refused", "reference", r.reference, "action", x.Action.String(), "reason", string(x.Reason),
		"rule", string(x.Rule), "decision", x.Decision, "route", v.routeName(), "source", v.source.Network.String(), "until", moment(x.Until))
	return r
}

// problem is an RFC 9457 problem document.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Reference string `json:"reference,omitempty"`

	// Of a login that is held, as in RFC 8628 section 3.2: the address where a person
	// goes on, the code to type there, and until when.
	Continue string    `json:"continue,omitempty"`
	Code     string    `json:"code,omitempty"`
	Until    time.Time `json:"until,omitzero"`
}

// writeHeld tells a client that a factor is needed: browsers by leading them to the
// page that asks for it, programs in words for the person who uses them, in the
// backend's own form where the preset has one.
func (r *refusal) writeHeld(w http.ResponseWriter, req *http.Request, lang string) error {
	if wantsHTML(req) {
		return redirect(w, OwnPath+"factor")
	}
	h := w.Header()
	text := pages.Text(pages.FactorNeeded, lang)
	detail := pages.HeldDetail(lang, r.continueAt, r.hold.Code)
	h.Set("Content-Language", lang)
	if own, ok := r.rendering["json"]; ok {
		own = own.Fill(policies.Wording{Continue: r.continueAt, Code: r.hold.Code, Title: text.Title, Detail: detail})
		for name, value := range own.Header {
			h.Set(name, value)
		}
		h.Set("Content-Type", own.ContentType)
		h.Set("Content-Length", strconv.Itoa(len(own.Body)))
		w.WriteHeader(own.Status)
		_, err := io.WriteString(w, own.Body)
		return err
	}
	// RFC 9110 section 11.6.1 wants a challenge with a 401. No browser has a dialog for
	// this one.
	h.Set("WWW-Authenticate", `Kidoban continue="`+r.continueAt+`"`)
	body, err := json.Marshal(problem{
		Type: OwnPath + "problems/" + string(pages.FactorNeeded), Title: text.Title, Status: r.status, Detail: detail,
		Reference: r.reference, Continue: r.continueAt, Code: r.hold.Code, Until: r.hold.Expires.UTC().Truncate(time.Second),
	})
	if err != nil {
		return err
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(r.status)
	_, err = w.Write(body)
	return err
}

// failed is the backend's own answer to a wrong password, in the form that the client
// takes, where the refusal is to look like that and the preset knows how. Else it
// looks like any other refusal.
func (r *refusal) failed(req *http.Request) (policies.Rendering, bool) {
	kind := "json"
	if wantsHTML(req) {
		kind = "html"
	}
	answer, ok := r.failure[kind]
	return answer, ok
}

// deceives reports whether the refusal looks like a wrong password.
func (r *refusal) deceives(req *http.Request) bool {
	_, ok := r.failed(req)
	return ok
}

// kind is the problem type as the client hears it.
func (r *refusal) kind() pages.Kind {
	switch {
	case r.action == rules.StepUp:
		return pages.StepUp
	case r.status == http.StatusTooManyRequests:
		return pages.Limited
	case r.status == http.StatusServiceUnavailable, r.status == http.StatusBadGateway:
		return pages.Unavailable
	case r.status == http.StatusUnauthorized:
		return pages.SessionEnded
	case r.status == http.StatusTooEarly:
		return pages.TooEarly
	case r.status == http.StatusForbidden:
		return pages.Refused
	}
	return pages.BadRequest
}

func (r *refusal) write(w http.ResponseWriter, req *http.Request) error {
	if answer, ok := r.failed(req); ok {
		return writeRendering(w, answer)
	}
	h := w.Header()
	for _, line := range r.cookies {
		h.Add("Set-Cookie", line)
	}
	h.Set("Cache-Control", "no-store")
	if req.ProtoMajor == 1 && req.Header.Get("Expect") != "" {
		// The client waits to hear whether to send its body, and is told now. Without
		// this the server would wait for the body before it sends the answer.
		h.Set("Connection", "close")
	}
	if r.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((r.retryAfter+time.Second-1)/time.Second)))
	}
	if r.limit != nil {
		limits.SetFields(h, *r.limit)
	}
	if r.again != "" {
		return redirect(w, r.again)
	}
	lang := pages.Language(req)
	if r.hold != nil {
		return r.writeHeld(w, req, lang)
	}
	if wantsHTML(req) {
		return r.site.Write(w, req, r.status, lang, pages.Page{Kind: r.kind(), Reference: r.reference, RetryAfter: r.retryAfter})
	}
	text := pages.Text(r.kind(), lang)
	body, err := json.Marshal(problem{
		Type: OwnPath + "problems/" + string(r.kind()), Title: text.Title, Status: r.status, Detail: text.Detail, Reference: r.reference,
	})
	if err != nil {
		return err
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Language", lang)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(r.status)
	if req.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(body)
	return err
}

// wantsHTML tells a browser's navigation or form from a program.
func wantsHTML(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Mode") {
	case "navigate":
		return true
	case "cors", "no-cors", "same-origin", "websocket":
		return false
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// referenceAlphabet is Crockford's base 32: no letter looks like a digit, so that
// a reference survives being read out on the telephone.
const referenceAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newReference returns a code under which a person and the log find each other.
func newReference() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	for i := range b {
		b[i] = referenceAlphabet[b[i]%32]
	}
	return string(b[:4]) + "-" + string(b[4:])
}

// jitter is a random number in [0, 1), for times that clients are told.
func jitter() float64 {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<20))
	if err != nil {
		return 0
	}
	return float64(n.Int64()) / (1 << 20)
}
