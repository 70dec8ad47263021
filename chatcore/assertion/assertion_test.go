package assertion_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kidoban/kidoban/chatcore/assertion"
)

const (
	issuer   = "https://chat.example.com"
	audience = "chat"
)

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// gateway signs as a gateway does, and publishes its keys in a file.
type gateway struct {
	t       testing.TB
	private ed25519.PrivateKey
	id      string
	file    string
}

func newGateway(t testing.TB) *gateway {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, private: private, id: "key-1", file: filepath.Join(t.TempDir(), "jwks.json")}
	g.publish(g.public())
	return g
}

func (g *gateway) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: g.private.Public(), KeyID: g.id, Algorithm: "EdDSA", Use: "sig"}
}

func (g *gateway) publish(keys ...jose.JSONWebKey) {
	g.t.Helper()
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(g.file, data, 0o600); err != nil {
		g.t.Fatal(err)
	}
}

type object map[string]any

func (o object) with(name string, value any) object {
	changed := maps.Clone(o)
	if changed[name] = value; value == nil {
		delete(changed, name)
	}
	return changed
}

func (g *gateway) head() object { return object{"alg": "EdDSA", "typ": "kidoban+jwt", "kid": g.id} }

func claims() object {
	return object{"iss": issuer, "aud": audience, "sub": "7", "iat": start.Unix(), "exp": start.Unix() + 60, "jti": "x"}
}

