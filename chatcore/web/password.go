package web

import (
	"errors"
	"net/http"

	"github.com/kidoban/kidoban/chatcore/chat"
)

func (h *handler) changePassword(w http.ResponseWriter, r *http.Request) error {
	c, err := h.owner(r)
	if err != nil {
		return err
	}
	f, err := readFields(w, r, "current_password", "new_password")
	if err != nil {
		return err
	}
	err = h.svc.ChangePassword(r.Context(), c, f["current_password"], f["new_password"])
	if wantsJSON(r) {
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
		return err
	}
	if key := texts(err); key != "" {
		status, _ := h.heard(r, err)
		return h.renderAccount(w, r, c, status, func(p *page, a *accountData) { a.PasswordError = p.T(key) })
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/account?done=password", http.StatusSeeOther)
	return nil
}

func (h *handler) requestResetPage(w http.ResponseWriter, r *http.Request) error {
	h.render(w, r, http.StatusOK, "reset", h.newPage(w, r, nil))
	return nil
}

// requestReset answers the same for every address.
func (h *handler) requestReset(w http.ResponseWriter, r *http.Request) error {
	f, err := readFields(w, r, "email")
	if err != nil {
		return err
	}
	if err := h.svc.RequestReset(r.Context(), f["email"]); err != nil {
		return err
	}
	if wantsJSON(r) {
		writeJSON(w, http.StatusAccepted, map[string]string{"message": "If there is such an account, a mail with a link is on its way."})
		return nil
	}
	p := h.newPage(w, r, nil)
	p.Notice = p.T("reset.sent")
	h.render(w, r, http.StatusAccepted, "reset", p)
	return nil
}

func (h *handler) resetPage(w http.ResponseWriter, r *http.Request) error {
	if err := h.svc.CheckReset(r.Context(), r.PathValue("token")); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, "newpassword", h.newPage(w, r, nil))
	return nil
}

func (h *handler) resetPassword(w http.ResponseWriter, r *http.Request) error {
	f, err := readFields(w, r, "new_password")
	if err != nil {
		return err
	}
	err = h.svc.ResetPassword(r.Context(), r.PathValue("token"), f["new_password"])
	switch {
	case wantsJSON(r):
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
		return err
	case texts(err) != "" && !errors.Is(err, chat.ErrResetGone):
		p := h.newPage(w, r, nil)
		p.Error = p.T(texts(err))
		status, _ := h.heard(r, err)
		h.render(w, r, status, "newpassword", p)
		return nil
	case err != nil:
		return err
	}
	h.clearSession(w) // it has ended, if it was this account's
	http.Redirect(w, r, "/login?done=reset", http.StatusSeeOther)
	return nil
}
