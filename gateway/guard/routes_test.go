package guard_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
)

// mailer is a backend that mails people. Its answers tell who has an account, by
// status, header, body and time: for people it knows it works until it is released.
type mailer struct {
	*hostile
	working chan struct{} // nil: it works no time
	arrived chan struct{} // one for each request that asks for a mail

	mu    sync.Mutex
	asked []string // bodies, and queries, of what asks for a mail
	known map[string]bool
}

func newMailer() *mailer {
	return &mailer{hostile: newHostile(), arrived: make(chan struct{}, 1<<12), known: map[string]bool{alice: true, mallory: true}}
}

func (m *mailer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/reset", "/plain/reset", "/signup", "/invite", "/mail", "/password", "/tokens", "/reset/secret":
	default:
		m.hostile.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	m.asked = append(m.asked, string(body)+r.URL.RawQuery)
	known := false
	for name := range m.known {
		known = known || strings.Contains(string(body), name)
	}
	m.mu.Unlock()
	m.arrived <- struct{}{}
	switch {
	case strings.Contains(string(body), "too-old"):
		w.Header().Set("X-Form", "old")
		http.Error(w, "the form is too old", http.StatusBadRequest)
	case r.URL.Path == "/reset/secret":
		fmt.Fprintf(w, "changed: %s", body)
	case strings.Contains(string(body), "breaks") && known:
		http.Error(w, "no mail server", http.StatusInternalServerError)
	case known:
		if m.working != nil {
			<-m.working
		}
		http.SetCookie(w, &http.Cookie{Name: "asked", Value: "yes"})
		w.Header().Set("X-Account", "there")
		fmt.Fprint(w, "a mail is on its way")
	default:
		http.Error(w, "nobody has this address", http.StatusNotFound)
	}
}

func (m *mailer) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.asked)
}

// last is what it was asked last.
func (m *mailer) last(t *testing.T) string {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[len(m.asked)-1]
}

// wait waits until the backend was asked n times: it is asked behind the answer.
func (m *mailer) wait(t *testing.T, n int) {
	t.Helper()
	patience := time.After(20 * time.Second)
	for m.count() < n {
		select {
		case <-m.arrived:
		case <-patience:
			t.Fatalf("the backend was asked %d times, want %d", m.count(), n)
		}
	}
}

func answeringAfter(d time.Duration) option {
	return func(c *setup) { c.Policy.Routes.Answer = d }
}

func (c *client) reset(name string) reply {
	c.t.Helper()
	return c.do("POST", "/reset", "application/json", `{"email":"`+name+`"}`)
}

// passed is how many requests for a mail were passed on, as the events say.
func (g *gate) passed() (n int) {
	for _, e := range g.happened() {
		if e.Kind == detectors.Request && e.Outcome == detectors.Unknown {
			n++
		}
	}
	return n
}

// visible is all that a client sees of an answer.
func visible(r reply) string {
	h := maps.Clone(map[string][]string(r.header))
	delete(h, "Date")
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lines = append(lines, name+": "+strings.Join(h[name], ", "))
	}
	return fmt.Sprintf("%d\n%s\n\n%s", r.status, strings.Join(lines, "\n"), r.body)
}

