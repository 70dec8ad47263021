package api_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/api"
	"github.com/kidoban/kidoban/gateway/once"
)

func TestOnlyOperators(t *testing.T) {
	for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + key, key, "Bearer " + key + "x", "AWS4-HMAC-SHA256 nonsense"} {
		s := newServer(t)
		for _, call := range []string{"GET /v1/health", "GET /v1/decisions", "POST /v1/decisions", "DELETE /v1/accounts/1/sessions", "GET /v1/openapi.yaml", "GET /nothing", "OPTIONS /v1/health", "PUT /v1/health"} {
			method, path, _ := strings.Cut(call, " ")
			if w := s.do(newCall(method, path, "", "Authorization", authorization)); w.Code != http.StatusForbidden {
				t.Errorf("%s with %q = %d, want 403", call, authorization, w.Code)
			}
		}
		if !strings.Contains(s.log.String(), `"reason":"`) {
			t.Error("the log does not have the reason")
		}
	}
	// Two Authorization headers are none.
	r := newCall("GET", "/v1/health", "")
	r.Header.Add("Authorization", "Bearer "+key)
	if w := newServer(t).do(r); w.Code != 403 {
		t.Errorf("two keys = %d, want 403", w.Code)
	}
}

func TestRoles(t *testing.T) {
	s := newServer(t)
	viewer := []string{"Authorization", "Bearer " + viewerKey}
	for _, target := range []string{"/v1/decisions", "/v1/health", "/v1/events", "/v1/report", "/v1/accounts/1/sessions", "/v1/openapi.yaml"} {
		if w := s.do(newCall("GET", target, "", viewer...)); w.Code != 200 {
			t.Errorf("a viewer reads %s: %d, want 200", target, w.Code)
		}
	}
	for _, call := range [][3]string{{"POST", "/v1/decisions", registration}, {"DELETE", "/v1/decisions/x"}, {"DELETE", "/v1/sessions/x"}, {"DELETE", "/v1/accounts/1/sessions"}} {
		if w := s.do(newCall(call[0], call[1], call[2], viewer...)); w.Code != 403 || !strings.Contains(w.Body.String(), "x-problems/role") {
			t.Errorf("a viewer acts: %s %s = %d %s, want 403", call[0], call[1], w.Code, w.Body)
		}
	}
	if w := s.do(newCall("POST", "/v1/decisions", registration, "Authorization", "Bearer "+agedKey)); w.Code != 201 {
		t.Errorf("an admin acts: %d, want 201", w.Code)
	}
}

func TestKeysExpire(t *testing.T) {
	s := newServer(t)
	good := func() (int, int) {
		r := newCall("GET", "/v1/health", "")
		signCall(r, "KIDOBANTESTOLGA", secret, "kidoban", s.now(), "")
		return s.do(newCall("GET", "/v1/health", "", "Authorization", "Bearer "+agedKey)).Code, s.do(r).Code
	}
	s.advance(time.Hour - time.Nanosecond)
	if bearer, signed := good(); bearer != 200 || signed != 200 {
		t.Errorf("before they expire: %d, %d", bearer, signed)
	}
	s.advance(time.Nanosecond)
	if bearer, signed := good(); bearer != 403 || signed != 403 {
		t.Errorf("when they expired: %d, %d, want 403", bearer, signed)
	}
	if !strings.Contains(s.log.String(), "expired_key") {
		t.Error("the log does not say that the key expired")
	}
}

