package guard_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// suspect is an address whose log-ins are stepped up.
const suspect = "203.0.113.7"

// chance is what of an answer is random: secrets, ids, codes, and times that clients
// are told with jitter. Its length is not.
var chance = regexp.MustCompile(`[A-Za-z0-9_-]{43}|[A-Z2-7]{26}|[A-Za-z0-9_-]{22}|[0-9A-Z]{4}-[0-9A-Z]{4}|Retry-After: [0-9]+`)

// transcript is what a client saw, without what is random.
type transcript struct {
	lines []string
	slow  time.Duration // the longest answer
}

func (tr *transcript) note(what string, do func() reply) reply {
	began := time.Now()
	got := do()
	tr.slow = max(tr.slow, time.Since(began))
	seen := chance.ReplaceAllStringFunc(visible(got), func(s string) string {
		if strings.HasPrefix(s, "Retry-After") {
			return "Retry-After"
		}
		return strings.Repeat("x", len(s))
	})
	tr.lines = append(tr.lines, strings.Split("== "+what+"\n"+seen, "\n")...)
	return got
}

// steppedUpGate is a gate where log-ins from suspect are stepped up. Whoever is known has
// logged in before, from elsewhere.
func steppedUpGate(t *testing.T, known, hasApp bool, policy string) (*gate, *app) {
	t.Helper()
	g := newGate(t, "hostile", newHostile(), withFactors(t, policy), answeringAfter(time.Millisecond))
	if known {
		c := g.client(t)
		c.header.Set(address, "192.0.2.1")
		if got := c.login(alice, "correct-alice"); got.status != http.StatusOK {
			t.Fatalf("the owner's first login: %d", got.status)
		}
	}
	var phone *app
	if hasApp {
		phone = g.enrol(t, alice)
	}
	if _, err := g.core.Decisions.Register(t.Context(), policies.Decision{
		Scope: policies.ScopeAddress, Value: suspect, Action: rules.StepUp, Mode: rules.Enforce,
		Origin: policies.OriginOperator, By: "test", Reason: "test", Until: g.clock().Add(24 * time.Hour),
	}, g.clock()); err != nil {
		t.Fatal(err)
	}
	return g, phone
}

// thief is a client at the suspect address.
func (g *gate) thief(t *testing.T, browser bool) *client {
	c := g.client(t)
	if browser {
		c = g.browser(t)
	}
	c.header.Set(address, suspect)
	return c
}

