package web

import (
	"net/http"
	"strconv"

	"github.com/kidoban/kidoban/chatcore/chat"
)

type messageJSON struct {
	MessageID  string     `json:"message_id"`
	Account    authorJSON `json:"account"`
	Body       string     `json:"body"`
	SendTime   int64      `json:"send_time"`
	UpdateTime int64      `json:"update_time"`
}

type authorJSON struct {
	AccountID      chat.AccountID `json:"account_id"`
	Name           string         `json:"name"`
	AvatarImageURL string         `json:"avatar_image_url"`
}

func toMessageJSON(m chat.Message) messageJSON {
	out := messageJSON{MessageID: strconv.FormatInt(int64(m.ID), 10), Account: authorJSON{AccountID: m.Account, Name: m.Name},
		Body: m.Body, SendTime: m.SentAt.Unix()}
	if !m.UpdatedAt.IsZero() {
		out.UpdateTime = m.UpdatedAt.Unix()
	}
	return out
}

func (h *handler) messages(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.callerInRoom(r)
	if err != nil {
		return err
	}
	force, err := flag(r.URL.Query().Get("force"), "force")
	if err != nil {
		return err
	}
	ms, err := h.svc.Fetch(r.Context(), c, id, force)
	if err != nil {
		return err
	}
	var list []messageJSON
	for _, m := range ms {
		list = append(list, toMessageJSON(m))
	}
	writeList(w, list)
	return nil
}

func (h *handler) postMessage(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.callerInRoom(r)
	if err != nil {
		return err
	}
	form, err := readForm(w, r, messageBodyMax)
	if err != nil {
		return err
	}
	selfUnread, err := flag(form.Get("self_unread"), "self_unread")
	if err != nil {
		return err
	}
	m, err := h.svc.Post(r.Context(), c, id, form.Get("body"), selfUnread)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]string{"message_id": strconv.FormatInt(int64(m), 10)})
	return nil
}

func (h *handler) message(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.callerInRoom(r)
	if err != nil {
		return err
	}
	mid, err := pathID[chat.MessageID](r, "message")
	if err != nil {
		return err
	}
	m, err := h.svc.Message(r.Context(), c, id, mid)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, toMessageJSON(m))
	return nil
}

func (h *handler) readMessages(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.callerInRoom(r)
	if err != nil {
		return err
	}
	form, err := readForm(w, r, bodyMax)
	if err != nil {
		return err
	}
	var upTo chat.MessageID
	if v := form.Get("message_id"); v != "" {
		n, ok := number(v)
		if !ok {
			return chat.Errorf(chat.Invalid, "message_id must be a message's number")
		}
		upTo = chat.MessageID(n)
	}
	room, err := h.svc.Read(r.Context(), c, id, upTo)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]int{"unread_num": room.Unread, "mention_num": room.Mentions})
	return nil
}

// flag reads a truth value as the API writes it.
func flag(s, name string) (bool, error) {
	switch s {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, chat.Errorf(chat.Invalid, "%s must be 0 or 1", name)
}
