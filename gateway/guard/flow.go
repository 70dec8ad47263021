package guard

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/account"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// formMax bounds what is sent to a page of ours: the answer of a passkey is the most.
const formMax = 96 << 10

// servePage serves what lives under OwnPath.
func (g *Guard) servePage(w http.ResponseWriter, v *visit) error {
	name, ok := strings.CutPrefix(v.r.URL.Path, OwnPath) // as it is written: ids have capitals
	if !ok {
		http.NotFound(w, v.r)
		return nil
	}
	if v.path == keysPath && g.asserts() {
		return g.assertions.ServeKeys(w, v.r, v.now)
	}
	first, rest, _ := strings.Cut(name, "/")
	var flow func(http.ResponseWriter, *visit, string) error
	switch first {
	case "factor":
		flow = g.serveFactor
	case "continue":
		flow = g.serveContinue
	case "step-up":
		flow = g.serveStepUp
	case "account":
		flow = g.serveAccount
	case "recovery":
		flow = g.serveRecovery
	}
	if flow == nil || g.Factors == nil {
		return g.site.Serve(w, v.r, name)
	}
	if refusal := v.admit(); refusal != nil {
		return refusal.write(w, v.r)
	}
	switch v.r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		if refusal := v.readForm(); refusal != nil {
			return refusal.write(w, v.r)
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return nil
	}
	return flow(w, v, rest)
}

// readForm reads a form of ours: bounded, from this site, and charged to where it
// comes from, whoever it is about.
func (v *visit) readForm() *refusal {
	g, r := v.guard, v.r
	bad := func(status int, reason policies.Reason) *refusal {
		refusal := v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: reason})
		refusal.status = status
		return refusal
	}
	if !g.sameOrigin(r) {
		return bad(http.StatusForbidden, policies.ReasonForeignForm)
	}
	if r.ContentLength > formMax {
		return bad(http.StatusRequestEntityTooLarge, policies.ReasonTooLarge)
	}
	r.Body = http.MaxBytesReader(nil, r.Body, formMax)
	if err := r.ParseForm(); err != nil {
		return bad(http.StatusBadRequest, policies.ReasonAmbiguous)
	}
	_, d := g.Attempts.Take(r.Context(), v.now, []limits.AttemptCharge{
		{Bucket: &g.buckets.Network, Key: g.Digest("network", v.source.Network.String()), N: 1},
	})
	if !d.Allowed {
		if refusal := v.conclude(ControlAttempts, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: v.now.Add(d.RetryAfter)}, g.modes.attempts); refusal != nil {
			return refusal
		}
	}
	return nil
}

// page writes a page of ours with the cookies that the visit sets.
func (v *visit) page(w http.ResponseWriter, status int, view pages.View) error {
	for _, line := range v.cookies {
		w.Header().Add("Set-Cookie", line)
	}
	return v.guard.site.Write(w, v.r, status, pages.Language(v.r), view)
}

// lead leads the browser on by GET, with the cookies that the visit sets.
func (v *visit) lead(w http.ResponseWriter, path string) error {
	for _, line := range v.cookies {
		w.Header().Add("Set-Cookie", line)
	}
	return redirect(w, path)
}

// gone answers who comes for a login that is over or was never held here.
func (v *visit) gone(w http.ResponseWriter) error {
	if v.crumbs.hold != "" {
		v.cookies = append(v.cookies, clearedHoldCookie)
	}
	return v.page(w, http.StatusGone, pages.Over{})
}

// foreign answers a form that was not sent from the page it belongs to, or from one
// that is too old.
func (v *visit) foreign(w http.ResponseWriter) error {
	return v.refuse(ControlSessions, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonForeignForm}).write(w, v.r)
}

// troubled answers when the stores cannot.
func (v *visit) troubled(w http.ResponseWriter, doing string, err error) error {
	v.guard.complain(doing, "error", err)
	return v.refuse(ControlSessions, unavailable).write(w, v.r)
}

// serveFactor is the page of who waits for a factor, in the browser that asked.
func (g *Guard) serveFactor(w http.ResponseWriter, v *visit, rest string) error {
	if rest == "link" {
		return g.serveLink(w, v)
	}
	h, ok := v.holder()
	if !ok {
		return v.gone(w)
	}
	return g.serveHold(w, v, rest, approver{hold: h, secret: v.crumbs.hold, base: OwnPath + "factor", holder: true})
}

