// Package replay runs recorded events through the detectors and two sets of rules,
// OLD and NEW, and says what would differ: so that nobody learns on a live gate what a
// rule does.
//
// What runs is the code that runs live, in the time of the events: [detectors.Default]
// assesses and observes each event once, for both sets, and each set evaluates and
// counts it at the stages at which the gate would ask it. Events are replayed as they
// happened. What a rule would have decided changes none of those that follow, so a
// rule that refuses is seen to hit longer than an attacker might have gone on.
//
// What cannot be done about an event falls back as the rule declares, as it would live, as
// far as the event and a preset tell what can.
//
// Hits are counted whatever the mode of a rule. Where it is asked how log-ins would be
// answered, rules that differ from OLD are taken to be enforced and all others act as
// their mode says: the answer is what enforcing the change would mean.
//
// Detectors and counters begin empty. What happens before Config.From is learned and
// not counted; facts that a journal carries (histories of accounts, how popular a
// password is) are believed where the replay knows less.
//
// Memory does not grow with the events. Whom hits are about is counted exactly up to
// 1,024 of a kind, and estimated beyond; up to 2,048 are watched for whether they prove
// benign, see [Estimate]. Each rule that differs takes up to 400 KiB for that, three
// times; and the last standingMax lasting decisions are remembered for each set.
package replay

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Config says what is replayed.
type Config struct {
	Source Source
	// Old is compared with New. The sets are not changed.
	Old, New *rules.Set
	// Backend is the preset of the service, which says where nobody can be deceived; nil:
	// everywhere one can. See [policies.MeansOf].
	Backend *policies.Backend
	// Learning is for how long from the first event on all accounts are believed, as a
	// new gate does; 0: the events tell since when accounts are known.
	Learning time.Duration
	// From and To bound what is counted, by the time of the event: not before From, and
	// before To. Zero: no bound.
	From, To time.Time
	// Examples is how many of the hits that were gained and lost are kept, each.
	Examples int
	// Progress is told now and then how many events were replayed; nil: nobody is.
	Progress func(events uint64)
}

const (
	batchSize = 256
	batches   = 8
)

// batch is events on their way: read, then assessed, then judged by rules.
type batch struct {
	recorded []Recorded
	before   [][]detectors.Signal // before the event was observed, where it has a Known
	after    [][]detectors.Signal // after it
}

