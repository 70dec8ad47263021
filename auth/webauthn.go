package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

// Ceremonies.
const (
	ceremonyBind     = "bind"
	ceremonyUse      = "use"      // a key of the account
	ceremonyDiscover = "discover" // a key of whomever
)

// checkOrigins refuses pages that browsers would not let use keys of the domain.
func checkOrigins(rpid string, origins []string) error {
	if err := protocol.ValidateRPID(rpid); err != nil {
		return fmt.Errorf("factors: RPID is %q: want a domain, such as chat.example: %w", rpid, err)
	}
	if len(origins) == 0 {
		return errors.New("factors: no Origins: want the pages that may ask for keys, such as https://" + rpid)
	}
	for _, o := range origins {
		u, err := url.Parse(o)
		if err != nil || u.Host == "" || o != u.Scheme+"://"+u.Host {
			return fmt.Errorf("factors: origin %q: want https://host or https://host:port", o)
		}
		host := u.Hostname()
		local := u.Scheme == "http" && host == "localhost"
		if u.Scheme != "https" && !local {
			return fmt.Errorf("factors: origin %q: browsers have keys on https:// pages and http://localhost only", o)
		}
		if host != rpid && !strings.HasSuffix(host, "."+rpid) {
			return fmt.Errorf("factors: origin %q is not of the domain %q: its pages cannot use the keys", o, rpid)
		}
	}
	return nil
}

func newKeys(cfg FactorsConfig) (*webauthn.WebAuthn, error) {
	timeout := webauthn.TimeoutConfig{Timeout: challengeFor, TimeoutUVD: challengeFor} // told to browsers; the store's is what counts
	return webauthn.New(&webauthn.Config{
		RPID: cfg.RPID, RPDisplayName: cfg.Issuer, RPOrigins: cfg.Origins,
		AttestationPreference:  protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{UserVerification: protocol.UserVerificationRequirement(cfg.UserVerification)},
		Timeouts:               webauthn.TimeoutsConfig{Login: timeout, Registration: timeout},
		// Some password managers answer what they were not asked. None of it is used.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
}

// keyOwner is an account as the library wants it.
type keyOwner struct {
	handle  []byte
	account string
	keys    []webauthn.Credential
}

func (o *keyOwner) WebAuthnID() []byte                         { return o.handle }
func (o *keyOwner) WebAuthnName() string                       { return o.account }
func (o *keyOwner) WebAuthnDisplayName() string                { return o.account }
func (o *keyOwner) WebAuthnCredentials() []webauthn.Credential { return o.keys }

// ceremony is what a challenge needs to be finished. The challenge itself is not
// kept: its hash leads here.
type ceremony struct {
	Session webauthn.SessionData `json:"session"`
	Name    string               `json:"name,omitempty"` // of the key that is being bound
}

func hashChallenge(challenge string) [32]byte {
	return sha256.Sum256([]byte("kidoban webauthn challenge v1\x00" + challenge))
}

func hashKey(credential []byte) [32]byte {
	return sha256.Sum256(append([]byte("kidoban webauthn key v1\x00"), credential...))
}

func checkPurpose(purpose string) error {
	if purpose == "" || len(purpose) > purposeMax || !storable(purpose) {
		return fmt.Errorf("a purpose of %d bytes: want 1 to %d, to say what the key is asked for", len(purpose), purposeMax)
	}
	return nil
}

// newChallenge is the challenge of a ceremony, to be stored.
func newChallenge(subject, kind, purpose string, c ceremony, now time.Time) (*challenge, error) {
	hash := hashChallenge(c.Session.Challenge)
	c.Session.Challenge = ""
	c.Session.AllowedCredentialIDs = nil // any active key of the account is good
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("storing a challenge: %w", err)
	}
	return &challenge{hash: hash, subject: subject, ceremony: kind, purpose: purpose, expires: now.Add(challengeFor), data: string(data)}, nil
}

// good reads the ceremony if the challenge was for this, and not too long ago.
func (c *challenge) good(subject, kind, purpose, signed string, now time.Time) (ceremony, bool) {
	var got ceremony
	if c == nil || c.subject != subject || c.ceremony != kind || c.purpose != purpose || !now.Before(c.expires) || json.Unmarshal([]byte(c.data), &got) != nil {
		return ceremony{}, false
	}
	got.Session.Challenge = signed
	return got, true
}

// keysOf opens the account's keys. at is the index of each in o.factors.
func (fs *Factors) keysOf(o *owned, all bool) (keys []webauthn.Credential, at []int, err error) {
	for i := range o.factors {
		f := &o.factors[i]
		if f.Kind != Key || f.State != FactorActive && !all {
			continue
		}
		plain, err := fs.open(f)
		if err != nil {
			return nil, nil, err
		}
		var k webauthn.Credential
		if err := json.Unmarshal(plain, &k); err != nil {
			return nil, nil, fmt.Errorf("reading the record of key %s: %w", f.ID, err)
		}
		keys, at = append(keys, k), append(at, i)
	}
	return keys, at, nil
}

// transports is how keys are reached (WebAuthn section 5.8.4). Browsers send whatever
// they like.
var transports = []protocol.AuthenticatorTransport{protocol.USB, protocol.NFC, protocol.BLE, protocol.SmartCard, protocol.Hybrid, protocol.Internal}

// putKey seals what is to be kept of a key. The attestation is not: none was asked
// for, and it may tell devices apart.
func (fs *Factors) putKey(f *factor, k webauthn.Credential) error {
	k.Attestation = webauthn.CredentialAttestation{}
	k.Transport = slices.DeleteFunc(slices.Clone(k.Transport), func(t protocol.AuthenticatorTransport) bool { return !slices.Contains(transports, t) })
	slices.Sort(k.Transport)
	k.Transport = slices.Compact(k.Transport)
	plain, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("storing a key: %w", err)
	}
	return fs.put(f, plain)
}

