package pages_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/go-webauthn/webauthn/protocol"

	"github.com/kidoban/kidoban/gateway/browsertest"
	"github.com/kidoban/kidoban/gateway/pages"
)

type (
	css  = chromedp.CSS
	step = chromedp.Action[chromedp.Void]
)

// desk serves every sample at /NAME?lang=, and what they refer to. Keys are bound and
// used as in a real login, but nobody checks signatures.
type desk struct {
	*httptest.Server
	mu     sync.Mutex
	status int           // what /begin answers with
	bound  []string      // ids of keys, which options name
	last   *http.Request // to /answer, its form parsed
	begun  []string      // bodies that came to /begin
}

var challenge = base64.RawURLEncoding.EncodeToString([]byte("a challenge that has - and _ : \xfb\xef\xff"))

func openDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{status: http.StatusOK}
	all := samples()
	all["bind"] = pages.EnrolKey{Action: "/answer", CSRF: token, Begin: "/begin?for=create", Name: "My phone"}
	all["use"] = pages.Factor{Action: "/answer", CSRF: token, Key: true, KeyBegin: "/begin?for=get", TOTP: true}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		switch {
		case strings.HasPrefix(r.URL.Path, "/.kidoban/"):
			if err := chat.Serve(w, r, strings.TrimPrefix(r.URL.Path, "/.kidoban/")); err != nil {
				t.Error(err)
			}
		case r.URL.Path == "/begin":
			body, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
			d.begun = append(d.begun, string(body))
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(d.status)
			fmt.Fprint(w, d.options(r.FormValue("for") == "create"))
		case r.URL.Path == "/answer":
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			d.last = r
			if err := chat.Write(w, r, http.StatusOK, "en", pages.Done{}); err != nil {
				t.Error(err)
			}
		default:
			v, ok := all[strings.TrimPrefix(r.URL.Path, "/")]
			if !ok {
				http.NotFound(w, r)
				return
			}
			if err := chat.Write(w, r, http.StatusOK, r.FormValue("lang"), v); err != nil {
				t.Error(err)
			}
		}
	}))
	t.Cleanup(d.Close)
	return d
}

// options are what auth.Factors gives, as go-webauthn writes it.
func (d *desk) options(create bool) string {
	known := []map[string]any{}
	for _, id := range d.bound {
		known = append(known, map[string]any{"type": "public-key", "id": id})
	}
	options := map[string]any{"challenge": challenge, "timeout": 60000}
	if create {
		options["rp"] = map[string]any{"name": "Example Chat", "id": "localhost"}
		options["user"] = map[string]any{"name": "hanako", "displayName": "花子", "id": base64.RawURLEncoding.EncodeToString([]byte{0xfb, 0xef, 0xff, 1})}
		options["pubKeyCredParams"] = []map[string]any{{"type": "public-key", "alg": -7}}
		options["excludeCredentials"] = known
		options["authenticatorSelection"] = map[string]any{"userVerification": "required", "residentKey": "required"}
	} else {
		options["rpId"], options["allowCredentials"], options["userVerification"] = "localhost", known, "required"
	}
	b, err := json.Marshal(map[string]any{"publicKey": options})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// address is that of a page, by a name for which browsers have keys.
func (d *desk) address(name, lang string) string {
	return strings.Replace(d.URL, "127.0.0.1", "localhost", 1) + "/" + strings.ReplaceAll(name, " ", "%20") + "?lang=" + lang
}

// take is what came to /answer, once.
func (d *desk) take() *http.Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.last
	d.last = nil
	return r
}

func (d *desk) set(status int, bound ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status, d.bound, d.begun = status, bound, nil
}

// tab is a browser of its own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func browse(t *testing.T, width int64) tab {
	t.Helper()
	b := tab{t, browsertest.Start(t, width, 844)}
	// What the policy of a page stops is told to nobody but the page.
	b.before(`addEventListener('securitypolicyviolation', e => (window.violations = window.violations || []).push(e.effectiveDirective + ' ' + e.blockedURI), true)`)
	return b
}

