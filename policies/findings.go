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

	"github.com/kidoban/kidoban/rules"
)

// Findings keeps what rules found and what that led to, so that it can be explained
// later, and how the rules' budgets stand. What it promises:
//
//   - A finding is kept for 30 days, of a rule the latest 10,000; a code or a decision
//     that leads to one as long, and the text of the rule as it was then with the last
//     finding of it.
//   - A hit is kept for 90 days, of one text of a rule those of the latest 4,096
//     accounts.
//   - A rule falls once among all nodes, in one transaction with what is told of it,
//     and stays fallen until its text changes or somebody sets it back; also when the
//     gate starts anew.
//
// It is safe for concurrent use. Time is an argument.
type Findings struct {
	db      *sql.DB
	dialect dialect
}

const (
	keepFindings    = 30 * 24 * time.Hour
	keepHits        = 90 * 24 * time.Hour // the longest time of a budget
	keepFallen      = 400 * 24 * time.Hour
	maxFindings     = 10_000 // of a rule
	maxHits         = 4096   // of a generation of a rule
	maxReferences   = 200_000
	maxFindingBytes = 64 << 10
)

// NewFindings keeps findings in db, which somebody else opened, migrated and will
// close. The dialect is "sqlite" or "postgres".
func NewFindings(db *sql.DB, dialectName string) (*Findings, error) {
	d, err := parseDialect(dialectName)
	if err != nil {
		return nil, err
	}
	return &Findings{db: db, dialect: d}, nil
}

// NewFindingID is an id for a finding: unguessable, and sorted by time.
func NewFindingID(now time.Time) string { return newID(now) }

// Found is a finding as it is kept.
type Found struct {
	rules.Finding
	Stage        rules.Stage       `json:"stage"`
	Account      string            `json:"account,omitempty"`
	Organization string            `json:"organization,omitempty"`
	Source       string            `json:"source,omitempty"`     // the address
	Explanation  rules.Explanation `json:"explanation,omitzero"` // empty where the rule was replaced before it could be asked
	Fall         rules.Fall        `json:"fall,omitzero"`        // of the rule, when it found this
	Incidents    []string          `json:"incidents,omitempty"`  // ids of those that took it up
	Text         string            `json:"-"`                    // of the rule
	Proposes     []IncidentSubject `json:"-"`                    // incidents that take it up when it is kept
}

// Reference is a name under which people look for a finding: a code that somebody
// reads out, or the id of a decision.
type Reference struct {
	Name     string
	Rule     rules.ID
	Decision string // that was behind it; empty: none
	Finding  string // empty: that of the decision
}

// Kept is what is to be kept at once.
type Kept struct {
	Findings   []Found
	References []Reference
	Hits       []rules.Hit
	Over       map[rules.ID]time.Duration // how long the hits of a rule count; without: 90 days
	Proposals  []Proposal                 // of one subject at most one
	Tell       func(Incident) []Notice    // what is told of an incident that comes into being; nil: nothing
}

// Taken is what became of what was kept.
type Taken struct {
	Opened    []Incident        // that came into being
	Decisions map[string]string // of those that findings led to, the incident of the finding, by the id of the decision
	Refused   int               // findings whose incident did not come into being, because too many are open
}

// Empty reports whether there is nothing to keep.
func (k Kept) Empty() bool {
	return len(k.Findings)+len(k.References)+len(k.Hits)+len(k.Proposals) == 0
}