// Whoever asks for a reset learns nothing of the account, nor of who asked before.
func TestResetTellsNothing(t *testing.T) {
	const after = 50 * time.Millisecond
	for _, kind := range []struct{ name, accept, want string }{
		{"a program", "application/json", `"title"`}, {"a browser", "text/html", "<!doctype html>"}, {"a Japanese browser", "text/html; ja", "受け付けました"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			backend := newMailer()
			g := newGate(t, "mailer", backend, answeringAfter(after))
			var first string
			ask := func(name string) {
				t.Helper()
				c := g.client(t)
				c.header.Set("Accept", strings.TrimSuffix(kind.accept, "; ja"))
				if strings.HasSuffix(kind.accept, "ja") {
					c.header.Set("Accept-Language", "ja")
				}
				began := time.Now()
				got := c.reset(name)
				took := time.Since(began)
				t.Logf("%s: %v", name, took)
				if took < after {
					t.Errorf("%s: answered after %v, want %v whatever the backend does", name, took, after)
				}
				if first == "" {
					first = visible(got)
					if got.status != http.StatusAccepted || !strings.Contains(strings.ToLower(got.body), kind.want) {
						t.Errorf("the answer is %s", first)
					}
				}
				if v := visible(got); v != first {
					t.Errorf("%s is answered\n%s\nand others\n%s", name, v, first)
				}
			}
			ask("nobody@example.com")
			backend.wait(t, 1)
			// The backend works on a known account until long after the answer.
			release := make(chan struct{})
			backend.working = release
			ask(alice)
			backend.wait(t, 2)
			close(release)
			for range 5 { // the limit is hit for one that exists and one that does not
				ask(alice)
				ask("nobody@example.com")
			}
			backend.wait(t, 6)
			if n := backend.count(); n != 6 {
				t.Errorf("the backend was asked %d times, want 3 for each address", n)
			}
			ask("breaks+" + mallory) // its mail server is away, which it notices for those it knows
		})
	}
}

// A thousand requests for one mailbox, in all its spellings and from two hundred
// networks at once, are not more mails than the limit says.
func TestNobodysMailboxIsFilled(t *testing.T) {
	backend := newMailer()
	g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
	spellings := []string{alice, "ALICE@example.com", "al.ice@example.com", "alice+%d@example.com", "Alice <alice@example.com>", "ａlice@example.com"}
	work := make(chan int)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := range work {
				c := g.client(t)
				c.header.Set(address, fmt.Sprintf("2001:db8:0:%x::%x", i%200, i+1))
				name := spellings[i%len(spellings)]
				if strings.Contains(name, "%") {
					name = fmt.Sprintf(name, i)
				}
				if got := c.reset(name); got.status != http.StatusAccepted {
					t.Errorf("request %d: %d %s", i, got.status, got.body)
				}
			}
		})
	}
	for i := range 1000 {
		work <- i
	}
	close(work)
	clients.Wait()
	n := g.passed()
	backend.wait(t, n)
	if n != 3 {
		t.Errorf("%d of 1,000 requests were passed on, want 3", n)
	}
	refused := 0
	for _, e := range g.happened() {
		if e.Kind == detectors.Request && e.Outcome == detectors.Refused && e.Route == detectors.Reset && e.Reason == string(policies.ReasonLimit) {
			refused++
		}
	}
	if refused != 997 {
		t.Errorf("%d refusals can be counted by rules, want 997", refused)
	}
	g.advance(20 * time.Minute)
	g.client(t).reset(alice)
	backend.wait(t, 4)
}

// Nodes that share their buckets and keys let through together what one would.
func TestNodesCountTogether(t *testing.T) {
	first, second := newMailer(), newMailer()
	a := newGate(t, "mailer", first, answeringAfter(time.Millisecond))
	b := newGate(t, "mailer", second, answeringAfter(time.Millisecond))
	b.core.Attempts, b.core.Digest = a.core.Attempts, a.core.Digest
	for i := range 20 {
		g := []*gate{a, b}[i%2]
		c := g.client(t)
		c.header.Set(address, fmt.Sprintf("203.0.113.%d", i))
		if got := c.reset(alice); got.status != http.StatusAccepted {
			t.Errorf("request %d: %s", i, visible(got))
		}
	}
	if n := a.passed() + b.passed(); n != 3 {
		t.Errorf("%d were passed on, want 3", n)
	}
}

