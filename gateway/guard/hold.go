package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// HoldCookie ties a held login to the client that asked.
const HoldCookie = "__Host-kidoban-hold"

// heldAnswer is what is sealed into a hold: the backend's answer, and what begins the
// session when it is released.
type heldAnswer struct {
	Status int         `json:"status,omitempty"` // 0: the client had the credential already, and there is no answer
	Header http.Header `json:"header,omitempty"`
	Body   []byte      `json:"body,omitempty"`

	Kind        detectors.Kind    `json:"kind"`
	Identity    policies.Identity `json:"identity"`
	Credentials []heldCredential  `json:"credentials,omitempty"`
	Name        detectors.Digest  `json:"name"`
	Old         [][16]byte        `json:"old,omitempty"`
	Event       detectors.Event   `json:"event"` // as it was published, unproven

	SteppedUp bool   `json:"stepped_up,omitempty"` // whatever the password: see decoy
	Decoy     bool   `json:"decoy,omitempty"`      // the password was wrong, and what follows is all
	For       string `json:"for,omitempty"`        // the account whose page is shown; empty: a name that nobody has
}

type heldCredential struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// pending is a login whose answer is to be held once it is there as a whole.
type pending struct {
	completion
	event detectors.Event
	due   policies.Due
}

// canHold reports whether log-ins can be held: there are second factors, and sessions
// are enforced.
func (v *visit) canHold() bool { return v.guard.Factors != nil && v.guards() }

// due is what an accepted login still owes.
func (v *visit) due(c completion, e detectors.Event, person auth.Person, stepUp bool) (policies.Due, error) {
	g := v.guard
	if !v.canHold() {
		return policies.Due{}, nil
	}
	ctx := v.r.Context()
	factors, err := g.Factors.List(ctx, c.identity.Subject)
	if err != nil {
		return policies.Due{}, err
	}
	first := person.FirstSeen
	if first.IsZero() {
		first = v.now
	}
	due := g.factorPolicy.Due(policies.FactorContext{
		Organization: c.identity.Organization, Roles: c.identity.Roles, Source: v.source.Address, Country: v.source.Country,
		Device: e.Device.State, StepUp: stepUp, Route: v.class,
		// One that is disabled counts: else whoever guesses at it until it is would have
		// got rid of it.
		Enrolled:  len(factors) > 0,
		FirstSeen: first, Now: v.now,
	})
	if due.Need == policies.NeedFactor && g.factorPolicy.Remember > 0 && !stepUp && e.Device.Known() {
		remembered, err := g.Slips.Remembers(ctx, c.identity.Subject, e.Device.ID, v.now)
		if err != nil || remembered {
			return policies.Due{}, err
		}
	}
	return due, nil
}

// reachable reports whether somebody who has no factor can be asked for something
// else: a code by mail, or evidence on the way to binding one.
func (v *visit) reachable(due policies.Due, id policies.Identity) bool {
	switch due.Need {
	case policies.NeedConfirm:
		return v.guard.Mailing.Load() && len(id.Mail) > 0
	default:
		return true
	}
}

