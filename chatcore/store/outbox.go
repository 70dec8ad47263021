package store

import (
	"context"
	"database/sql"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// outboxMax is how many mails wait; the oldest is dropped for a new one.
const outboxMax = 10_000

// Send puts a mail in the outbox, and drops those whose link has expired: a
// mail nobody fetched is not to keep its secret for ever.
func (db *DB) Send(ctx context.Context, m chat.Mail) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO outbox (recipient, subject, body, language, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)`,
			m.To, m.Subject, m.Body, m.Language, stamp(m.CreatedAt), stamp(m.ExpiresAt)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM outbox WHERE expires_at <= ? OR id <= (SELECT max(id) FROM outbox) - ?`, stamp(m.CreatedAt), outboxMax)
		return err
	})
}

// Outbox is the newest mails, newest first.
func (db *DB) Outbox(ctx context.Context) ([]chat.Mail, error) {
	return list(ctx, db.read, func(s scanner) (m chat.Mail, err error) {
		var created, expires int64
		err = s.Scan(&m.To, &m.Subject, &m.Body, &m.Language, &created, &expires)
		m.CreatedAt, m.ExpiresAt = moment(created), moment(expires)
		return m, err
	}, `SELECT recipient, subject, body, language, created_at, expires_at FROM outbox ORDER BY id DESC LIMIT ?`, chat.ListMax)
}
