package gateway_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const (
	alice = "alice@example.com"
	bob   = "bob@example.com"

	sessionCookie = "__Host-kidoban"
	deviceCookie  = "__Host-kidoban-device"

	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"
)

// rightPassword is the password of every account at the backend.
func rightPassword(name string) string { return "right-" + name }

// record is one request as the backend got it.
type record struct {
	method, uri, proto string
	header, trailer    http.Header
	encoding           []string // Transfer-Encoding
	length             int64    // Content-Length; -1: none
	body               []byte   // the first 128 KiB
	size               int64
	sum                [sha256.Size]byte
	err                error // of reading the body
}

// backend is a service with sessions that reads log-ins as the laxest framework
// might: many spellings of the path, methods hidden in headers, every reading of a
// body. What it evaluated is what a thief could have learnt.
type backend struct {
	*httptest.Server

	mu        sync.Mutex
	routes    map[string]http.HandlerFunc // of a test's own, by path
	records   []record
	sessions  map[string]string // cookie -> account; "" for a visitor
	evaluated []string          // names whose password was looked at, as typed
}

func newBackend(t testing.TB) *backend {
	b := &backend{routes: make(map[string]http.HandlerFunc), sessions: make(map[string]string)}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

// route has h answer a path from now on; nil: the backend does.
func (b *backend) route(path string, h http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.routes[path] = h
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	h := b.routes[r.URL.Path]
	b.mu.Unlock()
	if h != nil {
		h(w, r)
		return
	}
	rec := record{
		method: r.Method, uri: r.RequestURI, proto: r.Proto, header: r.Header.Clone(),
		encoding: r.TransferEncoding, length: r.ContentLength,
	}
	sum := sha256.New()
	var body bytes.Buffer
	rec.size, rec.err = io.Copy(io.MultiWriter(sum, &head{&body, 128 << 10}), r.Body)
	sum.Sum(rec.sum[:0])
	rec.body, rec.trailer = body.Bytes(), r.Trailer.Clone()
	b.mu.Lock()
	b.records = append(b.records, rec)
	b.mu.Unlock()
	if rec.err != nil {
		panic(http.ErrAbortHandler)
	}
	b.answer(w, r, rec.body)
}

// head keeps the first bytes written to it.
type head struct {
	to   *bytes.Buffer
	room int
}

func (h *head) Write(p []byte) (int, error) {
	h.to.Write(p[:min(h.room, len(p))])
	h.room -= min(h.room, len(p))
	return len(p), nil
}

func (b *backend) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	account, cookie := b.account(r)
	switch route := laxPath(r.URL.EscapedPath()); route {
	case "/me":
		if account == "" {
			send(w, http.StatusUnauthorized, map[string]string{"error": "who are you"})
			return
		}
		send(w, http.StatusOK, map[string]string{"id": account, "org": "example", "mail": account})
	case "/login":
		names, ok := b.logIns(r, body)
		switch {
		case ok != "":
			b.logIn(w, ok)
		case len(names) == 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			io.WriteString(w, "<form>")
		case len(names) == 0:
			send(w, http.StatusBadRequest, map[string]string{"error": "no name"})
		default:
			send(w, http.StatusUnauthorized, map[string]string{"error": "no"})
		}
	case "/logout":
		b.mu.Lock()
		delete(b.sessions, cookie)
		b.mu.Unlock()
		http.SetCookie(w, &http.Cookie{Name: "sid", Path: "/", MaxAge: -1})
		w.WriteHeader(http.StatusNoContent)
	case "/secret":
		if account == "" {
			send(w, http.StatusUnauthorized, nil)
			return
		}
		io.WriteString(w, "secret of "+account)
	default:
		io.WriteString(w, "hello "+account)
	}
}

func (b *backend) account(r *http.Request) (account, cookie string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range r.CookiesNamed("sid") {
		if a, ok := b.sessions[c.Value]; ok && (account == "" || a != "") {
			account, cookie = a, c.Value
		}
	}
	return account, cookie
}

// begin makes a session of account and returns its cookie.
func (b *backend) begin(account string) *http.Cookie {
	b.mu.Lock()
	defer b.mu.Unlock()
	value := "s" + rand.Text()
	b.sessions[value] = account
	return &http.Cookie{Name: "sid", Value: value, Path: "/", HttpOnly: true}
}

func (b *backend) logIn(w http.ResponseWriter, account string) {
	http.SetCookie(w, b.begin(account))
	send(w, http.StatusOK, map[string]any{"ok": true, "welcome": account})
}

func send(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// logIns evaluates every log-in that the request could be read to carry and
// returns the names, and the account of one whose password was right.
func (b *backend) logIns(r *http.Request, body []byte) (names []string, account string) {
	for _, p := range laxLogIns(r, body) {
		names = append(names, p.name)
		if a := laxName(p.name); p.password == rightPassword(a) {
			account = a
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.evaluated = append(b.evaluated, names...)
	return names, account
}

// take returns what was evaluated and received since the last call.
func (b *backend) take() (evaluated []string, records []record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	evaluated, records, b.evaluated, b.records = b.evaluated, b.records, nil, nil
	return evaluated, records
}

// last returns the latest request that was not the gate's own.
func (b *backend) last(t testing.TB) record {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.records) - 1; i >= 0; i-- {
		if b.records[i].header.Get("User-Agent") != "kidoban" {
			return b.records[i]
		}
	}
	t.Fatal("nothing reached the backend")
	return record{}
}

// laxName is how services bring names together: compatible characters, case and
// blanks do not count.
func laxName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch r {
		case '\u200b', '\u200c', '\u200d', '\u2060', '\ufeff', '\u00ad':
			return -1
		}
		return r
	}, name)
	return strings.TrimSpace(cases.Fold().String(norm.NFKC.String(name)))
}

