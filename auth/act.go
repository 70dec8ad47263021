package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Act is who does something, and where that is on record.
//
// What must be on record is announced there before it is done. The change then
// carries the entry's id in the same transaction, so that after a crash
// [Sessions.Acted] tells which announced acts happened.
type Act struct {
	By    string // for people
	Entry string // id of the announcement, "node/sequence", at most 128 bytes; empty: the act is not on record

	// Approve approves a held login with an attempt, and Release releases one, by its
	// id, into the session that is begun: in the same transaction and only if that
	// happens. Acts that cannot do so are refused with them.
	Approve *Approval
	Release string
}

// ErrActed means that an entry was carried by a change before: the act happened,
// and does not happen again.
var ErrActed = errors.New("the act of this entry of the record happened before")

const (
	entryMax = 128 // bytes
	actBatch = 500 // entries a transaction forgets
)

// at is an act that has nothing to do with held logins.
func (a Act) at(now time.Time) (act, error) {
	if a.Approve != nil || a.Release != "" {
		return act{}, errors.New("this act can neither approve nor release a held login")
	}
	return a.checked(now)
}

// approving is an act that may approve a held login.
func (a Act) approving(now time.Time) (act, error) {
	if a.Release != "" {
		return act{}, errors.New("this act cannot release a held login")
	}
	checked, err := a.checked(now)
	if err != nil || a.Approve == nil {
		return checked, err
	}
	if err := a.Approve.check(); err != nil {
		return act{}, err
	}
	approve := *a.Approve
	if approve.By == "" {
		approve.By = a.By
	}
	checked.approve = &approve
	return checked, nil
}

// releasing is an act that may release a held login.
func (a Act) releasing(now time.Time) (act, error) {
	if a.Approve != nil {
		return act{}, errors.New("this act cannot approve a held login")
	}
	checked, err := a.checked(now)
	if err == nil && !storable(a.Release) {
		err = ErrHoldOver
	}
	checked.release = a.Release
	return checked, err
}

func (a Act) checked(now time.Time) (act, error) {
	if !storable(a.By) {
		return act{}, errors.New("who acts is not a text")
	}
	if a.Entry == "" {
		return act{at: now}, nil
	}
	node, sequence, ok := strings.Cut(a.Entry, "/")
	if len(a.Entry) > entryMax || !storable(a.Entry) || !ok || node == "" || sequence == "" {
		return act{}, fmt.Errorf("entry id of %d bytes: want node/sequence in at most %d", len(a.Entry), entryMax)
	}
	return act{entry: a.Entry, at: now}, nil
}

// storable reports whether every database of ours takes s as a text: PostgreSQL
// has no NUL.
func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// Acted reports which of the entries are of acts that happened. It is for
// start-up, when the record may have announced what a crash then prevented.
func (ss *Sessions) Acted(ctx context.Context, entries []string) (map[string]bool, error) {
	asked := make([]string, 0, len(entries))
	for _, e := range entries {
		if storable(e) {
			asked = append(asked, e)
		}
	}
	return ss.store.actsAmong(ctx, asked)
}

// ForgetActs forgets the entries of a node whose acts happened before a time: for
// entries that the record knows the outcome of.
func (ss *Sessions) ForgetActs(ctx context.Context, node string, before time.Time) error {
	if node == "" || !storable(node) || strings.Contains(node, "/") {
		return fmt.Errorf("forgetting acts: %q is not the name of a node", node)
	}
	before = stored(before)
	for {
		n, err := ss.store.forgetActs(ctx, node, before, actBatch)
		if err != nil {
			return fmt.Errorf("forgetting acts: %w", err)
		}
		if n < actBatch {
			return nil
		}
	}
}
