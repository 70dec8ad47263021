package guard

import (
	"cmp"
	"errors"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// judge looks at an answer before its header goes out and returns what replaces
// it, or nil to let it go. It is the egress half of the promise that nobody gets
// an authenticated answer without a session of ours, whichever route it came from.
func (v *visit) judge(a *answer) *refusal {
	if v.login != nil {
		var refusal *refusal
		if v.pending != nil {
			refusal = v.hold(*v.pending)
		} else {
			refusal = v.judgeLogin(a)
		}
		if refusal != nil && (v.stepUp || refusal.deceives(v.r)) {
			v.settle()
		}
		return refusal
	}
	if v.pending != nil {
		return v.hold(*v.pending)
	}
	if !v.guards() {
		return nil
	}
	header := a.w.Header()
	if refusal := v.judgeGrants(a); refusal != nil {
		return refusal
	}
	if v.mint && a.status >= 200 && a.status < 300 {
		if refusal := v.judgeMinted(a); refusal != nil {
			return refusal
		}
	}
	for _, line := range v.cookies {
		header.Add("Set-Cookie", line)
	}
	return nil
}

// judgeGrants judges the credentials that the answer hands out, or that it may
// have made authenticated without handing out anything.
func (v *visit) judgeGrants(a *answer) *refusal {
	g := v.guard
	var fresh []presented
	deleted := false
	for _, gr := range g.grants(a.w.Header(), v.now) {
		switch p := (presented{credential: gr.credential, value: gr.value}); {
		case gr.deletes:
			deleted = deleted || v.holds(gr.credential)
		case v.passes(gr.credential, gr.value) && len(v.open) == 0:
			// The same value again: a renewed lifetime.
		default:
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		fresh = v.suspects()
	}
	if len(fresh) > 0 {
		id, err := v.identify(fresh)
		switch {
		case errors.Is(err, policies.ErrAnonymous):
			for _, p := range fresh {
				g.anonymous.add(auth.HashCredential(p.credential.Name, p.value), v.now)
				deleted = deleted || v.holds(p.credential) // replaced by a visitor's
			}
		case err != nil:
			g.report(v, "an answer hands out a credential that could not be identified", "error", err)
			v.logOut(fresh)
			return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonIdentifyFailed})
		case v.session != nil && v.session.Subject == id.Subject:
			return v.bind(fresh)
		default:
			if refusal := v.awaited(fresh); refusal != nil {
				return refusal
			}
			return v.complete(completion{kind: detectors.Door, identity: id, credentials: fresh, outcome: detectors.Success, answered: true})
		}
	}
	if (deleted || v.class == detectors.Logout && a.status < 400) && v.session != nil && v.session.Kind == auth.BrowserSession {
		g.logOutOf(v.r.Context(), v.session.ID, "backend")
		v.cookies = append(v.cookies, clearedSessionCookie)
	}
	return nil
}

// suspects are credentials that the request brought and whose meaning the
// backend may just have changed: those it called anonymous, and, where it keeps
// its anonymous cookie at login, the session's own after an unsafe request to a
// route that nobody declared.
func (v *visit) suspects() []presented {
	if v.class == detectors.Public && v.safe() {
		return nil
	}
	if len(v.open) > 0 {
		return v.open
	}
	if v.class != detectors.Other || v.safe() {
		return nil
	}
	var all []presented
	for _, p := range v.approved {
		if p.credential.Anonymous && p.credential.Kind == policies.CookieCredential {
			all = append(all, p)
		}
	}
	return all
}

func (v *visit) holds(c *policies.Credential) bool {
	for _, p := range v.approved {
		if p.credential == c {
			return true
		}
	}
	return false
}

// bind adds credentials to the session that the request proved.
func (v *visit) bind(credentials []presented) *refusal {
	for _, p := range credentials {
		hash := auth.HashCredential(p.credential.Name, p.value)
		if v.session.Holds(p.credential.Name, hash, v.now) {
			continue
		}
		c := auth.Credential{Kind: p.credential.Name, Hash: hash, Since: v.now}
		if err := v.guard.Sessions.AddCredential(v.r.Context(), v.session.ID, c, v.now); err != nil {
			v.guard.complain("binding a credential", "error", err)
			return v.refuse(ControlSessions, unavailable)
		}
		v.guard.anonymous.forget(hash)
	}
	return nil
}

