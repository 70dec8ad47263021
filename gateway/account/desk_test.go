package account_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/pressly/goose/v3"
	"golang.org/x/net/html"
	_ "modernc.org/sqlite"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/account"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/policies"
)

var start = time.Date(2026, 11, 25, 3, 4, 0, 0, time.UTC)

// store is what a desk's parts are kept in.
type store interface {
	auth.SessionStore
	auth.DirectoryStore
	auth.DeviceStore
	auth.FactorStore
	auth.HoldStore
	auth.SlipStore
}

// bench is a desk and the gate around it. Its clock stands still unless moved.
type bench struct {
	t   testing.TB
	now time.Time
	*account.Desk
	policy policies.FactorPolicy
	lang   string

	names map[string]string // typed name to subject

	mu   sync.Mutex
	acts []string // kinds of those that happened
	n    int
	fail error // what the record answers
}

// eachBench runs a test over every store.
func eachBench(t *testing.T, run func(t *testing.T, b *bench)) {
	t.Run("memory", func(t *testing.T) {
		run(t, newBench(t, auth.NewMemoryStore(), policies.NewMemoryStore().Outbox()))
	})
	t.Run("sqlite", func(t *testing.T) {
		db := openSQLite(t)
		migrate(t, db, auth.Migrations, "auth_schema")
		migrate(t, db, policies.Migrations, "policies_schema")
		s, err := auth.NewSQLStore(db, "sqlite")
		if err != nil {
			t.Fatal(err)
		}
		o, err := policies.NewOutbox(db, "sqlite")
		if err != nil {
			t.Fatal(err)
		}
		run(t, newBench(t, s, o))
	})
}

func openSQLite(t testing.TB) *sql.DB {
	t.Helper()
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(OFF)", "foreign_keys(ON)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "account.db")+"?"+q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func migrate(t testing.TB, db *sql.DB, all fs.FS, table string) {
	t.Helper()
	dir, err := fs.Sub(all, "migrations/sqlite")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithTableName(table), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// seal stands for the keyring: what it seals opens with the same associated data only.
var seal = auth.FactorSeal{
	Seal: func(plain, associated []byte) ([]byte, error) { return append(slices.Clone(plain), associated...), nil },
	Open: func(sealed, associated []byte) ([]byte, error) {
		plain, ok := strings.CutSuffix(string(sealed), string(associated))
		if !ok {
			return nil, errors.New("another seal")
		}
		return []byte(plain), nil
	},
}

const origin = "https://chat.example"

func newBench(t testing.TB, s store, outbox *policies.Outbox) *bench {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{t: t, now: start, lang: "en", names: map[string]string{}}
	factors, err := auth.OpenFactors(ctx, s, seal, auth.FactorsConfig{Issuer: "Example Chat", RPID: "chat.example", Origins: []string{origin}}, start)
	must(err)
	holds, err := auth.OpenHolds(ctx, s, seal, auth.HoldsConfig{}, start)
	must(err)
	slips, err := auth.OpenSlips(ctx, s, start)
	must(err)
	sessions, err := auth.OpenSessions(ctx, s, auth.SessionsConfig{}, start)
	must(err)
	devices, err := auth.OpenDevices(ctx, s, func() ([]byte, [][]byte) {
		key := []byte("a key of thirty-two bytes, and so")
		return key, [][]byte{key}
	}, auth.DevicesConfig{}, start)
	must(err)
	policy, err := policies.LoadPolicy(nil)
	must(err)
	b.policy = policy.Factors
	b.policy.Administrators = []string{"owner"}
	b.Desk = &account.Desk{
		Factors: factors, Slips: slips, Sessions: sessions, Devices: devices, Directory: auth.NewDirectory(s), Holds: holds, Outbox: outbox,
		Site: pages.Site{Name: "Example Chat"}, Log: slog.New(slog.DiscardHandler), Mailing: true,
		Act:     b.act,
		Resolve: func(_ context.Context, name string) (string, error) { return b.names[name], nil },
		EndSession: func(ctx context.Context, id, by string) error {
			_, err := sessions.End(ctx, id, auth.Act{By: by}, b.now)
			return err
		},
		EndSessions: func(ctx context.Context, subject, except, by string) error {
			all, err := sessions.OfSubject(ctx, subject, b.now)
			for _, s := range all {
				if s.ID != except && err == nil {
					_, err = sessions.End(ctx, s.ID, auth.Act{By: by}, b.now)
				}
			}
			return err
		},
	}
	return b
}

// act stands for the record, and sees that the change carries the entry if and only if
// it happened.
func (b *bench) act(ctx context.Context, kind string, body any, do func(ctx context.Context, entry string, at time.Time) error) error {
	b.mu.Lock()
	b.n++
	entry := fmt.Sprintf("node/%d", b.n)
	refused := b.fail
	b.mu.Unlock()
	if refused != nil {
		return refused
	}
	if text := fmt.Sprint(body); strings.Contains(text, "@") {
		b.t.Errorf("%s: the record has an address: %s", kind, text)
	}
	err := do(ctx, entry, b.now)
	acted, e := b.Sessions.Acted(ctx, []string{entry})
	if e != nil {
		b.t.Error(e)
	}
	if happened := err == nil; acted[entry] != happened && kind != "act.device.forget" {
		b.t.Errorf("%s: happened %t, carried %t", kind, happened, acted[entry])
	}
	if err == nil {
		b.mu.Lock()
		b.acts = append(b.acts, kind)
		b.mu.Unlock()
	}
	return err
}

// happened takes the kinds of acts that happened since it was last called.
func (b *bench) happened() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.acts
	b.acts = nil
	return all
}

