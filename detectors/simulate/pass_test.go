package simulate_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors/simulate"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func number(n int) *int { return &n }

func TestPass(t *testing.T) {
	calm := simulate.Benign{Logins: 50}
	for _, tt := range []struct {
		name string
		gate func(http.Handler) http.Handler
		want simulate.Score
	}{
		{
			name: "nothing in front: every right pair is an account lost",
			want: simulate.Score{Attack: simulate.Attack{Attempts: 300, ReachedBackend: 300, AccountsLost: 30}, Benign: calm},
		},
		{
			name: "a gate refuses the attack from its eleventh attempt on; one pair had worked before",
			gate: func(next http.Handler) http.Handler {
				var n atomic.Int64
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if isLogin(r, thief) && n.Add(1) > 10 {
						problem(w, http.StatusForbidden, "refused")
						return
					}
					next.ServeHTTP(w, r)
				})
			},
			want: simulate.Score{Attack: simulate.Attack{Attempts: 300, ReachedBackend: 10, AccountsLost: 1, FirstAction: number(10)}, Benign: calm},
		},
		{
			name: "a gate closes sessions later: what does not open at the end is not lost",
			gate: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodGet && strings.HasPrefix(r.Header.Get("X-Forwarded-For"), thief.String()) {
						problem(w, http.StatusUnauthorized, "session-ended")
						return
					}
					next.ServeHTTP(w, r)
				})
			},
			want: simulate.Score{Attack: simulate.Attack{Attempts: 300, ReachedBackend: 300}, Benign: calm},
		},
		{
			name: "a gate limits the office",
			gate: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if isLogin(r, office) {
						problem(w, http.StatusTooManyRequests, "limited")
						return
					}
					next.ServeHTTP(w, r)
				})
			},
			// Five mistyped first: they were turned away twice.
			want: simulate.Score{Attack: simulate.Attack{Attempts: 300, ReachedBackend: 300, AccountsLost: 30}, Benign: simulate.Benign{Logins: 50, Refused: 55}},
		},
		{
			name: "a gate steps everybody up",
			gate: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost {
						problem(w, http.StatusForbidden, "step-up")
						return
					}
					next.ServeHTTP(w, r)
				})
			},
			want: simulate.Score{Attack: simulate.Attack{Attempts: 300, FirstAction: number(0)}, Benign: simulate.Benign{Logins: 50, SteppedUp: 55}},
		},
		{
			name: "a gate deceives everybody",
			gate: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost {
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					next.ServeHTTP(w, r)
				})
			},
			want: simulate.Score{Attack: simulate.Attack{Attempts: 300}, Benign: simulate.Benign{Logins: 50, Deceived: 50}},
		},
		{
			name: "let in without a session that opens anything is turned away",
			gate: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if isLogin(r, office) {
						return // 200, and no cookie
					}
					next.ServeHTTP(w, r)
				})
			},
			want: simulate.Score{Attack: simulate.Attack{Attempts: 300, ReachedBackend: 300, AccountsLost: 30}, Benign: simulate.Benign{Logins: 50, Refused: 50}},
		},
		{
			name: "a server's own errors are refusals to the office and no action of a gate",
			gate: func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
			},
			want: simulate.Score{Attack: simulate.Attack{Attempts: 300}, Benign: simulate.Benign{Logins: 50, Refused: 55}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := stage(t, tt.gate)
			p.List.Workers = 1 // one after the other, so that "first" is exact
			p.Progress = new(simulate.Progress)
			got, err := p.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("score (-want +got):\n%s", d)
			}
			if got, want := p.Progress.Attempts.Load(), int64(tt.want.Attack.Attempts); got != want {
				t.Errorf("progress tells of %d attempts, want %d", got, want)
			}
		})
	}
}

