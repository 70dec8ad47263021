package web

import (
	"net/http"
	"net/url"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// accountJSON is an account as its owner sees it. The fields kept empty are
// those this service does not ask for.
type accountJSON struct {
	AccountID        chat.AccountID      `json:"account_id"`
	RoomID           chat.RoomID         `json:"room_id"`
	Name             string              `json:"name"`
	ChatworkID       string              `json:"chatwork_id"`
	OrganizationID   chat.OrganizationID `json:"organization_id"`
	OrganizationName string              `json:"organization_name"`
	Department       string              `json:"department"`
	Title            string              `json:"title"`
	URL              string              `json:"url"`
	Introduction     string              `json:"introduction"`
	Mail             string              `json:"mail"`
	TelOrganization  string              `json:"tel_organization"`
	TelExtension     string              `json:"tel_extension"`
	TelMobile        string              `json:"tel_mobile"`
	Skype            string              `json:"skype"`
	Facebook         string              `json:"facebook"`
	Twitter          string              `json:"twitter"`
	AvatarImageURL   string              `json:"avatar_image_url"`
	LoginMail        string              `json:"login_mail"`
	Language         string              `json:"language"`
	TimeZone         string              `json:"time_zone"`
}

func (h *handler) me(w http.ResponseWriter, r *http.Request) error {
	c, err := h.caller(r)
	if err != nil {
		return err
	}
	a := c.Account
	writeJSON(w, http.StatusOK, accountJSON{AccountID: a.ID, RoomID: a.MyRoom, Name: a.Name, ChatworkID: a.Handle,
		OrganizationID: a.Organization, OrganizationName: a.OrganizationName, Department: a.Department, Title: a.Title,
		Mail: a.Email, LoginMail: a.Email, Language: a.Language, TimeZone: a.TimeZone})
	return nil
}

type tokenJSON struct {
	TokenID   chat.TokenID `json:"token_id"`
	Name      string       `json:"name"`
	CreatedAt int64        `json:"created_at"`
}

func (h *handler) tokens(w http.ResponseWriter, r *http.Request) error {
	c, err := h.caller(r)
	if err != nil {
		return err
	}
	ts, err := h.svc.Tokens(r.Context(), c)
	if err != nil {
		return err
	}
	var list []tokenJSON
	for _, t := range ts {
		list = append(list, tokenJSON{t.ID, t.Name, t.CreatedAt.Unix()})
	}
	writeList(w, list)
	return nil
}

func (h *handler) newToken(w http.ResponseWriter, r *http.Request) error {
	c, err := h.owner(r)
	if err != nil {
		return err
	}
	form, err := readForm(w, r, bodyMax)
	if err != nil {
		return err
	}
	t, secret, err := h.svc.NewToken(r.Context(), c, form.Get("name"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Token   string       `json:"token"`
		TokenID chat.TokenID `json:"token_id"`
	}{secret, t.ID})
	return nil
}

func (h *handler) deleteToken(w http.ResponseWriter, r *http.Request) error {
	c, err := h.owner(r)
	if err != nil {
		return err
	}
	id, err := pathID[chat.TokenID](r, "token")
	if err != nil {
		return err
	}
	if err := h.svc.DeleteToken(r.Context(), c, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// accountData is what the account page shows beside the account.
type accountData struct {
	Tokens        []chat.Token
	NewToken      string // shown this once
	PasswordError string
	TokenError    string
}

func (h *handler) accountPage(w http.ResponseWriter, r *http.Request) error {
	c, err := h.owner(r)
	if err != nil {
		return err
	}
	return h.renderAccount(w, r, c, http.StatusOK, func(p *page, _ *accountData) {
		switch r.URL.Query().Get("done") {
		case "password":
			p.Notice = p.T("password.done")
		case "language":
			p.Notice = p.T("language.done")
		case "token":
			p.Notice = p.T("token.deleted")
		}
	})
}

func (h *handler) renderAccount(w http.ResponseWriter, r *http.Request, c chat.Caller, status int, fill func(*page, *accountData)) error {
	p := h.newPage(w, r, &c)
	var data accountData
	var err error
	if data.Tokens, err = h.svc.Tokens(r.Context(), c); err != nil {
		return err
	}
	fill(p, &data)
	p.Data = data
	h.render(w, r, status, "account", p)
	return nil
}

// ownerForm is the beginning of every form of the pages.
func (h *handler) ownerForm(w http.ResponseWriter, r *http.Request, max int64) (chat.Caller, url.Values, error) {
	c, err := h.owner(r)
	if err != nil {
		return c, nil, err
	}
	form, err := readForm(w, r, max)
	return c, form, err
}

func (h *handler) languageForm(w http.ResponseWriter, r *http.Request) error {
	c, form, err := h.ownerForm(w, r, bodyMax)
	if err != nil {
		return err
	}
	if err := h.svc.SetLanguage(r.Context(), c, form.Get("language")); err != nil {
		return err
	}
	http.Redirect(w, r, "/account?done=language", http.StatusSeeOther)
	return nil
}

func (h *handler) tokenForm(w http.ResponseWriter, r *http.Request) error {
	c, form, err := h.ownerForm(w, r, bodyMax)
	if err != nil {
		return err
	}
	_, secret, err := h.svc.NewToken(r.Context(), c, form.Get("name"))
	if err != nil && chat.KindOf(err) == chat.Internal {
		return err
	}
	status := http.StatusOK
	if err != nil {
		status, _ = h.heard(r, err)
	}
	return h.renderAccount(w, r, c, status, func(p *page, a *accountData) {
		a.NewToken = secret
		switch chat.KindOf(err) {
		case chat.Invalid:
			a.TokenError = p.T("token.name.wrong", chat.TokenNameMax)
		case chat.Conflict:
			a.TokenError = p.T("token.many", chat.TokensMax)
		}
	})
}

func (h *handler) deleteTokenForm(w http.ResponseWriter, r *http.Request) error {
	c, _, err := h.ownerForm(w, r, bodyMax)
	if err != nil {
		return err
	}
	id, err := pathID[chat.TokenID](r, "token")
	if err != nil {
		return err
	}
	if err := h.svc.DeleteToken(r.Context(), c, id); err != nil {
		return err
	}
	http.Redirect(w, r, "/account?done=token", http.StatusSeeOther)
	return nil
}
