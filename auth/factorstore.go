package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

var _ FactorStore = (*SQLStore)(nil)

const factorColumns = `id, subject, kind, name, state, version, created, used, disabled, disabled_by, failures, next_attempt, codes_left, last_step, pending, secret`

func readFactors(ctx context.Context, db handle, subject string) ([]factor, error) {
	rows, err := db.QueryContext(ctx, `SELECT `+factorColumns+` FROM auth_factors WHERE subject = ? ORDER BY created, id`, subject)
	if err != nil {
		return nil, fmt.Errorf("reading authenticators: %w", err)
	}
	var all []factor
	err = scan(rows, func() error {
		var (
			f                                      factor
			created, used, disabled, next, pending int64
		)
		if err := rows.Scan(&f.ID, &f.Subject, &f.Kind, &f.Name, &f.State, &f.version, &created, &used, &disabled, &f.DisabledBy,
			&f.Failures, &next, &f.CodesLeft, &f.step, &pending, &f.secret); err != nil {
			return err
		}
		f.Created, f.Used, f.Disabled, f.NextAttempt, f.pending = fromMicro(created), fromMicro(used), fromMicro(disabled), fromMicro(next), fromMicro(pending)
		all = append(all, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading authenticators: %w", err)
	}
	return all, nil
}

func (s *SQLStore) factorsOf(ctx context.Context, subject string) ([]factor, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return readFactors(ctx, s.reads, subject)
}

func (s *SQLStore) subjectOfKey(ctx context.Context, credential [32]byte) (subject string, err error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	err = s.reads.QueryRowContext(ctx, `SELECT subject FROM auth_keys WHERE credential = ?`, credential[:]).Scan(&subject)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking up a key: %w", err)
	}
	return subject, nil
}

func (s *SQLStore) updateFactors(ctx context.Context, subject string, take *[32]byte, a act, change func(*owned) error) error {
	err := s.in(ctx, func(ctx context.Context, tx *transaction) error {
		approved, err := toApprove(ctx, tx, a, subject)
		if err != nil {
			return err
		}
		o, err := readOwned(ctx, tx, subject, take)
		if err != nil {
			return err
		}
		before := slices.Clone(o.factors)
		if err := change(o); err != nil {
			return err
		}
		if !o.idle {
			if err := acted(ctx, tx, a); err != nil {
				return err
			}
			if approved != nil {
				approved.approve(a.approve, o.kind, a.at)
				if err := writeHold(ctx, tx, approved, nil); err != nil {
					return err
				}
			}
		}
		if o.needed {
			// Also if it is there: so an account that has no key costs the same.
			if _, err := tx.ExecContext(ctx, `INSERT INTO auth_handles (subject, handle) VALUES (?, ?) ON CONFLICT (subject) DO NOTHING`, subject, o.handle); err != nil {
				return err
			}
		}
		if err := writeFactors(ctx, tx, before, o); err != nil {
			return err
		}
		if err := putChallenge(ctx, tx, o.put); err != nil {
			return err
		}
		return putNotices(ctx, tx, o.notices)
	})
	if err != nil {
		return fmt.Errorf("changing authenticators: %w", err)
	}
	return nil
}

const noticeColumns = `id, at, subject, kind, factor, factor_kind, name, by_whom, client, country, source`

func putNotices(ctx context.Context, tx *transaction, notices []FactorNotice) error {
	for _, n := range notices {
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_factor_notices (`+noticeColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			n.ID, toMicro(n.At), n.Subject, string(n.Kind), n.Factor, string(n.FactorKind), n.Name, n.By, n.Client, n.Country, n.Source); err != nil {
			return err
		}
	}
	return nil
}

func readOwned(ctx context.Context, tx *transaction, subject string, take *[32]byte) (*owned, error) {
	o := new(owned)
	var err error
	if take != nil {
		var (
			c       = challenge{hash: *take}
			expires int64
		)
		err := tx.QueryRowContext(ctx, `DELETE FROM auth_challenges WHERE hash = ? RETURNING subject, ceremony, purpose, expires, data`, take[:]).
			Scan(&c.subject, &c.ceremony, &c.purpose, &expires, &c.data)
		switch {
		case err == nil:
			c.expires = fromMicro(expires)
			o.taken = &c
		case !errors.Is(err, sql.ErrNoRows):
			return nil, fmt.Errorf("taking a challenge: %w", err)
		}
	}
	if o.factors, err = readFactors(ctx, tx, subject); err != nil {
		return nil, err
	}
	err = tx.QueryRowContext(ctx, `SELECT handle FROM auth_handles WHERE subject = ?`, subject).Scan(&o.handle)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("reading how keys know an account: %w", err)
	}
	return o, nil
}

// writeFactors stores what a change made of the authenticators that there were. Each
// is written only over the version that was read.
func writeFactors(ctx context.Context, tx *transaction, before []factor, o *owned) error {
	was := make(map[string]*factor, len(before))
	for i := range before {
		was[before[i].ID] = &before[i]
	}
	updates := 0
	for i := range o.factors {
		f := &o.factors[i]
		old := was[f.ID]
		delete(was, f.ID)
		switch {
		case old == nil:
			if err := insertFactor(ctx, tx, f); err != nil {
				return err
			}
		case !f.equal(old):
			if err := updateFactor(ctx, tx, f, f.version+1); err != nil {
				return err
			}
			updates++
		}
	}
	if o.attempt && updates == 0 {
		// An attempt takes the same work whether or not there is a factor.
		if err := updateFactor(ctx, tx, &nobodys, 0); err != nil {
			return err
		}
	}
	for id := range was {
		if _, err := tx.ExecContext(ctx, `DELETE FROM auth_factors WHERE id = ?`, id); err != nil {
			return err
		}
	}
	return nil
}

func insertFactor(ctx context.Context, tx *transaction, f *factor) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO auth_factors (`+factorColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		f.ID, f.Subject, string(f.Kind), f.Name, string(f.State), 1, toMicro(f.Created), toMicro(f.Used), toMicro(f.Disabled), f.DisabledBy,
		f.Failures, toMicro(f.NextAttempt), f.CodesLeft, f.step, toMicro(f.pending), f.secret); err != nil {
		return err
	}
	if f.credential == [32]byte{} {
		return nil
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO auth_keys (credential, factor, subject) VALUES (?, ?, ?) ON CONFLICT (credential) DO NOTHING`,
		f.credential[:], f.ID, f.Subject)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return ErrKeyTaken
}

// errOvertaken means that an authenticator changed since it was read.
var errOvertaken = errors.New("the authenticator changed meanwhile")

// nobodys is the row that attempts write where nothing changes. Its version stays.
var nobodys = factor{Factor: Factor{State: FactorDisabled}, secret: make([]byte, 60)}

func updateFactor(ctx context.Context, tx *transaction, f *factor, version int64) error {
	result, err := tx.ExecContext(ctx, `UPDATE auth_factors SET name = ?, state = ?, version = ?, created = ?, used = ?, disabled = ?, disabled_by = ?,
		failures = ?, next_attempt = ?, codes_left = ?, last_step = ?, pending = ?, secret = ? WHERE id = ? AND version = ? AND last_step <= ?`,
		f.Name, string(f.State), version, toMicro(f.Created), toMicro(f.Used), toMicro(f.Disabled), f.DisabledBy,
		f.Failures, toMicro(f.NextAttempt), f.CodesLeft, f.step, toMicro(f.pending), f.secret, f.ID, f.version, f.step)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return errOvertaken
}

func putChallenge(ctx context.Context, tx *transaction, c *challenge) error {
	if c == nil {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO auth_challenges (hash, subject, ceremony, purpose, expires, data) VALUES (?, ?, ?, ?, ?, ?)`,
		c.hash[:], c.subject, c.ceremony, c.purpose, toMicro(c.expires), c.data); err != nil {
		return err
	}
	// The oldest of too many goes. No more than one is put at a time.
	_, err := tx.ExecContext(ctx, `DELETE FROM auth_challenges WHERE hash = (
		SELECT hash FROM auth_challenges WHERE subject = ? ORDER BY expires DESC, hash DESC LIMIT 1 OFFSET ?)`, c.subject, c.openMax())
	return err
}

// openMax is how many challenges there may be for the account.
func (c *challenge) openMax() int {
	if c.subject == "" {
		return anonymousMax
	}
	return challengesMax
}

func (s *SQLStore) forgetFactors(ctx context.Context, now time.Time, limit int) (n int, err error) {
	n, err = s.forget(ctx, `DELETE FROM auth_factors WHERE id IN (SELECT id FROM auth_factors WHERE state = 'pending' AND pending <= ? LIMIT ?)`, toMicro(now), limit)
	if err != nil {
		return n, err
	}
	m, err := s.forget(ctx, `DELETE FROM auth_challenges WHERE hash IN (SELECT hash FROM auth_challenges WHERE expires <= ? LIMIT ?)`, toMicro(now), limit)
	return max(n, m), err
}

func (s *SQLStore) untold(ctx context.Context, limit int) ([]FactorNotice, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	rows, err := s.reads.QueryContext(ctx, `SELECT `+noticeColumns+` FROM auth_factor_notices ORDER BY at, id LIMIT ?`, limit)
	if err != nil {
		return nil, err
	}
	var all []FactorNotice
	err = scan(rows, func() error {
		var (
			n  FactorNotice
			at int64
		)
		if err := rows.Scan(&n.ID, &at, &n.Subject, &n.Kind, &n.Factor, &n.FactorKind, &n.Name, &n.By,
			&n.Client, &n.Country, &n.Source); err != nil {
			return err
		}
		n.At = fromMicro(at)
		all = append(all, n)
		return nil
	})
	return all, err
}

func (s *SQLStore) told(ctx context.Context, ids []string) error {
	return s.in(ctx, func(ctx context.Context, tx *transaction) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `DELETE FROM auth_factor_notices WHERE id = ?`, id); err != nil {
				return err
			}
		}
		return nil
	})
}
