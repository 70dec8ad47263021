package chat

import "time"

// EventID grows by at least one with every event, in the order in which
// events became visible. Zero is before the first.
type EventID int64

// EventType says what happened.
type EventType string

const (
	MessageCreated EventType = "message_created"
	RoomCreated    EventType = "room_created"
	MembersChanged EventType = "members_changed"
)

// Event is something that happened in a room. Message is set for
// MessageCreated only.
type Event struct {
	ID      EventID
	Type    EventType
	Room    RoomID
	At      time.Time
	Message *Message
}

// Feed is a run of events for one account and the cursor to go on from: every
// event up to Cursor that the account may see was told, unless TooOld says
// that some were already forgotten.
type Feed struct {
	Cursor EventID
	Events []Event
	TooOld bool
}
