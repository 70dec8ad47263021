package api

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/api/sigv4"
)

// Failed authentications have a budget for each source (an IPv4 address, an IPv6
// /64). Beyond it they are answered 429 and are not logged one by one, and the
// source's signed calls, whose bodies must be read first, share a few places. A
// right key is let in whatever others at the same address do: keys are too long to
// be guessed, so locking a source out would protect nothing and would let a
// stranger behind the same address keep operators out.
const (
	failuresAtOnce = 10              // that a source may make at any time
	failureEvery   = 6 * time.Second // one more is forgiven
	maxSources     = 4096            // that are remembered; further ones share a budget
	maxSuspects    = 4               // places for signed calls of sources beyond their budget
)

var errNobody = &Problem{Type: typeForbidden, Status: http.StatusForbidden, Title: "The call is not authenticated", Detail: "there is no operator with this key"}

// authenticate sets the operator of c, or tells why there is none. All failures
// are 403, or 429 when a source fails too often. It reads the body of signed calls.
func (h *handler) authenticate(w http.ResponseWriter, c *call) error {
	source := detectors.CountingNetwork(h.Source(c.Request))
	reason, err := h.identify(w, c, source)
	if reason == "" {
		return err
	}
	wait, unlogged := h.failures.charge(source, h.Now())
	if wait > 0 {
		return throttled(wait)
	}
	p := problem(err)
	p.Instance = newReference()
	h.Log.Warn("operators' API: a call is not authenticated", "reason", reason, "source", source.String(),
		"method", cut(c.Method), "path", cut(c.URL.Path), "reference", p.Instance, "unlogged", unlogged)
	return p
}

func throttled(wait time.Duration) error {
	return &Problem{Type: typeThrottled, Status: http.StatusTooManyRequests, Title: "Too many calls that were not authenticated", Detail: "check your key and your clock", retryAfter: wait}
}

// identify returns a reason for the log when the call is not authenticated, with
// the problem for the client; and only a problem when that is not known.
func (h *handler) identify(w http.ResponseWriter, c *call, source netip.Prefix) (reason string, err error) {
	scheme, key, _ := strings.Cut(c.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && len(c.Header.Values("Authorization")) == 1 {
		who, expired := h.Operators.byKey(strings.TrimSpace(key), h.Now())
		switch {
		case expired:
			return "expired_key", errNobody
		case who.name == "":
			return "unknown_key", errNobody
		}
		c.operator = who
		return "", nil
	}
	claim, err := h.verifier.Claim(c.Request)
	if err == nil {
		if h.failures.beyond(source, h.Now()) {
			select {
			case h.suspects <- struct{}{}:
				defer func() { <-h.suspects }()
			default:
				return "", throttled(failureEvery)
			}
		}
		if err := c.readBody(w); err != nil {
			return "", err
		}
		err = claim.Verify(c.Context(), c.body)
	}
	if refusal, ok := errors.AsType[*sigv4.Refusal](err); ok {
		reason, detail := string(refusal.Reason), refusal.Detail
		switch refusal.Reason {
		case sigv4.Unsigned:
			detail = "send Authorization: Bearer KEY, or sign with AWS Signature Version 4 for the service " + Service
		case sigv4.Mismatch:
			if _, known := h.verifier.Secret(claim.AccessKeyID()); !known {
				reason = "unknown_key"
			}
		}
		return reason, &Problem{Type: typeForbidden, Status: http.StatusForbidden, Title: "The call is not authenticated", Detail: detail}
	}
	if err != nil {
		return "", errors.Join(ErrUnavailable, err)
	}
	k := h.Operators.signing[claim.AccessKeyID()]
	c.operator = operator{k.Name, k.Role}
	return "", nil
}

// failures counts failed authentications by source.
type failures struct {
	mu      sync.Mutex // guards what follows
	sources map[netip.Prefix]*failing
	others  failing // sources beyond maxSources
}

// failing is a source: a bucket that a failure fills by failureEvery and that
// empties as time passes.
type failing struct {
	until    time.Time // when it will be empty
	unlogged int       // failures since the last one that was logged
}

func newFailures() *failures { return &failures{sources: make(map[netip.Prefix]*failing)} }

func (f *failures) of(source netip.Prefix, now time.Time, add bool) *failing {
	s := f.sources[source]
	if s != nil || !add {
		return s
	}
	if len(f.sources) >= maxSources {
		for p, s := range f.sources {
			if !s.until.After(now) {
				delete(f.sources, p)
			}
		}
		if len(f.sources) >= maxSources {
			return &f.others
		}
	}
	s = new(failing)
	f.sources[source] = s
	return s
}

func (s *failing) beyond(now time.Time) bool {
	return s.until.Sub(now) > (failuresAtOnce-1)*failureEvery
}

// beyond reports whether a source has used up its budget.
func (f *failures) beyond(source netip.Prefix, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.of(source, now, false)
	return s != nil && s.beyond(now)
}

// charge counts a failure. It returns how long the source has to wait, or 0 and
// how many of its failures were not logged since the last that was.
func (f *failures) charge(source netip.Prefix, now time.Time) (wait time.Duration, unlogged int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.of(source, now, true)
	if s.beyond(now) {
		s.unlogged++
		return s.until.Sub(now) - (failuresAtOnce-1)*failureEvery, 0
	}
	if s.until.Before(now) {
		s.until = now
	}
	s.until = s.until.Add(failureEvery)
	unlogged, s.unlogged = s.unlogged, 0
	return 0, unlogged
}
