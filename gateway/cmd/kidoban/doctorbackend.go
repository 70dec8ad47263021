package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

const (
	remedyReach = "Have it listen on 127.0.0.1 or a Unix socket, or let only the gate through to it (firewall, network policy); or have it verify assertions (option assert)."

	answerMax    = 64 << 10 // bytes that are read of an answer
	addressesMax = 32       // of this machine that are tried

	certificateWarn = 14 * 24 * time.Hour
)

// spot is where a backend might be.
type spot struct {
	scheme, address string // address is HOST:PORT
}

func (s spot) String() string { return s.scheme + "://" + s.address }

// direct asks without proxies and redirects, and whoever answers: nothing secret is
// sent that the backend does not have.
var direct = &http.Client{
	Timeout:       askTime,
	Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, ResponseHeaderTimeout: askTime},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// ask sends a request and reads the answer, bounded.
func ask(r *http.Request) (policies.Answer, error) {
	res, err := direct.Do(r)
	if err != nil {
		return policies.Answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return policies.Answer{}, err
	}
	return policies.Answer{Status: res.StatusCode, Header: res.Header, Body: body}, nil
}

// likeness is how something answers to who is nobody.
type likeness struct {
	login    bool // it shows where to type a password
	statuses []int
}

// looks asks s for the pages that tell a backend. An error means that nobody answers.
func (s spot) looks(ctx context.Context, preset *policies.Backend) (l likeness, err error) {
	paths := []string{"/", "/login"}
	if preset != nil {
		paths = []string{preset.Identify.Path, "/"}
		for _, r := range preset.Routes {
			if r.Class == detectors.LoginRoute && !strings.Contains(r.Path, "{") && len(paths) < 5 && !slices.Contains(paths, r.Path) {
				paths = append(paths, r.Path)
			}
		}
	}
	for _, path := range paths {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.String()+path, nil)
		if err != nil {
			return l, err
		}
		a, err := ask(r)
		if err != nil {
			return l, err
		}
		l.statuses = append(l.statuses, a.Status)
		l.login = l.login || a.Status < 400 && bytes.Contains(bytes.ToLower(a.Body), []byte(`type="password"`))
	}
	return l, nil
}

// is reports whether l answers as other does, and not just as anything would.
func (l likeness) is(other likeness) bool {
	plain := func(status int) bool { return status == 403 || status == 404 || status == 421 }
	return l.login || slices.Equal(l.statuses, other.statuses) && slices.ContainsFunc(l.statuses, func(status int) bool { return !plain(status) })
}

// ownAddresses are those of this machine that others could reach.
func ownAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() && len(found) < addressesMax {
			found = append(found, p.Addr().Unmap())
		}
	}
	return found
}

// checkUpstreams looks whether the backends of the configuration can be reached around
// the gate.
func (d *doctor) checkUpstreams(ctx context.Context, c *configured) {
	done := make(map[string]bool)
	for _, u := range c.upstreams {
		check := "backend " + u.dial
		if done[u.dial] {
			continue
		}
		done[u.dial] = true
		if strings.HasPrefix(u.dial, "unix/") {
			d.ok(check, "a Unix socket cannot be reached from elsewhere; see that its file is the gate's alone")
			continue
		}
		s := spot{"http", u.dial}
		if u.tls {
			s.scheme = "https"
		}
		host, port, err := net.SplitHostPort(u.dial)
		if err != nil || strings.Contains(u.dial, "{") {
			d.warn(check, "Name the backend by --backend.", "this address is only known when a request comes")
			continue
		}
		reference, err := s.looks(ctx, u.preset)
		if err != nil {
			d.warn(check, "Start it, and run this again.", "it does not answer: %v", reason(err))
			continue
		}
		vouched := d.checkAssertions(ctx, s, u)
		at, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			d.warn(check, "Mend its name.", "%v", err)
			continue
		}
		own := ownAddresses()
		here := !slices.ContainsFunc(at, func(a netip.Addr) bool { a = a.Unmap(); return !a.IsLoopback() && !slices.Contains(own, a) })
		if !here {
			if vouched {
				d.ok(check, "it is on another machine, and takes no session without an assertion")
			} else {
				d.warn(check, "Run `kidoban doctor --backend "+s.String()+"` on a machine of the visitors' side: nobody may answer there.",
					"it is on another machine: who else reaches it cannot be seen from here")
			}
			continue
		}
		var open []string
		for _, a := range own {
			other := spot{s.scheme, net.JoinHostPort(a.String(), port)}
			if l, err := other.looks(ctx, u.preset); err == nil && l.is(reference) {
				open = append(open, other.address)
			}
		}
		switch {
		case len(open) > 0 && vouched:
			d.ok(check, "it answers around the gate (%s), and takes no session without an assertion", strings.Join(open, ", "))
		case len(open) > 0:
			d.fail(check, remedyReach, "it answers around the gate, at %s", strings.Join(open, ", "))
		case len(own) == 0:
			d.ok(check, "it answers on this machine, which has no other address")
		default:
			d.ok(check, "it answers at none of the %d other addresses of this machine", len(own))
		}
	}
}

