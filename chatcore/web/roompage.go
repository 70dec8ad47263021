package web

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// roomsData is what the pages with a list of rooms show.
type roomsData struct {
	Rooms []chat.Room
	Open  *openRoom // nil: none is
}

// openRoom is the room a page shows.
type openRoom struct {
	chat.Room
	Members   []chat.Member
	Messages  []chat.Message
	Cursor    chat.EventID   // events after it are not on the page
	Earlier   chat.MessageID // where the page before begins, or zero
	Past      bool           // the page shows earlier messages, not the latest
	MayPost   bool
	Draft     string
	PostError string
}

func (h *handler) roomsPage(w http.ResponseWriter, r *http.Request) error {
	c, err := h.owner(r)
	if err != nil {
		return err
	}
	rooms, err := h.svc.Rooms(r.Context(), c)
	if err != nil {
		return err
	}
	p := h.newPage(w, r, &c)
	p.Data = roomsData{Rooms: rooms}
	h.render(w, r, http.StatusOK, "rooms", p)
	return nil
}

func (h *handler) roomPage(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.ownerInRoom(r)
	if err != nil {
		return err
	}
	return h.renderRoom(w, r, c, id, http.StatusOK, func(*page, *openRoom) {})
}

func (h *handler) renderRoom(w http.ResponseWriter, r *http.Request, c chat.Caller, id chat.RoomID, status int, fill func(*page, *openRoom)) error {
	ctx := r.Context()
	open := &openRoom{}
	var err error
	// The cursor comes first: an event told twice is recognized by its
	// message's number, one told never is lost.
	if open.Cursor, err = h.svc.Cursor(ctx); err != nil {
		return err
	}
	if open.Room, err = h.svc.Room(ctx, c, id); err != nil {
		return err
	}
	var before chat.MessageID
	if n, ok := number(r.URL.Query().Get("before")); ok {
		before, open.Past = chat.MessageID(n), true
	}
	if open.Messages, err = h.svc.Messages(ctx, c, id, before); err != nil {
		return err
	}
	if len(open.Messages) == chat.ListMax {
		open.Earlier = open.Messages[0].ID
	}
	if open.Members, err = h.svc.Members(ctx, c, id); err != nil {
		return err
	}
	data := roomsData{Open: open}
	if data.Rooms, err = h.svc.Rooms(ctx, c); err != nil {
		return err
	}
	open.MayPost = open.Role != chat.ReadOnly
	p := h.newPage(w, r, &c)
	fill(p, open)
	p.Data = data
	h.render(w, r, status, "room", p)
	return nil
}

// postForm posts from a page without scripts. What was written is not lost
// when it cannot be posted.
func (h *handler) postForm(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.ownerInRoom(r)
	if err != nil {
		return err
	}
	form, err := readForm(w, r, messageBodyMax)
	if err != nil {
		return err
	}
	_, err = h.svc.Post(r.Context(), c, id, form.Get("body"), false)
	if key := texts(err); key != "" && !errors.Is(err, chat.ErrRoomNotFound) {
		status, _ := h.heard(r, err)
		return h.renderRoom(w, r, c, id, status, func(p *page, o *openRoom) {
			o.Draft, o.PostError = form.Get("body"), p.T(key)
		})
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, roomPath(id), http.StatusSeeOther)
	return nil
}

func (h *handler) readForm(w http.ResponseWriter, r *http.Request) error {
	c, id, err := h.ownerInRoom(r)
	if err != nil {
		return err
	}
	if _, err := h.svc.Read(r.Context(), c, id, 0); err != nil {
		return err
	}
	http.Redirect(w, r, roomPath(id), http.StatusSeeOther)
	return nil
}

func roomPath(id chat.RoomID) string { return "/rooms/" + strconv.FormatInt(int64(id), 10) }

// ownerInRoom is who asks by a session, and the room of the path.
func (h *handler) ownerInRoom(r *http.Request) (chat.Caller, chat.RoomID, error) {
	c, err := h.owner(r)
	if err != nil {
		return c, 0, err
	}
	id, err := pathID[chat.RoomID](r, "room")
	if err != nil {
		err = chat.ErrRoomNotFound
	}
	return c, id, err
}
