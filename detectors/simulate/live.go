package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// Live plays scenarios over HTTP, one request for each attempt, through a gate on this
// machine. What the gate does is known by its answers alone.
//
// Before anything is counted, everybody whom the gate is to know logs in once from each
// of his places, in the browser that he keeps, and some mistype: a gate that saw nobody
// fail would wonder at the first who do. Attempts follow one after the other at
// their times, divided by Compress; an answer that is late makes the next one late. An
// attempt is caught when its answer is the gate's, or when a right password is answered
// like a wrong one. Whoever is asked for more does not get further: he counts as stepped
// up. An account is lost when the attacker's session opens /v2/me.
//
// What such a run cannot show: operators and countries, unless the gate has files that
// know these addresses; a fingerprint of TLS for each client program, because all of them
// are this one; alarms, and with them the figures of people while one is on. [AsLive] has
// another defense see as little.
type Live struct {
	Entry Entry
	// Accounts are those of the service: at least as many as the town has people, and ten
	// for the attacker. Their cookies are what their owners' browsers hold.
	Accounts []Account
	// DeviceCookie is the cookie that a browser keeps from one login to the next; it is
	// logged out in between.
	DeviceCookie string
	// Compress divides the time of scenarios. 0: 1.
	Compress float64
}

// The bounds of a live run.
const (
	LiveAttemptsMax = 20_000 // log-ins, those of before included
	LiveTimeMax     = 10 * time.Minute
)

const attackersOwn = 10 // accounts that an attacker has at most

// Run plays s. It returns early, with an error, when ctx ends, when the bounds are
// reached, or when one of the log-ins of before is not accepted.
func (l Live) Run(ctx context.Context, s Scenario, seed uint64) (Result, error) {
	s = s.derived()
	s.Town.Thin = 1 // one request stands for itself
	compress := cmp.Or(l.Compress, 1)
	took := time.Duration(float64(s.warm+time.Duration(s.Length)) / compress)
	switch {
	case !(compress > 0):
		return Result{}, fmt.Errorf("time compressed by %v: want more than 0, such as 10", l.Compress)
	case took > LiveTimeMax:
		return Result{}, fmt.Errorf("%s lasts %v when compressed by %v: want at most %v; compress more, or shorten it", s.ID, took.Round(time.Second), compress, LiveTimeMax)
	case len(l.Accounts) < s.Town.People+attackersOwn:
		return Result{}, fmt.Errorf("%s has a town of %d people: want as many accounts and %d, but there are %d", s.ID, s.Town.People, attackersOwn, len(l.Accounts))
	case l.DeviceCookie == "":
		return Result{}, errors.New("the name of the device cookie is missing: no browser would be known again")
	}
	for i, c := range s.Crowds {
		if c.Kind == "storm" {
			return Result{}, fmt.Errorf("%s: crowds[%d] is a storm, which is not played live", s.ID, i)
		}
	}
	// Everybody shares connections; the address in them is that of the request.
	p, err := newPopulation(l.Entry, netip.IPv6Unspecified(), 4)
	if err != nil {
		return Result{}, err
	}
	defer p.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, expire := context.WithTimeoutCause(ctx, LiveTimeMax, fmt.Errorf("%s did not end within %v", s.ID, LiveTimeMax))
	defer expire()
	w := &wire{
		ctx: ctx, fail: cancel, people: p, accounts: l.Accounts, keep: l.DeviceCookie,
		mistype: s.Town.Mistype, clock: clock{s.Start.Add(-s.warm), compress}, given: make(map[detectors.Account]int), pockets: make(map[int]*pocket),
	}
	r, err := Run(ctx, s, seed, "live", w)
	switch {
	case context.Cause(ctx) != nil:
		return Result{}, context.Cause(ctx)
	case err != nil:
		return Result{}, err
	}
	return r, p.failed(s.ID, w.sent-w.lost)
}

// Fit is s with no more people than there are accounts for.
func (l Live) Fit(s Scenario) Scenario {
	t := &s.Town
	t.People = min(t.People, max(100, len(l.Accounts)-attackersOwn))
	t.Companies = min(t.Companies, t.People)
	s.Crowds = slices.Clone(s.Crowds)
	for i := range s.Crowds {
		s.Crowds[i].People = min(s.Crowds[i].People, t.People)
	}
	return s
}

