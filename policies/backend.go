package policies

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/kidoban/kidoban/detectors"
)

//go:embed backends/*.yaml
var shippedBackends embed.FS

// Backend describes a protected service: a preset, as it was read. It does not
// change and is safe for concurrent use. README.md explains every field to those
// who write one.
type Backend struct {
	Name        string       `json:"name"`
	Title       string       `json:"title,omitempty"`
	Routes      []Route      `json:"routes"`
	Login       LoginForm    `json:"login"`
	Success     []Condition  `json:"success"`
	Failure     []Condition  `json:"failure"`
	Undecided   []Condition  `json:"undecided,omitempty"` // as it should be, and says nothing of the password
	Credentials []Credential `json:"credentials"`
	Identify    Whoami       `json:"identify"`
	Logout      *Call        `json:"logout,omitempty"`
	Clients     []Client     `json:"clients,omitempty"`

	// Held is the answer to a log-in that waits for a second factor, by the kind of
	// client: html, json. A kind that is missing gets the gate's own. Its location,
	// headers and body may hold the placeholders that [Rendering.Fill] fills in.
	Held     map[string]Rendering                 `json:"hold,omitempty"`
	Requests map[detectors.RouteClass]RequestForm `json:"requests,omitempty"`

	routes routes
}

// LoginForm is where a log-in has the name and the password, and how the backend
// answers a wrong one.
type LoginForm struct {
	Name     Fields `json:"name"`
	Password Fields `json:"password"`
	// Failure is the backend's own answer to a wrong password, by the kind of
	// client: html, json. A kind that is missing cannot be deceived.
	Failure map[string]Rendering `json:"failure,omitempty"`
}

// Fields are the places where a value may be; the first that is there counts.
type Fields struct {
	Form []string `json:"form,omitempty"` // fields of a form
	JSON []string `json:"json,omitempty"` // JSON pointers
}

// Rendering is an answer to give instead of the backend's.
type Rendering struct {
	Status      int               `json:"status"`
	ContentType string            `json:"content_type,omitempty"`
	Location    string            `json:"location,omitempty"`
	Header      map[string]string `json:"header,omitempty"`
	Body        string            `json:"body,omitempty"`
}

// Call is a request to make to the backend.
type Call struct {
	Method string `json:"method"`
	Path   string `json:"path"`
}

// CredentialKind is where a request carries a credential.
type CredentialKind string

const (
	CookieCredential CredentialKind = "cookie"
	HeaderCredential CredentialKind = "header"
	BearerCredential CredentialKind = "bearer"
	BasicCredential  CredentialKind = "basic"
)

// UnknownCredential is what to do with a credential that belongs to no session.
type UnknownCredential string

const (
	RefuseUnknown UnknownCredential = "refuse"
	PassUnknown   UnknownCredential = "pass"
	AdoptUnknown  UnknownCredential = "adopt" // until AdoptUntil; from then on refuse
)

// Credential is something the backend accepts as proof.
type Credential struct {
	Name       string            `json:"name"` // as events and the record call the kind
	Kind       CredentialKind    `json:"kind"`
	Cookie     string            `json:"cookie,omitempty"`
	Header     string            `json:"header,omitempty"` // canonical
	Unknown    UnknownCredential `json:"unknown"`
	AdoptUntil time.Time         `json:"adopt_until,omitzero"`
	Anonymous  bool              `json:"anonymous,omitempty"` // visitors who are not logged in get one too
	Paired     bool              `json:"paired,omitempty"`    // got at a log-in by a browser, it is good with our session cookie only
	Minted     []Mint            `json:"minted,omitempty"`
}

// Mint is where answers hand out new credentials.
type Mint struct {
	Class detectors.RouteClass `json:"class"`
	Renew bool                 `json:"renew,omitempty"` // it takes the presented one's place: the same login, the same session
	Reading
}

// ClientKind is what a client can do with an answer.
type ClientKind string