// hold keeps an accepted login back until what it owes is given. The refusal that it
// returns tells the client how.
func (v *visit) hold(p pending) *refusal {
	g := v.guard
	a := &v.answer
	fail := func(doing string, err error) *refusal {
		g.complain(doing, "error", err)
		v.logOut(p.credentials)
		return v.refuse(ControlSessions, unavailable)
	}
	if err := v.yield(p); err != nil {
		return fail("ending a session whose credential became another account's", err)
	}
	if p.answered && a.hold == 0 && !endless(a.w.Header()) {
		v.pending = &p // its body is still to come; see answer.decide
		return nil
	}
	held := heldAnswer{Kind: p.kind, Identity: p.identity, Name: p.name.Digest, Old: p.old, Event: p.event, SteppedUp: v.stepUp}
	for _, c := range p.credentials {
		held.Credentials = append(held.Credentials, heldCredential{c.credential.Name, c.value})
	}
	if p.answered {
		if a.cut || a.status == http.StatusSwitchingProtocols || endless(a.w.Header()) {
			g.report(v, "an answer that makes a client authenticated cannot be held: it is longer than 64 KiB, or has no end", "status", a.status)
			v.logOut(p.credentials)
			return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonHoldFailed})
		}
		held.Status, held.Header, held.Body = a.status, a.ofBackend(), a.body.Bytes()
	}
	sealed, err := json.Marshal(held)
	if err != nil {
		return fail("holding a login", err)
	}
	if refusal := v.tooManyHeld(p.identity.Subject, p.device); refusal != nil {
		v.logOut(p.credentials)
		return refusal
	}
	ctx := context.WithoutCancel(v.r.Context())
	id := p.identity
	person, err := g.Directory.Learn(ctx, auth.Person{
		Subject: id.Subject, Organization: id.Organization, Names: id.Names, Mail: id.Mail, Roles: id.Roles,
		Language: id.Language, TimeZone: id.TimeZone,
	}, [16]byte{}, v.now) // the typed name is learned when the log-in is complete
	if err != nil {
		return fail("directory", err)
	}
	h := v.newHold(id.Subject, p.due.Need)
	h.Organization, h.Device, h.Credentials = id.Organization, p.device.ID, v.bound(p.credentials)
	h, token, err := v.beginHold(ctx, h, sealed)
	if err != nil {
		return fail("holding a login", err)
	}
	if h.Need == auth.NeedConfirm {
		if err := g.mailCode(ctx, h, person, v.now); err != nil {
			return fail("mailing a code", err)
		}
	}
	return v.begun(h, token, p.device)
}

// newHold is a hold of the request's client.
func (v *visit) newHold(subject string, need policies.Need) auth.Hold {
	g := v.guard
	h := auth.Hold{
		Subject: subject,
		Need:    map[policies.Need]auth.HoldNeed{policies.NeedConfirm: auth.NeedConfirm, policies.NeedEnrol: auth.NeedEnrol}[need],
		Client:  clientWords(v.r), ClientKind: string(v.clientKind()), Fingerprint: g.clientFingerprint(v.r),
		Network: v.source.Network.String(), Source: v.source.Address.String(), Country: v.source.Country,
		Method: v.r.Method, Route: v.r.URL.RequestURI(), Return: v.wanted(),
	}
	if h.Need == "" {
		h.Need = auth.NeedFactor
	}
	if v.login != nil {
		h.Attempt = v.attemptDigest()
		if g.reader.InQuery(v.r) { // a password is not kept in the clear, nor shown in an address again
			h.Route = v.r.URL.EscapedPath()
		}
	}
	return h
}

// beginHold begins a hold, in place of an earlier one that the same client has.
func (v *visit) beginHold(ctx context.Context, h auth.Hold, sealed []byte) (auth.Hold, string, error) {
	if old, ok := v.holder(); ok && old.Subject == h.Subject {
		// The same client tries again: there is one login to finish, or to warn of.
		if err := v.guard.giveUp(ctx, old, false, v.now); err != nil {
			return h, "", err
		}
	}
	return v.guard.Holds.Begin(ctx, h, sealed, v.now)
}

// begun tells the client that its login is held.
func (v *visit) begun(h auth.Hold, token string, device detectors.Device) *refusal {
	v.count(ControlSessions, policies.Verdict{Action: rules.StepUp, Reason: policies.ReasonFactorDue}, false, device.Known())
	v.cookies = append(v.cookies, holdCookie(token, h.Expires.Sub(v.now)))
	return v.waiting(h)
}

// helds bounds the log-ins of an account that are held, from one network: each is a
// place among those that an account may have, and may be a letter to its owner. The
// limit of attempts does not bound them, because their password was right.
var helds = limits.Bucket{Name: "held", Burst: 12, Every: 50 * time.Second}