// A slow answer is told by its clock: the request waits behind nobody here.
func TestDelayIsMeasuredFromTheWrittenRequest(t *testing.T) {
	p := stage(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isLogin(r, office) {
				select {
				case <-time.After(1050 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	p.Office.People, p.Office.Mistype, p.List.Pairs = p.Office.People[:3], 0, 10
	got, err := p.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (simulate.Benign{Logins: 3, DelayedOver1s: 3}); got.Benign != want {
		t.Errorf("got %+v, want %+v", got.Benign, want)
	}
}

// The office shows the cookies it came with; the thief keeps none between pairs.
func TestCookies(t *testing.T) {
	var with, without, thieves atomic.Int64
	p := stage(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := r.Cookie("device")
			switch {
			case isLogin(r, thief) && len(r.Cookies()) > 0:
				thieves.Add(1)
			case isLogin(r, office) && err == nil:
				with.Add(1)
			case isLogin(r, office):
				without.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	p.Office.Mistype = 0
	for i := range p.Office.People[:45] {
		p.Office.People[i].Cookies = []*http.Cookie{{Name: "device", Value: "known", Path: "/"}}
	}
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := [3]int64{with.Load(), without.Load(), thieves.Load()}; got != [3]int64{45, 5, 0} {
		t.Errorf("log-ins with, without and by thieves with cookies: %v, want 45, 5 and 0", got)
	}
}

func TestPassOverTLS(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		want := "HTTP/1.1"
		if http2 {
			want = "HTTP/2.0"
		}
		t.Run(want, func(t *testing.T) {
			var other atomic.Int64
			p := stage(t, nil)
			here, there := p.Office.People, p.List.Accounts
			h := p.Backend.Handler(newService(here, there).handler())
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Proto != want {
					other.Add(1)
				}
				h.ServeHTTP(w, r)
			}))
			srv.EnableHTTP2 = true
			srv.StartTLS()
			t.Cleanup(srv.Close)
			pool := x509.NewCertPool()
			pool.AddCert(srv.Certificate())
			p.Entry = simulate.Entry{URL: srv.URL, TLS: &tls.Config{RootCAs: pool}, HTTP2: http2}
			got, err := p.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if other.Load() != 0 || got.Benign != (simulate.Benign{Logins: 50}) || got.Attack.AccountsLost != 30 {
				t.Errorf("%d requests in another protocol, score %+v", other.Load(), got)
			}
		})
	}
}

func TestPassIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*simulate.Pass)
		want   string
	}{
		{"an entry elsewhere", func(p *simulate.Pass) { p.Entry.URL = "https://chat.example.com" }, "against this machine only"},
		{"an address elsewhere", func(p *simulate.Pass) { p.Entry.URL = "http://192.0.2.1:80" }, "against this machine only"},
		{"an entry with a path", func(p *simulate.Pass) { p.Entry.URL += "/chat" }, "scheme and host only"},
		{"an entry with a password", func(p *simulate.Pass) { p.Entry.URL = "http://u:hunter2@localhost" }, "scheme and host only"},
		{"no window", func(p *simulate.Pass) { p.Window = 0 }, "window 0s"},
		{"a day", func(p *simulate.Pass) { p.Window = 24 * time.Hour }, "at most 1h"},
		{"a limit before the window's end", func(p *simulate.Pass) { p.Limit = time.Millisecond }, "at least the window"},
		{"no counter", func(p *simulate.Pass) { p.Backend = nil }, "no counter"},
		{"one address for all", func(p *simulate.Pass) { p.List.Source = office }, "both come from"},
		{"nobody", func(p *simulate.Pass) { p.Office.People = nil }, "0 people"},
		{"too many people", func(p *simulate.Pass) { p.Office.People = make([]simulate.Account, simulate.PeopleMax+1) }, "want 1 to 20000"},
		{"a person without a password", func(p *simulate.Pass) { p.Office.People[0].Password = "" }, "person 1 has no name"},
		{"a share over all", func(p *simulate.Pass) { p.Office.Mistype = 1.5 }, "want 0 to 1"},
		{"no pairs", func(p *simulate.Pass) { p.List.Pairs = 0 }, "0 pairs"},
		{"too many pairs", func(p *simulate.Pass) { p.List.Pairs = simulate.PairsMax + 1 }, "want 1 to 1000000"},
		{"more hits than accounts", func(p *simulate.Pass) { p.List.HitRate = 1 }, "make more accounts"},
		{"too many workers", func(p *simulate.Pass) { p.List.Workers = 1000 }, "workers"},
		{"nobody answers", func(p *simulate.Pass) { p.Entry.URL = "http://127.0.0.1:1" }, "had no answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := stage(t, nil)
			tt.change(&p)
			_, err := p.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a password: %v", err)
			}
		})
	}
}

func TestPassEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := stage(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			cancel()
			next.ServeHTTP(w, r)
		})
	})
	p.Window, p.Limit = simulate.WindowMax, 0
	if _, err := p.Run(ctx); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("got error %v, want that the pass was cut short", err)
	}
}

func TestScoreJSON(t *testing.T) {
	var got bytes.Buffer
	e := json.NewEncoder(&got)
	e.SetIndent("", "  ")
	for _, s := range []simulate.Score{
		{},
		{
			Attack: simulate.Attack{Attempts: 10000, ReachedBackend: 9, AccountsLost: 1, FirstAction: number(8)},
			Benign: simulate.Benign{Logins: 2000, Refused: 1, SteppedUp: 2, DelayedOver1s: 3, Deceived: 4},
		},
	} {
		if err := e.Encode(s); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join("testdata", "golden", "score.json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("score as JSON (-want +got):\n%s", d)
	}
}

func TestJoin(t *testing.T) {
	one := simulate.Score{Attack: simulate.Attack{Attempts: 9, ReachedBackend: 8, AccountsLost: 0, FirstAction: number(7)}, Benign: simulate.Benign{Logins: 5, Refused: 1}}
	two := simulate.Score{Attack: simulate.Attack{Attempts: 4, ReachedBackend: 9, AccountsLost: 1, FirstAction: number(2)}, Benign: simulate.Benign{Logins: 6, SteppedUp: 2}}
	never := simulate.Score{Attack: simulate.Attack{Attempts: 1}}
	for _, tt := range []struct {
		name   string
		passes []simulate.Score
		want   simulate.Score
	}{
		{"none", nil, simulate.Score{}},
		{"one", []simulate.Score{one}, one},
		{"two", []simulate.Score{two, one}, simulate.Score{
			Attack: simulate.Attack{Attempts: 9, ReachedBackend: 9, AccountsLost: 1, FirstAction: number(7)}, Benign: simulate.Benign{Logins: 11, Refused: 1, SteppedUp: 2}}},
		{"no action is the worst of all, first", []simulate.Score{never, one}, simulate.Score{
			Attack: simulate.Attack{Attempts: 9, ReachedBackend: 8}, Benign: one.Benign}},
		{"no action is the worst of all, last", []simulate.Score{one, never, one}, simulate.Score{
			Attack: simulate.Attack{Attempts: 9, ReachedBackend: 8}, Benign: simulate.Benign{Logins: 10, Refused: 2}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, simulate.Join(tt.passes...)); d != "" {
				t.Errorf("joined (-want +got):\n%s", d)
			}
		})
	}
}
