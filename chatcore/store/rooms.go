package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// roomQuery reads rooms as the account of the first three parameters sees
// them. A direct room is called after the other member. Counting stops at
// 1000: nobody reads a larger number of unread messages.
const roomQuery = `SELECT r.id, r.type, r.description, r.icon, r.message_num, r.updated_at, m.role, m.sticky,
	CASE r.type WHEN 'direct' THEN coalesce((SELECT a.name FROM members x JOIN accounts a ON a.id = x.account_id
		WHERE x.room_id = r.id AND x.account_id <> m.account_id LIMIT 1), r.name) ELSE r.name END,
	(SELECT count(*) FROM (SELECT 1 FROM messages g WHERE g.room_id = r.id AND g.id > m.read_id
		AND (g.account_id <> m.account_id OR g.self_unread) LIMIT 1000)),
	(SELECT count(*) FROM (SELECT 1 FROM mentions n WHERE n.room_id = r.id AND n.account_id = m.account_id AND n.message_id > m.read_id LIMIT 1000))
	FROM members m JOIN rooms r ON r.id = m.room_id WHERE m.account_id = ?`

func scanRoom(s scanner) (r chat.Room, err error) {
	var updated int64
	err = s.Scan(&r.ID, &r.Type, &r.Description, &r.Icon, &r.Messages, &updated, &r.Role, &r.Sticky, &r.Name, &r.Unread, &r.Mentions)
	r.UpdatedAt = moment(updated)
	return r, err
}

// Rooms are an account's rooms, pinned ones first, then the latest news first.
func (db *DB) Rooms(ctx context.Context, account chat.AccountID) ([]chat.Room, error) {
	return list(ctx, db.read, scanRoom, roomQuery+` ORDER BY m.sticky DESC, r.updated_at DESC, r.id DESC LIMIT ?`, account, chat.ListMax)
}

// Room is one of an account's rooms, or chat.ErrRoomNotFound: an account
// cannot tell a room it is not in from one that does not exist.
func (db *DB) Room(ctx context.Context, account chat.AccountID, id chat.RoomID) (chat.Room, error) {
	r, err := scanRoom(db.read.QueryRowContext(ctx, roomQuery+` AND r.id = ?`, account, id))
	return r, found(err, chat.ErrRoomNotFound)
}

// AddRoom makes a group room.
func (db *DB) AddRoom(ctx context.Context, creator chat.AccountID, n chat.NewRoom, now time.Time) (id chat.RoomID, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `INSERT INTO rooms (type, name, description, icon, created_at, updated_at) VALUES ('group', ?, ?, ?, ?, ?) RETURNING id`,
			n.Name, n.Description, n.Icon, stamp(now), stamp(now)).Scan(&id)
		if err != nil {
			return err
		}
		roles := n.Members.Roles()
		roles[creator] = chat.Admin
		if err := setMembers(ctx, tx, creator, id, roles); err != nil {
			return err
		}
		return db.addEvent(ctx, tx, chat.Event{Type: chat.RoomCreated, Room: id, At: now})
	})
	return id, err
}

// Members are the members of a room the account is in, administrators first.
func (db *DB) Members(ctx context.Context, account chat.AccountID, id chat.RoomID) (members []chat.Member, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		if _, err := role(ctx, tx, account, id); err != nil {
			return err
		}
		members, err = list(ctx, tx, func(s scanner) (m chat.Member, err error) {
			err = s.Scan(append([]any{&m.Role}, accountFields(&m.Account)...)...)
			return m, err
		}, `SELECT m.role, `+accountColumns+` FROM members m JOIN accounts a ON a.id = m.account_id
			JOIN organizations o ON o.id = a.organization_id WHERE m.room_id = ? ORDER BY m.role, a.id LIMIT ?`, id, chat.ListMax)
		return err
	})
	return members, err
}

// SetMembers replaces the members of a group room, on behalf of one of its
// administrators, and answers who was a member before or is one now.
func (db *DB) SetMembers(ctx context.Context, account chat.AccountID, id chat.RoomID, m chat.Membership, now time.Time) (touched []chat.AccountID, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		r, err := role(ctx, tx, account, id)
		switch {
		case err != nil:
			return err
		case r != chat.Admin:
			return chat.ErrNotAdmin
		}
		var kind chat.RoomType
		if err := tx.QueryRowContext(ctx, `SELECT type FROM rooms WHERE id = ?`, id).Scan(&kind); err != nil {
			return err
		}
		if kind != chat.Group {
			return chat.Errorf(chat.Forbidden, "The members of this room cannot be changed")
		}
		if touched, err = memberIDs(ctx, tx, id); err != nil {
			return err
		}
		roles := m.Roles()
		if err := setMembers(ctx, tx, account, id, roles); err != nil {
			return err
		}
		touched = append(touched, slices.Collect(maps.Keys(roles))...)
		return db.addEvent(ctx, tx, chat.Event{Type: chat.MembersChanged, Room: id, At: now})
	})
	return touched, err
}

// setMembers makes roles the members of a room. Whoever was in the room may
// stay; anybody else must be of the actor's organization, so that numbers
// cannot be tried to find or to drag in other organizations' people.
func setMembers(ctx context.Context, tx *sql.Tx, actor chat.AccountID, room chat.RoomID, roles map[chat.AccountID]chat.Role) error {
	ids := slices.Sorted(maps.Keys(roles))
	given, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	var known int
	err = tx.QueryRowContext(ctx, `SELECT count(*) FROM accounts WHERE id IN (SELECT value FROM json_each(?)) AND
		(organization_id = (SELECT organization_id FROM accounts WHERE id = ?) OR id IN (SELECT account_id FROM members WHERE room_id = ?))`,
		string(given), actor, room).Scan(&known)
	if err != nil {
		return err
	}
	if known != len(ids) {
		return chat.Errorf(chat.Invalid, "members must be accounts of your organization")
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM members WHERE room_id = ? AND account_id NOT IN (SELECT value FROM json_each(?))`, room, string(given)); err != nil {
		return err
	}
	// A member who comes later finds what was said before as read.
	for _, id := range ids {
		if _, err := tx.ExecContext(ctx, `INSERT INTO members (room_id, account_id, role, read_id, fetched_id)
			VALUES (?1, ?2, ?3, (SELECT coalesce(max(id), 0) FROM messages WHERE room_id = ?1), 0)
			ON CONFLICT DO UPDATE SET role = excluded.role`, room, id, roles[id]); err != nil {
			return err
		}
	}
	return nil
}

// MemberIDs are all accounts in a room.
func (db *DB) MemberIDs(ctx context.Context, id chat.RoomID) ([]chat.AccountID, error) {
	return memberIDs(ctx, db.read, id)
}

func memberIDs(ctx context.Context, q querier, id chat.RoomID) ([]chat.AccountID, error) {
	return list(ctx, q, func(s scanner) (id chat.AccountID, err error) {
		err = s.Scan(&id)
		return id, err
	}, `SELECT account_id FROM members WHERE room_id = ? LIMIT ?`, id, chat.RoomMembersMax)
}

// role is what an account may do in a room, or chat.ErrRoomNotFound.
func role(ctx context.Context, q querier, account chat.AccountID, id chat.RoomID) (r chat.Role, err error) {
	err = q.QueryRowContext(ctx, `SELECT role FROM members WHERE room_id = ? AND account_id = ?`, id, account).Scan(&r)
	return r, found(err, chat.ErrRoomNotFound)
}