// Keep keeps k, all or nothing. What is kept already stays as it is; only what
// proposals count is counted again, as after an error that is [ErrUncertain]. Of
// several nodes that propose the same incident one opens it, and what the others found
// joins it, as does what is found later while it is open.
func (f *Findings) Keep(ctx context.Context, k Kept, now time.Time) (Taken, error) {
	var taken Taken
	if k.Empty() {
		return taken, nil
	}
	err := f.dialect.transact(ctx, f.db, func(tx *sql.Tx) error {
		found, incidents, err := f.takeUp(ctx, tx, k, &taken, now)
		if err != nil {
			return err
		}
		if err := f.putFindings(ctx, tx, found, now); err != nil {
			return err
		}
		for _, r := range slices.SortedFunc(slices.Values(k.References), func(a, b Reference) int { return strings.Compare(a.Name, b.Name) }) {
			if _, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO finding_references (reference, at, rule, decision, finding)
				VALUES (?, ?, ?, ?, ?) ON CONFLICT (reference) DO NOTHING`), storable(r.Name), micros(now), string(r.Rule), r.Decision, r.Finding); err != nil {
				return err
			}
		}
		if taken.Decisions, err = f.related(ctx, tx, k.References, incidents); err != nil {
			return err
		}
		if err := f.putHits(ctx, tx, k.Hits, k.Over); err != nil {
			return err
		}
		return f.tellOf(ctx, tx, taken.Opened, k.Tell, now)
	})
	if err != nil {
		return Taken{}, fmt.Errorf("keeping what rules found: %w", err)
	}
	return taken, nil
}

func (f *Findings) putFindings(ctx context.Context, tx *sql.Tx, found []Found, now time.Time) error {
	texts := map[string]bool{}
	for _, x := range slices.SortedFunc(slices.Values(found), func(a, b Found) int {
		return cmp.Or(strings.Compare(a.Generation, b.Generation), strings.Compare(a.ID, b.ID))
	}) {
		body, err := json.Marshal(x)
		if err != nil {
			return err
		}
		if len(body) > maxFindingBytes {
			return fmt.Errorf("a finding of rule %s has %d bytes, want at most %d", x.Rule, len(body), maxFindingBytes)
		}
		if !texts[x.Generation] && x.Text != "" {
			texts[x.Generation] = true
			if _, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO rule_texts (generation, rule, file, text, at) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (generation) DO NOTHING`), x.Generation, string(x.Rule), storable(x.Explanation.File), storable(x.Text), micros(now)); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, f.dialect.sql(`INSERT INTO findings (id, rule, generation, at, account, body) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO NOTHING`), x.ID, string(x.Rule), x.Generation, micros(x.Time), storable(x.Account), string(body)); err != nil {
			return err
		}
	}
	return nil
}

// storable is text as both databases take it.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// Story is what is known behind a name.
type Story struct {
	Reference string   `json:"reference"`
	Rule      rules.ID `json:"rule"`
	Decision  string   `json:"decision,omitempty"` // that was behind it
	// Findings are why, the first at the beginning; none where they are not kept any
	// more, or were too many to be kept.
	Findings []Found `json:"findings"`
	// Texts are the rule files as they were, by generation.
	Texts map[string]string `json:"texts"`
}

// Explain is what is behind the id of a finding, the id of a decision, or a code that
// somebody reads out. [ErrNotFound] where nothing is known of it.
func (f *Findings) Explain(ctx context.Context, name string) (Story, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	s, err := f.explain(ctx, name)
	if err != nil {
		return Story{}, fmt.Errorf("explaining %.64q: %w", name, err)
	}
	return s, nil
}

func (f *Findings) explain(ctx context.Context, name string) (Story, error) {
	if len(name) > maxName || !plainText(name, false) || name == "" {
		return Story{}, ErrNotFound
	}
	s := Story{Reference: name, Findings: []Found{}, Texts: map[string]string{}}
	ids := []string{name}
	// A code leads to a decision, and that to a finding.
	for at := name; ; {
		var finding, decision string
		err := f.db.QueryRowContext(ctx, f.dialect.sql(`SELECT rule, decision, finding FROM finding_references WHERE reference = ?`), at).Scan(&s.Rule, &decision, &finding)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return s, err
		}
		s.Decision = cmp.Or(s.Decision, decision)
		if finding != "" {
			ids = []string{finding}
		}
		if finding != "" || decision == "" || decision == at {
			break
		}
		at = decision
	}
	found, err := f.list(ctx, `id = ?`, ids[0])
	if err != nil {
		return s, err
	}
	for _, x := range found {
		s.Rule = x.Rule
		s.Findings = append(s.Findings, x)
		var text string
		err := f.db.QueryRowContext(ctx, f.dialect.sql(`SELECT text FROM rule_texts WHERE generation = ?`), x.Generation).Scan(&text)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return s, err
		}
		if err == nil {
			s.Texts[x.Generation] = text
		}
	}
	if s.Rule == "" {
		return s, ErrNotFound
	}
	return s, nil
}

