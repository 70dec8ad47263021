package simulate

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// try is one attempt to come.
type try struct {
	at       time.Time
	kind     uint8
	who      int // person; -1: nobody, below for accounts of the attacker
	name     detectors.Digest
	where    place
	client   detectors.Client
	device   bool
	password string
	right    bool
	why      uint8  // the password is wrong
	again    uint16 // how often it was tried before
	weight   int
	begun    time.Time // when the right password was refused first

	abroad, carrier, crowd bool
}

const (
	person = iota
	attacking
	own
	storming
	proving // a step-up that was passed
)

const (
	typo = iota + 1
	other
	noName
	stale
	last // nothing follows
)

// queue is tries to come that follow from others.
type queue []try

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(try)) }
func (q *queue) Pop() any {
	n := len(*q) - 1
	t := (*q)[n]
	*q = (*q)[:n]
	return t
}

// play is one run of a scenario.
type play struct {
	Scenario
	town     *town
	defense  Defense
	grounded Grounded // the same, or nil
	r        *rand.Rand
	result   Result
	queue    queue
	events   uint64

	polled   time.Time
	alarms   map[string]time.Time
	firstAt  time.Time
	lost     map[int]bool
	flagged  map[detectors.Digest]bool // accounts of which an attempt was caught and nobody proved to be its person
	attacked map[detectors.Digest]bool
	guesses  map[guess]int
	owners   map[int]bool
}

type guess struct{ who, day int }

// Run plays s with a seed against d. It ends early only with ctx.
func Run(ctx context.Context, s Scenario, seed uint64, name string, d Defense) (Result, error) {
	s = s.derived()
	start := s.Start.Add(-s.warm)
	p := &play{Scenario: s, town: newTown(s.Town, seed, start), defense: d, r: rand.New(rand.NewPCG(seed, 5)),
		result: Result{Scenario: s.ID, Form: s.Form, Defense: name, Seed: seed},
		alarms: map[string]time.Time{}, lost: map[int]bool{}, flagged: map[detectors.Digest]bool{}, attacked: map[detectors.Digest]bool{}, guesses: map[guess]int{}, owners: map[int]bool{}}
	if g, ok := d.(Grounded); ok {
		p.grounded, p.result.Matches = g, newMatches(g.Rules())
	}
	p.result.Attack.Slices = make([]Slice, 100)
	for i := range p.result.Attack.Slices {
		p.result.Attack.Slices[i].At = s.Start.Add(s.end.Sub(s.Start) / 100 * time.Duration(i))
	}
	var crowds []*crowd
	for i, c := range s.Crowds {
		crowds = append(crowds, newCrowd(c, p.town, i))
	}
	p.town.history(d.Learn)
	var planned []try
	for _, c := range crowds {
		c.history(p.town, d.Learn)
		planned = append(planned, c.plan(p.town, s.Start, p.r)...)
	}
	for i, a := range s.Raids {
		tries := a.plan(p.town, crowds, s.Start, spread(seed, uint64(50+i)))
		if a.Kind == "crack" {
			for _, t := range tries {
				p.owners[t.who] = true
			}
		}
		planned = append(planned, tries...)
	}
	slices.SortStableFunc(planned, func(x, y try) int { return x.at.Compare(y.at) })
	arrival := p.arrive(start)
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		// The earliest of what was planned, what follows, and who comes by himself.
		from := 0
		at := s.end
		if len(planned) > 0 && planned[0].at.Before(at) {
			from, at = 1, planned[0].at
		}
		if len(p.queue) > 0 && p.queue[0].at.Before(at) {
			from, at = 2, p.queue[0].at
		}
		if arrival.Before(at) {
			from, at = 3, arrival
		}
		switch from {
		case 0:
			return p.end(), nil
		case 1:
			t := planned[0]
			planned = planned[1:]
			p.try(t)
		case 2:
			p.try(heap.Pop(&p.queue).(try))
		case 3:
			p.try(p.somebody(arrival))
			arrival = p.arrive(arrival)
		}
	}
}

// played is how many of all log-ins are played, with thinning.
func (p *play) played() float64 {
	t := &p.Town
	return t.Device/float64(t.Thin) + 1 - t.Device
}

// arrive is when the next person of the town comes; after the end: nobody does.
func (p *play) arrive(now time.Time) time.Time {
	const most = 4.0 // of the town's shape
	middle := p.Start.Add(p.Scenario.end.Sub(p.Start) / 2)
	for p.Town.PerDay > 0 && now.Before(p.Scenario.end) {
		// A mention on television, for ten minutes.
		mention, until := 1.0, p.Scenario.end
		switch since := now.Sub(middle); {
		case p.Town.Mention <= 1 || since >= 10*time.Minute:
		case since >= 0:
			mention, until = p.Town.Mention, middle.Add(10*time.Minute)
		default:
			until = middle
		}
		rate := float64(p.Town.People) * p.Town.PerDay / (24 * 3600) * p.played() * most * mention
		next := now.Add(time.Duration(p.r.ExpFloat64() / rate * float64(time.Second)))
		if next.After(until) {
			now = until
			continue
		}
		if now = next; p.r.Float64() < p.town.shape(now)/most {
			return now
		}
	}
	return p.Scenario.end
}

