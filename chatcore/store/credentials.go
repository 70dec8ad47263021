package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// sessionsMax is how many sessions one account has at once; the oldest ends
// when another begins.
const sessionsMax = 50

// AddSession begins a session. password is the hash the login was checked
// against: when it was replaced meanwhile the answer is chat.ErrLogin, so that
// a login under way never outlives a change or a reset.
func (db *DB) AddSession(ctx context.Context, s chat.Session, password string) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `INSERT INTO sessions (hash, account_id, created_at, expires_at)
			SELECT ?, id, ?, ? FROM accounts WHERE id = ? AND password = ?`,
			s.Hash[:], stamp(s.CreatedAt), stamp(s.ExpiresAt), s.Account, password))
		switch {
		case err != nil:
			return err
		case n == 0:
			return chat.ErrLogin
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM sessions WHERE expires_at <= ? OR account_id = ? AND hash NOT IN
			(SELECT hash FROM sessions WHERE account_id = ? ORDER BY created_at DESC LIMIT ?)`,
			stamp(s.CreatedAt), s.Account, s.Account, sessionsMax)
		return err
	})
}

// EndSession ends a session; ending none is no error.
func (db *DB) EndSession(ctx context.Context, hash chat.SecretHash) error {
	_, err := db.write.ExecContext(ctx, `DELETE FROM sessions WHERE hash = ?`, hash[:])
	return err
}

// CallerBySession finds who a session's secret belongs to.
func (db *DB) CallerBySession(ctx context.Context, hash chat.SecretHash, now time.Time) (c chat.Caller, err error) {
	var expires int64
	err = db.read.QueryRowContext(ctx, `SELECT s.expires_at, `+accountColumns+` FROM sessions s
		JOIN accounts a ON a.id = s.account_id JOIN organizations o ON o.id = a.organization_id
		WHERE s.hash = ? AND s.expires_at > ?`, hash[:], stamp(now)).
		Scan(append([]any{&expires}, accountFields(&c.Account)...)...)
	c.Credential.Session, c.ExpiresAt = hash, moment(expires)
	return c, found(err, chat.ErrCredential)
}

// CallerByToken finds who an API token's secret belongs to.
func (db *DB) CallerByToken(ctx context.Context, hash chat.SecretHash) (c chat.Caller, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT t.id, `+accountColumns+` FROM tokens t
		JOIN accounts a ON a.id = t.account_id JOIN organizations o ON o.id = a.organization_id
		WHERE t.hash = ?`, hash[:]).
		Scan(append([]any{&c.Credential.Token}, accountFields(&c.Account)...)...)
	return c, found(err, chat.ErrCredential)
}

// Valid reports, as chat.ErrCredential, that a credential ended.
func (db *DB) Valid(ctx context.Context, c chat.Credential, now time.Time) error {
	var n int
	err := db.read.QueryRowContext(ctx, `SELECT 1 WHERE EXISTS (SELECT 1 FROM tokens WHERE id = ?)
		OR EXISTS (SELECT 1 FROM sessions WHERE hash = ? AND expires_at > ?)`, c.Token, c.Session[:], stamp(now)).Scan(&n)
	return found(err, chat.ErrCredential)
}

// AddToken stores a token's hash.
func (db *DB) AddToken(ctx context.Context, t chat.Token, hash chat.SecretHash) (id chat.TokenID, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM tokens WHERE account_id = ?`, t.Account).Scan(&n); err != nil {
			return err
		}
		if n >= chat.TokensMax {
			return chat.Errorf(chat.Conflict, "An account has at most %d tokens; delete one first", chat.TokensMax)
		}
		return tx.QueryRowContext(ctx, `INSERT INTO tokens (account_id, hash, name, created_at) VALUES (?, ?, ?, ?) RETURNING id`,
			t.Account, hash[:], t.Name, stamp(t.CreatedAt)).Scan(&id)
	})
	return id, err
}

// Tokens are an account's tokens, oldest first.
func (db *DB) Tokens(ctx context.Context, id chat.AccountID) ([]chat.Token, error) {
	return list(ctx, db.read, func(s scanner) (t chat.Token, err error) {
		var created int64
		err = s.Scan(&t.ID, &t.Account, &t.Name, &created)
		t.CreatedAt = moment(created)
		return t, err
	}, `SELECT id, account_id, name, created_at FROM tokens WHERE account_id = ? ORDER BY id LIMIT ?`, id, chat.ListMax)
}

// DeleteToken ends one of an account's tokens.
func (db *DB) DeleteToken(ctx context.Context, account chat.AccountID, id chat.TokenID) error {
	n, err := affected(db.write.ExecContext(ctx, `DELETE FROM tokens WHERE id = ? AND account_id = ?`, id, account))
	if err == nil && n == 0 {
		return chat.Errorf(chat.NotFound, "There is no such token")
	}
	return err
}
