package web

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
	_ "time/tzdata" // pages show times where their reader is
	"unicode/utf8"

	"github.com/kidoban/kidoban/chatcore/chat"
)

//go:embed templates/*.html
var templateFiles embed.FS

// templates joins the name of a page to its template.
var templates = parseTemplates()

func parseTemplates() map[string]*template.Template {
	funcs := template.FuncMap{"asset": assetURL, "initial": initial, "hue": hue}
	layout := template.Must(template.New("layout.html").Funcs(funcs).ParseFS(templateFiles, "templates/layout.html"))
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is constant
	}
	all := map[string]*template.Template{}
	for _, name := range names {
		if base := strings.TrimSuffix(path.Base(name), ".html"); base != "layout" {
			all[base] = template.Must(template.Must(layout.Clone()).ParseFS(templateFiles, name))
		}
	}
	return all
}

// page is what every template is given.
type page struct {
	Lang    string
	Name    string        // of the template
	Account *chat.Account // nil: nobody is logged in
	Error   string
	Notice  string
	Data    any

	path  string // of the request
	query url.Values
	zone  *time.Location
	now   time.Time
}

// newPage begins a page for a request of caller, or of nobody known.
func (h *handler) newPage(w http.ResponseWriter, r *http.Request, caller *chat.Caller) *page {
	p := &page{path: r.URL.Path, query: r.URL.Query(), zone: time.UTC, now: h.now()}
	if caller != nil {
		a := caller.Account
		p.Account = &a
		if zone, err := time.LoadLocation(a.TimeZone); err == nil {
			p.zone = zone
		}
	}
	p.Lang = h.language(w, r, p.Account)
	return p
}

// Title is the text key of the page's name.
func (p *page) Title() string { return p.T("title." + p.Name) }

// In is the address of this page in another language. What else the query
// holds is kept only where it means something.
func (p *page) In(language string) string {
	q := url.Values{"lang": {language}}
	if next := p.query.Get("next"); next != "" {
		q.Set("next", next)
	}
	return p.path + "?" + q.Encode()
}

// Clock is a moment as the reader's wall clock shows it.
func (p *page) Clock(t time.Time) string { return t.In(p.zone).Format("15:04") }

// Stamp is a moment as scripts read it.
func (p *page) Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Zone is the reader's time zone.
func (p *page) Zone() string { return p.zone.String() }

// Day is a moment's date where the reader is, for comparing.
func (p *page) Day(t time.Time) string { return t.In(p.zone).Format("2006-01-02") }

var weekdaysJa = []string{"日", "月", "火", "水", "木", "金", "土"}

// Date is a moment's date as the reader writes it.
func (p *page) Date(t time.Time) string {
	t = t.In(p.zone)
	if p.Lang == "ja" {
		return t.Format("2006年1月2日") + "(" + weekdaysJa[t.Weekday()] + ")"
	}
	return t.Format("Monday, 2 January 2006")
}

// When is short: the time of today, or the date of another day.
func (p *page) When(t time.Time) string {
	switch {
	case p.Day(t) == p.Day(p.now):
		return p.Clock(t)
	case p.Lang == "ja":
		return t.In(p.zone).Format("1月2日")
	}
	return t.In(p.zone).Format("2 Jan")
}

// initial is the letter on an avatar.
func initial(name string) string {
	r, n := utf8.DecodeRuneInString(strings.TrimSpace(name))
	if n == 0 {
		return "?"
	}
	return strings.ToUpper(string(r))
}

// hue picks one of the stylesheet's avatar colours for an account or a room.
func hue(id any) int64 {
	switch id := id.(type) {
	case chat.AccountID:
		return int64(id) % 8
	case chat.RoomID:
		return int64(id) % 8
	}
	return 0
}

// render writes a page as a whole or, when its template fails, none of it.
func (h *handler) render(w http.ResponseWriter, r *http.Request, status int, name string, p *page) {
	p.Name = name
	var b bytes.Buffer
	if err := templates[name].ExecuteTemplate(&b, "layout.html", p); err != nil {
		h.log.ErrorContext(r.Context(), "rendering", "page", name, "error", err.Error())
		http.Error(w, "Something went wrong here", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", p.Lang)
	w.Header().Add("Vary", "Accept-Language, Cookie")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// texts is the key of the text in which a page says err, or empty.
func texts(err error) string {
	for key, e := range map[string]*chat.Error{
		"password.wrong": chat.ErrPasswordWrong, "password.short": chat.ErrPasswordShort, "password.long": chat.ErrPasswordLong,
		"password.text": chat.ErrPasswordText, "reset.gone": chat.ErrResetGone, "message.empty": chat.ErrMessageEmpty,
		"message.long": chat.ErrMessageLong, "room.none": chat.ErrRoomNotFound, "room.readonly": chat.ErrReadOnly,
	} {
		if errors.Is(err, e) {
			return key
		}
	}
	return ""
}
