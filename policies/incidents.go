package policies

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrNoIncident says that there is no such incident.
var ErrNoIncident = fmt.Errorf("no such incident: %w", ErrNotFound)

// Incidents reads incidents and changes their states; [Findings.Keep] opens them. What
// it promises:
//
//   - Of one subject (category, key, value) at most one is open, whatever the number of
//     nodes. One that was closed takes in what is found for an hour after; what is found
//     later opens another.
//   - At most 1,000 are open, 200 of one category. What is proposed beyond is not opened.
//     One that nobody declared is closed by the gate when nothing was found of it for
//     seven days.
//   - A closed one is kept for 366 days, the latest 10,000. It names the first 200 findings
//     for 30 days, as long as they are kept themselves, and the first 200 accounts and
//     decisions.
//
// It is safe for concurrent use. Time is an argument.
type Incidents struct {
	db      *sql.DB
	dialect dialect
}

// NewIncidents reads from db, which somebody else opened, migrated and will close. The
// dialect is "sqlite" or "postgres".
func NewIncidents(db *sql.DB, dialectName string) (*Incidents, error) {
	d, err := parseDialect(dialectName)
	if err != nil {
		return nil, err
	}
	return &Incidents{db: db, dialect: d}, nil
}

const incidentColumns = `id, category, key, value, window_start, rules, state, first_seen, last_seen, found, touched, touched_more, closed`

// storedIncident is an incident as its row has it, without changes.
type storedIncident struct {
	Incident
	closed time.Time
}

// reader is a database or a transaction.
type reader interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func incidentsWhere(ctx context.Context, r reader, d dialect, where string, args ...any) ([]storedIncident, error) {
	rows, err := r.QueryContext(ctx, d.sql(`SELECT `+incidentColumns+` FROM incidents WHERE `+where), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []storedIncident
	for rows.Next() {
		var i storedIncident
		var window, first, last, found, touched, more, closed int64
		var names string
		if err := rows.Scan(&i.ID, &i.Category, &i.Key, &i.Value, &window, &names, &i.State, &first, &last, &found, &touched, &more, &closed); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(names), &i.Rules); err != nil {
			return nil, fmt.Errorf("the rules of incident %s: %w", i.ID, err)
		}
		i.Window, i.FirstSeen, i.LastSeen, i.closed = fromMicros(window), fromMicros(first), fromMicros(last), fromMicros(closed)
		i.Found, i.Touched, i.TouchedMore = int(found), int(touched), more != 0
		out = append(out, i)
	}
	return out, rows.Err()
}

// withChanges reads how incidents came into their states.
func withChanges(ctx context.Context, r reader, d dialect, stored []storedIncident) ([]Incident, error) {
	out := make([]Incident, len(stored))
	place := make(map[string]int, len(stored))
	ids := make([]any, len(stored))
	for n, s := range stored {
		out[n], place[s.ID], ids[n] = s.Incident, n, s.ID
	}
	if len(ids) == 0 {
		return out, nil
	}
	rows, err := r.QueryContext(ctx, d.sql(`SELECT incident, state, made_by, at, note FROM incident_changes
		WHERE incident IN (?`+strings.Repeat(", ?", len(ids)-1)+`) ORDER BY incident, number`), ids...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var c IncidentChange
		var at int64
		if err := rows.Scan(&id, &c.State, &c.By, &at, &c.Note); err != nil {
			return nil, err
		}
		c.At = fromMicros(at)
		i := &out[place[id]]
		i.Changes = append(i.Changes, c)
	}
	return out, rows.Err()
}

// IncidentQuery selects incidents. The zero value selects all of them.
type IncidentQuery struct {
	State  IncidentState // or "open" for all that are not closed; "": whatever it is
	Cursor string        // where the previous page ended
	Limit  int           // per page; 0 means 50, at most 200
}

// openIncidents is, in a query, every state but closed.
const openIncidents IncidentState = "open"

