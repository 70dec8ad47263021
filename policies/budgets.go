package policies

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// Fallen is a rule that fell because it spent its budget, or stands again.
type Fallen struct {
	Rule       rules.ID        `json:"rule"`
	Generation string          `json:"generation"`
	Level      rules.Fall      `json:"level"`
	Since      time.Time       `json:"since"` // hits from here on count
	Term       time.Time       `json:"term"`  // since when it stands, or stood until it fell
	Judgement  rules.Judgement `json:"judgement"`
	By         string          `json:"by,omitempty"` // the operator who set it back
}

// Standing is how a rule in force stands.
type Standing struct {
	Rule   rules.Rule `json:"rule"`
	Fallen Fallen     `json:"fallen"`
	Falls  int        `json:"falls,omitempty"` // after how many hits that all prove benign it falls; 0: never, as without a budget
	Waits  bool       `json:"waits,omitempty"` // it would fall, and a campaign alarm is on
}

// Undoing is what a rule's decisions of some time did that still lasts, or what of it
// was taken back.
type Undoing struct {
	Rule          rules.ID       `json:"rule"`
	From          time.Time      `json:"from"`
	To            time.Time      `json:"to"`
	Live          int            `json:"live"`           // decisions that still act
	More          bool           `json:"more,omitempty"` // there are more than were counted, or than were lifted
	Lifted        int            `json:"lifted"`         // of them, now
	Subjects      map[Scope]int  `json:"subjects"`       // different ones, of each scope
	Organizations map[string]int `json:"organizations"`  // accounts that the rule hit in that time, as far as it is kept
	Decisions     []Decision     `json:"decisions"`      // the newest 200
}

