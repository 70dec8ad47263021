package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// pocketbase is an unmodified PocketBase with a superuser, an account and a
// collection of notes that accounts may read.
type pocketbase struct {
	*service
	root      string // a token that the service itself gave the superuser
	superuser string // id of root
	user      string // id of ann
}

const (
	pocketbaseRoot = "root@acme.example"
	pocketbaseUser = "ann@acme.example"
)

func newPocketBase(t testing.TB) *pocketbase {
	t.Helper()
	program := backendProgram(t, "base")
	s := &service{preset: "pocketbase", address: "127.0.0.1:" + drillPort(t), dir: t.TempDir()}
	data := "--dir=" + s.dir + "/data"
	upsert := exec.Command(program, data, "superuser", "upsert", pocketbaseRoot, drillAdminPassword)
	upsert.Dir, upsert.Env = s.dir, os.Environ()
	if said, err := upsert.CombinedOutput(); err != nil {
		t.Fatalf("making a superuser: %v, %.2000s", err, said)
	}
	startService(t, s, program, []string{data, "serve", "--http=" + s.address}, nil, "/api/health")
	p := &pocketbase{service: s}
	v := newVisitor("127.0.0.1")
	root := p.login(t, v, s.address, "_superusers", pocketbaseRoot, drillAdminPassword)
	p.root, p.superuser = root.Token, root.Record.ID
	made := v.api(t, s.address, http.MethodPost, "/api/collections/users/records",
		fmt.Sprintf(`{"email":%q,"password":%q,"passwordConfirm":%[2]q}`, pocketbaseUser, drillUserPassword), "Authorization", p.root)
	if p.user = recordOf(made).ID; p.user == "" {
		t.Fatalf("making an account: %d, %s", made.status, made.body)
	}
	if made := v.api(t, s.address, http.MethodPost, "/api/collections",
		`{"name":"notes","type":"base","fields":[{"name":"text","type":"text"}],"listRule":"@request.auth.id != ''","viewRule":"@request.auth.id != ''"}`,
		"Authorization", p.root); made.status != http.StatusOK {
		t.Fatalf("making a collection: %d, %s", made.status, made.body)
	}
	p.note(t, "the first")
	return p
}

// note writes a note behind the gate.
func (p *pocketbase) note(t testing.TB, text string) {
	t.Helper()
	made := newVisitor("127.0.0.1").api(t, p.address, http.MethodPost, "/api/collections/notes/records", fmt.Sprintf(`{"text":%q}`, text), "Authorization", p.root)
	if made.status != http.StatusOK {
		t.Fatalf("writing a note: %d, %s", made.status, made.body)
	}
}

// grant is the answer to a log-in.
type grant struct {
	reply
	Token  string `json:"token"`
	Record struct {
		ID string `json:"id"`
	} `json:"record"`
}

func granted(r reply) grant {
	g := grant{reply: r}
	_ = json.Unmarshal([]byte(r.body), &g) // without a token it is none
	return g
}

func recordOf(r reply) (made struct {
	ID string `json:"id"`
}) {
	_ = json.Unmarshal([]byte(r.body), &made)
	return made
}

func (p *pocketbase) login(t testing.TB, v *visitor, address, collection, name, password string) grant {
	t.Helper()
	return granted(v.api(t, address, http.MethodPost, "/api/collections/"+collection+"/auth-with-password",
		fmt.Sprintf(`{"identity":%q,"password":%q}`, name, password)))
}

// notes is how many notes v gets to see with a token.
func (p *pocketbase) notes(t testing.TB, v *visitor, address, token string) int {
	t.Helper()
	r := v.api(t, address, http.MethodGet, "/api/collections/notes/records", "", "Authorization", token)
	var page struct {
		Items []json.RawMessage `json:"items"`
	}
	_ = json.Unmarshal([]byte(r.body), &page)
	return len(page.Items)
}

