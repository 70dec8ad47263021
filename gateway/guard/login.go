package guard

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/attempt"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// login is one login request on its way.
type login struct {
	attempt attempt.Attempt
	names   []typed
	device  detectors.Device
	client  detectors.Client
	ticket  limits.Ticket
	told    bool // its outcome was published
	began   time.Time
	judged  bool // a verdict before the backend was counted, if only observed

	nameless bool // it succeeded, and the backend could not say whose it is
}

// typed is one name that the request could be read to carry.
type typed struct {
	name     detectors.Name
	account  string                  // the subject behind it, as far as the directory knows
	since    time.Time               // when the gate first saw that account
	old      [][16]byte              // digests of the name by earlier keys
	password detectors.PasswordFacts // of the first password that came with it
	repeated bool                    // that was wrong for this name before
}

// countedLogin is how the ledger names decisions about log-ins, apart from those
// about other requests.
const countedLogin Control = "login"

// loginTimeout bounds how long the gate waits for the backend's answer to a login
// once the client has gone: who hangs up does not hide the outcome.
const loginTimeout = 60 * time.Second

// serveLogin counts an attempt, decides whether the backend may see it, and
// judges the backend's answer before the client gets it.
func (g *Guard) serveLogin(w http.ResponseWriter, v *visit) error {
	r, began := v.r, time.Now()
	at, err := g.reader.Read(r)
	if err != nil {
		if refusal := v.unreadable(ControlAttempts, g.modes.attempts, err); refusal != nil {
			return refusal.write(w, r)
		}
	}
	l := &login{attempt: at, began: began}
	v.login = l
	if refusal := v.meet(); refusal != nil {
		return refusal.write(w, r)
	}
	verdict, observed := v.before()
	if verdict.Action == rules.StepUp && !observed && v.canHold() {
		v.count(countedLogin, verdict, false, l.device.Known())
		g.touched(verdict, v.event(l.names[0], detectors.Unknown))
		v.because = verdict
		v.stepUp, verdict = true, policies.Verdict{} // a factor is asked for once the backend was, whatever it says
		if refusal := v.crowded(); refusal != nil {
			return refusal.write(w, r)
		}
	}
	if verdict.Action != rules.Allow {
		l.judged = true
		refusal := v.concludeLogin(verdict, observed, v.event(l.names[0], detectors.Refused))
		if refusal != nil {
			l.told = true
			for _, n := range l.names {
				e := v.event(n, detectors.Refused)
				e.Reason = string(verdict.Reason)
				g.publish(e)
			}
			if refusal.deceives(r) {
				v.settle()
			}
			return refusal.write(w, r)
		}
	}
	if done, err := g.retry(w, v); done {
		return err
	}
	return g.tryLogin(w, v)
}

// unreadable answers a body that could not be read. In observe mode the backend gets
// to see it as it is.
func (v *visit) unreadable(c Control, observed bool, err error) *refusal {
	verdict := policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonAmbiguous}
	status := http.StatusBadRequest
	switch {
	case errors.Is(err, attempt.ErrTooLarge):
		verdict.Reason, status = policies.ReasonTooLarge, http.StatusRequestEntityTooLarge
	case errors.Is(err, attempt.ErrEncoding):
		verdict.Reason, status = policies.ReasonUnsupportedEncoding, http.StatusUnsupportedMediaType
	case errors.Is(err, attempt.ErrTooMany):
	default:
		v.guard.Log.Debug("reading a body", "error", err)
	}
	refusal := v.conclude(c, verdict, observed)
	if refusal != nil {
		refusal.status = status
	}
	return refusal
}

