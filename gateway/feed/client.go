package feed

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"slices"
	"strconv"
	"strings"
)

// families are parts of a User-Agent in small letters and what they stand for. The
// first that occurs decides: most browsers call themselves others' names too.
var families = [...][2]string{
	{"edg/", "edge"}, {"edga/", "edge"}, {"edgios/", "edge"}, {"opr/", "opera"}, {"samsungbrowser/", "samsung"},
	{"headlesschrome/", "headless-chrome"}, {"crios/", "chrome"}, {"fxios/", "firefox"}, {"firefox/", "firefox"},
	{"electron/", "electron"}, {"chrome/", "chrome"}, {"okhttp/", "okhttp"}, {"cfnetwork/", "cfnetwork"},
}

// family is what program a User-Agent names: one of families, safari, or the first
// product token (RFC 9110 section 10.1.5) in small letters, of at most 32 characters;
// empty if there is none.
func family(userAgent string) string {
	ua := strings.ToLower(userAgent)
	for _, f := range families {
		if strings.Contains(ua, f[0]) {
			return f[1]
		}
	}
	if strings.Contains(ua, "safari/") && strings.Contains(ua, "version/") {
		return "safari"
	}
	token := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return ' '
	}, ua)
	first, _, _ := strings.Cut(strings.TrimSpace(token), " ")
	return first[:min(len(first), 32)]
}

// passing are header fields that a client sends at times, or that something between
// it and the server adds.
var passing = []string{
	"authorization", "connection", "content-length", "content-type", "cookie", "forwarded", "if-modified-since",
	"if-none-match", "keep-alive", "referer", "te", "transfer-encoding", "via", "x-forwarded-for", "x-forwarded-host",
	"x-forwarded-proto", "x-real-ip", "x-request-id",
}

// headerSet is a digest of which header fields a client sends, in 12 hex digits: in
// any order and case, without those that come and go; empty for none at all.
func headerSet(names []string) string {
	var set []string
	for _, n := range names {
		if n = strings.ToLower(strings.TrimSpace(n)); n != "" && !slices.Contains(passing, n) {
			set = append(set, n)
		}
	}
	if len(set) == 0 {
		return ""
	}
	slices.Sort(set)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(set), "\n")))
	return hex.EncodeToString(sum[:6])
}

// splitPort takes "address:port" apart.
func splitPort(text string) (host string, port uint16, ok bool) {
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return host, uint16(n), err == nil
}
