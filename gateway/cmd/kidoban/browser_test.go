package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kidoban/kidoban/gateway/browsertest"
)

var shots = flag.String("shots", "", "write screenshots into this directory")

type (
	css  = chromedp.CSS
	step = chromedp.Action[chromedp.Void]
)

// office is the address that everybody in this test shares: localhost has two.
const office = "203.0.113.50"

// browser is a browser of its own, with an empty profile.
type browser struct {
	t   *testing.T
	ctx context.Context
}

func browse(t *testing.T, language string, width, height int64) browser {
	t.Helper()
	b := browser{t, browsertest.Start(t, width, height, chromedp.Flag("ignore-certificate-errors", true))} // the demo's own authority
	b.from(language)
	return b
}

// from has the browser's tab come from the office, and ask for a language.
func (b browser) from(language string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
		Headers: network.Headers{"Accept-Language": language, "X-Forwarded-For": office}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b browser) do(steps ...step) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b browser) text(selector css) string {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Text(selector))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b browser) shot(name string) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*shots, name+".png"), picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b browser) login(entry, email, password string) {
	b.t.Helper()
	b.do(chromedp.Navigate(entry+"/login"), chromedp.SendKeys(css("#email"), email), chromedp.SendKeys(css("#password"), password),
		chromedp.Click(css("form.stack button.primary")))
}

// startDemo runs the demo until the test ends and returns what it printed once it
// was up.
func startDemo(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(name, t.TempDir()) // the demo sets them; this sets them back
	}
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := demo(ctx, demoOptions{listen: ":0", operators: "127.0.0.1:0", accounts: 200, mode: "enforce", seed: 1, dir: t.TempDir()}, "en", in, io.Discard)
		in.CloseWithError(io.EOF)
		done <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the demo: %v", err)
		}
	})
	var printed bytes.Buffer
	for b := make([]byte, 4096); !strings.Contains(printed.String(), "Ctrl-C"); {
		n, err := out.Read(b)
		printed.Write(b[:n])
		if err != nil {
			t.Fatalf("the demo did not come up: %v\n%s", err, printed.String())
		}
	}
	go io.Copy(io.Discard, out)
	return printed.String()
}

// TestPeopleTalkThroughTheGate is the demo as a person meets it: two people of one
// company log in through the gate and see each other's messages live; a list is
// tried from their address; a stranger's browser is asked for proof, and they are not.
func TestPeopleTalkThroughTheGate(t *testing.T) {
	ann, ben := browse(t, "ja", 1280, 800), browse(t, "en", 390, 844)
	printed := startDemo(t)
	entry := regexp.MustCompile(`https://localhost:\d+`).FindString(printed)
	people := regexp.MustCompile(`(?m)(\S+@\S+\.example)   (\S+)$`).FindAllStringSubmatch(printed, 2)
	if entry == "" || len(people) != 2 {
		t.Fatalf("the demo names no address or not two people:\n%s", printed)
	}
	for i, who := range []browser{ann, ben} {
		who.login(entry, people[i][1], people[i][2])
		who.do(chromedp.WaitVisible(css("header.bar")))
	}
	ann.shot("gate-rooms-ja")
	ben.shot("gate-rooms-en")
	room, err := chromedp.Run(ann.ctx, chromedp.Evaluate[string](
		`[...document.querySelectorAll('a[href^="/rooms/"]')].find(a => /Everybody|全社/.test(a.textContent)).getAttribute('href')`))
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []browser{ann, ben} {
		who.do(chromedp.Navigate(entry+room), chromedp.WaitVisible(css(".status.live")))
	}
	const said = "おはようございます。The gate stands."
	ann.do(chromedp.SetValue(css("#body"), said), chromedp.Click(css("[data-composer] button")), chromedp.WaitVisible(css(".message.new.mine")))
	ben.do(chromedp.WaitVisible(css(".message.new")))
	if got := ben.text(css(".message.new .message-body")); got != said {
		t.Errorf("the other browser shows %q, want %q", got, said)
	}
	ann.shot("gate-room-ja")
	ben.shot("gate-room-en")

	// A list, tried from the same address.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the demo's own authority
	stopped := 0
	for i := range 20 {
		r, err := http.NewRequest("POST", entry+"/login", strings.NewReader(fmt.Sprintf(`{"email":"user%d@list.example","password":"stolen-%d"}`, i, i)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Forwarded-For", office)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == http.StatusForbidden {
			stopped++
		}
	}
	if stopped < 5 {
		t.Errorf("%d of 20 tries of a list were stopped, want at least 5", stopped)
	}
	for _, language := range []string{"ja", "en"} {
		stranger := browse(t, language, 390, 844)
		stranger.login(entry, people[1][1], people[1][2])
		stranger.do(chromedp.WaitVisible(css("main dl dd")))
		if got := stranger.text(css("main dl dd")); !regexp.MustCompile(`^[0-9A-Z]{4}-[0-9A-Z]{4}$`).MatchString(got) {
			t.Errorf("the page for a stranger shows %q, want a reference code", got)
		}
		stranger.shot("gate-step-up-" + language)
	}
	// Ann's browser is known to her account: out and in again, on the same address.
	ann.do(chromedp.Click(css(`form[action="/logout"] button`)), chromedp.WaitVisible(css("#password")))
	ann.login(entry, people[0][1], people[0][2])
	ann.do(chromedp.WaitVisible(css("header.bar")))
}