// meet looks up who the attempt speaks of. Every name costs the same look-ups,
// known or not.
func (v *visit) meet() *refusal {
	g, l := v.guard, v.login
	l.client = v.client()
	seen := make(map[detectors.Digest]bool, len(l.attempt.Pairs))
	for _, p := range l.attempt.Pairs {
		all := g.nameDigests(p.Name)
		digest := detectors.Digest(all[0])
		if seen[digest] {
			continue
		}
		seen[digest] = true
		account, since, _, err := g.Directory.ByTyped(v.r.Context(), digest, all[1:]...)
		if err != nil {
			g.complain("directory", "error", err)
			if v.guards() {
				return v.refuse(ControlSessions, unavailable)
			}
		}
		l.names = append(l.names, typed{name: detectors.Name{Digest: digest}, account: account, since: since, old: all[1:], password: g.passwordFacts(v.r.Context(), p.Password)})
	}
	if len(l.names) == 0 {
		l.names = []typed{{}}
	}
	subject := ""
	if len(l.names) == 1 {
		subject = l.names[0].account // a device vouches for one account at a time
	}
	var err error
	if l.device, err = v.device(subject); err != nil {
		g.complain("devices", "error", err)
		if v.guards() {
			return v.refuse(ControlSessions, unavailable)
		}
	}
	v.ambiguous = v.ambiguous || l.attempt.Ambiguous
	return nil
}

func (v *visit) device(subject string) (detectors.Device, error) {
	view, err := v.guard.Devices.Read(v.r.Context(), v.crumbs.device, subject, v.now)
	if err != nil {
		return detectors.Device{}, err
	}
	return detectors.Device{ID: view.ID, State: detectors.DeviceState(view.State)}, nil
}

// nameDigest is the keyed hash of a name's canonical form.
func (g *Guard) nameDigest(name string) detectors.Digest {
	return g.Digest("name", auth.CanonicalName(name))
}

// nameDigests are the hashes of a name under all keys, the current one first: a
// name that was learned before a rotation is found under the key of then.
func (g *Guard) nameDigests(name string) [][16]byte {
	return g.Digests("name", auth.CanonicalName(name))
}

// event is what happened to one typed name.
func (v *visit) event(n typed, outcome detectors.Outcome) detectors.Event {
	e := detectors.Event{
		Time: v.now, Kind: detectors.Login, Name: n.name, Account: detectors.Account(n.account), AccountSince: n.since,
		Source: v.source, Device: v.login.device, Client: v.login.client, Fingerprint: v.login.client.Fingerprint(), Route: v.class,
		Outcome: outcome, Password: n.password, Ambiguous: v.ambiguous, Size: v.login.attempt.Size,
	}
	if n.account != "" {
		e.Existence = detectors.Exists
	}
	return e
}

// publish tells of a login with what detectors know of it now: who reads it later
// gets to know the same.
func (c *Core) publish(e detectors.Event) detectors.Event {
	return c.Stream.Publish(c.facts(e))
}

// before decides whether the backend may evaluate the attempt. observed is true
// when the strictest verdict comes from what only observes.
func (v *visit) before() (verdict policies.Verdict, observed bool) {
	g, l := v.guard, v.login
	var enforced, shadow policies.Verdict
	add := func(x policies.Verdict, observe bool) {
		if observe {
			shadow = shadow.Stricter(x)
		} else {
			enforced = enforced.Stricter(x)
		}
	}
	if !v.source.Address.IsValid() {
		add(policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonSourceUnknown}, g.modes.decisions)
	}
	for i, n := range l.names {
		e := g.facts(v.event(n, detectors.Unknown))
		l.names[i].repeated = e.Password.Repeat
		signals := g.Detectors.Assess(e)
		found := g.evaluate(rules.LoginBefore, e, signals, v.loginMeans())
		v.register(found, e)
		answer, would := v.answersOf(found, signals)
		add(answer, g.modes.decisions)
		add(would, true)
		add(v.match(n.account))
		x, observe := v.matchShadow(n.account)
		add(x, observe)
	}
	if enforced.Action < rules.StepUp || enforced.Action == rules.StepUp && v.canHold() {
		// What is refused anyway costs nobody's bucket: an attack under a decision
		// must not use up the tries of the names in its list.
		ticket, d := g.Attempts.Take(v.r.Context(), v.now, v.charges(enforced.Action == rules.StepUp))
		l.ticket = ticket
		if !d.Allowed {
			add(policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: v.now.Add(d.RetryAfter)}, g.modes.attempts)
		}
	}
	if enforced.Action != rules.Allow {
		return enforced, false
	}
	return shadow, true
}

