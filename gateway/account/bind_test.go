package account_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/account"
)

const enrol = account.EnrolPath

// TestFirstAppAtAHold is the way of somebody who must have a factor and has none.
func TestFirstAppAtAHold(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		for _, b.lang = range []string{"en", "ja"} {
			v := b.known(b.hold(b.learn("hanako-" + b.lang)))
			page := b.submit(b.get(enrol, v), enrol, v, "do", "totp")
			if page.code != http.StatusOK {
				t.Fatalf("the secret: %d", page.code)
			}
			app := appOf(page)

			// A wrong code: the app has the secret already, and is not shown it again.
			wrong := b.submit(page, "", v, "code", "000000")
			if wrong.code != http.StatusSeeOther || b.state(v) != auth.HoldWaiting {
				t.Fatalf("a wrong code: %d, the hold is %s", wrong.code, b.state(v))
			}
			again := b.get(wrong.to, v)
			if strings.Contains(again.body, app.secret) {
				t.Error("the secret is shown again")
			}
			codes := b.submit(again, "", v, "code", app.code(t, b.now))
			if got := strings.Count(codes.body, "<li>"); codes.code != http.StatusOK || got != 10 {
				t.Fatalf("%d with %d recovery codes, want ten in the answer", codes.code, got)
			}
			if b.state(v) != auth.HoldApproved {
				t.Errorf("the hold is %s", b.state(v))
			}
			b.wantFactors(v.Subject, "totp active", "recovery active")
			b.submit(codes, "/kept", v).want(http.StatusSeeOther, v.Done)
			b.get(enrol+"/kept", v).want(http.StatusSeeOther, v.Done)
			if got, want := b.happened(), []string{"act.factor.bind", "act.factor.bind"}; !slices.Equal(got, want) {
				t.Errorf("on record: %q, want %q", got, want)
			}
			// Sent again by a reload: nothing more happens.
			b.submit(again, "", v, "code", app.code(t, b.now)).want(http.StatusSeeOther, "/.kidoban/factor")
			b.wantFactors(v.Subject, "totp active", "recovery active")
			b.happened()
		}
	})
}

// TestNobodyBindsByPasswordAlone tries all places where a factor is bound.
func TestNobodyBindsByPasswordAlone(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		for _, kind := range []string{"hold", "session", "young device", "another visit's evidence"} {
			var v account.Visit
			base := enrol
			switch kind {
			case "hold":
				v = b.hold(p)
			case "session":
				v, base = b.session(p, "Firefox"), account.AccountPath+"/add"
				v.Fresh = true // as the gate says of an account without a factor
			case "young device":
				v = b.hold(p)
				v.DeviceSince = b.now.Add(-b.policy.Evidence.Device + time.Second)
			default:
				code := b.code(p.Subject)
				other := b.hold(p)
				b.post(enrol+"/code", other, "code", code).want(http.StatusSeeOther, enrol)
				v = b.hold(p)
				b.happened()
			}
			page := b.get(base, v)
			if page.hasForm(base) || !page.hasForm("/link") || !page.hasForm("/code") {
				t.Errorf("%s: it may bind, or give no evidence: %s", kind, page.body)
			}
			if page.hasForm("/cancel") != (kind != "session") {
				t.Errorf("%s: a login that is held can be given up, a session cannot: %s", kind, page.body)
			}
			b.post(base, v, "do", "totp").want(http.StatusSeeOther, base)
			b.post(base, v, "do", "key").want(http.StatusSeeOther, base)
			b.post(base+"/app?id=AAAA", v, "code", "123456").want(http.StatusSeeOther, base)
			b.get(base+"/key", v).want(http.StatusSeeOther, base)
			b.post(base+"/key/begin", v).want(http.StatusSeeOther, base)
			b.post(base+"/key", v, "credential", "{}").want(http.StatusSeeOther, base)
			// A secret that was begun with evidence is bound with evidence only.
			e, err := b.Factors.BeginTOTP(t.Context(), p.Subject, "x", "x", b.now)
			if err != nil {
				t.Fatal(err)
			}
			b.post(base+"/app?id="+e.ID, v, "code", app{strings.ReplaceAll(e.Secret, " ", "")}.code(t, b.now)).want(http.StatusSeeOther, base)
			b.wantFactors(p.Subject)
			if got := b.happened(); len(got) > 0 {
				t.Errorf("%s: on record: %q", kind, got)
			}
		}
	})
}

