package account

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
)

// Account serves the pages on which people see to their own account; path is what
// follows AccountPath. They are for sessions; who comes without one, or without an
// account, is told that there is nothing.
func (d *Desk) Account(w http.ResponseWriter, r *http.Request, path string, v Visit) error {
	q := d.request(w, r, v)
	path = below(path)
	if v.Session == nil || v.Subject == "" || v.Session.Subject != v.Subject {
		return q.page(http.StatusNotFound, pages.AccountNone{Account: pages.Account{Base: "/"}})
	}
	if rest, ok := strings.CutPrefix(path, addPath); ok && (rest == "" || rest[0] == '/') {
		v.Base, v.Done = AccountPath+addPath, AccountPath+"/factors?done="+pages.DoneBound
		return d.bind(w, r, rest, v, q.frame)
	}
	if rest, ok := strings.CutPrefix(path, "/factors/"); ok {
		return q.factor(rest)
	}
	switch path {
	case "":
		return q.by(q.home, nil)
	case "/factors":
		return q.by(q.listFactors, nil)
	case "/codes":
		return q.by(q.showCodes, q.replaceCodes)
	case "/codes/kept":
		done := func() error { return q.to(AccountPath + "/codes") }
		return q.by(done, done)
	case "/devices":
		return q.by(q.listDevices, q.forgetDevice)
	case "/sessions":
		return q.by(q.listSessions, q.endSession)
	case "/sessions/others":
		return q.by(func() error { return q.to(AccountPath + "/sessions") }, q.endOthers)
	case "/history":
		return q.by(q.history, nil)
	case "/recovery/cancel":
		return q.by(func() error { return q.to(AccountPath) }, q.cancelHere)
	case "/help":
		return q.by(q.askHelp, q.help)
	}
	return q.none()
}

// frame fills in what each page of self-service has.
func (q *request) frame(a *pages.Account) error {
	a.CSRF, a.Base, a.Account = q.CSRF, AccountPath, q.name()
	open, ok, err := q.d.recovery(q.ctx(), q.Subject, q.Now)
	if err != nil {
		return err
	}
	if ok {
		a.Recovering = q.local(open.NotBefore)
	}
	query := q.r.URL.Query()
	if done := query.Get("done"); slices.Contains(pages.Dones, done) {
		a.Done = done
	}
	if failed := query.Get("failed"); slices.Contains(pages.Faileds, failed) {
		a.Failed = failed
	}
	if a.Done == pages.DoneBound || a.Done == pages.DoneRemoved {
		// ASVS 5.0 7.4.3: whoever changes a factor may have a reason.
		others, err := q.others()
		if err != nil {
			return err
		}
		a.Others = len(others)
	}
	return nil
}

// none answers as for what does not exist: also for what is another account's.
func (q *request) none() error {
	var view pages.AccountNone
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	view.Done, view.Failed, view.Others = "", "", 0
	return q.page(http.StatusNotFound, view)
}

// others are the account's sessions but this one.
func (q *request) others() ([]auth.Session, error) {
	all, err := q.d.Sessions.OfSubject(q.ctx(), q.Subject, q.Now)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(s auth.Session) bool { return s.ID == q.Session.ID }), nil
}

// home is the overview.
func (q *request) home() error {
	var view pages.AccountHome
	all, err := q.d.Factors.List(q.ctx(), q.Subject)
	if err != nil {
		return err
	}
	usable := active(strong(all))
	view.Factors, view.Locked = len(usable), len(usable) == 0 && len(strong(all)) > 0
	for _, f := range all {
		if f.Kind == auth.RecoveryCodes && f.State == auth.FactorActive {
			view.Codes = f.CodesLeft
		}
	}
	devices, err := q.d.Devices.OfSubject(q.ctx(), q.Subject, q.Now)
	if err != nil {
		return err
	}
	others, err := q.others()
	if err != nil {
		return err
	}
	view.Devices, view.Sessions, view.Help = len(devices), len(others)+1, q.administers()
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	return q.page(http.StatusOK, view)
}

