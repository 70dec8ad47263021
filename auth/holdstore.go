package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

var _ HoldStore = (*SQLStore)(nil)

const holdColumns = `id, token, state, need, subject, organization, device, client, client_kind, fingerprint, network, source, country, attempt,
	route, method, return_to, code, tries, matched, aal, factor_kind, approved, approved_by, created, expires, ended, ended_by`

// holdsWhere reads holds and their credentials, the newest first, in one statement:
// so what it returns is of one moment.
func holdsWhere(ctx context.Context, db handle, where string, args ...any) ([]hold, error) {
	rows, err := db.QueryContext(ctx, `SELECT h.id, h.token, h.state, h.need, h.subject, h.organization, h.device, h.client, h.client_kind, h.fingerprint,
		h.network, h.source, h.country, h.attempt, h.route, h.method, h.return_to, h.code, h.tries, h.matched, h.aal, h.factor_kind,
		h.approved, h.approved_by, h.created, h.expires, h.ended, h.ended_by, c.hash, c.kind, c.created
		FROM (SELECT `+holdColumns+` FROM auth_holds WHERE `+where+`) AS h
		LEFT JOIN auth_hold_credentials AS c ON c.hold = h.id ORDER BY h.created DESC, h.id DESC, c.place`, args...)
	if err != nil {
		return nil, err
	}
	var all []hold
	err = scan(rows, func() error {
		var (
			h                                        hold
			token, fingerprint, attempt, hash        []byte
			matched, approved, created, exp, endedAt int64
			kind                                     sql.NullString
			since                                    sql.NullInt64
		)
		if err := rows.Scan(&h.ID, &token, &h.State, &h.Need, &h.Subject, &h.Organization, &h.Device, &h.Client, &h.ClientKind, &fingerprint,
			&h.Network, &h.Source, &h.Country, &attempt, &h.Route, &h.Method, &h.Return, &h.Code, &h.tries, &matched, &h.AAL, &h.FactorKind,
			&approved, &h.ApprovedBy, &created, &exp, &endedAt, &h.EndedBy, &hash, &kind, &since); err != nil {
			return err
		}
		if n := len(all); n == 0 || all[n-1].ID != h.ID {
			copy(h.token[:], token)
			copy(h.Fingerprint[:], fingerprint)
			copy(h.Attempt[:], attempt)
			h.Matched = matched != 0
			h.Approved, h.Created, h.Expires, h.Ended = fromMicro(approved), fromMicro(created), fromMicro(exp), fromMicro(endedAt)
			all = append(all, h)
		}
		if kind.Valid {
			c := Credential{Kind: kind.String, Since: fromMicro(since.Int64)}
			copy(c.Hash[:], hash)
			last := &all[len(all)-1]
			last.Credentials = append(last.Credentials, c)
		}
		return nil
	})
	return all, err
}

// oneHold is the hold that matches, or ErrNoHold.
func oneHold(ctx context.Context, db handle, where string, args ...any) (hold, error) {
	all, err := holdsWhere(ctx, db, where, args...)
	switch {
	case err != nil:
		return hold{}, fmt.Errorf("reading a held login: %w", err)
	case len(all) == 0:
		return hold{}, ErrNoHold
	}
	return all[0], nil
}