const (
	Browser      ClientKind = "browser" // shows pages and follows redirects; the default
	SPAClient    ClientKind = "spa"     // a script in a page: reads JSON, its page can be shown something
	NativeClient ClientKind = "native"  // no page at all
)

// Client tells a kind of client by everything that is given; any item of a list.
type Client struct {
	Kind      ClientKind `json:"kind"`
	Header    string     `json:"header,omitempty"`     // is there
	UserAgent []string   `json:"user_agent,omitempty"` // globs
	Path      []string   `json:"path,omitempty"`       // patterns as in routes

	paths []Route
}

// LoadBackend reads the preset called name: NAME.yaml in dir if it is there, or
// else the one that is shipped. A nil dir means shipped ones only. An error lists
// every fault with file, line and column.
func LoadBackend(name string, dir fs.FS) (*Backend, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if dir != nil {
		data, err := fs.ReadFile(dir, name+".yaml")
		if err == nil {
			return parseBackend(name, name+".yaml", data)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("loading backend %s: %w", name, err)
		}
	}
	data, err := shippedBackends.ReadFile("backends/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("loading backend %s: there is no %s.yaml; shipped are: %s", name, name, strings.Join(shippedNames(), ", "))
	}
	return parseBackend(name, name+".yaml", data)
}

func checkName(name string) error {
	if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return fmt.Errorf("loading backend %.64q: a name has 1 to 64 lower-case letters, digits, hyphens and underscores", name)
	}
	return nil
}