// List is a page of incidents, the newest first, and the cursor of the next page; an
// empty cursor says that this was the last. It gives up after 5 s, or with ctx.
func (s *Incidents) List(ctx context.Context, q IncidentQuery) ([]Incident, string, error) {
	var faults FieldErrors
	where, args := "1 = 1", []any{}
	switch {
	case q.State == openIncidents:
		where = "closed = 0"
	case slices.Contains(IncidentStates(), q.State):
		where, args = "state = ?", append(args, string(q.State))
	case q.State != "":
		faults = append(faults, FieldError{"state", fmt.Sprintf("%.64q is none; want open, proposed, declared, contained, eradicated, recovering or closed", q.State)})
	}
	if q.Cursor != "" {
		if !isID(q.Cursor) {
			faults = append(faults, FieldError{"cursor", "is not one that a page ended with; begin without one"})
		}
		where, args = where+" AND id < ?", append(args, q.Cursor)
	}
	if q.Limit == 0 {
		q.Limit = 50
	}
	if q.Limit < 0 || q.Limit > 200 {
		faults = append(faults, FieldError{"limit", fmt.Sprintf("%d is not between 1 and 200", q.Limit)})
	}
	if len(faults) > 0 {
		return nil, "", faults
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stored, err := incidentsWhere(ctx, s.db, s.dialect, where+` ORDER BY id DESC LIMIT ?`, append(args, q.Limit+1)...)
	next := ""
	if err == nil && len(stored) > q.Limit {
		stored = stored[:q.Limit]
		next = stored[q.Limit-1].ID
	}
	var page []Incident
	if err == nil {
		page, err = withChanges(ctx, s.db, s.dialect, stored)
	}
	if err != nil {
		return nil, "", fmt.Errorf("listing incidents: %w", err)
	}
	return page, next, nil
}

// View is an incident with what belongs to it; [ErrNoIncident] when there is none. It
// gives up after 5 s, or with ctx.
func (s *Incidents) View(ctx context.Context, id string) (IncidentView, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	i, err := oneIncident(ctx, s.db, s.dialect, id)
	v := IncidentView{Incident: i.Incident, Times: i.Times()}
	for _, list := range []struct {
		into *[]string
		from string
	}{
		{&v.Findings, `SELECT finding FROM incident_findings WHERE incident = ? ORDER BY finding LIMIT ?`},
		{&v.Decisions, `SELECT id FROM decisions WHERE incident <> '' AND incident = ? ORDER BY id LIMIT ?`},
		{&v.Accounts, `SELECT account FROM incident_accounts WHERE incident = ? ORDER BY number LIMIT ?`},
	} {
		if err == nil {
			*list.into, err = texts(ctx, s.db, s.dialect.sql(list.from), id, maxIncidentRefs)
		}
	}
	if err != nil {
		return IncidentView{}, fmt.Errorf("incident %.64q: %w", id, err)
	}
	return v, nil
}

// oneIncident is an incident with its changes.
func oneIncident(ctx context.Context, r reader, d dialect, id string) (i storedIncident, err error) {
	if !isID(id) {
		return i, ErrNoIncident
	}
	stored, err := incidentsWhere(ctx, r, d, `id = ?`, id)
	if err != nil {
		return i, err
	}
	if len(stored) == 0 {
		return i, ErrNoIncident
	}
	full, err := withChanges(ctx, r, d, stored)
	if err != nil {
		return i, err
	}
	stored[0].Incident = full[0]
	return stored[0], nil
}

// texts are the rows of a query for one text. Never nil.
func texts(ctx context.Context, r reader, query string, args ...any) ([]string, error) {
	rows, err := r.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []string{}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, rows.Err()
}

// Move brings an incident into a state, in the name of act.By; note says by which
// criteria. An incident that is in the state already stays as it is, so doing it again
// does no harm. act.Entry is marked as acted in either case. [ErrNoIncident] when there
// is none, a [MoveError] where the state may not follow, [FieldErrors] where what is
// asked for is not valid.
func (s *Incidents) Move(ctx context.Context, id string, to IncidentState, note string, act Act, now time.Time) (Incident, error) {
	err := cmp.Or(CheckMove(to, note), act.check())
	if err != nil {
		return Incident{}, err
	}
	var moved Incident
	now = toMicro(now)
	err = s.dialect.transact(ctx, s.db, func(tx *sql.Tx) error {
		if err := lockIncidents(ctx, tx); err != nil {
			return err
		}
		i, err := oneIncident(ctx, tx, s.dialect, id)
		if err != nil {
			return err
		}
		if i.State != to {
			switch {
			case !slices.Contains(moves[i.State], to):
				return &MoveError{i.State, to}
			case to != IncidentClosed && len(i.Changes) >= maxIncidentChanges-1:
				return FieldErrors{{"state", fmt.Sprintf("it has changed %d times; it can be closed only", len(i.Changes))}}
			}
			if err := changeIncident(ctx, tx, s.dialect, &i.Incident, IncidentChange{to, act.By, now, note}); err != nil {
				return err
			}
		}
		moved = i.Incident
		return markAct(ctx, tx, s.dialect, act, now)
	})
	if err != nil {
		return Incident{}, fmt.Errorf("moving incident %.64q: %w", id, err)
	}
	return moved, nil
}

// lockIncidents keeps all other changes of incidents waiting until the commit.
func lockIncidents(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `UPDATE incidents_revision SET revision = revision + 1 WHERE one = 1`); err != nil {
		return fmt.Errorf("taking the turn to change incidents: %w", err)
	}
	return nil
}