// crowd makes the address of clients that name none one that many are known to log in
// from: rules leave it alone, and limits are what stands there.
func (g *gate) crowd() {
	at := netip.MustParseAddr("198.51.100.1")
	for i := range 12 {
		e := detectors.Event{Time: g.clock(), Kind: detectors.Login, Outcome: detectors.Success, Account: detectors.Account(fmt.Sprintf("colleague-%d", i)),
			AccountSince: g.clock().AddDate(-1, 0, 0), Source: detectors.Source{Address: at, Network: detectors.CountingNetwork(at)}}
		g.core.Detectors.Observe(g.core.Detectors.Facts(e))
	}
}

// Three hundred people behind one address, whose browsers are new, reset their
// passwords within an hour.
func TestOfficeResetsOnMonday(t *testing.T) {
	backend := newMailer()
	g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
	const people, rush = 300, 120
	g.crowd()
	for i := range people {
		if got := g.client(t).reset(fmt.Sprintf("person-%d@office.example", i)); got.status != http.StatusAccepted {
			t.Fatalf("person %d: %d %s", i, got.status, got.body)
		}
		if i < rush { // the first 120 come within five minutes
			g.advance(5 * time.Minute / rush)
		} else {
			g.advance(55 * time.Minute / (people - rush))
		}
	}
	backend.wait(t, people)
	// A list of addresses is another thing.
	refused := 0
	for i := range 400 {
		if got := g.client(t).reset(fmt.Sprintf("listed-%d@office.example", i)); got.status == http.StatusTooManyRequests {
			refused++
			if got.header.Get("Retry-After") == "" || got.header.Get("RateLimit") != "" {
				t.Errorf("refused with %v, want Retry-After and nothing that counts", got.header)
			}
		}
	}
	if refused < 250 {
		t.Errorf("%d of 400 at once were refused, want those beyond the burst of 150", refused)
	}
}

// A stranger who uses up what an address may be asked for does not keep its owner
// from a reset on a device of theirs.
func TestStrangersDoNotPreventAReset(t *testing.T) {
	backend := newMailer()
	g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
	g.crowd()
	owner := g.client(t)
	owner.login(alice, "correct-alice")
	owner.do("POST", "/logout", "", "")
	for i := range 200 {
		c := g.client(t)
		c.header.Set(address, fmt.Sprintf("203.0.113.%d", i))
		c.reset(alice)
	}
	for i := range 300 { // the owner's own address is used up, too
		g.client(t).reset(fmt.Sprintf("listed-%d@example.com", i))
	}
	before := g.passed()
	for range 7 {
		owner.reset(alice)
	}
	if n := g.passed() - before; before != 3+150 || n != 5 {
		t.Errorf("strangers passed %d times and the owner %d, want 3, 150 of a network, and the 5 of a device", before, n)
	}
	last := g.happened()
	if e := last[len(last)-1]; e.Account != alice || !e.Device.Known() || e.Name.Digest.IsZero() {
		t.Errorf("the event is %+v, want alice, by her device", e)
	}
}