// putHits keeps hits, one of each account. A hit takes the place of one of the same
// client that is not proved yet, so that who comes back has another day to prove who he
// is; and of one that does not count any more.
func (f *Findings) putHits(ctx context.Context, tx *sql.Tx, hits []rules.Hit, over map[rules.ID]time.Duration) error {
	sorted := slices.SortedFunc(slices.Values(hits), func(a, b rules.Hit) int {
		// In a fixed order, so that two nodes cannot wait for each other's rows.
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Account, b.Account), a.Time.Compare(b.Time))
	})
	for _, h := range sorted {
		if !h.Counts() || len(h.Account) > maxValue {
			continue
		}
		stale := h.Time.Add(-cmp.Or(over[h.Rule], keepHits))
		_, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO rule_hits (rule, generation, account, organization, since, at, device, network, fingerprint, benign, benign_by)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '')
			ON CONFLICT (rule, generation, account) DO UPDATE SET organization = excluded.organization, since = excluded.since, at = excluded.at,
				device = excluded.device, network = excluded.network, fingerprint = excluded.fingerprint, benign = 0, benign_by = ''
			WHERE rule_hits.at < excluded.at AND (rule_hits.at < ?
				OR rule_hits.at < (SELECT f.since FROM rule_falls f WHERE f.rule = rule_hits.rule AND f.generation = rule_hits.generation)
				OR rule_hits.benign = 0 AND rule_hits.device = excluded.device
					AND (excluded.device <> '' OR rule_hits.network = excluded.network AND rule_hits.fingerprint = excluded.fingerprint))`),
			string(h.Rule), h.Generation, storable(string(h.Account)), storable(string(h.Organization)), micros(h.Since), micros(h.Time),
			storable(h.Device), prefixText(h.Network), storable(h.Fingerprint), micros(stale))
		if err != nil {
			return fmt.Errorf("keeping a hit: %w", err)
		}
	}
	return nil
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

const hitColumns = `rule, generation, account, organization, since, at, device, network, fingerprint, benign`

func (f *Findings) hits(ctx context.Context, where string, args ...any) ([]rules.Hit, error) {
	rows, err := f.db.QueryContext(ctx, f.dialect.sql(`SELECT `+hitColumns+` FROM rule_hits WHERE `+where), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []rules.Hit
	for rows.Next() {
		var h rules.Hit
		var since, at, benign int64
		var network string
		if err := rows.Scan(&h.Rule, &h.Generation, &h.Account, &h.Organization, &since, &at, &h.Device, &network, &h.Fingerprint, &benign); err != nil {
			return nil, err
		}
		h.Since, h.Time, h.Benign = fromMicros(since), fromMicros(at), fromMicros(benign)
		h.Network, _ = netip.ParsePrefix(network) // empty: not known
		out = append(out, h)
	}
	return out, rows.Err()
}

// Prove marks the hits that these events prove benign, and says how many of each rule.
func (f *Findings) Prove(ctx context.Context, events []detectors.Event) (proved map[rules.ID]int, err error) {
	proved = map[rules.ID]int{}
	for _, e := range events {
		if !rules.Proves(e) {
			continue
		}
		open, err := f.hits(ctx, `account = ? AND benign = 0 ORDER BY at DESC LIMIT 200`, storable(string(e.Account)))
		if err != nil {
			return proved, fmt.Errorf("proving hits: %w", err)
		}
		for _, h := range open {
			e := e
			e.Time = toMicro(e.Time) // as times of hits are kept
			if !h.ProvedBy(e) {
				continue
			}
			res, err := f.db.ExecContext(ctx, f.dialect.sql(`UPDATE rule_hits SET benign = ? WHERE rule = ? AND generation = ? AND account = ? AND at = ? AND benign = 0`),
				micros(e.Time), string(h.Rule), h.Generation, string(h.Account), micros(h.Time))
			if err != nil {
				return proved, fmt.Errorf("proving hits: %w", err)
			}
			if n, err := res.RowsAffected(); err == nil && n > 0 {
				proved[h.Rule]++
			}
		}
	}
	return proved, nil
}

// MarkBenign notes, in the name of act.By, that a finding was about somebody who
// did nothing wrong. It changes the budget of its rule where the account counts there,
// and reports that. Marking twice changes nothing. [ErrNotFound] where there is no such
// finding.
func (f *Findings) MarkBenign(ctx context.Context, id string, act Act, now time.Time) (counts bool, err error) {
	if err := act.check(); err != nil {
		return false, err
	}
	s, err := f.explain(ctx, id)
	if err != nil {
		return false, fmt.Errorf("finding %.64q: %w", id, err)
	}
	for _, x := range s.Findings {
		if x.Account == "" {
			continue
		}
		var n int64
		err := f.dialect.transact(ctx, f.db, func(tx *sql.Tx) error {
			if err := f.act(ctx, tx, act, now); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, f.dialect.sql(`UPDATE rule_hits SET benign = ?, benign_by = ? WHERE rule = ? AND generation = ? AND account = ? AND benign = 0`),
				micros(now), act.By, string(x.Rule), x.Generation, storable(x.Account)); err != nil {
				return err
			}
			return tx.QueryRowContext(ctx, f.dialect.sql(`SELECT COUNT(*) FROM rule_hits WHERE rule = ? AND generation = ? AND account = ? AND benign > 0`),
				string(x.Rule), x.Generation, storable(x.Account)).Scan(&n)
		})
		if err != nil {
			return false, fmt.Errorf("marking finding %.64q: %w", id, err)
		}
		counts = counts || n > 0
	}
	return counts, nil
}

// Falls is how far rules have fallen, all generations of which something is known, by
// rule and generation.
func (f *Findings) Falls(ctx context.Context) ([]Fallen, error) {
	rows, err := f.db.QueryContext(ctx, `SELECT rule, generation, level, since, term, judgement, changed_by FROM rule_falls ORDER BY rule, generation`)
	if err != nil {
		return nil, fmt.Errorf("reading how far rules fell: %w", err)
	}
	defer rows.Close()
	var all []Fallen
	for rows.Next() {
		var x Fallen
		var level, since, term int64
		var judgement string
		if err := rows.Scan(&x.Rule, &x.Generation, &level, &since, &term, &judgement, &x.By); err != nil {
			return nil, fmt.Errorf("reading how far rules fell: %w", err)
		}
		if err := json.Unmarshal([]byte(judgement), &x.Judgement); err != nil {
			return nil, fmt.Errorf("how far rule %s fell: %w", x.Rule, err)
		}
		x.Level, x.Since, x.Term = rules.Fall(min(level, int64(rules.Silenced))), fromMicros(since), fromMicros(term)
		all = append(all, x)
	}
	return all, rows.Err()
}

// fallOf is how far a generation of a rule fell; the zero Fallen where nothing is known.
func (f *Findings) fallOf(ctx context.Context, r rules.Rule) (Fallen, error) {
	all, err := f.Falls(ctx)
	i := slices.IndexFunc(all, func(x Fallen) bool { return x.Rule == r.ID && x.Generation == r.Generation })
	if err != nil || i < 0 {
		return Fallen{Rule: r.ID, Generation: r.Generation}, err
	}
	return all[i], nil
}

// Judge is how the budget of a rule stands at now, and how far it has fallen.
func (f *Findings) Judge(ctx context.Context, r rules.Rule, now time.Time) (Fallen, error) {
	x, _, err := f.judge(ctx, r, now)
	return x, err
}

func (f *Findings) judge(ctx context.Context, r rules.Rule, now time.Time) (x Fallen, latest time.Time, err error) {
	if x, err = f.fallOf(ctx, r); err != nil || r.Budget == nil {
		return x, latest, err
	}
	from := now.Add(-r.Budget.Over)
	if x.Since.After(from) {
		from = x.Since
	}
	hits, err := f.hits(ctx, `rule = ? AND generation = ? AND at >= ? ORDER BY at DESC LIMIT ?`, string(r.ID), r.Generation, micros(from), maxHits)
	if err != nil {
		return x, latest, fmt.Errorf("reading the hits of rule %s: %w", r.ID, err)
	}
	for _, h := range hits {
		if h.Time.After(latest) {
			latest = h.Time
		}
	}
	x.Judgement = r.Budget.Judge(hits)
	return x, latest, nil
}

// Drop lets a rule whose budget is spent fall by one step, and reports whether it did:
// of several nodes that do so at once one does. From then on other hits count. tell
// names what is told of it, which is kept in the same transaction.
func (f *Findings) Drop(ctx context.Context, r rules.Rule, now time.Time, tell func(Fallen) []Notice) (Fallen, bool, error) {
	was, latest, err := f.judge(ctx, r, now)
	if err != nil || !was.Judgement.Over || was.Level >= rules.Silenced {
		return was, false, err
	}
	x := was
	x.Level++
	x.Since, x.By = latest.Add(time.Microsecond), ""
	if x.Term.IsZero() {
		x.Term = toMicro(now)
	}
	judgement, err := json.Marshal(x.Judgement)
	if err != nil {
		return was, false, err
	}
	err = f.dialect.transact(ctx, f.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO rule_falls (rule, generation, level, since, term, judgement, changed_by)
			VALUES (?, ?, 0, 0, ?, '{}', '') ON CONFLICT (rule, generation) DO NOTHING`), string(r.ID), r.Generation, micros(x.Term)); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, f.dialect.sql(`UPDATE rule_falls SET level = ?, since = ?, judgement = ?, changed_by = '' WHERE rule = ? AND generation = ? AND level = ? AND since = ?`),
			int64(x.Level), micros(x.Since), string(judgement), string(r.ID), r.Generation, int64(was.Level), micros(was.Since))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, errNothingToDo) // another node was faster
		}
		i := &intents{dialect: f.dialect, tx: tx}
		for _, n := range tell(x) {
			if err := n.check(); err != nil {
				return err
			}
			if _, err := i.put(ctx, n, toMicro(now)); err != nil {
				return err
			}
		}
		return i.flush(ctx)
	})
	if errors.Is(err, errNothingToDo) {
		return was, false, nil
	}
	if err != nil {
		return was, false, fmt.Errorf("letting rule %s fall: %w", r.ID, err)
	}
	return x, true, nil
}

