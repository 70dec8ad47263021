package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"time"

	"github.com/kidoban/kidoban/chatcore/chat"
)

const messageQuery = `SELECT g.id, g.room_id, g.account_id, a.name, g.body, g.sent_at, g.updated_at
	FROM messages g JOIN accounts a ON a.id = g.account_id WHERE g.room_id = ?`

func scanMessage(s scanner) (m chat.Message, err error) {
	var sent, updated int64
	err = s.Scan(&m.ID, &m.Room, &m.Account, &m.Name, &m.Body, &sent, &updated)
	m.SentAt, m.UpdatedAt = moment(sent), moment(updated)
	return m, err
}

// AddMessage posts to a room on behalf of one of its members. Unless
// selfUnread, the author has read the room up to the new message.
func (db *DB) AddMessage(ctx context.Context, account chat.AccountID, room chat.RoomID, body string, selfUnread bool, now time.Time) (id chat.MessageID, err error) {
	ids, all := chat.Addressees(body)
	err = db.update(ctx, func(tx *sql.Tx) error {
		r, err := role(ctx, tx, account, room)
		switch {
		case err != nil:
			return err
		case r == chat.ReadOnly:
			return chat.ErrReadOnly
		}
		err = tx.QueryRowContext(ctx, `INSERT INTO messages (room_id, account_id, body, self_unread, sent_at) VALUES (?, ?, ?, ?, ?) RETURNING id`,
			room, account, body, selfUnread, stamp(now)).Scan(&id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE rooms SET message_num = message_num + 1, updated_at = ? WHERE id = ?`, stamp(now), room); err != nil {
			return err
		}
		if !selfUnread {
			if _, err := tx.ExecContext(ctx, `UPDATE members SET read_id = ? WHERE room_id = ? AND account_id = ?`, id, room, account); err != nil {
				return err
			}
		}
		if all || len(ids) > 0 {
			given, err := json.Marshal(ids)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO mentions (room_id, account_id, message_id) SELECT room_id, account_id, ? FROM members
				WHERE room_id = ? AND account_id <> ? AND (? OR account_id IN (SELECT value FROM json_each(?)))`,
				id, room, account, all, string(given)); err != nil {
				return err
			}
		}
		return db.addEvent(ctx, tx, chat.Event{Type: chat.MessageCreated, Room: room, At: now, Message: &chat.Message{ID: id}})
	})
	return id, err
}

// Message is one message of a room the account is in.
func (db *DB) Message(ctx context.Context, account chat.AccountID, room chat.RoomID, id chat.MessageID) (m chat.Message, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		if _, err := role(ctx, tx, account, room); err != nil {
			return err
		}
		m, err = scanMessage(tx.QueryRowContext(ctx, messageQuery+` AND g.id = ?`, room, id))
		return found(err, chat.Errorf(chat.NotFound, "There is no such message"))
	})
	return m, err
}

// Messages are the latest messages before one, or of all when before is zero,
// oldest first.
func (db *DB) Messages(ctx context.Context, account chat.AccountID, room chat.RoomID, before chat.MessageID) (ms []chat.Message, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		ms, err = latest(ctx, tx, account, room, 0, before)
		return err
	})
	return ms, err
}

// Fetch is Messages for a program: what came since its last fetch, or
// regardless of it when force. It remembers what it handed out.
func (db *DB) Fetch(ctx context.Context, account chat.AccountID, room chat.RoomID, force bool) (ms []chat.Message, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		var after chat.MessageID
		if !force {
			err := tx.QueryRowContext(ctx, `SELECT fetched_id FROM members WHERE room_id = ? AND account_id = ?`, room, account).Scan(&after)
			if err != nil {
				return found(err, chat.ErrRoomNotFound)
			}
		}
		if ms, err = latest(ctx, tx, account, room, after, 0); err != nil || len(ms) == 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE members SET fetched_id = ? WHERE room_id = ? AND account_id = ?`, ms[len(ms)-1].ID, room, account)
		return err
	})
	return ms, err
}

func latest(ctx context.Context, tx *sql.Tx, account chat.AccountID, room chat.RoomID, after, before chat.MessageID) ([]chat.Message, error) {
	if _, err := role(ctx, tx, account, room); err != nil {
		return nil, err
	}
	if before == 0 {
		before = 1<<63 - 1
	}
	ms, err := list(ctx, tx, scanMessage, messageQuery+` AND g.id > ? AND g.id < ? ORDER BY g.id DESC LIMIT ?`, room, after, before, chat.ListMax)
	slices.Reverse(ms)
	return ms, err
}

// Read marks a room as read up to a message, or to its end when upTo is zero.
// It never makes a read message unread.
func (db *DB) Read(ctx context.Context, account chat.AccountID, room chat.RoomID, upTo chat.MessageID) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		if _, err := role(ctx, tx, account, room); err != nil {
			return err
		}
		last := upTo
		if upTo == 0 {
			if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM messages WHERE room_id = ?`, room).Scan(&last); err != nil {
				return err
			}
		} else {
			var n int
			err := tx.QueryRowContext(ctx, `SELECT 1 FROM messages WHERE room_id = ? AND id = ?`, room, upTo).Scan(&n)
			if err != nil {
				return found(err, chat.Errorf(chat.NotFound, "There is no such message"))
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE members SET read_id = max(read_id, ?) WHERE room_id = ? AND account_id = ?`, last, room, account)
		return err
	})
}