func part(v any) string {
	data, ok := v.([]byte)
	if !ok {
		data, _ = json.Marshal(v)
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// sign signs by hand, so that anything can be signed.
func (g *gateway) sign(head, claims any) string {
	input := part(head) + "." + part(claims)
	return input + "." + part(ed25519.Sign(g.private, []byte(input)))
}

func (g *gateway) verifier(now func() time.Time) *assertion.Verifier {
	g.t.Helper()
	v, err := assertion.New(assertion.Config{Keys: g.file, Issuer: issuer, Audience: audience, Now: now})
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func request(lines ...string) *http.Request {
	r := httptest.NewRequest("GET", "http://backend.internal/v2/me?x=1", nil)
	r.Header["Kidoban-Assertion"] = lines
	return r
}

func TestVerify(t *testing.T) {
	g := newGateway(t)
	own := claims().with("sub", nil).with("htm", "GET").with("htu", issuer+"/v2/me")
	for _, test := range []struct {
		name string
		said object
		now  time.Time
		want string // part of the error; empty: none
	}{
		{"now", claims(), start, ""},
		{"to several services", claims().with("aud", []string{"wiki", "chat"}), start, ""},
		{"a gateway's clock 30 s ahead", claims(), start.Add(-30 * time.Second), ""},
		{"a gateway's clock 31 s ahead", claims(), start.Add(-31 * time.Second), "of the future"},
		{"29 s after its end", claims(), start.Add(89 * time.Second), ""},
		{"30 s after its end", claims(), start.Add(90 * time.Second), "is over"},
		{"a gateway's own request", own, start, ""},

		{"another issuer", claims().with("iss", "https://chat.example.net"), start, "another issuer"},
		{"no issuer", claims().with("iss", nil), start, "another issuer"},
		{"an issuer that begins alike", claims().with("iss", issuer+".evil.example"), start, "another issuer"},
		{"another service", claims().with("aud", "wiki"), start, "another service"},
		{"no service", claims().with("aud", nil), start, "another service"},
		{"a service in parts", claims().with("aud", object{"chat": 1}), start, "wrong form"},
		{"no end", claims().with("exp", nil), start, "lacks iat or exp"},
		{"no beginning", claims().with("iat", nil), start, "lacks iat or exp"},
		{"an end in words", claims().with("exp", "tomorrow"), start, "wrong form"},
		{"an end far away", claims().with("exp", start.Unix()+301), start, "for more than 5m"},
		{"an end beyond all numbers", claims().with("exp", 1e300), start, "wrong form"},
		{"an end at the last number", claims().with("iat", 0).with("exp", int64(1<<63-1)), start, "for more than 5m"},
		{"a beginning at the first number", claims().with("iat", int64(-1<<63)), start, "of the future"},
		{"an end before the beginning", claims().with("exp", start.Unix()-1), start, "for no time"},
		{"about nobody", claims().with("sub", nil), start, "about nobody"},
		{"about a number", claims().with("sub", 7), start, "wrong form"},
		{"the gateway's own request by another method", own.with("htm", "POST"), start, "for another request"},
		{"the gateway's own request to another path", own.with("htu", issuer+"/v2/rooms"), start, "for another request"},
		{"the gateway's own request to nowhere", own.with("htu", nil), start, "for another request"},
		{"the gateway's own request to another site", own.with("htu", "https://chat.example.net/v2/me"), start, "for another request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			said, err := g.verifier(at(test.now)).Verify(request(g.sign(g.head(), test.said)))
			if !is(err, test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			want, _ := test.said["sub"].(string)
			if test.want != "" {
				want = ""
			}
			if said.Subject != want {
				t.Errorf("about %q, want %q", said.Subject, want)
			}
		})
	}
}

// is reports whether an error says what is wanted.
func is(err error, want string) bool {
	if err == nil || want == "" {
		return err == nil && want == ""
	}
	return strings.Contains(err.Error(), want)
}

// TestForgeries is what ASVS 5.0 sections 9.1 and 9.2 and RFC 8725 warn of.
func TestForgeries(t *testing.T) {
	g, thief := newGateway(t), newGateway(t)
	public := g.private.Public().(ed25519.PublicKey)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rs256 := func(head object) string {
		input := part(head) + "." + part(claims())
		sum := crypto.SHA256.New()
		sum.Write([]byte(input))
		sig, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, sum.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		return input + "." + part(sig)
	}
	hs256 := func(head object, secret []byte) string {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, (&jose.SignerOptions{}).WithHeader("kid", head["kid"]).WithHeader("typ", head["typ"]))
		if err != nil {
			t.Fatal(err)
		}
		payload, err := json.Marshal(claims())
		if err != nil {
			t.Fatal(err)
		}
		signed, err := s.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		text, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	servedKeys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("an address in a header was asked for keys")
	}))
	defer servedKeys.Close()
	good := g.sign(g.head(), claims())
	dot := strings.LastIndex(good, ".")
	var full bytes.Buffer
	json.NewEncoder(&full).Encode(object{"payload": strings.Split(good, ".")[1], "protected": strings.Split(good, ".")[0], "signature": good[dot+1:]})
	for _, test := range []struct {
		name  string
		lines []string
	}{
		{"none at all", nil},
		{"empty", []string{""}},
		{"two", []string{good, good}},
		{"two in one line", []string{good + ", " + good}},
		{"noise", []string{"kidoban"}},
		{"too long", []string{g.sign(g.head(), claims().with("org", strings.Repeat("A", 4096)))}},
		{"as JSON", []string{full.String()}},
		{"alg none, no signature", []string{part(g.head().with("alg", "none")) + "." + part(claims()) + "."}},
		{"alg nOnE, the old signature", []string{part(g.head().with("alg", "nOnE")) + "." + part(claims()) + good[dot:]}},
		{"no alg", []string{g.sign(g.head().with("alg", nil), claims())}},
		{"no signature", []string{good[:dot+1]}},
		{"the signature of another statement", []string{part(g.head()) + "." + part(claims().with("sub", "8")) + good[dot:]}},
		{"a bit of the signature", []string{good[:len(good)-4] + "AAAA"}},
		{"HS256 with the public key as the secret", []string{hs256(g.head(), public)}},
		{"HS256 with the public key in DER as the secret", []string{hs256(g.head(), der)}},
		{"RS256", []string{rs256(g.head().with("alg", "RS256"))}},
		{"RS256 that says EdDSA", []string{rs256(g.head())}},
		{"ES256 that is EdDSA", []string{g.sign(g.head().with("alg", "ES256"), claims())}},
		{"somebody's key under the id", []string{thief.sign(g.head(), claims())}},
		{"somebody's key by its own id", []string{thief.sign(g.head().with("kid", "thief"), claims())}},
		{"somebody's key in the header (jwk)", []string{thief.sign(g.head().with("jwk", thief.public()), claims())}},
		{"somebody's key in the header alone", []string{thief.sign(g.head().with("kid", nil).with("jwk", thief.public()), claims())}},
		{"somebody's set (jku)", []string{thief.sign(g.head().with("jku", servedKeys.URL), claims())}},
		{"somebody's certificate (x5u)", []string{thief.sign(g.head().with("x5u", servedKeys.URL), claims())}},
		{"no id", []string{g.sign(g.head().with("kid", nil), claims())}},
		{"an id that is a path", []string{g.sign(g.head().with("kid", "../../../dev/null"), claims())}},
		{"another type of token", []string{g.sign(g.head().with("typ", "JWT"), claims())}},
		{"no type", []string{g.sign(g.head().with("typ", nil), claims())}},
		{"a critical header that nobody knows", []string{g.sign(g.head().with("crit", []string{"exp2"}).with("exp2", 1), claims())}},
		{"claims that are no JSON", []string{g.sign(g.head(), []byte("sub=7"))}},
		{"claims that are a list", []string{g.sign(g.head(), []object{claims()})}},
	} {
		t.Run(test.name, func(t *testing.T) {
			said, err := g.verifier(at(start)).Verify(request(test.lines...))
			if err == nil || said != (assertion.Statement{}) {
				t.Fatalf("accepted as %+v", said)
			}
			if errors.Is(err, assertion.ErrKeys) {
				t.Errorf("%v is not the request's fault", err)
			}
			for _, line := range test.lines {
				for _, part := range strings.Split(line, ".") {
					if len(part) > 10 && strings.Contains(err.Error(), part) {
						t.Errorf("%v repeats what came", err)
					}
				}
			}
		})
	}
	// Headers that lead to keys count for nothing beside a signature that is good.
	for _, name := range []string{"jku", "x5u"} {
		if _, err := g.verifier(at(start)).Verify(request(g.sign(g.head().with(name, servedKeys.URL), claims()))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := g.verifier(at(start)).Verify(request(good)); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// TestKeySets reads what may be published.
func TestKeySets(t *testing.T) {
	g := newGateway(t)
	good, err := json.Marshal(g.public())
	if err != nil {
		t.Fatal(err)
	}
	private, err := json.Marshal(jose.JSONWebKey{Key: g.private, KeyID: g.id})
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := `{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"}`
	for _, test := range []struct {
		name, set, want string
	}{
		{"one key", `{"keys":[` + string(good) + `]}`, ""},
		{"beside others", `{"keys":[` + rsaKey + `,{"kty":"oct","kid":"o","k":"AAAA"},{"kty":"new"},` + string(good) + `]}`, ""},
		{"others alone", `{"keys":[` + rsaKey + `]}`, "no public Ed25519 key"},
		{"none", `{"keys":[]}`, "no public Ed25519 key"},
		{"for encryption", `{"keys":[` + strings.Replace(string(good), `"sig"`, `"enc"`, 1) + `]}`, "no public Ed25519 key"},
		{"private", `{"keys":[` + string(private) + `]}`, "is not a public Ed25519 key"},
		{"twice the id", `{"keys":[` + string(good) + `,` + string(good) + `]}`, "id of its own"},
		{"without an id", `{"keys":[` + strings.Replace(string(good), `"kid":"key-1",`, ``, 1) + `]}`, "id of its own"},
		{"too short", `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AAAA"}]}`, "is not a public Ed25519 key"},
		{"too many", `{"keys":[` + strings.Repeat(rsaKey+`,`, 32) + string(good) + `]}`, "want at most 32"},
		{"too large", `{"keys":[` + string(good) + `]}` + strings.Repeat(" ", 64<<10), "more than 65536 bytes"},
		{"a page", `<html>`, "not a JWK set"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(g.file, []byte(test.set), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := assertion.New(assertion.Config{Keys: g.file, Issuer: issuer, Audience: audience}); !is(err, test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	file := newGateway(t).file
	for _, test := range []struct {
		config assertion.Config
		want   string
	}{
		{assertion.Config{Keys: "https://chat.example.com/.kidoban/jwks.json", Issuer: issuer, Audience: audience}, ""},
		{assertion.Config{Keys: "http://127.0.0.1:8080/keys", Issuer: issuer, Audience: audience}, ""},
		{assertion.Config{Keys: "http://[::1]:8080/keys", Issuer: issuer, Audience: audience}, ""},
		{assertion.Config{Keys: "http://gate.internal/keys", Issuer: issuer, Audience: audience}, "comes over plain http"},
		{assertion.Config{Keys: "http://localhost.evil.example/keys", Issuer: issuer, Audience: audience}, "comes over plain http"},
		{assertion.Config{Keys: "https://me:secret@gate.internal/keys", Issuer: issuer, Audience: audience}, "without a password"},
		{assertion.Config{Keys: "", Issuer: issuer, Audience: audience}, "the key set is missing"},
		{assertion.Config{Keys: file + ".none", Issuer: issuer, Audience: audience}, "no such file"},
		{assertion.Config{Keys: file, Audience: audience}, "issuer and audience"},
		{assertion.Config{Keys: file, Issuer: issuer}, "issuer and audience"},
	} {
		if _, err := assertion.New(test.config); !is(err, test.want) {
			t.Errorf("%+v: %v, want %q", test.config, err, test.want)
		}
	}
}

// published is a gateway's key set at a URL.
type published struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
}

func publish(t *testing.T, g *gateway) *published {
	t.Helper()
	p := new(published)
	p.set(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, g.file) })
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		(*p.answer.Load())(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *published) set(f http.HandlerFunc) { p.answer.Store(&f) }

// TestRefresh follows a key set through a gateway's life by a clock of its own.
func TestRefresh(t *testing.T) {
	g := newGateway(t)
	p := publish(t, g)
	p.set(http.NotFound)
	now := start
	v, err := assertion.New(assertion.Config{Keys: p.URL, Issuer: issuer, Audience: audience, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(kid string) error {
		t.Helper()
		_, err := v.Verify(request(g.sign(g.head().with("kid", kid), claims().with("iat", now.Unix()).with("exp", now.Unix()+60))))
		return err
	}
	step := func(after time.Duration, kid, want string, asked int64) {
		t.Helper()
		now = now.Add(after)
		before := p.asked.Load()
		err := verify(kid)
		if !is(err, want) {
			t.Errorf("%v: %v, want %q", now.Sub(start), err, want)
		}
		if errors.Is(err, assertion.ErrKeys) != (want == "cannot be had") {
			t.Errorf("%v: %v is of the wrong kind", now.Sub(start), err)
		}
		if n := p.asked.Load() - before; n != asked {
			t.Errorf("%v: asked %d times, want %d", now.Sub(start), n, asked)
		}
	}
	step(0, "key-1", "cannot be had", 1)
	step(500*time.Millisecond, "key-1", "cannot be had", 0) // once a second while there is none
	p.set(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, g.file) })
	step(500*time.Millisecond, "key-1", "", 1)
	step(time.Second, "key-1", "", 0)
	step(0, "made-up", "not in the set", 0) // once a minute from now on
	step(59*time.Second, "made-up", "not in the set", 1)
	for range 3 {
		step(time.Second, "made-up", "not in the set", 0)
	}

	// A new key is found at once, or within a minute of the last question.
	g.id = "key-2"
	g.publish(g.public())
	step(time.Minute, "key-2", "", 1)
	step(0, "key-1", "not in the set", 0) // it was withdrawn

	// Every five minutes it is asked, and what is known stays for an hour.
	step(4*time.Minute, "key-2", "", 0)
	p.set(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	step(time.Minute, "key-2", "", 1)
	step(time.Second, "key-2", "", 0)
	step(53*time.Minute, "key-2", "", 1)
	step(2*time.Minute, "key-2", "cannot be had", 1)
	p.set(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, g.file) })
	step(time.Minute, "key-2", "", 1)
	step(-30*time.Minute, "key-2", "", 1) // the clock went back
}

// TestHostileKeyServer: a key set is taken from its address and in its bounds only.
func TestHostileKeyServer(t *testing.T) {
	g := newGateway(t)
	elsewhere := publish(t, g)
	for name, answer := range map[string]http.HandlerFunc{
		"redirects":       func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"answers 204":     func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"breaks off":      func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"never ends":      func(w http.ResponseWriter, r *http.Request) { flood(w) },
		"answers a page":  func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") },
		"answers nothing": func(w http.ResponseWriter, r *http.Request) {},
	} {
		t.Run(name, func(t *testing.T) {
			p := publish(t, g)
			p.set(answer)
			v, err := assertion.New(assertion.Config{Keys: p.URL, Issuer: issuer, Audience: audience, Now: at(start)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(request(g.sign(g.head(), claims()))); !errors.Is(err, assertion.ErrKeys) {
				t.Errorf("%v", err)
			}
		})
	}
	if n := elsewhere.asked.Load(); n > 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
}

func flood(w http.ResponseWriter) {
	for block := bytes.Repeat([]byte(" "), 1<<16); ; {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// TestWaitingIsShared: who comes during a fetch waits for that one; known keys do not wait.
func TestWaitingIsShared(t *testing.T) {
	g := newGateway(t)
	p := publish(t, g)
	var now atomic.Int64
	v, err := assertion.New(assertion.Config{Keys: p.URL, Issuer: issuer, Audience: audience, Now: func() time.Time { return start.Add(time.Duration(now.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	good := func() error {
		t := start.Add(time.Duration(now.Load()))
		_, err := v.Verify(request(g.sign(g.head(), claims().with("iat", t.Unix()).with("exp", t.Unix()+60))))
		return err
	}
	if err := good(); err != nil {
		t.Fatal(err)
	}
	arrived, release := make(chan struct{}), make(chan struct{})
	p.set(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		http.ServeFile(w, r, g.file)
	})
	now.Store(int64(5 * time.Minute))
	results := make(chan error)
	go func() { results <- good() }()
	<-arrived
	if err := good(); err != nil { // while the other one fetches
		t.Error(err)
	}
	close(release)
	if err := <-results; err != nil {
		t.Error(err)
	}
	if n := p.asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

func FuzzVerify(f *testing.F) {
	g := newGateway(f)
	v := g.verifier(at(start))
	good := g.sign(g.head(), claims())
	f.Add(good)
	f.Add(g.sign(g.head().with("alg", "none"), claims()))
	f.Fuzz(func(t *testing.T, text string) {
		// Base64 has more than one spelling of the same bytes; what counts is what was said.
		if said, err := v.Verify(request(text)); err == nil && said.Subject != "7" {
			t.Errorf("%q is accepted as %+v", text, said)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	g := newGateway(b)
	v := g.verifier(at(start))
	r := request(g.sign(g.head(), claims()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(r); err != nil {
			b.Fatal(err)
		}
	}
}
