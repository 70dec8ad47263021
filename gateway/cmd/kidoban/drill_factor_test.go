package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// factorPolicy writes a policy of second factors and returns the lines that have a gate
// use it.
func factorPolicy(t testing.TB, factors string) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte("factors: "+factors+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"origin https://chat.example", "service \"Example Chat\"", "policies " + dir}
}

// enrolled is somebody with an app and recovery codes.
type enrolled struct {
	secret string
	codes  []string // of recovery
}

func (e *enrolled) code(t testing.TB, at time.Time) string {
	t.Helper()
	code, err := totp.GenerateCode(e.secret, at)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

var (
	formToken    = regexp.MustCompile(`name="csrf" value="([^"]+)"`)
	formSecret   = regexp.MustCompile(`otpauth://[^"<]*[?&;]secret=([A-Z2-7]+)`)
	formApp      = regexp.MustCompile(`action="([^"]*/app\?id=[^"]+)"`)
	formRecovery = regexp.MustCompile(`\b(?:[0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{4}\b`)
)

func csrfOf(t testing.TB, r reply) string {
	t.Helper()
	m := formToken.FindStringSubmatch(r.body)
	if m == nil {
		t.Fatalf("no form in %d:\n%s", r.status, r.body)
	}
	return m[1]
}

// enrol binds an app to the account that v is signed in to, by a code of an operator,
// as a person does on the account's pages.
func enrol(t testing.TB, n *node, v *visitor, address, account string) *enrolled {
	t.Helper()
	status, body, err := n.call(http.MethodPost, "/v1/accounts/"+url.PathEscape(account)+"/enrolment-codes", nil)
	if err != nil || status != http.StatusCreated {
		t.Fatalf("a code to enrol: %d, %v, %s", status, err, body)
	}
	var slip struct{ Code string }
	if err := json.Unmarshal(body, &slip); err != nil || slip.Code == "" {
		t.Fatalf("a code to enrol: %v, %s", err, body)
	}
	const add = "/.kidoban/account/add"
	csrf := csrfOf(t, v.page(t, address, add))
	if r := v.form(t, address, add+"/code", url.Values{"csrf": {csrf}, "code": {slip.Code}}); r.status != http.StatusSeeOther || strings.Contains(r.header.Get("Location"), "wrong") {
		t.Fatalf("the operator's code: %d to %q\n%s", r.status, r.header.Get("Location"), r.body)
	}
	r := v.form(t, address, add, url.Values{"csrf": {csrf}, "do": {"totp"}})
	secret, action := formSecret.FindStringSubmatch(html.UnescapeString(r.body)), formApp.FindStringSubmatch(r.body)
	if secret == nil || action == nil {
		t.Fatalf("no secret for an app in %d:\n%s", r.status, r.body)
	}
	e := &enrolled{secret: secret[1]}
	r = v.form(t, address, html.UnescapeString(action[1]), url.Values{"csrf": {csrf}, "code": {e.code(t, time.Now())}})
	e.codes = formRecovery.FindAllString(r.body, -1)
	if len(e.codes) != 10 {
		t.Fatalf("%d recovery codes in %d, want ten:\n%s", len(e.codes), r.status, r.body)
	}
	return e
}

// accountOf is the id of who is signed in.
func (v *visitor) accountOf(t testing.TB, n *node) string {
	t.Helper()
	status, body, err := v.do(t.Context(), n, http.MethodGet, "/v2/me", nil)
	var me struct {
		ID int64 `json:"account_id"`
	}
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &me) != nil {
		t.Fatalf("who am I: %d, %v, %s", status, err, body)
	}
	return strconv.FormatInt(me.ID, 10)
}

// signUp logs somebody in who has no factor yet, and enrols them.
func signUp(t testing.TB, n *node, v *visitor, who chatcore.SeededAccount) (*enrolled, string) {
	t.Helper()
	if status, err := v.login(t.Context(), n, who); err != nil || status != http.StatusOK {
		t.Fatalf("login: %d, %v", status, err)
	}
	account := v.accountOf(t, n)
	return enrol(t, n, v, n.site, account), account
}

