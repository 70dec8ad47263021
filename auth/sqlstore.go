package auth

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Migrations holds the goose migrations of this package: "migrations/sqlite" and
// "migrations/postgres". They need a version table of their own, because other
// packages number theirs from 1 too.
//
//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var Migrations embed.FS

// SQLStore keeps everything in a database, SQLite or PostgreSQL, which several
// processes may share on PostgreSQL. Each method that changes something is durable
// when it returns; changes that come at the same time share a commit. Changes of
// all processes are serialised by one row, which numbers them. SQLite wants WAL, a
// busy_timeout and transactions that begin immediate.
//
// A commit is given up after 15 s, a look-up after 5 s.
type SQLStore struct {
	postgres bool
	writes   *statements
	reads    *statements // for what is not part of a change
	group    group
}

var (
	_ SessionStore   = (*SQLStore)(nil)
	_ DirectoryStore = (*SQLStore)(nil)
	_ DeviceStore    = (*SQLStore)(nil)
)

// NewSQLStore uses db, which somebody else opened, migrated and will close. The
// dialect is "sqlite" or "postgres".
func NewSQLStore(db *sql.DB, dialect string) (*SQLStore, error) {
	if dialect != "sqlite" && dialect != "postgres" {
		return nil, fmt.Errorf("unknown SQL dialect %q: want sqlite or postgres", dialect)
	}
	s := &SQLStore{postgres: dialect == "postgres"}
	s.writes = newStatements(db, s.postgres)
	s.reads = newStatements(db, s.postgres)
	return s, nil
}

// ReadThrough makes s look things up through db, another handle on the same
// database, so that look-ups need not wait for commits. It must see whatever is
// committed at once: a replica that lags does not. Call it before the first use.
func (s *SQLStore) ReadThrough(db *sql.DB) { s.reads = newStatements(db, s.postgres) }

// shared reports whether other processes may change what is stored.
func (s *SQLStore) shared() bool { return s.postgres }

// lookUpTimeout is for a question that is not part of a change.
const lookUpTimeout = 5 * time.Second

func asking(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, lookUpTimeout)
}

func toMicro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

const sessionColumns = `id, token, version, kind, subject, organization, device, aal, created, seen, expires, source, ended, ended_by,
	verified, factor, client, country, rested, previous, previous_until, previous_aal, previous_verified, previous_factor, previous_rested`