func (s *SQLStore) insertHold(ctx context.Context, h hold, answer []byte, perSubject, limit int, displace func(*hold) []FactorNotice) error {
	err := s.in(ctx, func(ctx context.Context, tx *transaction) error {
		// No more than one is put at a time.
		waiting, err := holdsWhere(ctx, tx, `subject = ? AND ended = 0 AND state = 'waiting' ORDER BY created DESC, id DESC LIMIT ?`, h.Subject, perSubject)
		if err != nil {
			return err
		}
		if len(waiting) == perSubject {
			old := displaced(waiting, h.Network)
			if err := writeHold(ctx, tx, &old, displace(&old)); err != nil {
				return err
			}
		}
		result, err := tx.ExecContext(ctx, `UPDATE auth_holds_open SET holds = holds + 1 WHERE one = 1 AND holds < ?`, limit)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return ErrTooManyHolds
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_holds (`+holdColumns+`, answer)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			h.ID, h.token[:], string(h.State), string(h.Need), h.Subject, h.Organization, h.Device, h.Client, h.ClientKind, h.Fingerprint[:],
			h.Network, h.Source, h.Country, h.Attempt[:], h.Route, h.Method, h.Return, h.Code, h.tries, number(h.Matched), h.AAL, string(h.FactorKind),
			toMicro(h.Approved), h.ApprovedBy, toMicro(h.Created), toMicro(h.Expires), toMicro(h.Ended), h.EndedBy, answer); err != nil {
			return err
		}
		for i, c := range h.Credentials {
			if _, err := tx.ExecContext(ctx, `INSERT INTO auth_hold_credentials (hash, created, hold, kind, place) VALUES (?, ?, ?, ?, ?)`,
				c.Hash[:], toMicro(h.Created), h.ID, c.Kind, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing a held login: %w", err)
	}
	return nil
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// writeHold stores what became of a hold that was open, and notices with it.
func writeHold(ctx context.Context, tx *transaction, h *hold, notices []FactorNotice) error {
	if _, err := tx.ExecContext(ctx, `UPDATE auth_holds SET state = ?, need = ?, tries = ?, matched = ?, aal = ?, factor_kind = ?, approved = ?, approved_by = ?,
		ended = ?, ended_by = ?, answer = CASE WHEN CAST(? AS BIGINT) > 0 THEN NULL ELSE answer END WHERE id = ?`,
		string(h.State), string(h.Need), h.tries, number(h.Matched), h.AAL, string(h.FactorKind), toMicro(h.Approved), h.ApprovedBy,
		toMicro(h.Ended), h.EndedBy, toMicro(h.Ended), h.ID); err != nil {
		return err
	}
	if !h.open() {
		if _, err := tx.ExecContext(ctx, `DELETE FROM auth_hold_credentials WHERE hold = ?`, h.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE auth_holds_open SET holds = holds - 1 WHERE one = 1`); err != nil {
			return err
		}
	}
	return putNotices(ctx, tx, notices)
}

func (s *SQLStore) holdByToken(ctx context.Context, token tokenHash) (hold, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return oneHold(ctx, s.reads, `token = ?`, token[:])
}

func (s *SQLStore) holdByID(ctx context.Context, id string) (hold, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return oneHold(ctx, s.reads, `id = ?`, id)
}

func (s *SQLStore) holdByCredential(ctx context.Context, kind string, h CredentialHash) (hold, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return oneHold(ctx, s.reads, `id = (SELECT hold FROM auth_hold_credentials WHERE hash = ? AND kind = ? ORDER BY created DESC, hold DESC LIMIT 1)`, h[:], kind)
}

func (s *SQLStore) holdsByAttempt(ctx context.Context, attempt [16]byte, limit int) ([]hold, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return holdsWhere(ctx, s.reads, `attempt = ? AND ended = 0 ORDER BY created DESC, id DESC LIMIT ?`, attempt[:], limit)
}

func (s *SQLStore) holdsOf(ctx context.Context, subject string, limit int) ([]hold, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return holdsWhere(ctx, s.reads, `subject = ? AND ended = 0 ORDER BY created DESC, id DESC LIMIT ?`, subject, limit)
}

func (s *SQLStore) endedHoldsOf(ctx context.Context, subject string, limit int) ([]hold, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return holdsWhere(ctx, s.reads, `subject = ? AND ended > 0 ORDER BY created DESC, id DESC LIMIT ?`, subject, limit)
}

func (s *SQLStore) updateHold(ctx context.Context, id string, a act, change func(*hold) ([]FactorNotice, error)) (h hold, err error) {
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		if err := acted(ctx, tx, a); err != nil {
			return err
		}
		if h, err = oneHold(ctx, tx, `id = ?`, id); err != nil {
			return err
		}
		notices, err := change(&h)
		if err != nil {
			return err
		}
		return writeHold(ctx, tx, &h, notices)
	})
	if err != nil {
		return hold{}, err
	}
	return h, nil
}

func (s *SQLStore) expireHolds(ctx context.Context, now time.Time, limit int, end func(*hold) []FactorNotice) (n int, err error) {
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		all, err := holdsWhere(ctx, tx, `ended = 0 AND expires <= ? ORDER BY expires, id LIMIT ?`, toMicro(now), limit)
		if err != nil {
			return err
		}
		for i := range all {
			if err := writeHold(ctx, tx, &all[i], end(&all[i])); err != nil {
				return err
			}
		}
		n = len(all)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (s *SQLStore) holdAnswer(ctx context.Context, id string) (h hold, answer []byte, err error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	err = s.reads.QueryRowContext(ctx, `SELECT id, subject, state, answer FROM auth_holds WHERE id = ?`, id).Scan(&h.ID, &h.Subject, &h.State, &answer)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoHold
	}
	return h, answer, err
}

func (s *SQLStore) forgetHolds(ctx context.Context, then time.Time, limit int) (int, error) {
	return s.forget(ctx, `DELETE FROM auth_holds WHERE id IN (SELECT id FROM auth_holds WHERE ended > 0 AND (ended < ? OR subject >= ? AND subject < ?) LIMIT ?)`,
		toMicro(then), Nobody, strings.TrimSuffix(Nobody, " ")+"!", limit) // "!" follows the blank
}

// toApprove is the hold that an act of the account is to approve; nil if none. It
// is looked at before the attempt is: one that is over costs no code and tells none.
func toApprove(ctx context.Context, tx *transaction, a act, subject string) (*hold, error) {
	if a.approve == nil {
		return nil, nil
	}
	h, err := oneHold(ctx, tx, `id = ?`, a.approve.Hold)
	if errors.Is(err, ErrNoHold) {
		return nil, ErrHoldOver
	}
	if err != nil {
		return nil, err
	}
	return &h, h.approvable(subject, a.at)
}

// release releases the hold of an act, if it has one, into a session of the subject.
func release(ctx context.Context, tx *transaction, a act, subject string) error {
	if a.release == "" {
		return nil
	}
	h, err := oneHold(ctx, tx, `id = ?`, a.release)
	if errors.Is(err, ErrNoHold) {
		return ErrHoldOver
	}
	if err != nil {
		return err
	}
	if err := h.release(subject, a.at); err != nil {
		return err
	}
	return writeHold(ctx, tx, &h, nil)
}
