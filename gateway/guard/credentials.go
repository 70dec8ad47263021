package guard

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// authenticate decides for each credential that the request carries whether the
// backend gets to see it. Those that are not ours are left out, so that the
// backend answers as it answers anybody who is not logged in.
func (v *visit) authenticate() *refusal {
	g := v.guard
	if !v.guards() {
		return nil
	}
	v.approved = v.proved[:0]
	v.readHeaders()
	for _, p := range v.crumbs.presented {
		if refusal := v.admits(p); refusal != nil {
			return refusal
		}
	}
	if v.class == detectors.LoginRoute && v.canHold() {
		// A backend that keeps its cookie would make that of a live session another
		// account's, which requests at the same time could use before it is held.
		v.approved = v.approved[:0]
	}
	v.forwardHeaders()
	g.forwardCookies(v.r, v.passes)
	if v.stale {
		v.cookies = append(v.cookies, clearedSessionCookie)
	}
	if v.session == nil && v.class != detectors.Public && upgrades(v.r) {
		// What a socket's frames carry cannot be held back.
		return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonSessionEnded})
	}
	v.mint = v.session != nil && slices.Contains(g.mints, v.class)
	return nil
}

// upgrades reports whether r asks to leave HTTP, in any of the three shapes: an
// HTTP/1.1 upgrade, or extended CONNECT over HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220).
func upgrades(r *http.Request) bool {
	return r.Method == http.MethodConnect || len(r.Header["Upgrade"]) > 0
}

// passes reports whether a credential may reach the backend.
func (v *visit) passes(c *policies.Credential, value string) bool {
	for _, p := range v.approved {
		if p.credential == c && p.value == value {
			return true
		}
	}
	for _, p := range v.open {
		if p.credential == c && p.value == value {
			return true
		}
	}
	return false
}

// admits decides on one presented credential and notes it if it may pass.
func (v *visit) admits(p presented) *refusal {
	g := v.guard
	if p.disguised {
		return v.unapproved(p)
	}
	ctx := v.r.Context()
	hash := auth.HashCredential(p.credential.Name, p.value)
	cookie := p.credential.Kind == policies.CookieCredential
	if cookie && v.session != nil && v.session.Holds(p.credential.Name, hash, v.now) {
		v.approved = append(v.approved, p)
		return nil
	}
	owner, err := g.Sessions.ByCredential(ctx, p.credential.Name, hash, v.now)
	switch {
	case err == nil && !cookie && v.session != nil && v.session.Subject != owner.Subject:
		// One request, two accounts: what it makes could be filed under the wrong one.
		return v.unapproved(p)
	case err == nil && p.credential.Paired && owner.Kind == auth.BrowserSession && (v.session == nil || v.session.ID != owner.ID):
		// Got by a browser, and presented without that browser's cookie: a copy.
		return v.unapproved(p)
	case err == nil && !cookie:
		if v.session == nil {
			v.session = owner
		}
		// Decisions about this account and session could not be seen before.
		if refusal := v.decided(policies.Subject{Account: owner.Subject, Session: owner.ID, Device: owner.Device, OwnDevice: true}); refusal != nil {
			return refusal
		}
		v.approved = append(v.approved, p)
		return nil
	case err == nil, errors.Is(err, auth.ErrSessionEnded), errors.Is(err, auth.ErrExpired):
		// A cookie of a session without that session's own cookie was copied; one
		// of an ended session is over, whatever the backend thinks of it.
		return v.unapproved(p)
	case !errors.Is(err, auth.ErrNoSession):
		g.complain("session store", "error", err)
		return v.refuse(ControlSessions, unavailable)
	}
	// Nobody's. If the backend never gives such a thing to visitors who are not
	// logged in, there is nothing to ask.
	policy := unknownPolicy(p.credential, v.now)
	if !p.credential.Anonymous && policy == policies.RefuseUnknown {
		return v.unapproved(p)
	}
	if v.class != detectors.Public && !v.safe() || !g.anonymous.holds(hash, v.now) {
		id, err := v.identify([]presented{p})
		switch {
		case errors.Is(err, policies.ErrAnonymous):
			g.anonymous.add(hash, v.now)
		case err != nil:
			g.report(v, "a credential could not be identified", "error", err)
			return v.unapproved(p)
		case v.session != nil && v.session.Subject == id.Subject:
			if err := g.Sessions.AddCredential(ctx, v.session.ID, auth.Credential{Kind: p.credential.Name, Hash: hash, Since: v.now}, v.now); err != nil {
				return v.refuse(ControlSessions, unavailable)
			}
			v.approved = append(v.approved, p)
			return nil
		case policy == policies.AdoptUnknown:
			refusal := v.adopt(p, id)
			if refusal == nil {
				v.approved = append(v.approved, p)
			} else {
				refusal.cookies = append(refusal.cookies, v.cookies...)
			}
			return refusal
		case policy == policies.PassUnknown:
			v.approved = append(v.approved, p)
			return nil
		default:
			return v.unapproved(p)
		}
	}
	if cookie {
		v.open = append(v.open, p)
	}
	return nil
}

