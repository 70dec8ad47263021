package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	nethtml "golang.org/x/net/html"

	"github.com/kidoban/kidoban/policies"
)

// whoami is a route that says who is logged in.
type whoami struct {
	method, path  string
	known, nobody policies.Answer // to the test account, and to a visitor
	subject       string          // a reading, as presets write it
	names         string          // the same, of the typed name
}

// askAs asks the route with cookies and an Authorization header, if there is one.
func (l *learner) askAs(ctx context.Context, w *whoami, jar jarOf, authorization string) (policies.Answer, error) {
	var header []string
	if authorization != "" {
		header = []string{"Authorization", authorization}
	}
	path := w.path
	if strings.Contains(path, "{token.") {
		// Claims are the token's, also when it is left out.
		b := policies.Backend{Identify: policies.Whoami{Method: w.method, Path: w.path}}
		call, err := b.Whose(l.token)
		if err != nil {
			return policies.Answer{}, err
		}
		path = call.Path
	}
	return l.send(ctx, maps.Clone(jar), w.method, path, "", header...)
}

// findWhoami looks for the route, and for what alone opens it.
func (l *learner) findWhoami(ctx context.Context, f *findings) error {
	failed := scalars(f.wrong[0])
	right := scalars(f.right)
	for _, pointer := range slices.Sorted(maps.Keys(right)) {
		name := strings.ToLower(pointer[strings.LastIndexByte(pointer, '/')+1:])
		if _, also := failed[pointer]; !also && strings.Contains(name, "token") && !strings.Contains(name, "type") && len(right[pointer]) >= 16 {
			f.tokens = append(f.tokens, pointer)
		}
	}
	bearer := ""
	if len(f.tokens) > 0 {
		l.token = right[f.tokens[0]]
		bearer = "Bearer " + l.token
	}
	paths := []string{"/v1/me", "/api/me", "/api/v1/me", "/me", "/api/user", "/user", "/users/me", "/api/users/me", "/account", "/profile", "/settings"}
	if l.whoami != "" {
		paths = []string{l.whoami}
	}
	for _, path := range paths {
		w := whoami{method: http.MethodGet, path: path}
		if method, rest, ok := strings.Cut(path, " "); ok {
			w.method, w.path = method, rest
		}
		var err error
		if w.known, err = l.askAs(ctx, &w, f.jar, bearer); err != nil {
			return err
		}
		if w.known.Status != http.StatusOK || !w.reads(l.name) {
			continue
		}
		if w.nobody, err = l.askAs(ctx, &w, make(jarOf), ""); err != nil {
			return err
		}
		if w.nobody.Status == w.known.Status && alike(w.nobody, w.known) {
			continue // it says so to everybody
		}
		f.who = w
		return l.findCredentials(ctx, f)
	}
	if l.whoami != "" {
		return fmt.Errorf("%s does not show the name of the account that logged in", l.whoami)
	}
	return errors.New("no route was found that says who is logged in: name one with --whoami")
}

// findCredentials tries what the log-in gave one by one.
func (l *learner) findCredentials(ctx context.Context, f *findings) error {
	opens := func(jar jarOf, authorization string) (bool, error) {
		a, err := l.askAs(ctx, &f.who, jar, authorization)
		return a.Status == f.who.known.Status && !alike(a, f.who.nobody), err
	}
	for _, name := range slices.Sorted(maps.Keys(f.jar))[:min(len(f.jar), 8)] {
		ok, err := opens(jarOf{name: f.jar[name]}, "")
		if err != nil {
			return err
		}
		if ok {
			f.cookies = append(f.cookies, name)
		}
	}
	var err error
	if len(f.tokens) > 0 {
		if f.bearer, err = opens(nil, "Bearer "+l.token); err != nil {
			return err
		}
		if f.bare, err = opens(nil, l.token); err != nil {
			return err
		}
	}
	if len(f.cookies) == 0 && !f.bearer && !f.bare {
		f.cookies = slices.Sorted(maps.Keys(f.jar))[:min(len(f.jar), 8)]
		f.doubt("no cookie alone makes somebody logged in, so all are credentials")
	}
	if len(f.cookies) == 0 && !f.bearer && !f.bare {
		return errors.New("the right log-in gave neither a cookie nor a token that opens anything")
	}
	return nil
}

