package assertion

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kidoban/kidoban/gateway/storage"
)

const (
	// derivation separates these keys from whatever else is made of a secret.
	derivation = "kidoban assertion ed25519 v1"

	// retiredFor is how long a retired key stays in the set: longer than an assertion
	// lives, and long enough for a node that gets the new keyring late and signs with
	// the old key meanwhile.
	retiredFor = storage.RotationGrace

	// cached is how long others may keep the set. A new key is in it for
	// [storage.RotationGrace] before it signs, which is longer.
	cached = 5 * time.Minute
)

// key derives the key of a secret, or finds the one that was derived.
func (s *Signer) key(secret storage.Key) (*key, error) {
	known := s.derived.Load()
	if k := (*known)[secret.ID]; k != nil {
		return k, nil
	}
	k, err := derive(secret)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(*known)
	if all == nil {
		all = make(map[string]*key)
	}
	all[secret.ID] = k
	s.derived.CompareAndSwap(known, &all) // who loses a race derives it again
	return k, nil
}

func derive(secret storage.Key) (*key, error) {
	seed, err := hkdf.Key(sha256.New, secret.Bytes(), nil, derivation, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("deriving a key of %s: %w", secret, err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	k := &key{public: jose.JSONWebKey{Key: private.Public(), Algorithm: string(jose.EdDSA), Use: "sig"}}
	// The id is the thumbprint (RFC 7638): it says nothing of the keyring, and another
	// key cannot have it.
	sum, err := k.public.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("the thumbprint of %s: %w", secret, err)
	}
	k.public.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	k.signer, err = jose.NewSigner(
		jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: k.public.KeyID}},
		new(jose.SignerOptions).WithType(Type))
	if err != nil {
		return nil, fmt.Errorf("a signer of %s: %w", secret, err)
	}
	return k, nil
}

// Keys is the set that verifies what is good at now or will be soon: the current key,
// one that is to come, and those that retired a moment ago.
func (s *Signer) Keys(now time.Time) (jose.JSONWebKeySet, error) {
	var set jose.JSONWebKeySet
	for _, secret := range s.ring.All(storage.Assertion) {
		if !secret.Retired.IsZero() && now.Sub(secret.Retired) >= retiredFor {
			continue
		}
		k, err := s.key(secret)
		if err != nil {
			return set, err
		}
		set.Keys = append(set.Keys, k.public)
	}
	return set, nil
}

// ServeKeys answers with the set. It is public.
func (s *Signer) ServeKeys(w http.ResponseWriter, r *http.Request, now time.Time) error {
	h := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return nil
	}
	set, err := s.Keys(now)
	if err != nil {
		return err
	}
	body, err := json.Marshal(set)
	if err != nil {
		return fmt.Errorf("writing the key set: %w", err)
	}
	h.Set("Content-Type", "application/jwk-set+json") // RFC 7517 section 8.5.2
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(cached.Seconds())))
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(body)
	return err
}