func (b tab) do(steps ...step) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// call sends a command to the browser.
func call[P, R any](b tab, c cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, c, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// before runs a script before those of every page from now on.
func (b tab) before(script string) {
	b.t.Helper()
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
}

func ask[T any](b tab, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// key gives the browser a passkey that says yes, or cannot verify its user.
func (b tab) key(verifies bool) webauthn.AuthenticatorID {
	b.t.Helper()
	call(b, webauthn.Enable, webauthn.EnableParams{})
	return call(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: verifies, AutomaticPresenceSimulation: true,
	}}).AuthenticatorID
}

// TestKeys binds a passkey and uses it, in a browser that reads and writes JSON itself
// and in one that leaves it to the script.
func TestKeys(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"json": "",
		"by hand": `delete PublicKeyCredential.parseCreationOptionsFromJSON; delete PublicKeyCredential.parseRequestOptionsFromJSON;
			PublicKeyCredential.prototype.toJSON = function () { throw new TypeError('Illegal invocation') }`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, b := openDesk(t), browse(t, 390)
			if script != "" {
				b.before(script)
			}
			b.key(true)

			b.do(chromedp.Navigate(d.address("bind", "en")), chromedp.WaitNotVisible(css("[data-without]")),
				chromedp.Click(css("button.key")), chromedp.WaitVisible(css("body:not(:has(form))")))
			r := d.take()
			if r == nil {
				t.Fatal("the form was not sent")
			}
			if o := r.Header.Get("Origin"); o != strings.Replace(d.URL, "127.0.0.1", "localhost", 1) {
				t.Errorf("Origin: %q", o)
			}
			if ref := r.Header.Get("Referer"); strings.Contains(ref, "bind") {
				t.Errorf("Referer: %q", ref)
			}
			if r.PostForm.Get(pages.FieldCSRF) != token || r.PostForm.Get(pages.FieldName) != "My phone" {
				t.Errorf("the form: %v", r.PostForm)
			}
			created, err := protocol.ParseCredentialCreationResponseBytes([]byte(r.PostForm.Get(pages.FieldKey)))
			if err != nil {
				t.Fatal(err)
			}
			if got := created.Response.CollectedClientData.Challenge; got != challenge {
				t.Errorf("challenge %q, want %q", got, challenge)
			}
			if len(created.Response.Transports) == 0 {
				t.Error("the answer does not say how the key is reached")
			}
			d.mu.Lock()
			if len(d.begun) != 1 || d.begun[0] != "csrf="+token+"&name=My+phone" {
				t.Errorf("asked for options with %q", d.begun)
			}
			d.mu.Unlock()

			d.set(http.StatusOK, created.ID)
			b.do(chromedp.Navigate(d.address("use", "ja")), chromedp.SendKeys(css("#code"), "123456"),
				chromedp.Click(css("button.key")), chromedp.WaitVisible(css("body:not(:has(form))")))
			if r = d.take(); r == nil {
				t.Fatal("the form was not sent")
			}
			used, err := protocol.ParseCredentialRequestResponseBytes([]byte(r.PostForm.Get(pages.FieldKey)))
			if err != nil {
				t.Fatal(err)
			}
			if used.ID != created.ID || used.Response.CollectedClientData.Challenge != challenge || len(used.Response.Signature) == 0 {
				t.Errorf("key %q, want %q", used.ID, created.ID)
			}
			d.mu.Lock()
			if len(d.begun) != 1 || d.begun[0] != "csrf="+token {
				t.Errorf("asked for options with %q: want nothing of the form but its token", d.begun)
			}
			d.mu.Unlock()

			// The same key is not bound twice.
			b.do(chromedp.Navigate(d.address("bind", "en")), chromedp.Click(css("button.key")), chromedp.WaitVisible(css("[data-error]")))
			if got := ask(b, chromedp.Text(css("[data-error]"))); got != pages.Phrases()["key.already"][0] {
				t.Errorf("bound again: %q", got)
			}
			if d.take() != nil {
				t.Error("the form was sent")
			}
		})
	}
}

