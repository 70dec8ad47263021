package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/password"
	"github.com/kidoban/kidoban/chatcore/web"
)

// site is a running service with two small companies in it.
type site struct {
	*httptest.Server
	t     testing.TB
	svc   *chatcore.Service
	mails string
	log   *lockedBuffer
	one   []chatcore.SeededAccount // of the first company
	two   []chatcore.SeededAccount // of the second
}

// cheap is a cost at which a test hashes thousands of passwords.
var cheap = password.Cost{Memory: 64, Time: 1, Threads: 1}

func newSite(t testing.TB) *site { return newSiteWith(t, web.Options{}) }

func newSiteWith(t testing.TB, o web.Options) *site {
	t.Helper()
	s := &site{t: t, mails: t.TempDir(), log: &lockedBuffer{}}
	log := slog.New(slog.NewJSONHandler(s.log, nil))
	var handler http.Handler
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	var err error
	s.svc, err = chatcore.Open(t.Context(), chatcore.Config{Path: filepath.Join(t.TempDir(), "chat.db"), PasswordCost: cheap,
		PublicURL: s.URL, MailDir: s.mails, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.svc.EndLive()
		s.Close()
		if err := s.svc.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	o.Log = log
	if handler, err = web.Handler(s.svc, o); err != nil {
		t.Fatal(err)
	}
	accounts, err := s.svc.Seed(t.Context(), chatcore.SeedOptions{Organizations: 2, Accounts: 30, Seed: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		if a.Organization == accounts[0].Organization {
			s.one = append(s.one, a)
		} else {
			s.two = append(s.two, a)
		}
	}
	return s
}

// lockedBuffer is a log that handlers write while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) cookie(name string) *http.Cookie {
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// do sends a request with header lines such as "Cookie: a=b". Redirects are
// not followed.
func (s *site) do(method, path, body string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Add(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

const (
	asForm = "Content-Type: application/x-www-form-urlencoded"
	asJSON = "Content-Type: application/json"
)

// form writes a form from names and values in turn.
func form(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

// login logs an account in and returns its cookie as a header line.
func (s *site) login(a chatcore.SeededAccount) string {
	s.t.Helper()
	got := s.do("POST", "/login", form("email", a.Email, "password", a.Password), asForm)
	c := got.cookie(web.SessionCookie)
	if got.status != http.StatusSeeOther || c == nil {
		s.t.Fatalf("login: %d %s", got.status, got.body)
	}
	return "Cookie: " + web.SessionCookie + "=" + c.Value
}

// token makes an API token and returns it as a header line.
func (s *site) token(cookie string) string {
	s.t.Helper()
	got := s.do("POST", "/v2/my/tokens", form("name", "test"), cookie, asForm)
	var t struct{ Token string }
	s.decode(got, 200, &t)
	return "X-ChatWorkToken: " + t.Token
}

// decode reads a JSON answer of the status wanted.
func (s *site) decode(got answer, status int, into any) {
	s.t.Helper()
	if got.status != status {
		s.t.Fatalf("status %d, want %d: %s", got.status, status, got.body)
	}
	if err := json.Unmarshal([]byte(got.body), into); err != nil {
		s.t.Fatalf("%v in %s", err, got.body)
	}
}

// company is the path of the room that everybody of a company is in.
func (s *site) company(of []chatcore.SeededAccount) string {
	s.t.Helper()
	var rooms []struct {
		ID   int64  `json:"room_id"`
		Name string `json:"name"`
	}
	s.decode(s.do("GET", "/v2/rooms", "", s.login(of[0])), 200, &rooms)
	for _, r := range rooms {
		if r.Name == "全社連絡" || r.Name == "Everybody" {
			return fmt.Sprint("/rooms/", r.ID)
		}
	}
	s.t.Fatal("no room for the company")
	return ""
}