// approver is who may finish a held login, and on which page.
type approver struct {
	hold   auth.Hold
	secret string // that forms are tied to
	base   string // path of its pages
	holder bool   // it is the client that asked, and not another one by its address and code

	account   string // whose factor is asked for; of a decoy for a name that nobody has: empty
	steppedUp bool   // nothing may tell whether the password was right
	decoy     bool   // it was wrong
}

// serveHold is the pages of a held login.
func (g *Guard) serveHold(w http.ResponseWriter, v *visit, rest string, by approver) error {
	h := by.hold
	post := v.r.Method == http.MethodPost
	if post && !g.csrfGood(v.r.PostForm.Get(pages.FieldCSRF), by.secret) {
		return v.foreign(w)
	}
	sub, path, _ := strings.Cut(rest, "/")
	switch {
	case h.State == auth.HoldApproved && sub == "enrol" && path != "":
		return g.serveHoldDesk(w, v, sub, path, by) // the recovery codes of a factor that was just bound
	case h.State == auth.HoldApproved:
		return g.approved(w, v, by)
	case h.State != auth.HoldWaiting:
		return v.gone(w)
	}
	switch held, err := g.openHeld(v.r.Context(), h); {
	case errors.Is(err, auth.ErrHoldOver), errors.Is(err, auth.ErrNoHold):
		return v.gone(w)
	case err != nil:
		return v.troubled(w, "held log-ins", err)
	default:
		by.account, by.steppedUp, by.decoy = h.Subject, held.SteppedUp, held.Decoy
		if held.Decoy {
			by.account = held.For
		}
	}
	switch {
	case by.steppedUp && (sub == "lost" || sub == "enrol"):
		return redirect(w, by.base)
	case rest != "cancel" && (h.Need == auth.NeedEnrol || sub == "lost" || sub == "enrol"):
		return g.serveHoldDesk(w, v, sub, path, by)
	}
	if !post {
		if rest != "" {
			return redirect(w, by.base)
		}
		return g.showHold(w, v, by, http.StatusOK, false, 0)
	}
	switch rest {
	case "":
		return g.giveHold(w, v, by)
	case "key":
		if by.decoy {
			return g.beginDecoyKey(w, v, by)
		}
		return g.beginKey(w, v, h.Subject, purposeOf(h))
	case "resend":
		return g.resend(w, v, by)
	case "cancel":
		return g.cancelHold(w, v, by)
	}
	http.NotFound(w, v.r)
	return nil
}

// purposeOf ties a key's answer to one held login.
func purposeOf(h auth.Hold) string { return "hold " + h.ID }

// showHold asks for what the login owes.
func (g *Guard) showHold(w http.ResponseWriter, v *visit, by approver, status int, failed bool, wait time.Duration) error {
	h := by.hold
	csrf := g.csrfToken(by.secret)
	if h.Need == auth.NeedConfirm {
		person, _, err := g.Directory.BySubject(v.r.Context(), h.Subject)
		if err != nil {
			return v.troubled(w, "directory", err)
		}
		view := pages.Confirm{
			Action: by.base, CSRF: csrf, Mail: maskedAll(person.Mail), Failed: failed, Wait: wait,
			Resend: by.base + "/resend", Cancel: by.base + "/cancel", Client: h.Client, Place: pages.Place(pages.Language(v.r), h.Country),
			Until: g.grace(person, v.now),
		}
		if by.steppedUp {
			view.Unsure, view.Mail, view.Until = true, nil, time.Time{}
		}
		return v.page(w, status, view)
	}
	view, err := g.factorView(v, by.account)
	if err != nil {
		return v.troubled(w, "second factors", err)
	}
	view.Action, view.CSRF, view.KeyBegin, view.Cancel, view.Lost = by.base, csrf, by.base+"/key", by.base+"/cancel", by.base+"/lost"
	if by.steppedUp {
		view.Unsure, view.Lost = true, ""
	}
	if by.decoy {
		view.Wait = g.slow.wait(h.Subject, v.now)
	}
	view.Client, view.Place, view.Failed = h.Client, pages.Place(pages.Language(v.r), h.Country), failed
	if wait > 0 {
		view.Wait = wait
	}
	if days := int(g.factorPolicy.Remember / (24 * time.Hour)); by.holder && days > 0 {
		view.Remember = days
	}
	return v.page(w, status, view)
}

