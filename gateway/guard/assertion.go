package guard

import (
	"net/http"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/assertion"
	"github.com/kidoban/kidoban/rules"
)

// keysPath is where a site that asserts publishes the keys that verify assertions.
const keysPath = OwnPath + "jwks.json"

// asserts reports whether the backend is told whom the gate let in. Where sessions
// only observe there is nobody to tell of.
func (g *Guard) asserts() bool { return g.asserted.Audience != "" && !g.modes.sessions }

// assert adds to a request that rides on a session what the backend is to know of
// it. What the client sent under that name is gone already, see clean.
func (v *visit) assert() *refusal {
	g, s := v.guard, v.session
	if s == nil || !g.asserts() {
		return nil
	}
	now := g.Now() // a body may have taken its time
	token, ok := g.assertions.Recent(g.asserted, s.ID, g.aal(s, now), authenticated(s), now)
	if !ok {
		var err error
		if token, err = g.assertions.Sign(g.asserted, v.statement(), now); err != nil {
			g.complain("signing an assertion", "error", err)
			return v.refuse(ControlSessions, unavailable)
		}
	}
	setAssertion(v.r.Header, token)
	return nil
}

// statement is what the gate knows of the session now.
func (v *visit) statement() assertion.Statement {
	s := v.session
	return assertion.Statement{
		Subject: s.Subject, Organization: s.Organization, Session: s.ID, AAL: v.guard.aal(s, v.now), Methods: v.guard.methods(s, v.now),
		Authenticated: authenticated(s), Elevated: v.doubted(),
	}
}

// authenticated is when somebody last proved who they are.
func authenticated(s *auth.Session) time.Time {
	if s.Verified.After(s.Created) {
		return s.Verified
	}
	return s.Created
}

// methods are what the gate itself saw of the authentication (RFC 8176). How the
// backend authenticated whom it let in, be it by a password or by a link, it knows
// better than the gate does.
func (g *Guard) methods(s *auth.Session, now time.Time) []string {
	if g.aal(s, now) < 2 {
		return nil
	}
	switch s.Factor {
	case auth.TOTP:
		return []string{"mfa", "otp"}
	case auth.Key:
		return []string{"mfa", "pop"}
	}
	return []string{"mfa"}
}

// doubted reports whether a decision in force asks for more of whoever comes like
// this. One that refuses was met before.
func (v *visit) doubted() bool {
	if v.guard.modes.decisions {
		return false
	}
	d, _ := v.guard.match(v.subject(), v.now)
	return d.ID != "" && d.Action > rules.Allow
}

// assertOwn adds to a request of the gate's own what makes the backend answer it.
func (v *visit) assertOwn(r *http.Request) error {
	g := v.guard
	if !g.asserts() {
		return nil
	}
	token, err := g.assertions.SignOwn(g.asserted, r.Method, r.URL.EscapedPath(), g.Now())
	if err == nil {
		setAssertion(r.Header, token)
	}
	return err
}

// setAssertion sets the header and sees that it is not taken for one of this
// connection alone, which a proxy would remove: clients can ask for that (RFC 9110
// section 7.6.1).
func setAssertion(h http.Header, token string) {
	h[assertion.Header] = []string{token}
	lines := h["Connection"]
	for i, line := range lines {
		var kept []string
		for name := range strings.SplitSeq(line, ",") {
			if !ownHeader(strings.TrimSpace(name)) {
				kept = append(kept, name)
			}
		}
		lines[i] = strings.Join(kept, ",")
	}
}
