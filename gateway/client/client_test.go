package client_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/client"
)

const (
	chrome  = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
	safari  = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15"
	iphone  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0.0.0 Mobile/15E148 Safari/604.1"
)

func TestFamily(t *testing.T) {
	for agent, want := range map[string]string{
		"": "", "???": "", chrome: "chrome", firefox: "firefox", safari: "safari", iphone: "chrome",
		chrome + " Edg/142.0.0.0": "edge", chrome + " OPR/120.0.0.0": "opera", "Mozilla/5.0 x": "mozilla",
		strings.Replace(chrome, "Chrome/", "HeadlessChrome/", 1):                                              "headless",
		strings.Replace(chrome, "Chrome/", "SamsungBrowser/28.0 Chrome/", 1):                                  "samsung",
		strings.Replace(chrome, "Chrome/", "Chat/3.1 Chrome/", 1) + " Electron/38.0":                          "electron",
		"Mozilla/5.0 (Linux; Android 15; Pixel 9; wv) AppleWebKit/537.36 Version/4.0 Chrome/142.0 Safari/537": "android-webview",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML) Mobile/15E148":   "ios-webview",
		"Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko":                                       "ie",
		"Chat/512 CFNetwork/1568.200.51 Darwin/24.1.0":                                                        "ios-app",
		"okhttp/4.12.0": "android-app", "Dalvik/2.1.0 (Linux; U; Android 15)": "android-app",
		"curl/8.9.1": "curl", "python-requests/2.32.3": "python-requests", "Python/3.12 aiohttp/3.10": "aiohttp", "Go-http-client/2.0": "go-http-client",
		"Java/21.0.4": "java", "Apache-HttpClient/5.3 (Java/21)": "java", "node": "node", "axios/1.7.7": "node",
		"PostmanRuntime/7.42.0": "postmanruntime", "My\x00Tool 花/1": "mytool",
		strings.Repeat("x", 1<<10): strings.Repeat("x", 32),
	} {
		if got := client.Family(agent); got != want {
			t.Errorf("%.100q: got %q, want %q", agent, got, want)
		}
	}
}

func TestHeaders(t *testing.T) {
	browser := []string{"User-Agent", "Accept", "Accept-Language", "Accept-Encoding", "Content-Type", "Origin", "Referer", "Sec-Ch-Ua", "Sec-Fetch-Mode"}
	want := client.Headers(browser)
	if !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(want) {
		t.Fatalf("got %q, want 12 hex digits", want)
	}
	if want != "1dcda8fe2235" { // it is kept in events: another one is another client
		t.Errorf("got %s", want)
	}
	for name, names := range map[string][]string{
		"another order":    reversed(browser),
		"another case":     strings.Split(strings.ToLower(strings.Join(browser, " ")), " "),
		"twice":            append(slices.Clone(browser), "accept"),
		"a proxy's":        append(slices.Clone(browser), "X-Forwarded-For", "X-Forwarded-Proto", "Via", "Forwarded", "Cf-Connecting-Ip", "X-Real-Ip", "Traceparent"),
		"a connection's":   append(slices.Clone(browser), "Connection", "Te", "Content-Length", "Priority", "Early-Data"),
		"what was before":  append(slices.Clone(browser), "Cookie", "If-None-Match", "Cache-Control", "Sec-Ch-Ua-Full-Version-List", "Dpr"),
		"a click, a field": append(slices.Clone(browser), "Sec-Fetch-User", "Upgrade-Insecure-Requests"),
	} {
		if got := client.Headers(names); got != want {
			t.Errorf("%s: got %s, want %s as without", name, got, want)
		}
	}
	for _, other := range []string{"Dnt", "Sec-Ch-Ua-Mobile", "X-Requested-With"} {
		if got := client.Headers(append(slices.Clone(browser), other)); got == want {
			t.Errorf("with %s: got the same, %s", other, got)
		}
	}
	if got := client.Headers([]string{"Host", "Cookie"}); got != "" {
		t.Errorf("of nothing that counts: got %q", got)
	}
}