// laxPath reads a path as a chain of rewriting servers might: each decodes it once
// more, drops parameters, merges slashes, resolves dots, ignores case.
func laxPath(p string) string {
	for range 4 {
		q, err := url.PathUnescape(p)
		if err != nil || q == p {
			break
		}
		p = q
	}
	p, _, _ = strings.Cut(p, "\x00")
	p = strings.ReplaceAll(p, `\`, "/")
	var kept []string
	for segment := range strings.SplitSeq(p, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		kept = append(kept, segment)
	}
	return strings.ToLower(path.Clean("/" + strings.Join(kept, "/")))
}

type logInPair struct{ name, password string }

// laxLogIns follows each reading that some framework has of a request.
func laxLogIns(r *http.Request, body []byte) (found []logInPair) {
	add := func(names, passwords []string) {
		for _, name := range names {
			for _, password := range passwords {
				if name != "" && password != "" {
					found = append(found, logInPair{name, password})
				}
			}
		}
	}
	form := func(text string) {
		values, _ := url.ParseQuery(text)
		var names, passwords []string
		for key, all := range values {
			switch laxField(key) {
			case "email":
				names = append(names, all...)
			case "password":
				passwords = append(passwords, all...)
			}
		}
		add(names, passwords)
	}
	text := laxText(body)
	query := r.URL.RawQuery
	form(query)
	form(text)
	form(query + "&" + text)
	for _, p := range laxJSON(text) {
		add([]string{p.name}, []string{p.password})
	}
	if kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && strings.HasPrefix(kind, "multipart/") {
		parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		var names, passwords []string
		for {
			part, err := parts.NextPart()
			if err != nil {
				break
			}
			value, _ := io.ReadAll(part)
			switch laxField(part.FormName()) {
			case "email":
				names = append(names, string(value))
			case "password":
				passwords = append(passwords, string(value))
			}
		}
		add(names, passwords)
	}
	return found
}

// laxField reads a field's name as PHP and others do.
func laxField(key string) string {
	return strings.ToLower(strings.TrimSuffix(strings.TrimSpace(key), "[]"))
}

// laxText decodes a body as its byte order mark says.
func laxText(body []byte) string {
	wide := func(order binary.ByteOrder) string {
		units := make([]uint16, 0, len(body)/2)
		for b := body; len(b) >= 2; b = b[2:] {
			units = append(units, order.Uint16(b))
		}
		return strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff")
	}
	switch {
	case bytes.HasPrefix(body, []byte{0xfe, 0xff}):
		return wide(binary.BigEndian)
	case bytes.HasPrefix(body, []byte{0xff, 0xfe}):
		return wide(binary.LittleEndian)
	case len(body) > 1 && body[0] == 0 && body[1] != 0: // RFC 4627 section 3
		return wide(binary.BigEndian)
	case len(body) > 1 && body[0] != 0 && body[1] == 0:
		return wide(binary.LittleEndian)
	}
	return strings.TrimPrefix(string(body), "\ufeff")
}

// laxJSON finds log-ins in a sequence of JSON documents: in objects and in arrays
// of them, the first and the last of keys that are there twice.
func laxJSON(text string) (found []logInPair) {
	d := json.NewDecoder(strings.NewReader(text))
	var read func(depth int) bool
	read = func(depth int) bool {
		token, err := d.Token()
		if err != nil || depth > 4 {
			return false
		}
		switch token {
		case json.Delim('['):
			for d.More() {
				if !read(depth + 1) {
					return false
				}
			}
			_, err = d.Token()
			return err == nil
		case json.Delim('{'):
			var names, passwords []string
			for d.More() {
				key, err := d.Token()
				if err != nil {
					return false
				}
				field := strings.ToLower(key.(string))
				if field != "email" && field != "password" {
					if !read(depth + 1) {
						return false
					}
					continue
				}
				var value any
				if err := d.Decode(&value); err != nil {
					return false
				}
				if s, ok := value.(string); ok && field == "email" {
					names = append(names, s)
				} else if ok {
					passwords = append(passwords, s)
				}
			}
			for _, name := range names {
				for _, password := range passwords {
					found = append(found, logInPair{name, password})
				}
			}
			_, err = d.Token()
			return err == nil
		}
		return true
	}
	for read(0) {
	}
	return found
}

// hijack takes over the connection of a request.
func hijack(w http.ResponseWriter) (io.WriteCloser, error) {
	h, ok := w.(http.Hijacker)
	if !ok {
		return nil, errors.New("the backend's connection cannot be taken over")
	}
	c, _, err := h.Hijack()
	return c, err
}
