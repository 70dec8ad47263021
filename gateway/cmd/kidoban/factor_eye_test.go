package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// pageMax bounds what a page costs over the wire, with its style sheet and script, in
// bytes.
const pageMax = 60 << 10

// glance finds what is wrong with a page that can be seen without reading it: content
// that leaves the window, fields and buttons without a name, references to nothing,
// targets that are too small (WCAG 2.2, 2.5.8), headings that are missing. The width
// is that of the window; telephones zoom out of what is wider, and say it were theirs.
const glance = `((width) => {
	const faults = [], all = (s) => [...document.querySelectorAll(s)];
	const what = (e) => e.outerHTML.slice(0, 120);
	const shown = (e) => e.checkVisibility({visibilityProperty: true}) && !e.closest('.unseen');
	if (document.documentElement.scrollWidth > width) faults.push('it scrolls sideways: ' + document.documentElement.scrollWidth + ' of ' + width);
	for (const e of all('body *')) if (shown(e) && e.getBoundingClientRect().right > width + 1) faults.push('out of the window: ' + what(e));
	for (const e of all('input:not([type=hidden]), select, textarea')) if (!e.labels || !e.labels.length || !e.labels[0].textContent.trim()) faults.push('no label: ' + what(e));
	for (const e of all('button, a, summary')) if (shown(e) && !e.textContent.trim() && !e.ariaLabel) faults.push('no name: ' + what(e));
	for (const e of all('img')) if (!e.hasAttribute('alt')) faults.push('no alt: ' + what(e));
	for (const e of all('svg[role=img]')) if (!e.getAttribute('aria-label')) faults.push('no label: ' + what(e));
	for (const e of all('[aria-describedby]')) for (const id of e.getAttribute('aria-describedby').split(/\s+/)) if (!document.getElementById(id)) faults.push('describes by nothing: ' + id);
	for (const e of all('button, .button, summary, input:not([type=hidden])')) {
		const r = e.getBoundingClientRect();
		if (shown(e) && (r.height < 24 || r.width < 24)) faults.push('too small: ' + what(e));
	}
	const ids = all('[id]').map((e) => e.id);
	if (new Set(ids).size != ids.length) faults.push('an id twice: ' + ids);
	if (all('h1').length != 1 || all('main').length != 1) faults.push('not one h1 and main');
	if (!document.title.trim() || !document.documentElement.lang) faults.push('no title or language');
	return faults;
})`

// resized waits until the page has the size that its window was given, which it gets
// some frames later: what is scrolled into view before would be out of view again.
const resized = `(async (width, height) => {
	for (let frame = 0; frame < 600; frame++) {
		await new Promise(requestAnimationFrame);
		if (innerWidth == width && innerHeight == height) return '';
	}
	return innerWidth + ' x ' + innerHeight;
})`

// focused tells of what has the focus: whether that can be seen, and its place.
const focused = `(() => {
	const e = document.activeElement;
	if (!e || e === document.body || e === document.documentElement) return {Index: -1};
	const r = e.getBoundingClientRect(), s = getComputedStyle(e);
	return {
		Index: [...document.querySelectorAll('*')].indexOf(e), What: e.outerHTML.slice(0, 120),
		How: [s.outlineStyle, s.outlineWidth, 'top', r.top, 'of', innerHeight, 'width', r.width, e.matches(':focus-visible')].join(' '),
		Seen: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 && r.width > 0 && r.top >= -1 && r.top < innerHeight && e.matches(':focus-visible'),
	};
})()`

// tabbable counts what the Tab key stops at.
const tabbable = `[...document.querySelectorAll('a[href], button, input:not([type=hidden]), summary, select, textarea')].filter((e) => !e.disabled && e.checkVisibility({visibilityProperty: true})).length`

// weight is what the page and what it loads cost over the wire, also where some was
// kept from before: 300 bytes for the header fields of each.
const weight = `(() => performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
	.reduce((n, e) => n + Math.max(e.transferSize, (e.encodedBodySize || 0) + 300), 0))()`