// What is no request for a mail, and what says that the request itself is wrong, is
// answered by the backend.
func TestWhatIsPassedOn(t *testing.T) {
	backend := newMailer()
	g := newGate(t, "mailer", backend, answeringAfter(200*time.Millisecond))
	for _, test := range []struct {
		name, method, path, contentType, body string
		status                                int
		want                                  string
	}{
		{"behind a mailed link", "POST", "/reset/secret", "application/x-www-form-urlencoded", "email=alice%40example.com&new_password=x", 200,
			"changed: email=alice%40example.com&new_password=x"},
		{"nobody is named", "POST", "/reset", "application/json", `{"new_password":"x"}`, 404, "nobody has this address\n"},
		{"a wrong form", "POST", "/reset", "application/json", `{"email":"alice@example.com","form":"too-old"}`, 400, "the form is too old\n"},
		{"a page", "GET", "/plain/reset", "", "", 404, "nobody has this address\n"},
	} {
		got := g.client(t).do(test.method, test.path, test.contentType, test.body)
		if got.status != test.status || got.body != test.want || got.header.Get("X-Form") != "" {
			t.Errorf("%s: %s, want %d %q", test.name, visible(got), test.status, test.want)
		}
	}
	got := g.client(t).do("GET", "/plain/reset?email=alice%40example.com", "", "")
	if got.status != http.StatusAccepted {
		t.Errorf("a request in the query: %s", visible(got))
	}
	// Pictures come along from people who are known only.
	large := `{"email":"alice@example.com","picture":"` + strings.Repeat("x", 70_000) + `"}`
	if got := g.client(t).do("POST", "/invite", "application/json", large); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large invitation by nobody: %s", visible(got))
	}
	member := g.client(t)
	member.login(alice, "correct-alice")
	if got := member.do("POST", "/invite", "application/json", large); got.status != 200 || backend.last(t) != large {
		t.Errorf("a large invitation by a member: %s", visible(got))
	}
	// In the words of the preset, or as the backend does.
	json := g.client(t)
	if got := json.do("POST", "/signup", "application/json", `{"mail":"new@example.com"}`); got.status != 200 || got.body != "look into your mailbox" || got.header.Get("X-Backend") != "mailer" {
		t.Errorf("a signup: %s", visible(got))
	}
	if got := g.client(t).do("POST", "/invite", "application/json", `{"email":"alice@example.com"}`); got.status != 200 || got.header.Get("X-Account") != "there" {
		t.Errorf("an invitation: %s", visible(got))
	}
}

// A request that could be about two people is about none.
func TestTwofoldRequests(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	many := `{"email":["` + strings.Repeat("a@example.com,b@example.com,", 40) + `c@example.com"`
	for i := range 70 {
		many += fmt.Sprintf(`,"u%d@example.com"`, i)
	}
	backend := newMailer()
	g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
	for i, test := range []struct {
		name, path, contentType, body string
		status                        int
	}{
		{"twice", "/reset", form, "email=alice%40example.com&email=bob%40example.com", 400},
		{"twice the same", "/reset", form, "email=bob%40example.com&email=bob%40example.com", 202},
		{"twice in JSON", "/reset", "application/json", `{"email":"alice@example.com","email":"bob@example.com"}`, 400},
		{"an array", "/reset", "application/json", `{"email":["alice@example.com","bob@example.com"]}`, 400},
		{"another type", "/reset", form, `{"email":"alice@example.com"}`, 400},
		{"query and body", "/reset?email=bob%40example.com", "application/json", `{"email":"alice@example.com"}`, 400},
		{"broken", "/reset", "application/json", `{"email":"alice@example.com"`, 400},
		{"large", "/reset", "application/json", `{"email":"alice@example.com","x":"` + strings.Repeat("x", 70_000) + `"}`, 413},
		{"an address and a name", "/reset", form, "email=bob%40example.com&username=bob", 202},
		{"wrapped", "/reset", form, "user%5Bemail%5D=carol%40example.com", 202},
		{"several in one field", "/reset", "application/json", `{"email":"alice@example.com,bob@example.com"}`, 400},
		{"several are invited", "/invite", "application/json", `{"email":["bob@example.com","carol@example.com"]}`, 404},
		{"very many are invited", "/invite", "application/json", many + `]}`, 400},
	} {
		c := g.client(t)
		c.header.Set(address, fmt.Sprintf("203.0.113.%d", i))
		before, passed := backend.count(), g.passed()
		got := c.do("POST", test.path, test.contentType, test.body)
		if got.status != test.status {
			t.Errorf("%s: %s, want %d", test.name, visible(got), test.status)
		}
		if refused := test.status == 400 || test.status == 413; refused != (g.passed() == passed) || refused && backend.count() != before {
			t.Errorf("%s: %d events tell that it was passed on, the backend was asked %d times", test.name, g.passed()-passed, backend.count()-before)
		}
		if !(test.status == 400 || test.status == 413) {
			backend.wait(t, before+1)
		}
	}
}