// learn makes an account with two addresses.
func (b *bench) learn(subject string) auth.Person {
	b.t.Helper()
	p, err := b.Directory.Learn(b.t.Context(), auth.Person{
		Subject: subject, Organization: "acme", Names: []string{subject + "-name"}, Language: b.lang, TimeZone: "Asia/Tokyo",
		Mail: []string{subject + "@acme.example", subject + "@home.example"}, Roles: []string{"member"},
	}, [16]byte{}, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	b.names[subject+"-name"] = subject
	return p
}

// visit is one of an account.
func (b *bench) visit(p auth.Person) account.Visit {
	return account.Visit{
		Subject: p.Subject, Organization: p.Organization, Person: p, Account: p.Subject + "-name", Policy: b.policy,
		CSRF: "csrf-of-" + p.Subject, Origin: origin, Language: b.lang, Client: "Firefox on Windows", Country: "JP", Done: "/.kidoban/factor/done",
	}
}

// hold begins a held login and returns its visit.
func (b *bench) hold(p auth.Person) account.Visit {
	b.t.Helper()
	h, _, err := b.Holds.Begin(b.t.Context(), auth.Hold{Subject: p.Subject, Need: auth.NeedEnrol, Client: "Firefox on Windows", Country: "JP"}, []byte("the answer"), b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	v := b.visit(p)
	v.For, v.Base, v.Approve = h.ID, account.EnrolPath, &auth.Approval{Hold: h.ID, AAL: 2, By: account.ByOwner}
	return v
}

// session begins a session and returns its visit.
func (b *bench) session(p auth.Person, client string) account.Visit {
	b.t.Helper()
	s, _, err := b.Sessions.Begin(b.t.Context(), auth.Session{
		Kind: auth.BrowserSession, Subject: p.Subject, Organization: p.Organization, AAL: 1, Client: client, Country: "JP", Device: "device-" + rand.Text(),
	}, nil, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	v := b.visit(p)
	v.Session, v.For, v.Base = &s, s.ID, account.AccountPath
	return v
}

// answer is what the desk answered.
type answer struct {
	t    testing.TB
	code int
	to   string // Location
	body string
	doc  *html.Node
}

// send sends a request as the gate does, which has checked the token.
func (b *bench) send(method, target string, v account.Visit, form url.Values) answer {
	b.t.Helper()
	v.Now = b.now
	var r *http.Request
	if method == http.MethodPost {
		r = httptest.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		r = httptest.NewRequestWithContext(b.t.Context(), method, target, nil)
	}
	w := httptest.NewRecorder()
	path := r.URL.Path
	var err error
	switch {
	case path == account.LinkPath:
		err = b.Link(w, r, v)
	case path == account.CancelPath:
		err = b.CancelRecovery(w, r, v)
	case under(path, account.LostPath):
		err = b.Lost(w, r, strings.TrimPrefix(path, account.LostPath), v)
	case under(path, account.EnrolPath):
		err = b.Bind(w, r, strings.TrimPrefix(path, account.EnrolPath), v)
	case under(path, account.AccountPath):
		err = b.Account(w, r, strings.TrimPrefix(path, account.AccountPath), v)
	default:
		b.t.Fatalf("%s is not the desk's", path)
	}
	if err != nil {
		if w.Body.Len() > 0 || len(w.Header()) > 0 && w.Header().Get("Location") != "" {
			b.t.Errorf("%s %s: an answer and an error: %v", method, target, err)
		}
		return answer{t: b.t, code: http.StatusServiceUnavailable, body: err.Error()}
	}
	a := answer{t: b.t, code: w.Code, to: w.Header().Get("Location"), body: w.Body.String()}
	if cc := w.Header().Get("Cache-Control"); cc != "no-store" {
		b.t.Errorf("%s %s: Cache-Control = %q", method, target, cc)
	}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
		a.doc = b.check(v, method+" "+target, a.body)
	}
	return a
}

func under(path, base string) bool { return path == base || strings.HasPrefix(path, base+"/") }

// check reads a page as a browser does, and sees that its forms can be sent.
func (b *bench) check(v account.Visit, what, body string) *html.Node {
	b.t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for n := range doc.Descendants() {
		switch {
		case n.Type != html.ElementNode, strings.Contains(attribute(n, "role"), "alert"): // the script says what
		case n.Data == "html" && attribute(n, "lang") != v.Language:
			b.t.Errorf("%s: the page is in %q", what, attribute(n, "lang"))
		case n.Data == "form" && fields(n).Get(pages.FieldCSRF) != v.CSRF:
			b.t.Errorf("%s: the form to %s has the token %q", what, attribute(n, "action"), fields(n).Get(pages.FieldCSRF))
		case n.Data == "h1" && text(n) == "", n.Data == "p" && text(n) == "", n.Data == "button" && text(n) == "":
			b.t.Errorf("%s: an empty <%s>", what, n.Data)
		}
	}
	if strings.Contains(body, "%!") {
		b.t.Errorf("%s: a phrase that lacks its values: %s", what, body)
	}
	return doc
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var s strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			s.WriteString(c.Data)
		}
	}
	return strings.Join(strings.Fields(s.String()), " ")
}

