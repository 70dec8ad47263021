package account

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/policies"
)

const (
	linkFor     = 30 * time.Minute // a mailed link is good for
	linksMax    = 3                // mailed to an account in an hour
	linksWithin = time.Hour
)

// strong is the apps and keys among an account's authenticators. Recovery codes stand
// in for them and are nothing alone.
func strong(all []auth.Factor) []auth.Factor {
	return slices.DeleteFunc(slices.Clone(all), func(f auth.Factor) bool { return f.Kind == auth.RecoveryCodes })
}

// active is those that can be used.
func active(all []auth.Factor) []auth.Factor {
	return slices.DeleteFunc(slices.Clone(all), func(f auth.Factor) bool { return f.State != auth.FactorActive })
}

// recovered reports whether the person of a hold gave the code of a recovery.
//
// A link or a code of an administrator is evidence too, but for the first factor only:
// neither can be used while there is a factor. One that is older than the hold was
// there all the time, so what was used for the hold was a recovery. Where all are
// younger, somebody bound one meanwhile, and is asked for it.
func (q *request) recovered(all []auth.Factor) (bool, error) {
	if q.Session != nil || q.Approve == nil || len(all) == 0 {
		return false, nil
	}
	hold, err := q.d.Holds.ByID(q.ctx(), q.Approve.Hold, q.Now)
	switch {
	case errors.Is(err, auth.ErrNoHold), errors.Is(err, auth.ErrHoldOver):
		return false, nil
	case err != nil:
		return false, err
	}
	if !slices.ContainsFunc(all, func(f auth.Factor) bool { return f.Created.Before(hold.Created) }) {
		return false, nil
	}
	return q.d.Slips.Evidence(q.ctx(), q.For, q.Now)
}

// evident reports whether there is evidence that the person of the visit, who has the
// right password, owns the account.
func (q *request) evident() (bool, error) {
	least := q.Policy.Evidence.Device
	if least > 0 && !q.DeviceSince.IsZero() && q.Now.Sub(q.DeviceSince) >= least {
		return true, nil
	}
	return q.d.Slips.Evidence(q.ctx(), q.For, q.Now)
}

// mailbox is where links and codes go: one address, since each further one would be a
// further way in.
func (q *request) mailbox() string {
	if all := q.d.addresses(q.Person); len(all) > 0 {
		return all[0]
	}
	return ""
}

// mailLink mails a link that is good in this browser only.
func (b *binding) mailLink() error {
	q := b.request
	to := q.mailbox()
	if to == "" || !q.Policy.Evidence.Mail {
		return q.to(b.Base)
	}
	sent, err := q.told(linkTemplate, to, q.Now.Add(-linksWithin), linksMax)
	if err != nil {
		return err
	}
	if sent >= linksMax {
		return q.page(http.StatusTooManyRequests, pages.Page{Kind: pages.Limited})
	}
	slip, token, err := q.d.Slips.Issue(q.ctx(), auth.Slip{
		Purpose: auth.SlipEnrolLink, Subject: q.Subject, For: q.For, By: ByOwner, Expires: q.Now.Add(linkFor),
	}, auth.Act{By: ByOwner}, q.Now)
	if err != nil {
		return err
	}
	// One of so many keys in an hour: also whoever asks many times at once gets no more.
	for n := range linksMax {
		hour := strconv.FormatInt(q.Now.Truncate(linksWithin).Unix(), 10)
		p, m := q.reader(message{linkTemplate, digest(q.Subject) + "/" + hour + "/" + strconv.Itoa(n), map[string]string{
			"url": q.Origin + LinkPath + "?t=" + url.QueryEscape(token), "until": slip.Expires.UTC().Format(time.RFC3339),
		}})
		created, err := q.d.Outbox.Put(q.ctx(), m.notice(p, q.name(), to), q.Now)
		if err != nil {
			return err
		}
		if created {
			return q.to(b.Base + "?sent=1")
		}
	}
	return q.page(http.StatusTooManyRequests, pages.Page{Kind: pages.Limited})
}

// useCode takes a code of an administrator or operator.
func (b *binding) useCode() error {
	q := b.request
	if !q.Policy.Evidence.Code {
		return q.to(b.Base)
	}
	err := q.act(actUse, map[string]string{"kind": string(auth.SlipEnrolCode)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		_, err := q.d.Slips.Use(ctx, auth.SlipEnrolCode, q.Subject, "", q.r.PostForm.Get(pages.FieldCode), q.For, by, at)
		return err
	})
	switch {
	case errors.Is(err, auth.ErrWrongCode):
		return q.to(b.Base + "?wrong=1")
	case err != nil:
		return err
	}
	return q.to(b.Base)
}

// Link serves what is behind a mailed link, ?t=TOKEN. It is good only for the browser
// that asked for it: whoever had the password and talks the owner into opening the
// link gains nothing, since the link works for the hold or session it was asked from.
// Opening alone does nothing, because mail programs and scanners open links too.
func (d *Desk) Link(w http.ResponseWriter, r *http.Request, v Visit) error {
	q := d.request(w, r, v)
	token := r.URL.Query().Get("t")
	usable := func() (bool, error) {
		if v.Subject == "" || v.For == "" {
			return false, nil
		}
		slip, err := d.Slips.Peek(q.ctx(), auth.SlipEnrolLink, token, v.Now)
		if errors.Is(err, auth.ErrWrongCode) {
			return false, nil
		}
		return err == nil && slip.Subject == v.Subject && slip.For == v.For, err
	}
	show := func() error {
		ok, err := usable()
		if err != nil {
			return err
		}
		return q.page(http.StatusOK, pages.EnrolLink{Action: LinkPath + "?t=" + url.QueryEscape(token), CSRF: v.CSRF, Usable: ok})
	}
	return q.by(show, func() error {
		ok, err := usable()
		if err != nil {
			return err
		}
		if !ok {
			return show()
		}
		err = q.act(actUse, map[string]string{"kind": string(auth.SlipEnrolLink)}, func(ctx context.Context, by auth.Act, at time.Time) error {
			_, err := d.Slips.UseToken(ctx, auth.SlipEnrolLink, token, v.For, by, at)
			return err
		})
		if err != nil && !errors.Is(err, auth.ErrWrongCode) {
			return err
		}
		if v.Base == AccountPath {
			return q.to(AccountPath + addPath)
		}
		return q.to(v.Base)
	})
}

// demanded reports whether the account must have a factor that can be used, from
// wherever it signs in: what is not known of a login counts as if it matched.
func (q *request) demanded() bool {
	due := q.Policy.Due(policies.FactorContext{
		Organization: q.Organization, Roles: q.Person.Roles, FirstSeen: q.Person.FirstSeen, Now: q.Now, Route: "login",
	})
	return due.Need == policies.NeedEnrol || !due.GraceUntil.IsZero()
}

// numbered is a name that none of the factors has.
func numbered(name string, all []auth.Factor) string {
	for n := 2; ; n++ {
		wanted := name
		if n > 2 {
			wanted += " " + strconv.Itoa(n-1)
		}
		if !slices.ContainsFunc(all, func(f auth.Factor) bool { return f.Name == wanted }) {
			return wanted
		}
	}
}