// cancelHere stops the recovery that the page told of.
func (q *request) cancelHere() error {
	open, ok, err := q.d.recovery(q.ctx(), q.Subject, q.Now)
	if err != nil {
		return err
	}
	if ok {
		if err := q.cancel(open.ID); err != nil && !errors.Is(err, auth.ErrNoSlip) {
			return err
		}
	}
	return q.to(AccountPath + "?done=" + pages.DoneCancelled)
}

// sure reports whether the account may be changed now: it has no factor, or one was
// given lately. If not, it has answered, and the gate comes back to the page.
func (q *request) sure(all []auth.Factor, page string) (ok bool, err error) {
	if len(all) == 0 || q.Fresh {
		return true, nil
	}
	return false, q.stepUp(page)
}

// listFactors lists apps and keys.
func (q *request) listFactors() error {
	all, err := q.d.Factors.List(q.ctx(), q.Subject)
	if err != nil {
		return err
	}
	var view pages.AccountFactors
	for _, f := range strong(all) {
		view.Factors = append(view.Factors, q.row(f))
	}
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	return q.page(http.StatusOK, view)
}

// row is a factor as its owner sees it.
func (q *request) row(f auth.Factor) pages.FactorRow {
	row := pages.FactorRow{ID: f.ID, Kind: string(f.Kind), Name: f.Name, Added: q.local(f.Created), State: "active", Failures: f.Failures}
	if !f.Used.IsZero() {
		row.Used = q.local(f.Used)
	}
	switch {
	case f.State == auth.FactorActive:
	case f.DisabledBy == ByOwner:
		row.State = "off"
	case f.DisabledBy == byThrottle:
		row.State = "locked"
	default:
		row.State = "stopped"
	}
	return row
}

// byThrottle disabled what was guessed at too often: [auth.Factor].DisabledBy.
const byThrottle = "throttle"

// factor serves one factor, ID or ID/ACTION.
func (q *request) factor(path string) error {
	id, action, _ := strings.Cut(path, "/")
	all, err := q.d.Factors.List(q.ctx(), q.Subject)
	if err != nil {
		return err
	}
	mine := strong(all)
	i := slices.IndexFunc(mine, func(f auth.Factor) bool { return f.ID == id })
	if i < 0 {
		return q.none()
	}
	f := mine[i]
	page := AccountPath + "/factors/" + f.ID
	back := func() error { return q.to(page) }
	left := slices.Delete(slices.Clone(mine), i, i+1)
	switch action {
	case "":
		return q.by(func() error {
			view := pages.AccountFactor{Factor: q.row(f), Only: len(left) == 0, Last: len(active(left)) == 0}
			if err := q.frame(&view.Account); err != nil {
				return err
			}
			return q.page(http.StatusOK, view)
		}, nil)
	case "rename":
		return q.by(back, func() error { return q.renameFactor(f, page) })
	case "disable":
		return q.by(back, func() error { return q.disableFactor(f, all, page) })
	case "enable":
		return q.by(back, func() error { return q.enableFactor(f, all, page) })
	case "remove":
		return q.by(back, func() error { return q.removeFactor(f, all, left, page) })
	}
	return q.none()
}

// changed answers when a factor was changed, or not.
func (q *request) changed(err error, page, done string) error {
	switch {
	case errors.Is(err, auth.ErrNoFactor): // somebody else was first
		return q.to(AccountPath + "/factors")
	case errors.Is(err, auth.ErrRebind):
		return q.to(page + "?failed=" + pages.FailedRebind)
	case err != nil:
		return err
	}
	return q.to(page + "?done=" + done)
}