// reads finds where the answer has the name, and the account's identifier.
func (w *whoami) reads(name string) bool {
	all := scalars(w.known)
	for _, pointer := range slices.Sorted(maps.Keys(all)) {
		if !strings.EqualFold(all[pointer], name) {
			continue
		}
		w.names, w.subject = quoted(pointer), quoted(pointer)
		parent := pointer[:strings.LastIndexByte(pointer, '/')]
		for _, id := range []string{"/id", "/user_id", "/userId", "/account_id", "/accountId", "/uid", "/uuid", "/sub", "/_id"} {
			if all[parent+id] != "" {
				w.subject = quoted(parent + id)
				break
			}
		}
		return true
	}
	if len(all) > 0 {
		return false
	}
	page := pagePattern(string(w.known.Body), name)
	if page == "" {
		return false
	}
	w.names = "{page: " + quoted(page) + "}"
	w.subject = w.names
	return true
}

// pagePattern matches a page where the name is all of an attribute or of a text, at
// the last such place; empty when there is none.
func pagePattern(page, name string) string {
	written := regexp.QuoteMeta(html.EscapeString(name))
	places := regexp.MustCompile(`(?i)(>\s*|")`+written+`(\s*<|")`).FindAllStringIndex(page, -1)
	for _, place := range slices.Backward(places) {
		// The name and what surrounds it: from the third tag before, within 160 bytes.
		from := place[0]
		for range 3 {
			tag := strings.LastIndexByte(page[max(0, place[0]-160):from], '<')
			if tag < 0 {
				break
			}
			from = max(0, place[0]-160) + tag
			if page[place[0]] == '"' {
				break // its own tag is enough
			}
		}
		if from == place[0] {
			continue
		}
		end := `\s*<`
		if page[place[0]] == '"' {
			end = `"`
		}
		blanks := regexp.MustCompile(`\s+`)
		context := blanks.ReplaceAllString(regexp.QuoteMeta(page[from:place[0]+1]), `\s+`)
		pattern := `(?s)^.*` + context + `\s*([^"<]+?)` + end
		m := regexp.MustCompile(pattern).FindStringSubmatch(page)
		if m != nil && strings.EqualFold(html.UnescapeString(m[1]), name) && len(pattern) < 1000 {
			return pattern
		}
	}
	return ""
}

var logoutPath = regexp.MustCompile(`(?i)(log|sign)[-_]?(out|off)`)

// findLogout tries at most three ways out, until one makes a visitor of the account.
func (l *learner) findLogout(ctx context.Context, f *findings) error {
	if len(f.cookies) == 0 {
		f.doubt("a token has no log-out that was looked for; add `logout` if there is one")
		return nil
	}
	page := f.who.known
	if at := f.right.Header.Get("Location"); at != "" {
		var err error
		if page, err = l.send(ctx, maps.Clone(f.jar), http.MethodGet, at, ""); err != nil {
			return err
		}
	}
	for _, c := range append(logoutsOf(page.Body), policies.Call{Method: "POST", Path: "/logout"}, policies.Call{Method: "GET", Path: "/logout"})[:2] {
		if _, err := l.send(ctx, maps.Clone(f.jar), c.Method, c.Path, ""); err != nil {
			return err
		}
		a, err := l.askAs(ctx, &f.who, f.jar, "")
		if err != nil {
			return err
		}
		if a.Status == f.who.nobody.Status && location(a) == location(f.who.nobody) {
			f.logout = c
			return nil
		}
	}
	f.doubt("no log-out was found; add `logout` and its route if there is one")
	return nil
}

// logoutsOf is the ways out that a page shows, at most one.
func logoutsOf(page []byte) []policies.Call {
	root, err := nethtml.Parse(bytes.NewReader(page))
	if err != nil {
		return nil
	}
	for n := range root.Descendants() {
		c := policies.Call{Method: http.MethodGet, Path: attribute(n, "href")}
		if n.Data == "form" {
			c = policies.Call{Method: http.MethodPost, Path: attribute(n, "action")}
		}
		if u, err := url.Parse(c.Path); err == nil && u.Host == "" && strings.HasPrefix(u.Path, "/") && logoutPath.MatchString(u.Path) {
			c.Path = u.EscapedPath()
			return []policies.Call{c}
		}
	}
	return nil
}
