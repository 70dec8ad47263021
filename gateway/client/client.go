// Package client describes a client program by what its requests show: a family from
// the User-Agent, the set of header fields it sends, and whether these and its TLS
// handshake go together.
//
// All of it is what the client chose to show. It tells clumsy programs from browsers
// and one build of a tool from another; a careful one shows what a browser shows.
// Nothing here is a secret or leads to a person, and values of fields other than the
// User-Agent are not looked at.
package client

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/detectors"
)

// Shown is what a request shows of the program that sent it.
type Shown struct {
	UserAgent string
	Names     []string // of the header fields, in any case and order
	JA4       string   // empty: unknown
	Secure    bool     // it came over TLS, as far as this server sees
}

// Describe sums s up for detectors.
func Describe(s Shown) detectors.Client {
	return detectors.Client{JA4: s.JA4, Headers: Headers(s.Names), Family: Family(s.UserAgent), Incoherent: Incoherent(s)}
}

const (
	maxAgent  = 512 // bytes of a User-Agent that are looked at
	maxFamily = 32  // bytes
)

// families are marks in a User-Agent, in the order in which they are looked for: most
// programs name those after them as well.
var families = []struct{ mark, family string }{
	{"HeadlessChrome/", "headless"}, {"PhantomJS/", "headless"}, {"Electron/", "electron"},
	{"EdgA/", "edge"}, {"EdgiOS/", "edge"}, {"Edg/", "edge"}, {"Edge/", "edge"},
	{"OPR/", "opera"}, {"OPT/", "opera"}, {"OPiOS/", "opera"}, {"SamsungBrowser/", "samsung"}, {"Vivaldi/", "vivaldi"}, {"YaBrowser/", "yandex"},
	{"Firefox/", "firefox"}, {"FxiOS/", "firefox"}, {"; wv)", "android-webview"},
	{"CriOS/", "chrome"}, {"Chromium/", "chrome"}, {"Chrome/", "chrome"}, {"Trident/", "ie"}, {"MSIE ", "ie"},
}

// programs are marks in a User-Agent that is not like a browser's.
var programs = []struct{ mark, family string }{
	{"CFNetwork/", "ios-app"}, {"okhttp/", "android-app"}, {"Dalvik/", "android-app"}, {"aiohttp/", "aiohttp"},
	{"curl/", "curl"}, {"python-requests/", "python-requests"}, {"Go-http-client/", "go-http-client"},
	{"Java/", "java"}, {"Java-http-client/", "java"}, {"Apache-HttpClient/", "java"},
	{"node-fetch", "node"}, {"axios/", "node"}, {"undici", "node"},
}

// Family is the kind of program that a User-Agent names, such as "chrome",
// "ios-app" or "python-requests": one of a table, else its first product in lower
// case; at most 32 bytes of letters, digits, "-", "_" and "."; empty if it names none.
func Family(agent string) string {
	agent = agent[:min(len(agent), maxAgent)]
	if strings.HasPrefix(agent, "Mozilla/") {
		for _, f := range families {
			if strings.Contains(agent, f.mark) {
				return f.family
			}
		}
		switch {
		case strings.Contains(agent, "Safari/") && strings.Contains(agent, "Version/"):
			return "safari"
		case strings.Contains(agent, "AppleWebKit/") && strings.Contains(agent, "Mobile/"):
			return "ios-webview"
		}
		return "mozilla"
	}
	for _, p := range programs {
		if strings.Contains(agent, p.mark) {
			return p.family
		}
	}
	product := agent
	if end := strings.IndexAny(product, "/ \t(;,"); end >= 0 {
		product = product[:end]
	}
	if product = strings.ToLower(product); product == "node" {
		return product
	}
	var b strings.Builder
	for i := 0; i < len(product) && b.Len() < maxFamily; i++ {
		if c := product[i]; 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Headers is the first 12 hex digits of a hash of which header fields a request has,
// whatever their case and order; empty if there are none. Left out is what does not
// tell the program: what proxies add, what a connection, a cache or a cookie jar
// brings about, what only HTTP/2 has, and hints that a browser sends once it was asked.
func Headers(names []string) string {
	var mine []string
	for _, name := range names {
		if name = strings.ToLower(name); chosen(name) {
			mine = append(mine, name)
		}
	}
	if len(mine) == 0 {
		return ""
	}
	slices.Sort(mine)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(mine), "\n")))
	return hex.EncodeToString(sum[:6])
}

