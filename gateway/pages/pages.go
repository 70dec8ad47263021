// Package pages is what end users see of the gate: a few calm sentences in
// Japanese or English, what to do next, and the forms of a login that is held.
//
// # What it guarantees
//
// A page works without script, but for passkeys, and loads nothing from elsewhere:
// its Content-Security-Policy says so. Everything that comes from outside is escaped,
// and what strangers chose is cut to 64 characters without hidden ones. Links and
// forms lead to the site itself. A page with its style sheet and script weighs at
// most 60 KB, the service's logo aside. It meets WCAG 2.2 AA. No page tells which
// detector or rule spoke, or whether a name, code or mail address exists.
//
// # How it is used
//
// A [Site] writes a [View], a struct for each thing there is to say, and serves the
// style sheet, the script and the logo that pages refer to. Each view's comment tells
// what its forms send. All forms are sent by POST as
// application/x-www-form-urlencoded, to addresses that the view names, with the field
// "csrf" as it was given.
//
// # What it does not do
//
// It keeps nothing, sets no cookie and reads no form: what is sent is checked by
// whoever handles it.
package pages

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
)

// View is what a page says: one of the structs of this package.
type View interface {
	screen() screen
}

// screen is how a view is shown.
type screen struct {
	template string // html/NAME.html
	title    string // key of a phrase
	keys     bool   // it runs the script for passkeys
	forms    bool   // it has any
}

// Site is whose pages they are. The zero value shows our mark and no name.
type Site struct {
	Name     string // of the service, as its users know it
	Logo     []byte // an image of at most a few KB; nil: our mark
	LogoType string // media type of Logo
}

// Write sends a page. lang is "ja" or "en". The status, like the words, tells nothing
// about which rule spoke.
func (s Site) Write(w http.ResponseWriter, r *http.Request, status int, lang string, v View) error {
	if lang != "ja" {
		lang = "en"
	}
	about := v.screen()
	t, ok := templates[lang][about.template]
	if !ok {
		return fmt.Errorf("there is no page %q", about.template)
	}
	var body bytes.Buffer
	if err := t.Execute(&body, sheet{Site: s, Language: lang, Title: say(lang, about.title), Keys: about.keys, View: v}); err != nil {
		return fmt.Errorf("writing the page %s: %w", about.template, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", lang)
	h.Set("Content-Security-Policy", about.policy())
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	// A form that is sent under no-referrer says "Origin: null" (Fetch, section 3.2),
	// which nobody can tell from another site's. Under strict-origin no address with a
	// token in it gets anywhere either.
	h.Set("Referrer-Policy", "strict-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept-Language")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body.Bytes())
	return err
}

// policy is the Content-Security-Policy (CSP Level 3) of a page that has no more
// than s says.
func (s screen) policy() string {
	p := "default-src 'none'; style-src 'self'; img-src 'self'; "
	if s.keys {
		p += "script-src 'self'; connect-src 'self'; "
	}
	if s.forms {
		p += "form-action 'self'; "
	} else {
		p += "form-action 'none'; "
	}
	return p + "base-uri 'none'; frame-ancestors 'none'"
}
