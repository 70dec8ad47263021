package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/client"
)

const longest = time.Hour // a request that took longer began at an unknown time

// caddy reads the access log of Caddy, as JSON.
//
// It tells neither name nor account, except the user of basic authentication. A client
// is told by its User-Agent and by which header fields it sends.
type caddy struct {
	routes           []route
	success, failure []int
}

var errNoRoute = errors.New(`which requests are log-ins is not told: want at least one route such as "POST /login"`)

// route is a method, or *, and a path, or what it begins with.
type route struct {
	method, path string
	prefix       bool
}

func newCaddy(o Options) (*caddy, error) {
	p := &caddy{success: o.Success, failure: o.Failure}
	if len(o.Routes) == 0 {
		return nil, errNoRoute
	}
	for _, text := range o.Routes {
		method, path, ok := strings.Cut(text, " ")
		path = strings.TrimSpace(path)
		if !ok || method == "" || !strings.HasPrefix(path, "/") && path != "*" {
			return nil, fmt.Errorf(`route %.80q: want a method and a path, such as "POST /login"`, text)
		}
		r := route{method: strings.ToUpper(method)}
		r.path, r.prefix = strings.CutSuffix(path, "*")
		if strings.Contains(r.path, "*") {
			return nil, fmt.Errorf("route %.80q: a * is for the end of a path", text)
		}
		p.routes = append(p.routes, r)
	}
	if p.failure == nil {
		p.failure = []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity}
	}
	for _, code := range slices.Concat(p.success, p.failure) {
		if code < 100 || code > 999 {
			return nil, fmt.Errorf("status %d: want 100 to 999", code)
		}
		if slices.Contains(p.success, code) && slices.Contains(p.failure, code) {
			return nil, fmt.Errorf("status %d stands for success and for failure", code)
		}
	}
	return p, nil
}

func (r route) matches(method, uri string) bool {
	path, _, _ := strings.Cut(uri, "?")
	switch {
	case r.method != "*" && r.method != method:
		return false
	case r.prefix:
		return strings.HasPrefix(path, r.path)
	}
	return path == r.path || path == r.path+"/"
}

// handled is an entry of the log. Caddy writes times and durations in several ways,
// as it is configured.
type handled struct {
	TS      json.RawMessage `json:"ts"`
	UserID  string          `json:"user_id"`
	Status  int             `json:"status"`
	Took    json.RawMessage `json:"duration"`
	Request *struct {
		RemoteIP   string              `json:"remote_ip"`
		RemoteAddr string              `json:"remote_addr"` // until Caddy 2.5
		ClientIP   string              `json:"client_ip"`
		RemotePort string              `json:"remote_port"`
		Method     string              `json:"method"`
		URI        string              `json:"uri"`
		Headers    map[string][]string `json:"headers"`
	} `json:"request"`
	Answer map[string]json.RawMessage `json:"resp_headers"`
}

func (p *caddy) parse(line []byte, r *Reader, emit func(Attempt)) error {
	var e handled
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("not an entry of an access log: %w", err)
	}
	if e.Request == nil || e.Request.Method == "" {
		return errIgnored
	}
	if !slices.ContainsFunc(p.routes, func(r route) bool { return r.matches(e.Request.Method, e.Request.URI) }) {
		return errIgnored
	}
	a := Attempt{Correct: p.correct(&e)}
	if len(e.TS) > 0 && string(e.TS) != "null" {
		ended, err := timeOf(e.TS)
		if a.Event.Time = ended.Add(-took(e.Took)); err == nil && a.Event.Time.Unix() < 0 {
			err = errTime
		}
		if err != nil {
			return fmt.Errorf("ts %.80s: %w", e.TS, err)
		}
	}
	address := e.Request.ClientIP
	if address == "" {
		address = e.Request.RemoteIP
	}
	if address == "" {
		address = e.Request.RemoteAddr
	}
	if !a.setAddress(address) {
		if err := r.unsure("client_ip", address, "an IPv4 or IPv6 address"); err != nil {
			return err
		}
	}
	if address == e.Request.RemoteIP && a.Event.Source.Port == 0 {
		if _, port, ok := splitPort("h:" + e.Request.RemotePort); ok {
			a.Event.Source.Port = port
		}
	}
	names := make([]string, 0, len(e.Request.Headers))
	for name, values := range e.Request.Headers {
		names = append(names, name)
		if strings.EqualFold(name, "User-Agent") && len(values) > 0 {
			a.Event.Client.Family = bounded(client.Family(values[0]))
		}
	}
	a.Event.Client.Headers = client.Headers(names)
	if e.UserID != "" {
		a.setName(e.UserID)
		if a.Correct == Yes {
			a.Event.Account = detectors.Account(bounded(e.UserID))
		}
	}
	emit(a)
	return nil
}

// correct is how the log-in ended, as far as the answer tells.
func (p *caddy) correct(e *handled) Tri {
	switch {
	case slices.Contains(p.failure, e.Status):
		return No
	case p.success != nil:
		if slices.Contains(p.success, e.Status) {
			return Yes
		}
	case 200 <= e.Status && e.Status < 400:
		for name := range e.Answer {
			if strings.EqualFold(name, "Set-Cookie") {
				return Yes
			}
		}
	}
	return Unknown
}

// took is a duration in seconds, or written as 1.5s; 0 where it is of no use.
func took(v json.RawMessage) time.Duration {
	var seconds float64
	if json.Unmarshal(v, &seconds) == nil {
		if seconds > 0 && seconds < longest.Seconds() {
			return time.Duration(math.Round(seconds * 1e9))
		}
		return 0
	}
	var text string
	if json.Unmarshal(v, &text) == nil {
		if d, err := time.ParseDuration(text); err == nil && d > 0 && d < longest {
			return d
		}
	}
	return 0
}