func shippedNames() (names []string) {
	entries, _ := shippedBackends.ReadDir("backends") // embedded: cannot fail
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Class is what the route of a request does. The path is canonical
// ([CanonicalPath]), the method the one that the backend will act on.
func (b *Backend) Class(method, canonicalPath string) detectors.RouteClass {
	return b.routes.class(method, canonicalPath)
}

// Admits says who may ask for a route at all. Both ways to read a request's method
// must be asked about, as with [Backend.Class].
func (b *Backend) Admits(method, canonicalPath string) Admission {
	if r := b.routes.find(method, canonicalPath); r != nil {
		return r.Admits
	}
	return AdmitsAnyone
}

// Fit is how an answer to a log-in fits the preset's conditions.
type Fit string

const (
	Fits        Fit = "fits"    // success or failure, and not both; or undecided, and neither
	FitsNeither Fit = "neither" // none of the lists
	FitsBoth    Fit = "both"    // success and failure
)

// Outcome is what the backend's answer to a log-in says. Answers that meet both
// lists, or neither, are Unknown.
func (b *Backend) Outcome(a Answer) detectors.Outcome {
	outcome, _ := b.Judge(a)
	return outcome
}

// Judge is Outcome, and whether the preset foresees such an answer.
func (b *Backend) Judge(a Answer) (detectors.Outcome, Fit) {
	r := newReading(a)
	switch success, failure := r.any(b.Success), r.any(b.Failure); {
	case success && failure:
		return detectors.Unknown, FitsBoth
	case success:
		return detectors.Success, Fits
	case failure:
		return detectors.Failure, Fits
	case r.any(b.Undecided):
		return detectors.Unknown, Fits
	}
	return detectors.Unknown, FitsNeither
}

// Client is the kind of client that sent a request with a canonical path and a
// header: the first of the preset's that fits, or else a browser.
func (b *Backend) Client(canonicalPath string, h http.Header) ClientKind {
	for i := range b.Clients {
		if c := &b.Clients[i]; c.fits(canonicalPath, h) {
			return c.Kind
		}
	}
	return Browser
}

func (c *Client) fits(path string, h http.Header) bool {
	if c.Header != "" && len(h.Values(c.Header)) == 0 {
		return false
	}
	if len(c.UserAgent) > 0 {
		agent := h.Get("User-Agent")
		if !slices.ContainsFunc(c.UserAgent, func(g string) bool { return globMatches(g, agent) }) {
			return false
		}
	}
	return len(c.paths) == 0 || slices.ContainsFunc(c.paths, func(r Route) bool { return r.covers(path) })
}

// MintedIn are the credentials of this kind that an answer of a route class hands
// out, each once and at most 64; none when it hands out none or cannot be read.
func (c *Credential) MintedIn(class detectors.RouteClass, a Answer) []string {
	var found []string
	r := newReading(a)
	for i := range c.Minted {
		if c.Minted[i].Class == class {
			for _, t := range c.Minted[i].all(r) {
				if !slices.Contains(found, t) && len(found) < maxIdentityList {
					found = append(found, t)
				}
			}
		}
	}
	return found
}

// Renews reports whether what an answer of class hands out takes the place of the
// credential that was presented for it.
func (c *Credential) Renews(class detectors.RouteClass) bool {
	return slices.ContainsFunc(c.Minted, func(m Mint) bool { return m.Class == class && m.Renew })
}

// parseBackend reads a preset and checks what its parts say of each other.
func parseBackend(name, file string, data []byte) (*Backend, error) {
	b := new(Backend)
	err := readDocument(file, data, func(d *document, n *yaml.Node) {
		d.backend(n, b)
		if b.Name != "" && b.Name != name {
			d.fault(n, "name is %q, but the file is called %s.yaml; make them the same", b.Name, name)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("loading backend %s:\n%w", name, err)
	}
	b.routes = newRoutes(b.Routes)
	return b, nil
}

func (d *document) backend(n *yaml.Node, b *Backend) {
	d.mapping(n, "the preset", map[string]func(*yaml.Node){
		"name":  func(n *yaml.Node) { b.Name = d.text(n, "name") },
		"title": func(n *yaml.Node) { b.Title = d.text(n, "title") },
		"routes": func(n *yaml.Node) {
			type key struct{ shape, method string }
			taken := make(map[key]int)
			d.list(n, "routes", 500, func(n *yaml.Node) {
				r := d.route(n)
				b.Routes = append(b.Routes, r)
				methods := r.Methods
				if len(methods) == 0 {
					methods = []string{"every method"}
				}
				for _, m := range methods {
					k := key{r.shape(), m}
					if line, ok := taken[k]; ok && r.Path != "" {
						d.fault(n, "%s %s has a class in line %d already", m, r.Path, line)
					}
					taken[k] = n.Line
				}
			})
			if !slices.ContainsFunc(b.Routes, func(r Route) bool { return r.Class == detectors.LoginRoute }) {
				d.fault(n, "no route has the class login; without one nothing is protected")
			}
		},
		"login":   func(n *yaml.Node) { b.Login = d.login(n) },
		"success": func(n *yaml.Node) { b.Success = d.conditions(n, "success") },
		"failure": func(n *yaml.Node) { b.Failure = d.conditions(n, "failure") },
		"undecided": func(n *yaml.Node) {
			b.Undecided = d.conditions(n, "undecided")
		},
		"hold": func(n *yaml.Node) { b.Held = d.renderings(n, "hold", checkHeld) },
		"credentials": func(n *yaml.Node) {
			names := make(map[string]bool)
			d.list(n, "credentials", 16, func(n *yaml.Node) {
				c := d.credential(n)
				if names[c.Name] {
					d.fault(n, "credential %q is there twice", c.Name)
				}
				names[c.Name] = c.Name != ""
				b.Credentials = append(b.Credentials, c)
			})
		},
		"identify": func(n *yaml.Node) { b.Identify = d.whoami(n) },
		"logout": func(n *yaml.Node) {
			c := d.call(n, "logout")
			b.Logout = &c
		},
		"requests": func(n *yaml.Node) { b.Requests = d.requests(n) },
		"clients": func(n *yaml.Node) {
			d.list(n, "clients", 64, func(n *yaml.Node) { b.Clients = append(b.Clients, d.client(n)) })
		},
	}, "name", "routes", "login", "success", "failure", "credentials", "identify")
}

var routeClasses = []string{string(detectors.LoginRoute), string(detectors.Logout), string(detectors.Signup),
	string(detectors.Reset), string(detectors.ChangePassword), string(detectors.ChangeEmail), string(detectors.TokenMint),
	string(detectors.Invite), string(detectors.Identify), string(detectors.Public), string(detectors.Sensitive), string(detectors.MessageRoute)}

func (d *document) route(n *yaml.Node) (r Route) {
	classed := false
	d.mapping(n, "a route", map[string]func(*yaml.Node){
		"class": func(n *yaml.Node) {
			r.Class, classed = detectors.RouteClass(d.word(n, "class", routeClasses...)), true
		},
		"admits": func(n *yaml.Node) {
			r.Admits = Admission(d.word(n, "admits", string(AdmitsSessions), string(AdmitsNobody)))
		},
		"methods": func(n *yaml.Node) {
			d.list(n, "methods", 16, func(n *yaml.Node) { r.Methods = append(r.Methods, d.method(n)) })
		},
		"path": func(n *yaml.Node) { r = d.path(n, r) },
	}, "path")
	switch {
	case n.Kind != yaml.MappingNode:
	case !classed && r.Admits == AdmitsAnyone:
		d.fault(n, "a route needs the key \"class\", or the key \"admits\"")
	case r.Admits == AdmitsNobody && len(r.Methods) > 0:
		d.fault(n, "a route that admits nobody is closed whatever the method; leave methods out")
	case r.Admits != AdmitsAnyone && (r.Class == detectors.LoginRoute || r.Class == detectors.Public):
		d.fault(n, "a route of class %s is for those who are not logged in; leave admits out", r.Class)
	}
	return r
}

// path reads a pattern into r.
func (d *document) path(n *yaml.Node, r Route) Route {
	r.Path = d.text(n, "path")
	if r.Path == "" {
		return r
	}
	segments, rest, err := parsePattern(r.Path)
	if err != nil {
		d.fault(n, "%v", err)
		r.Path = ""
	}
	r.segments, r.rest = segments, rest
	return r
}

// shape is equal for patterns that cover the same paths.
func (r *Route) shape() string {
	s := strings.Join(r.segments, "/")
	if r.rest {
		s += "/..."
	}
	return strconv.Itoa(len(r.segments)) + s
}

func (d *document) method(n *yaml.Node) string {
	m := d.text(n, "method")
	if m != "" && (m != strings.ToUpper(m) || !httpguts.ValidHeaderFieldName(m)) {
		d.fault(n, "%.64q is not a method; write one in capitals, such as POST", m)
	}
	return m
}

func (d *document) login(n *yaml.Node) (l LoginForm) {
	d.mapping(n, "login", map[string]func(*yaml.Node){
		"name":     func(n *yaml.Node) { l.Name = d.fields(n, "login.name") },
		"password": func(n *yaml.Node) { l.Password = d.fields(n, "login.password") },
		"failure":  func(n *yaml.Node) { l.Failure = d.renderings(n, "login.failure", nil) },
	}, "name", "password")
	return l
}

func (d *document) fields(n *yaml.Node, what string) (f Fields) {
	d.mapping(n, what, map[string]func(*yaml.Node){
		"form": func(n *yaml.Node) {
			d.list(n, what+".form", 8, func(n *yaml.Node) { f.Form = append(f.Form, d.text(n, what+".form")) })
		},
		"json": func(n *yaml.Node) {
			d.list(n, what+".json", 8, func(n *yaml.Node) { f.JSON = append(f.JSON, d.pointer(n, what+".json")) })
		},
	})
	if len(f.Form)+len(f.JSON) == 0 {
		d.fault(n, "%s names no field; write form, json or both", what)
	}
	return f
}

func (d *document) pointer(n *yaml.Node, what string) string {
	p := d.text(n, what)
	if err := checkPointer(p); err != nil {
		d.fault(n, "%s: %v", what, err)
	}
	return p
}

// renderings reads one by kind of client; check, unless nil, tells what is wrong
// with one.
func (d *document) renderings(n *yaml.Node, what string, check func(Rendering) error) map[string]Rendering {
	all := make(map[string]Rendering)
	kinds := make(map[string]func(*yaml.Node))
	for _, kind := range []string{"html", "json"} {
		kinds[kind] = func(n *yaml.Node) {
			all[kind] = d.rendering(n, what+"."+kind)
			if check == nil {
				return
			}
			if err := check(all[kind]); err != nil {
				d.fault(n, "%s.%s %v", what, kind, err)
			}
		}
	}
	d.mapping(n, what, kinds)
	return all
}

func (d *document) rendering(n *yaml.Node, what string) (r Rendering) {
	d.mapping(n, what, map[string]func(*yaml.Node){
		"status":       func(n *yaml.Node) { r.Status = d.integer(n, what+".status", 200, 599) },
		"content_type": func(n *yaml.Node) { r.ContentType = d.headerValue(n, what+".content_type") },
		"location":     func(n *yaml.Node) { r.Location = d.headerValue(n, what+".location") },
		"body":         func(n *yaml.Node) { r.Body = d.text(n, what+".body") },
		"header": func(n *yaml.Node) {
			if n.Kind != yaml.MappingNode || len(n.Content) > 64 {
				d.fault(n, "%s.header must be a mapping of at most 32 names to texts", what)
				return
			}
			r.Header = make(map[string]string)
			for i := 0; i+1 < len(n.Content); i += 2 {
				name := d.headerName(n.Content[i], what+".header")
				if _, twice := r.Header[name]; twice {
					d.fault(n.Content[i], "header %s is there twice", name)
				}
				r.Header[name] = d.headerValue(n.Content[i+1], what+".header")
			}
		},
	}, "status")
	return r
}

func (d *document) headerName(n *yaml.Node, what string) string {
	h := d.text(n, what)
	if h != "" && !httpguts.ValidHeaderFieldName(h) {
		d.fault(n, "%s: %.64q is not the name of a header", what, h)
	}
	return http.CanonicalHeaderKey(h)
}

func (d *document) headerValue(n *yaml.Node, what string) string {
	v := d.text(n, what)
	if !httpguts.ValidHeaderFieldValue(v) {
		d.fault(n, "%s has characters that a header cannot have", what)
	}
	return v
}

func (d *document) conditions(n *yaml.Node, what string) (out []Condition) {
	d.list(n, what, 32, func(n *yaml.Node) { out = append(out, d.condition(n, what)) })
	if len(out) == 0 {
		d.fault(n, "%s has no condition; without one every outcome is unknown", what)
	}
	return out
}

func (d *document) condition(n *yaml.Node, what string) (c Condition) {
	d.mapping(n, "a condition of "+what, map[string]func(*yaml.Node){
		"status": func(n *yaml.Node) {
			d.list(n, "status", 32, func(n *yaml.Node) { c.Status = append(c.Status, d.integer(n, "status", 100, 599)) })
		},
		"header": func(n *yaml.Node) {
			h := new(HeaderCondition)
			d.mapping(n, "header", map[string]func(*yaml.Node){
				"name": func(n *yaml.Node) { h.Name = d.headerName(n, "header.name") },
				"matches": func(n *yaml.Node) {
					h.Matches = d.text(n, "header.matches")
					h.re = d.pattern(n, "header.matches")
				},
			}, "name", "matches")
			c.Header = h
		},
		"cookie":   func(n *yaml.Node) { c.Cookie = d.cookieName(n, "cookie") },
		"redirect": func(n *yaml.Node) { c.Redirect = d.text(n, "redirect") },
		"elsewhere": func(n *yaml.Node) {
			d.list(n, "elsewhere", 8, func(n *yaml.Node) { c.Elsewhere = append(c.Elsewhere, d.text(n, "elsewhere")) })
		},
		"body_contains": func(n *yaml.Node) { c.BodyContains = d.text(n, "body_contains") },
		"json": func(n *yaml.Node) {
			j := new(JSONCondition)
			d.mapping(n, "json", map[string]func(*yaml.Node){
				"pointer": func(n *yaml.Node) { j.Pointer = d.pointer(n, "json.pointer") },
				"equals": func(n *yaml.Node) {
					if n.Kind != yaml.ScalarNode {
						d.fault(n, "json.equals must be a text, a number, true, false or null")
						return
					}
					text := n.Value
					if n.Tag == "!!null" {
						text = "null"
					}
					j.Equals = &text
				},
				"exists": func(n *yaml.Node) {
					exists := d.boolean(n, "json.exists")
					j.Exists = &exists
				},
			}, "pointer")
			if (j.Equals == nil) == (j.Exists == nil) {
				d.fault(n, "json needs either equals or exists")
			}
			c.JSON = j
		},
	})
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		d.fault(n, "a condition of %s is empty; it would hold for every answer", what)
	}
	return c
}

func (d *document) cookieName(n *yaml.Node, what string) string {
	name := d.text(n, what)
	if name != "" && !httpguts.ValidHeaderFieldName(name) { // both are tokens (RFC 6265)
		d.fault(n, "%s: %.64q is not the name of a cookie", what, name)
	}
	return name
}

func (d *document) credential(n *yaml.Node) (c Credential) {
	d.mapping(n, "a credential", map[string]func(*yaml.Node){
		"name":   func(n *yaml.Node) { c.Name = d.text(n, "name") },
		"kind":   func(n *yaml.Node) { c.Kind = CredentialKind(d.word(n, "kind", "cookie", "header", "bearer", "basic")) },
		"cookie": func(n *yaml.Node) { c.Cookie = d.cookieName(n, "cookie") },
		"header": func(n *yaml.Node) { c.Header = d.headerName(n, "header") },
		"unknown": func(n *yaml.Node) {
			c.Unknown = UnknownCredential(d.word(n, "unknown", "refuse", "pass", "adopt"))
		},
		"adopt_until": func(n *yaml.Node) {
			text := d.text(n, "adopt_until")
			t, err := time.Parse(time.DateOnly, text)
			if err != nil && text != "" {
				d.fault(n, "adopt_until %.64q is not a date; write one such as 2027-04-01 (its midnight in UTC)", text)
			}
			c.AdoptUntil = t
		},
		"anonymous": func(n *yaml.Node) { c.Anonymous = d.boolean(n, "anonymous") },
		"paired":    func(n *yaml.Node) { c.Paired = d.boolean(n, "paired") },
		"minted": func(n *yaml.Node) {
			d.list(n, "minted", 16, func(n *yaml.Node) { c.Minted = append(c.Minted, d.mint(n)) })
		},
	}, "name", "kind", "unknown")
	if (c.Kind == CookieCredential) != (c.Cookie != "") && c.Kind != "" {
		d.fault(n, "credential %q: the key cookie goes with kind cookie, and only with it", c.Name)
	}
	if (c.Kind == HeaderCredential) != (c.Header != "") && c.Kind != "" {
		d.fault(n, "credential %q: the key header goes with kind header, and only with it", c.Name)
	}
	if (c.Unknown == AdoptUnknown) != !c.AdoptUntil.IsZero() && c.Unknown != "" {
		d.fault(n, "credential %q: the key adopt_until goes with unknown: adopt, and only with it", c.Name)
	}
	if c.Anonymous && c.Kind != CookieCredential && c.Kind != "" {
		d.fault(n, "credential %q: only a cookie can be anonymous", c.Name)
	}
	if c.Paired && c.Kind == CookieCredential {
		d.fault(n, "credential %q: a cookie is good with our session cookie only, always; leave paired out", c.Name)
	}
	return c
}

func (d *document) mint(n *yaml.Node) (m Mint) {
	d.mapping(n, "minted", map[string]func(*yaml.Node){
		"class":   func(n *yaml.Node) { m.Class = detectors.RouteClass(d.word(n, "class", routeClasses...)) },
		"renew":   func(n *yaml.Node) { m.Renew = d.boolean(n, "renew") },
		"pointer": func(n *yaml.Node) { m.Pointer = d.pointer(n, "pointer") },
		"page":    func(n *yaml.Node) { m.Page, m.re = d.group(n, "page", "the credential") },
		"within":  func(n *yaml.Node) { m.Within, m.within = d.group(n, "within", "the part that is meant") },
	}, "class")
	if (m.Pointer == "") == (m.Page == "") {
		d.fault(n, "minted needs either pointer or page")
	}
	if m.Within != "" && m.Page == "" {
		d.fault(n, "minted: the key within goes with page, and only with it")
	}
	if m.Renew && m.Class == detectors.LoginRoute {
		d.fault(n, "minted: a log-in begins a session and renews none; leave renew out")
	}
	return m
}

func (d *document) whoami(n *yaml.Node) (w Whoami) {
	optional := func(to **Reading, what string) func(*yaml.Node) {
		return func(n *yaml.Node) {
			r := d.reading(n, what)
			*to = &r
		}
	}
	list := func(to *[]Reading, what string) func(*yaml.Node) {
		return func(n *yaml.Node) { *to = d.readings(n, what) }
	}
	condition := func(to **Condition, what string) func(*yaml.Node) {
		return func(n *yaml.Node) {
			c := d.condition(n, what)
			*to = &c
		}
	}
	d.mapping(n, "identify", map[string]func(*yaml.Node){
		"method": func(n *yaml.Node) { w.Method = d.method(n) },
		"path": func(n *yaml.Node) {
			w.Path = d.target(n, "identify.path")
			if err := checkClaims(w.Path); err != nil {
				d.fault(n, "identify.path: %v", err)
			}
		},
		"authenticated": condition(&w.Authenticated, "identify.authenticated"),
		"anonymous":     condition(&w.Anonymous, "identify.anonymous"),
		"subject":       func(n *yaml.Node) { w.Subject = d.subject(n, "identify.subject") },
		"organization":  optional(&w.Organization, "identify.organization"),
		"names":         list(&w.Names, "identify.names"),
		"mail":          list(&w.Mail, "identify.mail"),
		"language":      optional(&w.Language, "identify.language"),
		"time_zone":     optional(&w.TimeZone, "identify.time_zone"),
		"roles":         list(&w.Roles, "identify.roles"),
	}, "method", "path", "anonymous", "subject")
	return w
}

func (d *document) call(n *yaml.Node, what string) (c Call) {
	d.mapping(n, what, map[string]func(*yaml.Node){
		"method": func(n *yaml.Node) { c.Method = d.method(n) },
		"path":   func(n *yaml.Node) { c.Path = d.target(n, what+".path") },
	}, "method", "path")
	return c
}

// target reads the path of a request that the gateway makes, with its query.
func (d *document) target(n *yaml.Node, what string) string {
	p := d.text(n, what)
	if p != "" && (!strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsAny(p, " #\\") || !plainText(p, false)) {
		d.fault(n, "%s: %.64q is not a path on the backend; write one such as /me", what, p)
	}
	return p
}

func (d *document) client(n *yaml.Node) (c Client) {
	d.mapping(n, "a client", map[string]func(*yaml.Node){
		"kind":   func(n *yaml.Node) { c.Kind = ClientKind(d.word(n, "kind", "browser", "spa", "native")) },
		"header": func(n *yaml.Node) { c.Header = d.headerName(n, "header") },
		"user_agent": func(n *yaml.Node) {
			d.list(n, "user_agent", 16, func(n *yaml.Node) { c.UserAgent = append(c.UserAgent, d.text(n, "user_agent")) })
		},
		"path": func(n *yaml.Node) {
			d.list(n, "path", 64, func(n *yaml.Node) {
				r := d.path(n, Route{})
				c.Path, c.paths = append(c.Path, r.Path), append(c.paths, r)
			})
		},
	}, "kind")
	if c.Header == "" && len(c.UserAgent)+len(c.Path) == 0 {
		d.fault(n, "a client needs header, user_agent or path; otherwise it is every client")
	}
	return c
}