// events opens the stream of what happens, as a page does, and returns its lines
// until it ends.
func (v *visitor) events(t testing.TB, address string) (lines <-chan string, client string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/api/realtime", nil)
	if err != nil {
		t.Fatal(err)
	}
	v.dress(r)
	r.Header.Set("Accept", "text/event-stream")
	resp, err := (&http.Client{}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the stream: %d", resp.StatusCode)
	}
	out := make(chan string, 100)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			select {
			case out <- s.Text():
			default: // more than a drill has
			}
		}
	}()
	first := awaitLine(t, out, "clientId")
	_, first, _ = strings.Cut(first, `"clientId":"`)
	client, _, _ = strings.Cut(first, `"`)
	return out, client
}

// awaitLine waits for a line with text; "" waits for the end.
func awaitLine(t testing.TB, lines <-chan string, text string) string {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case line, open := <-lines:
			switch {
			case !open && text == "":
				return ""
			case !open:
				t.Fatalf("the stream ended before %q came", text)
			case text != "" && strings.Contains(line, text):
				return line
			}
		case <-late:
			t.Fatalf("the stream waits for %q", text)
		}
	}
}

// TestPocketBaseBehindTheGate is a service whose token is in a body and lives in the
// browser's storage, for days and without a log-out.
func TestPocketBaseBehindTheGate(t *testing.T) {
	t.Parallel()
	p := newPocketBase(t)
	n := guardService(t, p.service, front{})
	gate := n.site
	ann := newVisitor("198.51.100.20")

	for _, name := range []string{pocketbaseUser, "nobody@acme.example"} {
		if got := p.login(t, ann, gate, "users", name, "wrong"); got.status != http.StatusBadRequest || got.Token != "" {
			t.Fatalf("a wrong pair: %d, %s", got.status, got.body)
		}
	}
	in := p.login(t, ann, gate, "users", pocketbaseUser, drillUserPassword)
	if in.Token == "" || ann.cookies["__Host-kidoban"] == "" {
		t.Fatalf("the right pair: %d, %s, cookies %v\n%s", in.status, in.body, jar(ann.cookies), n.said())
	}
	if got := p.notes(t, ann, gate, in.Token); got != 1 {
		t.Fatalf("%d notes, want 1", got)
	}
	if got := p.notes(t, ann, gate, "Bearer "+in.Token); got != 1 {
		t.Fatalf("as a bearer: %d notes, want 1", got)
	}
	if seen := n.outcomes(3); seen["failure"] != 2 || seen["success"] != 1 {
		t.Errorf("the gate saw %v, want 2 failures and 1 success", seen)
	}

	t.Run("a copied token opens nothing", func(t *testing.T) {
		thief := newVisitor("203.0.113.7")
		for _, token := range []string{in.Token, "Bearer " + in.Token, p.root} {
			if p.notes(t, thief, p.address, token) != 1 {
				t.Fatal("the service itself does not take the token: nothing is shown")
			}
			if got := p.notes(t, thief, gate, token); got != 0 {
				t.Errorf("a copy shows %d notes", got)
			}
		}
		refresh := granted(thief.api(t, gate, http.MethodPost, "/api/collections/users/auth-refresh", "", "Authorization", in.Token))
		if refresh.Token != "" {
			t.Error("a copy is renewed")
		}
	})
	t.Run("superusers log in the same way", func(t *testing.T) {
		v := newVisitor("198.51.100.30")
		settings := func(token string) int {
			return v.api(t, gate, http.MethodGet, "/api/settings", "", "Authorization", token).status
		}
		if got := settings(p.root); got != http.StatusUnauthorized {
			t.Errorf("a token that the gate never saw: %d, want 401", got)
		}
		root := p.login(t, v, gate, "_superusers", pocketbaseRoot, drillAdminPassword)
		if got := settings(root.Token); root.Token == "" || got != http.StatusOK {
			t.Fatalf("through the gate: %d, settings %d", root.status, got)
		}
		// Another's token, made by a superuser, is let out and opens nothing here.
		other := granted(v.api(t, gate, http.MethodPost, "/api/collections/users/impersonate/"+p.user, `{"duration":3600}`, "Authorization", root.Token))
		if other.Token == "" || p.notes(t, v, p.address, other.Token) != 1 {
			t.Fatalf("impersonating: %d, %s", other.status, other.body)
		}
		if got := p.notes(t, newVisitor("198.51.100.31"), gate, other.Token); got != 0 {
			t.Errorf("another's token shows %d notes", got)
		}
	})
	t.Run("streams belong to sessions", func(t *testing.T) {
		if got := newVisitor("203.0.113.7").api(t, gate, http.MethodGet, "/api/realtime", ""); got.status != http.StatusForbidden {
			t.Errorf("a stream without a session: %d, want 403", got.status)
		}
	})

	lines, client := ann.events(t, gate)
	if got := ann.api(t, gate, http.MethodPost, "/api/realtime", fmt.Sprintf(`{"clientId":%q,"subscriptions":["notes"]}`, client), "Authorization", in.Token); got.status != http.StatusNoContent {
		t.Fatalf("subscribing: %d, %s", got.status, got.body)
	}
	p.note(t, "the second")
	awaitLine(t, lines, "the second")

	// The renewed token is of the same session, and so ends with it.
	renewed := granted(ann.api(t, gate, http.MethodPost, "/api/collections/users/auth-refresh", "", "Authorization", in.Token))
	if renewed.Token == "" || p.notes(t, ann, gate, renewed.Token) != 2 {
		t.Fatalf("renewing: %d, %s", renewed.status, renewed.body)
	}
	if got := p.notes(t, newVisitor("203.0.113.7"), gate, renewed.Token); got != 0 {
		t.Errorf("a copy of the renewed token shows %d notes", got)
	}
	began := time.Now()
	n.endAll("_pb_users_auth_/" + p.user)
	awaitLine(t, lines, "")
	t.Logf("the stream ended %v after the operator's word", time.Since(began))
	for name, token := range map[string]string{"the first token": in.Token, "the renewed token": renewed.Token} {
		if p.notes(t, ann, p.address, token) != 2 {
			t.Fatalf("%s: the service itself does not take it: nothing is shown", name)
		}
		if got := p.notes(t, ann, gate, token); got != 0 {
			t.Errorf("%s shows %d notes after the end", name, got)
		}
	}
	if again := p.login(t, ann, gate, "users", pocketbaseUser, drillUserPassword); again.Token == "" || p.notes(t, ann, gate, again.Token) != 2 {
		t.Errorf("in again: %d", again.status)
	}
}