// TestFactorPrograms: programs log in with a factor that a person gives in a browser,
// over two nodes; of a hundred submissions of one code one wins.
func TestFactorPrograms(t *testing.T) {
	backend := newTown(t, 12)
	options := append(factorPolicy(t, `{require: [{need: enrolled}]}`),
		"database "+storagetest.Postgres(t), "redis redis://"+storagetest.Redis(t).Addr())
	one := newNode(t, "one", backend, options...)
	two := newNode(t, "two", backend, options...)
	one.start()
	shareKeys(t, one, two)
	two.start()
	nodes := []*node{one, two}
	who := backend.people[0]
	phone, account := signUp(t, one, newVisitor("198.51.100.1"), who)

	// What the backend itself answers.
	direct := newVisitor("198.51.100.2")
	want := direct.api(t, backend.address, http.MethodPost, "/login", login(who))
	if want.status != http.StatusOK {
		t.Fatalf("the backend: %d", want.status)
	}

	t.Run("without cookies", func(t *testing.T) {
		program := func(n *node) reply {
			return newVisitor("198.51.100.3").api(t, n.site, http.MethodPost, "/login", login(who), "User-Agent", "chat-cli/1")
		}
		path, short := heldProblem(t, program(one))
		if again, _ := heldProblem(t, program(two)); again != path {
			t.Errorf("the other node holds another login: %s, want %s", again, path)
		}
		person := newVisitor("198.51.100.3")
		page := person.page(t, two.site, path)
		if r := person.form(t, two.site, path, url.Values{"csrf": {csrfOf(t, page)}, "code": {short}, "do": {"continue"}}); r.status != http.StatusSeeOther {
			t.Fatalf("the short code: %d\n%s", r.status, r.body)
		}
		csrf := csrfOf(t, person.page(t, one.site, path))
		for what, code := range map[string]string{
			"wrong": "000000", "late": phone.code(t, time.Now().Add(-3*time.Minute)), "early": phone.code(t, time.Now().Add(90*time.Second)),
		} {
			if r := person.form(t, two.site, path, url.Values{"csrf": {csrf}, "code": {code}}); r.status != http.StatusUnprocessableEntity {
				t.Errorf("a code that is %s: %d", what, r.status)
			}
		}
		// One that binds is used up, and so is what was shown before: the next one counts.
		if r := person.form(t, one.site, path, url.Values{"csrf": {csrf}, "recovery": {phone.codes[0]}}); r.status != http.StatusSeeOther {
			t.Fatalf("a recovery code: %d\n%s", r.status, r.body)
		}
		if r := person.page(t, one.site, path); r.status != http.StatusOK {
			t.Errorf("when it is done: %d", r.status)
		}
		if r := newVisitor("198.51.100.4").api(t, one.site, http.MethodPost, "/login", login(who), "User-Agent", "chat-cli/1"); r.status != http.StatusUnauthorized {
			t.Errorf("a retry from another network: %d", r.status)
		}
		got := program(two)
		if got.status != want.status || got.body != want.body || got.header.Get("Content-Type") != want.header.Get("Content-Type") {
			t.Errorf("released: %d %q %v, want what the backend answers: %d %q", got.status, got.body, got.header, want.status, want.body)
		}
		if r := program(one); r.status != http.StatusUnauthorized {
			t.Errorf("a second retry: %d, want a new question", r.status)
		}
	})

	t.Run("one code", func(t *testing.T) {
		before := sessionsOf(t, one, account)
		type held struct {
			v    *visitor
			csrf string
		}
		var logins []held
		for i := range 4 {
			v := newVisitor("203.0.113." + strconv.Itoa(i+1))
			n := nodes[i%2]
			if r := v.form(t, n.site, "/login", url.Values{"email": {who.Email}, "password": {who.Password}}); r.status != http.StatusSeeOther {
				t.Fatalf("login: %d\n%s", r.status, r.body)
			}
			logins = append(logins, held{v, csrfOf(t, v.page(t, n.site, "/.kidoban/factor"))})
		}
		var accepted atomic.Int32
		var released atomic.Int32
		var group sync.WaitGroup
		for i := range 100 {
			l := logins[i%4]
			n := nodes[i/4%2]
			group.Go(func() {
				v := newVisitor(l.v.address)
				v.cookies["__Host-kidoban-hold"] = l.v.cookies["__Host-kidoban-hold"]
				r := v.form(t, n.site, "/.kidoban/factor", url.Values{"csrf": {l.csrf}, "recovery": {phone.codes[1]}})
				if r.status != http.StatusSeeOther {
					return
				}
				accepted.Add(1)
				for range 3 {
					r = v.page(t, n.site, r.header.Get("Location"))
					if v.cookies["chat_session"] != "" {
						released.Add(1)
						return
					}
				}
			})
		}
		group.Wait()
		if released.Load() != 1 || sessionsOf(t, two, account) != before+1 {
			t.Errorf("of 100 submissions %d got the answer, and there are %d sessions more; want one", released.Load(), sessionsOf(t, two, account)-before)
		}
		t.Logf("%d of 100 were told to go on: the one that was accepted, and those of the same login that came after it", accepted.Load())
	})
}

