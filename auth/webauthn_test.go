package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"

	"github.com/kidoban/kidoban/auth"
)

var b64 = base64.RawURLEncoding

// Flags of authenticator data (WebAuthn section 6.1).
const (
	userPresent  = 1 << 0
	userVerified = 1 << 2
	mayBackUp    = 1 << 3
	attested     = 1 << 6
)

// virtualKey is a security key: P-256, no attestation (WebAuthn sections 6.5 and 8.7).
type virtualKey struct {
	id     []byte
	secret *ecdsa.PrivateKey
	handle []byte
	count  uint32
	flags  byte
	origin string
	rpid   string

	transports []string
}

func newVirtualKey(t testing.TB) *virtualKey {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &virtualKey{id: make([]byte, 32), secret: secret, flags: userPresent | userVerified, origin: "https://chat.example", rpid: "chat.example"}
	rand.Read(k.id)
	return k
}

// keyOptions is what a page is given.
type keyOptions struct {
	PublicKey struct {
		RP        struct{ ID, Name string } `json:"rp"`
		RPID      string                    `json:"rpId"`
		User      struct{ ID, Name string } `json:"user"`
		Challenge string
		Timeout   int

		ExcludeCredentials []struct{ ID string }
		AllowCredentials   []struct {
			ID         string
			Transports []string
		}
		UserVerification       string
		Attestation            string
		AuthenticatorSelection struct{ ResidentKey, UserVerification string }
	}
}

func readOptions(t testing.TB, options []byte) keyOptions {
	t.Helper()
	var o keyOptions
	if err := json.Unmarshal(options, &o); err != nil {
		t.Fatal(err)
	}
	if raw, err := b64.DecodeString(o.PublicKey.Challenge); err != nil || len(raw) < 32 || o.PublicKey.Timeout != 300_000 {
		t.Fatalf("options %s", options)
	}
	return o
}

func (k *virtualKey) clientData(kind, challenge string) []byte {
	data, err := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": k.origin, "crossOrigin": false})
	if err != nil {
		panic(err)
	}
	return data
}

func (k *virtualKey) data(flags byte) []byte {
	hash := sha256.Sum256([]byte(k.rpid))
	return binary.BigEndian.AppendUint32(append(hash[:], flags), k.count)
}

// create answers navigator.credentials.create.
func (k *virtualKey) create(t testing.TB, options []byte) []byte {
	t.Helper()
	o := readOptions(t, options)
	handle, err := b64.DecodeString(o.PublicKey.User.ID)
	if err != nil {
		t.Fatal(err)
	}
	k.handle = handle
	point, err := k.secret.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public, err := webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
	if err != nil {
		t.Fatal(err)
	}
	data := append(k.data(k.flags|attested), make([]byte, 16)...) // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(k.id)))
	data = append(append(data, k.id...), public...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})
	if err != nil {
		t.Fatal(err)
	}
	return k.answer(map[string]any{
		"transports":     append(k.transports, "usb", "telepathy", "usb"),
		"clientDataJSON": b64.EncodeToString(k.clientData("webauthn.create", o.PublicKey.Challenge)), "attestationObject": b64.EncodeToString(object),
	})
}

// get answers navigator.credentials.get.
func (k *virtualKey) get(t testing.TB, options []byte) []byte {
	t.Helper()
	client, data := k.clientData("webauthn.get", readOptions(t, options).PublicKey.Challenge), k.data(k.flags)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.secret, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return k.answer(map[string]any{
		"clientDataJSON": b64.EncodeToString(client), "authenticatorData": b64.EncodeToString(data),
		"signature": b64.EncodeToString(signature), "userHandle": b64.EncodeToString(k.handle),
	})
}

func (k *virtualKey) answer(response map[string]any) []byte {
	id := b64.EncodeToString(k.id)
	answer, err := json.Marshal(map[string]any{"id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": map[string]any{}})
	if err != nil {
		panic(err)
	}
	return answer
}

