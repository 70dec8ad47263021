package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/policies"
)

// quoted is a text as YAML has it.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// preset writes what was found.
func (f *findings) preset(name string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by kidoban learn. Read it before it guards anything: a log-in was tried, and")
	line("# nothing else. Lines with UNSURE want a person's eye.")
	for _, u := range f.unsure {
		line("# UNSURE: %s.", u)
	}
	line("name: %s", name)
	line("")
	line("routes:")
	path, _ := policies.CanonicalPath(f.way.path)
	if before, _, query := strings.Cut(path, "?"); query {
		path = before
	}
	line("  - {class: login, methods: [POST], path: %s}", quoted(path))
	if f.way.page != "" {
		page, _ := policies.CanonicalPath(f.way.page)
		line("  - {class: public, methods: [GET], path: %s}", quoted(page))
	}
	if f.logout.Path != "" {
		out, _ := policies.CanonicalPath(f.logout.Path)
		line("  - {class: logout, methods: [%s], path: %s}", f.logout.Method, quoted(out))
	}
	line("  # UNSURE: what changes a password or an address, mints a token, signs up, resets or")
	line("  # invites is not looked for. Other ways to log in are not either: close with admits:")
	line("  # nobody what takes a password or a key in a form, and is not a log-in above.")
	line("")
	line("login:")
	kind := "form"
	if f.way.page == "" {
		kind = "json"
	}
	line("  name: {%s: [%s]}", kind, quoted(f.way.name))
	line("  password: {%s: [%s]}", kind, quoted(f.way.password))
	line("")
	line("success:")
	line("  - %s", f.successCondition())
	line("failure:")
	var seen []string
	for _, a := range f.wrong {
		if c := f.failureCondition(a); !slices.Contains(seen, c) {
			seen = append(seen, c)
			line("  - %s", c)
		}
	}
	line("")
	line("credentials:")
	for i, cookie := range f.cookies {
		anonymous := ""
		if _, visitor := f.visitors[cookie]; visitor {
			anonymous = ", anonymous: true"
		}
		line("  - {name: %s, kind: cookie, cookie: %s, unknown: refuse%s}", numbered("session", i), quoted(cookie), anonymous)
	}
	if f.bare || f.bearer {
		line("  # UNSURE: paired makes a copied token worthless. Programs that keep no cookies cannot")
		line("  # use it then; for them write false.")
	}
	for _, c := range []struct {
		found bool
		lines string
	}{{f.bare, "name: token\n    kind: header\n    header: Authorization"}, {f.bearer, "name: bearer\n    kind: bearer"}} {
		if c.found {
			line("  - %s\n    unknown: refuse\n    paired: true\n    minted:", c.lines)
			for _, pointer := range f.tokens[:1] {
				line("      - {class: login, pointer: %s}", quoted(pointer))
			}
		}
	}
	line("")
	w := f.who
	line("identify:")
	line("  method: %s", w.method)
	line("  path: %s", quoted(w.path))
	line("  authenticated: {status: [%d]}", w.known.Status)
	line("  anonymous: %s", w.anonymousCondition())
	if w.subject == w.names {
		line("  # UNSURE: the name itself; who changes it is somebody else to the gate.")
	} else {
		line("  # UNSURE: must stay the same for ever, and be no other account's.")
	}
	if strings.HasPrefix(w.subject, "{page") {
		line("  # UNSURE: the page's text may be in the reader's language; nothing that people write")
		line("  # themselves may match.")
	}
	line("  subject: %s", w.subject)
	line("  names: [%s]", w.names)
	if f.logout.Path != "" {
		line("")
		line("logout: {method: %s, path: %s}", f.logout.Method, quoted(f.logout.Path))
	}
	return b.String()
}

func numbered(name string, i int) string {
	if i == 0 {
		return name
	}
	return fmt.Sprintf("%s_%d", name, i+1)
}

