package guard

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/account"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// newDesk makes the desk where people see to their accounts.
func (c *Core) newDesk(site pages.Site) *account.Desk {
	return &account.Desk{
		Factors: c.Factors, Slips: c.Slips, Sessions: c.Sessions, Devices: c.Devices, Directory: c.Directory, Holds: c.Holds, Outbox: c.Outbox,
		Site: site, Log: c.Log, Mailing: c.Mailing.Load(),
		Act: func(ctx context.Context, kind string, body any, do func(context.Context, string, time.Time) error) error {
			err := c.act(ctx, kind, body, true, do)
			if told := c.tellOwners(context.WithoutCancel(ctx)); told != nil {
				c.complain("telling owners", "error", told) // the next sweep does
			}
			return err
		},
		EndSession: func(ctx context.Context, id, by string) error {
			_, err := c.EndSession(ctx, id, by)
			return err
		},
		EndSessions: func(ctx context.Context, subject, except, by string) error {
			all, err := c.Sessions.OfSubject(ctx, subject, c.Now())
			if err != nil {
				return err
			}
			for _, s := range all {
				if s.ID == except {
					continue
				}
				if err := c.endOver(ctx, s.ID, by); err != nil {
					return err
				}
			}
			return nil
		},
		Resolve: func(ctx context.Context, name string) (string, error) {
			all := c.Digests("name", auth.CanonicalName(name))
			subject, _, _, err := c.Directory.ByTyped(ctx, all[0], all[1:]...)
			return subject, err
		},
	}
}

// deskVisit is who is at the desk.
func (v *visit) deskVisit(subject, secret string) (account.Visit, error) {
	g := v.guard
	visit := account.Visit{
		Subject: subject, Policy: g.factorPolicy, CSRF: g.csrfToken(secret), Origin: g.origin(v.r), Language: pages.Language(v.r),
		Client: clientWords(v.r), Country: v.source.Country, Now: v.now,
	}
	if subject == "" {
		return visit, nil
	}
	person, _, err := g.Directory.BySubject(v.r.Context(), subject)
	if err != nil {
		return visit, err
	}
	visit.Person, visit.Organization, visit.Account = person, person.Organization, accountName(person)
	device, err := g.Devices.Read(v.r.Context(), v.crumbs.device, subject, v.now)
	if err != nil {
		return visit, err
	}
	if device.State == string(detectors.Trusted) {
		visit.DeviceSince = device.Since
	}
	return visit, nil
}

// holdVisit is who is at the desk on the way to finish a held login.
func (v *visit) holdVisit(by approver) (account.Visit, error) {
	visit, err := v.deskVisit(by.hold.Subject, by.secret)
	visit.For, visit.Base, visit.Done = by.hold.ID, by.base+"/enrol", by.base
	visit.Approve = &auth.Approval{Hold: by.hold.ID, AAL: 2, By: v.source.Network.String()}
	return visit, err
}

// sessionVisit is who is at the desk while signed in.
func (v *visit) sessionVisit() (account.Visit, error) {
	visit, err := v.deskVisit(v.session.Subject, v.crumbs.session)
	if err != nil {
		return visit, err
	}
	factors, err := v.guard.Factors.List(v.r.Context(), v.session.Subject)
	visit.Session, visit.For, visit.Base, visit.Done = v.session, v.session.ID, account.AccountPath, account.AccountPath
	visit.Fresh = len(factors) == 0 || v.fresh(v.session)
	return visit, err
}

// serveHoldDesk serves what somebody needs who has no factor to give: a first one, or
// a way back.
func (g *Guard) serveHoldDesk(w http.ResponseWriter, v *visit, sub, path string, by approver) error {
	visit, err := v.holdVisit(by)
	if err != nil {
		return v.troubled(w, "the account desk", err)
	}
	switch sub {
	case "enrol":
		return g.at(v).Bind(w, v.r, below(path), visit)
	case "lost":
		return g.at(v).Lost(w, v.r, below(path), visit)
	}
	return redirect(w, visit.Base)
}

