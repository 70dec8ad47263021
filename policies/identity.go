package policies

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Identity is who the backend says somebody is.
type Identity struct {
	Subject      string   `json:"subject"` // stable; what factors and sessions key on
	Organization string   `json:"organization,omitempty"`
	Names        []string `json:"names,omitempty"` // what may be typed into the login form
	Mail         []string `json:"mail,omitempty"`
	Language     string   `json:"language,omitempty"`
	TimeZone     string   `json:"time_zone,omitempty"`
	Roles        []string `json:"roles,omitempty"`
}

// ErrAnonymous says that the backend answered, and that nobody is logged in.
var ErrAnonymous = errors.New("nobody is logged in")

const (
	maxIdentityText = 512 // bytes
	maxIdentityList = 64
)

// Whoami is how to ask the backend who somebody is, and how to read the answer.
type Whoami struct {
	Method        string     `json:"method"`
	Path          string     `json:"path"`
	Authenticated *Condition `json:"authenticated,omitempty"` // must hold, if given
	Anonymous     *Condition `json:"anonymous"`
	Subject       Reading    `json:"subject"`
	Organization  *Reading   `json:"organization,omitempty"`
	Names         []Reading  `json:"names,omitempty"`
	Mail          []Reading  `json:"mail,omitempty"`
	Language      *Reading   `json:"language,omitempty"`
	TimeZone      *Reading   `json:"time_zone,omitempty"`
	Roles         []Reading  `json:"roles,omitempty"`
}

// Reading is where an answer has a text: at a JSON pointer, in a page as the only
// group of a regular expression, or at several JSON pointers, joined by slashes.
type Reading struct {
	Pointer string   `json:"pointer,omitempty"`
	Page    string   `json:"page,omitempty"`
	Within  string   `json:"within,omitempty"` // the part of the page that Page looks at: the only group of another
	Join    []string `json:"join,omitempty"`   // at least two pointers; only of a subject

	re, within *regexp.Regexp // of Page and Within; nil where there is none
}

// Whose is the request that asks whose the credentials are: that of Identify, with
// each {token.NAME} of its path filled in from the claims of the first value that
// is a JSON Web Token (RFC 7519). The claims are read and not believed; it is the
// backend that judges the token. An error names what is missing and no value.
func (b *Backend) Whose(values ...string) (Call, error) {
	c := Call{Method: b.Identify.Method, Path: b.Identify.Path}
	if !claimInPath.MatchString(c.Path) {
		return c, nil
	}
	claims := claimsOf(values)
	if claims == nil {
		return c, fmt.Errorf("identifying at %s: no credential is a JSON Web Token", c.Path)
	}
	var failed error
	path := claimInPath.ReplaceAllStringFunc(c.Path, func(place string) string {
		name := claimInPath.FindStringSubmatch(place)[1]
		text, _ := claims[name].(string)
		if !pathClaim.MatchString(text) {
			failed = fmt.Errorf("identifying at %s: the token has no claim %s of 1 to 128 letters, digits, hyphens and underscores", c.Path, name)
		}
		return text
	})
	if failed != nil {
		return c, failed
	}
	c.Path = path
	return c, nil
}

