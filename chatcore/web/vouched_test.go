package web_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kidoban/kidoban/chatcore/assertion"
	"github.com/kidoban/kidoban/chatcore/web"
)

// gateway makes the assertions that a gateway in front would.
type gateway struct {
	t      testing.TB
	signer jose.Signer
}

func newGateway(t testing.TB) (*gateway, *assertion.Verifier) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: "1"}},
		new(jose.SignerOptions).WithType("kidoban+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := assertion.New(assertion.Config{Keys: file, Issuer: "https://chat.example", Audience: "chat"})
	if err != nil {
		t.Fatal(err)
	}
	return &gateway{t, signer}, v
}

// says is a header line that says it.
func (g *gateway) says(claims map[string]any) string {
	g.t.Helper()
	claims["iss"], claims["aud"] = "https://chat.example", "chat"
	claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Unix()+60
	payload, err := json.Marshal(claims)
	if err != nil {
		g.t.Fatal(err)
	}
	signed, err := g.signer.Sign(payload)
	if err != nil {
		g.t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		g.t.Fatal(err)
	}
	return "Kidoban-Assertion: " + text
}

// TestAroundTheGateway: where assertions are asked for, a session or a token is good
// only with one about its own account.
func TestAroundTheGateway(t *testing.T) {
	gate, v := newGateway(t)
	s := newSiteWith(t, web.Options{Assertions: v})
	one, two := s.one[0], s.one[1]
	var first, second struct {
		AccountID json.Number `json:"account_id"`
	}
	id := func(a *struct {
		AccountID json.Number `json:"account_id"`
	}, email, password string) string {
		got := s.do("POST", "/login", `{"email":"`+email+`","password":"`+password+`"}`, asJSON)
		s.decode(got, 200, a)
		return "Cookie: " + web.SessionCookie + "=" + got.cookie(web.SessionCookie).Value
	}
	cookie := id(&first, one.Email, one.Password) // a login needs none
	id(&second, two.Email, two.Password)
	of := func(a json.Number) string { return gate.says(map[string]any{"sub": a.String()}) }
	own := func(method, path string) string {
		return gate.says(map[string]any{"htm": method, "htu": "https://chat.example" + path})
	}
	var made struct{ Token string }
	s.decode(s.do("POST", "/v2/my/tokens", form("name", "test"), cookie, asForm, of(first.AccountID)), 200, &made)
	token, bearer := "X-ChatWorkToken: "+made.Token, "Authorization: Bearer "+made.Token

	const page = "Accept: text/html"
	for _, test := range []struct {
		name         string
		method, path string
		headers      []string
		want         int
	}{
		{"its own", "GET", "/v2/me", []string{cookie, of(first.AccountID)}, 200},
		{"its own, a token", "GET", "/v2/me", []string{token, of(first.AccountID)}, 200},
		{"its own, a page", "GET", "/rooms", []string{cookie, page, of(first.AccountID)}, 200},
		{"the gateway asks whose it is", "GET", "/v2/me", []string{cookie, own("GET", "/v2/me")}, 200},

		{"none", "GET", "/v2/me", []string{cookie}, 401},
		{"none, a token", "GET", "/v2/me", []string{token}, 401},
		{"none, a bearer", "GET", "/v2/me", []string{bearer}, 401},
		{"none, a page", "GET", "/rooms", []string{cookie, page}, 401},
		{"none, a form", "POST", "/account/language", []string{cookie, asForm}, 401},
		{"none, a logout", "POST", "/logout", []string{cookie, asForm}, 401},
		{"none, events", "GET", "/events/poll", []string{cookie}, 401},
		{"none, a socket", "GET", "/events/ws", []string{cookie, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}, 401},
		{"another account's", "GET", "/v2/me", []string{cookie, of(second.AccountID)}, 401},
		{"another account's, a token", "GET", "/v2/me", []string{token, of(second.AccountID)}, 401},
		{"an account that begins alike", "GET", "/v2/me", []string{cookie, of(first.AccountID + "0")}, 401},
		{"two", "GET", "/v2/me", []string{cookie, of(first.AccountID), of(first.AccountID)}, 401},
		{"the gateway's for another route", "GET", "/v2/rooms", []string{cookie, own("GET", "/v2/me")}, 401},
		{"its own with a session that is none", "GET", "/v2/me", []string{"Cookie: " + web.SessionCookie + "=nothing", of(first.AccountID)}, 401},
		{"its own without a credential", "GET", "/v2/me", []string{of(first.AccountID)}, 401},

		{"the page of the login", "GET", "/login", []string{cookie, page}, 200},
		{"the page of a reset", "GET", "/password/reset", []string{cookie, page}, 200},
		{"health", "GET", "/healthz", nil, 200},
		{"a page of nobody", "GET", "/rooms", []string{page}, 303},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := s.do(test.method, test.path, "", test.headers...)
			if got.status != test.want {
				t.Errorf("%d %s, want %d", got.status, got.body, test.want)
			}
		})
	}
	// A stolen session is no oracle: whether it is good cannot be told around the gateway.
	good, bad := s.do("GET", "/v2/me", "", cookie), s.do("GET", "/v2/me", "", "Cookie: "+web.SessionCookie+"=nothing")
	if good.status != bad.status || good.body != bad.body {
		t.Errorf("a good one: %d %s, a bad one: %d %s", good.status, good.body, bad.status, bad.body)
	}
	if !strings.Contains(s.log.String(), `"reason":"there is no assertion"`) || !strings.Contains(s.log.String(), `"reason":"the assertion is about another account"`) {
		t.Errorf("the log does not tell why: %s", s.log)
	}
}

// TestNoKeys: without keys nobody is let in, and it is not their fault.
func TestNoKeys(t *testing.T) {
	none := httptest.NewServer(http.NotFoundHandler())
	defer none.Close()
	v, err := assertion.New(assertion.Config{Keys: none.URL, Issuer: "https://chat.example", Audience: "chat"})
	if err != nil {
		t.Fatal(err)
	}
	gate, _ := newGateway(t)
	s := newSiteWith(t, web.Options{Assertions: v})
	cookie := s.login(s.one[0])
	if got := s.do("GET", "/v2/me", "", cookie, gate.says(map[string]any{"sub": "1"})); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %v", got.status, got.header)
	}
	if got := s.do("GET", "/v2/me", "", cookie); got.status != 401 {
		t.Errorf("%d", got.status)
	}
}