// code is one that an operator made for the account.
func (b *bench) code(subject string) string {
	b.t.Helper()
	_, code, err := b.Slips.Issue(b.t.Context(), auth.Slip{Purpose: auth.SlipEnrolCode, Subject: subject, By: "operator"}, auth.Act{By: "operator"}, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return code
}

func TestEvidenceByCode(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		code := b.code(p.Subject)
		v := b.hold(p)
		wrong := b.submit(b.get(enrol, v), "/code", v, "code", b.code("taro")).want(http.StatusSeeOther, enrol+"?wrong=1")
		b.get(wrong.to, v).says("The code was not right")
		b.submit(b.get(enrol, v), "/code", v, "code", strings.ToLower(code)).want(http.StatusSeeOther, enrol)
		appOf(b.submit(b.get(enrol, v), enrol, v, "do", "totp"))
		// It works once.
		other := b.hold(p)
		b.post(enrol+"/code", other, "code", code).want(http.StatusSeeOther, enrol+"?wrong=1")
		if got := b.happened(); !slices.Equal(got, []string{"act.evidence.use"}) {
			t.Errorf("on record: %q", got)
		}
		// Evidence is good for half an hour.
		b.now = b.now.Add(31 * time.Minute)
		b.post(enrol, v, "do", "totp").want(http.StatusSeeOther, enrol)

		b.policy.Evidence.Code, b.policy.Evidence.Mail = false, false
		v = b.hold(p)
		page := b.get(enrol, v)
		if page.hasForm("/code") || page.hasForm("/link") {
			t.Error("it offers what the policy forbids")
		}
		b.post(enrol+"/code", v, "code", b.code(p.Subject)).want(http.StatusSeeOther, enrol)
		b.post(enrol+"/link", v).want(http.StatusSeeOther, enrol)
		b.post(enrol, v, "do", "totp").want(http.StatusSeeOther, enrol)
	})
}

// link is the path of the link in the latest message.
func (b *bench) link(template string) string {
	b.t.Helper()
	all := b.mails(template)
	if len(all) == 0 {
		b.t.Fatalf("no message %s", template)
	}
	path, ok := strings.CutPrefix(all[0].Values["url"], origin)
	if !ok {
		b.t.Fatalf("the message's address is %q", all[0].Values["url"])
	}
	return path
}

func TestMailedLink(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		v := b.hold(p)
		page := b.get(enrol, v).says("h•••@acme.example")
		sent := b.submit(page, "/link", v).want(http.StatusSeeOther, enrol+"?sent=1")
		b.get(sent.to, v).says("The link is on its way")
		all := b.mails("enrolment.link")
		if len(all) != 1 || all[0].To != "hanako@acme.example" || all[0].Values["account"] == "" || all[0].Values["country"] != "JP" || all[0].Values["time_zone"] != "Asia/Tokyo" {
			t.Fatalf("messages: %+v", all)
		}
		link := b.link("enrolment.link")

		// Whoever else opens it, the owner in another browser included, has nothing.
		elsewhere := map[string]account.Visit{"nobody": {Language: "en", CSRF: "x"}, "another hold": b.hold(p), "a session": b.session(p, "x"), "another account": b.hold(b.learn("taro"))}
		for who, other := range elsewhere {
			if page := b.get(link, other); page.hasForm(link) {
				t.Errorf("%s can use the link", who)
			}
			if a := b.post(link, other); a.code != http.StatusOK {
				t.Errorf("%s: %d to %s", who, a.code, a.to)
			}
			if who == "nobody" {
				continue
			}
			if ok, err := b.Slips.Evidence(t.Context(), other.For, b.now); ok || err != nil {
				t.Errorf("%s: evidence %t, %v", who, ok, err)
			}
		}
		// Scanners open links.
		for range 3 {
			b.get(link, v)
		}
		b.post(enrol, v, "do", "totp").want(http.StatusSeeOther, enrol)
		b.submit(b.get(link, v), link, v).want(http.StatusSeeOther, enrol)
		appOf(b.submit(b.get(enrol, v), enrol, v, "do", "totp"))
		if page := b.get(link, v); page.hasForm(link) {
			t.Error("the link can be used again")
		}

		// In a session it leads to the page that adds.
		b.now = b.now.Add(time.Second)
		s := b.session(p, "Firefox")
		b.submit(b.get(account.AccountPath+"/add", s), "/link", s).want(http.StatusSeeOther, account.AccountPath+"/add?sent=1")
		link = b.link("enrolment.link")
		b.submit(b.get(link, s), link, s).want(http.StatusSeeOther, account.AccountPath+"/add")
	})
}