// somebody is a person of the town who logs in.
func (p *play) somebody(at time.Time) try {
	w, r := p.town, p.r
	who := r.IntN(w.People)
	t := try{at: at, who: who, name: w.name(who), client: programs[w.program(who)].client, password: w.password(who), right: true, weight: 1}
	device := p.Town.Device / float64(p.Town.Thin)
	if r.Float64() < device/(device+1-p.Town.Device) && w.known(who) {
		t.device, t.weight = true, p.Town.Thin
	}
	t.where, t.abroad, t.carrier = w.whereabouts(r, who, at)
	switch x := r.Float64(); {
	case x < w.Mistype:
		t.password, t.right, t.why = mistyped(r, t.password), false, typo
	case x < w.Mistype+w.Other:
		t.password, t.right, t.why = w.other(who), false, other
	case x < w.Mistype+w.Other+w.WrongName:
		t.name, t.right, t.why = digestOf(r.Uint64()), false, noName
	case x < w.Mistype+w.Other+w.WrongName+w.Stale/max(w.PerDay, 0.01):
		t.password, t.right, t.why, t.device, t.weight = w.other(who), false, stale, false, 1
	}
	return t
}

func (p *play) later(t try, d time.Duration) {
	t.at = t.at.Add(d)
	heap.Push(&p.queue, t)
}

// event is what the gate sees of an attempt.
func (p *play) event(t *try) detectors.Event {
	p.events++
	e := detectors.Event{
		Key: detectors.EventKey{Node: "sim", Incarnation: 1, Sequence: p.events}, Time: t.at, StreamTime: t.at, Offset: ahead, Kind: detectors.Login, Route: detectors.LoginRoute,
		Name: detectors.Name{Digest: t.name}, Source: t.where.source(), Client: t.client, Fingerprint: t.client.Fingerprint(), Password: facts(t.password),
	}
	if t.who >= 0 && t.name == p.town.name(t.who) && p.town.known(t.who) {
		p.named(&e, t.who)
	}
	if t.device {
		e.Device = detectors.Device{ID: p.town.device(t.who), State: detectors.Trusted}
		if t.name != p.town.name(t.who) { // it speaks for its own account only
			e.Device.State = detectors.Stranger
		}
	}
	return e
}

func (p *play) named(e *detectors.Event, who int) {
	e.Account, e.AccountSince, e.Organization, e.Existence = p.town.account(who), p.town.since(who), p.town.organization(who), detectors.Exists
}

// try plays one attempt.
func (p *play) try(t try) {
	counted := !t.at.Before(p.Start)
	if t.at.Sub(p.polled) >= 10*time.Second {
		p.poll(t.at)
	}
	if t.kind == storming {
		e := p.event(&t)
		e.Kind, e.Outcome, e.Credential, e.Route = detectors.Session, detectors.Refused, "token", detectors.Other // with what stands for the token as its name
		p.defense.After(&e)
		return
	}
	e := p.event(&t)
	if t.kind == proving {
		p.named(&e, t.who)
		e.Outcome = detectors.Success
		p.town.know(t.who)
		if !p.attacked[t.name] {
			delete(p.flagged, t.name)
		}
		p.defense.Proved(&e)
		return
	}
	if w, ok := p.defense.(witness); ok {
		w.witness(p.town, &t)
	}
	a := p.defense.Before(&e)
	switch {
	case a == Refuse || a == Deceive:
		e.Outcome = detectors.Refused
	case t.right:
		e.Outcome, e.Unproven = detectors.Success, a == StepUp
		switch {
		case t.who >= 0 && !p.town.known(t.who):
			e.Account, e.AccountSince, e.Organization, e.Existence = p.town.account(t.who), t.at, p.town.organization(t.who), detectors.Exists
		case t.kind == own:
			e.Account, e.AccountSince = ownAccount(t.who), p.Start.Add(-2*time.Hour)
		}
	default:
		e.Outcome = detectors.Failure
	}
	b := p.defense.After(&e)
	final := a
	if !a.stops() && (b.stops() || b == Delay && a == Allow) {
		final = b
	}
	switch {
	case t.kind == attacking:
		if counted {
			p.countAttack(&t, a, final)
		}
	case t.kind == person:
		if t.right && !final.stops() {
			p.town.know(t.who)
		}
		p.follow(t, a, final, counted)
	}
}

// ownAccount is one of the attacker's, who is below zero.
func ownAccount(who int) detectors.Account {
	return detectors.Account("mine" + string(rune('a'-1-who)))
}

func (p *play) slice(at time.Time) *Slice {
	return &p.result.Attack.Slices[max(0, min(99, int(100*at.Sub(p.Start)/p.Scenario.end.Sub(p.Start))))]
}