// TestKeysThatFail leaves people on the page, with a sentence and the button again.
func TestKeysThatFail(t *testing.T) {
	t.Parallel()
	d, b := openDesk(t), browse(t, 390)
	b.key(false)
	for _, test := range []struct {
		name, view string
		status     int
		want       string
	}{
		{"not verified", "bind", http.StatusOK, "key.stopped"},
		{"token is old", "bind", http.StatusForbidden, "key.unreached"},
		{"too many", "use", http.StatusTooManyRequests, "key.unreached"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d.set(test.status)
			b := tab{t, b.ctx}
			b.do(chromedp.Navigate(d.address(test.view, "ja")), chromedp.Click(css("button.key")), chromedp.WaitVisible(css("[data-error]")))
			if got := ask(b, chromedp.Text(css("[data-error]"))); got != pages.Phrases()[test.want][1] {
				t.Errorf("the page says %q, want %s", got, test.want)
			}
			if !ask(b, chromedp.Evaluate[bool](`document.activeElement === document.querySelector('button.key') && !document.activeElement.disabled`)) {
				t.Error("the button is not there to be pressed again")
			}
			if d.take() != nil {
				t.Error("the form was sent")
			}
		})
	}
}

// TestWithoutKeys wants the words instead of the button, where it would do nothing.
func TestWithoutKeys(t *testing.T) {
	t.Parallel()
	visible := func(b tab, selector string) bool {
		return ask(b, chromedp.Evaluate[bool](`document.querySelector('`+selector+`').checkVisibility()`))
	}
	d, b := openDesk(t), browse(t, 390)
	t.Run("no script", func(t *testing.T) {
		b := tab{t, b.ctx}
		call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		b.do(chromedp.Navigate(d.address("use", "en")))
		if visible(b, "button.key") || !visible(b, "[data-without]") {
			t.Error("want the words, and no button")
		}
		b.do(chromedp.SendKeys(css("#code"), "123456\r"), chromedp.WaitVisible(css("body:not(:has(form))")))
		if r := d.take(); r == nil || r.PostForm.Get(pages.FieldCode) != "123456" || r.PostForm.Get(pages.FieldKey) != "" {
			t.Error("the code was not sent")
		}
	})
	t.Run("no WebAuthn", func(t *testing.T) {
		b := tab{t, b.ctx}
		call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
		b.before(`delete window.PublicKeyCredential; window.scripted = true`)
		b.do(chromedp.Navigate(d.address("use", "en")))
		if !ask(b, chromedp.Evaluate[bool](`window.scripted === true`)) {
			t.Fatal("scripts do not run")
		}
		if visible(b, "button.key") || !visible(b, "[data-without]") {
			t.Error("want the words, and no button")
		}
	})
}

// TestNarrowScreens looks at every page on the smallest phone (WCAG 2.2, 1.4.10): all
// fits, everything to be pressed is 44 px high, and the policy stops nothing.
func TestNarrowScreens(t *testing.T) {
	t.Parallel()
	d, b := openDesk(t), browse(t, 320)
	for name := range samples() {
		if strings.HasPrefix(name, "problem ") && name != "problem refused" {
			continue // they differ in words alone
		}
		for _, lang := range []string{"ja", "en"} {
			if lang == "en" && strings.Contains(name, " ") {
				continue // a variant: its lines are those of another, or break as in Japanese
			}
			b.do(chromedp.Navigate(d.address(name, lang)))
			faults := ask(b, chromedp.Evaluate[[]string](`(() => {
				const faults = (window.violations || []).slice();
				document.querySelectorAll('details').forEach(d => d.open = true);
				if (document.documentElement.scrollWidth > innerWidth) faults.push('it is ' + document.documentElement.scrollWidth + ' px wide');
				document.querySelectorAll('button, a, summary, input:not([type=hidden]):not([type=checkbox]), .check label').forEach(e => {
					const r = e.getBoundingClientRect();
					if (e.checkVisibility() && r.height < 44) faults.push(e.tagName + ' ' + e.textContent + ' is ' + r.height + ' px high');
				});
				if (getComputedStyle(document.body).margin !== '0px') faults.push('it has no style');
				return faults;
			})()`))
			if len(faults) > 0 {
				t.Errorf("%s in %s: %v", name, lang, faults)
			}
		}
	}
}