// checkBackend looks at an address where the backend must not answer.
func (d *doctor) checkBackend(ctx context.Context, address string, c *configured) {
	check := "backend " + address
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		d.fail("--backend", "Give it as http://HOST:PORT.", "%.255q is no such URL", address)
		return
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	var preset *policies.Backend
	if c != nil && len(c.upstreams) > 0 {
		preset = c.upstreams[0].preset
	}
	places := []spot{{u.Scheme, net.JoinHostPort(u.Hostname(), port)}}
	if a, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && (a.IsLoopback() || a.IsUnspecified()) {
		// At loopback it may answer; what counts is the rest of the machine.
		places = nil
		for _, own := range ownAddresses() {
			places = append(places, spot{u.Scheme, net.JoinHostPort(own.String(), port)})
		}
	}
	answers := 0
	for _, s := range places {
		l, err := s.looks(ctx, preset)
		switch {
		case err != nil:
		case l.login || preset != nil && l.statuses[0] == http.StatusUnauthorized:
			answers++
			d.fail(check, remedyReach, "it answers at %s around the gate", s.address)
		default:
			answers++
			d.warn(check, "See what it is. "+remedyReach, "something answers at %s", s.address)
		}
	}
	if answers == 0 {
		d.ok(check, "nobody answers at %d addresses", len(places))
	}
}

// checkAssertions logs in at the backend itself and looks whether the session is good
// without an assertion. It reports whether it is known not to be.
func (d *doctor) checkAssertions(ctx context.Context, s spot, u upstream) bool {
	check := "assertions at " + u.dial
	if !u.asserts {
		return false
	}
	if d.account == "" {
		d.warn(check, "Name a test account of the backend by --account FILE.", "whether the backend asks for them was not tried")
		return false
	}
	err := d.sessionWithout(ctx, s, u.preset)
	var whole *vouchless
	switch {
	case errors.As(err, &whole):
		d.fail(check, "Have the backend verify them on each request with a session; chatcore does with --assertion-jwks.", "the backend takes a session without one")
	case err != nil:
		d.warn(check, "Try it with an account that can log in by name and password.", "not tried: %v", reason(err))
	default:
		d.ok(check, "the backend takes no session without one")
		return true
	}
	return false
}

// vouchless says that a session was good without an assertion.
type vouchless struct{}

func (*vouchless) Error() string { return "a session is good without an assertion" }

