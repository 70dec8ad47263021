package policies

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// Migrations holds the goose migrations of this package: "migrations/sqlite" and
// "migrations/postgres". They need a version table of their own, because other
// packages number theirs from 1 too.
//
//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var Migrations embed.FS

// SQLStore keeps decisions in SQLite or PostgreSQL. Updates of all nodes are
// serialised by one row, which also numbers them. SQLite wants WAL and a
// busy_timeout.
type SQLStore struct {
	db      *sql.DB
	dialect dialect
}

// NewSQLStore uses db, which somebody else opened, migrated and will close. The
// dialect is "sqlite" or "postgres".
func NewSQLStore(db *sql.DB, dialectName string) (*SQLStore, error) {
	d, err := parseDialect(dialectName)
	if err != nil {
		return nil, err
	}
	return &SQLStore{db: db, dialect: d}, nil
}

// dialect is how a database wants its statements. Ours differ in placeholders, and
// in how locks are taken: see transact and sqlNotices.claim.
type dialect string

func parseDialect(name string) (dialect, error) {
	switch name {
	case "sqlite", "postgres":
		return dialect(name), nil
	}
	return "", fmt.Errorf("unknown SQL dialect %q: want sqlite or postgres", name)
}

// sql writes the placeholders of a statement that uses ?. No statement of ours has
// a question mark in a literal.
func (d dialect) sql(query string) string {
	if d != "postgres" {
		return query
	}
	var b strings.Builder
	n := 0
	for i := range len(query) {
		if query[i] != '?' {
			b.WriteByte(query[i])
			continue
		}
		n++
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}

const decisionColumns = `id, scope, value, action, mode, origin, made_by, rule, reason, incident, window_start, created, until, lifted, lifted_by, hold_off, entry, state, revision`

// Update implements [DecisionStore].
func (s *SQLStore) Update(ctx context.Context, do func(DecisionTx) error) (uint64, error) {
	var revision int64
	err := s.dialect.transact(ctx, s.db, func(tx *sql.Tx) error {
		// The first statement writes: SQLite takes its write lock with a fresh view,
		// PostgreSQL locks the row until the commit.
		err := tx.QueryRowContext(ctx, `UPDATE decisions_revision SET revision = revision + 1 WHERE one = 1 RETURNING revision`).Scan(&revision)
		if err != nil {
			return fmt.Errorf("taking the next revision: %w", err)
		}
		t := &sqlTx{ctx: ctx, tx: tx, dialect: s.dialect, revision: revision, prepared: make(map[string]*sql.Stmt),
			intents: intents{dialect: s.dialect, tx: tx}}
		defer t.close()
		if err := do(t); err != nil {
			return err
		}
		return t.intents.flush(ctx)
	})
	if err != nil {
		return 0, err
	}
	return uint64(revision), nil
}

// Standing implements [DecisionStore].
func (s *SQLStore) Standing(ctx context.Context, now time.Time, each func(Stored)) (uint64, error) {
	latest, err := s.latest(ctx)
	if err != nil {
		return 0, err
	}
	return latest, s.each(ctx, each, `state = 0 OR hold_off > ?`, micros(now))
}

// Since implements [DecisionStore].
func (s *SQLStore) Since(ctx context.Context, revision uint64, each func(Stored)) (uint64, error) {
	latest, err := s.latest(ctx)
	if err != nil || latest == revision {
		return latest, err
	}
	return latest, s.each(ctx, each, `revision > ?`, int64(revision))
}

// latest is the latest revision. It is read before decisions are: what commits
// later has a later revision and is told next time.
func (s *SQLStore) latest(ctx context.Context) (uint64, error) {
	var latest int64
	if err := s.db.QueryRowContext(ctx, `SELECT revision FROM decisions_revision WHERE one = 1`).Scan(&latest); err != nil {
		return 0, fmt.Errorf("reading the revision: %w", err)
	}
	return uint64(latest), nil
}

func (s *SQLStore) each(ctx context.Context, each func(Stored), where string, args ...any) error {
	rows, err := s.db.QueryContext(ctx, s.dialect.sql(`SELECT `+decisionColumns+` FROM decisions WHERE `+where), args...)
	if err != nil {
		return fmt.Errorf("reading decisions: %w", err)
	}
	defer rows.Close()
	r := newDecisionRow()
	for rows.Next() {
		if err := rows.Scan(r.targets...); err != nil {
			return fmt.Errorf("reading decisions: %w", err)
		}
		each(r.stored())
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading decisions: %w", err)
	}
	return nil
}

// ByID implements [DecisionStore].
func (s *SQLStore) ByID(ctx context.Context, id string) (Stored, error) {
	return oneDecision(s.db.QueryRowContext(ctx, s.dialect.sql(selectByID), id))
}

const selectByID = `SELECT ` + decisionColumns + ` FROM decisions WHERE id = ?`

func oneDecision(row *sql.Row) (Stored, error) {
	r := newDecisionRow()
	switch err := row.Scan(r.targets...); {
	case errors.Is(err, sql.ErrNoRows):
		return Stored{}, ErrNotFound
	case err != nil:
		return Stored{}, fmt.Errorf("reading a decision: %w", err)
	}
	return r.stored(), nil
}

// List implements [DecisionStore].
func (s *SQLStore) List(ctx context.Context, q DecisionQuery, now time.Time, limit int) ([]Stored, error) {
	where, args := []string{"1 = 1"}, []any(nil)
	and := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	for _, f := range []struct{ column, value string }{
		{"scope", string(q.Scope)}, {"value", q.Value}, {"origin", string(q.Origin)}, {"made_by", q.By}, {"rule", string(q.Rule)},
	} {
		if f.value != "" {
			and(f.column+" = ?", f.value)
		}
	}
	if q.Address != "" {
		a, err := netip.ParseAddr(q.Address)
		if err != nil {
			return nil, err
		}
		// Values are canonical, so the prefixes that contain an address are a list.
		values := []any{a.String()}
		for bits := a.BitLen(); bits >= 0; bits-- {
			p, _ := a.Prefix(bits)
			values = append(values, p.String())
		}
		and("scope IN ('address', 'network')")
		and("value IN (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
	}
	switch q.State {
	case "live":
		and("state = 0 AND until > ?", micros(now))
	case "ended":
		and("(state <> 0 OR until <= ?)", micros(now))
	}
	if q.Cursor != "" {
		and("id < ?", q.Cursor)
	}
	query := `SELECT ` + decisionColumns + ` FROM decisions WHERE ` + strings.Join(where, " AND ") + ` ORDER BY id DESC LIMIT ?`
	rows, err := s.db.QueryContext(ctx, s.dialect.sql(query), append(args, limit)...)
	if err != nil {
		return nil, err
	}
	return allDecisions(rows)
}

func allDecisions(rows *sql.Rows) ([]Stored, error) {
	defer rows.Close()
	var found []Stored
	r := newDecisionRow()
	for rows.Next() {
		if err := rows.Scan(r.targets...); err != nil {
			return nil, err
		}
		found = append(found, r.stored())
	}
	return found, rows.Err()
}

// decisionRow is where row after row is scanned to. Texts that many decisions
// share are kept once; the bound of that memory is per query.
type decisionRow struct {
	id, value string
	entry     string
	shared    [8]sharedText // scope, mode, origin, made_by, rule, reason, incident, lifted_by
	numbers   [8]int64      // action, window_start, created, until, lifted, hold_off, state, revision
	targets   []any
}

func newDecisionRow() *decisionRow {
	r := new(decisionRow)
	kept := make(map[string]string)
	for i := range r.shared {
		r.shared[i].kept = kept
	}
	t, n := &r.shared, &r.numbers
	r.targets = []any{&r.id, &t[0], &r.value, &n[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6],
		&n[1], &n[2], &n[3], &n[4], &t[7], &n[5], &r.entry, &n[6], &n[7]}
	return r
}

func (r *decisionRow) stored() Stored {
	t, n := &r.shared, &r.numbers
	return Stored{
		Decision: Decision{
			ID: r.id, Scope: Scope(t[0].text), Value: r.value, Action: rules.Action(n[0]), Mode: rules.Mode(t[1].text),
			Origin: Origin(t[2].text), By: t[3].text, Rule: rules.ID(t[4].text), Reason: t[5].text, Incident: t[6].text,
			Window: fromMicros(n[1]), Created: fromMicros(n[2]), Until: fromMicros(n[3]),
			Lifted: fromMicros(n[4]), LiftedBy: t[7].text, HoldOff: fromMicros(n[5]), Entry: r.entry,
		},
		State: State(n[6]), Revision: uint64(n[7]),
	}
}

// sharedText scans a text that is probably known already.
type sharedText struct {
	text string
	kept map[string]string
}

// Scan implements [sql.Scanner].
func (s *sharedText) Scan(v any) error {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		return fmt.Errorf("a text column holds %T", v)
	}
	if kept, ok := s.kept[text]; ok {
		s.text = kept
		return nil
	}
	if len(s.kept) < 10_000 {
		s.kept[text] = text
	}
	s.text = text
	return nil
}

type sqlTx struct {
	ctx      context.Context
	tx       *sql.Tx
	dialect  dialect
	revision int64
	prepared map[string]*sql.Stmt
	intents  intents
}

func (t *sqlTx) close() {
	for _, s := range t.prepared {
		s.Close()
	}
}

// stmt is a statement, prepared once for all decisions of an update; nil on
// PostgreSQL, whose driver keeps prepared statements by itself for as long as the
// connection lives. Ours would cost two more round trips each, while every other
// node waits.
func (t *sqlTx) stmt(query string) (*sql.Stmt, error) {
	if t.dialect == "postgres" {
		return nil, nil
	}
	if s := t.prepared[query]; s != nil {
		return s, nil
	}
	s, err := t.tx.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, fmt.Errorf("preparing a statement: %w", err)
	}
	t.prepared[query] = s
	return s, nil
}

