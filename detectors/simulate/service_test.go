package simulate_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors/simulate"
)

var (
	office = netip.MustParseAddr("198.18.0.1")
	thief  = netip.MustParseAddr("203.0.113.7")
)

// service is a chat service as small as can be.
type service struct {
	passwords map[string]string

	mu       sync.Mutex
	sessions map[string]string // guarded by mu
}

func newService(accounts ...[]simulate.Account) *service {
	s := &service{passwords: map[string]string{}, sessions: map[string]string{}}
	for _, some := range accounts {
		for _, a := range some {
			s.passwords[a.Name] = a.Password
		}
	}
	return s
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		var who struct{ Email, Password string }
		if json.NewDecoder(r.Body).Decode(&who) != nil || who.Password == "" || s.passwords[who.Email] != who.Password {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		id := fmt.Sprint(len(s.sessions))
		s.sessions[id] = who.Email
		http.SetCookie(w, &http.Cookie{Name: "chat_session", Value: id, Path: "/"})
		w.Write([]byte("{}"))
	})
	mux.HandleFunc("GET /v2/me", func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("chat_session")
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil || s.sessions[c.Value] == "" {
			http.Error(w, "{}", http.StatusUnauthorized)
		}
	})
	return mux
}

// people are n accounts with names that begin with prefix.
func people(prefix string, n int) []simulate.Account {
	all := make([]simulate.Account, n)
	for i := range all {
		all[i] = simulate.Account{Name: fmt.Sprintf("%s%d@acme.example", prefix, i), Password: fmt.Sprintf("right-%s-%d", prefix, i)}
	}
	return all
}

// problem answers as the gate does.
func problem(w http.ResponseWriter, status int, kind string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"/.kidoban/problems/%s","title":"No","status":%d}`, kind, status)
}

// stage is a pass of a small office and a short list.
func stage(t *testing.T, gate func(http.Handler) http.Handler) simulate.Pass {
	t.Helper()
	here, elsewhere := people("office", 50), people("other", 60)
	counter := new(simulate.Counter)
	h := counter.Handler(newService(here, elsewhere).handler())
	if gate != nil {
		h = gate(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return simulate.Pass{
		Entry:   simulate.Entry{URL: srv.URL},
		Office:  simulate.Office{People: here, Source: office, Mistype: 0.1},
		List:    simulate.List{Accounts: elsewhere, Pairs: 300, HitRate: 0.1, Source: thief},
		Window:  200 * time.Millisecond,
		Limit:   time.Minute, // whatever else the machine does, everybody gets his turn
		Seed:    1,
		Backend: counter,
	}
}

// isLogin reports whether r is a login from an address.
func isLogin(r *http.Request, from netip.Addr) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("X-Forwarded-For"), from.String())
}
