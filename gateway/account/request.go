package account

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"
	_ "time/tzdata" // a reader's time zone is known on every machine

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
)

// formMax bounds what a form sends, in bytes: the answer of a key is the longest.
const formMax = 96 << 10

// request is one request of a visit.
type request struct {
	Visit
	d *Desk
	w http.ResponseWriter
	r *http.Request
}

func (d *Desk) request(w http.ResponseWriter, r *http.Request, v Visit) *request {
	return &request{v, d, w, r}
}

func (q *request) ctx() context.Context { return q.r.Context() }

// below is a path below a place, with the slash that begins it; "" is the place.
func below(path string) string {
	if path = strings.Trim(path, "/"); path == "" {
		return ""
	}
	return "/" + path
}

// held is where the gate asks a held login for its factor: above v.Base, which differs
// between the client that signs in and a browser that continues for it.
func (q *request) held() string { return strings.TrimSuffix(q.Base, enrolPath) }

// page answers with a page.
func (q *request) page(status int, view pages.View) error {
	return q.d.Site.Write(q.w, q.r, status, q.Language, view)
}

// to answers with a redirection to a path of ours, which the browser gets by GET.
func (q *request) to(path string) error {
	h := q.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Location", path)
	q.w.WriteHeader(http.StatusSeeOther)
	return nil
}

// stepUp has the gate ask for a factor, and then go to a page.
func (q *request) stepUp(to string) error { return q.to(stepUpPath + "?to=" + url.QueryEscape(to)) }

// by calls what answers the method. A nil one is not allowed.
func (q *request) by(get, post func() error) error {
	switch {
	case post != nil && q.r.Method == http.MethodPost:
		q.r.Body = http.MaxBytesReader(q.w, q.r.Body, formMax)
		if q.r.ParseForm() != nil {
			return q.page(http.StatusBadRequest, pages.Page{Kind: pages.BadRequest})
		}
		return post()
	case get != nil && (q.r.Method == http.MethodGet || q.r.Method == http.MethodHead):
		return get()
	}
	var allowed []string
	if get != nil {
		allowed = append(allowed, http.MethodGet, http.MethodHead)
	}
	if post != nil {
		allowed = append(allowed, http.MethodPost)
	}
	q.w.Header().Set("Allow", strings.Join(allowed, ", "))
	return q.page(http.StatusMethodNotAllowed, pages.Page{Kind: pages.BadRequest})
}

// act puts an act of the account's owner on the record and does it.
func (q *request) act(kind string, more map[string]string, do func(ctx context.Context, by auth.Act, at time.Time) error) error {
	body := map[string]string{"account": q.Subject}
	if q.Session != nil {
		body["session"] = q.Session.ID
	} else if q.Approve != nil {
		body["hold"] = q.Approve.Hold
	}
	for name, value := range more {
		if value != "" {
			body[name] = value
		}
	}
	return q.d.Act(q.ctx(), kind, body, func(ctx context.Context, entry string, at time.Time) error {
		return do(ctx, auth.Act{By: ByOwner, Entry: entry}, at)
	})
}

// name is what to call the account, also where the directory has no name for it.
func (q *request) name() string {
	if q.Visit.Account != "" {
		return q.Visit.Account
	}
	return q.Subject
}

// local is t where the account's owner is.
func (q *request) local(t time.Time) time.Time { return t.In(zone(q.Person.TimeZone)) }

// zone is the time zone of that name; what is none is UTC.
func zone(name string) *time.Location {
	if name == "Local" || len(name) > 64 {
		return time.UTC
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return time.UTC
	}
	return z
}

// place is the name of a country in the language of the visit, "" where it is none.
func (q *request) place(country string) string { return pages.Place(q.Language, country) }
