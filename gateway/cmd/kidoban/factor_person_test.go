package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/pquerna/otp/totp"

	"github.com/kidoban/kidoban/chatcore"
)

// person is somebody at a browser, with an app for codes.
type person struct {
	browser
	*secondNode
	who      chatcore.SeededAccount
	language string
	secret   string // of the app
	last     int64  // step of its last code that was used
	codes    []string
	heaviest float64 // page, in bytes

	mu         sync.Mutex
	complaints []string // guarded by mu; of the browser
}

// secondNode is a node that browsers reach by https, and its mail.
type secondNode struct {
	*node
	entry string
	post  *letters
}

// newSecondNodes are nodes of one installation that demand a second factor.
func newSecondNodes(t *testing.T, names []string, backend *town, options ...string) (all []*secondNode) {
	t.Helper()
	own := t.TempDir()
	const policy = "factors:\n  require:\n    - {need: factor}\n  grace: 0s\n  remember: 14d\n"
	if err := os.WriteFile(filepath.Join(own, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	post := newLetters(t)
	origins := "origin"
	for _, name := range names {
		n := newNode(t, name, backend)
		_, port, _ := strings.Cut(n.site, ":")
		n.site = "localhost:" + port
		all = append(all, &secondNode{node: n, entry: "https://localhost:" + port, post: post})
		origins += " https://localhost:" + port
	}
	for i, n := range all {
		n.configure(append([]string{
			"policies " + own, "service \"Sakura Chat\"", origins,
			post.option(),
		}, options...)...)
		text := n.caddyfile()
		for _, change := range [][2]string{
			{"auto_https off", "auto_https disable_redirects\n\tskip_install_trust"},
			{"http://" + n.site + " {", "https://" + n.site + " {\n\tbind 127.0.0.1\n\ttls internal"},
		} {
			if strings.Count(text, change[0]) != 1 {
				t.Fatalf("the Caddyfile has no %q to change:\n%s", change[0], text)
			}
			text = strings.Replace(text, change[0], change[1], 1)
		}
		if err := os.WriteFile(n.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			shareKeys(t, all[0].node, n.node)
		}
		n.start()
		t.Cleanup(n.troubles)
	}
	return all
}

// troubles tells what a node called an error, once its test has failed.
func (n *secondNode) troubles() {
	if !n.t.Failed() {
		return
	}
	for line := range strings.Lines(n.said()) {
		if strings.Contains(line, `"level":"error"`) {
			n.t.Logf("node %s: %.600s", n.name, line)
		}
	}
}

// newPerson opens a browser for somebody, whom a node expects. Its passkeys are kept by
// a device that exists in the browser alone.
func newPerson(t *testing.T, n *secondNode, language string, who chatcore.SeededAccount) *person {
	t.Helper()
	p := &person{browser: browse(t, language, 1280, 800), secondNode: n, language: language, who: who}
	p.listen()
	if _, err := chromedp.Call(p.ctx, webauthn.Enable, webauthn.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(p.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: "ctap2", Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true,
			AutomaticPresenceSimulation: true, IsUserVerified: true,
		}}); err != nil {
		t.Fatal(err)
	}
	return p
}

// enter goes to a page of the chat, is led to its form, and fills that in.
func (p *person) enter(to string) {
	p.t.Helper()
	p.do(chromedp.Navigate(p.entry + to))
	p.reach("/login", "#password")
	p.do(chromedp.SendKeys(css("#email"), p.who.Email), chromedp.SendKeys(css("#password"), p.who.Password), chromedp.Click(css("form.stack button.primary")))
}

// code is the next code of the app that was not used: also the one before, which
// counts for 30 s more.
func (p *person) code() string {
	p.t.Helper()
	for {
		now := time.Now()
		step := now.Unix() / 30
		next := max(p.last+1, step-1)
		if next < step && now.Unix()%30 > 20 {
			next = step // the one before is about to be void
		}
		if next > step {
			<-time.After(time.Until(time.Unix(next*30, 0))) // the app shows the same code until then
			continue
		}
		p.last = next
		code, err := totp.GenerateCode(p.secret, time.Unix(next*30, 0))
		if err != nil {
			p.t.Fatal(err)
		}
		return code
	}
}

// bindApp gives evidence by the mailed link and binds an app. It leaves the person
// before the recovery codes.
func (p *person) bindApp(look func(string)) {
	p.t.Helper()
	p.reach("/.kidoban/factor/enrol", `form[action$="/link"] button`)
	look("owed")
	p.do(chromedp.Click(css(`form[action$="/link"] button`)))
	p.reach("/.kidoban/factor/enrol", `[role=status]`)
	look("owed-sent")
	link := p.letter(regexp.MustCompile(`https://\S+/\.kidoban/factor/link\?t=\S+`))
	p.do(chromedp.Navigate(link))
	p.reach("/.kidoban/factor/link", "main form button")
	look("link")
	p.do(chromedp.Click(css("main form button")))
	p.reach("/.kidoban/factor/enrol", `button[value=totp]`)
	look("choose")
	p.do(chromedp.Click(css(`button[value=totp]`)))
	p.reach("/.kidoban/factor/enrol", ".qr svg")
	look("app")
	p.scan()
	p.do(chromedp.SendKeys(css("#code"), p.code()), chromedp.Click(css(`form[action*="/app"] button`)))
	p.reach("/.kidoban/factor/enrol/app", ".codes li")
	p.codes = evaluate[[]string](p.browser, `[...document.querySelectorAll('.codes li')].map((e) => e.textContent)`)
	if len(p.codes) != 10 {
		p.t.Fatalf("%d recovery codes, want 10", len(p.codes))
	}
}

// letter waits for a letter with what the pattern finds.
func (p *person) letter(pattern *regexp.Regexp) (found string) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, "a letter with "+pattern.String(), func() bool {
		for _, l := range p.post.of(p.who.Email) {
			if m := pattern.FindString(l.text); m != "" {
				found = m
			}
		}
		return found != ""
	})
	return found
}