func login(who chatcore.SeededAccount) string {
	text, err := json.Marshal(map[string]string{"email": who.Email, "password": who.Password})
	if err != nil {
		panic(err) // texts always encode
	}
	return string(text)
}

// heldProblem reads where a program is told to go on, and with which code.
func heldProblem(t testing.TB, r reply) (path, code string) {
	t.Helper()
	var p struct{ Type, Continue, Code string }
	if r.status != http.StatusUnauthorized || json.Unmarshal([]byte(r.body), &p) != nil || p.Type != "/.kidoban/problems/factor-needed" {
		t.Fatalf("a held login: %d %s", r.status, r.body)
	}
	path, ok := strings.CutPrefix(p.Continue, "https://chat.example")
	if !ok || p.Code == "" {
		t.Fatalf("a held login: %+v", p)
	}
	return path, p.Code
}

func sessionsOf(t testing.TB, n *node, account string) int {
	t.Helper()
	status, body, err := n.call(http.MethodGet, "/v1/accounts/"+url.PathEscape(account)+"/sessions", nil)
	var list struct{ Sessions []struct{ ID string } }
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &list) != nil {
		t.Fatalf("sessions: %d, %v, %s", status, err, body)
	}
	return len(list.Sessions)
}

var factorPoints = flag.Int("drill.factorpoints", 6, "how often TestFactorCrash kills the gate")

// TestFactorCrash kills the gate while people give their factors, and while operators
// disable some: between "accepted" and "released", and between "disabled" and "told".
// Nothing is lost, nothing is used twice, and each owner hears of it once.
func TestFactorCrash(t *testing.T) {
	for name, database := range map[string]bool{"sqlite": false, "postgres": true} {
		t.Run(name, func(t *testing.T) {
			backend := newTown(t, 40)
			post := newLetters(t)
			options := append(factorPolicy(t, `{require: [{need: enrolled}], hold: 15m}`), post.option())
			if database {
				options = append(options, "database "+storagetest.Postgres(t))
			}
			d := &factorDrill{t: t, node: newNode(t, "crash", backend, options...), post: post, chance: rand.New(rand.NewPCG(3, 5))}
			d.node.start()
			for i, who := range backend.people[:16] {
				v := newVisitor("192.0.2." + strconv.Itoa(i+1))
				phone, account := signUp(t, d.node, v, who)
				d.people = append(d.people, &factorOwner{who: who, phone: phone, account: account, address: v.address})
			}
			for point := range *factorPoints {
				d.load(point)
				d.node.start()
				d.check()
			}
			d.disabled()
			d.node.stop()
			if out, err := kidoban(d.node.dir, "record", "verify", filepath.Join(d.node.dir, "data", "record")); err != nil {
				t.Errorf("record verify: %v\n%s", err, out)
			}
			t.Logf("%d points: %d codes were accepted and heard of, %d unheard, %d not; %d answers were released; %d factors disabled", *factorPoints, d.heard, d.unheard, d.notYet, d.released, d.disabledCount)
		})
	}
}

type factorDrill struct {
	t      testing.TB
	node   *node
	post   *letters
	chance *rand.Rand
	people []*factorOwner

	heard, unheard, notYet, released, disabledCount int
}

