package limits

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// SetFields writes the RateLimit and RateLimit-Policy fields of
// draft-ietf-httpapi-ratelimit-headers-10 for the limit that d speaks of, and
// Retry-After when d refuses. Without such a limit it writes nothing.
//
// It is for API routes. On login, reset and factor routes the counts would tell a
// stranger about somebody else's attempts: send [LoginRetryAfter] alone there.
func SetFields(h http.Header, d Decision) {
	l := d.Limit
	if l == nil {
		return
	}
	name := quote(l.Name)
	reset := seconds(d.wait)
	h.Set("RateLimit-Policy", name+";q="+strconv.FormatInt(l.Rate.Limit, 10)+";w="+strconv.FormatInt(seconds(l.Rate.Period), 10))
	h.Set("RateLimit", name+";r="+strconv.FormatInt(d.Remaining, 10)+";t="+strconv.FormatInt(reset, 10))
	if !d.Allowed {
		// The same number as t: the draft wants it no earlier.
		h.Set("Retry-After", RetryAfter(d.RetryAfter))
	}
}

// RetryAfter is the value of a Retry-After field: seconds, rounded up, at least 1.
func RetryAfter(wait time.Duration) string {
	return strconv.FormatInt(max(seconds(wait), 1), 10)
}

// LoginRetryAfter is how long a client of a login, reset or factor route is told
// to wait: rounded up to steps of 10 s and put off by up to three steps more, as
// random says, so that neither somebody else's attempts can be read from it nor
// everybody returns at once. random is drawn evenly from [0, 1).
func LoginRetryAfter(wait time.Duration, random float64) time.Duration {
	const step = 10 * time.Second
	later := time.Duration(0)
	if random > 0 && random < 1 {
		later = time.Duration(random * 4)
	}
	return (max(wait, 1)+step-1)/step*step + later*step
}

// seconds rounds up.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

// quote writes an sf-string of RFC 9651 section 3.3.3. Limit.Validate lets no
// other names in; of those nobody validated, characters that an sf-string cannot
// hold become '?'.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r > 0x7e:
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