// Each class draws from its own buckets.
func TestRoutesAreLimited(t *testing.T) {
	const body = `{"email":"somebody-%d@example.com","password":"x"}`
	for _, test := range []struct {
		name, path string
		in         bool // as alice
		most       int  // passes at once
		class      detectors.RouteClass
	}{
		{"signups of a network", "/signup", false, 50, detectors.Signup},
		{"a change of mail", "/mail", true, 5, detectors.ChangeEmail},
		{"a change of password", "/password", true, 20, detectors.ChangePassword},
		{"tokens", "/tokens", true, 20, detectors.TokenMint},
		{"invitations of an account", "/invite", true, 100, detectors.Invite},
	} {
		t.Run(test.name, func(t *testing.T) {
			backend := newMailer()
			g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
			g.crowd()
			c := g.client(t)
			if test.in {
				c.login(alice, "correct-alice")
			}
			passed := 0
			for i := range test.most + 5 {
				if i%2 == 1 && !test.in {
					c = g.client(t) // without the cookie that the first attempt may have left
				}
				if test.in {
					c.header.Set(address, fmt.Sprintf("203.0.113.%d", i))
				}
				if got := c.do("POST", test.path, "application/json", fmt.Sprintf(body, i)); got.status != http.StatusTooManyRequests {
					passed++
				}
			}
			if passed != test.most || g.passed() != test.most {
				t.Errorf("%d passed, and events say %d, want %d", passed, g.passed(), test.most)
			}
			events := g.happened()
			if e := events[len(events)-1]; e.Route != test.class || e.Outcome != detectors.Refused || test.in && e.Account != alice {
				t.Errorf("the last event is %+v", e)
			}
		})
	}
}

// A route is its class's whatever method a client claims in a header.
func TestOverridesDoNotEvadeLimits(t *testing.T) {
	backend := newMailer()
	g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
	for range 10 {
		c := g.client(t)
		c.header.Set("X-HTTP-Method-Override", "PUT")
		if got := c.reset(alice); got.status != http.StatusAccepted {
			t.Errorf("= %s", visible(got))
		}
	}
	if n := g.passed(); n != 3 {
		t.Errorf("%d were passed on, want 3", n)
	}
}

// In observe mode the backend answers, and the ledger knows what the gate would have
// done.
func TestObservedRoutes(t *testing.T) {
	backend := newMailer()
	g := newGate(t, "mailer", backend, observing(t), answeringAfter(time.Hour))
	for i := range 10 {
		if got := g.client(t).reset(alice); got.status != 200 || got.header.Get("X-Account") != "there" {
			t.Errorf("request %d: %s", i, visible(got))
		}
	}
	if got := g.client(t).do("POST", "/reset", "application/json", `{"email":"a@example.com","email":"b@example.com"}`); got.status != 404 {
		t.Errorf("one that the gate would not have passed on: %s", visible(got))
	}
	if err := g.core.Ledger.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := g.core.Ledger.Report(t.Context(), g.clock().Add(-time.Hour), g.clock().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[policies.Reason]int64)
	for _, row := range rows {
		if row.Control == string(guard.ControlLimits) && row.Shadow {
			told[row.Reason] += int64(row.Count)
		}
	}
	if told[policies.ReasonLimit] != 7 || told[policies.ReasonAmbiguous] != 1 {
		t.Errorf("the ledger says %v, want 7 beyond the limit and 1 ambiguous", told)
	}
}

// Limits hold and answers stay uniform while the database is away.
func TestResetsWithoutADatabase(t *testing.T) {
	backend := newMailer()
	g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
	g.db.Close()
	for range 5 {
		if got := g.client(t).reset(alice); got.status != http.StatusAccepted {
			t.Errorf("= %s", visible(got))
		}
	}
	if n := g.passed(); n != 3 {
		t.Errorf("%d were passed on, want 3", n)
	}
}

