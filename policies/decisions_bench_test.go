package policies_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// crowd is a store with n live decisions about many kinds of subjects, made
// without transactions.
type crowd struct {
	policies.DecisionStore
	n int
}

func (c crowd) Standing(_ context.Context, _ time.Time, each func(policies.Stored)) (uint64, error) {
	for i := range c.n {
		each(policies.Stored{Decision: crowdDecision(i), Revision: 1})
	}
	return 1, nil
}

// crowdDecision is the ith of a crowd: mostly addresses and networks over all of
// both families, some of everything else.
func crowdDecision(i int) policies.Decision {
	r := rand.New(rand.NewPCG(7, uint64(i)))
	d := policies.Decision{ID: fmt.Sprintf("%026d", i), Action: rules.StepUp, Mode: rules.Enforce, Origin: policies.OriginRule, By: "stuffing.sequential", Rule: "stuffing.sequential",
		Reason: "names in order", Created: noon, Until: noon.Add(time.Hour)}
	scattered := uint32(i) * 2654435761 // odd, so that no two are equal
	v4 := netip.AddrFrom4([4]byte{byte(scattered >> 24), byte(scattered >> 16), byte(scattered >> 8), byte(scattered)})
	switch i % 10 {
	case 0, 1, 2, 3:
		d.Scope, d.Value = policies.ScopeAddress, v4.String()
	case 4, 5:
		p, _ := v4.Prefix(16 + r.IntN(13))
		d.Scope, d.Value = policies.ScopeNetwork, p.String()
	case 6:
		d.Scope, d.Value = policies.ScopeNetwork, fmt.Sprintf("2001:%x:%x:%x::/64", r.Uint32()>>16, r.Uint32()>>16, r.Uint32()>>16)
	case 7:
		d.Scope, d.Value = policies.ScopeAccount, fmt.Sprint(i)
	case 8:
		d.Scope, d.Value = policies.ScopeCredential, fmt.Sprintf("%032x", i)
	default:
		d.Scope, d.Value = policies.ScopeDevice, fmt.Sprintf("device-%d", i)
	}
	return d
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{0, 1_000, 1_000_000} {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d := open(b, crowd{n: n}, noon)
		runtime.GC()
		runtime.ReadMemStats(&after)
		now := noon.Add(time.Minute)
		r := rand.New(rand.NewPCG(1, 2))
		subjects := make([]policies.Subject, 1024)
		for i := range subjects {
			subjects[i] = policies.Subject{
				Address: netip.AddrFrom4([4]byte{byte(r.IntN(223) + 1), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}),
				ASN:     64500, Country: "JP", Account: fmt.Sprint(r.IntN(1_000_000)), Session: "s", Device: fmt.Sprintf("device-%d", r.IntN(1_000_000)),
				Credential: fmt.Sprintf("%032x", r.IntN(1_000_000)), Fingerprint: "f",
			}
		}
		for _, run := range []struct {
			name string
			many int
		}{{"one subject", 1}, {"many subjects", len(subjects)}} {
			b.Run(fmt.Sprintf("%d decisions/%s", n, run.name), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					d.Match(subjects[i%run.many], now)
					i++
				}
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
			})
		}
		runtime.KeepAlive(d)
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	d := open(t, crowd{n: 10_000}, noon)
	hit := crowdDecision(10)
	for _, s := range []policies.Subject{at(hit.Value), at("192.0.2.1"), {ASN: 64500, Account: "7", Device: "device-9", Credential: "x", Fingerprint: "f", Session: "s", Country: "JP"}} {
		if n := testing.AllocsPerRun(100, func() { d.Match(s, noon) }); n != 0 {
			t.Errorf("%+v: got %v allocations, want 0", s, n)
		}
	}
	if got, _ := d.Match(at(hit.Value), noon); got.ID == "" {
		t.Error("nothing was matched")
	}
}

func BenchmarkRegister(b *testing.B) {
	for _, name := range places[1:] {
		b.Run(name, func(b *testing.B) {
			d := openTelling(b, openPlace(b, name).store)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				n := ruleDecision(policies.ScopeASN, fmt.Sprint(i+1))
				if _, err := d.Register(b.Context(), n, noon); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkOpen loads a million decisions from SQLite.
func BenchmarkOpen(b *testing.B) {
	const total = 1_000_000
	store := openSQLStore(b)
	for from := 0; from < total; from += 100_000 {
		_, err := store.Update(b.Context(), func(tx policies.DecisionTx) error {
			for i := from; i < from+100_000; i++ {
				d := crowdDecision(i)
				d.By = fmt.Sprintf("rule.%d", i/20_000) // many rules, as a year leaves them
				d.Rule = rules.ID(d.By)
				if i%10 == 4 || i%10 == 5 {
					d.Scope, d.Value = policies.ScopeSession, fmt.Sprint(i) // two networks may be one decision
				}
				if err := tx.Put(d, policies.StateLive); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for b.Loop() {
		open(b, store, noon)
	}
}