// bindKey binds k to an account.
func (f *factorBench) bindKey(subject string, k *virtualKey) auth.Factor {
	f.t.Helper()
	options, err := f.BeginBindKey(f.t.Context(), subject, "hanako", "my key", "session-1", false, start)
	if err != nil {
		f.t.Fatal(err)
	}
	bound, notice, err := f.FinishBindKey(f.t.Context(), subject, "session-1", k.create(f.t, options), auth.Act{By: "user"}, start)
	if err != nil {
		f.t.Fatal(err)
	}
	if notice.Kind != auth.FactorBound || notice.Factor != bound.ID {
		f.t.Errorf("notice %+v", notice)
	}
	return bound
}

func (f *factorBench) beginKey(subject, purpose string, at time.Time) []byte {
	f.t.Helper()
	options, err := f.BeginKey(f.t.Context(), subject, purpose, at)
	if err != nil {
		f.t.Fatal(err)
	}
	return options
}

func (f *factorBench) useKey(subject, purpose string, answer []byte, at time.Time, want auth.AttemptOutcome) auth.Attempt {
	f.t.Helper()
	got, err := f.UseKey(f.t.Context(), subject, purpose, answer, auth.Act{By: "user"}, at)
	f.wantOutcome(got, err, want)
	return got
}

func TestKeys(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		k := newVirtualKey(f.t)
		k.count = 1
		bound := f.bindKey("acc-1", k)
		want := auth.Factor{ID: bound.ID, Subject: "acc-1", Kind: auth.Key, Name: "my key", State: auth.FactorActive, Created: start}
		if bound != want || f.only("acc-1") != want {
			f.t.Errorf("bound %+v", bound)
		}
		f.wantUntold(auth.FactorBound)
		f.reopen()
		now := start.Add(time.Hour)
		options := f.beginKey("acc-1", "login", now)
		o := readOptions(f.t, options).PublicKey
		if len(o.AllowCredentials) != 1 || o.AllowCredentials[0].ID != b64.EncodeToString(k.id) || !slices.Equal(o.AllowCredentials[0].Transports, []string{"usb"}) || o.RPID != "chat.example" || o.UserVerification != "preferred" {
			f.t.Errorf("options %s", options)
		}
		k.count = 2
		answer := k.get(f.t, options)
		got := f.useKey("acc-1", "login", answer, now, auth.AttemptAccepted)
		if !got.UserVerified || got.Synced || got.Factor.ID != bound.ID || !got.Factor.Used.Equal(now) {
			f.t.Errorf("accepted %+v", got)
		}
		f.useKey("acc-1", "login", answer, now, auth.AttemptChallenge) // used up
		k.count, k.flags, k.origin = 3, userPresent, "https://www.chat.example:8443"
		if got := f.useKey("acc-1", "login", k.get(f.t, f.beginKey("acc-1", "login", now)), now, auth.AttemptAccepted); got.UserVerified {
			f.t.Error("a touch passes for a PIN")
		}
		if got := f.only("acc-1"); got.Failures != 0 {
			f.t.Errorf("failures of nobody: %+v", got)
		}
		f.wantUntold()

		// Suspended, back, and gone.
		by := auth.Act{By: "user"}
		if _, _, err := f.Disable(f.t.Context(), "acc-1", bound.ID, by, now); err != nil {
			f.t.Fatal(err)
		}
		options = f.beginKey("acc-1", "login", now)
		if id := readOptions(f.t, options).PublicKey.AllowCredentials[0].ID; id == b64.EncodeToString(k.id) {
			f.t.Error("a suspended key is asked for")
		}
		k.count = 4
		f.useKey("acc-1", "login", k.get(f.t, options), now, auth.AttemptNone)
		if _, _, err := f.Enable(f.t.Context(), "acc-1", bound.ID, by, now); err != nil {
			f.t.Fatal(err)
		}
		f.useKey("acc-1", "login", k.get(f.t, f.beginKey("acc-1", "login", now)), now, auth.AttemptAccepted)
		options = f.beginKey("acc-1", "login", now)
		if _, _, err := f.Remove(f.t.Context(), "acc-1", bound.ID, by, now); err != nil {
			f.t.Fatal(err)
		}
		k.count = 5
		f.useKey("acc-1", "login", k.get(f.t, options), now, auth.AttemptNone)
		f.bindKey("acc-2", k) // it is free again
	})
}

