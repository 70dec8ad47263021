package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/chat"
)

// How long things last on a live connection.
const (
	pollMax    = 25 * time.Second // a long poll waits no longer
	pingEvery  = 25 * time.Second
	writeLimit = 10 * time.Second // a client that takes longer to read is cut off
)

// closeCredential closes a WebSocket whose session or token has ended.
const closeCredential websocket.StatusCode = 4401

// feedJSON is one run of events, by either way. Cursor is opaque to clients
// and comes back in the next request.
type feedJSON struct {
	Cursor string      `json:"cursor"`
	TooOld bool        `json:"too_old,omitempty"`
	Errors []string    `json:"errors,omitempty"` // set with TooOld
	Events []eventJSON `json:"events"`
}

type eventJSON struct {
	EventID string         `json:"event_id"`
	Type    chat.EventType `json:"type"`
	RoomID  chat.RoomID    `json:"room_id"`
	Time    int64          `json:"time"`
	Message *messageJSON   `json:"message,omitempty"`
}

func toFeedJSON(f chat.Feed) feedJSON {
	out := feedJSON{Cursor: strconv.FormatInt(int64(f.Cursor), 10), TooOld: f.TooOld, Events: []eventJSON{}}
	if f.TooOld {
		out.Errors = []string{chat.ErrCursorTooOld.Message}
	}
	for _, e := range f.Events {
		j := eventJSON{EventID: strconv.FormatInt(int64(e.ID), 10), Type: e.Type, RoomID: e.Room, Time: e.At.Unix()}
		if e.Message != nil {
			m := toMessageJSON(*e.Message)
			j.Message = &m
		}
		out.Events = append(out.Events, j)
	}
	return out
}

// follow opens the feed a request asks for.
func (h *handler) follow(r *http.Request) (*chatcore.Feed, error) {
	c, err := h.caller(r)
	if err != nil {
		return nil, err
	}
	var cursor *chat.EventID
	if v := r.URL.Query().Get("cursor"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return nil, chat.Errorf(chat.Invalid, "cursor must be one this service gave")
		}
		id := chat.EventID(n)
		cursor = &id
	}
	return h.svc.Follow(r.Context(), c, cursor)
}

// poll answers with the events after ?cursor=, waiting for the first of them
// up to ?wait= seconds (25 unless told). Without a cursor it answers at once
// with the present one. A cursor too old is 410, with the present one.
func (h *handler) poll(w http.ResponseWriter, r *http.Request) error {
	wait := pollMax
	if v := r.URL.Query().Get("wait"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || time.Duration(n)*time.Second > pollMax {
			return chat.Errorf(chat.Invalid, "wait must be 0 to %d seconds", pollMax/time.Second)
		}
		wait = time.Duration(n) * time.Second
	}
	feed, err := h.follow(r)
	if err != nil {
		return err
	}
	defer feed.Close()
	if r.URL.Query().Get("cursor") == "" {
		wait = 0
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	got, err := feed.Next(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		got = chat.Feed{Cursor: feed.Cursor()}
	case err != nil:
		return err
	}
	status := http.StatusOK
	if got.TooOld {
		status = http.StatusGone
	}
	writeJSON(w, status, toFeedJSON(got))
	return nil
}

// socket sends events over a WebSocket. The first message holds the cursor and
// no events. The client sends nothing; to go on after a break it connects
// again with the last cursor it saw.
func (h *handler) socket(w http.ResponseWriter, r *http.Request) error {
	feed, err := h.follow(r)
	if err != nil {
		return err
	}
	defer feed.Close()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: h.origins})
	if err != nil {
		return nil // Accept has answered
	}
	defer conn.CloseNow()
	err = pump(conn.CloseRead(r.Context()), feed, socket{conn})
	switch {
	case errors.Is(err, chat.ErrCredential):
		conn.Close(closeCredential, "session ended")
	case chat.KindOf(err) == chat.Unavailable:
		conn.Close(websocket.StatusGoingAway, "stopping")
	}
	return nil
}

// source is where events come from; *chatcore.Feed is one.
type source interface {
	Next(context.Context) (chat.Feed, error)
	Check() error // whether the credential still is one
	Cursor() chat.EventID
}

// sink is where events go. Both methods return when ctx ends.
type sink interface {
	Write(context.Context, []byte) error
	Ping(context.Context) error
}

// pump moves events from a source to a sink until one of them ends. One
// message is under way at a time, with at most chat.ListMax events; the rest
// wait in the store. A sink that does not take a message within writeLimit, or
// does not answer a ping within it, is given up.
func pump(ctx context.Context, from source, to sink) error {
	send := func(f chat.Feed) error {
		b, err := json.Marshal(toFeedJSON(f))
		if err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, writeLimit)
		defer cancel()
		return to.Write(limited, b)
	}
	if err := send(chat.Feed{Cursor: from.Cursor()}); err != nil {
		return err
	}
	for {
		waiting, cancel := context.WithTimeout(ctx, pingEvery)
		got, err := from.Next(waiting)
		cancel()
		switch {
		case err == nil:
			err = send(got)
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			if err = from.Check(); err == nil {
				limited, cancel := context.WithTimeout(ctx, writeLimit)
				err = to.Ping(limited)
				cancel()
			}
		}
		if err != nil {
			return err
		}
	}
}

// socket is a WebSocket as a sink.
type socket struct{ *websocket.Conn }

func (s socket) Write(ctx context.Context, b []byte) error {
	return s.Conn.Write(ctx, websocket.MessageText, b)
}