// sessionsWhere reads sessions and their credentials, the newest first, in one
// statement: so what it returns is of one moment.
func (s *SQLStore) sessionsWhere(ctx context.Context, db handle, where string, args ...any) ([]record, error) {
	rows, err := db.QueryContext(ctx, `SELECT s.id, s.token, s.version, s.kind, s.subject, s.organization, s.device, s.aal,
		s.created, s.seen, s.expires, s.source, s.ended, s.ended_by, s.verified, s.factor, s.client, s.country, s.rested,
		s.previous, s.previous_until, s.previous_aal, s.previous_verified, s.previous_factor, s.previous_rested, c.hash, c.kind, c.since, c.retired
		FROM (SELECT `+sessionColumns+` FROM auth_sessions WHERE `+where+`) AS s
		LEFT JOIN auth_credentials AS c ON c.session = s.id ORDER BY s.created DESC, s.id, c.place`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []record
	for rows.Next() {
		var (
			r                                       record
			p                                       previousToken
			token, previous, hash                   []byte
			created, seen, expires, ended, verified int64
			until, before, rested, restedBefore     int64
			kind                                    sql.NullString
			since, retired                          sql.NullInt64
		)
		if err := rows.Scan(&r.ID, &token, &r.version, &r.Kind, &r.Subject, &r.Organization, &r.Device, &r.AAL,
			&created, &seen, &expires, &r.Source, &ended, &r.EndedBy, &verified, &r.Factor, &r.Client, &r.Country, &rested,
			&previous, &until, &p.aal, &before, &p.factor, &restedBefore, &hash, &kind, &since, &retired); err != nil {
			return nil, err
		}
		if n := len(all); n == 0 || all[n-1].ID != r.ID {
			copy(r.token[:], token)
			r.Created, r.Seen, r.Expires, r.Ended = fromMicro(created), fromMicro(seen), fromMicro(expires), fromMicro(ended)
			r.Verified, r.Rested = fromMicro(verified), time.Duration(rested)*time.Microsecond
			if previous != nil {
				copy(p.token[:], previous)
				p.until, p.verified, p.rested = fromMicro(until), fromMicro(before), time.Duration(restedBefore)*time.Microsecond
				r.previous = &p
			}
			all = append(all, r)
		}
		if kind.Valid {
			c := Credential{Kind: kind.String, Since: fromMicro(since.Int64), RetiredAt: fromMicro(retired.Int64)}
			copy(c.Hash[:], hash)
			last := &all[len(all)-1]
			last.Credentials = append(last.Credentials, c)
		}
	}
	return all, rows.Err()
}

// scan calls f for each row and closes rows.
func scan(rows *sql.Rows, f func() error) error {
	defer rows.Close()
	for rows.Next() {
		if err := f(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// oneSession is the session that matches, or ErrNoSession.
func (s *SQLStore) oneSession(ctx context.Context, db handle, where string, args ...any) (record, error) {
	all, err := s.sessionsWhere(ctx, db, where, args...)
	switch {
	case err != nil:
		return record{}, fmt.Errorf("reading a session: %w", err)
	case len(all) == 0:
		return record{}, ErrNoSession
	}
	return all[0], nil
}

func (s *SQLStore) sessionByToken(ctx context.Context, token tokenHash) (record, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	// One index answers each half.
	return s.oneSession(ctx, s.reads, `id = (SELECT id FROM auth_sessions WHERE token = ?
		UNION ALL SELECT id FROM auth_sessions WHERE previous = ? LIMIT 1)`, token[:], token[:])
}

func (s *SQLStore) sessionByID(ctx context.Context, id string) (record, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return s.oneSession(ctx, s.reads, `id = ?`, id)
}

func (s *SQLStore) sessionByCredential(ctx context.Context, kind string, h CredentialHash) (record, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return s.oneSession(ctx, s.reads, `id = (SELECT session FROM auth_credentials WHERE hash = ? AND kind = ?)`, h[:], kind)
}

func (s *SQLStore) insertSession(ctx context.Context, r record, a act, loses func(*Session)) (changed []record, err error) {
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		changed = nil
		if err := acted(ctx, tx, a); err != nil {
			return err
		}
		if err := release(ctx, tx, a, r.Subject); err != nil {
			return err
		}
		lost := make(map[string]*record)
		var order []string
		for _, c := range r.Credentials {
			old, err := s.oneSession(ctx, tx, `id = (SELECT session FROM auth_credentials WHERE hash = ?)`, c.Hash[:])
			if errors.Is(err, ErrNoSession) {
				continue
			}
			if err != nil {
				return err
			}
			if lost[old.ID] == nil {
				lost[old.ID] = &old
				order = append(order, old.ID)
			}
			o := lost[old.ID]
			o.Credentials = slices.DeleteFunc(o.Credentials, func(x Credential) bool { return x.Hash == c.Hash })
		}
		for _, id := range order {
			o := lost[id]
			loses(&o.Session)
			if err := s.replace(ctx, tx, o); err != nil {
				return err
			}
			changed = append(changed, *o)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_sessions (`+sessionColumns+`, revision)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, 0, 0, 0, '', 0, ?)`,
			r.ID, r.token[:], r.version, string(r.Kind), r.Subject, r.Organization, r.Device, r.AAL,
			toMicro(r.Created), toMicro(r.Seen), toMicro(r.Expires), r.Source, toMicro(r.Ended), r.EndedBy,
			toMicro(r.Verified), string(r.Factor), r.Client, r.Country, r.Rested.Microseconds(), tx.revision); err != nil {
			return err
		}
		return s.putCredentials(ctx, tx, &r.Session)
	})
	if err != nil {
		return nil, fmt.Errorf("storing a session: %w", err)
	}
	return changed, nil
}

// putCredentials stores the credentials of a session that has none stored.
func (s *SQLStore) putCredentials(ctx context.Context, tx *transaction, o *Session) error {
	for i, c := range o.Credentials {
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_credentials (hash, kind, session, place, since, retired) VALUES (?, ?, ?, ?, ?, ?)`,
			c.Hash[:], c.Kind, o.ID, i, toMicro(c.Since), toMicro(c.RetiredAt)); err != nil {
			return err
		}
	}
	return nil
}

// replace stores the next version of a session: credentials, tokens, assurance, end
// and Seen.
func (s *SQLStore) replace(ctx context.Context, tx *transaction, r *record) error {
	r.version++
	ended := toMicro(r.Ended)
	var (
		p        previousToken
		previous []byte
	)
	if r.previous != nil {
		p, previous = *r.previous, r.previous.token[:]
	}
	if _, err := tx.ExecContext(ctx, `UPDATE auth_sessions SET version = ?, seen = CASE WHEN seen > ? THEN seen ELSE ? END,
		end_revision = CASE WHEN ended = 0 AND CAST(? AS BIGINT) > 0 THEN ? ELSE end_revision END,
		ended = ?, ended_by = ?, revision = ?, aal = ?, verified = ?, factor = ?, rested = ?, token = ?,
		previous = ?, previous_until = ?, previous_aal = ?, previous_verified = ?, previous_factor = ?, previous_rested = ? WHERE id = ?`,
		r.version, toMicro(r.Seen), toMicro(r.Seen), ended, tx.revision, ended, r.EndedBy, tx.revision,
		r.AAL, toMicro(r.Verified), string(r.Factor), r.Rested.Microseconds(), r.token[:],
		previous, toMicro(p.until), p.aal, toMicro(p.verified), string(p.factor), p.rested.Microseconds(), r.ID); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM auth_credentials WHERE session = ?`, r.ID); err != nil {
		return err
	}
	return s.putCredentials(ctx, tx, &r.Session)
}

func (s *SQLStore) updateSession(ctx context.Context, id string, a act, change func(*record) error) (next record, err error) {
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		if err := acted(ctx, tx, a); err != nil {
			return err
		}
		if next, err = s.oneSession(ctx, tx, `id = ?`, id); err != nil {
			return err
		}
		seen := next.Seen
		if err := change(&next); err != nil {
			return err
		}
		if seen.After(next.Seen) {
			next.Seen = seen
		}
		for _, c := range next.Credentials {
			var holder string
			err := tx.QueryRowContext(ctx, `SELECT session FROM auth_credentials WHERE hash = ?`, c.Hash[:]).Scan(&holder)
			if err == nil && holder != id {
				return errTaken(holder)
			}
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		return s.replace(ctx, tx, &next)
	})
	if err != nil {
		return record{}, err
	}
	return next, nil
}

// endWhere passes the sessions that match to end and stores the results.
func (s *SQLStore) endWhere(ctx context.Context, a act, end func(*Session), where string, args ...any) (all []record, err error) {
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		if err := acted(ctx, tx, a); err != nil {
			return err
		}
		if all, err = s.sessionsWhere(ctx, tx, where, args...); err != nil {
			return err
		}
		for i := range all {
			seen := all[i].Seen
			end(&all[i].Session)
			if seen.After(all[i].Seen) {
				all[i].Seen = seen
			}
			if err := s.replace(ctx, tx, &all[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ending sessions: %w", err)
	}
	return all, nil
}

func (s *SQLStore) endSessions(ctx context.Context, subject string, a act, end func(*Session)) ([]record, error) {
	return s.endWhere(ctx, a, end, `subject = ? AND ended = 0`, subject)
}

func (s *SQLStore) expireSessions(ctx context.Context, now, idle time.Time, limit int, end func(*Session)) ([]record, error) {
	// One index answers each half, and the second leaves out what the first has. As
	// one condition with OR, or as a UNION, they would read every live session at
	// each sweep.
	return s.endWhere(ctx, act{}, end, `id IN (
		SELECT id FROM auth_sessions WHERE ended = 0 AND expires > 0 AND expires <= ?
		UNION ALL SELECT id FROM auth_sessions WHERE ended = 0 AND kind = 'browser' AND seen <= ? AND NOT (expires > 0 AND expires <= ?)
		LIMIT ?)`, toMicro(now), toMicro(idle), toMicro(now), limit)
}

func (s *SQLStore) sessionsOf(ctx context.Context, subject string, limit int) ([]record, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	all, err := s.sessionsWhere(ctx, s.reads, `subject = ? AND ended = 0 ORDER BY created DESC, id LIMIT ?`, subject, limit)
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	return all, nil
}

func (s *SQLStore) allSessionsOf(ctx context.Context, subject string, limit int) ([]record, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	all, err := s.sessionsWhere(ctx, s.reads, `subject = ? ORDER BY created DESC, id LIMIT ?`, subject, limit)
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	return all, nil
}

func (s *SQLStore) seeSessions(ctx context.Context, seen map[string]time.Time) error {
	err := s.in(ctx, func(ctx context.Context, tx *transaction) error {
		for id, t := range seen {
			if _, err := tx.ExecContext(ctx, `UPDATE auth_sessions SET rested = CASE WHEN CAST(? AS BIGINT) - seen > rested THEN CAST(? AS BIGINT) - seen ELSE rested END,
				seen = ? WHERE id = ? AND seen < ?`, toMicro(t), toMicro(t), toMicro(t), id, toMicro(t)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("noting the use of sessions: %w", err)
	}
	return nil
}

func (s *SQLStore) forgetSessions(ctx context.Context, then time.Time, limit int) (int, error) {
	return s.forget(ctx, `DELETE FROM auth_sessions WHERE id IN
		(SELECT id FROM auth_sessions WHERE kind = 'browser' AND ended > 0 AND ended < ? LIMIT ?)`, toMicro(then), limit)
}

// forget runs a DELETE and counts. What belongs to the rows goes with them.
func (s *SQLStore) forget(ctx context.Context, query string, args ...any) (n int, err error) {
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		result, err := tx.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		gone, err := result.RowsAffected()
		n = int(gone)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("forgetting what is over: %w", err)
	}
	return n, nil
}

func (s *SQLStore) readPerson(ctx context.Context, db handle, subject string) (p Person, found bool, err error) {
	var (
		names, mail, roles string
		first, last        int64
	)
	p.Subject = subject
	err = db.QueryRowContext(ctx, `SELECT organization, names, mail, roles, language, time_zone, first_seen, last_seen FROM auth_people WHERE subject = ?`, subject).
		Scan(&p.Organization, &names, &mail, &roles, &p.Language, &p.TimeZone, &first, &last)
	if errors.Is(err, sql.ErrNoRows) {
		return Person{}, false, nil
	}
	if err != nil {
		return Person{}, false, fmt.Errorf("reading an account: %w", err)
	}
	for text, list := range map[*string]*[]string{&names: &p.Names, &mail: &p.Mail, &roles: &p.Roles} {
		if err := json.Unmarshal([]byte(*text), list); err != nil {
			return Person{}, false, fmt.Errorf("reading an account: %w", err)
		}
	}
	p.FirstSeen, p.LastSeen = fromMicro(first), fromMicro(last)
	return p, true, nil
}

// list is how a list of texts is stored.
func list(all []string) string {
	if len(all) == 0 {
		return "[]"
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // texts always encode
	}
	return string(text)
}

func (s *SQLStore) learn(ctx context.Context, subject string, typed [16]byte, old [][16]byte, now time.Time, merge func(*Person)) (p Person, err error) {
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		if p, _, err = s.readPerson(ctx, tx, subject); err != nil {
			return err
		}
		p.Subject = subject
		merge(&p)
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_people (subject, organization, names, mail, roles, language, time_zone, first_seen, last_seen, revision)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (subject) DO UPDATE SET organization = excluded.organization, names = excluded.names,
			mail = excluded.mail, roles = excluded.roles, language = excluded.language, time_zone = excluded.time_zone,
			first_seen = excluded.first_seen, last_seen = excluded.last_seen, revision = excluded.revision`,
			subject, p.Organization, list(p.Names), list(p.Mail), list(p.Roles), p.Language, p.TimeZone, toMicro(p.FirstSeen), toMicro(p.LastSeen), tx.revision); err != nil {
			return err
		}
		if typed == [16]byte{} {
			return nil
		}
		since := toMicro(now)
		for _, digest := range old {
			var (
				holder string
				at     int64
			)
			err := tx.QueryRowContext(ctx, `DELETE FROM auth_typed_names WHERE digest = ? RETURNING subject, since`, digest[:]).Scan(&holder, &at)
			switch {
			case errors.Is(err, sql.ErrNoRows):
			case err != nil:
				return err
			case holder == subject:
				since = min(since, at)
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO auth_typed_names (digest, subject, since) VALUES (?, ?, ?)
			ON CONFLICT (digest) DO UPDATE SET subject = excluded.subject, since = excluded.since WHERE auth_typed_names.subject <> excluded.subject`,
			typed[:], subject, since)
		return err
	})
	if err != nil {
		return Person{}, fmt.Errorf("learning an account: %w", err)
	}
	return p, nil
}

func (s *SQLStore) person(ctx context.Context, subject string) (Person, bool, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return s.readPerson(ctx, s.reads, subject)
}

func (s *SQLStore) typed(ctx context.Context, digests [][16]byte) (typedName, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	// One row, for which each digest is looked up once, whatever is found: so what
	// follows is the same work too.
	var columns, joins []string
	args := make([]any, len(digests))
	found := make([]struct {
		subject string
		since   int64
	}, len(digests))
	targets := make([]any, 0, 2*len(digests))
	for i := range digests {
		n := "n" + strconv.Itoa(i)
		columns = append(columns, "COALESCE("+n+".subject, ''), COALESCE("+n+".since, 0)")
		joins = append(joins, " LEFT JOIN auth_typed_names AS "+n+" ON "+n+".digest = ?")
		args[i] = digests[i][:]
		targets = append(targets, &found[i].subject, &found[i].since)
	}
	query := "SELECT " + strings.Join(columns, ", ") + " FROM (SELECT 1 AS one) AS always" + strings.Join(joins, "")
	if err := s.reads.QueryRowContext(ctx, query, args...).Scan(targets...); err != nil {
		return typedName{}, fmt.Errorf("looking up a typed name: %w", err)
	}
	var name typedName
	for i := len(found) - 1; i >= 0; i-- {
		if found[i].subject != "" {
			name = typedName{found[i].subject, fromMicro(found[i].since)}
		}
	}
	return name, nil
}

func (s *SQLStore) oldest(ctx context.Context) (time.Time, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	var first sql.NullInt64
	if err := s.reads.QueryRowContext(ctx, `SELECT MIN(first_seen) FROM auth_people`).Scan(&first); err != nil {
		return time.Time{}, fmt.Errorf("reading when the first account was seen: %w", err)
	}
	return fromMicro(first.Int64), nil
}

func (s *SQLStore) readDevice(ctx context.Context, db handle, id deviceID) (d device, found bool, err error) {
	var rotated, used, forked int64
	d.id = id
	err = db.QueryRowContext(ctx, `SELECT generation, presented, rotated, used, forked FROM auth_devices WHERE id = ?`, id[:]).
		Scan(&d.generation, &d.presented, &rotated, &used, &forked)
	if errors.Is(err, sql.ErrNoRows) {
		return device{id: id}, false, nil
	}
	if err != nil {
		return device{}, false, fmt.Errorf("reading a device: %w", err)
	}
	d.rotated, d.used, d.forked = fromMicro(rotated), fromMicro(used), fromMicro(forked)
	rows, err := db.QueryContext(ctx, `SELECT subject, since, last FROM auth_device_subjects WHERE device = ? ORDER BY since, subject`, id[:])
	if err != nil {
		return device{}, false, fmt.Errorf("reading a device: %w", err)
	}
	err = scan(rows, func() error {
		var (
			a           association
			since, last int64
		)
		if err := rows.Scan(&a.subject, &since, &last); err != nil {
			return err
		}
		a.since, a.last = fromMicro(since), fromMicro(last)
		d.subjects = append(d.subjects, a)
		return nil
	})
	if err != nil {
		return device{}, false, fmt.Errorf("reading a device: %w", err)
	}
	return d, true, nil
}

func (s *SQLStore) device(ctx context.Context, id deviceID) (device, bool, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	return s.readDevice(ctx, s.reads, id)
}

func (s *SQLStore) updateDevice(ctx context.Context, id deviceID, change func(*device, bool) error) (d device, err error) {
	err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
		var found bool
		if d, found, err = s.readDevice(ctx, tx, id); err != nil {
			return err
		}
		if err := change(&d, found); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_devices (id, generation, presented, rotated, used, forked) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, presented = excluded.presented, rotated = excluded.rotated,
			used = excluded.used, forked = excluded.forked`,
			id[:], d.generation, d.presented, toMicro(d.rotated), toMicro(d.used), toMicro(d.forked)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM auth_device_subjects WHERE device = ?`, id[:]); err != nil {
			return err
		}
		for _, a := range d.subjects {
			if _, err := tx.ExecContext(ctx, `INSERT INTO auth_device_subjects (device, subject, since, last) VALUES (?, ?, ?, ?)`,
				id[:], a.subject, toMicro(a.since), toMicro(a.last)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return device{}, err
	}
	return d, nil
}

func (s *SQLStore) devicesOf(ctx context.Context, subject string, limit int) ([]device, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	rows, err := s.reads.QueryContext(ctx, `SELECT a.device, a.since, a.last, d.forked
		FROM (SELECT device, since, last FROM auth_device_subjects WHERE subject = ? ORDER BY last DESC, device DESC LIMIT ?) AS a
		JOIN auth_devices AS d ON d.id = a.device ORDER BY a.last DESC, a.device DESC`, subject, limit)
	if err != nil {
		return nil, err
	}
	var all []device
	err = scan(rows, func() error {
		var (
			id                  []byte
			since, last, forked int64
		)
		if err := rows.Scan(&id, &since, &last, &forked); err != nil {
			return err
		}
		all = append(all, device{id: deviceID(id), forked: fromMicro(forked), subjects: []association{{subject, fromMicro(since), fromMicro(last)}}})
		return nil
	})
	return all, err
}

func (s *SQLStore) forgetDevices(ctx context.Context, then, unused time.Time, limit int) (int, error) {
	return s.forget(ctx, `DELETE FROM auth_devices WHERE id IN
		(SELECT id FROM auth_devices WHERE used <= ? OR presented = 0 AND used <= ? LIMIT ?)`, toMicro(then), toMicro(unused), limit)
}