// tooManyHeld charges a login that is to be held. A device that the account knows is
// charged nothing: what others do from its network does not keep its owner out.
func (v *visit) tooManyHeld(subject string, device detectors.Device) *refusal {
	if device.Known() {
		return nil
	}
	g := v.guard
	key := g.Digest("held", subject+"\x00"+v.source.Network.String())
	_, d := g.Attempts.Take(context.WithoutCancel(v.r.Context()), v.now, []limits.AttemptCharge{{Bucket: &helds, Key: key, N: 1}})
	if d.Allowed {
		return nil
	}
	return v.conclude(ControlAttempts, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: v.now.Add(d.RetryAfter)}, g.modes.attempts)
}

// yield ends the session that proves a credential which the backend made another
// account's: with an account of his own a thief would be let through by it, past the
// factor of the account whose password he has.
func (v *visit) yield(p pending) error {
	s := v.session
	if s == nil || s.Subject == p.identity.Subject || !slices.ContainsFunc(p.credentials, func(c presented) bool {
		return s.Holds(c.credential.Name, auth.HashCredential(c.credential.Name, c.value), v.now)
	}) {
		return nil
	}
	if err := v.guard.endOver(context.WithoutCancel(v.r.Context()), s.ID, "login"); err != nil {
		return err
	}
	v.session = nil
	v.cookies = append(v.cookies, clearedSessionCookie)
	return nil
}

// endless reports whether an answer is a stream of events, whose end nobody can wait for.
func endless(h http.Header) bool {
	return strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "text/event-stream")
}

// waiting is the answer to a client whose log-in is held.
func (v *visit) waiting(h auth.Hold) *refusal {
	r := &refusal{
		status: http.StatusUnauthorized, reason: policies.ReasonFactorDue, action: rules.StepUp, reference: newReference(),
		hold: &h, continueAt: v.guard.origin(v.r) + OwnPath + "continue/" + h.ID,
		rendering: v.guard.backend.Held, site: v.guard.site,
	}
	v.guard.refer(policies.Reference{Name: r.reference, Rule: v.because.Rule, Decision: v.because.Decision, Finding: v.because.Finding})
	v.guard.Log.Info("held", "reference", r.reference, "hold", h.ID, "need", string(h.Need), "route", v.routeName(), "source", v.source.Network.String())
	return r
}

// clientKind is what the client can do with an answer.
func (v *visit) clientKind() policies.ClientKind {
	if wantsHTML(v.r) {
		return policies.Browser
	}
	if v.r.Header.Get("Sec-Fetch-Mode") != "" && v.r.Header.Get("Sec-Fetch-Site") != "cross-site" {
		return policies.SPAClient // from another site it cannot keep a cookie of ours, as a program
	}
	if kind := v.guard.backend.Client(v.path, v.r.Header); kind != policies.Browser {
		return kind
	}
	return policies.NativeClient
}

// wanted is where the person is to end up: the page that a script sent the log-in
// from, if it is one of this site.
func (v *visit) wanted() string {
	if !v.answered() && v.safe() && wantsHTML(v.r) {
		return v.r.URL.RequestURI()
	}
	u, err := url.Parse(v.r.Header.Get("Referer"))
	if err != nil || !strings.EqualFold(u.Host, v.r.Host) {
		return "/"
	}
	return localPath(u.RequestURI())
}

// answered reports whether the backend answered the request.
func (v *visit) answered() bool { return v.answer.status != 0 }

// localPath is p if it is a path of this site, and else "/".
// Browsers read a backslash as a slash, and two slashes as another site.
func localPath(p string) string {
	if !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsFunc(p, func(c rune) bool { return c <= ' ' || c == '\\' || c == 0x7f }) {
		return "/"
	}
	if u, err := url.Parse(p); err != nil || u.Host != "" || u.Scheme != "" {
		return "/"
	}
	return p
}

