package assertion

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// refreshAfter is when a set is fetched anew, so that a key that was withdrawn
	// does not stay for long.
	refreshAfter = 5 * time.Minute
	// staleAfter is when a set that could not be fetched anew is no good any more.
	staleAfter = time.Hour
	// fetchEvery is the least time between two fetches while there is a set: ids of
	// keys come from whoever sends requests.
	fetchEvery = time.Minute
	// fetchFirst is the same while there is none.
	fetchFirst = time.Second
)

// keys is the gateway's key set, as it was fetched last.
type keys struct {
	file   string   // or
	url    *url.URL // one of the two
	client *http.Client
	now    func() time.Time
	latest atomic.Pointer[set]

	fetching sync.Mutex // held during a fetch, which is bounded; guards tried
	tried    time.Time  // the last fetch began
}

// set is one state of the set. It does not change.
type set struct {
	keys    map[string]ed25519.PublicKey
	fetched time.Time
}

func newKeys(source string, now func() time.Time, transport http.RoundTripper) (*keys, error) {
	k := &keys{now: now, client: &http.Client{
		Transport: transport, Timeout: fetchFor,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("it redirects, which could lead to anybody's keys")
		},
	}}
	k.latest.Store(new(set))
	if !strings.HasPrefix(source, "https://") && !strings.HasPrefix(source, "http://") {
		if k.file = source; source == "" {
			return nil, errors.New("the key set is missing: want a URL or a file")
		}
		k.tried = now()
		return k, k.fetch(context.Background())
	}
	u, err := url.Parse(source)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil:
		return nil, fmt.Errorf("the key set %.255q is not at a URL: want https://HOST/PATH without a password", source)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("the key set %s comes over plain http: want https, or a file", u)
	}
	k.url = u
	return k, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// find is the key with the id. One that is not known, or a set that is old, may make
// it fetch the set; who comes meanwhile with a known key does not wait for that.
func (k *keys) find(ctx context.Context, id string) (ed25519.PublicKey, error) {
	s, now := k.latest.Load(), k.now()
	age := now.Sub(s.fetched)
	key := s.keys[id]
	switch {
	case key != nil && age < refreshAfter && age >= 0:
		return key, nil
	case key == nil || age >= staleAfter:
		k.fetching.Lock()
	case !k.fetching.TryLock():
		return key, nil
	}
	defer k.fetching.Unlock()
	now = k.now() // the wait took its time
	every := fetchEvery
	if s = k.latest.Load(); s.keys == nil {
		every = fetchFirst
	}
	var cause error
	if since := now.Sub(k.tried); since >= every || since < 0 {
		k.tried = now
		cause = k.fetch(context.WithoutCancel(ctx))
		s = k.latest.Load()
	}
	if s.keys == nil || now.Sub(s.fetched) >= staleAfter {
		return nil, errors.Join(ErrKeys, cause)
	}
	if key = s.keys[id]; key == nil {
		return nil, errors.New("the assertion names a key that is not in the set")
	}
	return key, nil
}

// fetch replaces the set by the source's.
func (k *keys) fetch(ctx context.Context) error {
	data, err := k.read(ctx)
	if err != nil {
		return fmt.Errorf("fetching the key set: %w", err)
	}
	found, err := parseKeys(data)
	if err != nil {
		return fmt.Errorf("the key set of %s: %w", k, err)
	}
	k.latest.Store(&set{found, k.now()})
	return nil
}

func (k *keys) String() string {
	if k.url != nil {
		return k.url.String()
	}
	return k.file
}

func (k *keys) read(ctx context.Context) ([]byte, error) {
	var in io.ReadCloser
	if k.url == nil {
		f, err := os.Open(k.file)
		if err != nil {
			return nil, err
		}
		in = f
	} else {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url.String(), nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Accept", "application/jwk-set+json, application/json")
		answer, err := k.client.Do(r)
		if err != nil {
			return nil, err
		}
		if in = answer.Body; answer.StatusCode != http.StatusOK {
			in.Close()
			return nil, fmt.Errorf("%s answers %s", k.url, answer.Status)
		}
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, bodyMax+1))
	if err != nil {
		return nil, err
	}
	if len(data) > bodyMax {
		return nil, fmt.Errorf("%s has more than %d bytes", k, bodyMax)
	}
	return data, nil
}

// parseKeys reads a set. Keys of other kinds and for other uses are left out; what
// should be a key of ours and is none is an error, and so is a private one.
func parseKeys(data []byte) (map[string]ed25519.PublicKey, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, errors.New("it is not a JWK set in JSON")
	}
	if len(document.Keys) > keysMax {
		return nil, fmt.Errorf("it has %d keys, want at most %d", len(document.Keys), keysMax)
	}
	found := make(map[string]ed25519.PublicKey)
	for i, raw := range document.Keys {
		var kind struct {
			Type  string `json:"kty"`
			Curve string `json:"crv"`
			Use   string `json:"use"`
			Alg   string `json:"alg"`
		}
		if err := json.Unmarshal(raw, &kind); err != nil {
			return nil, fmt.Errorf("key %d is not a key", i+1)
		}
		if kind.Type != "OKP" || kind.Curve != "Ed25519" || kind.Use != "" && kind.Use != "sig" || kind.Alg != "" && kind.Alg != "EdDSA" {
			continue
		}
		var key jose.JSONWebKey
		err := json.Unmarshal(raw, &key)
		public, ok := key.Key.(ed25519.PublicKey)
		if err != nil || !ok || key.KeyID == "" || found[key.KeyID] != nil {
			return nil, fmt.Errorf("key %d is not a public Ed25519 key with an id of its own", i+1)
		}
		found[key.KeyID] = public
	}
	if len(found) == 0 {
		return nil, errors.New("it has no public Ed25519 key with an id")
	}
	return found, nil
}
