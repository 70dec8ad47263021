package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"

	"github.com/kidoban/kidoban/policies"
)

// loginWay is how a service takes name and password.
type loginWay struct {
	page           string // with the form; empty: it takes JSON
	path           string
	name, password string     // fields, or pointers
	hidden         url.Values // of the form, as it was shown last
}

// findings is what was found out about a service.
type findings struct {
	way      loginWay
	right    policies.Answer
	wrong    []policies.Answer // of wrong passwords and unknown names
	visitors jarOf             // cookies of those who are not logged in
	jar      jarOf             // cookies after the right log-in
	who      whoami
	logout   policies.Call
	cookies  []string // that alone make somebody logged in; all together if none does
	tokens   []string // pointers in the right answer
	bearer   bool     // a token goes by Authorization: Bearer
	bare     bool     // and without a scheme
	subject  string   // that the preset reads
	unsure   []string
}

func (f *findings) doubt(format string, args ...any) {
	f.unsure = append(f.unsure, fmt.Sprintf(format, args...))
}

// probe asks in the order that disturbs least: wrong, unknown, wrong, right.
func (l *learner) probe(ctx context.Context) (*findings, error) {
	f := new(findings)
	var err error
	if f.way, err = l.findWay(ctx); err != nil {
		return nil, err
	}
	for _, name := range []string{l.name, nobody(l.name), l.name} {
		a, jar, before, err := l.try(ctx, &f.way, name, rand.Text())
		if err != nil {
			return nil, err
		}
		f.wrong = append(f.wrong, a)
		f.visitors = before
		maps.Copy(f.visitors, jar) // who fails is a visitor still
		if err := l.wait(ctx); err != nil {
			return nil, err
		}
	}
	if f.right, f.jar, _, err = l.try(ctx, &f.way, l.name, l.password); err != nil {
		return nil, err
	}
	if !alike(f.wrong[0], f.wrong[1]) {
		f.doubt("a wrong password and an unknown name are answered differently: strangers can find out who has an account")
	}
	if alike(f.right, f.wrong[0]) {
		return nil, fmt.Errorf("the right log-in and a wrong one are answered alike (status %d): is the password right, and %s the place?", f.right.Status, f.way.path)
	}
	if err := l.findWhoami(ctx, f); err != nil {
		return nil, err
	}
	return f, l.findLogout(ctx, f)
}

// alike compares what conditions could look at.
func alike(a, b policies.Answer) bool {
	return a.Status == b.Status && location(a) == location(b) &&
		slices.Equal(slices.Sorted(maps.Keys(given(a))), slices.Sorted(maps.Keys(given(b)))) &&
		slices.Equal(slices.Sorted(maps.Keys(scalars(a))), slices.Sorted(maps.Keys(scalars(b))))
}

// location is the path that an answer leads to.
func location(a policies.Answer) string {
	u, err := url.Parse(a.Header.Get("Location"))
	if err != nil {
		return ""
	}
	return u.EscapedPath()
}

// findWay looks for a form with one password, or takes the JSON it is told of.
func (l *learner) findWay(ctx context.Context) (loginWay, error) {
	if l.json != "" {
		name, password, ok := strings.Cut(l.json, ",")
		if !ok || !strings.HasPrefix(name, "/") || !strings.HasPrefix(password, "/") || l.loginPath == "" {
			return loginWay{}, errors.New("--json: want two pointers such as /email,/password, and --login-path")
		}
		return loginWay{path: l.loginPath, name: name, password: password}, nil
	}
	paths := []string{l.loginPath}
	if l.loginPath == "" {
		paths = []string{"/", "/login", "/signin", "/users/sign_in", "/auth/login"}
	}
	for _, path := range paths {
		jar := make(jarOf)
		for range 5 {
			a, err := l.send(ctx, jar, http.MethodGet, path, "")
			if err != nil {
				return loginWay{}, err
			}
			if way, ok := findForm(a.Body, path); ok {
				return way, nil
			}
			if path = a.Header.Get("Location"); path == "" {
				break
			}
		}
	}
	if l.loginPath != "" {
		return l.findJSON(ctx)
	}
	return loginWay{}, errors.New("no page with a log-in form was found: name it with --login-path")
}