// A good answer is good for one account, purpose, page and time only.
func TestKeysAreRefused(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		k, other := newVirtualKey(f.t), newVirtualKey(f.t)
		f.bindKey("acc-1", k)
		f.bindKey("acc-2", other)
		later := start.Add(5 * time.Minute)
		f.useKey("acc-1", "login", k.get(f.t, f.beginKey("acc-1", "login", start)), later.Add(-time.Microsecond), auth.AttemptAccepted)
		f.useKey("acc-1", "login", k.get(f.t, f.beginKey("acc-1", "login", start)), later, auth.AttemptChallenge)
		f.useKey("acc-1", "step-up", k.get(f.t, f.beginKey("acc-1", "login", start)), start, auth.AttemptChallenge)
		f.useKey("acc-1", "login", k.get(f.t, f.beginKey("acc-2", "login", start)), start, auth.AttemptChallenge)
		f.useKey("acc-2", "login", k.get(f.t, f.beginKey("acc-2", "login", start)), start, auth.AttemptNone)
		for what, change := range map[string]func(*virtualKey){
			"another page":     func(k *virtualKey) { k.origin = "https://chat.example.evil.example" },
			"another port":     func(k *virtualKey) { k.origin = "https://chat.example:444" },
			"another domain":   func(k *virtualKey) { k.rpid = "evil.example" },
			"nobody there":     func(k *virtualKey) { k.flags = userVerified },
			"another secret":   func(k *virtualKey) { k.secret = other.secret },
			"another handle":   func(k *virtualKey) { k.handle = other.handle },
			"it can be copied": func(k *virtualKey) { k.flags |= mayBackUp },
		} {
			bad := *k
			change(&bad)
			got, err := f.UseKey(f.t.Context(), "acc-1", "login", bad.get(f.t, f.beginKey("acc-1", "login", start)), auth.Act{}, start)
			if got.Outcome != auth.AttemptWrong || !errors.Is(err, auth.ErrWrongCode) {
				f.t.Errorf("%s: %q, %v", what, got.Outcome, err)
			}
		}
		// They are counted, and take nobody's key away.
		if got := f.only("acc-1"); got.Failures != 7 || got.State != auth.FactorActive || !got.NextAttempt.IsZero() {
			f.t.Errorf("after failures: %+v", got)
		}
		f.wantUntold(auth.FactorBound, auth.FactorBound, auth.FactorGuessed)
		f.useKey("acc-1", "login", k.get(f.t, f.beginKey("acc-1", "login", start)), start, auth.AttemptAccepted)
		// An answer of the other ceremony, and none.
		options, err := f.BeginBindKey(f.t.Context(), "acc-1", "hanako", "x", "login", false, start)
		if err != nil {
			f.t.Fatal(err)
		}
		f.useKey("acc-1", "login", k.get(f.t, options), start, auth.AttemptChallenge)
		for _, bad := range []string{"", "{}", "null", strings.Repeat(" ", auth.KeyAnswerMax+1)} {
			if got, err := f.UseKey(f.t.Context(), "acc-1", "login", []byte(bad), auth.Act{}, start); !errors.Is(err, auth.ErrMalformedCode) || got.Outcome != auth.AttemptWrong {
				f.t.Errorf("answer of %d bytes: %+v, %v", len(bad), got, err)
			}
		}
	})
}

func TestUserVerificationIsRequired(t *testing.T) {
	cfg := factorsConfig()
	cfg.UserVerification = auth.VerifyRequired
	f := &factorBench{t: t, b: &memory{auth.NewMemoryStore()}, cfg: cfg}
	f.reopen()
	k := newVirtualKey(t)
	f.bindKey("acc-1", k)
	k.flags = userPresent
	f.useKey("acc-1", "login", k.get(t, f.beginKey("acc-1", "login", start)), start, auth.AttemptWrong)
	options, err := f.BeginBindKey(t.Context(), "acc-1", "hanako", "x", "s", false, start)
	if err != nil {
		t.Fatal(err)
	}
	unable := newVirtualKey(t)
	unable.flags = userPresent
	if _, _, err := f.FinishBindKey(t.Context(), "acc-1", "s", unable.create(t, options), auth.Act{}, start); err == nil {
		t.Error("bound a key that asks for nothing")
	}
	k.flags |= userVerified
	f.useKey("acc-1", "login", k.get(t, f.beginKey("acc-1", "login", start)), start, auth.AttemptAccepted)
}