// Run replays everything that the source has. It returns early with ctx, or with the
// error of the source. It runs on three cores, if there are so many: reading,
// detectors, rules.
func Run(ctx context.Context, c Config) (*Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	free, read, assessed := make(chan *batch, batches), make(chan *batch, batches), make(chan *batch, batches)
	for range batches {
		free <- &batch{recorded: make([]Recorded, 0, batchSize), before: make([][]detectors.Signal, batchSize), after: make([][]detectors.Signal, batchSize)}
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel(nil)
	workers.Go(func() {
		defer close(read)
		if err := fill(ctx, c.Source, free, read); err != nil {
			cancel(err)
		}
	})
	workers.Go(func() {
		defer close(assessed)
		assess(ctx, c.Learning, read, assessed)
	})
	j := newJudge(c)
	for b := range assessed {
		for i := range b.recorded {
			j.judge(&b.recorded[i], b.before[i], b.after[i])
		}
		if c.Progress != nil {
			c.Progress(j.events)
		}
		b.recorded = b.recorded[:0]
		free <- b // as many as there are have room
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return j.report(c.Source.Counts()), nil
}

// fill reads events into batches.
func fill(ctx context.Context, s Source, free <-chan *batch, read chan<- *batch) error {
	var b *batch
	n := uint64(0)
	send := func() error {
		select {
		case read <- b:
			b = nil
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := s.Read(ctx, func(r *Recorded) error {
		if b == nil {
			select {
			case b = <-free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		n++
		complete(r, n)
		b.recorded = append(b.recorded, *r)
		if len(b.recorded) < batchSize {
			return nil
		}
		return send()
	})
	if err == nil && b != nil {
		err = send()
	}
	return err
}

// complete fills in what a stream would have.
func complete(r *Recorded, n uint64) {
	for _, e := range [...]*detectors.Event{&r.Event, &r.Known} {
		if e.Kind == "" {
			if e == &r.Known {
				continue
			}
			e.Kind = detectors.Login
		}
		if e.Key == (detectors.EventKey{}) {
			e.Key = detectors.EventKey{Node: "replay", Incarnation: 1, Sequence: n}
		}
		if e.Fingerprint == "" {
			e.Fingerprint = e.Client.Fingerprint()
		}
		e.Source.Network = networkOf(e.Source)
		if e.StreamTime.IsZero() {
			e.StreamTime = e.Time
		}
	}
}

// assess lets the detectors say what they have to say, and learn.
func assess(ctx context.Context, learning time.Duration, read <-chan *batch, assessed chan<- *batch) {
	var set *detectors.Set
	for b := range read {
		for i := range b.recorded {
			r := &b.recorded[i]
			if set == nil {
				until := time.Time{}
				if learning > 0 {
					until = r.Event.Time.Add(learning)
				}
				set = detectors.Default(until)
			}
			b.before[i], b.after[i] = nil, nil
			if r.Known.Kind != "" {
				was := r.Known
				r.Known = set.Facts(r.Known)
				believe(&r.Known, &was)
				b.before[i] = set.Assess(r.Known)
			}
			was := r.Event
			r.Event = set.Facts(r.Event)
			believe(&r.Event, &was)
			set.Observe(r.Event)
			if _, ok := askedAfter(&r.Event); ok {
				b.after[i] = set.Assess(r.Event)
			}
		}
		select {
		case assessed <- b:
		case <-ctx.Done():
			return
		}
	}
}

// believe takes over facts that were recorded where the detectors know less.
func believe(e, recorded *detectors.Event) {
	h, was := &e.History, &recorded.History
	if e.Act == detectors.Begun && *was != (detectors.History{}) {
		*h = *was // as of before the log-in, which is known by now
	}
	h.Logins, h.Capacity = max(h.Logins, was.Logins), max(h.Capacity, was.Capacity)
	h.Network, h.Operator, h.Client = h.Network || was.Network, h.Operator || was.Operator, h.Client || was.Client
	p, had := &e.Password, &recorded.Password
	p.Repeat, p.Typo, p.Popularity = p.Repeat || had.Repeat, p.Typo || had.Typo, max(p.Popularity, had.Popularity)
}

// stageBefore are the stages about what is not counted yet, and stageAfter those about
// what happened and was counted.
var (
	stageBefore = map[detectors.Kind]rules.Stage{
		detectors.Login: rules.LoginBefore, detectors.Request: rules.Request, detectors.Message: rules.Message,
	}
	stageAfter = map[detectors.Kind]rules.Stage{
		detectors.Login: rules.LoginAfter, detectors.Door: rules.LoginAfter, detectors.Factor: rules.Factor,
		detectors.Session: rules.Session, detectors.Operator: rules.Request,
	}
)

// askedAfter is the stage at which the gate asks rules about e when it happened. Of a
// log-in that it refused itself it asks nothing then.
func askedAfter(e *detectors.Event) (rules.Stage, bool) {
	if e.Kind == detectors.Login && e.Outcome == detectors.Refused {
		return "", false
	}
	stage, ok := stageAfter[e.Kind]
	return stage, ok
}

// answered reports whether what rules say of e, when it happened, is answered to anybody.
func answered(e *detectors.Event) bool {
	switch e.Kind {
	case detectors.Login, detectors.Door:
		return e.Outcome == detectors.Success
	case detectors.Operator:
		return false
	}
	return e.Act != detectors.Ended
}

// judge evaluates both sets.
type judge struct {
	Config
	old, changed *rules.Set // all of OLD; of NEW what differs
	tallies      []*tally
	byID         map[rules.ID]*tally
	touched      []*tally // hit by the event at hand
	then, now    answers  // by OLD, and by NEW

	events, counted, summed   uint64
	first, last               time.Time // of what was counted
	bins                      bins
	matrix                    [rules.Deceive + 1][rules.Deceive + 1]uint64
	stricter, milder          group
	gainedAny, lostAny        group
	gainedExamples, lostOnes  []Example
	foundOld, foundNew, found []rules.Finding
}

func newJudge(c Config) *judge {
	j := &judge{Config: c, tallies: compare(c.Old, c.New), byID: make(map[rules.ID]*tally)}
	for _, t := range j.tallies {
		j.byID[t.id] = t
	}
	j.old = c.Old.Fresh()
	j.changed = c.New.Only(func(r rules.Rule) bool { return j.byID[r.ID].change != Same })
	return j
}

// judge asks both sets about a recorded event, at its stages, and counts.
func (j *judge) judge(r *Recorded, before, after []detectors.Signal) {
	j.events++
	e := &r.Event
	counted := (j.From.IsZero() || !e.Time.Before(j.From)) && (j.To.IsZero() || e.Time.Before(j.To))
	j.foundOld, j.foundNew, j.touched = j.foundOld[:0], j.foundNew[:0], j.touched[:0]
	was, is := rules.Allow, rules.Allow
	if stage, ok := stageBefore[r.Known.Kind]; ok {
		was, is = j.ask(stage, &r.Known, before)
	}
	j.old.Observe(*e)
	j.changed.Observe(*e)
	if stage, ok := askedAfter(e); ok {
		wasAfter, isAfter := j.ask(stage, e, after)
		if answered(e) {
			was, is = max(was, wasAfter), max(is, isAfter)
		}
	}
	if p, ok := proofOf(e, after); ok {
		j.prove(&p, e.Time)
	}
	if counted {
		j.matrix[was][is]++
		j.count(r, was, is)
	}
	for _, t := range j.touched {
		t.wasHit, t.isHit, t.wasInstead, t.isInstead = false, false, false, false
	}
}

// ask evaluates a stage, and returns how OLD and NEW would answer.
func (j *judge) ask(stage rules.Stage, e *detectors.Event, signals []detectors.Signal) (was, is rules.Action) {
	var old, changed []rules.Finding
	if j.old.Asks(stage) {
		old = j.old.Evaluate(stage, *e, signals)
	}
	if j.changed.Asks(stage) {
		changed = j.changed.Evaluate(stage, *e, signals)
	}
	j.feasible(stage, e, signals, old, func(t *tally) { t.wasInstead = true })
	j.feasible(stage, e, signals, changed, func(t *tally) { t.isInstead = true })
	j.foundOld = append(j.foundOld, old...)
	j.foundNew = append(j.foundNew, changed...)
	j.found = j.found[:0]
	for i := range old {
		t := j.byID[old[i].Rule]
		t.wasHit = true
		j.touched = append(j.touched, t)
		if t.change == Same {
			t.isHit, t.isInstead = true, t.wasInstead
			j.found = append(j.found, old[i])
		}
	}
	for i := range changed {
		t := j.byID[changed[i].Rule]
		t.isHit = true
		j.touched = append(j.touched, t)
		changed[i].Mode = rules.Enforce
		for k := range changed[i].Then { // a copy of the rule's
			changed[i].Then[k].Mode = rules.Enforce
		}
		j.found = append(j.found, changed[i])
	}
	j.then.register(old, e)
	j.now.register(j.found, e)
	return j.then.to(stage, old, e, signals), j.now.to(stage, j.found, e, signals)
}

// feasible puts what rules declare for the case in the place of what cannot be done, and
// tells of which rules.
func (j *judge) feasible(stage rules.Stage, e *detectors.Event, signals []detectors.Signal, found []rules.Finding, told func(*tally)) {
	if len(found) == 0 {
		return
	}
	can := policies.MeansOf(stage, e, j.Backend)
	for i := range found {
		found[i] = can.Feasible(found[i], signals, func(_, _ rules.Action) { told(j.byID[found[i].Rule]) })
	}
}

// prove notes whom an event proves to be a person.
func (j *judge) prove(p *proof, now time.Time) {
	others := 0 // rules of OLD that hit it
	var only rules.ID
	for i := range j.foundOld {
		if j.foundOld[i].Rule != only || others == 0 {
			others++
			only = j.foundOld[i].Rule
		}
	}
	for _, t := range j.tallies {
		if t.change == Same {
			break // they are last
		}
		clean := others == 0 || others == 1 && only == t.id
		p.in(&t.byNew.who, now, clean)
		p.in(&t.gained.who, now, clean)
		p.in(&t.lost.who, now, clean)
	}
	for _, g := range [...]*group{&j.gainedAny, &j.lostAny, &j.stricter, &j.milder} {
		p.in(&g.who, now, others == 0)
	}
}

// count takes an event into the figures.
func (j *judge) count(r *Recorded, was, is rules.Action) {
	e := &r.Event
	j.counted++
	if r.Summed {
		j.summed++
	}
	if j.first.IsZero() || e.Time.Before(j.first) {
		j.first = e.Time
	}
	if e.Time.After(j.last) {
		j.last = e.Time
	}
	bin := j.bins.at(e.Time)
	bin.Events++
	if is == was && len(j.touched) == 0 {
		return
	}
	who := whoOf(e)
	var old, new, any, anyNew bool // a rule that differs hit it; any rule did
	for _, t := range j.touched {
		any, anyNew = any || t.wasHit, anyNew || t.isHit
		if t.change == Same || !t.wasHit && !t.isHit {
			continue
		}
		old, new = old || t.wasHit, new || t.isHit
	}
	for i, t := range j.touched {
		if slices.Contains(j.touched[:i], t) {
			continue
		}
		if t.wasHit {
			t.oldHits++
		}
		if t.isHit {
			t.newHits++
		}
		if t.wasInstead {
			t.oldInstead++
		}
		if t.isInstead {
			t.newInstead++
		}
		if t.change == Same {
			continue
		}
		if t.isHit {
			t.byNew.add(e, who, r.Summed)
		}
		switch {
		case t.isHit && !t.wasHit:
			t.gained.add(e, who, r.Summed)
		case t.wasHit && !t.isHit:
			t.lost.add(e, who, r.Summed)
		}
	}
	if old {
		bin.Old++
	}
	if new {
		bin.New++
	}
	switch {
	case anyNew && !any:
		j.gainedAny.add(e, who, r.Summed)
		j.gainedExamples = j.example(j.gainedExamples, r, j.foundNew)
	case any && !anyNew:
		j.lostAny.add(e, who, r.Summed)
		j.lostOnes = j.example(j.lostOnes, r, j.foundOld)
	}
	switch {
	case is > was:
		j.stricter.add(e, who, r.Summed)
	case is < was:
		j.milder.add(e, who, r.Summed)
	}
}
