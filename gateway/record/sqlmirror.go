package record

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"strings"
)

// Migrations holds the goose migrations of the mirror's tables: "migrations/sqlite"
// and "migrations/postgres". They need a version table of their own, because other
// packages number theirs from 1 too.
//
//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var Migrations embed.FS

// SQLMirror keeps frames in a database, which all nodes may share. It is a
// [Mirror] and a [Source], and safe for concurrent use.
type SQLMirror struct{ db *sql.DB }

// NewSQLMirror uses db, a PostgreSQL or SQLite database that somebody else opened,
// migrated and will close. On the disk of the record itself it is of little use.
func NewSQLMirror(db *sql.DB) *SQLMirror { return &SQLMirror{db} }

// Last implements [Mirror].
func (m *SQLMirror) Last(ctx context.Context, node string) (uint64, error) {
	var last int64
	err := m.db.QueryRowContext(ctx, `SELECT COALESCE(MAX(sequence), 0) FROM record_frames WHERE node = $1`, node).Scan(&last)
	return uint64(last), err
}

// Store implements [Mirror].
func (m *SQLMirror) Store(ctx context.Context, node string, copies []Copy) (err error) {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done(tx.Rollback())) }()
	for len(copies) > 0 {
		n := min(len(copies), 100) // a statement has few placeholders
		if err := storeCopies(ctx, tx, node, copies[:n]); err != nil {
			return err
		}
		copies = copies[n:]
	}
	return tx.Commit()
}

// done is err, unless that says that the transaction was committed.
func done(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

func storeCopies(ctx context.Context, tx *sql.Tx, node string, copies []Copy) error {
	var q strings.Builder
	q.WriteString(`INSERT INTO record_frames (node, sequence, segment, frame) VALUES `)
	args := []any{node}
	segment := uint64(0)
	for i, c := range copies {
		if c.First != segment {
			segment = c.First
			if err := storeSegment(ctx, tx, node, c); err != nil {
				return err
			}
		}
		if i > 0 {
			q.WriteString(", ")
		}
		fmt.Fprintf(&q, "($1, $%d, $%d, $%d)", len(args)+1, len(args)+2, len(args)+3)
		args = append(args, int64(c.Sequence), int64(c.First), c.Frame)
	}
	q.WriteString(` ON CONFLICT (node, sequence) DO NOTHING`)
	result, err := tx.ExecContext(ctx, q.String(), args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == int64(len(copies)) {
		return err
	}
	return compareCopies(ctx, tx, node, copies)
}

func storeSegment(ctx context.Context, tx *sql.Tx, node string, c Copy) error {
	var header []byte
	err := tx.QueryRowContext(ctx, `SELECT header FROM record_segments WHERE node = $1 AND first = $2`, node, int64(c.First)).Scan(&header)
	if errors.Is(err, sql.ErrNoRows) { // a node has one writer, so nobody else adds it meanwhile
		_, err = tx.ExecContext(ctx, `INSERT INTO record_segments (node, first, header) VALUES ($1, $2, $3)`, node, int64(c.First), c.Header)
		return err
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(header, c.Header) {
		return fmt.Errorf("%w (the segment of entry %d)", ErrFork, c.First)
	}
	return nil
}

// compareCopies holds copies against what is there. Slots may differ: either side
// may have erased a body.
func compareCopies(ctx context.Context, tx *sql.Tx, node string, copies []Copy) (err error) {
	rows, err := tx.QueryContext(ctx, `SELECT sequence, segment, frame FROM record_frames WHERE node = $1 AND sequence BETWEEN $2 AND $3 ORDER BY sequence`,
		node, int64(copies[0].Sequence), int64(copies[len(copies)-1].Sequence))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for _, c := range copies {
		var sequence, first int64
		var frame []byte
		if !rows.Next() {
			return errors.Join(rows.Err(), fmt.Errorf("entry %d is not there after it was stored", c.Sequence))
		}
		if err := rows.Scan(&sequence, &first, &frame); err != nil {
			return err
		}
		n := len(c.Frame) - slotSize
		if uint64(sequence) != c.Sequence || uint64(first) != c.First || len(frame) != len(c.Frame) || n < 0 || !bytes.Equal(frame[:n], c.Frame[:n]) {
			return fmt.Errorf("%w (entry %d)", ErrFork, c.Sequence)
		}
	}
	return rows.Err()
}

// Copies implements [Source].
func (m *SQLMirror) Copies(ctx context.Context, node string, after uint64, limit int) (_ []Copy, err error) {
	rows, err := m.db.QueryContext(ctx, `SELECT f.sequence, f.segment, s.header, f.frame
		FROM record_frames f JOIN record_segments s ON s.node = f.node AND s.first = f.segment
		WHERE f.node = $1 AND f.sequence > $2 ORDER BY f.sequence LIMIT $3`, node, int64(after), limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var copies []Copy
	for rows.Next() {
		var sequence, first int64
		var c Copy
		if err := rows.Scan(&sequence, &first, &c.Header, &c.Frame); err != nil {
			return nil, err
		}
		c.Sequence, c.First = uint64(sequence), uint64(first)
		copies = append(copies, c)
	}
	return copies, rows.Err()
}