// sessionWithout is nil when the backend refuses a session that it has just given.
func (d *doctor) sessionWithout(ctx context.Context, s spot, b *policies.Backend) error {
	name, password, err := d.credentials()
	if err != nil {
		return fmt.Errorf("--account: %w", err)
	}
	var body []byte
	kind := "application/json"
	switch n, p := b.Login.Name, b.Login.Password; {
	case len(n.JSON) > 0 && len(p.JSON) > 0 && strings.Count(n.JSON[0]+p.JSON[0], "/") == 2:
		if body, err = json.Marshal(map[string]string{n.JSON[0][1:]: name, p.JSON[0][1:]: password}); err != nil {
			return err
		}
	case len(n.Form) > 0 && len(p.Form) > 0:
		kind, body = "application/x-www-form-urlencoded", []byte(url.Values{n.Form[0]: {name}, p.Form[0]: {password}}.Encode())
	default:
		return errors.New("the preset does not say how to log in")
	}
	at := slices.IndexFunc(b.Routes, func(r policies.Route) bool {
		return r.Class == detectors.LoginRoute && !strings.Contains(r.Path, "{")
	})
	if at < 0 {
		return errors.New("the preset has no plain route to log in")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.String()+b.Routes[at].Path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Accept", "application/json, text/html;q=0.5")
	in, err := ask(r)
	if err != nil {
		return err
	}
	if r, err = http.NewRequestWithContext(ctx, b.Identify.Method, s.String()+b.Identify.Path, nil); err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json, text/html;q=0.5")
	given := false
	for _, ck := range (&http.Response{Header: in.Header}).Cookies() {
		r.AddCookie(&http.Cookie{Name: ck.Name, Value: ck.Value})
		given = given || slices.ContainsFunc(b.Credentials, func(c policies.Credential) bool { return c.Cookie == ck.Name })
	}
	if !given {
		return fmt.Errorf("the log-in was answered with %d and no session", in.Status)
	}
	who, err := ask(r)
	if err != nil {
		return err
	}
	if _, err := b.ReadIdentity(who); err == nil {
		return new(vouchless)
	}
	if who.Status != http.StatusUnauthorized && who.Status != http.StatusForbidden {
		return fmt.Errorf("whose the session is was answered with %d", who.Status)
	}
	return nil
}

// checkPublic looks at the certificate that visitors see, and whether a gate answers.
func (d *doctor) checkPublic(ctx context.Context) {
	u, err := url.Parse(d.public)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		d.fail("public", "Give it as https://HOST: cookies and passkeys need TLS.", "%.255q is no such URL", d.public)
		return
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: askTime}, Config: &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: true}} // verified below, with words for people
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		d.fail("public", "Start the gate; see its log for certificates that could not be had.", "no TLS at %s: %v", d.public, reason(err))
		return
	}
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	conn.Close()
	d.checkCertificate(chain, u.Hostname())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.Scheme+"://"+u.Host+"/.kidoban/style.css", nil)
	if err != nil {
		d.fail("public", "Give it as https://HOST.", "%v", err)
		return
	}
	a, err := ask(r)
	switch {
	case err != nil:
		d.fail("public", "See the log of what serves it.", "%v", reason(err))
	case a.Status == http.StatusOK && strings.HasPrefix(a.Header.Get("Content-Type"), "text/css"):
		d.ok("public", "a gate answers at %s", d.public)
	default:
		d.fail("public", "Lead the site's traffic through the gate. (Where sessions only observe, a gate does not show itself: then look at its metrics.)", "what answers at %s does not look like a gate", d.public)
	}
}

func (d *doctor) checkCertificate(chain []*x509.Certificate, host string) {
	const check = "certificate"
	leaf, now := chain[0], d.now()
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Intermediates: between, CurrentTime: now})
	left := leaf.NotAfter.Sub(now)
	switch unknown := (x509.UnknownAuthorityError{}); {
	case left <= 0:
		d.fail(check, "Renew it; see the gate's log for why it was not.", "it ended on %s", leaf.NotAfter.UTC().Format(time.DateOnly))
	case errors.As(err, &unknown):
		d.warn(check, "Visitors need the authority that signed it, or a certificate by a public one.", "this machine does not know the authority that signed it")
	case err != nil:
		d.fail(check, "Get one for this name.", "%v", err)
	case left < certificateWarn && leaf.NotAfter.Sub(leaf.NotBefore) > 2*certificateWarn:
		d.warn(check, "See the gate's log for why it is not renewed.", "it ends on %s", leaf.NotAfter.UTC().Format(time.DateOnly))
	default:
		d.ok(check, "it is good until %s", leaf.NotAfter.UTC().Format(time.DateTime))
	}
}

// reason is err without the address of the request, which the line names already.
func reason(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