// unknownPolicy is what to do with a credential of kind c that belongs to no
// session; adoption ends by itself.
func unknownPolicy(c *policies.Credential, now time.Time) policies.UnknownCredential {
	if c.Unknown == policies.AdoptUnknown && !now.Before(c.AdoptUntil) {
		return policies.RefuseUnknown
	}
	return c.Unknown
}

// unapproved tells of a credential that was left out, and returns what rules answer to
// the request instead, if anything.
func (v *visit) unapproved(p presented) *refusal {
	v.count(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonUnapprovedCredential}, false, v.session != nil)
	return v.usedInVain(p)
}

// forwardHeaders leaves out every header field that carries a credential, unless
// all its lines are credentials that may pass. Authorization is one whatever its
// scheme: what the preset does not know cannot be tied to a session.
func (v *visit) forwardHeaders() {
	v.forwardHeader("Authorization")
	for _, c := range v.guard.headerCredentials {
		v.forwardHeader(headerField(c))
	}
}

func (v *visit) forwardHeader(field string) {
next:
	for _, line := range v.r.Header[field] {
		for _, c := range v.guard.headerCredentials {
			if headerField(c) != field {
				continue
			}
			if value, ok := headerValue(c, line); ok && v.passes(c, value) {
				continue next
			}
		}
		delete(v.r.Header, field)
		return
	}
}

// readHeaders adds the credentials in header fields to those presented.
func (v *visit) readHeaders() {
	for _, c := range v.guard.headerCredentials {
		for _, line := range v.r.Header[headerField(c)] {
			if value, ok := headerValue(c, line); ok {
				v.crumbs.presented = append(v.crumbs.presented, presented{credential: c, value: value})
			}
		}
	}
}

// headerField is the header a credential travels in.
func headerField(c *policies.Credential) string {
	switch c.Kind {
	case policies.BearerCredential, policies.BasicCredential:
		return "Authorization"
	}
	return c.Header
}

func headerValue(c *policies.Credential, line string) (string, bool) {
	switch c.Kind {
	case policies.BearerCredential:
		return cutScheme(line, "Bearer")
	case policies.BasicCredential:
		return cutScheme(line, "Basic")
	}
	return strings.TrimSpace(line), true
}

// cutScheme splits an Authorization value; schemes are case-insensitive (RFC 9110 section 11.1).
func cutScheme(line, scheme string) (string, bool) {
	line = strings.TrimSpace(line)
	if len(line) <= len(scheme) || !strings.EqualFold(line[:len(scheme)], scheme) || line[len(scheme)] != ' ' && line[len(scheme)] != '\t' {
		return "", false
	}
	return strings.TrimSpace(line[len(scheme):]), true
}
