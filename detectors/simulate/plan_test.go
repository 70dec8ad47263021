package simulate_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors/simulate"
)

func TestPlansRepeat(t *testing.T) {
	o := simulate.Office{People: people("office", 200), Source: office, Mistype: 0.1}
	l := simulate.List{Accounts: people("other", 300), Pairs: 1000, HitRate: 0.005, Source: thief}
	type plans struct {
		Office []simulate.Visit
		List   [][2]string
	}
	plan := func(seed uint64) plans {
		visits, err := simulate.OfficePlan(o, 20*time.Second, seed)
		if err != nil {
			t.Fatal(err)
		}
		pairs, err := simulate.ListPlan(l, seed)
		if err != nil {
			t.Fatal(err)
		}
		return plans{visits, pairs}
	}
	if d := cmp.Diff(plan(1), plan(1)); d != "" {
		t.Errorf("one seed made two plans:\n%s", d)
	}
	if cmp.Equal(plan(1).Office, plan(2).Office) || cmp.Equal(plan(1).List, plan(2).List) {
		t.Error("two seeds made one plan")
	}
}

func TestOfficePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "people")
		share := rapid.Float64Range(0, 1).Draw(t, "mistype")
		window := time.Duration(rapid.Int64Range(int64(time.Second), int64(simulate.WindowMax)).Draw(t, "window"))
		o := simulate.Office{People: people("p", n), Source: office, Mistype: share}
		visits, err := simulate.OfficePlan(o, window, rapid.Uint64().Draw(t, "seed"))
		if err != nil {
			t.Fatal(err)
		}
		seen, typos := make(map[int]bool), 0
		last := time.Duration(0)
		for _, v := range visits {
			if seen[v.Person] {
				t.Fatalf("person %d comes twice", v.Person)
			}
			seen[v.Person] = true
			if v.At < last {
				t.Fatalf("%v comes after %v", v.At, last)
			}
			last = v.At
			if v.Typo != "" {
				typos++
				if v.Typo == o.People[v.Person].Password {
					t.Fatalf("person %d mistypes the right password", v.Person)
				}
			}
			if v.At+v.Retry > window {
				t.Fatalf("person %d is through at %v of %v", v.Person, v.At+v.Retry, window)
			}
		}
		if len(seen) != n || typos != int(float64(n)*share+0.5) {
			t.Fatalf("%d of %d people came and %d mistyped, want all and a share of %v", len(seen), n, typos, share)
		}
	})
}

func TestListPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		accounts := people("p", rapid.IntRange(0, 100).Draw(t, "accounts"))
		right := make(map[string]string)
		for _, a := range accounts {
			right[a.Name] = a.Password
		}
		l := simulate.List{Accounts: accounts, Pairs: rapid.IntRange(1, 500).Draw(t, "pairs"), Source: thief}
		want := rapid.IntRange(0, min(len(accounts), l.Pairs)).Draw(t, "hits")
		l.HitRate = float64(want) / float64(l.Pairs)
		pairs, err := simulate.ListPlan(l, rapid.Uint64().Draw(t, "seed"))
		if err != nil {
			t.Fatal(err)
		}
		names, hits := make(map[string]bool), 0
		for _, p := range pairs {
			if names[p[0]] {
				t.Fatalf("%s stands in the list twice", p[0])
			}
			names[p[0]] = true
			if right[p[0]] == p[1] {
				hits++
			}
		}
		if len(pairs) != l.Pairs || hits != want {
			t.Fatalf("%d pairs with %d hits, want %d with %d", len(pairs), hits, l.Pairs, want)
		}
	})
}

func FuzzMistyped(f *testing.F) {
	for seed, password := range []string{"a", "aa", "ab", "パスワード", "correct horse"} {
		f.Add(uint64(seed), password)
	}
	f.Fuzz(func(t *testing.T, seed uint64, password string) {
		if password == "" {
			t.Skip("nobody has an empty password")
		}
		if got := simulate.Mistyped(seed, password); got == "" || got == string([]rune(password)) {
			t.Errorf("mistyped %q is %q", password, got)
		}
	})
}

func TestRead(t *testing.T) {
	const problem = "application/problem+json"
	for _, tt := range []struct {
		name        string
		status      int
		contentType string
		body        string
		gate        bool
		verdict     string
	}{
		{"let in", 200, "application/json", `{}`, false, "accepted"},
		{"let in by redirect", 303, "", "", false, "accepted"},
		{"wrong password", 401, "application/json; charset=utf-8", `{"errors":["Invalid"]}`, false, "wrong"},
		{"refused", 403, problem, `{"type":"/.kidoban/problems/refused"}`, true, "refused"},
		{"limited", 429, problem + "; charset=utf-8", `{"type":"/.kidoban/problems/limited"}`, true, "refused"},
		{"unavailable", 503, problem, `{"type":"/.kidoban/problems/unavailable"}`, true, "refused"},
		{"session ended is the gate's, though 401", 401, problem, `{"type":"/.kidoban/problems/session-ended"}`, true, "refused"},
		{"step-up", 403, problem, `{"type":"/.kidoban/problems/step-up"}`, true, "step-up"},
		{"held for a factor", 401, problem, `{"type":"/.kidoban/problems/factor-needed"}`, true, "step-up"},
		{"a backend's own 403", 403, "text/plain", "no", false, "refused"},
		{"a backend's own problem", 401, problem, `{"type":"about:blank"}`, false, "wrong"},
		{"a torn problem", 401, problem, `{"type":"/.kidoban/pro`, false, "wrong"},
		{"bad gateway", 502, "", "", false, "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gate, verdict := simulate.Read(tt.status, tt.contentType, []byte(tt.body))
			if gate != tt.gate || verdict != tt.verdict {
				t.Errorf("got gate %v, %s; want gate %v, %s", gate, verdict, tt.gate, tt.verdict)
			}
		})
	}
}

func TestCounter(t *testing.T) {
	var c simulate.Counter
	h := c.Handler(http.NotFoundHandler())
	for _, tt := range []struct{ method, path, forwarded string }{
		{"POST", "/login", "203.0.113.7"},
		{"POST", "/login", "203.0.113.7, 127.0.0.1"},
		{"POST", "/login", "::ffff:203.0.113.7"},
		{"POST", "/login", "198.18.0.1"},
		{"POST", "/login", ""},
		{"GET", "/login", "203.0.113.7"},
		{"POST", "/logout", "203.0.113.7"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", tt.forwarded)
		h.ServeHTTP(discard{}, r)
	}
	if got := c.Logins(thief); got != 3 {
		t.Errorf("%d log-ins from %v, want 3", got, thief)
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func BenchmarkListPlan(b *testing.B) {
	l := simulate.List{Accounts: people("other", 2000), Pairs: 10_000, HitRate: 0.005, Source: thief}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := simulate.ListPlan(l, 1); err != nil {
			b.Fatal(err)
		}
	}
}