// incidental are fields that tell nothing of the program.
var incidental = func() map[string]bool {
	out := make(map[string]bool)
	for _, name := range strings.Fields(`
		connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings expect
		host content-length cookie authorization proxy-authorization
		if-match if-none-match if-modified-since if-unmodified-since if-range range cache-control pragma
		priority sec-fetch-user sec-fetch-storage-access sec-purpose upgrade-insecure-requests early-data
		save-data device-memory dpr viewport-width width downlink ect rtt
		forwarded via x-real-ip true-client-ip client-ip x-client-ip x-cluster-client-ip cdn-loop
		x-request-id x-correlation-id traceparent tracestate baggage uber-trace-id x-cloud-trace-context x-request-start`) {
		out[name] = true
	}
	return out
}()

// added begin the names of fields that proxies and services before the gate add.
var added = []string{"x-forwarded-", "x-original-", "x-b3-", "x-envoy-", "x-amzn-", "x-amz-cf-", "cloudfront-", "cf-", "fastly-", "akamai-", "x-akamai-", "x-azure-", "x-arr-", "fly-"}

func chosen(name string) bool {
	if incidental[name] || slices.ContainsFunc(added, func(p string) bool { return strings.HasPrefix(name, p) }) {
		return false
	}
	if strings.HasPrefix(name, "sec-ch-") { // the others are sent when they were asked for
		return name == "sec-ch-ua" || name == "sec-ch-ua-mobile" || name == "sec-ch-ua-platform"
	}
	return true
}

// Incoherent reports whether s claims, by its User-Agent, to be a browser that would
// have shown something else:
//   - any of Chrome, Edge, Firefox and Safari without Accept-Language;
//   - over TLS, Chrome or Edge since 89 without Sec-CH-UA;
//   - over TLS, Chrome or Edge since 89, Firefox since 90 or Safari since 17 without
//     Sec-Fetch-Mode;
//   - one of these with a handshake that offers no TLS 1.3, or no protocol (ALPN).
//
// Programs of these names for iOS are WebKit and are not judged, nor is what only
// resembles them. It accepts as false positives: people who have a browser name itself
// another, or suppress fields, by an extension; and, by the last rule, an office or a
// virus scanner that opens TLS on the way, where the handshake is that of a box.
func Incoherent(s Shown) bool {
	browser, major := claim(s.UserAgent)
	if browser == "" {
		return false
	}
	has := func(name string) bool {
		return slices.ContainsFunc(s.Names, func(n string) bool { return strings.EqualFold(n, name) })
	}
	if !has("Accept-Language") {
		return true
	}
	if current := map[string]int{"chrome": 89, "edge": 89, "firefox": 90, "safari": 17}[browser]; major < current {
		return false
	}
	if s.Secure && (!has("Sec-Fetch-Mode") || (browser == "chrome" || browser == "edge") && !has("Sec-Ch-Ua")) {
		return true
	}
	// t13d1516h2_…: version of TLS at 1, first protocol at 8.
	return len(s.JA4) >= 10 && (s.JA4[1:3] != "13" || s.JA4[8:10] == "00")
}

// claim is which of the judged browsers a User-Agent is that of, and its version;
// empty if none.
func claim(agent string) (browser string, major int) {
	agent = agent[:min(len(agent), maxAgent)]
	mark := ""
	switch browser = Family(agent); browser {
	case "chrome":
		mark = "Chrome/"
	case "edge":
		mark = "Edg/"
		if strings.Contains(agent, "EdgA/") {
			mark = "EdgA/"
		}
	case "firefox":
		mark = "Firefox/"
	case "safari":
		mark = "Version/"
	default:
		return "", 0
	}
	_, version, ok := strings.Cut(agent, mark)
	if !ok { // CriOS, EdgiOS, FxiOS, Chromium
		return "", 0
	}
	end := strings.IndexFunc(version, func(c rune) bool { return c < '0' || c > '9' })
	if end < 0 {
		end = len(version)
	}
	major, err := strconv.Atoi(version[:end])
	if err != nil {
		return "", 0
	}
	return browser, major
}
