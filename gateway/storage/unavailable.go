package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	lite "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// Unavailable reports whether err means that the database could not do it now and
// may do it later: it is away, starting, full, read-only, too slow, or another
// change was in the way. Callers answer 503 with Retry-After. A caller that went
// away itself (context.Canceled) is not the database's doing.
func Unavailable(err error) bool {
	switch {
	case err == nil:
		return false
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, pgconn.ErrConnClosed),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.DeadlineExceeded):
		return true
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return postgresAway(pg.Code)
	}
	if l, ok := errors.AsType[*lite.Error](err); ok {
		return sqliteAway(l.Code())
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return pgconn.Timeout(err) || pgconn.SafeToRetry(err)
}

// postgresAway knows the states (PostgreSQL manual, appendix A) that pass.
func postgresAway(state string) bool {
	switch state {
	case "25006", // read_only_sql_transaction: it became a standby
		"25P03", // idle_in_transaction_session_timeout
		"40001", // serialization_failure
		"40P01", // deadlock_detected
		"55P03", // lock_not_available
		"57014": // query_canceled: statement_timeout
		return true
	}
	for _, class := range []string{"08", "53", "57P", "58"} { // connection, resources, operator, system
		if strings.HasPrefix(state, class) {
			return true
		}
	}
	return false
}

// sqliteAway knows the result codes (sqlite.org/rescode.html) that pass.
func sqliteAway(code int) bool {
	switch code & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_NOMEM, lib.SQLITE_READONLY, lib.SQLITE_IOERR, lib.SQLITE_FULL, lib.SQLITE_CANTOPEN:
		return true
	}
	return false
}