// factorOwner is one person, and how far the login that is under way has come.
type factorOwner struct {
	who     chatcore.SeededAccount
	phone   *enrolled
	account string
	address string

	v        *visitor
	csrf     string
	next     int  // recovery code
	asked    bool // a code was sent
	accepted bool // and the answer said so
	asking   bool // for the answer of the backend
	done     bool // it came
}

// quietly asks as a browser does; an error is that of a gate that is gone.
func (o *factorOwner) quietly(n *node, method, path string, fields url.Values) (status int, location, body string, err error) {
	var in io.Reader
	if fields != nil {
		in = strings.NewReader(fields.Encode())
	}
	r, err := http.NewRequestWithContext(context.Background(), method, "http://"+n.site+path, in)
	if err != nil {
		return 0, "", "", err
	}
	o.v.dress(r)
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	if fields != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := visitorClient.Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			delete(o.v.cookies, c.Name)
		} else {
			o.v.cookies[c.Name] = c.Value
		}
	}
	return resp.StatusCode, resp.Header.Get("Location"), string(text), err
}

// walk goes one step on.
func (o *factorOwner) walk(n *node) error {
	switch {
	case o.v == nil || o.done:
		o.v, o.asked, o.accepted, o.asking, o.done = newVisitor(o.address), false, false, false, false
		o.csrf = ""
		if o.next >= len(o.phone.codes)-1 {
			return io.EOF
		}
		status, _, _, err := o.quietly(n, http.MethodPost, "/login", url.Values{"email": {o.who.Email}, "password": {o.who.Password}})
		if err != nil || status != http.StatusSeeOther {
			o.v = nil
			return cmpError(err, status)
		}
	case o.csrf == "":
		status, _, body, err := o.quietly(n, http.MethodGet, "/.kidoban/factor", nil)
		m := formToken.FindStringSubmatch(body)
		if err != nil || m == nil {
			return cmpError(err, status)
		}
		o.csrf = m[1]
	case !o.accepted:
		o.asked = true
		status, _, _, err := o.quietly(n, http.MethodPost, "/.kidoban/factor", url.Values{"csrf": {o.csrf}, "recovery": {o.phone.codes[o.next]}})
		if err != nil || status != http.StatusSeeOther {
			return cmpError(err, status)
		}
		o.accepted = true
		o.next++
	default:
		o.asking = true
		return o.fetch(n)
	}
	return nil
}

// fetch gets the answer that is held.
func (o *factorOwner) fetch(n *node) error {
	path := "/.kidoban/factor"
	for range 4 {
		status, location, _, err := o.quietly(n, http.MethodGet, path, nil)
		if err != nil {
			return err
		}
		if o.v.cookies["chat_session"] != "" {
			o.done = true
			return nil
		}
		if status != http.StatusSeeOther {
			return cmpError(nil, status)
		}
		path = location
	}
	return fmt.Errorf("led in circles")
}

func cmpError(err error, status int) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("status %d", status)
}

// suspended is how many people have their app disabled by an operator.
const suspended = 4

// load has people log in, and operators disable factors, until a while after a random
// step the gate is killed.
func (d *factorDrill) load(point int) {
	var steps atomic.Int32
	stop := make(chan struct{})
	var group sync.WaitGroup
	for i, o := range d.people {
		if i >= len(d.people)-suspended { // who gets no other letters, of which only so many go to one mailbox
			if i == len(d.people)-1-point {
				group.Go(func() { o.disable(d.node) })
			}
			continue
		}
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := o.walk(d.node); err != nil {
					return
				}
				steps.Add(1)
			}
		})
	}
	quota := int32(8 + d.chance.IntN(60))
	eventually(d.t, time.Minute, fmt.Sprintf("%d steps", quota), func() bool { return steps.Load() >= quota })
	d.node.kill()
	close(stop)
	group.Wait()
}

// disable disables the owner's app in the name of an operator.
func (o *factorOwner) disable(n *node) {
	status, body, err := n.call(http.MethodGet, "/v1/accounts/"+o.account+"/factors", nil)
	var list struct{ Factors []struct{ ID, Kind string } }
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &list) != nil {
		return
	}
	for _, f := range list.Factors {
		if f.Kind == "totp" {
			_, _, _ = n.call(http.MethodPost, "/v1/accounts/"+o.account+"/factors/"+f.ID+"/disable", nil)
		}
	}
}