// changeIncident writes a change of i, and into i.
func changeIncident(ctx context.Context, tx *sql.Tx, d dialect, i *Incident, c IncidentChange) error {
	closed := int64(0)
	if c.State == IncidentClosed {
		closed = micros(c.At)
	}
	if _, err := tx.ExecContext(ctx, d.sql(`UPDATE incidents SET state = ?, closed = ? WHERE id = ?`), string(c.State), closed, i.ID); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, d.sql(`INSERT INTO incident_changes (incident, number, state, made_by, at, note) VALUES (?, ?, ?, ?, ?, ?)`),
		i.ID, len(i.Changes), string(c.State), c.By, micros(c.At), storable(c.Note)); err != nil {
		return err
	}
	i.State, i.Changes = c.State, append(i.Changes, c)
	return nil
}

// takeUp lets incidents take up what findings propose. found are the findings with the
// ids of their incidents, incidents the first of each by the id of the finding.
func (f *Findings) takeUp(ctx context.Context, tx *sql.Tx, k Kept, taken *Taken, now time.Time) (found []Found, incidents map[string]string, err error) {
	*taken = Taken{}
	if len(k.Proposals) == 0 {
		return k.Findings, nil, nil
	}
	if err := lockIncidents(ctx, tx); err != nil {
		return nil, nil, err
	}
	ids := make(map[IncidentSubject]string, len(k.Proposals))
	for _, p := range k.Proposals {
		i, fresh, err := f.incidentFor(ctx, tx, p, toMicro(now))
		if err != nil {
			return nil, nil, fmt.Errorf("taking up an incident %s of %s: %w", p.Category, p.Key, err)
		}
		if i.ID == "" {
			taken.Refused += p.Count
			continue
		}
		ids[p.IncidentSubject] = i.ID
		if fresh {
			taken.Opened = append(taken.Opened, i)
		}
	}
	found, incidents = slices.Clone(k.Findings), make(map[string]string)
	full := make(map[string]int)
	for n := range found {
		x := &found[n]
		x.Incidents = nil
		for _, subject := range x.Proposes {
			id := ids[subject]
			if id == "" || slices.Contains(x.Incidents, id) {
				continue
			}
			x.Incidents = append(x.Incidents, id)
			if err := f.referTo(ctx, tx, id, x.ID, full, now); err != nil {
				return nil, nil, err
			}
		}
		if len(x.Incidents) > 0 {
			incidents[x.ID] = x.Incidents[0]
		}
	}
	return found, incidents, nil
}

// tellOf keeps what is told of incidents that came into being. It comes last: whoever
// else has something to tell waits until the commit.
func (f *Findings) tellOf(ctx context.Context, tx *sql.Tx, opened []Incident, tell func(Incident) []Notice, now time.Time) error {
	if tell == nil {
		return nil
	}
	i := &intents{dialect: f.dialect, tx: tx}
	for _, o := range opened {
		for _, n := range tell(o) {
			if err := n.check(); err != nil {
				return err
			}
			if _, err := i.put(ctx, n, toMicro(now)); err != nil {
				return err
			}
		}
	}
	return i.flush(ctx)
}