// handleOf is the account's handle; it gets one if it has none.
func (o *owned) handleOf() []byte {
	o.needed = true
	if o.handle == nil {
		o.handle = make([]byte, userHandleBytes)
		rand.Read(o.handle)
	}
	return o.handle
}

// BeginBindKey is what a browser needs to make a passkey or set up a security key:
// JSON for navigator.credentials.create. purpose is any text that FinishBindKey gets
// too, such as the session's id; account is what the browser shows. With
// discoverable the key must be one that is found without a name.
func (fs *Factors) BeginBindKey(ctx context.Context, subject, account, name, purpose string, discoverable bool, now time.Time) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("beginning to bind a key: %w", err) }
	now = stored(now)
	if n := utf8.RuneCountInString(account); n == 0 || n > factorTextMax || !storable(account) {
		return fail(fmt.Errorf("an account name of %d runes: want 1 to %d", n, factorTextMax))
	}
	if err := errors.Join(checkOwner(subject), checkFactorName(name), checkPurpose(purpose)); err != nil {
		return fail(err)
	}
	resident := protocol.ResidentKeyRequirementPreferred
	if discoverable {
		resident = protocol.ResidentKeyRequirementRequired
	}
	var options []byte
	err := fs.store.updateFactors(ctx, subject, nil, act{}, func(o *owned) error {
		if o.count(Key) >= keysMax {
			return ErrTooManyFactors
		}
		keys, _, err := fs.keysOf(o, true)
		if err != nil {
			return err
		}
		creation, session, err := fs.keys.BeginRegistration(&keyOwner{handle: o.handleOf(), account: account},
			webauthn.WithExclusions(webauthn.Credentials(keys).CredentialDescriptors()),
			webauthn.WithResidentKeyRequirement(resident),
			webauthn.WithCredentialParameters(webauthn.CredentialParametersExtendedL3()))
		if err != nil {
			return err
		}
		if options, err = json.Marshal(creation); err != nil {
			return err
		}
		o.put, err = newChallenge(subject, ceremonyBind, purpose, ceremony{Session: *session, Name: name}, now)
		return err
	})
	if err != nil {
		return fail(err)
	}
	return options, nil
}

