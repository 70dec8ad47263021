package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
)

const (
	byRecovery = "recovery" // who ends the sessions before a recovery

	recoveryFor      = 24 * time.Hour // a mailed code of a recovery is good for (SP 800-63B-4 section 4.2.1.2)
	recoveriesMax    = 3              // begun for an account in a day
	recoveriesWithin = 24 * time.Hour
	ripenBatch       = 100 // recoveries that one call of Ripen looks at
)

// Lost lets the person of a hold, who has the right password and has lost every
// factor, come back to the account; path is what follows
// LostPath, or another place's /lost, beside v.Base.
//
// That is a way of SP 800-63B-4 section 4.2.2.2: a code that was issued to an address
// on file, and the password. Both can be in the hands of one thief, who reads the
// mail too. So a time passes before the code is mailed; all addresses are told when
// it begins, and whoever has a session of the account, or the mailed link, can stop
// it until the code is used.
//
// Using the code removes no factor by itself. It lets the person of this hold bind a
// new one; only with that, in [Desk.Bind], the old ones go. If it removed them, the
// account would for a while be one without a factor, which the password alone opens
// where the policy asks for no more, and which other evidence is good for. And who
// stops halfway, or finds the phone after all, has lost nothing.
func (d *Desk) Lost(w http.ResponseWriter, r *http.Request, path string, v Visit) error {
	q := d.request(w, r, v)
	if v.Session != nil || v.Approve == nil {
		return q.to(AccountPath)
	}
	all, err := d.Factors.List(q.ctx(), v.Subject)
	if err != nil {
		return err
	}
	recovered, err := q.recovered(all)
	if err != nil {
		return err
	}
	if len(all) == 0 || recovered {
		return q.to(q.Base)
	}
	open, ok, err := d.recovery(q.ctx(), v.Subject, v.Now)
	if err != nil {
		return err
	}
	switch below(path) {
	case "":
		return q.by(func() error { return q.lost(open, ok) }, func() error { return q.beginRecovery(ok) })
	case "/code":
		return q.by(func() error { return q.to(q.lostPath()) }, func() error {
			if !ok || v.Now.Before(open.NotBefore) {
				return q.to(q.lostPath())
			}
			return q.useRecovery()
		})
	}
	view := pages.AccountNone{}
	view.Base = q.lostPath()
	return q.page(http.StatusNotFound, view)
}

func (q *request) lostPath() string { return q.held() + lostPath }

// recovery is the recovery of an account that is open.
func (d *Desk) recovery(ctx context.Context, subject string, now time.Time) (auth.Slip, bool, error) {
	open, err := d.Slips.Open(ctx, subject, now)
	if err != nil {
		return auth.Slip{}, false, err
	}
	for _, s := range open {
		if s.Purpose == auth.SlipRecovery {
			return s, true, nil
		}
	}
	return auth.Slip{}, false, nil
}

// lost says how far the recovery is.
func (q *request) lost(open auth.Slip, ok bool) error {
	var mail []string
	for _, a := range q.d.addresses(q.Person) {
		mail = append(mail, pages.Masked(a))
	}
	switch {
	case ok && q.Now.Before(open.NotBefore):
		return q.page(http.StatusOK, pages.RecoverBegun{Until: q.local(open.NotBefore), Mail: mail[:min(len(mail), 1)]})
	case ok:
		return q.page(http.StatusOK, pages.RecoverCode{Action: q.lostPath() + "/code", CSRF: q.CSRF, Failed: q.r.URL.Query().Has("wrong")})
	case len(mail) == 0:
		return q.page(http.StatusOK, pages.LostElse{Cancel: q.held()})
	}
	return q.page(http.StatusOK, pages.Lost{Action: q.lostPath(), CSRF: q.CSRF, Wait: q.Policy.Recovery.Wait, Mail: mail, Cancel: q.held()})
}

// beginRecovery begins a recovery, unless one is open. All are told before it begins:
// a crash in between costs an idle message, not an untold recovery.
func (q *request) beginRecovery(open bool) error {
	to := q.d.addresses(q.Person)
	if open || len(to) == 0 {
		return q.to(q.lostPath())
	}
	since := q.Now.Add(-recoveriesWithin)
	begun, err := q.told(begunTemplate, to[0], since, recoveriesMax)
	if err != nil {
		return err
	}
	if begun >= recoveriesMax {
		return q.page(http.StatusTooManyRequests, pages.Page{Kind: pages.Limited})
	}
	token := rand.Text() + rand.Text()
	id := cancels(token)
	err = q.act(actBegin, map[string]string{"recovery": id}, func(ctx context.Context, by auth.Act, at time.Time) error {
		due := at.Add(q.Policy.Recovery.Wait)
		err := q.tell(ctx, to, message{begunTemplate, digest(q.Subject) + "/" + id, map[string]string{
			"until": due.UTC().Format(time.RFC3339), "url": q.Origin + CancelPath + "?t=" + url.QueryEscape(token),
		}}, at)
		if err != nil {
			return err
		}
		_, _, err = q.d.Slips.Issue(ctx, auth.Slip{ID: id, Purpose: auth.SlipRecovery, Subject: q.Subject, By: ByOwner, NotBefore: due}, by, at)
		return err
	})
	if err != nil {
		return err
	}
	return q.to(q.lostPath())
}