// judgeMinted binds tokens that the backend minted for the session's account to a
// session of their own. A token that cannot be found is let out all the same: as
// nobody's, it opens nothing.
func (v *visit) judgeMinted(a *answer) *refusal {
	var minted, renewed []presented
	for _, p := range v.guard.minted(v.class, a) {
		if p.credential.Renews(v.class) {
			renewed = append(renewed, p) // the same login goes on
		} else {
			minted = append(minted, p)
		}
	}
	if refusal := v.bind(renewed); refusal != nil {
		return refusal
	}
	if len(minted) == 0 {
		return nil
	}
	if id, err := v.identify(minted); err == nil && id.Subject != v.session.Subject {
		// The session's credential became another account's in this moment.
		v.guard.report(v, "a token was minted for another account than the session's", "session", v.session.ID)
		v.logOut(minted)
		return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonUnapprovedCredential})
	}
	begun, _, err := v.guard.beginSession(v.r.Context(), auth.Session{
		Kind: auth.TokenSession, Subject: v.session.Subject, Organization: v.session.Organization,
		AAL: v.session.AAL, Source: v.source.Address.String(),
	}, v.bound(minted), "")
	if err != nil {
		v.guard.complain("binding a minted token", "error", err)
		return v.refuse(ControlSessions, unavailable)
	}
	e := v.sessionEvent(detectors.Success)
	v.of(&e, v.session)
	e.Act, e.Session, e.Credential = detectors.Minted, begun.ID, credentialNames(minted)
	return v.undo(v.became(v.guard.publish(e), means{refuse: true}), begun, minted)
}

// minted lists the credentials in the body of an answer of class.
func (g *Guard) minted(class detectors.RouteClass, a *answer) []presented {
	var all []presented
	for i := range g.backend.Credentials {
		c := &g.backend.Credentials[i]
		for _, value := range c.MintedIn(class, answerOf(a)) {
			all = append(all, presented{credential: c, value: value})
		}
	}
	return all
}

// bound is how a session keeps credentials.
func (v *visit) bound(all []presented) []auth.Credential {
	held := make([]auth.Credential, len(all))
	for i, p := range all {
		held[i] = auth.Credential{Kind: p.credential.Name, Hash: auth.HashCredential(p.credential.Name, p.value), Since: v.now}
		v.guard.anonymous.forget(held[i].Hash)
	}
	return held
}

// completion is a login that the backend accepted and that the gate has to decide on.
type completion struct {
	kind        detectors.Kind
	identity    policies.Identity
	credentials []presented
	name        detectors.Name
	password    detectors.PasswordFacts
	device      detectors.Device
	ambiguous   bool
	size        int64
	outcome     detectors.Outcome
	old         [][16]byte // digests of name by earlier keys
	answered    bool       // it is the backend's answer that made it so
	hold        *auth.Hold // that is released with it; nil: none
}

// complete decides on an accepted login and, if it stands, begins our session.
func (v *visit) complete(c completion) *refusal {
	g := v.guard
	ctx := v.r.Context()
	person, known, err := g.Directory.BySubject(ctx, c.identity.Subject)
	if err != nil {
		g.complain("directory", "error", err)
		v.logOut(c.credentials)
		return v.refuse(ControlSessions, unavailable)
	}
	e := detectors.Event{
		Time: v.now, Kind: c.kind, Name: c.name, Account: detectors.Account(c.identity.Subject),
		Organization: detectors.Organization(c.identity.Organization), Source: v.source, Device: c.device,
		Route: v.class, Credential: credentialNames(c.credentials), Existence: detectors.Exists,
		Outcome: c.outcome, Password: c.password, Ambiguous: c.ambiguous, Size: c.size,
	}
	if v.login != nil {
		e.Client = v.login.client
	} else {
		e.Client = v.client()
	}
	e.Fingerprint = e.Client.Fingerprint()
	if known {
		e.AccountSince = person.FirstSeen
	}
	if e.Name.Digest.IsZero() && len(c.identity.Names) > 0 {
		all := g.nameDigests(c.identity.Names[0])
		e.Name.Digest, c.old = all[0], all[1:]
	}
	if c.kind == detectors.Door && e.Device.ID == "" {
		if e.Device, err = v.device(c.identity.Subject); err != nil {
			g.complain("devices", "error", err)
		}
	}
	g.place(&e, cmp.Or(c.identity.TimeZone, person.TimeZone))
	e = g.facts(e) // before the log-in is one of them
	due, err := v.due(c, e, person, v.stepUp)
	e.Unproven = err == nil && due.Need != policies.NeedNone || v.withheld(e)
	verdict, observed := v.after(e)
	if verdict.Action == rules.StepUp && !observed && v.canHold() {
		v.count(countedLogin, verdict, false, e.Device.Known()) // and met by a factor
		g.touched(verdict, e)
		v.because = verdict
		due, err = v.due(c, e, person, true)
	} else if refusal := v.concludeLogin(verdict, observed, e); refusal != nil {
		v.logOut(c.credentials)
		if v.stepUp {
			return v.decoy()
		}
		return refusal
	}
	if err != nil {
		g.complain("second factors", "error", err)
		v.logOut(c.credentials)
		return v.refuse(ControlSessions, unavailable)
	}
	c.device = e.Device
	switch {
	case due.Need == policies.NeedNone:
	case v.stepUp && due.Need == policies.NeedEnrol, v.stepUp && !v.reachable(due, c.identity):
		v.logOut(c.credentials)
		return v.unproved()
	case v.reachable(due, c.identity):
		return v.hold(pending{c, e, due})
	default:
		// Nobody can be asked for a code that cannot be mailed.
		v.logOut(c.credentials)
		return v.refuse(countedLogin, policies.Verdict{Action: rules.StepUp, Reason: policies.ReasonFactorDue})
	}
	return v.begin(c, e)
}

