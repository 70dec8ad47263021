package account

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
)

// addPath is where a factor is added, below AccountPath.
const addPath = "/add"

// Bind lets the person of a hold or session add an authenticator; path is what follows
// v.Base. It is the dangerous moment: whoever has only got hold of the password must
// not be the one who binds. So
//
//   - the first one needs evidence: a device that the account has known for as long as
//     the policy says, a link that was mailed and opened in this browser, or a code of
//     an administrator or operator;
//   - a further one needs another factor, given lately (SP 800-63B-4 section 4.1.2.1,
//     ASVS 5.0 7.5.1): in a session, since at a hold the factor lets in anyway;
//   - at a hold the code of a recovery stands for both, see [Desk.Lost].
//
// That is looked at again when the authenticator is bound. At a hold, binding approves
// it. Ten recovery codes come with the first one, and are shown in the answer. Then
// the person goes on to v.Done. An approved hold may still come by: it is sent on.
func (d *Desk) Bind(w http.ResponseWriter, r *http.Request, path string, v Visit) error {
	return d.bind(w, r, path, v, nil)
}

// binding is the adding of a factor.
type binding struct {
	*request
	frame     func(*pages.Account) error // of self-service; nil elsewhere
	factors   []auth.Factor
	recovered bool
	allowed   bool
}

func (d *Desk) bind(w http.ResponseWriter, r *http.Request, path string, v Visit, frame func(*pages.Account) error) error {
	q := d.request(w, r, v)
	b := &binding{request: q, frame: frame}
	path = below(path)
	if path == "/kept" {
		return q.by(func() error { return q.to(v.Done) }, func() error { return q.to(v.Done) })
	}
	var err error
	if b.factors, err = d.Factors.List(q.ctx(), v.Subject); err != nil {
		return err
	}
	if b.recovered, err = q.recovered(b.factors); err != nil {
		return err
	}
	switch {
	case b.recovered:
		b.allowed = true
	case len(b.factors) > 0 && v.Session == nil:
		return b.ask()
	case len(b.factors) > 0 && !v.Fresh:
		return q.stepUp(v.Base)
	case len(b.factors) > 0:
		b.allowed = true
	default:
		if b.allowed, err = q.evident(); err != nil {
			return err
		}
	}
	switch path {
	case "":
		return q.by(b.choose, b.chosen)
	case "/link", "/code":
		if b.allowed {
			return q.to(v.Base)
		}
		if path == "/link" {
			return q.by(nil, b.mailLink)
		}
		return q.by(nil, b.useCode)
	}
	if !b.allowed {
		return q.to(v.Base)
	}
	switch path {
	case "/app":
		return q.by(b.askApp, b.finishApp)
	case "/key":
		return q.by(b.askKey, b.finishKey)
	case "/key/begin":
		return q.by(nil, b.beginKey)
	}
	return b.nothing()
}

// ask has the gate ask for the factor that the account has. A hold that waits for the
// first one, while somebody bound it elsewhere, waits for that one from now on.
func (b *binding) ask() error {
	if b.Approve != nil {
		_, err := b.d.Holds.Need(b.ctx(), b.Approve.Hold, auth.NeedFactor, b.Now)
		if err != nil && !errors.Is(err, auth.ErrHoldOver) && !errors.Is(err, auth.ErrNoHold) {
			return err
		}
	}
	return b.to(b.held())
}

func (b *binding) nothing() error {
	view := pages.AccountNone{}
	view.Base = b.Base
	if b.frame != nil {
		if err := b.frame(&view.Account); err != nil {
			return err
		}
	}
	return b.page(http.StatusNotFound, view)
}

// choose offers what can be bound, or ways to give evidence first.
func (b *binding) choose() error {
	query := b.r.URL.Query()
	var mail []string
	var link, code string
	if to := b.mailbox(); to != "" && b.Policy.Evidence.Mail {
		mail, link = []string{pages.Masked(to)}, b.Base+"/link"
	}
	if b.Policy.Evidence.Code {
		code = b.Base + "/code"
	}
	if b.frame == nil {
		return b.page(http.StatusOK, pages.Owed{
			CSRF: b.CSRF, Evidence: b.allowed, Action: b.Base,
			Mail: mail, LinkAction: link, Sent: query.Has("sent"), CodeAction: code, Failed: query.Has("wrong"),
			Cancel: b.held() + "/cancel",
		})
	}
	view := pages.AccountAdd{
		Evidence: b.allowed, Action: b.Base,
		Mail: mail, LinkAction: link, Sent: query.Has("sent"), CodeAction: code, WrongCode: query.Has("wrong"),
		Device: b.Policy.Evidence.Device,
	}
	if err := b.frame(&view.Account); err != nil {
		return err
	}
	return b.page(http.StatusOK, view)
}

// back begins again, and says why where that can be said.
func (b *binding) back(failed string) error { return b.to(b.Base + "?failed=" + failed) }