// incidentFor is the incident that p joins or opens; without an id where too many are
// open. fresh tells that it came into being.
func (f *Findings) incidentFor(ctx context.Context, tx *sql.Tx, p Proposal, now time.Time) (i Incident, fresh bool, err error) {
	of := func(where string, args ...any) ([]storedIncident, error) {
		return incidentsWhere(ctx, tx, f.dialect, `category = ? AND key = ? AND value = ? `+where, append([]any{p.Category, p.Key, p.Value}, args...)...)
	}
	last, err := of(`ORDER BY window_start DESC LIMIT 1`)
	if err != nil {
		return i, false, err
	}
	if len(last) == 0 || !last[0].closed.IsZero() && !p.Last.Before(last[0].closed.Add(incidentWindow)) {
		var open, alike int
		if err := tx.QueryRowContext(ctx, f.dialect.sql(`SELECT COUNT(*), COALESCE(SUM(CASE WHEN category = ? THEN 1 ELSE 0 END), 0) FROM incidents WHERE closed = 0`),
			p.Category).Scan(&open, &alike); err != nil {
			return i, false, err
		}
		if open >= maxOpenIncidents || alike >= maxOpenOfCategory {
			return Incident{}, false, nil
		}
		window := p.Last.UTC().Truncate(incidentWindow)
		id := newID(now)
		res, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO incidents (`+incidentColumns+`) VALUES (?, ?, ?, ?, ?, '[]', '', ?, ?, 0, 0, 0, 0)
			ON CONFLICT (category, key, value, window_start) DO NOTHING`), id, p.Category, p.Key, p.Value, micros(window), micros(p.First), micros(p.Last))
		if err != nil {
			return i, false, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return i, false, err
		}
		if fresh = n > 0; fresh {
			c := IncidentChange{State: IncidentProposed, At: now, Note: p.Why}
			if len(p.Rules) > 0 {
				c.By = string(p.Rules[0])
			}
			if err := changeIncident(ctx, tx, f.dialect, &Incident{ID: id}, c); err != nil {
				return i, false, err
			}
		}
		// A clock that steps may have closed one in a window that is not over: then that.
		if last, err = of(`AND window_start = ?`, micros(window)); err != nil || len(last) == 0 {
			return i, false, cmp.Or(err, errors.New("the incident is not there"))
		}
	}
	full, err := withChanges(ctx, tx, f.dialect, last[:1])
	if err != nil {
		return i, false, err
	}
	i = full[0]
	return i, fresh, f.join(ctx, tx, &i, p)
}

// join adds what p sums up to i.
func (f *Findings) join(ctx context.Context, tx *sql.Tx, i *Incident, p Proposal) error {
	i.Found += p.Count
	i.Rules = addRules(i.Rules, p.Rules)
	if first := toMicro(p.First); first.Before(i.FirstSeen) {
		i.FirstSeen = first
	}
	if last := toMicro(p.Last); last.After(i.LastSeen) {
		i.LastSeen = last
	}
	i.TouchedMore = i.TouchedMore || p.More
	for _, account := range p.Accounts {
		if i.Touched >= maxTouched && i.TouchedMore {
			break
		}
		var known int
		if err := tx.QueryRowContext(ctx, f.dialect.sql(`SELECT COUNT(*) FROM incident_accounts WHERE incident = ? AND account = ?`), i.ID, storable(account)).Scan(&known); err != nil {
			return err
		}
		switch {
		case known > 0:
			continue
		case i.Touched >= maxTouched:
			i.TouchedMore = true
			continue
		}
		if _, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO incident_accounts (incident, account, number) VALUES (?, ?, ?)`), i.ID, storable(account), i.Touched); err != nil {
			return err
		}
		i.Touched++
	}
	names, err := json.Marshal(i.Rules)
	if err != nil {
		return err
	}
	more := 0
	if i.TouchedMore {
		more = 1
	}
	_, err = tx.ExecContext(ctx, f.dialect.sql(`UPDATE incidents SET rules = ?, first_seen = ?, last_seen = ?, found = ?, touched = ?, touched_more = ? WHERE id = ?`),
		string(names), micros(i.FirstSeen), micros(i.LastSeen), i.Found, i.Touched, more, i.ID)
	return err
}