// at is the desk for a visit, which may raise its session.
func (g *Guard) at(v *visit) *account.Desk {
	d := *g.desk
	d.Raise = func(w http.ResponseWriter, _ *http.Request, visit account.Visit, kind auth.FactorKind) (account.Visit, error) {
		if err := v.raise(kind); err != nil {
			return visit, err
		}
		for _, line := range v.cookies {
			w.Header().Add("Set-Cookie", line)
		}
		v.cookies = nil
		visit.Session, visit.CSRF, visit.Fresh = v.session, g.csrfToken(v.crumbs.session), true
		return visit, nil
	}
	return &d
}

// serveAccount serves what people see and change of their own accounts.
func (g *Guard) serveAccount(w http.ResponseWriter, v *visit, rest string) error {
	if v.session == nil {
		return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonSessionEnded}).write(w, v.r)
	}
	if v.r.Method == http.MethodPost && !g.csrfGood(v.r.PostForm.Get(pages.FieldCSRF), v.crumbs.session) {
		return v.foreign(w)
	}
	visit, err := v.sessionVisit()
	if err != nil {
		return v.troubled(w, "the account desk", err)
	}
	return g.at(v).Account(w, v.r, below(rest), visit)
}

// serveLink serves what is behind a link that was mailed to somebody who binds a first
// factor. It is good in the browser that asked for it only: whoever sends it on, or has
// it sent, has nothing.
func (g *Guard) serveLink(w http.ResponseWriter, v *visit) error {
	var (
		visit  account.Visit
		err    error
		secret = "link"
	)
	id, mac, _ := strings.Cut(v.crumbs.approval, ".")
	if h, ok := v.holder(); ok && h.State == auth.HoldWaiting {
		secret = v.crumbs.hold
		visit, err = v.holdVisit(approver{hold: h, secret: secret, base: OwnPath + "factor", holder: true})
	} else if h, found := v.approving(id, mac); found {
		secret = v.crumbs.approval
		visit, err = v.holdVisit(approver{hold: h, secret: secret, base: OwnPath + "continue/" + h.ID})
	} else if v.session != nil {
		secret = v.crumbs.session
		visit, err = v.sessionVisit()
	} else {
		visit, err = v.deskVisit("", secret)
	}
	if err != nil {
		return v.troubled(w, "the account desk", err)
	}
	if v.r.Method == http.MethodPost && !g.csrfGood(v.r.PostForm.Get(pages.FieldCSRF), secret) {
		return v.foreign(w)
	}
	return g.at(v).Link(w, v.r, visit)
}

// approving is the hold that this browser may finish by its `continue` address.
func (v *visit) approving(id, mac string) (auth.Hold, bool) {
	g := v.guard
	if id == "" || !g.csrfGood(mac, "continue "+id) {
		return auth.Hold{}, false
	}
	h, err := g.Holds.ByID(v.r.Context(), id, v.now)
	if err != nil || h.State != auth.HoldWaiting || !h.Matched {
		return auth.Hold{}, false
	}
	return h, g.factorPolicy.Continue == "anywhere" || h.Network == v.source.Network.String()
}

// serveRecovery stops the recovery of an account, from where the account is signed in
// or by the link that was mailed with the notice.
func (g *Guard) serveRecovery(w http.ResponseWriter, v *visit, rest string) error {
	if rest != "cancel" {
		http.NotFound(w, v.r)
		return nil
	}
	subject, secret := "", "recovery"
	if v.session != nil {
		subject, secret = v.session.Subject, v.crumbs.session
	}
	if v.r.Method == http.MethodPost && !g.csrfGood(v.r.PostForm.Get(pages.FieldCSRF), secret) {
		return v.foreign(w)
	}
	visit, err := v.deskVisit(subject, secret)
	if err != nil {
		return v.troubled(w, "the account desk", err)
	}
	visit.Session = v.session
	return g.at(v).CancelRecovery(w, v.r, visit)
}

// grace is until when an account that has no factor must have one; zero: no such time.
func (g *Guard) grace(p auth.Person, now time.Time) time.Time {
	return g.factorPolicy.Due(policies.FactorContext{Organization: p.Organization, Roles: p.Roles, FirstSeen: p.FirstSeen, Now: now}).GraceUntil
}

// maskedAll is mail addresses as they are shown to whoever has only the password.
func maskedAll(addresses []string) []string {
	var all []string
	for _, a := range addresses {
		all = append(all, pages.Masked(a))
	}
	return all
}

// below is the path that a desk's page has below its base.
func below(rest string) string {
	if rest == "" {
		return ""
	}
	return "/" + rest
}