// begin makes our session of an accepted login.
func (v *visit) begin(c completion, e detectors.Event) *refusal {
	g := v.guard
	ctx := v.r.Context()
	fail := func(doing string, err error) *refusal {
		g.complain(doing, "error", err)
		if c.hold == nil { // a held answer is still there, and good at the next try
			v.logOut(c.credentials)
		}
		return v.refuse(ControlSessions, unavailable)
	}
	id := c.identity
	if _, err := g.Directory.Learn(ctx, auth.Person{
		Subject: id.Subject, Organization: id.Organization, Names: id.Names, Mail: id.Mail, Roles: id.Roles,
		Language: id.Language, TimeZone: id.TimeZone,
	}, e.Name.Digest, v.now, c.old...); err != nil {
		return fail("directory", err)
	}
	cookie, view, err := g.Devices.Complete(ctx, v.crumbs.device, id.Subject, v.now)
	if err != nil {
		return fail("devices", err)
	}
	old := v.session
	s := auth.Session{
		Kind: auth.BrowserSession, Subject: id.Subject, Organization: id.Organization, Device: view.ID,
		AAL: 1, Source: v.source.Address.String(), Country: v.source.Country, Client: clientWords(v.r),
	}
	release := ""
	if h := c.hold; h != nil {
		release, s.AAL, s.Factor = h.ID, h.AAL, h.FactorKind
		if h.FactorKind != "" {
			s.Verified = h.Approved
		}
	}
	s, token, err := g.beginSession(ctx, s, v.bound(c.credentials), release)
	if errors.Is(err, auth.ErrHoldOver) {
		return v.over()
	}
	if err != nil {
		return fail("beginning a session", err)
	}
	begun := begunBy(e, s.ID)
	if begun.Device.ID == "" {
		begun.Device.ID = s.Device
	}
	x := v.became(g.Stream.Publish(begun), v.beginMeans(c.hold != nil))
	if x.Action == rules.StepUp && c.hold == nil {
		return v.holdAfterAll(x, c, e, s)
	}
	if refusal := v.undo(x, s, c.credentials); refusal != nil {
		return refusal
	}
	if c.hold != nil && g.factorPolicy.Remember > 0 {
		g.rememberDevice(ctx, id.Subject, c.hold.ID, view.ID, v.now)
	}
	if old != nil && old.Kind == auth.BrowserSession && old.ID != s.ID {
		g.logOutOf(ctx, old.ID, "login")
	}
	v.session = &s
	v.cookies = append(v.cookies, g.sessionCookie(token, s.Expires, v.now), g.deviceCookie(cookie))
	return nil
}

func credentialNames(all []presented) string {
	if len(all) == 0 {
		return ""
	}
	return all[0].credential.Name
}

// admittance refuses what the preset says nobody, or nobody who is not in, may ask the
// backend for: doors that would lead around the login.
func (v *visit) admittance() *refusal {
	if !v.guards() {
		return nil
	}
	b := v.guard.backend
	for _, method := range []string{v.r.Method, v.method} {
		switch a := b.Admits(method, v.path); {
		case a == policies.AdmitsNobody, a == policies.AdmitsSessions && v.session == nil:
			return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonClosedRoute})
		}
	}
	return nil
}
