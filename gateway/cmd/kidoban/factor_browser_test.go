package main

import (
	"image/color"
	"strings"
	"testing"
	"time"

	"github.com/boombuler/barcode/qr"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// modules is the QR code of a text, a line of the picture each.
func modules(t testing.TB, text string) (lines []string) {
	t.Helper()
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		t.Fatal(err)
	}
	for y := range code.Bounds().Dy() {
		var line strings.Builder
		for x := range code.Bounds().Dx() {
			if code.At(x, y) == color.Black {
				line.WriteByte('#')
			} else {
				line.WriteByte('.')
			}
		}
		lines = append(lines, line.String())
	}
	return lines
}

// TestSecondFactor is the second factor as people meet it, in the chat's own log-in,
// on two nodes. Every page is looked at; KIDOBAN_SCREENSHOTS names a directory for
// pictures of them.
func TestSecondFactor(t *testing.T) {
	backend := newTown(t, 30)
	nodes := newSecondNodes(t, []string{"factor-1", "factor-2"}, backend,
		"database "+storagetest.Postgres(t), "redis redis://"+storagetest.Redis(t).Addr())
	t.Run("a person's path", func(t *testing.T) {
		// Links in letters lead to the first origin, which is the first node's.
		for i, language := range []string{"ja", "en"} {
			t.Run(language, func(t *testing.T) {
				t.Parallel()
				walkFactors(newPerson(t, nodes[0], language, backend.people[i]))
			})
		}
	})
	t.Run("ended from another node", func(t *testing.T) {
		endElsewhere(t, nodes, backend)
	})
}

// walkFactors is the path of a person from the first log-in on.
func walkFactors(p *person) {
	defer func() { p.t.Logf("the heaviest page weighs %.0f bytes", p.heaviest) }()
	p.enter("/account")
	p.reach("/.kidoban/factor/enrol", `form[action$="/cancel"] button`)
	p.do(chromedp.Click(css(`form[action$="/cancel"] button`))) // not now
	p.reach("/login", "#password")
	p.enter("/account")
	p.bindApp(p.look)
	p.look("codes")
	p.keep()
	p.reach("/account", "header.bar") // where they wanted to go
	p.leave()

	// The app, on a device that is to be remembered. Meanwhile: a wrong code, a reload,
	// another tab, the way back.
	p.enter("/rooms")
	p.reach("/.kidoban/factor", "#code")
	p.look("factor")
	p.do(chromedp.SendKeys(css("#code"), "000000"), chromedp.Click(css("main form > button:not([data-begin])")))
	p.reach("/.kidoban/factor", "#error")
	p.look("factor-failed")
	p.do(chromedp.Navigate(p.entry + "/.kidoban/factor"))
	p.reach("/.kidoban/factor", "#code")
	p.do(chromedp.Reload())
	p.reach("/.kidoban/factor", "#code")
	tab, closeTab := chromedp.NewContext(p.ctx)
	second := browser{p.t, tab}
	second.from(p.language)
	second.do(chromedp.Navigate(p.entry + "/rooms"))
	second.reach("/.kidoban/factor", "#code")
	closeTab()
	p.do(chromedp.NavigateBack())
	p.do(chromedp.Navigate(p.entry + "/rooms"))
	p.reach("/.kidoban/factor", "#code")
	p.do(chromedp.Click(css("#remember")), chromedp.SendKeys(css("#code"), p.code()), chromedp.Click(css("main form > button:not([data-begin])")))
	p.reach("/rooms", "header.bar")
	p.do(chromedp.NavigateBack())
	p.do(chromedp.Navigate(p.entry + "/rooms"))
	p.reach("/rooms", "header.bar") // the page of before leads nowhere else
	p.leave()

	// The remembered device: in at once, but not to where a factor is added. A recovery
	// code opens that, and nothing again.
	p.enter("/rooms")
	p.reach("/rooms", "header.bar")
	p.do(chromedp.Navigate(p.entry + "/.kidoban/account"))
	p.reach("/.kidoban/account", ".menu")
	p.look("account")
	p.do(chromedp.Navigate(p.entry + "/.kidoban/account/add"))
	p.reach("/.kidoban/step-up", "#code")
	p.look("step-up")
	p.recover(p.codes[0])
	p.reach("/.kidoban/account/add", `button[value=key]`)
	p.look("account-add")
	p.do(chromedp.Click(css(`button[value=key]`)))
	p.reach("/.kidoban/account/add/key", "button[data-create]")
	p.look("enrol-key")
	p.do(chromedp.Click(css("button[data-create]")))
	p.reach("/.kidoban/account/factors", "[role=status]")
	p.look("factors")
	p.do(chromedp.Click(css(".rows a")))
	p.awaitPath("/.kidoban/account/factors/")
	p.look("account-factor")
	for _, name := range []string{"codes", "sessions", "devices", "history", "nothing"} {
		p.do(chromedp.Navigate(p.entry + "/.kidoban/account/" + name))
		p.reach("/.kidoban/account/"+name, "main")
		p.look("account-" + name)
	}
	p.do(chromedp.Navigate(p.entry + "/rooms"))
	p.reach("/rooms", "header.bar")
	p.leave()

	// A sensitive route, and back to where one was.
	p.enter("/account")
	p.reach("/account", "#token-name")
	p.do(chromedp.SendKeys(css("#token-name"), "phone"), chromedp.Click(css(`form[action="/account/tokens"] button`)))
	p.reach("/.kidoban/step-up", "button[data-begin]")
	p.look("step-up-key")
	p.do(chromedp.Click(css("button[data-begin]")))
	p.reach("/account", "#token-name")
	p.do(chromedp.SendKeys(css("#token-name"), "phone"), chromedp.Click(css(`form[action="/account/tokens"] button`)))
	p.reach("/account/tokens", "code.secret")
	p.stranger()

	// A passkey.
	p.enter("/rooms")
	p.reach("/.kidoban/factor", "button[data-begin]")
	p.look("factor-key")
	p.do(chromedp.Click(css("button[data-begin]")))
	p.reach("/rooms", "header.bar")
	p.stranger()

	// A recovery code, once and only once.
	p.enter("/rooms")
	p.reach("/.kidoban/factor", "summary")
	p.recover(p.codes[1])
	p.reach("/rooms", "header.bar")
	p.stranger()
	for _, used := range p.codes[:2] {
		p.enter("/rooms")
		p.reach("/.kidoban/factor", "summary")
		p.recover(used)
		p.reach("/.kidoban/factor", "#error")
		p.stranger()
	}

	// Without the cookie of the login there is none to finish, and nobody is in.
	p.do(chromedp.Navigate(p.entry + "/.kidoban/factor"))
	p.reach("/.kidoban/factor", "a.button")
	p.look("over")
	p.do(chromedp.Navigate(p.entry + "/.kidoban/factor/link?t=of-another-browser"))
	p.reach("/.kidoban/factor/link", ".warn")
	p.look("link-elsewhere")
	p.enter("/rooms")
	p.reach("/.kidoban/factor", "summary")
	p.do(chromedp.Click(css(`a[href$="/lost"]`)))
	p.reach("/.kidoban/factor/lost", "main form button")
	p.look("lost")
	p.do(chromedp.Click(css(`main > .quiet a`)))
	p.reach("/.kidoban/factor", "summary")
	p.do(chromedp.Click(css(`form[action$="/cancel"] button`)))
	p.reach("/login", "#password")
	p.do(chromedp.Navigate(p.entry + "/rooms"))
	p.reach("/login", "#password")
}

