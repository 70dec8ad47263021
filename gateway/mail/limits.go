package mail

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/policies"
)

// Migrations holds the goose migrations of this package: "migrations/sqlite" and
// "migrations/postgres".
//
//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var Migrations embed.FS

// Most is how many messages of a template go to one address in an hour of the clock,
// all nodes together. Of those beyond it a digest tells the number, after the hour.
func Most(template string) int {
	switch {
	case template == "confirmation.code":
		return 6
	case template == "enrolment.link":
		return 3
	case strings.HasPrefix(template, "decision."), template == "rule.matched":
		return 60
	}
	return 10
}

const (
	countTime   = 2 * time.Second // for counting, before and after an attempt
	window      = time.Hour
	digestDelay = time.Minute                         // nodes' clocks may differ by less
	keepCounts  = policies.GiveUpAfter + 24*time.Hour // a digest is tried for three days
)

// Limited sends through a mailer, and to nobody more than [Most] allows. Counts are
// in SQL. What was not sent is given up, and told in a digest: one for each address,
// template and hour. Its number may be one too high for each crash in the moment of
// counting, and never too low. It is safe for concurrent use.
type Limited struct {
	mailer   outbox.Sender
	digests  digests
	db       *sql.DB
	postgres bool

	mu      sync.Mutex
	cleaned time.Time // old counts were deleted at the beginning of this hour; guarded by mu
}

// digests keeps notices for later, as policies.Outbox does.
type digests interface {
	Put(ctx context.Context, n policies.Notice, now time.Time) (bool, error)
}

// NewLimited counts in db, which somebody else opened, migrated and will close. The
// dialect is "sqlite" or "postgres". Digests are put into o.
func NewLimited(mailer outbox.Sender, o digests, db *sql.DB, dialect string) (*Limited, error) {
	if dialect != "sqlite" && dialect != "postgres" {
		return nil, fmt.Errorf("unknown SQL dialect %q: want sqlite or postgres", dialect)
	}
	return &Limited{mailer: mailer, digests: o, db: db, postgres: dialect == "postgres"}, nil
}

// Send implements [outbox.Sender].
func (l *Limited) Send(ctx context.Context, n policies.Notice, now time.Time) outbox.Answer {
	to, err := ParseAddress(n.To)
	if err != nil {
		return outbox.Answer{Err: err, Final: true, Alive: true}
	}
	if n.Template == digest {
		return l.sendDigest(ctx, n, now)
	}
	hour := now.Truncate(window)
	who := counted(n.Template, to)
	counting, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	taken, err := l.take(counting, who, hour, Most(n.Template))
	if err == nil && !taken {
		err = l.withhold(counting, n, to, who, hour, now)
		if err == nil {
			return outbox.Answer{Withheld: true}
		}
	}
	if err != nil {
		return outbox.Answer{Err: errors.New("the database that counts messages does not answer"), Alive: true}
	}
	answer := l.mailer.Send(ctx, n, now)
	if answer.Err != nil && !answer.Uncertain {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTime)
		defer cancel()
		// What fails here makes the limit stricter in this hour.
		_, _ = l.changed(back, `UPDATE mail_counts SET sent = sent - 1 WHERE who = ? AND since = ? AND sent > 0`, who, hour.UnixMicro())
	}
	return answer
}

// counted names a template and an address. Capital letters make no other mailbox.
func counted(template string, to Address) []byte {
	sum := sha256.Sum256([]byte(template + "\x00" + strings.ToLower(to.String())))
	return sum[:]
}

// take counts one more, unless there are as many as most.
func (l *Limited) take(ctx context.Context, who []byte, hour time.Time, most int) (bool, error) {
	l.clean(ctx, hour)
	n, err := l.changed(ctx, `INSERT INTO mail_counts (who, since, sent, held) VALUES (?, ?, 1, 0)
		ON CONFLICT (who, since) DO UPDATE SET sent = mail_counts.sent + 1 WHERE mail_counts.sent < ?`, who, hour.UnixMicro(), most)
	return n == 1, err
}

// withhold counts n as one that is not sent, and sees that a digest tells so.
func (l *Limited) withhold(ctx context.Context, n policies.Notice, to Address, who []byte, hour, now time.Time) error {
	more := policies.Notice{
		// First the digest: one that finds nothing to tell is not sent.
		Key: "mail/more/" + hex.EncodeToString(who) + "/" + strconv.FormatInt(hour.Unix(), 10), Channel: Channel, Template: digest, To: to.String(),
		Values: map[string]string{
			"about": n.Template, "at": hour.UTC().Format(time.RFC3339), "until": hour.Add(window).UTC().Format(time.RFC3339),
			valueLanguage: n.Values[valueLanguage], valueTimeZone: n.Values[valueTimeZone],
		},
		Next: hour.Add(window + digestDelay),
	}
	if _, err := l.digests.Put(ctx, more, now); err != nil {
		return err
	}
	_, err := l.changed(ctx, `UPDATE mail_counts SET held = held + 1 WHERE who = ? AND since = ?`, who, hour.UnixMicro())
	return err
}

// sendDigest sends n with what was counted until now.
func (l *Limited) sendDigest(ctx context.Context, n policies.Notice, now time.Time) outbox.Answer {
	to, err := ParseAddress(n.To)
	since, err2 := time.Parse(time.RFC3339, n.Values["at"])
	if err != nil || err2 != nil {
		return outbox.Answer{Err: errors.New("the digest does not say of what"), Final: true, Alive: true}
	}
	counting, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	var held int64
	err = l.db.QueryRowContext(counting, l.sql(`SELECT held FROM mail_counts WHERE who = ? AND since = ?`), counted(n.Values["about"], to), since.UnixMicro()).Scan(&held)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && held == 0:
		return outbox.Answer{Withheld: true}
	case err != nil:
		return outbox.Answer{Err: errors.New("the database that counts messages does not answer"), Alive: true}
	}
	n.Values = maps.Clone(n.Values)
	n.Values["count"] = strconv.FormatInt(held, 10)
	return l.mailer.Send(ctx, n, now)
}

// clean deletes counts that no digest needs any more, once an hour.
func (l *Limited) clean(ctx context.Context, hour time.Time) {
	l.mu.Lock()
	due := !hour.Equal(l.cleaned)
	l.cleaned = hour
	l.mu.Unlock()
	if due { // what is left now goes with the next
		_, _ = l.changed(ctx, `DELETE FROM mail_counts WHERE since < ?`, hour.Add(-keepCounts).UnixMicro())
	}
}

// sql writes the placeholders of a statement that uses ?.
func (l *Limited) sql(query string) string {
	if !l.postgres {
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
func (l *Limited) changed(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := l.db.ExecContext(ctx, l.sql(query), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
