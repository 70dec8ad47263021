package simulate_test

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
)

const liveScenario = `
id: small
title: {en: small, ja: small}
story: {en: small, ja: small}
form: plain
start: 2026-11-30T09:00:00+09:00
warm: 10m
length: 30m
town: {people: 100, companies: 4, log_ins: 20, flat: true, mistype: 0.2, wrong_name: 0.1, new: 0.1}
crowds:
  - {kind: office, from: 5m, length: 10m, people: 30, mistype: 0.2, device: 0.7, sources: 1}
attacks:
  - {kind: list, from: 2m, length: 20m, attempts: 150, sources: 5, network: hosting, client: tool, hit: 0.2, unknown: 0.3, own: 20}
  - {kind: spray, from: 2m, length: 20m, attempts: 50, sources: 5, network: homes, client: browser, hit: 0.1, unknown: 0.2, passwords: 3}
`

func decoded(t testing.TB, text string) simulate.Scenario {
	t.Helper()
	s, err := simulate.Decode("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const keptCookie = "device"

// remembering sets a device cookie with every login that is let in, and reports whose
// device a request comes from.
type remembering struct {
	next http.Handler

	mu    sync.Mutex
	owner map[string]string // by cookie; guarded by mu
}

func (g *remembering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		g.next.ServeHTTP(w, r)
		return
	}
	kept := httptest.NewRecorder()
	g.next.ServeHTTP(kept, r)
	if kept.Code == http.StatusOK && !g.known(r) {
		g.mu.Lock()
		id := rand.Text()
		g.owner[id] = "somebody"
		g.mu.Unlock()
		http.SetCookie(w, &http.Cookie{Name: keptCookie, Value: id, Path: "/", Secure: true})
	}
	for name, values := range kept.Header() {
		for _, v := range values {
			w.Header().Add(name, v)
		}
	}
	w.WriteHeader(kept.Code)
	w.Write(kept.Body.Bytes())
}

func (g *remembering) known(r *http.Request) bool {
	c, err := r.Cookie(keptCookie)
	g.mu.Lock()
	defer g.mu.Unlock()
	return err == nil && g.owner[c.Value] != ""
}

// judged is a defense that does one thing to those whom it does not like.
type judged struct {
	simulate.Defense
	action  simulate.Action
	dislike func(*detectors.Event) bool
}

func (d judged) Before(e *detectors.Event) simulate.Action {
	if d.dislike(e) {
		return d.action
	}
	return simulate.Allow
}

// Whatever a gate does, a live run counts as one in virtual time does under a defense
// that does the same.
func TestLiveCountsAsVirtual(t *testing.T) {
	s := decoded(t, liveScenario)
	accounts := people("town", 120)
	tool := func(r *http.Request) bool { return strings.HasPrefix(r.UserAgent(), "python-requests/") }
	toolEvent := func(e *detectors.Event) bool { return e.Client.Family == "python-requests" }
	for _, tt := range []struct {
		name   string
		gate   func(g *remembering, w http.ResponseWriter, r *http.Request) bool // whether it answered
		action simulate.Action
		when   func(*detectors.Event) bool
	}{
		{"nothing", func(*remembering, http.ResponseWriter, *http.Request) bool { return false }, simulate.Allow, func(*detectors.Event) bool { return false }},
		{"a tool is asked for more", func(_ *remembering, w http.ResponseWriter, r *http.Request) bool {
			if tool(r) {
				problem(w, http.StatusUnauthorized, "factor-needed")
			}
			return tool(r)
		}, simulate.StepUp, toolEvent},
		{"a tool is refused", func(_ *remembering, w http.ResponseWriter, r *http.Request) bool {
			if tool(r) {
				problem(w, http.StatusForbidden, "refused")
			}
			return tool(r)
		}, simulate.Refuse, toolEvent},
		{"who comes without his device is refused", func(g *remembering, w http.ResponseWriter, r *http.Request) bool {
			known := g.known(r)
			if !known {
				problem(w, http.StatusForbidden, "refused")
			}
			return !known
		}, simulate.Refuse, func(e *detectors.Event) bool { return e.Device.ID == "" }},
		{"foreign addresses are asked for more", func(_ *remembering, w http.ResponseWriter, r *http.Request) bool {
			no := strings.HasPrefix(r.Header.Get("X-Forwarded-For"), "10")
			if no {
				problem(w, http.StatusUnauthorized, "step-up")
			}
			return no
		}, simulate.StepUp, func(e *detectors.Event) bool { return strings.HasPrefix(e.Source.Address.String(), "10") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := &remembering{next: newService(accounts).handler(), owner: map[string]string{"old": "somebody"}}
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := r.Cookie("chat_session"); err == nil && r.Method == http.MethodPost {
					t.Error("somebody logs in who is logged in")
				}
				if r.Method == http.MethodPost && tt.gate(g, w, r) {
					return
				}
				g.ServeHTTP(w, r)
			}))
			defer srv.Close()
			mine := people("town", 120)
			for i := range mine { // all have logged in before
				mine[i].Cookies = []*http.Cookie{{Name: keptCookie, Value: "old"}}
			}
			live := simulate.Live{Entry: simulate.Entry{URL: srv.URL}, Accounts: mine, DeviceCookie: keptCookie, Compress: 1e6}
			got, err := live.Run(t.Context(), s, 3)
			if err != nil {
				t.Fatal(err)
			}
			want, err := simulate.Run(t.Context(), s, 3, "live", judged{simulate.Baselines()[0].New(), tt.action, tt.when})
			if err != nil {
				t.Fatal(err)
			}
			// A slow machine's answers may take over a second.
			for _, r := range []*simulate.Result{&got, &want} {
				for _, g := range []*simulate.Group{&r.People.All, &r.People.Calm, &r.People.Alarm, &r.People.Device, &r.People.Abroad, &r.People.Carrier, &r.People.Crowd} {
					g.Delayed = 0
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("live (+) and virtual (-) differ:\n%s", d)
			}
			if want.Attack.Hits == 0 || want.People.All.LogIns == 0 {
				t.Errorf("the scenario tests nothing: %+v", want)
			}
		})
	}
}

