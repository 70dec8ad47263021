package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kidoban/kidoban/gateway/api/sigv4"
	"github.com/kidoban/kidoban/gateway/once"
)

// Role is what an operator may do. Each includes the ones before.
type Role int

const (
	Viewer    Role = iota + 1 // reads
	Responder                 // also changes decisions, ends sessions and acts on second factors
	Admin                     // everything there is, and will be
)

var roleNames = map[Role]string{Viewer: "viewer", Responder: "responder", Admin: "admin"}

func (r Role) String() string { return roleNames[r] }

// ParseRole reads a role by its name. The empty name is a responder.
func ParseRole(name string) (Role, error) {
	if name == "" {
		return Responder, nil
	}
	for r, n := range roleNames {
		if n == name {
			return r, nil
		}
	}
	return 0, fmt.Errorf("unknown role %q: want viewer, responder or admin", name)
}

// Service is the name that signatures are made for.
const Service = "kidoban"

const (
	// minKey is the least length of a key in characters: 22 of base64 have 132 bits.
	minKey = 22
	// maxOperators bounds the keys of one kind: each call compares all of them.
	maxOperators = 1000
)

// Key lets an operator in by Authorization: Bearer. It is kept as a hash. One
// round of SHA-256 is enough for a key that is random with 128 bits or more, and
// for nothing that a person made up.
type Key struct {
	Name    string
	Role    Role
	Expires time.Time // good before this time; zero: it does not expire
	Hash    [sha256.Size]byte
}

// SigningKey lets an operator in by AWS Signature Version 4. Verifying needs the
// secret in clear.
type SigningKey struct {
	Name    string
	Role    Role
	Expires time.Time // good before this time; zero: it does not expire
	ID      string    // the access key id; not secret
	Secret  string
}

// HashKey is how a key is kept.
func HashKey(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// CheckSecret tells whether a key or secret can be a random one of 128 bits. Its
// errors do not repeat it.
func CheckSecret(secret string) error {
	if len(secret) < minKey {
		return fmt.Errorf("is too short: want at least %d random characters, such as from `openssl rand -base64 30`", minKey)
	}
	distinct := make(map[rune]bool)
	for _, c := range secret {
		if c <= ' ' || c > '~' {
			return errors.New("has a space or a character that is not ASCII")
		}
		distinct[c] = true
	}
	if len(distinct) < 8 {
		return errors.New("is not random: it has less than 8 different characters")
	}
	return nil
}

// Operators are those who may call.
type Operators struct {
	keys     []Key
	signing  map[string]SigningKey
	services []string
}

// NewOperators checks that everybody has a name and a role and that no key is
// given twice. services are the names beside [Service] that signatures may be made
// for, for signers that cannot say ours.
func NewOperators(keys []Key, signing []SigningKey, services ...string) (*Operators, error) {
	o := &Operators{keys: keys, signing: make(map[string]SigningKey, len(signing)), services: append([]string{Service}, services...)}
	if len(keys) > maxOperators || len(signing) > maxOperators {
		return nil, fmt.Errorf("%d keys and %d signing keys: at most %d of each", len(keys), len(signing), maxOperators)
	}
	owners := make(map[[sha256.Size]byte]string, len(keys))
	for _, k := range keys {
		if k.Name == "" || roleNames[k.Role] == "" {
			return nil, fmt.Errorf("key of operator %q: a name and a role are needed", k.Name)
		}
		if other, taken := owners[k.Hash]; taken {
			return nil, fmt.Errorf("the operators %q and %q have the same key: give each one of their own", other, k.Name)
		}
		owners[k.Hash] = k.Name
	}
	for _, k := range signing {
		if k.Name == "" || roleNames[k.Role] == "" || k.ID == "" {
			return nil, fmt.Errorf("signing key of operator %q: a name, a role and an id are needed", k.Name)
		}
		if other, taken := o.signing[k.ID]; taken {
			return nil, fmt.Errorf("the operators %q and %q have the same access key id %q: give each one of their own", other.Name, k.Name, k.ID)
		}
		o.signing[k.ID] = k
	}
	return o, nil
}

// operator is who makes a call.
type operator struct {
	name string
	role Role
}

// may returns a problem if the operator's role does not include the one needed.
func (o operator) may(needed Role) error {
	if o.role >= needed {
		return nil
	}
	return &Problem{Type: typeRole, Status: http.StatusForbidden, Title: "Your role does not allow this", Detail: fmt.Sprintf("you are a %s and this needs a %s", o.role, needed)}
}

// byKey returns whose key it is. Every key is compared, in constant time,
// whichever matches.
func (o *Operators) byKey(key string, now time.Time) (found operator, expired bool) {
	sum := HashKey(key)
	for _, k := range o.keys {
		if subtle.ConstantTimeCompare(sum[:], k.Hash[:]) != 1 {
			continue
		}
		if expired = over(k.Expires, now); !expired {
			found = operator{k.Name, k.Role}
		}
	}
	return found, expired
}

func over(expires, now time.Time) bool { return !expires.IsZero() && !now.Before(expires) }

// verifier verifies signatures made with the operators' keys.
func (o *Operators) verifier(replay once.Store, now func() time.Time) *sigv4.Verifier {
	return &sigv4.Verifier{
		Services: o.services,
		Secret: func(id string) (string, bool) {
			k, known := o.signing[id]
			if !known || over(k.Expires, now()) {
				return "", false
			}
			return k.Secret, true
		},
		Replay: replay, Now: now,
	}
}
