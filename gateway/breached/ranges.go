package breached

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// patience is how long a login waits for a range at most.
	patience    = 300 * time.Millisecond
	asking      = 16      // questions under way
	maxAnswer   = 1 << 18 // bytes; published ranges have some 40,000
	maxEntries  = 1 << 12 // of one range; published ones have about 1,000
	maxCached   = 1 << 11 // ranges, of 8 kB each as published, and 32 kB at most
	cachedFor   = 24 * time.Hour
	rangePrefix = "/range/"
)

// errBusy means that as many questions are under way as may be.
var errBusy = errors.New("too many questions under way")

// Ranges asks a server for the hashes that begin as a password's does (k-anonymity, as
// the range API of Pwned Passwords has it): five hexadecimal digits leave the gate, which
// a thousand listed passwords share, and the answer is padded so that its size tells
// nothing. Counts of zero are padding.
//
// A question takes 300 ms at most, its answer 256 KiB; 16 are under way at once. 2,048
// ranges are kept for a day. After five failures in a row the server is left alone for a
// second, then twice as long each time up to a minute, with one question in between.
// It is safe for concurrent use.
type Ranges struct {
	base    string
	client  *http.Client
	now     func() time.Time
	wait    time.Duration
	places  chan struct{} // one for each question under way
	breaker breaker
	cache   cache
}

// NewRanges asks the server at address, such as https://api.pwnedpasswords.com. Without
// TLS it must be on this machine.
func NewRanges(address string, now func() time.Time) (*Ranges, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("want the address of a range API, such as https://api.pwnedpasswords.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the address of a range API has a host and perhaps a path, and nothing else")
	case u.Scheme == "http" && !local(u.Hostname()):
		return nil, errors.New("the address of a range API begins with https:// unless it is on this machine: others would read what is asked")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost = asking, asking
	transport.MaxResponseHeaderBytes = 1 << 15
	return &Ranges{
		base: strings.TrimSuffix(address, "/"), now: now, wait: patience, places: make(chan struct{}, asking),
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func local(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// Contains reports whether the server lists the password with this SHA-1. An error says
// that it is unknown, and why.
func (r *Ranges) Contains(ctx context.Context, sum [sha1.Size]byte) (bool, error) {
	prefix := strings.ToUpper(hex.EncodeToString(sum[:])[:rangeChars])
	now := r.now()
	known, ok := r.cache.get(prefix, now)
	if !ok {
		var err error
		if known, err = r.ask(ctx, prefix, now); err != nil {
			return false, err
		}
	}
	_, found := slices.BinarySearch(known, key(sum))
	return found, nil
}

// ask gets a range, unless the server is left alone.
func (r *Ranges) ask(ctx context.Context, prefix string, now time.Time) (known []uint64, err error) {
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
	default:
		return nil, errBusy
	}
	if err := r.breaker.enter(now); err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, r.wait)
	defer cancel()
	known, err = r.get(within, prefix)
	if err != nil && ctx.Err() != nil { // who asked has gone, which is not the server's fault
		r.breaker.leave(nil, false, r.now())
		return nil, err
	}
	r.breaker.leave(err, true, r.now())
	if err == nil {
		r.cache.put(prefix, known, now)
	}
	return known, err
}

// get gets a range. Its errors do not say which.
func (r *Ranges) get(ctx context.Context, prefix string) ([]uint64, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+rangePrefix+prefix, nil)
	if err != nil {
		return nil, errors.New("its address is none")
	}
	q.Header.Set("Add-Padding", "true")
	q.Header.Set("User-Agent", "kidoban")
	answer, err := r.client.Do(q)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // without the address, which holds the prefix
		}
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %d", answer.StatusCode)
	}
	return readRange(prefix, answer.Body)
}

// readRange is the keys of the entries that were seen once or more, sorted.
func readRange(prefix string, body io.Reader) ([]uint64, error) {
	limited := &io.LimitedReader{R: body, N: maxAnswer + 1}
	in := bufio.NewScanner(limited)
	in.Buffer(make([]byte, 0, maxLine+1), maxLine+1)
	known := []uint64{}
	for in.Scan() {
		text := bytes.TrimSpace(in.Bytes())
		if len(text) == 0 {
			continue
		}
		sum, count, err := entry(prefix, text)
		if err != nil {
			return nil, fmt.Errorf("its answer is no range: a line %w", err)
		}
		if count == 0 {
			continue
		}
		if known = append(known, key(sum)); len(known) > maxEntries {
			return nil, fmt.Errorf("its answer has more than %d entries", maxEntries)
		}
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	}
	slices.Sort(known)
	return known, nil
}

// Asked is how a range API does.
type Asked struct {
	Open  bool      // it is left alone
	Since time.Time // when that began
	Why   string    // the last failure; empty while all is well
}

// Status is how the server does.
func (r *Ranges) Status() Asked { return r.breaker.state() }

const (
	failuresToOpen = 5
	minBackoff     = time.Second
	maxBackoff     = time.Minute
)

var errOpen = errors.New("the range API is left alone for a while, because it failed")

// breaker leaves a server alone that fails. The zero value lets through.
type breaker struct {
	mu       sync.Mutex // guards all below
	status   Asked
	failures int // in a row
	backoff  time.Duration
	next     time.Time // when one question may go while it is open
	probing  bool
}

func (b *breaker) state() Asked {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// enter lets a question through, which then calls leave.
func (b *breaker) enter(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.status.Open {
		return nil
	}
	// Further away than any wait means that the clock was set back.
	if wait := b.next.Sub(now); b.probing || wait > 0 && wait <= maxBackoff {
		return errOpen
	}
	b.probing = true
	return nil
}

// leave tells how it went, if that says anything about the server.
func (b *breaker) leave(err error, telling bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch {
	case !telling:
	case err == nil:
		b.status, b.failures, b.backoff = Asked{}, 0, 0
	default:
		b.status.Why = err.Error()
		if b.failures++; b.failures < failuresToOpen {
			return
		}
		if !b.status.Open {
			b.status.Open, b.status.Since = true, now
		}
		b.backoff = min(max(2*b.backoff, minBackoff), maxBackoff)
		b.next = now.Add(b.backoff)
	}
}