// signCall signs as the specification has it, apart from the code under test.
func signCall(r *http.Request, id, secret, service string, at time.Time, body string) {
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	hash := func(text string) string { s := sha256.Sum256([]byte(text)); return hex.EncodeToString(s[:]) }
	date := at.UTC().Format("20060102T150405Z")
	scope := date[:8] + "/ap-northeast-1/" + service + "/aws4_request"
	r.Header.Set("X-Amz-Date", date)
	canonical := strings.Join([]string{r.Method, strings.ReplaceAll(r.URL.EscapedPath(), "%", "%25"), r.URL.Query().Encode(), "host:" + r.Host, "x-amz-date:" + date, "", "host;x-amz-date", hash(body)}, "\n")
	k := mac(mac(mac(mac([]byte("AWS4"+secret), date[:8]), "ap-northeast-1"), service), "aws4_request")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+id+"/"+scope+", SignedHeaders=host;x-amz-date, Signature="+
		hex.EncodeToString(mac(k, "AWS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+hash(canonical))))
}

func TestSignedCalls(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*http.Request, *server)
		want   int
		detail string
	}{
		{"as signed", func(*http.Request, *server) {}, 201, ""},
		{"for the other service", func(r *http.Request, s *server) { signCall(r, accessKey, secret, "execute-api", s.now(), registration) }, 201, ""},
		{"for another service", func(r *http.Request, s *server) { signCall(r, accessKey, secret, "s3", s.now(), registration) }, 403, `sign for \"kidoban\"`},
		{"unsigned", func(r *http.Request, _ *server) { r.Header.Del("Authorization") }, 403, ""},
		{"wrong secret", func(r *http.Request, s *server) { signCall(r, accessKey, secret+"x", "kidoban", s.now(), registration) }, 403, ""},
		{"unknown key", func(r *http.Request, s *server) {
			signCall(r, "KIDOBANNOBODY", secret, "kidoban", s.now(), registration)
		}, 403, ""},
		{"old date", func(r *http.Request, s *server) {
			signCall(r, accessKey, secret, "kidoban", s.now().Add(-5*time.Minute-time.Second), registration)
		}, 403, ""},
		{"early date", func(r *http.Request, s *server) {
			signCall(r, accessKey, secret, "kidoban", s.now().Add(5*time.Minute+time.Second), registration)
		}, 403, ""},
		{"changed body", func(r *http.Request, _ *server) {
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(registration, "203.0.113.7", "203.0.113.8", 1)))
		}, 403, ""},
		{"changed path", func(r *http.Request, _ *server) { r.RequestURI, r.URL.Path = "/v1/health", "/v1/health" }, 403, ""},
		{"changed query", func(r *http.Request, _ *server) { r.RequestURI += "?a=1"; r.URL.RawQuery = "a=1" }, 403, ""},
		{"changed method", func(r *http.Request, _ *server) { r.Method = "DELETE" }, 403, ""},
		{"changed host", func(r *http.Request, _ *server) { r.Host = "elsewhere.example" }, 403, ""},
		{"unsigned payload", func(r *http.Request, _ *server) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") }, 403, "payloads"},
		{"presigned", func(r *http.Request, _ *server) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0"
			r.RequestURI += "?" + r.URL.RawQuery
		}, 403, "Authorization header"},
		{"too large", func(r *http.Request, _ *server) {
			r.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", 70_000)))
		}, 413, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t)
			r := newCall("POST", "/v1/decisions", registration)
			signCall(r, accessKey, secret, "kidoban", s.now(), registration)
			test.change(r, s)
			w := s.do(r)
			if w.Code != test.want || !strings.Contains(w.Body.String(), test.detail) {
				t.Errorf("= %d %s, want %d with %s", w.Code, w.Body, test.want, test.detail)
			}
		})
	}
}

func TestUnknownKeyAndWrongSignatureAnswerTheSame(t *testing.T) {
	answer := func(id, with string) string {
		s := newServer(t)
		r := newCall("GET", "/v1/health", "")
		signCall(r, id, with, "kidoban", s.now(), "")
		w := s.do(r)
		body := w.Body.String()
		return strconv.Itoa(w.Code) + body[:strings.Index(body, `"instance"`)]
	}
	if wrong, unknown := answer(accessKey, "wrong"), answer("KIDOBANNOBODY", secret); wrong != unknown {
		t.Errorf("a wrong signature is answered %s, an unknown key %s", wrong, unknown)
	}
}

// TestReplayedCalls sends each signed call twice, the second time also to another
// node that shares what is remembered.
func TestReplayedCalls(t *testing.T) {
	a := newServer(t)
	b := newServer(t, func(s *server) { s.api.Once = a.api.Once })
	for _, method := range []string{"GET", "POST"} {
		body := ""
		if method == "POST" {
			body = registration
		}
		send := func(s *server) int {
			r := newCall(method, "/v1/decisions", body)
			signCall(r, accessKey, secret, "kidoban", a.now(), body)
			return s.do(r).Code
		}
		if first := send(a); first >= 300 {
			t.Fatalf("%s = %d", method, first)
		}
		if again, other := send(a), send(b); again != 403 || other != 403 {
			t.Errorf("%s replayed = %d here, %d elsewhere, want 403", method, again, other)
		}
		a.advance(time.Second)
		if next := send(a); next >= 300 {
			t.Errorf("%s a second later = %d", method, next)
		}
	}
}

// away is a store that is away.
type away struct{ once.Store }

func (away) Seen(context.Context, string, time.Time) (bool, error) { return false, errAway }

func (away) Begin(context.Context, once.Act, once.Request) (once.Progress, once.Answer, error) {
	return once.New, once.Answer{}, errAway
}

func TestReplayUnknownRefuses(t *testing.T) {
	s := newServer(t, func(s *server) { s.api.Once = away{} })
	r := newCall("GET", "/v1/decisions", "")
	signCall(r, accessKey, secret, "kidoban", s.now(), "")
	if w := s.do(r); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("= %d, want 503 while nobody knows", w.Code)
	}
	if w := s.do(newCall("POST", "/v1/decisions", registration, "Idempotency-Key", "k")); w.Code != 503 {
		t.Errorf("= %d, want 503 while nobody knows", w.Code)
	}
	if w := s.do(newCall("GET", "/v1/decisions", "")); w.Code != 200 {
		t.Errorf("a key needs no memory of signatures: %d", w.Code)
	}
}

