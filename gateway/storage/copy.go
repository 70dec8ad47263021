package storage

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
)

// copyRows is how many rows go into one INSERT; SQLite takes 32,766 parameters.
const copyRows = 200

// CopiedTable says what a table held on both sides.
type CopiedTable struct {
	Name string
	Rows int64
	Hash [sha256.Size]byte // of every row in the order of the primary key
}

// Copy copies everything of an installation from one kind of database to the other:
// every table of every schema, from one snapshot, in one transaction. What came to
// stand in each table is read back and compared, by count and by a hash over every
// value, before the transaction commits; after an error the target is as it was.
//
// No gate may work on either side. The source must be of this program's version and
// stays as it is; the target must hold nothing, and is made where it is missing.
// The keyring does not move: it belongs in the data_dir of each node.
func Copy(ctx context.Context, from, to Options) (_ []CopiedTable, err error) {
	if from.Database == "" && to.Database == "" {
		return nil, errors.New("both sides are SQLite: use kidoban data backup and restore")
	}
	source, err := openSource(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("the source: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	empty, err := emptyTables(ctx)
	if err != nil {
		return nil, fmt.Errorf("finding out what an empty database holds: %w", err)
	}
	target, err := openTarget(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("the target: %w", err)
	}
	defer func() { err = errors.Join(err, target.Close()) }()

	out, err := source.sql.BeginTx(ctx, &sql.TxOptions{Isolation: source.snapshot(), ReadOnly: source.dialect == postgres})
	if err != nil {
		return nil, fmt.Errorf("the source: %w", err)
	}
	defer out.Rollback()
	in, err := target.sql.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("the target: %w", err)
	}
	defer in.Rollback()
	sources, err := tables(ctx, out, source.dialect)
	if err != nil {
		return nil, fmt.Errorf("the source: %w", err)
	}
	targets, err := tables(ctx, in, target.dialect)
	if err != nil {
		return nil, fmt.Errorf("the target: %w", err)
	}
	if err := sameTables(sources, targets); err != nil {
		return nil, err
	}
	if err := target.claim(ctx, in, targets, empty); err != nil {
		return nil, fmt.Errorf("the target: %w", err)
	}
	var done []CopiedTable
	for i, s := range sources {
		copied, err := copyTable(ctx, out, source.dialect, s, in, target.dialect, targets[i])
		if err != nil {
			return nil, fmt.Errorf("the table %s: %w", s.name, err)
		}
		done = append(done, copied)
	}
	if err := in.Commit(); err != nil {
		return nil, fmt.Errorf("the target: %w", err)
	}
	return done, nil
}

// snapshot is the isolation in which a transaction sees one state: SQLite's are so.
func (db *DB) snapshot() sql.IsolationLevel {
	if db.dialect == postgres {
		return sql.LevelRepeatableRead
	}
	return sql.LevelDefault
}

// openSource opens a database that nobody changes meanwhile.
func openSource(ctx context.Context, o Options) (_ *DB, err error) {
	kind, err := kindOf(o.Database)
	if err != nil {
		return nil, err
	}
	db := &DB{dialect: kind}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if kind == sqlite {
		lite, err := readSQLite(filepath.Join(o.DataDir, databaseName))
		if err != nil {
			return nil, err
		}
		db = lite
		if db.lock, err = lockDir(filepath.Join(o.DataDir, lockName)); err != nil {
			return nil, err
		}
		return db, db.atVersion(ctx)
	}
	config, err := postgresConfig(o.Database, o.Node)
	if err != nil {
		return nil, err
	}
	db.sql = pool(copying(config), 1)
	if err := db.alone(ctx); err != nil {
		return nil, err
	}
	return db, db.atVersion(ctx)
}

// copier is this program in the list of connections. It is not called as a gate is.
const copier = "kidoban copy"

// copying is config for a copy: long statements, and no mistaking it for a gate.
func copying(config *pgx.ConnConfig) *pgx.ConnConfig {
	c := unhurried(config)
	c.RuntimeParams["application_name"] = copier
	return c
}

// alone refuses a PostgreSQL database that a gate is connected to. One that has just
// stopped has three seconds to be gone, since its connections outlive it on a busy
// server.
func (db *DB) alone(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for tries := 60; ; tries-- {
		var n int
		if err := db.sql.QueryRowContext(ctx, `SELECT COUNT(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE 'kidoban/%'`).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if tries == 0 {
			return fmt.Errorf("%d connections of gates that run: stop every node first", n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// atVersion refuses a database that this program would migrate first.
func (db *DB) atVersion(ctx context.Context) error {
	for _, s := range schemas {
		_, newest, err := s.provider(db.sql, db.dialect)
		if err != nil {
			return err
		}
		var at int64
		if err := db.sql.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM `+s.name+versionTable).Scan(&at); err != nil {
			return fmt.Errorf("its tables of %s are missing: is it a database of the gate? (%w)", s.name, err)
		}
		if at != newest {
			return fmt.Errorf("its tables of %s are of version %d and this program's of %d: start the gate with this program on it once, and stop it", s.name, at, newest)
		}
	}
	return nil
}

// openTarget opens a database with all tables.
func openTarget(ctx context.Context, o Options) (*DB, error) {
	if o.Database == "" {
		return Open(ctx, o)
	}
	config, err := postgresConfig(o.Database, o.Node)
	if err != nil {
		return nil, err
	}
	log := o.log()
	if host, ok := plainHost(config); ok {
		log.Warn(plainWarning, "host", host)
	}
	config = copying(config)
	if err := migratePostgres(ctx, config, log); err != nil {
		return nil, err
	}
	db := &DB{sql: pool(config, 1), dialect: postgres}
	if err := db.alone(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// emptyTables is what the tables of a database hold that was only just made: some
// have a first row from a migration.
func emptyTables(ctx context.Context) (_ map[string]CopiedTable, err error) {
	dir, err := os.MkdirTemp("", "kidoban-empty-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := Open(ctx, Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.sql.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	all, err := tables(ctx, tx, sqlite)
	if err != nil {
		return nil, err
	}
	empty := make(map[string]CopiedTable)
	for _, t := range all {
		if empty[t.name], err = digestTable(ctx, tx, sqlite, t); err != nil {
			return nil, err
		}
	}
	return empty, nil
}

// claim keeps others from the target's tables, refuses it if they hold anything,
// and takes out the rows that migrations put there.
func (db *DB) claim(ctx context.Context, tx *sql.Tx, all []table, empty map[string]CopiedTable) error {
	for _, t := range all {
		if db.dialect == postgres {
			if _, err := tx.ExecContext(ctx, `LOCK TABLE `+t.name+` IN ACCESS EXCLUSIVE MODE`); err != nil {
				return err
			}
		}
		held, err := digestTable(ctx, tx, db.dialect, t)
		if err != nil {
			return err
		}
		if held != empty[t.name] {
			return fmt.Errorf("the table %s is not empty (%d rows): name a new database", t.name, held.Rows)
		}
	}
	for _, t := range slices.Backward(all) {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+t.name); err != nil {
			return err
		}
	}
	return nil
}

// sameTables refuses databases that do not hold the same tables and columns.
func sameTables(a, b []table) error {
	names := func(all []table) (names []string) {
		for _, t := range all {
			names = append(names, t.name+"("+strings.Join(t.columns, ", ")+")")
		}
		slices.Sort(names)
		return names
	}
	x, y := names(a), names(b)
	for _, t := range x {
		if !slices.Contains(y, t) {
			return fmt.Errorf("the target has no table %s", t)
		}
	}
	for _, t := range y {
		if !slices.Contains(x, t) {
			return fmt.Errorf("the source has no table %s", t)
		}
	}
	// Both in the order of the first, which keeps what refers behind what it refers to.
	slices.SortFunc(b, func(p, q table) int {
		place := func(t table) int { return slices.IndexFunc(a, func(o table) bool { return o.name == t.name }) }
		return place(p) - place(q)
	})
	return nil
}

func copyTable(ctx context.Context, out *sql.Tx, from dialect, t table, in *sql.Tx, to dialect, into table) (CopiedTable, error) {
	insert := func(n int) string {
		row := "(" + strings.TrimSuffix(strings.Repeat("?, ", len(t.columns)), ", ") + ")"
		return to.query(`INSERT INTO ` + t.name + ` (` + strings.Join(t.columns, ", ") + `) VALUES ` + strings.TrimSuffix(strings.Repeat(row+", ", n), ", "))
	}
	full, err := in.PrepareContext(ctx, insert(copyRows))
	if err != nil {
		return CopiedTable{}, err
	}
	defer full.Close()
	var batch []any
	flush := func() error {
		n := len(batch) / len(t.columns)
		var err error
		switch n {
		case 0:
		case copyRows:
			_, err = full.ExecContext(ctx, batch...)
		default:
			_, err = in.ExecContext(ctx, insert(n), batch...)
		}
		batch = batch[:0]
		return err
	}
	copied, err := eachRow(ctx, out, from, t, func(row []any) error {
		batch = append(batch, row...)
		if len(batch) == copyRows*len(t.columns) {
			return flush()
		}
		return nil
	})
	if err != nil {
		return CopiedTable{}, err
	}
	if err := flush(); err != nil {
		return CopiedTable{}, err
	}
	stored, err := digestTable(ctx, in, to, into)
	if err != nil {
		return CopiedTable{}, err
	}
	if stored != copied {
		return CopiedTable{}, fmt.Errorf("%d rows with hash %x were copied and %d with %x came to stand there", copied.Rows, copied.Hash[:8], stored.Rows, stored.Hash[:8])
	}
	return copied, nil
}

func digestTable(ctx context.Context, tx *sql.Tx, d dialect, t table) (CopiedTable, error) {
	return eachRow(ctx, tx, d, t, func([]any) error { return nil })
}

// eachRow calls f with every row of a table in the order of its key and returns
// their number and hash. The row is f's to keep.
func eachRow(ctx context.Context, tx *sql.Tx, d dialect, t table, f func([]any) error) (_ CopiedTable, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+strings.Join(t.columns, ", ")+` FROM `+t.name+` ORDER BY `+t.order(d))
	if err != nil {
		return CopiedTable{}, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	sum := sha256.New()
	done := CopiedTable{Name: t.name}
	for rows.Next() {
		row := make([]any, len(t.columns))
		room := make([]any, len(t.columns))
		for i := range row {
			room[i] = &row[i]
		}
		if err := rows.Scan(room...); err != nil {
			return CopiedTable{}, err
		}
		for i, v := range row {
			if err := writeValue(sum, v); err != nil {
				return CopiedTable{}, fmt.Errorf("column %s: %w", t.columns[i], err)
			}
		}
		if err := f(row); err != nil {
			return CopiedTable{}, err
		}
		done.Rows++
	}
	sum.Sum(done.Hash[:0])
	return done, rows.Err()
}

// writeValue is the one form of a value in all databases: its kind, its length where
// it has one, and its bytes.
func writeValue(w hash.Hash, v any) error {
	text := func(kind byte, b []byte) {
		w.Write(binary.BigEndian.AppendUint64([]byte{kind}, uint64(len(b))))
		w.Write(b)
	}
	number := func(kind byte, n uint64) { w.Write(binary.BigEndian.AppendUint64([]byte{kind}, n)) }
	switch v := v.(type) {
	case nil:
		w.Write([]byte{'0'})
	case int64:
		number('i', uint64(v))
	case float64:
		number('f', math.Float64bits(v))
	case string:
		text('t', []byte(v))
	case []byte:
		text('b', v)
	default:
		return fmt.Errorf("a value of type %T, which not every database has", v)
	}
	return nil
}

// WriteCopied writes a table of what was copied, for people.
func WriteCopied(w io.Writer, done []CopiedTable) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "rows\tSHA-256 of the rows\t on both sides: table\t")
	var rows int64
	for _, c := range done {
		fmt.Fprintf(t, "%d\t%x\t %s\t\n", c.Rows, c.Hash[:8], c.Name)
		rows += c.Rows
	}
	fmt.Fprintf(t, "%d\t\t in %d tables\t\n", rows, len(done))
	return t.Flush()
}
