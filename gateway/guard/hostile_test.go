package guard_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// hostile is a backend that tries to hand out authenticated answers by ways its
// preset does not know. It keeps real sessions, so that a test asserts on what a
// client was able to learn, not on what was arranged.
type hostile struct {
	keep    bool // keeps its anonymous cookie at login instead of making a new one
	rolling bool // makes a new cookie with each answer

	mu       sync.Mutex
	sessions map[string]string // cookie value -> account, "" for a visitor
	tokens   map[string]string // token -> account
	seen     []http.Header     // of each request
	bodies   []string
	paths    []string
	logins   int
}

func newHostile() *hostile {
	return &hostile{sessions: make(map[string]string), tokens: make(map[string]string)}
}

var passwords = map[string]string{"alice@example.com": "correct-alice", "mallory@example.com": "correct-mallory"}

func (h *hostile) fresh() string { return "s" + rand.Text() }

func (h *hostile) account(r *http.Request) (account, cookie string) {
	for _, c := range r.CookiesNamed("sid") { // the laxest reading: any of them
		if a, ok := h.sessions[c.Value]; ok && (account == "" || a != "") {
			account, cookie = a, c.Value
		}
	}
	if t := r.Header.Get("X-Token"); t != "" && h.tokens[t] != "" {
		account = h.tokens[t]
	}
	return account, cookie
}

// logIn makes the client's session one of account.
func (h *hostile) logIn(w http.ResponseWriter, cookie, account string) {
	if h.keep && cookie != "" {
		h.sessions[cookie] = account
		return
	}
	value := h.fresh()
	h.sessions[value] = account
	http.SetCookie(w, &http.Cookie{Name: "sid", Value: value, Path: "/", HttpOnly: true})
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, r.Header.Clone())
	h.bodies = append(h.bodies, string(body))
	h.paths = append(h.paths, r.Method+" "+r.URL.RequestURI())
	account, cookie := h.account(r)
	if h.rolling && account != "" && r.URL.Path != "/me" && r.URL.Path != "/logout" {
		value := h.fresh()
		h.sessions[value] = account
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: value, Path: "/"})
	}
	reply := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
	}
	check := func() (string, bool) {
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		name, password := r.PostFormValue("email"), r.PostFormValue("password")
		if strings.HasPrefix(strings.TrimSpace(string(body)), "{") {
			var in struct{ Email, Password string }
			json.Unmarshal(body, &in)
			name, password = in.Email, in.Password
		}
		return name, passwords[name] != "" && passwords[name] == password
	}
	switch r.URL.Path {
	case "/me":
		if account == "" {
			reply(401, map[string]string{"error": "who are you"})
			return
		}
		reply(200, map[string]string{"id": account, "org": "example", "mail": account})
	case "/login", "/api/v9/signin", "/Sign-In":
		if r.Method == http.MethodGet {
			if cookie == "" {
				value := h.fresh()
				h.sessions[value] = ""
				http.SetCookie(w, &http.Cookie{Name: "sid", Value: value, Path: "/"})
			}
			fmt.Fprint(w, "<form>")
			return
		}
		h.logins++
		name, ok := check()
		if !ok {
			reply(401, map[string]string{"error": "no"})
			return
		}
		h.logIn(w, cookie, name)
		reply(200, map[string]any{"ok": true, "secret": "welcome " + name})
	case "/magic": // a link in a mail: the answer itself is authenticated
		h.logIn(w, cookie, "alice@example.com")
		fmt.Fprint(w, "secret of alice@example.com")
	case "/callback": // as an identity provider sends people back
		h.logIn(w, cookie, "alice@example.com")
		http.Redirect(w, r, "/secret", http.StatusSeeOther)
	case "/early": // the cookie comes in a 103, or in a trailer
		value := h.fresh()
		h.sessions[value] = "alice@example.com"
		line := (&http.Cookie{Name: "sid", Value: value, Path: "/"}).String()
		w.Header().Set("Set-Cookie", line)
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Set-Cookie")
		fmt.Fprint(w, "hinted")
	case "/trailer", "/trailer-unannounced":
		value := h.fresh()
		h.sessions[value] = "alice@example.com"
		line := (&http.Cookie{Name: "sid", Value: value, Path: "/"}).String()
		if r.URL.Path == "/trailer" {
			w.Header().Set("Trailer", "Set-Cookie, X-Sum")
		}
		fmt.Fprint(w, "body")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/trailer" {
			w.Header().Set("Set-Cookie", line)
			w.Header().Set("X-Sum", "1")
		} else {
			w.Header().Set(http.TrailerPrefix+"Set-Cookie", line)
		}
	case "/odd": // a token where nobody expects one
		name, ok := check()
		if !ok {
			reply(401, nil)
			return
		}
		token := h.fresh()
		h.tokens[token] = name
		reply(200, map[string]any{"a": []any{map[string]any{"deep": token}}})
	case "/tokens":
		if account == "" {
			reply(401, nil)
			return
		}
		token := h.fresh()
		h.tokens[token] = account
		reply(200, map[string]string{"token": token})
	case "/logout":
		delete(h.sessions, cookie)
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: "", Path: "/", MaxAge: -1})
		w.WriteHeader(204)
	case "/secret":
		if account == "" {
			reply(401, nil)
			return
		}
		fmt.Fprint(w, "secret of "+account)
	default:
		fmt.Fprint(w, "hello "+account)
	}
}

// plant makes an authenticated session at the backend that the gate never saw.
func (h *hostile) plant(account string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	value := h.fresh()
	h.sessions[value] = account
	return value
}

func (h *hostile) last() http.Header {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[len(h.seen)-1]
}
