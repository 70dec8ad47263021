package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// subjectOf is whose the latest accepted login was, as the gate knows the account.
func (n *node) latestAccount() string {
	n.t.Helper()
	account := ""
	eventually(n.t, 20*time.Second, "an accepted login among the events", func() bool {
		status, body, err := n.call(http.MethodGet, "/v1/events?kind=login&outcome=success&limit=1", nil)
		var page struct{ Events []struct{ Account string } }
		if err != nil || status != http.StatusOK || json.Unmarshal(body, &page) != nil || len(page.Events) == 0 {
			return false
		}
		account = page.Events[0].Account
		return account != ""
	})
	return account
}

// TestMinifluxFactor is a second factor inside the login of a service that has none,
// and that nobody changed for it.
func TestMinifluxFactor(t *testing.T) {
	t.Parallel()
	s := newMiniflux(t)
	n := guardService(t, s, front{options: factorPolicy(t, `{require: [{need: enrolled}]}`)})
	first := newVisitor("198.51.100.20")
	if r := first.minifluxLogin(t, n.site, drillUser, drillUserPassword); r.status/100 != 3 {
		t.Fatalf("login: %d", r.status)
	}
	account := n.latestAccount()
	phone := enrol(t, n, first, n.site, account)

	ann := newVisitor("203.0.113.20")
	r := ann.minifluxLogin(t, n.site, drillUser, drillUserPassword)
	if r.status != http.StatusSeeOther || r.header.Get("Location") != "/.kidoban/factor" || ann.page(t, n.site, "/unread").in() {
		t.Fatalf("the right pair: %d to %q, want to be asked for the factor", r.status, r.header.Get("Location"))
	}
	csrf := csrfOf(t, ann.page(t, n.site, "/.kidoban/factor"))
	if r := ann.form(t, n.site, "/.kidoban/factor", url.Values{"csrf": {csrf}, "code": {"000000"}}); r.status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong code: %d", r.status)
	}
	r = ann.form(t, n.site, "/.kidoban/factor", url.Values{"csrf": {csrf}, "recovery": {phone.codes[0]}})
	for range 5 {
		if r.status/100 == 3 {
			r = ann.page(t, n.site, r.header.Get("Location"))
		}
	}
	if !r.in() || !ann.page(t, n.site, "/settings").in() {
		t.Fatalf("after the factor: %d, want the service's own page\n%.600s", r.status, r.body)
	}
	n.endAll(account)
	if ann.page(t, n.site, "/unread").in() || first.page(t, n.site, "/unread").in() {
		t.Error("ended sessions go on")
	}
}

// TestPocketBaseFactor is the same with a service whose own administration is a script
// in one page that keeps a token: a person gets through it in a browser.
func TestPocketBaseFactor(t *testing.T) {
	p := newPocketBase(t)
	n := guardService(t, p.service, front{local: true, options: factorPolicy(t, `{require: [{need: enrolled}]}`)[1:]})
	first := newVisitor(office)
	if in := p.login(t, first, n.site, "_superusers", pocketbaseRoot, drillAdminPassword); in.Token == "" {
		t.Fatalf("login: %d %s", in.status, in.body)
	}
	phone := enrol(t, n, first, n.site, n.latestAccount())

	program := newVisitor("203.0.113.9")
	if in := p.login(t, program, n.site, "_superusers", pocketbaseRoot, drillAdminPassword); in.status != http.StatusConflict || in.Token != "" || !strings.Contains(in.body, "/.kidoban/continue/") {
		t.Fatalf("a program: %d %s, want where to go on", in.status, in.body)
	}

	root := browse(t, "en", 1280, 900)
	entry := "http://" + n.site
	signIn := func() {
		root.do(chromedp.WaitVisible(css("input[type=password]")), chromedp.SendKeys(css("input[type=email], input[name=identity]"), pocketbaseRoot),
			chromedp.SendKeys(css("input[type=password]"), drillAdminPassword), chromedp.Click(css("form button[type=submit]")))
	}
	root.do(chromedp.Navigate(entry + "/_/"))
	signIn()
	told := root.awaitText("/.kidoban/continue/")
	root.shot("pocketbase-told")
	_, id, _ := strings.Cut(told, "/.kidoban/continue/")
	id = id[:26]
	root.do(chromedp.Navigate(entry+"/.kidoban/continue/"+id), chromedp.WaitVisible(css("input[name=code]")))
	root.shot("pocketbase-factor")
	// The app's current code bound it, and is used up; a recovery code need not wait.
	root.do(chromedp.Click(css("details summary")), chromedp.SendKeys(css("input[name=recovery]"), phone.codes[0]+"\r"))
	root.do(chromedp.WaitVisible(css(`a[href="/_/"]`)))
	root.shot("pocketbase-done")
	root.do(chromedp.Click(css(`a[href="/_/"]`)))
	signIn()
	root.awaitText("notes") // a collection
	root.shot("pocketbase-in")
}

// awaitText waits until the page shows a text, and returns all it shows.
func (b browser) awaitText(want string) (shown string) {
	b.t.Helper()
	eventually(b.t, 30*time.Second, "the page shows "+want, func() bool {
		var err error
		shown, err = chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
		return err == nil && strings.Contains(shown, want)
	})
	return shown
}
