package guard

import (
	"net/http"
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/attempt"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// counted is a request for what sends mail, makes accounts, changes who owns one, or
// hands out tokens, on its way.
type counted struct {
	class     detectors.RouteClass
	buckets   *routeBuckets
	form      policies.RequestForm
	asks      bool // for a mail
	targets   []target
	device    detectors.Device
	ambiguous bool
	size      int64
}

// routeBuckets are what the requests of a class draw from; a bucket without a burst
// does not limit.
type routeBuckets struct {
	target, network, device, account, organization limits.Bucket
}

// routesOf are the buckets of each class that the policy limits.
func routesOf(p policies.RoutePolicy) map[detectors.RouteClass]*routeBuckets {
	all := make(map[detectors.RouteClass]*routeBuckets)
	for _, class := range policies.CountedClasses() {
		bucket := func(name string, a policies.Allowance) limits.Bucket {
			return limits.Bucket{Name: string(class) + "." + name, Every: a.Every, Burst: a.Burst}
		}
		a := p.Of(class)
		all[class] = &routeBuckets{
			target: bucket("target", a.Target), network: bucket("network", a.Network), device: bucket("device", a.Device),
			account: bucket("account", a.Account), organization: bucket("organization", a.Organization),
		}
	}
	return all
}

// counts returns what is counted of the visit; nil: nothing.
func (v *visit) counts() *counted {
	g := v.guard
	class := v.class
	if class == detectors.Other && v.method == v.r.Method {
		return nil
	}
	buckets := g.routes[class]
	if buckets == nil && v.method != v.r.Method {
		class = g.backend.Class(v.r.Method, v.path) // a backend may not follow the override
		buckets = g.routes[class]
	}
	if buckets == nil {
		return nil
	}
	q := &counted{class: class, buckets: buckets}
	q.form, q.asks = g.backend.Request(class, v.path)
	if v.safe() && !(q.asks && q.reader(g).InQuery(v.r)) {
		return nil // a page
	}
	return q
}

// reader reads the targets.
func (q *counted) reader(g *Guard) attempt.Reader {
	return attempt.Reader{NameFields: slices.Concat(q.form.Target.Form, q.form.Target.JSON), MaxBody: g.reader.MaxBody}
}

// serveCounted limits such a request. done is false if it is to go on as any other,
// which is what it does in observe mode.
//
// Who asks draws from buckets of his own first, and hears when they are empty: they
// say nothing about anybody else. The targets come then. Where answers are uniform
// nobody hears that theirs are empty: it would tell that others asked.
func (g *Guard) serveCounted(w http.ResponseWriter, v *visit) (done bool, err error) {
	q := v.counts()
	if q == nil {
		return false, nil
	}
	began := time.Now()
	if q.asks && (q.form.Uniform || q.buckets.target.Burst > 0) {
		if refusal := v.readTargets(q); refusal != nil {
			return true, refusal.write(w, v.r)
		}
	}
	v.meetTargets(q)
	uniform := q.asks && q.form.Uniform && len(q.targets) > 0 && !g.modes.limits
	if x := v.ruled(q, uniform); x.Action == rules.Refuse && uniform {
		v.refuse(countedRules, x)
		return true, g.serveUniform(w, v, q, began, false)
	} else if done, err := g.obey(w, v, x); done {
		return true, err
	}
	if refusal := v.charge(q, v.ownCharges(q), false); refusal != nil {
		return true, refusal.write(w, v.r)
	}
	refusal := v.charge(q, v.targetCharges(q), uniform)
	if refusal == nil {
		for _, e := range v.requestEvents(q, detectors.Unknown) {
			g.publish(e)
		}
	}
	switch {
	case uniform:
		return true, g.serveUniform(w, v, q, began, refusal == nil)
	case refusal != nil:
		return true, refusal.write(w, v.r)
	}
	return false, nil
}

// meetTargets looks up whom the targets are and whether their device is the one that
// asks. Every target costs the same look-ups, known or not. Without a database nobody
// is known, and the limits hold all the same.
func (v *visit) meetTargets(q *counted) {
	g := v.guard
	for i := range q.targets {
		t := &q.targets[i]
		account, since, _, err := g.Directory.ByTyped(v.r.Context(), t.name.Digest, t.old...)
		if err != nil {
			g.complain("directory", "error", err)
			continue
		}
		t.account, t.since = account, since
	}
	subject := ""
	if len(q.targets) == 1 {
		subject = q.targets[0].account // a device vouches for one account at a time
	} else if v.session != nil {
		subject = v.session.Subject
	}
	var err error
	if q.device, err = v.device(subject); err != nil {
		g.complain("devices", "error", err)
	}
}

// vouched reports whether the device that asks is one that the target's account knows.
func (q *counted) vouched() bool {
	return len(q.targets) == 1 && q.device.Known() && q.buckets.device.Burst > 0
}

// ownCharges are what whoever asks draws from.
func (v *visit) ownCharges(q *counted) (charges []limits.AttemptCharge) {
	g, b := v.guard, q.buckets
	add := func(bucket *limits.Bucket, label, text string) {
		if bucket.Burst > 0 && text != "" {
			charges = append(charges, limits.AttemptCharge{Bucket: bucket, Key: g.Digest(label, text), N: max(len(q.targets), 1)})
		}
	}
	if !q.vouched() {
		add(&b.network, "network", v.source.Network.String())
	}
	add(&b.device, "device", q.device.ID)
	if s := v.session; s != nil {
		add(&b.account, "account", s.Subject)
		add(&b.organization, "organization", s.Organization)
	}
	return charges
}

// targetCharges are what those draw from who would be written to. The owner's own
// device has drawn from its own.
func (v *visit) targetCharges(q *counted) (charges []limits.AttemptCharge) {
	if q.vouched() || q.buckets.target.Burst == 0 {
		return nil
	}
	for _, t := range q.targets {
		charges = append(charges, limits.AttemptCharge{Bucket: &q.buckets.target, Key: t.mailbox, N: 1})
	}
	return charges
}

// charge takes charges, and counts and tells of a refusal. One that is silent has no
// words: the client gets the uniform answer.
func (v *visit) charge(q *counted, charges []limits.AttemptCharge, silent bool) *refusal {
	g := v.guard
	_, d := g.Attempts.Take(v.r.Context(), v.now, charges)
	if d.Allowed {
		return nil
	}
	verdict := policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: v.now.Add(d.RetryAfter)}
	refusal := v.conclude(ControlLimits, verdict, g.modes.limits)
	if refusal == nil {
		return nil
	}
	if silent {
		g.Log.Debug("the client is not told of the refusal", "reference", refusal.reference, "bucket", d.Bucket.Name)
	}
	for _, e := range v.requestEvents(q, detectors.Refused) {
		e.Reason = string(policies.ReasonLimit)
		g.publish(e)
	}
	return refusal
}