// A right password that is answered like a wrong one is a deception.
func TestLiveSeesDeception(t *testing.T) {
	accounts := people("town", 120)
	back := newService(accounts).handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasPrefix(r.UserAgent(), "python-requests/") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		back.ServeHTTP(w, r)
	}))
	defer srv.Close()
	live := simulate.Live{Entry: simulate.Entry{URL: srv.URL}, Accounts: accounts, DeviceCookie: keptCookie, Compress: 1e6}
	got, err := live.Run(t.Context(), decoded(t, liveScenario), 3)
	if err != nil {
		t.Fatal(err)
	}
	// Of the list, only right pairs are known to be deceived; the spray is let in.
	if a := got.Attack; a.Caught == 0 || a.Lost == 0 || a.Caught+a.Lost > a.Hits {
		t.Errorf("got %+v, want the right pairs of the list caught", a)
	}
}

// A session that opens nothing is no account lost.
func TestLiveLooksIntoSessions(t *testing.T) {
	accounts := people("town", 120)
	back := newService(accounts).handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			problem(w, http.StatusUnauthorized, "session-ended")
			return
		}
		back.ServeHTTP(w, r)
	}))
	defer srv.Close()
	live := simulate.Live{Entry: simulate.Entry{URL: srv.URL}, Accounts: accounts, DeviceCookie: keptCookie, Compress: 1e6}
	got, err := live.Run(t.Context(), decoded(t, liveScenario), 3)
	if err != nil {
		t.Fatal(err)
	}
	if got.Attack.Hits == 0 || got.Attack.Lost != 0 {
		t.Errorf("got %+v, want hits and nothing lost", got.Attack)
	}
}

// Attempts keep their times, compressed.
func TestLiveKeepsTime(t *testing.T) {
	srv := httptest.NewServer(newService(people("town", 120)).handler())
	defer srv.Close()
	live := simulate.Live{Entry: simulate.Entry{URL: srv.URL}, Accounts: people("town", 120), DeviceCookie: keptCookie, Compress: 6000}
	began := time.Now()
	if _, err := live.Run(t.Context(), decoded(t, liveScenario), 3); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 350*time.Millisecond {
		t.Errorf("40 minutes compressed by 6,000 took %v, want 0.4 s or so", took)
	}
}

func TestLiveFaults(t *testing.T) {
	enough := people("town", 120)
	srv := httptest.NewServer(newService(enough).handler())
	t.Cleanup(srv.Close)
	good := simulate.Live{Entry: simulate.Entry{URL: srv.URL}, Accounts: enough, DeviceCookie: keptCookie, Compress: 1e6}
	for _, tt := range []struct {
		name, from, to string // of the scenario
		change         func(*simulate.Live)
		want           string
	}{
		{"too long", "", "", func(l *simulate.Live) { l.Compress = 3.9 }, "compress more"},
		{"not compressed at all", "", "", func(l *simulate.Live) { l.Compress = 0 }, "lasts 40m0s"},
		{"time does not go back", "", "", func(l *simulate.Live) { l.Compress = -1 }, "want more than 0"},
		{"too few accounts", "", "", func(l *simulate.Live) { l.Accounts = enough[:109] }, "there are 109"},
		{"no cookie", "", "", func(l *simulate.Live) { l.DeviceCookie = "" }, "device cookie"},
		{"another machine", "", "", func(l *simulate.Live) { l.Entry.URL = "http://192.0.2.1" }, "this machine only"},
		{"nobody there", "", "", func(l *simulate.Live) { l.Entry.URL = "http://127.0.0.1:1" }, "no answer"},
		{"an account that is none", "", "", func(l *simulate.Live) { l.Accounts = people("nobody", 120) }, "could not log in"},
		{"a storm", "kind: office", "kind: storm", nil, "crowds[0] is a storm"},
		{"too many log-ins", "attempts: 150", "attempts: 20000", nil, "more than 20000 log-ins"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := good
			if tt.change != nil {
				tt.change(&l)
			}
			s := decoded(t, strings.Replace(liveScenario, tt.from, tt.to, 1))
			_, err := l.Run(t.Context(), s, 3)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
		})
	}
}