// A backend that makes somebody of a visitor while it is asked for a reset has opened
// a door that the gate sees.
func TestResetOpensNoDoor(t *testing.T) {
	backend := newMailer()
	mux := http.NewServeMux()
	mux.Handle("/", backend)
	var asked sync.WaitGroup
	asked.Add(1)
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, r *http.Request) {
		defer asked.Done()
		sid, err := r.Cookie("sid")
		if err != nil {
			t.Errorf("the visitor's cookie did not reach the backend: %v", err)
			return
		}
		backend.hostile.mu.Lock()
		defer backend.hostile.mu.Unlock()
		backend.sessions[sid.Value] = alice
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: "other", Path: "/"})
	})
	g := newGate(t, "mailer", mux, answeringAfter(time.Millisecond))
	c := g.client(t)
	c.get("/login") // makes a visitor of the client
	sid := c.cookies["sid"]
	if got := c.reset(alice); len(got.set) > 0 || c.cookies["sid"] != sid {
		t.Errorf("the reset hands out %v", got.set)
	}
	asked.Wait()
	for end := time.Now().Add(10 * time.Second); ; {
		c.get("/login") // a public page: what it shows is not looked into
		if !strings.Contains(backend.hostile.last().Get("Cookie"), sid) {
			break // it was forgotten that this was a visitor
		}
		if time.Now().After(end) {
			t.Fatal("the backend is shown the cookie that is alice's now, without a session of ours")
		}
	}
	c.cookies["sid"] = sid
	c.wantSecret("")
}

// More requests than the gate holds are refused, whoever they are about.
func TestBackendThatHangs(t *testing.T) {
	backend := newMailer()
	backend.working = make(chan struct{})
	defer close(backend.working)
	for i := range 300 {
		backend.known[fmt.Sprintf("person-%d@example.com", i)] = true
	}
	g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond), func(c *setup) {
		c.Policy.Routes.Reset.Network = policies.Allowance{}
	})
	g.crowd()
	statuses := make(map[int]int)
	for i := range 300 {
		got := g.client(t).reset(fmt.Sprintf("person-%d@example.com", i))
		statuses[got.status]++
	}
	if statuses[http.StatusAccepted] != 256 || statuses[http.StatusServiceUnavailable] != 44 {
		t.Errorf("answers: %v, want 256 and the others 503", statuses)
	}
}

// FuzzReset holds that no body makes the gate answer in another way about somebody who
// is known than about somebody who is not.
func FuzzReset(f *testing.F) {
	f.Add("application/json", `{"email":"NAME"}`)
	f.Add("application/x-www-form-urlencoded", "email=NAME&username=x")
	f.Add("multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\nNAME\r\n--B--\r\n")
	f.Add("text/plain", "mail=NAME")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		if !strings.Contains(body, "NAME") || strings.Contains(body, "too-old") {
			return
		}
		for _, r := range contentType {
			if r < ' ' || r > '~' {
				return
			}
		}
		var statuses [2]int
		var seen [2]string
		for i, name := range []string{"alice@example.com", "nicht@example.com"} {
			backend := newMailer()
			g := newGate(t, "mailer", backend, answeringAfter(time.Millisecond))
			r := httptest.NewRequest("POST", g.URL+"/reset", strings.NewReader(strings.ReplaceAll(body, "NAME", name)))
			r.RequestURI = ""
			r.Header.Set("Content-Type", contentType)
			res, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				return // not a header
			}
			text, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == 404 {
				return // nobody is named, as far as the gate can see
			}
			statuses[i] = res.StatusCode
			seen[i] = visible(reply{status: res.StatusCode, header: res.Header, body: string(text)})
		}
		if statuses[0] != statuses[1] || statuses[0] == http.StatusAccepted && seen[0] != seen[1] { // a refusal has a reference of its own
			t.Errorf("%q %q: %s\n%s", contentType, body, seen[0], seen[1])
		}
	})
}
