// Package assertion tells the backend, under a signature, whom the gate let in.
//
// An assertion is a JWT (RFC 7519) in compact form, signed with Ed25519 (EdDSA, RFC
// 8037). It promises that at its time the request that carries it rode on a live
// session of the gate, and whose. A backend that asks for one with each request
// cannot be used around the gate, also not with a credential that was stolen from it.
//
// Whoever verifies one must pin the algorithm to EdDSA and the type to "kidoban+jwt",
// take the key from the issuer's set by its id and from nowhere else, and compare
// issuer, audience and times. Then:
//
//   - a statement about a session has sub, the account as the backend itself calls
//     it, which must be the account of the credential beside it;
//   - a request of the gate's own, such as to ask whose a credential is, has htm and
//     htu (as in RFC 9449) in place of sub: it is good for that method and address.
//
// An assertion is no one-time thing: requests of a session within [renewed] carry the
// same one. The gate removes what clients send under its name.
//
// Keys are made of the keyring's secrets for the purpose "assertion", so all nodes
// sign with the same, and are published as a JWK set (RFC 7517) from before their
// first use until after their last.
package assertion

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kidoban/kidoban/gateway/storage"
)

const (
	// Header is the request header that carries an assertion.
	Header = "Kidoban-Assertion"
	// Type is the "typ" of an assertion, so that no other token of the issuer passes
	// for one (RFC 8725 section 3.11).
	Type = "kidoban+jwt"
	// Life is how long an assertion is good.
	Life = time.Minute
	// renewed is for how long it is handed out; the rest of its life is for the way to
	// the backend and for clocks.
	renewed = 20 * time.Second

	shards   = 64
	shardMax = 512 // assertions that a shard remembers, about 1 KiB each
)

// Site is between whom assertions are: a guarded site and the service behind it.
type Site struct {
	Issuer   string // origin of the site: https://HOST[:PORT]
	Audience string // name of the service
}

// Statement is what the gate knows of a session.
type Statement struct {
	Subject       string // the account, as the backend identified it
	Organization  string // may be empty
	Session       string // public id
	AAL           int    // authenticator assurance level, 1 to 3 (SP 800-63B-4)
	Methods       []string
	Authenticated time.Time // the last time that a person proved who they are
	Elevated      bool      // something speaks against the session, not enough to refuse it
}

// claims is the form of both kinds. Times are in seconds (RFC 7519 section 2).
type claims struct {
	Issuer        string   `json:"iss"`
	Audience      string   `json:"aud"`
	Subject       string   `json:"sub,omitempty"`
	Organization  string   `json:"org,omitempty"`
	Session       string   `json:"sid,omitempty"`
	AAL           int      `json:"aal,omitempty"`
	ACR           string   `json:"acr,omitempty"` // "aal1" to "aal3"
	Methods       []string `json:"amr,omitempty"` // RFC 8176
	Authenticated int64    `json:"auth_time,omitempty"`
	Risk          string   `json:"risk,omitempty"` // "low" or "elevated"
	HTTPMethod    string   `json:"htm,omitempty"`
	HTTPAddress   string   `json:"htu,omitempty"`
	Issued        int64    `json:"iat"`
	Expires       int64    `json:"exp"`
	ID            string   `json:"jti"`
}

// Signer makes assertions and publishes the keys that verify them. It is safe for
// concurrent use. What it remembers is bounded; when that is full, it signs more.
type Signer struct {
	ring    *storage.Keyring
	derived atomic.Pointer[map[string]*key] // by the id of their secret

	seed   maphash.Seed
	recent [shards]recent
}

type recent struct {
	sync.Mutex
	made map[place]made
}

type place struct {
	site    Site
	session string
}

type made struct {
	token         string
	aal           int
	authenticated time.Time
	at            time.Time
}

// New returns a signer with the keys of ring.
func New(ring *storage.Keyring) *Signer {
	s := &Signer{ring: ring, seed: maphash.MakeSeed()}
	s.derived.Store(new(map[string]*key))
	return s
}

// Recent is the assertion that was made of a session a moment ago, if level and time
// of its authentication are still the same. What else was said in it, such as the
// risk, may be up to 20 s old.
func (s *Signer) Recent(site Site, session string, aal int, authenticated, now time.Time) (string, bool) {
	shard := s.shard(session)
	shard.Lock()
	defer shard.Unlock()
	m, ok := shard.made[place{site, session}]
	if !ok || m.aal != aal || !m.authenticated.Equal(authenticated) || now.Before(m.at) || now.Sub(m.at) >= renewed {
		return "", false
	}
	return m.token, true
}

// Sign makes an assertion of a session.
func (s *Signer) Sign(site Site, st Statement, now time.Time) (string, error) {
	risk := "low"
	if st.Elevated {
		risk = "elevated"
	}
	token, err := s.sign(claims{
		Issuer: site.Issuer, Audience: site.Audience, Subject: st.Subject, Organization: st.Organization, Session: st.Session,
		AAL: st.AAL, ACR: "aal" + strconv.Itoa(st.AAL), Methods: st.Methods, Authenticated: st.Authenticated.Unix(), Risk: risk,
	}, now)
	if err != nil {
		return "", err
	}
	shard := s.shard(st.Session)
	shard.Lock()
	defer shard.Unlock()
	if len(shard.made) >= shardMax {
		clear(shard.made)
	}
	if shard.made == nil {
		shard.made = make(map[place]made)
	}
	shard.made[place{site, st.Session}] = made{token, st.AAL, st.Authenticated, now}
	return token, nil
}

// SignOwn makes an assertion of a request of the gate's own.
func (s *Signer) SignOwn(site Site, method, path string, now time.Time) (string, error) {
	return s.sign(claims{Issuer: site.Issuer, Audience: site.Audience, HTTPMethod: method, HTTPAddress: site.Issuer + path}, now)
}

func (s *Signer) sign(c claims, now time.Time) (string, error) {
	c.Issued, c.Expires, c.ID = now.Unix(), now.Add(Life).Unix(), rand.Text()
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("writing an assertion: %w", err)
	}
	k, err := s.key(s.ring.Current(storage.Assertion))
	if err != nil {
		return "", err
	}
	signed, err := k.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing an assertion: %w", err)
	}
	return signed.CompactSerialize()
}

func (s *Signer) shard(session string) *recent {
	return &s.recent[maphash.String(s.seed, session)%shards]
}

// key is a derived key, ready for use.
type key struct {
	signer jose.Signer
	public jose.JSONWebKey
}
