package guard

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/account"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// demandFactor asks for a factor again before something sensitive, from who has one,
// and reports whether it answered.
func (g *Guard) demandFactor(w http.ResponseWriter, v *visit) (bool, error) {
	s := v.session
	if s == nil || !v.canHold() || !g.factorPolicy.StepUp(v.class, g.aal(s, v.now), s.Verified, v.now) {
		return false, nil
	}
	factors, err := g.Factors.List(v.r.Context(), s.Subject)
	if err != nil {
		g.complain("second factors", "error", err)
		return true, v.refuse(ControlSessions, unavailable).write(w, v.r)
	}
	if len(factors) == 0 {
		return false, nil
	}
	v.count(ControlSessions, policies.Verdict{Action: rules.StepUp, Reason: policies.ReasonFactorDue}, false, true)
	return true, g.askFactor(w, v)
}

// askFactor leads who is in to where a factor is given, and back to where it was needed.
func (g *Guard) askFactor(w http.ResponseWriter, v *visit) error {
	to := "/"
	if v.safe() && wantsHTML(v.r) {
		to = v.r.URL.RequestURI()
	} else if u, err := url.Parse(v.r.Header.Get("Referer")); err == nil && u.Host == v.r.Host {
		to = u.RequestURI() // the page with the form, which is sent again from there
	}
	page := stepUpPage(localPath(to))
	if wantsHTML(v.r) {
		return redirect(w, page)
	}
	// As RFC 9470 section 3 says it.
	w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_user_authentication", acr_values="aal2", max_age=`+strconv.Itoa(int(g.factorPolicy.Sensitive.Within.Seconds())))
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	text := pages.Text(pages.StepUp, pages.Language(v.r))
	body, err := json.Marshal(problem{
		Type: OwnPath + "problems/" + string(pages.StepUp), Title: text.Title, Status: http.StatusUnauthorized, Detail: text.Detail, Continue: g.origin(v.r) + page,
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusUnauthorized)
	_, err = w.Write(body)
	return err
}

func stepUpPage(to string) string { return OwnPath + "step-up?to=" + url.QueryEscape(to) }

// serveStepUp asks who is in for a factor, and leads back to where it was needed.
func (g *Guard) serveStepUp(w http.ResponseWriter, v *visit, rest string) error {
	s := v.session
	if s == nil {
		return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonSessionEnded}).write(w, v.r)
	}
	to := localPath(v.r.URL.Query().Get("to"))
	purpose := "session " + s.ID
	show := func(status int, failed bool) error {
		view, err := g.factorView(v, s.Subject)
		if err != nil {
			return v.troubled(w, "second factors", err)
		}
		view.Action, view.KeyBegin, view.CSRF = stepUpPage(to), OwnPath+"step-up/key", g.csrfToken(v.crumbs.session)
		view.StepUp, view.Failed, view.Cancel = true, failed, ""
		return v.page(w, status, view)
	}
	if v.r.Method != http.MethodPost {
		return show(http.StatusOK, false)
	}
	if !g.csrfGood(v.r.PostForm.Get(pages.FieldCSRF), v.crumbs.session) {
		return v.foreign(w)
	}
	switch rest {
	case "key":
		return g.beginKey(w, v, s.Subject, purpose)
	case "":
	default:
		http.NotFound(w, v.r)
		return nil
	}
	attempt, err := g.give(v, s.Subject, nil, purpose, map[string]string{"session": s.ID})
	if out := (*ruledOut)(nil); errors.As(err, &out) {
		return v.refuse(countedRules, out.verdict).write(w, v.r)
	}
	switch {
	case errors.Is(err, auth.ErrWrongCode):
		return show(http.StatusUnprocessableEntity, true)
	case err != nil:
		return v.troubled(w, "second factors", err)
	}
	switch err := v.raise(attempt.Factor.Kind); {
	case errors.Is(err, auth.ErrSessionEnded), errors.Is(err, auth.ErrNoSession), errors.Is(err, auth.ErrExpired):
		return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonSessionEnded}).write(w, v.r)
	case err != nil:
		return v.troubled(w, "raising a session", err)
	}
	return v.lead(w, to)
}

// raise notes that the person of the session gave a factor, and gives its cookie a new
// secret (ASVS 5.0 7.2.4).
func (v *visit) raise(kind auth.FactorKind) error {
	g := v.guard
	raised, token, err := g.Sessions.Raise(context.WithoutCancel(v.r.Context()), v.session.ID, 2, kind, auth.Act{By: account.ByOwner}, v.now)
	if err != nil {
		return err
	}
	g.tellNodes(topicSessions)
	v.session, v.crumbs.session = &raised, token
	v.cookies = append(v.cookies, g.sessionCookie(token, raised.Expires, v.now))
	return nil
}

// aal is the assurance level that a session still has.
func (g *Guard) aal(s *auth.Session, now time.Time) int {
	return s.AALAt(now, g.factorPolicy.AAL2.Overall, g.factorPolicy.AAL2.Idle)
}

// fresh reports whether a session's factor was given lately enough for a change of
// factors.
func (v *visit) fresh(s *auth.Session) bool {
	return v.guard.aal(s, v.now) >= 2 && v.now.Sub(s.Verified).Abs() < max(v.guard.factorPolicy.Sensitive.Within, time.Minute)
}