// answersOf is what rules answer to the attempt that they found something of, and to
// nothing after it: what counts, and what only would.
func (v *visit) answersOf(found []rules.Finding, signals []detectors.Signal) (enforced, shadow policies.Verdict) {
	enforced, shadow = policies.AnswerOf(found, signals)
	for _, x := range []*policies.Verdict{&enforced, &shadow} {
		if x.Action == rules.Delay {
			x.Delay = v.guard.delay
		}
	}
	return enforced, shadow
}

// loginSubject is what decisions may be about at a login as account.
func (v *visit) loginSubject(account string, device detectors.Device) policies.Subject {
	return policies.Subject{
		Address: v.source.Address, ASN: v.source.ASN, Country: v.source.Country, Fingerprint: v.fingerprint(),
		Account: account, Device: device.ID, OwnDevice: device.Known(),
	}
}

// fingerprint names the client program that logs in.
func (v *visit) fingerprint() string {
	if v.login == nil {
		return v.client().Fingerprint()
	}
	return v.login.client.Fingerprint()
}

func (v *visit) match(account string) (policies.Verdict, bool) {
	enforced, _ := v.guard.match(v.loginSubject(account, v.login.device), v.now)
	return v.verdictOf(enforced), v.guard.modes.decisions
}

func (v *visit) matchShadow(account string) (policies.Verdict, bool) {
	_, shadow := v.guard.match(v.loginSubject(account, v.login.device), v.now)
	return v.verdictOf(shadow), true
}

// verdictOf is what a live decision says of a login. The zero decision allows.
func (v *visit) verdictOf(d policies.Decision) policies.Verdict {
	if d.ID == "" || d.Action == rules.Allow {
		return policies.Verdict{}
	}
	x := policies.Verdict{Action: d.Action, Reason: policies.ReasonDecision, Rule: d.Rule, Decision: d.ID, Until: d.Until}
	if d.Action == rules.Delay {
		x.Delay = v.guard.delay
	}
	return x
}

// charges lists the buckets that the attempt draws from. A device that the
// account knows draws from its own bucket, so that neither its neighbours nor a
// stranger guessing at the account can use up its way in. A wrong password that was
// wrong before costs its name nothing: nobody gains by it, and a program that has an
// old one must not keep its owner out. Where a step-up hides whether it is right, it
// costs the same as a right one.
func (v *visit) charges(stepUp bool) []limits.AttemptCharge {
	g, l := v.guard, v.login
	if l.device.Known() {
		return []limits.AttemptCharge{{Bucket: &g.buckets.Device, Key: g.Digest("device", l.device.ID), N: 1}}
	}
	charges := make([]limits.AttemptCharge, 0, 1+len(l.names))
	charges = append(charges, limits.AttemptCharge{Bucket: &g.buckets.Network, Key: g.Digest("network", v.source.Network.String()), N: len(l.names)})
	for _, n := range l.names {
		if !n.repeated || stepUp {
			charges = append(charges, limits.AttemptCharge{Bucket: &g.buckets.Name, Key: n.name.Digest, N: 1})
		}
	}
	return charges
}

// register makes decisions of findings. A lasting thing that cannot be kept is
// logged; what was found still holds for this request, as the caller asks the
// decisions again.
func (v *visit) register(found []rules.Finding, e detectors.Event) {
	v.guard.carryOut(v.r.Context(), found, e, v.now)
}

// carryOut is register for what happens outside requests too.
func (c *Core) carryOut(ctx context.Context, found []rules.Finding, e detectors.Event, now time.Time) {
	ctx = context.WithoutCancel(ctx)
	for _, f := range found {
		for _, d := range policies.DecisionsOf(f, e) {
			r, err := c.Decisions.Register(ctx, d, now)
			var held *policies.HeldOffError
			if err != nil && !errors.As(err, &held) {
				c.complain("registering a decision", "rule", f.Rule, "error", err)
			}
			if r.Change == policies.Registered {
				c.tellNodes(topicDecisions)
				c.decided(ctx, r.Decision)
			}
		}
		for _, then := range f.Then {
			if cmp.Or(then.Mode, f.Mode) != rules.Enforce {
				continue
			}
			if then.Notify != nil {
				c.tell(ctx, f, *then.Notify, e, now)
			}
			if then.Tag != "" {
				c.tagged(f, then.Tag, e)
			}
		}
	}
}