// look looks at the page that is open, on a telephone and on a desk.
func (p *person) look(name string) {
	p.t.Helper()
	for _, size := range []struct {
		name          string
		width, height int64
	}{{"phone", 390, 844}, {"desktop", 1280, 800}} {
		if _, err := chromedp.Call(p.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: size.width, Height: size.height, DeviceScaleFactor: 1, Mobile: size.name == "phone"}); err != nil {
			p.t.Fatal(err)
		}
		if got := evaluate[string](p.browser, fmt.Sprintf("%s(%d, %d)", resized, size.width, size.height)); got != "" {
			p.t.Fatalf("%s, %s, %s: the window is still %s", name, p.language, size.name, got)
		}
		if faults := evaluate[[]string](p.browser, fmt.Sprintf("%s(%d)", glance, size.width)); len(faults) > 0 {
			p.t.Errorf("%s, %s, %s:\n%s", name, p.language, size.name, strings.Join(faults, "\n"))
		}
		if dir := os.Getenv("KIDOBAN_SCREENSHOTS"); dir != "" {
			picture, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
			if err != nil {
				p.t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name+"-"+p.language+"-"+size.name+".png"), picture, 0o600); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	p.tab(name)
	if n := evaluate[float64](p.browser, weight); n > pageMax || n < 1000 {
		p.t.Errorf("%s weighs %.0f bytes, want at most %d", name, n, pageMax)
	} else if n > p.heaviest {
		p.heaviest = n
	}
	if got := evaluate[string](p.browser, `document.documentElement.lang`); got != p.language {
		p.t.Errorf("%s is in %q, want %q", name, got, p.language)
	}
}

// tab goes through the page by the keyboard: each stop is seen, comes after the one
// before, and none is left out.
func (p *person) tab(name string) {
	p.t.Helper()
	type stop struct {
		Index int
		What  string
		How   string
		Seen  bool
	}
	want := evaluate[int](p.browser, tabbable)
	var stops []int
	turns := 0
	for range want + 3 { // the window itself is a stop
		p.do(chromedp.KeyEvent("\t"))
		at := evaluate[stop](p.browser, focused)
		if at.Index < 0 {
			continue
		}
		for range 20 { // a window that was just made larger is drawn anew
			if at.Seen {
				break
			}
			at = evaluate[stop](p.browser, "new Promise(requestAnimationFrame).then(() => "+focused+")")
		}
		if !at.Seen {
			p.t.Errorf("%s, %s: the focus is not seen (%s) at %s", name, p.language, at.How, at.What)
		}
		if slices.Contains(stops, at.Index) {
			break
		}
		if len(stops) > 0 && at.Index < stops[len(stops)-1] {
			turns++
		}
		stops = append(stops, at.Index)
	}
	if len(stops) != want || turns > 1 {
		p.t.Errorf("%s, %s: the Tab key stops at %v, want %d stops in the page's order", name, p.language, stops, want)
	}
	evaluate[bool](p.browser, `document.activeElement.blur(), scrollTo(0, 0), true`)
}

// listen has the test fail on whatever the browser complains of, such as a violation
// of a Content-Security-Policy. That a page was answered with a status of an error is
// no complaint.
func (p *person) listen() {
	messages := chromedp.Console(p.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return
			}
			if (m.Type == "error" || m.Type == "warning" || m.Type == chromedp.ConsoleException) &&
				!strings.HasPrefix(m.Text, "Failed to load resource: the server responded with a status of 4") &&
				!strings.Contains(m.Text, "WebSocket connection to") {
				p.mu.Lock()
				p.complaints = append(p.complaints, string(m.Type)+": "+m.Text)
				p.mu.Unlock()
			}
		}
	}()
	p.t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, text := range p.complaints {
			p.t.Errorf("the browser complains: %s", text)
		}
	})
}

// evaluate runs script in the page.
func evaluate[T any](b browser, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%.80s: %v", script, err)
	}
	return v
}

// reach waits until the page at a path shows what the selector finds. While a browser
// is on its way there is no page to ask.
func (b browser) reach(path, selector string) {
	b.t.Helper()
	script := `[location.pathname, document.readyState === 'complete' && !!document.querySelector(` + quote(selector) + `) ? 'there' : location.search + ' ' + document.title + ': ' + document.body?.innerText.slice(0, 300)]`
	late := time.After(20 * time.Second)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	var at []string
	for {
		got, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](script))
		if err == nil {
			if at = got; len(at) == 2 && at[0] == path && at[1] == "there" {
				return
			}
		}
		select {
		case <-late:
			b.t.Fatalf("at %q, want %s with %s (%v)", at, path, selector, err)
		case <-look.C:
		}
	}
}

// awaitPath waits for a page below a path.
func (b browser) awaitPath(prefix string) {
	b.t.Helper()
	eventually(b.t, 20*time.Second, "a page below "+prefix, func() bool {
		there, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`document.readyState === 'complete' && location.pathname.startsWith(`+quote(prefix)+`)`))
		return err == nil && there
	})
}