// factorView is what an account can be asked for.
func (g *Guard) factorView(v *visit, subject string) (pages.Factor, error) {
	factors, err := g.Factors.List(v.r.Context(), subject)
	if err != nil {
		return pages.Factor{}, err
	}
	var view pages.Factor
	for _, f := range factors {
		if f.State != auth.FactorActive {
			continue
		}
		switch f.Kind {
		case auth.TOTP:
			view.TOTP = true
		case auth.Key:
			view.Key = true
		case auth.RecoveryCodes:
			view.Recovery = f.CodesLeft > 0
		}
		if wait := f.NextAttempt.Sub(v.now); f.Kind == auth.TOTP && wait > view.Wait {
			view.Wait = wait
		}
	}
	return view, nil
}

// giveHold tries what was typed, or what a key answered, on a held login.
func (g *Guard) giveHold(w http.ResponseWriter, v *visit, by approver) error {
	h := by.hold
	approval := &auth.Approval{Hold: h.ID, AAL: 2, By: v.source.Network.String()}
	var err error
	if by.decoy {
		err = g.tryDecoy(v, by)
	} else if h.Need == auth.NeedConfirm {
		approval.AAL = 1
		err = g.confirm(v, h, approval)
	} else {
		_, err = g.give(v, h.Subject, approval, purposeOf(h), map[string]string{"hold": h.ID})
	}
	if out := (*ruledOut)(nil); errors.As(err, &out) {
		// The login is over with it: who has the password begins anew.
		if held, err := g.openHeld(v.r.Context(), h); err == nil {
			v.logOut(g.credentials(held))
		}
		if err := g.giveUp(context.WithoutCancel(v.r.Context()), h, true, v.now); err != nil {
			return v.troubled(w, "held log-ins", err)
		}
		refusal := v.refuse(countedRules, out.verdict)
		refusal.cookies = append(refusal.cookies, clearedHoldCookie)
		return refusal.write(w, v.r)
	}
	switch {
	case err == nil:
	case errors.Is(err, auth.ErrWrongCode):
		return g.showHold(w, v, by, http.StatusUnprocessableEntity, true, 0)
	case errors.Is(err, auth.ErrHoldOver), errors.Is(err, auth.ErrNoHold):
		return v.gone(w)
	default:
		return v.troubled(w, "second factors", err)
	}
	if by.holder && v.r.PostForm.Get(pages.FieldRemember) != "" && g.factorPolicy.Remember > 0 && h.Need == auth.NeedFactor {
		// The device gets its cookie when the answer is released.
		if err := g.Slips.Remember(context.WithoutCancel(v.r.Context()), h.Subject, h.ID, h.Expires, v.now); err != nil {
			g.complain("remembering a device", "error", err)
		}
	}
	return v.lead(w, by.base)
}

// rememberDevice has the account remember a device, if that was asked for at its hold.
// From there its factor is not asked for at log-ins for a time, which are then of AAL1
// (SP 800-63B-4 section 5.1: a remembered browser is no authentication).
func (g *Guard) rememberDevice(ctx context.Context, subject, hold, device string, now time.Time) {
	asked, err := g.Slips.Remembers(ctx, subject, hold, now)
	if err == nil && asked {
		err = g.Slips.Remember(ctx, subject, device, now.Add(g.factorPolicy.Remember), now)
	}
	if err != nil {
		g.complain("remembering a device", "error", err)
	}
}

