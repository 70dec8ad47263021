package policies

import (
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

// Reading is where an answer has a text: at a JSON pointer, or in a page as the
// only group of a regular expression.
type Reading struct {
	Pointer string `json:"pointer,omitempty"`
	Page    string `json:"page,omitempty"`

	re *regexp.Regexp // of Page; nil where Pointer is meant
}

// texts are the texts at the place; none when there is nothing, null or "". A JSON
// list gives each of its items.
func (p *Reading) texts(r *reading) ([]string, error) {
	if p.re != nil {
		m := p.re.FindSubmatch(r.Body)
		if m == nil {
			return nil, nil
		}
		return oneText(html.UnescapeString(strings.TrimSpace(string(m[1]))))
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
			"page": func(n *yaml.Node) {
				r.Page = d.text(n, what+".page")
				r.re = d.pattern(n, what+".page")
				if r.re != nil && r.re.NumSubexp() != 1 {
					d.fault(n, "%s.page has %d groups; want one, around the text that is meant", what, r.re.NumSubexp())
				}
			},
		}, "page")
		return r
	}
	p := d.text(n, what)
	if err := checkPointer(p); err != nil {
		d.fault(n, "%s: %v", what, err)
	}
	return Reading{Pointer: p}
}

func (d *document) readings(n *yaml.Node, what string) (out []Reading) {
	d.list(n, what, 16, func(n *yaml.Node) { out = append(out, d.reading(n, what)) })
	return out
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
