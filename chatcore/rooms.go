package chatcore

import (
	"context"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// Rooms are the caller's rooms, at most chat.ListMax.
func (s *Service) Rooms(ctx context.Context, c chat.Caller) ([]chat.Room, error) {
	return s.db.Rooms(ctx, c.Account.ID)
}

// Room is one of the caller's rooms. A room the caller is not in is
// chat.ErrRoomNotFound here and everywhere below, as one that does not exist.
func (s *Service) Room(ctx context.Context, c chat.Caller, id chat.RoomID) (chat.Room, error) {
	return s.db.Room(ctx, c.Account.ID, id)
}

// NewRoom makes a group room with the caller among its administrators.
func (s *Service) NewRoom(ctx context.Context, c chat.Caller, n chat.NewRoom) (chat.RoomID, error) {
	if n.Icon == "" {
		n.Icon = "group"
	}
	if err := n.Check(); err != nil {
		return 0, err
	}
	id, err := s.db.AddRoom(ctx, c.Account.ID, n, s.now())
	if err != nil {
		return 0, err
	}
	return id, s.announce(ctx, id)
}

// Members are a room's members, at most chat.ListMax.
func (s *Service) Members(ctx context.Context, c chat.Caller, id chat.RoomID) ([]chat.Member, error) {
	return s.db.Members(ctx, c.Account.ID, id)
}

// SetMembers replaces the members of a room the caller administers.
func (s *Service) SetMembers(ctx context.Context, c chat.Caller, id chat.RoomID, m chat.Membership) error {
	if err := m.Check(); err != nil {
		return err
	}
	touched, err := s.db.SetMembers(ctx, c.Account.ID, id, m, s.now())
	if err != nil {
		return err
	}
	s.live.wake(touched)
	return nil
}

// Post adds a message to a room the caller may write to. Unless selfUnread,
// the room counts as read by the caller.
func (s *Service) Post(ctx context.Context, c chat.Caller, id chat.RoomID, body string, selfUnread bool) (chat.MessageID, error) {
	if err := chat.CheckBody(body); err != nil {
		return 0, err
	}
	m, err := s.db.AddMessage(ctx, c.Account.ID, id, body, selfUnread, s.now())
	if err != nil {
		return 0, err
	}
	return m, s.announce(ctx, id)
}

// Message is one message.
func (s *Service) Message(ctx context.Context, c chat.Caller, room chat.RoomID, id chat.MessageID) (chat.Message, error) {
	return s.db.Message(ctx, c.Account.ID, room, id)
}

// Messages are the latest chat.ListMax messages before one, or of all when
// before is zero, oldest first.
func (s *Service) Messages(ctx context.Context, c chat.Caller, room chat.RoomID, before chat.MessageID) ([]chat.Message, error) {
	return s.db.Messages(ctx, c.Account.ID, room, before)
}

// Fetch are the messages since the caller's last Fetch, or the latest ones
// regardless when force; at most chat.ListMax.
func (s *Service) Fetch(ctx context.Context, c chat.Caller, room chat.RoomID, force bool) ([]chat.Message, error) {
	return s.db.Fetch(ctx, c.Account.ID, room, force)
}

// Read marks a room as read up to a message, or wholly when upTo is zero, and
// returns the room.
func (s *Service) Read(ctx context.Context, c chat.Caller, room chat.RoomID, upTo chat.MessageID) (chat.Room, error) {
	if err := s.db.Read(ctx, c.Account.ID, room, upTo); err != nil {
		return chat.Room{}, err
	}
	return s.db.Room(ctx, c.Account.ID, room)
}

// announce wakes the feeds of a room's members. What happened is stored by
// then, so a failure here only delays the news.
func (s *Service) announce(ctx context.Context, id chat.RoomID) error {
	ids, err := s.db.MemberIDs(context.WithoutCancel(ctx), id)
	if err != nil {
		s.log.ErrorContext(ctx, "announcing", "room", int64(id), "error", err.Error())
		return nil
	}
	s.live.wake(ids)
	return nil
}
