package policies

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kidoban/kidoban/detectors"
)

// RoutePolicy is how often services may be asked for what sends mail, makes
// accounts, changes who owns one, or hands out tokens: OWASP ASVS 5.0 2.4.1.
type RoutePolicy struct {
	// Answer is how long after the request an answer is given that tells nothing: see
	// [RequestForm].
	Answer time.Duration `json:"answer_ns"`

	Reset          RouteAllowances `json:"reset"`
	Signup         RouteAllowances `json:"signup"`
	Invite         RouteAllowances `json:"invite"`
	ChangePassword RouteAllowances `json:"change_password"`
	ChangeEmail    RouteAllowances `json:"change_email"`
	TokenMint      RouteAllowances `json:"token_mint"`
}

// RouteAllowances are the allowances of one class of routes. The zero Allowance does
// not limit.
type RouteAllowances struct {
	Target       Allowance `json:"target,omitzero"`       // per mail address or name that is written to
	Network      Allowance `json:"network,omitzero"`      // per counting network
	Device       Allowance `json:"device,omitzero"`       // per device cookie; instead of target and network where the target's account knows the device
	Account      Allowance `json:"account,omitzero"`      // per account that asks
	Organization Allowance `json:"organization,omitzero"` // per organization of that account
}

// CountedClasses are the classes of routes that have allowances of their own.
func CountedClasses() []detectors.RouteClass {
	return []detectors.RouteClass{
		detectors.Reset, detectors.Signup, detectors.Invite, detectors.ChangePassword, detectors.ChangeEmail, detectors.TokenMint,
	}
}

// Of are the allowances of a class; those of one that has none are zero.
func (p *RoutePolicy) Of(class detectors.RouteClass) RouteAllowances {
	if a := p.of(class); a != nil {
		return *a
	}
	return RouteAllowances{}
}

func (p *RoutePolicy) of(class detectors.RouteClass) *RouteAllowances {
	switch class {
	case detectors.Reset:
		return &p.Reset
	case detectors.Signup:
		return &p.Signup
	case detectors.Invite:
		return &p.Invite
	case detectors.ChangePassword:
		return &p.ChangePassword
	case detectors.ChangeEmail:
		return &p.ChangeEmail
	case detectors.TokenMint:
		return &p.TokenMint
	}
	return nil
}

// read reads the block routes over p.
func (p *RoutePolicy) read(d *document, n *yaml.Node) {
	fields := map[string]func(*yaml.Node){
		"answer": func(n *yaml.Node) { p.Answer = d.duration(n, "answer", 10*time.Millisecond, 10*time.Second) },
	}
	for _, class := range CountedClasses() {
		a, what := p.of(class), "routes."+string(class)
		fields[string(class)] = func(n *yaml.Node) {
			d.mapping(n, what, map[string]func(*yaml.Node){
				"target":       func(n *yaml.Node) { d.allowanceOrNone(n, what+".target", &a.Target) },
				"network":      func(n *yaml.Node) { d.allowanceOrNone(n, what+".network", &a.Network) },
				"device":       func(n *yaml.Node) { d.allowanceOrNone(n, what+".device", &a.Device) },
				"account":      func(n *yaml.Node) { d.allowanceOrNone(n, what+".account", &a.Account) },
				"organization": func(n *yaml.Node) { d.allowanceOrNone(n, what+".organization", &a.Organization) },
			})
		}
	}
	d.mapping(n, "routes", fields)
}

// allowanceOrNone reads an allowance, or none.
func (d *document) allowanceOrNone(n *yaml.Node, what string, a *Allowance) {
	if n.Kind == yaml.ScalarNode && n.Value == "none" {
		*a = Allowance{}
		return
	}
	d.allowance(n, what, a)
	if n.Kind == yaml.MappingNode && (a.Burst == 0 || a.Every == 0) {
		d.fault(n, "%s has no value to keep: write both burst and every, or none", what)
	}
}

