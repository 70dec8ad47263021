package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// table is what a database's catalog says of one of ours. Names need no quotes:
// they are of our migrations.
type table struct {
	name    string
	columns []string // sorted by name
	text    []string // of them, those that hold text
	key     []string // of the primary key, in its order
	refers  []string // to other tables
}

// order sorts rows as bytes and numbers do, whatever the database's language is.
func (t *table) order(d dialect) string {
	var by []string
	for _, c := range t.key {
		if d == postgres && slices.Contains(t.text, c) {
			c += ` COLLATE "C"`
		}
		by = append(by, c)
	}
	return strings.Join(by, ", ")
}

// The catalog as rows of table, column, type and place in the primary key (0: none),
// and as rows of a table and one that it refers to.
const (
	sqliteColumns = `SELECT m.name, c.name, lower(c.type), c.pk FROM sqlite_schema m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY m.name, c.name`
	sqliteReferences = `SELECT DISTINCT m.name, f."table" FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`

	postgresColumns = `SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
			COALESCE(array_position(string_to_array(i.indkey::text, ' ')::int[], a.attnum::int), 0)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
		WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace ORDER BY c.relname, a.attname`
	postgresReferences = `SELECT DISTINCT c.relname, r.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid
		WHERE k.contype = 'f' AND c.relnamespace = current_schema()::regnamespace`
)

// tables lists the tables of all schemas, those that others refer to first. The
// tables of versions are left out: each side has its own.
func tables(ctx context.Context, tx *sql.Tx, d dialect) ([]table, error) {
	columns, references := sqliteColumns, sqliteReferences
	if d == postgres {
		columns, references = postgresColumns, postgresReferences
	}
	var all []table
	keys := make(map[string]map[int]string)
	if err := each(ctx, tx, columns, func(scan func(...any) error) error {
		var (
			name, column, kind string
			place              int
		)
		if err := scan(&name, &column, &kind, &place); err != nil {
			return err
		}
		if slices.ContainsFunc(schemas, func(s schema) bool { return name == s.name+versionTable }) {
			return nil
		}
		if len(all) == 0 || all[len(all)-1].name != name {
			all = append(all, table{name: name})
			keys[name] = make(map[int]string)
		}
		t := &all[len(all)-1]
		t.columns = append(t.columns, column)
		switch kind {
		case "text":
			t.text = append(t.text, column)
		case "integer", "bigint", "smallint", "blob", "bytea", "real", "double precision":
		default:
			return fmt.Errorf("the table %s has a column %s of type %q, which cannot be copied", name, column, kind)
		}
		if place > 0 {
			keys[name][place] = column
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for i := range all {
		t := &all[i]
		slices.Sort(t.columns)
		for place := 1; keys[t.name][place] != ""; place++ {
			t.key = append(t.key, keys[t.name][place])
		}
		if len(t.key) == 0 {
			return nil, fmt.Errorf("the table %s has no primary key", t.name)
		}
	}
	if err := each(ctx, tx, references, func(scan func(...any) error) error {
		var name, other string
		if err := scan(&name, &other); err != nil {
			return err
		}
		for i := range all {
			if all[i].name == name && other != name {
				all[i].refers = append(all[i].refers, other)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return referredFirst(all)
}

func referredFirst(all []table) (sorted []table, err error) {
	placed := make(map[string]bool)
	for len(sorted) < len(all) {
		before := len(sorted)
		for _, t := range all {
			if !placed[t.name] && !slices.ContainsFunc(t.refers, func(o string) bool { return !placed[o] }) {
				sorted = append(sorted, t)
				placed[t.name] = true
			}
		}
		if len(sorted) == before {
			return nil, errors.New("tables refer to each other in a circle")
		}
	}
	return sorted, nil
}

// each calls f for each row.
func each(ctx context.Context, tx *sql.Tx, query string, f func(scan func(...any) error) error) (err error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