// The names that authenticators get. Their owners can give others.
var firstNames = map[auth.FactorKind]map[string]string{
	auth.TOTP: {"en": "Authenticator app", "ja": "認証アプリ"},
	auth.Key:  {"en": "Passkey", "ja": "パスキー"},
}

func (b *binding) firstName(kind auth.FactorKind) string {
	names := firstNames[kind]
	name, ok := names[b.Language]
	if !ok {
		name = names["en"]
	}
	return numbered(name, b.factors)
}

// chosen begins to bind what was chosen. The secret of an app is in the answer: it can
// be shown once.
func (b *binding) chosen() error {
	if !b.allowed {
		return b.to(b.Base)
	}
	switch b.r.PostForm.Get(pages.FieldDo) {
	case "key":
		return b.to(b.Base + "/key")
	case "totp":
	default:
		return b.to(b.Base)
	}
	begin := func() (auth.TOTPEnrolment, error) {
		return b.d.Factors.BeginTOTP(b.ctx(), b.Subject, b.name(), b.firstName(auth.TOTP), b.Now)
	}
	e, err := begin()
	if errors.Is(err, auth.ErrTooManyFactors) && b.recovered {
		if err = b.makeRoom(auth.TOTP); err == nil {
			e, err = begin()
		}
	}
	switch {
	case errors.Is(err, auth.ErrTooManyFactors):
		return b.back(pages.FailedFull)
	case err != nil:
		return err
	}
	return b.page(http.StatusOK, pages.EnrolTOTP{
		Action: b.Base + "/app?id=" + url.QueryEscape(e.ID), CSRF: b.CSRF, URI: e.URI, Secret: e.Secret, Account: b.name(), Cancel: b.Base,
	})
}

// makeRoom removes the oldest authenticator of a kind, of an account that is being
// recovered: all of these have been lost, and go when the new one is there.
func (b *binding) makeRoom(kind auth.FactorKind) error {
	for _, f := range b.factors {
		if f.Kind == kind {
			return b.remove(f)
		}
	}
	return auth.ErrTooManyFactors
}

// askApp asks for another code, after a wrong one. The secret is not shown again.
func (b *binding) askApp() error {
	id := b.r.URL.Query().Get("id")
	if id == "" {
		return b.to(b.Base)
	}
	return b.page(http.StatusOK, pages.AppCode{Action: b.Base + "/app?id=" + url.QueryEscape(id), CSRF: b.CSRF, Cancel: b.Base})
}

func (b *binding) finishApp() error {
	id := b.r.URL.Query().Get("id")
	err := b.act(actBind, map[string]string{"kind": string(auth.TOTP)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		by.Approve = b.Approve
		_, _, err := b.d.Factors.FinishTOTP(ctx, b.Subject, id, b.r.PostForm.Get(pages.FieldCode), by, at)
		return err
	})
	switch {
	case errors.Is(err, auth.ErrWrongCode):
		return b.to(b.Base + "/app?id=" + url.QueryEscape(id))
	case errors.Is(err, auth.ErrBindingOver):
		return b.back(pages.FailedOver)
	case errors.Is(err, auth.ErrTooManyFactors):
		return b.back(pages.FailedFull)
	case errors.Is(err, auth.ErrHoldOver):
		return b.to(b.held())
	case err != nil:
		return err
	}
	return b.bound(auth.TOTP)
}

func (b *binding) askKey() error {
	return b.page(http.StatusOK, pages.EnrolKey{
		Action: b.Base + "/key", CSRF: b.CSRF, Begin: b.Base + "/key/begin", Name: b.firstName(auth.Key),
		Failed: b.r.URL.Query().Has("failed"), Cancel: b.Base,
	})
}

// purpose ties the challenge of a key to this visit.
func (b *binding) purpose() string { return "bind at " + b.For }

// beginKey answers the script with what the browser needs.
func (b *binding) beginKey() error {
	name := strings.TrimSpace(b.r.PostForm.Get(pages.FieldName))
	if name == "" {
		name = b.firstName(auth.Key)
	}
	begin := func() ([]byte, error) {
		return b.d.Factors.BeginBindKey(b.ctx(), b.Subject, b.name(), cut(name), b.purpose(), false, b.Now)
	}
	options, err := begin()
	if errors.Is(err, auth.ErrTooManyFactors) && b.recovered {
		if err = b.makeRoom(auth.Key); err == nil {
			options, err = begin()
		}
	}
	h := b.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case errors.Is(err, auth.ErrTooManyFactors):
		b.w.WriteHeader(http.StatusConflict)
		return nil
	case err != nil:
		return err
	}
	h.Set("Content-Type", "application/json")
	_, err = b.w.Write(options)
	return err
}

