package simulate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Office is a company on Monday at nine: everybody logs in once, from one address.
type Office struct {
	People []Account
	// Source is the address that all of them share.
	Source netip.Addr
	// Mistype is the share that gets the password wrong first, 0 to 1; whoever
	// does, gets it right a little later.
	Mistype float64
}

const (
	officeConnections = 32
	slow              = time.Second
)

// visit is one person's morning.
type visit struct {
	person int
	at     time.Duration // after the start
	typo   string        // what is typed first; empty: the right password
	retry  time.Duration // after the answer to the typo
}

// plan spreads the people evenly over the first nine tenths of window, each at a
// moment of its own, and makes exactly the nearest number of them mistype.
func (o Office) plan(window time.Duration, seed uint64) ([]visit, error) {
	n := len(o.People)
	switch {
	case n < 1 || n > PeopleMax:
		return nil, fmt.Errorf("%d people: want 1 to %d", n, PeopleMax)
	case !(o.Mistype >= 0 && o.Mistype <= 1):
		return nil, fmt.Errorf("a share of %v mistypes: want 0 to 1", o.Mistype)
	}
	for i, p := range o.People {
		if p.Name == "" || p.Password == "" {
			return nil, fmt.Errorf("person %d has no name or no password", i+1)
		}
	}
	r := rand.New(rand.NewPCG(seed, 0x6f6666696365)) // "office"
	visits := make([]visit, n)
	slot := float64(window) * 0.9 / float64(n)
	for i, person := range r.Perm(n) {
		visits[i] = visit{person: person, at: time.Duration(slot * (float64(i) + r.Float64()))}
	}
	// Seven seconds of a quarter of an hour, give or take: what typing it again takes.
	for _, i := range r.Perm(n)[:int(float64(n)*o.Mistype+0.5)] {
		visits[i].typo = mistyped(r, o.People[visits[i].person].Password)
		visits[i].retry = time.Duration(float64(window) * (0.005 + 0.02*r.Float64()))
	}
	return visits, nil
}

// mistyped is password as a hurried hand types it; never password itself.
func mistyped(r *rand.Rand, password string) string {
	runes := []rune(password)
	i := r.IntN(len(runes))
	switch r.IntN(3) {
	case 0: // a key too few; of one key none would be left
		if len(runes) > 1 {
			return string(append(runes[:i:i], runes[i+1:]...))
		}
	case 1: // two keys in the wrong order
		if i > 0 && runes[i] != runes[i-1] {
			runes[i], runes[i-1] = runes[i-1], runes[i]
			return string(runes)
		}
	}
	return string(append(runes[:i:i], append([]rune{runes[i]}, runes[i:]...)...)) // a key twice
}

// run lets everybody come. The end of open ends what is begun, that of ctx what is
// under way.
func (o Office) run(ctx, open context.Context, p *population, visits []visit, progress *Progress) Benign {
	var mu sync.Mutex
	var all Benign
	start := time.Now()
	var people sync.WaitGroup
	for i, v := range visits {
		if !pause(open, v.at-time.Since(start)) {
			break
		}
		people.Go(func() {
			b := o.morning(ctx, open, p, v, dresses[i%len(dresses)], progress)
			mu.Lock()
			defer mu.Unlock()
			all = Join(Score{Benign: all}, Score{Benign: b}).Benign
		})
	}
	people.Wait()
	return all
}

// morning is one person logging in and opening the chat.
func (o Office) morning(ctx, open context.Context, p *population, v visit, dress http.Header, progress *Progress) (b Benign) {
	person := o.People[v.person]
	browser := p.browser(person.Cookies)
	harm := func(n *int) {
		*n++
		progress.Harmed.Add(1)
	}
	if v.typo != "" {
		switch a := p.login(ctx, browser, dress, person.Name, v.typo); a.verdict {
		case refused:
			harm(&b.Refused)
		case stepUp:
			harm(&b.SteppedUp)
		}
		if !pause(open, v.retry) {
			return b
		}
	}
	a := p.login(ctx, browser, dress, person.Name, person.Password)
	if a.verdict == lost {
		if !errors.Is(ctx.Err(), context.Canceled) {
			harm(&b.Refused)
		}
		return b
	}
	b.Logins++
	progress.Logins.Add(1)
	if a.took > slow {
		harm(&b.DelayedOver1s)
	}
	switch a.verdict {
	case refused:
		harm(&b.Refused)
	case stepUp:
		harm(&b.SteppedUp)
	case wrong:
		harm(&b.Deceived)
	case accepted:
		// To be let in and not to be known afterwards is to be turned away.
		if me := p.me(ctx, browser, dress); me.verdict != accepted && ctx.Err() == nil {
			harm(&b.Refused)
		}
	}
	return b
}

// dresses are what the browsers of an office say of themselves.
var dresses = []http.Header{
	dress("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", "ja,en-US;q=0.9,en;q=0.8"),
	dress("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0", "ja;q=0.9,en;q=0.8"),
	dress("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15", "ja-JP,ja;q=0.9"),
	dress("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0", "ja,en-US;q=0.7,en;q=0.3"),
	dress("Mozilla/5.0 (iPhone; CPU iPhone OS 26_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1", "ja-JP,ja;q=0.9"),
}

// dress is what a page's own script sends with a fetch to its own site.
func dress(agent, languages string) http.Header {
	return http.Header{
		"User-Agent": {agent}, "Accept-Language": {languages},
		"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"},
	}
}
