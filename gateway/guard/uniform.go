package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/policies"
)

// askingMax bounds the requests whose backend is still at work after their answer.
const askingMax = 256

// serveUniform answers a request that asks for a mail in one way at one time, whether
// the account exists, whether the backend is asked, and whatever it answers. The one
// exception are answers that the preset calls errors of the request itself.
//
// The answer is given a set time after the request began, also when the backend still
// works: how long that takes shows nothing. It works on by itself, for loginTimeout at
// most, and hears a request that knows nothing of what handlers before the gate noted.
//
// What remains is not in this answer: the mail itself, which only the address's owner
// sees; how busy the backend is with one sort of request, to whoever measures others
// meanwhile; how exact timers are on a loaded machine; and an answer that the preset
// wrongly calls an error. When askingMax requests are at work nobody is served, which
// says how many they are.
func (g *Guard) serveUniform(w http.ResponseWriter, v *visit, q *counted, began time.Time, pass bool) error {
	answered := make(chan policies.Answer, 1)
	if pass {
		if err := v.ask(answered); err != nil {
			g.report(v, "a request could not be passed on", "error", err)
			return v.refuse(ControlLimits, unavailable).write(w, v.r)
		}
	}
	v.wait(g.answerAfter - time.Since(began))
	for _, line := range v.cookies {
		w.Header().Add("Set-Cookie", line)
	}
	select {
	case a := <-answered:
		if q.form.Wrong(a) {
			return writeRendering(w, policies.Rendering{Status: a.Status, ContentType: a.Header.Get("Content-Type"), Body: string(a.Body)})
		}
	default:
	}
	return writeUniform(w, v.r, g.site, q.form)
}

// ask has the backend work on the request, and gives its answer to answered if there
// is one.
func (v *visit) ask(answered chan<- policies.Answer) error {
	g := v.guard
	select {
	case g.asking <- struct{}{}:
	default:
		return errBusy
	}
	body, err := io.ReadAll(v.r.Body) // it was read before, and found short enough
	if err != nil {
		<-g.asking
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.r.Context()), loginTimeout)
	r := v.r.Clone(ctx)
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil, nil
	r.Header.Del("Accept-Encoding")
	r.Header.Del("Expect")
	var got capture
	if v.peer.Prepare != nil {
		r = v.peer.Prepare(r, &got)
	}
	go func() {
		defer func() { <-g.asking }()
		defer cancel()
		err := answerInto(&got, r, v.next)
		for _, p := range v.open {
			// It may be somebody's now: the next request asks whose it is.
			g.anonymous.forget(auth.HashCredential(p.credential.Name, p.value))
		}
		if err != nil || got.status == 0 || got.status >= 500 {
			g.report(v, "the backend failed at a request whose client is not told", "status", got.status, "error", err)
			return
		}
		answered <- policies.Answer{Status: got.status, Header: got.Header(), Body: got.body.Bytes(), Truncated: got.cut}
	}()
	return nil
}

// writeUniform writes the answer that everybody gets: as the backend would word it
// where the preset says how, else in words of our own.
func writeUniform(w http.ResponseWriter, r *http.Request, site pages.Site, form policies.RequestForm) error {
	kind, lang := "json", pages.Language(r)
	if wantsHTML(r) {
		kind = "html"
	}
	if rendering, ok := form.Answers[kind]; ok {
		return writeRendering(w, rendering)
	}
	if kind == "html" {
		return site.Write(w, r, http.StatusAccepted, lang, pages.Page{Kind: pages.Accepted})
	}
	text := pages.Text(pages.Accepted, lang)
	body, err := json.Marshal(struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}{text.Title, text.Detail})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Language", lang)
	return writeRendering(w, policies.Rendering{Status: http.StatusAccepted, ContentType: "application/json", Body: string(body)})
}

// writeRendering writes an answer in the backend's place.
func writeRendering(w http.ResponseWriter, a policies.Rendering) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	for name, value := range a.Header {
		h.Set(name, value)
	}
	if a.ContentType != "" {
		h.Set("Content-Type", a.ContentType)
	}
	if a.Location != "" {
		h.Set("Location", a.Location)
	}
	if a.Status != http.StatusNoContent && a.Status != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	w.WriteHeader(a.Status)
	if len(a.Body) == 0 {
		return nil
	}
	_, err := io.WriteString(w, a.Body)
	return err
}
