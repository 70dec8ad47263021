package guard_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kidoban/kidoban/gateway/assertion"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

var chatSite = assertion.Site{Issuer: "https://chat.example.com", Audience: "chat"}

func asserting(c *setup) { c.Assert = chatSite }

// told is what an assertion says, once it is verified with the keys that the gate
// publishes; empty where there is none.
func told(t *testing.T, g *gate, h http.Header) map[string]any {
	t.Helper()
	lines := h.Values(assertion.Header)
	if len(lines) == 0 {
		return nil
	}
	if len(lines) > 1 {
		t.Fatalf("%d assertions", len(lines))
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(g.client(t).get("/.kidoban/jwks.json").body), &set); err != nil {
		t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(lines[0], []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := signed.Verify(set)
	if err != nil {
		t.Fatal(err)
	}
	if typ := signed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]; typ != assertion.Type {
		t.Errorf("typ %v", typ)
	}
	var says map[string]any
	if err := json.Unmarshal(payload, &says); err != nil {
		t.Fatal(err)
	}
	return says
}

func TestAssertion(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, asserting)
	c := g.client(t)
	c.get("/hello")
	if says := told(t, g, backend.last()); says != nil {
		t.Errorf("of nobody it says %v", says)
	}
	if got := c.login(alice, "correct-alice"); got.status != 200 {
		t.Fatal(got)
	}
	c.wantSecret(alice)
	first := backend.last()
	says := told(t, g, first)
	now := float64(g.clock().Unix())
	for name, want := range map[string]any{
		"iss": "https://chat.example.com", "aud": "chat", "sub": alice, "org": "example", "aal": 1.0, "acr": "aal1", "risk": "low",
		"auth_time": now, "iat": now, "exp": now + 60, "amr": nil, "htm": nil,
	} {
		if says[name] != want {
			t.Errorf("%s is %v, want %v", name, says[name], want)
		}
	}
	if id, _ := says["sid"].(string); id == "" || id == c.cookies[guard.SessionCookie] {
		t.Errorf("sid %q", id)
	}
	for _, step := range []struct {
		after time.Duration
		same  bool
	}{{19 * time.Second, true}, {time.Second, false}} {
		g.advance(step.after)
		c.wantSecret(alice)
		if same := backend.last().Get(assertion.Header) == first.Get(assertion.Header); same != step.same {
			t.Errorf("%v later it is the same: %v", step.after, same)
		}
	}
	// A program with a token has the session of its own.
	if got := c.do("POST", "/tokens", "", ""); got.status != 200 {
		t.Fatal(got)
	}
	var minted struct{ Token string }
	for token := range backend.tokens {
		minted.Token = token
	}
	program := g.client(t)
	program.header.Set("X-Token", minted.Token)
	program.wantSecret(alice)
	if of := told(t, g, backend.last()); of["sub"] != alice || of["sid"] == says["sid"] {
		t.Errorf("of a token it says %v", of)
	}
	// Who was asked for more by a decision is in, with a word of doubt.
	if _, _, err := g.core.RegisterDecision(t.Context(), policies.Decision{
		Scope: policies.ScopeAccount, Value: alice, Action: rules.StepUp, Until: g.clock().Add(time.Hour), Reason: "test", Origin: policies.OriginOperator, By: "ops",
	}); err != nil {
		t.Fatal(err)
	}
	g.advance(20 * time.Second)
	c.wantSecret(alice)
	if risk := told(t, g, backend.last())["risk"]; risk != "elevated" {
		t.Errorf("risk %v", risk)
	}
	if got := c.do("POST", "/logout", "", ""); got.status != 204 {
		t.Fatal(got)
	}
	c.get("/hello")
	if says := told(t, g, backend.last()); says != nil {
		t.Errorf("after the end it says %v", says)
	}
}

// TestAssertionOfOwnRequests: what the gate asks for itself is good for that alone.
func TestAssertionOfOwnRequests(t *testing.T) {
	backend := newHostile()
	g := newGate(t, "hostile", backend, asserting)
	c := g.client(t)
	if got := c.login(alice, "correct-alice"); got.status != 200 {
		t.Fatal(got)
	}
	at := slices.Index(backend.paths, "GET /me")
	if at < 0 {
		t.Fatalf("not asked: %v", backend.paths)
	}
	says := told(t, g, backend.seen[at])
	if says["htm"] != "GET" || says["htu"] != "https://chat.example.com/me" || says["sub"] != nil || says["sid"] != nil || says["aud"] != "chat" {
		t.Errorf("it says %v", says)
	}
}