// findJSON tries members of usual names until one log-in is answered as accepted.
func (l *learner) findJSON(ctx context.Context) (loginWay, error) {
	for _, name := range []string{"/username", "/email", "/login", "/identity"} {
		way := loginWay{path: l.loginPath, name: name, password: "/password"}
		a, _, _, err := l.try(ctx, &way, l.name, l.password)
		if err != nil {
			return way, err
		}
		if a.Status < 300 {
			return way, l.wait(ctx)
		}
		if err := l.wait(ctx); err != nil {
			return way, err
		}
	}
	return loginWay{}, fmt.Errorf("%s has no form with a password, and takes no JSON with usual members: name them with --json", l.loginPath)
}

// findForm is the first form of a page that has one password.
func findForm(page []byte, at string) (loginWay, bool) {
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		return loginWay{}, false
	}
	base, err := url.Parse(at)
	if err != nil {
		return loginWay{}, false
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" {
			continue
		}
		way := loginWay{page: at, hidden: make(url.Values)}
		passwords := 0
		for in := range n.Descendants() {
			if in.Type != html.ElementNode || in.Data != "input" || attribute(in, "name") == "" {
				continue
			}
			switch strings.ToLower(attribute(in, "type")) {
			case "password":
				passwords++
				way.password = attribute(in, "name")
			case "hidden":
				way.hidden.Add(attribute(in, "name"), attribute(in, "value"))
			case "", "text", "email", "tel":
				if way.name == "" {
					way.name = attribute(in, "name")
				}
			}
		}
		action, err := base.Parse(attribute(n, "action"))
		if passwords == 1 && way.name != "" && err == nil {
			way.path = action.RequestURI()
			return way, true
		}
	}
	return loginWay{}, false
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// try logs in as a new visitor, with a form that was fetched for it. before is the
// cookies that came with the form.
func (l *learner) try(ctx context.Context, way *loginWay, name, password string) (a policies.Answer, jar, before jarOf, err error) {
	jar = make(jarOf)
	body, kind := "", "application/json"
	if way.page == "" {
		if body, err = jsonBody(map[string]string{way.name: name, way.password: password}); err != nil {
			return a, nil, nil, err
		}
	} else {
		page, err := l.send(ctx, jar, http.MethodGet, way.page, "")
		if err != nil {
			return a, nil, nil, err
		}
		fresh, ok := findForm(page.Body, way.page)
		if !ok {
			return a, nil, nil, fmt.Errorf("%s does not show the form again (status %d)", way.page, page.Status)
		}
		*way = fresh
		fields := maps.Clone(way.hidden)
		fields.Set(way.name, name)
		fields.Set(way.password, password)
		body, kind = fields.Encode(), "application/x-www-form-urlencoded"
	}
	before = maps.Clone(jar)
	a, err = l.send(ctx, jar, http.MethodPost, way.path, body, "Content-Type", kind)
	return a, jar, before, err
}

// jsonBody puts texts at pointers.
func jsonBody(at map[string]string) (string, error) {
	root := make(map[string]any)
	for pointer, text := range at {
		names := strings.Split(pointer[1:], "/")
		in := root
		for _, name := range names[:len(names)-1] {
			next, ok := in[name].(map[string]any)
			if !ok {
				next = make(map[string]any)
				in[name] = next
			}
			in = next
		}
		in[names[len(names)-1]] = text
	}
	text, err := json.Marshal(root)
	return string(text), err
}

// scalars is the texts and numbers of a JSON answer, by pointer; none of a page.
func scalars(a policies.Answer) map[string]string {
	out := make(map[string]string)
	d := json.NewDecoder(bytes.NewReader(a.Body))
	d.UseNumber()
	var root any
	if a.Truncated || d.Decode(&root) != nil {
		return out
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, next := range v {
				walk(at+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name), next)
			}
		case string:
			out[at] = v
		case json.Number:
			out[at] = v.String()
		}
	}
	walk("", root)
	return out
}
