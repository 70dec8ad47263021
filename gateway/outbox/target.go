package outbox

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const maxURL = 2048 // bytes

// parseTarget reads the URL of a webhook. Its errors never show it: path and query
// are secrets with many services.
func parseTarget(raw string, allowPlain bool, allow []netip.Prefix) (*url.URL, error) {
	if len(raw) > maxURL {
		return nil, errors.New("url: longer than 2,048 bytes")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("url: cannot be read as one: want https://HOST/PATH")
	case u.Scheme == "http" && !allowPlain:
		return nil, errors.New("url: http sends notices in the clear: use https, or say allow_plain")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("url: want the scheme https")
	case u.User != nil:
		return nil, errors.New("url: has a user name: the receiver knows us by the signature")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("url: has no host")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, errors.New("url: has a fragment, which is never sent")
	case strings.HasSuffix(u.Host, ":"):
		return nil, errors.New("url: has a colon but no port")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, errors.New("url: the port is not a number from 1 to 65535")
		}
	}
	for _, c := range []byte(u.Hostname()) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^{|}%`+"`", c) >= 0 {
			return nil, errors.New("url: the host has characters that no host name has: write an international name as xn--")
		}
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := refusal(a, allow); err != nil {
			return nil, err
		}
	}
	return u, nil
}