func TestClonedKey(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		k := newVirtualKey(f.t)
		k.count = 7
		f.bindKey("acc-1", k)
		f.wantUntold(auth.FactorBound)
		use := func(count uint32, want auth.AttemptOutcome) auth.Attempt {
			f.t.Helper()
			k.count = count
			return f.useKey("acc-1", "login", k.get(f.t, f.beginKey("acc-1", "login", start)), start, want)
		}
		use(8, auth.AttemptAccepted)
		for _, count := range []uint32{8, 3, 0} {
			if got := use(count, auth.AttemptCloned); len(got.Notices) != 1 || got.Notices[0].Kind != auth.FactorCloned {
				f.t.Errorf("counter %d: %+v", count, got)
			}
			f.wantUntold(auth.FactorCloned)
		}
		use(9, auth.AttemptAccepted)
		// A passkey has no counter, and says that it can be copied.
		p := newVirtualKey(f.t)
		p.flags |= mayBackUp
		f.bindKey("acc-2", p)
		for range 3 {
			if got := f.useKey("acc-2", "login", p.get(f.t, f.beginKey("acc-2", "login", start)), start, auth.AttemptAccepted); !got.Synced {
				f.t.Error("a passkey is not told from a key that cannot be copied")
			}
		}
	})
}

func TestBindKey(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		ctx, by := f.t.Context(), auth.Act{By: "user"}
		k := newVirtualKey(f.t)
		begin := func(subject, purpose string, discoverable bool) []byte {
			f.t.Helper()
			options, err := f.BeginBindKey(ctx, subject, "hanako", "my key", purpose, discoverable, start)
			if err != nil {
				f.t.Fatal(err)
			}
			return options
		}
		finish := func(subject, purpose string, answer []byte, at time.Time) error {
			_, _, err := f.FinishBindKey(ctx, subject, purpose, answer, by, at)
			return err
		}
		for what, err := range map[string]error{
			"another account": finish("acc-2", "s", k.create(f.t, begin("acc-1", "s", false)), start),
			"another purpose": finish("acc-1", "t", k.create(f.t, begin("acc-1", "s", false)), start),
			"late":            finish("acc-1", "s", k.create(f.t, begin("acc-1", "s", false)), start.Add(5*time.Minute)),
			"a use":           finish("acc-1", "s", k.create(f.t, f.beginAsCreation("acc-1", "s")), start),
			"nobody":          finish("", "s", k.create(f.t, begin("acc-1", "s", false)), start),
		} {
			if !errors.Is(err, auth.ErrBindingOver) {
				f.t.Errorf("%s: %v", what, err)
			}
		}
		evil := *k
		evil.origin = "https://evil.example"
		if err := finish("acc-1", "s", evil.create(f.t, begin("acc-1", "s", false)), start); err == nil || strings.Contains(err.Error(), "Expected") {
			f.t.Errorf("another page: %v", err)
		}
		long := newVirtualKey(f.t)
		long.id = make([]byte, 1024)
		if err := finish("acc-1", "s", long.create(f.t, begin("acc-1", "s", false)), start); err == nil {
			f.t.Error("a key of 1,024 bytes")
		}
		f.wantUntold()
		options := begin("acc-1", "s", true)
		o := readOptions(f.t, options).PublicKey
		if o.RP.ID != "chat.example" || o.RP.Name != "Chat" || o.User.Name != "hanako" || o.Attestation != "none" || o.AuthenticatorSelection.ResidentKey != "required" || len(o.ExcludeCredentials) != 0 {
			f.t.Errorf("options %s", options)
		}
		answer := k.create(f.t, options)
		if err := finish("acc-1", "s", answer, start); err != nil {
			f.t.Fatal(err)
		}
		if err := finish("acc-1", "s", answer, start); !errors.Is(err, auth.ErrBindingOver) {
			f.t.Errorf("bound twice: %v", err)
		}
		next := readOptions(f.t, begin("acc-1", "s", false)).PublicKey
		if len(next.ExcludeCredentials) != 1 || next.ExcludeCredentials[0].ID != b64.EncodeToString(k.id) || next.User.ID != o.User.ID || next.AuthenticatorSelection.ResidentKey != "preferred" {
			f.t.Errorf("the second binding: %+v", next)
		}
		if raw, err := b64.DecodeString(o.User.ID); err != nil || len(raw) != 64 {
			f.t.Errorf("handle %q", o.User.ID)
		}
		for _, subject := range []string{"acc-1", "acc-2"} {
			if err := finish(subject, "s", k.create(f.t, begin(subject, "s", false)), start); !errors.Is(err, auth.ErrKeyTaken) {
				f.t.Errorf("the same key again for %s: %v", subject, err)
			}
		}
		for i := 1; i < auth.KeysMax; i++ {
			f.bindKey("acc-1", newVirtualKey(f.t))
		}
		if _, err := f.BeginBindKey(ctx, "acc-1", "hanako", "x", "s", false, start); !errors.Is(err, auth.ErrTooManyFactors) {
			f.t.Errorf("one too many: %v", err)
		}
		for _, bad := range [][4]string{{"", "a", "n", "p"}, {"acc-1", "", "n", "p"}, {"acc-1", "a", "", "p"}, {"acc-1", "a", "n", ""}, {"acc-1", "a", "n", strings.Repeat("p", 257)}} {
			if _, err := f.BeginBindKey(ctx, bad[0], bad[1], bad[2], bad[3], false, start); err == nil || errors.Is(err, auth.ErrTooManyFactors) {
				f.t.Errorf("began with %q: %v", bad, err)
			}
		}
	})
}