// tryLogin lets the backend evaluate the attempt and judges its answer.
func (g *Guard) tryLogin(w http.ResponseWriter, v *visit) (err error) {
	if v.guards() {
		if refusal := v.authenticate(); refusal != nil {
			return refusal.write(w, v.r)
		}
		if refusal := v.assert(); refusal != nil {
			return refusal.write(w, v.r)
		}
		v.r.Header.Del("Accept-Encoding") // the answer must be readable
	}
	r := v.r
	if v.guards() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), loginTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		v.r = r
	}
	a := v.answerTo(w)
	if v.guards() {
		a.hold = maxInspected
	} else {
		a.tee = maxInspected
	}
	defer func() {
		err = a.finish(recover(), err)
		switch {
		case v.login.told:
		case v.guards() || a.status == 0 || a.status == 499:
			v.tell(detectors.Unknown) // nothing came back, or the handler panicked
		default:
			v.observe(a)
		}
		a.abort()
	}()
	return v.next(a, r)
}

// answerOf is what a preset's conditions look at.
func answerOf(a *answer) policies.Answer {
	return policies.Answer{Status: a.status, Header: a.w.Header(), Body: a.body.Bytes(), Truncated: a.cut}
}

// judgeLogin judges the backend's answer to a login attempt.
func (v *visit) judgeLogin(a *answer) *refusal {
	if !v.guards() {
		return nil // told afterwards, see observe
	}
	g := v.guard
	if a.status == 499 {
		return nil
	}
	outcome, fit := g.backend.Judge(answerOf(a))
	defer func() { v.fits(policies.LoginAnswer{Status: a.status, Fit: fit, Unidentified: v.login.nameless}) }()
	var fresh []presented
	for _, gr := range g.grants(a.w.Header(), v.now) {
		if !gr.deletes {
			fresh = append(fresh, presented{credential: gr.credential, value: gr.value})
		}
	}
	fresh = append(fresh, g.minted(v.class, a)...)
	kept := len(fresh) == 0
	if kept {
		fresh = append(append(fresh, v.open...), v.approved...) // the cookie that it came with
	}
	if len(fresh) > 0 && (outcome == detectors.Success || !kept || len(v.open) > 0) {
		id, err := v.identify(fresh)
		switch {
		case err == nil && kept && v.session != nil && v.session.Subject == id.Subject && outcome != detectors.Success:
			// Who is already logged in mistyped somebody's password; nothing changed.
		case err == nil:
			return v.accepted(a, id, fresh, outcome)
		case errors.Is(err, policies.ErrAnonymous):
			if outcome == detectors.Success {
				return v.unidentified(fresh, err)
			}
		default:
			return v.unidentified(fresh, err)
		}
	} else if outcome == detectors.Success {
		return v.unidentified(nil, errors.New("the answer holds no credential that the preset names"))
	}
	v.tell(outcome)
	if v.stepUp && outcome == detectors.Failure {
		return v.decoy()
	}
	for _, line := range v.cookies {
		a.w.Header().Add("Set-Cookie", line)
	}
	return nil
}

