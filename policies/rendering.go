package policies

import (
	"encoding/json"
	"errors"
	"html"
	"maps"
	"net/url"
	"strings"
)

// Wording is what a held answer can tell a person.
type Wording struct {
	Continue string // absolute address where the person gives the factor
	Code     string // short code to compare or to type there
	Title    string // one sentence
	Detail   string // what to do, with address and code
}

// Fill returns r with {continue}, {code}, {title} and {detail} filled in: escaped
// for JSON or HTML in the body, as its content type says; for a query in the
// location, but where the location is {continue} as a whole; plainly in headers,
// without control characters. Other braces stay.
func (r Rendering) Fill(w Wording) Rendering {
	escape := func(s string) string { return s }
	switch kind := strings.ToLower(r.ContentType); {
	case strings.Contains(kind, "json"):
		escape = escapeJSON
	case strings.Contains(kind, "html"), strings.Contains(kind, "xml"):
		escape = html.EscapeString
	}
	r.Body = fill(r.Body, w, escape)
	if r.Location == "{continue}" {
		r.Location = escapeHeader(w.Continue)
	} else {
		r.Location = fill(r.Location, w, url.QueryEscape)
	}
	r.Header = maps.Clone(r.Header)
	for name, value := range r.Header {
		r.Header[name] = fill(value, w, escapeHeader)
	}
	return r
}

// fill does all at once, so that what is filled in is not looked at again.
func fill(text string, w Wording, escape func(string) string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	return strings.NewReplacer(
		"{continue}", escape(w.Continue), "{code}", escape(w.Code), "{title}", escape(w.Title), "{detail}", escape(w.Detail),
	).Replace(text)
}

func escapeJSON(s string) string {
	quoted, err := json.Marshal(s) // <, > and & are escaped too
	if err != nil {
		return ""
	}
	return string(quoted[1 : len(quoted)-1])
}

func escapeHeader(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// checkHeld reports what keeps a person from going on at a held answer.
func checkHeld(r Rendering) error {
	switch {
	case !strings.Contains(r.Body, "{continue}") && !strings.Contains(r.Body, "{detail}") && !strings.Contains(r.Location, "{continue}"):
		return errors.New("tells nobody where to go on; put {detail} or {continue} into the body, or {continue} into the location")
	case r.Status >= 300 && r.Status < 400 && r.Location == "":
		return errors.New("is a redirect without location")
	case r.Status < 300 && r.Location == "" && !strings.Contains(strings.ToLower(r.ContentType), "html"):
		return errors.New("looks like a success to a program; choose a status from 400 on that its clients show")
	}
	return nil
}
