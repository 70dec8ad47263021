package policies

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// Ledger counts what the gate did or, in shadow, would have done, per hour. It
// answers "what would have happened" before anything is enforced.
//
// Counting takes one uncontended lock of a few dozen nanoseconds. What was counted
// since the last Flush is lost with the process; what a database did not say
// whether it committed is counted again. Between two flushes at most
// 16 x 1,024 different rows are kept; beyond, rule and control are counted as
// "(other)". The table keeps 400 days.
type Ledger struct {
	db      *sql.DB
	dialect dialect
	parts   [16]ledgerPart
	flush   sync.Mutex // held while the table is written
}

type ledgerPart struct {
	mu     sync.Mutex
	counts map[ledgerKey]int64 // guarded by mu
	_      [40]byte            // keeps neighbours off this cache line
}

type ledgerKey struct {
	hour           int64
	control        string
	action         rules.Action
	reason         Reason
	rule           rules.ID
	shadow, device bool
}

const (
	ledgerRows = 1024 // per part
	keepLedger = 400 * 24 * time.Hour
	otherName  = "(other)"
)

// LedgerRow is one line of a report.
type LedgerRow struct {
	Control string       `json:"control"` // limits, decisions, rules, factor, ...
	Action  rules.Action `json:"action"`
	Reason  Reason       `json:"reason,omitempty"`
	Rule    rules.ID     `json:"rule,omitempty"`
	Shadow  bool         `json:"shadow"` // it would have happened, had the control been enforced
	Device  bool         `json:"device"` // to a device that the account knows: probably its owner
	Count   int64        `json:"count"`
	First   time.Time    `json:"first"` // the hours in which it happened first and last
	Last    time.Time    `json:"last"`
}

// NewLedger counts into the table "ledger" of db, which somebody else opened,
// migrated and will close. The dialect is "sqlite" or "postgres".
func NewLedger(db *sql.DB, dialectName string) (*Ledger, error) {
	d, err := parseDialect(dialectName)
	if err != nil {
		return nil, err
	}
	return &Ledger{db: db, dialect: d}, nil
}

// Count counts one request at the time at. Rule is the rule that decided, if any;
// shadow says that the action was not taken; device that the device is one that
// the account knows.
func (l *Ledger) Count(at time.Time, control string, action rules.Action, reason Reason, rule rules.ID, shadow, device bool) {
	l.parts[rand.Uint32()%uint32(len(l.parts))].add(ledgerKey{at.Unix() / 3600, control, action, reason, rule, shadow, device}, 1)
}

func (p *ledgerPart) add(k ledgerKey, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts == nil {
		p.counts = make(map[ledgerKey]int64)
	}
	if _, known := p.counts[k]; !known && len(p.counts) >= ledgerRows {
		// Hours, actions, reasons and flags are few; names are what can be many.
		k.control, k.rule = otherName, otherName
		if !slices.Contains(reasons, k.reason) {
			k.reason = otherName
		}
	}
	p.counts[k] += n
}

// Flush adds what was counted to the table. If that fails, it is kept and added
// next time.
func (l *Ledger) Flush(ctx context.Context) error {
	l.flush.Lock()
	defer l.flush.Unlock()
	counts := make(map[ledgerKey]int64)
	for i := range l.parts {
		p := &l.parts[i]
		p.mu.Lock()
		taken := p.counts
		p.counts = nil
		p.mu.Unlock()
		for k, n := range taken {
			counts[k] += n
		}
	}
	if len(counts) == 0 {
		return nil
	}
	if err := l.write(ctx, counts); err != nil {
		for k, n := range counts {
			l.parts[rand.Uint32()%uint32(len(l.parts))].add(k, n)
		}
		return fmt.Errorf("flushing the ledger: %w", err)
	}
	return nil
}

func (l *Ledger) write(ctx context.Context, counts map[ledgerKey]int64) error {
	return l.dialect.transact(ctx, l.db, func(tx *sql.Tx) error { return l.add(ctx, tx, counts) })
}