// fields is what a form sends if nothing is typed.
func fields(form *html.Node) url.Values {
	v := url.Values{}
	for n := range form.Descendants() {
		if n.Type == html.ElementNode && n.Data == "input" && attribute(n, "type") != "checkbox" {
			v.Add(attribute(n, "name"), attribute(n, "value"))
		}
	}
	return v
}

// form is the form of the page that is sent to an address that ends so.
func (a answer) form(action string) (to string, v url.Values) {
	a.t.Helper()
	if a.doc != nil {
		for n := range a.doc.Descendants() {
			if n.Type == html.ElementNode && n.Data == "form" && strings.HasSuffix(attribute(n, "action"), action) {
				return attribute(n, "action"), fields(n)
			}
		}
	}
	a.t.Fatalf("no form to %q: %d to %q: %s", action, a.code, a.to, a.body)
	return "", nil
}

func (a answer) hasForm(action string) bool {
	for n := range a.doc.Descendants() {
		if n.Type == html.ElementNode && n.Data == "form" && strings.HasSuffix(attribute(n, "action"), action) {
			return true
		}
	}
	return false
}

// want fails unless the answer is that page, or leads there.
func (a answer) want(code int, to string) answer {
	a.t.Helper()
	if a.code != code || a.to != to {
		a.t.Fatalf("answer %d to %q, want %d to %q: %s", a.code, a.to, code, to, a.body)
	}
	return a
}

