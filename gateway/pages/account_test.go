package pages_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/pages"
)

// accountSamples are the views of self-service.
func accountSamples() map[string]pages.View {
	const base = "/.kidoban/account"
	frame := func(change func(*pages.Account)) pages.Account {
		a := pages.Account{CSRF: token, Base: base, Account: "hanako"}
		if change != nil {
			change(&a)
		}
		return a
	}
	plain := frame(nil)
	recovering := frame(func(a *pages.Account) { a.Recovering = noon })
	done := func(done string) pages.Account { return frame(func(a *pages.Account) { a.Done, a.Others = done, 2 }) }
	failed := func(why string) pages.Account { return frame(func(a *pages.Account) { a.Failed = why }) }

	app := pages.FactorRow{ID: "A", Kind: "totp", Name: "Authenticator app", Added: noon.AddDate(0, -3, 0), Used: noon, State: "active"}
	key := pages.FactorRow{ID: "B", Kind: "key", Name: "会社のノートパソコン", Added: noon, State: "off"}
	locked := pages.FactorRow{ID: "C", Kind: "totp", Name: "Old phone", Added: noon, Used: noon, State: "locked", Failures: 20}
	stopped := pages.FactorRow{ID: "D", Kind: "key", Name: "Key", Added: noon, State: "stopped"}
	mail := []string{"h•••@example.co.jp"}

	all := map[string]pages.View{
		"account":              pages.AccountHome{Account: plain, Factors: 2, Codes: 8, Devices: 3, Sessions: 2, Help: true},
		"account, new":         pages.AccountHome{Account: recovering, Sessions: 1, Devices: 1},
		"account, locked":      pages.AccountHome{Account: done(pages.DoneCancelled), Locked: true, Sessions: 1},
		"factors":              pages.AccountFactors{Account: done(pages.DoneBound), Factors: []pages.FactorRow{app, key, locked, stopped}},
		"factors, none":        pages.AccountFactors{Account: plain},
		"one factor":           pages.AccountFactor{Account: plain, Factor: app},
		"one factor, last":     pages.AccountFactor{Account: failed(pages.FailedRequired), Factor: app, Last: true, Only: true},
		"one factor, off":      pages.AccountFactor{Account: failed(pages.FailedName), Factor: key},
		"one factor, locked":   pages.AccountFactor{Account: failed(pages.FailedRebind), Factor: locked},
		"add":                  pages.AccountAdd{Account: plain, Evidence: true, Action: base + "/add"},
		"add, evidence":        pages.AccountAdd{Account: recovering, Mail: mail, LinkAction: "/l", CodeAction: "/k", Device: 7 * 24 * time.Hour},
		"add, sent":            pages.AccountAdd{Account: plain, Mail: mail, LinkAction: "/l", Sent: true, CodeAction: "/k", WrongCode: true},
		"add, no way":          pages.AccountAdd{Account: plain},
		"app code":             pages.AppCode{Action: "/a", CSRF: token, Cancel: "/c"},
		"recovery codes":       pages.AccountCodes{Account: plain, Left: 8, Made: noon, Offer: true},
		"recovery codes, few":  pages.AccountCodes{Account: plain, Left: 2, Few: true, Made: noon, Offer: true},
		"recovery codes, none": pages.AccountCodes{Account: plain, Offer: true},
		"recovery codes, not":  pages.AccountCodes{Account: plain},
		"devices": pages.AccountDevices{Account: plain, Devices: []pages.DeviceRow{
			{ID: "A", Client: "Firefox on Windows", Since: noon.AddDate(-1, 0, 0), Last: noon, State: "trusted", Current: true},
			{ID: "B", Since: noon, Last: noon, State: "probation"}, {ID: "C", Client: "Safari on iPhone", Since: noon, Last: noon, State: "forked"},
		}},
		"devices, none": pages.AccountDevices{Account: plain},
		"sessions": pages.AccountSessions{Account: plain, More: true, Sessions: []pages.SessionRow{
			{ID: "A", Client: "Firefox on Windows", Place: "Japan", Since: noon, Seen: noon, AAL: 2, Current: true},
			{ID: "B", Program: true, Place: "Germany", Since: noon, Seen: noon, AAL: 1}, {ID: "C", Since: noon, Seen: noon, AAL: 3},
		}},
		"sessions, one": pages.AccountSessions{Account: done(pages.DoneEndedAll), Sessions: []pages.SessionRow{{ID: "A", Client: "Firefox on Windows", Since: noon, Seen: noon, AAL: 1, Current: true}}},
		"history, none": pages.AccountHistory{Account: plain},
		"help":          pages.AccountHelp{Account: plain},
		"help, failed":  pages.AccountHelp{Account: failed(pages.FailedName)},
		"help, weak":    pages.AccountHelp{Account: plain, Weak: true},
		"help code":     pages.AccountHelpCode{Account: plain, Name: "taro", Code: "7K3M-9QXA-0BVT-H5ZC-4NWE-Y2RD-J8G0", Until: noon},
		"nothing":       pages.AccountNone{Account: plain},
		"lost, else":    pages.LostElse{Cancel: "/c"},
		"stop, over":    pages.StopOver{},
	}
	history := pages.AccountHistory{Account: plain}
	for i, what := range []string{"unanswered", "begun", "denied", "out", "own", "replaced", "expired", "recovered", "stopped"} {
		row := pages.EventRow{At: noon.Add(-time.Duration(i) * 7 * time.Hour), What: what, Client: "Firefox on Windows", Place: "Japan"}
		if what == "begun" {
			row.AAL = 2
		}
		history.Events = append(history.Events, row)
	}
	all["history"] = history
	return all
}