// ruled asks the rules of stage request about each of q's events, and returns what they
// answer to all of it. Where answers are uniform nobody hears of a refusal either, and to
// deceive is just that.
func (v *visit) ruled(q *counted, uniform bool) (x policies.Verdict) {
	g := v.guard
	if !g.Rules.Load().Asks(rules.Request) {
		return policies.Verdict{}
	}
	m := means{refuse: true, stepUp: v.canProve, deceive: func() bool { return uniform }}
	for _, e := range v.requestEvents(q, detectors.Unknown) {
		x = x.Stricter(v.foreseen(rules.Request, e, m))
	}
	if x.Action == rules.Deceive {
		x.Action = rules.Refuse
	}
	if x.Action == rules.StepUp && v.fresh(v.session) {
		return policies.Verdict{} // given already, and lately
	}
	if x.Action >= rules.StepUp {
		for _, e := range v.requestEvents(q, detectors.Refused) {
			e.Reason = string(x.Reason)
			g.publish(e)
		}
	}
	return x
}

// requestEvents are what happened, once for each target, or once where there is none.
func (v *visit) requestEvents(q *counted, outcome detectors.Outcome) []detectors.Event {
	e := detectors.Event{
		Time: v.now, Kind: detectors.Request, Source: v.source, Device: q.device, Client: v.client(), Route: q.class,
		Outcome: outcome, Ambiguous: v.ambiguous || q.ambiguous, Size: q.size,
	}
	e.Fingerprint = e.Client.Fingerprint()
	if s := v.session; s != nil {
		e.Account, e.Organization, e.Session = detectors.Account(s.Subject), detectors.Organization(s.Organization), s.ID
		v.guard.place(&e, v.guard.zoneOf(v.r.Context(), e.Account))
	}
	if len(q.targets) == 0 {
		return []detectors.Event{e}
	}
	all := make([]detectors.Event, len(q.targets))
	for i, t := range q.targets {
		all[i] = e
		all[i].Name = t.name
		if v.session == nil {
			all[i].Account, all[i].AccountSince = detectors.Account(t.account), t.since
		}
	}
	return all
}
