package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/kidoban/kidoban/gateway/pages"
)

const (
	maxServiceName = 64 // runes; authenticator apps show it
	maxOrigins     = 16
)

// service is what people know the protected service by, and where.
type service struct {
	pages.Site
	origins []string // as browsers write them (RFC 6454 section 6.2); none: there are no second factors
	rpID    string   // the domain that passkeys are for; empty without origins
}

// provisionOrigins reads where people reach the service.
func (a *App) provisionOrigins() (err error) {
	if len(a.Origins) > maxOrigins {
		return fmt.Errorf("origin: %d given, want at most %d", len(a.Origins), maxOrigins)
	}
	var hosts []string
	for _, text := range a.Origins {
		origin, host, err := parseOrigin(text)
		if err != nil {
			return fmt.Errorf("origin %.200q: %w", text, err)
		}
		if slices.Contains(a.service.origins, origin) {
			return fmt.Errorf("origin %s is given twice", origin)
		}
		a.service.origins, hosts = append(a.service.origins, origin), append(hosts, host)
	}
	a.service.rpID, err = parseRPID(a.RPID, hosts)
	return err
}

// parseOrigin reads an address of the service, and gives it as browsers write it.
func parseOrigin(text string) (origin, host string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Opaque != "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") {
		return "", "", errors.New("want scheme, host and perhaps a port, such as https://chat.example.com")
	}
	host = u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return "", "", errors.New("browsers have passkeys for names only; write a name, such as localhost for this machine")
	}
	if host, err = asciiHost(host); err != nil {
		return "", "", err
	}
	port := u.Port()
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) || strings.HasSuffix(u.Host, ":") {
		return "", "", errors.New("the port is none")
	}
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || host != "localhost"):
		return "", "", errors.New("want https: only http://localhost may do without")
	case u.Scheme == "https" && port == "443", u.Scheme == "http" && port == "80":
		port = ""
	}
	if origin = u.Scheme + "://" + host; port != "" {
		origin += ":" + port
	}
	return origin, host, nil
}

// asciiHost is the name of a host as it stands in an origin.
func asciiHost(name string) (string, error) {
	host, err := idna.Lookup.ToASCII(name)
	if err != nil || host == "" || len(host) > 253 || slices.ContainsFunc(strings.Split(host, "."), func(label string) bool { return label == "" || len(label) > 63 }) {
		return "", errors.New("the host is no name, such as chat.example.com")
	}
	return host, nil
}

// parseRPID reads the domain that passkeys are for (WebAuthn section 4): the host of
// every origin or a domain above all of them, and never one that strangers share,
// such as co.jp: browsers would refuse it.
func parseRPID(text string, hosts []string) (string, error) {
	switch {
	case text == "" && len(hosts) == 0:
		return "", nil
	case len(hosts) == 0:
		return "", errors.New("rp_id: say by `origin` where people reach the service")
	case text == "":
		text = hosts[0]
	}
	id, err := asciiHost(text)
	if _, notAddr := netip.ParseAddr(text); err != nil || notAddr == nil {
		return "", fmt.Errorf("rp_id %.200q: want a domain alone, such as example.com", text)
	}
	for _, host := range hosts {
		if host != id && !strings.HasSuffix(host, "."+id) {
			return "", fmt.Errorf("rp_id %s: %s is another domain, where browsers would not offer its passkeys; write a domain above all origins, or leave the origin out", id, host)
		}
	}
	suffix, listed := publicsuffix.PublicSuffix(id)
	switch {
	case id == "localhost":
	case !listed && !strings.Contains(id, "."):
		return "", fmt.Errorf("rp_id %s: passkeys are for domains; reach the service by a name with a dot, such as chat.example.com", id)
	case suffix == id:
		return "", fmt.Errorf("rp_id %s: strangers have domains below it too, so browsers refuse it; write your own, such as example.%s", id, id)
	}
	return id, nil
}

// provisionSite settles what pages call the service and how they look.
func (a *App) provisionSite() (err error) {
	s := &a.service
	switch {
	case a.Service != "":
		s.Name = a.Service
	case a.mailer != nil:
		s.Name = a.mailer.Service()
	case len(s.origins) > 0:
		_, s.Name, _ = parseOrigin(s.origins[0])
	}
	if a.Service != "" || len(s.origins) > 0 {
		if err := checkServiceName(s.Name); err != nil {
			return err
		}
	}
	if a.Logo != "" {
		if s.Logo, s.LogoType, err = readLogo(a.Logo); err != nil {
			return fmt.Errorf("logo %s: %w", a.Logo, err)
		}
	}
	return nil
}

// checkServiceName refuses what authenticator apps could not show: they take what
// precedes a colon for the service.
func checkServiceName(name string) error {
	if n := utf8.RuneCountInString(name); n == 0 || n > maxServiceName || name != strings.TrimSpace(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r == utf8.RuneError || !unicode.IsPrint(r) && r != ' ' }) {
		return fmt.Errorf("service %.200q: want the name of the service, 1 to %d characters without a colon, such as `service \"Example Chat\"`", name, maxServiceName)
	}
	return nil
}