// check goes on with each login that was cut off.
func (d *factorDrill) check() {
	t := d.t
	for _, o := range d.people {
		if o.v == nil || o.done || o.csrf == "" || !o.asked {
			if !o.done {
				o.v = nil // cut off before there was anything to lose
			}
			continue
		}
		status, location, body, err := o.quietly(d.node, http.MethodGet, "/.kidoban/factor", nil)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case status == http.StatusSeeOther && location == "/login": // approved
			if !o.accepted {
				d.unheard++
				o.accepted = true
				o.next++
			} else {
				d.heard++
			}
		case status == http.StatusOK && !o.accepted: // it waits still: the same code is good
			d.notYet++
			m := formToken.FindStringSubmatch(body)
			if m == nil {
				t.Fatalf("no form:\n%s", body)
			}
			status, _, body, err := o.quietly(d.node, http.MethodPost, "/.kidoban/factor", url.Values{"csrf": {m[1]}, "recovery": {o.phone.codes[o.next]}})
			if err != nil || status != http.StatusSeeOther {
				t.Errorf("%s: a code that was not accepted before the stop is lost: %d, %v\n%s", o.account, status, err, body)
				continue
			}
			o.accepted = true
			o.next++
		case status == http.StatusGone && o.asking: // released; the answer did not arrive
			d.released++
			o.v = nil
			continue
		default:
			t.Errorf("%s: sent %v, accepted %v, asking %v, and now %d to %q", o.account, o.asked, o.accepted, o.asking, status, location)
			continue
		}
		if err := o.fetch(d.node); err != nil {
			t.Errorf("%s: an accepted login is lost: %v", o.account, err)
		}
		d.released++
		// Used up.
		again := &factorOwner{who: o.who, address: o.address}
		again.v = newVisitor(o.address)
		if status, _, _, err := again.quietly(d.node, http.MethodPost, "/login", url.Values{"email": {o.who.Email}, "password": {o.who.Password}}); err != nil || status != http.StatusSeeOther {
			t.Fatalf("login: %d, %v", status, err)
		}
		_, _, body, err = again.quietly(d.node, http.MethodGet, "/.kidoban/factor", nil)
		if m := formToken.FindStringSubmatch(body); err == nil && m != nil {
			if status, _, _, _ := again.quietly(d.node, http.MethodPost, "/.kidoban/factor", url.Values{"csrf": {m[1]}, "recovery": {o.phone.codes[o.next-1]}}); status != http.StatusUnprocessableEntity {
				t.Errorf("%s: a code opens two log-ins: %d", o.account, status)
			}
		}
	}
}

// disabled checks that each owner whose app was disabled was told once.
func (d *factorDrill) disabled() {
	t := d.t
	for _, o := range d.people {
		status, body, err := d.node.call(http.MethodGet, "/v1/accounts/"+o.account+"/factors", nil)
		if err != nil || status != http.StatusOK {
			t.Fatalf("factors: %d, %v, %s", status, err, body)
		}
		var list struct{ Factors []struct{ State string } }
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		is := slices.ContainsFunc(list.Factors, func(f struct{ State string }) bool { return f.State == "disabled" })
		if is {
			d.disabledCount++
		}
		told := func() int {
			// One that was being handed over when the gate was killed may come again: the same
			// letter, once the other's right to send it is over.
			different := make(map[string]bool)
			for _, l := range d.post.of(o.who.Email) {
				if strings.Contains(l.subject, "switched off") || strings.Contains(l.subject, "ログインの二要素認証が停止されました") {
					different[l.id] = true
				}
			}
			return len(different)
		}
		want := 0
		if is {
			want = 1
			eventually(t, 3*time.Minute, o.who.Email+" is told", func() bool { return told() > 0 })
		}
		if got := told(); got != want {
			t.Errorf("%s was told %d times that a factor was disabled, want %d", o.who.Email, got, want)
		}
	}
}