// beginAsCreation is the challenge of a use in the options of a binding.
func (f *factorBench) beginAsCreation(subject, purpose string) []byte {
	f.t.Helper()
	challenge := readOptions(f.t, f.beginKey(subject, purpose, start)).PublicKey.Challenge
	return fmt.Appendf(nil, `{"publicKey":{"challenge":%q,"timeout":300000,"user":{"id":"AAAA"}}}`, challenge)
}

func TestDiscoverableKeys(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		ctx := f.t.Context()
		k, stranger := newVirtualKey(f.t), newVirtualKey(f.t)
		bound := f.bindKey("acc-1", k)
		begin := func() []byte {
			f.t.Helper()
			options, err := f.BeginAnyKey(ctx, "login", start)
			if err != nil {
				f.t.Fatal(err)
			}
			if o := readOptions(f.t, options).PublicKey; len(o.AllowCredentials) != 0 {
				f.t.Errorf("options %s", options)
			}
			return options
		}
		use := func(purpose string, answer []byte, want auth.AttemptOutcome) auth.Attempt {
			f.t.Helper()
			got, err := f.UseAnyKey(ctx, purpose, answer, auth.Act{By: "user"}, start)
			f.wantOutcome(got, err, want)
			return got
		}
		answer := k.get(f.t, begin())
		if got := use("login", answer, auth.AttemptAccepted); got.Factor.ID != bound.ID || got.Factor.Subject != "acc-1" {
			f.t.Errorf("accepted %+v", got)
		}
		use("login", answer, auth.AttemptChallenge)
		use("step-up", k.get(f.t, begin()), auth.AttemptChallenge)
		use("login", k.get(f.t, f.beginKey("acc-1", "login", start)), auth.AttemptChallenge)
		f.useKey("acc-1", "login", k.get(f.t, begin()), start, auth.AttemptChallenge)
		stranger.handle = k.handle
		use("login", stranger.get(f.t, begin()), auth.AttemptNone)
		bad := *k
		bad.handle = nil
		use("login", bad.get(f.t, begin()), auth.AttemptWrong)
		bad.handle = make([]byte, 64)
		use("login", bad.get(f.t, begin()), auth.AttemptWrong)
		bad = *k
		bad.secret = stranger.secret
		use("login", bad.get(f.t, begin()), auth.AttemptWrong)
		if _, err := f.BeginAnyKey(ctx, "", start); err == nil {
			f.t.Error("began for no purpose")
		}
	})
}