// attemptDigest is equal for attempts with the same name and password; zero where the
// attempt can be read in more than one way.
func (v *visit) attemptDigest() [16]byte {
	pairs := v.login.attempt.Pairs
	if len(pairs) != 1 || v.ambiguous {
		return [16]byte{}
	}
	return v.guard.Digest("attempt", v.guard.backend.Name+"\x00"+auth.CanonicalName(pairs[0].Name)+"\x00"+pairs[0].Password)
}

// holder is the hold that the client proves to hold, open or over, if it is the
// client that it was given to.
func (v *visit) holder() (auth.Hold, bool) {
	if v.guard.Holds == nil || v.crumbs.hold == "" {
		return auth.Hold{}, false
	}
	h, err := v.guard.Holds.ByToken(v.r.Context(), v.crumbs.hold, v.now)
	if err != nil {
		if !errors.Is(err, auth.ErrNoHold) && !errors.Is(err, auth.ErrHoldOver) {
			v.guard.complain("held log-ins", "error", err)
		}
		return auth.Hold{}, false
	}
	if h.Fingerprint != v.guard.clientFingerprint(v.r) {
		v.guard.report(v, "a held login was claimed by another client than the one that asked", "hold", h.ID)
		v.count(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonUnapprovedCredential}, false, false)
		return auth.Hold{}, false
	}
	return h, true
}

// serveHeld answers requests of clients that wait for a factor, and reports whether it
// did: releases the answer where the login was, and leads navigations to the page that
// asks for the factor.
func (g *Guard) serveHeld(w http.ResponseWriter, v *visit) (bool, error) {
	if v.crumbs.hold == "" || !v.canHold() || v.class == detectors.LoginRoute && !v.safe() {
		return false, nil
	}
	h, ok := v.holder()
	if !ok {
		return false, nil
	}
	switch {
	case v.class == detectors.Logout && !v.safe():
		if err := g.drop(v, h); err != nil {
			return true, v.refuse(ControlSessions, unavailable).write(w, v.r)
		}
		v.cookies = append(v.cookies, clearedHoldCookie)
	case h.State == auth.HoldApproved && v.r.Method == http.MethodGet && v.r.URL.RequestURI() == h.Route && h.ClientKind == string(policies.Browser):
		return true, g.release(w, v, h)
	case h.State == auth.HoldWaiting && v.session == nil && v.r.Method == http.MethodGet && wantsHTML(v.r) && v.class != detectors.Public:
		return true, redirect(w, OwnPath+"factor")
	}
	return false, nil
}

// retry looks for a hold that this attempt to log in repeats, and reports whether it
// answered: with the held answer if the factor was given, and else as the first time.
// So who repeats a login gets neither a second hold nor the backend's time. The
// password was right: an attempt is equal in name and password, or it is not this.
func (g *Guard) retry(w http.ResponseWriter, v *visit) (bool, error) {
	if !v.canHold() {
		return false, nil
	}
	digest := v.attemptDigest()
	if digest == ([16]byte{}) {
		return false, nil
	}
	held, proved := v.holder()
	proved = proved && held.Attempt == digest
	if !proved {
		// A program without cookies: the same program from the same address. It cannot be
		// told from another one there that says the same of itself; so scripts, which
		// keep cookies, are not among them.
		all, err := g.Holds.ByAttempt(v.r.Context(), digest, v.now)
		if err != nil {
			g.complain("held log-ins", "error", err)
			return true, v.refuse(ControlSessions, unavailable).write(w, v.r)
		}
		fingerprint := g.clientFingerprint(v.r)
		i := slices.IndexFunc(all, func(h auth.Hold) bool {
			return h.ClientKind == string(policies.NativeClient) && h.Fingerprint == fingerprint && h.Source == v.source.Address.String()
		})
		if i < 0 {
			return false, nil
		}
		held = all[i]
	}
	switch held.State {
	case auth.HoldApproved:
		v.login.told = true
		g.Attempts.Refund(v.r.Context(), v.login.ticket)
		return true, g.release(w, v, held)
	case auth.HoldWaiting:
		v.login.told = true
		return true, v.waiting(held).write(w, v.r)
	}
	return false, nil
}

