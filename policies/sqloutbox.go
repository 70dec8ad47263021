package policies

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// sqlNotices keeps notices in the tables "outbox" and "outbox_open". Whoever
// changes the number of open notices locks the row of outbox_open before any
// notice, so that no two wait for each other; those who claim wait for nobody.
type sqlNotices struct {
	db      *sql.DB
	dialect dialect
}

const noticeColumns = `key, channel, template, recipient, details, state, owner, created, attempts, next, message_id, lost`

// intents puts notices within one transaction. The first locks the number of open
// notices until the commit; flush writes it.
type intents struct {
	dialect dialect
	tx      *sql.Tx
	locked  bool
	open    int64 // at the first intent
	added   int64
}

func (i *intents) put(ctx context.Context, n Notice, now time.Time) (bool, error) {
	if !i.locked {
		// It writes, so that SQLite takes its write lock with a fresh view.
		err := i.tx.QueryRowContext(ctx, `UPDATE outbox_open SET number = number WHERE one = 1 RETURNING number`).Scan(&i.open)
		if err != nil {
			return false, fmt.Errorf("counting open notices: %w", err)
		}
		i.locked = true
	}
	if i.open+i.added < maxOpen {
		return i.insert(ctx, n.begun(now), 0)
	}
	kept := false
	if err := i.tx.QueryRowContext(ctx, i.dialect.sql(`SELECT EXISTS (SELECT 1 FROM outbox WHERE key = ?)`), n.Key).Scan(&kept); err != nil || kept {
		return false, err
	}
	res, err := i.tx.ExecContext(ctx, i.dialect.sql(`UPDATE outbox SET lost = lost + 1
		WHERE channel = ? AND template = ? AND state = 'pending' AND attempts = 0`), n.Channel, OverflowTemplate)
	if err != nil {
		return false, fmt.Errorf("counting a notice too many: %w", err)
	}
	if counted, err := res.RowsAffected(); err != nil || counted > 0 {
		return false, err
	}
	_, err = i.insert(ctx, overflow(n.Channel, now), 1)
	return false, err
}

func (i *intents) insert(ctx context.Context, n Notice, lost int64) (bool, error) {
	values := "{}"
	if len(n.Values) > 0 {
		text, err := json.Marshal(n.Values)
		if err != nil {
			return false, err
		}
		values = string(text)
	}
	res, err := i.tx.ExecContext(ctx, i.dialect.sql(`INSERT INTO outbox (`+noticeColumns+`, settled)
		VALUES (?`+strings.Repeat(", ?", strings.Count(noticeColumns, ","))+`, 0) ON CONFLICT (key) DO NOTHING`),
		n.Key, n.Channel, n.Template, n.To, values, string(n.State), n.Owner, micros(n.Created), n.Attempts, micros(n.Next), n.MessageID, lost)
	if err != nil {
		return false, fmt.Errorf("writing a notice: %w", err)
	}
	added, err := res.RowsAffected()
	i.added += added
	return added > 0, err
}

func (i *intents) flush(ctx context.Context) error {
	if i.added == 0 {
		return nil
	}
	return addOpen(ctx, i.tx, i.dialect, i.added)
}

func addOpen(ctx context.Context, tx *sql.Tx, d dialect, n int64) error {
	if _, err := tx.ExecContext(ctx, d.sql(`UPDATE outbox_open SET number = number + ? WHERE one = 1`), n); err != nil {
		return fmt.Errorf("counting open notices: %w", err)
	}
	return nil
}

func (s *sqlNotices) put(ctx context.Context, n Notice, now time.Time) (created bool, err error) {
	err = s.dialect.transact(ctx, s.db, func(tx *sql.Tx) error {
		i := &intents{dialect: s.dialect, tx: tx}
		if created, err = i.put(ctx, n, now); err != nil {
			return err
		}
		return i.flush(ctx)
	})
	return created && err == nil, err
}

func (s *sqlNotices) claim(ctx context.Context, owner string, now, ends time.Time, limit int) (found []Notice, err error) {
	// PostgreSQL decides in a materialised step which rows it locked: a plain
	// subquery might be run again for each row and lock more than the limit. Under
	// READ COMMITTED it tests the latest version of each row that it locks.
	pick, lock := ``, ``
	if s.dialect == "postgres" {
		pick, lock = `MATERIALIZED `, ` FOR UPDATE SKIP LOCKED`
	}
	query := s.dialect.sql(`WITH due AS ` + pick + `(SELECT key FROM outbox
			WHERE state IN ('pending', 'leased', 'uncertain') AND next <= ? ORDER BY next, key LIMIT ?` + lock + `)
		UPDATE outbox SET state = CASE state WHEN 'pending' THEN 'leased' ELSE 'uncertain' END, owner = ?, attempts = attempts + 1, next = ?
		WHERE key IN (SELECT key FROM due) RETURNING ` + noticeColumns)
	err = s.dialect.transact(ctx, s.db, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, query, micros(now), limit, owner, micros(ends))
		if err != nil {
			return err
		}
		found, err = allNotices(rows)
		if err == nil && len(found) == 0 {
			return errNothingToDo
		}
		return err
	})
	if errors.Is(err, errNothingToDo) {
		return nil, nil
	}
	return found, err
}