// An account without a key looks like one with a key, each time the same.
func TestDecoyKeys(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		f.bindKey("acc-1", newVirtualKey(f.t))
		id := func(subject string) string {
			f.t.Helper()
			o := readOptions(f.t, f.beginKey(subject, "login", start)).PublicKey
			if len(o.AllowCredentials) != 1 {
				f.t.Fatalf("%d keys are asked for", len(o.AllowCredentials))
			}
			return o.AllowCredentials[0].ID
		}
		first := id("nobody")
		f.reopen()
		if id("nobody") != first || id("somebody") == first || len(first) != len(id("acc-1")) {
			f.t.Error("decoys tell themselves apart")
		}
		k := newVirtualKey(f.t)
		k.id, _ = b64.DecodeString(first)
		f.useKey("nobody", "login", k.get(f.t, f.beginKey("nobody", "login", start)), start, auth.AttemptNone)
	})
}

func TestKeyAttemptsCostTheSame(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		f := &factorBench{t: t, b: d, cfg: factorsConfig()}
		f.reopen()
		k, k2 := newVirtualKey(t), newVirtualKey(t)
		f.bindKey("acc-1", k)
		bad := *k
		bad.secret = k2.secret
		var want [2]int64
		for i, test := range []struct {
			subject string
			key     *virtualKey
			outcome auth.AttemptOutcome
		}{{"acc-1", &bad, auth.AttemptWrong}, {"nobody", k, auth.AttemptNone}, {"acc-1", k, auth.AttemptAccepted}} {
			var options []byte
			got := [2]int64{d.counted(func() { options = f.beginKey(test.subject, "login", start) })}
			answer := test.key.get(t, options)
			got[1] = d.counted(func() { f.useKey(test.subject, "login", answer, start, test.outcome) })
			if i == 0 {
				want = got
			}
			if got != want {
				t.Errorf("%s: took %v statements, want %v", test.outcome, got, want)
			}
		}
	})
}

// A challenge is used once, on two nodes; and an account has a bounded number.
func TestChallenges(t *testing.T) {
	eachFactors(t, func(f *factorBench) {
		nodes := []*auth.Factors{f.Factors, f.other()}
		k := newVirtualKey(f.t)
		f.bindKey("acc-1", k)
		answer := k.get(f.t, f.beginKey("acc-1", "login", start))
		var (
			wins atomic.Int64
			all  sync.WaitGroup
		)
		for i := range 20 {
			all.Go(func() {
				if _, err := nodes[i%2].UseKey(f.t.Context(), "acc-1", "login", answer, auth.Act{}, start); err == nil {
					wins.Add(1)
				} else if !errors.Is(err, auth.ErrWrongCode) {
					f.t.Error(err)
				}
			})
		}
		all.Wait()
		if wins.Load() != 1 {
			f.t.Errorf("%d of 20 won, want one", wins.Load())
		}
		oldest := f.beginKey("acc-1", "login", start)
		second := f.beginKey("acc-1", "login", start.Add(time.Second))
		for i := 1; i < auth.ChallengesMax; i++ {
			f.beginKey("acc-1", "login", start.Add(2*time.Second))
		}
		f.useKey("acc-1", "login", k.get(f.t, oldest), start, auth.AttemptChallenge)
		f.useKey("acc-1", "login", k.get(f.t, second), start, auth.AttemptAccepted)
		if n, err := f.Sweep(f.t.Context(), start.Add(5*time.Minute+2*time.Second)); err != nil || n != auth.ChallengesMax-1 {
			f.t.Errorf("swept %d, %v, want %d", n, err, auth.ChallengesMax-1)
		}
	})
}