// openHeld opens the answer of a hold.
func (g *Guard) openHeld(ctx context.Context, h auth.Hold) (heldAnswer, error) {
	var held heldAnswer
	plain, err := g.Holds.Answer(ctx, h.ID)
	if err != nil {
		return held, err
	}
	if err := json.Unmarshal(plain, &held); err != nil {
		return held, fmt.Errorf("reading the answer of hold %s: %w", h.ID, err)
	}
	return held, nil
}

// credentials are the backend's credentials in a held answer.
func (g *Guard) credentials(held heldAnswer) (all []presented) {
	for _, c := range held.Credentials {
		for i := range g.backend.Credentials {
			if p := &g.backend.Credentials[i]; p.Name == c.Name {
				all = append(all, presented{credential: p, value: c.Value})
			}
		}
	}
	return all
}

// release begins the session of a login whose factor was given, and sends the held
// answer: once, and unchanged but for what caches may do with it. That it was approved and is now released is one
// transaction with the session, so of many requests one wins.
func (g *Guard) release(w http.ResponseWriter, v *visit, h auth.Hold) error {
	held, refusal := v.claim(h)
	if refusal != nil {
		return refusal.write(w, v.r)
	}
	header := w.Header()
	for name, lines := range held.Header {
		header[name] = append(header[name], lines...)
	}
	for _, line := range v.cookies {
		header.Add("Set-Cookie", line)
	}
	if held.Status == 0 {
		header.Set("Location", localPath(h.Return))
		header.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	if v.r.Method != h.Method {
		// What answered a POST is in no cache; now it answers a GET.
		header.Set("Cache-Control", "no-store")
	}
	w.WriteHeader(held.Status)
	_, err := w.Write(held.Body)
	return err
}

// claim takes the answer of an approved hold for the client, and begins its session.
func (v *visit) claim(h auth.Hold) (heldAnswer, *refusal) {
	g := v.guard
	ctx := v.r.Context()
	// What was decided about the account while the login waited.
	if refusal := v.decided(policies.Subject{Account: h.Subject}); refusal != nil {
		return heldAnswer{}, refusal
	}
	held, err := g.openHeld(ctx, h)
	if errors.Is(err, auth.ErrHoldOver) || errors.Is(err, auth.ErrNoHold) {
		return held, v.over()
	}
	if err != nil {
		g.complain("held log-ins", "error", err)
		return held, v.refuse(ControlSessions, unavailable)
	}
	if held.Decoy {
		g.report(v, "a login with a wrong password was approved, by whom ever; it is not released", "hold", h.ID)
		return heldAnswer{}, v.over()
	}
	e := held.Event
	e.Time, e.Kind, e.Account, e.Organization = v.now, held.Kind, detectors.Account(h.Subject), detectors.Organization(h.Organization)
	e.Source, e.Name.Digest, e.Outcome, e.Unproven = v.source, held.Name, detectors.Success, false
	if device, err := v.device(h.Subject); err == nil {
		e.Device = device
	}
	g.place(&e, held.Identity.TimeZone)
	refusal := v.begin(completion{
		kind: held.Kind, identity: held.Identity, credentials: g.credentials(held), name: detectors.Name{Digest: held.Name}, old: held.Old, hold: &h,
	}, e)
	if refusal == nil {
		g.publish(e) // the login is proven now, and complete
		g.Attempts.Refund(ctx, g.tickets.take(h.ID))
	}
	v.cookies = append(v.cookies, clearedHoldCookie)
	return held, refusal
}

// over is the answer to a log-in that cannot be finished any more.
func (v *visit) over() *refusal {
	r := v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonSessionEnded})
	r.cookies = append(r.cookies, clearedHoldCookie)
	return r
}

