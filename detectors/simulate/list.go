package simulate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// List is a stolen list, tried from one address by a program that tries each pair
// once and keeps every session it gets.
type List struct {
	// Accounts are those of the service that the list may know. Some of its pairs
	// are right for one of them; others have their name and an old password.
	Accounts []Account
	// Pairs is the length of the list.
	Pairs int
	// HitRate is the share of right pairs, 0 to 1.
	HitRate float64
	// Source is the address that the attack comes from.
	Source netip.Addr
	// Workers try pairs side by side, each the next one when its last was
	// answered. 0: 4.
	Workers int
}

const (
	defaultWorkers = 4
	workersMax     = 64
	sharedNames    = 0.2 // share of a list's names that have an account at the service
	attackShare    = 0.8 // of the window: the list is through before the office is
)

func (l List) workers() int {
	if l.Workers == 0 {
		return defaultWorkers
	}
	return l.Workers
}

// pair is one line of the list.
type pair struct{ name, password string }

// plan makes the list. Each name stands in it once.
func (l List) plan(seed uint64) ([]pair, error) {
	switch {
	case l.Pairs < 1 || l.Pairs > PairsMax:
		return nil, fmt.Errorf("%d pairs: want 1 to %d", l.Pairs, PairsMax)
	case !(l.HitRate >= 0 && l.HitRate <= 1):
		return nil, fmt.Errorf("a hit rate of %v: want 0 to 1, such as 0.005 for 0.5%%", l.HitRate)
	case l.workers() < 1 || l.workers() > workersMax:
		return nil, fmt.Errorf("%d workers: want 1 to %d, or 0 for %d", l.Workers, workersMax, defaultWorkers)
	}
	hits := int(float64(l.Pairs)*l.HitRate + 0.5)
	if hits > len(l.Accounts) {
		return nil, fmt.Errorf("%d right pairs, but there are %d accounts to know: shorten the list, or make more accounts", hits, len(l.Accounts))
	}
	r := rand.New(rand.NewPCG(seed, 0x6c697374)) // "list"
	known := r.Perm(len(l.Accounts))
	stale := min(len(known)-hits, int(float64(l.Pairs)*sharedNames), l.Pairs-hits)
	pairs := make([]pair, 0, l.Pairs)
	taken := make(map[string]bool, l.Pairs)
	for i, k := range known[:hits+stale] {
		a := l.Accounts[k]
		if a.Name == "" || a.Password == "" || taken[a.Name] {
			return nil, errors.New("an account without name or password, or twice the same name, among those the list may know")
		}
		taken[a.Name] = true
		password := a.Password
		if i >= hits {
			password = stalePassword(r, a.Password)
		}
		pairs = append(pairs, pair{a.Name, password})
	}
	for i := 0; len(pairs) < l.Pairs; i++ {
		name := strangers[r.IntN(len(strangers))] + strconv.Itoa(i) + "@" + providers[r.IntN(len(providers))]
		if !taken[name] {
			taken[name] = true
			pairs = append(pairs, pair{name, stalePassword(r, "")})
		}
	}
	r.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return pairs, nil
}

var (
	strangers = []string{"sato", "suzuki", "takahashi", "tanaka", "ito", "yamamoto", "nakamura", "kobayashi", "smith", "jones", "miller", "dubois", "rossi", "garcia"}
	providers = []string{"mail.example", "post.example", "provider.example", "inbox.example"}
	words     = []string{"sunshine", "dragon", "sakura", "football", "monkey", "princess", "shadow", "master", "kirakira", "welcome"}
)

// stalePassword is one that somebody used somewhere once; never right.
func stalePassword(r *rand.Rand, right string) string {
	for {
		if p := words[r.IntN(len(words))] + strconv.Itoa(1960+r.IntN(65)); p != right {
			return p
		}
	}
}

// thiefJar is what an answered pair left with the attacker.
type thiefJar struct {
	client *http.Client
	dress  http.Header
}

// run tries the pairs in order, spread over most of the window but never more at
// once than there are workers. It returns the figures that answers tell, and per
// name the sessions it got.
func (l List) run(ctx, open context.Context, p *population, pairs []pair, length time.Duration, progress *Progress) (Attack, map[string]*thiefJar) {
	var mu sync.Mutex // guards all, jars and next
	var all Attack
	jars := make(map[string]*thiefJar)
	next := 0
	gap := float64(length) * attackShare / float64(len(pairs))
	start := time.Now()
	var workers sync.WaitGroup
	for range l.workers() {
		workers.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(pairs) || !pause(open, time.Duration(gap*float64(i))-time.Since(start)) {
					return
				}
				jar := &thiefJar{p.browser(nil), toolDress}
				a := p.login(ctx, jar.client, jar.dress, pairs[i].name, pairs[i].password)
				mu.Lock()
				if a.verdict != lost {
					if a.gate && all.FirstAction == nil {
						n := all.Attempts
						all.FirstAction = &n
					}
					all.Attempts++
					progress.Attempts.Add(1)
				}
				// A session counts whatever the answer called itself.
				if len(jar.client.Jar.Cookies(p.base)) > 0 {
					jars[pairs[i].name] = jar
				}
				mu.Unlock()
				switch {
				case a.gate:
					progress.Stopped.Add(1)
				case a.verdict == accepted:
					progress.Hits.Add(1)
				}
			}
		})
	}
	workers.Wait()
	return all, jars
}

// toolDress is what a program says that wants to look like a browser and took the
// line from somewhere.
var toolDress = http.Header{
	"User-Agent":      {"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"},
	"Accept-Language": {"en-US,en;q=0.9"},
}

// opens counts the jars that still open what only a session opens.
func (p *population) opens(ctx context.Context, jars map[string]*thiefJar) int {
	n := 0
	for _, jar := range jars {
		if p.me(ctx, jar.client, jar.dress).verdict == accepted {
			n++
		}
	}
	return n
}
