package guard

import (
	"net/http"
	"strings"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/client"
)

// client is what the client program of v shows of itself, for detectors. Unlike
// [Guard.clientFingerprint] it may change on the way: what a held log-in stays with
// must not.
func (v *visit) client() detectors.Client { return clientOf(v.r, v.peer.JA4) }

func clientOf(r *http.Request, ja4 string) detectors.Client {
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	return client.Describe(client.Shown{UserAgent: r.Header.Get("User-Agent"), Names: names, JA4: ja4, Secure: r.TLS != nil})
}

// clientFingerprint tells client programs apart by what they say of themselves in
// every request, whatever its kind. It is no secret: with it a held log-in stays with
// the program that asked, when cookies are copied by accident or by a clumsy thief.
// The TLS fingerprint is not part of it, because browsers change between HTTP/2 and
// HTTP/3 as they like.
func (g *Guard) clientFingerprint(r *http.Request) [16]byte {
	var b strings.Builder
	b.WriteString(g.backend.Name) // a hold is of one service, where several are guarded
	for _, name := range []string{"User-Agent", "Accept-Language", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform"} {
		b.WriteString(strings.Join(r.Header[name], ", "))
		b.WriteByte(0)
	}
	return g.Digest("client", b.String())
}

const clientWordsMax = 64 // bytes of the program's name

// clientWords says in words what program a request came from, such as "Firefox
// (Windows)": for people, who are to recognise it or not. It is what the client says,
// in letters, digits, "-" and "_": it is in mail to the owner, where programs make
// links of what looks like a host or an address.
func clientWords(r *http.Request) string {
	agent := r.Header.Get("User-Agent")
	if len(agent) > 512 {
		agent = agent[:512]
	}
	program := ""
	// In this order, since each of them names those after it as well.
	for _, p := range []struct{ mark, name string }{
		{"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"EdgiOS/", "Edge"}, {"OPR/", "Opera"}, {"Vivaldi/", "Vivaldi"}, {"SamsungBrowser/", "Samsung Internet"},
		{"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"}, {"CriOS/", "Chrome"}, {"Electron/", "Electron"}, {"Chromium/", "Chromium"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"},
	} {
		if strings.Contains(agent, p.mark) {
			program = p.name
			break
		}
	}
	if program == "" || !strings.HasPrefix(agent, "Mozilla/") {
		program, _, _ = strings.Cut(agent, "/")
		program, _, _ = strings.Cut(program, " ")
	}
	system := ""
	for _, s := range []struct{ mark, name string }{
		{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Windows", "Windows"}, {"CrOS", "ChromeOS"},
		{"Macintosh", "macOS"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"},
	} {
		if strings.Contains(agent, s.mark) {
			system = s.name
			break
		}
	}
	program = strings.Join(strings.FieldsFunc(program, func(c rune) bool { return c >= 0x80 || !isTokenByte(byte(c)) }), " ")
	if len(program) > clientWordsMax {
		program = program[:clientWordsMax]
	}
	if program != "" && system != "" {
		return program + " (" + system + ")"
	}
	return program + system
}