// give tries a factor, on record. What it is for goes with the entry.
func (g *Guard) give(v *visit, subject string, approval *auth.Approval, purpose string, about map[string]string) (attempt auth.Attempt, err error) {
	form := v.r.PostForm
	code := form.Get(pages.FieldCode)
	use := func(ctx context.Context, act auth.Act, at time.Time) (auth.Attempt, error) {
		a, err := g.Factors.VerifyTOTP(ctx, subject, code, act, at)
		if errors.Is(err, auth.ErrMalformedCode) {
			return g.Factors.UseRecoveryCode(ctx, subject, code, act, at) // typed into the other field
		}
		return a, err
	}
	switch {
	case form.Get(pages.FieldKey) != "":
		use = func(ctx context.Context, act auth.Act, at time.Time) (auth.Attempt, error) {
			return g.Factors.UseKey(ctx, subject, purpose, []byte(form.Get(pages.FieldKey)), act, at)
		}
	case form.Get(pages.FieldRecovery) != "":
		use = func(ctx context.Context, act auth.Act, at time.Time) (auth.Attempt, error) {
			return g.Factors.UseRecoveryCode(ctx, subject, form.Get(pages.FieldRecovery), act, at)
		}
	}
	about["account"] = subject
	err = g.act(v.r.Context(), actFactor, about, true, func(ctx context.Context, entry string, at time.Time) error {
		attempt, err = use(ctx, auth.Act{By: account.ByOwner, Entry: entry, Approve: approval}, at)
		return err
	})
	return attempt, errors.Join(err, g.tried(v, subject, attempt, err))
}

// ruledOut is the error of a factor that rules answered with a refusal, right or wrong.
type ruledOut struct{ verdict policies.Verdict }

func (e *ruledOut) Error() string { return "refused by rule " + string(e.verdict.Rule) }

// tried tells detectors, rules, the record and the owner what became of an attempt. The
// error is a [*ruledOut].
func (g *Guard) tried(v *visit, subject string, attempt auth.Attempt, err error) error {
	e := detectors.Event{
		Time: v.now, Kind: detectors.Factor, Account: detectors.Account(subject), Source: v.source, Client: v.client(),
		Credential: string(attempt.Factor.Kind), Outcome: detectors.Success,
	}
	if strings.HasPrefix(subject, auth.Nobody) {
		e.Account = ""
	}
	e.Fingerprint = e.Client.Fingerprint()
	switch {
	case errors.Is(err, auth.ErrMalformedCode):
		return nil // a typing error
	case errors.Is(err, auth.ErrWrongCode):
		e.Outcome, e.Reason = detectors.Failure, string(attempt.Outcome)
		g.Record.Count(record.Denial{Time: v.now, Kind: factorPrefix + string(attempt.Outcome), Key: v.source.Network.String()})
	case err != nil:
		return nil
	}
	found, signals := g.concluded(v.r.Context(), rules.Factor, g.publish(e), means{refuse: true})
	if len(attempt.Notices) > 0 {
		if err := g.tellOwners(context.WithoutCancel(v.r.Context())); err != nil {
			g.complain("telling owners", "error", err) // the next sweep does
		}
	}
	switch x := v.ruling(found, signals); x.Action {
	case rules.Delay:
		v.count(countedRules, x, false, v.session != nil)
		v.wait(x.Delay)
	case rules.Refuse:
		return &ruledOut{x}
	}
	return nil
}