func reversed(names []string) []string {
	names = slices.Clone(names)
	slices.Reverse(names)
	return names
}

func TestIncoherent(t *testing.T) {
	all := []string{"user-agent", "accept-language", "sec-fetch-mode", "sec-ch-ua"}
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == name })
	}
	const ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1"
	for name, test := range map[string]struct {
		shown client.Shown
		want  bool
	}{
		"chrome":                         {client.Shown{chrome, all, ja4, true}, false},
		"chrome without hints":           {client.Shown{chrome, without("sec-ch-ua"), ja4, true}, true},
		"chrome in the clear":            {client.Shown{chrome, []string{"Accept-Language"}, "", false}, false},
		"chrome without language":        {client.Shown{chrome, without("accept-language"), "", false}, true},
		"chrome 88 without hints":        {client.Shown{strings.Replace(chrome, "142", "88", 1), without("sec-ch-ua"), ja4, true}, false},
		"edge without hints":             {client.Shown{chrome + " Edg/142.0", without("sec-ch-ua"), ja4, true}, true},
		"edge for Android without hints": {client.Shown{chrome + " EdgA/142.0", without("sec-ch-ua"), ja4, true}, true},
		"firefox has no hints":           {client.Shown{firefox, without("sec-ch-ua"), ja4, true}, false},
		"firefox without fetch data":     {client.Shown{firefox, []string{"accept-language"}, ja4, true}, true},
		"safari":                         {client.Shown{safari, without("sec-ch-ua"), ja4, true}, false},
		"safari 15 without fetch data":   {client.Shown{strings.Replace(safari, "18.1", "15.6", 1), []string{"accept-language"}, ja4, true}, false},
		"chrome for iOS has no hints":    {client.Shown{iphone, []string{"accept-language"}, ja4, true}, false},
		"chrome with TLS 1.2":            {client.Shown{chrome, all, "t12d1516h2_8daaf6152771_e5627efa2ab1", true}, true},
		"chrome without protocols":       {client.Shown{chrome, all, "t13d151600_8daaf6152771_e5627efa2ab1", true}, true},
		"chrome over HTTP/3":             {client.Shown{chrome, all, "q13d0312h3_55b375c5d22e_178839b6cec1", true}, false},
		"a fingerprint of another kind":  {client.Shown{chrome, all, "odd", true}, false},
		"a program":                      {client.Shown{"curl/8.9.1", nil, "t12d310000_x_y", true}, false},
		"a browser without a version":    {client.Shown{"Mozilla/5.0 Firefox/", nil, "", true}, false},
		"nothing":                        {client.Shown{}, false},
	} {
		if got := client.Incoherent(test.shown); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
}

func BenchmarkDescribe(b *testing.B) {
	s := client.Shown{UserAgent: chrome, JA4: "t13d1516h2_8daaf6152771_e5627efa2ab1", Secure: true,
		Names: []string{"User-Agent", "Accept", "Accept-Language", "Accept-Encoding", "Content-Type", "Origin", "Referer", "Sec-Ch-Ua", "Sec-Fetch-Mode"}}
	b.ReportAllocs()
	for b.Loop() {
		client.Describe(s)
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add(chrome, "Accept,Cookie", "t13d1516h2_8daaf6152771_e5627efa2ab1")
	f.Add("\xff/", ",,", "t")
	f.Fuzz(func(t *testing.T, agent, names, ja4 string) {
		c := client.Describe(client.Shown{UserAgent: agent, Names: strings.Split(names, ","), JA4: ja4, Secure: true})
		if !regexp.MustCompile(`^[a-z0-9_.-]{0,32}$`).MatchString(c.Family) || len(c.Headers) != 12 && c.Headers != "" {
			t.Errorf("got %+v", c)
		}
	})
}