// successCondition is what the right answer has and no wrong one.
func (f *findings) successCondition() string {
	c := fmt.Sprintf("status: [%d]", f.right.Status)
	for _, name := range slices.Sorted(maps.Keys(given(f.right))) {
		if slices.Contains(f.cookies, name) && !slices.ContainsFunc(f.wrong, func(a policies.Answer) bool { return given(a)[name] != "" }) {
			return "{" + c + ", cookie: " + quoted(name) + "}"
		}
	}
	if len(f.tokens) > 0 {
		return "{" + c + ", json: {pointer: " + quoted(f.tokens[0]) + ", exists: true}}"
	}
	if at := location(f.right); at != "" {
		return "{" + c + ", redirect: " + quoted(at) + "}"
	}
	for _, pointer := range slices.Sorted(maps.Keys(scalars(f.right))) {
		if _, also := scalars(f.wrong[0])[pointer]; !also {
			return "{" + c + ", json: {pointer: " + quoted(pointer) + ", exists: true}}"
		}
	}
	return "{" + c + "}"
}

// failureCondition is what a wrong answer has and the right one has not.
func (f *findings) failureCondition(a policies.Answer) string {
	c := fmt.Sprintf("status: [%d]", a.Status)
	if at := location(a); at != "" {
		return "{" + c + ", redirect: " + quoted(at) + "}"
	}
	if a.Status < 400 {
		for _, mark := range []string{`name="` + f.way.password + `"`, `type="password"`, `type=password`} {
			if bytes.Contains(a.Body, []byte(mark)) && !bytes.Contains(f.right.Body, []byte(mark)) {
				return "{" + c + ", body_contains: " + quoted(mark) + "}"
			}
		}
	}
	if a.Status == f.right.Status {
		for _, pointer := range slices.Sorted(maps.Keys(scalars(a))) {
			if _, also := scalars(f.right)[pointer]; !also {
				return "{" + c + ", json: {pointer: " + quoted(pointer) + ", exists: true}}"
			}
		}
	}
	return "{" + c + "}"
}

// anonymousCondition is what a visitor's answer has.
func (w *whoami) anonymousCondition() string {
	c := fmt.Sprintf("status: [%d]", w.nobody.Status)
	if at := location(w.nobody); at != "" {
		return "{" + c + ", redirect: " + quoted(at+"*") + "}"
	}
	if w.nobody.Status == w.known.Status {
		for _, pointer := range slices.Sorted(maps.Keys(scalars(w.known))) {
			if _, also := scalars(w.nobody)[pointer]; !also {
				return "{" + c + ", json: {pointer: " + quoted(pointer) + ", exists: false}}"
			}
		}
	}
	return "{" + c + "}"
}

// tell sums up what was found. It shows no password, cookie or token.
func (f *findings) tell(w io.Writer, file string, asked int) {
	fmt.Fprintf(w, "asked %d times, wrote %s\n", asked, file)
	fmt.Fprintf(w, "log-in:    POST %s (%s, %s)\n", f.way.path, f.way.name, f.way.password)
	fmt.Fprintf(w, "right:     %s\n", f.successCondition())
	fmt.Fprintf(w, "wrong:     %s\n", f.failureCondition(f.wrong[0]))
	for _, cookie := range f.cookies {
		fmt.Fprintf(w, "cookie:    %s\n", cookie)
	}
	if f.bearer || f.bare {
		fmt.Fprintf(w, "token:     at %s\n", f.tokens[0])
	}
	fmt.Fprintf(w, "identity:  %s %s, %q\n", f.who.method, f.who.path, f.subject)
	if f.logout.Path != "" {
		fmt.Fprintf(w, "log-out:   %s %s\n", f.logout.Method, f.logout.Path)
	}
	for _, u := range f.unsure {
		fmt.Fprintf(w, "unsure:    %s\n", u)
	}
	fmt.Fprintf(w, "read the lines with UNSURE before you use it\n")
}