// FinishBindKey binds the key that the browser's answer, PublicKeyCredential.toJSON,
// is of. The challenge is used up by any answer to it that can be read.
func (fs *Factors) FinishBindKey(ctx context.Context, subject, purpose string, answer []byte, by Act, now time.Time) (Factor, FactorNotice, error) {
	var (
		bound  Factor
		notice FactorNotice
		bad    error
	)
	fail := func(err error) (Factor, FactorNotice, error) {
		return Factor{}, FactorNotice{}, fmt.Errorf("binding a key: %w", err)
	}
	now = stored(now)
	a, err := by.approving(now)
	if err != nil {
		return fail(err)
	}
	if checkOwner(subject) != nil {
		return fail(ErrBindingOver)
	}
	parsed, err := parseCreation(answer)
	if err != nil {
		return fail(err)
	}
	signed := parsed.Response.CollectedClientData.Challenge
	take := hashChallenge(signed)
	err = fs.store.updateFactors(ctx, subject, &take, a, func(o *owned) error {
		bad = nil
		refuse := func(err error) error { // and use the challenge up
			o.idle, bad = true, err
			return nil
		}
		c, ok := o.taken.good(subject, ceremonyBind, purpose, signed, now)
		if !ok {
			return refuse(ErrBindingOver)
		}
		if o.count(Key) >= keysMax {
			return refuse(ErrTooManyFactors)
		}
		k, err := fs.keys.CreateCredential(&keyOwner{handle: o.handle}, c.Session, parsed)
		if err != nil {
			return refuse(fmt.Errorf("what the browser sent is not good: %s", plainError(err)))
		}
		if len(k.PublicKey) > publicKeyMax {
			return refuse(fmt.Errorf("its public key has %d bytes: want at most %d", len(k.PublicKey), publicKeyMax))
		}
		f := factor{
			Factor:     Factor{ID: rand.Text(), Subject: subject, Kind: Key, Name: c.Name, State: FactorActive, Created: now},
			credential: hashKey(k.ID),
		}
		if err := fs.putKey(&f, *k); err != nil {
			return err
		}
		o.factors = append(o.factors, f)
		bound, o.kind = f.Factor, Key
		notice = o.tell(FactorBound, &f, by.By, now)
		return nil
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return fail(err)
	}
	return bound, notice, nil
}

// BeginKey is what a browser needs to use one of the account's keys: JSON for
// navigator.credentials.get. purpose is any text that UseKey gets too, and says what
// the key is asked for. For an account without a key it looks the same, with a key
// that does not exist.
func (fs *Factors) BeginKey(ctx context.Context, subject, purpose string, now time.Time) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("beginning to use a key: %w", err) }
	now = stored(now)
	if err := errors.Join(checkOwner(subject), checkPurpose(purpose)); err != nil {
		return fail(err)
	}
	var options []byte
	err := fs.store.updateFactors(ctx, subject, nil, act{}, func(o *owned) error {
		owner := &keyOwner{handle: o.handleOf()}
		var err error
		if owner.keys, _, err = fs.keysOf(o, false); err != nil {
			return err
		}
		if len(owner.keys) == 0 {
			// The same one each time; the handle is known to no key yet.
			id := sha256.Sum256(append([]byte("kidoban webauthn decoy v1\x00"), o.handle...))
			owner.keys = []webauthn.Credential{{ID: id[:], Transport: []protocol.AuthenticatorTransport{protocol.Hybrid, protocol.Internal}}}
		}
		assertion, session, err := fs.keys.BeginLogin(owner)
		if err != nil {
			return err
		}
		if options, err = json.Marshal(assertion); err != nil {
			return err
		}
		o.put, err = newChallenge(subject, ceremonyUse, purpose, ceremony{Session: *session}, now)
		return err
	})
	if err != nil {
		return fail(err)
	}
	return options, nil
}

// BeginAnyKey is BeginKey for an account that is not known yet: the browser offers
// the discoverable keys it has. UseAnyKey says whose it was.
func (fs *Factors) BeginAnyKey(ctx context.Context, purpose string, now time.Time) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("beginning to use a key: %w", err) }
	now = stored(now)
	if err := checkPurpose(purpose); err != nil {
		return fail(err)
	}
	assertion, session, err := fs.keys.BeginDiscoverableLogin()
	if err != nil {
		return fail(err)
	}
	options, err := json.Marshal(assertion)
	if err != nil {
		return fail(err)
	}
	put, err := newChallenge("", ceremonyDiscover, purpose, ceremony{Session: *session}, now)
	if err != nil {
		return fail(err)
	}
	err = fs.store.updateFactors(ctx, "", nil, act{}, func(o *owned) error {
		o.put = put
		return nil
	})
	if err != nil {
		return fail(err)
	}
	return options, nil
}

// UseKey checks a browser's answer to BeginKey. Whatever is wrong is ErrWrongCode;
// what cannot be read is ErrMalformedCode. A challenge is used up by any answer to
// it that can be read. A key whose counter went back, because there may be two of
// it, is not accepted, and its owner is told.
//
// An entry that the act carries is on record as having happened if and only if the
// key was accepted.
func (fs *Factors) UseKey(ctx context.Context, subject, purpose string, answer []byte, by Act, now time.Time) (Attempt, error) {
	parsed, err := parseAssertion(answer)
	if err != nil {
		return Attempt{Outcome: AttemptWrong}, err
	}
	if checkOwner(subject) != nil {
		return Attempt{Outcome: AttemptNone}, ErrWrongCode
	}
	return fs.useKey(ctx, subject, subject, ceremonyUse, purpose, parsed, by, stored(now))
}