func (t *sqlTx) exec(query string, args ...any) error {
	s, err := t.stmt(query)
	switch {
	case err != nil:
		return err
	case s == nil:
		_, err = t.tx.ExecContext(t.ctx, t.dialect.sql(query), args...)
	default:
		_, err = s.ExecContext(t.ctx, args...)
	}
	return err
}

func (t *sqlTx) query(query string, args ...any) (*sql.Row, error) {
	s, err := t.stmt(query)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return t.tx.QueryRowContext(t.ctx, t.dialect.sql(query), args...), nil
	default:
		return s.QueryRowContext(t.ctx, args...), nil
	}
}

func (t *sqlTx) ByID(id string) (Stored, error) {
	row, err := t.query(selectByID, id)
	if err != nil {
		return Stored{}, err
	}
	return oneDecision(row)
}

func (t *sqlTx) Live(d Decision) (Stored, bool, error) {
	row, err := t.query(`SELECT `+decisionColumns+` FROM decisions
		WHERE state = 0 AND value = ? AND scope = ? AND origin = ? AND made_by = ? AND rule = ? AND action = ? AND mode = ?`,
		d.Value, string(d.Scope), string(d.Origin), d.By, string(d.Rule), int64(d.Action), string(d.Mode))
	if err != nil {
		return Stored{}, false, err
	}
	found, err := oneDecision(row)
	if errors.Is(err, ErrNotFound) {
		return Stored{}, false, nil
	}
	return found, err == nil, err
}