func TestAtMostThreeLinksAnHour(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		for i := range 3 {
			v := b.hold(p)
			b.post(enrol+"/link", v).want(http.StatusSeeOther, enrol+"?sent=1")
			if got := len(b.mails("enrolment.link")); got != i+1 {
				t.Fatalf("%d messages after %d", got, i+1)
			}
			b.now = b.now.Add(19 * time.Minute)
		}
		v := b.hold(p)
		link := b.link("enrolment.link")
		if a := b.post(enrol+"/link", v); a.code != http.StatusTooManyRequests {
			t.Errorf("the fourth in an hour: %d", a.code)
		}
		if len(b.mails("enrolment.link")) != 3 || b.link("enrolment.link") != link {
			t.Error("a fourth message")
		}
		b.now = b.now.Add(4 * time.Minute)
		v = b.hold(p)
		b.post(enrol+"/link", v).want(http.StatusSeeOther, enrol+"?sent=1")
		// Nobody can be mailed without a server.
		b.Mailing = false
		v = b.hold(b.learn("taro"))
		if b.get(enrol, v).hasForm("/link") {
			t.Error("a link is offered without a mail server")
		}
		b.post(enrol+"/link", v).want(http.StatusSeeOther, enrol)
	})
}

func TestAtMostThreeLinksAtOnce(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		v := b.hold(b.learn("hanako"))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if a := b.post(enrol+"/link", v); a.code != http.StatusSeeOther && a.code != http.StatusTooManyRequests {
					t.Errorf("%d: %s", a.code, a.body)
				}
			})
		}
		all.Wait()
		if got := len(b.mails("enrolment.link")); got < 1 || got > 3 {
			t.Errorf("%d messages", got)
		}
	})
}

// TestEvidenceIsForTheFirstFactor: a thief who got hold of evidence does not add a
// factor beside the owner's.
func TestEvidenceIsForTheFirstFactor(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		v := b.known(b.hold(p))
		code := b.code(p.Subject)
		b.post(enrol+"/code", b.hold(p), "code", b.code(p.Subject))
		// This one has used a code, then the owner binds elsewhere.
		thief := b.hold(p)
		b.post(enrol+"/code", thief, "code", b.code(p.Subject)).want(http.StatusSeeOther, enrol)
		b.now = b.now.Add(time.Second)
		b.bindApp(p.Subject)
		for who, v := range map[string]account.Visit{"known device": v, "thief": thief, "later": b.known(b.hold(p))} {
			b.get(enrol, v).want(http.StatusSeeOther, "/.kidoban/factor")
			b.post(enrol, v, "do", "totp").want(http.StatusSeeOther, "/.kidoban/factor")
			b.post(enrol+"/code", v, "code", code).want(http.StatusSeeOther, "/.kidoban/factor")
			b.post(enrol+"/link", v).want(http.StatusSeeOther, "/.kidoban/factor")
			// The gate asks this hold for the factor, and does not send it here again.
			h, err := b.Holds.ByID(t.Context(), v.For, b.now)
			if err != nil || h.Need != auth.NeedFactor {
				t.Errorf("%s: the hold needs %s, %v", who, h.Need, err)
			}
		}
		b.wantFactors(p.Subject, "totp active")
	})
}