// RequestForm is what a preset says of the requests of a class of routes that ask
// for a mail.
//
// Where they are uniform, whoever asks gets one answer at one time, whether the
// account exists or not (OWASP ASVS 5.0 6.3.8). The backend's answer is not passed on
// then, with whatever it hands out.
type RequestForm struct {
	// Target is where the address or name is that mail goes to.
	Target Fields `json:"target,omitzero"`
	// Paths are the paths of the class that ask for a mail. Without any they are those
	// whose last segment is no {x}: what follows a mailed link has the link's secret
	// there.
	Paths []string `json:"paths,omitempty"`
	// Uniform is whether answers are.
	Uniform bool `json:"uniform"`
	// Untouched are paths among them whose answers are not, because clients need the
	// backend's.
	Untouched []string `json:"untouched,omitempty"`
	// Answers is how the backend says that a mail was sent, by the kind of client: html,
	// json. Where a kind is missing the gate's own words are used.
	Answers map[string]Rendering `json:"answers,omitempty"`
	// Errors are answers of the backend that say the request itself is wrong, whoever it
	// is about. They are passed on, without their headers.
	Errors []Condition `json:"errors,omitempty"`

	paths     []Route
	untouched []Route
	named     bool // Target is the preset's
}

// defaultTargets are the fields in which services expect an address or a name.
var defaultTargets = []string{"email", "mail", "address", "username", "login", "identity"}

// Request is what is known of a request of a class whose canonical path asks for a
// mail; ok is false of every other.
func (b *Backend) Request(class detectors.RouteClass, canonicalPath string) (form RequestForm, ok bool) {
	form, said := b.Requests[class]
	if !said {
		form.Uniform = class == detectors.Reset
	}
	if len(form.Target.Form)+len(form.Target.JSON) == 0 {
		form.Target = Fields{Form: defaultTargets}
	} else {
		form.named = true
	}
	covers := func(r Route) bool { return r.covers(canonicalPath) }
	form.Uniform = form.Uniform && !slices.ContainsFunc(form.untouched, covers)
	if len(form.paths) > 0 {
		return form, slices.ContainsFunc(form.paths, covers)
	}
	for _, r := range b.Routes {
		switch {
		case r.Class != class || !r.covers(canonicalPath):
		case !strings.HasSuffix(r.Path, "}"):
			return form, true
		case r.rest:
			ok = true
		}
	}
	if ok {
		form.Uniform = false // what follows a mailed link may be there too, and its answer is needed
	}
	return form, ok
}

// Named reports whether the preset names the fields of the target: else they are
// guessed, and may be written, or lie, otherwise.
func (f *RequestForm) Named() bool { return f.named }

// Wrong reports whether an answer says that the request itself is wrong.
func (f *RequestForm) Wrong(a Answer) bool { return newReading(a).any(f.Errors) }

// requests reads the key requests.
func (d *document) requests(n *yaml.Node) map[detectors.RouteClass]RequestForm {
	forms := make(map[detectors.RouteClass]RequestForm)
	fields := map[string]func(*yaml.Node){
		string(detectors.MessageRoute): func(n *yaml.Node) {
			var f RequestForm // it asks for no mail
			d.mapping(n, "requests.message", map[string]func(*yaml.Node){
				"target": func(n *yaml.Node) { f.Target = d.fields(n, "requests.message.target") },
			})
			forms[detectors.MessageRoute] = f
		},
	}
	for _, class := range CountedClasses() {
		fields[string(class)] = func(n *yaml.Node) { forms[class] = d.requestForm(n, "requests."+string(class), class) }
	}
	d.mapping(n, "requests", fields)
	return forms
}

func (d *document) requestForm(n *yaml.Node, what string, class detectors.RouteClass) RequestForm {
	f := RequestForm{Uniform: class == detectors.Reset}
	d.mapping(n, what, map[string]func(*yaml.Node){
		"target": func(n *yaml.Node) { f.Target = d.fields(n, what+".target") },
		"paths": func(n *yaml.Node) {
			d.list(n, what+".paths", 16, func(n *yaml.Node) {
				r := d.path(n, Route{})
				f.Paths, f.paths = append(f.Paths, r.Path), append(f.paths, r)
			})
		},
		"untouched": func(n *yaml.Node) {
			d.list(n, what+".untouched", 16, func(n *yaml.Node) {
				r := d.path(n, Route{})
				f.Untouched, f.untouched = append(f.Untouched, r.Path), append(f.untouched, r)
			})
		},
		"uniform": func(n *yaml.Node) {
			if f.Uniform = n.Kind != yaml.ScalarNode || n.Value != "none"; !f.Uniform {
				return
			}
			f.Answers = make(map[string]Rendering)
			kinds := make(map[string]func(*yaml.Node))
			for _, kind := range []string{"html", "json"} {
				kinds[kind] = func(n *yaml.Node) { f.Answers[kind] = d.rendering(n, what+".uniform."+kind) }
			}
			d.mapping(n, what+".uniform", kinds)
		},
		"errors": func(n *yaml.Node) { f.Errors = d.conditions(n, what+".errors") },
	})
	return f
}