func (p *play) countAttack(t *try, before, final Action) {
	r := &p.result.Attack
	if r.Attempts == 0 {
		p.firstAt = t.at
	}
	p.attacked[t.name] = true
	late := t.at.Sub(p.firstAt) >= 48*time.Hour
	if late {
		r.LateAttempts++
	}
	if before.stops() {
		if r.First == nil {
			n := r.Attempts
			r.First, r.FirstSeconds = &n, t.at.Sub(p.firstAt).Seconds()
		}
		r.Caught++
		if late {
			r.LateCaught++
		}
		p.slice(t.at).Caught++
		if t.who >= 0 {
			p.flagged[t.name] = true
		}
	} else {
		p.slice(t.at).Through++
		if t.who >= 0 {
			g := guess{t.who, int(t.at.Sub(p.firstAt) / (24 * time.Hour))}
			if p.guesses[g]++; len(p.owners) > 0 {
				r.EvaluatedPerDay = max(r.EvaluatedPerDay, p.guesses[g])
			}
		}
	}
	r.Attempts++
	if t.right && t.who >= 0 {
		r.Hits++
		if !before.stops() && !final.stops() {
			p.lost[t.who] = true
		}
	}
}

// follow counts what a person met, and what he does next.
func (p *play) follow(t try, before, final Action, counted bool) {
	r := &p.result.People
	if !t.right {
		if before.stops() && counted && t.name == p.town.name(t.who) {
			p.flagged[t.name] = true // until its person proves to be it
		}
		p.retry(t, before)
		return
	}
	if counted && t.begun.IsZero() {
		calm := len(p.alarms) == 0
		add := func(on bool, g *Group) {
			if on {
				g.add(final, t.weight)
			}
		}
		add(true, &r.All)
		add(calm, &r.Calm)
		add(!calm, &r.Alarm)
		add(t.device, &r.Device)
		add(t.device && !calm, &r.DeviceAlarm)
		add(t.abroad, &r.Abroad)
		add(t.abroad && !calm, &r.AbroadAlarm)
		add(t.carrier, &r.Carrier)
		add(t.crowd, &r.Crowd)
		if p.grounded != nil {
			p.result.Matches.add(p.grounded.Grounds(), t.weight)
		}
		s := p.slice(t.at)
		s.Good += t.weight
		if final.stops() {
			s.Bothered += t.weight
			p.flagged[t.name] = true
		} else if !p.attacked[t.name] {
			delete(p.flagged, t.name)
		}
		if p.owners[t.who] && t.device && final != Allow {
			p.result.Attack.OwnerDelayed++
		}
	}
	switch {
	case final == StepUp:
		if p.r.Float64() < 0.97 { // Google 2019: 52 in 100 fail at first, 97 get in soon after
			t.kind = proving
			wait := 40 * time.Second
			if p.r.Float64() < 0.52 {
				wait = 4 * time.Minute
			}
			p.later(t, wait)
		} else if counted {
			r.Never++
		}
	case final.stops():
		if t.begun.IsZero() {
			t.begun = t.at
		}
		if t.again++; t.again < 30 {
			p.later(t, time.Minute)
		}
		if counted {
			r.LockedMinutes = max(r.LockedMinutes, t.at.Sub(t.begun).Minutes()+1)
		}
	}
}

// retry is what follows a wrong password.
func (p *play) retry(t try, before Action) {
	wait := time.Duration((3 + 10*p.r.Float64()) * float64(time.Second))
	if before.stops() {
		wait += 90 * time.Second // for a code that does not come
	}
	t.again++
	switch {
	case t.why == last || t.again > 6 && t.why != stale:
		return
	case t.why == stale:
		if t.again < 288 {
			p.later(t, 5*time.Minute)
			return
		}
	case t.why == noName:
		t.name = p.town.name(t.who)
	case t.why == typo && p.r.Float64() < 0.15:
		t.password = mistyped(p.r, p.town.password(t.who))
		p.later(t, wait)
		return
	case t.why == other && p.r.Float64() < 1.0/3:
		p.later(t, wait)
		return
	}
	t.password, t.right, t.why = p.town.password(t.who), true, 0
	p.later(t, wait)
}

// poll notes which alarms are on.
func (p *play) poll(now time.Time) {
	p.polled = now
	on := p.defense.Alarms(now)
	for _, stratum := range on {
		if _, was := p.alarms[stratum]; !was {
			p.alarms[stratum] = now
		}
	}
	for stratum, from := range p.alarms {
		if !slices.Contains(on, stratum) {
			p.alarmed(stratum, from, now)
			delete(p.alarms, stratum)
		}
	}
}

const alarmsMax = 10_000

func (p *play) alarmed(stratum string, from, to time.Time) {
	if !to.Before(p.Start) && len(p.result.Alarms) < alarmsMax {
		p.result.Alarms = append(p.result.Alarms, AlarmResult{stratum, from, to})
	}
}

func (p *play) end() Result {
	for stratum, from := range p.alarms {
		p.alarmed(stratum, from, p.Scenario.end)
	}
	slices.SortFunc(p.result.Alarms, func(a, b AlarmResult) int { return a.From.Compare(b.From) })
	p.result.Attack.Lost = len(p.lost)
	for name := range p.flagged {
		p.result.Attack.Flagged++
		if p.attacked[name] {
			p.result.Attack.FlaggedAttacked++
		}
	}
	p.result.Events = int(p.events)
	return p.result
}