// TestForgedAssertion: nothing under our name reaches the backend but ours, whatever
// clients do.
func TestForgedAssertion(t *testing.T) {
	backend := newHostile()
	trailers := make(chan http.Header, 1)
	g := newGate(t, "hostile", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		backend.ServeHTTP(w, r)
		if r.URL.Path == "/trailers" {
			trailers <- r.Trailer
		}
	}), asserting)
	c := g.client(t)
	if got := c.login(alice, "correct-alice"); got.status != 200 {
		t.Fatal(got)
	}
	c.wantSecret(alice)
	ours := backend.last().Get(assertion.Header)
	stranger := g.client(t)
	for _, test := range []struct {
		name   string
		header http.Header
	}{
		{"a made-up one", http.Header{assertion.Header: {"e30.e30.e30"}}},
		{"a copy of somebody's", http.Header{assertion.Header: {ours}}},
		{"two", http.Header{assertion.Header: {ours, ours}}},
		{"in small letters", http.Header{"kidoban-assertion": {ours}}},
		{"as CGI reads it", http.Header{"Kidoban_Assertion": {ours}}},
		{"of another name of ours", http.Header{"Kidoban-Account": {mallory}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for who, client := range map[string]*client{"": stranger, alice: c} {
				client.header = test.header
				client.get("/hello")
				client.header = nil
				got := backend.last()
				for name := range got {
					if who == "" && strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), "kidoban-") {
						t.Errorf("%s passed: %q", name, got[name])
					}
				}
				if says := told(t, g, got); who != "" && says["sub"] != who {
					t.Errorf("of %s it says %v", who, says)
				}
			}
		})
	}
	t.Run("in trailers", func(t *testing.T) {
		r, err := http.NewRequest("POST", g.URL+"/trailers", io.MultiReader(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{assertion.Header: {ours}, "X-Sum": {"1"}}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := <-trailers; len(got) != 1 || slices.Collect(maps.Keys(got))[0] != "X-Sum" {
			t.Errorf("passed: %v", got)
		}
	})
	// A client can have a proxy drop a header, by calling it one of the connection.
	for _, line := range []string{"Kidoban-Assertion", "keep-alive, kidoban-assertion", "kidoban-assertion ,X-One"} {
		t.Run("Connection: "+line, func(t *testing.T) {
			c.header = http.Header{"Connection": {line}}
			c.get("/hello")
			c.header = nil
			if says := told(t, g, backend.last()); says["sub"] != alice {
				t.Errorf("it says %v", says)
			}
		})
	}
}

func TestNothingIsAsserted(t *testing.T) {
	for name, options := range map[string][]option{
		"unless asked for":            nil,
		"where sessions only observe": {asserting, observing(t)},
	} {
		t.Run(name, func(t *testing.T) {
			backend := newHostile()
			g := newGate(t, "hostile", backend, options...)
			c := g.client(t)
			if got := c.login(alice, "correct-alice"); got.status != 200 {
				t.Fatal(got)
			}
			c.wantSecret(alice)
			for i, h := range backend.seen {
				if h.Get(assertion.Header) != "" {
					t.Errorf("%s carries an assertion", backend.paths[i])
				}
			}
			if got := c.get("/.kidoban/jwks.json"); strings.Contains(got.body, "keys") {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}

func TestAssertionKeysAreServed(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), asserting)
	for _, test := range []struct {
		method string
		status int
		body   bool
	}{{"GET", 200, true}, {"HEAD", 200, false}, {"POST", 405, true}} {
		got := g.client(t).do(test.method, "/.kidoban/jwks.json", "", "")
		if got.status != test.status || (got.body != "") != test.body {
			t.Errorf("%s: %d %q", test.method, got.status, got.body)
		}
		if test.status == 200 && (got.header.Get("Content-Type") != "application/jwk-set+json" || got.header.Get("Cache-Control") != "public, max-age=300") {
			t.Errorf("%s: %v", test.method, got.header)
		}
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(g.client(t).get("/.kidoban/jwks.json").body), &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		if got := fmt.Sprint(k["kty"], k["crv"], k["alg"], k["use"], k["d"]); got != "OKPEd25519EdDSAsig<nil>" {
			t.Errorf("%v", k)
		}
	}
}
