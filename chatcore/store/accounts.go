package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// accountColumns are what scanAccount reads, from accounts a and
// organizations o.
const accountColumns = `a.id, a.organization_id, o.name, a.my_room_id, a.email, a.name, a.handle, a.department, a.title, a.language, a.time_zone`

func accountFields(a *chat.Account) []any {
	return []any{&a.ID, &a.Organization, &a.OrganizationName, &a.MyRoom, &a.Email, &a.Name, &a.Handle, &a.Department, &a.Title, &a.Language, &a.TimeZone}
}

// AccountByEmail finds the account of an address, written as chat.EmailKey
// writes it, and its password's hash.
func (db *DB) AccountByEmail(ctx context.Context, key string) (a chat.Account, password string, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT a.password, `+accountColumns+`
		FROM accounts a JOIN organizations o ON o.id = a.organization_id WHERE a.email_key = ?`, key).
		Scan(append([]any{&password}, accountFields(&a)...)...)
	return a, password, found(err, errNotFound)
}

// Password is the hash of an account's password.
func (db *DB) Password(ctx context.Context, id chat.AccountID) (hash string, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT password FROM accounts WHERE id = ?`, id).Scan(&hash)
	return hash, found(err, errNotFound)
}

// Rehash replaces a hash by another of the same password. It reports false,
// and changes nothing, when the stored hash is not old any more.
func (db *DB) Rehash(ctx context.Context, id chat.AccountID, old, new string) (bool, error) {
	n, err := affected(db.write.ExecContext(ctx, `UPDATE accounts SET password = ? WHERE id = ? AND password = ?`, new, id, old))
	return n > 0, err
}

// ChangePassword replaces the hash old by new and ends every session of the
// account but keep. When the stored hash is not old any more, because another
// change came first, it is chat.ErrPasswordWrong.
func (db *DB) ChangePassword(ctx context.Context, id chat.AccountID, old, new string, keep chat.SecretHash) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `UPDATE accounts SET password = ? WHERE id = ? AND password = ?`, new, id, old))
		switch {
		case err != nil:
			return err
		case n == 0:
			return chat.ErrPasswordWrong
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE account_id = ? AND hash <> ?`, id, keep[:]); err != nil {
			return err
		}
		// A link mailed before the change must not undo it.
		_, err = tx.ExecContext(ctx, `DELETE FROM password_resets WHERE account_id = ?`, id)
		return err
	})
}

// SetLanguage sets the language an account reads.
func (db *DB) SetLanguage(ctx context.Context, id chat.AccountID, language string) error {
	_, err := db.write.ExecContext(ctx, `UPDATE accounts SET language = ? WHERE id = ?`, language, id)
	return err
}

// resetsMax is how many links of one account work at once, so that asking for
// them again and again fills nothing.
const resetsMax = 5

// AddReset stores the hash of a link's secret.
func (db *DB) AddReset(ctx context.Context, id chat.AccountID, hash chat.SecretHash, now, expires time.Time) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO password_resets (hash, account_id, created_at, expires_at) VALUES (?, ?, ?, ?)`,
			hash[:], id, stamp(now), stamp(expires)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM password_resets WHERE expires_at <= ? OR account_id = ? AND hash NOT IN
			(SELECT hash FROM password_resets WHERE account_id = ? ORDER BY created_at DESC LIMIT ?)`, stamp(now), id, id, resetsMax)
		return err
	})
}

// ResetValid reports, as chat.ErrResetGone, that a link does not work.
func (db *DB) ResetValid(ctx context.Context, hash chat.SecretHash, now time.Time) error {
	var n int
	err := db.read.QueryRowContext(ctx, `SELECT 1 FROM password_resets WHERE hash = ? AND expires_at > ?`, hash[:], stamp(now)).Scan(&n)
	return found(err, chat.ErrResetGone)
}

// ResetPassword uses a link up: it sets the hash of the new password and ends
// every session and every other link of the account.
func (db *DB) ResetPassword(ctx context.Context, hash chat.SecretHash, password string, now time.Time) (id chat.AccountID, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `DELETE FROM password_resets WHERE hash = ? AND expires_at > ? RETURNING account_id`, hash[:], stamp(now)).Scan(&id)
		if err != nil {
			return found(err, chat.ErrResetGone)
		}
		for _, q := range []string{`DELETE FROM password_resets WHERE account_id = ?`, `DELETE FROM sessions WHERE account_id = ?`} {
			if _, err := tx.ExecContext(ctx, q, id); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE accounts SET password = ? WHERE id = ?`, password, id)
		return err
	})
	return id, err
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
