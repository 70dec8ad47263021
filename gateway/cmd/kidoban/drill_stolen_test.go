package main

import (
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"testing"
	"time"
)

var factorIDs = regexp.MustCompile(`"id"`)

// TestStolenPairs tries fifty right pairs of accounts with an app, and fifty of
// accounts without one, through the program: no session, no factor bound, and one
// letter about it to each owner.
func TestStolenPairs(t *testing.T) {
	t.Parallel()
	const each = 50
	backend := newTown(t, 3*each)
	post := newLetters(t)
	// People enrol at their office; elsewhere who has no factor gets a code by mail.
	n := newNode(t, "stolen", backend, append(factorPolicy(t, `{require: [{need: enrolled}, {need: confirm, outside: [192.0.2.0/24]}]}`), post.option())...)
	n.start()
	accounts := make([]string, 2*each)
	factors := func(account string) string {
		_, body, err := n.call(http.MethodGet, "/v1/accounts/"+account+"/factors", nil)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.Itoa(len(factorIDs.FindAll(body, -1)))
	}
	for i := range accounts {
		v := newVisitor("192.0.2." + strconv.Itoa(i+1))
		if i < each {
			_, accounts[i] = signUp(t, n, v, backend.people[i])
		} else {
			if status, err := v.login(t.Context(), n, backend.people[i]); err != nil || status != http.StatusOK {
				t.Fatalf("login: %d, %v", status, err)
			}
			accounts[i] = v.accountOf(t, n)
		}
		n.endAll(accounts[i])
	}
	before := make([]string, len(accounts))
	for i, account := range accounts {
		before[i] = factors(account)
	}
	eventually(t, 2*time.Minute, "the letters of enrolling", func() bool {
		for _, who := range backend.people[:each] {
			if len(post.of(who.Email)) < 3 { // the code, the app, the recovery codes
				return false
			}
		}
		return true
	})
	began := time.Now()
	for i, who := range backend.people[:2*each] {
		v := newVisitor("203.0.113." + strconv.Itoa(i+1))
		if r := v.form(t, n.site, "/login", url.Values{"email": {who.Email}, "password": {who.Password}}); r.status != http.StatusSeeOther {
			t.Fatalf("login: %d\n%s", r.status, r.body)
		}
		csrf := csrfOf(t, v.page(t, n.site, "/.kidoban/factor"))
		for _, path := range []string{"", "/key", "/enrol", "/enrol/app?id=x", "/enrol/key", "/enrol/key/begin", "/enrol/code", "/link?t=AAAA"} {
			v.page(t, n.site, "/.kidoban/factor"+path)
			v.form(t, n.site, "/.kidoban/factor"+path, url.Values{"csrf": {csrf}, "code": {"123456"}, "do": {"totp"}, "name": {"mine"}, "credential": {"{}"}})
		}
		v.page(t, n.site, "/.kidoban/account")
		if status, _ := v.me(t.Context(), n); status != http.StatusUnauthorized || v.cookies["chat_session"] != "" {
			t.Errorf("%s: the thief is in: %d", who.Email, status)
		}
		v.form(t, n.site, "/.kidoban/factor/cancel", url.Values{"csrf": {csrf}})
	}
	about := func(i int) (all []string) {
		for _, l := range post.of(backend.people[i].Email) {
			if l.at.After(began) {
				all = append(all, l.subject)
			}
		}
		return all
	}
	eventually(t, 2*time.Minute, "every owner has a letter", func() bool {
		for i := range accounts {
			if len(about(i)) == 0 {
				return false
			}
		}
		return true
	})
	for i, account := range accounts {
		if got := about(i); len(got) != 1 {
			t.Errorf("%s got %q, want one letter", backend.people[i].Email, got)
		}
		if got := sessionsOf(t, n, account); got != 0 {
			t.Errorf("%s has %d sessions", account, got)
		}
		if got := factors(account); got != before[i] {
			t.Errorf("%s has %s factors, want %s", account, got, before[i])
		}
	}
}