func (t *sqlTx) HoldOff(rule rules.ID, scope Scope, value string) (time.Time, error) {
	row, err := t.query(`SELECT COALESCE(MAX(hold_off), 0) FROM decisions WHERE hold_off > 0 AND value = ? AND rule = ? AND scope = ?`,
		value, string(rule), string(scope))
	if err != nil {
		return time.Time{}, err
	}
	var end int64
	if err := row.Scan(&end); err != nil {
		return time.Time{}, fmt.Errorf("reading hold-offs: %w", err)
	}
	return fromMicros(end), nil
}

func (t *sqlTx) Put(d Decision, state State) error {
	err := t.exec(`INSERT INTO decisions (`+decisionColumns+`) VALUES (?`+strings.Repeat(", ?", strings.Count(decisionColumns, ","))+`)
		ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, incident = excluded.incident, window_start = excluded.window_start,
		until = excluded.until, lifted = excluded.lifted, lifted_by = excluded.lifted_by, hold_off = excluded.hold_off, entry = excluded.entry,
		state = excluded.state, revision = excluded.revision`,
		d.ID, string(d.Scope), d.Value, int64(d.Action), string(d.Mode), string(d.Origin), d.By, string(d.Rule), d.Reason, d.Incident,
		micros(d.Window), micros(d.Created), micros(d.Until), micros(d.Lifted), d.LiftedBy, micros(d.HoldOff), d.Entry, int64(state), t.revision)
	if err != nil {
		return fmt.Errorf("writing a decision: %w", err)
	}
	return nil
}

