package policies

import "context"

// MaxOpen is how many notices may wait.
const MaxOpen = maxOpen

// BackoffWith is Backoff with a source of chance.
var BackoffWith = backoff

// Crowd makes an outbox over memory or SQL believe that n more notices wait.
func (o *Outbox) Crowd(ctx context.Context, n int) error {
	switch s := o.store.(type) {
	case *memoryNotices:
		s.open += n
	case *sqlNotices:
		_, err := s.db.ExecContext(ctx, s.dialect.sql(`UPDATE outbox_open SET number = number + ?`), n)
		return err
	}
	return nil
}