// accepted completes a login that the backend accepted.
func (v *visit) accepted(a *answer, id policies.Identity, fresh []presented, outcome detectors.Outcome) *refusal {
	g, l := v.guard, v.login
	if outcome != detectors.Success {
		g.report(v, "the backend's answer to a login is not as its preset says", "status", a.status, "outcome", string(outcome))
	}
	// Of several names the one that the backend calls its own succeeded; the others
	// were tried and their outcome is not known. A name that the backend does not
	// list counts as an alias only when it was the only one and plainly written:
	// else a stranger could tie somebody's name to an account of his own.
	chosen := -1
	for i, n := range l.names {
		for _, name := range id.Names {
			if n.name.Digest == g.nameDigest(name) {
				chosen = i
			}
		}
	}
	if chosen < 0 && len(l.names) == 1 && !v.ambiguous {
		chosen = 0
	}
	l.told = true
	for i, n := range l.names {
		if i != chosen {
			g.publish(v.event(n, detectors.Unknown))
		}
	}
	var succeeded typed
	if chosen >= 0 {
		succeeded = l.names[chosen]
	}
	device := l.device
	if succeeded.account != id.Subject {
		// A new alias, or a first login: the device may know the account all the same.
		if d, err := v.device(id.Subject); err == nil {
			device = d
		}
	}
	refusal := v.complete(completion{
		kind: detectors.Login, identity: id, credentials: fresh, name: succeeded.name, password: succeeded.password, device: device,
		ambiguous: v.ambiguous, size: l.attempt.Size, outcome: detectors.Success, old: succeeded.old, answered: true,
	})
	switch {
	case refusal != nil && refusal.hold != nil && v.stepUp:
		g.tickets.keep(refusal.hold.ID, l.ticket) // given back when the factor is given
	case refusal == nil || refusal.hold != nil || refusal.reason == policies.ReasonStorageUnavailable: // the password was right
		g.Attempts.Refund(v.r.Context(), l.ticket)
	}
	if refusal != nil {
		return refusal
	}
	for _, line := range v.cookies {
		a.w.Header().Add("Set-Cookie", line)
	}
	return nil
}

// unidentified refuses a success whose account the gate cannot name: without a
// name there is nothing to bind a session to.
func (v *visit) unidentified(fresh []presented, err error) *refusal {
	v.report(err)
	v.login.nameless = true
	v.tell(detectors.Unknown)
	v.logOut(fresh)
	reason := policies.ReasonUnidentified
	if !errors.Is(err, policies.ErrAnonymous) && len(fresh) > 0 {
		reason = policies.ReasonIdentifyFailed
	}
	return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: reason})
}

// fits notes how an answer to a login fits the preset.
func (v *visit) fits(answer policies.LoginAnswer) {
	g := v.guard
	answer.Time, answer.Source = v.now, g.Digest("network", v.source.Network.String())
	change, changed := g.drift.Observe(answer)
	if !changed {
		return
	}
	if change.Drifting {
		g.Log.Error("the backend's answers to log-ins do not fit its preset any more", "backend", g.backend.Name, "evidence", change.String())
	} else {
		g.Log.Info("the backend's answers to log-ins fit its preset again", "backend", g.backend.Name)
	}
	if g.Drifted != nil {
		g.Drifted(g.backend.Name, change)
	}
}

func (v *visit) report(err error) {
	v.guard.report(v, "an accepted login could not be identified", "error", err)
}

// tell publishes the outcome for every name and lets the rules conclude.
func (v *visit) tell(outcome detectors.Outcome) {
	v.login.told = true
	for _, n := range v.login.names {
		v.after(v.event(n, outcome))
	}
}

// after publishes what happened, lets the rules conclude, and returns what now
// holds for the attempt that e is about.
func (v *visit) after(e detectors.Event) (policies.Verdict, bool) {
	g := v.guard
	e = g.publish(e)
	found := g.evaluate(rules.LoginAfter, e, g.Detectors.Assess(e), v.loginMeans())
	v.register(found, e)
	if e.Outcome != detectors.Success {
		g.Record.Count(record.Denial{Time: v.now, Kind: loginPrefix + string(e.Outcome), Key: v.source.Network.String()})
		return policies.Verdict{}, false
	}
	return v.successVerdict(found, e)
}

// successVerdict is what decisions and rules' answers say of a success; observed is
// true when that is only what they would.
func (v *visit) successVerdict(found []rules.Finding, e detectors.Event) (verdict policies.Verdict, observed bool) {
	answer, would := v.answersOf(found, v.guard.Detectors.Assess(e))
	enforced, shadow := v.guard.match(v.loginSubject(string(e.Account), e.Device), v.now)
	if x := answer.Stricter(v.verdictOf(enforced)); x.Action != rules.Allow {
		return x, v.guard.modes.decisions
	}
	return would.Stricter(v.verdictOf(shadow)), true
}