func (a answer) says(words ...string) answer {
	a.t.Helper()
	body := html.UnescapeString(a.body)
	for _, w := range words {
		if !strings.Contains(body, w) {
			a.t.Errorf("the page does not say %q: %s", w, body)
		}
	}
	return a
}

// get gets a page.
func (b *bench) get(path string, v account.Visit) answer {
	b.t.Helper()
	return b.send(http.MethodGet, path, v, nil)
}

// post sends a form that is on no page, as whoever knows the address can.
func (b *bench) post(path string, v account.Visit, pairs ...string) answer {
	b.t.Helper()
	form := url.Values{pages.FieldCSRF: {v.CSRF}}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return b.send(http.MethodPost, path, v, form)
}

// submit fills in and sends a form of a page.
func (b *bench) submit(page answer, action string, v account.Visit, pairs ...string) answer {
	b.t.Helper()
	to, form := page.form(action)
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return b.send(http.MethodPost, to, v, form)
}

// app is an authenticator app.
type app struct{ secret string }

// appOf takes the secret from the page that shows it.
func appOf(a answer) app {
	a.t.Helper()
	for n := range a.doc.Descendants() {
		if n.Type == html.ElementNode && strings.HasPrefix(attribute(n, "href"), "otpauth://") {
			u, err := url.Parse(attribute(n, "href"))
			if err != nil {
				a.t.Fatal(err)
			}
			return app{u.Query().Get("secret")}
		}
	}
	a.t.Fatalf("the page has no secret: %d to %q: %s", a.code, a.to, a.body)
	return app{}
}

func (a app) code(t testing.TB, at time.Time) string {
	t.Helper()
	code, err := totp.GenerateCode(a.secret, at)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// bindApp binds an app to the account by what package auth offers, and codes if wanted.
func (b *bench) bindApp(subject string) auth.Factor {
	b.t.Helper()
	e, err := b.Factors.BeginTOTP(b.t.Context(), subject, subject, "App of "+subject, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	f, _, err := b.Factors.FinishTOTP(b.t.Context(), subject, e.ID, app{strings.ReplaceAll(e.Secret, " ", "")}.code(b.t, b.now), auth.Act{By: "test"}, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

func (b *bench) bindCodes(subject string) []string {
	b.t.Helper()
	codes, _, _, err := b.Factors.ReplaceRecoveryCodes(b.t.Context(), subject, auth.Act{By: "test"}, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return codes
}

// factors is what the account has, as "kind state".
func (b *bench) factors(subject string) (all []string) {
	b.t.Helper()
	list, err := b.Factors.List(b.t.Context(), subject)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range list {
		all = append(all, string(f.Kind)+" "+string(f.State))
	}
	slices.Sort(all)
	return all
}

func (b *bench) wantFactors(subject string, want ...string) {
	b.t.Helper()
	slices.Sort(want)
	if got := b.factors(subject); !slices.Equal(got, want) {
		b.t.Errorf("%s has %q, want %q", subject, got, want)
	}
}

// mails is the messages of a template, the newest first.
func (b *bench) mails(template string) []policies.Notice {
	b.t.Helper()
	all, _, err := b.Outbox.List(b.t.Context(), policies.NoticeFilter{Channel: "mail", Template: template}, "", 200)
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// state is how far a hold is.
func (b *bench) state(v account.Visit) auth.HoldState {
	b.t.Helper()
	h, err := b.Holds.ByID(b.t.Context(), v.For, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return h.State
}

// known is a visit from a device that the account has known for long enough.
func (b *bench) known(v account.Visit) account.Visit {
	v.DeviceSince = b.now.Add(-b.policy.Evidence.Device)
	return v
}
