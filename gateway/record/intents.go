package record

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Intent is an entry that announced an act.
type Intent struct {
	ID   ID
	Time time.Time
	Kind string // begins with [Acts]
}

// intentsMax is how many intents are returned at most.
const intentsMax = 100_000

// Settle says that of all acts that were announced up to and with the sequence
// through, the outcome is known: they happened, or are abandoned by an entry.
func (l *Log) Settle(ctx context.Context, through uint64) error {
	it, err := l.item(Draft{Kind: Settled, Body: settlement{through}})
	if err != nil {
		return err
	}
	_, err = l.write(ctx, []item{it})
	return err
}

type settlement struct {
	Through uint64 `json:"through"`
}

// Intents returns what was announced and is neither abandoned nor settled, the
// newest first, at most 100,000. It is for start-up: whoever made a change carries
// the id of the entry that announced it in the same transaction, so that an
// announcement which is not found there was cut off, and is then to be abandoned.
func (l *Log) Intents(ctx context.Context) ([]Intent, error) {
	list, err := segments(l.dir)
	if err != nil {
		return nil, err
	}
	at := l.position()
	var found []Intent
	abandoned := make(map[ID]bool)
	settled := uint64(0)
	for _, s := range slices.Backward(list) {
		limit := int64(-1)
		switch {
		case s.first > at.segment:
			continue
		case s.first == at.segment:
			limit = at.offset
		}
		var here []Intent
		err = readSegment(ctx, s, l.cfg.Keys, Query{Class: Waiting, Kinds: []string{Acts}}, limit, false, func(e Entry) error {
			switch e.Kind {
			case Abandoned:
				var a abandonment
				if e.Err == nil && json.Unmarshal(e.Body, &a) == nil {
					abandoned[a.Entry] = true
				}
			case Settled:
				var m settlement
				if e.Err == nil && json.Unmarshal(e.Body, &m) == nil {
					settled = max(settled, m.Through)
				}
			default:
				here = append(here, Intent{e.ID(), e.Time, e.Kind})
				if len(here) >= 2*intentsMax { // only the newest may be wanted
					here = append(here[:0], here[len(here)-intentsMax:]...)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading what was announced: %w", err)
		}
		for _, i := range slices.Backward(here) {
			if i.ID.Sequence > settled && !abandoned[i.ID] {
				found = append(found, i)
			}
			if len(found) == intentsMax {
				return found, nil
			}
		}
		if s.first <= settled+1 {
			break
		}
	}
	return found, nil
}