// withheld reports whether a success is going to be kept back or refused by what is
// decided already, and by what rules will say of it: detectors then learn it as one that
// vouches for nobody. What only its own count brings about is not foreseen.
func (v *visit) withheld(e detectors.Event) bool {
	if !v.guards() {
		return false
	}
	g := v.guard
	e.Unproven = true
	e = g.facts(e)
	signals := g.Detectors.Assess(e)
	found := g.foresee(rules.LoginAfter, e, signals, v.loginMeans())
	verdict, observed := v.successVerdict(found, e)
	if !observed && verdict.Action > rules.Delay {
		return true
	}
	if g.modes.decisions {
		return false
	}
	if g.Rules.Load().Asks(rules.Session) {
		answer, _ := v.answersOf(g.foresee(rules.Session, begunBy(e, ""), signals, v.beginMeans(false)), signals)
		if answer.Action > rules.Delay {
			return true
		}
	}
	for _, f := range found {
		for _, d := range policies.DecisionsOf(f, e) {
			if d.Mode == rules.Enforce && d.Action > rules.Delay && !(e.Device.Known() && d.Scope.AboutStrangers()) {
				return true
			}
		}
	}
	return false
}

// concludeLogin counts a verdict on a login and turns it into an answer of ours,
// unless it is only observed, or asks for a delay and no more.
func (v *visit) concludeLogin(x policies.Verdict, observed bool, e detectors.Event) *refusal {
	if x.Action == rules.Allow {
		return nil
	}
	c := countedLogin
	if x.Reason == policies.ReasonLimit {
		c = ControlAttempts
	}
	v.count(c, x, observed, e.Device.Known())
	v.guard.touched(x, e)
	switch {
	case observed:
		return nil
	case x.Action == rules.Delay:
		v.wait(x.Delay)
		return nil
	}
	return v.refusal(x)
}

// wait holds the request back, or returns early when its client goes away.
func (v *visit) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-v.r.Context().Done():
	}
}

// observe concludes a login after its answer went out untouched, as if the gate
// had acted. Asking the backend who logged in must not keep the client waiting.
func (v *visit) observe(a *answer) {
	g := v.guard
	answer := answerOf(a)
	answer.Header = answer.Header.Clone()
	outcome := g.backend.Outcome(answer)
	v.login.told = true
	if outcome != detectors.Success {
		v.tell(outcome)
		return
	}
	var fresh []presented
	for _, gr := range g.grants(answer.Header, v.now) {
		if !gr.deletes {
			fresh = append(fresh, presented{credential: gr.credential, value: gr.value})
		}
	}
	select {
	case g.observing <- struct{}{}:
	default:
		v.tell(outcome) // too many under way: without the account's name
		return
	}
	v.r = v.r.WithContext(context.WithoutCancel(v.r.Context()))
	go func() {
		defer func() { <-g.observing }()
		e := v.event(v.login.names[0], outcome)
		if id, err := v.identify(fresh); err == nil {
			e.Account, e.Organization = detectors.Account(id.Subject), detectors.Organization(id.Organization)
			p, err := g.Directory.Learn(v.r.Context(), auth.Person{
				Subject: id.Subject, Organization: id.Organization, Names: id.Names, Mail: id.Mail,
				Roles: id.Roles, Language: id.Language, TimeZone: id.TimeZone,
			}, e.Name.Digest, v.now, v.login.names[0].old...)
			if err == nil {
				e.AccountSince = p.FirstSeen
			}
			g.place(&e, cmp.Or(id.TimeZone, p.TimeZone))
		}
		if verdict, _ := v.after(e); !v.login.judged {
			v.concludeLogin(verdict, true, e)
		}
		g.Attempts.Refund(v.r.Context(), v.login.ticket)
	}()
}