// endElsewhere has somebody end, on one node, the session of another browser that has
// a room open on the other node.
func endElsewhere(t *testing.T, nodes []*secondNode, backend *town) {
	who := backend.people[3]
	a := newPerson(t, nodes[0], "ja", who)
	b := newPerson(t, nodes[1], "en", who)
	a.enter("/rooms")
	a.bindApp(func(string) {})
	a.keep()
	a.reach("/rooms", `a[href^="/rooms/"]`)
	room := evaluate[string](a.browser, `document.querySelector('a[href^="/rooms/"]').getAttribute('href')`)
	closed := make(chan time.Time, 8)
	if err := chromedp.Listen(a.ctx, func(event any) {
		if _, ok := event.(*network.EventWebSocketClosed); ok {
			select {
			case closed <- time.Now():
			default:
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	a.do(chromedp.Navigate(a.entry + room))
	a.reach(room, ".status.live")
	for len(closed) > 0 {
		<-closed // of the page before
	}

	b.secret, b.last = a.secret, a.last
	b.enter("/rooms")
	b.reach("/.kidoban/factor", "#code")
	b.do(chromedp.SendKeys(css("#code"), b.code()), chromedp.Click(css("main form > button:not([data-begin])")))
	b.reach("/rooms", "header.bar")
	b.do(chromedp.Navigate(b.entry + "/.kidoban/account/sessions"))
	b.reach("/.kidoban/account/sessions", `form[action$="/sessions"] button`)
	if n := evaluate[int](b.browser, `document.querySelectorAll('.rows li').length`); n != 2 {
		t.Fatalf("%d sessions are listed, want 2", n)
	}
	if len(closed) > 0 {
		t.Fatal("the room was dead before its session was ended")
	}
	began := time.Now()
	b.do(chromedp.Click(css(`form[action$="/sessions"] button`)))
	select {
	case at := <-closed:
		t.Logf("the room on the other node was dead %v after the click", at.Sub(began))
	case <-time.After(20 * time.Second):
		t.Fatal("the room lives on")
	}
	a.reach("/login", "#password")
	b.reach("/.kidoban/account/sessions", "[role=status]")
	b.do(chromedp.Navigate(b.entry + "/rooms"))
	b.reach("/rooms", "header.bar") // this one stays
}