// TestThiefLearnsNothing compares, byte by byte, all that a thief sees who tries a right
// password and a wrong one while log-ins from where he is are stepped up.
func TestThiefLearnsNothing(t *testing.T) {
	factor := func(c *client, path string) func() reply {
		return func() reply { return c.get("/.kidoban/" + path) }
	}
	post := func(c *client, path, token string, fields ...string) func() reply {
		return func() reply { return c.form("/.kidoban/"+path, append([]string{"csrf", token}, fields...)...) }
	}
	login := func(c *client, password string) func() reply {
		return func() reply { return c.form("/login", "email", alice, "password", password) }
	}
	scripts := map[string]func(t *testing.T, g *gate, tr *transcript, password string){
		"a browser tries codes": func(t *testing.T, g *gate, tr *transcript, password string) {
			c := g.thief(t, true)
			tr.note("login", login(c, password))
			tr.note("navigation", func() reply { return c.get("/") })
			tr.note("secret", func() reply { return c.get("/secret") })
			page := tr.note("page", factor(c, "factor"))
			token := page.token(t)
			for i := range 8 {
				for _, code := range []string{"", "12", "000000", "00000000"} {
					tr.note(fmt.Sprint("code ", i, code), post(c, "factor", token, "code", code))
				}
				g.advance(10 * time.Second)
			}
			tr.note("recovery", post(c, "factor", token, "recovery", "ABCD-EFGH"))
			tr.note("key", post(c, "factor", token, "credential", "{}"))
			for _, path := range []string{"lost", "enrol", "enrol/totp", "resend", "nowhere"} {
				tr.note("GET "+path, factor(c, "factor/"+path))
				tr.note("POST "+path, post(c, "factor/"+path, token))
			}
			tr.note("again", login(c, password))
			tr.note("page", factor(c, "factor"))
			tr.note("cancel", post(c, "factor/cancel", token))
			tr.note("after it", factor(c, "factor"))
			tr.note("navigation", func() reply { return c.get("/") })
			tr.note("anew", login(c, password))
		},
		"a hold runs out": func(t *testing.T, g *gate, tr *transcript, password string) {
			c := g.thief(t, true)
			tr.note("login", login(c, password))
			g.advance(10*time.Minute - time.Second)
			tr.note("page", factor(c, "factor"))
			g.advance(time.Second)
			tr.note("over", factor(c, "factor"))
			g.core.Sweep(t.Context())
			g.core.Sweep(t.Context())
			c = g.thief(t, true)
			tr.note("login", login(c, password))
			tr.note("page", factor(c, "factor"))
		},
		"a program": func(t *testing.T, g *gate, tr *transcript, password string) {
			program := g.thief(t, false)
			program.header.Set("User-Agent", "chat-cli/2.1")
			try := func() reply { return program.login(alice, password) }
			told := problemOf(t, tr.note("login", try))
			tr.note("again", try)
			program.cookies = map[string]string{}
			if again := problemOf(t, tr.note("without cookies", try)); again.Continue != told.Continue {
				t.Errorf("a second hold for one pair: %v, %v", told, again)
			}
			path := strings.TrimPrefix(told.Continue, "https://chat.example/.kidoban/")
			person := g.thief(t, true)
			page := tr.note("continue", factor(person, path))
			tr.note("a wrong short code", post(person, path, page.token(t), "code", "BBBB-BBBB", "do", "continue"))
			tr.note("the short code", post(person, path, page.token(t), "code", told.Code, "do", "continue"))
			page = tr.note("page", factor(person, path))
			tr.note("code", post(person, path, page.token(t), "code", "000000"))
			tr.note("code", post(person, path, page.token(t), "code", "00000000"))
			tr.note("it was not me", post(person, path+"/cancel", page.token(t)))
			tr.note("after it", factor(person, path))
			told = problemOf(t, tr.note("anew", try))
			path = strings.TrimPrefix(told.Continue, "https://chat.example/.kidoban/")
			page = tr.note("continue", factor(person, path))
			for range 6 {
				tr.note("a wrong short code", post(person, path, page.token(t), "code", "BBBB-BBBB", "do", "continue"))
			}
			elsewhere := g.browser(t)
			elsewhere.header.Set(address, "192.0.2.99")
			told = problemOf(t, tr.note("anew", try))
			tr.note("elsewhere", factor(elsewhere, strings.TrimPrefix(told.Continue, "https://chat.example/.kidoban/")))
		},
		"as often as the limits allow": func(t *testing.T, g *gate, tr *transcript, password string) {
			for i := range 14 { // the name has ten tries
				c := g.thief(t, true)
				tr.note(fmt.Sprint("login ", i), login(c, password))
				tr.note("page", factor(c, "factor"))
				g.advance(7 * time.Second)
			}
		},
		"in strange ways": func(t *testing.T, g *gate, tr *transcript, password string) {
			c := g.thief(t, false)
			do := func(path, contentType, body string) func() reply {
				return func() reply { return c.do("POST", path, contentType, body) }
			}
			tr.note("another name beside it", do("/login", "application/json", `[{"email":"`+alice+`","password":"`+password+`"},{"email":"bob@example.com","password":"x"}]`))
			tr.note("twice", do("/login?email="+alice+"&password="+password, "application/x-www-form-urlencoded", "email="+alice+"&password="+password))
			tr.note("in the query", do("/login?email="+alice+"&password="+password, "", ""))
			c.header.Set("Sec-Fetch-Mode", "cors")
			tr.note("a script", do("/login", "application/json", `{"email":"`+alice+`","password":"`+password+`"}`))
		},
	}
	for _, account := range []struct {
		what          string
		known, hasApp bool
	}{{"has an app", true, true}, {"has no factor", true, false}, {"is new here", false, false}} {
		for what, script := range scripts {
			t.Run(account.what+", "+what, func(t *testing.T) {
				var seen [2]transcript
				for i, password := range []string{"correct-alice", "mistaken-alic"} {
					g, _ := steppedUpGate(t, account.known, account.hasApp, whoHasOne)
					script(t, g, &seen[i], password)
					for j := range seen[i].lines {
						seen[i].lines[j] = strings.ReplaceAll(seen[i].lines[j], g.URL, "")
					}
				}
				if diff := cmp.Diff(seen[0].lines, seen[1].lines); diff != "" {
					t.Errorf("the password shows (-right +wrong):\n%s", diff)
				}
				t.Logf("%d lines; the slowest answer took %v with the right password, %v with a wrong one", len(seen[0].lines), seen[0].slow, seen[1].slow)
			})
		}
	}
}

// TestStepUpThatCannotBeGiven: where nobody can be asked for a factor, all are refused.
func TestStepUpThatCannotBeGiven(t *testing.T) {
	for what, policy := range map[string]string{"who must enrol first": everybody, "no mail is sent": whoHasOne} {
		t.Run(what, func(t *testing.T) {
			var seen [2]transcript
			for i, password := range []string{"correct-alice", "mistaken-alic"} {
				g, _ := steppedUpGate(t, false, false, policy)
				g.core.Mailing.Store(what != "no mail is sent")
				c := g.thief(t, false)
				if got := seen[i].note("login", func() reply { return c.login(alice, password) }); got.status != http.StatusForbidden {
					t.Errorf("%s: %d, want a refusal", password, got.status)
				}
			}
			if diff := cmp.Diff(seen[0].lines, seen[1].lines); diff != "" {
				t.Errorf("the password shows (-right +wrong):\n%s", diff)
			}
		})
	}
}

