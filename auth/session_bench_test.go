package auth_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/auth"
)

// inMemory is n sessions in memory, and nowhere else, with the tokens of the
// first thousand, the bearer of each of those, and the bytes of memory of each
// session.
func inMemory(b *testing.B, n int) (ss *auth.Sessions, tokens, bearers []string, each float64) {
	ss, err := auth.OpenSessions(b.Context(), auth.Nowhere{}, auth.SessionsConfig{CacheSize: n}, start)
	if err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		bearer := fmt.Sprint(strings.Repeat("x", 1<<10-10), i)
		_, token, err := ss.Begin(b.Context(), auth.Session{
			Kind: auth.BrowserSession, Subject: fmt.Sprint("acc-", i), Organization: "org-1", Device: "5F4XAXTQPXX4LJ2BTUFW7ZIJLQ", AAL: 1, Source: "203.0.113.7",
		}, creds("bearer", bearer), start)
		if err != nil {
			b.Fatal(err)
		}
		if i < 1000 {
			tokens, bearers = append(tokens, token), append(bearers, bearer)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	return ss, tokens, bearers, float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
}

func BenchmarkSessions(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ss, tokens, bearers, each := inMemory(b, n)
			ctx := b.Context()
			b.Run("by token", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := ss.ByToken(ctx, tokens[i%len(tokens)], start); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(each, "B/session")
			})
			b.Run("by token in parallel", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(p *testing.PB) {
					for i := 0; p.Next(); i++ {
						if _, err := ss.ByToken(ctx, tokens[i%len(tokens)], start); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
			b.Run("by bearer of 1 KiB", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := ss.ByCredential(ctx, "bearer", auth.HashCredential("bearer", bearers[i%len(bearers)]), start); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("by unknown token", func(b *testing.B) {
				unknown := strings.Repeat("A", 43)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := ss.ByToken(ctx, unknown, start); err == nil {
						b.Fatal("an unknown token opens something")
					}
				}
			})
		})
	}
}

// Reading a session that is in memory takes no SQL and allocates nothing.
func TestReadingAllocatesNothing(t *testing.T) {
	s := newSessionBench(t, newDatabase(t), auth.SessionsConfig{})
	_, token := s.begin("acc-1", "", start, "a")
	hash := auth.HashCredential("cookie", "a")
	asked := s.asked(func() {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := s.ByToken(t.Context(), token, start); err != nil {
				t.Fatal(err)
			}
			if _, err := s.ByCredential(t.Context(), "cookie", hash, start); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations, want none", n)
		}
	})
	if asked != 0 {
		t.Errorf("asked the store %d times, want none", asked)
	}
}

func BenchmarkBegin(b *testing.B) {
	ss, err := auth.OpenSessions(b.Context(), newDatabase(b).open(), auth.SessionsConfig{}, start)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, _, err := ss.Begin(b.Context(), auth.Session{Kind: auth.BrowserSession, Subject: "acc-1"}, creds("cookie", fmt.Sprint(i)), start); err != nil {
			b.Fatal(err)
		}
	}
}

// A session that is not in memory, as after a restart.
func BenchmarkLookUp(b *testing.B) {
	for name, d := range map[string]*database{"sqlite": newDatabase(b), "postgres": newPostgres(b)} {
		b.Run(name, func(b *testing.B) {
			ss, err := auth.OpenSessions(b.Context(), d.open(), auth.SessionsConfig{CacheSize: 1}, start)
			if err != nil {
				b.Fatal(err)
			}
			var hashes []auth.CredentialHash
			for i := range 100 {
				cookies := creds("cookie", fmt.Sprint(i))
				if _, _, err := ss.Begin(b.Context(), auth.Session{Kind: auth.BrowserSession, Subject: fmt.Sprint("acc-", i)}, cookies, start); err != nil {
					b.Fatal(err)
				}
				hashes = append(hashes, cookies[0].Hash)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := ss.ByCredential(b.Context(), "cookie", hashes[i%len(hashes)], start); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
