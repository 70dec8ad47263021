// Package simulate plays people and attackers, and counts what happens to them.
//
// In virtual time it plays a [Scenario] against a [Defense] and knows the truth of every
// attempt ([Run]); equal seeds make equal events. README.md has the scenarios and the
// reports. Over real HTTP it plays scenarios ([Live]) and passes ([Pass]) against a chat
// service, and promises:
//
//   - Equal seeds make equal plans: who logs in when, who mistypes, which pairs a
//     list holds and in what order. What is answered is up to the other side.
//   - Nothing is counted that did not happen on the wire. What a gate did is known
//     by its answers alone, and what a backend saw by a [Counter] in front of it.
//   - Only loopback is ever connected to, whatever a name resolves to; proxies from
//     the environment and redirects are not followed.
//   - Count and time are bounded: [PeopleMax], [PairsMax], [WindowMax]; connections
//     and requests under way per population; answers to 64 KiB.
//
// A [Pass] is a Monday-morning [Office], all of it behind one address, beside a
// [List] of stolen pairs tried from another. Sources are told by X-Forwarded-For,
// so the other side must trust this machine, and nobody else, to set it.
//
// It speaks the service's own API (POST /login as JSON, GET /v2/me) and reads no
// page. It does not judge: a [Score] holds figures, the caller knows the limits.
package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of a pass.
const (
	PeopleMax = 20_000
	PairsMax  = 1_000_000
	WindowMax = time.Hour
)

// Pass is one round of office and attack through the same entry.
type Pass struct {
	Entry  Entry
	Office Office
	List   List
	// Window is the time that the office's morning and the attack are compressed
	// to.
	Window time.Duration
	// Limit is when nothing new is begun any more, for machines too slow for the
	// window; 0: the window's end.
	Limit time.Duration
	// Seed makes the plans.
	Seed uint64
	// Backend stands in front of the backend and is counting for this pass only.
	Backend *Counter
	// Progress may be watched meanwhile; nil: nobody does.
	Progress *Progress
}

// Progress is how far a pass is. Reading it at any time is safe.
type Progress struct {
	Attempts atomic.Int64 // of the attack, answered
	Stopped  atomic.Int64 // of these, answered by the gate
	Hits     atomic.Int64 // of these, let in
	Logins   atomic.Int64 // of the office, right password, answered
	Harmed   atomic.Int64 // of the office's answers, anything but what the typed password deserves
}

// Run plays the pass and returns what it came to. It returns early, with an
// error, when ctx ends; a limit that is reached is no error.
func (p Pass) Run(ctx context.Context) (Score, error) {
	switch {
	case p.Window <= 0 || p.Window > WindowMax:
		return Score{}, fmt.Errorf("window %v: want more than 0 and at most %v", p.Window, WindowMax)
	case p.Limit != 0 && (p.Limit < p.Window || p.Limit > WindowMax):
		return Score{}, fmt.Errorf("limit %v: want at least the window, %v, and at most %v", p.Limit, p.Window, WindowMax)
	case p.Backend == nil:
		return Score{}, errors.New("no counter in front of the backend: what reached it could not be told")
	case p.Office.Source == p.List.Source:
		return Score{}, fmt.Errorf("office and attack both come from %v: give each an address of its own", p.List.Source)
	}
	if p.Progress == nil {
		p.Progress = new(Progress)
	}
	visits, err := p.Office.plan(p.Window, p.Seed)
	if err != nil {
		return Score{}, fmt.Errorf("the office: %w", err)
	}
	pairs, err := p.List.plan(p.Seed)
	if err != nil {
		return Score{}, fmt.Errorf("the attack: %w", err)
	}
	people, err := newPopulation(p.Entry, p.Office.Source, officeConnections)
	if err != nil {
		return Score{}, err
	}
	defer people.close()
	thief, err := newPopulation(p.Entry, p.List.Source, p.List.workers())
	if err != nil {
		return Score{}, err
	}
	defer thief.close()

	// Nothing is sent after the limit; what was sent may be answered until the
	// client's own, so that an end in mid-air is not taken for a refusal.
	open, cancel := context.WithTimeout(ctx, cmp.Or(p.Limit, p.Window))
	defer cancel()
	var score Score
	var jars map[string]*thiefJar
	var everybody sync.WaitGroup
	everybody.Go(func() { score.Benign = p.Office.run(ctx, open, people, visits, p.Progress) })
	everybody.Go(func() { score.Attack, jars = p.List.run(ctx, open, thief, pairs, p.Window, p.Progress) })
	everybody.Wait()
	if err := ctx.Err(); err != nil {
		return Score{}, fmt.Errorf("the pass was cut short: %w", err)
	}
	score.Attack.AccountsLost = thief.opens(ctx, jars)
	score.Attack.ReachedBackend = p.Backend.Logins(p.List.Source)
	if err := errors.Join(thief.failed("the attack", score.Attack.Attempts), people.failed("the office", score.Benign.Logins)); err != nil {
		return Score{}, err
	}
	return score, ctx.Err()
}

// pause waits for d and reports whether ctx still lasts.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