func (l *Ledger) add(ctx context.Context, tx *sql.Tx, counts map[ledgerKey]int64) error {
	stmt, err := tx.PrepareContext(ctx, l.dialect.sql(`INSERT INTO ledger (hour, control, action, reason, rule, shadow, device, count)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hour, control, action, reason, rule, shadow, device)
		DO UPDATE SET count = ledger.count + excluded.count`))
	if err != nil {
		return err
	}
	defer stmt.Close()
	// In a fixed order, so that two nodes cannot wait for each other's rows.
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b ledgerKey) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.control, b.control), cmp.Compare(a.action, b.action),
			cmp.Compare(a.reason, b.reason), cmp.Compare(a.rule, b.rule), cmp.Compare(bit(a.shadow), bit(b.shadow)), cmp.Compare(bit(a.device), bit(b.device)))
	})
	for _, k := range keys {
		_, err := stmt.ExecContext(ctx, k.hour*3600, k.control, int64(k.action), string(k.reason), string(k.rule), bit(k.shadow), bit(k.device), counts[k])
		if err != nil {
			return err
		}
	}
	latest := keys[len(keys)-1].hour * 3600
	_, err = tx.ExecContext(ctx, l.dialect.sql(`DELETE FROM ledger WHERE hour < ?`), latest-int64(keepLedger/time.Second))
	return err
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Report flushes and sums up the hours that begin in [from, to), the largest
// counts first.
func (l *Ledger) Report(ctx context.Context, from, to time.Time) ([]LedgerRow, error) {
	if err := l.Flush(ctx); err != nil {
		return nil, err
	}
	rows, err := l.db.QueryContext(ctx, l.dialect.sql(`SELECT control, action, reason, rule, shadow, device, SUM(count), MIN(hour), MAX(hour)
		FROM ledger WHERE hour >= ? AND hour < ? GROUP BY control, action, reason, rule, shadow, device
		ORDER BY SUM(count) DESC, control, action, reason, rule, shadow, device`), from.Unix(), to.Unix())
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	defer rows.Close()
	var out []LedgerRow
	for rows.Next() {
		var r LedgerRow
		var action, shadow, device, first, last int64
		if err := rows.Scan(&r.Control, &action, &r.Reason, &r.Rule, &shadow, &device, &r.Count, &first, &last); err != nil {
			return nil, fmt.Errorf("reading the ledger: %w", err)
		}
		r.Action, r.Shadow, r.Device = rules.Action(action), shadow != 0, device != 0
		r.First, r.Last = time.Unix(first, 0).UTC(), time.Unix(last, 0).UTC()
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return out, nil
}

// WriteReport renders rows for people: first what would have happened, then what
// did, a line per control, action and cause. Known devices are named apart,
// because they are where a false positive would have hurt.
func WriteReport(w io.Writer, rows []LedgerRow) error {
	var b strings.Builder
	if len(rows) == 0 {
		b.WriteString("Nothing was counted in this time.\n")
	} else {
		first, last := rows[0].First, rows[0].Last
		for _, r := range rows {
			if r.First.Before(first) {
				first = r.First
			}
			if r.Last.After(last) {
				last = r.Last
			}
		}
		fmt.Fprintf(&b, "From %s to %s (UTC)\n", first.Format("2006-01-02 15:04"), last.Add(time.Hour).Format("2006-01-02 15:04"))
		writeReportPart(&b, rows, true)
		writeReportPart(&b, rows, false)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeReportPart(b *strings.Builder, rows []LedgerRow, shadow bool) {
	type line struct {
		row          LedgerRow
		total, known int64
	}
	lines := make(map[LedgerRow]*line)
	for _, r := range rows {
		if r.Shadow != shadow {
			continue
		}
		key := LedgerRow{Control: r.Control, Action: r.Action, Reason: r.Reason, Rule: r.Rule}
		l := lines[key]
		if l == nil {
			l = &line{row: key}
			lines[key] = l
		}
		l.total += r.Count
		if r.Device {
			l.known += r.Count
		}
	}
	if len(lines) == 0 {
		return
	}
	if shadow {
		b.WriteString("\nIn observe mode:\n")
	} else {
		b.WriteString("\nEnforced:\n")
	}
	sorted := slices.SortedFunc(maps.Values(lines), func(a, b *line) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.row.Control, b.row.Control),
			cmp.Compare(b.row.Action, a.row.Action), cmp.Compare(a.row.Reason, b.row.Reason), cmp.Compare(a.row.Rule, b.row.Rule))
	})
	for _, l := range sorted {
		fmt.Fprintf(b, "  %s %s", grouped(l.total), deed(l.row, l.total == 1, shadow))
		if l.known > 0 {
			fmt.Fprintf(b, " (%s from a device the account knows)", grouped(l.known))
		}
		b.WriteByte('\n')
	}
}

// deed says what was done to how many and by whom: "log-ins would have been
// refused by rule stuffing.sequential".
func deed(r LedgerRow, one, shadow bool) string {
	noun := "request"
	switch r.Control {
	case "rules", "login", "attempts", "factor", "detectors":
		noun = "log-in"
	}
	verb, ok := map[rules.Action]string{
		rules.Allow: "allowed", rules.Delay: "delayed", rules.StepUp: "asked for further proof",
		rules.Refuse: "refused", rules.Deceive: "answered as failed",
	}[r.Action]
	if !ok {
		verb = "met by " + r.Action.String()
	}
	switch {
	case shadow:
		verb = "would have been " + verb
	case one:
		verb = "was " + verb
	default:
		verb = "were " + verb
	}
	if !one {
		noun += "s"
	}
	text := noun + " " + verb
	switch {
	case r.Rule != "" && r.Reason == ReasonDecision:
		text += " by a decision of rule " + string(r.Rule)
	case r.Rule != "":
		text += " by rule " + string(r.Rule)
	case r.Reason == ReasonLimit && r.Control == "attempts":
		text += " by the limit on attempts"
	case r.Reason == ReasonLimit:
		text += " by a request limit"
	case r.Reason != ReasonNone:
		text += " by " + r.Control + ": " + strings.ReplaceAll(string(r.Reason), "_", " ")
	default:
		text += " by " + r.Control
	}
	return text
}

// grouped writes 9986 as 9,986.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	from := 0
	if n < 0 {
		from = 1
	}
	for i := len(s) - 3; i > from; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