func (t *sqlTx) Untold(now time.Time, limit int) ([]Stored, error) {
	rows, err := t.tx.QueryContext(t.ctx, t.dialect.sql(`SELECT `+decisionColumns+` FROM decisions
		WHERE state IN (0, 2) AND until <= ? ORDER BY until, id LIMIT ?`), micros(now), limit)
	if err != nil {
		return nil, fmt.Errorf("reading what is over: %w", err)
	}
	return allDecisions(rows)
}

func (t *sqlTx) Purge(then time.Time, limit int) (int, error) {
	res, err := t.tx.ExecContext(t.ctx, t.dialect.sql(`DELETE FROM decisions WHERE id IN
		(SELECT id FROM decisions WHERE state IN (1, 3) AND until < ? AND hold_off < ? LIMIT ?)`), micros(then), micros(then), limit)
	if err != nil {
		return 0, fmt.Errorf("deleting old decisions: %w", err)
	}
	n, err := res.RowsAffected()
	return int(n), err
}

func (t *sqlTx) Act(entry string, now time.Time) error {
	if err := t.exec(`INSERT INTO decision_acts (entry, at) VALUES (?, ?) ON CONFLICT (entry) DO NOTHING`, entry, micros(now)); err != nil {
		return fmt.Errorf("marking an act: %w", err)
	}
	return nil
}

func (t *sqlTx) Intend(n Notice, now time.Time) error {
	if err := n.check(); err != nil {
		return err
	}
	_, err := t.intents.put(t.ctx, n, now)
	return err
}

// Due implements [DecisionStore].
func (s *SQLStore) Due(ctx context.Context, now, then time.Time) (due bool, err error) {
	err = s.db.QueryRowContext(ctx, s.dialect.sql(`SELECT EXISTS (SELECT 1 FROM decisions WHERE state IN (0, 2) AND until <= ?)
		OR EXISTS (SELECT 1 FROM decisions WHERE state IN (1, 3) AND until < ? AND hold_off < ?)`), micros(now), micros(then), micros(then)).Scan(&due)
	if err != nil {
		return false, fmt.Errorf("looking for what is over: %w", err)
	}
	return due, nil
}

// Acted implements [DecisionStore].
func (s *SQLStore) Acted(ctx context.Context, entries []string) (acted []string, err error) {
	if len(entries) == 0 {
		return nil, nil
	}
	if s.dialect != "postgres" {
		return s.actsAmong(ctx, s.db, entries)
	}
	err = s.dialect.transact(ctx, s.db, func(tx *sql.Tx) error {
		// Whoever asked for a commit may have died since, and the server be at it
		// still. All updates hold this row to their end.
		if _, err := tx.ExecContext(ctx, `SELECT revision FROM decisions_revision WHERE one = 1 FOR UPDATE`); err != nil {
			return fmt.Errorf("waiting for updates that are under way: %w", err)
		}
		acted, err = s.actsAmong(ctx, tx, entries)
		return err
	})
	if err != nil {
		return nil, err
	}
	return acted, nil
}

func (s *SQLStore) actsAmong(ctx context.Context, db interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}, entries []string) ([]string, error) {
	args := make([]any, len(entries))
	for i, e := range entries {
		args[i] = e
	}
	rows, err := db.QueryContext(ctx, s.dialect.sql(`SELECT entry FROM decision_acts WHERE entry IN (?`+strings.Repeat(", ?", len(args)-1)+`)`), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var acted []string
	for rows.Next() {
		var entry string
		if err := rows.Scan(&entry); err != nil {
			return nil, err
		}
		acted = append(acted, entry)
	}
	return acted, rows.Err()
}

// ForgetActs implements [DecisionStore]. What begins with the prefix is a range of
// the primary key: entries are compared byte by byte.
func (s *SQLStore) ForgetActs(ctx context.Context, prefix string, before time.Time, limit int) (int, error) {
	res, err := s.db.ExecContext(ctx, s.dialect.sql(`DELETE FROM decision_acts WHERE entry IN
		(SELECT entry FROM decision_acts WHERE entry >= ? AND entry < ? AND at < ? LIMIT ?)`), prefix, after(prefix), micros(before), limit)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// after is the first text behind all that begin with prefix, whose last byte is ASCII.
func after(prefix string) string {
	return prefix[:len(prefix)-1] + string(rune(prefix[len(prefix)-1]+1))
}
