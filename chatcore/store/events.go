package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// addEvent writes an event in the transaction of what it tells about, so that
// neither exists without the other. Every hundredth event the oldest beyond
// db.keep are forgotten; a reader that was away for longer must start again.
func (db *DB) addEvent(ctx context.Context, tx *sql.Tx, e chat.Event) error {
	var message chat.MessageID
	if e.Message != nil {
		message = e.Message.ID
	}
	var id chat.EventID
	err := tx.QueryRowContext(ctx, `INSERT INTO events (type, room_id, message_id, at) VALUES (?, ?, ?, ?) RETURNING id`,
		e.Type, e.Room, message, stamp(e.At)).Scan(&id)
	if err != nil || id%100 != 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM events WHERE id <= ?`, int64(id)-db.keep)
	return err
}

// Cursor is the number of the newest event.
func (db *DB) Cursor(ctx context.Context) (chat.EventID, error) {
	_, last, err := bounds(ctx, db.read)
	return last, err
}

// bounds are the newest forgotten event and the newest of all. The second is
// read from SQLite's own counter, which outlives forgotten rows.
func bounds(ctx context.Context, q querier) (forgotten, last chat.EventID, err error) {
	err = q.QueryRowContext(ctx, `SELECT seq FROM sqlite_sequence WHERE name = 'events'`).Scan(&last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, 0, err
	}
	err = q.QueryRowContext(ctx, `SELECT coalesce(min(id) - 1, ?) FROM events`, last).Scan(&forgotten)
	return forgotten, last, err
}

// Events are the events after cursor in rooms the account is in now, at most
// chat.ListMax of them. A cursor from before the oldest event kept, or from a
// future this file never had, is too old: the feed says so and its own cursor
// is the present.
func (db *DB) Events(ctx context.Context, account chat.AccountID, cursor chat.EventID) (f chat.Feed, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		forgotten, last, err := bounds(ctx, tx)
		if err != nil {
			return err
		}
		f = chat.Feed{Cursor: last, TooOld: cursor < forgotten || cursor > last}
		if f.TooOld || cursor == last {
			return nil
		}
		f.Events, err = list(ctx, tx, func(s scanner) (e chat.Event, err error) {
			var at, sent, updated int64
			var m chat.Message
			err = s.Scan(&e.ID, &e.Type, &e.Room, &at, &m.ID, &m.Account, &m.Name, &m.Body, &sent, &updated)
			e.At = moment(at)
			if m.ID != 0 {
				m.Room, m.SentAt, m.UpdatedAt = e.Room, moment(sent), moment(updated)
				e.Message = &m
			}
			return e, err
		}, `SELECT e.id, e.type, e.room_id, e.at, coalesce(g.id, 0), coalesce(g.account_id, 0), coalesce(a.name, ''), coalesce(g.body, ''), coalesce(g.sent_at, 0), coalesce(g.updated_at, 0)
			FROM events e JOIN members m ON m.room_id = e.room_id AND m.account_id = ?
			LEFT JOIN messages g ON g.id = e.message_id LEFT JOIN accounts a ON a.id = g.account_id
			WHERE e.id > ? ORDER BY e.id LIMIT ?`, account, cursor, chat.ListMax)
		if len(f.Events) == chat.ListMax {
			f.Cursor = f.Events[chat.ListMax-1].ID
		}
		return err
	})
	return f, err
}
