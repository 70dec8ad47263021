package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/policies"
)

// sideTimeout bounds a request of the gate's own to the backend.
const sideTimeout = 10 * time.Second

// errBusy means that too many requests of the gate's own are under way.
var errBusy = errors.New("too many identify requests under way")

// identify asks the backend whose credentials these are.
func (v *visit) identify(credentials []presented) (policies.Identity, error) {
	g := v.guard
	select {
	case g.identifying <- struct{}{}:
		defer func() { <-g.identifying }()
	default:
		return policies.Identity{}, errBusy
	}
	values := make([]string, len(credentials))
	for i, p := range credentials {
		values[i] = p.value
	}
	whose, err := g.backend.Whose(values...)
	if err != nil {
		return policies.Identity{}, err
	}
	answer, err := v.side(whose.Method, whose.Path, credentials)
	if err != nil {
		return policies.Identity{}, err
	}
	return g.backend.ReadIdentity(answer)
}

// logOut ends what the backend began for credentials that were not released.
// The backend may refuse; the credentials never left the gate all the same.
func (v *visit) logOut(credentials []presented) {
	b := v.guard.backend
	if b.Logout == nil || len(credentials) == 0 {
		return
	}
	if _, err := v.side(b.Logout.Method, b.Logout.Path, credentials); err != nil {
		v.guard.report(v, "the backend's session could not be ended", "error", err)
	}
}

// side makes a request of the gate's own through the handlers that follow it, as
// the same client but with nothing of the client's request except Host.
func (v *visit) side(method, path string, credentials []presented) (policies.Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.r.Context()), sideTimeout)
	defer cancel()
	r := (&http.Request{
		Method: method, URL: &url.URL{Path: path}, RequestURI: path, Host: v.r.Host, RemoteAddr: v.r.RemoteAddr,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, TLS: v.r.TLS, Body: http.NoBody,
		Header: http.Header{"Accept": {"application/json, text/html;q=0.5"}, "User-Agent": {"kidoban"}},
	}).WithContext(ctx)
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host"} {
		if lines := v.r.Header[name]; len(lines) > 0 {
			r.Header[name] = lines
		}
	}
	for _, p := range credentials {
		switch p.credential.Kind {
		case policies.CookieCredential:
			line := p.credential.Cookie + "=" + p.value
			if old := r.Header.Get("Cookie"); old != "" {
				line = old + "; " + line
			}
			r.Header.Set("Cookie", line)
		case policies.BearerCredential:
			r.Header.Set("Authorization", "Bearer "+p.value)
		case policies.BasicCredential:
			r.Header.Set("Authorization", "Basic "+p.value)
		default:
			r.Header.Set(p.credential.Header, p.value)
		}
	}
	if err := v.assertOwn(r); err != nil {
		return policies.Answer{}, err
	}
	var got capture
	if v.peer.Prepare != nil {
		r = v.peer.Prepare(r, &got)
	}
	if err := answerInto(&got, r, v.next); err != nil {
		return policies.Answer{}, fmt.Errorf("%s %s at the backend: %w", method, path, err)
	}
	if got.status == 0 {
		return policies.Answer{}, fmt.Errorf("%s %s at the backend: no answer", method, path)
	}
	return policies.Answer{Status: got.status, Header: got.header, Body: got.body.Bytes(), Truncated: got.cut}, nil
}

// answerInto runs next. A proxy panics to say that the backend's answer broke off,
// for a server to cut the client's connection; here there is none to cut.
func answerInto(w http.ResponseWriter, r *http.Request, next Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the answer broke off: %v", p)
		}
	}()
	return next(w, r)
}

// capture keeps an answer to a request of the gate's own, bounded.
type capture struct {
	header http.Header
	status int
	body   bytes.Buffer
	cut    bool
}

func (c *capture) Header() http.Header {
	if c.header == nil {
		c.header = make(http.Header)
	}
	return c.header
}

func (c *capture) WriteHeader(status int) {
	if c.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		c.status = status
	}
}

func (c *capture) Write(p []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	room := min(maxInspected-c.body.Len(), len(p))
	c.body.Write(p[:room])
	c.cut = c.cut || room < len(p)
	return len(p), nil
}

// FlushError satisfies http.ResponseController: there is nobody to flush to.
func (c *capture) FlushError() error { return nil }

// anonymousCache remembers for a minute which credentials the backend called
// anonymous. It is bounded: when full, it starts anew, which costs questions and
// nothing else.
type anonymousCache struct {
	mu    sync.Mutex
	until map[auth.CredentialHash]time.Time
}

const (
	anonymousFor = time.Minute
	anonymousMax = 1 << 16
)

func newAnonymousCache() *anonymousCache {
	return &anonymousCache{until: make(map[auth.CredentialHash]time.Time)}
}

func (c *anonymousCache) holds(h auth.CredentialHash, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.until[h].After(now)
}

func (c *anonymousCache) add(h auth.CredentialHash, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.until) >= anonymousMax {
		clear(c.until)
	}
	c.until[h] = now.Add(anonymousFor)
}

func (c *anonymousCache) forget(h auth.CredentialHash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.until, h)
}
