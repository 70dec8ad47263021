package auth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
)

// BenchmarkFactors is what an attempt costs: wrong, with an app and without one;
// and with a key. Neither database syncs here.
func BenchmarkFactors(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkFactors(b, newDatabase(b)) })
	b.Run("postgres", func(b *testing.B) { benchmarkFactors(b, newPostgres(b)) })
}

func benchmarkFactors(b *testing.B, d *database) {
	fs, err := openFactors(b.Context(), d.open(), factorsConfig())
	if err != nil {
		b.Fatal(err)
	}
	e, err := fs.BeginTOTP(b.Context(), "enrolled", "hanako", "phone", start)
	if err != nil {
		b.Fatal(err)
	}
	a := app{e.ID, seedOf(b, e)}
	if _, _, err := fs.FinishTOTP(b.Context(), "enrolled", e.ID, a.code(start), auth.Act{}, start); err != nil {
		b.Fatal(err)
	}
	now := start
	verify := func(b *testing.B, subject string, wait time.Duration, code func() string, want error) {
		for b.Loop() {
			now = now.Add(wait)
			if _, err := fs.VerifyTOTP(b.Context(), subject, code(), auth.Act{}, now); !errors.Is(err, want) {
				b.Fatal(err)
			}
		}
	}
	b.Run("right", func(b *testing.B) {
		verify(b, "enrolled", 30*time.Second, func() string { return a.code(now) }, nil)
	})
	// Wrong and right in turn, so that it stays: the average of both.
	b.Run("wrong and right", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			code, want := a.wrong(now), auth.ErrWrongCode
			if n%2 == 0 {
				now = now.Add(30 * time.Second)
				code, want = a.code(now), nil
			}
			if _, err := fs.VerifyTOTP(b.Context(), "enrolled", code, auth.Act{}, now); !errors.Is(err, want) {
				b.Fatal(err)
			}
		}
	})
	b.Run("nobody", func(b *testing.B) {
		verify(b, "nobody", 0, func() string { return "000000" }, auth.ErrWrongCode)
	})
	k := newVirtualKey(b)
	options, err := fs.BeginBindKey(b.Context(), "enrolled", "hanako", "key", "s", false, now)
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := fs.FinishBindKey(b.Context(), "enrolled", "s", k.create(b, options), auth.Act{}, now); err != nil {
		b.Fatal(err)
	}
	for _, subject := range []string{"enrolled", "nobody"} {
		b.Run("key of "+subject, func(b *testing.B) {
			for b.Loop() {
				options, err := fs.BeginKey(b.Context(), subject, "login", now)
				if err != nil {
					b.Fatal(err)
				}
				answer := k.get(b, options)
				if _, err := fs.UseKey(b.Context(), subject, "login", answer, auth.Act{}, now); (err == nil) != (subject == "enrolled") {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if all, err := fs.List(b.Context(), "enrolled"); err != nil || len(all) != 2 {
				b.Fatal(all, err)
			}
		}
	})
}
