package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// login answers every refusal alike: same status, same bytes. So the page does
// not repeat the address either.
func (h *handler) login(w http.ResponseWriter, r *http.Request) error {
	names := []string{"email", "password"}
	if !wantsJSON(r) {
		names = append(names, "next")
	}
	f, err := readFields(w, r, names...)
	if err != nil {
		return err
	}
	account, secret, session, err := h.svc.Login(r.Context(), f["email"], f["password"])
	if errors.Is(err, chat.ErrLogin) && !wantsJSON(r) {
		p := h.newPage(w, r, nil)
		p.Error, p.Data = p.T("login.failed"), local(f["next"])
		h.render(w, r, http.StatusUnauthorized, "login", p)
		return nil
	}
	if err != nil {
		return err
	}
	h.setSession(w, secret, session)
	if wantsJSON(r) {
		writeJSON(w, http.StatusOK, map[string]chat.AccountID{"account_id": account.ID})
		return nil
	}
	http.Redirect(w, r, local(f["next"]), http.StatusSeeOther)
	return nil
}

// local is next when it is a path on this site, or else where a login leads.
// Browsers take "//host", "/\host" and paths with line breaks as addresses of
// other sites.
func local(next string) string {
	const home = "/rooms"
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil ||
		!strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.Contains(next, `\`) ||
		strings.ContainsFunc(next, unicode.IsControl) || len(next) > 1024 {
		return home
	}
	return next
}

func (h *handler) loginPage(w http.ResponseWriter, r *http.Request) error {
	if _, err := h.caller(r); err == nil {
		http.Redirect(w, r, local(r.URL.Query().Get("next")), http.StatusSeeOther)
		return nil
	}
	p := h.newPage(w, r, nil)
	p.Data = local(r.URL.Query().Get("next"))
	if r.URL.Query().Get("done") == "reset" {
		p.Notice = p.T("reset.done")
	}
	h.render(w, r, http.StatusOK, "login", p)
	return nil
}

// logout ends the session if there is one; there being none is what was
// wished for.
func (h *handler) logout(w http.ResponseWriter, r *http.Request) error {
	c, err := h.owner(r)
	if err == nil {
		err = h.svc.Logout(r.Context(), c)
	}
	if err != nil && !errors.Is(err, chat.ErrCredential) {
		return err
	}
	h.clearSession(w)
	if wantsJSON(r) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}
