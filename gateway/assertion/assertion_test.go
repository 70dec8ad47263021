package assertion_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kidoban/kidoban/gateway/assertion"
	"github.com/kidoban/kidoban/gateway/storage"
)

var (
	site  = assertion.Site{Issuer: "https://chat.example.com", Audience: "chat"}
	start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	alice = assertion.Statement{Subject: "1", Organization: "7", Session: "S1", AAL: 2, Methods: []string{"mfa"}, Authenticated: start}
)

// node is a signer of one node, with a clock.
type node struct {
	*assertion.Signer
	ring *storage.Keyring
	now  time.Time
}

func newNode(t testing.TB, file string) *node {
	t.Helper()
	ring, err := storage.OpenKeyring(file, true)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Signer: assertion.New(ring), ring: ring, now: start}
	ring.SetClock(func() time.Time { return n.now })
	return n
}

func (n *node) sign(t testing.TB, st assertion.Statement) string {
	t.Helper()
	token, err := n.Sign(site, st, n.now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// verifies reports whether the node's key set has the key of a token.
func (n *node) verifies(t testing.TB, token string) bool {
	t.Helper()
	set, err := n.Keys(n.now)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	_, err = signed.Verify(set)
	return err == nil
}

func TestNodesSignAlike(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	one, two := newNode(t, file), newNode(t, file)
	if !two.verifies(t, one.sign(t, alice)) {
		t.Error("what one node signed the other does not know")
	}
	if foreign := newNode(t, filepath.Join(t.TempDir(), "keys.json")); foreign.verifies(t, one.sign(t, alice)) {
		t.Error("another installation has the same key")
	}
}

// TestRotation: whatever is good verifies at each moment, and a key is published as
// long before its first use as others may keep the set.
func TestRotation(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "keys.json"))
	before := n.sign(t, alice)
	count := func() int {
		set, err := n.Keys(n.now)
		if err != nil {
			t.Fatal(err)
		}
		return len(set.Keys)
	}
	if _, err := n.ring.Rotate(storage.Assertion, n.now, storage.RotationGrace); err != nil {
		t.Fatal(err)
	}
	if count() != 2 {
		t.Errorf("%d keys, want the one to come as well", count())
	}
	if still := n.sign(t, alice); !n.verifies(t, still) || kid(t, still) != kid(t, before) {
		t.Error("the new key signs before its time")
	}
	n.now = n.now.Add(storage.RotationGrace)
	after := n.sign(t, alice)
	if kid(t, after) == kid(t, before) {
		t.Error("the old key signs after its time")
	}
	for what, token := range map[string]string{"before": before, "after": after} {
		if !n.verifies(t, token) {
			t.Errorf("what was signed %s does not verify", what)
		}
	}
	n.now = n.now.Add(storage.RotationGrace)
	if n.verifies(t, before) || count() != 1 {
		t.Errorf("the old key is still there; %d keys", count())
	}
}

func kid(t testing.TB, token string) string {
	t.Helper()
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return signed.Signatures[0].Protected.KeyID
}

func TestRecent(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "keys.json"))
	token := n.sign(t, alice)
	for _, test := range []struct {
		name    string
		site    assertion.Site
		session string
		aal     int
		since   time.Time
		now     time.Time
		want    bool
	}{
		{"at once", site, "S1", 2, start, start, true},
		{"19 s later", site, "S1", 2, start, start.Add(19 * time.Second), true},
		{"20 s later", site, "S1", 2, start, start.Add(20 * time.Second), false},
		{"the clock went back", site, "S1", 2, start, start.Add(-time.Second), false},
		{"another session", site, "S2", 2, start, start, false},
		{"another level", site, "S1", 1, start, start, false},
		{"authenticated again", site, "S1", 2, start.Add(time.Second), start.Add(time.Second), false},
		{"another backend", assertion.Site{Issuer: site.Issuer, Audience: "wiki"}, "S1", 2, start, start, false},
		{"another site", assertion.Site{Issuer: "https://chat.example.net", Audience: "chat"}, "S1", 2, start, start, false},
	} {
		got, ok := n.Recent(test.site, test.session, test.aal, test.since, test.now)
		if ok != test.want || ok && got != token {
			t.Errorf("%s: %v, want %v", test.name, ok, test.want)
		}
	}
}

// TestRecentIsBounded signs for more sessions than are remembered, from many at once.
func TestRecentIsBounded(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "keys.json"))
	const sessions = 40_000
	var all sync.WaitGroup
	for part := range 4 {
		all.Go(func() {
			for i := part; i < sessions; i += 4 {
				if _, err := n.Sign(site, assertion.Statement{Subject: "1", Session: fmt.Sprint(i), AAL: 1}, start); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	known := 0
	for i := range sessions {
		if _, ok := n.Recent(site, fmt.Sprint(i), 1, time.Time{}, start); ok {
			known++
		}
	}
	if known == 0 || known > 64*512 {
		t.Errorf("%d are remembered", known)
	}
}

// TestNoSecretIsPublished: neither the set nor a token holds the private key or the
// id of the keyring's secret.
func TestNoSecretIsPublished(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "keys.json"))
	w := httptest.NewRecorder()
	if err := n.ServeKeys(w, httptest.NewRequest(http.MethodGet, "/.kidoban/jwks.json", nil), start); err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("%s %v", w.Body, err)
	}
	for name := range set.Keys[0] {
		if !strings.Contains(" kty crv x kid use alg ", " "+name+" ") {
			t.Errorf("the key has %q", name)
		}
	}
	if strings.Contains(w.Body.String()+n.sign(t, alice), n.ring.Current(storage.Assertion).ID) {
		t.Error("the id of the secret is told")
	}
}

func BenchmarkSign(b *testing.B) {
	n := newNode(b, filepath.Join(b.TempDir(), "keys.json"))
	b.ReportAllocs()
	for b.Loop() {
		n.sign(b, alice)
	}
}

func BenchmarkRecent(b *testing.B) {
	n := newNode(b, filepath.Join(b.TempDir(), "keys.json"))
	n.sign(b, alice)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := n.Recent(site, "S1", 2, start, start); !ok {
			b.Fatal("forgotten")
		}
	}
}
