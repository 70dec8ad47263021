package account_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"

	"github.com/kidoban/kidoban/policies"
)

func newOutbox() *policies.Outbox { return policies.NewMemoryStore().Outbox() }

// virtualKey is a security key that makes credentials: P-256, without attestation
// (WebAuthn sections 6.5 and 8.7).
type virtualKey struct {
	id     []byte
	secret *ecdsa.PrivateKey
}

func newVirtualKey(t testing.TB) *virtualKey {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &virtualKey{id: make([]byte, 32), secret: secret}
	rand.Read(k.id)
	return k
}

// create answers navigator.credentials.create.
func (k *virtualKey) create(t testing.TB, options []byte) []byte {
	t.Helper()
	var o struct{ PublicKey struct{ Challenge string } }
	if err := json.Unmarshal(options, &o); err != nil || o.PublicKey.Challenge == "" {
		t.Fatalf("options %s: %v", options, err)
	}
	client, err := json.Marshal(map[string]any{"type": "webauthn.create", "challenge": o.PublicKey.Challenge, "origin": origin, "crossOrigin": false})
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.secret.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public, err := webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
	if err != nil {
		t.Fatal(err)
	}
	site := sha256.Sum256([]byte("chat.example"))
	const present, verified, attested = 1 << 0, 1 << 2, 1 << 6
	data := binary.BigEndian.AppendUint32(append(site[:], present|verified|attested), 0)
	data = append(data, make([]byte, 16)...) // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(k.id)))
	data = append(append(data, k.id...), public...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding
	id := b64.EncodeToString(k.id)
	answer, err := json.Marshal(map[string]any{
		"id": id, "rawId": id, "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]any{"clientDataJSON": b64.EncodeToString(client), "attestationObject": b64.EncodeToString(object)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