var (
	claimInPath = regexp.MustCompile(`\{token\.([A-Za-z0-9_]{1,64})\}`)
	pathClaim   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`) // nothing that a path could read as more than a name
)

// claimsOf is the payload of the first value that is a token; nil: none is.
func claimsOf(values []string) map[string]any {
	for _, v := range values {
		v = strings.TrimPrefix(v, "Bearer ")
		parts := strings.Split(v, ".")
		if len(parts) != 3 || len(parts[1]) > maxAnswer {
			continue
		}
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			continue
		}
		var claims map[string]any
		if json.Unmarshal(payload, &claims) == nil && claims != nil {
			return claims
		}
	}
	return nil
}

// checkClaims reports braces in a path that are no claim.
func checkClaims(path string) error {
	if strings.ContainsAny(claimInPath.ReplaceAllString(path, ""), "{}") {
		return fmt.Errorf("%.64q has braces that are no claim of a token; write {token.NAME}", path)
	}
	return nil
}

// texts are the texts at the place; none when there is nothing, null or "". A JSON
// list gives each of its items.
func (p *Reading) texts(r *reading) ([]string, error) {
	if p.re != nil {
		m := p.re.FindSubmatch(p.part(r.Body))
		if m == nil {
			return nil, nil
		}
		return oneText(pageText(m[1]))
	}
	if len(p.Join) > 0 {
		return p.joined(r)
	}
	root, ok := r.json()
	if !ok {
		return nil, errors.New("the answer is not JSON")
	}
	v, found := lookup(root, p.Pointer)
	if !found || v == nil {
		return nil, nil
	}
	items, isList := v.([]any)
	if !isList {
		items = []any{v}
	}
	if len(items) > maxIdentityList {
		return nil, fmt.Errorf("%s has %d items; at most %d", p.Pointer, len(items), maxIdentityList)
	}
	var out []string
	for _, item := range items {
		text, scalar := scalarText(item)
		if _, isBool := item.(bool); !scalar || isBool || item == nil {
			return nil, fmt.Errorf("%s is neither a text nor a number", p.Pointer)
		}
		if _, isText := item.(string); !isText && !wholeNumber(text) {
			return nil, fmt.Errorf("%s is not a whole number", p.Pointer)
		}
		one, err := oneText(text)
		if err != nil {
			return nil, fmt.Errorf("%s %w", p.Pointer, err)
		}
		out = append(out, one...)
	}
	return out, nil
}

// part is what Page looks at; nothing when Within does not match.
func (p *Reading) part(body []byte) []byte {
	if p.within == nil {
		return body
	}
	m := p.within.FindSubmatch(body)
	if m == nil {
		return nil
	}
	return m[1]
}

func pageText(b []byte) string { return html.UnescapeString(strings.TrimSpace(string(b))) }

// joined is one text of all parts, or none when one is missing. A part that holds
// a slash could be taken for two, and is an error.
func (p *Reading) joined(r *reading) ([]string, error) {
	parts := make([]string, len(p.Join))
	for i, pointer := range p.Join {
		texts, err := (&Reading{Pointer: pointer}).texts(r)
		switch {
		case err != nil:
			return nil, err
		case len(texts) == 0:
			return nil, nil
		case len(texts) > 1 || strings.Contains(texts[0], "/"):
			return nil, fmt.Errorf("%s cannot be joined: it is more than one text, or holds a slash", pointer)
		}
		parts[i] = texts[0]
	}
	return oneText(strings.Join(parts, "/"))
}

// all is what texts is, and of a page every match, at most 64. What cannot be read
// is left out.
func (p *Reading) all(r *reading) []string {
	if p.re == nil {
		texts, _ := p.texts(r)
		return texts
	}
	var out []string
	for _, m := range p.re.FindAllSubmatch(p.part(r.Body), maxIdentityList) {
		if text, err := oneText(pageText(m[1])); err == nil {
			out = append(out, text...)
		}
	}
	return out
}

// wholeNumber reports whether a JSON number has one usual way to be written; 1e3
// and 1000.0 would be two more accounts.
func wholeNumber(text string) bool {
	n, err := strconv.ParseInt(text, 10, 64)
	return err == nil && strconv.FormatInt(n, 10) == text
}

func oneText(s string) ([]string, error) {
	switch {
	case s == "":
		return nil, nil
	case len(s) > maxIdentityText:
		return nil, fmt.Errorf("has %d bytes; at most %d", len(s), maxIdentityText)
	case !plainText(s, false):
		return nil, errors.New("has control characters or is not UTF-8")
	}
	return []string{s}, nil
}

// ReadIdentity reads the answer of the whoami route. ErrAnonymous when the
// anonymous condition holds; another error when the answer says neither who it is
// nor that it is nobody. Such an error holds no value of the answer.
func (b *Backend) ReadIdentity(a Answer) (Identity, error) {
	r := newReading(a)
	w := &b.Identify
	if w.Anonymous != nil && w.Anonymous.holds(r) {
		return Identity{}, ErrAnonymous
	}
	if w.Authenticated != nil && !w.Authenticated.holds(r) {
		return Identity{}, fmt.Errorf("identifying at %s: status %d meets neither condition; compare identify.authenticated and identify.anonymous of the preset", w.Path, a.Status)
	}
	if r.Truncated {
		return Identity{}, fmt.Errorf("identifying at %s: the answer is longer than %d bytes", w.Path, maxAnswer)
	}
	var id Identity
	var failed error
	all := func(field string, from ...Reading) (found []string) {
		for i := range from {
			texts, err := from[i].texts(r)
			if err != nil && failed == nil {
				failed = fmt.Errorf("identifying at %s: %s: %w", w.Path, field, err)
			}
			for _, t := range texts {
				if !slices.Contains(found, t) && len(found) < maxIdentityList {
					found = append(found, t)
				}
			}
		}
		return found
	}
	one := func(field string, from *Reading) string {
		if from == nil {
			return ""
		}
		switch found := all(field, *from); {
		case len(found) > 1 && failed == nil:
			failed = fmt.Errorf("identifying at %s: %s: there is more than one", w.Path, field)
		case len(found) == 1:
			return found[0]
		}
		return ""
	}
	id.Subject = one("subject", &w.Subject)
	id.Organization = one("organization", w.Organization)
	id.Names = all("names", w.Names...)
	id.Mail = all("mail", w.Mail...)
	id.Language = one("language", w.Language)
	id.TimeZone = one("time_zone", w.TimeZone)
	id.Roles = all("roles", w.Roles...)
	switch {
	case failed != nil:
		return Identity{}, failed
	case id.Subject == "":
		return Identity{}, fmt.Errorf("identifying at %s: the answer names no subject", w.Path)
	}
	return id, nil
}

func (d *document) reading(n *yaml.Node, what string) Reading {
	if n.Kind == yaml.MappingNode {
		var r Reading
		d.mapping(n, what, map[string]func(*yaml.Node){
			"page":   func(n *yaml.Node) { r.Page, r.re = d.group(n, what+".page", "the text that is meant") },
			"within": func(n *yaml.Node) { r.Within, r.within = d.group(n, what+".within", "the part that is meant") },
		}, "page")
		return r
	}
	p := d.text(n, what)
	if err := checkPointer(p); err != nil {
		d.fault(n, "%s: %v", what, err)
	}
	return Reading{Pointer: p}
}

// subject reads a place that may have parts.
func (d *document) subject(n *yaml.Node, what string) Reading {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 || n.Content[0].Value != "join" {
		return d.reading(n, what)
	}
	var r Reading
	d.mapping(n, what, map[string]func(*yaml.Node){
		"join": func(n *yaml.Node) {
			d.list(n, what+".join", 4, func(n *yaml.Node) { r.Join = append(r.Join, d.pointer(n, what+".join")) })
			if len(r.Join) < 2 {
				d.fault(n, "%s.join needs two pointers or more; write a single one without join", what)
			}
		},
	}, "join")
	return r
}

func (d *document) readings(n *yaml.Node, what string) (out []Reading) {
	d.list(n, what, 16, func(n *yaml.Node) { out = append(out, d.reading(n, what)) })
	return out
}

// group reads a regular expression with one group around something.
func (d *document) group(n *yaml.Node, what, around string) (string, *regexp.Regexp) {
	text, re := d.text(n, what), d.pattern(n, what)
	if re != nil && re.NumSubexp() != 1 {
		d.fault(n, "%s has %d groups; want one, around %s", what, re.NumSubexp(), around)
	}
	return text, re
}

// pattern compiles a regular expression; nil, with a fault, when it is none.
func (d *document) pattern(n *yaml.Node, what string) *regexp.Regexp {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		return nil // told already
	}
	if len(n.Value) > 1024 {
		d.fault(n, "%s has %d bytes; at most 1024", what, len(n.Value))
		return nil
	}
	re, err := regexp.Compile(n.Value)
	if err != nil {
		d.fault(n, "%s is not a regular expression (RE2): %v", what, err)
	}
	return re
}