// TestSuperusersPageBehindTheGate is the service's own page as a person uses it: in
// with the right password, and out when the session ends, whatever its storage holds.
func TestSuperusersPageBehindTheGate(t *testing.T) {
	t.Parallel()
	b := browse(t, "en", 1280, 800)
	p := newPocketBase(t)
	n := guardService(t, p.service, front{})
	entry := "http://" + n.site + "/_/"
	submit := func(password string) {
		b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(entry+"#/login"), chromedp.WaitVisible(css(`input[type="password"]`)),
			chromedp.SendKeys(css(`.form-field input[type="email"]`), pocketbaseRoot), chromedp.SendKeys(css(`input[type="password"]`), password),
			chromedp.Click(css("button.btn-next")))
	}
	submit("wrong")
	b.do(chromedp.WaitVisible(css(".alert-danger")))
	if got := b.text(css(".alert-danger .content")); got != "Invalid login credentials." {
		t.Errorf("a wrong password: it says %q", got)
	}
	submit(drillAdminPassword)
	b.do(chromedp.WaitVisible(css("aside.app-sidebar")), chromedp.WaitVisible(css("a.sidebar-list-item")))
	b.shot("pocketbase-in")
	n.endAll("pbc_3142635823/" + p.superuser)
	b.do(chromedp.Reload(), chromedp.WaitVisible(css(`input[type="password"]`)))
	b.shot("pocketbase-out")
}