// accountKeys are the keys of phrases that templates put together.
func accountKeys() (keys []string) {
	for prefix, ends := range map[string][]string{
		"account.done.":       pages.Dones,
		"account.failed.":     pages.Faileds,
		"account.kind.":       {"totp", "key"},
		"account.state.":      {"active", "off", "locked", "stopped"},
		"account.device.":     {"trusted", "probation", "forked"},
		"account.session.aal": {"1", "2", "3"},
		"account.event.":      {"begun", "out", "own", "replaced", "expired", "recovered", "stopped", "unanswered", "denied"},
	} {
		for _, end := range ends {
			keys = append(keys, prefix+end)
		}
	}
	return keys
}

// TestAccountContrast is TestContrast for the colours that only self-service puts on
// each other.
func TestAccountContrast(t *testing.T) {
	for scheme, colours := range schemes(t) {
		for _, pair := range [][2]string{{"bad", "card"}, {"ink", "bad-ground"}} {
			if got := contrast(t, colours[pair[0]], colours[pair[1]]); got < 4.5 {
				t.Errorf("%s: %s on %s is %.2f, want 4.5", scheme, pair[0], pair[1], got)
			}
		}
	}
}

// TestAccountButtonsSayWhat: who hears a list's buttons one by one hears what each is
// about.
func TestAccountButtonsSayWhat(t *testing.T) {
	for name, want := range map[string]string{"devices": "Safari on iPhone", "factors": "Old phone"} {
		body := written(t, chat, "en", accountSamples()[name]).Body.String()
		if !strings.Contains(body, `<span class="unseen"> `+want+`</span>`) {
			t.Errorf("%s: no button or link says that it is about %q", name, want)
		}
	}
}

func TestAccountStrangers(t *testing.T) {
	const evil = "</h2><script src=//evil.example></script>\u202e\"'><img src=x onerror=alert(1)>"
	frame := pages.Account{CSRF: token, Base: "/.kidoban/account", Account: evil}
	for name, v := range map[string]pages.View{
		"factor":   pages.AccountFactor{Account: frame, Factor: pages.FactorRow{ID: "A", Kind: "totp", Name: evil, State: "active"}},
		"factors":  pages.AccountFactors{Account: frame, Factors: []pages.FactorRow{{ID: "A", Kind: "key", Name: evil, State: "off"}}},
		"sessions": pages.AccountSessions{Account: frame, Sessions: []pages.SessionRow{{ID: "A", Client: evil, Place: evil, AAL: 1}}},
		"devices":  pages.AccountDevices{Account: frame, Devices: []pages.DeviceRow{{ID: "A", Client: evil, State: "trusted"}}},
		"history":  pages.AccountHistory{Account: frame, Events: []pages.EventRow{{What: "begun", Client: evil, Place: evil, AAL: 1}}},
		"help":     pages.AccountHelpCode{Account: frame, Name: evil, Code: "AAAA"},
		"home":     pages.AccountHome{Account: frame},
	} {
		body := written(t, chat, "en", v).Body.String()
		wellFormed(t, body)
		if strings.Contains(body, "<script") || strings.Contains(body, "<img src=x") || strings.Contains(body, "\u202e") {
			t.Errorf("%s: what a stranger chose became part of the page:\n%s", name, body)
		}
	}
}