// referTo notes that a finding is of an incident, if it is one of the first. full are
// the numbers of those that are noted.
func (f *Findings) referTo(ctx context.Context, tx *sql.Tx, incident, finding string, full map[string]int, now time.Time) error {
	n, known := full[incident]
	if !known {
		if err := tx.QueryRowContext(ctx, f.dialect.sql(`SELECT COUNT(*) FROM incident_findings WHERE incident = ?`), incident).Scan(&n); err != nil {
			return err
		}
	}
	full[incident] = n
	if n >= maxIncidentRefs {
		return nil
	}
	full[incident]++
	_, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO incident_findings (incident, finding, at) VALUES (?, ?, ?) ON CONFLICT (incident, finding) DO NOTHING`),
		incident, finding, micros(now))
	return err
}

// related is to which incident decisions belong: that of the finding which led to each,
// kept now or before.
func (f *Findings) related(ctx context.Context, tx *sql.Tx, references []Reference, incidents map[string]string) (map[string]string, error) {
	related := make(map[string]string)
	for _, r := range references {
		if r.Finding == "" || r.Decision != r.Name {
			continue
		}
		id, here := incidents[r.Finding]
		if !here {
			var body string
			err := tx.QueryRowContext(ctx, f.dialect.sql(`SELECT body FROM findings WHERE id = ?`), r.Finding).Scan(&body)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			var x struct{ Incidents []string }
			if err == nil {
				err = json.Unmarshal([]byte(body), &x)
			}
			if err != nil {
				return nil, fmt.Errorf("the incident of finding %s: %w", r.Finding, err)
			}
			if len(x.Incidents) > 0 {
				id = x.Incidents[0]
			}
		}
		if id != "" {
			related[r.Name] = id
		}
	}
	return related, nil
}

// Purge closes what nobody declared and of which nothing was found for seven days, and
// returns it: of several nodes one gets it. It deletes what is older than it is kept, and
// what is too much.
func (s *Incidents) Purge(ctx context.Context, now time.Time) (closed []Incident, err error) {
	stale, err := s.unclaimed(ctx, s.db, now)
	if err == nil && len(stale) > 0 {
		closed, err = s.closeUnclaimed(ctx, now)
	}
	errs := []error{err}
	do := func(query string, args ...any) (n int64) {
		res, err := s.db.ExecContext(ctx, s.dialect.sql(query), args...)
		if err == nil {
			n, err = res.RowsAffected()
		}
		errs = append(errs, err)
		return n
	}
	gone := do(`DELETE FROM incidents WHERE closed > 0 AND closed < ?`, micros(now.Add(-keepIncidents)))
	gone += do(`DELETE FROM incidents WHERE closed > 0 AND closed <= (SELECT closed FROM incidents WHERE closed > 0 ORDER BY closed DESC LIMIT 1 OFFSET ?)`, maxClosedIncidents)
	do(`DELETE FROM incident_findings WHERE at < ?`, micros(now.Add(-keepFindings)))
	if gone > 0 { // what a crash leaves behind here goes with the next
		for _, table := range []string{"incident_changes", "incident_findings", "incident_accounts"} {
			do(`DELETE FROM ` + table + ` WHERE NOT EXISTS (SELECT 1 FROM incidents WHERE incidents.id = ` + table + `.incident)`)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return closed, fmt.Errorf("closing and deleting old incidents: %w", err)
	}
	return closed, nil
}

func (s *Incidents) unclaimed(ctx context.Context, r reader, now time.Time) ([]storedIncident, error) {
	return incidentsWhere(ctx, r, s.dialect, `closed = 0 AND state = ? AND last_seen < ? ORDER BY id LIMIT ?`,
		string(IncidentProposed), micros(now.Add(-unclaimedAfter)), maxOpenIncidents)
}

func (s *Incidents) closeUnclaimed(ctx context.Context, now time.Time) (closed []Incident, err error) {
	err = s.dialect.transact(ctx, s.db, func(tx *sql.Tx) error {
		closed = nil
		if err := lockIncidents(ctx, tx); err != nil {
			return err
		}
		stale, err := s.unclaimed(ctx, tx, now)
		if err != nil {
			return err
		}
		if closed, err = withChanges(ctx, tx, s.dialect, stale); err != nil {
			return err
		}
		for n := range closed {
			c := IncidentChange{IncidentClosed, ByGate, toMicro(now), "nobody declared it, and nothing was found of it for seven days"}
			if err := changeIncident(ctx, tx, s.dialect, &closed[n], c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return closed, nil
}

// IncidentNoticeKey is the same for all that is told of an incident's proposal to one
// receiver, whose digest to is.
func IncidentNoticeKey(id, to string) string { return "incident.proposed/" + id + "/" + to }
