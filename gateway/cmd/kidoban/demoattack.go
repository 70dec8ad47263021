package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
)

// Where the two populations come from: the office out of the range that made-up
// worlds use (RFC 2544), the attack out of one for documentation (RFC 5737).
var (
	officeAddress = netip.MustParseAddr("198.18.0.1")
	thiefAddress  = netip.MustParseAddr("203.0.113.7")
)

const (
	officeMistypes = 0.1
	defaultWindow  = 20 * time.Second
	defaultLimit   = 30 * time.Second
)

// passes are the names of the rounds, and of their directories.
const (
	unprotected = "unprotected"
	established = "established"
	firstDay    = "first_day"
)

// attackScore is what --json writes.
type attackScore struct {
	Unprotected simulate.Score `json:"unprotected"`
	// Guarded is of both passes through the gate: the worst of the attack, the sum
	// of the office.
	Guarded simulate.Score `json:"guarded"`
	Passes  struct {
		Established simulate.Score `json:"established"`
		FirstDay    simulate.Score `json:"first_day"`
	} `json:"passes"`
}

// attackDemo is the three passes and what they share.
type attackDemo struct {
	demoOptions
	dir          string
	listen       hostPort
	office, rest []chatcore.SeededAccount
	world        string // file that every pass gets a copy of
	words        phrasebook
	view         *view
	ledger       []policies.LedgerRow // of the guarded passes
}

// demoAttack plays the attack beside the office, three times.
func demoAttack(ctx context.Context, o demoOptions, dir string, words phrasebook, stdout, stderr io.Writer) error {
	for _, name := range []string{unprotected, established, firstDay} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%s holds an earlier demo (%s): give a new directory", dir, name)
		}
	}
	listen, err := demoAddress("--listen", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d := &attackDemo{demoOptions: o, dir: dir, listen: listen, world: filepath.Join(dir, "world.db"), words: words, view: newView(stderr, words)}
	d.view.say(words.making)
	hits := int(float64(o.pairs)*float64(o.hits) + 0.5)
	if d.office, d.rest, err = seedOffice(ctx, d.world, o.people, max(hits, min(o.pairs, o.people)/2), o.seed); err != nil {
		return err
	}
	defer os.Remove(d.world)

	var score attackScore
	for _, p := range []struct {
		name string
		run  func(context.Context, string) (simulate.Score, error)
		to   *simulate.Score
	}{
		{unprotected, d.straight, &score.Unprotected},
		{established, d.guarded(true), &score.Passes.Established},
		{firstDay, d.guarded(false), &score.Passes.FirstDay},
	} {
		place := filepath.Join(dir, p.name)
		if err := os.Mkdir(place, 0o700); err != nil {
			return err
		}
		if err := copyChat(d.world, filepath.Join(place, "chat.db")); err != nil {
			return err
		}
		if *p.to, err = p.run(ctx, place); err != nil {
			return fmt.Errorf("pass %s: %w", p.name, err)
		}
	}
	score.Guarded = simulate.Join(score.Passes.Established, score.Passes.FirstDay)
	if o.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(score)
	}
	return writeScore(stdout, words, score, o.mode == "observe", d.ledger)
}

// straight is the pass without a gate.
func (d *attackDemo) straight(ctx context.Context, place string) (_ simulate.Score, err error) {
	back, err := startBackend(ctx, backendConfig{file: filepath.Join(place, "chat.db")})
	if err != nil {
		return simulate.Score{}, err
	}
	defer func() { err = errors.Join(err, back.stop()) }()
	return d.play(ctx, d.words.straight, simulate.Entry{URL: "http://" + back.address}, back, nil)
}

// guarded is a pass through a gate, with a past or on its first day.
func (d *attackDemo) guarded(past bool) func(context.Context, string) (simulate.Score, error) {
	return func(ctx context.Context, place string) (_ simulate.Score, err error) {
		title := d.words.firstDay
		var cookies map[string]*http.Cookie
		if past {
			title = d.words.established
			d.view.say(d.words.past)
			if cookies, err = livePast(ctx, place, d.office, d.rest, d.seed, time.Now()); err != nil {
				return simulate.Score{}, err
			}
		}
		// The other end of the gate must be known before the backend: links in its
		// mails and the origins it trusts are the gate's.
		entry := "https://localhost:" + d.listen.port
		back, err := startBackend(ctx, backendConfig{file: filepath.Join(place, "chat.db"), entry: entry})
		if err != nil {
			return simulate.Score{}, err
		}
		defer func() { err = errors.Join(err, back.stop()) }()
		g, err := startGate(ctx, gateConfig{
			dir: place, listen: d.listen, backend: back.address, observe: d.mode == "observe", verbose: d.verbose,
		})
		if err != nil {
			return simulate.Score{}, err
		}
		score, err := d.play(ctx, title, simulate.Entry{URL: g.entry, TLS: &tls.Config{RootCAs: g.roots}}, back, cookies)
		if err = errors.Join(err, g.stop()); err != nil {
			return simulate.Score{}, err
		}
		rows, err := readLedger(ctx, storage.Options{DataDir: place}, time.Unix(0, 0), time.Now().Add(time.Hour))
		d.ledger = append(d.ledger, rows...)
		return score, err
	}
}

// play runs one pass against an entry.
func (d *attackDemo) play(ctx context.Context, title string, entry simulate.Entry, back *backend, cookies map[string]*http.Cookie) (simulate.Score, error) {
	window, limit := defaultWindow, defaultLimit
	if d.length > 0 {
		window, limit = d.length*4/5, d.length // the rest is for a slow machine
	}
	people := accountsOf(d.office)
	for i := range people {
		if c := cookies[people[i].Name]; c != nil {
			people[i].Cookies = []*http.Cookie{c}
		}
	}
	progress := new(simulate.Progress)
	stop := d.view.watch(title, progress, d.pairs, d.people)
	defer stop()
	return simulate.Pass{
		Entry:  entry,
		Office: simulate.Office{People: people, Source: officeAddress, Mistype: officeMistypes},
		List:   simulate.List{Accounts: accountsOf(d.rest), Pairs: d.pairs, HitRate: float64(d.hits), Source: thiefAddress},
		Window: window, Limit: limit,
		Seed: d.seed, Backend: back.logins, Progress: progress,
	}.Run(ctx)
}

func accountsOf(seeded []chatcore.SeededAccount) []simulate.Account {
	all := make([]simulate.Account, len(seeded))
	for i, a := range seeded {
		all[i] = simulate.Account{Name: a.Email, Password: a.Password}
	}
	return all
}
