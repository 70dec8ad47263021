package guard

import (
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/kidoban/kidoban/policies"
)

// Names of our own cookies. The __Host- prefix binds them to this host, to
// https and to the path "/" (RFC 6265bis section 4.1.3.2).
const (
	SessionCookie = "__Host-kidoban"
	DeviceCookie  = "__Host-kidoban-device"
)

// crumbs is what a request's Cookie header holds for us.
type crumbs struct {
	session, device, hold, approval string
	presented                       []presented // credentials of the backend, as sent
}

// presented is one credential that a request carries.
type presented struct {
	credential *policies.Credential
	value      string
	disguised  bool // not written as the preset says: it never reaches the backend
}

// readCookies reads the Cookie header without changing it. A cookie counts as a
// credential when the laxest backend could read it as one: names are compared
// after percent-decoding and case folding, and a credential's name anywhere in a
// pair's text (servers that split at commas, or read quoted pairs) counts too.
func (v *visit) readCookies() {
	c := &v.crumbs
	c.presented = v.presented[:0]
	for _, line := range v.r.Header["Cookie"] {
		for len(line) > 0 {
			var part string
			part, line, _ = strings.Cut(line, ";")
			part = strings.TrimSpace(part)
			name, value, ok := strings.Cut(part, "=")
			switch {
			case !ok:
			case name == SessionCookie:
				c.session = value
			case name == DeviceCookie:
				c.device = value
			case name == HoldCookie:
				c.hold = value
			case name == ApprovalCookie:
				c.approval = value
			default:
				if cred := v.guard.cookieCredential(name, part); cred != nil {
					c.presented = append(c.presented, presented{cred, value, name != cred.Cookie})
				}
			}
		}
	}
}

// cookieCredential returns the credential that a cookie pair carries, if any. The
// name is the part of the pair before its first "=".
func (g *Guard) cookieCredential(name, part string) *policies.Credential {
	for _, c := range g.cookieCredentials {
		if name == c.Cookie || disguised(name, part, c.Cookie) {
			return c
		}
	}
	if strings.Contains(part, "%") {
		part = percentDecoded(part)
		name, _, _ = strings.Cut(part, "=")
		for _, c := range g.cookieCredentials {
			if disguised(name, part, c.Cookie) {
				return c
			}
		}
	}
	return nil
}

// disguised reports whether a lax parser could find the cookie want in a pair: in
// its name, where anything but a token byte may end it (blanks of all kinds are
// trimmed, NUL cuts), or further on before another "=", for servers that split at
// more than semicolons. ASCII case is folded; '.', ' ', '[' and '-' are read as '_',
// as PHP does.
func disguised(name, part, want string) bool {
	for i := 0; i+len(want) <= len(part); i++ {
		if i > 0 && isTokenByte(part[i-1]) || !foldEqual(part[i:i+len(want)], want) {
			continue
		}
		end := i + len(want)
		if end < len(part) && isTokenByte(part[end]) {
			continue
		}
		if end <= len(name) {
			return true
		}
		for end < len(part) && part[end] != '=' && !isTokenByte(part[end]) {
			end++
		}
		if end < len(part) && part[end] == '=' {
			return true
		}
	}
	return false
}

func foldEqual(a, b string) bool {
	for i := range len(a) {
		if foldCookieByte(a[i]) != foldCookieByte(b[i]) {
			return false
		}
	}
	return true
}

func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

func foldCookieByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '.' || c == ' ' || c == '[' || c == '-':
		return '_'
	}
	return c
}

// percentDecoded decodes what is percent-encoded and leaves the rest as it is.
func percentDecoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.Write(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// forwardCookies rewrites the Cookie header for the backend: our own cookies and
// every credential that keep does not approve are left out, the rest stays as it
// was sent.
func (g *Guard) forwardCookies(r *http.Request, keep func(c *policies.Credential, value string) bool) {
	lines := r.Header["Cookie"]
	if len(lines) == 0 {
		return
	}
	var b strings.Builder
	n := 0
	for _, line := range lines {
		n += len(line) + 2
	}
	b.Grow(n)
	for _, line := range lines {
		for len(line) > 0 {
			var part string
			part, line, _ = strings.Cut(line, ";")
			part = strings.TrimSpace(part)
			if part == "" {
				continue
			}
			name, value, _ := strings.Cut(part, "=")
			if name == SessionCookie || name == DeviceCookie || name == HoldCookie || name == ApprovalCookie {
				continue
			}
			if c := g.cookieCredential(name, part); c != nil && (name != c.Cookie || !keep(c, value)) {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("; ")
			}
			b.WriteString(part)
		}
	}
	if b.Len() == 0 {
		delete(r.Header, "Cookie")
		return
	}
	r.Header["Cookie"] = append(lines[:0:0], b.String())
}

// grant is a credential that the backend hands out in a Set-Cookie line.
type grant struct {
	credential *policies.Credential
	value      string
	line       string
	deletes    bool // the line removes the cookie from the client
}

// grants lists the credentials among the Set-Cookie lines of header.
func (g *Guard) grants(header http.Header, now time.Time) []grant {
	lines := header["Set-Cookie"]
	if len(lines) == 0 {
		return nil
	}
	var all []grant
	for _, line := range lines {
		name, _, _ := strings.Cut(line, "=")
		c := g.cookieCredential(strings.TrimSpace(name), strings.TrimSpace(name)+"=")
		if c == nil {
			continue
		}
		// The value as it stands in the line, quotes and all: so it will come back.
		_, rest, _ := strings.Cut(line, "=")
		value, _, _ := strings.Cut(rest, ";")
		gr := grant{credential: c, value: strings.TrimSpace(value), line: line}
		gr.deletes = gr.value == ""
		if ck, err := http.ParseSetCookie(line); err == nil {
			gr.deletes = gr.deletes || ck.MaxAge < 0 || !ck.Expires.IsZero() && ck.MaxAge == 0 && ck.Expires.Before(now)
		}
		all = append(all, gr)
	}
	return all
}

// takeCredentialCookies removes the Set-Cookie lines of credentials from header
// and returns them.
func (g *Guard) takeCredentialCookies(header http.Header) []string {
	var taken, kept []string
	for _, line := range header["Set-Cookie"] {
		name, _, _ := strings.Cut(line, "=")
		if g.cookieCredential(strings.TrimSpace(name), strings.TrimSpace(name)+"=") != nil {
			taken = append(taken, line)
		} else {
			kept = append(kept, line)
		}
	}
	if len(taken) == 0 {
		return nil
	}
	if len(kept) == 0 {
		delete(header, "Set-Cookie")
	} else {
		header["Set-Cookie"] = kept
	}
	return taken
}

func (g *Guard) sessionCookie(token string, until, now time.Time) string {
	return (&http.Cookie{
		Name: SessionCookie, Value: token, Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, MaxAge: int(until.Sub(now).Seconds()),
	}).String()
}

func (g *Guard) deviceCookie(value string) string {
	return (&http.Cookie{
		Name: DeviceCookie, Value: value, Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, MaxAge: 400 * 24 * 3600, // the longest a browser keeps one (RFC 6265bis section 5.5)
	}).String()
}

// clearedSessionCookie takes our session cookie from a client whose session ended.
const clearedSessionCookie = SessionCookie + "=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"