// drop gives a held log-in up in the name of its holder, and ends at the backend what
// began there.
func (g *Guard) drop(v *visit, h auth.Hold) error {
	held, err := g.openHeld(v.r.Context(), h)
	if err == nil {
		v.logOut(g.credentials(held))
	}
	// On a device that the account does not know it may have been a thief, who knows
	// the password.
	device, err := v.device(h.Subject)
	if err != nil {
		return err
	}
	return g.giveUp(context.WithoutCancel(v.r.Context()), h, !device.Known(), v.now)
}

// giveUp ends a hold that nobody goes on with.
func (c *Core) giveUp(ctx context.Context, h auth.Hold, tell bool, now time.Time) error {
	_, err := c.Holds.GiveUp(ctx, h.ID, auth.Act{By: "holder"}, tell, now)
	if errors.Is(err, auth.ErrHoldOver) || errors.Is(err, auth.ErrNoHold) {
		return nil
	}
	return err
}

// awaited refuses credentials of a login that is held, to programs: they were with the
// client before the factor was given, as where the backend keeps a visitor's cookie at
// login. A navigation gets here without the cookie that its holder had, and its login
// is held anew.
func (v *visit) awaited(credentials []presented) *refusal {
	if !v.canHold() || wantsHTML(v.r) && v.safe() {
		return nil
	}
	for _, p := range credentials {
		h, err := v.guard.Holds.ByCredential(v.r.Context(), p.credential.Name, auth.HashCredential(p.credential.Name, p.value), v.now)
		switch {
		case err == nil:
			return v.waiting(h)
		case !errors.Is(err, auth.ErrNoHold) && !errors.Is(err, auth.ErrHoldOver):
			v.guard.complain("held log-ins", "error", err)
			return v.refuse(ControlSessions, unavailable)
		}
	}
	return nil
}

// adopt takes over a credential that was with the client before the gate was: at once,
// or when a factor was given.
func (v *visit) adopt(p presented, id policies.Identity) *refusal {
	h, approved, err := v.approvedFor(p)
	if err != nil {
		v.guard.complain("held log-ins", "error", err)
		return v.refuse(ControlSessions, unavailable)
	}
	if approved {
		_, refusal := v.claim(h)
		return refusal
	}
	if refusal := v.awaited([]presented{p}); refusal != nil {
		return refusal
	}
	return v.complete(completion{kind: detectors.Door, identity: id, credentials: []presented{p}, outcome: detectors.Success})
}

// approvedFor is the approved hold of a credential that waits for no answer but to be
// taken over, if it is the client that asked.
func (v *visit) approvedFor(p presented) (auth.Hold, bool, error) {
	g := v.guard
	if !v.canHold() {
		return auth.Hold{}, false, nil
	}
	h, err := g.Holds.ByCredential(v.r.Context(), p.credential.Name, auth.HashCredential(p.credential.Name, p.value), v.now)
	if errors.Is(err, auth.ErrNoHold) || errors.Is(err, auth.ErrHoldOver) {
		return auth.Hold{}, false, nil
	}
	if err != nil || h.State != auth.HoldApproved {
		return auth.Hold{}, false, err
	}
	mine, holds := v.holder()
	if !(holds && mine.ID == h.ID) && (h.Fingerprint != g.clientFingerprint(v.r) || h.Source != v.source.Address.String()) {
		return auth.Hold{}, false, nil
	}
	held, err := g.openHeld(v.r.Context(), h)
	if errors.Is(err, auth.ErrHoldOver) || errors.Is(err, auth.ErrNoHold) {
		return auth.Hold{}, false, nil // another request was first
	}
	return h, err == nil && held.Status == 0, err
}

func holdCookie(token string, lives time.Duration) string {
	return (&http.Cookie{
		Name: HoldCookie, Value: token, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: max(int(lives.Seconds()), 1),
	}).String()
}

const clearedHoldCookie = HoldCookie + "=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"

// redirect leads a browser to a path of this site by GET.
func redirect(w http.ResponseWriter, path string) error {
	w.Header().Set("Location", path)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
