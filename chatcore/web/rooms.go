package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/chatcore/chat"
)

type roomJSON struct {
	RoomID         chat.RoomID   `json:"room_id"`
	Name           string        `json:"name"`
	Type           chat.RoomType `json:"type"`
	Role           chat.Role     `json:"role"`
	Sticky         bool          `json:"sticky"`
	UnreadNum      int           `json:"unread_num"`
	MentionNum     int           `json:"mention_num"`
	MytaskNum      int           `json:"mytask_num"`
	MessageNum     int           `json:"message_num"`
	FileNum        int           `json:"file_num"`
	TaskNum        int           `json:"task_num"`
	IconPath       string        `json:"icon_path"`
	LastUpdateTime int64         `json:"last_update_time"`
	Description    *string       `json:"description,omitempty"` // of one room, not of a list
}

func toRoomJSON(r chat.Room) roomJSON {
	return roomJSON{RoomID: r.ID, Name: r.Name, Type: r.Type, Role: r.Role, Sticky: r.Sticky, UnreadNum: r.Unread,
		MentionNum: r.Mentions, MessageNum: r.Messages, LastUpdateTime: r.UpdatedAt.Unix()}
}

func (h *handler) rooms(w http.ResponseWriter, r *http.Request) error {
	c, err := h.caller(r)
	if err != nil {
		return err
	}
	rooms, err := h.svc.Rooms(r.Context(), c)
	if err != nil {
		return err
	}
	var list []roomJSON
	for _, room := range rooms {
		list = append(list, toRoomJSON(room))
	}
	writeList(w, list)
	return nil
}

func (h *handler) newRoom(w http.ResponseWriter, r *http.Request) error {
	c, err := h.caller(r)
	if err != nil {
		return err
	}
	form, err := readForm(w, r, bodyMax)
	if err != nil {
		return err
	}
	if v := form.Get("link"); v != "" && v != "0" {
		return chat.Errorf(chat.Invalid, "This service has no invitation links")
	}
	n := chat.NewRoom{Name: form.Get("name"), Description: form.Get("description"), Icon: form.Get("icon_preset")}
	if n.Members, err = membership(form.Get); err != nil {
		return err
	}
	id, err := h.svc.NewRoom(r.Context(), c, n)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]chat.RoomID{"room_id": id})
	return nil
}

func (h *handler) room(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.callerInRoom(r)
	if err != nil {
		return err
	}
	room, err := h.svc.Room(r.Context(), c, id)
	if err != nil {
		return err
	}
	out := toRoomJSON(room)
	out.Description = &room.Description
	writeJSON(w, http.StatusOK, out)
	return nil
}

type memberJSON struct {
	AccountID        chat.AccountID      `json:"account_id"`
	Role             chat.Role           `json:"role"`
	Name             string              `json:"name"`
	ChatworkID       string              `json:"chatwork_id"`
	OrganizationID   chat.OrganizationID `json:"organization_id"`
	OrganizationName string              `json:"organization_name"`
	Department       string              `json:"department"`
	AvatarImageURL   string              `json:"avatar_image_url"`
}

func (h *handler) members(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.callerInRoom(r)
	if err != nil {
		return err
	}
	members, err := h.svc.Members(r.Context(), c, id)
	if err != nil {
		return err
	}
	var list []memberJSON
	for _, m := range members {
		a := m.Account
		list = append(list, memberJSON{AccountID: a.ID, Role: m.Role, Name: a.Name, ChatworkID: a.Handle,
			OrganizationID: a.Organization, OrganizationName: a.OrganizationName, Department: a.Department})
	}
	writeList(w, list)
	return nil
}

func (h *handler) setMembers(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.callerInRoom(r)
	if err != nil {
		return err
	}
	form, err := readForm(w, r, bodyMax)
	if err != nil {
		return err
	}
	m, err := membership(form.Get)
	if err != nil {
		return err
	}
	if err := h.svc.SetMembers(r.Context(), c, id, m); err != nil {
		return err
	}
	out := map[chat.Role][]chat.AccountID{chat.Admin: {}, chat.Writer: {}, chat.ReadOnly: {}}
	for account, role := range m.Roles() {
		out[role] = append(out[role], account)
	}
	for _, ids := range out {
		slices.Sort(ids)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// membership reads the three lists of a room's members.
func membership(field func(string) string) (m chat.Membership, err error) {
	for name, ids := range map[string]*[]chat.AccountID{
		"members_admin_ids": &m.Admins, "members_member_ids": &m.Writers, "members_readonly_ids": &m.ReadOnly,
	} {
		text := field(name)
		if text == "" {
			continue
		}
		for part := range strings.SplitSeq(text, ",") {
			id, ok := number(strings.TrimSpace(part))
			if !ok {
				return m, chat.Errorf(chat.Invalid, "%s must be account numbers with commas between", name)
			}
			*ids = append(*ids, chat.AccountID(id))
		}
	}
	return m, nil
}

// callerInRoom is who asks, and the room of the path.
func (h *handler) callerInRoom(r *http.Request) (chat.Caller, chat.RoomID, error) {
	c, err := h.caller(r)
	if err != nil {
		return c, 0, err
	}
	id, err := pathID[chat.RoomID](r, "room")
	if err != nil {
		err = chat.ErrRoomNotFound
	}
	return c, id, err
}

// pathID reads a number of the path.
func pathID[ID ~int64](r *http.Request, name string) (ID, error) {
	n, ok := number(r.PathValue(name))
	if !ok {
		return 0, errNoPage
	}
	return ID(n), nil
}

// number reads a positive decimal number in its one spelling.
func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0 && strconv.FormatInt(n, 10) == s
}