// AsLive is d with the events of a scenario as a live run would show them: at their times
// divided by compress, without operator and country, and with no fingerprint of TLS.
func AsLive(d Defense, s Scenario, compress float64) Defense {
	s = s.derived()
	return dimmed{d, clock{s.Start.Add(-s.warm), cmp.Or(compress, 1)}}
}

// clock runs faster from a time on.
type clock struct {
	from     time.Time
	compress float64
}

func (c clock) since(t time.Time) time.Duration {
	return time.Duration(float64(t.Sub(c.from)) / c.compress)
}

type dimmed struct {
	Defense
	clock clock
}

func (d dimmed) see(e *detectors.Event) *detectors.Event {
	seen := *e
	seen.Time = d.clock.from.Add(d.clock.since(e.Time))
	seen.StreamTime = seen.Time
	seen.Source.ASN, seen.Source.Country, seen.Client.JA4 = 0, "", ""
	seen.Fingerprint = seen.Client.Fingerprint()
	return &seen
}

func (d dimmed) Before(e *detectors.Event) Action { return d.Defense.Before(d.see(e)) }
func (d dimmed) After(e *detectors.Event) Action  { return d.Defense.After(d.see(e)) }
func (d dimmed) Proved(e *detectors.Event)        { d.Defense.Proved(d.see(e)) }
func (d dimmed) Learn(e *detectors.Event)         { d.Defense.Learn(d.see(e)) }
func (d dimmed) Alarms(now time.Time) []string {
	return d.Defense.Alarms(d.clock.from.Add(d.clock.since(now)))
}

// witness is a defense that is shown each attempt as its client makes it, before it is
// asked.
type witness interface {
	Defense
	witness(w *town, t *try)
}

// wire is the defense at the other end of HTTP.
type wire struct {
	ctx      context.Context
	fail     context.CancelCauseFunc
	people   *population
	accounts []Account
	keep     string  // cookie
	mistype  float64 // share of the log-ins of before that are mistyped first
	slips    float64 // of them, due
	clock    clock
	begun    time.Time                 // when clock began to run
	given    map[detectors.Account]int // who has which of accounts
	pockets  map[int]*pocket           // of accounts
	next     attempt                   // that Before is to make
	sent     int
	lost     int // of these, without an answer
}

// attempt is a login as its client makes it.
type attempt struct {
	at             time.Time
	from           netip.Addr
	client         detectors.Client
	name, password string
	jar            *pocket
	right          bool
	thief          bool
}

// account is what the service has for somebody of the town or of the attacker's.
func (w *wire) account(a detectors.Account) (int, Account) {
	i, ok := w.given[a]
	if !ok {
		i = len(w.given)
		w.given[a] = i
	}
	if i >= len(w.accounts) {
		w.fail(fmt.Errorf("more than %d people log in: make more accounts", len(w.accounts)))
		return i, Account{}
	}
	return i, w.accounts[i]
}

// pocket is what the browser that somebody keeps holds.
func (w *wire) pocket(i int, a Account) *pocket {
	if w.pockets[i] == nil {
		w.pockets[i] = newPocket(a.Cookies)
	}
	return w.pockets[i]
}

func (w *wire) witness(town *town, t *try) {
	w.next = attempt{at: t.at, from: t.where.address, client: t.client, jar: newPocket(nil), right: t.right, thief: t.kind == attacking}
	w.next.name, w.next.password = "nobody."+t.name.String()[:16]+"@mail.example", t.password
	var whose detectors.Account
	switch {
	case t.kind == own:
		whose = ownAccount(t.who)
	case t.who >= 0:
		whose = town.account(t.who)
	default:
		return
	}
	i, a := w.account(whose)
	if t.device {
		w.next.jar = w.pocket(i, a)
	}
	if t.who >= 0 && t.name != town.name(t.who) {
		return // a person who typed nobody's name
	}
	w.next.name = a.Name
	switch {
	case t.right:
		w.next.password = a.Password
	case t.why == typo && a.Password != "": // of one and the same slip always the same
		w.next.password = mistyped(rand.New(rand.NewPCG(textHash(t.password, -1), 6)), a.Password)
	}
}

