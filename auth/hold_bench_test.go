package auth_test

import (
	"fmt"
	"testing"

	"github.com/kidoban/kidoban/auth"
)

// Looking a hold up, with 1,000 open.
func BenchmarkHolds(b *testing.B) {
	for name, d := range map[string]*database{"sqlite": newDatabase(b), "postgres": newPostgres(b)} {
		holds, err := auth.OpenHolds(b.Context(), d.open(), newSeal(), auth.HoldsConfig{}, start)
		if err != nil {
			b.Fatal(err)
		}
		var tokens []string
		var hashes []auth.CredentialHash
		for i := range 1000 {
			o := aHold(fmt.Sprint("acc-", i), fmt.Sprint(i))
			_, token, err := holds.Begin(b.Context(), o, heldAnswer, start)
			if err != nil {
				b.Fatal(err)
			}
			tokens, hashes = append(tokens, token), append(hashes, o.Credentials[0].Hash)
		}
		b.Run(name+"/by token", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := holds.ByToken(b.Context(), tokens[i%1000], start); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/by credential", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := holds.ByCredential(b.Context(), "cookie", hashes[i%1000], start); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/by unknown credential", func(b *testing.B) {
			b.ReportAllocs()
			unknown := auth.HashCredential("cookie", "unknown")
			for b.Loop() {
				if _, err := holds.ByCredential(b.Context(), "cookie", unknown, start); err == nil {
					b.Fatal("an unknown credential has a hold")
				}
			}
		})
		b.Run(name+"/begin", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := holds.Begin(b.Context(), aHold("acc-1", "x"), heldAnswer, start); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