func TestFailuresAreLimited(t *testing.T) {
	source := netip.MustParseAddr("198.51.100.1")
	s := newServer(t, func(s *server) { s.api.Source = func(*http.Request) netip.Addr { return source } })
	wrong := func() *httptest.ResponseRecorder {
		return s.do(newCall("GET", "/v1/health", "", "Authorization", "Bearer wrong"))
	}
	for i := range 10 {
		if w := wrong(); w.Code != 403 {
			t.Fatalf("failure %d = %d, want 403", i+1, w.Code)
		}
	}
	logged := strings.Count(s.log.String(), "unknown_key")
	for range 5 {
		if w := wrong(); w.Code != 429 || w.Header().Get("Retry-After") != "6" {
			t.Errorf("= %d %v, want 429 for 6 s", w.Code, w.Header())
		}
	}
	if got := strings.Count(s.log.String(), "unknown_key"); logged != 10 || got != 10 {
		t.Errorf("%d and then %d failures were logged, want 10", logged, got)
	}
	// A right key and a right signature are let in.
	if w := s.do(newCall("GET", "/v1/health", "")); w.Code != 200 {
		t.Errorf("an operator at that address = %d, want 200", w.Code)
	}
	r := newCall("GET", "/v1/health", "")
	signCall(r, accessKey, secret, "kidoban", s.now(), "")
	if w := s.do(r); w.Code != 200 {
		t.Errorf("an operator at that address who signs = %d, want 200", w.Code)
	}
	source = netip.MustParseAddr("198.51.100.2")
	if w := wrong(); w.Code != 403 {
		t.Errorf("another source = %d, want 403", w.Code)
	}
	source = netip.MustParseAddr("198.51.100.1")
	s.advance(6 * time.Second)
	if w := wrong(); w.Code != 403 || !strings.Contains(s.log.String(), `"unlogged":5`) {
		t.Errorf("6 s later = %d, want 403 and the count of what was not logged", w.Code)
	}
	if w := wrong(); w.Code != 429 {
		t.Errorf("one more = %d, want 429", w.Code)
	}
	// A flood of sources is bounded and shares one budget.
	for i := range 5000 {
		source = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		newAnswer := httptest.NewRecorder()
		s.ServeHTTP(newAnswer, newCall("GET", "/v1/health", "", "Authorization", "Bearer wrong"))
	}
	if w := s.do(newCall("GET", "/v1/health", "")); w.Code != 200 {
		t.Errorf("an operator among a flood = %d, want 200", w.Code)
	}
}

func TestOperatorsAreChecked(t *testing.T) {
	good := api.Key{Name: "a", Role: api.Viewer, Hash: api.HashKey(key)}
	for _, test := range []struct {
		name    string
		keys    []api.Key
		signing []api.SigningKey
		want    string
	}{
		{"good", []api.Key{good}, []api.SigningKey{{Name: "a", Role: api.Admin, ID: "X", Secret: secret}}, ""},
		{"no name", []api.Key{{Role: api.Viewer}}, nil, "name"},
		{"no role", []api.Key{{Name: "a"}}, nil, "role"},
		{"one key for two", []api.Key{good, {Name: "b", Role: api.Viewer, Hash: good.Hash}}, nil, "same key"},
		{"no id", nil, []api.SigningKey{{Name: "a", Role: api.Admin}}, "id"},
		{"one id for two", nil, []api.SigningKey{{Name: "a", Role: api.Admin, ID: "X"}, {Name: "b", Role: api.Admin, ID: "X"}}, "same access key id"},
	} {
		_, err := api.NewOperators(test.keys, test.signing)
		if err == nil != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error = %v, want %q", test.name, err, test.want)
		}
	}
	for role, want := range map[string]api.Role{"": api.Responder, "viewer": api.Viewer, "responder": api.Responder, "admin": api.Admin, "root": 0} {
		if got, err := api.ParseRole(role); got != want || (err == nil) != (want != 0) {
			t.Errorf("role %q = %v, %v", role, got, err)
		}
	}
	for secret, ok := range map[string]bool{secret: true, key: true, "tiny!": false, strings.Repeat("ab", 20): false, key + " ": false, key + "é": false} {
		if err := api.CheckSecret(secret); (err == nil) != ok || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("secret of %d characters: error = %v, want good: %v", len(secret), err, ok)
		}
	}
}

var errAway = errors.New("the database is away")
