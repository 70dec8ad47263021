package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

var _ SlipStore = (*SQLStore)(nil)

const slipColumns = `id, purpose, subject, for_what, by_whom, salt, secret, created, not_before, expires, used, used_for, cancelled`

func slipsWhere(ctx context.Context, db handle, where string, args ...any) ([]slip, error) {
	rows, err := db.QueryContext(ctx, `SELECT `+slipColumns+` FROM auth_slips WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	var all []slip
	err = scan(rows, func() error {
		var (
			s                                           slip
			salt, secret                                []byte
			created, notBefore, expires, used, canceled int64
		)
		if err := rows.Scan(&s.ID, &s.Purpose, &s.Subject, &s.For, &s.By, &salt, &secret, &created, &notBefore, &expires, &used, &s.UsedFor, &canceled); err != nil {
			return err
		}
		copy(s.salt[:], salt)
		if secret != nil {
			s.secret = (*[32]byte)(secret)
		}
		s.Created, s.NotBefore, s.Expires, s.Used, s.Cancelled = fromMicro(created), fromMicro(notBefore), fromMicro(expires), fromMicro(used), fromMicro(canceled)
		all = append(all, s)
		return nil
	})
	return all, err
}

// oneSlip is the slip that matches, or ErrNoSlip.
func oneSlip(ctx context.Context, db handle, where string, args ...any) (slip, error) {
	all, err := slipsWhere(ctx, db, where, args...)
	switch {
	case err != nil:
		return slip{}, fmt.Errorf("reading a slip: %w", err)
	case len(all) == 0:
		return slip{}, ErrNoSlip
	}
	return all[0], nil
}

func (s *SQLStore) insertSlip(ctx context.Context, r slip, a act) error {
	return s.in(ctx, func(ctx context.Context, tx *transaction) error {
		if err := acted(ctx, tx, a); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE auth_slips SET cancelled = ? WHERE subject = ? AND purpose = ? AND used = 0 AND cancelled = 0
			AND (for_what = ? OR id = (SELECT id FROM auth_slips WHERE subject = ? AND purpose = ? AND used = 0 AND cancelled = 0
				ORDER BY created DESC, id DESC LIMIT 1 OFFSET ?))`,
			toMicro(r.Created), r.Subject, string(r.Purpose), r.For, r.Subject, string(r.Purpose), slipOpenMax-1); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO auth_slips (`+slipColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, string(r.Purpose), r.Subject, r.For, r.By, r.salt[:], secretOf(&r), toMicro(r.Created), toMicro(r.NotBefore), toMicro(r.Expires),
			toMicro(r.Used), r.UsedFor, toMicro(r.Cancelled))
		return err
	})
}

// secretOf is NULL until there is one.
func secretOf(s *slip) []byte {
	if s.secret == nil {
		return nil
	}
	return s.secret[:]
}

// writeSlip stores what became of a slip.
func writeSlip(ctx context.Context, tx *transaction, s *slip) error {
	_, err := tx.ExecContext(ctx, `UPDATE auth_slips SET salt = ?, secret = ?, expires = ?, used = ?, used_for = ?, cancelled = ? WHERE id = ?`,
		s.salt[:], secretOf(s), toMicro(s.Expires), toMicro(s.Used), s.UsedFor, toMicro(s.Cancelled), s.ID)
	return err
}

// approved stores the approval of a hold by something that is no factor.
func approved(ctx context.Context, tx *transaction, h *hold, a act) error {
	if h == nil {
		return nil
	}
	h.approve(a.approve, "", a.at)
	return writeHold(ctx, tx, h, nil)
}

func (s *SQLStore) trySlip(ctx context.Context, purpose SlipPurpose, subject, forWhat string, a act, try func(*slip, *slipFailures) bool) error {
	return s.in(ctx, func(ctx context.Context, tx *transaction) error {
		h, err := toApprove(ctx, tx, a, subject)
		if err != nil {
			return err
		}
		// One row, whether there is a slip or not, and whether somebody tried before.
		var (
			f     slipFailures
			next  int64
			found *slip
		)
		err = tx.QueryRowContext(ctx, `SELECT failures, next_attempt FROM auth_slip_failures WHERE purpose = ? AND subject = ?`, string(purpose), subject).
			Scan(&f.failures, &next)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("reading failures: %w", err)
		}
		f.next = fromMicro(next)
		r, err := oneSlip(ctx, tx, `subject = ? AND purpose = ? AND used = 0 AND cancelled = 0 AND for_what = ? ORDER BY created DESC, id DESC LIMIT 1`,
			subject, string(purpose), forWhat)
		switch {
		case err == nil:
			found = &r
		case !errors.Is(err, ErrNoSlip):
			return err
		}
		used := try(found, &f)
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_slip_failures (purpose, subject, failures, next_attempt) VALUES (?, ?, ?, ?)
			ON CONFLICT (purpose, subject) DO UPDATE SET failures = excluded.failures, next_attempt = excluded.next_attempt`,
			string(purpose), subject, f.failures, toMicro(f.next)); err != nil {
			return err
		}
		if !used {
			return nil
		}
		if err := acted(ctx, tx, a); err != nil {
			return err
		}
		if err := approved(ctx, tx, h, a); err != nil {
			return err
		}
		return writeSlip(ctx, tx, found)
	})
}