// TestDecoyIsNobodys: a decoy leads nowhere, also with the right code of the account, and
// costs its owner nothing.
func TestDecoyIsNobodys(t *testing.T) {
	g, phone := steppedUpGate(t, true, true, whoHasOne)
	for i := range 8 {
		c := g.thief(t, true)
		page := c.held(alice, fmt.Sprint("wrong-", i))
		for range 3 {
			if got := c.give(page, phone.code()); got.status != http.StatusUnprocessableEntity {
				t.Fatalf("a right code at a decoy: %d\n%s", got.status, got.body)
			}
			c.give(page, "000000")
		}
		c.form("/.kidoban/factor/key", "csrf", page.token(t))
		c.wantSecret("")
		g.advance(10 * time.Minute)
	}
	factors, err := g.core.Factors.List(t.Context(), alice)
	if err != nil || len(factors) != 1 || factors[0].Failures != 0 || factors[0].State != auth.FactorActive {
		t.Errorf("the owner's app is %+v, %v; want it untouched", factors, err)
	}
	holds, err := g.core.Holds.OfSubject(t.Context(), alice, g.clock())
	if err != nil || len(holds) != 0 {
		t.Errorf("%d holds of the account, %v", len(holds), err)
	}
	g.core.Sweep(t.Context())
	g.core.Sweep(t.Context())
	for _, n := range g.letters(t, alice) {
		if n.Template != "factor.added" {
			t.Errorf("the owner was told %s", n.Template)
		}
	}
	var rest int
	if err := g.db.SQL().QueryRow(`SELECT count(*) FROM auth_holds WHERE subject LIKE 'nobody %'`).Scan(&rest); err != nil || rest != 0 {
		t.Errorf("%d decoys are kept when they are over, %v", rest, err)
	}
	// The owner, from there, with the right password and the app.
	c := g.thief(t, true)
	if got := c.through(c.give(c.held(alice, "correct-alice"), phone.code())); got.status != http.StatusOK || !strings.Contains(got.body, "welcome") {
		t.Fatalf("the owner: %d\n%s", got.status, got.body)
	}
}

// TestDecoyApproved: not even who approves holds past all that has anything of a decoy.
func TestDecoyApproved(t *testing.T) {
	g, _ := steppedUpGate(t, true, true, whoHasOne)
	program := g.thief(t, false)
	told := problemOf(t, program.login(alice, "wrong"))
	id := told.Continue[strings.LastIndex(told.Continue, "/")+1:]
	if _, err := g.core.Holds.Approve(t.Context(), id, auth.Approval{Hold: id, AAL: 1, By: "test"}, auth.Act{By: "test"}, g.clock()); err != nil {
		t.Fatal(err)
	}
	if got := program.login(alice, "wrong"); got.status != http.StatusUnauthorized || strings.Contains(got.body, "welcome") {
		t.Errorf("released: %d %s", got.status, got.body)
	}
	program.wantSecret("")
	g.wantOneSession(t, alice)
}

// wantOneSession asserts that an account has the session of its owner and no other.
func (g *gate) wantOneSession(t *testing.T, subject string) {
	t.Helper()
	all, err := g.core.Sessions.OfSubject(t.Context(), subject, g.clock())
	if err != nil || len(all) != 1 {
		t.Errorf("%d sessions of %s, %v", len(all), subject, err)
	}
}

// TestTriesComeBack: who gives the factor has used up none of the tries of the name.
func TestTriesComeBack(t *testing.T) {
	g, phone := steppedUpGate(t, true, true, whoHasOne)
	for i := range 15 { // the name has ten tries
		c := g.thief(t, true)
		if got := c.through(c.give(c.held(alice, "correct-alice"), phone.code())); got.status != http.StatusOK {
			t.Fatalf("login %d: %d\n%s", i, got.status, got.body)
		}
		g.advance(30 * time.Second)
	}
}

// TestUnproven: what is kept back is published as such, and again when it is released.
func TestUnproven(t *testing.T) {
	g, phone := steppedUpGate(t, true, true, whoHasOne)
	before := len(g.happened())
	c := g.thief(t, true)
	c.held(alice, "wrong")
	c = g.thief(t, true)
	page := c.held(alice, "correct-alice")
	if got := c.through(c.give(page, phone.code())); got.status != http.StatusOK {
		t.Fatalf("released: %d", got.status)
	}
	var seen []string
	for _, e := range g.happened()[before:] {
		if e.Kind != detectors.Login {
			continue
		}
		seen = append(seen, fmt.Sprintf("%s unproven=%v %s", e.Outcome, e.Unproven, e.Existence))
		if e.Password.Digest.IsZero() || e.Client.Family == "" || e.Fingerprint != e.Client.Fingerprint() || e.Account != alice {
			t.Errorf("event %+v", e)
		}
	}
	if want := []string{"failure unproven=false exists", "success unproven=true exists", "success unproven=false exists"}; !cmp.Equal(seen, want) {
		t.Errorf("events %q, want %q", seen, want)
	}
}
