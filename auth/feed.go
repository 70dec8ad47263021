package auth

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// changed is a session that changed, as the feed of changes tells it.
type changed struct {
	id       string
	version  int64
	revision int64 // that wrote the session last
	ended    int64 // the revision that ended it; 0: it has not ended
}

// revision is the number of the latest change; what it names is all visible.
func (s *SQLStore) revision(ctx context.Context) (int64, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	var latest int64
	if err := s.reads.QueryRowContext(ctx, `SELECT revision FROM auth_revision WHERE one = 1`).Scan(&latest); err != nil {
		return 0, fmt.Errorf("reading the revision: %w", err)
	}
	return latest, nil
}

func (s *SQLStore) changedSessions(ctx context.Context, revision int64, id string, limit int) ([]changed, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	rows, err := s.reads.QueryContext(ctx, `SELECT id, version, revision, end_revision FROM auth_sessions
		WHERE version > 1 AND (revision, id) > (?, ?) ORDER BY revision, id LIMIT ?`, revision, id, limit)
	if err != nil {
		return nil, fmt.Errorf("reading what changed: %w", err)
	}
	var all []changed
	err = scan(rows, func() error {
		var c changed
		if err := rows.Scan(&c.id, &c.version, &c.revision, &c.ended); err != nil {
			return err
		}
		all = append(all, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading what changed: %w", err)
	}
	return all, nil
}

func (s *SQLStore) sessionsByID(ctx context.Context, ids []string) ([]record, error) {
	var all []record
	for len(ids) > 0 {
		some, args := chunk(&ids)
		rs, err := func() ([]record, error) {
			ctx, cancel := asking(ctx)
			defer cancel()
			return s.sessionsWhere(ctx, s.reads, `id IN (`+some+`)`, args...)
		}()
		if err != nil {
			return nil, fmt.Errorf("reading what changed: %w", err)
		}
		all = append(all, rs...)
	}
	return all, nil
}

// chunkSize is how many values a statement lists; fewer are filled up, so that
// there is one statement.
const chunkSize = 100

var chunkPlaces = "?" + strings.Repeat(", ?", chunkSize-1)

// chunk takes the first values off a list that is not empty.
func chunk(values *[]string) (places string, args []any) {
	n := min(len(*values), chunkSize)
	args = make([]any, chunkSize)
	for i := range args {
		args[i] = (*values)[min(i, n-1)]
	}
	*values = (*values)[n:]
	return chunkPlaces, args
}

func (s *SQLStore) changedPeople(ctx context.Context, revision int64, limit int) ([]string, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	rows, err := s.reads.QueryContext(ctx, `SELECT subject FROM auth_people WHERE revision > ? ORDER BY revision LIMIT ?`, revision, limit)
	if err != nil {
		return nil, fmt.Errorf("reading which accounts changed: %w", err)
	}
	var all []string
	err = scan(rows, func() error {
		var subject string
		if err := rows.Scan(&subject); err != nil {
			return err
		}
		all = append(all, subject)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading which accounts changed: %w", err)
	}
	return all, nil
}

// act is what goes with a change: the entry of the record that announced it, if one
// did, and what it does with a held login.
type act struct {
	entry   string
	at      time.Time
	approve *Approval
	release string
}

// acted writes with a change that its act happened.
func acted(ctx context.Context, tx *transaction, a act) error {
	if a.entry == "" {
		return nil
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO auth_acts (entry, at) VALUES (?, ?) ON CONFLICT (entry) DO NOTHING`, a.entry, toMicro(a.at))
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return ErrActed
}

func (s *SQLStore) actsAmong(ctx context.Context, entries []string) (found map[string]bool, err error) {
	if !s.shared() {
		ctx, cancel := asking(ctx)
		defer cancel()
		found, err = actsIn(ctx, s.reads, entries)
	} else {
		// Whoever asked for a commit may have died since, and the server be at it
		// still. A change of ours comes after all of those.
		err = s.in(ctx, func(ctx context.Context, tx *transaction) error {
			found, err = actsIn(ctx, tx, entries)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("looking up acts: %w", err)
	}
	return found, nil
}

func actsIn(ctx context.Context, db handle, entries []string) (map[string]bool, error) {
	found := make(map[string]bool)
	for len(entries) > 0 {
		some, args := chunk(&entries)
		rows, err := db.QueryContext(ctx, `SELECT entry FROM auth_acts WHERE entry IN (`+some+`)`, args...)
		if err != nil {
			return nil, err
		}
		if err := scan(rows, func() error {
			var entry string
			err := rows.Scan(&entry)
			found[entry] = true
			return err
		}); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (s *SQLStore) forgetActs(ctx context.Context, node string, then time.Time, limit int) (int, error) {
	// '0' follows '/': what is between begins with the node's name and a slash.
	return s.forget(ctx, `DELETE FROM auth_acts WHERE entry IN
		(SELECT entry FROM auth_acts WHERE entry > ? AND entry < ? AND at < ? LIMIT ?)`, node+"/", node+"0", toMicro(then), limit)
}