// Of is the latest findings of a rule, the newest first, up to limit and 200.
func (f *Findings) Of(ctx context.Context, rule rules.ID, limit int) ([]Found, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	found, err := f.list(ctx, `rule = ? ORDER BY id DESC LIMIT ?`, string(rule), min(limit, 200))
	if err != nil {
		return nil, fmt.Errorf("listing findings of rule %.64q: %w", rule, err)
	}
	return found, nil
}

func (f *Findings) list(ctx context.Context, where string, args ...any) ([]Found, error) {
	rows, err := f.db.QueryContext(ctx, f.dialect.sql(`SELECT id, body FROM findings WHERE `+where), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Found
	for rows.Next() {
		var id, body string
		if err := rows.Scan(&id, &body); err != nil {
			return nil, err
		}
		var x Found
		if err := json.Unmarshal([]byte(body), &x); err != nil {
			return nil, fmt.Errorf("finding %s: %w", id, err)
		}
		out = append(out, x)
	}
	return out, rows.Err()
}

// Purge deletes what is older than it is kept, and what is too much. Fallen rules whose
// generation is in force are kept.
func (f *Findings) Purge(ctx context.Context, inForce []rules.Rule, now time.Time) error {
	var errs []error
	do := func(query string, args ...any) {
		if _, err := f.db.ExecContext(ctx, f.dialect.sql(query), args...); err != nil {
			errs = append(errs, err)
		}
	}
	do(`DELETE FROM findings WHERE at < ?`, micros(now.Add(-keepFindings)))
	do(`DELETE FROM finding_references WHERE at < ?`, micros(now.Add(-keepFindings)))
	do(`DELETE FROM finding_references WHERE at < (SELECT at FROM finding_references ORDER BY at DESC LIMIT 1 OFFSET ?)`, maxReferences)
	do(`DELETE FROM rule_hits WHERE at < ?`, micros(now.Add(-keepHits)))
	do(`DELETE FROM rule_nodes WHERE at < ?`, micros(now.Add(-keepFindings)))
	many, err := f.tooMany(ctx)
	errs = append(errs, err)
	for _, m := range many {
		if m.generation == "" {
			do(`DELETE FROM findings WHERE rule = ? AND id <= (SELECT id FROM findings WHERE rule = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`, m.rule, m.rule, maxFindings)
		} else {
			do(`DELETE FROM rule_hits WHERE rule = ? AND generation = ? AND at <= (SELECT at FROM rule_hits WHERE rule = ? AND generation = ? ORDER BY at DESC LIMIT 1 OFFSET ?)`,
				m.rule, m.generation, m.rule, m.generation, maxHits)
		}
	}
	do(`DELETE FROM rule_texts WHERE at < ? AND NOT EXISTS (SELECT 1 FROM findings WHERE findings.generation = rule_texts.generation)`, micros(now.Add(-time.Hour)))
	fallen, err := f.Falls(ctx)
	errs = append(errs, err)
	for _, x := range fallen {
		used := slices.ContainsFunc(inForce, func(r rules.Rule) bool { return r.Generation == x.Generation })
		if !used && x.Since.Before(now.Add(-keepFallen)) {
			do(`DELETE FROM rule_falls WHERE rule = ? AND generation = ?`, string(x.Rule), x.Generation)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("deleting old findings: %w", err)
	}
	return nil
}

// crowd is a rule with too many findings, or a generation of it with too many hits.
type crowd struct{ rule, generation string }

func (f *Findings) tooMany(ctx context.Context) (all []crowd, err error) {
	rows, err := f.db.QueryContext(ctx, f.dialect.sql(`SELECT rule, '' FROM findings GROUP BY rule HAVING COUNT(*) > ?
		UNION ALL SELECT rule, generation FROM rule_hits GROUP BY rule, generation HAVING COUNT(*) > ?`), maxFindings, maxHits)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c crowd
		if err := rows.Scan(&c.rule, &c.generation); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}
