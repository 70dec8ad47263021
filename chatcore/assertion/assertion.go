// Package assertion verifies what a gateway in front of the service says of a
// request: a signed statement in the header Kidoban-Assertion.
//
// A statement is a JWT signed with Ed25519 (RFC 7519, RFC 8037). It is accepted only
//
//   - under the algorithm EdDSA and the type "kidoban+jwt", whatever else its header
//     says: keys and addresses of keys in it (jwk, jku, x5c, x5u) count for nothing;
//   - with a key of the configured set, found by its id;
//   - for the configured issuer and audience;
//   - in its time, which is five minutes at most, with 30 seconds for clocks.
//
// It is either about an account, or about one request that the gateway makes for
// itself (claims htm and htu). See RFC 8725 for the attacks that this stops.
package assertion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	header   = "Kidoban-Assertion"
	typ      = "kidoban+jwt"
	sizeMax  = 4096            // bytes of a statement
	lifeMax  = 5 * time.Minute // from its making to its end
	leeway   = 30 * time.Second
	bodyMax  = 64 << 10        // bytes of the key set
	keysMax  = 32              // keys of the set
	fetchFor = 5 * time.Second // one fetch of the key set, all in all
)

// ErrKeys means that the keys cannot be had, so nothing can be verified.
var ErrKeys = errors.New("the keys that verify assertions cannot be had")

// Config says whose statements to accept.
type Config struct {
	// Keys is where the key set is (RFC 7517): an https URL, an http URL on this
	// machine, or a file.
	Keys string
	// Issuer is the gateway's origin, such as https://chat.example.com.
	Issuer string
	// Audience is what the gateway calls this service.
	Audience string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Transport fetches the key set; nil: http.DefaultTransport.
	Transport http.RoundTripper
}

// Verifier verifies statements. It is safe for concurrent use.
type Verifier struct {
	issuer, audience string
	now              func() time.Time
	keys             *keys
}

// New returns a verifier. It reads a key set in a file, which must be good; one at a
// URL is fetched when the first statement comes.
func New(c Config) (*Verifier, error) {
	if c.Issuer == "" || c.Audience == "" {
		return nil, errors.New("assertions: issuer and audience are both needed")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	keys, err := newKeys(c.Keys, c.Now, c.Transport)
	if err != nil {
		return nil, fmt.Errorf("assertions: %w", err)
	}
	return &Verifier{issuer: c.Issuer, audience: c.Audience, now: c.Now, keys: keys}, nil
}

// Statement is what a gateway said.
type Statement struct {
	// Subject is the account that the request is of. Empty: the gateway asks for
	// itself, on behalf of whoever's credential it presents.
	Subject string
}

// claims is what is looked at.
type claims struct {
	Issuer   string   `json:"iss"`
	Audience audience `json:"aud"`
	Subject  string   `json:"sub"`
	Method   string   `json:"htm"`
	Address  string   `json:"htu"`
	Issued   *int64   `json:"iat"`
	Expires  *int64   `json:"exp"`
}

// audience is one name or a list of them (RFC 7519 section 4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// Verify verifies the statement that r carries. An error that is [ErrKeys] is no
// fault of the request. Errors repeat nothing of what the request holds.
func (v *Verifier) Verify(r *http.Request) (Statement, error) {
	lines := r.Header.Values(header)
	switch {
	case len(lines) == 0:
		return Statement{}, errors.New("there is no assertion")
	case len(lines) > 1:
		return Statement{}, errors.New("there is more than one assertion")
	}
	c, err := v.open(r.Context(), lines[0])
	if err != nil {
		return Statement{}, err
	}
	if err := v.check(c); err != nil {
		return Statement{}, err
	}
	switch {
	case c.Method == "" && c.Address == "" && c.Subject == "":
		return Statement{}, errors.New("the assertion is about nobody")
	case c.Method == "" && c.Address == "":
	case c.Method != r.Method || c.Address != v.issuer+r.URL.EscapedPath():
		return Statement{}, errors.New("the assertion is for another request")
	}
	return Statement{Subject: c.Subject}, nil
}

// open checks the signature and returns what was signed.
func (v *Verifier) open(ctx context.Context, text string) (claims, error) {
	if len(text) > sizeMax {
		return claims{}, fmt.Errorf("the assertion has more than %d bytes", sizeMax)
	}
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return claims{}, errors.New("the assertion is not a JWT under EdDSA")
	}
	head := signed.Signatures[0].Protected
	if got, _ := head.ExtraHeaders[jose.HeaderType].(string); got != typ {
		return claims{}, errors.New("the assertion is of another type")
	}
	key, err := v.keys.find(ctx, head.KeyID)
	if err != nil {
		return claims{}, err
	}
	payload, err := signed.Verify(key)
	if err != nil {
		return claims{}, errors.New("the assertion's signature is not by the key that it names")
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return claims{}, errors.New("the assertion's claims have the wrong form")
	}
	return c, nil
}

// check compares the claims with what is configured, and with the clock.
func (v *Verifier) check(c claims) error {
	named := false
	for _, name := range c.Audience {
		named = named || name == v.audience
	}
	switch {
	case c.Issuer != v.issuer:
		return errors.New("the assertion is by another issuer")
	case !named:
		return errors.New("the assertion is for another service")
	case c.Issued == nil || c.Expires == nil:
		return errors.New("the assertion lacks iat or exp")
	}
	// As differences of numbers that may be anything, these could overflow.
	now := v.now().Unix()
	margin := int64(leeway / time.Second)
	issued, expires := *c.Issued, *c.Expires
	switch {
	case issued < 0 || issued > now+margin:
		return errors.New("the assertion is of the future: compare the clocks")
	case expires < 0 || expires <= now-margin:
		return errors.New("the assertion is over: compare the clocks if this is not somebody's old one")
	case expires <= issued || expires-issued > int64(lifeMax/time.Second):
		return fmt.Errorf("the assertion is good for more than %v, or for no time", lifeMax)
	}
	return nil
}