func (q *request) renameFactor(f auth.Factor, page string) error {
	name := strings.TrimSpace(q.r.PostForm.Get(pages.FieldName))
	if name == "" || cut(name) != name {
		return q.to(page + "?failed=" + pages.FailedName)
	}
	err := q.act(actRename, map[string]string{"factor": f.ID, "kind": string(f.Kind)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		_, _, err := q.d.Factors.Rename(ctx, q.Subject, f.ID, name, by, at)
		return err
	})
	return q.changed(err, page, pages.DoneRenamed)
}

// disableFactor suspends a factor. Who does it may have lost it, so no factor is asked
// for (SP 800-63B-4 section 4.3), unless nothing would be left to come back with.
func (q *request) disableFactor(f auth.Factor, all []auth.Factor, page string) error {
	left := slices.DeleteFunc(active(all), func(o auth.Factor) bool {
		return o.ID == f.ID || o.Kind == auth.RecoveryCodes && o.CodesLeft == 0
	})
	if len(left) == 0 {
		if ok, err := q.sure(all, page); !ok {
			return err
		}
	}
	err := q.act(actDisable, map[string]string{"factor": f.ID, "kind": string(f.Kind)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		_, _, err := q.d.Factors.Disable(ctx, q.Subject, f.ID, by, at)
		return err
	})
	return q.changed(err, page, pages.DoneDisabled)
}

func (q *request) enableFactor(f auth.Factor, all []auth.Factor, page string) error {
	if ok, err := q.sure(all, page); !ok {
		return err
	}
	if f.State == auth.FactorDisabled && f.DisabledBy != ByOwner && f.DisabledBy != byThrottle {
		return q.to(page) // whoever else did it had a reason
	}
	err := q.act(actEnable, map[string]string{"factor": f.ID, "kind": string(f.Kind)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		_, _, err := q.d.Factors.Enable(ctx, q.Subject, f.ID, by, at)
		return err
	})
	return q.changed(err, page, pages.DoneEnabled)
}

// removeFactor unbinds a factor. With the last one the recovery codes go: they stand in
// for it. They go first, so that there are never codes alone.
func (q *request) removeFactor(f auth.Factor, all, left []auth.Factor, page string) error {
	if ok, err := q.sure(all, page); !ok {
		return err
	}
	if len(active(left)) == 0 && q.demanded() {
		return q.to(page + "?failed=" + pages.FailedRequired)
	}
	if len(left) == 0 {
		for _, codes := range all {
			if codes.Kind == auth.RecoveryCodes {
				if err := q.remove(codes); err != nil && !errors.Is(err, auth.ErrNoFactor) {
					return err
				}
			}
		}
	}
	return q.changed(q.remove(f), AccountPath+"/factors", pages.DoneRemoved)
}

// fewCodes is from when on new recovery codes are recommended.
const fewCodes = 3

// showCodes says how many recovery codes are left.
func (q *request) showCodes() error {
	all, err := q.d.Factors.List(q.ctx(), q.Subject)
	if err != nil {
		return err
	}
	view := pages.AccountCodes{Offer: len(strong(all)) > 0}
	for _, f := range all {
		if f.Kind == auth.RecoveryCodes {
			view.Made = q.local(f.Created)
			if f.State == auth.FactorActive {
				view.Left = f.CodesLeft
			}
			view.Few = view.Left <= fewCodes
		}
	}
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	return q.page(http.StatusOK, view)
}

// replaceCodes makes new codes and shows them, once.
func (q *request) replaceCodes() error {
	all, err := q.d.Factors.List(q.ctx(), q.Subject)
	if err != nil {
		return err
	}
	page := AccountPath + "/codes"
	if len(strong(all)) == 0 {
		return q.to(page + "?failed=" + pages.FailedNoFactor)
	}
	if ok, err := q.sure(all, page); !ok {
		return err
	}
	codes, err := q.newCodes()
	if err != nil {
		return err
	}
	return q.page(http.StatusOK, pages.Codes{CSRF: q.CSRF, Codes: codes, Account: q.name(), Next: page + "/kept", Replaced: true})
}