// Before implements [Defense].
func (w *wire) Before(*detectors.Event) Action {
	if w.begun.IsZero() {
		w.begun = time.Now()
	}
	n := w.next
	if !pause(w.ctx, w.clock.since(n.at)-time.Since(w.begun)) {
		return Allow // it is over
	}
	a, p, c := w.send(n)
	switch {
	case a.verdict == accepted && n.thief:
		if p.me(w.ctx, c, dressOf(n.client)).verdict != accepted {
			return Refuse
		}
		return Allow
	case a.verdict == stepUp:
		return StepUp
	case a.verdict == refused:
		return Refuse
	case a.verdict == wrong && n.right:
		return Deceive
	case a.took > slow:
		return Delay
	}
	return Allow
}

// After implements [Defense]: the answer told everything.
func (w *wire) After(*detectors.Event) Action { return Allow }

// Proved implements [Defense].
func (w *wire) Proved(*detectors.Event) {}

// Alarms implements [Defense].
func (w *wire) Alarms(time.Time) []string { return nil }

// Learn implements [Defense]: whom the gate is to know logs in.
func (w *wire) Learn(e *detectors.Event) {
	i, a := w.account(e.Account)
	if w.ctx.Err() != nil {
		return
	}
	n := attempt{from: e.Source.Address, client: e.Client, name: a.Name, password: a.Password, jar: w.pocket(i, a)}
	if w.slips += w.mistype; w.slips >= 1 {
		w.slips--
		slip := n
		slip.password = mistyped(rand.New(rand.NewPCG(uint64(w.sent), 7)), a.Password)
		w.send(slip)
	}
	answer, _, _ := w.send(n)
	if answer.verdict != accepted && w.ctx.Err() == nil {
		w.fail(fmt.Errorf("before the scenario, account %d of %d could not log in from %v: %s", i+1, len(w.accounts), e.Source.Address, answer.verdict))
	}
}

// send makes an attempt and logs its browser out again.
func (w *wire) send(n attempt) (answer, *population, *http.Client) {
	if w.sent++; w.sent > LiveAttemptsMax {
		w.fail(fmt.Errorf("more than %d log-ins: take fewer people, or a shorter attack", LiveAttemptsMax))
		return answer{}, nil, nil
	}
	n.jar.retain(w.keep)
	p := w.people.at(n.from)
	c := &http.Client{Jar: n.jar, Transport: p.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	a := p.login(w.ctx, c, dressOf(n.client), n.name, n.password)
	if a.verdict == lost && w.ctx.Err() == nil {
		w.lost++
		w.people.unanswered(p.first)
	}
	return a, p, c
}

// at is the same connections with another address behind them.
func (p *population) at(source netip.Addr) *population {
	return &population{base: p.base, source: source.String(), transport: p.transport}
}

// pocket is a cookie jar for one site that takes its word for what is secure: on this
// machine, something that ends TLS may be in between.
type pocket struct {
	mu      sync.Mutex
	cookies map[string]*http.Cookie // by name; guarded by mu
}

func newPocket(cookies []*http.Cookie) *pocket {
	p := &pocket{cookies: make(map[string]*http.Cookie)}
	p.SetCookies(nil, cookies)
	return p
}

// SetCookies implements [http.CookieJar].
func (p *pocket) SetCookies(_ *url.URL, cookies []*http.Cookie) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range cookies {
		if c.MaxAge < 0 || c.Value == "" {
			delete(p.cookies, c.Name)
			continue
		}
		p.cookies[c.Name] = &http.Cookie{Name: c.Name, Value: c.Value}
	}
}

// Cookies implements [http.CookieJar].
func (p *pocket) Cookies(*url.URL) (all []*http.Cookie) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.cookies {
		all = append(all, c)
	}
	return all
}

// retain drops all cookies but one.
func (p *pocket) retain(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for other := range p.cookies {
		if other != name {
			delete(p.cookies, other)
		}
	}
}

func (v verdict) String() string {
	return [...]string{"no answer", "accepted", "wrong name or password", "refused", "asked for more"}[v]
}
