package pages

import (
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"strings"
	"time"
)

//go:embed html style.css key.js
var files embed.FS

// sheet is what templates are given: html/layout.html, and in it the view's own, which
// defines "main".
type sheet struct {
	Site
	Language string
	Title    string
	Keys     bool
	View     View
}

// Service is the service's name, or words that stand for it.
func (s sheet) Service() string {
	if name := line(s.Name); name != "" {
		return name
	}
	return say(s.Language, "service")
}

// templates are those of all views, by language and name.
var templates = map[string]map[string]*template.Template{"en": parse("en"), "ja": parse("ja")}

func parse(lang string) map[string]*template.Template {
	layout := template.Must(template.New("layout.html").Funcs(template.FuncMap{
		"say":    func(key string, values ...any) string { return say(lang, key, values...) },
		"span":   func(d time.Duration) string { return span(lang, d) },
		"moment": func(t time.Time) string { return moment(lang, t) },
		"day":    func(t time.Time) string { return day(lang, t) },
		"file":   func(name string) string { return addresses[name] },
		"line":   line,
		"local":  local,
		"qr":     qrCode,
		"app":    appAddress,
		"groups": groups,
	}).ParseFS(files, "html/layout.html", "html/parts.html"))
	names, err := fs.Glob(files, "html/*.html")
	if err != nil {
		panic(err) // the pattern is well formed
	}
	all := make(map[string]*template.Template, len(names))
	for _, file := range names {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "html/"), ".html")
		if name != "layout" && name != "parts" {
			all[name] = template.Must(template.Must(layout.Clone()).ParseFS(files, file))
		}
	}
	return all
}

// local is address if it leads to this site, whatever a browser makes of it, and else
// "/": pages lead nowhere else.
func local(address string) string {
	if !strings.HasPrefix(address, "/") || strings.HasPrefix(address, "//") || strings.ContainsFunc(address, outOfPlace) {
		return "/"
	}
	return address
}

// outOfPlace finds what browsers take for a slash, or drop (URL Standard, section 4.4).
func outOfPlace(r rune) bool { return r == '\\' || r <= ' ' || r == 0x7f }

// groups parts a code for the eye.
func groups(code string) []string {
	return strings.FieldsFunc(code, func(r rune) bool { return r == '-' || r == ' ' })
}

// appAddress is the address by which an app on the same device takes over a secret
// (Google Authenticator's key URI format); html/template trusts none but the web's.
func appAddress(uri string) (template.URL, error) {
	if !strings.HasPrefix(uri, "otpauth://totp/") {
		return "", fmt.Errorf("the address of an app's secret does not begin with otpauth://totp/")
	}
	return template.URL(uri), nil
}