// scan takes the secret over from the page, as an app does from the picture: the two
// say the same, module by module.
func (p *person) scan() {
	p.t.Helper()
	uri := evaluate[string](p.browser, `document.querySelector('a[href^="otpauth:"]').getAttribute('href')`)
	u, err := url.Parse(uri)
	if err != nil {
		p.t.Fatal(err)
	}
	q := u.Query()
	if u.Host != "totp" || q.Get("issuer") != "Sakura Chat" || !strings.HasSuffix(u.Path, ":"+p.who.Email) || q.Get("secret") == "" {
		p.t.Fatalf("the app would be told of %s and %s", u.Path, q.Get("issuer"))
	}
	p.secret = q.Get("secret")
	drawn := evaluate[[]string](p.browser, `(() => {
		const svg = document.querySelector('.qr svg'), n = svg.viewBox.baseVal.width, c = new Path2D(svg.querySelectorAll('path')[1].getAttribute('d'));
		const g = new OffscreenCanvas(n, n).getContext('2d');
		return [...Array(n - 8).keys()].map((y) => [...Array(n - 8).keys()].map((x) => g.isPointInPath(c, x + 4.5, y + 4.5) ? '#' : '.').join(''));
	})()`)
	if want := modules(p.t, uri); strings.Join(drawn, "\n") != strings.Join(want, "\n") {
		p.t.Errorf("the picture is not that of the address:\n%s", strings.Join(drawn, "\n"))
	}
}

// keep ticks that the codes are kept, and goes on.
func (p *person) keep() {
	p.t.Helper()
	p.do(chromedp.Click(css("#kept")), chromedp.Click(css("main form button")))
}

// leave logs out of the chat.
func (p *person) leave() {
	p.t.Helper()
	p.do(chromedp.Click(css(`form[action="/logout"] button`)))
	p.reach("/login", "#password")
}

// stranger makes a new device of the browser.
func (p *person) stranger() {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, network.ClearBrowserCookies, struct{}{}); err != nil {
		p.t.Fatal(err)
	}
}

// recover types a recovery code.
func (p *person) recover(code string) {
	p.t.Helper()
	p.do(chromedp.Click(css("summary")), chromedp.WaitVisible(css("#recovery")), chromedp.SendKeys(css("#recovery"), code), chromedp.Click(css("details button")))
}

func quote(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(fmt.Sprintf("a string as JSON: %v", err))
	}
	return string(b)
}