// SetBack lets a rule stand again in the name of act.By. Its hits up to now count no
// more. Of a rule that stands it is the same. act.Entry is marked as acted.
func (f *Findings) SetBack(ctx context.Context, r rules.Rule, act Act, now time.Time) (Fallen, error) {
	if err := act.check(); err != nil {
		return Fallen{}, err
	}
	x := Fallen{Rule: r.ID, Generation: r.Generation, Since: toMicro(now).Add(time.Microsecond), Term: toMicro(now), By: act.By}
	err := f.dialect.transact(ctx, f.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO rule_falls (rule, generation, level, since, term, judgement, changed_by) VALUES (?, ?, 0, ?, ?, '{}', ?)
			ON CONFLICT (rule, generation) DO UPDATE SET level = 0, since = excluded.since, term = excluded.term, judgement = '{}', changed_by = excluded.changed_by`),
			string(r.ID), r.Generation, micros(x.Since), micros(x.Term), act.By); err != nil {
			return err
		}
		return f.act(ctx, tx, act, now)
	})
	if err != nil {
		return Fallen{}, fmt.Errorf("setting rule %s back: %w", r.ID, err)
	}
	return x, nil
}

// check tells what is wrong with who acts.
func (a Act) check() error {
	if a.By == "" || len(a.By) > maxName || !plainText(a.By, false) || len(a.Entry) > maxName || !plainText(a.Entry, false) {
		return FieldErrors{{"by", fmt.Sprintf("must name who acts, in 1 to %d bytes of plain text, and the entry at most as many", maxName)}}
	}
	return nil
}

// act marks the entry of an act, as updates of decisions do.
func (f *Findings) act(ctx context.Context, tx *sql.Tx, a Act, now time.Time) error {
	return markAct(ctx, tx, f.dialect, a, now)
}

func markAct(ctx context.Context, tx *sql.Tx, d dialect, a Act, now time.Time) error {
	if a.Entry == "" {
		return nil
	}
	if _, err := tx.ExecContext(ctx, d.sql(`INSERT INTO decision_acts (entry, at) VALUES (?, ?) ON CONFLICT (entry) DO NOTHING`), a.Entry, micros(now)); err != nil {
		return fmt.Errorf("marking an act: %w", err)
	}
	return nil
}

// Touched is whom a rule hit in [from, to), as far as it is kept: the number of
// accounts of each organization.
func (f *Findings) Touched(ctx context.Context, rule rules.ID, from, to time.Time) (map[string]int, error) {
	rows, err := f.db.QueryContext(ctx, f.dialect.sql(`SELECT organization, COUNT(DISTINCT account) FROM rule_hits WHERE rule = ? AND at >= ? AND at < ?
		GROUP BY organization ORDER BY 2 DESC LIMIT 1000`), string(rule), micros(from), micros(to))
	if err != nil {
		return nil, fmt.Errorf("whom rule %.64q hit: %w", rule, err)
	}
	defer rows.Close()
	touched := map[string]int{}
	for rows.Next() {
		var organization string
		var n int
		if err := rows.Scan(&organization, &n); err != nil {
			return nil, err
		}
		touched[organization] = n
	}
	return touched, rows.Err()
}

// NodeRules says which rules are in force on a node.
type NodeRules struct {
	Node string    `json:"node"`
	Hash string    `json:"hash"`
	At   time.Time `json:"at"` // when it last said so
}

// Agree notes which rules are in force on a node, and returns what the others said
// after since, by name.
func (f *Findings) Agree(ctx context.Context, own NodeRules, since time.Time) ([]NodeRules, error) {
	if _, err := f.db.ExecContext(ctx, f.dialect.sql(`INSERT INTO rule_nodes (node, hash, at) VALUES (?, ?, ?)
		ON CONFLICT (node) DO UPDATE SET hash = excluded.hash, at = excluded.at`), own.Node, own.Hash, micros(own.At)); err != nil {
		return nil, fmt.Errorf("noting the rules of this node: %w", err)
	}
	rows, err := f.db.QueryContext(ctx, f.dialect.sql(`SELECT node, hash, at FROM rule_nodes WHERE at >= ? AND node <> ? ORDER BY node LIMIT 1000`), micros(since), own.Node)
	if err != nil {
		return nil, fmt.Errorf("reading the rules of other nodes: %w", err)
	}
	defer rows.Close()
	var others []NodeRules
	for rows.Next() {
		var n NodeRules
		var at int64
		if err := rows.Scan(&n.Node, &n.Hash, &at); err != nil {
			return nil, err
		}
		n.At = fromMicros(at)
		others = append(others, n)
	}
	return others, rows.Err()
}

// FallNoticeKey is the same for all steps of a fall: its owner is told once.
func FallNoticeKey(x Fallen, channel, to string) string {
	return strings.Join([]string{"rule.fell", string(x.Rule), fmt.Sprintf("%.16s", x.Generation), fmt.Sprint(micros(x.Term)), channel, to}, "/")
}