func (b *binding) finishKey() error {
	err := b.act(actBind, map[string]string{"kind": string(auth.Key)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		by.Approve = b.Approve
		_, _, err := b.d.Factors.FinishBindKey(ctx, b.Subject, b.purpose(), []byte(b.r.PostForm.Get(pages.FieldKey)), by, at)
		return err
	})
	switch {
	case errors.Is(err, auth.ErrHoldOver):
		return b.to(b.held())
	case errors.Is(err, auth.ErrTooManyFactors):
		return b.back(pages.FailedFull)
	case errors.Is(err, auth.ErrUncertain), b.ctx().Err() != nil:
		return err
	case err != nil: // what the browser sent, most likely; nothing was bound
		b.d.Log.Warn("a key was not bound", "account", b.Subject, "error", err)
		return b.to(b.Base + "/key?failed=1")
	}
	return b.bound(auth.Key)
}

// bound goes on when there is a new authenticator. What fails from here on does not
// undo it: the person goes on, and finds the rest on the account's page.
func (b *binding) bound(kind auth.FactorKind) error {
	before := b.factors
	if b.recovered {
		b.settle(before)
	}
	if b.Session != nil && b.d.Raise != nil {
		v, err := b.d.Raise(b.w, b.r, b.Visit, kind)
		if err != nil {
			b.d.Log.Error("a session was not raised after a factor was bound", "session", b.Session.ID, "error", err)
		} else {
			v.Base, v.Done = b.Base, b.Done
			b.Visit = v
		}
	}
	for _, f := range before {
		if f.Kind == auth.RecoveryCodes && f.State == auth.FactorActive && f.CodesLeft > 0 && !b.recovered {
			return b.to(b.Done)
		}
	}
	codes, err := b.newCodes()
	if err != nil {
		b.d.Log.Error("recovery codes were not made after a factor was bound", "account", b.Subject, "error", err)
		return b.to(b.Done)
	}
	return b.page(http.StatusOK, pages.Codes{CSRF: b.CSRF, Codes: codes, Account: b.name(), Next: b.Base + "/kept"})
}

// settle ends what was there before a recovery: the factors, which somebody else may
// have by now, other log-ins that wait or were approved by them, what devices are
// remembered, and all sessions. It comes after the new factor was bound, so that the
// account is never without one. Recovery codes go when new ones are made.
func (b *binding) settle(before []auth.Factor) {
	for _, f := range strong(before) {
		if err := b.remove(f); err != nil && !errors.Is(err, auth.ErrNoFactor) {
			b.d.Log.Error("a factor was not removed after a recovery: remove it", "account", b.Subject, "factor", f.ID, "error", err)
		}
	}
	if err := b.forget(); err != nil {
		b.d.Log.Error("not all of what was given before a recovery was taken back: end the account's log-ins and sessions", "account", b.Subject, "error", err)
	}
	if err := b.d.EndSessions(b.ctx(), b.Subject, "", byRecovery); err != nil {
		b.d.Log.Error("the sessions before a recovery were not ended: end them", "account", b.Subject, "error", err)
	}
}

// forget ends the account's other held log-ins, and forgets what devices it remembers.
func (b *binding) forget() error {
	ctx, by := b.ctx(), auth.Act{By: byRecovery}
	held, err := b.d.Holds.OfSubject(ctx, b.Subject, b.Now)
	faults := []error{err}
	for _, h := range held {
		if h.ID == b.Approve.Hold {
			continue
		}
		if _, err := b.d.Holds.GiveUp(ctx, h.ID, by, false, b.Now); !errors.Is(err, auth.ErrHoldOver) && !errors.Is(err, auth.ErrNoHold) {
			faults = append(faults, err)
		}
	}
	slips, err := b.d.Slips.Open(ctx, b.Subject, b.Now)
	faults = append(faults, err)
	for _, s := range slips {
		if s.Purpose != auth.SlipRemember {
			continue
		}
		if _, err := b.d.Slips.Cancel(ctx, s.ID, by, b.Now); !errors.Is(err, auth.ErrNoSlip) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (q *request) remove(f auth.Factor) error {
	return q.act(actRemove, map[string]string{"factor": f.ID, "kind": string(f.Kind)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		_, _, err := q.d.Factors.Remove(ctx, q.Subject, f.ID, by, at)
		return err
	})
}

// newCodes replaces the recovery codes.
func (q *request) newCodes() (codes []string, err error) {
	err = q.act(actBind, map[string]string{"kind": string(auth.RecoveryCodes)}, func(ctx context.Context, by auth.Act, at time.Time) error {
		codes, _, _, err = q.d.Factors.ReplaceRecoveryCodes(ctx, q.Subject, by, at)
		return err
	})
	return codes, err
}

// cut is the first 64 characters of a name, without blanks around them.
func cut(name string) string {
	if r := []rune(strings.ToValidUTF8(name, "")); len(r) > 64 {
		name = string(r[:64])
	}
	return strings.TrimSpace(strings.ReplaceAll(strings.ToValidUTF8(name, ""), "\x00", ""))
}