// cancels is the id of the recovery that a mailed token stops: its hash, so that
// nobody can make a token from an id that is in the database or on the record, nor one
// that stops anything else.
func cancels(token string) string {
	h := sha256.Sum256([]byte("kidoban recovery cancel v1\x00" + token))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h[:])[:26]
}

// useRecovery takes the mailed code: from now on this hold may bind a factor.
func (q *request) useRecovery() error {
	err := q.act(actUse, map[string]string{"kind": string(auth.SlipRecovery)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		_, err := q.d.Slips.Use(ctx, auth.SlipRecovery, q.Subject, "", q.r.PostForm.Get(pages.FieldCode), q.For, by, at)
		return err
	})
	switch {
	case errors.Is(err, auth.ErrWrongCode):
		return q.to(q.lostPath() + "?wrong=1")
	case err != nil:
		return err
	}
	return q.to(q.Base)
}

// CancelRecovery stops a recovery: that of the account, for whoever has a session of
// it, or that of a mailed link, ?t=TOKEN. Opening the link alone does nothing.
func (d *Desk) CancelRecovery(w http.ResponseWriter, r *http.Request, v Visit) error {
	q := d.request(w, r, v)
	token := r.URL.Query().Get("t")
	action := CancelPath
	if token != "" {
		action += "?t=" + url.QueryEscape(token)
	} else if v.Session == nil {
		return q.page(http.StatusNotFound, pages.StopOver{})
	}
	return q.by(func() error {
		return q.page(http.StatusOK, pages.RecoverStop{Action: action, CSRF: v.CSRF})
	}, func() error {
		id := cancels(token)
		if token == "" {
			open, ok, err := d.recovery(q.ctx(), v.Subject, v.Now)
			if err != nil {
				return err
			}
			if !ok {
				return q.page(http.StatusOK, pages.StopOver{})
			}
			id = open.ID
		}
		// The answer is no redirection: an address that says that a recovery was
		// stopped would be one for a thief to send.
		switch err := q.cancel(id); {
		case errors.Is(err, auth.ErrNoSlip):
			return q.page(http.StatusOK, pages.StopOver{})
		case err != nil:
			return err
		}
		return q.page(http.StatusOK, pages.RecoverStop{Stopped: true})
	})
}

// cancel stops a recovery and tells its account.
func (q *request) cancel(id string) error {
	return q.act(actCancel, map[string]string{"recovery": id}, func(ctx context.Context, by auth.Act, at time.Time) error {
		slip, err := q.d.Slips.Cancel(ctx, id, by, at)
		if err != nil {
			return err
		}
		p, _, err := q.d.Directory.BySubject(ctx, slip.Subject)
		if err == nil {
			p.Subject = slip.Subject
			err = q.d.tell(ctx, p, nameOf(p), q.d.addresses(p), message{cancelledTemplate, digest(slip.Subject) + "/" + id, nil}, at)
		}
		if err != nil { // it is stopped
			q.d.Log.Error("nobody was told that a recovery was stopped", "account", slip.Subject, "error", err)
		}
		return nil
	})
}

// nameOf is what to call an account whose owner is not here.
func nameOf(p auth.Person) string {
	if len(p.Names) > 0 {
		return p.Names[0]
	}
	return p.Subject
}

// Ripen mails the codes of recoveries whose waiting time is over, each once, however
// many nodes call it. It is to be called every 10 s. Where a crash comes between the
// code and the message the code is lost, and the recovery is begun again: no code is
// ever made twice.
func (d *Desk) Ripen(ctx context.Context, now time.Time) error {
	if !d.Mailing {
		return nil // they wait, for 30 days
	}
	due, err := d.Slips.Due(ctx, auth.SlipRecovery, now, ripenBatch)
	if err != nil {
		return fmt.Errorf("looking for recoveries that are due: %w", err)
	}
	var faults []error
	for _, s := range due {
		if err := d.ripen(ctx, s, now); err != nil && !errors.Is(err, auth.ErrNoSlip) {
			faults = append(faults, fmt.Errorf("mailing the code of recovery %s: %w", s.ID, err))
		}
	}
	return errors.Join(faults...)
}

func (d *Desk) ripen(ctx context.Context, s auth.Slip, now time.Time) error {
	p, _, err := d.Directory.BySubject(ctx, s.Subject)
	if err != nil {
		return err
	}
	p.Subject = s.Subject
	ripe, code, err := d.Slips.Ripen(ctx, s.ID, recoveryFor, now)
	if err != nil {
		return err
	}
	to := d.addresses(p)
	if len(to) == 0 { // any more; one that waited on would keep those after it from their turn
		return errors.New("the account has no mail address any more: the recovery is over in a day")
	}
	return d.tell(ctx, p, nameOf(p), to[:1], message{readyTemplate, digest(s.Subject) + "/" + s.ID, map[string]string{
		"code": code, "until": ripe.Expires.UTC().Format(time.RFC3339),
	}}, now)
}