// UseAnyKey checks a browser's answer to BeginAnyKey, as UseKey does. Whose key it
// was is in the attempt's factor.
func (fs *Factors) UseAnyKey(ctx context.Context, purpose string, answer []byte, by Act, now time.Time) (Attempt, error) {
	parsed, err := parseAssertion(answer)
	if err != nil {
		return Attempt{Outcome: AttemptWrong}, err
	}
	subject, err := fs.store.subjectOfKey(ctx, hashKey(parsed.RawID))
	if err != nil {
		return Attempt{}, fmt.Errorf("trying a factor: %w", err)
	}
	return fs.useKey(ctx, subject, "", ceremonyDiscover, purpose, parsed, by, stored(now))
}

// useKey checks an answer to a challenge that was made for an account, or for none.
func (fs *Factors) useKey(ctx context.Context, subject, asked, kind, purpose string, parsed *protocol.ParsedCredentialAssertionData, by Act, now time.Time) (Attempt, error) {
	signed := parsed.Response.CollectedClientData.Challenge
	take := hashChallenge(signed)
	return fs.attempt(ctx, subject, &take, by, now, func(o *owned) (Attempt, error) {
		c, ok := o.taken.good(asked, kind, purpose, signed, now)
		if !ok {
			return Attempt{Outcome: AttemptChallenge}, nil
		}
		keys, at, err := fs.keysOf(o, false)
		if err != nil {
			return Attempt{}, err
		}
		var f *factor
		for i := range keys {
			if bytes.Equal(keys[i].ID, parsed.RawID) {
				f = &o.factors[at[i]]
			}
		}
		if f == nil {
			digest := sha256.Sum256(parsed.Raw.AssertionResponse.AuthenticatorData)
			ecdsa.VerifyASN1(fs.decoy.key, digest[:], parsed.Response.Signature) // for the time it takes
			return Attempt{Outcome: AttemptNone}, nil
		}
		fs.charge(f, now)
		k, err := fs.validate(&keyOwner{handle: o.handle, keys: keys}, kind, c.Session, parsed)
		if err != nil {
			return Attempt{Outcome: AttemptWrong, Factor: f.Factor, Notices: fs.blame(o, f, by.By, now)}, nil
		}
		flags := parsed.Response.AuthenticatorData.Flags
		got := Attempt{UserVerified: flags.HasUserVerified(), Synced: flags.HasBackupEligible()}
		if k.Authenticator.CloneWarning {
			got.Outcome, got.Notices = AttemptCloned, []FactorNotice{o.tell(FactorCloned, f, by.By, now)}
			got.Factor = f.Factor
			return got, nil
		}
		f.succeed(now)
		got.Outcome, got.Factor = AttemptAccepted, f.Factor
		return got, fs.putKey(f, *k)
	})
}

func (fs *Factors) validate(owner *keyOwner, kind string, session webauthn.SessionData, parsed *protocol.ParsedCredentialAssertionData) (*webauthn.Credential, error) {
	if kind == ceremonyUse {
		return fs.keys.ValidateLogin(owner, session, parsed)
	}
	_, k, err := fs.keys.ValidatePasskeyLogin(func(_, _ []byte) (webauthn.User, error) { return owner, nil }, session, parsed)
	return k, err
}

// plainError is what the library says for people, without what it says for
// developers: that holds challenges.
func plainError(err error) string {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e.Details
	}
	return err.Error()
}

// parseCreation reads what navigator.credentials.create made.
func parseCreation(answer []byte) (*protocol.ParsedCredentialCreationData, error) {
	if len(answer) > keyResponseMax {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrMalformedCode, len(answer), keyResponseMax)
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrMalformedCode, plainError(err))
	}
	if parsed.Response.AttestationObject.AuthData.AttData.CredentialID == nil {
		return nil, fmt.Errorf("%w: it has no key", ErrMalformedCode)
	}
	return parsed, nil
}

// parseAssertion reads what navigator.credentials.get made.
func parseAssertion(answer []byte) (*protocol.ParsedCredentialAssertionData, error) {
	if len(answer) > keyResponseMax {
		return nil, ErrMalformedCode
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return nil, ErrMalformedCode
	}
	return parsed, nil
}
