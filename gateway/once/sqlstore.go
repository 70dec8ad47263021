package once

import (
	"context"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Migrations holds the goose migrations of this package: "migrations/sqlite" and
// "migrations/postgres".
//
//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var Migrations embed.FS

// cleanBatch is how many rows that are over a call removes at most.
const cleanBatch = 100

// SQL is the store of all nodes on one database.
type SQL struct {
	db       *sql.DB
	postgres bool
	now      func() time.Time
}

// NewSQL uses db, which somebody else opened, migrated and will close. The dialect
// is "sqlite" or "postgres".
func NewSQL(db *sql.DB, dialect string, now func() time.Time) (*SQL, error) {
	if dialect != "sqlite" && dialect != "postgres" {
		return nil, fmt.Errorf("unknown SQL dialect %q: want sqlite or postgres", dialect)
	}
	return &SQL{db, dialect == "postgres", now}, nil
}

// sql writes the placeholders of a statement that uses ?.
func (s *SQL) sql(query string) string {
	if !s.postgres {
		return query
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}

// changed runs a statement and returns how many rows it changed.
func (s *SQL) changed(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := s.db.ExecContext(ctx, s.sql(query), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Seen implements [Store].
func (s *SQL) Seen(ctx context.Context, signature string, until time.Time) (bool, error) {
	fail := func(err error) (bool, error) { return false, fmt.Errorf("remembering a signature: %w", err) }
	if _, err := s.changed(ctx, `DELETE FROM api_signatures WHERE signature IN (SELECT signature FROM api_signatures WHERE until < ? LIMIT ?)`,
		s.now().Add(-margin).UnixMicro(), cleanBatch); err != nil {
		return fail(err)
	}
	n, err := s.changed(ctx, `INSERT INTO api_signatures (signature, until) SELECT CAST(? AS TEXT), CAST(? AS BIGINT)
		WHERE (SELECT COUNT(*) FROM api_signatures) < ? ON CONFLICT (signature) DO NOTHING`, signature, until.UnixMicro(), maxSignatures)
	if err != nil {
		return fail(err)
	}
	if n == 1 {
		return false, nil
	}
	var known int64
	if err := s.db.QueryRowContext(ctx, s.sql(`SELECT COUNT(*) FROM api_signatures WHERE signature = ?`), signature).Scan(&known); err != nil {
		return fail(err)
	}
	if known == 0 {
		return fail(ErrFull)
	}
	return true, nil
}

// Begin implements [Store].
func (s *SQL) Begin(ctx context.Context, a Act, r Request) (Progress, Answer, error) {
	fail := func(err error) (Progress, Answer, error) {
		return New, Answer{}, fmt.Errorf("looking up an Idempotency-Key: %w", err)
	}
	now := s.now().UnixMicro()
	if _, err := s.changed(ctx, `DELETE FROM api_answers WHERE operator = ? AND idempotency_key IN
		(SELECT idempotency_key FROM api_answers WHERE operator = ? AND until < ? LIMIT ?)`, a.Operator, a.Operator, now, cleanBatch); err != nil {
		return fail(err)
	}
	request := hex.EncodeToString(r[:])
	n, err := s.changed(ctx, `INSERT INTO api_answers (operator, idempotency_key, request, status, location, body, until)
		SELECT CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), 0, '', '', CAST(? AS BIGINT)
		WHERE (SELECT COUNT(*) FROM api_answers WHERE operator = ?) < ?
		ON CONFLICT (operator, idempotency_key) DO UPDATE SET request = excluded.request, status = 0, location = '', body = '', until = excluded.until
		WHERE api_answers.until < ?`,
		a.Operator, a.Key, request, now+RunningFor.Microseconds(), a.Operator, maxAnswers, now)
	if err != nil {
		return fail(err)
	}
	if n == 1 {
		return New, Answer{}, nil
	}
	var (
		was, body string
		answer    Answer
	)
	err = s.db.QueryRowContext(ctx, s.sql(`SELECT request, status, location, body FROM api_answers WHERE operator = ? AND idempotency_key = ?`), a.Operator, a.Key).
		Scan(&was, &answer.Status, &answer.Location, &body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fail(ErrFull)
	case err != nil:
		return fail(err)
	case was != request:
		return Other, Answer{}, nil
	case answer.Status == 0:
		return Running, Answer{}, nil
	}
	answer.Body = []byte(body)
	return Done, answer, nil
}

// Finish implements [Store].
func (s *SQL) Finish(ctx context.Context, a Act, answer Answer) error {
	_, err := s.changed(ctx, `UPDATE api_answers SET status = ?, location = ?, body = ?, until = ? WHERE operator = ? AND idempotency_key = ? AND status = 0`,
		answer.Status, answer.Location, string(answer.Body), s.now().Add(KeepAnswers).UnixMicro(), a.Operator, a.Key)
	if err != nil {
		return fmt.Errorf("keeping the answer under an Idempotency-Key: %w", err)
	}
	return nil
}

// Abandon implements [Store].
func (s *SQL) Abandon(ctx context.Context, a Act) error {
	if _, err := s.changed(ctx, `DELETE FROM api_answers WHERE operator = ? AND idempotency_key = ? AND status = 0`, a.Operator, a.Key); err != nil {
		return fmt.Errorf("giving up an Idempotency-Key: %w", err)
	}
	return nil
}