// where is the condition for k.
func (k slipKey) where() (string, any) {
	if k.id != "" {
		return `id = ?`, k.id
	}
	return `secret = ?`, k.secret[:]
}

func (s *SQLStore) updateSlip(ctx context.Context, find slipKey, a act, change func(*slip) error) (r slip, err error) {
	where, arg := find.where()
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		if r, err = oneSlip(ctx, tx, where, arg); err != nil {
			return err
		}
		h, err := toApprove(ctx, tx, a, r.Subject)
		if err != nil {
			return err
		}
		if err := change(&r); err != nil {
			return err
		}
		if err := acted(ctx, tx, a); err != nil {
			return err
		}
		if err := approved(ctx, tx, h, a); err != nil {
			return err
		}
		return writeSlip(ctx, tx, &r)
	})
	if err != nil {
		return slip{}, err
	}
	return r, nil
}

func (s *SQLStore) slipBy(ctx context.Context, find slipKey) (slip, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	where, arg := find.where()
	return oneSlip(ctx, s.reads, where, arg)
}

func (s *SQLStore) openSlips(ctx context.Context, subject string, now time.Time, limit int) ([]slip, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return slipsWhere(ctx, s.reads, `subject = ? AND used = 0 AND cancelled = 0 AND expires > ? ORDER BY created DESC, id DESC LIMIT ?`, subject, toMicro(now), limit)
}

func (s *SQLStore) dueSlips(ctx context.Context, purpose SlipPurpose, now time.Time, limit int) ([]slip, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return slipsWhere(ctx, s.reads, `purpose = ? AND used = 0 AND cancelled = 0 AND secret IS NULL AND not_before <= ? AND expires > ?
		ORDER BY not_before, id LIMIT ?`, string(purpose), toMicro(now), toMicro(now), limit)
}

func (s *SQLStore) usedSlips(ctx context.Context, usedFor string, then time.Time) ([]SlipPurpose, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	rows, err := s.reads.QueryContext(ctx, `SELECT DISTINCT s.purpose FROM auth_slips AS s WHERE s.used_for = ? AND s.used > ? AND s.used > 0 AND
		(EXISTS (SELECT 1 FROM auth_holds AS h WHERE h.id = s.used_for AND h.subject = s.subject) OR
		 EXISTS (SELECT 1 FROM auth_sessions AS o WHERE o.id = s.used_for AND o.subject = s.subject))`, usedFor, toMicro(then))
	if err != nil {
		return nil, err
	}
	var all []SlipPurpose
	err = scan(rows, func() error {
		var p SlipPurpose
		err := rows.Scan(&p)
		all = append(all, p)
		return err
	})
	return all, err
}

func (s *SQLStore) forgetSlips(ctx context.Context, then time.Time, limit int) (int, error) {
	return s.forget(ctx, `DELETE FROM auth_slips WHERE id IN (SELECT id FROM auth_slips WHERE expires < ? LIMIT ?)`, toMicro(then), limit)
}
