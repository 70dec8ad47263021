package web_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kidoban/kidoban/chatcore"
)

var shots = flag.String("shots", "", "write screenshots of every page into this directory")

type (
	css  = chromedp.CSS
	step = chromedp.Action[chromedp.Void]
)

// tab is a browser of its own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// browse starts a browser with a language and a width.
func browse(t *testing.T, language string, width, height int64) tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is missing, and continuous integration must not go without")
		}
		t.Skip("chromium is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithAllocatorOptions(chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true)))
	t.Cleanup(func() {
		chromedp.Cancel(ctx) // waits for the browser to end
		cancel()
	})
	b := tab{t, ctx}
	b.do(chromedp.Navigate("about:blank"))
	if _, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
		Headers: network.Headers{"Accept-Language": language}}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b tab) do(steps ...step) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// ask is the value of an action.
func ask[T any](b tab, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b tab) login(s *site, a chatcore.SeededAccount) {
	b.t.Helper()
	b.do(chromedp.Navigate(s.URL+"/rooms"), chromedp.SendKeys(css("#email"), a.Email), chromedp.SendKeys(css("#password"), a.Password),
		chromedp.Click(css("form.stack button.primary")), chromedp.WaitVisible(css("header.bar")))
}

// TestLive has two people of one company talk in two browsers.
func TestLive(t *testing.T) {
	s := newSite(t)
	ann, ben := browse(t, "ja", 1280, 800), browse(t, "en", 390, 844)
	ann.login(s, s.one[0])
	ben.login(s, s.one[1])
	for _, who := range []tab{ann, ben} {
		who.do(chromedp.Navigate(s.URL+s.company(s.one)), chromedp.WaitVisible(css(".status.live")))
	}

	const said = "本日の会議は15時からです。\n資料は共有フォルダにあります。"
	ann.do(chromedp.SetValue(css("#body"), said), chromedp.Click(css("[data-composer] button")), chromedp.WaitVisible(css(".message.new.mine")),
		chromedp.WaitVisible(css("#body:placeholder-shown")))
	ben.do(chromedp.WaitVisible(css(".message.new")))
	if got := ask(ben, chromedp.Text(css(".message.new .message-body"))); got != said {
		t.Errorf("the other browser shows %q, want %q", got, said)
	}

	// Markup is text.
	const markup = `<img src=x onerror="alert(1)">`
	ben.do(chromedp.SendKeys(css("#body"), markup), chromedp.Click(css("[data-composer] button")))
	ann.do(chromedp.WaitVisible(css(".message.new:not(.mine)")))
	if got := ask(ann, chromedp.Text(css(".message.new:not(.mine) .message-body"))); got != markup {
		t.Errorf("markup became %q", got)
	}

	// A session that ends elsewhere ends the page.
	cookie := s.login(s.one[0])
	const changed = "a password of another kind"
	if got := s.do("POST", "/password", form("current_password", s.one[0].Password, "new_password", changed), cookie, asForm); got.status != 303 {
		t.Fatalf("changing the password: %d %s", got.status, got.body)
	}
	ann.do(chromedp.WaitVisible(css("#password")))
	if at := ask(ann, chromedp.Location()); !strings.HasSuffix(at, "/login") {
		t.Errorf("after the session's end the page is %s", at)
	}
}

// TestPages looks at every page in both languages and two widths: nothing may
// be wider than the screen, and nothing to touch on a phone lower than 44
// pixels.
func TestPages(t *testing.T) {
	s := newSite(t)
	for _, lang := range []string{"ja", "en"} {
		for _, size := range []struct {
			name          string
			width, height int64
		}{{"phone", 390, 844}, {"desk", 1280, 800}} {
			t.Run(lang+"/"+size.name, func(t *testing.T) {
				b := browse(t, lang, size.width, size.height)
				who := s.one[2]
				s.do("POST", "/account/language", form("language", lang), s.login(who), asForm)
				look := func(page string, steps ...step) {
					t.Helper()
					b.do(steps...)
					b.do(chromedp.WaitReady(css("main")))
					if wide := ask(b, chromedp.Evaluate[int](`document.documentElement.scrollWidth - document.documentElement.clientWidth`)); wide > 0 {
						t.Errorf("%s is %d pixels too wide", page, wide)
					}
					low := ask(b, chromedp.Evaluate[[]string](`[...document.querySelectorAll('button, a, input:not([type=hidden]), select, summary')]
						.filter(e => !e.closest('.sr, .skip') && e.checkVisibility() && e.getBoundingClientRect().height < 44).map(e => e.outerHTML.slice(0, 90))`))
					if size.width == 390 && len(low) > 0 {
						t.Errorf("%s has low targets: %q", page, low)
					}
					if lang := ask(b, chromedp.Evaluate[string](`document.documentElement.lang`)); !strings.HasPrefix(t.Name(), "TestPages/"+lang) {
						t.Errorf("%s is in %q", page, lang)
					}
					if *shots != "" {
						png := ask(b, chromedp.CaptureScreenshot())
						if err := os.WriteFile(filepath.Join(*shots, page+"-"+lang+"-"+size.name+".png"), png, 0o644); err != nil {
							t.Fatal(err)
						}
					}
				}
				look("login", chromedp.Navigate(s.URL+"/login"))
				look("refused", chromedp.SendKeys(css("#email"), who.Email), chromedp.SendKeys(css("#password"), "not this one"),
					chromedp.Click(css("form.stack button.primary")), chromedp.WaitVisible(css(".alert.bad")))
				look("reset", chromedp.Navigate(s.URL+"/password/reset"))
				look("sent", chromedp.SendKeys(css("#email"), who.Email), chromedp.Click(css("form.stack button.primary")), chromedp.WaitVisible(css(".alert.good")))
				b.login(s, who)
				look("rooms")
				look("room", chromedp.Click(css("nav.rooms li:nth-child(2) a")), chromedp.WaitVisible(css(".status.live")),
					chromedp.SetValue(css("#body"), "こんにちは！ See you at 15:00."), chromedp.Click(css("[data-composer] button")), chromedp.WaitVisible(css(".message.mine.new")))
				look("members", chromedp.Click(css(".members summary")), chromedp.WaitVisible(css(".members-panel")))
				look("account", chromedp.Navigate(s.URL+"/account"))
				look("token", chromedp.SendKeys(css("#token-name"), "Deploy bot"), chromedp.Click(css(`form[action="/account/tokens"] button`)),
					chromedp.WaitVisible(css(".secret")), chromedp.ScrollIntoView(css("#token-name")))
				look("error", chromedp.Navigate(s.URL+"/rooms/999999"))
			})
		}
	}
}