// TestAddingNeedsTheOther: a further factor, in a session.
func TestAddingNeedsTheOther(t *testing.T) {
	const add = account.AccountPath + "/add"
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		b.bindApp(p.Subject)
		b.bindCodes(p.Subject)
		b.session(p, "Safari on iPhone")
		v := b.known(b.session(p, "Firefox on Windows"))
		const stepUp = "/.kidoban/step-up?to=%2F.kidoban%2Faccount%2Fadd"
		b.get(add, v).want(http.StatusSeeOther, stepUp)
		b.post(add, v, "do", "totp").want(http.StatusSeeOther, stepUp)
		b.post(add+"/key/begin", v).want(http.StatusSeeOther, stepUp)
		b.post(add+"/key", v, "credential", "{}").want(http.StatusSeeOther, stepUp)

		v.Fresh = true
		key := newVirtualKey(t)
		b.submit(b.get(add, v), add, v, "do", "key").want(http.StatusSeeOther, add+"/key")
		page := b.get(add+"/key", v)
		options := b.submit(page, "", v) // the form's own, without an answer
		options.want(http.StatusSeeOther, add+"/key?failed=1")
		b.get(options.to, v).says("could not be set up")
		begun := b.post(add+"/key/begin", v, "name", "  My key ")
		done := b.submit(page, "/key", v, "credential", string(key.create(t, []byte(begun.body))))
		done.want(http.StatusSeeOther, account.AccountPath+"/factors?done=bound")
		b.get(done.to, v).says("The second step was added", "My key", "End all other sessions")
		b.wantFactors(p.Subject, "totp active", "key active", "recovery active")
		// The same answer again, by a reload.
		b.submit(page, "/key", v, "credential", string(key.create(t, []byte(begun.body)))).want(http.StatusSeeOther, add+"/key?failed=1")
		b.wantFactors(p.Subject, "totp active", "key active", "recovery active")

		// A second app gets a name of its own.
		app := appOf(b.post(add, v, "do", "totp"))
		_ = app
		if a := b.get(add+"/nowhere", v); a.code != http.StatusNotFound {
			t.Errorf("nowhere: %d", a.code)
		}
		for _, path := range []string{"/kept", "/app", ""} {
			if a := b.send(http.MethodDelete, add+path, v, nil); a.code != http.StatusMethodNotAllowed {
				t.Errorf("DELETE %s: %d", path, a.code)
			}
		}
	})
}

// TestFirstKeyInASession binds the first factor in a session, and is raised by it.
func TestFirstKeyInASession(t *testing.T) {
	const add = account.AccountPath + "/add"
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		v := b.known(b.session(p, "Firefox"))
		raised := 0
		b.Raise = func(_ http.ResponseWriter, _ *http.Request, v account.Visit, kind auth.FactorKind) (account.Visit, error) {
			raised++
			if kind != auth.Key {
				t.Errorf("raised by %s", kind)
			}
			return v, nil
		}
		begun := b.post(add+"/key/begin", v)
		codes := b.post(add+"/key", v, "credential", string(newVirtualKey(t).create(t, []byte(begun.body))))
		if strings.Count(codes.body, "<li>") != 10 || raised != 1 {
			t.Errorf("%d recovery codes, raised %d times", strings.Count(codes.body, "<li>"), raised)
		}
		b.submit(codes, "/kept", v).want(http.StatusSeeOther, account.AccountPath+"/factors?done=bound")
		// Its challenge was for this session only.
		w := b.known(b.session(b.learn("taro"), "x"))
		begun = b.post(add+"/key/begin", w)
		other := b.known(b.session(w.Person, "y"))
		b.post(add+"/key", other, "credential", string(newVirtualKey(t).create(t, []byte(begun.body)))).want(http.StatusSeeOther, add+"/key?failed=1")
		b.wantFactors("taro")
	})
}

// TestHoldsOfContinue: where a browser continues for another client the pages are
// elsewhere.
func TestHoldsOfContinue(t *testing.T) {
	b := newBench(t, auth.NewMemoryStore(), newOutbox())
	v := b.hold(b.learn("hanako"))
	v.Base = "/.kidoban/continue/" + v.For + "/enrol"
	b.bindApp("hanako")
	b.get(enrol, v).want(http.StatusSeeOther, "/.kidoban/continue/"+v.For)
	page := b.get(account.LostPath, v)
	if !page.hasForm("/.kidoban/continue/" + v.For + "/lost") {
		t.Errorf("recovery begins elsewhere: %s", page.body)
	}
}

// TestOffTheRecord: what cannot be put on the record does not happen.
func TestOffTheRecord(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		v := b.known(b.hold(b.learn("hanako")))
		page := b.post(enrol, v, "do", "totp")
		app := appOf(page)
		b.fail = auth.ErrUncertain
		if a := b.submit(page, "", v, "code", app.code(t, b.now)); a.code != http.StatusServiceUnavailable {
			t.Errorf("answer %d to %q", a.code, a.to)
		}
		b.wantFactors("hanako")
		b.fail = nil
		b.submit(page, "", v, "code", app.code(t, b.now)).says("Recovery codes")
	})
}
