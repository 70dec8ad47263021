//go:build linux

package bench

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

const (
	password = "correct horse battery staple"
	account  = "ueno@example.com"

	// thing is what the measured request gets: about 200 bytes.
	thing = `{"id":4711,"room":"2026-11 Launch","author":{"account_id":1,"name":"Ueno Sakura"},` +
		`"text":"The minutes are in the folder; please read them before Thursday.","sent":1795424400,"read":true,"unread":0}` + "\n"
)

// backend is a service as policies/backends/chatcore.yaml describes it, as small
// as can be: a login, whose it is, and one thing to read with a session.
type backend struct {
	mu       sync.Mutex
	sessions map[string]bool // guarded by mu; one for each log-in of a run
}

func (b *backend) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", b.logIn)
	mux.HandleFunc("GET /v2/me", b.guarded(`{"account_id":1,"organization_id":1,"login_mail":"`+account+`","mail":"`+account+`","language":"ja","time_zone":"Asia/Tokyo"}`+"\n"))
	mux.HandleFunc("GET /api/thing", b.guarded(thing))
	return mux
}

func (b *backend) logIn(w http.ResponseWriter, r *http.Request) {
	var who struct{ Email, Password string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&who); err != nil || who.Email != account || who.Password != password {
		answer(w, http.StatusUnauthorized, `{"errors":["Invalid email or password"]}`+"\n")
		return
	}
	session := rand.Text()
	b.mu.Lock()
	b.sessions[session] = true
	b.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: "chat_session", Value: session, Path: "/", HttpOnly: true})
	answer(w, http.StatusOK, `{"account_id":1}`+"\n")
}

// guarded answers body to who is logged in.
func (b *backend) guarded(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		known := false
		if c, err := r.Cookie("chat_session"); err == nil {
			b.mu.Lock()
			known = b.sessions[c.Value] || strings.HasPrefix(c.Value, seeded)
			b.mu.Unlock()
		}
		if !known {
			answer(w, http.StatusUnauthorized, `{"errors":["Log in first"]}`+"\n")
			return
		}
		answer(w, http.StatusOK, body)
	}
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(body))
}

// serveBackend tells its address on standard output and serves until it is killed.
func serveBackend() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	os.Stdout.Close()
	return http.Serve(l, (&backend{sessions: make(map[string]bool)}).handler())
}