// beginKey sends what a browser needs to use one of the account's keys.
func (g *Guard) beginKey(w http.ResponseWriter, v *visit, subject, purpose string) error {
	options, err := g.Factors.BeginKey(v.r.Context(), subject, purpose, v.now)
	if err != nil {
		return v.troubled(w, "second factors", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, err = w.Write(options)
	return err
}

// confirm tries a mailed code.
func (g *Guard) confirm(v *visit, h auth.Hold, approval *auth.Approval) (err error) {
	return g.act(v.r.Context(), actConfirm, map[string]string{"hold": h.ID, "account": h.Subject}, true, func(ctx context.Context, entry string, at time.Time) error {
		_, err = g.Slips.Use(ctx, auth.SlipConfirm, h.Subject, h.ID, v.r.PostForm.Get(pages.FieldCode), h.ID, auth.Act{By: account.ByOwner, Entry: entry, Approve: approval}, at)
		return err
	})
}

// resends bounds the codes that are mailed again for one login. They go to the
// account's own mailboxes, whose limits hold as well.
var resends = limits.Bucket{Name: "resend", Burst: 2, Every: 5 * time.Minute}

// mailCode mails a code that confirms a held login: to be typed where the login is,
// and of no use elsewhere.
func (c *Core) mailCode(ctx context.Context, h auth.Hold, person auth.Person, now time.Time) error {
	var slip auth.Slip
	var code string
	slip, code, err := c.Slips.Issue(ctx, auth.Slip{Purpose: auth.SlipConfirm, Subject: h.Subject, For: h.ID, By: "login", Expires: h.Expires}, auth.Act{By: "login"}, now)
	if err != nil {
		return err
	}
	return c.mailOwner(ctx, h.Subject, "confirmation.code", slip.ID, map[string]string{
		"code": code, "client": h.Client, "country": h.Country, "until": moment(h.Expires), "at": moment(h.Created),
	})
}

// resend mails another code; the one before is void, and failures stay counted.
func (g *Guard) resend(w http.ResponseWriter, v *visit, by approver) error {
	h := by.hold
	if h.Need != auth.NeedConfirm {
		return v.lead(w, by.base)
	}
	person, _, err := g.Directory.BySubject(v.r.Context(), h.Subject)
	if err != nil {
		return v.troubled(w, "directory", err)
	}
	ctx := context.WithoutCancel(v.r.Context())
	_, d := g.Attempts.Take(ctx, v.now, []limits.AttemptCharge{{Bucket: &resends, Key: g.Digest("resend", h.ID), N: 1}})
	if d.Allowed && !by.decoy {
		if err := g.mailCode(ctx, h, person, v.now); err != nil {
			return v.troubled(w, "mailing a code", err)
		}
	}
	return v.lead(w, by.base)
}

// cancelHold gives a login up. On another page than the one that asked, the owner says
// that it was somebody else.
func (g *Guard) cancelHold(w http.ResponseWriter, v *visit, by approver) error {
	h := by.hold
	if by.holder {
		if err := g.drop(v, h); err != nil {
			return v.troubled(w, "held log-ins", err)
		}
		v.cookies = append(v.cookies, clearedHoldCookie)
		return v.lead(w, "/")
	}
	return g.deny(w, v, h)
}

// deny ends a login that its owner says was somebody else's.
func (g *Guard) deny(w http.ResponseWriter, v *visit, h auth.Hold) error {
	if held, err := g.openHeld(v.r.Context(), h); err == nil {
		v.logOut(g.credentials(held))
	}
	err := g.act(v.r.Context(), actDeny, map[string]string{"hold": h.ID, "account": h.Subject}, false, func(ctx context.Context, entry string, at time.Time) error {
		_, err := g.Holds.Deny(ctx, h.ID, auth.Act{By: account.ByOwner, Entry: entry}, at)
		return err
	})
	if err != nil && !errors.Is(err, auth.ErrHoldOver) && !errors.Is(err, auth.ErrNoHold) {
		return v.troubled(w, "held log-ins", err)
	}
	if err := g.tellOwners(context.WithoutCancel(v.r.Context())); err != nil {
		g.complain("telling owners", "error", err)
	}
	v.cookies = append(v.cookies, clearedApprovalCookie)
	return v.page(w, http.StatusOK, pages.Denied{})
}

// approved leads whose factor was given to where the answer is released.
func (g *Guard) approved(w http.ResponseWriter, v *visit, by approver) error {
	h := by.hold
	if !by.holder {
		v.cookies = append(v.cookies, clearedApprovalCookie)
		return v.page(w, http.StatusOK, pages.Done{})
	}
	held, err := g.openHeld(v.r.Context(), h)
	switch {
	case errors.Is(err, auth.ErrHoldOver), errors.Is(err, auth.ErrNoHold):
		return v.gone(w)
	case err != nil:
		return v.troubled(w, "held log-ins", err)
	}
	if h.ClientKind == string(policies.Browser) {
		if held.Status == 0 {
			return g.release(w, v, h)
		}
		if leaves(held.Header.Get("Location"), v.r.Host) {
			// Browsers hold the whole way of a form to its page's form-action (CSP level 3
			// section 6.4.2); a click begins a new one.
			return v.page(w, http.StatusOK, pages.Done{Return: h.Route})
		}
		return v.lead(w, localPath(h.Route))
	}
	for _, c := range g.credentials(held) {
		if c.credential.Kind != policies.CookieCredential {
			// A script waits for the answer itself: it gets it when it asks again.
			return v.page(w, http.StatusOK, pages.Done{Return: localPath(h.Return)})
		}
	}
	// The script's page was answered by now; its cookies are what counts.
	if _, refusal := v.claim(h); refusal != nil {
		return refusal.write(w, v.r)
	}
	for _, line := range held.Header["Set-Cookie"] {
		w.Header().Add("Set-Cookie", line)
	}
	return v.lead(w, localPath(h.Return))
}

// leaves reports whether a Location leads away from a host.
func leaves(location, host string) bool {
	u, err := url.Parse(location)
	return err != nil || u.Host != "" && !strings.EqualFold(u.Host, host)
}

// ApprovalCookie ties the pages behind a `continue` address to the browser in which
// the short code was typed.
const ApprovalCookie = "__Host-kidoban-continue"

const clearedApprovalCookie = ApprovalCookie + "=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"

// approval is what the cookie says for a hold.
func (g *Guard) approval(h auth.Hold) string { return h.ID + "." + g.csrfToken("continue "+h.ID) }

// serveContinue is the page behind the address that a program shows whose login is
// held (as RFC 8628 section 3.3 has it). Whoever opens it may be the owner whom a
// thief sent the address, or asked on the telephone. So nothing is asked for but the
// code that the program displays, from the network that the program is in; what is
// given then approves the login of that program only, there.
func (g *Guard) serveContinue(w http.ResponseWriter, v *visit, rest string) error {
	id, path, _ := strings.Cut(rest, "/")
	h, err := g.Holds.ByID(v.r.Context(), id, v.now)
	switch {
	case errors.Is(err, auth.ErrNoHold), errors.Is(err, auth.ErrHoldOver):
		return v.page(w, http.StatusGone, pages.Over{})
	case err != nil:
		return v.troubled(w, "held log-ins", err)
	}
	if mine, ok := v.holder(); ok && mine.ID == h.ID {
		return redirect(w, OwnPath+"factor")
	}
	if g.factorPolicy.Continue != "anywhere" && h.Network != v.source.Network.String() {
		g.report(v, "a held login was to be continued from another network than it was asked from", "hold", h.ID)
		return v.page(w, http.StatusForbidden, pages.Elsewhere{})
	}
	by := approver{hold: h, secret: v.crumbs.approval, base: OwnPath + "continue/" + h.ID}
	id, mac, _ := strings.Cut(v.crumbs.approval, ".")
	if h.Matched && id == h.ID && g.csrfGood(mac, "continue "+h.ID) {
		return g.serveHold(w, v, path, by)
	}
	if h.State != auth.HoldWaiting {
		return v.page(w, http.StatusGone, pages.Over{})
	}
	// Not matched in this browser yet. The form is tied to the address, which is all
	// that it opens.
	by.secret = "code " + h.ID
	failed := false
	if v.r.Method == http.MethodPost {
		if !g.csrfGood(v.r.PostForm.Get(pages.FieldCSRF), by.secret) {
			return v.foreign(w)
		}
		if v.r.PostForm.Get(pages.FieldDo) == "deny" {
			return g.deny(w, v, h)
		}
		h, err = g.Holds.TypeCode(context.WithoutCancel(v.r.Context()), h.ID, v.r.PostForm.Get(pages.FieldCode), v.now)
		switch {
		case err == nil:
			v.cookies = append(v.cookies, (&http.Cookie{
				Name: ApprovalCookie, Value: g.approval(h), Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
				MaxAge: max(int(h.Expires.Sub(v.now).Seconds()), 1),
			}).String())
			return v.lead(w, by.base)
		case errors.Is(err, auth.ErrWrongCode):
			failed = true
		case errors.Is(err, auth.ErrNoHold), errors.Is(err, auth.ErrHoldOver):
			return v.page(w, http.StatusGone, pages.Over{})
		default:
			return v.troubled(w, "held log-ins", err)
		}
	}
	return v.page(w, http.StatusOK, pages.Code{
		Action: by.base, CSRF: g.csrfToken(by.secret), Client: h.Client, Place: pages.Place(pages.Language(v.r), h.Country), Asked: h.Created, Failed: failed,
	})
}