func (s *sqlNotices) settle(ctx context.Context, key string, attempt int, state NoticeState, next, now time.Time) (done bool, err error) {
	ended := state == Sent || state == GivenUp
	query := `UPDATE outbox SET state = CASE WHEN ? = 'pending' AND state = 'uncertain' THEN 'uncertain' ELSE ? END,
		next = ?, settled = ? WHERE key = ? AND state IN ('pending', 'leased', 'uncertain') AND attempts > 0`
	settled := int64(0)
	if ended {
		settled = micros(now)
	}
	args := []any{string(state), string(state), micros(next), settled, key}
	if attempt > 0 {
		query += ` AND state IN ('leased', 'uncertain') AND attempts = ?`
		args = append(args, attempt)
	}
	err = s.dialect.transact(ctx, s.db, func(tx *sql.Tx) error {
		if ended { // before the notice is locked
			if err := addOpen(ctx, tx, s.dialect, -1); err != nil {
				return err
			}
		}
		res, err := tx.ExecContext(ctx, s.dialect.sql(query), args...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err == nil && n == 0 {
			return errNothingToDo
		}
		return err
	})
	if errors.Is(err, errNothingToDo) {
		return false, nil
	}
	return err == nil, err
}

func (s *sqlNotices) state(ctx context.Context, key string) (state NoticeState, attempt int, err error) {
	err = s.db.QueryRowContext(ctx, s.dialect.sql(`SELECT state, attempts FROM outbox WHERE key = ?`), key).Scan(&state, &attempt)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, nil
	}
	return state, attempt, err
}

func (s *sqlNotices) list(ctx context.Context, f NoticeFilter, created time.Time, key string, limit int) ([]Notice, error) {
	where, args := []string{"1 = 1"}, []any(nil)
	for _, c := range []struct{ column, value string }{
		{"state", string(f.State)}, {"channel", f.Channel}, {"template", f.Template}, {"recipient", f.To},
	} {
		if c.value != "" {
			where, args = append(where, c.column+" = ?"), append(args, c.value)
		}
	}
	if !created.IsZero() {
		where, args = append(where, "(created, key) < (?, ?)"), append(args, micros(created), key)
	}
	rows, err := s.db.QueryContext(ctx, s.dialect.sql(`SELECT `+noticeColumns+` FROM outbox
		WHERE `+strings.Join(where, " AND ")+` ORDER BY created DESC, key DESC LIMIT ?`), append(args, limit)...)
	if err != nil {
		return nil, err
	}
	return allNotices(rows)
}

func allNotices(rows *sql.Rows) ([]Notice, error) {
	defer rows.Close()
	var found []Notice
	for rows.Next() {
		var n Notice
		var values string
		var created, next, lost int64
		if err := rows.Scan(&n.Key, &n.Channel, &n.Template, &n.To, &values, &n.State, &n.Owner, &created, &n.Attempts, &next, &n.MessageID, &lost); err != nil {
			return nil, err
		}
		if values != "{}" {
			if err := json.Unmarshal([]byte(values), &n.Values); err != nil {
				return nil, fmt.Errorf("the values of notice %.64q: %w", n.Key, err)
			}
		}
		n.Created, n.Next = fromMicros(created), fromMicros(next)
		found = append(found, n.counting(lost))
	}
	return found, rows.Err()
}

// counting is n with the number of notices it stands for, if it is one of overflow.
func (n Notice) counting(lost int64) Notice {
	if lost > 0 {
		n.Values = map[string]string{"channel": n.Channel, "count": strconv.FormatInt(lost, 10)}
	}
	return n
}

func (s *sqlNotices) counts(ctx context.Context) (map[NoticeState]int, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT state, COUNT(*) FROM outbox GROUP BY state`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := make(map[NoticeState]int)
	for rows.Next() {
		var state NoticeState
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			return nil, err
		}
		counts[state] = n
	}
	return counts, rows.Err()
}

func (s *sqlNotices) purge(ctx context.Context, before time.Time, limit int) (int, error) {
	res, err := s.db.ExecContext(ctx, s.dialect.sql(`DELETE FROM outbox WHERE key IN
		(SELECT key FROM outbox WHERE state IN ('sent', 'given_up') AND settled < ? LIMIT ?)`), micros(before), limit)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}
